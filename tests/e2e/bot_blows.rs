//! What happens to a leader while operations on bots are under way, and proof that they were.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep};

use crate::bot_failover::{Ask, decided};
use crate::house::House;
use crate::http::{CALL, PATIENCE, Reply, until};

/// The place of the request of each operation that is under way when it happens.
pub(crate) const UNDER_WAY: usize = 2;

/// What happens to the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    Dies,
    HandsOver,
}

/// One operation, some times over.
pub(crate) struct Series(pub(crate) Vec<Ask>);

/// When the request was sent that is under way, and when it was answered.
type Times = (Instant, Instant);

/// Strikes the leader, after a while in which some of what is asked is answered. When it is to die, the
/// others do not hear it for its last moments: what comes then is in no log but its own. Gives
/// when it began and when it was over.
async fn strike(house: &mut House, leader: usize, blow: Blow) -> Times {
    sleep(Duration::from_millis(4)).await;
    let begin = Instant::now();
    match blow {
        Blow::Dies => {
            let others = house.running().into_iter().filter(|place| *place != leader);
            let others: Vec<usize> = others.collect();
            others.iter().for_each(|place| house.signal(*place, Signal::STOP));
            sleep(Duration::from_millis(20)).await;
            house.kill(leader);
            others.iter().for_each(|place| house.signal(*place, Signal::CONT));
        }
        Blow::HandsOver => {
            let url = house.url(leader, "/api/v1/cluster/transfer-leader");
            until("another leads", PATIENCE, || async {
                let reply = house.http.send(Method::POST, &url, Some(&json!({})), None, CALL).await;
                reply.ok().filter(|reply| reply.status == 200)
            })
            .await;
        }
    }
    (begin, Instant::now())
}

/// Has all series asked at once, each by a client of its own; when every one of them has a request under
/// way, it happens to the leader. Then those that wait for work are fed.
pub(crate) async fn asked(
    house: &mut House,
    all: &[Series],
    feed: &[Ask],
    blow: Blow,
) -> Vec<Vec<Reply>> {
    let leader = house.leader().await;
    let begin = Arc::new(Barrier::new(all.len() + 1));
    let clients = all.iter().enumerate().map(|(n, Series(asks))| {
        let (http, mut urls) = (house.http.clone(), house.urls());
        urls.rotate_left(n % 3);
        let (asks, begin) = (asks.clone(), Arc::clone(&begin));
        tokio::spawn(async move {
            let (mut replies, mut times) = (Vec::new(), Vec::new());
            for (place, ask) in asks.iter().enumerate() {
                if place == UNDER_WAY {
                    begin.wait().await;
                    // Some are on their way by then, some in the log, some answered.
                    sleep(Duration::from_millis(n as u64 / 2)).await;
                }
                let sent = Instant::now();
                replies.push(decided(&http, &urls, ask).await);
                times.push((sent, Instant::now()));
            }
            (replies, times[UNDER_WAY])
        })
    });
    let clients: Vec<_> = clients.collect();
    begin.wait().await;
    let (begin, end) = strike(house, leader, blow).await;
    for ask in feed {
        let reply = decided(&house.http, &house.urls(), ask).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
    }
    let replies = join_all(clients).await.into_iter().map(Result::unwrap);
    let (replies, times): (Vec<_>, Vec<Times>) = replies.unzip();
    if blow == Blow::Dies {
        house.start(leader);
        house.ready(leader).await;
    }
    were_under_way(all, &times, begin, end, blow);
    replies
}

/// That what was to be struck was struck: sent before it was over, and answered after it began. Of one
/// that dies, what nobody else has heard of cannot have been answered before.
fn were_under_way(all: &[Series], times: &[Times], begin: Instant, end: Instant, blow: Blow) {
    let answered_after = if blow == Blow::Dies { end } else { begin };
    let struck = |(sent, answered): &Times| *sent < end && *answered > answered_after;
    let struck = all.iter().zip(times).filter(|(_, times)| struck(times));
    let struck: Vec<&str> = struck.map(|(series, _)| series.0[UNDER_WAY].key.as_str()).collect();
    let polls = struck.iter().filter(|key| key.contains("-poll-") || key.contains("-watch-"));
    assert_eq!(polls.count(), 2, "long polls are under way all the time: {struck:?}");
    assert!(struck.len() > all.len() / 3, "of {}, only {struck:?}", all.len());
}
