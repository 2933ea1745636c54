//! How a call can fail, sorted by what the caller may conclude.

use std::fmt;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;

/// Why a call did not give an answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The client was given something it cannot use.
    #[error("{0}")]
    Setup(String),
    /// A member decided against the request; asking again will not change it.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// No member took the request; it was certainly not done.
    #[error("no member took the request: {why}")]
    Unavailable {
        /// How the last try failed.
        why: String,
        /// What the last member that answered said.
        problem: Option<Box<Problem>>,
    },
    /// The request may or may not have been done. `GET /api/v1/requests/{request}` can tell, and
    /// sending it again under the same key is safe.
    #[error("the outcome of request {request} is unknown: {why}")]
    Unknown {
        /// The `Idempotency-Key` it was sent under.
        request: String,
        /// How the last try failed.
        why: String,
    },
    /// A success that makes no sense.
    #[error("{0}")]
    Malformed(String),
}

impl ClientError {
    /// The problem document, when a member gave one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            Self::Unavailable { problem, .. } => problem.as_deref(),
            Self::Setup(_) | Self::Unknown { .. } | Self::Malformed(_) => None,
        }
    }
}

/// An error answer: a problem document (RFC 9457), or what an API family sends in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// Stable, for programs; empty when the answer names none.
    pub code: String,
    /// For people.
    pub message: String,
    /// How long to wait before asking again.
    pub retry_after: Option<Duration>,
    /// Everything the member said.
    pub body: Value,
}

impl Problem {
    /// Reads an error answer. Anything is understood, if need be as plain text.
    #[must_use]
    pub fn read(status: u16, headers: &HeaderMap, bytes: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(bytes).unwrap_or_else(|_| {
            let text: String = String::from_utf8_lossy(bytes).chars().take(500).collect();
            if text.is_empty() { Value::Null } else { Value::String(text) }
        });
        let text = |path: &str| body.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let code = text("/code").or_else(|| text("/details/code")).or_else(|| text("/error_code"));
        let message = text("/detail")
            .or_else(|| text("/error"))
            .or_else(|| text("/error/message"))
            .or_else(|| text("/message"))
            .or_else(|| text("/title"))
            .or_else(|| text(""))
            .unwrap_or_else(|| format!("HTTP status {status}"));
        let message = with_fields(message, &body);
        let header = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let seconds = body.get("retry_after").and_then(Value::as_f64).or(header);
        let retry_after = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Self { status, code: code.unwrap_or_default(), message, retry_after, body }
    }
}

/// Family N names the fields that are wrong beside its text, which may not.
fn with_fields(mut message: String, body: &Value) -> String {
    let fields = body.pointer("/error/details/fields").and_then(Value::as_array);
    for field in fields.into_iter().flatten() {
        let text = |key: &str| field.get(key).and_then(Value::as_str).unwrap_or_default();
        let (name, why) = (text("field"), text("message"));
        if !why.is_empty() && !message.contains(why) {
            message.push_str(&format!("; {name}: {why}"));
        }
    }
    message
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.code.is_empty() {
            write!(f, " ({})", self.status)
        } else {
            write!(f, " ({} {})", self.status, self.code)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_of_family_n_name_the_field_once() {
        let fields = json!([{"field": "body.name", "message": "name must be a text"}]);
        let error = json!({"message": "Validation failed", "details": {"fields": fields}});
        let cases = [
            (json!({"detail": "name must be a text", "error": error}), "name must be a text"),
            (json!({"error": error}), "Validation failed; body.name: name must be a text"),
            (json!({"detail": "no", "error": {"details": {"fields": [7]}}}), "no"),
        ];
        for (body, wanted) in cases {
            let problem = Problem::read(422, &HeaderMap::new(), body.to_string().as_bytes());
            assert_eq!(problem.message, wanted);
        }
    }
}
