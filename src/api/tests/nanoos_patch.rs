//! What a change of a campaign leaves as it was (contract 3.6 `PATCH`).

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::World;
use super::nanoos::{campaign, finish, refused};
use crate::model::CampaignId;

/// The configuration of a campaign with every key of it, and another value of each.
fn config_keys() -> [(&'static str, Value, Value); 20] {
    [
        ("max_iterations", json!(20), json!(30)),
        ("candidates_per_iteration", json!(4), json!(5)),
        (
            "task",
            json!({"task_type": "a", "timeout": 60, "max_retries": 1}),
            json!({"timeout": 90}),
        ),
        ("evaluation_strategy", json!("dft"), json!("ml_prediction")),
        ("direction", json!("minimize"), json!("maximize")),
        ("score_field", json!("loss"), json!("gain")),
        ("target_score", json!(0.5), json!(0.75)),
        ("convergence_threshold", json!(0.01), json!(0.02)),
        ("early_stopping_patience", json!(5), json!(6)),
        ("experiment_trigger_score_threshold", json!(0.8), json!(-3)),
        ("simulation_budget", json!(100), json!({"limit": 200, "soft": 150})),
        ("experiment_budget", json!(10), json!(20)),
        (
            "budgets",
            json!({"tokens": 1000, "money": {"limit": 50, "soft": 40}}),
            json!({"money": {"limit": 60}}),
        ),
        ("per_job", json!({"tokens": 5, "money": 0.5}), json!({"tokens": 6})),
        ("generation_strategy", json!("grid"), json!("bayesian")),
        ("goal", json!("low loss"), json!("high gain")),
        ("target_properties", json!({"gap": 1.1}), json!({"gap": 1.2, "mass": 3})),
        ("constraints", json!({"lead_free": true}), json!({"lead_free": false})),
        ("note", json!([1, 2]), json!([3])),
        ("x", json!({"deep": {"a": 1, "b": 2}}), json!({"deep": {"b": 3}})),
    ]
}

fn merge(old: &Value, new: &Value) -> Value {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut both = old.clone();
            for (key, value) in new {
                let merged = old.get(key).map_or_else(|| value.clone(), |old| merge(old, value));
                both.insert(key.clone(), merged);
            }
            Value::Object(both)
        }
        _ => new.clone(),
    }
}

/// A patch of one key of `config` set all others back to what they are when nothing is said.
#[tokio::test]
async fn contract_3_6_what_a_patch_does_not_say_stays_for_each_key_of_config() {
    let world = World::new().await;
    let whole: serde_json::Map<String, Value> =
        config_keys().into_iter().map(|(key, value, _)| (key.to_owned(), value)).collect();
    let mut config = Value::Object(whole);
    let made = json!({"name": "c", "description": "d", "kind": "generic", "config": config, "metadata": {"a": 1}});
    let id = campaign(&world, made).await;
    let path = format!("/campaigns/{id}");
    let plan = || {
        world
            .cluster
            .view()
            .read(|state| state.campaign(&CampaignId::trusted(&id)).unwrap().plan.clone())
    };
    for (key, _, other) in config_keys() {
        let before = plan();
        let body = json!({"config": {key: other}}).to_string();
        let patched = world.call("PATCH", &path, &body).await.ok();
        config[key] = merge(&config[key], &other);
        assert_eq!(patched["config"], config, "{key}");
        assert_eq!(
            (&patched["name"], &patched["description"]),
            (&json!("c"), &json!("d")),
            "{key}"
        );
        assert_eq!(patched["metadata"], json!({"a": 1}), "{key}");
        let mut after = plan();
        let (text, known) = (after.config.clone(), before.config.clone());
        assert_ne!(text, known, "{key}");
        after.config = known;
        let reaches_the_plan = !["goal", "target_properties", "constraints", "note", "x"]
            .contains(&key)
            && key != "evaluation_strategy";
        assert_eq!(after != before, reaches_the_plan, "{key}");
    }
    let budgets = world.get(&path).await.ok()["budgets"].clone();
    assert_eq!((&budgets["money"]["limit"], &budgets["money"]["soft"]), (&json!(60), &json!(40)));
    assert_eq!(budgets["tokens"]["limit"], 1000);
    assert_eq!(
        (&budgets["simulations"]["limit"], &budgets["simulations"]["soft"]),
        (&json!(200), &json!(150))
    );
    // Null takes a field away.
    let body = r#"{"config":{"budgets":{"tokens":null},"target_score":null,"early_stopping_patience":null}}"#;
    let patched = world.call("PATCH", &path, body).await.ok();
    assert!(patched["config"].get("target_score").is_none(), "{patched}");
    assert!(patched["budgets"]["tokens"]["limit"].is_null(), "no limit any more: {patched}");
    assert_eq!(patched["budgets"]["money"]["limit"], 60);
    assert_eq!((plan().stop.target, plan().stop.patience), (None, None));
    // What makes no sense changes nothing.
    let wrong = world.call("PATCH", &path, r#"{"config":{"max_iterations":0}}"#).await;
    refused(&wrong, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
    let long = json!({"config": {"note": "x".repeat(17_000)}}).to_string();
    let wrong = world.call("PATCH", &path, &long).await;
    refused(&wrong, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
    assert_eq!(world.get(&path).await.ok()["config"], patched["config"]);
}

#[tokio::test]
async fn of_patches_at_once_none_is_lost() {
    let world = World::new().await;
    let path = format!("/campaigns/{}", campaign(&world, json!({"name": "c"})).await);
    let bodies =
        ["goal", "note", "x", "score_field"].map(|key| json!({"config": {key: "new"}}).to_string());
    let [a, b, c, d] = &bodies;
    let (a, b, c, d) = tokio::join!(
        world.call("PATCH", &path, a),
        world.call("PATCH", &path, b),
        world.call("PATCH", &path, c),
        world.call("PATCH", &path, d)
    );
    [a, b, c, d].into_iter().for_each(|answer| drop(answer.ok()));
    let shown = world.get(&path).await.ok();
    for key in ["goal", "note", "x", "score_field"] {
        assert_eq!(shown["config"][key], "new", "{key}");
    }
}

/// Only the index of what nobody measures was turned: the worst candidate completed the campaign.
#[tokio::test]
async fn a_campaign_that_is_turned_is_judged_by_its_new_direction() {
    let world = World::new().await;
    world.post("/api/v1/nodes/n/register", r#"{"host":"h","capacity":50}"#).await.ok();
    world.play_steps();
    let config = json!({"max_iterations": 5, "candidates_per_iteration": 2});
    let id = campaign(&world, json!({"name": "c", "config": config})).await;
    let path = format!("/campaigns/{id}");
    world.post(&format!("{path}/start"), "").await.ok();
    world.post("/orchestrator/run_once", "").await.ok();
    finish(&world, &id, (0, 0), r#"{"score":0.3}"#).await;
    finish(&world, &id, (0, 1), r#"{"score":0.9}"#).await;
    world.post(&format!("{path}/pause"), "").await.ok();
    let body = r#"{"config":{"score_field":"loss"}}"#;
    let refusal = world.call("PATCH", &path, body).await;
    refused(&refusal, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
    let body = r#"{"config":{"direction":"minimize","target_score":0.2}}"#;
    let turned = world.call("PATCH", &path, body).await.ok();
    assert_eq!(turned["best_score"], 0.3);
    assert_eq!(turned["best_structure_id"], format!("{id}.0.0"));
    let iteration = world.get(&format!("{path}/iterations/0")).await.ok();
    assert_eq!(iteration["best_structure_id_this_iter"], format!("{id}.0.0"));
    let summary = world.get(&format!("{path}/summary")).await.ok();
    assert_eq!(summary["score_history"], json!([0.3]));
    let found = world.get("/agent/summary").await.ok();
    assert_eq!(found["recent_discoveries"], json!([]), "0.9 was one while more was better");
    let resumed = world.post(&format!("{path}/resume"), "").await.ok();
    assert_eq!(resumed["status"], "RUNNING", "0.9 is no 0.2");
}
