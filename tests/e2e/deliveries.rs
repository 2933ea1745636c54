//! What the leader tells others, over the loss of a leader: callbacks of tasks, and alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::fleet::Fleet;
use crate::house::House;
use crate::http::{PATIENCE, number, text, until};

/// The watch wants three samples, ten seconds apart, of every new leader.
const WATCHED: Duration = Duration::from_secs(60);

/// Takes posts, and refuses the first of every third delivery so that it must come again.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Posts>>);

#[derive(Default)]
struct Posts {
    taken: Vec<Value>,
    refused: BTreeSet<u64>,
}

async fn take(State(sink): State<Sink>, Json(body): Json<Value>) -> StatusCode {
    let delivery_id = number(&body, "/delivery_id");
    let mut posts = sink.0.lock();
    if delivery_id.is_multiple_of(3) && posts.refused.insert(delivery_id) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    posts.taken.push(body);
    StatusCode::NO_CONTENT
}

impl Sink {
    /// Starts it; gives it and its URL. It ends with the test's runtime.
    async fn start() -> (Self, String) {
        let sink = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/told", listener.local_addr().unwrap());
        let router = Router::new().route("/told", post(take)).with_state(sink.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (sink, url)
    }

    /// What was taken, by what `key` points at: the numbers of the deliveries it came under.
    fn by(&self, key: &str) -> BTreeMap<String, BTreeSet<u64>> {
        let mut all: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for body in &self.0.lock().taken {
            all.entry(text(body, key)).or_default().insert(number(body, "/delivery_id"));
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_6_row_12_callbacks_outlive_the_leader() {
    const TASKS: usize = 60;
    let mut house = House::found(3).await;
    let (sink, url) = Sink::start().await;
    let _fleet = Fleet::start(&house, 2, "work").await;
    let submit = async |house: &House, numbers: std::ops::Range<usize>, place: usize| {
        for number in numbers {
            let task = json!({ "task_id": format!("t{number}"), "task_type": "work",
                "callback_url": url });
            house.submit(place, &task).await;
        }
    };
    let leader = house.leader().await;
    let other = (leader + 1) % 3;
    submit(&house, 0..TASKS / 2, other).await;
    // In the middle: some have been told of, some run, and the rest is still to come.
    until("the first callback", PATIENCE, || async {
        (!sink.0.lock().taken.is_empty()).then_some(())
    })
    .await;
    house.kill(leader);
    submit(&house, TASKS / 2..TASKS, other).await;
    until("every callback", PATIENCE, || async {
        (sink.by("/task_id").len() == TASKS).then_some(())
    })
    .await;
    until("no delivery that is due", PATIENCE, || async {
        let list = house.http.get(&house.url(other, "/api/v1/deliveries?limit=1")).await.ok()?;
        (list.body["due"] == 0).then_some(())
    })
    .await;
    let told = sink.by("/task_id");
    let doubled: Vec<_> = told.iter().filter(|(_, ids)| ids.len() != 1).collect();
    assert!(doubled.is_empty(), "one task is one delivery: {doubled:?}");
    let taken = sink.0.lock().taken.clone();
    let odd: Vec<_> = taken.iter().filter(|body| body["status"] != "completed").collect();
    assert!(odd.is_empty(), "told of before its end: {odd:?}");
    println!("{} callbacks for {TASKS} tasks, {} were refused", taken.len(), {
        sink.0.lock().refused.len()
    });
    let list = house.http.read(&house.url(other, "/api/v1/deliveries?limit=1000")).await;
    let rows = list["deliveries"].as_array().unwrap();
    assert_eq!(rows.len(), TASKS);
    assert!(rows.iter().all(|row| row["status"] == "delivered"), "{list}");
    house.start(leader);
    house.ready(leader).await;
    house.agree().await;
}

/// The state of the only alert there may be, as `place` shows it.
async fn alert(house: &House, place: usize) -> Option<String> {
    let reply = house.http.get(&house.url(place, "/api/v1/alerts")).await.ok()?;
    let alerts = reply.body["alerts"].as_array()?;
    alerts.first().map(|alert| text(alert, "/status"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_2_11_each_transition_of_an_alert_is_told_once_over_leaders() {
    let mut house = House::found(3).await;
    let (sink, url) = Sink::start().await;
    let leader = house.leader().await;
    let other = (leader + 1) % 3;
    let config = house.url(other, "/api/v1/config");
    let limits = json!({"medium_utilization": 0.3, "high_utilization": 0.95});
    let alerts =
        json!({"alerts": {"thresholds": limits, "webhook": {"enabled": true, "url": url}}});
    house.http.write(Method::PUT, &config, &alerts).await;
    // Nobody is at its address, and nobody asks: what counts is the load it reports.
    let probes = json!({"performance": {"health_checks": {"interval": 0}}});
    house.http.write(Method::PUT, &config, &probes).await;
    let node = json!({"host": "127.0.0.1", "port": 9, "load_score": 0.6});
    house.http.write(Method::POST, &house.url(other, "/api/v1/nodes/n/register"), &node).await;
    let reaches = async |house: &House, wanted: &str| {
        until(&format!("an alert that is {wanted}"), WATCHED, || async {
            (alert(house, other).await? == wanted).then_some(())
        })
        .await;
    };
    reaches(&house, "active").await;
    let path = "/api/v1/alerts/network_utilization_threshold/acknowledge";
    for _ in 0..2 {
        house.http.write(Method::POST, &house.url(other, path), &json!({})).await;
    }
    house.kill(leader);
    let calm = json!({"alerts": {"thresholds": {"medium_utilization": 0.9}}});
    house.http.write(Method::PUT, &config, &calm).await;
    reaches(&house, "resolved").await;
    until("three transitions", PATIENCE, || async {
        (sink.by("/alert/status").len() == 3).then_some(())
    })
    .await;
    let told = sink.by("/alert/status");
    for status in ["active", "acknowledged", "resolved"] {
        assert_eq!(told[status].len(), 1, "{status} in {told:?}");
    }
    let list = house.http.read(&house.url(other, "/api/v1/deliveries")).await;
    assert_eq!(list["deliveries"].as_array().unwrap().len(), 3, "{list}");
}
