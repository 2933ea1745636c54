//! Family A's figures (contract 4.8): every name is there from the start. Totals of tasks are the
//! cluster's; what is counted by type, by code or by time is this member's since it started.

use std::collections::BTreeMap;

use super::Page;
use crate::api::App;
use crate::api::queue_depths::{Counts, Depths};
use crate::api::task_stats::TypeStats;
use crate::model::{NodeStatus, TaskStatus};
use crate::state::State as Tables;

const QUANTILES: [(&str, f64); 3] = [("0.5", 0.5), ("0.95", 0.95), ("0.99", 0.99)];
/// The agents of family A's pipelines (contract 4.4), which are there from the start.
const KNOWN_AGENTS: [&str; 11] = [
    "alerting",
    "api_caller",
    "data_analysis",
    "data_ingest",
    "document_reader",
    "industry_synthesis",
    "podcast_transcript",
    "rss_feed_monitor",
    "synthesis",
    "transcript_summary",
    "video_detection",
];
/// Types of agents shown apart: nodes choose them, so they are bounded. Further ones are `other`.
const AGENT_TYPES_MAX: usize = 200;

/// Totals of tasks, and the agents there are.
pub(super) fn write_state(page: &mut Page, state: &Tables) {
    let counters = state.counters();
    for (name, help, value) in [
        ("tasks_submitted", "Tasks accepted.", counters.tasks_submitted),
        ("tasks_completed", "Tasks that ended with a result.", counters.tasks_completed),
        ("tasks_failed", "Tasks that ended without one.", counters.tasks_failed),
        ("tasks_cancelled", "Tasks that a client ended.", counters.tasks_cancelled),
        ("tasks_retried", "Attempts that were tried again.", counters.retries),
        ("tasks_submitted_total", "Tasks accepted.", counters.tasks_submitted),
        ("tasks_completed_total", "Tasks that ended with a result.", counters.tasks_completed),
        ("tasks_failed_total", "Tasks that ended without one.", counters.tasks_failed),
    ] {
        page.one(name, "counter", help, value);
    }
    let under_way = [TaskStatus::Assigned, TaskStatus::Running, TaskStatus::Stepping];
    let running: u64 = under_way.into_iter().map(|status| state.tasks_in(status)).sum();
    page.one("tasks_running", "gauge", "Tasks that a node holds or agents work on.", running);
    write_agents(page, state);
}

fn write_agents(page: &mut Page, state: &Tables) {
    let mut healthy: BTreeMap<&str, u64> = KNOWN_AGENTS.map(|name| (name, 0)).into();
    for node in state.nodes() {
        for agent in &node.agents {
            let name = agent.agent_type.as_str();
            let is_known = healthy.contains_key(name) || healthy.len() < AGENT_TYPES_MAX;
            let count = healthy.entry(if is_known { name } else { "other" }).or_default();
            let status = agent.status.to_ascii_lowercase();
            let well = matches!(status.as_str(), "active" | "online" | "busy" | "idle" | "healthy");
            *count += u64::from(well && node.status == NodeStatus::Active);
        }
    }
    for agent in state.agents() {
        let name = agent.agent_type.as_deref().unwrap_or_default();
        let is_known = healthy.contains_key(name) || healthy.len() < AGENT_TYPES_MAX;
        let count = healthy.entry(if is_known { name } else { "other" }).or_default();
        *count += u64::from(agent.is_healthy());
    }
    page.family("agent_healthy", "gauge", "Healthy agents, by type.");
    for (name, count) in healthy {
        page.line("agent_healthy", &[("agent_type", name)], count);
    }
}

/// What this member counted. `waiting` is what waits now, when that was cheap to find out.
pub(super) fn write_counted(page: &mut Page, app: &App, waiting: Option<&Counts>) {
    let (types, all) = (app.task_stats().by_type(), app.task_stats().all());
    write_durations(page, &all, &app.task_stats().recent_ms());
    let fast = app.task_stats().fast();
    page.one("tasks_under_500ms", "counter", "Completed tasks that ran for less.", fast);
    write_errors(page, app, &all);
    let mut submitted: BTreeMap<String, u64> = BTreeMap::new();
    for (task_type, stats) in &types {
        *submitted.entry(metric_word(task_type, &["total"])).or_default() += stats.submitted;
    }
    for (word, count) in submitted {
        let name = format!("tasks_submitted_{word}");
        page.one(&name, "counter", "Tasks of this type accepted.", count);
    }
    write_depths(page, &app.queue_depths().by_type(), waiting);
    app.task_stats().write_agents(page);
}

fn write_durations(page: &mut Page, all: &TypeStats, recent_ms: &[u64]) {
    let name = "task_execution_time_ms";
    page.family(name, "summary", "Time that completed tasks ran; quantiles of the newest ones.");
    write_quantiles(page, name, recent_ms);
    page.line("task_execution_time_ms_sum", &[], all.sum_ms);
    page.line("task_execution_time_ms_count", &[], all.completed);
    // A summary has no buckets, and a name has one type: so these are counters of their own.
    let name = "task_execution_time_ms_bucket";
    page.family(name, "counter", "Completed tasks that ran for at most so long.");
    for (bound, count) in all.below() {
        let bound = bound.map_or_else(|| "+Inf".to_owned(), |ms| ms.to_string());
        page.line(name, &[("le", &bound)], count);
    }
}

/// `sorted` begins with the lowest. Of nothing there is no quantile, which the format writes so.
fn write_quantiles(page: &mut Page, name: &str, sorted: &[u64]) {
    for (label, share) in QUANTILES {
        let rank = (share * sorted.len() as f64).ceil() as usize;
        match sorted.get(rank.saturating_sub(1)) {
            Some(value) => page.line(name, &[("quantile", label)], value),
            None => page.line(name, &[("quantile", label)], "NaN"),
        }
    }
}

fn write_errors(page: &mut Page, app: &App, all: &TypeStats) {
    let refused = app.stats().errors();
    page.family("errors_total", "counter", "Requests refused and tasks that failed, by code.");
    for (code, of_tasks) in [
        ("VALIDATION_ERROR", 0),
        ("AGENT_UNAVAILABLE", all.unavailable),
        ("EXECUTION_FAILED", all.failed - all.unavailable),
        ("TIMEOUT", all.timeout),
        ("CANCELLED", all.cancelled),
    ] {
        let of_requests = refused.get(code).copied().unwrap_or_default();
        page.line("errors_total", &[("code", code)], of_requests + of_tasks);
    }
    let submissions = ["/api/v1/tasks", "/api/v1/tasks/batch"];
    let failed = app.stats().failures("POST", &submissions);
    page.one("tasks_submit_failed", "counter", "Submissions refused.", failed);
    // What that store was for is in the replicated state, so it fails when there is no leader.
    let failed = app.stats().failures("GET", &["/health"]);
    page.one("health_check_failed_redis", "counter", "Health checks without a leader.", failed);
}

fn write_depths(page: &mut Page, known: &BTreeMap<String, Depths>, waiting: Option<&Counts>) {
    page.family("queue_depth", "gauge", "Tasks that wait, by type.");
    let newest = known.iter().map(|(task_type, depths)| (task_type.as_str(), depths.newest()));
    let mut depths: BTreeMap<&str, u64> = newest.collect();
    if let Some(waiting) = waiting {
        depths.values_mut().for_each(|depth| *depth = 0);
        depths.extend(waiting.iter().map(|(task_type, count)| (task_type.as_str(), *count)));
    }
    for (task_type, depth) in depths {
        page.line("queue_depth", &[("task_type", task_type)], depth);
    }
    let mut by_word: BTreeMap<String, Depths> = BTreeMap::new();
    for (task_type, depths) in known {
        let word = metric_word(task_type, &["_count", "_sum"]);
        by_word.entry(word).or_default().add(depths);
    }
    for (word, depths) in by_word {
        let name = format!("queue_depth_{word}");
        page.family(&name, "summary", "Tasks of this type that wait, of the last ten minutes.");
        write_quantiles(page, &name, &depths.sorted());
        page.line(&format!("{name}_sum"), &[], depths.sum);
        page.line(&format!("{name}_count"), &[], depths.count);
    }
}

/// A task type as a part of a metric's name. One that ends like a name of another kind does gets a
/// mark, so that no type of a client can spoil the page.
fn metric_word(task_type: &str, taken_ends: &[&str]) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let mut word: String = task_type.chars().map(plain).collect();
    if taken_ends.iter().any(|end| word.ends_with(end)) {
        word.push('_');
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_seen() {
        let of = |sorted: &[u64]| {
            let mut page = Page::default();
            write_quantiles(&mut page, "q", sorted);
            page.text().replace('\n', " ")
        };
        let none = "q{quantile=\"0.5\"} NaN q{quantile=\"0.95\"} NaN q{quantile=\"0.99\"} NaN ";
        assert_eq!(of(&[]), none);
        assert_eq!(of(&[7]), none.replace("NaN", "7"));
        let hundred: Vec<u64> = (1..=100).collect();
        let expected = "q{quantile=\"0.5\"} 50 q{quantile=\"0.95\"} 95 q{quantile=\"0.99\"} 99 ";
        assert_eq!(of(&hundred), expected);
    }

    #[test]
    fn types_of_clients_become_words_that_collide_with_nothing() {
        for (task_type, word) in [
            ("api_call", "api_call"),
            ("a-b c/ü", "a_b_c__"),
            ("total", "total_"),
            ("x_count", "x_count_"),
        ] {
            assert_eq!(metric_word(task_type, &["total", "_count", "_sum"]), word);
        }
    }
}
