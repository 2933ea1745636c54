//! Campaigns that have ended are kept for a while, and then forgotten or taken out by a client. Their rows
//! may be many: one command takes out a bounded number, the campaign's own row last.

use super::apply::Txn;
use super::campaigns::no_campaign;
use super::{Outcome, Rejection, Reply, State};
use crate::model::{CampaignId, TimeMs};

/// Campaigns that have ended and are kept; the oldest are forgotten first, as others are created.
pub const CAMPAIGNS_KEPT: usize = 10_000;
/// Rows of campaigns that one command takes out.
const REMOVED_MAX: usize = 1000;

impl State {
    /// Puts a campaign among those that have ended. Derived from its row.
    pub(super) fn note_ended_campaign(&mut self, campaign_id: &CampaignId) {
        let ended = self.campaign(campaign_id).filter(|row| row.status.is_terminal());
        if let Some(at) = ended.map(|row| row.completed_at_ms) {
            self.ended_campaigns.insert((at, campaign_id.clone()));
        }
    }

    fn oldest_ended_campaign(&self, kept: usize) -> Option<(TimeMs, CampaignId)> {
        self.ended_campaigns.first().filter(|_| self.ended_campaigns.len() > kept).cloned()
    }
}

impl Txn<'_> {
    /// Takes out a campaign that has ended, at most [`REMOVED_MAX`] rows of it: `Judged` says that there
    /// are more, `Done` that it is gone.
    pub(super) fn remove_campaign(&mut self, campaign_id: &CampaignId) -> Reply {
        let campaign = self.state.campaign(campaign_id).ok_or_else(|| no_campaign(campaign_id))?;
        if !campaign.status.is_terminal() {
            let word = campaign.status.as_str();
            let text = format!("Campaign cannot be deleted while it is {word}");
            return Err(Rejection::CampaignState(text));
        }
        let removed = self.remove_rows(campaign_id, REMOVED_MAX);
        if self.state.campaign(campaign_id).is_none() {
            return Ok(Outcome::Done);
        }
        let accepted = u32::try_from(removed).expect("it is bounded");
        Ok(Outcome::Judged { accepted, stale: 0 })
    }

    /// Forgets the campaigns that ended first, as far as one command goes.
    pub(super) fn forget_ended_campaigns(&mut self) {
        let mut room = REMOVED_MAX;
        while room > 0
            && let Some((_, campaign_id)) = self.state.oldest_ended_campaign(CAMPAIGNS_KEPT)
        {
            room -= self.remove_rows(&campaign_id, room);
        }
    }

    /// Takes out at most `max` rows of a campaign; gives how many those were.
    fn remove_rows(&mut self, campaign_id: &CampaignId, max: usize) -> usize {
        let State { rows, candidate_notes, iterations, campaign_lines, .. } = &mut *self.state;
        let (first, last) =
            ((campaign_id.clone(), 0, 0), (campaign_id.clone(), u32::MAX, u32::MAX));
        let notes: Vec<_> =
            candidate_notes.range(first, last).map(|(key, _)| key.clone()).take(max).collect();
        for key in &notes {
            candidate_notes.remove(rows, key);
        }
        let mut removed = notes.len();
        let (first, last) = ((campaign_id.clone(), 0), (campaign_id.clone(), u64::MAX));
        let lines = campaign_lines.range(first, last).map(|(key, _)| key.clone());
        let lines: Vec<_> = lines.take(max - removed).collect();
        for key in &lines {
            campaign_lines.remove(rows, key);
        }
        removed += lines.len();
        // The newest iteration goes with the campaign, which says how many there are.
        let (first, last) = ((campaign_id.clone(), 0), (campaign_id.clone(), u32::MAX));
        let all = iterations.range(first, last).map(|(key, _)| key.clone());
        let all: Vec<_> = all.take(max - removed).collect();
        let whole = removed + all.len() < max;
        let old = if whole { all.len() } else { all.len().saturating_sub(1) };
        for key in &all[..old] {
            iterations.remove(rows, key);
        }
        removed += old;
        if whole {
            let ended = self.state.campaigns.remove(&mut self.state.rows, campaign_id);
            let key = ended.map(|row| (row.completed_at_ms, campaign_id.clone()));
            key.map(|key| self.state.ended_campaigns.remove(&key));
            removed += 1;
        }
        removed.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CampaignPlan, Epoch, JobTemplate, RequestId, StopRules};
    use crate::state::{
        CampaignCommand, CampaignMove, Command, Envelope, LogEntry, encode_entry, invariants,
    };

    struct Log {
        state: State,
        index: u64,
        requests: u128,
    }

    impl Log {
        fn apply(&mut self, commands: Vec<Command>) -> Vec<Reply> {
            let envelopes = commands.into_iter().map(|command| {
                self.requests += 1;
                Envelope { request_id: RequestId(self.requests), principal: String::new(), command }
            });
            let at_ms = 1000 + self.index;
            let entry = LogEntry { at_ms, envelopes: envelopes.collect() };
            self.index += 1;
            self.state.apply(self.index, &encode_entry(&entry)).unwrap().replies
        }
    }

    fn create() -> Command {
        let plan = CampaignPlan {
            name: "c".to_owned(),
            candidates: 1,
            score_field: "score".to_owned(),
            stop: StopRules { max_iterations: 9, ..StopRules::default() },
            job: JobTemplate { task_type: "t".to_owned(), ..JobTemplate::default() },
            ..CampaignPlan::default()
        };
        Command::Campaign(CampaignCommand::CreateCampaign(Box::new(plan)))
    }

    #[test]
    fn campaigns_that_ended_first_are_forgotten_first() {
        let mut log = Log { state: State::default(), index: 0, requests: 0 };
        log.apply(vec![Command::OpenEpoch(Epoch { term: 1, member: 1 })]);
        let mut ids = Vec::new();
        while ids.len() < CAMPAIGNS_KEPT + 2 {
            let many = 2000.min(CAMPAIGNS_KEPT + 2 - ids.len());
            for reply in log.apply(vec![create(); many]) {
                let Ok(Outcome::CampaignCreated { campaign_id }) = reply else {
                    panic!("{reply:?}")
                };
                ids.push(campaign_id);
            }
        }
        // The last one runs on; it is no matter how long ago it began.
        let end = |campaign_id: &CampaignId| {
            let (campaign_id, how) = (campaign_id.clone(), CampaignMove::Cancel);
            Command::Campaign(CampaignCommand::MoveCampaign { campaign_id, how })
        };
        for id in &ids[1..3] {
            log.apply(vec![end(id)]);
        }
        for some in ids[3..].chunks(2000) {
            log.apply(some.iter().map(end).collect());
        }
        let known = |log: &Log, n: usize| log.state.campaign(&ids[n]).is_some();
        log.apply(vec![create()]);
        assert_eq!(log.state.campaigns_len(), CAMPAIGNS_KEPT + 2, "one was forgotten, one made");
        assert!(known(&log, 0) && !known(&log, 1) && known(&log, 2));
        assert_eq!(log.state.campaign_lines(&ids[1]).count(), 0);
        log.apply(vec![create()]);
        assert!(known(&log, 2), "no more have ended than are kept");
        invariants::check(&log.state);
    }
}
