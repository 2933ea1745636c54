//! Tasks: acceptance, placement, cancellation, retirement (contract 2.3, 2.7).

use super::apply::Txn;
use super::attempts::ran_for_ms;
use super::command::{Assignment, TaskSpec};
use super::flows::step_id;
use super::indexes::Places;
use super::nodes::ExecutionEnd;
use super::rows::BlobPart;
use super::{Fact, Outcome, Rejection, Reply, State};
use crate::canary::{self, Canary};
use crate::model::{
    DeliveryBody, Epoch, Execution, Flow, Job, RequestId, StepOf, Task, TaskId, TaskStatus, TimeMs,
};

/// How many nodes of past attempts a task remembers.
const ASSIGNED_NODES_MAX: usize = 16;

/// The id of a task whose client chose none: `task_` and hex digits (contract 1.7), derived from
/// the request so that a retry names the same task. `digits` is 12, as family W has it, for a
/// single task and 32 for those of a batch, where a collision could not be told to the client.
#[must_use]
pub fn derive_task_id(request_id: RequestId, ordinal: u32, digits: usize) -> TaskId {
    let mut seed = request_id.0.to_be_bytes().to_vec();
    seed.extend_from_slice(&ordinal.to_be_bytes());
    let hash = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&seed));
    TaskId::trusted(&format!("task_{}", &hash[..digits.min(32)]))
}

impl Txn<'_> {
    pub(super) fn submit_tasks(&mut self, specs: Vec<TaskSpec>) -> Reply {
        Self::check_batch(specs.len())?;
        let single = specs.len() == 1;
        let mut named = Vec::with_capacity(specs.len());
        for (ordinal, mut spec) in (0u32..).zip(specs) {
            let (task_id, known) = self.name_task(&spec, ordinal, single);
            let flow = self.flow_of(&mut spec)?;
            named.push((task_id, known, spec, flow));
        }
        // A task that is known already asks for no room: its retry succeeds on a full queue.
        let new = || named.iter().filter(|(_, known, _, _)| !known);
        let flows = || new().filter_map(|(_, _, _, flow)| flow.as_ref());
        // What is written at once, and what is to wait: small requests can ask for many steps.
        let begins: usize = flows().map(Flow::begins).sum();
        if begins > 0 {
            Self::check_batch(begins)?;
        }
        let rows = new().count() + flows().map(|flow| flow.steps.len()).sum::<usize>();
        self.check_queue(rows)?;
        let (mut created, mut duplicates, mut last) = (0, 0, None);
        for (task_id, known, spec, flow) in named {
            let estimate_ms = self.state.estimates().get(&spec.task_type).copied();
            // An id may stand twice in one batch.
            if known || self.state.has_task(&task_id) {
                duplicates += 1;
            } else {
                created += 1;
                self.create_task(&task_id, spec, flow, None);
            }
            last = Some((task_id, estimate_ms));
        }
        match last {
            Some((task_id, estimate_ms)) if single => {
                let duplicate = duplicates > 0;
                Ok(Outcome::TaskSubmitted { task_id, duplicate, estimate_ms })
            }
            _ => Ok(Outcome::TasksSubmitted { created, duplicates }),
        }
    }

    /// The task's id, and whether there is or was such a task.
    fn name_task(&self, spec: &TaskSpec, ordinal: u32, single: bool) -> (TaskId, bool) {
        let known = |id: &TaskId| self.state.has_task(id) || self.state.tombstones.contains(id);
        if let Some(task_id) = &spec.task_id {
            return (task_id.clone(), known(task_id));
        }
        if single {
            let short = derive_task_id(self.request_id, ordinal, 12);
            if !known(&short) {
                return (short, false);
            }
        }
        (derive_task_id(self.request_id, ordinal, 32), false)
    }

    pub(super) fn create_task(
        &mut self,
        task_id: &TaskId,
        spec: TaskSpec,
        flow: Option<Flow>,
        job: Option<Box<Job>>,
    ) {
        self.state.edit_counters(|counters| {
            counters.last_seq += 1;
            counters.tasks_submitted += 1;
        });
        let rows = &mut self.state.rows;
        let requirements_raw =
            rows.put_payload(task_id, BlobPart::Requirements, spec.requirements_raw);
        let input = rows.put_payload(task_id, BlobPart::Input, spec.input);
        let metadata = rows.put_payload(task_id, BlobPart::Metadata, spec.metadata);
        let seq = self.state.counters().last_seq;
        let task = Task {
            task_type: spec.task_type,
            urgency: spec.urgency,
            priority_raw: spec.priority_raw,
            requirements: spec.requirements,
            requirements_raw,
            input,
            metadata,
            timeout_ms: spec.timeout_ms,
            max_retries: spec.max_retries,
            deadline_ms: spec.deadline_ms,
            callback_url: spec.callback_url,
            status: if flow.is_some() { TaskStatus::Waiting } else { TaskStatus::Pending },
            concurrency: spec.concurrency,
            rate: spec.rate,
            flow: flow.map(Box::new),
            job,
            ..Task::blank(task_id.clone(), seq, self.now, self.index)
        };
        self.state.insert_task(task);
        self.facts.push(Fact::TaskSubmitted { task_id: task_id.clone() });
        self.open_steps(task_id);
    }

    pub(super) fn assign_tasks(&mut self, epoch: Epoch, assignments: Vec<Assignment>) -> Reply {
        self.check_epoch(epoch)?;
        Self::check_batch(assignments.len())?;
        let (mut accepted, mut stale) = (0, 0);
        for assignment in assignments {
            if self.assign_task(epoch, &assignment) {
                accepted += 1;
            } else {
                stale += 1;
            }
        }
        Ok(Outcome::Judged { accepted, stale })
    }

    /// Places one task, unless the world moved on since it was planned.
    fn assign_task(&mut self, epoch: Epoch, assignment: &Assignment) -> bool {
        let Some(task) = self.state.open_task(&assignment.task_id) else { return false };
        let Some(node) = self.state.node(&assignment.node_id) else { return false };
        let current =
            task.status == TaskStatus::Pending && task.revision == assignment.seen_revision;
        let takes_work = node.takes_work() || canary::active(Canary::CapacityRace);
        if !current || !takes_work || !node.fits(&task.requirements, &task.task_type) {
            return false;
        }
        let may_begin = !self.state.policy().paused
            && !self.state.is_overdue(task, self.now)
            && self.state.has_place(task)
            && self.state.rate_clears_ms(task, self.now, 0).is_none()
            && !self.state.has_copy_on(task, &assignment.node_id);
        if !may_begin {
            return false;
        }
        let (step_of, rate) = (task.step_of.clone(), task.rate.clone());
        let (node_id, now) = (assignment.node_id.clone(), self.now);
        self.edit_node(&node_id, |node| node.live += 1);
        self.state.edit_counters(|counters| counters.attempts += 1);
        let attempt = self.edit_task(&assignment.task_id, |task| {
            task.attempt += 1;
            task.status = TaskStatus::Assigned;
            task.started_at_ms = 0;
            if task.assigned_nodes.len() == ASSIGNED_NODES_MAX {
                task.assigned_nodes.remove(0);
            }
            task.assigned_nodes.push(node_id.clone());
            task.execution = Some(Execution {
                attempt: task.attempt,
                node_id: node_id.clone(),
                epoch,
                assigned_at_ms: now,
                started_at_ms: 0,
            });
            task.attempt
        });
        let task_id = assignment.task_id.clone();
        self.facts.push(Fact::TaskAssigned { task_id, node_id, attempt });
        if let Some(limit) = rate {
            self.note_start(&limit);
        }
        if let Some(step_of) = step_of {
            self.begin_flow(&step_of.task_id);
        }
        true
    }

    pub(super) fn cancel_task(&mut self, task_id: &TaskId, reason: String) -> Reply {
        let was = self.state.task(task_id).ok_or(Rejection::TaskNotFound)?.status;
        if was.is_terminal() {
            return Err(Rejection::TaskEnded { status: was });
        }
        self.end_task(task_id, TaskStatus::Cancelled, ExecutionEnd::Withdrawn, |task| {
            task.error = Some(reason);
        });
        Ok(Outcome::TaskCancelled { was })
    }

    pub(super) fn retire_tasks(&mut self, epoch: Epoch, task_ids: Vec<TaskId>) -> Reply {
        self.check_epoch(epoch)?;
        Self::check_batch(task_ids.len())?;
        let offered = task_ids.len();
        Ok(self.retire(task_ids, offered))
    }

    /// Deletes tasks that have ended, of `offered` that were named.
    pub(super) fn retire(&mut self, task_ids: Vec<TaskId>, offered: usize) -> Outcome {
        let retired: Vec<TaskId> =
            task_ids.into_iter().filter(|task_id| self.retire_task(task_id)).collect();
        let count = u32::try_from(retired.len()).expect("a batch is bounded");
        if count > 0 {
            // An entry holds at most 4096 commands, so index and place make one number.
            let key = self.index << 12 | u64::from(self.place);
            let aged = self.state.counters().aged_ms;
            self.state.tombstones.add(&mut self.state.rows, key, aged, &retired);
            self.facts.push(Fact::TasksRetired { count });
        }
        let stale = u32::try_from(offered).expect("a batch is bounded") - count;
        Outcome::Judged { accepted: count, stale }
    }

    fn retire_task(&mut self, task_id: &TaskId) -> bool {
        let Some(task) = self.state.task(task_id) else { return false };
        if !task.status.is_terminal() || task.step_of.is_some() || self.state.is_untold(task_id) {
            return false;
        }
        let steps = task.flow.as_ref().map_or(0, |flow| flow.steps.len()) as u16;
        for step in 0..steps {
            self.state.remove_task(&step_id(task_id, step));
        }
        self.state.remove_task(task_id);
        true
    }

    /// Ends a task for good, live or not. `edit` adds what belongs to this end. Its open steps end
    /// with it; the task it is a step of goes on, or ends.
    pub(super) fn end_task(
        &mut self,
        task_id: &TaskId,
        status: TaskStatus,
        end: ExecutionEnd,
        edit: impl FnOnce(&mut Task),
    ) {
        let steps = self.give_up_steps(task_id);
        let step_of = self.end_row(task_id, status, end, edit);
        for step in steps {
            self.end_row(&step, TaskStatus::Cancelled, ExecutionEnd::Withdrawn, |step| {
                step.error = Some("its task has ended".to_owned());
            });
        }
        if let Some(step_of) = step_of {
            self.step_ended(&step_of, status);
        }
    }

    /// Ends one row; gives whose step it was.
    fn end_row(
        &mut self,
        task_id: &TaskId,
        status: TaskStatus,
        end: ExecutionEnd,
        edit: impl FnOnce(&mut Task),
    ) -> Option<StepOf> {
        let task = self.state.open_task(task_id)?;
        let (created_at_ms, step_of) = (task.created_at_ms, task.step_of.clone());
        let (callback_url, job) = (task.callback_url.clone(), task.job.clone());
        let holder = task.execution.as_ref().map(|execution| execution.node_id.clone());
        let now = self.now;
        let ran_for_ms = ran_for_ms(task, now);
        if let Some(node_id) = &holder {
            self.release_node(node_id, end);
        }
        let under_way = holder.is_some();
        if step_of.is_none() {
            self.count_end(status, now.saturating_sub(created_at_ms));
        }
        let attempt = self.edit_task(task_id, |task| {
            task.status = status;
            task.completed_at_ms = now;
            task.execution = None;
            task.node_id.clone_from(&holder);
            edit(task);
            // However it ended, it ran until now; in steps, since the first was begun.
            if task.execution_ms == 0 && task.flow.is_none() {
                task.execution_ms = ran_for_ms;
            } else if task.execution_ms == 0 && task.started_at_ms > 0 {
                task.execution_ms = now.saturating_sub(task.started_at_ms);
            }
            task.attempt
        });
        let ended = task_id.clone();
        let taken_from = holder.clone().filter(|_| end.may_go_on());
        let node_id = holder;
        self.facts.push(Fact::TaskEnded { task_id: ended, status, node_id, attempt, taken_from });
        if let Some(url) = callback_url {
            self.deliver("callback", url, DeliveryBody::Task(task_id.clone()));
        }
        if let Some(job) = job {
            let reading = self.reading.take();
            self.job_ended(task_id, status, &job, under_way, reading);
        }
        step_of
    }

    fn count_end(&mut self, status: TaskStatus, response_ms: TimeMs) {
        self.state.edit_counters(|counters| match status {
            TaskStatus::Completed => {
                counters.tasks_completed += 1;
                counters.response_ms_total += response_ms;
            }
            TaskStatus::Failed | TaskStatus::TimedOut | TaskStatus::DeadLetter => {
                counters.tasks_failed += 1;
            }
            TaskStatus::Cancelled => counters.tasks_cancelled += 1,
            TaskStatus::Pending
            | TaskStatus::Retrying
            | TaskStatus::Assigned
            | TaskStatus::Running
            | TaskStatus::Waiting
            | TaskStatus::Stepping => unreachable!("{status:?} is no end"),
        });
    }

    /// Changes a task's row. The caller has found it before.
    ///
    /// # Panics
    /// When the change is not a legal move: the state machine itself is wrong then, and every
    /// member must stop rather than go on from there.
    pub(super) fn edit_task<T>(
        &mut self,
        task_id: &TaskId,
        edit: impl FnOnce(&mut Task) -> T,
    ) -> T {
        let (index, aging_ms) = (self.index, self.state.policy().aging_ms);
        let State { tasks, rows, indexes, .. } = &mut *self.state;
        let seq = tasks.seq_of(task_id).expect("the caller found the task");
        let given = tasks.edit(rows, seq, |task| {
            let (before, was) = (Places::of(task, aging_ms), task.status);
            let given = edit(task);
            let now = task.status;
            let legal = was == now || was.may_become(now);
            assert!(legal, "task {task_id}: {was:?} must not become {now:?}");
            assert_eq!(now.is_live(), task.execution.is_some(), "task {task_id}");
            task.revision = index;
            indexes.change(seq, &before, &Places::of(task, aging_ms));
            given
        });
        given.expect("an ended task never changes")
    }
}

impl State {
    pub(super) fn insert_task(&mut self, task: Task) {
        self.indexes.insert(task.seq, &Places::of(&task, self.policy().aging_ms));
        self.tasks.insert(&mut self.rows, task);
    }

    /// Takes a task out, but for its payloads.
    pub(super) fn take_row(&mut self, task_id: &TaskId) -> Option<Task> {
        let task = self.tasks.remove(&mut self.rows, task_id)?;
        self.indexes.remove(task.seq, &Places::of(&task, self.policy().aging_ms));
        Some(task)
    }

    pub(super) fn remove_task(&mut self, task_id: &TaskId) {
        let Some(task) = self.take_row(task_id) else { return };
        for (part, payload) in [
            (BlobPart::Input, &task.input),
            (BlobPart::Result, &task.result),
            (BlobPart::Metadata, &task.metadata),
            (BlobPart::Requirements, &task.requirements_raw),
            (BlobPart::Metrics, &task.performance_metrics),
        ] {
            self.rows.delete_payload(task_id, part, payload);
        }
    }
}
