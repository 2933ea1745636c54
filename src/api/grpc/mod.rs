//! The gRPC doors (contract 4.9): `OrchestratorService`, `AgentService.RegisterAgent` and
//! `grpc.health.v1.Health`.
//!
//! They decide nothing and know no command: every call becomes a request to the router that serves
//! HTTP, so that bodies are read, callers checked, limits kept and answers worded in one place. Here
//! is only what gRPC says differently: its defaults, its messages, its status codes.

mod agents;
mod doors;
mod orchestrator;
mod readiness;
mod submission;
mod updates;
mod view;

use std::error::Error;
use std::time::Duration;

use axum::Router;
use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::App;
use crate::agent::proto::agent_service_server::AgentServiceServer;
use crate::agent::proto::orchestrator_service_server::OrchestratorServiceServer;
use agents::Agents;
use doors::Doors;
use orchestrator::Orchestrator;

/// Calls under way on one connection; those beyond wait.
const STREAMS_MAX: u32 = 1024;
/// The largest answer: all of a task's output.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A client that is gone is noticed after so long, and its streams end.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves gRPC on the connections of `incoming` until `stop` is cancelled and the calls under way
/// have ended. `router` is the one that HTTP listeners serve.
///
/// # Errors
/// When the listener fails.
pub async fn serve<S, IO, E>(
    app: App,
    router: Router,
    incoming: S,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error>
where
    S: Stream<Item = Result<IO, E>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let (health, health_service) = tonic_health::server::health_reporter();
    let doors = Doors::new(router);
    let watched = stop.child_token();
    let _ends_the_watch = watched.clone().drop_guard();
    tokio::spawn(readiness::watch(doors.clone(), health, watched));
    let body_bytes_max = app.options().body_bytes_max;
    let orchestrator = OrchestratorServiceServer::new(Orchestrator::new(app, doors.clone()))
        .max_decoding_message_size(body_bytes_max)
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    let agents = AgentServiceServer::new(Agents::new(doors));
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .add_service(health_service)
        .add_service(orchestrator)
        .add_service(agents)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}
