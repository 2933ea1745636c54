//! Tests of books: who ends nothing is not refused for ever, and nobody's figures are wrong for it.

use proptest::prelude::*;

use super::super::bot_tests::World;
use super::super::{BotCommand, BotSpec, BotWork, Reply, check_bots};
use super::*;
use crate::model::{DerivedId, Stretch};

/// A state in which so many assignments may be open.
fn bounded(max: u64) -> World {
    let mut world = World::new();
    world.now = 1000;
    world.configure("bots.max_open_assignments", max);
    world
}

fn assign_swarm(world: &mut World, swarm: u32) -> Reply {
    let swarm = world.state.swarm_id(swarm);
    world.say(BotCommand::AssignSwarm { swarm, work: BotWork::default() })
}

fn assign_bot(world: &mut World, place: BotPlace) -> Reply {
    let bot = world.state.bot_id(place);
    world.say(BotCommand::AssignBot { bot, work: BotWork::default() })
}

fn pending(world: &World, swarm: u32) -> u64 {
    let bots = world.state.members_of(swarm, 0);
    bots.map(|bot| world.state.bot_view(bot).unwrap().pending).sum()
}

/// After a hundred waves everybody was refused for ever, those too whose work is done.
#[test]
fn who_only_keeps_books_is_refused_for_an_hour_at_most() {
    let mut world = bounded(510);
    world.swarm(50, "standard");
    world.swarm(1, "standard");
    for _ in 0..10 {
        world.now += KEPT_MS / 10;
        assign_swarm(&mut world, 1).unwrap();
    }
    assert_eq!(assign_swarm(&mut world, 1).unwrap_err().code(), "TOO_MANY_ASSIGNMENTS");
    for _ in 0..100 {
        world.now += KEPT_MS / 10;
        assign_swarm(&mut world, 1).unwrap();
        assert_eq!((pending(&world, 1), world.state.bot_stats().all.waiting), (500, 500));
    }
    // Whoever is worked for is not in the way of that, and loses nothing.
    for _ in 0..20 {
        world.now += KEPT_MS;
        assign_swarm(&mut world, 2).unwrap();
        world.lease(&[2], 1);
    }
    assert_eq!((world.state.swarm_figures(2).leased, pending(&world, 2)), (20, 20));
    assert_eq!(world.state.waves_of_swarm(1).count(), 9);
    assert_eq!(check_bots(&world.state), Ok(()));
    world.is_what_its_rows_say();
    assert_eq!(world.state.bot_totals().assigned, 5500 + 20, "what was ever assigned");
}

#[test]
fn what_somebody_works_for_is_never_forgotten() {
    let mut world = bounded(20);
    world.swarm(10, "standard");
    world.say(BotCommand::CreateBot(BotSpec::default())).unwrap();
    let single = BotPlace { swarm: 0, index: 0 };
    assign_swarm(&mut world, 1).unwrap();
    world.lease(&[1], 1);
    for _ in 0..10 {
        assign_bot(&mut world, single).unwrap();
    }
    // Two are held, and nobody was heard of that bot but for that.
    let leased = world.lease_of_bots(&[single], 2);
    for _ in 0..2 {
        world.now += 10 * KEPT_MS;
        assert!(assign_bot(&mut world, single).is_err());
        assert!(assign_swarm(&mut world, 1).is_err());
        let view = world.state.bot_view(single).unwrap();
        assert_eq!((view.pending, view.total), (10, 10));
        // A member that was restarted thinks so too.
        world.is_what_its_rows_say();
    }
    world.complete(&leased, "");
    assign_bot(&mut world, single).unwrap();
    assert_eq!(world.state.swarm_figures(1).waiting, 9);
    assert_eq!(check_bots(&world.state), Ok(()));
}

/// Many small ones in front of a few large ones had everybody refused who wanted much.
#[test]
fn where_the_oldest_are_too_small_the_largest_go() {
    const SMALL: usize = 3 * FORGOTTEN_PER_COMMAND;
    let mut world = bounded(SMALL as u64 + 3 * 1000 + 900);
    for _ in 0..SMALL {
        world.say(BotCommand::CreateBot(BotSpec::default())).unwrap();
    }
    world.swarm(1000, "standard");
    world.swarm(1100, "standard");
    for index in 0..SMALL as u32 {
        assign_bot(&mut world, BotPlace { swarm: 0, index }).unwrap();
    }
    for _ in 0..3 {
        world.now += KEPT_MS / 2;
        assign_swarm(&mut world, 1).unwrap();
    }
    assert!(assign_swarm(&mut world, 2).is_ok(), "an hour has passed since the first of them");
    let waves = |world: &World, swarm| world.state.waves_of_swarm(swarm).count();
    assert_eq!((waves(&world, 1), waves(&world, 2)), (2, 1));
    assert_eq!(world.state.bot_stats().all.waiting, SMALL as u64 + 2 * 1000 + 1100);
    assert!(assign_swarm(&mut world, 2).is_err(), "what is left is younger");
    assert_eq!(check_bots(&world.state), Ok(()));
    world.is_what_its_rows_say();
}

/// Of neighbours that were joined some had waves that others missed, which their records say.
#[test]
fn members_of_joined_stretches_lose_what_they_had() {
    const STEPS: u32 = 4_400;
    // As much as is given while it grows.
    let mut world = bounded(100 * 43 * 44 / 2);
    world.swarm(1, "standard");
    let swarm = world.state.swarm_id(1);
    for count in 2..STEPS {
        world.say(BotCommand::ScaleSwarm { swarm, count }).unwrap();
        if count % 100 == 0 {
            assign_swarm(&mut world, 1).unwrap();
        }
    }
    let parts = world.state.swarm(1).unwrap().members.len();
    assert!(parts < 4_200, "{parts} stretches: many were joined");
    world.now += KEPT_MS;
    let mut given = 0;
    while world.state.waves_of_swarm(1).last() <= Some(43) {
        assign_swarm(&mut world, 1).unwrap();
        given += 1;
        if given % 5 == 0 {
            assert_eq!(pending(&world, 1), world.state.bot_stats().all.waiting);
            assert_eq!(check_bots(&world.state), Ok(()));
        }
    }
    assert!(given > 15, "{given}");
    let mut totals =
        world.state.members_of(1, 0).map(|bot| world.state.bot_view(bot).unwrap().total);
    assert!(totals.all(|total| total == given));
}

/// What may happen between two assignments.
#[derive(Debug, Clone)]
enum Move {
    /// To a whole swarm.
    Swarm(u32),
    /// To a bot, of no swarm when that is 0.
    Bot(u32, u32),
    Scale(u32, u32),
    Remove(u32, u32),
    RemoveSwarm(u32),
    Lease(u32),
    Wait(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        8 => (1..4u32).prop_map(Move::Swarm),
        5 => (0..4u32, 0..6u32).prop_map(|(swarm, index)| Move::Bot(swarm, index)),
        2 => (1..4u32, 0..30u32).prop_map(|(swarm, count)| Move::Scale(swarm, count)),
        2 => (0..4u32, 0..6u32).prop_map(|(swarm, index)| Move::Remove(swarm, index)),
        1 => (1..4u32).prop_map(Move::RemoveSwarm),
        1 => (0..4u32).prop_map(Move::Lease),
        4 => (0..KEPT_MS).prop_map(Move::Wait),
    ];
    proptest::collection::vec(one, 1..80)
}

/// Whether what is refused would not have had room without all that could be forgotten.
fn is_rightly_refused(world: &World, count: u32) -> bool {
    let index = &world.state.bot_index;
    let rows = index.books.oldest_first().filter_map(|wave| world.state.waves.get(&wave));
    let old = rows.filter(|row| row.assigned_at_ms + KEPT_MS <= world.now);
    let old: u64 = old.map(|row| u64::from(row.size)).sum();
    let room = |held: u64, max: u64| held - old + u64::from(count) <= max;
    !room(index.open(), 60) || !room(index.held.standing, 120)
}

fn step(world: &mut World, one: &Move) {
    let id = |world: &World, swarm, index| -> DerivedId {
        world.state.bot_id(BotPlace { swarm, index })
    };
    let reply = match *one {
        Move::Swarm(swarm) => assign_swarm(world, swarm),
        Move::Bot(swarm, index) => assign_bot(world, BotPlace { swarm, index }),
        Move::Scale(swarm, count) => {
            let swarm = world.state.swarm_id(swarm);
            world.say(BotCommand::ScaleSwarm { swarm, count })
        }
        Move::Remove(swarm, index) => {
            let bot = id(world, swarm, index);
            world.say(BotCommand::RemoveBot { bot })
        }
        Move::RemoveSwarm(swarm) => {
            let swarm = world.state.swarm_id(swarm);
            world.say(BotCommand::RemoveSwarm { swarm })
        }
        Move::Lease(0) => {
            let bots: Vec<_> = (0..6).map(|index| BotPlace { swarm: 0, index }).collect();
            let there = bots.iter().any(|bot| world.state.has_bot(*bot));
            return if there {
                drop(world.lease_of_bots(&bots, 3))
            };
        }
        Move::Lease(swarm) => {
            let there = world.state.swarm(swarm).is_some();
            return if there {
                drop(world.lease(&[swarm], 7))
            };
        }
        Move::Wait(ms) => {
            world.now += ms;
            return;
        }
    };
    if reply.is_err_and(|error| error.code() == "TOO_MANY_ASSIGNMENTS") {
        let count = match one {
            Move::Swarm(swarm) => world.state.swarm(*swarm).unwrap().count,
            _ => 1,
        };
        assert!(is_rightly_refused(world, count), "{one:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    /// Whatever is forgotten, every bot's figures are what its list says, and all members forget the same.
    #[test]
    fn accounts_are_exact_whatever_was_forgotten(moves in moves(), rest in moves()) {
        let mut world = bounded(60);
        for count in [5, 9, 12] {
            world.swarm(count, "standard");
        }
        for _ in 0..6 {
            world.say(BotCommand::CreateBot(BotSpec::default())).unwrap();
        }
        for one in &moves {
            step(&mut world, one);
            prop_assert_eq!(check_bots(&world.state), Ok(()));
        }
        let mut twin = world.restarted();
        for one in &rest {
            step(&mut world, one);
            step(&mut twin, one);
            prop_assert_eq!(world.state.digest(), twin.state.digest());
            prop_assert_eq!(check_bots(&twin.state), Ok(()));
        }
        let open = world.state.bot_stats().all;
        let bots: Vec<_> = world.state.bots_after(None).collect();
        let pending = bots.iter().map(|bot| world.state.bot_view(*bot).unwrap().pending);
        let unowned = (1..4).filter(|swarm| world.state.swarm(*swarm).is_some_and(|row| row.count == 0));
        let unowned = unowned.map(|swarm| world.state.swarm_figures(swarm));
        let unowned = unowned.map(|figures| figures.waiting + figures.leased).sum::<u64>();
        // What is leased as a bot that is gone is nobody's.
        let had = pending.sum::<u64>() + unowned;
        prop_assert!(had <= open.waiting + open.leased && open.waiting <= had, "{} {:?}", had, open);
    }
}

/// The oldest of all made too little room, and a refused command makes none: it was refused for ever.
#[test]
fn work_whose_swarm_has_old_work_of_its_own_is_not_refused_for_many_small_ones() {
    let mut world = bounded(5000);
    world.say(BotCommand::CreateBot(BotSpec::default())).unwrap();
    for _ in 0..200 {
        assign_bot(&mut world, BotPlace { swarm: 0, index: 0 }).unwrap();
    }
    world.swarm(1000, "standard");
    for _ in 0..4 {
        assign_swarm(&mut world, 1).unwrap();
    }
    assert!(assign_swarm(&mut world, 1).is_err(), "all of it is young");
    world.now += KEPT_MS;
    assign_swarm(&mut world, 1).unwrap();
    assert_eq!(world.state.bot_stats().all.waiting, 4200);
    assert_eq!(check_bots(&world.state), Ok(()));
}

/// Every pair of a stretch and a span was looked at, and one that was joined had fewer waves than none.
#[test]
fn stretches_say_by_their_number_or_by_records_who_had_a_wave() {
    let mut world = World::new();
    world.swarm(10, "standard");
    assign_swarm(&mut world, 1).unwrap();
    let mut swarm = world.state.swarm(1).unwrap().clone();
    let mut row = world.state.waves.get(&1).unwrap().clone();
    let span = |first, end| Span { first, end };
    let stretch = |first, end, waves_before| Stretch {
        span: span(first, end),
        waves_before,
        ..swarm.members[0]
    };
    // All of it; all, but its number says none; in part, in two pieces; none of it.
    let members = [stretch(0, 2, 0), stretch(2, 4, 1), stretch(4, 9, 0), stretch(9, 10, 1)];
    swarm.members = members.to_vec();
    swarm.waves = 1;
    row.members = vec![span(0, 5), span(7, 9)];
    let apart = vec![span(2, 4), span(4, 5), span(7, 9)];
    assert_eq!(shared_out(&row, &swarm), (vec![true, false, false, false], apart));
}
