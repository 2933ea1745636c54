//! Structures, jobs, experiments, instruments and models, by contract 3.6.

use axum::http::StatusCode;
use serde_json::json;

use super::World;
use super::nanoos::{PREFIXES, campaign, finish, refused};
use crate::model::{NodeId, TaskId};
use crate::state::{Assignment, Command, ExpiryKind, Outcome, TaskExpiry};

#[tokio::test]
async fn contract_3_6_structures_are_made_changed_and_taken_out() {
    let world = World::new().await;
    let body = json!({"composition": "TiO2", "num_atoms": 3, "metadata": {"by": "me"}});
    let mut made = Vec::new();
    for prefix in PREFIXES {
        let answer = world.post(&format!("{prefix}/structures"), &body.to_string()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        let row = answer.json();
        assert_eq!((&row["composition"], &row["num_atoms"]), (&json!("TiO2"), &json!(3)));
        assert_eq!(row["metadata"], json!({"by": "me"}));
        assert!(row["space_group"].is_null() && row["owner_id"].is_string());
        assert!(row["created_at"].is_string() && row["updated_at"].is_string());
        made.push(row["id"].as_str().unwrap().to_owned());
    }
    let path = format!("/api/structures/{}", made[0]);
    let changed = world.put(&path, r#"{"space_group":"P42/mnm"}"#).await.ok();
    assert_eq!(
        (&changed["space_group"], &changed["composition"]),
        (&json!("P42/mnm"), &json!("TiO2"))
    );
    assert_eq!(world.get(&path).await.ok(), changed);
    let list = world.get("/api/structures?page_size=2").await.ok();
    assert_eq!((&list["total"], list["structures"].as_array().unwrap().len()), (&json!(3), 2));
    world.delete(&path).await.ok();
    let text = format!("Structure {} not found", made[0]);
    for answer in [world.get(&path).await, world.delete(&path).await] {
        refused(&answer, StatusCode::NOT_FOUND, "NotFoundError", &text);
    }
    let missing = world.put(&path, "{}").await;
    let text = "One or more structures not found";
    refused(&missing, StatusCode::NOT_FOUND, "NotFoundError", text);
    let own = json!({"id": "mine", "composition": "C"}).to_string();
    assert_eq!(world.post("/structures", &own).await.status, StatusCode::CREATED);
    let twice = world.post("/structures", &own).await;
    refused(&twice, StatusCode::CONFLICT, "ConflictError", "Structure mine is there already");
    let wrong = world.post("/structures", "{}").await;
    refused(&wrong, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
}

#[tokio::test]
async fn contract_3_6_the_structure_of_a_candidate_can_be_read() {
    let world = World::new().await;
    world.play_steps();
    world.register("n").await;
    let body = json!({"name": "c", "config": {"candidates_per_iteration": 1}});
    let id = campaign(&world, body).await;
    world.post(&format!("/campaigns/{id}/start"), "").await.ok();
    world.post("/orchestrator/run_once", "").await.ok();
    finish(&world, &id, (0, 0), r#"{"score":0.5,"parameters":{"x":1}}"#).await;
    let best = world.get(&format!("/campaigns/{id}")).await.ok()["best_structure_id"].clone();
    let path = format!("/api/structures/{}", best.as_str().unwrap());
    let structure = world.get(&path).await.ok();
    assert_eq!(structure["structure_data"], json!({"x": 1}));
    assert_eq!(
        (&structure["labeled"], &structure["metadata"]["campaign_id"]),
        (&json!(true), &json!(id))
    );
    let taken = json!({"id": format!("{id}.7.0"), "composition": "C"}).to_string();
    let answer = world.post("/structures", &taken).await;
    refused(&answer, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
}

#[tokio::test]
async fn contract_3_6_a_job_from_its_creation_to_its_results() {
    let world = World::new().await;
    world.register("n").await;
    let body = json!({"structure_id": "s", "parameters": {"cutoff": 500}, "priority": 8});
    let answer = world.post("/api/jobs/dft", &body.to_string()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let job = answer.json();
    assert_eq!((&job["job_type"], &job["status"]), (&json!("dft"), &json!("PENDING")));
    assert_eq!((&job["structure_id"], &job["priority"]), (&json!("s"), &json!(8)));
    assert_eq!(job["parameters"], json!({"cutoff": 500}));
    for key in ["results", "error_message", "started_at", "completed_at", "duration_seconds"] {
        assert!(job[key].is_null(), "{key}");
    }
    let id = job["id"].as_str().unwrap().to_owned();
    let early = world.get(&format!("/jobs/{id}/results")).await;
    let text = format!("Job {id} has not ended yet");
    refused(&early, StatusCode::BAD_REQUEST, "HTTPException", &text);
    let task_id = TaskId::trusted(&id);
    let seen_revision =
        world.cluster.view().read(|state| state.open_task(&task_id).unwrap().revision);
    let node_id = NodeId::trusted("n");
    let assignments = vec![Assignment { task_id, seen_revision, node_id }];
    world.commit(Command::AssignTasks { epoch: world.epoch, assignments }).await;
    let status = world.get(&format!("/api/v1/jobs/{id}/status")).await.ok();
    assert_eq!((&status["status"], &status["progress"]), (&json!("QUEUED"), &json!(0.0)));
    let result = r#"{"success":true,"result":{"energy":-7.5}}"#;
    world.post(&format!("/api/v1/tasks/{id}/result"), result).await.ok();
    let results = world.get(&format!("/jobs/{id}/results")).await.ok();
    assert_eq!(
        (&results["status"], &results["results"]),
        (&json!("COMPLETED"), &json!({"energy": -7.5}))
    );
    assert_eq!(world.get(&format!("/jobs/{id}/status")).await.ok()["progress"], 1.0);
    let structure = world.get("/structures/s").await.ok();
    assert_eq!(structure["labeled"], true, "it has a result");

    let body = json!({"structure_id": "t"}).to_string();
    let other = world.post("/jobs/ml-prediction", &body).await.json();
    assert_eq!(other["job_type"], "ml_prediction");
    let list = world.get("/api/jobs").await.ok();
    assert_eq!(list["jobs"].as_array().unwrap().len(), 2);
    assert_eq!(list["jobs"][0]["id"], other["id"], "newest first");
    let done = world.get("/jobs?status=completed").await.ok();
    assert_eq!((&done["jobs"][0]["id"], done["jobs"].as_array().unwrap().len()), (&json!(id), 1));
    let odd = world.get("/jobs?status=done").await;
    refused(&odd, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
    let one = world.get("/jobs?structure_id=t&job_type=ml_prediction").await.ok();
    assert_eq!(one["jobs"].as_array().unwrap().len(), 1);
    let unknown = world.get("/jobs/none").await;
    refused(&unknown, StatusCode::NOT_FOUND, "NotFoundError", "Job none not found");
    let wrong = world.post("/jobs/dft", "{}").await;
    refused(&wrong, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
    // Nobody would keep it: only what agents ask for has a row that does.
    let body = json!({"structure_id": "t", "budget": {"tokens": 5}, "instrument_id": "i", "experiment_type": "e"});
    for door in ["/jobs", "/api/jobs/dft", "/experiments"] {
        let answer = world.post(door, &body.to_string()).await;
        refused(&answer, StatusCode::UNPROCESSABLE_ENTITY, "ValidationError", "Validation failed");
        let field = answer.json()["error"]["details"]["fields"][0]["field"].clone();
        assert_eq!(field, "body.budget", "{door}");
    }
}

#[tokio::test]
async fn contract_3_6_an_experiment_is_done_as_its_instrument_says() {
    let world = World::new().await;
    let body = json!({"id": "xrd-1", "name": "Diffractometer", "instrument_type": "xrd",
        "task_type": "scan", "capabilities": ["xrd"], "input": {"hall": 2}, "timeout": 60});
    let answer = world.post("/api/instruments", &body.to_string()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let instrument = world.get("/api/instruments/xrd-1").await.ok();
    assert_eq!(
        (&instrument["name"], &instrument["timeout"]),
        (&json!("Diffractometer"), &json!(60))
    );
    let list = world.get("/api/instruments").await.ok();
    assert_eq!((&list["total"], &list["instruments"][0]["id"]), (&json!(1), &json!("xrd-1")));
    let body = json!({"structure_id": "s", "instrument_id": "xrd-1", "experiment_type": "powder",
        "parameters": {"angle": 30}});
    let answer = world.post("/api/experiments", &body.to_string()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let experiment = answer.json();
    assert_eq!(
        (&experiment["instrument_id"], &experiment["experiment_type"]),
        (&json!("xrd-1"), &json!("powder"))
    );
    let id = experiment["id"].as_str().unwrap();
    let task = world.get(&format!("/api/v1/tasks/{id}?include=input")).await.ok();
    assert_eq!(task["task"]["task_type"], "scan");
    assert_eq!(task.pointer("/task/input_data/hall"), Some(&json!(2)), "{task}");
    let list = world.get("/experiments?instrument_id=xrd-1").await.ok();
    assert_eq!(list["experiments"][0]["id"], experiment["id"]);
    assert_eq!(list["experiments"][0]["experiment_type"], "powder");
    let status = world.get(&format!("/experiments/{id}/status")).await.ok();
    assert_eq!(status["status"], "PENDING");
    assert_eq!(world.get(&format!("/api/v1/experiments/{id}")).await.ok(), experiment);
    let early = world.get(&format!("/experiments/{id}/results")).await;
    assert_eq!(
        (early.status, &early.json()["code"]),
        (StatusCode::BAD_REQUEST, &json!("JOB_UNFINISHED"))
    );
    world
        .commit(Command::CancelTask { task_id: TaskId::trusted(id), reason: "no".to_owned() })
        .await;
    let ended = world.get(&format!("/experiments/{id}/results")).await.ok();
    assert_eq!((&ended["status"], &ended["error_message"]), (&json!("CANCELLED"), &json!("no")));
    for rest in ["", "/status", "/results"] {
        let answer = world.get(&format!("/experiments/nobody{rest}")).await;
        refused(&answer, StatusCode::NOT_FOUND, "NotFoundError", "Experiment nobody not found");
    }
    let not_a_job = world.get(&format!("/jobs/{id}")).await;
    refused(&not_a_job, StatusCode::NOT_FOUND, "NotFoundError", &format!("Job {id} not found"));
    world.delete("/instruments/xrd-1").await.ok();
    let gone = world.delete("/instruments/xrd-1").await;
    refused(&gone, StatusCode::NOT_FOUND, "NotFoundError", "Instrument not found");
    world.put("/api/v1/config", r#"{"compat":{"strict_structures":true}}"#).await.ok();
    let strict = world.post("/experiments", &body.to_string()).await;
    refused(&strict, StatusCode::NOT_FOUND, "NotFoundError", "Instrument not found");
}

#[tokio::test]
async fn contract_3_4_models_are_trained_when_enough_samples_have_come() {
    let world = World::new().await;
    world.play_steps();
    let body = r#"{"task_type":"fit","capabilities":["gpu"],"training_samples_count":0}"#;
    let model = world.put("/models/gap", body).await.ok();
    assert_eq!((&model["name"], &model["is_active"]), (&json!("gap"), &json!(true)));
    assert_eq!((&model["training_samples_count"], &model["task_type"]), (&json!(0), &json!("fit")));
    let run = world.post("/orchestrator/run_once", "").await.ok();
    let decision = &run["actions"]["decisions"][0];
    assert_eq!(
        (&decision["type"], &decision["model"]),
        (&json!("model_retraining_check"), &json!("gap"))
    );
    let models = world.get("/api/models").await.ok();
    assert_eq!((&models["total"], &models["models"][0]["name"]), (&json!(1), &json!("gap")));
    world.delete("/models/gap").await.ok();
    let gone = world.get("/models/gap").await;
    refused(&gone, StatusCode::NOT_FOUND, "NotFoundError", "Model gap not found");
}

/// A job that was tried again went back to QUEUED and PENDING, and one that took too long was FAILED.
#[tokio::test]
async fn contract_3_2_a_job_only_makes_legal_moves_and_may_time_out() {
    let world = World::new().await;
    world.register("n").await;
    let body = json!({"structure_id": "s", "timeout": 0.1, "max_retries": 1, "instrument_id": "i", "experiment_type": "e"});
    for (door, wanted) in [("jobs", "TIMEOUT"), ("experiments", "FAILED")] {
        let job = world.post(&format!("/{door}"), &body.to_string()).await.json();
        let id = job["id"].as_str().unwrap().to_owned();
        let task_id = TaskId::trusted(&id);
        let mut seen = vec![job["status"].as_str().unwrap().to_owned()];
        let look = async |seen: &mut Vec<String>| {
            let view = world.get(&format!("/{door}/{id}/status")).await.ok();
            seen.push(view["status"].as_str().unwrap().to_owned());
        };
        let expire = async |kind| {
            // Back-offs and attempts here take a tenth of a second or a second.
            for _ in 0..400 {
                let seen_revision =
                    world.cluster.view().read(|state| state.task(&task_id).unwrap().revision);
                let expiry = TaskExpiry { task_id: task_id.clone(), seen_revision, kind };
                let command = Command::ExpireTasks { epoch: world.epoch, expiries: vec![expiry] };
                if world.commit(command).await == (Outcome::Judged { accepted: 1, stale: 0 }) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            panic!("the timer is never due");
        };
        for attempt in 1..=2 {
            world.place(&id, "n").await;
            look(&mut seen).await;
            world.acknowledge(&id, attempt).await;
            look(&mut seen).await;
            expire(ExpiryKind::Attempt).await;
            look(&mut seen).await;
            if attempt == 1 {
                expire(ExpiryKind::BackOff).await;
                look(&mut seen).await;
            }
        }
        let order =
            ["PENDING", "QUEUED", "RUNNING", "RUNNING", "RUNNING", "RUNNING", "RUNNING", wanted];
        assert_eq!(seen, order);
        let listed = world.get(&format!("/{door}?status={wanted}")).await.ok();
        assert_eq!(listed[door][0]["id"], id, "{listed}");
    }
}
