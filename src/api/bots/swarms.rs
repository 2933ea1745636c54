//! The doors of swarms (contract 5.1). Answers may list 50,000 ids, which are made while they are sent.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{MethodRouter, post};

use super::listing::Walk;
use super::shape;
use super::single::{propose, removed};
use super::view::{SwarmBody, SwarmShown};
use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::list_query::ListKind;
use crate::api::object::FieldError;
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::model::DerivedId;
use crate::state::{BotCommand, BotOutcome, Command, Outcome, State as Tables};

/// Bots of a swarm when nothing is said (contract 5.1).
const COUNT: i64 = 100;
/// Commands that a request to shrink takes at most each time it is sent.
const SHRINKS_MAX: usize = 1000;

const SWARMS: ListKind =
    ListKind { name: "swarms", sorts: &["created_at"], descending: false, filters: &[], own: &[] };

fn shown(state: &Tables, swarm: DerivedId) -> Option<SwarmShown> {
    SwarmShown::of(state, state.swarm_number(swarm)?)
}

/// Whether the ids of the bots are wanted: unless `?bot_ids=false`.
fn with_ids(params: &Params) -> bool {
    params.get("bot_ids").is_none() || params.flag("bot_ids")
}

/// The answer to a write of a swarm.
async fn changed(
    app: &App,
    ticket: Ticket,
    index: u64,
    swarm: DerivedId,
    with_ids: bool,
) -> Result<Response, ApiError> {
    let mut stamp = app.caught_up(ticket, index).await?;
    let missing = || shape::swarm_not_found(&swarm.to_string()).with_request_id(ticket.request_id);
    let found = app.show(&mut stamp, |state| shown(state, swarm)).ok_or_else(missing)?;
    Ok(reply::written_body(ticket, index, found.body(with_ids)?))
}

/// `POST /swarms`; answers with `status`, as that of bots.
pub(in crate::api) fn creating(status: StatusCode) -> MethodRouter<App> {
    post(move |State(app), params, ticket, caller, body| async move {
        let answer = create(app, params, ticket, caller, body).await?;
        Ok::<_, ApiError>(shape::with_status(answer, status))
    })
}

async fn create(
    app: App,
    params: Params,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let body = shape::object(&body)?;
    let count = shape::bots(shape::count(&body)?.unwrap_or(COUNT));
    let command = BotCommand::CreateSwarm { spec: shape::spec(&body)?, count };
    let Written { index, outcome } = propose(&app, ticket, &caller, command).await?;
    let Outcome::Bot(BotOutcome::SwarmCreated { swarm, .. }) = outcome else {
        return Err(key_reused(ticket.request_id));
    };
    changed(&app, ticket, index, swarm, with_ids(&params)).await
}

/// `GET /swarms/{id}`.
pub(in crate::api) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let swarm = shape::swarm_id(&id)?;
    let mut stamp = app.admit(&params).await?;
    let found = app.show(&mut stamp, |state| shown(state, swarm));
    let found = found.ok_or_else(|| shape::swarm_not_found(&id))?;
    Ok(reply::read_body(&stamp, found.body(with_ids(&params))?))
}

/// `GET /swarms?limit=&cursor=`, without the ids of their bots.
pub(in crate::api) async fn list(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let walk = Walk::of(&SWARMS, &params)?;
    let mut stamp = app.admit(&params).await?;
    let walk = walk.in_cluster(&app);
    let after = walk.after()?.map_or(0, |(number, _)| u32::try_from(number).unwrap_or(u32::MAX));
    let answer = app.show(&mut stamp, |state| {
        let numbers = state.swarms_after(after).map(|(number, _)| number).take(walk.limit() + 1);
        let rows = numbers.filter_map(|number| {
            let view = state.swarm_view(number)?;
            Some(((number.into(), 0), serde_json::to_value(SwarmBody::of(&view)).ok()?))
        });
        walk.answer("swarms", rows.collect(), state.swarms_len() as u64)
    });
    Ok(reply::read(&stamp, reply::encode(&answer)))
}

/// `PATCH /swarms/{id}`: so many bots from now on, or as many as there is room for. One that shrinks by
/// many that have much to do takes several commands.
pub(in crate::api) async fn scale(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let swarm = shape::swarm_id(&id)?;
    let count = shape::count(&shape::object(&body)?)?.filter(|count| *count >= 0);
    let count = count.ok_or_else(|| FieldError::new("count", "a whole number of at least 0"))?;
    let count = shape::bots(count);
    let command = Command::Bot(Box::new(BotCommand::ScaleSwarm { swarm, count }));
    let part = |outcome: &Outcome| match outcome {
        Outcome::Bot(BotOutcome::SwarmScaled { count: now }) => *now > count,
        _ => false,
    };
    let written = app.write_parts(ticket, &caller, &command, (part, SHRINKS_MAX)).await?;
    let Outcome::Bot(BotOutcome::SwarmScaled { .. }) = written.outcome else {
        return Err(key_reused(ticket.request_id));
    };
    changed(&app, ticket, written.index, swarm, with_ids(&params)).await
}

/// `DELETE /swarms/{id}`.
pub(in crate::api) async fn remove(
    State(app): State<App>,
    Path(id): Path<String>,
    ticket: Ticket,
    caller: Caller,
) -> Result<Response, ApiError> {
    let command = BotCommand::RemoveSwarm { swarm: shape::swarm_id(&id)? };
    removed(&app, ticket, &caller, (&id, command)).await
}
