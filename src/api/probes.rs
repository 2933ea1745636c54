//! Is it alive, is it ready, is it healthy: for process managers, load balancers and the families'
//! clients (contract 2.3, C6). None of them asks for consensus.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::App;
use super::health::{self, Services};
use super::host::HostUsage;
use super::params::Params;
use super::reply;
use super::web4ai::lists::summary;
use super::wire_time::{iso, iso_micros, uptime_words};
use crate::clock;
use crate::cluster::Consistency;
use crate::state::State as Tables;

/// Family W's program version, which its clients print. Ours is in `quorate_version`.
const FAMILY_VERSION: &str = "1.0.0";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What this program was built for: whoever runs it has no other kind of it.
pub(super) const ENVIRONMENT: &str =
    if cfg!(debug_assertions) { "development" } else { "production" };

/// `GET /livez`: the process serves.
pub(super) async fn livez() -> Response {
    (StatusCode::OK, "ok\n").into_response()
}

/// One condition of readiness.
struct Check {
    name: &'static str,
    passed: bool,
    detail: String,
}

/// `GET /readyz`: this member can take requests. `?verbose` names every check.
pub(super) async fn readyz(State(app): State<App>, params: Params) -> Response {
    let checks = checks(&app).await;
    let ready = checks.iter().all(|check| check.passed);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = String::new();
    if params.flag("verbose") || !ready {
        for check in &checks {
            let mark = if check.passed { '+' } else { '-' };
            text.push_str(&format!("[{mark}] {}: {}\n", check.name, check.detail));
        }
    }
    text.push_str(if ready { "ready\n" } else { "not ready\n" });
    (status, text).into_response()
}

async fn checks(app: &App) -> Vec<Check> {
    let status = app.cluster().status().await;
    let own = status.members.iter().find(|member| member.id == status.member_id);
    let seated = !status.cluster_id.is_empty();
    let caught_up = app.cluster().read_barrier(Consistency::Linearizable).await;
    vec![
        Check {
            name: "member",
            passed: seated,
            detail: match seated {
                true => format!("member {} of cluster {}", status.member_id, status.cluster_id),
                false => "belongs to no cluster yet".to_owned(),
            },
        },
        Check {
            name: "leader",
            passed: status.leader.is_some(),
            detail: match status.leader {
                Some(leader) => format!("member {leader} leads term {}", status.term),
                None => "no leader is known".to_owned(),
            },
        },
        Check {
            name: "caught up",
            passed: caught_up.is_ok(),
            detail: match &caught_up {
                Ok(stamp) => format!("index {} is applied", stamp.index),
                Err(error) => error.to_string(),
            },
        },
        Check {
            name: "not diverged, disk ok",
            passed: status.ended.is_none(),
            detail: match &status.ended {
                Some(why) => why.clone(),
                None => own.map_or_else(|| "ok".to_owned(), |own| format!("digest {}", own.digest)),
            },
        },
    ]
}

#[derive(Serialize)]
struct WebHealth {
    status: &'static str,
    orchestrator_id: String,
    timestamp: String,
    version: &'static str,
    system: SystemUsage,
}

#[derive(Serialize)]
struct SystemUsage {
    #[serde(flatten)]
    host: HostUsage,
    uptime: String,
}

fn system_usage(app: &App) -> SystemUsage {
    let uptime_ms = u64::try_from(app.uptime().as_millis()).unwrap_or(u64::MAX);
    SystemUsage { host: app.host().usage(), uptime: uptime_words(uptime_ms) }
}

fn orchestrator_id(app: &App) -> String {
    app.cluster().view().read(|state| app.settings(state).orchestrator_id.clone())
}

/// `GET /api/v1/health`: 200 while the member serves at all.
pub(super) async fn web4ai_health(State(app): State<App>) -> Response {
    let health = WebHealth {
        status: "healthy",
        orchestrator_id: orchestrator_id(&app),
        timestamp: iso(clock::now_ms()),
        version: FAMILY_VERSION,
        system: system_usage(&app),
    };
    reply::json(reply::encode(&health))
}

#[derive(Serialize)]
struct UnionHealth {
    status: &'static str,
    healthy: bool,
    service: &'static str,
    redis: &'static str,
    orchestrator_id: String,
    version: &'static str,
    quorate_version: &'static str,
    timestamp: String,
    uptime_seconds: u64,
    stats: HealthStats,
    services: Services,
    system: SystemUsage,
}

#[derive(Serialize)]
struct HealthStats {
    running: bool,
    active_tasks: u64,
    pending_tasks: u64,
    total_nodes: usize,
    /// Executions that the fleet takes at once.
    max_workers: u64,
    metrics: serde_json::Value,
}

/// Family A's figures as its own program tells them (contract 4.2): those of `/metrics` under the same
/// names. Totals are the cluster's, times are what this member saw since it started.
fn family_figures(app: &App, state: &Tables) -> serde_json::Value {
    let counters = state.counters();
    let (all, recent_ms) = (app.task_stats().all(), app.task_stats().recent_ms());
    let quantile =
        |percent: usize| recent_ms.get((percent * recent_ms.len()).div_ceil(100).max(1) - 1);
    json!({
        "counters": {
            "tasks_submitted": counters.tasks_submitted,
            "tasks_completed": counters.tasks_completed,
            "tasks_failed": counters.tasks_failed,
            "tasks_cancelled": counters.tasks_cancelled,
            "tasks_retried": counters.retries,
            "tasks_under_500ms": app.task_stats().fast(),
        },
        "gauges": { "tasks_running": summary(state).active_count },
        "histograms": {
            "task_execution_time_ms": {
                "count": all.completed, "sum": all.sum_ms,
                "p50": quantile(50), "p95": quantile(95), "p99": quantile(99),
            },
        },
        "uptime_seconds": app.uptime().as_secs(),
    })
}

/// `GET /health`: the union of all families; 503 while the replicated store cannot be written, as far
/// as this member knows (contract 5.5), and `degraded` while that is in doubt (contract 3.7).
pub(super) async fn health(State(app): State<App>) -> Response {
    let status = health::of_member(&app);
    let writable = status != "unhealthy";
    let word = |good: &'static str, bad: &'static str| if writable { good } else { bad };
    let (orchestrator_id, stats) = app.cluster().view().read(|state| {
        let summary = summary(state);
        let stats = HealthStats {
            running: writable,
            active_tasks: summary.active_count,
            pending_tasks: summary.pending_count,
            total_nodes: state.nodes_len(),
            max_workers: state.holders_of_work().map(|node| u64::from(node.capacity)).sum(),
            metrics: family_figures(&app, state),
        };
        (app.settings(state).orchestrator_id.clone(), stats)
    });
    let health = UnionHealth {
        status,
        healthy: writable,
        service: "orchestrator",
        redis: word("connected", "disconnected"),
        orchestrator_id,
        version: FAMILY_VERSION,
        quorate_version: VERSION,
        timestamp: iso_micros(clock::now_ms()),
        uptime_seconds: app.uptime().as_secs(),
        stats,
        services: Services::of(&app),
        system: system_usage(&app),
    };
    let mut response = reply::json(reply::encode(&health));
    if !writable {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

#[derive(Serialize)]
struct Info {
    name: &'static str,
    service: &'static str,
    version: &'static str,
    status: &'static str,
    member: u64,
    leader: Option<u64>,
    description: &'static str,
    environment: &'static str,
    docs: &'static str,
    health: &'static str,
    metrics: &'static str,
    endpoints: [&'static str; 8],
}

/// `GET /`: what this is and where to go on.
pub(super) async fn root(State(app): State<App>) -> Response {
    let info = Info {
        name: "quorate",
        service: "orchestrator",
        version: VERSION,
        status: "running",
        member: app.cluster().member_id(),
        leader: app.cluster().leader().map(|(member, _)| member),
        description: env!("CARGO_PKG_DESCRIPTION"),
        environment: ENVIRONMENT,
        docs: "/api/v1",
        health: "/health",
        metrics: "/metrics",
        endpoints: [
            "/api/v1/status",
            "/api/v1/nodes",
            "/api/v1/tasks",
            "/api/v1/cluster",
            "/api/v1/events",
            "/health",
            "/readyz?verbose",
            "/metrics",
        ],
    };
    reply::json(reply::encode(&info))
}
