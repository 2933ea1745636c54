//! The one question that every kind of door asks: may this caller do that?

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::ConnectInfo;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, Uri, header};

use super::needs::Need;
use crate::api::App;
use crate::api::error::ApiError;
use crate::api::headers;
use crate::clock;
use crate::security::{
    Access, Cors, Credentials, Permission, Principal, Refusal, Standing, Verdict,
};

/// The address at the other end of a connection, as the listener saw it.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The caller's address, when the listener told it.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Address(pub(in crate::api) Option<IpAddr>);

impl Address {
    pub(in crate::api) fn of(extensions: &Extensions) -> Self {
        let peer = extensions.get::<ConnectInfo<Peer>>();
        Self(peer.map(|ConnectInfo(Peer(address))| address.ip().to_canonical()))
    }
}

impl<S: Sync> FromRequestParts<S> for Address {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

/// Who was let in, and what the rate limits say to that.
#[derive(Debug, Default)]
pub struct Pass {
    /// `None` when nobody asked who it is.
    pub principal: Option<Principal>,
    /// `None` when nothing limits the caller.
    pub verdict: Option<Verdict>,
}

/// What is known of one request when the question is asked.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Asked<'a> {
    pub(in crate::api) headers: &'a HeaderMap,
    pub(in crate::api) address: Option<IpAddr>,
    /// A key or token from the query, of doors that take it there.
    pub(in crate::api) query: Option<&'a str>,
    /// It comes from a page that may not use cookies here.
    pub(in crate::api) is_foreign: bool,
    pub(in crate::api) need: Need,
    /// Health and figures are for everybody, wherever they are and however often they ask.
    pub(in crate::api) always: bool,
}

impl App {
    /// What the newest configuration says about callers; `None` when it lets everybody in.
    #[must_use]
    pub fn access(&self) -> Option<Arc<Access>> {
        self.cluster().view().read(|state| self.guard().access(state))
    }

    /// As [`Self::access`], also when everybody is let in.
    pub(in crate::api) fn whole_access(&self) -> Arc<Access> {
        self.cluster().view().read(|state| self.guard().whole(state))
    }

    /// Whether whoever was let in a while ago may stay: its key is not taken back and has not ended,
    /// its login goes on, its role still may. `None` was let in when nobody was asked who it is.
    pub(in crate::api) fn still_admits(
        &self,
        principal: Option<&Principal>,
        permission: Permission,
    ) -> bool {
        let Some(access) = self.access().filter(|access| access.is_required()) else {
            return true;
        };
        let standing = |session: &str, user: &str| self.standing(session, user);
        principal
            .is_some_and(|known| access.still_admits(known, permission, clock::now_ms(), standing))
    }

    /// Who shows these headers, for [`Self::still_admits`] later on; nothing is counted.
    pub(in crate::api) fn principal_of(&self, headers: &HeaderMap) -> Option<Principal> {
        let access = self.access()?;
        let credentials = self.credentials(headers, None, is_foreign(&access.cors, headers));
        let standing = |session: &str, user: &str| self.standing(session, user);
        access.authenticate(&credentials, clock::now_ms(), standing).ok()
    }

    /// How a login stands, as far as this member knows.
    pub(in crate::api) fn standing(&self, session_id: &str, user_id: &str) -> Standing {
        self.cluster().view().read(|state| Standing::of(state, session_id, user_id))
    }

    /// Whether whoever shows `credentials` may do what `need` says. For every kind of door: gRPC
    /// asks here too.
    ///
    /// # Errors
    /// The [`Refusal`], and what the rate limits say when they were asked.
    pub fn authorize(
        &self,
        access: &Access,
        credentials: &Credentials<'_>,
        address: Option<IpAddr>,
        need: Need,
    ) -> Result<Pass, (Refusal, Option<Verdict>)> {
        if !access.admits_address(address) {
            return Err((Refusal::Address, None));
        }
        let now_ms = clock::now_ms();
        let standing = |session: &str, user: &str| self.standing(session, user);
        let known = access.authenticate(credentials, now_ms, standing);
        // Whoever is not known is counted by address, so that guessing has a limit too.
        let verdict = self.guard().count(access, known.as_ref().ok(), address);
        if let Some(wait) = verdict.and_then(|verdict| verdict.wait) {
            return Err((Refusal::TooMany { wait }, verdict));
        }
        if !access.is_required() {
            return Ok(Pass { principal: known.ok(), verdict });
        }
        match (need, known) {
            (Need::Open, known) => Ok(Pass { principal: known.ok(), verdict }),
            (_, Err(refusal)) => Err((refusal, verdict)),
            (need, Ok(principal)) if need.is_met_by(principal.role) => {
                Ok(Pass { principal: Some(principal), verdict })
            }
            (_, Ok(_)) => Err((Refusal::Forbidden, verdict)),
        }
    }

    /// What a request shows of who sends it. `is_foreign`: its cookies may not be used.
    pub(super) fn credentials<'a>(
        &self,
        headers: &'a HeaderMap,
        query: Option<&'a str>,
        is_foreign: bool,
    ) -> Credentials<'a> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let admin = headers.get(headers::ADMIN_KEY);
        let is_admin = admin.is_some_and(|shown| {
            let key = self.options().admin_key.as_ref();
            key.is_some_and(|key| key.admits(shown.as_bytes()))
        });
        Credentials {
            api_key: text(&headers::X_API_KEY),
            authorization: text(&header::AUTHORIZATION),
            cookies: text(&header::COOKIE),
            query,
            cookies_are_foreign: is_foreign,
            is_admin,
        }
    }

    /// As [`Self::authorize`], of an HTTP request.
    pub(in crate::api) fn admit_caller(
        &self,
        access: &Access,
        asked: Asked<'_>,
    ) -> Result<Pass, (Refusal, Option<Verdict>)> {
        if asked.always && asked.need == Need::Open {
            return Ok(Pass::default());
        }
        let credentials = self.credentials(asked.headers, asked.query, asked.is_foreign);
        self.authorize(access, &credentials, asked.address, asked.need)
    }
}

/// Whether a request comes from a page that may not use cookies here to change anything.
pub(in crate::api) fn is_foreign(cors: &Cors, headers: &HeaderMap) -> bool {
    let bytes = |name| headers.get(name).map(HeaderValue::as_bytes);
    !cors.takes_cookies(bytes(header::ORIGIN), bytes(header::HOST))
}

/// `token` or `api_key` of a query.
pub(in crate::api) fn query_credential(uri: &Uri) -> Option<String> {
    let pairs: Query<Vec<(String, String)>> = Query::try_from_uri(uri).ok()?;
    let named = |(name, _): &(String, String)| name == "token" || name == "api_key";
    pairs.0.into_iter().find(named).map(|(_, value)| value)
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::UNAUTHORIZED);
        let error = Self::new(status, refusal.code(), refusal.to_string());
        match refusal {
            Refusal::TooMany { wait } => error.with_retry_after(whole_seconds(wait)),
            Refusal::Missing
            | Refusal::InvalidKey
            | Refusal::InvalidToken
            | Refusal::UnknownUser
            | Refusal::Expired
            | Refusal::Forbidden
            | Refusal::Address
            | Refusal::Origin => error,
        }
    }
}

/// At least one: a client that waits for none comes back at once.
fn whole_seconds(time: Duration) -> u64 {
    (time.as_millis().div_ceil(1000) as u64).max(1)
}

/// Headers of answers to callers with a limit (contract 1.5). The reset is in seconds since the
/// epoch.
pub(in crate::api) fn write_verdict(headers: &mut HeaderMap, verdict: &Verdict) {
    let reset = clock::now_ms() / 1000 + whole_seconds(verdict.full_in);
    headers.insert(headers::RATE_LIMIT, HeaderValue::from(verdict.limit));
    headers.insert(headers::RATE_REMAINING, HeaderValue::from(verdict.remaining));
    headers.insert(headers::RATE_RESET, HeaderValue::from(reset));
}
