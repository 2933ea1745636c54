//! `GET /api/v1/dashboard/alerts`: what is wrong right now, judged by the figures of the answer.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::api::App;
use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::reply;
use crate::api::web4ai::figures::{NetworkMetrics, network_metrics};
use crate::api::web4ai::nodes::Book;
use crate::api::wire_time::iso;
use crate::model::{Alert, AlertState, TimeMs};

/// Share of completed tasks below which something is wrong.
const SUCCESS_LOW: f64 = 0.9;
/// Mean response time above which something is wrong, in milliseconds.
const RESPONSE_SLOW_MS: f64 = 5000.0;
/// Utilization above which the fleet is short of nodes.
const UTILIZATION_HIGH: f64 = 0.85;

/// One alert on the wire. Whoever else has alerts to show writes them in this shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::api) struct AlertView {
    pub(in crate::api) id: String,
    #[serde(rename = "type")]
    pub(in crate::api) kind: &'static str,
    pub(in crate::api) title: String,
    pub(in crate::api) message: String,
    pub(in crate::api) timestamp: String,
    pub(in crate::api) severity: &'static str,
}

#[derive(Serialize)]
struct Reply {
    success: bool,
    alerts: Vec<AlertView>,
    total_alerts: usize,
}

/// The four alerts that follow from the figures alone.
pub(in crate::api) fn computed(metrics: &NetworkMetrics, now: TimeMs) -> Vec<AlertView> {
    let percent = |share: f64| share * 100.0;
    let (success, response) = (metrics.success_rate, metrics.average_response_time);
    let utilization = metrics.network_utilization;
    let all = [
        (
            metrics.active_nodes == 0,
            ("no_nodes", "critical", "No Active Nodes"),
            format!("None of {} registered nodes is active", metrics.total_nodes),
        ),
        (
            success < SUCCESS_LOW,
            ("low_success_rate", "warning", "Low Success Rate"),
            format!("{:.1} % of the ended tasks completed", percent(success)),
        ),
        (
            response > RESPONSE_SLOW_MS,
            ("high_response_time", "warning", "High Response Time"),
            format!("Tasks take {response:.0} ms on average"),
        ),
        (
            utilization > UTILIZATION_HIGH,
            ("high_utilization", "warning", "High Network Utilization"),
            format!("The nodes are utilized to {:.1} %", percent(utilization)),
        ),
    ];
    let firing = all.into_iter().filter(|(fires, ..)| *fires);
    let view = |(_, (id, severity, title), message): (bool, (&str, &'static str, &str), String)| {
        AlertView {
            id: id.to_owned(),
            kind: severity,
            title: title.to_owned(),
            message,
            timestamp: iso(now),
            severity,
        }
    };
    firing.map(view).collect()
}

/// An alert that the leader raised and that is not over.
fn recorded(alert: &Alert) -> Option<AlertView> {
    (alert.state != AlertState::Resolved).then(|| AlertView {
        id: alert.alert_id.clone(),
        kind: alert.severity.as_str(),
        title: alert.metric.replace('_', " "),
        message: alert.message.clone(),
        timestamp: iso(alert.since_ms),
        severity: alert.severity.as_str(),
    })
}

/// `GET /api/v1/dashboard/alerts`.
pub(in crate::api) async fn alerts(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let mut stamp = app.admit(&params).await?;
    let book = Book::open(&app);
    let alerts = app.show(&mut stamp, |state| {
        let mut alerts = computed(&network_metrics(&app, state, &book), book.now());
        alerts.extend(state.alerts().filter_map(recorded));
        alerts
    });
    let total_alerts = alerts.len();
    Ok(reply::read(&stamp, reply::encode(&Reply { success: true, alerts, total_alerts })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(metrics: &NetworkMetrics) -> Vec<String> {
        computed(metrics, 0).into_iter().map(|alert| alert.id).collect()
    }

    #[test]
    fn contract_2_3_the_four_alerts_at_their_thresholds() {
        let calm = || NetworkMetrics {
            total_nodes: 1,
            active_nodes: 1,
            total_agents: 0,
            tasks_completed: 9,
            tasks_failed: 1,
            average_response_time: 5000.0,
            network_utilization: 0.85,
            uptime: 1.0,
            throughput_per_minute: 0.0,
            success_rate: 0.9,
            overall_efficiency: 90.0,
        };
        assert_eq!(ids(&calm()), [""; 0]);
        let none = NetworkMetrics { active_nodes: 0, ..calm() };
        assert_eq!(ids(&none), ["no_nodes"]);
        assert_eq!(computed(&none, 0)[0].severity, "critical");
        let all = NetworkMetrics {
            active_nodes: 0,
            average_response_time: 5000.1,
            network_utilization: 0.851,
            success_rate: 0.899,
            ..calm()
        };
        let expected = ["no_nodes", "low_success_rate", "high_response_time", "high_utilization"];
        assert_eq!(ids(&all), expected);
        assert!(computed(&all, 0)[1..].iter().all(|alert| alert.severity == "warning"));
    }
}
