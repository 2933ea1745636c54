//! The time that the leader writes into entries.
//!
//! The state machine takes no entry back in time, so a wall clock that was ahead for a moment, here
//! or on an earlier leader, leaves the state ahead of every right clock. If entries then carried
//! the right time, the state's time would stand still until that caught up, and with it every
//! timer: attempts that time out, back-offs that end. So it goes on from where it is, as fast as
//! time passes, or a little slower while it is ahead, until the wall clock is there.

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock;
use crate::model::TimeMs;

/// Of eight milliseconds that pass, so many count while the state is ahead of the wall clock: time
/// limits are an eighth longer then, and an hour ahead is gone after eight.
const EIGHTHS_WHILE_AHEAD: u64 = 7;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct StateTime(Mutex<Option<Anchor>>);

#[derive(Debug, Clone, Copy)]
struct Anchor {
    at: TimeMs,
    since: Instant,
}

impl StateTime {
    /// The time for the next entry; `last_at` is the newest that the state is known to have seen,
    /// 0 for none.
    pub(crate) fn now(&self, last_at: TimeMs) -> TimeMs {
        self.after(clock::now_ms(), last_at)
    }

    fn after(&self, wall: TimeMs, last_at: TimeMs) -> TimeMs {
        let mut anchor = self.0.lock();
        let floor = anchor.map_or(0, |Anchor { at, since }| {
            let passed = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX / 8);
            at.saturating_add(passed.saturating_mul(EIGHTHS_WHILE_AHEAD) / 8)
        });
        let now = floor.max(wall).max(last_at);
        // Kept where it is otherwise: each move would round down what has passed.
        if now > floor {
            *anchor = Some(Anchor { at: now, since: Instant::now() });
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    const HOUR: TimeMs = 3_600_000;

    #[tokio::test(start_paused = true)]
    async fn it_follows_the_wall_clock() {
        let time = StateTime::default();
        assert_eq!(time.after(1000, 0), 1000);
        advance(Duration::from_millis(10)).await;
        assert_eq!(time.after(1010, 1000), 1010);
        assert_eq!(time.after(5000, 0), 5000, "also when it jumps ahead");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_ahead_does_not_stop_time() {
        // Found by clock jumps: back-offs and time-outs stood still for the hour that a leader's
        // clock had been ahead.
        for (wall, last_at) in [(HOUR, 0), (0, HOUR)] {
            let time = StateTime::default();
            assert_eq!(time.after(wall, last_at), HOUR);
            for _ in 0..80 {
                advance(Duration::from_micros(100)).await;
                time.after(10, 0);
            }
            assert_eq!(time.after(10, 0), HOUR + 7, "8 ms have passed");
            assert_eq!(time.after(HOUR + 9, 0), HOUR + 9, "the wall clock is there");
        }
    }
}
