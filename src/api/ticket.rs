//! What is known of a request before its handler runs.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::error::ApiError;
use super::headers;
use crate::clock;
use crate::model::RequestId;
use crate::security::Principal;

/// Names one request: from the client's `Idempotency-Key`, or minted here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) request_id: RequestId,
}

impl Ticket {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let key = headers.get(headers::IDEMPOTENCY_KEY).and_then(|value| value.to_str().ok());
        let request_id = match key.map(str::trim).filter(|key| !key.is_empty()) {
            Some(key) => RequestId::from_key(key),
            None => clock::mint_request_id(),
        };
        Self { request_id }
    }

    /// The ticket of the write number `n` of one request: the first has the request's own.
    pub(super) fn nth(self, n: usize) -> Self {
        if n == 0 {
            return self;
        }
        Self { request_id: RequestId::from_key(&format!("{}/{n}", self.request_id)) }
    }
}

impl<S: Sync> FromRequestParts<S> for Ticket {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        // Every route stands behind the layer that makes tickets; a lone handler makes its own.
        let made = parts.extensions.get::<Self>().copied();
        Ok(made.unwrap_or_else(|| Self::of(&parts.headers)))
    }
}

/// Who asks, for the record; empty when authentication is off.
#[derive(Debug, Clone, Default)]
pub(super) struct Caller(pub(super) String);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let principal = parts.extensions.get::<Principal>();
        Ok(Self(principal.map(|principal| principal.user_id.to_string()).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_key_names_the_request_and_an_empty_one_does_not() {
        let mut headers = HeaderMap::new();
        headers.insert(headers::IDEMPOTENCY_KEY, HeaderValue::from_static("order-7"));
        assert_eq!(Ticket::of(&headers).request_id, RequestId::from_key("order-7"));
        headers.insert(headers::IDEMPOTENCY_KEY, HeaderValue::from_static(" "));
        assert_ne!(Ticket::of(&headers).request_id, Ticket::of(&headers).request_id);
    }
}
