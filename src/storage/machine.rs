//! openraft's state machine: feeds committed entries to the state, and writes what changed to the
//! home in one batch per run of entries.
//!
//! Order within a run, which everybody else relies on: apply in memory; write the home; answer the
//! proposers; publish the index; push the events. A fault anywhere stops the member.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine, Snapshot};
use openraft::type_config::alias::SnapshotOf;
use openraft::{OptionalSend, RaftSnapshotBuilder};

use super::blocking::Blocking;
use super::error::{StorageError, hint};
use super::home::Meta;
use super::identity::IdentityFile;
use super::install;
use super::log::LogStore;
use super::shared_home::{Piece, ReadingId};
use super::snapshot::{SnapshotData, SnapshotStore};
use super::snapshot_file::SnapshotWriter;
use super::view::{Current, Machine};
use super::{
    EntryReply, LogId, RaftEntry, RaftPayload, SnapshotMeta, StoredMembership, TypeConfig, codec,
};

/// A run of entries ends after this many,
const RUN_ENTRIES_MAX: usize = 512;
/// or when their payloads reach this size.
const RUN_BYTES_MAX: usize = 2 << 20;
/// Rows read for a snapshot under one lock: what an apply may have to wait for.
const SNAPSHOT_ROWS: usize = 256;

/// Pieces a snapshot takes before it rests,
const PIECES_IN_A_ROW: usize = 8;
/// and how much longer it rests than it worked: a snapshot is never urgent, and whoever serves
/// requests needs the processors and the disk.
const REST_FACTOR: u32 = 3;

/// See the module's description.
#[derive(Debug)]
pub struct StateMachine {
    pub(super) machine: Arc<Machine>,
    pub(super) snapshots: SnapshotStore,
    pub(super) log: LogStore,
    pub(super) identity: IdentityFile,
    pub(super) blocking: Blocking,
}

impl StateMachine {
    fn fatal(&self, error: StorageError) -> io::Error {
        fatal(&self.machine, error)
    }

    /// Applies a run of entries.
    fn apply_run(&self, run: Vec<EntryResponder<TypeConfig>>) -> Result<(), StorageError> {
        let machine = &self.machine;
        let mut answers: Vec<(ApplyResponder<TypeConfig>, EntryReply)> = Vec::new();
        let mut events = Vec::new();
        let mut current = machine.current.write();
        for (entry, responder) in run {
            let (reply, emitted) = apply_entry(&mut current, entry)?;
            events.extend(emitted);
            answers.extend(responder.map(|responder| (responder, reply)));
        }
        let changes = current.state.take_changes();
        let meta = current.meta();
        // The home is locked before the state is unlocked: whoever sees a row of this run in the
        // state and asks the home for its payload waits until it is there.
        let mut home = machine.home.lock();
        let index = current.applied_index();
        drop(current);
        home.write(changes, &meta)?;
        drop(home);
        for (responder, reply) in answers {
            responder.send(reply);
        }
        machine.applied.send_replace(index);
        machine.events.push(events);
        Ok(())
    }

    fn builder(&self) -> Result<Option<SnapshotBuilder>, StorageError> {
        // Nothing is applied while this runs, so the reading and the position are of one moment.
        let meta = self.machine.current.read().meta();
        let Some(id) = self.machine.home.begin_reading()? else { return Ok(None) };
        Ok(Some(SnapshotBuilder {
            reading: Reading { machine: Arc::clone(&self.machine), id },
            meta,
            snapshots: self.snapshots.clone(),
            log: self.log.clone(),
            identity: self.identity.clone(),
            blocking: self.blocking,
        }))
    }
}

fn fatal(machine: &Machine, error: StorageError) -> io::Error {
    let error = io::Error::from(error);
    machine.alarm.raise(&format!("{error}{}", hint(&error)));
    error
}

fn apply_entry(
    current: &mut Current,
    entry: RaftEntry,
) -> Result<(EntryReply, Vec<crate::state::Event>), StorageError> {
    let id = entry.log_id;
    let applied = match entry.payload {
        RaftPayload::Blank => crate::state::Applied::default(),
        RaftPayload::Normal(bytes) => current.state.apply(id.index, &bytes.0)?,
        RaftPayload::Membership(membership) => {
            current.membership = StoredMembership::new(Some(id), membership);
            crate::state::Applied::default()
        }
    };
    current.applied = Some(id);
    Ok((EntryReply(applied.replies), applied.events))
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let current = self.machine.current.read();
        Ok((current.applied, current.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        // The last run ends by asking for one entry more, and the next turn asks again.
        let mut entries = entries.fuse();
        loop {
            let mut run = Vec::new();
            let mut bytes = 0;
            while run.len() < RUN_ENTRIES_MAX && bytes < RUN_BYTES_MAX {
                let Some(item) = entries.next().await else { break };
                let item = item?;
                bytes += codec::payload_bytes(&item.0.payload);
                run.push(item);
            }
            if run.is_empty() {
                return Ok(());
            }
            self.apply_run(run).map_err(|error| self.fatal(error))?;
        }
    }

    /// Refuses while a snapshot is being built.
    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<SnapshotBuilder> {
        // A home that fails has raised the alarm, and the next apply meets the same fault.
        self.builder().unwrap_or_default()
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        loop {
            if let Ok(Some(builder)) = self.builder() {
                return builder;
            }
            // The one being built ends without our help.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        if snapshot.meta() != *meta {
            return Err(io::Error::other(format!(
                "a snapshot of {:?} was announced as one of {:?}",
                snapshot.meta().last_log_id,
                meta.last_log_id
            )));
        }
        let machine = Arc::clone(&self.machine);
        let snapshots = self.snapshots.clone();
        let work = move || install_snapshot(&machine, &snapshots, snapshot);
        let installed = self.blocking.run(work).await.map_err(|error| self.fatal(error))?;
        self.log.advance_purge_floor(installed);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotData>>> {
        Ok(self.snapshots.current().map(|data| Snapshot { meta: data.meta(), snapshot: data }))
    }
}

/// Makes the snapshot durable first, then the state it holds ours.
fn install_snapshot(
    machine: &Machine,
    snapshots: &SnapshotStore,
    snapshot: SnapshotData,
) -> Result<Option<LogId>, StorageError> {
    let snapshot = snapshots.adopt(snapshot)?;
    machine.installing.store(true, Ordering::Release);
    let state = install::fill(&machine.home.take_over(), &snapshot)?;
    let meta = snapshot.position();
    let mut current = machine.current.write();
    *current = Current { state, applied: meta.applied, membership: meta.membership.clone() };
    let index = current.applied_index();
    drop(current);
    machine.installing.store(false, Ordering::Release);
    machine.applied.send_replace(index);
    machine.events.jump(index);
    tracing::info!(index, rows = meta.digest.rows, "installed a snapshot");
    Ok(meta.applied)
}

/// A reading of the home that ends with its builder.
#[derive(Debug)]
struct Reading {
    machine: Arc<Machine>,
    id: ReadingId,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.machine.home.end_reading(self.id);
    }
}

/// Takes the next rows of a reading into the file; `None` once a snapshot from the leader took the
/// state's place, `false` at the end.
fn write_piece(
    machine: &Machine,
    id: ReadingId,
    writer: &mut SnapshotWriter,
) -> Result<Option<bool>, StorageError> {
    match machine.home.read_piece(id, SNAPSHOT_ROWS)? {
        Piece::Rows(rows) => writer.rows(&rows).map(|()| Some(true)),
        Piece::End => Ok(Some(false)),
        Piece::Cancelled => Ok(None),
    }
}

/// Builds one snapshot, of the moment the builder was made.
#[derive(Debug)]
pub struct SnapshotBuilder {
    reading: Reading,
    meta: Meta,
    snapshots: SnapshotStore,
    log: LogStore,
    identity: IdentityFile,
    blocking: Blocking,
}

impl SnapshotBuilder {
    async fn build(&mut self) -> Result<SnapshotData, StorageError> {
        let started = tokio::time::Instant::now();
        let mut writer = self.snapshots.begin_writing(&self.meta)?;
        // A thread takes some pieces at a time; a simulation interleaves each with applies.
        let pieces = match self.blocking {
            Blocking::Threads => PIECES_IN_A_ROW,
            Blocking::Inline => 1,
        };
        loop {
            let (machine, id) = (Arc::clone(&self.reading.machine), self.reading.id);
            let began = tokio::time::Instant::now();
            let work = move || {
                let mut more = Some(true);
                for _ in 0..pieces {
                    more = write_piece(&machine, id, &mut writer)?;
                    if more != Some(true) {
                        break;
                    }
                }
                Ok::<_, StorageError>((more, writer))
            };
            let (more, back) = self.blocking.run(work).await?;
            writer = back;
            match more {
                Some(true) => match self.blocking {
                    Blocking::Threads => tokio::time::sleep(began.elapsed() * REST_FACTOR).await,
                    Blocking::Inline => tokio::task::yield_now().await,
                },
                Some(false) => break,
                None => return self.snapshots.current().ok_or(StorageError::Installing),
            }
        }
        let (meta, snapshots) = (self.meta.clone(), self.snapshots.clone());
        let data = self.blocking.run(move || snapshots.publish(meta, writer.finish()?)).await?;
        tracing::info!(
            last = ?data.position().applied,
            rows = data.position().digest.rows,
            bytes = data.len(),
            took = ?started.elapsed(),
            "built a snapshot"
        );
        Ok(data)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, SnapshotData>> {
        let machine = Arc::clone(&self.reading.machine);
        let data = self.build().await.map_err(|error| fatal(&machine, error))?;
        let newest = self.snapshots.current().and_then(|newest| newest.position().applied);
        self.log.advance_purge_floor(newest);
        let (identity, position) = (self.identity.clone(), self.log.durable_position());
        self.blocking
            .run(move || identity.note(position))
            .await
            .map_err(|error| fatal(&machine, error))?;
        Ok(Snapshot { meta: data.meta(), snapshot: data })
    }
}
