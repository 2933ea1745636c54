//! What the rest of the program reads: the state as of the last applied entry.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::alarm::Alarm;
use super::error::StorageError;
use super::events::EventRing;
use super::home::Meta;
use super::shared_home::SharedHome;
use super::{LogId, StoredMembership};
use crate::model::{Epoch, Payload, TaskId};
use crate::state::{BlobPart, Digest, State, blob_keys};

/// The read handle of the state machine. Only the machine itself changes what it shows.
#[derive(Debug)]
pub struct Machine {
    pub(super) current: RwLock<Current>,
    pub(super) home: SharedHome,
    pub(super) applied: watch::Sender<u64>,
    pub(super) events: EventRing,
    pub(super) alarm: Alarm,
    /// While a snapshot is written into the home, rows are missing from it.
    pub(super) installing: AtomicBool,
}

/// The state and where it stands in the log.
#[derive(Debug, Default)]
pub(super) struct Current {
    pub(super) state: State,
    pub(super) applied: Option<LogId>,
    pub(super) membership: StoredMembership,
}

impl Current {
    pub(super) fn meta(&self) -> Meta {
        Meta {
            applied: self.applied,
            membership: self.membership.clone(),
            digest: self.state.digest(),
        }
    }

    pub(super) fn applied_index(&self) -> u64 {
        self.applied.map_or(0, |id| id.index)
    }
}

impl Machine {
    pub(super) fn new(current: Current, home: SharedHome, events_max: usize, alarm: Alarm) -> Self {
        let index = current.applied_index();
        Self {
            current: RwLock::new(current),
            home,
            applied: watch::Sender::new(index),
            events: EventRing::new(events_max, index),
            alarm,
            installing: AtomicBool::new(false),
        }
    }

    /// Reads the state. Nothing is applied meanwhile, so `read` must be short; it must not call
    /// back into the machine.
    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.current.read().state)
    }

    /// As [`Self::read`], and the index of the last entry in what was read.
    pub fn read_at<T>(&self, read: impl FnOnce(&State) -> T) -> (u64, T) {
        let current = self.current.read();
        (current.applied_index(), read(&current.state))
    }

    /// The last entry in the state.
    #[must_use]
    pub fn applied(&self) -> Option<LogId> {
        self.current.read().applied
    }

    /// The index of the last entry that is in the state, in the home, and answered. Starts at 0.
    #[must_use]
    pub fn applied_watch(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// The state's digest and the index it is of.
    #[must_use]
    pub fn digest(&self) -> (u64, Digest) {
        let current = self.current.read();
        (current.applied_index(), current.state.digest())
    }

    /// As [`Self::digest`], with the epoch that is open there.
    #[must_use]
    pub fn position(&self) -> (u64, Digest, Epoch) {
        let current = self.current.read();
        (current.applied_index(), current.state.digest(), current.state.epoch())
    }

    /// The membership as of the last applied entry.
    #[must_use]
    pub fn membership(&self) -> StoredMembership {
        self.current.read().membership.clone()
    }

    /// The text of a task's payload, wherever it is kept; `None` when there is none, or when the
    /// task was deleted since `payload` was read.
    ///
    /// # Errors
    /// [`StorageError::Installing`] while a snapshot replaces the home, or the home's fault.
    pub fn load_payload(
        &self,
        task_id: &TaskId,
        part: BlobPart,
        payload: &Payload,
    ) -> Result<Option<Bytes>, StorageError> {
        let len = match payload {
            Payload::Absent => return Ok(None),
            Payload::Inline(text) => return Ok(Some(Bytes::copy_from_slice(text.as_bytes()))),
            Payload::Stored { len, .. } => *len as usize,
        };
        if self.installing.load(Ordering::Acquire) {
            return Err(StorageError::Installing);
        }
        let mut text = BytesMut::with_capacity(len);
        for key in blob_keys(task_id, part, payload) {
            match self.home.get(&key)? {
                Some(chunk) => text.extend_from_slice(&chunk),
                None if self.installing.load(Ordering::Acquire) => {
                    return Err(StorageError::Installing);
                }
                None => return Ok(None),
            }
        }
        Ok(Some(text.freeze()))
    }

    /// The events of this member.
    #[must_use]
    pub fn events(&self) -> &EventRing {
        &self.events
    }

    /// Raised when this member must stop.
    #[must_use]
    pub fn alarm(&self) -> &Alarm {
        &self.alarm
    }
}
