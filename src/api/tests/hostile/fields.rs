//! Every known field of every body, with values of every other kind.

use axum::body::Body;
use serde_json::{Value, json};

use super::{ask_all, default_world, request, still_serves};

/// Stands for a number that no `Value` can hold, until the body is text.
const RAW: &str = "@raw@";
const RAWS: [&str; 5] = ["1e999", "-1e999", "-0", "1e-400", "99999999999999999999999999"];

/// A good body for each door, in which every field has its turn to be wrong.
fn good_bodies() -> Vec<(&'static str, &'static str, Value)> {
    let mut all = node_bodies();
    all.extend(task_bodies());
    all.extend(other_bodies());
    all.extend(bot_bodies());
    all
}

/// Those of family B. Nobody does the tasks of workflows here, so nobody waits for one.
fn bot_bodies() -> Vec<(&'static str, &'static str, Value)> {
    let id = "12345678-1234-4234-8234-123456789abc";
    let lease = json!([{"task_id": id, "attempt": 1}]);
    let spec = json!({"name": "n", "tier": "t", "capabilities": ["c"], "count": 2});
    let of_bot = "/bots/12345678-1234-4234-8234-123456789abc/tasks";
    let items = json!({"items": [{"task_id": id, "bot_id": id, "attempt": 1, "result": {"a": 1},
        "error": "e"}]});
    vec![
        ("POST", "/bots", spec.clone()),
        ("POST", "/api/v1/swarms", spec),
        ("PATCH", "/swarms/12345678-1234-4234-8234-123456789abc", json!({"count": 2})),
        ("POST", of_bot, json!({"type": "t", "data": {"a": [1]}})),
        (
            "POST",
            "/bots/leases",
            json!({"swarms": [id], "holder": "h", "max": 1, "lease_seconds": 1,
                "wait_seconds": 0}),
        ),
        ("POST", "/bots/leases", json!({"bots": [id]})),
        ("POST", "/bots/leases/renew", json!({"leases": lease, "lease_seconds": 1})),
        ("POST", "/bots/leases/release", json!({"leases": lease})),
        ("POST", "/assignments/complete", items.clone()),
        ("POST", "/assignments/fail", items),
        (
            "POST",
            "/orchestrate?async=true",
            json!({"tasks": [{"type": "image_generation", "params": {"a": 1}}], "priority": "low"}),
        ),
    ]
}

fn node_bodies() -> Vec<(&'static str, &'static str, Value)> {
    let agent = json!({"agent_id": "a1", "agent_type": "x", "status": "online",
        "capabilities": ["c"], "specialized_models": ["m"], "resource_usage": {"cpu": 1},
        "name": "A", "version": "1", "host": "h", "port": 1, "tasks_running": 1,
        "tasks_completed": 1, "efficiency_score": 1.0, "last_activity": 1.5});
    let node = json!({"node_id": "n1", "host": "h", "port": 5000, "node_type": "worker",
        "status": "active", "capabilities": ["c"], "agents_count": 1, "cpu_usage": 1.5,
        "memory_usage": 1.5, "gpu_usage": 1.5, "network_latency": 1.0, "load_score": 0.5,
        "reliability_score": 1.0, "version": "1", "location": "lab", "capacity": 4,
        "external_url": "http://h:1", "instance": "i", "api_versions": ["v3"],
        "features": {"a": true}, "performance": {"cpu_usage": 1.0, "memory_usage": 1.0,
        "load_score": 1.0, "agents_count": 1, "active_tasks": 1, "uptime": 5},
        "metadata": {"a": 1}, "agents": [agent]});
    let beat = json!({"node_id": "n1", "status": "active", "timestamp": "2026-01-01T00:00:00Z",
        "cpu_usage": 1.5, "memory_usage": 1.5, "gpu_usage": 1.5, "load_score": 50,
        "tasks_running": 1, "active_tasks": 1, "agents_status": {"total_agents": 1,
        "online_agents": 1, "agent_list": ["a1"]}, "performance_metrics": {"error_rate": 0.1},
        "health_status": "healthy", "uptime": 5, "agents_count": 1,
        "completed_tasks": [{"task_id": "t", "attempt": 9, "status": "completed",
        "result": {"a": 1}, "error": "e", "execution_time": 1.0, "agent_id": "a1"}]});
    vec![
        ("POST", "/api/v1/nodes/n1/register", node),
        ("POST", "/api/v1/nodes/n1/heartbeat", beat),
        ("PUT", "/api/v1/nodes/n1/status", json!({"status": "active"})),
        ("POST", "/api/v1/nodes/n1/drain", json!({"deadline": 60})),
        (
            "POST",
            "/api/v1/agents/register",
            json!({"agent_id": "a2", "agent_type": "x", "endpoint": "h:1", "capabilities": ["c"],
                "max_concurrent_tasks": 3, "metadata": {"state": "ready", "instance": "i"}}),
        ),
    ]
}

fn task_bodies() -> Vec<(&'static str, &'static str, Value)> {
    let web = json!({"task_type": "t", "priority": "high", "requirements": {"capabilities": ["c"],
        "min_cpu": 1, "min_memory": 1, "preferred_nodes": ["n1"], "exclude_nodes": ["n2"],
        "redundancy": 2, "max_load": 0.8}, "input_data": {"a": 1}, "timeout": 60,
        "max_retries": 3, "deadline": 4_000_000_000_u64, "callback_url": "http://h/", "extra": 1,
        "metadata": {"a": 1}, "concurrency": {"key": "k", "max": 2},
        "rate_limit": {"key": "k", "max": 2, "per_seconds": 1.5}});
    let steps = json!([{"name": "a", "agent_type": "x", "max_retries": 1, "timeout_ms": 1000,
        "parameters": {"k": 1}}, {"name": "b", "agent_type": "x", "depends_on": ["a"]}]);
    let inputs = json!([{"input_id": "i", "type": "text", "data": "d", "url": "http://h/",
        "metadata": {"a": 1}}]);
    let agents = json!({"task_type": "report_generation", "inputs": inputs, "priority": 8,
        "execution_mode": "sequential", "timeout_ms": 30_000, "parameters": {"a": 1},
        "metadata": {"execution_mode": "parallel"}});
    let graph = json!({"task_type": "g", "steps": steps, "execution_mode": "graph"});
    let report = json!({"status": "completed", "success": true, "result": {"a": 1},
        "result_data": 1, "error": "e", "error_message": "e", "node_id": "n1", "agent_id": "a1",
        "attempt": 99, "epoch": "1.1", "retryable": true, "execution_time": 1.5,
        "performance_metrics": {"a": 1}});
    let pipeline = json!({"mode": "graph", "estimated_completion_ms": 5, "steps": steps});
    vec![
        ("POST", "/api/v1/tasks", web),
        ("POST", "/api/v1/tasks", agents),
        ("POST", "/api/v1/tasks", graph),
        ("POST", "/api/v1/tasks/batch", json!({"tasks": [{"task_type": "t", "priority": 1}]})),
        ("DELETE", "/api/v1/tasks/none", json!({"reason": "r"})),
        ("POST", "/api/v1/tasks/t/result", report),
        ("POST", "/api/v1/dead-letters/replay", json!({"task_ids": ["t"], "all": false})),
        ("POST", "/api/v1/dead-letters/purge", json!({"task_ids": ["t"], "all": false})),
        ("PUT", "/api/v1/pipelines/p", pipeline),
    ]
}

fn other_bodies() -> Vec<(&'static str, &'static str, Value)> {
    let rule = json!({"name": "r", "metric": "network_utilization", "scale_up_threshold": 0.8,
        "scale_down_threshold": 0.2, "window_minutes": 5, "cooldown_minutes": 5, "min_nodes": 1,
        "max_nodes": 5, "scale_up_step": 1, "scale_down_step": 1});
    let config = json!({
        "network": {"max_nodes": 100, "node_timeout": 120, "discovery_endpoints": ["http://h:1"],
            "load_balance_algorithm": "round_robin", "default_capacity": 16},
        "tasks": {"retry_delay_ms": 1000, "aging_seconds": 300},
        "agents": {"max_agents": 10, "builtin": ["synthesis"], "load_balancing": "random"},
        "callbacks": {"max_tries": 3},
        "alerts": {"enabled": true, "check_interval": 10, "thresholds": {"medium_utilization": 0.8},
            "webhook": {"enabled": true, "url": "http://h/"}},
        "performance": {"cpu_threshold": 80, "latency_threshold": 1000,
            "load_balancing": {"weight_cpu": 0.4}},
        "auto_scaling": {"enabled": true, "provider": "manual", "webhook_url": "http://h/",
            "scaling_rules": [rule]},
        "compat": {"status_nodes": "summary", "agents": {"priority_order": "desc"}},
    });
    let key = json!({"role": "client", "name": "k", "expires_days": 5, "user_id": "u",
        "rate_limit_per_minute": 5});
    let drill = json!({"kind": "pause", "target": "member 1", "started_by": "me",
        "lease_ms": 1});
    let end = json!({"state": "done", "summary": "s", "report": {"a": 1}});
    let fault = json!({"fault": "delay", "peer": 9, "direction": "both", "delay_ms": 1,
        "clients": "hang", "drill_id": 99, "index": 1, "lasting_ms": 1, "force": false});
    vec![
        ("PUT", "/api/v1/config", config),
        ("PUT", "/api/v1/config/ours.key", json!({"value": {"a": [1]}})),
        ("POST", "/api/v1/control/stop", json!({"shutdown_nodes": false})),
        ("POST", "/api/v1/auth/refresh", json!({"refresh_token": "x"})),
        ("POST", "/api/v1/alerts/none/suppress", json!({"duration": 60})),
        ("POST", "/api/v1/auth/logout", json!({"refresh_token": "x"})),
        ("POST", "/api/v1/auth/api-keys", key),
        ("POST", "/api/v1/cluster/init", json!({"peers": ["h:1"]})),
        ("POST", "/api/v1/cluster/join", json!({"peers": ["h:1"]})),
        ("POST", "/api/v1/cluster/transfer-leader", json!({"to": "9"})),
        ("POST", "/api/v1/admin/drills", drill),
        ("POST", "/api/v1/admin/drills/99/end", end),
        ("POST", "/api/v1/admin/faults", fault),
        ("POST", "/api/v1/admin/stop", json!({"drill_id": 99, "how": "restart", "index": 1})),
        ("POST", "/api/v1/admin/rehearse", json!({"drill_id": 99})),
    ]
}

fn wrong_values() -> Vec<Value> {
    let deep = (0..60).fold(json!(1), |inner, _| json!([inner]));
    let mut all = vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(0),
        json!(0.1),
        json!(1e300),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("x"),
        json!("\u{0}\n\u{1b}[31m\u{202e}"),
        json!("..%2f\\\"<script>"),
        json!("x".repeat(10_000)),
        json!([]),
        json!({}),
        json!([null]),
        json!([{}]),
        json!(["", 1, true]),
        json!({"": {"": null}}),
        deep,
    ];
    all.extend(RAWS.map(|raw| json!(format!("{RAW}{raw}"))));
    all
}

/// The places of all values in `value`, as JSON pointers.
fn places(value: &Value, at: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let at = format!("{at}/{key}");
                into.push(at.clone());
                places(value, &at, into);
            }
        }
        Value::Array(list) => {
            for (place, value) in list.iter().enumerate() {
                let at = format!("{at}/{place}");
                into.push(at.clone());
                places(value, &at, into);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The body as text, with numbers that only text can hold.
fn text(body: &Value) -> String {
    let mut text = body.to_string();
    for raw in RAWS {
        text = text.replace(&format!("\"{RAW}{raw}\""), raw);
    }
    text
}

#[tokio::test]
async fn contract_1_3_every_field_may_be_wrong_in_every_way() {
    let world = default_world().await;
    let wrong_values = wrong_values();
    let mut sent = 0;
    for (method, path, good) in good_bodies() {
        let mut all = Vec::new();
        places(&good, "", &mut all);
        let wrong = |place: &str, wrong: &Value| {
            let mut body = good.clone();
            *body.pointer_mut(place).unwrap() = wrong.clone();
            (request(method, path, Body::from(text(&body))), format!("{place} = {wrong}"))
        };
        let wrongs =
            all.iter().flat_map(|place| wrong_values.iter().map(|value| wrong(place, value)));
        sent += ask_all(&world, path, wrongs).await;
    }
    assert!(sent > 3000, "only {sent} requests were made");
    still_serves(&world).await;
}
