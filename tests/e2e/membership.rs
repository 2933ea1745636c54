//! Members that come, go, move, lose their disk, or do not belong.

use std::fs;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::history::Load;
use crate::house::{House, Setup};
use crate::http::{PATIENCE, text, until};
use crate::ports::free_addr;

/// Writes acknowledged between two changes.
const BETWEEN: usize = 40;
/// Many times an election's: long enough to see that none takes place.
const NO_ELECTION: Duration = Duration::from_secs(4);

async fn voters_become(house: &House, place: usize, wanted: &[u64]) {
    until(&format!("voters {wanted:?}"), PATIENCE, || async {
        let mut voters = house.voters(place).await;
        voters.sort_unstable();
        (voters == wanted).then_some(())
    })
    .await;
}

fn members_url(house: &House, place: usize, rest: &str) -> String {
    house.url(place, &format!("/api/v1/cluster/members/{rest}"))
}

/// Changes may collide with one that is being finished; the answer says so, and to try again.
async fn remove(house: &House, through: usize, id: u64) {
    let url = members_url(house, through, &id.to_string());
    until(&format!("member {id} removed"), PATIENCE, || async {
        let reply = house.http.send(Method::DELETE, &url, None, None, PATIENCE).await.unwrap();
        let gone = reply.status == 200 || text(&reply.body, "/code") == "MEMBER_NOT_FOUND";
        let later = ["CHANGE_IN_PROGRESS", "NO_LEADER", "CHANGE_TIMEOUT"];
        let code = text(&reply.body, "/code");
        assert!(gone || later.contains(&code.as_str()), "{} {}", reply.status, reply.body);
        gone.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_3_5_3_under_load() {
    let mut house = House::found(3).await;
    let load = Load::start(&house.urls(), "t", 4);
    load.flows(BETWEEN).await;
    for name in ["m4", "m5"] {
        let setup = house.setup(name, &free_addr(), &house.peers());
        let place = house.add(setup);
        house.start(place);
    }
    // They join by themselves, catch up, and are given their votes.
    voters_become(&house, 0, &[1, 2, 3, 4, 5]).await;
    house.all_ready().await;
    load.flows(BETWEEN).await;
    // A follower leaves, then the leader; their processes end and say why.
    let leader = house.leader().await;
    let follower = (0..3).find(|place| *place != leader).unwrap();
    let stays = (0..3).find(|place| *place != leader && *place != follower).unwrap();
    for leaving in [follower, leader] {
        let id = house.id(leaving).await;
        remove(&house, stays, id).await;
        let process = house.process(leaving);
        let status = process.exit(PATIENCE).await;
        assert!(!status.success(), "a removed member must not look like a clean stop");
        assert!(process.said().contains("left"), "it must say why:\n{}", process.said());
        house.kill(leaving);
        load.flows(BETWEEN).await;
    }
    let mut expected = vec![house.id(stays).await, house.id(3).await, house.id(4).await];
    expected.sort_unstable();
    voters_become(&house, stays, &expected).await;
    let history = load.end().await;
    history.check(&house).await;
    // Numbers are never given again: the removed member comes back as another.
    fs::remove_dir_all(&house.members[follower].setup.data).unwrap();
    house.members[follower].setup.expect = 0;
    house.start(follower);
    house.ready(follower).await;
    assert!(house.id(follower).await > 5);
    house.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_make_no_sense_are_refused_by_stable_codes() {
    let mut house = House::found(3).await;
    // One is away: with another one removed, one of two would be left.
    let leader = house.leader().await;
    let (away, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let (away_id, other_id) = (house.id(away).await, house.id(other).await);
    house.kill(away);
    sleep_past_an_election().await;
    let url = members_url(&house, leader, &other_id.to_string());
    let refused = house.http.refused(Method::DELETE, &url, &Value::Null).await;
    assert_eq!(refused, (409, "QUORUM_AT_RISK".to_owned()));
    let demote = members_url(&house, other, &format!("{other_id}/demote"));
    let refused = house.http.refused(Method::POST, &demote, &json!({})).await;
    assert_eq!(refused, (409, "QUORUM_AT_RISK".to_owned()));
    let transfer = house.url(other, "/api/v1/cluster/transfer-leader");
    let to = json!({ "to": away_id.to_string() });
    assert_eq!(house.http.refused(Method::POST, &transfer, &to).await.1, "NOT_CAUGHT_UP");
    house.start(away);
    house.ready(away).await;
    let url = members_url(&house, other, "99");
    let refused = house.http.refused(Method::DELETE, &url, &Value::Null).await;
    assert_eq!(refused, (404, "MEMBER_NOT_FOUND".to_owned()));
    let init = house.url(0, "/api/v1/cluster/init");
    let refused = house.http.refused(Method::POST, &init, &json!({ "peers": [] })).await;
    assert_eq!(refused, (409, "ALREADY_INITIALIZED".to_owned()));
    two_of_one_name_or_address(&mut house).await;
    let mut voters = house.voters(leader).await;
    voters.sort_unstable();
    assert_eq!(voters, [1, 2, 3], "nothing was changed by all this");
    house.agree().await;
}

/// What the leader has heard of a member a moment ago does not count as a sign of life any more.
async fn sleep_past_an_election() {
    sleep(Duration::from_millis(700)).await;
}

async fn two_of_one_name_or_address(house: &mut House) {
    let peers = house.peers();
    let same_name =
        Setup { data: house.dir().join("x1"), ..house.setup("m1", &free_addr(), &peers) };
    let taken = house.members[0].setup.peer.clone();
    let mut same_address = house.setup("m9", &free_addr(), &peers);
    same_address.more = String::new();
    for (setup, advertise, code) in
        [(same_name, None, "PREDECESSOR_ALIVE"), (same_address, Some(taken), "MEMBER_CONFLICT")]
    {
        let http = setup.http.clone();
        let (file, log) = (house.dir().join(format!("{code}.yaml")), house.dir().join(code));
        let mut text = setup.text();
        if let Some(advertise) = advertise {
            let from = format!("addr: \"{}\" }}", setup.peer);
            let to = format!("addr: \"{}\", advertise: \"{advertise}\" }}", setup.peer);
            text = text.replace(&from, &to);
        }
        fs::write(&file, text).unwrap();
        let words = ["server", "--config", file.to_str().unwrap()];
        let process = crate::process::Process::start(code, &words, &log);
        let url = format!("http://{http}/api/v1/cluster/join");
        let body = json!({ "peers": [peers[1].clone()] });
        let refused = until("an answer of the intruder", PATIENCE, || async {
            let reply =
                house.http.send(Method::POST, &url, Some(&body), None, PATIENCE).await.ok()?;
            Some((reply.status, self::text(&reply.body, "/code")))
        })
        .await;
        assert_eq!(refused, (409, code.to_owned()), "{}", process.said());
        let ready = house.http.get(&format!("http://{http}/readyz")).await.unwrap();
        assert_eq!(ready.status, 503, "it has no place: {}", ready.body);
        until("its own word of it", PATIENCE, || async {
            process.said().contains(code).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_another_cluster_is_kept_out() {
    let mut house = House::found(3).await;
    let mut other = House::found(1).await;
    other.submit(0, &json!({ "task_id": "theirs", "task_type": "x" })).await;
    let own_id = text(&other.status(0).await.unwrap(), "/cluster_id");
    // It comes back where a member of ours was, and is told of our members as its peers.
    let place = (house.leader().await + 1) % 3;
    house.kill(place);
    assert!(other.stop(0).await.success());
    other.members[0].setup.peer = house.members[place].setup.peer.clone();
    other.members[0].setup.peers = house.peers();
    other.start(0);
    other.ready(0).await;
    house.submit((place + 1) % 3, &json!({ "task_id": "ours", "task_type": "x" })).await;
    until("word of the stranger", PATIENCE, || async {
        let said = [other.said(0), house.said((place + 1) % 3), house.said((place + 2) % 3)];
        said.iter().any(|said| said.contains("FOREIGN_CLUSTER")).then_some(())
    })
    .await;
    assert_eq!(text(&other.status(0).await.unwrap(), "/cluster_id"), own_id);
    let missing = other.http.get(&other.url(0, "/api/v1/tasks/ours")).await.unwrap();
    assert_eq!(missing.status, 404, "our entries went to a stranger");
    let leader = house.leader().await;
    let status = house.status(leader).await.unwrap();
    assert_ne!(text(&status, "/cluster_id"), own_id);
    let id = place as u64 + 1;
    until("a stranger at its address is not it", PATIENCE, || async {
        let status = house.status(leader).await?;
        let row = status["members"].as_array()?.iter().find(|row| row["id"] == id)?.clone();
        (row["state"] == "unreachable").then_some(())
    })
    .await;
    let join = other.url(0, "/api/v1/cluster/join");
    let refused = house.http.refused(Method::POST, &join, &json!({ "peers": house.peers() })).await;
    assert_eq!(refused, (409, "ALREADY_INITIALIZED".to_owned()));
    assert!(other.stop(0).await.success());
    house.start(place);
    house.ready(place).await;
    house.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn address_change_is_announced() {
    let mut house = House::found(3).await;
    let leader = house.leader().await;
    // A follower moves, then the old leader: then two of three are where no file says.
    for place in [(leader + 1) % 3, leader] {
        let id = house.id(place).await;
        assert!(house.stop(place).await.success());
        let setup = &mut house.members[place].setup;
        (setup.http, setup.peer) = (free_addr(), free_addr());
        let (http, peer) = (setup.http.clone(), setup.peer.clone());
        house.start(place);
        house.ready(place).await;
        for other in 0..3 {
            until("the new address, everywhere", PATIENCE, || async {
                let status = house.status(other).await?;
                let rows = status["members"].as_array()?;
                let row = rows.iter().find(|row| row["id"] == id)?;
                let moved = row["http"] == http && row["peer"] == peer;
                (moved && row["state"] != "unreachable").then_some(())
            })
            .await;
        }
        house.submit(place, &json!({ "task_type": "x" })).await;
    }
    // The members that moved are a majority that finds itself.
    let stayed = (leader + 2) % 3;
    house.kill(stayed);
    let moved = house.running();
    until("a leader among those that moved", PATIENCE, || house.find_leader(&moved)).await;
    house.submit(leader, &json!({ "task_type": "x" })).await;
    house.start(stayed);
    house.ready(stayed).await;
    house.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wiped_disk_does_not_vote_and_comes_back_as_a_new_member() {
    let mut house = House::found(3).await;
    let leader = house.leader().await;
    let (wiped, away) = ((leader + 1) % 3, (leader + 2) % 3);
    // Acknowledged by the leader and the one that will lose its disk: only they have it.
    house.kill(away);
    house.submit(leader, &json!({ "task_id": "precious", "task_type": "x" })).await;
    house.kill(leader);
    house.kill(wiped);
    fs::remove_dir_all(&house.members[wiped].setup.data).unwrap();
    house.start(wiped);
    house.start(away);
    // Two of three run. If the wiped one voted under its old number, they would forget the write.
    let (old, until_then) = (wiped as u64 + 1, Instant::now() + NO_ELECTION);
    while Instant::now() < until_then {
        let leads = house.find_leader(&[wiped, away]).await;
        assert_eq!(leads, None, "a member without its disk helped to elect");
        sleep(Duration::from_millis(100)).await;
    }
    house.start(leader);
    house.all_ready().await;
    // It came back as somebody else, votes again in the end, and its old number is gone.
    let new = house.id(wiped).await;
    assert!(new > 3, "a number was given twice: {new}");
    let mut expected = vec![leader as u64 + 1, away as u64 + 1, new];
    expected.sort_unstable();
    voters_become(&house, leader, &expected).await;
    until(&format!("member {old} forgotten"), PATIENCE, || async {
        let status = house.status(leader).await?;
        let known = status["members"].as_array()?.iter().any(|row| row["id"] == old);
        (!known).then_some(())
    })
    .await;
    for place in 0..3 {
        let task = house.http.read(&house.url(place, "/api/v1/tasks/precious")).await;
        assert_eq!(text(&task, "/task_id"), "precious");
    }
    // It is a full member: with it and one other, the cluster goes on.
    house.agree().await;
    house.kill(leader);
    house.submit(wiped, &json!({ "task_type": "x" })).await;
}
