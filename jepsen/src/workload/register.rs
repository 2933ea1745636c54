//! Registers in the replicated configuration: read through any member, write, compare-and-set.
//!
//! A register is a key below `jepsen.registers`. Compare-and-set is what the API offers: a change
//! with `If-Match` on the revision at which the old value was read. The revision is that of the
//! whole document, so a change that is refused says nothing about the register, and one that is
//! taken says that the register held the old value then.
//!
//! Two keys are in use at a time, each by at most five clients, and each for a few hundred
//! operations: that is what checkers can judge in milliseconds.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use futures::future::{BoxFuture, FutureExt, join_all};
use rand::RngExt;
use serde_json::{Value, json};

use super::actor::{Actor, Seat};
use super::{HarnessError, Stage, Workload};
use crate::checker::coverage::Floor;
use crate::checker::{Verdict, linear};
use crate::client::{Client, Reply, Request};
use crate::history::{History, Kind};

const NAME: &str = "register";
/// Keys in use at a time.
const SLOTS: usize = 2;
const CLIENTS_PER_KEY_MAX: usize = 5;
const OPS_PER_KEY: u64 = 300;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Register {
    /// Values are unique in a run.
    last_value: AtomicI64,
    /// Operations begun per slot.
    begun: [AtomicU64; SLOTS],
}

impl Register {
    /// The key that the next operation of `slot` is about.
    fn key(&self, slot: usize) -> String {
        let round = self.begun[slot].fetch_add(1, Ordering::Relaxed) / OPS_PER_KEY;
        format!("k{}", slot as u64 + SLOTS as u64 * round)
    }

    fn value(&self) -> i64 {
        self.last_value.fetch_add(1, Ordering::Relaxed) + 1
    }

    async fn client(&self, mut actor: Actor<'_>, slot: usize) {
        while actor.turn().await {
            let key = self.key(slot);
            match actor.rng.random_range(0..10) {
                0..4 => {
                    read(&mut actor, &key).await;
                }
                4..7 => {
                    let value = self.value();
                    let note = actor.note("write").key(&*key).value(value);
                    let (seat, request) =
                        (actor.seat(), Request::put(path(&key), json!({"value": value})));
                    actor.act(&seat, note, &request, |_| json!(value)).await;
                }
                _ => self.compare_and_set(&mut actor, &key).await,
            }
        }
    }

    async fn compare_and_set(&self, actor: &mut Actor<'_>, key: &str) {
        let Some((old, revision)) = read(actor, key).await else { return };
        let new = self.value();
        let note = actor.note("cas").key(key).value(json!([old, new]));
        let request = Request::put(path(key), json!({"value": new})).if_match(revision);
        let seat = actor.seat();
        actor.act(&seat, note, &request, |_| json!([old, new])).await;
    }

    /// Every key, through every member: one answer holds them all.
    async fn read_all(&self, stage: &Stage) {
        let client = Client::new();
        let rounds = self.begun.iter().map(|begun| begun.load(Ordering::Relaxed));
        let keys = rounds.max().unwrap_or(0).div_ceil(OPS_PER_KEY) * SLOTS as u64;
        for (number, url) in stage.members.all() {
            let seat: Seat = (number, url);
            let mut actors: Vec<(Actor<'_>, String)> = (0..keys)
                .map(|key| (Actor::new(stage, &client, NAME, 0, 1), format!("k{key}")))
                .collect();
            for (actor, key) in &actors {
                actor.begin(&seat, &actor.note("read").key(&**key));
            }
            let reply = client.send(&seat.1, &Request::get("/api/v1/config")).await;
            for (actor, key) in &mut actors {
                let note = actor.note("read").key(&**key);
                let value = if reply.kind == Kind::Ok { seen(&reply, key) } else { Value::Null };
                actor.end(&seat, &note, &reply, value);
            }
        }
    }
}

fn path(key: &str) -> String {
    format!("/api/v1/config/jepsen.registers.{key}")
}

fn seen(reply: &Reply, key: &str) -> Value {
    reply.body["config"]["jepsen"]["registers"][key].clone()
}

/// Reads one register; gives its value and the revision of the document.
async fn read(actor: &mut Actor<'_>, key: &str) -> Option<(Value, u64)> {
    let note = actor.note("read").key(key);
    let seat = actor.seat();
    let request = Request::get("/api/v1/config");
    let reply = actor.act(&seat, note, &request, |reply| seen(reply, key)).await;
    (reply.kind == Kind::Ok).then_some(())?;
    Some((seen(&reply, key), reply.body["revision"].as_u64()?))
}

impl Workload for Register {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            let per_key = (stage.load.clients / SLOTS).clamp(1, CLIENTS_PER_KEY_MAX);
            let clients = (0..SLOTS * per_key).map(|number| {
                let actor = Actor::new(stage, &client, NAME, number, SLOTS * per_key);
                self.client(actor, number % SLOTS)
            });
            join_all(clients).await;
            Ok(())
        }
        .boxed()
    }

    fn finish<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            self.read_all(stage).await;
            Ok(())
        }
        .boxed()
    }

    fn floors(&self) -> Vec<Floor> {
        [("read", 2.0), ("write", 1.0), ("cas", 0.2)]
            .map(|(f, per_second)| Floor { f, per_second })
            .into()
    }

    fn check(&self, history: &History) -> Vec<Verdict> {
        linear::check(NAME, &history.calls(NAME))
    }
}
