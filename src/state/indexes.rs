//! What is derived from the task rows: queues, timers and counts. Never stored; rebuilt at load.
//!
//! Tasks are named by their place in the order of submission. [`Places`] says where one stands in
//! every index; a change moves it from its places before to those after, so an index cannot disagree
//! with the rows.

use std::collections::{BTreeMap, BTreeSet};

use super::ExpiryKind;
use super::ranges::EndedKey;
use super::rows::encode;
use crate::model::{JobKind, NodeId, Resource, Step, StepState, Task, TaskStatus, TimeMs};

/// Place in the queue: a time, and the order of submission. The time is when the task came, plus what
/// its urgency lacks: of two that came together the more urgent one goes first, and one that has
/// waited long enough goes before any that comes later, so that nothing starves.
pub type QueueKey = (TimeMs, u64);

/// Names one set of requirements, the type of work included. The queue is kept by it: what no node can
/// take is then passed
/// over as a whole, however many tasks wait for it.
pub(super) type Need = u128;

/// A group of the queue by its most urgent task.
pub type Head = (QueueKey, Need);

fn need(task: &Task) -> Need {
    let Task { requirements, task_type, concurrency, rate, .. } = task;
    // Nodes may serve some types and no others.
    let task_type = requirements.agent_type.is_none().then_some(task_type);
    // What waits for a key is passed over as a whole, too, while that is taken.
    xxhash_rust::xxh3::xxh3_128(&encode(&(requirements, task_type, concurrency, rate)))
}

/// See [`QueueKey`]. `aging_ms` is how far the most urgent go before the least urgent.
fn queue_time(task: &Task, aging_ms: TimeMs) -> TimeMs {
    let lacks = 100u64.saturating_sub(u64::from(task.urgency.value()));
    task.waits_since_ms().saturating_add(aging_ms.saturating_mul(lacks) / 100)
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    pub(super) queue: BTreeMap<Need, BTreeSet<QueueKey>>,
    /// Its groups in the order in which they come into question.
    pub(super) heads: BTreeSet<Head>,
    pub(super) timers: BTreeSet<(TimeMs, u64, TimerKey)>,
    pub(super) live_by_node: BTreeMap<NodeId, BTreeSet<u64>>,
    pub(super) by_status: BTreeMap<TaskStatus, BTreeSet<u64>>,
    /// Ends of tasks, but for those in `untold`.
    pub(super) ended: BTreeSet<EndedKey>,
    /// Ends that somebody is still to be told of: until then the task may not be deleted.
    pub(super) untold: BTreeSet<EndedKey>,
    /// Tasks that hold a place of their concurrency key.
    pub(super) holders: BTreeMap<String, BTreeSet<u64>>,
    /// Jobs by kind, ended ones included.
    pub(super) jobs: BTreeMap<JobKind, BTreeSet<u64>>,
    /// How many of them have not ended.
    pub(super) open_jobs: BTreeMap<JobKind, OpenJobs>,
    /// What is promised to them, by the orchestrator that launched them.
    pub(super) promised: BTreeMap<(String, Resource), u64>,
    /// How many open jobs each agent command has, if any.
    pub(super) open_of_commands: BTreeMap<u64, u64>,
    /// Steps that have not ended. They are in none of the lists by status.
    pub(super) open_steps: BTreeSet<u64>,
    /// How many steps wait: for others of their task, for a place, or for their back-off.
    pub(super) waiting_steps: u64,
    /// How many rows the tasks in `ended` have, those of their steps included.
    pub(super) told_rows: usize,
}

/// Jobs of one kind that have not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OpenJobs {
    /// In the queue, or waiting for another try.
    pub(super) waiting: u64,
    /// On nodes.
    pub(super) live: u64,
}

impl OpenJobs {
    fn of(&mut self, live: bool) -> &mut u64 {
        if live { &mut self.live } else { &mut self.waiting }
    }
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
///
/// For a task that is done in steps: the whole of it, from its first step's placement.
pub(super) fn attempt_due_ms(task: &Task) -> Option<TimeMs> {
    if task.status == TaskStatus::Stepping {
        return Some(task.started_at_ms.saturating_add(task.timeout_ms));
    }
    let execution = task.execution.as_ref()?;
    Some(execution.assigned_at_ms.saturating_add(task.timeout_ms))
}

/// How many steps wait: a step itself, or those of a task that have no row of their own yet.
fn waiting_steps(task: &Task) -> u64 {
    if task.step_of.is_some() {
        return matches!(task.status, TaskStatus::Pending | TaskStatus::Retrying).into();
    }
    let open = task.flow.as_ref().filter(|_| !task.status.is_terminal());
    let waits = |step: &&Step| step.state == StepState::Waiting;
    open.map_or(0, |flow| flow.steps.iter().filter(waits).count() as u64)
}

/// Where one task stands in every index.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// `None` for steps: lists and counts are of what clients submitted.
    status: Option<TaskStatus>,
    queued: Option<(Need, TimeMs)>,
    ended: Option<TimeMs>,
    holds: Option<String>,
    open_step: bool,
    ended_rows: usize,
    waiting_steps: u64,
    /// Each with the time it is due.
    timers: [Option<(TimeMs, TimerKey)>; 3],
    live_on: Option<NodeId>,
    job: Option<JobKind>,
    /// Whether the job is on a node; `None` when it has ended.
    open_job: Option<bool>,
    /// What it is promised while it is open, and by which orchestrator.
    promised: Vec<((String, Resource), u64)>,
    /// The agent command that an open job is of.
    command: Option<u64>,
}

impl Places {
    pub(super) fn of(task: &Task, aging_ms: TimeMs) -> Self {
        let (status, is_step) = (task.status, task.step_of.is_some());
        let queued = status == TaskStatus::Pending;
        let concurrency = task.concurrency.as_ref();
        let deadline = task.deadline_ms.filter(|_| !status.is_terminal());
        let back_off = (status == TaskStatus::Retrying).then_some(task.not_before_ms);
        Self {
            status: (!is_step).then_some(status),
            queued: queued.then(|| (need(task), queue_time(task, aging_ms))),
            ended: (status.is_terminal() && !is_step).then_some(task.completed_at_ms),
            // A step that was placed has handed its key over to its task.
            holds: concurrency
                .filter(|_| task.holds_place() && !is_step)
                .map(|limit| limit.key.clone()),
            open_step: is_step && !status.is_terminal(),
            ended_rows: if status.is_terminal() && !is_step { task.rows() } else { 0 },
            waiting_steps: waiting_steps(task),
            timers: [
                deadline.map(|at| (at, TimerKey::Deadline)),
                attempt_due_ms(task).map(|at| (at, TimerKey::Attempt)),
                back_off.map(|at| (at, TimerKey::BackOff)),
            ],
            live_on: task.execution.as_ref().map(|execution| execution.node_id.clone()),
            job: task.job.as_ref().map(|job| job.kind),
            open_job: (task.job.is_some() && !status.is_terminal()).then(|| status.is_live()),
            command: task
                .job
                .as_ref()
                .map(|job| job.command)
                .filter(|command| *command > 0 && !status.is_terminal()),
            promised: task.job.as_ref().filter(|_| !status.is_terminal()).map_or_else(
                Vec::new,
                |job| {
                    let key = |resource: &Resource| (job.orchestrator.clone(), *resource);
                    job.reserved.iter().map(|(resource, amount)| (key(resource), *amount)).collect()
                },
            ),
        }
    }
}

impl Indexes {
    pub(super) fn insert(&mut self, seq: u64, places: &Places) {
        if let Some(status) = places.status {
            self.by_status.entry(status).or_default().insert(seq);
        }
        self.enqueue(seq, places);
        if let Some(key) = &places.holds {
            self.holders.entry(key.clone()).or_default().insert(seq);
        }
        if places.open_step {
            self.open_steps.insert(seq);
        }
        self.waiting_steps += places.waiting_steps;
        if let Some(kind) = places.job {
            self.jobs.entry(kind).or_default().insert(seq);
            if let Some(live) = places.open_job {
                *self.open_jobs.entry(kind).or_default().of(live) += 1;
            }
            for (key, amount) in &places.promised {
                *self.promised.entry(key.clone()).or_default() += amount;
            }
            if let Some(command) = places.command {
                *self.open_of_commands.entry(command).or_default() += 1;
            }
        }
        if let Some(at) = places.ended {
            self.ended.insert((at, seq));
            self.told_rows += places.ended_rows;
        }
        for (at, key) in places.timers.into_iter().flatten() {
            self.timers.insert((at, seq, key));
        }
        if let Some(node_id) = &places.live_on {
            self.live_by_node.entry(node_id.clone()).or_default().insert(seq);
        }
    }

    /// Puts a task that waits into its place of the queue.
    pub(super) fn enqueue(&mut self, seq: u64, places: &Places) {
        if let Some((need, at)) = places.queued {
            self.regroup(need, |group| group.insert((at, seq)));
        }
    }

    /// Changes a group of the queue, and puts it where it then comes into question.
    fn regroup(&mut self, need: Need, change: impl FnOnce(&mut BTreeSet<QueueKey>) -> bool) {
        let group = self.queue.entry(need).or_default();
        let before = group.first().copied();
        change(group);
        let after = group.first().copied();
        if after.is_none() {
            self.queue.remove(&need);
        }
        if before != after {
            before.map(|key| self.heads.remove(&(key, need)));
            self.heads.extend(after.map(|key| (key, need)));
        }
    }

    /// Forgets the queue, which is then to be filled anew.
    pub(super) fn clear_queue(&mut self) {
        self.queue.clear();
        self.heads.clear();
    }

    pub(super) fn remove(&mut self, seq: u64, places: &Places) {
        if let Some(tasks) = places.status.and_then(|status| self.by_status.get_mut(&status)) {
            tasks.remove(&seq);
        }
        if let Some(key) = &places.holds
            && let Some(holders) = self.holders.get_mut(key)
        {
            holders.remove(&seq);
            if holders.is_empty() {
                self.holders.remove(key);
            }
        }
        self.open_steps.remove(&seq);
        self.waiting_steps -= places.waiting_steps;
        if let Some(kind) = places.job {
            if let Some(jobs) = self.jobs.get_mut(&kind) {
                jobs.remove(&seq);
            }
            if let Some(live) = places.open_job {
                *self.open_jobs.entry(kind).or_default().of(live) -= 1;
            }
            for (key, amount) in &places.promised {
                if let Some(promised) = self.promised.get_mut(key) {
                    *promised -= amount;
                    if *promised == 0 {
                        self.promised.remove(key);
                    }
                }
            }
            if let Some(command) = places.command
                && let Some(open) = self.open_of_commands.get_mut(&command)
            {
                *open -= 1;
                if *open == 0 {
                    self.open_of_commands.remove(&command);
                }
            }
        }
        if let Some((need, at)) = places.queued {
            self.regroup(need, |group| group.remove(&(at, seq)));
        }
        if let Some(at) = places.ended {
            if self.ended.remove(&(at, seq)) {
                self.told_rows -= places.ended_rows;
            }
            self.untold.remove(&(at, seq));
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

    /// Keeps the end of a task among those that are to be told, or among the others.
    pub(super) fn keep_end(&mut self, end: EndedKey, rows: usize, untold: bool) {
        if untold && self.ended.remove(&end) {
            self.untold.insert(end);
            self.told_rows -= rows;
        } else if !untold && self.untold.remove(&end) {
            self.ended.insert(end);
            self.told_rows += rows;
        }
    }

    pub(super) fn count(&self, status: TaskStatus) -> u64 {
        self.by_status.get(&status).map_or(0, |tasks| tasks.len() as u64)
    }
}
