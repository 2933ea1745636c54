//! Who may come in, as whom, and what they may do: contract 1.4, 1.5, 1.6, 2.12.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::connect_info::ConnectInfo;
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{Answer, World};
use crate::api::auth::listed;
use crate::api::{Admin, ApiOptions, Peer};
use crate::security::AdminKey;

pub(super) const ROOT: (&str, &str) = ("x-api-key", "root-key");

impl World {
    pub(super) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    async fn ask_from(&self, address: &str, method: &str, path: &str, body: &str) -> Answer {
        let peer = Peer(SocketAddr::new(address.parse().unwrap(), 4711));
        let mut request = Request::builder().method(method).uri(path);
        request = request.extension(ConnectInfo(peer));
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub(super) async fn secure(security: Value) -> Self {
        let world = Self::new().await;
        world.call("PUT", "/api/v1/config", &json!({"security": security}).to_string()).await.ok();
        world
    }

    /// A world with a key for every role, named as the role is.
    pub(super) async fn of_roles() -> Self {
        let key = |role: &str| json!({"key": format!("{role}-key"), "role": role, "user_id": role});
        let keys = ["operator", "node", "client", "readonly"].map(key);
        let mut keys = Vec::from(keys);
        keys.push(json!("root-key"));
        Self::secure(json!({"api_key_required": true, "api_keys": keys})).await
    }

    pub(super) fn document(&self) -> String {
        self.cluster.view().read(|state| state.config().text.clone())
    }
}

#[track_caller]
pub(super) fn refused(answer: &Answer, status: u16, error: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    let body = answer.json();
    assert_eq!((&body["success"], &body["error"]), (&json!(false), &json!(error)));
}

#[tokio::test]
async fn contract_1_4_off_by_default() {
    let world = World::new().await;
    for headers in [&[][..], &[("x-api-key", "whatever")], &[("authorization", "Bearer x")]] {
        let answer = world.ask("GET", "/api/v1/nodes", headers, "").await;
        assert_eq!(answer.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn contract_1_4_every_form_of_credentials() {
    let world = World::of_roles().await;
    for headers in [
        ("x-api-key", "root-key"),
        ("authorization", "Bearer root-key"),
        ("authorization", "ApiKey root-key"),
    ] {
        world.ask("GET", "/api/v1/nodes", &[headers], "").await.ok();
    }
    let none = world.get("/api/v1/nodes").await;
    refused(&none, 401, "Authentication required");
    assert_eq!(none.header("www-authenticate"), "Bearer");
    let body = none.json();
    assert_eq!(
        (&body["code"], &body["details"]["code"]),
        (&json!("AUTHENTICATION_FAILED"), &json!("AUTHENTICATION_FAILED"))
    );
    let wrong = world.ask("GET", "/api/v1/nodes", &[("x-api-key", "wrong")], "").await;
    refused(&wrong, 401, "Invalid API key");
    let cookie = ("cookie", "orion_access_token=eyJ.x.y");
    refused(&world.ask("GET", "/api/v1/nodes", &[cookie], "").await, 401, "Invalid token");
}

#[tokio::test]
async fn contract_1_4_what_stays_open() {
    let world = World::of_roles().await;
    for path in [
        "/",
        "/livez",
        "/readyz",
        "/health",
        "/api/v1/health",
        "/metrics",
        "/api/v1/metrics/prometheus",
    ] {
        assert_eq!(world.get(path).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(world.call("OPTIONS", "/api/v1/tasks", "").await.status, StatusCode::OK);
    assert_eq!(world.get("/nowhere").await.status, StatusCode::NOT_FOUND);
    let empty = world.post("/api/v1/auth/login", "{}").await;
    assert_eq!(empty.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn contract_1_4_roles_and_their_permissions() {
    let world = World::of_roles().await;
    let task = r#"{"task_type":"t"}"#;
    // Who may: root always; then operator, node, client, readonly.
    for (method, path, body, may) in [
        ("GET", "/api/v1/status", "", [true, true, true, true]),
        ("GET", "/api/v1/tasks", "", [true, false, true, true]),
        ("POST", "/api/v1/tasks", task, [true, false, true, false]),
        ("DELETE", "/api/v1/tasks/none", "", [true, false, false, false]),
        ("GET", "/api/v1/nodes", "", [true, false, true, true]),
        ("POST", "/api/v1/nodes/n/register", r#"{"host":"h"}"#, [true, true, false, false]),
        ("POST", "/api/v1/nodes/n/heartbeat", "{}", [true, true, false, false]),
        ("POST", "/api/v1/tasks/none/result", r#"{"result":1}"#, [true, true, false, false]),
        ("GET", "/api/v1/config", "", [true, false, false, true]),
        ("PUT", "/api/v1/config", r#"{"a":1}"#, [false, false, false, false]),
        ("POST", "/api/v1/cluster/snapshot", "", [true, false, false, false]),
        ("DELETE", "/api/v1/cluster/members/77", "", [false, false, false, false]),
        ("GET", "/api/v1/auth/api-keys", "", [false, false, false, false]),
        ("DELETE", "/api/v1/nodes/none", "", [true, false, false, false]),
        ("GET", "/bots/stats", "", [true, false, true, true]),
        ("POST", "/api/v1/bots", "{}", [true, false, true, false]),
        ("POST", "/swarms", r#"{"count":1}"#, [true, false, true, false]),
        ("PATCH", "/swarms/none", "{}", [true, false, false, false]),
        ("POST", "/bots/leases", "{}", [true, true, false, false]),
        ("GET", "/bots/none/tasks", "", [true, true, true, true]),
        ("GET", "/api/v1/swarms/none/health", "", [true, true, true, true]),
        ("POST", "/api/v1/assignments/complete", "{}", [true, true, false, false]),
        ("POST", "/orchestrate", r#"{"tasks":[]}"#, [true, false, true, false]),
        ("DELETE", "/workflows/none", "", [true, false, false, false]),
    ] {
        for (role, may) in ["operator", "node", "client", "readonly"].iter().zip(may) {
            let key = format!("{role}-key");
            let answer = world.ask(method, path, &[("x-api-key", &key)], body).await;
            if may {
                assert!(answer.status != 401 && answer.status != 403, "{role} {method} {path}");
            } else {
                refused(&answer, 403, "Insufficient permissions");
            }
        }
        let root = world.ask(method, path, &[ROOT], body).await;
        assert!(root.status != 401 && root.status != 403, "root {method} {path}");
    }
}

/// Who may not read nodes was shown all of them in the status.
#[tokio::test]
async fn contract_1_4_the_status_shows_nodes_to_those_who_may_read_them() {
    let world = World::of_roles().await;
    let body = r#"{"host":"h"}"#;
    world.ask("POST", "/api/v1/nodes/n1/register", &[ROOT], body).await.ok();
    for (role, sees) in [("operator", true), ("node", false), ("client", true)] {
        let key = format!("{role}-key");
        let answer =
            world.ask("GET", "/api/v1/status?nodes=map", &[("x-api-key", &key)], "").await.ok();
        assert_eq!(answer["data"]["nodes"]["n1"]["node_id"] == "n1", sees, "{role}: {answer}");
    }
}

/// Every method that a route serves must stand in the table of needs.
#[tokio::test]
async fn contract_1_4_every_route_has_its_permission() {
    let world = World::new().await;
    // Whoever asks for a run waits for its end.
    world.play_steps();
    let mut paths = world.app.stats().paths();
    paths.retain(|path| *path != "unmatched");
    assert!(paths.len() > 40, "the routes are where this test looks for them");
    let mut missing = Vec::new();
    for path in paths {
        // What fills a parameter is no id of anything.
        let mut uri = path.replace("{*", "{");
        while let (Some(start), Some(end)) = (uri.find('{'), uri.find('}')) {
            uri.replace_range(start..=end, "0none");
        }
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let request = Request::builder().method(&method).uri(&uri).body(Body::empty()).unwrap();
            let response = world.router.clone().oneshot(request).await.unwrap();
            let is_served = response.status() != StatusCode::METHOD_NOT_ALLOWED;
            if is_served && listed(method.as_str(), path).is_none() {
                missing.push(format!("{method} {path}"));
            }
        }
    }
    assert!(missing.is_empty(), "no permission in src/api/auth/needs.rs for {missing:?}");
}

#[tokio::test]
async fn contract_2_12_secrets_are_hashed_before_they_are_stored() {
    let world = World::new().await;
    let secret = "hidden-and-long-enough-to-show-a-part-of-it";
    let keys = json!([secret, {"key": "hidden-2", "role": "node", "name": "rack"}]);
    for (path, body) in [
        ("/api/v1/config", json!({"security": {"api_keys": keys}})),
        ("/api/v1/config/security", json!({"value": {"api_keys": keys}})),
        ("/api/v1/config/security.api_keys", json!({"value": keys})),
        ("/api/v1/config/security/api_keys", json!({"value": keys})),
        (
            "/api/v1/config/security.users",
            json!({"value": [
                {"username": "ada", "password": "hidden-pw"}
            ]}),
        ),
    ] {
        let answer = world.call("PUT", path, &body.to_string()).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        assert!(!answer.text.contains("hidden-") || answer.text.contains("hidden-and-long-enou"));
        assert!(!answer.text.contains("hidden-2") && !answer.text.contains(secret), "{path}");
        let document = world.document();
        assert!(!document.contains(secret) && !document.contains("hidden-2"), "{path}");
        assert!(!document.contains("hidden-pw"), "{path}");
    }
    let shown = world.get("/api/v1/config").await.ok();
    let security = &shown["config"]["security"];
    assert_eq!(security["api_keys"][0]["hash"], "********");
    assert_eq!(security["api_keys"][0]["prefix"], "hidden-and-long-enou");
    assert_eq!(security["api_keys"][1]["name"], "rack");
    assert_eq!(security["users"][0]["password_hash"], "********");
    // What was shown may be sent back as a whole: nothing of it is lost.
    let before = world.document();
    world.call("PUT", "/api/v1/config", &shown["config"].to_string()).await.ok();
    assert_eq!(world.document(), before);
    for wrong in [
        json!({"security": {"api_keys": {"0": "hidden-3"}}}),
        json!({"security": {"allowed_ips": ["hidden-net"]}}),
        json!({"security": {"users": [{"username": "x"}]}}),
    ] {
        let answer = world.call("PUT", "/api/v1/config", &wrong.to_string()).await;
        assert_eq!(answer.json()["details"]["code"], "INVALID_CONFIG", "{wrong}");
    }
    assert_eq!(world.document(), before);
}

#[tokio::test]
async fn nobody_is_locked_out_by_mistake() {
    let world = World::new().await;
    for (path, body) in [
        ("/api/v1/config", json!({"security": {"api_key_required": true}})),
        ("/api/v1/config/security.api_key_required", json!({"value": true})),
        ("/api/v1/config/orchestrator", json!({"value": {"security_enabled": true}})),
        (
            "/api/v1/config/security",
            json!({"value": {"api_key_required": true, "api_keys": [{"key": "k"}]}}),
        ),
    ] {
        let answer = world.call("PUT", path, &body.to_string()).await;
        assert_eq!(answer.json()["code"], "INVALID_CONFIG", "{path}");
        assert!(answer.json()["error"].as_str().unwrap().contains("nobody could administer"));
    }
    let out = json!({"value": ["10.0.0.0/8"]}).to_string();
    let path = "/api/v1/config/security.allowed_ips";
    let answer = world.ask_from("192.168.0.1", "PUT", path, &out).await;
    assert!(answer.json()["error"].as_str().unwrap().contains("your own address"));
    // With the key of administrators there is another way in.
    let admin_key = AdminKey::new("sixteen letters!");
    let world = World::with(ApiOptions { admin_key, ..ApiOptions::default() }).await;
    let body = json!({"security": {"api_key_required": true}}).to_string();
    world.call("PUT", "/api/v1/config", &body).await.ok();
    refused(&world.get("/api/v1/nodes").await, 401, "Authentication required");
    let admin = [("x-quorate-admin-key", "sixteen letters!")];
    world.ask("GET", "/api/v1/nodes", &admin, "").await.ok();
    let wrong = [("x-quorate-admin-key", "sixteen lettres!")];
    refused(&world.ask("GET", "/api/v1/nodes", &wrong, "").await, 401, "Authentication required");
}

#[tokio::test]
async fn the_doors_of_administrators_keep_their_own_key() {
    let (admin_key, admin) =
        (AdminKey::new("sixteen letters!"), Admin { drills: true, ..Admin::default() });
    let world = World::with(ApiOptions { admin_key, admin, ..ApiOptions::default() }).await;
    let body = json!({"security": {"api_key_required": true, "api_keys": ["root-key"]}});
    world.call("PUT", "/api/v1/config", &body.to_string()).await.ok();
    let path = "/api/v1/admin/drills";
    refused(&world.get(path).await, 401, "Authentication required");
    let alone = world.ask("GET", path, &[ROOT], "").await;
    assert!(alone.status.is_client_error(), "{}", alone.text);
    assert_ne!(alone.status, StatusCode::NOT_FOUND);
    let both = [ROOT, ("x-quorate-admin-key", "sixteen letters!")];
    world.ask("GET", path, &both, "").await.ok();
}

#[tokio::test]
async fn contract_1_5_rates_are_limited_only_where_an_operator_says_so() {
    let world = World::new().await;
    let free = world.get("/api/v1/status").await;
    assert!(free.headers.get("x-ratelimit-limit").is_none());
    let security = json!({"rate_limiting": true, "max_requests_per_minute": 3, "api_keys": [
        {"key": "fast", "rate_limit_per_minute": 1000}
    ]});
    let body = json!({"security": security}).to_string();
    world.call("PUT", "/api/v1/config", &body).await.ok();
    let ask = async |address: &str| world.ask_from(address, "GET", "/api/v1/status", "").await;
    for left in ["2", "1", "0"] {
        let answer = ask("10.0.0.1").await;
        assert_eq!(answer.header("x-ratelimit-remaining"), left);
        assert_eq!(answer.header("x-ratelimit-limit"), "3");
        assert!(answer.header("x-ratelimit-reset").parse::<u64>().unwrap() > 1_600_000_000);
        answer.ok();
    }
    let over = ask("10.0.0.1").await;
    refused(&over, 429, "Rate limit exceeded");
    assert_eq!(over.json()["details"]["code"], "RATE_LIMITED");
    assert!((1..=20).contains(&over.header("retry-after").parse::<u64>().unwrap()));
    assert_eq!(over.header("x-ratelimit-remaining"), "0");
    ask("10.0.0.2").await.ok();
    // Health and figures are not counted, a key with a limit of its own is.
    for _ in 0..5 {
        world.ask_from("10.0.0.1", "GET", "/api/v1/health", "").await.ok();
    }
    let fast = world.ask("GET", "/api/v1/status", &[("x-api-key", "fast")], "").await;
    assert_eq!(fast.header("x-ratelimit-limit"), "1000");
}

#[tokio::test]
async fn contract_2_12_allowed_ips_keep_others_out() {
    let world = World::new().await;
    let body = json!({"security": {"allowed_ips": ["10.0.0.0/8"]}}).to_string();
    world.ask_from("10.1.1.1", "PUT", "/api/v1/config", &body).await.ok();
    world.ask_from("10.1.1.1", "GET", "/api/v1/nodes", "").await.ok();
    for answer in [
        world.ask_from("192.168.0.1", "GET", "/api/v1/nodes", "").await,
        world.get("/api/v1/nodes").await,
        world.get("/nowhere").await,
    ] {
        refused(&answer, 403, "Address not allowed");
    }
    world.ask_from("192.168.0.1", "GET", "/api/v1/health", "").await.ok();
}

#[tokio::test]
async fn contract_1_6_origins_with_cookies_are_echoed() {
    let world = World::new().await;
    let from = async |world: &World, origin: &str| {
        world.ask("GET", "/api/v1/nodes", &[("origin", origin)], "").await
    };
    let page = from(&world, "http://localhost:3000").await;
    assert_eq!(page.header("access-control-allow-origin"), "http://localhost:3000");
    assert_eq!(page.header("access-control-allow-credentials"), "true");
    assert_eq!(page.header("vary"), "Origin");
    let other = from(&world, "https://other.example").await;
    assert_eq!(other.header("access-control-allow-origin"), "*");
    assert!(other.headers.get("access-control-allow-credentials").is_none());
    let body = json!({"security": {"cors_origins": ["https://own.example"]}}).to_string();
    world.call("PUT", "/api/v1/config", &body).await.ok();
    let own = from(&world, "https://own.example").await;
    assert_eq!(own.header("access-control-allow-origin"), "https://own.example");
    for origin in ["https://other.example", "http://localhost:3000"] {
        assert!(from(&world, origin).await.headers.get("access-control-allow-origin").is_none());
    }
    let preflight = [("origin", "https://own.example")];
    let preflight = world.ask("OPTIONS", "/api/v1/tasks", &preflight, "").await;
    assert_eq!(preflight.header("access-control-allow-origin"), "https://own.example");
    let off = json!({"value": false}).to_string();
    world.call("PUT", "/api/v1/config/security.cors_enabled", &off).await.ok();
    let own = from(&world, "https://own.example").await;
    assert!(own.headers.get("access-control-allow-origin").is_none());
}

#[tokio::test]
async fn writes_carry_the_name_of_their_caller() {
    use crate::api::App;
    use crate::api::ticket::Caller;
    use axum::extract::FromRequestParts as _;
    let world = World::of_roles().await;
    let app: App = world.app.clone();
    let access = app.access().unwrap();
    let credentials =
        crate::security::Credentials { api_key: Some("node-key"), ..Default::default() };
    let need = crate::api::Need::Known;
    let pass = app.authorize(&access, &credentials, None, need).unwrap();
    let mut request = Request::new(());
    request.extensions_mut().insert(pass.principal.unwrap());
    let (mut parts, ()) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &()).await.unwrap();
    assert_eq!(caller.0, "node");
}

#[tokio::test]
async fn no_door_stands_open_before_the_first_configuration() {
    let document = json!({"security": {"api_key_required": true, "api_keys": ["root-key"],
        "users": [{"username": "ada", "password": "pw"}]}});
    let world = World::with(ApiOptions { document, ..ApiOptions::default() }).await;
    refused(&world.get("/api/v1/nodes").await, 401, "Authentication required");
    world.ask("GET", "/api/v1/nodes", &[ROOT], "").await.ok();
    // From the first revision on, the replicated configuration counts and nothing else.
    let body = r#"{"security":{"api_key_required":false}}"#;
    world.ask("PUT", "/api/v1/config", &[ROOT], body).await.ok();
    world.get("/api/v1/nodes").await.ok();
}
