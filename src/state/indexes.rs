//! What is derived from the task rows: queues, timers and counts. Never stored; rebuilt at load.
//!
//! Tasks are named by their place in the order of submission. [`Places`] says where one stands in
//! every index; a change moves it from its places before to those after, so an index cannot disagree
//! with the rows.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::ExpiryKind;
use super::rows::encode;
use crate::model::{NodeId, Requirements, Task, TaskStatus, TimeMs, Urgency};

/// Place in the queue: most urgent first, then in order of submission.
pub type QueueKey = (Reverse<Urgency>, u64);

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
    pub(super) timers: BTreeSet<(TimeMs, u64, TimerKey)>,
    pub(super) live_by_node: BTreeMap<NodeId, BTreeSet<u64>>,
    pub(super) by_status: BTreeMap<TaskStatus, BTreeSet<u64>>,
    pub(super) ended: BTreeSet<(TimeMs, u64)>,
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

/// Where one task stands in every index.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Places {
    status: TaskStatus,
    queued: Option<(Need, Reverse<Urgency>)>,
    ended: Option<TimeMs>,
    /// Each with the time it is due.
    timers: [Option<(TimeMs, TimerKey)>; 3],
    live_on: Option<NodeId>,
}

impl Places {
    pub(super) fn of(task: &Task) -> Self {
        let status = task.status;
        let queued = status == TaskStatus::Pending;
        let deadline = task.deadline_ms.filter(|_| !status.is_terminal());
        let back_off = (status == TaskStatus::Retrying).then_some(task.not_before_ms);
        Self {
            status,
            queued: queued.then(|| (need(&task.requirements), Reverse(task.urgency))),
            ended: status.is_terminal().then_some(task.completed_at_ms),
            timers: [
                deadline.map(|at| (at, TimerKey::Deadline)),
                attempt_due_ms(task).map(|at| (at, TimerKey::Attempt)),
                back_off.map(|at| (at, TimerKey::BackOff)),
            ],
            live_on: task.execution.as_ref().map(|execution| execution.node_id.clone()),
        }
    }
}

impl Indexes {
    pub(super) fn insert(&mut self, seq: u64, places: &Places) {
        self.by_status.entry(places.status).or_default().insert(seq);
        if let Some((need, urgency)) = places.queued {
            self.queue.entry(need).or_default().insert((urgency, seq));
        }
        if let Some(at) = places.ended {
            self.ended.insert((at, seq));
        }
        for (at, key) in places.timers.into_iter().flatten() {
            self.timers.insert((at, seq, key));
        }
        if let Some(node_id) = &places.live_on {
            self.live_by_node.entry(node_id.clone()).or_default().insert(seq);
        }
    }

    pub(super) fn remove(&mut self, seq: u64, places: &Places) {
        if let Some(tasks) = self.by_status.get_mut(&places.status) {
            tasks.remove(&seq);
        }
        if let Some((need, urgency)) = places.queued
            && let Some(group) = self.queue.get_mut(&need)
        {
            group.remove(&(urgency, seq));
            if group.is_empty() {
                self.queue.remove(&need);
            }
        }
        if let Some(at) = places.ended {
            self.ended.remove(&(at, seq));
        }
        for (at, key) in places.timers.into_iter().flatten() {
            self.timers.remove(&(at, seq, key));
        }
        if let Some(node_id) = &places.live_on
            && let Some(live) = self.live_by_node.get_mut(node_id)
        {
            live.remove(&seq);
            if live.is_empty() {
                self.live_by_node.remove(node_id);
            }
        }
    }

    pub(super) fn change(&mut self, seq: u64, before: &Places, after: &Places) {
        if before != after {
            self.remove(seq, before);
            self.insert(seq, after);
        }
    }

    pub(super) fn count(&self, status: TaskStatus) -> u64 {
        self.by_status.get(&status).map_or(0, |tasks| tasks.len() as u64)
    }
}
