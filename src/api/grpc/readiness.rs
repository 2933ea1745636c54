//! `grpc.health.v1.Health`: the empty name is whether the process serves at all, which is what a
//! liveness probe asks; the services are as ready as `/readyz` says, which is what a readiness probe
//! asks by one of their names.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::doors::{Caller, Doors};

/// How often readiness is looked at.
const EVERY: Duration = Duration::from_secs(1);
const SERVICES: [&str; 2] = ["orchestrator.OrchestratorService", "orchestrator.AgentService"];

/// Keeps the statuses true until `stop`, and says then that nothing is served any more.
pub(super) async fn watch(doors: Doors, health: HealthReporter, stop: CancellationToken) {
    let caller = Caller::default();
    let mut told = None;
    loop {
        let reply = doors.get(&caller, "/readyz").await;
        let ready = reply.is_ok_and(|reply| reply.status.is_success());
        if told != Some(ready) {
            let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
            for service in SERVICES {
                health.set_service_status(service, status).await;
            }
            told = Some(ready);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    for service in SERVICES.into_iter().chain([""]) {
        health.set_service_status(service, ServingStatus::NotServing).await;
    }
}
