//! Dead letters: tasks that used up every retry, for an operator to try again or to delete.

use super::apply::Txn;
use super::rows::BlobPart;
use super::{Fact, Outcome, Rejection, Reply, State};
use crate::model::{StepState, Task, TaskId, TaskStatus};

impl Txn<'_> {
    pub(super) fn replay_tasks(&mut self, task_ids: &[TaskId]) -> Reply {
        Self::check_named(task_ids)?;
        let rows = self.check_rows(task_ids, State::may_be_replayed)?;
        self.check_queue(rows)?;
        let (mut accepted, mut stale) = (0, 0);
        for task_id in task_ids {
            if self.replay_task(task_id) {
                accepted += 1;
            } else {
                stale += 1;
            }
        }
        Ok(self.judged(task_ids, Outcome::Judged { accepted, stale }))
    }

    /// Says of the only task that was named why nothing was done, as far as that shows later.
    fn judged(&self, task_ids: &[TaskId], outcome: Outcome) -> Outcome {
        match task_ids {
            [task_id] if outcome == (Outcome::Judged { accepted: 0, stale: 1 }) => {
                let status = self.state.task(task_id).map(|task| task.status);
                Outcome::LeftAlone { status }
            }
            _ => outcome,
        }
    }

    /// Refuses too many tasks. They may be none: that there was nothing to do is recorded, too.
    fn check_named(task_ids: &[TaskId]) -> Result<(), Rejection> {
        if task_ids.is_empty() { Ok(()) } else { Self::check_batch(task_ids.len()) }
    }

    /// Refuses what would change too many rows at once; gives how many it is.
    fn check_rows(
        &self,
        task_ids: &[TaskId],
        is_meant: impl Fn(&State, &Task) -> bool,
    ) -> Result<usize, Rejection> {
        let tasks = task_ids.iter().filter_map(|task_id| self.state.task(task_id));
        let rows = tasks.filter(|task| is_meant(self.state, task)).map(|task| task.rows()).sum();
        if rows > 0 {
            Self::check_batch(rows)?;
        }
        Ok(rows)
    }

    /// Puts a dead letter back under its own id, as a new task that has never been tried. Only the
    /// attempt goes on counting, so that late reports of old tries stay refused; and steps that
    /// have ended well are not done again.
    fn replay_task(&mut self, task_id: &TaskId) -> bool {
        let task = self.state.task(task_id);
        if !task.is_some_and(|task| self.state.may_be_replayed(&task)) {
            return false;
        }
        let mut again = Vec::new();
        let flow = self.state.task(task_id).and_then(|task| task.flow.clone());
        let flow = flow.map(|mut flow| {
            for (place, step) in (0u16..).zip(&mut flow.steps) {
                if step.state != StepState::Completed {
                    step.state = StepState::Waiting;
                    let id = super::step_id(task_id, place);
                    step.attempt = self.state.task(&id).map_or(step.attempt, |row| row.attempt);
                    again.push(id);
                }
            }
            flow
        });
        for step in &again {
            self.state.remove_task(step);
        }
        let Some(old) = self.state.take_row(task_id) else { return false };
        self.state.rows.delete_payload(task_id, BlobPart::Result, &old.result);
        self.state.rows.delete_payload(task_id, BlobPart::Metrics, &old.performance_metrics);
        self.state.edit_counters(|counters| {
            counters.last_seq += 1;
            counters.tasks_submitted += 1;
        });
        let task = Task {
            seq: self.state.counters().last_seq,
            status: if flow.is_some() { TaskStatus::Waiting } else { TaskStatus::Pending },
            retry_count: 0,
            not_before_ms: 0,
            execution: None,
            // Its time begins anew, and a deadline that has passed would end it at once.
            created_at_ms: self.now,
            waits_from_ms: self.now,
            deadline_ms: None,
            started_at_ms: 0,
            completed_at_ms: 0,
            node_id: None,
            agent_id: None,
            result: crate::model::Payload::Absent,
            error: None,
            execution_ms: 0,
            performance_metrics: crate::model::Payload::Absent,
            revision: self.index,
            flow,
            ..old
        };
        self.state.insert_task(task);
        self.facts.push(Fact::TaskSubmitted { task_id: task_id.clone() });
        self.open_steps(task_id);
        true
    }

    pub(super) fn purge_tasks(&mut self, task_ids: &[TaskId]) -> Reply {
        Self::check_named(task_ids)?;
        self.check_rows(task_ids, State::may_be_purged)?;
        let is_meant = |task_id: &&TaskId| {
            self.state.task(task_id).is_some_and(|task| self.state.may_be_purged(&task))
        };
        let dead: Vec<TaskId> = task_ids.iter().filter(is_meant).cloned().collect();
        let outcome = self.retire(dead, task_ids.len());
        Ok(self.judged(task_ids, outcome))
    }
}

impl State {
    /// Whether a task is a dead letter that may be deleted. One whose end is still to be told is
    /// left alone: its callback would tell of what came after.
    #[must_use]
    pub fn may_be_purged(&self, task: &Task) -> bool {
        let is_dead = task.status == TaskStatus::DeadLetter && task.step_of.is_none();
        is_dead && !self.is_untold(&task.task_id)
    }

    /// Whether it may be tried again as well: what a job came to was settled when it ended.
    #[must_use]
    pub fn may_be_replayed(&self, task: &Task) -> bool {
        task.job.is_none() && self.may_be_purged(task)
    }
}
