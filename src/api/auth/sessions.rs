//! Logins that go on and end (contract 2.3, 3.6, C7): tokens in answers and in cookies.
//!
//! A token proves itself on every member; a logout is replicated. Cookies are set with `SameSite=Lax`
//! and count, for whatever changes something, only with pages that may use them.

use axum::extract::State;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::is_foreign;
use super::users::UserView;
use crate::api::App;
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::Object;
use crate::api::params::Params;
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::clock;
use crate::cluster::Consistency;
use crate::security::{
    ACCESS_COOKIE, Access, Claims, Principal, Proof, REFRESH_COOKIE, Refusal, Session, TokenKind,
    cookie,
};
use crate::state::Command;

/// A logout is remembered a little longer than its tokens live, because clocks differ.
const CLOCKS_DIFFER_S: u64 = 600;

/// How tokens are handed over, beside the body: `?mode=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Bearer,
    Cookie,
}

impl Mode {
    /// # Errors
    /// Another word; or a page asks for cookies that may not use them, which would log whoever
    /// looks at it in as somebody else.
    pub(super) fn of(
        params: &Params,
        access: &Access,
        headers: &HeaderMap,
    ) -> Result<Self, ApiError> {
        match params.get("mode") {
            None | Some("bearer") => Ok(Self::Bearer),
            Some("cookie") if is_foreign(&access.cors, headers) => Err(Refusal::Origin.into()),
            Some("cookie") => Ok(Self::Cookie),
            Some(_) => Err(ApiError::bad_request("INVALID_QUERY", "mode is bearer or cookie")),
        }
    }
}

#[derive(Serialize)]
struct Tokens<'a> {
    success: bool,
    access_token: &'a str,
    refresh_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    user: UserView,
}

/// A fresh access token of a login, with its refresh token.
pub(super) fn answer(
    access: &Access,
    session: &Session,
    refresh: &str,
    user: UserView,
    (mode, headers): (Mode, &HeaderMap),
) -> Result<Response, ApiError> {
    let now_s = clock::now_ms() / 1000;
    let secret = access.secret().ok_or(Refusal::InvalidToken)?;
    let token = session.token(secret, TokenKind::Access, now_s, access.access_s());
    let left_s = session.ends_s.saturating_sub(now_s);
    let tokens = Tokens {
        success: true,
        access_token: &token,
        refresh_token: refresh,
        token_type: "bearer",
        expires_in: access.access_s().min(left_s),
        user,
    };
    let mut response = reply::json(reply::encode(&tokens));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if mode == Mode::Cookie {
        let secure = is_https(headers);
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

/// The refresh token of a body, or of the cookie, which only pages may use that may use cookies.
fn refresh_token(
    access: &Access,
    object: &Object<'_>,
    headers: &HeaderMap,
) -> Result<Option<String>, ApiError> {
    if let Some(token) = object.text("refresh_token")? {
        return Ok(Some(token.into_owned()));
    }
    let cookies = headers.get(header::COOKIE).and_then(|value| value.to_str().ok());
    let token = cookies.and_then(|cookies| cookie(cookies, REFRESH_COOKIE));
    if token.is_some() && is_foreign(&access.cors, headers) {
        return Err(Refusal::Origin.into());
    }
    Ok(token.map(str::to_owned))
}

/// `POST /api/v1/auth/refresh`: `{refresh_token}` gives another access token.
pub(in crate::api) async fn refresh(
    State(app): State<App>,
    params: Params,
    headers: HeaderMap,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let object = Object::parse(&body)?;
    let access = app.whole_access();
    let mode = Mode::of(&params, &access, &headers)?;
    let Some(token) = refresh_token(&access, &object, &headers)? else {
        return Err(ApiError::bad_request("INVALID_FIELD", "refresh_token is required"));
    };
    let standing = |session: &str, user: &str| app.standing(session, user);
    let read = || access.login(&token, TokenKind::Refresh, clock::now_ms(), standing);
    let (claims, principal) = match read() {
        // The account may be so new that only other members know it.
        Err(Refusal::UnknownUser) => {
            app.barrier(Consistency::Linearizable).await?;
            read()?
        }
        other => other?,
    };
    let account = app.cluster().view().read(|state| {
        let account = state.account(&principal.user_id);
        account.map(|account| UserView::of_account(&access, account))
    });
    let user = account.unwrap_or_else(|| {
        let of_config = UserView::of_config(&claims.user_id, &claims.username, principal.role);
        of_config.logged_in_at(claims.iat.saturating_mul(1000))
    });
    let session = Session {
        user_id: claims.user_id,
        username: claims.username,
        role: principal.role.as_str(),
        session_id: claims.sid,
        ends_s: claims.sid_exp,
    };
    answer(&access, &session, &token, user, (mode, &headers))
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
    let access = app.whole_access();
    let token = refresh_token(&access, &object, &headers)?;
    let principal = who(&app, &access, &extensions, &headers);
    let known = principal.ok().and_then(|principal| match principal.proof {
        Proof::Session { session_id, session_ends_s, .. } => Some((session_id, session_ends_s)),
        Proof::AdminKey | Proof::Key(_) => None,
    });
    let read = |token: String| access.claims(&token, TokenKind::Refresh, clock::now_ms()).ok();
    let other = token.and_then(read).map(|Claims { sid, sid_exp, .. }| (sid, sid_exp));
    let mut sessions = [known, other].map(|session| session.filter(|(id, _)| !id.is_empty()));
    if sessions[0] == sessions[1] {
        sessions[1] = None;
    }
    let mut index = None;
    for (number, (session_id, ends_s)) in sessions.into_iter().flatten().enumerate() {
        let until_ms = ends_s.saturating_add(CLOCKS_DIFFER_S).saturating_mul(1000);
        let left_ms = until_ms.saturating_sub(clock::now_ms());
        let command = Command::RevokeSession { session_id, left_ms };
        let written = app.write(ticket.part(number), &caller, command).await?;
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

/// `POST /auth/logout` of family N alone: 204, where both families' door says 200 (contract C7).
pub(in crate::api) async fn logout_silently(
    app: State<App>,
    ticket: Ticket,
    caller: Caller,
    extensions: Extensions,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let done = logout(app, ticket, caller, extensions, headers, body).await?;
    let cookies = done.headers().get_all(header::SET_COOKIE).iter().cloned();
    let mut silent = StatusCode::NO_CONTENT.into_response();
    for cookie in cookies {
        silent.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(silent)
}

/// Who asks, also where nobody is asked who it is.
///
/// # Errors
/// Why it is not known.
pub(super) fn who(
    app: &App,
    access: &Access,
    extensions: &Extensions,
    headers: &HeaderMap,
) -> Result<Principal, Refusal> {
    if let Some(principal) = extensions.get::<Principal>() {
        return Ok(principal.clone());
    }
    let credentials = app.credentials(headers, None, is_foreign(&access.cors, headers));
    let standing = |session: &str, user: &str| app.standing(session, user);
    access.authenticate(&credentials, clock::now_ms(), standing)
}
