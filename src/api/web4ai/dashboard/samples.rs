//! The last hundred minutes as this member saw them, for the dashboard's history.
//!
//! Every half minute the member confirms that it is up to date and notes the replicated totals and
//! the state of the fleet. For the time before it started, and for times when it was cut off, the
//! totals are found again from the ends of the tasks that are retained; the state of the fleet at
//! such a time is not known to anybody, and stays so. Samples are kept in memory only.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::api::web4ai::figures::means;
use crate::api::web4ai::nodes::{Book, active_nodes};
use crate::cluster::{Cluster, Consistency};
use crate::model::{TaskStatus, TimeMs};
use crate::state::{EndedKey, State as Tables};

/// From one sample to the next.
pub(super) const SAMPLE_EVERY_MS: TimeMs = 30_000;
/// Samples older than this are dropped: twenty points five minutes apart, and one step more.
const SPAN_MS: TimeMs = 20 * 300_000 + 2 * SAMPLE_EVERY_MS;
/// The most samples kept, whatever the clock does.
const SAMPLES_MAX: usize = 512;
/// A sample speaks for a time no further behind it than this.
const FRESH_MS: TimeMs = SAMPLE_EVERY_MS + SAMPLE_EVERY_MS / 2;
/// The pause after a time at which the member could not confirm that it is up to date.
const RETRY: Duration = Duration::from_secs(1);
/// Ended tasks looked at while the state is held, and in all.
const CHUNK: usize = 500;
const SCAN_MAX: usize = 100_000;

/// Totals since the cluster began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) completed: u64,
    pub(super) failed: u64,
    pub(super) response_ms: u64,
}

/// The fleet at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Gauges {
    pub(super) active_nodes: usize,
    pub(super) utilization: f64,
    pub(super) cpu: f64,
    pub(super) memory: f64,
    pub(super) gpu: f64,
}

/// What is known of one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    pub(super) at_ms: TimeMs,
    pub(super) totals: Totals,
    pub(super) gauges: Option<Gauges>,
}

impl Sample {
    pub(super) fn of(state: &Tables, book: &Book) -> Self {
        let (counters, means) = (state.counters(), means(state, book));
        Self {
            at_ms: book.now(),
            totals: Totals {
                completed: counters.tasks_completed,
                failed: counters.tasks_failed,
                response_ms: counters.response_ms_total,
            },
            gauges: Some(Gauges {
                active_nodes: active_nodes(state),
                utilization: means.load,
                cpu: means.cpu,
                memory: means.memory,
                gpu: means.gpu,
            }),
        }
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(in crate::api) struct Samples(Mutex<Vec<Sample>>);

impl Samples {
    /// What was known at `at`.
    pub(super) fn at(&self, at: TimeMs) -> Option<Sample> {
        let samples = self.0.lock();
        let later = samples.partition_point(|sample| sample.at_ms <= at);
        let newest = samples.get(later.checked_sub(1)?)?;
        (at - newest.at_ms <= FRESH_MS).then_some(*newest)
    }

    fn newest_before(&self, at: TimeMs) -> TimeMs {
        let samples = self.0.lock();
        let before = samples.partition_point(|sample| sample.at_ms < at);
        before.checked_sub(1).map_or(0, |place| samples[place].at_ms)
    }

    /// Adds samples in their order. When the clock went back, what it said before was not the time:
    /// samples that seem to be of the future are dropped.
    fn add(&self, more: impl IntoIterator<Item = Sample>) {
        let mut samples = self.0.lock();
        for sample in more {
            let before = samples.partition_point(|known| known.at_ms < sample.at_ms);
            samples.truncate(before);
            samples.push(sample);
        }
        let newest = samples.last().map_or(0, |sample| sample.at_ms);
        let old = samples.partition_point(|sample| sample.at_ms.saturating_add(SPAN_MS) < newest);
        let many = samples.len().saturating_sub(SAMPLES_MAX);
        samples.drain(..old.max(many));
    }
}

/// Takes samples until `closing`.
pub(in crate::api) async fn follow(
    samples: Arc<Samples>,
    cluster: Cluster,
    closing: CancellationToken,
) {
    let mut pause = Duration::ZERO;
    loop {
        let taken = tokio::select! {
            biased;
            () = closing.cancelled() => return,
            taken = async { sleep(pause).await; take(&samples, &cluster).await } => taken,
        };
        pause = if taken { Duration::from_millis(SAMPLE_EVERY_MS) } else { RETRY };
    }
}

/// Takes one sample, and finds again what was missed since the last one. A member that cannot say
/// that it is up to date takes none: its totals would be those of another time.
async fn take(samples: &Samples, cluster: &Cluster) -> bool {
    if cluster.read_barrier(Consistency::Linearizable).await.is_err() {
        return false;
    }
    let book = Book::read(cluster);
    // The totals and the newest end in them are of one moment, which the walk back starts from.
    let (sample, newest) = cluster.view().read(|state| {
        let newest = state.ended_keys(None, true).next();
        (Sample::of(state, &book), newest)
    });
    let oldest = sample.at_ms.saturating_sub(SPAN_MS);
    let known_to = samples.newest_before(sample.at_ms).max(oldest);
    if sample.at_ms.saturating_sub(known_to) > FRESH_MS {
        let after = newest.map(|(at, seq)| (at, seq.saturating_add(1)));
        samples.add(found_again(cluster, known_to, &sample, after).await);
    }
    samples.add([sample]);
    true
}

/// Samples of the time from `known_to` to `newest`, as far as the retained tasks reach. The ends in
/// `newest` are those before `after`.
async fn found_again(
    cluster: &Cluster,
    known_to: TimeMs,
    newest: &Sample,
    mut after: Option<EndedKey>,
) -> Vec<Sample> {
    let mut rewind = Rewind::new(known_to, newest);
    let mut scanned = 0;
    loop {
        let (ends, all) = cluster.view().read(|state| {
            let ends: Vec<_> = ends(state, after, known_to).collect();
            let nothing_is_gone = state.counters().tasks_submitted == state.tasks_len() as u64;
            (ends, nothing_is_gone)
        });
        scanned += ends.len();
        let whole = ends.len() < CHUNK;
        let past = ends.last().is_some_and(|end| end.key.0 <= known_to);
        after = ends.last().map(|end| end.key).or(after);
        for end in ends {
            rewind.undo(&end);
        }
        if past || (whole && all) {
            return rewind.finish();
        }
        if whole || scanned >= SCAN_MAX {
            // What ended before is deleted, or too much to look at.
            return rewind.samples();
        }
        tokio::task::yield_now().await;
    }
}

/// The end of one task.
#[derive(Debug, Clone, Copy)]
struct End {
    key: EndedKey,
    status: TaskStatus,
    response_ms: u64,
}

/// The newest ends before `after`, at most a chunk of them, and the first that is too old.
fn ends(state: &Tables, after: Option<EndedKey>, known_to: TimeMs) -> impl Iterator<Item = End> {
    let mut done = false;
    let keys = state.ended_keys(after, true).take(CHUNK);
    let keys = keys.take_while(move |(at, _)| !std::mem::replace(&mut done, *at <= known_to));
    keys.filter_map(|key| {
        let task = state.task_at(key.1)?;
        let response_ms = task.completed_at_ms.saturating_sub(task.created_at_ms);
        Some(End { key, status: task.status, response_ms })
    })
}

/// Goes back in time from known totals, end by end.
#[derive(Debug)]
struct Rewind {
    totals: Totals,
    /// The next moment to note.
    due: TimeMs,
    known_to: TimeMs,
    /// Newest first.
    noted: Vec<Sample>,
}

impl Rewind {
    fn new(known_to: TimeMs, newest: &Sample) -> Self {
        let due = newest.at_ms.saturating_sub(SAMPLE_EVERY_MS);
        Self { totals: newest.totals, due, known_to, noted: Vec::new() }
    }

    /// Takes one end, the newest of those that are left, out of the totals.
    fn undo(&mut self, end: &End) {
        self.note_down_to(end.key.0);
        let totals = &mut self.totals;
        match end.status {
            TaskStatus::Completed => {
                totals.completed = totals.completed.saturating_sub(1);
                totals.response_ms = totals.response_ms.saturating_sub(end.response_ms);
            }
            TaskStatus::Failed | TaskStatus::TimedOut | TaskStatus::DeadLetter => {
                totals.failed = totals.failed.saturating_sub(1);
            }
            TaskStatus::Cancelled
            | TaskStatus::Pending
            | TaskStatus::Retrying
            | TaskStatus::Assigned
            | TaskStatus::Running
            | TaskStatus::Waiting
            | TaskStatus::Stepping => {}
        }
    }

    fn note_down_to(&mut self, at: TimeMs) {
        while self.due >= at && self.due > self.known_to && self.noted.len() < SAMPLES_MAX {
            self.noted.push(Sample { at_ms: self.due, totals: self.totals, gauges: None });
            self.due = self.due.saturating_sub(SAMPLE_EVERY_MS);
        }
    }

    /// Nothing ended in the time that is left.
    fn finish(mut self) -> Vec<Sample> {
        self.note_down_to(self.known_to);
        self.samples()
    }

    fn samples(self) -> Vec<Sample> {
        self.noted.into_iter().rev().collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::api::web4ai::dashboard) fn sample(at_ms: TimeMs, completed: u64) -> Sample {
        let totals = Totals { completed, failed: 0, response_ms: completed * 100 };
        Sample { at_ms, totals, gauges: None }
    }

    pub(in crate::api::web4ai::dashboard) fn samples(all: &[Sample]) -> Samples {
        let samples = Samples::default();
        samples.add(all.iter().copied());
        samples
    }

    #[test]
    fn a_sample_speaks_for_a_short_while() {
        let samples = samples(&[sample(100_000, 1), sample(130_000, 2)]);
        assert_eq!(samples.at(99_999), None);
        assert_eq!(samples.at(129_999).unwrap().totals.completed, 1);
        assert_eq!(samples.at(130_000 + FRESH_MS).unwrap().totals.completed, 2);
        assert_eq!(samples.at(130_001 + FRESH_MS), None);
    }

    #[test]
    fn samples_are_bounded_and_follow_a_clock_that_goes_back() {
        let kept = Samples::default();
        for number in 1..=2000 {
            kept.add([sample(number * SAMPLE_EVERY_MS, number)]);
        }
        assert_eq!(kept.0.lock().len() as u64, SPAN_MS / SAMPLE_EVERY_MS + 1);
        // The clock goes back by ten samples.
        kept.add([sample(1990 * SAMPLE_EVERY_MS, 2001)]);
        let all = kept.0.lock();
        assert_eq!(all.len() as u64, SPAN_MS / SAMPLE_EVERY_MS + 1 - 10);
        assert!(all.is_sorted_by_key(|sample| sample.at_ms));
        assert_eq!(all.last().unwrap().totals.completed, 2001);
        drop(all);
        let fast = Samples::default();
        fast.add((1..2000).map(|number| sample(number, number)));
        assert_eq!(fast.0.lock().len(), SAMPLES_MAX);
    }

    #[test]
    fn totals_of_the_past_are_found_from_the_ends_of_tasks() {
        let newest = sample(1_000_000, 10);
        let mut rewind = Rewind::new(880_000, &newest);
        let end = |at, status| End { key: (at, at), status, response_ms: 100 };
        rewind.undo(&end(975_000, TaskStatus::Completed));
        rewind.undo(&end(945_000, TaskStatus::Completed));
        rewind.undo(&end(944_000, TaskStatus::Cancelled));
        rewind.undo(&end(910_000, TaskStatus::Completed));
        let at = |samples: Vec<Sample>| -> Vec<_> {
            samples.iter().map(|sample| (sample.at_ms, sample.totals.completed)).collect()
        };
        // Only what is certain: whether something ended before 910,000 is open.
        let noted = rewind.noted.iter().rev().copied().collect();
        assert_eq!(at(noted), [(910_000, 8), (940_000, 8), (970_000, 9)]);
        assert_eq!(at(rewind.finish()), [(910_000, 8), (940_000, 8), (970_000, 9)]);
    }
}
