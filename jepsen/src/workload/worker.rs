//! Fake workers: nodes that register over the public API, take dispatches over HTTP, and log what
//! they do themselves. The input of a task says how its first attempt goes wrong; from the third
//! attempt on everything goes well, so that work always drains.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::{HarnessError, Stage};
use crate::client::{Client, Request};
use crate::history::{Kind, Note};

/// The workload that workers belong to.
pub(super) const NAME: &str = "attempts";
const HEARTBEAT: Duration = Duration::from_secs(3);
/// A report is sent to one member after the other, so often at most.
const SENDS_MAX: usize = 100;
/// How long a stale report waits for the attempt to be over.
const STALE_AFTER_MAX: Duration = Duration::from_secs(20);

/// How the first attempt of a task goes.
pub(super) const PLANS: [&str; 8] =
    ["ok", "ok", "sync", "twice", "silent", "fail", "early", "foreign"];

/// What all workers of a run know together: the newest attempt of each task that was dispatched to
/// any of them. An attempt below it is over for certain.
pub(super) type Newest = Arc<Mutex<BTreeMap<String, u64>>>;

/// One worker.
pub(super) struct Worker {
    pub(super) node: String,
    pub(super) capacity: usize,
    pub(super) address: SocketAddr,
    stage: Stage,
    client: Client,
    newest: Newest,
    rng: Mutex<StdRng>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    running: BTreeSet<Attempt>,
    known: BTreeSet<Attempt>,
}

/// Task and number.
type Attempt = (String, u64);

/// A dispatch as it is read.
#[derive(Clone)]
struct Job {
    task: String,
    attempt: u64,
    epoch: Value,
    plan: String,
    work: Duration,
    timeout: Duration,
}

impl Job {
    fn read(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let input = &body["input_data"];
        let attempt = body["attempt"].as_u64()?;
        let plan = if attempt < 3 { input["plan"].as_str().unwrap_or("ok") } else { "ok" };
        Some(Self {
            task: body["task_id"].as_str()?.to_owned(),
            attempt,
            epoch: body["epoch"].clone(),
            plan: plan.to_owned(),
            work: Duration::from_millis(input["ms"].as_u64().unwrap_or(20)),
            timeout: Duration::try_from_secs_f64(body["timeout"].as_f64().unwrap_or(5.0)).ok()?,
        })
    }

    fn attempt(&self) -> Attempt {
        (self.task.clone(), self.attempt)
    }
}

/// A report, and whether it must be refused.
struct Report {
    body: Value,
    key: String,
    must_refuse: bool,
}

impl Worker {
    /// Starts worker `number` on `host`; it serves until the stage is over.
    pub(super) async fn start(
        stage: &Stage,
        number: usize,
        capacity: usize,
        host: IpAddr,
        newest: &Newest,
    ) -> Result<Arc<Self>, HarnessError> {
        let failed = |what: std::io::Error| HarnessError { workload: NAME, what: what.to_string() };
        let listener = TcpListener::bind((host, 0)).await.map_err(failed)?;
        let node = format!("jepsen-w{number}");
        let worker = Arc::new(Self {
            rng: Mutex::new(stage.rng(&node)),
            node,
            capacity,
            address: listener.local_addr().map_err(failed)?,
            stage: stage.clone(),
            client: Client::new(),
            newest: Arc::clone(newest),
            held: Mutex::default(),
        });
        let router = Router::new()
            .route("/api/v4/tasks/execute", post(execute))
            .route("/api/cancel_task/{task_id}", post(cancel))
            .with_state(Arc::clone(&worker));
        let over = stage.over.clone();
        tokio::spawn(async move {
            let served = axum::serve(listener, router);
            tokio::select! { () = over.cancelled() => {} _ = served => {} }
        });
        Ok(worker)
    }

    /// The body of its registration.
    pub(super) fn registration(&self) -> Value {
        json!({"external_url": format!("http://{}", self.address), "host": self.address.ip(),
            "port": self.address.port(), "capacity": self.capacity,
            "capabilities": ["jepsen-job"], "instance": format!("{}", self.address)})
    }

    /// Says from time to time that it is there.
    pub(super) async fn beat(self: Arc<Self>) {
        let path = format!("/api/v1/nodes/{}/heartbeat", self.node);
        loop {
            tokio::select! { () = self.stage.over.cancelled() => return, () = sleep(HEARTBEAT) => {} }
            let running = self.held.lock().running.len();
            let request = Request::post(path.clone(), json!({"tasks_running": running}));
            if let Some((_, url)) = self.member() {
                self.client.send(&url, &request).await;
            }
        }
    }

    fn member(&self) -> Option<(u64, String)> {
        self.stage.members.pick(&mut self.rng.lock())
    }

    fn log(&self, f: &str, job: &Job, more: &Value) {
        let value = json!({"task": job.task, "attempt": job.attempt, "epoch": job.epoch,
            "node": self.node, "more": more});
        self.stage.recorder.observe(self.node.clone(), Note::new(NAME, f).value(value));
    }

    fn token(&self, job: &Job) -> Value {
        json!({"token": format!("{}/{}/{}", self.node, job.task, job.attempt)})
    }

    /// Takes a dispatch, or gives the answer when there is nothing to start.
    fn admit(&self, job: &Job) -> Option<Response> {
        let mut newest = self.newest.lock();
        let mut held = self.held.lock();
        let above = newest.get(&job.task).is_some_and(|newest| *newest > job.attempt);
        if held.known.contains(&job.attempt()) {
            self.log("dispatch-again", job, &Value::Null);
            return Some(accepted(job));
        }
        if above {
            self.log("dispatch-late", job, &Value::Null);
            return Some((StatusCode::CONFLICT, "a newer attempt is known").into_response());
        }
        if held.running.len() >= self.capacity {
            self.log("busy", job, &json!(held.running.len()));
            return Some(
                (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")]).into_response(),
            );
        }
        newest.insert(job.task.clone(), job.attempt);
        held.known.insert(job.attempt());
        held.running.insert(job.attempt());
        // Logged under the lock: the log of one worker is in the order in which things happened.
        self.log("dispatch", job, &json!(held.running.len()));
        None
    }

    /// Works for the time of the job, never longer than its attempt may take.
    async fn work(&self, job: &Job) {
        let silent = job.plan == "silent" && job.attempt == 1;
        let time = if silent { job.timeout } else { job.work.min(job.timeout) };
        sleep(time).await;
        self.held.lock().running.remove(&job.attempt());
        self.log("end", job, &self.token(job));
    }

    fn report(&self, job: &Job, kind: &str) -> Report {
        let mut body = json!({"status": "completed", "attempt": job.attempt, "epoch": job.epoch,
            "node_id": self.node, "result": self.token(job)});
        match kind {
            "fail" => {
                body["status"] = json!("failed");
                body["error"] = json!("as it was planned");
                body["retryable"] = json!(true);
            }
            // So far ahead that it never comes true while the report is sent again and again.
            "early" => body["attempt"] = json!(job.attempt + 100_000),
            "foreign" => body["node_id"] = json!("jepsen-nobody"),
            _ => {}
        }
        let key = format!("{}/{}/{}/{kind}", self.node, job.task, job.attempt);
        Report { body, key, must_refuse: matches!(kind, "early" | "foreign") }
    }

    /// Sends a report until a member has decided about it.
    async fn send(&self, job: &Job, report: &Report) {
        let recorder = &self.stage.recorder;
        let request =
            Request::post(format!("/api/v1/tasks/{}/result", job.task), report.body.clone());
        let request = request.key(report.key.clone());
        let mut process = recorder.process();
        for _ in 0..SENDS_MAX {
            let Some((number, url)) = self.member() else { return };
            let over =
                self.newest.lock().get(&job.task).is_some_and(|newest| *newest > job.attempt);
            let begun = Note::new(NAME, "report").key(job.task.clone()).value(json!({
                "attempt": report.body["attempt"], "status": report.body["status"],
                "key": report.key, "must_refuse": report.must_refuse || over,
            }));
            recorder.invoke(process, Note { node: Some(number), ..begun.clone() });
            let reply = self.client.send(&url, &request).await;
            let value = match reply.kind {
                Kind::Ok => {
                    json!({"duplicate": reply.body["duplicate"].as_bool().unwrap_or(false)})
                }
                _ => begun.value.clone(),
            };
            recorder.end(process, reply.kind, reply.note(&begun, number, value));
            match reply.kind {
                Kind::Ok => return,
                Kind::Fail if (400..500).contains(&reply.status) && reply.status != 429 => return,
                Kind::Info => process = recorder.process(),
                Kind::Fail | Kind::Invoke => {}
            }
            tokio::select! {
                () = self.stage.over.cancelled() => return,
                () = sleep(Duration::from_millis(100)) => {}
            }
        }
    }

    /// Works and reports, the way the job says.
    async fn carry_out(self: Arc<Self>, job: Job) {
        let first = job.attempt == 1;
        if first && matches!(job.plan.as_str(), "early" | "foreign") {
            self.send(&job, &self.report(&job, &job.plan)).await;
        }
        self.work(&job).await;
        match job.plan.as_str() {
            "silent" if first => {
                self.wait_until_over(&job).await;
                self.send(&job, &self.report(&job, "stale")).await;
            }
            "fail" if first => self.send(&job, &self.report(&job, "fail")).await,
            _ => self.send(&job, &self.report(&job, "ok")).await,
        }
        if first && job.plan == "twice" {
            self.send(&job, &self.report(&job, "again")).await;
        }
    }

    /// Waits until a newer attempt was dispatched to somebody, so that this one is over.
    async fn wait_until_over(&self, job: &Job) {
        let mut waited = Duration::ZERO;
        let step = Duration::from_millis(100);
        while waited < STALE_AFTER_MAX
            && self.newest.lock().get(&job.task).is_none_or(|newest| *newest <= job.attempt)
        {
            sleep(step).await;
            waited += step;
        }
    }
}

fn accepted(job: &Job) -> Response {
    let body = json!({"success": true, "task_id": job.task, "status": "accepted"});
    axum::Json(body).into_response()
}

async fn execute(State(worker): State<Arc<Worker>>, body: Bytes) -> Response {
    let Some(job) = Job::read(&body) else { return StatusCode::BAD_REQUEST.into_response() };
    if let Some(refusal) = worker.admit(&job) {
        return refusal;
    }
    if job.plan != "sync" {
        tokio::spawn(Arc::clone(&worker).carry_out(job.clone()));
        return accepted(&job);
    }
    // On a task of its own: the caller may hang up while it works.
    let works = Arc::clone(&worker);
    let answer = json!({"success": true, "status": "completed", "result": worker.token(&job)});
    let worked = tokio::spawn(async move {
        works.work(&job).await;
        // The answer may get lost with its leader, so it is reported as well; the second to come
        // is a repetition.
        let report = works.report(&job, "sync");
        tokio::spawn(async move {
            sleep(Duration::from_millis(500)).await;
            works.send(&job, &report).await;
        });
    });
    let _ = worked.await;
    axum::Json(answer).into_response()
}

/// Nothing is cancelled in these runs; a stray call is answered as by a node that knows nothing.
async fn cancel() -> Response {
    (StatusCode::NOT_FOUND, axum::Json(json!({"success": false}))).into_response()
}
