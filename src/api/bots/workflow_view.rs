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

/// What was asked for.
#[derive(Debug, Serialize)]
struct DataBody<'a> {
    priority: &'a str,
    tasks: Vec<AskedBody<'a>>,
}

/// A workflow as a task. What came of it is last: it is sent while it is read.
#[derive(Debug, Serialize)]
struct TaskBody<'a> {
    id: DerivedId,
    r#type: &'static str,
    status: &'static str,
    created_at: String,
    updated_at: String,
    /// What went wrong with a task is its result.
    error: (),
    data: DataBody<'a>,
    /// Null while it runs.
    result: Option<OutcomeBody>,
}

/// What came of a workflow, in front of the list of its results.
#[derive(Debug, Serialize)]
struct OutcomeBody {
    workflow_id: DerivedId,
    status: &'static str,
    tasks_executed: u32,
    results: [(); 0],
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
        let texts = (0u32..).zip(&self.row.tasks).map(|(place, task)| {
            load(machine, (self.number, place), BlobPart::StepParams, &task.params)
        });
        let texts: Vec<String> =
            texts.collect::<Result<_, _>>().map_err(|error| pieces::unreadable(&error))?;
        let tasks = self.row.tasks.iter().zip(&texts);
        let tasks = tasks
            .map(|(task, text)| AskedBody {
                r#type: &task.task_type,
                params: fragment(text, "null"),
            })
            .collect();
        let status = self.row.status.as_str();
        let result = self.is_over().then_some(OutcomeBody {
            workflow_id: self.id,
            status,
            tasks_executed: self.row.position,
            results: [],
        });
        let body = encode(&TaskBody {
            id: self.id,
            r#type: "workflow",
            status,
            created_at: iso_micros(self.row.created_at_ms),
            updated_at: iso_micros(self.row.updated_at_ms),
            error: (),
            data: DataBody { priority: &self.row.priority, tasks },
            result,
        });
        if !self.is_over() {
            return Ok(body.into());
        }
        results(machine, self, Frame::around_last_list(body, "]}}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RequestId;

    #[test]
    fn words_of_the_tasks_of_a_workflow() {
        let task = || WorkflowTask {
            task_type: "x".to_owned(),
            params: Payload::Absent,
            result: Payload::Absent,
        };
        let row = |status| Workflow {
            asked: 0,
            request_id: RequestId(1),
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
