//! What is written down during a run: what was violated, what was exercised, and a hash of
//! everything that happened in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Violations that are kept.
const VIOLATIONS_MAX: usize = 6;

/// Shared by everybody in one run.
#[derive(Clone, Default)]
pub(crate) struct Book(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    violations: Vec<String>,
    trace: u64,
    covered: BTreeMap<&'static str, u64>,
    /// Counts what clients and members did, in order: the run is single-threaded, so this is time.
    moments: u64,
}

impl Book {
    /// Mixes `what` into the trace: the same seed must give the same trace.
    pub(crate) fn trace(&self, what: &str) {
        let mut pages = self.0.lock();
        pages.trace = xxh3_64_with_seed(what.as_bytes(), pages.trace);
        if trace_is_shown() {
            println!("{:?} {what}", turmoil::sim_elapsed().unwrap_or_default());
        }
    }

    pub(crate) fn trace_hash(&self) -> u64 {
        self.0.lock().trace
    }

    /// An invariant does not hold.
    pub(crate) fn violation(&self, invariant: &str, what: &str) {
        let line = format!("{invariant}: {what}");
        self.trace(&line);
        let violations = &mut self.0.lock().violations;
        // What follows from the first ones says nothing more.
        if violations.len() < VIOLATIONS_MAX {
            violations.push(line);
        }
    }

    /// Notes what an invariant found.
    pub(crate) fn check(&self, invariant: &str, held: Result<(), String>) {
        if let Err(what) = held {
            self.violation(invariant, &what);
        }
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.0.lock().violations.clone()
    }

    pub(crate) fn violated(&self) -> bool {
        !self.0.lock().violations.is_empty()
    }

    /// Counts that something was exercised.
    pub(crate) fn cover(&self, what: &'static str) {
        self.cover_many(what, 1);
    }

    pub(crate) fn cover_many(&self, what: &'static str, count: u64) {
        *self.0.lock().covered.entry(what).or_default() += count;
    }

    pub(crate) fn covered(&self, what: &'static str) -> u64 {
        self.0.lock().covered.get(what).copied().unwrap_or(0)
    }

    pub(crate) fn coverage(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().covered.clone()
    }

    /// The next moment of this run.
    pub(crate) fn moment(&self) -> u64 {
        let mut pages = self.0.lock();
        pages.moments += 1;
        pages.moments
    }
}

/// `QUORATE_SIM_TRACE=1` shows a run step by step.
fn trace_is_shown() -> bool {
    static SHOWN: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *SHOWN.get_or_init(|| std::env::var_os("QUORATE_SIM_TRACE").is_some())
}
