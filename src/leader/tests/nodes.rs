//! The ladder against small real nodes on loopback.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::Value;

use crate::leader::http::HttpCaller;
use crate::leader::ladder::{Climbed, Reach, Rung, Target, cancel, climb};
use crate::leader::message::Message;
use crate::leader::reply::failed;
use crate::model::{Epoch, NodeId, TaskFailure, TaskId};
use crate::state::{DispatchResult, TaskOutcome};

/// What a node was asked, in order: path and body.
pub(super) type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// Serves `answer` for every path on a port of its own; gives the port and what was asked.
pub(super) async fn serve<A, R>(answer: A) -> (u16, Asked)
where
    A: Fn(String, Value) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response> + Send + 'static,
{
    let asked: Asked = Arc::default();
    let log = Arc::clone(&asked);
    let handle = move |request: Request| {
        let (answer, log) = (answer.clone(), Arc::clone(&log));
        async move {
            let path = request.uri().path().to_owned();
            let body = axum::body::to_bytes(request.into_body(), 1 << 22).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            log.lock().push((path.clone(), body.clone()));
            answer(path, body).await
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handle)).await });
    (port, asked)
}

pub(super) fn json(status: StatusCode, body: &str) -> Response {
    (status, body.to_owned()).into_response()
}

fn target(node_type: &str, port: u16, agent_port: u16) -> Target {
    Target {
        node_id: NodeId::trusted("n"),
        node_type: node_type.to_owned(),
        base_url: format!("http://127.0.0.1:{port}"),
        agent_url: format!("http://127.0.0.1:{agent_port}"),
    }
}

fn message(timeout_ms: u64) -> Message {
    Message {
        task_id: TaskId::trusted("t/1"),
        attempt: 3,
        epoch: Epoch { term: 2, member: 1 },
        task_type: "count".to_owned(),
        priority: 1,
        importance: 10,
        timeout_ms,
        input: r#"{"n":1}"#.to_owned(),
        requirements: String::new(),
        metadata: String::new(),
    }
}

async fn dispatch(target: &Target, timeout_ms: u64, known: Option<Rung>) -> Climbed {
    let caller = HttpCaller::new().unwrap();
    climb(&caller, target, &message(timeout_ms), known).await
}

fn paths(asked: &Asked) -> Vec<String> {
    asked.lock().iter().map(|(path, _)| path.clone()).collect()
}

/// A port where nobody listens.
async fn closed_port() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn missing_paths_are_climbed_in_the_order_of_the_kind() {
    let (execute, tasks, control) =
        ("/api/v4/tasks/execute", "/api/tasks", "/api/v4/task-control/create-task");
    for (kind, serves, order) in [
        ("worker", execute, vec![execute]),
        ("worker", tasks, vec![execute, tasks]),
        ("worker", control, vec![execute, tasks, control]),
        ("enhanced_node", control, vec![control]),
        ("enhanced_node", execute, vec![control, execute]),
        ("enhanced_node", tasks, vec![control, execute, tasks]),
    ] {
        for missing in [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED] {
            let (port, asked) = serve(move |path, _| async move {
                if path == serves {
                    json(StatusCode::OK, r#"{"success":true,"task_id":"own"}"#)
                } else {
                    json(missing, r#"{"detail":"Not Found"}"#)
                }
            })
            .await;
            let target = target(kind, port, closed_port().await);
            let climbed = dispatch(&target, 5000, None).await;
            assert_eq!(climbed.result, DispatchResult::Acknowledged, "{kind} {serves}");
            assert_eq!(paths(&asked), order, "{kind} {serves}");
            // What worked is asked first the next time.
            asked.lock().clear();
            dispatch(&target, 5000, climbed.rung).await;
            assert_eq!(paths(&asked), [serves]);
            let body = asked.lock()[0].1.clone();
            assert_eq!((&body["attempt"], &body["epoch"]), (&3.into(), &"2.1".into()));
        }
    }
}

#[tokio::test]
async fn the_agent_program_beside_the_node_is_the_last_resort() {
    let (port, _) = serve(|_, _| async { json(StatusCode::NOT_FOUND, "{}") }).await;
    let started = r#"{"success":true,"task_id":"8"}"#;
    let (agent, asked) = serve(move |_, _| async move { json(StatusCode::OK, started) }).await;
    let climbed = dispatch(&target("worker", port, agent), 5000, None).await;
    assert_eq!(climbed.rung, Some(Rung::StartTask));
    assert_eq!(climbed.result, DispatchResult::Acknowledged);
    assert_eq!(paths(&asked), ["/api/start_task"]);
    assert_eq!(asked.lock()[0].1["config"]["n"], 1);

    let alone = target("worker", port, closed_port().await);
    let climbed = dispatch(&alone, 5000, None).await;
    let error = "the node serves no path that takes tasks".to_owned();
    assert_eq!(climbed.result, failed(TaskFailure::Network, error));
    assert_eq!(climbed.reach, Reach::Answered, "the node itself is there");
}

#[tokio::test]
async fn answers_become_results() {
    let done = DispatchResult::Finished(TaskOutcome::Completed { result: "[1, 2]".to_owned() });
    for (status, body, expected, reach) in [
        (200, r#"{"success":true,"result":[1, 2]}"#, done, Reach::Answered),
        (
            500,
            r#"{"success":false,"error":"boom"}"#,
            failed(TaskFailure::Retryable, "the node answered HTTP 500: boom".to_owned()),
            Reach::Answered,
        ),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let (port, asked) = serve(move |_, _| async move { json(status, body) }).await;
        let climbed = dispatch(&target("worker", port, port), 5000, None).await;
        assert_eq!((climbed.result, climbed.reach), (expected, reach));
        assert_eq!(asked.lock().len(), 1, "the path exists, so no other is tried");
    }
}

#[tokio::test]
async fn a_busy_node_is_left_alone_for_as_long_as_it_says() {
    let (port, _) = serve(|_, _| async {
        let headers = HeaderMap::from_iter([(
            axum::http::header::RETRY_AFTER,
            HeaderValue::from_static("7"),
        )]);
        (StatusCode::TOO_MANY_REQUESTS, headers, "slow down").into_response()
    })
    .await;
    let climbed = dispatch(&target("worker", port, port), 5000, None).await;
    assert_eq!(climbed.result, DispatchResult::Refused { retry_after_ms: 7000 });
    assert_eq!(climbed.reach, Reach::Busy(Duration::from_secs(7)));
}

#[tokio::test]
async fn silence_is_a_timeout_on_the_path_that_executes_and_a_fault_elsewhere() {
    let (port, _) = serve(|_, _| std::future::pending()).await;
    let target = target("worker", port, port);
    for (known, failure) in
        [(Rung::Execute, TaskFailure::Timeout), (Rung::Tasks, TaskFailure::Network)]
    {
        let climbed = dispatch(&target, 150, Some(known)).await;
        assert_eq!(climbed.result, failed(failure, "no answer within 150 ms".to_owned()));
        assert_eq!(climbed.reach, Reach::Silent);
    }
}

#[tokio::test]
async fn an_unreachable_node_is_told_from_a_broken_one() {
    let target = target("worker", closed_port().await, closed_port().await);
    let climbed = dispatch(&target, 5000, None).await;
    assert_eq!(climbed.reach, Reach::Unreachable);
    let network = |result: &DispatchResult| {
        matches!(
            result,
            DispatchResult::Finished(TaskOutcome::Failed { failure: TaskFailure::Network, .. })
        )
    };
    assert!(network(&climbed.result), "{climbed:?}");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        // Takes the connection and drops it.
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let broken = Target { base_url: format!("http://127.0.0.1:{port}"), ..target };
    let climbed = dispatch(&broken, 5000, None).await;
    assert!(network(&climbed.result), "{climbed:?}");
    assert_eq!(climbed.reach, Reach::Silent);
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let (port, _) = serve(|_, _| async {
        json(StatusCode::OK, &format!(r#"{{"success":true,"result":"{}"}}"#, "x".repeat(2 << 20)))
    })
    .await;
    let climbed = dispatch(&target("worker", port, port), 5000, None).await;
    let outcome = match climbed.result {
        DispatchResult::Finished(TaskOutcome::Failed { failure, .. }) => failure,
        other => panic!("{other:?}"),
    };
    assert_eq!(outcome, TaskFailure::Permanent);
}

#[tokio::test]
async fn cancelling_names_the_task_and_learns_who_understands() {
    let caller = HttpCaller::new().unwrap();
    let task_id = TaskId::trusted("a b/ü");
    for (status, body, understood) in [
        (200, "{}", true),
        (404, r#"{"detail":"Not Found"}"#, false),
        (404, r#"{"success":false,"error":"it does not run here"}"#, true),
        (405, r#"{"success":false}"#, false),
        (500, "", true),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let (port, asked) = serve(move |_, _| async move { json(status, body) }).await;
        let target = target("worker", port, port);
        assert_eq!(cancel(&caller, &target, &task_id, 2, None).await, Some(understood));
        assert_eq!(paths(&asked), ["/api/cancel_task/a%20b%2F%C3%BC"]);
        assert_eq!(asked.lock()[0].1["attempt"], 2);
    }
}
