//! All dead letters at once, where many of them may not be touched.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::World;
use super::control::dead_letter;
use crate::model::{JobTemplate, Requirements, Task, TaskStatus};
use crate::state::{CampaignCommand, Command, JobRequest, Outcome, StepRefusal};

/// As many as one request takes.
const MANY: usize = 1000;
const ALL: &str = r#"{"all":true}"#;

/// Makes dead letters of all tasks that wait for agents: nobody serves them.
async fn refuse_all(world: &World) {
    let refusal =
        |task: &Task| StepRefusal { task_id: task.task_id.clone(), seen_revision: task.revision };
    let refusals: Vec<StepRefusal> = world.cluster.view().read(|state| {
        let pending = state.rows_after(0).filter(|task| task.status == TaskStatus::Pending);
        pending.map(|task| refusal(&task)).collect()
    });
    let all = Outcome::Judged { accepted: refusals.len() as u32, stale: 0 };
    let command = Command::RefuseSteps { epoch: world.epoch, refusals };
    assert_eq!(world.commit(command).await, all);
}

#[tokio::test]
async fn naming_some_and_meaning_all_is_refused() {
    let world = World::new().await;
    for word in ["purge", "replay"] {
        let body = r#"{"all":true,"task_ids":["t1"]}"#;
        let answer = world.post(&format!("/api/v1/dead-letters/{word}"), body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{word}");
        assert!(answer.text.contains("INVALID_FIELD"), "{}", answer.text);
    }
}

async fn changed(world: &World, word: &str, body: &str) -> (u64, u64, u64) {
    let answer = world.post(&format!("/api/v1/dead-letters/{word}"), body).await.ok();
    let count = |key: &str| answer[key].as_u64().unwrap_or_else(|| panic!("{key}: {answer}"));
    (count("accepted"), count("skipped"), count("remaining"))
}

/// Such jobs, ahead of all others, once were all that a request ever looked at.
#[tokio::test]
async fn all_dead_letters_are_replayed_behind_a_thousand_jobs() {
    let world = World::new().await;
    let agent_type = Some("nobody".to_owned());
    let job = JobTemplate {
        task_type: "dft".to_owned(),
        requirements: Requirements { agent_type, ..Requirements::default() },
        timeout_ms: 1000,
        ..JobTemplate::default()
    };
    let structure_ids = (0..MANY).map(|number| format!("s{number}")).collect();
    let request = JobRequest { structure_ids, job, priority: 5, ..JobRequest::default() };
    let command = CampaignCommand::RequestJobs(Box::new(request));
    world.commit(Command::Campaign(command)).await;
    refuse_all(&world).await;
    world.register("n1").await;
    dead_letter(&world, "late").await;
    assert_eq!(changed(&world, "replay", ALL).await, (1, 0, 1000));
    assert_eq!(world.get("/api/v1/tasks/late").await.ok()["status"], "queued");
    assert_eq!(changed(&world, "replay", ALL).await, (0, 0, 1000), "what is left is still told");
    dead_letter(&world, "later").await;
    assert_eq!(changed(&world, "purge", ALL).await, (1000, 0, 1), "jobs may be deleted");
    assert_eq!(changed(&world, "purge", ALL).await, (1, 0, 0));
}

#[tokio::test]
async fn all_dead_letters_are_purged_behind_a_thousand_whose_end_is_still_to_be_told() {
    let world = World::new().await;
    let hosts = r#"{"security":{"outward":{"allowed_hosts":["c.example"]}}}"#;
    world.put("/api/v1/config", hosts).await.ok();
    let task = |number: usize| -> Value {
        json!({"task_id": format!("told-{number}"), "task_type": "mine",
            "callback_url": "http://c.example/", "max_retries": 0,
            "steps": [{"agent_type": "nobody", "max_retries": 0}]})
    };
    for from in (0..MANY).step_by(500) {
        let tasks: Vec<Value> = (from..from + 500).map(task).collect();
        world.post("/api/v1/tasks/batch", &json!({"tasks": tasks}).to_string()).await.ok();
        refuse_all(&world).await;
    }
    world.register("n1").await;
    dead_letter(&world, "late").await;
    let named = r#"{"task_ids":["told-0","late"]}"#;
    assert_eq!(changed(&world, "replay", named).await, (1, 1, 1000));
    world.place("late", "n1").await;
    let report = r#"{"status":"failed","error":"e","retryable":true}"#;
    world.post("/api/v1/tasks/late/result", report).await.ok();
    assert_eq!(changed(&world, "purge", ALL).await, (1, 0, 1000));
}
