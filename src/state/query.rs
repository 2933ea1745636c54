//! What others read. Every list is bounded and every order comes from an index.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::indexes::{Head, Places, QueueKey};
use super::ranges::EndedKey;
use super::requests::Recorded;
use super::{ExpiryKind, State};
use crate::model::{NodeId, RequestId, Task, TaskId, TaskStatus, TimeMs};

impl State {
    /// One task: an ended one is decoded from its row.
    #[must_use]
    pub fn task(&self, task_id: &TaskId) -> Option<Cow<'_, Task>> {
        self.tasks.get(task_id)
    }

    /// Whether there is such a task.
    #[must_use]
    pub fn has_task(&self, task_id: &TaskId) -> bool {
        self.tasks.seq_of(task_id).is_some()
    }

    /// One task that has not ended.
    #[must_use]
    pub fn open_task(&self, task_id: &TaskId) -> Option<&Task> {
        self.tasks.open_at(self.tasks.seq_of(task_id)?)
    }

    /// The task at a place of the queue, as [`State::queue_groups`] names it.
    #[must_use]
    pub fn queued(&self, (_, seq): &QueueKey) -> Option<&Task> {
        self.tasks.open_at(*seq)
    }

    /// How many tasks are retained, ended ones and steps included.
    #[must_use]
    pub fn tasks_len(&self) -> usize {
        self.tasks.len()
    }

    /// How many tasks stand where.
    #[must_use]
    pub fn tasks_in(&self, status: TaskStatus) -> u64 {
        self.indexes.count(status)
    }

    /// Tasks that wait for a place or for their back-off.
    #[must_use]
    pub fn waiting_len(&self) -> u64 {
        let waiting = [TaskStatus::Pending, TaskStatus::Retrying, TaskStatus::Waiting];
        waiting.into_iter().map(|status| self.tasks_in(status)).sum()
    }

    /// Steps that wait: for others of their task, for a place, or for their back-off.
    #[must_use]
    pub fn waiting_steps_len(&self) -> u64 {
        self.indexes.waiting_steps
    }

    /// Whether the queue takes so many more tasks and steps (`tasks.max_pending_tasks`).
    #[must_use]
    pub fn has_room_for(&self, count: u64) -> bool {
        let waiting = self.waiting_len() + self.waiting_steps_len();
        waiting.saturating_add(count) <= self.policy().pending_tasks_max
    }

    /// How many tasks of a concurrency key are under way.
    #[must_use]
    pub fn holders(&self, key: &str) -> usize {
        self.indexes.holders.get(key).map_or(0, BTreeSet::len)
    }

    /// Which tasks of a concurrency key are under way, in order of submission.
    pub fn holders_of(&self, key: &str) -> impl Iterator<Item = &Task> {
        let seqs = self.indexes.holders.get(key).into_iter().flatten();
        seqs.filter_map(|seq| self.tasks.open_at(*seq))
    }

    /// Whether a task has its place of its concurrency key, or could take one now.
    #[must_use]
    pub fn has_place(&self, task: &Task) -> bool {
        match &task.concurrency {
            Some(limit) if !task.holds_place() => self.holders(&limit.key) < limit.max as usize,
            Some(_) | None => true,
        }
    }

    /// Steps that have not ended, in the order they were opened.
    pub fn open_steps(&self) -> impl Iterator<Item = &Task> {
        self.indexes.open_steps.iter().filter_map(|seq| self.tasks.open_at(*seq))
    }

    /// Puts every waiting task in its place anew, after the rule of places has changed.
    pub(super) fn rebuild_queue(&mut self) {
        let seqs = self.indexes.queue.values().flatten().map(|(_, seq)| *seq);
        let seqs: Vec<u64> = seqs.collect();
        self.indexes.clear_queue();
        let aging_ms = self.policy().aging_ms;
        for seq in seqs {
            let Some(task) = self.tasks.open_at(seq) else { continue };
            self.indexes.enqueue(seq, &Places::of(task, aging_ms));
        }
    }

    /// Tasks of one status in order of submission, or newest first.
    pub fn tasks_by_status(
        &self,
        status: TaskStatus,
    ) -> impl DoubleEndedIterator<Item = Cow<'_, Task>> {
        let seqs = self.indexes.by_status.get(&status).into_iter().flatten();
        seqs.filter_map(|seq| self.tasks.at(*seq))
    }

    /// All tasks in order of submission after sequence number `after`, without steps.
    pub fn tasks_after(&self, after: u64) -> impl DoubleEndedIterator<Item = Cow<'_, Task>> {
        self.rows_after(after).filter(|task| task.step_of.is_none())
    }

    /// As [`State::tasks_after`], with steps.
    pub fn rows_after(&self, after: u64) -> impl DoubleEndedIterator<Item = Cow<'_, Task>> {
        self.tasks.after(after)
    }

    /// Ends of tasks that nobody is to be told of any more, the newest last: these may be deleted.
    pub fn told_ends(&self) -> impl Iterator<Item = EndedKey> {
        self.indexes.ended.iter().copied()
    }

    /// How many rows those have, with their steps.
    #[must_use]
    pub fn told_rows(&self) -> usize {
        self.indexes.told_rows
    }

    /// Tasks and steps waiting to be placed, in the order of [`QueueKey`]. Takes as long as what is
    /// taken of it, however many groups there are.
    pub fn queue(&self) -> impl Iterator<Item = &Task> {
        let mut closed = self.queue_groups(None).peekable();
        let mut groups = Vec::new();
        // The next of each group that is open.
        let mut next = BinaryHeap::new();
        std::iter::from_fn(move || {
            let opens = closed.peek().map(|((key, _), _)| *key);
            let first = next.peek().map(|Reverse((key, _))| *key);
            if opens.is_some_and(|key| first.is_none_or(|first| key < first)) {
                let (_, mut keys) = closed.next()?;
                next.extend(keys.next().map(|key| Reverse((*key, groups.len()))));
                groups.push(keys);
            }
            let Reverse((key, place)) = next.pop()?;
            next.extend(groups[place].next().map(|key| Reverse((*key, place))));
            self.queued(&key)
        })
    }

    /// The queue by what tasks require, after the group `after`: the group of the most urgent task
    /// first, and each with its places in that order. A group is never empty.
    pub fn queue_groups(
        &self,
        after: Option<Head>,
    ) -> impl Iterator<Item = (Head, impl Iterator<Item = &QueueKey>)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let heads = self.indexes.heads.range((from, Unbounded));
        heads.filter_map(|head| Some((*head, self.indexes.queue.get(&head.1)?.iter())))
    }

    /// Executions that a node holds, as task ids in order of submission.
    #[must_use]
    pub fn live_on(&self, node_id: &NodeId) -> Vec<TaskId> {
        let seqs = self.indexes.live_by_node.get(node_id).into_iter().flatten();
        seqs.filter_map(|seq| self.tasks.open_at(*seq)).map(|task| task.task_id.clone()).collect()
    }

    /// The first `max` of what [`Self::live_on`] gives.
    pub(super) fn first_live_on(&self, node_id: &NodeId, max: usize) -> Vec<TaskId> {
        let seqs = self.indexes.live_by_node.get(node_id).into_iter().flatten();
        let tasks = seqs.filter_map(|seq| self.tasks.open_at(*seq)).take(max);
        tasks.map(|task| task.task_id.clone()).collect()
    }

    /// All executions placed on nodes, by node.
    pub fn live_tasks(&self) -> impl Iterator<Item = &Task> {
        let seqs = self.indexes.live_by_node.values().flat_map(BTreeSet::iter);
        seqs.filter_map(|seq| self.tasks.open_at(*seq))
    }

    /// Timers that are due at `now`, oldest first.
    pub fn due_timers(&self, now: TimeMs) -> impl Iterator<Item = (&Task, ExpiryKind)> {
        let due = self.indexes.timers.iter().take_while(move |(at, _, _)| *at <= now);
        due.filter_map(|(_, seq, key)| {
            self.tasks.open_at(*seq).map(|task| (task, ExpiryKind::from(*key)))
        })
    }

    /// Whether the deadline of a task has passed, or that of the task that it is a step of.
    #[must_use]
    pub fn is_overdue(&self, task: &Task, now: TimeMs) -> bool {
        let of = task.step_of.as_ref().and_then(|of| self.open_task(&of.task_id)).unwrap_or(task);
        of.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now)
    }

    /// When the next timer is due.
    #[must_use]
    pub fn next_timer_ms(&self) -> Option<TimeMs> {
        self.indexes.timers.first().map(|(at, _, _)| *at)
    }

    /// What a request was answered, while that is remembered.
    #[must_use]
    pub fn request(&self, request_id: RequestId) -> Option<Recorded> {
        self.requests.get(request_id)
    }

    /// How many answers are remembered.
    #[must_use]
    pub fn requests_len(&self) -> usize {
        self.requests.len()
    }
}
