//! What was applied at an index stands there for ever: the same term on every member, after every
//! crash.
//!
//! Source: Raft, figure 3, Leader Completeness and State Machine Safety; TigerBeetle's state
//! checker compares its commits in the same way.

use std::collections::BTreeMap;

use quorate::storage::LogId;

use super::Process;

#[derive(Default)]
pub(super) struct Committed(BTreeMap<u64, u64>);

impl Committed {
    pub(super) fn at(&mut self, applied: Option<LogId>, at: Process) -> Result<(), String> {
        let Some(id) = applied else { return Ok(()) };
        let term = id.leader_id.term;
        let known = *self.0.entry(id.index).or_insert(term);
        if known == term {
            return Ok(());
        }
        Err(format!("{at:?} applied {}.{}, but term {known} was applied there", term, id.index))
    }
}
