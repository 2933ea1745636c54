//! Swarms and bots of none that were removed: what is counted of them is taken off at once, and their waves
//! go with their rows, in turns. All members clear away the same, so the order is told by rows alone.

use std::collections::{BTreeMap, BTreeSet};

use super::bot_index::{BotIndex, Figures, Holding, Tally};
use crate::model::BotPlace;

impl BotIndex {
    /// Whether the bots of a wave were removed.
    pub(super) fn is_going(&self, tally: &Tally) -> bool {
        !self.going.is_empty() && self.going.contains(&tally.owner())
    }

    /// A swarm goes. What is counted of it is taken off at once; its waves are cleared away in turns.
    pub(super) fn drop_swarm(&mut self, swarm: u32, tier: &str) {
        let figures = self.swarms.get(&swarm).copied().unwrap_or_default();
        self.shift(swarm, tier, &figures, &Figures::default());
        self.close_books(BotPlace { swarm, index: 0 });
        self.drop_owner(BotPlace { swarm, index: 0 });
        self.ended_runs.forget_swarm(swarm);
    }

    /// The same of a bot of none. What it has done is the caller's.
    pub(super) fn drop_bot(&mut self, bot: BotPlace, tier: &str) {
        let len = |sets: &BTreeMap<BotPlace, BTreeSet<u64>>| {
            sets.get(&bot).map_or(0, BTreeSet::len) as u64
        };
        let (all, open) = (len(&self.singles_of), len(&self.singles_open));
        self.close_books(bot);
        let waiting = self.single_ready.get(&bot).map_or(0, BTreeSet::len) as u64;
        let figures = Figures { waiting, leased: open - waiting, ..Figures::default() };
        self.shift(bot.swarm, tier, &figures, &Figures::default());
        let held = Holding { open_waves: open, standing: open, retained: all - open };
        self.shift_held(bot.swarm, held, Holding::default());
        if all > 0 {
            self.going.insert(bot);
        }
    }

    fn drop_owner(&mut self, owner: BotPlace) {
        let held = self.held_of.get(&owner.swarm).copied().unwrap_or_default();
        self.shift_held(owner.swarm, held, Holding::default());
        if self.wave_of(owner).is_some() {
            self.going.insert(owner);
        }
    }

    /// The wave of a removed owner that is cleared away first: those over all of a swarm in order, then
    /// those of one bot, bot by bot. All members clear away the same.
    fn wave_of(&self, owner: BotPlace) -> Option<u64> {
        if owner.swarm == 0 {
            return self.singles_of.get(&owner)?.first().copied();
        }
        let place = |index| BotPlace { swarm: owner.swarm, index };
        let whole = self.whole_of.get(&owner.swarm).and_then(BTreeSet::first);
        let singles = || self.singles_of.range(place(0)..=place(u32::MAX)).next()?.1.first();
        whole.or_else(singles).copied()
    }

    /// The wave of a removed owner that is cleared away next.
    pub(super) fn next_going(&mut self) -> Option<u64> {
        while let Some(owner) = self.going.first().copied() {
            if let Some(wave) = self.wave_of(owner) {
                return Some(wave);
            }
            self.going.remove(&owner);
        }
        None
    }

    /// The retained wave that ended first.
    pub(super) fn oldest_ended(&mut self) -> Option<u64> {
        while let Some((at, wave)) = self.ended.first().copied() {
            if self.tallies.get(&wave).is_some_and(|tally| !self.is_going(tally)) {
                return Some(wave);
            }
            self.ended.remove(&(at, wave));
        }
        None
    }
}
