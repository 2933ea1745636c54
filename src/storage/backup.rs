//! Backups: a snapshot file with a header in front that says of which cluster it is.
//!
//! `QBAK`, header (length, bytes, checksum), then a snapshot file as it is. The header says when, by
//! whom and of which cluster; index, digest and row count stand in the snapshot's own header. Every
//! byte is under a checksum: the header's, a block's, and that of the whole snapshot.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use xxhash_rust::xxh3::xxh3_64;

use super::codec::{decode_form, encode_form};
use super::error::StorageError;
use super::files::{FileReader, FileWriter, Files, make_dir};
use super::home::Meta;
use super::snapshot::SnapshotData;
use super::snapshot_file::SnapshotReader;
use super::{LogId, Membership};
use crate::model::{MemberId, TimeMs};
use crate::state::Digest;

const MAGIC: &[u8; 4] = b"QBAK";
/// Magic and length of the header.
const HEAD: u64 = 8;
/// The header's checksum.
const SUM: u64 = 8;
/// A longer header is damage.
const HEADER_MAX: u64 = 1 << 20;
/// Bytes copied at once.
const PIECE_BYTES: u64 = 1 << 20;
const PREFIX: &str = "backup-";
const SUFFIX: &str = ".qbak";

/// Where a backup comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupHead {
    /// When it was made, by that member's clock.
    pub created_at_ms: TimeMs,
    /// Which cluster it is of.
    pub cluster_id: u128,
    /// The member that made it.
    pub member_id: MemberId,
    /// That member's name.
    pub member_name: String,
    /// That member's program version.
    pub version: String,
    /// The Raft term that the member was in, which may be above the last entry's.
    pub term: u64,
}

/// Time, cluster, member's number, name and version, term.
type HeadForm = (TimeMs, u128, MemberId, String, String, u64);

fn damaged(cause: impl Into<String>) -> StorageError {
    StorageError::FileDamaged { name: "a backup".to_owned(), cause: cause.into() }
}

impl BackupHead {
    fn encode(&self) -> Bytes {
        let Self { created_at_ms, cluster_id, member_id, member_name, version, term } =
            self.clone();
        let form: HeadForm = (created_at_ms, cluster_id, member_id, member_name, version, term);
        let header = encode_form(&form);
        let len = u32::try_from(header.len()).expect("names are far below 4 GiB");
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&xxh3_64(&header).to_le_bytes());
        bytes.into()
    }

    /// Reads the header; gives it with what stands behind it.
    fn read(file: FileReader) -> Result<(Self, FileReader), StorageError> {
        let cut = || damaged("it is cut short");
        if file.len() < HEAD {
            return Err(cut());
        }
        let mut head = file.read_at(0, HEAD)?;
        if &head[..4] != MAGIC {
            return Err(damaged("it does not begin like one"));
        }
        head.advance(4);
        let len = u64::from(head.get_u32_le());
        if len > HEADER_MAX {
            return Err(damaged("its header is too long"));
        }
        if file.len() < HEAD + len + SUM {
            return Err(cut());
        }
        let header = file.read_at(HEAD, len)?;
        if file.read_at(HEAD + len, SUM)?.get_u64_le() != xxh3_64(&header) {
            return Err(damaged("the checksum of its header is wrong"));
        }
        let form: HeadForm = decode_form(&header, "backup header")?;
        let (created_at_ms, cluster_id, member_id, member_name, version, term) = form;
        let head = Self { created_at_ms, cluster_id, member_id, member_name, version, term };
        Ok((head, file.skip(HEAD + len + SUM)))
    }
}

/// What a backup says of itself.
#[derive(Debug, Clone)]
pub struct BackupInfo {
    /// Where it comes from.
    pub head: BackupHead,
    /// The last log entry in it.
    pub last: LogId,
    /// Digest of the state, with the number of rows.
    pub digest: Digest,
    /// The members at that entry.
    pub membership: Membership,
    /// Its length.
    pub bytes: u64,
}

impl BackupInfo {
    fn of(head: BackupHead, meta: &Meta, bytes: u64) -> Result<Self, StorageError> {
        let last = meta.applied.ok_or_else(|| damaged("it is of an empty state"))?;
        let membership = meta.membership.membership().clone();
        Ok(Self { head, last, digest: meta.digest, membership, bytes })
    }

    /// Reads both headers of a backup, and nothing behind them.
    ///
    /// # Errors
    /// When it is none, its headers are damaged, or the disk fails.
    pub fn read(path: &Path) -> Result<Self, StorageError> {
        open(path).map(|(info, _)| info)
    }
}

/// Opens a backup: what it says of itself, and the snapshot file in it.
pub(super) fn open(path: &Path) -> Result<(BackupInfo, FileReader), StorageError> {
    let (dir, name) = place_of(path)?;
    let missing = || StorageError::Io {
        what: format!("cannot open {}", path.display()),
        source: io::ErrorKind::NotFound.into(),
    };
    let file = Files::plain(dir).open_file(&name)?.ok_or_else(missing)?;
    let bytes = file.len();
    let (head, snapshot) = BackupHead::read(file)?;
    let meta = SnapshotReader::open(snapshot.clone())?.meta().clone();
    Ok((BackupInfo::of(head, &meta, bytes)?, snapshot))
}

fn place_of(path: &Path) -> Result<(PathBuf, String), StorageError> {
    let nameless = || StorageError::io("not a file:", path, io::ErrorKind::InvalidInput.into());
    let name = path.file_name().ok_or_else(nameless)?.to_string_lossy().into_owned();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((parent.unwrap_or_else(|| Path::new(".")).to_owned(), name))
}

/// A backup that is about to be sent or written.
#[derive(Debug, Clone)]
pub struct Backup {
    info: BackupInfo,
    head: Bytes,
    snapshot: SnapshotData,
}

impl Backup {
    /// A backup of what `snapshot` holds.
    ///
    /// # Errors
    /// When the snapshot is of an empty state.
    pub fn new(head: BackupHead, snapshot: SnapshotData) -> Result<Self, StorageError> {
        let encoded = head.encode();
        let bytes = encoded.len() as u64 + snapshot.len();
        let info = BackupInfo::of(head, snapshot.position(), bytes)?;
        Ok(Self { info, head: encoded, snapshot })
    }

    /// What it says of itself.
    #[must_use]
    pub fn info(&self) -> &BackupInfo {
        &self.info
    }

    /// Up to `len` bytes from `offset`; none only at the end.
    ///
    /// # Errors
    /// An IO error of the disk.
    pub fn read_at(&self, offset: u64, len: u64) -> io::Result<Bytes> {
        let head = self.head.len() as u64;
        if offset < head {
            let (from, to) = (offset as usize, head.min(offset.saturating_add(len)) as usize);
            return Ok(self.head.slice(from..to));
        }
        self.snapshot.read_at(offset - head, len)
    }

    /// The name it gets in a directory of backups; names sort by time.
    #[must_use]
    pub fn file_name(&self) -> String {
        let at = i64::try_from(self.info.head.created_at_ms).ok();
        let at = at.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
        let at = at.strftime("%Y%m%dT%H%M%S%.3fZ");
        format!("{PREFIX}{at}-{}{SUFFIX}", self.info.last.index)
    }

    /// Writes it to `path`, durably, and checks what was written.
    ///
    /// # Errors
    /// When the disk fails. Then nothing has the name.
    pub fn write(&self, path: &Path) -> Result<(), StorageError> {
        let mut receiver = BackupReceiver::create(path)?;
        while receiver.received() < self.info.bytes {
            receiver.write(&self.read_at(receiver.received(), PIECE_BYTES)?)?;
        }
        receiver.finish().map(|_info| ())
    }
}

/// Takes a backup that arrives in pieces. Dropped before [`BackupReceiver::finish`], it leaves
/// nothing.
#[derive(Debug)]
pub struct BackupReceiver {
    file: FileWriter,
    name: String,
}

impl BackupReceiver {
    /// Begins a file that will be at `path`.
    ///
    /// # Errors
    /// An IO error of the disk.
    pub fn create(path: &Path) -> Result<Self, StorageError> {
        let (dir, name) = place_of(path)?;
        let file = Files::plain(dir).create(&name)?;
        Ok(Self { file, name })
    }

    /// Bytes so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.file.len()
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// An IO error of the disk.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), StorageError> {
        self.file.write(piece)
    }

    /// fsyncs the file, reads it back and checks every checksum, then gives it its name.
    ///
    /// # Errors
    /// When it is no whole backup, or the disk fails. Then nothing has the name.
    pub fn finish(self) -> Result<BackupInfo, StorageError> {
        let file = self.file.finish()?;
        let bytes = file.reader().len();
        let (head, snapshot) = BackupHead::read(file.reader().clone())?;
        let meta = SnapshotReader::open(snapshot)?.verify()?;
        let info = BackupInfo::of(head, &meta, bytes)?;
        file.publish(&self.name)?;
        Ok(info)
    }
}

/// A directory that backups are kept in. Other files in it are left alone.
#[derive(Debug, Clone)]
pub struct BackupDir {
    dir: PathBuf,
    files: Files,
}

impl BackupDir {
    /// Makes the directory if need be, and deletes backups that a crash left unfinished. For the
    /// one who writes into it.
    ///
    /// # Errors
    /// An IO error of the disk.
    pub fn open(dir: &Path) -> Result<Self, StorageError> {
        make_dir(dir)?;
        let opened = Self::look(dir);
        opened.files.remove_unfinished(PREFIX)?;
        Ok(opened)
    }

    /// The directory as it is, for those who only read it.
    #[must_use]
    pub fn look(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), files: Files::plain(dir.to_owned()) }
    }

    /// Names of finished backups, oldest first.
    ///
    /// # Errors
    /// An IO error of the disk.
    pub fn names(&self) -> Result<Vec<String>, StorageError> {
        let mut names = self.files.names()?;
        names.retain(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        Ok(names)
    }

    /// Where a backup of this name is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Deletes the oldest beyond `keep`, but never `spared`. Gives their names.
    ///
    /// # Errors
    /// An IO error of the disk.
    pub fn prune(&self, keep: usize, spared: Option<&str>) -> Result<Vec<String>, StorageError> {
        let names = self.names()?;
        let old = &names[..names.len().saturating_sub(keep.max(1))];
        let unspared = old.iter().filter(|name| Some(name.as_str()) != spared);
        let gone: Vec<String> = unspared.cloned().collect();
        gone.iter().try_for_each(|name| self.files.remove(name))?;
        Ok(gone)
    }
}
