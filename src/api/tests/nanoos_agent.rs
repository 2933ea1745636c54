//! What agents ask for, by contract 3.5.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::World;
use super::nanoos::{PREFIXES, campaign, finish, refused};

async fn created(world: &World, body: Value) -> String {
    let answer = world.post("/agent/create_design_campaign", &body.to_string()).await.ok();
    answer["result"]["campaign_id"].as_str().unwrap().to_owned()
}

fn design() -> Value {
    json!({"name": "cells", "goal": "high efficiency", "target_properties": {"efficiency": 0.3}})
}

#[tokio::test]
async fn contract_3_5_a_design_campaign_is_created_as_pending_and_stored_as_created() {
    let world = World::new().await;
    for prefix in PREFIXES {
        let path = format!("{prefix}/agent/create_design_campaign");
        let answer = world.post(&path, &design().to_string()).await.ok();
        assert_eq!(answer["command_type"], "create_design_campaign");
        assert_eq!(
            (&answer["success"], &answer["result"]["status"]),
            (&json!(true), &json!("PENDING"))
        );
        assert_eq!(answer["result"]["name"], "cells");
        assert!(answer["message"].is_string() && answer["timestamp"].is_string());
        assert!(answer["command_id"].is_string());
    }
    let mut body = design();
    body["budget"] = json!({"simulations": 100});
    body["constraints"] = json!({"lead_free": true});
    let id = created(&world, body).await;
    let campaign = world.get(&format!("/campaigns/{id}")).await.ok();
    assert_eq!((&campaign["status"], &campaign["max_iterations"]), (&json!("CREATED"), &json!(20)));
    let config = &campaign["config"];
    assert_eq!(config["goal"], "high efficiency");
    assert_eq!(config["constraints"], json!({"lead_free": true}));
    assert_eq!(config["candidates_per_iteration"], 10);
    assert_eq!(config["generation_strategy"], "bayesian");
    assert_eq!(
        (&config["simulation_budget"], &config["experiment_budget"]),
        (&json!(100), &json!(50))
    );
    assert_eq!(campaign["budgets"]["simulations"]["limit"], 100);
    let mut body = design();
    body["budget"] = json!({"simulations": 7, "tokens": {"limit": 90, "soft": 80}, "money": 5});
    (body["budgets"], body["per_job"]) = (json!({"money": 6}), json!({"tokens": 2, "money": 0.5}));
    let id = created(&world, body).await;
    let budgets = world.get(&format!("/campaigns/{id}")).await.ok()["budgets"].clone();
    assert_eq!(
        (&budgets["tokens"]["limit"], &budgets["tokens"]["soft"], &budgets["money"]["limit"]),
        (&json!(90), &json!(80), &json!(6)),
        "what `budget` names beside the two holds as well"
    );
    assert_eq!(
        (&budgets["simulations"]["limit"], &budgets["experiments"]["limit"]),
        (&json!(7), &json!(50))
    );
    let mut body = design();
    body["budget"] = json!({"tokens": -1});
    let answer = world.post("/agent/create_design_campaign", &body.to_string()).await;
    refused(&answer, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
    let named = answer.json()["error"]["details"]["fields"][0]["field"].clone();
    assert_eq!(named, "body.budget.tokens");
    // Contract 1.2: unknown fields are ignored.
    body["budget"] = json!({"simulations": 3, "hours": 8});
    created(&world, body).await;
    for (key, value) in [
        ("name", json!("")),
        ("name", json!("x".repeat(201))),
        ("goal", json!("")),
        ("target_properties", json!(null)),
        ("max_iterations", json!(0)),
        ("max_iterations", json!(101)),
    ] {
        let mut body = design();
        body[key] = value;
        let answer = world.post("/agent/create_design_campaign", &body.to_string()).await;
        refused(&answer, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
        let field = answer.json()["error"]["details"]["fields"][0]["field"].clone();
        assert_eq!(field, format!("body.{key}"));
    }
    assert_eq!(world.get("/agent/commands").await.ok().as_array().unwrap().len(), 6);
}

/// It was left out of what goes into the configuration, and nothing of a generic campaign was measured.
#[tokio::test]
async fn the_score_from_which_an_agent_wants_candidates_measured_is_kept() {
    let world = World::new().await;
    let mut body = design();
    body["kind"] = json!("generic");
    body["task"] = json!({"task_type": "tune"});
    body["experiment_trigger_score_threshold"] = json!(0.75);
    let id = created(&world, body).await;
    let config = world.get(&format!("/campaigns/{id}")).await.ok()["config"].clone();
    assert_eq!(config["experiment_trigger_score_threshold"], 0.75);
    let id = crate::model::CampaignId::trusted(&id);
    let from = world.cluster.view().read(|state| state.campaign(&id).unwrap().plan.measured_from);
    assert_eq!(from, Some(750_000_000));
}

#[tokio::test]
async fn contract_3_5_advancing_starts_a_campaign_and_is_on_record_when_refused() {
    let world = World::new().await;
    world.play_steps();
    let mut body = design();
    body["max_iterations"] = json!(2);
    body["candidates_per_iteration"] = json!(1);
    let id = created(&world, body).await;
    let advance = |count: u32| json!({"campaign_id": id, "num_iterations": count}).to_string();
    let answer = world.post("/agent/advance_campaign", &advance(10)).await.ok();
    assert_eq!(answer["result"]["iterations_queued"], 2, "no more than are left");
    assert_eq!(answer["result"]["campaign_id"], id);
    let campaign = world.get(&format!("/campaigns/{id}")).await.ok();
    assert_eq!(campaign["status"], "RUNNING");
    let again = world.post("/api/agent/advance_campaign", &advance(1)).await;
    let text = "Campaign has no iterations left";
    refused(&again, StatusCode::BAD_REQUEST, "HTTPException", text);
    let nobody = json!({"campaign_id": "11111111-2222-8333-8444-555555555555"}).to_string();
    let missing = world.post("/api/v1/agent/advance_campaign", &nobody).await;
    let text = "Campaign 11111111-2222-8333-8444-555555555555 not found";
    refused(&missing, StatusCode::NOT_FOUND, "NotFoundError", text);
    for wrong in [json!({"campaign_id": id, "num_iterations": 11}), json!({})] {
        let answer = world.post("/agent/advance_campaign", &wrong.to_string()).await;
        refused(&answer, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
    }
    let commands = world.get("/agent/commands?limit=3").await.ok();
    let outcome = |n: usize| (commands[n]["success"].clone(), commands[n]["error_message"].clone());
    assert_eq!(outcome(0), (json!(false), json!(text)));
    assert_eq!(outcome(1), (json!(false), json!("Campaign has no iterations left")));
    assert_eq!(outcome(2), (json!(true), Value::Null));
    for key in ["id", "command_type", "success", "created_at", "duration_seconds", "result_summary"]
    {
        assert!(!commands[2][key].is_null(), "{key}");
    }
    assert_eq!(commands[2]["agent_id"], "user:anonymous");
    assert_eq!(commands[2]["id"], answer["command_id"]);
    let older = world.get("/agent/commands?offset=3").await.ok();
    assert_eq!(older.as_array().unwrap().len(), 1);
    let path = format!("/agent/commands/{}", answer["command_id"].as_str().unwrap());
    let whole = world.get(&path).await.ok();
    assert_eq!(whole["payload"], json!({"campaign_id": id, "num_iterations": 10}));
    let unknown = world.get("/agent/commands/none").await;
    refused(&unknown, StatusCode::NOT_FOUND, "NotFoundError", "Command none not found");
}

#[tokio::test]
async fn contract_3_5_an_override_holds_for_the_iterations_it_came_with() {
    let world = World::new().await;
    world.play_steps();
    world.register("n").await;
    let body = json!({"name": "c", "config": {"max_iterations": 3, "candidates_per_iteration": 1}});
    let id = campaign(&world, body).await;
    world.post(&format!("/campaigns/{id}/start"), "").await.ok();
    let body = json!({"num_iterations": 1, "override_config":
        {"candidates_per_iteration": 2, "generation_strategy": "grid", "step": 0.5}});
    world.post(&format!("/campaigns/{id}/step"), &body.to_string()).await.ok();
    let path = format!("/campaigns/{id}/iterations/0");
    let first = world.found(&path).await;
    assert_eq!(first["created_structures"].as_array().unwrap().len(), 2);
    assert_eq!(first["strategy_used"], "grid");
    let job = first["metadata"]["results"][0]["job_id"].as_str().unwrap().to_owned();
    let task = world.get(&format!("/api/v1/tasks/{job}?include=input")).await.ok();
    assert_eq!(task.pointer("/task/input_data/override_config/step"), Some(&json!(0.5)), "{task}");
    for place in 0..2 {
        finish(&world, &id, (0, place), r#"{"score":0.5}"#).await;
    }
    world.post(&format!("/campaigns/{id}/step"), "").await.ok();
    let path = format!("/api/campaigns/{id}/iterations/1");
    let second = world.found(&path).await;
    assert_eq!(second["created_structures"].as_array().unwrap().len(), 1);
    assert_eq!(second["strategy_used"], "random");
    let unknown = world.get(&format!("/campaigns/{id}/iterations/9")).await;
    refused(&unknown, StatusCode::NOT_FOUND, "NotFoundError", "Iteration 9 not found");
    let wrong = json!({"override_config": {"candidates_per_iteration": 0}}).to_string();
    let answer = world.post(&format!("/campaigns/{id}/step"), &wrong).await;
    refused(&answer, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
    // One that never fits was queued, and nobody said why it did not begin.
    let large = json!({"override_config": {"candidates_per_iteration": 50}});
    let answer = world.post(&format!("/campaigns/{id}/step"), &large.to_string()).await;
    refused(&answer, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
    let why = answer.json()["error"]["details"]["reason"].to_string();
    assert!(why.contains("50 candidates are more than the 10 simulations"), "{why}");
    assert_eq!(world.get(&format!("/campaigns/{id}")).await.ok()["requested_iterations"], 0);
}

#[tokio::test]
async fn contract_3_5_simulations_and_experiments_are_requested_for_structures() {
    let world = World::new().await;
    let body = json!({"structure_ids": ["s1", "s2"], "simulation_type": "ml_prediction",
        "parameters": {"model": "m"}, "priority": 9, "per_job": {"tokens": 5},
        "budget": {"tokens": 10}});
    let answer = world.post("/agent/request_simulations", &body.to_string()).await.ok();
    let result = &answer["result"];
    assert_eq!(result["structure_ids"], json!(["s1", "s2"]), "unknown ones are registered");
    assert_eq!(
        (&result["simulation_type"], &result["jobs_created"]),
        (&json!("ml_prediction"), &json!(2))
    );
    assert!(result["message"].is_string());
    let job_id = result["job_ids"][1].as_str().unwrap();
    let job = world.get(&format!("/jobs/{job_id}")).await.ok();
    assert_eq!((&job["structure_id"], &job["job_type"]), (&json!("s2"), &json!("ml_prediction")));
    assert_eq!((&job["priority"], &job["status"]), (&json!(9), &json!("PENDING")));
    assert_eq!(job["parameters"], json!({"model": "m"}));
    let commands = world.get("/agent/commands").await.ok();
    assert_eq!(commands[0]["budgets"]["tokens"]["reserved"], 10, "promised on launch");
    let more = json!({"structure_ids": ["s1", "s2"], "per_job": {"tokens": 6},
        "budget": {"tokens": 10}});
    let answer = world.post("/agent/request_simulations", &more.to_string()).await;
    let text = "the budget of tokens is used up";
    refused(&answer, StatusCode::BAD_REQUEST, "HTTPException", text);

    let body = json!({"structure_ids": ["s1"], "instrument_id": "xrd-1", "experiment_type": "xrd",
        "parameters": {"angle": 30}});
    let answer = world.post("/agent/request_experiments", &body.to_string()).await.ok();
    assert_eq!(answer["result"]["experiments_created"], 1);
    assert_eq!(answer["result"]["instrument_id"], "xrd-1");
    assert_eq!(answer["result"]["experiment_type"], "xrd");
    assert_eq!(answer["result"]["experiment_ids"].as_array().unwrap().len(), 1);
    for (door, wrong) in [
        ("request_simulations", json!({"structure_ids": []})),
        ("request_simulations", json!({"structure_ids": ["s"], "priority": 11})),
        ("request_experiments", json!({"structure_ids": ["s"], "experiment_type": "x"})),
        ("request_experiments", json!({"structure_ids": ["s"], "instrument_id": "x"})),
    ] {
        let answer = world.post(&format!("/agent/{door}"), &wrong.to_string()).await;
        refused(&answer, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
    }
    let strict = r#"{"compat":{"strict_structures":true}}"#;
    world.put("/api/v1/config", strict).await.ok();
    let unknown = json!({"structure_ids": ["s1", "nobody"]}).to_string();
    let answer = world.post("/agent/request_simulations", &unknown).await;
    let text = "One or more structures not found";
    refused(&answer, StatusCode::NOT_FOUND, "NotFoundError", text);
    let commands = world.get("/agent/commands?limit=1").await.ok();
    assert_eq!(commands[0]["result_summary"], text, "404 is on record, too");
}

#[tokio::test]
async fn contract_3_5_the_summary_says_what_to_do() {
    let world = World::new().await;
    world.play_steps();
    let advice = |summary: &Value| summary["recommendations"].to_string();
    let empty = world.get("/agent/summary").await.ok();
    assert!(advice(&empty).contains("create one"), "{empty}");
    assert_eq!(empty["system_health"], "healthy");
    let body = json!({"name": "c", "config": {"max_iterations": 1, "candidates_per_iteration": 2}});
    let id = campaign(&world, body).await;
    world.post(&format!("/campaigns/{id}/start"), "").await.ok();
    let idle = world.get("/api/v1/agent/summary").await.ok();
    assert!(advice(&idle).contains("advance a campaign"), "{idle}");
    assert_eq!(idle["active_campaigns"][0]["iteration"], "0/1");
    assert_eq!(idle["active_campaigns"][0]["status"], "active");
    world.post("/orchestrator/run_once", "").await.ok();
    let busy = world.get("/api/agent/summary").await.ok();
    assert!(advice(&busy).contains("near completion (1/1 iterations)"), "{busy}");
    assert!(advice(&busy).contains("start a worker"), "{busy}");
    assert_eq!(busy["statistics"]["pending_jobs"], 2);
    for key in ["active_campaigns", "running_jobs", "pending_experiments", "completed_jobs_24h"] {
        assert!(busy["statistics"][key].is_u64(), "{key}");
    }
    assert_eq!(busy["statistics"]["system_health"], "healthy");
    world.register("n").await;
    for place in 0..2 {
        finish(&world, &id, (0, place), r#"{"score":0.75}"#).await;
    }
    let found = world.get("/agent/summary").await.ok();
    let discovery = &found["recent_discoveries"][0];
    assert_eq!((&discovery["score"], &discovery["campaign_name"]), (&json!(0.75), &json!("c")));
    assert_eq!(discovery["structure_id"], format!("{id}.0.0"));
    assert!(found["summary"].as_str().unwrap().contains("0 campaigns are active"), "{found}");
}
