//! Configurations that make no sense are told at once, all faults together.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::Process;

/// How long a program may take to see that its configuration is wrong.
const AT_ONCE: Duration = Duration::from_secs(15);

/// A file, and what must be said of it. `DATA` stands for a directory nobody may touch.
struct Case {
    what: &'static str,
    text: &'static str,
    named: &'static [&'static str],
}

const CASES: [Case; 6] = [
    Case {
        what: "several faults, all named",
        text: "
cluster:
  data_dir: DATA
  name: ''
  bootstrap_expect: many
  raft: { heartbeat_ms: 100, election_min_ms: 120 }
  nonsense: 1
logging: { format: xml }
",
        named: &[
            "cluster.name",
            "cluster.bootstrap_expect",
            "cluster.raft.election_min_ms",
            "cluster.nonsense",
            "logging.format",
        ],
    },
    Case { what: "no YAML", text: "cluster: [", named: &["wrong"] },
    Case {
        what: "founders that cannot be",
        text: "cluster: { data_dir: DATA, bootstrap_expect: 3, peers: ['127.0.0.1:1'] }",
        named: &["cluster.bootstrap_expect", "3 members are expected"],
    },
    Case {
        what: "peers that are no addresses",
        text: "cluster: { data_dir: DATA, peers: ['0.0.0.0:7000', nowhere] }",
        named: &["cluster.peers", "0.0.0.0:7000", "nowhere"],
    },
    Case {
        what: "listeners that collide or are unknown",
        text: "
listeners:
  - { profile: web4ai, addr: '127.0.0.1:7' }
  - { profile: peer, addr: '127.0.0.1:7' }
  - { profile: gopher, addr: '127.0.0.1:8' }
",
        named: &["both listen on 127.0.0.1:7", "gopher"],
    },
    Case {
        what: "family W's values out of bounds",
        text: "
cluster: { data_dir: DATA }
orchestrator: { heartbeat_interval: often }
network: { load_balance_algorithm: luck }
",
        named: &["orchestrator.heartbeat_interval", "network.load_balance_algorithm", "luck"],
    },
];

async fn refused(what: &str, file: &Path, log: &Path) -> String {
    let words = ["server", "--config", file.to_str().unwrap()];
    let mut process = Process::start(what, &words, log);
    let status = process.exit(AT_ONCE).await;
    assert_eq!(status.code(), Some(2), "{what}: {}", process.said());
    process.said()
}

#[tokio::test]
async fn config_errors_are_told_at_once() {
    let dir = TempDir::with_prefix("quorate-e2e-").unwrap();
    let data = dir.path().join("data");
    for (number, Case { what, text, named }) in CASES.into_iter().enumerate() {
        let file = dir.path().join(format!("{number}.yaml"));
        std::fs::write(&file, text.replace("DATA", data.to_str().unwrap())).unwrap();
        let said = refused(what, &file, &dir.path().join(format!("{number}.log"))).await;
        for word in named {
            assert!(said.contains(word), "{what}: `{word}` is not named in\n{said}");
        }
    }
    let missing = Path::new("/nonexistent/member.yaml");
    let said = refused("no file", missing, &dir.path().join("none.log")).await;
    assert!(said.contains("/nonexistent/member.yaml"), "{said}");
    assert!(!data.exists(), "nothing was touched");
}
