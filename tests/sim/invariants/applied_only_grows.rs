//! What a running member shows only grows. After a crash it may begin with an older state, since
//! the home of the state is a convenience, but then it grows again.
//!
//! Source: docs/architecture.md, "storage"; monotonic reads within one session.

use std::collections::BTreeMap;

use super::Process;

#[derive(Default)]
pub(super) struct Applied(BTreeMap<Process, u64>);

impl Applied {
    pub(super) fn at(&mut self, process: Process, index: u64) -> Result<(), String> {
        let before = self.0.insert(process, index).unwrap_or(0);
        if before <= index {
            return Ok(());
        }
        Err(format!("{process:?} went back from index {before} to {index}"))
    }
}
