//! Family B: bots, swarms, their assignments, workflows (contract section 5), at the root and under
//! `/api/v1`; and what it lacks: lists, removal, scaling, leases, health.
//!
//! `shape` reads bodies and ids, `view` writes objects, `pieces` sends what may be long while it is
//! made, `waits` wakes whoever waits for work or for the end of a workflow.

pub(super) mod assignments;
pub(super) mod batches;
pub(super) mod health;
pub(super) mod leases;
mod listing;
pub(super) mod orchestrate;
mod pieces;
pub(super) mod shape;
pub(super) mod single;
pub(super) mod swarms;
pub(super) mod task;
mod view;
pub(super) mod waits;
mod workflow_view;
pub(super) mod workflows;

/// The paths of one door (contract 5.1, 5.6).
macro_rules! at_both {
    ($path:literal) => {
        [$path, concat!("/api/v1", $path)]
    };
}

pub(super) use at_both;
