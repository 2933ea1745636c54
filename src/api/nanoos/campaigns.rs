//! The doors of campaigns (contract 3.6).

use std::time::Duration;

use std::cmp::Reverse;

use axum::extract::State;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answers;
use super::campaign_parse::{self, override_config};
use super::campaign_view::{campaign_view, iteration_view, summary_view};
use super::paging::Page;
use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::Object;
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::api::wire_time::iso_or_null;
use crate::cluster::{Consistency, ReadStamp};
use crate::model::{Campaign, CampaignId, CampaignStatus};
use crate::state::{CampaignCommand, CampaignMove, Command, Outcome, State as Tables};

/// Iterations in one answer.
const LIMIT_MAX: u64 = 100;
/// Campaigns that a listing looks at while the state is held.
const CHUNK: usize = 500;
/// How long an answer waits for an iteration to begin.
const BEGIN_WAIT: Duration = Duration::from_secs(1);
/// Commands that the largest campaign is taken out with.
const REMOVALS_MAX: usize = 200;
/// How often a change of a configuration is merged anew when others come between.
const PATCH_TRIES: usize = 20;
/// How often is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(10);

fn not_found(id: &str) -> ApiError {
    ApiError::not_found("CAMPAIGN_NOT_FOUND", format!("Campaign {id} not found"))
}

pub(super) fn campaign_id(text: &str) -> Result<CampaignId, ApiError> {
    CampaignId::parse(text).map_err(|_| not_found(text))
}

async fn propose(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    command: CampaignCommand,
) -> Result<Written, ApiError> {
    app.write(ticket, caller, Command::Campaign(command)).await
}

/// How a campaign is shown.
fn view(id: &CampaignId) -> impl FnOnce(&Tables) -> Option<Value> {
    move |state| state.campaign(id).map(campaign_view)
}

/// Reads one campaign under the consistency that was asked for.
async fn read(
    app: &App,
    params: &Params,
    id: &str,
    view: impl FnOnce(&Tables, &Campaign) -> Option<Value>,
) -> Result<Response, ApiError> {
    let campaign_id = campaign_id(id)?;
    let view = |state: &Tables| view(state, state.campaign(&campaign_id)?);
    answers::read(app, params, view, || not_found(id)).await
}

/// `POST /campaigns`.
pub(in crate::api) async fn create(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let plan = campaign_parse::plan(&Object::parse(&body)?, &caller.0)?;
    let command = CampaignCommand::CreateCampaign(Box::new(plan));
    let Written { index, outcome } = propose(&app, ticket, &caller, command).await?;
    let Outcome::CampaignCreated { campaign_id } = outcome else {
        return Err(key_reused(ticket.request_id));
    };
    let missing = || not_found(campaign_id.as_str());
    let answer = answers::shown(&app, ticket, index, view(&campaign_id), missing).await?;
    Ok(answers::created(answer))
}

/// `GET /campaigns?status=`, in pages: `skip` and `limit`, or `page` and `page_size`.
pub(in crate::api) async fn list(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let invalid = |text: &str| ApiError::bad_request("INVALID_QUERY", text);
    let asked = Page::of(&params)?;
    let status = match params.get("status").filter(|word| !word.is_empty()) {
        None => None,
        Some(word) => Some(
            CampaignStatus::parse(word)
                .ok_or_else(|| invalid("status is no status of campaigns"))?,
        ),
    };
    let mut stamp = app.admit(&params).await?;
    let (ids, total) = found(&app, &mut stamp, status, asked).await;
    let mut campaigns = Vec::with_capacity(ids.len());
    for id in &ids {
        campaigns.extend(app.show(&mut stamp, view(id)));
    }
    let list = asked.list_of("campaigns", campaigns, total);
    Ok(reply::read(&stamp, reply::encode(&list)))
}

/// The campaigns of a page, the newest first, and how many there are on all pages.
async fn found(
    app: &App,
    stamp: &mut ReadStamp,
    status: Option<CampaignStatus>,
    page: Page,
) -> (Vec<CampaignId>, usize) {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let is_over = app.show(stamp, |state| {
            let chunk: Vec<&Campaign> = state.campaigns_after(after.as_ref()).take(CHUNK).collect();
            let wanted = chunk.iter().filter(|row| status.is_none_or(|word| row.status == word));
            found.extend(wanted.map(|row| (Reverse(row.created_at_ms), row.campaign_id.clone())));
            after = chunk.last().map(|row| row.campaign_id.clone());
            chunk.len() < CHUNK
        });
        if is_over {
            break;
        }
        tokio::task::yield_now().await;
    }
    found.sort_unstable();
    let total = found.len();
    (page.take(found.into_iter().map(|(_, id)| id)).collect(), total)
}

/// `GET /campaigns/{id}`.
pub(in crate::api) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    read(&app, &params, &id, |_, campaign| Some(campaign_view(campaign))).await
}

/// `PATCH /campaigns/{id}`: only while it is `CREATED` or `PAUSED`.
pub(in crate::api) async fn patch(
    State(app): State<App>,
    Path(id): Path<String>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let id = campaign_id(&id)?;
    let body = Object::parse(&body)?;
    let mut tries = 0;
    let Written { index, .. } = loop {
        // What is sent is merged with what there is: the newest, or apply refuses it.
        let mut stamp = app.barrier(Consistency::Linearizable).await?;
        let patch = app.show(&mut stamp, |state| {
            let row = state.campaign(&id).ok_or_else(|| not_found(id.as_str()))?;
            campaign_parse::patch(&body, row)
        });
        let turn = ticket.nth(tries);
        let written = match (app.recorded(turn), patch) {
            (Some(recorded), _) => recorded,
            (None, Err(error)) => Err(error),
            (None, Ok(patch)) => {
                let (campaign_id, patch) = (id.clone(), Box::new(patch));
                let command = CampaignCommand::PatchCampaign { campaign_id, patch };
                propose(&app, turn, &caller, command).await
            }
        };
        match written {
            Err(error) if error.code() == "CAMPAIGN_CHANGED" && tries < PATCH_TRIES => tries += 1,
            other => break other?,
        }
    };
    answers::shown(&app, ticket, index, view(&id), || not_found(id.as_str())).await
}

/// `DELETE /campaigns/{id}`: of one that has ended. A large one takes several commands.
pub(in crate::api) async fn remove(
    State(app): State<App>,
    Path(id): Path<String>,
    ticket: Ticket,
    caller: Caller,
) -> Result<Response, ApiError> {
    let campaign_id = campaign_id(&id)?;
    let command = Command::Campaign(CampaignCommand::RemoveCampaign { campaign_id });
    let part = |outcome: &Outcome| matches!(outcome, Outcome::Judged { .. });
    let written = app.write_parts(ticket, &caller, &command, (part, REMOVALS_MAX)).await?;
    let Outcome::Done = written.outcome else { return Err(key_reused(ticket.request_id)) };
    Ok(reply::written(ticket, written.index, &json!({"id": id, "deleted": true})))
}

/// `POST /campaigns/{id}/start`, `pause`, `resume`, `cancel`.
pub(in crate::api) fn moving(how: CampaignMove) -> MethodRouter<App> {
    post(move |State(app), Path(id), ticket, caller| moved(app, id, ticket, caller, how))
}

async fn moved(
    app: App,
    id: String,
    ticket: Ticket,
    caller: Caller,
    how: CampaignMove,
) -> Result<Response, ApiError> {
    let campaign_id = campaign_id(&id)?;
    let command = CampaignCommand::MoveCampaign { campaign_id: campaign_id.clone(), how };
    answers::change(&app, ticket, &caller, command, view(&campaign_id), || not_found(&id)).await
}

/// `POST /campaigns/{id}/step`: iterations beside those of the orchestrator's steps, one after
/// another.
pub(in crate::api) async fn step(
    State(app): State<App>,
    Path(id): Path<String>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let id = campaign_id(&id)?;
    let body = Object::parse(&body)?;
    let count = u32::try_from(body.count("num_iterations")?.unwrap_or(1)).unwrap_or(u32::MAX);
    let with = override_config(&body)?;
    let command =
        CampaignCommand::RequestIterations { campaign_id: id.clone(), count, start: false, with };
    let Written { index, outcome } = propose(&app, ticket, &caller, command).await?;
    let Outcome::IterationsQueued { count } = outcome else {
        return Err(key_reused(ticket.request_id));
    };
    app.caught_up(ticket, index).await?;
    begun(&app, &id).await;
    let view = |state: &Tables| {
        let campaign = state.campaign(&id)?;
        let newest = state.iterations(&id).next_back();
        let open = newest.filter(|row| row.completed_at_ms == 0);
        Some(json!({
            "campaign": campaign_view(campaign),
            "iterations": open.map(|row| iteration_view(state, row)).into_iter().collect::<Vec<_>>(),
            "iterations_queued": count,
            "message": format!("{count} iterations queued"),
        }))
    };
    answers::shown(&app, ticket, index, view, || not_found(id.as_str())).await
}

/// Waits a little for the leader to begin an iteration that was asked for and can begin, so that the
/// answer shows it.
async fn begun(app: &App, id: &CampaignId) {
    let until = Instant::now() + BEGIN_WAIT;
    let is_due = |state: &Tables| {
        state.campaign(id).is_some_and(|row| {
            let candidates = state.candidates_of(row, row.requested_candidates());
            row.requested > 0 && !row.iterating && state.may_iterate(row, candidates)
        })
    };
    while app.cluster().view().read(is_due) && Instant::now() < until {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// `GET /campaigns/{id}/iterations`.
pub(in crate::api) async fn iterations(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.number("limit")?.unwrap_or(LIMIT_MAX).clamp(1, LIMIT_MAX);
    let skip = params.skip("skip")?;
    let campaign_id = campaign_id(&id)?;
    let mut stamp = app.admit(&params).await?;
    let page = app.show(&mut stamp, |state| {
        state.campaign(&campaign_id)?;
        let rows = state.iterations(&campaign_id).skip(skip).take(limit as usize);
        Some(rows.map(|row| row.index).collect::<Vec<_>>())
    });
    let page = page.ok_or_else(|| not_found(&id))?;
    let mut rows = Vec::with_capacity(page.len());
    for index in page {
        // A hundred candidates with what each tried are enough for one look.
        rows.extend(app.show(&mut stamp, |state| {
            Some(iteration_view(state, state.iteration(&campaign_id, index)?))
        }));
        tokio::task::yield_now().await;
    }
    Ok(reply::read(&stamp, reply::encode(&Value::from(rows))))
}

/// `GET /campaigns/{id}/iterations/{index}`, counted from 0.
pub(in crate::api) async fn iteration(
    State(app): State<App>,
    Path((id, index)): Path<(String, String)>,
    params: Params,
) -> Result<Response, ApiError> {
    let missing =
        || ApiError::not_found("ITERATION_NOT_FOUND", format!("Iteration {index} not found"));
    let number: u32 = index.parse().map_err(|_| missing())?;
    let campaign_id = campaign_id(&id)?;
    let mut stamp = app.admit(&params).await?;
    let shown = app.show(&mut stamp, |state| {
        state.campaign(&campaign_id)?;
        Some(state.iteration(&campaign_id, number).map(|row| iteration_view(state, row)))
    });
    let shown = shown.ok_or_else(|| not_found(&id))?.ok_or_else(missing)?;
    Ok(reply::read(&stamp, reply::encode(&shown)))
}

/// `GET /campaigns/{id}/summary`.
pub(in crate::api) async fn summary(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    read(&app, &params, &id, |state, campaign| Some(summary_view(state, campaign))).await
}

/// `GET /agent/campaigns/{id}/log` (contract 3.5).
pub(in crate::api) async fn log(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let view = |state: &Tables, campaign: &Campaign| {
        let lines = state.campaign_lines(&campaign.campaign_id);
        let entry = |line: &crate::model::CampaignLine| json!({"at": iso_or_null(line.at_ms), "event": line.event, "message": line.text});
        let entries: Vec<Value> = lines.map(entry).collect();
        Some(json!({
            "campaign_id": campaign.campaign_id,
            "n_entries": entries.len(),
            "entries": entries,
        }))
    };
    read(&app, &params, &id, view).await
}
