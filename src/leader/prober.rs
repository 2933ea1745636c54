//! The prober: asks nodes for their health, and looks for nodes that nobody registered (contract 2.9,
//! 6 rows 1 to 3).
//!
//! Heartbeats decide whether a node is there. Probes say whether it can be called from here: one that
//! failed some probes in a row gets nothing until it answers again. They also measure how far it is.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info};

use super::duty::{Duty, DutyError, Next, Reign, Wakes};
use super::http::{Answer, CallError, NodeCaller};
use super::metrics::DutyName;
use super::seat::{Seat, SeatError};
use crate::model::{AGENT_PREFIX, Load, NodeId, NodeStatus};
use crate::state::{Command, NodeObservation, NodeSpec, Rejection, State};

/// Probes under way at once.
const PROBES_MAX: usize = 256;
/// Between two looks at probes that are under way.
const COLLECT_PAUSE: Duration = Duration::from_millis(100);
/// How often it looks whether something is due.
const PERIOD: Duration = Duration::from_secs(1);
/// How often it looks through the fleet for nodes that are new, unless they are probed more often.
const FIND_PERIOD: Duration = Duration::from_secs(5);
/// How often the endpoints for discovery are asked (contract 2.12).
const DISCOVERY_PERIOD: Duration = Duration::from_secs(60);

/// Steps of one kind that the leader does at once.
const BUILTIN_CAPACITY: u32 = 256;
/// Marks nodes that were found, in their metadata: they send no heartbeats.
const DISCOVERED: &str = "discovered";

/// A node that is to be asked.
#[derive(Debug, Clone)]
struct Due {
    node_id: NodeId,
    base_url: String,
    discovered: bool,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Prober {
    /// Probes that failed in a row, by node.
    nodes: BTreeMap<NodeId, u32>,
    /// When nodes are asked next, soonest first.
    turns: VecDeque<(Instant, NodeId)>,
    /// The interval those were made for.
    interval: Duration,
    /// When the fleet was last looked through for new nodes.
    found_at: Option<Instant>,
    /// To be asked; at most the fleet.
    due: VecDeque<Due>,
    probes: JoinSet<(Due, bool, Duration)>,
    looked_at: Option<Instant>,
    discovered_at: Option<Instant>,
}

impl<S: Seat> Duty<S> for Prober {
    const NAME: DutyName = DutyName::Prober;

    async fn round(&mut self, reign: &Reign<S>) -> Result<Next, DutyError> {
        let (rules, endpoints) = reign.seat.read(|view| {
            let policy = view.policy();
            let interval = Duration::from_millis(policy.probe_interval_ms);
            let timeout = Duration::from_millis(policy.probe_timeout_ms);
            ((interval, timeout, policy.probe_retries), policy.discovery_endpoints.clone())
        });
        let answered = self.collect(reign, rules);
        bring_back(reign, answered).await?;
        // What is due is looked for less often than answers are collected.
        if self.looked_at.is_none_or(|at| at.elapsed() >= PERIOD) {
            self.looked_at = Some(Instant::now());
            keep_builtin(reign).await?;
            reign.seat.read(|view| self.look(view, rules.0));
            self.discover(reign, endpoints, rules.1).await?;
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
    /// Queues the probes that are due.
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
        while self.turns.front().is_some_and(|(at, _)| *at <= now)
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
            });
        }
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
        while self.probes.len() < PROBES_MAX
            && let Some(node) = self.due.pop_front()
        {
            let caller = std::sync::Arc::clone(&reign.caller);
            self.probes.spawn(async move {
                let began = Instant::now();
                let healthy = is_healthy(caller.as_ref(), &node.base_url, timeout).await;
                (node, healthy, began.elapsed())
            });
        }
    }

    /// Notes what was answered meanwhile. Gives the nodes that were found, send no heartbeats, and
    /// answered.
    fn collect<S: Seat>(
        &mut self,
        reign: &Reign<S>,
        (interval, timeout, retries): (Duration, Duration, u32),
    ) -> Vec<NodeId> {
        let mut answered = Vec::new();
        while let Some(ended) = self.probes.try_join_next() {
            let Ok((node, healthy, took)) = ended else { continue };
            let Some(failures) = self.nodes.get_mut(&node.node_id) else { continue };
            if healthy {
                if *failures >= retries {
                    reign.fleet.reached(&node.node_id);
                }
                *failures = 0;
                reign.fleet.set_latency(&node.node_id, took);
                if node.discovered {
                    reign.fleet.changed(&node.node_id);
                    answered.push(node.node_id);
                }
                continue;
            }
            *failures += 1;
            if *failures >= retries {
                debug!(node = %node.node_id, failures, "a node does not answer probes");
                // Until the next probe has failed, too.
                reign.fleet.hold(&node.node_id, interval + timeout + 2 * PERIOD);
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
        let due = self.discovered_at.is_none_or(|at| at.elapsed() >= DISCOVERY_PERIOD);
        if endpoints.is_empty() || !due {
            return Ok(());
        }
        self.discovered_at = Some(Instant::now());
        let capacity = reign.seat.read(|view| view.policy().node_capacity);
        let caller = reign.caller.as_ref();
        let looks = endpoints.iter().map(|endpoint| look_at(caller, endpoint, timeout, capacity));
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
/// could.
async fn bring_back<S: Seat>(reign: &Reign<S>, answered: Vec<NodeId>) -> Result<(), DutyError> {
    if answered.is_empty() {
        return Ok(());
    }
    let observations: Vec<NodeObservation> = reign.seat.read(|view| {
        let nodes = answered.iter().filter_map(|node_id| view.node(node_id));
        let offline = nodes.filter(|node| node.status == NodeStatus::Offline);
        let back = offline.map(|node| NodeObservation {
            node_id: node.node_id.clone(),
            seen: node.status,
            status: NodeStatus::Active,
            load: None,
        });
        back.collect()
    });
    if !observations.is_empty() {
        reign.propose(Command::ObserveNodes { epoch: reign.epoch, observations }).await?;
    }
    Ok(())
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

/// Whether something at `base` answers: with anything but an error of its own. A node that limits the
/// rate of requests is there, and one that serves other paths is, too.
async fn is_healthy(caller: &dyn NodeCaller, base: &str, timeout: Duration) -> bool {
    match caller.get(format!("{base}/api/health"), timeout).await {
        Ok(answer) => answer.status < 500,
        Err(CallError::TooLarge) => true,
        Err(
            CallError::Connect(_)
            | CallError::Timeout
            | CallError::Broken(_)
            | CallError::NotAllowed(_),
        ) => false,
    }
}

fn object(answer: Result<Answer, CallError>) -> Option<Value> {
    let answer = answer.ok().filter(|answer| answer.status == 200)?;
    serde_json::from_slice(&answer.body).ok().filter(Value::is_object)
}

/// Asks an endpoint who it is (contract 6, rows 1 and 2).
async fn look_at(
    caller: &dyn NodeCaller,
    endpoint: &str,
    timeout: Duration,
    capacity: u32,
) -> Option<NodeSpec> {
    let base = endpoint.trim_end_matches('/');
    let status = object(caller.get(format!("{base}/api/v4/system/status"), timeout).await);
    let status = match status {
        Some(status) => status,
        // Row 1: that it is healthy is all that is known then.
        None => object(caller.get(format!("{base}/api/health"), timeout).await)?,
    };
    let agents = object(caller.get(format!("{base}/api/v4/agents"), timeout).await);
    spec_of(base, &status, agents.as_ref(), capacity)
}

fn spec_of(base: &str, status: &Value, agents: Option<&Value>, capacity: u32) -> Option<NodeSpec> {
    let authority = base.split_once("://").map_or(base, |(_, rest)| rest);
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    let port: u16 = port.parse().ok()?;
    let text = |key: &str| status.get(key).and_then(Value::as_str).map(str::to_owned);
    let node_id = text("agent_id").unwrap_or_else(|| format!("node_{host}_{port}"));
    let percent = |key: &str| {
        let value = status.pointer(&format!("/system_stats/{key}")).and_then(Value::as_f64);
        (value.unwrap_or(0.0).clamp(0.0, 100.0) * 1000.0) as u32
    };
    let texts = |value: Option<&Value>| -> Vec<String> {
        let items = value.and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).take(256).collect()
    };
    let listed = agents.and_then(|agents| agents.get("agents")).and_then(Value::as_array);
    let agent = |agent: &Value| {
        let text = |key: &str, default: &str| {
            agent.get(key).and_then(Value::as_str).unwrap_or(default).to_owned()
        };
        let agent_id = text("id", "");
        (!agent_id.is_empty()).then(|| crate::model::Agent {
            agent_id,
            agent_type: text("agent_type", "generic"),
            status: text("status", "unknown"),
            capabilities: texts(agent.get("capabilities")),
            extra: agent.to_string(),
        })
    };
    let agents: Vec<_> = listed.into_iter().flatten().take(1000).filter_map(agent).collect();
    Some(NodeSpec {
        node_id: NodeId::parse(&node_id).ok()?,
        host: host.to_owned(),
        port,
        node_type: text("agent_type").unwrap_or_else(|| "worker".to_owned()),
        capabilities: texts(status.get("capabilities")),
        capacity,
        agents_count: u32::try_from(agents.len()).unwrap_or(u32::MAX),
        agents,
        load: Load {
            cpu_milli: percent("cpu_percent"),
            memory_milli: percent("memory_percent"),
            gpu_milli: percent("gpu_percent"),
            ..Load::default()
        },
        version: text("version").unwrap_or_else(|| "1.0.0".to_owned()),
        location: None,
        external_url: None,
        instance: String::new(),
        metadata: format!("{{\"{DISCOVERED}\":true}}"),
        agent_type: None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::leader::solo::Solo;

    #[test]
    fn contract_6_row_2_what_an_endpoint_says_of_itself() {
        let status = json!({"agent_id": "found-1", "agent_type": "gpu", "capabilities": ["b", "a"],
            "version": "2", "system_stats": {"cpu_percent": 12.5, "memory_percent": 250}});
        let agents = json!({"agents": [{"id": "a1", "agent_type": "x", "status": "online"}, {}]});
        let spec = spec_of("http://10.0.0.1:8081", &status, Some(&agents), 4).unwrap();
        assert_eq!(
            (spec.node_id.as_str(), spec.host.as_str(), spec.port),
            ("found-1", "10.0.0.1", 8081)
        );
        assert_eq!((spec.load.cpu_milli, spec.load.memory_milli), (12_500, 100_000));
        assert_eq!(spec.agents.len(), 1, "one without an id is left out");
        let bare = spec_of("http://h:1", &json!({}), None, 4).unwrap();
        assert_eq!(bare.node_id.as_str(), "node_h_1");
        assert!(spec_of("http://h:x", &json!({}), None, 4).is_none());
    }

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
}
