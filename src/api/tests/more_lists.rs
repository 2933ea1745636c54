//! Filters, orders, cursors and counts of the short lists: alerts, decisions of the autoscaler,
//! deliveries, pipelines, keys, dead letters.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::World;
use crate::model::{AlertState, NodeId, ScalingAction, ScalingEvent, Severity};
use crate::state::{AlertChange, Command};

/// The texts at `key` of all rows, page after page of two.
async fn walk(world: &World, path: &str, rows: &str, key: &str) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    for _ in 0..50 {
        let with = if path.contains('?') { '&' } else { '?' };
        let page = world.get(&format!("{path}{with}limit=2&cursor={cursor}")).await.ok();
        let shown = page[rows].as_array().unwrap();
        assert_eq!(page["count"], shown.len(), "{page}");
        let text = |row: &Value| match &row[key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        found.extend(shown.iter().map(text));
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return found,
        }
    }
    panic!("{path} has no end");
}

async fn total(world: &World, path: &str) -> Value {
    world.get(path).await.ok()["total"].clone()
}

#[tokio::test]
async fn alerts_are_walked_and_filtered() {
    let world = World::new().await;
    for (name, severity) in
        [("c", Severity::Warning), ("a", Severity::Critical), ("b", Severity::Warning)]
    {
        let change = AlertChange {
            alert_id: name.to_owned(),
            seen_transitions: 0,
            metric: format!("metric-{name}"),
            severity,
            state: AlertState::Active,
            value_milli: 1,
            threshold_milli: 0,
            message: String::new(),
        };
        world.commit(Command::RecordAlerts { epoch: world.epoch, changes: vec![change] }).await;
    }
    assert_eq!(walk(&world, "/api/v1/alerts", "alerts", "id").await, ["a", "b", "c"]);
    let down = "/api/v1/alerts?order=desc";
    assert_eq!(walk(&world, down, "alerts", "id").await, ["c", "b", "a"]);
    let warnings = "/api/v1/alerts?severity=warning&status=active";
    assert_eq!(walk(&world, warnings, "alerts", "id").await, ["b", "c"]);
    assert_eq!(total(&world, "/api/v1/alerts?metric=metric-a").await, 1);
    assert_eq!(total(&world, "/api/v1/alerts?created_after=4000000000").await, 0);
    let page = world.get("/api/v1/alerts?limit=1").await.ok();
    assert_eq!((&page["count"], &page["total"]), (&json!(1), &json!(3)));
    let cursor = page["next_cursor"].as_str().unwrap();
    let foreign = world.get(&format!("/api/v1/alerts?order=desc&cursor={cursor}")).await;
    assert_eq!(foreign.json()["code"], "INVALID_CURSOR");
    assert!(world.get("/api/v1/alerts").await.ok().get("count").is_none(), "the family's form");
}

#[tokio::test]
async fn decisions_of_the_autoscaler_are_walked_and_filtered() {
    let world = World::new().await;
    for (rule, action) in
        [("r1", ScalingAction::Up), ("r2", ScalingAction::Down), ("r3", ScalingAction::Up)]
    {
        let event = ScalingEvent {
            number: 0,
            at_ms: 0,
            action,
            rule: rule.to_owned(),
            current_nodes: 2,
            target_nodes: 3,
            metric_milli: 0,
            threshold_milli: 0,
            reason: String::new(),
            provider: "manual".to_owned(),
            outcome: None,
            nodes: vec![NodeId::trusted("n")],
        };
        world.commit(Command::RecordScaling { epoch: world.epoch, event, cooldown_ms: 0 }).await;
    }
    let path = "/api/v1/scaling/events";
    assert_eq!(walk(&world, path, "events", "rule_name").await, ["r3", "r2", "r1"]);
    let up = format!("{path}?action=scale_up&order=asc");
    assert_eq!(walk(&world, &up, "events", "rule_name").await, ["r1", "r3"]);
    assert_eq!(total(&world, &format!("{path}?rule_name=r2")).await, 1);
    assert_eq!(world.get(path).await.ok()["events"][0]["nodes"], json!(["n"]));
}

#[tokio::test]
async fn deliveries_and_dead_letters_are_walked_and_counted() {
    let world = World::new().await;
    for number in 0..3 {
        let body = json!({"task_id": format!("t{number}"), "task_type": "t", "max_retries": 0,
            "callback_url": "http://me.test/done"});
        world.post("/api/v1/tasks", &body.to_string()).await.ok();
        world.delete(&format!("/api/v1/tasks/t{number}")).await.ok();
    }
    let path = "/api/v1/deliveries";
    assert_eq!(walk(&world, path, "deliveries", "task_id").await, ["t2", "t1", "t0"]);
    let up = format!("{path}?order=asc&kind=callback");
    assert_eq!(walk(&world, &up, "deliveries", "task_id").await, ["t0", "t1", "t2"]);
    assert_eq!(total(&world, path).await, 3);
    assert_eq!(total(&world, &format!("{path}?kind=email")).await, 0);
    assert_eq!(total(&world, &format!("{path}?task_id=t1&status=due")).await, 1);
    let wrong = world.get(&format!("{path}?sort=size")).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);

    let dead = world.get("/api/v1/dead-letters?order=asc").await.ok();
    assert_eq!((&dead["total"], &dead["count"]), (&json!(0), &json!(0)));
    let part = world.get("/api/v1/dead-letters?task_type=t").await.ok();
    assert_eq!(part["total"], Value::Null, "only counting them would tell");
}

#[tokio::test]
async fn pipelines_and_keys_are_walked_and_filtered() {
    let world = World::new().await;
    let path = "/api/v1/pipelines";
    let all = walk(&world, path, "pipelines", "task_type").await;
    assert!(all.len() >= 8 && all.is_sorted(), "{all:?}");
    let mut down = walk(&world, &format!("{path}?order=desc"), "pipelines", "task_type").await;
    down.reverse();
    assert_eq!(down, all);
    let own = r#"{"steps":[{"name":"s","agent_type":"mine"}]}"#;
    world.put("/api/v1/pipelines/own_one", own).await.ok();
    let mine = walk(&world, &format!("{path}?builtin=false"), "pipelines", "task_type").await;
    assert_eq!(mine, ["own_one"]);
    assert_eq!(total(&world, &format!("{path}?agent_type=mine")).await, 1);

    for (name, role) in [("a", "client"), ("b", "node"), ("c", "client")] {
        let body = json!({"name": name, "role": role}).to_string();
        let made = world.post("/api/v1/auth/api-keys", &body).await;
        assert!(made.status.is_success(), "{}", made.text);
    }
    let path = "/api/v1/auth/api-keys";
    let names = walk(&world, &format!("{path}?sort=name&order=asc"), "api_keys", "name").await;
    assert_eq!(names, ["a", "b", "c"]);
    let nodes = walk(&world, &format!("{path}?role=node"), "api_keys", "name").await;
    assert_eq!(nodes, ["b"]);
    assert_eq!(total(&world, path).await, 3);
}

/// Every look at the list went through all of it while the state was held.
#[tokio::test]
async fn a_long_list_of_deliveries_is_looked_at_piece_by_piece() {
    use crate::state::TaskExpiry;
    const ALL: usize = 10_050;
    let world = World::new().await;
    for batch in [10_000, ALL - 10_000] {
        let task = json!({"task_type": "t", "deadline": 1, "callback_url": "http://me.test/"});
        let body = json!({"tasks": vec![task; batch]}).to_string();
        world.post("/api/v1/tasks/batch", &body).await.ok();
        let expiries = world.cluster.view().read(|state| {
            let due = state.due_timers(u64::MAX).map(|(task, kind)| TaskExpiry {
                task_id: task.task_id.clone(),
                seen_revision: task.revision,
                kind,
            });
            due.collect()
        });
        world.commit(Command::ExpireTasks { epoch: world.epoch, expiries }).await;
    }
    let path = "/api/v1/deliveries";
    assert_eq!(total(&world, path).await, ALL);
    assert_eq!(total(&world, &format!("{path}?status=due")).await, ALL, "known without a look");
    let page = world.get(&format!("{path}?status=delivered&order=asc")).await.ok();
    assert_eq!((&page["count"], &page["total"]), (&json!(0), &Value::Null));
    let next = page["next_cursor"].as_str().expect("the page ended early");
    assert_eq!(next, "10000");
    let query = format!("{path}?status=delivered&order=asc&cursor={next}");
    assert_eq!(world.get(&query).await.ok()["next_cursor"], Value::Null);
    let odd = world.get(&format!("{path}?status=done")).await;
    assert_eq!(odd.json()["code"], "INVALID_QUERY", "{}", odd.text);
    let last = world.get(&format!("{path}?limit=2&cursor=3")).await.ok();
    let ids: Vec<_> = last["deliveries"].as_array().unwrap().iter().collect();
    assert_eq!((ids.len(), &ids[0]["delivery_id"]), (2, &json!(2)));
    assert_eq!(last["next_cursor"], Value::Null);
}
