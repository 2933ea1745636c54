//! The ledger of slots: `GET /api/v1/orchestrator/slots`.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::config::schedule_view;
use super::orchestrators::{name, unknown};
use crate::api::App;
use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::reply;
use crate::api::wire_time::{iso, parse_time};
use crate::model::{Slot, SlotDecision};

const LIMIT: u64 = 100;

fn slot_view(slot: &Slot) -> Value {
    json!({
        "slot": iso(slot.nominal_ms),
        "decision": slot.decision.as_str(),
        "run_id": slot.decision.run_id().map(|run_id| run_id.to_string()),
        "decided_at": iso(slot.decided_at_ms),
    })
}

/// Newest first; `?from=` and `?until=` take times, `?decision=` one of its words, `?limit=` 1 to 1000.
pub(in crate::api) async fn list(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = name(&app, &params);
    let invalid = |text: &str| ApiError::bad_request("INVALID_QUERY", text);
    let limit = params.limit(LIMIT)?;
    let time = |key: &str, usual: u64| match params.get(key) {
        None => Ok(usual),
        Some(text) => parse_time(text).ok_or_else(|| invalid("from and until are times")),
    };
    let (from, until) = (time("from", 0)?, time("until", u64::MAX)?);
    let word = params.get("decision");
    if word.is_some_and(|word| !SlotDecision::WORDS.contains(&word)) {
        let words = SlotDecision::WORDS.join(", ");
        return Err(invalid(&format!("decision is one of {words}")));
    }
    let mut stamp = app.admit(&params).await?;
    let shown = app.show(&mut stamp, |state| {
        let (orchestrator, schedule) = (state.orchestrator(&name)?, state.schedule(&name)?);
        let slots = state.slots_from(&name, from).rev().filter(|slot| {
            slot.nominal_ms <= until && word.is_none_or(|word| slot.decision.as_str() == word)
        });
        let counts = SlotDecision::WORDS.iter().zip(schedule.counts);
        let counts = counts.map(|(word, count)| ((*word).to_owned(), Value::from(count)));
        Some(json!({
            "orchestrator": name,
            "mode": orchestrator.mode.as_str(),
            "schedule": schedule_view(orchestrator, schedule),
            "decided_until": iso(schedule.decided_ms),
            "counts": Value::Object(counts.collect()),
            "slots": slots.take(limit).map(slot_view).collect::<Vec<_>>(),
        }))
    });
    let page = shown.ok_or_else(|| unknown(&name))?;
    Ok(reply::read(&stamp, reply::encode(&page)))
}
