//! Figures that cross their thresholds again and again: nodes say how busy they are, others are lost,
//! and thresholds are moved. Each transition of an alert is told to a webhook and to a Slack-shaped
//! receiver at least once, under one number each, and what was acknowledged stays so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use futures::future::{BoxFuture, FutureExt, join_all};
use rand::RngExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::actor::{Actor, highest_index, insist, insist_write, serve};
use super::{HarnessError, Stage, Workload};
use crate::checker::coverage::Floor;
use crate::checker::{Verdict, alerts};
use crate::client::{Client, Reply, Request};
use crate::history::{History, Kind, Note};

const NAME: &str = "alerts";
/// Nodes that say how busy they are.
const SWAYING: usize = 3;
/// Nodes that are said to be lost, and back.
const FALLING: usize = 2;
const BEAT: Duration = Duration::from_secs(1);
/// How long a load is kept.
const SWAY: Duration = Duration::from_secs(4);
/// Things done per second: thresholds moved, alerts read and acknowledged, nodes lost.
const RATE_MAX: f64 = 12.0;
/// How long it may take after healing until everything was delivered.
const TOLD_WITHIN: Duration = Duration::from_secs(40);
/// How long it may take until nothing is recorded any more that was planned before alerts ended.
const SETTLED: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(8);
/// One post in so many is refused.
const TROUBLE: u64 = 6;
/// Limits of utilization, warning and critical: calm, between, and beyond whatever nodes say.
const LIMITS: [[f64; 2]; 4] = [[2.0, 3.0], [0.5, 2.0], [0.01, 2.0], [0.01, 0.02]];

/// See the module's description.
#[derive(Debug)]
pub(super) struct Alerts;

/// The receivers.
struct Sink {
    stage: Stage,
    posts: AtomicU64,
}

impl Sink {
    fn take(
        &self,
        channel: &str,
        body: &Value,
        alert: [&str; 3],
        transition: &Value,
    ) -> StatusCode {
        let [id, status, severity] = alert;
        let value = json!({"channel": channel, "delivery": body["delivery_id"],
            "transition": transition, "status": status, "severity": severity});
        self.stage.recorder.observe("sink", Note::new(NAME, "told").key(id).value(value));
        // It was told, and says that it was not.
        let refuses = self.posts.fetch_add(1, Ordering::Relaxed) % TROUBLE == 1;
        if refuses { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT }
    }
}

async fn webhook(State(sink): State<Arc<Sink>>, body: Bytes) -> StatusCode {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |key: &str| body["alert"][key].as_str().unwrap_or_default();
    let alert = [text("id"), text("status"), text("severity")];
    sink.take("webhook", &body, alert, &body["alert"]["transition"])
}

/// `[severity] id status: message`.
async fn slack(State(sink): State<Arc<Sink>>, body: Bytes) -> StatusCode {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = body["text"].as_str().unwrap_or_default();
    let (severity, rest) = text.trim_start_matches('[').split_once("] ").unwrap_or_default();
    let (id, rest) = rest.split_once(' ').unwrap_or_default();
    let (status, _) = rest.split_once(':').unwrap_or_default();
    sink.take("slack", &body, [id, status, severity], &Value::Null)
}

fn swaying(number: usize) -> String {
    format!("sways-{number}")
}

fn falling(number: usize) -> String {
    format!("falls-{number}")
}

/// Says to every member how busy a node is: now hardly, now very.
async fn sway(stage: Stage, client: Client, number: usize) {
    let path = format!("/api/v1/nodes/{}/heartbeat", swaying(number));
    let began = Instant::now();
    while !stage.over.is_cancelled() {
        let busy = began.elapsed().as_secs() / SWAY.as_secs() % 2 == 1;
        let load = if busy { 0.9 } else { 0.1 };
        let request = Request::post(path.clone(), json!({"tasks_running": 0, "load_score": load}));
        let members = stage.members.all();
        join_all(members.iter().map(|(_, url)| client.send_within(url, &request, BEAT))).await;
        tokio::select! { () = stage.over.cancelled() => {} () = sleep(BEAT) => {} }
    }
}

/// The alerts as they are shown.
fn shown(reply: &Reply) -> Value {
    let alerts = reply.body["alerts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let shown = alerts.iter().map(|alert| {
        json!({"id": alert["id"], "status": alert["status"], "severity": alert["severity"],
            "transitions": alert["transitions"]})
    });
    shown.collect()
}

/// Looks at the alerts, and acknowledges one of them, mostly one that is on.
async fn look(actor: &mut Actor<'_>) {
    let (seat, note) = (actor.seat(), actor.note("read"));
    let reply = actor.act(&seat, note, &Request::get("/api/v1/alerts"), shown).await;
    if reply.kind != Kind::Ok {
        return;
    }
    let alerts = shown(&reply);
    let alerts = alerts.as_array().map(Vec::as_slice).unwrap_or_default();
    let any = actor.rng.random_bool(0.1);
    let on: Vec<&Value> =
        alerts.iter().filter(|alert| any || alert["status"] == "active").collect();
    if on.is_empty() || actor.rng.random_bool(0.15) {
        return;
    }
    let id = on[actor.rng.random_range(0..on.len())]["id"].as_str().unwrap_or_default();
    let request = Request::post(format!("/api/v1/alerts/{id}/acknowledge"), json!({}));
    let (seat, note) = (actor.seat(), actor.note("acknowledge").key(id));
    actor.act(&seat, note, &request, |_| Value::Null).await;
}

async fn client(mut actor: Actor<'_>) {
    while actor.turn().await {
        let dice = actor.rng.random_range(0..10);
        if dice < 6 {
            look(&mut actor).await;
        } else if dice < 9 {
            let limits = LIMITS[actor.rng.random_range(0..LIMITS.len())];
            let lost = actor.rng.random_range(0..3);
            let body = json!({"alerts": {"thresholds": {"medium_utilization": limits[0],
                "high_utilization": limits[1], "node_failure_count": lost}}});
            let (seat, note) = (actor.seat(), actor.note("limits").value(body.clone()));
            let limits = body.clone();
            actor.act(&seat, note, &Request::put("/api/v1/config", body), |_| limits).await;
        } else {
            let node = falling(actor.rng.random_range(0..FALLING));
            let status = if actor.rng.random_bool(0.5) { "offline" } else { "active" };
            let request =
                Request::put(format!("/api/v1/nodes/{node}/status"), json!({"status": status}));
            let (seat, note) = (actor.seat(), actor.note("status").key(node).value(status));
            actor.act(&seat, note, &request, |_| json!(status)).await;
        }
    }
}

/// Every delivery to a channel of alerts: number, kind, status.
async fn deliveries(client: &Client, url: &str) -> Result<Vec<Value>, String> {
    let (mut cursor, mut all) = (String::new(), Vec::new());
    loop {
        let path = format!("/api/v1/deliveries?limit=1000&cursor={cursor}");
        let reply = insist(client, url, &path, PATIENCE).await?;
        for item in reply.body["deliveries"].as_array().map(Vec::as_slice).unwrap_or_default() {
            if item["kind"] == "alert" || item["kind"] == "slack" {
                all.push(json!([item["delivery_id"], item["kind"], item["status"]]));
            }
        }
        match reply.body["next_cursor"].as_str() {
            None => return Ok(all),
            Some(next) => next.clone_into(&mut cursor),
        }
    }
}

/// No more transitions: the figures do not know that the run is over.
async fn end_alerts(stage: &Stage, client: &Client) {
    let patch = json!({"alerts": {"enabled": false}});
    // Under one key: it is one change, however often it is sent.
    let request = Request::put("/api/v1/config", patch.clone()).key("jepsen-alerts-off");
    let note = Note::new(NAME, "limits").value(patch);
    let process = stage.recorder.process();
    stage.recorder.invoke(process, note.clone());
    let off = insist_write(stage, client, &request).await;
    let kind = if off.is_ok() { Kind::Ok } else { Kind::Info };
    stage.recorder.end(process, kind, note);
    // What was planned before is recorded by then.
    sleep(SETTLED).await;
}

impl Workload for Alerts {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let failed = |what: String| HarnessError { workload: NAME, what };
            let sink = Arc::new(Sink { stage: stage.clone(), posts: AtomicU64::new(0) });
            let router = Router::new()
                .route("/webhook", post(webhook))
                .route("/slack", post(slack))
                .with_state(sink);
            let address = serve(stage, NAME, router).await?;
            let client = Client::new();
            // Leaders change every few seconds here, and decide by their third look.
            let patch = json!({"callbacks": {"max_tries": 100}, "tasks": {"retry_delay_ms": 100},
                "network": {"max_nodes": 1000},
                "alerts": {"check_interval": 1,
                    "webhook": {"enabled": true, "url": format!("http://{address}/webhook")},
                    "slack": {"enabled": true, "webhook_url": format!("http://{address}/slack")}}});
            let request = Request::put("/api/v1/config", patch);
            insist_write(stage, &client, &request).await.map_err(failed)?;
            let nodes = (0..SWAYING).map(swaying).chain((0..FALLING).map(falling));
            for node in nodes {
                // Nobody is there: nothing that is asked for in these runs can be done by them.
                let body = json!({"host": "127.0.0.1", "port": 9, "capacity": 1,
                    "capabilities": ["jepsen-alerts"], "load_score": 0.1});
                let request = Request::post(format!("/api/v1/nodes/{node}/register"), body);
                insist_write(stage, &client, &request).await.map_err(failed)?;
            }
            for number in 0..SWAYING {
                tokio::spawn(sway(stage.clone(), client.clone(), number));
            }
            Ok(())
        }
        .boxed()
    }

    fn run<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let shared = Client::new();
            let slow = stage.slowed(RATE_MAX);
            let count = stage.load.clients.clamp(1, 4);
            let clients = (0..count).map(|n| client(Actor::new(&slow, &shared, NAME, n, count)));
            join_all(clients).await;
            Ok(())
        }
        .boxed()
    }

    fn finish<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let (client, began) = (Client::new(), Instant::now());
            end_alerts(stage, &client).await;
            let mut told = Err("nobody was asked".to_owned());
            while began.elapsed() < TOLD_WITHIN {
                let Some((_, url)) = stage.members.all().into_iter().next() else { break };
                told = deliveries(&client, &url).await;
                if told.as_ref().is_ok_and(|all| all.iter().all(|one| one[2] != "due")) {
                    break;
                }
                sleep(Duration::from_millis(200)).await;
            }
            if let Ok(told) = told {
                stage.recorder.observe("alert-reader", Note::new(NAME, "deliveries").value(told));
            }
            let mut newest = highest_index(stage);
            for (_, url) in stage.members.all().into_iter().take(1) {
                let read = insist(&client, &url, "/api/v1/alerts", PATIENCE).await;
                newest = newest.max(read.ok().and_then(|reply| reply.index).unwrap_or(0));
            }
            let path = format!("/api/v1/alerts?consistency=local&min_index={newest}");
            for (number, url) in stage.members.all() {
                if let Ok(reply) = insist(&client, &url, &path, PATIENCE).await {
                    let note = Note::new(NAME, "final").value(shown(&reply));
                    let note = Note { node: Some(number), ..note };
                    stage.recorder.observe("alert-reader", note);
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn floors(&self) -> Vec<Floor> {
        [("read", 0.8), ("limits", 0.3), ("acknowledge", 0.03)]
            .map(|(f, per_second)| Floor { f, per_second })
            .into()
    }

    fn check(&self, history: &History) -> Vec<Verdict> {
        alerts::check(history)
    }
}
