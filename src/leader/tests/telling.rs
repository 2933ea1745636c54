//! Telling others what happened: over https, and only where the operator's list lets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::post;
use tokio_util::sync::CancellationToken;

use crate::leader::http::HttpCaller;
use crate::leader::solo::Solo;
use crate::leader::{LeaderOptions, Leadership, Outward};
use crate::model::{Delivery, DeliveryState};
use crate::outward::{Clients, testing};
use crate::state::Command;

struct Teller {
    solo: Arc<Solo>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Teller {
    fn lead(clients: Clients, allowed_hosts: &str) -> Self {
        let (solo, shutdown) = (Solo::new(), CancellationToken::new());
        solo.commit(Command::PatchConfig {
            path: "security.outward.allowed_hosts".to_owned(),
            value: allowed_hosts.to_owned(),
            expected_revision: None,
        })
        .unwrap();
        solo.leading.send_replace(Some(1));
        let caller = Arc::new(HttpCaller::with(clients).unwrap());
        let leadership = Leadership::new(LeaderOptions::default(), Outward::new(caller));
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
