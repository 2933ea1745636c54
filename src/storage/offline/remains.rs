//! The parts of a data directory, opened without changing it.
//!
//! Opening the log repairs its tail, and opening sled writes into its files. So both are opened as
//! copies in a scratch directory; identity and snapshots are read where they are.

use std::fs;
use std::path::{Path, PathBuf};

use crate::clock;
use crate::storage::error::StorageError;
use crate::storage::files::{FileReader, Files};
use crate::storage::home::{Home, HomeState, Meta};
use crate::storage::identity::{DirLock, Identity, IdentityFile};
use crate::storage::recovery::{HOME_DIR, SNAPSHOT_DIR, WAL_DIR};
use crate::storage::snapshot;
use crate::storage::snapshot_file::SnapshotReader;
use crate::storage::wal::{Wal, WalOptions, WalState};

/// sled's cache while a copy is read.
const CACHE_BYTES: u64 = 16 << 20;

/// See the module's description. Fields are dropped in this order: what is open in the scratch
/// directory first, then that directory, the lock last.
pub(super) struct Remains {
    pub(super) dir: PathBuf,
    /// `None` with a word in `damage` when there is none or it does not read.
    pub(super) identity: Option<Identity>,
    /// `None` when it does not open.
    pub(super) wal: Option<Wal>,
    pub(super) log: WalState,
    /// Newest first.
    pub(super) snapshots: Vec<SnapshotFound>,
    pub(super) home: HomeFound,
    /// Everything that is not as a healthy member leaves it, in words.
    pub(super) damage: Vec<String>,
    /// The log opens and holds at least what the identity file saw in it.
    pub(super) log_whole: bool,
    _scratch: Scratch,
    _lock: Option<DirLock>,
}

/// A snapshot file.
pub(super) struct SnapshotFound {
    pub(super) name: String,
    pub(super) file: FileReader,
    /// What it is of, or what is wrong with it.
    pub(super) meta: Result<Meta, String>,
}

/// The home of the state.
pub(super) enum HomeFound {
    Empty,
    /// It opens and says so of itself; its rows were not looked at.
    At(Home, Meta),
    Unusable(String),
}

impl Remains {
    /// Opens `dir`, with copies below `scratch`.
    pub(super) fn open(dir: &Path, scratch: &Path) -> Result<Self, StorageError> {
        let nothing =
            |why: &str| StorageError::NothingHere { dir: dir.to_owned(), why: why.into() };
        if !dir.is_dir() {
            return Err(nothing("it is no directory"));
        }
        let lock = DirLock::take_existing(dir)?;
        let parts = [WAL_DIR, SNAPSHOT_DIR, HOME_DIR].map(|part| dir.join(part));
        if !parts.iter().any(|part| part.is_dir()) {
            return Err(nothing("it has no log, no snapshots and no state"));
        }
        let scratch = Scratch::new(scratch)?;
        let mut damage = Vec::new();
        let identity = read_identity(dir, &mut damage);
        let (wal, log) = open_log(dir, &scratch, &mut damage)?;
        let log_whole = wal.is_some() && check_log(identity.as_ref(), &log, &mut damage);
        let snapshots = find_snapshots(dir, &mut damage)?;
        let home = open_home(dir, &scratch, &mut damage)?;
        Ok(Self {
            dir: dir.to_owned(),
            identity,
            wal,
            log,
            snapshots,
            home,
            damage,
            log_whole,
            _scratch: scratch,
            _lock: lock,
        })
    }

    /// The highest term that this directory has heard of.
    pub(super) fn highest_term(&self) -> u64 {
        let seen = self.identity.as_ref().and_then(|identity| identity.last_vote);
        let votes = [self.log.vote, seen].into_iter().flatten().map(|vote| vote.leader_id.term);
        let logs = self.log.last.into_iter().map(|id| id.leader_id.term);
        votes.chain(logs).max().unwrap_or_default()
    }
}

fn read_identity(dir: &Path, damage: &mut Vec<String>) -> Option<Identity> {
    match IdentityFile::read(&Files::plain(dir.to_owned())) {
        Ok(Some(identity)) => return Some(identity),
        Ok(None) => damage.push("there is no identity file: whose data this was is unknown".into()),
        Err(error) => damage.push(error.to_string()),
    }
    None
}

fn open_log(
    dir: &Path,
    scratch: &Scratch,
    damage: &mut Vec<String>,
) -> Result<(Option<Wal>, WalState), StorageError> {
    let from = dir.join(WAL_DIR);
    if !from.is_dir() {
        damage.push("there is no log".to_owned());
        return Ok((None, WalState::default()));
    }
    let copy = scratch.copy(&from, WAL_DIR)?;
    let opened = Wal::open(&copy, WalOptions::default())
        .and_then(|wal| wal.state().map(|state| (wal, state)).map_err(StorageError::from));
    match opened {
        Ok((wal, state)) => Ok((Some(wal), state)),
        Err(error) => {
            damage.push(error.to_string());
            Ok((None, WalState::default()))
        }
    }
}

fn check_log(identity: Option<&Identity>, log: &WalState, damage: &mut Vec<String>) -> bool {
    let Some(identity) = identity else { return false };
    match identity.check_log(log) {
        Ok(()) => true,
        Err(error) => {
            damage.push(error.to_string());
            false
        }
    }
}

fn find_snapshots(
    dir: &Path,
    damage: &mut Vec<String>,
) -> Result<Vec<SnapshotFound>, StorageError> {
    let dir = dir.join(SNAPSHOT_DIR);
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let files = Files::plain(dir);
    let mut found = Vec::new();
    for name in files.names()?.into_iter().rev().filter(|name| name.ends_with(snapshot::SUFFIX)) {
        let Some(file) = files.open_file(&name)? else { continue };
        let meta = SnapshotReader::open(file.clone()).and_then(SnapshotReader::verify);
        let meta = meta.map_err(|error| error.to_string());
        if let Err(error) = &meta {
            damage.push(format!("snapshot {name}: {error}"));
        }
        found.push(SnapshotFound { name, file, meta });
    }
    Ok(found)
}

fn open_home(
    dir: &Path,
    scratch: &Scratch,
    damage: &mut Vec<String>,
) -> Result<HomeFound, StorageError> {
    let from = dir.join(HOME_DIR);
    if !from.is_dir() {
        return Ok(HomeFound::Empty);
    }
    let copy = scratch.copy(&from, HOME_DIR)?;
    let opened =
        Home::open(&copy, CACHE_BYTES).and_then(|home| home.state().map(|state| (home, state)));
    let why = match opened {
        Ok((home, HomeState::Complete(meta))) => return Ok(HomeFound::At(home, meta)),
        Ok((_, HomeState::Empty)) => return Ok(HomeFound::Empty),
        Ok((_, HomeState::Installing)) => {
            "a crash cut the installation of a snapshot short".to_owned()
        }
        Err(error) => error.to_string(),
    };
    damage.push(format!("the home of the state is not usable: {why}"));
    Ok(HomeFound::Unusable(why))
}

/// A directory for copies; deleted when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Self, StorageError> {
        let dir = parent.join(format!("quorate-recover-{:016x}", clock::random()));
        fs::create_dir_all(&dir).map_err(|error| StorageError::io("cannot create", &dir, error))?;
        Ok(Self(dir))
    }

    fn copy(&self, from: &Path, name: &str) -> Result<PathBuf, StorageError> {
        let to = self.0.join(name);
        copy_dir(from, &to)?;
        Ok(to)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, dir = %self.0.display(), "cannot delete a scratch directory");
        }
    }
}

fn copy_dir(from: &Path, to: &Path) -> Result<(), StorageError> {
    let fail = |error| StorageError::io("cannot copy", from, error);
    fs::create_dir_all(to).map_err(fail)?;
    for entry in fs::read_dir(from).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().map_err(fail)?.is_dir() {
            copy_dir(&source, &target)?;
        } else {
            fs::copy(&source, &target)
                .map_err(|error| StorageError::io("cannot copy", &source, error))?;
        }
    }
    Ok(())
}
