//! `GET /task/{id}` (contract 5.4): a task of the queue, an assignment, or a workflow, whichever has
//! the id, all in one shape.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;

use super::pieces;
use super::view::{Assignment, Works, Writer, text_of};
use super::workflow_view::WorkflowShown;
use crate::api::App;
use crate::api::error::ApiError;
use crate::api::fragment::fragment;
use crate::api::params::{Params, Path};
use crate::api::reply::{self, encode};
use crate::api::web4ai::task_page::Shown;
use crate::api::web4ai::words::web4ai_status;
use crate::api::wire_time::iso_micros;
use crate::model::{AssignmentState, DerivedId, TaskId};
use crate::state::State as Tables;
use crate::storage::{Machine, StorageError};

/// What has the id, as it was at one moment.
enum Found {
    Task(Box<Shown>),
    Assignment(Box<(Assignment, DerivedId)>),
    Workflow(Box<WorkflowShown>),
}

#[derive(Debug, Serialize)]
struct TaskBody<'a> {
    id: &'a str,
    r#type: Option<&'a str>,
    data: &'a RawValue,
    status: &'static str,
    created_at: String,
    updated_at: String,
    result: &'a RawValue,
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bot_id: Option<DerivedId>,
}

fn find(state: &Tables, text: &str) -> Option<Found> {
    let task = TaskId::parse(text).ok().and_then(|task_id| Shown::of(state, &task_id));
    if let Some(task) = task {
        return Some(Found::Task(Box::new(task)));
    }
    let id = DerivedId::parse(text)?;
    if let Some(view) = state.assignment_place(id).and_then(|place| state.assignment(place)) {
        let row = Works::default().assignment(state, &view);
        return Some(Found::Assignment(Box::new((row, id))));
    }
    WorkflowShown::of(state, id).map(|workflow| Found::Workflow(Box::new(workflow)))
}

fn task_text(machine: &Arc<Machine>, mut shown: Shown) -> Result<Vec<u8>, StorageError> {
    let payloads = shown.load(machine, true)?;
    let task = &shown.task;
    let updated = task.created_at_ms.max(task.started_at_ms).max(task.completed_at_ms);
    Ok(encode(&TaskBody {
        id: task.task_id.as_str(),
        r#type: Some(&task.task_type),
        data: fragment(payloads.input.as_deref().unwrap_or_default(), "null"),
        status: web4ai_status(task.status, task.last_try),
        created_at: iso_micros(task.created_at_ms),
        updated_at: iso_micros(updated),
        result: fragment(&payloads.result, "null"),
        error: task.error.as_deref(),
        bot_id: None,
    }))
}

fn assignment_text(
    machine: &Arc<Machine>,
    row: &Assignment,
    id: DerivedId,
) -> Result<Vec<u8>, StorageError> {
    let mut writer = Writer::new(machine);
    let (data, result) = (writer.data(row)?, writer.result(row)?);
    let result = result.as_ref().map(text_of);
    let completed = row.state() == AssignmentState::Completed;
    let (created, updated) = row.times();
    Ok(encode(&TaskBody {
        id: &id.to_string(),
        r#type: row.task_type(),
        data: fragment(text_of(&data), "null"),
        status: row.state().as_str(),
        created_at: iso_micros(created),
        updated_at: iso_micros(updated),
        result: fragment(result.filter(|_| completed).unwrap_or_default(), "null"),
        error: result.filter(|_| !completed),
        bot_id: row.bot_id(),
    }))
}

/// See the module's description.
pub(in crate::api) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let mut stamp = app.admit(&params).await?;
    let found = app.show(&mut stamp, |state| find(state, &id));
    let missing = || ApiError::not_found("TASK_NOT_FOUND", "Task not found");
    let machine = app.cluster().view();
    let text = match found.ok_or_else(missing)? {
        Found::Task(shown) => task_text(machine, *shown).map(Body::from),
        Found::Assignment(found) => assignment_text(machine, &found.0, found.1).map(Body::from),
        Found::Workflow(shown) => {
            return Ok(reply::read_body(&stamp, shown.task_body(machine)?));
        }
    };
    let body = text.map_err(|error| pieces::unreadable(&error))?;
    Ok(reply::read_body(&stamp, body))
}
