//! The event stream: names, resuming, gaps, bounds.

use axum::body::{Body, BodyDataStream};
use axum::http::{Request, StatusCode};
use futures::StreamExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use super::World;
use crate::api::ApiOptions;

/// An open stream, read frame by frame.
struct Stream {
    body: BodyDataStream,
    buffer: String,
}

#[derive(Debug)]
struct Frame {
    id: String,
    event: String,
    data: Value,
}

impl Stream {
    async fn open(world: &World, query: &str, last_id: Option<&str>) -> Self {
        let mut request = Request::builder().uri(format!("/api/v1/events?{query}"));
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
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

    async fn next(&mut self) -> Frame {
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
