//! Doors of single tasks and batches: submit, get, cancel, report (contract 2.3, 2.7, 4.2).

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;

use super::report;
use super::submit::{self, Defaults, Refusal, Shape, Submission};
use super::task_page::Shown;
use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::Object;
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::cluster::Consistency;
use crate::model::{NodeId, RequestId, TaskId, TaskStatus};
use crate::state::{
    Command, Outcome, ROWS_PER_COMMAND_MAX, State as Tables, TaskSpec, derive_task_id,
};

/// Bodies above this size are read off the threads that serve: reading ten thousand tasks takes
/// milliseconds, which others would wait for.
const READ_APART_BYTES: usize = 256 * 1024;
const REASON_BYTES_MAX: usize = 4096;

#[derive(Serialize)]
struct Submitted<'a> {
    success: bool,
    task_id: &'a str,
    status: &'static str,
    message: &'static str,
    estimated_completion_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Duplicate>,
}

#[derive(Serialize)]
struct Duplicate {
    duplicate: bool,
}

#[derive(Serialize)]
struct BatchSubmitted<'a> {
    success: bool,
    task_ids: &'a [TaskId],
    created: u32,
    duplicates: u32,
}

#[derive(Serialize)]
struct Done {
    success: bool,
    message: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

pub(in crate::api) fn defaults(app: &App) -> Defaults {
    app.cluster().view().read(|state| {
        let policy = state.policy();
        Defaults {
            timeout_ms: policy.task_timeout_ms,
            max_retries: policy.max_retries,
            agents_ascending: app.settings(state).agents_ascending,
            estimates: state.estimates(),
            reach: Arc::clone(&policy.reach),
        }
    })
}

/// The same once this member has applied what was committed when it was asked: a pipeline that was
/// just defined through another one is known then.
async fn caught_up(app: &App) -> Result<Defaults, ApiError> {
    app.barrier(Consistency::Linearizable).await?;
    Ok(defaults(app))
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let error = Self::bad_request(refusal.code, refusal.error);
        match refusal.shape {
            Shape::Web4ai => error,
            Shape::Agents => error.of_submission(refusal.task_id),
        }
    }
}

/// `POST /api/v1/tasks`.
pub(in crate::api) async fn submit(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let Written { index, outcome } = match submission(&app, &body).await {
        Ok(Submission { spec, .. }) => {
            drop(body);
            app.write(ticket, &caller, Command::SubmitTasks(vec![spec])).await?
        }
        Err(refused) => accepted_before(&app, ticket, refused)?,
    };
    let Outcome::TaskSubmitted { task_id, duplicate, estimate_ms } = outcome else {
        return Err(key_reused(ticket.request_id));
    };
    let submitted = Submitted {
        success: true,
        task_id: task_id.as_str(),
        status: "queued",
        message: "Task submitted successfully",
        estimated_completion_ms: estimate_ms.unwrap_or(submit::ESTIMATE_MS),
        details: duplicate.then_some(Duplicate { duplicate }),
    };
    Ok(reply::written(ticket, index, &submitted))
}

/// What a request that would be refused by now was answered before: what it was accepted by then, a
/// pipeline or a host, may not be there any more.
fn accepted_before(app: &App, ticket: Ticket, refused: ApiError) -> Result<Written, ApiError> {
    app.recorded(ticket).unwrap_or(Err(refused))
}

async fn submission(app: &App, body: &Bytes) -> Result<Submission, ApiError> {
    let body = Object::parse(body)?;
    match submit::parse(&body, &defaults(app)) {
        Ok(Submission { is_guess: true, .. }) | Err(Refusal { is_guess: true, .. }) => {
            Ok(submit::parse(&body, &caught_up(app).await?)?)
        }
        known => Ok(known?),
    }
}

/// `POST /api/v1/tasks/batch`: all of the tasks or none.
pub(in crate::api) async fn submit_batch(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let mut read = read_batch(&body, defaults(&app)).await;
    if read.is_guess {
        read = read_batch(&body, caught_up(&app).await?).await;
    }
    drop(body);
    let mut task_ids = batch_ids(read.task_ids, ticket.request_id);
    let Written { index, outcome } = match read.specs {
        Ok(specs) => app.write(ticket, &caller, Command::SubmitTasks(specs)).await?,
        Err(refused) => accepted_before(&app, ticket, refused)?,
    };
    let (created, duplicates) = match outcome {
        Outcome::TaskSubmitted { task_id, duplicate, .. } if task_ids.len() == 1 => {
            task_ids[0] = task_id;
            if duplicate { (0, 1) } else { (1, 0) }
        }
        Outcome::TasksSubmitted { created, duplicates }
            if (created + duplicates) as usize == task_ids.len() =>
        {
            (created, duplicates)
        }
        _ => return Err(key_reused(ticket.request_id)),
    };
    let submitted = BatchSubmitted { success: true, task_ids: &task_ids, created, duplicates };
    Ok(reply::written(ticket, index, &submitted))
}

/// A batch that was read.
struct Batch {
    specs: Result<Vec<TaskSpec>, ApiError>,
    /// The ids that the client gave, of all of its tasks if that many can be told, whether or not it
    /// would be accepted by now.
    task_ids: Vec<Option<TaskId>>,
    /// What is known here may be behind what some of its tasks need.
    is_guess: bool,
}

async fn read_batch(body: &Bytes, defaults: Defaults) -> Batch {
    if body.len() <= READ_APART_BYTES {
        return Batch::parse(body, &defaults);
    }
    let body = body.clone();
    let read = tokio::task::spawn_blocking(move || Batch::parse(&body, &defaults));
    read.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

impl Batch {
    fn parse(body: &Bytes, defaults: &Defaults) -> Self {
        let mut is_guess = false;
        let mut read = |(place, task): (usize, &Object<'_>)| match submit::parse(task, defaults) {
            Ok(submission) => {
                is_guess |= submission.is_guess;
                Ok(submission.spec)
            }
            Err(refusal) => {
                is_guess |= refusal.is_guess;
                let text = format!("tasks[{place}]: {}", refusal.error);
                Err(ApiError::bad_request(refusal.code, text))
            }
        };
        let tasks = Object::parse(body).map_err(ApiError::from).and_then(|body| tasks_of(&body));
        let (specs, task_ids) = match tasks {
            Ok(tasks) => {
                let specs: Result<Vec<TaskSpec>, _> =
                    tasks.iter().enumerate().map(&mut read).collect();
                let task_ids = match &specs {
                    Ok(specs) => specs.iter().map(|spec| spec.task_id.clone()).collect(),
                    Err(_) => {
                        tasks.iter().map(|task| submit::task_id(task).ok().flatten()).collect()
                    }
                };
                (specs, task_ids)
            }
            Err(error) => (Err(error), Vec::new()),
        };
        Self { specs, task_ids, is_guess }
    }
}

fn tasks_of<'a>(body: &Object<'a>) -> Result<Vec<Object<'a>>, ApiError> {
    let Some(tasks) = body.raw("tasks") else {
        return Err(ApiError::bad_request("INVALID_TASK", "tasks is required"));
    };
    let tasks: Vec<Object<'_>> = serde_json::from_str(tasks.get())
        .map_err(|_| ApiError::bad_request("INVALID_TASK", "tasks must be a list of objects"))?;
    if tasks.is_empty() || tasks.len() > ROWS_PER_COMMAND_MAX {
        let text =
            format!("tasks must hold 1 to {ROWS_PER_COMMAND_MAX} tasks, not {}", tasks.len());
        return Err(ApiError::bad_request("BATCH_SIZE", text));
    }
    Ok(tasks)
}

/// The ids of a batch as apply gives them, which depends on nothing but the request.
fn batch_ids(given: Vec<Option<TaskId>>, request_id: RequestId) -> Vec<TaskId> {
    let id = |(ordinal, given): (u32, Option<TaskId>)| {
        given.unwrap_or_else(|| derive_task_id(request_id, ordinal, 32))
    };
    (0u32..).zip(given).map(id).collect()
}

fn not_found() -> ApiError {
    ApiError::not_found("TASK_NOT_FOUND", "Task not found")
}

/// `GET /api/v1/tasks/{task_id}`. With `?include=input` also what the task works on.
pub(in crate::api) async fn get(
    State(app): State<App>,
    Path(task_id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let task_id = TaskId::parse(&task_id).map_err(|_| not_found())?;
    let mut stamp = app.admit(&params).await?;
    let shown = app.show(&mut stamp, |state| Shown::of(state, &task_id));
    let shown = shown.ok_or_else(not_found)?;
    let with_input = params.get("include") == Some("input");
    let body = shown.render(app.cluster().view(), with_input).map_err(|error| {
        tracing::error!(%task_id, %error, "a payload cannot be read");
        let text = "a payload of the task cannot be read";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "STORAGE", text)
    })?;
    Ok(reply::read(&stamp, body))
}

/// `DELETE /api/v1/tasks/{task_id}`: cancels it.
pub(in crate::api) async fn cancel(
    State(app): State<App>,
    Path(task_id): Path<String>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let task_id = TaskId::parse(&task_id).map_err(|_| not_found())?;
    let reason = Object::parse(&body)?.text("reason")?.filter(|reason| !reason.is_empty());
    let reason =
        reason.map_or_else(|| "cancelled by a client".to_owned(), |text| text.into_owned());
    if reason.len() > REASON_BYTES_MAX {
        let text = format!("reason is at most {REASON_BYTES_MAX} bytes");
        return Err(ApiError::bad_request("INVALID_FIELD", text));
    }
    let command = Command::CancelTask { task_id, reason };
    let Written { index, outcome } = app.write(ticket, &caller, command).await?;
    let Outcome::TaskCancelled { .. } = outcome else {
        return Err(key_reused(ticket.request_id));
    };
    let done = Done { success: true, message: "Task cancelled successfully", duplicate: false };
    Ok(reply::written(ticket, index, &done))
}

/// `POST /api/v1/tasks/{task_id}/result`: the end of an attempt. Idempotent; the first end wins.
pub(in crate::api) async fn report_result(
    State(app): State<App>,
    Path(task_id): Path<String>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let task_id = TaskId::parse(&task_id).map_err(|_| not_found())?;
    record(&app, ticket, &caller, task_id, body).await
}

/// `POST /api/v1/tasks/{task_id}`: what is left of `…/{task_id}#1/result` when a node that does not escape
/// ids reports a copy of a task with `redundancy`, because nothing from `#` on is sent. It is the copy
/// of the node that the body names, or else the only one that somebody holds.
pub(in crate::api) async fn report_copy(
    State(app): State<App>,
    Path(task_id): Path<String>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let task_id = TaskId::parse(&task_id).map_err(|_| not_found())?;
    app.barrier(Consistency::Linearizable).await?;
    let copies = app.cluster().view().read(|state| held_copies(state, &task_id));
    let Some(copies) = copies else {
        let text = "results are posted to /api/v1/tasks/{task_id}/result";
        return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", text));
    };
    let node = Object::parse(&body)?.text("node_id")?.map(|node| node.into_owned());
    let mut of_node = copies
        .iter()
        .filter(|(_, holder)| node.as_deref().is_none_or(|node| holder.as_str() == node));
    match (of_node.next(), of_node.next()) {
        (Some((copy, _)), None) => record(&app, ticket, &caller, copy.clone(), body).await,
        _ => {
            let text = "which copy is meant? Escape its id (# is %23), or name node_id";
            Err(ApiError::bad_request("COPY_UNKNOWN", text))
        }
    }
}

/// The copies of a task that nodes hold or have ended, with who that is; `None` when it has none.
fn held_copies(state: &Tables, task_id: &TaskId) -> Option<Vec<(TaskId, NodeId)>> {
    let task = state.task(task_id)?;
    let steps = u16::try_from(task.flow.as_ref()?.steps.len()).ok()?;
    let copies = (0..steps).filter_map(|step| state.step_task(task_id, step));
    let held = copies.filter(|copy| copy.is_copy()).filter_map(|copy| {
        let holder = copy.live_on().or(copy.node_id.as_ref())?;
        Some((copy.task_id.clone(), holder.clone()))
    });
    let copies: Vec<_> = held.collect();
    (!copies.is_empty()).then_some(copies)
}

async fn record(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    task_id: TaskId,
    body: Bytes,
) -> Result<Response, ApiError> {
    let report = report::parse(task_id.clone(), None, &Object::parse(&body)?)?;
    let attempt = report.attempt;
    drop(body);
    let Written { index, outcome } =
        app.write(ticket, caller, Command::ReportTasks(vec![report])).await?;
    let Outcome::TaskReported { status, attempt: newest, stale } = outcome else {
        return Err(key_reused(ticket.request_id));
    };
    if stale {
        let judged = judge_stale((status, newest), attempt);
        judged.map_err(|error| error.with_request_id(ticket.request_id))?;
    }
    let done = Done { success: true, message: "Result recorded", duplicate: stale };
    Ok(reply::written(ticket, index, &done))
}

/// A report that changed nothing of a task with that status and newest attempt: a repetition is
/// fine, a report of an attempt that is over is refused, so that its worker knows that its result
/// does not count.
fn judge_stale((status, newest): (TaskStatus, u32), attempt: Option<u32>) -> Result<(), ApiError> {
    match attempt {
        Some(attempt) if attempt == newest && status.is_terminal() => Ok(()),
        Some(attempt) => {
            let text = format!("attempt {attempt} is over; the newest is {newest}");
            Err(ApiError::conflict("STALE_ATTEMPT", text))
        }
        None if status.is_terminal() => Ok(()),
        None => {
            let text = "the task is not held by whoever reports it";
            Err(ApiError::conflict("STALE_REPORT", text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_2_7_stale_reports() {
        let ended = (TaskStatus::Completed, 2);
        assert!(judge_stale(ended, Some(2)).is_ok());
        assert!(judge_stale(ended, None).is_ok());
        assert_eq!(judge_stale(ended, Some(1)).unwrap_err().code(), "STALE_ATTEMPT");
        let open = (TaskStatus::Retrying, 2);
        assert_eq!(judge_stale(open, Some(2)).unwrap_err().code(), "STALE_ATTEMPT");
        assert_eq!(judge_stale(open, None).unwrap_err().code(), "STALE_REPORT");
    }

    #[test]
    fn batches_name_the_task_that_is_wrong() {
        let estimates = crate::state::State::default().estimates();
        let reach = crate::model::AllowedHosts::parse(std::iter::once("a.example")).unwrap();
        let reach = Arc::new(crate::model::Reach { hosts: reach, fetch_inputs: false });
        let defaults =
            Defaults { timeout_ms: 1, max_retries: 0, agents_ascending: false, estimates, reach };
        let read =
            |body: &'static str| Batch::parse(&Bytes::from_static(body.as_bytes()), &defaults);
        for (body, accepted) in [
            (r#"{"tasks":[{"task_type":"a"},{"task_type":"b","task_id":"x"}]}"#, true),
            (r#"{"tasks":[{"task_type":"a","inputs":[]},{"task_type":"b","task_id":"x"}]}"#, false),
        ] {
            let Batch { specs, task_ids, .. } = read(body);
            assert_eq!(specs.is_ok(), accepted, "{body}");
            let ids = batch_ids(task_ids, RequestId(7));
            assert_eq!(ids[0], derive_task_id(RequestId(7), 0, 32));
            assert_eq!(ids[1].as_str(), "x");
        }
        for (body, code) in [
            (r#"{"tasks":[{"task_type":"a"},{}]}"#, "INVALID_TASK"),
            (
                r#"{"tasks":[{"task_type":"a","callback_url":"http://b.example/"}]}"#,
                "HOST_NOT_ALLOWED",
            ),
            (r#"{"tasks":[]}"#, "BATCH_SIZE"),
            (r#"{"tasks":[1]}"#, "INVALID_TASK"),
            ("{}", "INVALID_TASK"),
            ("[", "INVALID_BODY"),
        ] {
            assert_eq!(read(body).specs.unwrap_err().code(), code, "{body}");
        }
    }
}
