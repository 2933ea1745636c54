//! What probes saw, with times since the first probe, and the figures made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

/// The width of one step of the plot.
pub(super) const BUCKET: Duration = Duration::from_millis(100);
/// The most steps; a longer drill is plotted in wider ones.
const BUCKETS_MAX: usize = 600;

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was acknowledged.
    Acknowledged,
    /// It was certainly not done.
    NotDone,
    /// It may have been done.
    Unknown,
}

#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) task_id: String,
    pub(super) ended: Duration,
    pub(super) end: End,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    pub(super) member: u64,
    pub(super) ended: Duration,
    pub(super) good: bool,
}

/// A dispatch that reached the probe node.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) task_id: String,
    pub(super) attempt: u64,
    pub(super) at: Duration,
}

/// Everything that was seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples {
    pub(super) writes: Vec<Write>,
    pub(super) reads: Vec<Read>,
    /// Reads that showed less than had been acknowledged before they were sent.
    pub(super) stale: u64,
    pub(super) arrivals: Vec<Arrival>,
}

/// The longest time between two moments of `moments` that touches `from..to`; the window's end
/// closes the last one. Moments need not be sorted.
#[must_use]
pub fn longest_gap(
    moments: impl IntoIterator<Item = Duration>,
    from: Duration,
    to: Duration,
) -> Duration {
    let mut moments: Vec<Duration> = moments.into_iter().filter(|at| *at <= to).collect();
    moments.sort_unstable();
    let (mut longest, mut last) = (Duration::ZERO, None);
    for at in moments.into_iter().chain([to]) {
        if at >= from {
            longest = longest.max(at - last.unwrap_or_else(|| from.min(at)));
        }
        last = Some(at);
    }
    longest
}

impl Samples {
    pub(super) fn acknowledged(&self) -> impl Iterator<Item = &Write> {
        self.writes.iter().filter(|write| write.end == End::Acknowledged)
    }

    pub(super) fn ended_as(&self, end: End) -> usize {
        self.writes.iter().filter(|write| write.end == end).count()
    }

    pub(super) fn good_reads(&self) -> impl Iterator<Item = &Read> {
        self.reads.iter().filter(|read| read.good)
    }

    /// When something of each class succeeded.
    pub(super) fn write_moments(&self) -> impl Iterator<Item = Duration> {
        self.acknowledged().map(|write| write.ended)
    }

    pub(super) fn read_moments(&self) -> impl Iterator<Item = Duration> {
        self.good_reads().map(|read| read.ended)
    }

    pub(super) fn arrival_moments(&self) -> impl Iterator<Item = Duration> {
        self.arrivals.iter().map(|arrival| arrival.at)
    }

    /// Tasks of which more than one attempt was handed over.
    pub(super) fn doubled(&self) -> Vec<String> {
        let mut attempts: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for arrival in &self.arrivals {
            attempts.entry(&arrival.task_id).or_default().insert(arrival.attempt);
        }
        let twice = attempts.into_iter().filter(|(_, attempts)| attempts.len() > 1);
        twice.map(|(task_id, _)| task_id.to_owned()).collect()
    }

    /// Dispatches of an attempt that had arrived before: harmless, because a node runs it once.
    pub(super) fn repeated(&self) -> usize {
        let distinct: BTreeSet<(&str, u64)> =
            self.arrivals.iter().map(|a| (a.task_id.as_str(), a.attempt)).collect();
        self.arrivals.len() - distinct.len()
    }

    /// Successes and failures per step, for the plot.
    pub(super) fn timeline(&self, end: Duration) -> Value {
        let mut bucket = BUCKET;
        while end.as_millis() / bucket.as_millis() >= BUCKETS_MAX as u128 {
            bucket *= 2;
        }
        let steps = (end.as_millis() / bucket.as_millis()) as usize + 1;
        let count = |moments: &mut dyn Iterator<Item = Duration>| -> Vec<u32> {
            let mut counts = vec![0; steps];
            for at in moments {
                let step = (at.as_millis() / bucket.as_millis()) as usize;
                if let Some(count) = counts.get_mut(step) {
                    *count += 1;
                }
            }
            counts
        };
        let failed = |write: &&Write| write.end != End::Acknowledged;
        json!({
            "bucket_ms": bucket.as_millis() as u64,
            "writes": count(&mut self.write_moments()),
            "writes_failed": count(&mut self.writes.iter().filter(failed).map(|w| w.ended)),
            "reads": count(&mut self.read_moments()),
            "reads_failed": count(&mut self.reads.iter().filter(|r| !r.good).map(|r| r.ended)),
            "dispatches": count(&mut self.arrival_moments()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn gaps_are_those_that_touch_the_window() {
        let cases: [(&[u64], u64, u64, u64); 7] = [
            (&[10, 20, 500, 510], 100, 520, 480),
            (&[510, 20, 500, 10], 100, 520, 480),
            (&[0, 400, 410, 500], 405, 520, 90),
            (&[10, 20, 30], 25, 100, 70),
            (&[], 100, 400, 300),
            (&[350], 100, 400, 250),
            (&[10, 20, 900], 15, 300, 280),
        ];
        for (moments, from, to, expected) in cases {
            let found = longest_gap(moments.iter().map(|at| ms(*at)), ms(from), ms(to));
            assert_eq!(found, ms(expected), "{moments:?} in {from}..{to}");
        }
    }

    #[test]
    fn another_attempt_is_doubled_and_the_same_one_repeated() {
        let arrival = |task_id: &str, attempt| Arrival {
            task_id: task_id.to_owned(),
            attempt,
            at: Duration::ZERO,
        };
        let arrivals = vec![arrival("a", 1), arrival("a", 1), arrival("b", 1), arrival("b", 2)];
        let samples = Samples { arrivals, ..Samples::default() };
        assert_eq!((samples.doubled(), samples.repeated()), (vec!["b".to_owned()], 1));
    }

    #[test]
    fn a_long_drill_is_plotted_in_wider_steps() {
        let read = |at| Read { member: 1, ended: ms(at), good: true };
        let samples = Samples { reads: vec![read(0), read(90_000)], ..Samples::default() };
        let line = samples.timeline(ms(90_000));
        assert_eq!(line["bucket_ms"], 200);
        let reads = line["reads"].as_array().unwrap();
        assert!(reads.len() <= BUCKETS_MAX);
        assert_eq!((&reads[0], &reads[450]), (&json!(1), &json!(1)));
    }
}
