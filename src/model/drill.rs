//! A drill: a fault that an operator caused on purpose, and what came of it.

use serde::{Deserialize, Serialize};

use super::TimeMs;

/// Numbers a drill, from 1 in the order they began.
pub type DrillId = u64;

/// What is rehearsed. Stored: variants are only appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DrillKind {
    /// The leader is lost without warning.
    Failover,
    /// The leader hands its office over.
    Transfer,
    /// A member hangs: it neither dies nor takes part.
    Pause,
    /// Members are cut off from the others.
    Partition,
    /// Every member is restarted.
    RestartAll,
    /// A member's disk takes long to flush.
    DiskSlow,
    /// A backup is restored and compared.
    Restore,
    /// A person breaks things by hand.
    Chaos,
}

impl DrillKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Failover,
        Self::Transfer,
        Self::Pause,
        Self::Partition,
        Self::RestartAll,
        Self::DiskSlow,
        Self::Restore,
        Self::Chaos,
    ];

    /// Its word on the command line and in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failover => "failover",
            Self::Transfer => "transfer",
            Self::Pause => "pause",
            Self::Partition => "partition",
            Self::RestartAll => "restart-all",
            Self::DiskSlow => "disk-slow",
            Self::Restore => "restore",
            Self::Chaos => "chaos",
        }
    }

    /// The reverse of [`DrillKind::as_str`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Where a drill stands. Stored: variants are only appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DrillState {
    /// It is under way; no other may begin.
    Running,
    /// Every limit was kept.
    Passed,
    /// A limit was not kept, or something was lost.
    Failed,
    /// The fault did not take effect, or there was too little traffic to tell.
    Inconclusive,
    /// It was stopped before its end.
    Aborted,
    /// Whoever ran it was not heard of again within its lease.
    Abandoned,
}

impl DrillState {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Running,
        Self::Passed,
        Self::Failed,
        Self::Inconclusive,
        Self::Aborted,
        Self::Abandoned,
    ];

    /// Its word in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Inconclusive => "inconclusive",
            Self::Aborted => "aborted",
            Self::Abandoned => "abandoned",
        }
    }

    /// The reverse of [`DrillState::as_str`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// The record of one drill. Its report is kept in pages beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// Its number.
    pub drill_id: DrillId,
    /// What was rehearsed.
    pub kind: DrillKind,
    /// Where it stands.
    pub state: DrillState,
    /// On whom, in words.
    pub target: String,
    /// Who ran it, as they said.
    pub started_by: String,
    /// When it began.
    pub begun_at_ms: TimeMs,
    /// Until when it keeps others from beginning.
    pub lease_until_ms: TimeMs,
    /// When it ended; 0 while it runs.
    pub ended_at_ms: TimeMs,
    /// What came of it, in one line.
    pub summary: String,
    /// How many pages its report has.
    pub pages: u32,
}

/// A piece of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillPage {
    /// JSON text, cut anywhere between two characters.
    pub text: String,
}
