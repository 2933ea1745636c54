//! The doors of administrators, and the record of drills.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use super::{Answer, World};
use crate::api::{Admin, ApiOptions};
use crate::security::AdminKey;

const KEY: &str = "sixteen letters!";

async fn open() -> World {
    open_at(".".into()).await
}

async fn open_at(data_dir: std::path::PathBuf) -> World {
    let (admin, admin_key) = (Admin { drills: true, ..Admin::default() }, AdminKey::new(KEY));
    World::with(ApiOptions { admin, admin_key, data_dir, ..ApiOptions::default() }).await
}

async fn call(world: &World, method: &str, path: &str, body: &Value) -> Answer {
    let request = Request::builder().method(method).uri(path).header("x-quorate-admin-key", KEY);
    world.send(request.body(Body::from(body.to_string())).unwrap()).await
}

async fn begin(world: &World) -> u64 {
    let body = json!({ "kind": "pause", "target": "member 1", "lease_ms": 60_000 });
    let begun = call(world, "POST", "/api/v1/admin/drills", &body).await.ok();
    begun["drill_id"].as_u64().unwrap()
}

#[tokio::test]
async fn the_doors_are_closed_unless_the_member_opens_them() {
    let world = World::new().await;
    let closed = call(&world, "GET", "/api/v1/admin/drills", &Value::Null).await;
    assert_eq!(
        (closed.status, closed.json()["code"].as_str()),
        (StatusCode::FORBIDDEN, Some("DRILLS_DISABLED"))
    );
    let world = open().await;
    let keyless = world.get("/api/v1/admin/drills").await;
    assert_eq!(keyless.status, StatusCode::UNAUTHORIZED);
    assert_eq!(keyless.json()["code"], "ADMIN_KEY_REQUIRED");
    let account = call(&world, "GET", "/api/v1/admin/drills", &Value::Null).await.ok();
    assert_eq!((&account["supervised"], &account["running"]), (&json!(false), &Value::Null));
}

#[tokio::test]
async fn a_drill_is_recorded_from_beginning_to_end() {
    let world = open().await;
    let id = begin(&world).await;
    let body = json!({ "kind": "chaos", "lease_ms": 1000 });
    let second = call(&world, "POST", "/api/v1/admin/drills", &body).await;
    assert_eq!(
        (second.status, second.json()["code"].as_str()),
        (StatusCode::CONFLICT, Some("DRILL_RUNNING"))
    );
    let running = world.get(&format!("/api/v1/drills/{id}")).await.ok();
    assert_eq!((&running["drill"]["state"], &running["report"]), (&json!("running"), &Value::Null));
    let path = format!("/api/v1/admin/drills/{id}/end");
    let report = json!({ "writes": { "gap_ms": 1.5 }, "text": "ä".repeat(5000) });
    let body = json!({ "state": "passed", "summary": "fine", "report": report });
    call(&world, "POST", &path, &body).await.ok();
    let ended = world.get(&format!("/api/v1/drills/{id}")).await.ok();
    assert_eq!((&ended["drill"]["state"], &ended["report"]), (&json!("passed"), &report));
    let list = world.get("/api/v1/drills").await.ok();
    assert_eq!((&list["count"], &list["drills"][0]["summary"]), (&json!(1), &json!("fine")));
    assert_eq!(call(&world, "POST", &path, &body).await.status, StatusCode::CONFLICT);
    assert_eq!(world.get("/api/v1/drills/9").await.json()["code"], "DRILL_NOT_FOUND");
    let long = json!({ "state": "failed", "report": { "text": "x".repeat(70_000) } });
    assert_eq!(call(&world, "POST", &path, &long).await.json()["code"], "INVALID_FIELD");
}

#[tokio::test]
async fn a_drill_whose_lease_is_over_keeps_nobody_out() {
    let world = open().await;
    let body = json!({ "kind": "pause", "lease_ms": 1 });
    call(&world, "POST", "/api/v1/admin/drills", &body).await.ok();
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let account = call(&world, "GET", "/api/v1/admin/drills", &Value::Null).await.ok();
    assert_eq!(account["running"], Value::Null);
    assert_eq!(world.get("/api/v1/drills/1").await.ok()["drill"]["state"], "abandoned");
    assert_eq!(begin(&world).await, 2);
    let account = call(&world, "GET", "/api/v1/admin/drills", &Value::Null).await.ok();
    assert_eq!(account["running"], 2);
}

#[tokio::test]
async fn faults_need_a_drill_and_a_quorum_that_bears_them() {
    let world = open().await;
    let path = "/api/v1/admin/faults";
    let silence =
        json!({ "drill_id": 1, "fault": "silence", "lasting_ms": 60_000, "clients": "refused" });
    let early = call(&world, "POST", path, &silence).await;
    assert_eq!(
        (early.status, early.json()["code"].as_str()),
        (StatusCode::CONFLICT, Some("DRILL_OVER"))
    );
    begin(&world).await;
    let lone = call(&world, "POST", path, &silence).await;
    assert_eq!(lone.json()["code"], "QUORUM_AT_RISK", "a lone member may not fail");
    let mut forced = silence.clone();
    forced["force"] = true.into();
    call(&world, "POST", path, &forced).await.ok();
    let refused = world.get("/api/v1/nodes").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json()["code"], "MEMBER_SILENCED");
    assert_eq!(world.get("/livez").await.status, StatusCode::OK, "probes are answered");
    let account = call(&world, "GET", "/api/v1/admin/drills", &Value::Null).await.ok();
    assert_eq!(account["faults"][0]["fault"], "silence");
    let healed = call(&world, "DELETE", &format!("{path}?drill_id=1"), &Value::Null).await.ok();
    assert_eq!(healed["healed"], 1);
    world.get("/api/v1/nodes").await.ok();
    for (field, value) in [
        ("fault", json!("fire")),
        ("lasting_ms", json!(0)),
        ("lasting_ms", json!(999_999)),
        ("clients", json!("annoyed")),
    ] {
        let mut body = forced.clone();
        body[field] = value;
        assert_eq!(
            call(&world, "POST", path, &body).await.json()["code"],
            "INVALID_FIELD",
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_member_is_ended_only_where_it_is_started_again() {
    let world = open().await;
    let drill_id = begin(&world).await;
    let body = json!({ "drill_id": drill_id, "how": "kill" });
    let refused = call(&world, "POST", "/api/v1/admin/stop", &body).await;
    assert_eq!(refused.json()["code"], "NOT_SUPERVISED");
}

#[tokio::test]
async fn a_rehearsal_restores_what_was_backed_up_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let world = open_at(dir.path().to_owned()).await;
    let drill_id = begin(&world).await;
    let body = json!({ "drill_id": drill_id });
    let told = call(&world, "POST", "/api/v1/admin/rehearse", &body).await.ok();
    assert_ne!(told["matches"], false, "{told}");
    assert!(told["rows"].as_u64().unwrap() > 1, "{told}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
