//! When requests are due: as soon as a client is free (closed loop), or at fixed times whatever
//! the members do (open loop).
//!
//! In an open loop the n-th request is due at `start + n / rate`, and its latency counts from
//! there. A stall therefore costs every request that was due in it, not only the few that were in
//! flight: nothing is coordinated away. A thread releases the due requests, because tokio's timers
//! have a grain of one millisecond, more than a write takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Due times of an open loop: the n-th at `start + n / rate`.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    start: Instant,
    per_sec: f64,
}

impl Schedule {
    /// A schedule of `per_sec` requests per second; the rate is positive and finite.
    #[must_use]
    pub fn new(start: Instant, per_sec: f64) -> Self {
        assert!(per_sec > 0.0 && per_sec.is_finite(), "the rate was checked with the arguments");
        Self { start, per_sec }
    }

    /// When request `n` is due. Computed from `n` and not from its predecessor, so that rounding
    /// does not add up.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "request numbers stay far below 2^53")]
    pub fn due(&self, n: u64) -> Instant {
        self.start + Duration::from_secs_f64(n as f64 / self.per_sec)
    }

    /// How many requests are due at `now`.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a non-negative count far below 2^53; the loops absorb a rounding by one"
    )]
    pub fn due_until(&self, now: Instant) -> u64 {
        let Some(elapsed) = now.checked_duration_since(self.start) else { return 0 };
        let mut n = (elapsed.as_secs_f64() * self.per_sec) as u64 + 1;
        while n > 0 && self.due(n - 1) > now {
            n -= 1;
        }
        while self.due(n) <= now {
            n += 1;
        }
        n
    }
}

/// How long behind the end of an open loop its backlog is still sent. What is left then counts as
/// unsent, so that an overloaded run ends.
const BACKLOG_GRACE: Duration = Duration::from_secs(1);

/// One request to send.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    /// Unique within the run, from 0 on.
    pub number: u64,
    /// When it should be sent: latency counts from here.
    pub due: Instant,
}

/// Hands out tickets to all clients of a run until its end or its last request.
pub struct Pace {
    next: AtomicU64,
    sent: AtomicU64,
    requests_max: u64,
    end: Instant,
    open: Option<Open>,
}

/// What an open loop needs more.
struct Open {
    schedule: Schedule,
    /// One permit for each request that is due.
    released: Arc<Semaphore>,
    pacer: Arc<Pacer>,
}

impl Pace {
    /// Tickets until `end`, at most `requests_max`; at `per_sec` when it is an open loop.
    #[must_use]
    pub fn new(start: Instant, end: Instant, requests_max: u64, per_sec: Option<f64>) -> Self {
        let (next, sent) = (AtomicU64::new(0), AtomicU64::new(0));
        let Some(per_sec) = per_sec else {
            return Self { next, sent, requests_max, end, open: None };
        };
        let schedule = Schedule::new(start, per_sec);
        let requests_max = schedule.due_until(end).min(requests_max);
        let released = Arc::new(Semaphore::new(0));
        let pacer = Pacer::start(schedule, requests_max, Arc::clone(&released));
        Self { next, sent, requests_max, end, open: Some(Open { schedule, released, pacer }) }
    }

    /// The next request, waiting for it when it is not due yet; `None` when the run is over.
    ///
    /// What was due until the end is sent, however late, so that a backlog shows in the
    /// latencies; but not for longer than a second behind the end.
    pub async fn next(&self) -> Option<Ticket> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.requests_max {
            return None;
        }
        let Some(open) = &self.open else {
            let now = Instant::now();
            return (now < self.end).then_some(Ticket { number, due: now });
        };
        open.released.acquire().await.ok()?.forget();
        if Instant::now() >= self.end + BACKLOG_GRACE {
            return None;
        }
        self.sent.fetch_add(1, Ordering::Relaxed);
        Some(Ticket { number, due: open.schedule.due(number) })
    }

    /// How many requests of an open loop were due until `now` (or its end) and never sent.
    #[must_use]
    pub fn unsent(&self, now: Instant) -> u64 {
        let until = now.min(self.end);
        let due = |open: &Open| open.schedule.due_until(until).min(self.requests_max);
        self.open.as_ref().map_or(0, due).saturating_sub(self.sent.load(Ordering::Relaxed))
    }

    /// Ends the run early: clients that wait for a ticket get none.
    pub fn stop(&self) {
        // Far beyond any number of requests, and far from an overflow.
        self.next.store(u64::MAX / 2, Ordering::Relaxed);
        if let Some(open) = &self.open {
            open.pacer.stop();
            open.released.close();
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The thread that releases what is due.
struct Pacer {
    stopped: Mutex<bool>,
    wake: Condvar,
}

impl Pacer {
    fn start(schedule: Schedule, requests: u64, released: Arc<Semaphore>) -> Arc<Self> {
        let pacer = Arc::new(Self { stopped: Mutex::new(false), wake: Condvar::new() });
        let mine = Arc::clone(&pacer);
        std::thread::spawn(move || mine.run(schedule, requests, &released));
        pacer
    }

    fn run(&self, schedule: Schedule, requests: u64, released: &Semaphore) {
        let mut done = 0;
        let mut stopped = self.stopped.lock();
        while !*stopped && done < requests {
            let now = Instant::now();
            let due = schedule.due_until(now).min(requests);
            if due > done {
                let fresh = usize::try_from(due - done).unwrap_or(usize::MAX);
                released.add_permits(fresh.min(Semaphore::MAX_PERMITS / 2));
                done = due;
                continue;
            }
            let pause = schedule.due(done).saturating_duration_since(now);
            self.wake.wait_for(&mut stopped, pause);
        }
    }

    fn stop(&self) {
        *self.stopped.lock() = true;
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_request_is_due_at_n_over_rate() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 250.0);
        assert_eq!(schedule.due(0), start);
        assert_eq!(schedule.due(1), start + Duration::from_millis(4));
        assert_eq!(schedule.due(250 * 3600), start + Duration::from_secs(3600));
    }

    #[test]
    fn rounding_does_not_add_up() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 3.0);
        assert_eq!(schedule.due(3_000_000), start + Duration::from_secs(1_000_000));
    }

    #[test]
    fn what_is_due_agrees_with_when_it_is_due() {
        let start = Instant::now();
        for per_sec in [0.5, 3.0, 999.0, 7_777.7, 100_000.0] {
            let schedule = Schedule::new(start, per_sec);
            for n in [0, 1, 2, 17, 1_000, 99_999] {
                let due = schedule.due(n);
                assert!(schedule.due_until(due) > n, "{n} at {per_sec}");
                let before = due.checked_sub(Duration::from_nanos(10)).unwrap();
                assert!(schedule.due_until(before) <= n, "{n} at {per_sec}");
            }
        }
        let early = start.checked_sub(Duration::from_secs(1)).unwrap();
        assert_eq!(Schedule::new(start, 5.0).due_until(early), 0);
    }

    #[tokio::test]
    async fn a_closed_loop_is_bounded_by_count_and_by_time() {
        let now = Instant::now();
        let pace = Pace::new(now, now + Duration::from_secs(3600), 2, None);
        assert_eq!(pace.next().await.map(|ticket| ticket.number), Some(0));
        assert_eq!(pace.next().await.map(|ticket| ticket.number), Some(1));
        assert!(pace.next().await.is_none());
        let over = Pace::new(now, now, u64::MAX, None);
        assert!(over.next().await.is_none());
    }

    #[tokio::test]
    async fn an_open_loop_releases_every_request_with_its_own_due_time() {
        let start = Instant::now();
        let end = start + Duration::from_secs(3600);
        let pace = Pace::new(start, end, 50, Some(10_000.0));
        let schedule = Schedule::new(start, 10_000.0);
        for n in 0..50 {
            let ticket = pace.next().await.unwrap();
            assert_eq!((ticket.number, ticket.due), (n, schedule.due(n)));
            assert!(ticket.due <= Instant::now());
        }
        assert!(pace.next().await.is_none());
    }

    #[tokio::test]
    async fn what_an_open_loop_could_not_send_is_counted() {
        let start = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let pace = Pace::new(start, start + Duration::from_secs(2), u64::MAX, Some(10.0));
        assert!(pace.next().await.is_none(), "its grace is long over");
        assert_eq!(pace.unsent(Instant::now()), 21);
    }

    #[tokio::test]
    async fn a_backlog_keeps_its_due_times() {
        // All of it was due in the past: the tickets say so instead of starting anew.
        let start = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        let pace = Pace::new(start, start + Duration::from_secs(3600), u64::MAX, Some(10.0));
        let first = pace.next().await.unwrap();
        let second = pace.next().await.unwrap();
        assert_eq!(first.due, start);
        assert_eq!(second.due, start + Duration::from_millis(100));
    }

    #[tokio::test]
    async fn stopping_frees_a_waiting_client() {
        let now = Instant::now();
        let pace = Pace::new(now, now + Duration::from_secs(3600), u64::MAX, Some(0.001));
        assert!(pace.next().await.is_some());
        let (next, ()) = tokio::join!(pace.next(), async { pace.stop() });
        assert!(next.is_none());
    }
}
