//! Which requests were answered how, and which tasks existed once: two records bounded by time
//! and count, kept as one row per log entry because they are written and dropped in that order.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::rows::{Rows, decode};
use super::{Fatal, Reply, TableId};
use crate::model::{RequestId, TaskId, TimeMs};

/// Answers are kept at least so long, unless there are too many.
pub const REQUEST_WINDOW_MS: TimeMs = 15 * 60 * 1000;
/// The most answers kept.
pub const REQUESTS_MAX: usize = 500_000;
/// Ids of deleted tasks are kept so long, unless there are too many.
pub const TOMBSTONE_WINDOW_MS: TimeMs = 24 * 60 * 60 * 1000;
/// The most ids of deleted tasks kept.
pub const TOMBSTONES_MAX: usize = 500_000;
/// Rows dropped per entry at most, so that no single entry pays for a long pause.
const DROPPED_PER_ENTRY_MAX: usize = 64;

/// A recorded answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Log index of the entry that held the request.
    pub index: u64,
    /// What it was answered.
    pub reply: Reply,
}

/// A record of things that happened per log entry, dropped oldest first.
#[derive(Debug)]
struct Ledger<K, V> {
    table: TableId,
    window_ms: TimeMs,
    max: usize,
    by_key: BTreeMap<K, V>,
    entries: VecDeque<LedgerEntry<K>>,
}

#[derive(Debug)]
struct LedgerEntry<K> {
    index: u64,
    at_ms: TimeMs,
    keys: Vec<K>,
    hash: u64,
}

impl<K: Ord + Copy, V> Ledger<K, V> {
    fn new(table: TableId, window_ms: TimeMs, max: usize) -> Self {
        Self { table, window_ms, max, by_key: BTreeMap::new(), entries: VecDeque::new() }
    }

    fn stored_key(&self, index: u64) -> Vec<u8> {
        let mut key = vec![self.table as u8];
        key.extend_from_slice(&index.to_be_bytes());
        key
    }

    fn append(&mut self, index: u64, at_ms: TimeMs, keys: Vec<K>, hash: u64) {
        self.entries.push_back(LedgerEntry { index, at_ms, keys, hash });
    }

    fn drop_old(&mut self, rows: &mut Rows, now: TimeMs) {
        for _ in 0..DROPPED_PER_ENTRY_MAX {
            let Some(oldest) = self.entries.front() else { return };
            let over = self.by_key.len() > self.max;
            if !over && oldest.at_ms.saturating_add(self.window_ms) > now {
                return;
            }
            let Some(oldest) = self.entries.pop_front() else { return };
            rows.delete(self.stored_key(oldest.index), oldest.hash);
            for key in &oldest.keys {
                self.by_key.remove(key);
            }
        }
    }
}

/// The request-id table: a retry under the same id gets the first answer.
#[derive(Debug)]
pub(super) struct Requests {
    ledger: Ledger<RequestId, Recorded>,
    fresh: Vec<(RequestId, Reply)>,
}

#[derive(Serialize, Deserialize)]
struct RequestsRow {
    at_ms: TimeMs,
    answers: Vec<(RequestId, Reply)>,
}

impl Requests {
    pub(super) fn new() -> Self {
        let ledger = Ledger::new(TableId::Requests, REQUEST_WINDOW_MS, REQUESTS_MAX);
        Self { ledger, fresh: Vec::new() }
    }

    pub(super) fn get(&self, id: RequestId) -> Option<&Recorded> {
        self.ledger.by_key.get(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.ledger.by_key.len()
    }

    pub(super) fn record(&mut self, id: RequestId, index: u64, reply: &Reply) {
        self.ledger.by_key.insert(id, Recorded { index, reply: reply.clone() });
        self.fresh.push((id, reply.clone()));
    }

    /// Writes the answers of the entry that ends, and drops what is too old.
    pub(super) fn end_entry(&mut self, rows: &mut Rows, index: u64, now: TimeMs) {
        if !self.fresh.is_empty() {
            let row = RequestsRow { at_ms: now, answers: std::mem::take(&mut self.fresh) };
            let hash = rows.put(self.ledger.stored_key(index), None, &row);
            let keys = row.answers.into_iter().map(|(id, _)| id).collect();
            self.ledger.append(index, now, keys, hash);
        }
        self.ledger.drop_old(rows, now);
    }

    pub(super) fn load(&mut self, key: &[u8], value: &[u8], hash: u64) -> Result<(), Fatal> {
        let index = ledger_index(key)?;
        let row: RequestsRow = decode(value, "requests row")?;
        let keys = row.answers.iter().map(|(id, _)| *id).collect();
        for (id, reply) in row.answers {
            self.ledger.by_key.insert(id, Recorded { index, reply });
        }
        self.ledger.append(index, row.at_ms, keys, hash);
        Ok(())
    }
}

/// Ids of tasks that were deleted, as 64-bit hashes: a late resubmission must not run them again.
/// Two ids with one hash would make a new task look old; at the bound of half a million kept ids
/// that is one submission in 10^13.
#[derive(Debug)]
pub(super) struct Tombstones {
    ledger: Ledger<u64, ()>,
}

#[derive(Serialize, Deserialize)]
struct TombstonesRow {
    at_ms: TimeMs,
    hashes: Vec<u64>,
}

impl Tombstones {
    pub(super) fn new() -> Self {
        Self { ledger: Ledger::new(TableId::Tombstones, TOMBSTONE_WINDOW_MS, TOMBSTONES_MAX) }
    }

    pub(super) fn contains(&self, task_id: &TaskId) -> bool {
        self.ledger.by_key.contains_key(&tombstone_hash(task_id))
    }

    /// Records the ids that the command at `index` deleted. Two such commands in one entry share
    /// its index, so the row is keyed by index and place.
    pub(super) fn add(&mut self, rows: &mut Rows, key: u64, now: TimeMs, ids: &[TaskId]) {
        let hashes: Vec<u64> = ids.iter().map(tombstone_hash).collect();
        let row = TombstonesRow { at_ms: now, hashes };
        let hash = rows.put(self.ledger.stored_key(key), None, &row);
        self.ledger.by_key.extend(row.hashes.iter().map(|hash| (*hash, ())));
        self.ledger.append(key, now, row.hashes, hash);
    }

    pub(super) fn end_entry(&mut self, rows: &mut Rows, now: TimeMs) {
        self.ledger.drop_old(rows, now);
    }

    pub(super) fn load(&mut self, key: &[u8], value: &[u8], hash: u64) -> Result<(), Fatal> {
        let row: TombstonesRow = decode(value, "tombstones row")?;
        self.ledger.by_key.extend(row.hashes.iter().map(|hash| (*hash, ())));
        self.ledger.append(ledger_index(key)?, row.at_ms, row.hashes, hash);
        Ok(())
    }
}

fn tombstone_hash(task_id: &TaskId) -> u64 {
    xxhash_rust::xxh3::xxh3_64(task_id.as_str().as_bytes())
}

fn ledger_index(key: &[u8]) -> Result<u64, Fatal> {
    let bytes = key.try_into().map_err(|_| Fatal::new(format!("bad ledger key {key:02x?}")))?;
    Ok(u64::from_be_bytes(bytes))
}
