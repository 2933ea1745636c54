//! The calls by which work reaches nodes, each to the letter of its row (contract 6, rows 5 to 7 and
//! the ladder below the table). What real sockets add is in `nodes`.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::leader::LeaderOptions;
use crate::leader::http::{Answer, Call, CallError, NodeCaller};
use crate::leader::ladder::{Climbed, Rung, Target, climb};
use crate::leader::message::Message;
use crate::leader::reply::failed;
use crate::leader::solo::Solo;
use crate::model::{AllowedHosts, Epoch, NodeId, TaskFailure, TaskId};
use crate::outward::{Mail, MailError, Sent};
use crate::state::{DispatchResult, TaskOutcome};

/// Writes down what is called, and answers what it was given, in turn.
#[derive(Default)]
struct Script {
    calls: Mutex<Vec<Call>>,
    answers: Mutex<VecDeque<(u16, &'static str)>>,
}

impl NodeCaller for Script {
    fn post(&self, call: Call) -> BoxFuture<'static, Result<Answer, CallError>> {
        self.calls.lock().push(call);
        let (status, body) = self.answers.lock().pop_front().unwrap_or((404, "{}"));
        let body = Bytes::from_static(body.as_bytes());
        Box::pin(std::future::ready(Ok(Answer { status, retry_after: None, body })))
    }

    fn get(&self, _: String, _: Duration) -> BoxFuture<'static, Result<Answer, CallError>> {
        Box::pin(std::future::ready(Err(CallError::Timeout)))
    }

    fn mail(&self, _: Mail, _: &AllowedHosts) -> BoxFuture<'static, Result<Sent, MailError>> {
        Box::pin(std::future::ready(Err(MailError::Timeout)))
    }
}

fn target(node_type: &str) -> Target {
    Target {
        node_id: NodeId::trusted("n"),
        node_type: node_type.to_owned(),
        base_url: "http://n:5000".to_owned(),
        agent_url: "http://n:8080".to_owned(),
    }
}

fn message(timeout_ms: u64) -> Message {
    Message {
        task_id: TaskId::trusted("t-1"),
        attempt: 2,
        epoch: Epoch { term: 7, member: 3 },
        task_type: "count".to_owned(),
        priority: 2,
        importance: 7,
        timeout_ms,
        input: r#"{"n":[1]}"#.to_owned(),
        requirements: r#"{"capabilities":["gpu"]}"#.to_owned(),
        metadata: r#"{"who":"me"}"#.to_owned(),
    }
}

/// Hands a task over to a node that answers so; gives what came of it, and what was called.
async fn hand_over(
    node_type: &str,
    timeout_ms: u64,
    answers: &[(u16, &'static str)],
) -> (Climbed, Vec<Call>) {
    let script = Script::default();
    script.answers.lock().extend(answers);
    let climbed = climb(&script, &target(node_type), &message(timeout_ms), None).await;
    let calls = std::mem::take(&mut *script.calls.lock());
    (climbed, calls)
}

fn said(call: &Call) -> Value {
    serde_json::from_slice(&call.body).unwrap()
}

/// The union of what nodes of any kind look for, but for the priority.
fn union(priority: u8) -> Value {
    json!({
        "task_id": "t-1", "task_type": "count", "priority": priority, "input_data": {"n": [1]},
        "requirements": {"capabilities": ["gpu"]}, "metadata": {"who": "me"}, "timeout": 120,
        "attempt": 2, "epoch": "7.3",
    })
}

const MISSING: (u16, &str) = (404, r#"{"detail":"Not Found"}"#);

#[tokio::test]
async fn contract_6_row_5_execute_is_given_the_tasks_own_time_and_answers_after_it() {
    let reply = r#"{"success":true,"task_id":"t-1","result":{"w":7},"completed_at":"x"}"#;
    let done = DispatchResult::Finished(TaskOutcome::Completed { result: r#"{"w":7}"#.to_owned() });
    let retryable = |error: &str| failed(TaskFailure::Retryable, error.to_owned());
    for (status, body, expected) in [
        (200, reply, done),
        (
            500,
            r#"{"success":false,"task_id":"t-1","error":"boom"}"#,
            retryable("the node answered HTTP 500: boom"),
        ),
        // It takes both: the status, and its word.
        (200, r#"{"success":false,"error":"no room"}"#, retryable("no room")),
        (200, r#"{"success":true,"task_id":"t-1"}"#, DispatchResult::Acknowledged),
    ] {
        let (climbed, calls) = hand_over("worker", 120_000, &[(status, body)]).await;
        assert_eq!((climbed.result, climbed.rung), (expected, Some(Rung::Execute)), "{body}");
        assert_eq!(calls.len(), 1, "{body}");
        assert_eq!(calls[0].url, "http://n:5000/api/v4/tasks/execute");
        assert_eq!(calls[0].timeout, Duration::from_secs(120));
        assert_eq!(said(&calls[0]), union(2));
    }
}

#[tokio::test]
async fn contract_6_row_6_tasks_is_taken_by_its_status_within_ten_seconds() {
    for (timeout_ms, limit_s) in [(120_000, 10), (4000, 4)] {
        let (climbed, calls) = hand_over("worker", timeout_ms, &[MISSING, (200, "taken")]).await;
        assert_eq!(
            (climbed.result, climbed.rung),
            (DispatchResult::Acknowledged, Some(Rung::Tasks))
        );
        assert_eq!(calls[1].url, "http://n:5000/api/tasks");
        assert_eq!(calls[1].timeout, Duration::from_secs(limit_s));
    }
    let (climbed, calls) = hand_over("worker", 120_000, &[(405, ""), (503, "")]).await;
    assert_eq!(said(&calls[1]), union(2));
    let error = "the node answered HTTP 503".to_owned();
    assert_eq!(climbed.result, failed(TaskFailure::Retryable, error), "it is queued again");
}

#[tokio::test]
async fn contract_6_row_7_create_task_calls_larger_numbers_more_important() {
    let reply = r#"{"success":true,"task_id":"the-nodes-own","message":"created"}"#;
    let (climbed, calls) = hand_over("enhanced_node", 120_000, &[(200, reply)]).await;
    assert_eq!(climbed.result, DispatchResult::Acknowledged, "the node reports the end later");
    assert_eq!(climbed.rung, Some(Rung::TaskControl));
    assert_eq!(calls.len(), 1, "an enhanced node is asked so first");
    assert_eq!(calls[0].url, "http://n:5000/api/v4/task-control/create-task");
    assert_eq!((calls[0].timeout, said(&calls[0])), (Duration::from_secs(10), union(7)));
    let refused = (400, r#"{"error":"unknown type"}"#);
    let (climbed, _) = hand_over("enhanced_node", 120_000, &[refused]).await;
    let error = "the node answered HTTP 400: unknown type".to_owned();
    assert_eq!(climbed.result, failed(TaskFailure::Retryable, error));
}

#[tokio::test]
async fn contract_6_the_ladder_ends_at_the_agent_program_on_port_8080() {
    assert_eq!(LeaderOptions::default().agent_port, 8080);
    let started = (200, r#"{"success":true,"task_id":"8"}"#);
    for (node_type, order) in [
        ("worker", ["/api/v4/tasks/execute", "/api/tasks", "/api/v4/task-control/create-task"]),
        (
            "enhanced_node",
            ["/api/v4/task-control/create-task", "/api/v4/tasks/execute", "/api/tasks"],
        ),
    ] {
        let answers = [MISSING, MISSING, MISSING, started];
        let (climbed, calls) = hand_over(node_type, 120_000, &answers).await;
        assert_eq!(climbed.rung, Some(Rung::StartTask));
        let urls: Vec<&str> = calls.iter().map(|call| call.url.as_str()).collect();
        let order = order.map(|path| format!("http://n:5000{path}"));
        assert_eq!(urls[..3], order, "{node_type}");
        assert_eq!(urls[3], "http://n:8080/api/start_task");
        let body = said(&calls[3]);
        assert_eq!((&body["type"], &body["config"]), (&json!("count"), &json!({"n": [1]})));
    }
}

#[test]
fn contract_6_a_node_is_called_at_the_url_that_it_registered() {
    let solo = Solo::new();
    solo.register("plain", |spec| (spec.host, spec.port) = ("10.0.0.7".to_owned(), 5000));
    solo.register("behind", |spec| {
        spec.external_url = Some("https://nodes.example/seven/".to_owned());
    });
    let state = solo.state.read();
    let base = |name: &str| Target::of(state.node(&NodeId::trusted(name)).unwrap(), 8080).base_url;
    assert_eq!(base("plain"), "http://10.0.0.7:5000");
    assert_eq!(base("behind"), "https://nodes.example/seven");
}
