//! Tasks in steps, done by agents that this workload plays. A step that has ended is never run again,
//! steps begin when those they wait for have ended, and every task comes to the end it must have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, join_all};
use rand::RngExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::actor::{Actor, highest_index, insist_write};
use super::agent::Agent;
use super::plan::{AGENT_TYPES, draw, steps, task, tokens};
use super::{HarnessError, Stage, Workload};
use crate::checker::coverage::Floor;
use crate::checker::{Verdict, pipelines};
use crate::client::{Client, Reply, Request};
use crate::history::{History, Kind, Note};

pub(super) const NAME: &str = "pipelines";
/// Agents of each kind.
const EACH: usize = 2;
/// Tasks per second: some thirty steps.
const RATE_MAX: f64 = 9.0;
/// One task in so many is done by a pipeline that is defined for it first.
const DEFINED: f64 = 0.25;
/// How long everything may take to end after healing.
const DRAIN: Duration = Duration::from_secs(40);
/// How long a member is asked for one task at the end.
const PATIENCE: Duration = Duration::from_secs(8);
/// Tasks asked for at once at the end.
const ASKED_AT_ONCE: usize = 8;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Pipelines {
    last: AtomicU64,
}

/// A task as it is shown: its status, and the tokens of its output.
fn shown(reply: &Reply) -> Value {
    json!({"status": reply.body["status"], "tokens": tokens(&reply.body["output"])})
}

impl Pipelines {
    async fn client(&self, mut actor: Actor<'_>) {
        while actor.turn().await {
            let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
            let id = format!("pipe-{number}");
            let plan = draw(&mut actor.rng);
            let mut written = Some(steps(&plan, &mut actor.rng));
            if actor.rng.random_bool(DEFINED) {
                let body = json!({"mode": plan.mode, "steps": written.take()});
                let request = Request::put(format!("/api/v1/pipelines/{id}"), body);
                let (seat, note) = (actor.seat(), actor.note("define").key(id.clone()));
                let defined = actor.act(&seat, note, &request, |_| Value::Null).await;
                if defined.kind != Kind::Ok {
                    continue;
                }
            }
            let request = Request::post("/api/v1/tasks", task(&id, &plan, written)).key(id.clone());
            let (seat, note) = (actor.seat(), actor.note("submit").key(id.clone()));
            let value = json!(plan);
            actor.act(&seat, note.value(value.clone()), &request, |_| value).await;
            // One of the newest, which may be under way.
            let id = format!("pipe-{}", number.saturating_sub(actor.rng.random_range(0..6)).max(1));
            let request = Request::get(format!("/api/v1/tasks/{id}"));
            let (seat, note) = (actor.seat(), actor.note("read").key(id));
            actor.act(&seat, note, &request, shown).await;
        }
    }
}

/// Tasks that were sent, and whether it was acknowledged.
fn sent(stage: &Stage) -> BTreeMap<String, bool> {
    let mut sent: BTreeMap<String, bool> = BTreeMap::new();
    stage.recorder.with_ops(|ops| {
        for op in ops.iter().filter(|op| op.workload == NAME && op.f == "submit") {
            if let Some(id) = &op.key {
                *sent.entry(id.clone()).or_default() |= op.kind == Kind::Ok;
            }
        }
    });
    sent
}

/// What one member shows of a task; `gone` when it has none.
async fn look(client: &Client, url: &str, id: &str, mode: &str) -> Option<Value> {
    let request = Request::get(format!("/api/v1/tasks/{id}{mode}"));
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let reply = client.send(url, &request).await;
        match (reply.kind, reply.status) {
            (Kind::Ok, _) => return Some(shown(&reply)),
            (_, 404) => return Some(json!({"status": "gone"})),
            _ => sleep(Duration::from_millis(100)).await,
        }
    }
    None
}

/// What one member shows of all of `ids`; without those that it does not show in time.
async fn look_at_all(client: &Client, url: &str, ids: &[String], mode: &str) -> Value {
    let looks = ids.iter().cloned().map(|id| async move {
        let seen = look(client, url, &id, mode).await;
        (id, seen)
    });
    let seen: Vec<_> = futures::stream::iter(looks).buffered(ASKED_AT_ONCE).collect().await;
    seen.into_iter().filter_map(|(id, seen)| Some((id, seen?))).collect()
}

fn is_over(task: &Value) -> bool {
    matches!(task["status"].as_str(), Some("completed" | "failed" | "cancelled" | "gone"))
}

/// Waits until no task is open any more; gives those that are.
async fn drain(stage: &Stage, client: &Client) -> BTreeSet<String> {
    let began = Instant::now();
    let mut left: BTreeSet<String> = sent(stage).into_keys().collect();
    while let Some((_, url)) = stage.members.all().into_iter().next() {
        let ids: Vec<String> = left.iter().cloned().collect();
        let seen = look_at_all(client, &url, &ids, "").await;
        left.retain(|id| !is_over(&seen[id]));
        if left.is_empty() || began.elapsed() > DRAIN {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    left
}

impl Workload for Pipelines {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let failed = |what: String| HarnessError { workload: NAME, what };
            let client = Client::new();
            let patch = json!({"tasks": {"retry_delay_ms": 100, "max_retry_delay_ms": 1000}});
            let request = Request::put("/api/v1/config", patch);
            insist_write(stage, &client, &request).await.map_err(failed)?;
            let host =
                *stage.worker_hosts.first().ok_or_else(|| failed("no address".to_owned()))?;
            for kind in AGENT_TYPES {
                for number in 0..EACH {
                    let agent = Agent::start(stage, format!("{kind}-{number}"), kind, host).await?;
                    let registered = insist_write(stage, &client, &agent.registration()).await;
                    registered.map_err(failed)?;
                    tokio::spawn(Arc::clone(&agent).beat());
                }
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
            join_all(clients).await;
            Ok(())
        }
        .boxed()
    }

    fn finish<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            let left = drain(stage, &client).await;
            stage.recorder.observe("pipeline-reader", Note::new(NAME, "left").value(json!(left)));
            let ids: Vec<String> = sent(stage).into_keys().collect();
            let mode = format!("?consistency=local&min_index={}", highest_index(stage));
            for (number, url) in stage.members.all() {
                let seen = look_at_all(&client, &url, &ids, &mode).await;
                let note = Note { node: Some(number), ..Note::new(NAME, "final").value(seen) };
                stage.recorder.observe("pipeline-reader", note);
            }
            Ok(())
        }
        .boxed()
    }

    fn floors(&self) -> Vec<Floor> {
        [("submit", 0.5), ("define", 0.1), ("read", 0.3)]
            .map(|(f, per_second)| Floor { f, per_second })
            .into()
    }

    fn check(&self, history: &History) -> Vec<Verdict> {
        pipelines::check(history)
    }
}
