//! A decision of the autoscaler (contract 2.10).

use serde::{Deserialize, Serialize};

use super::{NodeId, TimeMs};

/// What shall happen to the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScalingAction {
    /// More nodes.
    Up,
    /// Fewer nodes.
    Down,
}

impl ScalingAction {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "scale_up",
            Self::Down => "scale_down",
        }
    }
}

/// One decision, as it was made and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScalingEvent {
    /// Numbers decisions from 1.
    pub number: u64,
    /// When.
    pub at_ms: TimeMs,
    /// What.
    pub action: ScalingAction,
    /// By which rule.
    pub rule: String,
    /// Nodes there were.
    pub current_nodes: u32,
    /// Nodes there shall be.
    pub target_nodes: u32,
    /// The figure, in thousandths.
    pub metric_milli: u64,
    /// What it was compared with, in thousandths.
    pub threshold_milli: u64,
    /// For people.
    pub reason: String,
    /// `manual` or `command`.
    pub provider: String,
    /// What the operator's program said; `None` while it has not, or when there is none.
    pub outcome: Option<String>,
    /// Of fewer nodes: those to take out, the least loaded first.
    pub nodes: Vec<NodeId>,
}
