//! Doors that give work away: of one bot, of a swarm, or of many. Nobody else gets what somebody holds
//! a lease of, and an answer may wait until there is something. Whoever waits looks at the state of its
//! own member; the log is only written when there is something to be had.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use super::pieces::{self, Frame};
use super::shape;
use super::single::propose;
use super::view::{Assignment, Works, Writer};
use super::waits::{Bell, look_until};
use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::{FieldError, Object};
use crate::api::params::Path;
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::api::wire_time::iso_micros;
use crate::cluster::Consistency;
use crate::model::{AssignmentPlace, DerivedId, TimeMs};
use crate::state::{
    BOT_ITEMS_MAX, BOTS_PER_LEASE_MAX, BotCommand, BotOutcome, LEASE_TYPES_MAX, LeaseScope,
    LeasedRun, Outcome, Rejection, State as Tables,
};

/// What somebody wants to work on.
struct Asked {
    holder: String,
    scope: LeaseScope,
    max: u32,
    lease_ms: u64,
    types: Vec<Option<String>>,
    wait: Duration,
}

impl Asked {
    fn read(body: &Object<'_>, scope: LeaseScope, caller: &Caller) -> Result<Self, ApiError> {
        let max = shape::integer(body, "max")?.unwrap_or(1);
        let bounded = u32::try_from(max).ok().filter(|max| *max as usize <= BOT_ITEMS_MAX);
        let max = bounded.filter(|max| *max > 0);
        Ok(Self {
            holder: shape::holder(body, caller)?,
            scope,
            max: max.ok_or_else(|| FieldError::new("max", "a whole number from 1 to 1000"))?,
            lease_ms: shape::lease_ms(body)?,
            types: types(body)?,
            wait: shape::wait(body)?,
        })
    }

    fn command(&self) -> BotCommand {
        BotCommand::LeaseAssignments {
            holder: self.holder.clone(),
            scope: self.scope.clone(),
            max: self.max,
            lease_ms: self.lease_ms,
            types: self.types.clone(),
        }
    }
}

/// The types that are wanted, null being those without one; without a list all are.
fn types(body: &Object<'_>) -> Result<Vec<Option<String>>, ApiError> {
    if body.raw("types").is_none() {
        return Ok(Vec::new());
    }
    let wanted = || FieldError::new("types", "a list of 1 to 100 strings or nulls");
    let list = body.list("types")?;
    if list.is_empty() || list.len() > LEASE_TYPES_MAX {
        return Err(wanted().into());
    }
    let parse = |raw: &RawValue| serde_json::from_str(raw.get()).map_err(|_| wanted().into());
    list.into_iter().map(parse).collect()
}

/// Ids of bots or swarms; what is no id names nothing.
fn ids(body: &Object<'_>, key: &str, max: usize) -> Result<Option<Vec<DerivedId>>, ApiError> {
    if body.raw(key).is_none() {
        return Ok(None);
    }
    let texts = body.texts(key)?;
    if texts.is_empty() || texts.len() > max {
        let text = format!("{key} must be a list of 1 to {max} ids");
        return Err(ApiError::bad_request("INVALID_FIELD", text));
    }
    let ids: Vec<_> = texts.iter().filter_map(|text| DerivedId::parse(text)).collect();
    match (ids.is_empty(), key) {
        (false, _) => Ok(Some(ids)),
        (true, "bots") => Err(shape::bot_not_found(&texts[0])),
        (true, _) => Err(shape::swarm_not_found(&texts[0])),
    }
}

fn scope(body: &Object<'_>) -> Result<LeaseScope, ApiError> {
    let bots = ids(body, "bots", BOTS_PER_LEASE_MAX)?;
    let swarms = ids(body, "swarms", BOT_ITEMS_MAX)?;
    match (bots, swarms) {
        (Some(bots), None) => Ok(LeaseScope::Bots(bots)),
        (None, Some(swarms)) => Ok(LeaseScope::Swarms(swarms)),
        _ => {
            let text = "either bots or swarms must say whose assignments are wanted";
            Err(ApiError::bad_request("INVALID_FIELD", text))
        }
    }
}

/// `POST /bots/leases`.
pub(in crate::api) async fn lease(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let body = shape::object(&body)?;
    let asked = Asked::read(&body, scope(&body)?, &caller)?;
    give(&app, ticket, &caller, asked).await
}

/// `POST /bots/{id}/tasks/lease`.
pub(in crate::api) fn leasing_of_bot() -> MethodRouter<App> {
    leasing(|id| Ok(LeaseScope::Bots(vec![shape::bot_id(id)?])))
}

/// `POST /swarms/{id}/tasks/lease`.
pub(in crate::api) fn leasing_of_swarm() -> MethodRouter<App> {
    leasing(|id| Ok(LeaseScope::Swarms(vec![shape::swarm_id(id)?])))
}

fn leasing(scope: fn(&str) -> Result<LeaseScope, ApiError>) -> MethodRouter<App> {
    post(move |State(app), Path(id): Path<String>, ticket, caller, RequestBody(body)| async move {
        let asked = Asked::read(&Object::parse(&body)?, scope(&id)?, &caller)?;
        give(&app, ticket, &caller, asked).await
    })
}

/// Takes what there is, or waits for it. Each try in which others were faster is a write of its own;
/// a request that is sent again goes through the same tries, and so finds what it was given.
async fn give(
    app: &App,
    first: Ticket,
    caller: &Caller,
    asked: Asked,
) -> Result<Response, ApiError> {
    let until = Instant::now() + asked.wait;
    let _place = if asked.wait.is_zero() { None } else { Some(app.waits().enter()?) };
    let mut stamp = app.barrier(Consistency::Linearizable).await?;
    let view = app.cluster().view();
    let mut tries = 0;
    loop {
        let ticket = first.nth(tries);
        let look = || view.read(|state| is_there(state, ticket, &asked));
        let ready = || match look() {
            Ok(false) => None,
            other => Some(other),
        };
        let at_once = ready();
        let waited = at_once.is_none();
        let seen = match at_once {
            Some(seen) => Some(seen),
            None => look_until(app, Bell::Work, until, ready).await,
        };
        let Some(seen) = seen else { break };
        seen?;
        let turn = if waited || tries > 0 {
            let Ok(turn) = timeout_at(until, app.waits().turn()).await else { break };
            turn
        } else {
            None
        };
        if turn.is_some() && !look()? {
            // Others had their turn, and took it.
            continue;
        }
        let Written { index, outcome } = propose(app, ticket, caller, asked.command()).await?;
        let Outcome::Bot(BotOutcome::Leased { runs, deadline_ms }) = outcome else {
            return Err(key_reused(ticket.request_id));
        };
        stamp = app.caught_up(ticket, index).await?;
        if !runs.is_empty() {
            return taken(app, ticket, index, &runs, deadline_ms);
        }
        tries += 1;
        // One that is sent again goes on to where it was, however long it waits this time.
        let was_made = app.recorded(first.nth(tries)).is_some();
        if Instant::now() >= until && !was_made {
            break;
        }
    }
    app.show(&mut stamp, |_| ());
    Ok(reply::read(&stamp, reply::encode(&json!({"assignments": []}))))
}

/// Whether a try has been made already, or is worth making.
fn is_there(state: &Tables, ticket: Ticket, asked: &Asked) -> Result<bool, Rejection> {
    if state.request(ticket.command_id()).is_some() {
        return Ok(true);
    }
    state.waits_for_lease(&asked.scope, &asked.types)
}

/// The assignments of a lease. One that is gone with its swarm meanwhile is left out.
fn rows(state: &Tables, runs: &[LeasedRun]) -> Vec<(Assignment, u32)> {
    let mut works = Works::default();
    let places = runs.iter().flat_map(|run| {
        let AssignmentPlace { wave, index } = run.first;
        let indexes = index..index.saturating_add(run.count);
        indexes.map(move |index| (AssignmentPlace { wave, index }, run.attempt))
    });
    let found = places.filter_map(|(place, attempt)| {
        let view = state.assignment(place)?;
        Some((works.assignment(state, &view), attempt))
    });
    found.collect()
}

fn taken(
    app: &App,
    ticket: Ticket,
    index: u64,
    runs: &[LeasedRun],
    deadline_ms: TimeMs,
) -> Result<Response, ApiError> {
    let view = app.cluster().view();
    let rows = view.read(|state| rows(state, runs));
    let (mut writer, deadline) = (Writer::new(view), iso_micros(deadline_ms));
    let frame = Frame::of_object(b"{}".to_vec(), "assignments");
    let body = pieces::body(frame, rows.into_iter(), move |to, (row, attempt)| {
        writer.leased(to, &row, attempt, &deadline)
    })?;
    Ok(reply::written_body(ticket, index, body))
}
