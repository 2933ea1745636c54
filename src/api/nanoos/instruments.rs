//! The doors of instruments and models (contract 3.6, 3.4): how experiments and trainings are done.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::answers;
use super::campaign_parse::template;
use super::campaign_view::json_or;
use super::config::units_view;
use super::paging::Page;
use super::structures::{chosen_id, kept};
use crate::api::App;
use crate::api::app::Written;
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::{FieldError, Object};
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::api::wire_time::iso;
use crate::model::{Instrument, JobTemplate, Model};
use crate::state::{CampaignCommand, Command, PutWhen, State as Tables};

/// The task of an experiment on an instrument, and of the training of a model, that says nothing.
const EXPERIMENT: &str = "experiment";
const TRAINING: &str = "train_model";

pub(super) fn job_fields(job: &JobTemplate) -> Map<String, Value> {
    Map::from_iter([
        ("task_type".to_owned(), job.task_type.as_str().into()),
        ("input".to_owned(), json_or(&job.input, json!({}))),
        ("capabilities".to_owned(), job.requirements.capabilities.clone().into()),
        ("agent_type".to_owned(), job.requirements.agent_type.clone().into()),
        ("timeout".to_owned(), (job.timeout_ms as f64 / 1000.0).into()),
        ("max_retries".to_owned(), job.max_retries.into()),
        ("per_job".to_owned(), units_view(&job.per_job)),
    ])
}

fn instrument_view(row: &Instrument) -> Value {
    let mut fields = job_fields(&row.job);
    if let Value::Object(sent) = json_or(&row.body, Value::Null) {
        fields.extend(sent);
    }
    fields.insert("id".to_owned(), row.instrument_id.as_str().into());
    fields.insert("owner_id".to_owned(), row.owner.as_str().into());
    fields.insert("created_at".to_owned(), iso(row.created_at_ms).into());
    fields.insert("updated_at".to_owned(), iso(row.updated_at_ms).into());
    Value::Object(fields)
}

fn no_instrument(id: &str) -> ApiError {
    ApiError::not_found("INSTRUMENT_NOT_FOUND", format!("Instrument {id} not found"))
}

/// `POST /instruments`.
pub(in crate::api) async fn create(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let body = Object::parse(&body)?;
    if body.text("name")?.is_none_or(|name| name.is_empty()) {
        return Err(FieldError::new("name", "a text").into());
    }
    let instrument_id = chosen_id(&body, "instrument", ticket)?;
    let command = CampaignCommand::PutInstrument {
        instrument_id: instrument_id.clone(),
        owner: caller.0.clone(),
        body: kept(&body),
        job: Box::new(template(&body, EXPERIMENT)?),
        when: PutWhen::Absent,
    };
    let view = |state: &Tables| state.instrument(&instrument_id).map(instrument_view);
    let missing = || no_instrument(&instrument_id);
    let answer = answers::change(&app, ticket, &caller, command, view, missing).await?;
    Ok(answers::created(answer))
}

/// `GET /instruments`.
pub(in crate::api) async fn list(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let page = Page::of(&params)?;
    let mut stamp = app.admit(&params).await?;
    let shown = app.show(&mut stamp, |state| {
        let rows = page.take(state.instruments()).map(instrument_view).collect();
        page.list_of("instruments", rows, state.instruments_len())
    });
    Ok(reply::read(&stamp, reply::encode(&shown)))
}

/// `GET /instruments/{id}`.
pub(in crate::api) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let view = |state: &Tables| state.instrument(&id).map(instrument_view);
    answers::read(&app, &params, view, || no_instrument(&id)).await
}

/// `DELETE /instruments/{id}`.
pub(in crate::api) async fn remove(
    State(app): State<App>,
    Path(id): Path<String>,
    ticket: Ticket,
    caller: Caller,
) -> Result<Response, ApiError> {
    let command = CampaignCommand::RemoveInstrument { instrument_id: id.clone() };
    let Written { index, .. } = app.write(ticket, &caller, Command::Campaign(command)).await?;
    Ok(reply::written(ticket, index, &json!({"id": id, "deleted": true})))
}

fn model_view(row: &Model) -> Value {
    let mut fields = job_fields(&row.job);
    fields.insert("name".to_owned(), row.name.as_str().into());
    fields.insert("is_active".to_owned(), row.active.into());
    fields.insert("training_samples_count".to_owned(), row.trained_on.into());
    fields.insert("training_job_id".to_owned(), json!(row.training));
    fields.insert("created_at".to_owned(), iso(row.created_at_ms).into());
    fields.insert("updated_at".to_owned(), iso(row.updated_at_ms).into());
    Value::Object(fields)
}

fn no_model(name: &str) -> ApiError {
    ApiError::not_found("MODEL_NOT_FOUND", format!("Model {name} not found"))
}

/// `PUT /models/{name}`: a model that steps train anew when enough samples have come.
pub(in crate::api) async fn put_model(
    State(app): State<App>,
    Path(name): Path<String>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let body = Object::parse(&body)?;
    let command = CampaignCommand::PutModel {
        name: name.clone(),
        active: body.flag("is_active")?.unwrap_or(true),
        trained_on: body.count("training_samples_count")?,
        job: Box::new(template(&body, TRAINING)?),
    };
    let view = |state: &Tables| state.model(&name).map(model_view);
    answers::change(&app, ticket, &caller, command, view, || no_model(&name)).await
}

/// `GET /models`: all of them, by name.
pub(in crate::api) async fn models(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let mut stamp = app.admit(&params).await?;
    let shown = app.show(&mut stamp, |state| state.models().map(model_view).collect::<Vec<_>>());
    Ok(reply::read(&stamp, reply::encode(&json!({"total": shown.len(), "models": shown}))))
}

/// `GET /models/{name}`.
pub(in crate::api) async fn model(
    State(app): State<App>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let view = |state: &Tables| state.model(&name).map(model_view);
    answers::read(&app, &params, view, || no_model(&name)).await
}

/// `DELETE /models/{name}`.
pub(in crate::api) async fn remove_model(
    State(app): State<App>,
    Path(name): Path<String>,
    ticket: Ticket,
    caller: Caller,
) -> Result<Response, ApiError> {
    let command = CampaignCommand::RemoveModel { name: name.clone() };
    let Written { index, .. } = app.write(ticket, &caller, Command::Campaign(command)).await?;
    Ok(reply::written(ticket, index, &json!({"name": name, "deleted": true})))
}
