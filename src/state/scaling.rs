//! Decisions of the autoscaler: recorded, one per rule and cool-down, whoever leads (contract 2.10).

use serde_json::json;

use super::apply::Txn;
use super::{Fact, Outcome, Reply, State};
use crate::model::{DeliveryBody, Epoch, ScalingEvent};

/// Decisions remembered (contract 2.10); the oldest are forgotten first.
pub(super) const SCALINGS_MAX: usize = 100;

impl State {
    /// The decisions that are remembered, oldest first.
    pub fn scalings(&self) -> impl DoubleEndedIterator<Item = &ScalingEvent> {
        self.scalings.iter().map(|(_, event)| event)
    }

    /// The newest decision of one rule.
    #[must_use]
    pub fn last_scaling(&self, rule: &str) -> Option<&ScalingEvent> {
        self.scalings().rev().find(|event| event.rule == rule)
    }
}

/// Thousandths as the number that they stand for.
fn milli(value: u64) -> serde_json::Value {
    let text = format!("{}.{:03}", value / 1000, value % 1000);
    text.parse().unwrap_or_default()
}

impl Txn<'_> {
    pub(super) fn record_scaling(
        &mut self,
        epoch: Epoch,
        event: ScalingEvent,
        cooldown_ms: u64,
    ) -> Reply {
        self.check_epoch(epoch)?;
        let rests = self
            .state
            .last_scaling(&event.rule)
            .is_some_and(|last| last.at_ms.saturating_add(cooldown_ms) > self.now);
        if rests {
            return Ok(Outcome::Judged { accepted: 0, stale: 1 });
        }
        let number = self.state.scalings().next_back().map_or(1, |last| last.number + 1);
        let event = ScalingEvent { number, at_ms: self.now, outcome: None, ..event };
        if let Some(url) = self.state.policy().scaling_webhook.clone() {
            let body = json!({
                "event": {
                    "number": number, "action": event.action.as_str(), "rule_name": event.rule,
                    "current_nodes": event.current_nodes, "target_nodes": event.target_nodes,
                    "metric_value": milli(event.metric_milli),
                    "threshold_value": milli(event.threshold_milli),
                    "reason": event.reason, "nodes": event.nodes, "provider": event.provider,
                },
                "timestamp": self.now / 1000,
                "source": "web4ai_orchestrator",
            });
            self.deliver("scaling", url, DeliveryBody::Text(body.to_string()));
        }
        let (action, target_nodes) = (event.action, event.target_nodes);
        self.state.scalings.put(&mut self.state.rows, number, event);
        while self.state.scalings.len() > SCALINGS_MAX {
            let Some(oldest) = self.state.scalings().next().map(|event| event.number) else {
                break;
            };
            self.state.scalings.remove(&mut self.state.rows, &oldest);
        }
        self.facts.push(Fact::ScalingDecided { number, action, target_nodes });
        Ok(Outcome::Judged { accepted: 1, stale: 0 })
    }

    pub(super) fn record_scaling_outcome(
        &mut self,
        epoch: Epoch,
        number: u64,
        outcome: String,
    ) -> Reply {
        self.check_epoch(epoch)?;
        let State { scalings, rows, .. } = &mut *self.state;
        let open = scalings.get(&number).is_some_and(|event| event.outcome.is_none());
        if open {
            scalings.edit(rows, &number, |event| event.outcome = Some(outcome));
        }
        let accepted = u32::from(open);
        Ok(Outcome::Judged { accepted, stale: 1 - accepted })
    }
}
