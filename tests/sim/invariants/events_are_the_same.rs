//! The event at a position is the same whichever member tells it, and whoever follows gets them in
//! order.
//!
//! Source: docs/architecture.md, "the last events"; etcd's watch bugs (#15271, #17529, #20221).

use std::collections::BTreeMap;

use futures::FutureExt;
use quorate::model::TimeMs;
use quorate::state::Fact;
use quorate::storage::{EventBatch, EventFollower, EventPosition};

use super::Process;

/// Everything that was told, by all members together.
#[derive(Default)]
pub(super) struct Events {
    all: BTreeMap<EventPosition, Fact>,
    /// When each entry was applied, in the time of the state.
    times: BTreeMap<u64, TimeMs>,
    /// Those that nobody had told before.
    new: Vec<Fact>,
}

impl Events {
    /// One fact per index, from 1: a history made by hand, for the tests of what reads it.
    pub(super) fn made(facts: impl IntoIterator<Item = Fact>) -> Self {
        Self::made_at(facts.into_iter().map(|fact| (0, fact)))
    }

    /// As [`Self::made`], each fact at a time.
    pub(super) fn made_at(facts: impl IntoIterator<Item = (TimeMs, Fact)>) -> Self {
        let mut events = Self::default();
        for (index, (at_ms, fact)) in (1..).zip(facts) {
            events.all.insert((index, 0), fact);
            events.times.insert(index, at_ms);
        }
        events
    }

    /// When the entry was applied that this event came from.
    pub(super) fn time_of(&self, position: &EventPosition) -> TimeMs {
        self.times.get(&position.0).copied().unwrap_or_default()
    }

    /// Takes what a member has told since it was last looked at.
    pub(super) fn follow(
        &mut self,
        follower: &mut EventFollower,
        process: Process,
    ) -> Result<(), String> {
        let mut last = follower.seen();
        while let Some(batch) = follower.next(4096).now_or_never() {
            let EventBatch::Events(events) = batch else {
                last = follower.seen();
                continue;
            };
            for event in events {
                let position = (event.index, event.ordinal);
                if position <= last {
                    return Err(format!("{process:?} told {position:?} after {last:?}"));
                }
                last = position;
                self.times.insert(event.index, event.at_ms);
                let known = self.all.entry(position).or_insert_with(|| {
                    self.new.push(event.fact.clone());
                    event.fact.clone()
                });
                if *known != event.fact {
                    let fact = &event.fact;
                    return Err(format!(
                        "at {position:?} {process:?} told {fact:?}, another {known:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// What was told for the first time since this was asked.
    pub(super) fn take_new(&mut self) -> Vec<Fact> {
        std::mem::take(&mut self.new)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&EventPosition, &Fact)> {
        self.all.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}
