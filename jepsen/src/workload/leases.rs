//! What bots have to do, done by workers that take leases, renew them, complete, fail, give back, die, and
//! come too late; beside them, clients that complete what nobody holds. Much of it is sent twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join, join_all};
use parking_lot::Mutex;
use rand::RngExt;
use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::actor::{Actor, highest_index, insist, insist_reply, insist_write};
use super::{HarnessError, Stage, Workload};
use crate::checker::coverage::Floor;
use crate::checker::{Verdict, leases};
use crate::client::{Client, Reply, Request};
use crate::history::{History, Kind, Note};

const NAME: &str = "leases";
/// The swarms, by tier.
const TIERS: [&str; 2] = ["L20", "standard"];
/// Bots of each.
const BOTS: usize = 8;
/// Assignments given to whole swarms or single bots, per second; and at most, so that one answer holds
/// all of a bot.
const ASSIGN_RATE: f64 = 2.5;
const ASSIGNS_MAX: u64 = 900;
const WORKERS: usize = 5;
/// Leases that all workers ask for per second.
const LEASE_RATE: f64 = 20.0;
/// How long leases last, in ms.
const LEASES_MS: [u64; 3] = [400, 1000, 3000];
/// What is over is reported once more, of so many at most.
const LATE_MAX: usize = 20;
/// Tries that may fail: more than any assignment has.
const RETRIES: u64 = 1000;
/// How long the rest may take after healing.
const DRAIN: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(8);

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Leases {
    requests: AtomicU64,
    assigned: AtomicU64,
    swarms: Mutex<Vec<Swarm>>,
}

#[derive(Debug, Clone)]
struct Swarm {
    id: String,
    bots: Vec<String>,
}

/// A try that somebody was given.
#[derive(Debug, Clone)]
struct Held {
    task: String,
    attempt: u64,
}

impl Leases {
    /// A text that no other request has: its key, or what it results in.
    fn fresh(&self, actor: &Actor<'_>) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        format!("{NAME}-{}-{number}", actor.stage.seed)
    }

    fn swarm(&self, actor: &mut Actor<'_>) -> Swarm {
        let swarms = self.swarms.lock();
        let place = actor.rng.random_range(0..swarms.len());
        swarms[place].clone()
    }

    /// Gives work away, and reads the figures.
    async fn assigner(&self, mut actor: Actor<'_>) {
        while actor.turn().await {
            let (seat, note) = (actor.seat(), actor.note("read"));
            let executed = |reply: &Reply| reply.body["tasks_executed"].clone();
            actor.act(&seat, note, &Request::get("/bots/stats"), executed).await;
            if self.assigned.fetch_add(1, Ordering::Relaxed) >= ASSIGNS_MAX {
                continue;
            }
            let swarm = self.swarm(&mut actor);
            let single = actor.rng.random_bool(0.4).then(|| swarm.bots.choose(&mut actor.rng));
            let (path, size) = match single.flatten() {
                Some(bot) => (format!("/bots/{bot}/tasks"), 1),
                None => (format!("/swarms/{}/tasks", swarm.id), swarm.bots.len()),
            };
            let body = json!({"type": "jepsen", "data": {"n": size}});
            let request = Request::post(path, body).key(self.fresh(&actor));
            let note = actor.note("assign").key(swarm.id).value(size);
            let count = |reply: &Reply| match &reply.body["assignments"] {
                Value::Null => json!(1),
                count => count.clone(),
            };
            actor.act_until_known(note, &request, count).await;
        }
    }

    async fn worker(&self, mut actor: Actor<'_>, holder: usize) {
        let mut late: Vec<Held> = Vec::new();
        while actor.turn().await {
            let max = actor.rng.random_range(1..=3);
            for held in self.lease(&mut actor, holder, max).await {
                if !self.work(&mut actor, &held).await {
                    late.push(held);
                }
            }
            if actor.rng.random_bool(0.5) && !late.is_empty() {
                let held = late.remove(0);
                self.complete(&mut actor, &held, false).await;
            }
            late.truncate(LATE_MAX);
        }
    }

    async fn lease(&self, actor: &mut Actor<'_>, holder: usize, max: u64) -> Vec<Held> {
        let lease_ms = *LEASES_MS.choose(&mut actor.rng).unwrap_or(&1000);
        let holder = format!("jepsen-{holder}");
        let mut body = json!({"holder": holder, "max": max,
            "lease_seconds": lease_ms as f64 / 1000.0,
            "wait_seconds": if actor.rng.random_bool(0.3) { 0.4 } else { 0.0 }});
        let swarms = self.swarms.lock().clone();
        if actor.rng.random_bool(0.7) {
            body["swarms"] = swarms.iter().map(|swarm| json!(swarm.id)).collect();
        } else {
            let bots: Vec<&String> = swarms.iter().flat_map(|swarm| &swarm.bots).collect();
            body["bots"] = bots.sample(&mut actor.rng, 5).map(|bot| json!(bot)).collect();
        }
        let request = Request::post("/bots/leases", body).key(self.fresh(actor));
        let note = actor.note("lease").key(holder).value(json!({"lease_ms": lease_ms}));
        let held = |reply: &Reply| {
            let rows = reply.body["assignments"].as_array().into_iter().flatten();
            let held: Value = rows.map(|row| json!([row["task_id"], row["attempt"]])).collect();
            json!({"held": held, "lease_ms": lease_ms})
        };
        let reply = actor.act_until_known(note, &request, held).await;
        let rows = reply.body["assignments"].as_array().into_iter().flatten();
        let held = rows.filter_map(|row| {
            let (task, attempt) = (row["task_id"].as_str()?.to_owned(), row["attempt"].as_u64()?);
            Some(Held { task, attempt })
        });
        held.collect()
    }

    /// Works on something; false when it dies with it, and comes again later.
    async fn work(&self, actor: &mut Actor<'_>, held: &Held) -> bool {
        let time = Duration::from_millis(actor.rng.random_range(5..120));
        actor.sleep(time).await;
        match actor.rng.random_range(0..20) {
            0..9 => self.complete(actor, held, true).await,
            9..11 => {
                self.renew(actor, held).await;
                actor.sleep(time * 3).await;
                self.complete(actor, held, true).await;
            }
            11..13 => {
                let items = json!({"items": [{"task_id": held.task, "attempt": held.attempt,
                    "error": "as it was planned"}]});
                self.tell(actor, "fail", "/assignments/fail", held, items).await;
            }
            13..15 => {
                let leases = json!({"leases": [{"task_id": held.task, "attempt": held.attempt}]});
                self.tell(actor, "release", "/bots/leases/release", held, leases).await;
            }
            15..17 => {
                actor.sleep(Duration::from_millis(LEASES_MS[0]) + time * 4).await;
                self.complete(actor, held, true).await;
            }
            _ => return false,
        }
        true
    }

    async fn renew(&self, actor: &mut Actor<'_>, held: &Held) {
        let lease_ms = LEASES_MS[1];
        let note = actor.note("renew").key(&*held.task);
        let note = note.value(json!({"attempt": held.attempt, "lease_ms": lease_ms}));
        let body = json!({"leases": [{"task_id": held.task, "attempt": held.attempt}],
            "lease_seconds": lease_ms as f64 / 1000.0});
        let request = Request::post("/bots/leases/renew", body).key(self.fresh(actor));
        let told = verdicts(held, json!({"lease_ms": lease_ms}));
        actor.act_until_known(note, &request, told).await;
    }

    async fn tell(
        &self,
        actor: &mut Actor<'_>,
        f: &str,
        path: &str,
        held: &Held,
        body: Value,
    ) -> Kind {
        let note = actor.note(f).key(&*held.task).value(json!({"attempt": held.attempt}));
        let request = Request::post(path, body).key(self.fresh(actor));
        actor.act_until_known(note, &request, verdicts(held, json!({}))).await.kind
    }

    /// Completes, and does so again now and then: under one key, in one request, or as another request.
    async fn complete(&self, actor: &mut Actor<'_>, held: &Held, again: bool) {
        let token = self.fresh(actor);
        let item =
            json!({"task_id": held.task, "attempt": held.attempt, "result": {"token": token}});
        let twice = again && actor.rng.random_bool(0.1);
        let items = if twice { json!([item, item]) } else { json!([item]) };
        let request = Request::post("/assignments/complete", json!({"items": items}));
        let note = actor.note("complete").key(&*held.task);
        let note = note.value(json!({"attempt": held.attempt, "token": token}));
        let told = || verdicts(held, json!({"token": token}));
        if actor.rng.random_bool(0.5) {
            let request = request.clone().key(self.fresh(actor));
            actor.act_until_known(note.clone(), &request, told()).await;
        } else {
            // Each time a request of its own: whoever does not know asks again.
            for _ in 0..6 {
                let seat = actor.seat();
                if actor.act(&seat, note.clone(), &request, told()).await.kind == Kind::Ok {
                    break;
                }
                sleep(Duration::from_millis(actor.rng.random_range(20..150))).await;
            }
        }
        if again && actor.rng.random_bool(0.3) {
            let seat = actor.seat();
            actor.act(&seat, note, &request, told()).await;
        }
    }

    /// Keeps the books of bots as the family's clients do, that know no leases.
    async fn bookkeeper(&self, mut actor: Actor<'_>) {
        while actor.turn().await {
            let swarm = self.swarm(&mut actor);
            let Some(bot) = swarm.bots.choose(&mut actor.rng) else { continue };
            let path = format!("/bots/{bot}/tasks?status=waiting&limit=3");
            let seat = actor.seat();
            let waiting = actor.client.send(&seat.1, &Request::get(path)).await.body;
            let Some(task) = waiting["tasks"][0]["task_id"].as_str() else { continue };
            let token = self.fresh(&actor);
            let note = actor.note("book").key(task).value(json!({"token": token}));
            let body = json!({"result": {"token": token}});
            let request = Request::post(format!("/bots/{bot}/tasks/{task}/complete"), body);
            let request = request.key(self.fresh(&actor));
            let told = |reply: &Reply| json!({"token": token, "status": reply.body["status"]});
            actor.act_until_known(note, &request, told).await;
        }
    }

    /// Does what is left, until nothing is.
    async fn drain(&self, stage: &Stage, client: &Client) {
        let mut actor = Actor::new(stage, client, NAME, WORKERS + 2, 1);
        let began = Instant::now();
        while began.elapsed() < DRAIN {
            let held = self.lease(&mut actor, WORKERS, 100).await;
            for held in &held {
                self.complete(&mut actor, held, false).await;
            }
            let seat = actor.seat();
            let stats = actor.client.send(&seat.1, &Request::get("/bots/stats")).await.body;
            if stats["tasks_waiting"] == 0 && stats["tasks_leased"] == 0 {
                return;
            }
            if held.is_empty() {
                sleep(Duration::from_millis(150)).await;
            }
        }
    }

    /// All that a member has: assignments, and what is counted of bots, swarms and everything.
    async fn all(&self, client: &Client, url: &str, index: u64) -> Result<Value, String> {
        let local = format!("consistency=local&min_index={index}");
        let get = async |path: String| {
            Ok::<Value, String>(insist(client, url, &path, PATIENCE).await?.body)
        };
        let (mut tasks, mut bots, mut swarms) = (Map::new(), Map::new(), Map::new());
        let known = self.swarms.lock().clone();
        for swarm in &known {
            let body = get(format!("/swarms/{}?bot_ids=false&{local}", swarm.id)).await?;
            let fields = ["total_tasks_completed", "waiting_tasks", "leased_tasks", "failed_tasks"];
            swarms.insert(swarm.id.clone(), fields.map(|field| body[field].clone()).into());
            for bot in &swarm.bots {
                let rows = get(format!("/bots/{bot}/tasks?limit=1000&{local}")).await?;
                for row in rows["tasks"].as_array().into_iter().flatten() {
                    let task = row["task_id"].as_str().unwrap_or_default().to_owned();
                    let token = &row["result"]["token"];
                    tasks.insert(task, json!([bot, row["status"], row["attempt"], token]));
                }
                let body = get(format!("/bots/{bot}?{local}")).await?;
                let fields = ["total_tasks", "completed_tasks", "tasks_completed", "pending_tasks"];
                bots.insert(bot.clone(), fields.map(|field| body[field].clone()).into());
            }
        }
        let stats = get(format!("/bots/stats?{local}")).await?;
        let fields = ["tasks_executed", "tasks_waiting", "tasks_leased"];
        let stats: Value = fields.map(|field| stats[field].clone()).into();
        Ok(json!({"tasks": tasks, "bots": bots, "swarms": swarms, "stats": stats}))
    }
}

/// Reads what became of the items of a request about a try.
fn verdicts(held: &Held, more: Value) -> impl FnOnce(&Reply) -> Value {
    let attempt = held.attempt;
    move |reply| {
        let mut told = more;
        told["attempt"] = json!(attempt);
        told["verdicts"] = reply.body["verdicts"].clone();
        told
    }
}

async fn make(stage: &Stage, client: &Client, tier: &str) -> Result<Swarm, String> {
    let body = json!({"name": format!("jepsen-{NAME}-{tier}"), "count": BOTS, "tier": tier});
    let request = Request::post("/swarms", body).key(format!("jepsen-{NAME}-{tier}"));
    let made = insist_reply(stage, client, &request).await?.body;
    let bots = made["bot_ids"].as_array().into_iter().flatten();
    let bots = bots.filter_map(|id| id.as_str().map(str::to_owned)).collect();
    let id = made["id"].as_str().ok_or("a swarm has no id")?;
    Ok(Swarm { id: id.to_owned(), bots })
}

impl Workload for Leases {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            let failed = |what: String| HarnessError { workload: NAME, what };
            let path = "/api/v1/config/orchestrator.max_retries";
            let request = Request::put(path, json!({"value": RETRIES}));
            insist_write(stage, &client, &request).await.map_err(failed)?;
            for tier in TIERS {
                let swarm = make(stage, &client, tier).await.map_err(failed)?;
                self.swarms.lock().push(swarm);
            }
            Ok(())
        }
        .boxed()
    }

    fn run<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let shared = Client::new();
            let (slow, quick) = (stage.slowed(ASSIGN_RATE), stage.slowed(LEASE_RATE));
            let workers =
                (0..WORKERS).map(|n| self.worker(Actor::new(&quick, &shared, NAME, n, WORKERS), n));
            let others = join(
                self.assigner(Actor::new(&slow, &shared, NAME, WORKERS, 1)),
                self.bookkeeper(Actor::new(&slow, &shared, NAME, WORKERS + 1, 1)),
            );
            join(join_all(workers), others).await;
            Ok(())
        }
        .boxed()
    }

    fn finish<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            self.drain(stage, &client).await;
            let mut newest = highest_index(stage);
            for (_, url) in stage.members.all() {
                let read = insist(&client, &url, "/bots/stats", PATIENCE).await;
                newest = newest.max(read.ok().and_then(|reply| reply.index).unwrap_or(0));
            }
            for (number, url) in stage.members.all() {
                if let Ok(all) = self.all(&client, &url, newest).await {
                    let note = Note::new(NAME, "final").value(all);
                    stage.recorder.observe("lease-reader", Note { node: Some(number), ..note });
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn floors(&self) -> Vec<Floor> {
        [("lease", 0.5), ("complete", 0.5), ("assign", 0.1), ("read", 0.1)]
            .map(|(f, per_second)| Floor { f, per_second })
            .into()
    }

    fn check(&self, history: &History) -> Vec<Verdict> {
        leases::check(history)
    }
}
