//! What must hold of bots, waves and leases, after every entry. Asked by scripts and property tests,
//! and open to the simulation.

use std::collections::{BTreeMap, BTreeSet};

use super::State;
use super::bot_index::{BotIndex, Figures, Tally};
use super::bot_workflows::bytes_of;
use crate::model::{AssignmentPlace, AssignmentState, BOT_BLOCK, BotPlace};

/// The first invariant that does not hold, in words.
///
/// # Errors
/// What is wrong.
pub fn check_bots(state: &State) -> Result<(), String> {
    check_swarms(state)?;
    let fresh = recomputed(state)?;
    let is = &state.bot_index;
    equal("figures of swarms", &is.swarms, &fresh.swarms)?;
    equal("figures of tiers", &is.tiers, &fresh.tiers)?;
    equal("figures of all", &is.all, &fresh.all)?;
    equal("what is held", &is.held, &fresh.held)?;
    equal("what is held of swarms", &is.held_of, &fresh.held_of)?;
    let live = |wave: u64| state.live_wave(wave).is_some();
    let hintless = |tallies: &BTreeMap<u64, Tally>| {
        let blank = |tally: &Tally| Tally { first_waiting: 0, ..tally.clone() };
        let tallies = tallies.iter().filter(|(wave, _)| live(**wave));
        tallies.map(|(wave, tally)| (*wave, blank(tally))).collect::<BTreeMap<_, _>>()
    };
    equal("how waves stand", &hintless(&is.tallies), &hintless(&fresh.tallies))?;
    let there = |swarm: u32| state.swarm(swarm).is_some();
    equal_where("waves that wait", there, &is.ready, &fresh.ready)?;
    equal_where("waves that wait by type", there, &is.ready_of, &fresh.ready_of)?;
    equal_where("whole waves that wait", there, &is.whole_ready, &fresh.whole_ready)?;
    equal_where("waves with orphans", there, &is.orphaned, &fresh.orphaned)?;
    equal_where("waves of swarms", there, &is.whole_of, &fresh.whole_of)?;
    equal_where("open waves of swarms", there, &is.whole_open, &fresh.whole_open)?;
    let there = |bot: BotPlace| match bot.swarm {
        0 => state.has_bot(bot),
        swarm => state.swarm(swarm).is_some(),
    };
    equal_where("single waves that wait", there, &is.single_ready, &fresh.single_ready)?;
    equal_where("waves of bots", there, &is.singles_of, &fresh.singles_of)?;
    equal_where("open waves of bots", there, &is.singles_open, &fresh.singles_open)?;
    equal_where("what was inherited", there, &is.inherited, &fresh.inherited)?;
    equal_where("what is leased as another's", there, &is.leased_as, &fresh.leased_as)?;
    equal_where("what is lent to another", there, &is.lent, &fresh.lent)?;
    equal("what is only kept in books", &is.books, &fresh.books)?;
    state.check_runs()?;
    let leases = is.leases.iter().filter(|(_, place)| live(place.wave)).copied();
    equal("leases by their end", &leases.collect(), &fresh.leases)?;
    let ended = is.ended.iter().filter(|(_, wave)| live(*wave)).copied();
    equal("ended waves", &ended.collect(), &fresh.ended)?;
    equal("waves to be cleared away", &is.folding, &fresh.folding)?;
    equal("running workflows", &is.running, &fresh.running)?;
    equal("workflows by their requests", &is.requested, &fresh.requested)?;
    equal("ended workflows", &is.over, &fresh.over)?;
    equal("bytes of running workflows", &is.running_bytes, &fresh.running_bytes)?;
    equal("bytes of ended workflows", &is.over_bytes, &fresh.over_bytes)?;
    holds(is.unwritten_waves.is_empty() && is.unwritten_bots.is_empty(), "all is recorded", is)?;
    check_hints(state)
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, must: &T) -> Result<(), String> {
    if is == must { Ok(()) } else { Err(format!("{what}: {is:?}, and must be {must:?}")) }
}

/// Of two maps, what has keys that are there: what else is kept until it is cleared away is not looked at.
fn equal_where<K: Ord + Copy + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    what: &str,
    there: impl Fn(K) -> bool,
    is: &BTreeMap<K, V>,
    must: &BTreeMap<K, V>,
) -> Result<(), String> {
    let is: BTreeMap<K, &V> =
        is.iter().filter(|(key, _)| there(**key)).map(|(key, value)| (*key, value)).collect();
    equal(what, &is, &must.iter().map(|(key, value)| (*key, value)).collect())
}

fn holds(holds: bool, what: &str, of: impl std::fmt::Debug) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{what}: {of:?}")) }
}

fn check_swarms(state: &State) -> Result<(), String> {
    let mut bots = state.bots.len() as u64;
    for (number, row) in state.swarms_after(0) {
        let (mut end, mut before) = (0, 0);
        for stretch in &row.members {
            let span = stretch.span;
            equal("members know how many are in front", &stretch.rank, &before)?;
            before += span.len();
            holds(end <= span.first && span.first < span.end, "members are in order", row)?;
            holds(stretch.waves_before <= row.waves, "they came before its last wave", row)?;
            end = span.end;
        }
        holds(end <= row.next_index, "the next index is behind all members", row)?;
        let count: u32 = row.members.iter().map(|stretch| stretch.span.len()).sum();
        equal("members are counted", &row.count, &count)?;
        holds(number <= state.bot_totals().swarms, "swarms are numbered", number)?;
        bots += u64::from(count);
    }
    equal("bots are counted", &state.bots_len(), &bots)?;
    let totals = state.bot_totals();
    holds(totals.created >= bots, "every bot was made once", totals)?;
    let ended = totals.completed + totals.failed;
    holds(totals.assigned >= ended, "what ended was assigned", totals)
}

/// What should have been derived from the rows.
fn recomputed(state: &State) -> Result<BotIndex, String> {
    let mut fresh = BotIndex::default();
    for (number, row) in state.swarms_after(0) {
        let figures = Figures { bots: u64::from(row.count), ..Figures::default() };
        fresh.shift(number, &row.tier, &Figures::default(), &figures);
        if row.contact_ms > 0 {
            fresh.attach(BotPlace { swarm: number, index: 0 });
        }
    }
    for (index, row) in state.bots.iter() {
        if row.record.contact_ms > 0 {
            fresh.attach(BotPlace { swarm: 0, index: *index });
        }
        let (completed, failed) = (row.record.completed, row.record.failed);
        let figures = Figures { bots: 1, completed, failed, ..Figures::default() };
        fresh.shift(0, &row.tier, &Figures::default(), &figures);
    }
    for ((swarm, block), row) in state.bot_blocks.iter() {
        let owner = state.swarm(*swarm).ok_or_else(|| format!("records of no swarm: {swarm}"))?;
        for (slot, record) in &row.records {
            let index = block * BOT_BLOCK + u32::from(*slot);
            holds(owner.has(index), "only members have records", (swarm, index))?;
            let (completed, failed) = (record.completed, record.failed);
            let figures = Figures { completed, failed, ..Figures::default() };
            fresh.shift(*swarm, &owner.tier, &Figures::default(), &figures);
        }
    }
    for (number, _) in state.waves.iter() {
        match tally(state, *number, &mut fresh)? {
            Some(tally) => fresh.put(*number, tally),
            None => {
                let tally = state.bot_index.tallies.get(number);
                let is_going = tally.is_some_and(|tally| state.bot_index.is_going(tally));
                holds(is_going, "waves of removed bots are cleared away", number)?;
            }
        }
    }
    for ((wave, _), _) in state.wave_blocks.iter() {
        if state.waves.get(wave).is_none() {
            fresh.folding.insert(*wave);
        }
    }
    for (number, row) in state.workflows_after(0) {
        holds(row.position as usize <= row.tasks.len(), "no task is beyond the last", row)?;
        let bytes = bytes_of(row);
        fresh.requested.insert(row.request_id, number);
        match row.ended_at_ms {
            0 => {
                fresh.running.insert(number);
                fresh.running_bytes += bytes;
            }
            at => {
                fresh.over.insert((at, number));
                fresh.over_bytes += bytes;
            }
        }
    }
    Ok(fresh)
}

fn tally(state: &State, number: u64, fresh: &mut BotIndex) -> Result<Option<Tally>, String> {
    let Some(wave) = state.waves.get(&number) else { return Ok(None) };
    let size: u32 = wave.members.iter().map(|span| span.len()).sum();
    holds(size == wave.size && size > 0, "assignments of a wave are counted", wave)?;
    let first = BotPlace { swarm: wave.swarm, index: wave.members[0].first };
    let swarm = state.swarm(wave.swarm);
    if swarm.is_none() && !state.has_bot(first) {
        return Ok(None);
    }
    let gone = swarm.map_or(Vec::new(), |row| row.gone_of(&wave.members));
    let due_ms = state.wave_due_ms(wave, state.tier_of(first));
    let mut tally = Tally::of(wave, fresh.tier(state.tier_of(first)), &gone, due_ms);
    for ((_, block), row) in state.wave_blocks.range((number, 0), (number, u32::MAX)) {
        let slots: BTreeSet<u8> = row.rows.iter().map(|row| row.slot).collect();
        holds(slots.len() == row.rows.len(), "a slot has one row", row)?;
        for progress in &row.rows {
            let index = block * BOT_BLOCK + u32::from(progress.slot);
            let place = AssignmentPlace { wave: number, index };
            holds(wave.has(index) && !progress.is_blank(), "a row is of its wave", progress)?;
            let leased = progress.state == AssignmentState::Leased;
            equal("leased means that there is a lease", &leased, &progress.lease.is_some())?;
            let ended = progress.state.is_ended();
            equal("ended means that there is a time", &ended, &(progress.ended_at_ms > 0))?;
            if let Some(lease) = &progress.lease {
                fresh.leases.insert((lease.ends_aged_ms, place));
            }
            if let Some(bot) = progress.bot {
                tally.inherited += 1;
                let bot = BotPlace { swarm: wave.swarm, index: bot };
                let sets = if ended { &mut fresh.inherited } else { &mut fresh.leased_as };
                if state.has_bot(bot) {
                    super::bot_index::put_in(sets, bot, place);
                }
                let lender = BotPlace { swarm: wave.swarm, index };
                if !ended && state.has_bot(lender) {
                    super::bot_index::put_in(&mut fresh.lent, lender, place);
                }
            }
            let gone = swarm.is_some_and(|row| !row.has(index));
            tally.orphans -= u32::from(ended && gone);
            tally.completed += u32::from(progress.state == AssignmentState::Completed);
            tally.failed += u32::from(progress.state == AssignmentState::Failed);
            tally.leased += u32::from(leased);
            tally.ended_at_ms = tally.ended_at_ms.max(progress.ended_at_ms);
        }
    }
    Ok(Some(tally))
}

/// Nothing waits in front of where a wave is looked at first, and bots add up.
fn check_hints(state: &State) -> Result<(), String> {
    for (number, tally) in &state.bot_index.tallies {
        if state.live_wave(*number).is_none() {
            continue;
        }
        let waits = |index: &u32| {
            let place = AssignmentPlace { wave: *number, index: *index };
            state.progress(place).is_none_or(|row| row.state == AssignmentState::Waiting)
        };
        let wave = &state.waves.get(number).map_or(&[][..], |wave| &wave.members);
        let before = wave.iter().flat_map(|span| span.first..span.end.min(tally.first_waiting));
        holds(!before.into_iter().any(|at| waits(&at)), "a hint is too far", (number, tally))?;
    }
    for place in state.bots_after(None).take(40) {
        let view = state.bot_view(place).ok_or("a bot that is listed is there")?;
        let open = state.assignment_page(place, |state| !state.is_ended(), (None, true), 1000);
        if open.next.is_none() {
            equal("what a bot has to do", &view.pending, &(open.rows.len() as u64))?;
        }
    }
    Ok(())
}
