//! Rate limits: at most so many tasks of one key started in any window of time.
//!
//! Each start is remembered for its window, so the limit is exact: a bucket that fills up again would
//! let through twice as many at the edge of two windows. Pure; the time is the state machine's.

use serde::{Deserialize, Serialize};

use super::TimeMs;

/// The most starts that a limit allows in its window, and that are remembered of one key.
pub const RATE_MAX: u32 = 1000;
/// The longest window: a day.
pub const RATE_WINDOW_MAX_MS: TimeMs = 24 * 3600 * 1000;

/// At most `max` tasks of one key are started in any `per_ms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// What they share; chosen by the client.
    pub key: String,
    /// How many may be started; 1 to [`RATE_MAX`].
    pub max: u32,
    /// The window; 1 to [`RATE_WINDOW_MAX_MS`].
    pub per_ms: TimeMs,
}

/// The newest starts of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLog {
    /// Whose.
    pub key: String,
    /// When tasks were started, the newest last; at most [`RATE_MAX`].
    pub starts_ms: Vec<TimeMs>,
    /// The longest window that a task was started under: starts are remembered for so long.
    pub window_ms: TimeMs,
}

impl RateLog {
    /// When `limit` lets one more start; `None` when it does at `now`. `planned` starts count as made
    /// at `now` beside those on record.
    #[must_use]
    pub fn clears_ms(&self, limit: &RateLimit, now: TimeMs, planned: usize) -> Option<TimeMs> {
        let max = limit.max.max(1) as usize;
        let made = self.starts_ms.len() + planned;
        // The start that has to leave the window first: the last but `max`.
        let place = made.checked_sub(max)?;
        let start_ms = self.starts_ms.get(place).copied().unwrap_or(now);
        let clears_ms = start_ms.saturating_add(limit.per_ms);
        (clears_ms > now).then_some(clears_ms)
    }

    /// Notes a start under `limit`, and forgets those that no window reaches.
    pub fn note(&mut self, limit: &RateLimit, now: TimeMs) {
        self.window_ms = self.window_ms.max(limit.per_ms);
        self.starts_ms.push(now);
        let window_ms = self.window_ms;
        let old = |start_ms: &&TimeMs| start_ms.saturating_add(window_ms) <= now;
        let old = self.starts_ms.iter().take_while(old).count();
        let beyond = self.starts_ms.len().saturating_sub(RATE_MAX as usize);
        self.starts_ms.drain(..old.max(beyond));
    }

    /// When nothing of it matters any more.
    #[must_use]
    pub fn over_ms(&self) -> TimeMs {
        self.starts_ms.last().map_or(0, |newest| newest.saturating_add(self.window_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(max: u32, per_ms: TimeMs) -> RateLimit {
        RateLimit { key: "k".to_owned(), max, per_ms }
    }

    #[test]
    fn a_limit_clears_when_the_oldest_start_leaves_its_window() {
        let (two, mut log) = (limit(2, 100), RateLog::default());
        assert_eq!(log.clears_ms(&two, 1000, 0), None);
        assert_eq!(log.clears_ms(&two, 1000, 2), Some(1100), "what a plan gave away counts");
        log.note(&two, 1000);
        log.note(&two, 1040);
        assert_eq!(log.clears_ms(&two, 1041, 0), Some(1100));
        assert_eq!(log.clears_ms(&two, 1100, 0), None);
        assert_eq!(log.clears_ms(&two, 1100, 1), Some(1140));
        log.note(&two, 1100);
        assert_eq!(log.starts_ms, [1040, 1100], "the first is out of every window");
        assert_eq!(log.over_ms(), 1200);
        assert_eq!(log.clears_ms(&limit(3, 100), 1100, 0), None, "each is judged by its own limit");
        assert_eq!(log.clears_ms(&limit(1, 10), 1105, 0), Some(1110));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (wide, mut log) = (limit(RATE_MAX, RATE_WINDOW_MAX_MS), RateLog::default());
        for now in 0..3000 {
            log.note(&wide, now);
        }
        assert_eq!((log.starts_ms.len(), log.starts_ms[0]), (1000, 2000));
    }
}
