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

/// Heartbeats come many times in so long.
const DOUBT: Duration = Duration::from_secs(2);
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

/// Whether the replicated store can be written, as far as this member knows without asking, in family
/// N's word: `unhealthy` without a leader, and when none was heard of lately; `degraded` while it is
/// silent for longer than it ever is when all is well. A leader that lost its followers knows itself as
/// leader for as long as it likes, and can write nothing: it hears of a quorum, or of none. A member that
/// just became leader has not yet.
fn standing(has_leader: bool, contact_age: Option<Duration>) -> &'static str {
    match contact_age {
        _ if !has_leader => "unhealthy",
        Some(age) if age > SILENCE => "unhealthy",
        Some(age) if age > DOUBT => "degraded",
        Some(_) | None => "healthy",
    }
}

/// How the member stands, in the words of `GET /health`.
pub(super) fn of_member(app: &App) -> &'static str {
    standing(app.cluster().leader().is_some(), app.cluster().contact_age())
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
        let status = standing(leader.is_some(), age);
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
    fn contract_3_7_a_quorum_that_is_silent_is_in_doubt_and_then_none() {
        let after = |age: Duration| standing(true, Some(age));
        assert_eq!((standing(true, None), after(DOUBT)), ("healthy", "healthy"));
        assert_eq!(after(DOUBT + Duration::from_millis(1)), "degraded");
        assert_eq!(after(SILENCE), "degraded");
        assert_eq!(after(SILENCE + Duration::from_millis(1)), "unhealthy");
        assert_eq!(standing(false, Some(Duration::ZERO)), "unhealthy");
    }
}
