//! Epochs only grow, an older one decides nothing, and every placement was made in the epoch that
//! was open where it stands in the log: one decision maker at a time.
//!
//! Source: docs/decisions/0004; the fencing tokens of Kleppmann, "How to do distributed locking"
//! (2016); nomad #4749 (two acting leaders).

use std::collections::BTreeMap;

use quorate::model::Epoch;
use quorate::state::Fact;

use super::Process;
use super::events_are_the_same::Events;

#[derive(Default)]
pub(super) struct Epochs(BTreeMap<Process, Epoch>);

impl Epochs {
    pub(super) fn at(&mut self, process: Process, epoch: Epoch) -> Result<(), String> {
        let before = self.0.insert(process, epoch).unwrap_or_default();
        if before <= epoch {
            return Ok(());
        }
        Err(format!("{process:?} went back from epoch {before} to {epoch}"))
    }

    /// Over the whole log: each opened epoch is newer than the one before.
    pub(super) fn check(&self, events: &Events) -> Result<(), String> {
        let mut open = Epoch::default();
        for (position, fact) in events.iter() {
            let Fact::EpochOpened { epoch, .. } = fact else { continue };
            if *epoch <= open {
                return Err(format!("at {position:?} epoch {epoch} was opened after {open}"));
            }
            open = *epoch;
        }
        Ok(())
    }
}

/// A command of an older reign must have been refused.
pub(super) fn refused(accepted: bool, what: &str) -> Result<(), String> {
    if accepted { Err(format!("a command of an older reign took effect: {what}")) } else { Ok(()) }
}
