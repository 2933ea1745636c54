//! Joining, promoting, removing, replacing, moving.

use quorate::cluster::{Boot, Cluster, Consistency, MembershipCode};
use quorate::model::{Member, MemberId};
use quorate::state::Command;

use crate::house::{
    House, agreed_leader, eventually, free_addrs, has_task, options, propose, start,
};

async fn role(member: &Cluster, id: MemberId) -> Option<&'static str> {
    let status = member.status().await;
    status.members.iter().find(|row| row.id == id).map(|row| row.role)
}

/// Waits until `member` says that `id` has `role`.
async fn wait_role(member: &Cluster, id: MemberId, wanted: Option<&'static str>) {
    let waiting = async {
        while role(member, id).await != wanted {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let done = tokio::time::timeout(crate::house::PATIENCE, waiting).await;
    if done.is_err() {
        panic!("member {id} is not {wanted:?}: {:?}", member.status().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_joins_votes_and_leaves() {
    let house = House::found().await;
    propose(&house.members[0], "before").await;
    let addr = free_addrs(1).remove(0);
    let boot = Boot::Join { peers: house.addrs.clone() };
    let newcomer = start(&house.dir("m4"), options("m4", &addr, boot)).await;
    wait_role(&house.members[0], 4, Some("voter")).await;
    assert_eq!(newcomer.member_id(), 4);
    newcomer.read_barrier(Consistency::Linearizable).await.unwrap();
    assert!(has_task(&newcomer, "before"));
    propose(&newcomer, "through the newcomer").await;

    let report = house.members[1].demote(4).await.unwrap();
    assert_eq!((report.voters, report.learners), (vec![1, 2, 3], vec![4]));
    let report = house.members[1].promote(4).await.unwrap();
    assert_eq!(report.voters, vec![1, 2, 3, 4]);
    let report = house.members[2].remove(4).await.unwrap();
    assert_eq!((report.voters, report.learners), (vec![1, 2, 3], vec![]));
    // It is told, and stops by itself.
    let mut ended = newcomer.ended();
    let why = ended.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(why.contains("MEMBER_REMOVED"), "{why}");
    newcomer.stop().await;
    house.stop().await;
}

/// The intention to give a learner its vote was kept by the leader that let it in, in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_is_promoted_though_it_was_restarted_and_the_leader_changed() {
    let house = House::promoting_after(std::time::Duration::from_millis(1500)).await;
    let addr = free_addrs(1).remove(0);
    let boot = || Boot::Join { peers: house.addrs.clone() };
    let newcomer = start(&house.dir("m4"), options("m4", &addr, boot())).await;
    wait_role(&house.members[0], 4, Some("learner")).await;
    eventually("the newcomer has the log", || {
        newcomer.view().read(|state| state.member(4).is_some()).then_some(())
    })
    .await;
    newcomer.stop().await;
    drop(newcomer);
    let leader = house.leader().await;
    house.members[leader].transfer_leader(None).await.unwrap();
    assert_eq!(role(&house.members[0], 4).await, Some("learner"), "the test came too late");
    let newcomer = start(&house.dir("m4"), options("m4", &addr, boot())).await;
    wait_role(&house.members[0], 4, Some("voter")).await;
    newcomer.stop().await;
    house.stop().await;
}

/// A removal that lost its leader between its two steps left a member that nobody turned away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_was_cut_short_is_finished() {
    let house = House::found().await;
    eventually("the founders are on record", || {
        house.members[0].view().read(|state| state.member(3).is_some()).then_some(())
    })
    .await;
    // As such a removal leaves it: on record, without a vote, and not in Raft's membership.
    let member = Member { name: "m4".to_owned(), incarnation: 4, ..Member::default() };
    for command in
        [Command::AllocateMember(member), Command::WantVote { member_id: 4, wanted: false }]
    {
        let request_id = quorate::clock::mint_request_id();
        let done = house.members[0].propose(request_id, "tester", command).await.unwrap();
        assert!(done.reply.is_ok(), "{done:?}");
    }
    eventually("it is forgotten", || {
        house.members[0].view().read(|state| state.member(4).is_none()).then_some(())
    })
    .await;
    house.stop().await;
}

/// It went round and round without a pause until its deadline, because the wait for a leader ends
/// at once on a member that has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_has_ended_refuses_changes_at_once() {
    let house = House::found().await;
    let leader = house.leader().await;
    let stopped = &house.members[(leader + 1) % 3];
    stopped.stop().await;
    let asked = stopped.demote(1);
    let answer = tokio::time::timeout(std::time::Duration::from_secs(2), asked).await;
    let error = answer.expect("it answers at once").unwrap_err();
    assert_eq!(error.code, MembershipCode::Stopped);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_member_stays_a_learner_whoever_leads() {
    let house = House::found().await;
    let leader = house.leader().await;
    let demoted = house.members[(leader + 1) % 3].member_id();
    house.members[leader].demote(demoted).await.unwrap();
    house.members[leader].transfer_leader(None).await.unwrap();
    // Many times as long as a learner waits for its vote.
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert_eq!(role(&house.members[leader], demoted).await, Some("learner"));
    let report = house.members[leader].promote(demoted).await.unwrap();
    assert_eq!(report.voters, vec![1, 2, 3]);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_office_moves_on_request_and_the_leader_can_be_removed() {
    let house = House::found().await;
    let leader = house.leader().await;
    let heir = house.members[(leader + 1) % 3].member_id();
    let asked = &house.members[(leader + 2) % 3];
    let report = asked.transfer_leader(Some(heir)).await.unwrap();
    assert_eq!(report.leader, Some(heir));
    let leader = house.leader().await;
    assert_eq!(house.members[leader].member_id(), heir);
    let report = house.members[leader].remove(heir).await.unwrap();
    assert_eq!(report.voters.len(), 2);
    assert!(!report.voters.contains(&heir));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_would_lose_the_quorum_or_make_no_sense_are_refused() {
    let house = House::found().await;
    let leader = house.leader().await;
    let chief = &house.members[leader];
    let code = |result: Result<_, quorate::cluster::MembershipError>| result.err().map(|e| e.code);
    assert_eq!(code(chief.promote(9).await), Some(MembershipCode::UnknownMember));
    assert_eq!(code(chief.remove(9).await), Some(MembershipCode::UnknownMember));
    assert_eq!(
        code(chief.init(&house.addrs).await.map(|()| Default::default())),
        Some(MembershipCode::AlreadyInitialized)
    );
    let (gone, stays) = (&house.members[(leader + 1) % 3], &house.members[(leader + 2) % 3]);
    gone.stop().await;
    let (gone, stays) = (gone.member_id(), stays.member_id());
    // Of two voters one would answer. It acknowledged something a moment ago, which counts for
    // nothing: what it is counted on for can never be committed, nor taken back.
    assert_eq!(code(chief.demote(stays).await), Some(MembershipCode::QuorumAtRisk));
    assert_eq!(code(chief.remove(stays).await), Some(MembershipCode::QuorumAtRisk));
    // Without the one that is gone, both that remain answer.
    let report = chief.remove(gone).await.unwrap();
    assert_eq!(report.voters.len(), 2);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_comes_back_as_a_new_member_that_replaces_the_old() {
    let mut house = House::found().await;
    for number in 0..20 {
        propose(&house.members[number % 3], &format!("t{number}")).await;
    }
    let leader = house.leader().await;
    let lost = (leader + 1) % 3;
    let name = format!("m{}", lost + 1);
    let old_id = house.members[lost].member_id();
    let gone = house.members.remove(lost);
    gone.stop().await;
    drop(gone);
    std::fs::remove_dir_all(house.dir(&name)).unwrap();
    // The same configuration as before: it must notice that the cluster exists.
    let boot = Boot::Expect { expect: 3, peers: house.addrs.clone() };
    let again = start(&house.dir(&name), options(&name, &house.addrs[lost], boot)).await;
    let witness = house.members[0].clone();
    wait_role(&witness, 4, Some("voter")).await;
    wait_role(&witness, old_id, None).await;
    assert_eq!(again.member_id(), 4);
    again.read_barrier(Consistency::Linearizable).await.unwrap();
    assert_eq!(again.view().read(|state| state.tasks_len()), 20);
    let all = [&house.members[0], &house.members[1], &again];
    agreed_leader(&all).await;
    again.stop().await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_member_of_the_same_name_is_refused_while_the_first_lives() {
    let house = House::found().await;
    let addr = free_addrs(1).remove(0);
    let boot = Boot::Join { peers: house.addrs.clone() };
    let twin = start(&house.dir("twin"), options("m2", &addr, boot)).await;
    // It keeps asking; what must not happen is that it ever gets a number.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(twin.member_id(), 0);
    assert_eq!(house.members[0].status().await.members.len(), 3);
    twin.stop().await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_moved_announces_its_new_address() {
    let mut house = House::found().await;
    let leader = house.leader().await;
    let moved = (leader + 1) % 3;
    let name = format!("m{}", moved + 1);
    let id = house.members[moved].member_id();
    let old = house.members.remove(moved);
    old.stop().await;
    drop(old);
    let addr = free_addrs(1).remove(0);
    let boot = Boot::Expect { expect: 3, peers: house.addrs.clone() };
    let again = start(&house.dir(&name), options(&name, &addr, boot)).await;
    assert_eq!(again.member_id(), id);
    let witness = &house.members[0];
    eventually("the new address is known", || {
        let known = witness.view().read(|state| state.member(id).cloned())?;
        (known.peer_addr == addr).then_some(())
    })
    .await;
    propose(witness, "after the move").await;
    again.read_barrier(Consistency::Linearizable).await.unwrap();
    assert!(has_task(&again, "after the move"));
    let leading = house.members.iter().find(|m| m.leadership().borrow().is_some()).unwrap();
    leading.transfer_leader(Some(id)).await.unwrap();
    again.stop().await;
    house.stop().await;
}
