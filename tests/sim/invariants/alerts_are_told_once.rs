//! Every transition of an alert makes one delivery, however many leaders see it coming, and that one is
//! posted at least once.
//!
//! Source: issue 4, "exactly one notification per alert transition across failovers"; contract 2.11.

use std::collections::BTreeMap;

use quorate::state::Fact;

use super::events_are_the_same::Events;

/// By alert and transition: the number of the delivery that told it.
#[derive(Default)]
pub(super) struct Alerts(BTreeMap<(String, u64), u64>);

impl Alerts {
    pub(super) fn posted(
        &mut self,
        delivery_id: u64,
        alert_id: &str,
        transition: u64,
    ) -> Result<(), String> {
        let key = (alert_id.to_owned(), transition);
        let known = *self.0.entry(key).or_insert(delivery_id);
        if known == delivery_id {
            return Ok(());
        }
        Err(format!("transition {transition} of {alert_id} was told as {known} and {delivery_id}"))
    }

    /// When nothing is due any more.
    pub(super) fn check(&self, events: &Events) -> Result<(), String> {
        let mut transitions: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, fact) in events.iter() {
            if let Fact::AlertChanged { alert_id, .. } = fact {
                *transitions.entry(alert_id).or_default() += 1;
            }
        }
        for (alert_id, changed) in transitions {
            let told = self.0.keys().filter(|(told, _)| told == alert_id);
            let told: Vec<u64> = told.map(|(_, transition)| *transition).collect();
            if !told.iter().copied().eq(1..=changed) {
                return Err(format!("{alert_id} changed {changed} times, and {told:?} was told"));
            }
        }
        Ok(())
    }
}
