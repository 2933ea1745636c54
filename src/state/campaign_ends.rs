//! Campaigns that have ended are kept for a while, and then forgotten or taken out by a client. Their rows
//! may be many: one command takes out a bounded number, the campaign's own row last.

use super::apply::Txn;
use super::campaigns::no_campaign;
use super::{Outcome, Rejection, Reply, State};
use crate::model::{CampaignId, Epoch};

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

    /// How many campaigns are to be forgotten: more have ended than are kept.
    #[must_use]
    pub fn campaigns_to_forget(&self) -> usize {
        let kept = usize::try_from(self.policy().ended_campaigns_max).unwrap_or(usize::MAX);
        self.ended_campaigns.len().saturating_sub(kept)
    }

    fn next_to_forget(&self) -> Option<CampaignId> {
        let oldest = self.ended_campaigns.first().filter(|_| self.campaigns_to_forget() > 0);
        oldest.map(|(_, campaign_id)| campaign_id.clone())
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

    /// Forgets the campaigns that ended first, as far as one command goes; says how many rows went.
    pub(super) fn forget_campaigns(&mut self, epoch: Epoch) -> Reply {
        self.check_epoch(epoch)?;
        let mut room = REMOVED_MAX;
        while room > 0
            && let Some(campaign_id) = self.state.next_to_forget()
        {
            room -= self.remove_rows(&campaign_id, room);
        }
        let accepted = u32::try_from(REMOVED_MAX - room).expect("it is bounded");
        Ok(Outcome::Judged { accepted, stale: 0 })
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
    use crate::model::{CampaignPlan, RequestId};
    use crate::state::{
        CampaignCommand, CampaignMove, Command, Envelope, LogEntry, StepDuty, encode_entry,
        invariants,
    };

    const EPOCH: Epoch = Epoch { term: 1, member: 1 };

    struct Log {
        state: State,
        index: u64,
        requests: u128,
    }

    impl Log {
        /// Of a state that holds so many campaigns, and so many that have ended.
        fn bounded(max: u64, kept: u64) -> Self {
            let mut log = Self { state: State::default(), index: 0, requests: 0 };
            let value = format!(r#"{{"max_campaigns":{max},"max_retained_campaigns":{kept}}}"#);
            let path = "campaigns".to_owned();
            let bounds = Command::PatchConfig { path, value, expected_revision: None };
            for reply in log.apply(vec![Command::OpenEpoch(EPOCH), bounds]) {
                reply.unwrap();
            }
            log
        }

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

        fn create(&mut self, count: usize) -> Vec<CampaignId> {
            let created = self.apply(vec![create(); count]).into_iter();
            let ids = created.map(|reply| match reply {
                Ok(Outcome::CampaignCreated { campaign_id }) => campaign_id,
                other => panic!("{other:?}"),
            });
            ids.collect()
        }

        fn end(&mut self, ids: &[CampaignId]) {
            let end = |campaign_id: &CampaignId| {
                let (campaign_id, how) = (campaign_id.clone(), CampaignMove::Cancel);
                Command::Campaign(CampaignCommand::MoveCampaign { campaign_id, how })
            };
            for reply in self.apply(ids.iter().map(end).collect()) {
                reply.unwrap();
            }
        }

        /// As the leader does; gives how many rows went.
        fn forget(&mut self) -> u32 {
            let duty = Command::Step { epoch: EPOCH, duty: StepDuty::ForgetCampaigns };
            match self.apply(vec![duty]).remove(0) {
                Ok(Outcome::Judged { accepted, stale: 0 }) => accepted,
                other => panic!("{other:?}"),
            }
        }

        fn known(&self, campaign_id: &CampaignId) -> bool {
            self.state.campaign(campaign_id).is_some()
        }
    }

    fn create() -> Command {
        Command::Campaign(CampaignCommand::CreateCampaign(Box::new(CampaignPlan::plain(1, 9))))
    }

    #[test]
    fn campaigns_that_ended_first_are_forgotten_first() {
        let mut log = Log::bounded(100, 2);
        let ids = log.create(6);
        // The first one runs on; it is no matter how long ago it began.
        for place in [3, 1, 5, 2] {
            log.end(&ids[place..=place]);
        }
        assert_eq!(log.state.campaigns_to_forget(), 2);
        assert!(log.forget() > 2, "their lines went as well");
        let known: Vec<bool> = ids.iter().map(|id| log.known(id)).collect();
        assert_eq!(known, [true, false, true, false, true, true]);
        assert_eq!(log.state.campaign_lines(&ids[3]).count(), 0);
        assert_eq!(log.forget(), 0, "no more have ended than are kept");
        invariants::check(&log.state);
    }

    /// A creation forgot a thousand rows and no more, and nothing else did: it fell behind.
    #[test]
    fn forgetting_catches_up_in_bounded_commands() {
        let mut log = Log::bounded(10_000, 10);
        let ids = log.create(1500);
        log.end(&ids);
        let mut rounds = Vec::new();
        while log.state.campaigns_to_forget() > 0 {
            rounds.push(log.forget());
        }
        let most = u32::try_from(REMOVED_MAX).unwrap();
        assert!(rounds.len() > 3 && rounds.iter().all(|rows| (1..=most).contains(rows)));
        assert_eq!(log.state.campaigns_len(), 10);
        invariants::check(&log.state);
    }

    #[test]
    fn a_creation_that_is_refused_forgets_nothing() {
        let mut log = Log::bounded(3, 0);
        let ids = log.create(3);
        log.end(&ids[..2]);
        let refused = log.apply(vec![create()]).remove(0);
        assert_eq!(refused, Err(Rejection::too_many("campaigns", 3)));
        assert!(ids.iter().all(|id| log.known(id) && log.state.campaign_lines(id).count() > 0));
        while log.forget() > 0 {}
        log.create(2);
        assert_eq!(log.state.campaigns_len(), 3);
    }
}
