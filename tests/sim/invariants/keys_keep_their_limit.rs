//! Of the tasks that share a concurrency key, never more are under way than they allow: at any index
//! on any member, counted anew; and by the events of the whole run, which leave no index out.
//!
//! Source: issue 4, "never over the limit"; architecture.md, placement is checked again in apply.

use std::collections::{BTreeMap, BTreeSet};

use quorate::model::{Concurrency, TaskId, TaskStatus};
use quorate::state::{Fact, State};

use super::Submissions;
use super::events_are_the_same::Events;

pub(super) fn check(state: &State) -> Result<(), String> {
    let mut held: BTreeMap<&str, (usize, u32)> = BTreeMap::new();
    let stepping: Vec<_> = state.tasks_by_status(TaskStatus::Stepping).collect();
    let limits = stepping.iter().map(|task| &task.concurrency);
    for limit in limits.chain(state.live_tasks().map(|task| &task.concurrency)).flatten() {
        held.entry(&limit.key).or_insert((0, limit.max)).0 += 1;
    }
    for (key, (holders, max)) in held {
        if holders > max as usize {
            return Err(format!("{holders} tasks of {key} are under way, at most {max} may be"));
        }
        if state.holders(key) != holders {
            return Err(format!("{key} counts {} and is held by {holders}", state.holders(key)));
        }
    }
    Ok(())
}

/// The same by events: a plain task holds its key while an attempt is live, one in steps from its
/// first step to its end.
pub(super) fn check_events(submissions: &Submissions, events: &Events) -> Result<(), String> {
    let mut held: BTreeMap<&str, BTreeSet<&TaskId>> = BTreeMap::new();
    for (at, fact) in events.iter() {
        let (task_id, takes) = match fact {
            Fact::TaskAssigned { task_id, .. } => (task_id, true),
            // Of a plain task an attempt was placed before.
            Fact::TaskStarted { task_id, .. } => (task_id, true),
            Fact::TaskRetried { task_id, .. }
            | Fact::TaskQueued { task_id, .. }
            | Fact::TaskEnded { task_id, .. } => (task_id, false),
            _other_facts => continue,
        };
        let spec = submissions.spec_of(task_id);
        let Some(Concurrency { key, max }) = spec.and_then(|spec| spec.concurrency.as_ref()) else {
            continue;
        };
        let holders = held.entry(key).or_default();
        if takes {
            holders.insert(task_id);
        } else {
            holders.remove(task_id);
        }
        if holders.len() > *max as usize {
            return Err(format!("at {at:?} {holders:?} hold {key}, at most {max} may"));
        }
    }
    Ok(())
}
