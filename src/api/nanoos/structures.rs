//! The doors of structures (contract 3.6).

use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::answers;
use super::campaign_view::{candidate_fields, json_or};
use super::paging::Page;
use crate::api::App;
use crate::api::app::Written;
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::{FieldError, Object};
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::api::wire_time::iso;
use crate::model::Structure;
use crate::state::{
    CampaignCommand, Command, PutWhen, State as Tables, derive_uuid, parse_candidate,
};

/// The fields of family N's SDK; whatever else is sent is kept, too.
const FIELDS: [&str; 7] = [
    "composition",
    "lattice_type",
    "num_atoms",
    "space_group",
    "dimensionality",
    "structure_data",
    "metadata",
];

fn not_found(id: &str) -> ApiError {
    ApiError::not_found("STRUCTURE_NOT_FOUND", format!("Structure {id} not found"))
}

/// What clients sent of something, beside its id: kept as it is.
pub(super) fn kept(body: &Object<'_>) -> String {
    let fields = body.fields().filter(|(key, _)| *key != "id");
    let fields: Map<String, Value> = fields
        .map(|(key, value)| (key.to_owned(), serde_json::from_str(value.get()).unwrap_or_default()))
        .collect();
    Value::Object(fields).to_string()
}

/// The id that a client chose, or one derived from its request.
pub(super) fn chosen_id(body: &Object<'_>, what: &str, ticket: Ticket) -> Result<String, ApiError> {
    let chosen = body.text("id")?.filter(|id| !id.is_empty());
    let derive = || derive_uuid(&[what.as_bytes(), &ticket.request_id.0.to_be_bytes()]);
    Ok(chosen.map_or_else(derive, |id| id.into_owned()))
}

fn view(row: &Structure) -> Value {
    let mut fields: Map<String, Value> =
        FIELDS.iter().map(|key| ((*key).to_owned(), Value::Null)).collect();
    if let Value::Object(sent) = json_or(&row.body, Value::Null) {
        fields.extend(sent);
    }
    fields.insert("id".to_owned(), row.structure_id.as_str().into());
    fields.insert("owner_id".to_owned(), row.owner.as_str().into());
    fields.insert("labeled".to_owned(), row.labeled.into());
    fields.insert("created_at".to_owned(), iso(row.created_at_ms).into());
    fields.insert("updated_at".to_owned(), iso(row.updated_at_ms).into());
    Value::Object(fields)
}

/// A structure that was registered, or the one of a campaign's candidate.
fn found(state: &Tables, id: &str) -> Option<Value> {
    if let Some(row) = state.structure(id) {
        return Some(view(row));
    }
    let (campaign_id, index, place) = parse_candidate(id)?;
    let iteration = state.iteration(&campaign_id, index)?;
    let candidate = candidate_fields(state, iteration, place)?;
    let owner = state.campaign(&campaign_id).map(|campaign| &campaign.plan.owner);
    Some(json!({
        "id": id,
        "owner_id": owner,
        "composition": null,
        "structure_data": candidate["parameters"],
        "labeled": !matches!(candidate["state"].as_str(), Some("open" | "failed")),
        "metadata": {"campaign_id": campaign_id, "iteration": index, "candidate": candidate},
        "created_at": iso(iteration.created_at_ms),
        "updated_at": iso(iteration.completed_at_ms.max(iteration.created_at_ms)),
    }))
}

/// `POST /structures`.
pub(in crate::api) async fn create(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let body = Object::parse(&body)?;
    if body.text("composition")?.is_none_or(|text| text.is_empty()) {
        return Err(FieldError::new("composition", "a text").into());
    }
    let structure_id = chosen_id(&body, "structure", ticket)?;
    let answer = put(&app, ticket, &caller, structure_id, kept(&body), PutWhen::Absent).await?;
    Ok(answers::created(answer))
}

/// `PUT /structures/{id}`: what is not sent stays.
pub(in crate::api) async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    put(&app, ticket, &caller, id, kept(&Object::parse(&body)?), PutWhen::Present).await
}

async fn put(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    structure_id: String,
    body: String,
    when: PutWhen,
) -> Result<Response, ApiError> {
    let (id, owner) = (structure_id.clone(), caller.0.clone());
    let command = CampaignCommand::PutStructure { structure_id, owner, body, when };
    let view = |state: &Tables| state.structure(&id).map(view);
    answers::change(app, ticket, caller, command, view, || not_found(&id)).await
}

/// `GET /structures/{id}`.
pub(in crate::api) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    answers::read(&app, &params, |state| found(state, &id), || not_found(&id)).await
}

/// `GET /structures`: those that were registered, by id.
pub(in crate::api) async fn list(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let page = Page::of(&params)?;
    let mut stamp = app.admit(&params).await?;
    let shown = app.show(&mut stamp, |state| {
        let rows = page.take(state.structures_after(None)).map(view).collect();
        page.list_of("structures", rows, state.structures_len())
    });
    Ok(reply::read(&stamp, reply::encode(&shown)))
}

/// `DELETE /structures/{id}`.
pub(in crate::api) async fn remove(
    State(app): State<App>,
    Path(id): Path<String>,
    ticket: Ticket,
    caller: Caller,
) -> Result<Response, ApiError> {
    let command = CampaignCommand::RemoveStructure { structure_id: id.clone() };
    let written = app.write(ticket, &caller, Command::Campaign(command)).await;
    let Written { index, .. } = written.map_err(|error| match error.code() {
        "STRUCTURES_NOT_FOUND" => not_found(&id),
        _ => error,
    })?;
    Ok(reply::written(ticket, index, &json!({"id": id, "deleted": true})))
}
