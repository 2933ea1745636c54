//! Limits that a submission sets on its key: how many at once, and how many in a window of time.

use crate::api::object::{FieldError, Object};
use crate::model::{Concurrency, RATE_MAX, RATE_WINDOW_MAX_MS, RateLimit};

const KEY_BYTES_MAX: usize = 256;
const CONCURRENCY_MAX: u64 = 1_000_000;

fn key(name: &str, limit: &Object<'_>) -> Result<String, String> {
    let key = limit.text("key").map_err(|error| format!("{name}.{error}"))?.unwrap_or_default();
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(format!("{name}.key is 1 to {KEY_BYTES_MAX} bytes"));
    }
    Ok(key.into_owned())
}

/// `concurrency: {key, max}`; `max` is 1 when only the key is named.
pub(super) fn concurrency(body: &Object<'_>) -> Result<Option<Concurrency>, String> {
    let field = |error: FieldError| error.to_string();
    let limit = body.object("concurrency").map_err(field)?;
    if limit.is_empty() {
        return Ok(None);
    }
    let key = key("concurrency", &limit)?;
    let max = limit.count("max").map_err(field)?.unwrap_or(1);
    if !(1..=CONCURRENCY_MAX).contains(&max) {
        return Err(format!("concurrency.max is 1 to {CONCURRENCY_MAX}"));
    }
    Ok(Some(Concurrency { key, max: max as u32 }))
}

/// `rate_limit: {key, max, per_seconds}`: all three are needed.
pub(super) fn rate(body: &Object<'_>) -> Result<Option<RateLimit>, String> {
    let field = |error: FieldError| format!("rate_limit.{error}");
    let limit = body.object("rate_limit").map_err(|error| error.to_string())?;
    if limit.is_empty() {
        return Ok(None);
    }
    let key = key("rate_limit", &limit)?;
    let max = limit.count("max").map_err(field)?.unwrap_or(0);
    if !(1..=u64::from(RATE_MAX)).contains(&max) {
        return Err(format!("rate_limit.max is 1 to {RATE_MAX}"));
    }
    let per_ms = limit.number("per_seconds").map_err(field)?.unwrap_or(0.0) * 1000.0;
    if !(1.0..=RATE_WINDOW_MAX_MS as f64).contains(&per_ms) {
        let longest = RATE_WINDOW_MAX_MS / 1000;
        return Err(format!("rate_limit.per_seconds is above 0 and at most {longest}"));
    }
    Ok(Some(RateLimit { key, max: max as u32, per_ms: per_ms as u64 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_what_they_allow() {
        let read = |text: &str| {
            let body = Object::parse(text.as_bytes()).unwrap();
            (concurrency(&body), rate(&body))
        };
        let body = r#"{"concurrency":{"key":"db","max":3},
            "rate_limit":{"key":"api","max":"2","per_seconds":0.5}}"#;
        let (at_once, started) = read(body);
        assert_eq!(at_once, Ok(Some(Concurrency { key: "db".to_owned(), max: 3 })));
        let limit = RateLimit { key: "api".to_owned(), max: 2, per_ms: 500 };
        assert_eq!(started, Ok(Some(limit)));
        assert_eq!(read(r#"{"concurrency":{"key":"db"}}"#).0.unwrap().unwrap().max, 1);
        assert_eq!(read("{}"), (Ok(None), Ok(None)));
    }

    #[test]
    fn a_rate_that_makes_no_sense_is_named() {
        for (limit, error) in [
            (r#"{"max":1,"per_seconds":1}"#, "rate_limit.key is 1 to"),
            (r#"{"key":[],"max":1,"per_seconds":1}"#, "rate_limit.key must be"),
            (r#"{"key":"k","per_seconds":1}"#, "rate_limit.max is 1 to 1000"),
            (r#"{"key":"k","max":0,"per_seconds":1}"#, "rate_limit.max is"),
            (r#"{"key":"k","max":1001,"per_seconds":1}"#, "rate_limit.max is"),
            (r#"{"key":"k","max":-1,"per_seconds":1}"#, "rate_limit.max must be"),
            (r#"{"key":"k","max":1}"#, "rate_limit.per_seconds is above 0"),
            (r#"{"key":"k","max":1,"per_seconds":0.0001}"#, "rate_limit.per_seconds is"),
            (r#"{"key":"k","max":1,"per_seconds":86401}"#, "rate_limit.per_seconds is"),
            (r#"{"key":"k","max":1,"per_seconds":"soon"}"#, "rate_limit.per_seconds must be"),
            ("7", "rate_limit must be an object"),
        ] {
            let text = format!(r#"{{"rate_limit":{limit}}}"#);
            let refused = rate(&Object::parse(text.as_bytes()).unwrap()).unwrap_err();
            assert!(refused.starts_with(error), "{limit}: {refused}");
        }
    }
}
