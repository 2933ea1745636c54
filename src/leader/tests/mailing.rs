//! Mailing alerts: what the courier makes of what the mail server says, and of a channel that changed.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::leader::http::HttpCaller;
use crate::leader::solo::Solo;
use crate::leader::{LeaderOptions, Leadership, Outward};
use crate::model::{AlertState, Delivery, DeliveryState, Severity};
use crate::outward::testing;
use crate::outward::testing::mailbox::{Mailbox, Manner, Rules};
use crate::state::{AlertChange, Command};

struct Mailer {
    solo: Arc<Solo>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Mailer {
    async fn lead() -> Self {
        let (solo, shutdown) = (Solo::new(), CancellationToken::new());
        solo.leading.send_replace(Some(1));
        let caller = Arc::new(HttpCaller::with(testing::clients()).unwrap());
        let leadership = Leadership::new(LeaderOptions::default(), Outward::new(caller));
        let mut serving = leadership.serving();
        let task = tokio::spawn({
            let (solo, shutdown) = (Arc::clone(&solo), shutdown.clone());
            async move { leadership.run(solo, shutdown).await }
        });
        serving.wait_for(Option::is_some).await.unwrap();
        let mailer = Self { solo, shutdown, task };
        mailer.set("tasks.retry_delay_ms", "10");
        mailer
    }

    fn set(&self, path: &str, value: &str) {
        let (path, value) = (path.to_owned(), value.to_owned());
        self.solo.commit(Command::PatchConfig { path, value, expected_revision: None }).unwrap();
    }

    fn raise(&self, alert_id: &str) {
        let change = AlertChange {
            alert_id: alert_id.to_owned(),
            seen_transitions: 0,
            metric: "m".to_owned(),
            severity: Severity::Warning,
            state: AlertState::Active,
            value_milli: 2,
            threshold_milli: 1,
            message: "too much\r\nBcc: eve@example.org".to_owned(),
        };
        let epoch = self.solo.state.read().epoch();
        self.solo.commit(Command::RecordAlerts { epoch, changes: vec![change] }).unwrap();
    }

    /// How the only delivery ends.
    async fn ended(&self) -> Delivery {
        let ended = |delivery: &&Delivery| delivery.state != DeliveryState::Due;
        self.solo
            .until("the mail is told of", |state| state.deliveries().any(|one| ended(&one)))
            .await;
        let state = self.solo.state.read();
        assert_eq!(state.deliveries().count(), 1, "one transition is one delivery");
        state.deliveries().next().cloned().unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

fn channel(port: u16) -> String {
    serde_json::json!({"enabled": true, "smtp_server": "localhost", "smtp_port": port,
        "username": "fleet", "password": "hunter2", "from": "fleet@example.com",
        "to": ["a@example.com", "b@example.com"]})
    .to_string()
}

fn rules() -> Rules {
    Rules { login: Some(("fleet".to_owned(), "hunter2".to_owned())), ..Rules::default() }
}

#[tokio::test]
async fn an_alert_is_mailed_until_it_is_taken() {
    let manner = Manner::StartTls(testing::acceptor());
    let (mailbox, addr) = Mailbox::start(manner, Rules { put_off: 1, ..rules() }).await;
    let mailer = Mailer::lead().await;
    mailer.set("alerts.email", &channel(addr.port()));
    mailer.raise("heat");
    let delivery = mailer.ended().await;
    assert_eq!(
        (delivery.state, delivery.tries, &delivery.error),
        (DeliveryState::Delivered, 2, &None)
    );
    assert_eq!(delivery.url, format!("smtp://localhost:{}", addr.port()));
    let letters = mailbox.letters();
    assert_eq!((letters.len(), letters[0].to.len(), letters[0].secure), (1, 2, true));
    assert_eq!(letters[0].header("Subject"), Some("[warning] heat active"));
    let number = format!("<quorate.1.{:032x}@example.com>", mailer.solo.state.read().cluster_id());
    assert_eq!(letters[0].header("Message-ID"), Some(number.as_str()));
    assert_eq!(letters[0].header("Bcc"), None, "{}", letters[0].text);
    mailer.stop().await;
}

#[tokio::test]
async fn a_recipient_that_is_refused_does_not_fail_the_delivery_but_all_of_them_do() {
    let refused = |to: &str| (to.to_owned(), "550 5.1.1 nobody".to_owned());
    for (refused, state, letters) in [
        (vec![refused("a@example.com")], DeliveryState::Delivered, 1),
        (vec![refused("a@example.com"), refused("b@example.com")], DeliveryState::GivenUp, 0),
    ] {
        let rules = Rules { refused: refused.into_iter().collect(), ..rules() };
        let (mailbox, addr) = Mailbox::start(Manner::StartTls(testing::acceptor()), rules).await;
        let mailer = Mailer::lead().await;
        mailer.set("alerts.email", &channel(addr.port()));
        mailer.raise("heat");
        let delivery = mailer.ended().await;
        assert_eq!((delivery.state, delivery.tries, mailbox.letters().len()), (state, 1, letters));
        let error = (letters == 0).then_some("answered 550: 5.1.1 nobody");
        assert_eq!(delivery.error.as_deref(), error);
        mailer.stop().await;
    }
}

#[tokio::test]
async fn a_channel_that_was_switched_off_gives_up_what_waits() {
    let (mailbox, addr) = Mailbox::start(Manner::StartTls(testing::acceptor()), rules()).await;
    let mailer = Mailer::lead().await;
    mailer.set("alerts.email", &channel(addr.port()));
    mailer.raise("heat");
    mailer.set("alerts.email.enabled", "false");
    let delivery = mailer.ended().await;
    assert_eq!(delivery.state, DeliveryState::GivenUp);
    assert_eq!(delivery.error.as_deref(), Some("alerts.email is switched off"));
    assert_eq!(mailbox.heard(), Vec::<String>::new());
    mailer.stop().await;
}
