//! Everything the leader's work reaches outside the cluster by.

use std::path::PathBuf;
use std::sync::Arc;

use super::agents::{AgentCaller, NoAgents};
use super::courier::{IdOnly, TaskRenderer};
use super::http::NodeCaller;
use crate::model::Services;

/// See the module's description. Cloning shares it.
#[derive(Clone)]
pub struct Outward {
    /// Calls nodes, and posts deliveries.
    pub caller: Arc<dyn NodeCaller>,
    /// Calls agents of family A.
    pub agents: Arc<dyn AgentCaller>,
    /// Gives callbacks what they are told of a task.
    pub renderer: Arc<dyn TaskRenderer>,
    /// The operator's program for scaling; from this member's own configuration, because whoever may
    /// change the replicated one must not thereby run programs.
    pub scaling_program: Option<PathBuf>,
    /// Where tasks of workflows go; from the same place.
    pub services: Arc<Services>,
}

impl Outward {
    /// Nodes alone; callbacks are told the id of their task.
    #[must_use]
    pub fn new(caller: Arc<dyn NodeCaller>) -> Self {
        Self {
            caller,
            agents: Arc::new(NoAgents),
            renderer: Arc::new(IdOnly),
            scaling_program: None,
            services: Arc::default(),
        }
    }
}
