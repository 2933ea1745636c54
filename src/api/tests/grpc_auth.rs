//! The gRPC doors with authentication on: contract 1.4, 4.9. Each method is refused without a
//! credential, with a wrong one and with one that may not do it, and answers the right one; the
//! credentials are the metadata of the names that the headers have.

use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest as ProbeRequest;
use tonic_health::pb::health_client::HealthClient;

use super::World;
use super::grpc::{House, LONG, of, report};
use crate::agent::proto::{
    AgentHealthRequest, AgentRegistration, AgentTaskRequest, HealthCheckRequest, TaskCancelRequest,
    TaskStatus, TaskUpdate,
};
use crate::model::{NodeId, NodeStatus};
use crate::state::Command;

/// What a caller shows: the metadata's key and value.
type Shown<'a> = Option<(&'static str, &'a str)>;

const NOTHING: Shown<'static> = None;
const WRONG: Shown<'static> = Some(("x-api-key", "wrong-key"));
const ROOT: Shown<'static> = Some(("x-api-key", "root-key"));

fn key(of: &str) -> Shown<'_> {
    Some(("x-api-key", of))
}

fn with<T>(message: T, shown: Shown<'_>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some((name, value)) = shown {
        request.metadata_mut().insert(name, MetadataValue::try_from(value).unwrap());
    }
    request
}

async fn house() -> House {
    let world = World::of_roles().await;
    let router = world.router.clone();
    House::behind(world, router).await
}

/// The methods that ask for something, each with a role that may not call it.
const METHODS: [(&str, &str); 5] = [
    ("SubmitTask", "readonly-key"),
    ("GetTaskStatus", "node-key"),
    ("StreamTaskUpdates", "node-key"),
    ("CancelTask", "client-key"),
    ("RegisterAgent", "client-key"),
];

async fn call(house: &House, method: &str, shown: Shown<'_>) -> Result<(), Status> {
    match method {
        "SubmitTask" => {
            let answer = house.client().submit_task(with(report("g-1"), shown)).await?;
            assert_eq!(answer.into_inner().task_id, "g-1");
        }
        "GetTaskStatus" => {
            let answer = house.client().get_task_status(with(of("g-1"), shown)).await?;
            assert_eq!(answer.into_inner().task_id, "g-1");
        }
        "StreamTaskUpdates" => {
            let answer = house.client().stream_task_updates(with(of("g-1"), shown)).await?;
            let first = tokio::time::timeout(LONG, answer.into_inner().message()).await;
            assert_eq!(first.expect("in time")?.unwrap().task_id, "g-1");
        }
        "CancelTask" => {
            let request = TaskCancelRequest { task_id: "g-1".to_owned(), reason: String::new() };
            let answer = house.client().cancel_task(with(request, shown)).await?;
            assert!(answer.into_inner().success);
        }
        "RegisterAgent" => {
            let registration = AgentRegistration {
                agent_id: "a".to_owned(),
                agent_type: "synthesis".to_owned(),
                endpoint: "h:50052".to_owned(),
                ..AgentRegistration::default()
            };
            let answer = house.agents().register_agent(with(registration, shown)).await?;
            assert!(answer.into_inner().success);
        }
        other => panic!("no method {other}"),
    }
    Ok(())
}

#[tokio::test]
async fn contract_1_4_every_grpc_method_asks_who_calls_and_what_for() {
    let house = house().await;
    for (method, weak) in METHODS {
        for (shown, code, said) in [
            (NOTHING, Code::Unauthenticated, "Authentication required"),
            (WRONG, Code::Unauthenticated, "Invalid API key"),
            (Some(("authorization", "Bearer wrong")), Code::Unauthenticated, "Invalid API key"),
            (key(weak), Code::PermissionDenied, "Insufficient permissions"),
        ] {
            let status = call(&house, method, shown).await.unwrap_err();
            let got = (status.code(), status.message());
            assert_eq!(got, (code, said), "{method} with {shown:?}");
            assert!(status.metadata().get("error-code").is_some(), "{method} with {shown:?}");
        }
        // Nothing was done for any of them, and all of it is for whoever may.
        let known =
            house.world.cluster.view().read(|state| (state.tasks_len(), state.agents_len()));
        assert_eq!(known.0 > 0, method != "SubmitTask", "{method}");
        assert_eq!(known.1, 0, "{method}");
        call(&house, method, ROOT).await.unwrap_or_else(|status| panic!("{method}: {status}"));
    }
}

#[tokio::test]
async fn contract_1_4_grpc_takes_every_form_of_credentials() {
    let house = house().await;
    call(&house, "SubmitTask", key("client-key")).await.unwrap();
    for shown in [
        ("x-api-key", "readonly-key"),
        ("authorization", "Bearer readonly-key"),
        ("authorization", "ApiKey readonly-key"),
    ] {
        call(&house, "GetTaskStatus", Some(shown)).await.unwrap();
        call(&house, "StreamTaskUpdates", Some(shown)).await.unwrap();
    }
    call(&house, "RegisterAgent", key("node-key")).await.unwrap();
    call(&house, "CancelTask", key("operator-key")).await.unwrap();
}

/// A stream that was let in is asked again with each look: a key that is taken back ends it.
#[tokio::test]
async fn updates_end_when_the_key_of_their_reader_is_taken_back() {
    let house = house().await;
    call(&house, "SubmitTask", ROOT).await.unwrap();
    let answer = house.client().stream_task_updates(with(of("g-1"), key("client-key"))).await;
    let mut updates = answer.unwrap().into_inner();
    let mut next = async || -> Result<Option<TaskUpdate>, Status> {
        tokio::time::timeout(LONG, updates.message()).await.expect("in time")
    };
    assert!(next().await.unwrap().is_some());
    let config = r#"{"security":{"api_keys":["root-key"]}}"#;
    let root = [("x-api-key", "root-key")];
    house.world.ask("PUT", "/api/v1/config", &root, config).await.ok();
    house.world.ask("DELETE", "/api/v1/tasks/g-1", &root, "").await.ok();
    let ended = loop {
        match next().await {
            Ok(Some(_before)) => {}
            ended => break ended,
        }
    };
    assert_eq!(ended.unwrap_err().code(), Code::Unauthenticated);
}

/// Every look of a stream was counted as a request once, so a task that changed often ended it.
#[tokio::test]
async fn a_stream_of_updates_is_one_request_to_the_rate_limit() {
    let house = House::new().await;
    let body = r#"{"security":{"rate_limiting":true,"max_requests_per_minute":5}}"#;
    house.world.register("n1").await;
    house.world.submit("w-1").await;
    house.world.call("PUT", "/api/v1/config", body).await.ok();
    let mut updates = house.client().stream_task_updates(of("w-1")).await.unwrap().into_inner();
    let mut next = async || -> TaskUpdate {
        let update = tokio::time::timeout(LONG, updates.message()).await.expect("in time");
        update.unwrap_or_else(|status| panic!("{status}")).expect("the task goes on")
    };
    assert_eq!(next().await.status(), TaskStatus::Queued);
    for attempt in 1..=6 {
        house.world.place("w-1", "n1").await;
        house.world.acknowledge("w-1", attempt).await;
        while next().await.status() != TaskStatus::Running {}
        let node_id = NodeId::trusted("n1");
        let drain = Command::DrainNode { node_id: node_id.clone(), within_ms: 0 };
        house.world.commit(drain).await;
        let (epoch, node_ids) = (house.world.epoch, vec![node_id.clone()]);
        house.world.commit(Command::EndDrains { epoch, node_ids }).await;
        while next().await.status() == TaskStatus::Running {}
        let status = NodeStatus::Active;
        house.world.commit(Command::SetNodeStatus { node_id, status }).await;
    }
    // The stream was the first of the five.
    for _ in 1..5 {
        house.client().get_task_status(of("w-1")).await.unwrap();
    }
    let over = house.client().get_task_status(of("w-1")).await.unwrap_err();
    assert_eq!(over.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn contract_1_4_grpc_health_stays_open_and_agents_methods_stay_elsewhere() {
    let house = house().await;
    let health = house.client().health_check(HealthCheckRequest::default()).await.unwrap();
    assert!(health.into_inner().healthy);
    let mut probe = HealthClient::new(house.channel());
    let serving = probe.check(ProbeRequest { service: String::new() }).await.unwrap();
    assert_eq!(serving.into_inner().status().as_str_name(), "SERVING");
    for shown in [NOTHING, WRONG, ROOT] {
        let mut agents = house.agents();
        let execute = agents.execute_task(with(AgentTaskRequest::default(), shown)).await;
        assert_eq!(execute.unwrap_err().code(), Code::Unimplemented);
        let stream = agents.stream_execution(with(AgentTaskRequest::default(), shown)).await;
        assert_eq!(stream.unwrap_err().code(), Code::Unimplemented);
        let health = agents.agent_health_check(with(AgentHealthRequest::default(), shown)).await;
        assert_eq!(health.unwrap_err().code(), Code::Unimplemented);
    }
}
