//! Ids and queries that make no sense.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode};

use super::{
    PREFIXES, STREAMS, all_doors, ask_all, default_world, filled, request, shared_doors,
    still_serves,
};

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
    let doors = shared_doors().into_iter();
    for (method, path, share) in doors.filter(|(_, path, _)| path.contains('{')) {
        // A read looks at no body.
        let bodies = ["", "{}", r#"{"value":1,"host":"h","status":"active"}"#];
        let bodies = if method == "GET" { &bodies[..1] } else { &bodies[..] };
        let ids = ids().into_iter().enumerate().filter(|(number, _)| share.has(*number));
        // What is no URI never comes so far.
        let uris = ids.map(|(_, id)| filled(path, &id));
        let uris = uris.filter(|uri| uri.parse::<axum::http::Uri>().is_ok());
        let requests = uris.flat_map(|uri| {
            let with = move |body: &str| {
                (request(method, &uri, Body::from(body.to_owned())), body.to_owned())
            };
            bodies.iter().copied().map(with)
        });
        ask_all(&world, path, requests).await;
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
    for (method, path, share) in shared_doors().into_iter().filter(|(method, ..)| *method == "GET")
    {
        let path = filled(path, "t");
        let pairs = KEYS.iter().flat_map(|key| VALUES.map(|value| format!("{key}={value}")));
        let more = ["&&&", "=", "%ff=%ff", "limit", "limit=1&limit=x", "?", &long];
        let queries = pairs.chain(more.map(str::to_owned)).enumerate();
        let queries = queries.filter(|(number, _)| share.has(*number));
        let requests = queries.map(|(_, query)| {
            (request(method, &format!("{path}?{query}"), Body::empty()), "a query".to_owned())
        });
        ask_all(&world, &path, requests).await;
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
    let doors = all_doors().into_iter().enumerate();
    for (door, (method, path)) in
        doors.filter(|(_, (_, path))| !STREAMS.contains(path) || *path == "/api/v1/events")
    {
        // Every door reads headers with the same few functions: each meets every name, a third of
        // the values under each, and three doors in a row meet all.
        let pairs = names.iter().enumerate().flat_map(|(name, text)| {
            let values = values.iter().enumerate();
            let its = values.filter(move |(value, _)| (door + name + value) % PREFIXES == 0);
            its.map(move |(_, value)| (*text, *value))
        });
        let requests = pairs.map(|(name, value)| {
            let mut request = request(method, &filled(path, "t"), Body::empty());
            request.headers_mut().insert(name, HeaderValue::from_bytes(value).unwrap());
            (request, name.to_owned())
        });
        ask_all(&world, path, requests).await;
    }
    still_serves(&world).await;
}
