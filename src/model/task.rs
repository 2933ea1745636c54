//! A task: one piece of work, and the tries of it (contract 2.2, 2.7).

use serde::{Deserialize, Serialize};

use super::{Epoch, Flow, Job, NodeId, Payload, RateLimit, StepOf, TaskId, TimeMs, Urgency};

/// Where a task stands. The words that clients see are in `api`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskStatus {
    /// Accepted, waiting to be placed.
    Pending,
    /// An attempt failed; waiting for its back-off to pass.
    Retrying,
    /// Placed on a node, which has not acknowledged it yet.
    Assigned,
    /// Acknowledged by the node.
    Running,
    /// Ended with a result.
    Completed,
    /// Ended with an error that a retry cannot mend.
    Failed,
    /// Ended by its deadline.
    TimedOut,
    /// Ended by a client.
    Cancelled,
    /// Ended because every retry was used up: for an operator to look at.
    DeadLetter,
    /// Done in steps, of which none has begun.
    Waiting,
    /// Done in steps, of which some have begun.
    Stepping,
}

impl TaskStatus {
    /// All of them, in the order a task goes through them.
    pub const ALL: [Self; 11] = [
        Self::Pending,
        Self::Waiting,
        Self::Retrying,
        Self::Assigned,
        Self::Running,
        Self::Stepping,
        Self::Completed,
        Self::Failed,
        Self::TimedOut,
        Self::Cancelled,
        Self::DeadLetter,
    ];

    /// Whether nothing happens to it any more.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Pending
            | Self::Retrying
            | Self::Assigned
            | Self::Running
            | Self::Waiting
            | Self::Stepping => false,
            Self::Completed
            | Self::Failed
            | Self::TimedOut
            | Self::Cancelled
            | Self::DeadLetter => true,
        }
    }

    /// The internal word, for events and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::DeadLetter => "dead_letter",
            Self::Waiting => "waiting",
            Self::Stepping => "stepping",
        }
    }

    /// Whether a node holds an execution of it.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Assigned | Self::Running)
    }

    /// The legal moves; apply asserts every one it makes.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Pending | Self::Retrying => matches!(
                next,
                Self::Pending
                    | Self::Retrying
                    | Self::Assigned
                    | Self::Cancelled
                    | Self::TimedOut
                    | Self::DeadLetter
            ),
            Self::Assigned => !matches!(next, Self::Assigned | Self::Waiting | Self::Stepping),
            Self::Running => {
                !matches!(next, Self::Assigned | Self::Running | Self::Waiting | Self::Stepping)
            }
            Self::Waiting => next == Self::Stepping || next.is_terminal(),
            Self::Stepping => next.is_terminal(),
            Self::Completed
            | Self::Failed
            | Self::TimedOut
            | Self::Cancelled
            | Self::DeadLetter => false,
        }
    }
}

/// What a node must have to be given the task (contract 2.8).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirements {
    /// All of them must be among the node's.
    pub capabilities: Vec<String>,
    /// Free CPU asked for, in thousandths of a percent.
    pub min_cpu_milli: u32,
    /// Free memory asked for, in thousandths of a percent.
    pub min_memory_milli: u32,
    /// Highest load score accepted, in thousandths; 0 stands for the default of 900.
    pub max_load_milli: u32,
    /// Taken first when eligible.
    pub preferred_nodes: Vec<NodeId>,
    /// Never taken.
    pub exclude_nodes: Vec<NodeId>,
    /// Which kind of agent of family A; `None` for work of nodes.
    pub agent_type: Option<String>,
}

/// At most so many tasks of one key at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// What they share; chosen by the client.
    pub key: String,
    /// How many may be under way.
    pub max: u32,
}

/// One live try of a task on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// Fences stale results: a report of another attempt is refused.
    pub attempt: u32,
    /// Who was given it.
    pub node_id: NodeId,
    /// The leader's reign that placed it.
    pub epoch: Epoch,
    /// When it was placed.
    pub assigned_at_ms: TimeMs,
    /// When the node acknowledged it; 0 before.
    pub started_at_ms: TimeMs,
}

/// Why an attempt ended without a result. Decides whether it is tried again (contract 2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskFailure {
    /// The node could not be reached, or its answer made no sense.
    Network,
    /// The node was lost while it held the attempt.
    NodeLost,
    /// The attempt took longer than the task's `timeout`.
    Timeout,
    /// The node or program says it failed, and that another try may help.
    Retryable,
    /// The node or program says it failed for good.
    Permanent,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Chosen by the client, or derived from its request id.
    pub task_id: TaskId,
    /// What to do, in the client's words.
    pub task_type: String,
    /// How soon.
    pub urgency: Urgency,
    /// The priority as the client sent it, as JSON text.
    pub priority_raw: String,
    /// What the node must have.
    pub requirements: Requirements,
    /// `requirements` as the client sent them.
    pub requirements_raw: Payload,
    /// What to work on.
    pub input: Payload,
    /// Whatever else the client sent along.
    pub metadata: Payload,
    /// Longest time one attempt may take, from dispatch.
    pub timeout_ms: u64,
    /// Attempts after the first.
    pub max_retries: u32,
    /// When the task as a whole is given up.
    pub deadline_ms: Option<TimeMs>,
    /// Told when the task ends.
    pub callback_url: Option<String>,

    /// Place in the order of submission.
    pub seq: u64,
    /// Where it stands.
    pub status: TaskStatus,
    /// Number of the newest attempt; 0 before the first.
    pub attempt: u32,
    /// Retries used.
    pub retry_count: u32,
    /// Not placed before this time.
    pub not_before_ms: TimeMs,
    /// The live try, while `status` is live.
    pub execution: Option<Execution>,
    /// Nodes of the attempts so far, newest last, at most 16.
    pub assigned_nodes: Vec<NodeId>,

    /// When it was accepted.
    pub created_at_ms: TimeMs,
    /// Since when it has waited for its newest try: when it was accepted, or taken back from a node.
    pub waits_from_ms: TimeMs,
    /// When its newest attempt was acknowledged; 0 before.
    pub started_at_ms: TimeMs,
    /// When it ended; 0 before.
    pub completed_at_ms: TimeMs,
    /// The node that ended it.
    pub node_id: Option<NodeId>,
    /// The agent that ended it, if it said so.
    pub agent_id: Option<String>,
    /// What came out.
    pub result: Payload,
    /// Why it failed, or why its newest attempt did.
    pub error: Option<String>,
    /// How long the last attempt ran, as reported or measured.
    pub execution_ms: u64,
    /// What the node measured.
    pub performance_metrics: Payload,
    /// Log index of the last change: what a plan saw.
    pub revision: u64,
    /// How many tasks of its key may be under way with it. A step carries its task's until that
    /// task has its place.
    pub concurrency: Option<Concurrency>,
    /// How many tasks of its key may be started in a window of time. A step carries its task's until
    /// that task has begun.
    pub rate: Option<RateLimit>,
    /// Its steps, when it is done in steps.
    pub flow: Option<Box<Flow>>,
    /// Whose step it is.
    pub step_of: Option<StepOf>,
    /// Why its newest try failed, as far as its end is called by that.
    pub last_try: LastTry,
    /// What it is done for, when a campaign or its like launched it.
    pub job: Option<Box<Job>>,
}

/// How the newest try of a task failed, for the words that its end is told by (contract 1.3, 8.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LastTry {
    /// As its error says, or it did not.
    #[default]
    Other,
    /// Nobody was there to do it: no agent of its kind, or none that could be reached.
    Unavailable,
    /// It took longer than the task allows.
    TimedOut,
}

impl Task {
    /// How many rows it takes, with those that its steps have or may get.
    #[must_use]
    pub fn rows(&self) -> usize {
        1 + self.flow.as_ref().map_or(0, |flow| flow.steps.len())
    }

    /// Steps of nodes are copies of their task; agents do all others.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        self.step_of.is_some() && self.requirements.agent_type.is_none()
    }

    /// The node or agent that has its live attempt.
    #[must_use]
    pub fn live_on(&self) -> Option<&NodeId> {
        self.execution.as_ref().map(|execution| &execution.node_id)
    }

    /// A task that waits, with nothing to do yet: for whoever says what.
    #[must_use]
    pub fn blank(task_id: TaskId, seq: u64, created_at_ms: TimeMs, revision: u64) -> Self {
        Self {
            task_id,
            task_type: String::new(),
            urgency: Urgency::NORMAL,
            priority_raw: String::new(),
            requirements: Requirements::default(),
            requirements_raw: Payload::Absent,
            input: Payload::Absent,
            metadata: Payload::Absent,
            timeout_ms: 0,
            max_retries: 0,
            deadline_ms: None,
            callback_url: None,
            seq,
            status: TaskStatus::Pending,
            attempt: 0,
            retry_count: 0,
            not_before_ms: 0,
            execution: None,
            assigned_nodes: Vec::new(),
            created_at_ms,
            waits_from_ms: created_at_ms,
            started_at_ms: 0,
            completed_at_ms: 0,
            node_id: None,
            agent_id: None,
            result: Payload::Absent,
            error: None,
            execution_ms: 0,
            performance_metrics: Payload::Absent,
            revision,
            concurrency: None,
            rate: None,
            flow: None,
            step_of: None,
            last_try: LastTry::Other,
            job: None,
        }
    }

    /// Since when it has waited, for its place in the queue.
    #[must_use]
    pub fn waits_since_ms(&self) -> TimeMs {
        self.step_of.as_ref().map_or(self.created_at_ms, |step| step.submitted_at_ms)
    }

    /// Whether it takes one of the places of its concurrency key.
    #[must_use]
    pub fn holds_place(&self) -> bool {
        self.status.is_live() || self.status == TaskStatus::Stepping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_states_are_final_and_only_waiting_tasks_are_assigned() {
        for from in TaskStatus::ALL {
            for to in TaskStatus::ALL {
                let legal = from.may_become(to);
                if from.is_terminal() {
                    assert!(!legal, "{from:?} -> {to:?}");
                }
                if to == TaskStatus::Assigned {
                    let waits = matches!(from, TaskStatus::Pending | TaskStatus::Retrying);
                    assert_eq!(legal, waits, "{from:?}");
                }
                if to == TaskStatus::Running {
                    assert_eq!(legal, from == TaskStatus::Assigned, "{from:?}");
                }
            }
        }
    }
}
