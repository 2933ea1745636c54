//! The client against members that answer, refuse, hang up and hang.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;

type Script = Arc<dyn Fn(usize) -> Response + Send + Sync>;

/// A member that answers its n-th request by a script and writes down the keys it saw.
struct FakeMember {
    url: String,
    keys: Arc<Mutex<Vec<String>>>,
}

impl FakeMember {
    async fn start(script: impl Fn(usize) -> Response + Send + Sync + 'static) -> Self {
        let keys: Arc<Mutex<Vec<String>>> = Arc::default();
        let script: Script = Arc::new(script);
        let router = Router::new().fallback(answer).with_state((Arc::clone(&keys), script));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, keys }
    }
}

async fn answer(
    State((keys, script)): State<(Arc<Mutex<Vec<String>>>, Script)>,
    headers: HeaderMap,
) -> Response {
    let key = headers.get("idempotency-key").map_or("", |key| key.to_str().unwrap()).to_owned();
    let number = {
        let mut keys = keys.lock();
        keys.push(key);
        keys.len() - 1
    };
    script(number)
}

fn client(urls: &[&str]) -> Client {
    let urls = urls.iter().map(|url| (*url).to_owned()).collect();
    let deadline = Duration::from_millis(600);
    let options = Options { urls, deadline, try_timeout: deadline, ..Options::default() };
    Client::new(&options).unwrap()
}

async fn dead_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn a_dead_member_is_left_and_the_live_one_remembered() {
    let live = FakeMember::start(|_| axum::Json(json!({"ok": true})).into_response()).await;
    let client = client(&[&dead_url().await, &live.url]);
    assert_eq!(client.get("/x").await.unwrap(), json!({"ok": true}));
    assert_eq!(client.preferred().trim_end_matches('/'), live.url);
}

#[tokio::test]
async fn a_member_that_hangs_leaves_time_for_another() {
    // Accepts by the system's backlog, and never answers.
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hung_url = format!("http://{}", hung.local_addr().unwrap());
    let live = FakeMember::start(|_| axum::Json(json!(1)).into_response()).await;
    assert_eq!(client(&[&hung_url, &live.url]).get("/x").await.unwrap(), json!(1));
}

#[tokio::test]
async fn all_tries_of_one_write_carry_one_key() {
    let busy = |n: usize| match n {
        0 => (StatusCode::SERVICE_UNAVAILABLE, r#"{"error":"no leader"}"#).into_response(),
        1 => StatusCode::GATEWAY_TIMEOUT.into_response(),
        _ => axum::Json(json!({"done": true})).into_response(),
    };
    let member = FakeMember::start(busy).await;
    let client = client(&[&member.url]);
    client.call(Call::post("/x", &json!({}))).await.unwrap();
    let keys = member.keys.lock().clone();
    assert_eq!(keys.len(), 3);
    assert!(!keys[0].is_empty() && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[tokio::test]
async fn a_refusal_is_final_and_typed() {
    let body = r#"{"code":"NODE_NOT_FOUND","error":"Node not found","success":false}"#;
    let member = FakeMember::start(move |_| (StatusCode::NOT_FOUND, body).into_response()).await;
    let error = client(&[&member.url]).get("/x").await.unwrap_err();
    let problem = error.problem().unwrap();
    assert_eq!((problem.status, problem.code.as_str()), (404, "NODE_NOT_FOUND"));
    assert_eq!(error.to_string(), "Node not found (404 NODE_NOT_FOUND)");
    assert_eq!(member.keys.lock().len(), 1);
}

#[tokio::test]
async fn unknown_and_unavailable_are_told_apart() {
    let gone = client(&[&dead_url().await]);
    let error = gone.call(Call::post("/x", &json!({}))).await.unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");

    let member = FakeMember::start(|_| StatusCode::GATEWAY_TIMEOUT.into_response()).await;
    let client = client(&[&member.url]);
    let error = client.call(Call::post("/x", &json!({})).key("k1")).await.unwrap_err();
    assert!(matches!(&error, ClientError::Unknown { request, .. } if request == "k1"), "{error}");
    let error = client.get("/x").await.unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }), "reads change nothing: {error}");
}

#[test]
fn segments_are_escaped_and_urls_checked() {
    assert_eq!(segment("käse/1 ?"), "k%C3%A4se%2F1%20%3F");
    assert!(parse_url("127.0.0.1:9000").is_ok());
    assert!(parse_url("ftp://x").is_err());
}
