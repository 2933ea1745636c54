//! Candidates with a score that nobody measures: what the experiment trigger goes by (contract 3.4).
//!
//! An iteration stands in an index of its campaign by the best of its candidates without an experiment,
//! from the first score on until its campaign ends. So a step finds the best ones, however long ago they
//! were tried, without looking at those that are not good enough. Derived from rows.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::State;
use crate::model::{Campaign, CampaignId, CandidateState, Iteration, Score};

/// Whose, how good the best one is, less being better, and which iteration.
pub(super) type Unmeasured = BTreeSet<(CampaignId, Score, Reverse<u32>)>;

/// How good a candidate is, less being better, of which iteration, and its place.
type Found = (Score, Reverse<u32>, u32);

/// How good a score is, less being better.
fn rank(score: Score, minimize: bool) -> Score {
    if minimize { score } else { score.saturating_neg() }
}

/// Candidates with a score and without an experiment, with their ranks.
fn scored(row: &Iteration, minimize: bool) -> impl Iterator<Item = (Score, u32)> {
    (0u32..).zip(&row.candidates).filter_map(move |(place, candidate)| match candidate.state {
        CandidateState::Scored(score) if !candidate.experiment => {
            Some((rank(score, minimize), place))
        }
        _ => None,
    })
}

impl State {
    /// Candidates of a campaign that are better than `threshold` and have no experiment, as iteration and
    /// place: the best one first; of equal ones those of the newest iteration. What is not asked for costs
    /// nothing: an iteration is looked into when its best one is next.
    pub fn unmeasured(
        &self,
        campaign: &Campaign,
        threshold: Score,
    ) -> impl Iterator<Item = (u32, u32)> {
        let (id, minimize) = (&campaign.campaign_id, campaign.plan.minimize);
        let bound = rank(threshold, minimize);
        let first = (id.clone(), Score::MIN, Reverse(u32::MAX));
        let rest = self.unmeasured.range(first..);
        let good = rest.take_while(move |(its, best, _)| its == id && *best < bound);
        let (mut good, mut found) = (good.peekable(), BinaryHeap::new());
        std::iter::from_fn(move || {
            loop {
                let best = found.peek();
                let best = best.map(|Reverse((best, index, _)): &Reverse<Found>| (*best, *index));
                let is_next = |(_, its, index): &&(CampaignId, Score, Reverse<u32>)| {
                    best.is_none_or(|best| (*its, *index) <= best)
                };
                let Some((_, _, index)) = good.next_if(is_next) else { break };
                let better = self.iteration(id, index.0).into_iter();
                let better = better.flat_map(|row| scored(row, minimize));
                let better = better.filter(|(rank, _)| *rank < bound);
                found.extend(better.map(|(rank, place)| Reverse((rank, *index, place))));
            }
            found.pop().map(|Reverse((_, index, place))| (index.0, place))
        })
    }

    /// Changes an iteration's row and its place in the index.
    pub(super) fn edit_iteration<T>(
        &mut self,
        key: &(CampaignId, u32),
        edit: impl FnOnce(&mut Iteration) -> T,
    ) -> Option<T> {
        if let Some(place) = self.place_of(key) {
            self.unmeasured.remove(&place);
        }
        let given = self.iterations.edit(&mut self.rows, key, edit);
        self.note_iteration(key);
        given
    }

    /// Puts an iteration into the index.
    pub(super) fn note_iteration(&mut self, key: &(CampaignId, u32)) {
        self.unmeasured.extend(self.place_of(key));
    }

    fn place_of(
        &self,
        (id, index): &(CampaignId, u32),
    ) -> Option<(CampaignId, Score, Reverse<u32>)> {
        let campaign = self.campaign(id).filter(|row| !row.status.is_terminal())?;
        let row = self.iteration(id, *index)?;
        let best = scored(row, campaign.plan.minimize).map(|(rank, _)| rank).min()?;
        Some((id.clone(), best, Reverse(*index)))
    }

    /// Puts all iterations of a campaign into the index anew: it has another direction, or
    /// has ended.
    pub(super) fn note_iterations(&mut self, id: &CampaignId) {
        let first = (id.clone(), Score::MIN, Reverse(u32::MAX));
        let known = self.unmeasured.range(first..).take_while(|(its, _, _)| its == id);
        let known: Vec<_> = known.cloned().collect();
        for place in &known {
            self.unmeasured.remove(place);
        }
        self.unmeasured.extend(self.places_of(id));
    }

    /// Where the iterations of a campaign must stand in the index.
    pub(super) fn places_of(&self, id: &CampaignId) -> Unmeasured {
        let goes_on = self.campaign(id).is_some_and(|row| !row.status.is_terminal());
        let rows = self.iterations(id).filter(|_| goes_on);
        rows.filter_map(|row| self.place_of(&(id.clone(), row.index))).collect()
    }
}
