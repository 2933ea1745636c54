//! The probe node: takes the drill's tasks, answers each at once with its result, and writes down
//! what arrived when.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::ProbeNode;
use super::run::Error;
use super::samples::{Arrival, Samples};
use crate::client::{Call, Client, ClientError};

/// From one heartbeat to the next.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Executions it takes at once: the dispatcher never waits for it.
const CAPACITY: u32 = 1000;

/// A node that is registered.
pub(super) struct Node {
    name: String,
    client: Client,
    tasks: [AbortHandle; 2],
}

type Shared = (Arc<Mutex<Samples>>, Instant);

impl Node {
    /// Listens and registers, able to do `capability` alone.
    pub(super) async fn start(
        place: &ProbeNode,
        name: &str,
        client: Client,
        samples: Arc<Mutex<Samples>>,
        start: Instant,
    ) -> Result<Self, Error> {
        let listener = TcpListener::bind(place.listen).await.map_err(Error::Listen)?;
        let bound = listener.local_addr().map_err(Error::Listen)?;
        let advertised = place.advertise.clone().unwrap_or_else(|| bound.to_string());
        let (host, port) = advertised.rsplit_once(':').unwrap_or((&advertised, ""));
        let port = port.parse().unwrap_or_else(|_| bound.port());
        let router = Router::new()
            .route("/api/v4/tasks/execute", post(execute))
            .with_state((samples, start));
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the probe node's listener ended");
            }
        });
        let body = json!({
            "host": host, "port": port, "capabilities": [name], "capacity": CAPACITY,
            "node_type": "drill",
        });
        let path = format!("/api/v1/nodes/{name}/register");
        let registered = client.call(Call::post(path, &body)).await;
        let beating = tokio::spawn(heartbeats(client.clone(), name.to_owned()));
        let tasks = [serving.abort_handle(), beating.abort_handle()];
        // Made before the answer is looked at, so that its tasks end on every way out.
        let node = Self { name: name.to_owned(), client, tasks };
        registered?;
        Ok(node)
    }

    /// Takes it out of the cluster again.
    pub(super) async fn leave(&self) -> Result<(), ClientError> {
        self.client.call(Call::delete(format!("/api/v1/nodes/{}", self.name))).await.map(drop)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn heartbeats(client: Client, name: String) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let call = Call::post(format!("/api/v1/nodes/{name}/heartbeat"), &json!({}));
        if let Err(error) = client.call(call.deadline(HEARTBEAT)).await {
            tracing::debug!(%error, "a heartbeat of the probe node was lost");
        }
    }
}

async fn execute(State((samples, start)): State<Shared>, Json(body): Json<Value>) -> Json<Value> {
    let at = start.elapsed();
    let task_id = body.get("task_id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let attempt = body.get("attempt").and_then(Value::as_u64).unwrap_or_default();
    samples.lock().arrivals.push(Arrival { task_id: task_id.clone(), attempt, at });
    Json(json!({ "success": true, "task_id": task_id, "result": { "attempt": attempt } }))
}
