//! An HTTP client that knows several members, for the command line, the worker and tests.
//!
//! It stays with the member that answered last and moves on when that one does not. Every write
//! carries one `Idempotency-Key` through all its tries, so trying again is always safe: the cluster
//! answers a repeated request with its first outcome. JSON only.

mod download;
mod error;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

pub use error::{ClientError, Problem};

use crate::clock;
use crate::model::is_loopback;

/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The first pause after all members were tried; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How to reach the cluster.
#[derive(Debug, Clone)]
pub struct Options {
    /// Base URLs of members, `http://host:port`; at least one.
    pub urls: Vec<String>,
    /// How long one call may take, tries and pauses included.
    pub deadline: Duration,
    /// How long one try may take: a member that hangs is left after this.
    pub try_timeout: Duration,
    /// Sent as a bearer token.
    pub api_key: Option<String>,
    /// Sent to the doors of administrators.
    pub admin_key: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            urls: vec!["http://127.0.0.1:9000".to_owned()],
            deadline: Duration::from_secs(30),
            // Longer than a member holds a request while it looks for a leader.
            try_timeout: Duration::from_secs(10),
            api_key: None,
            admin_key: None,
        }
    }
}

/// See the module's description. Cloning shares connections and the memory of who answered.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    urls: Vec<Url>,
    /// Index of the member that answered last.
    preferred: AtomicUsize,
    deadline: Duration,
    try_timeout: Duration,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    path: String,
    /// JSON text.
    body: Option<Bytes>,
    key: Option<String>,
    deadline: Option<Duration>,
    once: bool,
}

impl Call {
    /// Reads `path` (with its query).
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path.into(), None)
    }

    /// Posts `body`, which must be able to be JSON, to `path`.
    #[must_use]
    pub fn post(path: impl Into<String>, body: &impl Serialize) -> Self {
        let text = serde_json::to_string(body).expect("texts and numbers are always JSON");
        Self::post_text(path, &text)
    }

    /// Posts `body`, which is JSON text already, to `path`.
    #[must_use]
    pub fn post_text(path: impl Into<String>, body: &str) -> Self {
        let body = Some(Bytes::copy_from_slice(body.as_bytes()));
        Self { body, ..Self::new(Method::POST, path.into(), None) }
    }

    /// Puts `body` at `path`.
    #[must_use]
    pub fn put(path: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::PUT, path.into(), Some(body))
    }

    /// Changes what is at `path` as `body` says.
    #[must_use]
    pub fn patch(path: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::PATCH, path.into(), Some(body))
    }

    /// Deletes what is at `path`.
    #[must_use]
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path.into(), None)
    }

    fn new(method: Method, path: String, body: Option<&Value>) -> Self {
        let body = body.map(|body| Bytes::from(body.to_string()));
        Self { method, path, body, key: None, deadline: None, once: false }
    }

    /// Names the request, so that another process may repeat it. Without a name, one is minted.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Replaces the client's deadline for this call.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Makes one try only, for what must not happen twice although it leaves no record.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    fn is_write(&self) -> bool {
        self.method != Method::GET
    }
}

/// What a member answered, with a success status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// 200, 201, 202 or 204.
    pub status: u16,
    /// Holds the applied index, epoch, leader, age and mode.
    pub headers: HeaderMap,
    /// `null` when there is none.
    pub body: Value,
    /// The same as it came, for numbers that no float holds.
    pub text: Bytes,
}

/// How one try ended, when not with an answer.
enum Failed {
    /// Nothing will change it.
    Final(ClientError),
    /// Certainly not done; another member or another moment may do it.
    NotStarted { why: String, problem: Option<Box<Problem>> },
    /// It may have been done.
    Unknown { why: String, problem: Option<Box<Problem>> },
}

impl Client {
    /// A client for the members of `options`. Connects when it is used.
    ///
    /// # Errors
    /// [`ClientError::Setup`] when there is no URL or one is not `http://...`.
    pub fn new(options: &Options) -> Result<Self, ClientError> {
        let urls = options.urls.iter().map(|url| parse_url(url)).collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err(ClientError::Setup("no member URL is given".to_owned()));
        }
        let mut headers = HeaderMap::new();
        if let Some(key) = &options.api_key {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_| ClientError::Setup("the API key holds control characters".into()))?;
            value.set_sensitive(true);
            headers.insert(reqwest::header::AUTHORIZATION, value);
        }
        if let Some(key) = &options.admin_key {
            let mut value = HeaderValue::from_str(key)
                .map_err(|_| ClientError::Setup("the admin key holds control characters".into()))?;
            value.set_sensitive(true);
            headers.insert("x-quorate-admin-key", value);
        }
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(options.try_timeout.min(Duration::from_secs(2)))
            .tcp_nodelay(true)
            .no_proxy()
            .build()
            .map_err(|error| ClientError::Setup(error.to_string()))?;
        Ok(Self(Arc::new(Inner {
            http,
            urls,
            preferred: AtomicUsize::new(0),
            deadline: options.deadline,
            try_timeout: options.try_timeout,
        })))
    }

    /// A member that is not on this machine, if one is named so.
    #[must_use]
    pub fn elsewhere(&self) -> Option<&str> {
        let host = |url: &Url| url.host_str().map(|host| host.trim_matches(['[', ']']).to_owned());
        let away = |url: &&Url| host(url).is_some_and(|host| !is_loopback(&host));
        self.0.urls.iter().find(away).map(Url::as_str)
    }

    /// The base URL of the member that answered last.
    #[must_use]
    pub fn preferred(&self) -> &str {
        let urls = &self.0.urls;
        urls[self.0.preferred.load(Ordering::Relaxed) % urls.len()].as_str()
    }

    /// Reads `path` and gives the body.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn get(&self, path: impl Into<String>) -> Result<Value, ClientError> {
        self.call(Call::get(path)).await.map(|answer| answer.body)
    }

    /// Makes the call, trying members in turn until one decides it or the deadline passes.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when a member decided against it; [`ClientError::Unavailable`] when
    /// it was certainly not done; [`ClientError::Unknown`] when it may have been.
    pub async fn call(&self, call: Call) -> Result<Answer, ClientError> {
        let key = call.key.clone().unwrap_or_else(|| clock::mint_request_id().to_string());
        let deadline = call.deadline.unwrap_or(self.0.deadline);
        let until = Instant::now() + deadline;
        // One member that hangs must leave time for another.
        let share = if self.0.urls.len() > 1 { deadline / 2 } else { deadline };
        let limit = share.min(self.0.try_timeout);
        let mut pause = PAUSE_MIN;
        let mut may_be_done = false;
        let mut tries = 0;
        loop {
            let place = self.0.preferred.load(Ordering::Relaxed);
            let (why, problem) = match self
                .try_once(
                    &call,
                    &key,
                    place,
                    limit.min(until.saturating_duration_since(Instant::now())),
                )
                .await
            {
                Ok(answer) => return Ok(answer),
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::NotStarted { why, problem }) => (why, problem),
                Err(Failed::Unknown { why, problem }) => {
                    may_be_done |= call.is_write();
                    (why, problem)
                }
            };
            tries += 1;
            self.leave(place);
            // The members are tried in turn at once; only after a full round there is a pause.
            let wait = if tries % self.0.urls.len() == 0 {
                let hint = problem.as_ref().and_then(|problem| problem.retry_after);
                let wait = hint.unwrap_or_else(|| jitter(pause));
                pause = (pause * 2).min(PAUSE_MAX);
                wait
            } else {
                Duration::ZERO
            };
            if call.once || Instant::now() + wait >= until {
                return Err(if may_be_done {
                    ClientError::Unknown { request: key, why }
                } else {
                    ClientError::Unavailable { why, problem }
                });
            }
            tracing::debug!(path = call.path, %why, tries, "trying again");
            tokio::time::sleep(wait).await;
        }
    }

    /// Prefers the next member, unless another call has moved on already.
    fn leave(&self, place: usize) {
        let next = (place + 1) % self.0.urls.len();
        let preferred = &self.0.preferred;
        let _ = preferred.compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn url(&self, place: usize, path: &str) -> String {
        format!("{}{path}", self.0.urls[place].as_str().trim_end_matches('/'))
    }

    async fn try_once(
        &self,
        call: &Call,
        key: &str,
        place: usize,
        limit: Duration,
    ) -> Result<Answer, Failed> {
        let url = self.url(place, &call.path);
        let mut request = self.0.http.request(call.method.clone(), &url);
        request = request.timeout(limit.max(Duration::from_millis(1)));
        if call.is_write() {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let mut response = request.send().await.map_err(|error| transport(&url, &error))?;
        let status = response.status();
        let headers = response.headers().clone();
        let mut bytes = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| transport(&url, &error))? {
            if bytes.len() + part.len() > ANSWER_BYTES_MAX {
                let why = format!("{url}: the answer is over {ANSWER_BYTES_MAX} bytes");
                return Err(Failed::Final(ClientError::Malformed(why)));
            }
            bytes.extend_from_slice(&part);
        }
        judge(&url, status, headers, bytes.into())
    }
}

fn judge(
    url: &str,
    status: StatusCode,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Answer, Failed> {
    if status.is_success() {
        let body = if bytes.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&bytes) };
        let malformed = |error| ClientError::Malformed(format!("{url}: not JSON: {error}"));
        let body = body.map_err(|error| Failed::Final(malformed(error)))?;
        return Ok(Answer { status: status.as_u16(), headers, body, text: bytes });
    }
    let problem = Box::new(Problem::read(status.as_u16(), &headers, &bytes));
    let why = format!("{url}: {problem}");
    match status {
        // Nothing was started: no leader, overloaded, throttled.
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            Err(Failed::NotStarted { why, problem: Some(problem) })
        }
        StatusCode::INTERNAL_SERVER_ERROR
        | StatusCode::BAD_GATEWAY
        | StatusCode::GATEWAY_TIMEOUT => Err(Failed::Unknown { why, problem: Some(problem) }),
        _ => Err(Failed::Final(ClientError::Refused(problem))),
    }
}

fn transport(url: &str, error: &reqwest::Error) -> Failed {
    // reqwest's own text hides the cause ("error sending request"), which is what people need.
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let why = if error.is_timeout() {
        format!("{url}: no answer in time")
    } else {
        format!("{url}: {cause}")
    };
    if error.is_connect() {
        Failed::NotStarted { why, problem: None }
    } else {
        Failed::Unknown { why, problem: None }
    }
}

fn parse_url(text: &str) -> Result<Url, ClientError> {
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&whole)
        .map_err(|error| ClientError::Setup(format!("member URL `{text}`: {error}")))?;
    if url.scheme() != "http" || url.host_str().is_none() {
        return Err(ClientError::Setup(format!("member URL `{text}` is not http://host:port")));
    }
    Ok(url)
}

/// Between half of `pause` and all of it, so that many clients do not come back at once.
fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(clock::rng().random_range(0.5..1.0))
}

/// `text` as one segment of a path.
#[must_use]
pub fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests;
