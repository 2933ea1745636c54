//! A node: a machine that hosts agents and executes tasks (contract 2.2).

use serde::{Deserialize, Serialize};

use super::{NodeId, Requirements, TimeMs};

/// The capability of a node that does no work but that of types which are among its capabilities, as
/// `quorate worker` does. Whoever does not say so is given work of any type.
pub const LISTED_TYPES_ONLY: &str = "listed-types-only";

/// Where a node stands (contract 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeStatus {
    /// Heartbeats arrive; it gets work.
    Active,
    /// It reports trouble; it keeps its work and gets no more.
    Degraded,
    /// An operator took it out of service. Only an operator ends this: heartbeats do not.
    Maintenance,
    /// Its heartbeats stopped; its work was taken away.
    Offline,
    /// It says it cannot work.
    Error,
}

impl NodeStatus {
    /// All of them, in the order status summaries list them.
    pub const ALL: [Self; 5] =
        [Self::Active, Self::Degraded, Self::Maintenance, Self::Offline, Self::Error];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Maintenance => "maintenance",
            Self::Offline => "offline",
            Self::Error => "error",
        }
    }

    /// Reads a client's word, with the synonyms of contract 2.1; `None` for an unknown one.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "active" | "online" | "idle" | "busy" | "healthy" | "ready" => Some(Self::Active),
            "degraded" => Some(Self::Degraded),
            "maintenance" => Some(Self::Maintenance),
            "offline" | "inactive" => Some(Self::Offline),
            "error" => Some(Self::Error),
            _ => None,
        }
    }
}

/// How a node loses all it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loss {
    /// It fell silent, or an operator says so.
    Offline,
    /// Its program was started anew.
    Restarted,
    /// It was taken out.
    Removed,
}

/// Figures a node reports of itself, in integers so that no float enters the state machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Thousandths of a percent: 100 % is 100,000.
    pub cpu_milli: u32,
    /// Thousandths of a percent.
    pub memory_milli: u32,
    /// Thousandths of a percent.
    pub gpu_milli: u32,
    /// Thousandths of the 0..1 load score.
    pub score_milli: u32,
    /// Microseconds.
    pub latency_us: u32,
    /// Tasks it says it runs, ours or anybody's.
    pub active_tasks: u32,
}

/// A worker process on a node, as the node declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Unique within its node.
    pub agent_id: String,
    /// `generic` when the node says nothing.
    pub agent_type: String,
    /// The node's own word: `online`, `busy`, ...
    pub status: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Everything else the node said of it, as JSON text.
    pub extra: String,
}

/// A registered node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its own name for itself.
    pub node_id: NodeId,
    /// Where dispatches go, unless `external_url` says otherwise.
    pub host: String,
    /// Port beside `host`.
    pub port: u16,
    /// `worker`, `enhanced_node`, ...: decides the dispatch path that is tried first.
    pub node_type: String,
    /// Where it stands.
    pub status: NodeStatus,
    /// What it can do; sorted, unique.
    pub capabilities: Vec<String>,
    /// The most executions it takes at once.
    pub capacity: u32,
    /// Executions it holds now. Maintained by apply, never above `capacity`.
    pub live: u32,
    /// Declared count, which may differ from `agents.len()`.
    pub agents_count: u32,
    /// Declared agents.
    pub agents: Vec<Agent>,
    /// Last replicated figures; members hold fresher ones in memory.
    pub load: Load,
    /// Thousandths: 1000 is never failed; -100 per failure, +100 per success (contract 2.8).
    pub reliability_milli: u32,
    /// The node's program version.
    pub version: String,
    /// Where it stands in the world, if it said so.
    pub location: Option<String>,
    /// Base URL to use instead of `http://host:port`.
    pub external_url: Option<String>,
    /// Names the run of its program that registered last; empty when it cannot say.
    pub instance: String,
    /// Everything else it said at registration, as JSON text.
    pub metadata: String,
    /// First registration.
    pub registered_at_ms: TimeMs,
    /// Last change of `status`.
    pub status_since_ms: TimeMs,
    /// Finished executions that completed.
    pub tasks_completed: u64,
    /// Finished executions that failed.
    pub tasks_failed: u64,
    /// Log index of the last change: what a plan saw.
    pub revision: u64,
    /// For an agent of family A (contract 4.7): its kind. Its id stands behind [`AGENT_PREFIX`].
    pub agent_type: Option<String>,
    /// While it is drained: when what it still holds is taken away.
    pub drain_until_ms: Option<TimeMs>,
    /// How many attempts the end of its drain has taken from it so far.
    pub drained: u32,
    /// While it has yet to lose some of what it held: how it came to that. It gets nothing until the
    /// last of it is gone, and one that nobody gave a status meanwhile is offline until then.
    pub losing: Option<Loss>,
    /// An agent whose newest attempt to end failed by its fault (contract 4.7).
    pub failing: bool,
}

/// Ids of family A's agents begin so among the nodes: the two have name spaces of their own
/// (contract C22).
pub const AGENT_PREFIX: &str = "agent:";

impl Node {
    /// Whether it is an agent of family A.
    #[must_use]
    pub fn is_agent(&self) -> bool {
        self.agent_type.is_some()
    }

    /// Whether an agent counts as healthy (contract 4.7): in service, and its newest attempt did not
    /// fail.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.status == NodeStatus::Active && !self.failing
    }

    /// Whether it could do work of a type and these requirements at all, load aside. The scheduler and
    /// apply share this rule, so that they cannot disagree for ever.
    #[must_use]
    pub fn fits(&self, requirements: &Requirements, task_type: &str) -> bool {
        self.meets(requirements) && self.serves(task_type)
    }

    /// Whether it meets requirements, load and the type of the work aside.
    #[must_use]
    pub fn meets(&self, requirements: &Requirements) -> bool {
        self.agent_type == requirements.agent_type
            && requirements.capabilities.iter().all(|wanted| self.is_able(wanted))
            && !requirements.exclude_nodes.contains(&self.node_id)
    }

    /// Whether it does work of a type, as far as it says: see [`LISTED_TYPES_ONLY`].
    #[must_use]
    pub fn serves(&self, task_type: &str) -> bool {
        self.agent_type.is_some() || !self.is_able(LISTED_TYPES_ONLY) || self.is_able(task_type)
    }

    fn is_able(&self, capability: &str) -> bool {
        self.capabilities.binary_search_by(|own| own.as_str().cmp(capability)).is_ok()
    }

    /// Whether it may be given one more execution.
    #[must_use]
    pub fn takes_work(&self) -> bool {
        self.status == NodeStatus::Active && self.live < self.capacity && self.losing.is_none()
    }

    /// Where its HTTP API is.
    #[must_use]
    pub fn base_url(&self) -> String {
        match &self.external_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{}:{}", self.host, self.port),
        }
    }
}
