//! `GET /api/v1/tasks/{id}/why`: each reason with a state that has it.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::World;
use crate::api::wire_time::parse_time;
use crate::clock;
use crate::model::{Load, NodeId, TaskFailure, TaskId};
use crate::state::{Command, Dispatch, DispatchResult, NodeSpec, Outcome, TaskOutcome};

/// The codes of all blockers of a task, and whether it is blocked.
async fn why(world: &World, task_id: &str) -> (Vec<String>, bool, Value) {
    let why = world.get(&format!("/api/v1/tasks/{task_id}/why")).await.ok();
    let blockers = why["blockers"].as_array().unwrap();
    for blocker in blockers {
        assert!(!blocker["message"].as_str().unwrap().is_empty(), "{blocker}");
        assert!(blocker["since"].as_str().unwrap().ends_with('Z'), "{blocker}");
        assert!(blocker["for_ms"].is_u64(), "{blocker}");
    }
    for key in ["queued_ms", "executing_ms", "retries", "total_ms"] {
        assert!(why["spent"][key].is_u64(), "{key} in {why}");
    }
    let codes = blockers.iter().map(|blocker| blocker["code"].as_str().unwrap().to_owned());
    (codes.collect(), why["blocked"].as_bool().unwrap(), why)
}

/// As [`why`], and it is for nothing else than `code`.
async fn only(world: &World, task_id: &str, code: &str) -> Value {
    let (codes, blocked, why) = why(world, task_id).await;
    assert_eq!(codes, [code], "{why}");
    assert_eq!(blocked, !["QUEUED", "NOT_ACKNOWLEDGED", "RUNNING"].contains(&code), "{why}");
    why["blockers"][0].clone()
}

#[tokio::test]
async fn why_follows_a_task_through_its_life() {
    let world = World::new().await;
    world.submit("t").await;
    let blocker = only(&world, "t", "NO_NODE").await;
    assert_eq!(blocker["message"], "no node is registered that it may go to");
    world.register("n1").await;
    only(&world, "t", "QUEUED").await;
    world.place("t", "n1").await;
    only(&world, "t", "NOT_ACKNOWLEDGED").await;
    world.acknowledge("t", 1).await;
    let blocker = only(&world, "t", "RUNNING").await;
    assert!(blocker["until"].as_str().unwrap().ends_with('Z'), "{blocker}");
    let report = r#"{"status":"failed","error":"no luck","retryable":true}"#;
    world.post("/api/v1/tasks/t/result", report).await.ok();
    let blocker = only(&world, "t", "BACK_OFF").await;
    assert_eq!(blocker["message"], "waits for retry 1 after: no luck");
    // The words are those of the task itself.
    let (told, task) = (why(&world, "t").await.2, world.get("/api/v1/tasks/t").await.ok());
    assert_eq!((&told["status"], &told["state"]), (&task["status"], &task["task"]["state"]));
    assert_eq!(told["state"], "retrying");
    assert!(blocker["until"].as_str().unwrap() > blocker["since"].as_str().unwrap());
    world.call("DELETE", "/api/v1/tasks/t", "").await.ok();
    let (codes, blocked, why) = why(&world, "t").await;
    assert_eq!((codes.len(), blocked, &why["spent"]["retries"]), (0, false, &json!(1)));
    assert_eq!((&why["status"], &why["state"]), (&json!("cancelled"), &json!("cancelled")));
}

#[tokio::test]
async fn why_names_what_no_node_has() {
    let world = World::new().await;
    world.register("n1").await;
    let body = r#"{"task_id":"gpu","task_type":"t","requirements":{"capabilities":["gpu","x"]}}"#;
    world.post("/api/v1/tasks", body).await.ok();
    assert_eq!(only(&world, "gpu", "NO_NODE").await["message"], "no node has gpu, x");
    let steps = r#"{"task_id":"s","task_type":"t","steps":[{"agent_type":"magic"}]}"#;
    world.post("/api/v1/tasks", steps).await.ok();
    let blocker = only(&world, "s", "NO_NODE").await;
    assert_eq!(blocker["message"], "no agent of type magic is registered");
    assert_eq!(blocker["step"], "magic");
}

#[tokio::test]
async fn why_names_nodes_that_are_busy() {
    let world = World::new().await;
    let small = r#"{"host":"h","capacity":1}"#;
    world.post("/api/v1/nodes/full/register", small).await.ok();
    let loaded = r#"{"host":"h","load_score":0.95}"#;
    world.post("/api/v1/nodes/loaded/register", loaded).await.ok();
    world.register("resting").await;
    let path = "/api/v1/nodes/resting/status";
    world.call("PUT", path, r#"{"status":"maintenance"}"#).await.ok();
    world.submit("first").await;
    world.place("first", "full").await;
    world.submit("t").await;
    let blocker = only(&world, "t", "NODES_BUSY").await;
    let nodes = json!({"full": "full", "loaded": "overloaded", "resting": "maintenance"});
    assert_eq!(blocker["nodes"], nodes);
}

#[tokio::test]
async fn why_names_a_key_that_is_taken() {
    let world = World::new().await;
    world.register("n1").await;
    for task_id in ["a", "b"] {
        let limit = json!({"key": "db", "max": 1});
        let body = json!({"task_id": task_id, "task_type": "t", "concurrency": limit});
        world.post("/api/v1/tasks", &body.to_string()).await.ok();
    }
    world.place("a", "n1").await;
    let blocker = only(&world, "b", "CONCURRENCY").await;
    assert_eq!(blocker["message"], "1 of 1 tasks with the key db are under way");
    world.post("/api/v1/tasks/a/result", r#"{"success":true}"#).await.ok();
    only(&world, "b", "QUEUED").await;
}

#[tokio::test]
async fn why_names_reasons_in_the_order_in_which_they_must_go() {
    let world = World::new().await;
    for task_id in ["a", "b"] {
        let body = json!({"task_id": task_id, "task_type": "t", "concurrency": {"key": "db"}});
        world.post("/api/v1/tasks", &body.to_string()).await.ok();
    }
    world.post("/api/v1/nodes/n1/register", r#"{"host":"h","capacity":1}"#).await.ok();
    world.place("a", "n1").await;
    world.post("/api/v1/control/stop", "").await.ok();
    let (codes, blocked, why) = why(&world, "b").await;
    assert_eq!(codes, ["PAUSED", "CONCURRENCY", "NODES_BUSY"]);
    assert!(blocked);
    assert_eq!(why["queue_position"], 0);
}

#[tokio::test]
async fn why_looks_into_steps() {
    let world = World::new().await;
    let agent = r#"{"agent_id":"a1","agent_type":"x","endpoint":"h:1"}"#;
    world.post("/api/v1/agents/register", agent).await.ok();
    let body = r#"{"task_id":"s","task_type":"mine","steps":[{"name":"one","agent_type":"x"},
        {"name":"two","agent_type":"x"}]}"#;
    world.post("/api/v1/tasks", body).await.ok();
    let (codes, blocked, shown) = why(&world, "s").await;
    assert_eq!(codes, ["QUEUED", "DEPENDS_ON"]);
    assert!(blocked);
    assert_eq!(
        (&shown["blockers"][0]["step"], &shown["queue_position"]),
        (&json!("one"), &Value::Null)
    );
    let waits = &shown["blockers"][1];
    assert_eq!((&waits["step"], &waits["message"]), (&json!("two"), &json!("waits for one")));
    world.place("s#0", "agent:a1").await;
    let (codes, _, _) = why(&world, "s").await;
    assert_eq!(codes, ["RUNNING", "DEPENDS_ON"], "an agent says nothing before it is done");
    let shown = world.get("/api/v1/tasks/s").await.ok();
    assert_eq!(shown["agent_executions"][0]["status"], "running");
}

/// `min_cpu`, `min_memory` and nodes that the leader holds back were not known here.
#[tokio::test]
async fn why_names_each_reason_that_the_scheduler_has() {
    let world = World::new().await;
    for (node, body) in [
        ("busy", json!({"host": "h", "cpu_usage": 95, "load_score": 0.5})),
        ("filled", json!({"host": "h", "memory_usage": 85, "load_score": 0.5})),
        ("silent", json!({"host": "h"})),
        ("leaving", json!({"host": "h"})),
    ] {
        let path = format!("/api/v1/nodes/{node}/register");
        world.post(&path, &body.to_string()).await.ok();
    }
    world.submit("there").await;
    world.place("there", "leaving").await;
    world.post("/api/v1/nodes/leaving/drain", "{}").await.ok();
    let held = vec![(NodeId::trusted("silent"), Duration::from_secs(60))];
    world.cluster.heartbeats().set_held(held);
    let needs = json!({"min_cpu": 10, "min_memory": 20});
    let body = json!({"task_id": "t", "task_type": "t", "requirements": needs});
    world.post("/api/v1/tasks", &body.to_string()).await.ok();
    let blocker = only(&world, "t", "NODES_BUSY").await;
    let nodes =
        json!({"busy": "low_cpu", "filled": "low_memory", "silent": "held", "leaving": "draining"});
    assert_eq!(blocker["nodes"], nodes);
    // A heartbeat with other figures is enough, as it is for the scheduler.
    let beat = r#"{"cpu_usage":5,"memory_usage":5,"load_score":0.1}"#;
    world.post("/api/v1/nodes/busy/heartbeat", beat).await.ok();
    only(&world, "t", "QUEUED").await;
}

/// It said that no node is registered, when the only one was excluded.
#[tokio::test]
async fn why_names_nodes_that_are_excluded() {
    let world = World::new().await;
    world.register("n1").await;
    let body = json!({"task_id": "t", "task_type": "t", "requirements": {"exclude_nodes": ["n1"]}});
    world.post("/api/v1/tasks", &body.to_string()).await.ok();
    let (codes, _, shown) = why(&world, "t").await;
    assert_eq!(codes, ["NO_NODE"]);
    let message = shown["blockers"][0]["message"].as_str().unwrap();
    assert_eq!(message, "every node that could take it is excluded: n1");
}

#[tokio::test]
async fn why_names_copies_that_must_be_apart_and_programs_that_come_first() {
    let world = World::new().await;
    world.register("n1").await;
    let body = json!({"task_id": "c", "task_type": "t", "requirements": {"redundancy": 2}});
    world.post("/api/v1/tasks", &body.to_string()).await.ok();
    world.place("c#0", "n1").await;
    let (codes, _, shown) = why(&world, "c").await;
    assert_eq!(codes, ["NOT_ACKNOWLEDGED", "NODES_BUSY"]);
    assert_eq!(shown["blockers"][1]["nodes"], json!({"n1": "has_copy"}));
    let builtin = NodeSpec {
        node_id: NodeId::trusted("agent:builtin"),
        host: String::new(),
        port: 0,
        node_type: "agent".to_owned(),
        capabilities: Vec::new(),
        capacity: 9,
        agents_count: 0,
        agents: Vec::new(),
        load: Load::default(),
        version: String::new(),
        location: None,
        external_url: None,
        instance: String::new(),
        metadata: String::new(),
        agent_type: Some("x".to_owned()),
    };
    world.commit(Command::RegisterNode(builtin)).await;
    let program = r#"{"agent_id":"a","agent_type":"x","endpoint":"h:1","max_concurrent_tasks":1}"#;
    world.post("/api/v1/agents/register", program).await.ok();
    for task_id in ["s1", "s2"] {
        let steps = json!({"task_id": task_id, "task_type": "t", "steps": [{"agent_type": "x"}]});
        world.post("/api/v1/tasks", &steps.to_string()).await.ok();
    }
    only(&world, "s1", "QUEUED").await;
    world.place("s1#0", "agent:a").await;
    let blocker = only(&world, "s2", "NODES_BUSY").await;
    let nodes = json!({"agent:a": "full", "agent:builtin": "left_to_programs"});
    assert_eq!(blocker["nodes"], nodes);
}

#[tokio::test]
async fn why_names_a_rate_and_when_it_clears() {
    let world = World::new().await;
    world.register("n1").await;
    for task_id in ["a", "b"] {
        let limit = json!({"key": "api", "max": 1, "per_seconds": 90});
        let body = json!({"task_id": task_id, "task_type": "t", "rate_limit": limit});
        world.post("/api/v1/tasks", &body.to_string()).await.ok();
    }
    only(&world, "b", "QUEUED").await;
    world.place("a", "n1").await;
    world.post("/api/v1/tasks/a/result", r#"{"success":true}"#).await.ok();
    let blocker = only(&world, "b", "RATE_LIMIT").await;
    let message = "1 tasks with the key api were started within 90 s";
    assert_eq!(blocker["message"], message);
    assert_eq!(waits_ms(&blocker), 90_000);
    let wrong = json!({"task_type": "t", "rate_limit": {"key": "api", "max": 1}}).to_string();
    let refused = world.post("/api/v1/tasks", &wrong).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.text.contains("rate_limit.per_seconds"), "{}", refused.text);
}

fn waits_ms(blocker: &Value) -> u64 {
    let at = |key: &str| parse_time(blocker[key].as_str().unwrap()).unwrap();
    at("until") - at("since")
}

/// What a step of an agent waits was told from a moment after its failure, and what a busy node makes
/// a task wait from nowhere.
#[tokio::test]
async fn why_knows_since_when_a_back_off_lasts() {
    let world = World::new().await;
    let agent = r#"{"agent_id":"a1","agent_type":"x","endpoint":"h:1"}"#;
    world.post("/api/v1/agents/register", agent).await.ok();
    let steps = json!([{"name": "one", "agent_type": "x", "max_retries": 2}]);
    let body = json!({"task_id": "s", "task_type": "mine", "steps": steps});
    world.post("/api/v1/tasks", &body.to_string()).await.ok();
    world.place("s#0", "agent:a1").await;
    let error = "it fell".to_owned();
    let failed = TaskOutcome::Failed { failure: TaskFailure::Retryable, error };
    dispatched(&world, "s#0", DispatchResult::Finished(failed)).await;
    let blocker = only(&world, "s", "BACK_OFF").await;
    assert_eq!((waits_ms(&blocker), &blocker["step"]), (2000, &json!("one")));
    assert_eq!(blocker["message"], "waits for retry 1 after: it fell");

    world.register("n1").await;
    world.submit("t").await;
    world.place("t", "n1").await;
    dispatched(&world, "t", DispatchResult::Refused { retry_after_ms: 77_000 }).await;
    let blocker = only(&world, "t", "BACK_OFF").await;
    assert_eq!(waits_ms(&blocker), 77_000);
    assert_eq!(blocker["message"], "the node that it was given to was busy");
}

/// Records what became of the first attempt, as the dispatcher does.
async fn dispatched(world: &World, task_id: &str, result: DispatchResult) {
    let dispatch = Dispatch { task_id: TaskId::trusted(task_id), attempt: 1, again: false, result };
    let command = Command::RecordDispatches { epoch: world.epoch, dispatches: vec![dispatch] };
    assert_eq!(world.commit(command).await, Outcome::Judged { accepted: 1, stale: 0 });
}

#[tokio::test]
async fn why_says_since_when_scheduling_is_paused() {
    let world = World::new().await;
    world.register("n1").await;
    world.submit("t").await;
    let before = only(&world, "t", "QUEUED").await;
    let began_ms = clock::now_ms();
    while clock::now_ms() == began_ms {
        tokio::task::yield_now().await;
    }
    world.post("/api/v1/control/stop", "").await.ok();
    let (codes, _, shown) = why(&world, "t").await;
    assert_eq!(codes, ["PAUSED"]);
    assert!(shown["blockers"][0]["since"].as_str() > before["since"].as_str());
}

#[tokio::test]
async fn why_of_nothing_is_not_found() {
    let world = World::new().await;
    let answer = world.get("/api/v1/tasks/nope/why").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.json()["error"], "Task not found");
}
