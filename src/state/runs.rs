//! Runs: steps of orchestrators, kept for the record (contract 3.2, 3.4).
//!
//! A run is decided in phases, one command each. Which phase comes next is in the run's row, so a
//! leader that dies in the middle leaves a run that the next one goes on with, and nothing is launched
//! that the record does not name: the decision and what it does are one entry.

use super::apply::Txn;
use super::campaign_command::{StepAction, StepEffect};
use super::launches::{Refusal, object};
use super::nodes::ExecutionEnd;
use super::orchestrators::{check_name, unknown};
use super::{CONTEXT_MAX, CampaignFact, Outcome, Rejection, Reply, State};
use crate::model::{
    CampaignStatus, Decision, DecisionKind, DecisionPage, Epoch, Job, JobKind, Run, RunId,
    RunPhase, StepResult, TaskId, TaskStatus, TimeMs, Urgency,
};

/// Runs remembered; the oldest are forgotten first, but not the newest fifty of an orchestrator.
pub const RUNS_MAX: usize = 1000;
/// Runs of one orchestrator that are kept however often others run.
pub(super) const RUNS_EACH: u64 = 50;
/// Decisions of one command.
pub const ACTIONS_MAX: usize = 512;
/// Decisions in one row: the home keeps values of this size in its own pages.
const PAGE_DECISIONS: usize = 16;
/// The longest reason of a decision, in bytes.
const REASON_MAX: usize = 256;

impl State {
    /// One run.
    #[must_use]
    pub fn run(&self, run_id: RunId) -> Option<&Run> {
        self.runs.get(&run_id)
    }

    /// All runs that are remembered, oldest first.
    pub fn runs(&self) -> impl DoubleEndedIterator<Item = &Run> {
        self.runs.iter().map(|(_, run)| run)
    }

    /// The decisions of a run, in order.
    pub fn decisions(&self, run_id: RunId) -> impl Iterator<Item = &Decision> {
        let pages = self.decision_pages.range((run_id, 0), (run_id, u32::MAX));
        pages.flat_map(|(_, page)| &page.decisions)
    }

    /// Runs under way, one of each orchestrator at most.
    pub fn open_runs(&self) -> impl Iterator<Item = &Run> {
        self.orchestrators().filter_map(|orchestrator| self.run(orchestrator.open_run?))
    }
}

impl Txn<'_> {
    /// A step that a client asks for (contract 3.3 `run_once`).
    pub(super) fn begin_run(&mut self, name: &str, triggered_by: String, context: String) -> Reply {
        let orchestrator = self.state.orchestrator(name).ok_or_else(|| unknown(name))?;
        check_name("triggered_by", &triggered_by)?;
        if context.len() > CONTEXT_MAX {
            let text = format!("trigger_context holds at most {CONTEXT_MAX} bytes");
            return Err(Rejection::InvalidCampaign(text));
        }
        if !orchestrator.may_launch() {
            return Err(Rejection::OrchestratorNotActive { name: name.to_owned() });
        }
        if let Some(run_id) = orchestrator.open_run {
            return Err(Rejection::RunOpen { run_id });
        }
        Ok(Outcome::RunBegun { run_id: self.open_run(name, triggered_by, context, 0) })
    }

    /// Opens a run of an orchestrator that has none open.
    pub(super) fn open_run(
        &mut self,
        name: &str,
        triggered_by: String,
        context: String,
        slot_ms: TimeMs,
    ) -> RunId {
        let run_id = self.state.next_run_id();
        let run = Run {
            run_id,
            orchestrator: name.to_owned(),
            triggered_by,
            context,
            slot_ms,
            started_at_ms: self.now,
            completed_at_ms: 0,
            phase: RunPhase::Retraining,
            error: String::new(),
            pages: 0,
            advanced: Vec::new(),
            simulations: 0,
            experiments: 0,
            retrained: Vec::new(),
            task_id: None,
            result: String::new(),
            stats_before: self.state.fleet_stats(self.now),
            stats_after: None,
        };
        self.state.runs.put(&mut self.state.rows, run_id, run);
        let now = self.now;
        let last_ended_ms = self.state.orchestrator(name).map_or(0, |row| row.last_run_ended_ms);
        self.state.schedules.edit(&mut self.state.rows, &name.to_owned(), |schedule| {
            schedule.run_begins(now, slot_ms, last_ended_ms);
        });
        self.edit_orchestrator(name, |orchestrator| {
            orchestrator.open_run = Some(run_id);
            orchestrator.last_run_at_ms = now;
        });
        self.forget_old_runs();
        self.tell(CampaignFact::RunBegun { run_id, orchestrator: name.to_owned() });
        run_id
    }

    pub(super) fn advance_run(
        &mut self,
        epoch: Epoch,
        run_id: RunId,
        seen: RunPhase,
        actions: Vec<StepAction>,
    ) -> Reply {
        self.check_epoch(epoch)?;
        if actions.len() > ACTIONS_MAX {
            let (len, max) = (actions.len() as u64, ACTIONS_MAX as u64);
            return Err(Rejection::BatchSize { len, max });
        }
        let run = self.state.run(run_id).filter(|run| run.phase == seen);
        let is_planned = |run: &&Run| !matches!(run.phase, RunPhase::Ended | RunPhase::Working);
        let Some(run) = run.filter(is_planned) else {
            return Ok(Outcome::Judged { accepted: 0, stale: 1 });
        };
        let name = run.orchestrator.clone();
        let mut decided = Vec::with_capacity(actions.len());
        for action in actions {
            decided.push(self.act(run_id, &name, action));
        }
        self.record_decisions(run_id, &decided);
        let works = self.state.run(run_id).is_some_and(|run| run.task_id.is_some());
        match seen {
            // Its end ends the run; it may have come at once.
            RunPhase::Retraining if works => {
                if self.state.run(run_id).is_some_and(|run| run.phase == RunPhase::Retraining) {
                    self.enter_phase(run_id, RunPhase::Working);
                }
            }
            RunPhase::Retraining if self.does_a_task(&name) => {
                let error = decided.into_iter().next().map_or_else(String::new, |row| row.reason);
                self.end_run(run_id, error);
            }
            RunPhase::Retraining => {
                self.begin_training_gap(run_id, &name, &decided);
                self.enter_phase(run_id, RunPhase::Campaigns);
            }
            RunPhase::Campaigns => self.enter_phase(run_id, RunPhase::Experiments),
            RunPhase::Experiments | RunPhase::Working | RunPhase::Ended => {
                self.end_run(run_id, String::new());
            }
        }
        Ok(Outcome::Judged { accepted: 1, stale: 0 })
    }

    /// When trainings are launched, the next ones come after a while. Some may be left for want of room:
    /// the next steps go on with those, from the first of them, and with no other.
    fn begin_training_gap(&mut self, run_id: RunId, name: &str, decided: &[Decision]) {
        let waits = |decision: &&Decision| {
            matches!(decision.result, StepResult::Deferred | StepResult::CapacityExceeded)
        };
        let from = decided.iter().find(waits).and_then(|decision| decision.model.clone());
        let from = from.unwrap_or_default();
        let began = self.state.run(run_id).is_some_and(|run| !run.retrained.is_empty());
        let Some(row) = self.state.orchestrator(name) else { return };
        if !began && row.trainings_from == from {
            return;
        }
        let now = self.now;
        let since = now.saturating_sub(row.last_training_at_ms);
        let goes_on = !row.trainings_from.is_empty() && since < row.config.training_gap_ms();
        self.edit_orchestrator(name, |row| {
            if began && !goes_on {
                row.last_training_at_ms = now;
            }
            row.trainings_from = from;
        });
    }

    pub(super) fn fail_run(&mut self, epoch: Epoch, run_id: RunId, error: &str) -> Reply {
        self.check_epoch(epoch)?;
        if self.state.run(run_id).is_none_or(|run| run.phase == RunPhase::Ended) {
            return Ok(Outcome::Judged { accepted: 0, stale: 1 });
        }
        let error = clipped(error);
        let decision = Decision::new(DecisionKind::Error, error.clone(), StepResult::Failed);
        self.record_decisions(run_id, &[decision]);
        let task_id = self.state.run(run_id).and_then(|run| run.task_id.clone());
        self.end_run(run_id, error);
        if let Some(task_id) = task_id.filter(|id| self.state.open_task(id).is_some()) {
            self.end_task(&task_id, TaskStatus::Cancelled, ExecutionEnd::Withdrawn, |task| {
                task.error = Some("its run has ended".to_owned());
            });
        }
        Ok(Outcome::Judged { accepted: 1, stale: 0 })
    }

    /// Does what a decision says, or records why that cannot be done any more.
    fn act(&mut self, run_id: RunId, name: &str, action: StepAction) -> Decision {
        let StepAction { mut decision, effect } = action;
        decision.reason = clipped(&decision.reason);
        (decision.simulations, decision.experiments) = (0, 0);
        let done = match effect {
            StepEffect::Nothing => Ok(()),
            StepEffect::Iterate(plan) => self.begin_iteration(&plan).map(|count| {
                decision.simulations = count;
                let campaign_id = plan.campaign_id;
                self.edit_run(run_id, |run| {
                    run.simulations += count;
                    run.advanced.push(campaign_id);
                });
            }),
            StepEffect::Complete(campaign_id) => {
                let done = self.state.campaign(&campaign_id).is_some_and(|campaign| {
                    campaign.status == CampaignStatus::Running
                        && !campaign.iterating
                        && campaign.iterations >= campaign.plan.stop.max_iterations
                });
                if done {
                    self.end_campaign(&campaign_id, CampaignStatus::Completed, &decision.reason);
                    Ok(())
                } else {
                    Err(Refusal::Stale)
                }
            }
            StepEffect::Measure { campaign_id, candidates } => {
                self.launch_experiments(name, &campaign_id, &candidates).map(|count| {
                    decision.experiments = count;
                    self.edit_run(run_id, |run| run.experiments += count);
                })
            }
            StepEffect::Work => self.launch_work(name, run_id),
            StepEffect::Train { model } => self.launch_training(name, &model).map(|()| {
                self.edit_run(run_id, |run| run.retrained.push(model));
            }),
        };
        if let Err(refusal) = done {
            (decision.result, decision.reason) = refusal.told();
        }
        decision
    }

    fn does_a_task(&self, name: &str) -> bool {
        self.state.orchestrator(name).is_some_and(|row| row.task.is_some())
    }

    /// Launches the task that is all a run of this orchestrator does.
    fn launch_work(&mut self, name: &str, run_id: RunId) -> Result<(), Refusal> {
        let row = self.state.orchestrator(name).ok_or(Refusal::Stale)?;
        let template = row.task.as_deref().ok_or(Refusal::Stale)?.clone();
        if !self.state.has_room_for(1) {
            return Err(Refusal::QueueFull);
        }
        let reserved = self.promise_alone(name, &template, JobKind::Scheduled);
        let reserved = reserved.map_err(Refusal::Budget)?;
        let slot_ms = self.state.run(run_id).map_or(0, |run| run.slot_ms);
        let mut input = object(&template.input);
        input.insert("run_id".to_owned(), run_id.to_string().into());
        input.insert("slot_ms".to_owned(), slot_ms.into());
        let job = Job {
            kind: JobKind::Scheduled,
            candidate: None,
            subject: run_id.to_string(),
            instrument: String::new(),
            owner: String::new(),
            orchestrator: name.to_owned(),
            command: 0,
            reserved,
            paid: 0,
            timed_out: false,
        };
        let task_id = TaskId::trusted(&format!("run.{run_id}"));
        self.edit_run(run_id, |run| run.task_id = Some(task_id.clone()));
        self.launch(&task_id, template, input, Urgency::default(), job);
        Ok(())
    }

    /// The task of a run has ended, and the run with it. A result that says `"success": false` is of a
    /// run that failed.
    pub(super) fn end_work(
        &mut self,
        job: &Job,
        status: TaskStatus,
        result: String,
        error: String,
    ) {
        let run_id = job.subject.parse().unwrap_or_default();
        let open = self.state.run(run_id).is_some_and(|run| run.phase != RunPhase::Ended);
        if !open {
            return;
        }
        let said = object(&result);
        let failed = said.get("success").and_then(serde_json::Value::as_bool) == Some(false);
        let why = ["error", "summary"].map(|key| said.get(key).and_then(serde_json::Value::as_str));
        let why = why.into_iter().flatten().next().unwrap_or("its task says that it failed");
        let error = if status == TaskStatus::Completed {
            if failed { why.to_owned() } else { String::new() }
        } else if error.is_empty() {
            format!("its task has ended as {}", status.as_str())
        } else {
            error
        };
        self.edit_run(run_id, |run| run.result = result);
        self.end_run(run_id, clipped(&error));
    }

    fn record_decisions(&mut self, run_id: RunId, decisions: &[Decision]) {
        let Some(mut number) = self.state.run(run_id).map(|run| run.pages) else { return };
        for chunk in decisions.chunks(PAGE_DECISIONS) {
            let page = DecisionPage { decisions: chunk.to_vec() };
            self.state.decision_pages.put(&mut self.state.rows, (run_id, number), page);
            number += 1;
        }
        self.edit_run(run_id, |run| run.pages = number);
    }

    fn edit_run(&mut self, run_id: RunId, edit: impl FnOnce(&mut Run)) {
        self.state.runs.edit(&mut self.state.rows, &run_id, edit);
    }

    fn enter_phase(&mut self, run_id: RunId, phase: RunPhase) {
        self.edit_run(run_id, |run| run.phase = phase);
    }

    fn end_run(&mut self, run_id: RunId, error: String) {
        let (now, stats) = (self.now, self.state.fleet_stats(self.now));
        let (after, why) = (stats.clone(), error.clone());
        self.edit_run(run_id, |run| {
            run.phase = RunPhase::Ended;
            run.completed_at_ms = now;
            run.error = why;
            run.stats_after = Some(after);
        });
        let Some(run) = self.state.run(run_id).cloned() else { return };
        let took_ms = now.saturating_sub(run.started_at_ms);
        let (advanced, simulations) = (run.advanced.len() as u64, u64::from(run.simulations));
        self.state.edit_campaign_totals(|totals| totals.ended.add(took_ms, advanced, simulations));
        let success = error.is_empty();
        self.edit_orchestrator(&run.orchestrator, |orchestrator| {
            orchestrator.open_run = None;
            orchestrator.last_run_ended_ms = now;
            orchestrator.runs += 1;
            orchestrator.simulations += u64::from(run.simulations);
            orchestrator.experiments += u64::from(run.experiments);
            orchestrator.trainings += run.retrained.len() as u64;
            if run.experiments > 0 {
                orchestrator.last_experiment_at_ms = now;
            }
            orchestrator.error = error;
            orchestrator.stats = Some(stats);
        });
        let orchestrator = run.orchestrator;
        self.tell(CampaignFact::RunEnded { run_id, orchestrator, success });
    }

    fn forget_old_runs(&mut self) {
        while self.state.runs.len() > RUNS_MAX {
            let is_spare = |run: &&Run| {
                let orchestrator = self.state.orchestrator(&run.orchestrator);
                let kept = orchestrator.map_or(0, |row| row.runs - row.runs_forgotten);
                run.phase == RunPhase::Ended && kept > RUNS_EACH
            };
            let Some(oldest) = self.state.runs().find(is_spare) else { return };
            let (run_id, pages) = (oldest.run_id, oldest.pages);
            let name = oldest.orchestrator.clone();
            self.state.runs.remove(&mut self.state.rows, &run_id);
            self.state.orchestrators.edit(&mut self.state.rows, &name, |orchestrator| {
                orchestrator.runs_forgotten += 1;
            });
            for number in 0..pages {
                self.state.decision_pages.remove(&mut self.state.rows, &(run_id, number));
            }
        }
    }
}

/// A text of bounded length for the record.
fn clipped(text: &str) -> String {
    let end = (0..=text.len().min(REASON_MAX)).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}
