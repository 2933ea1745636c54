//! HTTP as plain as a client can speak it: no retries, no cleverness, a deadline on every call.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// Long enough for a busy machine; nothing waits that long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// How long one call may take. Longer than a member holds a request while nobody leads.
pub(crate) const CALL: Duration = Duration::from_secs(15);

#[derive(Debug, Clone)]
pub(crate) struct Http(reqwest::Client);

/// An answer, of whatever status.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// JSON; plain text becomes a JSON string.
    pub(crate) body: Value,
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// No connection: it was certainly not received.
    NotSent,
    /// It may have been received.
    Lost,
}

impl Http {
    pub(crate) fn new() -> Self {
        let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build();
        Self(client.unwrap())
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
        key: Option<&str>,
        limit: Duration,
    ) -> Result<Reply, Fault> {
        let mut request = self.0.request(method, url).timeout(limit);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let fault = |error: reqwest::Error| {
            if error.is_connect() { Fault::NotSent } else { Fault::Lost }
        };
        let response = request.send().await.map_err(fault)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await.map_err(fault)?;
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(Reply { status, headers, body })
    }

    pub(crate) async fn get(&self, url: &str) -> Result<Reply, Fault> {
        self.send(Method::GET, url, None, None, CALL).await
    }

    /// A GET that must succeed.
    pub(crate) async fn read(&self, url: &str) -> Value {
        let reply = self.get(url).await.unwrap_or_else(|fault| panic!("GET {url}: {fault:?}"));
        assert_eq!(reply.status, 200, "GET {url}: {}", reply.body);
        reply.body
    }

    /// Something that changes the cluster and must succeed.
    pub(crate) async fn write(&self, method: Method, url: &str, body: &Value) -> Reply {
        let reply = self.send(method.clone(), url, Some(body), None, CALL).await;
        let reply = reply.unwrap_or_else(|fault| panic!("{method} {url}: {fault:?}"));
        assert_eq!(reply.status, 200, "{method} {url}: {}", reply.body);
        reply
    }

    /// Something that must be refused; gives status and code.
    pub(crate) async fn refused(&self, method: Method, url: &str, body: &Value) -> (u16, String) {
        let reply = self.send(method.clone(), url, Some(body), None, CALL).await;
        let reply = reply.unwrap_or_else(|fault| panic!("{method} {url}: {fault:?}"));
        assert!(reply.status >= 400, "{method} {url} was not refused: {}", reply.body);
        (reply.status, text(&reply.body, "/code"))
    }
}

impl Reply {
    /// A number in a header.
    pub(crate) fn header(&self, name: &str) -> Option<u64> {
        self.headers.get(name)?.to_str().ok()?.parse().ok()
    }
}

/// The text at a JSON pointer; empty when there is none.
pub(crate) fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The number at a JSON pointer.
pub(crate) fn number(value: &Value, pointer: &str) -> u64 {
    let found = value.pointer(pointer).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("no number at {pointer} of {value}"))
}

/// Looks again and again until there is something to see.
pub(crate) async fn until<T, F>(what: &str, limit: Duration, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let end = Instant::now() + limit;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < end, "not seen within {limit:?}: {what}");
        sleep(Duration::from_millis(25)).await;
    }
}
