//! openraft's log: appends are readable at once and acknowledged when durable.
//!
//! The engine below and the flusher keep the order; here are openraft's rules on top: reads are
//! bounded, the committed id never runs ahead of the log, and the log is never purged beyond the
//! newest fsynced snapshot file.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use parking_lot::RwLock;
use tokio::sync::oneshot;

use super::alarm::Alarm;
use super::codec;
use super::flusher::{Ack, DurablePosition, Flusher, LogStats};
use super::slowdown::Slowdown;
use super::wal::{Wal, WalOp, WalState};
use super::{LogId, RaftEntry, TypeConfig, Vote};
use crate::canary::{self, Canary};

/// Entries read under one lock, so that a reader far behind does not hold up appends.
const READ_SLICE: u64 = 256;

/// Bounds of the log in memory and on the wire.
#[derive(Debug, Clone, Copy)]
pub struct LogLimits {
    /// Written but unflushed bytes above which appends wait.
    pub unflushed_bytes_max: usize,
    /// The most bytes one replication message takes, except that one entry always fits.
    pub read_bytes_max: usize,
    /// The most entries one replication message takes.
    pub read_entries_max: u64,
    /// A flush that takes longer than this stops the member: a hung disk must not lead.
    pub flush_timeout: Duration,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            unflushed_bytes_max: 64 << 20,
            read_bytes_max: 4 << 20,
            read_entries_max: 4096,
            flush_timeout: Duration::from_secs(20),
        }
    }
}

/// Told when a vote has become durable.
pub(super) type OnVote = Box<dyn Fn(DurablePosition) + Send + Sync>;

/// See the module's description. Clones share the log; it closes with the last of them.
#[derive(Debug, Clone)]
pub struct LogStore(Arc<Owner>);

struct Owner {
    flusher: Arc<Flusher>,
    limits: LogLimits,
    /// The newest fsynced snapshot; `None` while nobody enforces it (openraft's test suite).
    purge_floor: RwLock<Option<Option<LogId>>>,
    on_vote: RwLock<Option<OnVote>>,
}

impl Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owner").field("flusher", &self.flusher).finish_non_exhaustive()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Callbacks on the flush thread hold the flusher alone, so this never runs there.
        self.flusher.close();
    }
}

impl LogStore {
    /// Takes an open log into service. Must be called inside a tokio runtime.
    pub(super) fn new(wal: Wal, limits: LogLimits, alarm: Alarm) -> Self {
        let flusher = Flusher::start(wal, limits.unflushed_bytes_max, limits.flush_timeout, alarm);
        let (purge_floor, on_vote) = (RwLock::new(None), RwLock::new(None));
        Self(Arc::new(Owner { flusher, limits, purge_floor, on_vote }))
    }

    fn flusher(&self) -> &Arc<Flusher> {
        &self.0.flusher
    }

    /// Counters since the log was opened.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        self.flusher().stats()
    }

    /// Makes flushes slow on purpose.
    #[must_use]
    pub fn slowdown(&self) -> Arc<Slowdown> {
        Arc::clone(self.flusher().slowdown())
    }

    /// From now on refuses to purge beyond `floor`, the newest fsynced snapshot.
    pub(super) fn enforce_purge_floor(&self, floor: Option<LogId>) {
        *self.0.purge_floor.write() = Some(floor);
    }

    /// There is a newer fsynced snapshot.
    pub(super) fn advance_purge_floor(&self, newest: Option<LogId>) {
        if let Some(floor) = self.0.purge_floor.write().as_mut() {
            *floor = newest.max(*floor);
        }
    }

    #[cfg(test)]
    pub(super) fn forget_purge_floor(&self) {
        *self.0.purge_floor.write() = None;
    }

    /// Calls `on_vote` whenever a vote has become durable.
    pub(super) fn set_on_vote(&self, on_vote: OnVote) {
        *self.0.on_vote.write() = Some(on_vote);
    }

    pub(super) fn wal_state(&self) -> io::Result<WalState> {
        self.flusher().state()
    }

    /// What the last completed flush made durable.
    pub(super) fn durable_position(&self) -> DurablePosition {
        self.flusher().durable()
    }

    /// Waits until everything written so far is durable.
    ///
    /// # Errors
    /// The log's first error.
    pub async fn flush(&self) -> io::Result<()> {
        self.flusher().write_durably([]).await
    }

    /// Reads `start..end`, or less: up to `bytes_max`, but at least one entry if there is one.
    fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<RaftEntry>> {
        let mut entries: Vec<RaftEntry> = Vec::new();
        let mut bytes = 0;
        let mut from = start;
        while from < end && (entries.is_empty() || bytes < bytes_max) {
            let to = end.min(from.saturating_add(READ_SLICE));
            let read = self.flusher().read(from, to, bytes_max - bytes)?;
            let Some(last) = read.last() else { break };
            from = last.log_id.index + 1;
            bytes += read.iter().map(|entry| codec::payload_bytes(&entry.payload)).sum::<usize>();
            entries.extend(read);
        }
        Ok(entries)
    }
}

/// The half-open form of a range of indexes.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<RaftEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.wal_state()?.vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<RaftEntry>> {
        let limits = self.0.limits;
        let end = end.min(start.saturating_add(limits.read_entries_max));
        self.read(start, end, limits.read_bytes_max)
    }

    /// In bounded pieces: what is to be applied may be much longer than fits into memory.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<RaftEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let log = self.clone();
        let pieces = stream::unfold(Some(start), move |from| {
            let log = log.clone();
            async move {
                let from = from.filter(|from| *from < end)?;
                let bytes_max = log.0.limits.read_bytes_max;
                match log.read(from, end.min(from.saturating_add(READ_SLICE)), bytes_max) {
                    Ok(entries) => {
                        let next = entries.last()?.log_id.index + 1;
                        Some((entries.into_iter().map(Ok).collect::<Vec<_>>(), Some(next)))
                    }
                    Err(error) => Some((vec![Err(error)], None)),
                }
            }
        });
        pieces.flat_map(stream::iter)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.wal_state()?;
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        if canary::active(Canary::VoteNotDurable) {
            return self.flusher().write([WalOp::Vote(*vote)], None);
        }
        self.flusher().write_durably([WalOp::Vote(*vote)]).await?;
        if let Some(on_vote) = &*self.0.on_vote.read() {
            on_vote(self.durable_position());
        }
        Ok(())
    }

    /// Written with whatever is flushed next; never ahead of the log, never backwards.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let state = self.wal_state()?;
        let committed = committed.min(state.last);
        match committed {
            Some(id) if committed > state.committed => {
                self.flusher().write([WalOp::Commit(id)], None)
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let state = self.wal_state()?;
        Ok(state.committed.min(state.last))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let ops = entries.into_iter().map(WalOp::Append);
        self.flusher().write(ops, Some(Ack::Raft(callback)))?;
        self.flusher().wait_for_room().await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        if self.wal_state()?.last <= last_log_id {
            return Ok(());
        }
        self.flusher().write([WalOp::TruncateAfter(last_log_id)], None)
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let floor = *self.0.purge_floor.read();
        if let Some(floor) = floor
            && Some(log_id) > floor
        {
            // Obeying would leave the state in a home that may be lost at any time.
            return Err(io::Error::other(format!(
                "refused to purge the log up to {log_id}: the newest durable snapshot is {floor:?}"
            )));
        }
        // Files are deleted behind the next flush; asking for one keeps an idle log small.
        let purged = self.wal_state()?.purged;
        if Some(log_id) <= purged {
            return Ok(());
        }
        let (sender, _receiver) = oneshot::channel();
        self.flusher().write([WalOp::Purge(log_id)], Some(Ack::Local(sender)))
    }
}
