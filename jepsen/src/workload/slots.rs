//! A schedule that is due every second, whoever leads: clients read its ledger at any member and switch it
//! off and on, and one more has steps run in between.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join, join_all};
use rand::RngExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::actor::{Actor, highest_index, insist, insist_write};
use super::{HarnessError, Stage, Workload};
use crate::checker::coverage::Floor;
use crate::checker::{Verdict, slots};
use crate::client::{Client, Reply, Request};
use crate::history::{History, Note};

const NAME: &str = "slots";
/// The orchestrator whose schedule it is.
const ORCHESTRATOR: &str = "jepsen-slots";
/// Things done per second.
const RATE_MAX: f64 = 10.0;
/// Steps asked for per second, by a client of its own.
const RUN_RATE: f64 = 1.5;
/// How many of them are done per second, at least. Many wait for a leader, and those that come while the
/// schedule is off are refused: of ten, nine may go wrong without the run having shown too little.
const RUN_FLOOR: f64 = 0.1;
const _: () = assert!(RUN_RATE >= 10.0 * RUN_FLOOR);
/// Slots in one read: more than come between two of them.
const PAGE: usize = 60;
/// Slots, or runs, in one answer at the end.
const PAGE_MAX: usize = 1000;
/// Pages of a ledger, at most: it holds ten thousand slots.
const PAGES_MAX: usize = 11;
/// How long the last run may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(8);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Slots;

fn at(what: &str) -> String {
    format!("/api/v1/orchestrator/{what}?name={ORCHESTRATOR}")
}

/// What is kept of an answer.
fn shown(reply: &Reply) -> Value {
    json!({"slots": reply.body["slots"]})
}

async fn read(actor: &mut Actor<'_>) {
    let request = Request::get(format!("{}&limit={PAGE}", at("slots")));
    let (seat, note) = (actor.seat(), actor.note("read"));
    actor.act(&seat, note, &request, shown).await;
}

async fn client(mut actor: Actor<'_>) {
    while actor.turn().await {
        match actor.rng.random_range(0..20) {
            0..18 => read(&mut actor).await,
            18 if actor.rng.random_bool(0.5) => {
                let (seat, note) = (actor.seat(), actor.note("deactivate"));
                let request = Request::post(at("deactivate"), json!({}));
                actor.act(&seat, note, &request, |_| Value::Null).await;
            }
            _ => {
                let (seat, note) = (actor.seat(), actor.note("activate"));
                let request = Request::post(at("activate"), json!({}));
                actor.act(&seat, note, &request, |_| Value::Null).await;
            }
        }
    }
}

/// Has steps run, which keep those of the schedule from running as long as they are open.
async fn runner(mut actor: Actor<'_>) {
    while actor.turn().await {
        let (seat, note) = (actor.seat(), actor.note("run"));
        let request = Request::post(at("run_once"), json!({}));
        actor.act(&seat, note, &request, |reply| reply.body["id"].clone()).await;
    }
}

/// The whole ledger of a member, page by page, the newest slot first.
async fn ledger(client: &Client, url: &str, index: u64) -> Result<Vec<Value>, String> {
    let (mut all, mut until): (Vec<Value>, _) = (Vec::new(), String::new());
    for _ in 0..PAGES_MAX {
        let local = format!("limit={PAGE_MAX}&consistency=local&min_index={index}");
        let path = format!("{}&{local}{until}", at("slots"));
        let reply = insist(client, url, &path, PATIENCE).await?;
        let page = reply.body["slots"].as_array().cloned().unwrap_or_default();
        let full = page.len() == PAGE_MAX;
        // The last one of a page is the first one of the next.
        let from = usize::from(!all.is_empty());
        all.extend(page.into_iter().skip(from));
        let oldest = all.last().and_then(|slot| slot["slot"].as_str());
        match oldest.filter(|_| full) {
            None => break,
            Some(oldest) => until = format!("&until={oldest}"),
        }
    }
    Ok(all)
}

/// The runs of a member: their numbers, and whether they have ended.
async fn runs(client: &Client, url: &str, index: u64) -> Result<Vec<Value>, String> {
    let path = format!("{}&limit={PAGE_MAX}&consistency=local&min_index={index}", at("runs"));
    let reply = insist(client, url, &path, PATIENCE).await?;
    let runs = reply.body.as_array().map(Vec::as_slice).unwrap_or_default();
    let brief = |run: &Value| json!({"id": run["id"], "ended": run["completed_at"].is_string()});
    Ok(runs.iter().map(brief).collect())
}

/// Waits until no run is open.
async fn rest(client: &Client, url: &str) {
    let began = Instant::now();
    while began.elapsed() < ENDS_WITHIN {
        let runs = runs(client, url, 0).await;
        if runs.is_ok_and(|runs| runs.iter().all(|run| run["ended"] == true)) {
            return;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

impl Workload for Slots {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            let failed = |what: String| HarnessError { workload: NAME, what };
            insist_write(stage, &client, &Request::get(at("state"))).await.map_err(failed)?;
            let schedule =
                json!({"interval_seconds": slots::INTERVAL_MS / 1000, "catch_up": "latest"});
            let body = json!({"mode": "SCHEDULED", "schedule": schedule});
            // Under one key: a second timetable would begin another ledger.
            let request = Request::post(at("config"), body).key("jepsen-slots-timetable");
            insist_write(stage, &client, &request).await.map_err(failed)
        }
        .boxed()
    }

    fn run<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let shared = Client::new();
            let (slow, runs) = (stage.slowed(RATE_MAX), stage.slowed(RUN_RATE));
            let count = stage.load.clients.clamp(1, 4);
            let clients = (0..count).map(|n| client(Actor::new(&slow, &shared, NAME, n, count)));
            join(join_all(clients), runner(Actor::new(&runs, &shared, NAME, count, 1))).await;
            Ok(())
        }
        .boxed()
    }

    fn finish<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            let failed = |what: String| HarnessError { workload: NAME, what };
            let request = Request::post(at("config"), json!({"mode": "MANUAL"}));
            insist_write(stage, &client, &request).await.map_err(failed)?;
            let members = stage.members.all();
            let mut newest = highest_index(stage);
            if let Some((_, url)) = members.first() {
                rest(&client, url).await;
                let read = insist(&client, url, &at("slots"), PATIENCE).await;
                newest = newest.max(read.ok().and_then(|reply| reply.index).unwrap_or(0));
            }
            for (number, url) in members {
                let (ledger, runs) =
                    (ledger(&client, &url, newest).await, runs(&client, &url, newest).await);
                if let (Ok(ledger), Ok(runs)) = (ledger, runs) {
                    let whole = runs.len() < PAGE_MAX;
                    let value = json!({"slots": ledger, "runs": runs, "runs_whole": whole});
                    let note = Note::new(NAME, "final").value(value);
                    stage.recorder.observe("slot-reader", Note { node: Some(number), ..note });
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn floors(&self) -> Vec<Floor> {
        [("read", 1.0), ("run", RUN_FLOOR)].map(|(f, per_second)| Floor { f, per_second }).into()
    }

    fn check(&self, history: &History) -> Vec<Verdict> {
        slots::check(history)
    }
}
