//! Calls to agents, over gRPC.
//!
//! Behind a small trait, because a simulation has no sockets: there, agents are functions.
//!
//! The interface has no RPC that cancels. Whoever drops the call resets its stream, which the agent
//! sees as the end of its handler; so dropping the future is the cancel, and
//! [`AgentCaller::cancel`] does that for callers who have given the future away.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::proto::AgentTaskRequest;
use super::proto::agent_service_client::AgentServiceClient;
use super::task::{AgentDone, AgentFailure, AgentTask, FailureCode, OUTPUT_BYTES_MAX};
use super::wire;

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection over which nothing comes is asked whether it still lives.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections kept; the one that was used longest ago goes first.
const CHANNELS_MAX: usize = 1024;
/// An output and what is around it.
const MESSAGE_BYTES_MAX: usize = OUTPUT_BYTES_MAX + 64 * 1024;

/// Lets agents work.
pub trait AgentCaller: Send + Sync + 'static {
    /// Sends `task` to the agent at `endpoint` (`host:port`) and waits for its output, for at most
    /// [`AgentTask::time_limit`]. Dropping the future cancels.
    fn execute(
        &self,
        endpoint: &str,
        task: AgentTask,
    ) -> BoxFuture<'static, Result<AgentDone, AgentFailure>>;

    /// Cancels the call of that `agent_task_id`, which then ends with `CANCELLED`. `false` when
    /// there is none.
    fn cancel(&self, agent_task_id: &str) -> bool;
}

/// The real one: keeps one HTTP/2 connection per agent. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct GrpcCaller(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    channels: Mutex<HashMap<String, Kept>>,
    calls: Mutex<HashMap<String, (u64, CancellationToken)>>,
    serial: AtomicU64,
}

#[derive(Debug)]
struct Kept {
    channel: Channel,
    used: Instant,
}

/// Takes a call off the list when it ends, however it does.
struct Listed {
    inner: Arc<Inner>,
    agent_task_id: String,
    serial: u64,
    cancelled: CancellationToken,
}

impl Listed {
    fn new(inner: &Arc<Inner>, agent_task_id: &str) -> Self {
        let serial = inner.serial.fetch_add(1, Ordering::Relaxed);
        let cancelled = CancellationToken::new();
        let entry = (serial, cancelled.clone());
        inner.calls.lock().insert(agent_task_id.to_owned(), entry);
        let agent_task_id = agent_task_id.to_owned();
        Self { inner: Arc::clone(inner), agent_task_id, serial, cancelled }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut calls = self.inner.calls.lock();
        // A later call of the same name has its own entry.
        if calls.get(&self.agent_task_id).is_some_and(|(serial, _)| *serial == self.serial) {
            calls.remove(&self.agent_task_id);
        }
    }
}

impl GrpcCaller {
    /// One without connections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn channel(&self, endpoint: &str) -> Result<Channel, AgentFailure> {
        let now = Instant::now();
        let mut channels = self.0.channels.lock();
        if let Some(kept) = channels.get_mut(endpoint) {
            kept.used = now;
            return Ok(kept.channel.clone());
        }
        if channels.len() >= CHANNELS_MAX {
            let oldest = channels.iter().min_by_key(|(_, kept)| kept.used);
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                channels.remove(&name);
            }
        }
        let channel = connector(endpoint, CONNECT_TIMEOUT)
            .map_err(|why| AgentFailure::new(FailureCode::AgentUnavailable, why))?
            .connect_lazy();
        channels.insert(endpoint.to_owned(), Kept { channel: channel.clone(), used: now });
        Ok(channel)
    }
}

impl AgentCaller for GrpcCaller {
    fn execute(
        &self,
        endpoint: &str,
        task: AgentTask,
    ) -> BoxFuture<'static, Result<AgentDone, AgentFailure>> {
        let channel = match self.channel(endpoint) {
            Ok(channel) => channel,
            Err(failure) => return Box::pin(async move { Err(failure) }),
        };
        let listed = Listed::new(&self.0, &task.agent_task_id);
        Box::pin(async move {
            let limit = task.time_limit();
            let mut request = Request::new(AgentTaskRequest::from(&task));
            // The agent ends the work by itself, should our reset never reach it.
            request.set_timeout(limit);
            let mut client =
                AgentServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let answer = tokio::select! {
                biased;
                () = listed.cancelled.cancelled() => {
                    return Err(AgentFailure::new(FailureCode::Cancelled, "the call was cancelled"));
                }
                answer = timeout(limit, client.execute_task(request)) => answer,
            };
            match answer {
                Err(_elapsed) => Err(late(limit)),
                Ok(Err(status)) => Err(explain(&status, limit)),
                Ok(Ok(response)) => wire::read_response(response.into_inner()),
            }
        })
    }

    fn cancel(&self, agent_task_id: &str) -> bool {
        let calls = self.0.calls.lock();
        calls.get(agent_task_id).is_some_and(|(_, cancelled)| {
            cancelled.cancel();
            true
        })
    }
}

/// How a connection to `address` (`host:port`, or with `http://` before it) is made.
pub(super) fn connector(address: &str, connect_timeout: Duration) -> Result<Endpoint, String> {
    let uri =
        if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(uri).ok().filter(|endpoint| {
        let uri = endpoint.uri();
        uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty())
    });
    let endpoint = endpoint.ok_or_else(|| format!("`{address}` is not host:port"))?;
    Ok(endpoint
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT))
}

fn late(limit: Duration) -> AgentFailure {
    let message = format!("no answer within {} ms", limit.as_millis());
    AgentFailure::new(FailureCode::Timeout, message)
}

/// What a status says about the step.
fn explain(status: &Status, limit: Duration) -> AgentFailure {
    let message = innermost(status);
    match status.code() {
        Code::ResourceExhausted if is_too_large(&message) => {
            let message = format!("the agent does not take messages of this size: {message}");
            AgentFailure::new(FailureCode::MessageTooLarge, message)
        }
        Code::ResourceExhausted => AgentFailure::busy(message),
        Code::DeadlineExceeded => late(limit),
        // So says whichever side notices first that the time which came with the call is over.
        Code::Cancelled if message.contains("Timeout expired") => late(limit),
        Code::Cancelled => AgentFailure::new(FailureCode::Cancelled, message),
        Code::InvalidArgument => AgentFailure::invalid(message),
        // Either side says so of what comes in; the limit tells which one it was.
        Code::OutOfRange if is_too_large(&message) && !message.contains(&limit_here()) => {
            let message = format!("the agent does not take messages of this size: {message}");
            AgentFailure::new(FailureCode::MessageTooLarge, message)
        }
        Code::OutOfRange => {
            let message = format!("the answer is over {OUTPUT_BYTES_MAX} bytes: {message}");
            AgentFailure::new(FailureCode::ExecutionFailed, message).for_good()
        }
        Code::Unavailable
        | Code::Unimplemented
        | Code::Unauthenticated
        | Code::PermissionDenied => AgentFailure::new(FailureCode::AgentUnavailable, message),
        Code::Ok
        | Code::Unknown
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Internal
        | Code::DataLoss => AgentFailure::new(FailureCode::ExecutionFailed, message),
    }
}

/// How the limit of answers stands in what is said of one that is too large.
fn limit_here() -> String {
    format!("{MESSAGE_BYTES_MAX} bytes")
}

/// Whether a refusal for want of something is for the size of a message: servers of other makers give
/// the code of one that is full, over 4 MiB unless they are told otherwise. Only their words tell the
/// two apart: `Received message larger than max (5 vs. 4)` of grpc-go, of C, Python and Node;
/// `message exceeds maximum size` of Java; `exceeds the maximum configured message size` of .NET;
/// `message length too large` of Rust.
fn is_too_large(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let words = ["larger than max", "exceeds max", "exceeds the max", "too large"];
    message.contains("message") && words.iter().any(|words| message.contains(words))
}

/// The innermost cause says most: "connection refused" rather than "transport error".
pub(super) fn innermost(status: &Status) -> String {
    let mut cause = std::error::Error::source(status);
    let mut message = None;
    while let Some(inner) = cause {
        message = Some(inner.to_string());
        cause = inner.source();
    }
    match message {
        Some(inner) if !status.message().contains(&inner) => {
            format!("{}: {inner}", status.message())
        }
        Some(_) | None => status.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    #[test]
    fn statuses_are_told_apart() {
        let code = |status: Status| {
            let failure = explain(&status, LIMIT);
            (failure.code, failure.retryable, failure.busy)
        };
        use FailureCode::*;
        let expected = [
            (Status::resource_exhausted("full"), (AgentUnavailable, true, true)),
            (Status::resource_exhausted("too many messages"), (AgentUnavailable, true, true)),
            (Status::unavailable("gone"), (AgentUnavailable, true, false)),
            (Status::deadline_exceeded("late"), (Timeout, true, false)),
            (Status::cancelled("Timeout expired"), (Timeout, true, false)),
            (Status::cancelled("no"), (Cancelled, false, false)),
            (Status::invalid_argument("what"), (ValidationError, false, false)),
            (Status::out_of_range("large"), (ExecutionFailed, false, false)),
            (Status::internal("bug"), (ExecutionFailed, true, false)),
        ];
        for (status, wanted) in expected {
            assert_eq!(code(status.clone()), wanted, "{status}");
        }
    }

    #[test]
    fn a_message_that_is_too_large_is_no_busy_agent() {
        for words in [
            "grpc: received message larger than max (5242880 vs. 4194304)",
            "SERVER: Received message larger than max (5242880 vs. 4194304)",
            "Sent message larger than max (5242880 vs. 4194304)",
            "gRPC message exceeds maximum size 4194304: 5242880",
            "Received message exceeds the maximum configured message size.",
            "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes",
        ] {
            let failure = explain(&Status::resource_exhausted(words), LIMIT);
            assert_eq!(failure.code, FailureCode::MessageTooLarge, "{words}");
            assert!(!failure.busy && !failure.retryable, "{words}");
        }
        // Programs of ours say it in this way of what they are given, and this side of answers.
        let of = |limit: usize| {
            let words = format!(
                "Error, decoded message length too large: found 9 bytes, the limit is: {limit} bytes"
            );
            explain(&Status::out_of_range(words), LIMIT).code
        };
        assert_eq!(of(16 * 1024 * 1024), FailureCode::MessageTooLarge);
        assert_eq!(of(MESSAGE_BYTES_MAX), FailureCode::ExecutionFailed);
    }

    #[test]
    fn addresses_are_checked() {
        for address in ["a:1", "http://a:1", "[::1]:50052", "agent-0.agents:50052"] {
            assert!(connector(address, LIMIT).is_ok(), "{address}");
        }
        for address in ["", "https://a:1", "a b", "://", "grpc://a:1"] {
            assert!(connector(address, LIMIT).is_err(), "{address}");
        }
    }

    #[tokio::test]
    async fn connections_are_bounded() {
        let caller = GrpcCaller::new();
        for n in 0..=CHANNELS_MAX {
            caller.channel(&format!("host-{n}:1")).unwrap();
        }
        let channels = caller.0.channels.lock();
        assert_eq!(channels.len(), CHANNELS_MAX);
        assert!(channels.contains_key("host-1024:1"));
    }

    #[tokio::test]
    async fn nobody_there_is_an_unavailable_agent() {
        // Port 1 of this machine: nobody listens.
        let task = AgentTask { agent_task_id: "a".to_owned(), ..AgentTask::default() };
        let caller = GrpcCaller::new();
        let failure = caller.execute("127.0.0.1:1", task).await.unwrap_err();
        assert_eq!((failure.code, failure.busy), (FailureCode::AgentUnavailable, false));
        assert!(failure.message.contains("refused"), "{failure}");
        assert!(!caller.cancel("a"), "an ended call is off the list");
    }
}
