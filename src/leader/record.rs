//! The last reigns of this member, step by step: what a failover drill looks at.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock;
use crate::model::{Epoch, TimeMs};

/// Reigns kept.
const REIGNS_MAX: usize = 16;

/// How a reign ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReignEnd {
    /// Raft says that this member leads no more, or a newer epoch is open.
    LeadershipLost,
    /// A quorum did not confirm in time that this member leads.
    InDoubt(String),
    /// The program stops.
    Shutdown,
    /// A duty could not go on.
    DutyFailed(String),
    /// It never began.
    NotEstablished(String),
}

/// One reign. Times are from the moment leadership was detected; `None` for steps not reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReignRecord {
    /// The epoch it opened, or tried to.
    pub epoch: Epoch,
    /// When this member found itself leading.
    pub detected_at_ms: TimeMs,
    /// Everything committed before is applied here.
    pub barrier: Option<Duration>,
    /// The epoch is open in the log.
    pub epoch_open: Option<Duration>,
    /// Queues are rebuilt and the gate is open.
    pub gate_open: Option<Duration>,
    /// All duties are started.
    pub duties_started: Option<Duration>,
    /// The gate is closed again.
    pub gate_closed: Option<Duration>,
    /// All duties have ended.
    pub duties_ended: Option<Duration>,
    /// Why.
    pub end: Option<ReignEnd>,
}

impl ReignRecord {
    /// A reign that was just detected.
    #[must_use]
    pub fn detected(epoch: Epoch) -> Self {
        Self {
            epoch,
            detected_at_ms: clock::now_ms(),
            barrier: None,
            epoch_open: None,
            gate_open: None,
            duties_started: None,
            gate_closed: None,
            duties_ended: None,
            end: None,
        }
    }
}

/// The newest reigns, oldest first.
#[derive(Debug, Default)]
pub(super) struct Records(Mutex<VecDeque<ReignRecord>>);

impl Records {
    /// Begins a new one.
    pub(super) fn begin(&self, record: ReignRecord) {
        let mut records = self.0.lock();
        if records.len() == REIGNS_MAX {
            records.pop_front();
        }
        records.push_back(record);
    }

    /// Changes the newest one.
    pub(super) fn note(&self, change: impl FnOnce(&mut ReignRecord)) {
        if let Some(record) = self.0.lock().back_mut() {
            change(record);
        }
    }

    /// All that are kept.
    #[must_use]
    pub(super) fn list(&self) -> Vec<ReignRecord> {
        self.0.lock().iter().cloned().collect()
    }
}
