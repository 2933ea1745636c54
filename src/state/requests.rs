//! Which requests were answered how, and which tasks existed once: two records bounded by time
//! and count, kept as one row per log entry because they are written and dropped in that order.
//!
//! Their time is the age of [`super::Counters::aged_ms`], not the time of the state: a leader's clock
//! that leaps ahead must not make the state forget whom it has answered.
//!
//! Memory holds the rows as they are stored, and a table from key to row. That table is only ever
//! looked up, never walked, so its order cannot reach the replicated state. Answers are decoded for
//! the few who ask.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashTable;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::rows::{Rows, decode, encode};
use super::{Fatal, Outcome, Rejection, Reply, TableId};
use crate::model::{RequestId, TaskId, TimeMs};

/// Answers are kept at least so long, unless there are too many.
pub const REQUEST_WINDOW_MS: TimeMs = 15 * 60 * 1000;
/// The most answers kept.
pub const REQUESTS_MAX: usize = 500_000;
/// The most bytes of answers kept: one that names a thousand leases has some 10 KB.
const REQUEST_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Ids of deleted tasks are kept so long, unless there are too many.
pub const TOMBSTONE_WINDOW_MS: TimeMs = 24 * 60 * 60 * 1000;
/// The most ids of deleted tasks kept.
pub const TOMBSTONES_MAX: usize = 500_000;
/// Rows dropped per entry at most, so that no single entry pays for a long pause.
const DROPPED_PER_ENTRY_MAX: usize = 64;
/// Rows that stay decoded while one entry is applied.
const LOOKED_INTO_MAX: usize = 8;

/// A recorded answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Log index of the entry that held the request.
    pub index: u64,
    /// What it was answered.
    pub reply: Reply,
    /// What it was asked for with, when that is known.
    print: Option<u64>,
}

impl Recorded {
    fn of(index: u64, stored: &Reply) -> Self {
        match stored {
            Ok(Outcome::Asked { print, reply }) => {
                Self { index, reply: Reply::clone(reply), print: Some(*print) }
            }
            reply => Self { index, reply: reply.clone(), print: None },
        }
    }

    /// What whoever asks again is answered: it must have asked for the same.
    pub fn answer(self, print: Option<u64>) -> Reply {
        match self.print.zip(print) {
            Some((first, again)) if first != again => Err(Rejection::KeyReused),
            Some(_) | None => self.reply,
        }
    }
}

/// One row of a record.
trait LedgerRow: Serialize + DeserializeOwned {
    /// What the row's parts are found by.
    type Key: Copy + Eq;
    const TABLE: TableId;
    /// Rows are kept at least so long, unless there are too many.
    const WINDOW_MS: TimeMs;
    /// The most parts kept.
    const PARTS_MAX: usize;
    /// The most bytes of rows kept.
    const BYTES_MAX: usize;

    /// When it was written, by the age of the state.
    fn aged_ms(&self) -> TimeMs;
    fn keys(&self) -> impl Iterator<Item = Self::Key>;
    fn hash(key: Self::Key) -> u64;
}

/// A record of things that happened per log entry, dropped oldest first.
#[derive(Debug)]
struct Ledger<R: LedgerRow> {
    /// Key of a part, and the row it is in.
    places: HashTable<(R::Key, u64)>,
    rows: VecDeque<Stored>,
    /// Of all rows.
    bytes: usize,
}

#[derive(Debug)]
struct Stored {
    key: u64,
    aged_ms: TimeMs,
    row: Box<[u8]>,
    hash: u64,
}

impl Stored {
    fn read<R: LedgerRow>(&self) -> R {
        decode(&self.row, "ledger row").expect("the row was read or written here before")
    }
}

fn stored_key<R: LedgerRow>(key: u64) -> Vec<u8> {
    let mut bytes = vec![R::TABLE as u8];
    bytes.extend_from_slice(&key.to_be_bytes());
    bytes
}

impl<R: LedgerRow> Ledger<R> {
    fn new() -> Self {
        Self { places: HashTable::new(), rows: VecDeque::new(), bytes: 0 }
    }

    /// The row that holds `part`, by its key.
    fn place(&self, part: R::Key) -> Option<u64> {
        self.places.find(R::hash(part), |(its, _)| *its == part).map(|(_, key)| *key)
    }

    fn note(&mut self, part: R::Key, key: u64) {
        self.places.insert_unique(R::hash(part), (part, key), |(part, _)| R::hash(*part));
    }

    fn row(&self, key: u64) -> Option<&Stored> {
        let at = self.rows.binary_search_by_key(&key, |stored| stored.key).ok()?;
        self.rows.get(at)
    }

    /// Stores a row whose parts are noted already.
    fn append(&mut self, to: &mut Rows, key: u64, row: &R) {
        let encoded = encode(row);
        let own: Box<[u8]> = Box::from(encoded.as_ref());
        self.bytes += own.len();
        let hash = to.put_bytes(stored_key::<R>(key), None, encoded);
        self.rows.push_back(Stored { key, aged_ms: row.aged_ms(), row: own, hash });
    }

    fn drop_old(&mut self, to: &mut Rows, aged: TimeMs) {
        for _ in 0..DROPPED_PER_ENTRY_MAX {
            let Some(oldest) = self.rows.front() else { return };
            let over = self.places.len() > R::PARTS_MAX || self.bytes > R::BYTES_MAX;
            if !over && oldest.aged_ms.saturating_add(R::WINDOW_MS) > aged {
                return;
            }
            let Some(oldest) = self.rows.pop_front() else { return };
            self.bytes -= oldest.row.len();
            to.delete(stored_key::<R>(oldest.key), oldest.hash);
            for part in oldest.read::<R>().keys() {
                let is_it = |place: &(R::Key, u64)| *place == (part, oldest.key);
                if let Ok(found) = self.places.find_entry(R::hash(part), is_it) {
                    found.remove();
                }
            }
        }
    }

    fn load(&mut self, key: &[u8], value: &[u8], hash: u64) -> Result<(), Fatal> {
        let bytes = key.try_into();
        let bytes = bytes.map_err(|_| Fatal::new(format!("bad ledger key {key:02x?}")))?;
        let key = u64::from_be_bytes(bytes);
        let row: R = decode(value, "ledger row")?;
        for part in row.keys() {
            self.note(part, key);
        }
        self.bytes += value.len();
        self.rows.push_back(Stored { key, aged_ms: row.aged_ms(), row: value.into(), hash });
        Ok(())
    }
}

/// The request-id table: a retry under the same id gets the first answer.
#[derive(Debug)]
pub(super) struct Requests {
    ledger: Ledger<RequestsRow>,
    /// Answers of the entry that is being applied, and its index.
    fresh: (u64, Vec<(RequestId, Reply)>),
    /// Rows looked into while that entry is applied: who asks again often does so with many others.
    looked_into: BTreeMap<u64, BTreeMap<RequestId, Reply>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RequestsRow {
    aged_ms: TimeMs,
    answers: Vec<(RequestId, Reply)>,
}

impl LedgerRow for RequestsRow {
    type Key = RequestId;
    const TABLE: TableId = TableId::Requests;
    const WINDOW_MS: TimeMs = REQUEST_WINDOW_MS;
    const PARTS_MAX: usize = REQUESTS_MAX;
    const BYTES_MAX: usize = REQUEST_BYTES_MAX;

    fn aged_ms(&self) -> TimeMs {
        self.aged_ms
    }

    fn keys(&self) -> impl Iterator<Item = RequestId> {
        self.answers.iter().map(|(id, _)| *id)
    }

    fn hash(id: RequestId) -> u64 {
        // Clients may choose all of an id, so its bits are not taken as they are.
        xxhash_rust::xxh3::xxh3_64(&id.0.to_le_bytes())
    }
}

impl Requests {
    pub(super) fn new() -> Self {
        Self { ledger: Ledger::new(), fresh: (0, Vec::new()), looked_into: BTreeMap::new() }
    }

    pub(super) fn get(&self, id: RequestId) -> Option<Recorded> {
        let index = self.ledger.place(id)?;
        let of = |answers: &[(RequestId, Reply)]| {
            let answer = answers.iter().find(|(its, _)| *its == id)?;
            Some(Recorded::of(index, &answer.1))
        };
        let (fresh_index, fresh) = &self.fresh;
        if index == *fresh_index && !fresh.is_empty() {
            return of(fresh);
        }
        of(&self.ledger.row(index)?.read::<RequestsRow>().answers)
    }

    /// As [`Self::get`], for apply: reads a row once for all of an entry that ask again. After a
    /// failover that may be thousands, whose answers stand in one row.
    pub(super) fn get_again(&mut self, id: RequestId) -> Option<Recorded> {
        let index = self.ledger.place(id)?;
        if index == self.fresh.0 && !self.fresh.1.is_empty() {
            return self.get(id);
        }
        if !self.looked_into.contains_key(&index) {
            if self.looked_into.len() >= LOOKED_INTO_MAX {
                self.looked_into.pop_first();
            }
            let row = self.ledger.row(index)?.read::<RequestsRow>();
            self.looked_into.insert(index, row.answers.into_iter().collect());
        }
        Some(Recorded::of(index, self.looked_into.get(&index)?.get(&id)?))
    }

    pub(super) fn len(&self) -> usize {
        self.ledger.places.len()
    }

    pub(super) fn record(&mut self, id: RequestId, index: u64, reply: &Reply, print: Option<u64>) {
        self.ledger.note(id, index);
        self.fresh.0 = index;
        let reply = reply.clone();
        let stored = match print {
            Some(print) => Ok(Outcome::Asked { print, reply: Box::new(reply) }),
            None => reply,
        };
        self.fresh.1.push((id, stored));
    }

    /// Writes the answers of the entry that ends, and drops what is too old.
    pub(super) fn end_entry(&mut self, rows: &mut Rows, index: u64, aged: TimeMs) {
        self.looked_into.clear();
        let answers = std::mem::take(&mut self.fresh.1);
        if !answers.is_empty() {
            self.ledger.append(rows, index, &RequestsRow { aged_ms: aged, answers });
        }
        self.ledger.drop_old(rows, aged);
    }

    pub(super) fn load(&mut self, key: &[u8], value: &[u8], hash: u64) -> Result<(), Fatal> {
        self.ledger.load(key, value, hash)
    }
}

/// Ids of tasks that were deleted, as 64-bit hashes: a late resubmission must not run them again.
/// Two ids with one hash would make a new task look old; at the bound of half a million kept ids
/// that is one submission in 10^13.
#[derive(Debug)]
pub(super) struct Tombstones {
    ledger: Ledger<TombstonesRow>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TombstonesRow {
    aged_ms: TimeMs,
    hashes: Vec<u64>,
}

impl LedgerRow for TombstonesRow {
    type Key = u64;
    const TABLE: TableId = TableId::Tombstones;
    const WINDOW_MS: TimeMs = TOMBSTONE_WINDOW_MS;
    const PARTS_MAX: usize = TOMBSTONES_MAX;
    const BYTES_MAX: usize = usize::MAX;

    fn aged_ms(&self) -> TimeMs {
        self.aged_ms
    }

    fn keys(&self) -> impl Iterator<Item = u64> {
        self.hashes.iter().copied()
    }

    fn hash(hash: u64) -> u64 {
        hash
    }
}

impl Tombstones {
    pub(super) fn new() -> Self {
        Self { ledger: Ledger::new() }
    }

    pub(super) fn contains(&self, task_id: &TaskId) -> bool {
        self.ledger.place(tombstone_hash(task_id)).is_some()
    }

    /// Records the ids that the command at `index` deleted. Two such commands in one entry share
    /// its index, so the row is keyed by index and place.
    pub(super) fn add(&mut self, rows: &mut Rows, key: u64, aged: TimeMs, ids: &[TaskId]) {
        let row = TombstonesRow { aged_ms: aged, hashes: ids.iter().map(tombstone_hash).collect() };
        for hash in &row.hashes {
            self.ledger.note(*hash, key);
        }
        self.ledger.append(rows, key, &row);
    }

    pub(super) fn end_entry(&mut self, rows: &mut Rows, aged: TimeMs) {
        self.ledger.drop_old(rows, aged);
    }

    pub(super) fn load(&mut self, key: &[u8], value: &[u8], hash: u64) -> Result<(), Fatal> {
        self.ledger.load(key, value, hash)
    }
}

fn tombstone_hash(task_id: &TaskId) -> u64 {
    xxhash_rust::xxh3::xxh3_64(task_id.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They were bounded by number only: half a million answers of 10 KB each are 5 GB.
    #[test]
    fn answers_are_bounded_by_their_bytes_as_well() {
        let (mut requests, mut rows) = (Requests::new(), Rows::default());
        let mut answer = |requests: &mut Requests, index: u64| {
            requests.record(RequestId(index.into()), index, &Ok(Outcome::Done), None);
            requests.end_entry(&mut rows, index, 1);
        };
        (1..=3).for_each(|index| answer(&mut requests, index));
        // As if there were others.
        requests.ledger.bytes = REQUEST_BYTES_MAX;
        let there = |requests: &Requests| {
            (1..=4).filter(|id| requests.get(RequestId(*id)).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(there(&requests), [1, 2, 3]);
        answer(&mut requests, 4);
        assert_eq!((there(&requests), requests.ledger.bytes), (vec![2, 3, 4], REQUEST_BYTES_MAX));
    }
}
