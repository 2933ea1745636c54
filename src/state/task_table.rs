//! The tasks in memory, by their place in the order of submission.
//!
//! Most tasks a cluster retains have ended. Nothing changes them any more and few are ever asked
//! for, so an ended task is kept as the bytes of its stored row and decoded for whoever asks: a
//! third of what the object takes. Open ones are objects, because every plan reads them.
//!
//! Ids are found through a table of their hashes. It is only ever looked up, never walked, so its
//! order, which nothing defines, cannot reach the replicated state.

use std::borrow::Cow;
use std::collections::BTreeMap;

use hashbrown::HashTable;

use super::rows::{FORMAT_BYTES, Rows, decode, encode};
use super::{Fatal, TableId};
use crate::model::{Task, TaskId};

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct TaskTable {
    rows: BTreeMap<u64, Row>,
    /// Hash of the id, and the task's place.
    ids: HashTable<(u64, u64)>,
}

#[derive(Debug)]
struct Row {
    held: Held,
    hash: u64,
}

#[derive(Debug)]
enum Held {
    Open(Box<Task>),
    Ended(Box<[u8]>),
}

impl Row {
    fn new(task: Task, encoded: &[u8], hash: u64) -> Self {
        let held = if task.status.is_terminal() {
            Held::Ended(encoded.into())
        } else {
            Held::Open(Box::new(task))
        };
        Self { held, hash }
    }

    fn task(&self) -> Cow<'_, Task> {
        match &self.held {
            Held::Open(task) => Cow::Borrowed(task),
            Held::Ended(row) => Cow::Owned(read_own(row)),
        }
    }

    fn is_of(&self, task_id: &TaskId) -> bool {
        match &self.held {
            Held::Open(task) => task.task_id == *task_id,
            Held::Ended(row) => id_in_row(row) == task_id.as_str(),
        }
    }
}

/// Decodes a row that was encoded, or decoded before, by this process.
fn read_own(row: &[u8]) -> Task {
    decode(row, "task row").expect("the row was read or written here before")
}

/// The id in an encoded task, which is its first field, without decoding the others.
fn id_in_row(row: &[u8]) -> &str {
    let body = row.get(FORMAT_BYTES..).unwrap_or_default();
    let (id, _) = bincode::serde::borrow_decode_from_slice(body, bincode::config::standard())
        .expect("the row was read or written here before");
    id
}

fn id_hash(task_id: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(task_id.as_bytes())
}

/// Tasks are stored in the order they came: what changes together lies together, so the home works
/// at the end of its tree instead of all over it.
fn stored_key(seq: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(9);
    key.push(TableId::Tasks as u8);
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

impl TaskTable {
    /// Takes a stored row; gives the task for the indexes.
    pub(super) fn load(&mut self, key: &[u8], value: &[u8], hash: u64) -> Result<Task, Fatal> {
        let task: Task = decode(value, "task row")?;
        if key != task.seq.to_be_bytes() {
            return Err(Fatal::new(format!("task {} is stored under {key:02x?}", task.task_id)));
        }
        self.note_id(&task);
        self.rows.insert(task.seq, Row::new(task.clone(), value, hash));
        Ok(task)
    }

    fn note_id(&mut self, task: &Task) {
        let hash = id_hash(task.task_id.as_str());
        self.ids.insert_unique(hash, (hash, task.seq), |(hash, _)| *hash);
    }

    /// The place of a task in the order of submission.
    pub(super) fn seq_of(&self, task_id: &TaskId) -> Option<u64> {
        let hash = id_hash(task_id.as_str());
        let is_it = |(its_hash, seq): &(u64, u64)| {
            *its_hash == hash && self.rows.get(seq).is_some_and(|row| row.is_of(task_id))
        };
        self.ids.find(hash, is_it).map(|(_, seq)| *seq)
    }

    pub(super) fn get(&self, task_id: &TaskId) -> Option<Cow<'_, Task>> {
        self.at(self.seq_of(task_id)?)
    }

    pub(super) fn at(&self, seq: u64) -> Option<Cow<'_, Task>> {
        self.rows.get(&seq).map(Row::task)
    }

    /// A task that has not ended.
    pub(super) fn open_at(&self, seq: u64) -> Option<&Task> {
        match &self.rows.get(&seq)?.held {
            Held::Open(task) => Some(task),
            Held::Ended(_) => None,
        }
    }

    /// All tasks after one place, in order.
    pub(super) fn after(&self, seq: u64) -> impl DoubleEndedIterator<Item = Cow<'_, Task>> {
        self.rows.range(seq.saturating_add(1)..).map(|(_, row)| row.task())
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn insert(&mut self, to: &mut Rows, task: Task) {
        self.note_id(&task);
        let (seq, encoded) = (task.seq, encode(&task));
        let row = Row::new(task, &encoded, 0);
        let hash = to.put_bytes(stored_key(seq), None, encoded);
        self.rows.insert(seq, Row { hash, ..row });
    }

    /// Changes an open task and records it; `None` when there is no such task, or it has ended.
    pub(super) fn edit<T>(
        &mut self,
        to: &mut Rows,
        seq: u64,
        edit: impl FnOnce(&mut Task) -> T,
    ) -> Option<T> {
        let row = self.rows.get_mut(&seq)?;
        let Held::Open(task) = &mut row.held else { return None };
        let given = edit(task);
        let encoded = encode(&**task);
        if task.status.is_terminal() {
            row.held = Held::Ended(encoded.as_ref().into());
        }
        row.hash = to.put_bytes(stored_key(seq), Some(row.hash), encoded);
        Some(given)
    }

    pub(super) fn remove(&mut self, to: &mut Rows, task_id: &TaskId) -> Option<Task> {
        let seq = self.seq_of(task_id)?;
        let row = self.rows.remove(&seq)?;
        let hash = id_hash(task_id.as_str());
        if let Ok(found) = self.ids.find_entry(hash, |(_, its_seq)| *its_seq == seq) {
            found.remove();
        }
        to.delete(stored_key(seq), row.hash);
        Some(row.task().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Payload, TaskStatus};

    fn task(seq: u64, status: TaskStatus) -> Task {
        Task {
            task_type: "t".to_owned(),
            input: Payload::inline("1"),
            timeout_ms: 1,
            status,
            ..Task::blank(TaskId::trusted(&format!("t{seq}")), seq, 1, 7)
        }
    }

    #[test]
    fn an_ended_task_is_the_same_from_its_row() {
        let (mut table, mut rows) = (TaskTable::default(), Rows::default());
        for seq in 1..=50 {
            table.insert(&mut rows, task(seq, TaskStatus::Pending));
        }
        let ended = table.edit(&mut rows, 3, |task| {
            task.status = TaskStatus::Cancelled;
            task.clone()
        });
        let id = TaskId::trusted("t3");
        assert_eq!(table.get(&id).map(Cow::into_owned), ended);
        assert!(table.open_at(3).is_none());
        assert!(table.edit(&mut rows, 3, |_| ()).is_none(), "an ended task never changes");
        assert_eq!(table.seq_of(&id), Some(3));
        assert_eq!(table.after(48).map(|task| task.seq).collect::<Vec<_>>(), [49, 50]);

        assert_eq!(table.remove(&mut rows, &id), ended);
        assert!(table.get(&id).is_none() && table.len() == 49);
        assert!(table.remove(&mut rows, &id).is_none());
    }

    #[test]
    fn a_row_under_a_foreign_key_is_refused() {
        let value = encode(&task(5, TaskStatus::Pending));
        let mut table = TaskTable::default();
        assert!(table.load(&6u64.to_be_bytes(), &value, 1).is_err());
        assert!(table.load(&5u64.to_be_bytes(), &value, 1).is_ok());
    }
}
