//! A worker's link to the cluster: it registers, beats, registers again when it was forgotten, and
//! says farewell.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sysinfo::System;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{Farewell, Shared};
use crate::client::{Call, ClientError, segment};
use crate::model::LISTED_TYPES_ONLY;

const REGISTER_DEADLINE: Duration = Duration::from_secs(10);
const HEARTBEAT_DEADLINE: Duration = Duration::from_secs(5);
const FAREWELL_DEADLINE: Duration = Duration::from_secs(3);
/// The scheduler gives no work above a load score of 0.9 (contract 2.8). Capacity is what limits
/// this worker, so that its score only balances: it ends below.
const LOAD_SCORE_MAX: f64 = 0.85;

impl Shared {
    /// The program for a task type.
    pub(super) fn program(&self, task_type: &str) -> Option<&str> {
        let programs = &self.options.programs;
        programs.get(task_type).or_else(|| programs.get("*")).map(String::as_str)
    }

    /// Task types and declared capabilities.
    pub(super) fn capabilities(&self) -> Vec<String> {
        let programs = &self.options.programs;
        let types = programs.keys().filter(|name| *name != "*").cloned();
        // Without a program for all others it could only refuse them.
        let only = (!programs.contains_key("*")).then(|| LISTED_TYPES_ONLY.to_owned());
        let all = types.chain(self.options.capabilities.clone()).chain(only);
        let mut all: Vec<String> = all.collect();
        all.sort();
        all.dedup();
        all
    }

    /// The word for its state that the cluster understands: a degraded node keeps its work and
    /// gets no more.
    pub(super) fn word(&self) -> &'static str {
        if self.draining.is_cancelled() { "degraded" } else { "active" }
    }

    /// What it says of itself at registration, and to whoever finds it.
    pub(super) fn description(&self) -> Value {
        let capabilities = self.capabilities();
        json!({
            "node_id": self.node_id,
            "host": self.host,
            "port": self.port,
            "node_type": "worker",
            "capabilities": capabilities,
            "capacity": self.options.concurrency,
            "version": env!("CARGO_PKG_VERSION"),
            "instance": self.instance,
            "agents_count": 1,
            "agents": [{
                "agent_id": self.node_id,
                "agent_type": "quorate_worker",
                "status": "online",
                "capabilities": capabilities,
            }],
        })
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/v1/nodes/{}{rest}", segment(&self.node_id))
    }
}

/// Registers, for as long as it takes; fails only when the cluster decides against it.
pub(super) async fn register(shared: &Shared) -> Result<(), ClientError> {
    let mut pause = Duration::from_millis(200);
    loop {
        let call = Call::post(shared.path("/register"), &shared.description());
        match shared.client.call(call.deadline(REGISTER_DEADLINE)).await {
            Ok(_) => {
                tracing::info!(node_id = shared.node_id, "registered");
                return Ok(());
            }
            Err(error @ (ClientError::Unavailable { .. } | ClientError::Unknown { .. })) => {
                tracing::warn!(%error, "not registered yet");
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Beats until `closed`; once more at once when the drain begins.
pub(super) async fn heartbeats(shared: Arc<Shared>, closed: CancellationToken) {
    let mut system = System::new();
    let mut ticks = tokio::time::interval(shared.options.heartbeat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told_of_drain = false;
    loop {
        tokio::select! {
            biased;
            () = closed.cancelled() => return,
            () = shared.draining.cancelled(), if !told_of_drain => told_of_drain = true,
            _ = ticks.tick() => {}
        }
        tokio::select! {
            biased;
            () = closed.cancelled() => return,
            () = beat(&shared, &mut system) => {}
        }
    }
}

async fn beat(shared: &Shared, system: &mut System) {
    system.refresh_cpu_usage();
    system.refresh_memory();
    let call = Call::post(shared.path("/heartbeat"), &beat_body(shared, system));
    let Err(error) = shared.client.call(call.deadline(HEARTBEAT_DEADLINE)).await else { return };
    // The contract answers 400 to a heartbeat of an unknown node, an honest API 404.
    if error.problem().is_some_and(|problem| matches!(problem.status, 400 | 404))
        && !shared.draining.is_cancelled()
    {
        tracing::warn!(%error, "the cluster does not know this node; registering again");
        let call = Call::post(shared.path("/register"), &shared.description());
        if let Err(error) = shared.client.call(call.deadline(REGISTER_DEADLINE)).await {
            tracing::warn!(%error, "not registered; the next heartbeat tries again");
        }
        return;
    }
    tracing::warn!(%error, "heartbeat lost");
}

fn beat_body(shared: &Shared, system: &System) -> Value {
    let running = shared.book.running();
    let cpu = f64::from(system.global_cpu_usage());
    let memory = match system.total_memory() {
        0 => 0.0,
        total => system.used_memory() as f64 / total as f64 * 100.0,
    };
    let busy = running as f64 / f64::from(shared.options.concurrency);
    // Weights of the contract (2.8). `tasks_running` tells the reader that the scale is 0 to 1.
    let score = 0.4 * cpu / 100.0 + 0.3 * memory / 100.0 + 0.3 * busy.min(1.0);
    json!({
        "node_id": shared.node_id,
        "status": shared.word(),
        "cpu_usage": cpu,
        "memory_usage": memory,
        "load_score": score.min(LOAD_SCORE_MAX),
        "tasks_running": running,
        "agents_count": 1,
        "instance": shared.instance,
        "uptime": shared.started.elapsed().as_secs_f64(),
    })
}

/// Says that this worker is gone, so that nobody waits for its heartbeats to stop.
pub(super) async fn farewell(shared: &Shared) {
    let removed = match shared.options.farewell {
        Farewell::Remove => Some(tell(shared, Call::delete(shared.path(""))).await),
        Farewell::Offline => None,
    };
    // A key of the role `node` takes nobody out, but may say of its node that it is away.
    let forbidden = |error: &ClientError| error.problem().is_some_and(|p| p.status == 403);
    let told = match removed {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) if !forbidden(&error) => Err(error),
        Some(Err(_)) | None => {
            let body = json!({ "status": "offline" });
            tell(shared, Call::put(shared.path("/status"), &body)).await
        }
    };
    match told {
        Ok(()) => tracing::info!(node_id = shared.node_id, "left"),
        Err(error) => tracing::warn!(%error, "left without telling; the heartbeats will be missed"),
    }
}

async fn tell(shared: &Shared, call: Call) -> Result<(), ClientError> {
    shared.client.call(call.deadline(FAREWELL_DEADLINE)).await.map(drop)
}
