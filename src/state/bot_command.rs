//! What can be asked of bots, swarms and workflows, and what is answered and told. Commands and
//! answers are stored in the log: variants are only appended.

use serde::{Deserialize, Serialize};

use crate::model::{AssignmentPlace, DerivedId, Epoch, TimeMs};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BotCommand {
    /// Makes a bot that belongs to no swarm (contract 5.1).
    CreateBot(BotSpec),
    /// Makes a swarm; a count beyond the room that is left is cut to it (contract 5.3).
    CreateSwarm {
        /// What its bots are.
        spec: BotSpec,
        /// How many.
        count: u32,
    },
    /// Adds bots to a swarm, up to the room that is left, or removes those of the highest indexes: as
    /// many as one command goes over the work of. Said again it goes on.
    ScaleSwarm {
        /// Which.
        swarm: DerivedId,
        /// How many there shall be.
        count: u32,
    },
    /// Removes a bot. What was assigned to a member of a swarm goes to those that remain.
    RemoveBot {
        /// Which.
        bot: DerivedId,
    },
    /// Removes a swarm with its bots and all that was assigned to them.
    RemoveSwarm {
        /// Which.
        swarm: DerivedId,
    },
    /// Assigns work to one bot.
    AssignBot {
        /// Which.
        bot: DerivedId,
        /// What.
        work: BotWork,
    },
    /// Assigns the same work to every bot of a swarm.
    AssignSwarm {
        /// Which.
        swarm: DerivedId,
        /// What.
        work: BotWork,
    },
    /// Takes assignments that wait, the most urgent first, so that nobody else gets them.
    LeaseAssignments {
        /// Who takes them; at most [`super::HOLDER_MAX`] bytes.
        holder: String,
        /// Whose.
        scope: LeaseScope,
        /// At most so many; 1 to [`super::BOT_ITEMS_MAX`].
        max: u32,
        /// How long, from now; 1 to [`super::LEASE_MAX_MS`].
        lease_ms: u64,
        /// Only of these types, `None` being those without one; empty for all. At most
        /// [`super::LEASE_TYPES_MAX`], of [`super::NAME_MAX`] bytes each.
        types: Vec<Option<String>>,
    },
    /// Keeps leases for longer. Each is judged on its own.
    RenewLeases {
        /// 1 to [`super::BOT_ITEMS_MAX`].
        leases: Vec<LeaseRef>,
        /// How long, from now; 1 to [`super::LEASE_MAX_MS`].
        lease_ms: u64,
    },
    /// Gives leases back without blame. Each is judged on its own.
    ReleaseLeases {
        /// 1 to [`super::BOT_ITEMS_MAX`].
        leases: Vec<LeaseRef>,
    },
    /// Assignments that are done. Each is judged on its own.
    CompleteAssignments {
        /// 1 to [`super::BOT_ITEMS_MAX`].
        items: Vec<BotReport>,
    },
    /// Tries that failed. Each is judged on its own; after `orchestrator.max_retries` more tries
    /// an assignment is given up.
    FailAssignments {
        /// 1 to [`super::BOT_ITEMS_MAX`]. The texts are errors, for people.
        items: Vec<BotReport>,
    },
    /// The leader's timers: leases that ran out. Each is judged on its own.
    ExpireLeases {
        /// The reign it was planned in.
        epoch: Epoch,
        /// At most [`super::ROWS_PER_COMMAND_MAX`].
        leases: Vec<ExpiredLease>,
    },
    /// Makes a workflow (contract 5.4).
    CreateWorkflow {
        /// At most [`super::WORKFLOW_TASKS_MAX`]; with none it is complete at once.
        tasks: Vec<WorkflowStep>,
        /// Echoed; which of several is done first goes by it.
        priority: String,
    },
    /// The leader did one task of a workflow.
    RecordStep {
        /// The reign it was done in.
        epoch: Epoch,
        /// Of which workflow.
        workflow: u64,
        /// Its position when the task was begun; any other makes it stale.
        seen: u32,
        /// JSON text of at most [`super::STEP_RESULT_MAX`] bytes.
        result: String,
    },
    /// Ends a workflow; the task that is under way is not recorded any more.
    CancelWorkflow {
        /// Which.
        workflow: DerivedId,
    },
}

impl BotCommand {
    /// Whether only the leader proposes it.
    #[must_use]
    pub fn is_duty(&self) -> bool {
        matches!(self, Self::ExpireLeases { .. } | Self::RecordStep { .. })
    }
}

/// What a bot is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotSpec {
    /// At most [`super::NAME_MAX`] bytes; empty for the default.
    pub name: String,
    /// At most [`super::TIER_MAX`] bytes.
    pub tier: String,
    /// At most [`super::BOT_CAPABILITIES_MAX`], of [`super::NAME_MAX`] bytes each.
    pub capabilities: Vec<String>,
}

/// Work for bots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotWork {
    /// As sent; at most [`super::NAME_MAX`] bytes.
    pub task_type: Option<String>,
    /// JSON text; empty for none.
    pub data: String,
}

/// Whose assignments are wanted. Those that are not there are left out; with none left it is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseScope {
    /// Of these bots; 1 to [`super::BOTS_PER_LEASE_MAX`].
    Bots(Vec<DerivedId>),
    /// Of all bots of these swarms; 1 to [`super::BOT_ITEMS_MAX`].
    Swarms(Vec<DerivedId>),
}

/// A lease, by its assignment and the number of the try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRef {
    /// Which assignment.
    pub task: DerivedId,
    /// Which try.
    pub attempt: u32,
}

/// The end of one try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotReport {
    /// Which assignment.
    pub task: DerivedId,
    /// Whose it has to be; not looked at when `None`.
    pub bot: Option<DerivedId>,
    /// Which try; `None` for those who hold no lease.
    pub attempt: Option<u32>,
    /// JSON text of at most [`super::BOT_RESULT_MAX`] bytes; empty for none.
    pub text: String,
    /// Of a failure: no other try can help.
    pub permanent: bool,
}

/// A lease that ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredLease {
    /// Of which assignment.
    pub place: AssignmentPlace,
    /// Which try.
    pub attempt: u32,
}

/// One task of a workflow, as sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowStep {
    /// At most [`super::NAME_MAX`] bytes.
    pub task_type: String,
    /// JSON text of at most [`super::STEP_PARAMS_MAX`] bytes.
    pub params: String,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BotOutcome {
    /// A bot is there.
    BotCreated {
        /// Which.
        bot: DerivedId,
    },
    /// A swarm is there.
    SwarmCreated {
        /// Which.
        swarm: DerivedId,
        /// Its bots; fewer than asked for when there was no more room.
        count: u32,
    },
    /// A swarm has as many bots as it was to have, or as there was room for; more when it is to shrink
    /// further.
    SwarmScaled {
        /// How many.
        count: u32,
    },
    /// Work was assigned.
    Assigned {
        /// Number of the wave.
        wave: u64,
        /// The index of the bot; of the first one when there are many.
        first: u32,
        /// How many assignments.
        count: u32,
    },
    /// Assignments were taken; none when none waits.
    Leased {
        /// In the order in which they are to be done.
        runs: Vec<LeasedRun>,
        /// When the leases end.
        deadline_ms: TimeMs,
    },
    /// A batch in which each item was judged on its own.
    Judged {
        /// One for each, in order.
        verdicts: Vec<Verdict>,
    },
    /// A workflow is there.
    WorkflowCreated {
        /// Which.
        workflow: DerivedId,
    },
}

/// Neighbouring assignments that were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasedRun {
    /// The first of them.
    pub first: AssignmentPlace,
    /// How many, of indexes without a gap.
    pub count: u32,
    /// The number of the try of each.
    pub attempt: u32,
}

/// What became of one item of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It took effect.
    Accepted,
    /// It had taken effect before, and counts once.
    Repeated,
    /// The try is over, or was another one.
    Stale,
    /// Somebody holds a lease of it, and no try was named.
    Held,
    /// It had ended in another way.
    Ended,
    /// There is no such assignment of that bot.
    NotFound,
    /// What it says is longer than is kept.
    TooLarge,
}

/// What is refused. The texts are the family's (contract 5.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum BotRejection {
    /// No room for a bot.
    #[error("Maximum bot capacity ({max}) reached")]
    BotCapacity {
        /// The configured bound.
        max: u64,
    },
    /// No room for a swarm, or one of no bots.
    #[error("Cannot create swarm: bot capacity reached")]
    SwarmCapacity,
    /// No such bot.
    #[error("Bot {bot} not found")]
    BotNotFound {
        /// As asked for.
        bot: DerivedId,
    },
    /// No such swarm.
    #[error("Swarm {swarm} not found")]
    SwarmNotFound {
        /// As asked for.
        swarm: DerivedId,
    },
    /// No such workflow.
    #[error("Workflow {workflow} not found")]
    WorkflowNotFound {
        /// As asked for.
        workflow: DerivedId,
    },
    /// The workflow is over.
    #[error("the workflow is over")]
    WorkflowEnded,
    /// Too much is assigned and not done (`bots.max_open_assignments`), or to one bot or swarm.
    #[error("{max} assignments are open already")]
    TooManyAssignments {
        /// The bound.
        max: u64,
    },
    /// Too many workflows are under way.
    #[error("{max} workflows are under way already")]
    TooManyWorkflows {
        /// The bound.
        max: u64,
    },
    /// What is asked makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// What workflows under way work on takes too much.
    #[error("workflows under way hold {max} bytes already")]
    WorkflowsTooLarge {
        /// The bound, in bytes.
        max: u64,
    },
    /// Too many pieces of work are open over one swarm, or for one bot alone.
    #[error("{max} pieces of work are open there already")]
    TooManyWaves {
        /// The bound.
        max: u64,
    },
}

impl BotRejection {
    /// The stable code that programs match on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::BotCapacity { .. } => "BOT_CAPACITY",
            Self::SwarmCapacity => "SWARM_CAPACITY",
            Self::BotNotFound { .. } => "BOT_NOT_FOUND",
            Self::SwarmNotFound { .. } => "SWARM_NOT_FOUND",
            Self::WorkflowNotFound { .. } => "WORKFLOW_NOT_FOUND",
            Self::WorkflowEnded => "WORKFLOW_ENDED",
            Self::TooManyAssignments { .. } | Self::TooManyWaves { .. } => "TOO_MANY_ASSIGNMENTS",
            Self::TooManyWorkflows { .. } | Self::WorkflowsTooLarge { .. } => "TOO_MANY_WORKFLOWS",
            Self::Invalid(_) => "INVALID_BOT",
        }
    }
}

/// What happened. One per command, however many bots it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BotFact {
    /// A bot was made.
    BotCreated {
        /// Which.
        bot: DerivedId,
    },
    /// A bot was removed.
    BotRemoved {
        /// Which.
        bot: DerivedId,
    },
    /// A swarm was made.
    SwarmCreated {
        /// Which.
        swarm: DerivedId,
        /// Its bots.
        count: u32,
    },
    /// A swarm grew or shrank.
    SwarmScaled {
        /// Which.
        swarm: DerivedId,
        /// Its bots.
        count: u32,
    },
    /// A swarm was removed.
    SwarmRemoved {
        /// Which.
        swarm: DerivedId,
        /// Its bots.
        count: u32,
    },
    /// A bot got work.
    BotAssigned {
        /// Which.
        bot: DerivedId,
        /// The assignment.
        task: DerivedId,
    },
    /// A swarm got work.
    SwarmAssigned {
        /// Which.
        swarm: DerivedId,
        /// Number of the wave.
        wave: u64,
        /// How many assignments.
        count: u32,
    },
    /// Assignments were taken.
    AssignmentsLeased {
        /// By whom.
        holder: String,
        /// How many.
        count: u32,
    },
    /// Assignments wait again, though nothing was wrong with them.
    AssignmentsReleased {
        /// How many.
        count: u32,
    },
    /// Assignments ended, or wait for another try.
    AssignmentsReported {
        /// Completed.
        completed: u32,
        /// Given up.
        failed: u32,
        /// To be tried again.
        retried: u32,
        /// When there is just one.
        task: Option<DerivedId>,
    },
    /// A workflow was made, moved on or ended.
    WorkflowChanged {
        /// Which.
        workflow: DerivedId,
        /// Where it stands.
        status: &'static str,
        /// Tasks done.
        position: u32,
    },
}

impl BotFact {
    /// Its word on the wire.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::BotCreated { .. } => "bot_created",
            Self::BotRemoved { .. } => "bot_removed",
            Self::SwarmCreated { .. } => "swarm_created",
            Self::SwarmScaled { .. } => "swarm_scaled",
            Self::SwarmRemoved { .. } => "swarm_removed",
            Self::BotAssigned { .. } => "bot_assigned",
            Self::SwarmAssigned { .. } => "swarm_assigned",
            Self::AssignmentsLeased { .. } => "assignments_leased",
            Self::AssignmentsReleased { .. } => "assignments_released",
            Self::AssignmentsReported { .. } => "assignments_reported",
            Self::WorkflowChanged { .. } => "workflow_changed",
        }
    }
}
