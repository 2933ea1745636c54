//! Swarms and bots made, scaled and removed by clients that ask for more than there is room for, through
//! all members at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join_all};
use rand::RngExt;
use serde_json::{Map, Value, json};

use super::actor::{Actor, highest_index, insist, insist_write};
use super::{HarnessError, Stage, Workload};
use crate::checker::Verdict;
use crate::checker::capacity::{self, CAPACITY};
use crate::checker::coverage::Floor;
use crate::client::{Client, Reply, Request};
use crate::history::{History, Kind, Note};

const NAME: &str = "capacity";
/// Things done per second.
const RATE_MAX: f64 = 20.0;
/// The largest swarm that is asked for, but for the first of each client.
const SWARM_MAX: u64 = 20_000;
/// What all clients ask for at once in the beginning: more than there is.
const ASKED_FIRST: u64 = 60_000;
/// Swarms that one client has at a time.
const OWN_MAX: usize = 8;
/// Rows in one page of a list, and pages at most.
const PAGE: usize = 1000;
const PAGES_MAX: usize = 20;
const PATIENCE: Duration = Duration::from_secs(8);
const STATS: &str = "/bots/stats";

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Capacity {
    made: AtomicU64,
}

/// Something that one client made and nobody else touches.
struct Own {
    name: String,
    path: String,
    is_swarm: bool,
}

/// What is kept of the figures.
fn figures(body: &Value) -> Value {
    let tiers = body["tier_distribution"].as_object();
    let tiers: u64 = tiers.into_iter().flatten().filter_map(|(_, bots)| bots.as_u64()).sum();
    json!({"active": body["active_bots"], "created": body["total_created"], "tiers": tiers,
        "remaining": body["capacity_remaining"], "capacity": body["capacity"]})
}

async fn read(actor: &mut Actor<'_>) {
    let (seat, note) = (actor.seat(), actor.note("read"));
    actor.act(&seat, note, &Request::get(STATS), |reply| figures(&reply.body)).await;
}

fn counted(reply: &Reply) -> Value {
    json!({"count": reply.body["bot_count"]})
}

impl Capacity {
    fn name(&self, actor: &Actor<'_>) -> String {
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{NAME}-{}-{number}", actor.stage.seed)
    }

    async fn client(&self, mut actor: Actor<'_>, clients: u64) {
        let mut own: Vec<Own> = Vec::new();
        self.make(&mut actor, &mut own, ASKED_FIRST.div_ceil(clients)).await;
        while actor.turn().await {
            match actor.rng.random_range(0..20) {
                0..5 if own.len() < OWN_MAX => {
                    let asked = actor.rng.random_range(1..=SWARM_MAX);
                    self.make(&mut actor, &mut own, asked).await;
                }
                5..7 if own.len() < OWN_MAX => self.make_bot(&mut actor, &mut own).await,
                7..11 if !own.is_empty() => {
                    let place = actor.rng.random_range(0..own.len());
                    if own[place].is_swarm && !scale(&mut actor, &own[place]).await {
                        own.swap_remove(place);
                    }
                }
                11..14 if !own.is_empty() => {
                    let one = own.swap_remove(actor.rng.random_range(0..own.len()));
                    let note = actor.note("remove").key(&*one.name).value(json!({"asked": 0}));
                    let request = Request::delete(&*one.path).key(self.name(&actor));
                    let gone = |_: &Reply| json!({"count": 0});
                    if actor.act_until_known(note, &request, gone).await.kind == Kind::Fail {
                        own.push(one);
                    }
                }
                _ => read(&mut actor).await,
            }
        }
    }

    async fn make(&self, actor: &mut Actor<'_>, own: &mut Vec<Own>, asked: u64) {
        let name = self.name(actor);
        let note = actor.note("make").key(&*name).value(json!({"asked": asked}));
        let request = Request::post("/swarms?bot_ids=false", json!({"name": name, "count": asked}));
        let made = actor.act_until_known(note, &request.key(&*name), counted).await;
        if let Some(id) = made.body["id"].as_str().filter(|_| made.kind == Kind::Ok) {
            own.push(Own { name, path: format!("/swarms/{id}"), is_swarm: true });
        }
    }

    async fn make_bot(&self, actor: &mut Actor<'_>, own: &mut Vec<Own>) {
        let name = self.name(actor);
        let note = actor.note("make").key(&*name).value(json!({"asked": 1}));
        let request = Request::post("/bots", json!({"name": name, "tier": "advanced"}));
        let one = |_: &Reply| json!({"count": 1});
        let made = actor.act_until_known(note, &request.key(&*name), one).await;
        if let Some(id) = made.body["id"].as_str().filter(|_| made.kind == Kind::Ok) {
            own.push(Own { name, path: format!("/bots/{id}"), is_swarm: false });
        }
    }
}

/// Whether it is known how many bots the swarm has now.
async fn scale(actor: &mut Actor<'_>, swarm: &Own) -> bool {
    let asked = actor.rng.random_range(1..=SWARM_MAX);
    let note = actor.note("scale").key(&*swarm.name).value(json!({"asked": asked}));
    let key = format!("{}-{:x}", swarm.name, actor.rng.random::<u64>());
    let path = format!("{}?bot_ids=false", swarm.path);
    let request = Request::patch(path, json!({"count": asked})).key(key);
    actor.act_until_known(note, &request, counted).await.kind != Kind::Info
}

/// Every row of a list of a member that `wanted` takes, page by page, until it takes none of a page.
async fn list(
    (client, url): (&Client, &str),
    (path, name): (&str, &str),
    index: u64,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Vec<Value>, String> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    for _ in 0..PAGES_MAX {
        let path = format!("{path}?limit={PAGE}&consistency=local&min_index={index}{cursor}");
        let page = insist(client, url, &path, PATIENCE).await?.body;
        let rows: Vec<Value> = page[name]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|row| wanted(row))
            .cloned()
            .collect();
        let next = page["next_cursor"].as_str().filter(|_| !rows.is_empty());
        all.extend(rows);
        let Some(next) = next else { return Ok(all) };
        cursor = format!("&cursor={next}");
    }
    Err("the list has no end".to_owned())
}

/// All that a member holds: how many bots of each swarm, bots of no swarm, and the figures.
async fn held(client: &Client, url: &str, index: u64) -> Result<Value, String> {
    let swarms = list((client, url), ("/swarms", "swarms"), index, |_| true).await?;
    // Those of no swarm come first.
    let single = |bot: &Value| bot["swarm_id"].is_null();
    let bots = list((client, url), ("/bots", "bots"), index, single).await?;
    let name = |row: &Value| row["name"].as_str().unwrap_or_default().to_owned();
    let swarms = swarms.iter().map(|row| (name(row), row["bot_count"].clone()));
    let units: Map<String, Value> =
        swarms.chain(bots.iter().map(|row| (name(row), json!(1)))).collect();
    let stats = format!("{STATS}?consistency=local&min_index={index}");
    let stats = insist(client, url, &stats, PATIENCE).await?;
    Ok(json!({"units": units, "stats": figures(&stats.body)}))
}

impl Workload for Capacity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let request = Request::put("/api/v1/config/bots.capacity", json!({"value": CAPACITY}));
            let set = insist_write(stage, &Client::new(), &request).await;
            set.map_err(|what| HarnessError { workload: NAME, what })
        }
        .boxed()
    }

    fn run<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let shared = Client::new();
            // What others made before, when everything was prepared; they make none any more.
            for (number, url) in stage.members.all() {
                if let Ok(reply) = insist(&shared, &url, STATS, PATIENCE).await {
                    let note = Note::new(NAME, "before").value(figures(&reply.body));
                    stage.recorder.observe("bot-counter", Note { node: Some(number), ..note });
                    break;
                }
            }
            let slow = stage.slowed(RATE_MAX);
            let count = stage.load.clients.clamp(1, 6);
            let clients = (0..count)
                .map(|n| self.client(Actor::new(&slow, &shared, NAME, n, count), count as u64));
            join_all(clients).await;
            Ok(())
        }
        .boxed()
    }

    fn finish<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            let mut newest = highest_index(stage);
            for (_, url) in stage.members.all() {
                let read = insist(&client, &url, STATS, PATIENCE).await;
                newest = newest.max(read.ok().and_then(|reply| reply.index).unwrap_or(0));
            }
            for (number, url) in stage.members.all() {
                if let Ok(all) = held(&client, &url, newest).await {
                    let note = Note::new(NAME, "final").value(all);
                    stage.recorder.observe("bot-counter", Note { node: Some(number), ..note });
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn floors(&self) -> Vec<Floor> {
        [("read", 0.5), ("make", 0.3), ("scale", 0.1), ("remove", 0.2)]
            .map(|(f, per_second)| Floor { f, per_second })
            .into()
    }

    fn check(&self, history: &History) -> Vec<Verdict> {
        capacity::check(history)
    }
}
