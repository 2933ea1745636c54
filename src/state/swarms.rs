//! Swarms: made, scaled and removed. A swarm is one row; its bots are derived from it.
//!
//! Nothing is moved when members are removed: an open assignment whose bot is gone is an *orphan*,
//! and the members have the orphans in turn ([`Swarm::heir`]), whoever they are at that time. Nor is
//! anything moved when members are added: they have a share of what waits ([`Swarm::taker`]).

use super::apply::Txn;
use super::bot_command::{BotFact, BotOutcome, BotRejection, BotSpec};
use super::bot_index::Figures;
use super::bots::check_spec;
use super::{Outcome, Rejection, Reply, State};
use crate::model::{
    BOT_BLOCK, BotPlace, DerivedId, Span, Stretch, Swarm, WaveBlock, spans_without,
};

/// Pieces of the members of a swarm above which neighbours are joined when it grows.
const STRETCHES_KEPT: usize = 4096;
/// Pieces that they may fall into, which takes as many bots that were removed from between others.
const STRETCHES_MAX: usize = 65_536;
/// What one command that shrinks a swarm goes over at most: blocks of its waves, and single waves; or
/// one bot's, which are bounded.
const LOOKS_PER_SHRINK: usize = 20_000;
/// What forgetting a block of records costs of that.
const RECORDS_COST: usize = 16;

impl State {
    /// One swarm.
    #[must_use]
    pub fn swarm(&self, number: u32) -> Option<&Swarm> {
        self.swarms.get(&number)
    }

    /// All swarms after a number, with their numbers, in the order they were made in.
    pub fn swarms_after(&self, after: u32) -> impl DoubleEndedIterator<Item = (u32, &Swarm)> {
        self.swarms.after(Some(after)).map(|(number, row)| (*number, row))
    }

    /// How many swarms there are.
    #[must_use]
    pub fn swarms_len(&self) -> usize {
        self.swarms.len()
    }

    /// Open assignments of a wave that were made for bots of these indexes, which are in order. Goes over the
    /// blocks in which something has happened.
    pub(super) fn open_among(&self, wave: u64, spans: &[Span]) -> u32 {
        let Some(row) = self.waves.get(&wave) else { return 0 };
        let (Some(first), Some(last)) = (spans.first(), spans.last()) else { return 0 };
        // Its members may be many spans, and those asked for few.
        let from = row.members.partition_point(|span| span.end <= first.first);
        let to = row.members.partition_point(|span| span.first < last.end).max(from);
        let members = &row.members[from..to];
        // What is in both: one pass each, where every pair would be too many.
        let parts = spans_without(members, &spans_without(members, spans));
        let all: u32 = parts.iter().map(|part| part.len()).sum();
        all - parts.iter().map(|part| self.ended_among(wave, *part)).sum::<u32>()
    }

    fn ended_among(&self, wave: u64, part: Span) -> u32 {
        let blocks = self.blocks_among(wave, part);
        let ended = blocks.map(|(block, row)| {
            let first = block * BOT_BLOCK;
            let inside = |slot: u8| {
                let index = first + u32::from(slot);
                part.first <= index && index < part.end
            };
            row.rows.iter().filter(|row| row.state.is_ended() && inside(row.slot)).count()
        });
        ended.sum::<usize>() as u32
    }

    /// Blocks of a wave in which something has happened, and that hold one of these indexes.
    pub(super) fn blocks_among(
        &self,
        wave: u64,
        part: Span,
    ) -> impl Iterator<Item = (u32, &WaveBlock)> {
        let block = |index| crate::model::block_slot(index).0;
        let last = block(part.end.max(1) - 1);
        let rows = self.wave_blocks.range((wave, block(part.first)), (wave, last));
        rows.map(|((_, block), row)| (*block, row))
    }
}

impl Txn<'_> {
    pub(super) fn create_swarm(&mut self, spec: BotSpec, count: u32) -> Reply {
        check_spec(&spec)?;
        let room = u32::try_from(self.state.bot_room()).unwrap_or(u32::MAX);
        let count = count.min(room);
        // Swarms without bots count for nothing there, so they have a bound of their own.
        let full = self.state.swarms_len() as u64 >= self.state.policy().bots_max;
        let number = self.state.bot_totals().swarms.checked_add(1).filter(|_| count > 0 && !full);
        let number = number.ok_or(BotRejection::SwarmCapacity)?;
        self.ensure_bot_seed();
        let BotSpec { name, tier, capabilities } = spec;
        let span = Span { first: 0, end: count };
        let row = Swarm {
            name,
            tier,
            capabilities,
            created_at_ms: self.now,
            members: vec![Stretch { span, rank: 0, created_at_ms: self.now, waves_before: 0 }],
            count,
            next_index: count,
            waves: 0,
            assigned_at_ms: 0,
            contact_ms: 0,
            revision: self.index,
        };
        self.state.swarms.put(&mut self.state.rows, number, row);
        self.state.count_bots(BotPlace { swarm: number, index: 0 }, 0, count);
        self.state.edit_bot_totals(|totals| {
            totals.swarms = number;
            totals.created += u64::from(count);
        });
        let swarm = self.state.swarm_id(number);
        self.tell_bots(BotFact::SwarmCreated { swarm, count });
        self.tend_waves(1);
        Ok(Outcome::Bot(BotOutcome::SwarmCreated { swarm, count }))
    }

    pub(super) fn scale_swarm(&mut self, swarm: DerivedId, count: u32) -> Reply {
        let number = self.state.swarm_number(swarm);
        let number = number.ok_or(BotRejection::SwarmNotFound { swarm })?;
        let row = self.state.swarm(number).ok_or(BotRejection::SwarmNotFound { swarm })?;
        let before = row.count;
        if count > before {
            self.grow_swarm(number, count - before)?;
        } else if count < before {
            let most = self.state.removable(number, row).max(1);
            let gone = row.highest((before - count).min(most));
            self.remove_members(number, &gone);
        }
        let count = self.state.swarm(number).map_or(0, |row| row.count);
        if count != before {
            self.tell_bots(BotFact::SwarmScaled { swarm, count });
        }
        self.tend_waves(1);
        Ok(Outcome::Bot(BotOutcome::SwarmScaled { count }))
    }

    fn grow_swarm(&mut self, number: u32, by: u32) -> Result<(), Rejection> {
        let max = self.state.policy().bots_max;
        let by = by.min(u32::try_from(self.state.bot_room()).unwrap_or(u32::MAX));
        if by == 0 {
            // As many as there is room for, also when that is none.
            return Ok(());
        }
        self.check_stretches(number)?;
        let next = self.state.swarm(number).map_or(u32::MAX, |row| row.next_index);
        let end = next.checked_add(by).ok_or(BotRejection::BotCapacity { max })?;
        self.join_stretches(number);
        let (now, index) = (self.now, self.index);
        let counts = self.state.swarms.edit(&mut self.state.rows, &number, |row| {
            let span = Span { first: next, end };
            let (rank, waves_before) = (row.count, row.waves);
            row.members.push(Stretch { span, rank, created_at_ms: now, waves_before });
            (row.count, row.next_index, row.revision) = (row.count + by, end, index);
            (row.count - by, row.count)
        });
        let (from, to) = counts.unwrap_or_default();
        self.state.count_bots(BotPlace { swarm: number, index: 0 }, from, to);
        self.state.edit_bot_totals(|totals| totals.created += u64::from(by));
        Ok(())
    }

    /// Makes room for one more piece, if there are many: two neighbours become one. What those of the
    /// lower one had of waves that the others missed is noted in their records, so that nobody's
    /// figures change.
    fn join_stretches(&mut self, number: u32) {
        let Some(row) = self.state.swarm(number) else { return };
        let many = row.members.len() >= STRETCHES_KEPT;
        let Some(at) = row.cheapest_joint().filter(|_| many) else { return };
        let (lower, upper) = (row.members[at], row.members[at + 1]);
        let (missed, got_at_ms) = (upper.waves_before - lower.waves_before, row.assigned_at_ms);
        for index in lower.span.first..lower.span.end {
            self.state.edit_record(BotPlace { swarm: number, index }, |record| {
                record.assigned += missed;
                if missed > 0 {
                    record.last_active_ms = record.last_active_ms.max(got_at_ms);
                }
            });
        }
        self.state.swarms.edit(&mut self.state.rows, &number, |row| {
            let span = Span { first: lower.span.first, end: upper.span.end };
            row.members[at] = Stretch { span, waves_before: upper.waves_before, ..lower };
            row.members.remove(at + 1);
        });
    }

    /// Refuses what could cut the members of a swarm into too many pieces.
    pub(super) fn check_stretches(&self, number: u32) -> Result<(), Rejection> {
        let pieces = self.state.swarm(number).map_or(0, |row| row.members.len());
        if pieces >= STRETCHES_MAX {
            let text = format!("the members of the swarm are in {STRETCHES_MAX} pieces already");
            return Err(BotRejection::Invalid(text).into());
        }
        Ok(())
    }

    /// Takes members out of a swarm; what is open of theirs is had by those that remain.
    pub(super) fn remove_members(&mut self, number: u32, gone: &[Span]) {
        for span in gone {
            self.state.forget_records(number, *span);
        }
        let index = self.index;
        let counts = self.state.swarms.edit(&mut self.state.rows, &number, |row| {
            let before = row.count;
            row.remove(gone);
            row.revision = index;
            (before, row.count)
        });
        let (before, after) = counts.unwrap_or_default();
        self.state.count_bots(BotPlace { swarm: number, index: 0 }, before, after);
        self.state.orphan_members(number, gone);
    }

    pub(super) fn remove_swarm(&mut self, swarm: DerivedId) -> Reply {
        let number = self.state.swarm_number(swarm);
        let number = number.ok_or(BotRejection::SwarmNotFound { swarm })?;
        let row = self.state.swarm(number).ok_or(BotRejection::SwarmNotFound { swarm })?;
        let (count, tier) = (row.count, row.tier.clone());
        let records = self.state.bot_blocks.range((number, 0), (number, u32::MAX));
        for key in records.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.state.bot_blocks.remove(&mut self.state.rows, &key);
        }
        self.state.bot_index.drop_swarm(number, &tier);
        self.state.swarms.remove(&mut self.state.rows, &number);
        self.tell_bots(BotFact::SwarmRemoved { swarm, count });
        self.tend_waves(1);
        Ok(Outcome::Done)
    }
}

impl State {
    /// How many of the highest members of a swarm one command removes, unless that is none.
    fn removable(&self, number: u32, row: &Swarm) -> u32 {
        let place = |index| BotPlace { swarm: number, index };
        let singles = row.members.iter().rev().flat_map(|stretch| {
            let span = place(stretch.span.first)..place(stretch.span.end);
            self.bot_index.singles_open.range(span).rev()
        });
        let (mut looks, mut from) = (LOOKS_PER_SHRINK, 0);
        for (bot, waves) in singles {
            let Some(left) = looks.checked_sub(waves.len()) else {
                from = bot.index.saturating_add(1);
                break;
            };
            looks = left;
        }
        let waves = self.bot_index.whole_open.get(&number).map_or(0, |waves| waves.len());
        let mut blocks = (LOOKS_PER_SHRINK / (waves + RECORDS_COST)).max(1) as u32;
        let mut seen = u32::MAX;
        for stretch in row.members.iter().rev() {
            let last = (stretch.span.end - 1) / BOT_BLOCK;
            // Small stretches share their block.
            let own = last + 1 - stretch.span.first / BOT_BLOCK - u32::from(last == seen);
            seen = stretch.span.first / BOT_BLOCK;
            if own > blocks {
                from = from.max((last + 1 - blocks) * BOT_BLOCK);
                break;
            }
            blocks -= own;
        }
        let rest = Span { first: from, end: u32::MAX };
        row.members.iter().map(|stretch| stretch.span.and(rest).len()).sum()
    }

    /// Blanks the records of bots that go.
    fn forget_records(&mut self, number: u32, span: Span) {
        let (first, last) = (span.first / BOT_BLOCK, span.end.div_ceil(BOT_BLOCK));
        let blocks = self.bot_blocks.range((number, first), (number, last));
        let mut gone = Figures::default();
        for key in blocks.map(|(key, _)| *key).collect::<Vec<_>>() {
            let index = |slot: u8| key.1 * BOT_BLOCK + u32::from(slot);
            let mut fewer = false;
            self.bot_blocks.edit_unwritten(&key, |row| {
                row.records.retain(|(slot, record)| {
                    let stays = index(*slot) < span.first || span.end <= index(*slot);
                    if !stays {
                        gone.completed += record.completed;
                        gone.failed += record.failed;
                        fewer = true;
                    }
                    stays
                });
            });
            if fewer {
                self.bot_index.unwritten_bots.insert(key);
            }
        }
        let tier = self.tier_of(BotPlace { swarm: number, index: 0 }).to_owned();
        self.bot_index.shift(number, &tier, &gone, &Figures::default());
    }

    /// Counts what removed members leave as orphans. Goes over what they have still to do: of one member,
    /// no wave that it has ended is looked at.
    fn orphan_members(&mut self, number: u32, gone: &[Span]) {
        let place = |index| BotPlace { swarm: number, index };
        let singles = gone.iter().filter(|span| !span.is_empty()).flat_map(|span| {
            let waves = self.bot_index.singles_open.range(place(span.first)..place(span.end));
            waves.flat_map(|(_, waves)| waves.iter().map(|wave| (*wave, 1)))
        });
        let whole: Vec<(u64, u32)> = match gone {
            [one] if one.len() == 1 => {
                self.unended_waves_of(place(one.first), 0).map(|wave| (wave, 1)).collect()
            }
            _ => {
                let waves = self.bot_index.whole_open.get(&number).into_iter().flatten();
                waves.map(|wave| (*wave, self.open_among(*wave, gone))).collect()
            }
        };
        for (wave, orphans) in whole.into_iter().chain(singles.collect::<Vec<_>>()) {
            if orphans > 0 {
                self.bot_index.edit(wave, |tally| tally.orphans += orphans);
            }
        }
        for span in gone.iter().filter(|span| !span.is_empty()) {
            let index = &mut self.bot_index;
            for sets in [&mut index.inherited, &mut index.leased_as, &mut index.lent] {
                let bots = sets.range(place(span.first)..place(span.end));
                let bots: Vec<BotPlace> = bots.map(|(bot, _)| *bot).collect();
                for bot in bots {
                    sets.remove(&bot);
                }
            }
            index.ended_runs.forget(number, *span);
        }
    }
}
