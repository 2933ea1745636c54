//! Campaigns: made, moved and ended (contract 3.2, 3.5, 3.6).

use super::apply::Txn;
use super::campaign_command::{CampaignMove, CampaignPatch};
use super::launches::{candidate_experiment, candidate_job, parse_candidate};
use super::nodes::ExecutionEnd;
use super::orchestrators::{check_name, check_promised, derive_uuid, unknown};
use super::{CONTEXT_MAX, CampaignFact, Outcome, Rejection, Reply, State};
use crate::model::{
    CANDIDATES_MAX, Campaign, CampaignId, CampaignLine, CampaignPlan, CampaignStatus,
    CandidateState, ITERATIONS_MAX, Iteration, TaskStatus, TimeMs,
};

/// Lines of one campaign's log; the oldest are forgotten first.
pub const CAMPAIGN_LINES_MAX: u64 = 200;
/// The longest name of a campaign, in bytes: 200 characters of any script (contract 3.5).
const CAMPAIGN_NAME_MAX: usize = 800;

impl State {
    /// One campaign.
    #[must_use]
    pub fn campaign(&self, campaign_id: &CampaignId) -> Option<&Campaign> {
        self.campaigns.get(campaign_id)
    }

    /// All campaigns, by id, after the given one.
    pub fn campaigns_after(
        &self,
        after: Option<&CampaignId>,
    ) -> impl DoubleEndedIterator<Item = &Campaign> {
        self.campaigns.after(after.cloned()).map(|(_, campaign)| campaign)
    }

    /// How many campaigns there are.
    #[must_use]
    pub fn campaigns_len(&self) -> usize {
        self.campaigns.len()
    }

    /// Campaigns that run, the one that has waited longest for an iteration first.
    pub fn running_campaigns(&self) -> impl DoubleEndedIterator<Item = &Campaign> {
        self.running_campaign_ids().filter_map(|campaign_id| self.campaign(campaign_id))
    }

    /// Their ids.
    pub fn running_campaign_ids(&self) -> impl DoubleEndedIterator<Item = &CampaignId> {
        self.running.iter().map(|(_, campaign_id)| campaign_id)
    }

    /// How many campaigns run.
    #[must_use]
    pub fn running_campaigns_len(&self) -> usize {
        self.running.len()
    }

    /// Campaigns for which clients asked for iterations, and that have none under way.
    pub fn requesting_campaigns(&self) -> impl Iterator<Item = &Campaign> {
        self.requesting.iter().filter_map(|campaign_id| self.campaign(campaign_id))
    }

    /// One iteration.
    #[must_use]
    pub fn iteration(&self, campaign_id: &CampaignId, index: u32) -> Option<&Iteration> {
        self.iterations.get(&(campaign_id.clone(), index))
    }

    /// The iterations of a campaign, in order.
    pub fn iterations(
        &self,
        campaign_id: &CampaignId,
    ) -> impl DoubleEndedIterator<Item = &Iteration> {
        let (first, last) = ((campaign_id.clone(), 0), (campaign_id.clone(), u32::MAX));
        self.iterations.range(first, last).map(|(_, iteration)| iteration)
    }

    /// What a candidate tried, as JSON text.
    #[must_use]
    pub fn candidate_note(
        &self,
        campaign_id: &CampaignId,
        index: u32,
        candidate: u32,
    ) -> Option<&str> {
        let note = self.candidate_notes.get(&(campaign_id.clone(), index, candidate))?;
        Some(&note.parameters)
    }

    /// The log of a campaign, in order.
    pub fn campaign_lines(
        &self,
        campaign_id: &CampaignId,
    ) -> impl DoubleEndedIterator<Item = &CampaignLine> {
        let (first, last) = ((campaign_id.clone(), 0), (campaign_id.clone(), u64::MAX));
        self.campaign_lines.range(first, last).map(|(_, line)| line)
    }

    /// Whether there is such a structure, registered or derived.
    #[must_use]
    pub fn has_structure(&self, structure_id: &str) -> bool {
        if self.structure(structure_id).is_some() {
            return true;
        }
        let place = parse_candidate(structure_id);
        place.is_some_and(|(campaign_id, index, candidate)| {
            let row = self.iteration(&campaign_id, index);
            row.is_some_and(|row| (candidate as usize) < row.candidates.len())
        })
    }

    /// Puts a campaign among those that run or ask, or takes it out. Derived from its row.
    pub(super) fn note_campaign(&mut self, campaign_id: &CampaignId, before: Option<TimeMs>) {
        if let Some(advanced_at_ms) = before {
            self.running.remove(&(advanced_at_ms, campaign_id.clone()));
        }
        self.requesting.remove(campaign_id);
        self.note_ended_campaign(campaign_id);
        let Some(campaign) = self.campaigns.get(campaign_id) else { return };
        if campaign.status != CampaignStatus::Running {
            return;
        }
        self.running.insert((campaign.advanced_at_ms, campaign_id.clone()));
        if campaign.requested > 0 && !campaign.iterating && !campaign.tripped {
            self.requesting.insert(campaign_id.clone());
        }
    }
}

impl Txn<'_> {
    /// Each job must be promised something of what its campaign limits: where it does not say how much, as
    /// much as its orchestrator says by now, and so it stays.
    fn promised(&self, mut plan: CampaignPlan) -> Result<CampaignPlan, Rejection> {
        let usual = self.state.orchestrator(&plan.orchestrator).map(|row| &row.per_job);
        for (resource, each) in usual.into_iter().flatten() {
            let own = plan.job.per_job.get(resource).copied().unwrap_or_default();
            if own == 0 && plan.budgets.contains_key(resource) {
                plan.job.per_job.insert(*resource, *each);
            }
        }
        check_promised(&plan.budgets, ("config.per_job", &plan.job.per_job))?;
        Ok(plan)
    }

    pub(super) fn create_campaign(&mut self, mut plan: CampaignPlan) -> Reply {
        if plan.orchestrator.is_empty() {
            plan.orchestrator.clone_from(&self.state.policy().default_orchestrator);
        }
        check_plan(&plan)?;
        let plan = self.promised(plan)?;
        let orchestrator = self.state.orchestrator(&plan.orchestrator);
        if orchestrator.ok_or_else(|| unknown(&plan.orchestrator))?.task.is_some() {
            let text = format!("Orchestrator '{}' does a task of its own", plan.orchestrator);
            return Err(Rejection::InvalidCampaign(text));
        }
        // Those that have ended count until the leader has them forgotten.
        let max = usize::try_from(self.state.policy().campaigns_max).unwrap_or(usize::MAX);
        if self.state.campaigns_len() >= max {
            return Err(Rejection::too_many("campaigns", max));
        }
        let seed = [b"campaign".as_slice(), &self.request_id.0.to_be_bytes()];
        let campaign_id = CampaignId::trusted(&derive_uuid(&seed));
        if self.state.campaign(&campaign_id).is_some() {
            return Ok(Outcome::CampaignCreated { campaign_id });
        }
        let budgets = plan.budgets.iter().map(|(resource, budget)| (*resource, budget.fresh()));
        let campaign = Campaign {
            campaign_id: campaign_id.clone(),
            budgets: budgets.collect(),
            plan,
            status: CampaignStatus::Created,
            iterations: 0,
            iterating: false,
            requested: 0,
            requested_with: None,
            best_score: None,
            best_structure: None,
            best_iteration: 0,
            structures: 0,
            evaluated: 0,
            tripped: false,
            reason: String::new(),
            advanced_at_ms: 0,
            created_at_ms: self.now,
            updated_at_ms: self.now,
            started_at_ms: 0,
            completed_at_ms: 0,
            revision: self.index,
            plan_index: self.index,
        };
        self.state.campaigns.put(&mut self.state.rows, campaign_id.clone(), campaign);
        self.log_line(&campaign_id, "created", String::new());
        self.tell_campaign(&campaign_id);
        Ok(Outcome::CampaignCreated { campaign_id })
    }

    pub(super) fn patch_campaign(
        &mut self,
        campaign_id: &CampaignId,
        patch: CampaignPatch,
    ) -> Reply {
        let campaign = self.state.campaign(campaign_id).ok_or_else(|| no_campaign(campaign_id))?;
        if !matches!(campaign.status, CampaignStatus::Created | CampaignStatus::Paused) {
            return Err(wrong_state(campaign.status, "be changed"));
        }
        if patch.plan.is_some() && patch.seen_plan != campaign.plan_index {
            return Err(Rejection::CampaignChanged);
        }
        let old = &campaign.plan;
        let mut plan = patch.plan.unwrap_or_else(|| old.clone());
        plan.orchestrator.clone_from(&old.orchestrator);
        plan.owner.clone_from(&old.owner);
        plan.name = patch.name.unwrap_or_else(|| old.name.clone());
        plan.description = patch.description.unwrap_or_else(|| old.description.clone());
        plan.metadata = patch.metadata.unwrap_or_else(|| old.metadata.clone());
        plan.stop = patch.stop.unwrap_or(plan.stop);
        check_plan(&plan)?;
        let plan = self.promised(plan)?;
        if plan.stop.max_iterations < campaign.iterations {
            let text = format!("{} iterations were begun already", campaign.iterations);
            return Err(Rejection::InvalidCampaign(format!("max_iterations is too low: {text}")));
        }
        // Scores that were read from another field do not compare with those to come.
        if plan.score_field != old.score_field && campaign.evaluated > 0 {
            let text = format!("score_field: {} scores were read already", campaign.evaluated);
            return Err(Rejection::InvalidCampaign(text));
        }
        let (index, turned) = (self.index, plan.minimize != old.minimize);
        self.edit_campaign(campaign_id, |campaign| {
            campaign.plan = plan;
            campaign.plan_index = index;
        });
        if turned {
            self.turn_campaign(campaign_id);
        }
        if let Some(budgets) = self.state.campaign(campaign_id).map(|row| self.state.relimited(row))
        {
            self.edit_campaign(campaign_id, |campaign| campaign.budgets = budgets);
        }
        self.log_line(campaign_id, "changed", String::new());
        self.tell_campaign(campaign_id);
        Ok(Outcome::Done)
    }

    pub(super) fn move_campaign(&mut self, campaign_id: &CampaignId, how: CampaignMove) -> Reply {
        let campaign = self.state.campaign(campaign_id).ok_or_else(|| no_campaign(campaign_id))?;
        let (status, tripped) = (campaign.status, campaign.tripped);
        let (from, to, words) = match how {
            CampaignMove::Start => (CampaignStatus::Created, CampaignStatus::Running, "be started"),
            CampaignMove::Pause => (CampaignStatus::Running, CampaignStatus::Paused, "be paused"),
            CampaignMove::Resume => (CampaignStatus::Paused, CampaignStatus::Running, "be resumed"),
            CampaignMove::Cancel if status.is_terminal() => {
                return Err(wrong_state(status, "be cancelled"));
            }
            CampaignMove::Cancel => {
                self.end_campaign(campaign_id, CampaignStatus::Cancelled, "cancelled by a client");
                return Ok(Outcome::Done);
            }
            CampaignMove::Trip => {
                if !tripped {
                    self.trip_campaign(campaign_id, status);
                }
                return Ok(Outcome::Done);
            }
        };
        if status != from {
            return Err(wrong_state(status, words));
        }
        if tripped && to == CampaignStatus::Running {
            let text = "Campaign was stopped by its kill switch".to_owned();
            return Err(Rejection::CampaignState(text));
        }
        if to == CampaignStatus::Running {
            self.check_is_stepped(campaign_id)?;
        }
        self.set_campaign_status(campaign_id, to, "");
        if how == CampaignMove::Resume {
            self.judge_at_rest(campaign_id);
        }
        Ok(Outcome::Done)
    }

    /// Refuses to let a campaign run whose orchestrator does a task instead: nothing would advance it.
    pub(super) fn check_is_stepped(&self, campaign_id: &CampaignId) -> Result<(), Rejection> {
        let name = self.state.campaign(campaign_id).map(|row| &row.plan.orchestrator);
        let row = name.and_then(|name| self.state.orchestrator(name));
        row.filter(|row| row.task.is_some()).map_or(Ok(()), |row| {
            let text = format!("Orchestrator '{}' does a task of its own", row.name);
            Err(Rejection::CampaignState(text))
        })
    }

    /// Pulls the kill switch: it stays pulled.
    fn trip_campaign(&mut self, campaign_id: &CampaignId, status: CampaignStatus) {
        self.edit_campaign(campaign_id, |campaign| {
            campaign.tripped = true;
            campaign.requested = 0;
        });
        self.log_line(campaign_id, "tripped", "the kill switch was pulled".to_owned());
        if status == CampaignStatus::Running {
            self.set_campaign_status(campaign_id, CampaignStatus::Paused, "stopped");
        } else {
            self.tell_campaign(campaign_id);
        }
        self.cancel_jobs(campaign_id);
    }

    /// Changes a row, its revision and its places in the indexes. The caller has found it before.
    pub(super) fn edit_campaign(
        &mut self,
        campaign_id: &CampaignId,
        edit: impl FnOnce(&mut Campaign),
    ) {
        let before = self.state.campaign(campaign_id).map(|campaign| campaign.advanced_at_ms);
        let (now, index) = (self.now, self.index);
        self.state.campaigns.edit(&mut self.state.rows, campaign_id, |campaign| {
            let was = campaign.status;
            edit(campaign);
            let legal = was == campaign.status || was.may_become(campaign.status);
            assert!(legal, "campaign {campaign_id}: {was:?} became {:?}", campaign.status);
            campaign.updated_at_ms = now;
            campaign.revision = index;
        });
        self.state.note_campaign(campaign_id, before);
    }

    pub(super) fn set_campaign_status(
        &mut self,
        campaign_id: &CampaignId,
        to: CampaignStatus,
        why: &str,
    ) {
        let now = self.now;
        self.edit_campaign(campaign_id, |campaign| {
            campaign.status = to;
            why.clone_into(&mut campaign.reason);
            if to == CampaignStatus::Running && campaign.started_at_ms == 0 {
                campaign.started_at_ms = now;
                campaign.advanced_at_ms = now;
            }
            if to.is_terminal() {
                campaign.completed_at_ms = now;
                campaign.requested = 0;
                campaign.requested_with = None;
            }
        });
        if to.is_terminal() {
            self.state.note_iterations(campaign_id);
        }
        self.log_line(campaign_id, &to.as_str().to_lowercase(), why.to_owned());
        self.tell_campaign(campaign_id);
    }

    /// Ends a campaign; jobs that are under way end with it, unless it is complete.
    pub(super) fn end_campaign(
        &mut self,
        campaign_id: &CampaignId,
        status: CampaignStatus,
        why: &str,
    ) {
        self.set_campaign_status(campaign_id, status, why);
        if status != CampaignStatus::Completed {
            self.cancel_jobs(campaign_id);
        }
    }

    /// Cancels the jobs under way: those of the newest iteration, and experiments of any.
    fn cancel_jobs(&mut self, campaign_id: &CampaignId) {
        let mut jobs = Vec::new();
        for iteration in self.state.iterations(campaign_id) {
            for (place, candidate) in (0u32..).zip(&iteration.candidates) {
                if candidate.state == CandidateState::Open {
                    jobs.push(candidate_job(campaign_id, iteration.index, place));
                }
                if candidate.experiment {
                    jobs.push(candidate_experiment(campaign_id, iteration.index, place));
                }
            }
        }
        for task_id in jobs {
            if self.state.open_task(&task_id).is_some() {
                self.end_task(&task_id, TaskStatus::Cancelled, ExecutionEnd::Withdrawn, |task| {
                    task.error = Some("its campaign has ended".to_owned());
                });
            }
        }
    }

    pub(super) fn log_line(&mut self, campaign_id: &CampaignId, event: &str, text: String) {
        let newest = self.state.campaign_line_numbers(campaign_id).next_back();
        let oldest = self.state.campaign_line_numbers(campaign_id).next();
        let number = newest.map_or(1, |newest| newest + 1);
        if let Some(oldest) = oldest.filter(|oldest| number - oldest >= CAMPAIGN_LINES_MAX) {
            let key = (campaign_id.clone(), oldest);
            self.state.campaign_lines.remove(&mut self.state.rows, &key);
        }
        let line = CampaignLine { at_ms: self.now, event: event.to_owned(), text };
        self.state.campaign_lines.put(&mut self.state.rows, (campaign_id.clone(), number), line);
    }

    pub(super) fn tell_campaign(&mut self, campaign_id: &CampaignId) {
        let Some(campaign) = self.state.campaign(campaign_id) else { return };
        let (campaign_id, status) = (campaign_id.clone(), campaign.status.as_str());
        self.tell(CampaignFact::CampaignChanged { campaign_id, status });
    }
}

impl State {
    fn campaign_line_numbers(
        &self,
        campaign_id: &CampaignId,
    ) -> impl DoubleEndedIterator<Item = u64> {
        let (first, last) = ((campaign_id.clone(), 0), (campaign_id.clone(), u64::MAX));
        self.campaign_lines.range(first, last).map(|((_, number), _)| *number)
    }
}

pub(super) fn no_campaign(campaign_id: &CampaignId) -> Rejection {
    Rejection::CampaignNotFound { campaign_id: campaign_id.clone() }
}

pub(super) fn wrong_state(status: CampaignStatus, words: &str) -> Rejection {
    Rejection::CampaignState(format!("Campaign cannot {words} while it is {}", status.as_str()))
}

/// What apply relies on; ranges that only clients care for are checked at the door.
fn check_plan(plan: &CampaignPlan) -> Result<(), Rejection> {
    if plan.name.is_empty() || plan.name.len() > CAMPAIGN_NAME_MAX {
        let text = format!("name must hold 1 to {CAMPAIGN_NAME_MAX} bytes");
        return Err(Rejection::InvalidCampaign(text));
    }
    check_name("task_type", &plan.job.task_type)?;
    check_name("score_field", &plan.score_field)?;
    let bounded = [&plan.description, &plan.config, &plan.metadata, &plan.job.input];
    if bounded.iter().any(|text| text.len() > CONTEXT_MAX) {
        let text = format!("no part of a campaign may be longer than {CONTEXT_MAX} bytes");
        return Err(Rejection::InvalidCampaign(text));
    }
    if plan.candidates == 0 || plan.candidates > CANDIDATES_MAX {
        let text = format!("candidates_per_iteration must be 1 to {CANDIDATES_MAX}");
        return Err(Rejection::InvalidCampaign(text));
    }
    if plan.stop.max_iterations == 0 || plan.stop.max_iterations > ITERATIONS_MAX {
        let text = format!("max_iterations must be 1 to {ITERATIONS_MAX}");
        return Err(Rejection::InvalidCampaign(text));
    }
    Ok(())
}
