//! `GET /api/v1/dashboard/tasks/queue`: the heads of the four lists of tasks, for a page.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::App;
use crate::api::error::ApiError;
use crate::api::fragment::fragment;
use crate::api::params::Params;
use crate::api::reply;
use crate::api::web4ai::lists::{Summary, bucket_head, summary};
use crate::api::web4ai::words::{Bucket, web4ai_status};
use crate::api::wire_time::{Epoch, Seconds, epoch_or_null};
use crate::model::{NodeId, Task};
use crate::state::BlobPart;

/// Rows of each list.
const ROWS_MAX: usize = 10;

#[derive(Serialize)]
struct Reply<'a> {
    success: bool,
    queue: Queue<'a>,
    summary: Summary,
}

#[derive(Serialize)]
struct Queue<'a> {
    pending: Vec<Row<'a>>,
    active: Vec<Row<'a>>,
    recent_completed: Vec<Row<'a>>,
    recent_failed: Vec<Row<'a>>,
}

/// Each list has the fields that upstream gives it; like the other lists, all of them have ours.
#[derive(Serialize)]
struct Row<'a> {
    task_id: &'a str,
    task_type: &'a str,
    status: &'static str,
    /// The name here, and nowhere else (contract 8.3).
    priority: &'static str,
    created_at: Epoch,
    timeout: Seconds,
    assigned_nodes: &'a [NodeId],
    node_id: Option<&'a NodeId>,
    agent_id: Option<&'a str>,
    execution_time: f64,
    completed_at: Option<Epoch>,
    error_message: Option<&'a str>,
    requirements: &'a RawValue,
}

fn row<'a>(task: &'a Task, requirements: &'a str) -> Row<'a> {
    let live = task.live_on();
    Row {
        task_id: task.task_id.as_str(),
        task_type: &task.task_type,
        status: web4ai_status(task.status, task.last_try),
        priority: task.urgency.web4ai_name(),
        created_at: Epoch(task.created_at_ms),
        timeout: Seconds(task.timeout_ms),
        assigned_nodes: &task.assigned_nodes,
        node_id: live.or(task.node_id.as_ref()),
        agent_id: task.agent_id.as_deref(),
        execution_time: task.execution_ms as f64 / 1000.0,
        completed_at: epoch_or_null(task.completed_at_ms),
        error_message: task.error.as_deref(),
        requirements: fragment(requirements, "{}"),
    }
}

/// `GET /api/v1/dashboard/tasks/queue`.
pub(in crate::api) async fn queue(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let mut stamp = app.admit(&params).await?;
    let (lists, summary) = app.show(&mut stamp, |state| {
        let lists = Bucket::ALL.map(|bucket| bucket_head(state, bucket, ROWS_MAX));
        (lists, summary(state))
    });
    // What was asked for may be kept outside of memory, so it is read after the state is let go.
    let lists = lists.map(|tasks| {
        let with = |task: Task| requirements(&app, &task).map(|text| (task, text));
        tasks.into_iter().map(with).collect::<Result<Vec<_>, ApiError>>()
    });
    let [pending, active, completed, failed] = lists;
    let lists = [pending?, active?, completed?, failed?];
    let [pending, active, recent_completed, recent_failed] =
        lists.each_ref().map(|tasks| tasks.iter().map(|(task, text)| row(task, text)).collect());
    let queue = Queue { pending, active, recent_completed, recent_failed };
    Ok(reply::read(&stamp, reply::encode(&Reply { success: true, queue, summary })))
}

/// `requirements` as the client sent them; those of a task deleted meanwhile count as absent.
fn requirements(app: &App, task: &Task) -> Result<String, ApiError> {
    let view = app.cluster().view();
    let loaded = view.load_payload(&task.task_id, BlobPart::Requirements, &task.requirements_raw);
    let loaded = loaded.map_err(|error| {
        tracing::error!(task_id = %task.task_id, %error, "requirements cannot be read");
        let text = "the requirements of a task cannot be read";
        ApiError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "STORAGE", text)
    })?;
    Ok(String::from_utf8(loaded.unwrap_or_default().into()).unwrap_or_default())
}
