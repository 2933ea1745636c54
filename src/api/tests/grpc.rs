//! The gRPC doors, asked by a client that was generated from the same interface: contract 4.9.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest as ProbeRequest;
use tonic_health::pb::health_client::HealthClient;

use super::World;
use crate::agent::proto::agent_service_client::AgentServiceClient;
use crate::agent::proto::orchestrator_service_client::OrchestratorServiceClient;
use crate::agent::proto::{
    AgentHealthRequest, AgentRegistration, AgentTaskRequest, HealthCheckRequest, Input, InputType,
    TaskCancelRequest, TaskRequest, TaskStatus, TaskStatusRequest, TaskUpdate,
};
use crate::api::grpc;

pub(super) const LONG: Duration = Duration::from_secs(30);

/// A member that serves gRPC.
pub(super) struct House {
    pub(super) world: World,
    channel: Channel,
    stop: CancellationToken,
}

impl House {
    pub(super) async fn new() -> Self {
        let world = World::new().await;
        let router = world.router.clone();
        Self::behind(world, router).await
    }

    pub(super) async fn behind(world: World, router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let incoming = TcpIncoming::from(listener);
        tokio::spawn(grpc::serve(world.app.clone(), router, incoming, stop.clone()));
        let channel = Endpoint::from_shared(format!("http://{addr}")).unwrap().connect().await;
        Self { world, channel: channel.unwrap(), stop }
    }

    pub(super) fn client(&self) -> OrchestratorServiceClient<Channel> {
        OrchestratorServiceClient::new(self.channel.clone())
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(super) fn agents(&self) -> AgentServiceClient<Channel> {
        AgentServiceClient::new(self.channel.clone())
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(super) fn report(task_id: &str) -> TaskRequest {
    TaskRequest {
        task_id: task_id.to_owned(),
        task_type: "report_generation".to_owned(),
        inputs: vec![Input {
            r#type: InputType::Json.into(),
            data: b"[{\"sales\": 1}]".to_vec(),
            ..Input::default()
        }],
        metadata: BTreeMap::from([("max_persons".to_owned(), "10".to_owned())]),
        ..TaskRequest::default()
    }
}

pub(super) fn of(task_id: &str) -> TaskStatusRequest {
    TaskStatusRequest { task_id: task_id.to_owned() }
}

#[tokio::test]
async fn contract_4_9_a_task_is_submitted_and_shown() {
    let house = House::new().await;
    let answer = house.client().submit_task(report("g-1")).await.unwrap().into_inner();
    assert_eq!((answer.task_id.as_str(), answer.status()), ("g-1", TaskStatus::Queued));
    assert_eq!(answer.message, "Task submitted successfully");
    assert_eq!(answer.estimated_completion_ms, 3000);

    let task = house.client().get_task_status(of("g-1")).await.unwrap().into_inner();
    assert_eq!(task.task_id, "g-1");
    assert!(task.metrics.is_some() && task.output.is_none() && task.error.is_none());

    let shown = house.world.get("/api/v1/tasks/g-1?include=input").await.ok();
    assert_eq!(
        (&shown["task"]["priority_raw"], &shown["task"]["timeout"]),
        (&json!(5), &json!(30))
    );
    assert_eq!(shown["task"]["metadata"]["max_persons"], 10);
    assert_eq!(shown["task"]["input_data"][0]["data"], json!([{"sales": 1}]));
}

#[tokio::test]
async fn contract_4_9_an_empty_id_is_generated_once_per_key() {
    let house = House::new().await;
    let submit = async |key: &str| {
        let mut request = Request::new(report(""));
        request.metadata_mut().insert("idempotency-key", key.parse().unwrap());
        house.client().submit_task(request).await.unwrap().into_inner().task_id
    };
    let first = submit("k1").await;
    assert!(!first.is_empty());
    assert_eq!(submit("k1").await, first);
    assert_ne!(submit("k2").await, first);
}

#[tokio::test]
async fn contract_4_9_what_makes_no_sense_is_invalid() {
    let house = House::new().await;
    let unknown = TaskRequest { task_type: "telepathy".to_owned(), ..report("g") };
    let late = TaskRequest { timeout_ms: -1, ..report("g") };
    let odd = TaskRequest { execution_mode: 9, ..report("g") };
    let nameless = TaskRequest { task_type: String::new(), ..report("g") };
    let reserved = report("failed");
    for request in [unknown, late, odd, nameless, reserved] {
        let status = house.client().submit_task(request.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{request:?}: {status}");
    }
    let status = house.client().submit_task(TaskRequest::default()).await.unwrap_err();
    assert_eq!(status.metadata().get("error-code").unwrap(), "INVALID_TASK");
}

#[tokio::test]
async fn contract_4_9_unknown_tasks() {
    let house = House::new().await;
    // `failed` names a list over HTTP.
    for task_id in ["nobody", "failed", "", "a/result", "x?y#z"] {
        let mut client = house.client();
        let status = client.get_task_status(of(task_id)).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{task_id}: {status}");
        assert_eq!(status.metadata().get("error-code").unwrap(), "TASK_NOT_FOUND");
        let status = client.stream_task_updates(of(task_id)).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{task_id}: {status}");
        let request = TaskCancelRequest { task_id: task_id.to_owned(), reason: String::new() };
        let answer = client.cancel_task(request).await.unwrap().into_inner();
        assert!(!answer.success && !answer.message.is_empty(), "{task_id}");
    }
}

#[tokio::test]
async fn contract_4_9_cancel() {
    let house = House::new().await;
    house.client().submit_task(report("g-1")).await.unwrap();
    let cancel = async || {
        let request = TaskCancelRequest { task_id: "g-1".to_owned(), reason: "why not".to_owned() };
        house.client().cancel_task(request).await.unwrap().into_inner()
    };
    let answer = cancel().await;
    assert!(answer.success);
    assert_eq!(answer.message, "Task cancelled successfully");
    let task = house.client().get_task_status(of("g-1")).await.unwrap().into_inner();
    assert_eq!(task.status(), TaskStatus::Cancelled);
    let error = task.error.unwrap();
    assert_eq!(
        (error.error_code.as_str(), error.message.as_str()),
        ("CANCELLED", "Cancelled: why not")
    );
    assert!(!cancel().await.success, "it has ended already");
}

#[tokio::test]
async fn contract_4_9_updates_end_with_the_task() {
    let house = House::new().await;
    house.world.register("n1").await;
    house.world.submit("w-1").await;
    let mut updates = house.client().stream_task_updates(of("w-1")).await.unwrap().into_inner();
    let mut next = async || -> Option<TaskUpdate> {
        tokio::time::timeout(LONG, updates.message()).await.expect("in time").unwrap()
    };
    let first = next().await.unwrap();
    assert_eq!((first.status(), first.progress_percent), (TaskStatus::Queued, 0));
    assert!(first.timestamp_ms > 1_600_000_000_000);
    house.world.place("w-1", "n1").await;
    house.world.acknowledge("w-1", 1).await;
    assert_eq!(next().await.unwrap().status(), TaskStatus::Running);
    let result = r#"{"node_id":"n1","attempt":1,"status":"completed","result":{"a":1}}"#;
    house.world.post("/api/v1/tasks/w-1/result", result).await.ok();
    let last = next().await.unwrap();
    assert_eq!((last.status(), last.progress_percent), (TaskStatus::Completed, 100));
    assert_eq!(next().await, None);
    let task = house.client().get_task_status(of("w-1")).await.unwrap().into_inner();
    assert_eq!(task.output.unwrap().json_data, r#"{"a":1}"#);
}

#[tokio::test]
async fn contract_4_9_updates_of_an_ended_task_are_one() {
    let house = House::new().await;
    house.client().submit_task(report("g-1")).await.unwrap();
    house.world.call("DELETE", "/api/v1/tasks/g-1", "{}").await.ok();
    let mut updates = house.client().stream_task_updates(of("g-1")).await.unwrap().into_inner();
    assert_eq!(updates.message().await.unwrap().unwrap().status(), TaskStatus::Cancelled);
    assert_eq!(updates.message().await.unwrap(), None);
}

#[tokio::test]
async fn updates_end_when_the_member_closes() {
    let house = House::new().await;
    house.client().submit_task(report("g-1")).await.unwrap();
    let mut updates = house.client().stream_task_updates(of("g-1")).await.unwrap().into_inner();
    updates.message().await.unwrap().unwrap();
    house.world.app.close();
    let ended = tokio::time::timeout(LONG, updates.message()).await.expect("in time");
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn contract_4_9_health() {
    let house = House::new().await;
    let health = house.client().health_check(HealthCheckRequest::default()).await.unwrap();
    let health = health.into_inner();
    assert!(health.healthy);
    assert_eq!((health.version.as_str(), health.stats["running"].as_str()), ("1.0.0", "true"));

    let mut probe = HealthClient::new(house.channel.clone());
    let mut check = async |service: &str| {
        let request = ProbeRequest { service: service.to_owned() };
        probe.check(request).await.map(|answer| answer.into_inner().status().as_str_name())
    };
    assert_eq!(check("").await.unwrap(), "SERVING");
    let ready = async {
        while !matches!(check("orchestrator.OrchestratorService").await, Ok("SERVING")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, ready).await.expect("a member that leads gets ready");
    assert_eq!(check("orchestrator.AgentService").await.unwrap(), "SERVING");
    assert_eq!(check("nonsense").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn contract_4_9_agents_register_and_are_asked_elsewhere() {
    let door = post(|Json(body): Json<Value>| async move {
        let known = body["agent_type"] == "synthesis";
        let code = if known { 200 } else { 400 };
        let said = json!({"success": known, "message": format!("got {body}")});
        (axum::http::StatusCode::from_u16(code).unwrap(), Json(said))
    });
    let router = Router::new().route("/api/v1/agents/register", door);
    let house = House::behind(World::new().await, router).await;
    let registration = AgentRegistration {
        agent_id: "a".to_owned(),
        agent_type: "synthesis".to_owned(),
        capabilities: vec!["c".to_owned()],
        endpoint: "h:50052".to_owned(),
        max_concurrent_tasks: 3,
        metadata: BTreeMap::from([("version".to_owned(), "v".to_owned())]),
    };
    let answer = house.agents().register_agent(registration.clone()).await.unwrap().into_inner();
    assert!(answer.success);
    let got: Value = serde_json::from_str(answer.message.strip_prefix("got ").unwrap()).unwrap();
    let wanted = json!({
        "agent_id": "a", "agent_type": "synthesis", "capabilities": ["c"], "endpoint": "h:50052",
        "max_concurrent_tasks": 3, "metadata": {"version": "v"},
    });
    assert_eq!(got, wanted);
    let odd = AgentRegistration { agent_type: "odd".to_owned(), ..registration };
    assert!(!house.agents().register_agent(odd).await.unwrap().into_inner().success);

    let code = house.agents().execute_task(AgentTaskRequest::default()).await.unwrap_err().code();
    assert_eq!(code, Code::Unimplemented);
    let stream = house.agents().stream_execution(AgentTaskRequest::default()).await;
    assert_eq!(stream.unwrap_err().code(), Code::Unimplemented);
    let health = house.agents().agent_health_check(AgentHealthRequest::default()).await;
    assert_eq!(health.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_registration_over_grpc_does_not_end_the_drain_of_its_agent() {
    let house = House::new().await;
    let register = async |instance: &str| {
        let registration = AgentRegistration {
            agent_id: "x".to_owned(),
            agent_type: "x".to_owned(),
            endpoint: "h:50052".to_owned(),
            metadata: BTreeMap::from([("instance".to_owned(), instance.to_owned())]),
            ..AgentRegistration::default()
        };
        let answer = house.agents().register_agent(registration).await.unwrap().into_inner();
        assert!(answer.success, "{}", answer.message);
        let agent = house.world.get("/api/v1/agents/x").await.ok()["agent"].clone();
        agent["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(register("one").await, "active");
    house.world.post("/api/v1/nodes/agent:x/drain", r#"{"deadline":60}"#).await.ok();
    assert_eq!(register("one").await, "maintenance");
    assert_eq!(register("two").await, "active", "a new run of its program");
}

#[tokio::test]
async fn contract_c21_texts_of_metadata_that_are_json_scalars_are_such() {
    let house = House::new().await;
    let said = [("n", "10"), ("yes", "true"), ("none", "null"), ("text", "ten"), ("list", "[1]")];
    let metadata = said.map(|(key, text)| (key.to_owned(), text.to_owned()));
    let request = TaskRequest { metadata: BTreeMap::from(metadata), ..report("g-21") };
    house.client().submit_task(request).await.unwrap();
    let shown = house.world.get("/api/v1/tasks/g-21").await.ok();
    let metadata = &shown["task"]["metadata"];
    let kept = (&metadata["n"], &metadata["yes"], &metadata["text"], &metadata["list"]);
    assert_eq!(kept, (&json!(10), &json!(true), &json!("ten"), &json!("[1]")));
    // Over HTTP it is any JSON already.
    let body = r#"{"task_id":"h-21","task_type":"t","metadata":{"n":"10","list":[1]}}"#;
    house.world.post("/api/v1/tasks", body).await.ok();
    let shown = house.world.get("/api/v1/tasks/h-21").await.ok();
    let metadata = &shown["task"]["metadata"];
    assert_eq!((&metadata["n"], &metadata["list"]), (&json!("10"), &json!([1])));
}
