//! Budgets: what they still hold, what is promised from them, and what is settled in the end.
//!
//! A promise is made in the entry that launches, and settled in the one that ends. An attempt that is to
//! be followed by another is settled when it fails, or is taken back from a holder who did not refuse it
//! itself: each may use what a job is promised, so no retry and no failover can spend what is not there
//! (issue 5; contract 3.4).

use std::collections::BTreeMap;

use super::apply::Txn;
use super::campaign_command::JobReading;
use super::{CampaignFact, State};
use crate::canary::{self, Canary};
use crate::model::{
    Budget, Campaign, CampaignId, Job, JobKind, JobTemplate, MICRO, Resource, TaskId, TaskStatus,
};

type Budgets = BTreeMap<Resource, Budget>;

/// Whose budgets jobs draw on, and the budgets as they are once something is promised or settled.
pub(super) struct Owners {
    campaign: Option<CampaignId>,
    /// The agent command; 0 for none.
    command: u64,
    orchestrator: String,
    own: Budgets,
    asked: Budgets,
    shared: Budgets,
}

impl Owners {
    /// The budgets of the agent command, which has just come with them.
    pub(super) fn ask(&mut self, asked: impl Iterator<Item = (Resource, Budget)>) {
        self.asked = asked.collect();
    }

    fn each(&mut self) -> [&mut Budgets; 3] {
        [&mut self.own, &mut self.asked, &mut self.shared]
    }

    /// Promises so much for each of `count` jobs from all who have a budget of that kind: each must hold
    /// it. On an error, which says what is used up, these are to be thrown away.
    pub(super) fn reserve(
        &mut self,
        each: &BTreeMap<Resource, u64>,
        count: u64,
    ) -> Result<(), Resource> {
        for (resource, amount) in each {
            let amount = amount.saturating_mul(count);
            for budgets in self.each() {
                if budgets.get_mut(resource).is_some_and(|budget| !reserve_one(budget, amount)) {
                    return Err(*resource);
                }
            }
        }
        let mut gone = [&self.own, &self.asked, &self.shared].into_iter().filter_map(overspent);
        gone.next().map_or(Ok(()), Err)
    }

    /// Replaces a promise by what was used, with everybody who has a budget of that kind.
    fn settle(&mut self, resource: Resource, promised: u64, used: u64) {
        for budgets in self.each() {
            if let Some(budget) = budgets.get_mut(&resource) {
                budget.settle(promised, used);
            }
        }
    }

    /// Warnings that have become due: whose, and of what.
    fn warnings(&mut self) -> Vec<(String, &'static str)> {
        let named = [
            (
                self.campaign.as_ref().map_or_else(String::new, |id| id.as_str().to_owned()),
                &mut self.own,
            ),
            (format!("command {}", self.command), &mut self.asked),
            (self.orchestrator.clone(), &mut self.shared),
        ];
        let mut due = Vec::new();
        for (owner, budgets) in named {
            for (resource, budget) in budgets.iter_mut() {
                if budget.warn() {
                    due.push((owner.clone(), resource.as_str()));
                }
            }
        }
        due
    }
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
        let usual = kind.counted().unwrap_or(Resource::Simulations);
        if let Some(resource) = self.all_spent(campaign) {
            return (0, resource);
        }
        let mut least = (u64::MAX, usual);
        self.each_limit(campaign, kind, |resource, each, budget| {
            let left = left_of(budget) / each;
            if left < least.0 {
                least = (left, resource);
            }
        });
        least
    }

    /// What a campaign has not enough of for one more job of a kind, and will not have when everybody
    /// gives back what was promised.
    #[must_use]
    pub(super) fn used_up(&self, campaign: &Campaign, kind: JobKind) -> Option<Resource> {
        let mut found = self.all_spent(campaign);
        self.each_limit(campaign, kind, |resource, each, budget| {
            if budget.unspent() < each {
                found.get_or_insert(resource);
            }
        });
        found
    }

    /// What a campaign or its orchestrator has used up.
    fn all_spent(&self, campaign: &Campaign) -> Option<Resource> {
        let shared = self.orchestrator(&campaign.plan.orchestrator).map(|found| &found.budgets);
        [Some(&campaign.budgets), shared].into_iter().flatten().find_map(overspent)
    }

    /// Shows the budgets that one job of a kind is promised something of, and how much.
    fn each_limit(
        &self,
        campaign: &Campaign,
        kind: JobKind,
        mut show: impl FnMut(Resource, u64, &Budget),
    ) {
        let shared = self.orchestrator(&campaign.plan.orchestrator).map(|found| &found.budgets);
        for (resource, each) in self.each_job(campaign, kind) {
            let each = each.max(1);
            let own = campaign.budgets.get(&resource).copied().unwrap_or_default();
            show(resource, each, &Budget { limit: self.launch_limit(campaign, resource), ..own });
            if let Some(budget) = shared.and_then(|all| all.get(&resource)) {
                show(resource, each, budget);
            }
        }
    }

    /// The budgets of a campaign, an agent command (0 for none) and an orchestrator.
    pub(super) fn owners(
        &self,
        campaign: Option<&Campaign>,
        command: u64,
        orchestrator: &str,
    ) -> Owners {
        let asked = self.agent_command(command).map(|row| row.budgets.clone());
        let shared = self.orchestrator(orchestrator).map(|row| row.budgets.clone());
        Owners {
            campaign: campaign.map(|row| row.campaign_id.clone()),
            command,
            orchestrator: orchestrator.to_owned(),
            own: campaign.map(|row| row.budgets.clone()).unwrap_or_default(),
            asked: asked.unwrap_or_default(),
            shared: shared.unwrap_or_default(),
        }
    }

    /// What one job of a campaign is promised.
    pub(super) fn each_job(&self, campaign: &Campaign, kind: JobKind) -> BTreeMap<Resource, u64> {
        self.promise_of(&campaign.plan.orchestrator, &campaign.plan.job, kind)
    }

    /// What one job is promised: what its task says, else what its orchestrator does.
    pub(super) fn promise_of(
        &self,
        orchestrator: &str,
        template: &JobTemplate,
        kind: JobKind,
    ) -> BTreeMap<Resource, u64> {
        let usual = self.orchestrator(orchestrator).map(|row| row.per_job.clone());
        let mut each = usual.unwrap_or_default();
        // A task that is promised nothing would pass every limit.
        let own = template.per_job.iter().filter(|(_, each)| **each > 0);
        each.extend(own.map(|(resource, each)| (*resource, *each)));
        each.extend(kind.counted().map(|resource| (resource, MICRO)));
        each
    }

    fn owners_of(&self, job: &Job) -> Owners {
        let campaign = job.candidate.as_ref().and_then(|(id, _, _)| self.campaign(id));
        self.owners(campaign, job.command, &job.orchestrator)
    }

    /// Promises so much for each of `count` jobs of a campaign, which an orchestrator launches:
    /// everything or nothing. The error says what is used up.
    pub(super) fn promise(
        &self,
        campaign: &Campaign,
        orchestrator: &str,
        each: &BTreeMap<Resource, u64>,
        count: u64,
    ) -> Result<Owners, Resource> {
        let mut owners = self.owners(Some(campaign), 0, orchestrator);
        // A resource that a job was promised once stays on the campaign's books, with a limit or without:
        // so what is promised and spent is known when a limit comes later.
        for resource in each.keys() {
            owners.own.entry(*resource).or_default().limit = self.launch_limit(campaign, *resource);
        }
        owners.reserve(each, count)?;
        Ok(owners)
    }

    /// The budgets of a campaign under the limits that its plan has now: what is promised and spent
    /// stays, also where there is no limit any more.
    pub(super) fn relimited(&self, campaign: &Campaign) -> Budgets {
        let asked = &campaign.plan.budgets;
        let mut budgets = campaign.budgets.clone();
        for resource in asked.keys() {
            budgets.entry(*resource).or_default();
        }
        for (resource, budget) in &mut budgets {
            let limit = self.launch_limit(campaign, *resource);
            let soft = asked.get(resource).map_or(0, |asked| asked.soft);
            let warned = budget.warned && (budget.limit, budget.soft) == (limit, soft);
            *budget = Budget { limit, soft, warned, ..*budget };
        }
        budgets
    }
}

fn left_of(budget: &Budget) -> u64 {
    if canary::active(Canary::BudgetRace) {
        return budget.limit.saturating_sub(budget.spent);
    }
    budget.left()
}

/// What an owner has used up: then it launches nothing any more, whatever a job is promised. A limit of
/// 0 is used up from the beginning.
fn overspent(budgets: &Budgets) -> Option<Resource> {
    let gone = |(resource, budget): &(&Resource, &Budget)| {
        Resource::METERED.contains(resource) && budget.spent >= budget.limit
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

impl Txn<'_> {
    /// Writes down budgets that have changed, and gives the warnings that are due by that.
    pub(super) fn keep_owners(&mut self, mut owners: Owners) {
        let due = owners.warnings();
        let Owners { campaign, command, orchestrator, own, asked, shared } = owners;
        self.warn_of_budgets(campaign.as_ref(), due);
        if let Some(id) = campaign
            && self.state.campaign(&id).is_some_and(|row| row.budgets != own)
        {
            self.edit_campaign(&id, |row| row.budgets = own);
        }
        if self.state.agent_command(command).is_some_and(|row| row.budgets != asked) {
            self.set_command_budgets(command, asked);
        }
        if self.state.orchestrator(&orchestrator).is_some_and(|row| row.budgets != shared) {
            self.edit_orchestrator(&orchestrator, |row| row.budgets = shared);
        }
    }

    /// Promises one job what it may use from the budgets of an orchestrator alone; gives what it is
    /// promised. The error says what is used up.
    pub(super) fn promise_alone(
        &mut self,
        name: &str,
        template: &JobTemplate,
        kind: JobKind,
    ) -> Result<BTreeMap<Resource, u64>, Resource> {
        let each = self.state.promise_of(name, template, kind);
        let mut owners = self.state.owners(None, 0, name);
        owners.reserve(&each, 1)?;
        self.keep_owners(owners);
        Ok(each)
    }

    /// Settles the live attempt, which is over, and promises the same for another one. The error says
    /// what is used up; nothing is changed then, and the job cannot be tried again.
    pub(super) fn pay_attempt(&mut self, task_id: &TaskId) -> Result<(), Resource> {
        let Some(task) = self.state.open_task(task_id) else { return Ok(()) };
        let attempt = task.attempt;
        let Some(job) = task.job.as_ref().filter(|_| task.execution.is_some()) else {
            return Ok(());
        };
        let job = job.clone();
        let metered = job.reserved.iter().filter(|(kind, _)| Resource::METERED.contains(kind));
        let metered: BTreeMap<Resource, u64> = metered.map(|(kind, each)| (*kind, *each)).collect();
        if !metered.is_empty() {
            let mut owners = self.state.owners_of(&job);
            for (resource, promised) in &metered {
                owners.settle(*resource, *promised, *promised);
            }
            owners.reserve(&metered, 1)?;
            self.keep_owners(owners);
        }
        self.edit_task(task_id, |task| {
            if let Some(job) = &mut task.job {
                job.paid = attempt;
            }
        });
        Ok(())
    }

    /// Replaces promises by what was used. A job that was under way and says nothing used what it was
    /// promised; one that waited used nothing more than its attempts before, which are settled.
    pub(super) fn settle(
        &mut self,
        job: &Job,
        status: TaskStatus,
        under_way: bool,
        reading: &JobReading,
    ) {
        let used = |resource: Resource, promised: u64| match resource {
            // However often it was tried, it is one.
            Resource::Simulations | Resource::Experiments if under_way || job.paid > 0 => promised,
            Resource::Tokens | Resource::Money | Resource::GpuMinutes if under_way => {
                let told = reading.usage.get(&resource).copied();
                told.filter(|_| status == TaskStatus::Completed).unwrap_or(promised)
            }
            _not_tried => 0,
        };
        let mut owners = self.state.owners_of(job);
        for (resource, promised) in &job.reserved {
            owners.settle(*resource, *promised, used(*resource, *promised));
        }
        // What was used without a promise counts, too.
        let unasked = reading.usage.iter().filter(|(kind, _)| !job.reserved.contains_key(kind));
        for (resource, amount) in unasked {
            owners.settle(*resource, 0, *amount);
        }
        self.keep_owners(owners);
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
