//! Bots, swarms and workflows on three members, asked through all of them, while leaders die.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use futures::future::join_all;
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::house::House;
use crate::http::{CALL, PATIENCE, Reply, number, text, until};
use crate::process::Process;

async fn ask(house: &House, place: usize, path: &str, body: &Value) -> Reply {
    let url = house.url(place, path);
    house.http.send(Method::POST, &url, Some(body), None, CALL).await.unwrap()
}

async fn make(house: &House, place: usize, path: &str, body: &Value) -> Value {
    let reply = ask(house, place, path, body).await;
    assert_eq!(reply.status, 201, "{path}: {}", reply.body);
    reply.body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_5_3_capacity_is_exact_whoever_is_asked() {
    let house = House::found(3).await;
    let asked = json!({"count": 7000});
    let swarms = join_all((0..12).map(|n| ask(&house, n % 3, "/swarms?bot_ids=false", &asked)));
    let replies = swarms.await;
    let mut counts: BTreeMap<u16, u64> = BTreeMap::new();
    for reply in &replies {
        let bots = if reply.status == 201 { number(&reply.body, "/bot_count") } else { 0 };
        *counts.entry(reply.status).or_default() += bots;
        if reply.status != 201 {
            let said = text(&reply.body, "/error");
            assert_eq!(said, "Cannot create swarm: bot capacity reached", "{}", reply.body);
        }
    }
    assert_eq!(counts, BTreeMap::from([(201, 50_000), (400, 0)]), "7 whole ones and one cut");
    for place in 0..3 {
        let stats = house.http.read(&house.url(place, "/bots/stats")).await;
        assert_eq!(number(&stats, "/active_bots"), 50_000);
        assert_eq!(number(&stats, "/capacity_remaining"), 0);
    }
    let one = ask(&house, 1, "/bots", &json!({})).await;
    assert_eq!(text(&one.body, "/error"), "Maximum bot capacity (50000) reached");
    let id = text(&replies.iter().find(|reply| reply.status == 201).unwrap().body, "/id");
    let given = make(&house, 2, &format!("/swarms/{id}/tasks"), &json!({"type": "t"})).await;
    let swarm = house.http.read(&house.url(0, &format!("/swarms/{id}"))).await;
    assert_eq!(number(&given, "/assignments"), number(&swarm, "/bot_count"));
    let ids: BTreeSet<String> =
        swarm["bot_ids"].as_array().unwrap().iter().map(|id| text(id, "")).collect();
    assert_eq!(ids.len() as u64, number(&swarm, "/bot_count"));
    house.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bots_of_a_swarm_are_served_over_the_loss_of_a_leader() {
    const BOTS: u64 = 40;
    let mut house = House::found(3).await;
    let swarm = text(&make(&house, 0, "/swarms", &json!({"count": BOTS})).await, "/id");
    let urls = house.urls().join(",");
    let exec = "echo=sleep 0.1; cat";
    let words = ["worker", "--swarm", &swarm, "--url", &urls, "--exec", exec, "--capacity", "4"];
    let _worker = Process::start("w", &words, &house.dir().join("w"));
    // It waits at the time when the work comes.
    sleep(Duration::from_millis(500)).await;
    let work = json!({"type": "echo", "data": {"n": 7}});
    make(&house, 1, &format!("/swarms/{swarm}/tasks"), &work).await;
    let path = format!("/swarms/{swarm}?bot_ids=false");
    let done = async |house: &House, least: u64| {
        let running = house.running();
        until("completions", PATIENCE, || async {
            let reply = house.http.get(&house.url(running[0], &path)).await.ok()?;
            let done = reply.body.pointer("/total_tasks_completed")?.as_u64()?;
            (done >= least).then_some(done)
        })
        .await
    };
    done(&house, 4).await;
    let leader = house.leader().await;
    house.kill(leader);
    assert_eq!(done(&house, BOTS).await, BOTS, "each counts once");
    house.start(leader);
    house.ready(leader).await;
    let shown = house.http.read(&house.url(leader, &path)).await;
    let counts = ["total_tasks_completed", "waiting_tasks", "leased_tasks", "failed_tasks"];
    assert_eq!(counts.map(|key| number(&shown, &format!("/{key}"))), [BOTS, 0, 0, 0]);
    let bots = house.http.read(&house.url(leader, &format!("/bots?swarm_id={swarm}"))).await;
    for bot in bots["bots"].as_array().unwrap() {
        let path = format!("/bots/{}/tasks", text(bot, "/id"));
        let tasks = house.http.read(&house.url(leader, &path)).await;
        assert_eq!(tasks["tasks"][0]["result"], json!({"n": 7}), "{tasks}");
    }
    house.agree().await;
}

/// What a service was asked, by the key of the call.
pub(crate) type Calls = Arc<Mutex<BTreeMap<String, u64>>>;

/// A service that takes half a second for everything.
pub(crate) async fn service(calls: Calls) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let analyze =
        async |State(calls): State<Calls>, headers: HeaderMap, Json(body): Json<Value>| {
            let key = headers["idempotency-key"].to_str().unwrap().to_owned();
            *calls.lock().entry(key).or_default() += 1;
            sleep(Duration::from_millis(500)).await;
            Json(json!({"echo": body}))
        };
    let router = Router::new().route("/analyze", post(analyze)).with_state(calls);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_5_4_a_client_waits_for_its_workflow_over_the_loss_of_the_leader() {
    const TASKS: usize = 6;
    let calls = Calls::default();
    let url = service(Arc::clone(&calls)).await;
    let services =
        format!("services:\n  fraud_detection: {url}\n  image_generation: http://127.0.0.1:9\n");
    let mut house = House::found_with(3, &services).await;
    let listed = house.http.read(&house.url(0, "/services")).await;
    assert_eq!(text(&listed, "/services/fraud_detection"), url);
    let leader = house.leader().await;
    let place = (leader + 1) % 3;
    let mut tasks: Vec<Value> =
        (0..TASKS).map(|n| json!({"type": "fraud_detection", "params": {"n": n}})).collect();
    tasks.push(json!({"type": "image_generation"}));
    tasks.push(json!({"type": "compression"}));
    let body = json!({"tasks": tasks, "priority": "high"});
    let (http, at) = (house.http.clone(), house.url(place, "/api/v1/orchestrate"));
    let asking = tokio::spawn(async move {
        http.send(Method::POST, &at, Some(&body), Some("order-7"), PATIENCE).await
    });
    until("two calls", PATIENCE, || async { (calls.lock().len() >= 2).then_some(()) }).await;
    house.kill(leader);
    let reply = asking.await.unwrap().unwrap();
    assert_eq!(reply.status, 200, "{}", reply.body);
    let answer = reply.body;
    let said = ["/status", "/priority"].map(|key| text(&answer, key));
    assert_eq!(said, ["completed", "high"]);
    let results = answer["results"].as_array().unwrap();
    assert_eq!((results.len(), number(&answer, "/tasks_executed")), (TASKS + 2, TASKS as u64 + 2));
    for (n, row) in results[..TASKS].iter().enumerate() {
        assert_eq!(row["result"], json!({"echo": {"n": n}}), "{row}");
    }
    assert!(!text(&results[TASKS], "/result/error").is_empty(), "{}", results[TASKS]);
    assert_eq!(text(&results[TASKS + 1], "/result/error"), "Unknown task type: compression");
    let calls = calls.lock().clone();
    assert_eq!(calls.len(), TASKS, "a call has the same key however often it is made: {calls:?}");
    let repeated: u64 = calls.values().map(|times| times - 1).sum();
    assert!(repeated <= 1, "only what was under way is done again: {calls:?}");
    house.start(leader);
    house.ready(leader).await;
    let url = house.url(leader, "/orchestrate");
    let body = json!({"tasks": tasks, "priority": "high"});
    let again = house.http.send(Method::POST, &url, Some(&body), Some("order-7"), CALL).await;
    assert_eq!(again.unwrap().body, answer, "the same workflow, asked of another member");
    house.agree().await;
}
