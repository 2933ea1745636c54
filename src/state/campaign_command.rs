//! What can be asked of campaigns and of the orchestrators that advance them. Stored in the log like
//! every command: variants are only appended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{
    Budget, CampaignId, CampaignPlan, Decision, IterationOverride, JobTemplate, Mode, Resource,
    RunId, RunPhase, StepSetting, StopRules, TimeMs, TimetablePatch,
};

/// What clients ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CampaignCommand {
    /// Makes an orchestrator with the defaults unless there is one of that name (contract 3.3).
    EnsureOrchestrator {
        /// At most [`super::NAME_MAX`] bytes.
        name: String,
    },
    /// Changes settings of an orchestrator.
    PatchOrchestrator {
        /// Which.
        name: String,
        /// What to change.
        patch: Box<OrchestratorPatch>,
    },
    /// Lets steps of an orchestrator run, or not.
    SetActive {
        /// Which.
        name: String,
        /// Whether they may.
        active: bool,
    },
    /// Runs one step, whatever the mode says but `PAUSED`.
    BeginRun {
        /// Of which orchestrator.
        name: String,
        /// For the record; at most [`super::NAME_MAX`] bytes.
        triggered_by: String,
        /// JSON text, at most [`super::CONTEXT_MAX`] bytes; empty for none.
        context: String,
    },
    /// Makes a campaign.
    CreateCampaign(Box<CampaignPlan>),
    /// Changes a campaign that has not begun, or rests.
    PatchCampaign {
        /// Which.
        campaign_id: CampaignId,
        /// What to change.
        patch: Box<CampaignPatch>,
    },
    /// Starts, pauses, resumes, cancels or stops a campaign.
    MoveCampaign {
        /// Which.
        campaign_id: CampaignId,
        /// How.
        how: CampaignMove,
    },
    /// Asks for iterations beside those that steps decide on.
    RequestIterations {
        /// Of which campaign.
        campaign_id: CampaignId,
        /// 1 to 100; what goes beyond the campaign's last is left out.
        count: u32,
        /// A campaign that has not begun is started.
        start: bool,
        /// What is different in them, and in those asked for before that have not begun.
        with: Option<Box<IterationOverride>>,
    },
    /// Makes or changes a structure.
    PutStructure {
        /// At most [`super::NAME_MAX`] bytes.
        structure_id: String,
        /// Whose.
        owner: String,
        /// JSON text, at most [`super::CONTEXT_MAX`] bytes.
        body: String,
        /// Whether it may be there already.
        when: PutWhen,
    },
    /// Takes a structure out.
    RemoveStructure {
        /// Which.
        structure_id: String,
    },
    /// Makes or changes a model that is trained anew when enough samples have come.
    PutModel {
        /// At most [`super::NAME_MAX`] bytes.
        name: String,
        /// Looked at by steps.
        active: bool,
        /// Labelled samples it was trained on, when that is known.
        trained_on: Option<u64>,
        /// How it is trained.
        job: Box<JobTemplate>,
    },
    /// Takes a model out.
    RemoveModel {
        /// Which.
        name: String,
    },
    /// Makes jobs for structures: simulations, or experiments.
    RequestJobs(Box<JobRequest>),
    /// Makes or changes an instrument.
    PutInstrument {
        /// At most [`super::NAME_MAX`] bytes.
        instrument_id: String,
        /// Whose.
        owner: String,
        /// JSON object text, at most [`super::CONTEXT_MAX`] bytes.
        body: String,
        /// How an experiment on it is done.
        job: Box<JobTemplate>,
        /// Whether it may be there already.
        when: PutWhen,
    },
    /// Takes an instrument out.
    RemoveInstrument {
        /// Which.
        instrument_id: String,
    },
    /// What an agent asks for, with its record: also when it is refused.
    Agent(Box<AgentOrder>),
    /// Takes out a campaign that has ended, as far as one command goes.
    RemoveCampaign {
        /// Which.
        campaign_id: CampaignId,
    },
}

/// Whether a row that is put may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PutWhen {
    /// It is made or replaced.
    Always,
    /// It is made, and refused if it is there.
    Absent,
    /// Its fields are changed one by one, and it must be there.
    Present,
}

/// What an agent asks for (contract 3.5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentOrder {
    /// Who asks, at most [`super::NAME_MAX`] bytes.
    pub agent_id: String,
    /// As it was sent, as JSON object text of at most [`super::CONTEXT_MAX`] bytes.
    pub payload: String,
    /// What is to be done.
    pub action: AgentAction,
}

/// What is to be done for an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentAction {
    /// Makes a campaign.
    CreateCampaign(CampaignPlan),
    /// Begins iterations of a campaign, and the campaign if need be.
    AdvanceCampaign {
        /// Which.
        campaign_id: CampaignId,
        /// How many.
        count: u32,
        /// What is different in them.
        with: Option<Box<IterationOverride>>,
    },
    /// Makes jobs for structures.
    RequestJobs(JobRequest),
    /// Pulls the kill switch of a campaign.
    StopCampaign {
        /// Which.
        campaign_id: CampaignId,
    },
}

/// Settings of an orchestrator that are to change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrchestratorPatch {
    /// Of the step.
    pub settings: Vec<StepSetting>,
    /// When steps run.
    pub mode: Option<Mode>,
    /// For mode `SCHEDULED`.
    pub timetable: Option<TimetablePatch>,
    /// For mode `CONTINUOUS`.
    pub pause_ms: Option<u64>,
    /// For people.
    pub description: Option<String>,
    /// What each of its runs does; `Some(None)` lets it advance campaigns again.
    pub task: Option<Option<Box<JobTemplate>>>,
    /// Limits over all its campaigns; `None` takes one away. Only `limit` and `soft` are read.
    pub budgets: BTreeMap<Resource, Option<Budget>>,
    /// What one attempt at a job is promised, in millionths of a unit; `None` takes one away.
    pub per_job: BTreeMap<Resource, Option<u64>>,
}

/// Parts of a campaign that are to change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignPatch {
    /// For people.
    pub name: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// As JSON text.
    pub metadata: Option<String>,
    /// The whole configuration anew; its owner, orchestrator and texts are not read.
    pub plan: Option<CampaignPlan>,
    /// The [`crate::model::Campaign::plan_index`] that `plan` was made from.
    pub seen_plan: u64,
    /// When it has found enough.
    pub stop: Option<StopRules>,
}

/// How a campaign moves (contract 3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CampaignMove {
    /// It begins.
    Start,
    /// It rests; jobs under way go on.
    Pause,
    /// It goes on.
    Resume,
    /// It ends, and so do its jobs.
    Cancel,
    /// The kill switch (contract 3.5): nothing is launched any more, jobs under way are cancelled.
    /// Asking again changes nothing.
    Trip,
}

/// Jobs that a client asks for (contract 3.5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRequest {
    /// Experiments, otherwise simulations.
    pub experiments: bool,
    /// 1 to [`super::JOBS_PER_REQUEST_MAX`]. Those that are not there are registered, unless
    /// `compat.strict_structures` is on.
    pub structure_ids: Vec<String>,
    /// Whose they are.
    pub owner: String,
    /// Which instrument; empty for none.
    pub instrument: String,
    /// The task of each; the structure's id is put into its input.
    pub job: JobTemplate,
    /// How soon, 1 to 10.
    pub priority: u8,
    /// The orchestrator whose budgets are drawn on; empty for the usual one.
    pub orchestrator: String,
    /// What all of them may use together. Only `limit` and `soft` are read.
    pub budgets: BTreeMap<Resource, Budget>,
}

/// What the leader proposes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepDuty {
    /// Slots of one schedule, in order and without a gap.
    DecideSlots {
        /// Which schedule.
        schedule: String,
        /// How far its ledger went when the plan was made.
        seen_decided_ms: TimeMs,
        /// At most [`super::ROWS_PER_COMMAND_MAX`].
        slots: Vec<SlotPlan>,
    },
    /// A schedule that cannot go on, or can again.
    JudgeSchedule {
        /// Which.
        schedule: String,
        /// Why not; empty when it can.
        degraded: String,
    },
    /// One phase of a run.
    AdvanceRun {
        /// Which.
        run_id: RunId,
        /// Where it stood when the plan was made.
        seen: RunPhase,
        /// In the order of contract 3.4; at most [`super::ACTIONS_MAX`].
        actions: Vec<StepAction>,
    },
    /// A run that cannot be finished.
    FailRun {
        /// Which.
        run_id: RunId,
        /// Why.
        error: String,
    },
    /// Iterations that clients asked for. Each is judged on its own.
    LaunchIterations {
        /// At most [`super::ACTIONS_MAX`].
        launches: Vec<IterationPlan>,
    },
    /// Slots of the oldest timetable of a schedule that has ended, in order and without a gap.
    CloseLedger {
        /// Which schedule.
        schedule: String,
        /// How far its ledger went when the plan was made.
        seen_decided_ms: TimeMs,
        /// Which timetable: the [`crate::model::Closing::until_ms`] of the oldest one.
        until_ms: TimeMs,
        /// At most [`super::ROWS_PER_COMMAND_MAX`].
        nominal_ms: Vec<TimeMs>,
        /// Nothing is due of it behind these.
        done: bool,
    },
    /// Campaigns that have ended and are more than are kept: a bounded number of their rows goes.
    ForgetCampaigns,
    /// Campaigns whose iterations that were asked for cannot begin under their limits. Each is judged on
    /// its own.
    NoteWaiting {
        /// At most [`super::ACTIONS_MAX`].
        campaigns: Vec<CampaignId>,
    },
}

/// One slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotPlan {
    /// When it was due.
    pub nominal_ms: TimeMs,
    /// What shall become of it.
    pub choice: SlotChoice,
}

/// What shall become of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotChoice {
    /// Run in its time.
    Run,
    /// Run late.
    CatchUp,
    /// The run before it is under way.
    SkipOverlap,
    /// The orchestrator is not active.
    SkipInactive,
    /// It passed while nobody could decide it.
    Miss,
}

/// One decision of a step with what it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepAction {
    /// For the record. What apply finds different it corrects.
    pub decision: Decision,
    /// What it does.
    pub effect: StepEffect,
}

/// What a decision does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepEffect {
    /// Nothing.
    Nothing,
    /// Begins an iteration.
    Iterate(IterationPlan),
    /// Ends a campaign.
    Complete(CampaignId),
    /// Launches experiments for candidates.
    Measure {
        /// Of which campaign.
        campaign_id: CampaignId,
        /// Iteration and candidate.
        candidates: Vec<(u32, u32)>,
    },
    /// Launches a training.
    Train {
        /// Of which model.
        model: String,
    },
    /// Launches the orchestrator's task.
    Work,
}

/// An iteration to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IterationPlan {
    /// Of which campaign.
    pub campaign_id: CampaignId,
    /// Its revision when the plan was made.
    pub seen_revision: u64,
    /// What every candidate's job is told beside its own place, as JSON object text.
    pub context: String,
    /// How candidates are made.
    pub strategy: String,
    /// How many candidates.
    pub candidates: u32,
}

/// What the result of a job says to its campaign.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct JobReading {
    /// Its score, in thousand-millionths.
    pub(super) score: Option<i64>,
    /// What was tried.
    pub(super) parameters: String,
    /// What was used of metered resources, in millionths of a unit.
    pub(super) usage: BTreeMap<Resource, u64>,
    /// The whole of it, when it is short and its job is what a run does.
    pub(super) text: String,
}
