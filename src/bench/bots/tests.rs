//! The scenario from end to end, against a server that keeps the contract of swarms.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::bench::args::MembersArgs;
use crate::bench::drive::tests::{load, serve};

/// A cluster with one swarm at a time.
#[derive(Default)]
struct Cluster {
    bots: u64,
    waiting: u64,
    completed: u64,
    made: u64,
    removed: u64,
    /// Completions that count for nothing.
    forgets: u64,
}

type Shared = Arc<Mutex<Cluster>>;

fn shown(bots: u64) -> Json<Value> {
    let ids: Vec<String> = (0..bots).map(|bot| format!("b{bot}")).collect();
    Json(json!({"id": "s", "bot_ids": ids}))
}

async fn make(State(all): State<Shared>, Json(body): Json<Value>) -> Json<Value> {
    let mut all = all.lock();
    (all.bots, all.made) = (body["count"].as_u64().unwrap().min(20), all.made + 1);
    shown(all.bots)
}

async fn show(State(all): State<Shared>) -> Json<Value> {
    shown(all.lock().bots)
}

async fn remove(State(all): State<Shared>) -> Json<Value> {
    let mut all = all.lock();
    (all.bots, all.waiting, all.removed) = (0, 0, all.removed + 1);
    Json(json!({}))
}

async fn assign(State(all): State<Shared>) -> Json<Value> {
    let mut all = all.lock();
    all.waiting += all.bots;
    Json(json!({"assignments": all.bots}))
}

async fn lease(State(all): State<Shared>, Json(body): Json<Value>) -> Json<Value> {
    let mut all = all.lock();
    let count = all.waiting.min(body["max"].as_u64().unwrap());
    all.waiting -= count;
    let held = |number| json!({"task_id": format!("t{number}"), "bot_id": "b", "attempt": 1});
    Json(json!({"assignments": (0..count).map(held).collect::<Vec<_>>()}))
}

async fn complete(State(all): State<Shared>, Json(body): Json<Value>) -> Json<Value> {
    let items = body["items"].as_array().unwrap();
    assert!(items.iter().all(|item| item["attempt"] == 1 && item["result"]["found"] == 3));
    all.lock().completed += items.len() as u64;
    Json(json!({"verdicts": vec!["accepted"; items.len()]}))
}

async fn complete_one(
    State(all): State<Shared>,
    Path((bot, task)): Path<(String, String)>,
    Json(body): Json<Value>,
) -> StatusCode {
    assert!(bot == "b" && task.starts_with('t') && body["attempt"] == 1);
    let mut all = all.lock();
    if all.forgets > 0 {
        all.forgets -= 1;
    } else {
        all.completed += 1;
    }
    StatusCode::OK
}

async fn stats(State(all): State<Shared>) -> Json<Value> {
    Json(json!({"tasks_executed": all.lock().completed}))
}

async fn measured(cluster: Cluster, bots: u32) -> (anyhow::Result<Report>, Shared) {
    let all = Arc::new(Mutex::new(cluster));
    let router = Router::new()
        .route("/swarms", post(make))
        .route("/swarms/{id}", get(show).delete(remove))
        .route("/swarms/{id}/tasks", post(assign))
        .route("/swarms/{id}/tasks/lease", post(lease))
        .route("/assignments/complete", post(complete))
        .route("/bots/stats", get(stats))
        .route("/bots/{bot}/tasks/{task}/complete", post(complete_one))
        .with_state(Arc::clone(&all));
    let members =
        MembersArgs { pid_file: Vec::new(), restart: None, process_name: "quorate".to_owned() };
    let args = BotsArgs { bots, rounds: 3, waves: 2, workers: 2, batch: 3, reads: 5, members };
    let report = run(&load(vec![serve(router).await], 1), &args).await;
    (report, all)
}

#[tokio::test]
async fn swarms_are_made_given_work_shown_and_removed() {
    let (report, all) = measured(Cluster::default(), 10).await;
    let report = report.unwrap();
    assert_eq!((report.ok, report.errors), (10, 0), "one by one");
    let details = &report.details;
    assert_eq!(details["in_batches"]["completions"], 20);
    assert_eq!(details["in_batches"]["complete"]["count"], 7, "batches of at most three");
    assert_eq!(details["make"]["total"]["count"], 3);
    assert_eq!(details["assign"]["count"], 5);
    assert_eq!(details["show"]["times"]["first_byte"]["count"], 3);
    assert_eq!(details["stats_with_bots"]["count"], 5);
    let all = all.lock();
    assert_eq!((all.made, all.removed, all.completed), (3, 3, 30));
}

#[tokio::test]
async fn too_little_room_and_completions_that_do_not_count_are_errors() {
    let (report, _) = measured(Cluster::default(), 21).await;
    assert!(report.unwrap_err().to_string().contains("no room"));
    let (report, _) = measured(Cluster { forgets: 1, ..Cluster::default() }, 10).await;
    assert!(report.unwrap_err().to_string().contains("due"));
}

#[tokio::test]
async fn the_first_byte_and_the_whole_answer_are_timed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string().parse().unwrap();
    let pause = Duration::from_millis(30);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await.unwrap();
        tokio::time::sleep(pause).await;
        stream.write_all(b"{}").await.unwrap();
    });
    let mut line = Line::to(&load(vec![target], 1), 0);
    let timed = line.call("GET", "/", "").await.unwrap();
    assert!(timed.total >= timed.first + pause / 2, "{:?} {:?}", timed.first, timed.total);
    assert_eq!(timed.bytes, 2);
}
