//! The WebSocket: contract 2.3 (websocket/info), 2.4, 2.12 (websocket.*).

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::World;
use crate::api::{ApiOptions, websocket_router};
use crate::model::{NodeId, NodeStatus};
use crate::state::{Command, NodeObservation};

const PATIENCE: Duration = Duration::from_secs(30);

/// A listener that serves `router`, and its address.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// One client.
struct Client(WebSocketStream<TcpStream>);

impl Client {
    async fn open(address: &str, path: &str, key: Option<&str>) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        if let Some(key) = key {
            request.headers_mut().insert("x-api-key", key.parse().unwrap());
        }
        let (client, _) = tokio_tungstenite::client_async(request, stream).await?;
        Ok(Self(client))
    }

    /// Takes its leave; gives whether that is answered before the connection goes.
    async fn leave(mut self) -> bool {
        self.0.close(None).await.unwrap();
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.expect("in time") {
                Some(Ok(Message::Close(_))) => return true,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return false,
            }
        }
    }

    /// The next frame that says something.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("in time");
            match message? {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn expect(&mut self, r#type: &str) -> Value {
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("closed before {type}"));
            if frame["type"] == r#type {
                return frame;
            }
            // A status may come in between.
            assert_eq!(frame["type"], "network_status", "{frame}");
        }
    }

    async fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    async fn close_code(mut self) -> Option<u16> {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.expect("in time")? {
                Ok(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}

fn refused(opened: Result<Client, Error>) -> (u16, Value) {
    match opened {
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            (response.status().as_u16(), serde_json::from_slice(&body).unwrap_or_default())
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[tokio::test]
async fn a_client_that_takes_its_leave_is_answered() {
    let world = World::new().await;
    let address = serve(world.router.clone()).await;
    let mut client = Client::open(&address, "/ws", None).await.unwrap();
    client.expect("initial_status").await;
    assert!(client.leave().await);
}

#[tokio::test]
async fn contract_2_4_the_first_frame_is_the_status() {
    let world = World::new().await;
    world.register("n1").await;
    let address = serve(world.router.clone()).await;
    let mut client = Client::open(&address, "/ws", None).await.unwrap();
    let first = client.next().await.unwrap();
    assert_eq!(first["type"], "initial_status");
    assert!(first.get("timestamp").is_none());
    let mut status = world.get("/api/v1/status").await.ok()["data"].take();
    let mut data = first["data"].clone();
    for moving in ["timestamp", "uptime", "network_metrics"] {
        assert!(data[moving].take() != Value::Null, "{moving}");
        status[moving].take();
    }
    assert_eq!(data, status);
}

#[tokio::test]
async fn contract_2_4_events_reach_every_client_in_the_same_words() {
    let world = World::new().await;
    let address = serve(websocket_router(world.app.clone())).await;
    // The listener of its own serves at the root, as family W's does.
    let mut one = Client::open(&address, "/", None).await.unwrap();
    let mut other = Client::open(&address, "/ws", None).await.unwrap();
    one.expect("initial_status").await;
    other.expect("initial_status").await;
    world.register("n1").await;
    world.submit("t1").await;
    world.call("DELETE", "/api/v1/tasks/t1", "").await.ok();
    let observation = NodeObservation {
        node_id: NodeId::trusted("n1"),
        seen: NodeStatus::Active,
        status: NodeStatus::Offline,
        load: None,
    };
    let observations = vec![observation];
    world.commit(Command::ObserveNodes { epoch: world.epoch, observations }).await;
    for (r#type, data) in [
        ("node_registered", json!({"node_id": "n1"})),
        ("task_submitted", json!({"task_id": "t1"})),
        (
            "task_completed",
            json!({"task_id": "t1", "status": "cancelled", "node_id": null, "attempt": 0}),
        ),
        ("node_failure", json!({"node_id": "n1", "old_status": "active", "status": "offline"})),
    ] {
        let frame = one.expect(r#type).await;
        assert_eq!(frame["data"], data);
        assert!(frame["timestamp"].is_f64() && frame["id"].is_string(), "{frame}");
        assert_eq!(other.expect(r#type).await, frame);
    }
}

#[tokio::test]
async fn contract_2_4_a_status_comes_every_five_seconds() {
    let world = World::new().await;
    let address = serve(world.router.clone()).await;
    let mut client = Client::open(&address, "/ws", None).await.unwrap();
    client.expect("initial_status").await;
    let frame = client.next().await.unwrap();
    assert_eq!(frame["type"], "network_status");
    assert!(frame["timestamp"].as_f64().unwrap() > 1e9);
    assert!(frame["data"]["nodes"].is_object());
}

#[tokio::test]
async fn contract_2_4_questions_are_answered() {
    let world = World::new().await;
    world.register("n1").await;
    let address = serve(world.router.clone()).await;
    let mut client = Client::open(&address, "/ws", None).await.unwrap();
    client.expect("initial_status").await;
    client.say(r#"{"type":"subscribe_to_alerts"}"#).await;
    let confirmed = client.expect("subscription_confirmed").await;
    assert_eq!(confirmed["subscription"], "alerts");
    assert!(confirmed["timestamp"].is_f64());
    client.say(r#"{"type":"request_node_details","node_id":"n1"}"#).await;
    let details = client.expect("node_details").await;
    assert_eq!((&details["node_id"], &details["data"]["host"]), (&json!("n1"), &json!("h")));
    client.say(r#"{"type":"request_node_details","node_id":"none"}"#).await;
    assert_eq!(client.expect("node_details").await["data"], Value::Null);
    client.say("{").await;
    let error = client.expect("error").await;
    assert_eq!(error, json!({"type": "error", "message": "Invalid JSON message"}));
    // Anything else is ignored, and the connection lives on.
    client.say(r#"{"type":"hello"}"#).await;
    client.say(r#"{"type":"subscribe_to_alerts"}"#).await;
    client.expect("subscription_confirmed").await;
}

#[tokio::test]
async fn contract_2_12_clients_are_bounded_and_counted() {
    let world = World::new().await;
    let body = r#"{"websocket":{"max_connections":2}}"#;
    world.call("PUT", "/api/v1/config", body).await.ok();
    let address = serve(world.router.clone()).await;
    let one = Client::open(&address, "/ws", None).await.unwrap();
    let _two = Client::open(&address, "/ws", None).await.unwrap();
    let info = async || world.get("/api/v1/websocket/info").await.ok()["websocket"].take();
    assert_eq!(info().await["connected_clients"], 2);
    let (status, body) = refused(Client::open(&address, "/ws", None).await);
    assert_eq!((status, &body["code"]), (503, &json!("TOO_MANY_CLIENTS")));
    drop(one);
    let free = async {
        while info().await["connected_clients"] != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.unwrap();
    let mut three = Client::open(&address, "/ws", None).await.unwrap();
    three.expect("initial_status").await;
}

#[tokio::test]
async fn contract_2_3_websocket_info_is_honest() {
    let info = async |world: &World| {
        let request = Request::builder().uri("/api/v1/websocket/info");
        let request = request.header("host", "q.example:9000");
        world.send(request.body(Body::empty()).unwrap()).await.ok()
    };
    let world = World::new().await;
    let expected = json!({"success": true, "websocket": {"enabled": true,
        "url": "ws://q.example:9000/ws", "connected_clients": 0, "max_connections": 100}});
    assert_eq!(info(&world).await, expected);
    let body = r#"{"websocket":{"enabled":false}}"#;
    world.call("PUT", "/api/v1/config", body).await.ok();
    assert_eq!(info(&world).await["websocket"]["enabled"], false);
    let address = serve(world.router.clone()).await;
    let (status, body) = refused(Client::open(&address, "/ws", None).await);
    assert_eq!((status, &body["code"]), (404, &json!("WEBSOCKET_OFF")));
    let options = ApiOptions { websocket_port: Some(9001), ..ApiOptions::default() };
    let world = World::with(options).await;
    assert_eq!(info(&world).await["websocket"]["url"], "ws://q.example:9001");
}

#[tokio::test]
async fn without_an_upgrade_there_is_an_answer() {
    let world = World::new().await;
    let answer = world.get("/ws").await;
    assert!(answer.status.is_client_error(), "{}", answer.status);
    assert_eq!(answer.json()["code"], "WEBSOCKET_EXPECTED");
    let answer = world.post("/ws", "").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn contract_1_4_the_websocket_asks_for_credentials_too() {
    let world = World::new().await;
    let keys = json!(["root-key", {"key": "node-key", "role": "node"}]);
    let security = json!({"security": {"api_key_required": true, "api_keys": keys}});
    world.call("PUT", "/api/v1/config", &security.to_string()).await.ok();
    let address = serve(websocket_router(world.app.clone())).await;
    for path in ["/", "/ws", "/ws?token=wrong", "/?api_key="] {
        let (status, body) = refused(Client::open(&address, path, None).await);
        assert_eq!((status, &body["success"]), (401, &json!(false)), "{path}");
    }
    for (path, key) in [
        ("/", Some("root-key")),
        ("/ws", Some("root-key")),
        ("/?token=root-key", None),
        ("/ws?api_key=root%2Dkey", None),
    ] {
        let mut client = Client::open(&address, path, key).await.unwrap();
        client.expect("initial_status").await;
    }
    // A node sees figures, but not other nodes.
    let mut node = Client::open(&address, "/ws", Some("node-key")).await.unwrap();
    node.expect("initial_status").await;
    node.say(r#"{"type":"request_node_details","node_id":"n1"}"#).await;
    assert_eq!(node.expect("error").await["message"], "Insufficient permissions");
}

#[tokio::test]
async fn whoever_loses_its_key_loses_its_connection() {
    let world = World::new().await;
    let security = json!({"security": {"api_key_required": true,
        "api_keys": ["root-key", {"key": "gone", "role": "client"}]},
        "websocket": {"ping_interval": 0.1}});
    world.call("PUT", "/api/v1/config", &security.to_string()).await.ok();
    let address = serve(world.router.clone()).await;
    let mut client = Client::open(&address, "/ws", Some("gone")).await.unwrap();
    client.expect("initial_status").await;
    let body = r#"{"security":{"api_keys":["root-key"]}}"#;
    let request = Request::builder().method("PUT").uri("/api/v1/config");
    let request = request.header("x-api-key", "root-key").body(Body::from(body)).unwrap();
    world.send(request).await.ok();
    assert_eq!(client.close_code().await, Some(1008));
}

#[tokio::test]
async fn a_silent_client_is_given_up_and_a_living_one_is_not() {
    let world = World::new().await;
    let body = r#"{"websocket":{"ping_interval":0.1,"ping_timeout":0.1}}"#;
    world.call("PUT", "/api/v1/config", body).await.ok();
    let address = serve(world.router.clone()).await;
    let mut living = Client::open(&address, "/ws", None).await.unwrap();
    let silent = Client::open(&address, "/ws", None).await.unwrap();
    living.expect("initial_status").await;
    // Whoever reads answers pings by itself; the other one does not read.
    let still_there = tokio::time::timeout(Duration::from_secs(1), living.next()).await;
    assert!(still_there.is_err(), "{still_there:?}");
    assert_eq!(silent.close_code().await, Some(1008));
}

#[tokio::test]
async fn a_client_that_is_too_slow_is_told_what_it_missed_and_dropped() {
    let world = World::new().await;
    let address = serve(world.router.clone()).await;
    let mut slow = Client::open(&address, "/ws", None).await.unwrap();
    slow.expect("initial_status").await;
    // More at once than may wait for one client, who gets no turn in between.
    for _ in 0..2000 {
        world.app.hub().say(r#"{"type":"network_status"}"#);
    }
    let gap = slow.expect("gap").await;
    assert!(gap["data"]["missed"].as_u64().unwrap() >= 900, "{gap}");
    assert_eq!(slow.close_code().await, Some(1013));
    // It may come back.
    Client::open(&address, "/ws", None).await.unwrap().expect("initial_status").await;
}

#[tokio::test]
async fn clients_are_told_when_the_member_stops() {
    let world = World::new().await;
    let address = serve(world.router.clone()).await;
    let mut client = Client::open(&address, "/ws", None).await.unwrap();
    client.expect("initial_status").await;
    world.app.close();
    assert_eq!(client.close_code().await, Some(1001));
}
