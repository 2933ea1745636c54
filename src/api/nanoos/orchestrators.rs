//! The doors of orchestrators (contract 3.3).

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answers;
use super::config::{budgets_view, parse, schedule_view, units_view, view};
use super::instruments::job_fields;
use super::runs::{run_view, stats_view};
use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::Object;
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::api::wire_time::{iso, iso_or_null};
use crate::clock;
use crate::model::{Run, RunId, RunPhase};
use crate::state::{CampaignCommand, Command, Outcome, State as Tables};

/// Runs in one answer.
const LIMIT: u64 = 20;
/// At most; asking for more is no mistake.
const LIMIT_MAX: usize = 100;
/// How long one step is waited for, and for the one before it to end.
const RUN_WAIT: Duration = Duration::from_secs(20);
/// How often is looked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Which one is meant, as far as this member knows.
pub(super) fn name(app: &App, params: &Params) -> String {
    let named = params.get("name").filter(|name| !name.is_empty()).map(str::to_owned);
    let usual = || app.cluster().view().read(|state| state.policy().default_orchestrator.clone());
    named.unwrap_or_else(usual)
}

pub(super) fn unknown(name: &str) -> ApiError {
    let text = format!("Orchestrator '{name}' not found");
    ApiError::not_found("ORCHESTRATOR_NOT_FOUND", text)
}

/// An orchestrator as clients see it; `None` when there is none of that name.
fn orchestrator_view(state: &Tables, name: &str) -> Option<Value> {
    let row = state.orchestrator(name)?;
    Some(json!({
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "mode": row.mode.as_str(),
        "config": view(&row.config),
        "schedule": state.schedule(name).map(|schedule| schedule_view(row, schedule)),
        "budgets": budgets_view(&row.budgets),
        "per_job": units_view(&row.per_job),
        "task": row.task.as_deref().map(job_fields),
        "last_run_at": iso_or_null(row.last_run_at_ms),
        "last_training_at": iso_or_null(row.last_training_at_ms),
        "last_experiment_at": iso_or_null(row.last_experiment_at_ms),
        "run_count": row.runs,
        "total_simulations_launched": row.simulations,
        "total_experiments_launched": row.experiments,
        "total_trainings_launched": row.trainings,
        "is_active": row.is_active,
        "error_message": Some(&row.error).filter(|error| !error.is_empty()),
        "stats": row.stats.as_ref().map(stats_view),
        "created_at": iso(row.created_at_ms),
        "updated_at": iso(row.updated_at_ms),
    }))
}

/// `GET /orchestrator/state`: makes the named one when it is missing.
pub(in crate::api) async fn state(
    State(app): State<App>,
    params: Params,
    ticket: Ticket,
    caller: Caller,
) -> Result<Response, ApiError> {
    let name = name(&app, &params);
    let mut stamp = app.admit(&params).await?;
    if let Some(shown) = app.show(&mut stamp, |state| orchestrator_view(state, &name)) {
        return Ok(reply::read(&stamp, reply::encode(&shown)));
    }
    let command = CampaignCommand::EnsureOrchestrator { name: name.clone() };
    changed(&app, ticket, &caller, &name, command).await
}

/// Commits a change of an orchestrator and shows what it is then.
async fn changed(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    name: &str,
    command: CampaignCommand,
) -> Result<Response, ApiError> {
    let view = |state: &Tables| orchestrator_view(state, name);
    answers::change(app, ticket, caller, command, view, || unknown(name)).await
}

/// `POST /orchestrator/config`.
pub(in crate::api) async fn set_config(
    State(app): State<App>,
    params: Params,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let patch = Box::new(parse(&Object::parse(&body)?, clock::now_ms())?);
    let name = name(&app, &params);
    let command = CampaignCommand::PatchOrchestrator { name: name.clone(), patch };
    changed(&app, ticket, &caller, &name, command).await
}

/// `POST /orchestrator/activate`, `deactivate`.
pub(in crate::api) fn switching(active: bool) -> MethodRouter<App> {
    post(move |State(app): State<App>, params: Params, ticket: Ticket, caller: Caller| async move {
        let name = name(&app, &params);
        let command = CampaignCommand::SetActive { name: name.clone(), active };
        changed(&app, ticket, &caller, &name, command).await
    })
}

/// `POST /orchestrator/run_once`: answers when the run has ended, with 200 whether it failed or not.
pub(in crate::api) async fn run_once(
    State(app): State<App>,
    params: Params,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let name = name(&app, &params);
    let body = Object::parse(&body)?;
    let context = match body.raw("trigger_context") {
        None => json!({"user_id": Some(&caller.0).filter(|user| !user.is_empty())}).to_string(),
        Some(_) => {
            body.object("trigger_context")?;
            body.json("trigger_context")
        }
    };
    let run = run_step(&app, ticket, &caller, &name, context).await;
    run.map_err(|error| error.failing("Orchestrator step failed"))
}

async fn run_step(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    name: &str,
    context: String,
) -> Result<Response, ApiError> {
    let until = Instant::now() + RUN_WAIT;
    let command = CampaignCommand::BeginRun {
        name: name.to_owned(),
        triggered_by: "manual".to_owned(),
        context,
    };
    let mut tries = 0;
    let Written { index, outcome } = loop {
        let written =
            app.write(ticket.nth(tries), caller, Command::Campaign(command.clone())).await;
        match written {
            // The run before it is under way: its end is waited for, here and not in the log.
            Err(error) if error.code() == "RUN_OPEN" && Instant::now() < until => {
                // This request may have been here before, and have begun one then.
                let again = app.recorded(ticket.nth(tries + 1)).is_some();
                if !again && !is_over(app, name, until).await {
                    return Err(error);
                }
                tries += 1;
            }
            other => break other?,
        }
    };
    let Outcome::RunBegun { run_id } = outcome else { return Err(key_reused(ticket.request_id)) };
    app.caught_up(ticket, index).await?;
    let (index, run) = ended(app, run_id, until).await?;
    Ok(reply::written(ticket, index, &run))
}

/// Waits for the end of the run under way, as this member sees it. `false` when that one does a task: it
/// may take any time.
async fn is_over(app: &App, name: &str, until: Instant) -> bool {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let phase = app.cluster().view().read(|state| {
            let run_id = state.orchestrator(name)?.open_run?;
            state.run(run_id).map(|run| run.phase)
        });
        match phase {
            Some(RunPhase::Working) => return false,
            Some(_) if Instant::now() < until => {}
            Some(_) | None => return true,
        }
    }
}

/// Waits for the end of a run.
async fn ended(app: &App, run_id: RunId, until: Instant) -> Result<(u64, Value), ApiError> {
    loop {
        let (index, shown) = app.cluster().view().read_at(|state| {
            // What a task is worth is seen when it has ended, which may take any time.
            let told = |run: &&Run| matches!(run.phase, RunPhase::Ended | RunPhase::Working);
            let run = state.run(run_id).filter(told)?;
            Some(run_view(state, run))
        });
        if let Some(run) = shown {
            return Ok((index, run));
        }
        if Instant::now() >= until {
            let text = format!("run {run_id} has begun and has not ended yet");
            return Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, "RUN_UNFINISHED", text));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// `GET /orchestrator/runs`: a bare array, newest first.
pub(in crate::api) async fn runs(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = name(&app, &params);
    let limit = params.limit(LIMIT)?.min(LIMIT_MAX);
    let offset = params.skip("offset")?;
    let mut stamp = app.admit(&params).await?;
    let ids = app.show(&mut stamp, |state| {
        state.orchestrator(&name)?;
        let own = state.runs().rev().filter(|run| run.orchestrator == name);
        Some(own.skip(offset).take(limit).map(|run| run.run_id).collect::<Vec<RunId>>())
    });
    // One at a time: each may have hundreds of decisions, and whoever writes waits meanwhile.
    let mut page = Vec::new();
    for run_id in ids.ok_or_else(|| unknown(&name))? {
        let view = |state: &Tables| state.run(run_id).map(|run| run_view(state, run));
        page.extend(app.show(&mut stamp, view));
    }
    Ok(reply::read(&stamp, reply::encode(&page)))
}

/// `GET /orchestrator/runs/{id}`, of any orchestrator.
pub(in crate::api) async fn run(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let view = |state: &Tables| {
        let run = state.run(id.parse().ok()?)?;
        Some(run_view(state, run))
    };
    let missing = || ApiError::not_found("RUN_NOT_FOUND", format!("Run {id} not found"));
    answers::read(&app, &params, view, missing).await
}

/// `GET /orchestrator/stats`.
pub(in crate::api) async fn stats(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let mut stamp = app.admit(&params).await?;
    let stats = app.show(&mut stamp, |state| stats_view(&state.fleet_stats(clock::now_ms())));
    Ok(reply::read(&stamp, reply::encode(&stats)))
}
