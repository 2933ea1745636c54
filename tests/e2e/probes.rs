//! Nodes that nobody registered and that send no heartbeats: found, kept, held and chosen by what
//! they answer (contract 2.9, 6 rows 1 to 3).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::house::House;
use crate::http::{PATIENCE, text, until};

/// A node without heartbeats.
struct Stub {
    name: &'static str,
    delay: Duration,
    healthy: AtomicBool,
    probes: AtomicU32,
    executed: AtomicU32,
}

impl Stub {
    /// Serves on a free port; gives its base URL.
    async fn serve(name: &'static str, delay: Duration) -> (Arc<Self>, String) {
        let stub = Arc::new(Self {
            name,
            delay,
            healthy: AtomicBool::new(true),
            probes: AtomicU32::new(0),
            executed: AtomicU32::new(0),
        });
        let router = Router::new()
            .route("/api/health", get(health))
            .route("/api/v4/system/status", get(system_status))
            .route("/api/v4/tasks/execute", post(execute))
            .with_state(Arc::clone(&stub));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (stub, url)
    }

    fn executed(&self) -> u32 {
        self.executed.load(Ordering::Relaxed)
    }
}

async fn health(State(stub): State<Arc<Stub>>) -> (StatusCode, Json<Value>) {
    stub.probes.fetch_add(1, Ordering::Relaxed);
    sleep(stub.delay).await;
    if stub.healthy.load(Ordering::Relaxed) {
        return (StatusCode::OK, Json(json!({"status": "healthy"})));
    }
    (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({"status": "error"})))
}

async fn system_status(State(stub): State<Arc<Stub>>) -> Json<Value> {
    Json(json!({
        "agent_id": stub.name, "agent_type": "worker", "status": "active",
        "capabilities": ["stubbing"], "system_stats": {"cpu_percent": 5.0, "memory_percent": 20.0},
    }))
}

async fn execute(State(stub): State<Arc<Stub>>) -> Json<Value> {
    stub.executed.fetch_add(1, Ordering::Relaxed);
    Json(json!({"success": true, "result": {"by": stub.name}}))
}

/// Has so many tasks done; all must end well.
async fn work(house: &House, place: usize, name: &str, count: u32) {
    for n in 0..count {
        let task_id = format!("{name}-{n}");
        let task = json!({
            "task_id": task_id, "task_type": "stub_work",
            "requirements": {"capabilities": ["stubbing"]},
        });
        house.submit(place, &task).await;
        let task = house.ended(place, &task_id).await;
        assert_eq!(text(&task, "/status"), "completed", "{task}");
    }
}

async fn status(house: &House, place: usize, node: &str) -> Option<String> {
    let url = house.url(place, &format!("/api/v1/nodes/{node}"));
    let reply = house.http.get(&url).await.ok()?;
    (reply.status == 200).then(|| text(&reply.body, "/node/status"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_found_kept_alive_held_and_chosen_by_their_answers() {
    let house = House::found(3).await;
    let follower = (house.leader().await + 1) % 3;
    let (near, near_url) = Stub::serve("stub-near", Duration::ZERO).await;
    let (far, far_url) = Stub::serve("stub-far", Duration::from_millis(250)).await;
    let settings = json!({
        "network": {
            "discovery_endpoints": [far_url, near_url], "node_timeout": 3,
            "load_balance_algorithm": "latency_optimized",
        },
        "performance": {"health_checks": {"interval": 1, "timeout": 1, "retries": 2}},
    });
    house.http.write(Method::PUT, &house.url(follower, "/api/v1/config"), &settings).await;
    for node in ["stub-near", "stub-far"] {
        until(&format!("{node} is found"), PATIENCE, || async {
            status(&house, follower, node).await.filter(|status| status == "active")
        })
        .await;
    }
    let measured = || async {
        let probed = |stub: &Stub| stub.probes.load(Ordering::Relaxed) >= 3;
        (probed(&near) && probed(&far)).then_some(())
    };
    until("both are measured", PATIENCE, measured).await;
    // Far beyond the node time-out: probes alone keep them.
    for _ in 0..20 {
        sleep(Duration::from_millis(250)).await;
        for node in ["stub-near", "stub-far"] {
            assert_eq!(status(&house, follower, node).await.as_deref(), Some("active"), "{node}");
        }
    }
    work(&house, follower, "near", 5).await;
    assert_eq!((near.executed(), far.executed()), (5, 0), "the nearest is chosen");

    // It answers calls, but says that it is not well: after two such answers it gets nothing.
    near.healthy.store(false, Ordering::Relaxed);
    let before = near.probes.load(Ordering::Relaxed);
    let noticed = || async { (near.probes.load(Ordering::Relaxed) >= before + 3).then_some(()) };
    until("three probes fail", PATIENCE, noticed).await;
    work(&house, follower, "far", 4).await;
    assert_eq!((near.executed(), far.executed()), (5, 4), "the nearest is left alone");
    // As long as with a node that sends no heartbeats any more.
    until("it is offline", PATIENCE, || async {
        status(&house, follower, "stub-near").await.filter(|status| status == "offline")
    })
    .await;
    near.healthy.store(true, Ordering::Relaxed);
    until("it is back", PATIENCE, || async {
        status(&house, follower, "stub-near").await.filter(|status| status == "active")
    })
    .await;
    work(&house, follower, "again", 3).await;
    assert_eq!((near.executed(), far.executed()), (8, 4), "and chosen again");
}
