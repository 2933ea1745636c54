//! The snapshot files of a member: the newest two, and those on their way in from a leader.
//!
//! A snapshot counts once its file is fsynced under its final name. The log is purged only behind
//! the newest one.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::error::StorageError;
use super::files::{FileReader, FileWriter, Files, FinishedFile};
use super::home::Meta;
use super::snapshot_file::{SnapshotReader, SnapshotWriter};
use super::{LogId, SnapshotMeta};

/// How many finished snapshots are kept.
const KEPT: usize = 2;
pub(super) const SUFFIX: &str = ".snapshot";
const BAD_SUFFIX: &str = ".damaged";
/// The most bytes [`SnapshotData::read_at`] gives at once.
const READ_BYTES_MAX: u64 = 16 << 20;

/// A checked snapshot, open for reading: one of this member's files, or one that was received.
/// Clones share it.
#[derive(Debug, Clone)]
pub struct SnapshotData {
    meta: Meta,
    file: FileReader,
    /// Still under a temporary name: taken by the installation, else deleted.
    received: Option<Arc<Mutex<Option<FinishedFile>>>>,
}

impl SnapshotData {
    /// Length of the file in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.file.len()
    }

    /// Never true: there is always a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it is a snapshot of.
    #[must_use]
    pub fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.meta.applied,
            last_membership: self.meta.membership.clone(),
        }
    }

    /// Up to `len` bytes from `offset`; fewer at the end, none after it.
    ///
    /// # Errors
    /// An IO error of the disk.
    pub fn read_at(&self, offset: u64, len: u64) -> io::Result<Bytes> {
        let len = len.min(self.len().saturating_sub(offset)).min(READ_BYTES_MAX);
        Ok(self.file.read_at(offset.min(self.len()), len)?)
    }

    pub(super) fn position(&self) -> &Meta {
        &self.meta
    }

    pub(super) fn reader(&self) -> Result<SnapshotReader, StorageError> {
        SnapshotReader::open(self.file.clone())
    }
}

/// Collects a snapshot that arrives in chunks. Dropped before [`SnapshotReceiver::finish`], it
/// leaves nothing.
#[derive(Debug)]
pub struct SnapshotReceiver(FileWriter);

impl SnapshotReceiver {
    /// Bytes received so far: the offset of the next chunk.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.0.len()
    }

    /// Takes the chunk at `offset`. One that was taken before is ignored.
    ///
    /// # Errors
    /// When chunks are missing before `offset`, or the disk fails.
    pub fn write(&mut self, offset: u64, chunk: &[u8]) -> io::Result<()> {
        let received = self.received();
        if offset > received {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a chunk at {offset} after {received} bytes of a snapshot"),
            ));
        }
        let known = usize::try_from(received - offset).unwrap_or(usize::MAX);
        match chunk.get(known..) {
            Some(fresh) => Ok(self.0.write(fresh)?),
            None => Ok(()),
        }
    }

    /// fsyncs and checks what arrived.
    ///
    /// # Errors
    /// When it is not a whole, undamaged snapshot, or the disk fails.
    pub fn finish(self) -> io::Result<SnapshotData> {
        let file = self.0.finish()?;
        let reader = file.reader().clone();
        let meta = SnapshotReader::open(reader.clone())?.verify()?;
        Ok(SnapshotData { meta, file: reader, received: Some(Arc::new(Mutex::new(Some(file)))) })
    }
}

/// The snapshots of one member. Clones share them.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    files: Files,
    current: Arc<Mutex<Option<SnapshotData>>>,
    incoming: Arc<Mutex<u64>>,
}

fn file_name(id: Option<LogId>) -> String {
    let (term, index) = id.map_or((0, 0), |id| (id.leader_id.term, id.index));
    format!("{term:020}-{index:020}{SUFFIX}")
}

impl SnapshotStore {
    /// Finds the newest snapshot that is whole; newer ones that are not are set aside. Gives how
    /// many were.
    pub(super) fn open(files: Files) -> Result<(Self, u32), StorageError> {
        let mut names = files.names()?;
        names.retain(|name| name.ends_with(SUFFIX));
        let mut current = None;
        let mut set_aside = 0;
        for name in names.iter().rev() {
            let Some(file) = files.open_file(name)? else { continue };
            match SnapshotReader::open(file.clone()).and_then(SnapshotReader::verify) {
                Ok(meta) => {
                    current = Some(SnapshotData { meta, file, received: None });
                    break;
                }
                Err(error @ StorageError::Io { .. }) => return Err(error),
                Err(error) => {
                    tracing::error!(name, %error, "set a damaged snapshot aside");
                    files.rename(name, &format!("{name}{BAD_SUFFIX}"))?;
                    set_aside += 1;
                }
            }
        }
        let incoming = Arc::new(Mutex::new(0));
        Ok((Self { files, current: Arc::new(Mutex::new(current)), incoming }, set_aside))
    }

    /// The newest snapshot.
    #[must_use]
    pub fn current(&self) -> Option<SnapshotData> {
        self.current.lock().clone()
    }

    /// Starts taking a snapshot from a leader.
    ///
    /// # Errors
    /// An IO error of the disk.
    pub fn receive(&self) -> io::Result<SnapshotReceiver> {
        let number = {
            let mut incoming = self.incoming.lock();
            *incoming += 1;
            *incoming
        };
        Ok(SnapshotReceiver(self.files.create(&format!("incoming-{number}"))?))
    }

    pub(super) fn begin_writing(&self, meta: &Meta) -> Result<SnapshotWriter, StorageError> {
        SnapshotWriter::begin(self.files.create(&file_name(meta.applied))?, meta)
    }

    /// Gives a written snapshot its name; it counts from then on.
    pub(super) fn publish(
        &self,
        meta: Meta,
        file: FinishedFile,
    ) -> Result<SnapshotData, StorageError> {
        let file = file.publish(&file_name(meta.applied))?;
        let data = SnapshotData { meta, file, received: None };
        let mut current = self.current.lock();
        let newer = current.as_ref().filter(|known| known.meta.applied > data.meta.applied);
        if newer.is_none() {
            *current = Some(data.clone());
        }
        drop(current);
        self.prune()?;
        Ok(data)
    }

    /// Makes a received snapshot, or another member's, one of ours. One of ours stays as it is.
    pub(super) fn adopt(&self, data: SnapshotData) -> Result<SnapshotData, StorageError> {
        let file = data.received.as_ref().and_then(|received| received.lock().take());
        if let Some(file) = file {
            return self.publish(data.meta, file);
        }
        let name = file_name(data.meta.applied);
        if self.files.names()?.contains(&name) {
            return Ok(data);
        }
        let mut copy = self.files.create(&name)?;
        while copy.len() < data.len() {
            copy.write(&data.read_at(copy.len(), READ_BYTES_MAX)?)?;
        }
        self.publish(data.meta, copy.finish()?)
    }

    fn prune(&self) -> Result<(), StorageError> {
        let mut names = self.files.names()?;
        names.retain(|name| name.ends_with(SUFFIX));
        for name in names.iter().rev().skip(KEPT) {
            self.files.remove(name)?;
        }
        let mut bad = self.files.names()?;
        bad.retain(|name| name.ends_with(BAD_SUFFIX));
        for name in bad.iter().rev().skip(KEPT) {
            self.files.remove(name)?;
        }
        Ok(())
    }
}
