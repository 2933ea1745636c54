//! Keys, logins and the WebSocket, over several members and a failover.

use std::time::Duration;

use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::house::House;
use crate::http::{CALL, PATIENCE, text, until};
use crate::ports::free_addr;

const ROOT: &str = "root-key-of-this-test";
/// "correct horse", as another implementation hashes it.
const PASSWORD: &str =
    "pbkdf2-sha256$1000$MDEyMzQ1Njc4OWFiY2RlZg$cBg8D2DungRB9k76szThf5ehfyBz991ay6PT8Srwk4M";

/// A caller who shows something.
struct Caller {
    http: reqwest::Client,
    bearer: String,
}

impl Caller {
    fn new(bearer: impl Into<String>) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(CALL).build().unwrap();
        Self { http, bearer: bearer.into() }
    }

    async fn ask(&self, method: Method, url: &str, body: &Value) -> (u16, Value) {
        let mut request = self.http.request(method, url).json(body);
        if !self.bearer.is_empty() {
            request = request.bearer_auth(&self.bearer);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    async fn get(&self, url: &str) -> (u16, Value) {
        self.ask(Method::GET, url, &json!({})).await
    }

    /// Something that must be done.
    async fn post(&self, url: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(Method::POST, url, body).await;
        assert_eq!(status, 200, "{url}: {answer}");
        answer
    }
}

#[tokio::test]
async fn a_new_cluster_is_not_locked_for_good() {
    let mut house = House::build(1, "");
    house.members[0].setup.more = "orchestrator: { security_enabled: true }\n".to_owned();
    house.start(0);
    let status = house.process(0).exit(Duration::from_secs(30)).await;
    assert!(!status.success(), "{}", house.said(0));
    assert!(house.said(0).contains("security.api_keys"), "{}", house.said(0));
    // The mended file becomes the first configuration of the same cluster.
    house.members[0].setup.more =
        format!("security: {{ api_key_required: true, api_keys: [{ROOT}] }}\n");
    house.start(0);
    house.all_ready().await;
    let url = house.url(0, "/api/v1/config");
    let root = Caller::new(ROOT);
    until("the first configuration", PATIENCE, || async {
        root.get(&url).await.1["revision"].as_u64().filter(|revision| *revision > 0)
    })
    .await;
    assert_eq!(Caller::new("").get(&house.url(0, "/api/v1/nodes")).await.0, 401);
}

/// Three members whose file asks for credentials, and the address of the WebSocket of each.
async fn guarded() -> (House, Vec<String>) {
    let mut house = House::build(3, "");
    let mut sockets = Vec::new();
    for member in &mut house.members {
        let socket = free_addr();
        let port = socket.rsplit_once(':').unwrap().1;
        member.setup.more = format!(
            "security:\n  api_key_required: true\n  api_keys: [{ROOT}]\n  users:\n    \
             - {{ username: ada, password_hash: {PASSWORD}, role: operator }}\n\
             websocket: {{ host: 127.0.0.1, port: {port} }}\n"
        );
        sockets.push(socket);
    }
    (0..3).for_each(|place| house.start(place));
    house.all_ready().await;
    // Before there is a replicated configuration, the file's counts.
    let (nobody, root) = (Caller::new(""), Caller::new(ROOT));
    for place in 0..3 {
        assert_eq!(nobody.get(&house.url(place, "/api/v1/nodes")).await.0, 401);
        let url = house.url(place, "/api/v1/config");
        until("the first configuration", PATIENCE, || async {
            root.get(&url).await.1["revision"].as_u64().filter(|revision| *revision > 0)
        })
        .await;
    }
    (house, sockets)
}

async fn leader(house: &House, caller: &Caller) -> usize {
    until("a leader", PATIENCE, || async {
        for place in house.running() {
            let (_, status) = caller.get(&house.url(place, "/api/v1/cluster")).await;
            if status["leader"] == status["member_id"] && status["leader"].is_u64() {
                return Some(place);
            }
        }
        None
    })
    .await
}

#[tokio::test]
async fn logins_and_keys_are_good_on_every_member_and_over_a_failover() {
    let (mut house, _) = guarded().await;
    let root = Caller::new(ROOT);
    let first = leader(&house, &root).await;
    let login = json!({"username": "ada", "password": "correct horse"});
    let nobody = Caller::new("");
    let url = |house: &House, place, path: &str| house.url(place, path);
    let tokens = nobody.post(&url(&house, first, "/api/v1/auth/login"), &login).await;
    let ada = Caller::new(text(&tokens, "/access_token"));
    let made = root.post(&url(&house, first, "/api/v1/auth/api-keys"), &json!({})).await;
    let client = Caller::new(text(&made, "/api_key"));
    for place in 0..3 {
        until("the key on every member", PATIENCE, || async {
            (client.get(&url(&house, place, "/api/v1/tasks")).await.0 == 200).then_some(())
        })
        .await;
        assert_eq!(ada.get(&url(&house, place, "/api/v1/config")).await.0, 200);
        assert_eq!(client.get(&url(&house, place, "/api/v1/config")).await.0, 403);
        assert_eq!(nobody.get(&url(&house, place, "/api/v1/health")).await.0, 200);
    }

    house.kill(first);
    let second = leader(&house, &root).await;
    let third = (0..3).find(|place| ![first, second].contains(place)).unwrap();
    for place in [second, third] {
        assert_eq!(ada.get(&url(&house, place, "/api/v1/config?consistency=local")).await.0, 200);
    }
    // What one member is told, the other knows; a new login has the same secret.
    ada.post(&url(&house, third, "/api/v1/auth/logout"), &json!({})).await;
    until("the logout on another member", PATIENCE, || async {
        (ada.get(&url(&house, second, "/api/v1/config")).await.0 == 401).then_some(())
    })
    .await;
    let again = nobody.post(&url(&house, second, "/api/v1/auth/login"), &login).await;
    let again = Caller::new(text(&again, "/access_token"));
    assert_eq!(again.get(&url(&house, third, "/api/v1/config")).await.0, 200);

    house.start(first);
    house.ready(first).await;
    assert_eq!(ada.get(&url(&house, first, "/api/v1/config")).await.0, 401);
    assert_eq!(again.get(&url(&house, first, "/api/v1/config")).await.0, 200);
    for place in 0..3 {
        let said = house.said(place);
        assert!(!said.contains(ROOT) && !said.contains("correct horse"), "{said}");
    }
    assert!(house.said(third).contains("audit"), "writes of callers are noted");
}

#[tokio::test]
async fn an_account_is_known_on_every_member_at_once_and_over_a_failover() {
    let (mut house, _) = guarded().await;
    let root = Caller::new(ROOT);
    let nobody = Caller::new("");
    let first = leader(&house, &root).await;
    let login = json!({"email": "eve@example.com", "password": "correct horse"});
    let account = json!({"username": "eve", "email": "eve@example.com", "role": "client",
        "password": "correct horse"});
    // The cluster's first login makes the secret, which every member must know before any token.
    let ada = json!({"username": "ada", "password": "correct horse"});
    let tokens = nobody.post(&house.url(first, "/api/v1/auth/login"), &ada).await;
    let ada = Caller::new(text(&tokens, "/access_token"));
    for place in 0..3 {
        until("the secret on every member", PATIENCE, || async {
            (ada.get(&house.url(place, "/auth/me")).await.0 == 200).then_some(())
        })
        .await;
    }
    let url = house.url((first + 1) % 3, "/auth/register");
    let (status, made) = root.ask(Method::POST, &url, &account).await;
    assert_eq!(status, 201, "{made}");
    let mut callers = Vec::new();
    for place in 0..3 {
        // No member is given time to hear of it from the others.
        let tokens = nobody.post(&house.url(place, "/api/v1/auth/login"), &login).await;
        let eve = Caller::new(text(&tokens, "/access_token"));
        for other in 0..3 {
            assert_eq!(eve.get(&house.url(other, "/auth/me")).await.0, 200);
            assert_eq!(eve.get(&house.url(other, "/api/v1/config")).await.0, 403);
        }
        callers.push(eve);
    }
    house.kill(first);
    let second = leader(&house, &root).await;
    let third = (0..3).find(|place| ![first, second].contains(place)).unwrap();
    for eve in &callers {
        let (status, me) = eve.get(&house.url(third, "/auth/me")).await;
        assert_eq!((status, &me["username"]), (200, &json!("eve")), "{me}");
    }
    callers[0].post(&house.url(third, "/api/v1/auth/logout"), &json!({})).await;
    assert_eq!(callers[0].get(&house.url(third, "/auth/me")).await.0, 401);
    assert_eq!(callers[1].get(&house.url(second, "/auth/me")).await.0, 200);
    let again = nobody.post(&house.url(second, "/api/v1/auth/login"), &login).await;
    assert!(again["user"]["last_login"].is_string(), "{again}");
}

#[tokio::test]
async fn contract_2_4_every_member_pushes_the_same_events() {
    let (mut house, sockets) = guarded().await;
    let root = Caller::new(ROOT);
    let mut clients = Vec::new();
    for socket in &sockets {
        let request = format!("ws://{socket}/?token={ROOT}").into_client_request().unwrap();
        let stream = TcpStream::connect(socket).await.unwrap();
        clients.push(tokio_tungstenite::client_async(request, stream).await.unwrap().0);
    }
    let url = house.url(1, "/api/v1/nodes/n-1/register");
    root.post(&url, &json!({"host": "127.0.0.1", "port": 9})).await;
    let mut seen = Vec::new();
    for client in &mut clients {
        let mut types = Vec::new();
        let event = loop {
            let frame = tokio::time::timeout(PATIENCE, client.next()).await.expect("in time");
            let Message::Text(frame) = frame.unwrap().unwrap() else { continue };
            let frame: Value = serde_json::from_str(&frame).unwrap();
            types.push(text(&frame, "/type"));
            // The leader registers the agents that it is itself whenever it comes to it.
            if frame["type"] == "node_registered" && frame["data"]["node_id"] == "n-1" {
                break frame;
            }
        };
        assert_eq!(types[0], "initial_status");
        seen.push(event);
    }
    assert!(seen.iter().all(|event| *event == seen[0]), "{seen:?}");
    let (_, info) = root.get(&house.url(2, "/api/v1/websocket/info")).await;
    assert_eq!(info["websocket"]["url"], format!("ws://{}", sockets[2]));
    assert_eq!(info["websocket"]["connected_clients"], 1);
    // Clients do not keep a member from stopping.
    let started = tokio::time::Instant::now();
    assert!(house.stop(2).await.success());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
