//! The command line against a real cluster: tables for people, JSON for programs, exit codes for
//! scripts.

use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::house::House;
use crate::http::{CALL, Fault, Http, PATIENCE, number, text, until};
use crate::ports::free_addr;
use crate::process::{Process, quorate};

/// How a command ended.
pub(crate) struct Ran {
    line: String,
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    pub(crate) fn with(self, code: i32) -> Self {
        let Self { line, code: ended, out, err } = &self;
        assert_eq!(*ended, Some(code), "quorate {line}\n--- stdout\n{out}--- stderr\n{err}");
        self
    }

    /// It says all of `words` to people.
    pub(crate) fn says(self, words: &[&str]) -> Self {
        for word in words {
            let said = self.out.contains(word) || self.err.contains(word);
            assert!(said, "`{word}` is not said by {}:\n{}{}", self.line, self.out, self.err);
        }
        self
    }

    /// What a table of fields shows beside `name`.
    pub(crate) fn field(&self, name: &str) -> &str {
        let row = self.out.lines().find_map(|line| line.strip_prefix(name));
        row.unwrap_or_else(|| panic!("{} shows no {name}:\n{}", self.line, self.out)).trim()
    }

    /// What it printed.
    pub(crate) fn out(&self) -> &str {
        &self.out
    }

    pub(crate) fn json(&self) -> Value {
        let parsed = serde_json::from_str(&self.out);
        parsed.unwrap_or_else(|error| panic!("{}: {error}: {}", self.line, self.out))
    }
}

/// Runs `quorate` with `words`.
pub(crate) fn run(words: &[&str]) -> Ran {
    run_with(words, "")
}

fn run_with(words: &[&str], input: &str) -> Ran {
    let mut command = quorate();
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that does not read its input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ran {
        line: words.join(" "),
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `quorate ... --url` of all members.
pub(crate) struct Line(String);

impl Line {
    pub(crate) fn new(house: &House) -> Self {
        Self(house.urls().join(","))
    }

    pub(crate) fn run(&self, words: &str) -> Ran {
        self.run_with(&words.split(' ').collect::<Vec<_>>(), "")
    }

    pub(crate) fn run_with(&self, words: &[&str], input: &str) -> Ran {
        run_with(&[words, &["--url", &self.0]].concat(), input)
    }
}

/// The flags that family W's operators know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_2_5_flags_of_the_server() {
    let dir = TempDir::with_prefix("quorate-e2e-").unwrap();
    let path = dir.path().join("orchestrator_config.yaml");
    let file = path.to_str().unwrap();
    run(&["server", "--generate-config"]).with(0).says(&["listeners:", "cluster:"]);
    run(&["server", "--generate-config", "--config", file]).with(0).says(&["wrote"]);
    let written = std::fs::read_to_string(&path).unwrap();
    run(&["server", "--generate-config", "--config", file]).with(1).says(&[file, "exists"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), written, "nothing is overwritten");

    let (of_file, of_flags, peer) = (free_addr(), free_addr(), free_addr());
    let data = dir.path().join("data");
    let setup = format!(
        "cluster:\n  data_dir: {}\n  bootstrap_expect: 1\nlisteners:\n  \
         - {{ profile: web4ai, addr: \"{of_file}\" }}\n  - {{ profile: peer, addr: \"{peer}\" }}\n",
        json!(data),
    );
    std::fs::write(&path, setup).unwrap();
    let (host, port) = of_flags.rsplit_once(':').unwrap();
    let words = ["server", "--config", file, "--host", host, "--port", port, "--debug"];
    let member = Process::start("m1", &words, &dir.path().join("log"));
    let http = Http::new();
    let url = format!("http://{of_flags}/api/v1/health");
    until("the member serves where the flags say", PATIENCE, || async {
        http.get(&url).await.ok().filter(|reply| reply.status == 200)
    })
    .await;
    assert!(matches!(http.get(&format!("http://{of_file}/")).await, Err(Fault::NotSent)));
    assert!(member.said().contains("DEBUG"), "{}", member.said());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cli_speaks_to_people_and_programs() {
    let house = House::found(3).await;
    let line = Line::new(&house);
    tasks(&line);
    nodes(&line);
    cluster(&house, &line).await;
    requests(&house, &line).await;
    configuration(&house, &line);
    mistakes_and_outages(&line);
}

fn tasks(line: &Line) {
    let submit = ["task", "submit", "--type", "x", "--id", "a", "--input", r#"{"n": 1}"#];
    assert_eq!(line.run_with(&submit, "").with(0).out, "a\n", "the id alone, to be piped on");
    let again = line.run_with(&[&submit[..], &["-o", "json"]].concat(), "").with(0).json();
    assert_eq!((&again["success"], text(&again, "/task_id")), (&json!(true), "a".to_owned()));
    let from_stdin = ["task", "submit", "-t", "x", "--id", "b", "--input", "-"];
    line.run_with(&from_stdin, r#"{"from": "stdin"}"#).with(0);
    let lines =
        "{\"task_type\":\"x\",\"task_id\":\"c\"}\n{\"task_type\":\"x\",\"task_id\":\"d\"}\n";
    line.run_with(&["task", "batch"], lines).with(0).says(&["submitted 2 tasks"]);
    line.run("task list").with(0).says(&["TASK", "STATUS", "a ", "d ", "4 pending"]);
    let list = line.run("task list -o json --status pending").with(0).json();
    assert_eq!(list["tasks"]["pending"].as_array().unwrap().len(), 4);
    line.run("task get a").with(0).says(&["FIELD", "VALUE", "pending"]);
    assert_eq!(text(&line.run("task get b -o json").with(0).json(), "/task/task_id"), "b");
    let missing = line.run("task get nobody").with(1).says(&["Task not found", "TASK_NOT_FOUND"]);
    assert_eq!(missing.out, "", "talk goes to standard error");
    line.run("task cancel a").with(0).says(&["a is cancelled"]);
    line.run("task wait a").with(1).says(&["a is cancelled"]);
    line.run("task wait b --timeout 0.2").with(1).says(&["b is still pending"]);
}

fn nodes(line: &Line) {
    let register = "node register n1 --host 127.0.0.1 --port 1 --capability p,q --capacity 2";
    line.run(register).with(0).says(&["Node n1 registered successfully"]);
    line.run("node list").with(0).says(&["NODE", "n1", "active", "p,q"]);
    let node = line.run("node get n1 -o json").with(0).json();
    assert_eq!(
        (text(&node, "/node/status"), number(&node, "/node/capacity")),
        ("active".into(), 2)
    );
    line.run("node status n1 maintenance").with(0);
    line.run("node heartbeat n1").with(0);
    line.run("node list --status maintenance").with(0).says(&["n1"]);
    line.run("node status n1 asleep").with(1).says(&["asleep"]);
    line.run("node remove n1").with(0);
    line.run("node get n1").with(1).says(&["Node not found"]);
}

async fn cluster(house: &House, line: &Line) {
    let leader = house.leader().await;
    let heir = (leader + 1) % 3;
    let heir_id = house.id(heir).await;
    line.run("cluster status").with(0).says(&["leads", "quorum 2, 1 may fail", "voter"]);
    line.run("cluster members").with(0).says(&["ID", "m1", "m2", "m3"]);
    let members = line.run("cluster members -o json").with(0).json();
    assert_eq!(members.as_array().unwrap().len(), 3);
    line.run(&format!("cluster transfer-leader --to {heir_id}")).with(0);
    assert_eq!(house.leader().await, heir);
    line.run("cluster snapshot").with(0);
    line.run("cluster remove 77").with(1).says(&["MEMBER_NOT_FOUND"]);
    let status = line.run("cluster status -o json").with(0).json();
    assert_eq!(status["members"].as_array().unwrap().len(), 3);
}

async fn requests(house: &House, line: &Line) {
    let (url, task) = (house.url(0, "/api/v1/tasks"), json!({ "task_type": "x", "task_id": "r" }));
    let sent = house.http.send(Method::POST, &url, Some(&task), Some("order-9"), CALL).await;
    assert_eq!(sent.unwrap().status, 200);
    line.run("request get order-9").with(0).says(&["committed", "task_submitted", " r"]);
    let request = line.run("request get order-9 -o json").with(0).json();
    assert_eq!(text(&request, "/state"), "committed");
    line.run("request get never-sent").with(0).says(&["never_seen"]);
    // A refusal is an outcome too.
    let url = house.url(0, "/api/v1/nodes/nobody/status");
    let body = json!({ "status": "active" });
    let sent = house.http.send(Method::PUT, &url, Some(&body), Some("order-10"), CALL).await;
    assert_eq!(sent.unwrap().status, 404);
    let state = line.run("request get order-10").with(0);
    assert!(
        ["rejected", "never_seen"].iter().any(|word| state.out.contains(word)),
        "{}",
        state.out
    );
}

fn configuration(house: &House, line: &Line) {
    line.run("config set network.max_nodes 50").with(0);
    assert_eq!(line.run("config get network.max_nodes -o json").with(0).json(), json!(50));
    line.run("config set network.max_nodes none").with(1).says(&["network.max_nodes"]);
    let generated = run_with(&["config", "generate"], "").with(0);
    let file = house.dir().join("generated.yaml");
    std::fs::write(&file, &generated.out).unwrap();
    run_with(&["config", "check", file.to_str().unwrap()], "").with(0).says(&["ok"]);
    std::fs::write(&file, "cluster: { name: 7 }").unwrap();
    run_with(&["config", "check", file.to_str().unwrap()], "").with(2).says(&["cluster.name"]);
}

fn mistakes_and_outages(line: &Line) {
    line.run("task submit").with(2);
    line.run("nonsense").with(2);
    line.run("task list --deadline 0").with(2).says(&["--deadline"]);
    line.run_with(&["task", "submit", "-t", "x", "--input", "{"], "").with(2).says(&["not JSON"]);
    let nobody = Line(free_addr());
    nobody.run("task list --deadline 1").with(3);
    nobody.run("task submit -t x --deadline 1").with(3).says(&["no member took the request"]);
    // Somebody who takes the connection and never answers: it may have been done.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent =
        Line(silent.local_addr().unwrap().to_string()).run("task submit -t x --deadline 1");
    silent.with(4).says(&["unknown"]);
    run_with(&["version"], "").with(0).says(&["quorate 0."]);
    run_with(&["--help"], "").with(0).says(&["Exit codes"]);
}
