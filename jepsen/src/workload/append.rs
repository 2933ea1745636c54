//! Transactions over several lists: append to some, read others, all at once.
//!
//! A list is a key below `jepsen.lists`. A transaction reads the configuration with its revision
//! through one member and writes all its lists in one change, under the condition of that revision,
//! through another: taken means that it read and wrote in one moment.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use futures::future::{BoxFuture, FutureExt, join_all};
use rand::RngExt;
use serde_json::{Map, Value, json};

use super::actor::Actor;
use super::{HarnessError, Stage, Workload};
use crate::checker::coverage::Floor;
use crate::checker::{Verdict, lists};
use crate::client::{Client, Reply, Request};
use crate::history::{History, Kind};

const NAME: &str = "append";
/// Lists in use at a time.
const LISTS: i64 = 3;
/// Appends tried per list before others come into use.
const APPENDS_PER_LIST: i64 = 40;
/// The revision is that of the whole document: more clients would mostly refuse each other.
const CLIENTS_MAX: usize = 4;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Append {
    last_value: AtomicI64,
}

/// One step of a transaction: the list, and what to append; `None` reads.
type Step = (String, Option<i64>);

impl Append {
    fn steps(&self, actor: &mut Actor<'_>) -> Vec<Step> {
        let count = actor.rng.random_range(1..=4);
        let mut steps = Vec::new();
        for _ in 0..count {
            let is_append = actor.rng.random_bool(0.5);
            let last = self.last_value.fetch_add(i64::from(is_append), Ordering::Relaxed);
            let first = last / (APPENDS_PER_LIST * LISTS) * LISTS;
            let list = format!("a{}", first + actor.rng.random_range(0..LISTS));
            steps.push((list, is_append.then_some(last + 1)));
        }
        steps
    }

    async fn client(&self, mut actor: Actor<'_>) {
        while actor.turn().await {
            let steps = self.steps(&mut actor);
            transact(&mut actor, &steps).await;
        }
    }
}

/// The transaction in the words of Elle; `lists` are what it read, when it did.
fn words(steps: &[Step], lists: Option<&mut BTreeMap<String, Vec<Value>>>) -> Value {
    let mut lists = lists;
    let word = |(list, append): &Step| match (append, lists.as_deref_mut()) {
        (Some(value), known) => {
            if let Some(lists) = known {
                lists.entry(list.clone()).or_default().push(json!(value));
            }
            json!(["append", list, value])
        }
        (None, Some(lists)) => json!(["r", list, lists.get(list).cloned().unwrap_or_default()]),
        (None, None) => json!(["r", list, null]),
    };
    steps.iter().map(word).collect()
}

/// The lists that `steps` touch, as they stand in `reply`.
fn stored(steps: &[Step], reply: &Reply) -> BTreeMap<String, Vec<Value>> {
    let all = &reply.body["config"]["jepsen"]["lists"];
    let of = |list: &String| all[list].as_array().cloned().unwrap_or_default();
    steps.iter().map(|(list, _)| (list.clone(), of(list))).collect()
}

async fn transact(actor: &mut Actor<'_>, steps: &[Step]) {
    let note = actor.note("txn").value(words(steps, None));
    let seat = actor.seat();
    actor.begin(&seat, &note);
    let read = actor.client.send(&seat.1, &Request::get("/api/v1/config")).await;
    let revision = read.body["revision"].as_u64();
    let (Kind::Ok, Some(revision)) = (read.kind, revision) else {
        let failed = Reply { kind: Kind::Fail, ..read };
        actor.end(&seat, &note, &failed, note.value.clone());
        return;
    };
    let mut lists = stored(steps, &read);
    let done = words(steps, Some(&mut lists));
    let appended = steps.iter().filter(|(_, append)| append.is_some());
    let patch: Map<String, Value> =
        appended.map(|(list, _)| (list.clone(), json!(lists[list]))).collect();
    if patch.is_empty() {
        actor.end(&seat, &note, &read, done);
        return;
    }
    let seat = actor.seat();
    let request = Request::put("/api/v1/config", json!({"jepsen": {"lists": patch}}));
    let reply = actor.client.send(&seat.1, &request.if_match(revision)).await;
    let value = if reply.kind == Kind::Ok { done } else { note.value.clone() };
    actor.end(&seat, &note, &reply, value);
}

impl Workload for Append {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            let count = stage.load.clients.clamp(1, CLIENTS_MAX);
            let clients =
                (0..count).map(|n| self.client(Actor::new(stage, &client, NAME, n, count)));
            join_all(clients).await;
            Ok(())
        }
        .boxed()
    }

    fn finish<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let last = self.last_value.load(Ordering::Relaxed);
            let lists = (last / (APPENDS_PER_LIST * LISTS) + 1) * LISTS;
            let steps: Vec<Step> = (0..lists).map(|list| (format!("a{list}"), None)).collect();
            let mut actor = Actor::new(stage, &Client::new(), NAME, 0, 1);
            for seat in stage.members.all() {
                let note = actor.note("txn").value(words(&steps, None));
                let request = Request::get("/api/v1/config");
                let all = |reply: &Reply| words(&steps, Some(&mut stored(&steps, reply)));
                actor.act(&seat, note, &request, all).await;
            }
            Ok(())
        }
        .boxed()
    }

    fn floors(&self) -> Vec<Floor> {
        // Two of three meet the write of another one, or no leader.
        vec![Floor { f: "txn", per_second: 0.5 }]
    }

    fn check(&self, history: &History) -> Vec<Verdict> {
        lists::check(NAME, history)
    }
}
