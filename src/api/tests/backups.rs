//! The doors of backups: closed without the key, and a whole file behind it.

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use serde_json::json;
use tower::ServiceExt as _;

use super::World;
use crate::api::ApiOptions;
use crate::leader::{BackupPlan, Backups};
use crate::security::AdminKey;
use crate::storage::{BackupReceiver, rehearse};

const KEY: &str = "a key of some length";

fn ask(key: Option<&str>) -> Request<Body> {
    let request = Request::builder().uri("/api/v1/backup");
    let request = match key {
        Some(key) => request.header("x-quorate-admin-key", key),
        None => request,
    };
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_backup_takes_the_admin_key() {
    let world = World::new().await;
    let answer = world.send(ask(Some(KEY))).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text);
    assert_eq!(answer.json()["code"], "ADMIN_KEY_MISSING");

    let options = ApiOptions { admin_key: AdminKey::new(KEY), ..ApiOptions::default() };
    let world = World::with(options).await;
    for wrong in [None, Some(""), Some("another key of some length")] {
        let answer = world.send(ask(wrong)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text);
        assert_eq!(answer.json()["code"], "ADMIN_KEY_REQUIRED");
    }
}

#[tokio::test]
async fn a_backup_is_of_the_moment_it_is_asked_for() {
    let options = ApiOptions { admin_key: AdminKey::new(KEY), ..ApiOptions::default() };
    let world = World::with(options).await;
    let dir = tempfile::tempdir().unwrap();
    for count in 1..=3_u64 {
        world.submit(&format!("t{count}")).await;
        let response = world.router.clone().oneshot(ask(Some(KEY))).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        let (len, index) = (header("content-length"), header("x-quorate-index"));
        assert!(header("content-disposition").contains(".qbak"));
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert_eq!(len, bytes.len().to_string());
        let path = dir.path().join(format!("{count}.qbak"));
        let mut receiver = BackupReceiver::create(&path).unwrap();
        receiver.write(&bytes).unwrap();
        let info = receiver.finish().unwrap();
        assert_eq!(info.last.index.to_string(), index);
        assert_eq!(Some(info.head.cluster_id), world.cluster.cluster_id());
        assert_eq!(rehearse(&path).unwrap().tasks, count, "what was acknowledged before is in it");
    }
}

#[tokio::test]
async fn the_list_shows_the_schedule_and_what_is_there() {
    let list = World::new().await.get("/api/v1/backups").await.ok();
    assert_eq!((&list["scheduled"], &list["backups"]), (&json!(false), &json!([])));

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("backup-x.qbak"), "nonsense").unwrap();
    let plan = BackupPlan {
        dir: dir.path().to_owned(),
        interval: std::time::Duration::from_secs(60),
        keep: 3,
        rehearse: true,
    };
    let options = ApiOptions { backups: Backups::new(Some(plan)), ..ApiOptions::default() };
    let list = World::with(options).await.get("/api/v1/backups").await.ok();
    assert_eq!((&list["scheduled"], &list["keep"]), (&json!(true), &json!(3)));
    let file = &list["backups"][0];
    assert_eq!((&file["name"], &file["rehearsal"]), (&json!("backup-x.qbak"), &json!(null)));
    assert!(file["error"].as_str().unwrap().contains("does not begin like one"), "{file}");
}
