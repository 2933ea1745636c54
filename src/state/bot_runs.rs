//! Which assignments of waves over its whole swarm a member has ended, kept as runs of neighbouring
//! waves: what it has still to do is found without a look at what it has done, however many waves
//! others are behind with. Derived from rows, exact, and never stored.

use std::collections::{BTreeMap, BTreeSet};

use super::State;
use crate::model::{BotPlace, Span};

/// By swarm, and there by bot and the first wave of a run, its last one. What is between two waves of a
/// run is ended, or forgotten because all of it is.
#[derive(Debug, Default)]
pub(super) struct EndedRuns(BTreeMap<u32, Runs>);

type Runs = BTreeMap<(u32, u64), u64>;

impl EndedRuns {
    /// Notes an end; `whole` are the retained waves over the bot's swarm.
    pub(super) fn add(&mut self, bot: BotPlace, wave: u64, whole: &BTreeSet<u64>) {
        if self.covering(bot, wave).is_some() {
            return;
        }
        let are_neighbours =
            |one: u64, other: u64| one + 1 >= other || whole.range(one + 1..other).next().is_none();
        let runs = self.0.entry(bot.swarm).or_default();
        let bot = bot.index;
        let (mut first, mut last) = (wave, wave);
        let before = runs.range((bot, 0)..(bot, wave)).next_back();
        if let Some(((_, from), to)) = before
            && are_neighbours(*to, wave)
        {
            first = *from;
        }
        let after = runs.range((bot, wave)..=(bot, u64::MAX)).next();
        if let Some((from, to)) = after.map(|((_, from), to)| (*from, *to))
            && are_neighbours(wave, from)
        {
            runs.remove(&(bot, from));
            last = to;
        }
        runs.insert((bot, first), last);
        // Runs of waves that are all forgotten.
        let oldest = whole.first().copied().unwrap_or_default();
        while let Some(((_, from), to)) = runs.range((bot, 0)..(bot, first)).next() {
            if *to >= oldest {
                break;
            }
            let key = (bot, *from);
            runs.remove(&key);
        }
    }

    /// The run that a wave is in.
    fn covering(&self, bot: BotPlace, wave: u64) -> Option<(u64, u64)> {
        let runs = self.0.get(&bot.swarm)?;
        let ((_, first), last) = runs.range((bot.index, 0)..=(bot.index, wave)).next_back()?;
        (*last >= wave).then_some((*first, *last))
    }

    /// Forgets bots that go.
    pub(super) fn forget(&mut self, swarm: u32, span: Span) {
        let Some(runs) = self.0.get_mut(&swarm) else { return };
        let keys = runs.range((span.first, 0)..(span.end, 0)).map(|(key, _)| *key);
        for key in keys.collect::<Vec<_>>() {
            runs.remove(&key);
        }
    }

    /// Forgets all bots of a swarm that goes.
    pub(super) fn forget_swarm(&mut self, swarm: u32) {
        self.0.remove(&swarm);
    }

    /// Every run: whose it is, its first and its last wave.
    fn all(&self) -> impl Iterator<Item = (BotPlace, u64, u64)> {
        self.0.iter().flat_map(|(swarm, runs)| {
            let bot = |index| BotPlace { swarm: *swarm, index };
            runs.iter().map(move |((index, first), last)| (bot(*index), *first, *last))
        })
    }
}

impl State {
    /// The first retained wave over a swarm that a member was in from its beginning. From there on it
    /// is in all of them.
    pub(super) fn first_whole_of(&self, bot: BotPlace) -> Option<u64> {
        let whole = self.bot_index.whole_of.get(&bot.swarm)?;
        let (mut low, mut end) = (*whole.first()?, whole.last()?.checked_add(1)?);
        let mut found = None;
        while low < end {
            let middle = low + (end - low) / 2;
            match whole.range(middle..end).next() {
                Some(wave) if self.waves.get(wave).is_some_and(|row| row.has(bot.index)) => {
                    found = Some(*wave);
                    end = middle;
                }
                Some(wave) => low = wave + 1,
                None => end = middle,
            }
        }
        found
    }

    /// Waves over its whole swarm that a member has ended or not, those from a number on.
    pub(super) fn whole_waves_of(&self, bot: BotPlace, from: u64) -> impl Iterator<Item = u64> {
        let whole = self.bot_index.whole_of.get(&bot.swarm);
        let first = self.first_whole_of(bot).map(|first| first.max(from));
        let range = whole.zip(first).map(|(whole, first)| whole.range(first..));
        range.into_iter().flatten().copied()
    }

    /// The same the other way round: those up to a number.
    pub(super) fn whole_waves_back(&self, bot: BotPlace, to: u64) -> impl Iterator<Item = u64> {
        let whole = self.bot_index.whole_of.get(&bot.swarm);
        let first = self.first_whole_of(bot).filter(|first| *first <= to);
        let range = whole.zip(first).map(|(whole, first)| whole.range(first..=to));
        range.into_iter().flatten().rev().copied()
    }

    /// The first retained wave over its whole swarm from a number on that a member has not ended.
    pub(super) fn next_unended(&self, bot: BotPlace, from: u64) -> Option<u64> {
        let whole = self.bot_index.whole_of.get(&bot.swarm)?;
        let mut next = *whole.range(from..).next()?;
        while let Some((_, last)) = self.bot_index.ended_runs.covering(bot, next) {
            next = *whole.range(last.checked_add(1)?..).next()?;
        }
        Some(next)
    }

    /// Waves over its whole swarm that a member has not ended, those from a number on.
    pub(super) fn unended_waves_of(&self, bot: BotPlace, from: u64) -> impl Iterator<Item = u64> {
        let first = self.first_whole_of(bot).map(|first| first.max(from));
        let first = first.and_then(|first| self.next_unended(bot, first));
        std::iter::successors(first, move |wave| self.next_unended(bot, wave.checked_add(1)?))
    }

    /// The same the other way round: those up to a number.
    pub(super) fn unended_waves_back(&self, bot: BotPlace, to: u64) -> impl Iterator<Item = u64> {
        let whole = self.bot_index.whole_of.get(&bot.swarm);
        let first = self.first_whole_of(bot);
        let before = move |to: u64| {
            let first = first.filter(|first| *first <= to)?;
            whole?.range(first..=to).next_back().copied()
        };
        let mut next = before(to);
        std::iter::from_fn(move || {
            while let Some(wave) = next {
                match self.bot_index.ended_runs.covering(bot, wave) {
                    Some((run, _)) => next = before(run.checked_sub(1)?),
                    None => {
                        next = before(wave.checked_sub(1)?);
                        return Some(wave);
                    }
                }
            }
            None
        })
    }

    /// What must hold of the runs: they say of every member and wave what the rows say.
    pub(super) fn check_runs(&self) -> Result<(), String> {
        for (swarm, whole) in &self.bot_index.whole_of {
            let Some(row) = self.swarms.get(swarm) else { continue };
            for wave in whole {
                for ((_, block), progress) in self.wave_blocks.range((*wave, 0), (*wave, u32::MAX))
                {
                    for progress in &progress.rows {
                        let index = block * crate::model::BOT_BLOCK + u32::from(progress.slot);
                        let bot = BotPlace { swarm: *swarm, index };
                        let is = self.bot_index.ended_runs.covering(bot, *wave).is_some();
                        if row.has(index) && is != progress.state.is_ended() {
                            return Err(format!("the runs of {bot:?} are wrong of wave {wave}"));
                        }
                    }
                }
            }
        }
        for (bot, first, last) in self.bot_index.ended_runs.all() {
            for wave in self.whole_waves_of(bot, first).take_while(|wave| *wave <= last) {
                let place = crate::model::AssignmentPlace { wave, index: bot.index };
                if !self.progress(place).is_some_and(|row| row.state.is_ended()) {
                    return Err(format!("a run of {bot:?} holds wave {wave}"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_in_any_order_become_one_run() {
        let whole: BTreeSet<u64> = [2, 4, 5, 9, 12].into();
        let bot = BotPlace { swarm: 1, index: 7 };
        let mut runs = EndedRuns::default();
        for wave in [9, 2, 5] {
            runs.add(bot, wave, &whole);
        }
        assert!(runs.all().eq([(bot, 2, 2), (bot, 5, 9)]));
        runs.add(bot, 4, &whole);
        runs.add(bot, 4, &whole);
        assert!(runs.all().eq([(bot, 2, 9)]));
        assert_eq!((runs.covering(bot, 12), runs.covering(bot, 4)), (None, Some((2, 9))));
        // Forgotten waves go with the next end, and bots at once.
        let other = BotPlace { swarm: 1, index: 8 };
        runs.add(other, 2, &whole);
        runs.add(other, 9, &[8, 9, 12].into());
        assert!(runs.all().eq([(bot, 2, 9), (other, 9, 9)]));
        runs.forget(1, Span { first: 7, end: 8 });
        assert!(runs.all().eq([(other, 9, 9)]));
    }
}
