//! `POST /api/v1/control/start|stop|restart` (contract 2.3, decision f): a replicated pause of
//! scheduling that everyone sees. The API keeps answering and accepting; nothing is placed.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::object::Object;
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::cluster::Consistency;
use crate::leader::{Call, HttpCaller, NodeCaller as _};
use crate::model::TimeMs;
use crate::state::{Command, Outcome};

/// The time for one shutdown notice (contract 6, row 9).
const NOTICE_TIMEOUT: Duration = Duration::from_secs(5);
/// Notices under way at once.
const NOTICES_MAX: usize = 32;

#[derive(Serialize)]
struct Done {
    success: bool,
    message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    orchestrator_id: Option<String>,
    scheduling_paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes_notified: Option<usize>,
}

/// What was written.
struct Set {
    index: u64,
    /// It was not so before.
    toggled: bool,
    /// Since when scheduling is paused by that; `None` when an older release wrote it down.
    since_ms: Option<TimeMs>,
}

/// Whether scheduling is paused.
async fn is_paused(app: &App) -> Result<bool, ApiError> {
    app.barrier(Consistency::Linearizable).await?;
    Ok(app.cluster().view().read(|state| state.policy().paused))
}

/// Writes it, also where it is so already: sent again, it is then answered as it was the first time,
/// whatever came between.
async fn set(app: &App, ticket: Ticket, caller: &Caller, paused: bool) -> Result<Set, ApiError> {
    let command = Command::SetPaused { paused };
    let Written { index, outcome } = app.write(ticket, caller, command).await?;
    match outcome {
        Outcome::PauseSet { toggled, since_ms, .. } => {
            Ok(Set { index, toggled, since_ms: Some(since_ms) })
        }
        Outcome::ConfigPatched { .. } => Ok(Set { index, toggled: true, since_ms: None }),
        _ => Err(key_reused(ticket.request_id)),
    }
}

/// `POST /api/v1/control/start`.
pub(in crate::api) async fn start(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    Object::parse(&body)?;
    let running = done("Orchestrator already running", false);
    if !ticket.is_named && !is_paused(&app).await? {
        return Ok(reply::json(reply::encode(&running)));
    }
    let Set { index, toggled, .. } = set(&app, ticket, &caller, false).await?;
    if !toggled {
        return Ok(reply::written(ticket, index, &running));
    }
    let orchestrator_id =
        app.cluster().view().read(|state| app.settings(state).orchestrator_id.clone());
    let done = Done {
        orchestrator_id: Some(orchestrator_id),
        ..done("Orchestrator started successfully", false)
    };
    Ok(reply::written(ticket, index, &done))
}

fn done(message: &'static str, scheduling_paused: bool) -> Done {
    Done { success: true, message, orchestrator_id: None, scheduling_paused, nodes_notified: None }
}

/// `POST /api/v1/control/stop`. `{"shutdown_nodes": true}` also tells every node to shut down, which
/// happens only when it is asked for. One that is sent again tells them again only as long as scheduling
/// has been paused all the time: after a start they may be there for what came after.
pub(in crate::api) async fn stop(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let tell_nodes = Object::parse(&body)?.flag("shutdown_nodes")?.unwrap_or(false);
    let not_running = done("Orchestrator not running", true);
    if !ticket.is_named && !tell_nodes && is_paused(&app).await? {
        return Ok(reply::json(reply::encode(&not_running)));
    }
    let Set { index, toggled, since_ms } = set(&app, ticket, &caller, true).await?;
    let stopped = match toggled {
        true => done("Orchestrator stopped successfully", true),
        false => not_running,
    };
    if !tell_nodes {
        return Ok(reply::written(ticket, index, &stopped));
    }
    app.caught_up(ticket, index).await?;
    let still_holds = app
        .cluster()
        .view()
        .read(|state| state.policy().paused && since_ms == Some(state.counters().paused_since_ms));
    let notified = if still_holds { notify_nodes(&app).await? } else { 0 };
    Ok(reply::written(ticket, index, &Done { nodes_notified: Some(notified), ..stopped }))
}

/// `POST /api/v1/control/restart`: scheduling goes on, whatever it did before.
pub(in crate::api) async fn restart(
    State(app): State<App>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    Object::parse(&body)?;
    let Set { index, .. } = set(&app, ticket, &caller, false).await?;
    Ok(reply::written(ticket, index, &done("Orchestrator restarted", false)))
}

/// Tells every node once; what they answer does not matter. Gives how many were reached.
async fn notify_nodes(app: &App) -> Result<usize, ApiError> {
    use futures::StreamExt as _;
    let urls: Vec<String> = app.cluster().view().read(|state| {
        state.nodes().map(|node| format!("{}/api/shutdown", node.base_url())).collect()
    });
    let caller = HttpCaller::new()
        .map_err(|error| ApiError::unavailable("NODES_NOT_NOTIFIED", error.to_string(), 1))?;
    let body = bytes::Bytes::from_static(br#"{"message":"the orchestrator stops"}"#);
    let notices =
        urls.into_iter().map(|url| caller.post(Call::new(url, body.clone(), NOTICE_TIMEOUT)));
    let answers = futures::stream::iter(notices).buffer_unordered(NOTICES_MAX);
    Ok(answers.filter(|answer| std::future::ready(answer.is_ok())).count().await)
}
