//! An orchestrator has one open run at most, every run ends, and every launch stands in a record: an
//! iteration that nobody asked for in the decisions of a run, each job in its iteration, each experiment
//! in a run. Nothing is launched twice, and no two requests begin the same run.
//!
//! Source: issue 5, "never a run that is open for ever and never a launch without a record".

use std::collections::{BTreeMap, BTreeSet};

use quorate::model::{CampaignId, RunId};
use quorate::state::{CampaignFact, Fact, State, parse_candidate};

use super::events_are_the_same::Events;

#[derive(Default)]
pub(super) struct Runs {
    /// Iterations that clients asked for and were not refused, at most.
    asked: BTreeMap<CampaignId, u32>,
    /// Begun for clients.
    begun: BTreeSet<RunId>,
}

/// What the events of the whole run say of launches.
#[derive(Debug, Default)]
pub(super) struct Launches {
    /// Candidates of each iteration.
    iterations: BTreeMap<(CampaignId, u32), u32>,
    jobs: BTreeMap<(CampaignId, u32), u32>,
    experiments: BTreeSet<String>,
    /// Runs that are open, by orchestrator.
    open: BTreeMap<String, RunId>,
    runs: BTreeSet<RunId>,
    /// Runs that did a task.
    works: BTreeSet<RunId>,
}

impl Runs {
    pub(super) fn asks(&mut self, campaign_id: &CampaignId, count: u32) {
        *self.asked.entry(campaign_id.clone()).or_default() += count;
    }

    /// So many of those that were asked for certainly do not come.
    pub(super) fn refused(&mut self, campaign_id: &CampaignId, count: u32) {
        if let Some(asked) = self.asked.get_mut(campaign_id) {
            *asked -= count;
        }
    }

    /// A client was told that it began a run.
    pub(super) fn begun(&mut self, run_id: RunId) -> Result<(), String> {
        let new = self.begun.insert(run_id);
        if new { Ok(()) } else { Err(format!("run {run_id} was begun for two requests")) }
    }

    /// In the end: the records against what was launched.
    pub(super) fn check(&self, launches: &Launches, state: &State) -> Result<(), String> {
        if let Some((name, run_id)) = launches.open.iter().next() {
            return Err(format!("run {run_id} of {name} is open"));
        }
        let mut recorded: BTreeMap<&CampaignId, u32> = BTreeMap::new();
        let mut experiments = 0;
        for run in state.runs() {
            let told = state.decisions(run.run_id).map(|row| (row.simulations, row.experiments));
            let (sims, measured) = told.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            if run.completed_at_ms == 0 || (sims, measured) != (run.simulations, run.experiments) {
                return Err(format!("{run:?} has not ended, or decided {sims} and {measured}"));
            }
            run.advanced.iter().for_each(|id| *recorded.entry(id).or_default() += 1);
            experiments += measured as usize;
        }
        if let Some(run_id) = self.begun.iter().find(|run_id| !launches.runs.contains(run_id)) {
            return Err(format!("run {run_id} was acknowledged, and never began"));
        }
        if experiments != launches.experiments.len() {
            let all = launches.experiments.len();
            return Err(format!("{all} experiments were launched, runs say {experiments}"));
        }
        self.check_iterations(launches, state, &recorded)
    }

    fn check_iterations(
        &self,
        launches: &Launches,
        state: &State,
        recorded: &BTreeMap<&CampaignId, u32>,
    ) -> Result<(), String> {
        for campaign in state.campaigns_after(None) {
            let id = &campaign.campaign_id;
            let own = launches.iterations.range((id.clone(), 0)..=(id.clone(), u32::MAX)).count();
            let by_runs = recorded.get(id).copied().unwrap_or(0);
            let asked = self.asked.get(id).copied().unwrap_or(0);
            let known = by_runs <= campaign.iterations && campaign.iterations <= by_runs + asked;
            if own != campaign.iterations as usize || !known {
                return Err(format!(
                    "{id} has {} iterations: {own} were begun, {by_runs} by runs, {asked} were asked for",
                    campaign.iterations
                ));
            }
        }
        Ok(())
    }
}

impl Launches {
    /// Reads the events of the whole run.
    pub(super) fn of(events: &Events) -> Result<Self, String> {
        let mut launches = Self::default();
        for (at, fact) in events.iter() {
            launches.take(fact).map_err(|what| format!("at {at:?}: {what}: {fact:?}"))?;
        }
        if launches.jobs == launches.iterations {
            return Ok(launches);
        }
        Err(format!("jobs and iterations differ: {launches:?}"))
    }

    /// How many jobs there were.
    pub(super) fn jobs(&self) -> u64 {
        self.jobs.values().copied().map(u64::from).sum()
    }

    /// How many experiments there were.
    pub(super) fn experiments(&self) -> u64 {
        self.experiments.len() as u64
    }

    /// How many runs there were.
    pub(super) fn runs(&self) -> u64 {
        self.runs.len() as u64
    }

    /// How many of them did a task.
    pub(super) fn works(&self) -> u64 {
        self.works.len() as u64
    }

    fn take(&mut self, fact: &Fact) -> Result<(), &'static str> {
        match fact {
            Fact::Campaign(CampaignFact::RunBegun { run_id, orchestrator }) => {
                if !self.runs.insert(*run_id) {
                    return Err("the run began before");
                }
                if self.open.insert(orchestrator.clone(), *run_id).is_some() {
                    return Err("another run was open");
                }
            }
            Fact::Campaign(CampaignFact::RunEnded { run_id, orchestrator, .. }) => {
                let open = self.open.remove(orchestrator);
                return if open == Some(*run_id) { Ok(()) } else { Err("that run was not open") };
            }
            Fact::Campaign(CampaignFact::IterationBegun {
                campaign_id,
                iteration,
                simulations,
            }) => {
                let key = (campaign_id.clone(), *iteration);
                if self.iterations.insert(key, *simulations).is_some() {
                    return Err("the iteration began before");
                }
            }
            Fact::TaskSubmitted { task_id } => {
                let Some((kind, structure)) = task_id.as_str().split_once('.') else {
                    return Ok(());
                };
                if let Some(run_id) = structure.parse().ok().filter(|_| kind == "run") {
                    return self.take_work(run_id);
                }
                let Some((id, iteration, _)) = parse_candidate(structure) else { return Ok(()) };
                let first = kind != "experiment" || self.experiments.insert(structure.to_owned());
                if !first {
                    return Err("the experiment was launched before");
                }
                if kind == "job" {
                    *self.jobs.entry((id, iteration)).or_default() += 1;
                } else if self.open.is_empty() {
                    return Err("no run was open");
                }
            }
            _other_facts => {}
        }
        Ok(())
    }
}

impl Launches {
    /// The task of a run was launched.
    fn take_work(&mut self, run_id: RunId) -> Result<(), &'static str> {
        if !self.open.values().any(|open| *open == run_id) {
            return Err("its run was not open");
        }
        if self.works.insert(run_id) { Ok(()) } else { Err("the run did its task before") }
    }
}

#[cfg(test)]
mod tests {
    use quorate::model::TaskId;

    use super::*;

    fn begun(run_id: RunId) -> Fact {
        let orchestrator = "default".to_owned();
        Fact::Campaign(CampaignFact::RunBegun { run_id, orchestrator })
    }

    fn ended(run_id: RunId) -> Fact {
        let (orchestrator, success) = ("default".to_owned(), true);
        Fact::Campaign(CampaignFact::RunEnded { run_id, orchestrator, success })
    }

    fn iteration(iteration: u32, simulations: u32) -> Fact {
        let campaign_id = CampaignId::trusted("c");
        Fact::Campaign(CampaignFact::IterationBegun { campaign_id, iteration, simulations })
    }

    fn launched(task: &str) -> Fact {
        Fact::TaskSubmitted { task_id: TaskId::trusted(task) }
    }

    #[test]
    fn runs_that_overlap_and_launches_without_a_record_are_found() {
        let of = |facts: Vec<Fact>| Launches::of(&Events::made(facts)).map(drop);
        let good = vec![
            begun(1),
            iteration(0, 2),
            launched("job.c.0.0"),
            launched("job.c.0.1"),
            launched("t1"),
            ended(1),
            begun(2),
            launched("experiment.c.0.1"),
            ended(2),
        ];
        assert_eq!(of(good.clone()), Ok(()));
        assert!(of(vec![begun(1), begun(2)]).unwrap_err().contains("was open"));
        assert!(of(vec![begun(1), ended(1), begun(1)]).unwrap_err().contains("began before"));
        assert!(of(vec![begun(1), ended(2)]).unwrap_err().contains("not open"));
        assert!(of(vec![iteration(0, 1), iteration(0, 1)]).is_err());
        assert!(of(vec![launched("job.c.0.0")]).is_err(), "a job of no iteration");
        let twice = [good, vec![begun(3), launched("experiment.c.0.1")]].concat();
        assert!(of(twice).unwrap_err().contains("launched before"));
        assert!(of(vec![launched("experiment.c.0.1")]).unwrap_err().contains("no run"));
    }

    #[test]
    fn a_run_that_is_left_open_or_told_twice_is_found() {
        let open = Launches::of(&Events::made([begun(1)])).unwrap();
        assert!(Runs::default().check(&open, &State::default()).unwrap_err().contains("is open"));
        let mut runs = Runs::default();
        assert_eq!((runs.begun(4), runs.begun(4).is_err()), (Ok(()), true));
        let none = Launches::default();
        assert!(runs.check(&none, &State::default()).unwrap_err().contains("never began"));
    }
}
