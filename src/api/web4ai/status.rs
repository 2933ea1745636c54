//! Status and metrics of the whole orchestrator (contract 2.3).

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::agents::{AgentMap, total_agents};
use super::figures::{ByStatus, NetworkMetrics, means, network_metrics, success_rate};
use super::lists::summary;
use super::nodes::{Book, NodeMap, active_nodes};
use crate::api::App;
use crate::api::error::ApiError;
use crate::api::object::Object;
use crate::api::params::Params;
use crate::api::reply;
use crate::api::stats::ApiStats;
use crate::api::wire_time::{Epoch, iso};
use crate::model::{Node, NodeId, NodeStatus};
use crate::security::{Action, Area, Permission, Principal};
use crate::state::State as Tables;

/// To see nodes one by one.
pub(in crate::api) const NODES_READ: Permission = Permission(Area::Nodes, Action::Read);

#[derive(Serialize)]
struct StatusReply<'a> {
    success: bool,
    data: StatusData<'a>,
    api_stats: ApiStats,
}

/// Both generations of `data` in one object (contract 2.3, C5, C10).
#[derive(Serialize)]
struct StatusData<'a> {
    orchestrator_id: String,
    timestamp: Epoch,
    uptime: f64,
    network_metrics: NetworkMetrics,
    nodes: Nodes<'a>,
    agents: Agents<'a>,
    tasks: TaskCounts,
    performance: Performance,
    active_tasks: u64,
    pending_tasks: u64,
    completed_tasks: u64,
    failed_tasks: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Nodes<'a> {
    Summary { total: usize, active: usize, by_status: ByStatus },
    Map(NodeMap<'a>),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Agents<'a> {
    Summary { total: usize, by_node: BTreeMap<&'a NodeId, usize> },
    Map(AgentMap<'a>),
}

#[derive(Serialize)]
struct TaskCounts {
    pending: u64,
    active: u64,
    completed: u64,
    failed: u64,
}

#[derive(Serialize)]
struct Performance {
    avg_cpu_usage: f64,
    avg_memory_usage: f64,
    avg_network_latency: f64,
    network_utilization: f64,
}

fn task_counts(state: &Tables) -> TaskCounts {
    let summary = summary(state);
    TaskCounts {
        pending: summary.pending_count,
        active: summary.active_count,
        completed: summary.completed_count,
        failed: summary.failed_count,
    }
}

/// `GET /api/v1/status`. `?nodes=map|summary` chooses between the two shapes of `data.nodes`, and
/// of `data.agents` with it: no JSON value can be both.
pub(in crate::api) async fn status(
    State(app): State<App>,
    principal: Option<Extension<Principal>>,
    params: Params,
) -> Result<Response, ApiError> {
    let as_map = match params.get("nodes") {
        Some("map") => Some(true),
        Some("summary") => Some(false),
        None | Some("") => None,
        Some(other) => {
            let text = format!("nodes must be map or summary, not {other}");
            return Err(ApiError::bad_request("INVALID_QUERY", text));
        }
    };
    let mut stamp = app.admit(&params).await?;
    let book = Book::open(&app);
    let api_stats = app.stats().summary();
    let body = app.show(&mut stamp, |state| {
        let as_map = as_map.unwrap_or_else(|| app.settings(state).status_nodes_map);
        // The map is the list of nodes, which not everybody who sees figures may read.
        let sees = |principal: &Extension<Principal>| principal.role.may(NODES_READ);
        let as_map = as_map && principal.as_ref().is_none_or(sees);
        let data = status_data(&app, state, &book, as_map);
        reply::encode(&StatusReply { success: true, data, api_stats })
    });
    Ok(reply::read(&stamp, body))
}

/// `data` of the status as JSON text, as this member sees it now: what the WebSocket pushes.
pub(in crate::api) fn data_text(app: &App) -> String {
    let book = Book::open(app);
    app.cluster().view().read(|state| {
        let as_map = app.settings(state).status_nodes_map;
        let data = status_data(app, state, &book, as_map);
        serde_json::to_string(&data).expect("answers are plain data with string keys")
    })
}

fn status_data<'a>(app: &App, state: &'a Tables, book: &'a Book, as_map: bool) -> StatusData<'a> {
    let counts = task_counts(state);
    let means = means(state, book);
    let (nodes, agents) = if as_map {
        (Nodes::Map(NodeMap { state, book }), Agents::Map(AgentMap { state, book }))
    } else {
        let (total, active) = (state.nodes_len(), active_nodes(state));
        let by_node = state.nodes().map(|node| (&node.node_id, node.agents.len())).collect();
        (
            Nodes::Summary { total, active, by_status: ByStatus::count(state) },
            Agents::Summary { total: total_agents(state), by_node },
        )
    };
    StatusData {
        orchestrator_id: app.settings(state).orchestrator_id.clone(),
        timestamp: Epoch(book.now()),
        uptime: app.uptime().as_secs_f64(),
        network_metrics: network_metrics(app, state, book),
        nodes,
        agents,
        active_tasks: counts.active,
        pending_tasks: counts.pending,
        completed_tasks: counts.completed,
        failed_tasks: counts.failed,
        tasks: counts,
        performance: Performance {
            avg_cpu_usage: means.cpu,
            avg_memory_usage: means.memory,
            avg_network_latency: means.latency,
            network_utilization: means.load,
        },
    }
}

#[derive(Serialize)]
struct MetricsReply {
    success: bool,
    metrics: Metrics,
    network_metrics: NetworkMetrics,
    api_stats: ApiStats,
    load_balancer_stats: LoadBalancer,
    timestamp: String,
}

#[derive(Serialize)]
struct Metrics {
    timestamp: String,
    network: NetworkMetrics,
    nodes: NodeFigures,
    agents: AgentFigures,
    tasks: TaskFigures,
    api: ApiStats,
    load_balancer: LoadBalancer,
}

#[derive(Serialize)]
struct NodeFigures {
    total: usize,
    active: usize,
    avg_cpu_usage: f64,
    avg_memory_usage: f64,
    avg_load_score: f64,
}

#[derive(Serialize)]
struct AgentFigures {
    total: usize,
    active: usize,
    avg_efficiency: f64,
    avg_tasks_per_agent: f64,
}

#[derive(Serialize)]
struct TaskFigures {
    pending: u64,
    active: u64,
    completed_total: u64,
    failed_total: u64,
    success_rate: f64,
}

#[derive(Clone, Serialize)]
struct LoadBalancer {
    algorithm: &'static str,
    /// Reliability as the balancer weighs it, 0 to 1 (contract 2.8).
    node_weights: BTreeMap<NodeId, f64>,
}

/// `GET /api/v1/metrics`, in the shapes of both generations.
pub(in crate::api) async fn metrics(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let mut stamp = app.admit(&params).await?;
    let book = Book::open(&app);
    let api_stats = app.stats().summary();
    let timestamp = iso(book.now());
    let body = app.show(&mut stamp, |state| {
        let network = network_metrics(&app, state, &book);
        let load_balancer = load_balancer(state);
        reply::encode(&MetricsReply {
            success: true,
            metrics: Metrics {
                timestamp: timestamp.clone(),
                network: network.clone(),
                nodes: node_figures(state, &book),
                agents: agent_figures(state),
                tasks: task_figures(state),
                api: api_stats.clone(),
                load_balancer: load_balancer.clone(),
            },
            network_metrics: network,
            api_stats,
            load_balancer_stats: load_balancer,
            timestamp,
        })
    });
    Ok(reply::read(&stamp, body))
}

fn node_figures(state: &Tables, book: &Book) -> NodeFigures {
    let means = means(state, book);
    NodeFigures {
        total: state.nodes_len(),
        active: active_nodes(state),
        avg_cpu_usage: means.cpu,
        avg_memory_usage: means.memory,
        avg_load_score: means.load,
    }
}

/// Of the agents that [`total_agents`] counts: those that nodes declare, and those of family A.
fn agent_figures(state: &Tables) -> AgentFigures {
    let declared = || state.nodes().flat_map(|node| &node.agents);
    let total = total_agents(state);
    let is_active = |status: &str| matches!(status, "active" | "online" | "busy" | "idle");
    let active = declared().filter(|agent| is_active(&agent.status)).count()
        + state.agents().filter(|agent| agent.status == NodeStatus::Active).count();
    let said = |extra: &str| {
        let extra = Object::parse(extra.as_bytes()).unwrap_or_default();
        extra.number("efficiency_score").ok().flatten().unwrap_or(1.0)
    };
    let counted = |agent: &Node| match agent.tasks_completed + agent.tasks_failed {
        0 => 1.0,
        ended => agent.tasks_completed as f64 / ended as f64,
    };
    let efficiencies = declared().map(|agent| said(&agent.extra)).sum::<f64>()
        + state.agents().map(counted).sum::<f64>();
    let live: u64 = state.holders_of_work().map(|node| u64::from(node.live)).sum();
    let per_agent = |sum: f64| if total == 0 { 0.0 } else { sum / total as f64 };
    AgentFigures {
        total,
        active,
        avg_efficiency: per_agent(efficiencies),
        avg_tasks_per_agent: per_agent(live as f64),
    }
}

fn task_figures(state: &Tables) -> TaskFigures {
    let counts = task_counts(state);
    let counters = state.counters();
    TaskFigures {
        pending: counts.pending,
        active: counts.active,
        completed_total: counters.tasks_completed,
        failed_total: counters.tasks_failed,
        success_rate: success_rate(state),
    }
}

fn load_balancer(state: &Tables) -> LoadBalancer {
    let weight = |milli: u32| f64::from(milli) / 1000.0;
    LoadBalancer {
        algorithm: state.policy().algorithm.as_str(),
        node_weights: state
            .nodes()
            .map(|node| (node.node_id.clone(), weight(node.reliability_milli)))
            .collect(),
    }
}
