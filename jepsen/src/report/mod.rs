//! What people look at after a run: one page that needs nothing else, the results for programs, and
//! the history in the words of Knossos and Elle.

mod lanes;
mod page;
mod plots;
mod svg;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::checker::{Verdict, availability, worst};
use crate::history::{History, edn};

/// Writes `index.html`, `results.json` and one EDN history per workload of clients into `dir`.
/// `facts` are shown as they are; `name`, `seed` and `repeat` (the command that repeats the run)
/// have places of their own.
///
/// # Errors
/// When a file cannot be written.
pub fn write(dir: &Path, history: &History, verdicts: &[Verdict], facts: &Value) -> io::Result<()> {
    let results = json!({
        "facts": facts,
        "validity": worst(verdicts),
        "verdicts": verdicts,
        "outages": availability::outages(history),
    });
    std::fs::write(dir.join("results.json"), serde_json::to_vec_pretty(&results)?)?;
    std::fs::write(dir.join("index.html"), page::page(history, verdicts, facts))?;
    for workload in ["register", "append"] {
        if history.of(workload).next().is_none() {
            continue;
        }
        let mut file = BufWriter::new(File::create(dir.join(format!("history-{workload}.edn")))?);
        edn::write(history.of(workload), &mut file)?;
        file.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
