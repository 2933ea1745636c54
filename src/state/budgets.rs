//! Budgets: what they still hold, what is promised from them, and what is settled in the end.
//!
//! A promise is made in the entry that launches, and settled in the one that ends. An attempt that is to
//! be followed by another is settled when it fails: each may use what a job is promised, so no retry and
//! no failover can spend what is not there (issue 5; contract 3.4).

use std::collections::BTreeMap;

use super::apply::Txn;
use super::campaign_command::JobReading;
use super::{CampaignFact, State};
use crate::canary::{self, Canary};
use crate::model::{
    Budget, Campaign, CampaignId, Job, JobKind, MICRO, Orchestrator, Resource, TaskId, TaskStatus,
};

type Budgets = BTreeMap<Resource, Budget>;

/// Budgets of a campaign and of its orchestrator as they are once something is promised.
pub(super) struct Promise {
    own: Budgets,
    shared: Budgets,
}

impl State {
    /// What a campaign's limit of launches is: its own, else its orchestrator's.
    #[must_use]
    pub fn launch_limit(&self, campaign: &Campaign, resource: Resource) -> u64 {
        if let Some(own) = campaign.plan.budgets.get(&resource) {
            return own.limit;
        }
        let config = self.orchestrator(&campaign.plan.orchestrator).map(|found| &found.config);
        let units = match resource {
            Resource::Simulations => config.map_or(0, |config| config.simulation_budget),
            Resource::Experiments => config.map_or(0, |config| config.experiment_budget),
            Resource::Tokens | Resource::Money | Resource::GpuMinutes => return u64::MAX,
        };
        units.saturating_mul(MICRO)
    }

    /// For how many more jobs of a kind there is enough of everything that one of them is promised, in
    /// the budgets of its campaign and in those of its orchestrator; and what runs out first.
    #[must_use]
    pub fn jobs_left(&self, campaign: &Campaign, kind: JobKind) -> (u64, Resource) {
        let shared = self.orchestrator(&campaign.plan.orchestrator).map(|found| &found.budgets);
        let mut least = (u64::MAX, kind.counted().unwrap_or(Resource::Simulations));
        let mut note = |left: u64, resource: Resource| {
            if left < least.0 {
                least = (left, resource);
            }
        };
        for (resource, amount) in each_job(campaign, kind) {
            let own = campaign.budgets.get(&resource).copied().unwrap_or_default();
            let own = Budget { limit: self.launch_limit(campaign, resource), ..own };
            for budget in [Some(&own), shared.and_then(|all| all.get(&resource))] {
                note(budget.map_or(u64::MAX, |budget| left_of(budget) / amount.max(1)), resource);
            }
        }
        for budgets in [Some(&campaign.budgets), shared].into_iter().flatten() {
            if let Some(resource) = overspent(budgets) {
                note(0, resource);
            }
        }
        least
    }

    /// Promises so much for each of `count` jobs, from the campaign's budgets and from those of its
    /// orchestrator: everything or nothing. The error says what is used up.
    pub(super) fn promise(
        &self,
        campaign: &Campaign,
        orchestrator: &Orchestrator,
        each: &BTreeMap<Resource, u64>,
        count: u64,
    ) -> Result<Promise, Resource> {
        let (mut own, mut shared) = (campaign.budgets.clone(), orchestrator.budgets.clone());
        for resource in each.keys() {
            own.entry(*resource).or_default().limit = self.launch_limit(campaign, *resource);
        }
        reserve(&mut [&mut own, &mut shared], each, count)?;
        Ok(Promise { own, shared })
    }
}

/// What one job of a campaign is promised.
pub(super) fn each_job(campaign: &Campaign, kind: JobKind) -> BTreeMap<Resource, u64> {
    let mut each = campaign.plan.job.per_job.clone();
    each.extend(kind.counted().map(|resource| (resource, MICRO)));
    each
}

fn left_of(budget: &Budget) -> u64 {
    if canary::active(Canary::BudgetRace) {
        return budget.limit.saturating_sub(budget.spent);
    }
    budget.left()
}

/// Of what an owner has spent so much more than was promised to it that it launches nothing any more.
fn overspent(budgets: &Budgets) -> Option<Resource> {
    let gone = |(resource, budget): &(&Resource, &Budget)| {
        Resource::METERED.contains(resource) && budget.limit > 0 && budget.spent >= budget.limit
    };
    budgets.iter().find(gone).map(|(resource, _)| *resource)
}

fn reserve_one(budget: &mut Budget, amount: u64) -> bool {
    if canary::active(Canary::BudgetRace) {
        budget.reserved = budget.reserved.saturating_add(amount);
        return amount <= budget.limit.saturating_sub(budget.spent);
    }
    budget.reserve(amount)
}

/// Promises so much for each of `count` jobs from budgets that each must hold it, where it has one of
/// that kind. On an error, which says what is used up, the budgets are to be thrown away.
pub(super) fn reserve(
    owners: &mut [&mut Budgets],
    each: &BTreeMap<Resource, u64>,
    count: u64,
) -> Result<(), Resource> {
    for (resource, amount) in each {
        let amount = amount.saturating_mul(count);
        for budgets in owners.iter_mut() {
            if budgets.get_mut(resource).is_some_and(|budget| !reserve_one(budget, amount)) {
                return Err(*resource);
            }
        }
    }
    let mut gone = owners.iter().filter_map(|budgets| overspent(budgets));
    gone.next().map_or(Ok(()), Err)
}

/// Warnings that have become due: whose, and of what.
pub(super) fn warnings(owner: &str, budgets: &mut Budgets) -> Vec<(String, &'static str)> {
    let due = budgets.iter_mut().filter_map(|(resource, budget)| {
        budget.warn().then(|| (owner.to_owned(), resource.as_str()))
    });
    due.collect()
}

/// Whose budgets a job draws on, as they are.
struct Owners {
    own: Budgets,
    asked: Budgets,
    shared: Budgets,
}

impl Txn<'_> {
    /// Writes down what was promised to jobs of a campaign.
    pub(super) fn keep(&mut self, campaign_id: &CampaignId, name: &str, promise: Promise) {
        let Promise { mut own, mut shared } = promise;
        let mut due = warnings(campaign_id.as_str(), &mut own);
        due.extend(warnings(name, &mut shared));
        self.warn_of_budgets(Some(campaign_id), due);
        self.edit_campaign(campaign_id, |campaign| campaign.budgets = own);
        self.edit_orchestrator(name, |orchestrator| orchestrator.budgets = shared);
    }

    /// Promises one job what it may use from the budgets of an orchestrator alone; gives what it is
    /// promised. The error says what is used up.
    pub(super) fn promise_alone(
        &mut self,
        name: &str,
        each: &BTreeMap<Resource, u64>,
    ) -> Result<BTreeMap<Resource, u64>, Resource> {
        let budgets = self.state.orchestrator(name).map(|row| row.budgets.clone());
        let mut budgets = budgets.unwrap_or_default();
        reserve(&mut [&mut budgets], each, 1)?;
        let due = warnings(name, &mut budgets);
        self.warn_of_budgets(None, due);
        if self.state.orchestrator(name).is_some_and(|row| row.budgets != budgets) {
            self.edit_orchestrator(name, |row| row.budgets = budgets);
        }
        Ok(each.clone())
    }

    /// Settles the attempt that has just failed and promises the same for another one. The error says
    /// what is used up; nothing is changed then, and the job cannot be tried again.
    pub(super) fn pay_attempt(&mut self, task_id: &TaskId) -> Result<(), Resource> {
        let Some(task) = self.state.open_task(task_id) else { return Ok(()) };
        let attempt = task.attempt;
        let job = task.job.as_ref().filter(|job| task.execution.is_some() && attempt > job.paid);
        let Some(job) = job.cloned() else { return Ok(()) };
        let metered = job.reserved.iter().filter(|(kind, _)| Resource::METERED.contains(kind));
        let metered: BTreeMap<Resource, u64> = metered.map(|(kind, each)| (*kind, *each)).collect();
        if !metered.is_empty() {
            let mut owners = self.owners(&job);
            let Owners { own, asked, shared } = &mut owners;
            let mut all = [own, asked, shared];
            for (resource, promised) in &metered {
                for budget in all.iter_mut().filter_map(|budgets| budgets.get_mut(resource)) {
                    budget.settle(*promised, *promised);
                }
            }
            reserve(&mut all, &metered, 1)?;
            self.keep_owners(&job, owners);
        }
        self.edit_task(task_id, |task| {
            if let Some(job) = &mut task.job {
                job.paid = attempt;
            }
        });
        Ok(())
    }

    /// Replaces promises by what was used. A job that was tried and says nothing used what it was
    /// promised; one that was not tried since it was last settled used nothing more.
    pub(super) fn settle(
        &mut self,
        job: &Job,
        status: TaskStatus,
        tried: bool,
        reading: &JobReading,
    ) {
        let used = |resource: &Resource, promised: u64| match resource {
            // However often it was tried, it is one.
            Resource::Simulations | Resource::Experiments if tried || job.paid > 0 => promised,
            Resource::Tokens | Resource::Money | Resource::GpuMinutes if tried => {
                let told = reading.usage.get(resource).copied();
                told.filter(|_| status == TaskStatus::Completed).unwrap_or(promised)
            }
            _not_tried => 0,
        };
        let mut owners = self.owners(job);
        let Owners { own, asked, shared } = &mut owners;
        for budgets in [own, asked, shared] {
            for (resource, promised) in &job.reserved {
                if let Some(budget) = budgets.get_mut(resource) {
                    budget.settle(*promised, used(resource, *promised));
                }
            }
            // What was used without a promise counts, too.
            for (resource, amount) in &reading.usage {
                if !job.reserved.contains_key(resource)
                    && let Some(budget) = budgets.get_mut(resource)
                {
                    budget.settle(0, *amount);
                }
            }
        }
        self.keep_owners(job, owners);
    }

    fn owners(&self, job: &Job) -> Owners {
        let campaign = job.candidate.as_ref().and_then(|(id, _, _)| self.state.campaign(id));
        let command = self.state.agent_command(job.command);
        let orchestrator = self.state.orchestrator(&job.orchestrator);
        Owners {
            own: campaign.map(|row| row.budgets.clone()).unwrap_or_default(),
            asked: command.map(|row| row.budgets.clone()).unwrap_or_default(),
            shared: orchestrator.map(|row| row.budgets.clone()).unwrap_or_default(),
        }
    }

    /// Writes down budgets that have changed, and gives the warnings that are due by that.
    fn keep_owners(&mut self, job: &Job, owners: Owners) {
        let Owners { mut own, mut asked, mut shared } = owners;
        let campaign_id = job.candidate.as_ref().map(|(id, _, _)| id);
        let name = job.orchestrator.as_str();
        let mut due = campaign_id.map(|id| warnings(id.as_str(), &mut own)).unwrap_or_default();
        due.extend(warnings(&format!("command {}", job.command), &mut asked));
        due.extend(warnings(name, &mut shared));
        self.warn_of_budgets(campaign_id, due);
        if let Some(id) = campaign_id
            && self.state.campaign(id).is_some_and(|row| row.budgets != own)
        {
            self.edit_campaign(id, |row| row.budgets = own);
        }
        if self.state.agent_command(job.command).is_some_and(|row| row.budgets != asked) {
            self.set_command_budgets(job.command, asked);
        }
        if self.state.orchestrator(name).is_some_and(|row| row.budgets != shared) {
            self.edit_orchestrator(name, |row| row.budgets = shared);
        }
    }

    fn warn_of_budgets(
        &mut self,
        campaign_id: Option<&CampaignId>,
        due: Vec<(String, &'static str)>,
    ) {
        for (owner, resource) in due {
            if let Some(id) = campaign_id {
                self.log_line(id, "budget", format!("{owner}: little is left of {resource}"));
            }
            self.tell(CampaignFact::BudgetWarned { owner, resource });
        }
    }
}
