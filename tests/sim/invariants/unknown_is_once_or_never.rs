//! What was reported as not started, or refused, is nowhere, what is unknown is there once or not at all, and
//! nothing is there that nobody asked for.
//!
//! Source: design, "exactly once from the client's view"; FoundationDB's `commit_unknown_result`.

use std::collections::BTreeMap;

use quorate::model::TaskId;

use super::{Submissions, Told};

pub(super) fn check(
    submissions: &Submissions,
    tasks: &BTreeMap<String, Vec<TaskId>>,
) -> Result<(), String> {
    for (marker, ids) in tasks {
        let Some(submission) = submissions.all.get(marker) else {
            return Err(format!("{marker} is there, and nobody submitted it"));
        };
        if matches!(submission.told, Told::NotStarted | Told::Refused) {
            return Err(format!(
                "{marker} is there, though its client was told {:?}",
                submission.told
            ));
        }
        if ids.len() > 1 {
            return Err(format!("{marker} is there as {ids:?}"));
        }
    }
    Ok(())
}
