//! Dead letters: tasks that used up every retry. Listed, tried again, deleted.

use std::borrow::Cow;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::task_view::TaskRow;
use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::list_query::{ListKind, ListQuery, number_cursor};
use crate::api::object::Object;
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::cluster::Consistency;
use crate::model::{Task, TaskId, TaskStatus};
use crate::state::{Command, Outcome, State as Tables};

const LIMIT: u64 = 50;
/// Dead letters that one request for all of them takes. More are left for the next one.
const BULK_MAX: usize = 1000;

#[derive(Serialize)]
struct ListReply<'a> {
    success: bool,
    tasks: Vec<TaskRow<'a>>,
    count: usize,
    /// All dead letters; null of a part, which only counting them would tell.
    total: Option<u64>,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct Changed {
    success: bool,
    /// Tasks that it took effect on.
    accepted: u32,
    /// Tasks that are no dead letters, or not any more.
    skipped: u32,
    /// Dead letters there are left.
    remaining: u64,
}

/// Cursors are places in the order of submission, which never change.
const DEAD: ListKind = ListKind {
    name: "dead-letters",
    sorts: &["created_at"],
    descending: true,
    filters: &["task_type"],
    own: &[],
};

/// `GET /api/v1/dead-letters?limit=&cursor=&task_type=&order=`, newest task first.
pub(in crate::api) async fn list(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.limit(LIMIT)?;
    let query = ListQuery::parse(&DEAD, &params)?;
    let after = number_cursor(&params)?;
    let task_type = params.get("task_type").filter(|word| !word.is_empty());
    let mut stamp = app.admit(&params).await?;
    let body = app.show(&mut stamp, |state| {
        let wanted = |task: &Cow<'_, Task>| {
            query.is_behind(after, task.seq)
                && task_type.is_none_or(|wanted| task.task_type == wanted)
                && query.window.holds(task.created_at_ms)
        };
        let dead = state.tasks_by_status(TaskStatus::DeadLetter);
        let rows: Vec<_> = match query.descending {
            true => dead.rev().filter(wanted).take(limit + 1).collect(),
            false => dead.filter(wanted).take(limit + 1).collect(),
        };
        let more = rows.len() > limit;
        let next_cursor = rows.get(limit - 1).filter(|_| more).map(|task| task.seq.to_string());
        let tasks: Vec<_> = rows.into_iter().take(limit).map(TaskRow).collect();
        let is_whole = task_type.is_none() && query.window.is_open();
        reply::encode(&ListReply {
            success: true,
            count: tasks.len(),
            total: is_whole.then(|| state.tasks_in(TaskStatus::DeadLetter)),
            tasks,
            next_cursor,
        })
    });
    Ok(reply::read(&stamp, body))
}

/// The tasks a request names: `task_ids`, or `all: true` for the oldest ones.
async fn named(app: &App, body: &Object<'_>) -> Result<Vec<TaskId>, ApiError> {
    let invalid = |text: String| ApiError::bad_request("INVALID_FIELD", text);
    if body.flag("all")?.unwrap_or(false) {
        // What this member shows may be old, and all means all there are.
        app.barrier(Consistency::Linearizable).await?;
        let dead = |state: &Tables| {
            let dead = state.tasks_by_status(TaskStatus::DeadLetter);
            dead.take(BULK_MAX).map(|task| task.task_id.clone()).collect()
        };
        return Ok(app.cluster().view().read(dead));
    }
    let ids = body.texts("task_ids")?;
    if ids.is_empty() || ids.len() > BULK_MAX {
        return Err(invalid(format!(
            "task_ids must hold 1 to {BULK_MAX} ids, or all must be true"
        )));
    }
    let parse = |id: &String| TaskId::parse(id);
    ids.iter().map(parse).collect::<Result<_, _>>().map_err(|error| invalid(error.to_string()))
}

async fn change(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    task_ids: Vec<TaskId>,
    command: fn(Vec<TaskId>) -> Command,
) -> Result<Response, ApiError> {
    if task_ids.is_empty() {
        let none = Changed { success: true, accepted: 0, skipped: 0, remaining: 0 };
        return Ok(reply::json(reply::encode(&none)));
    }
    let Written { index, outcome } = app.write(ticket, caller, command(task_ids)).await?;
    let Outcome::Judged { accepted, stale } = outcome else {
        return Err(key_reused(ticket.request_id));
    };
    app.caught_up(ticket, index).await?;
    let remaining = app.cluster().view().read(|state| state.tasks_in(TaskStatus::DeadLetter));
    let changed = Changed { success: true, accepted, skipped: stale, remaining };
    Ok(reply::written(ticket, index, &changed))
}

/// `POST /api/v1/dead-letters/replay`: under their own ids, as if they had never been tried.
pub(in crate::api) async fn replay(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let task_ids = named(&app, &Object::parse(&body)?).await?;
    change(&app, ticket, &caller, task_ids, |task_ids| Command::ReplayTasks { task_ids }).await
}

/// `POST /api/v1/dead-letters/purge`.
pub(in crate::api) async fn purge(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let task_ids = named(&app, &Object::parse(&body)?).await?;
    change(&app, ticket, &caller, task_ids, |task_ids| Command::PurgeTasks { task_ids }).await
}

async fn one(app: &App, task_id: &str) -> Result<Vec<TaskId>, ApiError> {
    app.barrier(Consistency::Linearizable).await?;
    let not_found = || ApiError::not_found("TASK_NOT_FOUND", "Task not found");
    let task_id = TaskId::parse(task_id).map_err(|_| not_found())?;
    let status = app.cluster().view().read(|state| state.task(&task_id).map(|task| task.status));
    match status {
        None => Err(not_found()),
        Some(TaskStatus::DeadLetter) => Ok(vec![task_id]),
        Some(_) => Err(ApiError::conflict("NOT_A_DEAD_LETTER", "the task is no dead letter")),
    }
}

/// `POST /api/v1/dead-letters/{task_id}/replay`.
pub(in crate::api) async fn replay_one(
    State(app): State<App>,
    Path(task_id): Path<String>,
    ticket: Ticket,
    caller: Caller,
) -> Result<Response, ApiError> {
    let task_ids = one(&app, &task_id).await?;
    change(&app, ticket, &caller, task_ids, |task_ids| Command::ReplayTasks { task_ids }).await
}

/// `DELETE /api/v1/dead-letters/{task_id}`.
pub(in crate::api) async fn purge_one(
    State(app): State<App>,
    Path(task_id): Path<String>,
    ticket: Ticket,
    caller: Caller,
) -> Result<Response, ApiError> {
    let task_ids = one(&app, &task_id).await?;
    change(&app, ticket, &caller, task_ids, |task_ids| Command::PurgeTasks { task_ids }).await
}
