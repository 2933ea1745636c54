//! What the leader found: alerts, and decisions of the autoscaler (contract 2.10, 2.11).

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::api::App;
use crate::api::app::{Written, key_reused};
use crate::api::body::RequestBody;
use crate::api::error::ApiError;
use crate::api::list_query::{ListKind, ListQuery};
use crate::api::listed::{PageView, cut};
use crate::api::object::Object;
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::ticket::{Caller, Ticket};
use crate::api::wire_time::{iso, iso_or_null};
use crate::model::{Alert, NodeId, ScalingEvent};
use crate::state::{Command, Outcome, SUPPRESSED_MAX_MS};

const LIMIT: u64 = 100;
const ALERT_STATES: [&str; 4] = ["active", "acknowledged", "suppressed", "resolved"];
/// How long nobody is told of a suppressed alert when nothing is said, in seconds.
const SUPPRESSED_S: u64 = 3600;

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
    suppressed_until: Option<String>,
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
            suppressed_until: iso_or_null(alert.suppressed_until_ms),
        }
    }
}

const ALERTS: ListKind = ListKind {
    name: "alerts",
    sorts: &["id", "since", "changed_at"],
    descending: false,
    filters: &["status", "severity", "metric"],
    own: &["status"],
};

#[derive(Serialize)]
struct Alerts<'a> {
    success: bool,
    alerts: Vec<AlertView<'a>>,
    /// All that match.
    total: usize,
    #[serde(flatten)]
    page: Option<PageView>,
}

/// The checked parameters of a page, when one is asked for.
fn query_of(app: &App, kind: &ListKind, params: &Params) -> Result<Option<ListQuery>, ApiError> {
    if !kind.asked(params) {
        return Ok(None);
    }
    Ok(Some(ListQuery::parse(kind, params)?.in_cluster(app.cluster().cluster_id())))
}

/// `GET /api/v1/alerts?status=active|acknowledged|suppressed|resolved`.
pub(in crate::api) async fn alerts(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let said = |key: &str| params.get(key).filter(|word| !word.is_empty());
    let status = params.get("status");
    if status.is_some_and(|word| !ALERT_STATES.contains(&word)) {
        let text = "status is active, acknowledged, suppressed or resolved";
        return Err(ApiError::bad_request("INVALID_QUERY", text));
    }
    let mut stamp = app.admit(&params).await?;
    let query = query_of(&app, &ALERTS, &params)?;
    let body = app.show(&mut stamp, |state| {
        let wanted = |alert: &&Alert| {
            status.is_none_or(|wanted| alert.state.as_str() == wanted)
                && said("severity").is_none_or(|wanted| alert.severity.as_str() == wanted)
                && said("metric").is_none_or(|wanted| alert.metric == wanted)
                && query.as_ref().is_none_or(|query| query.window.holds(alert.since_ms))
        };
        let place = |alert: &Alert| match query.as_ref().map(|query| query.sort) {
            Some("since") => (alert.since_ms, alert.alert_id.clone()),
            Some("changed_at") => (alert.changed_at_ms, alert.alert_id.clone()),
            _ => (0, alert.alert_id.clone()),
        };
        let found = state.alerts().filter(wanted);
        let mut rows: Vec<_> = found.map(|alert| (place(alert), alert)).collect();
        let total = rows.len();
        let page = query.as_ref().map(|query| cut(query, &mut rows)).transpose()?;
        let alerts = rows.into_iter().map(|(_, alert)| AlertView::of(alert)).collect();
        Ok::<_, ApiError>(reply::encode(&Alerts { success: true, alerts, total, page }))
    })?;
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

/// `POST /api/v1/alerts/{alert_id}/suppress {"duration": seconds}`: nobody is told of it so long.
pub(in crate::api) async fn suppress(
    State(app): State<App>,
    Path(alert_id): Path<String>,
    ticket: Ticket,
    caller: Caller,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let seconds = Object::parse(&body)?.count("duration")?.unwrap_or(SUPPRESSED_S);
    if !(1..=SUPPRESSED_MAX_MS / 1000).contains(&seconds) {
        let text = format!("duration must be 1 to {} seconds", SUPPRESSED_MAX_MS / 1000);
        return Err(ApiError::bad_request("INVALID_FIELD", text));
    }
    let by = if caller.0.is_empty() { "anonymous".to_owned() } else { caller.0.clone() };
    let command = Command::SuppressAlert { alert_id, by, for_ms: seconds * 1000 };
    let Written { index, outcome } = app.write(ticket, &caller, command).await?;
    let Outcome::Done = outcome else { return Err(key_reused(ticket.request_id)) };
    Ok(reply::written(ticket, index, &Done { success: true, message: "Alert suppressed" }))
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
    nodes: &'a [NodeId],
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
            nodes: &event.nodes,
            outcome: event.outcome.as_deref(),
        }
    }
}

const SCALINGS: ListKind = ListKind {
    name: "scalings",
    sorts: &["number"],
    descending: true,
    filters: &["action", "rule_name", "provider"],
    own: &["limit"],
};

#[derive(Serialize)]
struct Scalings<'a> {
    success: bool,
    enabled: bool,
    events: Vec<ScalingView<'a>>,
    /// All that match.
    total: usize,
    #[serde(flatten)]
    page: Option<PageView>,
}

/// `GET /api/v1/scaling/events`, the newest first.
pub(in crate::api) async fn scalings(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.limit(LIMIT)?;
    let said = |key: &str| params.get(key).filter(|word| !word.is_empty());
    let mut stamp = app.admit(&params).await?;
    let query = query_of(&app, &SCALINGS, &params)?;
    let body = app.show(&mut stamp, |state| {
        let wanted = |event: &&ScalingEvent| {
            said("action").is_none_or(|wanted| event.action.as_str() == wanted)
                && said("rule_name").is_none_or(|wanted| event.rule == wanted)
                && said("provider").is_none_or(|wanted| event.provider == wanted)
                && query.as_ref().is_none_or(|query| query.window.holds(event.at_ms))
        };
        let found = state.scalings().rev().filter(wanted);
        let mut rows: Vec<_> = found.map(|event| ((event.number, String::new()), event)).collect();
        let total = rows.len();
        let page = query.as_ref().map(|query| cut(query, &mut rows)).transpose()?;
        let events = rows.into_iter().take(limit).map(|(_, event)| ScalingView::of(event));
        let (events, enabled) = (events.collect(), state.policy().scaling_enabled);
        Ok::<_, ApiError>(reply::encode(&Scalings { success: true, enabled, events, total, page }))
    })?;
    Ok(reply::read(&stamp, body))
}
