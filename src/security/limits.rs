//! Rate limits (contract 1.5): token buckets of one member, in a bounded table.
//!
//! A bucket holds as many tokens as requests are allowed in its span and fills evenly, so a caller
//! may use a whole minute's worth at once and then goes on at the pace of the limit.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::secrets::Hash;

/// Callers told apart. Beyond it, new ones share a bucket until old ones have been silent.
const CALLERS_MAX: usize = 10_000;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Requests allowed; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// In any minute.
    pub per_minute: Option<u64>,
    /// In any hour.
    pub per_hour: Option<u64>,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// An API key.
    Key(Hash),
    /// A user who logged in.
    User(String),
    /// An address; of IPv6, the network that one customer has.
    Address(IpAddr),
    /// Everybody else.
    Others,
}

impl Who {
    /// The caller behind an address.
    #[must_use]
    pub fn at(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            None => Self::Others,
            Some(IpAddr::V6(address)) => {
                let network = address.to_bits() >> 64 << 64;
                Self::Address(IpAddr::V6(network.into()))
            }
            Some(address) => Self::Address(address),
        }
    }
}

/// What the limits say to one request: the tightest of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Requests allowed in the span.
    pub limit: u64,
    /// Requests that could be made at once now.
    pub remaining: u64,
    /// Until all of the limit can be used again.
    pub full_in: Duration,
    /// How long to wait, when this request is one too many.
    pub wait: Option<Duration>,
}

/// One limit's tokens of one caller.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn fill(&mut self, limit: u64, span: Duration, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let more = passed * limit as f64 / span.as_secs_f64();
        *self = Self { tokens: (self.tokens + more).min(limit as f64), at: now };
    }

    fn verdict(&self, limit: u64, span: Duration) -> Verdict {
        let pace = span.as_secs_f64() / limit.max(1) as f64;
        let time = |tokens: f64| Duration::from_secs_f64((tokens * pace).clamp(0.0, 86_400.0));
        let is_empty = self.tokens < 1.0;
        Verdict {
            limit,
            remaining: self.tokens as u64,
            full_in: time(limit as f64 - self.tokens),
            // A limit of nothing never fills; the span is as good an answer as any.
            wait: is_empty.then(|| if limit == 0 { span } else { time(1.0 - self.tokens) }),
        }
    }
}

#[derive(Debug, Default)]
struct Caller {
    minute: Option<Bucket>,
    hour: Option<Bucket>,
}

impl Caller {
    fn last_seen(&self) -> Option<Instant> {
        let at = |bucket: &Option<Bucket>| bucket.as_ref().map(|bucket| bucket.at);
        at(&self.minute).max(at(&self.hour))
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Limiter(Mutex<HashMap<Who, Caller>>);

impl Limiter {
    /// Counts a request of `who`; `None` when nothing limits it.
    pub fn take(&self, who: Who, limits: Limits, now: Instant) -> Option<Verdict> {
        if limits == Limits::default() {
            return None;
        }
        let mut callers = self.0.lock();
        if callers.len() >= CALLERS_MAX && !callers.contains_key(&who) {
            forget_silent(&mut callers, now);
        }
        let is_full = callers.len() >= CALLERS_MAX && !callers.contains_key(&who);
        let caller = callers.entry(if is_full { Who::Others } else { who }).or_default();
        let minute = filled(&mut caller.minute, limits.per_minute, MINUTE, now);
        let hour = filled(&mut caller.hour, limits.per_hour, HOUR, now);
        let refused = |verdict: &Option<Verdict>| verdict.is_some_and(|one| one.wait.is_some());
        if refused(&minute) || refused(&hour) {
            // Nothing is taken from either, or a caller who keeps trying would never get in.
            return [minute, hour].into_iter().flatten().max_by_key(|verdict| verdict.wait);
        }
        let minute = taken(&mut caller.minute, limits.per_minute, MINUTE);
        let hour = taken(&mut caller.hour, limits.per_hour, HOUR);
        [minute, hour].into_iter().flatten().min_by_key(|verdict| verdict.remaining)
    }
}

fn filled(
    bucket: &mut Option<Bucket>,
    limit: Option<u64>,
    span: Duration,
    now: Instant,
) -> Option<Verdict> {
    let Some(limit) = limit else {
        *bucket = None;
        return None;
    };
    let bucket = bucket.get_or_insert(Bucket { tokens: limit as f64, at: now });
    bucket.fill(limit, span, now);
    Some(bucket.verdict(limit, span))
}

fn taken(bucket: &mut Option<Bucket>, limit: Option<u64>, span: Duration) -> Option<Verdict> {
    let (bucket, limit) = (bucket.as_mut()?, limit?);
    bucket.tokens -= 1.0;
    Some(Verdict { wait: None, ..bucket.verdict(limit, span) })
}

/// Whoever was silent for an hour has full buckets, and is as good as new.
fn forget_silent(callers: &mut HashMap<Who, Caller>, now: Instant) {
    callers.retain(|_, caller| {
        let silent = caller.last_seen().map(|at| now.saturating_duration_since(at));
        let span = if caller.hour.is_some() { HOUR } else { MINUTE };
        silent.is_some_and(|silent| silent < span)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn per_minute(limit: u64) -> Limits {
        Limits { per_minute: Some(limit), per_hour: None }
    }

    #[tokio::test(start_paused = true)]
    async fn contract_1_5_a_minute_may_be_used_at_once_and_then_fills_evenly() {
        let limiter = Limiter::default();
        let take = || limiter.take(Who::Others, per_minute(60), Instant::now()).unwrap();
        for left in (0..60).rev() {
            assert_eq!((take().remaining, take_is_fine(&limiter)), (left, true));
        }
        let refused = take();
        assert_eq!((refused.limit, refused.remaining), (60, 0));
        assert_eq!(refused.wait, Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(take().wait, None);
        assert!(take().wait.is_some());
        tokio::time::advance(MINUTE).await;
        assert_eq!(take().remaining, 59);
    }

    /// Another caller has a bucket of its own.
    fn take_is_fine(limiter: &Limiter) -> bool {
        let other = Who::User("other".to_owned());
        limiter.take(other, per_minute(60), Instant::now()).unwrap().wait.is_none()
    }

    #[tokio::test(start_paused = true)]
    async fn the_tighter_limit_decides_and_a_refusal_costs_nothing() {
        let limiter = Limiter::default();
        let limits = Limits { per_minute: Some(10), per_hour: Some(2) };
        let take = || limiter.take(Who::Others, limits, Instant::now()).unwrap();
        assert_eq!((take().limit, take().remaining), (2, 0));
        let refused = take();
        assert_eq!((refused.limit, refused.wait), (2, Some(Duration::from_secs(1800))));
        assert!(limiter.take(Who::Others, Limits::default(), Instant::now()).is_none());
        let nothing = limiter.take(Who::Others, per_minute(0), Instant::now()).unwrap();
        assert_eq!(nothing.wait, Some(MINUTE));
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_the_silent_are_forgotten() {
        let limiter = Limiter::default();
        let from = |number: usize| Who::User(number.to_string());
        for number in 0..CALLERS_MAX + 5 {
            limiter.take(from(number), per_minute(3), Instant::now());
        }
        assert_eq!(limiter.0.lock().len(), CALLERS_MAX + 1, "the late ones share one");
        let late = limiter.take(from(CALLERS_MAX + 9), per_minute(3), Instant::now()).unwrap();
        assert!(late.wait.is_some());
        tokio::time::advance(MINUTE).await;
        limiter.take(from(CALLERS_MAX + 9), per_minute(3), Instant::now());
        assert_eq!(limiter.0.lock().len(), 1);
    }

    #[test]
    fn one_customer_has_one_bucket() {
        let at = |text: &str| Who::at(Some(text.parse().unwrap()));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
        assert_eq!(Who::at(None), Who::Others);
    }
}
