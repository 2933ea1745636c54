//! The brake: when most of the fleet falls silent at once, it is more likely that something is
//! wrong here or in between than that all of them died. Then nodes are taken offline slowly, so
//! that their work is not all placed anew in one go onto the few that are left.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::NodeId;

/// When the brake goes on, and how fast nodes are then taken offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrakeOptions {
    /// It goes on when more than this share of the fleet is silent, in percent.
    pub share_percent: u32,
    /// It never goes on for fewer silent nodes than this.
    pub nodes_min: usize,
    /// The share of the fleet that is taken offline per node timeout while it is on, in percent;
    /// at least one node.
    pub rate_percent: u32,
}

impl Default for BrakeOptions {
    fn default() -> Self {
        Self { share_percent: 50, nodes_min: 3, rate_percent: 10 }
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Brake {
    on: bool,
    /// Taken offline while the brake was on, and not back yet. They still count as silent, or the
    /// brake would come off half way through.
    evicted: BTreeSet<NodeId>,
    /// What was earned towards evictions: one costs a thousand times the timeout's milliseconds,
    /// so that no fraction is lost however often this is asked.
    credit: u64,
    /// When the credit was last added to, since the reign began.
    at: Duration,
}

impl Brake {
    /// Whether it is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// How many of `silent` nodes may be taken offline now. `present` are those that are not
    /// offline, the silent ones included; `is_offline` tells whether a node still is.
    pub fn allow(
        &mut self,
        options: BrakeOptions,
        (silent, present): (usize, usize),
        is_offline: impl Fn(&NodeId) -> bool,
        (now, timeout): (Duration, Duration),
    ) -> usize {
        self.evicted.retain(is_offline);
        let gone = silent + self.evicted.len();
        let fleet = present + self.evicted.len();
        let most = gone as u64 * 100 > fleet as u64 * u64::from(options.share_percent);
        if gone < options.nodes_min || !most {
            *self = Self::default();
            return silent;
        }
        if !self.on {
            (self.on, self.credit, self.at) = (true, 0, now);
        }
        let per_timeout_milli = (fleet as u64 * u64::from(options.rate_percent) * 10).max(1000);
        let passed_ms = millis(now.saturating_sub(self.at));
        let (timeout_ms, one) = (millis(timeout).max(1), 1000 * millis(timeout).max(1));
        let earned = per_timeout_milli.saturating_mul(passed_ms);
        let most_kept = per_timeout_milli.saturating_mul(timeout_ms);
        self.credit = self.credit.saturating_add(earned).min(most_kept);
        self.at = now;
        let allowed = usize::try_from(self.credit / one).unwrap_or(usize::MAX).min(silent);
        self.credit -= allowed as u64 * one;
        allowed
    }

    /// A node was taken offline. Counts only while the brake is on.
    pub fn evicted(&mut self, node_id: &NodeId) {
        if self.on {
            self.evicted.insert(node_id.clone());
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(120);

    #[test]
    fn it_goes_on_when_most_of_the_fleet_is_silent() {
        // Silent, present, how many may go at once.
        for (silent, present, allowed) in [
            (0, 0, 0),
            (1, 1, 1),
            (2, 2, 2),
            (2, 3, 2),
            (3, 6, 3),
            (3, 5, 0),
            (5, 10, 5),
            (6, 10, 0),
            (10, 10, 0),
            (50, 100, 50),
            (51, 100, 0),
        ] {
            let mut brake = Brake::default();
            let options = BrakeOptions::default();
            let got = brake.allow(options, (silent, present), |_| true, (TIMEOUT, TIMEOUT));
            assert_eq!(got, allowed, "{silent} of {present}");
            assert_eq!(brake.is_on(), allowed < silent, "{silent} of {present}");
        }
    }

    #[test]
    fn a_tenth_of_the_fleet_goes_per_timeout_until_it_is_back() {
        let (options, mut brake) = (BrakeOptions::default(), Brake::default());
        let (mut silent, mut present) = (60, 100);
        let mut gone_at = Vec::new();
        for second in 0..=240 {
            let now = (Duration::from_secs(second), TIMEOUT);
            let allowed = brake.allow(options, (silent, present), |_| true, now);
            for _ in 0..allowed {
                brake.evicted(&NodeId::trusted(&format!("n{silent}")));
                (silent, present) = (silent - 1, present - 1);
                gone_at.push(second);
            }
        }
        assert_eq!(gone_at.len(), 20, "{gone_at:?}");
        assert_eq!(gone_at[0], 12);
        // Everybody comes back, those taken offline too.
        let now = (Duration::from_secs(241), TIMEOUT);
        assert_eq!(brake.allow(options, (0, 100), |_| false, now), 0);
        assert!(!brake.is_on());
    }

    #[test]
    fn a_small_fleet_loses_at_least_one_per_timeout() {
        let (options, mut brake) = (BrakeOptions::default(), Brake::default());
        assert_eq!(brake.allow(options, (3, 4), |_| true, (Duration::ZERO, TIMEOUT)), 0);
        let half = (TIMEOUT / 2, TIMEOUT);
        assert_eq!(brake.allow(options, (3, 4), |_| true, half), 0);
        assert_eq!(brake.allow(options, (3, 4), |_| true, (TIMEOUT, TIMEOUT)), 1);
    }

    #[test]
    fn credit_does_not_pile_up() {
        let (options, mut brake) = (BrakeOptions::default(), Brake::default());
        brake.allow(options, (60, 100), |_| true, (Duration::ZERO, TIMEOUT));
        let late = (TIMEOUT * 50, TIMEOUT);
        assert_eq!(brake.allow(options, (60, 100), |_| true, late), 10);
    }
}
