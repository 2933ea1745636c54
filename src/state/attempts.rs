//! How attempts end: answers to dispatches, reports, timers (contract 2.7).

use super::apply::Txn;
use super::command::{Dispatch, DispatchResult, ExpiryKind, TaskExpiry, TaskOutcome, TaskReport};
use super::indexes::attempt_due_ms;
use super::nodes::ExecutionEnd;
use super::rows::BlobPart;
use super::{Fact, Outcome, Rejection, Reply};
use crate::model::{Epoch, LastTry, NodeId, Task, TaskFailure, TaskId, TaskStatus, TimeMs};

impl Txn<'_> {
    pub(super) fn record_dispatches(&mut self, epoch: Epoch, dispatches: Vec<Dispatch>) -> Reply {
        self.check_epoch(epoch)?;
        Self::check_batch(dispatches.len())?;
        let (mut accepted, mut stale) = (0, 0);
        for dispatch in dispatches {
            if self.record_dispatch(dispatch) {
                accepted += 1;
            } else {
                stale += 1;
            }
        }
        Ok(Outcome::Judged { accepted, stale })
    }

    /// Takes a node's answer to a dispatch, unless that attempt is over.
    fn record_dispatch(&mut self, dispatch: Dispatch) -> bool {
        let Dispatch { task_id, attempt, again, result } = dispatch;
        let Some(task) = self.state.open_task(&task_id) else { return false };
        if task.execution.as_ref().is_none_or(|execution| execution.attempt != attempt) {
            return false;
        }
        let status = task.status;
        match result {
            // A node that reports faster than it acknowledges has started it long since.
            DispatchResult::Acknowledged if status == TaskStatus::Running => false,
            DispatchResult::Acknowledged => {
                self.start_attempt(&task_id, attempt);
                true
            }
            DispatchResult::Finished(outcome) => {
                let holder = task.live_on().cloned();
                // Whoever was waited for in vain has said nothing, unlike one who reports.
                let taken_from = holder.filter(|_| outcome.is_time_out());
                self.finish_attempt(&task_id, AttemptEnd { taken_from, ..AttemptEnd::of(outcome) });
                true
            }
            DispatchResult::Refused { retry_after_ms } => {
                let not_before_ms = self.now.saturating_add(retry_after_ms);
                // Whoever refuses what an earlier reign may have handed over speaks of this call alone.
                let may_have_run = status == TaskStatus::Running || again;
                self.take_back(&task_id, not_before_ms, may_have_run, None);
                true
            }
        }
    }

    /// Takes the live attempt back, without blame for task or node: no retry is used. A job that may
    /// have run used what it was promised, also when its holder never said that it began: the
    /// acknowledgement may be what was lost. Where a budget does not hold another try, it ends.
    /// `taken_from` is its holder, if that may still be at it.
    pub(super) fn take_back(
        &mut self,
        task_id: &TaskId,
        not_before_ms: TimeMs,
        may_have_run: bool,
        taken_from: Option<NodeId>,
    ) {
        let Some(task) = self.state.open_task(task_id) else {
            // One that was taken back with it may have ended its campaign, and so this.
            return;
        };
        let attempt = task.attempt;
        let end = match taken_from {
            Some(_) => ExecutionEnd::Withdrawn,
            None => ExecutionEnd::GivenBack,
        };
        let paid = if may_have_run { self.pay_attempt(task_id) } else { Ok(()) };
        if let Err(resource) = paid {
            let word = resource.as_str();
            let error = format!("taken back; the budget of {word} holds no other try");
            self.end_task(task_id, TaskStatus::Failed, end, |task| task.error = Some(error));
            return;
        }
        self.withdraw_attempt(task_id, not_before_ms, end);
        self.facts.push(Fact::TaskQueued { task_id: task_id.clone(), attempt, taken_from });
    }

    fn start_attempt(&mut self, task_id: &TaskId, attempt: u32) {
        let now = self.now;
        self.edit_task(task_id, |task| {
            task.status = TaskStatus::Running;
            task.started_at_ms = now;
            if let Some(execution) = &mut task.execution {
                execution.started_at_ms = now;
            }
        });
        self.facts.push(Fact::TaskStarted { task_id: task_id.clone(), attempt });
    }

    pub(super) fn report_tasks(&mut self, reports: Vec<TaskReport>) -> Reply {
        Self::check_batch(reports.len())?;
        if reports.len() == 1 {
            let unknown = |report: &TaskReport| !self.state.has_task(&report.task_id);
            if reports.iter().any(unknown) {
                return Err(Rejection::TaskNotFound);
            }
        }
        let single = reports.len() == 1;
        let (mut accepted, mut stale, mut last) = (0, 0, None);
        for report in reports {
            let task_id = report.task_id.clone();
            let taken = self.report_task(report);
            if taken {
                accepted += 1;
            } else {
                stale += 1;
            }
            last = self.state.task(&task_id).map(|task| (task.status, task.attempt, !taken));
        }
        match last {
            Some((status, attempt, stale)) if single => {
                Ok(Outcome::TaskReported { status, attempt, stale })
            }
            _ => Ok(Outcome::Judged { accepted, stale }),
        }
    }

    /// Takes a report if it is of the live attempt; anything else is an old story.
    fn report_task(&mut self, report: TaskReport) -> bool {
        let Some(task) = self.state.open_task(&report.task_id) else { return false };
        if !is_of_live_attempt(task, &report) {
            return false;
        }
        let task_id = report.task_id.clone();
        let end = AttemptEnd {
            agent_id: report.agent_id,
            execution_ms: report.execution_ms,
            performance_metrics: report.performance_metrics,
            ..AttemptEnd::of(report.outcome)
        };
        self.finish_attempt(&task_id, end);
        true
    }

    /// Ends the live attempt with what the node said.
    fn finish_attempt(&mut self, task_id: &TaskId, end: AttemptEnd) {
        match end.outcome {
            TaskOutcome::Completed { result } => {
                self.read_job_result(task_id, &result);
                let rows = &mut self.state.rows;
                let result = rows.put_payload(task_id, BlobPart::Result, result);
                let metrics = rows.put_payload(task_id, BlobPart::Metrics, end.performance_metrics);
                let (agent_id, execution_ms) = (end.agent_id, end.execution_ms);
                self.end_task(task_id, TaskStatus::Completed, ExecutionEnd::Completed, |task| {
                    task.result = result;
                    task.performance_metrics = metrics;
                    task.error = None;
                    task.agent_id = agent_id;
                    task.execution_ms = execution_ms;
                });
            }
            TaskOutcome::Failed { failure: TaskFailure::Permanent, error } => {
                let metrics = self.state.rows.put_payload(
                    task_id,
                    BlobPart::Metrics,
                    end.performance_metrics,
                );
                let (agent_id, execution_ms) = (end.agent_id, end.execution_ms);
                self.end_task(task_id, TaskStatus::Failed, ExecutionEnd::Refused, |task| {
                    task.error = Some(error);
                    task.performance_metrics = metrics;
                    task.agent_id = agent_id;
                    task.execution_ms = execution_ms;
                });
            }
            TaskOutcome::Failed { failure, error } => {
                self.fail_attempt(task_id, failure, error, end.taken_from);
            }
        }
    }

    /// Ends the live attempt without a result: another try, or a dead letter. `taken_from` is its
    /// holder, if that may still be at it.
    pub(super) fn fail_attempt(
        &mut self,
        task_id: &TaskId,
        failure: TaskFailure,
        error: String,
        taken_from: Option<NodeId>,
    ) {
        let Some(task) = self.state.open_task(task_id) else { return };
        let by_agents = task.requirements.agent_type.is_some();
        let last_try = match failure {
            TaskFailure::Network if by_agents => LastTry::Unavailable,
            TaskFailure::Timeout => LastTry::TimedOut,
            TaskFailure::Network
            | TaskFailure::NodeLost
            | TaskFailure::Retryable
            | TaskFailure::Permanent => LastTry::Other,
        };
        let end = match taken_from {
            Some(_) => ExecutionEnd::Lost,
            None => ExecutionEnd::Failed,
        };
        if task.retry_count >= task.max_retries {
            let error = match failure {
                TaskFailure::NodeLost => format!("{error}, max retries exceeded"),
                TaskFailure::Network
                | TaskFailure::Timeout
                | TaskFailure::Retryable
                | TaskFailure::Permanent => error,
            };
            self.end_task(task_id, TaskStatus::DeadLetter, end, |task| {
                task.error = Some(error);
                task.last_try = last_try;
                note_time_out(task, failure);
            });
            return;
        }
        let (attempt, retry) = (task.attempt, task.retry_count + 1);
        let step_of = task.step_of.clone();
        if let Err(resource) = self.pay_attempt(task_id) {
            let error = format!("{error}; the budget of {} holds no other try", resource.as_str());
            self.end_task(task_id, TaskStatus::Failed, end, |task| {
                task.error = Some(error);
                task.last_try = last_try;
                note_time_out(task, failure);
            });
            return;
        }
        let Some(task) = self.state.open_task(task_id) else { return };
        let by_agents = task.requirements.agent_type.is_some();
        // A lost node says nothing against the task, so it goes back to the front at once.
        let wait_ms = match failure {
            TaskFailure::NodeLost => 0,
            TaskFailure::Network
            | TaskFailure::Timeout
            | TaskFailure::Retryable
            | TaskFailure::Permanent
                if by_agents =>
            {
                self.state.policy().back_off_ms(retry + 1)
            }
            TaskFailure::Network
            | TaskFailure::Timeout
            | TaskFailure::Retryable
            | TaskFailure::Permanent => self.state.policy().back_off_ms(retry),
        };
        let not_before_ms = self.now.saturating_add(wait_ms);
        self.withdraw_attempt(task_id, not_before_ms, end);
        self.edit_task(task_id, |task| {
            task.retry_count = retry;
            task.error = Some(error);
            task.last_try = last_try;
        });
        self.state.edit_counters(|counters| counters.retries += 1);
        if let Some(of) = step_of.filter(|of| self.state.open_task(&of.task_id).is_some()) {
            self.edit_task(&of.task_id, |task| task.retry_count += 1);
        }
        let task_id = task_id.clone();
        self.facts.push(Fact::TaskRetried { task_id, attempt, not_before_ms, taken_from });
    }

    /// Takes the live attempt back: the task waits until `not_before_ms`, or is queued at once.
    pub(super) fn withdraw_attempt(
        &mut self,
        task_id: &TaskId,
        not_before_ms: TimeMs,
        end: ExecutionEnd,
    ) {
        let Some(task) = self.state.open_task(task_id) else { return };
        if let Some(node_id) = task.execution.as_ref().map(|execution| execution.node_id.clone()) {
            self.release_node(&node_id, end);
        }
        let (waits, now) = (not_before_ms > self.now, self.now);
        self.edit_task(task_id, |task| {
            task.status = if waits { TaskStatus::Retrying } else { TaskStatus::Pending };
            task.not_before_ms = not_before_ms;
            task.waits_from_ms = now;
            task.execution = None;
        });
    }

    pub(super) fn expire_tasks(&mut self, epoch: Epoch, expiries: Vec<TaskExpiry>) -> Reply {
        self.check_epoch(epoch)?;
        Self::check_batch(expiries.len())?;
        let (mut accepted, mut stale) = (0, 0);
        for expiry in expiries {
            if self.expire_task(&expiry) {
                accepted += 1;
            } else {
                stale += 1;
            }
        }
        Ok(Outcome::Judged { accepted, stale })
    }

    /// Lets a timer act, if the task is as it was when the timer was read and time has come.
    fn expire_task(&mut self, expiry: &TaskExpiry) -> bool {
        let Some(task) = self.state.open_task(&expiry.task_id) else { return false };
        if task.revision != expiry.seen_revision {
            return false;
        }
        let due = match expiry.kind {
            ExpiryKind::Attempt => attempt_due_ms(task),
            ExpiryKind::Deadline => task.deadline_ms,
            ExpiryKind::BackOff => {
                (task.status == TaskStatus::Retrying).then_some(task.not_before_ms)
            }
        };
        if due.is_none_or(|due| due > self.now) {
            return false;
        }
        match expiry.kind {
            ExpiryKind::Attempt if task.flow.is_some() => {
                let error = format!("no result within {} ms", task.timeout_ms);
                self.end_task(
                    &expiry.task_id,
                    TaskStatus::TimedOut,
                    ExecutionEnd::Withdrawn,
                    |task| task.error = Some(error),
                );
            }
            ExpiryKind::Attempt => {
                let error = format!("no result within {} ms", task.timeout_ms);
                let holder = task.live_on().cloned();
                self.fail_attempt(&expiry.task_id, TaskFailure::Timeout, error, holder);
            }
            ExpiryKind::Deadline => {
                self.end_task(
                    &expiry.task_id,
                    TaskStatus::TimedOut,
                    ExecutionEnd::Withdrawn,
                    |task| task.error = Some("the deadline has passed".to_owned()),
                );
            }
            ExpiryKind::BackOff => {
                let attempt = self.edit_task(&expiry.task_id, |task| {
                    task.status = TaskStatus::Pending;
                    task.attempt
                });
                let (task_id, taken_from) = (expiry.task_id.clone(), None);
                self.facts.push(Fact::TaskQueued { task_id, attempt, taken_from });
            }
        }
        true
    }
}

/// A job that ends tells whether that was because its last attempt took too long.
fn note_time_out(task: &mut Task, failure: TaskFailure) {
    if let Some(job) = &mut task.job {
        job.timed_out = failure == TaskFailure::Timeout;
    }
}

/// How an attempt ended, with what is known of it.
struct AttemptEnd {
    outcome: TaskOutcome,
    agent_id: Option<String>,
    execution_ms: u64,
    performance_metrics: String,
    /// Its holder, if that may still be at it.
    taken_from: Option<NodeId>,
}

impl AttemptEnd {
    fn of(outcome: TaskOutcome) -> Self {
        Self {
            outcome,
            agent_id: None,
            execution_ms: 0,
            performance_metrics: String::new(),
            taken_from: None,
        }
    }
}

impl TaskOutcome {
    fn is_time_out(&self) -> bool {
        matches!(self, Self::Failed { failure: TaskFailure::Timeout, .. })
    }
}

/// Reports of those who can name attempt and epoch must name the live ones; others are matched
/// by node, or by there being a live execution at all (design: leader epoch).
fn is_of_live_attempt(task: &Task, report: &TaskReport) -> bool {
    let Some(execution) = &task.execution else { return false };
    report.attempt.is_none_or(|attempt| attempt == execution.attempt)
        && report.epoch.is_none_or(|epoch| epoch == execution.epoch)
        && report.node_id.as_ref().is_none_or(|node_id| *node_id == execution.node_id)
}

pub(super) fn ran_for_ms(task: &Task, now: TimeMs) -> u64 {
    let since = match &task.execution {
        Some(execution) if execution.started_at_ms > 0 => execution.started_at_ms,
        Some(execution) => execution.assigned_at_ms,
        None => now,
    };
    now.saturating_sub(since)
}
