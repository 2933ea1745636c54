//! Family A through three members: its use cases (docs/examples) with agents that are built in and
//! with agents that are programs, while leaders and agents are lost.

use std::path::{Path, PathBuf};

use quorate::agent::proto::{
    ExecutionMode, Input, InputType, TaskCancelRequest, TaskRequest, TaskStatus, TaskStatusRequest,
    TaskUpdate,
};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::agents::{RUNS_ON, agent, client, found};
use crate::house::{House, STOP};
use crate::http::{PATIENCE, number, text, until};
use crate::process::Process;

/// A file of an example.
fn example(name: &str, file: &str) -> Value {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
    let path = root.join(name).join(file);
    let text = std::fs::read_to_string(&path);
    serde_json::from_str(&text.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        .unwrap()
}

/// Whether `found` is what the example expects, where `<number>`, `<text>` and `<id>` stand for any.
fn matches(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::String(word), found) if word == "<number>" => found.is_number(),
        (Value::String(word), found) if word == "<text>" || word == "<id>" => found.is_string(),
        (Value::Object(a), Value::Object(b)) => {
            let same = |(key, value): (&String, &Value)| {
                b.get(key).is_some_and(|found| matches(value, found))
            };
            a.len() == b.len() && a.iter().all(same)
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| matches(a, b))
        }
        (a, b) => a == b,
    }
}

/// The whole page of a task, once it is over.
async fn over(house: &House, place: usize, task_id: &str) -> Value {
    let url = house.url(place, &format!("/api/v1/tasks/{task_id}"));
    until(&format!("the end of {task_id}"), PATIENCE, || async {
        let body = house.http.get(&url).await.ok()?.body;
        let ended = ["completed", "failed", "cancelled"];
        ended.contains(&text(&body, "/status").as_str()).then_some(body)
    })
    .await
}

/// Which agent did the step of this kind.
fn doer(page: &Value, agent_type: &str) -> String {
    let all = page["agent_executions"].as_array().unwrap();
    let step = all.iter().find(|step| step["agent_type"] == agent_type);
    text(step.unwrap_or_else(|| panic!("no step of {agent_type} in {page}")), "/agent_id")
}

/// A report of sales, submitted through a member.
async fn submit_report(house: &House, place: usize, task_id: &str) {
    let mut request = example("sales-report", "request.json");
    request["task_id"] = json!(task_id);
    house.submit(place, &request).await;
}

fn report(task_id: &str) -> TaskRequest {
    let request = example("sales-report", "request.json");
    let sales = text(&request, "/inputs/0/data");
    TaskRequest {
        task_id: task_id.to_owned(),
        task_type: "report_generation".to_owned(),
        inputs: vec![Input {
            input_id: "sales".to_owned(),
            r#type: InputType::Text.into(),
            data: sales.into_bytes(),
            ..Input::default()
        }],
        metadata: ["report_title", "field"]
            .map(|key| (key.to_owned(), text(&request, &format!("/metadata/{key}"))))
            .into(),
        execution_mode: ExecutionMode::Sequential.into(),
        timeout_ms: 60_000,
        ..TaskRequest::default()
    }
}

fn of(task_id: &str) -> TaskStatusRequest {
    TaskStatusRequest { task_id: task_id.to_owned() }
}

/// Starts an agent with a name of its own and waits until a member shows it.
async fn named_agent(house: &House, name: &str, agent_type: &str, exec: Option<&str>) -> Process {
    let log = house.dir().join(format!("{name}.log"));
    let mut words = vec!["--agent-type", agent_type, "--agent-id", name];
    words.extend(exec.into_iter().flat_map(|program| ["--exec", program]));
    let (process, _) = agent(house, &words, &log).await;
    shows(house, name, "active").await;
    process
}

/// Waits until every member that runs shows an agent in this status.
async fn shows(house: &House, name: &str, status: &str) {
    for place in house.running() {
        let url = house.url(place, "/api/v1/agents");
        until(&format!("agent {name} is {status}"), PATIENCE, || async {
            let page = house.http.get(&url).await.ok()?.body.to_string();
            let agents = serde_json::from_str::<Value>(&page).ok()?;
            find(&agents, name, status).then_some(())
        })
        .await;
    }
}

/// Whether an object anywhere in `value` is this agent, in this status.
fn find(value: &Value, name: &str, status: &str) -> bool {
    match value {
        Value::Object(map) => {
            (value["agent_id"] == name && value["status"] == status)
                || map.values().any(|value| find(value, name, status))
        }
        Value::Array(all) => all.iter().any(|value| find(value, name, status)),
        _ => false,
    }
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

async fn line_in(path: &Path) -> String {
    until("a program has begun", PATIENCE, || async { lines(path).first().cloned() }).await
}

/// A member that had not applied a new pipeline yet refused its tasks, or took them for tasks of
/// nodes, which no agent ever did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_is_known_everywhere_once_it_is_acknowledged() {
    let house = found(3).await;
    let leader = house.leader().await;
    let step = |name| json!({"name": name, "agent_type": "data_ingest"});
    let pipeline = json!({"mode": "sequential", "steps": [step("a"), step("b")]});
    for n in 0..6 {
        let (task_type, follower) = (format!("mine_{n}"), (leader + 1 + n % 2) % 3);
        let url = house.url(leader, &format!("/api/v1/pipelines/{task_type}"));
        house.http.write(Method::PUT, &url, &pipeline).await;
        let mut task = json!({"task_id": format!("t-{n}"), "task_type": task_type});
        if n % 3 > 0 {
            task["inputs"] = json!([{"type": "text", "data": "a"}]);
        }
        if n % 3 == 2 {
            let url = house.url(follower, "/api/v1/tasks/batch");
            house.http.write(Method::POST, &url, &json!({"tasks": [task]})).await;
        } else {
            house.submit(follower, &task).await;
        }
        let page = over(&house, follower, &format!("t-{n}")).await;
        assert_eq!(page["task"]["steps_total"], 2, "{page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_use_cases_run_with_built_in_agents_and_with_programs() {
    let house = found(3).await;
    let leader = house.leader().await;
    let [first, second] = [(leader + 1) % 3, (leader + 2) % 3];

    // With those that are built in, over HTTP.
    for name in ["sales-report", "monitoring-alerts"] {
        let request = example(name, "request.json");
        house.submit(first, &request).await;
        let page = over(&house, second, request["task_id"].as_str().unwrap()).await;
        let expected = example(name, "expected.json");
        assert_eq!(page["output"]["type"], expected["type"], "{page}");
        assert!(matches(&expected["data"], &page["output"]["data"]), "{}", page["output"]);
        let steps = page["agent_executions"].as_array().unwrap();
        assert!(steps.iter().all(|step| text(step, "/agent_id").starts_with("builtin-")));
    }

    // Over gRPC, through both followers, to the end of the stream.
    let (mut one, mut two) = (client(&house, first).await, client(&house, second).await);
    let taken = one.submit_task(report("over-grpc")).await.unwrap().into_inner();
    assert_eq!(taken.status(), TaskStatus::Queued, "{}", taken.message);
    let mut stream = two.stream_task_updates(of("over-grpc")).await.unwrap().into_inner();
    let to_the_end = async {
        let mut all: Vec<TaskUpdate> = Vec::new();
        while let Some(update) = stream.message().await.unwrap() {
            all.push(update);
        }
        all
    };
    let updates = timeout(PATIENCE, to_the_end).await.expect("the stream ends with the task");
    let percents: Vec<i32> = updates.iter().map(|update| update.progress_percent).collect();
    assert!(percents.is_sorted() && percents.last() == Some(&100), "{percents:?}");
    assert_eq!(updates.last().unwrap().status(), TaskStatus::Completed);
    let task = two.get_task_status(of("over-grpc")).await.unwrap().into_inner();
    let output: Value = serde_json::from_str(&task.output.unwrap().json_data).unwrap();
    let mut expected = example("sales-report", "expected.json");
    expected["data"]["metadata"]["task_id"] = json!("over-grpc");
    assert!(matches(&expected["data"], &output["data"]), "{output}");
    assert_eq!((task.agent_executions.len(), task.metrics.unwrap().agents_used), (3, 3));

    // Programs of their own get all the work of their type, and no other.
    let _analyst = named_agent(&house, "analyst", "data_analysis", None).await;
    let _watcher = named_agent(&house, "watcher", "video_detection", None).await;
    let _alerter = named_agent(&house, "alerter", "alerting", None).await;
    for n in 0..6 {
        submit_report(&house, (first + n) % 3, &format!("report-{n}")).await;
    }
    let mut alerts = example("monitoring-alerts", "request.json");
    alerts["task_id"] = json!("alerts-again");
    house.submit(second, &alerts).await;
    for n in 0..6 {
        let page = over(&house, first, &format!("report-{n}")).await;
        assert_eq!(page["status"], "completed", "{page}");
        assert_eq!(doer(&page, "data_analysis"), "analyst");
        assert_eq!(doer(&page, "synthesis"), "builtin-synthesis");
        expected["data"]["metadata"]["task_id"] = page["task_id"].clone();
        assert!(matches(&expected["data"], &page["output"]["data"]), "{}", page["output"]);
    }
    let page = over(&house, first, "alerts-again").await;
    let steps = (doer(&page, "video_detection"), doer(&page, "alerting"));
    assert_eq!(steps, ("watcher".to_owned(), "alerter".to_owned()));
    let expected = example("monitoring-alerts", "expected.json");
    let found = page["output"]["data"]["alert_count"].clone();
    assert!(matches(&expected["data"]["alert_count"], &found), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_kills_the_program_of_the_running_agent() {
    let house = found(3).await;
    let leader = house.leader().await;
    let [first, second] = [(leader + 1) % 3, (leader + 2) % 3];
    let mark = house.dir().join("mark");
    let program = format!("echo $$ >> {}; {RUNS_ON}", mark.display());
    let _agent = named_agent(&house, "slow", "data_ingest", Some(&program)).await;
    let (mut one, mut two) = (client(&house, first).await, client(&house, second).await);
    one.submit_task(report("t")).await.unwrap();
    let pid = line_in(&mark).await;
    let runs = || Path::new(&format!("/proc/{pid}")).exists();
    assert!(runs());
    let status = two.get_task_status(of("t")).await.unwrap().into_inner();
    assert_eq!(status.status(), TaskStatus::Running);
    assert_eq!(status.agent_executions[0].agent_id, "slow");
    let cancel = TaskCancelRequest { task_id: "t".to_owned(), reason: "enough".to_owned() };
    let answer = two.cancel_task(cancel).await.unwrap().into_inner();
    assert!(answer.success, "{}", answer.message);
    until("the program is gone", PATIENCE, || async { (!runs()).then_some(()) }).await;
    let status = one.get_task_status(of("t")).await.unwrap().into_inner();
    assert_eq!(status.status(), TaskStatus::Cancelled);
    assert_eq!(status.error.unwrap().error_code, "CANCELLED");
    assert_eq!(lines(&mark).len(), 1, "it is not tried again");
}

/// The leader's call dies with it, and whoever leads next may have begun the step again before it
/// learns of the cancel: in the end nothing of it runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_while_the_leader_changes_stops_the_running_agent() {
    let mut house = found(3).await;
    let leader = house.leader().await;
    let follower = (leader + 1) % 3;
    let mark = house.dir().join("mark");
    let program = format!("echo $$ >> {}; {RUNS_ON}", mark.display());
    let _agent = named_agent(&house, "slow", "data_ingest", Some(&program)).await;
    submit_report(&house, follower, "t").await;
    line_in(&mark).await;
    house.kill(leader);
    let mut client = client(&house, follower).await;
    let cancel = TaskCancelRequest { task_id: "t".to_owned(), reason: "enough".to_owned() };
    let answer = client.cancel_task(cancel).await.unwrap().into_inner();
    assert!(answer.success, "{}", answer.message);
    let runs = |pid: &String| Path::new(&format!("/proc/{pid}")).exists();
    let gone = || async { (!lines(&mark).iter().any(runs)).then_some(()) };
    until("no program of the task runs", PATIENCE, gone).await;
    let status = client.get_task_status(of("t")).await.unwrap().into_inner();
    assert_eq!(status.status(), TaskStatus::Cancelled);
    assert!(lines(&mark).len() <= 2, "a task that was cancelled is not begun: {:?}", lines(&mark));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_finished_is_not_run_again_by_the_next_leader() {
    let mut house = found(3).await;
    let leader = house.leader().await;
    let follower = (leader + 1) % 3;
    let file = |name: &str| house.dir().join(name);
    let (ingested, analysed, go) = (file("ingested"), file("analysed"), file("go"));
    // What they were given is taken off standard input, and what they ran for is written down.
    let said = "echo $QUORATE_AGENT_TASK_ID >>";
    let ingest = format!(
        "{said} {}; cat >/dev/null; \
         echo '{{\"type\":\"ingested_data\",\"data\":{{\"records\":[{{\"revenue\":1}},{{\"revenue\":3}}],\"count\":2}}}}'",
        ingested.display()
    );
    let analyse = format!(
        "{said} {}; cat >/dev/null; while [ ! -e {} ]; do kill -0 $PPID || exit 1; sleep 0.05; done; \
         echo '{{\"type\":\"analysis_result\",\"data\":{{\"summary_statistics\":{{\"count\":2}},\
         \"insights\":[],\"anomalies\":[],\"trends\":[],\"record_count\":2}}}}'",
        analysed.display(),
        go.display()
    );
    let _ingester = named_agent(&house, "ingester", "data_ingest", Some(&ingest)).await;
    let _analyst = named_agent(&house, "analyst", "data_analysis", Some(&analyse)).await;
    submit_report(&house, follower, "t").await;
    let attempt = line_in(&analysed).await;
    assert_eq!(lines(&ingested).len(), 1);
    house.kill(leader);
    house.leader().await;
    std::fs::write(&go, "").unwrap();
    let page = over(&house, follower, "t").await;
    assert_eq!(page["status"], "completed", "{page}");
    assert_eq!(lines(&ingested).len(), 1, "{:?}", lines(&ingested));
    // The call of the dead leader ended with it. Whoever leads has the same attempt done, or a later.
    assert!(lines(&analysed).iter().all(|line| line.starts_with("t#1@")), "{attempt}");
    assert_eq!(doer(&page, "data_ingest"), "ingester");
    assert_eq!(number(&page, "/metrics/agents_used"), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_is_tried_elsewhere_when_its_agent_dies_and_fails_when_there_is_none() {
    let house = found(3).await;
    let leader = house.leader().await;
    let follower = (leader + 1) % 3;
    // Nobody does this, and that takes a while to be sure of (contract 4.6: 2, 4, 8 s).
    let nobody = json!({
        "task_id": "lonely", "task_type": "show", "steps": [{"agent_type": "juggling"}],
    });
    house.submit(follower, &nobody).await;

    let (began, go) = (house.dir().join("began"), house.dir().join("go"));
    let program = format!(
        "echo $QUORATE_AGENT_ID >> {}; cat >/dev/null; \
         while [ ! -e {} ]; do kill -0 $PPID || exit 1; sleep 0.05; done; \
         echo '{{\"type\":\"ingested_data\",\"data\":{{\"records\":[{{\"revenue\":1}},{{\"revenue\":3}}],\"count\":2}}}}'",
        began.display(),
        go.display()
    );
    let mut agents = Vec::new();
    for name in ["one", "two"] {
        agents.push((name, named_agent(&house, name, "data_ingest", Some(&program)).await));
    }
    submit_report(&house, follower, "t").await;
    let holder = line_in(&began).await;
    let (_, killed) = agents.iter_mut().find(|(name, _)| *name == holder).unwrap();
    killed.kill();
    std::fs::write(&go, "").unwrap();
    let page = over(&house, follower, "t").await;
    assert_eq!(page["status"], "completed", "{page}");
    let other = if holder == "one" { "two" } else { "one" };
    assert_eq!(doer(&page, "data_ingest"), other);
    assert!(number(&page, "/metrics/retry_count") >= 1, "{page}");

    let page = over(&house, follower, "lonely").await;
    assert_eq!(page["status"], "failed", "{page}");
    let said = text(&page, "/error/message");
    assert!(said.contains("No available agents for type: juggling"), "{said}");
    assert_eq!(page["error"]["code"], "AGENT_UNAVAILABLE");
    assert_eq!(page["error"]["retryable"], false);
    assert_eq!(number(&page, "/metrics/retry_count"), 3);
    let took = number(&page, "/metrics/total_duration_ms");
    assert!(took >= 14_000, "2, 4 and 8 seconds are more than {took} ms");
    let task = client(&house, leader).await.get_task_status(of("lonely")).await.unwrap();
    assert_eq!(task.into_inner().error.unwrap().error_code, "AGENT_UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_leaves_finishes_its_step_and_gets_no_other() {
    let house = found(3).await;
    let follower = (house.leader().await + 1) % 3;
    let (began, go) = (house.dir().join("began"), house.dir().join("go"));
    let program = format!(
        "echo $QUORATE_TASK_ID >> {}; cat >/dev/null; \
         while [ ! -e {} ]; do kill -0 $PPID || exit 1; sleep 0.05; done; \
         echo '{{\"type\":\"ingested_data\",\"data\":{{\"records\":[{{\"revenue\":1}},{{\"revenue\":3}}],\"count\":2}}}}'",
        began.display(),
        go.display()
    );
    let mut leaver = named_agent(&house, "leaver", "data_ingest", Some(&program)).await;
    submit_report(&house, follower, "held").await;
    line_in(&began).await;
    leaver.signal(Signal::TERM);
    until("the agent is not active", PATIENCE, || async {
        let page = house.http.get(&house.url(follower, "/api/v1/agents")).await.ok()?.body;
        (!find(&page, "leaver", "active")).then_some(())
    })
    .await;
    for n in 0..3 {
        submit_report(&house, follower, &format!("later-{n}")).await;
    }
    for n in 0..3 {
        let page = over(&house, follower, &format!("later-{n}")).await;
        assert_eq!(page["status"], "completed", "{page}");
        assert_eq!(doer(&page, "data_ingest"), "builtin-data_ingest");
    }
    std::fs::write(&go, "").unwrap();
    let page = over(&house, follower, "held").await;
    assert_eq!(doer(&page, "data_ingest"), "leaver");
    assert_eq!(page["status"], "completed", "{page}");
    assert!(leaver.exit(STOP).await.success(), "{}", leaver.said());
    assert_eq!(lines(&began), ["held"]);
}
