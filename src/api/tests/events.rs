//! The event stream: names, resuming, gaps, bounds.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{Request, StatusCode};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::World;
use super::auth::ROOT;
use crate::api::ApiOptions;

/// An open stream, read frame by frame.
pub(super) struct Stream {
    body: BodyDataStream,
    buffer: String,
}

#[derive(Debug)]
pub(super) struct Frame {
    pub(super) id: String,
    pub(super) event: String,
    pub(super) data: Value,
}

impl Stream {
    pub(super) async fn open(world: &World, query: &str, last_id: Option<&str>) -> Self {
        let headers: Vec<_> = last_id.map(|id| ("last-event-id", id)).into_iter().collect();
        Self::open_with(world, query, &headers).await
    }

    async fn open_with(world: &World, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = Request::builder().uri(format!("/api/v1/events?{query}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = world.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), buffer: String::new() }
    }

    /// The next piece of text between empty lines; none at the end of the stream.
    async fn piece(&mut self) -> Option<String> {
        loop {
            if let Some((piece, rest)) = self.buffer.split_once("\n\n") {
                let piece = piece.to_owned();
                self.buffer = rest.to_owned();
                return Some(piece);
            }
            let bytes = self.body.next().await?.unwrap();
            self.buffer.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    pub(super) async fn next(&mut self) -> Frame {
        loop {
            let piece = self.piece().await.expect("the stream goes on");
            let field = |name: &str| {
                let line = piece.lines().find_map(|line| line.strip_prefix(name));
                line.map(str::to_owned)
            };
            let Some(data) = field("data: ") else { continue };
            let data = serde_json::from_str(&data).unwrap();
            return Frame { id: field("id: ").unwrap(), event: field("event: ").unwrap(), data };
        }
    }
}

#[tokio::test]
async fn events_arrive_in_order_and_a_reader_resumes_after_the_last_it_saw() {
    let world = World::new().await;
    let mut stream = Stream::open(&world, "from=now", None).await;
    world.submit("a").await;
    world.submit("b").await;
    let first = stream.next().await;
    assert_eq!(
        (first.event.as_str(), first.data["task_id"].as_str()),
        ("task_submitted", Some("a"))
    );
    assert_eq!(first.data["type"], "task_submitted");
    let second = stream.next().await;
    assert_eq!(second.data["task_id"], "b");
    drop(stream);
    world.submit("c").await;
    let mut resumed = Stream::open(&world, "from=now", Some(&first.id)).await;
    assert_eq!(resumed.next().await.data["task_id"], "b");
    assert_eq!(resumed.next().await.data["task_id"], "c");
    let from = second.id.split_once('-').unwrap().0;
    let mut after = Stream::open(&world, &format!("from={from}"), None).await;
    assert_eq!(after.next().await.data["task_id"], "c");
}

#[tokio::test]
async fn readers_choose_types() {
    let world = World::new().await;
    let mut stream = Stream::open(&world, "types=task_ended,node_registered", None).await;
    world.submit("a").await;
    world.register("n1").await;
    world.call("DELETE", "/api/v1/tasks/a", "").await.ok();
    assert_eq!(stream.next().await.event, "node_registered");
    let ended = stream.next().await;
    assert_eq!(
        (ended.event.as_str(), ended.data["status"].as_str()),
        ("task_ended", Some("cancelled"))
    );
}

#[tokio::test]
async fn a_type_that_there_is_not_is_refused() {
    let world = World::new().await;
    let refused = world.get("/api/v1/events?types=task_ended,odd").await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.text.contains("INVALID_QUERY"), "{}", refused.text);
}

/// After a restore the log begins anew: the reader would wait until it has grown as long as the old one.
#[tokio::test]
async fn a_reader_that_is_ahead_of_the_log_is_told_of_a_gap() {
    let world = World::new().await;
    let mut stream = Stream::open(&world, "", Some("999999999-0")).await;
    assert_eq!(stream.next().await.event, "gap");
    world.submit("a").await;
    loop {
        let frame = stream.next().await;
        if frame.event == "task_submitted" {
            assert_eq!(frame.data["task_id"], "a");
            break;
        }
    }
}

#[tokio::test]
async fn what_is_no_longer_kept_is_a_gap() {
    let world = World::new().await;
    let ring = crate::storage::EVENTS_MAX;
    let mut last = 0;
    for batch in 0..ring.div_ceil(9000) + 1 {
        let tasks: Vec<String> = (0..9000).map(|_| r#"{"task_type":"t"}"#.to_owned()).collect();
        let body = format!(r#"{{"tasks":[{}]}}"#, tasks.join(","));
        let answer = world.post("/api/v1/tasks/batch", &body).await;
        last = answer.header("x-quorate-index").parse().unwrap();
        assert_eq!(answer.status, StatusCode::OK, "batch {batch}");
    }
    let mut stream = Stream::open(&world, "from=1-0", None).await;
    let gap = stream.next().await;
    assert_eq!(
        (gap.event.as_str(), &gap.data["resumes_after"]),
        ("gap", &Value::from(gap.id.clone()))
    );
    let next = stream.next().await;
    let index = |id: &str| id.split_once('-').unwrap().0.parse::<u64>().unwrap();
    assert!(index(&next.id) >= index(&gap.id) && index(&next.id) <= last);
}

#[tokio::test]
async fn streams_are_bounded_and_end_when_the_member_closes() {
    let world = World::with(ApiOptions { streams_max: 1, ..ApiOptions::default() }).await;
    let mut stream = Stream::open(&world, "", None).await;
    assert!(stream.piece().await.unwrap().contains(": connected"));
    let second = world.get("/api/v1/events").await;
    assert_eq!(second.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(second.json()["code"], "TOO_MANY_STREAMS");
    world.app.close();
    assert!(stream.piece().await.is_none());
    let wrong = world.get("/api/v1/events?from=yesterday").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_comments() {
    let world = World::new().await;
    let mut stream = Stream::open(&world, "types=task_ended", None).await;
    assert!(stream.piece().await.unwrap().starts_with("retry: 1000"));
    world.submit("unwanted").await;
    assert_eq!(stream.piece().await.unwrap(), ": keep-alive");
}

#[tokio::test(start_paused = true)]
async fn whoever_loses_its_key_or_login_loses_its_stream() {
    let world = World::of_roles().await;
    let open =
        async |key| Stream::open_with(&world, "types=drill_begun", &[("x-api-key", key)]).await;
    let (mut client, mut operator) = (open("client-key").await, open("operator-key").await);
    for stream in [&mut client, &mut operator] {
        assert!(stream.piece().await.unwrap().starts_with("retry: 1000"));
        assert_eq!(stream.piece().await.unwrap(), ": keep-alive");
    }
    let keys = json!({"security": {"api_keys": ["root-key", {"key": "operator-key",
        "role": "operator"}]}});
    world.ask("PUT", "/api/v1/config", &[ROOT], &keys.to_string()).await.ok();
    assert!(client.piece().await.is_none(), "cut at the next keep-alive");
    assert_eq!(operator.piece().await.unwrap(), ": keep-alive", "its key is still good");
    let none = json!({"security": {"api_keys": ["root-key"]}}).to_string();
    world.ask("PUT", "/api/v1/config", &[ROOT], &none).await.ok();
    assert!(operator.piece().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_busy_stream_is_cut_as_well_when_its_key_is_gone() {
    let world = World::of_roles().await;
    let mut stream = Stream::open_with(&world, "", &[("x-api-key", "client-key")]).await;
    let none = json!({"security": {"api_keys": ["root-key"]}}).to_string();
    world.ask("PUT", "/api/v1/config", &[ROOT], &none).await.ok();
    // Something happens every second, so that there is never a silence.
    for second in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let task = format!("{{\"task_type\":\"t\",\"task_id\":\"t{second}\"}}");
        world.ask("POST", "/api/v1/tasks", &[ROOT], &task).await.ok();
        match stream.body.next().await {
            Some(piece) => assert!(second < 16, "{piece:?} after {second} s"),
            None => return assert!(second >= 14, "after {second} s"),
        }
    }
    panic!("the stream goes on");
}
