//! The deterministic core: commands in, outcomes and events out, rows changed.
//!
//! `apply` sees the state and the entry and nothing else: no clock, no randomness, no environment,
//! no hash-map order, no float. The same log gives the same state digest on every member, however
//! it is cut into batches. `State` is plain tables in memory; what changed is collected as rows
//! ([`Changes`]) that `storage` writes to the durable home in one batch.

mod changes;
mod command;
mod event;
mod outcome;

pub use changes::{Changes, Digest, TableId, row_hash};
pub use command::{
    Assignment, Command, Dispatch, DispatchResult, Envelope, ExpiryKind, LogEntry, NodeObservation,
    NodeSpec, TaskExpiry, TaskOutcome, TaskReport, TaskSpec,
};
pub use event::{Event, Fact};
pub use outcome::{Fatal, Outcome, Rejection, Reply};

/// The most commands one log entry carries.
pub const ENVELOPES_PER_ENTRY_MAX: usize = 4096;
/// The most rows one batched command carries.
pub const ROWS_PER_COMMAND_MAX: usize = 10_000;

/// Everything the cluster has agreed on.
#[derive(Debug, Default)]
pub struct State {
    digest: Digest,
    changes: Changes,
}

/// What applying one entry gave.
#[derive(Debug, Default)]
pub struct Applied {
    /// One answer per envelope, in order.
    pub replies: Vec<Reply>,
    /// What happened, in order.
    pub events: Vec<Event>,
}

impl State {
    /// Rebuilds the tables from stored rows (full key, value). Rows of tables that are not
    /// resident count for the digest only.
    ///
    /// # Errors
    /// [`Fatal`] when a row cannot be decoded.
    pub fn load<'a>(_rows: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<Self, Fatal> {
        Ok(Self::default())
    }

    /// Adds one stored row while the home is scanned at start; call [`State::finish_load`] after
    /// the last one.
    ///
    /// # Errors
    /// [`Fatal`] when the row cannot be decoded.
    pub fn load_row(&mut self, _key: &[u8], _value: &[u8]) -> Result<(), Fatal> {
        Ok(())
    }

    /// Rebuilds the indexes that are derived from the rows.
    pub fn finish_load(&mut self) {}

    /// Applies one encoded entry at `index`.
    ///
    /// # Errors
    /// [`Fatal`] when the entry cannot be decoded or an invariant is broken; the member must stop.
    pub fn apply(&mut self, _index: u64, _entry: &[u8]) -> Result<Applied, Fatal> {
        Ok(Applied::default())
    }

    /// Everything that changed since the last call, for the durable home.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// The digest of all rows as of the last applied entry.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// Encodes an entry for the log: a format byte, then bincode.
#[must_use]
pub fn encode_entry(_entry: &LogEntry) -> bytes::Bytes {
    bytes::Bytes::new()
}
