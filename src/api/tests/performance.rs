//! `GET /api/v1/metrics/performance` and `/api/v1/metrics`: contract 2.3, 2.10, C19.

use serde_json::{Value, json};

use super::World;

async fn node(world: &World, node_id: &str, figures: &str) {
    let path = format!("/api/v1/nodes/{node_id}/register");
    world.post(&path, &format!(r#"{{"host":"h",{figures}}}"#)).await.ok();
}

fn kinds(advice: &Value) -> Vec<String> {
    let rows = advice.as_array().unwrap().iter();
    rows.map(|row| format!("{} {}", row["type"], row["priority"]).replace('"', "")).collect()
}

#[tokio::test]
async fn contract_2_3_performance_carries_both_generations() {
    let world = World::new().await;
    node(&world, "n1", r#""cpu_usage":40,"memory_usage":60,"load_score":0.5"#).await;
    node(&world, "n2", r#""cpu_usage":20,"memory_usage":20,"load_score":0.3"#).await;
    world.submit("t").await;
    world.place("t", "n1").await;
    let done = r#"{"status":"completed","attempt":1,"result":1}"#;
    world.post("/api/v1/tasks/t/result", done).await.ok();
    let body = world.get("/api/v1/metrics/performance").await.ok();
    assert_eq!(body["success"], true);
    let performance = &body["performance"];
    for (key, value) in [
        ("network_utilization", json!(0.4)),
        ("average_cpu_usage", json!(30.0)),
        ("average_memory_usage", json!(40.0)),
        ("average_network_latency", json!(0.0)),
        ("total_nodes", json!(2)),
        ("active_nodes", json!(2)),
        ("success_rate", json!(100.0)),
    ] {
        assert_eq!(performance[key], value, "{key}");
    }
    assert!(performance["task_throughput"].as_f64().unwrap() > 0.0);
    let analysis = &body["performance_analysis"];
    assert!(analysis["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(analysis["network_utilization"], 0.4);
    assert!(analysis["avg_response_time"].is_f64() && analysis["task_throughput"].is_f64());
    assert_eq!(analysis["recommendations"], body["recommendations"]);
    assert_eq!(body["recommendations"], json!([]));
}

#[tokio::test]
async fn contract_c19_success_is_percent_here_and_a_fraction_elsewhere() {
    let world = World::new().await;
    node(&world, "n1", r#""load_score":0.5"#).await;
    for (task_id, outcome) in [("a", "completed"), ("b", "failed")] {
        world.submit(task_id).await;
        world.place(task_id, "n1").await;
        let report = format!(r#"{{"status":"{outcome}","attempt":1}}"#);
        world.post(&format!("/api/v1/tasks/{task_id}/result"), &report).await.ok();
    }
    let body = world.get("/api/v1/metrics/performance").await.ok();
    assert_eq!(body["performance"]["success_rate"], 50.0);
    let metrics = world.get("/api/v1/metrics").await.ok();
    assert_eq!(metrics["network_metrics"]["success_rate"], 0.5);
    // One success and one failure: +0.1 is cut at 1, then -0.1 (contract 2.8).
    assert_eq!(metrics["load_balancer_stats"]["node_weights"], json!({"n1": 0.9}));
}

#[tokio::test]
async fn contract_2_10_advice_follows_from_what_nodes_report() {
    let world = World::new().await;
    node(&world, "n1", r#""cpu_usage":95,"memory_usage":50,"load_score":0.95"#).await;
    node(&world, "n2", r#""cpu_usage":95,"memory_usage":50,"load_score":0.9"#).await;
    let body = world.get("/api/v1/metrics/performance").await.ok();
    let expected = ["auto_scaling high", "resource_optimization high"];
    assert_eq!(kinds(&body["recommendations"]), expected);
    // A heartbeat is fresher than the registration.
    let beat = r#"{"load_score":0.1,"cpu_usage":10,"memory_usage":10,"tasks_running":0}"#;
    world.post("/api/v1/nodes/n2/heartbeat", beat).await.ok();
    let body = world.get("/api/v1/metrics/performance").await.ok();
    let expected = ["resource_optimization high", "load_rebalancing medium"];
    assert_eq!(kinds(&body["recommendations"]), expected);
    let details = &body["recommendations"][1]["details"];
    assert_eq!((&details["overloaded"], &details["underloaded"]), (&json!(["n1"]), &json!(["n2"])));
    // A node that is away gives no advice with its last words.
    let offline = r#"{"status":"offline"}"#;
    world.call("PUT", "/api/v1/nodes/n1/status", offline).await.ok();
    let body = world.get("/api/v1/metrics/performance").await.ok();
    assert_eq!(kinds(&body["recommendations"]), [""; 0]);
}

#[tokio::test]
async fn contract_2_12_thresholds_of_the_configuration_move_the_advice() {
    let world = World::new().await;
    node(&world, "n1", r#""cpu_usage":85,"memory_usage":50,"load_score":0.5"#).await;
    let body = world.get("/api/v1/metrics/performance").await.ok();
    assert_eq!(kinds(&body["recommendations"]), [""; 0]);
    let limits = r#"{"performance":{"cpu_threshold":80,"performance_threshold":0.4}}"#;
    let put = world.put("/api/v1/config", limits).await.ok();
    assert_eq!(put["warnings"], json!([]), "they have an effect");
    let body = world.get("/api/v1/metrics/performance").await.ok();
    let expected = ["auto_scaling high", "resource_optimization high"];
    assert_eq!(kinds(&body["recommendations"]), expected);
    let shown = &body["recommendations"][1]["description"];
    assert_eq!(shown, "1 nodes use more than 80 % of their cpu");
}
