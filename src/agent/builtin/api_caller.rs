//! `api_caller`: HTTP calls, tried again when no answer comes, and not made at all while an endpoint
//! fails (contract 4.5, `api_response`; 4.7).

use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::super::input::{AgentInput, InputData};
use super::super::task::{AgentFailure, AgentTask, FailureCode};
use super::breaker::Breakers;
use crate::model::AllowedHosts;
use crate::outward::{self, Clients};

/// Tries of one call.
const TRIES: u32 = 3;
/// The pause before another try; it doubles.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long one try may take.
const TRY_TIMEOUT: Duration = Duration::from_secs(10);
/// The most calls of one task, and how many of them at once.
const CALLS_MAX: usize = 100;
const AT_ONCE: usize = 8;
/// The largest answer that is kept. All answers together are bounded by the output.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Makes calls; remembers which endpoints fail.
#[derive(Debug, Default)]
pub(super) struct ApiCaller {
    breakers: Breakers,
}

/// One call.
#[derive(Debug)]
struct Call {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Value>,
    timeout: Duration,
}

/// Why a try gave no answer.
struct Broken {
    message: String,
    /// No connection, or not in time: another try may help.
    again: bool,
    /// It is the endpoint's fault, and counts against it.
    by_endpoint: bool,
}

impl ApiCaller {
    /// Makes all calls of the inputs; the responses are in their order.
    pub(super) async fn run(
        &self,
        task: &AgentTask,
        clients: &Clients,
        hosts: &AllowedHosts,
    ) -> Result<Value, AgentFailure> {
        let calls = read(task, hosts)?;
        let http = clients.within(hosts);
        let http = http.map_err(|why| AgentFailure::new(FailureCode::ExecutionFailed, why))?;
        let made: Vec<_> = calls.into_iter().map(|call| self.make(&http, call)).collect();
        let responses: Vec<Value> = futures::stream::iter(made).buffered(AT_ONCE).collect().await;
        let succeeded = responses.iter().filter(|response| response["status"] == "success").count();
        // A task of which no call was answered has done nothing; it may do so later.
        if responses.iter().all(|response| response["status"] == "unreachable") {
            let why = responses.first().and_then(|response| response["message"].as_str());
            let message = format!("no call was answered: {}", why.unwrap_or_default());
            return Err(AgentFailure::new(FailureCode::ExecutionFailed, message));
        }
        Ok(json!({
            "success_count": succeeded,
            "error_count": responses.len() - succeeded,
            "responses": responses,
        }))
    }

    async fn make(&self, http: &reqwest::Client, call: Call) -> Value {
        let endpoint = endpoint(&call.url);
        let started = Instant::now();
        let mut pause = PAUSE_MIN;
        let mut tried = 0;
        let mut last: Option<String> = None;
        loop {
            let admitted = self.breakers.admit(&endpoint);
            if let (Err(_), Some(message)) = (&admitted, last.take()) {
                // These very tries opened the circuit: what they found says more than that it is open.
                return unreachable(&endpoint, &message, tried, started);
            }
            if let Err(left) = admitted {
                let message = format!("too many failures; closed in {} s", left.as_secs() + 1);
                return json!({ "status": "circuit_open", "endpoint": endpoint, "message": message });
            }
            tried += 1;
            let broken = match attempt(http, &call).await {
                Ok((status, data)) => {
                    // An endpoint that answers 5xx fails, though trying again at once is not called for.
                    if status >= 500 {
                        self.breakers.failed(&endpoint);
                    } else {
                        self.breakers.succeeded(&endpoint);
                    }
                    let word = if (200..300).contains(&status) { "success" } else { "error" };
                    return json!({
                        "status": word, "endpoint": endpoint, "status_code": status, "data": data,
                        "attempts": tried, "duration_ms": started.elapsed().as_millis() as u64,
                    });
                }
                Err(broken) => broken,
            };
            if broken.by_endpoint {
                self.breakers.failed(&endpoint);
            }
            if !broken.again {
                return json!({
                    "status": "error", "endpoint": endpoint, "message": broken.message,
                    "attempts": tried, "duration_ms": started.elapsed().as_millis() as u64,
                });
            }
            if tried == TRIES {
                return unreachable(&endpoint, &broken.message, tried, started);
            }
            last = Some(broken.message);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

fn unreachable(endpoint: &str, message: &str, tried: u32, started: Instant) -> Value {
    json!({
        "status": "unreachable", "endpoint": endpoint, "message": message, "attempts": tried,
        "duration_ms": started.elapsed().as_millis() as u64,
    })
}

async fn attempt(http: &reqwest::Client, call: &Call) -> Result<(u16, Value), Broken> {
    let mut request = http.request(call.method.clone(), call.url.clone());
    request = request.headers(call.headers.clone()).timeout(call.timeout);
    request = match &call.body {
        None => request,
        Some(Value::String(text)) => request.body(text.clone()),
        Some(value) => request.json(value),
    };
    let mut response = request.send().await.map_err(|error| broken(&error))?;
    let status = response.status().as_u16();
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            let message = format!("the answer is over {ANSWER_BYTES_MAX} bytes");
            return Err(Broken { message, again: false, by_endpoint: false });
        }
        body.extend_from_slice(&chunk);
    }
    let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
    Ok((status, serde_json::from_slice(&body).unwrap_or_else(|_| text())))
}

fn broken(error: &reqwest::Error) -> Broken {
    let refused = outward::refusal(error).is_some();
    let again = !refused && (error.is_connect() || error.is_timeout());
    Broken { message: outward::innermost(error), again, by_endpoint: !refused }
}

/// What fails or does not: the address without its query.
fn endpoint(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// The calls of all inputs: an object with a `url` or `endpoint`, a list of them, an object with
/// `requests`, or an input that only has a `url`.
fn read(task: &AgentTask, hosts: &AllowedHosts) -> Result<Vec<Call>, AgentFailure> {
    let mut calls = Vec::new();
    for input in &task.inputs {
        for call in calls_of(input)? {
            let allowed = call.and_then(|call| match outward::check(&call.url, hosts) {
                Ok(()) => Ok(call),
                Err(why) => Err(why.to_string()),
            });
            calls.push(
                allowed.map_err(|why| AgentFailure::invalid(format!("{}: {why}", input.name())))?,
            );
        }
    }
    match calls.len() {
        0 => Err(AgentFailure::invalid("no calls to make: an input needs a `url`")),
        n if n > CALLS_MAX => Err(AgentFailure::invalid(format!("{n} calls, at most {CALLS_MAX}"))),
        _ => Ok(calls),
    }
}

fn calls_of(input: &AgentInput) -> Result<Vec<Result<Call, String>>, AgentFailure> {
    let given = match &input.data {
        InputData::None if input.url.is_empty() => return Ok(Vec::new()),
        InputData::None => json!({}),
        InputData::Json(Value::String(text)) => {
            serde_json::from_str(text).unwrap_or_else(|_| json!(text))
        }
        InputData::Json(value) => value.clone(),
        InputData::Bytes(bytes) => serde_json::from_slice(bytes).unwrap_or_default(),
    };
    let list = match given["requests"].as_array().or_else(|| given.as_array()) {
        Some(list) => list.clone(),
        None => vec![given],
    };
    Ok(list.iter().map(|one| call(one, input)).collect())
}

fn call(given: &Value, input: &AgentInput) -> Result<Call, String> {
    let empty = Map::new();
    let fields = match given {
        Value::Object(fields) => fields,
        // The body of a call whose address stands beside it, or the address itself.
        Value::String(text) if input.url.is_empty() => {
            return call(&json!({ "url": text }), input);
        }
        _ => &empty,
    };
    let named = ["url", "endpoint"].iter().find_map(|key| fields.get(*key));
    let text = match named {
        Some(url) => url.as_str().ok_or_else(|| format!("{url} is no URL"))?,
        None => &input.url,
    };
    let mut url = Url::parse(text).map_err(|error| format!("`{text}` is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("`{text}` is no http or https URL"));
    }
    let object = |key: &str| match fields.get(key) {
        None | Some(Value::Null) => Ok(&empty),
        Some(value) => value.as_object().ok_or_else(|| format!("{key} is no object")),
    };
    for (key, value) in object("params")? {
        url.query_pairs_mut().append_pair(key, &plain(value));
    }
    let body = ["body", "json", "data"].iter().find_map(|key| fields.get(*key)).cloned();
    let fallback = if body.is_some() { "POST" } else { "GET" };
    let method = fields.get("method").map_or_else(|| fallback.to_owned(), plain).to_uppercase();
    let method =
        Method::from_bytes(method.as_bytes()).map_err(|_| format!("no method: {method}"))?;
    let mut headers = HeaderMap::new();
    for (key, value) in object("headers")? {
        let name = HeaderName::try_from(key.as_str()).map_err(|_| format!("no header: {key}"))?;
        let value = HeaderValue::try_from(plain(value)).map_err(|_| format!("header {key}"))?;
        headers.insert(name, value);
    }
    let timeout = match fields.get("timeout") {
        None | Some(Value::Null) => TRY_TIMEOUT,
        Some(seconds) => {
            let seconds = seconds.as_f64().filter(|seconds| (0.001..=3600.0).contains(seconds));
            Duration::from_secs_f64(seconds.ok_or("timeout is seconds, up to 3600")?)
        }
    };
    Ok(Call { method, url, headers, body, timeout })
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::{any, get};

    use super::super::task;
    use super::*;
    use crate::outward::testing;

    fn api_task(value: Value) -> AgentTask {
        task("api_caller", vec![AgentInput::json(value)], &[])
    }

    async fn serve(router: Router) -> String {
        format!("http://{}", testing::serve(router).await)
    }

    async fn run(caller: &ApiCaller, value: Value) -> Result<Value, AgentFailure> {
        caller.run(&api_task(value), &Clients::default(), &AllowedHosts::default()).await
    }

    #[tokio::test]
    async fn contract_4_5_calls_are_made_and_counted() {
        let router = Router::new()
            .route("/echo", any(|body: String| async move { body }))
            .route(
                "/query",
                get(|axum::extract::RawQuery(q): axum::extract::RawQuery| async move {
                    q.unwrap_or_default()
                }),
            )
            .route("/no", get(|| async { (StatusCode::NOT_FOUND, "no") }));
        let base = serve(router).await;
        let calls = json!([
            {"url": format!("{base}/echo"), "body": {"a": 1}},
            {"endpoint": format!("{base}/query"), "params": {"n": 3}},
            {"url": format!("{base}/no")},
        ]);
        let data = run(&ApiCaller::default(), calls).await.unwrap();
        assert_eq!((&data["success_count"], &data["error_count"]), (&json!(2), &json!(1)));
        assert_eq!(data["responses"][0]["data"], json!({"a": 1}));
        assert_eq!(data["responses"][1]["data"], "n=3");
        assert_eq!(data["responses"][2]["status_code"], 404);
        assert_eq!(data["responses"][2]["attempts"], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn tries_that_open_the_circuit_themselves_say_what_they_found() {
        // Port 1 of this machine: nobody listens. The second of its fifth and sixth try opens the circuit.
        let (caller, url) = (ApiCaller::default(), "http://127.0.0.1:1/x");
        for _ in 0..2 {
            let failure = run(&caller, json!({"url": url})).await.unwrap_err();
            assert!(failure.message.starts_with("no call was answered"), "{}", failure.message);
        }
        let data = run(&caller, json!({"url": url})).await.unwrap();
        assert_eq!(data["responses"][0]["status"], "circuit_open");
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_says_nothing_against_its_endpoint() {
        let large = || async { "x".repeat(ANSWER_BYTES_MAX + 1) };
        let url = serve(Router::new().route("/", get(large))).await;
        let caller = ApiCaller::default();
        for _ in 0..7 {
            let data = run(&caller, json!({"url": url})).await.unwrap();
            assert_eq!(data["responses"][0]["status"], "error");
        }
    }

    #[tokio::test]
    async fn contract_4_7_five_failures_open_the_circuit() {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let router = Router::new().route(
            "/",
            get(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                async { StatusCode::INTERNAL_SERVER_ERROR }
            }),
        );
        let url = serve(router).await;
        let caller = ApiCaller::default();
        for _ in 0..5 {
            let data = run(&caller, json!({"url": url})).await.unwrap();
            assert_eq!(data["responses"][0]["status"], "error");
        }
        let data = run(&caller, json!({"url": url})).await.unwrap();
        let response = &data["responses"][0];
        assert_eq!(response["status"], "circuit_open");
        assert_eq!(response["endpoint"], format!("{url}/"));
        assert!(response["message"].is_string());
        assert_eq!(calls.load(Ordering::Relaxed), 5, "the sixth call was not made");
    }

    #[tokio::test(start_paused = true)]
    async fn contract_4_7_only_silence_is_tried_again_with_growing_pauses() {
        // Port 1 of this machine: nobody listens.
        let started = Instant::now();
        let caller = ApiCaller::default();
        let failure = run(&caller, json!({"url": "http://127.0.0.1:1/"})).await.unwrap_err();
        assert_eq!((failure.code, failure.retryable), (FailureCode::ExecutionFailed, true));
        let took = started.elapsed();
        assert!(
            took >= Duration::from_secs(3) && took < Duration::from_secs(4),
            "1 s, then 2 s: {took:?}"
        );
    }

    #[tokio::test]
    async fn calls_are_made_over_https() {
        let addr = testing::serve_tls(Router::new().route("/", get(|| async { "7" }))).await;
        let task = api_task(json!({"url": format!("https://localhost:{}/", addr.port())}));
        let (caller, open) = (ApiCaller::default(), AllowedHosts::default());
        let data = caller.run(&task, &testing::clients(), &open).await.unwrap();
        assert_eq!((&data["success_count"], &data["responses"][0]["data"]), (&json!(1), &json!(7)));
    }

    #[tokio::test]
    async fn hosts_that_are_not_on_the_list_are_not_called() {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let router = Router::new().route(
            "/",
            get(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                async { "in" }
            }),
        );
        let port = testing::serve(router).await.port();
        let run = async |list: &str, host: &str| {
            let hosts = AllowedHosts::parse(std::iter::once(list)).unwrap();
            let task = api_task(json!({"url": format!("http://{host}:{port}/")}));
            ApiCaller::default().run(&task, &Clients::default(), &hosts).await
        };
        for (list, host) in [("10.0.0.0/8", "127.0.0.1"), ("a.example", "localhost")] {
            let failure = run(list, host).await.unwrap_err();
            assert_eq!(failure.code, FailureCode::ValidationError);
            assert!(failure.message.contains("allowed hosts"), "{failure}");
        }
        // Only its address tells that this one is not in the network.
        let response = run("10.0.0.0/8", "localhost").await.unwrap()["responses"][0].take();
        assert_eq!((&response["status"], &response["attempts"]), (&json!("error"), &json!(1)));
        assert_eq!(calls.load(Ordering::Relaxed), 0);
        assert!(run("127.0.0.0/8", "127.0.0.1").await.is_ok());
    }

    #[tokio::test]
    async fn nonsense_is_named() {
        for (value, word) in [
            (json!({}), "URL"),
            (json!([]), "no calls"),
            (json!({"url": 3}), "no URL"),
            (json!({"url": "ftp://a"}), "no http or https"),
            (json!({"url": "http://a", "method": "G T"}), "no method"),
            (json!({"url": "http://a", "headers": {"a b": 1}}), "no header"),
            (json!({"url": "http://a", "timeout": -1}), "timeout"),
            (json!({"url": "http://a", "headers": ["a: b"]}), "headers is no object"),
            (json!({"url": "http://a", "params": "a=b"}), "params is no object"),
            (json!(vec![json!({"url": "http://a"}); CALLS_MAX + 1]), "at most"),
        ] {
            let failure = run(&ApiCaller::default(), value.clone()).await.unwrap_err();
            assert_eq!(failure.code, FailureCode::ValidationError);
            assert!(failure.message.contains(word), "{value}: {failure}");
        }
    }
}
