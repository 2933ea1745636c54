//! Alerts: one row each, and one delivery per channel for every transition (contract 2.11).
//!
//! A transition and its deliveries are one entry, and a plan names the transitions it saw. So there is
//! exactly one notification per transition and channel, however many leaders have seen it coming.
//! A mail's delivery says what is told; who is told, and with which password, is read when it is sent.

use serde_json::{Value, json};

use super::apply::Txn;
use super::command::AlertChange;
use super::mail::letter;
use super::{Fact, Outcome, Rejection, Reply, State};
use crate::model::{Alert, AlertState, DeliveryBody, Epoch, iso};

/// Alerts remembered; resolved ones beyond it are forgotten, the oldest first.
pub(super) const ALERTS_MAX: usize = 1000;
/// The longest time for which nobody is told of an alert.
pub const SUPPRESSED_MAX_MS: u64 = 7 * 86_400_000;

impl State {
    /// All alerts that are remembered, by id.
    pub fn alerts(&self) -> impl DoubleEndedIterator<Item = &Alert> {
        self.alerts.iter().map(|(_, alert)| alert)
    }

    /// One alert.
    #[must_use]
    pub fn alert(&self, alert_id: &str) -> Option<&Alert> {
        self.alerts.get(&alert_id.to_owned())
    }
}

impl Txn<'_> {
    pub(super) fn record_alerts(&mut self, epoch: Epoch, changes: Vec<AlertChange>) -> Reply {
        self.check_epoch(epoch)?;
        Self::check_batch(changes.len())?;
        let (mut accepted, mut stale) = (0, 0);
        for change in changes {
            if self.record_alert(change) {
                accepted += 1;
            } else {
                stale += 1;
            }
        }
        Ok(Outcome::Judged { accepted, stale })
    }

    fn record_alert(&mut self, change: AlertChange) -> bool {
        let known = self.state.alert(&change.alert_id);
        let seen = known.map_or(0, |alert| alert.transitions);
        let was_on = known.is_some_and(|alert| alert.state != AlertState::Resolved);
        let until_ms = known.map_or(0, |alert| alert.suppressed_until_ms);
        let is_silent = until_ms > self.now;
        let is_over =
            known.is_some_and(|alert| alert.state == AlertState::Suppressed) && !is_silent;
        let same = known.is_some_and(|alert| was_on && alert.severity == change.severity);
        let legal = match change.state {
            // Raised, of another severity than before, or to be told again.
            AlertState::Active => !same || is_over,
            AlertState::Resolved => was_on,
            AlertState::Acknowledged | AlertState::Suppressed => false,
        };
        if seen != change.seen_transitions || !legal {
            return false;
        }
        let since_ms = known.filter(|_| was_on).map_or(self.now, |alert| alert.since_ms);
        let by = known.filter(|_| change.state == AlertState::Resolved);
        let alert = Alert {
            alert_id: change.alert_id,
            metric: change.metric,
            severity: change.severity,
            state: match change.state {
                AlertState::Active if is_silent => AlertState::Suppressed,
                state => state,
            },
            value_milli: change.value_milli,
            threshold_milli: change.threshold_milli,
            message: change.message,
            since_ms,
            changed_at_ms: self.now,
            acknowledged_by: by.map(|alert| alert.acknowledged_by.clone()).unwrap_or_default(),
            transitions: seen + 1,
            suppressed_until_ms: if is_silent { until_ms } else { 0 },
        };
        self.put_alert(alert);
        self.forget_old_alerts();
        true
    }

    pub(super) fn acknowledge_alert(&mut self, alert_id: &str, by: String) -> Reply {
        let alert = self.state.alert(alert_id).ok_or(Rejection::AlertNotFound)?.clone();
        match alert.state {
            AlertState::Resolved => Err(Rejection::AlertResolved),
            AlertState::Acknowledged => Ok(Outcome::Done),
            AlertState::Active | AlertState::Suppressed => {
                let transitions = alert.transitions + 1;
                self.put_alert(Alert {
                    state: AlertState::Acknowledged,
                    acknowledged_by: by,
                    changed_at_ms: self.now,
                    transitions,
                    ..alert
                });
                Ok(Outcome::Done)
            }
        }
    }

    pub(super) fn suppress_alert(&mut self, alert_id: &str, by: String, for_ms: u64) -> Reply {
        let alert = self.state.alert(alert_id).ok_or(Rejection::AlertNotFound)?.clone();
        if alert.state == AlertState::Resolved {
            return Err(Rejection::AlertResolved);
        }
        let transitions = alert.transitions + 1;
        self.put_alert(Alert {
            state: AlertState::Suppressed,
            acknowledged_by: by,
            changed_at_ms: self.now,
            transitions,
            suppressed_until_ms: self.now.saturating_add(for_ms.min(SUPPRESSED_MAX_MS)),
            ..alert
        });
        Ok(Outcome::Done)
    }

    fn put_alert(&mut self, alert: Alert) {
        if alert.suppressed_until_ms <= self.now {
            for (kind, url, body) in notifications(self.state, &alert) {
                self.deliver(kind, url, DeliveryBody::Text(body));
            }
        }
        let (alert_id, state, severity) = (alert.alert_id.clone(), alert.state, alert.severity);
        self.state.alerts.put(&mut self.state.rows, alert_id.clone(), alert);
        self.facts.push(Fact::AlertChanged { alert_id, state, severity });
    }

    fn forget_old_alerts(&mut self) {
        while self.state.alerts.len() > ALERTS_MAX {
            let resolved = self.state.alerts().filter(|alert| alert.state == AlertState::Resolved);
            let oldest = resolved.min_by_key(|alert| alert.changed_at_ms);
            let Some(alert_id) = oldest.map(|alert| alert.alert_id.clone()) else { return };
            self.state.alerts.remove(&mut self.state.rows, &alert_id);
        }
    }
}

/// Thousandths as people read them. Integers, because no float may decide anything here.
pub(super) fn decimal(milli: u64) -> String {
    format!("{}.{:03}", milli / 1000, milli % 1000)
}

/// The same as a number of JSON, which nothing is decided by.
fn number(milli: u64) -> Value {
    serde_json::from_str(&decimal(milli)).unwrap_or_default()
}

/// An alert as its receivers are told of it: as `GET /api/v1/alerts` has it, and the number of the
/// transition.
pub(super) fn described(alert: &Alert) -> Value {
    json!({
        "id": alert.alert_id, "metric": alert.metric, "severity": alert.severity.as_str(),
        "status": alert.state.as_str(), "value": number(alert.value_milli),
        "threshold": number(alert.threshold_milli), "message": alert.message,
        "acknowledged_by": alert.acknowledged_by, "since": iso(alert.since_ms),
        "since_ms": alert.since_ms, "transition": alert.transitions,
    })
}

/// What goes where. The webhook's shape is upstream's: `{alert, timestamp, source}`.
fn notifications(state: &State, alert: &Alert) -> Vec<(&'static str, String, String)> {
    let policy = state.policy();
    let mut all = Vec::new();
    if let Some(url) = &policy.alert_webhook {
        let body = json!({
            "alert": described(alert),
            // Alerts have their times as text (contract 1.7).
            "timestamp": iso(alert.changed_at_ms),
            "source": "web4ai_orchestrator",
        });
        all.push(("alert", url.clone(), body.to_string()));
    }
    if let Some(url) = &policy.alert_slack {
        let text = format!(
            "[{}] {} {}: {} (value {}, threshold {})",
            alert.severity.as_str(),
            alert.alert_id,
            alert.state.as_str(),
            alert.message,
            decimal(alert.value_milli),
            decimal(alert.threshold_milli),
        );
        let body = match &policy.alert_slack_channel {
            Some(channel) => json!({ "text": text, "channel": channel }),
            None => json!({ "text": text }),
        };
        all.push(("slack", url.clone(), body.to_string()));
    }
    if let Some(channel) = &policy.alert_email {
        all.push(("email", channel.url(), letter(state, alert)));
    }
    all
}
