//! A run: one step of an orchestrator, as it is kept for the record (contract 3.2, 3.4).

use serde::{Deserialize, Serialize};

use super::{CampaignId, FleetStats, RunId, TaskId, TimeMs};

/// The longest result of a task that is kept with its run, in bytes.
pub const RUN_RESULT_MAX: usize = 2048;

/// How far a run has come. Each phase is one command, so a leader that dies in the middle leaves a
/// run that the next one goes on with. Stored: variants are only appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RunPhase {
    /// Trainings are to be decided.
    Retraining,
    /// Campaigns are to be decided.
    Campaigns,
    /// Experiments are to be decided.
    Experiments,
    /// It has ended.
    Ended,
    /// The task of an orchestrator that does one task in each run is under way.
    Working,
}

/// What a decision is about. Stored: variants are only appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DecisionKind {
    /// A model was not trained.
    RetrainingCheck,
    /// A training was launched.
    RetrainTriggered,
    /// There was no campaign to advance.
    Advancement,
    /// A campaign got its next iteration, or did not.
    Iteration,
    /// Experiments were launched, or not.
    Experiments,
    /// Something failed.
    Error,
    /// The orchestrator's task was launched.
    Task,
}

impl DecisionKind {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RetrainingCheck => "model_retraining_check",
            Self::RetrainTriggered => "model_retrain_triggered",
            Self::Advancement => "campaign_advancement",
            Self::Iteration => "campaign_iteration",
            Self::Experiments => "experiment_scheduling",
            Self::Error => "error",
            Self::Task => "scheduled_task",
        }
    }
}

/// The result of a decision. Stored: variants are only appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StepResult {
    /// Work was launched.
    Queued,
    /// There was nothing to do.
    Skipped,
    /// The campaign's turn comes in a later step.
    Deferred,
    /// A budget is used up.
    BudgetExceeded,
    /// Too much is under way.
    CapacityExceeded,
    /// The campaign has ended.
    Completed,
    /// The candidates were looked at, and none asks for more.
    Evaluated,
    /// It could not be done.
    Failed,
}

impl StepResult {
    /// How many there are.
    pub const COUNT: usize = 8;

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Skipped => "skipped",
            Self::Deferred => "deferred",
            Self::BudgetExceeded => "budget_exceeded",
            Self::CapacityExceeded => "capacity_exceeded",
            Self::Completed => "completed",
            Self::Evaluated => "evaluated",
            Self::Failed => "failed",
        }
    }
}

/// One decision of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What it is about.
    pub kind: DecisionKind,
    /// Why, for people.
    pub reason: String,
    /// What came of it.
    pub result: StepResult,
    /// Which campaign.
    pub campaign_id: Option<CampaignId>,
    /// Which iteration, counted from 1.
    pub iteration: Option<u32>,
    /// Which model.
    pub model: Option<String>,
    /// Simulations launched.
    pub simulations: u32,
    /// Experiments launched.
    pub experiments: u32,
}

impl Decision {
    /// A decision that launches nothing and names nothing.
    #[must_use]
    pub fn new(kind: DecisionKind, reason: String, result: StepResult) -> Self {
        Self {
            kind,
            reason,
            result,
            campaign_id: None,
            iteration: None,
            model: None,
            simulations: 0,
            experiments: 0,
        }
    }
}

/// One run. Its decisions are rows of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its number.
    pub run_id: RunId,
    /// The orchestrator's name.
    pub orchestrator: String,
    /// `manual`, `scheduler`, `agent`, or what the caller said.
    pub triggered_by: String,
    /// As JSON text.
    pub context: String,
    /// The slot it stands for; 0 for none.
    pub slot_ms: TimeMs,
    /// When it began.
    pub started_at_ms: TimeMs,
    /// When it ended; 0 before.
    pub completed_at_ms: TimeMs,
    /// How far it has come.
    pub phase: RunPhase,
    /// What it failed with; empty when it did not.
    pub error: String,
    /// Rows of decisions.
    pub pages: u32,
    /// Campaigns that got an iteration.
    pub advanced: Vec<CampaignId>,
    /// Launched by it.
    pub simulations: u32,
    /// Launched by it.
    pub experiments: u32,
    /// Models whose training it launched.
    pub retrained: Vec<String>,
    /// Its task, when its orchestrator does one in each run.
    pub task_id: Option<TaskId>,
    /// What came out of that, as JSON text of at most [`RUN_RESULT_MAX`] bytes; empty for none.
    pub result: String,
    /// When it began.
    pub stats_before: FleetStats,
    /// When it ended.
    pub stats_after: Option<FleetStats>,
}

/// Some decisions of a run, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionPage {
    /// At most as many as fit a small row.
    pub decisions: Vec<Decision>,
}
