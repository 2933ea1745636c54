//! Every transition of an alert makes one delivery, however many leaders see it coming; that one is posted
//! at least once and says what the alert became. An alert is acknowledged at most once while it is as
//! bad as it was, and not when it is over.
//!
//! Source: issue 4, "exactly one notification per alert transition across failovers"; contract 2.11.

use std::collections::BTreeMap;

use quorate::model::{AlertState, Severity};
use quorate::state::Fact;

use super::events_are_the_same::Events;

/// By alert and transition: the number of the delivery that told it, and what it told.
#[derive(Default)]
pub(super) struct Alerts(BTreeMap<(String, u64), (u64, String)>);

impl Alerts {
    pub(super) fn posted(
        &mut self,
        delivery_id: u64,
        alert_id: &str,
        transition: u64,
        state: &str,
    ) -> Result<(), String> {
        let key = (alert_id.to_owned(), transition);
        let told = (delivery_id, state.to_owned());
        let known = self.0.entry(key).or_insert_with(|| told.clone());
        if *known == told {
            return Ok(());
        }
        Err(format!("transition {transition} of {alert_id} was told as {known:?} and {told:?}"))
    }

    /// When nothing is due any more.
    pub(super) fn check(&self, events: &Events) -> Result<(), String> {
        let mut changes: BTreeMap<&str, Vec<(AlertState, Severity)>> = BTreeMap::new();
        for (at, fact) in events.iter() {
            if let Fact::AlertChanged { alert_id, state, severity } = fact {
                let changes = changes.entry(alert_id).or_default();
                if !may_follow(changes.last().copied(), (*state, *severity)) {
                    return Err(format!("at {at:?} {alert_id} was {changes:?}: {fact:?}"));
                }
                changes.push((*state, *severity));
            }
        }
        for (alert_id, changes) in changes {
            let told = self.0.iter().filter(|((told, _), _)| told == alert_id);
            let told = told.map(|((_, transition), (_, state))| (*transition, state.as_str()));
            let changed = (1..).zip(changes.iter().map(|(state, _)| state.as_str()));
            if !told.clone().eq(changed) {
                let told: Vec<_> = told.collect();
                return Err(format!("{alert_id} became {changes:?}, and {told:?} was told"));
            }
        }
        Ok(())
    }
}

/// Whether an alert may become `next` after what it was.
fn may_follow(last: Option<(AlertState, Severity)>, next: (AlertState, Severity)) -> bool {
    match (last, next) {
        (None | Some((AlertState::Resolved, _)), (state, _)) => state == AlertState::Active,
        (Some(_), (AlertState::Resolved, _)) => true,
        (Some((_, was)), (AlertState::Active, is)) => was != is,
        (Some((state, was)), (AlertState::Acknowledged, is)) => {
            state == AlertState::Active && was == is
        }
        // Nobody asks for that here.
        (Some(_), (AlertState::Suppressed, _)) => false,
    }
}

#[test]
fn an_alert_that_moves_as_none_may_is_found_and_one_that_was_told_wrongly() {
    use AlertState::{Acknowledged, Active, Resolved};
    use Severity::{Critical, Warning};
    let check = |moves: &[(AlertState, Severity)], told: &[AlertState]| {
        let changed = |&(state, severity): &(AlertState, Severity)| {
            let alert_id = "a".to_owned();
            Fact::AlertChanged { alert_id, state, severity }
        };
        let mut alerts = Alerts::default();
        for (transition, state) in (1..).zip(told) {
            alerts.posted(transition, "a", transition, state.as_str()).unwrap();
        }
        alerts.check(&Events::made(moves.iter().map(changed))).is_ok()
    };
    let moves = [(Active, Warning), (Acknowledged, Warning), (Active, Critical)];
    assert!(check(&moves, &[Active, Acknowledged, Active]));
    assert!(!check(&moves, &[Active, Acknowledged]), "one was not told");
    assert!(!check(&moves, &[Active, Resolved, Active]), "one was told as another");
    let twice = [(Active, Warning), (Acknowledged, Warning), (Acknowledged, Warning)];
    assert!(!check(&twice, &[Active, Acknowledged, Acknowledged]));
    assert!(!check(&[(Active, Warning), (Active, Warning)], &[Active, Active]));
    assert!(!check(&[(Acknowledged, Warning)], &[Acknowledged]));
}
