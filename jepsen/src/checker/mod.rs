//! What the checkers say. A verdict is data; a failure of the harness itself is an error and stops
//! the run.

pub mod alerts;
pub mod attempts;
pub mod availability;
pub mod budgets;
pub mod capacity;
pub mod coverage;
pub mod leases;
pub mod linear;
pub mod lists;
pub mod logs;
pub mod pipelines;
pub mod register;
pub mod reigns;
pub mod slots;
pub mod streams;
pub mod wgl;
pub mod zones;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::history::History;
use crate::workload::Workload;

/// How it stands, in the order of badness: [`Ord::max`] is the worse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validity {
    /// What was promised held.
    Valid,
    /// Not enough was seen, or a checker ran out of time. Never a pass.
    Unknown,
    /// What was promised did not hold.
    Invalid,
}

impl Validity {
    /// The exit code of a run that ended so.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Valid => 0,
            Self::Invalid => 1,
            Self::Unknown => 2,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
        }
    }
}

/// Findings that are kept of one checker; more are counted only.
const FINDINGS_MAX: usize = 20;

/// What one checker found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Which workload, or `run` for what concerns the whole run.
    pub workload: String,
    /// Which property, in a few words: `linearizable`, `nothing acknowledged is lost`.
    pub property: String,
    /// How it stands.
    pub validity: Validity,
    /// One line for people: what was looked at, or what is wrong.
    pub summary: String,
    /// The first findings, each one line.
    pub findings: Vec<String>,
    /// Lines of the history that the findings are about, by [`crate::history::Op::index`].
    pub ops: Vec<u64>,
    /// Figures, for `results.json`.
    pub figures: Value,
}

impl Verdict {
    /// A verdict without findings.
    #[must_use]
    pub fn new(
        workload: &str,
        property: &str,
        validity: Validity,
        summary: impl Into<String>,
    ) -> Self {
        Self {
            workload: workload.to_owned(),
            property: property.to_owned(),
            validity,
            summary: summary.into(),
            findings: Vec::new(),
            ops: Vec::new(),
            figures: Value::Null,
        }
    }

    /// Valid when `findings` is empty, else invalid. `looked_at` says what was checked.
    #[must_use]
    pub fn of(
        workload: &str,
        property: &str,
        looked_at: impl Into<String>,
        findings: Findings,
    ) -> Self {
        let Findings { count, texts, ops } = findings;
        let looked_at = looked_at.into();
        let (validity, summary) = match count {
            0 => (Validity::Valid, looked_at),
            1 => (Validity::Invalid, format!("1 violation; {looked_at}")),
            _ => (Validity::Invalid, format!("{count} violations; {looked_at}")),
        };
        let verdict = Self::new(workload, property, validity, summary);
        Self { findings: texts, ops, ..verdict }
    }

    /// With figures for `results.json`.
    #[must_use]
    pub fn figures(mut self, figures: Value) -> Self {
        self.figures = figures;
        self
    }

    /// Unknown instead of valid when `enough` does not hold: too little was seen to judge.
    #[must_use]
    pub fn unless_too_little(mut self, enough: bool, what: &str) -> Self {
        if !enough && self.validity == Validity::Valid {
            self.validity = Validity::Unknown;
            self.summary = format!("too little was seen: {what}; {}", self.summary);
        }
        self
    }
}

/// Violations, bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    count: usize,
    texts: Vec<String>,
    ops: Vec<u64>,
}

impl Findings {
    /// Adds one. `ops` are the lines of the history it is about.
    pub fn add(&mut self, text: impl Into<String>, ops: &[u64]) {
        self.count += 1;
        if self.texts.len() < FINDINGS_MAX {
            self.texts.push(text.into());
            self.ops.extend_from_slice(ops);
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The worst of all; [`Validity::Unknown`] when there is no verdict at all.
#[must_use]
pub fn worst(verdicts: &[Verdict]) -> Validity {
    verdicts.iter().map(|verdict| verdict.validity).max().unwrap_or(Validity::Unknown)
}

/// Everything there is to say about a run: every workload's checks and its traffic, whether the
/// faults took effect, whether the cluster served again, and what members wrote into their logs.
/// `expected_errors` are parts of lines of level ERROR that the faults of this run explain.
#[must_use]
pub fn judge(
    history: &History,
    workloads: &[Arc<dyn Workload>],
    logs: &[PathBuf],
    expected_errors: &[&str],
) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for workload in workloads {
        verdicts.extend(workload.check(history));
        let floors = workload.floors();
        if !floors.is_empty() {
            verdicts.push(coverage::traffic(workload.name(), &floors, history));
        }
    }
    verdicts.push(coverage::faults(history));
    verdicts.push(availability::check(history));
    verdicts.extend(logs::check(logs, expected_errors));
    verdicts
}
