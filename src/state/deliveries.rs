//! Deliveries: what the leader posts to URLs outside. A delivery is queued by apply, in the same entry
//! as what it tells of, so there is exactly one of each; posting it is at least once.

use super::apply::Txn;
use super::command::DeliveryResult;
use super::{Fact, Outcome, Reply, State};
use crate::model::{Delivery, DeliveryBody, DeliveryId, DeliveryState, Epoch, TaskId, TimeMs};

/// Deliveries remembered after their end; the oldest are forgotten first.
pub const ENDED_DELIVERIES_MAX: usize = 10_000;
/// Deliveries that may be due at once. One more takes the place of the oldest, which counts as given up.
pub const DUE_DELIVERIES_MAX: usize = 200_000;
/// The waits between tries double up to this one.
const WAIT_MAX_MS: TimeMs = 300_000;

impl State {
    /// All deliveries that are remembered, oldest first.
    pub fn deliveries(&self) -> impl DoubleEndedIterator<Item = &Delivery> {
        self.deliveries.iter().map(|(_, delivery)| delivery)
    }

    /// How many are remembered.
    #[must_use]
    pub fn deliveries_len(&self) -> usize {
        self.deliveries.len()
    }

    /// Those behind the number `after` in the order of their numbers, which is that of their making,
    /// or in the other direction; all of them without one.
    pub fn deliveries_behind(
        &self,
        after: Option<DeliveryId>,
        descending: bool,
    ) -> Box<dyn Iterator<Item = &Delivery> + '_> {
        if descending {
            let last = after.map_or(DeliveryId::MAX, |after| after.saturating_sub(1));
            Box::new(self.deliveries.range(0, last).rev().map(|(_, delivery)| delivery))
        } else {
            Box::new(self.deliveries.after(after).map(|(_, delivery)| delivery))
        }
    }

    /// One delivery.
    #[must_use]
    pub fn delivery(&self, delivery_id: DeliveryId) -> Option<&Delivery> {
        self.deliveries.get(&delivery_id)
    }

    /// Whether somebody is still to be told of the end of this task. It is rendered when it is posted,
    /// so until then the task stays as it ended.
    #[must_use]
    pub fn is_untold(&self, task_id: &TaskId) -> bool {
        self.untold.contains(task_id)
    }

    fn keep_end(&mut self, task_id: &TaskId, untold: bool) {
        let end = self.task(task_id).map(|task| ((task.completed_at_ms, task.seq), task.rows()));
        if let Some((end, rows)) = end {
            self.indexes.keep_end(end, rows, untold);
        }
    }

    pub(super) fn note_delivery(&mut self, delivery: &Delivery) {
        if delivery.state == DeliveryState::Due {
            if let DeliveryBody::Task(task_id) = &delivery.body {
                self.untold.insert(task_id.clone());
                self.keep_end(task_id, true);
            }
            self.due.insert(delivery);
        } else {
            self.ended_deliveries.insert(delivery.delivery_id);
        }
    }
}

impl Txn<'_> {
    /// Queues something to be posted.
    pub(super) fn deliver(&mut self, kind: &str, url: String, body: DeliveryBody) {
        if self.state.due.len() >= DUE_DELIVERIES_MAX
            && let Some(oldest) = self.state.due.oldest()
        {
            let error = Some("too many deliveries were due".to_owned());
            self.end_delivery(oldest, DeliveryState::GivenUp, error);
        }
        let delivery_id = self.state.counters().deliveries + 1;
        self.state.edit_counters(|counters| counters.deliveries = delivery_id);
        let delivery = Delivery {
            delivery_id,
            kind: kind.to_owned(),
            url,
            body,
            state: DeliveryState::Due,
            tries: 0,
            not_before_ms: self.now,
            created_at_ms: self.now,
            ended_at_ms: 0,
            error: None,
        };
        self.state.note_delivery(&delivery);
        self.state.deliveries.put(&mut self.state.rows, delivery_id, delivery);
        self.facts.push(Fact::DeliveryQueued { delivery_id });
    }

    pub(super) fn record_deliveries(
        &mut self,
        epoch: Epoch,
        results: Vec<DeliveryResult>,
    ) -> Reply {
        self.check_epoch(epoch)?;
        Self::check_batch(results.len())?;
        let (mut accepted, mut stale) = (0, 0);
        for result in results {
            if self.record_delivery(result) {
                accepted += 1;
            } else {
                stale += 1;
            }
        }
        Ok(Outcome::Judged { accepted, stale })
    }

    fn record_delivery(&mut self, result: DeliveryResult) -> bool {
        let DeliveryResult { delivery_id, seen_tries, error, for_good } = result;
        let Some(delivery) = self.state.delivery(delivery_id) else { return false };
        if delivery.state != DeliveryState::Due || delivery.tries != seen_tries {
            return false;
        }
        let policy = self.state.policy();
        let (tries_max, first_wait) = (policy.delivery_tries, policy.retry_delay_ms);
        let tries = delivery.tries + 1;
        if error.is_none() {
            self.end_delivery(delivery_id, DeliveryState::Delivered, None);
        } else if for_good || tries >= tries_max {
            self.end_delivery(delivery_id, DeliveryState::GivenUp, error);
        } else {
            let wait = first_wait.saturating_mul(1 << (tries - 1).min(16)).min(WAIT_MAX_MS);
            let not_before_ms = self.now.saturating_add(wait);
            let State { deliveries, rows, due, .. } = &mut *self.state;
            deliveries.edit(rows, &delivery_id, |delivery| {
                due.remove(delivery);
                delivery.tries = tries;
                delivery.error = error;
                delivery.not_before_ms = not_before_ms;
                due.insert(delivery);
            });
        }
        true
    }

    fn end_delivery(&mut self, delivery_id: DeliveryId, end: DeliveryState, error: Option<String>) {
        let now = self.now;
        let State { deliveries, rows, due, .. } = &mut *self.state;
        let told = deliveries.edit(rows, &delivery_id, |delivery| {
            due.remove(delivery);
            delivery.state = end;
            delivery.tries += 1;
            delivery.error = error;
            delivery.ended_at_ms = now;
            match &delivery.body {
                DeliveryBody::Task(task_id) => Some(task_id.clone()),
                DeliveryBody::Text(_) => None,
            }
        });
        if let Some(task_id) = told.flatten() {
            self.state.untold.remove(&task_id);
            self.state.keep_end(&task_id, false);
        }
        let State { deliveries, rows, ended_deliveries, .. } = &mut *self.state;
        ended_deliveries.insert(delivery_id);
        while ended_deliveries.len() > ENDED_DELIVERIES_MAX {
            let Some(oldest) = ended_deliveries.pop_first() else { break };
            deliveries.remove(rows, &oldest);
        }
        let delivered = end == DeliveryState::Delivered;
        self.facts.push(Fact::DeliveryEnded { delivery_id, delivered });
    }
}
