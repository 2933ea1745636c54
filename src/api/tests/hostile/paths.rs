//! Ids and queries that make no sense.

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode};

use super::{KEY, STREAMS, all_doors, ask, check, default_world, filled, still_serves};

/// Percent-encoded, as they stand in a URI.
fn ids() -> Vec<String> {
    let mut ids: Vec<String> = [
        "",
        "%00",
        "%0a%0d",
        "%1b%5b31m",
        "..",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "%2f",
        "a/b",
        "a//b",
        "%ff%fe",
        "%c3%28",
        "%",
        "%zz",
        "%f0%9f%92%a9",
        "%e2%80%ae",
        "-1",
        "18446744073709551616",
        "0x1",
        "1e999",
        "null",
        "%23",
        "s%230",
        "{}",
        "%7b%7d",
        "*",
        "'%20OR%201=1--",
        "a.b.c",
        "....",
    ]
    .map(str::to_owned)
    .into();
    ids.push("x".repeat(10 * 1024));
    ids.push("%20".repeat(2000));
    ids.push("k.".repeat(2000));
    ids
}

#[tokio::test]
async fn contract_1_2_ids_are_opaque_and_odd_ones_name_nothing() {
    let world = default_world().await;
    let doors = all_doors();
    for (method, path) in doors.iter().filter(|(_, path)| path.contains('{')) {
        for id in ids() {
            let uri = filled(path, &id);
            // What is no URI never comes so far.
            if uri.parse::<axum::http::Uri>().is_err() {
                continue;
            }
            for body in ["", "{}", r#"{"value":1,"host":"h","status":"active"}"#] {
                ask(&world, method, &uri, Body::from(body), body).await;
            }
        }
    }
    still_serves(&world).await;
}

#[tokio::test]
async fn a_path_that_is_no_text_is_refused_in_the_familys_shape() {
    // The router's own answer was plain text.
    let world = default_world().await;
    let answer = world.get("/api/v1/tasks/%ff").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.json()["code"], "INVALID_PATH");
}

/// All that any list, read or stream looks for.
const KEYS: [&str; 25] = [
    "limit",
    "offset",
    "cursor",
    "sort",
    "order",
    "status",
    "created_after",
    "capability",
    "node_id",
    "agent_type",
    "task_type",
    "task_id",
    "nodes",
    "include",
    "consistency",
    "max_age",
    "min_index",
    "verbose",
    "after",
    "drill_id",
    "fault",
    "peer",
    "wait",
    "swarm_id",
    "bot_ids",
];

const VALUES: [&str; 9] =
    ["", "x", "-1", "0", "18446744073709551616", "1e308", "%00", "%ff", "99999999999999999999s"];

#[tokio::test]
async fn contract_1_2_queries_that_make_no_sense_are_refused_or_ignored() {
    let world = default_world().await;
    let long = "x".repeat(10 * 1024);
    for (method, path) in all_doors().into_iter().filter(|(method, _)| *method == "GET") {
        let path = filled(path, "t");
        for key in KEYS {
            for value in VALUES {
                let uri = format!("{path}?{key}={value}");
                ask(&world, method, &uri, Body::empty(), "a query").await;
            }
        }
        for query in ["&&&", "=", "%ff=%ff", "limit", "limit=1&limit=x", "?", &long] {
            ask(&world, method, &format!("{path}?{query}"), Body::empty(), "a query").await;
        }
    }
    still_serves(&world).await;
}

#[tokio::test]
async fn headers_that_make_no_sense_are_refused_or_ignored() {
    let world = default_world().await;
    let long = "x".repeat(64 * 1024);
    let values: [&[u8]; 9] = [
        b"",
        b" ",
        b"\xff\xfe",
        b"*",
        b"\"\"",
        b"-1",
        b"18446744073709551616",
        b"Bearer \xff",
        long.as_bytes(),
    ];
    let names = [
        "idempotency-key",
        "if-match",
        "last-event-id",
        "authorization",
        "cookie",
        "origin",
        "accept",
        "x-request-id",
        "host",
        "upgrade",
    ];
    for (method, path) in all_doors() {
        if STREAMS.contains(&path) && path != "/api/v1/events" {
            continue;
        }
        for name in names {
            for value in values {
                let request = Request::builder().method(method).uri(filled(path, "t"));
                let value = HeaderValue::from_bytes(value).unwrap();
                let mut request = request.body(Body::empty()).unwrap();
                request.headers_mut().insert("x-quorate-admin-key", HeaderValue::from_static(KEY));
                request.headers_mut().insert(name, value);
                check(&world, request, name).await;
            }
        }
    }
    still_serves(&world).await;
}
