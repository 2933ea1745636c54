//! Every other operation on bots and workflows, each of them under way while the leader dies, and once more while it
//! hands over: sent again under its key it takes effect once, and in the end the accounts are exact (issue 6).

use std::collections::BTreeSet;
use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use crate::bot_blows::{Blow, Series, UNDER_WAY, asked};
use crate::bot_failover::{Ask, decided};
use crate::bots::{Calls, service};
use crate::house::House;
use crate::http::{CALL, PATIENCE, Reply, number, text, until};

/// Requests of each operation.
const TIMES: usize = 6;
/// Members and assignments of the swarm that shrinks.
const WIDE: usize = 120;
/// Of the swarm that members are removed from.
const NARROW: usize = 20;
/// Tasks of the workflow that goes on meanwhile. A service takes half a second for each.
const STEPS: usize = 6;

/// Bots of each swarm that is made, and of the one that is given work as a whole.
const NEW: usize = 3;
/// How long somebody waits for work, in seconds: less than a call may take, more than an election.
const WAIT: u64 = 12;

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
    /// A swarm that gets work while the leader is struck.
    gets: String,
    /// A swarm whose bots are asked for by name.
    named: Vec<String>,
    /// Of its bots some have work, others get it when the leader was struck.
    polled: String,
    polled_bots: Vec<String>,
    /// Has work from the beginning, and gets it when the leader was struck.
    watched: [String; 2],
    cancelled: Vec<String>,
    goes_on: String,
}

async fn make(house: &House, path: &str, body: &Value) -> Value {
    let url = house.url(0, path);
    let reply = house.http.send(Method::POST, &url, Some(body), None, CALL).await.unwrap();
    assert!((200..300).contains(&reply.status), "{path}: {}", reply.body);
    reply.body
}

/// A swarm: its id, and those of its bots.
async fn idle_swarm(house: &House, count: usize) -> (String, Vec<String>) {
    let swarm = make(house, "/swarms", &json!({ "count": count })).await;
    let bots = swarm["bot_ids"].as_array().unwrap().iter().map(|id| text(id, "")).collect();
    (text(&swarm, "/id"), bots)
}

/// As [`idle_swarm`]; every bot has something to do.
async fn busy_swarm(house: &House, count: usize) -> (String, Vec<String>) {
    let (id, bots) = idle_swarm(house, count).await;
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
        let (gets, _) = idle_swarm(house, NEW).await;
        let (_, named) = busy_swarm(house, TIMES).await;
        let (polled, polled_bots) = idle_swarm(house, TIMES).await;
        for bot in &polled_bots[..UNDER_WAY] {
            make(house, &format!("/bots/{bot}/tasks"), &json!({"type": "scan"})).await;
        }
        let idle = text(&make(house, "/bots", &json!({})).await, "/id");
        let watched = [single(house).await.0, idle];
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
            gets,
            named,
            polled,
            polled_bots,
            watched,
            cancelled,
            goes_on,
        }
    }

    fn one(&self, method: &Method, what: &str, ask: &dyn Fn(usize) -> (String, Value)) -> Series {
        let ask = |n: usize| {
            let (path, body) = ask(n);
            let key = format!("{}-{what}-{n}", self.name);
            Ask { method: method.clone(), path, body, key }
        };
        Series((0..TIMES).map(ask).collect())
    }

    /// What makes something, and what waits for work.
    fn makings(&self) -> Vec<Series> {
        let post = Method::POST;
        let leases = || "/bots/leases".to_owned();
        let task = json!({"type": "fraud_detection", "params": {"n": 1}});
        let of_bots = json!({"bots": self.named, "holder": "b"});
        let waiting = json!({"swarms": [self.polled], "holder": "p", "wait_seconds": WAIT});
        let watch = |n| {
            let bot = &self.watched[usize::from(n >= UNDER_WAY)];
            (format!("/bots/{bot}/tasks?status=assigned&wait={WAIT}"), Value::Null)
        };
        vec![
            self.one(&post, "swarms", &|_| {
                ("/swarms?bot_ids=false".to_owned(), json!({ "count": NEW }))
            }),
            self.one(&post, "wave", &|_| {
                (format!("/swarms/{}/tasks", self.gets), json!({"type": "late"}))
            }),
            self.one(&post, "workflow", &|_| {
                ("/orchestrate?async=true".to_owned(), json!({ "tasks": [task] }))
            }),
            self.one(&post, "named", &|_| (leases(), of_bots.clone())),
            self.one(&post, "poll", &|_| (leases(), waiting.clone())),
            self.one(&Method::GET, "watch", &watch),
        ]
    }

    /// Gives work to those that wait for it.
    fn feed(&self) -> Vec<Ask> {
        let bots = self.polled_bots[UNDER_WAY..].iter().chain([&self.watched[1]]);
        let ask = |(n, bot): (usize, &String)| {
            let (path, key) = (format!("/bots/{bot}/tasks"), format!("{}-feed-{n}", self.name));
            Ask { method: Method::POST, path, body: json!({"type": "scan"}), key }
        };
        bots.enumerate().map(ask).collect()
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
            self.one(method, what, ask)
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

/// What an answer says that is the same whenever it is given.
fn kept(ask: &Ask, reply: &Reply) -> Vec<Value> {
    // Swarms and workflows are shown as they are now.
    let keys = match ask.method {
        Method::PATCH => &["/id"][..],
        _ if ask.path.starts_with("/orchestrate") => &["/workflow_id"],
        _ => &KEPT,
    };
    let said = keys.iter().map(|key| reply.body.pointer(key).cloned().unwrap_or_default());
    said.chain([json!(reply.status)]).collect()
}

const KEPT: [&str; 10] = [
    "/id",
    "/deleted",
    "/verdicts",
    "/task_id",
    "/completed_at",
    "/assignments/0/task_id",
    "/assignments/0/attempt",
    "/tasks/0/task_id",
    "/workflow_id",
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
        swarm_stands(house, &self.polled, [times, 0, times, 0, 0]).await;
        let new = NEW as u64;
        swarm_stands(house, &self.gets, [new, new * times, 0, 0, 0]).await;
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

    /// The one that went on is complete, its calls made again once at most, and so are those that were
    /// made meanwhile; the others are cancelled.
    async fn workflows_are_over(&self, house: &House, calls: &Calls, made: &BTreeSet<String>) {
        let url = house.url(1, &format!("/workflows/{}", self.goes_on));
        let done = until("the end of a workflow", PATIENCE, || async {
            let shown = house.http.get(&url).await.ok()?.body;
            (text(&shown, "/status") == "completed").then_some(shown)
        });
        let done = done.await;
        assert_eq!(number(&done, "/tasks_executed"), STEPS as u64);
        let result = json!({"task_type": "fraud_detection", "result": {"echo": {"n": 1}}});
        assert_eq!(done["results"], json!(vec![result; STEPS]));
        let own = |(key, times): (&String, &u64)| key.starts_with(&self.goes_on).then_some(*times);
        let times: Vec<u64> = calls.lock().iter().filter_map(own).collect();
        assert_eq!(times.len(), STEPS, "a call has the same key however often it is made");
        assert!(times.iter().sum::<u64>() <= STEPS as u64 + 1, "{times:?}");
        for id in made {
            let url = house.url(1, &format!("/workflows/{id}"));
            until("the end of a new workflow", PATIENCE, || async {
                let shown = house.http.get(&url).await.ok()?.body;
                (text(&shown, "/status") == "completed").then_some(())
            })
            .await;
            let own = |(key, times): (&String, &u64)| key.starts_with(id).then_some(*times);
            assert!(calls.lock().iter().filter_map(own).sum::<u64>() <= 2, "{id}");
        }
        let calls = calls.lock().clone();
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
        let all: Vec<Series> = stock.series().into_iter().chain(stock.makings()).collect();
        let replies = asked(&mut house, &all, &stock.feed(), blow).await;
        asked_again(&house, &all, &replies).await;
        let taken = replies.iter().flatten();
        let taken = taken.filter_map(|reply| reply.body.pointer("/assignments/0/task_id"));
        tasks.extend(taken.map(|id| text(id, "")));
        let made = replies.iter().flatten().map(|reply| text(&reply.body, "/workflow_id"));
        let begun: BTreeSet<String> = made.filter(|id| !stock.cancelled.contains(id)).collect();
        let begun: BTreeSet<String> = begun.into_iter().filter(|id| !id.is_empty()).collect();
        assert_eq!(begun.len(), TIMES, "each is another workflow");
        let (times, new) = (TIMES as i64, NEW as i64);
        // Grown by 60, shrunk by 60; of members, single ones and six swarms of two there are fewer, and
        // six are new, with six swarms of three. Removed with what they had: single ones and swarms.
        let changes = [
            -4 * times + times + new * times,
            10 * times + times + new * times,
            -times + times,
            times,
            -times - 2 * times - times + times - times + times + new * times
                - times
                - UNDER_WAY as i64
                + 1,
            -2 * times + times + 2 * times,
        ];
        for place in 0..3 {
            let after = figures(&house, place).await;
            let changed: Vec<i64> = after.iter().zip(before).map(|(new, old)| new - old).collect();
            assert_eq!(changed, changes, "{FIGURES:?} when the leader {name}");
        }
        stock.is_accounted_for(&house).await;
        stock.workflows_are_over(&house, &calls, &begun).await;
    }
    assert_eq!(tasks.len(), 2 * 3 * TIMES, "nothing was given to two");
    let running = house.http.read(&house.url(0, "/workflows?status=running")).await;
    assert_eq!(number(&running, "/total"), 0);
    house.agree().await;
}
