//! Alerts by mail, over the loss of a leader: to a real mail server, over TLS that an operator's own
//! authority vouches for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::house::House;
use crate::http::{PATIENCE, text, until};
use crate::mailbox::{Letter, Mailbox, Manner, Rules};

/// The watch wants three samples of every new leader.
const WATCHED: Duration = Duration::from_secs(60);
/// The authority of the tests, and what it vouches for as `localhost`.
const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/outward/testcerts");

fn acceptor() -> TlsAcceptor {
    let at = Path::new(CERTIFICATES);
    let certificate = CertificateDer::from_pem_file(at.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(at.join("server.key")).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate], key).unwrap()))
}

/// The numbers of the mails that tell of each status.
fn told(letters: &[Letter]) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for letter in letters {
        let subject = letter.header("Subject").unwrap();
        let status = subject.rsplit(' ').next().unwrap().to_owned();
        let number = letter.header("Message-ID").unwrap().to_owned();
        all.entry(status).or_default().insert(number);
    }
    all
}

async fn until_alert_is(house: &House, place: usize, wanted: &str) {
    until(&format!("an alert that is {wanted}"), WATCHED, || async {
        let reply = house.http.get(&house.url(place, "/api/v1/alerts")).await.ok()?;
        let alert = reply.body["alerts"].as_array()?.first()?.clone();
        (text(&alert, "/status") == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_2_11_each_transition_of_an_alert_is_mailed_once_over_leaders() {
    let login = Some(("fleet".to_owned(), "hunter2".to_owned()));
    // Two mails are sent again: one was put off, and one was taken without an answer.
    let rules = Rules { login, put_off: 1, unanswered: 1, ..Rules::default() };
    let (mailbox, addr) = Mailbox::start(Manner::StartTls(acceptor()), rules).await;
    let more = format!("  ca_file: {CERTIFICATES}/authority.pem\n");
    let mut house = House::found_with(3, &more).await;
    let leader = house.leader().await;
    let other = (leader + 1) % 3;
    let config = house.url(other, "/api/v1/config");
    let patch = json!({
        "alerts": {
            "check_interval": 1,
            "thresholds": {"medium_utilization": 0.3, "high_utilization": 0.95},
            "email": {"enabled": true, "smtp_server": "localhost", "smtp_port": addr.port(),
                "username": "fleet", "password": "hunter2", "from_email": "fleet@example.com",
                "to_emails": ["ops@example.com", "dev@example.com"]},
        },
        "callbacks": {"max_tries": 10},
        // Nobody is at the node's address, and nobody asks: what counts is the load it reports.
        "performance": {"health_checks": {"interval": 0}},
    });
    house.http.write(Method::PUT, &config, &patch).await;
    let shown = house.http.read(&config).await;
    assert!(!shown.to_string().contains("hunter2"), "{shown}");
    let node = json!({"host": "127.0.0.1", "port": 9, "load_score": 0.6});
    house.http.write(Method::POST, &house.url(other, "/api/v1/nodes/n/register"), &node).await;
    until_alert_is(&house, other, "active").await;
    house.kill(leader);
    let calm = json!({"alerts": {"thresholds": {"medium_utilization": 0.9}}});
    house.http.write(Method::PUT, &config, &calm).await;
    until_alert_is(&house, other, "resolved").await;
    until("no delivery that is due", PATIENCE, || async {
        let list = house.http.get(&house.url(other, "/api/v1/deliveries")).await.ok()?;
        (list.body["due"] == 0).then_some(())
    })
    .await;
    let letters = mailbox.letters();
    let told = told(&letters);
    assert_eq!(told.keys().collect::<Vec<_>>(), ["active", "resolved"], "{letters:?}");
    assert!(told.values().all(|numbers| numbers.len() == 1), "{told:?}");
    assert!(letters.len() > told.len(), "one was taken twice, under one number");
    for letter in &letters {
        assert!(letter.secure && letter.login.as_deref() == Some("fleet"), "{letter:?}");
        assert_eq!(letter.to, ["ops@example.com", "dev@example.com"]);
    }
    let list = house.http.read(&house.url(other, "/api/v1/deliveries")).await;
    let rows = list["deliveries"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{list}");
    assert!(
        rows.iter().all(|row| row["status"] == "delivered" && row["kind"] == "email"),
        "{list}"
    );
}
