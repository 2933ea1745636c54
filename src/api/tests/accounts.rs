//! Family N's logins (contract 1.4, 1.6, 3.6, C7): accounts, forms, cookies and where they count.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use super::auth::ROOT;
use super::{Answer, World};

const PAGE: (&str, &str) = ("origin", "http://localhost:3000");
const EVIL: (&str, &str) = ("origin", "https://evil.example");

fn account(name: &str) -> String {
    json!({"username": name, "email": format!("{name}@example.com"), "full_name": "A. L.",
        "password": "correct horse"})
    .to_string()
}

fn bearer(tokens: &Value) -> String {
    format!("Bearer {}", tokens["access_token"].as_str().unwrap())
}

async fn log_in(world: &World, name: &str) -> Value {
    let body = json!({"email": name, "password": "correct horse"}).to_string();
    world.post("/api/v1/auth/login", &body).await.ok()
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    let body = answer.json();
    assert_eq!((answer.status.as_u16(), &body["code"]), (status, &json!(code)), "{body}");
    assert!(body["detail"].is_string(), "{body}");
}

#[tokio::test]
async fn contract_3_6_register_login_me_refresh_and_logout() {
    let world = World::new().await;
    let made = world.post("/api/v1/auth/register", &account("ada")).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let made = made.json();
    for (key, value) in [
        ("email", json!("ada@example.com")),
        ("username", json!("ada")),
        ("full_name", json!("A. L.")),
        ("role", json!("guest")),
        ("is_active", json!(true)),
        ("is_verified", json!(false)),
        ("last_login", Value::Null),
    ] {
        assert_eq!(made[key], value, "{key}");
    }
    assert!(made["created_at"].as_str().unwrap().ends_with('Z'));
    // By name or by address, and every token opens the account's own door.
    for name in ["ada", "ADA@example.com"] {
        let tokens = log_in(&world, name).await;
        assert_eq!(
            (&tokens["token_type"], &tokens["expires_in"], &tokens["user"]["id"]),
            (&json!("bearer"), &json!(1800), &made["id"])
        );
        let access = bearer(&tokens);
        for path in ["/auth/me", "/api/auth/me", "/api/v1/auth/me"] {
            let me = world.ask("GET", path, &[("authorization", &access)], "").await.ok();
            assert_eq!((&me["id"], &me["email"]), (&made["id"], &made["email"]));
            assert!(me["last_login"].as_str() >= me["created_at"].as_str(), "{me}");
        }
        let body = json!({"refresh_token": tokens["refresh_token"]}).to_string();
        let renewed = world.post("/auth/refresh?mode=bearer", &body).await.ok();
        assert_eq!(renewed["user"]["username"], "ada");
        // Family N's own door says 204, both families' says 200.
        let out = world.ask("POST", "/auth/logout", &[("authorization", &access)], "").await;
        assert_eq!((out.status.as_u16(), out.text.as_str()), (204, ""));
        assert_eq!(out.headers.get_all("set-cookie").iter().count(), 2);
        let gone = world.ask("GET", "/auth/me", &[("authorization", &access)], "").await;
        refused(&gone, 401, "AUTHENTICATION_FAILED");
        assert_eq!(gone.json()["error"]["type"], "AuthenticationError");
        let over = world.post("/auth/refresh", &body).await;
        refused(&over, 401, "AUTHENTICATION_FAILED");
    }
    refused(&world.get("/auth/me").await, 401, "AUTHENTICATION_FAILED");
}

#[tokio::test]
async fn contract_3_6_a_login_is_one_entry_and_a_refresh_none() {
    let world = World::new().await;
    world.post("/auth/register", &account("ada")).await;
    log_in(&world, "ada").await;
    let newest = || world.cluster.view().applied().unwrap();
    // On a machine that is busy an election may come between, which writes an entry of its own.
    for _ in 0..50 {
        let before = newest();
        let tokens = log_in(&world, "ada").await;
        let after = newest();
        let body = json!({"refresh_token": tokens["refresh_token"]}).to_string();
        world.post("/auth/refresh", &body).await.ok();
        world.ask("GET", "/auth/me", &[("authorization", &bearer(&tokens))], "").await.ok();
        let last = newest();
        if last.leader_id == before.leader_id {
            assert_eq!(after.index, before.index + 1, "its time is noted, and nothing else");
            assert_eq!(last.index, after.index);
            return;
        }
    }
    panic!("one election follows the other");
}

#[tokio::test]
async fn contract_3_6_a_form_is_a_login_too() {
    let world = World::new().await;
    world.post("/auth/register", &account("ada")).await;
    let form = |body: &str| {
        let request = Request::builder().method("POST").uri("/api/v1/auth/token");
        let kind = "application/x-www-form-urlencoded";
        let request = request.header("content-type", kind);
        world.send(request.body(Body::from(body.to_owned())).unwrap())
    };
    let good = "grant_type=password&username=ada%40example.com&password=correct+horse";
    assert_eq!(form(good).await.ok()["user"]["username"], "ada");
    refused(&form("username=ada&password=wrong").await, 401, "AUTHENTICATION_FAILED");
    for wrong in ["", "username=ada", "grant_type=implicit&username=ada&password=x", "{\"a\":1}"] {
        let answer = form(wrong).await;
        refused(&answer, 422, "INVALID_FIELD");
        assert_eq!(answer.json()["error"]["type"], "ValidationError", "{wrong}");
    }
    refused(&form(&"a".repeat(9000)).await, 422, "INVALID_FIELD");
}

#[tokio::test]
async fn contract_1_3_what_is_wrong_with_an_account_is_said_by_field() {
    let world = World::new().await;
    world.post("/auth/register", &account("ada")).await;
    for (field, value) in [
        ("username", json!("a b")),
        ("username", json!("a@b")),
        ("username", json!("x".repeat(65))),
        ("username", Value::Null),
        ("email", json!("nowhere")),
        ("password", json!("short")),
        ("password", json!("x".repeat(1025))),
        ("full_name", json!("x".repeat(201))),
        ("full_name", json!([7])),
        ("role", json!("root")),
    ] {
        let mut body: Value = serde_json::from_str(&account("bob")).unwrap();
        body[field] = value;
        let answer = world.post("/auth/register", &body.to_string()).await;
        refused(&answer, 422, "INVALID_FIELD");
        let place = &answer.json()["error"]["details"]["fields"][0]["field"];
        assert_eq!(place, &json!(format!("body.{field}")));
    }
    for taken in [account("ada"), account("bob").replace("bob@", "ADA@")] {
        let answer = world.post("/auth/register", &taken).await;
        refused(&answer, 409, "ACCOUNT_EXISTS");
        assert_eq!(answer.json()["error"]["type"], "ConflictError");
    }
    assert_eq!(world.cluster.view().read(|state| state.accounts_len()), 1);
    let mode = world.post("/auth/login?mode=page", r#"{"username":"a","password":"b"}"#).await;
    refused(&mode, 422, "INVALID_QUERY");
}

#[tokio::test]
async fn registering_hands_out_no_role_that_no_operator_granted() {
    let world = World::of_roles().await;
    refused(&world.post("/auth/register", &account("eve")).await, 403, "REGISTRATION_CLOSED");
    for key in ["operator-key", "client-key"] {
        let headers = [("x-api-key", key)];
        let answer = world.ask("POST", "/auth/register", &headers, &account("eve")).await;
        refused(&answer, 403, "REGISTRATION_CLOSED");
    }
    let open = r#"{"value":{"enabled":true}}"#;
    world.ask("PUT", "/api/v1/config/security.registration", &[ROOT], open).await.ok();
    let greedy = account("eve").replacen('{', r#"{"role":"admin","#, 1);
    refused(&world.post("/auth/register", &greedy).await, 403, "INSUFFICIENT_PERMISSIONS");
    let made = world.post("/auth/register", &account("eve")).await;
    assert_eq!((made.status.as_u16(), &made.json()["role"]), (201, &json!("guest")));
    let tokens = log_in(&world, "eve").await;
    let access = bearer(&tokens);
    let headers = [("authorization", access.as_str())];
    world.ask("GET", "/auth/me", &headers, "").await.ok();
    let door = |method: &'static str, path: &'static str| world.ask(method, path, &headers, "{}");
    for (method, path) in
        [("GET", "/api/v1/status"), ("GET", "/api/v1/tasks"), ("GET", "/auth/users")]
    {
        refused(&door(method, path).await, 403, "INSUFFICIENT_PERMISSIONS");
    }
    // The operator grants a role to all who registered, or to one; the present one counts at once.
    let client = r#"{"value":"client"}"#;
    world.ask("PUT", "/api/v1/config/security.registration.role", &[ROOT], client).await.ok();
    door("GET", "/api/v1/tasks").await.ok();
    refused(&door("GET", "/orchestrator/state").await, 403, "INSUFFICIENT_PERMISSIONS");
    let granted = world.ask("PATCH", "/auth/users/eve", &[ROOT], r#"{"role":"operator"}"#).await;
    assert_eq!(granted.ok()["role"], "operator");
    door("GET", "/orchestrator/state").await.ok();
    let admin = r#"{"value":"admin"}"#;
    let path = "/api/v1/config/security.registration.role";
    refused(&world.ask("PUT", path, &[ROOT], admin).await, 400, "INVALID_CONFIG");
    // An administrator may give one from the start.
    let boss = account("boss").replacen('{', r#"{"role":"admin","#, 1);
    let made = world.ask("POST", "/auth/register", &[ROOT], &boss).await;
    assert_eq!((made.status.as_u16(), &made.json()["role"]), (201, &json!("admin")));
}

#[tokio::test]
async fn accounts_are_listed_switched_off_and_deleted_with_their_logins() {
    let world = World::of_roles().await;
    for name in ["ada", "bob"] {
        let made = world.ask("POST", "/auth/register", &[ROOT], &account(name)).await;
        assert_eq!(made.status, 201);
    }
    let list = world.ask("GET", "/auth/users?limit=1", &[ROOT], "").await.ok();
    assert_eq!((list["users"].as_array().unwrap().len(), &list["total"]), (1, &json!(2)));
    assert!(!list.to_string().contains("pbkdf2"));
    let tokens = log_in(&world, "ada").await;
    let access = bearer(&tokens);
    let me = || async { world.ask("GET", "/auth/me", &[("authorization", &access)], "").await };
    me().await.ok();
    let off = r#"{"is_active":false}"#;
    world.ask("PATCH", "/auth/users/ada@example.com", &[ROOT], off).await.ok();
    refused(&me().await, 401, "AUTHENTICATION_FAILED");
    let body = r#"{"username":"ada","password":"correct horse"}"#;
    refused(&world.post("/auth/login", body).await, 403, "ACCOUNT_INACTIVE");
    let wrong = r#"{"username":"ada","password":"wrong"}"#;
    refused(&world.post("/auth/login", wrong).await, 401, "AUTHENTICATION_FAILED");
    world.ask("PATCH", "/auth/users/ada", &[ROOT], r#"{"is_active":true}"#).await.ok();
    me().await.ok();
    assert_eq!(world.ask("DELETE", "/auth/users/ada", &[ROOT], "").await.status, 204);
    refused(&me().await, 401, "AUTHENTICATION_FAILED");
    // The name is free again; the old tokens do not open the new account.
    world.ask("POST", "/auth/register", &[ROOT], &account("ada")).await;
    refused(&me().await, 401, "AUTHENTICATION_FAILED");
    let gone = world.ask("DELETE", "/auth/users/nobody", &[ROOT], "").await;
    refused(&gone, 404, "ACCOUNT_NOT_FOUND");
}

#[tokio::test]
async fn a_name_of_the_configuration_is_taken() {
    let users = json!([{"username": "root", "password": "correct horse", "role": "admin"}]);
    let security = json!({"api_keys": ["root-key"], "users": users});
    let world = World::secure(security).await;
    refused(&world.post("/auth/register", &account("root")).await, 409, "ACCOUNT_EXISTS");
    assert_eq!(log_in(&world, "root").await["user"]["role"], "admin");
}

#[tokio::test]
async fn registering_again_under_the_same_key_is_the_same_account() {
    let world = World::new().await;
    let path = "/auth/register";
    let made = world.post_keyed(path, "k", &account("ada")).await;
    let again = world.post_keyed(path, "k", &account("ada")).await;
    assert_eq!((again.status.as_u16(), &again.json()["id"]), (201, &made.json()["id"]));
    let other = world.post_keyed(path, "k", &account("bob")).await;
    refused(&other, 409, "IDEMPOTENCY_KEY_REUSED");
    let used = world.post_keyed("/api/v1/tasks", "t", r#"{"task_type":"t"}"#).await;
    assert_eq!(used.status, 200);
    refused(&world.post_keyed(path, "t", &account("bob")).await, 409, "IDEMPOTENCY_KEY_REUSED");
}

/// The cookies of an answer, as a browser sends them back.
fn jar(answer: &Answer) -> String {
    let cookies = answer.headers.get_all("set-cookie").iter();
    let pairs = cookies.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap());
    pairs.collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn contract_1_6_cookies_change_nothing_for_pages_of_other_origins() {
    let world = World::of_roles().await;
    let boss = account("boss").replacen('{', r#"{"role":"admin","#, 1);
    world.ask("POST", "/auth/register", &[ROOT], &boss).await;
    let login = r#"{"username":"boss","password":"correct horse"}"#;
    let path = "/auth/login?mode=cookie";
    refused(&world.ask("POST", path, &[EVIL], login).await, 403, "ORIGIN_NOT_ALLOWED");
    let page = world.ask("POST", path, &[PAGE, ("x-forwarded-proto", "https")], login).await;
    assert_eq!(page.header("access-control-allow-origin"), PAGE.1);
    assert_eq!(page.header("access-control-allow-credentials"), "true");
    for cookie in page.headers.get_all("set-cookie") {
        let cookie = cookie.to_str().unwrap();
        assert!(cookie.contains("; HttpOnly; SameSite=Lax; ") && cookie.ends_with("; Secure"));
    }
    let jar = jar(&page);
    let cookie = ("cookie", jar.as_str());
    let body = r#"{"task_type":"t"}"#;
    for (origin, status) in [(PAGE, 200), (EVIL, 403), (("origin", "null"), 403)] {
        let answer = world.ask("POST", "/api/v1/tasks", &[cookie, origin], body).await;
        assert_eq!(answer.status, status, "{origin:?}: {}", answer.text);
    }
    // Its own page, and programs that are no browsers.
    let own = [cookie, ("origin", "https://q.example"), ("host", "q.example")];
    world.ask("POST", "/api/v1/tasks", &own, body).await.ok();
    world.ask("POST", "/api/v1/tasks", &[cookie], body).await.ok();
    // A look changes nothing, and the browser keeps its answer from the page.
    let look = world.ask("GET", "/api/v1/tasks", &[cookie, EVIL], "").await;
    assert_eq!((look.status.as_u16(), look.header("access-control-allow-origin")), (200, "*"));
    assert!(look.headers.get("access-control-allow-credentials").is_none());
    // A key beside the cookie is shown on purpose.
    let key = ("x-api-key", "client-key");
    world.ask("POST", "/api/v1/tasks", &[cookie, EVIL, key], body).await.ok();
    for path in ["/auth/refresh", "/auth/refresh?mode=cookie", "/auth/logout"] {
        let answer = world.ask("POST", path, &[cookie, EVIL], "").await;
        refused(&answer, 403, "ORIGIN_NOT_ALLOWED");
    }
    world.ask("POST", "/auth/refresh?mode=cookie", &[cookie, PAGE], "").await.ok();
    assert_eq!(world.ask("POST", "/auth/logout", &[cookie, PAGE], "").await.status, 204);
    let over = world.ask("POST", "/auth/refresh", &[cookie, PAGE], "").await;
    refused(&over, 401, "AUTHENTICATION_FAILED");
}
