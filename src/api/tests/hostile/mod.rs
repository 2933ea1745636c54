//! Whatever is sent to whichever door: a documented refusal in the family's shape or an answer, never
//! 5xx and never a panic, and the member serves on (contract 1.2, 1.3).

mod bodies;
mod fields;
mod paths;

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use futures::{StreamExt as _, stream};
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
/// Requests under way at once. Some doors wait, for a run to end or for an index to come, and many
/// proposals are committed for little more than one.
const AT_ONCE: usize = 16;
/// Doors that say 503 to a second request while the first is under way, as they should.
const ONE_BY_ONE: [&str; 3] = ["/api/v1/backup", "/api/v1/cluster/", "/api/v1/admin/rehearse"];
/// Prefixes under which the doors of family N are served.
const PREFIXES: usize = 3;
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

/// Which values a door is asked to meet, by their number.
#[derive(Clone, Copy)]
enum Share {
    All,
    /// A third, beginning with this one.
    Third(usize),
}

impl Share {
    fn has(self, number: usize) -> bool {
        match self {
            Self::All => true,
            Self::Third(first) => number % PREFIXES == first,
        }
    }
}

/// All doors, with what each has to meet. One handler under three prefixes meets a third of all
/// under each, so that none of its values is left out and none is asked three times.
fn shared_doors() -> Vec<(&'static str, &'static str, Share)> {
    let doors = all_doors();
    let is_row = |row: &[(&str, &str)]| {
        row.iter().all(|(method, path)| *method == row[0].0 && path.ends_with(row[0].1))
            && row[1].1.starts_with("/api/")
            && row[2].1.starts_with("/api/v1/")
    };
    let (mut shared, mut rest) = (Vec::new(), &doors[..]);
    while let Some((method, path)) = rest.first() {
        if rest.len() >= PREFIXES && is_row(&rest[..PREFIXES]) {
            let row = rest[..PREFIXES].iter().enumerate();
            shared.extend(row.map(|(place, (method, path))| (*method, *path, Share::Third(place))));
            rest = &rest[PREFIXES..];
        } else {
            shared.push((*method, *path, Share::All));
            rest = &rest[1..];
        }
    }
    let thirds = shared.iter().filter(|(_, _, share)| matches!(share, Share::Third(_))).count();
    assert!(thirds > 100 && shared.len() == doors.len(), "{thirds} doors under three prefixes");
    shared
}

fn request(method: &str, uri: &str, body: Body) -> Request<Body> {
    let request = Request::builder().method(method).uri(uri).header("x-quorate-admin-key", KEY);
    request.body(body).unwrap()
}

/// Sends one request and checks the shape of its answer; `what` names it when it is wrong.
async fn ask(world: &World, method: &str, uri: &str, body: Body, what: &str) -> StatusCode {
    check(world, request(method, uri, body), what).await
}

/// Sends all of them, which are for one door, a few at a time and checks each answer; gives how many
/// there were.
async fn ask_all(
    world: &World,
    door: &str,
    requests: impl IntoIterator<Item = (Request<Body>, String)>,
) -> usize {
    let check = |(request, what): (_, String)| async move { check(world, request, &what).await };
    let is_single = ONE_BY_ONE.iter().any(|single| door.starts_with(single));
    let at_once = if is_single { 1 } else { AT_ONCE };
    stream::iter(requests).map(check).buffer_unordered(at_once).count().await
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
