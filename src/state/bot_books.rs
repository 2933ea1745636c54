//! Work of bots that nobody works for: whoever only keeps books ends nothing, and would come to the bounds
//! and stay there. So when there is no room, the oldest of it is forgotten, as family B's own program
//! does with all of it after an hour (contract 5.4). Derived from rows, exact, and never stored.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::Txn;
use super::bot_command::BotRejection;
use super::bot_index::BotIndex;
use super::bot_waves::{OPEN_WAVES_MAX, OPEN_WAVES_OF_ONE_MAX};
use super::{Rejection, State};
use crate::model::{BotPlace, Span, Swarm, TimeMs, Wave};

/// Work that is younger is not forgotten (contract 5.4).
const KEPT_MS: TimeMs = 3_600_000;
/// Waves that one command forgets to make room.
const FORGOTTEN_PER_COMMAND: usize = 64;

/// Which of what may be forgotten goes first: the oldest of all, or what room is wanted for has had, or
/// the largest. Where the first are too small to make room, the others may do.
#[derive(Debug, Clone, Copy)]
enum Order {
    Oldest,
    Own,
    Largest,
}

/// Open waves of which nothing was leased or has ended, of swarms and bots of none that nobody who works
/// for them was ever heard of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Books {
    /// By swarm, 0 for bots of none, with their sizes.
    waves: BTreeMap<u32, BTreeMap<u64, u32>>,
    /// The oldest of each swarm.
    oldest: BTreeSet<(u64, u32)>,
    /// Those of more than one assignment, by the power of two that their size is.
    large: BTreeMap<u32, BTreeSet<u64>>,
    /// Swarms, as index 0, and bots of none for whom somebody was heard of.
    attached: BTreeSet<BotPlace>,
}

impl Books {
    /// Notes a wave of an owner, unless somebody works for that.
    pub(super) fn put(&mut self, owner: BotPlace, wave: u64, size: u32) {
        if self.attached.contains(&owner) {
            return;
        }
        self.change(owner.swarm, |waves| waves.extend([(wave, size)]));
        if size > 1 {
            self.large.entry(size.ilog2()).or_default().insert(wave);
        }
    }

    /// Takes a wave out, if it is there.
    pub(super) fn take(&mut self, swarm: u32, wave: u64) {
        let mut size = None;
        self.change(swarm, |waves| size = waves.remove(&wave));
        if let Some(size) = size {
            self.take_large(wave, size);
        }
    }

    fn change(&mut self, swarm: u32, change: impl FnOnce(&mut BTreeMap<u64, u32>)) {
        let first = |waves: &BTreeMap<u64, u32>| waves.keys().next().copied();
        let waves = self.waves.entry(swarm).or_default();
        let before = first(waves);
        change(waves);
        let after = first(waves);
        if after.is_none() {
            self.waves.remove(&swarm);
        }
        if before != after {
            before.map(|wave| self.oldest.remove(&(wave, swarm)));
            after.map(|wave| self.oldest.insert((wave, swarm)));
        }
    }

    fn take_swarm(&mut self, swarm: u32) {
        let waves = self.waves.remove(&swarm).unwrap_or_default();
        waves.keys().next().map(|wave| self.oldest.remove(&(*wave, swarm)));
        for (wave, size) in waves {
            self.take_large(wave, size);
        }
    }

    fn take_large(&mut self, wave: u64, size: u32) {
        if let Some(waves) = self.large.get_mut(&size.ilog2())
            && waves.remove(&wave)
            && waves.is_empty()
        {
            self.large.remove(&size.ilog2());
        }
    }

    /// All waves in order, or so many of them as one command forgets.
    fn oldest_first(&self) -> impl Iterator<Item = u64> {
        let heads = self.oldest.iter().take(FORGOTTEN_PER_COMMAND + 1).copied();
        let mut heads: BTreeSet<(u64, u32)> = heads.collect();
        std::iter::from_fn(move || {
            let (wave, swarm) = heads.pop_first()?;
            let next = self.waves.get(&swarm)?.range(wave + 1..).next();
            heads.extend(next.map(|(next, _)| (*next, swarm)));
            Some(wave)
        })
    }

    /// Waves that `is_over` accepts, the largest first, as far as powers of two tell; of those of the
    /// same the oldest first.
    fn largest_first(&self, is_over: impl Fn(u64) -> bool) -> impl Iterator<Item = u64> {
        let of_a_size = move |waves: &BTreeSet<u64>| {
            let waves = waves.iter().take(FORGOTTEN_PER_COMMAND + 1).copied();
            waves.take_while(|wave| is_over(*wave)).collect::<Vec<_>>()
        };
        self.large.values().rev().flat_map(of_a_size)
    }

    fn has(&self, swarm: u32, wave: u64) -> bool {
        self.waves.get(&swarm).is_some_and(|waves| waves.contains_key(&wave))
    }
}

impl BotIndex {
    /// Notes that somebody works for a swarm, as index 0, or for a bot of none.
    pub(super) fn attach(&mut self, owner: BotPlace) {
        if self.books.attached.insert(owner) {
            self.take_books(owner);
        }
    }

    /// Forgets an owner that goes.
    pub(super) fn close_books(&mut self, owner: BotPlace) {
        self.take_books(owner);
        self.books.attached.remove(&owner);
    }

    fn take_books(&mut self, owner: BotPlace) {
        if owner.swarm != 0 {
            return self.books.take_swarm(owner.swarm);
        }
        for wave in self.singles_open.get(&owner).into_iter().flatten() {
            self.books.take(0, *wave);
        }
    }

    /// Open waves over a swarm, or of one bot alone.
    fn open_of(&self, bot: BotPlace, whole: bool) -> Option<&BTreeSet<u64>> {
        if whole { self.whole_open.get(&bot.swarm) } else { self.singles_open.get(&bot) }
    }
}

impl State {
    /// Whether there is room for so many assignments of a bot, or over its whole swarm, once some waves
    /// are gone.
    fn check_room(
        &self,
        (bot, whole, count): (BotPlace, bool, u32),
        gone: &[(u64, Wave)],
    ) -> Result<(), BotRejection> {
        let max = self.policy().open_assignments_max;
        let index = &self.bot_index;
        let freed: u64 = gone.iter().map(|(_, row)| u64::from(row.size)).sum();
        let fits = |held: u64, max: u64| (held - freed).saturating_add(count.into()) <= max;
        // What has ended of waves that have not takes as much memory, and is let go with its wave.
        if !fits(index.open(), max) || !fits(index.held.standing, max.saturating_mul(2)) {
            return Err(BotRejection::TooManyAssignments { max });
        }
        if index.held.open_waves - gone.len() as u64 >= OPEN_WAVES_MAX {
            return Err(BotRejection::TooManyAssignments { max: OPEN_WAVES_MAX });
        }
        let own = index.open_of(bot, whole);
        let has = |waves: &BTreeSet<u64>| gone.iter().filter(|(at, _)| waves.contains(at)).count();
        if own.map_or(0, |waves| waves.len() - has(waves)) >= OPEN_WAVES_OF_ONE_MAX {
            let max = OPEN_WAVES_OF_ONE_MAX as u64;
            return Err(BotRejection::TooManyWaves { max });
        }
        Ok(())
    }
}

impl Txn<'_> {
    /// Makes room for so many assignments of a bot, or over its whole swarm, by forgetting what nobody
    /// will ever do. What is refused all the same changes nothing.
    pub(super) fn make_room(
        &mut self,
        bot: BotPlace,
        whole: bool,
        count: u32,
    ) -> Result<(), Rejection> {
        let wanted = (bot, whole, count);
        let gone = self
            .waves_to_forget(wanted, Order::Oldest)
            .or_else(|_| self.waves_to_forget(wanted, Order::Own))
            .or_else(|_| self.waves_to_forget(wanted, Order::Largest))?;
        for (wave, row) in gone {
            self.forget_books(wave, &row);
        }
        Ok(())
    }

    fn waves_to_forget(
        &self,
        wanted: (BotPlace, bool, u32),
        order: Order,
    ) -> Result<Vec<(u64, Wave)>, BotRejection> {
        let (bot, whole, _) = wanted;
        let (index, mut gone) = (&self.state.bot_index, Vec::new());
        let mut oldest = index.books.oldest_first();
        let mut largest = index.books.largest_first(|wave| self.old_books(wave).is_some());
        while let Err(refusal) = self.state.check_room(wanted, &gone) {
            let is_new = |wave: &u64| gone.iter().all(|(other, _)| other != wave);
            let next = match (&refusal, order) {
                (BotRejection::TooManyWaves { .. }, _) | (_, Order::Own) => {
                    let waves = index.open_of(bot, whole).into_iter().flatten().copied();
                    waves
                        .take(FORGOTTEN_PER_COMMAND)
                        .find(is_new)
                        .filter(|wave| index.books.has(bot.swarm, *wave))
                }
                (_, Order::Oldest) => oldest.find(is_new),
                (_, Order::Largest) => largest.find(is_new),
            };
            match next.and_then(|wave| Some((wave, self.old_books(wave)?))) {
                Some((wave, row)) if gone.len() < FORGOTTEN_PER_COMMAND => {
                    gone.push((wave, row.clone()));
                }
                Some(_) | None => return Err(refusal),
            }
        }
        Ok(gone)
    }

    /// A wave of the books that may be forgotten.
    fn old_books(&self, wave: u64) -> Option<&Wave> {
        let row = self.state.waves.get(&wave)?;
        let blocks = self.state.wave_blocks.range((wave, 0), (wave, u32::MAX)).next();
        let is_over = row.assigned_at_ms.saturating_add(KEPT_MS) <= self.now && blocks.is_none();
        is_over.then_some(row)
    }

    /// Forgets a wave of which nothing has come, as if its bots had never had it.
    fn forget_books(&mut self, wave: u64, row: &Wave) {
        if !row.whole {
            let bot = row.single().unwrap_or_default();
            self.take_assigned(bot);
        }
        let swarm = self.state.swarm(row.swarm).filter(|_| row.whole);
        let (had, apart) = swarm.map_or_else(Default::default, |swarm| shared_out(row, swarm));
        for index in apart.iter().flat_map(|span| span.first..span.end) {
            self.take_assigned(BotPlace { swarm: row.swarm, index });
        }
        if row.whole {
            self.state.swarms.edit(&mut self.state.rows, &row.swarm, |swarm| {
                for (stretch, had) in swarm.members.iter_mut().zip(&had) {
                    stretch.waves_before += u64::from(*had);
                }
            });
        }
        self.state.forget_wave(wave);
        self.delete_wave(wave);
    }

    fn take_assigned(&mut self, bot: BotPlace) {
        if self.state.has_bot(bot) {
            self.state.edit_record(bot, |record| record.assigned -= 1);
        }
    }
}

/// Which stretches of a swarm had a wave by their number of waves, and the bots of the others that had
/// it by their records: stretches that were joined say it so, of those who missed some. One pass over
/// both, where every pair would be too many.
fn shared_out(row: &Wave, swarm: &Swarm) -> (Vec<bool>, Vec<Span>) {
    let (mut had, mut apart) = (Vec::with_capacity(swarm.members.len()), Vec::new());
    let mut next = 0;
    for stretch in &swarm.members {
        while row.members.get(next).is_some_and(|span| span.end <= stretch.span.first) {
            next += 1;
        }
        let here = row.members.iter().skip(next).take_while(|span| span.first < stretch.span.end);
        let part: Vec<Span> = here.map(|span| span.and(stretch.span)).collect();
        let bots: u32 = part.iter().map(|span| span.len()).sum();
        let all = bots == stretch.span.len() && stretch.waves_before < swarm.waves;
        had.push(all);
        if !all {
            apart.extend(part);
        }
    }
    (had, apart)
}

#[cfg(test)]
mod tests;
