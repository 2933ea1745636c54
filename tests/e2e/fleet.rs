//! Nodes that write down what they are told to execute. Like the reference worker, each runs an
//! attempt once and answers a repeated dispatch with what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::house::House;
use crate::http::{number, text};

/// What all nodes saw.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Which nodes ran an attempt of a task.
    pub(crate) runs: BTreeMap<(String, u64), Vec<String>>,
    /// Dispatches of an attempt to a node that had it already.
    pub(crate) repeats: u64,
}

impl Ledger {
    /// Attempts that ran on more than one node.
    pub(crate) fn doubled(&self) -> Vec<(&(String, u64), &Vec<String>)> {
        self.runs.iter().filter(|(_, nodes)| nodes.len() > 1).collect()
    }

    /// Tasks of which at least one attempt ran.
    pub(crate) fn tasks(&self) -> BTreeSet<&str> {
        self.runs.keys().map(|(task, _)| task.as_str()).collect()
    }
}

/// The nodes; they end with the test's runtime.
pub(crate) struct Fleet {
    pub(crate) ledger: Arc<Mutex<Ledger>>,
}

impl Fleet {
    /// Starts and registers `count` nodes that execute `task_type`.
    pub(crate) async fn start(house: &House, count: usize, task_type: &str) -> Self {
        let ledger: Arc<Mutex<Ledger>> = Arc::default();
        for number in 0..count {
            let name = format!("node-{number}");
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let router = Router::new()
                .route("/api/v4/tasks/execute", post(execute))
                .with_state((name.clone(), Arc::clone(&ledger)));
            tokio::spawn(async move { axum::serve(listener, router).await });
            let body = json!({
                "host": "127.0.0.1", "port": port, "capabilities": [task_type], "capacity": 64,
            });
            let place = house.running()[number % house.running().len()];
            let url = house.url(place, &format!("/api/v1/nodes/{name}/register"));
            house.http.write(Method::POST, &url, &body).await;
        }
        Self { ledger }
    }
}

async fn execute(
    State((name, ledger)): State<(String, Arc<Mutex<Ledger>>)>,
    Json(body): Json<Value>,
) -> Json<Value> {
    let key = (text(&body, "/task_id"), number(&body, "/attempt"));
    let mut ledger = ledger.lock();
    let nodes = ledger.runs.entry(key.clone()).or_default();
    if nodes.contains(&name) {
        ledger.repeats += 1;
    } else {
        nodes.push(name);
    }
    Json(json!({ "success": true, "task_id": key.0, "result": { "attempt": key.1 } }))
}
