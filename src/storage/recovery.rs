//! Opens a data directory: identity, log, snapshots, home, in this order, each checked against the
//! ones before it.
//!
//! Log and vote are the truth; damage there refuses to start. The home is only ever a convenience:
//! one that does not open, does not add up, or is behind is rebuilt from the newest snapshot and
//! the log, without an operator.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::LogId;
use super::error::StorageError;
use super::files::{Files, make_dir, sync_dir};
use super::home::{Home, HomeState, Meta};
use super::identity::{DirLock, IdentityFile};
use super::install;
use super::shared_home::{Piece, SharedHome};
use super::sim::SimDisk;
use super::snapshot::SnapshotStore;
use super::view::Current;
use super::wal::{Wal, WalOp, WalOptions, WalState};
use crate::state::State;

pub(super) const WAL_DIR: &str = "wal";
pub(super) const HOME_DIR: &str = "state";
pub(super) const SNAPSHOT_DIR: &str = "snapshots";
/// Broken homes kept for whoever wants to look at them.
const BROKEN_KEPT: usize = 2;
const ROWS_PER_PIECE: usize = 1024;

/// Where a member keeps its data.
#[derive(Debug, Clone)]
pub enum Disk {
    /// A directory of a real disk.
    Dir(PathBuf),
    /// A simulated disk.
    Simulated(SimDisk),
}

/// What became of the home of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HomeFate {
    /// There was nothing yet.
    New,
    /// It was whole and was loaded.
    Intact,
    /// It was not usable, and was made anew.
    Rebuilt {
        /// What was wrong.
        why: String,
        /// The index of the snapshot it was filled from; from nothing, the log replays all.
        from_snapshot: Option<u64>,
    },
}

/// What opening a data directory found and did.
#[derive(Debug, Clone)]
pub struct RecoveryReport {
    /// What became of the home.
    pub home: HomeFate,
    /// Damaged snapshot files set aside.
    pub snapshots_set_aside: u32,
    /// The state was ahead of this member's own log, whose tail had not been flushed: a snapshot
    /// was written, and openraft moves the log's start up to it.
    pub state_ahead_of_log: bool,
    /// Rows loaded.
    pub rows: u64,
    /// Index the state is at before the log is replayed.
    pub applied: u64,
    /// Last index in the log.
    pub last_log: u64,
    /// How long it took.
    pub took: Duration,
}

/// The parts of an opened data directory.
pub(super) struct Recovered {
    pub(super) lock: Option<DirLock>,
    pub(super) identity: IdentityFile,
    pub(super) wal: Wal,
    pub(super) snapshots: SnapshotStore,
    pub(super) home: Home,
    pub(super) current: Current,
    pub(super) report: RecoveryReport,
}

/// The places the parts are in.
struct Places {
    lock: Option<DirLock>,
    root: Files,
    snapshots: Files,
    wal: Wal,
    /// The log's directory was there before.
    wal_was_there: bool,
}

fn open_places(disk: &Disk, options: WalOptions) -> Result<Places, StorageError> {
    match disk {
        Disk::Dir(dir) => {
            make_dir(dir)?;
            let lock = DirLock::take(dir)?;
            let root = Files::open(dir.clone())?;
            let snapshots = Files::open(dir.join(SNAPSHOT_DIR))?;
            let wal_dir = dir.join(WAL_DIR);
            let wal_was_there = wal_dir.is_dir();
            make_dir(&wal_dir)?;
            let wal = Wal::open(&wal_dir, options)?;
            Ok(Places { lock: Some(lock), root, snapshots, wal, wal_was_there })
        }
        Disk::Simulated(disk) => {
            let handle = disk.handle();
            let root = Files::simulated(handle.clone(), "");
            let snapshots = Files::simulated(handle.clone(), "snapshots/");
            let wal = Wal::Simulated(handle);
            Ok(Places { lock: None, root, snapshots, wal, wal_was_there: true })
        }
    }
}

/// Opens everything; see the module's description.
pub(super) fn recover(
    disk: &Disk,
    options: WalOptions,
    home_cache_bytes: u64,
) -> Result<Recovered, StorageError> {
    let started = Instant::now();
    let Places { lock, root, snapshots, mut wal, wal_was_there } = open_places(disk, options)?;
    let identity = IdentityFile::open(root)?;
    let log = wal.state()?;
    check_identity(&identity, &log, wal_was_there)?;
    let (snapshots, snapshots_set_aside) = SnapshotStore::open(snapshots)?;
    let (home, current, fate) = match disk {
        Disk::Dir(dir) => {
            let path = dir.join(HOME_DIR);
            recover_home(Some(&path), &snapshots, &log, || Home::open(&path, home_cache_bytes))?
        }
        Disk::Simulated(disk) => {
            recover_home(None, &snapshots, &log, || Ok(Home::Simulated(disk.handle())))?
        }
    };
    let state_ahead_of_log = follow_state(&mut wal, &log, &home, &current, &snapshots)?;
    let report = RecoveryReport {
        home: fate,
        snapshots_set_aside,
        state_ahead_of_log,
        rows: current.state.digest().rows,
        applied: current.applied_index(),
        last_log: log.last.map_or(0, |id| id.index),
        took: started.elapsed(),
    };
    Ok(Recovered { lock, identity, wal, snapshots, home, current, report })
}

fn check_identity(
    identity: &IdentityFile,
    log: &WalState,
    wal_was_there: bool,
) -> Result<(), StorageError> {
    match identity.get() {
        Some(_) if !wal_was_there => Err(StorageError::DiskWentBack {
            what: "the log is gone, but the identity file is there".to_owned(),
        }),
        Some(identity) => identity.check_log(log),
        None if *log != WalState::default() => Err(StorageError::IdentityMissing),
        None => Ok(()),
    }
}

/// Why a home cannot be used as it is, and whether the files themselves are to blame.
struct Unusable {
    why: String,
    broken: bool,
}

fn recover_home(
    path: Option<&Path>,
    snapshots: &SnapshotStore,
    log: &WalState,
    open: impl Fn() -> Result<Home, StorageError>,
) -> Result<(Home, Current, HomeFate), StorageError> {
    let unusable = match open() {
        Err(error) => Unusable { why: error.to_string(), broken: true },
        Ok(home) => match load_home(&home, log) {
            Ok(Some(current)) => return Ok((home, current, HomeFate::Intact)),
            Ok(None) if snapshots.current().is_none() && log.purged.is_none() => {
                let fate = match log.committed {
                    // sled was emptied behind our back, or this is the first start.
                    Some(_) => {
                        HomeFate::Rebuilt { why: "it was empty".to_owned(), from_snapshot: None }
                    }
                    None => HomeFate::New,
                };
                return Ok((home, Current::default(), fate));
            }
            Ok(None) => Unusable { why: "it was empty".to_owned(), broken: false },
            Err(unusable) => unusable,
        },
    };
    tracing::error!(why = unusable.why, "the home of the state is not usable; rebuilding it");
    if unusable.broken
        && let Some(path) = path
    {
        set_aside(path)?;
    }
    let home = open()?;
    let (current, from_snapshot) = rebuild(&home, snapshots, log)?;
    let fate = HomeFate::Rebuilt { why: unusable.why, from_snapshot };
    Ok((home, current, fate))
}

/// Loads the state, unless the home is empty.
fn load_home(home: &Home, log: &WalState) -> Result<Option<Current>, Unusable> {
    let broken = |error: StorageError| Unusable { why: error.to_string(), broken: true };
    let meta = match home.state().map_err(broken)? {
        HomeState::Empty => return Ok(None),
        HomeState::Installing => {
            let why = "a crash cut the installation of a snapshot short".to_owned();
            return Err(Unusable { why, broken: false });
        }
        HomeState::Complete(meta) => meta,
    };
    if meta.applied < log.purged {
        let why = format!("it is at {:?}, before the start of the log", meta.applied);
        return Err(Unusable { why, broken: false });
    }
    let state = install::load(home, &meta).map_err(broken)?;
    let Meta { applied, membership, digest: _ } = meta;
    Ok(Some(Current { state, applied, membership }))
}

/// Fills the home from the newest snapshot, or empties it when the log alone gives the state.
fn rebuild(
    home: &Home,
    snapshots: &SnapshotStore,
    log: &WalState,
) -> Result<(Current, Option<u64>), StorageError> {
    let reaches = |id: Option<LogId>| id >= log.purged;
    match snapshots.current().filter(|snapshot| reaches(snapshot.position().applied)) {
        Some(snapshot) => {
            let state = install::fill(home, &snapshot)?;
            let Meta { applied, membership, digest: _ } = snapshot.position().clone();
            let current = Current { state, applied, membership };
            let index = current.applied_index();
            Ok((current, Some(index)))
        }
        None => match log.purged {
            Some(purged) => Err(StorageError::StateLost { purged: purged.index }),
            None => {
                home.begin_install()?;
                home.write(&crate::state::Changes::default(), &Meta::default())?;
                Ok((Current { state: State::default(), ..Current::default() }, None))
            }
        },
    }
}

/// Entries are applied once a quorum has them, which may be before this member's own log is
/// flushed. After a power cut the state may then be ahead of the log: openraft closes the hole by
/// purging, which takes a durable snapshot, so one is written. A stale tail that the lost part of
/// the log would have replaced goes first. Gives whether that was so.
fn follow_state(
    wal: &mut Wal,
    log: &WalState,
    home: &Home,
    current: &Current,
    snapshots: &SnapshotStore,
) -> Result<bool, StorageError> {
    let Some(applied) = current.applied.filter(|applied| Some(*applied) > log.purged) else {
        return Ok(false);
    };
    let in_log = wal.read(applied.index, applied.index + 1, 1)?.pop().map(|entry| entry.log_id);
    if in_log == Some(applied) {
        return Ok(false);
    }
    tracing::warn!(?applied, last = ?log.last, "the state is ahead of the log; writing a snapshot");
    if snapshots.current().is_none_or(|newest| newest.position().applied < Some(applied)) {
        write_snapshot(home, current.meta(), snapshots)?;
    }
    if let Some(tail) = stale_tail(wal, log, applied)? {
        wal.write(WalOp::TruncateAfter(tail))?;
    }
    Ok(true)
}

/// When the log holds another entry at `applied` or after it, the id of the last entry to keep.
fn stale_tail(
    wal: &Wal,
    log: &WalState,
    applied: LogId,
) -> Result<Option<Option<LogId>>, StorageError> {
    if log.last.is_none_or(|last| last.index < applied.index) {
        return Ok(None);
    }
    let before = match applied.index.checked_sub(1) {
        Some(before) => wal.read(before, applied.index, 1)?.pop().map(|entry| entry.log_id),
        None => None,
    };
    Ok(Some(before.max(log.purged)))
}

fn write_snapshot(home: &Home, meta: Meta, snapshots: &SnapshotStore) -> Result<(), StorageError> {
    let shared = SharedHome::new(home.clone());
    let reading = shared.begin_reading()?.expect("nobody else reads this home yet");
    let mut writer = snapshots.begin_writing(&meta)?;
    while let Piece::Rows(rows) = shared.read_piece(reading, ROWS_PER_PIECE)? {
        writer.rows(&rows)?;
    }
    // Were the reading cut short, the digest would not be right.
    snapshots.publish(meta, writer.finish()?)?;
    Ok(())
}

/// Renames a broken home; only the newest few are kept.
fn set_aside(path: &Path) -> Result<(), StorageError> {
    let fail = |error| StorageError::io("cannot set aside", path, error);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let prefix = format!("{}.broken-", name.to_string_lossy());
    let mut numbers: Vec<u64> = fs::read_dir(parent)
        .map_err(fail)?
        .filter_map(|entry| {
            entry.ok()?.file_name().to_string_lossy().strip_prefix(&prefix)?.parse().ok()
        })
        .collect();
    numbers.sort_unstable();
    let next = numbers.last().map_or(1, |last| last + 1);
    fs::rename(path, parent.join(format!("{prefix}{next}"))).map_err(fail)?;
    sync_dir(parent)?;
    numbers.push(next);
    for old in numbers.iter().rev().skip(BROKEN_KEPT) {
        fs::remove_dir_all(parent.join(format!("{prefix}{old}"))).map_err(fail)?;
    }
    Ok(())
}
