//! What family W's dashboard asks for: contract 2.3, dashboard endpoints.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use super::{World, take};

async fn work(world: &World) {
    let register = r#"{"host":"h","port":5000,"load_score":0.25,"capabilities":["c"],
        "agents":[{"agent_id":"a1"}],"external_url":"http://x/?a=1&b=<2>"}"#;
    world.post("/api/v1/nodes/n1/register", register).await.ok();
    for (task_id, outcome) in [("done", "completed"), ("bad", "failed")] {
        world.submit(task_id).await;
        world.place(task_id, "n1").await;
        let report = format!(r#"{{"status":"{outcome}","attempt":1,"agent_id":"a1"}}"#);
        world.post(&format!("/api/v1/tasks/{task_id}/result"), &report).await.ok();
    }
    let waits = r#"{"task_id":"waits","task_type":"t","priority":"low",
        "requirements":{"capabilities":["gpu"],"min_cpu":10}}"#;
    world.post("/api/v1/tasks", waits).await.ok();
    world.submit("runs").await;
    world.place("runs", "n1").await;
}

#[tokio::test]
async fn contract_2_3_dashboard_config_names_the_host_that_was_asked() {
    let world = World::new().await;
    let request = Request::builder().uri("/api/v1/dashboard/config").header("host", "q.test:9000");
    let body = world.send(request.body(Body::empty()).unwrap()).await.ok();
    let config = json!({"orchestrator_url": "http://q.test:9000",
        "websocket_url": "ws://q.test:9000/ws", "refresh_interval": 5000, "auto_refresh": true,
        "theme": "light"});
    assert_eq!(body, json!({"success": true, "config": config}));
}

#[tokio::test]
async fn contract_2_3_dashboard_alerts_come_and_go_with_their_cause() {
    let world = World::new().await;
    let mut body = world.get("/api/v1/dashboard/alerts").await.ok();
    assert!(take(&mut body, "/alerts/0/timestamp").as_str().unwrap().ends_with('Z'));
    let alert = json!({"id": "no_nodes", "type": "critical", "title": "No Active Nodes",
        "message": "None of 0 registered nodes is active", "severity": "critical"});
    assert_eq!(body, json!({"success": true, "alerts": [alert], "total_alerts": 1}));
    work(&world).await;
    let body = world.get("/api/v1/dashboard/alerts").await.ok();
    assert_eq!(
        (&body["alerts"][0]["id"], &body["total_alerts"]),
        (&json!("low_success_rate"), &json!(1))
    );
}

#[tokio::test]
async fn contract_2_3_dashboard_nodes_have_all_fields() {
    let world = World::new().await;
    work(&world).await;
    let body = world.get("/api/v1/dashboard/nodes/detailed").await.ok();
    assert_eq!(body["total_nodes"], 1);
    let node = &body["nodes"][0];
    for (key, value) in [
        ("node_id", json!("n1")),
        ("network_latency", json!(0.0)),
        ("reliability_score", json!(0.9)),
        ("tasks_completed", json!(1)),
        ("tasks_failed", json!(1)),
        ("load_score", json!(0.25)),
    ] {
        assert_eq!(node[key], value, "{key}");
    }
    assert!(node["uptime_hours"].is_f64() && node["metadata"].is_object());
    assert_eq!(node["agents"][0]["agent_id"], "a1");
}

#[tokio::test]
async fn contract_2_3_dashboard_queue_names_priorities() {
    let world = World::new().await;
    work(&world).await;
    let body = world.get("/api/v1/dashboard/tasks/queue").await.ok();
    let queue = &body["queue"];
    let first = |list: &str| queue[list][0].clone();
    let pending = first("pending");
    assert_eq!((&pending["task_id"], &pending["priority"]), (&json!("waits"), &json!("LOW")));
    assert_eq!(pending["requirements"], json!({"capabilities": ["gpu"], "min_cpu": 10}));
    assert_eq!(
        (&first("active")["task_id"], &first("active")["priority"]),
        (&json!("runs"), &json!("NORMAL"))
    );
    let completed = first("recent_completed");
    assert_eq!((&completed["task_id"], &completed["agent_id"]), (&json!("done"), &json!("a1")));
    assert_eq!(first("recent_failed")["task_id"], "bad");
    let summary = json!({"pending_count": 1, "active_count": 1, "completed_count": 1,
        "failed_count": 1});
    assert_eq!(body["summary"], summary);
    for number in 0..15 {
        world.submit(&format!("more{number}")).await;
    }
    let body = world.get("/api/v1/dashboard/tasks/queue").await.ok();
    assert_eq!(body["queue"]["pending"].as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn contract_2_3_dashboard_history_is_real_or_null() {
    let world = World::new().await;
    work(&world).await;
    let path = "/api/v1/dashboard/performance/history";
    // The first sample, and what is found again of the time before it, come a moment after start.
    let known = async {
        loop {
            let body = world.get(path).await.ok();
            if !body["history"][19]["tasks_completed"].is_null() {
                return body;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let body = tokio::time::timeout(std::time::Duration::from_secs(30), known).await.unwrap();
    assert_eq!(body["total_points"], 20);
    let history = body["history"].as_array().unwrap();
    assert_eq!(history.len(), 20);
    let times: Vec<_> = history.iter().map(|point| point["timestamp"].to_string()).collect();
    assert!(times.is_sorted(), "oldest first: {times:?}");
    let last = &history[19];
    for (key, value) in [
        ("tasks_completed", json!(1)),
        ("success_rate", json!(0.5)),
        ("active_nodes", json!(1)),
        ("network_utilization", json!(0.25)),
        ("throughput", json!(0.2)),
    ] {
        assert!(close(&last[key], &value), "{key}: {}", last[key]);
    }
    // Nothing had ended before, and who was there then is not known.
    let before = &history[0];
    assert_eq!((&before["tasks_completed"], &before["active_nodes"]), (&json!(0), &Value::Null));
    assert!(before["cpu_avg"].is_null() && before["gpu_avg"].is_null());
}

/// Equal, or nearly: samples are not taken to the millisecond.
fn close(one: &Value, other: &Value) -> bool {
    let (one, other) = (one.as_f64().unwrap_or(-1.0), other.as_f64().unwrap_or(-2.0));
    (one - other).abs() <= 0.1 * other.abs()
}

#[tokio::test]
async fn contract_2_3_dashboard_system_info() {
    let world = World::new().await;
    let body = world.get("/api/v1/dashboard/system/info").await.ok();
    let info = &body["system_info"];
    let orchestrator = &info["orchestrator"];
    assert_eq!(
        (&orchestrator["id"], &orchestrator["version"], &orchestrator["running"]),
        (&json!("web4ai_main_orchestrator"), &json!("1.0.0"), &json!(true))
    );
    assert!(orchestrator["uptime"].is_f64());
    let system = &info["system"];
    assert!(system["cpu_count"].as_u64().unwrap() > 0);
    assert!(system["memory_total"].as_u64().unwrap() > 0);
    for key in ["platform", "platform_version", "python_version", "disk_total", "hostname"] {
        assert!(system.get(key).is_some(), "{key}");
    }
    for key in ["cpu_percent", "memory_percent", "disk_percent", "network_connections"] {
        assert!(info["resources"].get(key).is_some(), "{key}");
    }
}

#[tokio::test]
async fn contract_2_3_dashboard_export_in_three_formats() {
    let world = World::new().await;
    work(&world).await;
    let json_form = world.get("/api/v1/dashboard/export/json").await.ok();
    assert_eq!(json_form["export_format"], "json");
    let data = &json_form["data"];
    assert_eq!(data["orchestrator_id"], "web4ai_main_orchestrator");
    assert_eq!(
        (&data["nodes"][0]["node_id"], &data["network_metrics"]["total_nodes"]),
        (&json!("n1"), &json!(1))
    );
    assert_eq!(data["tasks_summary"]["failed_count"], 1);

    let csv = world.get("/api/v1/dashboard/export/csv").await;
    assert!(csv.header("content-type").starts_with("text/csv"));
    assert_eq!(csv.text, "metric,value\nactive_nodes,1\ntasks_completed,1\nsuccess_rate,0.5\n");

    let xml = world.get("/api/v1/dashboard/export/XML").await;
    assert!(xml.header("content-type").starts_with("application/xml"));
    assert!(
        xml.text.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<orchestrator_export>")
    );
    for piece in [
        "<external_url>http://x/?a=1&amp;b=&lt;2&gt;</external_url>",
        "<nodes><item>",
        "<success_rate>0.5</success_rate>",
        "<location nil=\"true\"/>",
    ] {
        assert!(xml.text.contains(piece), "{piece} in {}", xml.text);
    }

    let other = world.get("/api/v1/dashboard/export/pdf").await;
    assert_eq!(
        (other.status, &other.json()["error"], &other.json()["success"]),
        (StatusCode::BAD_REQUEST, &json!("Unsupported format"), &json!(false))
    );
}
