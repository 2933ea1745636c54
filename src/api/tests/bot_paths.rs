//! Every path of family B, and every field of its objects: contract 5.1, 5.2, 5.6.

use super::bots::{id_of, made};
use super::{Answer, World};

/// Nothing of it is there, which every door has to say in the same way.
#[tokio::test]
async fn contract_5_6_every_path_is_served_at_the_root_and_under_api_v1() {
    let world = World::new().await;
    let lease = r#"{"leases":[{"task_id":"x","attempt":1}]}"#;
    let items = r#"{"items":[{"task_id":"x","attempt":1}]}"#;
    for (method, path, body, status) in [
        ("GET", "/bots", "", 200),
        ("GET", "/bots/x", "", 404),
        ("DELETE", "/bots/x", "", 404),
        ("GET", "/bots/x/health", "", 404),
        ("GET", "/bots/x/tasks", "", 404),
        ("POST", "/bots/x/tasks", "{}", 404),
        ("POST", "/bots/x/tasks/lease", "{}", 404),
        ("POST", "/bots/x/tasks/y/complete", "", 404),
        ("POST", "/bots/leases", r#"{"swarms":["x"]}"#, 404),
        ("POST", "/bots/leases/renew", lease, 200),
        ("POST", "/bots/leases/release", lease, 200),
        ("POST", "/assignments/complete", items, 200),
        ("POST", "/assignments/fail", items, 200),
        ("GET", "/swarms", "", 200),
        ("GET", "/swarms/x", "", 404),
        ("PATCH", "/swarms/x", r#"{"count":1}"#, 404),
        ("DELETE", "/swarms/x", "", 404),
        ("GET", "/swarms/x/health", "", 404),
        ("POST", "/swarms/x/tasks", "{}", 404),
        ("POST", "/swarms/x/tasks/lease", "{}", 404),
        ("GET", "/workflows", "", 200),
        ("GET", "/workflows/x", "", 404),
        ("DELETE", "/workflows/x", "", 404),
        ("GET", "/task/x", "", 404),
        ("GET", "/services", "", 200),
    ] {
        let (root, alias) = (path.to_owned(), format!("/api/v1{path}"));
        let (root, alias) =
            (world.call(method, &root, body).await, world.call(method, &alias, body).await);
        assert_eq!(root.status.as_u16(), status, "{method} {path}: {}", root.text);
        assert_eq!(alias.status, root.status, "{method} {path}: {}", alias.text);
        let said = |answer: &Answer| {
            let body = answer.json();
            ["code", "error", "verdicts", "total", "services"].map(|key| body[key].clone())
        };
        assert_eq!(said(&alias), said(&root), "{method} {path}");
        // A path that is not there is refused otherwise.
        let code = alias.json()["code"].clone();
        assert!(status == 200 || code.as_str().unwrap().ends_with("_NOT_FOUND"), "{path}: {code}");
        assert_ne!(code, "ROUTE_NOT_FOUND", "{path}");
    }
}

#[tokio::test]
async fn contract_5_2_objects_have_all_fields_of_family_b() {
    let world = World::new().await;
    let bot = made(&world.post("/bots", "{}").await);
    let swarm = made(&world.post("/swarms", r#"{"count":1}"#).await);
    let shown = world.get(&format!("/swarms/{}", id_of(&swarm))).await.ok();
    let task = made(&world.post(&format!("/bots/{}/tasks", id_of(&bot)), "{}").await);
    let of_swarm = &["id", "name", "bot_count", "tier", "bot_ids", "status", "created_at"][..];
    let counts = &["active_bots", "total_tasks_completed", "average_tasks_per_bot"][..];
    let of_bot = &[
        "id",
        "name",
        "tier",
        "capabilities",
        "status",
        "tasks_completed",
        "created_at",
        "last_active",
    ][..];
    let of_task = &["task_id", "bot_id", "task_type", "task_data", "status", "assigned_at"][..];
    for (object, fields) in
        [(&bot, of_bot), (&swarm, of_swarm), (&shown, of_swarm), (&shown, counts), (&task, of_task)]
    {
        for field in fields {
            assert!(object.get(field).is_some(), "{field} of {object}");
        }
    }
}
