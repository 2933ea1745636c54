//! What is derived from the rows of bots and waves: who waits, who is leased, and how much of
//! everything there is. Never stored; rebuilt at load.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::bot_books::Books;
use super::bot_runs::EndedRuns;
use crate::model::{
    AssignmentPlace, BOT_BLOCK, BotPlace, Progress, RequestId, Span, Swarm, TimeMs, Wave, WaveBlock,
};

/// Place of a wave among those that wait: a time, as that of a task, and its number.
pub(super) type Due = (TimeMs, u64);
/// What work is; `None` without a type.
pub(super) type WorkType = Option<Arc<str>>;

/// How much there is: of a swarm, of a tier, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bots.
    pub bots: u64,
    /// Assignments that nobody holds.
    pub waiting: u64,
    /// Assignments that somebody holds a lease of.
    pub leased: u64,
    /// Assignments that its present bots completed.
    pub completed: u64,
    /// Assignments that its present bots gave up.
    pub failed: u64,
}

impl Figures {
    fn shift(&mut self, from: &Self, to: &Self) {
        let shift = |figure: &mut u64, from: u64, to: u64| *figure = *figure + to - from;
        shift(&mut self.bots, from.bots, to.bots);
        shift(&mut self.waiting, from.waiting, to.waiting);
        shift(&mut self.leased, from.leased, to.leased);
        shift(&mut self.completed, from.completed, to.completed);
        shift(&mut self.failed, from.failed, to.failed);
    }
}

/// How a wave stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) swarm: u32,
    /// The index of its bot, unless it is over a whole swarm.
    pub(super) single: Option<u32>,
    pub(super) tier: Arc<str>,
    pub(super) task_type: WorkType,
    pub(super) due_ms: TimeMs,
    pub(super) size: u32,
    pub(super) completed: u32,
    pub(super) failed: u32,
    pub(super) leased: u32,
    /// Open assignments whose bot is gone.
    pub(super) orphans: u32,
    /// Those that another bot ended, or that are leased as another's.
    pub(super) inherited: u32,
    /// No assignment of a lower index waits. A hint: where to begin to look.
    pub(super) first_waiting: u32,
    /// When the last of those that ended did.
    pub(super) ended_at_ms: TimeMs,
}

impl Tally {
    /// Of a wave of which nothing has been leased or ended.
    pub(super) fn of(wave: &Wave, tier: Arc<str>, gone: &[Span], due_ms: TimeMs) -> Self {
        Self {
            swarm: wave.swarm,
            single: wave.single().map(|bot| bot.index),
            tier,
            task_type: wave.task_type.as_deref().map(Arc::from),
            due_ms,
            size: wave.size,
            completed: 0,
            failed: 0,
            leased: 0,
            orphans: gone.iter().map(|span| span.len()).sum(),
            inherited: 0,
            first_waiting: wave.members.first().map_or(0, |span| span.first),
            ended_at_ms: 0,
        }
    }

    /// Whose waves go together: a swarm, as index 0, or a bot of none.
    pub(super) fn owner(&self) -> BotPlace {
        let index = self.single.filter(|_| self.swarm == 0).unwrap_or(0);
        BotPlace { swarm: self.swarm, index }
    }

    pub(super) fn open(&self) -> u32 {
        self.size - self.completed - self.failed
    }

    pub(super) fn waiting(&self) -> u32 {
        self.open() - self.leased
    }

    fn stand(&self) -> Stand {
        let (waiting, leased) = (u64::from(self.waiting()), u64::from(self.leased));
        Stand {
            figures: Figures { waiting, leased, ..Figures::default() },
            orphaned: self.orphans > 0,
            untouched: self.waiting() == self.size,
            ended: (self.open() == 0).then_some(self.ended_at_ms),
        }
    }
}

/// Where a wave stands in the sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stand {
    figures: Figures,
    orphaned: bool,
    /// Nothing is leased or has ended.
    untouched: bool,
    ended: Option<TimeMs>,
}

/// What is held of waves: of a swarm, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Holding {
    /// Waves that have not ended.
    pub(super) open_waves: u64,
    /// Their assignments, those of them that have ended included.
    pub(super) standing: u64,
    /// Assignments of waves that have ended.
    pub(super) retained: u64,
}

impl Holding {
    fn of(tally: &Tally, stand: Option<Stand>) -> Self {
        let size = u64::from(tally.size);
        match stand.map(|stand| stand.ended) {
            None => Self::default(),
            Some(None) => Self { open_waves: 1, standing: size, retained: 0 },
            Some(Some(_)) => Self { retained: size, ..Self::default() },
        }
    }

    fn shift(&mut self, from: Self, to: Self) {
        self.open_waves = self.open_waves + to.open_waves - from.open_waves;
        self.standing = self.standing + to.standing - from.standing;
        self.retained = self.retained + to.retained - from.retained;
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct BotIndex {
    /// Those of removed bots included, until their rows are cleared away.
    pub(super) tallies: BTreeMap<u64, Tally>,
    /// Waves of a swarm with something that waits.
    pub(super) ready: BTreeMap<u32, BTreeSet<Due>>,
    /// The same by what they are.
    pub(super) ready_of: BTreeMap<u32, BTreeMap<WorkType, BTreeSet<Due>>>,
    /// Those of them that are over the whole swarm.
    pub(super) whole_ready: BTreeMap<u32, BTreeSet<Due>>,
    /// Waves of one bot that wait.
    pub(super) single_ready: BTreeMap<BotPlace, BTreeSet<Due>>,
    /// Waves of a swarm with open assignments whose bot is gone.
    pub(super) orphaned: BTreeMap<u32, BTreeSet<Due>>,
    /// Retained waves over a whole swarm.
    pub(super) whole_of: BTreeMap<u32, BTreeSet<u64>>,
    /// Those of them that have not ended.
    pub(super) whole_open: BTreeMap<u32, BTreeSet<u64>>,
    /// Retained waves of one bot.
    pub(super) singles_of: BTreeMap<BotPlace, BTreeSet<u64>>,
    /// Those of them that have not ended.
    pub(super) singles_open: BTreeMap<BotPlace, BTreeSet<u64>>,
    /// Which of the waves over its whole swarm a member has ended.
    pub(super) ended_runs: EndedRuns,
    /// Retained assignments that a bot ended in place of another.
    pub(super) inherited: BTreeMap<BotPlace, BTreeSet<AssignmentPlace>>,
    /// Assignments that are leased as a bot's in place of another.
    pub(super) leased_as: BTreeMap<BotPlace, BTreeSet<AssignmentPlace>>,
    /// The same by the bot they were made for, while it is there.
    pub(super) lent: BTreeMap<BotPlace, BTreeSet<AssignmentPlace>>,
    /// By the age of the state at which they end.
    pub(super) leases: BTreeSet<(TimeMs, AssignmentPlace)>,
    pub(super) ended: BTreeSet<Due>,
    /// What is held by swarm, 0 for bots of none, and in all.
    pub(super) held_of: BTreeMap<u32, Holding>,
    pub(super) held: Holding,
    /// Waves that are forgotten and whose blocks are being deleted.
    pub(super) folding: BTreeSet<u64>,
    /// Removed swarms (as index 0) and bots of none whose waves are being cleared away. Nobody looks
    /// at what is kept of those waves, and it counts for nothing.
    pub(super) going: BTreeSet<BotPlace>,
    /// Work that nobody will ever do, as far as is known.
    pub(super) books: Books,
    pub(super) swarms: BTreeMap<u32, Figures>,
    pub(super) tiers: BTreeMap<Arc<str>, Figures>,
    pub(super) all: Figures,
    /// Workflows by the request that made them.
    pub(super) requested: BTreeMap<RequestId, u64>,
    /// Workflows that have not ended.
    pub(super) running: BTreeSet<u64>,
    /// Those that have, by when they did.
    pub(super) over: BTreeSet<Due>,
    /// Bytes of the parameters and results of those that run, and of those that have ended.
    pub(super) running_bytes: u64,
    pub(super) over_bytes: u64,
    /// Blocks that this command has changed and not recorded yet.
    pub(super) unwritten_waves: BTreeSet<(u64, u32)>,
    pub(super) unwritten_bots: BTreeSet<(u32, u32)>,
}

pub(super) fn put_in<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: K, value: V) {
    sets.entry(key).or_default().insert(value);
}

pub(super) fn take_out<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

impl BotIndex {
    /// The one text of a tier's name that all share.
    pub(super) fn tier(&self, name: &str) -> Arc<str> {
        self.tiers.get_key_value(name).map_or_else(|| Arc::from(name), |(tier, _)| Arc::clone(tier))
    }

    /// Counts a change in a swarm (0 for bots of none) and in its tier.
    pub(super) fn shift(&mut self, swarm: u32, tier: &str, from: &Figures, to: &Figures) {
        let tier = self.tier(tier);
        let of_swarm = self.swarms.entry(swarm).or_default();
        of_swarm.shift(from, to);
        if *of_swarm == Figures::default() {
            self.swarms.remove(&swarm);
        }
        let of_tier = self.tiers.entry(Arc::clone(&tier)).or_default();
        of_tier.shift(from, to);
        if *of_tier == Figures::default() {
            self.tiers.remove(&tier);
        }
        self.all.shift(from, to);
    }

    /// A wave that is new, or was just read.
    pub(super) fn put(&mut self, wave: u64, mut tally: Tally) {
        let of_swarm = self.ready_of.get(&tally.swarm);
        if let Some((known, _)) = of_swarm.and_then(|sets| sets.get_key_value(&tally.task_type)) {
            // One text for all that wait.
            tally.task_type.clone_from(known);
        }
        match tally.single {
            Some(index) => {
                put_in(&mut self.singles_of, BotPlace { swarm: tally.swarm, index }, wave);
            }
            None => put_in(&mut self.whole_of, tally.swarm, wave),
        }
        self.move_wave(wave, &tally, None, Some(tally.stand()));
        self.tallies.insert(wave, tally);
    }

    pub(super) fn shift_held(&mut self, swarm: u32, from: Holding, to: Holding) {
        let of_swarm = self.held_of.entry(swarm).or_default();
        of_swarm.shift(from, to);
        if *of_swarm == Holding::default() {
            self.held_of.remove(&swarm);
        }
        self.held.shift(from, to);
    }

    /// Changes how a wave stands.
    pub(super) fn edit(&mut self, wave: u64, edit: impl FnOnce(&mut Tally)) {
        let Some(mut tally) = self.tallies.remove(&wave) else { return };
        let before = tally.stand();
        edit(&mut tally);
        let after = tally.stand();
        if before != after {
            self.move_wave(wave, &tally, Some(before), Some(after));
        }
        self.tallies.insert(wave, tally);
    }

    /// Gives a wave another place among those that wait.
    pub(super) fn put_due(&mut self, wave: u64, due_ms: TimeMs) {
        let Some(tally) = self.tallies.get_mut(&wave) else { return };
        let before = std::mem::replace(&mut tally.due_ms, due_ms);
        if tally.open() == 0 || before == due_ms {
            return;
        }
        let (tally, swarm) = (tally.clone(), tally.swarm);
        if tally.waiting() > 0 {
            self.move_ready(&tally, (before, wave), false);
            self.move_ready(&tally, (due_ms, wave), true);
        }
        if tally.orphans > 0 {
            take_out(&mut self.orphaned, &swarm, &(before, wave));
            put_in(&mut self.orphaned, swarm, (due_ms, wave));
        }
    }

    /// Assignments that have not ended.
    pub(super) fn open(&self) -> u64 {
        self.all.waiting + self.all.leased
    }

    /// Notes as whom an assignment was leased or ended, when that is another bot than it was made for.
    pub(super) fn note_heir(
        &mut self,
        place: AssignmentPlace,
        swarm: (u32, Option<&Swarm>),
        before: &Progress,
        after: &Progress,
    ) {
        for (row, is_new) in [(before, false), (after, true)] {
            let Some(index) = row.bot else { continue };
            let bot = BotPlace { swarm: swarm.0, index };
            let ended = row.state.is_ended();
            let has = |index| swarm.1.is_some_and(|row| row.has(index));
            let lender = BotPlace { swarm: swarm.0, index: place.index };
            match is_new {
                false => take_out(&mut self.lent, &lender, &place),
                true if !ended && has(place.index) => put_in(&mut self.lent, lender, place),
                true => {}
            }
            let sets = if ended { &mut self.inherited } else { &mut self.leased_as };
            match is_new {
                false => take_out(sets, &bot, &place),
                true if has(index) => put_in(sets, bot, place),
                true => {}
            }
        }
    }

    /// Takes out the leases of a block, and what is noted of those who end or hold in place of others.
    pub(super) fn take_block(&mut self, swarm: u32, (wave, block): (u64, u32), row: &WaveBlock) {
        for progress in &row.rows {
            let place =
                AssignmentPlace { wave, index: block * BOT_BLOCK + u32::from(progress.slot) };
            if let Some(lease) = &progress.lease {
                self.leases.remove(&(lease.ends_aged_ms, place));
            }
            if let Some(index) = progress.bot {
                let bot = BotPlace { swarm, index };
                take_out(&mut self.inherited, &bot, &place);
                take_out(&mut self.leased_as, &bot, &place);
                let lender = BotPlace { swarm, index: place.index };
                take_out(&mut self.lent, &lender, &place);
            }
        }
    }

    /// Takes a wave out. Its leases and what others ended of it are the caller's.
    pub(super) fn take(&mut self, wave: u64) {
        let Some(tally) = self.tallies.remove(&wave) else { return };
        match tally.single {
            Some(index) => {
                let bot = BotPlace { swarm: tally.swarm, index };
                take_out(&mut self.singles_of, &bot, &wave);
            }
            None => take_out(&mut self.whole_of, &tally.swarm, &wave),
        }
        self.move_wave(wave, &tally, Some(tally.stand()), None);
    }

    fn move_wave(&mut self, wave: u64, tally: &Tally, from: Option<Stand>, to: Option<Stand>) {
        let (due, swarm) = ((tally.due_ms, wave), tally.swarm);
        let figures = |stand: Option<Stand>| stand.map(|stand| stand.figures).unwrap_or_default();
        let (before, after) = (figures(from), figures(to));
        if !self.is_going(tally) {
            self.shift(swarm, &tally.tier, &before, &after);
            let held = |stand| Holding::of(tally, stand);
            self.shift_held(swarm, held(from), held(to));
        }
        if (before.waiting > 0) != (after.waiting > 0) {
            self.move_ready(tally, due, after.waiting > 0);
        }
        let is_open = |stand: Option<Stand>| stand.is_some_and(|stand| stand.ended.is_none());
        let bot = tally.single.map(|index| BotPlace { swarm, index });
        match (is_open(from), is_open(to), bot) {
            (false, true, Some(bot)) => put_in(&mut self.singles_open, bot, wave),
            (true, false, Some(bot)) => take_out(&mut self.singles_open, &bot, &wave),
            (false, true, None) => put_in(&mut self.whole_open, swarm, wave),
            (true, false, None) => take_out(&mut self.whole_open, &swarm, &wave),
            (true, true, _) | (false, false, _) => {}
        }
        let orphaned = |stand: Option<Stand>| stand.is_some_and(|stand| stand.orphaned);
        match (orphaned(from), orphaned(to)) {
            (false, true) => put_in(&mut self.orphaned, swarm, due),
            (true, false) => take_out(&mut self.orphaned, &swarm, &due),
            (true, true) | (false, false) => {}
        }
        let untouched = |stand: Option<Stand>| stand.is_some_and(|stand| stand.untouched);
        match (untouched(from), untouched(to)) {
            (false, true) if !self.is_going(tally) => {
                self.books.put(tally.owner(), wave, tally.size);
            }
            (true, false) => self.books.take(swarm, wave),
            _ => {}
        }
        if let Some(at) = from.and_then(|stand| stand.ended) {
            self.ended.remove(&(at, wave));
        }
        if let Some(at) = to.and_then(|stand| stand.ended) {
            self.ended.insert((at, wave));
        }
    }

    fn move_ready(&mut self, tally: &Tally, due: Due, waits: bool) {
        let swarm = tally.swarm;
        let bot = tally.single.map(|index| BotPlace { swarm, index });
        match (waits, bot) {
            (true, Some(bot)) => put_in(&mut self.single_ready, bot, due),
            (true, None) => put_in(&mut self.whole_ready, swarm, due),
            (false, Some(bot)) => take_out(&mut self.single_ready, &bot, &due),
            (false, None) => take_out(&mut self.whole_ready, &swarm, &due),
        }
        if swarm == 0 {
            return;
        }
        let of_swarm = self.ready_of.entry(swarm).or_default();
        if waits {
            put_in(of_swarm, tally.task_type.clone(), due);
            put_in(&mut self.ready, swarm, due);
        } else {
            take_out(of_swarm, &tally.task_type, &due);
            take_out(&mut self.ready, &swarm, &due);
        }
        if self.ready_of.get(&swarm).is_some_and(BTreeMap::is_empty) {
            self.ready_of.remove(&swarm);
        }
    }
}
