//! A circuit breaker per endpoint (contract 4.7): opens at five failures, stays open for a minute
//! after the last, then lets calls through with the count reset; any success clears it.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Failures that open it.
const FAILURES_MAX: u32 = 5;
/// How long it stays open after the last of them.
const OPEN_FOR: Duration = Duration::from_secs(60);
/// Endpoints that are remembered; what failed longest ago is forgotten first.
const ENDPOINTS_MAX: usize = 10_000;

#[derive(Debug)]
struct Failing {
    count: u32,
    last: Instant,
}

/// The breakers of all endpoints that failed lately.
#[derive(Debug, Default)]
pub(super) struct Breakers(Mutex<HashMap<String, Failing>>);

impl Breakers {
    /// Whether a call may be made; otherwise the time until one may.
    pub(super) fn admit(&self, endpoint: &str) -> Result<(), Duration> {
        let mut failing = self.0.lock();
        let Some(entry) = failing.get(endpoint) else { return Ok(()) };
        let since = entry.last.elapsed();
        if entry.count < FAILURES_MAX {
            return Ok(());
        }
        if since < OPEN_FOR {
            return Err(OPEN_FOR - since);
        }
        failing.remove(endpoint);
        Ok(())
    }

    pub(super) fn succeeded(&self, endpoint: &str) {
        self.0.lock().remove(endpoint);
    }

    pub(super) fn failed(&self, endpoint: &str) {
        let mut failing = self.0.lock();
        if failing.len() >= ENDPOINTS_MAX && !failing.contains_key(endpoint) {
            let oldest = failing.iter().min_by_key(|(_, entry)| entry.last);
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                failing.remove(&name);
            }
        }
        let now = Instant::now();
        let entry = failing.entry(endpoint.to_owned()).or_insert(Failing { count: 0, last: now });
        entry.count += 1;
        entry.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn contract_4_7_it_opens_half_opens_and_closes() {
        let breakers = Breakers::default();
        for _ in 0..4 {
            breakers.failed("a");
        }
        assert_eq!(breakers.admit("a"), Ok(()));
        breakers.failed("a");
        assert_eq!(breakers.admit("a"), Err(OPEN_FOR));
        assert_eq!(breakers.admit("b"), Ok(()), "per endpoint");
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(breakers.admit("a"), Err(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(breakers.admit("a"), Ok(()), "half open");
        breakers.failed("a");
        assert_eq!(breakers.admit("a"), Ok(()), "the count was reset");
        for _ in 0..4 {
            breakers.failed("a");
        }
        assert!(breakers.admit("a").is_err());
        breakers.succeeded("a");
        assert_eq!(breakers.admit("a"), Ok(()), "a success clears it");
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_are_bounded() {
        let breakers = Breakers::default();
        for n in 0..=ENDPOINTS_MAX {
            breakers.failed(&n.to_string());
        }
        assert_eq!(breakers.0.lock().len(), ENDPOINTS_MAX);
    }
}
