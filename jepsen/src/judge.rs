//! The way into the judge's half: workloads by name, checkers, the report.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jepsen::checker::Verdict;
use jepsen::history::History;
use jepsen::workload::{self, Workload};
use jepsen::{checker, report};
use serde_json::Value;

/// The workloads of these names; `all` stands for all.
///
/// # Errors
/// On a name that is none.
pub(crate) fn workloads(names: &[String]) -> anyhow::Result<Vec<Arc<dyn Workload>>> {
    let names: Vec<&str> = match names {
        [one] if one == "all" => workload::NAMES.to_vec(),
        names => names.iter().map(String::as_str).collect(),
    };
    let known = workload::NAMES.join(", ");
    workload::by_names(&names)
        .ok_or_else(|| anyhow::anyhow!("workloads are {known}, or all; not {}", names.join(",")))
}

/// All verdicts on a history. `expected_errors` are parts of lines of level ERROR in the logs of
/// members that the faults of this run explain.
pub(crate) fn judge(
    history: &History,
    workloads: &[Arc<dyn Workload>],
    logs: &[PathBuf],
    expected_errors: &[&str],
    own: Vec<Verdict>,
) -> Vec<Verdict> {
    let mut verdicts = own;
    verdicts.extend(checker::judge(history, workloads, logs, expected_errors));
    verdicts
}

/// Writes what people look at.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn report(
    dir: &Path,
    history: &History,
    verdicts: &[Verdict],
    facts: &Value,
) -> anyhow::Result<()> {
    report::write(dir, history, verdicts, facts)?;
    Ok(())
}
