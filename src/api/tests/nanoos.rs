//! Family N's doors, by the contract's paragraphs.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, World};
use crate::model::{CampaignId, NodeId, TaskId};
use crate::state::{Assignment, Command, candidate_job};

pub(super) const PREFIXES: [&str; 3] = ["", "/api/v1", "/api"];

#[track_caller]
pub(super) fn refused(answer: &Answer, status: StatusCode, kind: &str, message: &str) {
    assert_eq!(answer.status, status, "{}", answer.text);
    let body = answer.json();
    assert_eq!(body["error"]["type"], kind, "{body}");
    assert_eq!(body["error"]["message"], message, "{body}");
    assert!(body["detail"].is_string(), "{body}");
}

pub(super) async fn campaign(world: &World, body: Value) -> String {
    let answer = world.post("/api/v1/campaigns", &body.to_string()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// Gives a candidate's job a result, as a node does.
pub(super) async fn finish(world: &World, id: &str, (index, place): (u32, u32), result: &str) {
    let task_id = candidate_job(&CampaignId::trusted(id), index, place);
    let seen_revision =
        world.cluster.view().read(|state| state.open_task(&task_id).unwrap().revision);
    let assignment =
        Assignment { task_id: task_id.clone(), seen_revision, node_id: NodeId::trusted("n") };
    let assignments = vec![assignment];
    world.commit(Command::AssignTasks { epoch: world.epoch, assignments }).await;
    let body = format!(r#"{{"success":true,"result":{result}}}"#);
    world.post(&format!("/api/v1/tasks/{task_id}/result"), &body).await.ok();
}

#[tokio::test]
async fn contract_3_3_the_default_orchestrator_is_there_under_three_prefixes() {
    let world = World::new().await;
    let mut seen = Vec::new();
    for prefix in PREFIXES {
        let state = world.get(&format!("{prefix}/orchestrator/state")).await.ok();
        assert_eq!((&state["name"], &state["mode"]), (&json!("default"), &json!("MANUAL")));
        assert_eq!(state["description"], "NANO-OS AGI Control Plane");
        assert_eq!((&state["is_active"], &state["run_count"]), (&json!(true), &json!(0)));
        let wanted = json!({
            "max_simultaneous_simulations": 10, "max_simultaneous_experiments": 5,
            "training_frequency_hours": 24, "min_new_samples_for_retrain": 100,
            "experiment_budget_per_campaign": 50, "simulation_budget_per_campaign": 1000,
            "active_learning_threshold": 0.8, "bo_acquisition_function": "ei",
            "max_iterations_per_run": 3, "experiment_trigger_score_threshold": 0.9,
            "campaign_priorities": {}});
        assert_eq!(state["config"], wanted);
        for key in
            ["last_run_at", "last_training_at", "last_experiment_at", "error_message", "stats"]
        {
            assert!(state[key].is_null(), "{key}");
        }
        seen.push(state["id"].clone());
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "one and the same");
    let made = world.get("/orchestrator/state?name=other").await.ok();
    assert_eq!(made["name"], "other");
    assert_ne!(made["id"], seen[0]);
}

#[tokio::test]
async fn contract_3_3_config_is_merged_and_its_ranges_are_kept() {
    let world = World::new().await;
    let seed = r#"{"max_simultaneous_simulations":20,"training_frequency_hours":12.5,"active_learning_threshold":0.85,
        "max_iterations_per_run":null,"mode":"scheduled","schedule":{"cron":"0 */2 * * *","timezone":"Europe/Berlin","overlap":"queue"},
        "budgets":{"tokens":{"limit":1000,"soft":900}},"per_job":{"tokens":5}}"#;
    let state = world.post("/api/orchestrator/config", seed).await.ok();
    let config = &state["config"];
    assert_eq!(config["max_simultaneous_simulations"], 20);
    assert_eq!(config["training_frequency_hours"], 12.5);
    assert_eq!(config["active_learning_threshold"], 0.85);
    assert_eq!(config["max_iterations_per_run"], 3, "null is ignored");
    assert_eq!(state["mode"], "SCHEDULED");
    assert_eq!(state["schedule"]["cron"], "0 */2 * * *");
    assert_eq!(state["schedule"]["timezone"], "Europe/Berlin");
    assert_eq!(
        (&state["schedule"]["overlap"], &state["schedule"]["status"]),
        (&json!("queue"), &json!("ok"))
    );
    assert_eq!(state["budgets"]["tokens"]["limit"], 1000);
    assert_eq!(state["per_job"], json!({"tokens": 5}));
    let merged = world
        .post("/api/orchestrator/config", r#"{"schedule":{"overlap":"forbid","catch_up":"all"}}"#)
        .await
        .ok();
    let schedule = &merged["schedule"];
    assert_eq!((&schedule["overlap"], &schedule["catch_up"]), (&json!("forbid"), &json!("all")));
    assert_eq!(
        (&schedule["cron"], &schedule["timezone"]),
        (&json!("0 */2 * * *"), &json!("Europe/Berlin")),
        "what is not sent stays"
    );
    let zone = r#"{"schedule":{"timezone":"Asia/Tokyo"}}"#;
    let merged = world.post("/api/orchestrator/config", zone).await.ok();
    assert_eq!(merged["schedule"]["timezone"], "Asia/Tokyo");
    assert_eq!(merged["schedule"]["overlap"], "forbid");
    for (body, field) in [
        (r#"{"max_simultaneous_simulations":101}"#, "body.max_simultaneous_simulations"),
        (r#"{"max_simultaneous_experiments":0}"#, "body.max_simultaneous_experiments"),
        (r#"{"training_frequency_hours":0.5}"#, "body.training_frequency_hours"),
        (r#"{"active_learning_threshold":1.5}"#, "body.active_learning_threshold"),
        (r#"{"bo_acquisition_function":"best"}"#, "body.bo_acquisition_function"),
        (r#"{"max_iterations_per_run":"many"}"#, "body.max_iterations_per_run"),
        (r#"{"mode":"SOMETIMES"}"#, "body.mode"),
        (r#"{"schedule":{"cron":"never"}}"#, "body.schedule.cron"),
        (r#"{"schedule":{"timezone":"Nowhere/At_All"}}"#, "body.schedule.timezone"),
        (r#"{"schedule":{"interval_seconds":"often"}}"#, "body.schedule.interval_seconds"),
        (r#"{"schedule":{"interval_seconds":60,"timezone":"UTC"}}"#, "body.schedule.timezone"),
        (r#"{"task":{"task_type":"x","timeout":-1}}"#, "body.task.timeout"),
        (r#"{"budgets":{"luck":1}}"#, "body.budgets.luck"),
    ] {
        let answer = world.post("/orchestrator/config", body).await;
        refused(&answer, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
        let fields = answer.json()["error"]["details"]["fields"].clone();
        assert_eq!(fields[0]["field"], field, "{body}");
    }
    // Of an interval a zone says nothing: it was dropped, and answered as if it were set.
    world.post("/orchestrator/config", r#"{"schedule":{"interval_seconds":60}}"#).await.ok();
    let lone = world.post("/orchestrator/config", zone).await;
    assert_eq!(lone.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", lone.text);
    assert!(lone.text.contains("only a cron expression has one"), "{}", lone.text);
    let unknown = world.post("/orchestrator/config?name=nobody", "{}").await;
    refused(&unknown, StatusCode::NOT_FOUND, "NotFoundError", "Orchestrator 'nobody' not found");
}

#[tokio::test]
async fn contract_3_3_run_once_answers_with_the_run() {
    let world = World::new().await;
    world.play_steps();
    let run = world.post("/api/v1/orchestrator/run_once", "").await.ok();
    assert_eq!((&run["success"], &run["triggered_by"]), (&json!(true), &json!("manual")));
    let decisions = run["actions"]["decisions"].as_array().unwrap();
    assert_eq!(decisions[0]["type"], "campaign_advancement");
    assert_eq!(decisions[0]["reason"], "no active campaigns");
    assert!(run["actions"]["campaigns_advanced"].as_array().unwrap().is_empty());
    assert!(run["stats_after"]["models_ready_for_retrain"].is_array());
    assert!(run["duration_seconds"].is_f64() && run["completed_at"].is_string());
    let body = r#"{"trigger_context":{"why":"test"}}"#;
    let second = world.post("/orchestrator/run_once", body).await.ok();
    assert_eq!(second["trigger_context"], json!({"why": "test"}));
    let runs = world.get("/api/orchestrator/runs?limit=1").await.ok();
    assert_eq!(runs.as_array().unwrap().len(), 1, "a bare array");
    assert_eq!(runs[0]["id"], second["id"], "newest first");
    let older = world.get("/api/orchestrator/runs?offset=1").await.ok();
    assert_eq!(older[0]["id"], run["id"]);
    let state = world.get("/orchestrator/state").await.ok();
    assert_eq!(state["run_count"], 2);
    assert!(state["stats"]["active_campaigns"] == 0 && state["last_run_at"].is_string());
    let unknown = world.get("/orchestrator/runs?name=nobody").await;
    refused(&unknown, StatusCode::NOT_FOUND, "NotFoundError", "Orchestrator 'nobody' not found");
}

#[tokio::test]
async fn contract_3_3_an_inactive_or_paused_orchestrator_runs_nothing() {
    let world = World::new().await;
    let off = world.post("/orchestrator/deactivate", "").await.ok();
    assert_eq!(off["is_active"], false);
    let text = "Orchestrator 'default' is not active";
    let answer = world.post("/orchestrator/run_once", "{}").await;
    refused(&answer, StatusCode::BAD_REQUEST, "HTTPException", text);
    world.post("/orchestrator/activate", "").await.ok();
    world.post("/orchestrator/config", r#"{"mode":"PAUSED"}"#).await.ok();
    let answer = world.post("/orchestrator/run_once", "{}").await;
    refused(&answer, StatusCode::BAD_REQUEST, "HTTPException", text);
    let unknown = world.post("/orchestrator/activate?name=nobody", "").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn contract_3_6_a_campaign_from_its_creation_to_its_summary() {
    let world = World::new().await;
    world.post("/api/v1/nodes/n/register", r#"{"host":"h","capacity":50}"#).await.ok();
    world.play_steps();
    let config = json!({"max_iterations": 2, "candidates_per_iteration": 2, "target_properties": {"gap": 1.1}});
    let id = campaign(&world, json!({"name": "gap", "config": config, "metadata": {"a": 1}})).await;
    let fresh = world.get(&format!("/campaigns/{id}")).await.ok();
    assert_eq!((&fresh["status"], &fresh["current_iteration"]), (&json!("CREATED"), &json!(0)));
    let mut whole = config.clone();
    whole["evaluation_strategy"] = json!("ml_prediction");
    whole["generation_strategy"] = json!("random");
    whole["constraints"] = json!({});
    assert_eq!((&fresh["config"], &fresh["metadata"]), (&whole, &json!({"a": 1})));
    assert!(fresh["best_score"].is_null() && fresh["started_at"].is_null());
    let early = world.post(&format!("/campaigns/{id}/step"), "{}").await;
    let text = "Campaign cannot be advanced while it is CREATED";
    refused(&early, StatusCode::BAD_REQUEST, "HTTPException", text);
    let begun = world.post(&format!("/api/campaigns/{id}/start"), "").await.ok();
    assert_eq!(begun["status"], "RUNNING");
    let run = world.post("/orchestrator/run_once", "").await.ok();
    assert_eq!(run["actions"]["campaigns_advanced"], json!([id]));
    assert_eq!(run["actions"]["simulations_launched"], 2);
    let decision = &run["actions"]["decisions"][0];
    assert_eq!(
        (&decision["iteration"], &decision["simulations_to_launch"]),
        (&json!(1), &json!(2))
    );
    let task =
        world.get(&format!("/api/v1/tasks/job.{id}.0.1?include=input")).await.ok()["task"].clone();
    assert_eq!(task["task_type"], "ml_prediction");
    assert_eq!(task["input_data"]["target_properties"], json!({"gap": 1.1}));
    assert_eq!(task["input_data"]["structure_id"], format!("{id}.0.1"));
    finish(&world, &id, (0, 0), r#"{"score":0.25}"#).await;
    finish(&world, &id, (0, 1), r#"{"score":0.75,"parameters":{"x":2}}"#).await;
    let step = world.post(&format!("/campaigns/{id}/step"), r#"{"num_iterations":9}"#).await.ok();
    assert_eq!(step["iterations_queued"], 1, "what is left");
    while world.get(&format!("/campaigns/{id}")).await.ok()["current_iteration"] != 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    finish(&world, &id, (1, 0), r#"{"score":0.5}"#).await;
    finish(&world, &id, (1, 1), r#"{"score":1.0}"#).await;
    let ended = world.get(&format!("/campaigns/{id}")).await.ok();
    assert_eq!((&ended["status"], &ended["best_score"]), (&json!("COMPLETED"), &json!(1.0)));
    assert_eq!(ended["best_structure_id"], format!("{id}.1.1"));
    let summary = world.get(&format!("/api/v1/campaigns/{id}/summary")).await.ok();
    assert_eq!(summary["score_history"], json!([0.75, 1.0]));
    assert_eq!(summary["mean_scores"], json!([0.5, 0.75]));
    assert_eq!(summary["total_structures_evaluated"], 4);
    let iterations = world.get(&format!("/campaigns/{id}/iterations")).await.ok();
    assert_eq!(iterations[0]["best_structure_id_this_iter"], format!("{id}.0.1"));
    assert_eq!(iterations[0]["metadata"]["results"][1]["parameters"], json!({"x": 2}));
    let second = world.get(&format!("/api/v1/campaigns/{id}/iterations/1")).await.ok();
    assert_eq!(second, iterations[1], "as the list has it");
    assert_eq!(
        (&second["iteration_index"], &second["strategy_used"]),
        (&json!(1), &json!("random"))
    );
    assert_eq!(second["created_structures"], json!([format!("{id}.1.0"), format!("{id}.1.1")]));
    for missing in ["2", "-1", "x"] {
        let answer = world.get(&format!("/campaigns/{id}/iterations/{missing}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{missing}: {}", answer.text);
    }
    let log = world.get(&format!("/agent/campaigns/{id}/log")).await.ok();
    assert_eq!(log["n_entries"], log["entries"].as_array().unwrap().len());
    let stats = world.get("/orchestrator/stats").await.ok();
    assert_eq!(
        (&stats["total_structures"], &stats["completed_jobs_last_24h"]),
        (&json!(4), &json!(4))
    );
}

#[tokio::test]
async fn contract_3_6_campaigns_move_only_where_they_may() {
    let world = World::new().await;
    let id = campaign(&world, json!({"name": "c"})).await;
    for (what, status) in
        [("pause", 400), ("resume", 400), ("start", 200), ("start", 400), ("pause", 200)]
    {
        let answer = world.post(&format!("/campaigns/{id}/{what}"), "").await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text);
    }
    let patch = r#"{"name":"d","config":{"max_iterations":7}}"#;
    let patched = world.call("PATCH", &format!("/campaigns/{id}"), patch).await.ok();
    assert_eq!((&patched["name"], &patched["max_iterations"]), (&json!("d"), &json!(7)));
    world.post(&format!("/campaigns/{id}/resume"), "").await.ok();
    let running = world.call("PATCH", &format!("/campaigns/{id}"), patch).await;
    assert_eq!(running.status, StatusCode::BAD_REQUEST);
    world.post(&format!("/campaigns/{id}/cancel"), "").await.ok();
    assert_eq!(world.post(&format!("/campaigns/{id}/cancel"), "").await.status, 400);
    let listed = world.get("/api/campaigns?status=CANCELLED&page=1&page_size=5").await.ok();
    assert_eq!(
        (&listed["total"], &listed["page"], &listed["page_size"]),
        (&json!(1), &json!(1), &json!(5))
    );
    assert_eq!(world.get("/campaigns?status=RUNNING").await.ok()["total"], 0);
    let other = campaign(&world, json!({"name": "o"})).await;
    let early = world.call("DELETE", &format!("/campaigns/{other}"), "").await;
    let text = "Campaign cannot be deleted while it is CREATED";
    refused(&early, StatusCode::BAD_REQUEST, "HTTPException", text);
    let gone = world.call("DELETE", &format!("/api/campaigns/{id}"), "").await.ok();
    assert_eq!((&gone["id"], &gone["deleted"]), (&json!(id), &json!(true)));
    assert_eq!(world.get(&format!("/campaigns/{id}")).await.status, StatusCode::NOT_FOUND);
    let again = world.call("DELETE", &format!("/campaigns/{id}"), "").await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
    let answer = world.get("/campaigns/nothing").await;
    refused(&answer, StatusCode::NOT_FOUND, "NotFoundError", "Campaign nothing not found");
    for body in [
        "{}",
        r#"{"name":""}"#,
        r#"{"name":"x","config":{"max_iterations":1001}}"#,
        r#"{"name":"x","config":{"candidates_per_iteration":0}}"#,
        r#"{"name":"x","kind":"generic"}"#,
        r#"{"name":"x","config":7}"#,
    ] {
        let answer = world.post("/campaigns", body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {}", answer.text);
    }
}

#[tokio::test]
async fn contract_3_5_the_kill_switch_cancels_what_runs_and_stays_pulled() {
    let world = World::new().await;
    world.post("/api/v1/nodes/n/register", r#"{"host":"h","capacity":50}"#).await.ok();
    world.play_steps();
    let task = json!({"task_type": "tune", "input": {"lower": -1}});
    let id =
        campaign(&world, json!({"name": "c", "kind": "generic", "config": {"task": task}})).await;
    world.post(&format!("/campaigns/{id}/start"), "").await.ok();
    world.post("/orchestrator/run_once", "").await.ok();
    let job = TaskId::trusted(&format!("job.{id}.0.3"));
    let before =
        world.get(&format!("/api/v1/tasks/{job}?include=input")).await.ok()["task"].clone();
    assert_eq!(
        (&before["task_type"], &before["input_data"]["lower"]),
        (&json!("tune"), &json!(-1))
    );
    for _ in 0..2 {
        let stopped = world.post(&format!("/agent/campaigns/{id}/stop"), "").await.ok();
        assert_eq!((&stopped["tripped"], &stopped["campaign_id"]), (&json!(true), &json!(id)));
        assert_eq!(stopped["command_type"], "stop_campaign");
        assert_eq!(stopped["result"]["tripped"], true);
        assert!(stopped["message"].is_string() && stopped["timestamp"].is_string());
        let commands = world.get("/agent/commands?limit=1").await.ok();
        assert_eq!(commands[0]["id"], stopped["command_id"], "it is on record");
        assert_eq!(commands[0]["command_type"], "stop_campaign");
    }
    let after = world.get(&format!("/api/v1/tasks/{job}")).await.ok();
    assert_eq!(after["task"]["status"], "cancelled");
    assert_eq!(world.post(&format!("/campaigns/{id}/resume"), "").await.status, 400);
    let unknown = world.post("/agent/campaigns/none/stop", "").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let commands = world.get("/agent/commands?limit=1").await.ok();
    assert_eq!(commands[0]["error_message"], "Campaign none not found", "so is a refusal");
}

#[tokio::test]
async fn contract_3_4_slots_are_listed_newest_first_with_their_decisions() {
    let world = World::new().await;
    world.play_steps();
    let schedule = r#"{"mode":"SCHEDULED","schedule":{"interval_seconds":1}}"#;
    world.post("/orchestrator/config", schedule).await.ok();
    let page = loop {
        let page = world.get("/api/v1/orchestrator/slots").await.ok();
        if page["slots"].as_array().unwrap().len() >= 2 {
            break page;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let slots = page["slots"].as_array().unwrap();
    assert!(slots[0]["slot"].as_str() > slots[1]["slot"].as_str());
    assert_eq!(
        (&slots[1]["decision"], &page["counts"]["ran"]),
        (&json!("ran"), &json!(slots.len()))
    );
    let run_id = slots[1]["run_id"].as_str().unwrap();
    let runs = world.get("/orchestrator/runs").await.ok();
    let of_it: Vec<&Value> =
        runs.as_array().unwrap().iter().filter(|run| run["id"] == *run_id).collect();
    assert_eq!(of_it.len(), 1);
    assert_eq!(
        (&of_it[0]["slot"], &of_it[0]["triggered_by"]),
        (&slots[1]["slot"], &json!("scheduler"))
    );
    let none = world.get("/orchestrator/slots?decision=missed_outage").await.ok();
    assert!(none["slots"].as_array().unwrap().is_empty());
    let wrong = world.get("/orchestrator/slots?decision=lost").await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn contract_3_8_who_is_meant_that_nobody_named() {
    let world = World::new().await;
    let first = r#"{"orchestrator":{"default_name":"prod","mode":"SCHEDULED"}}"#;
    world.call("PUT", "/api/v1/config", first).await.ok();
    let state = world.get("/orchestrator/state").await.ok();
    assert_eq!((&state["name"], &state["mode"]), (&json!("prod"), &json!("SCHEDULED")));
    assert_eq!(state["schedule"]["interval_seconds"], 3600);
    let other = world.get("/orchestrator/state?name=default").await.ok();
    assert_eq!(other["mode"], "MANUAL");
    // Afterwards the mode is what clients set.
    world.post("/orchestrator/config", r#"{"mode":"MANUAL"}"#).await.ok();
    let later = r#"{"value":"CONTINUOUS"}"#;
    world.call("PUT", "/api/v1/config/orchestrator.mode", later).await.ok();
    assert_eq!(world.get("/orchestrator/state").await.ok()["mode"], "MANUAL");
    let made = world.post("/campaigns", r#"{"name":"c"}"#).await.json();
    let campaign = world.cluster.view().read(|state| {
        let id = CampaignId::trusted(made["id"].as_str().unwrap());
        state.campaign(&id).map(|campaign| campaign.plan.orchestrator.clone())
    });
    assert_eq!(campaign.as_deref(), Some("prod"));
    let wrong = r#"{"value":"sometimes"}"#;
    let answer = world.call("PUT", "/api/v1/config/orchestrator.mode", wrong).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_orchestrator_can_do_one_task_in_each_run() {
    let world = World::new().await;
    world.play_steps();
    world.register("n").await;
    world.get("/orchestrator/state?name=nightly").await.ok();
    let body =
        r#"{"task":{"task_type":"backup","input":{"to":"tape"},"timeout":60,"max_retries":0}}"#;
    let state = world.post("/orchestrator/config?name=nightly", body).await.ok();
    assert_eq!(state["task"]["task_type"], "backup");
    let run = world.post("/orchestrator/run_once?name=nightly", "").await.ok();
    assert!(run["completed_at"].is_null(), "its task is under way: {run}");
    assert_eq!(run["actions"]["decisions"][0]["type"], "scheduled_task");
    let id = run["task_id"].as_str().unwrap().to_owned();
    let task = world.get(&format!("/api/v1/tasks/{id}?include=input")).await.ok();
    assert_eq!(task.pointer("/task/input_data/to"), Some(&json!("tape")), "{task}");
    assert_eq!(task.pointer("/task/input_data/run_id"), Some(&run["id"]));
    let task_id = TaskId::trusted(&id);
    let seen_revision =
        world.cluster.view().read(|state| state.open_task(&task_id).unwrap().revision);
    let assignments = vec![Assignment { task_id, seen_revision, node_id: NodeId::trusted("n") }];
    world.commit(Command::AssignTasks { epoch: world.epoch, assignments }).await;
    let result = r#"{"success":true,"result":{"success":false,"error":"no tape"}}"#;
    world.post(&format!("/api/v1/tasks/{id}/result"), result).await.ok();
    let path = format!("/api/orchestrator/runs/{}", run["id"].as_str().unwrap());
    let ended = world.get(&path).await.ok();
    assert_eq!((&ended["success"], &ended["error_message"]), (&json!(false), &json!("no tape")));
    assert_eq!(ended["result"], json!({"success": false, "error": "no tape"}));
    let jobs = world.get("/jobs?kind=scheduled").await.ok();
    assert_eq!(jobs["jobs"][0]["run_id"], run["id"]);
    let unknown = world.get("/orchestrator/runs/99").await;
    refused(&unknown, StatusCode::NOT_FOUND, "NotFoundError", "Run 99 not found");
    for (path, body) in [
        ("/orchestrator/config", body),
        ("/orchestrator/config?name=nightly", r#"{"task":{"input":{}}}"#),
        ("/campaigns", r#"{"name":"c","orchestrator":"nightly"}"#),
    ] {
        let answer = world.post(path, body).await;
        refused(&answer, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
    }
    let state = world.post("/orchestrator/config?name=nightly", r#"{"task":{}}"#).await.ok();
    assert!(state["task"].is_null());
}

#[tokio::test]
async fn contract_1_3_what_nobody_serves_below_family_ns_paths_has_its_shape() {
    let world = World::new().await;
    for path in
        ["/orchestrator/nope", "/api/agent/nope", "/api/v1/campaigns/a/b/c", "/api/jobs/x/y"]
    {
        let answer = world.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        let body = answer.json();
        let text = format!("nothing is served at {path}");
        assert_eq!((&body["detail"], &body["error"]["message"]), (&json!(text), &json!(text)));
        assert_eq!(body["error"]["type"], "NotFoundError");
    }
    let other = world.get("/api/v1/nope").await.json();
    assert_eq!(other["error"], "nothing is served at /api/v1/nope", "others have texts");
}
