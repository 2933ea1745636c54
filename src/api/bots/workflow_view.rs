//! Workflows as clients see them (contract 5.4). A result may have 1 MiB, and a workflow a hundred of
//! them, so they are read while they are sent.

use std::sync::Arc;

use axum::body::Body;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::pieces::{self, Frame};
use crate::api::error::ApiError;
use crate::api::fragment::fragment;
use crate::api::reply::encode;
use crate::api::wire_time::iso_micros;
use crate::model::{DerivedId, Payload, Workflow, WorkflowStatus, WorkflowTask};
use crate::state::{BlobPart, State as Tables, blob_owner};
use crate::storage::{Machine, StorageError};

/// A workflow as it was at one moment; its payloads are still to be read.
#[derive(Debug, Clone)]
pub(super) struct WorkflowShown {
    number: u64,
    id: DerivedId,
    pub(super) row: Workflow,
}

#[derive(Debug, Serialize)]
struct ResultBody<'a> {
    task_type: &'a str,
    result: &'a RawValue,
}

#[derive(Debug, Serialize)]
struct AskedBody<'a> {
    r#type: &'a str,
    params: &'a RawValue,
}

/// The text of an object that is not empty with one more field, given as JSON text.
fn with_field(mut object: Vec<u8>, key: &str, json: &[u8]) -> Vec<u8> {
    object.pop();
    object.extend_from_slice(format!(",\"{key}\":").as_bytes());
    object.extend_from_slice(json);
    object.push(b'}');
    object
}

/// What a list says of a workflow.
pub(super) fn summary(id: DerivedId, row: &Workflow) -> Value {
    let ended = row.ended_at_ms;
    json!({
        "workflow_id": id,
        "status": row.status.as_str(),
        "priority": row.priority,
        "tasks_executed": row.position,
        "total_tasks": row.tasks.len(),
        "created_at": iso_micros(row.created_at_ms),
        "updated_at": iso_micros(row.updated_at_ms),
        "completed_at": (ended > 0).then(|| iso_micros(ended)),
        "timestamp": iso_micros(if ended > 0 { ended } else { row.updated_at_ms }),
    })
}

/// Where the task at a place stands.
fn task_status(row: &Workflow, place: usize) -> &'static str {
    match row.status {
        _ if place < row.position as usize => "completed",
        WorkflowStatus::Cancelled => "cancelled",
        WorkflowStatus::Running if place == row.position as usize => "running",
        WorkflowStatus::Running | WorkflowStatus::Completed => "waiting",
    }
}

fn load(
    machine: &Machine,
    (number, place): (u64, u32),
    part: BlobPart,
    payload: &Payload,
) -> Result<String, StorageError> {
    let loaded = machine.load_payload(&blob_owner(number, place), part, payload)?;
    Ok(String::from_utf8(loaded.unwrap_or_default().into()).unwrap_or_default())
}

/// The results of the tasks that were done, as items of a list.
fn results(machine: &Arc<Machine>, shown: WorkflowShown, frame: Frame) -> Result<Body, ApiError> {
    let machine = Arc::clone(machine);
    let WorkflowShown { number, row, .. } = shown;
    let done = row.tasks.into_iter().take(row.position as usize);
    let done = (0u32..).zip(done);
    pieces::body(frame, done, move |to, (place, task): (u32, WorkflowTask)| {
        let text = load(&machine, (number, place), BlobPart::StepResult, &task.result)?;
        let result = fragment(&text, "null");
        to.extend_from_slice(&encode(&ResultBody { task_type: &task.task_type, result }));
        Ok(())
    })
}

impl WorkflowShown {
    pub(super) fn of(state: &Tables, id: DerivedId) -> Option<Self> {
        let number = state.workflow_number(id)?;
        Some(Self { number, id, row: state.workflow(number)?.clone() })
    }

    pub(super) fn is_over(&self) -> bool {
        self.row.status != WorkflowStatus::Running
    }

    /// The family's reply, with what we know beside it.
    pub(super) fn body(self, machine: &Arc<Machine>) -> Result<Body, ApiError> {
        let tasks = self.row.tasks.iter().enumerate();
        let tasks: Vec<Value> = tasks
            .map(|(place, task)| {
                json!({"task_type": task.task_type, "status": task_status(&self.row, place)})
            })
            .collect();
        let mut object = summary(self.id, &self.row);
        object["tasks"] = tasks.into();
        results(machine, self, Frame::of_object(encode(&object), "results"))
    }

    /// As `GET /task/{id}` shows it: what was asked for, and once it is over what came of it.
    pub(super) fn task_body(self, machine: &Arc<Machine>) -> Result<Body, ApiError> {
        // Parameters may have 16 MiB in all, as a request may, and are sent on as they came.
        let mut tasks = vec![b'['];
        for (place, task) in (0u32..).zip(&self.row.tasks) {
            let params = load(machine, (self.number, place), BlobPart::StepParams, &task.params)
                .map_err(|error| pieces::unreadable(&error))?;
            let params = fragment(&params, "null");
            tasks.extend_from_slice(if place > 0 { b"," } else { b"" });
            tasks.extend_from_slice(&encode(&AskedBody { r#type: &task.task_type, params }));
        }
        tasks.push(b']');
        let object = json!({
            "id": self.id,
            "type": "workflow",
            "status": self.row.status.as_str(),
            "created_at": iso_micros(self.row.created_at_ms),
            "updated_at": iso_micros(self.row.updated_at_ms),
            // What went wrong with a task is its result.
            "error": null,
        });
        let data = json!({ "priority": self.row.priority });
        let mut head =
            with_field(encode(&object), "data", &with_field(encode(&data), "tasks", &tasks));
        if !self.is_over() {
            return Ok(with_field(head, "result", b"null").into());
        }
        let result = json!({
            "workflow_id": self.id,
            "status": self.row.status.as_str(),
            "tasks_executed": self.row.position,
        });
        let inner = Frame::of_object(encode(&result), "results");
        head.pop();
        head.extend_from_slice(b",\"result\":");
        head.extend_from_slice(&inner.head);
        results(machine, self, Frame { head, tail: "]}}" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_tasks_of_a_workflow() {
        let task = || WorkflowTask {
            task_type: "x".to_owned(),
            params: Payload::Absent,
            result: Payload::Absent,
        };
        let row = |status| Workflow {
            tasks: vec![task(), task(), task()],
            priority: "normal".to_owned(),
            position: 1,
            status,
            created_at_ms: 1,
            updated_at_ms: 1,
            ended_at_ms: 0,
        };
        for (status, words) in [
            (WorkflowStatus::Running, ["completed", "running", "waiting"]),
            (WorkflowStatus::Cancelled, ["completed", "cancelled", "cancelled"]),
        ] {
            let row = row(status);
            assert_eq!([0, 1, 2].map(|place| task_status(&row, place)), words);
        }
    }
}
