//! Limits of what is metered (contract 3.4): a hard stop needs a promise.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::nanoos::{campaign, refused};
use super::{Answer, World};

/// What a refusal says is wrong.
fn field(answer: &Answer) -> Value {
    refused(answer, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
    answer.json()["error"]["details"]["fields"][0]["field"].clone()
}

/// A limit of tokens without `per_job` reserved nothing, so it was passed by all jobs under way.
#[tokio::test]
async fn contract_3_4_a_metered_limit_without_a_promise_is_refused() {
    let world = World::new().await;
    for resource in ["tokens", "money", "gpu_minutes"] {
        for promise in [json!({}), json!({resource: 0}), json!({"simulations": 1})] {
            let config = json!({"budgets": {resource: 10}, "per_job": promise});
            let body = json!({"name": "c", "config": config}).to_string();
            let wanted = format!("body.config.per_job.{resource}");
            assert_eq!(field(&world.post("/campaigns", &body).await), wanted, "{body}");
        }
    }
    let kept = json!({"budgets": {"tokens": 10}, "per_job": {"tokens": 2}});
    let id = campaign(&world, json!({"name": "c", "config": kept})).await;
    // Nor does a patch take the promise away, or set a limit beside none.
    for patch in [json!({"per_job": {"tokens": null}}), json!({"budgets": {"money": 5}})] {
        let body = json!({"config": patch}).to_string();
        let answer = world.call("PATCH", &format!("/campaigns/{id}"), &body).await;
        assert!(field(&answer).as_str().unwrap().starts_with("body.config.per_job."), "{body}");
    }
    let both = json!({"config": {"budgets": {"tokens": null}, "per_job": {"tokens": null}}});
    world.call("PATCH", &format!("/campaigns/{id}"), &both.to_string()).await.ok();
    // A limit of 0 holds nothing, with a promise or without.
    campaign(&world, json!({"name": "c", "config": {"budgets": {"tokens": 0}}})).await;

    let config = |body: Value| {
        let world = &world;
        async move { world.post("/orchestrator/config", &body.to_string()).await }
    };
    assert_eq!(field(&config(json!({"budgets": {"tokens": 9}})).await), "body.per_job.tokens");
    let set = config(json!({"budgets": {"tokens": 9}, "per_job": {"tokens": 4}})).await.ok();
    assert_eq!(set["per_job"], json!({"tokens": 4}));
    assert_eq!(field(&config(json!({"per_job": {"tokens": null}})).await), "body.per_job.tokens");
    assert_eq!(field(&config(json!({"per_job": {"tokens": 0}})).await), "body.per_job.tokens");
    assert_eq!(field(&config(json!({"per_job": {"hours": 1}})).await), "body.per_job.hours");

    // A job whose task says nothing is promised what its orchestrator says.
    let jobs = json!({"structure_ids": ["a", "b"], "budget": {"tokens": 8}}).to_string();
    world.post("/agent/request_simulations", &jobs).await.ok();
    let answer = world.post("/agent/request_simulations", &jobs).await;
    refused(&answer, StatusCode::BAD_REQUEST, "HTTPException", "the budget of tokens is used up");
    let jobs = json!({"structure_ids": ["a"], "budget": {"money": 8}}).to_string();
    let answer = world.post("/agent/request_simulations", &jobs).await;
    assert_eq!(field(&answer), "body.per_job.money");

    // A limit that is taken away and set again knows what was promised and spent.
    let gone = config(json!({"budgets": {"tokens": null}})).await.ok();
    let tokens = &gone["budgets"]["tokens"];
    assert_eq!((&tokens["limit"], &tokens["reserved"]), (&Value::Null, &json!(8)));
    let page = world.get("/metrics").await.text;
    assert!(!page.contains("quorate_budget_limit{"), "there is no limit to tell");
    let again = config(json!({"budgets": {"tokens": 9}})).await.ok();
    assert_eq!(again["budgets"]["tokens"]["reserved"], 8);
}
