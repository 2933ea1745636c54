//! Whose an assignment is when bots of its swarm came or went since it was made: rules that give every
//! member an even share, from nothing but the members of wave and swarm
//! (docs/decisions/0009-swarms-are-derived.md).

use super::deal::Deal;
use super::{Span, Stretch, Swarm, Wave, spans_without};

impl Swarm {
    /// Of the bots of a wave, those that are not in the swarm any more.
    #[must_use]
    pub fn gone_of(&self, wave: &[Span]) -> Vec<Span> {
        spans_without(wave, &self.spans())
    }

    /// How the assignments of a wave are dealt among the members; `None` when there are none. All that are
    /// not newer than a wave over the whole swarm were among its bots.
    fn deal(&self, wave: &Wave) -> Option<Deal> {
        let end = wave.members.last().filter(|_| wave.whole).map(|last| last.end);
        let old = end.map_or(self.count, |end| self.before(end));
        Deal::of(self.count, old, wave.turn)
    }

    /// Who has the assignment of a bot that is gone: the members have them in turn, so that they
    /// are spread evenly, and anew whenever the members change.
    #[must_use]
    pub fn heir(&self, wave: &Wave, index: u32) -> Option<u32> {
        let before = Span { first: 0, end: index };
        let had: u32 = wave.members.iter().map(|span| span.and(before).len()).sum();
        let gone = if wave.whole { had - self.before(index) } else { 0 };
        self.at_rank(self.deal(wave)?.heir(gone))
    }

    /// Members whose index is lower than one.
    fn before(&self, index: u32) -> u32 {
        let at = self.members.partition_point(|stretch| stretch.span.end <= index);
        let inside = |stretch: &Stretch| stretch.rank + index.saturating_sub(stretch.span.first);
        self.members.get(at).map_or(self.count, inside)
    }

    /// Whether a bot came after a wave was made. Indexes only grow, so it has one behind the wave's last.
    #[must_use]
    pub fn has_newer_than(&self, wave: &[Span]) -> bool {
        let newest = self.members.last().map_or(0, |stretch| stretch.span.end);
        wave.last().is_some_and(|last| last.end < newest)
    }

    /// Who has what was made for a member, when that is one that came after the wave: they have an
    /// even share.
    #[must_use]
    pub fn taker(&self, wave: &Wave, index: u32) -> Option<u32> {
        if !self.has_newer_than(&wave.members) {
            return None;
        }
        self.at_rank(self.deal(wave)?.taker(self.rank_of(index)?)?)
    }

    /// The bots of a wave whose assignments some members have that came later, one each at most.
    #[must_use]
    pub fn taken(&self, wave: &Wave, members: &[u32]) -> Vec<u32> {
        if !self.has_newer_than(&wave.members) {
            return Vec::new();
        }
        let Some(deal) = self.deal(wave) else { return Vec::new() };
        let taken = |index: &u32| self.at_rank(deal.taken(self.rank_of(*index)?)?);
        members.iter().filter_map(taken).collect()
    }

    /// How much greater than that of a wave a turn must be for a member of it to keep what it is given,
    /// unless bots come in between.
    #[must_use]
    pub fn turns_until_kept(&self, wave: &Wave, index: u32) -> Option<u64> {
        self.deal(wave)?.until_kept(self.rank_of(index)?)
    }

    /// Of the bots of a wave that are gone, those whose heir the member of a rank is, in order.
    pub fn inheritance<G: AsRef<[Span]>>(
        &self,
        wave: &Wave,
        gone: G,
        rank: u32,
    ) -> impl Iterator<Item = u32> + use<G> {
        let places = self.deal(wave).map(|deal| deal.inherited(rank));
        let (mut at, mut passed) = (0, 0);
        places.into_iter().flatten().map_while(move |place| {
            let gone = gone.as_ref();
            while place >= passed + u64::from(gone.get(at)?.len()) {
                passed += u64::from(gone[at].len());
                at += 1;
            }
            Some(gone[at].first + (place - passed) as u32)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Payload;
    use super::super::bot::tests::{span, swarm};
    use super::*;

    fn whole(spans: &[Span]) -> Wave {
        Wave {
            swarm: 1,
            whole: true,
            task_type: None,
            data: Payload::Absent,
            assigned_at_ms: 1,
            members: spans.to_vec(),
            size: spans.iter().map(|span| span.len()).sum(),
            turn: 5,
            next_index: spans.last().map_or(0, |span| span.end),
        }
    }

    #[test]
    fn what_removed_bots_leave_is_spread_evenly() {
        let swarm = swarm(&[span(0, 7)]);
        // A hole of one does not put the turns out of step.
        let wave = [span(0, 8), span(20, 21), span(30, 129)];
        let mut shares: Vec<Vec<u32>> = vec![Vec::new(); 7];
        let (gone, wave) = (swarm.gone_of(&wave), whole(&wave));
        for index in gone.iter().flat_map(|span| span.first..span.end) {
            shares[swarm.heir(&wave, index).unwrap() as usize].push(index);
        }
        assert!(shares.iter().all(|share| (14..=15).contains(&share.len())), "{shares:?}");
        for (rank, share) in (0..).zip(shares) {
            assert_eq!(swarm.inheritance(&wave, &gone, rank).collect::<Vec<_>>(), share);
        }
        let empty = self::swarm(&[]);
        assert_eq!((empty.taker(&wave, 7), empty.taken(&wave, &[7])), (None, vec![]));
        assert_eq!(empty.heir(&wave, 7), None);
        // What was for one bot goes by the turn alone.
        let single = Wave { whole: false, members: vec![span(40, 41)], ..wave };
        let heir = |turn| swarm.heir(&Wave { turn, ..single.clone() }, 40);
        let heirs: std::collections::BTreeSet<_> = (9..16).map(heir).collect();
        assert_eq!(heirs, (0..7).map(Some).collect());
    }

    #[test]
    fn those_that_come_later_have_an_even_share_of_what_was_made_before() {
        // Three of the wave are left, one came before the hole behind them, four later.
        let swarm = swarm(&[span(2, 4), span(7, 8), span(12, 13), span(20, 23)]);
        let wave = whole(&[span(0, 5), span(6, 10)]);
        let members: Vec<u32> = (0..7).map(|rank| swarm.at_rank(rank).unwrap()).collect();
        let mut shares = vec![0; 7];
        for turn in 40..47 {
            let wave = Wave { turn, ..wave.clone() };
            for (rank, index) in members.iter().enumerate().take(3) {
                let taker = swarm.taker(&wave, *index);
                let found = members.iter().position(|member| Some(*member) == taker);
                assert!(found.is_none_or(|rank| rank >= 3), "{turn}: {taker:?}");
                shares[found.unwrap_or(rank)] += 1;
                let back = taker.map(|taker| swarm.taken(&wave, &[taker]));
                assert_eq!(back, taker.map(|_| vec![*index]));
            }
            let takers = members[..3].iter().filter_map(|index| swarm.taker(&wave, *index));
            assert_eq!(swarm.taken(&wave, &members).len(), takers.count());
        }
        assert_eq!(shares, [3; 7]);
        // Of a wave that all of them had, nobody gives anything away.
        let wave = whole(&[span(2, 23)]);
        assert!(!swarm.has_newer_than(&wave.members) && swarm.taker(&wave, 2).is_none());
    }
}
