//! Founding, proposing and reading through any member.

use std::time::Duration;

use quorate::clock;
use quorate::cluster::{Consistency, NotStarted, ProposeError, ReadError};
use quorate::model::{Epoch, RequestId};
use quorate::state::{Command, Outcome};

use crate::house::{House, has_task, propose, submit};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_founders_serve_writes_and_reads_through_any_member() {
    let house = House::found().await;
    let mut ids: Vec<_> = house.members.iter().map(|member| member.member_id()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
    for (place, member) in house.members.iter().enumerate() {
        let id = format!("task-{place}");
        let committed = propose(member, &id).await;
        assert!(matches!(committed.reply, Ok(Outcome::TaskSubmitted { duplicate: false, .. })));
        // Every other member sees it at once, when asked for the truth.
        for reader in &house.members {
            let stamp = reader.read_barrier(Consistency::Linearizable).await.unwrap();
            assert!(stamp.index >= committed.index);
            assert_eq!(stamp.effective, "linearizable");
            assert!(has_task(reader, &id));
        }
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_id_takes_effect_once_whoever_is_asked() {
    let house = House::found().await;
    let request_id = RequestId::from_key("the same");
    let mut answers = Vec::new();
    for member in &house.members {
        answers.push(member.propose(request_id, "tester", submit("once")).await.unwrap().reply);
    }
    assert!(matches!(answers[0], Ok(Outcome::TaskSubmitted { duplicate: false, .. })));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_reads_keep_their_bounds_or_fail() {
    let house = House::found().await;
    let leader = house.leader().await;
    let follower = &house.members[(leader + 1) % 3];
    let committed = propose(&house.members[leader], "a").await;
    let reading = Consistency::Local { max_age: None, min_index: Some(committed.index) };
    let stamp = follower.read_barrier(reading).await.unwrap();
    assert!(stamp.index >= committed.index && stamp.effective == "local");
    assert!(has_task(follower, "a"));
    let fresh = Consistency::Local { max_age: Some(Duration::from_secs(5)), min_index: None };
    assert!(follower.read_barrier(fresh).await.unwrap().age <= Duration::from_secs(5));
    // Alone, a follower ages past any bound.
    for (place, member) in house.members.iter().enumerate() {
        if place != (leader + 1) % 3 {
            member.stop().await;
        }
    }
    let bound = Duration::from_millis(200);
    let strict = Consistency::Local { max_age: Some(bound), min_index: None };
    let refused = crate::house::eventually("the follower ages", || {
        follower.contact_age().filter(|age| *age > bound)
    });
    refused.await;
    let error = follower.read_barrier(strict).await.unwrap_err();
    assert!(matches!(error, ReadError::Stale { max_age_ms: 200, .. }), "{error:?}");
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dutys_command_is_taken_by_the_leader_of_its_epoch_alone() {
    let house = House::found().await;
    let leader = house.leader().await;
    let (chief, other) = (&house.members[leader], &house.members[(leader + 1) % 3]);
    // As the guard does: a leader proposes nothing before a quorum confirmed it.
    chief.read_barrier(Consistency::Linearizable).await.unwrap();
    let term = chief.leadership().borrow().expect("it leads");
    let epoch = Epoch { term, member: chief.member_id() };
    let opened = chief.propose_local(epoch, Command::OpenEpoch(epoch)).await.unwrap();
    assert_eq!(opened.reply, Ok(Outcome::Done));
    let not_leader = |error: ProposeError| {
        matches!(error, ProposeError::NotStarted { reason: NotStarted::NotLeader, .. })
    };
    let foreign = Epoch { term, member: other.member_id() };
    let error = other.propose_local(foreign, Command::OpenEpoch(foreign)).await.unwrap_err();
    assert!(not_leader(error), "a follower proposes no duty");
    let older = Epoch { term: term - 1, ..epoch };
    let error = chief.propose_local(older, Command::OpenEpoch(older)).await.unwrap_err();
    assert!(not_leader(error), "nor does a leader in an older term");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_held_through_a_change_of_the_leader() {
    let house = House::found().await;
    let leader = house.leader().await;
    let writers = house.members.iter().enumerate().filter(|(place, _)| *place != leader);
    let writing: Vec<_> = writers
        .map(|(place, member)| {
            let member = member.clone();
            tokio::spawn(async move {
                for number in 0..60 {
                    let id = format!("w{place}-{number}");
                    let request_id = clock::mint_request_id();
                    let done = member.propose(request_id, "", submit(&id)).await.unwrap();
                    assert!(done.reply.is_ok());
                }
            })
        })
        .collect();
    house.members[leader].stop().await;
    for writer in writing {
        writer.await.unwrap();
    }
    for (place, member) in house.members.iter().enumerate().filter(|(place, _)| *place != leader) {
        member.read_barrier(Consistency::Linearizable).await.unwrap();
        let seen = member.view().read(|state| state.tasks_len());
        assert_eq!(seen, 120, "member {place}");
    }
    for member in &house.members {
        member.stop().await;
    }
}
