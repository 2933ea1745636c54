//! `quorate bot`, `swarm` and `workflow` against three members, and workers for swarms that leave.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::bots::{Calls, service};
use crate::command_line::Line;
use crate::house::{House, STOP};
use crate::http::{PATIENCE, number, text, until};
use crate::process::Process;

/// A worker for a swarm, and where its log is.
fn worker(house: &House, name: &str, swarm: &str, exec: &str, more: &[&str]) -> Process {
    let urls = house.urls().join(",");
    let words = ["worker", "--swarm", swarm, "--url", &urls, "--exec", exec];
    Process::start(name, &[&words[..], more].concat(), &house.dir().join(name))
}

/// Waits until a swarm has so much in each state: waiting, leased, completed, failed.
async fn stands(house: &House, swarm: &str, wanted: [u64; 4]) {
    let url = house.url(1, &format!("/swarms/{swarm}?bot_ids=false"));
    until(&format!("{wanted:?}"), PATIENCE, || async {
        // A busy member may be without a leader for a moment.
        let shown = house.http.get(&url).await.ok().filter(|reply| reply.status == 200)?.body;
        let keys = ["waiting_tasks", "leased_tasks", "total_tasks_completed", "failed_tasks"];
        (keys.map(|key| number(&shown, &format!("/{key}"))) == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cli_speaks_of_bots_swarms_and_workflows() {
    let calls = Calls::default();
    let url = service(calls).await;
    // One that takes calls and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let image = silent.local_addr().unwrap();
    let more = format!("services:\n  fraud_detection: {url}\n  image_generation: http://{image}\n");
    let house = House::found_with(3, &more).await;
    let line = Line::new(&house);
    swarms(&house, &line).await;
    bots(&line);
    workflows(&line);
    house.agree().await;
}

async fn swarms(house: &House, line: &Line) {
    let create = "swarm create --count 6 --name crawl --tier L20 --capability a,b";
    let swarm = line.run(create).with(0).out().trim().to_owned();
    line.run("swarm list").with(0).says(&[&swarm, "crawl", "L20", "1 swarms"]);
    let assign = ["swarm", "assign", &swarm, "-t", "scan", "-d", r#"{"n": 7}"#];
    line.run_with(&assign, "").with(0).says(&["6 assignments"]);
    line.run(&format!("swarm health {swarm}")).with(0).says(&["unattached"]);
    let mut scanning = worker(house, "w", &swarm, "scan=cat", &[]);
    stands(house, &swarm, [0, 0, 6, 0]).await;
    scanning.signal(Signal::TERM);
    assert!(scanning.exit(STOP).await.success());
    line.run(&format!("swarm health {swarm}")).with(0).says(&["active"]);
    let shown = line.run(&format!("swarm show {swarm}")).with(0);
    assert_eq!([shown.field("bots"), shown.field("completed")], ["6", "6"]);
    line.run(&format!("swarm scale {swarm} 4")).with(0).says(&["has 4 bots"]);
    let ids = line.run(&format!("swarm show {swarm} --ids")).with(0);
    let ids: Vec<&str> = ids.out().lines().collect();
    assert_eq!(ids.len(), 4);
    line.run(&format!("bot list --swarm {swarm}")).with(0).says(&ids);
    let tasks = line.run(&format!("bot tasks {} --status completed -o json", ids[0])).with(0);
    assert_eq!(tasks.json()["tasks"][0]["result"], json!({"n": 7}));
    line.run(&format!("bot show {}", ids[0])).with(0).says(&["crawl-bot-0", "L20", "active"]);
    line.run(&format!("swarm delete {swarm}")).with(0).says(&["is removed"]);
    line.run(&format!("swarm show {swarm}")).with(1).says(&["Swarm", "not found"]);
}

fn bots(line: &Line) {
    let bot = line.run("bot create --name scout").with(0).out().trim().to_owned();
    let assign = ["bot", "assign", &bot, "-t", "scan", "-d", "-"];
    let task = line.run_with(&assign, r#"{"from": "stdin"}"#).with(0).out().trim().to_owned();
    line.run(&format!("bot tasks {bot}")).with(0).says(&[&task, "scan", "assigned"]);
    // More than any float holds: neither the command line nor a member may change it.
    let exact = r#"[123456789012345678901234567890,0.1000]"#;
    let complete = ["bot", "complete", &bot, &task, "--result", exact];
    line.run_with(&complete, "").with(0).says(&["is completed"]);
    line.run_with(&complete, "").with(0).says(&["is completed"]);
    let tasks = line.run(&format!("bot tasks {bot} -o json")).with(0);
    let printed: String = tasks.out().split_whitespace().collect();
    assert!(printed.contains(exact), "{printed}");
    let stats = line.run("bot stats -o json").with(0).json();
    assert_eq!(["active_bots", "tasks_executed"].map(|key| stats[key].clone()), [1, 7]);
    line.run("bot stats").with(0).says(&["of tier standard"]);
    line.run(&format!("bot delete {bot}")).with(0);
    line.run(&format!("bot show {bot}")).with(1).says(&["not found", "BOT_NOT_FOUND"]);
}

fn workflows(line: &Line) {
    let run =
        ["workflow", "run", "-t", r#"fraud_detection={"n": 1}"#, "-t", "compression", "-o", "json"];
    let done = line.run_with(&run, "").with(0).json();
    assert_eq!(text(&done, "/status"), "completed");
    assert_eq!(done["results"][0]["result"], json!({"echo": {"n": 1}}));
    assert_eq!(text(&done, "/results/1/result/error"), "Unknown task type: compression");
    let id = line.run("workflow run -t image_generation --async").with(0).out().trim().to_owned();
    line.run("workflow list --status running").with(0).says(&[&id, "1 of 1 workflows"]);
    line.run(&format!("workflow show {id}")).with(0).says(&["image_generation", "running"]);
    line.run(&format!("workflow cancel {id}")).with(0).says(&["is cancelled"]);
    line.run(&format!("workflow show {id} --watch")).with(1).says(&["cancelled"]);
    line.run(&format!("workflow cancel {id}")).with(0).says(&["is cancelled"]);
    let over = text(&done, "/workflow_id");
    line.run(&format!("workflow cancel {over}")).with(1).says(&["WORKFLOW_ENDED"]);
    let list: Value = line.run("workflow list -o json").with(0).json();
    assert_eq!(number(&list, "/total"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_for_swarms_leaves_and_gives_back_what_it_held() {
    const BOTS: u64 = 8;
    let house = House::found(3).await;
    let line = Line::new(&house);
    let create = format!("swarm create --count {BOTS}");
    let swarm = line.run(&create).with(0).out().trim().to_owned();
    // One that only waits.
    let mut idle = worker(&house, "idle", &swarm, "other=cat", &[]);
    let more = ["--capacity", "3", "--drain-timeout", "1"];
    let mut slow = worker(&house, "slow", &swarm, "scan=exec sleep 600", &more);
    line.run(&format!("swarm assign {swarm} -t scan")).with(0);
    stands(&house, &swarm, [BOTS - 3, 3, 0, 0]).await;
    sleep(Duration::from_millis(200)).await;
    for process in [&mut idle, &mut slow] {
        process.signal(Signal::TERM);
        assert!(process.exit(STOP).await.success());
    }
    // What it held is free at once, long before the leases would have run out.
    stands(&house, &swarm, [BOTS, 0, 0, 0]).await;
    let _other = worker(&house, "other", &swarm, "scan=cat", &[]);
    stands(&house, &swarm, [0, 0, BOTS, 0]).await;
    let bots = house.http.read(&house.url(2, &format!("/bots?swarm_id={swarm}"))).await;
    let mut tries = 0;
    for bot in bots["bots"].as_array().unwrap() {
        let path = format!("/bots/{}/tasks", text(bot, "/id"));
        tries += number(&house.http.read(&house.url(2, &path)).await, "/tasks/0/attempt");
    }
    assert_eq!(tries, BOTS + 3, "three were begun twice");
    house.agree().await;
}
