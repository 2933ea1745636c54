//! What a run counts: successes, latencies, errors by code, gaps, and the marks of a failover.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::gaps::Gaps;
use super::histogram::Histogram;

/// Errors of more kinds than this are counted under `other`.
const ERROR_CODES_MAX: usize = 32;

/// The part of a run that is measured; what is due before is warm-up.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// First instant that counts.
    pub start: Instant,
    /// First instant that does not count any more.
    pub end: Instant,
}

impl Window {
    /// From `warmup` after `now` on, for `length`.
    #[must_use]
    pub fn new(now: Instant, warmup: Duration, length: Duration) -> Self {
        Self { start: now + warmup, end: now + warmup + length }
    }

    /// Whether `at` is measured.
    #[must_use]
    pub fn holds(&self, at: Instant) -> bool {
        self.start <= at && at < self.end
    }

    /// Ends at `now`, when that is earlier than planned.
    pub fn cut(&mut self, now: Instant) {
        self.end = self.end.min(now).max(self.start);
    }

    /// How long it is.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.end - self.start
    }
}

/// A request that came to its end.
#[derive(Debug, Clone, Copy)]
pub struct Finished {
    /// When it should have been sent.
    pub due: Instant,
    /// When it was sent.
    pub sent: Instant,
    /// When its reply was read.
    pub done: Instant,
}

/// Waits for the first success of a request that was sent after a kill.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    last_before: Instant,
    acknowledged: Option<Instant>,
}

/// How one kill looked from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// From the kill to the first acknowledgement of a write that was sent after it.
    pub next_ack: Duration,
    /// From the last acknowledgement before the kill to that one.
    pub silence: Duration,
}

/// The counters of one run. One per run, behind a lock that one thread takes.
#[derive(Debug)]
pub struct Tally {
    window: Window,
    latencies: Histogram,
    lateness: Histogram,
    gaps: Gaps,
    errors: BTreeMap<String, u64>,
    /// Successes within the window: the rate.
    completed: u64,
    /// All successes, warm-up and drain included.
    acknowledged: u64,
    last_success: Instant,
    mark: Option<Mark>,
}

impl Tally {
    /// Counts within `window`; lists gaps of `gap_threshold` and more.
    #[must_use]
    pub fn new(window: Window, gap_threshold: Duration) -> Self {
        Self {
            window,
            latencies: Histogram::default(),
            lateness: Histogram::default(),
            gaps: Gaps::new(window.start, gap_threshold),
            errors: BTreeMap::new(),
            completed: 0,
            acknowledged: 0,
            last_success: window.start,
            mark: None,
        }
    }

    /// A request that succeeded. It counts for the rate when it ended in the window, for the
    /// latencies when it was due in it: so the slow ones at the end are not cut off.
    pub fn success(&mut self, finished: Finished) {
        let Finished { due, sent, done } = finished;
        self.acknowledged += 1;
        self.completed += u64::from(self.window.holds(done));
        if self.window.holds(due) {
            self.latencies.record(done.saturating_duration_since(due));
            self.lateness.record(sent.saturating_duration_since(due));
        }
        if done < self.window.end {
            self.gaps.success(done);
        }
        if let Some(mark) = &mut self.mark {
            if mark.acknowledged.is_none() && sent >= mark.at {
                mark.acknowledged = Some(done);
            }
        }
        self.last_success = self.last_success.max(done);
    }

    /// A request that failed with `code`, due at `due`.
    pub fn failure(&mut self, due: Instant, code: &str) {
        if self.window.holds(due) {
            self.errors_of(code, 1);
        }
    }

    /// Adds `count` errors whatever their time.
    pub fn errors_of(&mut self, code: &str, count: u64) {
        if count == 0 {
            return;
        }
        if let Some(seen) = self.errors.get_mut(code) {
            *seen += count;
            return;
        }
        let code = if self.errors.len() < ERROR_CODES_MAX { code } else { "other" };
        *self.errors.entry(code.to_owned()).or_default() += count;
    }

    /// From `at` on, watch for the next acknowledgement.
    pub fn mark(&mut self, at: Instant) {
        self.mark = Some(Mark { at, last_before: self.last_success, acknowledged: None });
    }

    /// What the newest mark saw, once a write was acknowledged.
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        let mark = self.mark?;
        let acknowledged = mark.acknowledged?;
        let silence = acknowledged.saturating_duration_since(mark.last_before);
        Some(Outage { next_ack: acknowledged - mark.at, silence })
    }

    /// Ends the measurement: at the end of the window, or at `now` when the run ended earlier.
    pub fn finish(&mut self, now: Instant) {
        self.window.cut(now);
        self.gaps.finish(self.window.end);
    }

    /// What is measured.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// The length of the window.
    #[must_use]
    pub fn measured(&self) -> Duration {
        self.window.length()
    }

    /// Successes per second within the window.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub fn per_sec(&self) -> f64 {
        let secs = self.measured().as_secs_f64();
        if secs > 0.0 { self.completed as f64 / secs } else { 0.0 }
    }

    /// Latencies from the due time, of requests due in the window.
    #[must_use]
    pub fn latencies(&self) -> &Histogram {
        &self.latencies
    }

    /// How far behind its due time a request was sent: all clients busy, or the generator itself
    /// too slow.
    #[must_use]
    pub fn lateness(&self) -> &Histogram {
        &self.lateness
    }

    /// The silences.
    #[must_use]
    pub fn gaps(&self) -> &Gaps {
        &self.gaps
    }

    /// Errors by code.
    #[must_use]
    pub fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }

    /// Successes within the window.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.completed
    }

    /// All successes of the run, warm-up included.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A window of two seconds behind one of warm-up, and the begin of the warm-up.
    fn tally() -> (Tally, Instant) {
        let begin = Instant::now();
        (Tally::new(Window::new(begin, ms(1000), ms(2000)), ms(100)), begin)
    }

    fn finished(begin: Instant, due: u64, done: u64) -> Finished {
        Finished { due: begin + ms(due), sent: begin + ms(due), done: begin + ms(done) }
    }

    #[test]
    fn the_rate_counts_what_ended_in_the_window() {
        let (mut tally, begin) = tally();
        for (due, done) in [(500, 900), (900, 1100), (1500, 1600), (2900, 2999), (2950, 3100)] {
            tally.success(finished(begin, due, done));
        }
        tally.finish(begin + ms(4000));
        assert_eq!((tally.completed(), tally.acknowledged()), (3, 5));
        assert!((tally.per_sec() - 1.5).abs() < 1e-9);
    }

    #[test]
    fn latencies_count_what_was_due_in_the_window() {
        let (mut tally, begin) = tally();
        tally.success(finished(begin, 900, 1900));
        tally.success(finished(begin, 1500, 1510));
        tally.success(finished(begin, 2900, 4900));
        assert_eq!(tally.latencies().count(), 2);
        assert_eq!(tally.latencies().max(), ms(2000));
    }

    #[test]
    fn latency_runs_from_the_due_time_and_not_from_sending() {
        let (mut tally, begin) = tally();
        let (due, sent, done) = (begin + ms(1500), begin + ms(1900), begin + ms(1905));
        tally.success(Finished { due, sent, done });
        assert_eq!(tally.latencies().max(), ms(405));
        assert_eq!(tally.lateness().max(), ms(400));
    }

    #[test]
    fn a_run_that_ends_early_is_measured_until_then() {
        let (mut tally, begin) = tally();
        tally.success(finished(begin, 1100, 1200));
        tally.success(finished(begin, 1100, 1400));
        tally.finish(begin + ms(1500));
        assert_eq!(tally.measured(), ms(500));
        assert!((tally.per_sec() - 4.0).abs() < 1e-9);
        tally.finish(begin + ms(1400));
        assert_eq!(tally.measured(), ms(400));
    }

    #[test]
    fn errors_are_kept_apart_by_code_and_bounded() {
        let (mut tally, begin) = tally();
        tally.failure(begin + ms(500), "503");
        tally.failure(begin + ms(1500), "503");
        tally.failure(begin + ms(1600), "503");
        tally.failure(begin + ms(1600), "timeout");
        assert_eq!(tally.errors().get("503"), Some(&2));
        assert_eq!(tally.errors().get("timeout"), Some(&1));
        for code in 0..100 {
            tally.failure(begin + ms(1700), &code.to_string());
        }
        assert_eq!(tally.errors().len(), ERROR_CODES_MAX + 1);
        assert_eq!(tally.errors().get("other"), Some(&(100 - 30)));
    }

    #[test]
    fn an_acknowledgement_of_an_older_write_does_not_end_an_outage() {
        let (mut tally, begin) = tally();
        tally.success(finished(begin, 1100, 1195));
        tally.mark(begin + ms(1200));
        assert_eq!(tally.outage(), None);
        tally.success(finished(begin, 1190, 1210));
        assert_eq!(tally.outage(), None, "it was sent before the kill");
        tally.success(finished(begin, 1201, 1600));
        tally.success(finished(begin, 1601, 1602));
        assert_eq!(tally.outage(), Some(Outage { next_ack: ms(400), silence: ms(405) }));
    }
}
