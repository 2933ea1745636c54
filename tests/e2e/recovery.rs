//! The worst days: the quorum is gone and one disk is left; or nothing is left but a backup.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::command_line::run;
use crate::history::{End, Load};
use crate::house::{House, Setup};
use crate::http::{Http, PATIENCE, number, text, until};
use crate::ports::free_addr;

const KEY: &str = "a key for administrators";

/// A node that takes work and never says how it ended: attempt and epoch of every dispatch, by
/// task.
type Taken = Arc<Mutex<BTreeMap<String, Vec<(u64, String)>>>>;

async fn silent_node(house: &House) -> Taken {
    async fn take(
        State(taken): State<Taken>,
        Json(body): Json<Value>,
    ) -> (StatusCode, Json<Value>) {
        let told = (number(&body, "/attempt"), text(&body, "/epoch"));
        taken.lock().entry(text(&body, "/task_id")).or_default().push(told);
        (StatusCode::ACCEPTED, Json(json!({ "success": true, "status": "running" })))
    }
    let taken = Taken::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router =
        Router::new().route("/api/v4/tasks/execute", post(take)).with_state(Arc::clone(&taken));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let body =
        json!({ "host": "127.0.0.1", "port": port, "capabilities": ["silent"], "capacity": 1 });
    let url = house.url(0, "/api/v1/nodes/silent/register");
    house.http.write(Method::POST, &url, &body).await;
    taken
}

async fn dispatched(taken: &Taken, task_id: &str, times: usize) -> (u64, String) {
    until(&format!("dispatch {times} of {task_id}"), PATIENCE, || async {
        taken.lock().get(task_id).and_then(|told| told.get(times - 1).cloned())
    })
    .await
}

/// What is acknowledged and still at hand: tasks of a load that ended while all members were well.
async fn settled_tasks(house: &House) -> Vec<String> {
    let load = Load::start(&house.urls(), "settled", 3);
    load.flows(60).await;
    let history = load.end().await;
    history.check(house).await;
    let done = history.writes.into_iter().filter(|(_, end)| *end == End::Acknowledged);
    done.map(|(task_id, _)| task_id).collect()
}

async fn all_there(house: &House, place: usize, tasks: &[String]) {
    for task_id in tasks {
        let path = format!("/api/v1/tasks/{task_id}?consistency=local");
        house.http.read(&house.url(place, &path)).await;
    }
}

/// A late report of an attempt of the old world, as its worker would make it.
async fn late_report(house: &House, place: usize, told: &(u64, String)) -> (u16, String) {
    let report = json!({
        "status": "completed", "result": {}, "node_id": "silent", "attempt": told.0, "epoch": told.1,
    });
    let url = house.url(place, "/api/v1/tasks/stuck/result");
    house.http.refused(Method::POST, &url, &report).await
}

/// Kills all members but `last` in the middle of their work, and deletes what they had; then kills
/// that one too.
async fn lose_two_with_their_disks(house: &mut House, leader: usize, last: usize) {
    let load = Load::start(&house.urls(), "late", 4);
    load.flows(20).await;
    let others = [leader, 3 - leader - last];
    for place in others {
        house.kill(place);
    }
    load.cut();
    for place in others {
        fs::remove_dir_all(&house.members[place].setup.data).unwrap();
    }
    let dir = house.members[last].setup.data.clone();
    run(&["recover", "plan", dir.to_str().unwrap()]).with(1).says(&["in use by another process"]);
    house.kill(last);
}

/// What the plan says of the last disk; gives how many tasks are on it.
fn look_at_what_is_left(dir: &Path) -> u64 {
    let dir = dir.to_str().unwrap();
    let said = ["cannot be known", "missing: ", "quorate recover apply --from"];
    run(&["recover", "plan", dir]).with(0).says(&said);
    let plan = run(&["recover", "plan", dir, "-o", "json"]).with(0).json();
    assert_eq!((&plan["may_have_lost"], &plan["quorum"]), (&json!(true), &json!(2)), "{plan}");
    assert_eq!(plan["directories"][0]["damage"], json!([]));
    let voters = plan["voters"].as_array().unwrap();
    assert_eq!(voters.iter().filter(|voter| !voter["at_hand"].is_null()).count(), 1, "{plan}");
    number(&plan, "/directories/0/end/tasks")
}

/// Founds the new cluster where a lost member lived; gives the place of its first member.
async fn rise(house: &mut House, from: &Path, lost: usize, tasks: u64) -> usize {
    let to = house.dir().join("risen");
    let (peer, http) = (house.members[lost].setup.peer.clone(), free_addr());
    let apply = [
        "recover",
        "apply",
        "--from",
        from.to_str().unwrap(),
        "--to",
        to.to_str().unwrap(),
        "--member",
        "risen",
        "--peer",
        &peer,
        "--http",
        &http,
        "-o",
        "json",
    ];
    let really = [&apply[..], &["--yes"]].concat();
    run(&apply).with(1).says(&["nothing was written"]);
    assert!(!to.exists());
    let made = run(&really).with(0).json();
    assert_eq!((number(&made, "/tasks"), number(&made, "/requeued")), (tasks, 1), "{made}");
    run(&really).with(1).says(&["is not empty"]);
    let setup = Setup { data: to, http, ..house.setup("risen", &peer, &[]) };
    let risen = house.add(setup);
    house.start(risen);
    house.ready(risen).await;
    assert_eq!(house.id(risen).await, 101);
    risen
}

/// Two members on empty disks join.
async fn grow(house: &mut House, first: usize) {
    let peers = [house.members[first].setup.peer.clone()];
    for name in ["second", "third"] {
        let setup = house.setup(name, &free_addr(), &peers);
        let place = house.add(setup);
        house.start(place);
    }
    house.all_ready().await;
    until("three voters", PATIENCE, || async {
        (house.voters(first).await.len() == 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_rises_from_the_last_disk() {
    let mut house = House::found(3).await;
    let taken = silent_node(&house).await;
    let stuck = json!({
        "task_id": "stuck", "task_type": "x", "requirements": { "capabilities": ["silent"] },
    });
    house.submit(0, &stuck).await;
    let told = dispatched(&taken, "stuck", 1).await;
    // The only node is full now: nothing else is placed, and this comes first again later.
    let settled = settled_tasks(&house).await;

    let leader = house.leader().await;
    let last = (leader + 1) % 3;
    lose_two_with_their_disks(&mut house, leader, last).await;
    let dir = house.members[last].setup.data.clone();
    let tasks = look_at_what_is_left(&dir);
    assert!(tasks as usize > settled.len());
    let risen = rise(&mut house, &dir, leader, tasks).await;
    all_there(&house, risen, &settled).await;
    grow(&mut house, risen).await;
    assert!(house.agree().await.applied > 1_000_000_000);
    for place in house.running() {
        all_there(&house, place, &settled).await;
    }

    // What was under way goes on under a new attempt; the old one's word does not count.
    let again = dispatched(&taken, "stuck", 2).await;
    assert!(again.0 > 1000 && again.1 != told.1, "{told:?} {again:?}");
    assert_eq!(late_report(&house, risen, &told).await, (409, "STALE_ATTEMPT".to_owned()));
    let next = (told.0 + 1, told.1.clone());
    assert_eq!(late_report(&house, risen, &next).await.0, 409);

    // The old disk comes back to life and is nobody here.
    house.start(last);
    until("the refusal of the old member", PATIENCE, || async {
        house.said(last).contains("FOREIGN_CLUSTER").then_some(())
    })
    .await;
    house.kill(last);
    house.submit(risen, &json!({ "task_id": "new", "task_type": "x" })).await;
    house.agree().await;
}

/// Writes one task after the other through all members; gives the index of each.
async fn write_on(urls: Vec<String>, stop: CancellationToken) -> BTreeMap<String, u64> {
    let (http, mut indexes) = (Http::new(), BTreeMap::new());
    for count in 0.. {
        if stop.is_cancelled() {
            break;
        }
        let task_id = format!("b-{count}");
        let url = format!("{}/api/v1/tasks", urls[count % urls.len()]);
        let body = json!({ "task_id": task_id, "task_type": "x", "input_data": "y".repeat(400) });
        let reply = http.write(Method::POST, &url, &body).await;
        indexes.insert(task_id, reply.header("x-quorate-index").unwrap());
    }
    indexes
}

/// The schedule writes, rehearses and prunes; any member shows what lies in the directory.
async fn scheduled(house: &House, dir: &Path) {
    let names = |list: &Value| -> Vec<String> {
        let files = list["backups"].as_array().unwrap();
        files.iter().map(|file| text(file, "/name")).collect()
    };
    let list =
        || async { house.http.read(&house.url(house.leader().await, "/api/v1/backups")).await };
    let first = until("a first backup", PATIENCE, || async { names(&list().await).pop() }).await;
    let later = until("the first one pruned", PATIENCE, || async {
        let listed = list().await;
        let gone = !names(&listed).contains(&first);
        (gone && listed["backups"][0]["rehearsal"]["passed"] == true).then_some(listed)
    })
    .await;
    assert!(names(&later).len() <= 2, "{later}");
    assert_eq!(later["fault"], json!(null));
    run(&["backup", "rehearse", dir.to_str().unwrap()]).with(0).says(&["verified"]);
    let leader = house.url(house.leader().await, "");
    run(&["backup", "list", "--url", &leader]).with(0).says(&["passed"]);
    let page = house.http.read(&format!("{leader}/metrics")).await;
    assert!(page.as_str().unwrap().contains("quorate_backup_last_rehearsal_ok 1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_becomes_another_cluster() {
    let kept = tempfile::tempdir().unwrap();
    let more = format!(
        "  admin_key: {KEY}\n  backup: {{ dir: {}, interval_ms: 1000, keep: 2 }}\n",
        json!(kept.path())
    );
    let mut house = House::found_with(3, &more).await;
    let stop = CancellationToken::new();
    let writing = tokio::spawn(write_on(house.urls(), stop.clone()));
    scheduled(&house, kept.path()).await;

    let follower = (house.leader().await + 1) % 3;
    let (url, file) = (house.url(follower, ""), house.dir().join("copy.qbak"));
    let path = file.to_str().unwrap();
    let create = ["backup", "create", "--url", &url, "--file", path, "-o", "json"];
    run(&create).with(1).says(&["ADMIN_KEY_REQUIRED", "--admin-key"]);
    assert!(!file.exists());
    let made = run(&[&create[..], &["--admin-key", KEY]].concat()).with(0).json();
    stop.cancel();
    let indexes = writing.await.unwrap();
    let end = number(&made, "/index");
    let verified = run(&["backup", "verify", path, "-o", "json"]).with(0).json();
    assert_eq!((&verified["digest"], &verified["verified"]), (&made["digest"], &json!(true)));
    let wanted = indexes.values().filter(|index| **index <= end).count();
    assert_eq!(number(&verified, "/tasks") as usize, wanted, "not of one index");
    assert!(wanted > 0 && wanted < indexes.len(), "{wanted} of {}: not under load", indexes.len());

    let to = house.dir().join("restored");
    let (peer, http) = (free_addr(), free_addr());
    let restore = ["backup", "restore", path, "--to", to.to_str().unwrap(), "--member", "restored"];
    run(&[&restore[..], &["--peer", &peer, "--http", &http, "--yes"]].concat()).with(0);
    let setup = Setup { data: to, http, ..house.setup("restored", &peer, &house.peers()) };
    let restored = house.add(setup);
    house.start(restored);
    house.ready(restored).await;
    for (task_id, index) in &indexes {
        let path = format!("/api/v1/tasks/{task_id}?consistency=local");
        let reply = house.http.get(&house.url(restored, &path)).await.unwrap();
        assert_eq!(reply.status == 200, *index <= end, "{task_id} of index {index}, backup {end}");
    }
    let clusters: Vec<_> =
        [house.status(0).await.unwrap(), house.status(restored).await.unwrap()].into();
    assert_ne!(clusters[0]["cluster_id"], clusters[1]["cluster_id"]);
    assert_eq!(house.voters(0).await.len(), 3, "the old cluster noticed nothing");
}
