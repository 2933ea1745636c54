//! Facts that apply emits. They are derived, never stored: the log replays them.

use serde::Serialize;

use super::bot_command::BotFact;
use crate::model::{
    AlertState, CampaignId, DrillKind, DrillState, Epoch, NodeId, NodeStatus, ScalingAction,
    Severity, TaskId, TaskStatus, TimeMs,
};

/// A fact, in the order of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Log index of the entry it came from.
    pub index: u64,
    /// Its place among the events of that entry.
    pub ordinal: u32,
    /// The entry's time.
    pub at_ms: TimeMs,
    /// What happened.
    pub fact: Fact,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Fact {
    /// A leader opened its reign.
    EpochOpened {
        /// The reign.
        #[serde(skip)]
        epoch: Epoch,
        /// Its term.
        term: u64,
        /// Who leads.
        leader: u64,
    },
    /// A node registered.
    NodeRegistered {
        /// Which.
        node_id: NodeId,
        /// For the first time.
        new: bool,
    },
    /// A node's status changed.
    NodeStatusChanged {
        /// Which.
        node_id: NodeId,
        /// Before.
        #[serde(serialize_with = "node_status")]
        old: NodeStatus,
        /// Now.
        #[serde(serialize_with = "node_status")]
        new: NodeStatus,
    },
    /// A node was taken out.
    NodeRemoved {
        /// Which.
        node_id: NodeId,
    },
    /// A task was accepted.
    TaskSubmitted {
        /// Which.
        task_id: TaskId,
    },
    /// A task was placed on a node.
    TaskAssigned {
        /// Which.
        task_id: TaskId,
        /// Who got it.
        node_id: NodeId,
        /// Which try.
        attempt: u32,
    },
    /// A node acknowledged an attempt.
    TaskStarted {
        /// Which.
        task_id: TaskId,
        /// Which try.
        attempt: u32,
    },
    /// An attempt ended without a result and another will be made.
    TaskRetried {
        /// Which.
        task_id: TaskId,
        /// The try that ended.
        attempt: u32,
        /// Not before this time.
        not_before_ms: TimeMs,
        /// Who lost it without a word, and may still be at it.
        #[serde(skip_serializing_if = "Option::is_none")]
        taken_from: Option<NodeId>,
    },
    /// A task is back in the queue: its back-off ended, its node was busy, or it was taken back.
    TaskQueued {
        /// Which.
        task_id: TaskId,
        /// Its newest try.
        attempt: u32,
        /// Whom that was taken from, who may still be at it.
        #[serde(skip_serializing_if = "Option::is_none")]
        taken_from: Option<NodeId>,
    },
    /// A task ended.
    TaskEnded {
        /// Which.
        task_id: TaskId,
        /// How.
        #[serde(serialize_with = "task_status")]
        status: TaskStatus,
        /// Who held it at the end.
        node_id: Option<NodeId>,
        /// Its newest try.
        attempt: u32,
        /// Who held it without having ended it, and may still be at it.
        #[serde(skip_serializing_if = "Option::is_none")]
        taken_from: Option<NodeId>,
    },
    /// Tasks that ended long ago were deleted.
    TasksRetired {
        /// How many.
        count: u32,
    },
    /// The configuration changed.
    ConfigChanged {
        /// Its new revision.
        revision: u64,
    },
    /// A member was added, moved or left.
    MemberChanged {
        /// Which.
        member_id: u64,
    },
    /// A drill began.
    DrillBegun {
        /// Which.
        drill_id: u64,
        /// What is rehearsed.
        #[serde(serialize_with = "drill_kind")]
        kind: DrillKind,
    },
    /// A drill ended.
    DrillEnded {
        /// Which.
        drill_id: u64,
        /// How.
        #[serde(serialize_with = "drill_state")]
        state: DrillState,
    },
    /// A task begins to wait for its first steps: it is done by the tasks named `id#step`.
    StepsOpened {
        /// Whose.
        task_id: TaskId,
        /// Their own tasks.
        steps: Vec<TaskId>,
    },
    /// A pipeline was defined or taken back.
    PipelineChanged {
        /// Which.
        task_type: String,
    },
    /// A drained node holds nothing any more.
    NodeDrained {
        /// Which.
        node_id: NodeId,
        /// How many attempts were taken away from it when its time was over.
        withdrawn: u32,
    },
    /// There is something to post.
    DeliveryQueued {
        /// Which.
        delivery_id: u64,
    },
    /// A delivery was taken or given up.
    DeliveryEnded {
        /// Which.
        delivery_id: u64,
        /// Taken.
        delivered: bool,
    },
    /// An alert was raised, grew worse or better, was acknowledged, or is over.
    AlertChanged {
        /// Which.
        alert_id: String,
        /// What it is.
        #[serde(serialize_with = "alert_state")]
        state: AlertState,
        /// How bad it is.
        #[serde(serialize_with = "alert_severity")]
        severity: Severity,
    },
    /// The autoscaler decided.
    ScalingDecided {
        /// Which decision.
        number: u64,
        /// What.
        #[serde(serialize_with = "scaling_action")]
        action: ScalingAction,
        /// Nodes there shall be.
        target_nodes: u32,
    },
    /// Something about orchestrators and campaigns.
    #[serde(untagged)]
    Campaign(CampaignFact),
    /// Something about bots, swarms and workflows.
    #[serde(untagged)]
    Bot(BotFact),
}

/// What happened to orchestrators and campaigns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CampaignFact {
    /// An orchestrator was made or changed.
    OrchestratorChanged {
        /// Which.
        name: String,
    },
    /// A slot of a schedule got its decision.
    SlotDecided {
        /// Whose.
        schedule: String,
        /// When it was due.
        nominal_ms: TimeMs,
        /// What became of it.
        decision: &'static str,
    },
    /// A step began.
    RunBegun {
        /// Its number.
        run_id: u64,
        /// Whose.
        orchestrator: String,
    },
    /// A step ended.
    RunEnded {
        /// Its number.
        run_id: u64,
        /// Whose.
        orchestrator: String,
        /// Without an error.
        success: bool,
    },
    /// A campaign was made, changed or moved.
    CampaignChanged {
        /// Which.
        campaign_id: CampaignId,
        /// Where it stands.
        status: &'static str,
    },
    /// A campaign got its next iteration.
    IterationBegun {
        /// Which campaign.
        campaign_id: CampaignId,
        /// From 0.
        iteration: u32,
        /// Jobs launched.
        simulations: u32,
    },
    /// All jobs of an iteration have ended.
    IterationEnded {
        /// Which campaign.
        campaign_id: CampaignId,
        /// From 0.
        iteration: u32,
        /// It brought a better score.
        improved: bool,
    },
    /// Little is left of a budget.
    BudgetWarned {
        /// A campaign or an orchestrator.
        owner: String,
        /// What runs out.
        resource: &'static str,
    },
    /// A client asked for jobs.
    JobsRequested {
        /// Of which kind.
        kind: &'static str,
        /// How many.
        count: u32,
    },
    /// An agent asked for something.
    AgentCommand {
        /// Counts them.
        number: u64,
        /// What for.
        kind: &'static str,
        /// It was done.
        success: bool,
    },
}

impl CampaignFact {
    /// Its word on the wire.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::OrchestratorChanged { .. } => "orchestrator_changed",
            Self::SlotDecided { .. } => "slot_decided",
            Self::RunBegun { .. } => "run_begun",
            Self::RunEnded { .. } => "run_ended",
            Self::CampaignChanged { .. } => "campaign_changed",
            Self::IterationBegun { .. } => "iteration_begun",
            Self::IterationEnded { .. } => "iteration_ended",
            Self::BudgetWarned { .. } => "budget_warned",
            Self::JobsRequested { .. } => "jobs_requested",
            Self::AgentCommand { .. } => "agent_command",
        }
    }
}

fn alert_state<S: serde::Serializer>(state: &AlertState, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(state.as_str())
}

fn alert_severity<S: serde::Serializer>(severity: &Severity, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(severity.as_str())
}

fn scaling_action<S: serde::Serializer>(action: &ScalingAction, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(action.as_str())
}

fn drill_kind<S: serde::Serializer>(kind: &DrillKind, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(kind.as_str())
}

fn drill_state<S: serde::Serializer>(state: &DrillState, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(state.as_str())
}

fn node_status<S: serde::Serializer>(status: &NodeStatus, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(status.as_str())
}

fn task_status<S: serde::Serializer>(status: &TaskStatus, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(status.as_str())
}
