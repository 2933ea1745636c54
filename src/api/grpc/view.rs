//! A task as HTTP clients see it (contract 8.4), as messages.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::agent::output;
use crate::agent::proto::{
    AgentExecution, Error, Output, TaskMetrics, TaskStatus, TaskStatusResponse, TaskUpdate,
};
use crate::model::TimeMs;

/// Family A's word (contract 8.2) as a number; `PENDING` for words that it does not have.
pub(super) fn status(word: &Value) -> TaskStatus {
    let word = word.as_str().unwrap_or_default().to_ascii_uppercase();
    TaskStatus::from_str_name(&word).unwrap_or(TaskStatus::Pending)
}

/// Whether nothing more will happen.
pub(super) fn is_over(status: TaskStatus) -> bool {
    match status {
        TaskStatus::Completed | TaskStatus::Failed | TaskStatus::Cancelled => true,
        TaskStatus::Pending | TaskStatus::Queued | TaskStatus::Running | TaskStatus::Retrying => {
            false
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn long(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn int(value: &Value) -> i32 {
    i32::try_from(long(value)).unwrap_or(i32::MAX)
}

/// The answer of `GetTaskStatus`.
pub(super) fn task(body: &Value) -> TaskStatusResponse {
    let executions = body["agent_executions"].as_array().map_or(&[][..], Vec::as_slice);
    let metrics = &body["metrics"];
    TaskStatusResponse {
        task_id: text(&body["task_id"]),
        status: status(&body["status"]).into(),
        agent_executions: executions.iter().map(execution).collect(),
        output: task_output(&body["output"]),
        error: error(&body["error"]),
        metrics: Some(TaskMetrics {
            total_duration_ms: long(&metrics["total_duration_ms"]),
            queue_time_ms: long(&metrics["queue_time_ms"]),
            execution_time_ms: long(&metrics["execution_time_ms"]),
            retry_count: int(&metrics["retry_count"]),
            agents_used: int(&metrics["agents_used"]),
        }),
    }
}

fn execution(one: &Value) -> AgentExecution {
    AgentExecution {
        agent_id: text(&one["agent_id"]),
        agent_type: text(&one["agent_type"]),
        status: status(&one["status"]).into(),
        start_time_ms: long(&one["start_time_ms"]),
        end_time_ms: long(&one["end_time_ms"]),
        error_message: text(&one["error"]),
    }
}

/// All of the output as JSON: the mode's summary with `type` and `data` in it (contract 4.5).
fn task_output(body: &Value) -> Option<Output> {
    if body.is_null() {
        return None;
    }
    Some(output(body["type"].as_str().unwrap_or("json_report"), body))
}

fn error(body: &Value) -> Option<Error> {
    if body.is_null() {
        return None;
    }
    Some(Error {
        error_code: text(&body["code"]),
        message: text(&body["message"]),
        stack_trace: String::new(),
        retryable: body["retryable"].as_bool().unwrap_or_default(),
    })
}

/// One update of a stream.
pub(super) fn update(body: &Value, now: TimeMs) -> TaskUpdate {
    let status = status(&body["status"]);
    let executions = body["agent_executions"].as_array().map_or(&[][..], Vec::as_slice);
    let latest = executions.last().unwrap_or(&Value::Null);
    let doing = latest["agent_type"].as_str();
    let error = body["error"]["message"].as_str();
    let word = status.as_str_name().to_ascii_lowercase();
    TaskUpdate {
        task_id: text(&body["task_id"]),
        status: status.into(),
        agent_id: text(&latest["agent_id"]),
        message: match (error, doing) {
            (Some(error), _) => format!("{word}: {error}"),
            (None, Some(agent_type)) if !is_over(status) => format!("{word}: {agent_type}"),
            (None, _) => word,
        },
        progress_percent: progress(body, status, executions),
        timestamp_ms: i64::try_from(now).unwrap_or(i64::MAX),
    }
}

/// Finished steps of all (contract 4.9). The executions are those that were begun; how many steps
/// there are at all stands in `task.steps_total`. A task that is done is done whatever it skipped.
fn progress(body: &Value, status: TaskStatus, executions: &[Value]) -> i32 {
    if status == TaskStatus::Completed {
        return 100;
    }
    let done = executions.iter().filter(|one| one["status"] == "completed").count();
    let begun = executions.len().max(1);
    let total = body["task"]["steps_total"].as_u64().map_or(begun, |total| total as usize);
    i32::try_from(done * 100 / total.max(begun)).unwrap_or(100)
}

/// The `stats` of a health check: one level, values as text.
pub(super) fn stats(health: &Value) -> BTreeMap<String, String> {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let stats = health["stats"].as_object().into_iter().flatten();
    stats.map(|(key, value)| (key.clone(), word(value))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::agent::proto::OutputType;

    fn body(status: &str) -> Value {
        json!({
            "task_id": "t", "status": status,
            "agent_executions": [
                {"agent_id": "a", "agent_type": "data_ingest", "status": "completed",
                 "execution_time_ms": 3, "error": null, "start_time_ms": 5, "end_time_ms": 8},
                {"agent_id": "b", "agent_type": "data_analysis", "status": "running",
                 "execution_time_ms": 0, "error": null},
            ],
            "output": null, "error": null,
            "metrics": {"total_duration_ms": 9, "queue_time_ms": 1, "execution_time_ms": 8,
                        "retry_count": 2, "agents_used": 2},
            "task": {"steps_total": 3},
        })
    }

    #[test]
    fn contract_4_3_and_8_2_words_find_their_numbers() {
        for (word, number) in [
            ("pending", 0),
            ("queued", 1),
            ("running", 2),
            ("completed", 3),
            ("failed", 4),
            ("cancelled", 5),
            ("retrying", 6),
        ] {
            assert_eq!(status(&json!(word)) as i32, number, "{word}");
        }
        assert_eq!(status(&json!("odd")), TaskStatus::Pending);
    }

    #[test]
    fn contract_4_9_tasks_become_messages() {
        let task = task(&body("running"));
        assert_eq!((task.task_id.as_str(), task.status()), ("t", TaskStatus::Running));
        let first = &task.agent_executions[0];
        assert_eq!((first.agent_id.as_str(), first.start_time_ms, first.end_time_ms), ("a", 5, 8));
        let metrics = task.metrics.unwrap();
        assert_eq!((metrics.retry_count, metrics.agents_used, metrics.queue_time_ms), (2, 2, 1));
        assert_eq!((task.output, task.error), (None, None));
    }

    #[test]
    fn contract_4_5_outputs_and_errors_become_messages() {
        let mut body = body("failed");
        body["output"] =
            json!({"type": "alerts", "data": {"alerts": []}, "execution_mode": "sequential"});
        body["error"] = json!({"message": "m", "code": "TIMEOUT", "retryable": false});
        let task = task(&body);
        let output = task.output.unwrap();
        assert_eq!(output.r#type(), OutputType::Alert);
        let json: Value = serde_json::from_str(&output.json_data).unwrap();
        assert_eq!(json, body["output"]);
        let error = task.error.unwrap();
        assert_eq!((error.error_code.as_str(), error.message.as_str()), ("TIMEOUT", "m"));
    }

    #[test]
    fn contract_4_9_progress_is_finished_steps_of_all() {
        let running = update(&body("running"), 7);
        assert_eq!((running.progress_percent, running.timestamp_ms), (33, 7));
        assert_eq!(
            (running.agent_id.as_str(), running.message.as_str()),
            ("b", "running: data_analysis")
        );
        assert_eq!(update(&body("completed"), 7).progress_percent, 100);
        let mut simple = body("queued");
        simple["agent_executions"] = json!([]);
        simple["task"] = json!({});
        assert_eq!(update(&simple, 7).progress_percent, 0);
    }
}
