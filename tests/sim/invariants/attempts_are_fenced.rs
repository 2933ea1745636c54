//! A task has at most one live execution; attempts are numbered without a gap; an ended task never
//! changes; an attempt belongs to one node and one epoch, however often it is handed over, and to
//! the epoch that was open where it was placed.
//!
//! Source: docs/architecture.md, "Attempts"; marathon #1553 (duplicated tasks), chronos #371.

use std::collections::BTreeMap;

use quorate::model::Epoch;
use quorate::state::{Fact, State};

use super::events_are_the_same::Events;

/// Task and attempt.
type Key = (String, u64);

#[derive(Default)]
pub(super) struct Attempts {
    /// What nodes were told: to whom an attempt was handed, and in whose epoch.
    calls: BTreeMap<Key, (String, String)>,
    /// What states showed of live executions.
    seen: BTreeMap<Key, (String, Epoch)>,
}

/// Where a task stands, by its events.
enum Standing {
    Waiting,
    Live,
    Ended,
}

impl Attempts {
    pub(super) fn called(
        &mut self,
        task: &str,
        attempt: u64,
        epoch: &str,
        node: &str,
    ) -> Result<(), String> {
        let told = (node.to_owned(), epoch.to_owned());
        let known = self.calls.entry((task.to_owned(), attempt)).or_insert_with(|| told.clone());
        if *known == told {
            return Ok(());
        }
        Err(format!("attempt {attempt} of {task} was handed to {known:?} and to {told:?}"))
    }

    /// Remembers the live executions of a state.
    pub(super) fn note(&mut self, state: &State) {
        for task in state.live_tasks() {
            if let Some(execution) = &task.execution {
                let key = (task.task_id.to_string(), u64::from(execution.attempt));
                let seen = (execution.node_id.to_string(), execution.epoch);
                self.seen.entry(key).or_insert(seen);
            }
        }
    }

    pub(super) fn check(&self, events: &Events) -> Result<(), String> {
        let mut tasks: BTreeMap<&str, (Standing, u32)> = BTreeMap::new();
        let mut open = Epoch::default();
        for (at, fact) in events.iter() {
            let wrong = |what: &str| Err(format!("at {at:?}: {what}: {fact:?}"));
            if let Fact::EpochOpened { epoch, .. } = fact {
                open = *epoch;
            }
            if let Fact::TaskSubmitted { task_id } = fact {
                if tasks.insert(task_id.as_str(), (Standing::Waiting, 0)).is_some() {
                    return wrong("the task was there already");
                }
                continue;
            }
            let Some(task_id) = task_of(fact) else { continue };
            let Some((standing, newest)) = tasks.get_mut(task_id) else {
                return wrong("no such task was submitted");
            };
            match (fact, &*standing) {
                (_, Standing::Ended) => return wrong("the task had ended"),
                (Fact::TaskAssigned { attempt, node_id, .. }, Standing::Waiting) => {
                    if *attempt != *newest + 1 {
                        return wrong("an attempt was left out or used twice");
                    }
                    *newest = *attempt;
                    *standing = Standing::Live;
                    let key = (task_id.to_owned(), u64::from(*attempt));
                    let seen = self.seen.get(&key);
                    if seen
                        .is_some_and(|(node, epoch)| *node != node_id.to_string() || *epoch != open)
                    {
                        return wrong(&format!("placed in epoch {open}, but seen as {seen:?}"));
                    }
                }
                (Fact::TaskAssigned { .. }, Standing::Live) => {
                    return wrong("an execution was live already");
                }
                (
                    Fact::TaskStarted { attempt, .. } | Fact::TaskRetried { attempt, .. },
                    Standing::Live,
                ) if attempt == newest => {
                    if matches!(fact, Fact::TaskRetried { .. }) {
                        *standing = Standing::Waiting;
                    }
                }
                (Fact::TaskStarted { .. } | Fact::TaskRetried { .. }, _) => {
                    return wrong("that attempt was not live");
                }
                (Fact::TaskQueued { .. }, _) => *standing = Standing::Waiting,
                (Fact::TaskEnded { .. }, _) => *standing = Standing::Ended,
                _other_facts => {}
            }
        }
        Ok(())
    }
}

fn task_of(fact: &Fact) -> Option<&str> {
    match fact {
        Fact::TaskAssigned { task_id, .. }
        | Fact::TaskStarted { task_id, .. }
        | Fact::TaskRetried { task_id, .. }
        | Fact::TaskQueued { task_id }
        | Fact::TaskEnded { task_id, .. } => Some(task_id.as_str()),
        _other_facts => None,
    }
}
