//! The HAProxy example in front of three members: a client that knows one URL does not notice when
//! the member that answers it is killed, or freezes.

use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::house::House;
use crate::http::{Http, PATIENCE, text, until};
use crate::ports::free_addr;
use crate::process::Process;
use crate::tools::{command, repository_file, tool};

/// When old node clients give up.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(5);
const PERIOD: Duration = Duration::from_millis(50);

/// The example with the addresses of this test.
fn configuration(house: &House, listen: &str) -> String {
    let mut text = repository_file("cluster/haproxy/haproxy.cfg");
    let examples = ["127.0.0.1:9000", "127.0.0.1:9100", "127.0.0.1:9200"];
    for (example, member) in examples.iter().zip(&house.members) {
        assert!(text.contains(example), "{example}");
        text = text.replace(example, &member.setup.http);
    }
    assert!(text.contains("bind :9800"));
    text.replace("bind :9800", &format!("bind {listen}"))
}

fn start(program: &Path, file: &Path, log: &Path) -> Process {
    let words = ["-f", file.to_str().unwrap(), "-db"];
    Process::start_program("haproxy", command(program), &words, log)
}

struct Node {
    http: Http,
    base: String,
}

impl Node {
    /// One heartbeat as an old client sends it: one try, five seconds. Gives who answered and when.
    async fn beat(&self) -> Result<(u64, Duration), String> {
        let url = format!("{}/api/v1/nodes/old-node/heartbeat", self.base);
        let body = json!({ "node_id": "old-node", "status": "active", "cpu_usage": 1.0 });
        let started = Instant::now();
        let sent = self.http.send(Method::POST, &url, Some(&body), None, HEARTBEAT_TIMEOUT).await;
        let reply = sent.map_err(|fault| format!("{fault:?} after {:?}", started.elapsed()))?;
        if reply.status != 200 || reply.body["success"] != true {
            return Err(format!("{} {}", reply.status, reply.body));
        }
        Ok((reply.header("x-quorate-member").unwrap(), started.elapsed()))
    }

    /// Heartbeats, one after the other, for a while. All must succeed; gives the slowest.
    async fn beats(&self, lasting: Duration, what: &str) -> Duration {
        let (end, mut slowest, mut count) = (Instant::now() + lasting, Duration::ZERO, 0);
        while Instant::now() < end {
            match self.beat().await {
                Ok((_, took)) => slowest = slowest.max(took),
                Err(error) => panic!("a heartbeat failed ({what}): {error}"),
            }
            count += 1;
            sleep(PERIOD).await;
        }
        println!("{what}: {count} heartbeats, the slowest took {slowest:?}");
        slowest
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_through_a_balancer_outlive_any_one_member() {
    let Some(program) = tool("haproxy").await else { return };
    let mut house = House::found(3).await;
    let listen = free_addr();
    let (file, log) = (house.dir().join("haproxy.cfg"), house.dir().join("haproxy.log"));
    std::fs::write(&file, configuration(&house, &listen)).unwrap();
    let _balancer = start(&program, &file, &log);
    let base = format!("http://{listen}");
    let register = format!("{base}/api/v1/nodes/old-node/register");
    let body = json!({ "host": "127.0.0.1", "port": 5000, "node_type": "enhanced_node" });
    until("a registration through the balancer", PATIENCE, || async {
        let limit = Duration::from_secs(10);
        let reply = house.http.send(Method::POST, &register, Some(&body), None, limit).await;
        reply.ok().filter(|reply| reply.status == 200)
    })
    .await;
    let node = Node { http: Http::new(), base: base.clone() };
    node.beats(Duration::from_secs(1), "all members live").await;

    // The member that answered last is killed, whoever it is; then the leader, if it was another.
    let (answered, _) = node.beat().await.unwrap();
    let mut place = 0;
    while house.id(place).await != answered {
        place += 1;
    }
    house.kill(place);
    node.beats(Duration::from_secs(5), "the member in use was killed").await;
    house.start(place);
    house.all_ready().await;

    let leader = house.leader().await;
    house.signal(leader, Signal::STOP);
    node.beats(Duration::from_secs(6), "the leader is frozen").await;
    house.signal(leader, Signal::CONT);
    house.all_ready().await;

    // A write that met the dead member was done once: the node is there, and it is active.
    let found = house.http.read(&format!("{base}/api/v1/nodes/old-node")).await;
    assert_eq!(text(&found, "/node/status"), "active");
}
