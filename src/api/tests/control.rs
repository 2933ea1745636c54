//! What operators do to a fleet: control (contract 2.3), drain, dead letters.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{World, take};
use crate::model::{NodeId, NodeStatus};
use crate::state::{Command, Outcome};

async fn control(world: &World, word: &str) -> Value {
    world.post(&format!("/api/v1/control/{word}"), "").await.ok()
}

#[tokio::test]
async fn contract_2_3_control_in_the_words_of_family_w() {
    let world = World::new().await;
    let said = |message: &str, paused: bool| json!({"success": true, "message": message, "scheduling_paused": paused});
    let running = said("Orchestrator already running", false);
    assert_eq!(control(&world, "start").await, running);
    assert_eq!(control(&world, "stop").await, said("Orchestrator stopped successfully", true));
    assert_eq!(control(&world, "stop").await, said("Orchestrator not running", true));
    let mut started = control(&world, "start").await;
    assert_eq!(take(&mut started, "/orchestrator_id"), "web4ai_main_orchestrator");
    assert_eq!(started, said("Orchestrator started successfully", false));
    assert_eq!(control(&world, "restart").await, said("Orchestrator restarted", false));
    control(&world, "stop").await;
    assert_eq!(control(&world, "restart").await, said("Orchestrator restarted", false));
    assert_eq!(control(&world, "start").await, running);
}

#[tokio::test]
async fn contract_2_3_a_stopped_orchestrator_answers_and_accepts() {
    let world = World::new().await;
    control(&world, "stop").await;
    let config = world.get("/api/v1/config").await.ok();
    assert_eq!(config["config"]["orchestrator"]["scheduling_paused"], true, "all can see it");
    world.register("n1").await;
    world.submit("t").await;
    assert_eq!(world.get("/api/v1/tasks/t").await.ok()["status"], "queued");
    let why = world.get("/api/v1/tasks/t/why").await.ok();
    assert_eq!((&why["blocked"], &why["blockers"][0]["code"]), (&json!(true), &json!("PAUSED")));
    control(&world, "start").await;
    let why = world.get("/api/v1/tasks/t/why").await.ok();
    assert_eq!((&why["blocked"], &why["blockers"][0]["code"]), (&json!(false), &json!("QUEUED")));
}

/// A node that writes down how it is told to shut down.
pub(super) async fn node(world: &World) -> Arc<Mutex<Vec<Value>>> {
    async fn shutdown(State(told): State<Arc<Mutex<Vec<Value>>>>, Json(body): Json<Value>) {
        told.lock().push(body);
    }
    let told: Arc<Mutex<Vec<Value>>> = Arc::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().route("/api/shutdown", post(shutdown)).with_state(Arc::clone(&told));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let body = json!({"host": "127.0.0.1", "port": port}).to_string();
    world.post("/api/v1/nodes/n1/register", &body).await.ok();
    told
}

#[tokio::test]
async fn contract_10_f_nodes_are_shut_down_only_when_that_is_asked_for() {
    let world = World::new().await;
    let told = node(&world).await;
    for body in ["", "{}", r#"{"shutdown_nodes":false}"#] {
        let answer = world.post("/api/v1/control/stop", body).await.ok();
        assert!(answer.get("nodes_notified").is_none(), "{answer}");
    }
    assert_eq!(*told.lock(), Vec::<Value>::new());
    control(&world, "start").await;
    let wrong = world.post("/api/v1/control/stop", r#"{"shutdown_nodes":"perhaps"}"#).await;
    assert_eq!(
        (wrong.status, &wrong.json()["code"]),
        (StatusCode::BAD_REQUEST, &json!("INVALID_FIELD"))
    );
    assert_eq!(control(&world, "start").await["message"], "Orchestrator already running");
    let answer = world.post("/api/v1/control/stop", r#"{"shutdown_nodes":true}"#).await.ok();
    assert_eq!(answer["nodes_notified"], 1);
    assert_eq!(*told.lock(), [json!({"message": "the orchestrator stops"})]);
}

#[tokio::test]
async fn a_drained_node_keeps_what_it_has_until_its_deadline() {
    let world = World::new().await;
    world.register("n1").await;
    world.submit("t").await;
    world.place("t", "n1").await;
    let path = "/api/v1/nodes/n1/drain";
    let expected = json!({"success": true, "message": "Node n1 is draining",
        "old_status": "active", "new_status": "maintenance", "deadline_seconds": 60.0});
    assert_eq!(world.post(path, r#"{"deadline":60}"#).await.ok(), expected);
    let status = async || world.get("/api/v1/tasks/t").await.ok()["task"]["status"].clone();
    assert_eq!(status().await, "assigned");
    let drained = Command::EndDrains { epoch: world.epoch, node_ids: vec![NodeId::trusted("n1")] };
    assert_eq!(world.commit(drained.clone()).await, Outcome::Judged { accepted: 0, stale: 1 });
    assert_eq!(world.post(path, r#"{"deadline":0}"#).await.ok()["old_status"], "maintenance");
    assert_eq!(world.commit(drained).await, Outcome::Judged { accepted: 1, stale: 0 });
    assert_eq!(status().await, "pending");
    world.post("/api/v1/nodes/n1/heartbeat", r#"{"status":"active"}"#).await.ok();
    let shown = world.get("/api/v1/nodes/n1").await.ok();
    assert_eq!(shown["node"]["status"], "maintenance", "no heartbeat ends it");
    world.call("PUT", "/api/v1/nodes/n1/status", r#"{"status":"active"}"#).await.ok();
    world.place("t", "n1").await;
}

/// An agent's registration, which is its heartbeat too (contract 4.7).
fn registration(instance: &str, capacity: u32) -> String {
    json!({"agent_id": "x", "agent_type": "x", "endpoint": "h:50052",
        "max_concurrent_tasks": capacity, "metadata": {"instance": instance}})
    .to_string()
}

#[tokio::test]
async fn the_heartbeat_of_an_agent_ends_neither_its_drain_nor_its_maintenance() {
    let world = World::new().await;
    let (path, agent) = ("/api/v1/agents/register", NodeId::trusted("agent:x"));
    let stands = || {
        world.cluster.view().read(|state| {
            let agent = state.node(&agent).unwrap();
            (agent.status, agent.drain_until_ms.is_some(), agent.capacity)
        })
    };
    world.post(path, &registration("one", 3)).await.ok();
    let body = json!({"task_id": "t", "task_type": "mine", "steps": [{"agent_type": "x"}]});
    world.post("/api/v1/tasks", &body.to_string()).await.ok();
    world.place("t#0", "agent:x").await;
    world.post("/api/v1/nodes/agent:x/drain", r#"{"deadline":60}"#).await.ok();
    let index = world.cluster.view().applied().unwrap().index;
    world.post(path, &registration("one", 3)).await.ok();
    assert_eq!(stands(), (NodeStatus::Maintenance, true, 3));
    assert_eq!(world.cluster.view().applied().unwrap().index, index, "no log entry");
    world.post(path, &registration("one", 4)).await.ok();
    assert_eq!(stands(), (NodeStatus::Maintenance, true, 4), "what is new is taken");
    let into = async |status: &str| {
        let body = json!({"status": status}).to_string();
        world.call("PUT", "/api/v1/nodes/agent:x/status", &body).await.ok();
    };
    into("active").await;
    assert_eq!(stands(), (NodeStatus::Active, false, 4));
    into("maintenance").await;
    world.post(path, &registration("one", 4)).await.ok();
    assert_eq!(stands(), (NodeStatus::Maintenance, false, 4));
    world.post(path, &registration("two", 4)).await.ok();
    assert_eq!(stands(), (NodeStatus::Active, false, 4), "a new run of its program");
}

#[tokio::test]
async fn a_drain_that_makes_no_sense_is_refused() {
    let world = World::new().await;
    world.register("n1").await;
    for (body, code) in [
        (r#"{"deadline":-1}"#, "INVALID_FIELD"),
        (r#"{"deadline":604801}"#, "INVALID_FIELD"),
        (r#"{"deadline":"soon"}"#, "INVALID_FIELD"),
        (r#"{"deadline":[]}"#, "INVALID_FIELD"),
        ("[]", "INVALID_BODY"),
    ] {
        let answer = world.post("/api/v1/nodes/n1/drain", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer.json()["code"], code, "{body}");
    }
    let unknown = world.post("/api/v1/nodes/nope/drain", "").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(unknown.json()["error"], "Node not found");
    assert_eq!(world.get("/api/v1/nodes/n1").await.ok()["node"]["status"], "active");
}

/// A task that used up its only try.
pub(super) async fn dead_letter(world: &World, task_id: &str) {
    let body = json!({"task_id": task_id, "task_type": "t", "max_retries": 0}).to_string();
    world.post("/api/v1/tasks", &body).await.ok();
    world.place(task_id, "n1").await;
    let report = r#"{"status":"failed","error":"e","retryable":true}"#;
    world.post(&format!("/api/v1/tasks/{task_id}/result"), report).await.ok();
}

#[tokio::test]
async fn dead_letters_are_listed_replayed_and_purged() {
    let world = World::new().await;
    world.register("n1").await;
    for task_id in ["a", "b", "c"] {
        dead_letter(&world, task_id).await;
    }
    let task = world.get("/api/v1/tasks/a").await.ok();
    assert_eq!(
        (&task["status"], &task["task"]["state"]),
        (&json!("failed"), &json!("dead_letter"))
    );
    assert_eq!(task["error"]["code"], "EXECUTION_FAILED");
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let page = world.get(&format!("/api/v1/dead-letters?limit=2&cursor={cursor}")).await.ok();
        assert_eq!(page["total"], 3);
        let rows = page["tasks"].as_array().unwrap();
        seen.extend(rows.iter().map(|row| row["task_id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen, ["c", "b", "a"]);
    let changed = |accepted: u32, skipped: u32, remaining: u64| json!({"success": true, "accepted": accepted, "skipped": skipped, "remaining": remaining});
    let one = world.post("/api/v1/dead-letters/a/replay", "").await.ok();
    assert_eq!(one, changed(1, 0, 2));
    assert_eq!(world.get("/api/v1/tasks/a").await.ok()["task"]["retry_count"], 0);
    let some = r#"{"task_ids":["a","b"]}"#;
    assert_eq!(world.post("/api/v1/dead-letters/replay", some).await.ok(), changed(1, 1, 1));
    world.call("DELETE", "/api/v1/dead-letters/c", "").await.ok();
    assert_eq!(world.get("/api/v1/tasks/c").await.status, StatusCode::NOT_FOUND);
    dead_letter(&world, "d").await;
    let all = r#"{"all":true}"#;
    assert_eq!(world.post("/api/v1/dead-letters/purge", all).await.ok(), changed(1, 0, 0));
    assert_eq!(world.post("/api/v1/dead-letters/purge", all).await.ok(), changed(0, 0, 0));
    let typed = world.get("/api/v1/dead-letters?task_type=other").await.ok();
    assert_eq!(typed["tasks"], json!([]));
}

/// A filter that nothing matches once decoded every dead letter there is in one look at the state.
#[tokio::test]
async fn a_page_of_dead_letters_looks_at_a_bounded_number_of_them() {
    let world = World::new().await;
    world.register("n1").await;
    for task_id in ["a", "b", "c", "d"] {
        dead_letter(&world, task_id).await;
    }
    let page = world.get("/api/v1/dead-letters?task_type=t&limit=2&order=asc").await.ok();
    assert_eq!((page["count"].clone(), page["total"].clone()), (json!(2), json!(null)));
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = format!("/api/v1/dead-letters?task_type=t&limit=2&order=asc&cursor={cursor}");
    let rest = world.get(&rest).await.ok();
    assert_eq!((&rest["tasks"][1]["task_id"], &rest["next_cursor"]), (&json!("d"), &json!(null)));
}

#[tokio::test]
async fn what_is_no_dead_letter_is_told_apart() {
    let world = World::new().await;
    world.submit("open").await;
    for (method, path, status, code) in [
        ("POST", "/api/v1/dead-letters/open/replay", 409, "NOT_A_DEAD_LETTER"),
        ("DELETE", "/api/v1/dead-letters/open", 409, "NOT_A_DEAD_LETTER"),
        ("POST", "/api/v1/dead-letters/nope/replay", 404, "TASK_NOT_FOUND"),
        ("DELETE", "/api/v1/dead-letters/nope", 404, "TASK_NOT_FOUND"),
        ("POST", "/api/v1/dead-letters/replay", 400, "INVALID_FIELD"),
        ("POST", "/api/v1/dead-letters/purge", 400, "INVALID_FIELD"),
        ("GET", "/api/v1/dead-letters?limit=0", 400, "INVALID_QUERY"),
        ("GET", "/api/v1/dead-letters?cursor=x", 400, "INVALID_CURSOR"),
    ] {
        let answer = world.call(method, path, "").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["code"]),
            (status, &json!(code)),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn contract_2_12_a_change_says_which_keys_have_no_effect() {
    let world = World::new().await;
    let change = r#"{"network":{"keep_alive":false,"max_nodes":7},"storage":{"type":"redis"}}"#;
    let put = world.put("/api/v1/config", change).await.ok();
    let keys: Vec<&str> = put["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["key"])
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(keys, ["network.keep_alive", "storage.type"]);
    assert!(put["warnings"][1]["message"].as_str().unwrap().contains("has no effect"));
    let keyed = world.put("/api/v1/config/consensus/quorum_size", r#"{"value":5}"#).await.ok();
    assert_eq!(keyed["warnings"][0]["key"], "consensus.quorum_size");
    let plain = world.put("/api/v1/config/network.max_nodes", r#"{"value":5}"#).await.ok();
    assert_eq!(plain["warnings"], json!([]));
    assert!(world.get("/api/v1/config").await.ok().get("warnings").is_none());
    let deep = format!("/api/v1/config/{}", ["a"; 20_000].join("."));
    assert_eq!(world.put(&deep, r#"{"value":1}"#).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn contract_2_12_auto_start_false_begins_with_scheduling_paused() {
    let world = World::new().await;
    world.put("/api/v1/config", r#"{"orchestrator":{"auto_start":false}}"#).await.ok();
    let paused = || world.cluster.view().read(|state| state.policy().paused);
    assert!(paused());
    world.post("/api/v1/control/start", "").await.ok();
    assert!(!paused(), "what an operator says counts from then on");
}

#[tokio::test]
async fn contract_6_row_9_what_nodes_say_to_a_shutdown_does_not_matter() {
    let world = World::new().await;
    let failing = Router::new().fallback(|| async { StatusCode::INTERNAL_SERVER_ERROR });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, failing).await });
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for (name, port) in [("fails", port), ("gone", gone)] {
        let body = json!({"host": "127.0.0.1", "port": port}).to_string();
        world.post(&format!("/api/v1/nodes/{name}/register"), &body).await.ok();
    }
    let told = node(&world).await;
    let answer = world.post("/api/v1/control/stop", r#"{"shutdown_nodes":true}"#).await.ok();
    assert_eq!(answer["message"], "Orchestrator stopped successfully");
    assert_eq!(answer["nodes_notified"], 2, "those that were reached");
    assert_eq!(told.lock().len(), 1);
    assert_eq!(
        world.get("/api/v1/nodes").await.ok()["active_nodes"],
        3,
        "nothing is held against them"
    );
}
