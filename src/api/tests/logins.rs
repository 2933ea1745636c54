//! API keys and logins: contract 1.4, 2.3, C7.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::World;
use super::auth::{ROOT, refused};

#[tokio::test]
async fn contract_2_3_api_keys_are_made_listed_and_deleted() {
    let world = World::of_roles().await;
    let path = "/api/v1/auth/api-keys";
    let made = world.ask("POST", path, &[ROOT], "").await.ok();
    let key = made["api_key"].as_str().unwrap().to_owned();
    assert!(key.starts_with("web4ai_") && key.len() == 50, "{key}");
    assert!(made["message"].is_string() && !world.document().contains(&key));
    let body = r#"{"role":"readonly","name":"board","expires_days":1.5,"user_id":"wall"}"#;
    let board = world.ask("POST", path, &[ROOT], body).await.ok();
    assert_eq!(
        (&board["key"]["role"], &board["key"]["user_id"]),
        (&json!("readonly"), &json!("wall"))
    );
    world.ask("POST", "/api/v1/tasks", &[("x-api-key", &key)], r#"{"task_type":"t"}"#).await.ok();
    let list = world.ask("GET", path, &[ROOT], "").await.ok();
    let keys = list["api_keys"].as_array().unwrap();
    assert_eq!((keys.len(), &list["total"]), (7, &json!(7)));
    let shown = keys.iter().find(|shown| shown["hash"] == made["key"]["hash"]).unwrap();
    assert_eq!(shown["api_key"], format!("{}...", &key[..20]));
    assert_eq!((&shown["role"], &shown["name"]), (&json!("client"), &json!("")));
    assert_eq!(shown["usage_count"], 1);
    assert!(shown["last_used"].as_str().unwrap().ends_with('Z'));
    let unused = keys.iter().find(|shown| shown["name"] == "board").unwrap();
    assert_eq!((&unused["usage_count"], &unused["last_used"]), (&json!(0), &Value::Null));
    assert!(!list.to_string().contains(&key) && unused["expires_at"].is_string());

    let prefix = &key[..20];
    world.ask("DELETE", &format!("{path}/{prefix}"), &[ROOT], "").await.ok();
    let gone = world.ask("GET", "/api/v1/status", &[("x-api-key", &key)], "").await;
    refused(&gone, 401, "Invalid API key");
    let again = world.ask("DELETE", &format!("{path}/{prefix}"), &[ROOT], "").await;
    refused(&again, 404, "API key not found");
    let hash = board["key"]["hash"].as_str().unwrap();
    world.ask("DELETE", &format!("{path}/{hash}"), &[ROOT], "").await.ok();
    for body in [r#"{"role":"root"}"#, r#"{"expires_days":0}"#, "[]", "{"] {
        let answer = world.ask("POST", path, &[ROOT], body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
    }
}

#[tokio::test]
async fn the_last_key_of_an_admin_stays() {
    let keys = json!(["root-key"]);
    let world = World::secure(json!({"api_key_required": true, "api_keys": keys})).await;
    let path = "/api/v1/auth/api-keys";
    let list = world.ask("GET", path, &[ROOT], "").await.ok();
    let hash = list["api_keys"][0]["hash"].as_str().unwrap();
    let last = world.ask("DELETE", &format!("{path}/{hash}"), &[ROOT], "").await;
    assert_eq!(last.json()["code"], "INVALID_CONFIG");
    world.ask("POST", path, &[ROOT], r#"{"role":"admin"}"#).await.ok();
    world.ask("DELETE", &format!("{path}/{hash}"), &[ROOT], "").await.ok();
}

#[tokio::test]
async fn keys_made_at_the_same_time_are_all_kept() {
    let world = World::of_roles().await;
    let path = "/api/v1/auth/api-keys";
    let made = (0..5).map(|_| world.ask("POST", path, &[ROOT], "{}"));
    for answer in futures::future::join_all(made).await {
        answer.ok();
    }
    let list = world.ask("GET", path, &[ROOT], "").await.ok();
    assert_eq!(list["total"], 10);
}

#[tokio::test]
async fn a_key_is_shown_once_even_to_who_asks_again() {
    let world = World::of_roles().await;
    let headers = [ROOT, ("idempotency-key", "new-key-7")];
    let path = "/api/v1/auth/api-keys";
    world.ask("POST", path, &headers, "{}").await.ok();
    let again = world.ask("POST", path, &headers, "{}").await;
    assert_eq!(
        (again.status, &again.json()["code"]),
        (StatusCode::CONFLICT, &json!("IDEMPOTENCY_KEY_REUSED"))
    );
    let list = world.ask("GET", path, &[ROOT], "").await.ok();
    assert_eq!(list["total"], 6);
}

async fn with_users() -> World {
    World::secure(json!({"api_key_required": true, "users": [
        {"username": "ada", "password": "pw-1", "role": "admin", "user_id": "u-1"},
        {"username": "bob@example.com", "password": "pw-2", "role": "client"}
    ]}))
    .await
}

#[tokio::test]
async fn contract_c7_login_refresh_and_logout() {
    let world = with_users().await;
    let login = r#"{"username":"ada","password":"pw-1"}"#;
    let answer = world.post("/api/v1/auth/login", login).await;
    assert!(answer.headers.get("set-cookie").is_none());
    let tokens = answer.ok();
    assert_eq!(
        (&tokens["success"], &tokens["token_type"], &tokens["expires_in"]),
        (&json!(true), &json!("bearer"), &json!(1800))
    );
    assert_eq!((&tokens["user"]["id"], &tokens["user"]["role"]), (&json!("u-1"), &json!("admin")));
    assert!(!world.document().contains("pw-1"));
    let bearer = |token: &Value| format!("Bearer {}", token.as_str().unwrap());
    let access = bearer(&tokens["access_token"]);
    world.ask("GET", "/api/v1/config", &[("authorization", &access)], "").await.ok();
    let cookie = format!("orion_access_token={}", tokens["access_token"].as_str().unwrap());
    world.ask("GET", "/api/v1/config", &[("cookie", &cookie)], "").await.ok();
    // A refresh token opens nothing but the door it is for.
    let refresh = bearer(&tokens["refresh_token"]);
    let answer = world.ask("GET", "/api/v1/config", &[("authorization", &refresh)], "").await;
    refused(&answer, 401, "Invalid token");
    let body = json!({"refresh_token": tokens["refresh_token"]}).to_string();
    let renewed = world.post("/api/v1/auth/refresh", &body).await.ok();
    let renewed = bearer(&renewed["access_token"]);
    world.ask("GET", "/api/v1/config", &[("authorization", &renewed)], "").await.ok();

    let out = world.ask("POST", "/api/v1/auth/logout", &[("authorization", &access)], "").await;
    let cookies: Vec<_> = out.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies.len(), 2);
    assert!(cookies.iter().all(|cookie| cookie.to_str().unwrap().contains("Max-Age=0")));
    assert!(out.ok()["message"].is_string());
    // All tokens of the login are over, on every member: it stands in the replicated state.
    assert_eq!(world.cluster.view().read(|state| state.revocations_len()), 1);
    for token in [&access, &renewed] {
        let answer = world.ask("GET", "/api/v1/config", &[("authorization", token)], "").await;
        refused(&answer, 401, "Invalid token");
    }
    refused(&world.post("/api/v1/auth/refresh", &body).await, 401, "Invalid token");
    // Another login is another session.
    world.post("/api/v1/auth/login", login).await.ok();
}

#[tokio::test]
async fn contract_c7_wrong_logins_and_cookies() {
    let world = with_users().await;
    for (body, status, error) in [
        (r#"{"username":"ada","password":"pw-2"}"#, 401, "Invalid credentials"),
        (r#"{"username":"eve","password":"pw-1"}"#, 401, "Invalid credentials"),
        (r#"{"username":"ada"}"#, 400, "username and password are required"),
        (r#"{"username":["ada"],"password":"x"}"#, 400, "username must be a string"),
    ] {
        refused(&world.post("/api/v1/auth/login", body).await, status, error);
    }
    let long = json!({"username": "ada", "password": "x".repeat(2000)}).to_string();
    refused(&world.post("/api/v1/auth/login", &long).await, 401, "Invalid credentials");
    let body = r#"{"email":"bob@example.com","password":"pw-2"}"#;
    let answer = world.post("/api/v1/auth/login?mode=cookie", body).await;
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies.len(), 2);
    for cookie in &cookies {
        let text = cookie.to_str().unwrap();
        assert!(text.contains("; HttpOnly; SameSite=Lax; Path=/; Max-Age="), "{text}");
    }
    let pair = |place: usize| cookies[place].to_str().unwrap().split(';').next().unwrap();
    let both = format!("{}; {}", pair(0), pair(1));
    world.ask("GET", "/api/v1/tasks", &[("cookie", &both)], "").await.ok();
    let forbidden = world.ask("GET", "/api/v1/config", &[("cookie", &both)], "").await;
    refused(&forbidden, 403, "Insufficient permissions");
    world.ask("POST", "/api/v1/auth/refresh", &[("cookie", &both)], "").await.ok();
    refused(
        &world.post("/api/v1/auth/refresh", r#"{"refresh_token":"x"}"#).await,
        401,
        "Invalid token",
    );
    refused(&world.post("/api/v1/auth/refresh", "").await, 400, "refresh_token is required");
}

#[tokio::test]
async fn the_secret_of_tokens_is_made_once_and_never_shown() {
    let world = with_users().await;
    assert!(!world.document().contains("jwt_secret"));
    let body = r#"{"username":"ada","password":"pw-1"}"#;
    let logins = (0..3).map(|_| world.post("/api/v1/auth/login", body));
    let tokens: Vec<_> = futures::future::join_all(logins).await;
    let secret = |document: String| {
        let document: Value = serde_json::from_str(&document).unwrap();
        document["security"]["jwt_secret"].as_str().unwrap().to_owned()
    };
    let made = secret(world.document());
    for answer in tokens {
        let bearer = format!("Bearer {}", answer.ok()["access_token"].as_str().unwrap());
        let shown = world.ask("GET", "/api/v1/config", &[("authorization", &bearer)], "").await;
        assert!(!shown.text.contains(&made));
        assert_eq!(shown.ok()["config"]["security"]["jwt_secret"], "********");
    }
    assert_eq!(secret(world.document()), made);
}
