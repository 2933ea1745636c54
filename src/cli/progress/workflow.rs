//! A workflow on its way.

use std::process::ExitCode;

use serde_json::Value;

use super::{BAR, Look};
use crate::cli::bots::workflow::{end_of, tasks};
use crate::cli::exit::Failure;
use crate::cli::figures::bar;
use crate::cli::output::{Output, cell};
use crate::client::{Client, segment};

/// Tasks that are shown: those around the one that is under way.
const TASKS: usize = 12;

/// Follows a workflow until it ends.
pub(in crate::cli) async fn follow(
    client: &Client,
    output: Output,
    id: &str,
) -> Result<ExitCode, Failure> {
    super::follow(output, || async {
        let body = client.get(format!("/api/v1/workflows/{}", segment(id))).await?;
        Ok(shown(body))
    })
    .await
}

fn shown(body: Value) -> Look {
    let count = |pointer| body.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let (done, all) = (count("/tasks_executed"), count("/total_tasks"));
    let status = cell(&body, "/status");
    let mut frame = vec![
        format!("{}  {status}", cell(&body, "/workflow_id")),
        format!("{} {done} of {all} tasks", bar(done as f64, all as f64, BAR)),
    ];
    let first = usize::try_from(done).unwrap_or(usize::MAX).saturating_sub(TASKS / 2);
    for [number, task_type, status, result] in tasks(&body).into_iter().skip(first).take(TASKS) {
        let result = if result == "-" { String::new() } else { format!("  {result}") };
        frame.push(format!("{number:>4}  {task_type}  {status}{result}"));
    }
    let line = format!("{status}: {done} of {all} tasks");
    Look { frame, line, end: end_of(&body), value: body }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_long_workflow_is_shown_around_its_task() {
        let task = json!({"task_type": "t", "status": "waiting"});
        let body = json!({"workflow_id": "w", "status": "running", "tasks_executed": 50,
            "total_tasks": 100, "tasks": vec![task; 100], "results": []});
        let look = shown(body);
        assert_eq!(look.line, "running: 50 of 100 tasks");
        assert_eq!(look.frame.len(), 2 + TASKS);
        assert!(look.frame[2].starts_with("  45  t  waiting"), "{:?}", look.frame);
        assert!(look.end.is_none());
    }
}
