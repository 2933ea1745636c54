//! A task has at most one live execution; attempts are numbered without a gap; an ended task never
//! changes; an attempt belongs to one node and one epoch, however often it is handed over, and to
//! the epoch that was open where it was placed.
//!
//! Source: docs/architecture.md, "Attempts"; marathon #1553 (duplicated tasks), chronos #371.

use std::collections::BTreeMap;

use quorate::model::{Epoch, TaskStatus};
use quorate::state::{Fact, State, is_step_id};

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
    /// A step of it was begun.
    Stepping,
    Ended(TaskStatus),
}

/// Where each task stands, and its newest attempt.
type Lives<'a> = BTreeMap<&'a str, (Standing, u32)>;

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
        let mut tasks = Lives::new();
        let mut open = Epoch::default();
        for (at, fact) in events.iter() {
            let wrong = |what: &str| Err(format!("at {at:?}: {what}: {fact:?}"));
            if let Fact::EpochOpened { epoch, .. } = fact {
                open = *epoch;
            }
            if let Err(what) = begin(&mut tasks, fact) {
                return wrong(what);
            }
            let Some(task_id) = task_of(fact) else { continue };
            let Some((standing, newest)) = tasks.get_mut(task_id) else {
                return wrong("no such task was submitted");
            };
            match (fact, &*standing) {
                (_, Standing::Ended(_)) => return wrong("the task had ended"),
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
                (Fact::TaskAssigned { .. }, _) => {
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
                // Its first step was placed.
                (Fact::TaskStarted { attempt, .. }, Standing::Waiting)
                    if *attempt == *newest + 1 && !is_step(task_id) =>
                {
                    *newest = *attempt;
                    *standing = Standing::Stepping;
                }
                // No agent of its kind is there.
                (Fact::TaskRetried { attempt, .. }, Standing::Waiting)
                    if attempt == newest && is_step(task_id) => {}
                (Fact::TaskStarted { .. } | Fact::TaskRetried { .. }, _) => {
                    return wrong("that attempt was not live");
                }
                (Fact::TaskQueued { .. }, _) => *standing = Standing::Waiting,
                (Fact::TaskEnded { status, .. }, _) => *standing = Standing::Ended(*status),
                _other_facts => {}
            }
        }
        Ok(())
    }
}

/// Takes in what begins to wait: a task, the steps of one, or dead letters that are tried again, with
/// those of their steps that gave nothing.
fn begin<'a>(tasks: &mut Lives<'a>, fact: &'a Fact) -> Result<(), &'static str> {
    let begun = match fact {
        Fact::TaskSubmitted { task_id } => std::slice::from_ref(task_id),
        Fact::StepsOpened { steps, .. } => steps.as_slice(),
        _other_facts => &[],
    };
    for task_id in begun {
        let newest = match tasks.get(task_id.as_str()) {
            None => 0,
            Some((Standing::Ended(TaskStatus::DeadLetter), newest)) => *newest,
            Some((Standing::Ended(status), newest))
                if is_step_id(task_id) && *status != TaskStatus::Completed =>
            {
                *newest
            }
            Some(_) => return Err("it was there already, or has ended well"),
        };
        tasks.insert(task_id.as_str(), (Standing::Waiting, newest));
    }
    Ok(())
}

fn is_step(task_id: &str) -> bool {
    task_id.contains('#')
}

fn task_of(fact: &Fact) -> Option<&str> {
    match fact {
        Fact::TaskAssigned { task_id, .. }
        | Fact::TaskStarted { task_id, .. }
        | Fact::TaskRetried { task_id, .. }
        | Fact::TaskQueued { task_id, .. }
        | Fact::TaskEnded { task_id, .. } => Some(task_id.as_str()),
        _other_facts => None,
    }
}
