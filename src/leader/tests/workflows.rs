//! Workflows against small real services: what is called, in which order and how often, and what
//! becomes of services that fail, of cancels and of leaders that go.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Router, extract};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::leader::handover::load_text;
use crate::leader::http::HttpCaller;
use crate::leader::solo::Solo;
use crate::leader::workflows::{PER_SERVICE_MAX, plan};
use crate::leader::{LeaderOptions, Leadership, Outward};
use crate::model::{Service, Services, Workflow, WorkflowStatus};
use crate::outward::testing;
use crate::state::{
    BlobPart, BotCommand, BotOutcome, Command, Outcome, STEP_RESULT_MAX, WorkflowStep, blob_owner,
};

/// A call that came, or one that was broken off.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    what: String,
    workflow: String,
    key: String,
    body: Value,
}

#[derive(Clone)]
struct Answering {
    told: mpsc::UnboundedSender<Told>,
    /// Calls that are held wait for a permit each.
    gate: Arc<Semaphore>,
}

/// Says so when a call ends without its answer.
struct Watched(Answering, Option<Told>);

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(told) = self.1.take() {
            let _ = self.0.told.send(Told { what: format!("lost {}", told.what), ..told });
        }
    }
}

async fn answer(
    extract::State(service): extract::State<Answering>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
    let (workflow, key) = (header("x-quorate-workflow"), header("idempotency-key"));
    let body: Value = serde_json::from_slice(&body).unwrap();
    let told = Told { what: uri.path().to_owned(), workflow, key, body: body.clone() };
    service.told.send(told.clone()).unwrap();
    let mut watched = Watched(service.clone(), Some(told));
    if body["hold"] == true {
        service.gate.acquire().await.unwrap().forget();
    }
    watched.1 = None;
    let status = body["status"].as_u64().unwrap_or(200) as u16;
    let text = body["answer"].as_str().unwrap_or(r#"{"ok":true}"#);
    let text = text.repeat(body["times"].as_u64().unwrap_or(1) as usize);
    (StatusCode::from_u16(status).unwrap(), text).into_response()
}

/// A leader, and the services it calls.
struct Bench {
    solo: Arc<Solo>,
    leadership: Leadership,
    told: mpsc::UnboundedReceiver<Told>,
    gate: Arc<Semaphore>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Bench {
    async fn start() -> Self {
        let (sender, told) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let answering = Answering { told: sender, gate: Arc::clone(&gate) };
        let router = Router::new().fallback(axum::routing::post(answer)).with_state(answering);
        let port = testing::serve(router).await.port();
        let mut services = Services::default();
        for service in Service::ALL {
            services.set(service, &format!("http://127.0.0.1:{port}/{}/", service.as_str()));
        }
        // Nobody listens there any more.
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        services.set(Service::VideoGeneration, &format!("http://{}", gone.local_addr().unwrap()));
        let (solo, shutdown) = (Solo::new(), CancellationToken::new());
        let caller = Arc::new(HttpCaller::new().unwrap());
        let outward = Outward { services: Arc::new(services), ..Outward::new(caller) };
        let leadership = Leadership::new(LeaderOptions::default(), outward);
        solo.leading.send_replace(Some(1));
        let task = tokio::spawn({
            let (leadership, solo) = (leadership.clone(), Arc::clone(&solo));
            let shutdown = shutdown.clone();
            async move { leadership.run(solo, shutdown).await }
        });
        Self { solo, leadership, told, gate, shutdown, task }
    }

    fn create(&self, tasks: &[(&str, Value)]) -> u64 {
        create(&self.solo, tasks)
    }

    async fn told(&mut self) -> Told {
        let told = tokio::time::timeout(std::time::Duration::from_secs(20), self.told.recv());
        told.await.expect("a service is called").unwrap()
    }

    async fn ended(&self, number: u64) -> (Workflow, Vec<Value>) {
        let ended = |row: &Workflow| row.status != WorkflowStatus::Running;
        let what = format!("workflow {number} ends");
        self.solo.until(&what, |state| state.workflow(number).is_some_and(ended)).await;
        let row = self.solo.state.read().workflow(number).unwrap().clone();
        let text = |(place, result)| {
            let owner = blob_owner(number, place);
            load_text(&*self.solo, &owner, BlobPart::StepResult, result).unwrap()
        };
        let texts = (0..).zip(row.tasks.iter().map(|task| &task.result)).map(text);
        let results = texts.map(|text| serde_json::from_str(&text).unwrap_or_default()).collect();
        (row, results)
    }

    async fn stop(self) -> Leadership {
        self.shutdown.cancel();
        self.task.await.unwrap();
        self.leadership
    }
}

fn create(solo: &Solo, tasks: &[(&str, Value)]) -> u64 {
    let steps = tasks.iter().map(|(task_type, params)| WorkflowStep {
        task_type: (*task_type).to_owned(),
        params: params.to_string(),
    });
    let command =
        BotCommand::CreateWorkflow { tasks: steps.collect(), priority: "normal".to_owned() };
    let made = solo.commit(Command::Bot(Box::new(command))).unwrap();
    let Outcome::Bot(BotOutcome::WorkflowCreated { workflow }) = made else { panic!("{made:?}") };
    solo.state.read().workflow_number(workflow).unwrap()
}

#[tokio::test]
async fn contract_5_4_tasks_are_done_one_after_another_and_failures_are_results() {
    let mut bench = Bench::start().await;
    // Large enough to lie outside the row.
    let prompt = json!({"prompt": "p".repeat(10_000)});
    let tasks = [
        ("image_generation", prompt.clone()),
        ("video_generation", json!({})),
        ("crypto_prediction", json!({"status": 503, "answer": "closed"})),
        ("compression", json!({})),
        ("fraud_detection", json!({"answer": "[12345678901234567890]"})),
        ("fraud_detection", json!({"answer": "é".repeat(10), "times": STEP_RESULT_MAX / 20 + 1})),
    ];
    let number = bench.create(&tasks);
    let (row, results) = bench.ended(number).await;
    assert_eq!((row.status, row.position), (WorkflowStatus::Completed, 6));
    let id = bench.solo.state.read().workflow_id(number).to_string();
    for (path, place, body) in [
        ("/image_generation/generate", 0, &prompt),
        ("/crypto_prediction/predict", 2, &tasks[2].1),
        ("/fraud_detection/analyze", 4, &tasks[4].1),
        ("/fraud_detection/analyze", 5, &tasks[5].1),
    ] {
        let (what, key) = (path.to_owned(), format!("{id}.{place}"));
        let expected = Told { what, workflow: id.clone(), key, body: body.clone() };
        assert_eq!(bench.told().await, expected);
    }
    let [image, video, crypto, compression, fraud, long] = &results[..] else { panic!() };
    assert_eq!(*image, json!({"ok": true}));
    assert!(video["error"].as_str().unwrap().starts_with("cannot connect"), "{video}");
    assert_eq!(*crypto, json!({"error": "the service answered 503: closed"}));
    assert_eq!(*compression, json!({"error": "Unknown task type: compression"}));
    assert_eq!(fraud.to_string(), "[12345678901234567890]");
    assert_eq!(*long, json!({"error": format!("the answer is over {STEP_RESULT_MAX} bytes")}));
    let leadership = bench.stop().await;
    let metrics = leadership.metrics();
    assert_eq!((metrics.workflow_calls.get(), metrics.workflow_errors.get()), (5, 3));
    assert_eq!(metrics.workflow_steps.get(), 6);
}

#[tokio::test]
async fn a_cancel_breaks_the_call_off_and_records_nothing() {
    let mut bench = Bench::start().await;
    let tasks = [("fraud_detection", json!({"hold": true})), ("fraud_detection", json!({}))];
    let number = bench.create(&tasks);
    let began = bench.told().await;
    let workflow = bench.solo.state.read().workflow_id(number);
    let cancel = BotCommand::CancelWorkflow { workflow };
    bench.solo.commit(Command::Bot(Box::new(cancel))).unwrap();
    let lost = bench.told().await;
    assert_eq!((lost.what.as_str(), &lost.key), ("lost /fraud_detection/analyze", &began.key));
    // Later ones go on.
    let next = bench.create(&[("fraud_detection", json!({}))]);
    bench.ended(next).await;
    let (row, results) = bench.ended(number).await;
    assert_eq!((row.status, row.position), (WorkflowStatus::Cancelled, 0));
    assert_eq!(results, [Value::Null, Value::Null]);
    assert_eq!(bench.stop().await.metrics().workflow_steps.get(), 1);
}

#[tokio::test]
async fn a_new_leader_repeats_no_more_than_the_call_that_was_under_way() {
    let mut bench = Bench::start().await;
    let held = json!({"hold": true});
    let tasks = [("crypto_prediction", json!({})), ("fraud_detection", held)];
    let number = bench.create(&tasks);
    let id = bench.solo.state.read().workflow_id(number);
    assert_eq!(bench.told().await.key, format!("{id}.0"));
    assert_eq!(bench.told().await.key, format!("{id}.1"));
    bench.solo.leading.send_replace(None);
    assert_eq!(bench.told().await.what, "lost /fraud_detection/analyze", "the old one stops");
    bench.solo.leading.send_replace(Some(2));
    let again = bench.told().await;
    assert_eq!((again.what.as_str(), again.key), ("/fraud_detection/analyze", format!("{id}.1")));
    bench.gate.add_permits(1);
    let (_, results) = bench.ended(number).await;
    assert_eq!(results, [json!({"ok": true}), json!({"ok": true})]);
    assert!(bench.told.try_recv().is_err(), "nothing was called once more");
    bench.stop().await;
}

#[test]
fn a_slow_service_holds_up_no_other_and_long_workflows_wait_their_turn() {
    let solo = Solo::new();
    solo.commit(Command::OpenEpoch(crate::model::Epoch { term: 1, member: 1 })).unwrap();
    let none = BTreeMap::new();
    assert_eq!(plan(&solo.state.read(), &none), []);
    let two = [("fraud_detection", json!({})), ("fraud_detection", json!({"n": 2}))];
    for _ in 0..PER_SERVICE_MAX + 10 {
        create(&solo, &two);
    }
    let image = create(&solo, &[("image_generation", json!({})), ("odd", json!({}))]);
    let odd = create(&solo, &[("odd", json!({}))]);
    let places = |under_way: &BTreeMap<u64, Option<Service>>| {
        let steps = plan(&solo.state.read(), under_way);
        steps.into_iter().map(|step| step.place).collect::<Vec<_>>()
    };
    let all: Vec<_> = (1..=PER_SERVICE_MAX as u64).map(|number| (number, 0)).collect();
    assert_eq!(places(&none), [&all[..], &[(image, 0), (odd, 0)]].concat());
    // A full service leaves room for the others, and what is under way is not begun twice.
    let fraud = Some(Service::FraudDetection);
    let mut under_way: BTreeMap<_, _> = all.iter().map(|(number, _)| (*number, fraud)).collect();
    assert_eq!(places(&under_way), [(image, 0), (odd, 0)]);
    under_way.extend([(image, Some(Service::ImageGeneration)), (odd, None)]);
    assert_eq!(places(&under_way), []);
    // One call ends: its workflow goes behind those that have not had a turn.
    under_way.remove(&1);
    let step = BotCommand::RecordStep {
        epoch: crate::model::Epoch { term: 1, member: 1 },
        workflow: 1,
        seen: 0,
        result: "1".to_owned(),
    };
    while solo.state.read().workflow(odd).unwrap().created_at_ms >= crate::clock::now_ms() {}
    solo.commit(Command::Bot(Box::new(step))).unwrap();
    let next = PER_SERVICE_MAX as u64 + 1;
    assert_eq!(places(&under_way), [(next, 0)]);
    under_way.clear();
    under_way.extend((2..PER_SERVICE_MAX as u64).map(|number| (number, None)));
    assert!(places(&under_way).ends_with(&[(odd, 0), (1, 1)]));
}

/// Workflows of which more wait than a service is asked at once were done as they came.
#[test]
fn contract_8_3_urgent_workflows_go_before_those_that_came_earlier() {
    let solo = Solo::new();
    let make = |priority: &str| {
        let task = WorkflowStep { task_type: "fraud_detection".into(), params: "{}".into() };
        let (tasks, priority) = (vec![task], priority.to_owned());
        let command = BotCommand::CreateWorkflow { tasks, priority };
        let made = solo.commit(Command::Bot(Box::new(command)));
        assert!(matches!(made, Ok(Outcome::Bot(BotOutcome::WorkflowCreated { .. }))));
    };
    for priority in ["low", "normal", "odd", "high", "critical"] {
        make(priority);
    }
    let steps = plan(&solo.state.read(), &BTreeMap::new());
    let order: Vec<u64> = steps.iter().map(|step| step.place.0).collect();
    assert_eq!(order, [5, 4, 2, 3, 1]);
}
