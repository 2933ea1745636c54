//! Tables whose every change is recorded as a row for the durable home and in the digest.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Changes, Digest, Fatal, TableId, row_hash};
use crate::model::{
    Alert, Delivery, DeliveryId, Drill, DrillId, DrillPage, Member, MemberId, Node, NodeId,
    Payload, Pipeline, ScalingEvent, TaskId,
};

/// Leads every stored value and log entry.
const FORMAT: u8 = 1;
/// Bytes of the format in front of a value.
pub(super) const FORMAT_BYTES: usize = 1;
/// Payloads up to this many bytes stay in the row of their owner.
const INLINE_BYTES_MAX: usize = 320;
/// Larger ones are cut into rows of this size: sled keeps values of this size in its own pages.
const CHUNK_BYTES: usize = 4096;

/// Encodes a value behind its format byte.
pub(super) fn encode<V: Serialize>(value: &V) -> Bytes {
    let mut buffer = Vec::with_capacity(256);
    buffer.push(FORMAT);
    bincode::serde::encode_into_std_write(value, &mut buffer, bincode::config::standard())
        .expect("plain data encodes into memory");
    Bytes::from(buffer)
}

/// Decodes a value that [`encode`] made. All of the bytes must belong to it.
pub(super) fn decode<V: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<V, Fatal> {
    let Some((&FORMAT, body)) = bytes.split_first() else {
        return Err(Fatal::new(format!("{what}: unknown format {:?}", bytes.first())));
    };
    let (value, used) = bincode::serde::decode_from_slice(body, bincode::config::standard())
        .map_err(|error| Fatal::new(format!("{what}: {error}")))?;
    if used != body.len() {
        return Err(Fatal::new(format!("{what}: {} bytes too many", body.len() - used)));
    }
    Ok(value)
}

/// The rows changed since they were last taken, and the digest of all rows.
#[derive(Debug, Default)]
pub(super) struct Rows {
    changes: Changes,
    digest: Digest,
}

impl Rows {
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Counts a row that was read back from the home.
    pub(super) fn loaded(&mut self, hash: u64) {
        self.digest.add(hash);
    }

    /// Writes a row over the one whose hash was `old`; gives the new hash.
    pub(super) fn put<V: Serialize>(&mut self, key: Vec<u8>, old: Option<u64>, value: &V) -> u64 {
        self.put_bytes(key, old, encode(value))
    }

    /// As [`Self::put`], for a value that is encoded already.
    pub(super) fn put_bytes(&mut self, key: Vec<u8>, old: Option<u64>, value: Bytes) -> u64 {
        let hash = row_hash(&key, &value);
        if let Some(old) = old {
            self.digest.remove(old);
        }
        self.digest.add(hash);
        self.changes.rows.insert(key, Some(value));
        hash
    }

    /// Deletes the row whose hash was `old`.
    pub(super) fn delete(&mut self, key: Vec<u8>, old: u64) {
        self.digest.remove(old);
        self.changes.rows.insert(key, None);
    }

    /// Stores a payload of a task: in the owner's row when small, else in chunks of its own.
    pub(super) fn put_payload(
        &mut self,
        task_id: &TaskId,
        part: BlobPart,
        text: String,
    ) -> Payload {
        self.put_payload_beyond(INLINE_BYTES_MAX, task_id, part, text)
    }

    /// As [`Self::put_payload`], for rows in which many payloads lie: only the shortest stay there.
    pub(super) fn put_payload_beyond(
        &mut self,
        inline_bytes_max: usize,
        task_id: &TaskId,
        part: BlobPart,
        text: String,
    ) -> Payload {
        if text.len() <= inline_bytes_max {
            return Payload::inline(text);
        }
        let text = Bytes::from(text);
        let mut sum = 0u64;
        for (number, start) in (0..text.len()).step_by(CHUNK_BYTES).enumerate() {
            let chunk = text.slice(start..text.len().min(start + CHUNK_BYTES));
            let hash = self.put_bytes(blob_key(task_id, part, number), None, chunk);
            sum = sum.wrapping_add(hash);
        }
        let len = u32::try_from(text.len()).expect("bodies are bounded far below 4 GiB");
        Payload::Stored { len, digest: sum }
    }

    /// Deletes what [`Self::put_payload`] stored outside the owner's row.
    pub(super) fn delete_payload(&mut self, task_id: &TaskId, part: BlobPart, payload: &Payload) {
        let Payload::Stored { len, digest } = payload else { return };
        let chunks = (*len as usize).div_ceil(CHUNK_BYTES);
        self.digest.sum = self.digest.sum.wrapping_sub(*digest);
        self.digest.rows -= chunks as u64;
        for number in 0..chunks {
            self.changes.rows.insert(blob_key(task_id, part, number), None);
        }
    }
}

/// The payloads of a task that may live outside its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BlobPart {
    /// What to work on.
    Input = 1,
    /// What came out.
    Result = 2,
    /// Whatever else was sent along.
    Metadata = 3,
    /// The requirements as sent.
    Requirements = 4,
    /// What the node measured.
    Metrics = 5,
    /// What the bots of a wave work on.
    WaveData = 6,
    /// What came of an assignment of a bot.
    BotResult = 7,
    /// The parameters of a task of a workflow.
    StepParams = 8,
    /// What came of a task of a workflow.
    StepResult = 9,
}

fn blob_key(task_id: &TaskId, part: BlobPart, chunk: usize) -> Vec<u8> {
    // Ids hold no control characters, so the zero byte ends them.
    let mut key = Vec::with_capacity(task_id.as_str().len() + 7);
    key.push(TableId::Blobs as u8);
    key.extend_from_slice(task_id.as_str().as_bytes());
    key.extend_from_slice(&[0, part as u8]);
    let chunk = u32::try_from(chunk).expect("a payload has at most 2^20 chunks");
    key.extend_from_slice(&chunk.to_be_bytes());
    key
}

/// The stored keys, in order, of the chunks of a payload that lives outside its owner's row.
#[must_use]
pub fn blob_keys(task_id: &TaskId, part: BlobPart, payload: &Payload) -> Vec<Vec<u8>> {
    let Payload::Stored { len, .. } = payload else { return Vec::new() };
    let chunks = (*len as usize).div_ceil(CHUNK_BYTES);
    (0..chunks).map(|number| blob_key(task_id, part, number)).collect()
}

/// What a resident table holds: its key in memory, and the key it is stored under.
pub(super) trait TableRow: Serialize + DeserializeOwned {
    type Key: Ord + Clone;
    const TABLE: TableId;

    /// Writes the stored key of the row behind the table's byte.
    fn write_key(&self, key: &Self::Key, to: &mut Vec<u8>);

    /// The key in memory of a row that was stored under `stored`.
    fn read_key(&self, stored: &[u8]) -> Option<Self::Key>;
}

impl TableRow for Member {
    type Key = MemberId;
    const TABLE: TableId = TableId::Members;

    fn write_key(&self, key: &MemberId, to: &mut Vec<u8>) {
        to.extend_from_slice(&key.to_be_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<MemberId> {
        stored.try_into().ok().map(MemberId::from_be_bytes)
    }
}

impl TableRow for Node {
    type Key = NodeId;
    const TABLE: TableId = TableId::Nodes;

    fn write_key(&self, key: &NodeId, to: &mut Vec<u8>) {
        to.extend_from_slice(key.as_str().as_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<NodeId> {
        (stored == self.node_id.as_str().as_bytes()).then(|| self.node_id.clone())
    }
}

impl TableRow for Pipeline {
    type Key = String;
    const TABLE: TableId = TableId::Pipelines;

    fn write_key(&self, key: &String, to: &mut Vec<u8>) {
        to.extend_from_slice(key.as_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<String> {
        (stored == self.task_type.as_bytes()).then(|| self.task_type.clone())
    }
}

impl TableRow for Alert {
    type Key = String;
    const TABLE: TableId = TableId::Alerts;

    fn write_key(&self, key: &String, to: &mut Vec<u8>) {
        to.extend_from_slice(key.as_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<String> {
        (stored == self.alert_id.as_bytes()).then(|| self.alert_id.clone())
    }
}

impl TableRow for Delivery {
    type Key = DeliveryId;
    const TABLE: TableId = TableId::Deliveries;

    fn write_key(&self, key: &DeliveryId, to: &mut Vec<u8>) {
        to.extend_from_slice(&key.to_be_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<DeliveryId> {
        stored.try_into().ok().map(DeliveryId::from_be_bytes)
    }
}

impl TableRow for ScalingEvent {
    type Key = u64;
    const TABLE: TableId = TableId::Scalings;

    fn write_key(&self, key: &u64, to: &mut Vec<u8>) {
        to.extend_from_slice(&key.to_be_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<u64> {
        stored.try_into().ok().map(u64::from_be_bytes)
    }
}

impl TableRow for Drill {
    type Key = DrillId;
    const TABLE: TableId = TableId::Drills;

    fn write_key(&self, key: &DrillId, to: &mut Vec<u8>) {
        to.extend_from_slice(&key.to_be_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<DrillId> {
        stored.try_into().ok().map(DrillId::from_be_bytes)
    }
}

impl TableRow for DrillPage {
    /// Whose page, and which one.
    type Key = (DrillId, u32);
    const TABLE: TableId = TableId::DrillPages;

    fn write_key(&self, (drill_id, number): &(DrillId, u32), to: &mut Vec<u8>) {
        to.extend_from_slice(&drill_id.to_be_bytes());
        to.extend_from_slice(&number.to_be_bytes());
    }

    fn read_key(&self, stored: &[u8]) -> Option<(DrillId, u32)> {
        let (drill_id, number) = stored.split_first_chunk()?;
        Some((DrillId::from_be_bytes(*drill_id), u32::from_be_bytes(number.try_into().ok()?)))
    }
}

#[derive(Debug)]
struct Row<V> {
    value: V,
    hash: u64,
}

/// A table in memory, in key order, whose changes are recorded in [`Rows`].
#[derive(Debug)]
pub(super) struct Table<V: TableRow> {
    // Boxed: nodes of the map are half empty on average, and rows are large.
    rows: BTreeMap<V::Key, Box<Row<V>>>,
}

impl<V: TableRow> Default for Table<V> {
    fn default() -> Self {
        Self { rows: BTreeMap::new() }
    }
}

fn stored_key<V: TableRow>(key: &V::Key, value: &V) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    bytes.push(V::TABLE as u8);
    value.write_key(key, &mut bytes);
    bytes
}

impl<V: TableRow> Table<V> {
    pub(super) fn load(&mut self, key: &[u8], value: &[u8], hash: u64) -> Result<(), Fatal> {
        let what = || format!("{:?} row {:02x?}", V::TABLE, key);
        let value: V = decode(value, &what())?;
        let key = value.read_key(key).ok_or_else(|| Fatal::new(format!("{}: bad key", what())))?;
        self.rows.insert(key, Box::new(Row { value, hash }));
        Ok(())
    }

    pub(super) fn get(&self, key: &V::Key) -> Option<&V> {
        self.rows.get(key).map(|row| &row.value)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&V::Key, &V)> {
        self.rows.iter().map(|(key, row)| (key, &row.value))
    }

    /// Rows with keys from `first` to `last`, in order.
    pub(super) fn range(
        &self,
        first: V::Key,
        last: V::Key,
    ) -> impl DoubleEndedIterator<Item = (&V::Key, &V)> + use<'_, V> {
        let rows = (first <= last).then(|| self.rows.range(first..=last));
        rows.into_iter().flatten().map(|(key, row)| (key, &row.value))
    }

    /// Rows behind a key, in order; all of them without one.
    pub(super) fn after(
        &self,
        key: Option<V::Key>,
    ) -> impl DoubleEndedIterator<Item = (&V::Key, &V)> + use<'_, V> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = key.map_or(Unbounded, Excluded);
        self.rows.range((from, Unbounded)).map(|(key, row)| (key, &row.value))
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn put(&mut self, to: &mut Rows, key: V::Key, value: V) {
        let old = self.rows.get(&key).map(|row| row.hash);
        let hash = to.put(stored_key(&key, &value), old, &value);
        self.rows.insert(key, Box::new(Row { value, hash }));
    }

    /// Changes a row in place and records it; `None` when there is no such row.
    pub(super) fn edit<T>(
        &mut self,
        to: &mut Rows,
        key: &V::Key,
        edit: impl FnOnce(&mut V) -> T,
    ) -> Option<T> {
        let row = self.rows.get_mut(key)?;
        let given = edit(&mut row.value);
        row.hash = to.put(stored_key(key, &row.value), Some(row.hash), &row.value);
        Some(given)
    }

    /// Changes a row in memory alone: for many changes of one row in one command, which
    /// [`Self::write`] then records together.
    pub(super) fn edit_unwritten(&mut self, key: &V::Key, edit: impl FnOnce(&mut V)) {
        if let Some(row) = self.rows.get_mut(key) {
            edit(&mut row.value);
        }
    }

    /// Records a row as it stands.
    pub(super) fn write(&mut self, to: &mut Rows, key: &V::Key) {
        self.edit(to, key, |_| ());
    }

    pub(super) fn remove(&mut self, to: &mut Rows, key: &V::Key) -> Option<V> {
        let row = self.rows.remove(key)?;
        to.delete(stored_key(key, &row.value), row.hash);
        Some(row.value)
    }
}
