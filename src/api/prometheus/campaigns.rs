//! Family N's figures (contract 3.7), and those that show whether campaigns go on. All of it stands in
//! the replicated state: every member says the same at the same index, whoever led.

use super::Page;
use crate::clock;
use crate::model::{Budget, JobKind, MICRO, SlotDecision};
use crate::state::{RUN_BOUNDS_MS, State as Tables};

/// A bound in seconds.
fn seconds(bound_ms: u64) -> String {
    format!("{}", bound_ms as f64 / 1000.0)
}

pub(super) fn write_state(page: &mut Page, state: &Tables) {
    write_runs(page, state);
    write_campaigns(page, state);
    write_schedules(page, state);
    write_budgets(page, state);
    let accounts = state.accounts_len();
    page.one("quorate_accounts", "gauge", "Accounts of people.", accounts);
}

fn write_runs(page: &mut Page, state: &Tables) {
    let totals = state.run_totals();
    for (name, help, value) in [
        ("runs", "Steps of orchestrators that ended.", totals.count),
        ("campaigns_advanced", "Iterations that steps began.", totals.advanced),
        ("simulations_launched", "Simulations that steps launched.", totals.simulations),
    ] {
        page.one(&format!("orchestrator_{name}_total"), "counter", help, value);
    }
    let name = "orchestrator_run_duration_seconds";
    page.family(name, "histogram", "How long steps took, by the leaders' clocks.");
    let bucket = format!("{name}_bucket");
    for (bound, count) in RUN_BOUNDS_MS.into_iter().zip(totals.within) {
        page.line(&bucket, &[("le", &seconds(bound))], count);
    }
    page.line(&bucket, &[("le", "+Inf")], totals.count);
    page.line(&format!("{name}_sum"), &[], totals.took_ms as f64 / 1000.0);
    page.line(&format!("{name}_count"), &[], totals.count);
    let open = state.open_runs().count();
    page.one("quorate_runs_open", "gauge", "Steps under way.", open);
    let oldest = state.open_runs().map(|run| run.started_at_ms).min();
    let age_ms = oldest.map_or(0, |started| clock::now_ms().saturating_sub(started));
    let age_s = age_ms as f64 / 1000.0;
    page.one("quorate_run_oldest_seconds", "gauge", "Age of the oldest step under way.", age_s);
}

fn write_campaigns(page: &mut Page, state: &Tables) {
    let running = state.running_campaigns_len();
    page.one("quorate_campaigns_running", "gauge", "Campaigns that run.", running);
    let kept = state.campaigns_len();
    page.one("quorate_campaigns", "gauge", "Campaigns that are kept.", kept);
    page.family("quorate_jobs_open", "gauge", "Jobs that have not ended, by kind.");
    for (word, kind) in [
        ("simulation", JobKind::Simulation),
        ("experiment", JobKind::Experiment),
        ("training", JobKind::Training),
    ] {
        page.line("quorate_jobs_open", &[("kind", word)], state.open_jobs(kind));
    }
}

fn write_schedules(page: &mut Page, state: &Tables) {
    let degraded = state.schedules().filter(|schedule| !schedule.degraded.is_empty()).count();
    let help = "Schedules that cannot go on.";
    page.one("quorate_schedules_degraded", "gauge", help, degraded);
    page.family("quorate_slots_total", "counter", "Slots of schedules, by their decision.");
    for schedule in state.schedules() {
        for (decision, count) in SlotDecision::WORDS.into_iter().zip(schedule.counts) {
            let labels = [("orchestrator", schedule.key.as_str()), ("decision", decision)];
            page.line("quorate_slots_total", &labels, count);
        }
    }
}

/// Budgets of orchestrators, of which there are few; those of campaigns are in their own answers.
fn write_budgets(page: &mut Page, state: &Tables) {
    for (name, help) in [
        ("limit", "What orchestrators may use, in units."),
        ("reserved", "Promised to launches that have not ended."),
        ("spent", "Gone."),
    ] {
        let name_of_family = format!("quorate_budget_{name}");
        page.family(&name_of_family, "gauge", help);
        for orchestrator in state.orchestrators() {
            // One that was taken away is on the books, and no limit.
            let limited = |budget: &Budget| name != "limit" || budget.limit < u64::MAX;
            for (resource, budget) in orchestrator.budgets.iter().filter(|(_, row)| limited(row)) {
                let amount = match name {
                    "limit" => budget.limit,
                    "reserved" => budget.reserved,
                    _ => budget.spent,
                };
                let labels =
                    [("orchestrator", orchestrator.name.as_str()), ("resource", resource.as_str())];
                page.line(&name_of_family, &labels, amount as f64 / MICRO as f64);
            }
        }
    }
}
