//! What one step of an orchestrator decides (contract 3.4): pure functions of the replicated state,
//! one for each phase, in the order of the contract. Apply judges every effect again.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::model::{
    Campaign, CampaignId, CampaignStatus, CandidateState, Decision, DecisionKind,
    IterationOverride, JobKind, Orchestrator, Resource, Run, RunPhase, Score, StepResult, TimeMs,
};
use crate::state::{
    ACTIONS_MAX, IterationPlan, State, StepAction, StepDuty, StepEffect, candidate_structure,
};

/// Campaigns that are named one by one in one phase; the rest are summed up in one decision, so that
/// a step over ten thousand campaigns is still a small record.
pub const NAMED_MAX: usize = 200;
/// Trainings of one step; what is said of the other models still fits into the command.
const TRAININGS_MAX: usize = ACTIONS_MAX - 2;
/// Results that a new iteration's candidates are told of: the newest ones.
const OBSERVATIONS_MAX: usize = 64;
/// The longest text of what candidates are told.
const CONTEXT_BYTES_MAX: usize = 12 * 1024;
/// Thousand-millionths in a millionth.
const NANO_PER_MICRO: i64 = 1000;
/// The best score of family N, 1 (contract 3.2), in thousand-millionths.
const SCORE_BEST: Score = 1_000_000_000;

/// What comes next of a run.
#[derive(Debug)]
pub enum Next {
    /// A command.
    Command(StepDuty),
    /// A look at campaigns, which leads to one.
    Walk(Walk),
}

/// What comes next of a run; `None` when it has ended or its orchestrator is gone.
#[must_use]
pub fn next(view: &State, now: TimeMs, run: &Run) -> Option<Next> {
    let orchestrator = view.orchestrator(&run.orchestrator)?;
    let actions = match run.phase {
        RunPhase::Retraining if orchestrator.task.is_some() => {
            let reason = "it is what this orchestrator does".to_owned();
            let decision = Decision::new(DecisionKind::Task, reason, StepResult::Queued);
            vec![StepAction { decision, effect: StepEffect::Work }]
        }
        RunPhase::Retraining => retraining(view, now, orchestrator),
        RunPhase::Campaigns => return Some(Next::Walk(Walk::new(view, orchestrator, run))),
        RunPhase::Experiments => match no_room(view, orchestrator) {
            Some(action) => vec![action],
            None => return Some(Next::Walk(Walk::new(view, orchestrator, run))),
        },
        RunPhase::Working | RunPhase::Ended => return None,
    };
    Some(Next::Command(StepDuty::AdvanceRun { run_id: run.run_id, seen: run.phase, actions }))
}

/// Iterations that clients asked for, at most `max`.
#[must_use]
pub fn requested(view: &State, max: usize) -> Vec<IterationPlan> {
    let mut room: BTreeMap<&str, u64> = BTreeMap::new();
    let open = view.open_jobs(JobKind::Simulation);
    let mut plans = Vec::new();
    for campaign in view.requesting_campaigns() {
        let orchestrator = view.orchestrator(&campaign.plan.orchestrator);
        let Some(orchestrator) = orchestrator.filter(|row| row.may_launch()) else { continue };
        let left = room
            .entry(&orchestrator.name)
            .or_insert_with(|| u64::from(orchestrator.config.simulations_max).saturating_sub(open));
        let with = campaign.requested_with.as_deref();
        let candidates = view.candidates_of(campaign, campaign.requested_candidates());
        let fits = u64::from(candidates) <= *left && view.may_iterate(campaign, candidates);
        if candidates == 0 || !fits {
            continue;
        }
        *left -= u64::from(candidates);
        plans.push(iteration_plan(view, orchestrator, campaign, with, candidates));
        if plans.len() >= max {
            break;
        }
    }
    plans
}

/// Campaigns whose iterations that were asked for cannot begin, as nobody was told yet; at most `max`.
#[must_use]
pub fn waiting(view: &State, max: usize) -> Vec<CampaignId> {
    let waits = |campaign: &&Campaign| view.why_waiting(campaign).is_some();
    let waiting = view.requesting_campaigns().filter(waits);
    waiting.map(|campaign| campaign.campaign_id.clone()).take(max).collect()
}

fn noted(decision: Decision) -> StepAction {
    StepAction { decision, effect: StepEffect::Nothing }
}

/// Phase 1.
fn retraining(view: &State, now: TimeMs, orchestrator: &Orchestrator) -> Vec<StepAction> {
    let (last, config) = (orchestrator.last_training_at_ms, &orchestrator.config);
    let since = now.saturating_sub(last);
    let too_soon = last > 0 && since < config.training_gap_ms();
    // Those that found no room belong to the trainings of that time.
    let from = if too_soon { orchestrator.trainings_from.as_str() } else { "" };
    if too_soon && from.is_empty() {
        // Tenths of an hour, for people.
        let tenths = since / 360_000;
        let reason = format!("too soon (last training {}.{}h ago)", tenths / 10, tenths % 10);
        return vec![noted(Decision::new(
            DecisionKind::RetrainingCheck,
            reason,
            StepResult::Skipped,
        ))];
    }
    let labeled = view.labeled_samples();
    let judge = |model: &crate::model::Model| {
        let new = labeled.saturating_sub(model.trained_on);
        let (kind, reason, result) = if model.training.is_some() {
            let reason = "a training is under way".to_owned();
            (DecisionKind::RetrainingCheck, reason, StepResult::Skipped)
        } else if new >= config.samples_for_retrain {
            let reason = format!("{new} new samples available");
            (DecisionKind::RetrainTriggered, reason, StepResult::Queued)
        } else {
            let reason = format!("{new} new samples, {} are needed", config.samples_for_retrain);
            (DecisionKind::RetrainingCheck, reason, StepResult::Skipped)
        };
        let effect = match kind {
            DecisionKind::RetrainTriggered => StepEffect::Train { model: model.name.clone() },
            _ => StepEffect::Nothing,
        };
        let model = Some(model.name.clone());
        StepAction { decision: Decision { model, ..Decision::new(kind, reason, result) }, effect }
    };
    // Those that are trained come first: there may be more models than one record names.
    let all = view.models().filter(|model| model.active && model.name.as_str() >= from).map(judge);
    let (mut actions, idle): (Vec<_>, Vec<_>) =
        all.partition(|action| action.effect != StepEffect::Nothing);
    let cut = actions.len().saturating_sub(TRAININGS_MAX);
    let first_cut = actions.get(TRAININGS_MAX).and_then(|action| action.decision.model.clone());
    actions.truncate(TRAININGS_MAX);
    let named = (TRAININGS_MAX - actions.len()).min(NAMED_MAX);
    if cut > 0 {
        let reason = format!("{cut} more models have new samples");
        let (kind, result) = (DecisionKind::RetrainingCheck, StepResult::Deferred);
        let decision = Decision { model: first_cut, ..Decision::new(kind, reason, result) };
        actions.push(noted(decision));
    }
    let unnamed = idle.len().saturating_sub(named);
    actions.extend(idle.into_iter().take(named));
    if unnamed > 0 {
        let (kind, reason) = (DecisionKind::RetrainingCheck, format!("{unnamed} more models"));
        actions.push(noted(Decision::new(kind, reason, StepResult::Skipped)));
    }
    actions
}

/// Why a step measures nothing at all.
fn no_room(view: &State, orchestrator: &Orchestrator) -> Option<StepAction> {
    let max = u64::from(orchestrator.config.experiments_max);
    let open = view.open_jobs(JobKind::Experiment);
    let reason = format!("{open} experiments wait or run, at most {max} may");
    let result = StepResult::CapacityExceeded;
    (open >= max).then(|| noted(Decision::new(DecisionKind::Experiments, reason, result)))
}

/// Phases 2 and 3: a look at the running campaigns of an orchestrator, in the order they get their turn:
/// by priority, then those that have waited longest. It is made in parts, because nothing is written
/// while somebody reads; apply judges again what came between.
#[derive(Debug)]
pub struct Walk {
    run_id: u64,
    phase: RunPhase,
    orchestrator: String,
    /// Those to come.
    campaigns: std::vec::IntoIter<CampaignId>,
    told: Told,
    /// Jobs of the phase that wait or run, with those that this step adds.
    open: u64,
    /// Campaigns that this step advances.
    advanced: u32,
}

impl Walk {
    fn new(view: &State, orchestrator: &Orchestrator, run: &Run) -> Self {
        let mut campaigns: Vec<CampaignId> = view.running_campaign_ids().cloned().collect();
        let priorities = &orchestrator.config.priorities;
        if !priorities.is_empty() {
            let priority = |id: &CampaignId| priorities.get(id.as_str()).copied().unwrap_or(0);
            campaigns.sort_by_key(|id| std::cmp::Reverse(priority(id)));
        }
        let (kind, jobs) = match run.phase {
            RunPhase::Experiments => (DecisionKind::Experiments, JobKind::Experiment),
            _ => (DecisionKind::Iteration, JobKind::Simulation),
        };
        Self {
            run_id: run.run_id,
            phase: run.phase,
            orchestrator: orchestrator.name.clone(),
            campaigns: campaigns.into_iter(),
            told: Told::about(kind),
            open: view.open_jobs(jobs),
            advanced: 0,
        }
    }

    /// Looks at `max` more of them; `false` when it is over.
    pub fn go_on(&mut self, view: &State, max: usize) -> bool {
        let Some(orchestrator) = view.orchestrator(&self.orchestrator) else { return false };
        for _ in 0..max {
            let Some(campaign_id) = self.campaigns.next() else { return false };
            let is_own = |row: &&Campaign| {
                row.status == CampaignStatus::Running && row.plan.orchestrator == orchestrator.name
            };
            let Some(campaign) = view.campaign(&campaign_id).filter(is_own) else { continue };
            let goes_on = match self.phase {
                RunPhase::Experiments => self.measure(view, orchestrator, campaign),
                _ => self.iterate(view, orchestrator, campaign),
            };
            if !goes_on {
                return false;
            }
        }
        true
    }

    /// The command that it leads to.
    #[must_use]
    pub fn end(self) -> StepDuty {
        let mut actions = self.told.end();
        if actions.is_empty() && self.phase == RunPhase::Campaigns {
            let (kind, reason) = (DecisionKind::Advancement, "no active campaigns".to_owned());
            actions.push(noted(Decision::new(kind, reason, StepResult::Skipped)));
        }
        StepDuty::AdvanceRun { run_id: self.run_id, seen: self.phase, actions }
    }

    /// Phase 2.
    fn iterate(&mut self, view: &State, orchestrator: &Orchestrator, campaign: &Campaign) -> bool {
        let config = &orchestrator.config;
        let (running, advanced) = (self.open, self.advanced);
        let candidates = view.candidates_of(campaign, campaign.plan.candidates);
        let after = running + u64::from(candidates);
        let (result, reason) = if campaign.tripped {
            (StepResult::Skipped, "stopped by its kill switch".to_owned())
        } else if advanced >= config.iterations_per_run {
            let reason = format!("{advanced} campaigns were advanced in this step already");
            (StepResult::Deferred, reason)
        } else if candidates == 0 {
            let (_, scarce) = view.jobs_left(campaign, JobKind::Simulation);
            (StepResult::BudgetExceeded, used_up(scarce))
        } else if after > u64::from(config.simulations_max) {
            let reason = format!(
                "{running} simulations run, {candidates} more would be above {}",
                config.simulations_max
            );
            (StepResult::CapacityExceeded, reason)
        } else if campaign.iterating {
            let reason = format!("iteration {} is under way", campaign.iterations);
            (StepResult::Deferred, reason)
        } else if campaign.iterations >= campaign.plan.stop.max_iterations {
            (StepResult::Completed, "all iterations are done".to_owned())
        } else {
            (StepResult::Queued, format!("{candidates} candidates to evaluate"))
        };
        let effect = match result {
            StepResult::Completed => StepEffect::Complete(campaign.campaign_id.clone()),
            StepResult::Queued => {
                (self.open, self.advanced) = (after, advanced + 1);
                StepEffect::Iterate(iteration_plan(view, orchestrator, campaign, None, candidates))
            }
            _ => StepEffect::Nothing,
        };
        let iteration = Some(campaign.iterations + 1);
        self.told.add(campaign, iteration, (result, reason), effect)
    }

    /// Phase 3.
    fn measure(&mut self, view: &State, orchestrator: &Orchestrator, campaign: &Campaign) -> bool {
        let max = u64::from(orchestrator.config.experiments_max);
        let (left, scarce) = view.jobs_left(campaign, JobKind::Experiment);
        let threshold = threshold(orchestrator, campaign).filter(|_| !campaign.tripped);
        let mut found = threshold.into_iter().flat_map(|least| view.unmeasured(campaign, least));
        let places = max.saturating_sub(self.open).min(left);
        let places = usize::try_from(places).unwrap_or(usize::MAX);
        let chosen: Vec<(u32, u32)> = found.by_ref().take(places).collect();
        let none = chosen.is_empty() && found.next().is_none();
        let (result, reason) = if left == 0 {
            (StepResult::BudgetExceeded, used_up(scarce))
        } else if none {
            (StepResult::Evaluated, "no candidate asks for an experiment".to_owned())
        } else if chosen.is_empty() {
            let reason = format!("{max} experiments wait or run already");
            (StepResult::CapacityExceeded, reason)
        } else {
            let shown = threshold.unwrap_or_default() as f64 / 1e9;
            let (count, sign) = (chosen.len(), if campaign.plan.minimize { '<' } else { '>' });
            let reason = format!("{count} high-scoring candidates found (score {sign} {shown})");
            (StepResult::Queued, reason)
        };
        let campaign_id = campaign.campaign_id.clone();
        let effect = if result == StepResult::Queued {
            self.open += chosen.len() as u64;
            StepEffect::Measure { campaign_id, candidates: chosen }
        } else {
            StepEffect::Nothing
        };
        self.told.add(campaign, None, (result, reason), effect)
    }
}

/// The score that a candidate must pass to be worth an experiment: what its campaign says, else what its
/// orchestrator does, of scores from 0 to 1: the lower, the better, where a campaign minimizes. None for
/// campaigns of any kind that say nothing: nobody knows what their scores are.
fn threshold(orchestrator: &Orchestrator, campaign: &Campaign) -> Option<Score> {
    if campaign.plan.measured_from.is_some() || campaign.plan.generic {
        return campaign.plan.measured_from;
    }
    let micro = orchestrator.config.experiment_threshold_micro;
    let usual = Score::try_from(micro).unwrap_or(Score::MAX).saturating_mul(NANO_PER_MICRO);
    Some(if campaign.plan.minimize { SCORE_BEST.saturating_sub(usual) } else { usual })
}

/// Why a campaign can launch nothing: its own budget, or its orchestrator's.
fn used_up(scarce: Resource) -> String {
    format!("the budget of {} is used up", scarce.as_str())
}

fn iteration_plan(
    view: &State,
    orchestrator: &Orchestrator,
    campaign: &Campaign,
    with: Option<&IterationOverride>,
    candidates: u32,
) -> IterationPlan {
    let strategy = with.and_then(|with| with.strategy.as_ref()).unwrap_or(&campaign.plan.strategy);
    IterationPlan {
        campaign_id: campaign.campaign_id.clone(),
        seen_revision: campaign.revision,
        context: context(view, orchestrator, campaign, (strategy, with)),
        strategy: strategy.clone(),
        candidates,
    }
}

/// What every candidate's job is told: how to choose, what for, and what came of others.
fn context(
    view: &State,
    orchestrator: &Orchestrator,
    campaign: &Campaign,
    (strategy, with): (&str, Option<&IterationOverride>),
) -> String {
    let score = |score: Score| score as f64 / 1e9;
    let mut fields = Map::new();
    if let Ok(Value::Object(config)) = serde_json::from_str::<Value>(&campaign.plan.config) {
        let wanted = ["goal", "target_properties", "constraints", "evaluation_strategy"];
        fields.extend(config.into_iter().filter(|(key, _)| wanted.contains(&key.as_str())));
    }
    fields.insert("generation_strategy".to_owned(), strategy.into());
    if let Some(Ok(config)) = with.map(|with| serde_json::from_str::<Value>(&with.config)) {
        fields.insert("override_config".to_owned(), config);
    }
    let acquisition = orchestrator.config.acquisition.as_str();
    fields.insert("acquisition_function".to_owned(), acquisition.into());
    let threshold = orchestrator.config.active_learning_threshold_micro as f64 / 1e6;
    fields.insert("active_learning_threshold".to_owned(), threshold.into());
    fields.insert("best_score".to_owned(), campaign.best_score.map(score).into());
    let campaign_id = &campaign.campaign_id;
    let mut observations = Vec::new();
    for iteration in view.iterations(campaign_id).rev() {
        for (place, candidate) in (0u32..).zip(&iteration.candidates) {
            let CandidateState::Scored(value) = candidate.state else { continue };
            let note = view.candidate_note(campaign_id, iteration.index, place);
            observations.push(json!({
                "structure_id": candidate_structure(campaign_id, iteration.index, place),
                "score": score(value),
                "parameters": note.and_then(|note| serde_json::from_str::<Value>(note).ok()),
            }));
        }
        if observations.len() >= OBSERVATIONS_MAX {
            break;
        }
    }
    observations.truncate(OBSERVATIONS_MAX);
    loop {
        fields.insert("observations".to_owned(), observations.clone().into());
        let text = Value::Object(fields.clone()).to_string();
        if text.len() <= CONTEXT_BYTES_MAX || observations.is_empty() {
            return text;
        }
        observations.truncate(observations.len() / 2);
    }
}

/// What one phase says of campaigns. Those that get nothing are named up to a bound, and then counted.
#[derive(Debug)]
struct Told {
    kind: DecisionKind,
    actions: Vec<StepAction>,
    /// How many are not named, by what became of them.
    unnamed: BTreeMap<StepResult, u64>,
}

impl Told {
    /// Campaigns that are named one by one; what is said of the others still fits into the command.
    const ACTIONS: usize = ACTIONS_MAX - StepResult::COUNT;

    fn about(kind: DecisionKind) -> Self {
        Self { kind, actions: Vec::new(), unnamed: BTreeMap::new() }
    }

    /// Says something of one more campaign; `false` when there is no room for it.
    fn add(
        &mut self,
        campaign: &Campaign,
        iteration: Option<u32>,
        (result, reason): (StepResult, String),
        effect: StepEffect,
    ) -> bool {
        if effect == StepEffect::Nothing && self.actions.len() >= NAMED_MAX {
            *self.unnamed.entry(result).or_default() += 1;
            return true;
        }
        if self.actions.len() >= Self::ACTIONS {
            return false;
        }
        let decision = Decision {
            campaign_id: Some(campaign.campaign_id.clone()),
            iteration,
            ..Decision::new(self.kind, reason, result)
        };
        self.actions.push(StepAction { decision, effect });
        true
    }

    fn end(self) -> Vec<StepAction> {
        let Self { kind, mut actions, unnamed } = self;
        actions.extend(unnamed.into_iter().map(|(result, count)| {
            noted(Decision::new(kind, format!("{count} more campaigns"), result))
        }));
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::solo::Solo;
    use crate::model::{CampaignPlan, Epoch};
    use crate::state::{CampaignCommand, Command};

    /// The counts of those that are not named came on top of a full record, and the command was refused.
    #[tokio::test]
    async fn a_full_record_with_counts_on_top_still_fits_its_command() {
        let solo = Solo::new();
        solo.commit(Command::OpenEpoch(Epoch { term: 1, member: 1 })).unwrap();
        let create = CampaignCommand::CreateCampaign(Box::new(CampaignPlan::plain(1, 1)));
        solo.commit(Command::Campaign(create)).unwrap();
        let state = solo.state.read();
        let campaign = state.campaigns_after(None).next().unwrap();
        let mut told = Told::about(DecisionKind::Iteration);
        let said = |result| (result, String::new());
        let ends = || StepEffect::Complete(campaign.campaign_id.clone());
        while told.add(campaign, None, said(StepResult::Completed), ends()) {}
        let idle = [StepResult::Skipped, StepResult::Deferred, StepResult::BudgetExceeded];
        for result in idle {
            assert!(told.add(campaign, None, said(result), StepEffect::Nothing));
        }
        let actions = told.end();
        assert!(
            actions.len() > ACTIONS_MAX - 8 && actions.len() <= ACTIONS_MAX,
            "{}",
            actions.len()
        );
    }
}
