//! Leases: who works on which assignments, so that no two do on the same.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;

use super::apply::Txn;
use super::bot_command::{
    BotFact, BotOutcome, BotRejection, LeaseRef, LeaseScope, LeasedRun, Verdict,
};
use super::bot_index::{Due, Tally, WorkType};
use super::bots::check_text;
use super::{NAME_MAX, Outcome, Rejection, Reply, State};
use crate::canary::{self, Canary};
use crate::model::{
    AssignmentPlace, AssignmentState, BOT_BLOCK, BotLease, BotPlace, DerivedId, Progress, Span,
    TimeMs,
};

/// The most items of one batch, and assignments of one lease.
pub const BOT_ITEMS_MAX: usize = 1000;
/// The longest name of a holder, in bytes.
pub const HOLDER_MAX: usize = 64;
/// The longest lease: a day.
pub const LEASE_MAX_MS: u64 = 24 * 3_600_000;
/// Bots that one lease may be for; whoever works for more takes their swarm.
pub const BOTS_PER_LEASE_MAX: usize = 100;
/// Types that one lease may be for.
pub const LEASE_TYPES_MAX: usize = 100;
/// Assignments that are looked at for one lease: of what bots have themselves, of what they have from bots
/// that are gone, and of their share of what was there before them, each for itself. Who has more of one
/// than that finds the others all the same.
const LOOKS_MAX: usize = 50_000;
/// What passing over work of another type costs of that.
const PASSING: usize = 5;
/// What a lease may be of, `None` being work without a type; empty for anything.
pub(super) type LeaseTypes = [Option<String>];
/// How far the time of the last contact of a swarm may lag, so that its row is not written by all.
const CONTACT_STEP_MS: TimeMs = 1000;

/// A list of waves in the order of [`Due`], and whose assignments of them are wanted.
struct Source<'a> {
    waves: Box<dyn Iterator<Item = Due> + 'a>,
    wants: Wants<'a>,
}

#[derive(Clone, Copy)]
enum Wants<'a> {
    /// All that waits.
    All,
    /// What was made for this bot of a swarm.
    Own(u32),
    /// What the bots of these ranks of a swarm have from bots that are gone.
    Inherited(&'a [u32]),
    /// What these bots of a swarm have of waves from before they came.
    Taken(&'a [u32]),
}

impl Wants<'_> {
    /// What its looks are counted with.
    fn kind(self) -> usize {
        match self {
            Self::All | Self::Own(_) => 0,
            Self::Inherited(_) => 1,
            Self::Taken(_) => 2,
        }
    }
}

fn source<'a>(waves: Option<&'a BTreeSet<Due>>, wants: Wants<'a>) -> Option<Source<'a>> {
    waves.map(|waves| Source { waves: Box::new(waves.iter().copied()), wants })
}

impl State {
    /// Indexes of a wave, from one on, whose assignments wait.
    fn waiting_from(&self, number: u64, from: u32) -> impl Iterator<Item = u32> {
        let spans = self.waves.get(&number).map_or(&[][..], |wave| &wave.members);
        let rest = Span { first: from, end: u32::MAX };
        let blocks = spans.iter().flat_map(move |span| span.and(rest).blocks());
        blocks.flat_map(move |(block, part)| {
            let row = self.wave_blocks.get(&(number, block));
            // A block of which nothing waits is passed over at once.
            let is_taken = row.is_some_and(|row| {
                row.rows.len() == BOT_BLOCK as usize && !row.rows.iter().any(is_free)
            });
            let part = if is_taken { Span { first: part.end, ..part } } else { part };
            (part.first..part.end).filter(move |index| {
                let progress = row.and_then(|row| row.get((index % BOT_BLOCK) as u8));
                progress.is_none_or(is_free)
            })
        })
    }

    fn waits(&self, place: AssignmentPlace) -> bool {
        self.progress(place).is_none_or(is_free)
    }

    /// Whether what was made for a member waits, and is not the share of one that came later.
    fn own_waits(&self, place: AssignmentPlace) -> bool {
        self.waits(place) && self.taker_of(place).is_none()
    }

    /// Places of waves among those that wait. Within a swarm they are in the order of their numbers.
    fn due_of(&self, waves: impl Iterator<Item = u64>) -> impl Iterator<Item = Due> {
        let due = |wave| Some((self.bot_index.tallies.get(&wave)?.due_ms, wave));
        waves.filter_map(due)
    }

    fn is_of(&self, types: &LeaseTypes, wave: u64) -> bool {
        let of_wave = || self.waves.get(&wave).map(|row| &row.task_type);
        types.is_empty() || of_wave().is_some_and(|own| types.contains(own))
    }

    /// What is to be leased: of the wave that is due first, the lowest indexes first.
    fn pick(
        &self,
        mut sources: Vec<Source<'_>>,
        types: &LeaseTypes,
        max: usize,
    ) -> Vec<AssignmentPlace> {
        let (mut picked, mut all_looks, mut passed) = (Vec::new(), [LOOKS_MAX; 3], 0);
        let mut heads: BinaryHeap<_> = (0..sources.len())
            .filter_map(|at| sources[at].waves.next().map(|due| Reverse((due, at))))
            .collect();
        while let Some(Reverse(((_, wave), at))) = heads.pop() {
            let room = max - picked.len();
            if room == 0 {
                break;
            }
            let mut looks = all_looks[sources[at].wants.kind()];
            if looks == 0 {
                continue;
            }
            let places = |index| AssignmentPlace { wave, index };
            match sources[at].wants {
                // Many bots come past the same wave one after another.
                _ if passed == wave => looks -= 1,
                _ if !self.is_of(types, wave) => {
                    (looks, passed) = (looks.saturating_sub(PASSING), wave);
                }
                Wants::All => {
                    let from = self.bot_index.tallies.get(&wave).map_or(0, |row| row.first_waiting);
                    let from = if canary::active(Canary::LeaseTwice) { 0 } else { from };
                    picked.extend(self.waiting_from(wave, from).take(room).map(places));
                }
                // What it has ended was left out; what is leased, or another's share, is looked at.
                Wants::Own(index) => match self.own_waits(places(index)) {
                    true => picked.push(places(index)),
                    false => looks -= 1,
                },
                Wants::Inherited(bots) | Wants::Taken(bots) => {
                    let found = match sources[at].wants {
                        Wants::Inherited(_) => self.inherited_of(wave, bots, &mut looks),
                        _ => self.taken_of_all(wave, bots, &mut looks),
                    };
                    let found = found.into_iter().map(places);
                    let mut places: Vec<_> = found.filter(|place| self.waits(*place)).collect();
                    places.sort_unstable();
                    picked.extend(places.into_iter().take(room));
                }
            }
            all_looks[sources[at].wants.kind()] = looks;
            heads.extend(sources[at].waves.next().map(|due| Reverse((due, at))));
        }
        picked
    }

    /// Whether there is something to be leased: whoever waits for that asks here before it writes
    /// into the log.
    ///
    /// # Errors
    /// When nothing of what the scope names is there.
    pub fn waits_for_lease(
        &self,
        scope: &LeaseScope,
        types: &LeaseTypes,
    ) -> Result<bool, Rejection> {
        let picked = match scope {
            LeaseScope::Bots(ids) => self.pick_of_bots(ids, types, 1),
            LeaseScope::Swarms(ids) => self.pick_of_swarms(ids, types, 1),
        };
        Ok(!picked?.is_empty())
    }

    fn pick_of_swarms(
        &self,
        ids: &[DerivedId],
        types: &LeaseTypes,
        max: usize,
    ) -> Result<Vec<AssignmentPlace>, Rejection> {
        let swarms: BTreeSet<u32> = ids.iter().filter_map(|id| self.swarm_number(*id)).collect();
        if let (true, Some(swarm)) = (swarms.is_empty(), ids.first()) {
            return Err(BotRejection::SwarmNotFound { swarm: *swarm }.into());
        }
        let index = &self.bot_index;
        if types.is_empty() {
            let ready = swarms.iter().filter_map(|swarm| index.ready.get(swarm));
            let sources = ready.filter_map(|set| source(Some(set), Wants::All));
            return Ok(self.pick(sources.collect(), types, max));
        }
        // Work of other types is not even passed over.
        let types: BTreeSet<WorkType> =
            types.iter().map(|name| name.as_deref().map(Arc::from)).collect();
        let ready = swarms.iter().filter_map(|swarm| index.ready_of.get(swarm));
        // Whichever there are fewer of: a thousand swarms with a hundred types each are many look-ups.
        let ready = ready.flat_map(|sets| match sets.len() < types.len() {
            true => {
                sets.iter().filter(|(name, _)| types.contains(*name)).map(|(_, set)| set).collect()
            }
            false => types.iter().filter_map(|name| sets.get(name)).collect::<Vec<_>>(),
        });
        let sources = ready.filter_map(|set| source(Some(set), Wants::All));
        Ok(self.pick(sources.collect(), &[], max))
    }

    fn pick_of_bots(
        &self,
        ids: &[DerivedId],
        types: &LeaseTypes,
        max: usize,
    ) -> Result<Vec<AssignmentPlace>, Rejection> {
        let bots: BTreeSet<BotPlace> = ids.iter().filter_map(|id| self.bot_place(*id)).collect();
        if let (true, Some(bot)) = (bots.is_empty(), ids.first()) {
            return Err(BotRejection::BotNotFound { bot: *bot }.into());
        }
        let bots: Vec<BotPlace> = bots.into_iter().collect();
        let indexes: Vec<u32> = bots.iter().map(|bot| bot.index).collect();
        let rank = |bot: &BotPlace| self.swarms.get(&bot.swarm)?.rank_of(bot.index);
        let ranks: Vec<u32> = bots.iter().map(|bot| rank(bot).unwrap_or_default()).collect();
        let mut sources = Vec::new();
        let mut from = 0;
        for group in bots.chunk_by(|one, other| one.swarm == other.swarm) {
            let range = from..from + group.len();
            let (swarm, own, ranks) = (group[0].swarm, &indexes[range.clone()], &ranks[range]);
            from += group.len();
            sources.extend(group.iter().map(|bot| Source {
                waves: Box::new(self.due_of(self.own_waves_of(*bot))),
                wants: Wants::Own(bot.index),
            }));
            sources.extend(source(self.bot_index.orphaned.get(&swarm), Wants::Inherited(ranks)));
            sources.extend(group.last().map(|newest| Source {
                waves: Box::new(self.ready_before(*newest)),
                wants: Wants::Taken(own),
            }));
            let singles = group.iter().map(|bot| self.bot_index.single_ready.get(bot));
            sources.extend(singles.filter_map(|set| source(set, Wants::All)));
        }
        Ok(self.pick(sources, types, max))
    }
}

impl Txn<'_> {
    pub(super) fn lease_assignments(
        &mut self,
        holder: String,
        (scope, types): (&LeaseScope, &LeaseTypes),
        max: u32,
        lease_ms: u64,
    ) -> Reply {
        check_text("holder", &holder, HOLDER_MAX)?;
        check_lease(lease_ms)?;
        check_items(max as usize)?;
        if types.len() > LEASE_TYPES_MAX {
            let text = format!("a lease is for {LEASE_TYPES_MAX} types at most");
            return Err(BotRejection::Invalid(text).into());
        }
        types.iter().flatten().try_for_each(|text| check_text("types", text, NAME_MAX))?;
        let max = max as usize;
        let picked = match scope {
            LeaseScope::Bots(ids) => {
                check_scope(ids.len(), BOTS_PER_LEASE_MAX)?;
                self.state.pick_of_bots(ids, types, max)?
            }
            LeaseScope::Swarms(ids) => {
                check_items(ids.len())?;
                self.state.pick_of_swarms(ids, types, max)?
            }
        };
        // Of whole swarms the lowest indexes were picked, so that nothing waits in front of them.
        let in_order = matches!(scope, LeaseScope::Swarms(_));
        let deadline_ms = self.now.saturating_add(lease_ms);
        let ends_aged_ms = self.state.counters().aged_ms.saturating_add(lease_ms);
        let passed = self.state.bot_totals().attempts_passed;
        let mut runs: Vec<LeasedRun> = Vec::new();
        let heirs = self.state.heirs_of(&picked);
        for (place, heir) in picked.iter().zip(heirs) {
            let lease = BotLease { holder: holder.clone(), ends_aged_ms, contact_ms: self.now };
            let tried = self.state.progress(*place).map_or(0, |row| row.attempt);
            let attempt = tried.max(passed).saturating_add(1);
            self.state.edit_progress(*place, |row| {
                row.state = AssignmentState::Leased;
                row.attempt = attempt;
                (row.bot, row.told) = (heir, false);
                row.lease = Some(Box::new(lease));
            });
            if in_order {
                self.state.bot_index.edit(place.wave, |tally| {
                    tally.first_waiting = tally.first_waiting.max(place.index + 1);
                });
            }
            match runs.last_mut() {
                Some(run) if run.goes_on_with(*place, attempt) => run.count += 1,
                Some(_) | None => runs.push(LeasedRun { first: *place, count: 1, attempt }),
            }
        }
        self.note_contact(picked.iter());
        if !picked.is_empty() {
            let count = picked.len() as u32;
            self.tell_bots(BotFact::AssignmentsLeased { holder, count });
            // Each of them can have made a block.
            self.tend_waves(picked.len());
        }
        Ok(Outcome::Bot(BotOutcome::Leased { runs, deadline_ms }))
    }

    pub(super) fn renew_leases(&mut self, leases: &[LeaseRef], lease_ms: u64) -> Reply {
        check_items(leases.len())?;
        check_lease(lease_ms)?;
        let now = self.now;
        let ends_aged_ms = self.state.counters().aged_ms.saturating_add(lease_ms);
        let mut places = Vec::new();
        let verdicts = leases.iter().map(|lease| match self.state.held(*lease) {
            Ok(place) => {
                self.state.edit_progress(place, |row| {
                    if let Some(lease) = &mut row.lease {
                        (lease.ends_aged_ms, lease.contact_ms) = (ends_aged_ms, now);
                    }
                });
                places.push(place);
                Verdict::Accepted
            }
            Err(verdict) => verdict,
        });
        let verdicts = verdicts.collect();
        self.note_contact(places.iter());
        Ok(Outcome::Bot(BotOutcome::Judged { verdicts }))
    }

    pub(super) fn release_leases(&mut self, leases: &[LeaseRef]) -> Reply {
        check_items(leases.len())?;
        let now = self.now;
        let mut places = Vec::new();
        let verdicts = leases.iter().map(|lease| match self.state.held(*lease) {
            Ok(place) => {
                self.state.note_activity(place, now);
                self.state.edit_progress(place, back_to_waiting);
                places.push(place);
                Verdict::Accepted
            }
            Err(verdict) => verdict,
        });
        let verdicts = verdicts.collect();
        self.note_contact(places.iter());
        if !places.is_empty() {
            self.tell_bots(BotFact::AssignmentsReleased { count: places.len() as u32 });
        }
        Ok(Outcome::Bot(BotOutcome::Judged { verdicts }))
    }

    /// Somebody who works for the swarms of these assignments, or for bots of none, was heard of.
    pub(super) fn note_contact<'a>(&mut self, of: impl Iterator<Item = &'a AssignmentPlace>) {
        let waves: BTreeSet<u64> = of.map(|place| place.wave).collect();
        let tallies = waves.iter().filter_map(|wave| self.state.bot_index.tallies.get(wave));
        let owners: BTreeSet<BotPlace> = tallies.map(Tally::owner).collect();
        let now = self.now;
        let is_news = |contact_ms: TimeMs| now >= contact_ms.saturating_add(CONTACT_STEP_MS);
        for owner in owners {
            if owner.swarm == 0 {
                if self.state.has_bot(owner) && is_news(self.state.bot_record(owner).contact_ms) {
                    self.state.edit_record(owner, |record| record.contact_ms = now);
                }
                continue;
            }
            let row = self.state.swarms.get(&owner.swarm);
            if row.is_some_and(|row| is_news(row.contact_ms)) {
                let (swarms, rows) = (&mut self.state.swarms, &mut self.state.rows);
                swarms.edit(rows, &owner.swarm, |row| row.contact_ms = now);
                self.state.bot_index.attach(owner);
            }
        }
    }
}

/// Whether nobody holds or has ended it.
fn is_free(row: &Progress) -> bool {
    match row.state {
        AssignmentState::Waiting => true,
        AssignmentState::Leased => canary::active(Canary::LeaseTwice),
        AssignmentState::Completed | AssignmentState::Failed => false,
    }
}

pub(super) fn back_to_waiting(row: &mut Progress) {
    row.state = AssignmentState::Waiting;
    (row.lease, row.bot) = (None, None);
}

impl State {
    /// The assignment that a lease is of, if it stands.
    fn held(&self, lease: LeaseRef) -> Result<AssignmentPlace, Verdict> {
        let place = self.assignment_place(lease.task).ok_or(Verdict::NotFound)?;
        let row = self.progress(place).ok_or(Verdict::Stale)?;
        match row.state {
            _ if row.attempt != lease.attempt => Err(Verdict::Stale),
            AssignmentState::Leased => Ok(place),
            AssignmentState::Waiting => Err(Verdict::Stale),
            AssignmentState::Completed | AssignmentState::Failed => Err(Verdict::Ended),
        }
    }

    /// Notes when somebody last did something for a bot.
    pub(super) fn note_activity(&mut self, place: AssignmentPlace, at_ms: TimeMs) {
        let bot = match self.progress(place) {
            Some(row) => self.bot_of(place, row),
            None => self.assignee(place),
        };
        let bot = bot.filter(|bot| self.has_bot(*bot));
        if let Some(bot) = bot {
            self.edit_record(bot, |record| {
                record.last_active_ms = record.last_active_ms.max(at_ms);
                record.contact_ms = record.contact_ms.max(at_ms);
            });
        }
    }
}

impl LeasedRun {
    fn goes_on_with(&self, place: AssignmentPlace, attempt: u32) -> bool {
        let next = self.first.index.checked_add(self.count);
        self.first.wave == place.wave && next == Some(place.index) && self.attempt == attempt
    }
}

pub(super) fn check_items(len: usize) -> Result<(), Rejection> {
    check_scope(len, BOT_ITEMS_MAX)
}

fn check_scope(len: usize, max: usize) -> Result<(), Rejection> {
    if len == 0 || len > max {
        return Err(Rejection::BatchSize { len: len as u64, max: max as u64 });
    }
    Ok(())
}

fn check_lease(lease_ms: u64) -> Result<(), Rejection> {
    if lease_ms == 0 || lease_ms > LEASE_MAX_MS {
        let text = format!("a lease lasts 1 to {LEASE_MAX_MS} ms");
        return Err(BotRejection::Invalid(text).into());
    }
    Ok(())
}
