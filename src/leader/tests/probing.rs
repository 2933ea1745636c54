//! What nodes that send no heartbeats are asked, against small real nodes on loopback (contract 6,
//! rows 3, 4 and 8).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::leader::http::HttpCaller;
use crate::leader::probe::{Paths, Probed, look_at, probe};
use crate::leader::solo::Solo;
use crate::leader::{LeaderOptions, Leadership, Outward};
use crate::model::{NodeId, NodeStatus};
use crate::state::{Command, Policy};

const TIMEOUT: Duration = Duration::from_millis(500);

/// Answers by path; 404 for all others. A status of 0 is no answer at all.
type Answers = Arc<Mutex<BTreeMap<&'static str, (u16, &'static str)>>>;

struct Fake {
    base: String,
    answers: Answers,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    async fn serve(answers: &[(&'static str, u16, &'static str)]) -> Self {
        let rows = answers.iter().map(|(path, status, body)| (*path, (*status, *body)));
        let answers: Answers = Arc::new(Mutex::new(rows.collect()));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (known, log) = (Arc::clone(&answers), Arc::clone(&asked));
        let handle = move |request: Request| {
            let path = request.uri().path().to_owned();
            let found = known.lock().get(path.as_str()).copied();
            log.lock().push(path);
            async move {
                let (status, body) = found.unwrap_or((404, "{}"));
                if status == 0 {
                    std::future::pending::<()>().await;
                }
                (StatusCode::from_u16(status).unwrap(), body).into_response()
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handle)).await });
        Self { base, answers, asked }
    }

    async fn probe(&self, paths: Paths, figures: bool) -> Probed {
        let caller = HttpCaller::new().unwrap();
        let weights = Policy::default().load_weights;
        probe(&caller, &self.base, paths, figures.then_some(weights), TIMEOUT).await
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock())
    }
}

fn enhanced() -> Paths {
    Paths::default().of_kind("enhanced_node")
}

const AGENTS: &str = "/api/v3/agents";
const METRICS: &str = "/api/v3/metrics";
const STATUS: &str = "/api/v4/orchestrator/status";
const HEALTH: &str = "/api/health";

#[tokio::test]
async fn contract_6_row_3_the_health_of_an_enhanced_node_is_its_list_of_agents() {
    for (status, body, healthy) in [
        (200, r#"{"success":true,"agents":[],"stats":{}}"#, true),
        (200, r#"{"success":false,"error":"no manager"}"#, false),
        (500, "{}", false),
        (0, "", false),
        // It is there, and asks to be left alone.
        (429, r#"{"success":false}"#, true),
    ] {
        let fake = Fake::serve(&[(AGENTS, status, body)]).await;
        assert_eq!(fake.probe(enhanced(), false).await.healthy, healthy, "{status} {body}");
        assert_eq!(fake.asked(), [AGENTS], "{status} {body}");
    }
    // One that does not have the list is asked as all others are, and not again for it at once.
    let fake = Fake::serve(&[(HEALTH, 200, "{}")]).await;
    let first = fake.probe(enhanced(), false).await;
    assert!(first.healthy);
    assert_eq!(fake.asked(), [AGENTS, HEALTH]);
    let mut paths = fake.probe(first.paths, false).await.paths;
    assert_eq!(fake.asked(), [HEALTH]);
    fake.answers.lock().insert(AGENTS, (200, "{}"));
    for _ in 0..20 {
        paths = fake.probe(paths, false).await.paths;
    }
    assert_eq!(fake.asked().last().unwrap(), AGENTS, "it is looked for again");
    assert!(fake.probe(Paths::default(), false).await.status.is_none());
    assert_eq!(fake.asked(), [HEALTH], "others are not asked for it");
}

#[tokio::test]
async fn contract_6_row_4_metrics_are_taken_and_their_failure_is_ignored() {
    let list =
        r#"{"success":true,"agents":[],"stats":{"avg_cpu_percent":40,"avg_memory_percent":50}}"#;
    let metrics = r#"{"metrics":{"cpu_percent":12.5}}"#;
    let fake = Fake::serve(&[(AGENTS, 200, list), (METRICS, 200, metrics)]).await;
    let probed = fake.probe(enhanced(), true).await;
    let load = probed.load.unwrap();
    assert_eq!((load.cpu_milli, load.memory_milli), (12_500, 50_000), "what it says itself counts");
    assert_eq!(load.score_milli, 200, "0.4 of cpu and 0.3 of memory");
    assert_eq!(fake.asked(), [AGENTS, METRICS]);
    for (status, body) in [(500, "{}"), (200, "no JSON"), (0, "")] {
        fake.answers.lock().insert(METRICS, (status, body));
        let probed = fake.probe(enhanced(), true).await;
        assert!(probed.healthy, "{status}");
        assert_eq!(probed.load.unwrap().cpu_milli, 40_000, "{status}");
    }
    fake.asked();
    fake.answers.lock().remove(METRICS);
    let paths = fake.probe(enhanced(), true).await.paths;
    fake.probe(paths, true).await;
    assert_eq!(fake.asked(), [AGENTS, METRICS, AGENTS], "a path that is missing is left out");
    fake.answers.lock().insert(AGENTS, (429, "{}"));
    fake.probe(enhanced(), true).await;
    assert_eq!(fake.asked(), [AGENTS], "whoever limits the rate is not asked for more");
}

#[tokio::test]
async fn contract_6_row_8_agents_say_their_status_and_load() {
    let said =
        r#"{"agent_id":"a","status":"degraded","current_tasks":["t1","t2"],"load_score":63}"#;
    let fake = Fake::serve(&[(HEALTH, 200, r#"{"status":"healthy"}"#), (STATUS, 200, said)]).await;
    let probed = fake.probe(Paths::default(), true).await;
    assert_eq!(fake.asked(), [HEALTH, STATUS]);
    assert_eq!(probed.status, Some(NodeStatus::Degraded));
    let load = probed.load.unwrap();
    assert_eq!((load.score_milli, load.active_tasks), (630, 2));
    fake.answers.lock().insert(STATUS, (200, r#"{"status":"offline","load_score":-1}"#));
    let probed = fake.probe(Paths::default(), true).await;
    assert_ne!(probed.status, Some(NodeStatus::Offline), "it has just answered");
    assert_eq!(probed.load, None);
    fake.asked();
    fake.probe(Paths::default(), false).await;
    assert_eq!(fake.asked(), [HEALTH], "whoever sends heartbeats is not asked for figures");
}

#[tokio::test]
async fn contract_6_row_1_whoever_answers_for_its_health_is_found() {
    let usual = (4, Policy::default().load_weights);
    let caller = HttpCaller::new().unwrap();
    let fake = Fake::serve(&[(HEALTH, 200, r#"{"status":"healthy"}"#)]).await;
    let spec = look_at(&caller, &fake.base, TIMEOUT, usual).await.unwrap();
    let port = fake.base.rsplit_once(':').unwrap().1;
    assert_eq!(spec.node_id.as_str(), format!("node_127.0.0.1_{port}"), "it says no name");
    assert_eq!((spec.node_type.as_str(), spec.capacity), ("worker", 4));
    assert_eq!(fake.asked()[1], HEALTH);
    for (status, body) in [(500, "{}"), (404, "{}"), (0, "")] {
        fake.answers.lock().insert(HEALTH, (status, body));
        let found = look_at(&caller, &fake.base, TIMEOUT, usual).await;
        assert!(found.is_none(), "{status} is ignored");
    }
}

#[tokio::test]
async fn contract_6_row_3_discovery_takes_the_agents_of_an_enhanced_node() {
    let list = r#"{"success":true,"agents":[{"agent_id":"a1","status":"online"},{"id":"a2"},{}]}"#;
    let fake = Fake::serve(&[(HEALTH, 200, "{}"), (AGENTS, 200, list)]).await;
    let caller = HttpCaller::new().unwrap();
    let usual = (4, Policy::default().load_weights);
    let spec = look_at(&caller, &fake.base, TIMEOUT, usual).await.unwrap();
    let agents: Vec<_> = spec.agents.iter().map(|agent| agent.agent_id.as_str()).collect();
    assert_eq!(agents, ["a1", "a2"]);
    assert_eq!(fake.asked(), ["/api/v4/system/status", HEALTH, "/api/v4/agents", AGENTS]);
}

#[tokio::test]
async fn what_a_found_node_says_is_replicated() {
    let said = r#"{"status":"active","current_tasks":3,"load_score":0.5}"#;
    let fake = Fake::serve(&[(HEALTH, 200, "{}"), (STATUS, 200, said)]).await;
    let solo = Solo::new();
    let port = fake.base.rsplit_once(':').unwrap().1.parse().unwrap();
    for (name, metadata) in [("found", r#"{"discovered":true}"#), ("beats", "{}")] {
        solo.register(name, |spec| {
            (spec.host, spec.port) = ("127.0.0.1".to_owned(), port);
            spec.metadata = metadata.to_owned();
        });
    }
    let health = ("performance.health_checks.interval".to_owned(), "1".to_owned());
    let command = Command::PatchConfig { path: health.0, value: health.1, expected_revision: None };
    solo.commit(command).unwrap();
    solo.leading.send_replace(Some(1));
    let shutdown = CancellationToken::new();
    let outward = Outward::new(Arc::new(HttpCaller::new().unwrap()));
    let leadership = Leadership::new(LeaderOptions::default(), outward);
    let task = tokio::spawn({
        let (solo, shutdown) = (Arc::clone(&solo), shutdown.clone());
        async move { leadership.run(solo, shutdown).await }
    });
    let load_of = |state: &crate::state::State, name: &str| {
        state.node(&NodeId::trusted(name)).map(|node| node.load).unwrap()
    };
    // Figures that move make no event, so this looks again and again.
    let known = async {
        while load_of(&solo.state.read(), "found").score_milli != 500 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), known).await.expect("they are replicated");
    assert_eq!(load_of(&solo.state.read(), "found").active_tasks, 3);
    fake.answers.lock().insert(STATUS, (200, r#"{"status":"degraded","load_score":0.5}"#));
    let is_degraded = |state: &crate::state::State| {
        state.node(&NodeId::trusted("found")).unwrap().status == NodeStatus::Degraded
    };
    solo.until("its status is, too", is_degraded).await;
    assert_eq!(load_of(&solo.state.read(), "beats").score_milli, 0, "heartbeats alone count there");
    shutdown.cancel();
    task.await.unwrap();
}
