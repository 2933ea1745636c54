//! Status, metrics, health, configuration, requests, cluster: contract 2.3, 1.6, C5, C6, C16.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use super::{World, take, unseated};
use crate::api::{ApiOptions, App, router};
use crate::model::Epoch;

#[tokio::test]
async fn contract_2_3_health_is_open_and_plain() {
    let world = World::new().await;
    let mut health = world.get("/api/v1/health").await.ok();
    assert!(take(&mut health, "/timestamp").as_str().unwrap().ends_with('Z'));
    assert!(take(&mut health, "/system/uptime").as_str().unwrap().starts_with("0:00:"));
    for pointer in ["/system/cpu_usage", "/system/memory_usage", "/system/disk_usage"] {
        assert!(take(&mut health, pointer).is_f64(), "{pointer}");
    }
    let expected = json!({"status": "healthy", "version": "1.0.0", "system": {},
        "orchestrator_id": "web4ai_main_orchestrator"});
    assert_eq!(health, expected);
}

#[tokio::test]
async fn contract_c6_health_is_the_union_of_the_families() {
    let world = World::new().await;
    let health = world.get("/health").await.ok();
    for (key, value) in [
        ("status", json!("healthy")),
        ("healthy", json!(true)),
        ("service", json!("orchestrator")),
        ("redis", json!("connected")),
        ("version", json!("1.0.0")),
    ] {
        assert_eq!(health[key], value, "{key}");
    }
    assert!(health["uptime_seconds"].is_u64());
    assert_eq!(health["stats"]["running"], true);
    assert!(health["services"]["database"].is_object() && health["system"].is_object());
}

#[tokio::test]
async fn contract_3_7_health_names_its_services_and_the_root_what_there_is() {
    let world = World::new().await;
    let health = world.get("/health").await.ok();
    for name in ["database", "cache"] {
        let service = &health["services"][name];
        assert_eq!(service["status"], "healthy", "{service}");
        assert!(service["latency_ms"].is_f64(), "{service}");
    }
    let log = world.get("/health/db").await.ok();
    assert_eq!((&log["status"], &log["leader"]), (&json!("healthy"), &json!(1)));
    let index = log["applied_index"].as_u64().unwrap();
    world.submit("t").await;
    let later = world.get("/health/db").await.ok()["applied_index"].as_u64().unwrap();
    assert!(later > index, "what is written is read: {index} {later}");
    let memory = world.get("/health/cache").await.ok();
    assert!(memory["rows"].as_u64().unwrap() > 0 && memory["latency_ms"].is_f64());
    let version = world.get("/health/version").await.ok();
    let own = env!("CARGO_PKG_VERSION");
    let environment = json!("development");
    let expected = json!({"name": "quorate", "version": own, "api_prefix": "/api/v1",
        "environment": environment});
    assert_eq!(version, expected);
    assert_eq!(world.get("/healthz").await.text, "ok\n");
    let root = world.get("/").await.ok();
    for (key, value) in [
        ("name", json!("quorate")),
        ("version", json!(own)),
        ("environment", environment),
        ("health", json!("/health")),
        ("metrics", json!("/metrics")),
    ] {
        assert_eq!(root[key], value, "{key}");
    }
    assert!(root["description"].as_str().is_some_and(|text| !text.is_empty()));
    // Where the root and the index send somebody, there is something.
    let index = world.get("/api/v1").await.ok();
    assert_eq!(index["version"], own);
    let sent = index["endpoints"].as_object().unwrap().values();
    let sent = sent.chain([&root["docs"], &root["health"], &root["metrics"]]);
    for path in sent.map(|path| path.as_str().unwrap()) {
        let is_served = path == "/api/v1/auth" || path == "/api/v1/events";
        assert!(is_served || world.get(path).await.status == StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn contract_3_7_health_of_a_member_that_follows_nobody() {
    let cluster = unseated().await;
    let app = App::new(cluster.clone(), ApiOptions::default());
    let (router, epoch) = (router(app.clone()), Epoch::default());
    let world = World { app, router, cluster, epoch };
    let health = world.get("/health").await;
    assert_eq!(health.status, StatusCode::SERVICE_UNAVAILABLE, "{}", health.text);
    assert_eq!(health.json()["services"]["database"]["status"], "unhealthy");
    let log = world.get("/health/db").await;
    assert_eq!(log.status, StatusCode::SERVICE_UNAVAILABLE);
    let log = log.json();
    assert!(log["error"].is_string() && log["latency_ms"].is_null(), "{log}");
    assert_eq!(world.get("/healthz").await.status, StatusCode::OK, "the process is there");
    // Contract 3.3 and 3.5: what the server could not do is told in the family's words.
    let body = r#"{"name":"c","goal":"g","target_properties":{}}"#;
    for (path, words) in [
        ("/orchestrator/run_once", "Orchestrator step failed: "),
        ("/api/agent/create_design_campaign", "Failed to create design campaign: "),
    ] {
        let failed = world.post(path, body).await;
        assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE, "{}", failed.text);
        let told = failed.json();
        assert!(told["detail"].as_str().unwrap().starts_with(words), "{told}");
        assert_eq!(told["detail"], told["error"]["message"]);
    }
}

#[tokio::test]
async fn contract_4_2_health_tells_family_a_how_it_works() {
    // `max_workers` and `metrics` were missing.
    let world = World::new().await;
    world.post("/api/v1/nodes/n1/register", r#"{"host":"h","capacity":7}"#).await.ok();
    world.agent("a1", "x").await;
    for task_id in ["done", "runs", "waits"] {
        world.submit(task_id).await;
    }
    world.place("done", "n1").await;
    let report = r#"{"success":true,"execution_time":0.25}"#;
    world.post("/api/v1/tasks/done/result", report).await.ok();
    world.place("runs", "n1").await;
    let health = world.get("/health").await.ok();
    assert!(health["healthy"] == true && health["version"] == "1.0.0");
    assert!(health["uptime_seconds"].is_u64());
    let stats = &health["stats"];
    assert_eq!(
        (&stats["running"], &stats["active_tasks"], &stats["max_workers"]),
        (&json!(true), &json!(1), &json!(17))
    );
    let metrics = &stats["metrics"];
    assert_eq!(metrics["counters"]["tasks_submitted"], 3);
    assert_eq!(metrics["counters"]["tasks_completed"], 1);
    assert_eq!(metrics["gauges"]["tasks_running"], 1);
    assert!(metrics["uptime_seconds"].is_u64());
    let times = &metrics["histograms"]["task_execution_time_ms"];
    for key in ["count", "sum", "p50", "p95", "p99"] {
        assert!(times.get(key).is_some(), "{key} in {times}");
    }
}

#[tokio::test]
async fn probes_explain_themselves() {
    let world = World::new().await;
    assert_eq!(world.get("/livez").await.text, "ok\n");
    let ready = world.get("/readyz").await;
    assert_eq!((ready.status, ready.text.as_str()), (StatusCode::OK, "ready\n"), "{}", ready.text);
    let verbose = world.get("/readyz?verbose").await.text;
    for line in ["[+] member: ", "[+] leader: ", "[+] caught up: ", "[+] not diverged, disk ok: "] {
        assert!(verbose.contains(line), "{line} in {verbose}");
    }
}

#[tokio::test]
async fn contract_2_3_status_carries_both_generations() {
    let world = World::new().await;
    world.register("n1").await;
    world.submit("t").await;
    let status = world.get("/api/v1/status").await.ok();
    let data = &status["data"];
    let by_status = json!({"active": 1, "degraded": 0, "maintenance": 0, "offline": 0, "error": 0});
    assert_eq!(data["nodes"], json!({"total": 1, "active": 1, "by_status": by_status}));
    assert_eq!(data["agents"], json!({"total": 0, "by_node": {"n1": 0}}));
    assert_eq!(data["tasks"], json!({"pending": 1, "active": 0, "completed": 0, "failed": 0}));
    assert_eq!((&data["pending_tasks"], &data["active_tasks"]), (&json!(1), &json!(0)));
    for key in ["uptime", "timestamp", "performance", "network_metrics", "orchestrator_id"] {
        assert!(!data[key].is_null(), "{key}");
    }
    let mut network = data["network_metrics"].clone();
    take(&mut network, "/uptime");
    let expected = json!({
        "total_nodes": 1, "active_nodes": 1, "total_agents": 0, "tasks_completed": 0,
        "tasks_failed": 0, "average_response_time": 0.0, "network_utilization": 0.0,
        "throughput_per_minute": 0.0, "success_rate": 1.0, "overall_efficiency": 100.0
    });
    assert_eq!(network, expected);
    assert_eq!(status["api_stats"]["requests_total"], 2);
    assert_eq!(world.get("/status").await.status, StatusCode::OK);
}

#[tokio::test]
async fn contract_c5_the_shape_of_nodes_is_chosen_never_guessed() {
    let world = World::new().await;
    world.register("n1").await;
    let is_map = |value: Value| value["data"]["nodes"]["n1"]["node_id"] == "n1";
    assert!(is_map(world.get("/api/v1/status?nodes=map").await.ok()));
    assert!(!is_map(world.get("/api/v1/status").await.ok()));
    assert_eq!(world.get("/api/v1/status?nodes=x").await.status, StatusCode::BAD_REQUEST);
    let map = r#"{"value":"map"}"#;
    world.call("PUT", "/api/v1/config/compat.status_nodes", map).await.ok();
    assert!(is_map(world.get("/api/v1/status").await.ok()));
    assert!(!is_map(world.get("/api/v1/status?nodes=summary").await.ok()));
}

#[tokio::test]
async fn contract_2_3_metrics_carry_both_generations() {
    let world = World::new().await;
    world.register("n1").await;
    let body = world.get("/api/v1/metrics").await.ok();
    let metrics = &body["metrics"];
    for key in ["timestamp", "network", "nodes", "agents", "tasks", "api", "load_balancer"] {
        assert!(!metrics[key].is_null(), "{key}");
    }
    for key in ["network_metrics", "api_stats", "load_balancer_stats", "timestamp"] {
        assert!(!body[key].is_null(), "{key}");
    }
    let balancer = json!({"algorithm": "weighted_round_robin", "node_weights": {"n1": 1.0}});
    assert_eq!(metrics["load_balancer"], balancer);
    let agents =
        json!({"total": 0, "active": 0, "avg_efficiency": 0.0, "avg_tasks_per_agent": 0.0});
    assert_eq!(metrics["agents"], agents);
}

#[tokio::test]
async fn contract_2_13_metrics_as_text() {
    let world = World::new().await;
    world.register("n1").await;
    world.submit("t").await;
    let page = world.get("/api/v1/metrics/prometheus").await;
    assert!(page.header("content-type").starts_with("text/plain; version=0.0.4"));
    for line in [
        "quorate_tasks{status=\"pending\"} 1\n",
        "quorate_tasks_total{status=\"submitted\"} 1\n",
        "web4ai_active_nodes 1\n",
        "web4ai_pending_tasks 1\n",
        "web4ai_task_success_rate 1\n",
        "web4ai_node_cpu_usage{node_id=\"n1\"} 0\n",
        "quorate_raft_has_leader 1\n",
        "web4ai_requests_total{method=\"POST\",endpoint=\"/api/v1/tasks\",status=\"200\"} 1\n",
    ] {
        assert!(page.text.contains(line), "{line} in\n{}", page.text);
    }
    assert!(world.get("/metrics").await.text.contains("quorate_raft_term"));
}

#[tokio::test]
async fn contract_2_13_ends_of_tasks_are_counted_by_type() {
    let world = World::new().await;
    world.submit("t-1").await;
    world.call("DELETE", "/api/v1/tasks/t-1", "").await.ok();
    let line = "web4ai_tasks_total{type=\"t\",status=\"cancelled\"} 1\n";
    // The counter follows the events, so it may be a moment behind the answer.
    let counted = async {
        while !world.get("/metrics").await.text.contains(line) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), counted).await.unwrap();
}

#[tokio::test]
async fn contract_c16_configuration_merges_deeply() {
    let world = World::new().await;
    let first = world.get("/api/v1/config").await;
    assert_eq!(first.header("etag"), "\"0\"");
    assert_eq!(first.ok()["config"]["network"]["max_nodes"], 100);
    let patch = r#"{"network":{"max_nodes":7},"security":{"jwt_secret":"s3"},"ours":{"x":1}}"#;
    let put = world.call("PUT", "/api/v1/config", patch).await.ok();
    assert_eq!((&put["success"], &put["message"]), (&json!(true), &json!("Configuration updated")));
    let config = &put["config"];
    assert_eq!(
        (&config["network"]["max_nodes"], &config["network"]["min_nodes"]),
        (&json!(7), &json!(1))
    );
    assert_eq!(
        (&config["ours"]["x"], &config["security"]["jwt_secret"]),
        (&json!(1), &json!("********"))
    );
    for path in ["network.load_balance_algorithm", "network/load_balance_algorithm"] {
        let path = format!("/api/v1/config/{path}");
        let put = world.call("PUT", &path, r#"{"value":"round_robin"}"#).await.ok();
        assert_eq!(put["config"]["network"]["load_balance_algorithm"], "round_robin");
    }
    let stars = r#"{"value":"********"}"#;
    let stars = world.call("PUT", "/api/v1/config/security.jwt_secret", stars).await;
    assert_eq!(stars.json()["code"], "INVALID_CONFIG");
    let empty = world.call("PUT", "/api/v1/config", "{}").await;
    assert_eq!(
        (empty.status, &empty.json()["error"]),
        (StatusCode::BAD_REQUEST, &json!("No configuration provided"))
    );
    let wrong = world.call("PUT", "/api/v1/config", r#"{"network":{"max_nodes":0}}"#).await;
    assert_eq!(
        (wrong.status, &wrong.json()["details"]["code"]),
        (StatusCode::BAD_REQUEST, &json!("INVALID_CONFIG"))
    );
    assert!(wrong.json()["error"].as_str().unwrap().contains("network.max_nodes"));
    let request =
        Request::builder().method("PUT").uri("/api/v1/config").header("if-match", "\"1\"");
    let stale = world.send(request.body(Body::from(r#"{"a":1}"#)).unwrap()).await;
    assert_eq!(
        (stale.status, &stale.json()["code"]),
        (StatusCode::CONFLICT, &json!("REVISION_MISMATCH"))
    );
}

#[tokio::test]
async fn requests_can_be_asked_for_by_id_and_by_key() {
    let world = World::new().await;
    let never = world.get("/api/v1/requests/order-7").await.ok();
    assert_eq!(never["state"], "never_seen");
    let submitted = world.post_keyed("/api/v1/tasks", "order-7", r#"{"task_type":"t"}"#).await;
    let id = submitted.header("x-quorate-request-id").to_owned();
    for key in ["order-7", &id] {
        let found = world.get(&format!("/api/v1/requests/{key}")).await.ok();
        assert_eq!((&found["state"], &found["request_id"]), (&json!("committed"), &json!(id)));
        assert_eq!(found["outcome"]["type"], "task_submitted");
        assert_eq!(found["outcome"]["task_id"], submitted.json()["task_id"]);
        assert_eq!(found["index"].to_string(), submitted.header("x-quorate-index"));
    }
    let path = "/api/v1/tasks/nope/result";
    world.post_keyed(path, "order-8", r#"{"success":true}"#).await;
    let refused = world.get("/api/v1/requests/order-8").await.ok();
    assert_eq!(
        (&refused["state"], &refused["rejection"]["code"]),
        (&json!("rejected"), &json!("TASK_NOT_FOUND"))
    );
}

#[tokio::test]
async fn the_cluster_is_described_by_its_members() {
    let world = World::new().await;
    let status = world.get("/api/v1/cluster").await.ok();
    for key in ["cluster_id", "leader", "term", "epoch", "members", "quorum", "failure_tolerance"] {
        assert!(status.get(key).is_some(), "{key}");
    }
    let wrong = world.post("/api/v1/cluster/members/x/promote", "").await;
    assert_eq!(
        (wrong.status, &wrong.json()["code"]),
        (StatusCode::BAD_REQUEST, &json!("INVALID_FIELD"))
    );
    let whom = world.post("/api/v1/cluster/join", "{}").await;
    assert_eq!(whom.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn reads_say_how_fresh_they_are() {
    let world = World::new().await;
    let answer = world.get("/api/v1/tasks").await;
    assert_eq!(answer.header("x-quorate-consistency"), "linearizable");
    let member = world.cluster.member_id().to_string();
    assert_eq!(answer.header("x-quorate-member"), member);
    assert_eq!(answer.header("x-quorate-leader"), member);
    assert_eq!(answer.header("x-quorate-epoch"), world.epoch.to_string());
    assert!(answer.header("x-quorate-age-ms").parse::<u64>().is_ok());
    let index: u64 = answer.header("x-quorate-index").parse().unwrap();
    assert!(index > 0);
    let path = format!("/api/v1/tasks?consistency=local&max_age=5s&min_index={index}");
    let local = world.get(&path).await;
    assert_eq!(local.header("x-quorate-consistency"), "local");
    let wrong = world.get("/api/v1/tasks?consistency=maybe").await;
    assert_eq!(
        (wrong.status, &wrong.json()["code"]),
        (StatusCode::BAD_REQUEST, &json!("INVALID_CONSISTENCY"))
    );
}

#[tokio::test]
async fn a_member_that_is_behind_says_so_instead_of_answering() {
    let world = World::new().await;
    let answer = world.get("/api/v1/tasks?consistency=local&min_index=99999999").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.json()["code"], "MEMBER_BEHIND");
}

#[tokio::test]
async fn the_root_says_where_to_go_on() {
    let world = World::new().await;
    let info = world.get("/").await.ok();
    assert_eq!((&info["name"], &info["status"]), (&json!("quorate"), &json!("running")));
}
