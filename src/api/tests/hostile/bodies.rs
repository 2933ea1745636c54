//! Bodies that are no JSON, no object, or too large.

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use serde_json::json;

use super::{
    KEY, all_doors, ask, ask_all, check, default_world, filled, open, request, shared_doors,
    still_serves,
};
use crate::api::tests::World;

/// Doors that read their body. A longer one than they take is refused, and one that is no object.
const READERS: [(&str, &str); 43] = [
    ("POST", "/api/v1/admin/rehearse"),
    ("PUT", "/api/v1/config"),
    ("PUT", "/api/v1/config/a.b"),
    ("POST", "/api/v1/control/stop"),
    ("POST", "/api/v1/control/start"),
    ("POST", "/api/v1/control/restart"),
    ("POST", "/api/v1/auth/login"),
    ("POST", "/api/v1/auth/refresh"),
    ("POST", "/api/v1/auth/logout"),
    ("POST", "/api/v1/auth/api-keys"),
    ("POST", "/api/v1/nodes/n1/register"),
    ("POST", "/api/v1/nodes/n1/heartbeat"),
    ("PUT", "/api/v1/nodes/n1/status"),
    ("POST", "/api/v1/nodes/n1/drain"),
    ("POST", "/api/v1/agents/register"),
    ("POST", "/api/v1/tasks"),
    ("POST", "/api/v1/tasks/batch"),
    ("DELETE", "/api/v1/tasks/t"),
    ("POST", "/api/v1/tasks/t/result"),
    ("POST", "/api/v1/dead-letters/replay"),
    ("POST", "/api/v1/dead-letters/purge"),
    ("POST", "/api/v1/alerts/a/suppress"),
    ("PUT", "/api/v1/pipelines/p"),
    ("POST", "/api/v1/cluster/init"),
    ("POST", "/api/v1/cluster/join"),
    ("POST", "/api/v1/cluster/transfer-leader"),
    ("POST", "/api/v1/admin/drills"),
    ("POST", "/api/v1/admin/drills/1/end"),
    ("POST", "/api/v1/admin/faults"),
    ("POST", "/api/v1/admin/stop"),
    ("POST", "/bots"),
    ("POST", "/api/v1/swarms"),
    ("PATCH", "/swarms/12345678-1234-4234-8234-123456789abc"),
    ("POST", "/bots/12345678-1234-4234-8234-123456789abc/tasks"),
    ("POST", "/swarms/12345678-1234-4234-8234-123456789abc/tasks"),
    ("POST", "/bots/12345678-1234-4234-8234-123456789abc/tasks/lease"),
    ("POST", "/swarms/12345678-1234-4234-8234-123456789abc/tasks/lease"),
    ("POST", "/bots/leases"),
    ("POST", "/bots/leases/renew"),
    ("POST", "/bots/leases/release"),
    ("POST", "/assignments/complete"),
    ("POST", "/assignments/fail"),
    ("POST", "/orchestrate"),
];

/// What is no JSON object, with a name for it.
fn no_objects() -> Vec<(&'static str, Vec<u8>)> {
    let texts = [
        ("a brace", "{"),
        ("a list", "[]"),
        ("null", "null"),
        ("a number", "7"),
        ("a text", "\"x\""),
        ("true", "true"),
        ("a half pair", "{\"task_type\":"),
        ("two objects", "{} {}"),
        ("single quotes", "{'a':1}"),
        ("a trailing comma", "{\"a\":1,}"),
        ("a bad escape", r#"{"a":"\ud800"x}"#),
        ("NaN", "{\"a\":NaN}"),
        ("a control character", "{\"a\":\"\u{1}\"}"),
        ("a form", "task_type=t&priority=1"),
        ("a mark of byte order", "\u{feff}{}"),
    ];
    let mut all: Vec<_> = texts.map(|(name, text)| (name, text.as_bytes().to_vec())).into();
    all.push(("no UTF-8", b"{\"task_type\":\"\xff\xfe\"}".to_vec()));
    all.push(("no UTF-8 in a key", b"{\"\xc3\x28\":1}".to_vec()));
    all.push(("zeros", vec![0; 64]));
    all.push(("open lists", vec![b'['; 100_000]));
    all.push(("open objects", b"{\"a\":".repeat(100_000)));
    all
}

#[tokio::test]
async fn contract_1_2_bodies_that_are_no_objects_are_refused_by_every_reader() {
    let world = default_world().await;
    for (method, path) in READERS {
        for (name, body) in no_objects() {
            let status = ask(&world, method, path, Body::from(body), name).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{method} {path} with {name}");
        }
    }
    still_serves(&world).await;
}

/// Whether a door is the one at `path`, where family B's are at the root as well.
fn is_at(door: &str, path: &str) -> bool {
    let bare = |path: &str| path.strip_prefix("/api/v1").unwrap_or(path).to_owned();
    let (door, path) = (bare(door), bare(path));
    let (mut of_door, mut of_path) = (door.split('/'), path.split('/'));
    loop {
        match (of_door.next(), of_path.next()) {
            (Some(wild), Some(_)) if wild.starts_with("{*") => return true,
            (Some(wild), Some(_)) if wild.starts_with('{') => {}
            (Some(one), Some(other)) if one == other => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// The list above is written by hand: whoever adds a door that reads its body adds it there.
#[tokio::test]
async fn contract_1_2_every_door_that_minds_its_body_stands_in_the_list() {
    let world = default_world().await;
    let mut missing = Vec::new();
    for (method, door) in all_doors() {
        let is_listed = READERS.iter().any(|(its, path)| *its == method && is_at(door, path));
        if is_listed || method == "GET" {
            continue;
        }
        let request = request(method, &filled(door, "0none"), Body::from("[]"));
        let answer = world.send(request).await;
        // Family N's doors say 422, in a shape of their own.
        if answer.status == StatusCode::BAD_REQUEST && answer.json()["code"] == "INVALID_BODY" {
            let error = &answer.json()["error"];
            if error.is_string() {
                missing.push(format!("{method} {door}"));
            }
        }
    }
    assert_eq!(missing, [""; 0], "doors that read a body");
    let doors: Vec<_> = all_doors();
    for (method, path) in READERS {
        let is_there = doors.iter().any(|(its, door)| *its == method && is_at(door, path));
        assert!(is_there, "{method} {path} is no door any more");
    }
}

#[tokio::test]
async fn contract_1_2_no_door_minds_a_body_that_makes_no_sense() {
    let world = default_world().await;
    for (method, path, share) in shared_doors() {
        let bodies = no_objects().into_iter().enumerate().filter(|(number, _)| share.has(*number));
        let path = filled(path, "0none");
        let requests = bodies
            .map(|(_, (name, body))| (request(method, &path, Body::from(body)), name.to_owned()));
        ask_all(&world, &path, requests).await;
    }
    still_serves(&world).await;
}

#[tokio::test]
async fn contract_1_2_every_method_of_every_route_is_answered() {
    let world = default_world().await;
    for (_, path) in all_doors() {
        // An answer to HEAD has no body to look at.
        let methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"];
        let path = filled(path, "0none");
        let with = |method| (request(method, &path, Body::empty()), "nothing".to_owned());
        ask_all(&world, &path, methods.map(with)).await;
    }
    still_serves(&world).await;
}

/// A body of one piece, whose length the client does not say.
fn streamed(body: Bytes) -> Body {
    Body::from_stream(futures::stream::iter([Ok::<_, std::io::Error>(body)]))
}

#[tokio::test]
async fn contract_1_3_bodies_beyond_the_limit_are_413_at_every_reader() {
    let world = open(1024 * 1024).await;
    let large = Bytes::from(format!(r#"{{"task_type":"{}"}}"#, "x".repeat(10 * 1024 * 1024)));
    for (method, path) in READERS {
        for (name, body) in
            [("10 MB", Body::from(large.clone())), ("10 MB in a stream", streamed(large.clone()))]
        {
            let status = ask(&world, method, path, body, name).await;
            assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{method} {path}");
        }
        let request = Request::builder().method(method).uri(path);
        let request = request.header("x-quorate-admin-key", KEY).header("content-length", "1e9");
        check(&world, request.body(Body::from("{}")).unwrap(), "an odd content-length").await;
    }
    for (method, path) in all_doors() {
        let body = Body::from(large.clone());
        ask(&world, method, &filled(path, "0none"), body, "10 MB").await;
    }
    still_serves(&world).await;
}

async fn input(world: &World, task_id: &str, input: &str) -> StatusCode {
    let body = format!(r#"{{"task_id":"{task_id}","task_type":"t","input_data":{input}}}"#);
    let status = ask(world, "POST", "/api/v1/tasks", Body::from(body), "an input").await;
    let uri = format!("/api/v1/tasks/{task_id}?include=input");
    ask(world, "GET", &uri, Body::empty(), "nothing").await;
    status
}

#[tokio::test]
async fn deep_and_large_inputs_are_kept_or_refused() {
    let world = default_world().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(input(&world, "deep", &deep).await, StatusCode::OK, "it is never looked into");
    let shown = world.get("/api/v1/tasks/deep?include=input").await;
    assert!(shown.text.contains(&deep), "and given back as it came");
    let objects = format!("{}1{}", r#"{"a":"#.repeat(50_000), "}".repeat(50_000));
    assert_eq!(input(&world, "objects", &objects).await, StatusCode::OK);
    let large = json!("x".repeat(10 * 1024 * 1024)).to_string();
    let status = input(&world, "large", &large).await;
    assert!([StatusCode::OK, StatusCode::PAYLOAD_TOO_LARGE].contains(&status), "{status}");
    for field in ["requirements", "metadata", "steps", "inputs", "concurrency", "priority"] {
        let body = format!(r#"{{"task_type":"t","{field}":{deep}}}"#);
        ask(&world, "POST", "/api/v1/tasks", Body::from(body), field).await;
    }
    let step = format!(r#"{{"agent_type":"x","parameters":{{"a":{deep}}}}}"#);
    let body = format!(r#"{{"steps":[{step}]}}"#);
    ask(&world, "PUT", "/api/v1/pipelines/p", Body::from(body), "deep parameters").await;
    let body = format!(r#"{{"success":true,"result":{deep}}}"#);
    ask(&world, "POST", "/api/v1/tasks/t/result", Body::from(body), "a deep result").await;
    for path in ["/api/v1/config/a", "/api/v1/config/a.b.c"] {
        let body = format!(r#"{{"value":{deep}}}"#);
        ask(&world, "PUT", path, Body::from(body), "a deep value").await;
    }
    let value = format!("{}{}", "[".repeat(120), "]".repeat(120));
    let body = format!(r#"{{"value":{value}}}"#);
    let path = format!("/api/v1/config/{}", vec!["k"; 30].join("."));
    let status = ask(&world, "PUT", &path, Body::from(body), "a deep value").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "together they are deeper than JSON may be");
    still_serves(&world).await;
}
