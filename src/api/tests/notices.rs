//! What the leader finds and tells others: alerts (contract 2.11), scaling (2.10), callbacks and other
//! deliveries (6).

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{World, take};
use crate::model::{AlertState, NodeId, ScalingAction, ScalingEvent, Severity};
use crate::state::{AlertChange, Command, DeliveryResult, Outcome};

const ACCEPTED: Outcome = Outcome::Judged { accepted: 1, stale: 0 };

impl World {
    /// What the watch writes down of the alert `network_utilization_threshold`.
    async fn alert(&self, seen: u64, state: AlertState) {
        let change = AlertChange {
            alert_id: "network_utilization_threshold".to_owned(),
            seen_transitions: seen,
            metric: "network_utilization".to_owned(),
            severity: Severity::Warning,
            state,
            value_milli: 850,
            threshold_milli: 800,
            message: "too much".to_owned(),
        };
        let command = Command::RecordAlerts { epoch: self.epoch, changes: vec![change] };
        assert_eq!(self.commit(command).await, ACCEPTED);
    }

    /// What the courier writes down of a post.
    async fn posted(&self, delivery_id: u64, seen_tries: u32, error: Option<&str>) -> Outcome {
        let error = error.map(str::to_owned);
        let result = DeliveryResult { delivery_id, seen_tries, error, for_good: false };
        let results = vec![result];
        self.commit(Command::RecordDeliveries { epoch: self.epoch, results }).await
    }

    async fn deliveries(&self, query: &str) -> Vec<Value> {
        let list = self.get(&format!("/api/v1/deliveries{query}")).await.ok();
        list["deliveries"].as_array().unwrap().clone()
    }
}

#[tokio::test]
async fn contract_2_11_alerts_are_raised_acknowledged_and_resolved() {
    let world = World::new().await;
    let empty = json!({"success": true, "alerts": [], "total": 0});
    assert_eq!(world.get("/api/v1/alerts").await.ok(), empty);
    world.alert(0, AlertState::Active).await;
    let mut list = world.get("/api/v1/alerts?status=active").await.ok();
    for key in ["since", "changed_at"] {
        assert!(take(&mut list, &format!("/alerts/0/{key}")).as_str().unwrap().ends_with('Z'));
    }
    let expected = json!({
        "id": "network_utilization_threshold", "metric": "network_utilization",
        "severity": "warning", "status": "active", "value": 0.85, "threshold": 0.8,
        "message": "too much", "acknowledged_by": null, "transitions": 1,
        "suppressed_until": null
    });
    assert_eq!((&list["alerts"][0], &list["total"]), (&expected, &json!(1)));
    let path = "/api/v1/alerts/network_utilization_threshold/acknowledge";
    let done = json!({"success": true, "message": "Alert acknowledged"});
    for _ in 0..2 {
        assert_eq!(world.post(path, "").await.ok(), done);
    }
    let list = world.get("/api/v1/alerts").await.ok();
    let alert = &list["alerts"][0];
    assert_eq!(
        (&alert["status"], &alert["acknowledged_by"], &alert["transitions"]),
        (&json!("acknowledged"), &json!("anonymous"), &json!(2))
    );
    assert_eq!(world.get("/api/v1/alerts?status=active").await.ok()["total"], 0);
    world.alert(2, AlertState::Resolved).await;
    let late = world.post(path, "").await;
    assert_eq!(
        (late.status, &late.json()["code"]),
        (StatusCode::CONFLICT, &json!("ALERT_RESOLVED"))
    );
    let unknown = world.post("/api/v1/alerts/nope/acknowledge", "").await;
    assert_eq!(
        (unknown.status, &unknown.json()["code"]),
        (StatusCode::NOT_FOUND, &json!("ALERT_NOT_FOUND"))
    );
    assert_eq!(world.get("/api/v1/alerts?status=odd").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn contract_2_11_nobody_is_told_of_a_suppressed_alert() {
    let world = World::new().await;
    let webhook = json!({"alerts": {"webhook": {"enabled": true, "url": "http://hook.test/x"}}});
    world.call("PUT", "/api/v1/config", &webhook.to_string()).await.ok();
    world.alert(0, AlertState::Active).await;
    assert_eq!(world.deliveries("").await.len(), 1);
    let path = "/api/v1/alerts/network_utilization_threshold/suppress";
    for wrong in [r#"{"duration":0}"#, r#"{"duration":604801}"#, r#"{"duration":"x"}"#] {
        assert_eq!(world.post(path, wrong).await.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let done = json!({"success": true, "message": "Alert suppressed"});
    assert_eq!(world.post(path, r#"{"duration":600}"#).await.ok(), done);
    let list = world.get("/api/v1/alerts?status=suppressed").await.ok();
    assert_eq!(list["total"], 1);
    assert!(list["alerts"][0]["suppressed_until"].as_str().unwrap().ends_with('Z'));
    world.alert(2, AlertState::Resolved).await;
    world.alert(3, AlertState::Active).await;
    assert_eq!(world.get("/api/v1/alerts?status=suppressed").await.ok()["total"], 1);
    assert_eq!(world.deliveries("").await.len(), 1, "nobody was told of what came after");
    world.alert(4, AlertState::Resolved).await;
    let late = world.post(path, "").await;
    assert_eq!(late.json()["code"], "ALERT_RESOLVED");
}

#[tokio::test]
async fn contract_2_11_each_transition_is_one_delivery_per_channel() {
    let world = World::new().await;
    let channels = json!({"alerts": {
        "webhook": {"enabled": true, "url": "http://hook.test/secret-path"},
        "slack": {"enabled": true, "webhook_url": "http://slack.test/secret-path"},
        "email": {"enabled": true, "smtp_server": "mail.test", "username": "fleet@example.com",
            "password": "hunter2", "to_emails": ["ops@example.com"]},
    }});
    let shown = world.call("PUT", "/api/v1/config", &channels.to_string()).await.ok();
    assert_eq!(shown["config"]["alerts"]["email"]["password"], "********");
    assert!(!shown.to_string().contains("hunter2"), "{shown}");
    world.alert(0, AlertState::Active).await;
    world.post("/api/v1/alerts/network_utilization_threshold/acknowledge", "").await.ok();
    world.post("/api/v1/alerts/network_utilization_threshold/acknowledge", "").await.ok();
    world.alert(2, AlertState::Resolved).await;
    let all = world.deliveries("").await;
    let kinds: Vec<&str> = all.iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["email", "slack", "alert"].repeat(3));
    assert!(all.iter().all(|one| one["url"] == "***" && one["status"] == "due"), "{all:?}");
    let stored =
        world.cluster.view().read(|state| format!("{:?}", Vec::from_iter(state.deliveries())));
    assert!(!stored.contains("hunter2") && stored.contains("smtp://mail.test:587"), "{stored}");
}

#[tokio::test]
async fn contract_2_10_scaling_is_a_replicated_record() {
    let world = World::new().await;
    let webhook = json!({"auto_scaling": {"webhook_url": "http://hook.test/"}});
    world.call("PUT", "/api/v1/config", &webhook.to_string()).await.ok();
    let event = ScalingEvent {
        number: 0,
        at_ms: 0,
        action: ScalingAction::Up,
        rule: "high_utilization".to_owned(),
        current_nodes: 2,
        target_nodes: 4,
        metric_milli: 900,
        threshold_milli: 800,
        reason: "busy".to_owned(),
        provider: "manual".to_owned(),
        outcome: None,
        nodes: vec![NodeId::trusted("n1")],
    };
    let record = Command::RecordScaling { epoch: world.epoch, event, cooldown_ms: 1000 };
    world.commit(record).await;
    let mut list = world.get("/api/v1/scaling/events").await.ok();
    assert!(take(&mut list, "/events/0/timestamp").as_str().unwrap().ends_with('Z'));
    let number = take(&mut list, "/events/0/number");
    let event = json!({
        "action": "scale_up", "rule_name": "high_utilization", "current_nodes": 2,
        "target_nodes": 4, "metric_value": 0.9, "threshold_value": 0.8, "reason": "busy",
        "provider": "manual", "outcome": null, "nodes": ["n1"]
    });
    let expected = json!({"success": true, "enabled": true, "events": [event], "total": 1});
    assert_eq!(list, expected);
    let number = number.as_u64().unwrap();
    let outcome = "exit code 0".to_owned();
    world.commit(Command::RecordScalingOutcome { epoch: world.epoch, number, outcome }).await;
    let list = world.get("/api/v1/scaling/events").await.ok();
    assert_eq!(list["events"][0]["outcome"], "exit code 0");
    let told = world.deliveries("").await;
    assert_eq!(
        (told.len(), &told[0]["kind"], &told[0]["url"]),
        (1, &json!("scaling"), &json!("***"))
    );
    for query in ["limit=0", "limit=1001", "limit=x"] {
        let answer = world.get(&format!("/api/v1/scaling/events?{query}")).await;
        assert_eq!(answer.json()["code"], "INVALID_QUERY", "{query}");
    }
}

/// Submits a task with a callback.
async fn with_callback(world: &World, task_id: &str) {
    let body = json!({"task_id": task_id, "task_type": "t", "max_retries": 0,
        "callback_url": "http://me.test/done"});
    world.post("/api/v1/tasks", &body.to_string()).await.ok();
}

#[tokio::test]
async fn contract_6_row_12_an_end_is_told_once_and_tried_again() {
    let world = World::new().await;
    world.register("n1").await;
    with_callback(&world, "t").await;
    let shown = world.get("/api/v1/tasks/t").await.ok();
    assert_eq!(shown["task"]["callback_url"], "http://me.test/done");
    assert_eq!(world.deliveries("?task_id=t").await, Vec::<Value>::new());
    world.place("t", "n1").await;
    for _ in 0..2 {
        world.post("/api/v1/tasks/t/result", r#"{"success":true,"attempt":1}"#).await.ok();
    }
    let list = world.get("/api/v1/deliveries?task_id=t").await.ok();
    let mut one = list["deliveries"][0].clone();
    let id = take(&mut one, "/delivery_id").as_u64().unwrap();
    assert!(take(&mut one, "/created_at").as_str().unwrap().ends_with('Z'));
    let expected = json!({"kind": "callback", "url": "http://me.test/done", "task_id": "t",
        "status": "due", "tries": 0, "error": null, "ended_at": null});
    assert_eq!((&one, &list["due"]), (&expected, &json!(1)));
    assert_eq!(world.posted(id, 0, Some("answered 500")).await, ACCEPTED);
    let one = &world.deliveries("?status=due").await[0];
    assert_eq!((&one["tries"], &one["error"]), (&json!(1), &json!("answered 500")));
    let stale = Outcome::Judged { accepted: 0, stale: 1 };
    assert_eq!(world.posted(id, 0, None).await, stale, "the tries it saw have moved on");
    assert_eq!(world.posted(id, 1, None).await, ACCEPTED);
    let one = &world.deliveries("?status=delivered").await[0];
    assert_eq!((&one["delivery_id"], &one["tries"]), (&json!(id), &json!(2)));
    assert!(one["ended_at"].is_string() && one["error"].is_null());
}

#[tokio::test]
async fn contract_6_row_12_every_kind_of_end_is_told() {
    let world = World::new().await;
    world.register("n1").await;
    for task_id in ["a", "b", "c"] {
        with_callback(&world, task_id).await;
    }
    world.place("a", "n1").await;
    world.place("c", "n1").await;
    let failed = r#"{"status":"failed","error":"e","retryable":true}"#;
    world.post("/api/v1/tasks/a/result", failed).await.ok();
    world.call("DELETE", "/api/v1/tasks/b", "").await.ok();
    world.post("/api/v1/tasks/c/result", r#"{"success":true}"#).await.ok();
    let all = world.deliveries("").await;
    let ids: Vec<&str> = all.iter().map(|one| one["task_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["c", "b", "a"], "the newest first");
    for tries in 0..3 {
        let id = all[2]["delivery_id"].as_u64().unwrap();
        assert_eq!(world.posted(id, tries, Some("no answer")).await, ACCEPTED);
    }
    let given_up = world.deliveries("?status=given_up").await;
    assert_eq!((given_up.len(), &given_up[0]["task_id"]), (1, &json!("a")));
    let page = world.get("/api/v1/deliveries?limit=2").await.ok();
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = world.deliveries(&format!("?limit=2&cursor={cursor}")).await;
    assert_eq!((rest.len(), &rest[0]["task_id"]), (1, &json!("a")));
}

#[tokio::test]
async fn contract_6_row_12_only_urls_are_called_back() {
    let world = World::new().await;
    for url in ["ftp://x/", "me", "//x", "file:///etc/passwd"] {
        let body = json!({"task_type": "t", "callback_url": url}).to_string();
        let answer = world.post("/api/v1/tasks", &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{url}");
        assert!(answer.json()["error"].as_str().unwrap().starts_with("callback_url must be"));
    }
    let code = world.get("/api/v1/deliveries?cursor=x").await.json()["code"].clone();
    assert_eq!(code, "INVALID_CURSOR");
}

#[tokio::test]
async fn a_host_that_is_not_allowed_is_refused_at_the_door() {
    let world = World::new().await;
    let submit = |id: &str| {
        let url = "http://169.254.169.254/latest";
        json!({"task_id": id, "task_type": "t", "callback_url": url}).to_string()
    };
    let put = async |body: Value| world.call("PUT", "/api/v1/config", &body.to_string()).await;
    world.post("/api/v1/tasks", &submit("before")).await.ok();
    let list = |host: &str| json!({"security": {"outward": {"allowed_hosts": [host]}}});
    put(list("*.example")).await.ok();
    let refused = world.post("/api/v1/tasks", &submit("after")).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(refused.json()["code"], "HOST_NOT_ALLOWED");
    assert_eq!(world.get("/api/v1/tasks/after").await.status, StatusCode::NOT_FOUND);
    let webhook = |url: &str| json!({"alerts": {"webhook": {"enabled": true, "url": url}}});
    let refused = put(webhook("http://pager.internal/")).await;
    assert_eq!(refused.json()["code"], "HOST_NOT_ALLOWED", "{}", refused.text);
    put(webhook("http://pager.example/")).await.ok();
    // A list that cuts off a webhook that is in use would be noticed when nobody is told.
    let refused = put(list("hooks.slack.com")).await;
    assert!(refused.text.contains("alerts.webhook.url"), "{}", refused.text);
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let email = put(json!({"alerts": {"email": {"enabled": true}}})).await;
    assert_eq!(email.json()["code"], "INVALID_CONFIG", "{}", email.text);
    let email =
        json!({"enabled": true, "smtp_server": "mail.internal", "from": "a@b", "to": "c@d"});
    let refused = put(json!({ "alerts": { "email": email } })).await;
    assert_eq!(refused.json()["code"], "HOST_NOT_ALLOWED", "{}", refused.text);
    assert!(refused.text.contains("alerts.email.smtp_server"), "{}", refused.text);
}

#[tokio::test]
async fn the_password_of_mail_goes_to_no_other_server_unless_it_is_given_anew() {
    let world = World::new().await;
    let put = async |email: Value| {
        let body = json!({ "alerts": { "email": email } }).to_string();
        world.call("PUT", "/api/v1/config", &body).await
    };
    let first = json!({"enabled": true, "smtp_server": "mail.test", "username": "fleet",
        "password": "hunter2", "from": "a@b", "to": "c@d"});
    let shown = put(first).await.ok()["config"]["alerts"]["email"].clone();
    for (key, value) in
        [("smtp_server", json!("eve.test")), ("smtp_port", json!(25)), ("encryption", json!("tls"))]
    {
        // Off or on, and sent back as it was shown or left out.
        for email in [json!({ key: value, "enabled": false }), {
            let mut whole = shown.clone();
            whole[key] = value.clone();
            whole
        }] {
            let refused = put(email).await;
            assert_eq!(refused.json()["code"], "INVALID_CONFIG", "{}", refused.text);
            assert!(refused.text.contains("alerts.email.password must be given anew"));
        }
        let path = format!("/api/v1/config/alerts.email.{key}");
        let refused = world.call("PUT", &path, &json!({ "value": value }).to_string()).await;
        assert_eq!(refused.json()["code"], "INVALID_CONFIG", "{}", refused.text);
    }
    put(json!({"to": ["c@d", "e@f"], "enabled": false})).await.ok();
    put(json!({"smtp_server": "other.test", "password": "hunter2"})).await.ok();
    let channel = json!({"smtp_server": "third.test", "username": "", "password": ""});
    put(channel).await.ok();
    put(json!({"smtp_server": "fourth.test", "enabled": true})).await.ok();
}
