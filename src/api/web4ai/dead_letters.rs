//! Dead letters: tasks that used up every retry. Listed, tried again, deleted.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;

use super::task_walk::{Row, Walk};
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
use crate::state::{Command, Outcome, ROWS_PER_COMMAND_MAX, State as Tables};

const LIMIT: u64 = 50;
/// Dead letters that one request for all of them takes. More are left for the next one.
const BULK_MAX: usize = 1000;
/// Dead letters looked at while the state is held.
const CHUNK: usize = 500;

#[derive(Serialize)]
struct ListReply<'a> {
    success: bool,
    tasks: Vec<&'a RawValue>,
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

/// `GET /api/v1/dead-letters?limit=&cursor=&task_type=&order=`, newest task first. A page ends early
/// when few match.
pub(in crate::api) async fn list(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.limit(LIMIT)?;
    let mut query = ListQuery::parse(&DEAD, &params)?;
    query.limit = limit;
    let after = number_cursor(&params)?.map(|seq| (0, seq));
    let task_type = params.get("task_type").filter(|word| !word.is_empty());
    let mut stamp = app.admit(&params).await?;
    let walk = Walk::of_status(&query, TaskStatus::DeadLetter, task_type);
    let (rows, next) = walk.page(&app, &mut stamp, after).await;
    let total = app.show(&mut stamp, |state| state.tasks_in(TaskStatus::DeadLetter));
    let body = reply::encode(&ListReply {
        success: true,
        count: rows.len(),
        total: (!walk.is_filtered()).then_some(total),
        tasks: rows.iter().map(|Row(_, row)| &**row).collect(),
        next_cursor: next.map(|(_, seq)| seq.to_string()),
    });
    Ok(reply::read(&stamp, body))
}

/// What is done with dead letters.
struct Change {
    /// Whether that may be done with a task.
    may: fn(&Tables, &Task) -> bool,
    command: fn(Vec<TaskId>) -> Command,
}

const REPLAY: Change =
    Change { may: Tables::may_be_replayed, command: |task_ids| Command::ReplayTasks { task_ids } };
const PURGE: Change =
    Change { may: Tables::may_be_purged, command: |task_ids| Command::PurgeTasks { task_ids } };

/// The oldest dead letters that `may` lets through, as many as one request takes: however many there
/// are before them that it does not.
#[derive(Default)]
struct Oldest {
    task_ids: Vec<TaskId>,
    /// With their steps they are no more than one command may change.
    rows: usize,
    /// The last one looked at.
    after: Option<u64>,
}

impl Oldest {
    /// Looks at some more; gives whether there may be others.
    fn step(&mut self, state: &Tables, may: fn(&Tables, &Task) -> bool) -> bool {
        let dead = state.task_seqs(&[TaskStatus::DeadLetter], self.after, false);
        for (scanned, seq) in dead.enumerate() {
            if self.task_ids.len() == BULK_MAX {
                return false;
            }
            if scanned == CHUNK {
                return true;
            }
            self.after = Some(seq);
            let Some(task) = state.task_at(seq).filter(|task| may(state, task)) else { continue };
            self.rows += task.rows();
            if self.rows > ROWS_PER_COMMAND_MAX {
                return false;
            }
            self.task_ids.push(task.task_id.clone());
        }
        false
    }
}

/// The tasks a request names: `task_ids`, or `all: true` for the oldest ones.
async fn named(app: &App, body: &Object<'_>, change: &Change) -> Result<Vec<TaskId>, ApiError> {
    let invalid = |text: String| ApiError::bad_request("INVALID_FIELD", text);
    let ids = body.texts("task_ids")?;
    if body.flag("all")?.unwrap_or(false) {
        // Whoever names some does not mean all others too, and what is purged is gone.
        if !ids.is_empty() {
            return Err(invalid("either task_ids or all: true, not both".to_owned()));
        }
        // What this member shows may be old, and all means all there are.
        app.barrier(Consistency::Linearizable).await?;
        let mut oldest = Oldest::default();
        while app.cluster().view().read(|state| oldest.step(state, change.may)) {
            tokio::task::yield_now().await;
        }
        return Ok(oldest.task_ids);
    }
    if ids.is_empty() || ids.len() > BULK_MAX {
        return Err(invalid(format!(
            "task_ids must hold 1 to {BULK_MAX} ids, or all must be true"
        )));
    }
    let parse = |id: &String| TaskId::parse(id);
    ids.iter().map(parse).collect::<Result<_, _>>().map_err(|error| invalid(error.to_string()))
}

/// What became of tasks that were named.
struct Judged {
    index: u64,
    accepted: u32,
    skipped: u32,
    /// What the only one that was named was, if it was left alone.
    left_alone: Option<Option<TaskStatus>>,
}

async fn judged(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    command: Command,
) -> Result<Judged, ApiError> {
    let Written { index, outcome } = app.write(ticket, caller, command).await?;
    let (accepted, skipped, left_alone) = match outcome {
        Outcome::Judged { accepted, stale } => (accepted, stale, None),
        Outcome::LeftAlone { status } => (0, 1, Some(status)),
        _ => return Err(key_reused(ticket.request_id)),
    };
    app.caught_up(ticket, index).await?;
    Ok(Judged { index, accepted, skipped, left_alone })
}

fn remaining(app: &App) -> u64 {
    app.cluster().view().read(|state| state.tasks_in(TaskStatus::DeadLetter))
}

fn changed(app: &App, ticket: Ticket, judged: &Judged) -> Response {
    let remaining = remaining(app);
    let Judged { index, accepted, skipped, .. } = *judged;
    reply::written(ticket, index, &Changed { success: true, accepted, skipped, remaining })
}

/// Of many.
async fn change(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    body: &[u8],
    change: &Change,
) -> Result<Response, ApiError> {
    let task_ids = named(app, &Object::parse(body)?, change).await?;
    // One that may be sent again is written all the same: there may be none because it has been here
    // before, and there may be others by the time it comes again.
    if task_ids.is_empty() && !ticket.is_named {
        let none = Changed { success: true, accepted: 0, skipped: 0, remaining: remaining(app) };
        return Ok(reply::json(reply::encode(&none)));
    }
    Ok(changed(app, ticket, &judged(app, ticket, caller, (change.command)(task_ids)).await?))
}

/// `POST /api/v1/dead-letters/replay`: under their own ids, as if they had never been tried.
pub(in crate::api) async fn replay(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    change(&app, ticket, &caller, &body, &REPLAY).await
}

/// `POST /api/v1/dead-letters/purge`.
pub(in crate::api) async fn purge(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    change(&app, ticket, &caller, &body, &PURGE).await
}

/// Of one. Whether it is a dead letter is for apply to say, which knows whether this request has been
/// here before, and what it was then if it was none.
async fn change_one(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    task_id: &str,
    command: fn(Vec<TaskId>) -> Command,
) -> Result<Response, ApiError> {
    let not_found = || ApiError::not_found("TASK_NOT_FOUND", "Task not found");
    let task_id = TaskId::parse(task_id).map_err(|_| not_found())?;
    let judged = judged(app, ticket, caller, command(vec![task_id])).await?;
    let refused = match judged.left_alone {
        Some(None) => Err(not_found()),
        // Its callback is still to be made, or it is a job.
        None | Some(Some(TaskStatus::DeadLetter)) => Ok(()),
        Some(Some(_)) => Err(ApiError::conflict("NOT_A_DEAD_LETTER", "the task is no dead letter")),
    };
    refused.map_err(|error| error.with_request_id(ticket.request_id))?;
    Ok(changed(app, ticket, &judged))
}

/// `POST /api/v1/dead-letters/{task_id}/replay`.
pub(in crate::api) async fn replay_one(
    State(app): State<App>,
    Path(task_id): Path<String>,
    ticket: Ticket,
    caller: Caller,
) -> Result<Response, ApiError> {
    change_one(&app, ticket, &caller, &task_id, |task_ids| Command::ReplayTasks { task_ids }).await
}

/// `DELETE /api/v1/dead-letters/{task_id}`.
pub(in crate::api) async fn purge_one(
    State(app): State<App>,
    Path(task_id): Path<String>,
    ticket: Ticket,
    caller: Caller,
) -> Result<Response, ApiError> {
    change_one(&app, ticket, &caller, &task_id, |task_ids| Command::PurgeTasks { task_ids }).await
}
