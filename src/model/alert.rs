//! An alert: a figure of the fleet beyond its threshold (contract 2.11).

use serde::{Deserialize, Serialize};

use super::TimeMs;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// Look at it.
    Warning,
    /// Act on it.
    Critical,
}

impl Severity {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Where an alert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlertState {
    /// The figure is beyond its threshold.
    Active,
    /// It is, and somebody said that they know.
    Acknowledged,
    /// It is not any more.
    Resolved,
    /// It is, and nobody shall be told for a while.
    Suppressed,
}

impl AlertState {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
            Self::Suppressed => "suppressed",
        }
    }
}

/// The newest story of one alert. Every change of state or severity is one transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// `<metric>_threshold`.
    pub alert_id: String,
    /// Which figure.
    pub metric: String,
    /// How bad it is.
    pub severity: Severity,
    /// Where it stands.
    pub state: AlertState,
    /// The figure at the last transition, in thousandths.
    pub value_milli: u64,
    /// What it was compared with, in thousandths.
    pub threshold_milli: u64,
    /// For people.
    pub message: String,
    /// When it was raised.
    pub since_ms: TimeMs,
    /// Its last transition.
    pub changed_at_ms: TimeMs,
    /// Who acknowledged it; empty when nobody did.
    pub acknowledged_by: String,
    /// Counts its transitions since ever: what a plan saw.
    pub transitions: u64,
    /// Until then nobody is told of it; 0 when nobody asked for that.
    pub suppressed_until_ms: TimeMs,
}
