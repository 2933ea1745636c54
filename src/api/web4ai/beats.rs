//! The door of heartbeats (contract 2.3, 2.9): on any member, without a log entry, unless the node
//! reports ends of attempts along the way.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::heartbeat;
use super::nodes::is_registered;
use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::Object;
use crate::api::params::Path;
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::cluster::Beat;
use crate::model::{AGENT_PREFIX, NodeId};
use crate::state::{Command, Outcome, TaskReport};

#[derive(Serialize)]
struct Beaten {
    success: bool,
    message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_tasks: Option<Judged>,
}

#[derive(Serialize)]
struct Judged {
    accepted: u32,
    stale: u32,
}

/// `POST /api/v1/nodes/{node_id}/heartbeat`, on any member.
pub(in crate::api) async fn heartbeat(
    State(app): State<App>,
    Path(node_id): Path<String>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    const FAILED: &str = "Failed to update heartbeat";
    let refused = |error: ApiError| error.with_family_text(FAILED);
    let unknown = || {
        let text = "the node is not registered";
        refused(ApiError::bad_request("NODE_NOT_FOUND", text))
    };
    let node_id = NodeId::parse(&node_id).map_err(|_| unknown())?;
    if node_id.as_str().starts_with(AGENT_PREFIX) {
        // Agents beat at a door of their own (contract C22).
        return Err(unknown());
    }
    let read = Object::parse(&body).map_err(ApiError::from);
    let weights = || app.cluster().view().read(|state| state.policy().load_weights);
    let beat = read.and_then(|body| Ok(heartbeat::parse(&node_id, &body, weights)?));
    let beat = beat.map_err(refused)?;
    if !is_registered(&app, &node_id).await? {
        return Err(unknown());
    }
    let recorded = Beat { status: Some(beat.status), load: beat.load };
    app.cluster().heartbeats().record(&node_id, recorded);
    let beaten =
        |completed_tasks| Beaten { success: true, message: "Heartbeat updated", completed_tasks };
    if beat.reports.is_empty() {
        return Ok(reply::json(reply::encode(&beaten(None))));
    }
    let (index, judged) = take_reports(&app, ticket, &caller, beat.reports).await?;
    let beaten = beaten(Some(judged));
    Ok(match index {
        Some(index) => reply::written(ticket, index, &beaten),
        None => reply::json(reply::encode(&beaten)),
    })
}

/// Proposes the ends of attempts that came with a heartbeat. Reports of tasks that are long gone
/// are stale like others, so that a node does not send them for ever.
async fn take_reports(
    app: &App,
    ticket: Ticket,
    caller: &Caller,
    reports: Vec<TaskReport>,
) -> Result<(Option<u64>, Judged), ApiError> {
    let single = reports.len() == 1;
    let written = app.write(ticket, caller, Command::ReportTasks(reports)).await;
    match written {
        Ok(Written { index, outcome: Outcome::Judged { accepted, stale } }) => {
            Ok((Some(index), Judged { accepted, stale }))
        }
        Ok(Written { index, outcome: Outcome::TaskReported { stale, .. } }) => {
            let stale = u32::from(stale);
            Ok((Some(index), Judged { accepted: 1 - stale, stale }))
        }
        Ok(_) => Err(key_reused(ticket.request_id)),
        Err(error) if single && error.code() == "TASK_NOT_FOUND" => {
            Ok((None, Judged { accepted: 0, stale: 1 }))
        }
        Err(error) => Err(error),
    }
}
