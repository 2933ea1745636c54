//! Whose an assignment is that waits, when bots of its swarm came or went since it was made
//! (docs/decisions/0009-swarms-are-derived.md). Nothing of it is stored: it follows from the members of
//! wave and swarm, and so it is right after every change without a write.

use super::State;
use super::bot_index::Due;
use super::bot_reads::LOOKS_MAX;
use crate::model::{AssignmentPlace, AssignmentState, BotPlace, Wave};

impl State {
    /// Who has an assignment that waits: the bot it was made for, one that came later and has it as its
    /// share, or the heir of one that is gone.
    pub(super) fn assignee(&self, place: AssignmentPlace) -> Option<BotPlace> {
        let wave = self.waves.get(&place.wave)?;
        let swarm = wave.swarm;
        let index = match self.swarms.get(&swarm) {
            Some(row) if !row.has(place.index) => row.heir(wave, place.index)?,
            Some(_) => self.taker_of(place).unwrap_or(place.index),
            None => place.index,
        };
        Some(BotPlace { swarm, index })
    }

    /// The bot that an assignment was made for, while it is there.
    pub(super) fn made_for(&self, place: AssignmentPlace) -> Option<BotPlace> {
        let swarm = self.waves.get(&place.wave)?.swarm;
        let bot = BotPlace { swarm, index: place.index };
        self.has_bot(bot).then_some(bot)
    }

    /// As whom assignments are leased, each at its place: `None` for the bot it was made for. It stays
    /// so until the lease ends, whoever comes and goes meanwhile.
    pub(super) fn heirs_of(&self, places: &[AssignmentPlace]) -> Vec<Option<u32>> {
        let heir = |place: &AssignmentPlace| {
            let bot = self.assignee(*place)?;
            (bot.index != place.index).then_some(bot.index)
        };
        places.iter().map(heir).collect()
    }

    fn is_waiting(&self, place: AssignmentPlace) -> bool {
        self.progress(place).is_none_or(|row| row.state == AssignmentState::Waiting)
    }

    /// Who came later and has what was made for a member, if it waits.
    pub(super) fn taker_of(&self, place: AssignmentPlace) -> Option<u32> {
        let wave = self.waves.get(&place.wave).filter(|wave| wave.whole)?;
        self.swarms.get(&wave.swarm)?.taker(wave, place.index)
    }

    /// Whether bots have come since a wave over their whole swarm. If so, they have of those before it, too.
    fn is_shared(&self, number: u64) -> bool {
        let wave = self.waves.get(&number).filter(|wave| wave.whole);
        let swarm = wave.and_then(|wave| self.swarms.get(&wave.swarm));
        wave.zip(swarm).is_some_and(|(wave, swarm)| swarm.has_newer_than(&wave.members))
    }

    /// The assignments of a wave that wait and that members have which came later, one each at most.
    pub(super) fn taken_of(&self, number: u64, bots: &[u32]) -> Vec<u32> {
        let wave = self.waves.get(&number).filter(|wave| wave.whole);
        let Some(wave) = wave else { return Vec::new() };
        let Some(swarm) = self.swarms.get(&wave.swarm) else { return Vec::new() };
        let mut taken = swarm.taken(wave, bots);
        taken.retain(|index| self.is_waiting(AssignmentPlace { wave: number, index: *index }));
        taken
    }

    /// The same, which costs a look, and one for each that has something.
    pub(super) fn taken_of_all(&self, number: u64, bots: &[u32], looks: &mut usize) -> Vec<u32> {
        let found = self.taken_of(number, bots);
        *looks = looks.saturating_sub(1 + bots.len() / 16 + found.len());
        found
    }

    /// Assignments that wait and that the members of these ranks have from bots that are gone; looks at
    /// `looks` of their shares at most, and takes them off. An empty share costs next to nothing.
    pub(super) fn inherited_of(&self, number: u64, ranks: &[u32], looks: &mut usize) -> Vec<u32> {
        let Some(wave) = self.waves.get(&number) else { return Vec::new() };
        let Some(swarm) = self.swarms.get(&wave.swarm) else { return Vec::new() };
        // Finding out who is gone takes a walk over the pieces of both.
        let pieces = if wave.whole { wave.members.len() + swarm.members.len() } else { 0 };
        *looks = looks.saturating_sub(1 + (pieces + ranks.len()) / 16);
        let gone = if wave.whole { swarm.gone_of(&wave.members) } else { wave.members.clone() };
        let mut found = Vec::new();
        for rank in ranks {
            for index in swarm.inheritance(wave, &gone, *rank).take(*looks) {
                *looks -= 1;
                // What somebody holds is of the bot that it is leased as.
                if self.is_waiting(AssignmentPlace { wave: number, index }) {
                    found.push(index);
                }
            }
        }
        found
    }

    /// Waves over its whole swarm that a member has not ended; of those that others have, the first of each
    /// run of neighbouring turns at most. So a walk past what others do not do is as short as one past
    /// what the member has done.
    pub(super) fn own_waves_of(&self, bot: BotPlace) -> impl Iterator<Item = u64> {
        let first = self.first_whole_of(bot).and_then(|first| self.next_unended(bot, first));
        std::iter::successors(first, move |wave| {
            let place = AssignmentPlace { wave: *wave, index: bot.index };
            let from = match self.taker_of(place) {
                Some(_) => self.wave_after_taken(bot, *wave)?,
                None => wave.checked_add(1)?,
            };
            self.next_unended(bot, from)
        })
    }

    /// The first wave after one that a member gives away which it may have itself.
    fn wave_after_taken(&self, bot: BotPlace, number: u64) -> Option<u64> {
        let (wave, swarm) = (self.waves.get(&number)?, self.swarms.get(&bot.swarm)?);
        let turn = wave.turn.checked_add(swarm.turns_until_kept(wave, bot.index)?)?;
        let whole = self.bot_index.whole_of.get(&bot.swarm)?;
        let (mut low, mut end) = (number.checked_add(1)?, whole.last()?.checked_add(1)?);
        let (mut found, mut step) = (None, 1);
        while low < end {
            // Mostly it is near: steps that double, and when they have come past it, halves.
            let middle = match found {
                None => low.saturating_add(step).min(end) - 1,
                Some(_) => low + (end - low) / 2,
            };
            step *= 2;
            match whole.range(middle..end).next() {
                Some(later) if self.is_later(*later, turn, wave) => {
                    found = Some(*later);
                    end = middle;
                }
                Some(later) => low = later + 1,
                None => end = middle,
            }
        }
        found
    }

    /// Whether a wave is of a turn or later, or bots were added between one and it: what was worked out of
    /// that one does not hold of it. Once it is so it is so of all later ones: bots that came and went in
    /// between do not make it as it was.
    fn is_later(&self, number: u64, turn: u64, than: &Wave) -> bool {
        let later = |wave: &Wave| wave.turn >= turn || wave.next_index != than.next_index;
        self.waves.get(&number).is_none_or(later)
    }

    /// Places of the waves over its swarm that wait and were made before a member came.
    pub(super) fn ready_before(&self, bot: BotPlace) -> impl Iterator<Item = Due> {
        let end = self.first_whole_of(bot).unwrap_or(u64::MAX);
        let ready = self.bot_index.whole_ready.get(&bot.swarm).into_iter().flatten();
        ready.copied().take_while(move |(_, wave)| *wave < end)
    }

    /// How many open assignments a member has in place of others: what is leased as its, and its share of
    /// what waits of those who are gone, and of what was made before it came; so much of that as so many
    /// looks find.
    pub(super) fn open_for_others(&self, bot: BotPlace, mut looks: usize) -> u64 {
        let leased = self.bot_index.leased_as.get(&bot).map_or(0, |places| places.len());
        let mut found = leased as u64;
        let rank = self.swarms.get(&bot.swarm).and_then(|swarm| swarm.rank_of(bot.index));
        let Some(rank) = rank else { return found };
        for (_, wave) in self.bot_index.orphaned.get(&bot.swarm).into_iter().flatten() {
            found += self.inherited_of(*wave, &[rank], &mut looks).len() as u64;
            if looks == 0 {
                break;
            }
        }
        for (_, wave) in self.ready_before(bot).take(LOOKS_MAX) {
            found += self.taken_of(wave, &[bot.index]).len() as u64;
        }
        found
    }

    /// How many open assignments that were made for a member others have: what is leased as theirs, and
    /// the share of those that came later; so much of that as so many looks find.
    pub(super) fn open_with_others(&self, bot: BotPlace, looks: usize) -> u64 {
        let lent = self.bot_index.lent.get(&bot).map_or(0, |places| places.len());
        let waves = self.unended_waves_of(bot, 0).take_while(|wave| self.is_shared(*wave));
        let places = waves.map(|wave| AssignmentPlace { wave, index: bot.index });
        let is_taken =
            |place: &AssignmentPlace| self.is_waiting(*place) && self.taker_of(*place).is_some();
        (lent + places.take(looks).filter(is_taken).count()) as u64
    }
}

#[cfg(test)]
mod tests;
