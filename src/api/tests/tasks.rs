//! Tasks: contract 2.3, 2.7, 4.2, section 8.

use axum::http::StatusCode;
use serde_json::json;

use super::{World, take};

#[tokio::test]
async fn contract_c1_submit_replies_in_the_union() {
    let world = World::new().await;
    let body = r#"{"task_id":"t-1","task_type":"thumb","input_data":{"f":1}}"#;
    let answer = world.post("/api/v1/tasks", body).await;
    assert!(answer.header("x-quorate-index").parse::<u64>().unwrap() > 0);
    assert_eq!(answer.header("x-quorate-request-id").len(), 32);
    let expected = json!({
        "success": true, "task_id": "t-1", "status": "queued",
        "message": "Task submitted successfully", "estimated_completion_ms": 1000
    });
    assert_eq!(answer.ok(), expected);
    let minted = world.post("/api/v1/tasks", r#"{"task_type":"thumb"}"#).await.ok();
    let id = minted["task_id"].as_str().unwrap();
    assert!(id.starts_with("task_") && id.len() == 17, "{id}");
}

#[tokio::test]
async fn contract_2_3_the_first_of_one_id_wins() {
    let world = World::new().await;
    world.submit("t-1").await;
    let again = world.post("/api/v1/tasks", r#"{"task_id":"t-1","task_type":"other"}"#).await.ok();
    assert_eq!(again["details"]["duplicate"], true);
    assert_eq!(world.get("/api/v1/tasks/t-1").await.ok()["task"]["task_type"], "t");
    let summary = &world.get("/api/v1/tasks").await.ok()["summary"];
    assert_eq!(summary["pending_count"], 1);
}

#[tokio::test]
async fn one_key_has_one_effect_and_one_answer() {
    let world = World::new().await;
    let body = r#"{"task_type":"t"}"#;
    let first = world.post_keyed("/api/v1/tasks", "order-7", body).await;
    let again = world.post_keyed("/api/v1/tasks", "order-7", body).await;
    assert_eq!(first.header("x-quorate-request-id"), again.header("x-quorate-request-id"));
    assert_eq!(first.ok(), again.ok());
    assert_eq!(world.get("/api/v1/tasks").await.ok()["summary"]["pending_count"], 1);
    let reused = world.post_keyed("/api/v1/nodes/n/register", "order-7", r#"{"host":"h"}"#).await;
    assert_eq!(reused.status, StatusCode::CONFLICT);
    assert_eq!(reused.json()["code"], "IDEMPOTENCY_KEY_REUSED");
}

#[tokio::test]
async fn contract_2_3_batches_are_taken_whole() {
    let world = World::new().await;
    world.submit("old").await;
    let body = r#"{"tasks":[{"task_type":"t"},{"task_id":"old","task_type":"t"},
        {"task_id":"new","task_type":"t","input_data":"x"}]}"#;
    let first = world.post_keyed("/api/v1/tasks/batch", "b", body).await.ok();
    assert_eq!((&first["created"], &first["duplicates"]), (&json!(2), &json!(1)));
    let ids = first["task_ids"].as_array().unwrap();
    assert_eq!((ids.len(), &ids[1], &ids[2]), (3, &json!("old"), &json!("new")));
    let minted = ids[0].as_str().unwrap();
    assert_eq!(world.get(&format!("/api/v1/tasks/{minted}")).await.status, StatusCode::OK);
    assert_eq!(world.post_keyed("/api/v1/tasks/batch", "b", body).await.ok(), first);
    let wrong = r#"{"tasks":[{"task_id":"x","task_type":"t"},{"task_id":"y"}]}"#;
    let refused = world.post("/api/v1/tasks/batch", wrong).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(refused.json()["error"], "tasks[1]: task_type is required");
    assert_eq!(world.get("/api/v1/tasks/x").await.status, StatusCode::NOT_FOUND);
    let one = world.post("/api/v1/tasks/batch", r#"{"tasks":[{"task_type":"t"}]}"#).await.ok();
    let id = one["task_ids"][0].as_str().unwrap();
    assert_eq!(world.get(&format!("/api/v1/tasks/{id}")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_batch_that_is_read_apart_gives_the_same_answer() {
    let world = World::new().await;
    let task = format!(r#"{{"task_type":"t","input_data":"{}"}}"#, "x".repeat(1000));
    let body = format!(r#"{{"tasks":[{}]}}"#, vec![task; 400].join(","));
    let answer = world.post("/api/v1/tasks/batch", &body).await.ok();
    assert_eq!((&answer["created"], &answer["duplicates"]), (&json!(400), &json!(0)));
    let id = answer["task_ids"][399].as_str().unwrap();
    let task = world.get(&format!("/api/v1/tasks/{id}?include=input")).await.ok();
    assert_eq!(task["task"]["input_data"].as_str().unwrap().len(), 1000);
}

#[tokio::test]
async fn contract_8_4_a_task_through_its_life() {
    let world = World::new().await;
    world.register("n1").await;
    let metadata = "m".repeat(1000);
    let body = format!(
        r#"{{"task_id":"t-1","task_type":"thumb","priority":"high","timeout":60,
            "requirements":{{"redundancy":1}},"metadata":{{"who":"{metadata}"}},"extra":[1]}}"#
    );
    world.post("/api/v1/tasks", &body).await.ok();
    world.place("t-1", "n1").await;
    let placed = world.get("/api/v1/tasks/t-1").await.ok();
    assert_eq!(
        (&placed["status"], &placed["task"]["status"]),
        (&json!("queued"), &json!("assigned"))
    );
    world.acknowledge("t-1", 1).await;
    let report = r#"{"status":"completed","attempt":1,"node_id":"n1","agent_id":"a1",
        "result":{"w": 7},"execution_time":0.25,"performance_metrics":{"p":1}}"#;
    world.post("/api/v1/tasks/t-1/result", report).await.ok();
    let mut done = world.get("/api/v1/tasks/t-1").await.ok();
    for pointer in ["/task/created_at", "/task/started_at", "/task/completed_at"] {
        assert!(take(&mut done, pointer).as_f64().unwrap() > 1.6e9, "{pointer}");
    }
    for pointer in [
        "/metrics/total_duration_ms",
        "/metrics/queue_time_ms",
        "/agent_executions/0/start_time_ms",
        "/agent_executions/0/end_time_ms",
    ] {
        assert!(take(&mut done, pointer).is_u64(), "{pointer}");
    }
    assert_eq!(take(&mut done, "/task/metadata"), json!({"who": metadata, "extra": [1]}));
    let expected = json!({
        "success": true, "task_id": "t-1", "status": "completed",
        "agent_executions": [{"agent_id": "a1", "agent_type": "thumb", "status": "completed",
            "execution_time_ms": 250, "error": null}],
        "output": {"w": 7}, "error": null, "result": {"w": 7},
        "metrics": {"execution_time_ms": 250, "retry_count": 0, "agents_used": 1},
        "task": {
            "task_id": "t-1", "task_type": "thumb", "status": "completed", "priority": 2,
            "priority_raw": "high", "assigned_nodes": ["n1"], "timeout": 60, "deadline": null,
            "retry_count": 0, "max_retries": 3, "execution_time": 0.25, "node_id": "n1",
            "agent_id": "a1", "requirements": {"redundancy": 1}, "result_data": {"w": 7},
            "error_message": null, "performance_metrics": {"p": 1}, "callback_url": null,
            "attempt": 1, "state": "completed"
        }
    });
    assert_eq!(done, expected);
}

#[tokio::test]
async fn contract_2_7_the_first_end_wins() {
    let world = World::new().await;
    world.register("n1").await;
    world.submit("t").await;
    let path = "/api/v1/tasks/t/result";
    let early = world.post(path, r#"{"status":"completed","attempt":1}"#).await;
    assert_eq!(
        (early.status, &early.json()["code"]),
        (StatusCode::CONFLICT, &json!("STALE_ATTEMPT"))
    );
    let early = world.post(path, r#"{"status":"completed"}"#).await;
    assert_eq!(early.json()["code"], "STALE_REPORT");
    world.place("t", "n1").await;
    let report = r#"{"status":"failed","error":"e","attempt":1,"retryable":true}"#;
    world.post(path, report).await.ok();
    let again = world.post(path, report).await;
    assert_eq!(
        (again.status, &again.json()["code"]),
        (StatusCode::CONFLICT, &json!("STALE_ATTEMPT"))
    );
    let task = world.get("/api/v1/tasks/t").await.ok();
    assert_eq!((&task["status"], &task["task"]["status"]), (&json!("retrying"), &json!("queued")));
    assert_eq!(task["task"]["retry_count"], 1);
}

#[tokio::test]
async fn contract_2_7_reports_are_idempotent() {
    let world = World::new().await;
    world.register("n1").await;
    world.submit("t").await;
    world.place("t", "n1").await;
    let path = "/api/v1/tasks/t/result";
    let report = r#"{"status":"completed","attempt":1,"result":1}"#;
    let epoch = r#"{"status":"completed","attempt":1,"epoch":"1.9","result":1}"#;
    assert_eq!(world.post(path, epoch).await.status, StatusCode::CONFLICT, "another reign");
    let first = world.post(path, report).await.ok();
    assert_eq!(first, json!({"success": true, "message": "Result recorded"}));
    let again = world.post(path, r#"{"status":"failed","attempt":1,"error":"late"}"#).await.ok();
    assert_eq!(again["duplicate"], true);
    assert_eq!(world.get("/api/v1/tasks/t").await.ok()["result"], 1);
    let missing = world.post("/api/v1/tasks/nope/result", report).await;
    assert_eq!(
        (missing.status, &missing.json()["error"]),
        (StatusCode::NOT_FOUND, &json!("Task not found"))
    );
}

#[tokio::test]
async fn contract_4_2_cancel() {
    let world = World::new().await;
    world.submit("t").await;
    let answer = world.call("DELETE", "/api/v1/tasks/t", r#"{"reason":"why"}"#).await;
    assert_eq!(answer.ok(), json!({"success": true, "message": "Task cancelled successfully"}));
    let task = world.get("/api/v1/tasks/t").await.ok();
    assert_eq!(
        (&task["status"], &task["task"]["status"]),
        (&json!("cancelled"), &json!("cancelled"))
    );
    assert_eq!(
        task["error"],
        json!({"message": "Cancelled: why", "code": "CANCELLED", "retryable": false})
    );
    let again = world.call("DELETE", "/api/v1/tasks/t", "").await;
    assert_eq!((again.status, &again.json()["code"]), (StatusCode::CONFLICT, &json!("TASK_ENDED")));
    assert_eq!(again.json()["success"], false);
    let missing = world.call("DELETE", "/api/v1/tasks/nope", "").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn contract_2_3_lists_by_bucket() {
    let world = World::new().await;
    world.register("n1").await;
    for id in ["a", "b", "c", "d", "e"] {
        world.submit(id).await;
    }
    world.place("b", "n1").await;
    world.place("c", "n1").await;
    let done = r#"{"success":true}"#;
    world.post("/api/v1/tasks/c/result", done).await.ok();
    world.call("DELETE", "/api/v1/tasks/d", "").await.ok();
    let ids = |value: &serde_json::Value| -> Vec<String> {
        let rows = value.as_array().unwrap().iter();
        rows.map(|row| row["task_id"].as_str().unwrap().to_owned()).collect()
    };
    let all = world.get("/api/v1/tasks").await.ok();
    assert_eq!(ids(&all["tasks"]["pending"]), ["a", "e"]);
    assert_eq!(ids(&all["tasks"]["active"]), ["b"]);
    assert_eq!(ids(&all["tasks"]["completed"]), ["c"]);
    assert_eq!(ids(&all["tasks"]["failed"]), ["d"]);
    let summary = json!({"pending_count": 2, "active_count": 1, "completed_count": 1,
        "failed_count": 1});
    assert_eq!(all["summary"], summary);
    let one = world.get("/api/v1/tasks?status=pending&limit=1&offset=1").await.ok();
    assert_eq!(ids(&one["tasks"]["pending"]), ["e"]);
    assert_eq!(one["tasks"]["active"], json!([]));
    assert_eq!(one["summary"], summary);
    let failed = world.get("/api/v1/tasks/failed").await.ok();
    assert_eq!((ids(&failed["tasks"]), &failed["total"]), (vec!["d".to_owned()], &json!(1)));
    let row = &all["tasks"]["failed"][0];
    assert_eq!(
        (&row["status"], &row["error_message"]),
        (&json!("cancelled"), &json!("cancelled by a client"))
    );
    assert_eq!(world.get("/api/v1/tasks?status=odd").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_cursor_walks_over_everything_once() {
    let world = World::new().await;
    for number in 0..7 {
        world.submit(&format!("t{number}")).await;
    }
    world.call("DELETE", "/api/v1/tasks/t3", "").await.ok();
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let path = format!("/api/v1/tasks?status=pending&limit=2&cursor={cursor}");
        let page = world.get(&path).await.ok();
        let items = page["items"].as_array().unwrap();
        assert_eq!(page["count"], items.len());
        seen.extend(items.iter().map(|row| row["task_id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen, ["t0", "t1", "t2", "t4", "t5", "t6"]);
}

#[tokio::test]
async fn contract_2_3_completed_lists_hold_the_newest_oldest_first() {
    let world = World::new().await;
    for number in 0..4 {
        world.submit(&format!("t{number}")).await;
        world.call("DELETE", &format!("/api/v1/tasks/t{number}"), "").await.ok();
    }
    let failed = world.get("/api/v1/tasks/failed?limit=2&offset=1").await.ok();
    let rows = failed["tasks"].as_array().unwrap();
    assert_eq!((&rows[0]["task_id"], &rows[1]["task_id"]), (&json!("t1"), &json!("t2")));
}

#[tokio::test]
async fn the_limits_of_a_task_are_shown_as_they_were_sent() {
    let world = World::new().await;
    let body = json!({"task_id": "t", "task_type": "t", "concurrency": {"key": "db"},
        "rate_limit": {"key": "api", "max": 3, "per_seconds": 0.5}});
    world.post("/api/v1/tasks", &body.to_string()).await.ok();
    let task = world.get("/api/v1/tasks/t").await.ok()["task"].clone();
    assert_eq!(task["concurrency"], json!({"key": "db", "max": 1}));
    assert_eq!(task["rate_limit"], json!({"key": "api", "max": 3, "per_seconds": 0.5}));
    world.submit("plain").await;
    let plain = world.get("/api/v1/tasks/plain").await.ok()["task"].clone();
    assert!(plain.get("concurrency").is_none() && plain.get("rate_limit").is_none(), "{plain}");
}
