//! Tests of shares: who has what when bots come and go.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::bot_tests::World;
use super::super::scripts::Script;
use super::super::{BotCommand, BotReport, Verdict, check_bots};
use super::*;

fn scale(world: &mut World, count: u32) {
    let swarm = world.state.swarm_id(1);
    world.say(BotCommand::ScaleSwarm { swarm, count }).unwrap();
}

/// What each member has to do, by its list; it is what its figures say, and nothing is had by two.
fn shares(world: &World) -> BTreeMap<u32, Vec<AssignmentPlace>> {
    let state = &world.state;
    let (mut shares, mut seen) = (BTreeMap::new(), std::collections::BTreeSet::new());
    for bot in state.members_of(1, 0) {
        let open = state.assignments_of(bot, |state| !state.is_ended(), usize::MAX - 1);
        let places: Vec<_> = open.iter().map(|view| view.place).collect();
        assert!(places.iter().all(|place| seen.insert(*place)), "{bot:?} has {places:?}");
        let view = state.bot_view(bot).unwrap();
        let ended = view.completed + view.failed;
        assert_eq!((view.pending, view.total), (open.len() as u64, open.len() as u64 + ended));
        shares.insert(bot.index, places);
    }
    shares
}

fn counts(world: &World) -> Vec<usize> {
    shares(world).values().map(Vec::len).collect()
}

fn report(world: &World, place: AssignmentPlace, by: u32) -> BotReport {
    BotReport {
        task: world.state.assignment_id(place),
        bot: Some(world.state.bot_id(BotPlace { swarm: 1, index: by })),
        attempt: None,
        text: String::new(),
        permanent: false,
    }
}

/// Bots that were added had nothing to do, however much the others had.
#[test]
fn members_that_are_added_have_an_even_share_of_what_waits() {
    let mut world = World::new();
    world.swarm(10, "standard");
    world.swarm(3, "standard");
    for _ in 0..40 {
        world.assign(1);
        world.assign(2);
    }
    let rows = world.state.waves.len();
    scale(&mut world, 20);
    assert_eq!(counts(&world), vec![20; 20], "400 among 20");
    assert_eq!((world.state.waves.len(), world.state.wave_blocks.len()), (rows, 0));
    scale(&mut world, 16);
    let counts = counts(&world);
    assert!(counts.iter().all(|count| (22..=28).contains(count)), "{counts:?}");
    assert_eq!(counts.iter().sum::<usize>(), 400);
    scale(&mut world, 5);
    scale(&mut world, 8);
    assert_eq!(self::counts(&world), vec![50; 8], "what is left of some goes to all");
    assert_eq!(check_bots(&world.state), Ok(()));
}

/// Where each wave comes with a new bot, no rank may fall on the same place each time.
#[test]
fn a_swarm_that_grows_with_each_wave_shares_all_of_them() {
    let mut world = World::new();
    world.swarm(1, "standard");
    for count in 2..=64 {
        world.assign(1);
        scale(&mut world, count);
    }
    let counts = counts(&world);
    assert_eq!(counts.iter().sum::<usize>(), 63 * 64 / 2);
    assert!(counts.iter().all(|count| (16..=48).contains(count)), "31.5 on average: {counts:?}");
}

#[test]
fn one_wave_is_shared_as_well_as_one_can_be() {
    let mut world = World::new();
    world.swarm(50, "standard");
    world.assign(1);
    scale(&mut world, 10);
    scale(&mut world, 30);
    let counts = counts(&world);
    assert!(counts.iter().all(|count| [1, 2].contains(count)), "{counts:?}");
    assert_eq!(counts.iter().sum::<usize>(), 50);
    // Those that come in the place of others have what they had.
    let mut world = World::new();
    world.swarm(100, "standard");
    world.assign(1);
    scale(&mut world, 50);
    scale(&mut world, 100);
    assert_eq!(self::counts(&world), vec![1; 100]);
}

/// Of ten waves over a hundred bots that became two hundred, nearly half had ten and as many nothing.
#[test]
fn waves_that_are_fewer_than_the_members_are_shared_evenly() {
    let mut world = World::new();
    world.swarm(100, "standard");
    (0..10).for_each(|_| world.assign(1));
    scale(&mut world, 200);
    let counts = counts(&world);
    assert_eq!(counts, vec![5; 200]);
}

/// Members that came between waves had from one to seven of them.
#[test]
fn waves_between_which_a_swarm_was_scaled_are_shared_evenly() {
    for (begin, steps) in [
        (9, &[0, -1, 3, 0, 2, 4, 3, 4][..]),
        (8, &[-3, 4, -3, 4, -3, 4, -3, 4]),
        (12, &[1, 0, 4, 4, 2, 3, 2, 4]),
    ] {
        let mut world = World::new();
        world.swarm(begin, "standard");
        let mut count = begin;
        for step in steps {
            world.assign(1);
            count = count.saturating_add_signed(*step);
            scale(&mut world, count);
        }
        let counts = counts(&world);
        let mean = counts.iter().sum::<usize>() / counts.len();
        assert!(counts.iter().all(|count| count.abs_diff(mean) <= 3), "{mean}: {counts:?}");
    }
}

/// What was begun stays with whoever began it; what is addressed to one bot is that bot's.
#[test]
fn what_is_leased_ended_or_for_one_bot_is_not_shared() {
    let mut world = World::new();
    world.swarm(2, "standard");
    let bot = BotPlace { swarm: 1, index: 1 };
    let bot_id = world.state.bot_id(bot);
    for _ in 0..4 {
        world.say(BotCommand::AssignBot { bot: bot_id, work: Default::default() }).unwrap();
    }
    world.assign(1);
    world.assign(1);
    let leased = world.lease_of_bots(&[bot], 6);
    assert_eq!(leased.len(), 6);
    world.complete(&leased[..1], "");
    scale(&mut world, 4);
    let share = &shares(&world)[&1];
    assert!(leased[1..].iter().all(|(place, _)| share.contains(place)), "{share:?}");
    // A lease that is over frees it: then it may be another's.
    while world.state.bot_stats().all.leased > 0 {
        world.now += 9_000;
        let leases = world.state.next_lease().into_iter().collect();
        let epoch = world.state.epoch();
        world.say(BotCommand::ExpireLeases { epoch, leases }).unwrap();
    }
    let counts = counts(&world);
    assert_eq!(counts.iter().sum::<usize>(), 7);
    assert!(counts[1] >= 3 && counts[2] + counts[3] > 0, "{counts:?}");
}

/// A client that keeps books of its own named the bot that it had read: that still counts, once.
#[test]
fn the_bot_that_it_was_made_for_may_end_what_is_anothers_share() {
    let mut world = World::new();
    world.swarm(1, "standard");
    (0..2).for_each(|_| world.assign(1));
    scale(&mut world, 2);
    let shares = shares(&world);
    let (own, taken) = (shares[&0][0], shares[&1][0]);
    assert_eq!((own.index, taken.index), (0, 0), "both were made for the first");
    let says = |world: &mut World, place, by| {
        let items = vec![report(world, place, by)];
        super::super::bot_tests::judged(world.say(BotCommand::CompleteAssignments { items }))
    };
    assert_eq!(says(&mut world, own, 1), [Verdict::NotFound]);
    assert_eq!(says(&mut world, taken, 0), [Verdict::Accepted]);
    assert_eq!(says(&mut world, taken, 0), [Verdict::Repeated]);
    assert_eq!(says(&mut world, taken, 1), [Verdict::NotFound], "it was the first that did it");
    let done = |world: &World, index| {
        let view = world.state.bot_view(BotPlace { swarm: 1, index }).unwrap();
        (view.total, view.pending, view.completed)
    };
    assert_eq!([done(&world, 0), done(&world, 1)], [(2, 1, 1), (0, 0, 0)]);
    assert_eq!(says(&mut world, own, 0), [Verdict::Accepted]);
    // And the other way round: what another has done, the first may ask about.
    (0..3).for_each(|_| world.assign(1));
    scale(&mut world, 3);
    let share = self::shares(&world)[&2].clone();
    let [one, _] = share[..] else { panic!("{share:?}") };
    assert_eq!(says(&mut world, one, 2), [Verdict::Accepted]);
    assert_eq!(says(&mut world, one, one.index), [Verdict::Repeated]);
    assert_eq!(done(&world, 2), (2, 1, 1));
    assert_eq!(done(&world, one.index).2, u64::from(one.index == 0) * 2);
    assert_eq!(check_bots(&world.state), Ok(()));
}

/// What a hundred bots had to do was not found behind 510 waves of which others had left something.
#[test]
fn bots_come_to_their_own_work_behind_what_others_do_not_do() {
    const WAVES: usize = 510;
    for (count, others) in [(200, "gone"), (250, "idle"), (420, "new")] {
        let mut world = World::new();
        world.swarm(250, "standard");
        let bots: Vec<BotPlace> = world.state.members_of(1, 0).take(100).collect();
        (0..WAVES).for_each(|_| world.assign(1));
        scale(&mut world, count);
        loop {
            let leased = world.lease_of_bots(&bots, 1000);
            if leased.is_empty() {
                break;
            }
            world.complete(&leased, "");
        }
        let left: usize = bots
            .iter()
            .map(|bot| world.state.assignments_of(*bot, |state| !state.is_ended(), 9000).len())
            .sum();
        assert_eq!(left, 0, "{others}");
        let bot = world.state.bot_id(bots[99]);
        world.say(BotCommand::AssignBot { bot, work: Default::default() }).unwrap();
        assert_eq!(world.lease_of_bots(&bots, 1000).len(), 1, "{others}");
        world.assign(1);
        assert_eq!(world.lease_of_bots(&bots, 1000).len(), 100, "{others}");
        assert_eq!(check_bots(&world.state), Ok(()));
    }
}

/// Health was read from what is retained of a bot's newest assignments: who had done 100,000 others since
/// was quiet, and a lease behind 20,000 that waited was not seen.
#[test]
fn health_knows_of_ends_that_are_forgotten_and_of_leases_far_back() {
    let mut world = World::new();
    world.swarm(1, "standard");
    let bot = BotPlace { swarm: 1, index: 0 };
    let id = world.state.bot_id(bot);
    let health = |world: &World| {
        let health = world.state.bot_health(bot, world.now).unwrap();
        (health.leased, health.last_contact_ms)
    };
    world.now = 5_000;
    world.say(BotCommand::AssignBot { bot: id, work: Default::default() }).unwrap();
    assert_eq!(health(&world), (0, 0), "that it was given something is no sign of anybody");
    let leased = world.lease_of_bots(&[bot], 1);
    world.now = 6_000;
    assert_eq!(health(&world), (1, 5_000));
    for _ in 0..20_100 {
        world.say(BotCommand::AssignBot { bot: id, work: Default::default() }).unwrap();
    }
    assert_eq!(health(&world), (1, 5_000), "the oldest");
    world.complete(&leased, "");
    let wave = leased[0].0.wave;
    world.state.forget_wave(wave);
    assert_eq!((health(&world), world.state.wave(wave)), ((0, 6_000), None));
}

#[test]
fn added_members_lease_their_share_by_name() {
    let mut world = World::new();
    world.swarm(6, "standard");
    (0..12).for_each(|_| world.assign(1));
    scale(&mut world, 12);
    let bots: Vec<BotPlace> = world.state.members_of(1, 0).collect();
    let shares = shares(&world);
    for (bot, share) in bots.iter().zip(shares.values()) {
        assert_eq!(share.len(), 6);
        let leased = world.lease_of_bots(&[*bot], 100);
        let mut places: Vec<_> = leased.iter().map(|(place, _)| *place).collect();
        places.reverse();
        assert_eq!(&places, share);
        world.bot = Some(world.state.bot_id(*bot));
        assert!(world.complete(&leased, "").iter().all(|verdict| *verdict == Verdict::Accepted));
        let view = world.state.bot_view(*bot).unwrap();
        assert_eq!((view.total, view.pending, view.completed), (6, 0, 6));
    }
    assert_eq!(world.state.bot_stats().all.waiting, 0);
    assert_eq!(check_bots(&world.state), Ok(()));
    world.is_what_its_rows_say();
}

/// Every member finds what waits for it and nobody has in its place.
fn finds_its_own(world: &World) -> Result<(), TestCaseError> {
    let swarm = world.state.swarm(1).unwrap();
    let waves: Vec<u64> = world.state.waves_of_swarm(1).collect();
    for index in swarm.members.iter().flat_map(|stretch| stretch.span.first..stretch.span.end) {
        let own: Vec<u64> = world.state.own_waves_of(BotPlace { swarm: 1, index }).collect();
        for wave in &waves {
            let place = AssignmentPlace { wave: *wave, index };
            let has = world.state.wave(*wave).unwrap().row.has(index);
            if has && world.state.is_waiting(place) && world.state.taker_of(place).is_none() {
                prop_assert!(own.contains(wave), "bot {index} does not find wave {wave}");
            }
        }
    }
    Ok(())
}

/// A wave that was made between two others, with other bots, was passed over by halves.
#[test]
fn a_swarm_that_grew_and_shrank_again_and_again_hides_no_wave() {
    let mut world = World::new();
    world.swarm(10, "standard");
    for (waves, count) in [(8, 30), (3, 10), (1, 15), (1, 10), (5, 50)] {
        (0..waves).for_each(|_| world.assign(1));
        scale(&mut world, count);
    }
    finds_its_own(&world).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() })]

    /// However a swarm was scaled while waves came and some was done: everything that is open is had by
    /// one bot, and none has more than its even part of each wave and of what those who went left.
    #[test]
    fn what_waits_is_spread_evenly_and_nothing_is_lost_or_doubled(
        steps in proptest::collection::vec((1..25u32, 0..4u8, 0..6u32), 1..12),
    ) {
        let mut world = World::new();
        world.swarm(5, "standard");
        for (count, waves, leases) in steps {
            (0..waves).for_each(|_| world.assign(1));
            scale(&mut world, count);
            let leased = world.lease(&[1], leases.max(1));
            let done = &leased[..leased.len().min(leases as usize / 2)];
            if !done.is_empty() {
                world.complete(done, "");
            }
            prop_assert_eq!(check_bots(&world.state), Ok(()));
            let shares = shares(&world);
            let open = world.state.bot_stats().all;
            let held: usize = shares.values().map(Vec::len).sum();
            let gone = |place: &&AssignmentPlace| {
                let bot = world.state.assignment(**place).and_then(|view| view.bot);
                bot.is_some_and(|bot| !world.state.has_bot(bot))
            };
            let leases = world.state.bot_index.leases.iter().map(|(_, place)| place);
            let of_gone = leases.filter(gone).count();
            prop_assert_eq!((held + of_gone) as u64, open.waiting + open.leased);
            for wave in world.state.waves_of_swarm(1).collect::<Vec<_>>() {
                let size = world.state.wave(wave).unwrap().row.size;
                let fair = size.div_ceil(count) as usize + 1;
                let waiting = |place: &&AssignmentPlace| {
                    place.wave == wave && world.state.is_waiting(**place)
                };
                for share in shares.values() {
                    prop_assert!(share.iter().filter(waiting).count() <= fair);
                }
            }
        }
        finds_its_own(&world)?;
        world.is_what_its_rows_say();
    }
}

/// A swarm could not grow any more after 4096 steps, and its bots could not be removed.
#[test]
fn a_swarm_grows_in_any_number_of_steps_and_nobodys_figures_change() {
    const STEPS: u32 = 4_200;
    let mut world = World::new();
    let mut script = Script::default();
    script.run("at 1", &mut String::new());
    script.run("config bots.max_open_assignments 50000000", &mut String::new());
    world.state.apply(1, &script.log[0]).unwrap();
    world.index = 1;
    world.swarm(1, "standard");
    for count in 2..=STEPS {
        // Later on every step has a wave before it.
        if count % 2 == 0 || count > 100 {
            world.assign(1);
        }
        let swarm = world.state.swarm_id(1);
        world.say(BotCommand::ScaleSwarm { swarm, count }).unwrap();
    }
    let row = world.state.swarm(1).unwrap();
    assert_eq!((row.count, row.members.len()), (STEPS, 4096));
    let waves = row.waves;
    for index in 0..STEPS {
        let view = world.state.bot_summary(BotPlace { swarm: 1, index }).unwrap();
        let steps = u64::from(index) + 1;
        let missed = if steps <= 100 { steps / 2 } else { steps - 50 };
        assert_eq!((view.total, view.pending), (waves - missed, waves - missed), "{index}");
    }
    let bot = world.state.bot_id(BotPlace { swarm: 1, index: 2000 });
    world.say(BotCommand::RemoveBot { bot }).unwrap();
    assert_eq!(check_bots(&world.state), Ok(()));
}
