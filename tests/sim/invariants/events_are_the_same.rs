//! The event at a position is the same whichever member tells it, and whoever follows gets them in
//! order.
//!
//! Source: docs/architecture.md, "the last events"; etcd's watch bugs (#15271, #17529, #20221).

use std::collections::BTreeMap;

use futures::FutureExt;
use quorate::state::Fact;
use quorate::storage::{EventBatch, EventFollower, EventPosition};

use super::Process;

/// Everything that was told, by all members together.
#[derive(Default)]
pub(super) struct Events {
    all: BTreeMap<EventPosition, Fact>,
    /// Those that nobody had told before.
    new: Vec<Fact>,
}

impl Events {
    /// One fact per index, from 1: a history made by hand, for the tests of what reads it.
    pub(super) fn made(facts: impl IntoIterator<Item = Fact>) -> Self {
        let all = (1..).map(|index| (index, 0)).zip(facts).collect();
        Self { all, new: Vec::new() }
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
