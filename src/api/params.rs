//! Parameters of paths and queries, and the read mode that every GET takes from the latter.

use std::time::Duration;

use axum::extract::{FromRequestParts, Path as Segments, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::cluster::Consistency;

/// The most rows that a list shows at once.
const LIMIT_MAX: u64 = 1000;

/// The parameter of a path, decoded. What is no text is refused like any other bad input: axum's own
/// answer would be plain text.
#[derive(Debug)]
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let found = Segments::<T>::from_request_parts(parts, state).await;
        let refuse = |_| ApiError::bad_request("INVALID_PATH", "the path is not UTF-8");
        found.map(|Segments(text)| Self(text)).map_err(refuse)
    }
}

/// The query, decoded.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        if parts.uri.query().is_none_or(str::is_empty) {
            return Ok(Self::default());
        }
        let query = Query::try_from_uri(&parts.uri)
            .map_err(|error| ApiError::bad_request("INVALID_QUERY", error.to_string()))?;
        Ok(Self(query.0))
    }
}

impl Params {
    /// The parameters of a query, for tests.
    #[cfg(test)]
    pub(super) fn of(query: &str) -> Self {
        let uri = format!("/?{query}").parse().unwrap();
        Self(Query::try_from_uri(&uri).unwrap().0)
    }

    /// The value of `key`; the last one when it is repeated.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether a flag like `?verbose` is set.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !matches!(value, "0" | "false" | "no"))
    }

    /// A whole number.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.get(key) else { return Ok(None) };
        let number = text.trim().parse();
        let wanted = |_| {
            let text = format!("{key} must be a whole number of at least 0, not {text}");
            ApiError::bad_request("INVALID_QUERY", text)
        };
        number.map(Some).map_err(wanted)
    }

    /// `limit`: how many rows a list shows, `usual` when nothing was said.
    pub(super) fn limit(&self, usual: u64) -> Result<usize, ApiError> {
        match self.number("limit")?.unwrap_or(usual) {
            limit @ 1..=LIMIT_MAX => Ok(limit as usize),
            _ => Err(ApiError::bad_request("INVALID_QUERY", "limit is 1 to 1000")),
        }
    }

    /// How many rows a list passes over: the whole number under `key`.
    pub(super) fn skip(&self, key: &str) -> Result<usize, ApiError> {
        Ok(usize::try_from(self.number(key)?.unwrap_or(0)).unwrap_or(usize::MAX))
    }

    /// `consistency=linearizable|local`, with `max_age` and `min_index` for the latter.
    pub(super) fn consistency(&self) -> Result<Consistency, ApiError> {
        let invalid = |text: &str| ApiError::bad_request("INVALID_CONSISTENCY", text);
        let min_index = self.number("min_index")?;
        let max_age = match self.get("max_age") {
            None => None,
            Some(text) => Some(
                duration(text)
                    .ok_or_else(|| invalid("max_age must be like 500ms, 5s, or milliseconds"))?,
            ),
        };
        match self.get("consistency") {
            Some("local") => Ok(Consistency::Local { max_age, min_index }),
            None | Some("linearizable") if max_age.is_some() || min_index.is_some() => {
                Err(invalid("max_age and min_index go with consistency=local"))
            }
            None | Some("linearizable") => Ok(Consistency::Linearizable),
            Some(_) => Err(invalid("consistency must be linearizable or local")),
        }
    }
}

/// `500ms`, `5s`, or a bare number of milliseconds.
fn duration(text: &str) -> Option<Duration> {
    let (digits, unit_ms) = match text.trim() {
        text if text.ends_with("ms") => (text.strip_suffix("ms")?, 1),
        text if text.ends_with('s') => (text.strip_suffix('s')?, 1000),
        text => (text, 1),
    };
    let number: u64 = digits.parse().ok()?;
    Some(Duration::from_millis(number.checked_mul(unit_ms)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Params::of(query)
    }

    #[test]
    fn read_modes_of_the_design() {
        let local = |max_age: Option<u64>, min_index| Consistency::Local {
            max_age: max_age.map(Duration::from_millis),
            min_index,
        };
        for (query, expected) in [
            ("", Consistency::Linearizable),
            ("consistency=linearizable", Consistency::Linearizable),
            ("consistency=local", local(None, None)),
            ("consistency=local&max_age=5s", local(Some(5000), None)),
            ("consistency=local&max_age=250ms&min_index=7", local(Some(250), Some(7))),
            ("consistency=local&max_age=90", local(Some(90), None)),
        ] {
            assert_eq!(params(query).consistency().unwrap(), expected, "{query}");
        }
        for query in [
            "consistency=eventual",
            "max_age=5s",
            "consistency=linearizable&min_index=3",
            "consistency=local&max_age=soon",
            "consistency=local&min_index=-1",
        ] {
            assert!(params(query).consistency().is_err(), "{query}");
        }
    }

    #[test]
    fn flags_and_numbers() {
        let params = params("verbose&quiet=false&n=7&n=8&m=x");
        assert!(params.flag("verbose") && !params.flag("quiet") && !params.flag("absent"));
        assert_eq!(params.number("n").unwrap(), Some(8));
        assert!(params.number("m").is_err());
    }
}
