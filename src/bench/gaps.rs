//! Silences: the time between two successes, over all clients. What a failover costs.

use std::time::Duration;

use tokio::time::Instant;

/// More gaps than this are counted and not listed.
const LISTED_MAX: usize = 1000;

/// One silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// When it began, from the start of the measurement.
    pub at: Duration,
    /// How long it was.
    pub length: Duration,
}

/// Watches the successes of a run go by.
#[derive(Debug)]
pub struct Gaps {
    start: Instant,
    last: Instant,
    threshold: Duration,
    longest: Duration,
    listed: Vec<Gap>,
    count: u64,
}

impl Gaps {
    /// Lists the gaps of `threshold` and more; the first may begin at `start`.
    #[must_use]
    pub fn new(start: Instant, threshold: Duration) -> Self {
        let (longest, listed) = (Duration::ZERO, Vec::new());
        Self { start, last: start, threshold, longest, listed, count: 0 }
    }

    /// A success. Those before the start of the measurement do not count; one that was seen late
    /// does not open a gap into the past.
    pub fn success(&mut self, now: Instant) {
        if now < self.last {
            return;
        }
        let length = now - self.last;
        self.longest = self.longest.max(length);
        if length >= self.threshold {
            self.count += 1;
            if self.listed.len() < LISTED_MAX {
                self.listed.push(Gap { at: self.last - self.start, length });
            }
        }
        self.last = now;
    }

    /// The end of the measurement closes the gap that is open then.
    pub fn finish(&mut self, now: Instant) {
        self.success(now);
    }

    /// The longest silence.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The silences of the threshold or more, oldest first; at most a thousand.
    #[must_use]
    pub fn listed(&self) -> &[Gap] {
        &self.listed
    }

    /// How many silences reached the threshold, listed or not.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_pause_between_successes_is_found() {
        let start = Instant::now();
        let mut gaps = Gaps::new(start, ms(100));
        for at in [10, 20, 30, 530, 540, 640, 739] {
            gaps.success(start + ms(at));
        }
        gaps.finish(start + ms(800));
        let expected = [Gap { at: ms(30), length: ms(500) }, Gap { at: ms(540), length: ms(100) }];
        assert_eq!(gaps.listed(), expected);
        assert_eq!((gaps.longest(), gaps.count()), (ms(500), 2));
    }

    #[test]
    fn silence_at_the_start_and_at_the_end_counts() {
        let start = Instant::now();
        let mut gaps = Gaps::new(start, ms(100));
        gaps.success(start + ms(300));
        gaps.finish(start + ms(700));
        let expected = [Gap { at: ms(0), length: ms(300) }, Gap { at: ms(300), length: ms(400) }];
        assert_eq!(gaps.listed(), expected);
    }

    #[test]
    fn nothing_at_all_is_one_long_gap() {
        let start = Instant::now();
        let mut gaps = Gaps::new(start, ms(100));
        gaps.finish(start + ms(5000));
        assert_eq!((gaps.longest(), gaps.count()), (ms(5000), 1));
    }

    #[test]
    fn warm_up_and_late_news_do_not_count() {
        let start = Instant::now() + ms(1000);
        let mut gaps = Gaps::new(start, ms(100));
        gaps.success(start - ms(900));
        gaps.success(start + ms(90));
        gaps.success(start + ms(80));
        gaps.success(start + ms(180));
        assert_eq!((gaps.longest(), gaps.count()), (ms(90), 0));
    }

    #[test]
    fn the_list_is_bounded_and_the_count_is_not() {
        let start = Instant::now();
        let mut gaps = Gaps::new(start, ms(1));
        (1..=1500).for_each(|n| gaps.success(start + ms(n)));
        assert_eq!((gaps.listed().len(), gaps.count()), (LISTED_MAX, 1500));
    }
}
