//! Workflows: their tasks are done one after another by the leader; here is what was done
//! (contract 5.4).

use super::apply::Txn;
use super::bot_command::{BotFact, BotOutcome, BotRejection, WorkflowStep};
use super::bots::check_text;
use super::rows::BlobPart;
use super::{NAME_MAX, Outcome, Rejection, Reply, State, blob_owner};
use crate::model::{
    DerivedId, Epoch, IdOf, Payload, TimeMs, Workflow, WorkflowStatus, WorkflowTask,
    workflow_digest,
};

/// The most tasks of a workflow.
pub const WORKFLOW_TASKS_MAX: usize = 100;
/// Workflows that may be under way.
pub const WORKFLOWS_MAX: usize = 1000;
/// Ended ones that are retained.
pub const WORKFLOWS_KEPT: usize = 10_000;
/// The longest parameters of a task of a workflow, in bytes.
pub const STEP_PARAMS_MAX: usize = 1024 * 1024;
/// The longest result of a task of a workflow, in bytes.
pub const STEP_RESULT_MAX: usize = 1024 * 1024;
/// What types, parameters and results of all workflows may take, in bytes.
pub const WORKFLOW_BYTES_MAX: u64 = 1 << 30;
/// Ended ones are retained for so long (contract 5.4).
const RETENTION_MS: TimeMs = 2 * 3_600_000;
/// The longest priority, in bytes.
const PRIORITY_MAX: usize = 64;
/// Ended ones that one command clears away, and when their bytes are too many.
const CLEARED_PER_COMMAND: usize = 4;
const CLEARED_FOR_ROOM: usize = 64;

impl State {
    /// The id of a workflow, whether it is there or not.
    #[must_use]
    pub fn workflow_id(&self, number: u64) -> DerivedId {
        DerivedId::of(IdOf::Workflow, self.bot_totals().seed, (number, 0))
    }

    /// The number of the workflow of an id, if it is there.
    #[must_use]
    pub fn workflow_number(&self, id: DerivedId) -> Option<u64> {
        let (number, _) = id.numbers(IdOf::Workflow, self.bot_totals().seed)?;
        self.workflows.get(&number).is_some().then_some(number)
    }

    /// One workflow. Payloads of its tasks lie under [`blob_owner`] of its number and the place of
    /// the task.
    #[must_use]
    pub fn workflow(&self, number: u64) -> Option<&Workflow> {
        self.workflows.get(&number)
    }

    /// Workflows that are under way, in the order they were made in.
    pub fn running_workflows(&self) -> impl Iterator<Item = (u64, &Workflow)> {
        let numbers = self.bot_index.running.iter();
        numbers.filter_map(|number| Some((*number, self.workflows.get(number)?)))
    }

    /// All workflows after a number, in the order they were made in.
    pub fn workflows_after(&self, after: u64) -> impl DoubleEndedIterator<Item = (u64, &Workflow)> {
        self.workflows.after(Some(after)).map(|(number, row)| (*number, row))
    }

    /// How many are under way, and how many have ended and are retained.
    #[must_use]
    pub fn workflows_len(&self) -> (usize, usize) {
        (self.bot_index.running.len(), self.bot_index.over.len())
    }

    /// Notes the bytes of a workflow that was just read.
    pub(super) fn note_workflow_bytes(&mut self, number: u64) {
        let Some(row) = self.workflows.get(&number) else { return };
        let (bytes, index) = (bytes_of(row), &mut self.bot_index);
        match row.status {
            WorkflowStatus::Running => index.running_bytes += bytes,
            WorkflowStatus::Completed | WorkflowStatus::Cancelled => index.over_bytes += bytes,
        }
    }

    /// Puts a workflow among those that run or have ended. Derived from its row.
    pub(super) fn note_workflow(&mut self, number: u64) {
        let Some(row) = self.workflows.get(&number) else { return };
        self.bot_index.requested.insert(row.request_id, number);
        if row.status == WorkflowStatus::Running {
            self.bot_index.running.insert(number);
        } else {
            self.bot_index.running.remove(&number);
            self.bot_index.over.insert((row.ended_at_ms, number));
        }
    }
}

impl Txn<'_> {
    /// Asked again it makes nothing, also when the answer of the first time is forgotten: whoever waits
    /// for hours asks again under its key, and services must not be called twice for that. Whether it is
    /// the same that is asked is seen by who asked ([`Workflow::asked`]).
    pub(super) fn create_workflow(&mut self, tasks: Vec<WorkflowStep>, priority: String) -> Reply {
        if let Some(number) = self.state.bot_index.requested.get(&self.request_id) {
            let workflow = self.state.workflow_id(*number);
            return Ok(Outcome::Bot(BotOutcome::WorkflowCreated { workflow }));
        }
        check_text("priority", &priority, PRIORITY_MAX)?;
        if tasks.len() > WORKFLOW_TASKS_MAX {
            let text = format!("tasks holds at most {WORKFLOW_TASKS_MAX} tasks");
            return Err(BotRejection::Invalid(text).into());
        }
        for task in &tasks {
            check_text("type", &task.task_type, NAME_MAX)?;
            check_text("params", &task.params, STEP_PARAMS_MAX)?;
        }
        let max = WORKFLOWS_MAX as u64;
        let lens = tasks.iter().map(|task| task.task_type.len() + task.params.len());
        let asked = lens.sum::<usize>() as u64;
        if self.state.bot_index.running.len() >= WORKFLOWS_MAX {
            return Err(BotRejection::TooManyWorkflows { max }.into());
        }
        if self.state.bot_index.running_bytes + asked > WORKFLOW_BYTES_MAX {
            let max = WORKFLOW_BYTES_MAX;
            return Err(BotRejection::WorkflowsTooLarge { max }.into());
        }
        self.ensure_bot_seed();
        let number = self.state.bot_totals().workflows + 1;
        self.state.edit_bot_totals(|totals| totals.workflows = number);
        let texts = tasks.iter().map(|task| (task.task_type.as_str(), task.params.as_str()));
        let asked_digest = workflow_digest(texts, &priority);
        let rows = (0u32..).zip(tasks).map(|(place, task)| {
            let (owner, part) = (blob_owner(number, place), BlobPart::StepParams);
            let params = self.state.rows.put_payload_beyond(64, &owner, part, task.params);
            WorkflowTask { task_type: task.task_type, params, result: Payload::Absent }
        });
        let row = Workflow {
            request_id: self.request_id,
            asked: asked_digest,
            tasks: rows.collect(),
            priority,
            position: 0,
            status: WorkflowStatus::Running,
            created_at_ms: self.now,
            updated_at_ms: self.now,
            ended_at_ms: 0,
        };
        self.state.workflows.put(&mut self.state.rows, number, row);
        self.state.bot_index.running_bytes += asked;
        self.move_workflow(number, |_| {});
        self.clear_workflows();
        let workflow = self.state.workflow_id(number);
        Ok(Outcome::Bot(BotOutcome::WorkflowCreated { workflow }))
    }

    pub(super) fn record_step(
        &mut self,
        epoch: Epoch,
        number: u64,
        seen: u32,
        result: String,
    ) -> Reply {
        self.check_epoch(epoch)?;
        check_text("result", &result, STEP_RESULT_MAX)?;
        let row = self.state.workflow(number).filter(|row| row.status == WorkflowStatus::Running);
        if row.is_none_or(|row| row.position != seen) {
            return Ok(Outcome::Judged { accepted: 0, stale: 1 });
        }
        // The step is done either way: its workflow goes on, with a line in place of the result.
        let result = match self.state.bot_index.running_bytes + result.len() as u64 {
            0..=WORKFLOW_BYTES_MAX => result,
            _ => format!(r#"{{"error":"workflows under way hold {WORKFLOW_BYTES_MAX} bytes"}}"#),
        };
        self.state.bot_index.running_bytes += result.len() as u64;
        let (owner, part) = (blob_owner(number, seen), BlobPart::StepResult);
        let result = self.state.rows.put_payload_beyond(64, &owner, part, result);
        self.move_workflow(number, |row| {
            if let Some(task) = row.tasks.get_mut(seen as usize) {
                task.result = result;
            }
            row.position += 1;
        });
        self.clear_workflows();
        Ok(Outcome::Judged { accepted: 1, stale: 0 })
    }

    pub(super) fn cancel_workflow(&mut self, workflow: DerivedId) -> Reply {
        let missing = || Rejection::from(BotRejection::WorkflowNotFound { workflow });
        let number = self.state.workflow_number(workflow).ok_or_else(missing)?;
        let row = self.state.workflow(number).ok_or_else(missing)?;
        match row.status {
            WorkflowStatus::Running => {}
            WorkflowStatus::Cancelled => return Ok(Outcome::Done),
            WorkflowStatus::Completed => return Err(BotRejection::WorkflowEnded.into()),
        }
        self.move_workflow(number, |row| row.status = WorkflowStatus::Cancelled);
        self.clear_workflows();
        Ok(Outcome::Done)
    }

    /// Changes a workflow, ends it when its tasks are done, and tells of it.
    fn move_workflow(&mut self, number: u64, change: impl FnOnce(&mut Workflow)) {
        let now = self.now;
        let stands = self.state.workflows.edit(&mut self.state.rows, &number, |row| {
            change(row);
            row.updated_at_ms = now;
            if row.status == WorkflowStatus::Running && row.position as usize == row.tasks.len() {
                row.status = WorkflowStatus::Completed;
            }
            if row.status != WorkflowStatus::Running {
                row.ended_at_ms = now;
            }
            (row.status.as_str(), row.position)
        });
        let Some((status, position)) = stands else { return };
        if status != WorkflowStatus::Running.as_str() {
            let bytes = self.state.workflow(number).map_or(0, bytes_of);
            self.state.bot_index.running_bytes -= bytes;
            self.state.bot_index.over_bytes += bytes;
        }
        self.state.note_workflow(number);
        let workflow = self.state.workflow_id(number);
        self.tell_bots(BotFact::WorkflowChanged { workflow, status, position });
    }

    /// Forgets those that ended long ago, or beyond those that are retained.
    fn clear_workflows(&mut self) {
        for turn in 0..CLEARED_FOR_ROOM {
            let index = &self.state.bot_index;
            let (oldest, len) = (index.over.first(), index.over.len());
            let is_full = index.running_bytes + index.over_bytes > WORKFLOW_BYTES_MAX;
            let is_old = |at: TimeMs| at.saturating_add(RETENTION_MS) <= self.now;
            let Some((at, number)) = oldest.copied() else { return };
            let is_over = turn < CLEARED_PER_COMMAND && (len > WORKFLOWS_KEPT || is_old(at));
            if !is_full && !is_over {
                return;
            }
            self.state.bot_index.over.remove(&(at, number));
            let Some(row) = self.state.workflows.remove(&mut self.state.rows, &number) else {
                return;
            };
            self.state.bot_index.requested.remove(&row.request_id);
            self.state.bot_index.over_bytes -= bytes_of(&row);
            for (place, task) in (0u32..).zip(&row.tasks) {
                let owner = blob_owner(number, place);
                self.state.rows.delete_payload(&owner, BlobPart::StepParams, &task.params);
                self.state.rows.delete_payload(&owner, BlobPart::StepResult, &task.result);
            }
        }
    }
}

/// What the types, parameters and results of a workflow take, in bytes.
pub(super) fn bytes_of(row: &Workflow) -> u64 {
    let len = |task: &WorkflowTask| task.task_type.len() + task.params.len() + task.result.len();
    row.tasks.iter().map(len).sum::<usize>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RequestId;
    use crate::state::scripts::Script;
    use crate::state::{BotCommand, Command, Envelope, LogEntry, check_bots, encode_entry};

    /// A workflow of some tasks, of which nothing is done.
    fn begun(tasks: &str) -> Script {
        let mut script = Script::default();
        for line in ["at 1000", "epoch 1.1", &format!("bots workflow {tasks}")] {
            script.run(line, &mut String::new());
        }
        script
    }

    fn record(script: &mut Script, seen: u32, result: String) -> Reply {
        let epoch = script.state.epoch();
        say(script, BotCommand::RecordStep { epoch, workflow: 1, seen, result })
    }

    fn say(script: &mut Script, command: BotCommand) -> Reply {
        let request_id = RequestId(1 << 100 | u128::from(script.index + 1));
        say_as(script, request_id, 2000, command)
    }

    fn say_as(
        script: &mut Script,
        request_id: RequestId,
        at_ms: u64,
        command: BotCommand,
    ) -> Reply {
        script.index += 1;
        let command = Command::Bot(Box::new(command));
        let envelope = Envelope { request_id, principal: String::new(), command };
        let entry = encode_entry(&LogEntry { at_ms, envelopes: vec![envelope] });
        let applied = script.state.apply(script.index, &entry).unwrap();
        script.state.take_changes();
        applied.replies.into_iter().next().unwrap()
    }

    fn result_lens(script: &Script) -> Vec<usize> {
        script.state.workflow(1).unwrap().tasks.iter().map(|task| task.result.len()).collect()
    }

    /// Whatever a service says, and whoever proposes it.
    #[test]
    fn results_are_bounded_one_by_one_and_counted_together() {
        let mut script = begun("a b c");
        let of_types_and_params = 3 + 3 * "{}".len() as u64;
        assert_eq!(script.state.bot_index.running_bytes, of_types_and_params);
        let recorded = Ok(Outcome::Judged { accepted: 1, stale: 0 });
        for place in 0..2 {
            let beyond = record(&mut script, place, "1".repeat(STEP_RESULT_MAX + 1));
            assert_eq!(beyond.unwrap_err().code(), "INVALID_BOT");
            assert_eq!(record(&mut script, place, "1".repeat(STEP_RESULT_MAX)), recorded);
        }
        assert_eq!(result_lens(&script), [STEP_RESULT_MAX, STEP_RESULT_MAX, 0]);
        let all = of_types_and_params + 2 * STEP_RESULT_MAX as u64;
        assert_eq!(script.state.bot_index.running_bytes, all);
        assert_eq!(check_bots(&script.state), Ok(()));
        assert_eq!(record(&mut script, 2, "1".to_owned()), recorded);
        let index = &script.state.bot_index;
        assert_eq!((index.running_bytes, index.over_bytes), (0, all + 1));
        assert_eq!(check_bots(&script.state), Ok(()));
    }

    /// A client that waited for three videos asked again under its key after its first answer was
    /// forgotten: a second workflow was made, and every service was called again.
    #[test]
    fn a_request_makes_one_workflow_however_long_it_is_asked_again() {
        let mut script = begun("x");
        let first = script.state.workflow(1).unwrap().request_id;
        let create = || {
            let task = WorkflowStep { task_type: "x".to_owned(), params: "{}".to_owned() };
            BotCommand::CreateWorkflow { tasks: vec![task], priority: String::new() }
        };
        let workflow = script.state.workflow_id(1);
        let same = Ok(Outcome::Bot(BotOutcome::WorkflowCreated { workflow }));
        // Time passes by ten seconds an entry at most, as the ledger counts it.
        let mut at_ms = 2000;
        while script.state.request(first).is_some() {
            at_ms += 9_000;
            say_as(
                &mut script,
                RequestId(7 << 90 | u128::from(at_ms)),
                at_ms,
                BotCommand::CancelWorkflow { workflow: DerivedId::of(IdOf::Workflow, 1, (9, 0)) },
            )
            .unwrap_err();
        }
        assert_eq!(say_as(&mut script, first, at_ms, create()), same);
        assert_eq!(
            record(&mut script, 0, "1".to_owned()),
            Ok(Outcome::Judged { accepted: 1, stale: 0 })
        );
        assert_eq!(say_as(&mut script, first, at_ms, create()), same, "also when it is over");
        assert_eq!(script.state.bot_totals().workflows, 1);
        assert_eq!(check_bots(&script.state), Ok(()));
        // With the workflow it goes.
        at_ms += RETENTION_MS;
        say_as(&mut script, RequestId(9), at_ms, create()).unwrap();
        assert!(!script.state.bot_index.requested.contains_key(&first));
        assert_eq!(script.state.workflows_len(), (1, 0));
    }

    #[test]
    fn a_result_that_all_workflows_have_no_room_for_is_an_error() {
        let mut script = begun("a b c");
        // As if there were others.
        script.state.bot_index.running_bytes = WORKFLOW_BYTES_MAX - 100;
        let recorded = Ok(Outcome::Judged { accepted: 1, stale: 0 });
        assert_eq!(record(&mut script, 0, "1".repeat(100)), recorded);
        assert_eq!(record(&mut script, 1, "1".repeat(2)), recorded);
        let [fits, error, _] = &script.state.workflow(1).unwrap().tasks[..] else { panic!() };
        assert_eq!(fits.result.len(), 100);
        let text = r#"{"error":"workflows under way hold 1073741824 bytes"}"#;
        assert_eq!(error.result, Payload::Inline(text.into()));
        let task = WorkflowStep { task_type: "d".repeat(60), params: "{}".to_owned() };
        let another = BotCommand::CreateWorkflow { tasks: vec![task], priority: String::new() };
        assert_eq!(say(&mut script, another).unwrap_err().code(), "TOO_MANY_WORKFLOWS");
    }
}
