//! Calls to nodes, and to what lies outside the fleet, over HTTP; mail over SMTP.
//!
//! Behind a small trait, because a simulation has no sockets: there, nodes are functions.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};

use crate::model::AllowedHosts;
use crate::outward::{self, Clients, Mail, MailError, Sent};

/// The largest answer that is read. Larger results have no place in a replicated log.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
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
    /// Headers beside the usual ones.
    pub headers: Vec<(&'static str, String)>,
    /// The largest answer that is read, in bytes.
    pub answer_bytes_max: usize,
}

impl Call {
    /// One without further headers, of whose answer [`ANSWER_BYTES_MAX`] are read.
    #[must_use]
    pub fn new(url: String, body: Bytes, timeout: Duration) -> Self {
        let (headers, answer_bytes_max) = (Vec::new(), ANSWER_BYTES_MAX);
        Self { url, body, timeout, headers, answer_bytes_max }
    }
}

/// What a node answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After`, when given in seconds.
    pub retry_after: Option<Duration>,
    /// At most [`Call::answer_bytes_max`].
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
    /// The answer is over [`Call::answer_bytes_max`].
    #[error("the answer is longer than is read")]
    TooLarge,
    /// The operator's list of hosts does not have it: nothing was sent.
    #[error("{0}")]
    NotAllowed(String),
}

/// Makes calls to nodes, and tells those outside.
pub trait NodeCaller: Send + Sync + 'static {
    /// Makes one call.
    fn post(&self, call: Call) -> BoxFuture<'static, Result<Answer, CallError>>;

    /// Asks for what is at `url`.
    fn get(&self, url: String, timeout: Duration) -> BoxFuture<'static, Result<Answer, CallError>>;

    /// Makes one call to an address that a client or an operator named, if `hosts` has it.
    fn post_outside(
        &self,
        call: Call,
        hosts: &AllowedHosts,
    ) -> BoxFuture<'static, Result<Answer, CallError>> {
        match outward::target(&call.url, hosts) {
            Ok(_) => self.post(call),
            Err(error) => Box::pin(async move { Err(CallError::NotAllowed(error.to_string())) }),
        }
    }

    /// Sends a mail, if `hosts` has its server.
    fn mail(&self, mail: Mail, hosts: &AllowedHosts)
    -> BoxFuture<'static, Result<Sent, MailError>>;
}

/// The real one: a client that keeps connections open per node, and one for all others.
#[derive(Debug, Clone)]
pub struct HttpCaller {
    nodes: reqwest::Client,
    clients: Clients,
}

impl HttpCaller {
    /// A client of its own.
    ///
    /// # Errors
    /// When the client cannot be built on this machine.
    pub fn new() -> Result<Self, CallError> {
        Self::with(Clients::default())
    }

    /// As [`Self::new`], with the authorities that `clients` believe.
    ///
    /// # Errors
    /// When the client cannot be built on this machine.
    pub fn with(clients: Clients) -> Result<Self, CallError> {
        let nodes = clients.builder().pool_max_idle_per_host(IDLE_PER_NODE_MAX).build();
        let nodes = nodes.map_err(|error| CallError::Broken(error.to_string()))?;
        Ok(Self { nodes, clients })
    }
}

fn posted(client: &reqwest::Client, call: Call) -> reqwest::RequestBuilder {
    let request = client.post(call.url).header(CONTENT_TYPE, "application/json");
    let headers = call.headers.into_iter();
    let request = headers.fold(request, |request, (name, value)| request.header(name, value));
    request.timeout(call.timeout).body(call.body)
}

impl NodeCaller for HttpCaller {
    fn post(&self, call: Call) -> BoxFuture<'static, Result<Answer, CallError>> {
        let bytes_max = call.answer_bytes_max;
        Box::pin(answered(posted(&self.nodes, call), bytes_max))
    }

    fn get(&self, url: String, timeout: Duration) -> BoxFuture<'static, Result<Answer, CallError>> {
        Box::pin(answered(self.nodes.get(url).timeout(timeout), ANSWER_BYTES_MAX))
    }

    fn post_outside(
        &self,
        call: Call,
        hosts: &AllowedHosts,
    ) -> BoxFuture<'static, Result<Answer, CallError>> {
        let client = outward::target(&call.url, hosts)
            .map_err(|error| CallError::NotAllowed(error.to_string()))
            .and_then(|_| self.clients.within(hosts).map_err(CallError::Broken));
        let bytes_max = call.answer_bytes_max;
        match client {
            Ok(client) => Box::pin(answered(posted(&client, call), bytes_max)),
            Err(error) => Box::pin(async move { Err(error) }),
        }
    }

    fn mail(
        &self,
        mail: Mail,
        hosts: &AllowedHosts,
    ) -> BoxFuture<'static, Result<Sent, MailError>> {
        let (clients, hosts) = (self.clients.clone(), hosts.clone());
        Box::pin(async move { clients.mail(&mail, &hosts).await })
    }
}

async fn answered(request: reqwest::RequestBuilder, bytes_max: usize) -> Result<Answer, CallError> {
    let mut response = request.send().await.map_err(|error| explain(&error))?;
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers());
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| explain(&error))? {
        if body.len() + chunk.len() > bytes_max {
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
    if let Some(refusal) = outward::refusal(error) {
        return CallError::NotAllowed(refusal.to_string());
    }
    let cause = outward::innermost(error);
    if error.is_connect() {
        CallError::Connect(cause)
    } else if error.is_timeout() {
        CallError::Timeout
    } else {
        CallError::Broken(cause)
    }
}
