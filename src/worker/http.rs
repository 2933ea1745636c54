//! What a worker serves: dispatches, its health, and being told to leave.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::book::{AttemptKey, Verdict};
use super::wire::Dispatch;
use super::{Shared, report};

/// The largest dispatch that is taken.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a full or leaving worker says: seconds after which asking again makes sense.
const RETRY_AFTER_S: u64 = 1;

type App = State<Arc<Shared>>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/api/v4/tasks/execute", post(execute))
        .route("/api/cancel_task/{task_id}", post(cancel))
        .route("/api/health", get(health))
        .route("/api/v4/orchestrator/status", get(status))
        .route("/api/shutdown", post(shutdown))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

async fn execute(State(shared): App, body: Bytes) -> Response {
    let dispatch = match Dispatch::read(&body) {
        Ok(dispatch) => dispatch,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, "", &error),
    };
    let key = AttemptKey { task_id: dispatch.task_id.clone(), attempt: dispatch.attempt };
    if shared.program(&dispatch.task_type).is_none() {
        let error = format!("no program for task type `{}`", dispatch.task_type);
        return refusal(StatusCode::INTERNAL_SERVER_ERROR, &key.task_id, &error);
    }
    if shared.draining.is_cancelled() {
        return busy(&key.task_id, "this worker is leaving");
    }
    tracing::debug!(task_id = key.task_id, attempt = key.attempt, "dispatched");
    match shared.book.admit(&key) {
        Verdict::Start(kill) => report::start(&shared, dispatch, kill),
        Verdict::Runs => {}
        Verdict::Ended(ended) => report::repeat(&shared, key.clone(), ended),
        Verdict::Stale { newest } => {
            let error = format!("attempt {} came after attempt {newest}", key.attempt);
            return refusal(StatusCode::CONFLICT, &key.task_id, &error);
        }
        Verdict::Full => {
            let error = format!("all {} slots are taken", shared.options.concurrency);
            return busy(&key.task_id, &error);
        }
    }
    Json(json!({ "success": true, "task_id": key.task_id, "status": "accepted" })).into_response()
}

fn refusal(status: StatusCode, task_id: &str, error: &str) -> Response {
    let body = json!({ "success": false, "task_id": task_id, "error": error });
    (status, Json(body)).into_response()
}

/// Nothing was started. 429 is what dispatchers take for "later": a 503 would count as an attempt
/// that failed (contract 6).
fn busy(task_id: &str, error: &str) -> Response {
    let status = StatusCode::TOO_MANY_REQUESTS;
    let body = json!({
        "success": false, "task_id": task_id, "error": error, "retry_after": RETRY_AFTER_S
    });
    (status, [("Retry-After", RETRY_AFTER_S.to_string())], Json(body)).into_response()
}

/// The attempt that a cancel means; without one, whichever runs.
#[derive(Default, Deserialize)]
struct Cancel {
    attempt: Option<u32>,
}

async fn cancel(State(shared): App, Path(task_id): Path<String>, body: Bytes) -> Response {
    let cancel: Cancel = serde_json::from_slice(&body).unwrap_or_default();
    if shared.book.kill(&task_id, cancel.attempt) {
        tracing::info!(task_id, "killed on request");
        return Json(json!({ "success": true, "task_id": task_id })).into_response();
    }
    refusal(StatusCode::NOT_FOUND, &task_id, "the task does not run here")
}

async fn health(State(shared): App) -> Json<Value> {
    let mut body = shared.description();
    body["status"] = json!("healthy");
    body["success"] = json!(true);
    body["tasks_running"] = json!(shared.book.running());
    body["tasks_finished"] = json!(shared.book.finished());
    Json(body)
}

async fn status(State(shared): App) -> Json<Value> {
    let running = shared.book.running();
    Json(json!({
        "agent_id": shared.node_id,
        "status": shared.word(),
        "capabilities": shared.capabilities(),
        "current_tasks": running,
        "load_score": running as f64 / f64::from(shared.options.concurrency),
        "specialized_models": [],
    }))
}

async fn shutdown(State(shared): App) -> Json<Value> {
    tracing::info!("told to leave");
    shared.draining.cancel();
    Json(json!({ "success": true, "message": "draining" }))
}
