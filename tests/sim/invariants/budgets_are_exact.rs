//! What is promised and what is gone never exceed a limit; what is promised is what open jobs were
//! promised, at every index; and what is gone in the end is exactly what the jobs that were tried used.
//!
//! Source: issue 5, "no failover or retry can overspend them"; docs/decisions/0008, "a budget is promised
//! on launch and settled at the end".

use std::collections::{BTreeMap, BTreeSet};

use quorate::model::{
    Budget, CampaignId, CampaignPlan, Epoch, MICRO, NodeId, Resource, TaskId, TaskStatus,
};
use quorate::state::{Fact, State, check_campaigns, parse_candidate};

use super::events_are_the_same::Events;
use crate::jobs;
use crate::planners::NAMES;

/// Budgets as they were seen last.
#[derive(Default)]
pub(super) struct Limits(BTreeMap<(String, Resource), Budget>);

impl Limits {
    /// At one index.
    pub(super) fn note(&mut self, state: &State) -> Result<(), String> {
        check_campaigns(state)?;
        for campaign in state.campaigns_after(None) {
            if !jobs::is_greedy(&campaign.plan) {
                self.check(campaign.campaign_id.as_str(), &campaign.budgets)?;
            }
        }
        // No job of the first one uses more than it was promised.
        match state.orchestrator(NAMES[0]) {
            Some(orchestrator) => self.check(&orchestrator.name, &orchestrator.budgets),
            None => Ok(()),
        }
    }

    /// What is beyond a limit that was just set or lowered may stay, and never grows: a budget that is
    /// set while jobs run counts what they were promised.
    fn check(&mut self, owner: &str, budgets: &BTreeMap<Resource, Budget>) -> Result<(), String> {
        let used = |budget: Budget| budget.reserved + budget.spent;
        for (resource, budget) in budgets {
            let before = self.0.insert((owner.to_owned(), *resource), *budget);
            let Some(before) = before else { continue };
            if budget.spent < before.spent {
                let resource = resource.as_str();
                return Err(format!("{owner} has forgotten {resource}: {before:?}, {budget:?}"));
            }
            let over = used(*budget) > budget.limit;
            if over && before.limit == budget.limit && used(*budget) > used(before) {
                let resource = resource.as_str();
                return Err(format!("{owner} has overspent {resource}: {before:?}, {budget:?}"));
            }
        }
        Ok(())
    }
}

/// What one job came to.
#[derive(Debug, Default)]
struct Bill {
    /// The newest attempt, and whether somebody holds it.
    attempt: u32,
    held: bool,
    /// Its holder has taken it up.
    begun: bool,
    /// In which it was placed.
    epoch: Epoch,
    /// Attempts that used what was promised and gave nothing: they failed, or were taken back.
    lost: u64,
    /// Attempts that were refused in an epoch with more than one reign: the one before may have handed them
    /// over, and no event says so.
    unsure: u64,
    ended: Option<TaskStatus>,
}

/// What the jobs of each campaign came to, by the events of the whole run.
#[derive(Default)]
pub(super) struct Bills<'a>(BTreeMap<&'a TaskId, Bill>);

impl<'a> Bills<'a> {
    /// `twice` are the epochs with more than one reign.
    pub(super) fn of(events: &'a Events, twice: &BTreeSet<Epoch>) -> Self {
        let mut bills = Self::default();
        let mut now = Epoch::default();
        for (_, fact) in events.iter() {
            match fact {
                Fact::EpochOpened { epoch, .. } => now = *epoch,
                Fact::TaskAssigned { task_id, attempt, .. } => {
                    let bill = bills.0.entry(task_id).or_default();
                    (bill.attempt, bill.held, bill.begun) = (*attempt, true, false);
                    bill.epoch = now;
                }
                Fact::TaskStarted { task_id, .. } => {
                    bills.0.entry(task_id).or_default().begun = true;
                }
                Fact::TaskRetried { task_id, .. } => {
                    let bill = bills.0.entry(task_id).or_default();
                    (bill.lost, bill.held) = (bill.lost + 1, false);
                }
                // It was refused, or taken from a holder who was not asked, or its back-off is over.
                Fact::TaskQueued { task_id, taken_from, .. } => {
                    let bill = bills.0.entry(task_id).or_default();
                    let may_have_run = taken_from.is_some() || bill.begun || bill.epoch != now;
                    bill.lost += u64::from(bill.held && may_have_run);
                    let unsure = bill.held && !may_have_run && twice.contains(&now);
                    bill.unsure += u64::from(unsure);
                    bill.held = false;
                }
                Fact::TaskEnded { task_id, status, .. } => {
                    bills.0.entry(task_id).or_default().ended = Some(*status);
                }
                _other_facts => {}
            }
        }
        bills
    }

    /// In the end, when nothing is promised any more.
    pub(super) fn check(&self, state: &State) -> Result<(), String> {
        for campaign in state.campaigns_after(None) {
            let due = |unsure| self.due(&campaign.campaign_id, &campaign.plan, unsure);
            let (least, most) = (due(false), due(true));
            for (resource, budget) in &campaign.budgets {
                let of = |due: &BTreeMap<Resource, u64>| due.get(resource).copied().unwrap_or(0);
                let due = of(&least)..=of(&most);
                if budget.reserved > 0 || !due.contains(&budget.spent) {
                    let (id, resource) = (&campaign.campaign_id, resource.as_str());
                    return Err(format!("{id}: {due:?} of {resource} are due: {budget:?}"));
                }
            }
        }
        Ok(())
    }

    /// What is due, with all that may be or without it.
    fn due(
        &self,
        campaign_id: &CampaignId,
        plan: &CampaignPlan,
        unsure: bool,
    ) -> BTreeMap<Resource, u64> {
        let mut due = BTreeMap::new();
        for (task_id, bill) in &self.0 {
            let lost = bill.lost + if unsure { bill.unsure } else { 0 };
            let Some((kind, structure)) = task_id.as_str().split_once('.') else { continue };
            let own = parse_candidate(structure).is_some_and(|(id, _, _)| id == *campaign_id);
            let Some(status) = bill.ended.filter(|_| own && (bill.held || lost > 0)) else {
                continue;
            };
            let one =
                if kind == "experiment" { Resource::Experiments } else { Resource::Simulations };
            *due.entry(one).or_insert(0) += MICRO;
            let promised = jobs::tokens_used(plan, task_id.as_str(), 0, false);
            let tokens = due.entry(Resource::Tokens).or_insert(0);
            *tokens += lost * promised;
            if bill.held {
                // The results of experiments do not say what they used.
                let told = status == TaskStatus::Completed && kind != "experiment";
                let attempt = u64::from(bill.attempt);
                *tokens += jobs::tokens_used(plan, task_id.as_str(), attempt, told);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_beyond_its_limit_is_found() {
        let mut limits = Limits::default();
        let mut of = |owner: &str, limit, reserved, spent| {
            let budget = Budget { limit, reserved, spent, ..Budget::default() };
            limits.check(owner, &BTreeMap::from([(Resource::Tokens, budget)]))
        };
        assert!(
            of("a", 10, 4, 6).is_ok() && of("b", u64::MAX, 4, 6).is_ok(),
            "what has no limit holds all"
        );
        assert!(of("b", 0, 4, 6).is_ok() && of("b", 0, 4, 7).is_err(), "and a limit of 0 nothing");
        assert!(of("a", 10, 5, 6).is_err());
        assert!(of("c", 10, 11, 0).is_ok(), "it was set while jobs ran");
        assert!(of("c", 10, 0, 11).is_ok() && of("c", 10, 1, 11).is_err());
        assert!(of("d", 10, 4, 5).is_ok() && of("d", 8, 4, 5).is_ok(), "the limit was lowered");
        assert!(of("e", 10, 0, 4).is_ok() && of("e", 10, 4, 0).is_err(), "it was spent before");
        assert!(of("d", 8, 0, 9).is_ok() && of("d", 8, 1, 9).is_err(), "and more was promised");
    }

    #[test]
    fn bills_count_what_may_have_run_when_it_is_taken_back() {
        let (id, node_id) = (CampaignId::trusted("c"), NodeId::trusted("n"));
        let plan = CampaignPlan { job: jobs::template(3, false, 0), ..CampaignPlan::default() };
        let task = |place: u32| TaskId::trusted(&format!("job.c.0.{place}"));
        let epoch = |term| Fact::EpochOpened { epoch: Epoch { term, member: 1 }, term, leader: 1 };
        let assigned = |place| Fact::TaskAssigned {
            task_id: task(place),
            node_id: node_id.clone(),
            attempt: 1,
        };
        let queued =
            |place, taken_from| Fact::TaskQueued { task_id: task(place), attempt: 1, taken_from };
        let cancelled = |place| {
            let (status, node_id) = (TaskStatus::Cancelled, None);
            let (task_id, attempt, taken_from) = (task(place), 1, None);
            Fact::TaskEnded { task_id, status, node_id, attempt, taken_from }
        };
        // One refused, one taken from a node before it said anything, one refused to another leader.
        let facts = [
            [epoch(1), assigned(0), queued(0, None)].to_vec(),
            [assigned(1), queued(1, Some(node_id.clone()))].to_vec(),
            [assigned(2), epoch(2), queued(2, None)].to_vec(),
            (0..3).map(cancelled).collect(),
        ];
        let events = Events::made(facts.into_iter().flatten());
        let due = Bills::of(&events, &BTreeSet::new()).due(&id, &plan, false);
        assert_eq!(due[&Resource::Simulations], 2 * MICRO, "but for the one that was refused");
        assert_eq!(due[&Resource::Tokens], 2 * 3 * MICRO);
        let twice = BTreeSet::from([Epoch { term: 1, member: 1 }]);
        let due = |unsure| Bills::of(&events, &twice).due(&id, &plan, unsure)[&Resource::Tokens];
        assert_eq!((due(false), due(true)), (2 * 3 * MICRO, 3 * 3 * MICRO), "it may have run");
    }

    #[test]
    fn bills_count_what_was_tried_and_what_it_said() {
        let id = CampaignId::trusted("c");
        let plan = CampaignPlan { job: jobs::template(3, false, 0), ..CampaignPlan::default() };
        let ended = |name: &str, status, attempt| {
            let (task_id, node_id) = (TaskId::trusted(name), NodeId::trusted("n"));
            let assigned = |attempt| {
                let (task_id, node_id) = (task_id.clone(), node_id.clone());
                Fact::TaskAssigned { task_id, node_id, attempt }
            };
            let retried = |attempt| Fact::TaskRetried {
                task_id: task_id.clone(),
                attempt,
                not_before_ms: 0,
                taken_from: None,
            };
            let tries = (1..attempt).flat_map(|before| [assigned(before), retried(before)]);
            let mut facts: Vec<Fact> =
                tries.chain((attempt > 0).then(|| assigned(attempt))).collect();
            facts.push(Fact::TaskEnded {
                task_id: task_id.clone(),
                status,
                node_id: None,
                attempt,
                taken_from: None,
            });
            facts
        };
        let mut refused = ended("job.c.0.3", TaskStatus::Cancelled, 1);
        let mut drained = ended("job.c.0.4", TaskStatus::Cancelled, 1);
        let taken_back = |facts: &mut Vec<Fact>| {
            let Fact::TaskAssigned { task_id, .. } = &facts[0] else { panic!("it was assigned") };
            let (task_id, attempt, taken_from) = (task_id.clone(), 1, None);
            let queued = Fact::TaskQueued { task_id, attempt, taken_from };
            facts.insert(1, queued);
        };
        taken_back(&mut refused);
        taken_back(&mut drained);
        let Fact::TaskAssigned { task_id, .. } = drained[0].clone() else {
            panic!("it was assigned")
        };
        drained.insert(1, Fact::TaskStarted { task_id, attempt: 1 });
        let facts = [
            refused,
            drained,
            ended("job.c.0.0", TaskStatus::DeadLetter, 2),
            ended("job.c.0.1", TaskStatus::Cancelled, 0),
            ended("job.c.0.2", TaskStatus::Completed, 1),
            ended("job.d.0.0", TaskStatus::Completed, 1),
            ended("experiment.c.0.2", TaskStatus::Failed, 1),
        ];
        let events = Events::made(facts.into_iter().flatten());
        let due = Bills::of(&events, &BTreeSet::new()).due(&id, &plan, false);
        let told = jobs::tokens_used(&plan, "job.c.0.2", 1, true);
        assert_eq!(due[&Resource::Simulations], 3 * MICRO, "two were never begun");
        assert_eq!(
            due[&Resource::Tokens],
            2 * 3 * MICRO + told + 3 * MICRO + 3 * MICRO,
            "two tries, a result, an experiment, and what was taken back"
        );
        assert_eq!(due[&Resource::Experiments], MICRO);
    }
}
