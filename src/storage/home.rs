//! The durable home of the state: all rows and, in the same batch, how far they are applied.
//!
//! sled is never trusted: it must be legal to delete the home at any moment and rebuild it from a
//! snapshot file and the log. The simulation's twin is a map on the simulated disk, which a crash
//! loses or sets back.

use std::fs::File;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::codec::{PositionForm, decode_form, encode_form, position_form, position_of};
use super::error::StorageError;
use super::pages::{self, Page, Place};
use super::sim::SimHandle;
use super::{LogId, StoredMembership};
use crate::state::{Changes, Digest};

/// Sorts before every row: tables are numbered from 1.
const META_KEY: &[u8] = &[0];
const FIRST_ROW: &[u8] = &[1];

/// How often, and after what pauses, an open is tried while sled's file is locked.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How far the rows of a home are applied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Meta {
    pub(super) applied: Option<LogId>,
    pub(super) membership: StoredMembership,
    pub(super) digest: Digest,
}

/// Position, digest sum, row count, whether a snapshot is being written into the home.
type MetaForm = (PositionForm, u64, u64, bool);

/// What a home says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HomeState {
    /// Never written.
    Empty,
    /// The rows are those of this moment.
    Complete(Meta),
    /// A crash cut the installation of a snapshot short: the rows mean nothing.
    Installing,
}

fn encode_meta(meta: &Meta, installing: bool) -> Vec<u8> {
    let position = position_form(meta.applied.as_ref(), &meta.membership);
    let form: MetaForm = (position, meta.digest.sum, meta.digest.rows, installing);
    encode_form(&form)
}

fn decode_meta(bytes: &[u8]) -> Result<HomeState, StorageError> {
    let (position, sum, rows, installing): MetaForm = decode_form(bytes, "the home's meta row")?;
    if installing {
        return Ok(HomeState::Installing);
    }
    let (applied, membership) = position_of(position)?;
    Ok(HomeState::Complete(Meta { applied, membership, digest: Digest { sum, rows } }))
}

/// A stored row: full key and value.
pub(super) type StoredRow = (Vec<u8>, Bytes);

/// sled, let go of only where its disk still takes a flush. Its destructor flushes once more, and
/// panics when that fails: the member would end with that panic instead of with its reason.
#[derive(Debug)]
pub(super) struct OpenSled {
    /// None only while it is being dropped.
    db: Option<sled::Db>,
    file: PathBuf,
}

impl Deref for OpenSled {
    type Target = sled::Db;

    fn deref(&self) -> &sled::Db {
        self.db.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for OpenSled {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        let flushed = File::open(&self.file).and_then(|file| file.sync_all());
        if let Err(error) = flushed {
            tracing::warn!(%error, "left the home open: its disk takes no flush");
            // Its threads end with the process, which a failing disk ends anyway.
            std::mem::forget(db);
        } else if let Err(error) = shielded(|| {
            drop(db);
            Ok(())
        }) {
            tracing::warn!(%error, "the home did not close well");
        }
    }
}

/// See the module's description.
#[derive(Debug, Clone)]
pub(super) enum Home {
    Sled(Arc<OpenSled>),
    Simulated(SimHandle),
}

fn sled_error(error: &sled::Error) -> StorageError {
    StorageError::Home(error.to_string())
}

/// sled reports its file lock as text.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("acquire lock"))
}

impl Home {
    #[expect(clippy::disallowed_methods, reason = "opening runs on a thread for blocking work")]
    /// Opens sled in `dir`. It is known to panic on damage, which becomes an error here.
    pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, StorageError> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(cache_bytes)
            .mode(sled::Mode::HighThroughput)
            // Nothing relies on its flushes; a rare one bounds how far behind a kill leaves it.
            .flush_every_ms(Some(5_000));
        let mut tries = 0;
        loop {
            tries += 1;
            match shielded(|| Ok(config.open()))? {
                Ok(db) => {
                    let sled = OpenSled { db: Some(db), file: dir.join("db") };
                    return Ok(Self::Sled(Arc::new(sled)));
                }
                // The data directory is locked, so this is the lock of an earlier run in this
                // process, whose threads are about to end. It does not mean that sled is broken.
                Err(error) if is_locked(&error) && tries < LOCK_TRIES => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(error) => return Err(sled_error(&error)),
            }
        }
    }

    pub(super) fn state(&self) -> Result<HomeState, StorageError> {
        match self.get(META_KEY)? {
            Some(bytes) => decode_meta(&bytes),
            None if self.scan(FIRST_ROW, 1)?.is_empty() => Ok(HomeState::Empty),
            None => Err(StorageError::Home("rows without a meta row".to_owned())),
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        match self {
            Self::Sled(db) => match Place::of(key) {
                Place::Alone => sled_get(db, key),
                Place::Paged(page_key, slot) => Ok(sled_page(db, &page_key)?.into_row(slot)),
            },
            Self::Simulated(disk) => {
                disk.home_read(|rows| rows.get(key).cloned()).map_err(simulated)
            }
        }
    }

    /// Up to `limit` rows whose keys are at or after `from`, in key order.
    pub(super) fn scan(&self, from: &[u8], limit: usize) -> Result<Vec<StoredRow>, StorageError> {
        let from = from.max(FIRST_ROW);
        match self {
            Self::Sled(db) => sled_scan(db, from, limit),
            Self::Simulated(disk) => disk
                .home_read(|rows| {
                    let rows = rows.range(from.to_vec()..).take(limit);
                    rows.map(|(key, value)| (key.clone(), value.clone())).collect()
                })
                .map_err(simulated),
        }
    }

    /// Writes changed rows and the position they lead to, all or nothing.
    pub(super) fn write(&self, changes: &Changes, meta: &Meta) -> Result<(), StorageError> {
        self.write_with(changes, &encode_meta(meta, false))
    }

    /// Empties the home and marks it as being filled from a snapshot.
    pub(super) fn begin_install(&self) -> Result<(), StorageError> {
        let marker = encode_meta(&Meta::default(), true);
        self.write_with(&Changes::default(), &marker)?;
        match self {
            Self::Sled(db) => shielded(|| {
                db.clear().map_err(|error| sled_error(&error))?;
                db.insert(META_KEY, marker).map_err(|error| sled_error(&error))?;
                Ok(())
            }),
            Self::Simulated(disk) => {
                disk.home_write(|rows| rows.retain(|key, _| key == META_KEY)).map_err(simulated)
            }
        }
    }

    /// Adds rows of the snapshot that is being installed.
    pub(super) fn install_rows(&self, changes: &Changes) -> Result<(), StorageError> {
        self.write_with(changes, &encode_meta(&Meta::default(), true))
    }

    fn write_with(&self, changes: &Changes, meta: &[u8]) -> Result<(), StorageError> {
        match self {
            Self::Sled(db) => {
                let mut batch = sled_batch(db, changes)?;
                batch.insert(META_KEY, meta);
                shielded(|| db.apply_batch(batch).map_err(|error| sled_error(&error)))
            }
            Self::Simulated(disk) => disk
                .home_write(|rows| {
                    for (key, value) in &changes.rows {
                        match value {
                            Some(value) => rows.insert(key.clone(), value.clone()),
                            None => rows.remove(key),
                        };
                    }
                    rows.insert(META_KEY.to_vec(), Bytes::copy_from_slice(meta));
                })
                .map_err(simulated),
        }
    }
}

fn sled_get(db: &sled::Db, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
    let value = shielded(|| db.get(key).map_err(|error| sled_error(&error)))?;
    Ok(value.map(|value| Bytes::copy_from_slice(&value)))
}

fn sled_page(db: &sled::Db, page_key: &[u8]) -> Result<Page, StorageError> {
    Page::decode(sled_get(db, page_key)?.unwrap_or_default())
}

fn sled_scan(db: &sled::Db, from: &[u8], limit: usize) -> Result<Vec<StoredRow>, StorageError> {
    let page_key = pages::first_page(from);
    let start = page_key.as_ref().map_or(from, |page_key| page_key.as_slice());
    let mut rows = Vec::new();
    shielded(|| {
        for stored in db.range(start..) {
            let (key, value) = stored.map_err(|error| sled_error(&error))?;
            let value = Bytes::copy_from_slice(&value);
            if pages::is_page_key(&key) {
                let paged = Page::decode(value)?.into_rows(&key);
                rows.extend(paged.filter(|(key, _)| key.as_slice() >= from));
            } else {
                rows.push((key.to_vec(), value));
            }
            if rows.len() >= limit {
                rows.truncate(limit);
                break;
            }
        }
        Ok(())
    })?;
    Ok(rows)
}

/// What changes in the home when `changes` are made to the rows.
fn sled_batch(db: &sled::Db, changes: &Changes) -> Result<sled::Batch, StorageError> {
    let mut batch = sled::Batch::default();
    let mut put = |key: &[u8], value: Option<&[u8]>| match value {
        Some(value) => batch.insert(key, value),
        None => batch.remove(key),
    };
    // Rows come in key order, so those of one page come together.
    let mut open: Option<([u8; pages::KEY_BYTES], Page)> = None;
    for (key, value) in &changes.rows {
        let Place::Paged(page_key, slot) = Place::of(key) else {
            put(key, value.as_deref());
            continue;
        };
        if open.as_ref().is_none_or(|(key, _)| *key != page_key) {
            if let Some((key, page)) = open.take() {
                put(&key, page.encode().as_deref());
            }
            open = Some((page_key, sled_page(db, &page_key)?));
        }
        if let Some((_, page)) = &mut open {
            page.set(slot, value.clone());
        }
    }
    if let Some((key, page)) = open {
        put(&key, page.encode().as_deref());
    }
    Ok(batch)
}

fn simulated(source: std::io::Error) -> StorageError {
    StorageError::Io { what: "the simulated home".to_owned(), source }
}

/// Runs a call into sled; a panic inside becomes an error.
fn shielded<T>(call: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(StorageError::Home(format!("sled panicked: {what}")))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A scan goes on after the last row it gave, which may stand in the middle of a page.
    #[test]
    fn a_scan_in_pieces_gives_every_row_once() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path(), 1 << 20).unwrap();
        let mut rows = BTreeMap::new();
        for number in (0..100u64).filter(|number| number % 7 != 3) {
            let key = [&[4][..], &number.to_be_bytes()].concat();
            rows.insert(key, Some(Bytes::from(format!("task {number}"))));
        }
        for table in [1, 3, 5, 6] {
            rows.insert(vec![table, 9], Some(Bytes::from(format!("table {table}"))));
        }
        home.write(&Changes { rows: rows.clone() }, &Meta::default()).unwrap();
        // Deleted, changed and new rows, in pages that are there and pages that are not.
        let mut changes = Changes::default();
        for number in [0u64, 8, 9, 10, 11, 12, 13, 14, 15, 50] {
            changes.rows.insert([&[4][..], &number.to_be_bytes()].concat(), None);
        }
        for number in [2u64, 3, 101, 1000] {
            let key = [&[4][..], &number.to_be_bytes()].concat();
            changes.rows.insert(key, Some(Bytes::from_static(b"new")));
        }
        home.write(&changes, &Meta::default()).unwrap();
        rows.extend(changes.rows);
        let expected: Vec<StoredRow> = rows
            .iter()
            .filter_map(|(key, value)| value.clone().map(|value| (key.clone(), value)))
            .collect();
        for limit in [1, 3, 8, 1000] {
            let (mut found, mut from) = (Vec::new(), Vec::new());
            loop {
                let piece = home.scan(&from, limit).unwrap();
                let Some((last, _)) = piece.last() else { break };
                from = [last.as_slice(), &[0]].concat();
                found.extend(piece);
            }
            assert_eq!(found, expected, "in pieces of {limit}");
        }
        for (key, value) in &rows {
            assert_eq!(home.get(key).unwrap(), *value, "{key:?}");
        }
    }
}
