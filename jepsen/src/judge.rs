//! The way into the judge's half: workloads by name, checkers, the report.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jepsen::checker::Verdict;
use jepsen::history::History;
use jepsen::workload::Workload;
use serde_json::Value;

/// The workloads of these names.
///
/// # Errors
/// On a name that is none.
pub(crate) fn workloads(names: &[String]) -> anyhow::Result<Vec<Arc<dyn Workload>>> {
    let _ = names;
    Ok(Vec::new())
}

/// All verdicts on a history.
pub(crate) fn judge(
    history: &History,
    workloads: &[Arc<dyn Workload>],
    logs: &[PathBuf],
    own: Vec<Verdict>,
) -> Vec<Verdict> {
    let _ = logs;
    let mut verdicts = own;
    verdicts.extend(workloads.iter().flat_map(|workload| workload.check(history)));
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
    let _ = history;
    let all = serde_json::json!({ "facts": facts, "verdicts": verdicts });
    std::fs::write(dir.join("results.json"), serde_json::to_string_pretty(&all)?)?;
    Ok(())
}
