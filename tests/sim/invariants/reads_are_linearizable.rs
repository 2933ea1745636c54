//! A linearizable read through any member sees everything that was acknowledged before it began.
//!
//! Source: Herlihy and Wing (1990), for a set that only grows; etcd #20418 (stale reads after a
//! pause), and the Jepsen analyses of etcd 0.4.1 and Consul.

use quorate::model::TaskId;

use super::{Submissions, Told};

/// The newest acknowledged tasks a read is held against.
const LOOKED_FOR: usize = 8;

/// What a read that begins now must see.
pub(crate) fn expected_by_a_read(submissions: &Submissions) -> Vec<TaskId> {
    let newest = submissions.acknowledged.iter().rev().take(LOOKED_FOR);
    let told = newest.filter_map(|marker| submissions.all.get(marker));
    let id = |told: &Told| match told {
        Told::Acknowledged { task_id, .. } => Some(task_id.clone()),
        Told::Unknown | Told::NotStarted | Told::Refused => None,
    };
    told.filter_map(|submission| id(&submission.told)).collect()
}
