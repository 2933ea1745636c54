//! Bots, swarms and their assignments as family B's clients ask for them: contract 5.1, 5.2, 5.3, 5.6.

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{Answer, World};

/// An error as family B's clients read it.
#[track_caller]
pub(super) fn refused(answer: &Answer, status: u16, error: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    assert_eq!(answer.json()["error"], error, "{}", answer.text);
}

#[track_caller]
pub(super) fn made(answer: &Answer) -> Value {
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    answer.json()
}

#[track_caller]
pub(super) fn id_of(value: &Value) -> String {
    value["id"].as_str().unwrap_or_else(|| panic!("no id: {value}")).to_owned()
}

impl World {
    pub(super) async fn patch(&self, path: &str, body: &str) -> Answer {
        self.call("PATCH", path, body).await
    }

    pub(super) async fn bot(&self, body: &str) -> String {
        id_of(&made(&self.post("/bots", body).await))
    }

    pub(super) async fn swarm(&self, count: u32) -> (String, Vec<String>) {
        let swarm = made(&self.post("/swarms", &format!(r#"{{"count":{count}}}"#)).await);
        let bots = serde_json::from_value(swarm["bot_ids"].clone()).unwrap();
        (id_of(&swarm), bots)
    }

    /// Gives a bot something to do, and the id of that.
    pub(super) async fn assign(&self, bot: &str, body: &str) -> String {
        let task = made(&self.post(&format!("/bots/{bot}/tasks"), body).await);
        task["task_id"].as_str().unwrap().to_owned()
    }

    async fn configure(&self, key: &str, value: Value) {
        let body = json!({"value": value}).to_string();
        self.put(&format!("/api/v1/config/{key}"), &body).await.ok();
    }
}

/// `2026-01-31T12:00:00.123000Z` (contract 1.7).
#[track_caller]
fn is_time(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("{value}"));
    assert!(text.len() == 27 && text.ends_with("000Z") && &text[10..11] == "T", "{text}");
}

#[tokio::test]
async fn contract_5_1_health_has_the_fields_of_family_b() {
    let world = World::new().await;
    let health = world.get("/health").await.ok();
    let wanted = json!(["healthy", "orchestrator", "connected"]);
    assert_eq!(json!([health["status"], health["service"], health["redis"]]), wanted);
    is_time(&health["timestamp"]);
}

#[tokio::test]
async fn contract_5_1_a_bot_is_made_with_defaults_and_shown() {
    let world = World::new().await;
    let bot = made(&world.post("/bots", "{}").await);
    let id = id_of(&bot);
    assert_eq!((id.len(), &id[14..15]), (36, "4"), "a UUID of version 4");
    assert_eq!(bot["name"], format!("bot-{}", &id[..8]));
    assert_eq!((&bot["tier"], &bot["capabilities"]), (&json!("standard"), &json!([])));
    assert_eq!((&bot["status"], &bot["tasks_completed"]), (&json!("active"), &json!(0)));
    is_time(&bot["created_at"]);
    is_time(&bot["last_active"]);
    let body = r#"{"name":"n","tier":"L20","capabilities":["a","b"]}"#;
    let id = world.bot(body).await;
    let shown = world.get(&format!("/bots/{id}")).await.ok();
    assert_eq!((&shown["name"], &shown["tier"]), (&json!("n"), &json!("L20")));
    assert_eq!(shown["capabilities"], json!(["a", "b"]));
    for key in ["total_tasks", "pending_tasks", "completed_tasks"] {
        assert_eq!(shown[key], 0, "{key}");
    }
    let task = world.assign(&id, r#"{"type":"t"}"#).await;
    world.assign(&id, r#"{"type":"t"}"#).await;
    world.post(&format!("/bots/{id}/tasks/{task}/complete"), "").await.ok();
    let shown = world.get(&format!("/bots/{id}")).await.ok();
    let counts = ["total_tasks", "pending_tasks", "completed_tasks", "tasks_completed"];
    assert_eq!(counts.map(|key| shown[key].as_u64().unwrap()), [2, 1, 1, 1]);
    refused(&world.get("/bots/none").await, 404, "Bot none not found");
    let other = "12345678-1234-4234-8234-123456789abc";
    refused(&world.get(&format!("/bots/{other}")).await, 404, &format!("Bot {other} not found"));
}

#[tokio::test]
async fn contract_5_1_a_swarm_is_made_with_defaults_and_lists_its_bots() {
    let world = World::new().await;
    let swarm = made(&world.post("/swarms", "{}").await);
    let id = id_of(&swarm);
    assert_eq!(swarm["name"], format!("swarm-{}", &id[..8]));
    assert_eq!((&swarm["bot_count"], &swarm["tier"]), (&json!(100), &json!("standard")));
    assert_eq!(swarm["status"], "active");
    is_time(&swarm["created_at"]);
    let ids = swarm["bot_ids"].as_array().unwrap();
    assert_eq!(ids.len(), 100);
    let last = world.get(&format!("/bots/{}", ids[99].as_str().unwrap())).await.ok();
    assert_eq!((&last["name"], &last["swarm_id"]), (&json!("swarm-bot-99"), &json!(id)));
    let body = r#"{"name":"s","count":3,"tier":"advanced","capabilities":["a"]}"#;
    let named = made(&world.post("/swarms", body).await);
    let first = named["bot_ids"][0].as_str().unwrap();
    let first = world.get(&format!("/bots/{first}")).await.ok();
    assert_eq!((&first["name"], &first["tier"]), (&json!("s-bot-0"), &json!("advanced")));
    assert_eq!(first["capabilities"], json!(["a"]));
    let shown = world.get(&format!("/swarms/{id}")).await.ok();
    assert_eq!(shown["bot_ids"], swarm["bot_ids"]);
    assert_eq!((&shown["active_bots"], &shown["total_tasks_completed"]), (&json!(100), &json!(0)));
    assert_eq!(shown["average_tasks_per_bot"], 0.0);
    let brief = world.get(&format!("/swarms/{id}?bot_ids=false")).await.ok();
    assert!(brief.get("bot_ids").is_none() && brief["bot_count"] == 100);
    refused(&world.get("/swarms/none").await, 404, "Swarm none not found");
}

#[tokio::test]
async fn contract_c12_errors_of_family_b_are_texts() {
    let world = World::new().await;
    for (method, path, body) in [
        ("GET", "/bots/x", ""),
        ("GET", "/swarms/x", ""),
        ("GET", "/task/x", ""),
        ("GET", "/workflows/x", ""),
        ("POST", "/bots", "["),
        ("POST", "/swarms", r#"{"count":0}"#),
        ("POST", "/bots/x/tasks", "{}"),
        ("POST", "/bots/x/tasks/y/complete", ""),
        ("POST", "/swarms/x/tasks", "{}"),
        ("POST", "/bots/leases", "{}"),
        ("POST", "/assignments/complete", "{}"),
        ("POST", "/orchestrate", "{}"),
        ("PATCH", "/swarms/x", r#"{"count":1}"#),
        ("DELETE", "/bots/x", ""),
    ] {
        let answer = world.call(method, path, body).await;
        assert!(answer.status.is_client_error(), "{method} {path}: {}", answer.text);
        let error = answer.json()["error"].clone();
        assert!(error.as_str().is_some_and(|text| !text.is_empty()), "{path}: {error}");
        assert!(answer.json()["code"].is_string(), "{path}: {}", answer.text);
    }
}

#[tokio::test]
async fn contract_5_1_bodies_that_make_no_sense_are_400() {
    let world = World::new().await;
    let bot = world.bot("{}").await;
    let (swarm, _) = world.swarm(1).await;
    for path in [
        "/bots".to_owned(),
        "/swarms".to_owned(),
        "/orchestrate".to_owned(),
        format!("/bots/{bot}/tasks"),
        format!("/swarms/{swarm}/tasks"),
    ] {
        for body in ["", " ", "[", "[]", "7"] {
            let answer = world.post(&path, body).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {body}: {}", answer.text);
            assert!(answer.json()["error"].is_string());
        }
    }
    for count in ["\"ten\"", "2.5", "1e3", "[]", "{}", "true"] {
        let answer = world.post("/swarms", &format!(r#"{{"count":{count}}}"#)).await;
        refused(&answer, 400, "count must be a whole number");
    }
    for body in [r#"{"capabilities":"x"}"#, r#"{"tier":[]}"#, r#"{"name":{}}"#] {
        assert_eq!(world.post("/bots", body).await.status, StatusCode::BAD_REQUEST, "{body}");
    }
    assert_eq!(world.get("/bots/stats").await.ok()["total_created"], 2, "nothing was made");
}

#[tokio::test]
async fn contract_5_2_an_assignment_from_its_beginning_to_its_end() {
    let world = World::new().await;
    let bot = world.bot("{}").await;
    let path = format!("/bots/{bot}/tasks");
    let task = made(&world.post(&path, r#"{"type":"scan","data":{"a":[1,{"b":null}]}}"#).await);
    assert_eq!((&task["bot_id"], &task["task_type"]), (&json!(bot), &json!("scan")));
    assert_eq!(task["task_data"], json!({"a": [1, {"b": null}]}));
    assert_eq!(task["status"], "assigned");
    is_time(&task["assigned_at"]);
    assert!(task.get("completed_at").is_none());
    let bare = made(&world.post(&path, "{}").await);
    assert!(bare["task_type"].is_null() && bare["task_data"].is_null());
    let task_id = task["task_id"].as_str().unwrap();
    let done = world.post(&format!("{path}/{task_id}/complete"), "").await.ok();
    assert_eq!((&done["status"], &done["task_id"]), (&json!("completed"), &json!(task_id)));
    assert_eq!(done["task_data"], task["task_data"]);
    is_time(&done["completed_at"]);
    let missing = |task: &str, bot: &str| format!("Task {task} not found for bot {bot}");
    let other = world.bot("{}").await;
    let answer = world.post(&format!("/bots/{other}/tasks/{task_id}/complete"), "").await;
    refused(&answer, 404, &missing(task_id, &other));
    for (bot, task) in [(bot.as_str(), "none"), ("none", task_id)] {
        let answer = world.post(&format!("/bots/{bot}/tasks/{task}/complete"), "").await;
        refused(&answer, 404, &missing(task, bot));
    }
    refused(&world.post("/bots/none/tasks", "{}").await, 404, "Bot none not found");
}

#[tokio::test]
async fn contract_5_3_completing_twice_counts_once() {
    let world = World::new().await;
    let bot = world.bot("{}").await;
    let task = world.assign(&bot, "{}").await;
    let path = format!("/bots/{bot}/tasks/{task}/complete");
    let first = world.post(&path, r#"{"result":{"n":1}}"#).await.ok();
    let second = world.post(&path, r#"{"result":{"n":2}}"#).await.ok();
    assert_eq!(first, second, "the same record");
    assert_eq!(first["result"], json!({"n": 1}));
    let shown = world.get(&format!("/bots/{bot}")).await.ok();
    assert_eq!((&shown["tasks_completed"], &shown["completed_tasks"]), (&json!(1), &json!(1)));
    assert_eq!(world.get("/bots/stats").await.ok()["tasks_executed"], 1);
}

#[tokio::test]
async fn contract_5_3_a_swarm_gets_one_assignment_for_each_bot() {
    let world = World::new().await;
    let (swarm, bots) = world.swarm(3).await;
    let body = r#"{"type":"scan","data":[1]}"#;
    let given = made(&world.post(&format!("/swarms/{swarm}/tasks"), body).await);
    assert_eq!((&given["swarm_id"], &given["task_type"]), (&json!(swarm), &json!("scan")));
    assert_eq!((&given["assignments"], &given["status"]), (&json!(3), &json!("distributed")));
    is_time(&given["timestamp"]);
    let mut ids = Vec::new();
    for bot in &bots {
        let listed = world.get(&format!("/bots/{bot}/tasks")).await.ok();
        let tasks = listed["tasks"].as_array().unwrap();
        assert_eq!((tasks.len(), &tasks[0]["task_data"]), (1, &json!([1])));
        ids.push(tasks[0]["task_id"].as_str().unwrap().to_owned());
    }
    let path = format!("/bots/{}/tasks/{}/complete", bots[0], ids[0]);
    world.post(&path, "").await.ok();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "each has an id of its own");
    let shown = world.get(&format!("/swarms/{swarm}")).await.ok();
    assert_eq!(shown["total_tasks_completed"], 1);
    assert_eq!(shown["average_tasks_per_bot"], 0.33);
    refused(&world.post("/swarms/none/tasks", "{}").await, 404, "Swarm none not found");
}

#[tokio::test]
async fn contract_5_3_capacity_cuts_swarms_and_refuses_bots() {
    let world = World::new().await;
    world.configure("bots.capacity", json!(5)).await;
    world.bot("{}").await;
    let (_, bots) = world.swarm(60_000).await;
    assert_eq!(bots.len(), 4, "a swarm that is too large is cut");
    refused(&world.post("/bots", "{}").await, 400, "Maximum bot capacity (5) reached");
    let text = "Cannot create swarm: bot capacity reached";
    refused(&world.post("/swarms", "{}").await, 400, text);
    world.delete(&format!("/bots/{}", bots[0])).await.ok();
    for count in [0, -1] {
        let answer = world.post("/swarms", &format!(r#"{{"count":{count}}}"#)).await;
        refused(&answer, 400, text);
    }
    world.bot("{}").await;
}

#[tokio::test]
async fn contract_5_3_stats_count_tiers_and_capacity() {
    let world = World::new().await;
    let stats = world.get("/bots/stats").await.ok();
    assert_eq!(stats["tier_distribution"], json!({}));
    assert_eq!(
        (&stats["capacity_remaining"], &stats["utilization_percent"]),
        (&json!(50_000), &json!(0.0))
    );
    is_time(&stats["timestamp"]);
    world.bot(r#"{"tier":"L20"}"#).await;
    world.bot(r#"{"tier":"odd"}"#).await;
    let (swarm, bots) = world.swarm(104).await;
    world.assign(&bots[0], "{}").await;
    let mut stats = world.get("/bots/stats").await.ok();
    super::take(&mut stats, "/timestamp");
    let expected = json!({"total_created": 106, "active_bots": 106, "tasks_executed": 0,
        "tier_distribution": {"L20": 1, "odd": 1, "standard": 104}, "swarm_count": 1,
        "capacity_remaining": 49_894, "utilization_percent": 0.21, "capacity": 50_000,
        "tasks_waiting": 1, "tasks_leased": 0});
    assert_eq!(stats, expected);
    world.delete(&format!("/swarms/{swarm}")).await.ok();
    let stats = world.get("/bots/stats").await.ok();
    assert_eq!((&stats["total_created"], &stats["active_bots"]), (&json!(106), &json!(2)));
    assert_eq!(stats["tier_distribution"], json!({"L20": 1, "odd": 1}));
}

#[tokio::test]
async fn contract_5_6_the_aliases_of_the_gateway_answer_200() {
    let world = World::new().await;
    let bot = world.post("/api/v1/bots", r#"{"name":"b"}"#).await.ok();
    assert_eq!(bot["name"], "b");
    let swarm = world.post("/api/v1/swarms", r#"{"count":2}"#).await.ok();
    assert_eq!(swarm["bot_ids"].as_array().unwrap().len(), 2);
    assert_eq!(world.get("/api/v1/bots/stats").await.ok()["active_bots"], 3);
    let body = r#"{"tasks":[],"priority":"high"}"#;
    let workflow = world.post("/api/v1/orchestrate", body).await.ok();
    assert_eq!((&workflow["priority"], &workflow["status"]), (&json!("high"), &json!("completed")));
    // Whatever else there is has the family's own status under both.
    let path = format!("/api/v1/bots/{}/tasks", id_of(&bot));
    made(&world.post(&path, "{}").await);
    world.get(&format!("/api/v1/swarms/{}", id_of(&swarm))).await.ok();
}

#[tokio::test]
async fn fifty_thousand_ids_are_sent_in_pieces_of_one_look_at_the_state() {
    let world = World::new().await;
    let request = Request::builder().method("POST").uri("/swarms?bot_ids=false");
    let answer = world.send(request.body(Body::from(r#"{"count":60000}"#)).unwrap()).await;
    let swarm = id_of(&made(&answer));
    let request = Request::builder().uri(format!("/swarms/{swarm}")).body(Body::empty()).unwrap();
    let response = world.router.clone().oneshot(request).await.unwrap();
    assert!(response.headers().get("content-length").is_none(), "its length is not known before");
    // The answer has begun; what happens from here on is none of its business.
    world.patch(&format!("/swarms/{swarm}?bot_ids=false"), r#"{"count":7}"#).await.ok();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let shown: Value = serde_json::from_slice(&body).unwrap();
    let ids = shown["bot_ids"].as_array().unwrap();
    assert_eq!((ids.len(), &shown["bot_count"]), (50_000, &json!(50_000)));
    let distinct: std::collections::BTreeSet<_> = ids.iter().map(Value::as_str).collect();
    assert_eq!(distinct.len(), 50_000);
    let last = format!("/bots/{}", ids[49_999].as_str().unwrap());
    assert_eq!(world.get(&last).await.status, StatusCode::NOT_FOUND);
    world.get(&format!("/bots/{}", ids[6].as_str().unwrap())).await.ok();
}

#[tokio::test]
async fn swarms_are_scaled_and_removed_and_bots_are() {
    let world = World::new().await;
    let (swarm, bots) = world.swarm(3).await;
    let path = format!("/swarms/{swarm}");
    let more = world.patch(&path, r#"{"count":5}"#).await.ok();
    assert_eq!(more["bot_ids"].as_array().unwrap()[..3], json!(bots).as_array().unwrap()[..]);
    let fewer = world.patch(&path, r#"{"count":1}"#).await.ok();
    assert_eq!(fewer["bot_ids"], json!([bots[0]]));
    assert_eq!(world.patch(&path, r#"{"count":0}"#).await.ok()["bot_ids"], json!([]));
    for body in ["{}", r#"{"count":-1}"#, r#"{"count":"1"}"#, ""] {
        assert_eq!(world.patch(&path, body).await.status, StatusCode::BAD_REQUEST, "{body}");
    }
    let gone = world.delete(&path).await.ok();
    assert_eq!(gone, json!({"id": swarm, "deleted": true}));
    let text = format!("Swarm {swarm} not found");
    refused(&world.delete(&path).await, 404, &text);
    refused(&world.patch(&path, r#"{"count":1}"#).await, 404, &text);
    let bot = world.bot("{}").await;
    world.delete(&format!("/bots/{bot}")).await.ok();
    refused(&world.delete(&format!("/bots/{bot}")).await, 404, &format!("Bot {bot} not found"));
    refused(&world.delete("/bots/none").await, 404, "Bot none not found");
}

/// All rows of a list, page by page.
async fn walk(world: &World, path: &str, name: &str) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("{path}&cursor={cursor}")).await.ok();
        let rows = page[name].as_array().unwrap();
        assert_eq!(page["count"], rows.len());
        all.extend(rows.iter().map(id_of));
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => {
                assert_eq!(page["total"], all.len(), "{path}");
                return all;
            }
        }
    }
}

#[tokio::test]
async fn lists_of_bots_and_swarms_are_walked_by_cursor() {
    let world = World::new().await;
    let single = [world.bot("{}").await, world.bot("{}").await];
    let (first, bots) = world.swarm(3).await;
    let (second, others) = world.swarm(2).await;
    let all = walk(&world, "/bots?limit=2", "bots").await;
    let wanted: Vec<&String> = single.iter().chain(&bots).chain(&others).collect();
    assert_eq!(all.iter().collect::<Vec<_>>(), wanted);
    assert_eq!(walk(&world, &format!("/bots?limit=2&swarm_id={first}"), "bots").await, bots);
    assert_eq!(walk(&world, "/swarms?limit=1", "swarms").await, [first, second]);
    let page = world.get("/bots?limit=2").await.ok();
    let cursor = page["next_cursor"].as_str().unwrap();
    for wrong in [
        "/bots?cursor=7".to_owned(),
        format!("/swarms?cursor={cursor}"),
        "/bots?order=desc".to_owned(),
        "/bots?sort=name".to_owned(),
    ] {
        assert_eq!(world.get(&wrong).await.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    refused(&world.get("/bots?swarm_id=none").await, 404, "Swarm none not found");
}

#[tokio::test]
async fn contract_5_4_a_task_is_found_whatever_it_is() {
    let world = World::new().await;
    refused(&world.get("/task/none").await, 404, "Task not found");
    let body = r#"{"task_id":"t1","task_type":"resize","input_data":{"w":1}}"#;
    world.post("/api/v1/tasks", body).await.ok();
    let task = world.get("/task/t1").await.ok();
    assert_eq!((&task["id"], &task["type"]), (&json!("t1"), &json!("resize")));
    assert_eq!((&task["data"], &task["status"]), (&json!({"w": 1}), &json!("pending")));
    is_time(&task["created_at"]);
    is_time(&task["updated_at"]);
    let bot = world.bot("{}").await;
    let id = world.assign(&bot, r#"{"type":"scan","data":[1]}"#).await;
    let task = world.get(&format!("/task/{id}")).await.ok();
    assert_eq!((&task["type"], &task["data"]), (&json!("scan"), &json!([1])));
    assert_eq!((&task["status"], &task["bot_id"]), (&json!("assigned"), &json!(bot)));
    world.post(&format!("/bots/{bot}/tasks/{id}/complete"), r#"{"result":"ok"}"#).await.ok();
    let task = world.get(&format!("/api/v1/task/{id}")).await.ok();
    assert_eq!((&task["status"], &task["result"]), (&json!("completed"), &json!("ok")));
    let body = r#"{"tasks":[{"type":"image_generation","params":{"p":1}},
        {"type":"x","params":[123456789012345678901234567890, 1.10]}]}"#;
    let answer = world.post("/orchestrate?async=true", body).await;
    let id = answer.json()["workflow_id"].as_str().unwrap().to_owned();
    let answer = world.get(&format!("/task/{id}")).await;
    assert!(answer.text.contains("[123456789012345678901234567890, 1.10]"), "{}", answer.text);
    let mut task = answer.ok();
    task["data"]["tasks"].as_array_mut().unwrap().truncate(1);
    assert_eq!((&task["id"], &task["type"]), (&json!(id), &json!("workflow")));
    let data = json!({"priority": "normal",
        "tasks": [{"type": "image_generation", "params": {"p": 1}}]});
    assert_eq!((&task["data"], &task["status"]), (&data, &json!("running")));
    assert!(task["result"].is_null());
}

#[tokio::test]
async fn a_request_that_is_sent_again_makes_nothing_new() {
    let world = World::new().await;
    let first = made(&world.post_keyed("/bots", "k1", "{}").await);
    let again = made(&world.post_keyed("/bots", "k1", "{}").await);
    assert_eq!(first, again);
    let first = made(&world.post_keyed("/swarms", "k2", "{}").await);
    assert_eq!(made(&world.post_keyed("/swarms", "k2", "{}").await), first);
    let path = format!("/swarms/{}/tasks", id_of(&first));
    let given = made(&world.post_keyed(&path, "k3", "{}").await);
    assert_eq!(made(&world.post_keyed(&path, "k3", "{}").await)["wave"], given["wave"]);
    assert_eq!(world.get("/bots/stats").await.ok()["total_created"], 101);
    let reused = world.post_keyed("/swarms", "k1", "{}").await;
    assert_eq!(reused.json()["code"], "IDEMPOTENCY_KEY_REUSED");
    let request = world.get("/api/v1/requests/k2").await.ok();
    assert_eq!(request["state"], "committed");
    let outcome = &request["outcome"]["outcome"]["swarm_created"];
    assert_eq!((&outcome["swarm"], &outcome["count"]), (&first["id"], &json!(100)));
}

#[tokio::test]
async fn work_beyond_what_may_be_open_is_refused_for_now() {
    let world = World::new().await;
    world.configure("bots.max_open_assignments", json!(2)).await;
    let (swarm, bots) = world.swarm(2).await;
    made(&world.post(&format!("/swarms/{swarm}/tasks"), "{}").await);
    let answer = world.post(&format!("/bots/{}/tasks", bots[0]), "{}").await;
    refused(&answer, 429, "2 assignments are open already");
    assert_eq!(answer.header("retry-after"), "1");
}

/// A list shows attempt 0 of what nobody has tried, and whoever said so was told that it is over.
#[tokio::test]
async fn attempt_0_of_a_list_is_no_attempt() {
    let world = World::new().await;
    let bot = world.bot("{}").await;
    let path = format!("/bots/{bot}/tasks");
    for batch in [false, true] {
        let task = world.assign(&bot, "{}").await;
        let listed = &world.get(&format!("{path}?status=waiting")).await.ok()["tasks"][0];
        assert_eq!((&listed["task_id"], &listed["attempt"]), (&json!(task), &json!(0)));
        if batch {
            let items = json!({"items": [{"task_id": task, "attempt": listed["attempt"]}]});
            let done = world.post("/assignments/complete", &items.to_string()).await.ok();
            assert_eq!(done["verdicts"], json!(["accepted"]));
        } else {
            let done = world.post(&format!("{path}/{task}/complete"), r#"{"attempt":0}"#).await;
            assert_eq!(done.ok()["status"], "completed");
        }
    }
}
