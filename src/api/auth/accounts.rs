//! Accounts (contract 3.6): people register, or are registered; administrators say what they may do.
//!
//! Where credentials are asked for, registering is closed until the configuration opens it, and gives
//! the role that the configuration names, a guest's when it names none. Only an administrator who was
//! asked for proof hands out another one.

use axum::extract::State;
use axum::http::{Extensions, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::passwords::hashed;
use super::sessions::who;
use super::users::UserView;
use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::{FieldError, Object};
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::cluster::Consistency;
use crate::model::is_mail_address;
use crate::security::{Access, Action, Area, PASSWORD_MAX, Permission, Proof, Refusal, Role};
use crate::state::{AccountCommand, Command, FULL_NAME_MAX, NewAccount, Outcome, USERNAME_MAX};

/// The shortest password of an account, in bytes.
const PASSWORD_MIN: usize = 8;
/// Accounts in one answer.
const LIMIT: u64 = 100;
const MANAGE: Permission = Permission(Area::Users, Action::Manage);

/// The word of a role, as it is stored.
fn role_word(object: &Object<'_>) -> Result<Option<String>, ApiError> {
    let Some(word) = object.text("role")? else { return Ok(None) };
    if word.is_empty() || Role::parse(&word).is_some() {
        return Ok(Some(word.into_owned()));
    }
    Err(FieldError::new("role", "admin, operator, node, client, readonly or guest").into())
}

fn required(object: &Object<'_>, name: &'static str) -> Result<String, ApiError> {
    let missing = || ApiError::bad_request("INVALID_FIELD", format!("{name} is required"));
    Ok(object.text(name)?.ok_or_else(missing)?.into_owned())
}

/// What somebody wants to be known by, and the password.
fn read(object: &Object<'_>) -> Result<(NewAccount, String), ApiError> {
    let wrong = |field: &str, wanted| ApiError::from(FieldError::new(field, wanted));
    let username = required(object, "username")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(1..=USERNAME_MAX).contains(&username.len()) || !username.bytes().all(is_plain) {
        return Err(wrong("username", "1 to 64 letters, digits, dots, dashes and underscores"));
    }
    let email = required(object, "email")?;
    if !is_mail_address(&email) {
        return Err(wrong("email", "an address of mail"));
    }
    let password = required(object, "password")?;
    if !(PASSWORD_MIN..=PASSWORD_MAX).contains(&password.len()) {
        return Err(wrong("password", "a text of 8 to 1024 bytes"));
    }
    let full_name = object.text("full_name")?.unwrap_or_default().into_owned();
    if full_name.len() > FULL_NAME_MAX || full_name.chars().any(char::is_control) {
        return Err(wrong("full_name", "a text of at most 200 bytes without control characters"));
    }
    let (password_hash, role) = (String::new(), String::new());
    Ok((NewAccount { username, email, full_name, password_hash, role }, password))
}

/// `POST /auth/register`: `{email, username, password, full_name?}`, 201 with the user. `role` is for
/// administrators.
pub(in crate::api) async fn register(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    extensions: Extensions,
    headers: HeaderMap,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let access = app.whole_access();
    let manages = who(&app, &access, &extensions, &headers).is_ok_and(|who| who.role.may(MANAGE));
    if access.is_required() && !manages && !access.registration().is_open {
        let text = "Registration is closed: an administrator makes accounts";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "REGISTRATION_CLOSED", text));
    }
    let object = Object::parse(&body)?;
    let (mut account, password) = read(&object)?;
    account.role = role_word(&object)?.unwrap_or_default();
    if !manages && !account.role.is_empty() {
        return Err(Refusal::Forbidden.into());
    }
    // Not for good before apply has said so, but a name that is taken need not be worked for.
    let (username, email) = (account.username.clone(), account.email.clone());
    let taken = app.cluster().view().read(|state| {
        state.request(ticket.request_id).is_none()
            && [&username, &email].into_iter().any(|name| state.account_named(name).is_some())
    });
    if taken || [&username, &email].into_iter().any(|name| access.user(name).is_some()) {
        let text = "an account with this username or email exists already";
        return Err(ApiError::conflict("ACCOUNT_EXISTS", text));
    }
    account.password_hash = hashed(&app, password).await?;
    let command = Command::Account(AccountCommand::Register(Box::new(account)));
    let Written { index, outcome } = app.write(ticket, &caller, command).await?;
    let Outcome::AccountCreated { user_id } = outcome else {
        return Err(key_reused(ticket.request_id));
    };
    app.caught_up(ticket, index).await?;
    if access.audit {
        tracing::info!(target: "audit", ?user_id, by = ?caller.0, "an account was registered");
    }
    let made = app.cluster().view().read(|state| {
        // Whoever sends another's key is not shown what that one made.
        let account = state.account(&user_id).filter(|account| account.username == username);
        account.map(|account| UserView::of_account(&access, account))
    });
    let made = made.ok_or_else(|| key_reused(ticket.request_id))?;
    Ok((StatusCode::CREATED, reply::written(ticket, index, &made)).into_response())
}

/// `GET /auth/me`: whoever shows the credentials.
pub(in crate::api) async fn me(
    State(app): State<App>,
    params: Params,
    extensions: Extensions,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut stamp = app.admit(&params).await?;
    let access = app.whole_access();
    let principal = who(&app, &access, &extensions, &headers)?;
    let account = app.show(&mut stamp, |state| {
        let account = state.account(&principal.user_id);
        account.map(|account| UserView::of_account(&access, account))
    });
    let user = account.unwrap_or_else(|| {
        let username = match &principal.proof {
            Proof::Session { username, .. } => username,
            Proof::AdminKey | Proof::Key(_) => &*principal.user_id,
        };
        UserView::of_config(&principal.user_id, username, principal.role)
    });
    Ok(reply::read(&stamp, reply::encode(&user)))
}

/// `GET /auth/users`: accounts, `?skip=&limit=`. Users of the configuration stand there.
pub(in crate::api) async fn list(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.limit(LIMIT)?;
    let skip = params.skip("skip")?;
    let mut stamp = app.admit(&params).await?;
    let access = app.whole_access();
    let (users, total) = app.show(&mut stamp, |state| {
        let page = state.accounts_after(None).skip(skip).take(limit);
        let users: Vec<_> = page.map(|account| UserView::of_account(&access, account)).collect();
        (users, state.accounts_len())
    });
    let body = json!({"users": users, "total": total, "skip": skip, "limit": limit});
    Ok(reply::read(&stamp, reply::encode(&body)))
}

/// The id of an account that is named by it, by its username or by its address.
async fn id_of(app: &App, name: &str) -> Result<String, ApiError> {
    app.barrier(Consistency::Linearizable).await?;
    let found = app.cluster().view().read(|state| {
        let account = state.account(name).or_else(|| state.account_named(name));
        account.map(|account| account.user_id.clone())
    });
    found.ok_or_else(|| ApiError::not_found("ACCOUNT_NOT_FOUND", "User not found"))
}

fn shown(app: &App, access: &Access, user_id: &str) -> Option<UserView> {
    app.cluster().view().read(|state| {
        let account = state.account(user_id);
        account.map(|account| UserView::of_account(access, account))
    })
}

/// `PATCH /auth/users/{user}`: `{role?, is_active?}`. An empty role takes the given one back.
pub(in crate::api) async fn change(
    State(app): State<App>,
    Path(name): Path<String>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let object = Object::parse(&body)?;
    let (role, is_active) = (role_word(&object)?, object.flag("is_active")?);
    let user_id = id_of(&app, &name).await?;
    let command = AccountCommand::Change { user_id: user_id.clone(), role, is_active };
    let Written { index, .. } = app.write(ticket, &caller, Command::Account(command)).await?;
    app.caught_up(ticket, index).await?;
    let user = shown(&app, &app.whole_access(), &user_id);
    let gone = || ApiError::not_found("ACCOUNT_NOT_FOUND", "User not found");
    Ok(reply::written(ticket, index, &user.ok_or_else(gone)?))
}

/// `DELETE /auth/users/{user}`: 204. All its logins are over.
pub(in crate::api) async fn remove(
    State(app): State<App>,
    Path(name): Path<String>,
    ticket: Ticket,
    caller: Caller,
) -> Result<Response, ApiError> {
    let written = match id_of(&app, &name).await {
        Ok(user_id) => {
            let command = Command::Account(AccountCommand::Remove { user_id });
            app.write(ticket, &caller, command).await
        }
        // It may be gone because this request has been here before.
        Err(error) => app.recorded(ticket).unwrap_or(Err(error)),
    };
    let Written { index, .. } = written?;
    app.caught_up(ticket, index).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
