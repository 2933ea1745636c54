//! Iterations that clients ask for beside those of steps (contract 3.5, 3.6), and why they may wait.

use super::apply::Txn;
use super::campaigns::{no_campaign, wrong_state};
use super::orchestrators::check_name;
use super::{ACTIONS_MAX, Outcome, Rejection, Reply, State};
use crate::model::{
    CANDIDATES_MAX, Campaign, CampaignId, CampaignStatus, Epoch, IterationOverride, JobKind,
};

/// Iterations asked for in one request.
const REQUESTED_MAX: u32 = 100;

impl State {
    /// How many candidates an iteration of a campaign would have that is to have `wanted`: its budgets may
    /// hold fewer.
    #[must_use]
    pub fn candidates_of(&self, campaign: &Campaign, wanted: u32) -> u32 {
        let (left, _) = self.jobs_left(campaign, JobKind::Simulation);
        u32::try_from(left).unwrap_or(u32::MAX).min(wanted)
    }

    /// Why an iteration of so many candidates is too large for the orchestrator of a campaign, whatever
    /// else is under way.
    pub(super) fn is_too_large(&self, campaign: &Campaign, candidates: u32) -> Option<String> {
        let row = self.orchestrator(&campaign.plan.orchestrator)?;
        let max = row.config.simulations_max;
        let text = "simulations that may be under way (max_simultaneous_simulations)";
        (candidates > max)
            .then(|| format!("{candidates} candidates are more than the {max} {text}"))
    }

    /// Why the iterations that were asked for of a campaign cannot begin although none is under way; none
    /// when they can, wait for what others do, or that is on record.
    #[must_use]
    pub fn why_waiting(&self, campaign: &Campaign) -> Option<String> {
        let row = self.orchestrator(&campaign.plan.orchestrator)?;
        let asked = campaign.status == CampaignStatus::Running
            && campaign.requested > 0
            && !campaign.iterating
            && !campaign.tripped;
        if !asked || !campaign.reason.is_empty() || !row.may_launch() {
            return None;
        }
        if let Some(resource) = self.used_up(campaign, JobKind::Simulation) {
            return Some(format!("the budget of {} is used up", resource.as_str()));
        }
        // There are none where what others give back may be enough.
        let candidates = self.candidates_of(campaign, campaign.requested_candidates());
        self.is_too_large(campaign, candidates)
    }
}

impl Txn<'_> {
    pub(super) fn request_iterations(
        &mut self,
        campaign_id: &CampaignId,
        count: u32,
        start: bool,
        with: Option<Box<IterationOverride>>,
    ) -> Reply {
        let campaign = self.state.campaign(campaign_id).ok_or_else(|| no_campaign(campaign_id))?;
        if count == 0 || count > REQUESTED_MAX {
            let text = format!("num_iterations must be 1 to {REQUESTED_MAX}");
            return Err(Rejection::InvalidCampaign(text));
        }
        let begins = start && campaign.status == CampaignStatus::Created;
        if campaign.status != CampaignStatus::Running && !begins {
            return Err(wrong_state(campaign.status, "be advanced"));
        }
        if campaign.tripped {
            let text = "Campaign was stopped by its kill switch".to_owned();
            return Err(Rejection::CampaignState(text));
        }
        let planned = campaign.iterations.saturating_add(campaign.requested);
        let left = campaign.plan.stop.max_iterations.saturating_sub(planned);
        let queued = count.min(left);
        if queued == 0 {
            let text = "Campaign has no iterations left".to_owned();
            return Err(Rejection::CampaignState(text));
        }
        if let Some(with) = &with {
            check_override(with)?;
        }
        let wanted = with.as_ref().map_or_else(
            || campaign.requested_candidates(),
            |with| with.candidates.unwrap_or(campaign.plan.candidates),
        );
        let candidates = self.state.candidates_of(campaign, wanted);
        if let Some(text) = self.state.is_too_large(campaign, candidates) {
            return Err(Rejection::InvalidCampaign(text));
        }
        if begins {
            self.check_is_stepped(campaign_id)?;
            self.set_campaign_status(campaign_id, CampaignStatus::Running, "");
        }
        self.edit_campaign(campaign_id, |campaign| {
            campaign.requested += queued;
            campaign.requested_with = with.or_else(|| campaign.requested_with.take());
            campaign.reason.clear();
        });
        self.log_line(campaign_id, "requested", format!("{queued} iterations"));
        self.tell_campaign(campaign_id);
        Ok(Outcome::IterationsQueued { count: queued })
    }

    /// Puts on record, once, why iterations that were asked for do not begin.
    pub(super) fn note_waiting(&mut self, epoch: Epoch, campaigns: &[CampaignId]) -> Reply {
        self.check_epoch(epoch)?;
        if campaigns.len() > ACTIONS_MAX {
            let (len, max) = (campaigns.len() as u64, ACTIONS_MAX as u64);
            return Err(Rejection::BatchSize { len, max });
        }
        let (mut accepted, mut stale) = (0, 0);
        for campaign_id in campaigns {
            let campaign = self.state.campaign(campaign_id);
            let Some(why) = campaign.and_then(|row| self.state.why_waiting(row)) else {
                stale += 1;
                continue;
            };
            self.log_line(campaign_id, "waiting", why.clone());
            self.edit_campaign(campaign_id, |campaign| campaign.reason = why);
            self.tell_campaign(campaign_id);
            accepted += 1;
        }
        Ok(Outcome::Judged { accepted, stale })
    }
}

fn check_override(with: &IterationOverride) -> Result<(), Rejection> {
    if with.candidates.is_some_and(|count| count == 0 || count > CANDIDATES_MAX) {
        let text = format!("candidates_per_iteration must be 1 to {CANDIDATES_MAX}");
        return Err(Rejection::InvalidCampaign(text));
    }
    if with.config.len() > super::OVERRIDE_MAX {
        let text = format!("override_config holds at most {} bytes", super::OVERRIDE_MAX);
        return Err(Rejection::InvalidCampaign(text));
    }
    with.strategy.as_ref().map_or(Ok(()), |word| check_name("generation_strategy", word))
}
