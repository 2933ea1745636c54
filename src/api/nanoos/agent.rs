//! What agents ask for (contract 3.5). Each command is done and kept in one log entry, also when it
//! is refused.

use axum::extract::State;
use axum::response::Response;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::agent_view::{command_view, jobs_view};
use super::answers;
use super::campaign_parse::{configured, override_config};
use super::campaigns::campaign_id;
use super::config;
use super::job_parse::{Asked, job_request};
use super::paging::Page;
use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::{FieldError, Object};
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::api::wire_time::iso;
use crate::clock;
use crate::model::{AgentCommandKind, CampaignId, CampaignPlan, Resource};
use crate::state::{
    AgentAction, AgentOrder, CONTEXT_MAX, CampaignCommand, Command, Outcome, State as Tables,
    agent_command_id,
};

/// A campaign of an agent that says nothing (contract 3.5).
const MAX_ITERATIONS: u64 = 20;
const MAX_ITERATIONS_MAX: u64 = 100;
const SIMULATIONS: u64 = 1000;
const EXPERIMENTS: u64 = 50;
/// Iterations of one `advance_campaign`.
const ADVANCE_MAX: u64 = 10;
/// The longest name of a campaign, in characters.
const NAME_CHARS_MAX: usize = 200;
/// What of `create_design_campaign` goes into the campaign's configuration as it is; what the
/// contract does not name lets an agent ask for any kind of campaign.
const PASSED_ON: [&str; 14] = [
    "goal",
    "target_properties",
    "constraints",
    "candidates_per_iteration",
    "generation_strategy",
    "evaluation_strategy",
    "task",
    "direction",
    "score_field",
    "target_score",
    "convergence_threshold",
    "early_stopping_patience",
    "experiment_trigger_score_threshold",
    "per_job",
];

/// What came of a command, and what to say of it.
struct Done {
    result: Value,
    message: String,
}

/// `POST /agent/create_design_campaign`.
pub(in crate::api) async fn create_design_campaign(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let plan = design_plan(&Object::parse(&body)?, &caller.0)?;
    let name = plan.name.clone();
    let order = AgentAction::CreateCampaign(plan);
    ordered(&app, ticket, &caller, &body, order, |outcome| match outcome {
        // The word that upstream's documents show; the campaign itself is `CREATED`.
        Outcome::CampaignCreated { campaign_id } => Some(Done {
            result: json!({"campaign_id": campaign_id, "name": name, "status": "PENDING"}),
            message: format!("Campaign '{name}' created"),
        }),
        _ => None,
    })
    .await
}

fn design_plan(body: &Object<'_>, owner: &str) -> Result<CampaignPlan, ApiError> {
    let name = body.text("name")?.filter(|name| !name.is_empty());
    let name = name.filter(|name| name.chars().count() <= NAME_CHARS_MAX);
    let name = name.ok_or_else(|| FieldError::new("name", "a text of 1 to 200 characters"))?;
    if body.text("goal")?.is_none_or(|goal| goal.is_empty()) {
        return Err(FieldError::new("goal", "a text").into());
    }
    if body.raw("target_properties").is_none() {
        return Err(FieldError::new("target_properties", "an object").into());
    }
    body.object("target_properties")?;
    body.object("constraints")?;
    let iterations = body.count("max_iterations")?.unwrap_or(MAX_ITERATIONS);
    if !(1..=MAX_ITERATIONS_MAX).contains(&iterations) {
        return Err(FieldError::new("max_iterations", "1 to 100").into());
    }
    let generic = match body.text("kind")?.as_deref() {
        None | Some("materials") => false,
        Some("generic") => true,
        Some(_) => return Err(FieldError::new("kind", "materials or generic").into()),
    };
    let budget = body.object("budget")?;
    let metered = metered_budgets(body, &budget)?;
    let mut config = Map::new();
    for key in PASSED_ON {
        if let Some(value) = body.raw(key) {
            config.insert(key.to_owned(), serde_json::from_str(value.get()).unwrap_or_default());
        }
    }
    config.entry("generation_strategy").or_insert_with(|| "bayesian".into());
    config.entry("candidates_per_iteration").or_insert_with(|| 10.into());
    config.insert("max_iterations".to_owned(), iterations.into());
    let simulations = budget.count("simulations")?.unwrap_or(SIMULATIONS);
    config.insert("simulation_budget".to_owned(), simulations.into());
    let experiments = budget.count("experiments")?.unwrap_or(EXPERIMENTS);
    config.insert("experiment_budget".to_owned(), experiments.into());
    if !metered.is_empty() {
        config.insert("budgets".to_owned(), metered.into());
    }
    let text = Value::Object(config).to_string();
    let mut plan = configured(&Object::parse(text.as_bytes())?, generic)?;
    plan.owner = owner.to_owned();
    plan.name = name.into_owned();
    plan.description = body.text("goal")?.unwrap_or_default().into_owned();
    plan.orchestrator = body.text("orchestrator")?.unwrap_or_default().into_owned();
    plan.config = text;
    plan.metadata = body.json("metadata");
    Ok(plan)
}

/// Budgets beside the contract's two: those in `budgets`, and what else `budget` names.
fn metered_budgets(body: &Object<'_>, budget: &Object<'_>) -> Result<Map<String, Value>, ApiError> {
    let value = |raw: &RawValue| serde_json::from_str(raw.get()).unwrap_or_default();
    let mut budgets = Map::new();
    for (name, raw) in budget.fields().filter(|(_, raw)| raw.get() != "null") {
        // What else stands there is nobody's (contract 1.2: unknown fields are ignored).
        if Resource::parse(name).is_some_and(|kind| Resource::METERED.contains(&kind)) {
            config::budget(name, raw).map_err(|error| error.within("budget"))?;
            budgets.insert(name.to_owned(), value(raw));
        }
    }
    let named = body.object("budgets")?;
    budgets.extend(named.fields().map(|(name, raw)| (name.to_owned(), value(raw))));
    Ok(budgets)
}

/// `POST /agent/campaigns/{id}/stop`: the kill switch. Pulling it again changes nothing.
pub(in crate::api) async fn stop_campaign(
    State(app): State<App>,
    Path(id): Path<String>,
    ticket: Ticket,
    caller: Caller,
) -> Result<Response, ApiError> {
    let campaign_id = campaign_id(&id)?;
    let action = AgentAction::StopCampaign { campaign_id: campaign_id.clone() };
    let body = json!({"campaign_id": campaign_id}).to_string();
    ordered(&app, ticket, &caller, body.as_bytes(), action, |outcome| match outcome {
        Outcome::Done => {
            let message =
                format!("Campaign {campaign_id} is stopped: nothing more is launched for it");
            let result = json!({"campaign_id": campaign_id, "tripped": true, "message": message});
            Some(Done { result, message })
        }
        _ => None,
    })
    .await
}

/// `POST /agent/advance_campaign`: starts a campaign that has not begun.
pub(in crate::api) async fn advance_campaign(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let object = Object::parse(&body)?;
    let wanted = || ApiError::from(FieldError::new("campaign_id", "the id of a campaign"));
    let text = object.text("campaign_id")?.ok_or_else(wanted)?;
    let campaign_id = CampaignId::parse(&text).map_err(|_| wanted())?;
    let count = object.count("num_iterations")?.unwrap_or(1);
    if !(1..=ADVANCE_MAX).contains(&count) {
        return Err(FieldError::new("num_iterations", "1 to 10").into());
    }
    let action = AgentAction::AdvanceCampaign {
        campaign_id: campaign_id.clone(),
        count: count as u32,
        with: override_config(&object)?,
    };
    ordered(&app, ticket, &caller, &body, action, |outcome| match outcome {
        Outcome::IterationsQueued { count } => {
            let message = format!("{count} iterations queued");
            let result =
                json!({"campaign_id": campaign_id, "iterations_queued": count, "message": message});
            Some(Done { result, message })
        }
        _ => None,
    })
    .await
}

/// `POST /agent/request_simulations`.
pub(in crate::api) async fn request_simulations(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    request_jobs(&app, ticket, &caller, &body, Asked::Simulations).await
}

/// `POST /agent/request_experiments`.
pub(in crate::api) async fn request_experiments(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    request_jobs(&app, ticket, &caller, &body, Asked::Experiments).await
}

async fn request_jobs(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    body: &[u8],
    asked: Asked,
) -> Result<Response, ApiError> {
    let object = Object::parse(body)?;
    let ids = object.texts("structure_ids")?;
    let request = job_request(&object, asked, None, ids, &caller.0)?;
    let mut result = Map::new();
    result.insert("structure_ids".to_owned(), json!(request.structure_ids));
    match asked {
        Asked::Simulations => {
            result.insert("simulation_type".to_owned(), json!(request.job.task_type));
        }
        Asked::Experiments => {
            result.insert("instrument_id".to_owned(), json!(request.instrument));
            let kind = object.text("experiment_type")?;
            result.insert("experiment_type".to_owned(), json!(kind));
        }
    }
    let action = AgentAction::RequestJobs(request);
    ordered(app, ticket, caller, body, action, |outcome| match outcome {
        Outcome::JobsCreated { count } => {
            let message = format!("{count} {} created", asked.words());
            result.extend(jobs_view(ticket.request_id, asked.words(), *count));
            result.insert("message".to_owned(), message.as_str().into());
            Some(Done { result: Value::Object(result), message })
        }
        _ => None,
    })
    .await
}

/// Commits a command and answers as the contract says.
async fn ordered(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    body: &[u8],
    action: AgentAction,
    done: impl FnOnce(&Outcome) -> Option<Done>,
) -> Result<Response, ApiError> {
    let kind = action.kind();
    let who = if caller.0.is_empty() { "anonymous" } else { &caller.0 };
    let order = AgentOrder { agent_id: format!("user:{who}"), payload: payload(body), action };
    let command = Command::Campaign(CampaignCommand::Agent(Box::new(order)));
    let written = app.write(ticket, caller, command).await;
    let failed = format!("Failed to {}", kind.as_str().replace('_', " "));
    let Written { index, outcome } = written.map_err(|error| error.failing(&failed))?;
    let Outcome::AgentCommand { reply, .. } = outcome else {
        return Err(key_reused(ticket.request_id));
    };
    let outcome = (*reply)?;
    let Done { result, message } = done(&outcome).ok_or_else(|| key_reused(ticket.request_id))?;
    let mut view = json!({
        "command_id": agent_command_id(ticket.request_id),
        "command_type": kind.as_str(),
        "success": true,
        "result": result,
        "message": message,
        "timestamp": iso(clock::now_ms()),
    });
    if kind == AgentCommandKind::StopCampaign {
        // Its reply was a flat one before it had a record.
        for key in ["campaign_id", "tripped"] {
            view[key] = view["result"][key].clone();
        }
    }
    Ok(reply::written(ticket, index, &view))
}

/// A command's body as it is kept: one that is too long only by its length.
fn payload(body: &[u8]) -> String {
    match serde_json::from_slice::<Value>(body) {
        Ok(value @ Value::Object(_)) => {
            let text = value.to_string();
            if text.len() <= CONTEXT_MAX { text } else { json!({"bytes": text.len()}).to_string() }
        }
        Ok(_) | Err(_) => "{}".to_owned(),
    }
}

/// `GET /agent/commands`: a bare array, newest first.
pub(in crate::api) async fn commands(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let page = Page { skip: params.skip("offset")?, size: params.limit(super::paging::SIZE)? };
    let mut stamp = app.admit(&params).await?;
    let shown = app.show(&mut stamp, |state| {
        let rows = page.take(state.agent_commands().rev());
        rows.map(|row| command_view(row, false)).collect::<Vec<_>>()
    });
    Ok(reply::read(&stamp, reply::encode(&shown)))
}

/// `GET /agent/commands/{id}`: with what was sent.
pub(in crate::api) async fn command(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let view = |state: &Tables| {
        let row =
            state.agent_commands().rev().find(|row| agent_command_id(row.request_id) == id)?;
        Some(command_view(row, true))
    };
    let missing = || ApiError::not_found("COMMAND_NOT_FOUND", format!("Command {id} not found"));
    answers::read(&app, &params, view, missing).await
}
