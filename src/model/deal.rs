//! How the assignments of one wave are dealt among the members of its swarm: arithmetic of ranks, in steps
//! that grow with the digits of a number, not with the number
//! (docs/decisions/0009-swarms-are-derived.md).

use std::ops::RangeInclusive;

/// A wave's assignments have places: those of members that had it, by rank, and behind them those of bots
/// that are gone, in order. Turned by the wave's shift, the places fall on the members; but who had
/// the wave and would give its own assignment to another of those keeps it, and what would come to such a
/// one from a bot that is gone goes on to the next that gave its own away. So of one wave no member has two
/// more than another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deal {
    /// Members, one at least.
    count: u64,
    /// Those that had the wave: the first so many ranks.
    old: u64,
    /// Where the first place falls.
    shift: u64,
}

impl Deal {
    /// `None` when there are no members.
    pub(super) fn of(count: u32, old: u32, turn: u64) -> Option<Self> {
        let (count, old) = (u64::from(count), u64::from(old.min(count)));
        Some(Self { count, old, shift: turn.checked_rem(count)? })
    }

    fn ahead(&self, rank: u64) -> u64 {
        (rank + self.shift) % self.count
    }

    fn back(&self, rank: u64) -> u64 {
        (rank + self.count - self.shift) % self.count
    }

    /// Ranks of those that came after the wave; `None` when there are none.
    fn newer(&self) -> Option<RangeInclusive<u64>> {
        (self.old < self.count).then(|| self.old..=self.count - 1)
    }

    /// Who has what a member was given, by ranks: itself, or one that came later.
    pub(super) fn taker(&self, rank: u32) -> Option<u32> {
        let taker = self.ahead(u64::from(rank));
        (u64::from(rank) < self.old && taker >= self.old).then_some(taker as u32)
    }

    /// Whose assignment a member has that came later.
    pub(super) fn taken(&self, rank: u32) -> Option<u32> {
        let taken = self.back(u64::from(rank));
        (u64::from(rank) >= self.old && taken < self.old).then_some(taken as u32)
    }

    /// Who has the assignment of a bot that is gone, the `gone`-th of its wave.
    pub(super) fn heir(&self, gone: u32) -> u32 {
        let gone = u64::from(gone);
        let Some(newer) = self.newer().filter(|_| gone < self.count - self.old) else {
            // Everybody has one by now, and so it goes round.
            return self.ahead((gone + self.old) % self.count) as u32;
        };
        let heir = self.ahead(self.old + gone);
        // Past those that keep their own, to the last of them in this row, which gives it away.
        let steps = first_hit(heir, self.shift, self.count, newer).unwrap_or(0);
        ((heir + steps.saturating_sub(1) * self.shift) % self.count) as u32
    }

    /// Of the bots of a wave that are gone, which ones' heir the member of a rank is, in order.
    pub(super) fn inherited(&self, rank: u32) -> impl Iterator<Item = u64> + use<> {
        let (rank, deal) = (u64::from(rank), *self);
        let first = self.newer().and_then(|newer| {
            let place = match rank >= deal.old {
                true => deal.back(rank),
                false if deal.ahead(rank) < deal.old => return None,
                false => {
                    let step = deal.count - deal.shift;
                    let steps = first_hit(rank, step, deal.count, newer)?;
                    (rank + steps * step) % deal.count
                }
            };
            place.checked_sub(deal.old)
        });
        // Behind the first, with which all have one, every `count`-th: that of place `old` falls on `shift`.
        let second = deal.count - deal.old + deal.back(rank);
        first.into_iter().chain((second..).step_by(deal.count as usize))
    }

    /// How much greater a turn must be, by one at least, for a member to keep what it is given; `None` when
    /// it had nothing to keep. It does from there on for as many turns as there are that had the wave.
    pub(super) fn until_kept(&self, rank: u32) -> Option<u64> {
        let next = (self.ahead(u64::from(rank)) + 1) % self.count;
        let kept = next < self.old;
        (self.old > 0).then_some(if kept { 1 } else { self.count - next + 1 })
    }
}

/// The least number of steps after which one comes from `start` into a range, all of it below `modulus`.
fn first_hit(start: u64, step: u64, modulus: u64, range: RangeInclusive<u64>) -> Option<u64> {
    let low = (range.start() + modulus - start) % modulus;
    let high = low + (range.end() - range.start());
    if low == 0 || high >= modulus {
        return Some(0);
    }
    first_multiple(step % modulus, modulus, low, high)
}

/// The least multiple of `step` that leaves `low` to `high`, which are neither 0 nor more than `modulus`. As
/// Euclid's algorithm goes: where no multiple falls between them in the first round, the rounds until one
/// does are such a number of a smaller modulus.
fn first_multiple(step: u64, modulus: u64, low: u64, high: u64) -> Option<u64> {
    if step == 0 {
        return None;
    }
    let first = low.div_ceil(step);
    if first * step <= high {
        return Some(first);
    }
    let rounds = first_multiple(modulus % step, step, step - high % step, step - low % step)?;
    Some((rounds * modulus + low).div_ceil(step))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Who has what was given to members, and to bots that are gone; told the same from both sides.
    fn shares(deal: &Deal, gone: u32) -> Vec<u32> {
        let mut shares = vec![0; deal.count as usize];
        for rank in 0..deal.old as u32 {
            let taker = deal.taker(rank);
            assert!(taker.is_none_or(|taker| deal.taken(taker) == Some(rank)));
            shares[taker.unwrap_or(rank) as usize] += 1;
        }
        for place in 0..gone {
            let heir = deal.heir(place);
            let back = deal.inherited(heir).take_while(|other| *other <= u64::from(place));
            assert_eq!(back.last(), Some(u64::from(place)), "{deal:?}: {heir}");
            shares[heir as usize] += 1;
        }
        let inherited = (0..deal.count as u32)
            .flat_map(|rank| deal.inherited(rank).take_while(|place| *place < u64::from(gone)));
        assert_eq!(inherited.count(), gone as usize);
        shares
    }

    fn spread(shares: &[u32]) -> u32 {
        shares.iter().max().unwrap() - shares.iter().min().unwrap()
    }

    #[test]
    fn nobody_has_nothing() {
        assert_eq!(Deal::of(0, 0, 7), None);
        let alone = Deal::of(1, 1, 7).unwrap();
        assert_eq!((alone.taker(0), alone.heir(9), alone.until_kept(0)), (None, 0, Some(1)));
    }

    /// Half of a swarm was replaced: those that stayed had two each, and the new ones nothing.
    #[test]
    fn who_comes_in_the_place_of_others_has_what_they_had() {
        for turn in 0..300 {
            let deal = Deal::of(100, 50, turn).unwrap();
            assert_eq!(shares(&deal, 50), vec![1; 100], "{turn}");
        }
    }

    /// Of 10 waves over 100 bots that became 200, 91 bots had ten and 91 none.
    #[test]
    fn a_few_waves_are_shared_as_well_as_many() {
        for begin in [0, 1, 77, 1 << 30] {
            let mut sums = vec![0; 200];
            for wave in 0..10 {
                let of_one = shares(&Deal::of(200, 100, begin + wave * 100).unwrap(), 0);
                sums.iter_mut().zip(of_one).for_each(|(sum, share)| *sum += share);
            }
            assert_eq!(sums, vec![5; 200], "{begin}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

        #[test]
        fn of_one_wave_nobody_has_two_more_than_another(
            count in 1..60u32, old in 0..60u32, gone in 0..200u32, turn: u64,
        ) {
            let deal = Deal::of(count, old, turn).unwrap();
            prop_assert!(spread(&shares(&deal, gone)) <= 1, "{deal:?}");
        }

        /// Each wave goes on where the one before ended, as cards are dealt: so it is even over any number.
        #[test]
        fn of_waves_in_a_row_nobody_has_two_more_than_another(
            count in 1..40u32, old in 1..40u32, waves in 1..50u64, turn in 0..u64::MAX / 2,
        ) {
            let old = old.min(count);
            let mut sums = vec![0; count as usize];
            for wave in 0..waves {
                let deal = Deal::of(count, old, turn + wave * u64::from(old)).unwrap();
                sums.iter_mut().zip(shares(&deal, 0)).for_each(|(sum, share)| *sum += share);
            }
            prop_assert!(spread(&sums) <= 1, "{sums:?}");
        }

        #[test]
        fn the_next_turn_in_which_it_is_kept_is_the_first(
            count in 1..90u32, old in 1..90u32, rank in 0..90u32, turn in 0..u64::MAX / 2,
        ) {
            let deal = |turn| Deal::of(count, old, turn).unwrap();
            let rank = rank % old.min(count);
            let wanted = (1..).find(|turns| deal(turn + turns).taker(rank).is_none());
            prop_assert_eq!(deal(turn).until_kept(rank), wanted);
        }

        #[test]
        fn steps_are_counted_as_by_walking(
            modulus in 1..300u64, start in 0..300u64, step in 0..600u64, ends in (0..300u64, 0..300u64),
        ) {
            let (start, one, other) = (start % modulus, ends.0 % modulus, ends.1 % modulus);
            let range = one.min(other)..=one.max(other);
            let walked = (0..modulus).find(|steps| range.contains(&((start + steps * step) % modulus)));
            prop_assert_eq!(first_hit(start, step, modulus, range), walked);
        }
    }
}
