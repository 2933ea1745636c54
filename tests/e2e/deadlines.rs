//! How long clients wait (contract 1.8): each asks one member as long as its program does, and is
//! answered in time, also while a leader is lost and another one found.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::house::House;
use crate::http::Http;

/// One kind of call, as a client makes it.
struct Kind {
    name: &'static str,
    /// What its client waits for, in seconds.
    limit_s: u64,
    method: Method,
    path: &'static str,
    body: Option<Value>,
    /// It may say that it is not well, but it must say so in time.
    any_status: bool,
}

fn call(name: &'static str, limit_s: u64, path: &'static str, body: Option<Value>) -> Kind {
    let method = if body.is_some() { Method::POST } else { Method::GET };
    Kind { name, limit_s, method, path, body, any_status: false }
}

/// The rows of the contract's table. `{n}` is another number in each call.
fn kinds() -> Vec<Kind> {
    let node = json!({"host": "127.0.0.1", "port": 9, "node_type": "enhanced_node"});
    let beat = json!({"status": "active", "cpu_usage": 5.0, "memory_usage": 5.0, "load_score": 5.0,
        "active_tasks": 0, "health_status": "healthy"});
    let task = json!({"task_type": "deadline", "input_data": {"n": 1},
        "requirements": {"capabilities": ["nobody has this"]}});
    let mut kinds = vec![
        call("node register", 10, "/api/v1/nodes/node-{n}/register", Some(node)),
        call("node heartbeat", 5, "/api/v1/nodes/beats/heartbeat", Some(beat)),
        call("page: status", 5, "/api/v1/status", None),
        call("page: nodes", 5, "/api/v1/nodes", None),
        call("page: tasks", 5, "/api/v1/tasks", None),
        call("page: metrics", 5, "/api/v1/metrics", None),
        call("page: health", 5, "/api/v1/health", None),
        call("W SDK: submit", 30, "/api/v1/tasks", Some(task)),
        call("N SDK: state", 30, "/api/v1/orchestrator/state", None),
        call("B gateway: bots", 30, "/bots", Some(json!({"name": "b"}))),
        call("B gateway: swarms", 60, "/swarms", Some(json!({"count": 2}))),
        call("B gateway: stats", 10, "/bots/stats", None),
    ];
    let health = call("B gateway: health", 5, "/health", None);
    kinds.push(Kind { any_status: true, ..health });
    kinds
}

/// Calls again and again until it is told to stop. Gives what went wrong, and the slowest answer.
async fn keep_calling(
    kind: Kind,
    base: String,
    stop: watch::Receiver<bool>,
) -> (&'static str, u32, Vec<String>, Duration) {
    let http = Http::new();
    let (mut calls, mut faults, mut slowest) = (0, Vec::new(), Duration::ZERO);
    while !*stop.borrow() {
        let url = format!("{base}{}", kind.path.replace("{n}", &(calls % 50).to_string()));
        let started = Instant::now();
        let limit = Duration::from_secs(kind.limit_s);
        let reply = http.send(kind.method.clone(), &url, kind.body.as_ref(), None, limit).await;
        slowest = slowest.max(started.elapsed());
        let is_good = reply.as_ref().is_ok_and(|reply| kind.any_status || reply.status < 300);
        if !is_good {
            faults.push(format!("{} {calls}: {reply:?}", kind.name));
        }
        calls += 1;
        sleep(Duration::from_millis(100)).await;
    }
    (kind.name, calls, faults, slowest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_1_8_no_client_waits_too_long_while_the_leader_is_lost() {
    let mut house = House::found(3).await;
    let leader = house.leader().await;
    let follower = (leader + 1) % 3;
    let node = json!({"host": "127.0.0.1", "port": 9});
    let path = "/api/v1/nodes/beats/register";
    house.http.write(Method::POST, &house.url(follower, path), &node).await;
    let (stop, stopped) = watch::channel(false);
    let callers: Vec<_> = kinds()
        .into_iter()
        .map(|kind| tokio::spawn(keep_calling(kind, house.url(follower, ""), stopped.clone())))
        .collect();
    sleep(Duration::from_secs(2)).await;
    house.kill(leader);
    sleep(Duration::from_secs(4)).await;
    stop.send(true).unwrap();
    for caller in callers {
        let (name, calls, faults, slowest) = caller.await.unwrap();
        println!("{name}: {calls} calls, the slowest took {slowest:?}");
        assert!(calls >= 5, "{name}: {calls} calls");
        assert!(faults.is_empty(), "{faults:?}");
    }
}
