//! Group commit: writes in order, one flush at a time, acknowledgements behind it.
//!
//! Everything written while a flush is under way shares the next one, which starts where the last
//! one ends, on the flush thread itself. So there is no timer, an idle log flushes at once, and a
//! busy one groups by itself. Invariants:
//! - acknowledgements are given in the order of the writes, and only after a flush that began
//!   after the write;
//! - the first IO error is final: nothing is retried, everything waiting gets the error.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::alarm::Alarm;
use super::codec;
use super::error::hint;
use super::slowdown::Slowdown;
use super::wal::{FlushDone, Wal, WalOp, WalState};
use super::{LogId, RaftEntry, TypeConfig, Vote};
use crate::canary::{self, Canary};

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

/// See the module's description.
#[derive(Debug)]
pub(super) struct Flusher {
    core: Mutex<Core>,
    unflushed_bytes_max: usize,
    flush_timeout: Duration,
    /// Wakes appends that wait for room.
    room: Notify,
    alarm: Alarm,
    slowdown: Arc<Slowdown>,
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

pub(super) enum Ack {
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

impl Flusher {
    /// Takes an open log into service. Must be called inside a tokio runtime.
    pub(super) fn start(
        wal: Wal,
        unflushed_bytes_max: usize,
        flush_timeout: Duration,
        alarm: Alarm,
    ) -> Arc<Self> {
        let core = Mutex::new(Core { wal: Some(wal), ..Core::default() });
        let flusher = Arc::new(Self {
            core,
            unflushed_bytes_max,
            flush_timeout,
            room: Notify::new(),
            alarm,
            slowdown: Arc::default(),
        });
        let watched = Arc::downgrade(&flusher);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(flush_timeout / 4);
            loop {
                ticks.tick().await;
                let Some(flusher) = watched.upgrade() else { return };
                if flusher.core.lock().wal.is_none() {
                    return;
                }
                flusher.check_watchdog();
            }
        });
        flusher
    }

    /// Closes the engine. Not to be called on the flush thread, which the engine joins.
    pub(super) fn close(&self) {
        let wal = self.core.lock().wal.take();
        drop(wal);
    }

    pub(super) fn state(&self) -> io::Result<WalState> {
        self.core.lock().state()
    }

    /// Makes flushes slow on purpose.
    pub(super) fn slowdown(&self) -> &Arc<Slowdown> {
        &self.slowdown
    }

    pub(super) fn stats(&self) -> LogStats {
        self.core.lock().stats
    }

    /// What the last completed flush made durable.
    pub(super) fn durable(&self) -> DurablePosition {
        self.core.lock().durable
    }

    /// Reads under the lock: bounded by the caller.
    pub(super) fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<RaftEntry>> {
        self.core.lock().check()?.read(from, to, bytes_max)
    }

    /// Writes `ops` and waits until they, and all before them, are durable.
    pub(super) async fn write_durably(
        self: &Arc<Self>,
        ops: impl IntoIterator<Item = WalOp>,
    ) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.write(ops, Some(Ack::Local(sender)))?;
        receiver.await.map_err(|_closed| io::Error::other("the log was closed"))?
    }

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
        let flusher = Arc::clone(self);
        let done = FlushDone::new(move |result| flusher.flushed(result));
        core.check_mut()?.flush(done)
    }

    /// A flush ended: starts the next one, then acknowledges.
    fn flushed(self: &Arc<Self>, result: io::Result<()>) {
        self.slowdown.wait();
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
    pub(super) fn write(
        self: &Arc<Self>,
        ops: impl IntoIterator<Item = WalOp>,
        ack: Option<Ack>,
    ) -> io::Result<()> {
        let ack = if canary::active(Canary::AckBeforeFsync) { acked_early(ack) } else { ack };
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
    pub(super) async fn wait_for_room(&self) -> io::Result<()> {
        loop {
            let room = self.room.notified();
            {
                let core = self.core.lock();
                core.check()?;
                if core.unflushed_bytes() <= self.unflushed_bytes_max {
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
        if waited >= self.flush_timeout {
            let why = format!("the disk has not completed a flush for {} s", waited.as_secs());
            self.fail(core, &why);
        }
    }
}

/// Tells Raft at once that its entries are durable, and has them flushed for nobody.
fn acked_early(ack: Option<Ack>) -> Option<Ack> {
    match ack {
        Some(Ack::Raft(flushed)) => {
            flushed.io_completed(Ok(()));
            Some(Ack::Local(oneshot::channel().0))
        }
        other => other,
    }
}
