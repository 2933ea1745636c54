//! The agent program: serves one type, registers, drains, ends.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::builtin;
use super::desk::Desk;
use super::join::{self, Members, NotRegistered};
use super::proto::AgentRegistration;
use super::proto::agent_service_server::AgentServiceServer;
use super::runner::{Engine, Outside, Runner};
use crate::clock;

/// Time between registrations (contract 4.7).
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The pause after a registration that no member took.
const PAUSE: Duration = Duration::from_secs(1);
/// So many of them are one line of the log.
const WARN_EVERY: u32 = 30;
/// The largest step that is taken: a few outputs of others, or the inputs of a task.
const STEP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Steps under way on one connection; those beyond wait.
const STREAMS_MAX: u32 = 1024;
/// A caller that is gone is noticed after so long, and its steps are stopped.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// What a stopped step may take to end, and connections to close.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The most steps that can be allowed at once.
const CONCURRENCY_MAX: usize = 10_000;

/// How an agent runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// What kind of steps it does.
    pub agent_type: String,
    /// Its name for itself; `None` draws `agent-<type>-<8 hex>` (contract 4.7).
    pub agent_id: Option<String>,
    /// Members: `host:port` of their gRPC listeners, or `http://host:port` of their REST API.
    pub join: Vec<String>,
    /// Where steps are taken.
    pub listen: SocketAddr,
    /// `host:port` members reach it at; `None` for the address this machine has on the way to them.
    pub advertise: Option<String>,
    /// The most steps at once; `None` for what the type has by default (contract 4.4).
    pub max_concurrent_tasks: Option<usize>,
    /// What else it can do.
    pub capabilities: Vec<String>,
    /// Who does the work.
    pub engine: Engine,
    /// Whom it reaches by itself.
    pub outside: Outside,
    /// Shown to members that ask for one.
    pub api_key: Option<String>,
    /// How long a leaving agent lets its steps finish.
    pub drain_timeout: Duration,
}

/// Why an agent could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options make no sense.
    #[error("{0}")]
    Options(String),
    /// The listener.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// As asked for.
        addr: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The cluster decided against the registration.
    #[error("the cluster refused the registration: {0}")]
    Register(String),
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    agent_id: String,
    members: Members,
    registration: AgentRegistration,
    listener: TcpListener,
    desk: Desk,
    draining: CancellationToken,
    abort: CancellationToken,
    drain_timeout: Duration,
}

impl Agent {
    /// Opens the listener. Nothing is registered yet.
    ///
    /// # Errors
    /// [`Error::Options`] and [`Error::Listen`].
    pub async fn bind(options: Options) -> Result<Self, Error> {
        let agent_type = options.agent_type.trim().to_owned();
        if agent_type.is_empty() {
            return Err(Error::Options("an agent needs a type".to_owned()));
        }
        let fallback = builtin::concurrency(&agent_type) as usize;
        let concurrency = options.max_concurrent_tasks.unwrap_or(fallback);
        if !(1..=CONCURRENCY_MAX).contains(&concurrency) {
            let what = format!("max concurrent tasks is between 1 and {CONCURRENCY_MAX}");
            return Err(Error::Options(what));
        }
        let drawn = || format!("agent-{agent_type}-{:08x}", clock::random() as u32);
        let agent_id = options.agent_id.clone().unwrap_or_else(drawn);
        let runner = Runner::new(&agent_id, &agent_type, &options.engine, &options.outside);
        let runner = runner.map_err(Error::Options)?;
        let members =
            Members::new(&options.join, options.api_key.as_deref()).map_err(Error::Options)?;
        let addr = options.listen;
        let listening = async { TcpListener::bind(addr).await.map(|l| (l.local_addr(), l)) };
        let failed = |source| Error::Listen { addr, source };
        let (bound, listener) = listening.await.map_err(failed)?;
        let bound = bound.map_err(failed)?;
        let endpoint = endpoint(&options, &members, bound, &agent_id).await?;
        let mut capabilities = vec![agent_type.clone()];
        capabilities.extend(options.capabilities.iter().cloned());
        let (draining, abort) = (CancellationToken::new(), CancellationToken::new());
        let desk =
            Desk::new(&agent_id, &agent_type, runner, concurrency, draining.clone(), abort.clone());
        let registration =
            join::registration(&agent_id, &agent_type, &endpoint, &capabilities, concurrency);
        let drain_timeout = options.drain_timeout;
        Ok(Self { agent_id, members, registration, listener, desk, draining, abort, drain_timeout })
    }

    /// Its name.
    #[must_use]
    pub fn agent_id(&self) -> &str {
        &self.agent_id
    }

    /// `host:port` members reach it at.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.registration.endpoint
    }

    /// Makes the agent leave: cancel it once to drain.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Makes a leaving agent stop what it runs instead of waiting.
    #[must_use]
    pub fn abort_token(&self) -> CancellationToken {
        self.abort.clone()
    }

    /// Serves and registers until [`Agent::stop_token`] is cancelled and everything is drained.
    ///
    /// # Errors
    /// [`Error::Register`] when the cluster refuses the first registration.
    pub async fn run(self) -> Result<(), Error> {
        let Self { members, registration, listener, desk, draining, abort, drain_timeout, .. } =
            self;
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<AgentServiceServer<Desk>>().await;
        let service = AgentServiceServer::new(desk.clone())
            .max_decoding_message_size(STEP_BYTES_MAX)
            .max_encoding_message_size(STEP_BYTES_MAX);
        let closed = CancellationToken::new();
        let until_closed = closed.clone();
        let mut server = tokio::spawn(async move {
            let served = Server::builder()
                .max_concurrent_streams(STREAMS_MAX)
                .http2_keepalive_interval(Some(PING_EVERY))
                .http2_keepalive_timeout(Some(PING_TIMEOUT))
                .add_service(health_service)
                .add_service(service)
                .serve_with_incoming_shutdown(
                    TcpIncoming::from(listener).with_nodelay(Some(true)),
                    until_closed.cancelled_owned(),
                )
                .await;
            if let Err(error) = served {
                tracing::error!(%error, "the listener failed");
            }
        });
        let result = heartbeats(members, registration, &draining).await;
        draining.cancel();
        health.set_not_serving::<AgentServiceServer<Desk>>().await;
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        drain(&desk, &abort, drain_timeout).await;
        closed.cancel();
        // Kept connections of callers may never end by themselves.
        if tokio::time::timeout(STOP_TIMEOUT, &mut server).await.is_err() {
            server.abort();
            tracing::debug!("connections were cut");
        }
        result
    }
}

/// Registers, and again every ten seconds, until the agent leaves. A refusal after the first
/// registration is not believed for ever: the operator may have changed something meanwhile.
async fn heartbeats(
    mut members: Members,
    mut registration: AgentRegistration,
    draining: &CancellationToken,
) -> Result<(), Error> {
    let (mut registered, mut unheard) = (false, 0u32);
    loop {
        let answer = tokio::select! {
            biased;
            () = draining.cancelled() => break,
            answer = members.register(&registration) => answer,
        };
        let pause = match answer {
            Ok(()) => {
                if !registered {
                    tracing::info!(agent_id = registration.agent_id, "registered");
                }
                (registered, unheard) = (true, 0);
                HEARTBEAT
            }
            Err(NotRegistered::Refused(why)) if !registered => return Err(Error::Register(why)),
            Err(NotRegistered::Refused(why)) => {
                tracing::warn!(why, "the cluster refuses this agent");
                HEARTBEAT
            }
            Err(NotRegistered::Unreachable(why)) => {
                // Once, and then now and again: an outage may be long.
                if unheard.is_multiple_of(WARN_EVERY) {
                    tracing::warn!(why, "no member registers this agent; trying again");
                }
                unheard = unheard.wrapping_add(1);
                PAUSE
            }
        };
        tokio::select! {
            biased;
            () = draining.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    if registered {
        // There is no RPC to leave. Who reads this sends no more steps; for others the silence of
        // this agent says the same half a minute later.
        registration.metadata.insert("state".to_owned(), "leaving".to_owned());
        let told = tokio::time::timeout(STOP_TIMEOUT, members.register(&registration)).await;
        tracing::info!(told = matches!(told, Ok(Ok(()))), "leaving");
    }
    Ok(())
}

/// Lets steps finish; past the limit, stops them.
async fn drain(desk: &Desk, abort: &CancellationToken, limit: Duration) {
    let tasks = desk.tasks();
    tasks.close();
    tokio::select! {
        biased;
        () = tasks.wait() => return,
        () = abort.cancelled() => {}
        () = tokio::time::sleep(limit) => {}
    }
    tracing::warn!(active = desk.active(), "stopping what still runs");
    abort.cancel();
    if tokio::time::timeout(STOP_TIMEOUT, tasks.wait()).await.is_err() {
        tracing::warn!("some steps did not end");
    }
}

async fn endpoint(
    options: &Options,
    members: &Members,
    bound: SocketAddr,
    agent_id: &str,
) -> Result<String, Error> {
    if let Some(text) = &options.advertise {
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let port = if port.is_empty() { Ok(bound.port()) } else { port.parse() };
        return match port {
            Ok(port) if !host.is_empty() => Ok(format!("{host}:{port}")),
            _ => Err(Error::Options(format!("`{text}` is not host:port"))),
        };
    }
    if !bound.ip().is_unspecified() {
        return Ok(bound.to_string());
    }
    // The contract's default is a name that only works where names of agents are names of machines.
    Ok(match members.own_address().await {
        Some(address) => SocketAddr::new(address, bound.port()).to_string(),
        None => format!("{agent_id}:{}", bound.port()),
    })
}
