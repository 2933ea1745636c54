//! The doors of single bots, and the figures of all of them (contract 5.1, 5.3).

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use serde_json::{Value, json};

use super::listing::Walk;
use super::shape;
use super::view::BotBody;
use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::list_query::ListKind;
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::api::wire_time::iso_micros;
use crate::clock;
use crate::model::{BotPlace, DerivedId};
use crate::state::{BotCommand, BotOutcome, Command, Outcome, State as Tables};

const BOTS: ListKind = ListKind {
    name: "bots",
    sorts: &["created_at"],
    descending: false,
    filters: &["swarm_id"],
    own: &[],
};

/// Commits a command about bots.
pub(super) async fn propose(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    command: BotCommand,
) -> Result<Written, ApiError> {
    app.write(ticket, caller, Command::Bot(Box::new(command))).await
}

/// A bot with its counts.
fn shown(state: &Tables, id: DerivedId) -> Option<Vec<u8>> {
    let view = state.bot_view(state.bot_place(id)?)?;
    Some(reply::encode(&BotBody::of(state, &view, true)))
}

/// `POST /bots`; answers with `status`, since the gateway's alias has another than the family
/// (contract 5.6).
pub(in crate::api) fn creating(status: StatusCode) -> MethodRouter<App> {
    post(move |State(app), ticket, caller, body| create(app, ticket, caller, body, status))
}

async fn create(
    app: App,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
    status: StatusCode,
) -> Result<Response, ApiError> {
    let command = BotCommand::CreateBot(shape::spec(&shape::object(&body)?)?);
    let Written { index, outcome } = propose(&app, ticket, &caller, command).await?;
    let Outcome::Bot(BotOutcome::BotCreated { bot }) = outcome else {
        return Err(key_reused(ticket.request_id));
    };
    let mut stamp = app.caught_up(ticket, index).await?;
    // Whoever asks again may find it removed.
    let missing = || shape::bot_not_found(&bot.to_string()).with_request_id(ticket.request_id);
    let text = app.show(&mut stamp, |state| shown(state, bot)).ok_or_else(missing)?;
    Ok(shape::with_status(reply::written_body(ticket, index, text.into()), status))
}

/// `GET /bots/{id}`.
pub(in crate::api) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let bot = shape::bot_id(&id)?;
    let mut stamp = app.admit(&params).await?;
    let text = app.show(&mut stamp, |state| shown(state, bot));
    Ok(reply::read(&stamp, text.ok_or_else(|| shape::bot_not_found(&id))?))
}

/// `GET /bots?swarm_id=&limit=&cursor=`: those of no swarm, then swarm by swarm.
pub(in crate::api) async fn list(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let walk = Walk::of(&BOTS, &params)?;
    let said = params.get("swarm_id").map(str::trim).filter(|id| !id.is_empty());
    let swarm = said.map(|id| Ok::<_, ApiError>((id, shape::swarm_id(id)?))).transpose()?;
    let mut stamp = app.admit(&params).await?;
    let walk = walk.in_cluster(&app);
    let after = walk
        .after()?
        .map(|(swarm, index)| BotPlace { swarm: u32::try_from(swarm).unwrap_or(u32::MAX), index });
    let answer = app.show(&mut stamp, |state| page(state, &walk, swarm, after))?;
    Ok(reply::read(&stamp, reply::encode(&answer)))
}

fn page(
    state: &Tables,
    walk: &Walk,
    swarm: Option<(&str, DerivedId)>,
    after: Option<BotPlace>,
) -> Result<Value, ApiError> {
    let row = |place: BotPlace| {
        let view = state.bot_summary(place)?;
        let body = serde_json::to_value(BotBody::of(state, &view, false)).ok()?;
        Some(((u64::from(place.swarm), place.index), body))
    };
    let limit = walk.limit() + 1;
    let Some((text, id)) = swarm else {
        let rows = state.bots_after(after).take(limit).filter_map(row).collect();
        return Ok(walk.answer("bots", rows, state.bots_len()));
    };
    let number = state.swarm_number(id).ok_or_else(|| shape::swarm_not_found(text))?;
    let from = after.map_or(0, |after| after.index.saturating_add(1));
    let rows = state.members_of(number, from).take(limit).filter_map(row).collect();
    let total = state.swarm(number).map_or(0, |swarm| u64::from(swarm.count));
    Ok(walk.answer("bots", rows, total))
}

/// `DELETE /bots/{id}`.
pub(in crate::api) async fn remove(
    State(app): State<App>,
    Path(id): Path<String>,
    ticket: Ticket,
    caller: Caller,
) -> Result<Response, ApiError> {
    let command = BotCommand::RemoveBot { bot: shape::bot_id(&id)? };
    removed(&app, ticket, &caller, (&id, command)).await
}

/// Removes what has an id, and says so.
pub(super) async fn removed(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    (id, command): (&str, BotCommand),
) -> Result<Response, ApiError> {
    let Written { index, outcome } = propose(app, ticket, caller, command).await?;
    let Outcome::Done = outcome else { return Err(key_reused(ticket.request_id)) };
    Ok(reply::written(ticket, index, &json!({"id": id, "deleted": true})))
}

/// `GET /bots/stats` (contract 5.3).
pub(in crate::api) async fn stats(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let mut stamp = app.admit(&params).await?;
    let answer = app.show(&mut stamp, |state| {
        let stats = state.bot_stats();
        let there = stats.tiers.iter().filter(|(_, figures)| figures.bots > 0);
        let tiers: serde_json::Map<String, Value> =
            there.map(|(tier, figures)| ((*tier).to_owned(), figures.bots.into())).collect();
        json!({
            "total_created": stats.created,
            "active_bots": stats.all.bots,
            "tasks_executed": stats.executed,
            "tier_distribution": tiers,
            "swarm_count": stats.swarms,
            "capacity_remaining": stats.remaining,
            "utilization_percent": shape::ratio(stats.all.bots * 100, stats.capacity),
            "timestamp": iso_micros(clock::now_ms()),
            "capacity": stats.capacity,
            "tasks_waiting": stats.all.waiting,
            "tasks_leased": stats.all.leased,
        })
    });
    Ok(reply::read(&stamp, reply::encode(&answer)))
}
