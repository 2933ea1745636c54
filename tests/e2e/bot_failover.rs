//! What is asked of bots while the leader dies: clients send it again under its key, to one member after
//! another, and it counts once (issue 6).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::house::House;
use crate::http::{CALL, Http, PATIENCE, Reply, number, text, until};

/// Clients that ask at once.
const CLIENTS: usize = 4;
/// What a client waits between two requests, so that a leader can die in between.
const PAUSE: Duration = Duration::from_millis(40);

/// A request and its key.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// Null for none.
    pub(crate) body: Value,
    pub(crate) key: String,
}

/// Asks one member after another until one decides.
pub(crate) async fn decided(http: &Http, urls: &[String], ask: &Ask) -> Reply {
    let end = Instant::now() + PATIENCE;
    let body = Some(&ask.body).filter(|body| !body.is_null());
    for url in urls.iter().cycle() {
        let url = format!("{url}{}", ask.path);
        let reply = http.send(ask.method.clone(), &url, body, Some(&ask.key), CALL).await;
        match reply {
            Ok(reply) if reply.status < 500 => return reply,
            other => assert!(Instant::now() < end, "{} is not decided: {other:?}", ask.key),
        }
        sleep(PAUSE).await;
    }
    unreachable!("there are members")
}

/// Has everything asked by several clients, and kills the leader in the middle of it. Gives what was
/// answered, in the order asked; all members run then.
async fn rush(house: &mut House, asks: &[Ask]) -> Vec<Reply> {
    let leader = house.leader().await;
    let answered = Arc::new(AtomicUsize::new(0));
    let clients = asks.chunks(asks.len().div_ceil(CLIENTS)).enumerate().map(|(n, asks)| {
        let (http, mut urls) = (house.http.clone(), house.urls());
        urls.rotate_left(n % 3);
        let (asks, answered) = (asks.to_vec(), Arc::clone(&answered));
        tokio::spawn(async move {
            let mut replies = Vec::new();
            for ask in asks {
                replies.push(decided(&http, &urls, &ask).await);
                answered.fetch_add(1, Ordering::Relaxed);
                sleep(PAUSE).await;
            }
            replies
        })
    });
    let clients: Vec<_> = clients.collect();
    let some = || async { (answered.load(Ordering::Relaxed) >= asks.len() / 4).then_some(()) };
    until("some answers", PATIENCE, some).await;
    house.kill(leader);
    assert!(answered.load(Ordering::Relaxed) < asks.len(), "the leader died after all of it");
    let replies = join_all(clients).await.into_iter().flat_map(Result::unwrap).collect();
    house.start(leader);
    house.ready(leader).await;
    replies
}

/// Sends everything once more, through another member; each is answered as before.
async fn asked_again(house: &House, asks: &[Ask], replies: &[Reply]) {
    for (ask, reply) in asks.iter().zip(replies) {
        let again = decided(&house.http, &[house.url(2, "")], ask).await;
        assert_eq!(again.status, reply.status, "{}: {}", ask.key, again.body);
        for key in ["/id", "/bot_count", "/assignments", "/verdicts", "/error"] {
            assert_eq!(again.body.pointer(key), reply.body.pointer(key), "{}", ask.key);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_5_3_capacity_is_exact_while_a_leader_dies() {
    let mut house = House::found(3).await;
    let ask = |n| Ask {
        method: Method::POST,
        path: "/swarms?bot_ids=false".to_owned(),
        body: json!({"count": 1500, "name": format!("s{n}")}),
        key: format!("swarm-{n}"),
    };
    let asks: Vec<Ask> = (0..40).map(ask).collect();
    let replies = rush(&mut house, &asks).await;
    let (made, refused): (Vec<&Reply>, Vec<&Reply>) =
        replies.iter().partition(|reply| reply.status == 201);
    let mut counts: Vec<u64> = made.iter().map(|reply| number(&reply.body, "/bot_count")).collect();
    counts.sort_unstable();
    let wanted: Vec<u64> = [500].into_iter().chain([1500; 33]).collect();
    assert_eq!(counts, wanted, "33 whole ones and one cut");
    for reply in refused {
        let said = text(&reply.body, "/error");
        assert_eq!(
            (reply.status, said.as_str()),
            (400, "Cannot create swarm: bot capacity reached")
        );
    }
    let ids: BTreeSet<String> = made.iter().map(|reply| text(&reply.body, "/id")).collect();
    assert_eq!(ids.len(), made.len(), "each is another swarm");
    asked_again(&house, &asks, &replies).await;
    for place in 0..3 {
        let stats = house.http.read(&house.url(place, "/bots/stats")).await;
        let found = ["active_bots", "total_created", "swarm_count"];
        let found = found.map(|key| number(&stats, &format!("/{key}")));
        assert_eq!(found, [50_000, 50_000, 34], "what was asked again made nothing");
    }
    house.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_is_assigned_leased_and_completed_once_while_leaders_die() {
    const BOTS: u64 = 10;
    const WAVES: usize = 24;
    const ALL: u64 = BOTS * WAVES as u64;
    let mut house = House::found(3).await;
    let url = house.url(0, "/swarms");
    let made = house.http.send(Method::POST, &url, Some(&json!({"count": BOTS})), None, CALL).await;
    let swarm = text(&made.unwrap().body, "/id");
    let counts = async |house: &House| {
        let shown = house.http.read(&house.url(1, &format!("/swarms/{swarm}?bot_ids=false"))).await;
        ["waiting_tasks", "leased_tasks", "total_tasks_completed", "failed_tasks"]
            .map(|key| number(&shown, &format!("/{key}")))
    };
    let assign = |n| Ask {
        method: Method::POST,
        path: format!("/swarms/{swarm}/tasks"),
        body: json!({"type": "scan", "data": {"n": n}}),
        key: format!("assign-{n}"),
    };
    let asks: Vec<Ask> = (0..WAVES).map(assign).collect();
    let replies = rush(&mut house, &asks).await;
    assert!(replies.iter().all(|reply| number(&reply.body, "/assignments") == BOTS));
    asked_again(&house, &asks, &replies).await;
    assert_eq!(counts(&house).await, [ALL, 0, 0, 0], "each mass assignment counts once");

    let lease = |n| Ask {
        method: Method::POST,
        path: "/bots/leases".to_owned(),
        body: json!({"swarms": [swarm], "holder": format!("w{n}"), "max": BOTS,
            "lease_seconds": 600}),
        key: format!("lease-{n}"),
    };
    let leases: Vec<Ask> = (0..WAVES).map(lease).collect();
    let replies = rush(&mut house, &leases).await;
    let rows: Vec<&Vec<Value>> =
        replies.iter().map(|reply| reply.body["assignments"].as_array().unwrap()).collect();
    let ids: Vec<String> =
        rows.iter().flat_map(|rows| rows.iter().map(|row| text(row, "/task_id"))).collect();
    assert_eq!(ids.len() as u64, ALL);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len() as u64, ALL, "nothing was given to two");
    assert_eq!(counts(&house).await, [0, ALL, 0, 0]);

    let complete = |(n, rows): (usize, &&Vec<Value>)| {
        let item = |row: &Value| json!({"task_id": row["task_id"], "attempt": row["attempt"]});
        Ask {
            method: Method::POST,
            path: "/assignments/complete".to_owned(),
            body: json!({"items": rows.iter().map(item).collect::<Vec<_>>()}),
            key: format!("complete-{n}"),
        }
    };
    let asks: Vec<Ask> = rows.iter().enumerate().map(complete).collect();
    let replies = rush(&mut house, &asks).await;
    let accepted = json!(vec!["accepted"; BOTS as usize]);
    assert!(replies.iter().all(|reply| reply.body["verdicts"] == accepted));
    asked_again(&house, &asks, &replies).await;
    let other = Ask { key: "another request".to_owned(), ..asks[0].clone() };
    let again = decided(&house.http, &house.urls(), &other).await;
    assert_eq!(again.body["verdicts"], json!(vec!["repeated"; BOTS as usize]));
    assert_eq!(counts(&house).await, [0, 0, ALL, 0], "each counts once");
    house.agree().await;
}
