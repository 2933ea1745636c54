//! Whatever is sent to whichever door: a documented refusal in the family's shape or an answer, never
//! 5xx and never a panic, and the member serves on (contract 1.2, 1.3).

mod bodies;
mod fields;
mod paths;

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::ServiceExt as _;

use super::World;
use crate::api::auth::doors;
use crate::api::{Admin, ApiOptions};
use crate::security::AdminKey;

const KEY: &str = "sixteen letters!";
/// Far longer than any answer takes: it tells a door that hangs from one that is slow.
const PATIENCE: Duration = Duration::from_secs(30);
/// Doors whose good answers have no end, or are large.
const STREAMS: [&str; 2] = ["/api/v1/events", "/api/v1/backup"];
/// Doors that answer probes in plain text.
const PLAIN: [&str; 3] = ["/livez", "/healthz", "/readyz"];

/// A member whose every door is open, with something behind most of them.
async fn open(body_bytes_max: usize) -> World {
    let (admin, admin_key) = (Admin { drills: true, ..Admin::default() }, AdminKey::new(KEY));
    let defaults = ApiOptions::default();
    let world = World::with(ApiOptions { admin, admin_key, body_bytes_max, ..defaults }).await;
    world.play_steps();
    world.register("n1").await;
    world.agent("a1", "x").await;
    world.submit("t").await;
    world.place("t", "n1").await;
    world
}

async fn default_world() -> World {
    open(ApiOptions::default().body_bytes_max).await
}

/// A door with its parameters filled in.
fn filled(path: &str, with: &str) -> String {
    match (path.find('{'), path.find('}')) {
        (Some(start), Some(end)) => format!("{}{with}{}", &path[..start], &path[end + 1..]),
        _ => path.to_owned(),
    }
}

/// Doors that something is asked for: all but those that end the test instead of answering it.
fn all_doors() -> Vec<(&'static str, &'static str)> {
    let doors: Vec<_> = doors().filter(|(_, path)| *path != "/dashboard").collect();
    assert!(doors.len() > 80, "the doors are where this test looks for them");
    doors
}

/// Sends one request and checks the shape of its answer; `what` names it when it is wrong.
async fn ask(world: &World, method: &str, uri: &str, body: Body, what: &str) -> StatusCode {
    let request = Request::builder().method(method).uri(uri).header("x-quorate-admin-key", KEY);
    check(world, request.body(body).unwrap(), what).await
}

async fn check(world: &World, request: Request<Body>, what: &str) -> StatusCode {
    let what = format!("{} {:.80} with {what:.200}", request.method(), request.uri());
    let answer = timeout(PATIENCE, world.router.clone().oneshot(request)).await;
    let answer = answer.unwrap_or_else(|_| panic!("no answer to {what}")).unwrap();
    let status = answer.status();
    if status.is_success() {
        return status;
    }
    let body = timeout(PATIENCE, to_bytes(answer.into_body(), usize::MAX)).await.unwrap().unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let problem: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{what}: {text}"));
    // Whoever asks for an index that is not there yet is told so, as the documentation says.
    let is_behind = problem["code"] == "MEMBER_BEHIND";
    assert!(status.as_u16() < 500 || is_behind, "{what}: {status} {text}");
    assert_eq!(problem["success"], false, "{what}: {text}");
    let error = if problem["error"].is_object() { "/error/message" } else { "/error" };
    let said = problem.pointer(error).and_then(Value::as_str);
    assert!(said.is_some_and(|text| !text.is_empty()), "{what}: {text}");
    for key in ["detail", "message", "code", "error_code"] {
        assert!(problem[key].as_str().is_some_and(|text| !text.is_empty()), "{what}: {text}");
    }
    status
}

/// Whether the member does what it did before, and shows everything it has been told.
async fn still_serves(world: &World) {
    for (method, path) in all_doors() {
        let has_parameter = path.contains('{');
        if method != "GET" || has_parameter || STREAMS.contains(&path) || path == "/ws" {
            continue;
        }
        let answer = world.get(path).await;
        assert!(answer.status.as_u16() < 500, "{path}: {}", answer.text);
        if PLAIN.contains(&path) {
            assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        }
    }
    let body = r#"{"task_id":"after","task_type":"t"}"#;
    world.post("/api/v1/tasks", body).await.ok();
    assert_eq!(world.get("/api/v1/tasks/after").await.ok()["status"], "queued");
    let config = world.get("/api/v1/config").await.ok();
    assert!(config["config"]["network"].is_object(), "the configuration is there");
    let status = world.get("/api/v1/status").await.ok();
    assert_eq!(status["success"], json!(true));
}
