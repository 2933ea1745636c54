//! Calls to nodes, over HTTP.
//!
//! Behind a small trait, because a simulation has no sockets: there, nodes are functions.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;

/// The largest answer that is read. Larger results have no place in a replicated log.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Idle connections are dropped before the usual servers of nodes do it (uvicorn: after 5 s), so
/// that a call is not sent into one that is just closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Idle connections kept to one node.
const IDLE_PER_NODE_MAX: usize = 64;

/// A POST with a JSON body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Where.
    pub url: String,
    /// JSON text.
    pub body: Bytes,
    /// For the whole of it, the answer's body included.
    pub timeout: Duration,
}

/// What a node answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After`, when given in seconds.
    pub retry_after: Option<Duration>,
    /// At most [`ANSWER_BYTES_MAX`].
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No connection was made: the node certainly did not get it.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// Not in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke, or what came is no HTTP.
    #[error("{0}")]
    Broken(String),
    /// The answer is over [`ANSWER_BYTES_MAX`].
    #[error("the answer is over {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
}

/// Makes calls to nodes.
pub trait NodeCaller: Send + Sync + 'static {
    /// Makes one call.
    fn post(&self, call: Call) -> BoxFuture<'static, Result<Answer, CallError>>;

    /// Asks for what is at `url`.
    fn get(&self, url: String, timeout: Duration) -> BoxFuture<'static, Result<Answer, CallError>>;
}

/// The real one: a client that keeps connections open per node.
#[derive(Debug, Clone)]
pub struct HttpCaller(reqwest::Client);

impl HttpCaller {
    /// A client of its own.
    ///
    /// # Errors
    /// When the client cannot be built on this machine.
    pub fn new() -> Result<Self, CallError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let client = reqwest::Client::builder()
            .default_headers(headers)
            .user_agent(concat!("quorate/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_NODE_MAX)
            .build();
        client.map(Self).map_err(|error| CallError::Broken(error.to_string()))
    }
}

impl NodeCaller for HttpCaller {
    fn post(&self, call: Call) -> BoxFuture<'static, Result<Answer, CallError>> {
        let request = self.0.post(call.url).timeout(call.timeout).body(call.body);
        Box::pin(answered(request))
    }

    fn get(&self, url: String, timeout: Duration) -> BoxFuture<'static, Result<Answer, CallError>> {
        Box::pin(answered(self.0.get(url).timeout(timeout)))
    }
}

async fn answered(request: reqwest::RequestBuilder) -> Result<Answer, CallError> {
    let mut response = request.send().await.map_err(|error| explain(&error))?;
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers());
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| explain(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(CallError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, retry_after, body: body.freeze() })
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn explain(error: &reqwest::Error) -> CallError {
    // The innermost cause says most: "connection refused" rather than "error sending request".
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_connect() {
        CallError::Connect(cause.to_string())
    } else if error.is_timeout() {
        CallError::Timeout
    } else {
        CallError::Broken(cause.to_string())
    }
}
