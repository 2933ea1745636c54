//! Logins (contract 2.3, C7): a user's name and password give tokens that every member knows.
//!
//! The secret that signs them is `security.jwt_secret`; when nobody set one, the first login makes
//! it and puts it into the replicated configuration, so tokens are good on all members and after
//! any failover. A logout is replicated too.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;

use crate::api::App;
use crate::api::app::Written;
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::Object;
use crate::api::params::Params;
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::api::wire_time::iso;
use crate::clock;
use crate::cluster::Consistency;
use crate::security::{
    ACCESS_COOKIE, Access, Claims, Credentials, PASSWORD_MAX, Principal, Proof, REFRESH_COOKIE,
    Refusal, Session, TokenKind, cookie, random_id, random_secret, verify_password,
};
use crate::state::Command;

/// How long a login waits while others are checked.
const WAIT: Duration = Duration::from_secs(5);
/// Tries to write the secret while others change the configuration.
const TRIES: usize = 5;
/// A logout is remembered a little longer than its tokens live, because clocks differ.
const CLOCKS_DIFFER_S: u64 = 600;

#[derive(Serialize)]
struct Tokens<'a> {
    success: bool,
    access_token: &'a str,
    refresh_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    user: UserView<'a>,
}

/// Family N's view of a user. What we do not keep is null.
#[derive(Serialize)]
struct UserView<'a> {
    id: &'a str,
    email: Option<&'a str>,
    username: &'a str,
    full_name: Option<&'a str>,
    role: &'static str,
    is_active: bool,
    is_verified: bool,
    created_at: Option<&'a str>,
    last_login: Option<String>,
}

fn user_view<'a>(principal: &'a Principal, username: &'a str) -> UserView<'a> {
    UserView {
        id: &principal.user_id,
        email: Some(username).filter(|name| name.contains('@')),
        username,
        full_name: None,
        role: principal.role.as_str(),
        is_active: true,
        is_verified: true,
        created_at: None,
        last_login: None,
    }
}

/// `POST /api/v1/auth/login`: `{username, password}`; `email` is another word for the name.
/// `?mode=cookie` sets cookies beside the answer.
pub(in crate::api) async fn login(
    State(app): State<App>,
    params: Params,
    headers: HeaderMap,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let object = Object::parse(&body)?;
    let name = match object.text("username")? {
        Some(name) => Some(name),
        None => object.text("email")?,
    };
    let (Some(name), Some(password)) = (name, object.text("password")?) else {
        let text = "username and password are required";
        return Err(ApiError::bad_request("INVALID_FIELD", text));
    };
    let access = app.whole_access();
    let stored = access.user(&name).map(|user| user.password_hash.clone());
    if !verified(&app, password.into_owned(), stored).await? {
        if access.audit {
            tracing::warn!(target: "audit", username = ?name, "login refused");
        }
        let (status, text) = (StatusCode::UNAUTHORIZED, "Invalid credentials");
        return Err(ApiError::new(status, "AUTHENTICATION_FAILED", text));
    }
    let access = with_secret(&app).await?;
    let user = access.user(&name).ok_or(Refusal::InvalidToken)?;
    let now_s = clock::now_ms() / 1000;
    let session = Session {
        user_id: user.user_id.to_string(),
        username: name.into_owned(),
        role: user.role.as_str(),
        session_id: random_id(),
        ends_s: now_s.saturating_add(access.refresh_s()),
    };
    let secret = access.secret().ok_or(Refusal::InvalidToken)?;
    if access.audit {
        tracing::info!(target: "audit", user_id = ?session.user_id, role = session.role, "login");
    }
    let refresh = session.token(secret, TokenKind::Refresh, now_s, access.refresh_s());
    answer(&access, &session, &refresh, &params, &headers)
}

/// Checks a password away from the threads that serve, at most a few at once.
async fn verified(app: &App, password: String, stored: Option<String>) -> Result<bool, ApiError> {
    if password.len() > PASSWORD_MAX {
        return Ok(false);
    }
    let permit = tokio::time::timeout(WAIT, app.logins().acquire()).await;
    let Ok(Ok(_permit)) = permit else {
        let text = "too many logins at once";
        let status = StatusCode::TOO_MANY_REQUESTS;
        return Err(ApiError::new(status, "RATE_LIMITED", text).with_retry_after(1));
    };
    let check = move || verify_password(&password, stored.as_deref());
    tokio::task::spawn_blocking(check).await.map_err(|error| {
        tracing::error!(%error, "a password could not be checked");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "internal error")
    })
}

/// What the configuration says, once it has a secret for tokens.
async fn with_secret(app: &App) -> Result<Arc<Access>, ApiError> {
    let mut refused = None;
    for _ in 0..TRIES {
        let access = app.whole_access();
        if access.secret().is_some() {
            return Ok(access);
        }
        // Another member may have made one that is not known here yet.
        app.barrier(Consistency::Linearizable).await?;
        let revision = app.cluster().view().read(|state| state.config().revision);
        if app.whole_access().secret().is_some() {
            continue;
        }
        let ticket = Ticket { request_id: clock::mint_request_id() };
        let command = Command::PatchConfig {
            path: "security.jwt_secret".to_owned(),
            value: Value::from(random_secret()).to_string(),
            expected_revision: Some(revision),
        };
        match app.write(ticket, &Caller::default(), command).await {
            Ok(Written { index, .. }) => drop(app.caught_up(ticket, index).await?),
            Err(error) if error.code() == "REVISION_MISMATCH" => refused = Some(error),
            Err(error) => return Err(error),
        }
    }
    let text = "the configuration keeps changing";
    Err(refused.unwrap_or_else(|| ApiError::unavailable("CONFIG_BUSY", text, 1)))
}

fn answer(
    access: &Access,
    session: &Session,
    refresh: &str,
    params: &Params,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let now_ms = clock::now_ms();
    let secret = access.secret().ok_or(Refusal::InvalidToken)?;
    let token = session.token(secret, TokenKind::Access, now_ms / 1000, access.access_s());
    let claims = access.claims(&token, TokenKind::Access, now_ms, |_| false)?;
    let principal = access.holder(&claims)?;
    let mut user = user_view(&principal, &session.username);
    user.last_login = Some(iso(now_ms));
    let tokens = Tokens {
        success: true,
        access_token: &token,
        refresh_token: refresh,
        token_type: "bearer",
        expires_in: claims.exp.saturating_sub(claims.iat),
        user,
    };
    let mut response = reply::json(reply::encode(&tokens));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if params.get("mode") == Some("cookie") {
        let secure = is_https(headers);
        let left_s = session.ends_s.saturating_sub(now_ms / 1000);
        set_cookie(&mut response, ACCESS_COOKIE, &token, access.access_s(), secure);
        set_cookie(&mut response, REFRESH_COOKIE, refresh, left_s, secure);
    }
    Ok(response)
}

/// Whether a proxy in front says that the client spoke TLS.
fn is_https(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|value| value.as_bytes() == b"https")
}

fn set_cookie(response: &mut Response, name: &str, value: &str, lives_s: u64, secure: bool) {
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{name}={value}; HttpOnly; SameSite=Lax; Path=/; Max-Age={lives_s}{secure}");
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// The refresh token of a body, or of the cookie.
fn refresh_token(object: &Object<'_>, headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    if let Some(token) = object.text("refresh_token")? {
        return Ok(Some(token.into_owned()));
    }
    let cookies = headers.get(header::COOKIE).and_then(|value| value.to_str().ok());
    Ok(cookies.and_then(|cookies| cookie(cookies, REFRESH_COOKIE)).map(str::to_owned))
}

/// `POST /api/v1/auth/refresh`: `{refresh_token}` gives another access token.
pub(in crate::api) async fn refresh(
    State(app): State<App>,
    params: Params,
    headers: HeaderMap,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let object = Object::parse(&body)?;
    let Some(token) = refresh_token(&object, &headers)? else {
        return Err(ApiError::bad_request("INVALID_FIELD", "refresh_token is required"));
    };
    let access = app.whole_access();
    let revoked = |id: &str| app.is_revoked(id);
    let claims = access.claims(&token, TokenKind::Refresh, clock::now_ms(), revoked)?;
    let principal = access.holder(&claims)?;
    let session = Session {
        user_id: principal.user_id.to_string(),
        username: claims.username,
        role: principal.role.as_str(),
        session_id: claims.sid,
        ends_s: claims.sid_exp,
    };
    answer(&access, &session, &token, &params, &headers)
}

#[derive(Serialize)]
struct LoggedOut {
    success: bool,
    message: &'static str,
}

/// `POST /api/v1/auth/logout`: ends the login that the caller's token, or the refresh token in the
/// body, came from, on all members. Deletes the cookies.
pub(in crate::api) async fn logout(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    extensions: Extensions,
    headers: HeaderMap,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let object = Object::parse(&body)?;
    let token = refresh_token(&object, &headers)?;
    let access = app.whole_access();
    let principal = match extensions.get::<Principal>() {
        Some(principal) => Some(principal.clone()),
        // Where nobody is asked who it is, a token may still be shown.
        None => shown(&access, &headers),
    };
    let known = principal.and_then(|principal| match principal.proof {
        Proof::Session { session_id, session_ends_s, .. } => Some((session_id, session_ends_s)),
        Proof::AdminKey | Proof::Key(_) => None,
    });
    let read = |token: &str| access.claims(token, TokenKind::Refresh, clock::now_ms(), |_| false);
    let other = token.and_then(|token| read(&token).ok());
    let other = other.map(|Claims { sid, sid_exp, .. }| (sid, sid_exp));
    let mut sessions = [known, other].map(|session| session.filter(|(id, _)| !id.is_empty()));
    if sessions[0] == sessions[1] {
        sessions[1] = None;
    }
    let mut index = None;
    for (number, (session_id, ends_s)) in sessions.into_iter().flatten().enumerate() {
        let until_ms = ends_s.saturating_add(CLOCKS_DIFFER_S).saturating_mul(1000);
        let command = Command::RevokeSession { session_id, until_ms };
        let written = app.write(ticket.nth(number), &caller, command).await?;
        index = Some(written.index);
    }
    if let Some(index) = index {
        app.caught_up(ticket, index).await?;
    }
    let reply = LoggedOut { success: true, message: "Logged out successfully" };
    let mut response = reply::json(reply::encode(&reply));
    for name in [ACCESS_COOKIE, REFRESH_COOKIE] {
        set_cookie(&mut response, name, "", 0, is_https(&headers));
    }
    Ok(response)
}

fn shown(access: &Access, headers: &HeaderMap) -> Option<Principal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let credentials = Credentials {
        authorization: text(header::AUTHORIZATION),
        cookies: text(header::COOKIE),
        ..Credentials::default()
    };
    access.authenticate(&credentials, clock::now_ms(), |_| false).ok()
}
