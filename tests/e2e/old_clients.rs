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

/// The three programs of contract 2.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// `enhanced_node/integrations/orchestrator_client.py`.
    Integration,
    /// The one in `enhanced_node/setup-node-orchestrator.sh`.
    Setup,
    /// `web4ai-orchestrator/node_orchestrator_integration.py`.
    Standalone,
}

impl Variant {
    const ALL: [Self; 3] = [Self::Integration, Self::Setup, Self::Standalone];

    fn node_id(self) -> &'static str {
        match self {
            Self::Integration => "enhanced_node_11111111",
            Self::Setup => "enhanced_node_22222222",
            Self::Standalone => "enhanced-node-333333333333",
        }
    }

    fn registration(self) -> (Value, Duration) {
        let nine = [
            "agent_management",
            "task_control",
            "remote_management",
            "ai_operations",
            "blockchain_support",
            "websocket_communication",
            "real_time_monitoring",
            "bulk_operations",
            "script_deployment",
        ];
        let common = json!({
            "node_id": self.node_id(), "host": "127.0.0.1", "port": 5000, "capabilities": nine,
            "agents": [], "node_type": "enhanced_node", "version": "3.4.0",
            "api_versions": ["v3", "v4", "v5", "v6"], "features": {"agent_management": true},
            "performance": {"cpu_usage": 12.5, "memory_usage": 40.0, "load_score": 17.0,
                "agents_count": 0, "active_tasks": 0, "uptime": 12},
        });
        match self {
            Self::Integration => (common, Duration::from_secs(10)),
            Self::Setup => {
                let mut body = common;
                body["capabilities"].as_array_mut().unwrap().push(json!("enhanced_node_v2"));
                body["version"] = json!("2.0.0");
                body["registration_time"] = json!("2026-01-01T00:00:00.123456");
                body["external_url"] = json!("http://127.0.0.1:5000");
                (body, Duration::from_secs(15))
            }
            Self::Standalone => {
                let body = json!({
                    "node_id": self.node_id(), "host": "127.0.0.1", "port": 5000,
                    "node_type": "enhanced", "agents_count": 2, "version": "1.0.0",
                    "capabilities": ["task_execution", "remote_control", "health_monitoring",
                        "script_deployment", "performance_monitoring"],
                    "location": "local",
                });
                (body, Duration::from_secs(10))
            }
        }
    }

    fn heartbeat(self) -> (Value, Duration) {
        let mut body = json!({
            "node_id": self.node_id(), "status": "active",
            "timestamp": "2026-01-01T00:00:00.123456", "cpu_usage": 12.5, "memory_usage": 40.0,
        });
        let limit = match self {
            Self::Integration | Self::Setup => {
                body["agents_status"] = json!({"total_agents": 0, "online_agents": 0,
                    "offline_agents": 0, "busy_agents": 0, "error_agents": 0});
                body["load_score"] = json!(17.0);
                body["active_tasks"] = json!(0);
                body["performance_metrics"] = json!({"requests_per_minute": 1});
                body["health_status"] = json!("healthy");
                Duration::from_secs(if self == Self::Setup { 10 } else { 5 })
            }
            Self::Standalone => {
                body["agents_status"] =
                    json!({"total_agents": 2, "active_agents": 2, "agent_list": ["a", "b"]});
                body["load_score"] = json!(0.2625);
                body["tasks_running"] = json!(0);
                Duration::from_secs(5)
            }
        };
        if self == Self::Setup {
            body["uptime"] = json!(3600);
        }
        (body, limit)
    }

    /// What it takes for success.
    fn pleases(self, reply: &crate::http::Reply) -> bool {
        let said = match self {
            Self::Integration | Self::Setup => reply.body["success"] == true,
            Self::Standalone => true,
        };
        reply.status == 200 && said
    }
}

/// Registers once and beats every second until told to stop. Gives the number of beats, those that
/// failed, and the slowest.
async fn old_program(
    variant: Variant,
    base: String,
    stop: tokio::sync::watch::Receiver<bool>,
) -> (u32, Vec<String>, Duration) {
    let http = Http::new();
    let post = async |what: &str, (body, limit): (Value, Duration)| {
        let url = format!("{base}/api/v1/nodes/{}/{what}", variant.node_id());
        let reply = http.send(Method::POST, &url, Some(&body), None, limit).await;
        reply.as_ref().is_ok_and(|reply| variant.pleases(reply)).then_some(()).ok_or(reply)
    };
    post("register", variant.registration()).await.expect("the registration");
    let (mut beats, mut faults, mut slowest) = (0, Vec::new(), Duration::ZERO);
    while !*stop.borrow() {
        let started = Instant::now();
        if let Err(reply) = post("heartbeat", variant.heartbeat()).await {
            faults.push(format!("beat {beats} of {variant:?}: {reply:?}"));
        }
        beats += 1;
        slowest = slowest.max(started.elapsed());
        // It never registers again, whatever it was told.
        sleep(Duration::from_secs(1)).await;
    }
    (beats, faults, slowest)
}

/// Statuses other than active that a member shows for these nodes, until told to stop.
async fn lapses(
    http: Http,
    nodes: String,
    stop: tokio::sync::watch::Receiver<bool>,
) -> Vec<String> {
    let mut seen = Vec::new();
    while !*stop.borrow() {
        if let Ok(reply) = http.get(&nodes).await
            && reply.status == 200
        {
            for variant in Variant::ALL {
                let status = text(&reply.body, &format!("/nodes/{}/status", variant.node_id()));
                if status != "active" {
                    seen.push(format!("{variant:?} is {status:?}"));
                }
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_2_6_three_old_clients_do_not_notice_a_dead_and_a_frozen_leader() {
    let mut house = House::found(3).await;
    let leader = house.leader().await;
    let follower = (leader + 1) % 3;
    // A node that is silent for three beats is lost.
    let settings = json!({"network": {"node_timeout": 4}});
    house.http.write(Method::PUT, &house.url(follower, "/api/v1/config"), &settings).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let programs: Vec<_> = Variant::ALL
        .into_iter()
        .map(|variant| tokio::spawn(old_program(variant, house.url(follower, ""), stopped.clone())))
        .collect();
    for variant in Variant::ALL {
        let url = house.url(follower, &format!("/api/v1/nodes/{}", variant.node_id()));
        until("the node is there", PATIENCE, || async {
            (house.http.get(&url).await.ok()?.status == 200).then_some(())
        })
        .await;
    }
    let url = house.url(follower, "/api/v1/nodes");
    let watched = tokio::spawn(lapses(house.http.clone(), url, stopped));
    sleep(Duration::from_secs(2)).await;

    house.kill(leader);
    sleep(Duration::from_secs(6)).await;
    house.start(leader);
    house.ready(leader).await;
    // Whoever leads now stands still, unless it is the one member that they know: that one can only
    // be stood in for by a balancer.
    let mut frozen = house.leader().await;
    if frozen == follower {
        let hand_over = house.url(follower, "/api/v1/cluster/transfer-leader");
        house.http.write(Method::POST, &hand_over, &json!({})).await;
        frozen = until("another leads", PATIENCE, || async {
            house.find_leader(&house.running()).await.filter(|place| *place != follower)
        })
        .await;
    }
    house.signal(frozen, rustix::process::Signal::STOP);
    sleep(Duration::from_secs(6)).await;
    house.signal(frozen, rustix::process::Signal::CONT);
    sleep(Duration::from_secs(3)).await;
    stop.send(true).unwrap();

    for program in programs {
        let (beats, faults, slowest) = program.await.unwrap();
        assert!(beats >= 12, "{beats} beats");
        assert!(faults.is_empty(), "{faults:?}");
        assert!(slowest < HEARTBEAT_TIMEOUT, "{slowest:?}");
    }
    let lapses = watched.await.unwrap();
    assert!(lapses.is_empty(), "{lapses:?}");
}
