//! A node and its agents as clients see them (contract 2.2, 2.3).

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::api::fragment::fragment;
use crate::api::object::Object;
use crate::api::wire_time::{Epoch, epoch_or_null};
use crate::model::{Agent, Load, Node, TimeMs};

/// What members know of a node beyond its row: fresher, and kept in memory only.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::api) struct Freshness {
    /// When it was last heard of; 0 when this member cannot say.
    pub(in crate::api) heard_at_ms: TimeMs,
    /// Its newest figures.
    pub(in crate::api) load: Option<Load>,
}

/// A node in a list.
#[derive(Debug, Serialize)]
pub(super) struct NodeRow<'a> {
    node_id: &'a str,
    host: &'a str,
    port: u16,
    node_type: &'a str,
    status: &'static str,
    capabilities: &'a [String],
    agents_count: u32,
    cpu_usage: f64,
    memory_usage: f64,
    gpu_usage: f64,
    network_latency: f64,
    load_score: f64,
    last_heartbeat: Option<Epoch>,
    version: &'a str,
    location: Option<&'a str>,
    uptime: f64,
    capacity: u32,
    running: u32,
    agents: Vec<AgentRow<'a>>,
}

/// A node on its own: the fields of the list and more.
#[derive(Debug, Serialize)]
pub(super) struct NodeObject<'a> {
    #[serde(flatten)]
    row: NodeRow<'a>,
    reliability_score: f64,
    tasks_completed: u64,
    tasks_failed: u64,
    external_url: Option<&'a str>,
    instance: &'a str,
    registered_at: Epoch,
    metadata: &'a RawValue,
}

/// An agent of a node.
#[derive(Debug)]
pub(super) struct AgentRow<'a> {
    agent: &'a Agent,
    node_id: &'a str,
    last_activity_ms: TimeMs,
}

fn milli(value: u32) -> f64 {
    f64::from(value) / 1000.0
}

/// One row of `GET /api/v1/nodes`.
pub(super) fn node_row(node: &Node, fresh: Freshness, now: TimeMs) -> NodeRow<'_> {
    let load = fresh.load.unwrap_or(node.load);
    let agents = node.agents.iter().map(|agent| agent_row(node, agent, fresh)).collect();
    NodeRow {
        node_id: node.node_id.as_str(),
        host: &node.host,
        port: node.port,
        node_type: &node.node_type,
        status: node.status.as_str(),
        capabilities: &node.capabilities,
        agents_count: node.agents_count,
        cpu_usage: milli(load.cpu_milli),
        memory_usage: milli(load.memory_milli),
        gpu_usage: milli(load.gpu_milli),
        network_latency: milli(load.latency_us),
        load_score: milli(load.score_milli),
        last_heartbeat: epoch_or_null(fresh.heard_at_ms),
        version: &node.version,
        location: node.location.as_deref(),
        uptime: now.saturating_sub(node.registered_at_ms) as f64 / 1000.0,
        capacity: node.capacity,
        running: node.live,
        agents,
    }
}

/// `GET /api/v1/nodes/{id}`.
pub(super) fn node_object(node: &Node, fresh: Freshness, now: TimeMs) -> NodeObject<'_> {
    NodeObject {
        row: node_row(node, fresh, now),
        reliability_score: milli(node.reliability_milli),
        tasks_completed: node.tasks_completed,
        tasks_failed: node.tasks_failed,
        external_url: node.external_url.as_deref(),
        instance: &node.instance,
        registered_at: Epoch(node.registered_at_ms),
        metadata: fragment(&node.metadata, "{}"),
    }
}

/// An agent of `node`.
pub(super) fn agent_row<'a>(node: &'a Node, agent: &'a Agent, fresh: Freshness) -> AgentRow<'a> {
    AgentRow { agent, node_id: node.node_id.as_str(), last_activity_ms: fresh.heard_at_ms }
}

impl Serialize for AgentRow<'_> {
    /// What the node said of its agent, with the contract's defaults for what it did not say.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const DEFAULTS: [(&str, &str); 5] = [
            ("tasks_running", "0"),
            ("tasks_completed", "0"),
            ("efficiency_score", "1.0"),
            ("specialized_models", "[]"),
            ("resource_usage", "{}"),
        ];
        const OURS: [&str; 3] = ["node_id", "source", "last_activity"];
        let extra = Object::parse(self.agent.extra.as_bytes()).unwrap_or_default();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("agent_id", &self.agent.agent_id)?;
        map.serialize_entry("node_id", self.node_id)?;
        map.serialize_entry("agent_type", &self.agent.agent_type)?;
        map.serialize_entry("status", &self.agent.status)?;
        map.serialize_entry("capabilities", &self.agent.capabilities)?;
        for (key, default) in DEFAULTS {
            let value = extra.raw(key).unwrap_or_else(|| fragment(default, "null"));
            map.serialize_entry(key, value)?;
        }
        map.serialize_entry("last_activity", &epoch_or_null(self.last_activity_ms))?;
        map.serialize_entry("source", "web4ai")?;
        for (key, value) in extra.fields() {
            let written = OURS.contains(&key) || DEFAULTS.iter().any(|(name, _)| *name == key);
            if !written {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

#[cfg(test)]
pub(in crate::api) mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{NodeId, NodeStatus};

    pub(in crate::api) fn node() -> Node {
        Node {
            node_id: NodeId::trusted("n1"),
            host: "10.0.0.7".to_owned(),
            port: 5000,
            node_type: "worker".to_owned(),
            status: NodeStatus::Active,
            capabilities: vec!["a".to_owned()],
            capacity: 4,
            live: 1,
            agents_count: 1,
            agents: vec![Agent {
                agent_id: "a1".to_owned(),
                agent_type: "generic".to_owned(),
                status: "online".to_owned(),
                capabilities: Vec::new(),
                extra: r#"{"name":"A","tasks_running":2}"#.to_owned(),
            }],
            load: Load { cpu_milli: 12_500, score_milli: 250, ..Load::default() },
            reliability_milli: 900,
            version: "1.0.0".to_owned(),
            location: None,
            external_url: None,
            instance: String::new(),
            metadata: r#"{"features":{}}"#.to_owned(),
            registered_at_ms: 1_700_000_000_000,
            status_since_ms: 1_700_000_000_000,
            tasks_completed: 3,
            tasks_failed: 1,
            revision: 1,
            agent_type: None,
            drain_until_ms: None,
            drained: 0,
            losing: None,
            failing: false,
        }
    }

    #[test]
    fn contract_2_3_a_node_and_its_agents() {
        let fresh = Freshness { heard_at_ms: 1_700_000_009_500, load: None };
        let node = node();
        let object = node_object(&node, fresh, 1_700_000_010_000);
        let text = serde_json::to_string(&object).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = json!({
            "node_id": "n1", "host": "10.0.0.7", "port": 5000, "node_type": "worker",
            "status": "active", "capabilities": ["a"], "agents_count": 1, "cpu_usage": 12.5,
            "memory_usage": 0.0, "gpu_usage": 0.0, "network_latency": 0.0, "load_score": 0.25,
            "last_heartbeat": 1_700_000_009.5, "version": "1.0.0", "location": null,
            "uptime": 10.0, "capacity": 4, "running": 1, "reliability_score": 0.9,
            "tasks_completed": 3, "tasks_failed": 1, "external_url": null, "instance": "",
            "registered_at": 1_700_000_000.0, "metadata": {"features": {}},
            "agents": [{
                "agent_id": "a1", "node_id": "n1", "agent_type": "generic", "status": "online",
                "capabilities": [], "tasks_running": 2, "tasks_completed": 0,
                "efficiency_score": 1.0, "specialized_models": [], "resource_usage": {},
                "last_activity": 1_700_000_009.5, "source": "web4ai", "name": "A"
            }]
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn fresher_figures_win_over_the_row() {
        let load = Load { score_milli: 990, ..Load::default() };
        let fresh = Freshness { heard_at_ms: 0, load: Some(load) };
        let node = node();
        let row = serde_json::to_value(node_row(&node, fresh, 0)).unwrap();
        assert_eq!(
            (row["load_score"].as_f64(), row["last_heartbeat"].is_null()),
            (Some(0.99), true)
        );
    }
}
