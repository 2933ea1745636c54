//! Drills on real processes: each once, what is refused, and that whatever is broken heals, also
//! when whoever broke it dies.

use std::process::{Command, Output};
use std::time::Duration;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::house::House;
use crate::http::{CALL, PATIENCE, Reply, number, text, until};
use crate::process::{Process, quorate};

const KEY: &str = "a key that only tests know";
const ALLOWED: &str = "  admin_key: a key that only tests know\n  drills: { enabled: true }\n";
/// Short, but longer than an election on a busy machine.
const TIMES: [&str; 6] = ["--before", "1s", "--hold", "2s", "--after", "1500ms"];

/// `quorate drill` with `words`, as a program would run it.
async fn drill(words: &[&str]) -> (i32, Value) {
    drill_by(quorate(), words).await
}

async fn drill_by(mut command: Command, words: &[&str]) -> (i32, Value) {
    command.arg("drill").args(words).args(["-o", "json"]);
    outcome(command).await
}

/// How a program ended, and what it printed.
async fn outcome(mut command: Command) -> (i32, Value) {
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let Output { status, stdout, stderr } = run.await.unwrap();
    let said = String::from_utf8_lossy(&stderr);
    let code = status.code().unwrap_or_else(|| panic!("{status}: {said}"));
    let json = serde_json::from_slice(&stdout).unwrap_or_else(|_| json!({ "said": said }));
    (code, json)
}

/// The same, on a cluster.
async fn drill_on(house: &House, words: &[&str]) -> (i32, Value) {
    let urls = house.urls().join(",");
    let more = ["--url", &urls, "--admin-key", KEY];
    drill(&[words, &more[..]].concat()).await
}

async fn admin(house: &House, place: usize, key: Option<&str>) -> Reply {
    let url = house.url(place, "/api/v1/admin/drills");
    let mut request = reqwest::Client::new().get(&url);
    if let Some(key) = key {
        request = request.header("X-Quorate-Admin-Key", key);
    }
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Reply { status, headers, body: answer.json().await.unwrap() }
}

async fn faults(house: &House, place: usize) -> usize {
    let account = admin(house, place, Some(KEY)).await;
    assert_eq!(account.status, 200, "{}", account.body);
    account.body["faults"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_drill_is_passed_once() {
    let mut house = House::found_with(3, ALLOWED).await;
    let kinds: [&[&str]; 6] = [
        &["failover"],
        &["transfer"],
        &["pause"],
        &["partition", "--way", "out"],
        &["disk-slow", "--delay", "30ms"],
        &["restore"],
    ];
    for (id, words) in (1..).zip(kinds) {
        house.all_ready().await;
        let (code, report) = drill_on(&house, &[words, &TIMES].concat()).await;
        assert_eq!(code, 0, "{words:?}: {report:#}");
        assert_eq!(number(&report, "/drill_id"), id);
        assert_eq!(text(&report, "/verdict/state"), "passed");
        assert!(number(&report, "/writes/acknowledged") > 20, "{report:#}");
        assert_eq!(number(&report, "/lost/count") + number(&report, "/doubled/count"), 0);
        let changes_leader = !matches!(words[0], "disk-slow" | "restore");
        let phases = report["phases"].as_array().unwrap();
        let named = |name: &str| phases.iter().any(|phase| phase["name"] == name);
        assert_eq!(named("epoch open") && named("first dispatch"), changes_leader, "{report:#}");
        // Every member remembers it, and nothing is left of it.
        for place in 0..3 {
            let url = house.url(place, &format!("/api/v1/drills/{id}"));
            let stored = house.http.read(&url).await;
            assert_eq!(stored["drill"]["state"], "passed");
            assert_eq!(stored["report"], report, "as it was told");
            assert_eq!(faults(&house, place).await, 0);
        }
    }
    let nodes = house.http.read(&house.url(0, "/api/v1/nodes")).await;
    assert!(!nodes.to_string().contains("drill-"), "a probe node is left: {nodes}");
    house.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_on_a_calendar_is_done_when_it_is_due() {
    let house = House::found_with(3, ALLOWED).await;
    let urls = house.urls().join(",");
    let words = ["drill", "serve", "--url", &urls, "--admin-key", KEY, "--advertise", "localhost"];
    let _worker = Process::start("w", &words, &house.dir().join("w"));
    let line = ["drill", "schedule", "often", "--every", "4", "--url", &urls, "-o", "json", "--"];
    let mut command = quorate();
    command.args(line).arg("failover").args(TIMES);
    let (code, state) = outcome(command).await;
    assert_eq!(
        (code, &state["name"], &state["mode"]),
        (0, &json!("drill-often"), &json!("SCHEDULED"))
    );
    let path = "/api/v1/orchestrator/runs?name=drill-often";
    let ended = until("two drills are done", PATIENCE * 2, || async {
        // A member that a drill keeps silent answers nobody.
        let mut runs = Vec::new();
        for place in 0..3 {
            let url = house.url(place, path);
            let reply = house.http.send(Method::GET, &url, None, None, CALL).await.unwrap();
            if reply.status == 200 {
                runs = reply.body.as_array().unwrap().clone();
            }
        }
        let ended = runs.into_iter().filter(|run| run["completed_at"].is_string());
        let ended: Vec<Value> = ended.collect();
        (ended.len() >= 2).then_some(ended)
    });
    let ended = ended.await;
    let off = "/api/v1/orchestrator/deactivate?name=drill-often";
    until("no drill is under way", PATIENCE, || async {
        let reply = house.http.send(Method::POST, &house.url(0, off), None, None, CALL).await;
        (reply.unwrap().status == 200).then_some(())
    })
    .await;
    until("every drill has ended", PATIENCE, || async {
        let url = house.url(0, "/api/v1/drills");
        let drills = house.http.send(Method::GET, &url, None, None, CALL).await.unwrap();
        let over = drills.status == 200 && !drills.body.to_string().contains("running");
        over.then_some(())
    })
    .await;
    for run in &ended {
        assert_eq!(
            (&run["success"], &run["triggered_by"]),
            (&json!(true), &json!("scheduler")),
            "{run:#}"
        );
        assert_eq!(
            (&run["result"]["state"], &run["result"]["kind"]),
            (&json!("passed"), &json!("failover"))
        );
        let id = number(run, "/result/drill_id");
        let stored = house.http.read(&house.url(1, &format!("/api/v1/drills/{id}"))).await;
        assert_eq!(text(&stored, "/report/verdict/state"), "passed", "the report is kept");
    }
    assert_ne!(ended[0]["result"]["drill_id"], ended[1]["result"]["drill_id"]);
    let slots = "/api/v1/orchestrator/slots?name=drill-often";
    let slots = house.http.read(&house.url(2, slots)).await;
    for slot in slots["slots"].as_array().unwrap() {
        let decision = text(slot, "/decision");
        assert!(["ran", "skipped_overlap", "skipped_inactive"].contains(&&*decision), "{slots:#}");
    }
    // Whoever may only submit tasks cannot let one be done.
    let task = json!({"task_id": "sneaky", "task_type": "drill", "input_data":
        {"drill": ["failover"], "run_id": ended[0]["id"]}});
    let url = house.url(0, "/api/v1/tasks");
    house.http.send(Method::POST, &url, Some(&task), None, CALL).await.unwrap();
    let result = until("the task has ended", PATIENCE, || async {
        let task = house.http.read(&house.url(0, "/api/v1/tasks/sneaky")).await;
        (task["task"]["status"] == "completed").then(|| task["result"].clone())
    });
    assert_eq!(result.await["success"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_its_own_is_killed_and_restarted_and_thrown_away() {
    let home = TempDir::with_prefix("quorate-e2e-").unwrap();
    let drill = async |words: &[&str]| {
        let mut command = quorate();
        command.env("TMPDIR", home.path());
        drill_by(command, words).await
    };
    let (code, report) = drill(&[&["failover", "--local"][..], &TIMES].concat()).await;
    assert_eq!((code, text(&report, "/method").as_str()), (0, "kill"), "{report:#}");
    let words = [&["restart-all", "--local", "--no-dispatch"][..], &TIMES].concat();
    let (code, report) = drill(&words).await;
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(number(&report, "/margin/may_fail_during"), 0, "{report:#}");
    let (code, plan) = drill(&["restart-all", "--at-once", "--local", "--dry-run"]).await;
    assert_eq!((code, &plan["margin"]["may_fail_during"]), (0, &json!(-2)), "{plan:#}");
    let (code, refusal) = drill(&["failover", "--local", "--members", "1"]).await;
    assert_eq!((code, text(&refusal, "/code").as_str()), (1, "QUORUM_AT_RISK"));
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_refuse_whoever_may_not_and_what_they_would_not_survive() {
    let closed = House::found(1).await;
    let answer = admin(&closed, 0, Some(KEY)).await;
    assert_eq!((answer.status, text(&answer.body, "/code").as_str()), (403, "DRILLS_DISABLED"));
    let (code, refusal) = drill_on(&closed, &["restore"]).await;
    assert_eq!((code, text(&refusal, "/code").as_str()), (1, "DRILLS_REFUSED"), "{refusal:#}");

    let mut house = House::found_with(3, ALLOWED).await;
    for key in [None, Some("another key entirely")] {
        let answer = admin(&house, 0, key).await;
        let code = text(&answer.body, "/code");
        assert_eq!((answer.status, code.as_str()), (401, "ADMIN_KEY_REQUIRED"));
    }
    let (code, said) = drill(&["failover", "--url", &house.urls()[0]]).await;
    assert_eq!(code, 2, "without a key: {said:#}");
    let words = ["failover", "--url", &house.urls()[0], "--admin-key", "another key entirely"];
    let (code, refusal) = drill(&words).await;
    assert_eq!((code, text(&refusal, "/code").as_str()), (1, "DRILLS_REFUSED"));
    // A fault is for a drill that is under way, and there is none.
    let fault = json!({ "fault": "silence", "drill_id": 1, "lasting_ms": 1000 });
    let url = house.url(0, "/api/v1/admin/faults");
    let caused = reqwest::Client::new().post(&url).header("X-Quorate-Admin-Key", KEY).json(&fault);
    assert_eq!(caused.send().await.unwrap().status().as_u16(), 409);

    let lost = house.leader().await;
    house.kill(lost);
    let left = house.running();
    let next = until("another leader", PATIENCE, || house.find_leader(&left)).await;
    assert_ne!(next, lost);
    until("the loss in the status", PATIENCE, || async {
        let status = house.status(next).await?;
        (status["failure_tolerance"] == 0).then_some(())
    })
    .await;
    let (code, refusal) = drill_on(&house, &["failover"]).await;
    assert_eq!((code, text(&refusal, "/code").as_str()), (1, "MEMBER_UNREACHABLE"), "{refusal:#}");
    let (code, refusal) = drill_on(&house, &["failover", "--degraded"]).await;
    assert_eq!((code, text(&refusal, "/code").as_str()), (1, "QUORUM_AT_RISK"), "{refusal:#}");
}

/// Starts a drill that lasts for a minute, and waits until `place` is broken.
async fn long_pause(house: &House, place: usize) -> Process {
    let urls = house.urls().join(",");
    let words = ["drill", "pause", "--url", &urls, "--admin-key", KEY, "--before", "500ms"];
    let words = [&words[..], &["--hold", "60s"]].concat();
    let process = Process::start("drill", &words, &house.dir().join("drill.log"));
    until("the fault", PATIENCE, || async { (faults(house, place).await > 0).then_some(()) }).await;
    process
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_heal_when_the_drill_is_killed_and_when_it_is_stopped() {
    let mut house = House::found_with(3, ALLOWED).await;
    let hung = house.leader().await;
    let mut process = long_pause(&house, hung).await;
    process.kill();
    // Nobody renews the fault any more: the member ends it by itself.
    let limit = Duration::from_secs(15);
    until("healed by itself", limit, || async { (faults(&house, hung).await == 0).then_some(()) })
        .await;
    house.all_ready().await;
    // Its record keeps others out until its lease is over, or somebody says that it is.
    let (code, refusal) = drill_on(&house, &["transfer"]).await;
    assert_eq!((code, text(&refusal, "/code").as_str()), (1, "DRILL_RUNNING"));
    let (code, healed) = drill_on(&house, &["heal"]).await;
    assert_eq!((code, number(&healed, "/ended")), (0, 1), "{healed:#}");

    let hung = house.leader().await;
    let mut process = long_pause(&house, hung).await;
    process.signal(Signal::INT);
    let status = process.exit(PATIENCE).await;
    assert_eq!(status.code(), Some(1), "{}", process.said());
    assert_eq!(faults(&house, hung).await, 0);
    let (code, drills) = drill_on(&house, &["list"]).await;
    let states: Vec<&Value> = drills.as_array().unwrap().iter().map(|d| &d["state"]).collect();
    assert_eq!((code, states), (0, vec![&json!("aborted"), &json!("aborted")]), "{drills:#}");
    let task = json!({ "task_id": "after", "task_type": "x" });
    house.http.write(Method::POST, &house.url(hung, "/api/v1/tasks"), &task).await;
    house.agree().await;
}
