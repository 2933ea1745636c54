//! The home, shared between the machine that writes it, a snapshot that is read from it, and those
//! who ask for payloads.
//!
//! **Writing behind.** Nobody waits for the home: the log alone makes things durable, and a home
//! that is some milliseconds behind after a crash is brought up by it. So what applies change is
//! gathered in memory, where lookups see it at once, and a thread writes it in few large batches,
//! each all or nothing with the position it leads to. A row that changes many times is written
//! once. The simulation writes at once, inline, to keep its one thread.
//!
//! **Snapshots** must hold the rows of one moment, but neither sled's iterators do nor may applies
//! wait for it. So while one is read, each batch first saves the present value of the keys it is
//! about to change, unless the reader has passed them or they are saved already; the reader puts
//! the saved values over what it finds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::alarm::Alarm;
use super::error::StorageError;
use super::home::{Home, Meta, StoredRow};
use crate::state::Changes;

/// From one batch to the next: what a busy home gathers. A task that is placed, run and ended within
/// it is written once.
const BATCH_PAUSE: Duration = Duration::from_millis(50);
/// Gathered bytes above which applies wait for the home after all.
const GATHERED_BYTES_MAX: usize = 64 << 20;

/// See the module's description.
#[derive(Debug)]
pub(super) struct SharedHome {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    /// Something was gathered, or it is time to end.
    gathered: Condvar,
    /// A batch was written, or failed.
    written: Condvar,
}

#[derive(Debug)]
struct Inner {
    home: Home,
    reading: Option<Reading>,
    readings: u64,
    /// Changes that wait for the writer; `None` without one.
    behind: Option<Behind>,
}

/// What has not reached the home yet.
#[derive(Debug, Default)]
struct Behind {
    waiting: Changes,
    waiting_bytes: usize,
    /// Where the state stands once `waiting` is written.
    position: Option<Meta>,
    /// The batch that is being written.
    writing: Option<Arc<Changes>>,
    failed: Option<String>,
    /// Somebody waits for what is gathered.
    hurry: bool,
    closing: bool,
}

/// A snapshot being read.
#[derive(Debug)]
struct Reading {
    id: ReadingId,
    /// Keys before this one are passed; `None` once all are.
    next: Option<Vec<u8>>,
    /// What keys at or after `next` held when the reading began.
    saved: BTreeMap<Vec<u8>, Option<Bytes>>,
}

/// Names one reading of the home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadingId(u64);

/// A piece of a reading.
#[derive(Debug)]
pub(super) enum Piece {
    Rows(Vec<StoredRow>),
    End,
    /// Another snapshot took the place of the rows that were being read.
    Cancelled,
}

/// The home, locked for a write.
pub(super) struct HomeGuard<'a> {
    shared: &'a Shared,
    inner: MutexGuard<'a, Inner>,
}

impl Drop for SharedHome {
    fn drop(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        if let Some(behind) = &mut self.shared.inner.lock().behind {
            behind.closing = true;
        }
        self.shared.gathered.notify_all();
        if writer.join().is_err() {
            tracing::error!("the thread that writes the home panicked");
        }
    }
}

impl SharedHome {
    /// A home that is written at once.
    pub(super) fn new(home: Home) -> Self {
        Self::with(home, None)
    }

    /// A home that a thread of its own writes behind. Dropping it writes what is left.
    pub(super) fn behind(home: Home, alarm: Alarm) -> std::io::Result<Self> {
        let mut shared = Self::with(home, Some(Behind::default()));
        let owned = Arc::clone(&shared.shared);
        let thread = std::thread::Builder::new().name("state home".to_owned());
        shared.writer = Some(thread.spawn(move || write_behind(&owned, &alarm))?);
        Ok(shared)
    }

    fn with(home: Home, behind: Option<Behind>) -> Self {
        let inner = Mutex::new(Inner { home, reading: None, readings: 0, behind });
        let shared = Shared { inner, gathered: Condvar::new(), written: Condvar::new() };
        Self { shared: Arc::new(shared), writer: None }
    }

    pub(super) fn lock(&self) -> HomeGuard<'_> {
        HomeGuard { shared: &self.shared, inner: self.shared.inner.lock() }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let inner = self.shared.inner.lock();
        if let Some(behind) = &inner.behind {
            let writing = behind.writing.as_deref();
            let known = [Some(&behind.waiting), writing].into_iter().flatten();
            if let Some(value) = known.filter_map(|changes| changes.rows.get(key)).next() {
                return Ok(value.clone());
            }
        }
        inner.home.get(key)
    }

    /// Starts reading the rows as they are now; `None` while another reading goes on.
    ///
    /// # Errors
    /// The home's fault: everything gathered is written first.
    pub(super) fn begin_reading(&self) -> Result<Option<ReadingId>, StorageError> {
        let mut guard = self.lock();
        if guard.inner.reading.is_some() {
            return Ok(None);
        }
        guard.catch_up()?;
        let inner = &mut guard.inner;
        inner.readings += 1;
        let id = ReadingId(inner.readings);
        inner.reading = Some(Reading { id, next: Some(Vec::new()), saved: BTreeMap::new() });
        Ok(Some(id))
    }

    /// The next rows, in key order, as of the beginning of the reading.
    pub(super) fn read_piece(&self, id: ReadingId, rows_max: usize) -> Result<Piece, StorageError> {
        let mut inner = self.shared.inner.lock();
        let Inner { home, reading, .. } = &mut *inner;
        let Some(current) = reading.as_mut().filter(|reading| reading.id == id) else {
            return Ok(Piece::Cancelled);
        };
        while let Some(next) = &current.next {
            let found = home.scan(next, rows_max)?;
            // The smallest key after the last one is that with a zero byte more.
            let next = found.last().filter(|_| found.len() == rows_max);
            current.next = next.map(|(last, _)| [last.as_slice(), &[0]].concat());
            let later = match &current.next {
                Some(next) => current.saved.split_off(next),
                None => BTreeMap::new(),
            };
            let saved = std::mem::replace(&mut current.saved, later);
            let mut rows: BTreeMap<Vec<u8>, Bytes> = found.into_iter().collect();
            put_over(&mut rows, saved);
            // All rows found may be younger than the reading; there may be more to look at then.
            if !rows.is_empty() {
                return Ok(Piece::Rows(rows.into_iter().collect()));
            }
        }
        *reading = None;
        Ok(Piece::End)
    }

    /// Cancels a reading, drops what was gathered, and hands out the home, to be replaced as a
    /// whole. The caller sees to it that nothing is applied meanwhile.
    pub(super) fn take_over(&self) -> Home {
        let mut inner = self.shared.inner.lock();
        inner.reading = None;
        while let Some(behind) = &mut inner.behind {
            behind.waiting = Changes::default();
            behind.waiting_bytes = 0;
            behind.position = None;
            if behind.writing.is_none() {
                break;
            }
            self.shared.written.wait(&mut inner);
        }
        inner.home.clone()
    }

    /// Ends a reading early.
    pub(super) fn end_reading(&self, id: ReadingId) {
        let mut inner = self.shared.inner.lock();
        if inner.reading.as_ref().is_some_and(|reading| reading.id == id) {
            inner.reading = None;
        }
    }
}

/// Writes what is gathered, batch by batch, until the end or the first fault.
fn write_behind(shared: &Shared, alarm: &Alarm) {
    let mut inner = shared.inner.lock();
    loop {
        let Some(behind) = inner.behind.as_mut().filter(|behind| behind.failed.is_none()) else {
            return;
        };
        let closing = behind.closing;
        let Some(meta) = behind.position.take() else {
            if closing {
                return;
            }
            shared.gathered.wait(&mut inner);
            continue;
        };
        let changes = Arc::new(std::mem::take(&mut behind.waiting));
        behind.waiting_bytes = 0;
        behind.hurry = false;
        behind.writing = Some(Arc::clone(&changes));
        let result = inner.save_for_reader(&changes).and_then(|()| {
            let home = inner.home.clone();
            MutexGuard::unlocked(&mut inner, || home.write(&changes, &meta))
        });
        if let Some(behind) = &mut inner.behind {
            behind.writing = None;
            if let Err(error) = result {
                alarm.raise(&error.to_string());
                behind.failed = Some(error.to_string());
            }
        }
        shared.written.notify_all();
        if !closing {
            // Whoever ends the home need not wait for the pause.
            shared.gathered.wait_while_for(
                &mut inner,
                |inner| {
                    let behind = inner.behind.as_ref();
                    behind.is_some_and(|behind| !behind.closing && !behind.hurry)
                },
                BATCH_PAUSE,
            );
        }
    }
}

fn put_over(rows: &mut BTreeMap<Vec<u8>, Bytes>, saved: BTreeMap<Vec<u8>, Option<Bytes>>) {
    for (key, value) in saved {
        match value {
            Some(value) => rows.insert(key, value),
            None => rows.remove(&key),
        };
    }
}

impl Inner {
    /// Saves what a snapshot still has to read of the rows that are about to change.
    fn save_for_reader(&mut self, changes: &Changes) -> Result<(), StorageError> {
        let Some(reading) = &mut self.reading else { return Ok(()) };
        let Some(next) = &reading.next else { return Ok(()) };
        for key in changes.rows.keys().filter(|key| *key >= next) {
            if !reading.saved.contains_key(key) {
                reading.saved.insert(key.clone(), self.home.get(key)?);
            }
        }
        Ok(())
    }
}

impl HomeGuard<'_> {
    /// Takes changed rows and the position they lead to, all or nothing.
    pub(super) fn write(&mut self, changes: Changes, meta: &Meta) -> Result<(), StorageError> {
        let inner = &mut *self.inner;
        let Some(behind) = &mut inner.behind else {
            inner.save_for_reader(&changes)?;
            return inner.home.write(&changes, meta);
        };
        behind.check()?;
        behind.waiting_bytes += changes.bytes();
        behind.waiting.rows.extend(changes.rows);
        if behind.position.replace(meta.clone()).is_none() {
            self.shared.gathered.notify_one();
        }
        if behind.waiting_bytes > GATHERED_BYTES_MAX {
            self.catch_up()?;
        }
        Ok(())
    }

    /// Waits until everything gathered is written.
    fn catch_up(&mut self) -> Result<(), StorageError> {
        while let Some(behind) = &mut self.inner.behind {
            behind.check()?;
            if behind.position.is_none() && behind.writing.is_none() {
                break;
            }
            behind.hurry = true;
            self.shared.gathered.notify_one();
            self.shared.written.wait(&mut self.inner);
        }
        Ok(())
    }
}

impl Behind {
    fn check(&self) -> Result<(), StorageError> {
        match &self.failed {
            None => Ok(()),
            Some(why) => Err(StorageError::Home(why.clone())),
        }
    }
}
