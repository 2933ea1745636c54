//! The last events of this member, for whoever follows along.
//!
//! Bounded by count. A follower names the last event it saw and gets what came after it, or is told
//! that there is a gap: it must then list again. Positions are (log index, ordinal in the entry),
//! the same on every member, so a follower may move to another one.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::state::Event;

/// Events kept unless configured otherwise.
pub const EVENTS_MAX: usize = 65_536;

/// The place of an event: log index, then ordinal within the entry.
pub type EventPosition = (u64, u32);

/// See the module's description. Clones share the ring.
#[derive(Debug, Clone)]
pub struct EventRing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ring: Mutex<Ring>,
    /// Counts changes of the ring, to wake those who wait.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    events_max: usize,
    /// Events up to here are not kept.
    floor: EventPosition,
    /// The newest position the ring knows of.
    head: EventPosition,
}

/// What a follower gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventBatch {
    /// The next events, in order.
    Events(Vec<Arc<Event>>),
    /// Some events after the last one seen are gone; the next batch starts after `resumes_after`.
    Gap {
        /// The newest event that is not kept.
        resumes_after: EventPosition,
    },
}

/// One follower's place in the ring.
#[derive(Debug)]
pub struct EventFollower {
    ring: EventRing,
    seen: EventPosition,
    changed: watch::Receiver<u64>,
}

impl EventRing {
    /// A ring that knows nothing of events up to and including log index `applied`.
    #[must_use]
    pub fn new(events_max: usize, applied: u64) -> Self {
        let floor = (applied, u32::MAX);
        let ring = Ring { events: VecDeque::new(), events_max, floor, head: floor };
        Self(Arc::new(Inner { ring: Mutex::new(ring), changed: watch::Sender::new(0) }))
    }

    /// Follows from the event after `seen`, or from now on.
    #[must_use]
    pub fn follow(&self, seen: Option<EventPosition>) -> EventFollower {
        let changed = self.0.changed.subscribe();
        let seen = seen.unwrap_or_else(|| self.0.ring.lock().head);
        EventFollower { ring: self.clone(), seen, changed }
    }

    /// Adds events in the order of the log.
    pub(super) fn push(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut ring = self.0.ring.lock();
        for event in events {
            let position = (event.index, event.ordinal);
            // Entries replayed at start may have been seen by nobody, or by somebody elsewhere.
            if position <= ring.head {
                continue;
            }
            ring.head = position;
            ring.events.push_back(Arc::new(event));
            if ring.events.len() > ring.events_max
                && let Some(dropped) = ring.events.pop_front()
            {
                ring.floor = (dropped.index, dropped.ordinal);
            }
        }
        drop(ring);
        self.0.changed.send_modify(|count| *count += 1);
    }

    /// A snapshot jumped to `applied`: what happened up to there is unknown.
    pub(super) fn jump(&self, applied: u64) {
        let mut ring = self.0.ring.lock();
        ring.events.clear();
        ring.floor = (applied, u32::MAX);
        ring.head = ring.floor;
        drop(ring);
        self.0.changed.send_modify(|count| *count += 1);
    }

    fn after(&self, seen: EventPosition, events_max: usize) -> Option<EventBatch> {
        let ring = self.0.ring.lock();
        if seen < ring.floor {
            return Some(EventBatch::Gap { resumes_after: ring.floor });
        }
        let start = ring.events.partition_point(|event| (event.index, event.ordinal) <= seen);
        let events: Vec<_> = ring.events.range(start..).take(events_max).cloned().collect();
        (!events.is_empty()).then_some(EventBatch::Events(events))
    }
}

impl EventFollower {
    /// The last event this follower has seen.
    #[must_use]
    pub fn seen(&self) -> EventPosition {
        self.seen
    }

    /// Waits for more: at most `events_max` events, or a gap. Cancelling loses nothing.
    pub async fn next(&mut self, events_max: usize) -> EventBatch {
        loop {
            self.changed.mark_unchanged();
            match self.ring.after(self.seen, events_max.max(1)) {
                Some(batch) => {
                    self.seen = match &batch {
                        EventBatch::Gap { resumes_after } => *resumes_after,
                        EventBatch::Events(events) => {
                            events.last().map_or(self.seen, |event| (event.index, event.ordinal))
                        }
                    };
                    return batch;
                }
                // The sender lives in `self.ring`, so the channel cannot close while this waits.
                None => drop(self.changed.changed().await),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Fact;

    fn event(index: u64, ordinal: u32) -> Event {
        Event { index, ordinal, at_ms: 0, fact: Fact::TasksRetired { count: 1 } }
    }

    fn positions(batch: EventBatch) -> Vec<EventPosition> {
        match batch {
            EventBatch::Events(events) => {
                events.iter().map(|event| (event.index, event.ordinal)).collect()
            }
            EventBatch::Gap { resumes_after } => panic!("a gap up to {resumes_after:?}"),
        }
    }

    #[tokio::test]
    async fn a_follower_resumes_in_the_middle_of_an_entry() {
        let ring = EventRing::new(100, 5);
        ring.push(vec![event(6, 0), event(6, 1), event(7, 0)]);
        let mut follower = ring.follow(Some((6, 0)));
        assert_eq!(positions(follower.next(1).await), [(6, 1)]);
        assert_eq!(positions(follower.next(9).await), [(7, 0)]);
        assert_eq!(follower.seen(), (7, 0));
    }

    #[tokio::test]
    async fn a_new_follower_starts_now_and_waits() {
        let ring = EventRing::new(100, 5);
        ring.push(vec![event(6, 0)]);
        let mut follower = ring.follow(None);
        let pushed = async { ring.push(vec![event(8, 0)]) };
        let (batch, ()) = tokio::join!(biased; follower.next(10), pushed);
        assert_eq!(positions(batch), [(8, 0)]);
    }

    #[tokio::test]
    async fn what_is_gone_is_a_gap() {
        let ring = EventRing::new(2, 5);
        ring.push((6..10).map(|index| event(index, 0)).collect());
        let mut follower = ring.follow(Some((6, 0)));
        assert_eq!(follower.next(10).await, EventBatch::Gap { resumes_after: (7, 0) });
        assert_eq!(positions(follower.next(10).await), [(8, 0), (9, 0)]);
        // Before this member's start nothing is known either.
        let mut old = ring.follow(Some((3, 0)));
        assert!(matches!(old.next(10).await, EventBatch::Gap { .. }));
    }

    #[tokio::test]
    async fn a_snapshot_is_a_gap_and_a_replay_is_not_told_twice() {
        let ring = EventRing::new(10, 5);
        ring.push(vec![event(6, 0), event(7, 0)]);
        ring.push(vec![event(6, 0), event(7, 0), event(8, 0)]);
        let mut follower = ring.follow(Some((5, u32::MAX)));
        assert_eq!(positions(follower.next(10).await), [(6, 0), (7, 0), (8, 0)]);
        ring.jump(50);
        assert_eq!(follower.next(10).await, EventBatch::Gap { resumes_after: (50, u32::MAX) });
        ring.push(vec![event(51, 0)]);
        assert_eq!(positions(follower.next(10).await), [(51, 0)]);
    }
}
