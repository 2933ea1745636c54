//! The figures of the fleet as family W counts them (contract 2.2 `network_metrics`, 2.3). All of
//! them come from the replicated state and the liveness book; none are invented.

use serde::Serialize;

use super::nodes::Book;
use crate::api::App;
use crate::model::NodeStatus;
use crate::state::State as Tables;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::api) struct NetworkMetrics {
    pub(in crate::api) total_nodes: usize,
    pub(in crate::api) active_nodes: usize,
    pub(in crate::api) total_agents: usize,
    pub(in crate::api) tasks_completed: u64,
    pub(in crate::api) tasks_failed: u64,
    pub(in crate::api) average_response_time: f64,
    pub(in crate::api) network_utilization: f64,
    /// Seconds (contract C17).
    pub(in crate::api) uptime: f64,
    pub(in crate::api) throughput_per_minute: f64,
    pub(in crate::api) success_rate: f64,
    /// Percent; read by the old dashboard.
    pub(in crate::api) overall_efficiency: f64,
}

/// Means over all nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::api) struct Means {
    pub(in crate::api) cpu: f64,
    pub(in crate::api) memory: f64,
    pub(in crate::api) gpu: f64,
    pub(in crate::api) latency: f64,
    pub(in crate::api) load: f64,
}

/// How many nodes have which status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(in crate::api) struct ByStatus {
    active: usize,
    degraded: usize,
    maintenance: usize,
    offline: usize,
    error: usize,
}

impl ByStatus {
    pub(in crate::api) fn count(state: &Tables) -> Self {
        let mut counts = Self::default();
        for node in state.nodes() {
            match node.status {
                NodeStatus::Active => counts.active += 1,
                NodeStatus::Degraded => counts.degraded += 1,
                NodeStatus::Maintenance => counts.maintenance += 1,
                NodeStatus::Offline => counts.offline += 1,
                NodeStatus::Error => counts.error += 1,
            }
        }
        counts
    }

    pub(in crate::api) fn of(&self, status: NodeStatus) -> usize {
        match status {
            NodeStatus::Active => self.active,
            NodeStatus::Degraded => self.degraded,
            NodeStatus::Maintenance => self.maintenance,
            NodeStatus::Offline => self.offline,
            NodeStatus::Error => self.error,
        }
    }
}

pub(in crate::api) fn means(state: &Tables, book: &Book) -> Means {
    let count = state.nodes_len();
    if count == 0 {
        return Means::default();
    }
    let mut sums = Means::default();
    for node in state.nodes() {
        let load = book.of(node).load.unwrap_or(node.load);
        sums.cpu += f64::from(load.cpu_milli);
        sums.memory += f64::from(load.memory_milli);
        sums.gpu += f64::from(load.gpu_milli);
        sums.latency += f64::from(load.latency_us);
        sums.load += f64::from(load.score_milli);
    }
    let mean = |sum: f64| sum / 1000.0 / count as f64;
    Means {
        cpu: mean(sums.cpu),
        memory: mean(sums.memory),
        gpu: mean(sums.gpu),
        latency: mean(sums.latency),
        load: mean(sums.load),
    }
}

/// 1 when nothing has ended yet (contract 2.2).
pub(in crate::api) fn success_rate(state: &Tables) -> f64 {
    let counters = state.counters();
    let ended = counters.tasks_completed + counters.tasks_failed;
    if ended == 0 { 1.0 } else { counters.tasks_completed as f64 / ended as f64 }
}

pub(in crate::api) fn network_metrics(app: &App, state: &Tables, book: &Book) -> NetworkMetrics {
    let counters = state.counters();
    let success_rate = success_rate(state);
    let average_response_time = match counters.tasks_completed {
        0 => 0.0,
        completed => counters.response_ms_total as f64 / completed as f64,
    };
    NetworkMetrics {
        total_nodes: state.nodes_len(),
        active_nodes: super::nodes::active_nodes(state),
        total_agents: super::agents::total_agents(state),
        tasks_completed: counters.tasks_completed,
        tasks_failed: counters.tasks_failed,
        average_response_time,
        network_utilization: means(state, book).load,
        uptime: app.uptime().as_secs_f64(),
        throughput_per_minute: app.throughput_per_minute(counters.tasks_completed),
        success_rate,
        overall_efficiency: success_rate * 100.0,
    }
}
