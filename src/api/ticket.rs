//! What is known of a request before its handler runs.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use xxhash_rust::xxh3::Xxh3Default;

use super::error::ApiError;
use super::headers;
use crate::clock;
use crate::model::RequestId;
use crate::security::Principal;

/// Names one request, and which of its writes is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    /// From the client's `Idempotency-Key`, or minted here. Answers name it, whichever of the
    /// request's writes they are about.
    pub(super) request_id: RequestId,
    /// Whether the client named it, and so may send it again after it lost the answer.
    pub(super) is_named: bool,
    /// Which of the request's writes this is for, from 0.
    number: usize,
    /// Whether those before it took effect.
    follows_parts: bool,
    /// A hash of what is asked for, of a request that the client named.
    print: Option<u64>,
}

impl Ticket {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let key = headers.get(headers::IDEMPOTENCY_KEY).and_then(|value| value.to_str().ok());
        match key.map(str::trim).filter(|key| !key.is_empty()) {
            Some(key) => Self { is_named: true, ..Self::of_id(RequestId::from_key(key)) },
            None => Self::minted(),
        }
    }

    /// For what no client has a name for.
    pub(super) fn minted() -> Self {
        Self::of_id(clock::mint_request_id())
    }

    fn of_id(request_id: RequestId) -> Self {
        Self { request_id, is_named: false, number: 0, follows_parts: false, print: None }
    }

    /// The same of a request that is known by what it asks for: at any of the prefixes that a door has.
    pub(super) fn asked(self, method: &Method, path: &str, body: &[u8]) -> Self {
        let mut hasher = Xxh3Default::new();
        for part in [method.as_str().as_bytes(), bare(path).as_bytes()] {
            hasher.update(part);
            hasher.update(&[0]);
        }
        hasher.update(body);
        Self { print: Some(hasher.digest()), ..self }
    }

    /// What the write is told from others by that would be made under the same id.
    pub(super) fn print(self) -> Option<u64> {
        self.print
    }

    /// The ticket of try number `n`, from 0, of what a request asks for: those before it changed
    /// nothing.
    pub(super) fn nth(self, n: usize) -> Self {
        Self { number: n, ..self }
    }

    /// The ticket of part number `n`, from 0, of what a request asks for: those before it stay done
    /// whatever becomes of it.
    pub(super) fn part(self, n: usize) -> Self {
        Self { follows_parts: n > 0, ..self.nth(n) }
    }

    /// Whether parts of what is asked for are done already.
    pub(super) fn follows_parts(self) -> bool {
        self.follows_parts
    }

    /// The id that the write is committed under: that of the first is the request's own.
    pub(super) fn command_id(self) -> RequestId {
        match self.number {
            0 => self.request_id,
            number => RequestId::from_key(&format!("{}/{number}", self.request_id)),
        }
    }
}

/// A path without what the families put in front of it (contract 3.1, 5.1).
pub(super) fn bare(path: &str) -> &str {
    path.strip_prefix("/api/v1").or_else(|| path.strip_prefix("/api")).unwrap_or(path)
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
        let ticket = Ticket::of(&headers);
        assert_eq!((ticket.request_id, ticket.is_named), (RequestId::from_key("order-7"), true));
        headers.insert(headers::IDEMPOTENCY_KEY, HeaderValue::from_static(" "));
        assert_ne!(Ticket::of(&headers).request_id, Ticket::of(&headers).request_id);
        assert!(!Ticket::of(&headers).is_named);
    }

    /// Clients that sent a request before an upgrade send it again after it.
    #[test]
    fn each_write_of_a_request_has_an_id_of_its_own() {
        let ticket = Ticket { is_named: true, ..Ticket::of_id(RequestId(7)) };
        let second = RequestId::from_key("00000000000000000000000000000007/1");
        for ticket in [ticket, ticket.nth(0), ticket.part(0), ticket.part(1).part(0)] {
            assert_eq!((ticket.command_id(), ticket.follows_parts()), (RequestId(7), false));
        }
        for (ticket, follows_parts) in [(ticket.nth(1), false), (ticket.part(1), true)] {
            assert_eq!((ticket.command_id(), ticket.follows_parts()), (second, follows_parts));
            assert_eq!((ticket.request_id, ticket.is_named), (RequestId(7), true));
        }
    }
}
