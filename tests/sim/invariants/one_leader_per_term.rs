//! A term is led by one member, and by one process of it: a member that crashed as leader does not
//! lead on in its old term.
//!
//! Source: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (2014),
//! figure 3, Election Safety. That one process leads is ours: log ids are given out by the leader's
//! memory, so a second process of one term would give them out twice.

use std::collections::BTreeMap;

use super::Process;

#[derive(Default)]
pub(super) struct Leaders(BTreeMap<u64, (u64, Process)>);

impl Leaders {
    pub(super) fn led(&mut self, term: u64, member: u64, process: Process) -> Result<(), String> {
        let (known, by) = *self.0.entry(term).or_insert((member, process));
        if known != member {
            return Err(format!("members {known} and {member} both led term {term}"));
        }
        if by != process {
            return Err(format!("member {member} led term {term} again after a crash"));
        }
        Ok(())
    }

    pub(super) fn terms(&self) -> u64 {
        self.0.len() as u64
    }
}
