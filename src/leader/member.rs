//! The real seat: a member of the cluster.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::seat::{Feed, Happened, Seat, SeatError, Sighting};
use crate::cluster::{Cluster, Consistency, NotStarted, ProposeError, ReadError};
use crate::model::{Epoch, MemberId, NodeId, Payload, TaskId, TimeMs};
use crate::state::{BlobPart, Command, Reply, State};
use crate::storage::{EventBatch, EventFollower};

/// Events taken from the ring at once.
const EVENTS_MAX: usize = 4096;

/// A place in a member's event ring.
pub struct MemberFeed {
    follower: EventFollower,
    ended: watch::Receiver<Option<String>>,
}

impl Feed for MemberFeed {
    async fn next(&mut self) -> Happened {
        let batch = tokio::select! {
            biased;
            batch = self.follower.next(EVENTS_MAX) => batch,
            _ = self.ended.wait_for(Option::is_some) => return Happened::Closed,
        };
        match batch {
            EventBatch::Events(events) => Happened::Events(events),
            EventBatch::Gap { resumes_after: _ } => Happened::Gap,
        }
    }
}

impl Seat for Cluster {
    type Feed = MemberFeed;

    fn member_id(&self) -> MemberId {
        Self::member_id(self)
    }

    fn leadership(&self) -> watch::Receiver<Option<u64>> {
        Self::leadership(self)
    }

    async fn barrier(&self) -> Result<(), SeatError> {
        match self.read_barrier(Consistency::Linearizable).await {
            Ok(_) => Ok(()),
            Err(ReadError::Stopped { why }) => Err(SeatError::Stopped(why)),
            Err(error) => Err(SeatError::NotStarted(error.to_string())),
        }
    }

    async fn propose(&self, epoch: Epoch, command: Command) -> Result<Reply, SeatError> {
        match self.propose_local(epoch, command).await {
            Ok(committed) => Ok(committed.reply),
            Err(ProposeError::NotStarted { reason: NotStarted::NotLeader, leader: _ }) => {
                Err(SeatError::NotLeader)
            }
            Err(ProposeError::NotStarted { reason, leader: _ }) => {
                Err(SeatError::NotStarted(reason.to_string()))
            }
            Err(ProposeError::Unknown { request_id: _ }) => Err(SeatError::Unknown),
            Err(ProposeError::Stopped { why, maybe_started: _ }) => Err(SeatError::Stopped(why)),
        }
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.view().read(look)
    }

    fn time_after(&self, last_at: TimeMs) -> TimeMs {
        Self::time_after(self, last_at)
    }

    fn load_payload(
        &self,
        task_id: &TaskId,
        part: BlobPart,
        payload: &Payload,
    ) -> Result<Option<Bytes>, SeatError> {
        let loaded = self.view().load_payload(task_id, part, payload);
        loaded.map_err(|error| SeatError::NotStarted(error.to_string()))
    }

    fn events(&self) -> MemberFeed {
        MemberFeed { follower: self.view().events().follow(None), ended: self.ended() }
    }

    fn sightings(&self) -> Vec<Sighting> {
        let ages = self.heartbeats().ages().into_iter();
        let sighting = |(node_id, heard): (_, crate::cluster::Heard)| Sighting {
            node_id,
            age: heard.age,
            status: heard.beat.status,
            load: heard.beat.load,
        };
        ages.map(sighting).collect()
    }

    fn learnt_ago(&self) -> Option<Duration> {
        self.heartbeats().learnt_ago()
    }

    fn tell_held(&self, held: Vec<(NodeId, Duration)>) {
        self.heartbeats().set_held(held);
    }

    async fn hand_over(&self) -> Result<(), SeatError> {
        match self.transfer_leader(None).await {
            Ok(_) => Ok(()),
            Err(error) => Err(SeatError::NotStarted(error.to_string())),
        }
    }
}
