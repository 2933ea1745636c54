//! The liveness watch: who fell silent, who came back, and fresh load figures (contract 2.9).
//!
//! Heartbeats live in the members' books, not in the log. [`plan`] is pure: from the nodes of the
//! state and what the books say it works out the few changes that have to be replicated. A node
//! that this reign has not heard of gets a full timeout from the start of the reign; a node whose
//! age is known from before is judged by that age, so that a new leader starts warm. The heartbeats
//! that the last leader took in its last moment died with it, though: whoever may have sent one of
//! those has until it must have sent the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::brake::{Brake, BrakeOptions};
use super::duty::{Duty, DutyError, Next, Reign, Wakes};
use super::faults::Faults;
use super::fleet::{InOrder, Loads};
use super::metrics::DutyName;
use super::seat::{Seat, Sighting};
use super::timers::state_now;
use crate::model::{AGENT_PREFIX, Load, Node, NodeId, NodeStatus, TimeMs};
use crate::state::{Command, NodeObservation, Policy, State};

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(1);
/// Rounds further apart than this mean that the program, or its machine, stood still.
const ASLEEP: Duration = Duration::from_secs(15);
/// So long a heartbeat may be under way from a node to this member's book.
const BEAT_DELAY: Duration = Duration::from_millis(500);
/// Observations in one command.
const ROUND_MAX: usize = 2000;
/// Figures of one node are replicated at most so often.
const LOAD_GAP: Duration = Duration::from_secs(5);
/// Figures of so many nodes are replicated per second: in a larger fleet each waits longer for its
/// turn, because entries of the log cost every member, and fresher figures are in every book.
const LOADS_PER_SEC: u64 = 400;
/// Figures that differ at all are replicated after so long.
const LOAD_GAP_MAX: Duration = Duration::from_secs(30);
/// A share that moved by this much has moved: 5 %.
const SHARE_MOVED_MILLI: u32 = 5000;
/// A load score that moved by this much has moved.
const SCORE_MOVED_MILLI: u32 = 50;
/// Unsteady nodes named in the log of one look.
const UNSTEADY_TOLD_MAX: usize = 10;

/// What a look takes beside the state.
#[derive(Debug, Default)]
pub struct Seen {
    /// What the book says, in the order of ids.
    pub sightings: Arc<Vec<Sighting>>,
    /// How long ago nodes registered or changed their status, as far as this reign saw it and it is
    /// not longer ago than all that depends on it. In the order of ids.
    pub changed_ago: Vec<(NodeId, Duration)>,
    /// How long nodes that tell nothing of themselves took to answer the last probe, in
    /// microseconds, in the order of ids.
    pub latencies_us: Vec<(NodeId, u32)>,
    /// Time since the reign began.
    pub now: Duration,
    /// Before the reign, for how long this member did not know what the last leader heard; `None` when
    /// it does not know for how long.
    pub blind: Option<Duration>,
    /// Time since this member itself was asleep, if it was: it heard nobody then.
    pub awake_for: Option<Duration>,
    /// The state machine's time.
    pub state_now: TimeMs,
}

/// What the watch remembers from look to look.
#[derive(Debug, Default)]
pub struct Memory {
    brake: Brake,
    faults: Faults,
    /// When figures of nodes were replicated, as far as it is not too long ago to matter. Looked up
    /// only.
    loads_sent: HashMap<NodeId, Duration>,
    /// When those that are too long ago were last forgotten.
    tidied: Duration,
}

/// What came of a look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Changes of status first, then figures; at most the bound.
    pub observations: Vec<NodeObservation>,
    /// Nodes taken offline for their silence.
    pub evicted: usize,
    /// Nodes back from offline.
    pub recovered: usize,
    /// Silent nodes that the brake keeps.
    pub held: usize,
    /// There were more changes than fit.
    pub more: bool,
    /// Some of what is noted is done in part only, as nodes may hold more than one command takes.
    pub unfinished: bool,
    /// Nodes whose draining is over; at most the bound.
    pub drained: Vec<NodeId>,
    /// Agents that have been silent for so long that they are taken out; at most the bound.
    pub gone: Vec<NodeId>,
    /// Nodes that fell silent once too often within a day.
    pub unsteady: Vec<NodeId>,
}

/// Works out what has to be replicated. See the module's description.
#[must_use]
pub fn plan(
    view: &State,
    seen: &Seen,
    memory: &mut Memory,
    options: BrakeOptions,
    max: usize,
) -> Look {
    let (node_timeout, agent_timeout) = timeouts(view.policy());
    let gap = load_gap(view);
    memory.faults.begin(view, view.policy().degrade_faulty, seen.now);
    let mut look = Look::default();
    let mut silent: Vec<(Duration, &Node)> = Vec::new();
    let mut loads = Vec::new();
    let mut present = 0;
    let mut sightings = InOrder::new(&seen.sightings, |seen: &Sighting| &seen.node_id);
    let mut changes = InOrder::new(&seen.changed_ago, |(node_id, _)| node_id);
    let mut latencies = InOrder::new(&seen.latencies_us, |(node_id, _)| node_id);
    for node in view.holders_of_work() {
        let sighting = sightings.get(&node.node_id);
        let changed_ago = changes.get(&node.node_id).map(|(_, ago)| *ago);
        let latency_us = latencies.get(&node.node_id).map(|(_, micros)| *micros);
        if take_out(view.policy(), &mut look, node, (sighting, changed_ago), seen, max) {
            continue;
        }
        if node.agent_type.is_some() && node.host.is_empty() {
            // The leader is that agent itself.
            continue;
        }
        let timeout = if node.agent_type.is_some() { agent_timeout } else { node_timeout };
        let silence = silence(sighting, changed_ago, seen);
        let watched = match node.status {
            NodeStatus::Active | NodeStatus::Degraded | NodeStatus::Error => true,
            NodeStatus::Offline | NodeStatus::Maintenance => false,
        };
        present += usize::from(watched);
        if watched && silence >= timeout && !may_have_beaten(silence, timeout, seen) {
            silent.push((silence, node));
            continue;
        }
        // What a node said before its last change says nothing about what came after.
        let fresh = sighting.filter(|sighting| {
            sighting.age < timeout && sighting.age < changed_ago.unwrap_or(seen.now)
        });
        let Some(sighting) = fresh else {
            // One that was found tells nothing of itself: only how far it is, is known.
            if let Some(load) = moved_latency(node, latency_us, memory, seen.now, gap) {
                loads.push(observation(node, node.status, Some(load)));
            }
            continue;
        };
        let heard = heard_status(node.status, sighting.status);
        let status = memory.faults.judge(node, sighting, heard, seen.now);
        let load = match sighting.load {
            Some(_) => moved_load(node, sighting, memory, seen.now, gap),
            None => moved_latency(node, latency_us, memory, seen.now, gap),
        };
        if status != node.status {
            look.recovered += usize::from(node.status == NodeStatus::Offline);
            look.observations.push(observation(node, status, load));
        } else if load.is_some() {
            loads.push(observation(node, status, load));
        }
    }
    evict(view, &mut look, silent, present, (memory, seen, options, node_timeout, max));
    look.more |= look.observations.len() + loads.len() > max;
    look.observations.extend(loads);
    look.observations.truncate(max);
    memory.note_sent(&look.observations, seen.now);
    look
}

/// How long nodes and agents may be silent.
fn timeouts(policy: &Policy) -> (Duration, Duration) {
    let millis = Duration::from_millis;
    (millis(policy.node_timeout_ms), millis(policy.agent_timeout_ms))
}

/// How long the figures of one node wait for their turn to be replicated, however far they moved.
fn load_gap(view: &State) -> Duration {
    let nodes = (view.nodes_len() + view.agents_len()) as u64;
    Duration::from_millis(nodes * 1000 / LOADS_PER_SEC).clamp(LOAD_GAP, LOAD_GAP_MAX)
}

impl Memory {
    fn note_sent(&mut self, observations: &[NodeObservation], now: Duration) {
        if now.saturating_sub(self.tidied) >= LOAD_GAP_MAX {
            self.tidied = now;
            self.loads_sent.retain(|_, at| now.saturating_sub(*at) < LOAD_GAP_MAX);
        }
        for observation in observations.iter().filter(|observation| observation.load.is_some()) {
            self.loads_sent.insert(observation.node_id.clone(), now);
        }
    }
}

/// Notes a node whose drain is over, and an agent that has been silent for long. Gives whether that is
/// all there is to it: what a node is losing is taken from it first, whatever it says.
fn take_out(
    policy: &Policy,
    look: &mut Look,
    node: &Node,
    (sighting, changed_ago): (Option<&Sighting>, Option<Duration>),
    seen: &Seen,
    max: usize,
) -> bool {
    let is_losing = node.losing.is_some();
    let over = node.drain_until_ms.is_some_and(|until_ms| until_ms <= seen.state_now);
    if over && !is_losing && look.drained.len() < max {
        look.unfinished = true;
        look.drained.push(node.node_id.clone());
    }
    let removal = Duration::from_millis(policy.agent_removal_ms);
    let is_gone = node.agent_type.is_some()
        && matches!(node.status, NodeStatus::Offline | NodeStatus::Maintenance)
        && !node.host.is_empty()
        && silence(sighting, None, seen) >= removal
        && changed_ago.is_none_or(|ago| ago >= removal / 2);
    if is_gone && look.gone.len() < max {
        look.gone.push(node.node_id.clone());
    }
    if is_losing {
        look.observations.push(observation(node, node.status, None));
        look.unfinished = true;
    }
    is_losing
}

/// How long nothing was heard of a node, as far as it may be held against it.
fn silence(sighting: Option<&Sighting>, changed_ago: Option<Duration>, seen: &Seen) -> Duration {
    let heard = sighting.map_or(seen.now, |sighting| sighting.age);
    [changed_ago, seen.awake_for].into_iter().flatten().fold(heard, Duration::min)
}

/// Whether the newest heartbeat of a node may have been lost with the last leader, and its next one
/// still be under way. It is expected to send two within its timeout at least.
fn may_have_beaten(silence: Duration, timeout: Duration, seen: &Seen) -> bool {
    let period_max = timeout / 2;
    let silent_before = silence.saturating_sub(seen.now);
    seen.now < (period_max + BEAT_DELAY).min(timeout)
        && seen.blind.is_none_or(|blind| silent_before <= blind + period_max)
}

/// What a node that was heard of is to be, given its own word.
pub(super) fn heard_status(now: NodeStatus, said: Option<NodeStatus>) -> NodeStatus {
    match (now, said) {
        // Only an operator ends maintenance.
        (NodeStatus::Maintenance, _) => NodeStatus::Maintenance,
        (NodeStatus::Offline, None) | (_, Some(NodeStatus::Active)) => NodeStatus::Active,
        (NodeStatus::Active | NodeStatus::Degraded | NodeStatus::Error, None) => now,
        // Only an operator begins it: a node that wants it keeps its work and gets no more.
        (_, Some(NodeStatus::Degraded | NodeStatus::Maintenance)) => NodeStatus::Degraded,
        (_, Some(NodeStatus::Error)) => NodeStatus::Error,
        (_, Some(NodeStatus::Offline)) => NodeStatus::Offline,
    }
}

/// A node's figures, when they moved enough to be worth a place in the log.
fn moved_load(
    node: &Node,
    sighting: &Sighting,
    memory: &Memory,
    now: Duration,
    gap: Duration,
) -> Option<Load> {
    let (old, new) = (node.load, sighting.load?);
    if old == new {
        return None;
    }
    let since = memory.loads_sent.get(&node.node_id).map(|at| now.saturating_sub(*at));
    let far = shares_moved(&old, &new) || latency_moved(old.latency_us, new.latency_us);
    let due = match since {
        None => true,
        Some(since) if far => since >= gap,
        Some(since) => since >= LOAD_GAP_MAX,
    };
    due.then_some(new)
}

/// Whether shares and the load score have moved enough to be worth a place in the log.
pub(super) fn shares_moved(old: &Load, new: &Load) -> bool {
    let moved = |old: u32, new: u32, by: u32| old.abs_diff(new) >= by;
    moved(old.cpu_milli, new.cpu_milli, SHARE_MOVED_MILLI)
        || moved(old.memory_milli, new.memory_milli, SHARE_MOVED_MILLI)
        || moved(old.gpu_milli, new.gpu_milli, SHARE_MOVED_MILLI)
        || moved(old.score_milli, new.score_milli, SCORE_MOVED_MILLI)
}

/// Whether a latency has moved: by a quarter, and by a millisecond at least.
fn latency_moved(old: u32, new: u32) -> bool {
    old.abs_diff(new) >= (old / 4).max(1000)
}

/// A node's figures with its measured latency, when that moved enough to be worth a place in the log.
/// It jitters with every probe, so what has not really moved is never replicated.
fn moved_latency(
    node: &Node,
    latency_us: Option<u32>,
    memory: &Memory,
    now: Duration,
    gap: Duration,
) -> Option<Load> {
    let (old, new) = (node.load.latency_us, latency_us?);
    let moved = old == 0 || latency_moved(old, new);
    let since = memory.loads_sent.get(&node.node_id).map(|at| now.saturating_sub(*at));
    let due = since.is_none_or(|since| since >= gap);
    (moved && due && old != new).then_some(Load { latency_us: new, ..node.load })
}

fn observation(node: &Node, status: NodeStatus, load: Option<Load>) -> NodeObservation {
    NodeObservation { node_id: node.node_id.clone(), seen: node.status, status, load }
}

/// Takes silent nodes offline, the longest silent first, as many as the brake allows.
fn evict(
    view: &State,
    look: &mut Look,
    mut silent: Vec<(Duration, &Node)>,
    present: usize,
    (memory, seen, options, timeout, max): (&mut Memory, &Seen, BrakeOptions, Duration, usize),
) {
    let is_offline = |node_id: &NodeId| {
        view.node(node_id).is_some_and(|node| node.status == NodeStatus::Offline)
    };
    let counts = (silent.len(), present);
    let allowed = memory.brake.allow(options, counts, is_offline, (seen.now, timeout));
    silent.sort_by(|one, other| {
        other.0.cmp(&one.0).then_with(|| one.1.node_id.cmp(&other.1.node_id))
    });
    look.held = silent.len() - allowed;
    // The others are found again by the next look, at once.
    let room = max.saturating_sub(look.observations.len());
    look.more |= allowed > room;
    for (_, node) in silent.into_iter().take(allowed.min(room)) {
        memory.brake.evicted(&node.node_id);
        if memory.faults.lost(&node.node_id, seen.now) {
            look.unsteady.push(node.node_id.clone());
        }
        look.evicted += 1;
        look.observations.push(observation(node, NodeStatus::Offline, None));
    }
}

/// The duty around [`plan`].
#[derive(Debug, Default)]
pub struct Liveness {
    memory: Memory,
    last_round: Option<Instant>,
    woke_up: Option<Instant>,
}

impl<S: Seat> Duty<S> for Liveness {
    const NAME: DutyName = DutyName::Liveness;

    async fn round(&mut self, reign: &Reign<S>) -> Result<Next, DutyError> {
        let mut sightings = reign.seat.sightings();
        // How far a node is was measured from here, if at all.
        let probed = reign.fleet.add_latencies(&mut sightings);
        let sightings = Arc::new(sightings);
        reign.fleet.set_loads(Loads::new(Arc::clone(&sightings), silent_loads(reign, &probed)));
        let now = Instant::now();
        if self.last_round.is_some_and(|last| now.duration_since(last) > ASLEEP) {
            warn!("this member was asleep: nodes get a full timeout");
            self.woke_up = Some(now);
        }
        self.last_round = Some(now);
        reign.seat.tell_held(reign.fleet.holds());
        let mut seen = Seen {
            sightings,
            changed_ago: Vec::new(),
            latencies_us: probed,
            now: now.duration_since(reign.since),
            blind: None,
            awake_for: self.woke_up.map(|at| now.duration_since(at)),
            state_now: 0,
        };
        seen.blind = reign.seat.learnt_ago().map(|ago| ago.saturating_sub(seen.now));
        let was_on = self.memory.brake.is_on();
        let (brake, memory) = (reign.options.brake, &mut self.memory);
        let look = reign.seat.read(|view| {
            seen.state_now = state_now(&*reign.seat, view);
            seen.changed_ago = reign.fleet.changes(kept(view.policy()));
            plan(view, &seen, memory, brake, ROUND_MAX)
        });
        self.tell(reign, &look, was_on);
        let epoch = reign.epoch;
        // The changes come back as events; a look before they are noted would repeat them.
        let soon = Next::Again(Duration::from_millis(20));
        let next = if look.more || look.unfinished { soon } else { Next::Wait(PERIOD) };
        let (drained, gone) = (look.drained, look.gone);
        if !drained.is_empty() {
            reign.propose(Command::EndDrains { epoch, node_ids: drained }).await?;
        }
        if !gone.is_empty() {
            reign.propose(Command::RetireAgents { epoch, node_ids: gone }).await?;
        }
        if look.observations.is_empty() {
            return Ok(next);
        }
        let observations = look.observations;
        if reign.propose(Command::ObserveNodes { epoch, observations }).await?.is_some() {
            reign.metrics.evictions.add(look.evicted as u64);
            reign.metrics.recoveries.add(look.recovered as u64);
        }
        Ok(next)
    }

    fn wake(wakes: &Wakes) -> &Notify {
        &wakes.liveness
    }
}

/// How long it matters that a node registered or changed: twice as long as anything it is compared
/// with, so that a longer timeout finds what it needs.
fn kept(policy: &Policy) -> impl Fn(&NodeId) -> Duration {
    let (node_timeout, agent_timeout) = timeouts(policy);
    let removal = Duration::from_millis(policy.agent_removal_ms);
    move |node_id| {
        let agent = node_id.as_str().starts_with(AGENT_PREFIX);
        2 * if agent { agent_timeout.max(removal).max(node_timeout) } else { node_timeout }
    }
}

/// Figures of those nodes that were probed and reported none of their own, as nodes that were found
/// do: the replicated ones, and how far they are.
fn silent_loads<S: Seat>(reign: &Reign<S>, probed: &[(NodeId, u32)]) -> Vec<(NodeId, Load)> {
    if probed.is_empty() {
        return Vec::new();
    }
    reign.seat.read(|view| {
        let load = |(node_id, latency_us): &(NodeId, u32)| {
            let load = Load { latency_us: *latency_us, ..view.node(node_id)?.load };
            Some((node_id.clone(), load))
        };
        probed.iter().filter_map(load).collect()
    })
}

impl Liveness {
    fn tell<S>(&self, reign: &Reign<S>, look: &Look, was_on: bool) {
        let is_on = self.memory.brake.is_on();
        reign.metrics.brake_held.set(look.held as u64);
        if is_on && !was_on {
            reign.metrics.brake_engaged.add(1);
            warn!(silent = look.held, "most nodes fell silent at once: evicting slowly");
        } else if was_on && !is_on {
            info!("nodes are heard of again: the brake is off");
        }
        if look.evicted > 0 {
            warn!(nodes = look.evicted, "nodes fell silent and go offline");
        }
        for node_id in look.unsteady.iter().take(UNSTEADY_TOLD_MAX) {
            warn!(%node_id, "a node was lost more than once in two hours over a day");
        }
    }
}
