//! Campaigns with tight budgets, advanced by a schedule and by clients: a worker does their jobs and says
//! what they used, and some of them are stopped by their kill switch.

use std::collections::BTreeSet;
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
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::actor::{Actor, highest_index, insist, insist_write};
use super::hand::Hand;
use super::{HarnessError, Stage, Workload};
use crate::checker::budgets::PROMISED;
use crate::checker::coverage::Floor;
use crate::checker::{Verdict, budgets};
use crate::client::{Client, Reply, Request};
use crate::history::{History, Kind, Note};

const NAME: &str = "budgets";
/// The worker, and what its jobs need.
const NODE: &str = "jepsen-budgets";
/// The orchestrator that advances the campaigns.
const ORCHESTRATOR: &str = "jepsen-budgets";
/// Campaigns of a run.
const CAMPAIGNS: u64 = 12;
/// Things done per second.
const RATE_MAX: f64 = 12.0;
/// How long everything may take to end after healing.
const DRAIN: Duration = Duration::from_secs(40);
/// Nothing is promised for so long: nothing is launched any more.
const RESTS: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(8);

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    made: AtomicU64,
    /// Those that were acknowledged.
    campaigns: Mutex<Vec<String>>,
}

/// The worker, and what it has begun.
struct Work {
    hand: Hand,
    begun: Mutex<BTreeSet<(String, u64)>>,
}

async fn execute(State(node): State<Arc<Work>>, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (Some(job), Some(attempt)) = (body["task_id"].as_str(), body["attempt"].as_u64()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let (job, input) = (job.to_owned(), &body["input_data"]);
    let seed = input["seed"].as_u64().unwrap_or(0);
    // The same however often it is tried, so that it can be added up in the end.
    let used = seed % (PROMISED + 1);
    if node.begun.lock().insert((job.clone(), attempt)) {
        let campaign = input["campaign_id"].as_str().unwrap_or_default();
        let value = json!({"job": job, "attempt": attempt, "used": used});
        node.hand.stage.recorder.observe(NODE, Note::new(NAME, "begin").key(campaign).value(value));
        let result = json!({"score": (seed % 1000) as f64 / 1000.0, "usage": {"tokens": used}});
        let report = json!({"status": "completed", "attempt": attempt, "epoch": body["epoch"],
            "node_id": NODE, "result": result});
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            sleep(Duration::from_millis(20 + seed % 200)).await;
            node.hand.report(&job, report).await;
        });
    }
    axum::Json(json!({"success": true, "status": "accepted"})).into_response()
}

/// What is kept of a campaign.
fn shown(reply: &Reply) -> Value {
    let body = &reply.body;
    json!({"status": body["status"], "tripped": body["tripped"], "budgets": body["budgets"],
        "iteration": body["current_iteration"], "requested": body["requested_iterations"]})
}

impl Budgets {
    async fn client(&self, mut actor: Actor<'_>) {
        while actor.turn().await {
            let known = self.campaigns.lock().clone();
            let made = self.made.load(Ordering::Relaxed);
            let dice = actor.rng.random_range(0..20);
            if known.is_empty() || dice < 3 && made < CAMPAIGNS {
                self.make(&mut actor).await;
                continue;
            }
            let id = known[actor.rng.random_range(0..known.len())].clone();
            match dice {
                0..12 => read(&mut actor, &id).await,
                12..14 => read_all(&mut actor).await,
                // A campaign is stopped late, and one in so many is.
                14 if actor.rng.random_bool(0.3) => {
                    let request = Request::post(format!("/agent/campaigns/{id}/stop"), json!({}));
                    let (seat, note) = (actor.seat(), actor.note("stop").key(&id));
                    actor.act(&seat, note, &request, |_| Value::Null).await;
                    read(&mut actor, &id).await;
                }
                _ => {
                    let count = actor.rng.random_range(1..=2);
                    let body = json!({"num_iterations": count});
                    let request = Request::post(format!("/campaigns/{id}/step"), body);
                    let (seat, note) = (actor.seat(), actor.note("step").key(&id).value(count));
                    let queued = |reply: &Reply| reply.body["iterations_queued"].clone();
                    actor.act(&seat, note, &request, queued).await;
                }
            }
        }
    }

    /// Makes a campaign and starts it.
    async fn make(&self, actor: &mut Actor<'_>) {
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let task = json!({"task_type": "jepsen_budget", "capabilities": [NODE], "timeout": 60,
            "max_retries": 20});
        let config = json!({"max_iterations": 20, "task": task,
            "candidates_per_iteration": actor.rng.random_range(2..=4),
            "simulation_budget": actor.rng.random_range(6..=20),
            "budgets": {"tokens": actor.rng.random_range(12..=40)},
            "per_job": {"tokens": PROMISED}});
        let body = json!({"name": format!("jepsen {number}"), "kind": "generic",
            "orchestrator": ORCHESTRATOR, "config": config});
        let request = Request::post("/campaigns", body).key(format!("jepsen-campaign-{number}"));
        let (seat, note) = (actor.seat(), actor.note("make"));
        let made = actor.act(&seat, note, &request, |reply| reply.body["id"].clone()).await;
        let Some(id) = made.body["id"].as_str().filter(|_| made.kind == Kind::Ok) else { return };
        self.campaigns.lock().push(id.to_owned());
        let request = Request::post(format!("/campaigns/{id}/start"), json!({}));
        let (seat, note) = (actor.seat(), actor.note("start").key(id));
        actor.act(&seat, note, &request, |_| Value::Null).await;
    }

    /// Every campaign as a member has it, with its jobs and what came of them.
    async fn all(&self, client: &Client, url: &str, index: u64) -> Result<Value, String> {
        let local = format!("consistency=local&min_index={index}");
        let mut all = Map::new();
        let ids = self.campaigns.lock().clone();
        for id in ids {
            let reply = insist(client, url, &format!("/campaigns/{id}?{local}"), PATIENCE).await?;
            let path = format!("/campaigns/{id}/iterations?{local}");
            let iterations = insist(client, url, &path, PATIENCE).await?.body;
            let rows = iterations.as_array().into_iter().flatten();
            let results = rows.filter_map(|row| row["metadata"]["results"].as_array()).flatten();
            let jobs = results.map(|row| json!([row["job_id"], row["state"]]));
            let mut campaign = shown(&reply);
            campaign["jobs"] = jobs.collect();
            all.insert(id, campaign);
        }
        Ok(Value::Object(all))
    }
}

async fn read(actor: &mut Actor<'_>, id: &str) {
    let request = Request::get(format!("/campaigns/{id}"));
    let (seat, note) = (actor.seat(), actor.note("read").key(id));
    actor.act(&seat, note, &request, shown).await;
}

/// Reads the budget over all campaigns.
async fn read_all(actor: &mut Actor<'_>) {
    let request = Request::get(format!("/api/v1/orchestrator/state?name={ORCHESTRATOR}"));
    let (seat, note) = (actor.seat(), actor.note("read").key(ORCHESTRATOR));
    let budgets = |reply: &Reply| json!({"budgets": reply.body["budgets"]});
    actor.act(&seat, note, &request, budgets).await;
}

/// Whether something is promised to any job.
fn is_busy(all: &Value) -> bool {
    let campaigns = all.as_object().into_iter().flat_map(Map::values);
    let mut budgets = campaigns.filter_map(|one| one["budgets"].as_object()).flat_map(Map::values);
    budgets.any(|budget| budget["reserved"].as_f64() != Some(0.0))
}

/// Founds the orchestrator, with a budget over all its campaigns.
async fn orchestrate(hand: &Hand) -> Result<(), String> {
    let state = Request::get(format!("/api/v1/orchestrator/state?name={ORCHESTRATOR}"));
    insist_write(&hand.stage, &hand.client, &state).await?;
    let body = json!({"mode": "SCHEDULED", "schedule": {"interval_seconds": 1},
        "max_simultaneous_simulations": 40, "max_iterations_per_run": 5,
        "budgets": {"tokens": 80}, "per_job": {"tokens": PROMISED}});
    let path = format!("/api/v1/orchestrator/config?name={ORCHESTRATOR}");
    insist_write(&hand.stage, &hand.client, &Request::post(path, body)).await
}

impl Workload for Budgets {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let hand = Hand::new(stage, NODE);
            let work = Arc::new(Work { hand: hand.clone(), begun: Mutex::default() });
            let router = Router::new().route("/api/v4/tasks/execute", post(execute));
            hand.begin(NAME, router.with_state(work)).await?;
            orchestrate(&hand).await.map_err(|what| HarnessError { workload: NAME, what })
        }
        .boxed()
    }

    fn run<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let shared = Client::new();
            let slow = stage.slowed(RATE_MAX);
            let count = stage.load.clients.clamp(1, 4);
            let clients =
                (0..count).map(|n| self.client(Actor::new(&slow, &shared, NAME, n, count)));
            join_all(clients).await;
            Ok(())
        }
        .boxed()
    }

    fn finish<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let (client, began) = (Client::new(), Instant::now());
            let failed = |what: String| HarnessError { workload: NAME, what };
            let path = format!("/api/v1/orchestrator/config?name={ORCHESTRATOR}");
            let request = Request::post(path, json!({"mode": "MANUAL"}));
            insist_write(stage, &client, &request).await.map_err(failed)?;
            let Some((_, url)) = stage.members.all().into_iter().next() else { return Ok(()) };
            let mut idle: Option<Instant> = None;
            while began.elapsed() < DRAIN && idle.is_none_or(|since| since.elapsed() < RESTS) {
                let busy = self.all(&client, &url, 0).await.map_or(true, |all| is_busy(&all));
                idle = if busy { None } else { idle.or_else(|| Some(Instant::now())) };
                sleep(Duration::from_millis(200)).await;
            }
            let read = insist(&client, &url, "/campaigns?limit=1", PATIENCE).await;
            let newest = read.ok().and_then(|reply| reply.index).unwrap_or(0);
            let newest = newest.max(highest_index(stage));
            for (number, url) in stage.members.all() {
                if let Ok(all) = self.all(&client, &url, newest).await {
                    let note = Note::new(NAME, "final").value(json!({"campaigns": all}));
                    stage.recorder.observe("budget-reader", Note { node: Some(number), ..note });
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn floors(&self) -> Vec<Floor> {
        [("read", 1.0), ("step", 0.1)].map(|(f, per_second)| Floor { f, per_second }).into()
    }

    fn check(&self, history: &History) -> Vec<Verdict> {
        budgets::check(history)
    }
}
