//! Family N's health (contract 3.7): what its program kept in a database and in a cache is inside
//! this one. Its *database* is the replicated log, its *cache* the state in memory.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::App;
use super::probes::ENVIRONMENT;
use super::reply;
use crate::cluster::Consistency;

/// A leader that was silent for so long is one in doubt, and so is one that no quorum has answered
/// for so long.
const SILENCE: Duration = Duration::from_secs(5);
/// How long the log is waited for.
const WAIT: Duration = Duration::from_secs(3);

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Service {
    status: &'static str,
    /// In milliseconds; null when there is none to tell.
    latency_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied_index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Whether the last contact with a quorum was lately. A member that just became leader has none yet.
fn is_recent(contact_age: Option<Duration>) -> bool {
    contact_age.is_none_or(|age| age <= SILENCE)
}

/// Whether the replicated store can be written, as far as this member knows without asking: there is
/// a leader, and a quorum was heard of lately. A leader that lost its followers knows itself as leader
/// for as long as it likes, and can write nothing.
pub(super) fn is_writable(app: &App) -> bool {
    app.cluster().leader().is_some() && is_recent(app.cluster().contact_age())
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl Service {
    fn of(status: &'static str, latency_ms: Option<f64>) -> Self {
        let (leader, applied_index, rows, error) = (None, None, None, None);
        Self { status, latency_ms, leader, applied_index, rows, error }
    }

    /// The log as this member knows it, without asking anybody: how long ago it heard of its leader.
    fn log(app: &App) -> Self {
        let leader = app.cluster().leader().map(|(member, _)| member);
        let age = app.cluster().contact_age();
        let status = match (leader, is_recent(age)) {
            (None, _) => "unhealthy",
            (Some(_), false) => "degraded",
            (Some(_), true) => "healthy",
        };
        Self { leader, ..Self::of(status, age.map(ms)) }
    }

    /// The state: how long it took to look at it.
    fn memory(app: &App) -> Self {
        let started = Instant::now();
        let (index, rows) = app.cluster().view().read_at(|state| state.digest().rows);
        let taken = Some(ms(started.elapsed()));
        Self { applied_index: Some(index), rows: Some(rows), ..Self::of("healthy", taken) }
    }

    fn answer(&self) -> Response {
        let mut response = reply::json(reply::encode(self));
        if self.status == "unhealthy" {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response
    }
}

/// Both, for the union of all families' health, which asks nobody.
#[derive(Debug, Serialize)]
pub(super) struct Services {
    database: Service,
    cache: Service,
}

impl Services {
    pub(super) fn of(app: &App) -> Self {
        Self { database: Service::log(app), cache: Service::memory(app) }
    }
}

/// `GET /health/db`: how long a read takes that a quorum confirms; 503 when none does.
pub(super) async fn database(State(app): State<App>) -> Response {
    let started = Instant::now();
    let read = timeout(WAIT, app.cluster().read_barrier(Consistency::Linearizable)).await;
    let known = Service::log(&app);
    let service = match read {
        Ok(Ok(stamp)) => Service {
            status: "healthy",
            latency_ms: Some(ms(started.elapsed())),
            applied_index: Some(stamp.index),
            ..known
        },
        Ok(Err(error)) => Service {
            status: "unhealthy",
            latency_ms: None,
            error: Some(error.to_string()),
            ..known
        },
        Err(_elapsed) => {
            let error = format!("no quorum confirmed a read within {} s", WAIT.as_secs());
            Service { status: "unhealthy", latency_ms: None, error: Some(error), ..known }
        }
    };
    service.answer()
}

/// `GET /health/cache`.
pub(super) async fn cache(State(app): State<App>) -> Response {
    Service::memory(&app).answer()
}

/// `GET /health/version`.
pub(super) async fn version() -> Response {
    let body = json!({
        "name": "quorate",
        "version": env!("CARGO_PKG_VERSION"),
        "environment": ENVIRONMENT,
        "api_prefix": "/api/v1",
    });
    reply::json(reply::encode(&body))
}

/// `GET /api/v1`: where to begin.
pub(super) async fn index() -> Response {
    let endpoints = json!({
        "auth": "/api/v1/auth",
        "bots": "/api/v1/bots",
        "campaigns": "/api/v1/campaigns",
        "cluster": "/api/v1/cluster",
        "config": "/api/v1/config",
        "events": "/api/v1/events",
        "health": "/health",
        "metrics": "/metrics",
        "nodes": "/api/v1/nodes",
        "orchestrator": "/api/v1/orchestrator/state",
        "status": "/api/v1/status",
        "swarms": "/api/v1/swarms",
        "tasks": "/api/v1/tasks",
        "workflows": "/api/v1/workflows",
    });
    let body = json!({"version": env!("CARGO_PKG_VERSION"), "endpoints": endpoints});
    reply::json(reply::encode(&body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_that_is_silent_for_long_is_none() {
        assert!(is_recent(None) && is_recent(Some(SILENCE)));
        assert!(!is_recent(Some(SILENCE + Duration::from_millis(1))));
    }
}
