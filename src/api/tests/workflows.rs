//! Workflows over the services outside: contract 5.4. The tests play the leader, who calls these.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::bots::refused;
use super::{Answer, World};
use crate::api::ApiOptions;
use crate::model::{DerivedId, Service};
use crate::state::{BotCommand, Command, Outcome};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

impl World {
    /// Records the next task of the oldest workflow that runs, as the leader does.
    pub(super) async fn do_next(&self, result: &str) {
        let (workflow, seen) = loop {
            let next = self.cluster.view().read(|state| {
                let mut running = state.running_workflows();
                running.next().map(|(number, row)| (number, row.position))
            });
            if let Some(next) = next {
                break next;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let (epoch, result) = (self.epoch, result.to_owned());
        let command = BotCommand::RecordStep { epoch, workflow, seen, result };
        let outcome = self.commit(Command::Bot(Box::new(command))).await;
        assert_eq!(outcome, Outcome::Judged { accepted: 1, stale: 0 });
    }

    async fn orchestrate(&self, body: &str) -> Answer {
        timeout(PATIENCE, self.post("/orchestrate", body)).await.unwrap()
    }

    /// Makes a workflow and does not wait for it.
    pub(super) async fn begin(&self, body: &str) -> String {
        let answer = self.post("/orchestrate?async=true", body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        let id = answer.json()["workflow_id"].as_str().unwrap().to_owned();
        assert_eq!(answer.header("location"), format!("/workflows/{id}"));
        id
    }
}

const TWO: &str = r#"{"tasks":[{"type":"image_generation","params":{"prompt":"x"}},
    {"type":"fraud_detection"}],"priority":"high"}"#;

#[tokio::test]
async fn contract_5_4_the_answer_comes_when_all_is_done() {
    let world = World::new().await;
    let (answer, ()) = tokio::join!(world.orchestrate(TWO), async {
        world.do_next(r#"{"image":"data"}"#).await;
        world.do_next(r#"{"error":"connection refused"}"#).await;
    });
    let answer = answer.ok();
    assert!(DerivedId::parse(answer["workflow_id"].as_str().unwrap()).is_some());
    assert_eq!((&answer["status"], &answer["priority"]), (&json!("completed"), &json!("high")));
    assert_eq!(answer["tasks_executed"], 2);
    let results = json!([
        {"task_type": "image_generation", "result": {"image": "data"}},
        {"task_type": "fraud_detection", "result": {"error": "connection refused"}},
    ]);
    assert_eq!(answer["results"], results);
    assert!(answer["timestamp"].as_str().unwrap().ends_with("000Z"));
}

#[tokio::test]
async fn contract_5_1_services_are_listed_by_name() {
    let mut options = ApiOptions::default();
    options.services.set(Service::FraudDetection, "http://fraud.example:1/");
    let world = World::with(options).await;
    let listed = world.get("/services").await.ok();
    let expected = json!({"services": {
        "image_generation": "http://image-generation-service:5000",
        "video_generation": "http://video-generation-service:5001",
        "crypto_prediction": "http://crypto-prediction-service:5002",
        "fraud_detection": "http://fraud.example:1",
        "compression": "http://compression-service:5006",
        "marketing": "http://marketing-intelligence-service:5007",
    }});
    assert_eq!(listed, expected);
    assert_eq!(world.get("/api/v1/services").await.ok(), listed);
}

#[tokio::test]
async fn contract_5_4_tasks_are_required_and_may_be_none() {
    let world = World::new().await;
    for body in ["{}", "", r#"{"tasks":null}"#, r#"{"tasks":"x"}"#, r#"{"tasks":{}}"#] {
        refused(&world.orchestrate(body).await, 400, "Tasks list is required");
    }
    let empty = world.orchestrate(r#"{"tasks":[]}"#).await.ok();
    assert_eq!((&empty["status"], &empty["results"]), (&json!("completed"), &json!([])));
    assert_eq!((&empty["priority"], &empty["tasks_executed"]), (&json!("normal"), &json!(0)));
    for priority in ["low", "critical", "whatever"] {
        let body = json!({"tasks": [], "priority": priority}).to_string();
        assert_eq!(world.orchestrate(&body).await.ok()["priority"], priority);
    }
    let many = json!({"tasks": vec![json!({"type": "x"}); 101]}).to_string();
    refused(&world.orchestrate(&many).await, 400, "tasks holds at most 100 tasks");
    for task in [json!(1), json!({}), json!({"type": []})] {
        let body = json!({"tasks": [{"type": "x"}, task]}).to_string();
        refused(&world.orchestrate(&body).await, 400, "tasks[1] must be an object with a type");
    }
}

#[tokio::test]
async fn a_client_that_does_not_wait_asks_how_far_it_is() {
    let world = World::new().await;
    let id = world.begin(TWO).await;
    let path = format!("/workflows/{id}");
    let shown = world.get(&path).await.ok();
    assert_eq!((&shown["status"], &shown["tasks_executed"]), (&json!("running"), &json!(0)));
    assert_eq!((&shown["total_tasks"], &shown["results"]), (&json!(2), &json!([])));
    world.do_next(r#"{"a":1}"#).await;
    let shown = world.get(&format!("/api/v1{path}")).await.ok();
    let words: Vec<_> =
        shown["tasks"].as_array().unwrap().iter().map(|row| &row["status"]).collect();
    assert_eq!(words, ["completed", "running"]);
    assert_eq!(shown["results"], json!([{"task_type": "image_generation", "result": {"a": 1}}]));
    world.do_next(&json!({"b": "x".repeat(100_000)}).to_string()).await;
    let shown = world.get(&path).await.ok();
    assert_eq!(shown["status"], "completed");
    assert_eq!(shown["results"][1]["result"]["b"].as_str().unwrap().len(), 100_000);
    assert!(shown["completed_at"].is_string());
    let task = world.get(&format!("/task/{id}")).await.ok();
    assert_eq!(
        (&task["status"], &task["result"]["results"]),
        (&json!("completed"), &shown["results"])
    );
    refused(&world.get("/workflows/none").await, 404, "Workflow none not found");
}

#[tokio::test]
async fn a_request_that_is_sent_again_waits_for_the_same_workflow() {
    let world = World::new().await;
    let body = r#"{"tasks":[{"type":"x"}]}"#;
    let (first, second, ()) = tokio::join!(
        world.post_keyed("/orchestrate", "k", body),
        world.post_keyed("/api/v1/orchestrate", "k", body),
        world.do_next("1"),
    );
    let first = first.ok();
    assert_eq!(second.ok(), first);
    assert_eq!(world.post_keyed("/orchestrate", "k", body).await.ok(), first);
    assert_eq!(world.get("/workflows").await.ok()["total"], 1);
    let request = world.get("/api/v1/requests/k").await.ok();
    let workflow = &request["outcome"]["outcome"]["workflow_created"]["workflow"];
    assert_eq!(workflow, &first["workflow_id"]);
}

/// The results of the first one were answered to whoever asked for another under its key.
#[tokio::test]
async fn a_key_that_made_another_workflow_is_refused() {
    let world = World::new().await;
    let begin = async |body: &str| world.post_keyed("/orchestrate?async=true", "k", body).await;
    let body = |name: &str, prompt: &str, priority: &str| {
        let task = json!({"type": name, "params": {"prompt": prompt}});
        json!({"tasks": [task], "priority": priority}).to_string()
    };
    let first = begin(&body("image_generation", "a", "low")).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    for other in [
        body("image_generation", "b", "low"),
        body("video_generation", "a", "low"),
        body("image_generation", "a", "high"),
        json!({"tasks": []}).to_string(),
    ] {
        let answer = begin(&other).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
        assert_eq!(answer.json()["code"], "IDEMPOTENCY_KEY_REUSED");
    }
    let again = begin(&body("image_generation", "a", "low")).await;
    assert_eq!(again.json()["workflow_id"], first.json()["workflow_id"]);
    assert_eq!(world.get("/workflows").await.ok()["total"], 1);
}

#[tokio::test]
async fn a_cancelled_workflow_is_over_for_whoever_waits() {
    let world = World::new().await;
    let (answer, cancelled) = tokio::join!(world.orchestrate(TWO), async {
        world.do_next("1").await;
        let listed = world.get("/workflows?status=running").await.ok();
        let id = listed["workflows"][0]["workflow_id"].as_str().unwrap().to_owned();
        world.delete(&format!("/workflows/{id}")).await.ok()
    });
    assert_eq!(cancelled["status"], "cancelled");
    let answer = answer.ok();
    assert_eq!((&answer["status"], &answer["tasks_executed"]), (&json!("cancelled"), &json!(1)));
    let path = format!("/workflows/{}", answer["workflow_id"].as_str().unwrap());
    assert_eq!(world.delete(&path).await.ok()["status"], "cancelled", "again");
    let id = world.begin(r#"{"tasks":[]}"#).await;
    let answer = world.delete(&format!("/workflows/{id}")).await;
    assert_eq!(
        (answer.status, answer.json()["code"].clone()),
        (StatusCode::CONFLICT, json!("WORKFLOW_ENDED"))
    );
    refused(&world.delete("/workflows/none").await, 404, "Workflow none not found");
}

#[tokio::test]
async fn workflows_are_listed_newest_first() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for tasks in [json!([]), json!([{"type": "x"}]), json!([])] {
        ids.push(world.begin(&json!({"tasks": tasks}).to_string()).await);
    }
    let of = |page: &Value| {
        let rows = page["workflows"].as_array().unwrap().iter();
        rows.map(|row| row["workflow_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let page = world.get("/workflows?limit=2").await.ok();
    assert_eq!((of(&page), &page["total"]), (vec![ids[2].clone(), ids[1].clone()], &json!(3)));
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = world.get(&format!("/workflows?limit=2&cursor={cursor}")).await.ok();
    assert_eq!((of(&rest), &rest["next_cursor"]), (vec![ids[0].clone()], &Value::Null));
    assert_eq!(of(&world.get("/workflows?order=asc").await.ok()), ids);
    assert_eq!(of(&world.get("/workflows?status=running").await.ok()), ids[1..2]);
    assert_eq!(world.get("/workflows?status=lost").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn who_waits_for_a_workflow_is_told_when_the_member_closes() {
    let world = World::new().await;
    let (answer, ()) = tokio::join!(world.orchestrate(TWO), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.app.close();
    });
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    let problem = answer.json();
    assert_eq!(problem["code"], "WORKFLOW_UNFINISHED");
    assert!(problem["detail"].as_str().unwrap().contains("Idempotency-Key"));
}
