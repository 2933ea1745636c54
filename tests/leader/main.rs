//! The leader's work on members of a real cluster in one process: real TCP between them, real
//! data directories, real HTTP to a node.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod house;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate::cluster::Beat;
use quorate::model::{NodeId, NodeStatus, TaskId, TaskStatus};
use quorate::state::Command;

use house::{House, node};

fn task(n: usize) -> TaskId {
    TaskId::trusted(&format!("t{n}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_submitted_anywhere_are_completed_by_a_real_node() {
    let house = House::found(3).await;
    let worker = node(Duration::ZERO).await;
    house.register("n", worker.port, 16).await;
    for n in 0..90 {
        house.submit(n % 3, n).await;
    }
    house
        .until("all tasks are completed", |state| state.tasks_in(TaskStatus::Completed) == 90)
        .await;
    house.members[0].cluster.view().read(|state| {
        let node = state.node(&NodeId::trusted("n")).unwrap();
        assert_eq!((node.live, node.tasks_completed, node.tasks_failed), (0, 90, 0));
        for n in 0..90 {
            assert_eq!(state.task(&task(n)).unwrap().attempt, 1, "no try was wasted");
        }
    });
    let asked = worker.asked.lock().len();
    assert_eq!(asked, 90, "each attempt was handed over once");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_member_takes_over_and_finishes_when_the_leader_stops() {
    let mut house = House::found(3).await;
    let worker = node(Duration::from_millis(20)).await;
    house.register("n", worker.port, 4).await;
    for n in 0..200 {
        house.submit(0, n).await;
    }
    let leader = house.serving().await;
    let first = house.members[leader].leadership.reigns().pop().unwrap();
    house.until("some are completed", |state| state.tasks_in(TaskStatus::Completed) > 20).await;
    house.members.remove(leader).stop().await;
    let next = house.serving().await;
    let second = house.members[next].leadership.reigns().pop().unwrap();
    assert!(second.epoch > first.epoch);
    house.until("all are completed", |state| state.tasks_in(TaskStatus::Completed) == 200).await;
    // A call that was cut off is made again under the same attempt; nothing gets a second one.
    let mut calls: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for body in worker.asked.lock().iter() {
        let task_id = body["task_id"].as_str().unwrap().to_owned();
        calls.entry(task_id).or_default().insert(body["attempt"].as_u64().unwrap());
    }
    assert_eq!(calls.len(), 200);
    assert!(calls.values().all(|attempts| attempts.iter().eq([1].iter())), "{calls:?}");
    // Only one member at a time serves, and the one that stopped ended its reign first.
    assert_eq!(house.members.iter().filter(|m| m.leadership.duties_running() > 0).count(), 1);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_through_any_member_keep_a_node_and_silence_loses_it() {
    let house = House::found(3).await;
    let (path, value) = ("network.node_timeout".to_owned(), "2".to_owned());
    house.propose(0, Command::PatchConfig { path, value, expected_revision: None }).await;
    house.register("n", 1, 4).await;
    let leader = house.serving().await;
    let follower = &house.members[(leader + 1) % 3].cluster;
    let node_id = NodeId::trusted("n");
    let status =
        || follower.view().read(|state| state.node(&NodeId::trusted("n")).map(|node| node.status));
    // Twice as long as the timeout.
    for _ in 0..16 {
        follower.heartbeats().record(&node_id, Beat { status: None, load: None });
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert_eq!(status(), Some(NodeStatus::Active));
    }
    house
        .until("the silent node is offline", |state| {
            state.nodes().all(|node| node.status == NodeStatus::Offline)
        })
        .await;
    // It goes on beating: a single heartbeat is out of date where a leader is slow to look.
    let beats = async {
        loop {
            follower.heartbeats().record(&node_id, Beat { status: None, load: None });
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    let back = house.until("the node is back", |state| {
        state.nodes().all(|node| node.status == NodeStatus::Active)
    });
    tokio::select! {
        () = back => {}
        () = beats => {}
    }
    house.stop().await;
}
