//! The drills that the cluster remembers.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;

use super::Failure;
use crate::cli::output::{self, Output, Table, cell};
use crate::client::{self, Client};
use crate::drill;

pub(super) async fn list(reach: client::Options, output: Output) -> Result<ExitCode, Failure> {
    let answer = Client::new(&reach)?.get("/api/v1/drills").await?;
    let drills = answer.get("drills").cloned().unwrap_or_default();
    if output == Output::Json {
        output::json(&drills);
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["ID", "KIND", "STATE", "BEGUN", "TARGET", "BY", "SUMMARY"]);
    for drill in drills.as_array().into_iter().flatten() {
        let fields = ["drill_id", "kind", "state", "begun_at", "target", "started_by", "summary"];
        table.row(fields.iter().map(|field| cell(drill, &format!("/{field}"))));
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn show(
    reach: client::Options,
    output: Output,
    id: u64,
    html: Option<PathBuf>,
) -> Result<ExitCode, Failure> {
    let answer = Client::new(&reach)?.get(format!("/api/v1/drills/{id}")).await?;
    let report = answer.get("report").filter(|report| report.is_object());
    if let Some(path) = &html {
        let Some(report) = report else {
            return Err(Failure::failed(format!("drill {id} has no report")));
        };
        write_page(path, report)?;
    }
    match (output, report) {
        (Output::Json, _) => output::json(&answer),
        (Output::Table, Some(report)) => output::line(&drill::text(report)),
        (Output::Table, None) => {
            let fields = [("kind", "/drill/kind"), ("target", "/drill/target")];
            let more = [("state", "/drill/state"), ("summary", "/drill/summary")];
            output::answer(output, &answer, &[fields, more].concat());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the report as a page that stands alone.
pub(super) fn write_page(path: &Path, report: &Value) -> Result<(), Failure> {
    let written = std::fs::write(path, drill::page(report));
    written.map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    output::talk(&format!("wrote {}", path.display()));
    Ok(())
}
