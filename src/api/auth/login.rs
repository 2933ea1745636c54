//! Logins (contract 2.3, 3.6, C7): a name and a password give tokens that every member knows.
//!
//! The secret that signs them is `security.jwt_secret`; when nobody set one, the first login makes
//! it and puts it into the replicated configuration, so tokens are good on all members and after
//! any failover. The login of an account is one log entry, which notes its time.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde_json::Value;

use super::passwords::verified;
use super::sessions::{Mode, answer};
use super::users::find;
use crate::api::App;
use crate::api::app::Written;
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::Object;
use crate::api::params::Params;
use crate::api::ticket::{Caller, Ticket};
use crate::clock;
use crate::cluster::Consistency;
use crate::security::{Access, Refusal, Session, TokenKind, random_id, random_secret};
use crate::state::{AccountCommand, Command};

/// Tries to write the secret while others change the configuration.
const TRIES: usize = 5;
/// The longest form of a login, in bytes.
const FORM_MAX: usize = 8 * 1024;

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
    let password = object.text("password")?;
    let shown = name.zip(password).map(|(name, word)| (name.into_owned(), word.into_owned()));
    log_in(&app, shown, &params, &headers).await
}

/// `POST /api/v1/auth/token`: as [`login`], from a form as OAuth 2.0 has it for passwords (RFC 6749,
/// section 4.3).
pub(in crate::api) async fn token(
    State(app): State<App>,
    params: Params,
    headers: HeaderMap,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let invalid = |what: &str| ApiError::bad_request("INVALID_FIELD", what);
    if body.len() > FORM_MAX {
        return Err(invalid("form must have at most 8192 bytes"));
    }
    // A form is written as a query is.
    let uri = Uri::builder().path_and_query([b"/?", body.as_ref()].concat()).build();
    let fields = uri.ok().and_then(|uri| Query::<Vec<(String, String)>>::try_from_uri(&uri).ok());
    let fields = fields.ok_or_else(|| invalid("form must be URL-encoded"))?.0;
    let field = |name: &str| {
        let mut values = fields.iter().filter(|(its, _)| its == name);
        values.next_back().map(|(_, value)| value.clone())
    };
    if field("grant_type").is_some_and(|kind| kind != "password" && !kind.is_empty()) {
        return Err(invalid("grant_type must be password"));
    }
    log_in(&app, field("username").zip(field("password")), &params, &headers).await
}

async fn log_in(
    app: &App,
    shown: Option<(String, String)>,
    params: &Params,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let Some((name, password)) = shown else {
        let text = "username and password are required";
        return Err(ApiError::bad_request("INVALID_FIELD", text));
    };
    let access = app.whole_access();
    let mode = Mode::of(params, &access, headers)?;
    let candidate = find(app, &access, &name).await?;
    let stored = candidate.as_ref().map(|candidate| candidate.password_hash.clone());
    let is_right = verified(app, password, stored).await?;
    let Some(candidate) = candidate.filter(|_| is_right) else {
        if access.audit {
            tracing::warn!(target: "audit", username = ?name, "login refused");
        }
        let (status, text) = (StatusCode::UNAUTHORIZED, "Invalid credentials");
        return Err(ApiError::new(status, "AUTHENTICATION_FAILED", text));
    };
    if !candidate.is_active {
        let text = "This account is not active";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "ACCOUNT_INACTIVE", text));
    }
    let access = with_secret(app).await?;
    if candidate.is_account {
        let user_id = candidate.user_id.clone();
        let command = Command::Account(AccountCommand::NoteLogin { user_id });
        let ticket = Ticket::minted();
        app.write(ticket, &Caller(candidate.user_id.clone()), command).await?;
    }
    let now_ms = clock::now_ms();
    let session = Session {
        user_id: candidate.user_id,
        username: candidate.username,
        role: candidate.role.as_str(),
        session_id: random_id(),
        ends_s: (now_ms / 1000).saturating_add(access.refresh_s()),
    };
    if access.audit {
        tracing::info!(target: "audit", user_id = ?session.user_id, role = session.role, "login");
    }
    let secret = access.secret().ok_or(Refusal::InvalidToken)?;
    let refresh = session.token(secret, TokenKind::Refresh, now_ms / 1000, access.refresh_s());
    let user = candidate.view.logged_in_at(now_ms);
    answer(&access, &session, &refresh, user, (mode, headers))
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
        let ticket = Ticket::minted();
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
