//! `GET /metrics`: text for Prometheus. The families' names where they have them (contract 2.13, 4.8),
//! ours with the prefix `quorate_`. Answered from this member alone, whatever state the cluster is in.

mod agents;
mod bots;
mod campaigns;

use std::fmt::{Display, Write as _};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::App;
use super::error::ApiError;
use super::host::HostUsage;
use super::queue_depths;
use super::web4ai::figures::{ByStatus, means, success_rate};
use super::web4ai::lists::summary;
use super::web4ai::nodes::Book;
use crate::cluster::{ClusterMetrics, ClusterStatus};
use crate::model::{NodeStatus, TaskStatus};
use crate::state::State as Tables;

/// With fewer tasks waiting than this, they are counted by type for every answer.
const COUNTED_MAX: u64 = 5000;

/// Text being written.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// Opens a family of figures.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(super) fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (place, (key, text)) in labels.iter().enumerate() {
            self.0.push(if place == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{key}=\"{}\"", escape(text));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.line(name, &[], value);
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// `GET /metrics` and `GET /api/v1/metrics/prometheus`.
pub(super) async fn metrics(State(app): State<App>) -> Response {
    if !app.cluster().view().read(|state| app.settings(state).metrics_enabled) {
        let text = "the configuration switches metrics off (metrics.enabled)";
        return ApiError::not_found("METRICS_DISABLED", text).into_response();
    }
    let status = app.cluster().status().await;
    let book = Book::open(&app);
    let mut page = Page(String::with_capacity(16 * 1024));
    write_cluster(&mut page, &status);
    write_proposals(&mut page, &app.cluster().metrics());
    let view = app.cluster().view();
    let few = view.read(|state| state.waiting_len() <= COUNTED_MAX);
    let waiting = if few { Some(queue_depths::count(view).await) } else { None };
    view.read(|state| {
        write_tasks(&mut page, state);
        write_nodes(&mut page, state, &book);
        app.task_stats().write_node_failures(&mut page, state);
        agents::write_state(&mut page, state);
        campaigns::write_state(&mut page, state);
        bots::write_state(&mut page, state);
    });
    agents::write_counted(&mut page, &app, waiting.as_ref());
    write_host(&mut page, app.host().usage());
    let uptime = app.uptime().as_secs_f64();
    page.one("quorate_uptime_seconds", "gauge", "Time since this member's API started.", uptime);
    app.task_stats().write_prometheus(&mut page);
    app.stats().write_prometheus(&mut page.0);
    for source in &app.options().metrics {
        source(&mut page.0);
    }
    let mut response = Response::new(Body::from(page.0));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn write_cluster(page: &mut Page, status: &ClusterStatus) {
    let leads = u8::from(status.leader == Some(status.member_id));
    page.one("quorate_raft_term", "gauge", "Raft term of this member.", status.term);
    page.one("quorate_raft_is_leader", "gauge", "1 on the leader.", leads);
    let has_leader = u8::from(status.leader.is_some());
    page.one("quorate_raft_has_leader", "gauge", "1 when a leader is known.", has_leader);
    page.one("quorate_cluster_quorum", "gauge", "Voters needed to decide.", status.quorum);
    let tolerance = status.failure_tolerance;
    page.one(
        "quorate_cluster_failure_tolerance",
        "gauge",
        "Voters that may still fail.",
        tolerance,
    );
    let stopped = u8::from(status.ended.is_some());
    page.one("quorate_member_stopped", "gauge", "1 when this member serves nobody.", stopped);
    let rows = || status.members.iter().map(|member| (member, member.id.to_string()));
    page.family("quorate_member_up", "gauge", "1 for members that answer this one.");
    for (member, id) in rows() {
        let up = u8::from(!matches!(member.state, "unreachable" | "diverged" | "stopped"));
        let labels = [("member", id.as_str()), ("role", member.role), ("state", member.state)];
        page.line("quorate_member_up", &labels, up);
    }
    page.family("quorate_raft_last_log_index", "gauge", "Newest log entry, by member.");
    for (member, id) in rows() {
        page.line("quorate_raft_last_log_index", &[("member", &id)], member.last_log);
    }
    page.family("quorate_raft_applied_index", "gauge", "Newest applied entry, by member.");
    for (member, id) in rows() {
        page.line("quorate_raft_applied_index", &[("member", &id)], member.applied);
    }
    page.family("quorate_raft_lag_entries", "gauge", "Entries behind the newest, by member.");
    for (member, id) in rows() {
        page.line("quorate_raft_lag_entries", &[("member", &id)], member.lag);
    }
}

fn write_proposals(page: &mut Page, metrics: &ClusterMetrics) {
    for (name, help, value) in [
        ("leader_changes", "Times another leader was seen.", metrics.leader_changes),
        ("proposals", "Commands proposed through this member.", metrics.proposals),
        ("proposal_retries", "Further tries of proposals.", metrics.retries),
        ("proposals_unknown", "Proposals that ended unknown.", metrics.unknown),
        ("proposals_overloaded", "Proposals refused as too many.", metrics.overloaded),
        ("proposals_forwarded", "Proposals sent on to the leader.", metrics.forwarded),
        ("entries", "Log entries written as leader.", metrics.entries),
        ("entry_bytes", "Bytes of those entries.", metrics.entry_bytes),
        ("reads", "Reads admitted or refused.", metrics.reads),
        ("read_rounds", "Rounds that confirmed linearizable reads.", metrics.read_rounds),
    ] {
        page.one(&format!("quorate_raft_{name}_total"), "counter", help, value);
    }
}

fn write_tasks(page: &mut Page, state: &Tables) {
    let counters = *state.counters();
    page.family("quorate_tasks", "gauge", "Retained tasks by status.");
    for status in TaskStatus::ALL {
        page.line("quorate_tasks", &[("status", status.as_str())], state.tasks_in(status));
    }
    page.family("quorate_tasks_total", "counter", "Tasks since the cluster began, by their end.");
    for (status, count) in [
        ("submitted", counters.tasks_submitted),
        ("completed", counters.tasks_completed),
        ("failed", counters.tasks_failed),
        ("cancelled", counters.tasks_cancelled),
    ] {
        page.line("quorate_tasks_total", &[("status", status)], count);
    }
    let pending = summary(state).pending_count;
    page.one("web4ai_pending_tasks", "gauge", "Tasks that wait.", pending);
    let rate = success_rate(state);
    page.one("web4ai_task_success_rate", "gauge", "Completed of all ended tasks, 0 to 1.", rate);
    let attempts = counters.attempts;
    page.one("quorate_task_attempts_total", "counter", "Attempts placed on nodes.", attempts);
    let retries = counters.retries;
    page.one("quorate_task_retries_total", "counter", "Attempts that were tried again.", retries);
    let seconds = counters.response_ms_total as f64 / 1000.0;
    let name = "quorate_task_response_seconds";
    page.family(name, "summary", "Time from acceptance to result of completed tasks.");
    page.line("quorate_task_response_seconds_sum", &[], seconds);
    page.line("quorate_task_response_seconds_count", &[], counters.tasks_completed);
    let requests = state.requests_len();
    page.one("quorate_requests_remembered", "gauge", "Answers kept for retries.", requests);
    let revision = state.config().revision;
    page.one("quorate_config_revision", "gauge", "Revision of the configuration.", revision);
}

fn write_nodes(page: &mut Page, state: &Tables, book: &Book) {
    let counts = ByStatus::count(state);
    page.family("quorate_nodes", "gauge", "Registered nodes by status.");
    for status in NodeStatus::ALL {
        page.line("quorate_nodes", &[("status", status.as_str())], counts.of(status));
    }
    let active = counts.of(NodeStatus::Active);
    page.one("web4ai_active_nodes", "gauge", "Nodes that take work.", active);
    let load = means(state, book).load;
    page.one("web4ai_network_utilization", "gauge", "Mean load score of all nodes, 0 to 1.", load);
    let percent = |milli: u32| f64::from(milli) / 1000.0;
    page.family("web4ai_node_cpu_usage", "gauge", "Percent, as the node reports it.");
    for node in state.nodes() {
        let load = book.of(node).load.unwrap_or(node.load);
        let labels = [("node_id", node.node_id.as_str())];
        page.line("web4ai_node_cpu_usage", &labels, percent(load.cpu_milli));
    }
    page.family("web4ai_node_memory_usage", "gauge", "Percent, as the node reports it.");
    for node in state.nodes() {
        let load = book.of(node).load.unwrap_or(node.load);
        let labels = [("node_id", node.node_id.as_str())];
        page.line("web4ai_node_memory_usage", &labels, percent(load.memory_milli));
    }
    let name = "quorate_node_attempts_failed_total";
    page.family(name, "counter", "Attempts that failed on the node.");
    for node in state.nodes() {
        page.line(name, &[("node_id", node.node_id.as_str())], node.tasks_failed);
    }
}

fn write_host(page: &mut Page, usage: HostUsage) {
    for (name, help, value) in [
        ("cpu", "CPU of the member's machine in use, in percent.", usage.cpu_usage),
        ("memory", "Memory of the member's machine in use, in percent.", usage.memory_usage),
        ("disk", "The disk that holds the data, in percent of what it has.", usage.disk_usage),
    ] {
        page.one(&format!("quorate_host_{name}_usage_percent"), "gauge", help, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page(String::new());
        page.line("x", &[("a", "q\"b\\c\nd"), ("e", "f")], 1.5);
        assert_eq!(page.0, "x{a=\"q\\\"b\\\\c\\nd\",e=\"f\"} 1.5\n");
    }
}
