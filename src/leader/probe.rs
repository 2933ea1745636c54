//! What nodes are asked about their health and their figures, and how their answers are read
//! (contract 6, rows 1 to 4 and 8).
//!
//! Nodes serve different paths. One that a node does not have is remembered and left out, and looked
//! for again now and then, because the node may have been upgraded.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::http::{Answer, CallError, NodeCaller};
use crate::model::{Load, NodeId, NodeStatus};
use crate::state::{LoadWeights, NodeSpec};

/// Marks nodes that were found, in their metadata: they send no heartbeats.
pub(super) const DISCOVERED: &str = "discovered";
/// Probes until a path that was missing is looked for again.
const LOOK_AGAIN: u32 = 20;

const HEALTH: &str = "/api/health";
const AGENTS: &str = "/api/v3/agents";
const METRICS: &str = "/api/v3/metrics";
const STATUS: &str = "/api/v4/orchestrator/status";

/// What a node is asked. A count is of the probes that go by before a missing path is tried again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Paths {
    /// It is an enhanced node, whose health is the list of its agents (row 3).
    enhanced: bool,
    no_agents: u32,
    no_metrics: u32,
    no_status: u32,
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probed {
    /// It answered, and not with an error of its own.
    pub(super) healthy: bool,
    /// How long the answer about its health took.
    pub(super) took: Duration,
    /// What it says of its load, as far as it was asked.
    pub(super) load: Option<Load>,
    /// What it says of its status.
    pub(super) status: Option<NodeStatus>,
    /// What to ask it the next time.
    pub(super) paths: Paths,
}

impl Paths {
    /// The same for a node of this type.
    pub(super) fn of_kind(self, node_type: &str) -> Self {
        Self { enhanced: node_type == "enhanced_node", ..self }
    }

    fn next(self) -> Self {
        let less = |count: u32| count.saturating_sub(1);
        Self {
            no_agents: less(self.no_agents),
            no_metrics: less(self.no_metrics),
            no_status: less(self.no_status),
            ..self
        }
    }
}

fn is_missing(answer: &Answer) -> bool {
    matches!(answer.status, 404 | 405)
}

/// Asks a node for its health, and for figures if it is one that sends none by itself: then `figures`
/// is how a load score is weighed that it does not tell.
pub(super) async fn probe(
    caller: &dyn NodeCaller,
    base: &str,
    paths: Paths,
    figures: Option<LoadWeights>,
    timeout: Duration,
) -> Probed {
    let began = Instant::now();
    let mut paths = paths.next();
    let ask = |path: &str| caller.get(format!("{base}{path}"), timeout);
    let mut answer = None;
    if paths.enhanced && paths.no_agents == 0 {
        let listed = ask(AGENTS).await;
        match &listed {
            Ok(missing) if is_missing(missing) => paths.no_agents = LOOK_AGAIN,
            _ => answer = Some(listed),
        }
    }
    let answer = match answer {
        Some(answer) => answer,
        None => ask(HEALTH).await,
    };
    let mut probed = Probed {
        healthy: is_healthy(&answer),
        took: began.elapsed(),
        load: None,
        status: None,
        paths,
    };
    // A node that limits the rate of requests is not asked for more than its health.
    let limits_rate = answer.as_ref().is_ok_and(|answer| answer.status == 429);
    let Some(weights) = figures.filter(|_| probed.healthy && !limits_rate) else { return probed };
    let mut said: Vec<Value> = object(answer).into_iter().collect();
    let (path, missing) = match paths.enhanced {
        true => (METRICS, &mut probed.paths.no_metrics),
        false => (STATUS, &mut probed.paths.no_status),
    };
    if *missing == 0 {
        let answer = ask(path).await;
        if answer.as_ref().is_ok_and(is_missing) {
            *missing = LOOK_AGAIN;
        }
        // Anything else that goes wrong here says nothing about the node's health (rows 4 and 8).
        said.extend(object(answer));
    }
    (probed.load, probed.status) = read(&said, weights);
    probed
}

/// Whether something answers: with anything but an error of its own. A node that limits the rate of
/// requests is there, and one that serves other paths is, too. One that says itself that it failed
/// is not well (row 3).
fn is_healthy(answer: &Result<Answer, CallError>) -> bool {
    match answer {
        Ok(answer) if answer.status >= 500 => false,
        Ok(answer) => {
            let said = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
            answer.status != 200 || said.get("success") != Some(&Value::Bool(false))
        }
        Err(CallError::TooLarge) => true,
        Err(
            CallError::Connect(_)
            | CallError::Timeout
            | CallError::Broken(_)
            | CallError::NotAllowed(_),
        ) => false,
    }
}

/// What answers say of load and status; what was said later counts.
fn read(said: &[Value], weights: LoadWeights) -> (Option<Load>, Option<NodeStatus>) {
    let inside = ["", "/stats", "/metrics", "/system", "/system_stats", "/performance"];
    let find = |keys: &[&str]| {
        let places = said.iter().rev().flat_map(|said| inside.map(|place| (said, place)));
        places.flat_map(|(said, place)| keys.iter().map(move |key| (said, place, key))).find_map(
            |(said, place, key)| {
                said.pointer(&format!("{place}/{key}")).filter(|found| !found.is_null())
            },
        )
    };
    let number = |keys: &[&str]| find(keys).and_then(Value::as_f64).filter(|value| *value >= 0.0);
    let cpu = number(&["cpu_percent", "cpu_usage", "avg_cpu_percent"]);
    let memory = number(&["memory_percent", "memory_usage", "avg_memory_percent"]);
    let gpu = number(&["gpu_percent", "gpu_usage"]);
    let score = number(&["load_score"]);
    let tasks = match find(&["current_tasks", "tasks_running", "active_tasks"]) {
        Some(Value::Array(tasks)) => Some(tasks.len() as f64),
        Some(tasks) => tasks.as_f64().filter(|count| *count >= 0.0),
        None => None,
    };
    let status = find(&["status"]).and_then(Value::as_str).and_then(NodeStatus::parse);
    // Its own word that it is away was said by one that is there.
    let status = status.filter(|status| *status != NodeStatus::Offline);
    if [cpu, memory, gpu, score, tasks].iter().all(Option::is_none) {
        return (None, status);
    }
    let [cpu, memory, gpu] = [cpu, memory, gpu].map(|share| share.unwrap_or(0.0).min(100.0));
    let tasks = tasks.unwrap_or(0.0).min(f64::from(u32::MAX));
    let milli = |value: f64| (value * 1000.0).round() as u32;
    // The scales of contract 2.8.
    let score_milli = match score {
        Some(score) if score > 1.0 => milli((score / 100.0).min(1.0)),
        Some(score) => milli(score),
        None => weights.score_milli(milli(cpu), milli(memory), tasks as u32),
    };
    let load = Load {
        cpu_milli: milli(cpu),
        memory_milli: milli(memory),
        gpu_milli: milli(gpu),
        score_milli,
        latency_us: 0,
        active_tasks: tasks as u32,
    };
    (Some(load), status)
}

fn object(answer: Result<Answer, CallError>) -> Option<Value> {
    let answer = answer.ok().filter(|answer| answer.status == 200)?;
    serde_json::from_slice(&answer.body).ok().filter(Value::is_object)
}

/// Asks an endpoint who it is (contract 6, rows 1 to 3). `usual` are the capacity of a node, which none
/// of them tells, and how its load is weighed.
pub(super) async fn look_at(
    caller: &dyn NodeCaller,
    endpoint: &str,
    timeout: Duration,
    usual: (u32, LoadWeights),
) -> Option<NodeSpec> {
    let base = endpoint.trim_end_matches('/');
    let status = object(caller.get(format!("{base}/api/v4/system/status"), timeout).await);
    let status = match status {
        Some(status) => status,
        // Row 1: that it is healthy is all that is known then.
        None => object(caller.get(format!("{base}/api/health"), timeout).await)?,
    };
    let agents = match object(caller.get(format!("{base}/api/v4/agents"), timeout).await) {
        Some(agents) => Some(agents),
        // The enhanced node lists them here.
        None => object(caller.get(format!("{base}/api/v3/agents"), timeout).await),
    };
    spec_of(base, &status, agents.as_ref(), usual)
}

fn spec_of(
    base: &str,
    status: &Value,
    agents: Option<&Value>,
    (capacity, weights): (u32, LoadWeights),
) -> Option<NodeSpec> {
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
        let agent_id = match text("id", "") {
            id if id.is_empty() => text("agent_id", ""),
            id => id,
        };
        (!agent_id.is_empty()).then(|| crate::model::Agent {
            agent_id,
            agent_type: text("agent_type", "generic"),
            status: text("status", "unknown"),
            capabilities: texts(agent.get("capabilities")),
            extra: agent.to_string(),
        })
    };
    let agents: Vec<_> = listed.into_iter().flatten().take(1000).filter_map(agent).collect();
    let [cpu_milli, memory_milli, gpu_milli] =
        ["cpu_percent", "memory_percent", "gpu_percent"].map(percent);
    let score_milli = weights.score_milli(cpu_milli, memory_milli, 0);
    Some(NodeSpec {
        node_id: NodeId::parse(&node_id).ok()?,
        host: host.to_owned(),
        port,
        node_type: text("agent_type").unwrap_or_else(|| "worker".to_owned()),
        capabilities: texts(status.get("capabilities")),
        capacity,
        agents_count: u32::try_from(agents.len()).unwrap_or(u32::MAX),
        agents,
        load: Load { cpu_milli, memory_milli, gpu_milli, score_milli, ..Load::default() },
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

    #[test]
    fn contract_6_row_2_what_an_endpoint_says_of_itself() {
        let status = json!({"agent_id": "found-1", "agent_type": "gpu", "capabilities": ["b", "a"],
            "version": "2", "system_stats": {"cpu_percent": 12.5, "memory_percent": 250}});
        let agents = json!({"agents": [{"id": "a1", "agent_type": "x", "status": "online"}, {}]});
        let usual = (4, crate::state::Policy::default().load_weights);
        let spec = spec_of("http://10.0.0.1:8081", &status, Some(&agents), usual).unwrap();
        assert_eq!(
            (spec.node_id.as_str(), spec.host.as_str(), spec.port),
            ("found-1", "10.0.0.1", 8081)
        );
        assert_eq!((spec.load.cpu_milli, spec.load.memory_milli), (12_500, 100_000));
        assert_eq!(spec.load.score_milli, 350, "weighed, as of any that tells no score");
        assert_eq!(spec.agents.len(), 1, "one without an id is left out");
        let bare = spec_of("http://h:1", &json!({}), None, usual).unwrap();
        assert_eq!(bare.node_id.as_str(), "node_h_1");
        assert!(spec_of("http://h:x", &json!({}), None, usual).is_none());
    }
}
