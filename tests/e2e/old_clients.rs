//! Programs written for family W, which know one URL and never try twice (contract 2.6).

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::house::House;
use crate::http::{Http, PATIENCE, text, until};

/// Client 1's deadlines.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(10);
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(5);
/// Upstream beats every 30 s. So many beats would take too long here, and a beat that falls into
/// an election is what this is about.
const PERIOD: Duration = Duration::from_millis(40);

/// What `enhanced_node/integrations/orchestrator_client.py` does, to the letter of its requests.
struct OldClient {
    http: Http,
    base: String,
    node_id: String,
}

impl OldClient {
    async fn register(&self) -> bool {
        let body = json!({
            "node_id": self.node_id, "host": "127.0.0.1", "port": 5000,
            "capabilities": ["agent_management", "task_control", "remote_management",
                "ai_operations", "blockchain_support", "websocket_communication",
                "real_time_monitoring", "bulk_operations", "script_deployment"],
            "agents": [{ "agent_id": "a1", "name": "A", "agent_type": "gpu", "status": "online",
                "capabilities": ["x"], "resource_usage": { "cpu": 1.5 } }],
            "node_type": "enhanced_node", "version": "3.4.0",
            "api_versions": ["v3", "v4", "v5", "v6"],
            "features": { "agent_management": true, "websocket_terminal": true },
            "performance": { "cpu_usage": 12.5, "memory_usage": 40.0, "load_score": 17.0,
                "agents_count": 1, "active_tasks": 0, "uptime": 12 },
        });
        let path = format!("/api/v1/nodes/{}/register", self.node_id);
        self.post(&path, &body, REGISTRATION_TIMEOUT).await
    }

    async fn beat(&self) -> bool {
        let body = json!({
            "node_id": self.node_id, "status": "active", "timestamp": "2026-01-01T00:00:00.123456",
            "cpu_usage": 12.5, "memory_usage": 40.0,
            "agents_status": { "total_agents": 1, "online_agents": 1, "offline_agents": 0,
                "busy_agents": 0, "error_agents": 0 },
            "load_score": 17.0, "active_tasks": 0,
            "performance_metrics": { "requests_per_minute": 1, "avg_response_time": 0.1,
                "success_rate": 1.0, "error_rate": 0.0, "websocket_connections": 0 },
            "health_status": "healthy",
        });
        self.post(&format!("/api/v1/nodes/{}/heartbeat", self.node_id), &body, HEARTBEAT_TIMEOUT)
            .await
    }

    /// `response.status == 200 and result.get("success")`.
    async fn post(&self, path: &str, body: &Value, limit: Duration) -> bool {
        let url = format!("{}{path}", self.base);
        match self.http.send(Method::POST, &url, Some(body), None, limit).await {
            Ok(reply) if reply.status == 200 && reply.body["success"] == true => true,
            other => {
                println!("POST {path}: {other:?}");
                false
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_client_of_family_w_works_unchanged() {
    let mut house = House::found(3).await;
    let leader = house.leader().await;
    let follower = (leader + 1) % 3;
    let client = OldClient {
        http: Http::new(),
        base: house.url(follower, ""),
        node_id: "enhanced_node_0a1b2c3d".to_owned(),
    };
    assert!(client.register().await, "the registration was refused");
    let mut beats = 0;
    let mut refused = 0;
    let mut slowest = Duration::ZERO;
    for round in 0..80 {
        if round == 20 {
            house.kill(leader);
        }
        let started = Instant::now();
        if !client.beat().await {
            refused += 1;
        }
        slowest = slowest.max(started.elapsed());
        beats += 1;
        sleep(PERIOD).await;
    }
    println!("{beats} heartbeats across a leader's death, the slowest took {slowest:?}");
    assert_eq!(refused, 0, "an old client never tries again");
    // Its node is still there, active, and its agents are those it told of.
    let url = house.url(follower, "/api/v1/nodes/enhanced_node_0a1b2c3d");
    let node = until("the node", PATIENCE, || async {
        let reply = house.http.get(&url).await.ok()?;
        (reply.status == 200).then_some(reply.body)
    })
    .await;
    assert_eq!(text(&node, "/node/status"), "active");
    assert_eq!(text(&node, "/node/agents/0/agent_id"), "a1");
    // A late registration through the same door, while only two of three members are there.
    assert!(client.register().await, "registering again was refused");
}
