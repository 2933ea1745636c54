//! What others read of bots, swarms and their assignments. Every read is bounded.

use super::bot_index::Figures;
use super::{State, blob_owner};
use crate::model::{
    AssignmentPlace, AssignmentState, BotLease, BotPlace, BotRecord, DerivedId, Payload, Progress,
    Swarm, TaskId, TimeMs, Wave,
};

/// Assignments that one read looks at, from each of the places where they may be.
pub(super) const LOOKS_MAX: usize = 20_000;

/// The figures of contract 5.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BotStats<'a> {
    /// Bots ever made.
    pub created: u64,
    /// Assignments ever completed.
    pub executed: u64,
    /// `bots.capacity`.
    pub capacity: u64,
    /// Bots that there is room for.
    pub remaining: u64,
    /// How many swarms.
    pub swarms: u64,
    /// Of all bots.
    pub all: Figures,
    /// By tier, in order; only those of which there is something.
    pub tiers: Vec<(&'a str, Figures)>,
}

/// A bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BotView<'a> {
    /// Which.
    pub place: BotPlace,
    /// Its id.
    pub id: DerivedId,
    /// Given, or made of id or swarm (contract 5.1, 5.2).
    pub name: String,
    /// As given.
    pub tier: &'a str,
    /// What it can do.
    pub capabilities: &'a [String],
    /// When it was made.
    pub created_at_ms: TimeMs,
    /// When it last got something, or ended it.
    pub last_active_ms: TimeMs,
    /// Assignments it ever got, without those that others have or ended in its place, and with those of
    /// others that it has or ended.
    pub total: u64,
    /// Those that have not ended. Of what it has of others, and they of it, so much as a bounded look finds.
    pub pending: u64,
    /// Those it completed.
    pub completed: u64,
    /// Those it gave up.
    pub failed: u64,
}

/// A swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwarmView<'a> {
    /// Which.
    pub number: u32,
    /// Its id.
    pub id: DerivedId,
    /// Given, or made of the id.
    pub name: String,
    /// Its row.
    pub row: &'a Swarm,
    /// Its bots, and what they have to do and have done.
    pub figures: Figures,
}

/// An assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignmentView<'a> {
    /// Which.
    pub place: AssignmentPlace,
    /// Its id.
    pub id: DerivedId,
    /// Whose it is, or who ended it; `None` in a swarm without bots.
    pub bot: Option<BotPlace>,
    /// That bot's id.
    pub bot_id: Option<DerivedId>,
    /// What it is.
    pub wave: &'a Wave,
    /// What has come of it; `None` when nothing has.
    pub progress: Option<&'a Progress>,
}

impl<'a> AssignmentView<'a> {
    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> AssignmentState {
        self.progress.map(|row| row.state).unwrap_or_default()
    }

    /// While it is leased.
    #[must_use]
    pub fn lease(&self) -> Option<&'a BotLease> {
        self.progress.and_then(|row| row.lease.as_deref())
    }

    /// Under which name its data is kept outside the row, as `BlobPart::WaveData`.
    #[must_use]
    pub fn data_owner(&self) -> TaskId {
        blob_owner(self.place.wave, 0)
    }

    /// Its result, and under which name it is kept outside the row, as `BlobPart::BotResult`.
    #[must_use]
    pub fn result(&self) -> Option<(TaskId, &'a Payload)> {
        let payload = self.progress.map(|row| &row.result)?;
        Some((blob_owner(self.place.wave, self.place.index), payload))
    }
}

/// How a wave stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaveView<'a> {
    /// Its row.
    pub row: &'a Wave,
    /// Assignments that nobody holds.
    pub waiting: u32,
    /// Assignments that somebody holds a lease of.
    pub leased: u32,
    /// Assignments that were completed.
    pub completed: u32,
    /// Assignments that were given up.
    pub failed: u32,
    /// Open ones whose bot is gone: other members have them.
    pub orphans: u32,
    /// When the last of those that ended did; 0 before.
    pub ended_at_ms: TimeMs,
}

/// How a bot or a swarm does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BotHealth {
    /// Assignments that somebody holds a lease of.
    pub leased: u64,
    /// Leases past their end that nobody has taken back; of the first 20,000 in all.
    pub overdue: u64,
    /// When somebody who works for it was last heard of, to the second; 0 for never.
    pub last_contact_ms: TimeMs,
}

impl State {
    /// The figures of all bots.
    #[must_use]
    pub fn bot_stats(&self) -> BotStats<'_> {
        let totals = self.bot_totals();
        let capacity = self.policy().bots_max;
        let tiers = self.bot_index.tiers.iter().map(|(tier, figures)| (tier.as_ref(), *figures));
        BotStats {
            created: totals.created,
            executed: totals.completed,
            capacity,
            remaining: self.bot_room(),
            swarms: self.swarms_len() as u64,
            all: self.bot_index.all,
            tiers: tiers.collect(),
        }
    }

    /// The figures of one swarm; of number 0, of the bots of none.
    #[must_use]
    pub fn swarm_figures(&self, number: u32) -> Figures {
        self.bot_index.swarms.get(&number).copied().unwrap_or_default()
    }

    /// One swarm as it is shown.
    #[must_use]
    pub fn swarm_view(&self, number: u32) -> Option<SwarmView<'_>> {
        let row = self.swarms.get(&number)?;
        let (id, figures) = (self.swarm_id(number), self.swarm_figures(number));
        let name = match row.name.as_str() {
            "" => format!("swarm-{}", id.short()),
            name => name.to_owned(),
        };
        Some(SwarmView { number, id, name, row, figures })
    }

    /// The members of a swarm from an index on, in order.
    pub fn members_of(&self, number: u32, from: u32) -> impl Iterator<Item = BotPlace> {
        let spans = self.swarms.get(&number).into_iter().flat_map(|row| &row.members);
        let indexes = spans.flat_map(move |stretch| stretch.span.first.max(from)..stretch.span.end);
        indexes.map(move |index| BotPlace { swarm: number, index })
    }

    /// All bots after one: those of no swarm, then swarm by swarm.
    pub fn bots_after(&self, after: Option<BotPlace>) -> impl Iterator<Item = BotPlace> {
        let next = after.map_or_else(BotPlace::default, |after| BotPlace {
            index: after.index.saturating_add(1),
            ..after
        });
        let single = (next.swarm == 0).then(|| self.bots.range(next.index, u32::MAX));
        let singles =
            single.into_iter().flatten().map(|(index, _)| BotPlace { swarm: 0, index: *index });
        let swarms = self.swarms.range(next.swarm.max(1), u32::MAX);
        singles.chain(swarms.flat_map(move |(number, _)| {
            self.members_of(*number, if *number == next.swarm { next.index } else { 0 })
        }))
    }

    /// One bot as it is shown.
    #[must_use]
    pub fn bot_view(&self, place: BotPlace) -> Option<BotView<'_>> {
        let view = self.bot_summary(place)?;
        let (more, less) = match place.swarm {
            0 => (0, 0),
            _ => (self.open_for_others(place, LOOKS_MAX), self.open_with_others(place, LOOKS_MAX)),
        };
        let (total, pending) = (view.total + more - less, view.pending + more - less);
        Some(BotView { total, pending, ..view })
    }

    /// As [`Self::bot_view`], with the open assignments that were made for it and none that were made for
    /// others: whose they are would have to be looked for, and lists show many bots.
    #[must_use]
    pub fn bot_summary(&self, place: BotPlace) -> Option<BotView<'_>> {
        let (id, record) = (self.bot_id(place), self.bot_record(place));
        let BotRecord { assigned, completed, failed, given, last_active_ms, .. } = record;
        if place.swarm == 0 {
            let row = self.bots.get(&place.index)?;
            let name = match row.name.as_str() {
                "" => format!("bot-{}", id.short()),
                name => name.to_owned(),
            };
            return Some(BotView {
                place,
                id,
                name,
                tier: &row.tier,
                capabilities: &row.capabilities,
                created_at_ms: row.created_at_ms,
                last_active_ms: last_active_ms.max(row.created_at_ms),
                total: assigned,
                pending: assigned - completed - failed,
                completed,
                failed,
            });
        }
        let row = self.swarms.get(&place.swarm)?;
        let stretch = row.stretch_of(place.index)?;
        let waves = row.waves - stretch.waves_before;
        let got_at_ms = if waves > 0 { row.assigned_at_ms } else { stretch.created_at_ms };
        let total = waves + assigned - given;
        Some(BotView {
            place,
            id,
            name: self.member_name(row, place.index),
            tier: &row.tier,
            capabilities: &row.capabilities,
            created_at_ms: stretch.created_at_ms,
            last_active_ms: last_active_ms.max(got_at_ms),
            total,
            pending: total - completed - failed,
            completed,
            failed,
        })
    }

    fn member_name(&self, row: &Swarm, index: u32) -> String {
        let name = if row.name.is_empty() { "swarm" } else { &row.name };
        format!("{name}-bot-{index}")
    }

    /// One assignment.
    #[must_use]
    pub fn assignment(&self, place: AssignmentPlace) -> Option<AssignmentView<'_>> {
        let wave = self.live_wave(place.wave).filter(|wave| wave.has(place.index))?;
        let (id, progress) = (self.assignment_id(place), self.progress(place));
        let bot = match progress {
            Some(row) => self.bot_of(place, row),
            None => self.assignee(place),
        };
        let bot_id = bot.map(|bot| self.bot_id(bot));
        Some(AssignmentView { place, id, bot, bot_id, wave, progress })
    }

    /// How a wave stands, while it is retained.
    #[must_use]
    pub fn wave(&self, number: u64) -> Option<WaveView<'_>> {
        let (row, tally) = (self.live_wave(number)?, self.bot_index.tallies.get(&number)?);
        Some(WaveView {
            row,
            waiting: tally.waiting(),
            leased: tally.leased,
            completed: tally.completed,
            failed: tally.failed,
            orphans: tally.orphans,
            ended_at_ms: if tally.open() == 0 { tally.ended_at_ms } else { 0 },
        })
    }

    /// Retained waves over a whole swarm, the newest first.
    pub fn waves_of_swarm(&self, number: u32) -> impl Iterator<Item = u64> {
        self.bot_index.whole_of.get(&number).into_iter().flatten().rev().copied()
    }

    /// How a swarm does at `now`.
    #[must_use]
    pub fn swarm_health(&self, number: u32, now: TimeMs) -> Option<BotHealth> {
        let row = self.swarms.get(&number)?;
        let aged = self.counters().aged_at(now);
        let late = self.bot_index.leases.iter().take_while(|(at, _)| *at < aged).take(LOOKS_MAX);
        let waves = late.filter_map(|(_, place)| self.bot_index.tallies.get(&place.wave));
        Some(BotHealth {
            leased: self.swarm_figures(number).leased,
            overdue: waves.filter(|tally| tally.swarm == number).count() as u64,
            last_contact_ms: row.contact_ms,
        })
    }

    /// How a bot does at `now`.
    #[must_use]
    pub fn bot_health(&self, bot: BotPlace, now: TimeMs) -> Option<BotHealth> {
        if !self.has_bot(bot) {
            return None;
        }
        let last_contact_ms = self.bot_record(bot).contact_ms;
        let mut health = BotHealth { last_contact_ms, ..BotHealth::default() };
        let aged = self.counters().aged_at(now);
        // Of what a bot has to do the oldest is leased first.
        let is_leased = |state| state == AssignmentState::Leased;
        for view in self.assignment_page(bot, is_leased, (None, false), LOOKS_MAX).rows {
            let Some(lease) = view.lease() else { continue };
            health.leased += 1;
            health.overdue += u64::from(lease.ends_aged_ms < aged);
            health.last_contact_ms = health.last_contact_ms.max(lease.contact_ms);
        }
        Some(health)
    }
}
