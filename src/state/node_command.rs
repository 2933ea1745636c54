//! What nodes say of themselves, and what the leader saw of them. Stored in the log like every
//! command.

use serde::{Deserialize, Serialize};

use crate::model::{Agent, Load, NodeId, NodeStatus};

/// What a node says of itself when it registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Its own name for itself.
    pub node_id: NodeId,
    /// Where dispatches go.
    pub host: String,
    /// Port beside `host`.
    pub port: u16,
    /// `worker` when it says nothing.
    pub node_type: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// The most executions it takes at once.
    pub capacity: u32,
    /// Declared count.
    pub agents_count: u32,
    /// Declared agents.
    pub agents: Vec<Agent>,
    /// Figures it declared.
    pub load: Load,
    /// Its program version.
    pub version: String,
    /// Where it stands in the world.
    pub location: Option<String>,
    /// Base URL to use instead of `http://host:port`.
    pub external_url: Option<String>,
    /// Names one run of the node's program; empty when it cannot say. A new one means that
    /// whatever the old run held is lost.
    pub instance: String,
    /// Everything else, as JSON text.
    pub metadata: String,
    /// For an agent of family A: its kind.
    pub agent_type: Option<String>,
}

/// What the liveness watch saw of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeObservation {
    /// Which node.
    pub node_id: NodeId,
    /// The status the plan saw; the observation is dropped when it changed since.
    pub seen: NodeStatus,
    /// What it shall be.
    pub status: NodeStatus,
    /// Fresh figures, when they moved enough.
    pub load: Option<Load>,
}
