//! What the tests share: opening, appending, real commands.

use std::path::Path;

use bytes::Bytes;
use futures::stream;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::{RaftLogReader, RaftSnapshotBuilder};
use tokio::sync::oneshot;

use crate::model::{RequestId, TaskId};
use crate::state::{Command, Envelope, LogEntry, TaskSpec, encode_entry};
use crate::storage::codec::log_id;
use crate::storage::{
    Disk, EncodedEntry, LogStore, RaftEntry, RaftPayload, SimDisk, SimOptions, SnapshotData,
    StateMachine, Storage, StorageError, StorageOptions, Vote,
};

/// Storage in a real directory, with small log files so that several come to be.
pub(super) async fn open_dir(dir: &Path) -> Storage {
    try_open_dir(dir).await.expect("a healthy directory opens")
}

pub(super) async fn try_open_dir(dir: &Path) -> Result<Storage, StorageError> {
    let mut options = StorageOptions::new(Disk::Dir(dir.to_owned()));
    options.wal.chunk_bytes = 16 << 10;
    options.wal.cache_bytes = 4 << 10;
    options.home_cache_bytes = 1 << 20;
    Storage::open(options).await
}

pub(super) async fn open_sim(disk: &SimDisk) -> Storage {
    try_open_sim(disk).await.expect("a simulated disk opens")
}

pub(super) async fn try_open_sim(disk: &SimDisk) -> Result<Storage, StorageError> {
    Storage::open(StorageOptions::new(Disk::Simulated(disk.clone()))).await
}

pub(super) fn sim(seed: u64) -> SimDisk {
    SimDisk::new(SimOptions { seed, ..SimOptions::default() })
}

pub(super) fn vote(term: u64, member: u64) -> Vote {
    Vote::new(term, member)
}

pub(super) fn blank(term: u64, index: u64) -> RaftEntry {
    RaftEntry { log_id: log_id(term, index), payload: RaftPayload::Blank }
}

/// An entry of `len` bytes that says its index; not for the state machine.
pub(super) fn filler(term: u64, index: u64, len: usize) -> RaftEntry {
    let mut bytes = vec![0u8; len.max(8)];
    bytes[..8].copy_from_slice(&index.to_le_bytes());
    let payload = RaftPayload::Normal(EncodedEntry(Bytes::from(bytes)));
    RaftEntry { log_id: log_id(term, index), payload }
}

/// An entry that submits a task named after its index. Every third one has an input that is kept
/// outside the task's row.
pub(super) fn submit(term: u64, index: u64) -> RaftEntry {
    let input = if index.is_multiple_of(3) { large_input(index) } else { "{}".to_owned() };
    let spec = TaskSpec {
        task_id: Some(task_id(index)),
        task_type: "t".to_owned(),
        input,
        timeout_ms: 1000,
        ..TaskSpec::default()
    };
    command(term, index, Command::SubmitTasks(vec![spec]))
}

pub(super) fn large_input(index: u64) -> String {
    format!("\"{}\"", format!("{index:08}").repeat(700))
}

pub(super) fn task_id(index: u64) -> TaskId {
    TaskId::parse(&format!("task-{index:06}")).unwrap()
}

/// An entry that cancels the task of an earlier one.
pub(super) fn cancel(term: u64, index: u64, of: u64) -> RaftEntry {
    command(term, index, Command::CancelTask { task_id: task_id(of), reason: "test".to_owned() })
}

fn command(term: u64, index: u64, command: Command) -> RaftEntry {
    let request_id = RequestId(u128::from(index) + 1);
    let envelope = Envelope { request_id, principal: String::new(), command };
    let entry = LogEntry { at_ms: 1_700_000_000_000 + index, envelopes: vec![envelope] };
    let payload = RaftPayload::Normal(EncodedEntry(encode_entry(&entry)));
    RaftEntry { log_id: log_id(term, index), payload }
}

/// Appends without waiting; the receiver tells when it is durable.
pub(super) async fn append(
    log: &mut LogStore,
    entries: Vec<RaftEntry>,
) -> oneshot::Receiver<std::io::Result<()>> {
    try_append(log, entries).await.unwrap()
}

pub(super) async fn try_append(
    log: &mut LogStore,
    entries: Vec<RaftEntry>,
) -> std::io::Result<oneshot::Receiver<std::io::Result<()>>> {
    use openraft::AsyncRuntime;
    use openraft::async_runtime::Oneshot;
    type Channel = <crate::storage::Runtime as AsyncRuntime>::Oneshot;
    let (done, receiver) = <Channel as Oneshot>::channel::<std::io::Result<()>>();
    log.append(entries, IOFlushed::signal(done)).await?;
    let (sender, result) = oneshot::channel();
    tokio::spawn(async move {
        if let Ok(flushed) = receiver.await {
            let _ = sender.send(flushed);
        }
    });
    Ok(result)
}

/// Appends and waits until it is durable.
pub(super) async fn append_durably(log: &mut LogStore, entries: Vec<RaftEntry>) {
    append(log, entries).await.await.unwrap().unwrap();
}

pub(super) async fn all_entries(log: &mut LogStore) -> Vec<RaftEntry> {
    log.try_get_log_entries(..).await.unwrap()
}

pub(super) async fn apply(machine: &mut StateMachine, entries: Vec<RaftEntry>) {
    try_apply(machine, entries).await.unwrap();
}

pub(super) async fn try_apply(
    machine: &mut StateMachine,
    entries: Vec<RaftEntry>,
) -> std::io::Result<()> {
    machine.apply(stream::iter(entries.into_iter().map(|entry| Ok((entry, None))))).await
}

/// Appends durably, marks as committed, applies.
pub(super) async fn commit(storage: &mut Storage, entries: Vec<RaftEntry>) {
    let last = entries.last().map(|entry| entry.log_id);
    append_durably(&mut storage.log, entries.clone()).await;
    storage.log.save_committed(last).await.unwrap();
    apply(&mut storage.machine, entries).await;
}

pub(super) async fn build_snapshot(machine: &mut StateMachine) -> SnapshotData {
    let mut builder = machine.try_create_snapshot_builder(true).await.unwrap();
    builder.build_snapshot().await.unwrap().snapshot
}

/// What openraft does at start: replays the log up to what is committed.
pub(super) async fn replay(storage: &mut Storage) {
    let committed = storage.log.read_committed().await.unwrap();
    let next = storage.view.applied().map_or(0, |id| id.index + 1);
    let end = committed.map_or(0, |id| id.index + 1);
    if next < end {
        let entries = storage.log.try_get_log_entries(next..end).await.unwrap();
        assert_eq!(entries.len() as u64, end - next, "the log has a hole");
        apply(&mut storage.machine, entries).await;
    }
}

/// The digest of a state that applied `entries` from the beginning.
pub(super) fn digest_of(entries: &[RaftEntry]) -> crate::state::Digest {
    let mut state = crate::state::State::default();
    for entry in entries {
        if let RaftPayload::Normal(bytes) = &entry.payload {
            state.apply(entry.log_id.index, &bytes.0).unwrap();
        }
    }
    state.digest()
}
