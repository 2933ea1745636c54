//! What most doors of family N do: show something of the state, or change it and show what it is then.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;

use crate::api::App;
use crate::api::app::Written;
use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::state::{CampaignCommand, Command, State as Tables};

/// Shows what `view` finds, under the consistency that the query asks for.
///
/// # Errors
/// `missing` when it finds nothing.
pub(super) async fn read(
    app: &App,
    params: &Params,
    view: impl FnOnce(&Tables) -> Option<Value>,
    missing: impl FnOnce() -> ApiError,
) -> Result<Response, ApiError> {
    let mut stamp = app.admit(params).await?;
    let shown = app.show(&mut stamp, view).ok_or_else(missing)?;
    Ok(reply::read(&stamp, reply::encode(&shown)))
}

/// Commits a command and shows what `view` finds then.
///
/// # Errors
/// Those of the command; `missing` when it finds nothing.
pub(super) async fn change(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    command: CampaignCommand,
    view: impl FnOnce(&Tables) -> Option<Value>,
    missing: impl FnOnce() -> ApiError,
) -> Result<Response, ApiError> {
    let Written { index, .. } = app.write(ticket, caller, Command::Campaign(command)).await?;
    shown(app, ticket, index, view, missing).await
}

/// Shows what `view` finds behind a write.
///
/// # Errors
/// `missing` when it finds nothing.
pub(super) async fn shown(
    app: &App,
    ticket: Ticket,
    index: u64,
    view: impl FnOnce(&Tables) -> Option<Value>,
    missing: impl FnOnce() -> ApiError,
) -> Result<Response, ApiError> {
    let mut stamp = app.caught_up(ticket, index).await?;
    let shown = app.show(&mut stamp, view).ok_or_else(missing)?;
    Ok(reply::written(ticket, index, &shown))
}

/// The same answer, to a request that made something.
pub(super) fn created(mut response: Response) -> Response {
    *response.status_mut() = StatusCode::CREATED;
    response
}
