//! Tasks that nobody can do, cancelled by their clients, with somebody to be told of their ends: what was
//! cancelled stays so on every member, and whoever asked is told at least once, of each end under one number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use futures::future::{BoxFuture, FutureExt, join_all};
use parking_lot::Mutex;
use rand::RngExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::actor::{Actor, highest_index, insist, insist_write, serve};
use super::{HarnessError, Stage, Workload};
use crate::checker::coverage::Floor;
use crate::checker::{Findings, Verdict};
use crate::client::{Client, Request};
use crate::history::{History, Kind, Note};

const NAME: &str = "callbacks";
/// How long it may take after healing until everybody was told.
const TOLD_WITHIN: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_secs(8);
/// One post in so many is refused.
const TROUBLE: u64 = 6;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Callbacks {
    last: AtomicU64,
    url: Mutex<String>,
}

/// Whoever is told.
struct Sink {
    stage: Stage,
    posts: AtomicU64,
}

async fn told(State(sink): State<Arc<Sink>>, body: Bytes) -> StatusCode {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let ended = if body["task"].is_object() { &body["task"] } else { &body };
    let (task, status) = (ended["task_id"].as_str().unwrap_or_default(), &ended["status"]);
    let value = json!({"delivery": body["delivery_id"], "status": status});
    sink.stage.recorder.observe("sink", Note::new(NAME, "told").key(task).value(value));
    // It was told, and says that it was not.
    let refuses = sink.posts.fetch_add(1, Ordering::Relaxed) % TROUBLE == 1;
    if refuses { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT }
}

impl Callbacks {
    async fn client(&self, mut actor: Actor<'_>) {
        let url = self.url.lock().clone();
        while actor.turn().await {
            let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
            let id = format!("told-{number}");
            let body = json!({"task_id": id, "task_type": "jepsen_told", "callback_url": url,
                "requirements": {"capabilities": ["jepsen-nobody-has-this"]}});
            let request = Request::post("/api/v1/tasks", body).key(id.clone());
            let (seat, note) = (actor.seat(), actor.note("submit").key(id.clone()));
            let submitted = actor.act(&seat, note, &request, |_| Value::Null).await;
            let wait = Duration::from_millis(actor.rng.random_range(0..100));
            if submitted.kind != Kind::Ok || !actor.sleep(wait).await {
                continue;
            }
            let request = Request::delete(format!("/api/v1/tasks/{id}"));
            let (seat, note) = (actor.seat(), actor.note("cancel").key(id));
            actor.act(&seat, note, &request, |_| Value::Null).await;
        }
    }
}

/// Tasks whose cancellation was acknowledged.
fn cancelled(stage: &Stage) -> BTreeSet<String> {
    stage.recorder.with_ops(|ops| {
        let ours = ops.iter().filter(|op| op.workload == NAME && op.f == "cancel");
        ours.filter(|op| op.kind == Kind::Ok).filter_map(|op| op.key.clone()).collect()
    })
}

/// Those among them that the sink was told of.
fn told_of(stage: &Stage) -> BTreeSet<String> {
    stage.recorder.with_ops(|ops| {
        let told = ops.iter().filter(|op| op.workload == NAME && op.f == "told");
        told.filter_map(|op| op.key.clone()).collect()
    })
}

/// The statuses of our tasks, as one member has them.
async fn statuses(client: &Client, url: &str, mode: &str) -> Result<Value, String> {
    let (mut cursor, mut all) = (String::new(), serde_json::Map::new());
    loop {
        let path = format!("/api/v1/tasks?limit=1000&cursor={cursor}{mode}");
        let reply = insist(client, url, &path, PATIENCE).await?;
        for item in reply.body["items"].as_array().map(Vec::as_slice).unwrap_or_default() {
            if let Some(id) = item["task_id"].as_str().filter(|id| id.starts_with("told-")) {
                all.insert(id.to_owned(), item["status"].clone());
            }
        }
        match &reply.body["next_cursor"] {
            Value::Null => return Ok(Value::Object(all)),
            next => cursor = next.as_str().map_or_else(|| next.to_string(), str::to_owned),
        }
    }
}

impl Workload for Callbacks {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let sink = Arc::new(Sink { stage: stage.clone(), posts: AtomicU64::new(0) });
            let router = Router::new().route("/told", post(told)).with_state(sink);
            let address = serve(stage, NAME, router).await?;
            *self.url.lock() = format!("http://{address}/told");
            // Links of the sink are cut for a while: no end may be given up before.
            let patch = json!({"callbacks": {"max_tries": 100},
                "tasks": {"retry_delay_ms": 100, "max_retry_delay_ms": 1000}});
            let request = Request::put("/api/v1/config", patch);
            let set = insist_write(stage, &Client::new(), &request).await;
            set.map_err(|what| HarnessError { workload: NAME, what })
        }
        .boxed()
    }

    fn run<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            let slow = stage.slowed(20.0);
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
            let cancelled = cancelled(stage);
            while began.elapsed() < TOLD_WITHIN && !cancelled.is_subset(&told_of(stage)) {
                sleep(Duration::from_millis(100)).await;
            }
            let mode = format!("&consistency=local&min_index={}", highest_index(stage));
            for (number, url) in stage.members.all() {
                if let Ok(tasks) = statuses(&client, &url, &mode).await {
                    let note = Note { node: Some(number), ..Note::new(NAME, "final").value(tasks) };
                    stage.recorder.observe("told-reader", note);
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn floors(&self) -> Vec<Floor> {
        [("submit", 1.0), ("cancel", 0.5)].map(|(f, per_second)| Floor { f, per_second }).into()
    }

    fn check(&self, history: &History) -> Vec<Verdict> {
        vec![ends(history), posts(history)]
    }
}

/// Tasks by what became of the calls that cancel them.
fn cancels(history: &History) -> BTreeMap<&str, Kind> {
    let mut cancels = BTreeMap::new();
    for call in history.calls(NAME).iter().filter(|call| call.invoke.f == "cancel") {
        if let Some(id) = call.invoke.key.as_deref() {
            cancels.insert(id, call.kind());
        }
    }
    cancels
}

/// Acknowledged: cancelled on every member. Failed: on none. Unknown: alike on all.
fn ends(history: &History) -> Verdict {
    let (mut findings, cancels) = (Findings::default(), cancels(history));
    let finals: Vec<_> = history.observed(NAME, "final").collect();
    let count = |wanted| cancels.values().filter(|kind| **kind == wanted).count();
    for (id, kind) in &cancels {
        for op in &finals {
            let (status, member) = (op.value[*id].as_str().unwrap_or("gone"), op.node.unwrap_or(0));
            let right = match kind {
                Kind::Ok => status == "cancelled",
                Kind::Fail => status == "pending",
                Kind::Info | Kind::Invoke => {
                    matches!(status, "cancelled" | "pending")
                        && op.value[*id] == finals[0].value[*id]
                }
            };
            if !right {
                let text = format!("{id}: the cancel ended {kind:?}; member {member}: {status}");
                findings.add(text, &[op.index]);
            }
        }
    }
    let looked_at = format!(
        "{} cancelled, {} refused, {} unknown, on {} members",
        count(Kind::Ok),
        count(Kind::Fail),
        count(Kind::Info),
        finals.len()
    );
    Verdict::of(NAME, "what was cancelled stays cancelled", looked_at, findings).unless_too_little(
        count(Kind::Ok) > 0 && !finals.is_empty(),
        "nothing was cancelled or read",
    )
}

/// Each end was told at least once, under one number, and as what it was.
fn posts(history: &History) -> Verdict {
    let (mut findings, cancels) = (Findings::default(), cancels(history));
    let mut told: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    let mut posts = 0;
    for op in history.observed(NAME, "told") {
        posts += 1;
        let id = op.key.as_deref().unwrap_or_default();
        let (Some(delivery), status) = (op.value["delivery"].as_u64(), &op.value["status"]) else {
            findings.add(format!("a post about {id} has no number"), &[op.index]);
            continue;
        };
        if status != "cancelled" || !cancels.contains_key(id) {
            findings.add(format!("{id} was told to be {status}"), &[op.index]);
        }
        if matches!(cancels.get(id), Some(Kind::Fail)) {
            findings.add(format!("{id} was told of, and its cancel certainly failed"), &[op.index]);
        }
        let numbers = told.entry(id).or_default();
        if numbers.insert(delivery) && numbers.len() > 1 {
            findings.add(format!("the end of {id} was told as {numbers:?}"), &[op.index]);
        }
    }
    let asked = cancels.iter().filter(|(_, kind)| **kind == Kind::Ok);
    for (id, _) in asked.filter(|(id, _)| !told.contains_key(*id)) {
        findings.add(format!("nobody was told of the end of {id}"), &[]);
    }
    let looked_at = format!("{posts} posts about {} tasks", told.len());
    Verdict::of(NAME, "every end is told, under one number", looked_at, findings)
        .unless_too_little(posts > told.len(), "no post was ever repeated")
        .figures(json!({"posts": posts, "told": told.len()}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Validity;
    use crate::history::Recorder;

    /// One task, how its cancel ended, what two members say, and what the sink was told.
    fn verdicts(kind: Kind, finals: [&str; 2], numbers: &[u64]) -> [Validity; 2] {
        let recorder = Recorder::in_memory();
        recorder.invoke(1, Note::new(NAME, "cancel").key("told-1"));
        recorder.end(1, kind, Note::new(NAME, "cancel").key("told-1"));
        for delivery in numbers {
            let value = json!({"delivery": delivery, "status": "cancelled"});
            recorder.observe("sink", Note::new(NAME, "told").key("told-1").value(value));
        }
        for status in finals {
            recorder.observe("r", Note::new(NAME, "final").value(json!({"told-1": status})));
        }
        let history = recorder.finish().unwrap();
        [ends(&history), posts(&history)].map(|verdict| verdict.validity)
    }

    #[test]
    fn a_cancel_that_was_acknowledged_is_kept_and_told() {
        use Validity::{Invalid, Unknown, Valid};
        let both = ["cancelled", "cancelled"];
        assert_eq!(verdicts(Kind::Ok, both, &[7, 7]), [Valid, Valid]);
        assert_eq!(verdicts(Kind::Ok, both, &[7, 8]), [Valid, Invalid]);
        assert_eq!(verdicts(Kind::Ok, both, &[]), [Valid, Invalid]);
        assert_eq!(verdicts(Kind::Ok, ["cancelled", "pending"], &[7, 7]), [Invalid, Valid]);
        assert_eq!(verdicts(Kind::Fail, both, &[7, 7]), [Invalid, Invalid]);
        assert_eq!(verdicts(Kind::Info, ["pending", "cancelled"], &[]), [Invalid, Unknown]);
    }
}
