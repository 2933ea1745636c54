//! The worker against a member that is made of a script: what it runs, how often, what it reports.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::client;

/// What the member was told.
#[derive(Debug)]
struct Told {
    what: String,
    key: String,
    body: Value,
}

#[derive(Clone)]
struct FakeMember {
    told: mpsc::Sender<Told>,
    /// So many reports are answered with 503 first.
    refusals: Arc<AtomicUsize>,
    /// Nodes may not be taken out.
    keeps_nodes: Arc<AtomicBool>,
}

async fn take(
    State(member): State<FakeMember>,
    method: Method,
    Path(path): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let key = headers.get("idempotency-key").map_or("", |key| key.to_str().unwrap()).to_owned();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let is_report = path.ends_with("/result");
    let is_removal = method == Method::DELETE;
    member.told.send(Told { what: format!("{method} {path}"), key, body }).await.unwrap();
    if is_removal && member.keeps_nodes.load(Ordering::Relaxed) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let left = |n: usize| n.checked_sub(1);
    if is_report && member.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok()
    {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    axum::Json(json!({ "success": true })).into_response()
}

/// A worker, the member it talks to, and a way to dispatch to it.
struct Bench {
    told: mpsc::Receiver<Told>,
    refusals: Arc<AtomicUsize>,
    keeps_nodes: Arc<AtomicBool>,
    url: String,
    stop: CancellationToken,
    done: tokio::task::JoinHandle<Result<(), Error>>,
    http: reqwest::Client,
    _dir: tempfile::TempDir,
    marks: std::path::PathBuf,
}

impl Bench {
    async fn start(concurrency: u32, drain_timeout: Duration) -> Self {
        let (sender, told) = mpsc::channel(1000);
        let refusals = Arc::new(AtomicUsize::new(0));
        let keeps_nodes = Arc::new(AtomicBool::new(false));
        let member = FakeMember {
            told: sender,
            refusals: Arc::clone(&refusals),
            keeps_nodes: Arc::clone(&keeps_nodes),
        };
        let router = axum::Router::new().route("/api/v1/{*path}", axum::routing::any(take));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let member_url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router.with_state(member)).await });

        let dir = tempfile::tempdir().unwrap();
        let marks = dir.path().join("marks");
        std::process::Command::new("mkfifo").arg(dir.path().join("gate")).status().unwrap();
        let gated = format!(
            "echo $QUORATE_TASK_ID/$QUORATE_ATTEMPT >> {marks}; cat {gate} >/dev/null; cat",
            marks = marks.display(),
            gate = dir.path().join("gate").display(),
        );
        let programs = [("echo", "cat"), ("gated", gated.as_str()), ("slow", "sleep 60")];
        let options = Options {
            node_id: Some("n1".to_owned()),
            programs: programs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            environment: Vec::new(),
            capabilities: vec!["extra".to_owned()],
            listen: "127.0.0.1:0".parse().unwrap(),
            advertise: None,
            concurrency,
            heartbeat: Duration::from_secs(3600),
            drain_timeout,
            farewell: Farewell::Remove,
        };
        let client = client::Options { urls: vec![member_url], ..client::Options::default() };
        let worker = Worker::bind(options, Client::new(&client).unwrap()).await.unwrap();
        let url = format!("http://{}", worker.address());
        let stop = worker.stop_token();
        let done = tokio::spawn(worker.run());
        let http = reqwest::Client::new();
        Self { told, refusals, keeps_nodes, url, stop, done, http, _dir: dir, marks }
    }

    async fn dispatch(&self, body: Value) -> (u16, Value) {
        let url = format!("{}/api/v4/tasks/execute", self.url);
        let response = self.http.post(url).json(&body).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// The next thing the member is told that is not a heartbeat.
    async fn told(&mut self) -> Told {
        loop {
            let told = tokio::time::timeout(Duration::from_secs(30), self.told.recv());
            let told = told.await.expect("the worker tells something").unwrap();
            if !told.what.ends_with("/heartbeat") {
                return told;
            }
        }
    }

    async fn registered(&mut self) {
        let told = self.told().await;
        assert_eq!(told.what, "POST nodes/n1/register");
        assert_eq!(
            told.body["capabilities"],
            json!(["echo", "extra", "gated", "listed-types-only", "slow"])
        );
    }

    /// Lets one gated program go on. Blocks until the program has opened the gate.
    async fn open_gate(&self) {
        let gate = self.marks.with_file_name("gate");
        tokio::task::spawn_blocking(move || std::fs::write(gate, "go").unwrap()).await.unwrap();
    }

    fn marks(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.marks).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

const LONG: Duration = Duration::from_secs(60);

fn task(task_id: &str, attempt: u32, task_type: &str) -> Value {
    json!({ "task_id": task_id, "task_type": task_type, "attempt": attempt, "epoch": "4.2",
            "input_data": {"x": task_id}, "timeout": 30, "priority": 3, "requirements": {} })
}

#[tokio::test]
async fn a_dispatch_is_acknowledged_run_and_reported_until_recorded() {
    let mut bench = Bench::start(2, LONG).await;
    bench.registered().await;
    bench.refusals.store(2, Ordering::Relaxed);
    let (status, body) = bench.dispatch(task("t/1", 3, "echo")).await;
    assert_eq!(status, 200);
    assert_eq!(body, json!({"success": true, "task_id": "t/1", "status": "accepted"}));
    let mut keys = Vec::new();
    for _ in 0..3 {
        let told = bench.told().await;
        assert_eq!(told.what, "POST tasks/t/1/result");
        assert_eq!(told.body["status"], "completed");
        assert_eq!(told.body["result"], json!({"x": "t/1"}));
        assert_eq!((&told.body["attempt"], &told.body["epoch"]), (&json!(3), &json!("4.2")));
        assert_eq!(told.body["node_id"], "n1");
        keys.push(told.key);
    }
    keys.dedup();
    assert_eq!(keys.len(), 1, "one key for all tries: {keys:?}");
}

#[tokio::test]
async fn a_repeated_dispatch_runs_once_and_reports_again() {
    let mut bench = Bench::start(2, LONG).await;
    bench.registered().await;
    bench.dispatch(task("a", 1, "gated")).await;
    let (status, _) = bench.dispatch(task("a", 1, "gated")).await;
    assert_eq!(status, 200);
    bench.open_gate().await;
    let first = bench.told().await;
    assert_eq!(first.body["status"], "completed");
    assert_eq!(bench.dispatch(task("a", 1, "gated")).await.0, 200);
    let again = bench.told().await;
    assert_eq!((&first.body, &first.key), (&again.body, &again.key));
    assert_eq!(bench.marks(), ["a/1"]);
}

#[tokio::test]
async fn a_higher_attempt_kills_the_older_one_and_alone_reports() {
    let mut bench = Bench::start(1, LONG).await;
    bench.registered().await;
    bench.dispatch(task("a", 1, "slow")).await;
    assert_eq!(bench.dispatch(task("b", 1, "echo")).await.0, 429, "the only slot is taken");
    assert_eq!(bench.dispatch(task("a", 2, "echo")).await.0, 200);
    let told = bench.told().await;
    assert_eq!((&told.body["attempt"], &told.body["status"]), (&json!(2), &json!("completed")));
    let (status, body) = bench.dispatch(task("a", 1, "slow")).await;
    assert_eq!((status, &body["success"]), (409, &json!(false)));
}

#[tokio::test]
async fn a_timeout_and_an_unknown_type_are_failures() {
    let mut bench = Bench::start(1, LONG).await;
    bench.registered().await;
    let mut slow = task("a", 1, "slow");
    slow["timeout"] = json!(0.05);
    bench.dispatch(slow).await;
    let told = bench.told().await;
    assert_eq!((&told.body["status"], &told.body["retryable"]), (&json!("failed"), &json!(true)));
    assert!(told.body["error"].as_str().unwrap().starts_with("timeout"), "{}", told.body);
    let (status, body) = bench.dispatch(task("b", 1, "nonsense")).await;
    assert_eq!((status, &body["task_id"]), (500, &json!("b")));
    assert_eq!(bench.dispatch(json!({"task_id": "x"})).await.0, 400);
}

#[tokio::test]
async fn a_drain_finishes_what_runs_takes_nothing_new_and_says_farewell() {
    let mut bench = Bench::start(2, LONG).await;
    bench.registered().await;
    bench.dispatch(task("a", 1, "gated")).await;
    bench.stop.cancel();
    assert_eq!(bench.dispatch(task("b", 1, "echo")).await.0, 429);
    bench.open_gate().await;
    let told = bench.told().await;
    assert_eq!(
        (told.what.as_str(), &told.body["status"]),
        ("POST tasks/a/result", &json!("completed"))
    );
    assert_eq!(bench.told().await.what, "DELETE nodes/n1");
    bench.done.await.unwrap().unwrap();
}

/// A key of the role `node` may not take nodes out: the worker left without a word, and its node counted
/// as active until its heartbeats were missed.
#[tokio::test]
async fn a_worker_that_may_not_remove_itself_says_that_it_is_offline() {
    let mut bench = Bench::start(2, LONG).await;
    bench.registered().await;
    // Before that it may not know yet that it is registered, and has nothing to take back.
    let beat = bench.told.recv().await.unwrap();
    assert_eq!(beat.what, "POST nodes/n1/heartbeat");
    bench.keeps_nodes.store(true, Ordering::Relaxed);
    bench.stop.cancel();
    assert_eq!(bench.told().await.what, "DELETE nodes/n1");
    let told = bench.told().await;
    assert_eq!(
        (told.what.as_str(), told.body),
        ("PUT nodes/n1/status", json!({"status": "offline"}))
    );
    bench.done.await.unwrap().unwrap();
}

/// It registered, beat and looked active, while every dispatch went to the leader's own loopback.
#[tokio::test]
async fn a_worker_that_members_elsewhere_cannot_call_is_refused() {
    let bind = async |urls: &[&str], listen: &str, advertise: Option<&str>| {
        let options = Options {
            node_id: None,
            programs: [("a".to_owned(), "cat".to_owned())].into(),
            environment: Vec::new(),
            capabilities: Vec::new(),
            listen: listen.parse().unwrap(),
            advertise: advertise.map(str::to_owned),
            concurrency: 1,
            heartbeat: LONG,
            drain_timeout: LONG,
            farewell: Farewell::Remove,
        };
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        let client = client::Options { urls, ..client::Options::default() };
        Worker::bind(options, Client::new(&client).unwrap()).await.map(|worker| worker.address())
    };
    let said = bind(&["localhost:9000", "http://host1:9000"], "127.0.0.1:0", None).await;
    let said = said.unwrap_err().to_string();
    assert!(said.contains("http://host1:9000") && said.contains("--advertise"), "{said}");
    let here = ["http://localhost:9000", "http://127.0.0.2:9100", "http://[::1]:9200"];
    assert!(bind(&here, "127.0.0.1:0", None).await.is_ok());
    let told = bind(&["http://host1:9000"], "127.0.0.1:0", Some("127.0.0.1")).await.unwrap();
    assert!(told.starts_with("127.0.0.1:"), "who says so means it: {told}");
}

#[tokio::test]
async fn a_drain_past_its_limit_kills_and_reports_that() {
    let mut bench = Bench::start(2, Duration::from_millis(50)).await;
    bench.registered().await;
    bench.dispatch(task("a", 1, "slow")).await;
    bench.stop.cancel();
    let told = bench.told().await;
    assert_eq!((&told.body["status"], &told.body["retryable"]), (&json!("failed"), &json!(true)));
    assert_eq!(bench.told().await.what, "DELETE nodes/n1");
    bench.done.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_worker_describes_itself() {
    let mut bench = Bench::start(2, LONG).await;
    bench.registered().await;
    for (path, key) in [("/api/health", "node_id"), ("/api/v4/orchestrator/status", "agent_id")] {
        let response = bench.http.get(format!("{}{path}", bench.url)).send().await.unwrap();
        let body: Value = response.json().await.unwrap();
        assert_eq!(body[key], "n1", "{path}: {body}");
    }
}
