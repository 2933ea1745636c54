//! How a bot or a swarm does. Whoever works for it is known by its leases alone.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::shape;
use crate::api::App;
use crate::api::error::ApiError;
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::wire_time::iso_micros;
use crate::clock;
use crate::model::TimeMs;
use crate::state::BotHealth;

/// Somebody was heard of within this time.
const RECENT_MS: TimeMs = 5 * 60_000;

/// `overdue`: somebody holds a lease longer than it lasts; `working`: somebody holds one; `active`:
/// somebody was heard of within five minutes; `quiet`: longer ago; `unattached`: never, and nothing was
/// `done`.
fn word(health: &BotHealth, done: u64, now: TimeMs) -> &'static str {
    match health {
        BotHealth { overdue: 1.., .. } => "overdue",
        BotHealth { leased: 1.., .. } => "working",
        BotHealth { last_contact_ms: 0, .. } if done == 0 => "unattached",
        BotHealth { last_contact_ms, .. } if last_contact_ms + RECENT_MS >= now => "active",
        BotHealth { .. } => "quiet",
    }
}

fn body(health: &BotHealth, done: u64, now: TimeMs) -> Value {
    let at = health.last_contact_ms;
    json!({
        "health": word(health, done, now),
        "leased_tasks": health.leased,
        "overdue_leases": health.overdue,
        "last_contact": (at > 0).then(|| iso_micros(at)),
        "seconds_since_contact": (at > 0).then(|| now.saturating_sub(at) / 1000),
        "timestamp": iso_micros(now),
    })
}

/// `GET /bots/{id}/health`.
pub(in crate::api) async fn of_bot(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let bot = shape::bot_id(&id)?;
    let mut stamp = app.admit(&params).await?;
    let now = clock::now_ms();
    let answer = app.show(&mut stamp, |state| {
        let place = state.bot_place(bot)?;
        let (health, view) = (state.bot_health(place, now)?, state.bot_view(place)?);
        let mut answer = body(&health, view.completed + view.failed, now);
        answer["bot_id"] = json!(bot);
        answer["status"] = "active".into();
        answer["pending_tasks"] = view.pending.into();
        answer["completed_tasks"] = view.completed.into();
        answer["failed_tasks"] = view.failed.into();
        Some(answer)
    });
    let answer = answer.ok_or_else(|| shape::bot_not_found(&id))?;
    Ok(reply::read(&stamp, reply::encode(&answer)))
}

/// `GET /swarms/{id}/health`.
pub(in crate::api) async fn of_swarm(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let swarm = shape::swarm_id(&id)?;
    let mut stamp = app.admit(&params).await?;
    let now = clock::now_ms();
    let answer = app.show(&mut stamp, |state| {
        let number = state.swarm_number(swarm)?;
        let (health, view) = (state.swarm_health(number, now)?, state.swarm_view(number)?);
        let mut answer = body(&health, view.figures.completed + view.figures.failed, now);
        answer["swarm_id"] = json!(swarm);
        answer["status"] = "active".into();
        answer["bot_count"] = view.row.count.into();
        answer["waiting_tasks"] = view.figures.waiting.into();
        answer["completed_tasks"] = view.figures.completed.into();
        answer["failed_tasks"] = view.figures.failed.into();
        Some(answer)
    });
    let answer = answer.ok_or_else(|| shape::swarm_not_found(&id))?;
    Ok(reply::read(&stamp, reply::encode(&answer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_health() {
        let now = 1_000_000;
        for (leased, overdue, last_contact_ms, done, wanted) in [
            (0, 0, 0, 0, "unattached"),
            (0, 0, 0, 1, "quiet"),
            (0, 0, now - RECENT_MS, 0, "active"),
            (0, 0, now - RECENT_MS - 1, 0, "quiet"),
            (1, 0, now, 0, "working"),
            (1, 1, now, 0, "overdue"),
        ] {
            let health = BotHealth { leased, overdue, last_contact_ms };
            assert_eq!(word(&health, done, now), wanted);
        }
    }
}
