//! Waiting for a leader: short, jittered, and cut short by news.

use std::time::Duration;

use tokio::time::Instant;

use super::core::Core;
use crate::clock;

/// The first and the longest pause between two tries.
const FIRST: Duration = Duration::from_millis(4);
const LONGEST: Duration = Duration::from_millis(64);

/// Grows with each try.
pub(crate) struct Pause {
    next: Duration,
}

impl Pause {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// Waits for news of a leader. When one is known already, waits a moment only, because the
    /// last try showed that it does not serve yet. False when `deadline` has passed.
    pub(crate) async fn wait(&mut self, core: &Core, deadline: Instant) -> bool {
        let now = Instant::now();
        if now >= deadline {
            return false;
        }
        // Callers that failed together must not come back together.
        let jitter = self.next.mul_f64(0.5 + (clock::random() % 1024) as f64 / 1024.0);
        let mut view = core.view.subscribe();
        let known = view.borrow_and_update().leader.is_some();
        let until = if known { now + jitter } else { deadline };
        self.next = (self.next * 2).min(LONGEST);
        let mut ended = core.ended.subscribe();
        tokio::select! {
            biased;
            _ = ended.wait_for(Option::is_some) => {}
            changed = view.changed() => {
                if changed.is_ok() {
                    self.next = FIRST;
                }
            }
            () = tokio::time::sleep_until(until.min(deadline)) => {}
        }
        Instant::now() < deadline
    }
}
