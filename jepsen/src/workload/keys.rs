//! Tasks that share concurrency keys: whoever executes them counts how many of a key are at work, and
//! that is never more than the key allows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::future::{BoxFuture, FutureExt, join_all};
use parking_lot::Mutex;
use rand::RngExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::actor::{Actor, insist};
use super::hand::Hand;
use super::{HarnessError, Stage, Workload};
use crate::checker::coverage::Floor;
use crate::checker::{Findings, Verdict};
use crate::client::{Client, Request};
use crate::history::{Call, History, Kind, Note};

const NAME: &str = "keys";
/// The node that executes them, with room for all.
const NODE: &str = "jepsen-keys";
/// Key number n allows n at once.
const KEYS: u64 = 3;
/// Tasks per second: about two thirds of what the keys let through.
const RATE_MAX: f64 = 20.0;
/// How long everything may take to end after healing.
const DRAIN: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(8);
/// Seconds for one attempt: so long that none is given up while it is at work.
const TIMEOUT_S: u64 = 60;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Keys {
    last: AtomicU64,
}

/// The node, and what it is at.
struct Work {
    hand: Hand,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// Attempts that were begun here.
    known: BTreeSet<(String, u64)>,
    /// Who is at work, by key.
    at_work: BTreeMap<String, BTreeSet<(String, u64)>>,
}

impl Work {
    /// Begins an attempt, unless it was begun before, and logs how many are at work with it.
    fn begin(&self, key: &str, attempt: &(String, u64)) -> bool {
        let mut held = self.held.lock();
        if !held.known.insert(attempt.clone()) {
            return false;
        }
        let at_work = held.at_work.entry(key.to_owned()).or_default();
        at_work.insert(attempt.clone());
        let value = json!({"attempt": attempt, "at_work": at_work});
        // Logged under the lock: the log is in the order in which things happened.
        self.hand.stage.recorder.observe(NODE, Note::new(NAME, "begin").key(key).value(value));
        true
    }

    /// Ends it before anybody is told of the end.
    fn end(&self, key: &str, attempt: &(String, u64)) {
        if let Some(at_work) = self.held.lock().at_work.get_mut(key) {
            at_work.remove(attempt);
        }
    }
}

async fn execute(State(node): State<Arc<Work>>, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (Some(task), Some(number)) = (body["task_id"].as_str(), body["attempt"].as_u64()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let input = &body["input_data"];
    let (task, key) = (task.to_owned(), input["key"].as_str().unwrap_or_default().to_owned());
    let work = Duration::from_millis(input["ms"].as_u64().unwrap_or(20));
    let attempt = (task.clone(), number);
    if node.begin(&key, &attempt) {
        let report = json!({"status": "completed", "attempt": number, "epoch": body["epoch"],
            "node_id": NODE, "result": {"done": number}});
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            sleep(work).await;
            node.end(&key, &attempt);
            node.hand.report(&task, report).await;
        });
    }
    axum::Json(json!({"success": true, "status": "accepted"})).into_response()
}

impl Keys {
    async fn client(&self, mut actor: Actor<'_>) {
        while actor.turn().await {
            let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
            let (id, max) = (format!("key-{number}"), actor.rng.random_range(1..=KEYS));
            let key = format!("jepsen-key-{max}");
            let ms = actor.rng.random_range(20..300);
            let body = json!({"task_id": id, "task_type": "jepsen_key", "timeout": TIMEOUT_S,
                "max_retries": 1000, "requirements": {"capabilities": [NODE]},
                "concurrency": {"key": key, "max": max}, "input_data": {"key": key, "ms": ms}});
            let request = Request::post("/api/v1/tasks", body).key(id.clone());
            let (seat, note) = (actor.seat(), actor.note("submit").key(id).value(max));
            actor.act(&seat, note, &request, |_| json!(max)).await;
        }
    }
}

/// Ids of those that were acknowledged and have not ended.
async fn open(stage: &Stage, client: &Client) -> Result<Vec<String>, String> {
    let acked: Vec<String> = stage.recorder.with_ops(|ops| {
        let ours = ops.iter().filter(|op| op.workload == NAME && op.f == "submit");
        ours.filter(|op| op.kind == Kind::Ok).filter_map(|op| op.key.clone()).collect()
    });
    let (_, url) = stage.members.all().into_iter().next().ok_or("there is no member")?;
    let mut left = Vec::new();
    for id in acked {
        let reply = insist(client, &url, &format!("/api/v1/tasks/{id}"), PATIENCE).await?;
        if reply.body["task"]["status"] != "completed" {
            left.push(id);
        }
    }
    Ok(left)
}

impl Workload for Keys {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let hand = Hand::new(stage, NODE);
            let work = Arc::new(Work { hand: hand.clone(), held: Mutex::default() });
            let router = Router::new().route("/api/v4/tasks/execute", post(execute));
            hand.begin(NAME, router.with_state(work)).await
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
            join_all(clients).await;
            Ok(())
        }
        .boxed()
    }

    fn finish<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let (client, began) = (Client::new(), Instant::now());
            let mut left: Result<Vec<String>, String> = Err("nothing was read".to_owned());
            while began.elapsed() < DRAIN && !left.as_ref().is_ok_and(Vec::is_empty) {
                left = open(stage, &client).await;
                sleep(Duration::from_millis(200)).await;
            }
            let value = match left {
                Ok(left) => json!({ "left": left }),
                Err(why) => json!({ "unread": why }),
            };
            stage.recorder.observe("key-reader", Note::new(NAME, "drained").value(value));
            Ok(())
        }
        .boxed()
    }

    fn floors(&self) -> Vec<Floor> {
        vec![Floor { f: "submit", per_second: 1.0 }]
    }

    fn check(&self, history: &History) -> Vec<Verdict> {
        vec![check(history)]
    }
}

/// Never more at work than the key allows, and everything acknowledged was done in the end.
fn check(history: &History) -> Verdict {
    let mut findings = Findings::default();
    let (mut begun, mut full) = (0, 0);
    for op in history.observed(NAME, "begin") {
        begun += 1;
        let key = op.key.as_deref().unwrap_or_default();
        let max: usize = key.rsplit('-').next().and_then(|max| max.parse().ok()).unwrap_or(0);
        let at_work = op.value["at_work"].as_array().map_or(0, Vec::len);
        full += usize::from(at_work == max);
        if at_work > max {
            let text = format!("{at_work} of {key} at work: {}", op.value["at_work"]);
            findings.add(text, &[op.index]);
        }
    }
    let mut drained = false;
    for op in history.observed(NAME, "drained") {
        let left = op.value["left"].as_array();
        drained = left.is_some();
        for id in left.into_iter().flatten() {
            findings.add(format!("{id} was acknowledged and not done"), &[op.index]);
        }
    }
    let calls = history.calls(NAME);
    let acked = calls.iter().filter(|call: &&Call<'_>| call.is_ok()).count();
    let looked_at =
        format!("{acked} tasks acknowledged, {begun} attempts, {full} of which filled their key");
    Verdict::of(NAME, "no key holds more than it allows", looked_at, findings)
        .unless_too_little(full > 0 && drained, "no key was ever full, or nobody said what is left")
        .figures(json!({"acknowledged": acked, "attempts": begun, "full": full}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Validity;
    use crate::history::Recorder;

    fn verdict(at_work: &[&str], left: Value) -> Validity {
        let recorder = Recorder::in_memory();
        let value = json!({"attempt": ["key-1", 1], "at_work": at_work});
        recorder.observe(NODE, Note::new(NAME, "begin").key("jepsen-key-2").value(value));
        recorder.observe("r", Note::new(NAME, "drained").value(left));
        check(&recorder.finish().unwrap()).validity
    }

    #[test]
    fn too_many_at_work_and_tasks_left_behind_are_found() {
        let none = json!({"left": []});
        assert_eq!(verdict(&["a", "b"], none.clone()), Validity::Valid);
        assert_eq!(verdict(&["a", "b", "c"], none.clone()), Validity::Invalid);
        assert_eq!(verdict(&["a", "b"], json!({"left": ["key-1"]})), Validity::Invalid);
        assert_eq!(verdict(&["a"], none), Validity::Unknown);
        assert_eq!(verdict(&["a", "b"], json!({"unread": "down"})), Validity::Unknown);
    }
}
