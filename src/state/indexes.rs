//! What is derived from the task rows: queues, timers and counts. Never stored; rebuilt at load.
//!
//! A task is taken out of every index before its row changes and put back after, so an index
//! cannot disagree with the rows.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::ExpiryKind;
use super::rows::encode;
use crate::model::{NodeId, Requirements, Task, TaskId, TaskStatus, TimeMs, Urgency};

/// Place in the queue: most urgent first, then in order of submission.
pub type QueueKey = (Reverse<Urgency>, u64, TaskId);

/// Names one set of requirements. The queue is kept by it: what no node can take is then passed
/// over as a whole, however many tasks wait for it.
pub type Need = u128;

fn need(requirements: &Requirements) -> Need {
    xxhash_rust::xxh3::xxh3_128(&encode(requirements))
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    pub(super) queue: BTreeMap<Need, BTreeSet<QueueKey>>,
    pub(super) timers: BTreeSet<(TimeMs, TaskId, TimerKey)>,
    pub(super) live_by_node: BTreeMap<NodeId, BTreeSet<TaskId>>,
    pub(super) by_seq: BTreeMap<u64, TaskId>,
    pub(super) by_status: BTreeMap<TaskStatus, BTreeSet<(u64, TaskId)>>,
    pub(super) ended: BTreeSet<(TimeMs, TaskId)>,
}

/// Orders timers of one task that are due at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerKey {
    /// See [`ExpiryKind::Deadline`].
    Deadline,
    /// See [`ExpiryKind::Attempt`].
    Attempt,
    /// See [`ExpiryKind::BackOff`].
    BackOff,
}

impl From<TimerKey> for ExpiryKind {
    fn from(key: TimerKey) -> Self {
        match key {
            TimerKey::Deadline => Self::Deadline,
            TimerKey::Attempt => Self::Attempt,
            TimerKey::BackOff => Self::BackOff,
        }
    }
}

/// When the live attempt of `task` is over its time.
pub(super) fn attempt_due_ms(task: &Task) -> Option<TimeMs> {
    let execution = task.execution.as_ref()?;
    Some(execution.assigned_at_ms.saturating_add(task.timeout_ms))
}

/// What a task has running: each with the time it is due.
fn timers(task: &Task) -> impl Iterator<Item = (TimeMs, TimerKey)> {
    let deadline = task.deadline_ms.filter(|_| !task.status.is_terminal());
    let attempt = attempt_due_ms(task);
    let waits = task.status == TaskStatus::Retrying;
    let back_off = waits.then_some(task.not_before_ms);
    [
        deadline.map(|at| (at, TimerKey::Deadline)),
        attempt.map(|at| (at, TimerKey::Attempt)),
        back_off.map(|at| (at, TimerKey::BackOff)),
    ]
    .into_iter()
    .flatten()
}

impl Indexes {
    pub(super) fn insert(&mut self, task: &Task) {
        let id = &task.task_id;
        self.by_seq.insert(task.seq, id.clone());
        self.by_status.entry(task.status).or_default().insert((task.seq, id.clone()));
        if task.status == TaskStatus::Pending {
            let group = self.queue.entry(need(&task.requirements)).or_default();
            group.insert((Reverse(task.urgency), task.seq, id.clone()));
        }
        if task.status.is_terminal() {
            self.ended.insert((task.completed_at_ms, id.clone()));
        }
        for (at, key) in timers(task) {
            self.timers.insert((at, id.clone(), key));
        }
        if let Some(execution) = &task.execution {
            self.live_by_node.entry(execution.node_id.clone()).or_default().insert(id.clone());
        }
    }

    pub(super) fn remove(&mut self, task: &Task) {
        let id = &task.task_id;
        self.by_seq.remove(&task.seq);
        if let Some(tasks) = self.by_status.get_mut(&task.status) {
            tasks.remove(&(task.seq, id.clone()));
        }
        if task.status == TaskStatus::Pending {
            let need = need(&task.requirements);
            if let Some(group) = self.queue.get_mut(&need) {
                group.remove(&(Reverse(task.urgency), task.seq, id.clone()));
                if group.is_empty() {
                    self.queue.remove(&need);
                }
            }
        }
        if task.status.is_terminal() {
            self.ended.remove(&(task.completed_at_ms, id.clone()));
        }
        for (at, key) in timers(task) {
            self.timers.remove(&(at, id.clone(), key));
        }
        if let Some(execution) = &task.execution
            && let Some(live) = self.live_by_node.get_mut(&execution.node_id)
        {
            live.remove(id);
            if live.is_empty() {
                self.live_by_node.remove(&execution.node_id);
            }
        }
    }

    pub(super) fn count(&self, status: TaskStatus) -> u64 {
        self.by_status.get(&status).map_or(0, |tasks| tasks.len() as u64)
    }
}
