//! The body of a dispatch: the union of the fields that any kind of node looks for (contract 6).
//!
//! Payloads are opaque JSON text and go out as they came in: the text is put together, never
//! parsed again.

use std::fmt::Write as _;

use bytes::Bytes;

use super::ladder::Rung;
use crate::model::{Epoch, Task, TaskId};

/// What a node is told of an attempt, payloads loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// Which task.
    pub task_id: TaskId,
    /// Which try.
    pub attempt: u32,
    /// The reign that placed it; a report that names another is refused.
    pub epoch: Epoch,
    /// What to do.
    pub task_type: String,
    /// Family W's number: 1 is the most urgent.
    pub priority: u8,
    /// 0 to 10, larger is more urgent: what the task-control path of a node calls priority.
    pub importance: u8,
    /// Longest time for the attempt.
    pub timeout_ms: u64,
    /// JSON text; empty for none.
    pub input: String,
    /// JSON text; empty for none.
    pub requirements: String,
    /// JSON text; empty for none.
    pub metadata: String,
}

impl Message {
    /// What is said of `task` in attempt `attempt` of reign `epoch`, still without its payloads.
    #[must_use]
    pub(super) fn of(task: &Task, attempt: u32, epoch: Epoch) -> Self {
        Self {
            task_id: task.task_id.clone(),
            attempt,
            epoch,
            task_type: task.task_type.clone(),
            priority: task.urgency.web4ai(),
            importance: task.urgency.value() / 10,
            timeout_ms: task.timeout_ms,
            input: String::new(),
            requirements: String::new(),
            metadata: String::new(),
        }
    }

    /// The body for one kind of path, as JSON text.
    #[must_use]
    pub(super) fn body(&self, rung: Rung) -> Bytes {
        let priority = match rung {
            Rung::TaskControl => self.importance,
            Rung::Execute | Rung::Tasks | Rung::StartTask => self.priority,
        };
        let payloads = self.input.len() + self.requirements.len() + self.metadata.len();
        let mut body = String::with_capacity(payloads + self.task_type.len() + 256);
        body.push_str("{\"task_id\":");
        push_text(&mut body, self.task_id.as_str());
        body.push_str(",\"task_type\":");
        push_text(&mut body, &self.task_type);
        let (seconds, millis) = (self.timeout_ms / 1000, self.timeout_ms % 1000);
        let _ = write!(body, ",\"priority\":{priority},\"timeout\":{seconds}");
        if millis > 0 {
            let _ = write!(body, ".{millis:03}");
        }
        let _ = write!(body, ",\"attempt\":{},\"epoch\":\"{}\"", self.attempt, self.epoch);
        push_json(&mut body, "requirements", &self.requirements);
        push_json(&mut body, "metadata", &self.metadata);
        if rung == Rung::StartTask {
            body.push_str(",\"type\":");
            push_text(&mut body, &self.task_type);
            push_json(&mut body, "config", &self.input);
        } else {
            push_json(&mut body, "input_data", &self.input);
        }
        body.push('}');
        Bytes::from(body)
    }
}

/// The body of a cancel call.
#[must_use]
pub(super) fn cancel_body(task_id: &TaskId, attempt: u32) -> Bytes {
    let mut body = String::from("{\"task_id\":");
    push_text(&mut body, task_id.as_str());
    let _ = write!(body, ",\"attempt\":{attempt}}}");
    Bytes::from(body)
}

fn push_text(body: &mut String, text: &str) {
    body.push_str(&serde_json::to_string(text).expect("text is always JSON"));
}

/// Adds a member whose value is JSON text already; none is an empty object, which every kind of
/// node takes.
fn push_json(body: &mut String, name: &str, json: &str) {
    let _ = write!(body, ",\"{name}\":{}", if json.is_empty() { "{}" } else { json });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn message() -> Message {
        Message {
            task_id: TaskId::trusted("t\"1"),
            attempt: 2,
            epoch: Epoch { term: 7, member: 3 },
            task_type: "hash \\ file".to_owned(),
            priority: 2,
            importance: 7,
            timeout_ms: 1500,
            input: r#"{"big":12345678901234567890.5}"#.to_owned(),
            requirements: String::new(),
            metadata: "[1,null]".to_owned(),
        }
    }

    #[test]
    fn the_body_is_the_union_of_the_fields() {
        let body = message().body(Rung::Tasks);
        assert!(std::str::from_utf8(&body).unwrap().contains("12345678901234567890.5"));
        let value: Value = serde_json::from_slice(&body).unwrap();
        let expected = json!({
            "task_id": "t\"1", "task_type": "hash \\ file", "priority": 2, "timeout": 1.5,
            "attempt": 2, "epoch": "7.3", "requirements": {}, "metadata": [1, null],
            "input_data": {"big": 12_345_678_901_234_567_890.5},
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn paths_with_their_own_words_get_them() {
        let control: Value = serde_json::from_slice(&message().body(Rung::TaskControl)).unwrap();
        assert_eq!(control["priority"], 7);
        let whole = Message { timeout_ms: 300_000, ..message() };
        let start: Value = serde_json::from_slice(&whole.body(Rung::StartTask)).unwrap();
        assert_eq!(start["type"], "hash \\ file");
        assert_eq!(start["config"]["big"], 12_345_678_901_234_567_890.5);
        assert_eq!(start["timeout"], 300);
    }
}
