//! A seat for tests: the real state machine in memory, one member, every proposal committed at
//! once. Leadership, failures and heartbeats are what the test says.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{broadcast, watch};

use super::seat::{Feed, Happened, Seat, SeatError, Sighting};
use crate::clock;
use crate::model::{Epoch, MemberId, NodeId, Payload, TaskId, TaskStatus, TimeMs};
use crate::state::{
    BlobPart, Command, Envelope, Event, LogEntry, NodeSpec, Rejection, Reply, State, TaskSpec,
    blob_keys, encode_entry,
};

/// See the module's description.
pub(super) struct Solo {
    pub(super) state: RwLock<State>,
    blobs: Mutex<std::collections::BTreeMap<Vec<u8>, Bytes>>,
    index: Mutex<u64>,
    events: broadcast::Sender<Arc<Event>>,
    pub(super) leading: watch::Sender<Option<u64>>,
    pub(super) sightings: Mutex<Vec<Sighting>>,
    /// What the next barriers answer.
    pub(super) barrier: Mutex<Result<(), SeatError>>,
    /// What the next proposals fail with, after they took effect or before.
    pub(super) fail_next: Mutex<Vec<(SeatError, bool)>>,
    /// What the next proposal is refused as.
    pub(super) refuse_next: Mutex<Option<Rejection>>,
    pub(super) hand_overs: Mutex<u32>,
    /// What was told of nodes that are given nothing.
    pub(super) held: Mutex<Vec<(NodeId, Duration)>>,
}

impl Solo {
    pub(super) fn new() -> Arc<Self> {
        Self::with_events(1 << 16)
    }

    /// Keeps so many events for those who follow slowly.
    pub(super) fn with_events(events_max: usize) -> Arc<Self> {
        Arc::new(Self {
            state: RwLock::default(),
            blobs: Mutex::default(),
            index: Mutex::new(0),
            events: broadcast::Sender::new(events_max),
            leading: watch::Sender::new(None),
            sightings: Mutex::default(),
            barrier: Mutex::new(Ok(())),
            fail_next: Mutex::default(),
            refuse_next: Mutex::default(),
            hand_overs: Mutex::default(),
            held: Mutex::default(),
        })
    }

    /// Commits a command, as anybody's.
    pub(super) fn commit(&self, command: Command) -> Reply {
        let mut index = self.index.lock();
        *index += 1;
        let request_id = clock::mint_request_id();
        let envelope = Envelope { request_id, principal: String::new(), command };
        let entry = LogEntry { at_ms: clock::now_ms(), envelopes: vec![envelope] };
        let (applied, changes) = {
            let mut state = self.state.write();
            let applied = state.apply(*index, &encode_entry(&entry)).unwrap();
            (applied, state.take_changes())
        };
        let mut blobs = self.blobs.lock();
        for (key, value) in changes.rows {
            if let Some(value) = value {
                blobs.insert(key, value);
            } else {
                blobs.remove(&key);
            }
        }
        for event in applied.events {
            let _ = self.events.send(Arc::new(event));
        }
        applied.replies.into_iter().next().unwrap()
    }

    pub(super) fn register(&self, name: &str, edit: impl FnOnce(&mut NodeSpec)) {
        let mut spec = NodeSpec {
            node_id: NodeId::trusted(name),
            host: "127.0.0.1".to_owned(),
            port: 1,
            node_type: "worker".to_owned(),
            capabilities: Vec::new(),
            capacity: 4,
            agents_count: 0,
            agents: Vec::new(),
            load: Default::default(),
            version: String::new(),
            location: None,
            external_url: None,
            instance: String::new(),
            metadata: String::new(),
            agent_type: None,
        };
        edit(&mut spec);
        self.commit(Command::RegisterNode(spec)).unwrap();
    }

    pub(super) fn submit(&self, name: &str, edit: impl FnOnce(&mut TaskSpec)) -> TaskId {
        let task_id = TaskId::trusted(name);
        let mut spec = TaskSpec {
            task_id: Some(task_id.clone()),
            task_type: "test".to_owned(),
            timeout_ms: 30_000,
            max_retries: 3,
            ..TaskSpec::default()
        };
        edit(&mut spec);
        self.commit(Command::SubmitTasks(vec![spec])).unwrap();
        task_id
    }

    pub(super) fn status(&self, task_id: &TaskId) -> Option<TaskStatus> {
        self.state.read().task(task_id).map(|task| task.status)
    }

    /// Waits until the state looks as wanted.
    pub(super) async fn until(&self, what: &str, look: impl Fn(&State) -> bool) {
        let mut changes = self.events.subscribe();
        let wait = async {
            while !look(&self.state.read()) {
                // Not every change is told of.
                let _ = tokio::time::timeout(Duration::from_millis(20), changes.recv()).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), wait).await.is_err() {
            panic!("in vain: {what}");
        }
    }
}

pub(super) struct SoloFeed(broadcast::Receiver<Arc<Event>>);

impl Feed for SoloFeed {
    async fn next(&mut self) -> Happened {
        match self.0.recv().await {
            Ok(first) => {
                let mut events = vec![first];
                while let Ok(more) = self.0.try_recv() {
                    events.push(more);
                }
                Happened::Events(events)
            }
            Err(broadcast::error::RecvError::Lagged(_)) => Happened::Gap,
            Err(broadcast::error::RecvError::Closed) => Happened::Closed,
        }
    }
}

impl Seat for Solo {
    type Feed = SoloFeed;

    fn member_id(&self) -> MemberId {
        1
    }

    fn leadership(&self) -> watch::Receiver<Option<u64>> {
        self.leading.subscribe()
    }

    async fn barrier(&self) -> Result<(), SeatError> {
        tokio::task::yield_now().await;
        self.barrier.lock().clone()
    }

    async fn propose(&self, epoch: Epoch, command: Command) -> Result<Reply, SeatError> {
        // A commit is never instant.
        tokio::task::yield_now().await;
        if *self.leading.borrow() != Some(epoch.term) {
            return Err(SeatError::NotLeader);
        }
        if let Some(rejection) = self.refuse_next.lock().take() {
            return Ok(Err(rejection));
        }
        let failure = self.fail_next.lock().pop();
        match failure {
            Some((error, false)) => Err(error),
            Some((error, true)) => {
                let _ = self.commit(command);
                Err(error)
            }
            None => Ok(self.commit(command)),
        }
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read())
    }

    fn load_payload(
        &self,
        task_id: &TaskId,
        part: BlobPart,
        payload: &Payload,
    ) -> Result<Option<Bytes>, SeatError> {
        let blobs = self.blobs.lock();
        let mut text = Vec::new();
        for key in blob_keys(task_id, part, payload) {
            let Some(chunk) = blobs.get(&key) else { return Ok(None) };
            text.extend_from_slice(chunk);
        }
        Ok(Some(text.into()))
    }

    fn events(&self) -> SoloFeed {
        SoloFeed(self.events.subscribe())
    }

    fn time_after(&self, last_at: TimeMs) -> TimeMs {
        clock::now_ms().max(last_at)
    }

    fn sightings(&self) -> Vec<Sighting> {
        let mut sightings = self.sightings.lock().clone();
        sightings.sort_by(|one, other| one.node_id.cmp(&other.node_id));
        sightings
    }

    fn learnt_ago(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn tell_held(&self, held: Vec<(NodeId, Duration)>) {
        *self.held.lock() = held;
    }

    async fn hand_over(&self) -> Result<(), SeatError> {
        *self.hand_overs.lock() += 1;
        Ok(())
    }
}
