//! Campaigns as people read them.

use serde_json::Value;

use super::{budgets, score};
use crate::cli::output::{self, Output, Table, cell, print_fields};

/// What a table shows of one candidate's parameters, in letters.
const PARAMETERS_MAX: usize = 90;

pub(super) fn list(output: Output, body: &Value) {
    if output == Output::Json {
        output::json(body);
        return;
    }
    let titles = ["ID", "NAME", "STATUS", "ITERATION", "BEST", "ORCHESTRATOR", "CREATED"];
    let mut table = Table::new(&titles);
    let rows = body.get("campaigns").and_then(Value::as_array);
    for campaign in rows.into_iter().flatten() {
        table.row([
            cell(campaign, "/id"),
            cell(campaign, "/name"),
            status(campaign),
            progress(campaign),
            score(campaign, "/best_score"),
            cell(campaign, "/orchestrator"),
            cell(campaign, "/created_at"),
        ]);
    }
    table.print();
    output::talk(&format!("{} campaigns", cell(body, "/total")));
}

/// Its status, and whether its kill switch was pulled.
pub(in crate::cli) fn status(campaign: &Value) -> String {
    let stopped = campaign.get("tripped").is_some_and(|tripped| tripped == true);
    let status = cell(campaign, "/status");
    if stopped { format!("{status}, stopped") } else { status }
}

fn progress(campaign: &Value) -> String {
    format!("{} of {}", cell(campaign, "/current_iteration"), cell(campaign, "/max_iterations"))
}

pub(super) fn one(output: Output, campaign: &Value) {
    if output == Output::Json {
        output::json(campaign);
        return;
    }
    let plain = |name: &str, pointer: &str| (name.to_owned(), cell(campaign, pointer));
    let direction = match cell(campaign, "/config/direction").as_str() {
        "minimize" => "minimize",
        _ => "maximize",
    };
    let mut rows = vec![
        plain("campaign", "/id"),
        plain("name", "/name"),
        plain("kind", "/kind"),
        ("status".to_owned(), status(campaign)),
        plain("because", "/reason"),
        ("iteration".to_owned(), progress(campaign)),
        ("direction".to_owned(), direction.to_owned()),
        ("best score".to_owned(), score(campaign, "/best_score")),
        plain("best structure", "/best_structure_id"),
        ("target score".to_owned(), score(campaign, "/config/target_score")),
        plain("task type", "/config/task/task_type"),
    ];
    rows.extend(budgets(campaign));
    rows.extend([
        plain("orchestrator", "/orchestrator"),
        plain("asked for", "/requested_iterations"),
        plain("created", "/created_at"),
        plain("started", "/started_at"),
        plain("ended", "/completed_at"),
        ("took s".to_owned(), score(campaign, "/duration_seconds")),
        plain("description", "/description"),
    ]);
    print_fields(rows);
}

pub(super) fn log(output: Output, body: &Value) {
    if output == Output::Json {
        output::json(body);
        return;
    }
    let mut table = Table::new(&["AT", "EVENT", "MESSAGE"]);
    let entries = body.get("entries").and_then(Value::as_array);
    for entry in entries.into_iter().flatten() {
        table.row(["/at", "/event", "/message"].map(|pointer| cell(entry, pointer)));
    }
    table.print();
}

pub(super) fn iterations(output: Output, all: Vec<Value>, candidates: bool) {
    if output == Output::Json {
        output::json(&Value::from(all));
        return;
    }
    if candidates {
        return each_candidate(&all);
    }
    let titles = ["ITERATION", "CREATED", "TOOK S", "CANDIDATES", "OPEN", "FAILED", "BEST"];
    let mut table = Table::new(&titles);
    for (number, row) in (1..).zip(&all) {
        table.row([
            number.to_string(),
            cell(row, "/created_at"),
            score(row, "/duration_seconds"),
            cell(row, "/metrics/candidates"),
            cell(row, "/metrics/open"),
            cell(row, "/metrics/failed"),
            score(row, "/best_score_this_iter"),
        ]);
    }
    table.print();
}

fn each_candidate(all: &[Value]) {
    let mut table = Table::new(&["ITERATION", "JOB", "STATE", "SCORE", "PARAMETERS"]);
    for (number, row) in (1..).zip(all) {
        let results = row.pointer("/metadata/results").and_then(Value::as_array);
        for result in results.into_iter().flatten() {
            table.row([
                number.to_string(),
                cell(result, "/job_id"),
                cell(result, "/state"),
                score(result, "/score"),
                cell(result, "/parameters").chars().take(PARAMETERS_MAX).collect(),
            ]);
        }
    }
    table.print();
}
