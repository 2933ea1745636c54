//! One call to one member, and how it ended.
//!
//! How an answer is understood is a fixed table, taken from the API's own documentation. It is the
//! sharpest edge of the harness: an unknown outcome that counts as a failure is a false alarm, a
//! failure that counts as unknown makes checks blunt and slow.
//!
//! | what came | of a write | of a read |
//! | --- | --- | --- |
//! | 2xx | ok | ok |
//! | 4xx: refused | fail | fail |
//! | 503: certainly not started | fail | fail |
//! | 500, 504, any other status | info | fail |
//! | no connection was made | fail | fail |
//! | no answer, or half of one, after bytes were sent | info | fail |

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, IF_MATCH};
use reqwest::redirect::Policy;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::history::{Kind, Note};

/// Longest time for one call. Members should hold requests for less (`request_hold_ms`), or
/// everything that is sent while there is no leader ends unknown.
pub const DEADLINE: Duration = Duration::from_millis(2000);
/// Longest time to connect: shorter than [`DEADLINE`], so that a member that cannot be reached is
/// told from one that does not answer.
const CONNECT: Duration = Duration::from_millis(500);

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    path: String,
    body: Option<Value>,
    key: Option<String>,
    if_match: Option<u64>,
}

impl Request {
    fn new(method: Method, path: impl Into<String>, body: Option<Value>) -> Self {
        Self { method, path: path.into(), body, key: None, if_match: None }
    }

    /// Reads `path`, query included.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path, None)
    }

    /// Posts to `path`.
    #[must_use]
    pub fn post(path: impl Into<String>, body: Value) -> Self {
        Self::new(Method::POST, path, Some(body))
    }

    /// Puts at `path`.
    #[must_use]
    pub fn put(path: impl Into<String>, body: Value) -> Self {
        Self::new(Method::PUT, path, Some(body))
    }

    /// Changes what is at `path`.
    #[must_use]
    pub fn patch(path: impl Into<String>, body: Value) -> Self {
        Self::new(Method::PATCH, path, Some(body))
    }

    /// Deletes what is at `path`.
    #[must_use]
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path, None)
    }

    /// Under this `Idempotency-Key`.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Only when the configuration is at this revision.
    #[must_use]
    pub fn if_match(mut self, revision: u64) -> Self {
        self.if_match = Some(revision);
        self
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// By the table above.
    pub kind: Kind,
    /// HTTP status; 0 when there was no answer.
    pub status: u16,
    /// The stable code of a problem, or the transport's words. None of an ok.
    pub error: Option<String>,
    /// The body, null when it is no JSON.
    pub body: Value,
    /// `X-Quorate-Index`.
    pub index: Option<u64>,
    /// `X-Quorate-Epoch`: term and member.
    pub epoch: Option<(u64, u64)>,
    /// `X-Quorate-Age-Ms`.
    pub age_ms: Option<u64>,
    /// `X-Quorate-Consistency`.
    pub consistency: Option<String>,
}

impl Reply {
    /// The end of an operation, as the history wants it, with `value`.
    #[must_use]
    pub fn note(&self, begun: &Note, node: u64, value: Value) -> Note {
        Note {
            workload: begun.workload,
            f: begun.f.clone(),
            key: begun.key.clone(),
            value,
            node: Some(node),
            term: self.epoch.map(|(term, _)| term),
            log: self.index,
            error: self.error.clone(),
        }
    }

    fn unanswered(kind: Kind, error: String) -> Self {
        Self {
            kind,
            status: 0,
            error: Some(error),
            body: Value::Null,
            index: None,
            epoch: None,
            age_ms: None,
            consistency: None,
        }
    }
}

/// Makes calls. Cloning shares connections.
#[derive(Debug, Clone)]
pub struct Client(reqwest::Client);

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A client with connections of its own.
    ///
    /// # Panics
    /// Never: without TLS and proxies nothing can go wrong in the building of it.
    #[must_use]
    pub fn new() -> Self {
        let built = reqwest::Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT)
            .pool_idle_timeout(Duration::from_secs(20))
            .build();
        Self(built.expect("a client without TLS has nothing to load"))
    }

    /// Sends `request` to the member at `url` and waits for the end.
    pub async fn send(&self, url: &str, request: &Request) -> Reply {
        self.send_within(url, request, DEADLINE).await
    }

    /// As [`Self::send`], with a deadline of its own.
    pub async fn send_within(&self, url: &str, request: &Request, deadline: Duration) -> Reply {
        let is_read = request.method == Method::GET;
        let mut call = self
            .0
            .request(request.method.clone(), format!("{url}{}", request.path))
            .timeout(deadline);
        if let Some(key) = &request.key {
            call = call.header("idempotency-key", key);
        }
        if let Some(revision) = request.if_match {
            call = call.header(IF_MATCH, format!("\"{revision}\""));
        }
        if let Some(body) = &request.body {
            call = call.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let response = match call.send().await {
            Ok(response) => response,
            Err(error) => return transport(&error, is_read),
        };
        let (status, headers) = (response.status(), response.headers().clone());
        match response.bytes().await {
            Ok(bytes) => understand(status, &headers, &bytes, is_read),
            Err(error) => transport(&error, is_read),
        }
    }

    /// Opens an event stream after `last`, and gives the answer to read from.
    ///
    /// # Errors
    /// What the transport or the member said.
    pub async fn stream(
        &self,
        url: &str,
        path: &str,
        last: Option<&str>,
    ) -> Result<reqwest::Response, String> {
        let mut call = self.0.get(format!("{url}{path}"));
        if let Some(last) = last {
            call = call.header("last-event-id", last);
        }
        let opened = tokio::time::timeout(DEADLINE, call.send()).await;
        let response = opened.map_err(|_| "no answer in time".to_owned())?;
        let response = response.map_err(|error| innermost(&error))?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status().as_u16()));
        }
        Ok(response)
    }
}

/// What a whole answer means.
fn understand(status: StatusCode, headers: &HeaderMap, body: &[u8], is_read: bool) -> Reply {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let number = |name: &str| text(name).and_then(|text| text.parse().ok());
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let kind = classify(status.as_u16(), is_read);
    let code = || {
        let code = body["code"].as_str().map(str::to_owned);
        code.unwrap_or_else(|| format!("status {}", status.as_u16()))
    };
    Reply {
        kind,
        status: status.as_u16(),
        error: (kind != Kind::Ok).then(code),
        index: number("x-quorate-index"),
        epoch: text("x-quorate-epoch").and_then(epoch),
        age_ms: number("x-quorate-age-ms"),
        consistency: text("x-quorate-consistency").map(str::to_owned),
        body,
    }
}

/// The table of the module's description, for whole answers.
fn classify(status: u16, is_read: bool) -> Kind {
    match status {
        200..=299 => Kind::Ok,
        400..=499 | 503 => Kind::Fail,
        _ if is_read => Kind::Fail,
        _ => Kind::Info,
    }
}

/// The table of the module's description, for calls without a whole answer.
fn transport(error: &reqwest::Error, is_read: bool) -> Reply {
    let kind = if is_read || error.is_connect() { Kind::Fail } else { Kind::Info };
    let what = if error.is_timeout() { "no answer in time".to_owned() } else { innermost(error) };
    Reply::unanswered(kind, what)
}

/// The innermost cause says most: "connection refused" rather than "error sending request".
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// An epoch as it is written: `<term>.<member>`.
#[must_use]
pub fn epoch(text: &str) -> Option<(u64, u64)> {
    let (term, member) = text.split_once('.')?;
    Some((term.parse().ok()?, member.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn answers_are_understood_by_the_table() {
        for (status, write, read) in [
            (200, Kind::Ok, Kind::Ok),
            (400, Kind::Fail, Kind::Fail),
            (409, Kind::Fail, Kind::Fail),
            (429, Kind::Fail, Kind::Fail),
            (500, Kind::Info, Kind::Fail),
            (502, Kind::Info, Kind::Fail),
            (503, Kind::Fail, Kind::Fail),
            (504, Kind::Info, Kind::Fail),
        ] {
            assert_eq!(classify(status, false), write, "write, {status}");
            assert_eq!(classify(status, true), read, "read, {status}");
        }
    }

    #[test]
    fn headers_and_codes_are_read() {
        let mut headers = HeaderMap::new();
        headers.insert("x-quorate-index", "17".parse().unwrap());
        headers.insert("x-quorate-epoch", "7.3".parse().unwrap());
        let body = br#"{"code":"REVISION_MISMATCH"}"#;
        let reply = understand(StatusCode::CONFLICT, &headers, body, false);
        assert_eq!((reply.index, reply.epoch), (Some(17), Some((7, 3))));
        assert_eq!(reply.error.as_deref(), Some("REVISION_MISMATCH"));
    }

    /// A server that takes one request and then does what `then` says.
    async fn server(then: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(then).await;
        });
        url
    }

    #[tokio::test]
    async fn a_connection_that_breaks_after_the_request_leaves_a_write_unknown() {
        let write = Request::put("/x", json!(1));
        for half in [b"".as_slice(), b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"] {
            let url = server(half).await;
            assert_eq!(Client::new().send(&url, &write).await.kind, Kind::Info);
            let url = server(half).await;
            assert_eq!(Client::new().send(&url, &Request::get("/x")).await.kind, Kind::Fail);
        }
    }

    #[tokio::test]
    async fn a_refused_connection_is_a_failure_not_an_unknown_outcome() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let reply = Client::new().send(&url, &Request::put("/x", json!(1))).await;
        assert_eq!((reply.kind, reply.status), (Kind::Fail, 0));
    }

    #[tokio::test]
    async fn silence_leaves_a_write_unknown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let write = Request::put("/x", json!(1));
        let reply = Client::new().send_within(&url, &write, Duration::from_millis(50)).await;
        assert_eq!(reply.kind, Kind::Info);
        assert_eq!(reply.error.as_deref(), Some("no answer in time"));
    }
}
