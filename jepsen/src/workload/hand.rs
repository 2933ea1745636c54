//! A node that a workload plays itself: registered with room for much, alive by its heartbeats, and
//! served by the workload's own program.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::actor::{insist_write, serve};
use super::{HarnessError, Stage};
use crate::client::{Client, Request};
use crate::history::Kind;

/// Tasks that it takes at once.
const CAPACITY: u64 = 64;
const HEARTBEAT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

/// See the module's description. Cloning shares it.
#[derive(Clone)]
pub(super) struct Hand {
    pub(super) stage: Stage,
    pub(super) client: Client,
    /// Its id, which is also the capability that its tasks ask for.
    node: &'static str,
}

impl Hand {
    pub(super) fn new(stage: &Stage, node: &'static str) -> Self {
        Self { stage: stage.clone(), client: Client::new(), node }
    }

    /// Serves `router`, registers the node there and keeps it alive until the run is over.
    pub(super) async fn begin(
        &self,
        workload: &'static str,
        router: Router,
    ) -> Result<(), HarnessError> {
        let address = serve(&self.stage, workload, router).await?;
        let registered = self.register(address).await;
        registered.map_err(|what| HarnessError { workload, what })?;
        let hand = self.clone();
        tokio::spawn(async move { hand.beat().await });
        Ok(())
    }

    async fn register(&self, address: SocketAddr) -> Result<(), String> {
        let path = format!("/api/v1/nodes/{}/register", self.node);
        let body = json!({"external_url": format!("http://{address}"), "host": address.ip(),
            "port": address.port(), "capacity": CAPACITY, "capabilities": [self.node],
            "instance": address.to_string()});
        insist_write(&self.stage, &self.client, &Request::post(path, body)).await
    }

    async fn beat(&self) {
        let path = format!("/api/v1/nodes/{}/heartbeat", self.node);
        let request = Request::post(path, json!({}));
        while !self.stage.over.is_cancelled() {
            let members = self.stage.members.all();
            join_all(members.iter().map(|(_, url)| self.client.send(url, &request))).await;
            sleep(HEARTBEAT).await;
        }
    }

    /// Reports on a task until some member has decided about it.
    pub(super) async fn report(&self, task: &str, body: Value) {
        let request = Request::post(format!("/api/v1/tasks/{task}/result"), body);
        while !self.stage.over.is_cancelled() {
            for (_, url) in self.stage.members.all() {
                let reply = self.client.send(&url, &request).await;
                if reply.kind == Kind::Ok || matches!(reply.status, 400..429) {
                    return;
                }
            }
            sleep(PAUSE).await;
        }
    }
}
