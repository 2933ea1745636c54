//! The text for Prometheus, read by a parser that takes the format at its word: contract 2.13, 4.8.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::World;

type Labels = BTreeMap<String, String>;

/// A page, parsed: types by family, and values by name and labels.
struct Parsed {
    types: BTreeMap<String, String>,
    values: BTreeMap<(String, Labels), f64>,
}

impl Parsed {
    /// # Panics
    /// When `text` is not valid text of the exposition format 0.0.4.
    fn of(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line ends");
        let mut parsed = Self { types: BTreeMap::new(), values: BTreeMap::new() };
        let (mut family, mut helped) = (String::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                assert!(is_name(name) && !help.is_empty(), "{line}");
                assert!(helped.insert(name.to_owned()), "{name} is helped twice");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                assert!(["counter", "gauge", "histogram", "summary"].contains(&kind), "{line}");
                let before = parsed.types.insert(name.to_owned(), kind.to_owned());
                assert!(before.is_none(), "{name} has two types");
                name.clone_into(&mut family);
            } else {
                let (name, labels, value) = sample(line);
                let kind = parsed.types.get(&family).map_or("", String::as_str);
                assert!(belongs(&name, &family, kind), "{line} stands below {family}");
                let key = (name, labels);
                assert!(parsed.values.insert(key, value).is_none(), "twice: {line}");
            }
        }
        parsed.check_histograms();
        parsed
    }

    /// Buckets grow with their bounds, and the last one holds everything.
    fn check_histograms(&self) {
        for (name, _) in self.types.iter().filter(|(_, kind)| *kind == "histogram") {
            let bucket = format!("{name}_bucket");
            let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            for ((_, labels), value) in self.values.iter().filter(|((name, _), _)| *name == bucket)
            {
                let mut labels = labels.clone();
                let bound = number(&labels.remove("le").unwrap());
                series.entry(labels).or_default().push((bound, *value));
            }
            for (labels, mut buckets) in series {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(buckets.is_sorted_by_key(|(_, count)| *count), "{name} {labels:?}");
                let (bound, count) = buckets[buckets.len() - 1];
                assert_eq!(bound, f64::INFINITY, "{name} {labels:?}");
                assert_eq!(self.values[&(format!("{name}_count"), labels)], count);
            }
        }
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
        self.values.get(&(name.to_owned(), labels.collect())).copied()
    }
}

fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

fn belongs(name: &str, family: &str, kind: &str) -> bool {
    let ends: &[&str] = match kind {
        "histogram" => &["_bucket", "_sum", "_count"],
        "summary" => &["", "_sum", "_count"],
        _ => &[""],
    };
    ends.iter().any(|end| name.strip_prefix(family) == Some(end))
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        "NaN" => f64::NAN,
        text => text.parse().unwrap_or_else(|_| panic!("no number: {text}")),
    }
}

/// `name{key="text",...} value`
fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no sample: {line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (key, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(key), "{line}");
            let (text, after) = quoted(after, line);
            assert!(labels.insert(key.to_owned(), text).is_none(), "{line}");
            if let Some(after) = after.strip_prefix(',') {
                rest = after;
            } else {
                rest = after.strip_prefix('}').unwrap_or_else(|| panic!("{line}"));
                break;
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    (name.to_owned(), labels, number(value))
}

/// The text up to the closing quote, and what follows it.
fn quoted<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let (mut out, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (out, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => out.push('\n'),
                Some((_, c @ ('\\' | '"'))) => out.push(c),
                other => panic!("an escape of {other:?} in {line}"),
            },
            c => out.push(c),
        }
    }
    panic!("no closing quote: {line}")
}

#[tokio::test]
async fn contract_4_8_every_name_is_there_from_the_start() {
    let world = World::new().await;
    let page = Parsed::of(&world.get("/metrics").await.text);
    for name in [
        "tasks_submitted",
        "tasks_completed",
        "tasks_failed",
        "tasks_cancelled",
        "tasks_retried",
        "tasks_under_500ms",
        "tasks_submit_failed",
        "health_check_failed_redis",
        "tasks_submitted_report_generation",
        "tasks_submitted_total",
        "tasks_completed_total",
        "tasks_failed_total",
    ] {
        assert_eq!(page.types[name], "counter", "{name}");
        assert_eq!(page.value(name, &[]), Some(0.0), "{name}");
    }
    assert_eq!(
        (page.types["tasks_running"].as_str(), page.value("tasks_running", &[])),
        ("gauge", Some(0.0))
    );
    assert_eq!(page.types["queue_depth_api_call"], "summary");
    assert!(page.value("queue_depth_api_call_count", &[]).is_some());
    assert_eq!(page.value("queue_depth", &[("task_type", "api_call")]), Some(0.0));
    assert_eq!(page.value("agent_healthy", &[("agent_type", "data_ingest")]), Some(0.0));
    assert_eq!(page.types["task_execution_time_ms"], "summary");
    for quantile in ["0.5", "0.95", "0.99"] {
        let value = page.value("task_execution_time_ms", &[("quantile", quantile)]);
        assert!(value.unwrap().is_nan(), "of nothing there is no quantile");
    }
    assert_eq!(page.value("task_execution_time_ms_count", &[]), Some(0.0));
    assert_eq!(page.types["task_execution_time_ms_bucket"], "counter");
    assert_eq!(page.value("task_execution_time_ms_bucket", &[("le", "+Inf")]), Some(0.0));
    for code in
        ["VALIDATION_ERROR", "AGENT_UNAVAILABLE", "EXECUTION_FAILED", "TIMEOUT", "CANCELLED"]
    {
        assert_eq!(page.value("errors_total", &[("code", code)]), Some(0.0), "{code}");
    }
}

#[tokio::test]
async fn contract_2_13_every_name_is_there_from_the_start() {
    let world = World::new().await;
    let page = Parsed::of(&world.get("/metrics").await.text);
    for (name, kind) in [
        ("web4ai_requests_total", "counter"),
        ("web4ai_tasks_total", "counter"),
        ("web4ai_node_failures_total", "counter"),
        ("web4ai_active_nodes", "gauge"),
        ("web4ai_pending_tasks", "gauge"),
        ("web4ai_network_utilization", "gauge"),
        ("web4ai_node_cpu_usage", "gauge"),
        ("web4ai_node_memory_usage", "gauge"),
        ("web4ai_task_duration_seconds", "histogram"),
        ("web4ai_api_response_time_seconds", "histogram"),
        ("web4ai_task_success_rate", "gauge"),
    ] {
        assert_eq!(page.types.get(name).map(String::as_str), Some(kind), "{name}");
    }
    let labels = [("method", "GET"), ("endpoint", "/metrics"), ("status", "200")];
    assert_eq!(page.value("web4ai_requests_total", &labels), Some(0.0));
    assert_eq!(page.value("web4ai_task_success_rate", &[]), Some(1.0));
}

#[tokio::test]
async fn contract_2_13_a_page_stays_valid_whatever_clients_call_things() {
    let world = World::new().await;
    let odd = "q\"b\\c ü{}=,total";
    let path = "/api/v1/nodes/n%22%5C%7B%7D/register";
    let body = json!({"host": "h", "agents": [{"agent_id": "a", "agent_type": odd}]});
    world.post(path, &body.to_string()).await.ok();
    for (place, task_type) in [odd, "total", "x", "x_count", "x-count", "x_sum"].iter().enumerate()
    {
        let task_id = format!("t{place}");
        let body = json!({"task_id": task_id, "task_type": task_type}).to_string();
        world.post("/api/v1/tasks", &body).await.ok();
    }
    world.call("DELETE", "/api/v1/tasks/t0", "").await.ok();
    let labels = [("type", odd), ("status", "cancelled")];
    // Counters follow the events, so they may be a moment behind.
    let counted = async {
        loop {
            let page = Parsed::of(&world.get("/metrics").await.text);
            if page.value("web4ai_tasks_total", &labels) == Some(1.0) {
                return page;
            }
            tokio::task::yield_now().await;
        }
    };
    let page = tokio::time::timeout(std::time::Duration::from_secs(30), counted).await.unwrap();
    assert_eq!(page.value("queue_depth", &[("task_type", "x-count")]), Some(1.0));
    assert_eq!(page.value("agent_healthy", &[("agent_type", odd)]), Some(1.0));
    assert_eq!(page.value("tasks_submitted_x_count", &[]), Some(2.0), "two types, one name");
    assert_eq!(page.value("tasks_submitted_total_", &[]), Some(1.0));
    assert_eq!(page.value("tasks_submitted_total", &[]), Some(6.0));
    assert_eq!(page.value("errors_total", &[("code", "CANCELLED")]), Some(1.0));
}

#[tokio::test]
async fn contract_4_8_work_shows_in_the_figures() {
    let world = World::new().await;
    world.register("n1").await;
    for (task_id, execution_ms) in [("a", 40), ("b", 700)] {
        world.submit(task_id).await;
        world.place(task_id, "n1").await;
        let body = json!({"status": "completed", "attempt": 1, "execution_ms": execution_ms});
        world.post(&format!("/api/v1/tasks/{task_id}/result"), &body.to_string()).await.ok();
    }
    world.submit("c").await;
    world.place("c", "n1").await;
    world.post("/api/v1/tasks", "{}").await;
    world.call("PUT", "/api/v1/nodes/n1/status", r#"{"status":"error"}"#).await.ok();
    let counted = async {
        loop {
            let page = Parsed::of(&world.get("/metrics").await.text);
            if page.value("web4ai_node_failures_total", &[("node_id", "n1")]) == Some(1.0) {
                return page;
            }
            tokio::task::yield_now().await;
        }
    };
    let page = tokio::time::timeout(std::time::Duration::from_secs(30), counted).await.unwrap();
    for (name, labels, value) in [
        ("tasks_completed", vec![], 2.0),
        ("tasks_running", vec![], 1.0),
        ("tasks_under_500ms", vec![], 1.0),
        ("tasks_submit_failed", vec![], 1.0),
        ("errors_total", vec![("code", "VALIDATION_ERROR")], 1.0),
        ("task_execution_time_ms", vec![("quantile", "0.5")], 40.0),
        ("task_execution_time_ms", vec![("quantile", "0.99")], 700.0),
        ("task_execution_time_ms_sum", vec![], 740.0),
        ("task_execution_time_ms_bucket", vec![("le", "50")], 1.0),
        ("web4ai_task_duration_seconds_count", vec![("task_type", "t")], 2.0),
    ] {
        assert_eq!(page.value(name, &labels), Some(value), "{name} {labels:?}");
    }
}

#[tokio::test]
async fn contract_3_7_the_figures_of_family_n_are_the_clusters() {
    let world = World::new().await;
    world.play_steps();
    let page = |text: String| Parsed::of(&text);
    let before = page(world.get("/metrics").await.text);
    for (name, kind) in [
        ("orchestrator_runs_total", "counter"),
        ("orchestrator_campaigns_advanced_total", "counter"),
        ("orchestrator_simulations_launched_total", "counter"),
        ("orchestrator_run_duration_seconds", "histogram"),
    ] {
        assert_eq!(before.types[name], kind);
    }
    assert_eq!(before.value("orchestrator_runs_total", &[]), Some(0.0));
    let budgets = r#"{"budgets":{"tokens":{"limit":100}},"per_job":{"tokens":1}}"#;
    world.post("/orchestrator/config", budgets).await.ok();
    let config = json!({"name": "c", "config": {"candidates_per_iteration": 3,
        "per_job": {"tokens": 5}}});
    let made = world.post("/campaigns", &config.to_string()).await.json();
    let id = made["id"].as_str().unwrap();
    world.post(&format!("/campaigns/{id}/start"), "").await.ok();
    world.post("/orchestrator/run_once", "").await.ok();
    world.post("/orchestrator/run_once", "").await.ok();
    let after = page(world.get("/metrics").await.text);
    let budget = [("orchestrator", "default"), ("resource", "tokens")];
    let missed = [("orchestrator", "default"), ("decision", "missed_outage")];
    for (name, labels, value) in [
        ("orchestrator_runs_total", &[][..], 2.0),
        ("orchestrator_campaigns_advanced_total", &[], 1.0),
        ("orchestrator_simulations_launched_total", &[], 3.0),
        ("orchestrator_run_duration_seconds_count", &[], 2.0),
        ("orchestrator_run_duration_seconds_bucket", &[("le", "300")], 2.0),
        ("quorate_campaigns_running", &[], 1.0),
        ("quorate_runs_open", &[], 0.0),
        ("quorate_schedules_degraded", &[], 0.0),
        ("quorate_jobs_open", &[("kind", "simulation")], 3.0),
        ("quorate_slots_total", &missed, 0.0),
        ("quorate_budget_limit", &budget, 100.0),
        ("quorate_budget_reserved", &budget, 15.0),
        ("quorate_budget_spent", &budget, 0.0),
    ] {
        assert_eq!(after.value(name, labels), Some(value), "{name} {labels:?}");
    }
}

#[tokio::test]
async fn the_figures_of_bots_are_the_clusters_and_bounded() {
    let world = World::new().await;
    let empty = Parsed::of(&world.get("/metrics").await.text);
    assert_eq!(empty.value("quorate_swarms", &[]), Some(0.0));
    world.bot(r#"{"tier":"odd \"tier\"\n"}"#).await;
    let (swarm, bots) = world.swarm(3).await;
    world.post(&format!("/swarms/{swarm}/tasks"), "{}").await;
    world.post("/bots/leases", &json!({"swarms": [swarm]}).to_string()).await.ok();
    let task = world.assign(&bots[1], "{}").await;
    world.post(&format!("/bots/{}/tasks/{task}/complete", bots[1]), "").await.ok();
    world.post("/orchestrate?async=true", r#"{"tasks":[{"type":"x"}]}"#).await;
    let page = Parsed::of(&world.get("/metrics").await.text);
    let of = |key: &'static str, state: &'static str| [("tier", key), ("state", state)];
    let swarm = swarm.as_str();
    for (name, labels, value) in [
        ("quorate_bots", &[("tier", "odd \"tier\"\n")][..], 1.0),
        ("quorate_bots", &[("tier", "standard")], 3.0),
        ("quorate_bot_capacity", &[], 50_000.0),
        ("quorate_bots_created_total", &[], 4.0),
        ("quorate_bot_assignments_total", &[("state", "assigned")], 4.0),
        ("quorate_bot_assignments_total", &[("state", "completed")], 1.0),
        ("quorate_bot_assignments", &of("standard", "waiting"), 2.0),
        ("quorate_bot_assignments", &of("standard", "leased"), 1.0),
        ("quorate_bot_assignments", &of("standard", "completed"), 1.0),
        ("quorate_swarm_bots", &[("swarm", swarm)], 3.0),
        ("quorate_swarm_assignments", &[("swarm", swarm), ("state", "leased")], 1.0),
        ("quorate_workflows_running", &[], 1.0),
    ] {
        assert_eq!(page.value(name, labels), Some(value), "{name} {labels:?}");
    }
    for _ in 0..150 {
        world.swarm(1).await;
    }
    let page = Parsed::of(&world.get("/metrics").await.text);
    let lines = page.values.keys().filter(|(name, _)| name == "quorate_swarm_bots").count();
    assert_eq!(lines, 100);
    assert_eq!(page.value("quorate_swarm_bots", &[("swarm", swarm)]), Some(3.0), "the biggest");
}

#[tokio::test]
async fn contract_3_8_metrics_can_be_switched_off() {
    let world = World::new().await;
    world.call("PUT", "/api/v1/config/metrics.enabled", r#"{"value":false}"#).await.ok();
    for path in ["/metrics", "/api/v1/metrics/prometheus"] {
        let answer = world.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["code"]),
            (404, &json!("METRICS_DISABLED"))
        );
    }
    world.get("/api/v1/metrics").await.ok();
}
