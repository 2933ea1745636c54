//! Bots in large numbers: what they cost, and that nothing is done by two.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::scripts::Script;
use super::{
    BotCommand, BotOutcome, BotReport, BotSpec, BotWork, Command, Envelope, LeaseRef, LeaseScope,
    LogEntry, Outcome, Reply, State, Verdict, check_bots, encode_entry,
};
use crate::model::{AssignmentPlace, AssignmentState, BotPlace, DerivedId, RequestId};

const BOTS: u32 = 50_000;

/// A state, the rows it would have at home, and what commands cost.
#[derive(Default)]
pub(super) struct World {
    pub(super) state: State,
    pub(super) index: u64,
    pub(super) now: u64,
    rows: BTreeMap<Vec<u8>, Bytes>,
    command_bytes: usize,
    row_bytes: usize,
    took: Duration,
    /// Rows that the last command changed.
    pub(super) changed: usize,
    /// Who is said to complete what is completed.
    pub(super) bot: Option<DerivedId>,
}

impl World {
    pub(super) fn new() -> Self {
        Self { now: 1, ..Self::default() }
    }

    /// What is read back from the rows is the same state.
    pub(super) fn is_what_its_rows_say(&self) {
        let reopened = self.restarted().state;
        assert_eq!(check_bots(&reopened), Ok(()));
        assert_eq!(reopened.digest(), self.state.digest());
    }

    /// A member that has read its rows back.
    pub(super) fn restarted(&self) -> Self {
        let mut state = State::default();
        for (key, value) in &self.rows {
            state.load_row(key, value).unwrap();
        }
        Self { state, index: self.index, now: self.now, rows: self.rows.clone(), ..Self::default() }
    }

    /// How long apply has taken since this was last asked.
    pub(super) fn took(&mut self) -> Duration {
        std::mem::take(&mut self.took)
    }

    /// What a move takes. Of bots those that are there.
    fn taken(&mut self, one: &Move) -> Vec<(AssignmentPlace, u32)> {
        let (from, max) = match one {
            Move::LeaseOfBots(from, max) => (*from, *max),
            Move::Lease(max) => return self.lease(&[1], *max),
            other => panic!("{other:?}"),
        };
        let bots: Vec<BotPlace> = self.state.members_of(1, from).take(5).collect();
        if bots.is_empty() { Vec::new() } else { self.lease_of_bots(&bots, max) }
    }

    /// Changes a value of the configuration.
    pub(super) fn configure(&mut self, key: &str, value: u64) {
        let mut script = Script::default();
        script.run(&format!("at {}", self.now), &mut String::new());
        script.run(&format!("config {key} {value} request={key}"), &mut String::new());
        self.apply(&script.log[0]).unwrap();
    }

    pub(super) fn say(&mut self, command: BotCommand) -> Reply {
        let request_id = RequestId(u128::from(self.index + 1));
        let command = Command::Bot(Box::new(command));
        let envelope = Envelope { request_id, principal: String::new(), command };
        let entry = encode_entry(&LogEntry { at_ms: self.now, envelopes: vec![envelope] });
        self.apply(&entry)
    }

    fn apply(&mut self, entry: &[u8]) -> Reply {
        self.index += 1;
        self.command_bytes += entry.len();
        #[expect(clippy::disallowed_methods, reason = "only printed")]
        let start = std::time::Instant::now();
        let applied = self.state.apply(self.index, entry).unwrap();
        self.took += start.elapsed();
        let changes = self.state.take_changes();
        self.row_bytes += changes.bytes();
        self.changed = changes.rows.len();
        for (key, value) in changes.rows {
            match value {
                Some(value) => drop(self.rows.insert(key, value)),
                None => drop(self.rows.remove(&key)),
            }
        }
        assert!(applied.events.len() <= 1, "one event per command");
        applied.replies.into_iter().next().unwrap()
    }

    pub(super) fn swarm(&mut self, count: u32, tier: &str) {
        let spec = BotSpec { tier: tier.to_owned(), ..BotSpec::default() };
        let reply = self.say(BotCommand::CreateSwarm { spec, count });
        assert!(matches!(reply, Ok(Outcome::Bot(BotOutcome::SwarmCreated { .. }))), "{reply:?}");
    }

    pub(super) fn assign(&mut self, swarm: u32) {
        let swarm = self.state.swarm_id(swarm);
        let work = BotWork { task_type: Some("scan".to_owned()), data: "{\"x\":1}".to_owned() };
        let reply = self.say(BotCommand::AssignSwarm { swarm, work });
        assert!(matches!(reply, Ok(Outcome::Bot(BotOutcome::Assigned { .. }))), "{reply:?}");
    }

    pub(super) fn lease(&mut self, swarms: &[u32], max: u32) -> Vec<(AssignmentPlace, u32)> {
        let scope = swarms.iter().map(|swarm| self.state.swarm_id(*swarm)).collect();
        self.lease_of(LeaseScope::Swarms(scope), max)
    }

    pub(super) fn lease_of_bots(
        &mut self,
        bots: &[BotPlace],
        max: u32,
    ) -> Vec<(AssignmentPlace, u32)> {
        let scope = bots.iter().map(|bot| self.state.bot_id(*bot)).collect();
        self.lease_of(LeaseScope::Bots(scope), max)
    }

    fn lease_of(&mut self, scope: LeaseScope, max: u32) -> Vec<(AssignmentPlace, u32)> {
        let holder = "worker-1".to_owned();
        let lease_ms = 10_000;
        match self.say(BotCommand::LeaseAssignments { holder, scope, max, lease_ms, types: vec![] })
        {
            Ok(Outcome::Bot(BotOutcome::Leased { runs, .. })) => runs
                .into_iter()
                .flat_map(|run| {
                    let places = run.first.index..run.first.index + run.count;
                    let wave = run.first.wave;
                    places.map(move |index| (AssignmentPlace { wave, index }, run.attempt))
                })
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn complete(
        &mut self,
        leased: &[(AssignmentPlace, u32)],
        text: &str,
    ) -> Vec<Verdict> {
        let item = |(place, attempt): &(AssignmentPlace, u32)| BotReport {
            task: self.state.assignment_id(*place),
            bot: self.bot,
            attempt: Some(*attempt),
            text: text.to_owned(),
            permanent: false,
        };
        let items = leased.iter().map(item).collect();
        judged(self.say(BotCommand::CompleteAssignments { items }))
    }

    /// Removes the first member of the swarm from an index on, if there is one.
    pub(super) fn remove_from(&mut self, from: u32) {
        let Some(place) = self.state.members_of(1, from).next() else { return };
        let bot = self.state.bot_id(place);
        self.say(BotCommand::RemoveBot { bot }).unwrap();
    }

    fn print(&mut self, what: &str) {
        println!(
            "{what}: {} bytes of commands, {} bytes of rows, {:?}",
            self.command_bytes, self.row_bytes, self.took
        );
        (self.command_bytes, self.row_bytes, self.took) = (0, 0, Duration::ZERO);
    }
}

pub(super) fn judged(reply: Reply) -> Vec<Verdict> {
    match reply {
        Ok(Outcome::Bot(BotOutcome::Judged { verdicts })) => verdicts,
        other => panic!("{other:?}"),
    }
}

/// What the derived tables and the rows of bots take in memory, roughly: the sizes of what they
/// hold, half of it once more for maps that are half empty, and what lies on the heap.
fn memory(state: &State) -> usize {
    let progress = state.wave_blocks.iter().map(|(_, row)| row.rows.capacity());
    let progress: usize = progress.sum::<usize>() * size_of::<crate::model::Progress>();
    let records = state.bot_blocks.iter().map(|(_, row)| row.records.capacity());
    let records: usize = records.sum::<usize>() * size_of::<(u8, crate::model::BotRecord)>();
    let blocks = (state.wave_blocks.len() + state.bot_blocks.len()) * 96;
    let leases = state.bot_index.leases.len() * (32 + 24 + 64);
    progress + records + (blocks + leases) * 3 / 2
}

#[test]
fn a_swarm_of_50_000_and_work_for_all_of_it_are_a_few_hundred_bytes() {
    let mut world = World::new();
    world.swarm(BOTS, "standard");
    world.assign(1);
    assert!(world.command_bytes < 10_000 && world.row_bytes < 100_000);
    assert!(world.command_bytes < 300 && world.row_bytes < 1_000, "and in fact far less");
    world.print("created and assigned");
    let stats = world.state.bot_stats();
    assert_eq!((stats.all.bots, stats.remaining, stats.all.waiting), (50_000, 0, 50_000));
    let ids: BTreeSet<_> =
        world.state.members_of(1, 0).map(|bot| world.state.bot_id(bot)).collect();
    assert_eq!(ids.len(), BOTS as usize);
    let over = BotCommand::CreateBot(BotSpec::default());
    assert_eq!(world.say(over).unwrap_err().to_string(), "Maximum bot capacity (50000) reached");
}

#[test]
fn each_of_50_000_assignments_is_done_once_and_the_records_stay_small() {
    let mut world = World::new();
    world.swarm(BOTS, "standard");
    world.assign(1);
    world.print("created and assigned");
    let mut seen = BTreeSet::new();
    loop {
        world.now += 1;
        let leased = world.lease(&[1], 500);
        if leased.is_empty() {
            break;
        }
        for (place, attempt) in &leased {
            assert!(seen.insert(*place) && *attempt == 1, "{place:?} was leased twice");
        }
        let verdicts = world.complete(&leased, "{\"ok\":true}");
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Accepted));
        let again = world.complete(&leased[..3], "");
        assert_eq!(again, [Verdict::Repeated; 3]);
    }
    world.print("leased and completed");
    assert_eq!(seen.len(), BOTS as usize);
    assert_eq!(check_bots(&world.state), Ok(()));
    let (stats, memory) = (world.state.bot_stats(), memory(&world.state));
    assert_eq!((stats.executed, stats.all.completed, stats.all.waiting), (50_000, 50_000, 0));
    let stored: usize = world.rows.iter().map(|(key, value)| key.len() + value.len()).sum();
    println!("50,000 done: about {memory} bytes of memory, {stored} bytes of rows");
    assert!(memory < 20_000_000 && stored < 5_000_000);
    // Scaled down to one, everything that is done stays done.
    let command = BotCommand::ScaleSwarm { swarm: world.state.swarm_id(1), count: 1 };
    world.say(command).unwrap();
    world.print("scaled down to one");
    assert_eq!(check_bots(&world.state), Ok(()));
    assert_eq!(world.state.swarm_figures(1).completed, 1);
    assert_eq!(world.state.bot_stats().executed, 50_000);
    // Removed, its rows go in turns.
    let command = BotCommand::RemoveSwarm { swarm: world.state.swarm_id(1) };
    world.say(command).unwrap();
    world.print("removed");
    for _ in 0..60 {
        world.say(BotCommand::CreateBot(BotSpec::default())).unwrap();
    }
    assert_eq!(world.state.waves.len() + world.state.wave_blocks.len(), 0);
    assert_eq!(check_bots(&world.state), Ok(()));
}

#[test]
fn what_many_single_ends_leave_is_cleared_away_as_fast_as_it_comes() {
    let mut world = World::new();
    world.configure("bots.max_retained_assignments", 100);
    world.swarm(3, "standard");
    for _ in 0..5 {
        let bot = world.state.bot_id(BotPlace { swarm: 1, index: 2 });
        for _ in 0..1000 {
            let work = BotWork::default();
            world.say(BotCommand::AssignBot { bot, work }).unwrap();
        }
        let leased = world.lease(&[1], 1000);
        assert_eq!(leased.len(), 1000);
        world.complete(&leased, &"x".repeat(100));
        assert_eq!((world.state.waves.len(), world.state.wave_blocks.len()), (100, 100));
    }
    assert_eq!(world.state.bot_view(BotPlace { swarm: 1, index: 2 }).unwrap().completed, 5000);
}

#[test]
fn a_lease_for_all_takes_the_more_urgent_tier_first() {
    let mut world = World::new();
    for tier in ["standard", "L20", "advanced"] {
        world.swarm(2, tier);
    }
    (1..=3).for_each(|swarm| world.assign(swarm));
    let leased = world.lease(&[1, 2, 3], 6);
    let waves: Vec<u64> = leased.iter().map(|(place, _)| place.wave).collect();
    assert_eq!(waves, [2, 2, 3, 3, 1, 1]);
}

/// Whoever did one type only found nothing behind 10,000 of another.
#[test]
fn work_of_other_types_is_in_nobodys_way_however_much_there_is() {
    let mut world = World::new();
    world.swarm(2, "standard");
    let bot = world.state.bot_id(BotPlace { swarm: 1, index: 0 });
    let assign = |world: &mut World, name: Option<&str>| {
        let work = BotWork { task_type: name.map(str::to_owned), ..BotWork::default() };
        world.say(BotCommand::AssignBot { bot, work }).unwrap();
    };
    for _ in 0..10_100 {
        assign(&mut world, Some("rare"));
    }
    assign(&mut world, None);
    assign(&mut world, Some("scan"));
    let scope = LeaseScope::Swarms(vec![world.state.swarm_id(1)]);
    let types = vec![Some("scan".to_owned()), None, Some("scan".to_owned())];
    assert_eq!(world.state.waits_for_lease(&scope, &types), Ok(true));
    let (holder, max, lease_ms) = (String::new(), 9, 1000);
    let reply = world.say(BotCommand::LeaseAssignments { holder, scope, max, lease_ms, types });
    let Ok(Outcome::Bot(BotOutcome::Leased { runs, .. })) = reply else { panic!("{reply:?}") };
    assert!(runs.iter().map(|run| run.first.wave).eq([10_101, 10_102]));
    assert_eq!(check_bots(&world.state), Ok(()));
}

/// A hundred bots that had done all of 510 waves found nothing of the next one: their look ended before.
#[test]
fn bots_among_others_that_do_nothing_come_to_all_of_their_work() {
    const WAVES: usize = 510;
    let mut world = World::new();
    world.swarm(150, "standard");
    let bots: Vec<BotPlace> = world.state.members_of(1, 0).take(100).collect();
    for _ in 0..WAVES {
        world.assign(1);
    }
    let mut done = 0;
    loop {
        let leased = world.lease_of_bots(&bots, 1000);
        if leased.is_empty() {
            break;
        }
        done += leased.len();
        world.complete(&leased, "");
    }
    assert_eq!(done, WAVES * bots.len());
    world.assign(1);
    assert_eq!(world.lease_of_bots(&bots, 1000).len(), bots.len());
    assert_eq!(check_bots(&world.state), Ok(()));
}

/// The open one behind 20,000 that had ended was not found by those who pull.
#[test]
fn open_work_is_found_behind_any_number_of_ended_ones_and_pages_go_past_all() {
    const ENDED: usize = 20_100;
    let mut world = World::new();
    world.say(BotCommand::CreateBot(BotSpec::default())).unwrap();
    let place = BotPlace::default();
    let bot = world.state.bot_id(place);
    let assign = |world: &mut World| {
        world.say(BotCommand::AssignBot { bot, work: BotWork::default() }).unwrap();
    };
    assign(&mut world);
    let first = AssignmentPlace { wave: 1, index: 0 };
    assert_eq!(world.lease_of_bots(&[place], 1), [(first, 1)]);
    for _ in 0..ENDED {
        assign(&mut world);
    }
    loop {
        let leased = world.lease_of_bots(&[place], 1000);
        if leased.is_empty() {
            break;
        }
        world.complete(&leased, "");
    }
    let open = world.state.assignments_of(place, |state| !state.is_ended(), 10);
    assert_eq!(open.iter().map(|view| view.place).collect::<Vec<_>>(), [first]);
    for newest_first in [true, false] {
        let (mut after, mut seen, mut pages) = (None, Vec::new(), 0);
        loop {
            let page = world.state.assignment_page(place, |_| true, (after, newest_first), 1000);
            seen.extend(page.rows.iter().map(|view| view.place.wave));
            pages += 1;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if newest_first {
            seen.reverse();
        }
        assert!(seen.iter().copied().eq(1..=ENDED as u64 + 1), "{pages} pages");
    }
    // A state that is rare is found in some pages, of which the first may be empty.
    let is_leased = |state: AssignmentState| state == AssignmentState::Leased;
    let page = world.state.assignment_page(place, is_leased, (None, true), 10);
    assert_eq!((page.rows.len(), page.next), (1, None));
}

/// What workers may do with what they hold.
#[derive(Debug, Clone)]
enum Move {
    Lease(u32),
    /// By bots from an index on: at most so many.
    LeaseOfBots(u32, u32),
    Complete(usize),
    Fail(usize),
    Release(usize),
    Wait(u64),
    Scale(u32),
    /// The first member from an index on.
    Remove(u32),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => (1..9u32).prop_map(Move::Lease),
        4 => (0..130u32, 1..9u32).prop_map(|(from, max)| Move::LeaseOfBots(from, max)),
        6 => any::<usize>().prop_map(Move::Complete),
        2 => any::<usize>().prop_map(Move::Fail),
        1 => any::<usize>().prop_map(Move::Release),
        1 => (0..20_000u64).prop_map(Move::Wait),
        1 => (1..130u32).prop_map(Move::Scale),
        1 => (0..130u32).prop_map(Move::Remove),
    ];
    proptest::collection::vec(one, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    /// Two workers never hold one assignment, and each is completed by one of them at most.
    #[test]
    fn no_assignment_is_held_by_two(moves in moves()) {
        let mut world = World::new();
        world.swarm(70, "standard");
        world.assign(1);
        world.assign(1);
        let mut held: BTreeMap<AssignmentPlace, u32> = BTreeMap::new();
        let (mut attempts, mut done) = (BTreeMap::new(), BTreeSet::new());
        let mut leased_as = BTreeMap::new();
        let pick = |held: &BTreeMap<AssignmentPlace, u32>, at: usize| {
            let at = at.checked_rem(held.len())?;
            held.iter().nth(at).map(|(place, attempt)| (*place, *attempt))
        };
        for one in moves {
            match one {
                Move::Lease(_) | Move::LeaseOfBots(..) => for (place, attempt) in world.taken(&one) {
                    prop_assert!(held.insert(place, attempt).is_none(), "held by two");
                    prop_assert!(!done.contains(&place), "done, and given out again");
                    let before = attempts.insert(place, attempt).unwrap_or(0);
                    prop_assert!(before < attempt, "a number was given twice");
                    leased_as.insert(place, world.state.assignment(place).unwrap().bot_id);
                },
                Move::Complete(at) => if let Some((place, attempt)) = pick(&held, at) {
                    let (old, new) = (attempt.wrapping_sub(1), attempt);
                    world.bot = leased_as[&place];
                    let verdicts = world.complete(&[(place, old), (place, new), (place, new)], "");
                    world.bot = None;
                    prop_assert_eq!(verdicts, [Verdict::Stale, Verdict::Accepted, Verdict::Repeated]);
                    held.remove(&place);
                    prop_assert!(done.insert(place));
                },
                Move::Fail(at) => if let Some((place, attempt)) = pick(&held, at) {
                    let task = world.state.assignment_id(place);
                    let item = BotReport { task, bot: None, attempt: Some(attempt), text: String::new(), permanent: false };
                    let verdicts = judged(world.say(BotCommand::FailAssignments { items: vec![item] }));
                    prop_assert_eq!(verdicts, [Verdict::Accepted]);
                    held.remove(&place);
                },
                Move::Release(at) => if let Some((place, attempt)) = pick(&held, at) {
                    let lease = LeaseRef { task: world.state.assignment_id(place), attempt };
                    world.say(BotCommand::ReleaseLeases { leases: vec![lease] }).unwrap();
                    held.remove(&place);
                },
                Move::Wait(ms) => {
                    world.now += ms;
                    let leases: Vec<_> = world.state.due_leases(world.now).collect();
                    for lease in &leases {
                        held.remove(&lease.place);
                    }
                    if !leases.is_empty() {
                        let epoch = world.state.epoch();
                        world.say(BotCommand::ExpireLeases { epoch, leases }).unwrap();
                    }
                }
                Move::Scale(count) => {
                    let swarm = world.state.swarm_id(1);
                    world.say(BotCommand::ScaleSwarm { swarm, count }).unwrap();
                }
                Move::Remove(from) => world.remove_from(from),
            }
            prop_assert_eq!(check_bots(&world.state), Ok(()));
        }
        prop_assert_eq!(world.state.bot_totals().completed, done.len() as u64);
        for place in held.keys() {
            let row = world.state.progress(*place);
            prop_assert_eq!(row.map(|row| row.state), Some(AssignmentState::Leased));
        }
        world.is_what_its_rows_say();
    }
}
