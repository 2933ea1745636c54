//! What the leader's work needs of the member it runs on.
//!
//! A trait, because there are two of them: the real [`crate::cluster`] handle, and the small
//! in-memory one that tests and benchmarks of this room run against.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::model::{Epoch, Load, MemberId, NodeId, NodeStatus, Payload, TaskId, TimeMs};
use crate::state::{BlobPart, Command, Event, Reply, State};

/// Why a duty's proposal has no answer from the state machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeatError {
    /// It certainly did not happen; trying again later may help.
    #[error("not started: {0}")]
    NotStarted(String),
    /// This member leads no more, or not in that epoch.
    #[error("this member does not lead any more")]
    NotLeader,
    /// It may have happened, or may still.
    #[error("the outcome is unknown")]
    Unknown,
    /// This member serves nobody any more.
    #[error("the member has stopped: {0}")]
    Stopped(String),
}

/// What the liveness book says of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Which node.
    pub node_id: NodeId,
    /// Time since its newest heartbeat.
    pub age: Duration,
    /// The status it gave itself.
    pub status: Option<NodeStatus>,
    /// Its figures.
    pub load: Option<Load>,
}

/// A member, as the leader's work sees it.
pub trait Seat: Send + Sync + 'static {
    /// How its events are followed.
    type Feed: Feed;

    /// Its number.
    fn member_id(&self) -> MemberId;

    /// The term this member leads in, as Raft has it.
    fn leadership(&self) -> watch::Receiver<Option<u64>>;

    /// Returns once everything committed before the call is applied here, confirmed by a quorum.
    fn barrier(&self) -> impl Future<Output = Result<(), SeatError>> + Send;

    /// Proposes on this member alone; the answer comes after it was applied here.
    fn propose(
        &self,
        epoch: Epoch,
        command: Command,
    ) -> impl Future<Output = Result<Reply, SeatError>> + Send;

    /// Reads the state under a short lock.
    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T;

    /// The time that the next entry would carry, given the newest that the state has seen.
    fn time_after(&self, last_at: TimeMs) -> TimeMs;

    /// Reads a payload that lives outside its row. Blocks on the disk.
    fn load_payload(
        &self,
        task_id: &TaskId,
        part: BlobPart,
        payload: &Payload,
    ) -> Result<Option<Bytes>, SeatError>;

    /// Events from now on.
    fn events(&self) -> Self::Feed;

    /// When each node was last heard of, anywhere in the cluster, in the order of ids.
    fn sightings(&self) -> Vec<Sighting>;

    /// How long ago this member, following, last learnt all that the leader had heard; `None` when it
    /// has not followed since it was started.
    fn learnt_ago(&self) -> Option<Duration>;

    /// Lets all members know which nodes are given nothing now, and for how long.
    fn tell_held(&self, held: Vec<(NodeId, Duration)>);

    /// Asks another member to lead.
    fn hand_over(&self) -> impl Future<Output = Result<(), SeatError>> + Send;
}

/// A place in the events of a member.
pub trait Feed: Send + 'static {
    /// Waits for the next events. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Happened> + Send;
}

/// The next of a member's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// In order.
    Events(Vec<Arc<Event>>),
    /// Some were missed: look at the state instead.
    Gap,
    /// There will be no more: the member stops.
    Closed,
}
