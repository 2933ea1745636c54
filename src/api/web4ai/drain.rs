//! `POST /api/v1/nodes/{node_id}/drain`: takes a node out of service in peace.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::Object;
use crate::api::params::Path;
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::model::NodeId;
use crate::state::{Command, Outcome};

/// What a node gets that no deadline was named for.
const DEADLINE_S: f64 = 300.0;
const DEADLINE_S_MAX: f64 = 7.0 * 86_400.0;

#[derive(Serialize)]
struct Drained {
    success: bool,
    message: String,
    old_status: &'static str,
    new_status: &'static str,
    deadline_seconds: f64,
}

/// Body: `{"deadline": seconds}`. The node gets no more work at once; what it still holds after the
/// deadline is given to others. `PUT .../status {"status": "active"}` ends it.
pub(in crate::api) async fn drain(
    State(app): State<App>,
    Path(node_id): Path<String>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let not_found = || ApiError::not_found("NODE_NOT_FOUND", "Node not found");
    let node_id = NodeId::parse(&node_id).map_err(|_| not_found())?;
    let deadline = Object::parse(&body)?.number("deadline")?.unwrap_or(DEADLINE_S);
    if !(0.0..=DEADLINE_S_MAX).contains(&deadline) {
        return Err(ApiError::bad_request("INVALID_FIELD", "deadline is 0 to 604800 seconds"));
    }
    let command =
        Command::DrainNode { node_id: node_id.clone(), within_ms: (deadline * 1000.0) as u64 };
    let Written { index, outcome } = app.write(ticket, &caller, command).await?;
    let Outcome::NodeStatusSet { old, new } = outcome else {
        return Err(key_reused(ticket.request_id));
    };
    let drained = Drained {
        success: true,
        message: format!("Node {node_id} is draining"),
        old_status: old.as_str(),
        new_status: new.as_str(),
        deadline_seconds: deadline,
    };
    Ok(reply::written(ticket, index, &drained))
}
