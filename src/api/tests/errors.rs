//! What is wrong, and how it is said: contract 1.2, 1.3, 1.6.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::IntoResponse as _;
use serde_json::json;

use super::{Answer, World, take};
use crate::api::ApiOptions;
use crate::api::error::ApiError;
use crate::api::ticket::Ticket;
use crate::cluster::{Consistency, NotStarted, ProposeError, ReadError};
use crate::model::{RequestId, TaskId};
use crate::state::Rejection;

pub(super) async fn read(error: ApiError) -> Answer {
    let (parts, body) = error.into_response().into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, text }
}

#[tokio::test]
async fn contract_1_3_the_whole_document() {
    let world = World::new().await;
    let answer = world.get("/api/v1/tasks/nope").await;
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let mut body = answer.json();
    assert!(take(&mut body, "/timestamp").as_str().unwrap().ends_with('Z'));
    let expected = json!({
        "type": "urn:quorate:problem:task_not_found", "title": "Not Found", "status": 404,
        "detail": "Task not found", "code": "TASK_NOT_FOUND", "success": false,
        "error": "Task not found", "message": "Task not found", "error_code": "VALIDATION_ERROR",
        "details": {"code": "TASK_NOT_FOUND"}
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn contract_4_2_a_failed_submission_has_the_submit_shape() {
    let world = World::new().await;
    let body = r#"{"task_id":"a","task_type":"magic","inputs":[]}"#;
    let answer = world.post("/api/v1/tasks", body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let body = answer.json();
    assert_eq!((&body["task_id"], &body["status"]), (&json!("a"), &json!("failed")));
    assert_eq!(
        (&body["error_code"], &body["error"]),
        (&json!("VALIDATION_ERROR"), &json!("unknown task_type: magic"))
    );
}

#[tokio::test]
async fn contract_1_2_malformed_bodies_routes_and_methods() {
    let world = World::new().await;
    for (method, path, body, status, code) in [
        ("POST", "/api/v1/tasks", "{", 400, "INVALID_BODY"),
        ("POST", "/api/v1/tasks", "[]", 400, "INVALID_BODY"),
        ("POST", "/api/v1/tasks", "", 400, "INVALID_TASK"),
        ("GET", "/api/v1/nope", "", 404, "ROUTE_NOT_FOUND"),
        ("PATCH", "/api/v1/tasks", "", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/api/v1/status", "", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/v1/tasks?limit=x", "", 400, "INVALID_QUERY"),
        ("GET", "/api/v1/tasks?offset=999999999", "", 400, "INVALID_QUERY"),
    ] {
        let answer = world.call(method, path, body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
        let body = answer.json();
        assert_eq!((&body["code"], &body["success"]), (&json!(code), &json!(false)), "{path}");
    }
    let no_data = world.post("/api/v1/tasks", "").await;
    assert_eq!(no_data.json()["error"], "No task data provided");
}

#[tokio::test]
async fn contract_1_2_json_is_read_whatever_the_content_type() {
    let world = World::new().await;
    let request = Request::builder().method("POST").uri("/api/v1/tasks");
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let answer = world.send(request.body(Body::from(r#"{"task_type":"t"}"#)).unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn bodies_are_bounded() {
    let options = ApiOptions { body_bytes_max: 100, ..ApiOptions::default() };
    let world = World::with(options).await;
    let body = format!(r#"{{"task_type":"{}"}}"#, "t".repeat(100));
    let answer = world.post("/api/v1/tasks", &body).await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &json!("BODY_TOO_LARGE"))
    );
}

#[tokio::test]
async fn requests_in_service_are_bounded_but_health_is_not() {
    let world = World::with(ApiOptions { requests_max: 0, ..ApiOptions::default() }).await;
    let answer = world.get("/api/v1/tasks").await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, "1")
    );
    assert_eq!(answer.json()["code"], "OVERLOADED");
    for path in ["/livez", "/health", "/api/v1/health", "/metrics", "/api/v1/cluster"] {
        assert_eq!(world.get(path).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn contract_1_6_cors_and_names() {
    let world = World::new().await;
    for path in ["/api/v1/tasks", "/nowhere"] {
        let answer = world.call("OPTIONS", path, "").await;
        assert_eq!((answer.status, answer.text.as_str()), (StatusCode::OK, ""), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        let methods = "GET, POST, PUT, PATCH, DELETE, OPTIONS";
        assert_eq!(answer.header("access-control-allow-methods"), methods);
        let headers = "Content-Type, Authorization, X-API-Key, Idempotency-Key";
        assert_eq!(answer.header("access-control-allow-headers"), headers);
    }
    let request = Request::builder().uri("/nowhere").header("x-request-id", "mine");
    let answer = world.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.header("x-request-id"), "mine");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let minted = world.get("/livez").await;
    let lengths: Vec<_> = minted.header("x-request-id").split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12], "{}", minted.header("x-request-id"));
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_next_request_is_served() {
    let metrics: crate::api::MetricsSource = Arc::new(|_| panic!("on purpose"));
    let world = World::with(ApiOptions { metrics: vec![metrics], ..ApiOptions::default() }).await;
    let answer = world.get("/metrics").await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (StatusCode::INTERNAL_SERVER_ERROR, &json!("INTERNAL"))
    );
    assert_eq!(world.get("/livez").await.status, StatusCode::OK);
}

#[tokio::test]
async fn proposals_without_an_answer_are_told_apart() {
    let request_id = RequestId(7);
    let unknown = read(ProposeError::Unknown { request_id }.into()).await;
    assert_eq!(unknown.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(unknown.header("x-quorate-request-id"), request_id.to_string());
    let body = unknown.json();
    assert_eq!(
        (&body["code"], &body["error_code"]),
        (&json!("OUTCOME_UNKNOWN"), &json!("TIMEOUT"))
    );
    assert!(body["detail"].as_str().unwrap().contains(&format!("/api/v1/requests/{request_id}")));
    let reason = NotStarted::NoLeader;
    let never = read(ProposeError::NotStarted { reason, leader: Some(3) }.into()).await;
    assert_eq!((never.status, never.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    let body = never.json();
    assert_eq!(
        (&body["code"], &body["details"]["code"]),
        (&json!("NO_LEADER"), &json!("ORCHESTRATOR_NOT_STARTED"))
    );
    assert_eq!(body["leader"], json!({"member": 3}));
    assert_eq!(body["error"], "Orchestrator not started");
    assert_eq!(body["detail"], "not started: there is no leader");
    let reason = NotStarted::TooLarge;
    let large = read(ProposeError::NotStarted { reason, leader: None }.into()).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    let stopped = ProposeError::Stopped { why: "disk".to_owned(), maybe_started: true };
    assert_eq!(read(stopped.into()).await.status, StatusCode::GATEWAY_TIMEOUT);
    let stale = ReadError::Stale { age_ms: 9, max_age_ms: 5 };
    assert_eq!(read(stale.into()).await.json()["code"], "STALE_READ");
}

#[tokio::test]
async fn a_write_that_happened_is_never_answered_as_not_started() {
    // A member that had committed a change and then did not get to show it in time answered 503.
    let world = World::new().await;
    tokio::time::pause();
    let ticket = Ticket::minted();
    let answer = read(world.app.caught_up(ticket, 1_000_000).await.unwrap_err()).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(answer.json()["code"], "OUTCOME_UNKNOWN");
}

#[tokio::test]
async fn an_answer_names_the_index_of_what_it_shows() {
    // The index was that of the moment a read was admitted; whatever was applied until the state
    // was read showed as well, and a reader who passed the index on could see it vanish elsewhere.
    let world = World::new().await;
    let local = Consistency::Local { max_age: None, min_index: None };
    let mut stamp = world.app.barrier(local).await.unwrap();
    world.submit("t").await;
    let seen = world.app.show(&mut stamp, |state| state.task(&TaskId::trusted("t")).is_some());
    assert!(seen);
    assert_eq!(Some(stamp.index), world.cluster.view().applied().map(|id| id.index));
}

#[tokio::test]
async fn rejections_have_the_status_that_fits() {
    for (rejection, status, code) in [
        (Rejection::NodeNotFound, 404, "NODE_NOT_FOUND"),
        (Rejection::QueueFull { max: 1 }, 429, "RATE_LIMITED"),
        (Rejection::TooManyNodes { max: 1 }, 400, "TOO_MANY_NODES"),
        (Rejection::BatchSize { len: 0, max: 1 }, 400, "BATCH_SIZE"),
        (Rejection::RevisionMismatch { expected: 1, actual: 2 }, 409, "REVISION_MISMATCH"),
        (Rejection::InvalidConfig("x".to_owned()), 400, "INVALID_CONFIG"),
    ] {
        let answer = read(rejection.into()).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["details"]["code"]),
            (status, &json!(code))
        );
    }
}

#[tokio::test]
async fn contract_4_2_what_no_agent_could_read_is_a_failed_submission() {
    let world = World::new().await;
    for (fields, error) in [
        (r#""inputs":"a","priority":2.5"#, "priority must be a whole number or a word, not 2.5"),
        (r#""inputs":7"#, "inputs must be an array"),
        (r#""inputs":[{"type":"film"}]"#, "inputs[0]: type must be one of"),
        (r#""inputs":[],"parameters":[]"#, "parameters must be an object"),
    ] {
        let body = format!(r#"{{"task_id":"a","task_type":"api_call",{fields}}}"#);
        let answer = world.post("/api/v1/tasks", &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{fields}");
        let body = answer.json();
        assert!(body["error"].as_str().unwrap().starts_with(error), "{body}");
        let kind = (&body["status"], &body["error_code"], &body["task_id"]);
        assert_eq!(kind, (&json!("failed"), &json!("VALIDATION_ERROR"), &json!("a")));
        assert_eq!(world.get("/api/v1/tasks/a").await.status, StatusCode::NOT_FOUND);
    }
}
