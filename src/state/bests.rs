//! The best of a campaign, found anew from its candidates: a patch may turn what is better (contract 3.6
//! `PATCH`). What follows from the best, the history and the stop rules, goes by the new direction then,
//! as if the campaign had had it from the beginning.

use super::State;
use super::apply::Txn;
use super::jobs::is_better;
use crate::model::{Campaign, CampaignId, CandidateState, Iteration, Score};

/// The best score of an iteration and which candidate has it; of equal ones the first.
pub(super) fn best_candidate(row: &Iteration, minimize: bool) -> Option<(Score, u32)> {
    let mut best = None;
    for (place, candidate) in (0u32..).zip(&row.candidates) {
        let CandidateState::Scored(score) = candidate.state else { continue };
        if is_better(score, best.map(|(best, _)| best), minimize) {
            best = Some((score, place));
        }
    }
    best
}

impl State {
    /// The best score of the iterations of a campaign that have ended, with iteration and candidate; of
    /// equal ones the first.
    pub(super) fn best_ended(&self, campaign: &Campaign) -> Option<(Score, u32, u32)> {
        let mut best: Option<(Score, u32, u32)> = None;
        let rows = self.iterations(&campaign.campaign_id).filter(|row| row.completed_at_ms > 0);
        for row in rows {
            let Some(score) = row.best_score else { continue };
            if is_better(score, best.map(|(best, ..)| best), campaign.plan.minimize) {
                best = Some((score, row.index, row.best_candidate));
            }
        }
        best
    }
}

impl Txn<'_> {
    /// A campaign has another direction: its bests are those of this one. It has at most
    /// [`crate::model::ITERATIONS_MAX`] iterations.
    pub(super) fn turn_campaign(&mut self, campaign_id: &CampaignId) {
        let Some(campaign) = self.state.campaign(campaign_id) else { return };
        let minimize = campaign.plan.minimize;
        let rows = self.state.iterations(campaign_id);
        let found: Vec<_> = rows.map(|row| (row.index, best_candidate(row, minimize))).collect();
        for (index, best) in found {
            let key = (campaign_id.clone(), index);
            self.state.iterations.edit(&mut self.state.rows, &key, |row| {
                row.best_score = best.map(|(score, _)| score);
                row.best_candidate = best.map_or(0, |(_, place)| place);
            });
        }
        self.state.note_iterations(campaign_id);
        self.forget_discoveries(campaign_id);
        let best = self.state.campaign(campaign_id).and_then(|row| self.state.best_ended(row));
        self.edit_campaign(campaign_id, |campaign| {
            campaign.best_score = best.map(|(score, ..)| score);
            campaign.best_structure = best.map(|(_, iteration, candidate)| {
                super::candidate_structure(campaign_id, iteration, candidate)
            });
            campaign.best_iteration = best.map_or(0, |(_, iteration, _)| iteration);
        });
    }

    /// What was better than all before it in the old direction is no discovery in the new one.
    fn forget_discoveries(&mut self, campaign_id: &CampaignId) {
        let its = |(number, row): (&u64, &crate::model::Discovery)| {
            (row.campaign_id == *campaign_id).then_some(*number)
        };
        let numbers: Vec<u64> = self.state.discoveries.iter().filter_map(its).collect();
        for number in numbers {
            self.state.discoveries.remove(&mut self.state.rows, &number);
        }
    }
}
