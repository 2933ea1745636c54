//! The prober: asks nodes for their health, and looks for nodes that nobody registered (contract 2.9,
//! 6 rows 1 to 4 and 8). What is asked, and how answers are read, is in `probe`.
//!
//! Heartbeats decide whether a node is there. Probes say whether it can be called from here: one that
//! failed some probes in a row gets nothing until it answers again. They also measure how far it is.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info};

use super::duty::{Duty, DutyError, Next, Reign, Wakes};
use super::liveness::{heard_status, shares_moved};
use super::metrics::DutyName;
use super::probe::{DISCOVERED, Paths, Probed, look_at, probe};
use super::seat::{Seat, SeatError};
use crate::model::{AGENT_PREFIX, Load, NodeId};
use crate::state::{Command, NodeObservation, NodeSpec, Rejection, State};

/// Probes under way at once.
const PROBES_MAX: usize = 256;
/// Probes begun in a second. Each is a connection of its own: a fleet that has more nodes than its
/// interval has room for is gone through more slowly, instead of at the leader's cost.
const PROBES_PER_SECOND: usize = 100;
/// Between two looks at probes that are under way.
const COLLECT_PAUSE: Duration = Duration::from_millis(100);
/// How often it looks whether something is due.
const PERIOD: Duration = Duration::from_secs(1);
/// How often it looks through the fleet for nodes that are new, unless they are probed more often.
const FIND_PERIOD: Duration = Duration::from_secs(5);
/// Steps of one kind that the leader does at once.
const BUILTIN_CAPACITY: u32 = 256;

/// A node that is to be asked.
#[derive(Debug, Clone)]
struct Due {
    node_id: NodeId,
    base_url: String,
    discovered: bool,
    paths: Paths,
}

/// What is remembered of a node from probe to probe.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Probes that failed in a row.
    failures: u32,
    paths: Paths,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Prober {
    nodes: BTreeMap<NodeId, Known>,
    /// When nodes are asked next, soonest first.
    turns: VecDeque<(Instant, NodeId)>,
    /// The interval those were made for.
    interval: Duration,
    /// When the fleet was last looked through for new nodes.
    found_at: Option<Instant>,
    /// To be asked; at most the fleet.
    due: VecDeque<Due>,
    probes: JoinSet<(Due, Probed)>,
    looked_at: Option<Instant>,
    discovered_at: Option<Instant>,
}

impl<S: Seat> Duty<S> for Prober {
    const NAME: DutyName = DutyName::Prober;

    async fn round(&mut self, reign: &Reign<S>) -> Result<Next, DutyError> {
        let (rules, endpoints, every) = reign.seat.read(|view| {
            let policy = view.policy();
            let interval = Duration::from_millis(policy.probe_interval_ms);
            let timeout = Duration::from_millis(policy.probe_timeout_ms);
            let rules = (interval, timeout, policy.probe_retries);
            let every = Duration::from_millis(policy.discovery_interval_ms);
            (rules, policy.discovery_endpoints.clone(), every)
        });
        let answered = self.collect(reign, rules);
        bring_back(reign, answered).await?;
        // What is due is looked for less often than answers are collected.
        if self.looked_at.is_none_or(|at| at.elapsed() >= PERIOD) {
            self.looked_at = Some(Instant::now());
            keep_builtin(reign).await?;
            reign.seat.read(|view| self.look(view, rules.0));
            if self.discovered_at.is_none_or(|at| at.elapsed() >= every) {
                self.discover(reign, endpoints, rules.1).await?;
            }
        }
        self.begin(reign, rules.1);
        let idle = self.probes.is_empty() && self.due.is_empty();
        Ok(if idle { Next::Wait(PERIOD) } else { Next::Again(COLLECT_PAUSE) })
    }

    fn wake(wakes: &Wakes) -> &Notify {
        &wakes.prober
    }
}

impl Prober {
    /// Queues the probes that are due, the longest due first; it is called once a second.
    fn look(&mut self, view: &State, interval: Duration) {
        let now = Instant::now();
        if interval != self.interval {
            // All turns are made anew; nodes that failed have failed all the same.
            self.turns.clear();
            (self.interval, self.found_at) = (interval, None);
        }
        if interval.is_zero() || !self.due.is_empty() {
            return;
        }
        if self.found_at.is_none_or(|at| now.duration_since(at) >= FIND_PERIOD.min(interval)) {
            self.find(view, now);
            self.found_at = Some(now);
        }
        while self.due.len() < PROBES_PER_SECOND
            && self.turns.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, node_id)) = self.turns.pop_front()
        {
            let Some(node) = view.node(&node_id).filter(|node| node.agent_type.is_none()) else {
                self.nodes.remove(&node_id);
                continue;
            };
            self.turns.push_back((now + interval, node_id.clone()));
            self.due.push_back(Due {
                node_id,
                base_url: node.base_url(),
                discovered: node.metadata.contains(DISCOVERED),
                paths: self
                    .nodes
                    .get(&node.node_id)
                    .map_or_else(Paths::default, |known| known.paths.of_kind(&node.node_type)),
            });
        }
    }

    /// How long after a probe of a node its next one begins.
    fn between_probes(&self, interval: Duration) -> Duration {
        let seconds = self.turns.len().div_ceil(PROBES_PER_SECOND);
        interval.max(Duration::from_secs(seconds as u64))
    }

    /// Gives turns to nodes that have none. The fleet and what is known of it are in the same order.
    fn find(&mut self, view: &State, now: Instant) {
        let all_anew = self.turns.is_empty();
        if all_anew {
            self.nodes.retain(|node_id, _| view.node(node_id).is_some());
        }
        let mut known = self.nodes.keys().peekable();
        let mut new = Vec::new();
        for (place, node) in view.nodes().enumerate() {
            while known.next_if(|node_id| **node_id < node.node_id).is_some() {}
            let has_turn = known.next_if(|node_id| **node_id == node.node_id).is_some();
            if !has_turn || all_anew {
                // The first look at a fleet is spread over an interval.
                let next = now + self.interval.mul_f64((place % 97) as f64 / 97.0);
                new.push((next, node.node_id.clone()));
            }
        }
        for (_, node_id) in &new {
            self.nodes.entry(node_id.clone()).or_default();
        }
        self.turns.extend(new);
        self.turns.make_contiguous().sort_by_key(|(at, _)| *at);
    }

    /// Begins with as many probes as may be under way.
    fn begin<S: Seat>(&mut self, reign: &Reign<S>, timeout: Duration) {
        if self.due.is_empty() {
            return;
        }
        let weights = reign.seat.read(|view| view.policy().load_weights);
        while self.probes.len() < PROBES_MAX
            && let Some(node) = self.due.pop_front()
        {
            let caller = std::sync::Arc::clone(&reign.caller);
            self.probes.spawn(async move {
                let (base, figures) = (&node.base_url, node.discovered.then_some(weights));
                let probed = probe(caller.as_ref(), base, node.paths, figures, timeout).await;
                (node, probed)
            });
        }
    }

    /// Notes what was answered meanwhile. Gives the nodes that were found, send no heartbeats, and
    /// answered.
    fn collect<S: Seat>(
        &mut self,
        reign: &Reign<S>,
        (interval, timeout, retries): (Duration, Duration, u32),
    ) -> Vec<(NodeId, Probed)> {
        let mut answered = Vec::new();
        while let Some(ended) = self.probes.try_join_next() {
            let Ok((node, probed)) = ended else { continue };
            let next = self.between_probes(interval);
            let Some(known) = self.nodes.get_mut(&node.node_id) else { continue };
            known.paths = probed.paths;
            if probed.healthy {
                if known.failures >= retries {
                    reign.fleet.reached(&node.node_id);
                }
                known.failures = 0;
                reign.fleet.set_latency(&node.node_id, probed.took);
                if node.discovered {
                    reign.fleet.changed(&node.node_id);
                    answered.push((node.node_id, probed));
                }
                continue;
            }
            known.failures += 1;
            if known.failures >= retries {
                let failures = known.failures;
                debug!(node = %node.node_id, failures, "a node does not answer probes");
                // Until the next probe has failed, too.
                reign.fleet.hold(&node.node_id, next + timeout + 2 * PERIOD);
            }
        }
        answered
    }

    async fn discover<S: Seat>(
        &mut self,
        reign: &Reign<S>,
        endpoints: Vec<String>,
        timeout: Duration,
    ) -> Result<(), DutyError> {
        if endpoints.is_empty() {
            return Ok(());
        }
        self.discovered_at = Some(Instant::now());
        let usual = reign.seat.read(|view| {
            let policy = view.policy();
            (policy.node_capacity, policy.load_weights)
        });
        let caller = reign.caller.as_ref();
        let looks = endpoints.iter().map(|endpoint| look_at(caller, endpoint, timeout, usual));
        let found = futures::future::join_all(looks).await;
        for (endpoint, spec) in endpoints.iter().zip(found) {
            let Some(spec) = spec else { continue };
            let known = reign.seat.read(|view| {
                view.nodes().any(|node| {
                    node.node_id == spec.node_id
                        || node.base_url() == endpoint.trim_end_matches('/')
                })
            });
            if known {
                continue;
            }
            let node_id = spec.node_id.clone();
            match reign.seat.propose(reign.epoch, Command::RegisterNode(spec)).await {
                Ok(Ok(_)) => info!(%node_id, endpoint, "a node was found and registered"),
                Ok(Err(Rejection::StaleEpoch { .. })) | Err(SeatError::NotLeader) => {
                    return Err(DutyError::EpochClosed);
                }
                Ok(Err(rejection)) => debug!(%node_id, %rejection, "a node cannot be registered"),
                Err(error) => debug!(%node_id, %error, "a node that was found has to wait"),
            }
        }
        Ok(())
    }
}

/// An answer brings a node back that was found and had fallen silent: it sends no heartbeats that
/// could. What it said of itself stands for what a heartbeat says.
async fn bring_back<S: Seat>(
    reign: &Reign<S>,
    answered: Vec<(NodeId, Probed)>,
) -> Result<(), DutyError> {
    if answered.is_empty() {
        return Ok(());
    }
    let observations: Vec<NodeObservation> = reign.seat.read(|view| {
        let observed = |(node_id, probed): &(NodeId, Probed)| {
            let node = view.node(node_id)?;
            let status = heard_status(node.status, probed.status);
            let load = probed.load.map(|load| Load { latency_us: node.load.latency_us, ..load });
            let load = load.filter(|load| has_moved(&node.load, load));
            let is_news = status != node.status || load.is_some();
            is_news.then(|| NodeObservation {
                node_id: node_id.clone(),
                seen: node.status,
                status,
                load,
            })
        };
        answered.iter().filter_map(observed).collect()
    });
    if !observations.is_empty() {
        reign.propose(Command::ObserveNodes { epoch: reign.epoch, observations }).await?;
    }
    Ok(())
}

/// Whether figures of a node that sends no heartbeats are worth a place in the log.
fn has_moved(old: &Load, new: &Load) -> bool {
    shares_moved(old, new) || old.active_tasks != new.active_tasks
}

/// Registers the agents that the leader is itself, and takes out those that it shall not be.
async fn keep_builtin<S: Seat>(reign: &Reign<S>) -> Result<(), DutyError> {
    let serves = reign.agents.serves_builtin();
    let commands = reign.seat.read(|view| {
        let wanted: &[String] = if serves { &view.policy().builtin_agents } else { &[] };
        let id = |kind: &String| NodeId::trusted(&format!("{AGENT_PREFIX}builtin-{kind}"));
        let missing = wanted.iter().filter(|kind| view.node(&id(kind)).is_none());
        let mut commands: Vec<Command> =
            missing.map(|kind| Command::RegisterNode(builtin(id(kind), kind))).collect();
        let extra = view.agents().filter(|agent| {
            let kind = agent.agent_type.as_ref();
            agent.host.is_empty() && !kind.is_some_and(|kind| wanted.contains(kind))
        });
        commands.extend(extra.map(|agent| Command::RemoveNode { node_id: agent.node_id.clone() }));
        commands
    });
    for command in commands {
        match reign.seat.propose(reign.epoch, command).await {
            Ok(Err(Rejection::StaleEpoch { .. })) | Err(SeatError::NotLeader) => {
                return Err(DutyError::EpochClosed);
            }
            Ok(_) => {}
            Err(error) => debug!(%error, "a built-in agent has to wait"),
        }
    }
    Ok(())
}

fn builtin(node_id: NodeId, kind: &str) -> NodeSpec {
    NodeSpec {
        node_id,
        host: String::new(),
        port: 0,
        node_type: "agent".to_owned(),
        capabilities: Vec::new(),
        capacity: BUILTIN_CAPACITY,
        agents_count: 0,
        agents: Vec::new(),
        load: Load::default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        location: None,
        external_url: None,
        instance: String::new(),
        metadata: "{\"builtin\":true}".to_owned(),
        agent_type: Some(kind.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::solo::Solo;

    /// Looks every second for so long; gives how often each node was to be asked.
    async fn asked(prober: &mut Prober, solo: &Solo, secs: u64, interval_s: u64) -> Vec<usize> {
        let mut asked = BTreeMap::new();
        for _ in 0..secs {
            prober.look(&solo.state.read(), Duration::from_secs(interval_s));
            for due in prober.due.drain(..) {
                *asked.entry(due.node_id).or_insert(0) += 1;
            }
            tokio::time::advance(PERIOD).await;
        }
        asked.into_values().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn every_node_is_asked_once_per_interval_whoever_comes_and_goes() {
        let solo = Solo::new();
        let names = ["a", "b", "c", "d"];
        names.iter().for_each(|name| solo.register(name, |_| {}));
        let mut prober = Prober::default();
        assert_eq!(asked(&mut prober, &solo, 30, 30).await, [1; 4]);
        assert_eq!(asked(&mut prober, &solo, 60, 30).await, [2; 4]);
        solo.commit(Command::RemoveNode { node_id: NodeId::trusted("b") }).unwrap();
        solo.register("e", |_| {});
        assert_eq!(asked(&mut prober, &solo, 60, 30).await, [2; 4]);
        assert_eq!(asked(&mut prober, &solo, 60, 0).await, [0; 0], "it is turned off");
        solo.commit(Command::RemoveNode { node_id: NodeId::trusted("c") }).unwrap();
        assert_eq!(asked(&mut prober, &solo, 10, 2).await, [5; 3]);
        let known: Vec<_> = prober.nodes.keys().map(NodeId::as_str).collect();
        assert_eq!(known, ["a", "d", "e"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_fleet_is_gone_through_at_a_bounded_rate_and_nobody_twice_before_all() {
        let solo = Solo::new();
        let (path, value) = ("network.max_nodes".to_owned(), "1000".to_owned());
        solo.commit(Command::PatchConfig { path, value, expected_revision: None }).unwrap();
        for n in 0..250 {
            solo.register(&format!("n{n}"), |_| {});
        }
        let mut prober = Prober::default();
        let interval = Duration::from_secs(2);
        let look = async |prober: &mut Prober| {
            prober.look(&solo.state.read(), interval);
            tokio::time::advance(PERIOD).await;
            std::mem::take(&mut prober.due)
        };
        // The first looks spread the fleet over an interval.
        for _ in 0..3 {
            look(&mut prober).await;
        }
        assert_eq!(prober.between_probes(interval), Duration::from_secs(3));
        for _ in 0..3 {
            let mut round = std::collections::BTreeSet::new();
            for _ in 0..3 {
                let due = look(&mut prober).await;
                assert!(due.len() <= PROBES_PER_SECOND, "{}", due.len());
                round.extend(due.into_iter().map(|due| due.node_id));
            }
            assert_eq!(round.len(), 250, "each has its turn in three seconds");
        }
        assert_eq!(prober.between_probes(Duration::from_secs(30)), Duration::from_secs(30));
    }
}
