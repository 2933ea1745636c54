//! `POST /orchestrate` (contract 5.4): makes a workflow and answers when it is over, or at once with
//! `?async=true`. The leader does its tasks; this member only waits, over any failover.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::shape;
use super::single::propose;
use super::waits::{Bell, look_until};
use super::workflow_view::WorkflowShown;
use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::{Object, text_of};
use crate::api::params::Params;
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::model::{DerivedId, Service, WorkflowStatus, workflow_digest};
use crate::state::{BotCommand, BotOutcome, Outcome, WORKFLOW_TASKS_MAX, WorkflowStep};

/// What a workflow is waited for beyond the times of its services: a failover.
const SLACK: Duration = Duration::from_secs(30);
/// The longest that a workflow is waited for: 600 s, the longest time of a service, for each task.
pub(in crate::api) const WORKFLOW_WAIT_MAX: Duration =
    Duration::from_secs(600 * WORKFLOW_TASKS_MAX as u64 + SLACK.as_secs());

/// How long a workflow is waited for: as long as its services may take one after another (contract 5.4,
/// 6), and a failover.
fn wait_of(tasks: &[WorkflowStep]) -> Duration {
    let doors = tasks.iter().filter_map(|task| Service::of_type(&task.task_type)?.door());
    let seconds = doors.map(|(_, seconds)| Duration::from_secs(seconds));
    (seconds.sum::<Duration>() + SLACK).min(WORKFLOW_WAIT_MAX)
}

/// One task as sent.
fn step(place: usize, raw: &RawValue) -> Result<WorkflowStep, ApiError> {
    let wrong = || {
        let text = format!("tasks[{place}] must be an object with a type");
        ApiError::bad_request("INVALID_FIELD", text)
    };
    let task = Object::of(raw).ok_or_else(wrong)?;
    let task_type = task.raw("type").and_then(text_of).ok_or_else(wrong)?.into_owned();
    let params = task.raw("params").map_or("{}", RawValue::get).to_owned();
    Ok(WorkflowStep { task_type, params })
}

fn command(body: &[u8]) -> Result<BotCommand, ApiError> {
    let required = || ApiError::bad_request("TASKS_REQUIRED", "Tasks list is required");
    if body.trim_ascii().is_empty() {
        return Err(required());
    }
    let body = Object::parse(body)?;
    body.raw("tasks").ok_or_else(required)?;
    let tasks = body.list("tasks").map_err(|_| required())?;
    let tasks = tasks.into_iter().enumerate().map(|(place, raw)| step(place, raw));
    let tasks = tasks.collect::<Result<_, _>>()?;
    let priority = body.text("priority")?.map_or_else(|| "normal".into(), |text| text.into_owned());
    Ok(BotCommand::CreateWorkflow { tasks, priority })
}

/// What tells this workflow from another under the same key.
fn asked(tasks: &[WorkflowStep], priority: &str) -> u64 {
    let texts = tasks.iter().map(|task| (task.task_type.as_str(), task.params.as_str()));
    workflow_digest(texts, priority)
}

/// The door of workflows.
pub(in crate::api) fn orchestrating() -> MethodRouter<App> {
    post(|State(app), params, ticket, caller, body| orchestrate(app, params, ticket, caller, body))
}

async fn orchestrate(
    app: App,
    params: Params,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let command = command(&body)?;
    drop(body);
    let (wait, asked) = match &command {
        BotCommand::CreateWorkflow { tasks, priority } => (wait_of(tasks), asked(tasks, priority)),
        _ => (SLACK, 0),
    };
    let waits = !params.flag("async");
    // Taken before there is a workflow, so that one that nobody could wait for is not made.
    let _place = if waits { Some(app.waits().enter()?) } else { None };
    let until = Instant::now() + wait;
    let Written { index, outcome } = propose(&app, ticket, &caller, command).await?;
    let Outcome::Bot(BotOutcome::WorkflowCreated { workflow }) = outcome else {
        return Err(key_reused(ticket.request_id));
    };
    app.caught_up(ticket, index).await?;
    // Neither the ledger of requests nor the workflow says what else was asked under the same key.
    let is_other = app.cluster().view().read(|state| {
        let row = state.workflow_number(workflow).and_then(|number| state.workflow(number));
        row.is_some_and(|row| row.asked != asked)
    });
    if is_other {
        return Err(key_reused(ticket.request_id));
    }
    if waits {
        return over(&app, ticket, workflow, until).await;
    }
    let mut response = answer(&app, ticket, workflow)?;
    if let Ok(location) = HeaderValue::from_str(&format!("/workflows/{workflow}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(shape::with_status(response, StatusCode::ACCEPTED))
}

/// Waits until a workflow is over.
async fn over(
    app: &App,
    ticket: Ticket,
    workflow: DerivedId,
    until: Instant,
) -> Result<Response, ApiError> {
    let view = app.cluster().view();
    // Nothing of a workflow is copied as long as it runs.
    let look = || {
        view.read(|state| {
            let row = state.workflow_number(workflow).and_then(|number| state.workflow(number));
            row.is_none_or(|row| row.status != WorkflowStatus::Running).then_some(())
        })
    };
    if look_until(app, Bell::Workflows, until, look).await.is_none() {
        let text = format!("workflow {workflow} has not ended yet");
        let error = ApiError::new(StatusCode::GATEWAY_TIMEOUT, "WORKFLOW_UNFINISHED", text);
        let request_id = ticket.request_id;
        return Err(error.with_request_id(request_id).with_detail(format!(
            "It goes on. GET /workflows/{workflow} tells how far it is; the request sent again \
             with the header Idempotency-Key: {request_id} waits for it again."
        )));
    }
    answer(app, ticket, workflow)
}

/// A workflow as it is now.
fn answer(app: &App, ticket: Ticket, workflow: DerivedId) -> Result<Response, ApiError> {
    let view = app.cluster().view();
    let (index, shown) = view.read_at(|state| WorkflowShown::of(state, workflow));
    let missing = || shape::workflow_not_found(&workflow.to_string());
    let body = shown.ok_or_else(missing)?.body(view)?;
    Ok(reply::written_body(ticket, index, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> Result<BotCommand, &'static str> {
        command(body.as_bytes()).map_err(|error| error.code())
    }

    /// The wait ended after 630 s, though each of several services may take 600.
    #[test]
    fn contract_5_4_a_client_waits_as_long_as_all_services_may_take() {
        let step = |task_type: &str| WorkflowStep {
            task_type: task_type.to_owned(),
            params: String::new(),
        };
        let seconds = |types: &[&str]| {
            let steps: Vec<_> = types.iter().map(|name| step(name)).collect();
            wait_of(&steps).as_secs()
        };
        assert_eq!(seconds(&["marketing", "odd"]), 30);
        let all = ["image_generation", "video_generation", "crypto_prediction", "fraud_detection"];
        assert_eq!(seconds(&all), 300 + 600 + 60 + 30 + 30);
        let longest = ["video_generation"; WORKFLOW_TASKS_MAX];
        assert_eq!(seconds(&longest), WORKFLOW_WAIT_MAX.as_secs());
        assert_eq!(seconds(&[&longest[..], &longest[..1]].concat()), WORKFLOW_WAIT_MAX.as_secs());
    }

    #[test]
    fn contract_5_4_tasks_are_a_list_and_params_an_object_by_default() {
        let made = code(r#"{"tasks":[{"type":"a"},{"type":"b","params":{ "x": 1}}]}"#).unwrap();
        let step = |task_type: &str, params: &str| WorkflowStep {
            task_type: task_type.to_owned(),
            params: params.to_owned(),
        };
        let tasks = vec![step("a", "{}"), step("b", r#"{ "x": 1}"#)];
        assert_eq!(made, BotCommand::CreateWorkflow { tasks, priority: "normal".to_owned() });
        let empty = BotCommand::CreateWorkflow { tasks: vec![], priority: "high".to_owned() };
        assert_eq!(code(r#"{"tasks":[],"priority":"high"}"#), Ok(empty));
        for (body, wanted) in [
            ("", "TASKS_REQUIRED"),
            ("{}", "TASKS_REQUIRED"),
            (r#"{"tasks":null}"#, "TASKS_REQUIRED"),
            (r#"{"tasks":{}}"#, "TASKS_REQUIRED"),
            (r#"{"tasks":"x"}"#, "TASKS_REQUIRED"),
            (r#"{"tasks":[1]}"#, "INVALID_FIELD"),
            (r#"{"tasks":[{}]}"#, "INVALID_FIELD"),
            (r#"{"tasks":[],"priority":[]}"#, "INVALID_FIELD"),
            ("[", "INVALID_BODY"),
        ] {
            assert_eq!(code(body), Err(wanted), "{body}");
        }
    }
}
