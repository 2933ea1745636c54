//! Telling others what happened: over https, and only where the operator's list lets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::leader::http::HttpCaller;
use crate::leader::solo::Solo;
use crate::leader::{
    IdOnly, LeaderOptions, Leadership, Outward, Rendered, TaskRenderer, Unreadable,
};
use crate::model::{AlertState, Delivery, DeliveryState, Severity, TaskId};
use crate::outward::{Clients, testing};
use crate::state::{AlertChange, Command};

struct Teller {
    solo: Arc<Solo>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Teller {
    fn lead(clients: Clients, allowed_hosts: &str) -> Self {
        Self::lead_as(clients, allowed_hosts, IdOnly)
    }

    fn lead_as(clients: Clients, allowed_hosts: &str, renderer: impl TaskRenderer) -> Self {
        let (solo, shutdown) = (Solo::new(), CancellationToken::new());
        solo.commit(Command::PatchConfig {
            path: "security.outward.allowed_hosts".to_owned(),
            value: allowed_hosts.to_owned(),
            expected_revision: None,
        })
        .unwrap();
        solo.leading.send_replace(Some(1));
        let caller = Arc::new(HttpCaller::with(clients).unwrap());
        let outward = Outward { renderer: Arc::new(renderer), ..Outward::new(caller) };
        let leadership = Leadership::new(LeaderOptions::default(), outward);
        let task = tokio::spawn({
            let (solo, shutdown) = (Arc::clone(&solo), shutdown.clone());
            async move { leadership.run(solo, shutdown).await }
        });
        Self { solo, shutdown, task }
    }

    /// How the callback of a task that ends ends itself.
    async fn tell(&self, name: &str, url: &str) -> Delivery {
        let task_id = self.solo.submit(name, |spec| spec.callback_url = Some(url.to_owned()));
        self.solo.commit(Command::CancelTask { task_id, reason: String::new() }).unwrap();
        let ended =
            |delivery: &&Delivery| delivery.url == url && delivery.state != DeliveryState::Due;
        let what = format!("{url} is told or given up");
        self.solo.until(&what, |state| state.deliveries().any(|delivery| ended(&delivery))).await;
        self.solo.state.read().deliveries().find(ended).cloned().unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// Cannot read a task the first time it is asked for it.
#[derive(Default)]
struct Stumbling(AtomicUsize);

impl TaskRenderer for Stumbling {
    fn render(&self, task_id: TaskId) -> BoxFuture<'static, Rendered> {
        let first = self.0.fetch_add(1, Ordering::Relaxed) == 0;
        Box::pin(async move { if first { Err(Unreadable) } else { IdOnly.render(task_id).await } })
    }
}

/// A payload that a leader could not read once counted as a task that is gone, for good.
#[tokio::test]
async fn a_task_that_cannot_be_read_is_told_of_later() {
    is_told_with_the_second_try(Stumbling::default()).await;
}

/// Breaks the first time it is asked for a task.
#[derive(Default)]
struct Breaking(AtomicUsize);

impl TaskRenderer for Breaking {
    fn render(&self, task_id: TaskId) -> BoxFuture<'static, Rendered> {
        assert!(self.0.fetch_add(1, Ordering::Relaxed) > 0, "as it is meant to");
        IdOnly.render(task_id)
    }
}

/// It kept its place, and was not made again, until the next reign.
#[tokio::test]
async fn a_post_that_broke_is_made_again() {
    is_told_with_the_second_try(Breaking::default()).await;
}

/// A callback fails once by its renderer, and is made again.
async fn is_told_with_the_second_try(renderer: impl TaskRenderer + 'static) {
    let (router, told) = counting();
    let port = testing::serve(router).await.port();
    let teller = Teller::lead_as(Clients::default(), "[\"127.0.0.1\"]", renderer);
    let (path, value) = ("tasks.retry_delay_ms".to_owned(), "1".to_owned());
    let patch = Command::PatchConfig { path, value, expected_revision: None };
    teller.solo.commit(patch).unwrap();
    let delivery = teller.tell("t", &format!("http://127.0.0.1:{port}/")).await;
    assert_eq!((delivery.state, delivery.tries), (DeliveryState::Delivered, 2));
    assert_eq!(told.load(Ordering::Relaxed), 1);
    teller.stop().await;
}

fn counting() -> (Router, Arc<AtomicUsize>) {
    let told = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&told);
    let router = Router::new().fallback(post(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        async { "thanks" }
    }));
    (router, told)
}

#[tokio::test]
async fn callbacks_are_told_over_https() {
    let (router, told) = counting();
    let port = testing::serve_tls(router).await.port();
    let teller = Teller::lead(testing::clients(), "[\"localhost\"]");
    let delivery = teller.tell("t", &format!("https://localhost:{port}/")).await;
    assert_eq!((delivery.state, delivery.error), (DeliveryState::Delivered, None));
    assert_eq!(told.load(Ordering::Relaxed), 1);
    teller.stop().await;
}

#[tokio::test]
async fn a_host_that_is_not_on_the_list_is_given_up_without_a_call() {
    let (router, told) = counting();
    let port = testing::serve(router).await.port();
    let teller = Teller::lead(Clients::default(), "[\"10.0.0.0/8\"]");
    // The one is seen by what it says, the other only by the address it has.
    for (name, host) in [("literal", "127.0.0.1"), ("named", "localhost")] {
        let delivery = teller.tell(name, &format!("http://{host}:{port}/{name}")).await;
        assert_eq!((delivery.state, delivery.tries), (DeliveryState::GivenUp, 1), "{host}");
        let error = delivery.error.unwrap();
        assert_eq!(error, format!("the host {host} is not on the list of allowed hosts"));
    }
    assert_eq!(told.load(Ordering::Relaxed), 0);
    // A list that has it again lets the next one through, on the same connections or not.
    teller
        .solo
        .commit(Command::PatchConfig {
            path: "security.outward.allowed_hosts".to_owned(),
            value: "[\"127.0.0.0/8\", \"::1\"]".to_owned(),
            expected_revision: None,
        })
        .unwrap();
    let delivery = teller.tell("later", &format!("http://localhost:{port}/later")).await;
    assert_eq!(delivery.state, DeliveryState::Delivered);
    assert_eq!(told.load(Ordering::Relaxed), 1);
    teller.stop().await;
}

/// Takes posts, and answers each with the next of these, then 200.
fn answering(answers: &[u16]) -> (Router, Arc<Mutex<Vec<Value>>>) {
    let told = Arc::<Mutex<Vec<Value>>>::default();
    let (taken, answers) = (Arc::clone(&told), answers.to_vec());
    let router = Router::new().fallback(post(move |Json(body): Json<Value>| {
        let mut taken = taken.lock();
        let status = answers.get(taken.len()).copied().unwrap_or(200);
        taken.push(body);
        async move { StatusCode::from_u16(status).unwrap() }
    }));
    (router, told)
}

/// Mail, the third channel, is in `mailing`.
#[tokio::test]
async fn contract_6_row_13_an_alert_is_posted_to_webhook_and_slack() {
    let (hook, hooked) = answering(&[500]);
    let (slack, slacked) = answering(&[302, 503, 404]);
    let (hook, slack) = (testing::serve(hook).await.port(), testing::serve(slack).await.port());
    let teller = Teller::lead(Clients::default(), "[\"127.0.0.1\"]");
    let channels = json!({
        "webhook": {"enabled": true, "url": format!("http://127.0.0.1:{hook}/hook")},
        "slack": {"enabled": true, "webhook_url": format!("http://127.0.0.1:{slack}/services/x"),
            "channel": "#fleet"},
    });
    for (path, value) in
        [("alerts", channels.to_string()), ("tasks.retry_delay_ms", "1".to_owned())]
    {
        let (path, expected_revision) = (path.to_owned(), None);
        teller.solo.commit(Command::PatchConfig { path, value, expected_revision }).unwrap();
    }
    let opened = |state: &crate::state::State| state.epoch() != crate::model::Epoch::default();
    teller.solo.until("a reign", opened).await;
    let change = AlertChange {
        alert_id: "network_utilization_threshold".to_owned(),
        seen_transitions: 0,
        metric: "network_utilization".to_owned(),
        severity: Severity::Critical,
        state: AlertState::Active,
        value_milli: 950,
        threshold_milli: 900,
        message: "too much".to_owned(),
    };
    let epoch = teller.solo.state.read().epoch();
    teller.solo.commit(Command::RecordAlerts { epoch, changes: vec![change] }).unwrap();
    let ended = |state: &crate::state::State| {
        state.deliveries().all(|delivery| delivery.state != DeliveryState::Due)
    };
    teller.solo.until("both have ended", ended).await;
    let (hooked, slacked) = (hooked.lock().clone(), slacked.lock().clone());
    assert_eq!((hooked.len(), &hooked[0]), (2, &hooked[1]), "what is not 2xx comes again, alike");
    let body = &hooked[0];
    assert_eq!(body["source"], "web4ai_orchestrator");
    assert!(body["timestamp"].as_str().unwrap().ends_with('Z'), "contract 1.7: {body}");
    assert!(body["delivery_id"].is_u64(), "{body}");
    for (key, value) in [
        ("id", json!("network_utilization_threshold")),
        ("severity", json!("critical")),
        ("status", json!("active")),
        ("value", json!(0.95)),
        ("threshold", json!(0.9)),
        ("message", json!("too much")),
    ] {
        assert_eq!(body["alert"][key], value, "{key}");
    }
    let text =
        "[critical] network_utilization_threshold active: too much (value 0.950, threshold 0.900)";
    assert_eq!((&slacked[0]["text"], &slacked[0]["channel"]), (&json!(text), &json!("#fleet")));
    assert_eq!(slacked.len(), 3, "three tries, and no more");
    {
        let state = teller.solo.state.read();
        let given_up = state.deliveries().find(|delivery| delivery.kind == "slack").unwrap();
        assert_eq!((given_up.state, given_up.tries), (DeliveryState::GivenUp, 3));
        assert_eq!(given_up.error.as_deref(), Some("answered 404"), "it is on record");
    }
    teller.stop().await;
}
