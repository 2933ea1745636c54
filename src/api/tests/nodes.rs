//! Nodes, heartbeats, agents: contract 2.2, 2.3, 2.6.

use axum::http::StatusCode;
use serde_json::json;

use super::{World, take};
use crate::model::{Load, NodeId, NodeStatus};
use crate::state::{Command, NodeObservation, Outcome};

#[tokio::test]
async fn contract_2_3_register() {
    let world = World::new().await;
    let path = "/api/v1/nodes/n1/register";
    let body = r#"{"host":"10.0.0.7","port":5000,"capabilities":["b","a"],
        "agents":[{"agent_id":"a1","status":"online"}],"features":{"x":1}}"#;
    let mut first = world.post(path, body).await.ok();
    assert_eq!(take(&mut first, "/registration_id").as_str().unwrap().len(), 32);
    let expected = json!({"success": true, "message": "Node n1 registered successfully",
        "node_id": "n1", "new": true});
    assert_eq!(first, expected);
    assert_eq!(world.post(path, body).await.ok()["new"], false);
    for empty in ["", "{}"] {
        let answer = world.post(path, empty).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(answer.json()["error"], "No data provided");
    }
    let wrong = world.post(path, r#"{"port":"x"}"#).await;
    assert_eq!(wrong.json()["error"], "Failed to register node");
    assert_eq!(wrong.json()["detail"], "port must be a number");
}

#[tokio::test]
async fn contract_2_3_a_full_fleet_refuses_new_nodes_only() {
    let world = World::new().await;
    world.register("n1").await;
    world.call("PUT", "/api/v1/config", r#"{"network":{"max_nodes":1}}"#).await.ok();
    world.register("n1").await;
    let answer = world.post("/api/v1/nodes/n2/register", r#"{"host":"h"}"#).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.json()["error"], "Failed to register node");
    assert_eq!(answer.json()["code"], "TOO_MANY_NODES");
}

#[tokio::test]
async fn contract_2_3_lists_and_shows_nodes() {
    let world = World::new().await;
    let empty = world.get("/api/v1/nodes").await.ok();
    let expected = json!({"success": true, "nodes": {}, "total_nodes": 0, "active_nodes": 0});
    assert_eq!(empty, expected);
    let body = r#"{"host":"h","port":1,"cpu_usage":10,"location":"lab","features":{"x":1}}"#;
    world.post("/api/v1/nodes/n1/register", body).await.ok();
    let mut list = world.get("/api/v1/nodes").await.ok();
    for pointer in ["/nodes/n1/last_heartbeat", "/nodes/n1/uptime"] {
        assert!(take(&mut list, pointer).is_f64(), "{pointer}");
    }
    let expected = json!({
        "success": true, "total_nodes": 1, "active_nodes": 1,
        "nodes": {"n1": {
            "node_id": "n1", "host": "h", "port": 1, "node_type": "worker", "status": "active",
            "capabilities": [], "agents_count": 0, "cpu_usage": 10.0, "memory_usage": 0.0,
            "gpu_usage": 0.0, "network_latency": 0.0, "load_score": 0.04, "version": "1.0.0",
            "location": "lab", "capacity": 16, "running": 0, "agents": []
        }}
    });
    assert_eq!(list, expected);
    let one = world.get("/api/v1/nodes/n1").await.ok();
    let node = &one["node"];
    assert_eq!((&node["reliability_score"], &node["tasks_completed"]), (&json!(1.0), &json!(0)));
    assert_eq!(node["metadata"], json!({"features": {"x": 1}}));
    assert_eq!(one["agents"], json!([]));
    let missing = world.get("/api/v1/nodes/nope").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(missing.json()["error"], "Node not found");
}

#[tokio::test]
async fn contract_2_3_heartbeats_leave_no_log_entry() {
    let world = World::new().await;
    let path = "/api/v1/nodes/n1/heartbeat";
    let unknown = world.post(path, "{}").await;
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST);
    assert_eq!(unknown.json()["error"], "Failed to update heartbeat");
    assert_eq!(unknown.json()["code"], "NODE_NOT_FOUND");
    world.register("n1").await;
    let before = world.get("/api/v1/nodes/n1").await;
    let beat = r#"{"cpu_usage":50,"memory_usage":20,"load_score":0.63,"active_tasks":0}"#;
    let answer = world.post(path, beat).await.ok();
    assert_eq!(answer, json!({"success": true, "message": "Heartbeat updated"}));
    let after = world.get("/api/v1/nodes/n1").await;
    assert_eq!(before.header("x-quorate-index"), after.header("x-quorate-index"));
    let node = &after.json()["node"];
    assert_eq!((&node["cpu_usage"], &node["load_score"]), (&json!(50.0), &json!(0.006)));
    let wrong = world.post(path, r#"{"status":"sleepy"}"#).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert_eq!(wrong.json()["error"], "Failed to update heartbeat");
    assert_eq!(world.post(path, "").await.ok()["success"], true);
}

#[tokio::test]
async fn contract_2_7_heartbeats_may_carry_ends() {
    let world = World::new().await;
    world.register("n1").await;
    world.submit("t").await;
    world.place("t", "n1").await;
    let path = "/api/v1/nodes/n1/heartbeat";
    let body = r#"{"completed_tasks":[{"task_id":"t","status":"completed","result":7}]}"#;
    let answer = world.post(path, body).await.ok();
    assert_eq!(answer["completed_tasks"], json!({"accepted": 1, "stale": 0}));
    assert_eq!(world.get("/api/v1/tasks/t").await.ok()["result"], 7);
    let again = world.post(path, body).await.ok();
    assert_eq!(again["completed_tasks"], json!({"accepted": 0, "stale": 1}));
    let gone = r#"{"completed_tasks":[{"task_id":"nope","status":"completed"}]}"#;
    let answer = world.post(path, gone).await.ok();
    assert_eq!(answer["completed_tasks"], json!({"accepted": 0, "stale": 1}));
}

#[tokio::test]
async fn contract_2_3_set_status_in_upstreams_order() {
    let world = World::new().await;
    let path = "/api/v1/nodes/n1/status";
    let missing = world.call("PUT", path, "{}").await;
    assert_eq!(
        (missing.status, &missing.json()["error"]),
        (StatusCode::BAD_REQUEST, &json!("Status required"))
    );
    for status in ["maintenance", "sleepy"] {
        let unknown = world.call("PUT", path, &format!(r#"{{"status":"{status}"}}"#)).await;
        assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{status}");
        assert_eq!(unknown.json()["error"], "Node not found");
    }
    world.register("n1").await;
    let invalid = world.call("PUT", path, r#"{"status":"sleepy"}"#).await;
    assert_eq!(invalid.json()["error"], "Invalid status: sleepy");
    let set = world.call("PUT", path, r#"{"status":"Maintenance"}"#).await.ok();
    let expected = json!({"success": true, "message": "Node status updated to maintenance",
        "old_status": "active", "new_status": "maintenance"});
    assert_eq!(set, expected);
}

#[tokio::test]
async fn contract_2_3_delete_takes_its_work_away() {
    let world = World::new().await;
    world.register("n1").await;
    world.submit("t").await;
    world.place("t", "n1").await;
    let answer = world.call("DELETE", "/api/v1/nodes/n1", "").await.ok();
    let expected = json!({"success": true, "message": "Node n1 unregistered successfully"});
    assert_eq!(answer, expected);
    assert_eq!(world.get("/api/v1/tasks/t").await.ok()["task"]["status"], "pending");
    let again = world.call("DELETE", "/api/v1/nodes/n1", "").await;
    assert_eq!(
        (again.status, &again.json()["error"]),
        (StatusCode::NOT_FOUND, &json!("Node not found"))
    );
}

#[tokio::test]
async fn contract_2_3_agents_of_all_nodes() {
    let world = World::new().await;
    for node in ["n1", "n2"] {
        let body = r#"{"agents":[{"agent_id":"a1","agent_type":"gpu"}]}"#;
        world.post(&format!("/api/v1/nodes/{node}/register"), body).await.ok();
    }
    let all = world.get("/api/v1/agents").await.ok();
    assert_eq!(all["total_agents"], 2);
    assert_eq!(all["agents"]["a1"]["node_id"], "n1");
    assert_eq!(all["agents"]["n2/a1"]["node_id"], "n2");
    assert_eq!(all["agents"]["a1"]["source"], "web4ai");
    let one = world.get("/api/v1/agents/a1").await.ok();
    assert_eq!(
        (&one["agent"]["agent_type"], &one["agent"]["status"]),
        (&json!("gpu"), &json!("active"))
    );
    assert_eq!(world.get("/api/v1/agents/n2/a1").await.ok()["agent"]["node_id"], "n2");
    let missing = world.get("/api/v1/agents/zz").await;
    assert_eq!(
        (missing.status, &missing.json()["error"]),
        (StatusCode::NOT_FOUND, &json!("Agent not found"))
    );
}

#[tokio::test]
async fn the_measured_latency_of_a_node_is_shown_with_and_without_heartbeats() {
    let world = World::new().await;
    world.register("n1").await;
    let load = Load { latency_us: 2500, ..Load::default() };
    let seen = NodeStatus::Active;
    let node_id = NodeId::trusted("n1");
    let observations = vec![NodeObservation { node_id, seen, status: seen, load: Some(load) }];
    let measured = Command::ObserveNodes { epoch: world.epoch, observations };
    assert_eq!(world.commit(measured).await, Outcome::Judged { accepted: 1, stale: 0 });
    let shown = async || world.get("/api/v1/nodes").await.ok()["nodes"]["n1"].clone();
    assert_eq!(shown().await["network_latency"], 2.5, "a node that was found sends nothing");
    world.post("/api/v1/nodes/n1/heartbeat", r#"{"cpu_usage":7}"#).await.ok();
    let node = shown().await;
    assert_eq!((&node["cpu_usage"], &node["network_latency"]), (&json!(7.0), &json!(2.5)));
}

/// A node that registered as `agent:x` took the place of agent `x`.
#[tokio::test]
async fn contract_c22_no_node_takes_the_place_of_an_agent() {
    let world = World::new().await;
    world.agent("x", "kind").await;
    let before = world.get("/api/v1/agents/x").await.ok();
    for name in ["agent:x", "agent:y"] {
        let path = format!("/api/v1/nodes/{name}/register");
        let refused = world.post(&path, r#"{"host":"elsewhere","port":1}"#).await;
        let body = refused.json();
        assert_eq!(
            (refused.status, &body["error"], &body["code"]),
            (
                StatusCode::BAD_REQUEST,
                &json!("Failed to register node"),
                &json!("NODE_ID_RESERVED")
            )
        );
        let beat = world.post(&format!("/api/v1/nodes/{name}/heartbeat"), "{}").await;
        assert_eq!(beat.status, StatusCode::BAD_REQUEST, "{}", beat.text);
        assert_eq!(beat.json()["error"], "Failed to update heartbeat");
    }
    assert_eq!(world.get("/api/v1/agents/x").await.ok(), before);
    world.register("x").await;
    let agents = world.get("/api/v1/agents").await.ok();
    assert_eq!(agents["total_agents"], 1, "a node of the same name is something else");
}

/// `metrics.agents` counted the agents of nodes alone.
#[tokio::test]
async fn metrics_and_status_count_the_same_agents() {
    let world = World::new().await;
    world.agent("x", "kind").await;
    let body =
        r#"{"host":"h","agents":[{"agent_id":"a","status":"offline","efficiency_score":0.5}]}"#;
    world.post("/api/v1/nodes/n1/register", body).await.ok();
    let metrics = world.get("/api/v1/metrics").await.ok();
    let expected =
        json!({"total": 2, "active": 1, "avg_efficiency": 0.75, "avg_tasks_per_agent": 0.0});
    assert_eq!(metrics["metrics"]["agents"], expected);
    assert_eq!(metrics["network_metrics"]["total_agents"], 2);
    let status = world.get("/api/v1/status").await.ok();
    assert_eq!(status["data"]["agents"]["total"], 2);
}

/// The word was dropped, whatever it was.
#[tokio::test]
async fn contract_2_1_a_node_may_say_at_registration_what_it_is() {
    let world = World::new().await;
    let path = "/api/v1/nodes/n1/register";
    let wild = world.post(path, r#"{"host":"h","status":"wild"}"#).await;
    assert_eq!(wild.status, StatusCode::BAD_REQUEST);
    let body = wild.json();
    assert_eq!(body["error"], "Failed to register node");
    assert_eq!(body["detail"], "status must be active, degraded, maintenance, offline or error");
    assert_eq!(world.get("/api/v1/nodes/n1").await.status, StatusCode::NOT_FOUND);
    for (said, status) in [
        (r#"{"host":"h","status":"Degraded"}"#, NodeStatus::Degraded),
        (r#"{"host":"h","status":"online"}"#, NodeStatus::Active),
        (r#"{"host":"h"}"#, NodeStatus::Active),
    ] {
        world.post(path, said).await.ok();
        // The leader takes it from the book, like the status of a heartbeat.
        let heard = world.cluster.heartbeats().heard(&NodeId::trusted("n1")).unwrap();
        assert_eq!(heard.beat.status, Some(status), "{said}");
        assert_eq!(world.get("/api/v1/nodes/n1").await.ok()["node"]["status"], "active");
    }
}

#[tokio::test]
async fn contract_2_8_a_load_score_that_nobody_told_is_weighed_as_the_configuration_says() {
    let world = World::new().await;
    let weights = r#"{"value":{"weight_cpu":1,"weight_memory":0,"weight_tasks":0}}"#;
    let put = world.put("/api/v1/config/performance.load_balancing", weights).await.ok();
    assert_eq!(put["warnings"], json!([]), "they have an effect");
    let score = async || world.get("/api/v1/nodes/n1").await.ok()["node"]["load_score"].clone();
    let register = r#"{"host":"h","cpu_usage":30,"memory_usage":90}"#;
    world.post("/api/v1/nodes/n1/register", register).await.ok();
    assert_eq!(score().await, 0.3);
    let path = "/api/v1/nodes/n1/heartbeat";
    world.post(path, r#"{"cpu_usage":45,"memory_usage":90,"tasks_running":9}"#).await.ok();
    assert_eq!(score().await, 0.45);
    world.post(path, r#"{"cpu_usage":45,"load_score":0.2,"tasks_running":9}"#).await.ok();
    assert_eq!(score().await, 0.2, "its own word counts");
    let wrong = r#"{"value":{"weight_cpu":"much"}}"#;
    let wrong = world.put("/api/v1/config/performance.load_balancing", wrong).await;
    assert_eq!(wrong.json()["code"], "INVALID_CONFIG");
}
