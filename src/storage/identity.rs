//! Who this data directory is, in a small fsynced file beside the log.
//!
//! It is the second witness against a disk that forgets: the log and the vote may never be behind
//! what it recorded. It is brought up to date on a vote change, at a snapshot and at a clean stop,
//! always after the log itself became durable, so it can only be behind.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Arc;

use fs4::fs_std::FileExt;
use parking_lot::Mutex;

use super::codec::{decode_form, encode_form};
use super::error::StorageError;
use super::files::Files;
use super::flusher::DurablePosition;
use super::wal::WalState;
use super::{LogId, Vote, codec};
use crate::model::{Incarnation, MemberId};

const FILE: &str = "identity";
const LOCK: &str = "lock";
/// The layout of the data directory.
const LAYOUT: u32 = 1;

/// Which member of which cluster a data directory belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Proved on every peer connection.
    pub cluster_id: u128,
    /// This member's number in it.
    pub member_id: MemberId,
    /// Drawn when the directory was claimed; never shared by two directories.
    pub incarnation: Incarnation,
    /// The layout of the directory.
    pub format: u32,
    /// A vote that is durable in the log, not necessarily the last.
    pub last_vote: Option<Vote>,
    /// A committed log id that is durable in the log, not necessarily the last.
    pub last_log: Option<LogId>,
}

/// Cluster, member, incarnation, layout, vote, log id; the last two in their own formats.
type IdentityForm = (u128, MemberId, Incarnation, u32, Option<Vec<u8>>, Option<Vec<u8>>);

impl Identity {
    fn encode(&self) -> Vec<u8> {
        let form: IdentityForm = (
            self.cluster_id,
            self.member_id,
            self.incarnation,
            self.format,
            self.last_vote.as_ref().map(codec::encode_vote),
            self.last_log.as_ref().map(codec::encode_log_id),
        );
        let mut bytes = encode_form(&form);
        bytes.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        let damaged = |cause: &str| StorageError::FileDamaged {
            name: format!("the file `{FILE}`"),
            cause: cause.to_owned(),
        };
        let (body, sum) = bytes.split_last_chunk::<8>().ok_or_else(|| damaged("cut short"))?;
        if u64::from_le_bytes(*sum) != xxhash_rust::xxh3::xxh3_64(body) {
            return Err(damaged("its checksum is wrong"));
        }
        let (cluster_id, member_id, incarnation, format, vote, log): IdentityForm =
            decode_form(body, "identity")?;
        if format != LAYOUT {
            return Err(damaged(&format!("layout {format}, this program knows {LAYOUT}")));
        }
        let last_vote = vote.map(|bytes| codec::decode_vote(&bytes)).transpose()?;
        let last_log = log.map(|bytes| codec::decode_log_id(&bytes)).transpose()?;
        Ok(Self { cluster_id, member_id, incarnation, format, last_vote, last_log })
    }

    /// Refuses a log that lacks what this file saw in it.
    pub(super) fn check_log(&self, log: &WalState) -> Result<(), StorageError> {
        let vote_lost = match (&self.last_vote, &log.vote) {
            (Some(seen), Some(vote)) => vote < seen || vote.partial_cmp(seen).is_none(),
            (Some(_), None) => true,
            (None, _) => false,
        };
        if vote_lost {
            return Err(StorageError::DiskWentBack {
                what: format!("the vote is {:?}, but was {:?}", log.vote, self.last_vote),
            });
        }
        if log.last < self.last_log {
            return Err(StorageError::DiskWentBack {
                what: format!("the log ends at {:?}, but reached {:?}", log.last, self.last_log),
            });
        }
        Ok(())
    }
}

/// The file, and what is in it. Clones share both.
#[derive(Debug, Clone)]
pub(super) struct IdentityFile {
    files: Files,
    identity: Arc<Mutex<Option<Identity>>>,
}

impl IdentityFile {
    pub(super) fn open(files: Files) -> Result<Self, StorageError> {
        let identity = Self::read(&files)?;
        Ok(Self { files, identity: Arc::new(Mutex::new(identity)) })
    }

    /// The identity in `files`, for those who only read it.
    pub(super) fn read(files: &Files) -> Result<Option<Identity>, StorageError> {
        files.read(FILE)?.map(|bytes| Identity::decode(&bytes)).transpose()
    }

    pub(super) fn get(&self) -> Option<Identity> {
        self.identity.lock().clone()
    }

    /// Writes a new identity, durably.
    pub(super) fn claim(
        &self,
        cluster_id: u128,
        member_id: MemberId,
        incarnation: Incarnation,
    ) -> Result<Identity, StorageError> {
        let (last_vote, last_log) = (None, None);
        let identity =
            Identity { cluster_id, member_id, incarnation, format: LAYOUT, last_vote, last_log };
        let mut current = self.identity.lock();
        self.files.replace(FILE, &identity.encode())?;
        *current = Some(identity.clone());
        Ok(identity)
    }

    /// Records how far the log is durable; does nothing when that is known already.
    pub(super) fn note(&self, position: DurablePosition) -> Result<(), StorageError> {
        let mut current = self.identity.lock();
        let Some(identity) = current.as_mut() else { return Ok(()) };
        // Positions may arrive out of order: each goes forward on its own.
        let last_vote = match (identity.last_vote, position.vote) {
            (Some(seen), Some(vote)) if vote > seen => Some(vote),
            (None, vote) => vote,
            (seen, _) => seen,
        };
        let last_log = identity.last_log.max(position.committed);
        if (last_vote, last_log) == (identity.last_vote, identity.last_log) {
            return Ok(());
        }
        let next = Identity { last_vote, last_log, ..identity.clone() };
        self.files.replace(FILE, &next.encode())?;
        *identity = next;
        Ok(())
    }
}

/// Keeps other processes out of a data directory while it lives.
#[derive(Debug)]
pub(super) struct DirLock(File);

impl DirLock {
    pub(super) fn take(dir: &Path) -> Result<Self, StorageError> {
        let path = dir.join(LOCK);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| StorageError::io("cannot open", &path, error))?;
        match FileExt::try_lock_exclusive(&file) {
            Ok(true) => Ok(Self(file)),
            Ok(false) => Err(StorageError::InUse { dir: dir.to_owned() }),
            Err(error) => Err(StorageError::io("cannot lock", &path, error)),
        }
    }
}

impl DirLock {
    /// As [`DirLock::take`], without making the file: a directory that has none was never in use.
    pub(super) fn take_existing(dir: &Path) -> Result<Option<Self>, StorageError> {
        let path = dir.join(LOCK);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StorageError::io("cannot open", &path, error)),
        };
        match FileExt::try_lock_exclusive(&file) {
            Ok(true) => Ok(Some(Self(file))),
            Ok(false) => Err(StorageError::InUse { dir: dir.to_owned() }),
            Err(error) => Err(StorageError::io("cannot lock", &path, error)),
        }
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing the file would do; saying so keeps the order visible.
        let _ = FileExt::unlock(&self.0);
    }
}
