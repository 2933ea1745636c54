//! Members that applied the same index have the same state, to the last row.
//!
//! Source: Raft, figure 3, State Machine Safety and Log Matching; docs/architecture.md, "state".

use std::collections::{BTreeMap, BTreeSet};

use quorate::cluster::Cluster;
use quorate::state::Digest;

use super::Process;

#[derive(Default)]
pub(super) struct Digests(BTreeMap<u64, Digest>);

impl Digests {
    pub(super) fn at(&mut self, index: u64, digest: Digest, at: Process) -> Result<(), String> {
        let known = *self.0.entry(index).or_insert(digest);
        if known == digest {
            return Ok(());
        }
        Err(format!("at index {index} {at:?} has {digest}, another had {known}"))
    }
}

/// At the end all are at one index, with the same tasks in the same order.
pub(super) fn check_end(members: &[Cluster]) -> Result<(), String> {
    let mut orders: Vec<Vec<(u64, String)>> = members
        .iter()
        .map(|member| {
            member.view().read(|state| {
                state.tasks_after(0).map(|task| (task.seq, task.task_id.to_string())).collect()
            })
        })
        .collect();
    orders.dedup();
    if orders.len() > 1 {
        return Err("members hold tasks in different orders".to_owned());
    }
    let ends: BTreeSet<_> =
        members.iter().map(|member| format!("{:?}", member.view().digest())).collect();
    if ends.len() > 1 {
        return Err(format!("members end with different states: {ends:?}"));
    }
    Ok(())
}
