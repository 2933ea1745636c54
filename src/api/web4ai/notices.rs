//! What the leader found and told others: alerts, decisions of the autoscaler, deliveries
//! (contract 2.10, 2.11, 6).

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::error::ApiError;
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::api::wire_time::{iso, iso_or_null};
use crate::model::{Alert, Delivery, DeliveryBody, ScalingEvent};
use crate::state::{Command, Outcome};

const LIMIT: u64 = 100;

#[derive(Serialize)]
pub(in crate::api) struct AlertView<'a> {
    id: &'a str,
    metric: &'a str,
    severity: &'static str,
    status: &'static str,
    value: f64,
    threshold: f64,
    message: &'a str,
    since: String,
    changed_at: String,
    acknowledged_by: Option<&'a str>,
    transitions: u64,
}

impl<'a> AlertView<'a> {
    pub(in crate::api) fn of(alert: &'a Alert) -> Self {
        Self {
            id: &alert.alert_id,
            metric: &alert.metric,
            severity: alert.severity.as_str(),
            status: alert.state.as_str(),
            value: alert.value_milli as f64 / 1000.0,
            threshold: alert.threshold_milli as f64 / 1000.0,
            message: &alert.message,
            since: iso(alert.since_ms),
            changed_at: iso(alert.changed_at_ms),
            acknowledged_by: Some(alert.acknowledged_by.as_str()).filter(|by| !by.is_empty()),
            transitions: alert.transitions,
        }
    }
}

#[derive(Serialize)]
struct Alerts<'a> {
    success: bool,
    alerts: Vec<AlertView<'a>>,
    total: usize,
}

/// `GET /api/v1/alerts?status=active|acknowledged|resolved`.
pub(in crate::api) async fn alerts(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let status = params.get("status");
    if status.is_some_and(|word| !["active", "acknowledged", "resolved"].contains(&word)) {
        let text = "status is active, acknowledged or resolved";
        return Err(ApiError::bad_request("INVALID_QUERY", text));
    }
    let mut stamp = app.admit(&params).await?;
    let body = app.show(&mut stamp, |state| {
        let wanted = |alert: &&Alert| status.is_none_or(|wanted| alert.state.as_str() == wanted);
        let alerts: Vec<_> = state.alerts().filter(wanted).map(AlertView::of).collect();
        reply::encode(&Alerts { success: true, total: alerts.len(), alerts })
    });
    Ok(reply::read(&stamp, body))
}

#[derive(Serialize)]
struct Done {
    success: bool,
    message: &'static str,
}

/// `POST /api/v1/alerts/{alert_id}/acknowledge`.
pub(in crate::api) async fn acknowledge(
    State(app): State<App>,
    Path(alert_id): Path<String>,
    ticket: Ticket,
    caller: Caller,
) -> Result<Response, ApiError> {
    let by = if caller.0.is_empty() { "anonymous".to_owned() } else { caller.0.clone() };
    let command = Command::AcknowledgeAlert { alert_id, by };
    let Written { index, outcome } = app.write(ticket, &caller, command).await?;
    let Outcome::Done = outcome else { return Err(key_reused(ticket.request_id)) };
    Ok(reply::written(ticket, index, &Done { success: true, message: "Alert acknowledged" }))
}

#[derive(Serialize)]
struct ScalingView<'a> {
    number: u64,
    timestamp: String,
    action: &'static str,
    rule_name: &'a str,
    current_nodes: u32,
    target_nodes: u32,
    metric_value: f64,
    threshold_value: f64,
    reason: &'a str,
    provider: &'a str,
    outcome: Option<&'a str>,
}

impl<'a> ScalingView<'a> {
    fn of(event: &'a ScalingEvent) -> Self {
        Self {
            number: event.number,
            timestamp: iso(event.at_ms),
            action: event.action.as_str(),
            rule_name: &event.rule,
            current_nodes: event.current_nodes,
            target_nodes: event.target_nodes,
            metric_value: event.metric_milli as f64 / 1000.0,
            threshold_value: event.threshold_milli as f64 / 1000.0,
            reason: &event.reason,
            provider: &event.provider,
            outcome: event.outcome.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct Scalings<'a> {
    success: bool,
    enabled: bool,
    events: Vec<ScalingView<'a>>,
    total: usize,
}

/// `GET /api/v1/scaling/events`, the newest first.
pub(in crate::api) async fn scalings(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.limit(LIMIT)?;
    let mut stamp = app.admit(&params).await?;
    let body = app.show(&mut stamp, |state| {
        let total = state.scalings().count();
        let events = state.scalings().rev().take(limit).map(ScalingView::of).collect();
        let enabled = state.policy().scaling_enabled;
        reply::encode(&Scalings { success: true, enabled, events, total })
    });
    Ok(reply::read(&stamp, body))
}

#[derive(Serialize)]
struct DeliveryView<'a> {
    delivery_id: u64,
    kind: &'a str,
    url: &'a str,
    task_id: Option<&'a str>,
    status: &'static str,
    tries: u32,
    error: Option<&'a str>,
    created_at: String,
    ended_at: Option<String>,
}

impl<'a> DeliveryView<'a> {
    fn of(delivery: &'a Delivery) -> Self {
        let task_id = match &delivery.body {
            DeliveryBody::Task(task_id) => Some(task_id.as_str()),
            DeliveryBody::Text(_) => None,
        };
        // A channel's URL is a secret of its receiver; a callback's is the submitter's own.
        let url = if task_id.is_some() { delivery.url.as_str() } else { "***" };
        Self {
            delivery_id: delivery.delivery_id,
            kind: &delivery.kind,
            url,
            task_id,
            status: delivery.state.as_str(),
            tries: delivery.tries,
            error: delivery.error.as_deref(),
            created_at: iso(delivery.created_at_ms),
            ended_at: iso_or_null(delivery.ended_at_ms),
        }
    }
}

#[derive(Serialize)]
struct Deliveries<'a> {
    success: bool,
    deliveries: Vec<DeliveryView<'a>>,
    due: usize,
    next_cursor: Option<String>,
}

/// `GET /api/v1/deliveries?task_id=&status=due|delivered|given_up&cursor=`, the newest first.
pub(in crate::api) async fn deliveries(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.limit(LIMIT)?;
    let before = match params.get("cursor").filter(|cursor| !cursor.is_empty()) {
        None => u64::MAX,
        Some(cursor) => cursor.parse().map_err(|_| {
            ApiError::bad_request("INVALID_CURSOR", "cursor is what an earlier page gave")
        })?,
    };
    let (task_id, status) = (params.get("task_id"), params.get("status"));
    let mut stamp = app.admit(&params).await?;
    let body = app.show(&mut stamp, |state| {
        let is_of = |body: &DeliveryBody, wanted: &str| match body {
            DeliveryBody::Task(task_id) => task_id.as_str() == wanted,
            DeliveryBody::Text(_) => false,
        };
        let wanted = |delivery: &&Delivery| {
            delivery.delivery_id < before
                && task_id.is_none_or(|wanted| is_of(&delivery.body, wanted))
                && status.is_none_or(|wanted| delivery.state.as_str() == wanted)
        };
        let found = state.deliveries().rev().filter(wanted).take(limit + 1);
        let mut deliveries: Vec<_> = found.map(DeliveryView::of).collect();
        let more = deliveries.len() > limit;
        deliveries.truncate(limit);
        let last = deliveries.last().map(|delivery| delivery.delivery_id.to_string());
        let next_cursor = last.filter(|_| more);
        let due = state.due_deliveries_len();
        reply::encode(&Deliveries { success: true, deliveries, due, next_cursor })
    });
    Ok(reply::read(&stamp, body))
}
