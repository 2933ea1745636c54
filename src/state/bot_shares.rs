//! Whose an assignment is that waits, when bots of its swarm came or went since it was made
//! (docs/decisions/0009-swarms-are-derived.md). Nothing of it is stored: it follows from the members of
//! wave and swarm, and so it is right after every change without a write.

use super::State;
use super::bot_index::Due;
use super::bot_reads::LOOKS_MAX;
use crate::model::{AssignmentPlace, AssignmentState, BotPlace, Wave};

impl State {
    /// Who has an assignment that waits: the bot it was made for, one that came later and has it as its
    /// share, or the heir of one that is gone.
    pub(super) fn assignee(&self, place: AssignmentPlace) -> Option<BotPlace> {
        let wave = self.waves.get(&place.wave)?;
        let swarm = wave.swarm;
        let index = match self.swarms.get(&swarm) {
            Some(row) if !row.has(place.index) => row.heir(wave, place.index)?,
            Some(_) => self.taker_of(place).unwrap_or(place.index),
            None => place.index,
        };
        Some(BotPlace { swarm, index })
    }

    /// The bot that an assignment was made for, while it is there.
    pub(super) fn made_for(&self, place: AssignmentPlace) -> Option<BotPlace> {
        let swarm = self.waves.get(&place.wave)?.swarm;
        let bot = BotPlace { swarm, index: place.index };
        self.has_bot(bot).then_some(bot)
    }

    /// As whom assignments are leased, each at its place: `None` for the bot it was made for. It stays
    /// so until the lease ends, whoever comes and goes meanwhile.
    pub(super) fn heirs_of(&self, places: &[AssignmentPlace]) -> Vec<Option<u32>> {
        let heir = |place: &AssignmentPlace| {
            let bot = self.assignee(*place)?;
            (bot.index != place.index).then_some(bot.index)
        };
        places.iter().map(heir).collect()
    }

    fn is_waiting(&self, place: AssignmentPlace) -> bool {
        self.progress(place).is_none_or(|row| row.state == AssignmentState::Waiting)
    }

    /// Who came later and has what was made for a member, if it waits.
    pub(super) fn taker_of(&self, place: AssignmentPlace) -> Option<u32> {
        let wave = self.waves.get(&place.wave).filter(|wave| wave.whole)?;
        self.swarms.get(&wave.swarm)?.taker(wave.turn, &wave.members, place.index)
    }

    /// Whether bots have come since a wave over their whole swarm. If so, they have of those before it, too.
    fn is_shared(&self, number: u64) -> bool {
        let wave = self.waves.get(&number).filter(|wave| wave.whole);
        let swarm = wave.and_then(|wave| self.swarms.get(&wave.swarm));
        wave.zip(swarm).is_some_and(|(wave, swarm)| swarm.has_newer_than(&wave.members))
    }

    /// The assignment of a wave that waits and that a member has which came later.
    pub(super) fn taken_of(&self, number: u64, index: u32) -> Option<u32> {
        let wave = self.waves.get(&number).filter(|wave| wave.whole)?;
        let swarm = self.swarms.get(&wave.swarm)?;
        let taken = swarm.taken(wave.turn, &wave.members, index)?;
        self.is_waiting(AssignmentPlace { wave: number, index: taken }).then_some(taken)
    }

    /// The same of several members. It costs a look, and one for each that has something.
    pub(super) fn taken_of_all(&self, number: u64, bots: &[u32], looks: &mut usize) -> Vec<u32> {
        let found: Vec<u32> = bots.iter().filter_map(|bot| self.taken_of(number, *bot)).collect();
        *looks = looks.saturating_sub(1 + bots.len() / 8 + found.len());
        found
    }

    /// Assignments that wait and that the members of these ranks have from bots that are gone; looks at
    /// `looks` of their shares at most, and takes them off. An empty share costs next to nothing.
    pub(super) fn inherited_of(&self, number: u64, ranks: &[u32], looks: &mut usize) -> Vec<u32> {
        let Some(wave) = self.waves.get(&number) else { return Vec::new() };
        let Some(swarm) = self.swarms.get(&wave.swarm) else { return Vec::new() };
        // Finding out who is gone takes a walk over the pieces of both.
        let pieces = if wave.whole { wave.members.len() + swarm.members.len() } else { 0 };
        *looks = looks.saturating_sub(1 + (pieces + ranks.len()) / 16);
        let gone = if wave.whole { swarm.gone_of(&wave.members) } else { wave.members.clone() };
        let mut found = Vec::new();
        for rank in ranks {
            for index in swarm.inheritance(wave.turn, &gone, *rank).take(*looks) {
                *looks -= 1;
                // What somebody holds is of the bot that it is leased as.
                if self.is_waiting(AssignmentPlace { wave: number, index }) {
                    found.push(index);
                }
            }
        }
        found
    }

    /// Waves over its whole swarm that a member has not ended, from a number on, those that others have left
    /// out but for the first of each run of them: of neighbouring turns, these are neighbours too. So a
    /// walk past what others do not do is as short as one past what the member has done.
    pub(super) fn own_waves_of(&self, bot: BotPlace) -> impl Iterator<Item = u64> {
        let first = self.first_whole_of(bot).and_then(|first| self.next_unended(bot, first));
        std::iter::successors(first, move |wave| {
            let place = AssignmentPlace { wave: *wave, index: bot.index };
            let from = match self.taker_of(place) {
                Some(_) => self.wave_after_taken(bot, *wave)?,
                None => wave.checked_add(1)?,
            };
            self.next_unended(bot, from)
        })
    }

    /// The first wave after one that a member gives away which it may have itself.
    fn wave_after_taken(&self, bot: BotPlace, number: u64) -> Option<u64> {
        let (wave, swarm) = (self.waves.get(&number)?, self.swarms.get(&bot.swarm)?);
        let rank = u64::from(swarm.rank_of(bot.index)?);
        let count = u64::from(swarm.count).max(1);
        // The members that are newer are the last: after their turns it begins at the first again.
        let turn = wave.turn.checked_add(count - (rank + wave.turn % count) % count)?;
        let whole = self.bot_index.whole_of.get(&bot.swarm)?;
        let (mut low, mut end) = (number.checked_add(1)?, whole.last()?.checked_add(1)?);
        let (mut found, mut step) = (None, 1);
        while low < end {
            // Mostly it is near: steps that double, and when they have come past it, halves.
            let middle = match found {
                None => low.saturating_add(step).min(end) - 1,
                Some(_) => low + (end - low) / 2,
            };
            step *= 2;
            match whole.range(middle..end).next() {
                Some(later) if self.is_later(*later, turn, wave) => {
                    found = Some(*later);
                    end = middle;
                }
                Some(later) => low = later + 1,
                None => end = middle,
            }
        }
        found
    }

    /// Whether a wave is of a turn or later, or had other members than one: what was worked out of those
    /// does not hold of it.
    fn is_later(&self, number: u64, turn: u64, than: &Wave) -> bool {
        let end = |wave: &Wave| wave.members.last().map(|span| span.end);
        self.waves.get(&number).is_none_or(|wave| wave.turn >= turn || end(wave) != end(than))
    }

    /// Places of the waves over its swarm that wait and were made before a member came.
    pub(super) fn ready_before(&self, bot: BotPlace) -> impl Iterator<Item = Due> {
        let end = self.first_whole_of(bot).unwrap_or(u64::MAX);
        let ready = self.bot_index.whole_ready.get(&bot.swarm).into_iter().flatten();
        ready.copied().take_while(move |(_, wave)| *wave < end)
    }

    /// How many open assignments a member has in place of others: what is leased as its, and its share of
    /// what waits of those who are gone, and of what was made before it came; so much of that as so many
    /// looks find.
    pub(super) fn open_for_others(&self, bot: BotPlace, mut looks: usize) -> u64 {
        let leased = self.bot_index.leased_as.get(&bot).map_or(0, |places| places.len());
        let mut found = leased as u64;
        let rank = self.swarms.get(&bot.swarm).and_then(|swarm| swarm.rank_of(bot.index));
        let Some(rank) = rank else { return found };
        for (_, wave) in self.bot_index.orphaned.get(&bot.swarm).into_iter().flatten() {
            found += self.inherited_of(*wave, &[rank], &mut looks).len() as u64;
            if looks == 0 {
                break;
            }
        }
        for (_, wave) in self.ready_before(bot).take(LOOKS_MAX) {
            found += u64::from(self.taken_of(wave, bot.index).is_some());
        }
        found
    }

    /// How many open assignments that were made for a member others have: what is leased as theirs, and
    /// the share of those that came later; so much of that as so many looks find.
    pub(super) fn open_with_others(&self, bot: BotPlace, looks: usize) -> u64 {
        let lent = self.bot_index.lent.get(&bot).map_or(0, |places| places.len());
        let waves = self.unended_waves_of(bot, 0).take_while(|wave| self.is_shared(*wave));
        let places = waves.map(|wave| AssignmentPlace { wave, index: bot.index });
        let is_taken =
            |place: &AssignmentPlace| self.is_waiting(*place) && self.taker_of(*place).is_some();
        (lent + places.take(looks).filter(is_taken).count()) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::bot_tests::World;
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
        assert!(
            counts.iter().all(|count| (16..=48).contains(count)),
            "31.5 on average: {counts:?}"
        );
    }

    #[test]
    fn one_wave_is_shared_as_well_as_one_can_be() {
        let mut world = World::new();
        world.swarm(50, "standard");
        world.assign(1);
        scale(&mut world, 10);
        scale(&mut world, 30);
        let counts = counts(&world);
        assert!(counts.iter().all(|count| *count <= 3), "{counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), 50);
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
            assert!(
                world.complete(&leased, "").iter().all(|verdict| *verdict == Verdict::Accepted)
            );
            let view = world.state.bot_view(*bot).unwrap();
            assert_eq!((view.total, view.pending, view.completed), (6, 0, 6));
        }
        assert_eq!(world.state.bot_stats().all.waiting, 0);
        assert_eq!(check_bots(&world.state), Ok(()));
        world.is_what_its_rows_say();
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
            world.is_what_its_rows_say();
        }
    }
}
