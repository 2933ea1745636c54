//! Every other operation on bots and workflows, each of them under way while the leader dies, and once more while it
//! hands over: sent again under its key it takes effect once, and in the end the accounts are exact (issue 6).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::time::sleep;

use crate::bot_failover::{Ask, decided};
use crate::bots::{Calls, service};
use crate::house::House;
use crate::http::{CALL, PATIENCE, Reply, number, text, until};

/// Requests of each operation, and the place of the one that is under way when it happens.
const TIMES: usize = 6;
const UNDER_WAY: usize = 2;
/// Members and assignments of the swarm that shrinks.
const WIDE: usize = 120;
/// Of the swarm that members are removed from.
const NARROW: usize = 20;
/// Tasks of the workflow that goes on meanwhile. A service takes half a second for each.
const STEPS: usize = 6;

/// What happens to the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Dies,
    HandsOver,
}

/// One operation, some times over.
struct Series(Vec<Ask>);

/// What the operations are about.
struct Stock {
    /// What tells it from the stock of another blow.
    name: &'static str,
    grows: String,
    shrinks: String,
    thins: String,
    members: Vec<String>,
    singles: Vec<String>,
    doomed: Vec<String>,
    worker: String,
    tasks: Vec<String>,
    /// A swarm that somebody holds three times as many leases of.
    leased: String,
    leases: Vec<Value>,
    /// A swarm in which all waits.
    waits: String,
    cancelled: Vec<String>,
    goes_on: String,
}

async fn make(house: &House, path: &str, body: &Value) -> Value {
    let url = house.url(0, path);
    let reply = house.http.send(Method::POST, &url, Some(body), None, CALL).await.unwrap();
    assert!((200..300).contains(&reply.status), "{path}: {}", reply.body);
    reply.body
}

/// A swarm of which every bot has something to do: its id, and those of its bots.
async fn busy_swarm(house: &House, count: usize) -> (String, Vec<String>) {
    let swarm = make(house, "/swarms", &json!({ "count": count })).await;
    let bots = swarm["bot_ids"].as_array().unwrap().iter().map(|id| text(id, "")).collect();
    let id = text(&swarm, "/id");
    make(house, &format!("/swarms/{id}/tasks"), &json!({"type": "scan"})).await;
    (id, bots)
}

/// Bots of no swarm, each with something to do.
async fn single(house: &House) -> (String, String) {
    let bot = text(&make(house, "/bots", &json!({})).await, "/id");
    let task = make(house, &format!("/bots/{bot}/tasks"), &json!({"type": "scan"})).await;
    (bot, text(&task, "/task_id"))
}

async fn workflow(house: &House, tasks: usize) -> String {
    let task = json!({"type": "fraud_detection", "params": {"n": 1}});
    let body = json!({ "tasks": vec![task; tasks] });
    text(&make(house, "/orchestrate?async=true", &body).await, "/workflow_id")
}

impl Stock {
    async fn make(house: &House, name: &'static str) -> Self {
        let (grows, _) = busy_swarm(house, 10).await;
        let (shrinks, _) = busy_swarm(house, WIDE).await;
        let (thins, members) = busy_swarm(house, NARROW).await;
        let (leased, _) = busy_swarm(house, 3 * TIMES).await;
        let (waits, _) = busy_swarm(house, TIMES).await;
        let (mut singles, mut doomed, mut cancelled) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TIMES {
            singles.push(single(house).await.0);
            doomed.push(busy_swarm(house, 2).await.0);
            cancelled.push(workflow(house, 100).await);
        }
        let (worker, first) = single(house).await;
        let mut tasks = vec![first];
        while tasks.len() < TIMES {
            let task = make(house, &format!("/bots/{worker}/tasks"), &json!({})).await;
            tasks.push(text(&task, "/task_id"));
        }
        let body = json!({"max": 3 * TIMES, "holder": "w", "lease_seconds": 600});
        let taken = make(house, &format!("/swarms/{leased}/tasks/lease"), &body).await;
        let leases = taken["assignments"].as_array().unwrap().clone();
        assert_eq!(leases.len(), 3 * TIMES);
        let goes_on = workflow(house, STEPS).await;
        Self {
            name,
            grows,
            shrinks,
            thins,
            members,
            singles,
            doomed,
            worker,
            tasks,
            leased,
            leases,
            waits,
            cancelled,
            goes_on,
        }
    }

    fn series(&self) -> Vec<Series> {
        let (post, patch, delete) = (Method::POST, Method::PATCH, Method::DELETE);
        let swarm = |id: &str, rest: &str| format!("/swarms/{id}{rest}");
        let lease = |at: usize| {
            let row = &self.leases[at];
            json!({"task_id": row["task_id"], "attempt": row["attempt"], "retryable": false})
        };
        let batch = |key: &str, at: usize| json!({key: [lease(at)], "lease_seconds": 3600});
        let one = |method: &Method, what: &str, ask: &dyn Fn(usize) -> (String, Value)| {
            let ask = |n: usize| {
                let (path, body) = ask(n);
                let key = format!("{}-{what}-{n}", self.name);
                Ask { method: method.clone(), path, body, key }
            };
            Series((0..TIMES).map(ask).collect())
        };
        let count = |count: usize| json!({ "count": count });
        let (grows, shrinks) =
            (swarm(&self.grows, "?bot_ids=false"), swarm(&self.shrinks, "?bot_ids=false"));
        let bot = |id: &str| format!("/bots/{id}");
        let complete = |n: usize| format!("/bots/{}/tasks/{}/complete", self.worker, self.tasks[n]);
        let fail = "/assignments/fail".to_owned();
        vec![
            one(&patch, "grow", &|n| (grows.clone(), count(10 * (n + 2)))),
            one(&patch, "shrink", &|n| (shrinks.clone(), count(WIDE - 10 * (n + 1)))),
            one(&delete, "member", &|n| (bot(&self.members[2 * n]), Value::Null)),
            one(&delete, "single", &|n| (bot(&self.singles[n]), Value::Null)),
            one(&delete, "swarm", &|n| (swarm(&self.doomed[n], ""), Value::Null)),
            one(&post, "complete", &|n| (complete(n), json!({ "result": n }))),
            one(&post, "renew", &|n| ("/bots/leases/renew".to_owned(), batch("leases", n))),
            one(&post, "release", &|n| {
                ("/bots/leases/release".to_owned(), batch("leases", TIMES + n))
            }),
            one(&post, "fail", &|n| (fail.clone(), batch("items", 2 * TIMES + n))),
            one(&post, "lease", &|_| (swarm(&self.waits, "/tasks/lease"), json!({"holder": "v"}))),
            one(&post, "create", &|_| ("/bots".to_owned(), json!({}))),
            one(&post, "assign", &|_| (bot(&self.worker) + "/tasks", json!({"type": "late"}))),
            one(&delete, "cancel", &|n| (format!("/workflows/{}", self.cancelled[n]), Value::Null)),
        ]
    }
}

/// Has all series asked at once, each by a client of its own; when every one of them has a request under
/// way, it happens to the leader.
async fn asked(house: &mut House, all: &[Series], blow: Blow) -> Vec<Vec<Reply>> {
    let leader = house.leader().await;
    let begin = Arc::new(Barrier::new(all.len() + 1));
    let clients = all.iter().enumerate().map(|(n, Series(asks))| {
        let (http, mut urls) = (house.http.clone(), house.urls());
        urls.rotate_left(n % 3);
        let (asks, begin) = (asks.clone(), Arc::clone(&begin));
        tokio::spawn(async move {
            let mut replies = Vec::new();
            for (place, ask) in asks.iter().enumerate() {
                if place == UNDER_WAY {
                    begin.wait().await;
                    // Some are on their way by then, some in the log, some answered.
                    sleep(Duration::from_millis(n as u64 / 2)).await;
                }
                replies.push(decided(&http, &urls, ask).await);
            }
            replies
        })
    });
    let clients: Vec<_> = clients.collect();
    begin.wait().await;
    sleep(Duration::from_millis(4)).await;
    match blow {
        Blow::Dies => house.kill(leader),
        Blow::HandsOver => {
            let url = house.url(leader, "/api/v1/cluster/transfer-leader");
            until("another leads", PATIENCE, || async {
                let reply = house.http.send(Method::POST, &url, Some(&json!({})), None, CALL).await;
                reply.ok().filter(|reply| reply.status == 200)
            })
            .await;
        }
    }
    let replies = join_all(clients).await.into_iter().map(Result::unwrap).collect();
    if blow == Blow::Dies {
        house.start(leader);
        house.ready(leader).await;
    }
    replies
}

/// What an answer says that is the same whenever it is given.
fn kept(ask: &Ask, reply: &Reply) -> Vec<Value> {
    // A swarm is shown as it is now.
    let keys = if ask.method == Method::PATCH { &["/id"][..] } else { &KEPT };
    let said = keys.iter().map(|key| reply.body.pointer(key).cloned().unwrap_or_default());
    said.chain([json!(reply.status)]).collect()
}

const KEPT: [&str; 8] = [
    "/id",
    "/deleted",
    "/verdicts",
    "/task_id",
    "/completed_at",
    "/assignments/0/task_id",
    "/assignments/0/attempt",
    "/error",
];

/// Every request once more, through another member: answered as before.
async fn asked_again(house: &House, all: &[Series], replies: &[Vec<Reply>]) {
    for (Series(asks), replies) in all.iter().zip(replies) {
        for (ask, reply) in asks.iter().zip(replies) {
            assert!((200..300).contains(&reply.status), "{}: {}", ask.key, reply.body);
            let again = decided(&house.http, &[house.url(2, "")], ask).await;
            assert_eq!(kept(ask, &again), kept(ask, reply), "{}", ask.key);
        }
    }
}

const FIGURES: [&str; 6] = [
    "active_bots",
    "total_created",
    "swarm_count",
    "tasks_executed",
    "tasks_waiting",
    "tasks_leased",
];

async fn figures(house: &House, place: usize) -> [i64; 6] {
    let stats = house.http.read(&house.url(place, "/bots/stats")).await;
    FIGURES.map(|key| number(&stats, &format!("/{key}")) as i64)
}

/// Bots, and what waits, is leased, was completed, was given up.
async fn swarm_stands(house: &House, id: &str, wanted: [u64; 5]) {
    let shown = house.http.read(&house.url(1, &format!("/swarms/{id}?bot_ids=false"))).await;
    let keys = ["bot_count", "waiting_tasks", "leased_tasks", "total_tasks_completed"];
    let [bots, waiting, leased, completed] = keys.map(|key| number(&shown, &format!("/{key}")));
    let failed = number(&shown, "/failed_tasks");
    assert_eq!([bots, waiting, leased, completed, failed], wanted, "{id}");
}

/// What each bot of a swarm has to do, in order.
async fn pending(house: &House, swarm: &str) -> Vec<u64> {
    let shown = house.http.read(&house.url(1, &format!("/swarms/{swarm}"))).await;
    let ids = shown["bot_ids"].as_array().unwrap();
    let mut all = Vec::new();
    for id in ids {
        let bot = house.http.read(&house.url(1, &format!("/bots/{}", text(id, "")))).await;
        all.push(number(&bot, "/pending_tasks"));
    }
    all.sort_unstable();
    all
}

impl Stock {
    async fn is_accounted_for(&self, house: &House) {
        let times = TIMES as u64;
        swarm_stands(house, &self.grows, [10 + 10 * times, 10, 0, 0, 0]).await;
        let (wide, narrow) = (WIDE as u64, NARROW as u64);
        swarm_stands(house, &self.shrinks, [wide - 10 * times, wide, 0, 0, 0]).await;
        swarm_stands(house, &self.thins, [narrow - times, narrow, 0, 0, 0]).await;
        swarm_stands(house, &self.leased, [3 * times, times, times, 0, times]).await;
        swarm_stands(house, &self.waits, [times, 0, times, 0, 0]).await;
        // Twice as many assignments as bots are left, and 14 bots with 20: six have two.
        assert_eq!(pending(house, &self.shrinks).await, vec![2; WIDE - 10 * TIMES]);
        let (of_one, of_two) = (NARROW - 2 * TIMES, TIMES);
        assert_eq!(pending(house, &self.thins).await, [vec![1; of_one], vec![2; of_two]].concat());
        let bot = house.http.read(&house.url(1, &format!("/bots/{}", self.worker))).await;
        let found = ["total_tasks", "pending_tasks", "completed_tasks", "failed_tasks"];
        let found = found.map(|key| number(&bot, &format!("/{key}")));
        assert_eq!(found, [2 * times, times, times, 0]);
        // Held for another hour: only those that were renewed.
        let path = |row: &Value| format!("/bots/{}/tasks?status=leased", text(row, "/bot_id"));
        for row in &self.leases[..TIMES] {
            let held = house.http.read(&house.url(1, &path(row))).await;
            let deadline = text(&held, "/tasks/0/lease/deadline");
            assert!(deadline > text(row, "/deadline"), "{deadline}: {row}");
        }
    }

    /// The one that went on is complete, its calls made again once at most; the others are cancelled.
    async fn workflows_are_over(&self, house: &House, calls: &Calls) {
        let url = house.url(1, &format!("/workflows/{}", self.goes_on));
        let done = until("the end of a workflow", PATIENCE, || async {
            let shown = house.http.get(&url).await.ok()?.body;
            (text(&shown, "/status") == "completed").then_some(shown)
        });
        let done = done.await;
        assert_eq!(number(&done, "/tasks_executed"), STEPS as u64);
        let result = json!({"task_type": "fraud_detection", "result": {"echo": {"n": 1}}});
        assert_eq!(done["results"], json!(vec![result; STEPS]));
        let calls = calls.lock().clone();
        let own = calls.iter().filter(|(key, _)| key.starts_with(&self.goes_on));
        let times: Vec<u64> = own.map(|(_, times)| *times).collect();
        assert_eq!(times.len(), STEPS, "a call has the same key however often it is made");
        assert!(times.iter().sum::<u64>() <= STEPS as u64 + 1, "{times:?}");
        for id in &self.cancelled {
            let shown = house.http.read(&house.url(1, &format!("/workflows/{id}"))).await;
            assert_eq!(text(&shown, "/status"), "cancelled");
            let results = shown["results"].as_array().unwrap().len() as u64;
            assert_eq!(number(&shown, "/tasks_executed"), results);
            let made = calls.keys().filter(|key| key.starts_with(id.as_str())).count() as u64;
            assert!(made <= results + 1, "{made} calls, {results} results");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_on_bots_takes_effect_once_whatever_the_leader_does() {
    let calls = Calls::default();
    let url = service(Arc::clone(&calls)).await;
    let mut house = House::found_with(3, &format!("services:\n  fraud_detection: {url}\n")).await;
    let mut tasks = BTreeSet::new();
    for (blow, name) in [(Blow::Dies, "dies"), (Blow::HandsOver, "handover")] {
        let stock = Stock::make(&house, name).await;
        let before = figures(&house, 0).await;
        let all = stock.series();
        let replies = asked(&mut house, &all, blow).await;
        asked_again(&house, &all, &replies).await;
        let taken = replies.iter().flatten();
        let taken = taken.filter_map(|reply| reply.body.pointer("/assignments/0/task_id"));
        tasks.extend(taken.map(|id| text(id, "")));
        let times = TIMES as i64;
        // Grown by 60, shrunk by 60; of members, single ones and six swarms of two there are fewer, and
        // six are new. Removed with what they had: single ones and swarms.
        let changes = [
            -4 * times + times,
            10 * times + times,
            -times,
            times,
            -times - 2 * times - times + times - times + times,
            -2 * times + times,
        ];
        for place in 0..3 {
            let after = figures(&house, place).await;
            let changed: Vec<i64> = after.iter().zip(before).map(|(new, old)| new - old).collect();
            assert_eq!(changed, changes, "{FIGURES:?} when the leader {name}");
        }
        stock.is_accounted_for(&house).await;
        stock.workflows_are_over(&house, &calls).await;
    }
    assert_eq!(tasks.len(), 2 * TIMES, "nothing was given to two");
    let running = house.http.read(&house.url(0, "/workflows?status=running")).await;
    assert_eq!(number(&running, "/total"), 0);
    house.agree().await;
}
