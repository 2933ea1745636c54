//! What a plan has given away itself: places of concurrency keys, and where copies of a task are.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{NodeId, Task, TaskId};
use crate::state::State;

/// What the plan itself has given away already.
#[derive(Default)]
pub(super) struct Taken {
    keys: BTreeMap<String, usize>,
    copies: BTreeSet<(TaskId, NodeId)>,
}

impl Taken {
    pub(super) fn has_place(&self, view: &State, task: &Task) -> bool {
        let Some(limit) = &task.concurrency else { return true };
        let taken = self.keys.get(&limit.key).copied().unwrap_or(0);
        view.holders(&limit.key) + taken < limit.max as usize
    }

    pub(super) fn note(&mut self, task: &Task, node_id: &NodeId) {
        if let Some(limit) = &task.concurrency {
            *self.keys.entry(limit.key.clone()).or_default() += 1;
        }
        if let Some(of) = task.step_of.as_ref().filter(|_| is_copy(task)) {
            self.copies.insert((of.task_id.clone(), node_id.clone()));
        }
    }

    /// Whether another copy of the same task is there, or will be.
    pub(super) fn has_copy_on(&self, view: &State, task: &Task, node_id: &NodeId) -> bool {
        let of = task.step_of.as_ref().map(|of| of.task_id.clone());
        view.has_copy_on(task, node_id)
            || of.is_some_and(|task_id| self.copies.contains(&(task_id, node_id.clone())))
    }
}

/// Steps of nodes are copies of their task; agents do all others.
pub(super) fn is_copy(task: &Task) -> bool {
    task.step_of.is_some() && task.requirements.agent_type.is_none()
}
