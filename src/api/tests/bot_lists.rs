//! What a bot has to do, in pages; and whose it is when others come and go.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::World;
use super::bots::{made, refused};

impl World {
    async fn walk(&self, path: &str) -> Vec<String> {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("{path}{cursor}")).await.ok();
            let rows = page["tasks"].as_array().unwrap();
            assert_eq!(page["count"], rows.len());
            seen.extend(rows.iter().map(|row| row["task_id"].as_str().unwrap().to_owned()));
            let Some(next) = page["next_cursor"].as_str() else { return seen };
            cursor = format!("&cursor={next}");
        }
    }
}

#[tokio::test]
async fn the_list_of_a_bot_goes_on_with_a_cursor_either_way() {
    let world = World::new().await;
    let bot = world.bot("{}").await;
    let mut tasks = Vec::new();
    for _ in 0..7 {
        tasks.push(world.assign(&bot, "{}").await);
    }
    let path = format!("/bots/{bot}/tasks?limit=2");
    let oldest_first = world.walk(&format!("{path}&order=asc&status=assigned")).await;
    assert_eq!(oldest_first, tasks);
    tasks.reverse();
    assert_eq!(world.walk(&path).await, tasks, "the newest first when nothing is said");
    for done in &tasks[1..6] {
        world.post(&format!("/bots/{bot}/tasks/{done}/complete"), "").await.ok();
    }
    let open = world.walk(&format!("/bots/{bot}/tasks?limit=1&status=assigned")).await;
    assert_eq!(open, [tasks[0].as_str(), &tasks[6]]);
    let page = world.get(&path).await.ok();
    let cursor = page["next_cursor"].as_str().unwrap();
    let other = world.bot("{}").await;
    for foreign in [format!("/bots/{other}/tasks?limit=2"), format!("{path}&order=asc")] {
        let answer = world.get(&format!("{foreign}&cursor={cursor}")).await;
        assert_eq!(answer.json()["code"], "INVALID_CURSOR", "{foreign}");
    }
    let answer = world.get(&format!("{path}&created_after=1")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

/// After any scaling the bot that worked on it was told that there is no such task.
#[tokio::test]
async fn what_a_bot_has_a_lease_of_it_can_complete_after_the_swarm_was_scaled() {
    let world = World::new().await;
    let (swarm, _) = world.swarm(8).await;
    made(&world.post(&format!("/swarms/{swarm}/tasks"), "{}").await);
    let scale = |count: u32| format!(r#"{{"count":{count}}}"#);
    let path = format!("/swarms/{swarm}?bot_ids=false");
    world.patch(&path, &scale(2)).await.ok();
    let body = json!({"swarms": [swarm], "max": 8, "holder": "w"}).to_string();
    let leased = world.post("/bots/leases", &body).await.ok();
    world.patch(&path, &scale(3)).await.ok();
    world.patch(&path, &scale(1)).await.ok();
    let rows = leased["assignments"].as_array().unwrap();
    assert_eq!(rows.len(), 8);
    for row in rows {
        let (bot, task) = (row["bot_id"].as_str().unwrap(), row["task_id"].as_str().unwrap());
        let path = format!("/bots/{bot}/tasks/{task}/complete");
        assert_eq!(world.post(&path, r#"{"attempt":1}"#).await.ok()["bot_id"], bot);
    }
    assert_eq!(world.get("/bots/stats").await.ok()["tasks_executed"], 8);
}

/// A swarm with much to do shrinks by several commands, and the client is answered once.
#[tokio::test]
async fn a_swarm_shrinks_to_what_was_asked_for_however_much_it_has_to_do() {
    let world = World::new().await;
    let (swarm, _) = world.swarm(5_000).await;
    for _ in 0..400 {
        made(&world.post(&format!("/swarms/{swarm}/tasks"), "{}").await);
    }
    let scaled = world.patch(&format!("/swarms/{swarm}"), r#"{"count":1}"#).await.ok();
    assert_eq!(scaled["bot_count"], 1, "{scaled}");
    assert_eq!(scaled["bot_ids"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_failure_without_a_lease_that_is_told_again_counts_once() {
    let world = World::new().await;
    let bot = world.bot("{}").await;
    let task = world.assign(&bot, "{}").await;
    let mut item = json!({"task_id": task, "error": "no"});
    let fail = async |item: &Value| {
        let body = json!({"items": [item]}).to_string();
        world.post("/assignments/fail", &body).await.ok()["verdicts"][0].clone()
    };
    assert_eq!(fail(&item).await, "accepted");
    for _ in 0..6 {
        assert_eq!(fail(&item).await, "repeated");
    }
    let open = world.get(&format!("/bots/{bot}/tasks?status=assigned")).await.ok();
    assert_eq!(open["count"], 1, "{open}");
    item["retryable"] = json!(false);
    assert_eq!((fail(&item).await, fail(&item).await), (json!("accepted"), json!("repeated")));
}

#[tokio::test]
async fn one_result_that_is_too_long_is_said_of_that_one() {
    let world = World::new().await;
    let bot = world.bot("{}").await;
    let tasks = [world.assign(&bot, "{}").await, world.assign(&bot, "{}").await];
    let long = "x".repeat(16 * 1024);
    let items = json!([{"task_id": tasks[0], "result": long}, {"task_id": tasks[1], "result": 1}]);
    let body = json!({"items": items}).to_string();
    let judged = world.post("/assignments/complete", &body).await.ok();
    assert_eq!(judged["verdicts"], json!(["too_large", "accepted"]));
    let path = format!("/bots/{bot}/tasks/{}/complete", tasks[0]);
    let answer = world.post(&path, &json!({"result": long}).to_string()).await;
    refused(&answer, 400, "result holds at most 16384 bytes");
}

#[tokio::test]
async fn a_swarm_that_asks_for_more_than_there_is_room_for_is_cut_each_time() {
    let world = World::new().await;
    let (swarm, _) = world.swarm(40_000).await;
    for _ in 0..2 {
        let path = format!("/swarms/{swarm}?bot_ids=false");
        let scaled = world.patch(&path, r#"{"count":60000}"#).await.ok();
        assert_eq!(scaled["bot_count"], 50_000);
    }
    for path in [format!("/swarms/{swarm}"), "/swarms".to_owned()] {
        let method = if path == "/swarms" { "POST" } else { "PATCH" };
        let answer = world.call(method, &path, r#"{"count":null}"#).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
    }
}
