//! What must hold of campaigns, their budgets and the ledger, after every entry. Asked by scripts,
//! property tests and the simulation.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::bests::best_candidate;
use super::{State, candidate_job};
use crate::model::{
    Campaign, CandidateState, JobKind, MICRO, Resource, RunPhase, Schedule, Task, TaskStatus,
};

/// Where a task stands that has not ended and does not go in steps.
const OPEN: [TaskStatus; 4] =
    [TaskStatus::Pending, TaskStatus::Retrying, TaskStatus::Assigned, TaskStatus::Running];

/// What was promised, by owner and resource.
type Promises = BTreeMap<(String, Resource), u64>;

/// The first invariant that does not hold, in words.
///
/// # Errors
/// What is wrong.
pub fn check_campaigns(state: &State) -> Result<(), String> {
    let open = OPEN.into_iter().flat_map(|status| state.tasks_by_status(status));
    let open: Vec<Cow<'_, Task>> = open.filter(|task| task.job.is_some()).collect();
    for kind in [JobKind::Simulation, JobKind::Experiment, JobKind::Training, JobKind::Scheduled] {
        let of_kind = open.iter().filter(|task| task.job.as_ref().is_some_and(|j| j.kind == kind));
        equal("open jobs are counted", &state.open_jobs(kind), &(of_kind.count() as u64))?;
    }
    check_promises(state, &open)?;
    let mut unmeasured = super::unmeasured::Unmeasured::new();
    for campaign in state.campaigns_after(None) {
        check_iterations(state, campaign)?;
        unmeasured.extend(state.places_of(&campaign.campaign_id));
    }
    equal("candidates that nobody measures are known", &state.unmeasured, &unmeasured)?;
    for orchestrator in state.orchestrators() {
        let open = state
            .runs()
            .filter(|run| run.orchestrator == orchestrator.name && run.phase != RunPhase::Ended);
        let open: Vec<u64> = open.map(|run| run.run_id).collect();
        let known: Vec<u64> = orchestrator.open_run.into_iter().collect();
        equal("an orchestrator has at most one open run, and knows it", &known, &open)?;
    }
    state.schedules().try_for_each(|schedule| check_ledger(state, schedule))
}

fn holds(holds: bool, what: &str, of: impl std::fmt::Debug) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{what}: {of:?}")) }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, must: &T) -> Result<(), String> {
    if is == must { Ok(()) } else { Err(format!("{what}: {is:?}, and must be {must:?}")) }
}

fn check_iterations(state: &State, campaign: &Campaign) -> Result<(), String> {
    let newest = state.iterations(&campaign.campaign_id).next_back();
    let told = (campaign.iterations, campaign.iterating);
    let counted = newest.map_or((0, false), |row| (row.index + 1, row.completed_at_ms == 0));
    equal("iterations are counted", &told, &counted)?;
    let kept = campaign.iterations <= campaign.plan.stop.max_iterations;
    holds(kept, "no iteration is beyond the last", campaign)?;
    let rests = !campaign.tripped || campaign.requested == 0 && !campaign.iterating;
    holds(rests, "nothing goes on behind a kill switch", campaign)?;
    check_bests(state, campaign)?;
    for iteration in state.iterations(&campaign.campaign_id) {
        let places = (0u32..).zip(&iteration.candidates);
        let waits = places.filter(|(_, row)| row.state == CandidateState::Open);
        let waits: Vec<u32> = waits.map(|(place, _)| place).collect();
        let counted = waits.len() == iteration.open as usize
            && (iteration.completed_at_ms > 0) == waits.is_empty();
        holds(counted, "open candidates are counted", iteration)?;
        for place in waits {
            let job = candidate_job(&campaign.campaign_id, iteration.index, place);
            holds(state.open_task(&job).is_some(), "an open candidate has its job", job)?;
        }
    }
    Ok(())
}

/// The bests are those of the direction that the campaign has.
fn check_bests(state: &State, campaign: &Campaign) -> Result<(), String> {
    for row in state.iterations(&campaign.campaign_id) {
        let best = best_candidate(row, campaign.plan.minimize).map(|(score, _)| score);
        equal("the best of an iteration is its best", &row.best_score, &best)?;
        let its = row.candidates.get(row.best_candidate as usize).map(|candidate| candidate.state);
        let has = best.is_none_or(|best| its == Some(CandidateState::Scored(best)));
        holds(has, "the best of an iteration has its score", row)?;
    }
    // Iterations of one that has ended may be on their way out.
    let best = state.best_ended(campaign).filter(|_| !campaign.status.is_terminal());
    let Some((score, index, candidate)) = best else { return Ok(()) };
    let structure = super::candidate_structure(&campaign.campaign_id, index, candidate);
    let must = (Some(score), Some(structure), index);
    let told = (campaign.best_score, campaign.best_structure.clone(), campaign.best_iteration);
    equal("the best of a campaign is the best of its iterations", &told, &must)
}

fn check_ledger(state: &State, schedule: &Schedule) -> Result<(), String> {
    let (mut rows, mut newest) = (0, 0);
    for slot in state.slots_from(&schedule.key, 0) {
        (rows, newest) = (rows + 1, slot.nominal_ms);
        let Some(run_id) = slot.decision.run_id() else { continue };
        // A run that is forgotten cannot tell any more.
        let run = state.run(run_id);
        let agree = run.is_none_or(|run| run.slot_ms == slot.nominal_ms);
        holds(agree, "a run stands for the slot that began it", slot)?;
    }
    equal("each decision is one row", &rows, &state.slots_kept(&schedule.key))?;
    holds(newest <= schedule.decided_ms, "the ledger goes as far as it says", schedule)?;
    let ends = schedule.closings.iter().map(|closing| closing.until_ms);
    let ends: Vec<_> = [schedule.decided_ms].into_iter().chain(ends).collect();
    holds(ends.is_sorted(), "timetables that have ended follow one another", schedule)
}

/// What is promised is what open jobs were promised, no more and no less.
fn check_promises(state: &State, open: &[Cow<'_, Task>]) -> Result<(), String> {
    let (mut own, mut shared) = (Promises::new(), Promises::new());
    let mut asked = Promises::new();
    for job in open.iter().filter_map(|task| task.job.as_ref()) {
        let campaign = job.candidate.as_ref().and_then(|(id, _, _)| state.campaign(id));
        let rests = campaign.is_none_or(|campaign| !campaign.tripped);
        holds(rests, "no job goes on behind a kill switch", job)?;
        for (resource, amount) in &job.reserved {
            if let Some((campaign_id, _, _)) = &job.candidate {
                *own.entry((campaign_id.as_str().to_owned(), *resource)).or_insert(0) += amount;
            }
            *asked.entry((job.command.to_string(), *resource)).or_insert(0) += amount;
            *shared.entry((job.orchestrator.clone(), *resource)).or_insert(0) += amount;
        }
    }
    let own_budgets = state
        .campaigns_after(None)
        .map(|campaign| (campaign.campaign_id.as_str().to_owned(), &campaign.budgets, &own));
    let shared_budgets = state.orchestrators().map(|row| (row.name.clone(), &row.budgets, &shared));
    let asked_budgets =
        state.agent_commands().map(|row| (row.number.to_string(), &row.budgets, &asked));
    for (owner, budgets, promises) in own_budgets.chain(shared_budgets).chain(asked_budgets) {
        for (resource, budget) in budgets {
            let promised = promises.get(&(owner.clone(), *resource)).copied().unwrap_or(0);
            let what = "what is promised is what open jobs were promised";
            holds(budget.reserved == promised, what, (&owner, resource, budget, promised))?;
        }
    }
    for campaign in state.campaigns_after(None) {
        let candidates = state.iterations(&campaign.campaign_id).flat_map(|row| &row.candidates);
        let measured = candidates.filter(|candidate| candidate.experiment).count() as u64;
        // Iterations of one that has ended may be on their way out.
        let ended = campaign.status.is_terminal();
        let measured = if ended { u64::MAX / MICRO } else { measured };
        let launched =
            [(Resource::Simulations, campaign.structures), (Resource::Experiments, measured)];
        for (resource, count) in launched {
            let Some(budget) = campaign.budgets.get(&resource) else { continue };
            let kept = budget.reserved + budget.spent <= count * MICRO;
            holds(kept, "more is spent than was launched", (&campaign.campaign_id, budget))?;
        }
    }
    Ok(())
}
