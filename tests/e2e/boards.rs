//! Every board and every rule, evaluated by a Prometheus that scrapes a live cluster with work in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::fleet::Fleet;
use crate::house::House;
use crate::http::{PATIENCE, until};
use crate::ports::free_addr;
use crate::process::Process;
use crate::tools::{command, repository_file, tool};

const BOARDS: [&str; 5] =
    ["orchestrator_overview", "task_metrics", "agent_metrics", "quorate_cluster", "campaigns"];
/// What Grafana puts for its variable: at least four scrapes.
const INTERVAL: &str = "10s";
/// Rates need two scrapes with work between them, and backups a moment.
const SEEN_WITHIN: Duration = Duration::from_secs(60);

/// An expression, and where it is from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Expression {
    from: String,
    text: String,
}

fn board(name: &str) -> Value {
    serde_json::from_str(&repository_file(&format!("cluster/grafana/{name}.json"))).unwrap()
}

fn board_expressions() -> Vec<Expression> {
    let mut all = Vec::new();
    for name in BOARDS {
        for panel in board(name)["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let text = target["expr"].as_str().unwrap();
                let text = text.replace("$__rate_interval", INTERVAL);
                assert!(!text.contains('$'), "a variable nobody fills: {text}");
                all.push(Expression { from: format!("{name}: {}", panel["title"]), text });
            }
        }
    }
    all
}

/// The rules, and each one's expression without its comparison.
fn rule_expressions() -> Vec<(Expression, Expression)> {
    let rules: Value =
        serde_yaml_ng::from_str(&repository_file("cluster/grafana/alerts.yml")).unwrap();
    let groups = rules["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    rules
        .map(|rule| {
            let from = rule["alert"].as_str().unwrap().to_owned();
            let text = rule["expr"].as_str().unwrap().to_owned();
            let mut words: Vec<&str> = text.split(' ').collect();
            let (bound, comparison) = (words.pop().unwrap(), words.pop().unwrap());
            assert!(["==", "<", ">"].contains(&comparison), "{from}: {text}");
            bound.parse::<f64>().unwrap_or_else(|_| panic!("{from}: {bound} is no number"));
            let figure = Expression { from: from.clone(), text: words.join(" ") };
            (Expression { from, text }, figure)
        })
        .collect()
}

#[test]
fn boards_are_whole() {
    let mut uids = BTreeSet::new();
    for name in BOARDS {
        let board = board(name);
        assert!(uids.insert(board["uid"].to_string()), "{name}: two boards of one uid");
        assert!(!board["title"].as_str().unwrap().is_empty());
        let panels = board["panels"].as_array().unwrap();
        let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{name}: two panels of one id");
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            let place = &panel["gridPos"];
            let right = place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap();
            assert!(right <= 24, "{name}: {} leaves the page", panel["title"]);
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{name}: an empty panel");
        }
    }
    let seed = board("orchestrator_overview");
    assert_eq!(seed["title"], "Web4AI Network Orchestrator", "contract 2.13");
}

#[test]
fn contract_2_13_the_rules_of_family_w_are_there() {
    let texts: Vec<_> = rule_expressions().into_iter().map(|(rule, _)| rule).collect();
    for (name, text) in [
        ("OrchestratorDown", "up{job=\"quorate\"} == 0"),
        ("HighNodeFailureRate", "rate(web4ai_node_failures_total[5m]) > 0.1"),
        ("LowSuccessRate", "web4ai_task_success_rate < 0.9"),
        ("HighNetworkUtilization", "web4ai_network_utilization > 0.9"),
    ] {
        let rule = Expression { from: name.to_owned(), text: text.to_owned() };
        assert!(texts.contains(&rule), "{rule:?}");
    }
}

/// A Prometheus with the example's files, for the members of this test.
struct Prometheus {
    _process: Process,
    base: String,
}

fn configure(house: &House, dir: &Path) -> PathBuf {
    let mut text = repository_file("cluster/grafana/prometheus.yml");
    let examples = ["127.0.0.1:9000", "127.0.0.1:9100", "127.0.0.1:9200"];
    for (example, member) in examples.iter().zip(&house.members) {
        assert!(text.contains(example), "{example}");
        text = text.replace(example, &member.setup.http);
    }
    let text = text.replace("_interval: 5s", "_interval: 1s");
    let file = dir.join("prometheus.yml");
    std::fs::write(&file, text).unwrap();
    let rules = repository_file("cluster/grafana/alerts.yml");
    std::fs::write(dir.join("alerts.yml"), rules).unwrap();
    file
}

impl Prometheus {
    fn start(program: &Path, house: &House, dir: &Path) -> Self {
        let (file, listen) = (configure(house, dir), free_addr());
        let config = format!("--config.file={}", file.display());
        let data = format!("--storage.tsdb.path={}", dir.join("tsdb").display());
        let address = format!("--web.listen-address={listen}");
        let words = [config.as_str(), &data, &address, "--log.level=warn"];
        let log = dir.join("prometheus.log");
        let process = Process::start_program("prometheus", command(program), &words, &log);
        Self { _process: process, base: format!("http://{listen}") }
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", self.base), query).unwrap();
        let reply = client.get(url).timeout(Duration::from_secs(10)).send().await.ok()?;
        reply.json().await.ok()
    }

    /// The samples of an expression that are numbers. One that is no expression fails the test.
    async fn samples(&self, expression: &Expression) -> usize {
        let query = [("query", expression.text.as_str())];
        let Some(reply) = self.get("/api/v1/query", &query).await else { return 0 };
        assert_eq!(reply["status"], "success", "{expression:?}: {reply}");
        let series = reply["data"]["result"].as_array().unwrap().iter();
        series.filter(|series| series["value"][1] != "NaN").count()
    }
}

/// Work that goes on until it is dropped: tasks that complete, that fail and that wait, requests
/// that are refused, heartbeats.
async fn keep_working(base: Vec<String>) {
    let http = crate::http::Http::new();
    let budgets = json!({"budgets": {"tokens": {"limit": 1000}}, "per_job": {"tokens": 1}});
    let url = format!("{}/orchestrator/config", base[0]);
    let _ = http.send(Method::POST, &url, Some(&budgets), None, PATIENCE).await;
    for number in 0_u64.. {
        let base = &base[number as usize % base.len()];
        let send = |path: &str, body: Value| {
            let url = format!("{base}{path}");
            let http = http.clone();
            async move { http.send(Method::POST, &url, Some(&body), None, PATIENCE).await }
        };
        let type_of = if number % 3 == 0 { "boards" } else { "data_analysis" };
        let needs = if number % 10 == 0 { "nobody has this" } else { "boards" };
        let task = json!({ "task_type": type_of, "input_data": {}, "timeout": 5,
            "requirements": { "capabilities": [needs] } });
        let _ = send("/api/v1/tasks", task).await;
        let _ = send("/api/v1/tasks", json!({})).await;
        if number % 10 == 0 {
            let _ = send("/orchestrator/run_once", json!({})).await;
        }
        let _ =
            send("/api/v1/nodes/node-0/heartbeat", json!({ "cpu_usage": 12, "tasks_running": 1 }))
                .await;
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_board_and_rule_evaluates_to_something() {
    let Some(program) = tool("prometheus").await else { return };
    let dir = TempDir::with_prefix("quorate-boards-").unwrap();
    let backups = json!(dir.path().join("backups"));
    let more = format!("  backup: {{ dir: {backups}, interval_ms: 2000, keep: 3 }}\n");
    let house = House::found_with(3, &more).await;
    let _fleet = Fleet::start(&house, 2, "boards").await;
    let working = tokio::spawn(keep_working(house.urls()));
    let prometheus = Prometheus::start(&program, &house, dir.path());

    let rules = rule_expressions();
    let figures = rules.iter().map(|(_, figure)| figure.clone());
    let mut open: Vec<_> = board_expressions().into_iter().chain(figures).collect();
    println!("{} expressions", open.len());
    let end = Instant::now() + SEEN_WITHIN;
    while !open.is_empty() {
        assert!(Instant::now() < end, "these give nothing: {open:#?}");
        let mut still = Vec::new();
        for expression in open {
            if prometheus.samples(&expression).await == 0 {
                still.push(expression);
            }
        }
        open = still;
        sleep(Duration::from_millis(500)).await;
    }

    // Prometheus has evaluated every rule by itself, without an error.
    let seen = until("all rules evaluated", PATIENCE, || async {
        let reply = prometheus.get("/api/v1/rules", &[]).await?;
        let groups = reply["data"]["groups"].as_array()?.clone();
        let all: Vec<_> =
            groups.iter().flat_map(|group| group["rules"].as_array().cloned()).flatten().collect();
        all.iter().all(|rule| rule["health"] != "unknown").then_some(all)
    })
    .await;
    assert_eq!(seen.len(), rules.len());
    for rule in &seen {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    working.abort();
    check_page(&house, dir.path()).await;
}

/// The format's own checker reads the page of a member, too, where it is there.
async fn check_page(house: &House, dir: &Path) {
    let Some(program) = tool("promtool").await else { return };
    let page = house.http.read(&house.url(0, "/metrics")).await;
    let file = dir.join("page");
    std::fs::write(&file, page.as_str().unwrap()).unwrap();
    let mut check = command(&program);
    check.args(["check", "metrics"]).stdin(std::fs::File::open(&file).unwrap());
    let ran = tokio::task::spawn_blocking(move || check.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    // It exits with 3 for names that are not to its taste; the families' are what they are.
    assert_ne!(ran.status.code(), Some(1), "{said}");
}
