//! A disk that is slow on purpose, for drills: each flush of the log takes longer until a moment
//! that was named when the slowness began, so nobody has to come back to end it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// See the module's description. Off, it costs one relaxed load per flush.
#[derive(Debug, Default)]
pub struct Slowdown {
    on: AtomicBool,
    /// How long each flush takes longer, until when.
    now: Mutex<Option<(Duration, Instant)>>,
}

impl Slowdown {
    /// The longest delay: far below the time after which a flush counts as hung.
    pub const DELAY_MAX: Duration = Duration::from_secs(2);

    /// Makes each flush take `delay` longer until `until`.
    pub fn begin(&self, delay: Duration, until: Instant) {
        *self.now.lock() = Some((delay.min(Self::DELAY_MAX), until));
        self.on.store(true, Ordering::Relaxed);
    }

    /// Ends it.
    pub fn end(&self) {
        self.on.store(false, Ordering::Relaxed);
        *self.now.lock() = None;
    }

    /// What one flush that ends now still has to wait.
    fn due(&self) -> Option<Duration> {
        if !self.on.load(Ordering::Relaxed) {
            return None;
        }
        let now = *self.now.lock();
        let (delay, _) = now.filter(|(_, until)| Instant::now() < *until)?;
        Some(delay)
    }

    /// Called on the flush thread, before a flush counts.
    #[expect(clippy::disallowed_methods, reason = "the flush thread itself is what is slow")]
    pub(super) fn wait(&self) {
        if let Some(delay) = self.due() {
            std::thread::sleep(delay);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_by_itself_and_is_bounded() {
        let slowdown = Slowdown::default();
        assert_eq!(slowdown.due(), None);
        slowdown.begin(Duration::from_secs(60), Instant::now() + Duration::from_secs(5));
        assert_eq!(slowdown.due(), Some(Slowdown::DELAY_MAX));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(slowdown.due(), None, "nobody ended it");
        slowdown.begin(Duration::from_millis(3), Instant::now() + Duration::from_secs(5));
        assert_eq!(slowdown.due(), Some(Duration::from_millis(3)));
        slowdown.end();
        assert_eq!(slowdown.due(), None);
    }
}
