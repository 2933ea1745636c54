//! The doors of backups: closed without the key, and a whole file behind it.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
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
        interval: Duration::from_secs(60),
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

#[tokio::test]
async fn the_list_comes_in_pages_the_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let options = ApiOptions { admin_key: AdminKey::new(KEY), ..ApiOptions::default() };
    let world = World::with(options).await;
    let response = world.router.clone().oneshot(ask(Some(KEY))).await.unwrap();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    for number in 1..=3 {
        std::fs::write(dir.path().join(format!("backup-{number}.qbak")), &bytes).unwrap();
    }
    let plan = BackupPlan {
        dir: dir.path().to_owned(),
        interval: Duration::from_secs(60),
        keep: 3,
        rehearse: false,
    };
    let options = ApiOptions { backups: Backups::new(Some(plan)), ..ApiOptions::default() };
    let world = World::with(options).await;
    let names = |page: &Value| -> Vec<String> {
        let rows = page["backups"].as_array().unwrap().iter();
        rows.map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    let page = world.get("/api/v1/backups?limit=2").await.ok();
    assert_eq!(names(&page), ["backup-3.qbak", "backup-2.qbak"]);
    assert_eq!((&page["count"], &page["total"]), (&json!(2), &json!(3)));
    let next = page["next_cursor"].as_str().unwrap();
    let page = world.get(&format!("/api/v1/backups?limit=2&cursor={next}")).await.ok();
    assert_eq!(
        (names(&page), &page["next_cursor"]),
        (vec!["backup-1.qbak".to_owned()], &json!(null))
    );
    let page = world.get("/api/v1/backups?order=asc&limit=1").await.ok();
    assert_eq!(names(&page), ["backup-1.qbak"]);
    let page = world.get("/api/v1/backups?created_before=2000-01-01T00:00:00Z").await.ok();
    assert_eq!((names(&page).len(), &page["total"]), (0, &json!(0)));
}

/// Asks for the list until it is as wanted.
async fn listed(world: &World, wanted: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..500 {
        let list = world.get("/api/v1/backups").await.ok();
        if wanted(&list) {
            return list;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the list never became as wanted");
}

#[tokio::test]
async fn a_failing_schedule_is_seen_until_a_backup_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let obstacle = dir.path().join("backups");
    std::fs::write(&obstacle, "not a directory").unwrap();
    let plan = BackupPlan {
        dir: obstacle.clone(),
        interval: Duration::from_millis(200),
        keep: 2,
        rehearse: true,
    };
    let backups = Backups::new(Some(plan));
    let world = World::with(ApiOptions { backups: backups.clone(), ..ApiOptions::default() }).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(backups.clone().run(world.cluster.clone(), stop.clone()));
    let failing = listed(&world, |list| !list["fault"].is_null()).await;
    assert!(failing["fault"]["error"].as_str().unwrap().contains("backups"), "{failing}");
    assert!(backups.metrics().failures.get() > 0 && backups.metrics().written.get() == 0);

    std::fs::remove_file(&obstacle).unwrap();
    let passed = |list: &Value| list["backups"][0]["rehearsal"]["passed"] == true;
    let well = listed(&world, |list| passed(list) && list["fault"].is_null()).await;
    assert_eq!(well["backups"][0]["member"], "m1");
    assert_eq!(backups.metrics().last_rehearsal_ok.get(), 1);
    stop.cancel();
    running.await.unwrap();
}
