//! The dispatch ladder: nodes in the field serve different paths, so they are tried in order, and
//! the one that works is remembered per node (contract 6).

use std::time::Duration;

use super::http::{Call, CallError, NodeCaller};
use super::message::Message;
use super::reply::{self, Verdict, failed};
use crate::model::{Node, NodeId, TaskFailure, TaskId};
use crate::state::DispatchResult;

/// The longest time that a path which only acknowledges may take to do so.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(10);
/// No call is given less than this, whatever the task says.
const CALL_TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// The time for a cancel call.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// One way of handing a task to a node. The numbers are those of contract 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// Call 5: may answer only after executing.
    Execute,
    /// Call 6.
    Tasks,
    /// Call 7.
    TaskControl,
    /// The agent program beside the node, on a port of its own.
    StartTask,
}

impl Rung {
    /// The path it posts to.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Execute => "/api/v4/tasks/execute",
            Self::Tasks => "/api/tasks",
            Self::TaskControl => "/api/v4/task-control/create-task",
            Self::StartTask => "/api/start_task",
        }
    }

    fn timeout(self, task: Duration) -> Duration {
        let timeout = match self {
            Self::Execute => task,
            Self::Tasks | Self::TaskControl | Self::StartTask => task.min(ACKNOWLEDGE_TIMEOUT),
        };
        timeout.max(CALL_TIMEOUT_MIN)
    }
}

/// The order in which a node's paths are tried: the one that worked last, then by its kind.
#[must_use]
pub fn rungs(node_type: &str, known: Option<Rung>) -> Vec<Rung> {
    use Rung::{Execute, StartTask, TaskControl, Tasks};
    let by_kind = match node_type {
        "enhanced_node" => [TaskControl, Execute, Tasks, StartTask],
        _ => [Execute, Tasks, TaskControl, StartTask],
    };
    let rest = by_kind.into_iter().filter(|rung| Some(*rung) != known);
    known.into_iter().chain(rest).collect()
}

/// Where a node is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Which node.
    pub node_id: NodeId,
    /// Its declared kind.
    pub node_type: String,
    /// Its own API.
    pub base_url: String,
    /// The API of the agent program on the same host.
    pub agent_url: String,
}

impl Target {
    /// Where `node` is called; its agent program listens on `agent_port`.
    #[must_use]
    pub(super) fn of(node: &Node, agent_port: u16) -> Self {
        Self {
            node_id: node.node_id.clone(),
            node_type: node.node_type.clone(),
            base_url: node.base_url(),
            agent_url: format!("http://{}:{agent_port}", node.host),
        }
    }

    fn base(&self, rung: Rung) -> &str {
        match rung {
            Rung::Execute | Rung::Tasks | Rung::TaskControl => &self.base_url,
            Rung::StartTask => &self.agent_url,
        }
    }
}

/// What a call says about the node, beside what it says about the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// It answered.
    Answered,
    /// It asks to be left alone for so long.
    Busy(Duration),
    /// It has no room, and does not say for how long.
    Full,
    /// No connection was made.
    Unreachable,
    /// It was reached, but gave no answer.
    Silent,
}

/// What came of a dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Climbed {
    /// For the record.
    pub result: DispatchResult,
    /// The path that worked.
    pub rung: Option<Rung>,
    /// What was learnt of the node.
    pub reach: Reach,
}

/// Hands a task to a node: tries its paths until one exists.
pub(super) async fn climb(
    caller: &dyn NodeCaller,
    target: &Target,
    message: &Message,
    known: Option<Rung>,
) -> Climbed {
    let mut answered = false;
    for rung in rungs(&target.node_type, known) {
        let timeout = rung.timeout(Duration::from_millis(message.timeout_ms));
        let url = format!("{}{}", target.base(rung), rung.path());
        let answer = match caller.post(Call::new(url, message.body(rung), timeout)).await {
            Ok(answer) => answer,
            // Most nodes have no agent program beside them: then nothing was learnt from asking.
            Err(CallError::Connect(_)) if rung == Rung::StartTask && answered => break,
            Err(error) => return unanswered(rung, timeout, &error),
        };
        answered = true;
        match reply::read(rung, &answer) {
            Verdict::NoSuchPath => {}
            Verdict::Answered(result) => {
                let reach = match result {
                    DispatchResult::Refused { retry_after_ms } => {
                        Reach::Busy(Duration::from_millis(retry_after_ms))
                    }
                    DispatchResult::Acknowledged | DispatchResult::Finished(_) => Reach::Answered,
                };
                return Climbed { result, rung: Some(rung), reach };
            }
        }
    }
    let error = "the node serves no path that takes tasks".to_owned();
    Climbed { result: failed(TaskFailure::Network, error), rung: None, reach: Reach::Answered }
}

fn unanswered(rung: Rung, timeout: Duration, error: &CallError) -> Climbed {
    let (failure, reach) = match error {
        CallError::Connect(_) => (TaskFailure::Network, Reach::Unreachable),
        // Only call 5 is given the task's own time.
        CallError::Timeout if rung == Rung::Execute => (TaskFailure::Timeout, Reach::Silent),
        CallError::Timeout | CallError::Broken(_) => (TaskFailure::Network, Reach::Silent),
        CallError::TooLarge => (TaskFailure::Permanent, Reach::Answered),
        CallError::NotAllowed(_) => (TaskFailure::Permanent, Reach::Silent),
    };
    let text = match error {
        CallError::Timeout => format!("no answer within {} ms", timeout.as_millis()),
        CallError::Connect(_)
        | CallError::Broken(_)
        | CallError::TooLarge
        | CallError::NotAllowed(_) => error.to_string(),
    };
    // A path that took the connection exists; whether it took the task is not known.
    Climbed { result: failed(failure, text), rung: None, reach }
}

/// Tells a node that an attempt is not wanted any more. Gives whether it understands such calls;
/// `None` when it did not answer.
pub(super) async fn cancel(
    caller: &dyn NodeCaller,
    target: &Target,
    task_id: &TaskId,
    attempt: u32,
    known: Option<Rung>,
) -> Option<bool> {
    let base = target.base(known.unwrap_or(Rung::Execute));
    let url = format!("{base}/api/cancel_task/{}", escape(task_id.as_str()));
    let body = super::message::cancel_body(task_id, attempt);
    let answer = caller.post(Call::new(url, body, CANCEL_TIMEOUT)).await.ok()?;
    Some(match answer.status {
        405 | 501 => false,
        // "No such task" is an answer; "no such path" is not.
        404 => reply::is_of_a_node(&answer),
        _ => true,
    })
}

/// Percent-encodes one segment of a path.
fn escape(segment: &str) -> String {
    let mut escaped = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
