//! Paragraphs of the contract that concern every door, or tell two families apart at one: 1.1, 1.6 to
//! 1.8, 2.1, and collisions C2, C3, C8, C10 to C15, C17, C20.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, World};

impl World {
    /// Submits a task; gives it as it is shown.
    async fn submitted(&self, body: Value) -> Value {
        let id = self.post("/api/v1/tasks", &body.to_string()).await.ok()["task_id"].clone();
        self.get(&format!("/api/v1/tasks/{}", id.as_str().unwrap())).await.ok()
    }
}

#[tokio::test]
async fn contract_1_1_one_router_serves_the_paths_of_all_families() {
    let world = World::new().await;
    for path in [
        "/api/v1/status",
        "/api/v1/nodes",
        "/orchestrator/state",
        "/api/orchestrator/state",
        "/api/v1/orchestrator/state",
        "/api/v1/tasks",
        "/bots/stats",
        "/api/v1/bots/stats",
        "/services",
        "/metrics",
    ] {
        assert_eq!(world.get(path).await.status, StatusCode::OK, "{path}");
    }
}

fn digits_behind_the_point(text: &str) -> usize {
    text.split_once('.').map_or(0, |(_, rest)| rest.len())
}

#[tokio::test]
async fn contract_1_6_what_families_w_and_n_tell_of_an_answer() {
    let world = World::new().await;
    let web4ai = world.get("/api/v1/status").await;
    let took = web4ai.header("x-response-time").strip_suffix('s').unwrap();
    assert!(took.parse::<f64>().is_ok() && digits_behind_the_point(took) == 3, "{took}");
    for name in ["x-process-time", "x-request-count", "x-error-rate"] {
        assert!(!web4ai.headers.contains_key(name), "{name} is family N's");
    }
    let ask = async |path: &str| -> (Answer, u64, String) {
        let answer = world.get(path).await;
        let count = answer.header("x-request-count").parse().unwrap();
        let rate = answer.header("x-error-rate").to_owned();
        (answer, count, rate)
    };
    let (first, before, rate) = ask("/api/v1/orchestrator/state").await;
    let took = first.header("x-process-time");
    assert!(took.parse::<f64>().is_ok() && digits_behind_the_point(took) == 3, "{took}");
    assert_eq!((before, rate.as_str()), (2, "0.00%"), "the one before, and this one");
    let (failed, count, rate) = ask("/orchestrator/runs?name=nobody").await;
    assert_eq!((failed.status, count), (StatusCode::NOT_FOUND, 3));
    assert_eq!(rate, "33.33%");
    assert_eq!(ask("/api/orchestrator/stats").await.2, "25.00%");
}

#[tokio::test]
async fn contract_1_6_an_id_made_here_is_a_uuid_of_the_write_id() {
    let world = World::new().await;
    let answer = world.post("/api/v1/tasks", r#"{"task_type":"t"}"#).await;
    let name = answer.header("x-request-id");
    let lengths: Vec<_> = name.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12], "{name}");
    assert_eq!(name.replace('-', ""), answer.header("x-quorate-request-id"));
    assert_ne!(world.get("/livez").await.header("x-request-id"), name);
}

#[track_caller]
fn is_iso(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("no text: {value}"));
    assert!(text.ends_with('Z') && text.contains('T'), "{text}");
}

#[tokio::test]
async fn contract_1_7_times_in_the_form_of_each_family() {
    let world = World::new().await;
    world.register("n1").await;
    let task = world.submitted(json!({"task_type": "t", "deadline": 4_000_000_000.5})).await;
    let created = task["task"]["created_at"].as_f64().unwrap();
    assert!(created > 1.7e9, "seconds since the epoch");
    assert_eq!(task["task"]["deadline"], json!(4_000_000_000.5));
    assert_eq!(task["task"]["completed_at"], Value::Null);
    let node = world.get("/api/v1/nodes/n1").await.ok();
    assert!(node["node"]["last_heartbeat"].as_f64().unwrap() >= created.floor() - 60.0);
    let status = world.get("/api/v1/status").await.ok();
    assert!(status["data"]["timestamp"].is_f64());
    is_iso(&status["api_stats"]["start_time"]);
    is_iso(&world.get("/api/v1/metrics").await.ok()["timestamp"]);
    is_iso(&world.get("/api/v1/health").await.ok()["timestamp"]);
    let state = world.get("/api/v1/orchestrator/state").await.ok();
    is_iso(&state["created_at"]);
    assert_eq!(state["last_run_at"], Value::Null);
    let bot = world.post("/bots", "{}").await.json();
    is_iso(&bot["created_at"]);
    let micros = bot["created_at"].as_str().unwrap().trim_end_matches('Z');
    assert_eq!(digits_behind_the_point(micros), 6, "family B's clients read microseconds");
}

#[tokio::test]
async fn contract_1_7_ids_in_the_form_of_each_family() {
    let world = World::new().await;
    let id = |body: &Value| body["task_id"].as_str().unwrap().to_owned();
    let web4ai = id(&world.post("/api/v1/tasks", r#"{"task_type":"t"}"#).await.ok());
    let hex = web4ai.strip_prefix("task_").unwrap();
    assert!(hex.len() == 12 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()), "{web4ai}");
    // Opaque: whatever a client chose is taken, and found again.
    for chosen in ["t 1/ü", "TASK-1", "00000000-0000-4000-8000-000000000000"] {
        let body = json!({"task_id": chosen, "task_type": "t"}).to_string();
        assert_eq!(id(&world.post("/api/v1/tasks", &body).await.ok()), chosen);
        let path = chosen.replace(' ', "%20").replace('/', "%2F").replace('ü', "%C3%BC");
        let shown = world.get(&format!("/api/v1/tasks/{path}")).await.ok();
        assert_eq!(shown["task_id"], chosen);
    }
    let is_uuid = |text: &str| text.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    let bot = world.post("/bots", "{}").await.json();
    assert!(is_uuid(bot["id"].as_str().unwrap()), "{bot}");
    let state = world.get("/api/v1/orchestrator/state").await.ok();
    assert!(is_uuid(state["id"].as_str().unwrap()), "{state}");
}

#[tokio::test]
async fn contract_1_8_no_answer_takes_longer_than_the_most_patient_client() {
    // Of those that do not ask to wait; how long a write is held is shorter by itself.
    let options = crate::api::ApiOptions::default();
    assert!(options.request_timeout.as_secs() <= 30, "{options:?}");
}

#[tokio::test]
async fn contract_2_1_words_for_the_status_of_a_node() {
    let world = World::new().await;
    world.register("n1").await;
    let path = "/api/v1/nodes/n1/status";
    for (said, kept) in [
        ("active", "active"),
        ("degraded", "degraded"),
        ("maintenance", "maintenance"),
        ("offline", "offline"),
        ("error", "error"),
        ("online", "active"),
        ("idle", "active"),
        ("busy", "active"),
        ("healthy", "active"),
        ("ready", "active"),
        ("inactive", "offline"),
    ] {
        let body = json!({"status": said}).to_string();
        assert_eq!(world.put(path, &body).await.ok()["new_status"], kept, "{said}");
    }
    let wrong = world.put(path, r#"{"status":"asleep"}"#).await;
    assert_eq!(
        (wrong.status, &wrong.json()["error"]),
        (StatusCode::BAD_REQUEST, &json!("Invalid status: asleep"))
    );
}

#[tokio::test]
async fn contract_2_1_priorities_are_numbers_names_and_numeric_texts() {
    let world = World::new().await;
    for (said, number) in [
        (json!(1), 1),
        (json!(5), 5),
        (json!("normal"), 3),
        (json!("CRITICAL"), 1),
        (json!("Low"), 4),
        (json!("background"), 5),
        (json!("2"), 2),
    ] {
        let task =
            world.submitted(json!({"task_type": "t", "input_data": 1, "priority": said})).await;
        assert_eq!(task["task"]["priority"], number, "{said}");
        assert_eq!(task["task"]["priority_raw"], said);
    }
    let none = world.submitted(json!({"task_type": "t"})).await;
    assert_eq!(none["task"]["priority"], 3, "NORMAL is the default");
    let odd = json!({"task_type": "t", "input_data": 1, "priority": "soon"}).to_string();
    assert_eq!(world.post("/api/v1/tasks", &odd).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn contract_c2_one_answer_for_a_task_of_either_family() {
    let world = World::new().await;
    let task = world.submitted(json!({"task_type": "t", "task_id": "t-1"})).await;
    assert_eq!((&task["success"], &task["task_id"]), (&json!(true), &json!("t-1")));
    assert_eq!((&task["status"], &task["task"]["status"]), (&json!("queued"), &json!("pending")));
    for key in ["agent_executions", "output", "error", "metrics", "result"] {
        assert!(task.get(key).is_some(), "{key}");
    }
    world.register("n1").await;
    world.place("t-1", "n1").await;
    let done = r#"{"status":"completed","result":{"n":1}}"#;
    world.post("/api/v1/tasks/t-1/result", done).await.ok();
    let task = world.get("/api/v1/tasks/t-1").await.ok();
    assert_eq!(
        (&task["result"], &task["task"]["result_data"]),
        (&json!({"n": 1}), &json!({"n": 1}))
    );
    let missing = world.get("/api/v1/tasks/nope").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let body = missing.json();
    assert_eq!((&body["success"], &body["error"]), (&json!(false), &json!("Task not found")));
}

#[tokio::test]
async fn contract_c3_a_priority_is_read_as_its_family_means_it() {
    let world = World::new().await;
    let web4ai = json!({"task_type": "t", "input_data": 1, "priority": 1});
    assert_eq!(world.submitted(web4ai).await["task"]["priority"], 1, "1 is the most urgent");
    let agents = |priority: u64| json!({"task_type": "report_generation", "inputs": [], "priority": priority});
    assert_eq!(world.submitted(agents(10)).await["task"]["priority"], 1, "larger is more urgent");
    assert_eq!(world.submitted(agents(1)).await["task"]["priority_raw"], 1);
    let (one, ten) = (world.submitted(agents(1)).await, world.submitted(agents(10)).await);
    let number = |task: &Value| task["task"]["priority"].as_u64().unwrap();
    assert!(number(&ten) < number(&one), "{one} {ten}");
    let turn = r#"{"value":"asc"}"#;
    world.put("/api/v1/config/compat.agents.priority_order", turn).await.ok();
    let (one, ten) = (world.submitted(agents(1)).await, world.submitted(agents(10)).await);
    assert!(number(&ten) > number(&one), "the direction of the upstream program: {one} {ten}");
}

#[tokio::test]
async fn contract_c4_milliseconds_win_in_family_a() {
    let world = World::new().await;
    let both = json!({"task_type": "api_call", "inputs": [], "timeout": 9, "timeout_ms": 1500});
    assert_eq!(world.submitted(both).await["task"]["timeout"], 1.5);
    let seconds = json!({"task_type": "t", "input_data": 1, "timeout": 9});
    assert_eq!(world.submitted(seconds).await["task"]["timeout"], 9);
}

#[tokio::test]
async fn contract_c8_metrics_are_text_or_json_by_path() {
    let world = World::new().await;
    for path in ["/metrics", "/api/v1/metrics/prometheus"] {
        let page = world.get(path).await;
        assert!(page.header("content-type").starts_with("text/plain"), "{path}");
        for family in ["web4ai_active_nodes", "orchestrator_runs_total", "tasks_submitted"] {
            assert!(page.text.contains(family), "{family} at {path}");
        }
    }
    assert!(world.get("/api/v1/metrics").await.ok()["metrics"].is_object());
}

#[tokio::test]
async fn contract_c10_agents_and_agent_are_two_families() {
    let world = World::new().await;
    assert!(world.get("/api/v1/agents").await.ok()["agents"].is_object(), "family W's map");
    assert!(world.get("/api/v1/agent/commands").await.ok().is_array(), "family N's list");
    let named = world.get("/api/v1/agents/commands").await;
    assert_eq!(
        (named.status, &named.json()["error"]),
        (StatusCode::NOT_FOUND, &json!("Agent not found"))
    );
    assert_eq!(world.get("/api/v1/agent").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn contract_c11_names_of_lists_are_no_ids_of_tasks() {
    let world = World::new().await;
    for word in ["pending", "active", "completed", "failed"] {
        let list = world.get(&format!("/api/v1/tasks/{word}")).await.ok();
        assert!(list["tasks"].is_array(), "{list}");
        let body = json!({"task_id": word, "task_type": "t"}).to_string();
        let refused = world.post("/api/v1/tasks", &body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{word}: {}", refused.text);
    }
}

#[tokio::test]
async fn contract_c12_an_error_has_the_form_of_the_path_it_came_from() {
    let world = World::new().await;
    assert!(world.get("/api/v1/nodes/nope").await.json()["error"].is_string(), "family W");
    assert!(world.get("/bots/nope").await.json()["error"].is_string(), "family B");
    let nanoos = world.get("/api/v1/campaigns/nope").await.json();
    assert!(nanoos["error"]["message"].is_string() && nanoos["detail"].is_string(), "{nanoos}");
    // Of a task it is family A's, and family W's text is inside.
    world.submit("t-1").await;
    assert_eq!(world.get("/api/v1/tasks/t-1").await.ok()["error"], Value::Null);
    world.register("n1").await;
    world.place("t-1", "n1").await;
    let failed = r#"{"status":"failed","error":"boom","permanent":true}"#;
    world.post("/api/v1/tasks/t-1/result", failed).await.ok();
    let mut task = world.get("/api/v1/tasks/t-1").await.ok();
    if task["status"] == "retrying" {
        world.call("DELETE", "/api/v1/tasks/t-1", r#"{"reason":"enough"}"#).await.ok();
        task = world.get("/api/v1/tasks/t-1").await.ok();
    }
    assert!(task["error"]["message"].is_string() && task["error"]["code"].is_string(), "{task}");
    assert!(task["task"]["error_message"].is_string(), "{task}");
}

#[tokio::test]
async fn contract_c13_words_for_the_status_of_a_task() {
    let world = World::new().await;
    world.register("n1").await;
    for name in ["waits", "sent", "runs", "gone"] {
        world.submit(name).await;
    }
    world.place("sent", "n1").await;
    world.place("runs", "n1").await;
    world.acknowledge("runs", 1).await;
    world.call("DELETE", "/api/v1/tasks/gone", "").await.ok();
    for (name, top, inner) in [
        ("waits", "queued", "pending"),
        ("sent", "queued", "assigned"),
        ("runs", "running", "running"),
        ("gone", "cancelled", "cancelled"),
    ] {
        let task = world.get(&format!("/api/v1/tasks/{name}")).await.ok();
        assert_eq!(
            (&task["status"], &task["task"]["status"]),
            (&json!(top), &json!(inner)),
            "{name}"
        );
    }
    let lists = world.get("/api/v1/tasks").await.ok();
    for (bucket, count) in [("pending", 1), ("active", 2), ("completed", 0), ("failed", 1)] {
        assert_eq!(lists["tasks"][bucket].as_array().unwrap().len(), count, "{bucket}");
    }
}

#[tokio::test]
async fn contract_c14_and_c8_family_n_and_a_share_health_and_metrics() {
    let world = World::new().await;
    let health = world.get("/health").await.ok();
    assert!(health["healthy"] == true && health["services"]["database"].is_object(), "{health}");
}

#[tokio::test]
async fn contract_c15_a_load_score_is_a_fraction_whoever_said_it() {
    let world = World::new().await;
    world.register("n1").await;
    let beat = "/api/v1/nodes/n1/heartbeat";
    for (body, score) in [
        (json!({"load_score": 0.5, "tasks_running": 1}), 0.5),
        (json!({"load_score": 50.0}), 0.5),
        (json!({"load_score": 0.5, "health_status": "healthy"}), 0.005),
    ] {
        world.post(beat, &body.to_string()).await.ok();
        let node = world.get("/api/v1/nodes/n1").await.ok();
        assert_eq!(node["node"]["load_score"], json!(score), "{body}");
    }
}

#[tokio::test]
async fn contract_c17_uptime_is_in_seconds() {
    let world = World::new().await;
    let status = world.get("/api/v1/status").await.ok();
    for pointer in ["/data/network_metrics/uptime", "/data/uptime"] {
        let uptime = status.pointer(pointer).unwrap().as_f64().unwrap();
        assert!((0.0..3600.0).contains(&uptime), "{pointer}: {uptime}");
    }
}

#[tokio::test]
async fn contract_c20_every_kind_of_task_can_be_cancelled() {
    let world = World::new().await;
    for (name, body) in [
        ("w", json!({"task_id": "w", "task_type": "t", "input_data": 1})),
        ("a", json!({"task_id": "a", "task_type": "api_call", "inputs": []})),
        ("c", json!({"task_id": "c", "task_type": "t", "requirements": {"redundancy": 2}})),
    ] {
        world.submitted(body).await;
        let path = format!("/api/v1/tasks/{name}");
        let done = world.call("DELETE", &path, r#"{"reason":"no need"}"#).await.ok();
        let said = (&done["success"], &done["message"]);
        assert_eq!(said, (&json!(true), &json!("Task cancelled successfully")), "{name}");
        let task = world.get(&path).await.ok();
        assert_eq!(
            (&task["status"], &task["error"]["code"]),
            (&json!("cancelled"), &json!("CANCELLED"))
        );
        assert_eq!(task["error"]["message"], "Cancelled: no need", "{name}");
        assert_eq!(world.delete(&path).await.status, StatusCode::CONFLICT, "{name}");
    }
    assert_eq!(world.delete("/api/v1/tasks/nope").await.status, StatusCode::NOT_FOUND);
}
