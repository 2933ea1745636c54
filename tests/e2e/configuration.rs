//! Configurations that make no sense are told at once, all faults together.

use std::time::Duration;

use tempfile::TempDir;

use crate::ports::free_addr;
use crate::process::Process;

#[tokio::test]
async fn config_errors_are_told_at_once() {
    let dir = TempDir::with_prefix("quorate-e2e-").unwrap();
    let listeners = |peer: &str| {
        let http = free_addr();
        format!(
            "listeners:\n  - {{ profile: web4ai, addr: \"{http}\" }}\n  - {{ profile: peer, addr: \"{peer}\" }}\n"
        )
    };
    let data = dir.path().join("data").display().to_string();
    let cases: [(&str, String, &[&str]); 6] = [
        (
            "several faults, all named",
            format!(
                "cluster:\n  data_dir: {data}\n  name: \"\"\n  bootstrap_expect: many\n  raft:\n    \
                 heartbeat_ms: 100\n    election_min_ms: 120\n  nonsense: 1\nlogging:\n  format: xml\n{}",
                listeners(&free_addr())
            ),
            &[
                "cluster.name",
                "cluster.bootstrap_expect",
                "cluster.raft.election_min_ms",
                "cluster.nonsense",
                "logging.format",
            ],
        ),
        ("no YAML", "cluster: [".to_owned(), &["wrong"]),
        (
            "founders that cannot be",
            format!(
                "cluster:\n  data_dir: {data}\n  bootstrap_expect: 3\n  peers: [\"127.0.0.1:1\"]\n{}",
                listeners(&free_addr())
            ),
            &["cluster.bootstrap_expect", "3 members are expected"],
        ),
        (
            "a peer that is no address",
            format!(
                "cluster:\n  data_dir: {data}\n  peers: [\"0.0.0.0:7000\", \"nowhere\"]\n{}",
                listeners(&free_addr())
            ),
            &["cluster.peers", "0.0.0.0:7000", "nowhere"],
        ),
        (
            "listeners that collide or are unknown",
            "listeners:\n  - { profile: web4ai, addr: \"127.0.0.1:7\" }\n  - { profile: peer, addr: \"127.0.0.1:7\" }\n  - { profile: gopher, addr: \"x\" }\n".to_owned(),
            &["both listen on 127.0.0.1:7", "gopher"],
        ),
        (
            "family W's values out of bounds",
            format!(
                "cluster:\n  data_dir: {data}\norchestrator:\n  heartbeat_interval: often\nnetwork:\n  load_balance_algorithm: luck\n{}",
                listeners(&free_addr())
            ),
            &["orchestrator.heartbeat_interval", "network.load_balance_algorithm", "luck"],
        ),
    ];
    for (number, (what, text, named)) in cases.into_iter().enumerate() {
        let file = dir.path().join(format!("{number}.yaml"));
        std::fs::write(&file, &text).unwrap();
        let log = dir.path().join(format!("{number}.log"));
        let words = ["server", "--config", file.to_str().unwrap()];
        let mut process = Process::start(what, &words, &log);
        let status = process.exit(Duration::from_secs(15)).await;
        let said = process.said();
        assert_eq!(status.code(), Some(2), "{what}: {said}");
        for word in named {
            assert!(said.contains(word), "{what}: `{word}` is not named in\n{said}");
        }
    }
    let words = ["server", "--config", "/nonexistent/member.yaml"];
    let mut process = Process::start("no file", &words, &dir.path().join("none.log"));
    assert_eq!(process.exit(Duration::from_secs(15)).await.code(), Some(2));
    assert!(process.said().contains("/nonexistent/member.yaml"), "{}", process.said());
    assert!(!dir.path().join("data").exists(), "nothing was touched");
}
