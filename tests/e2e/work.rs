//! The reference worker runs real programs, whatever happens to the members.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;

use crate::house::House;
use crate::http::{PATIENCE, text, until};
use crate::process::Process;

/// Programs that note each run of theirs, and can be held up.
struct Workshop {
    dir: PathBuf,
}

impl Workshop {
    fn open(dir: &Path) -> Self {
        let dir = dir.join("workshop");
        fs::create_dir_all(&dir).unwrap();
        Self { dir }
    }

    /// `--exec` for a type whose program notes that it runs and then does `what`.
    fn program(&self, task_type: &str, what: &str) -> String {
        let runs = self.dir.join("runs").display().to_string();
        format!("{task_type}=echo $QUORATE_TASK_ID $QUORATE_ATTEMPT >> {runs}; {what}")
    }

    /// A program that goes on when `gate` exists, and does not outlive a test that failed.
    fn gated(&self, task_type: &str, gate: &str) -> String {
        let dir = self.dir.display();
        let wait = format!("while [ -d {dir} ] && [ ! -e {dir}/{gate} ]; do sleep 0.05; done");
        self.program(task_type, &format!("{wait}; cat"))
    }

    fn open_gate(&self, gate: &str) {
        fs::write(self.dir.join(gate), "").unwrap();
    }

    /// Attempts that ran of a task, in order.
    fn runs(&self, task_id: &str) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("runs")).unwrap_or_default();
        let of_it = text.lines().filter_map(|line| line.split_once(' '));
        of_it.filter(|(id, _)| *id == task_id).map(|(_, attempt)| attempt.to_owned()).collect()
    }

    async fn runs_now(&self, task_id: &str) {
        until(&format!("{task_id} running"), PATIENCE, || async {
            (!self.runs(task_id).is_empty()).then_some(())
        })
        .await;
    }

    fn worker(&self, house: &House, name: &str, programs: &[String]) -> Process {
        let urls = house.urls().join(",");
        let mut words = vec!["worker", "--node-id", name, "--url", &urls, "--heartbeat", "1"];
        words.extend(programs.iter().flat_map(|program| ["--exec", program]));
        Process::start(name, &words, &self.dir.join(name))
    }
}

async fn submit(house: &House, task: serde_json::Value) {
    let place = house.running()[0];
    house.submit(place, &task).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_executes_real_programs() {
    let mut house = House::found(3).await;
    let shop = Workshop::open(house.dir());
    let sum = "tr -d '[]' | tr ',' '+' | { read line; echo $(($line)); }";
    let programs = [
        shop.program("sum", sum),
        shop.program("fail", "echo no luck >&2; exit 3"),
        shop.program("bad", "echo wrong data >&2; exit 65"),
        shop.program("sleep", "sleep 60"),
        shop.gated("gated", "go"),
        shop.gated("late", "go-late"),
    ];
    let mut worker = shop.worker(&house, "w1", &programs);
    let config = json!({ "tasks": { "retry_delay_ms": 20 } });
    house.http.write(Method::PUT, &house.url(1, "/api/v1/config"), &config).await;

    submit(&house, json!({ "task_id": "s", "task_type": "sum", "input_data": [1, 2, 39] })).await;
    let task = house.ended(1, "s").await;
    assert_eq!(
        (text(&task, "/status"), &task["result_data"]),
        ("completed".to_owned(), &json!(42))
    );
    assert_eq!(text(&task, "/node_id"), "w1");
    assert_eq!(shop.runs("s"), ["1"]);

    failures_are_told_apart(&house, &shop).await;
    the_leader_dies_while_a_program_runs(&mut house, &shop).await;
    a_leaving_worker_finishes_what_it_runs(&house, &shop, &mut worker).await;
    house.agree().await;
}

async fn failures_are_told_apart(house: &House, shop: &Workshop) {
    // Tried again, each time as another attempt, and then put aside.
    submit(house, json!({ "task_id": "f", "task_type": "fail", "max_retries": 2 })).await;
    let task = house.ended(0, "f").await;
    let states = (text(&task, "/status"), text(&task, "/state"));
    assert_eq!(states, ("failed".to_owned(), "dead_letter".to_owned()), "{task}");
    assert!(text(&task, "/error_message").contains("no luck"), "{task}");
    assert_eq!(shop.runs("f"), ["1", "2", "3"]);
    // The program says that no try will help.
    submit(house, json!({ "task_id": "b", "task_type": "bad", "max_retries": 2 })).await;
    let task = house.ended(0, "b").await;
    assert_eq!(text(&task, "/status"), "failed", "{task}");
    assert_eq!(shop.runs("b"), ["1"]);
    // Time is over.
    let sleep = json!({ "task_id": "z", "task_type": "sleep", "timeout": 0.5, "max_retries": 1 });
    submit(house, sleep).await;
    let task = house.ended(0, "z").await;
    let status = text(&task, "/status");
    assert!(["failed", "timeout"].contains(&status.as_str()), "{task}");
    assert_eq!(shop.runs("z"), ["1", "2"]);
}

async fn the_leader_dies_while_a_program_runs(house: &mut House, shop: &Workshop) {
    let input = json!({ "text": "carried through" });
    submit(house, json!({ "task_id": "g", "task_type": "gated", "input_data": input })).await;
    shop.runs_now("g").await;
    let leader = house.leader().await;
    house.kill(leader);
    let heir = house.leader().await;
    // The new leader has taken the task over, and the program still runs.
    let url = house.url(heir, "/api/v1/tasks/g");
    until("the task in the new leader's hands", PATIENCE, || async {
        let task = house.http.get(&url).await.ok()?.body;
        let status = text(&task, "/task/status");
        ["assigned", "running"].contains(&status.as_str()).then_some(())
    })
    .await;
    shop.open_gate("go");
    let task = house.ended(heir, "g").await;
    assert_eq!((text(&task, "/status"), &task["result_data"]), ("completed".to_owned(), &input));
    assert_eq!(shop.runs("g"), ["1"], "it ran exactly once");
    house.start(leader);
    house.ready(leader).await;
}

async fn a_leaving_worker_finishes_what_it_runs(
    house: &House,
    shop: &Workshop,
    worker: &mut Process,
) {
    submit(house, json!({ "task_id": "l", "task_type": "late", "input_data": 7 })).await;
    shop.runs_now("l").await;
    worker.signal(Signal::TERM);
    until("the worker draining", PATIENCE, || async {
        worker.said().contains("draining").then_some(())
    })
    .await;
    // It takes nothing new meanwhile: this one waits for another worker.
    submit(house, json!({ "task_id": "next", "task_type": "sum", "input_data": [1, 1] })).await;
    shop.open_gate("go-late");
    let status = worker.exit(Duration::from_secs(30)).await;
    assert!(status.success(), "{status}");
    let task = house.ended(0, "l").await;
    assert_eq!((text(&task, "/status"), &task["result_data"]), ("completed".to_owned(), &json!(7)));
    assert_eq!(shop.runs("l"), ["1"]);
    let gone = house.http.get(&house.url(1, "/api/v1/nodes/w1")).await.unwrap();
    assert_eq!(gone.status, 404, "it said farewell: {}", gone.body);
    let _other = shop.worker(house, "w2", &[shop.program("sum", "cat > /dev/null; echo 2")]);
    let task = house.ended(0, "next").await;
    assert_eq!((text(&task, "/node_id"), &task["result_data"]), ("w2".to_owned(), &json!(2)));
    // Which attempt it was does not matter: the leaving worker may have turned one away.
    assert_eq!(shop.runs("next").len(), 1);
}

/// A dispatch that comes again, as after a change of leaders, is acknowledged and not run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_dispatch_runs_once() {
    let house = House::found(1).await;
    let shop = Workshop::open(house.dir());
    let _worker = shop.worker(&house, "w", &[shop.gated("gated", "go")]);
    submit(&house, json!({ "task_id": "g", "task_type": "gated", "input_data": 1 })).await;
    shop.runs_now("g").await;
    let node = house.http.read(&house.url(0, "/api/v1/nodes/w")).await;
    let (host, port) = (text(&node, "/node/host"), &node["node"]["port"]);
    let url = format!("http://{host}:{port}/api/v4/tasks/execute");
    let again = json!({ "task_id": "g", "task_type": "gated", "input_data": 1, "attempt": 1 });
    let reply = house.http.write(Method::POST, &url, &again).await;
    assert_eq!(reply.body["success"], true, "{}", reply.body);
    let older = json!({ "task_id": "g", "task_type": "gated", "input_data": 1, "attempt": 0 });
    assert_eq!(house.http.refused(Method::POST, &url, &older).await.0, 409);
    shop.open_gate("go");
    let task = house.ended(0, "g").await;
    assert_eq!(text(&task, "/status"), "completed");
    house.http.write(Method::POST, &url, &again).await;
    assert_eq!(shop.runs("g"), ["1"]);
}
