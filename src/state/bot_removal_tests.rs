//! Bots that go: what one command does is bounded, and all members do the same.

use proptest::prelude::*;

use super::bot_tests::World;
use super::{BotCommand, BotOutcome, BotSpec, BotWork, Outcome, check_bots};
use crate::model::{AssignmentPlace, BotPlace};

fn assign_bot(world: &mut World, place: BotPlace) {
    let bot = world.state.bot_id(place);
    world.say(BotCommand::AssignBot { bot, work: BotWork::default() }).unwrap();
}

fn scale(world: &mut World, count: u32) -> u32 {
    let swarm = world.state.swarm_id(1);
    match world.say(BotCommand::ScaleSwarm { swarm, count }) {
        Ok(Outcome::Bot(BotOutcome::SwarmScaled { count })) => count,
        other => panic!("{other:?}"),
    }
}

/// Apply stood still for up to a second: all that a swarm had to do was taken out at once.
#[test]
fn removing_a_swarm_is_as_fast_however_much_it_has_to_do() {
    const BOTS: u32 = 30;
    const EACH: usize = 500;
    let mut worlds = [World::new(), World::new()];
    for world in &mut worlds {
        world.swarm(BOTS, "standard");
        world.swarm(2, "standard");
        for _ in 0..200 {
            world.assign(1);
        }
        for index in 0..BOTS {
            for _ in 0..EACH {
                assign_bot(world, BotPlace { swarm: 1, index });
            }
        }
        for _ in 0..10 {
            world.lease(&[1], 1000);
        }
        world.assign(2);
        assert_eq!(world.lease(&[2], 1).len(), 1);
        world.took();
    }
    let [one, other] = &mut worlds;
    #[expect(clippy::disallowed_methods, reason = "only printed")]
    let start = std::time::Instant::now();
    let waves: Vec<u64> = one.state.bot_index.tallies.keys().copied().collect();
    waves.iter().for_each(|wave| one.state.forget_wave(*wave));
    println!("{} waves taken out one by one: {:?}", waves.len(), start.elapsed());
    let swarm = other.state.swarm_id(1);
    other.say(BotCommand::RemoveSwarm { swarm }).unwrap();
    println!("removed: {:?}, {} rows", other.took(), other.changed);
    assert!(other.changed < 40, "{} rows", other.changed);
    let figures = other.state.bot_stats().all;
    assert_eq!((figures.bots, figures.waiting, figures.leased), (2, 1, 1));
    assert_eq!(other.state.bot_index.held.open_waves, 1);
    assert_eq!(check_bots(&other.state), Ok(()));
    // Leases of what is gone are nobody's, and go when their time comes; those of others end.
    other.now += 9_999;
    other.say(BotCommand::CreateBot(BotSpec::default())).unwrap();
    other.now += 9_999;
    let (mut commands, mut most, mut taken_back) = (0, 0, 0);
    while other.state.next_lease().is_some() {
        let leases: Vec<_> = other.state.due_leases(other.now).take(100).collect();
        let (epoch, named) = (other.state.epoch(), leases.len());
        match other.say(BotCommand::ExpireLeases { epoch, leases }) {
            Ok(Outcome::Judged { accepted, .. }) => taken_back += accepted,
            reply => panic!("{reply:?}"),
        }
        assert!(named > 0 && other.changed <= 40 + 2 * named, "{named}: {}", other.changed);
        commands += 1;
        other.took();
    }
    assert_eq!(taken_back, 1);
    while other.state.bot_index.tallies.len() > 1 {
        other.say(BotCommand::CreateBot(BotSpec::default())).unwrap();
        most = most.max(other.changed);
        commands += 1;
        other.took();
    }
    println!("its rows went with {commands} commands");
    assert!(most < 40);
    assert_eq!(check_bots(&other.state), Ok(()));
    other.is_what_its_rows_say();
}

#[test]
fn a_bot_of_none_goes_at_once_with_all_that_it_had() {
    let mut world = World::new();
    for _ in 0..2 {
        world.say(BotCommand::CreateBot(BotSpec::default())).unwrap();
    }
    let (goes, stays) = (BotPlace { swarm: 0, index: 0 }, BotPlace { swarm: 0, index: 1 });
    for _ in 0..300 {
        assign_bot(&mut world, goes);
    }
    assign_bot(&mut world, stays);
    let leased = world.lease_of_bots(&[goes], 200);
    world.complete(&leased[..100], "");
    let bot = world.state.bot_id(goes);
    world.say(BotCommand::RemoveBot { bot }).unwrap();
    let figures = world.state.bot_stats().all;
    assert_eq!((figures.bots, figures.waiting, figures.leased, figures.completed), (1, 1, 0, 0));
    assert_eq!(world.state.bot_index.held.open_waves, 1);
    assert_eq!(check_bots(&world.state), Ok(()));
    let mut twin = world.restarted();
    for _ in 0..60 {
        for world in [&mut world, &mut twin] {
            world.say(BotCommand::CreateBot(BotSpec::default())).unwrap();
        }
        assert_eq!(world.state.digest(), twin.state.digest());
    }
    assert_eq!((world.state.waves.len(), world.state.wave_blocks.len()), (1, 0));
    assert_eq!(check_bots(&world.state), Ok(()));
}

/// One command went over all the work of a swarm, however much that was.
#[test]
fn a_swarm_that_shrinks_goes_over_a_bounded_part_of_its_work_with_each_command() {
    let mut world = World::new();
    world.swarm(5_000, "standard");
    for _ in 0..400 {
        world.assign(1);
    }
    let leased = world.lease(&[1], 1000);
    world.complete(&leased, "");
    let mut counts = vec![scale(&mut world, 1)];
    while counts.last() != Some(&1) {
        counts.push(scale(&mut world, 1));
    }
    assert!((2..9).contains(&counts.len()) && counts.is_sorted_by(|one, other| one > other));
    assert_eq!(check_bots(&world.state), Ok(()));
    let mut world = World::new();
    world.swarm(20, "standard");
    for index in 0..20 {
        for _ in 0..1_500 {
            assign_bot(&mut world, BotPlace { swarm: 1, index });
        }
    }
    assert_eq!([scale(&mut world, 1), scale(&mut world, 1)], [7, 1]);
    assert_eq!(world.state.bot_stats().all.waiting, 30_000, "the last one has it all");
    assert_eq!(check_bots(&world.state), Ok(()));
    world.is_what_its_rows_say();
}

/// What a bot had to do was bounded by what all had, and removing it went over all of that.
#[test]
fn one_swarm_and_one_bot_have_a_bounded_number_of_pieces_of_work_open() {
    const MAX: u32 = 25_000;
    let mut world = World::new();
    world.swarm(2, "standard");
    let (swarm, place) = (world.state.swarm_id(1), BotPlace { swarm: 1, index: 1 });
    for _ in 0..MAX {
        world.assign(1);
        assign_bot(&mut world, place);
    }
    let (bot, work) = (world.state.bot_id(place), BotWork::default());
    let whole = BotCommand::AssignSwarm { swarm, work: work.clone() };
    let single = BotCommand::AssignBot { bot, work };
    for command in [&whole, &single] {
        let refused = world.say(command.clone()).unwrap_err();
        assert_eq!(refused.code(), "TOO_MANY_ASSIGNMENTS");
        assert_eq!(refused.to_string(), "25000 pieces of work are open there already");
    }
    // What is old makes room for what is new, of the same swarm and the same bot.
    world.now += 3_600_000;
    for command in [&whole, &single] {
        world.say(command.clone()).unwrap();
    }
    assert_eq!(world.state.bot_summary(place).unwrap().total, u64::from(2 * MAX));
    assert_eq!(world.state.waves_of_swarm(1).count(), MAX as usize);
    assign_bot(&mut world, BotPlace { swarm: 1, index: 0 });
    world.took();
    world.say(BotCommand::RemoveBot { bot }).unwrap();
    println!("a bot with {MAX} waves and {MAX} singles goes: {:?}", world.took());
    let bot = world.state.bot_view(BotPlace { swarm: 1, index: 0 }).unwrap();
    assert!(bot.pending > u64::from(MAX));
}

/// Everything is put in its new order by one entry: that takes its time, and is right.
#[test]
fn what_waits_is_in_its_new_order_after_it_ages_otherwise() {
    let mut world = World::new();
    for tier in ["standard", "L20"] {
        world.swarm(20, tier);
    }
    for round in 0..2_000 {
        world.now = 1000 + round;
        for swarm in [1, 2] {
            assign_bot(&mut world, BotPlace { swarm, index: (round % 20) as u32 });
        }
        for index in 0..10 {
            assign_bot(&mut world, BotPlace { swarm: 1, index });
        }
    }
    let leased = world.lease(&[1, 2], 1000);
    world.complete(&leased, "");
    world.took();
    world.configure("tasks.aging_seconds", 1);
    let waves = world.state.bot_index.tallies.len();
    println!("{waves} waves in a new order: {:?}", world.took());
    assert_eq!(world.state.policy().aging_ms, 1000);
    assert_eq!(check_bots(&world.state), Ok(()));
}

/// Makes a swarm, has some of its work leased and some of that completed, and removes it; gives the most
/// rows of waves that are there there ever were, which is all that there may be of those that are not.
fn make_use_and_remove(
    world: &mut World,
    bots: u32,
    leases: &[(u32, bool)],
    mut most: usize,
) -> usize {
    let rows = |world: &World| world.state.waves.len() + world.state.wave_blocks.len();
    let mut note = |world: &World| {
        let blocks = world.state.wave_blocks.iter().map(|((wave, _), _)| *wave);
        let waves = world.state.waves.iter().map(|(wave, _)| *wave);
        let is_live = |wave: &u64| world.state.live_wave(*wave).is_some();
        let live = blocks.chain(waves).filter(is_live).count();
        most = most.max(live);
        assert!(
            rows(world) <= most,
            "{} rows, {live} of them of waves that are there",
            rows(world)
        );
    };
    world.swarm(bots, "standard");
    note(world);
    let number = world.state.bot_totals().swarms;
    world.assign(number);
    note(world);
    for (max, completes) in leases {
        let leased = world.lease(&[number], *max);
        note(world);
        if *completes && !leased.is_empty() {
            world.complete(&leased, "");
            note(world);
        }
    }
    let swarm = world.state.swarm_id(number);
    world.say(BotCommand::RemoveSwarm { swarm }).unwrap();
    note(world);
    most
}

/// The rows of removed swarms piled up: a lease made up to a thousand blocks and cleared none away.
#[test]
fn what_leases_of_removed_swarms_leave_is_cleared_away_by_the_next_ones() {
    let mut world = World::new();
    let mut most = 0;
    for _ in 0..6 {
        most = make_use_and_remove(&mut world, 20_000, &[(1000, false); 20], most);
    }
    assert!(most <= 316, "{most}");
    assert_eq!(check_bots(&world.state), Ok(()));
}

/// What is done to swarms and bots of none, of which some are removed.
#[derive(Debug, Clone)]
enum Move {
    Swarm(u32),
    AssignSwarm(u32),
    AssignBot(u32, u32),
    Lease(u32, u32),
    /// What was leased last.
    Complete,
    RemoveSwarm(u32),
    RemoveBot(u32, u32),
    Scale(u32),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        2 => (1..150u32).prop_map(Move::Swarm),
        4 => (1..4u32).prop_map(Move::AssignSwarm),
        6 => (0..4u32, 0..9u32).prop_map(|(swarm, index)| Move::AssignBot(swarm, index)),
        4 => (1..4u32, 1..90u32).prop_map(|(swarm, max)| Move::Lease(swarm, max)),
        2 => Just(Move::Complete),
        2 => (1..4u32).prop_map(Move::RemoveSwarm),
        2 => (0..4u32, 0..9u32).prop_map(|(swarm, index)| Move::RemoveBot(swarm, index)),
        1 => (0..90u32).prop_map(Move::Scale),
    ];
    proptest::collection::vec(one, 1..60)
}

fn step(world: &mut World, held: &mut Vec<(AssignmentPlace, u32)>, one: &Move) {
    let work = BotWork { task_type: None, data: "x".repeat(3000) };
    let of = |world: &World, swarm, index| world.state.bot_id(BotPlace { swarm, index });
    match *one {
        Move::Swarm(count) => world.swarm(count, "advanced"),
        Move::AssignSwarm(swarm) => {
            let swarm = world.state.swarm_id(swarm);
            drop(world.say(BotCommand::AssignSwarm { swarm, work }));
        }
        Move::AssignBot(swarm, index) => {
            let bot = of(world, swarm, index);
            if swarm == 0 && !world.state.has_bot(BotPlace { swarm, index }) {
                drop(world.say(BotCommand::CreateBot(BotSpec::default())));
            }
            drop(world.say(BotCommand::AssignBot { bot, work }));
        }
        Move::Lease(swarm, max) => {
            if world.state.swarm(swarm).is_some() {
                *held = world.lease(&[swarm], max);
            }
        }
        Move::Complete => {
            if !held.is_empty() {
                world.complete(held, "\"a result that does not lie in its block\"");
            }
        }
        Move::RemoveSwarm(swarm) => {
            let swarm = world.state.swarm_id(swarm);
            drop(world.say(BotCommand::RemoveSwarm { swarm }));
        }
        Move::RemoveBot(swarm, index) => {
            let bot = of(world, swarm, index);
            drop(world.say(BotCommand::RemoveBot { bot }));
        }
        Move::Scale(count) => {
            let swarm = world.state.swarm_id(1);
            drop(world.say(BotCommand::ScaleSwarm { swarm, count }));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    /// However swarms come and go, rows of those that are gone are no more than there once were of others.
    #[test]
    fn rows_of_removed_swarms_are_bounded(
        rounds in proptest::collection::vec(
            (1..3000u32, proptest::collection::vec((1..1000u32, any::<bool>()), 0..8)),
            1..8,
        ),
    ) {
        let (mut world, mut most) = (World::new(), 0);
        for (bots, leases) in rounds {
            most = make_use_and_remove(&mut world, bots, &leases, most);
        }
        prop_assert_eq!(check_bots(&world.state), Ok(()));
        world.is_what_its_rows_say();
    }

    /// What is cleared away later is told by rows alone: whoever reads them back goes on the same way.
    #[test]
    fn a_member_that_was_restarted_clears_away_the_same(moves in moves(), rest in moves()) {
        let (mut world, mut held) = (World::new(), Vec::new());
        for one in &moves {
            step(&mut world, &mut held, one);
            prop_assert_eq!(check_bots(&world.state), Ok(()));
        }
        let mut twin = world.restarted();
        prop_assert_eq!(check_bots(&twin.state), Ok(()));
        let mut twins = held.clone();
        for one in &rest {
            step(&mut world, &mut held, one);
            step(&mut twin, &mut twins, one);
            prop_assert_eq!(world.state.digest(), twin.state.digest());
            prop_assert_eq!(check_bots(&twin.state), Ok(()));
        }
        prop_assert_eq!(check_bots(&world.state), Ok(()));
        world.is_what_its_rows_say();
    }
}
