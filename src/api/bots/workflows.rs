//! The doors of workflows that were made: how far they are, and their end; and where the services are
//! that they are made of.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::shape;
use super::single::propose;
use super::workflow_view::{WorkflowShown, summary};
use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::error::ApiError;
use crate::api::list_query::{ListKind, ListQuery, invalid_cursor};
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::model::{Workflow, WorkflowStatus};
use crate::state::{BotCommand, Outcome};

const WORKFLOWS: ListKind = ListKind {
    name: "workflows",
    sorts: &["created_at"],
    descending: true,
    filters: &["status"],
    own: &[],
};

fn status_of(params: &Params) -> Result<Option<WorkflowStatus>, ApiError> {
    use WorkflowStatus::{Cancelled, Completed, Running};
    let Some(word) = params.get("status").map(str::trim).filter(|word| !word.is_empty()) else {
        return Ok(None);
    };
    let found = [Running, Completed, Cancelled].into_iter().find(|status| status.as_str() == word);
    let text = "status must be running, completed or cancelled";
    found.map(Some).ok_or_else(|| ApiError::bad_request("INVALID_QUERY", text))
}

/// `GET /workflows?status=&limit=&cursor=&order=`: the newest first. There are at most 11,000.
pub(in crate::api) async fn list(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let query = ListQuery::parse(&WORKFLOWS, &params)?;
    let status = status_of(&params)?;
    let mut stamp = app.admit(&params).await?;
    let query = query.in_cluster(app.cluster().cluster_id());
    let after = query.place()?.map(|place| place.parse::<u64>().map_err(|_| invalid_cursor()));
    let after = after.transpose()?;
    let answer = app.show(&mut stamp, |state| {
        let wanted = |(_, row): &(u64, &Workflow)| {
            status.is_none_or(|status| row.status == status)
                && query.window.holds(row.created_at_ms)
        };
        let mut found: Vec<(u64, &Workflow)> = state.workflows_after(0).filter(wanted).collect();
        let total = found.len();
        if query.descending {
            found.reverse();
        }
        if let Some(after) = after {
            let is_later =
                |number: u64| if query.descending { number < after } else { number > after };
            found.retain(|(number, _)| is_later(*number));
        }
        let more = found.len() > query.limit;
        found.truncate(query.limit);
        let cursor =
            found.last().filter(|_| more).map(|(number, _)| query.cursor(&number.to_string()));
        let rows: Vec<_> = found
            .into_iter()
            .map(|(number, row)| summary(state.workflow_id(number), row))
            .collect();
        json!({"count": rows.len(), "total": total, "next_cursor": cursor, "workflows": rows})
    });
    Ok(reply::read(&stamp, reply::encode(&answer)))
}

/// `GET /services` (contract 5.1): as this member was told.
pub(in crate::api) async fn services(State(app): State<App>) -> Response {
    let urls = app.options().services.iter();
    let urls: serde_json::Map<String, Value> =
        urls.map(|(name, url)| (name.to_owned(), url.into())).collect();
    reply::json(reply::encode(&json!({"services": urls})))
}

/// `GET /workflows/{id}`.
pub(in crate::api) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let workflow = shape::workflow_id(&id)?;
    let mut stamp = app.admit(&params).await?;
    let shown = app.show(&mut stamp, |state| WorkflowShown::of(state, workflow));
    let shown = shown.ok_or_else(|| shape::workflow_not_found(&id))?;
    Ok(reply::read_body(&stamp, shown.body(app.cluster().view())?))
}

/// `DELETE /workflows/{id}`: ends it. What was done stays; what comes of the call that is under way is not
/// recorded.
pub(in crate::api) async fn cancel(
    State(app): State<App>,
    Path(id): Path<String>,
    ticket: Ticket,
    caller: Caller,
) -> Result<Response, ApiError> {
    let workflow = shape::workflow_id(&id)?;
    let command = BotCommand::CancelWorkflow { workflow };
    let Written { index, outcome } = propose(&app, ticket, &caller, command).await?;
    let Outcome::Done = outcome else { return Err(key_reused(ticket.request_id)) };
    let mut stamp = app.caught_up(ticket, index).await?;
    let shown = app.show(&mut stamp, |state| WorkflowShown::of(state, workflow));
    let shown = shown.ok_or_else(|| shape::workflow_not_found(&id))?;
    Ok(reply::written_body(ticket, index, shown.body(app.cluster().view())?))
}
