//! openraft's log: appends are readable at once and acknowledged when durable.
//!
//! At most one flush is in flight; everything written meanwhile shares the next one, which starts
//! where the last one ends, on the flush thread itself. So there is no timer, an idle log flushes
//! at once, and a busy one groups by itself. Invariants:
//! - acknowledgements are given in the order of the writes, and only after a flush that began
//!   after the write;
//! - the first IO error is final: nothing is retried, everything waiting gets the error;
//! - the log is never purged beyond the newest fsynced snapshot file.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::alarm::Alarm;
use super::codec;
use super::error::hint;
use super::wal::{FlushDone, Wal, WalOp, WalState};
use super::{LogId, RaftEntry, TypeConfig, Vote};

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

/// Counters of the log since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Entries appended.
    pub appended: u64,
    /// Flushes completed.
    pub flushes: u64,
    /// Time spent in flushes.
    pub flush_time: Duration,
    /// The longest flush.
    pub flush_time_max: Duration,
}

/// What is known to be on disk, for the identity file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DurablePosition {
    pub(super) vote: Option<Vote>,
    /// Committed and durable: no truncation can take it back.
    pub(super) committed: Option<LogId>,
}

/// Told when a vote has become durable.
pub(super) type OnVote = Box<dyn Fn(DurablePosition) + Send + Sync>;

/// See the module's description. Clones share the log; it closes with the last of them.
#[derive(Debug, Clone)]
pub struct LogStore(Arc<Owner>);

/// Closes the engine on the thread that drops the last handle, never on the flush thread, which
/// the engine joins.
#[derive(Debug)]
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        let wal = self.0.core.lock().wal.take();
        drop(wal);
    }
}

struct Shared {
    core: Mutex<Core>,
    limits: LogLimits,
    /// Wakes appends that wait for room.
    room: Notify,
    alarm: Alarm,
    /// The newest fsynced snapshot; `None` while nobody enforces it (openraft's test suite).
    purge_floor: RwLock<Option<Option<LogId>>>,
    on_vote: RwLock<Option<OnVote>>,
}

impl Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("core", &self.core).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Core {
    /// `None` once closed.
    wal: Option<Wal>,
    waiting: Batch,
    in_flight: Option<(Batch, Instant)>,
    /// The first error; nothing is written after it.
    failed: Option<String>,
    durable: DurablePosition,
    stats: LogStats,
}

/// Writes that share a flush.
#[derive(Debug, Default)]
struct Batch {
    bytes: usize,
    /// Where the log stands once these are durable.
    position: DurablePosition,
    acks: VecDeque<Ack>,
}

enum Ack {
    Raft(IOFlushed<TypeConfig>),
    Local(oneshot::Sender<io::Result<()>>),
}

impl Debug for Ack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Raft(_) => "Raft",
            Self::Local(_) => "Local",
        })
    }
}

impl Ack {
    fn complete(self, result: io::Result<()>) {
        match self {
            Self::Raft(flushed) => flushed.io_completed(result),
            // Whoever waited may have been cancelled.
            Self::Local(sender) => drop(sender.send(result)),
        }
    }
}

impl Core {
    fn check(&self) -> io::Result<&Wal> {
        if let Some(why) = &self.failed {
            return Err(io::Error::other(format!("the log failed earlier: {why}")));
        }
        self.wal.as_ref().ok_or_else(|| io::Error::other("the log is closed"))
    }

    fn check_mut(&mut self) -> io::Result<&mut Wal> {
        self.check()?;
        self.wal.as_mut().ok_or_else(|| io::Error::other("the log is closed"))
    }

    fn state(&self) -> io::Result<WalState> {
        self.check()?.state()
    }

    fn unflushed_bytes(&self) -> usize {
        self.waiting.bytes + self.in_flight.as_ref().map_or(0, |(batch, _)| batch.bytes)
    }
}

impl Shared {
    /// Starts a flush when something waits for one and none is running.
    fn kick(self: &Arc<Self>, core: &mut Core) -> io::Result<()> {
        if core.in_flight.is_some() || core.waiting.acks.is_empty() {
            return Ok(());
        }
        let state = core.state()?;
        let mut batch = std::mem::take(&mut core.waiting);
        batch.position =
            DurablePosition { vote: state.vote, committed: state.committed.min(state.last) };
        core.in_flight = Some((batch, Instant::now()));
        // Recovery tells a torn tail from damage by where flushes ended.
        let mark = WalOp::Mark(core.stats.flushes);
        core.check_mut()?.write(mark)?;
        let shared = Arc::clone(self);
        let done = FlushDone::new(move |result| shared.flushed(result));
        core.check_mut()?.flush(done)
    }

    /// A flush ended: starts the next one, then acknowledges.
    fn flushed(self: &Arc<Self>, result: io::Result<()>) {
        let mut core = self.core.lock();
        if let Err(error) = result {
            return self.fail(core, &format!("cannot flush the log: {error}{}", hint(&error)));
        }
        // The watchdog may have given up on this flush.
        let Some((batch, started)) = core.in_flight.take() else { return };
        let took = started.elapsed();
        core.durable = batch.position;
        core.stats.flushes += 1;
        core.stats.flush_time += took;
        core.stats.flush_time_max = core.stats.flush_time_max.max(took);
        // A log that was closed meanwhile has flushed what it had.
        if core.wal.is_some()
            && let Err(error) = self.kick(&mut core)
        {
            self.fail(core, &format!("cannot flush the log: {error}{}", hint(&error)));
        } else {
            drop(core);
        }
        for ack in batch.acks {
            ack.complete(Ok(()));
        }
        self.room.notify_waiters();
    }

    /// Makes the first error final, and passes it to everything that waits.
    fn fail(&self, mut core: parking_lot::MutexGuard<'_, Core>, why: &str) {
        core.failed.get_or_insert_with(|| why.to_owned());
        let flying = core.in_flight.take().map(|(batch, _)| batch).unwrap_or_default();
        let waiting = std::mem::take(&mut core.waiting);
        drop(core);
        self.alarm.raise(why);
        for ack in flying.acks.into_iter().chain(waiting.acks) {
            ack.complete(Err(io::Error::other(why.to_owned())));
        }
        self.room.notify_waiters();
    }

    /// Writes records in order; the first that fails breaks the log.
    fn write(
        self: &Arc<Self>,
        ops: impl IntoIterator<Item = WalOp>,
        ack: Option<Ack>,
    ) -> io::Result<()> {
        let mut core = self.core.lock();
        let mut bytes = 0;
        let result = (|core: &mut Core| {
            for op in ops {
                if let WalOp::Append(entry) = &op {
                    bytes += codec::payload_bytes(&entry.payload);
                    core.stats.appended += 1;
                }
                core.check_mut()?.write(op)?;
            }
            core.check()?;
            core.waiting.bytes += bytes;
            core.waiting.acks.extend(ack);
            self.kick(core)
        })(&mut core);
        if let Err(error) = result {
            let why = format!("cannot write the log: {error}{}", hint(&error));
            self.fail(core, &why);
            return Err(io::Error::new(error.kind(), why));
        }
        Ok(())
    }

    /// Waits until the unflushed bytes are within their bound again.
    async fn wait_for_room(&self) -> io::Result<()> {
        loop {
            let room = self.room.notified();
            {
                let core = self.core.lock();
                core.check()?;
                if core.unflushed_bytes() <= self.limits.unflushed_bytes_max {
                    return Ok(());
                }
            }
            room.await;
        }
    }

    fn check_watchdog(&self) {
        let core = self.core.lock();
        let Some((_, started)) = &core.in_flight else { return };
        let waited = started.elapsed();
        if waited >= self.limits.flush_timeout {
            let why = format!("the disk has not completed a flush for {} s", waited.as_secs());
            self.fail(core, &why);
        }
    }
}

impl LogStore {
    /// Takes an open log into service. Must be called inside a tokio runtime.
    pub(super) fn new(wal: Wal, limits: LogLimits, alarm: Alarm) -> Self {
        let shared = Arc::new(Shared {
            core: Mutex::new(Core { wal: Some(wal), ..Core::default() }),
            limits,
            room: Notify::new(),
            alarm,
            purge_floor: RwLock::new(None),
            on_vote: RwLock::new(None),
        });
        let watched = Arc::downgrade(&shared);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(limits.flush_timeout / 4);
            loop {
                ticks.tick().await;
                let Some(shared) = watched.upgrade() else { return };
                if shared.core.lock().wal.is_none() {
                    return;
                }
                shared.check_watchdog();
            }
        });
        Self(Arc::new(Owner(shared)))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }

    /// Counters since the log was opened.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        self.shared().core.lock().stats
    }

    /// From now on refuses to purge beyond `floor`, the newest fsynced snapshot.
    pub(super) fn enforce_purge_floor(&self, floor: Option<LogId>) {
        *self.shared().purge_floor.write() = Some(floor);
    }

    /// There is a newer fsynced snapshot.
    pub(super) fn advance_purge_floor(&self, newest: Option<LogId>) {
        if let Some(floor) = self.shared().purge_floor.write().as_mut() {
            *floor = newest.max(*floor);
        }
    }

    #[cfg(test)]
    pub(super) fn forget_purge_floor(&self) {
        *self.shared().purge_floor.write() = None;
    }

    /// Calls `on_vote` whenever a vote has become durable.
    pub(super) fn set_on_vote(&self, on_vote: OnVote) {
        *self.shared().on_vote.write() = Some(on_vote);
    }

    pub(super) fn wal_state(&self) -> io::Result<WalState> {
        self.shared().core.lock().state()
    }

    /// What the last completed flush made durable.
    pub(super) fn durable_position(&self) -> DurablePosition {
        self.shared().core.lock().durable
    }

    /// Writes `op` and waits until it is durable.
    pub(super) async fn write_durably(&self, op: WalOp) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.shared().write([op], Some(Ack::Local(sender)))?;
        receiver.await.map_err(|_closed| io::Error::other("the log was closed"))?
    }

    /// Waits until everything written so far is durable.
    ///
    /// # Errors
    /// The log's first error.
    pub async fn flush(&self) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.shared().write([], Some(Ack::Local(sender)))?;
        receiver.await.map_err(|_closed| io::Error::other("the log was closed"))?
    }

    /// Reads `start..end`, or less: up to `bytes_max`, but at least one entry if there is one.
    fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<RaftEntry>> {
        let mut entries: Vec<RaftEntry> = Vec::new();
        let mut bytes = 0;
        let mut from = start;
        while from < end && (entries.is_empty() || bytes < bytes_max) {
            let to = end.min(from.saturating_add(READ_SLICE));
            let read = self.shared().core.lock().check()?.read(from, to, bytes_max - bytes)?;
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
        let limits = self.shared().limits;
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
                let bytes_max = log.shared().limits.read_bytes_max;
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
        self.write_durably(WalOp::Vote(*vote)).await?;
        if let Some(on_vote) = &*self.shared().on_vote.read() {
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
                self.shared().write([WalOp::Commit(id)], None)
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
        self.shared().write(ops, Some(Ack::Raft(callback)))?;
        self.shared().wait_for_room().await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        if self.wal_state()?.last <= last_log_id {
            return Ok(());
        }
        self.shared().write([WalOp::TruncateAfter(last_log_id)], None)
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let floor = *self.shared().purge_floor.read();
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
        self.shared().write([WalOp::Purge(log_id)], Some(Ack::Local(sender)))
    }
}
