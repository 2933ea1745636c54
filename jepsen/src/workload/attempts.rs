//! Jobs carried out by fake workers: attempts follow each other, stale reports are refused, no
//! node holds more than its capacity, and everything drains in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join, join_all};
use parking_lot::Mutex;
use rand::RngExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::actor::{Actor, highest_index, insist, insist_write};
use super::worker::{NAME, Newest, PLANS, Worker};
use super::{HarnessError, Stage, Workload};
use crate::checker::coverage::Floor;
use crate::checker::{Verdict, attempts};
use crate::client::{Client, Request};
use crate::history::{History, Kind, Note};

/// Capacities of the workers.
const CAPACITIES: [usize; 3] = [1, 2, 4];
/// Jobs per second, whatever is asked for: what the workers can carry with room to spare.
const RATE_MAX: f64 = 15.0;
/// Seconds for one attempt.
const TIMEOUT_S: f64 = 2.0;
/// How long the queue may take to drain after healing.
const DRAIN: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_secs(8);
/// Finished jobs whose results are read one by one at the end.
const RESULTS_MAX: usize = 400;

/// See the module's description.
#[derive(Default)]
pub(super) struct Attempts {
    last: AtomicU64,
    newest: Newest,
    workers: Mutex<Vec<Arc<Worker>>>,
}

impl std::fmt::Debug for Attempts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempts").finish_non_exhaustive()
    }
}

impl Attempts {
    async fn client(&self, mut actor: Actor<'_>) {
        while actor.turn().await {
            let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
            let plan = PLANS[actor.rng.random_range(0..PLANS.len())];
            let ms = actor.rng.random_range(5..150);
            let id = format!("job-{number}");
            let body = json!({"task_id": id, "task_type": "jepsen_job", "timeout": TIMEOUT_S,
                "max_retries": 1000, "requirements": {"capabilities": ["jepsen-job"]},
                "input_data": {"plan": plan, "ms": ms}});
            let request = Request::post("/api/v1/tasks", body).key(id.clone());
            let (seat, note) = (actor.seat(), actor.note("submit").key(id).value(plan));
            actor.act(&seat, note, &request, |_| json!(plan)).await;
        }
    }

    /// Looks at how full members say the nodes are.
    async fn watch(&self, stage: &Stage) {
        let client = Client::new();
        while !stage.stop.is_cancelled() {
            for (number, url) in stage.members.all() {
                let path = "/api/v1/nodes?consistency=local";
                let reply = client.send(&url, &Request::get(path)).await;
                if reply.kind == Kind::Ok
                    && let Some(nodes) = reply.body["nodes"].as_object()
                {
                    let figures = |node: &Value| json!([node["running"], node["capacity"]]);
                    let nodes: serde_json::Map<String, Value> =
                        nodes.iter().map(|(id, node)| (id.clone(), figures(node))).collect();
                    let note = Note::new(NAME, "nodes").value(Value::Object(nodes));
                    stage.recorder.observe("watcher", Note { node: Some(number), ..note });
                }
            }
            sleep(Duration::from_millis(300)).await;
        }
    }
}

/// The jobs of a member, as rows of `(id, status, attempt, node)`.
async fn jobs(client: &Client, url: &str, mode: &str) -> Result<Vec<[Value; 4]>, String> {
    let (mut cursor, mut rows) = (String::new(), Vec::new());
    loop {
        let path = format!("/api/v1/tasks?limit=1000&cursor={cursor}{mode}");
        let reply = insist(client, url, &path, PATIENCE).await?;
        for item in reply.body["items"].as_array().map(Vec::as_slice).unwrap_or_default() {
            if item["task_id"].as_str().is_some_and(|id| id.starts_with("job-")) {
                rows.push(["task_id", "status", "attempt", "node_id"].map(|key| item[key].clone()));
            }
        }
        match &reply.body["next_cursor"] {
            Value::Null => return Ok(rows),
            next => cursor = next.as_str().map_or_else(|| next.to_string(), str::to_owned),
        }
    }
}

fn is_open(row: &[Value; 4]) -> bool {
    !matches!(row[1].as_str(), Some("completed" | "failed" | "cancelled" | "timeout"))
}

/// Waits until no job is open, and says how long that took.
async fn drain(stage: &Stage, client: &Client) {
    let began = Instant::now();
    let mut left = Vec::new();
    while began.elapsed() < DRAIN {
        for (_, url) in stage.members.all() {
            let Ok(rows) = jobs(client, &url, "").await else { continue };
            left = rows.iter().filter(|row| is_open(row)).map(|row| row[0].clone()).collect();
            if left.is_empty() {
                let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                stage.recorder.observe("drain", Note::new(NAME, "drained").value(took));
                return;
            }
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    stage.recorder.observe("drain", Note::new(NAME, "undrained").value(json!(left)));
}

/// Reads every member's rows, and the results of some jobs.
async fn read_all(stage: &Stage, client: &Client) {
    let local = format!("&consistency=local&min_index={}", highest_index(stage));
    let mut done = Vec::new();
    for (number, url) in stage.members.all() {
        let (f, value) = match jobs(client, &url, &local).await {
            Ok(rows) => {
                done = rows.iter().filter(|row| !is_open(row)).map(|row| row[0].clone()).collect();
                ("final", json!(rows))
            }
            Err(why) => ("final-failed", json!(why)),
        };
        let note = Note { node: Some(number), ..Note::new(NAME, f).value(value) };
        stage.recorder.observe("job-reader", note);
    }
    let mut members = stage.members.all();
    for (place, id) in done.iter().rev().take(RESULTS_MAX).enumerate() {
        let (Some(id), false) = (id.as_str(), members.is_empty()) else { continue };
        let place = place % members.len();
        let (number, url) = members[place].clone();
        let path = format!("/api/v1/tasks/{id}");
        if let Ok(reply) = insist(client, &url, &path, PATIENCE).await {
            let value = json!({"status": reply.body["task"]["status"],
                "attempt": reply.body["task"]["attempt"], "token": reply.body["result"]["token"]});
            let note = Note::new(NAME, "result").key(id).value(value);
            stage.recorder.observe("job-reader", Note { node: Some(number), ..note });
        } else {
            // One that does not answer now is not asked hundreds of times.
            members.remove(place);
        }
    }
}

impl Workload for Attempts {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let failed = |what: String| HarnessError { workload: NAME, what };
            let client = Client::new();
            // Short back-offs, so that many attempts fit into a short run.
            let patch = json!({"tasks": {"retry_delay_ms": 100, "max_retry_delay_ms": 1000}});
            let request = Request::put("/api/v1/config", patch);
            insist_write(stage, &client, &request).await.map_err(failed)?;
            for (number, capacity) in CAPACITIES.into_iter().enumerate() {
                let hosts = &stage.worker_hosts;
                let Some(host) = hosts.get(number % hosts.len().max(1)) else {
                    return Err(failed("no address for workers is given".to_owned()));
                };
                let worker = Worker::start(stage, number, capacity, *host, &self.newest).await?;
                let path = format!("/api/v1/nodes/{}/register", worker.node);
                let request = Request::post(path, worker.registration());
                insist_write(stage, &client, &request).await.map_err(failed)?;
                let value = json!({"node": worker.node, "capacity": worker.capacity});
                stage.recorder.observe(worker.node.clone(), Note::new(NAME, "node").value(value));
                tokio::spawn(Arc::clone(&worker).beat());
                self.workers.lock().push(worker);
            }
            Ok(())
        }
        .boxed()
    }

    fn run<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            let slow = stage.slowed(RATE_MAX);
            let count = stage.load.clients.clamp(1, 5);
            let clients =
                (0..count).map(|n| self.client(Actor::new(&slow, &client, NAME, n, count)));
            join(join_all(clients), self.watch(stage)).await;
            Ok(())
        }
        .boxed()
    }

    fn finish<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            drain(stage, &client).await;
            read_all(stage, &client).await;
            Ok(())
        }
        .boxed()
    }

    fn floors(&self) -> Vec<Floor> {
        [("submit", 1.0), ("report", 0.5)].map(|(f, per_second)| Floor { f, per_second }).into()
    }

    fn check(&self, history: &History) -> Vec<Verdict> {
        attempts::check(history)
    }
}
