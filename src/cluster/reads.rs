//! Reads that are linearizable on any member, or local within bounds.
//!
//! A linearizable read needs an index that the leader, still being the leader after the request
//! arrived, knew to be committed; then the member waits until it has applied that index and reads
//! its own state. One round of confirmation serves everyone who was waiting when it began. Whoever
//! comes later waits for the next round: an answer to an earlier question may be older than the
//! write the reader knows of.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::core::{Core, Counters};
use super::error::ReadError;
use super::pause::Pause;
use super::wire::{Request, Response};
use crate::canary::{self, Canary};
use crate::model::{Epoch, MemberId};

/// Readers waiting for a round.
const WAITING_MAX: usize = 65_536;
/// The longest one round may take before it is asked again.
const ROUND_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a local read waits after a restart for the state to be as new as it was before.
const RECOVERY_WAIT: Duration = Duration::from_secs(1);

/// How fresh a read has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// It sees every write that was acknowledged, anywhere, before it began.
    Linearizable,
    /// It sees what this member has applied.
    Local {
        /// The longest time since this member last heard of a leader.
        max_age: Option<Duration>,
        /// An index that must be applied; waited for briefly.
        min_index: Option<u64>,
    },
}

impl Consistency {
    /// The word in the answer's headers.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Linearizable => "linearizable",
            Self::Local { .. } => "local",
        }
    }
}

/// What a read can be told about its freshness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadStamp {
    /// Applied here when the read was admitted.
    pub index: u64,
    /// The open epoch, in this member's state.
    pub epoch: Epoch,
    /// Who leads, as far as this member knows.
    pub leader: Option<MemberId>,
    /// Time since this member last heard of a leader; zero on the leader itself.
    pub age: Duration,
    /// The mode that was in fact served: always the one asked for.
    pub effective: &'static str,
}

/// Why a round gave no index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoundError {
    /// This member does not lead, or nobody does, or no quorum answered.
    NoLeader,
    /// Too many are waiting.
    Overloaded,
}

type Round = Result<u64, RoundError>;
type Waiter = oneshot::Sender<Round>;

/// Two coalescers: rounds of this member as leader, and questions to another leader.
pub(crate) struct Reads {
    leading: mpsc::Sender<Waiter>,
    following: mpsc::Sender<Waiter>,
}

/// The ends that [`run`] reads.
pub(crate) struct ReadQueues {
    leading: mpsc::Receiver<Waiter>,
    following: mpsc::Receiver<Waiter>,
}

impl Reads {
    pub(crate) fn new() -> (Self, ReadQueues) {
        let (leading, lead) = mpsc::channel(WAITING_MAX);
        let (following, follow) = mpsc::channel(WAITING_MAX);
        (Self { leading, following }, ReadQueues { leading: lead, following: follow })
    }

    /// An index from this member as the leader. Never asks another member.
    pub(crate) async fn index_as_leader(&self) -> Round {
        wait_for_round(&self.leading).await
    }

    async fn index_from_leader(&self) -> Round {
        wait_for_round(&self.following).await
    }
}

async fn wait_for_round(queue: &mpsc::Sender<Waiter>) -> Round {
    let (tell, round) = oneshot::channel();
    queue.try_send(tell).map_err(|_full| RoundError::Overloaded)?;
    round.await.unwrap_or(Err(RoundError::NoLeader))
}

/// Serves both kinds of rounds until the member stops.
pub(crate) fn run(core: &Arc<Core>, queues: ReadQueues) {
    let lead = Arc::clone(core);
    core.spawn(coalesce(queues.leading, move || leader_round(Arc::clone(&lead))));
    let follow = Arc::clone(core);
    core.spawn(coalesce(queues.following, move || follower_round(Arc::clone(&follow))));
}

/// One round at a time; each serves those who were waiting when it began.
async fn coalesce<F: Future<Output = Round>>(
    mut waiting: mpsc::Receiver<Waiter>,
    mut round: impl FnMut() -> F,
) {
    let mut served = Vec::new();
    while let Some(first) = waiting.recv().await {
        served.push(first);
        while let Ok(more) = waiting.try_recv() {
            served.push(more);
        }
        let result = round().await;
        for waiter in served.drain(..) {
            // A reader that gave up meanwhile is told nothing.
            let _ = waiter.send(result);
        }
    }
}

async fn leader_round(core: Arc<Core>) -> Round {
    let Some(raft) = core.raft() else { return Err(RoundError::NoLeader) };
    Counters::add(&core.counters.read_rounds, 1);
    match timeout(ROUND_TIMEOUT, raft.get_read_log_id(ReadPolicy::ReadIndex)).await {
        Ok(Ok((read, _applied))) => Ok(read.index()),
        Ok(Err(_not_leader)) => Err(RoundError::NoLeader),
        Err(_elapsed) => Err(RoundError::NoLeader),
    }
}

async fn follower_round(core: Arc<Core>) -> Round {
    let Some(leader) = core.current().leader else { return Err(RoundError::NoLeader) };
    Counters::add(&core.counters.read_rounds, 1);
    match core.peers.call(leader, &Request::ReadIndex, &[], ROUND_TIMEOUT).await {
        Ok(Response::ReadIndex { index, .. }) => Ok(index),
        Ok(_unexpected) => Err(RoundError::NoLeader),
        Err(_unreachable) => Err(RoundError::NoLeader),
    }
}

/// Returns once this member's state is as fresh as asked, or says why it is not.
pub(crate) async fn barrier(core: &Core, consistency: Consistency) -> Result<ReadStamp, ReadError> {
    Counters::add(&core.counters.reads, 1);
    if let Some(why) = core.why_ended() {
        return Err(ReadError::Stopped { why });
    }
    if core.raft().is_none() {
        return Err(ReadError::NotInitialized);
    }
    let deadline = Instant::now() + core.options.read_timeout;
    match consistency {
        Consistency::Linearizable if canary::active(Canary::LocalReads) => {}
        Consistency::Linearizable => {
            let index = confirmed_index(core, deadline).await?;
            wait_applied(core, index, deadline).await?;
        }
        Consistency::Local { max_age, min_index } => {
            recover(core).await;
            if let Some(index) = min_index {
                wait_applied(core, index, deadline).await?;
            }
            if let Some(max_age) = max_age {
                check_age(core, max_age)?;
            }
        }
    }
    Ok(stamp(core, consistency))
}

/// After a restart the state may be older than what this member showed before, until it hears
/// from the cluster how far it was. A cluster without a quorum cannot tell; then the read goes on,
/// with its age.
async fn recover(core: &Core) {
    let mut recovered = core.recovered.subscribe();
    let waiting = recovered.wait_for(|recovered| *recovered);
    drop(timeout(RECOVERY_WAIT, waiting).await);
}

fn check_age(core: &Core, max_age: Duration) -> Result<(), ReadError> {
    let age = core.contact_age();
    if age.is_some_and(|age| age <= max_age) {
        return Ok(());
    }
    Err(ReadError::Stale {
        age_ms: age.map_or(u64::MAX, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        max_age_ms: u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX),
    })
}

fn stamp(core: &Core, consistency: Consistency) -> ReadStamp {
    let view = core.current();
    let leads = view.leading.is_some();
    ReadStamp {
        index: *core.machine.applied_watch().borrow(),
        epoch: core.machine.read(|state| state.epoch()),
        leader: view.leader,
        age: if leads { Duration::ZERO } else { core.contact_age().unwrap_or(Duration::MAX) },
        effective: consistency.as_str(),
    }
}

/// An index from whoever leads, asked for again through elections.
async fn confirmed_index(core: &Core, deadline: Instant) -> Result<u64, ReadError> {
    let mut pause = Pause::new();
    loop {
        let round = async {
            if core.current().leading.is_some() {
                core.reads.index_as_leader().await
            } else {
                core.reads.index_from_leader().await
            }
        };
        match timeout_at(deadline, round).await {
            Ok(Ok(index)) => return Ok(index),
            Ok(Err(RoundError::Overloaded | RoundError::NoLeader)) => {}
            Err(_elapsed) => return Err(ReadError::NoLeader { leader: core.current().leader }),
        }
        if let Some(why) = core.why_ended() {
            return Err(ReadError::Stopped { why });
        }
        if !pause.wait(core, deadline).await {
            return Err(ReadError::NoLeader { leader: core.current().leader });
        }
    }
}

async fn wait_applied(core: &Core, index: u64, deadline: Instant) -> Result<(), ReadError> {
    let mut applied = core.machine.applied_watch();
    let reached = timeout_at(deadline, applied.wait_for(|applied| *applied >= index)).await;
    match reached {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_closed)) => Err(ReadError::Stopped { why: "the state machine ended".to_owned() }),
        Err(_elapsed) => Err(ReadError::Behind {
            wanted: index,
            applied: *core.machine.applied_watch().borrow(),
        }),
    }
}
