//! Counters of the API itself, kept per route so that nothing is looked up while serving.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use parking_lot::Mutex;
use serde::Serialize;

use super::error::agents_code;
use super::wire_time::iso;
use crate::model::TimeMs;

const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "OTHER"];
const STATUSES: [u16; 17] =
    [200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 409, 413, 429, 500, 501, 503, 504];
/// Upper bounds of the latency buckets, in microseconds. The last one is open.
const BUCKETS_US: [u64; 13] = [
    250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000,
];

/// Where Prometheus reads.
const OWN_PATH: &str = "/metrics";

/// One route's counters.
#[derive(Debug)]
pub(super) struct RouteStats {
    path: &'static str,
    counts: [[AtomicU64; STATUSES.len() + 1]; METHODS.len()],
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
    answered: Arc<Answered>,
}

/// All counters of one router.
#[derive(Debug)]
pub(super) struct Stats {
    started_ms: TimeMs,
    routes: Mutex<Vec<Arc<RouteStats>>>,
    answered: Arc<Answered>,
}

/// Answers of all routes together, so that nobody has to add the routes up for each answer.
#[derive(Debug, Default)]
struct Answered {
    all: AtomicU64,
    errors: AtomicU64,
}

/// What family W calls `api_stats` (contract C18: both sets of names).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ApiStats {
    requests_total: u64,
    requests_success: u64,
    requests_error: u64,
    requests_successful: u64,
    requests_failed: u64,
    start_time: String,
}

impl RouteStats {
    fn new(path: &'static str, answered: Arc<Answered>) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            path,
            counts: std::array::from_fn(|_| std::array::from_fn(|_| zero())),
            buckets: std::array::from_fn(|_| zero()),
            sum_us: zero(),
            answered,
        }
    }

    pub(super) fn path(&self) -> &'static str {
        self.path
    }

    /// One request was answered.
    pub(super) fn record(&self, method: &Method, status: StatusCode, took: Duration) {
        let method = METHODS.iter().position(|name| *name == method.as_str());
        let method = method.unwrap_or(METHODS.len() - 1);
        let status = STATUSES.iter().position(|code| *code == status.as_u16());
        let status = status.unwrap_or(STATUSES.len());
        self.counts[method][status].fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.iter().position(|bound| us <= *bound).unwrap_or(BUCKETS_US.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
        self.answered.all.fetch_add(1, Ordering::Relaxed);
    }

    /// An answer with this status is about to be given: how many there were with it, at all routes,
    /// and the share of errors among them in hundredths of a percent.
    pub(super) fn counted(&self, code: StatusCode) -> (u64, u64) {
        let is_error = u64::from(code.as_u16() >= 400);
        let errors = self.answered.errors.fetch_add(is_error, Ordering::Relaxed) + is_error;
        let all = self.answered.all.load(Ordering::Relaxed) + 1;
        (all, errors.min(all) * 10_000 / all)
    }

    /// Requests answered without and with an error.
    fn totals(&self) -> (u64, u64) {
        let (mut good, mut bad) = (0, 0);
        for by_status in &self.counts {
            for (place, count) in by_status.iter().enumerate() {
                let count = count.load(Ordering::Relaxed);
                match STATUSES.get(place) {
                    Some(code) if *code < 400 => good += count,
                    _ => bad += count,
                }
            }
        }
        (good, bad)
    }
}

impl Stats {
    pub(super) fn new(started_ms: TimeMs) -> Self {
        Self { started_ms, routes: Mutex::new(Vec::new()), answered: Arc::default() }
    }

    /// The counters of a route. Routers of other listeners count theirs of the same path together
    /// with it: no two lines of the metrics may have the same labels.
    pub(super) fn route(&self, path: &'static str) -> Arc<RouteStats> {
        let mut routes = self.routes.lock();
        if let Some(known) = routes.iter().find(|route| route.path == path) {
            return Arc::clone(known);
        }
        let stats = Arc::new(RouteStats::new(path, Arc::clone(&self.answered)));
        routes.push(Arc::clone(&stats));
        stats
    }

    /// Every path that the router was built with.
    #[cfg(test)]
    pub(super) fn paths(&self) -> Vec<&'static str> {
        self.routes.lock().iter().map(|route| route.path).collect()
    }

    pub(super) fn summary(&self) -> ApiStats {
        let (mut good, mut bad) = (0, 0);
        for route in self.routes.lock().iter() {
            let totals = route.totals();
            good += totals.0;
            bad += totals.1;
        }
        ApiStats {
            requests_total: good + bad,
            requests_success: good,
            requests_error: bad,
            requests_successful: good,
            requests_failed: bad,
            start_time: iso(self.started_ms),
        }
    }

    /// Requests that were refused or failed, by family A's code for their status.
    pub(super) fn errors(&self) -> BTreeMap<&'static str, u64> {
        let mut errors = BTreeMap::new();
        for route in self.routes.lock().iter() {
            for by_status in &route.counts {
                for (code, count) in
                    STATUSES.iter().zip(by_status).filter(|(code, _)| **code >= 400)
                {
                    let Ok(status) = StatusCode::from_u16(*code) else { continue };
                    *errors.entry(agents_code(status)).or_default() +=
                        count.load(Ordering::Relaxed);
                }
            }
        }
        errors
    }

    /// Requests of `method` to any of `paths` that were answered with an error.
    pub(super) fn failures(&self, method: &str, paths: &[&str]) -> u64 {
        let routes = self.routes.lock();
        let routes = routes.iter().filter(|route| paths.contains(&route.path));
        let by_status = routes.flat_map(|route| METHODS.iter().zip(&route.counts));
        let by_status = by_status.filter(|(name, _)| **name == method);
        let counts = by_status.flat_map(|(_, by_status)| STATUSES.iter().zip(by_status));
        let bad = counts.filter(|(code, _)| **code >= 400);
        bad.map(|(_, count)| count.load(Ordering::Relaxed)).sum()
    }

    /// Prometheus text of all routes that were asked for at least once (contract 2.13), and of the
    /// one that is being asked for, so that the families are never empty.
    pub(super) fn write_prometheus(&self, out: &mut String) {
        use std::fmt::Write as _;
        let routes: Vec<_> = self.routes.lock().clone();
        let is_used = |route: &&Arc<RouteStats>| route.totals() != (0, 0) || route.path == OWN_PATH;
        let used = || routes.iter().filter(is_used);
        out.push_str("# HELP web4ai_requests_total Requests answered.\n");
        out.push_str("# TYPE web4ai_requests_total counter\n");
        for route in used() {
            if route.totals() == (0, 0) {
                let labels = format!("method=\"GET\",endpoint=\"{OWN_PATH}\",status=\"200\"");
                let _ = writeln!(out, "web4ai_requests_total{{{labels}}} 0");
            }
            for (method, by_status) in METHODS.iter().zip(&route.counts) {
                for (place, count) in by_status.iter().enumerate() {
                    let count = count.load(Ordering::Relaxed);
                    if count == 0 {
                        continue;
                    }
                    let status =
                        STATUSES.get(place).map_or_else(|| "other".to_owned(), u16::to_string);
                    let _ = writeln!(
                        out,
                        "web4ai_requests_total{{method=\"{method}\",endpoint=\"{}\",\
                         status=\"{status}\"}} {count}",
                        route.path
                    );
                }
            }
        }
        out.push_str("# HELP web4ai_api_response_time_seconds Time to answer.\n");
        out.push_str("# TYPE web4ai_api_response_time_seconds histogram\n");
        for route in used() {
            write_histogram(out, route);
        }
    }
}

fn write_histogram(out: &mut String, route: &RouteStats) {
    use std::fmt::Write as _;
    let name = "web4ai_api_response_time_seconds";
    let path = route.path;
    let mut sum = 0;
    for (place, count) in route.buckets.iter().enumerate() {
        sum += count.load(Ordering::Relaxed);
        let bound = BUCKETS_US.get(place).map(|us| (*us as f64 / 1e6).to_string());
        let bound = bound.unwrap_or_else(|| "+Inf".to_owned());
        let _ = writeln!(out, "{name}_bucket{{endpoint=\"{path}\",le=\"{bound}\"}} {sum}");
    }
    let seconds = route.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
    let _ = writeln!(out, "{name}_sum{{endpoint=\"{path}\"}} {seconds}");
    let _ = writeln!(out, "{name}_count{{endpoint=\"{path}\"}} {sum}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_c18_both_sets_of_names() {
        let stats = Stats::new(0);
        let route = stats.route("/x");
        route.record(&Method::GET, StatusCode::OK, Duration::from_micros(300));
        route.record(&Method::GET, StatusCode::NOT_FOUND, Duration::from_secs(9));
        route.record(&Method::PATCH, StatusCode::IM_A_TEAPOT, Duration::ZERO);
        let summary = serde_json::to_value(stats.summary()).unwrap();
        let expected = serde_json::json!({
            "requests_total": 3, "requests_success": 1, "requests_error": 2,
            "requests_successful": 1, "requests_failed": 2,
            "start_time": "1970-01-01T00:00:00.000Z"
        });
        assert_eq!(summary, expected);
    }

    #[test]
    fn contract_2_13_prometheus_text() {
        let stats = Stats::new(0);
        stats.route("/unused");
        let route = stats.route("/x");
        route.record(&Method::GET, StatusCode::OK, Duration::from_micros(300));
        route.record(&Method::GET, StatusCode::OK, Duration::from_secs(9));
        let mut out = String::new();
        stats.write_prometheus(&mut out);
        for line in [
            "web4ai_requests_total{method=\"GET\",endpoint=\"/x\",status=\"200\"} 2\n",
            "web4ai_api_response_time_seconds_bucket{endpoint=\"/x\",le=\"0.00025\"} 0\n",
            "web4ai_api_response_time_seconds_bucket{endpoint=\"/x\",le=\"0.0005\"} 1\n",
            "web4ai_api_response_time_seconds_bucket{endpoint=\"/x\",le=\"+Inf\"} 2\n",
            "web4ai_api_response_time_seconds_sum{endpoint=\"/x\"} 9.0003\n",
        ] {
            assert!(out.contains(line), "{line} in\n{out}");
        }
        assert!(!out.contains("/unused"));
    }
}
