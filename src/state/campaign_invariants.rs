//! What must hold of campaigns, their budgets and the ledger, after every entry.

use std::collections::BTreeMap;

use super::{State, candidate_job};
use crate::model::{CandidateState, JobKind, Resource, RunPhase, Task};

/// Panics at the first invariant that does not hold.
pub(super) fn check(state: &State) {
    let open: Vec<Task> = state
        .rows_after(0)
        .filter(|task| task.job.is_some() && !task.status.is_terminal())
        .map(std::borrow::Cow::into_owned)
        .collect();
    for kind in [JobKind::Simulation, JobKind::Experiment, JobKind::Training] {
        let of_kind = open.iter().filter(|task| task.job.as_ref().unwrap().kind == kind).count();
        assert_eq!(state.open_jobs(kind), of_kind as u64, "open jobs of {kind:?} are counted");
    }
    check_promises(state, &open);
    for campaign in state.campaigns_after(None) {
        let newest = state.iterations(&campaign.campaign_id).next_back();
        assert_eq!(newest.map_or(0, |row| row.index + 1), campaign.iterations);
        assert_eq!(newest.is_some_and(|row| row.completed_at_ms == 0), campaign.iterating);
        assert!(campaign.iterations <= campaign.plan.stop.max_iterations, "{campaign:?}");
        assert!(!campaign.tripped || campaign.requested == 0, "{campaign:?}");
        for iteration in state.iterations(&campaign.campaign_id) {
            let places = (0u32..).zip(&iteration.candidates);
            let waits = places.filter(|(_, row)| row.state == CandidateState::Open);
            let waits: Vec<u32> = waits.map(|(place, _)| place).collect();
            assert_eq!(waits.len(), iteration.open as usize, "{iteration:?}");
            assert_eq!(iteration.completed_at_ms > 0, waits.is_empty(), "{iteration:?}");
            for place in waits {
                let job = candidate_job(&campaign.campaign_id, iteration.index, place);
                assert!(state.open_task(&job).is_some(), "an open candidate has its job: {job}");
            }
        }
    }
    for orchestrator in state.orchestrators() {
        let open = state
            .runs()
            .filter(|run| run.orchestrator == orchestrator.name && run.phase != RunPhase::Ended);
        let open: Vec<u64> = open.map(|run| run.run_id).collect();
        assert_eq!(open, orchestrator.open_run.into_iter().collect::<Vec<_>>());
    }
    for schedule in state.schedules() {
        let rows = state.slots_from(&schedule.key, 0).count();
        assert_eq!(rows, state.slots_kept(&schedule.key), "each decision is one row");
        let newest = state.slots_from(&schedule.key, 0).next_back();
        assert!(newest.is_none_or(|slot| slot.nominal_ms <= schedule.decided_ms));
        for slot in state.slots_from(&schedule.key, 0) {
            let Some(run_id) = slot.decision.run_id() else { continue };
            // A run that is forgotten cannot tell any more.
            let run = state.run(run_id);
            assert!(run.is_none_or(|run| run.slot_ms == slot.nominal_ms), "{slot:?} {run:?}");
        }
    }
}

/// What is promised is what open jobs were promised, no more and no less.
fn check_promises(state: &State, open: &[Task]) {
    let (mut own, mut shared) = (BTreeMap::new(), BTreeMap::new());
    let mut asked = BTreeMap::new();
    for task in open {
        let job = task.job.as_ref().unwrap();
        for (resource, amount) in &job.reserved {
            if let Some((campaign_id, _, _)) = &job.candidate {
                *own.entry((campaign_id.as_str().to_owned(), *resource)).or_insert(0) += amount;
            }
            *asked.entry((job.command, *resource)).or_insert(0u64) += amount;
            *shared.entry((job.orchestrator.clone(), *resource)).or_insert(0u64) += amount;
        }
    }
    for campaign in state.campaigns_after(None) {
        for (resource, budget) in &campaign.budgets {
            let key = (campaign.campaign_id.as_str().to_owned(), *resource);
            let promised = own.get(&key).copied().unwrap_or(0);
            assert_eq!(budget.reserved, promised, "{resource:?} of {campaign:?}");
            let counted = matches!(resource, Resource::Simulations | Resource::Experiments);
            let kept = budget.limit == 0 || budget.reserved + budget.spent <= budget.limit;
            assert!(!counted || kept, "{resource:?} is overspent: {campaign:?}");
        }
    }
    for command in state.agent_commands() {
        for (resource, budget) in &command.budgets {
            let promised = asked.get(&(command.number, *resource)).copied().unwrap_or(0);
            assert_eq!(budget.reserved, promised, "{resource:?} of {command:?}");
        }
    }
    for orchestrator in state.orchestrators() {
        for (resource, budget) in &orchestrator.budgets {
            let promised = shared.get(&(orchestrator.name.clone(), *resource));
            // A budget that was set while jobs ran knows nothing of those.
            assert!(budget.reserved <= promised.copied().unwrap_or(0), "{orchestrator:?}");
        }
    }
}
