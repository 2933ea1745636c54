//! Leaders that die, stop and freeze, while clients go on writing.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fleet::Fleet;
use crate::history::{End, Load};
use crate::house::House;
use crate::http::{PATIENCE, number, until};

const KILLS: usize = 5;
/// Writes acknowledged between two blows, so that each meets a cluster at work.
const BETWEEN: usize = 60;
/// Far above what is aimed at: it tells a cluster that pauses from one that stands.
const GAP_MAX: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_the_leader_under_load_loses_nothing() {
    let mut house = House::found(3).await;
    let fleet = Fleet::start(&house, 3, "work").await;
    let load = Load::start(&house.urls(), "work", 8);
    load.flows(BETWEEN).await;
    let mut gaps = Vec::new();
    for _ in 0..KILLS {
        let leader = house.leader().await;
        load.take_gap();
        house.kill(leader);
        load.flows(BETWEEN).await;
        gaps.push(load.take_gap());
        house.start(leader);
        house.ready(leader).await;
    }
    let history = load.end().await;
    println!(
        "{KILLS} kills: gaps {gaps:?}; {} acknowledged, {} not done, {} unknown",
        history.count(End::Acknowledged),
        history.count(End::NotDone),
        history.count(End::Unknown),
    );
    // A member that lives holds a request until there is a leader again.
    assert!(history.turned_away.is_empty(), "not held: {:?}", history.turned_away);
    drained(&house).await;
    history.check(&house).await;
    assert!(gaps.iter().all(|gap| *gap < GAP_MAX), "writes stood still: {gaps:?}");
    let ledger = fleet.ledger.lock();
    println!("{} attempts ran, {} dispatches came again", ledger.runs.len(), ledger.repeats);
    assert!(ledger.doubled().is_empty(), "ran twice: {:?}", ledger.doubled());
    let ran: BTreeSet<&str> = ledger.tasks();
    let acknowledged = history.writes.iter().filter(|(_, end)| *end == End::Acknowledged);
    let left: Vec<_> = acknowledged.filter(|(id, _)| !ran.contains(id.as_str())).collect();
    assert!(left.is_empty(), "completed without having run: {left:?}");
}

/// Waits until all work is done.
async fn drained(house: &House) {
    until("an empty queue", PATIENCE, || async {
        let list = house.http.read(&house.url(0, "/api/v1/tasks?limit=1")).await;
        let failed = number(&list, "/summary/failed_count");
        assert_eq!(failed, 0, "work failed: {}", list["tasks"]["failed"]);
        let open = number(&list, "/summary/pending_count") + number(&list, "/summary/active_count");
        (open == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graceful_stop_hands_over() {
    let mut house = House::found(3).await;
    for _ in 0..2 {
        let leader = house.leader().await;
        let others: Vec<String> = house
            .running()
            .into_iter()
            .filter(|place| *place != leader)
            .map(|place| house.url(place, ""))
            .collect();
        let load = Load::start(&others, "t", 4);
        load.flows(BETWEEN).await;
        load.take_gap();
        let status = house.stop(leader).await;
        assert!(status.success(), "the leader ended with {status}");
        load.flows(BETWEEN).await;
        let gap = load.take_gap();
        let history = load.end().await;
        println!("graceful stop: gap {gap:?}, {} writes", history.writes.len());
        assert!(gap < GAP_MAX);
        let bad: Vec<_> =
            history.writes.iter().filter(|(_, end)| *end != End::Acknowledged).collect();
        assert!(bad.is_empty(), "clients of other members noticed: {bad:?}");
        house.start(leader);
        house.ready(leader).await;
        history.check(&house).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_leader_is_replaced() {
    let mut house = House::found(3).await;
    let frozen = house.leader().await;
    let others: Vec<usize> = (0..3).filter(|place| *place != frozen).collect();
    house.submit(frozen, &json!({ "task_id": "before", "task_type": "x" })).await;
    house.signal(frozen, Signal::STOP);
    let heir = until("another leader", PATIENCE, || house.find_leader(&others)).await;
    // Acknowledged while the old leader sleeps: it must not deny it when it wakes.
    let written = house.submit(heir, &json!({ "task_id": "meanwhile", "task_type": "x" })).await;
    let index = written.header("x-quorate-index").unwrap();
    // Asked while it sleeps, so that this is the first thing it sees: it still thinks it leads.
    let mut early = TcpStream::connect(&house.members[frozen].setup.http).await.unwrap();
    let request = "GET /api/v1/tasks/meanwhile HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n";
    early.write_all(request.as_bytes()).await.unwrap();
    house.signal(frozen, Signal::CONT);
    let mut answer = String::new();
    timeout(PATIENCE, early.read_to_string(&mut answer)).await.unwrap().unwrap();
    // It may say that it does not know, but not that there is nothing.
    let status = answer.get(9..12).unwrap_or_default();
    assert!(["200", "503"].contains(&status), "a stale answer: {answer}");
    let url = house.url(frozen, "/api/v1/tasks/meanwhile");
    until("an answer of the old leader", PATIENCE, || async {
        let read = house.http.get(&url).await.ok()?;
        assert!(matches!(read.status, 200 | 503), "stale: {} {}", read.status, read.body);
        (read.status == 200).then(|| assert!(read.header("x-quorate-index").unwrap() >= index))
    })
    .await;
    for _ in 0..5 {
        let read = house.http.get(&url).await.unwrap();
        assert_eq!(read.status, 200, "{}", read.body);
    }
    house.submit(frozen, &json!({ "task_id": "after", "task_type": "x" })).await;
    house.agree().await;
    assert_ne!(house.leader().await, frozen, "it was replaced");
}
