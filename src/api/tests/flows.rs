//! Tasks in steps, pipelines and agents: contract 2.8, 4.2, 4.4, 4.5, 4.7, 8.4, C22.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::World;
use crate::model::{TaskFailure, TaskId};
use crate::state::{Command, Dispatch, DispatchResult, Outcome, TaskOutcome};

impl World {
    pub(super) async fn agent(&self, agent_id: &str, agent_type: &str) {
        let body = json!({"agent_id": agent_id, "agent_type": agent_type, "endpoint": "h:50052"});
        self.post("/api/v1/agents/register", &body.to_string()).await.ok();
    }

    /// Places a step, and ends its attempt as its agent's answer does.
    async fn step(&self, step: &str, holder: &str, outcome: TaskOutcome) {
        self.place(step, holder).await;
        let task_id = TaskId::trusted(step);
        let result = DispatchResult::Finished(outcome);
        let dispatches = vec![Dispatch { task_id, attempt: 1, again: false, result }];
        let command = Command::RecordDispatches { epoch: self.epoch, dispatches };
        assert_eq!(self.commit(command).await, Outcome::Judged { accepted: 1, stale: 0 });
    }

    /// Submits a task in steps for agents of the types `x` and `y`.
    async fn flow(&self, task_id: &str, more: &Value) {
        let steps = json!([{"agent_type": "x", "max_retries": 0},
            {"agent_type": "y", "max_retries": 0}]);
        let mut body = json!({"task_id": task_id, "task_type": "mine", "steps": steps});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        let answer = self.post("/api/v1/tasks", &body.to_string()).await.ok();
        assert_eq!(answer["status"], "queued");
    }
}

/// A batch of ten thousand could begin 640,000 steps in one entry of the log.
#[tokio::test]
async fn a_batch_begins_a_bounded_number_of_steps() {
    let world = World::new().await;
    let batch = |tasks: usize, mode| {
        let step = |n| json!({"name": format!("s{n}"), "agent_type": "x"});
        let steps: Vec<_> = (0..64).map(step).collect();
        let task = json!({"task_type": "mine", "execution_mode": mode, "steps": steps});
        json!({"tasks": vec![task; tasks]}).to_string()
    };
    let refused = world.post("/api/v1/tasks/batch", &batch(157, "parallel")).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (400, &json!("BATCH_SIZE")));
    assert_eq!(world.get("/api/v1/tasks").await.ok()["summary"]["pending_count"], 0);
    // Of those in turn only the first begin.
    let taken = world.post("/api/v1/tasks/batch", &batch(157, "sequential")).await.ok();
    assert_eq!(taken["created"], 157);
}

fn done(text: &str) -> TaskOutcome {
    TaskOutcome::Completed { result: text.to_owned() }
}

fn failed() -> TaskOutcome {
    TaskOutcome::Failed { failure: TaskFailure::Permanent, error: "odd".to_owned() }
}

const ONE: &str = r#"{"type":"ingested_data","data":1}"#;
const TWO: &str = r#"{"type":"analysis_result","data":2}"#;

/// The task as it is shown, which has every key of contract 8.4 and, of ours, four more.
async fn shown(world: &World, task_id: &str) -> Value {
    let shown = world.get(&format!("/api/v1/tasks/{task_id}")).await.ok();
    let keys = |value: &Value| -> Vec<String> {
        let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    let words = |text: &str| -> Vec<String> {
        let mut words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
        words.sort();
        words
    };
    let top = "success task_id status agent_executions output error metrics result task";
    assert_eq!(keys(&shown), words(top));
    let metrics = "total_duration_ms queue_time_ms execution_time_ms retry_count agents_used";
    assert_eq!(keys(&shown["metrics"]), words(metrics));
    let task = "task_id task_type status priority priority_raw assigned_nodes created_at started_at \
        completed_at timeout deadline retry_count max_retries execution_time node_id agent_id \
        requirements metadata result_data error_message performance_metrics \
        callback_url attempt state steps_total";
    assert_eq!(keys(&shown["task"]), words(task));
    for execution in shown["agent_executions"].as_array().unwrap() {
        for key in ["agent_id", "agent_type", "status", "execution_time_ms", "error"] {
            assert!(execution.get(key).is_some(), "{key} in {execution}");
        }
    }
    shown
}

async fn two_agents() -> World {
    let world = World::new().await;
    world.agent("a1", "x").await;
    world.agent("b1", "y").await;
    world
}

#[tokio::test]
async fn contract_4_5_a_sequential_task_through_its_life() {
    let world = two_agents().await;
    world.flow("s", &json!({"execution_mode": "sequential"})).await;
    let waiting = shown(&world, "s").await;
    assert_eq!((&waiting["status"], &waiting["output"]), (&json!("queued"), &Value::Null));
    world.step("s#0", "agent:a1", done(ONE)).await;
    let half = shown(&world, "s").await;
    assert_eq!((&half["status"], &half["task"]["status"]), (&json!("running"), &json!("running")));
    assert_eq!(half["agent_executions"][0]["agent_id"], "a1");
    world.step("s#1", "agent:b1", done(TWO)).await;
    let whole = shown(&world, "s").await;
    assert_eq!((&whole["status"], &whole["error"]), (&json!("completed"), &Value::Null));
    assert_eq!(whole["metrics"]["agents_used"], 2);
    let rows: Vec<_> = whole["agent_executions"].as_array().unwrap().iter().collect();
    assert_eq!((&rows[1]["agent_id"], &rows[1]["agent_type"]), (&json!("b1"), &json!("y")));
    assert_eq!(rows[1]["status"], "completed");
    let output = &whole["output"];
    assert_eq!(output["execution_mode"], "sequential");
    assert!(output["execution_time_ms"].is_u64());
    assert_eq!(
        (&output["agents_executed"], &output["pipeline_successful"], &output["final_output"]),
        (&json!(2), &json!(true), &json!(2))
    );
    assert_eq!((&output["type"], &output["data"]), (&json!("analysis_result"), &json!(2)));
    assert_eq!(output["pipeline_results"][0]["agent_type"], "x");
    assert_eq!((&whole["result"], &whole["task"]["result_data"]), (output, output));
}

#[tokio::test]
async fn contract_8_1_the_retries_of_a_task_are_those_of_its_steps() {
    let world = two_agents().await;
    let body = json!({"task_id": "r", "task_type": "report_generation", "max_retries": 1});
    world.post("/api/v1/tasks", &body.to_string()).await.ok();
    // Three steps, each tried once more. Without it each is tried three times more.
    assert_eq!(shown(&world, "r").await["task"]["max_retries"], 3);
    let body = json!({"task_id": "u", "task_type": "report_generation"});
    world.post("/api/v1/tasks", &body.to_string()).await.ok();
    assert_eq!(shown(&world, "u").await["task"]["max_retries"], 9);
}

#[tokio::test]
async fn contract_4_2_a_task_that_names_no_mode_is_sequential() {
    let world = two_agents().await;
    for task_type in ["data_analysis", "api_call", "report_generation"] {
        let pipeline = world.get(&format!("/api/v1/pipelines/{task_type}")).await.ok();
        assert_eq!(pipeline["pipeline"]["mode"], "sequential", "{pipeline}");
    }
}

#[tokio::test]
async fn contract_4_5_steps_that_were_never_begun_are_not_counted() {
    let world = two_agents().await;
    let steps = ["x", "y", "x"].map(|kind| json!({"agent_type": kind, "max_retries": 0}));
    let body = json!({"task_id": "s", "task_type": "mine", "steps": steps});
    world.post("/api/v1/tasks", &body.to_string()).await.ok();
    world.step("s#0", "agent:a1", done(ONE)).await;
    world.step("s#1", "agent:b1", failed()).await;
    let output = &shown(&world, "s").await["output"];
    assert_eq!(output["agents_executed"], 2, "{output}");
}

#[tokio::test]
async fn contract_4_5_a_failed_pipeline_is_failed_and_shows_what_it_has() {
    let world = two_agents().await;
    world.flow("s", &json!({"execution_mode": "sequential"})).await;
    world.step("s#0", "agent:a1", done(ONE)).await;
    world.step("s#1", "agent:b1", failed()).await;
    let task = shown(&world, "s").await;
    assert_eq!(
        (&task["status"], &task["error"]["code"]),
        (&json!("failed"), &json!("EXECUTION_FAILED"))
    );
    assert_eq!(task["output"]["pipeline_successful"], false);
    assert_eq!(task["output"]["final_output"], 1);
    assert_eq!(task["agent_executions"][1]["error"], "odd");
}

#[tokio::test]
async fn contract_4_5_a_parallel_task_fails_only_with_all_its_steps() {
    let world = two_agents().await;
    for task_id in ["p", "q"] {
        world.flow(task_id, &json!({"execution_mode": "parallel"})).await;
    }
    world.step("p#1", "agent:b1", failed()).await;
    world.step("p#0", "agent:a1", done(ONE)).await;
    let task = shown(&world, "p").await;
    assert_eq!(task["status"], "completed");
    let output = &task["output"];
    assert_eq!((&output["successful_agents"], &output["failed_agents"]), (&json!(1), &json!(1)));
    assert_eq!(output["results"], json!([1]));
    assert_eq!(output["errors"], json!([{"agent_id": "b1", "error": "odd"}]));
    world.step("q#1", "agent:b1", failed()).await;
    world.step("q#0", "agent:a1", failed()).await;
    let task = shown(&world, "q").await;
    assert_eq!(
        (&task["status"], &task["error"]["code"]),
        (&json!("failed"), &json!("EXECUTION_FAILED"))
    );
}

#[tokio::test]
async fn contract_4_5_hybrid_and_graph() {
    let world = two_agents().await;
    world.flow("h", &json!({"execution_mode": "hybrid"})).await;
    world.step("h#0", "agent:a1", done(ONE)).await;
    world.step("h#1", "agent:b1", done(TWO)).await;
    let output = shown(&world, "h").await["output"].clone();
    assert_eq!(output["execution_mode"], "hybrid");
    assert_eq!((&output["stage1_results"], &output["stage2_results"]), (&json!([1]), &json!([2])));
    assert_eq!(output["final_output"], 2);
    let steps = json!([{"name": "join", "agent_type": "y", "depends_on": ["l", "r"]},
        {"name": "l", "agent_type": "x"}, {"name": "r", "agent_type": "x"}]);
    world.flow("g", &json!({"steps": steps})).await;
    world.step("g#0", "agent:a1", done(ONE)).await;
    world.step("g#1", "agent:a1", done(TWO)).await;
    world.step("g#2", "agent:b1", done(r#"{"type":"json_report","data":{"title":"T"}}"#)).await;
    let task = shown(&world, "g").await;
    let output = &task["output"];
    assert_eq!(
        (&output["execution_mode"], &output["type"]),
        (&json!("graph"), &json!("json_report"))
    );
    assert_eq!(output["steps"], json!({"l": 1, "r": 2, "join": {"title": "T"}}));
    assert_eq!(output["title"], "T", "a report's fields stand at the top, too");
}

#[tokio::test]
async fn contract_2_8_redundancy_is_done_by_one_of_many() {
    let world = World::new().await;
    world.register("n1").await;
    world.register("n2").await;
    let body = r#"{"task_id":"c","task_type":"t","requirements":{"redundancy":2}}"#;
    world.post("/api/v1/tasks", body).await.ok();
    world.place("c#1", "n2").await;
    world.step("c#0", "n1", done(r#"{"w":7}"#)).await;
    let task = shown(&world, "c").await;
    assert_eq!((&task["status"], &task["result"]), (&json!("completed"), &json!({"w": 7})));
    assert_eq!(task["task"]["steps_total"], 2);
    assert_eq!(task["task"]["assigned_nodes"], json!(["n1", "n2"]));
    let words: Vec<_> = task["agent_executions"].as_array().unwrap().iter().collect();
    assert_eq!(
        (&words[0]["status"], &words[1]["status"]),
        (&json!("completed"), &json!("cancelled"))
    );
}

/// Node clients put the id into the path as it is, and nothing from `#` on is sent.
#[tokio::test]
async fn contract_2_7_a_copy_is_reported_without_escaping_its_id() {
    let world = World::new().await;
    world.register("n1").await;
    world.register("n2").await;
    let body = r#"{"task_id":"c","task_type":"t","requirements":{"redundancy":2}}"#;
    world.post("/api/v1/tasks", body).await.ok();
    world.post("/api/v1/tasks", r#"{"task_id":"plain","task_type":"t"}"#).await.ok();
    world.place("c#0", "n1").await;
    world.place("c#1", "n2").await;
    let report = |more: Value| {
        let mut body = json!({"status": "completed", "result": {"w": 7}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.to_string()
    };
    let unclear = world.post("/api/v1/tasks/c", &report(json!({}))).await;
    assert_eq!(unclear.json()["code"], "COPY_UNKNOWN", "{}", unclear.text);
    let other = world.post("/api/v1/tasks/c", &report(json!({"node_id": "n3"}))).await;
    assert_eq!(other.json()["code"], "COPY_UNKNOWN", "{}", other.text);
    for no_copies in ["plain", "none"] {
        let answer = world.post(&format!("/api/v1/tasks/{no_copies}"), &report(json!({}))).await;
        assert_eq!(answer.json()["code"], "METHOD_NOT_ALLOWED", "{}", answer.text);
    }
    world.post("/api/v1/tasks/c", &report(json!({"node_id": "n2"}))).await.ok();
    let task = shown(&world, "c").await;
    assert_eq!((&task["status"], &task["result"]), (&json!("completed"), &json!({"w": 7})));
    assert_eq!(task["task"]["node_id"], "n2");
}

#[tokio::test]
async fn steps_are_counted_with_their_task_alone() {
    let world = two_agents().await;
    world.flow("s", &json!({})).await;
    world.step("s#0", "agent:a1", done(ONE)).await;
    let list = world.get("/api/v1/tasks").await.ok();
    let summary = json!({"pending_count": 0, "active_count": 1, "completed_count": 0,
        "failed_count": 0});
    assert_eq!(list["summary"], summary);
    assert_eq!(list["tasks"]["active"][0]["task_id"], "s");
    assert_eq!(list["tasks"]["completed"], json!([]));
    let taken = world.post("/api/v1/tasks", r#"{"task_id":"s#1","task_type":"t"}"#).await;
    assert_eq!(taken.status, StatusCode::BAD_REQUEST, "no client can take a step's place");
    world.call("DELETE", "/api/v1/tasks/s", "").await.ok();
    let task = shown(&world, "s").await;
    assert_eq!(task["status"], "cancelled");
    assert_eq!(task["agent_executions"][1]["status"], "cancelled");
}

#[tokio::test]
async fn contract_4_2_what_clients_are_told_to_expect() {
    let world = World::new().await;
    for (task_type, estimate_ms) in [
        ("report_generation", 3000),
        ("real_time_monitoring", 500),
        ("data_analysis", 2000),
        ("api_call", 300),
        ("content_summarization", 1000),
    ] {
        let body = json!({"task_type": task_type, "inputs": [{"type": "text", "data": "x"}]});
        let answer = world.post("/api/v1/tasks", &body.to_string()).await.ok();
        assert_eq!(
            (&answer["status"], &answer["message"]),
            (&json!("queued"), &json!("Task submitted successfully"))
        );
        assert_eq!(answer["estimated_completion_ms"], estimate_ms, "{task_type}");
    }
}

#[tokio::test]
async fn contract_4_4_pipelines_are_built_in_and_can_be_defined() {
    let world = World::new().await;
    let list = world.get("/api/v1/pipelines").await.ok();
    assert_eq!(list["total"], 8);
    assert!(list["pipelines"].as_array().unwrap().iter().all(|one| one["builtin"] == true));
    let report = world.get("/api/v1/pipelines/report_generation").await.ok();
    let agents: Vec<_> = report["pipeline"]["steps"].as_array().unwrap().iter().collect();
    let agents: Vec<_> = agents.iter().map(|step| step["agent_type"].as_str().unwrap()).collect();
    assert_eq!(agents, ["data_ingest", "data_analysis", "synthesis"]);
    assert_eq!(report["pipeline"]["mode"], "sequential");
    let path = "/api/v1/pipelines/mine";
    assert_eq!(world.get(path).await.json()["code"], "PIPELINE_NOT_FOUND");
    let body = r#"{"mode":"parallel","estimated_completion_ms":70,
        "steps":[{"agent_type":"x","timeout_ms":50,"parameters":{"k":1}},{"agent_type":"y"}]}"#;
    let put = world.call("PUT", path, body).await.ok();
    assert_eq!(put, json!({"success": true, "message": "Pipeline updated"}));
    let step = |name: &str, timeout: Value, parameters: Value| {
        json!({"name": name, "agent_type": name, "depends_on": [], "max_retries": 3,
            "timeout_ms": timeout, "parameters": parameters})
    };
    let steps = [step("x", json!(50), json!({"k": 1})), step("y", Value::Null, json!({}))];
    let expected = json!({"task_type": "mine", "mode": "parallel", "builtin": false,
        "estimated_completion_ms": 70, "steps": steps});
    assert_eq!(world.get(path).await.ok()["pipeline"], expected);
    let body = r#"{"task_id":"m","task_type":"mine"}"#;
    let submitted = world.post("/api/v1/tasks", body).await.ok();
    assert_eq!(submitted["estimated_completion_ms"], 70, "its tasks are of family A");
    assert_eq!(shown(&world, "m").await["task"]["steps_total"], 2);
    let removed = world.call("DELETE", path, "").await.ok();
    assert_eq!(removed, json!({"success": true, "message": "Pipeline removed"}));
    let again = world.call("DELETE", path, "").await;
    assert_eq!(
        (again.status, &again.json()["code"]),
        (StatusCode::NOT_FOUND, &json!("PIPELINE_NOT_FOUND"))
    );
}

#[tokio::test]
async fn contract_4_4_a_built_in_pipeline_comes_back() {
    let world = World::new().await;
    let path = "/api/v1/pipelines/data_analysis";
    let before = world.get(path).await.ok();
    world.call("PUT", path, r#"{"steps":[{"agent_type":"x"}]}"#).await.ok();
    assert_eq!(world.get(path).await.ok()["pipeline"]["builtin"], false);
    assert_eq!(world.get("/api/v1/pipelines").await.ok()["total"], 8);
    world.call("DELETE", path, "").await.ok();
    assert_eq!(world.get(path).await.ok(), before);
    for (body, code) in [
        ("", "INVALID_PIPELINE"),
        (r#"{"steps":[]}"#, "INVALID_PIPELINE"),
        (r#"{"steps":[{}]}"#, "INVALID_PIPELINE"),
        (r#"{"mode":"odd","steps":[{"agent_type":"x"}]}"#, "INVALID_PIPELINE"),
        (r#"{"steps":7}"#, "INVALID_FIELD"),
        ("{", "INVALID_BODY"),
    ] {
        let answer = world.call("PUT", path, body).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (StatusCode::BAD_REQUEST, &json!(code)),
            "{body}"
        );
    }
}

#[tokio::test]
async fn contract_4_7_registering_again_is_a_heartbeat() {
    let world = World::new().await;
    let path = "/api/v1/agents/register";
    let body = r#"{"agent_id":"a1","agent_type":"x","endpoint":"10.0.0.1:50052",
        "capabilities":["b","a"],"max_concurrent_tasks":3,"metadata":{"version":"2"}}"#;
    let first = world.post(path, body).await.ok();
    assert_eq!((&first["success"], &first["agent_id"]), (&json!(true), &json!("a1")));
    assert_eq!(first["message"], "Agent a1 registered successfully");
    let index = world.cluster.view().applied().unwrap().index;
    assert_eq!(world.post(path, body).await.ok(), first, "the token is the same, too");
    assert_eq!(world.cluster.view().applied().unwrap().index, index, "no log entry");
    let agent = world.get("/api/v1/agents/a1").await.ok()["agent"].clone();
    for (key, value) in [
        ("agent_id", json!("a1")),
        ("agent_type", json!("x")),
        ("endpoint", json!("10.0.0.1:50052")),
        ("capabilities", json!(["a", "b"])),
        ("max_concurrent_tasks", json!(3)),
        ("current_tasks", json!(0)),
        ("healthy", json!(true)),
        ("metadata", json!({"version": "2"})),
        ("source", json!("agents")),
    ] {
        assert_eq!(agent[key], value, "{key}");
    }
    assert!(agent["last_heartbeat"].as_f64().unwrap() > 1.6e9);
    let leaving = body.replace(r#""version":"2""#, r#""state":"leaving""#);
    world.post(path, &leaving).await.ok();
    assert_eq!(world.get("/api/v1/agents/a1").await.ok()["agent"]["healthy"], false);
    let wrong = world.post(path, r#"{"agent_id":"a1","agent_type":"x"}"#).await;
    assert_eq!(
        (wrong.status, &wrong.json()["code"]),
        (StatusCode::BAD_REQUEST, &json!("INVALID_AGENT"))
    );
}

#[tokio::test]
async fn contract_c22_agents_of_both_families_are_listed_with_their_source() {
    let world = two_agents().await;
    let body = r#"{"host":"h","agents":[{"agent_id":"a1","agent_type":"x","status":"online"}]}"#;
    world.post("/api/v1/nodes/n1/register", body).await.ok();
    let list = world.get("/api/v1/agents").await.ok();
    let sources = |list: &Value| -> Vec<(String, String)> {
        let agents = list["agents"].as_object().unwrap().iter();
        agents.map(|(key, one)| (key.clone(), one["source"].as_str().unwrap().to_owned())).collect()
    };
    let named = |key: &str, source: &str| (key.to_owned(), source.to_owned());
    let mut all = sources(&list);
    all.sort();
    let expected = [named("a1", "web4ai"), named("agent:a1", "agents"), named("b1", "agents")];
    assert_eq!((all.as_slice(), &list["total_agents"]), (expected.as_slice(), &json!(3)));
    // A page left the agents of family A out.
    let page = world.get("/api/v1/agents?agent_type=x").await.ok();
    let mut page_sources = sources(&page);
    page_sources.sort();
    assert_eq!((page_sources.as_slice(), &page["total"]), (&expected[..2], &json!(2)));
    let page = world.get("/api/v1/agents?agent_type=y").await.ok();
    assert_eq!(page["order"], json!(["b1"]));
    let one = world.get("/api/v1/agents/agent:a1").await.ok();
    assert_eq!(one["agent"]["source"], "agents");
    assert_eq!(world.get("/api/v1/agents/a1").await.ok()["agent"]["source"], "web4ai");
    assert_eq!(world.get("/api/v1/agents/nope").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_concurrency_key_holds_whatever_a_plan_says() {
    let world = World::new().await;
    world.register("n1").await;
    for task_id in ["a", "b", "c"] {
        let limit = json!({"key": "db", "max": 2});
        let body = json!({"task_id": task_id, "task_type": "t", "concurrency": limit});
        world.post("/api/v1/tasks", &body.to_string()).await.ok();
    }
    world.place("a", "n1").await;
    world.place("b", "n1").await;
    let view = world.cluster.view();
    let seen_revision = view.read(|state| state.task(&TaskId::trusted("c")).unwrap().revision);
    let assignment = crate::state::Assignment {
        task_id: TaskId::trusted("c"),
        seen_revision,
        node_id: crate::model::NodeId::trusted("n1"),
    };
    let command = Command::AssignTasks { epoch: world.epoch, assignments: vec![assignment] };
    assert_eq!(world.commit(command).await, Outcome::Judged { accepted: 0, stale: 1 });
    world.post("/api/v1/tasks/a/result", r#"{"success":true}"#).await.ok();
    world.place("c", "n1").await;
}

#[tokio::test]
async fn contract_4_6_a_task_that_takes_longer_than_its_time_ends_with_timeout() {
    let world = two_agents().await;
    world.flow("s", &json!({"execution_mode": "sequential", "timeout_ms": 20})).await;
    world.step("s#0", "agent:a1", done(ONE)).await;
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    // The timers' duty looks for what is due, and apply sees that it is.
    let expiries = world.cluster.view().read(|state| {
        let due = state.due_timers(crate::clock::now_ms());
        let expiry = |(task, kind): (&crate::model::Task, _)| crate::state::TaskExpiry {
            task_id: task.task_id.clone(),
            seen_revision: task.revision,
            kind,
        };
        due.map(expiry).collect()
    });
    world.commit(Command::ExpireTasks { epoch: world.epoch, expiries }).await;
    let task = shown(&world, "s").await;
    assert_eq!((&task["status"], &task["error"]["code"]), (&json!("failed"), &json!("TIMEOUT")));
    assert_eq!(
        (&task["task"]["status"], &task["error"]["retryable"]),
        (&json!("timeout"), &json!(false))
    );
    assert_eq!(task["agent_executions"][0]["status"], "completed");
    assert_eq!(task["agent_executions"][1]["status"], "cancelled");
}
