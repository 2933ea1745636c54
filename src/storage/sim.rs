//! A disk in memory for the simulation: what was written, and what would survive a power cut.
//!
//! Flushes take seeded amounts of tokio's time. [`SimDisk::crash`] drops what no flush completed,
//! except, if asked for, a random prefix of it: a real disk may have been faster than it said. The
//! state's home is treated as badly as sled deserves: a crash loses it or brings back an old image.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::wal::{FlushDone, WalOp, WalState};
use super::{LogId, RaftEntry};

/// One write in this many is remembered as the home's image on the platter.
const HOME_IMAGE_PERIOD: u32 = 24;

/// How a simulated disk behaves.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// Decides latencies and what a crash leaves.
    pub seed: u64,
    /// Shortest time of a flush.
    pub flush_min: Duration,
    /// Longest time of a flush.
    pub flush_max: Duration,
    /// Whether a crash may leave part of what was not flushed.
    pub crash_keeps_prefix: bool,
    /// A planted bug: flushes are acknowledged before they happen. A simulation that cannot find
    /// lost writes with this on is not testing durability.
    pub acknowledge_early: bool,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            flush_min: Duration::from_micros(200),
            flush_max: Duration::from_millis(3),
            crash_keeps_prefix: true,
            acknowledge_early: false,
        }
    }
}

/// What a simulated disk does wrong from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SimFault {
    /// Nothing.
    #[default]
    None,
    /// Every write fails: no space left.
    Full,
    /// Every flush fails with an IO error.
    FlushError,
    /// Flushes never complete.
    Hang,
    /// Flushes take so much longer.
    Slow(Duration),
}

/// See the module's description. Clones share the disk; it outlives the members opened on it.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<Platter>>);

#[derive(Debug)]
pub(super) struct Platter {
    options: SimOptions,
    random: SmallRng,
    /// Counts crashes, so that handles from before one find themselves cut off.
    generation: u64,
    fault: SimFault,
    durable: WalImage,
    /// Written but not flushed, in order; `written` counts all operations ever.
    pending: VecDeque<WalOp>,
    written: u64,
    live: WalImage,
    files: BTreeMap<String, Bytes>,
    home: BTreeMap<Vec<u8>, Bytes>,
    home_image: Option<BTreeMap<Vec<u8>, Bytes>>,
    flushes: u64,
}

/// What a log holds, as a table.
#[derive(Debug, Clone, Default)]
pub(super) struct WalImage {
    pub(super) state: WalState,
    pub(super) entries: BTreeMap<u64, RaftEntry>,
}

impl WalImage {
    pub(super) fn apply(&mut self, op: WalOp) {
        match op {
            WalOp::Vote(vote) => self.state.vote = Some(vote),
            WalOp::Commit(id) => self.state.committed = Some(id),
            WalOp::Mark(_) => {}
            WalOp::Append(entry) => {
                self.state.last = Some(entry.log_id);
                self.entries.insert(entry.log_id.index, entry);
            }
            WalOp::TruncateAfter(keep) => {
                let next = keep.map_or(0, |id| id.index + 1);
                self.entries.split_off(&next);
                if self.state.last > keep {
                    self.state.last = keep;
                }
            }
            WalOp::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.state.purged = self.state.purged.max(Some(upto));
                self.state.last = self.state.last.max(Some(upto));
            }
        }
    }
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(options: SimOptions) -> Self {
        let random = SmallRng::seed_from_u64(options.seed);
        Self(Arc::new(Mutex::new(Platter {
            options,
            random,
            generation: 0,
            fault: SimFault::None,
            durable: WalImage::default(),
            pending: VecDeque::new(),
            written: 0,
            live: WalImage::default(),
            files: BTreeMap::new(),
            home: BTreeMap::new(),
            home_image: None,
            flushes: 0,
        })))
    }

    /// Cuts the power: what was not flushed is gone, and everything opened before fails from now
    /// on. Open the disk again to go on.
    pub fn crash(&self) {
        let mut platter = self.0.lock();
        platter.generation += 1;
        platter.fault = SimFault::None;
        let pending = std::mem::take(&mut platter.pending);
        let kept = if platter.options.crash_keeps_prefix && !pending.is_empty() {
            platter.random.random_range(0..=pending.len())
        } else {
            0
        };
        for op in pending.into_iter().take(kept) {
            platter.durable.apply(op);
        }
        platter.live = platter.durable.clone();
        let image = platter.home_image.clone();
        // One crash in three leaves nothing of the home, the others its last image, if any.
        let lost = platter.random.random_range(0..3) == 0;
        platter.home = if lost { BTreeMap::new() } else { image.unwrap_or_default() };
    }

    /// Changes what the disk does wrong.
    pub fn set_fault(&self, fault: SimFault) {
        self.0.lock().fault = fault;
    }

    /// What it does wrong now.
    #[must_use]
    pub fn fault(&self) -> SimFault {
        self.0.lock().fault
    }

    /// Makes the disk as new, as after a replacement, except that it goes on simulating.
    pub fn wipe(&self) {
        let mut platter = self.0.lock();
        platter.generation += 1;
        platter.wipe_log();
        platter.files.clear();
        platter.home.clear();
        platter.home_image = None;
    }

    /// Loses the log and the vote but keeps the files: the disk went back in time.
    pub fn wipe_log(&self) {
        let mut platter = self.0.lock();
        platter.generation += 1;
        platter.wipe_log();
    }

    /// Writes to the log that a crash at this moment may lose.
    #[must_use]
    pub fn unflushed(&self) -> usize {
        self.0.lock().pending.len()
    }

    /// Completed flushes so far.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.0.lock().flushes
    }

    /// The last log id that survives a crash at this moment.
    #[must_use]
    pub fn durable_last(&self) -> Option<LogId> {
        self.0.lock().durable.state.last
    }

    /// Connects a new handle; older ones keep working until the next crash.
    pub(super) fn handle(&self) -> SimHandle {
        SimHandle { generation: self.0.lock().generation, disk: self.clone() }
    }
}

impl Platter {
    fn wipe_log(&mut self) {
        self.pending.clear();
        self.durable = WalImage::default();
        self.live = WalImage::default();
    }

    fn write_fault(&self) -> io::Result<()> {
        match self.fault {
            SimFault::Full => Err(io::Error::from(io::ErrorKind::StorageFull)),
            SimFault::None | SimFault::FlushError | SimFault::Hang | SimFault::Slow(_) => Ok(()),
        }
    }
}

/// The disk as one running member sees it: cut off by a crash.
#[derive(Debug, Clone)]
pub(super) struct SimHandle {
    disk: SimDisk,
    generation: u64,
}

impl SimHandle {
    /// The disk, unless it crashed since this handle was made.
    fn platter(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let platter = self.disk.0.lock();
        if platter.generation == self.generation {
            Ok(platter)
        } else {
            Err(io::Error::other("the simulated disk crashed under this handle"))
        }
    }

    pub(super) fn wal_state(&self) -> io::Result<WalState> {
        Ok(self.platter()?.live.state)
    }

    pub(super) fn wal_read<T>(
        &self,
        read: impl FnOnce(&BTreeMap<u64, RaftEntry>) -> T,
    ) -> io::Result<T> {
        Ok(read(&self.platter()?.live.entries))
    }

    pub(super) fn wal_write(&self, op: WalOp) -> io::Result<()> {
        let mut platter = self.platter()?;
        platter.write_fault()?;
        platter.live.apply(op.clone());
        platter.pending.push_back(op);
        platter.written += 1;
        Ok(())
    }

    /// Starts a flush of everything written so far; `done` is called when it ends, unless the
    /// power is cut before.
    pub(super) fn wal_flush(&self, done: FlushDone) -> io::Result<()> {
        let mut platter = self.platter()?;
        let (min, max) = (platter.options.flush_min, platter.options.flush_max);
        let range = u64::try_from(max.saturating_sub(min).as_micros()).unwrap_or(u64::MAX);
        let took = min + Duration::from_micros(platter.random.random_range(0..=range));
        let took = match platter.fault {
            SimFault::Slow(longer) => took + longer,
            SimFault::None | SimFault::Full | SimFault::FlushError | SimFault::Hang => took,
        };
        let upto = platter.written;
        let early = platter.options.acknowledge_early;
        drop(platter);
        let handle = self.clone();
        tokio::spawn(async move {
            let mut done = Some(done);
            if early && let Some(done) = done.take() {
                done.call(Ok(()));
            }
            tokio::time::sleep(took).await;
            let Ok(mut platter) = handle.platter() else { return };
            let result = match platter.fault {
                SimFault::Hang => return,
                SimFault::FlushError => Err(io::Error::other("simulated flush error")),
                SimFault::None | SimFault::Full | SimFault::Slow(_) => {
                    platter.flush(upto);
                    Ok(())
                }
            };
            drop(platter);
            if let Some(done) = done {
                done.call(result);
            }
        });
        Ok(())
    }

    pub(super) fn file(&self, name: &str) -> io::Result<Option<Bytes>> {
        Ok(self.platter()?.files.get(name).cloned())
    }

    pub(super) fn file_names(&self, prefix: &str) -> io::Result<Vec<String>> {
        let platter = self.platter()?;
        let names = platter.files.keys().filter_map(|name| name.strip_prefix(prefix));
        Ok(names.map(str::to_owned).collect())
    }

    pub(super) fn put_file(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        let mut platter = self.platter()?;
        platter.write_fault()?;
        platter.files.insert(name.to_owned(), bytes);
        Ok(())
    }

    pub(super) fn remove_file(&self, name: &str) -> io::Result<Option<Bytes>> {
        Ok(self.platter()?.files.remove(name))
    }

    pub(super) fn home_read<T>(
        &self,
        read: impl FnOnce(&BTreeMap<Vec<u8>, Bytes>) -> T,
    ) -> io::Result<T> {
        Ok(read(&self.platter()?.home))
    }

    pub(super) fn home_write(
        &self,
        write: impl FnOnce(&mut BTreeMap<Vec<u8>, Bytes>),
    ) -> io::Result<()> {
        let mut platter = self.platter()?;
        platter.write_fault()?;
        write(&mut platter.home);
        if platter.random.random_range(0..HOME_IMAGE_PERIOD) == 0 {
            platter.home_image = Some(platter.home.clone());
        }
        Ok(())
    }
}

impl Platter {
    fn flush(&mut self, upto: u64) {
        let flushed = self.written - self.pending.len() as u64;
        for _ in flushed..upto {
            let op = self.pending.pop_front().expect("what was written is pending or flushed");
            self.durable.apply(op);
        }
        self.flushes += 1;
    }
}
