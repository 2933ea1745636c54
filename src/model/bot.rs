//! Bots and swarms (contract 5.2). A swarm is one row; its bots are derived from it.

use serde::{Deserialize, Serialize};

use super::{TimeMs, Urgency};

/// Bots, and assignments of a wave, whose records share a row.
pub const BOT_BLOCK: u32 = 64;

/// A bot: its swarm, or 0 for bots that belong to none, and its index there.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct BotPlace {
    /// Swarms count from 1.
    pub swarm: u32,
    /// Never used again, and so not without gaps.
    pub index: u32,
}

/// How soon the work of a tier wants to be done (contract 5.3): L20 100, advanced 75, any other 50.
#[must_use]
pub fn tier_urgency(tier: &str) -> Urgency {
    match tier {
        _ if tier.eq_ignore_ascii_case("L20") => Urgency::clamped(100),
        _ if tier.eq_ignore_ascii_case("advanced") => Urgency::clamped(75),
        _ => Urgency::NORMAL,
    }
}

/// What is counted of one bot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotRecord {
    /// Assignments that it got beside those of its whole swarm: its own, and those of removed
    /// bots that it has ended.
    pub assigned: u64,
    /// Assignments that it completed.
    pub completed: u64,
    /// Assignments that it gave up for good.
    pub failed: u64,
    /// Assignments of its whole swarm that bots that came later have ended in its place.
    pub given: u64,
    /// When it last got one of those, or something of it ended or was given back; 0 for never.
    pub last_active_ms: TimeMs,
    /// When somebody who works for it was last heard of, but for leases that stand; 0 for never.
    pub contact_ms: TimeMs,
}

/// A bot that belongs to no swarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bot {
    /// As given; empty for the default.
    pub name: String,
    /// As given.
    pub tier: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// When it was made.
    pub created_at_ms: TimeMs,
    /// What is counted of it.
    pub record: BotRecord,
}

/// Indexes from `first` up to, not with, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first.
    pub first: u32,
    /// Behind the last.
    pub end: u32,
}

impl Span {
    /// How many.
    #[must_use]
    pub fn len(self) -> u32 {
        self.end.saturating_sub(self.first)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.end <= self.first
    }

    /// What both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { first: self.first.max(other.first), end: self.end.min(other.end) }
    }

    /// The blocks it touches, each with its own part of it.
    pub fn blocks(self) -> impl Iterator<Item = (u32, Self)> {
        let count = if self.is_empty() { 0 } else { (self.end - 1) / BOT_BLOCK + 1 };
        (self.first / BOT_BLOCK..count).map(move |block| {
            let first = block * BOT_BLOCK;
            (block, self.and(Self { first, end: first.saturating_add(BOT_BLOCK) }))
        })
    }
}

/// What is in `these` and not in `those`; both in order.
#[must_use]
pub fn spans_without(these: &[Span], those: &[Span]) -> Vec<Span> {
    let (mut rest, mut next) = (Vec::new(), 0);
    for span in these {
        let mut first = span.first;
        while next < those.len() && those[next].end <= first {
            next += 1;
        }
        for hole in those[next..].iter().take_while(|hole| hole.first < span.end) {
            rest.push(Span { first, end: hole.first });
            first = first.max(hole.end);
        }
        rest.push(Span { first, end: span.end });
    }
    rest.retain(|span| !span.is_empty());
    rest
}

/// Members of a swarm that came together, or as neighbours with steps so many that they were joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// Which.
    pub span: Span,
    /// Members in front of them.
    pub rank: u32,
    /// When they came; the first of them when they were joined.
    pub created_at_ms: TimeMs,
    /// Waves over the whole swarm before they came. The records of those who had more say how many.
    pub waves_before: u64,
}

/// A swarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swarm {
    /// As given; empty for the default.
    pub name: String,
    /// As given; its bots are of it.
    pub tier: String,
    /// What its bots can do.
    pub capabilities: Vec<String>,
    /// When it was made.
    pub created_at_ms: TimeMs,
    /// Its bots, in order.
    pub members: Vec<Stretch>,
    /// How many they are.
    pub count: u32,
    /// The index of the bot that comes next.
    pub next_index: u32,
    /// Waves over the whole swarm so far.
    pub waves: u64,
    /// When the last of them was; 0 for never.
    pub assigned_at_ms: TimeMs,
    /// When somebody who works for it was last heard of, to the second; 0 for never.
    pub contact_ms: TimeMs,
    /// Log index of the entry that made it or last changed its members.
    pub revision: u64,
}

impl Swarm {
    /// Its members, with neighbours joined.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::with_capacity(self.members.len());
        for stretch in &self.members {
            match spans.last_mut() {
                Some(last) if last.end == stretch.span.first => last.end = stretch.span.end,
                Some(_) | None => spans.push(stretch.span),
            }
        }
        spans
    }

    /// The stretch that a member is in.
    #[must_use]
    pub fn stretch_of(&self, index: u32) -> Option<&Stretch> {
        let at = self.members.partition_point(|stretch| stretch.span.end <= index);
        self.members.get(at).filter(|stretch| stretch.span.first <= index)
    }

    /// Whether a bot of that index is in it.
    #[must_use]
    pub fn has(&self, index: u32) -> bool {
        self.stretch_of(index).is_some()
    }

    /// Members in front of a member.
    #[must_use]
    pub fn rank_of(&self, index: u32) -> Option<u32> {
        let at = self.members.partition_point(|stretch| stretch.span.end <= index);
        let stretch = self.members.get(at).filter(|stretch| stretch.span.first <= index)?;
        Some(stretch.rank + index - stretch.span.first)
    }

    /// The member with so many in front of it.
    #[must_use]
    pub fn at_rank(&self, rank: u32) -> Option<u32> {
        let next = self.members.partition_point(|stretch| stretch.rank <= rank);
        let stretch = self.members.get(next.checked_sub(1)?)?;
        let inside = rank - stretch.rank;
        (inside < stretch.span.len()).then(|| stretch.span.first + inside)
    }

    /// Which two neighbours among its stretches are joined most cheaply, by the place of the lower
    /// one: those without a wave between them, and else the one with the fewest bots, as these need
    /// a record of the waves that the others missed. `None` when there is a hole behind each.
    #[must_use]
    pub fn cheapest_joint(&self) -> Option<usize> {
        let pairs = self.members.windows(2).enumerate();
        let joined = pairs.filter(|(_, pair)| pair[0].span.end == pair[1].span.first);
        let cost = |pair: &[Stretch]| match pair[0].waves_before == pair[1].waves_before {
            true => 0,
            false => pair[0].span.len(),
        };
        joined.min_by_key(|(_, pair)| cost(pair)).map(|(at, _)| at)
    }

    /// Takes out those of it that are among some, which are in order. In one pass over both: there may be
    /// tens of thousands of either.
    pub fn remove(&mut self, gone: &[Span]) {
        let mut kept = Vec::with_capacity(self.members.len() + gone.len());
        let (mut next, mut rank) = (0, 0);
        for stretch in self.members.drain(..) {
            while gone.get(next).is_some_and(|hole| hole.end <= stretch.span.first) {
                next += 1;
            }
            let here = gone[next..].partition_point(|hole| hole.first < stretch.span.end);
            let parts = spans_without(&[stretch.span], &gone[next..next + here]);
            for span in parts {
                kept.push(Stretch { span, rank, ..stretch });
                rank += span.len();
            }
        }
        (self.members, self.count) = (kept, rank);
    }

    /// The highest `count` members, in order.
    #[must_use]
    pub fn highest(&self, mut count: u32) -> Vec<Span> {
        let mut spans = Vec::new();
        for stretch in self.members.iter().rev() {
            let taken = stretch.span.len().min(count);
            count -= taken;
            spans.push(Span { first: stretch.span.end - taken, end: stretch.span.end });
        }
        spans.retain(|span| !span.is_empty());
        spans.reverse();
        spans
    }
}

/// Records of neighbouring bots of a swarm; those that are not here are blank.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotBlock {
    /// By place in the block, in order.
    pub records: Vec<(u8, BotRecord)>,
}

/// Totals of bots that apply keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotTotals {
    /// What ids are derived with; 0 before there is anything to name.
    pub seed: u64,
    /// Number of the newest swarm.
    pub swarms: u32,
    /// Index of the next bot of no swarm.
    pub next_bot: u32,
    /// Number of the newest wave.
    pub waves: u64,
    /// Number of the newest workflow.
    pub workflows: u64,
    /// Bots ever made.
    pub created: u64,
    /// Assignments ever made.
    pub assigned: u64,
    /// Assignments ever completed.
    pub completed: u64,
    /// Assignments ever given up.
    pub failed: u64,
    /// No attempt up to this one is given any more: an older world may have given it.
    pub attempts_passed: u32,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::model) fn span(first: u32, end: u32) -> Span {
        Span { first, end }
    }

    pub(in crate::model) fn swarm(spans: &[Span]) -> Swarm {
        let mut count = 0;
        let mut stretch = |span: &Span| {
            let rank = count;
            count += span.len();
            Stretch { span: *span, rank, created_at_ms: 1, waves_before: 0 }
        };
        let members = spans.iter().map(&mut stretch).collect();
        Swarm {
            name: String::new(),
            tier: "standard".to_owned(),
            capabilities: Vec::new(),
            created_at_ms: 1,
            members,
            count,
            next_index: 1000,
            waves: 0,
            assigned_at_ms: 0,
            contact_ms: 0,
            revision: 1,
        }
    }

    #[test]
    fn tiers_of_contract_5_3() {
        for (tier, urgency) in [("standard", 50), ("advanced", 75), ("L20", 100), ("odd", 50)] {
            assert_eq!(tier_urgency(tier).value(), urgency);
        }
    }

    #[test]
    fn what_is_left_of_spans() {
        let rest = spans_without(&[span(0, 10), span(20, 30)], &[span(2, 3), span(8, 22)]);
        assert_eq!(rest, [span(0, 2), span(3, 8), span(22, 30)]);
        assert_eq!(spans_without(&[span(5, 9)], &[span(0, 20)]), []);
        assert_eq!(spans_without(&[span(5, 9)], &[]), [span(5, 9)]);
    }

    #[test]
    fn blocks_of_a_span() {
        let blocks: Vec<_> = span(60, 130).blocks().collect();
        assert_eq!(blocks, [(0, span(60, 64)), (1, span(64, 128)), (2, span(128, 130))]);
        assert_eq!(span(64, 64).blocks().count(), 0);
        assert_eq!(span(u32::MAX - 1, u32::MAX).blocks().count(), 1);
    }

    #[test]
    fn members_by_rank_and_back() {
        let swarm = swarm(&[span(2, 5), span(9, 11)]);
        let members: Vec<u32> = (0..5).map(|rank| swarm.at_rank(rank).unwrap()).collect();
        assert_eq!(members, [2, 3, 4, 9, 10]);
        for (rank, index) in (0..).zip(members) {
            assert_eq!(swarm.rank_of(index), Some(rank));
        }
        assert_eq!((swarm.at_rank(5), swarm.rank_of(5), swarm.rank_of(11)), (None, None, None));
    }

    #[test]
    fn the_highest_go_first_and_holes_are_kept() {
        let mut swarm = swarm(&[span(0, 5), span(5, 8)]);
        assert_eq!(swarm.highest(4), [span(4, 5), span(5, 8)]);
        swarm.remove(&[span(2, 3)]);
        assert_eq!((swarm.spans(), swarm.count), (vec![span(0, 2), span(3, 8)], 7));
        swarm.remove(&[span(5, 8)]);
        assert_eq!((swarm.spans(), swarm.count), (vec![span(0, 2), span(3, 5)], 4));
    }

    #[test]
    fn many_holes_at_once_are_those_made_one_by_one() {
        let gone = [span(1, 2), span(4, 6), span(9, 12), span(20, 30)];
        let mut at_once = swarm(&[span(0, 5), span(5, 8), span(10, 25)]);
        let mut one_by_one = at_once.clone();
        at_once.remove(&gone);
        gone.iter().for_each(|hole| one_by_one.remove(&[*hole]));
        assert_eq!(at_once, one_by_one);
        assert_eq!(at_once.spans(), [span(0, 1), span(2, 4), span(6, 8), span(12, 20)]);
        assert_eq!(at_once.count, 13);
    }
}
