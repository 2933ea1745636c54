//! What clients do to the cluster, and what must hold of it.
//!
//! A workload is driven in phases: [`Workload::prepare`] while the cluster is healthy,
//! [`Workload::run`] until [`Stage::stop`], and, when every fault is healed and every member is
//! back, [`Workload::finish`], which reads everything from every member. All of it goes into the
//! history; [`Workload::check`] sees the history and nothing else.

mod stage;

use futures::future::BoxFuture;

pub use stage::{Load, Members, Stage};

use crate::checker::Verdict;
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

    /// Sets the scene on a healthy cluster.
    fn prepare<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>>;

    /// Drives clients until [`Stage::stop`]. Faults never make it fail: what they do to clients is
    /// recorded.
    fn run<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>>;

    /// After healing, with every member back: lets work drain and reads from every member. Bounded
    /// by itself; what could not be read stays out of the history, and the check says so.
    fn finish<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>>;

    /// What the history says about it. Also of a history that was read from a file.
    fn check(&self, history: &History) -> Vec<Verdict>;
}
