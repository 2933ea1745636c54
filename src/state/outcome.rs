//! What the state machine answers. Outcomes and rejections are part of the replicated record: a
//! retry under the same request id gets the first answer back, so they stay small.

use serde::{Deserialize, Serialize};

use super::bot_command::{BotOutcome, BotRejection};
use crate::model::{
    AGENT_PREFIX, CampaignId, DrillId, Epoch, MemberId, NodeStatus, Resource, RunId, TaskId,
    TaskStatus, TimeMs,
};

/// The answer to one command.
pub type Reply = Result<Outcome, Rejection>;

/// A command that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done, with nothing to tell.
    Done,
    /// The node is registered; `new` when it was not known before.
    NodeRegistered {
        /// First registration.
        new: bool,
    },
    /// The node's status was set.
    NodeStatusSet {
        /// What it was.
        old: NodeStatus,
        /// What it is.
        new: NodeStatus,
    },
    /// One task was accepted under this id.
    TaskSubmitted {
        /// Given or derived.
        task_id: TaskId,
        /// A task of that id was there already; nothing was created.
        duplicate: bool,
        /// What the pipeline of its type said then of how long it takes, if there was one.
        estimate_ms: Option<u64>,
    },
    /// Many tasks were accepted.
    TasksSubmitted {
        /// New ones.
        created: u32,
        /// Ids that were there already.
        duplicates: u32,
    },
    /// A batch in which each row was judged on its own.
    Judged {
        /// Rows that took effect.
        accepted: u32,
        /// Rows that came too late or named something that moved on.
        stale: u32,
    },
    /// A report of the end of one attempt.
    TaskReported {
        /// What the task is now.
        status: TaskStatus,
        /// The newest attempt.
        attempt: u32,
        /// The report changed nothing: the task had ended, or the attempt was an old one.
        stale: bool,
    },
    /// The task's state after a cancel.
    TaskCancelled {
        /// What it was before.
        was: TaskStatus,
    },
    /// The configuration changed.
    ConfigPatched {
        /// Its new revision.
        revision: u64,
    },
    /// The number a joining member is to use.
    MemberAllocated {
        /// Never used before.
        member_id: MemberId,
        /// The number its predecessor of the same name had, if any.
        replaces: Option<MemberId>,
    },
    /// The drill may begin.
    DrillBegun {
        /// Its number.
        drill_id: DrillId,
    },
    /// A step of an orchestrator has begun.
    RunBegun {
        /// Its number.
        run_id: RunId,
    },
    /// A campaign is there.
    CampaignCreated {
        /// Derived from the request.
        campaign_id: CampaignId,
    },
    /// Iterations will be begun.
    IterationsQueued {
        /// How many.
        count: u32,
    },
    /// Jobs were made.
    JobsCreated {
        /// How many.
        count: u32,
    },
    /// What an agent asked for is on record.
    AgentCommand {
        /// Counts them.
        number: u64,
        /// What came of it; a refusal is on record, too.
        reply: Box<Reply>,
    },
    /// An account is there.
    AccountCreated {
        /// Derived from the request.
        user_id: String,
    },
    /// An answer about bots, swarms or workflows.
    Bot(BotOutcome),
    /// The one dead letter that was named was left alone.
    LeftAlone {
        /// What it was then; `None` when there was no such task.
        status: Option<TaskStatus>,
    },
    /// Scheduling is paused, or goes on.
    PauseSet {
        /// Of the configuration that says so.
        revision: u64,
        /// It was not so before.
        toggled: bool,
        /// Since when it is paused; 0 when it is not.
        since_ms: TimeMs,
    },
    /// As an answer to [`super::Command::Asked`] is remembered. Nobody is answered this.
    Asked {
        /// A hash of the request.
        print: u64,
        /// What it was answered.
        reply: Box<Reply>,
    },
}

/// A deterministic refusal: every member refuses alike, and a retry gets the same refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// A duty of an older reign; a newer leader has taken over.
    #[error("epoch {offered} is not the open epoch {open}")]
    StaleEpoch {
        /// What the command carried.
        offered: Epoch,
        /// What is open.
        open: Epoch,
    },
    /// No such node.
    #[error("Node not found")]
    NodeNotFound,
    /// The fleet is full (`network.max_nodes`).
    #[error("the fleet holds its {max} nodes already")]
    TooManyNodes {
        /// The configured bound.
        max: u64,
    },
    /// No such task.
    #[error("Task not found")]
    TaskNotFound,
    /// The task ended before; its end stands.
    #[error("the task is already {}", .status.as_str())]
    TaskEnded {
        /// How it ended.
        status: TaskStatus,
    },
    /// Too many tasks are waiting (`tasks.max_pending_tasks`).
    #[error("the queue holds its {max} tasks already")]
    QueueFull {
        /// The configured bound.
        max: u64,
    },
    /// The batch is empty or over its bound.
    #[error("a batch holds 1 to {max} rows, this one {len}")]
    BatchSize {
        /// Rows offered.
        len: u64,
        /// The bound.
        max: u64,
    },
    /// The configuration has moved on.
    #[error("the configuration is at revision {actual}, not {expected}")]
    RevisionMismatch {
        /// What the caller expected.
        expected: u64,
        /// What it is.
        actual: u64,
    },
    /// The configuration would make no sense.
    #[error("{0}")]
    InvalidConfig(String),
    /// Another live member has this name or address.
    #[error("member {member_id} already uses {what}")]
    MemberConflict {
        /// Who.
        member_id: MemberId,
        /// The name or address.
        what: String,
    },
    /// No such member, or another data directory under its number.
    #[error("no member {member_id} with that incarnation")]
    MemberNotFound {
        /// The number asked for.
        member_id: MemberId,
    },
    /// The cluster has its name already.
    #[error("the cluster is already initialized")]
    AlreadyInitialized,
    /// Another drill is under way.
    #[error("drill {drill_id} is under way")]
    DrillRunning {
        /// Which.
        drill_id: DrillId,
    },
    /// No such drill, or no longer.
    #[error("no drill {drill_id}")]
    DrillNotFound {
        /// The number asked for.
        drill_id: DrillId,
    },
    /// The drill ended before; its end stands.
    #[error("drill {drill_id} has ended already")]
    DrillOver {
        /// Which.
        drill_id: DrillId,
    },
    /// A drill that makes no sense.
    #[error("{0}")]
    InvalidDrill(String),
    /// No pipeline says what tasks of this type do.
    #[error("unknown task_type: {task_type}")]
    UnknownTaskType {
        /// As sent.
        task_type: String,
    },
    /// Steps that make no sense.
    #[error("{0}")]
    InvalidFlow(String),
    /// No such definition.
    #[error("no pipeline for {task_type}")]
    PipelineNotFound {
        /// As asked for.
        task_type: String,
    },
    /// Too many definitions.
    #[error("there are {max} pipelines already")]
    TooManyPipelines {
        /// The bound.
        max: u64,
    },
    /// No such alert.
    #[error("Alert not found")]
    AlertNotFound,
    /// The alert is over.
    #[error("the alert is resolved")]
    AlertResolved,
    /// Too many agents (`agents.max_agents`).
    #[error("there are {max} agents already")]
    TooManyAgents {
        /// The configured bound.
        max: u64,
    },
    /// As many logins as can be remembered were ended early.
    #[error("{max} sessions are revoked already; wait until some of them end")]
    TooManyRevocations {
        /// The bound.
        max: u64,
    },
    /// No such orchestrator.
    #[error("Orchestrator '{name}' not found")]
    OrchestratorNotFound {
        /// As asked for.
        name: String,
    },
    /// Steps of the orchestrator may not run.
    #[error("Orchestrator '{name}' is not active")]
    OrchestratorNotActive {
        /// Which.
        name: String,
    },
    /// A step of the orchestrator is under way.
    #[error("run {run_id} is under way")]
    RunOpen {
        /// Which.
        run_id: RunId,
    },
    /// No such campaign.
    #[error("Campaign {campaign_id} not found")]
    CampaignNotFound {
        /// As asked for.
        campaign_id: CampaignId,
    },
    /// The campaign is not where it would have to be.
    #[error("{0}")]
    CampaignState(String),
    /// What is asked makes no sense.
    #[error("{0}")]
    InvalidCampaign(String),
    /// The campaign's configuration is another one by now.
    #[error("the campaign was changed meanwhile; try again")]
    CampaignChanged,
    /// Too many timetables of an orchestrator have ended whose slots are to be decided yet.
    #[error("slots of {max} timetables that have ended are to be decided yet; try again")]
    LedgerBehind {
        /// The bound.
        max: u64,
    },
    /// There is no room for another one of these.
    #[error("there are {max} {what} already")]
    LimitReached {
        /// What kind of thing.
        what: String,
        /// The bound.
        max: u64,
    },
    /// Structures that are not registered.
    #[error("One or more structures not found")]
    StructuresNotFound,
    /// No such model.
    #[error("Model not found")]
    ModelNotFound,
    /// No such instrument.
    #[error("Instrument not found")]
    InstrumentNotFound,
    /// There is one of that id.
    #[error("{what} {id} is there already")]
    AlreadyThere {
        /// What kind of thing.
        what: String,
        /// Its id.
        id: String,
    },
    /// A budget does not hold so much.
    #[error("the budget of {} is used up", .resource.as_str())]
    BudgetExceeded {
        /// Of what.
        resource: Resource,
    },
    /// An account has this name or address already, or this request made one.
    #[error("an account with this {what} exists already")]
    AccountExists {
        /// Which of its fields.
        what: String,
    },
    /// No such account.
    #[error("User not found")]
    AccountNotFound,
    /// There is no room for another account.
    #[error("there are {max} accounts already")]
    TooManyAccounts {
        /// The bound.
        max: u64,
    },
    /// The account would make no sense.
    #[error("{0}")]
    InvalidAccount(String),
    /// Something about bots, swarms or workflows.
    #[error(transparent)]
    Bot(#[from] BotRejection),
    /// Ids of agents begin so: nodes have a name space of their own (contract C22).
    #[error("ids that begin with {AGENT_PREFIX} are those of agents")]
    NodeIdReserved,
    /// The name of the request is that of another one.
    #[error("this Idempotency-Key was used for a different request")]
    KeyReused,
}

impl Rejection {
    /// There is no room for another `what`.
    pub(super) fn too_many(what: &str, max: usize) -> Self {
        Self::LimitReached { what: what.to_owned(), max: max as u64 }
    }

    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::StaleEpoch { .. } => "STALE_EPOCH",
            Self::NodeNotFound => "NODE_NOT_FOUND",
            Self::TooManyNodes { .. } => "TOO_MANY_NODES",
            Self::TaskNotFound => "TASK_NOT_FOUND",
            Self::TaskEnded { .. } => "TASK_ENDED",
            Self::QueueFull { .. } => "QUEUE_FULL",
            Self::BatchSize { .. } => "BATCH_SIZE",
            Self::RevisionMismatch { .. } => "REVISION_MISMATCH",
            Self::InvalidConfig(_) => "INVALID_CONFIG",
            Self::MemberConflict { .. } => "MEMBER_CONFLICT",
            Self::MemberNotFound { .. } => "MEMBER_NOT_FOUND",
            Self::AlreadyInitialized => "ALREADY_INITIALIZED",
            Self::DrillRunning { .. } => "DRILL_RUNNING",
            Self::DrillNotFound { .. } => "DRILL_NOT_FOUND",
            Self::DrillOver { .. } => "DRILL_OVER",
            Self::InvalidDrill(_) => "INVALID_DRILL",
            Self::UnknownTaskType { .. } => "UNKNOWN_TASK_TYPE",
            Self::InvalidFlow(_) => "INVALID_FLOW",
            Self::PipelineNotFound { .. } => "PIPELINE_NOT_FOUND",
            Self::TooManyPipelines { .. } => "TOO_MANY_PIPELINES",
            Self::AlertNotFound => "ALERT_NOT_FOUND",
            Self::AlertResolved => "ALERT_RESOLVED",
            Self::TooManyAgents { .. } => "TOO_MANY_AGENTS",
            Self::TooManyRevocations { .. } => "TOO_MANY_REVOCATIONS",
            Self::OrchestratorNotFound { .. } => "ORCHESTRATOR_NOT_FOUND",
            Self::OrchestratorNotActive { .. } => "ORCHESTRATOR_NOT_ACTIVE",
            Self::RunOpen { .. } => "RUN_OPEN",
            Self::CampaignNotFound { .. } => "CAMPAIGN_NOT_FOUND",
            Self::CampaignState(_) => "CAMPAIGN_STATE",
            Self::InvalidCampaign(_) => "INVALID_CAMPAIGN",
            Self::CampaignChanged => "CAMPAIGN_CHANGED",
            Self::LedgerBehind { .. } => "LEDGER_BEHIND",
            Self::LimitReached { .. } => "LIMIT_REACHED",
            Self::StructuresNotFound => "STRUCTURES_NOT_FOUND",
            Self::ModelNotFound => "MODEL_NOT_FOUND",
            Self::InstrumentNotFound => "INSTRUMENT_NOT_FOUND",
            Self::AlreadyThere { .. } => "ALREADY_THERE",
            Self::BudgetExceeded { .. } => "BUDGET_EXCEEDED",
            Self::AccountExists { .. } => "ACCOUNT_EXISTS",
            Self::AccountNotFound => "ACCOUNT_NOT_FOUND",
            Self::TooManyAccounts { .. } => "TOO_MANY_ACCOUNTS",
            Self::InvalidAccount(_) => "INVALID_ACCOUNT",
            Self::Bot(rejection) => rejection.code(),
            Self::NodeIdReserved => "NODE_ID_RESERVED",
            Self::KeyReused => "IDEMPOTENCY_KEY_REUSED",
        }
    }
}

/// This member's data is broken: it must stop, loudly, and answer nobody. Never sent to a client.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Fatal {
    /// What is broken.
    pub what: String,
}

impl Fatal {
    /// A fault described by `what`.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}
