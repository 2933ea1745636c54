//! Waves: work assigned to one bot or to a whole swarm, and how it is forgotten again
//! (contract 5.1, 5.2).

use super::apply::Txn;
use super::bot_command::{BotFact, BotOutcome, BotRejection, BotWork};
use super::bot_index::Tally;
use super::bots::check_text;
use super::rows::BlobPart;
use super::{NAME_MAX, Outcome, Rejection, Reply, State, blob_owner};
use crate::model::{
    AssignmentPlace, BOT_BLOCK, BotPlace, DerivedId, IdOf, Progress, Span, TimeMs, Wave, WaveBlock,
    block_slot, tier_urgency,
};

/// The longest data of work for bots, in bytes.
const DATA_MAX: usize = 256 * 1024;
/// Waves that may be open.
pub(super) const OPEN_WAVES_MAX: u64 = 300_000;
/// Waves that may be open over one swarm, and of one bot beside them: who removes bots goes over them.
pub(super) const OPEN_WAVES_OF_ONE_MAX: usize = 25_000;
/// Rows that are cleared away after a command, beside one for each of its items.
const FOLDED_PER_COMMAND: usize = 16;

impl State {
    /// The id of an assignment, whether it is there or not.
    #[must_use]
    pub fn assignment_id(&self, place: AssignmentPlace) -> DerivedId {
        DerivedId::of(IdOf::Assignment, self.bot_totals().seed, (place.wave, place.index))
    }

    /// The assignment of an id, if it is there.
    #[must_use]
    pub fn assignment_place(&self, id: DerivedId) -> Option<AssignmentPlace> {
        let (wave, index) = id.numbers(IdOf::Assignment, self.bot_totals().seed)?;
        let place = AssignmentPlace { wave, index };
        self.live_wave(wave)?.has(index).then_some(place)
    }

    /// A wave whose bots are there.
    pub(super) fn live_wave(&self, wave: u64) -> Option<&Wave> {
        let tally = self.bot_index.tallies.get(&wave)?;
        if self.bot_index.is_going(tally) { None } else { self.waves.get(&wave) }
    }

    /// What has come of an assignment; `None` when nothing has.
    #[must_use]
    pub fn progress(&self, place: AssignmentPlace) -> Option<&Progress> {
        let (block, slot) = block_slot(place.index);
        self.wave_blocks.get(&(place.wave, block))?.get(slot)
    }

    /// The place of a wave among others that wait: when it was assigned, plus what its urgency lacks.
    pub(super) fn wave_due_ms(&self, wave: &Wave, tier: &str) -> TimeMs {
        let lacks = u64::from(100 - tier_urgency(tier).value());
        let wait_ms = self.policy().aging_ms.saturating_mul(lacks) / 100;
        wave.assigned_at_ms.saturating_add(wait_ms)
    }

    /// Puts every wave in its place anew, after the rule of places has changed.
    pub(super) fn rebuild_waves(&mut self) {
        let tallies = self.bot_index.tallies.iter();
        let tallies = tallies.filter(|(_, tally)| !self.bot_index.is_going(tally));
        let places = tallies.filter_map(|(number, tally)| {
            let due_ms = self.wave_due_ms(self.waves.get(number)?, &tally.tier);
            Some((*number, due_ms))
        });
        for (number, due_ms) in places.collect::<Vec<_>>() {
            self.bot_index.put_due(number, due_ms);
        }
    }

    /// Notes a wave that is new or was just read; one whose bots are gone is to be cleared away.
    pub(super) fn note_wave(&mut self, number: u64) {
        let Some(wave) = self.waves.get(&number) else { return };
        let first = wave.members.first().map_or(0, |span| span.first);
        let swarm = self.swarms.get(&wave.swarm);
        let there = match wave.swarm {
            0 => self.bots.get(&first).is_some(),
            _ => swarm.is_some(),
        };
        if !there {
            let index = if wave.swarm == 0 { first } else { 0 };
            self.bot_index.going.insert(BotPlace { swarm: wave.swarm, index });
        }
        let gone = swarm.map_or(Vec::new(), |row| row.gone_of(&wave.members));
        let tier = self.tier_of(BotPlace { swarm: wave.swarm, index: first });
        let due_ms = self.wave_due_ms(wave, tier);
        let tally = Tally::of(wave, self.bot_index.tier(tier), &gone, due_ms);
        self.bot_index.put(number, tally);
    }

    /// Notes what has changed with one assignment, or was just read of it.
    pub(super) fn note_progress(
        &mut self,
        place: AssignmentPlace,
        before: &Progress,
        after: &Progress,
    ) {
        if let Some(lease) = &before.lease {
            self.bot_index.leases.remove(&(lease.ends_aged_ms, place));
        }
        if let Some(lease) = &after.lease {
            self.bot_index.leases.insert((lease.ends_aged_ms, place));
        }
        let swarm = self.bot_index.tallies.get(&place.wave).map_or(0, |tally| tally.swarm);
        let row = self.swarms.get(&swarm);
        let ends = after.state.is_ended() && !before.state.is_ended();
        self.bot_index.note_heir(place, (swarm, row), before, after);
        let is_orphan = row.is_some_and(|row| !row.has(place.index));
        let index = &mut self.bot_index;
        let whole = index.whole_of.get(&swarm).filter(|whole| whole.contains(&place.wave));
        if let Some(whole) = whole.filter(|_| ends && !is_orphan) {
            index.ended_runs.add(BotPlace { swarm, index: place.index }, place.wave, whole);
        }
        self.bot_index.edit(place.wave, |tally| count_progress(tally, place, before, after));
        if is_orphan && ends {
            self.bot_index.edit(place.wave, |tally| tally.orphans -= 1);
        }
    }

    /// Changes what has come of an assignment.
    pub(super) fn edit_progress(
        &mut self,
        place: AssignmentPlace,
        edit: impl FnOnce(&mut Progress),
    ) {
        let (block, slot) = block_slot(place.index);
        let before = self.progress(place).cloned();
        let before = before.unwrap_or_else(|| Progress { slot, ..Progress::default() });
        let mut after = before.clone();
        edit(&mut after);
        if before == after {
            return;
        }
        self.note_progress(place, &before, &after);
        let key = (place.wave, block);
        if self.wave_blocks.get(&key).is_none() {
            let row = WaveBlock { rows: vec![after] };
            self.wave_blocks.put(&mut self.rows, key, row);
        } else {
            self.wave_blocks.edit_unwritten(&key, |row| row.put(after));
            self.bot_index.unwritten_waves.insert(key);
        }
    }
}

fn count_progress(tally: &mut Tally, place: AssignmentPlace, before: &Progress, after: &Progress) {
    use crate::model::AssignmentState::{Completed, Failed, Leased, Waiting};
    let was = |state| u32::from(before.state == state);
    let is = |state| u32::from(after.state == state);
    tally.completed = tally.completed + is(Completed) - was(Completed);
    tally.failed = tally.failed + is(Failed) - was(Failed);
    tally.leased = tally.leased + is(Leased) - was(Leased);
    tally.ended_at_ms = tally.ended_at_ms.max(after.ended_at_ms);
    let is_heirs = |row: &Progress| u32::from(row.bot.is_some());
    tally.inherited = tally.inherited + is_heirs(after) - is_heirs(before);
    match (before.state == Waiting, after.state == Waiting) {
        (false, true) => tally.first_waiting = tally.first_waiting.min(place.index),
        // Without a gap: who ends a wave in order is not looked at again for each of the rest.
        (true, false) if tally.first_waiting == place.index => tally.first_waiting += 1,
        (true, _) | (false, false) => {}
    }
}

impl Txn<'_> {
    pub(super) fn assign_bot(&mut self, bot: DerivedId, work: BotWork) -> Reply {
        let place = self.state.bot_place(bot).ok_or(BotRejection::BotNotFound { bot })?;
        check_work(&work)?;
        self.make_room(place, false, 1)?;
        let span = Span { first: place.index, end: place.index + 1 };
        let wave = self.add_wave(place.swarm, false, vec![span], work);
        let now = self.now;
        self.state.edit_record(place, |record| {
            record.assigned += 1;
            record.last_active_ms = now;
        });
        let task = self.state.assignment_id(AssignmentPlace { wave, index: place.index });
        self.tell_bots(BotFact::BotAssigned { bot, task });
        self.tend_waves(1);
        Ok(Outcome::Bot(BotOutcome::Assigned { wave, first: place.index, count: 1 }))
    }

    pub(super) fn assign_swarm(&mut self, swarm: DerivedId, work: BotWork) -> Reply {
        let number = self.state.swarm_number(swarm);
        let number = number.ok_or(BotRejection::SwarmNotFound { swarm })?;
        let row = self.state.swarm(number).ok_or(BotRejection::SwarmNotFound { swarm })?;
        let (count, members) = (row.count, row.spans());
        check_work(&work)?;
        self.make_room(BotPlace { swarm: number, index: 0 }, true, count)?;
        let Some(first) = members.first().map(|span| span.first) else {
            // A swarm whose last bot was removed.
            return Ok(Outcome::Bot(BotOutcome::Assigned { wave: 0, first: 0, count: 0 }));
        };
        let wave = self.add_wave(number, true, members, work);
        let now = self.now;
        self.state.swarms.edit(&mut self.state.rows, &number, |row| {
            row.waves += 1;
            row.assigned_at_ms = now;
        });
        self.tell_bots(BotFact::SwarmAssigned { swarm, wave, count });
        self.tend_waves(1);
        Ok(Outcome::Bot(BotOutcome::Assigned { wave, first, count }))
    }

    /// Where the next wave over a swarm goes on: where its newest one ended.
    fn next_turn(&self, swarm: u32, waves: u64) -> u64 {
        let newest = self.state.waves_of_swarm(swarm).next();
        let newest = newest.and_then(|newest| self.state.waves.get(&newest));
        newest.map_or(waves, |newest| newest.turn + u64::from(newest.size))
    }

    fn add_wave(&mut self, swarm: u32, whole: bool, members: Vec<Span>, work: BotWork) -> u64 {
        let number = self.state.bot_totals().waves + 1;
        let of_swarm = self.state.swarm(swarm).filter(|_| whole);
        let of_swarm = of_swarm.map(|row| (self.next_turn(swarm, row.waves), row.next_index));
        let (turn, next_index) = of_swarm.unwrap_or((number, 0));
        let size = members.iter().map(|span| span.len()).sum();
        let (owner, part) = (blob_owner(number, 0), BlobPart::WaveData);
        let wave = Wave {
            swarm,
            whole,
            task_type: work.task_type,
            data: self.state.rows.put_payload(&owner, part, work.data),
            assigned_at_ms: self.now,
            members,
            size,
            turn,
            next_index,
        };
        self.state.waves.put(&mut self.state.rows, number, wave);
        self.state.edit_bot_totals(|totals| {
            totals.waves = number;
            totals.assigned += u64::from(size);
        });
        self.state.note_wave(number);
        number
    }

    /// Clears away what is over: waves beyond those that are retained, the oldest end first, and a
    /// bounded number of rows of waves that are forgotten. Each of `items` can have left one row,
    /// so what is left over does not grow.
    pub(super) fn tend_waves(&mut self, items: usize) {
        self.state.write_bot_blocks();
        let max = self.state.policy().ended_assignments_max;
        for _ in 0..FOLDED_PER_COMMAND + items {
            if self.state.bot_index.held.retained <= max {
                break;
            }
            let Some(oldest) = self.state.bot_index.oldest_ended() else { break };
            self.state.forget_wave(oldest);
            self.delete_wave(oldest);
        }
        for _ in 0..FOLDED_PER_COMMAND + items {
            if let Some(wave) = self.state.bot_index.folding.first().copied() {
                self.delete_part(wave);
            } else if let Some(wave) = self.state.bot_index.next_going() {
                self.delete_going(wave);
            } else {
                break;
            }
        }
    }

    /// Deletes the row of a wave.
    pub(super) fn delete_wave(&mut self, wave: u64) {
        if let Some(row) = self.state.waves.remove(&mut self.state.rows, &wave) {
            let (owner, part) = (blob_owner(wave, 0), BlobPart::WaveData);
            self.state.rows.delete_payload(&owner, part, &row.data);
        }
        let rest = self.state.wave_blocks.range((wave, 0), (wave, u32::MAX)).next();
        if rest.is_none() {
            self.state.bot_index.folding.remove(&wave);
        }
    }

    /// Deletes the row of a forgotten wave, or else one of its blocks.
    fn delete_part(&mut self, wave: u64) {
        if self.state.waves.get(&wave).is_none() {
            self.delete_block(wave);
        }
        self.delete_wave(wave);
    }

    /// Deletes a block of a wave whose bots were removed, with the leases in it, or when there is none
    /// its row: as long as that is there, it says whose wave it was.
    fn delete_going(&mut self, wave: u64) {
        let swarm = self.state.waves.get(&wave).map_or(0, |row| row.swarm);
        match self.delete_block(wave) {
            Some((block, row)) => self.state.bot_index.take_block(swarm, (wave, block), &row),
            None => {
                self.state.bot_index.take(wave);
                self.delete_wave(wave);
            }
        }
    }

    /// Deletes the first block of a wave.
    fn delete_block(&mut self, wave: u64) -> Option<(u32, WaveBlock)> {
        let block = self.state.wave_blocks.range((wave, 0), (wave, u32::MAX)).next();
        let key = (wave, block?.0.1);
        let row = self.state.wave_blocks.remove(&mut self.state.rows, &key)?;
        for progress in &row.rows {
            let owner = blob_owner(wave, key.1 * BOT_BLOCK + u32::from(progress.slot));
            self.state.rows.delete_payload(&owner, BlobPart::BotResult, &progress.result);
        }
        Some((key.1, row))
    }
}

fn check_work(work: &BotWork) -> Result<(), Rejection> {
    check_text("type", work.task_type.as_deref().unwrap_or_default(), NAME_MAX)?;
    check_text("data", &work.data, DATA_MAX)
}

impl State {
    /// Takes a wave out of all that is derived; its rows are deleted later, in turns.
    pub(super) fn forget_wave(&mut self, wave: u64) {
        let Some(tally) = self.bot_index.tallies.get(&wave) else { return };
        if tally.leased > 0 || tally.inherited > 0 {
            let swarm = tally.swarm;
            for ((_, block), row) in self.wave_blocks.range((wave, 0), (wave, u32::MAX)) {
                self.bot_index.take_block(swarm, (wave, *block), row);
            }
        }
        self.bot_index.take(wave);
        self.bot_index.folding.insert(wave);
    }
}
