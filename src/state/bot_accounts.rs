//! The accounts of bots against a model that knows nothing but numbers (contract 5.3): how many there may be,
//! however they come and go, and who has the work of those that are gone.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::bot_tests::World;
use super::{BotCommand, BotOutcome, BotRejection, BotSpec, Outcome, Rejection, check_bots};
use crate::model::{AssignmentPlace, AssignmentState, BotPlace};

/// Bots there may be.
const CAPACITY: u64 = 50_000;

/// What makes bots more or fewer.
#[derive(Debug, Clone)]
enum Move {
    Bot,
    Swarm(u32),
    /// The swarm of a number, if it is there, to so many.
    Scale(u32, u32),
    RemoveSwarm(u32),
    /// A bot of a swarm (0 for those of none), by its rank.
    RemoveBot(u32, u32),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let count = || prop_oneof![0..20u32, 0..70_000u32, Just(u32::MAX)];
    let one = prop_oneof![
        2 => Just(Move::Bot),
        3 => count().prop_map(Move::Swarm),
        3 => (1..6u32, count()).prop_map(|(swarm, count)| Move::Scale(swarm, count)),
        1 => (1..6u32).prop_map(Move::RemoveSwarm),
        3 => (0..6u32, any::<u32>()).prop_map(|(swarm, rank)| Move::RemoveBot(swarm, rank)),
    ];
    proptest::collection::vec(one, 1..40)
}

/// How many bots there are of each swarm, those of none under 0, and how many there ever were.
#[derive(Default)]
struct Model {
    swarms: BTreeMap<u32, u64>,
    newest: u32,
    created: u64,
}

impl Model {
    fn bots(&self) -> u64 {
        self.swarms.values().sum()
    }

    /// So many more, as far as there is room.
    fn grow(&mut self, swarm: u32, by: u64) -> u64 {
        let by = by.min(CAPACITY - self.bots());
        *self.swarms.entry(swarm).or_default() += by;
        self.created += by;
        by
    }
}

/// Makes one move in both; what is answered must be what the model says.
fn step(world: &mut World, model: &mut Model, one: &Move) -> Result<(), TestCaseError> {
    match *one {
        Move::Bot => {
            let reply = world.say(BotCommand::CreateBot(BotSpec::default()));
            let full = Err(Rejection::from(BotRejection::BotCapacity { max: CAPACITY }));
            match model.grow(0, 1) {
                0 => prop_assert_eq!(reply, full),
                _ => prop_assert!(reply.is_ok(), "{:?}", reply),
            }
        }
        Move::Swarm(count) => {
            let command = BotCommand::CreateSwarm { spec: BotSpec::default(), count };
            let reply = world.say(command);
            if count == 0 || model.bots() == CAPACITY {
                prop_assert_eq!(reply, Err(Rejection::from(BotRejection::SwarmCapacity)));
                return Ok(());
            }
            model.newest += 1;
            let count = model.grow(model.newest, count.into()) as u32;
            let swarm = world.state.swarm_id(model.newest);
            prop_assert_eq!(reply, Ok(Outcome::Bot(BotOutcome::SwarmCreated { swarm, count })));
        }
        Move::Scale(swarm, count) => {
            let Some(before) = model.swarms.get(&swarm).copied() else { return Ok(()) };
            let id = world.state.swarm_id(swarm);
            let reply = world.say(BotCommand::ScaleSwarm { swarm: id, count });
            match u64::from(count).checked_sub(before) {
                Some(more) => drop(model.grow(swarm, more)),
                None => drop(model.swarms.insert(swarm, count.into())),
            }
            let count = model.swarms[&swarm] as u32;
            prop_assert_eq!(reply, Ok(Outcome::Bot(BotOutcome::SwarmScaled { count })));
        }
        Move::RemoveSwarm(swarm) => {
            let id = world.state.swarm_id(swarm);
            let there = model.swarms.remove(&swarm).is_some();
            prop_assert_eq!(world.say(BotCommand::RemoveSwarm { swarm: id }).is_ok(), there);
        }
        Move::RemoveBot(swarm, rank) => {
            let count = model.swarms.get(&swarm).copied().unwrap_or_default();
            let Some(rank) = u64::from(rank).checked_rem(count) else { return Ok(()) };
            let bots = world.state.bots_after(None).filter(|bot| bot.swarm == swarm);
            let bot = bots.map(|place| world.state.bot_id(place)).nth(rank as usize).unwrap();
            prop_assert_eq!(world.say(BotCommand::RemoveBot { bot }), Ok(Outcome::Done));
            prop_assert!(world.say(BotCommand::RemoveBot { bot }).is_err(), "it is gone");
            model.swarms.insert(swarm, count - 1);
        }
    }
    Ok(())
}

/// How much of each wave every member has.
fn shares(world: &World, waves: u64, size: u32) -> Vec<BTreeMap<BotPlace, u32>> {
    let of_wave = |wave| {
        let mut shares: BTreeMap<_, u32> =
            world.state.members_of(1, 0).map(|bot| (bot, 0)).collect();
        for index in 0..size {
            let bot = world.state.assignment(AssignmentPlace { wave, index }).unwrap().bot;
            *shares.get_mut(&bot.unwrap()).unwrap() += 1;
        }
        shares
    };
    (1..=waves).map(of_wave).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    /// Never one more than there may be, and none less than there is room for.
    #[test]
    fn contract_5_3_capacity_is_exact_however_bots_come_and_go(moves in moves()) {
        let (mut world, mut model) = (World::new(), Model::default());
        for one in moves {
            step(&mut world, &mut model, &one)?;
            let (bots, stats) = (model.bots(), world.state.bot_stats());
            prop_assert!(bots <= CAPACITY);
            prop_assert_eq!((stats.all.bots, stats.remaining), (bots, CAPACITY - bots));
            prop_assert_eq!(stats.created, model.created);
            for (swarm, count) in &model.swarms {
                prop_assert_eq!(world.state.swarm_figures(*swarm).bots, *count, "{}", swarm);
            }
        }
        prop_assert_eq!(check_bots(&world.state), Ok(()));
    }

    /// Whatever a swarm was scaled to, up or down, each member has as many assignments as any other, to
    /// within one of each wave.
    #[test]
    fn work_is_spread_evenly_after_a_swarm_was_scaled_up_and_down(
        size in 1..150u32,
        waves in 1..4u64,
        counts in proptest::collection::vec(1..200u32, 1..6),
        removed in proptest::collection::vec(any::<u32>(), 0..4),
    ) {
        let mut world = World::new();
        world.swarm(size, "standard");
        for _ in 0..waves {
            world.assign(1);
        }
        let swarm = world.state.swarm_id(1);
        for count in counts {
            world.say(BotCommand::ScaleSwarm { swarm, count }).unwrap();
            for rank in &removed {
                let count = world.state.swarm(1).unwrap().count;
                if count > 1 {
                    let rank = (rank % count) as usize;
                    let bot = world.state.members_of(1, 0).nth(rank).unwrap();
                    let bot = world.state.bot_id(bot);
                    world.say(BotCommand::RemoveBot { bot }).unwrap();
                }
            }
            let shares = shares(&world, waves, size);
            for share in &shares {
                let (most, least) = (share.values().max(), share.values().min());
                prop_assert!(most.unwrap() - least.unwrap() <= 1, "{:?}", share);
            }
            let mut pending = 0;
            for bot in world.state.members_of(1, 0) {
                let all: u32 = shares.iter().map(|share| share[&bot]).sum();
                let view = world.state.bot_view(bot).unwrap();
                prop_assert_eq!(view.pending, u64::from(all), "{:?}", bot);
                let open = world.state.assignments_of(bot, |state| !state.is_ended(), 1000);
                prop_assert_eq!(open.len() as u64, view.pending);
                prop_assert!(open.iter().all(|row| row.state() == AssignmentState::Waiting));
                pending += view.pending;
            }
            prop_assert_eq!(pending, u64::from(size) * waves, "nothing is lost");
            prop_assert_eq!(check_bots(&world.state), Ok(()));
        }
    }
}
