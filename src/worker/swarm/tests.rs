//! The worker for swarms against a cluster that is made of a script: what it runs, what it keeps and
//! gives back, what it tells and how often.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::client;

mod resting;

/// What the cluster was told.
#[derive(Debug)]
struct Heard {
    path: String,
    key: String,
    body: Value,
}

#[derive(Clone)]
struct Cluster {
    waiting: Arc<Mutex<VecDeque<Value>>>,
    more: Arc<Notify>,
    heard: mpsc::UnboundedSender<Heard>,
    /// So many ends are answered with 503 first.
    refusals: Arc<AtomicUsize>,
    /// What renewals are answered; 503 without.
    renewal: Arc<Mutex<Option<&'static str>>>,
    /// Batches of more than one are refused.
    picky: Arc<AtomicBool>,
    /// Requests for work that wait are given some and never answered.
    silent: Arc<AtomicBool>,
    /// No poll is answered but with 503.
    down: Arc<AtomicBool>,
    /// Polls are given something, and the answer is lost.
    lost: Arc<AtomicBool>,
    /// What was given under which key.
    given: Arc<Mutex<BTreeMap<String, Vec<Value>>>>,
}

impl Cluster {
    /// The same once more under the same key.
    fn give(&self, key: String, max: usize) -> Vec<Value> {
        let (mut waiting, mut given) = (self.waiting.lock(), self.given.lock());
        let some = waiting.len().min(max);
        if some == 0 && !given.contains_key(&key) {
            return Vec::new();
        }
        given.entry(key).or_insert_with(|| waiting.drain(..some).collect()).clone()
    }
}

/// Polls are answered sooner than they ask for.
const POLL: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(60);

async fn take_call(
    State(cluster): State<Cluster>,
    Path(path): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let items = body.get("items").or_else(|| body.get("leases")).and_then(Value::as_array);
    let len = items.map_or(0, Vec::len);
    cluster.heard.send(Heard { path: path.clone(), key: key.clone(), body: body.clone() }).unwrap();
    let unavailable = StatusCode::SERVICE_UNAVAILABLE.into_response();
    let verdict = match path.as_str() {
        "bots/leases" => {
            if cluster.down.load(Ordering::Relaxed) {
                return unavailable;
            }
            if cluster.waiting.lock().is_empty() {
                let _ = tokio::time::timeout(POLL, cluster.more.notified()).await;
            }
            let assignments = cluster.give(key, body["max"].as_u64().unwrap() as usize);
            if cluster.lost.load(Ordering::Relaxed) {
                // So long that the client gives up.
                let headers = [("retry-after", "600")];
                return (StatusCode::GATEWAY_TIMEOUT, headers).into_response();
            }
            if cluster.silent.load(Ordering::Relaxed) && body["wait_seconds"] != 0 {
                return std::future::pending().await;
            }
            return axum::Json(json!({ "assignments": assignments })).into_response();
        }
        "bots/leases/renew" => match *cluster.renewal.lock() {
            Some(verdict) => verdict,
            None => return unavailable,
        },
        _ => {
            let left = |n: usize| n.checked_sub(1);
            let order = Ordering::Relaxed;
            if cluster.refusals.fetch_update(order, order, left).is_ok() {
                return unavailable;
            }
            if len > 1 && cluster.picky.load(Ordering::Relaxed) {
                return StatusCode::BAD_REQUEST.into_response();
            }
            "accepted"
        }
    };
    axum::Json(json!({ "verdicts": vec![verdict; len] })).into_response()
}

/// A worker and the cluster it talks to.
struct Bench {
    cluster: Cluster,
    heard: mpsc::UnboundedReceiver<Heard>,
    stop: CancellationToken,
    done: tokio::task::JoinHandle<Result<(), Error>>,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn start(capacity: usize, edit: impl FnOnce(&mut Options)) -> Self {
        // A member that is down stands in front: every call goes on to the next.
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        Self::start_behind(vec![format!("http://{gone}")], capacity, edit).await
    }

    /// With members in front of the one that answers.
    async fn start_behind(
        mut urls: Vec<String>,
        capacity: usize,
        edit: impl FnOnce(&mut Options),
    ) -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        let cluster = Cluster {
            waiting: Arc::default(),
            more: Arc::default(),
            heard: sender,
            refusals: Arc::default(),
            renewal: Arc::new(Mutex::new(Some("accepted"))),
            picky: Arc::default(),
            silent: Arc::default(),
            down: Arc::default(),
            lost: Arc::default(),
            given: Arc::default(),
        };
        let router = axum::Router::new().route("/api/v1/{*path}", axum::routing::any(take_call));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live = format!("http://{}", listener.local_addr().unwrap());
        let state = cluster.clone();
        tokio::spawn(async move { axum::serve(listener, router.with_state(state)).await });
        urls.push(live);
        let client = Client::new(&client::Options { urls, ..Default::default() }).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (gate, begun) = (dir.path().join("gate"), dir.path().join("begun"));
        let gated = format!(
            "echo >> {}; while [ ! -e {} ]; do sleep 0.02; done; cat",
            begun.display(),
            gate.display()
        );
        let noted = format!(
            "echo $QUORATE_TASK_ID $QUORATE_ATTEMPT $QUORATE_BOT_ID $QUORATE_SWARM_ID > {}; cat",
            dir.path().join("noted").display()
        );
        let programs = [
            ("default", noted.as_str()),
            ("gated", &gated),
            ("slow", "sleep 60"),
            ("bad", "echo no >&2; exit 3"),
            ("wrong", "echo no >&2; exit 65"),
            ("long", "head -c 20000 /dev/zero | tr '\\0' 1"),
        ];
        let mut options = Options {
            swarms: vec!["s1".to_owned(), "s2".to_owned()],
            holder: Some("w".to_owned()),
            programs: programs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            capacity,
            lease: LONG,
            timeout: LONG,
            drain_timeout: LONG,
            retry_delay: Duration::ZERO,
        };
        edit(&mut options);
        let worker = SwarmWorker::new(options, client).unwrap();
        let (stop, done) = (worker.stop_token(), tokio::spawn(worker.run()));
        Self { cluster, heard, stop, done, dir }
    }

    fn assign(&self, task_id: &str, attempt: u32, task_type: Option<&str>) {
        let assignment = json!({ "task_id": task_id, "bot_id": "b", "swarm_id": "s1",
            "task_type": task_type, "task_data": {"x": task_id}, "attempt": attempt,
            "deadline": "2026-01-01T00:00:00Z" });
        self.cluster.waiting.lock().push_back(assignment);
        self.cluster.more.notify_one();
    }

    /// The next thing the cluster is told that is no question for more.
    async fn heard(&mut self) -> Heard {
        loop {
            let heard = tokio::time::timeout(Duration::from_secs(30), self.heard.recv());
            let heard = heard.await.expect("the worker tells something").unwrap();
            if heard.path != "bots/leases" {
                return heard;
            }
        }
    }

    /// As [`Self::heard`], without renewals; its path and items.
    async fn told(&mut self) -> (String, Value) {
        loop {
            let Heard { path, mut body, .. } = self.heard().await;
            if path != "bots/leases/renew" {
                let list = if path == "bots/leases/release" { "leases" } else { "items" };
                return (path, body[list].take());
            }
        }
    }

    /// Lets gated programs end, those that have begun and all others.
    fn open_gate(&self) {
        std::fs::write(self.dir.path().join("gate"), "").unwrap();
    }

    async fn stop(self) {
        self.stop.cancel();
        self.done.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn assignments_are_done_and_told_with_their_attempt() {
    let mut bench = Bench::start(1, |_| {}).await;
    let error = |text: &str, retryable: bool| json!([{"task_id": "t", "attempt": 7, "error": text, "retryable": retryable}]);
    let done = json!([{"task_id": "t", "attempt": 7, "result": {"x": "t"}}]);
    for (task_type, path, items) in [
        // Without a type there is a handler for those without one.
        (None, "assignments/complete", done),
        (Some("bad"), "assignments/fail", error("exit code 3: no", true)),
        (Some("wrong"), "assignments/fail", error("exit code 65: no", false)),
        // Not asked for, so somebody else's.
        (Some("odd"), "bots/leases/release", json!([{"task_id": "t", "attempt": 7}])),
        (Some("long"), "assignments/fail", error("the result is over 16384 bytes", false)),
    ] {
        bench.assign("t", 7, task_type);
        assert_eq!(bench.told().await, (path.to_owned(), items));
    }
    let noted = std::fs::read_to_string(bench.dir.path().join("noted")).unwrap();
    assert_eq!(noted, "t 7 b s1\n");
    bench.stop().await;
}

#[tokio::test]
async fn it_asks_for_what_it_has_room_for() {
    let mut bench = Bench::start(3, |_| {}).await;
    let Heard { path, body, .. } = bench.heard.recv().await.unwrap();
    assert_eq!(path, "bots/leases");
    let asked = json!({"swarms": ["s1", "s2"], "holder": "w", "max": 3, "lease_seconds": 60,
        "wait_seconds": 15, "types": ["bad", "default", "gated", "long", "slow", "wrong", null]});
    assert_eq!(body, asked);
    bench.assign("a", 1, Some("gated"));
    loop {
        let heard = bench.heard.recv().await.unwrap();
        if heard.body["max"] == 2 {
            break;
        }
        assert_eq!(heard.body["max"], 3);
    }
    bench.open_gate();
    assert_eq!(bench.told().await.0, "assignments/complete");
    bench.stop().await;
}

#[tokio::test]
async fn an_end_is_told_until_it_is_judged_under_one_key() {
    let mut bench = Bench::start(1, |_| {}).await;
    bench.cluster.refusals.store(2, Ordering::Relaxed);
    bench.assign("t", 1, None);
    let mut keys = Vec::new();
    for _ in 0..3 {
        let heard = bench.heard().await;
        assert_eq!(heard.path, "assignments/complete");
        keys.push(heard.key);
    }
    keys.dedup();
    assert_eq!(keys.len(), 1, "one key for all tries: {keys:?}");
    bench.stop().await;
}

#[tokio::test]
async fn one_end_that_is_refused_takes_no_other_with_it() {
    let mut bench = Bench::start(2, |_| {}).await;
    bench.cluster.picky.store(true, Ordering::Relaxed);
    // The first call hangs in its pause while the ends of both gather.
    bench.cluster.refusals.store(1, Ordering::Relaxed);
    for name in ["a", "b", "c", "d"] {
        bench.assign(name, 1, None);
    }
    let (mut told, mut longest) = (std::collections::BTreeSet::new(), 0);
    while told.len() < 4 {
        let (_, items) = bench.told().await;
        let items = items.as_array().unwrap();
        longest = longest.max(items.len());
        if let [item] = &items[..] {
            told.insert(item["task_id"].as_str().unwrap().to_owned());
        }
    }
    assert!(longest > 1, "they are told together first");
    bench.stop().await;
}

#[tokio::test]
async fn a_lease_is_renewed_while_its_program_runs_and_not_after() {
    let mut bench = Bench::start(1, |options| options.lease = Duration::from_millis(600)).await;
    bench.assign("t", 3, Some("gated"));
    for _ in 0..5 {
        let heard = bench.heard().await;
        assert_eq!(heard.path, "bots/leases/renew");
        assert_eq!(heard.body["leases"], json!([{"task_id": "t", "attempt": 3}]));
    }
    bench.open_gate();
    assert_eq!(bench.told().await.0, "assignments/complete");
    bench.stop().await;
}

#[tokio::test]
async fn what_is_held_by_another_is_killed_and_not_told() {
    let mut bench = Bench::start(1, |options| options.lease = Duration::from_secs(3)).await;
    *bench.cluster.renewal.lock() = Some("stale");
    bench.assign("t", 1, Some("slow"));
    assert_eq!(bench.heard().await.path, "bots/leases/renew");
    // The slot is free again, long before the program would have ended.
    bench.assign("u", 1, None);
    let (path, items) = bench.told().await;
    assert_eq!((path.as_str(), &items[0]["task_id"]), ("assignments/complete", &json!("u")));
    bench.stop().await;
}

#[tokio::test]
async fn without_the_cluster_a_program_is_stopped_before_its_lease_ends() {
    let lease = Duration::from_secs(2);
    let mut bench = Bench::start(1, |options| options.lease = lease).await;
    *bench.cluster.renewal.lock() = None;
    bench.assign("t", 1, Some("slow"));
    bench.heard().await;
    bench.assign("u", 1, None);
    let (_, items) = bench.told().await;
    assert_eq!(items[0]["task_id"], "u", "the slot of the killed one");
    bench.stop().await;
}

#[tokio::test]
async fn a_drain_gives_back_what_has_not_begun_and_finishes_what_runs() {
    let mut bench = Bench::start(2, |_| {}).await;
    // Short ones first, until it holds some ahead: on a busy machine the first may not be short.
    loop {
        bench.assign("warm", 1, None);
        assert_eq!(bench.told().await.0, "assignments/complete");
        let asked = bench.heard.recv().await.unwrap();
        if asked.body["max"] == 4 {
            break;
        }
    }
    for name in ["a", "b", "c", "d"] {
        bench.assign(name, 1, Some("gated"));
    }
    let begun = bench.dir.path().join("begun");
    let count = || std::fs::read_to_string(&begun).map_or(0, |text| text.lines().count());
    let all_taken = async {
        while count() < 2 || !bench.cluster.waiting.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, all_taken).await.expect("two run and two are held ahead");
    tokio::time::sleep(POLL).await;
    bench.stop.cancel();
    let (path, given) = bench.told().await;
    assert_eq!(path, "bots/leases/release");
    assert_eq!(given.as_array().unwrap().len(), 2, "{given}");
    bench.open_gate();
    let mut ended = 0;
    while ended < 2 {
        let (path, items) = bench.told().await;
        assert_eq!(path, "assignments/complete");
        ended += items.as_array().unwrap().len();
    }
    bench.done.await.unwrap().unwrap();
}

/// What a poll was given in the moment in which the worker left ran out, for that used up a try.
#[tokio::test]
async fn what_a_poll_was_given_while_the_worker_leaves_is_given_back() {
    let mut bench = Bench::start(2, |_| {}).await;
    bench.cluster.silent.store(true, Ordering::Relaxed);
    bench.assign("t", 5, None);
    let taken = async {
        while bench.cluster.given.lock().values().all(Vec::is_empty) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, taken).await.expect("it is given");
    // A failover may take longer than five seconds, after which it was not asked for any more.
    bench.cluster.down.store(true, Ordering::Relaxed);
    bench.stop.cancel();
    tokio::time::sleep(Duration::from_millis(5500)).await;
    bench.cluster.down.store(false, Ordering::Relaxed);
    let told = bench.told().await;
    let given = json!([{"task_id": "t", "attempt": 5}]);
    assert_eq!(told, ("bots/leases/release".to_owned(), given));
    bench.done.await.unwrap().unwrap();
    assert!(!bench.dir.path().join("noted").exists(), "nothing was begun");
}

/// Has a poll given something, and its answer and some more lost for so long; gives the keys of what was
/// asked in that time.
async fn lose_the_answer(bench: &mut Bench, time: Duration) -> Vec<String> {
    bench.cluster.lost.store(true, Ordering::Relaxed);
    bench.assign("t", 5, None);
    let taken = async {
        while bench.cluster.given.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, taken).await.expect("it is given");
    while bench.heard.try_recv().is_ok() {}
    tokio::time::sleep(time).await;
    bench.cluster.lost.store(false, Ordering::Relaxed);
    std::iter::from_fn(|| bench.heard.try_recv().ok()).map(|heard| heard.key).collect()
}

/// A poll whose answer was lost was forgotten: what it was given lay until its lease was over.
#[tokio::test]
async fn a_poll_whose_outcome_is_unknown_is_asked_again_until_it_is_known() {
    let mut bench = Bench::start_behind(Vec::new(), 2, |_| {}).await;
    let keys = lose_the_answer(&mut bench, PAUSE * 2).await;
    let done = json!([{"task_id": "t", "attempt": 5, "result": {"x": "t"}}]);
    assert_eq!(bench.told().await, ("assignments/complete".to_owned(), done));
    let given: Vec<String> = bench.cluster.given.lock().keys().cloned().collect();
    assert!(!keys.is_empty() && keys.iter().all(|key| given == [key.as_str()]), "{keys:?}");
    bench.stop().await;
}

/// The same when it is known too late to be begun: then somebody else may have it at once.
#[tokio::test]
async fn what_a_poll_was_given_is_given_back_when_that_is_known_too_late() {
    let lease = Duration::from_secs(2);
    let mut bench = Bench::start_behind(Vec::new(), 2, |options| options.lease = lease).await;
    lose_the_answer(&mut bench, lease).await;
    let given = json!([{"task_id": "t", "attempt": 5}]);
    assert_eq!(bench.told().await, ("bots/leases/release".to_owned(), given));
    assert!(!bench.dir.path().join("noted").exists(), "nothing was begun");
    bench.stop().await;
}

#[tokio::test]
async fn a_drain_past_its_limit_kills_and_gives_back() {
    let limit = Duration::from_millis(50);
    let mut bench = Bench::start(1, |options| options.drain_timeout = limit).await;
    bench.assign("t", 4, Some("slow"));
    while !bench.cluster.waiting.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.stop.cancel();
    let told = bench.told().await;
    let given = json!([{"task_id": "t", "attempt": 4}]);
    assert_eq!(told, ("bots/leases/release".to_owned(), given));
    bench.done.await.unwrap().unwrap();
}

#[tokio::test]
async fn swarms_that_are_not_there_end_it() {
    let router = axum::Router::new().fallback(|| async {
        (StatusCode::NOT_FOUND, axum::Json(json!({"error": "Swarm s not found"})))
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let urls = vec![format!("http://{}", listener.local_addr().unwrap())];
    tokio::spawn(async move { axum::serve(listener, router).await });
    let client = Client::new(&client::Options { urls, ..Default::default() }).unwrap();
    let options = Options {
        swarms: vec!["s".to_owned()],
        holder: None,
        programs: BTreeMap::from([("*".to_owned(), "cat".to_owned())]),
        capacity: 1,
        lease: LONG,
        timeout: LONG,
        drain_timeout: LONG,
        retry_delay: Duration::ZERO,
    };
    let blank = Options { swarms: Vec::new(), ..options.clone() };
    assert!(matches!(SwarmWorker::new(blank, client.clone()), Err(Error::Options(_))));
    let error = SwarmWorker::new(options, client).unwrap().run().await.unwrap_err();
    assert!(error.to_string().contains("Swarm s not found"), "{error}");
}
