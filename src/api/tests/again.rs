//! Requests that are sent again under their `Idempotency-Key` because the first answer was lost: they
//! are answered as they were then, whatever the first one has changed.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use super::auth::ROOT;
use super::control::{dead_letter, node};
use super::nanoos::campaign;
use super::{Answer, World, take};
use crate::clock;
use crate::model::{RequestId, TaskId};
use crate::state::Command;

/// Sends a request twice under one key; gives both answers.
async fn twice(world: &World, method: &str, path: &str, body: &str) -> [Answer; 2] {
    let key = format!("{method} {path} {body}");
    let send = async || {
        let request = Request::builder().method(method).uri(path).header("idempotency-key", &key);
        let request = request.header(ROOT.0, ROOT.1);
        world.send(request.body(Body::from(body.to_owned())).unwrap()).await
    };
    [send().await, send().await]
}

/// What a refusal says, but for the time of day.
fn refusal(answer: &Answer) -> Value {
    let mut body = answer.json();
    take(&mut body, "/timestamp");
    body
}

/// As [`twice`]; both answers are good and the same.
async fn same(world: &World, method: &str, path: &str, body: &str) -> String {
    let [first, again] = twice(world, method, path, body).await;
    assert!(first.status.is_success(), "{method} {path}: {}", first.text);
    assert_eq!((again.status, &again.text), (first.status, &first.text), "{method} {path}");
    first.text
}

#[tokio::test]
async fn dead_letters_that_are_replayed_or_purged_again_were_dead_letters() {
    let world = World::new().await;
    world.register("n1").await;
    for task_id in ["a", "b", "c", "d", "e"] {
        dead_letter(&world, task_id).await;
    }
    let accepted = |text: &str| {
        let body: Value = serde_json::from_str(text).unwrap();
        body["accepted"].as_u64().unwrap()
    };
    let path = "/api/v1/dead-letters";
    assert_eq!(accepted(&same(&world, "POST", &format!("{path}/a/replay"), "").await), 1);
    assert_eq!(accepted(&same(&world, "DELETE", &format!("{path}/b"), "").await), 1);
    let some = r#"{"task_ids":["c"]}"#;
    assert_eq!(accepted(&same(&world, "POST", &format!("{path}/replay"), some).await), 1);
    let all = r#"{"all":true}"#;
    assert_eq!(accepted(&same(&world, "POST", &format!("{path}/purge"), all).await), 2);
    let none = twice(&world, "POST", &format!("{path}/replay"), all).await;
    assert!(none.iter().all(|answer| accepted(&answer.text) == 0), "{none:?}");
}

/// Nothing was written down of them, and so the dead letters that came later were taken.
#[tokio::test]
async fn a_request_for_all_dead_letters_that_found_none_takes_none_that_came_since() {
    let world = World::new().await;
    world.register("n1").await;
    let send = async |word: &str| {
        let path = format!("/api/v1/dead-letters/{word}");
        world.post_keyed(&path, word, r#"{"all":true}"#).await.ok()
    };
    for remaining in [0, 1, 2] {
        for word in ["replay", "purge"] {
            let expected =
                json!({"success": true, "accepted": 0, "skipped": 0, "remaining": remaining});
            assert_eq!(send(word).await, expected, "{word}");
        }
        dead_letter(&world, &format!("t{remaining}")).await;
    }
}

#[tokio::test]
async fn a_refused_dead_letter_is_refused_again() {
    let world = World::new().await;
    world.submit("open").await;
    for (path, status) in [("open", 409), ("nope", 404)] {
        let path = format!("/api/v1/dead-letters/{path}");
        for answer in twice(&world, "DELETE", &path, "").await {
            assert_eq!(answer.status, status, "{path}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn what_is_a_dead_letter_by_now_was_none_when_it_was_refused() {
    let world = World::new().await;
    world.register("n1").await;
    let replay = async |task_id: &str| {
        let path = format!("/api/v1/dead-letters/{task_id}/replay");
        world.post_keyed(&path, task_id, "").await
    };
    let first = [replay("late").await, replay("open").await];
    world.submit("open").await;
    let open = world.post_keyed("/api/v1/dead-letters/open/replay", "open too", "").await;
    dead_letter(&world, "late").await;
    world.call("DELETE", "/api/v1/tasks/open", "").await.ok();
    world
        .commit(Command::RetireTasks {
            epoch: world.epoch,
            task_ids: vec![TaskId::trusted("open")],
        })
        .await;
    assert_eq!(world.get("/api/v1/tasks/open").await.status, 404);
    let again = [replay("late").await, replay("open").await];
    for (first, again) in first.iter().zip(&again) {
        assert_eq!((first.status.as_u16(), refusal(first)), (404, refusal(again)));
    }
    let later = world.post_keyed("/api/v1/dead-letters/open/replay", "open too", "").await;
    assert_eq!((open.status.as_u16(), refusal(&later)), (409, refusal(&open)), "it was open then");
}

#[tokio::test]
async fn a_report_that_was_refused_is_refused_again_whatever_the_task_is_by_now() {
    let world = World::new().await;
    world.register("n1").await;
    world.submit("t").await;
    let report =
        async |key: &str, body: &str| world.post_keyed("/api/v1/tasks/t/result", key, body).await;
    let early = r#"{"status":"completed","result":{}}"#;
    let wrong = r#"{"status":"completed","result":{},"attempt":2}"#;
    let first = [report("early", early).await, report("wrong", wrong).await];
    let codes = first.iter().map(|answer| answer.json()["code"].clone());
    assert!(codes.eq(["STALE_REPORT", "STALE_ATTEMPT"]), "{first:?}");
    world.place("t", "n1").await;
    report("good", early).await.ok();
    for (key, body, first) in [("early", early, &first[0]), ("wrong", wrong, &first[1])] {
        let again = report(key, body).await;
        assert_eq!(refusal(&again), refusal(first));
    }
    let late = report("late", early).await.ok();
    assert_eq!(late["duplicate"], true);
    let retire = Command::RetireTasks { epoch: world.epoch, task_ids: vec![TaskId::trusted("t")] };
    world.commit(retire).await;
    assert_eq!(report("late", early).await.ok(), late, "it is gone by now");
}

#[tokio::test]
async fn a_stop_that_is_sent_again_has_stopped_it() {
    let world = World::new().await;
    for (word, message) in [("stop", "Orchestrator stopped"), ("start", "Orchestrator started")] {
        let text = same(&world, "POST", &format!("/api/v1/control/{word}"), "").await;
        assert!(text.contains(message), "{text}");
    }
}

fn is_paused(world: &World) -> bool {
    world.cluster.view().read(|state| state.policy().paused)
}

/// Stops under one key and has the nodes shut down, which is answered with a message; gives how many
/// were told.
async fn shut_down(world: &World, message: &str) -> u64 {
    let body = r#"{"shutdown_nodes":true}"#;
    let answer = world.post_keyed("/api/v1/control/stop", "stop", body).await.ok();
    assert_eq!(answer["message"], message);
    answer["nodes_notified"].as_u64().unwrap()
}

#[tokio::test]
async fn a_stop_that_is_sent_again_shuts_no_node_down_that_was_started_since() {
    let world = World::new().await;
    let told = node(&world).await;
    let stop = async || shut_down(&world, "Orchestrator stopped successfully").await;
    assert_eq!((stop().await, told.lock().len()), (1, 1));
    assert_eq!((stop().await, told.lock().len()), (1, 2), "the first may not have come so far");
    world.post("/api/v1/control/start", "").await.ok();
    assert_eq!((stop().await, told.lock().len()), (0, 2));
    assert!(!is_paused(&world), "nor is it stopped again");
    world.post("/api/v1/control/stop", "").await.ok();
    assert_eq!((stop().await, told.lock().len()), (0, 2), "this was another stop");
}

/// Nothing was written down of it: sent again after a start it stopped all, and shut the nodes down.
#[tokio::test]
async fn a_stop_that_changed_nothing_undoes_no_start_when_it_is_sent_again() {
    let world = World::new().await;
    let told = node(&world).await;
    world.post("/api/v1/control/stop", "").await.ok();
    let stop = async || shut_down(&world, "Orchestrator not running").await;
    assert_eq!((stop().await, told.lock().len()), (1, 1));
    assert_eq!((stop().await, told.lock().len()), (1, 2), "the first may not have come so far");
    world.put("/api/v1/config/tasks.aging_seconds", r#"{"value":1}"#).await.ok();
    assert_eq!((stop().await, told.lock().len()), (1, 3), "it was paused all the time");
    world.post("/api/v1/control/start", "").await.ok();
    assert_eq!((stop().await, told.lock().len()), (0, 3));
    assert!(!is_paused(&world));
}

#[tokio::test]
async fn a_start_that_changed_nothing_undoes_no_stop_when_it_is_sent_again() {
    let world = World::new().await;
    let text = same(&world, "POST", "/api/v1/control/start", "").await;
    assert!(text.contains("Orchestrator already running"), "{text}");
    world.post("/api/v1/control/stop", "").await.ok();
    assert_eq!(same(&world, "POST", "/api/v1/control/start", "").await, text);
    assert!(is_paused(&world));
}

/// It looked for its first try before it waited to be written, and not after.
#[tokio::test]
async fn a_stop_that_waits_while_its_first_try_and_a_start_are_written_tells_no_node() {
    let world = World::new().await;
    let told = node(&world).await;
    let set = async |request_id: RequestId, paused: bool| {
        let command = Command::SetPaused { paused };
        world.cluster.propose(request_id, "", command).await.unwrap().index
    };
    for moment in 0..40 {
        let key = format!("stop {moment}");
        let others = async {
            for _ in 0..moment {
                tokio::task::yield_now().await;
            }
            let first = set(RequestId::from_key(&key), true);
            tokio::join!(first, set(clock::mint_request_id(), false)).1
        };
        let body = r#"{"shutdown_nodes":true}"#;
        let stop = world.post_keyed("/api/v1/control/stop", &key, body);
        let (started, stop) = tokio::join!(others, stop);
        let index: u64 = stop.header("x-quorate-index").parse().unwrap();
        let notified = stop.ok()["nodes_notified"].clone();
        assert!(index < started || notified == 0, "{moment}: {index} {started} {notified}");
        assert!(!is_paused(&world));
    }
    assert!(told.lock().len() < 40, "{}", told.lock().len());
}

#[tokio::test]
async fn keys_and_accounts_that_are_deleted_again_were_there() {
    let world = World::of_roles().await;
    let path = "/api/v1/auth/api-keys";
    let made = world.ask("POST", path, &[ROOT], r#"{"name":"board"}"#).await.ok();
    let hash = made["key"]["hash"].as_str().unwrap();
    same(&world, "DELETE", &format!("{path}/{hash}"), "").await;
    let ada = json!({"username": "ada", "email": "ada@example.com", "password": "correct horse"});
    let made = world.ask("POST", "/auth/register", &[ROOT], &ada.to_string()).await;
    assert_eq!(made.status, 201, "{}", made.text);
    same(&world, "DELETE", "/auth/users/ada", "").await;
}

#[tokio::test]
async fn a_change_of_a_campaign_is_made_once() {
    let world = World::new().await;
    let id = campaign(&world, json!({"name": "c"})).await;
    let path = format!("/api/v1/campaigns/{id}");
    let body = r#"{"config":{"max_iterations":7}}"#;
    let [first, again] = twice(&world, "PATCH", &path, body).await;
    assert_eq!((first.status, again.status), (StatusCode::OK, StatusCode::OK));
    assert_eq!(again.json()["config"]["max_iterations"], 7);
    // It has changed since: what is sent again is not merged with what it is now.
    world.call("PATCH", &path, r#"{"config":{"max_iterations":9}}"#).await.ok();
    let late = twice(&world, "PATCH", &path, body).await;
    assert!(late.iter().all(|answer| answer.json()["config"]["max_iterations"] == 9), "{late:?}");
}

#[tokio::test]
async fn a_change_of_the_configuration_that_would_be_refused_by_now_was_made() {
    let world = World::of_roles().await;
    let hook = r#"{"alerts":{"webhook":{"enabled":true,"url":"http://10.1.1.1/hook"}}}"#;
    let put = async || {
        let request = Request::builder().method("PUT").uri("/api/v1/config");
        let request = request.header("idempotency-key", "hook").header(ROOT.0, ROOT.1);
        world.send(request.body(Body::from(hook)).unwrap()).await
    };
    let first = put().await.ok();
    let later = r#"{"alerts":{"webhook":{"enabled":false}},
        "security":{"outward":{"allowed_hosts":["10.2.0.0/16"]}}}"#;
    world.ask("PUT", "/api/v1/config", &[ROOT], later).await.ok();
    let again = put().await.ok();
    assert_eq!(again["success"], first["success"]);
    let shown = world.ask("GET", "/api/v1/config", &[ROOT], "").await.ok();
    assert_eq!(shown["config"]["alerts"]["webhook"]["enabled"], false, "it is not made again");
}

const PIPELINE: &str = r#"{"mode":"sequential","estimated_completion_ms":4200,
    "steps":[{"name":"a","agent_type":"x"}]}"#;

#[tokio::test]
async fn a_task_whose_pipeline_is_gone_by_now_was_accepted() {
    let world = World::new().await;
    world.put("/api/v1/pipelines/mine", PIPELINE).await.ok();
    let body = r#"{"task_id":"t","task_type":"mine","inputs":[{"type":"text","data":"a"}]}"#;
    let first = world.post_keyed("/api/v1/tasks", "k", body).await.ok();
    world.delete("/api/v1/pipelines/mine").await.ok();
    let again = world.post_keyed("/api/v1/tasks", "k", body).await.ok();
    assert_eq!(again, first);
    assert_eq!(first["estimated_completion_ms"], 4200);
    let other = world.post_keyed("/api/v1/tasks", "other", body).await;
    assert_eq!(other.status, StatusCode::BAD_REQUEST, "{}", other.text);
}

#[tokio::test]
async fn a_batch_whose_pipeline_or_host_is_gone_by_now_was_accepted() {
    let world = World::new().await;
    let hosts = async |hosts: &str| {
        let body = format!(r#"{{"security":{{"outward":{{"allowed_hosts":["{hosts}"]}}}}}}"#);
        world.put("/api/v1/config", &body).await.ok();
    };
    world.put("/api/v1/pipelines/mine", PIPELINE).await.ok();
    hosts("10.1.0.0/16").await;
    let of_pipeline = json!({"task_type": "mine", "inputs": [{"type": "text", "data": "a"}]});
    let named = json!({"task_type": "t", "task_id": "mine-1"});
    let telling = json!({"task_type": "t", "callback_url": "http://10.1.1.1/"});
    let batches = [
        json!({"tasks": [of_pipeline, named]}),
        json!({"tasks": [telling, named, {"task_type": "t"}]}),
        json!({"tasks": [of_pipeline]}),
        json!({"tasks": [telling]}),
    ];
    let send = async |key: &str, batch: &Value| {
        world.post_keyed("/api/v1/tasks/batch", key, &batch.to_string()).await
    };
    let mut first = Vec::new();
    for (place, batch) in batches.iter().enumerate() {
        first.push(send(&format!("k{place}"), batch).await.ok());
    }
    assert_eq!((&first[1]["created"], &first[1]["duplicates"]), (&json!(2), &json!(1)));
    world.delete("/api/v1/pipelines/mine").await.ok();
    hosts("10.2.0.0/16").await;
    for (place, batch) in batches.iter().enumerate() {
        assert_eq!(send(&format!("k{place}"), batch).await.ok(), first[place]);
        let new = send(&format!("new{place}"), batch).await;
        assert_eq!(new.status, StatusCode::BAD_REQUEST, "{}", new.text);
    }
    let other = send("k0", &batches[2]).await;
    assert_eq!(other.json()["code"], "IDEMPOTENCY_KEY_REUSED", "{}", other.text);
}

/// A swarm was answered to be gone, and was not: its request had the name of one about a bot.
#[tokio::test]
async fn a_key_is_of_one_method_path_and_body() {
    let world = World::new().await;
    let send =
        async |method: &str, path: &str, body: &str| world.keyed(method, path, "k", body).await;
    let bot =
        world.post("/bots", r#"{"name":"b"}"#).await.json()["id"].as_str().unwrap().to_owned();
    let made = world.post("/swarms", r#"{"count":2}"#).await.json();
    let swarm = made["id"].as_str().unwrap().to_owned();
    let first = send("DELETE", &format!("/bots/{bot}"), "").await;
    let again = send("DELETE", &format!("/bots/{bot}"), "").await;
    assert_eq!((first.status, &first.text), (StatusCode::OK, &again.text));
    let tasks = format!("/swarms/{swarm}/tasks");
    for (method, path, body) in [
        ("DELETE", format!("/swarms/{swarm}"), ""),
        ("DELETE", format!("/bots/{bot}"), "{}"),
        ("PATCH", format!("/swarms/{swarm}"), r#"{"count":1}"#),
        ("POST", tasks.clone(), r#"{"type":"t"}"#),
        ("POST", "/bots/leases".to_owned(), r#"{"swarms":["x"],"holder":"h"}"#),
    ] {
        let other = send(method, &path, body).await;
        let code = other.json()["code"].clone();
        let wanted =
            if path == "/bots/leases" { "SWARM_NOT_FOUND" } else { "IDEMPOTENCY_KEY_REUSED" };
        assert_eq!(code, wanted, "{method} {path}: {}", other.text);
    }
    assert_eq!(world.get(&format!("/swarms/{swarm}")).await.ok()["bot_count"], 2);
    // Of one path, bodies tell requests apart; as many as are sent under names of their own count.
    let assign = async |key: &str, kind: &str| {
        world.post_keyed(&tasks, key, &json!({"type": kind}).to_string()).await
    };
    assert_eq!(assign("a", "x").await.text, assign("a", "x").await.text);
    assert_eq!(assign("a", "y").await.json()["code"], "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(assign("b", "y").await.status, StatusCode::CREATED);
    assert_eq!(world.get(&format!("/swarms/{swarm}")).await.ok()["waiting_tasks"], 4);
}
