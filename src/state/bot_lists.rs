//! What a bot has to do and has done, in pages: a look is bounded, and a page says where it goes on,
//! so that whoever walks on comes past everything.

use super::State;
use super::bot_reads::{AssignmentView, LOOKS_MAX};
use crate::model::{AssignmentPlace, AssignmentState, BotPlace};

/// Some of a bot's assignments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssignmentPage<'a> {
    /// In the order that was asked for.
    pub rows: Vec<AssignmentView<'a>>,
    /// What the next page goes on after; `None` when there is nothing more. A page that is not full can
    /// have one, when much had to be passed over.
    pub next: Option<AssignmentPlace>,
}

/// A place that is looked at, and whether an assignment of the bot may be there.
type Look = (AssignmentPlace, bool);

/// Where one page begins, and where it goes.
#[derive(Clone, Copy)]
struct Way {
    after: Option<AssignmentPlace>,
    newest_first: bool,
}

impl Way {
    fn is_ahead(self, place: AssignmentPlace) -> bool {
        match self.after {
            None => true,
            Some(after) if self.newest_first => place < after,
            Some(after) => place > after,
        }
    }

    /// Of a list in order, what is ahead, in the order of the walk.
    fn along<'a, T: Copy + 'a>(
        self,
        list: impl DoubleEndedIterator<Item = T> + 'a,
    ) -> Box<dyn Iterator<Item = T> + 'a> {
        if self.newest_first { Box::new(list.rev()) } else { Box::new(list) }
    }

    /// The lowest and the highest wave that may have something ahead.
    fn waves(self) -> (u64, u64) {
        match self.after {
            None => (0, u64::MAX),
            Some(after) if self.newest_first => (0, after.wave),
            Some(after) => (after.wave, u64::MAX),
        }
    }
}

impl State {
    /// Retained assignments of a bot that is there, the newest wave first: those in a state that is
    /// `wanted`, at most so many.
    #[must_use]
    pub fn assignments_of(
        &self,
        bot: BotPlace,
        wanted: impl Fn(AssignmentState) -> bool,
        limit: usize,
    ) -> Vec<AssignmentView<'_>> {
        self.assignment_page(bot, wanted, (None, true), limit).rows
    }

    /// A page of the retained assignments of a bot that is there, in the order of their waves or the
    /// other way round: those in a state that is `wanted`. What has ended is not looked at when only
    /// open ones are wanted.
    #[must_use]
    pub fn assignment_page(
        &self,
        bot: BotPlace,
        wanted: impl Fn(AssignmentState) -> bool,
        (after, newest_first): (Option<AssignmentPlace>, bool),
        limit: usize,
    ) -> AssignmentPage<'_> {
        let way = Way { after, newest_first };
        let ends = wanted(AssignmentState::Completed) || wanted(AssignmentState::Failed);
        let (mut rows, mut horizon) = (Vec::new(), None);
        for source in self.sources(bot, way, ends) {
            let stopped = self.look(source, way, (bot, &wanted), limit, &mut rows);
            horizon = match (horizon, stopped) {
                (Some(one), Some(other)) if newest_first => Some(other.max(one)),
                (Some(one), Some(other)) => Some(other.min(one)),
                (one, other) => one.or(other),
            };
        }
        rows.sort_by_key(|view: &AssignmentView<'_>| view.place);
        rows.dedup_by_key(|view| view.place);
        if newest_first {
            rows.reverse();
        }
        // Behind where one of the places was not looked at any more, something may be missing.
        if let Some(horizon) = horizon {
            rows.retain(|view| match newest_first {
                true => view.place >= horizon,
                false => view.place <= horizon,
            });
        }
        let is_full = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().map(|view| view.place);
        AssignmentPage { next: if is_full { last } else { horizon }, rows }
    }

    /// Looks along one place where assignments may be; gives where it stopped before the end.
    fn look<'a>(
        &'a self,
        source: Box<dyn Iterator<Item = Look> + 'a>,
        way: Way,
        (bot, wanted): (BotPlace, &impl Fn(AssignmentState) -> bool),
        limit: usize,
        rows: &mut Vec<AssignmentView<'a>>,
    ) -> Option<AssignmentPlace> {
        let (mut looks, mut found, mut last) = (0, 0, None);
        for (place, may_be) in source {
            if found > limit {
                return None;
            }
            if looks == LOOKS_MAX {
                return last;
            }
            looks += 1;
            last = Some(place);
            if !may_be || !way.is_ahead(place) {
                continue;
            }
            let view = self.assignment(place).filter(|view| view.bot == Some(bot));
            if let Some(view) = view.filter(|view| wanted(view.state())) {
                rows.push(view);
                found += 1;
            }
        }
        None
    }

    /// Where assignments of a bot may be: in waves over its whole swarm, in those for it alone, among
    /// what it ended or holds in place of others, in its share of what waits of those who are gone, and in
    /// that of what was made before it came.
    fn sources(
        &self,
        bot: BotPlace,
        way: Way,
        ends: bool,
    ) -> [Box<dyn Iterator<Item = Look> + '_>; 6] {
        let (from, to) = way.waves();
        let own = move |wave| (AssignmentPlace { wave, index: bot.index }, true);
        let whole: Box<dyn Iterator<Item = u64> + '_> = match (ends, way.newest_first) {
            (true, false) => Box::new(self.whole_waves_of(bot, from)),
            (true, true) => Box::new(self.whole_waves_back(bot, to)),
            (false, false) => Box::new(self.unended_waves_of(bot, from)),
            (false, true) => Box::new(self.unended_waves_back(bot, to)),
        };
        let index = &self.bot_index;
        let singles = if ends { &index.singles_of } else { &index.singles_open };
        let singles = singles.get(&bot).into_iter();
        let singles = singles.flat_map(move |waves| way.along(waves.range(from..=to).copied()));
        let place = |wave, index| AssignmentPlace { wave, index };
        let (first, last) = (place(from, 0), place(to, u32::MAX));
        let inherited = index.inherited.get(&bot).filter(|_| ends).into_iter();
        let leased = index.leased_as.get(&bot).into_iter();
        let sure = |place| (place, true);
        let inherited =
            inherited.flat_map(move |set| way.along(set.range(first..=last).copied()).map(sure));
        let leased =
            leased.flat_map(move |set| way.along(set.range(first..=last).copied()).map(sure));
        let orphaned = index.orphaned.get(&bot.swarm).into_iter();
        let orphaned =
            orphaned.flat_map(move |waves| way.along(waves.iter().map(|(_, wave)| *wave)));
        let share = orphaned
            .filter(move |wave| (from..=to).contains(wave))
            .flat_map(move |wave| self.share_of(bot, wave, way));
        let first_own = self.first_whole_of(bot).unwrap_or(u64::MAX);
        let older = index.whole_open.get(&bot.swarm).into_iter();
        let older = older.flat_map(move |waves| way.along(waves.range(from..=to).copied()));
        let taken = older.filter(move |wave| *wave < first_own).map(move |wave| {
            let found = self.taken_of(wave, &[bot.index]).pop();
            (place(wave, found.unwrap_or_default()), found.is_some())
        });
        [
            Box::new(whole.map(own)),
            Box::new(singles.map(own)),
            Box::new(inherited),
            Box::new(leased),
            Box::new(share),
            Box::new(taken),
        ]
    }

    /// What a member has of a wave from bots that are gone. That it was looked for is a look of its
    /// own, in front of the wave, and more when wave and swarm are in many pieces.
    fn share_of(&self, bot: BotPlace, wave: u64, way: Way) -> Box<dyn Iterator<Item = Look> + '_> {
        let rows = self.waves.get(&wave).zip(self.swarms.get(&bot.swarm));
        let (mut cost, mut gone) = (1, Vec::new());
        if let Some((row, swarm)) = rows {
            gone = if row.whole { swarm.gone_of(&row.members) } else { row.members.clone() };
            cost += if row.whole { (row.members.len() + swarm.members.len()) / 16 } else { 0 };
        }
        let rank = rows.and_then(|(row, swarm)| Some((row, swarm, swarm.rank_of(bot.index)?)));
        let indexes = rank.map(|(row, swarm, rank)| swarm.inheritance(row, gone, rank));
        let indexes = indexes.into_iter().flatten();
        let front = match way.newest_first {
            true => AssignmentPlace { wave: wave.saturating_add(1), index: 0 },
            false => AssignmentPlace { wave: wave.saturating_sub(1), index: u32::MAX },
        };
        let ahead = indexes.map(move |index| AssignmentPlace { wave, index });
        let ahead = ahead.filter(move |place| way.is_ahead(*place)).map(|place| (place, true));
        let front = std::iter::repeat_n((front, false), cost);
        if way.newest_first {
            let mut all: Vec<Look> = ahead.collect();
            all.reverse();
            return Box::new(front.chain(all));
        }
        Box::new(front.chain(ahead))
    }
}
