//! A task as clients see it: the union object of `GET /api/v1/tasks/{id}` (contract 8.4) and the
//! shorter rows of the lists (contract 2.3).

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::words::{agents_status, error_code, web4ai_status};
use crate::api::agents::output::StepRow;
use crate::api::fragment::fragment;
use crate::api::wire_time::{Epoch, Seconds, epoch_or_null};
use crate::model::{NodeId, Task, TaskStatus, TimeMs};

/// The payloads of one task, read from where they are kept; empty for those that are absent.
#[derive(Debug, Default)]
pub(in crate::api) struct Payloads {
    pub(in crate::api) requirements: String,
    pub(in crate::api) metadata: String,
    pub(in crate::api) result: String,
    pub(in crate::api) metrics: String,
    /// Only read when asked for.
    pub(in crate::api) input: Option<String>,
}

/// The whole answer. The same result stands in three places, one for each kind of client.
#[derive(Debug, Serialize)]
pub(in crate::api) struct TaskReply<'a> {
    success: bool,
    task_id: &'a str,
    status: &'static str,
    agent_executions: Vec<AgentExecution<'a>>,
    output: &'a RawValue,
    error: Option<TaskError>,
    metrics: TaskMetrics,
    result: &'a RawValue,
    task: TaskObject<'a>,
}

/// Family A's view of one execution.
#[derive(Debug, Clone, Serialize)]
struct AgentExecution<'a> {
    agent_id: &'a str,
    agent_type: &'a str,
    status: &'static str,
    execution_time_ms: u64,
    error: Option<&'a str>,
    /// Ours: when its newest attempt was placed, and when it ended; `null` before.
    start_time_ms: Option<TimeMs>,
    end_time_ms: Option<TimeMs>,
}

#[derive(Debug, Serialize)]
struct TaskError {
    message: String,
    code: &'static str,
    retryable: bool,
}

#[derive(Debug, Serialize)]
struct TaskMetrics {
    total_duration_ms: u64,
    queue_time_ms: u64,
    execution_time_ms: u64,
    retry_count: u32,
    agents_used: usize,
}

#[derive(Debug, Serialize)]
struct TaskObject<'a> {
    task_id: &'a str,
    task_type: &'a str,
    status: &'static str,
    priority: u8,
    priority_raw: &'a RawValue,
    assigned_nodes: &'a [NodeId],
    created_at: Epoch,
    started_at: Option<Epoch>,
    completed_at: Option<Epoch>,
    timeout: Seconds,
    deadline: Option<Epoch>,
    retry_count: u32,
    max_retries: u32,
    execution_time: f64,
    node_id: Option<&'a NodeId>,
    agent_id: Option<&'a str>,
    requirements: &'a RawValue,
    metadata: &'a RawValue,
    result_data: &'a RawValue,
    error_message: Option<&'a str>,
    performance_metrics: &'a RawValue,
    callback_url: Option<&'a str>,
    /// Ours: which try this is, for those who report it.
    attempt: u32,
    /// Ours: the words of the state machine, which tell a dead letter from a failure.
    state: &'static str,
    /// Ours: how many steps it is done in.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps_total: Option<usize>,
    /// Ours: the limits that it shares with others of its keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<ConcurrencyView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<RateView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_data: Option<&'a RawValue>,
}

#[derive(Debug, Serialize)]
struct ConcurrencyView<'a> {
    key: &'a str,
    max: u32,
}

#[derive(Debug, Serialize)]
struct RateView<'a> {
    key: &'a str,
    max: u32,
    per_seconds: Seconds,
}

/// When the newest attempt was placed, as far as that is still known: an ended attempt is dated by
/// how long it ran.
fn began_ms(task: &Task) -> Option<TimeMs> {
    let placed = task.execution.as_ref().map(|execution| execution.assigned_at_ms);
    let ended = (task.completed_at_ms > 0 && task.attempt > 0)
        .then(|| task.completed_at_ms.saturating_sub(task.execution_ms));
    placed.or_else(|| Some(task.started_at_ms).filter(|at| *at > 0)).or(ended)
}

/// When its newest attempt was begun. A node that answers with the result has not said so before: it
/// began as long ago as it ran.
fn started_ms(task: &Task) -> Option<TimeMs> {
    let told = Some(task.started_at_ms).filter(|at| *at > 0);
    let ran = task.completed_at_ms > 0 && task.attempt > 0 && task.execution_ms > 0;
    told.or_else(|| ran.then(|| task.completed_at_ms.saturating_sub(task.execution_ms)))
}

/// What a step is shown as. An agent answers once, when it is done: what it was given it works on.
pub(super) fn shown(step: &Task) -> TaskStatus {
    match step.status {
        TaskStatus::Assigned if step.requirements.agent_type.is_some() => TaskStatus::Running,
        status => status,
    }
}

/// What the steps of a task add to its view.
#[derive(Debug, Default)]
pub(in crate::api) struct Steps<'a> {
    executions: Vec<AgentExecution<'a>>,
    /// Nodes that were given any of them, each once.
    nodes: Vec<NodeId>,
    /// Every step that is under way waits for another try.
    retrying: bool,
    is_flow: bool,
}

impl<'a> Steps<'a> {
    /// The steps of `task`, those that were ever opened.
    pub(in crate::api) fn of(task: &Task, rows: &'a [StepRow]) -> Self {
        let opened = rows.iter().filter_map(|row| Some((row, row.task.as_ref()?)));
        let executions = opened.clone().map(|(row, step)| AgentExecution {
            agent_id: row.agent_id().unwrap_or_default(),
            agent_type: if row.agent_type.is_empty() { &row.name } else { &row.agent_type },
            status: agents_status(shown(step)),
            execution_time_ms: step.execution_ms,
            error: step.error.as_deref(),
            start_time_ms: began_ms(step),
            end_time_ms: Some(step.completed_at_ms).filter(|at| *at > 0),
        });
        let mut nodes: Vec<NodeId> = Vec::new();
        let of_nodes = opened.clone().filter(|(_, step)| step.is_copy());
        for node in of_nodes.flat_map(|(_, step)| &step.assigned_nodes) {
            if !nodes.contains(node) {
                nodes.push(node.clone());
            }
        }
        let mut open = opened.filter(|(_, step)| !step.status.is_terminal()).peekable();
        let any = open.peek().is_some();
        Self {
            executions: executions.collect(),
            nodes,
            retrying: any && open.all(|(_, step)| step.status == TaskStatus::Retrying),
            is_flow: task.flow.is_some(),
        }
    }
}

/// Contract 8.4. `now` measures what has not ended yet.
pub(in crate::api) fn task_reply<'a>(
    task: &'a Task,
    payloads: &'a Payloads,
    steps: &'a Steps<'a>,
    now: TimeMs,
) -> TaskReply<'a> {
    let status = if steps.retrying && !task.status.is_terminal() {
        TaskStatus::Retrying
    } else {
        task.status
    };
    let result = fragment(&payloads.result, "null");
    TaskReply {
        success: true,
        task_id: task.task_id.as_str(),
        status: agents_status(status),
        agent_executions: if steps.is_flow {
            steps.executions.clone()
        } else {
            agent_executions(task)
        },
        output: result,
        error: task_error(task),
        metrics: task_metrics(task, steps, now),
        result,
        task: TaskObject {
            task_id: task.task_id.as_str(),
            task_type: &task.task_type,
            status: web4ai_status(status, task.last_try),
            priority: task.urgency.web4ai(),
            priority_raw: fragment(&task.priority_raw, "null"),
            assigned_nodes: if steps.is_flow { &steps.nodes } else { &task.assigned_nodes },
            created_at: Epoch(task.created_at_ms),
            started_at: started_ms(task).map(Epoch),
            completed_at: epoch_or_null(task.completed_at_ms),
            timeout: Seconds(task.timeout_ms),
            deadline: task.deadline_ms.map(Epoch),
            retry_count: task.retry_count,
            max_retries: task.max_retries,
            execution_time: task.execution_ms as f64 / 1000.0,
            node_id: holder(task),
            agent_id: task.agent_id.as_deref(),
            requirements: fragment(&payloads.requirements, "{}"),
            metadata: fragment(&payloads.metadata, "{}"),
            result_data: result,
            error_message: task.error.as_deref(),
            performance_metrics: fragment(&payloads.metrics, "{}"),
            callback_url: task.callback_url.as_deref(),
            attempt: task.attempt,
            state: task.status.as_str(),
            steps_total: task.flow.as_ref().map(|flow| flow.steps.len()),
            concurrency: task
                .concurrency
                .as_ref()
                .map(|limit| ConcurrencyView { key: &limit.key, max: limit.max }),
            rate_limit: task.rate.as_ref().map(|limit| RateView {
                key: &limit.key,
                max: limit.max,
                per_seconds: Seconds(limit.per_ms),
            }),
            input_data: payloads.input.as_deref().map(|input| fragment(input, "null")),
        },
    }
}

/// Who holds it, or held it at its end.
fn holder(task: &Task) -> Option<&NodeId> {
    task.live_on().or(task.node_id.as_ref())
}

/// The one execution that ended the task, if an agent was named with it.
fn agent_executions(task: &Task) -> Vec<AgentExecution<'_>> {
    let Some(agent_id) = task.agent_id.as_deref() else { return Vec::new() };
    vec![AgentExecution {
        agent_id,
        agent_type: &task.task_type,
        status: agents_status(task.status),
        execution_time_ms: task.execution_ms,
        error: task.error.as_deref(),
        start_time_ms: began_ms(task),
        end_time_ms: Some(task.completed_at_ms).filter(|at| *at > 0),
    }]
}

fn task_error(task: &Task) -> Option<TaskError> {
    let code = error_code(task.status, task.last_try)?;
    let said = task.error.as_deref().unwrap_or_default();
    let message = match task.status {
        TaskStatus::Cancelled => format!("Cancelled: {said}"),
        TaskStatus::Pending
        | TaskStatus::Waiting
        | TaskStatus::Stepping
        | TaskStatus::Retrying
        | TaskStatus::Assigned
        | TaskStatus::Running
        | TaskStatus::Completed
        | TaskStatus::Failed
        | TaskStatus::TimedOut
        | TaskStatus::DeadLetter => said.to_owned(),
    };
    Some(TaskError { message, code, retryable: false })
}

fn task_metrics(task: &Task, steps: &Steps<'_>, now: TimeMs) -> TaskMetrics {
    let ended = if task.completed_at_ms > 0 { task.completed_at_ms } else { now };
    let placed = || task.execution.as_ref().map(|execution| execution.assigned_at_ms);
    let left_queue = started_ms(task).or_else(placed).unwrap_or(ended);
    TaskMetrics {
        total_duration_ms: ended.saturating_sub(task.created_at_ms),
        queue_time_ms: left_queue.saturating_sub(task.created_at_ms),
        execution_time_ms: task.execution_ms,
        retry_count: task.retry_count,
        agents_used: if steps.is_flow {
            steps.executions.iter().filter(|step| !step.agent_id.is_empty()).count()
        } else {
            usize::from(task.agent_id.is_some())
        },
    }
}

/// A row of one of the four lists (contract 2.3).
#[derive(Debug)]
pub(super) struct TaskRow<'a>(pub(super) Cow<'a, Task>);

impl Serialize for TaskRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        row_fields(&self.0).serialize(serializer)
    }
}

/// Each list has the fields that upstream gives it, and all of them have ours.
#[derive(Debug, Serialize)]
struct RowFields<'a> {
    task_id: &'a str,
    task_type: &'a str,
    status: &'static str,
    priority: u8,
    created_at: Epoch,
    timeout: Seconds,
    assigned_nodes: &'a [NodeId],
    node_id: Option<&'a NodeId>,
    attempt: u32,
    retry_count: u32,
    execution_time: f64,
    completed_at: Option<Epoch>,
    error_message: Option<&'a str>,
}

fn row_fields(task: &Task) -> RowFields<'_> {
    RowFields {
        task_id: task.task_id.as_str(),
        task_type: &task.task_type,
        status: web4ai_status(task.status, task.last_try),
        priority: task.urgency.web4ai(),
        created_at: Epoch(task.created_at_ms),
        timeout: Seconds(task.timeout_ms),
        assigned_nodes: &task.assigned_nodes,
        node_id: holder(task),
        attempt: task.attempt,
        retry_count: task.retry_count,
        execution_time: task.execution_ms as f64 / 1000.0,
        completed_at: epoch_or_null(task.completed_at_ms),
        error_message: task.error.as_deref(),
    }
}

#[cfg(test)]
pub(in crate::api) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{Execution, TaskId, Urgency};

    /// A task that waits, for tables to start from.
    pub(in crate::api) fn waiting() -> Task {
        Task {
            task_type: "thumb".to_owned(),
            urgency: Urgency::from_web4ai(2),
            priority_raw: "\"high\"".to_owned(),
            timeout_ms: 300_000,
            max_retries: 3,
            ..Task::blank(TaskId::trusted("t-1"), 1, 1_700_000_000_000, 1)
        }
    }

    fn render(task: &Task, payloads: &Payloads) -> Value {
        let steps = Steps::default();
        let reply = task_reply(task, payloads, &steps, 1_700_000_002_000);
        serde_json::from_str(&serde_json::to_string(&reply).unwrap()).unwrap()
    }

    #[test]
    fn contract_8_4_a_waiting_task_has_every_key() {
        let value = render(&waiting(), &Payloads::default());
        let expected = json!({
            "success": true, "task_id": "t-1", "status": "queued", "agent_executions": [],
            "output": null, "error": null, "result": null,
            "metrics": {"total_duration_ms": 2000, "queue_time_ms": 2000, "execution_time_ms": 0,
                        "retry_count": 0, "agents_used": 0},
            "task": {
                "task_id": "t-1", "task_type": "thumb", "status": "pending", "priority": 2,
                "priority_raw": "high", "assigned_nodes": [], "created_at": 1_700_000_000.0,
                "started_at": null, "completed_at": null, "timeout": 300, "deadline": null,
                "retry_count": 0, "max_retries": 3, "execution_time": 0.0, "node_id": null,
                "agent_id": null, "requirements": {}, "metadata": {}, "result_data": null,
                "error_message": null, "performance_metrics": {}, "callback_url": null,
                "attempt": 0, "state": "pending"
            }
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn contract_8_4_a_completed_task_shows_its_result_three_times() {
        let task = Task {
            status: TaskStatus::Completed,
            attempt: 2,
            retry_count: 1,
            started_at_ms: 1_700_000_000_500,
            completed_at_ms: 1_700_000_001_500,
            node_id: Some(NodeId::trusted("n1")),
            agent_id: Some("a1".to_owned()),
            execution_ms: 1000,
            ..waiting()
        };
        let payloads = Payloads { result: r#"{"x": [1]}"#.to_owned(), ..Payloads::default() };
        let value = render(&task, &payloads);
        for place in ["/output", "/result", "/task/result_data"] {
            assert_eq!(value.pointer(place).unwrap(), &json!({"x": [1]}), "{place}");
        }
        let metrics = json!({"total_duration_ms": 1500, "queue_time_ms": 500,
            "execution_time_ms": 1000, "retry_count": 1, "agents_used": 1});
        assert_eq!(value["metrics"], metrics);
        assert_eq!(value["task"]["completed_at"], 1_700_000_001.5);
        assert_eq!(value["agent_executions"][0]["agent_id"], "a1");
    }

    #[test]
    fn a_task_that_its_node_did_at_once_was_begun_as_long_ago_as_it_ran() {
        let task = Task {
            status: TaskStatus::Completed,
            attempt: 1,
            completed_at_ms: 1_700_000_008_034,
            node_id: Some(NodeId::trusted("n1")),
            execution_ms: 8023,
            ..waiting()
        };
        let value = render(&task, &Payloads::default());
        assert_eq!(value["task"]["started_at"], 1_700_000_000.011);
        let metrics = &value["metrics"];
        assert_eq!(
            (&metrics["queue_time_ms"], &metrics["execution_time_ms"]),
            (&json!(11), &json!(8023))
        );
    }

    #[test]
    fn contract_8_2_errors_by_status() {
        for (status, error, expected) in [
            (
                TaskStatus::Cancelled,
                "why",
                json!({"message": "Cancelled: why",
                "code": "CANCELLED", "retryable": false}),
            ),
            (
                TaskStatus::TimedOut,
                "late",
                json!({"message": "late", "code": "TIMEOUT",
                "retryable": false}),
            ),
            (
                TaskStatus::DeadLetter,
                "e",
                json!({"message": "e", "code": "EXECUTION_FAILED",
                "retryable": false}),
            ),
            (TaskStatus::Retrying, "e", Value::Null),
        ] {
            let task = Task { status, error: Some(error.to_owned()), ..waiting() };
            let value = render(&task, &Payloads::default());
            assert_eq!(value["error"], expected, "{status:?}");
            assert_eq!(value["task"]["error_message"], error);
        }
    }

    #[test]
    fn a_live_task_names_its_holder() {
        let task = Task {
            status: TaskStatus::Running,
            execution: Some(Execution {
                attempt: 1,
                node_id: NodeId::trusted("n7"),
                epoch: crate::model::Epoch::default(),
                assigned_at_ms: 1_700_000_000_100,
                started_at_ms: 1_700_000_000_200,
            }),
            ..waiting()
        };
        let value = serde_json::to_value(TaskRow(Cow::Borrowed(&task))).unwrap();
        assert_eq!(
            (value["node_id"].as_str(), value["status"].as_str()),
            (Some("n7"), Some("running"))
        );
    }
}
