//! Bodies and ids of family B, read.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;

use crate::api::error::ApiError;
use crate::api::object::{FieldError, Object};
use crate::api::params::Params;
use crate::api::ticket::Caller;
use crate::model::DerivedId;
use crate::state::{BotSpec, BotWork, HOLDER_MAX, LEASE_MAX_MS};

/// The longest wait that a client may ask for.
pub(in crate::api) const WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a lease lasts when nothing is said.
const LEASE_MS: u64 = 60_000;
/// The tier of bots of which nothing is said (contract 5.1).
const TIER: &str = "standard";

/// A body that must be there (contract 5.1).
///
/// # Errors
/// 400 when it is missing, or no JSON object.
pub(super) fn object(body: &[u8]) -> Result<Object<'_>, ApiError> {
    if body.trim_ascii().is_empty() {
        return Err(ApiError::bad_request("INVALID_BODY", "the body must be a JSON object"));
    }
    Ok(Object::parse(body)?)
}

/// What a bot, or every bot of a swarm, shall be.
pub(super) fn spec(body: &Object<'_>) -> Result<BotSpec, ApiError> {
    let tier = body.text("tier")?;
    Ok(BotSpec {
        name: body.text("name")?.unwrap_or_default().into_owned(),
        tier: tier.map_or_else(|| TIER.to_owned(), |tier| tier.into_owned()),
        capabilities: body.texts("capabilities")?,
    })
}

/// What bots shall do.
pub(super) fn work(body: &Object<'_>) -> Result<BotWork, ApiError> {
    let task_type = body.text("type")?.map(|text| text.into_owned());
    Ok(BotWork { task_type, data: body.json("data") })
}

/// A whole number, which no text and no fraction is taken for (contract 5.1). Beyond what can be
/// counted it is the most or the least of that.
pub(super) fn integer(body: &Object<'_>, key: &str) -> Result<Option<i64>, ApiError> {
    let Some(raw) = body.raw(key) else { return Ok(None) };
    let text = raw.get();
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FieldError::new(key, "a whole number").into());
    }
    let limit = if text.starts_with('-') { i64::MIN } else { i64::MAX };
    Ok(Some(text.parse().unwrap_or(limit)))
}

/// How many bots a swarm shall have. Null is no number (contract 5.1).
pub(super) fn count(body: &Object<'_>) -> Result<Option<i64>, ApiError> {
    let count = integer(body, "count")?;
    if count.is_none() && body.has("count") {
        return Err(FieldError::new("count", "a whole number").into());
    }
    Ok(count)
}

/// A quotient with two decimals, as family B rounds it: what the float holds, to the nearest, and to
/// the even one of two that are equally near (contract 5.3). 0 of nothing.
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    let exact = part as f64 / whole as f64;
    format!("{exact:.2}").parse().unwrap_or(exact)
}

/// A number of bots; below zero is none.
pub(super) fn bots(count: i64) -> u32 {
    u32::try_from(count.max(0)).unwrap_or(u32::MAX)
}

fn seconds(body: &Object<'_>, key: &str, max: Duration) -> Result<Option<Duration>, ApiError> {
    let Some(seconds) = body.number(key)? else { return Ok(None) };
    let time = Duration::try_from_secs_f64(seconds).ok().filter(|time| *time <= max);
    let max = max.as_secs();
    let wrong = || {
        let text = format!("{key} must be a number of seconds from 0 to {max}");
        ApiError::bad_request("INVALID_FIELD", text)
    };
    time.map(Some).ok_or_else(wrong)
}

/// `lease_seconds`, in milliseconds.
pub(super) fn lease_ms(body: &Object<'_>) -> Result<u64, ApiError> {
    let asked = seconds(body, "lease_seconds", Duration::from_millis(LEASE_MAX_MS))?;
    let lease_ms = asked.map_or(LEASE_MS, |time| time.as_millis() as u64);
    // Less than a millisecond is asked for by mistake.
    if lease_ms == 0 {
        return Err(FieldError::new("lease_seconds", "more than 0").into());
    }
    Ok(lease_ms)
}

/// `wait_seconds`.
pub(super) fn wait(body: &Object<'_>) -> Result<Duration, ApiError> {
    Ok(seconds(body, "wait_seconds", WAIT_MAX)?.unwrap_or_default())
}

/// `?wait=`, in seconds.
pub(super) fn wait_of(params: &Params) -> Result<Duration, ApiError> {
    match params.number("wait")?.map(Duration::from_secs) {
        None => Ok(Duration::ZERO),
        Some(wait) if wait <= WAIT_MAX => Ok(wait),
        Some(_) => Err(ApiError::bad_request("INVALID_QUERY", "wait is 0 to 60 seconds")),
    }
}

/// Who takes leases: as they call themselves, or as whom they came in.
pub(super) fn holder(body: &Object<'_>, caller: &Caller) -> Result<String, ApiError> {
    let said = body.text("holder")?.map(|text| text.into_owned());
    let known = || Some(caller.0.clone()).filter(|name| name.len() <= HOLDER_MAX);
    let holder = said.or_else(known).unwrap_or_default();
    if holder.len() > HOLDER_MAX {
        return Err(FieldError::new("holder", "a string of at most 64 bytes").into());
    }
    Ok(holder)
}

pub(super) fn bot_not_found(id: &str) -> ApiError {
    ApiError::not_found("BOT_NOT_FOUND", format!("Bot {id} not found"))
}

pub(super) fn swarm_not_found(id: &str) -> ApiError {
    ApiError::not_found("SWARM_NOT_FOUND", format!("Swarm {id} not found"))
}

pub(super) fn workflow_not_found(id: &str) -> ApiError {
    ApiError::not_found("WORKFLOW_NOT_FOUND", format!("Workflow {id} not found"))
}

pub(super) fn task_not_found(task: &str, bot: &str) -> ApiError {
    ApiError::not_found("TASK_NOT_FOUND", format!("Task {task} not found for bot {bot}"))
}

/// The id of a bot; what is none names no bot.
pub(super) fn bot_id(text: &str) -> Result<DerivedId, ApiError> {
    DerivedId::parse(text).ok_or_else(|| bot_not_found(text))
}

/// As [`bot_id`], of a swarm.
pub(super) fn swarm_id(text: &str) -> Result<DerivedId, ApiError> {
    DerivedId::parse(text).ok_or_else(|| swarm_not_found(text))
}

/// As [`bot_id`], of a workflow.
pub(super) fn workflow_id(text: &str) -> Result<DerivedId, ApiError> {
    DerivedId::parse(text).ok_or_else(|| workflow_not_found(text))
}

/// The same answer with another status.
pub(super) fn with_status(mut response: Response, status: StatusCode) -> Response {
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_5_1_null_is_no_count() {
        let read = |text: &str| count(&Object::parse(text.as_bytes()).unwrap()).ok();
        assert_eq!((read("{}"), read(r#"{"count":null}"#)), (Some(None), None));
        assert_eq!(read(r#"{"count":7}"#), Some(Some(7)));
    }

    /// 1.005 and 2.675 lie below what they seem to be, 0.125 and 0.375 just between two.
    #[test]
    fn contract_5_3_averages_are_rounded_as_family_b_does() {
        for (part, whole, wanted) in [
            (1, 3, 0.33),
            (2, 3, 0.67),
            (1, 8, 0.12),
            (3, 8, 0.38),
            (201, 200, 1.0),
            (107, 40, 2.67),
            (7, 0, 0.0),
        ] {
            assert_eq!(ratio(part, whole), wanted, "{part}/{whole}");
        }
    }

    #[test]
    fn contract_5_1_counts_are_whole_numbers() {
        let count = |text: &str| {
            let body = format!(r#"{{"count":{text}}}"#);
            integer(&Object::parse(body.as_bytes()).unwrap(), "count").ok()
        };
        for (text, wanted) in [
            ("7", Some(Some(7))),
            ("-7", Some(Some(-7))),
            ("null", Some(None)),
            ("99999999999999999999", Some(Some(i64::MAX))),
            ("-99999999999999999999", Some(Some(i64::MIN))),
            ("2.5", None),
            ("1e3", None),
            ("\"7\"", None),
            ("true", None),
            ("[]", None),
        ] {
            assert_eq!(count(text), wanted, "{text}");
        }
        assert_eq!((bots(-3), bots(3), bots(i64::MAX)), (0, 3, u32::MAX));
    }

    #[test]
    fn times_are_bounded() {
        let read = |text: &str| {
            let body = format!(r#"{{"lease_seconds":{text},"wait_seconds":{text}}}"#);
            let body = Object::parse(body.as_bytes()).unwrap();
            (lease_ms(&body).ok(), wait(&body).ok().map(|wait| wait.as_millis()))
        };
        assert_eq!(read("null"), (Some(60_000), Some(0)));
        assert_eq!(read("1.5"), (Some(1500), Some(1500)));
        assert_eq!(read("0"), (None, Some(0)));
        assert_eq!(read("61"), (Some(61_000), None));
        for wrong in ["-1", "86401", "1e300", "\"x\""] {
            assert_eq!(read(wrong), (None, None), "{wrong}");
        }
        assert_eq!(wait_of(&Params::of("wait=60")).unwrap().as_secs(), 60);
        assert!(wait_of(&Params::of("wait=61")).is_err());
    }

    #[test]
    fn contract_5_1_a_body_must_be_there() {
        for body in [&b""[..], b" \n", b"[]", b"7", b"{"] {
            assert_eq!(object(body).unwrap_err().code(), "INVALID_BODY");
        }
        let body = object(b"{}").unwrap();
        assert_eq!(spec(&body).unwrap().tier, "standard");
        assert_eq!(work(&body).unwrap(), BotWork::default());
    }
}
