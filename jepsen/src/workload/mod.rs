//! What clients do to the cluster, and what must hold of it.
//!
//! A workload is driven in phases: [`Workload::prepare`] while the cluster is healthy,
//! [`Workload::run`] until [`Stage::stop`], and, when every fault is healed and every member is
//! back, [`Workload::finish`], which reads everything from every member. All of it goes into the
//! history; [`Workload::check`] sees the history and nothing else.

mod actor;
mod agent;
mod alerts;
mod append;
mod attempts;
mod budgets;
mod callbacks;
mod capacity;
mod events;
mod hand;
mod heartbeats;
mod keys;
mod leases;
mod monotonic;
mod observe;
mod pipelines;
mod plan;
mod register;
mod retry;
mod set;
mod slots;
mod sse;
mod stage;
mod worker;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

pub use stage::{Load, Members, Stage};

use crate::checker::Verdict;
use crate::checker::coverage::Floor;
use crate::history::History;

/// The harness itself failed; says nothing about the system under test.
#[derive(Debug, thiserror::Error)]
#[error("{workload}: {what}")]
pub struct HarnessError {
    /// Which workload.
    pub workload: &'static str,
    /// What went wrong.
    pub what: String,
}

/// See the module's description.
pub trait Workload: Send + Sync {
    /// Its name, as it stands in the history.
    fn name(&self) -> &'static str;

    /// Sets the scene on a healthy cluster; most need nothing.
    fn prepare<'a>(&'a self, _stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async { Ok(()) }.boxed()
    }

    /// Drives clients until [`Stage::stop`]. Faults never make it fail: what they do to clients is
    /// recorded.
    fn run<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>>;

    /// After healing, with every member back: lets work drain and reads from every member. Bounded
    /// by itself; what could not be read stays out of the history, and the check says so.
    fn finish<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>>;

    /// The traffic below which nothing that was seen counts as a pass.
    fn floors(&self) -> Vec<Floor> {
        Vec::new()
    }

    /// What the history says about it. Also of a history that was read from a file.
    fn check(&self, history: &History) -> Vec<Verdict>;
}

/// The workloads that can be asked for by name. `events` and `observe` come with every run.
///
/// Those that change the configuration first stand in front of `retry`, which counts its changes.
pub const NAMES: [&str; 15] = [
    "register",
    "append",
    "set",
    "attempts",
    "heartbeats",
    "keys",
    "callbacks",
    "pipelines",
    "alerts",
    "slots",
    "budgets",
    "leases",
    "capacity",
    "monotonic",
    "retry",
];

/// The workloads of `names`, with the two that come with every run; `None` when one of the names is
/// not there. They are to be prepared and finished in this order: readers of events listen until
/// everybody else is done.
#[must_use]
pub fn by_names(names: &[&str]) -> Option<Vec<Arc<dyn Workload>>> {
    let mut all: Vec<Arc<dyn Workload>> = Vec::new();
    for name in names {
        all.push(match *name {
            "register" => Arc::new(register::Register::default()),
            "append" => Arc::new(append::Append::default()),
            "set" => Arc::new(set::Set::default()),
            "attempts" => Arc::new(attempts::Attempts::default()),
            "heartbeats" => Arc::new(heartbeats::Heartbeats),
            "keys" => Arc::new(keys::Keys::default()),
            "callbacks" => Arc::new(callbacks::Callbacks::default()),
            "pipelines" => Arc::new(pipelines::Pipelines::default()),
            "alerts" => Arc::new(alerts::Alerts),
            "slots" => Arc::new(slots::Slots),
            "budgets" => Arc::new(budgets::Budgets::default()),
            "leases" => Arc::new(leases::Leases::default()),
            "capacity" => Arc::new(capacity::Capacity::default()),
            "monotonic" => Arc::new(monotonic::Monotonic),
            "retry" => Arc::new(retry::Retry::default()),
            _ => return None,
        });
    }
    all.push(Arc::new(observe::Observe));
    all.push(Arc::new(events::Events::default()));
    Some(all)
}

/// The workloads that left something in `history`: for checking it again.
#[must_use]
pub fn of_history(history: &History) -> Vec<Arc<dyn Workload>> {
    let known = |name: &&str| history.of(name).next().is_some();
    let names: Vec<&str> = NAMES.into_iter().filter(known).collect();
    by_names(&names).unwrap_or_default()
}
