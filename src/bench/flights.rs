//! Tasks on their way: when each was due, whether a node got it, whether it ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::framing::find;
use super::histogram::Histogram;
use super::tally::Window;
use super::template::{NUMBER, read_number};
use super::watch::Observer;

/// The tasks of one run; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Flights {
    prefix: Arc<str>,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    window: Window,
    /// By number, so that the oldest comes first.
    open: BTreeMap<u64, Flight>,
    to_node: Histogram,
    to_end: Histogram,
    ended: u64,
    ended_in_window: u64,
    failed: u64,
    /// Executions beyond the first of a task, under a newer attempt.
    retried: u64,
    /// The same attempt of a task executed again.
    doubled: u64,
    /// Executions of tasks that were over or are not ours.
    stray: u64,
}

#[derive(Debug)]
struct Flight {
    due: Instant,
    /// The newest attempt that a node was asked for; 0 before the first.
    attempt: u64,
    group: Arc<Group>,
}

/// Tasks that one client waits for together.
#[derive(Debug, Default)]
pub(super) struct Group {
    left: Mutex<u64>,
    empty: Notify,
}

impl Group {
    /// Waits until none is left.
    pub(super) async fn landed(&self) {
        while *self.left.lock() > 0 {
            self.empty.notified().await;
        }
    }

    fn add(&self, count: u64) {
        *self.left.lock() += count;
    }

    fn remove(&self, count: u64) {
        let mut left = self.left.lock();
        *left -= count;
        if *left == 0 {
            // The permit is kept for a waiter that is about to wait.
            self.empty.notify_one();
        }
    }
}

/// Sums of a run.
#[derive(Debug, Clone)]
pub(super) struct Landed {
    /// From the due time to the arrival at a node.
    pub to_node: Histogram,
    /// From the due time to the recorded end.
    pub to_end: Histogram,
    /// Tasks that ended, and those of them that ended within the window.
    pub ended: u64,
    /// See `ended`.
    pub ended_in_window: u64,
    /// Tasks that ended without a result.
    pub failed: u64,
    /// Executions beyond the first of a task, under a newer attempt.
    pub retried: u64,
    /// Executions of an attempt that was executed before: this should never happen.
    pub doubled: u64,
    /// Executions of tasks that were over, or unknown.
    pub stray: u64,
    /// Tasks whose end was not seen.
    pub open: u64,
}

impl Flights {
    /// Follows tasks whose ids are `prefix` and a number. Measures nothing before
    /// [`Flights::measure`].
    #[must_use]
    pub(super) fn new(prefix: &str) -> Self {
        let window = Window::new(Instant::now(), Duration::ZERO, Duration::ZERO);
        let inner = Inner {
            window,
            open: BTreeMap::new(),
            to_node: Histogram::default(),
            to_end: Histogram::default(),
            ended: 0,
            ended_in_window: 0,
            failed: 0,
            retried: 0,
            doubled: 0,
            stray: 0,
        };
        Self { prefix: prefix.into(), inner: Arc::new(Mutex::new(inner)) }
    }

    /// Measures what is due in `window`.
    pub(super) fn measure(&self, window: Window) {
        self.inner.lock().window = window;
    }

    /// Tasks `first..first + count` are about to be submitted for `group`.
    pub(super) fn depart(&self, first: u64, count: u64, due: Instant, group: &Arc<Group>) {
        group.add(count);
        let mut inner = self.inner.lock();
        for number in first..first + count {
            let flight = Flight { due, attempt: 0, group: Arc::clone(group) };
            inner.open.insert(number, flight);
        }
    }

    /// Their submission failed, or nobody waits for them any longer. Returns how many were open.
    pub(super) fn give_up(&self, first: u64, count: u64) -> u64 {
        let mut inner = self.inner.lock();
        let gone = (first..first + count).filter_map(|number| inner.open.remove(&number));
        gone.map(|flight| flight.group.remove(1)).count() as u64
    }

    /// A node was asked to execute an attempt (from 1 on) of `task_id`.
    pub(super) fn arrived(&self, task_id: &[u8], attempt: u64, now: Instant) {
        let number = task_id.strip_prefix(self.prefix.as_bytes()).and_then(read_number);
        let inner = &mut *self.inner.lock();
        let Some(flight) = number.and_then(|number| inner.open.get_mut(&number)) else {
            inner.stray += 1;
            return;
        };
        if flight.attempt >= attempt {
            inner.doubled += 1;
        } else if flight.attempt > 0 {
            inner.retried += 1;
        } else if inner.window.holds(flight.due) {
            inner.to_node.record(now.saturating_duration_since(flight.due));
        }
        flight.attempt = flight.attempt.max(attempt);
    }

    fn landed(&self, number: u64, completed: bool, now: Instant) {
        let inner = &mut *self.inner.lock();
        let Some(flight) = inner.open.remove(&number) else { return };
        inner.ended += 1;
        inner.failed += u64::from(!completed);
        inner.ended_in_window += u64::from(inner.window.holds(now));
        if inner.window.holds(flight.due) {
            inner.to_end.record(now.saturating_duration_since(flight.due));
        }
        flight.group.remove(1);
    }

    /// The cluster counts `count` more ends: the oldest tasks are taken for them. Good enough to
    /// keep a closed loop going, too rough for latencies, which are not recorded.
    pub(super) fn landed_oldest(&self, count: u64, now: Instant) {
        let inner = &mut *self.inner.lock();
        for _ in 0..count {
            let Some((_, flight)) = inner.open.pop_first() else { return };
            inner.ended += 1;
            inner.ended_in_window += u64::from(inner.window.holds(now));
            flight.group.remove(1);
        }
    }

    /// Ends the measurement at `now` when it is still going on.
    pub(super) fn finish(&self, now: Instant) -> Duration {
        let mut inner = self.inner.lock();
        inner.window.cut(now);
        inner.window.length()
    }

    /// How many tasks are on their way.
    #[must_use]
    pub(super) fn open(&self) -> u64 {
        self.inner.lock().open.len() as u64
    }

    /// The sums so far.
    #[must_use]
    pub(super) fn sums(&self) -> Landed {
        let inner = self.inner.lock();
        Landed {
            to_node: inner.to_node.clone(),
            to_end: inner.to_end.clone(),
            ended: inner.ended,
            ended_in_window: inner.ended_in_window,
            failed: inner.failed,
            retried: inner.retried,
            doubled: inner.doubled,
            stray: inner.stray,
            open: inner.open.len() as u64,
        }
    }
}

impl Observer for Flights {
    /// Notes the end when the event tells of one of ours. The text is searched instead of parsed,
    /// because most events tell of other things.
    fn observe(&self, event: &[u8], now: Instant) {
        if find(event, b"task_ended").is_none() {
            return;
        }
        let Some(at) = find(event, self.prefix.as_bytes()) else { return };
        let id = &event[at + self.prefix.len()..];
        // A step of a task has the task's id and more.
        let Some(number) = read_number(id).filter(|_| id.get(NUMBER.len()) == Some(&b'"')) else {
            return;
        };
        let completed = find(event, b"\"completed\"").is_some();
        self.landed(number, completed, now);
    }
}

/// The number behind `"attempt"` in a JSON text; 1 when there is none, as for the first.
#[must_use]
pub(super) fn attempt_in(body: &[u8]) -> u64 {
    let number = || {
        let key = b"\"attempt\"";
        let rest = body[find(body, key)? + key.len()..].trim_ascii_start();
        let rest = rest.strip_prefix(b":")?.trim_ascii_start();
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
    };
    number().unwrap_or(1)
}

/// The value of `"task_id"` in a JSON text, when it is a plain one of at least a number's length.
#[must_use]
pub(super) fn task_id_in(body: &[u8]) -> Option<&[u8]> {
    let key = b"\"task_id\"";
    let rest = body[find(body, key)? + key.len()..].trim_ascii_start();
    let rest = rest.strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    let id = &rest[..rest.iter().position(|byte| *byte == b'"')?];
    (id.len() >= NUMBER.len()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flights() -> (Flights, Instant) {
        let now = Instant::now();
        let flights = Flights::new("r-");
        flights.measure(Window::new(now, Duration::ZERO, Duration::from_secs(10)));
        (flights, now)
    }

    fn ended(number: u64, status: &str) -> Vec<u8> {
        let fact =
            format!(r#"{{"type":"task_ended","task_id":"r-{number:012}","status":"{status}"}}"#);
        format!("id: 7-0\nevent: task_ended\ndata: {fact}").into_bytes()
    }

    #[tokio::test]
    async fn a_group_lands_when_its_last_task_ended() {
        let (flights, now) = flights();
        let group = Arc::new(Group::default());
        flights.depart(0, 2, now, &group);
        flights.arrived(b"r-000000000000", 1, now + Duration::from_millis(2));
        flights.observe(&ended(0, "completed"), now + Duration::from_millis(5));
        assert_eq!(flights.open(), 1);
        let (_, ()) = tokio::join!(group.landed(), async {
            flights.observe(&ended(1, "failed"), now + Duration::from_millis(9));
        });
        let sums = flights.sums();
        assert_eq!((sums.ended, sums.failed, sums.open), (2, 1, 0));
        assert_eq!(sums.to_node.max(), Duration::from_millis(2));
        assert_eq!(sums.to_end.max(), Duration::from_millis(9));
    }

    #[test]
    fn other_events_and_other_runs_are_passed_over() {
        let (flights, now) = flights();
        flights.depart(3, 1, now, &Arc::new(Group::default()));
        flights.observe(br#"{"type":"task_assigned","task_id":"r-000000000003"}"#, now);
        flights.observe(br#"{"type":"task_ended","task_id":"q-000000000003"}"#, now);
        flights.observe(br#"{"type":"task_ended","task_id":"r-3"}"#, now);
        flights.observe(br#"{"type":"task_ended","task_id":"r-000000000003#1"}"#, now);
        assert_eq!(flights.open(), 1);
        flights.observe(&ended(3, "completed"), now);
        flights.observe(&ended(3, "completed"), now);
        assert_eq!(flights.sums().ended, 1, "an event seen twice counts once");
    }

    #[test]
    fn retries_doubled_attempts_and_strays_are_kept_apart() {
        let (flights, now) = flights();
        flights.depart(0, 1, now, &Arc::new(Group::default()));
        flights.arrived(b"r-000000000000", 1, now);
        flights.arrived(b"r-000000000000", 1, now);
        flights.arrived(b"r-000000000000", 2, now);
        flights.arrived(b"r-000000000000", 1, now);
        flights.arrived(b"someone-else", 1, now);
        flights.observe(&ended(0, "completed"), now);
        flights.arrived(b"r-000000000000", 3, now);
        let sums = flights.sums();
        assert_eq!((sums.retried, sums.doubled, sums.stray), (1, 2, 2));
        assert_eq!(sums.to_node.count(), 1);
    }

    #[test]
    fn giving_up_frees_the_group() {
        let (flights, now) = flights();
        let group = Arc::new(Group::default());
        flights.depart(0, 5, now, &group);
        flights.observe(&ended(2, "completed"), now);
        assert_eq!(flights.give_up(0, 5), 4);
        assert_eq!((*group.left.lock(), flights.open()), (0, 0));
        assert_eq!(flights.give_up(0, 5), 0);
    }

    #[test]
    fn counted_ends_take_the_oldest() {
        let (flights, now) = flights();
        let (old, new) = (Arc::new(Group::default()), Arc::new(Group::default()));
        flights.depart(5, 1, now, &new);
        flights.depart(0, 2, now, &old);
        flights.landed_oldest(2, now);
        assert_eq!((*old.left.lock(), *new.left.lock()), (0, 1));
        flights.landed_oldest(9, now);
        assert_eq!((flights.sums().ended, flights.sums().to_end.count()), (3, 0));
    }

    #[test]
    fn ids_are_found_in_bodies() {
        let id: &[u8] = b"r-000000000003";
        assert_eq!(task_id_in(br#"{"task_type":"x","task_id":"r-000000000003"}"#), Some(id));
        assert_eq!(task_id_in(br#"{ "task_id" : "r-000000000003" }"#), Some(id));
        assert_eq!(task_id_in(br#"{"task_id":7}"#), None);
        assert_eq!(task_id_in(br#"{"task_id":"short"}"#), None);
        assert_eq!(task_id_in(b"{}"), None);
        assert_eq!(attempt_in(br#"{"attempt": 17,"x":1}"#), 17);
        assert_eq!(attempt_in(br#"{"attempt":null}"#), 1);
        assert_eq!(attempt_in(b"{}"), 1);
    }
}
