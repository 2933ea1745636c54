//! What can be asked of the state machine.
//!
//! Stored in the log, so the rules of a format hold: variants are only ever appended, fields never
//! change, and `testscripts/format` pins the bytes. A command carries everything apply may need:
//! ids are minted and times stamped before it is proposed.

use serde::{Deserialize, Serialize};

use super::accounts::AccountCommand;
use super::bot_command::BotCommand;
use super::campaign_command::{CampaignCommand, StepDuty};
use crate::model::{
    AlertState, Concurrency, DeliveryId, DrillId, DrillKind, DrillState, Epoch, FlowMode,
    Incarnation, Member, MemberId, NodeId, NodeStatus, Pipeline, RateLimit, RequestId,
    Requirements, ScalingEvent, Severity, StepSpec, TaskFailure, TaskId, TimeMs, Urgency,
};

pub use super::node_command::{NodeObservation, NodeSpec};

/// One log entry: the commands that were proposed together, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Stamped by the leader when it packed the entry. Apply makes it monotonic.
    pub at_ms: TimeMs,
    /// At most [`super::ENVELOPES_PER_ENTRY_MAX`].
    pub envelopes: Vec<Envelope>,
}

/// A command on its way: who asks, and under which request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The same through every retry and forward of one request.
    pub request_id: RequestId,
    /// The authenticated caller; empty when authentication is off.
    pub principal: String,
    /// What is asked.
    pub command: Command,
}

/// An intended change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A new leader opens its reign; refused when a newer one is open.
    OpenEpoch(Epoch),
    /// A node registers, or registers again.
    RegisterNode(NodeSpec),
    /// An operator sets a node's status.
    SetNodeStatus {
        /// Which node.
        node_id: NodeId,
        /// What it shall be.
        status: NodeStatus,
    },
    /// A node is taken out; its live tasks are retried elsewhere.
    RemoveNode {
        /// Which node.
        node_id: NodeId,
    },
    /// The leader's liveness watch: who changed, and fresh load figures.
    ObserveNodes {
        /// The reign it was planned in.
        epoch: Epoch,
        /// At most [`super::ROWS_PER_COMMAND_MAX`].
        observations: Vec<NodeObservation>,
    },
    /// Clients submit tasks; all of them are taken or none.
    SubmitTasks(Vec<TaskSpec>),
    /// The leader's scheduler places tasks. Each is judged on its own.
    AssignTasks {
        /// The reign it was planned in.
        epoch: Epoch,
        /// At most [`super::ROWS_PER_COMMAND_MAX`].
        assignments: Vec<Assignment>,
    },
    /// The leader's dispatcher: what nodes answered. Each is judged on its own.
    RecordDispatches {
        /// The reign it was dispatched in.
        epoch: Epoch,
        /// At most [`super::ROWS_PER_COMMAND_MAX`].
        dispatches: Vec<Dispatch>,
    },
    /// Nodes or their workers report ends of attempts. Each is judged on its own.
    ReportTasks(Vec<TaskReport>),
    /// A client cancels a task.
    CancelTask {
        /// Which task.
        task_id: TaskId,
        /// Why, for the record.
        reason: String,
    },
    /// The leader's timers: attempts that ran too long, deadlines that passed, back-offs that ended.
    ExpireTasks {
        /// The reign it was planned in.
        epoch: Epoch,
        /// At most [`super::ROWS_PER_COMMAND_MAX`].
        expiries: Vec<TaskExpiry>,
    },
    /// The leader's reaper deletes tasks that ended long ago.
    RetireTasks {
        /// The reign it was planned in.
        epoch: Epoch,
        /// At most [`super::ROWS_PER_COMMAND_MAX`].
        task_ids: Vec<TaskId>,
    },
    /// Replaces the value at one dotted path of the orchestrator configuration, or merges an
    /// object into it. The value is JSON text.
    PatchConfig {
        /// Empty for the whole document.
        path: String,
        /// JSON text.
        value: String,
        /// When given, the configuration must be at this revision.
        expected_revision: Option<u64>,
    },
    /// A member joins, or comes back on a new disk: gives it a number of its own.
    AllocateMember(Member),
    /// A member tells its present addresses and version.
    AnnounceMember {
        /// Which member.
        member_id: MemberId,
        /// Its description; the incarnation must be the one on record.
        member: Member,
    },
    /// A member left for good; its number is never used again.
    ForgetMember {
        /// Which member.
        member_id: MemberId,
        /// The data directory that left.
        incarnation: Incarnation,
    },
    /// Names the cluster, once.
    InitCluster {
        /// Random; every peer connection proves it.
        cluster_id: u128,
        /// Founders, by number.
        members: Vec<(MemberId, Member)>,
    },
    /// A drill begins; refused while another is under way.
    BeginDrill {
        /// What is rehearsed.
        kind: DrillKind,
        /// On whom, in words; at most [`super::DRILL_TEXT_MAX`] bytes.
        target: String,
        /// Who runs it, as they say; at most [`super::DRILL_TEXT_MAX`] bytes.
        started_by: String,
        /// How long it keeps others from beginning; at most [`super::DRILL_LEASE_MAX_MS`].
        lease_ms: u64,
    },
    /// A drill ends, with its report.
    EndDrill {
        /// Which drill.
        drill_id: DrillId,
        /// How; never `Running`.
        state: DrillState,
        /// In one line; at most [`super::DRILL_TEXT_MAX`] bytes.
        summary: String,
        /// JSON text, at most [`super::DRILL_REPORT_MAX`] bytes; empty for none.
        report: String,
    },
    /// Whether a member shall vote once it has caught up. Whoever joined shall, until an operator
    /// takes its vote away.
    WantVote {
        /// Which member.
        member_id: MemberId,
        /// `false` keeps it a learner.
        wanted: bool,
    },
    /// The scheduler gives steps back that no agent can do now. Each is judged on its own.
    RefuseSteps {
        /// The reign it was planned in.
        epoch: Epoch,
        /// At most [`super::ROWS_PER_COMMAND_MAX`].
        refusals: Vec<StepRefusal>,
    },
    /// Defines what tasks of one type do.
    PutPipeline(Pipeline),
    /// Takes a definition back; a built-in one holds again.
    RemovePipeline {
        /// Which.
        task_type: String,
    },
    /// An operator has dead letters tried again. Each is judged on its own.
    ReplayTasks {
        /// At most [`super::ROWS_PER_COMMAND_MAX`].
        task_ids: Vec<TaskId>,
    },
    /// An operator deletes dead letters. Each is judged on its own.
    PurgeTasks {
        /// At most [`super::ROWS_PER_COMMAND_MAX`].
        task_ids: Vec<TaskId>,
    },
    /// An operator takes a node out of service: it gets no more work, and what it holds is taken
    /// away when the time is over.
    DrainNode {
        /// Which node.
        node_id: NodeId,
        /// From now.
        within_ms: u64,
    },
    /// The leader's timers: drains whose time is over. Each is judged on its own.
    EndDrains {
        /// The reign it was planned in.
        epoch: Epoch,
        /// At most [`super::ROWS_PER_COMMAND_MAX`].
        node_ids: Vec<NodeId>,
    },
    /// The leader's liveness watch takes agents out that have been silent for long.
    RetireAgents {
        /// The reign it was planned in.
        epoch: Epoch,
        /// At most [`super::ROWS_PER_COMMAND_MAX`].
        node_ids: Vec<NodeId>,
    },
    /// The leader's courier: what receivers answered. Each is judged on its own.
    RecordDeliveries {
        /// The reign it was posted in.
        epoch: Epoch,
        /// At most [`super::ROWS_PER_COMMAND_MAX`].
        results: Vec<DeliveryResult>,
    },
    /// The leader's watch over the figures: alerts that are raised, grow worse or are over.
    RecordAlerts {
        /// The reign it was planned in.
        epoch: Epoch,
        /// At most [`super::ROWS_PER_COMMAND_MAX`].
        changes: Vec<AlertChange>,
    },
    /// Somebody knows of an alert.
    AcknowledgeAlert {
        /// Which.
        alert_id: String,
        /// Who says so.
        by: String,
    },
    /// The leader's autoscaler decided; refused while its rule cools down.
    RecordScaling {
        /// The reign it was planned in.
        epoch: Epoch,
        /// Its number and time are given by apply.
        event: ScalingEvent,
        /// How long the rule rests.
        cooldown_ms: u64,
    },
    /// What the operator's program said to a decision.
    RecordScalingOutcome {
        /// The reign it ran in.
        epoch: Epoch,
        /// Which decision.
        number: u64,
        /// For people.
        outcome: String,
    },
    /// The tokens of one login are no longer good.
    RevokeSession {
        /// Which login; at most [`super::SESSION_ID_MAX`] bytes.
        session_id: String,
        /// How long it is until the last of its tokens has ended by itself, for every clock.
        left_ms: TimeMs,
    },
    /// Something about orchestrators and campaigns.
    Campaign(CampaignCommand),
    /// The leader's part of it.
    Step {
        /// The reign it was planned in.
        epoch: Epoch,
        /// What.
        duty: StepDuty,
    },
    /// Something about accounts of people.
    Account(AccountCommand),
    /// Something about bots, swarms and workflows.
    Bot(Box<BotCommand>),
    /// Nobody shall be told of an alert for a while.
    SuppressAlert {
        /// Which.
        alert_id: String,
        /// Who says so.
        by: String,
        /// For how long.
        for_ms: TimeMs,
    },
    /// As [`Self::PatchConfig`] of `orchestrator.scheduling_paused`, and tells whether it was so before.
    SetPaused {
        /// Which of both.
        paused: bool,
    },
    /// A command; refused when its request has the name of another one.
    Asked {
        /// A hash of the request.
        print: u64,
        /// What is asked.
        command: Box<Self>,
    },
}

/// A step that is given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRefusal {
    /// The step's own task.
    pub task_id: TaskId,
    /// Its revision when the plan was made.
    pub seen_revision: u64,
}

/// What came of one try of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryResult {
    /// Which delivery.
    pub delivery_id: DeliveryId,
    /// Tries before this one.
    pub seen_tries: u32,
    /// `None` when it was taken.
    pub error: Option<String>,
    /// With an error: no other try would do better.
    pub for_good: bool,
}

/// A change of one alert that the watch proposes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertChange {
    /// `<metric>_threshold`.
    pub alert_id: String,
    /// Transitions that the plan saw; the change is dropped when there was another one since.
    pub seen_transitions: u64,
    /// Which figure.
    pub metric: String,
    /// How bad it is.
    pub severity: Severity,
    /// `Active` or `Resolved`.
    pub state: AlertState,
    /// The figure, in thousandths.
    pub value_milli: u64,
    /// What it was compared with, in thousandths.
    pub threshold_milli: u64,
    /// For people.
    pub message: String,
}

/// How a task is to be done in steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlowRequest {
    /// As the pipeline of its type says.
    Pipeline {
        /// The client's mode; without one, the pipeline's.
        mode: Option<FlowMode>,
    },
    /// In steps of its own.
    Steps {
        /// How they hang together.
        mode: FlowMode,
        /// 1 to [`crate::model::STEPS_MAX`].
        steps: Vec<StepSpec>,
    },
    /// The same work on so many nodes at once.
    Copies {
        /// 2 to [`crate::model::STEPS_MAX`].
        count: u16,
    },
    /// As the pipeline of its type says, but for how often a step is tried again.
    PipelineTried {
        /// The client's mode; without one, the pipeline's.
        mode: Option<FlowMode>,
        /// Tries of each step after its first.
        max_retries: u32,
    },
}

/// A task as a client submits it. JSON travels as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The client's id; without one, apply derives it from the request id.
    pub task_id: Option<TaskId>,
    /// What to do.
    pub task_type: String,
    /// How soon.
    pub urgency: Urgency,
    /// As sent.
    pub priority_raw: String,
    /// What the node must have.
    pub requirements: Requirements,
    /// As sent; empty for none.
    pub requirements_raw: String,
    /// What to work on; empty for none.
    pub input: String,
    /// Whatever else was sent; empty for none.
    pub metadata: String,
    /// Longest time for one attempt.
    pub timeout_ms: u64,
    /// Attempts after the first.
    pub max_retries: u32,
    /// When to give up altogether.
    pub deadline_ms: Option<TimeMs>,
    /// Told when the task ends.
    pub callback_url: Option<String>,
    /// At most so many of its key at once.
    pub concurrency: Option<Concurrency>,
    /// At most so many of its key started in a window of time.
    pub rate: Option<RateLimit>,
    /// Done in steps.
    pub flow: Option<FlowRequest>,
}

/// A placement the scheduler proposes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Which task.
    pub task_id: TaskId,
    /// Its revision when the plan was made.
    pub seen_revision: u64,
    /// Who gets it.
    pub node_id: NodeId,
}

/// What a node answered to one dispatch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    /// Which task.
    pub task_id: TaskId,
    /// Which try.
    pub attempt: u32,
    /// An earlier reign may have handed the same try over: the answer speaks of this call alone.
    pub again: bool,
    /// What came of it.
    pub result: DispatchResult,
}

/// The kinds of answers to a dispatch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DispatchResult {
    /// The node took it and will report later.
    Acknowledged,
    /// The node answered with the outcome at once.
    Finished(TaskOutcome),
    /// The node is busy and never started it: the task waits again, no retry is used.
    Refused {
        /// Not before so long from now.
        retry_after_ms: u64,
    },
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskOutcome {
    /// With a result.
    Completed {
        /// JSON text; empty for none.
        result: String,
    },
    /// Without one.
    Failed {
        /// Decides whether it is tried again.
        failure: TaskFailure,
        /// For people.
        error: String,
    },
}

/// A report of the end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// Which task.
    pub task_id: TaskId,
    /// Which try. Clients of family W cannot say; they are matched by node, or by there being
    /// just one live execution.
    pub attempt: Option<u32>,
    /// The reign named in the dispatch, echoed by those who can.
    pub epoch: Option<Epoch>,
    /// Who reports.
    pub node_id: Option<NodeId>,
    /// Which of its agents did the work.
    pub agent_id: Option<String>,
    /// How it ended.
    pub outcome: TaskOutcome,
    /// How long it took; 0 when not said.
    pub execution_ms: u64,
    /// JSON text; empty for none.
    pub performance_metrics: String,
}

/// A timer that fired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskExpiry {
    /// Which task.
    pub task_id: TaskId,
    /// Its revision when the timer was read.
    pub seen_revision: u64,
    /// Which timer.
    pub kind: ExpiryKind,
}

/// The timers of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExpiryKind {
    /// The live attempt is over its `timeout`.
    Attempt,
    /// The task is over its `deadline`.
    Deadline,
    /// The back-off is over: back into the queue.
    BackOff,
}
