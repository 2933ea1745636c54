//! Orchestrators as people read them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cli::campaign::{budgets, score};
use crate::cli::output::{self, Output, Table, answer, cell, print_fields};

/// When it steps, in words.
pub(in crate::cli) fn cadence(state: &Value) -> String {
    let mode = cell(state, "/mode");
    let schedule = state.get("schedule").unwrap_or(&Value::Null);
    let when = match mode.as_str() {
        "SCHEDULED" if schedule.get("cron").is_some() => {
            format!(" by `{}` in {}", cell(schedule, "/cron"), cell(schedule, "/timezone"))
        }
        "SCHEDULED" => format!(" every {} s", score(schedule, "/interval_seconds")),
        "CONTINUOUS" => {
            format!(" with pauses of {} s", score(schedule, "/continuous_pause_seconds"))
        }
        _ => String::new(),
    };
    let trouble = match schedule.get("status").and_then(Value::as_str) {
        Some("degraded") => format!(", degraded: {}", cell(schedule, "/reason")),
        _ => String::new(),
    };
    let idle = if state.get("is_active").is_some_and(|active| active == false) {
        ", not active"
    } else {
        ""
    };
    format!("{mode}{when}{idle}{trouble}")
}

pub(super) fn state(output: Output, state: &Value) {
    if output == Output::Json {
        output::json(state);
        return;
    }
    let plain = |name: &str, pointer: &str| (name.to_owned(), cell(state, pointer));
    let mut rows = vec![
        plain("orchestrator", "/name"),
        ("mode".to_owned(), cadence(state)),
        plain("active", "/is_active"),
        plain("steps", "/run_count"),
        plain("last step", "/last_run_at"),
        plain("simulations launched", "/total_simulations_launched"),
        plain("experiments launched", "/total_experiments_launched"),
        plain("trainings launched", "/total_trainings_launched"),
        plain("error", "/error_message"),
    ];
    rows.extend(budgets(state));
    rows.push(plain("description", "/description"));
    print_fields(rows);
}

pub(super) fn settings(output: Output, state: &Value) {
    if output == Output::Json {
        output::json(state);
        return;
    }
    let mut rows = vec![
        ("orchestrator".to_owned(), cell(state, "/name")),
        ("mode".to_owned(), cadence(state)),
    ];
    let all = |pointer: &str| state.pointer(pointer).and_then(Value::as_object);
    let config = all("/config").into_iter().flatten();
    rows.extend(config.map(|(name, value)| (name.clone(), setting(value))));
    let schedule = all("/schedule").into_iter().flatten();
    rows.extend(schedule.map(|(name, value)| (format!("schedule.{name}"), setting(value))));
    rows.extend(budgets(state).into_iter().map(|(name, text)| (format!("budgets.{name}"), text)));
    print_fields(rows);
}

fn setting(value: &Value) -> String {
    if value.is_number() { score(value, "") } else { cell(value, "") }
}

fn all_decisions(run: &Value) -> impl Iterator<Item = &Value> {
    run.pointer("/actions/decisions").and_then(Value::as_array).into_iter().flatten()
}

/// The decisions of a step about one campaign.
pub(in crate::cli) fn decisions_about<'a>(
    run: &'a Value,
    campaign: &'a str,
) -> impl Iterator<Item = &'a Value> {
    all_decisions(run)
        .filter(move |decision| decision.get("campaign_id").is_some_and(|id| id == campaign))
}

/// One step with all it decided.
pub(super) fn run(output: Output, run: &Value) {
    if output == Output::Json {
        output::json(run);
        return;
    }
    let mut table = Table::new(&["DECISION", "CAMPAIGN", "ITERATION", "RESULT", "REASON"]);
    for decision in all_decisions(run) {
        let about = [cell(decision, "/campaign_id"), cell(decision, "/model")];
        table.row([
            cell(decision, "/type"),
            about.into_iter().find(|about| about != "-").unwrap_or_else(|| "-".to_owned()),
            cell(decision, "/iteration"),
            cell(decision, "/result"),
            cell(decision, "/reason"),
        ]);
    }
    table.print();
    let error = match run.get("error_message").and_then(Value::as_str) {
        Some(error) => format!("; it failed: {error}"),
        None => String::new(),
    };
    output::talk(&format!(
        "step {} took {} s: {} simulations, {} experiments launched{error}",
        cell(run, "/id"),
        score(run, "/duration_seconds"),
        cell(run, "/actions/simulations_launched"),
        cell(run, "/actions/experiments_launched"),
    ));
}

pub(super) fn runs(output: Output, body: &Value) {
    if output == Output::Json {
        output::json(body);
        return;
    }
    let titles = ["STEP", "STARTED", "TOOK S", "BY", "LAUNCHED", "DECIDED", "ERROR"];
    let mut table = Table::new(&titles);
    for run in body.as_array().into_iter().flatten() {
        let mut results: BTreeMap<String, u32> = BTreeMap::new();
        for decision in all_decisions(run) {
            *results.entry(cell(decision, "/result")).or_default() += 1;
        }
        let results = results.into_iter().map(|(result, count)| format!("{count} {result}"));
        table.row([
            cell(run, "/id"),
            cell(run, "/started_at"),
            score(run, "/duration_seconds"),
            cell(run, "/triggered_by"),
            cell(run, "/actions/simulations_launched"),
            results.collect::<Vec<_>>().join(", "),
            cell(run, "/error_message"),
        ]);
    }
    table.print();
}

/// What steps decided about one campaign.
pub(super) fn decisions(body: &Value, campaign: &str) {
    let mut table = Table::new(&["STEP", "STARTED", "DECISION", "ITERATION", "RESULT", "REASON"]);
    for run in body.as_array().into_iter().flatten() {
        for decision in decisions_about(run, campaign) {
            table.row([
                cell(run, "/id"),
                cell(run, "/started_at"),
                cell(decision, "/type"),
                cell(decision, "/iteration"),
                cell(decision, "/result"),
                cell(decision, "/reason"),
            ]);
        }
    }
    table.print();
}

pub(super) fn slots(output: Output, body: &Value) {
    if output == Output::Json {
        output::json(body);
        return;
    }
    let mut table = Table::new(&["SLOT", "DECISION", "STEP", "DECIDED"]);
    let slots = body.get("slots").and_then(Value::as_array);
    for slot in slots.into_iter().flatten() {
        let row = ["/slot", "/decision", "/run_id", "/decided_at"];
        table.row(row.map(|pointer| cell(slot, pointer)));
    }
    table.print();
    let counts = body.get("counts").and_then(Value::as_object).into_iter().flatten();
    let counts: Vec<String> = counts.map(|(word, count)| format!("{count} {word}")).collect();
    output::talk(&format!("{}: {}", cadence(body), counts.join(", ")));
}

pub(super) fn stats(output: Output, body: &Value) {
    let fields = [
        ("running campaigns", "/active_campaigns"),
        ("waiting jobs", "/pending_jobs"),
        ("running jobs", "/running_jobs"),
        ("completed in 24 h", "/completed_jobs_last_24h"),
        ("waiting experiments", "/pending_experiments"),
        ("structures", "/total_structures"),
        ("labeled samples", "/total_labeled_samples"),
        ("models to retrain", "/models_ready_for_retrain"),
        ("need attention", "/campaigns_needing_attention"),
        ("at", "/timestamp"),
    ];
    answer(output, body, &fields);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cadences_are_told_in_words() {
        let cases = [
            (json!({"mode": "MANUAL", "is_active": true}), "MANUAL"),
            (
                json!({"mode": "SCHEDULED", "schedule": {"interval_seconds": 1.5}}),
                "SCHEDULED every 1.5 s",
            ),
            (
                json!({"mode": "SCHEDULED", "is_active": false,
                       "schedule": {"cron": "0 4 * * *", "timezone": "UTC"}}),
                "SCHEDULED by `0 4 * * *` in UTC, not active",
            ),
            (
                json!({"mode": "CONTINUOUS", "schedule": {
                    "continuous_pause_seconds": 30, "status": "degraded", "reason": "why"}}),
                "CONTINUOUS with pauses of 30 s, degraded: why",
            ),
        ];
        for (state, wanted) in cases {
            assert_eq!(cadence(&state), wanted);
        }
    }

    #[test]
    fn decisions_of_others_are_not_about_a_campaign() {
        let run = json!({"actions": {"decisions": [
            {"campaign_id": "a", "result": "queued"}, {"campaign_id": "b"}, {"result": "skipped"}]}});
        let about: Vec<&Value> = decisions_about(&run, "a").collect();
        assert_eq!(about, [&json!({"campaign_id": "a", "result": "queued"})]);
    }
}
