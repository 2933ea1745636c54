//! A campaign: a search in iterations, each of which tries candidates by jobs of the fleet
//! (contract 3.2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Budget, Id, Requirements, Resource, TaskId, TimeMs};

/// Marks the identifier of a campaign.
#[derive(Debug)]
pub enum CampaignKind {}

/// Names a campaign.
pub type CampaignId = Id<CampaignKind>;

/// The most candidates of one iteration.
pub const CANDIDATES_MAX: u32 = 100;
/// The most iterations of a campaign.
pub const ITERATIONS_MAX: u32 = 1000;

/// A score in thousand-millionths. Read from a job's result, and compared as a whole number.
pub type Score = i64;

/// Where a campaign stands (contract 3.2). Stored: variants are only appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CampaignStatus {
    /// It has not begun.
    Created,
    /// Steps advance it.
    Running,
    /// It rests.
    Paused,
    /// It did what it was to do.
    Completed,
    /// It cannot go on.
    Failed,
    /// A client ended it.
    Cancelled,
}

impl CampaignStatus {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Created,
        Self::Running,
        Self::Paused,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Reads a client's word, in any case.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str().eq_ignore_ascii_case(word))
    }

    /// Whether nothing happens to it any more.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The legal moves.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Created => matches!(next, Self::Running | Self::Cancelled | Self::Failed),
            Self::Running => !matches!(next, Self::Created | Self::Running),
            Self::Paused => matches!(next, Self::Running | Self::Cancelled | Self::Failed),
            Self::Completed | Self::Failed | Self::Cancelled => false,
        }
    }
}

/// The task that tries one candidate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTemplate {
    /// What to do.
    pub task_type: String,
    /// JSON object text that every candidate's input begins with; empty for none.
    pub input: String,
    /// What the node must have.
    pub requirements: Requirements,
    /// Longest time of one attempt.
    pub timeout_ms: u64,
    /// Attempts after the first.
    pub max_retries: u32,
    /// What one attempt may use of metered resources, in millionths of a unit.
    pub per_job: BTreeMap<Resource, u64>,
}

/// When a campaign has found enough.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRules {
    /// Most iterations, 1 to [`ITERATIONS_MAX`].
    pub max_iterations: u32,
    /// Iterations in a row without a better score.
    pub patience: Option<u32>,
    /// A best score that improves by less than this ends it.
    pub convergence: Option<Score>,
    /// A best score that reaches this ends it.
    pub target: Option<Score>,
}

/// What the creator of a campaign asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignPlan {
    /// Whose it is.
    pub owner: String,
    /// For people.
    pub name: String,
    /// For people.
    pub description: String,
    /// The orchestrator whose steps advance it.
    pub orchestrator: String,
    /// A search of any kind, by its own template; otherwise one for materials.
    pub generic: bool,
    /// The configuration as the client sent it, as JSON text.
    pub config: String,
    /// Whatever else was sent along, as JSON text; empty for none.
    pub metadata: String,
    /// Candidates of one iteration, 1 to [`CANDIDATES_MAX`].
    pub candidates: u32,
    /// How candidates are made, for the record and for whoever simulates them.
    pub strategy: String,
    /// Lower scores are better.
    pub minimize: bool,
    /// Which field of a result is the score.
    pub score_field: String,
    /// When it has found enough.
    pub stop: StopRules,
    /// The task of a candidate.
    pub job: JobTemplate,
    /// Own limits; what is not named has the orchestrator's.
    pub budgets: BTreeMap<Resource, Budget>,
    /// The score from which on a candidate is worth an experiment, where that is not its orchestrator's.
    pub measured_from: Option<Score>,
}

#[cfg(test)]
impl CampaignPlan {
    /// One for tests: of so many candidates and iterations, whose jobs are plain tasks.
    pub(crate) fn plain(candidates: u32, max_iterations: u32) -> Self {
        Self {
            name: "search".to_owned(),
            candidates,
            strategy: "random".to_owned(),
            score_field: "score".to_owned(),
            stop: StopRules { max_iterations, ..StopRules::default() },
            job: JobTemplate {
                task_type: "simulate".to_owned(),
                timeout_ms: 1000,
                ..JobTemplate::default()
            },
            ..Self::default()
        }
    }
}

/// What a client wants different in the iterations it asks for (contract 3.5 `override_config`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IterationOverride {
    /// Candidates of one iteration.
    pub candidates: Option<u32>,
    /// How candidates are made.
    pub strategy: Option<String>,
    /// All of it as it was sent, as JSON object text: handed to the jobs.
    pub config: String,
}

/// A campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    /// Derived from the request that made it.
    pub campaign_id: CampaignId,
    /// What was asked for.
    pub plan: CampaignPlan,
    /// Where it stands.
    pub status: CampaignStatus,
    /// Iterations begun.
    pub iterations: u32,
    /// Whether the newest of them is under way.
    pub iterating: bool,
    /// Iterations that a client asked for and that have not begun.
    pub requested: u32,
    /// What is different in those.
    pub requested_with: Option<Box<IterationOverride>>,
    /// The best score so far.
    pub best_score: Option<Score>,
    /// Who has it.
    pub best_structure: Option<String>,
    /// The iteration that brought it, from 0.
    pub best_iteration: u32,
    /// Candidates made so far.
    pub structures: u64,
    /// Candidates with a score.
    pub evaluated: u64,
    /// Its limits.
    pub budgets: BTreeMap<Resource, Budget>,
    /// Someone pulled the kill switch: nothing is launched any more.
    pub tripped: bool,
    /// Why it ended or rests, or why the iterations that were asked for wait, for people; empty for none.
    pub reason: String,
    /// When its newest iteration began, or it was started; 0 before.
    pub advanced_at_ms: TimeMs,
    /// When it was made.
    pub created_at_ms: TimeMs,
    /// When anything of it last changed.
    pub updated_at_ms: TimeMs,
    /// When it first ran; 0 before.
    pub started_at_ms: TimeMs,
    /// When it ended; 0 before.
    pub completed_at_ms: TimeMs,
    /// Log index of the last change: what a plan saw.
    pub revision: u64,
    /// Log index of the last change of `plan`: what a patch of it saw.
    pub plan_index: u64,
}

impl Campaign {
    /// How many candidates the iterations that were asked for are to have.
    #[must_use]
    pub fn requested_candidates(&self) -> u32 {
        let with = self.requested_with.as_deref();
        with.and_then(|with| with.candidates).unwrap_or(self.plan.candidates)
    }
}

/// Where a candidate stands. Stored: variants are only appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CandidateState {
    /// Its job has not ended.
    Open,
    /// It has a score.
    Scored(Score),
    /// Its job gave a result without a score.
    Unscored,
    /// Its job gave no result.
    Failed,
}

/// One candidate of an iteration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// What came of it.
    pub state: CandidateState,
    /// An experiment was launched for it.
    pub experiment: bool,
}

/// What was tried, as the result of a candidate's job says: JSON text of bounded length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateNote {
    /// JSON text.
    pub parameters: String,
}

/// A structure that was registered, or that a request named for the first time (contract 3.6).
/// Those of campaigns' candidates are derived and have no row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Structure {
    /// Chosen by the client, or derived from its request.
    pub structure_id: String,
    /// Whose.
    pub owner: String,
    /// What was sent, as JSON text; empty for one that was only named.
    pub body: String,
    /// Some job of it gave a result.
    pub labeled: bool,
    /// When it was made.
    pub created_at_ms: TimeMs,
    /// When anything of it last changed.
    pub updated_at_ms: TimeMs,
}

/// A model that is trained anew when enough samples have come (contract 3.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Unique.
    pub name: String,
    /// Looked at by steps.
    pub active: bool,
    /// Labelled samples when it was last trained.
    pub trained_on: u64,
    /// How it is trained.
    pub job: JobTemplate,
    /// The training under way, if any.
    pub training: Option<TaskId>,
    /// When it was made.
    pub created_at_ms: TimeMs,
    /// When anything of it last changed.
    pub updated_at_ms: TimeMs,
}

/// Something that experiments are done with (contract 3.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instrument {
    /// Chosen by the client, or derived from its request.
    pub instrument_id: String,
    /// Whose.
    pub owner: String,
    /// What was sent, as JSON object text.
    pub body: String,
    /// How an experiment on it is done.
    pub job: JobTemplate,
    /// When it was made.
    pub created_at_ms: TimeMs,
    /// When anything of it last changed.
    pub updated_at_ms: TimeMs,
}

/// A candidate that was better than all before it in its campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovery {
    /// Of which campaign.
    pub campaign_id: CampaignId,
    /// In which iteration, from 0.
    pub iteration: u32,
    /// Which of its candidates.
    pub candidate: u32,
    /// What it scored.
    pub score: Score,
    /// When its iteration ended.
    pub at_ms: TimeMs,
}

/// A line of a campaign's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignLine {
    /// When.
    pub at_ms: TimeMs,
    /// In one word.
    pub event: String,
    /// For people.
    pub text: String,
}

/// One iteration of a campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Iteration {
    /// Whose.
    pub campaign_id: CampaignId,
    /// From 0.
    pub index: u32,
    /// How its candidates were made.
    pub strategy: String,
    /// In order: candidate *n*'s structure and job have derived ids.
    pub candidates: Vec<Candidate>,
    /// Candidates whose jobs have not ended.
    pub open: u32,
    /// The best of its scores.
    pub best_score: Option<Score>,
    /// Which candidate has it.
    pub best_candidate: u32,
    /// When it began.
    pub created_at_ms: TimeMs,
    /// When it ended; 0 before.
    pub completed_at_ms: TimeMs,
}

/// What kind of work a job is. Stored: variants are only appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum JobKind {
    /// Tries one candidate.
    Simulation,
    /// Measures one structure with an instrument.
    Experiment,
    /// Trains a model.
    Training,
    /// Is what a run of its orchestrator does.
    Scheduled,
}

impl JobKind {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Simulation => "simulation",
            Self::Experiment => "experiment",
            Self::Training => "training",
            Self::Scheduled => "scheduled",
        }
    }

    /// The budget that counts jobs of this kind.
    #[must_use]
    pub fn counted(self) -> Option<Resource> {
        match self {
            Self::Simulation => Some(Resource::Simulations),
            Self::Experiment => Some(Resource::Experiments),
            Self::Training | Self::Scheduled => None,
        }
    }
}

/// What a task is done for. Kept beside the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What kind of work.
    pub kind: JobKind,
    /// For which campaign, and which iteration and candidate of it.
    pub candidate: Option<(CampaignId, u32, u32)>,
    /// Which structure, which model, or which run.
    pub subject: String,
    /// Which instrument; empty for none.
    pub instrument: String,
    /// Whose.
    pub owner: String,
    /// The orchestrator whose budgets it draws on.
    pub orchestrator: String,
    /// The agent command that asked for it; 0 for none.
    pub command: u64,
    /// What is promised to it, in millionths of a unit.
    pub reserved: BTreeMap<Resource, u64>,
    /// The last attempt that is settled although another one may follow: it failed, or was taken back
    /// after its holder had taken it up.
    pub paid: u32,
    /// It ended because its last attempt took too long.
    pub timed_out: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_campaigns_stay_ended() {
        for from in CampaignStatus::ALL {
            for to in CampaignStatus::ALL {
                assert!(!(from.is_terminal() && from.may_become(to)), "{from:?} -> {to:?}");
            }
            assert!(!from.may_become(CampaignStatus::Created));
        }
        assert!(CampaignStatus::Paused.may_become(CampaignStatus::Running));
        assert!(!CampaignStatus::Created.may_become(CampaignStatus::Paused));
    }
}
