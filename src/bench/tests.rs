//! Every scenario from end to end, against a small cluster of one process that keeps the contract.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::args::{
    Action, BatchArgs, Consistency, EndToEndArgs, FailoverArgs, FleetArgs, HeartbeatArgs, LoadArgs,
    MembersArgs, Observe, ReadArgs, Retain, RetainedArgs, Scenario, System,
};
use super::connection::{Connection, Target, request_bytes};
use super::crowd::{AgentsArgs, HeartbeatsArgs, KillArgs, Mode};
use super::drive::tests::{load, serve};
use super::{BenchArgs, measure};

/// One process that behaves like a cluster, as far as a client can tell.
#[derive(Clone)]
struct Small {
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<String>,
}

#[derive(Default)]
struct Inner {
    /// Task id to status.
    tasks: BTreeMap<String, &'static str>,
    nodes: BTreeMap<String, Value>,
    nodes_ever: usize,
    reads: BTreeMap<String, u64>,
    heartbeats: u64,
    /// When each node last beat.
    beats: BTreeMap<String, tokio::time::Instant>,
    transfers: u64,
    leader: u64,
    /// How often each execution is sent to the node.
    doubled: bool,
    urls: Vec<String>,
}

impl Small {
    fn new() -> Self {
        let inner = Inner { leader: 1, ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)), events: broadcast::channel(4096).0 }
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/api/v1/tasks", post(submit))
            .route("/api/v1/tasks/batch", post(submit_batch))
            .route("/api/v1/tasks/{id}", get(read).delete(cancel))
            .route("/api/v1/nodes/{id}/register", post(register))
            .route("/api/v1/nodes/{id}/heartbeat", post(heartbeat))
            .route("/api/v1/nodes/{id}", delete(remove))
            .route("/api/v1/status", get(status))
            .route("/api/v1/cluster", get(cluster))
            .route("/api/v1/cluster/transfer-leader", post(transfer))
            .route("/api/v1/events", get(events))
            .with_state(self.clone())
    }

    async fn serve(&self, members: usize) -> Vec<Target> {
        let mut targets = Vec::new();
        for _ in 0..members {
            targets.push(serve(self.router()).await);
        }
        self.inner.lock().urls = targets.iter().map(|target| target.authority.clone()).collect();
        targets
    }

    fn count(&self, status: &str) -> usize {
        self.inner.lock().tasks.values().filter(|found| **found == status).count()
    }

    /// Stores a task, and executes it when a node can.
    fn accept(&self, task: &Value) {
        let mut inner = self.inner.lock();
        let minted = format!("task_{:012}", inner.tasks.len());
        let id = task["task_id"].as_str().map_or(minted, str::to_owned);
        if task["task_type"] == "report_generation" {
            inner.tasks.insert(id.clone(), "completed");
            for id in [format!("{id}#1"), id] {
                let fact = json!({"type": "task_ended", "task_id": id, "status": "completed"});
                self.events.send(format!("id: 1-0\ndata: {fact}\n\n")).ok();
            }
            return;
        }
        assert_eq!(task["task_type"], "bench");
        inner.tasks.insert(id.clone(), "pending");
        let wanted = &task["requirements"]["capabilities"][0];
        let node = inner.nodes.values().find(|node| &node["capabilities"][0] == wanted);
        if let Some(node) = node {
            let (host, port) = (node["host"].as_str().unwrap(), &node["port"]);
            let node = format!("{host}:{port}").parse().unwrap();
            let times = if inner.doubled { 2 } else { 1 };
            tokio::spawn(execute(self.clone(), node, id, times));
        }
    }
}

async fn execute(small: Small, node: Target, id: String, times: u32) {
    let mut connection = Connection::open(&node).await.unwrap();
    let body = json!({"task_id": id, "task_type": "bench", "attempt": 1}).to_string();
    let request = request_bytes("POST", &node, "/api/v4/tasks/execute", "", body.as_bytes());
    for _ in 0..times {
        let reply = connection.exchange(&request).await.unwrap();
        let answer: Value = serde_json::from_slice(reply.body).unwrap();
        assert_eq!((reply.status, &answer["success"]), (200, &json!(true)));
    }
    small.inner.lock().tasks.insert(id.clone(), "completed");
    let fact = json!({"type": "task_ended", "task_id": id, "status": "completed"});
    // Without listeners nobody wants to know.
    small.events.send(format!("id: 1-0\ndata: {fact}\n\n")).ok();
}

async fn submit(State(small): State<Small>, Json(task): Json<Value>) -> Json<Value> {
    small.accept(&task);
    Json(json!({"success": true}))
}

async fn submit_batch(State(small): State<Small>, body: Bytes) -> Json<Value> {
    let body: Value = serde_json::from_slice(&body).unwrap();
    body["tasks"].as_array().unwrap().iter().for_each(|task| small.accept(task));
    Json(json!({"success": true}))
}

async fn read(
    State(small): State<Small>,
    Path(id): Path<String>,
    query: axum::extract::RawQuery,
) -> StatusCode {
    let mut inner = small.inner.lock();
    *inner.reads.entry(query.0.unwrap_or_default()).or_default() += 1;
    if inner.tasks.contains_key(&id) { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

async fn cancel(State(small): State<Small>, Path(id): Path<String>) -> StatusCode {
    let mut inner = small.inner.lock();
    match inner.tasks.get_mut(&id) {
        Some(status) if *status == "pending" => *status = "cancelled",
        Some(_) => return StatusCode::CONFLICT,
        None => return StatusCode::NOT_FOUND,
    }
    StatusCode::OK
}

async fn register(
    State(small): State<Small>,
    Path(id): Path<String>,
    Json(node): Json<Value>,
) -> Json<Value> {
    let mut inner = small.inner.lock();
    inner.nodes_ever += 1;
    inner.nodes.insert(id, node);
    Json(json!({"success": true}))
}

async fn heartbeat(State(small): State<Small>, Path(id): Path<String>) -> StatusCode {
    let mut inner = small.inner.lock();
    inner.heartbeats += 1;
    inner.beats.insert(id.clone(), tokio::time::Instant::now());
    if inner.nodes.contains_key(&id) { StatusCode::OK } else { StatusCode::BAD_REQUEST }
}

async fn remove(State(small): State<Small>, Path(id): Path<String>) -> StatusCode {
    let removed = small.inner.lock().nodes.remove(&id);
    if removed.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

async fn status(State(small): State<Small>) -> Json<Value> {
    let (pending, completed) = (small.count("pending"), small.count("completed"));
    let tasks = json!({"pending": pending, "active": 0, "completed": completed, "failed": 0});
    Json(json!({"data": {"tasks": tasks}}))
}

async fn cluster(State(small): State<Small>) -> Json<Value> {
    let inner = small.inner.lock();
    let member = |(n, url): (usize, &String)| {
        json!({"id": n + 1, "http": format!("http://{url}"), "state": "follower", "lag": 0,
            "last_log": 10})
    };
    let members: Vec<Value> = inner.urls.iter().enumerate().map(member).collect();
    Json(json!({"leader": inner.leader, "term": inner.leader, "members": members}))
}

async fn transfer(State(small): State<Small>) -> StatusCode {
    let mut inner = small.inner.lock();
    inner.transfers += 1;
    inner.leader = inner.leader % inner.urls.len() as u64 + 1;
    StatusCode::OK
}

async fn events(State(small): State<Small>) -> Response {
    let seen = small.events.subscribe();
    let stream = futures::stream::unfold(seen, |mut seen| async {
        let event = seen.recv().await.ok()?;
        Some((Ok::<_, std::io::Error>(event), seen))
    });
    Body::from_stream(stream.boxed()).into_response()
}

fn fleet() -> FleetArgs {
    FleetArgs { nodes: 3, capacity: 16, work_ms: 0, node_host: "127.0.0.1".to_owned() }
}

fn no_processes() -> MembersArgs {
    MembersArgs { pid_file: Vec::new(), restart: None, process_name: "quorate".to_owned() }
}

fn failover(kills: u32, action: Action) -> FailoverArgs {
    let (target, members) = (System::Quorate, no_processes());
    FailoverArgs { target, members, kills, action, settle_ms: 0 }
}

async fn report_of(load: LoadArgs, scenario: Scenario) -> Value {
    let report = measure(BenchArgs { load, scenario }).await.unwrap();
    assert!(!report.table().is_empty());
    serde_json::to_value(&report).unwrap()
}

#[tokio::test]
async fn submit_writes_tasks_and_counts_them_before_and_after() {
    let small = Small::new();
    let report = report_of(load(small.serve(2).await, 60), Scenario::Submit).await;
    assert_eq!(small.count("pending"), 60);
    assert_eq!((&report["ok"], &report["errors"]), (&json!(60), &json!(0)));
    assert_eq!(report["before"]["tasks"]["pending"], 0);
    assert_eq!(report["after"]["tasks"]["pending"], 60);
    assert_eq!(report["after"]["leader"], 1);
}

#[tokio::test]
async fn batch_counts_its_tasks() {
    let small = Small::new();
    let scenario = Scenario::Batch(BatchArgs { batch: 25 });
    let report = report_of(load(small.serve(1).await, 4), scenario).await;
    assert_eq!(small.count("pending"), 100);
    assert_eq!(report["ok"], 4);
    let ratio = report["items_per_sec"].as_f64().unwrap() / report["per_sec"].as_f64().unwrap();
    assert!((ratio - 25.0).abs() < 0.1, "{report}");
}

#[tokio::test]
async fn read_writes_its_keys_and_finds_all_of_them() {
    let small = Small::new();
    let args = ReadArgs { consistency: Consistency::Local, keys: 30 };
    let report = report_of(load(small.serve(2).await, 90), Scenario::Read(args)).await;
    assert_eq!(small.count("pending"), 30);
    assert_eq!((&report["ok"], &report["errors"]), (&json!(90), &json!(0)));
    assert_eq!(small.inner.lock().reads["consistency=local"], 90);
}

#[tokio::test]
async fn heartbeat_registers_its_nodes_and_removes_them() {
    let small = Small::new();
    let scenario = Scenario::Heartbeat(HeartbeatArgs { nodes: 7 });
    let report = report_of(load(small.serve(1).await, 70), scenario).await;
    assert_eq!((&report["ok"], &report["errors"]), (&json!(70), &json!(0)));
    let inner = small.inner.lock();
    assert_eq!((inner.heartbeats, inner.nodes_ever, inner.nodes.len()), (70, 7, 0));
}

fn no_kill() -> KillArgs {
    KillArgs { kill_leader: false, kill_after: None, members: no_processes() }
}

#[tokio::test]
async fn agents_submits_and_reads_and_sees_every_task_end() {
    let small = Small::new();
    let mut load = load(small.serve(2).await, 60);
    load.rate = Some(1.0);
    let args = AgentsArgs {
        users: 5,
        pause_ms: 1,
        reads: 2,
        task_type: "report_generation".to_owned(),
        mode: Mode::Sequential,
        repeats: 0,
        kill: no_kill(),
    };
    let report = report_of(load, Scenario::Agents(args)).await;
    let tasks = small.count("completed");
    assert_eq!((&report["ok"], &report["errors"]), (&json!(60), &json!(0)), "{report}");
    assert_eq!((&report["mode"], &report["clients"]), (&json!("closed"), &json!(5)));
    let details = &report["details"];
    // A user reads twice behind each submission, but for the tasks at the end.
    assert!((20..=24).contains(&tasks), "{tasks}");
    assert_eq!(details["submit"]["count"], tasks);
    assert_eq!(details["read"]["count"], 60 - tasks);
    assert_eq!(details["submit_to_end"]["count"], tasks);
    assert_eq!((&details["ended"], &details["no_end_seen"]), (&json!(tasks), &json!(0)));
    assert_eq!(details["kill"], Value::Null);
}

/// Says of nodes that were silent for so long that they are offline.
fn watch_over(small: &Small, timeout: Duration) {
    let small = small.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let mut inner = small.inner.lock();
            let gone = inner.beats.extract_if(.., |_, at| at.elapsed() > timeout);
            for (node, _) in gone.collect::<Vec<_>>() {
                let fact = json!({"type": "node_status_changed", "node_id": node, "old": "active",
                    "new": "offline"});
                small.events.send(format!("id: 1-0\ndata: {fact}\n\n")).ok();
            }
        }
    });
}

#[tokio::test]
async fn heartbeats_sees_the_dead_and_no_other() {
    let small = Small::new();
    watch_over(&small, Duration::from_millis(1000));
    let mut load = load(small.serve(2).await, u64::MAX / 4);
    load.secs = Duration::from_millis(2500);
    let args = HeartbeatsArgs {
        nodes: 40,
        period: Duration::from_millis(100),
        dying: 4,
        die_after: Some(Duration::from_millis(200)),
        moving: true,
        repeats: 0,
        kill: no_kill(),
    };
    let report = report_of(load, Scenario::Heartbeats(args)).await;
    assert_eq!(report["errors"], 0, "{report}");
    let details = &report["details"];
    assert_eq!((&details["noticed"], &details["falsely_dead"]), (&json!(4), &json!(0)));
    assert_eq!(details["detection"]["count"], 4);
    assert!(details["detection"]["max_ms"].as_f64().unwrap() > 800.0, "{details}");
    assert_eq!(small.inner.lock().nodes.len(), 0, "all are removed");
}

async fn end_to_end(rate: Option<f64>, batch: u32, observe: Observe, doubled: bool) -> Value {
    let small = Small::new();
    small.inner.lock().doubled = doubled;
    let mut load = load(small.serve(2).await, 20);
    load.rate = rate;
    let args = EndToEndArgs { fleet: fleet(), batch, observe };
    let report = report_of(load, Scenario::EndToEnd(args)).await;
    assert_eq!(small.count("completed"), 20 * batch as usize);
    assert_eq!((&report["ok"], &report["errors"]), (&json!(20), &json!(0)), "{report}");
    assert_eq!(report["details"]["ended"], 20 * batch);
    assert_eq!(report["details"]["submit_to_node"]["count"], 20 * batch);
    assert_eq!(report["details"]["no_end_seen"], 0);
    assert_eq!(small.inner.lock().nodes.len(), 0, "the nodes signed off");
    report
}

#[tokio::test]
async fn end_to_end_in_a_closed_loop_follows_every_task() {
    let report = end_to_end(None, 1, Observe::Events, false).await;
    assert_eq!(report["details"]["submit_to_end"]["count"], 20);
    assert_eq!(report["details"]["doubled_attempts"], 0);
    assert!(report["details"]["tasks_per_sec"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn end_to_end_in_an_open_loop_waits_for_the_last_task() {
    let report = end_to_end(Some(5_000.0), 5, Observe::Events, false).await;
    assert_eq!(report["details"]["submit_to_end"]["count"], 100);
}

#[tokio::test]
async fn end_to_end_can_count_instead_of_follow() {
    let report = end_to_end(None, 2, Observe::Status, false).await;
    assert_eq!(report["details"]["submit_to_end"], Value::Null);
}

#[tokio::test]
async fn work_done_twice_is_seen() {
    let report = end_to_end(None, 1, Observe::Events, true).await;
    assert_eq!(report["details"]["doubled_attempts"], 20);
}

#[tokio::test]
async fn transfers_are_measured_round_by_round() {
    let small = Small::new();
    let mut load = load(small.serve(3).await, u64::MAX);
    load.rate = Some(2_000.0);
    let args = failover(2, Action::Transfer);
    let report = report_of(load, Scenario::Failover(args)).await;
    assert_eq!(small.inner.lock().transfers, 2);
    let rounds = report["details"]["rounds"].as_array().unwrap();
    let members: Vec<_> = rounds.iter().map(|round| round["member"].as_u64().unwrap()).collect();
    assert_eq!(members, [1, 2]);
    assert_eq!(report["details"]["next_ack"]["count"], 2);
    assert!(rounds.iter().all(|round| round["next_ack_ms"].as_f64().unwrap() > 0.0));
    let read = &report["details"]["read_back"];
    assert_eq!((&read["lost"], &read["unread"]), (&json!(0), &json!(0)));
    assert_eq!(read["found"], small.count("pending"), "every acknowledged write, and no other");
}

#[tokio::test]
async fn kills_need_processes() {
    let small = Small::new();
    let load = load(small.serve(3).await, 10);
    let args = failover(1, Action::Kill);
    let error = measure(BenchArgs { load, scenario: Scenario::Failover(args) }).await.unwrap_err();
    assert!(error.to_string().contains("--pid-file"), "{error}");
}

#[tokio::test]
async fn retained_tasks_are_left_in_the_state_asked_for() {
    for (state, name) in [
        (Retain::Pending, "pending"),
        (Retain::Cancelled, "cancelled"),
        (Retain::Completed, "completed"),
    ] {
        let small = Small::new();
        let load = load(small.serve(2).await, 1);
        let args = RetainedArgs {
            tasks: 55,
            batch: 10,
            state,
            fleet: fleet(),
            restart_member: None,
            members: no_processes(),
        };
        let report = report_of(load, Scenario::Retained(args)).await;
        assert_eq!(small.count(name), 60, "whole batches");
        assert_eq!(report["details"]["retained"], 60);
        assert_eq!(report["scenario"], format!("retained {name}"));
    }
}

#[tokio::test]
async fn a_cluster_that_refuses_everything_is_a_run_with_errors_only() {
    let no = || async { (StatusCode::TOO_MANY_REQUESTS, r#"{"code":"rate_limited"}"#) };
    let mut load = load(vec![serve(Router::new().fallback(no)).await], 5);
    load.warmup = Duration::ZERO;
    let report = report_of(load, Scenario::Submit).await;
    assert_eq!(report["ok"], 0);
    assert_eq!(report["errors_by_code"]["429 rate_limited"], 5);
}
