//! The home, shared between the machine that writes it and a snapshot that is read from it.
//!
//! A snapshot must hold the rows of one moment, but neither sled's iterators do nor may applies
//! wait for it. So while one is read, each write first saves the present value of the keys it is
//! about to change, unless the reader has passed them or they are saved already; the reader puts
//! the saved values over what it finds. Reader and writer take turns under one lock, the reader
//! for a bounded number of rows at a time.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::error::StorageError;
use super::home::{Home, Meta, StoredRow};
use crate::state::Changes;

/// See the module's description.
#[derive(Debug)]
pub(super) struct SharedHome(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    home: Home,
    reading: Option<Reading>,
    readings: u64,
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
pub(super) struct HomeGuard<'a>(MutexGuard<'a, Inner>);

impl SharedHome {
    pub(super) fn new(home: Home) -> Self {
        Self(Mutex::new(Inner { home, reading: None, readings: 0 }))
    }

    pub(super) fn lock(&self) -> HomeGuard<'_> {
        HomeGuard(self.0.lock())
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.0.lock().home.get(key)
    }

    /// Starts reading the rows as they are now; `None` while another reading goes on.
    pub(super) fn begin_reading(&self) -> Option<ReadingId> {
        let mut inner = self.0.lock();
        if inner.reading.is_some() {
            return None;
        }
        inner.readings += 1;
        let id = ReadingId(inner.readings);
        inner.reading = Some(Reading { id, next: Some(Vec::new()), saved: BTreeMap::new() });
        Some(id)
    }

    /// The next rows, in key order, as of the beginning of the reading.
    pub(super) fn read_piece(&self, id: ReadingId, rows_max: usize) -> Result<Piece, StorageError> {
        let mut inner = self.0.lock();
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

    /// Cancels a reading and hands out the home, to be replaced as a whole. The caller sees to it
    /// that nothing is applied meanwhile.
    pub(super) fn take_over(&self) -> Home {
        let mut inner = self.0.lock();
        inner.reading = None;
        inner.home.clone()
    }

    /// Ends a reading early.
    pub(super) fn end_reading(&self, id: ReadingId) {
        let mut inner = self.0.lock();
        if inner.reading.as_ref().is_some_and(|reading| reading.id == id) {
            inner.reading = None;
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

impl HomeGuard<'_> {
    /// Writes changed rows and the position they lead to, all or nothing.
    pub(super) fn write(&mut self, changes: &Changes, meta: &Meta) -> Result<(), StorageError> {
        let Inner { home, reading, .. } = &mut *self.0;
        if let Some(Reading { next: Some(next), saved, .. }) = reading {
            for key in changes.rows.keys().filter(|key| *key >= next) {
                if !saved.contains_key(key) {
                    saved.insert(key.clone(), home.get(key)?);
                }
            }
        }
        home.write(changes, meta)
    }
}
