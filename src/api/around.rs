//! The one layer around every route. It does all that is done for every request in one place,
//! because each layer of its own costs an allocation and a copy of the request on the hot path.
//!
//! In order: preflight requests are answered; the number of requests in service is bounded; the
//! caller is asked who it is, when the configuration says so; the request gets its ticket; the
//! handler runs under a deadline and may panic without taking the connection with it; the answer
//! gets the headers every answer has; it is counted and logged.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::FutureExt as _;
use tokio::time::{Instant, timeout};

use super::App;
use super::audit;
use super::auth::{Address, Asked, Need, Needs, Pass, is_foreign, query_credential, write_verdict};
use super::body;
use super::error::ApiError;
use super::headers;
use super::stats::RouteStats;
use super::ticket::Ticket;
use crate::cluster::{Clients, Consistency};
use crate::security::{Access, Cors, CorsAnswer, Refusal, Verdict};

/// Headers that this layer writes, and those of the listener: room for them is made once.
const HEADERS_OF_ALL: usize = 10;

/// What the layer knows of its route.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) app: App,
    pub(super) stats: Arc<RouteStats>,
    /// Health and metrics are answered however busy the member is.
    pub(super) always: bool,
    /// What it asks of callers, by method.
    pub(super) needs: Needs,
    /// Credentials may stand in the query.
    pub(super) takes_query: bool,
    /// How long its handler may wait beside the time that any has.
    pub(super) waits: Duration,
    /// It is a door of family N.
    pub(super) is_nanoos: bool,
    /// Bodies hold passwords, of which nothing is kept, not even a hash that is quick to try.
    pub(super) takes_passwords: bool,
}

impl Route {
    /// What the configuration says about callers. Doors that must answer whatever the state does
    /// are open, and do not look at it.
    fn access(&self, need: Need) -> Option<Arc<Access>> {
        if self.always && need == Need::Open { self.app.guard().known() } else { self.app.access() }
    }
}

/// See the module's description.
pub(super) async fn around(
    State(route): State<Route>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let ticket = Ticket::of(request.headers());
    let given_name = request.headers().get(&headers::X_REQUEST_ID).cloned();
    let origin = request.headers().get(header::ORIGIN).cloned();
    let need = route.needs.of_method(&method);
    let access = route.access(need);
    let mut response = if method == Method::OPTIONS {
        StatusCode::OK.into_response()
    } else {
        request.extensions_mut().insert(ticket);
        serve(&route, ticket, (access.as_deref(), need), request, next).await
    };
    let status = response.status();
    response.headers_mut().reserve(HEADERS_OF_ALL);
    finish(&route.app, response.headers_mut(), ticket, given_name);
    write_figures(&route, response.headers_mut(), status, started.elapsed());
    let cors = access.as_deref().map_or(&Cors::Any, |access| &access.cors);
    write_cors(response.headers_mut(), cors, origin);
    let took = started.elapsed();
    route.stats.record(&method, status, took);
    tracing::debug!(
        %method,
        path = route.stats.path(),
        status = status.as_u16(),
        took_us = took.as_micros() as u64,
        request_id = %ticket.request_id,
        "request answered"
    );
    response
}

async fn serve(
    route: &Route,
    ticket: Ticket,
    (access, need): (Option<&Access>, Need),
    mut request: Request,
    next: Next,
) -> Response {
    let permit = route.app.requests().try_acquire();
    if permit.is_err() && !route.always {
        return ApiError::unavailable("OVERLOADED", "too many requests at once", 1).into_response();
    }
    if !route.always
        && let Some(clients) = route.app.cluster().faults().silence()
        && let Err(refusal) = silenced(route, clients).await
    {
        return refusal.into_response();
    }
    let Some(access) = access else { return handle(route, ticket, request, next).await };
    let line = audit::Line::of(access, &request, ticket);
    let mut admitted = admit(route, access, need, &request);
    // The account may be so new that only other members know it.
    if matches!(admitted, Err((Refusal::UnknownUser, _)))
        && route.app.barrier(Consistency::Linearizable).await.is_ok()
    {
        admitted = admit(route, access, need, &request);
    }
    let (principal, verdict) = match admitted {
        Ok(Pass { principal, verdict }) => (principal, verdict),
        Err((refusal, verdict)) => {
            let response = refused(refusal, verdict.as_ref());
            line.refused(response.status());
            return response;
        }
    };
    if let Some(principal) = &principal {
        request.extensions_mut().insert(principal.clone());
    }
    let mut response = handle(route, ticket, request, next).await;
    line.served(principal.as_ref(), response.status());
    if let Some(verdict) = &verdict {
        write_verdict(response.headers_mut(), verdict);
    }
    response
}

fn admit(
    route: &Route,
    access: &Access,
    need: Need,
    request: &Request,
) -> Result<Pass, (Refusal, Option<Verdict>)> {
    let query = if route.takes_query { query_credential(request.uri()) } else { None };
    // A WebSocket is a read that stays: pages ask for it with cookies as they write.
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD) && !route.takes_query;
    let asked = Asked {
        headers: request.headers(),
        address: Address::of(request.extensions()).0,
        query: query.as_deref(),
        is_foreign: !is_read && is_foreign(&access.cors, request.headers()),
        need,
        always: route.always,
    };
    route.app.admit_caller(access, asked)
}

fn refused(refusal: Refusal, verdict: Option<&Verdict>) -> Response {
    let mut response = ApiError::from(refusal).into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    if let Some(verdict) = verdict {
        write_verdict(response.headers_mut(), verdict);
    }
    response
}

async fn handle(route: &Route, ticket: Ticket, request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let deadline = route.app.options().request_timeout + route.waits;
    let handled = async {
        match named(route, ticket, request).await {
            Ok(request) => next.run(request).await,
            Err(error) => error.into_response(),
        }
    };
    let handled = AssertUnwindSafe(handled).catch_unwind();
    match timeout(deadline, handled).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => {
            let what = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            tracing::error!(path = route.stats.path(), what, "a handler panicked");
            let text = "internal error";
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", text).into_response()
        }
        Err(_) if is_read => {
            let text = format!("no answer within {} ms", deadline.as_millis());
            ApiError::new(StatusCode::GATEWAY_TIMEOUT, "REQUEST_TIMEOUT", text).into_response()
        }
        Err(_) => ApiError::unknown_outcome(ticket.request_id).into_response(),
    }
}

/// A request that its client gave a name, with a ticket that knows what it asks for. A body that does not
/// say how long it is, or is too long to be read at once, is left to the handler.
async fn named(route: &Route, ticket: Ticket, request: Request) -> Result<Request, ApiError> {
    if !ticket.is_named || matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(request);
    }
    let (mut parts, mut body) = request.into_parts();
    let max = route.app.options().body_bytes_max;
    let size = body.size_hint().exact().filter(|size| *size <= max as u64);
    let mut known = Bytes::new();
    if size.is_some() && !route.takes_passwords {
        known = body::read(body, max).await?;
        body = Body::from(known.clone());
    }
    parts.extensions.insert(ticket.asked(&parts.method, parts.uri.path(), &known));
    Ok(Request::from_parts(parts, body))
}

/// A drill keeps this member from its clients: they hang until it is over, or are refused.
async fn silenced(route: &Route, clients: Clients) -> Result<(), ApiError> {
    let text = "a drill keeps this member silent";
    let refusal = || ApiError::unavailable("MEMBER_SILENCED", text, 1);
    match clients {
        Clients::Refused => Err(refusal()),
        Clients::Hang => {
            let limit = route.app.options().request_timeout;
            timeout(limit, route.app.cluster().faults().until_heard())
                .await
                .map_err(|_elapsed| refusal())
        }
    }
}

/// What families W and N tell of each answer (contract 1.6).
fn write_figures(route: &Route, headers: &mut HeaderMap, status: StatusCode, took: Duration) {
    let (count, rate) = route.stats.counted(status);
    let (secs, millis) = (took.as_secs(), took.subsec_millis());
    let text = |text: String| HeaderValue::from_str(&text).ok();
    let mut put = |name, value: Option<HeaderValue>| {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    };
    if route.is_nanoos {
        put(headers::PROCESS_TIME, text(format!("{secs}.{millis:03}")));
        put(headers::REQUEST_COUNT, Some(HeaderValue::from(count)));
        put(headers::ERROR_RATE, text(format!("{}.{:02}%", rate / 100, rate % 100)));
    } else {
        put(headers::RESPONSE_TIME, text(format!("{secs}.{millis:03}s")));
    }
}

/// Headers of every answer: who answered, and a name for the request.
fn finish(app: &App, headers: &mut HeaderMap, ticket: Ticket, given_name: Option<HeaderValue>) {
    headers.insert(headers::MEMBER, app.member_header());
    // Made here, it is a UUID (contract 1.6), and of the digits of the id that writes are asked for by.
    let minted = || HeaderValue::from_bytes(&uuid_text(ticket.request_id.0)).ok();
    if let Some(name) = given_name.or_else(minted) {
        headers.insert(headers::X_REQUEST_ID, name);
    }
}

/// The digits of a UUID, without the formatter: this is done for every answer.
fn uuid_text(id: u128) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    let places = (0..36).filter(|place| ![8, 13, 18, 23].contains(place));
    for (digit, place) in places.enumerate() {
        text[place] = DIGITS[(id >> (124 - 4 * digit)) as usize & 15];
    }
    text
}

/// What pages of other origins may do (contract 1.6).
fn write_cors(headers: &mut HeaderMap, cors: &Cors, origin: Option<HeaderValue>) {
    match (cors.answer(origin.as_ref().map(HeaderValue::as_bytes)), origin) {
        (CorsAnswer::None, _) => return,
        (CorsAnswer::Echo, Some(origin)) => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        }
        (CorsAnswer::Any | CorsAnswer::Echo, _) => {
            let any = HeaderValue::from_static("*");
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
        }
    }
    let methods = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE, OPTIONS");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let allowed = "Content-Type, Authorization, X-API-Key, Idempotency-Key";
    let allowed = HeaderValue::from_static(allowed);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
}
