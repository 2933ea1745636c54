//! Whole agents on sockets: called by the client that members use, and by one generated from the
//! same interface; registering with members that are only this test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::proto::agent_service_client::AgentServiceClient;
use super::proto::agent_service_server::{AgentService, AgentServiceServer};
use super::proto::{self, AgentHealthRequest, AgentTaskRequest, TaskStatus};
use super::task::FailureCode;
use super::{
    Agent, AgentCaller, AgentInput, AgentTask, Engine, Error, GrpcCaller, Options, Outside,
};

/// Long enough for anything on a busy machine.
const LONG: Duration = Duration::from_secs(30);

/// A member as far as agents see it: writes down who registers.
#[derive(Clone, Default)]
struct FakeMember {
    seen: Arc<Mutex<Vec<proto::AgentRegistration>>>,
    refuse: bool,
}

#[tonic::async_trait]
impl AgentService for FakeMember {
    async fn execute_task(
        &self,
        _: Request<AgentTaskRequest>,
    ) -> Result<Response<proto::AgentTaskResponse>, Status> {
        Err(Status::unimplemented("a member"))
    }

    type StreamExecutionStream = futures::stream::Empty<Result<proto::AgentTaskUpdate, Status>>;

    async fn stream_execution(
        &self,
        _: Request<AgentTaskRequest>,
    ) -> Result<Response<Self::StreamExecutionStream>, Status> {
        Err(Status::unimplemented("a member"))
    }

    async fn register_agent(
        &self,
        request: Request<proto::AgentRegistration>,
    ) -> Result<Response<proto::AgentRegistrationResponse>, Status> {
        self.seen.lock().push(request.into_inner());
        let success = !self.refuse;
        let message = if success { "" } else { "not wanted" }.to_owned();
        let registration_token = String::new();
        Ok(Response::new(proto::AgentRegistrationResponse { success, message, registration_token }))
    }

    async fn agent_health_check(
        &self,
        _: Request<AgentHealthRequest>,
    ) -> Result<Response<proto::AgentHealthResponse>, Status> {
        Err(Status::unimplemented("a member"))
    }
}

async fn serve(member: impl AgentService) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = Server::builder()
        .add_service(AgentServiceServer::new(member))
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(server);
    addr
}

fn options(agent_type: &str, join: &[String]) -> Options {
    Options {
        agent_type: agent_type.to_owned(),
        agent_id: Some("agent-1".to_owned()),
        join: join.to_vec(),
        listen: ([127, 0, 0, 1], 0).into(),
        advertise: None,
        max_concurrent_tasks: None,
        capabilities: vec!["extra".to_owned()],
        engine: Engine::Builtin,
        outside: Outside::default(),
        api_key: None,
        drain_timeout: LONG,
    }
}

/// A running agent, and the member it registered with.
struct House {
    member: FakeMember,
    endpoint: String,
    stop: CancellationToken,
    abort: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
}

impl House {
    async fn new(change: impl FnOnce(Options) -> Options) -> Self {
        let member = FakeMember::default();
        let addr = serve(member.clone()).await;
        // The first address is that of nobody: the next one is tried.
        let join = ["127.0.0.1:1".to_owned(), addr.to_string()];
        let agent = Agent::bind(change(options("data_ingest", &join))).await.unwrap();
        let endpoint = agent.endpoint().to_owned();
        let (stop, abort) = (agent.stop_token(), agent.abort_token());
        let running = tokio::spawn(agent.run());
        let house = Self { member, endpoint, stop, abort, running };
        house.until(|seen| !seen.is_empty()).await;
        house
    }

    async fn until(&self, wanted: impl Fn(&[proto::AgentRegistration]) -> bool) {
        let reached = async {
            while !wanted(&self.member.seen.lock()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, reached).await.expect("the member sees it in time");
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.endpoint)).unwrap().connect().await.unwrap()
    }

    async fn health(&self) -> proto::AgentHealthResponse {
        let mut client = AgentServiceClient::new(self.channel().await);
        client.agent_health_check(AgentHealthRequest::default()).await.unwrap().into_inner()
    }

    async fn until_active(&self, active: i32) {
        let reached = async {
            while self.health().await.active_tasks != active {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, reached).await.expect("the agent gets there in time");
    }
}

fn exec(program: &str) -> impl FnOnce(Options) -> Options + '_ {
    move |options| Options {
        engine: Engine::Exec(program.to_owned()),
        max_concurrent_tasks: Some(1),
        ..options
    }
}

fn task(agent_type: &str) -> AgentTask {
    AgentTask {
        task_id: "t".to_owned(),
        agent_task_id: "t/0/1".to_owned(),
        agent_type: agent_type.to_owned(),
        inputs: vec![AgentInput::text("a,b\n1,2\n")],
        ..AgentTask::default()
    }
}

#[tokio::test]
async fn contract_4_9_an_agent_registers_and_does_its_work() {
    let house = House::new(|options| options).await;
    let mut registered = house.member.seen.lock()[0].clone();
    let instance = registered.metadata.remove("instance").unwrap();
    assert!(instance.starts_with("run-"), "{instance}");
    let wanted = proto::AgentRegistration {
        agent_id: "agent-1".to_owned(),
        agent_type: "data_ingest".to_owned(),
        capabilities: vec!["data_ingest".to_owned(), "extra".to_owned()],
        endpoint: house.endpoint.clone(),
        max_concurrent_tasks: 20,
        metadata: BTreeMap::from([("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
    };
    assert_eq!(registered, wanted);

    let done = GrpcCaller::new().execute(&house.endpoint, task("data_ingest")).await.unwrap();
    assert_eq!(done.output_type, "ingested_data");
    assert_eq!(done.data["records"], json!([{"a": 1, "b": 2}]));
    let health = house.health().await;
    assert!(health.healthy);
    assert_eq!((health.active_tasks, health.completed_tasks, health.failed_tasks), (0, 1, 0));

    house.stop.cancel();
    house.running.await.unwrap().unwrap();
    let last = house.member.seen.lock().last().cloned().unwrap();
    assert_eq!(last.metadata["state"], "leaving");
}

#[tokio::test]
async fn contract_4_9_a_generated_client_interoperates() {
    let house = House::new(|options| options).await;
    let channel = house.channel().await;
    let mut client = AgentServiceClient::new(channel.clone());
    let request = || AgentTaskRequest {
        agent_task_id: "x".to_owned(),
        inputs: vec![proto::Input {
            r#type: proto::InputType::Json.into(),
            data: b"[{\"v\": 1}]".to_vec(),
            ..proto::Input::default()
        }],
        ..AgentTaskRequest::default()
    };
    let response = client.execute_task(request()).await.unwrap().into_inner();
    assert_eq!((response.agent_task_id.as_str(), response.status()), ("x", TaskStatus::Completed));
    assert!(response.output.unwrap().json_data.contains("\"count\":1"));

    let mut updates = client.stream_execution(request()).await.unwrap().into_inner();
    let mut statuses = Vec::new();
    while let Some(update) = updates.message().await.unwrap() {
        statuses.push((update.status(), update.progress_percent));
    }
    assert_eq!(statuses, [(TaskStatus::Running, 0), (TaskStatus::Completed, 100)]);

    let code = client.register_agent(proto::AgentRegistration::default()).await.unwrap_err().code();
    assert_eq!(code, Code::Unimplemented);
    let other = AgentHealthRequest { agent_id: "other".to_owned() };
    assert_eq!(client.agent_health_check(other).await.unwrap_err().code(), Code::NotFound);

    let mut health = HealthClient::new(channel);
    for service in ["", "orchestrator.AgentService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status.as_str_name(), "SERVING", "{service}");
    }
    house.stop.cancel();
    house.running.await.unwrap().unwrap();
}

#[tokio::test]
async fn nonsense_is_refused_with_a_code() {
    let house = House::new(|options| options).await;
    let caller = GrpcCaller::new();
    let failure = caller.execute(&house.endpoint, task("synthesis")).await.unwrap_err();
    assert_eq!(failure.code, FailureCode::AgentUnavailable, "another kind of agent");
    let mut client = AgentServiceClient::new(house.channel().await);
    let request = AgentTaskRequest { timeout_ms: -1, ..AgentTaskRequest::default() };
    assert_eq!(client.execute_task(request).await.unwrap_err().code(), Code::InvalidArgument);
    let odd = proto::Input { r#type: 99, ..proto::Input::default() };
    let request = AgentTaskRequest { inputs: vec![odd], ..AgentTaskRequest::default() };
    assert_eq!(client.execute_task(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_dropped_call_stops_the_program_and_frees_the_slot() {
    let house = House::new(exec("sleep 600")).await;
    let caller = GrpcCaller::new();
    let call = tokio::spawn(caller.execute(&house.endpoint, task("data_ingest")));
    house.until_active(1).await;

    let failure = caller.execute(&house.endpoint, task("data_ingest")).await.unwrap_err();
    assert!(failure.busy && failure.retryable, "{failure}");

    call.abort();
    house.until_active(0).await;
    assert_eq!(house.health().await.failed_tasks, 1);
}

#[tokio::test]
async fn a_call_is_cancelled_by_its_name() {
    let house = House::new(exec("sleep 600")).await;
    let caller = GrpcCaller::new();
    let call = tokio::spawn(caller.execute(&house.endpoint, task("data_ingest")));
    house.until_active(1).await;
    assert!(caller.cancel("t/0/1"));
    let failure = call.await.unwrap().unwrap_err();
    assert_eq!((failure.code, failure.retryable), (FailureCode::Cancelled, false));
    house.until_active(0).await;
    assert!(!caller.cancel("t/0/1"));
}

#[tokio::test]
async fn a_step_ends_when_its_time_is_over() {
    let house = House::new(exec("sleep 600")).await;
    let short = AgentTask { timeout: Duration::from_millis(100), ..task("data_ingest") };
    let failure = GrpcCaller::new().execute(&house.endpoint, short).await.unwrap_err();
    assert_eq!((failure.code, failure.retryable), (FailureCode::Timeout, true));
    house.until_active(0).await;
}

#[tokio::test]
async fn a_leaving_agent_finishes_what_runs_and_takes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let program = format!("while [ ! -e {} ]; do sleep 0.02; done; echo 7", go.display());
    let house = House::new(exec(&program)).await;
    let caller = GrpcCaller::new();
    let call = tokio::spawn(caller.execute(&house.endpoint, task("data_ingest")));
    house.until_active(1).await;
    house.stop.cancel();
    house.until(|seen| seen.iter().any(|one| one.metadata.contains_key("state"))).await;
    let failure = caller.execute(&house.endpoint, task("data_ingest")).await.unwrap_err();
    assert_eq!((failure.code, failure.busy), (FailureCode::AgentUnavailable, false));
    std::fs::write(&go, "").unwrap();
    assert_eq!(call.await.unwrap().unwrap().data, json!(7));
    house.running.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_aborted_agent_says_that_another_may_do_it() {
    let house = House::new(exec("sleep 600")).await;
    let call = tokio::spawn(GrpcCaller::new().execute(&house.endpoint, task("data_ingest")));
    house.until_active(1).await;
    house.stop.cancel();
    house.abort.cancel();
    let failure = call.await.unwrap().unwrap_err();
    assert_eq!((failure.code, failure.retryable), (FailureCode::AgentUnavailable, true));
    house.running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_refused_agent_does_not_run() {
    let member = FakeMember { refuse: true, ..FakeMember::default() };
    let addr = serve(member).await;
    let agent = Agent::bind(options("synthesis", &[addr.to_string()])).await.unwrap();
    let error = agent.run().await.unwrap_err();
    assert_eq!(error.to_string(), "the cluster refused the registration: not wanted");
}

#[tokio::test]
async fn options_are_checked() {
    let join = ["127.0.0.1:1".to_owned()];
    let cases = [
        Options { agent_type: " ".to_owned(), ..options("x", &join) },
        options("telepathy", &join),
        options("synthesis", &[]),
        Options { max_concurrent_tasks: Some(0), ..options("synthesis", &join) },
        Options { advertise: Some(":1".to_owned()), ..options("synthesis", &join) },
    ];
    for case in cases {
        assert!(matches!(Agent::bind(case.clone()).await, Err(Error::Options(_))), "{case:?}");
    }
    let drawn = Options { agent_id: None, ..options("synthesis", &join) };
    let agent = Agent::bind(drawn).await.unwrap();
    assert!(agent.agent_id().starts_with("agent-synthesis-") && agent.agent_id().len() == 24);
}

#[tokio::test]
async fn contract_4_7_registration_repeats() {
    let house = House::new(|options| options).await;
    // The member hears of the first one before the agent goes to sleep over it: what is skipped
    // before that is waited for, so it is skipped again.
    for _ in 0..100 {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(11)).await;
        tokio::time::resume();
        tokio::time::sleep(Duration::from_millis(50)).await;
        if house.member.seen.lock().len() >= 2 {
            break;
        }
    }
    house.until(|seen| seen.len() >= 2).await;
    let seen = house.member.seen.lock();
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn members_are_found_over_rest() {
    let member = FakeMember::default();
    let addr = serve(member.clone()).await;
    let status = json!({"members": [{"grpc": ""}, {"grpc": addr.to_string()}, {"name": "odd"}]});
    let rest = axum::Router::new()
        .route("/api/v1/cluster", axum::routing::get(move || async { axum::Json(status) }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, rest).await });
    let agent = Agent::bind(options("synthesis", &[url])).await.unwrap();
    let stop = agent.stop_token();
    let running = tokio::spawn(agent.run());
    let registered = async {
        while member.seen.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, registered).await.expect("it registers in time");
    stop.cancel();
    running.await.unwrap().unwrap();
}

/// An agent that writes down what it is asked, with the deadline of the call, and answers in turn.
#[derive(Clone, Default)]
struct Recorder {
    asked: Arc<Mutex<Vec<(AgentTaskRequest, bool)>>>,
    answers: Arc<Mutex<Vec<proto::AgentTaskResponse>>>,
}

#[tonic::async_trait]
impl AgentService for Recorder {
    async fn execute_task(
        &self,
        request: Request<AgentTaskRequest>,
    ) -> Result<Response<proto::AgentTaskResponse>, Status> {
        let has_deadline = request.metadata().contains_key("grpc-timeout");
        self.asked.lock().push((request.into_inner(), has_deadline));
        Ok(Response::new(self.answers.lock().remove(0)))
    }

    type StreamExecutionStream = futures::stream::Empty<Result<proto::AgentTaskUpdate, Status>>;

    async fn stream_execution(
        &self,
        _: Request<AgentTaskRequest>,
    ) -> Result<Response<Self::StreamExecutionStream>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn register_agent(
        &self,
        _: Request<proto::AgentRegistration>,
    ) -> Result<Response<proto::AgentRegistrationResponse>, Status> {
        Err(Status::unimplemented("an agent"))
    }

    async fn agent_health_check(
        &self,
        _: Request<AgentHealthRequest>,
    ) -> Result<Response<proto::AgentHealthResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }
}

#[tokio::test]
async fn contract_6_row_10_a_step_is_given_thirty_seconds_and_counts_when_it_is_completed() {
    let (agent, caller) = (Recorder::default(), GrpcCaller::new());
    let endpoint = serve(agent.clone()).await.to_string();
    let answer = |status: TaskStatus| proto::AgentTaskResponse {
        agent_task_id: "t/0/1".to_owned(),
        status: status.into(),
        output: Some(super::output("json_report", &json!({"x": 1}))),
        execution_time_ms: 7,
        ..proto::AgentTaskResponse::default()
    };
    let failed = proto::AgentTaskResponse {
        error: Some(proto::Error {
            error_code: "EXECUTION_FAILED".to_owned(),
            message: "no luck".to_owned(),
            retryable: true,
            ..proto::Error::default()
        }),
        output: None,
        ..answer(TaskStatus::Failed)
    };
    let odd = answer(TaskStatus::Running);
    agent.answers.lock().extend([answer(TaskStatus::Completed), failed, odd]);
    let parameters = BTreeMap::from([("report_title".to_owned(), "Q3".to_owned())]);
    let step = || AgentTask { parameters: parameters.clone(), ..task("synthesis") };

    let done = caller.execute(&endpoint, step()).await.unwrap();
    assert_eq!((done.output_type.as_str(), &done.data), ("json_report", &json!({"x": 1})));
    let (asked, has_deadline) = agent.asked.lock()[0].clone();
    assert!(has_deadline, "the agent ends by itself what its caller no longer waits for");
    assert_eq!(asked.timeout_ms, 30_000);
    let names = (asked.task_id.as_str(), asked.agent_task_id.as_str(), asked.agent_type.as_str());
    assert_eq!(names, ("t", "t/0/1", "synthesis"));
    assert_eq!((asked.inputs.len(), asked.parameters), (1, parameters.clone()));

    let failure = caller.execute(&endpoint, step()).await.unwrap_err();
    assert_eq!((failure.code, failure.retryable), (FailureCode::ExecutionFailed, true));
    assert!(failure.message.contains("no luck"), "{failure}");
    assert!(caller.execute(&endpoint, step()).await.is_err(), "only COMPLETED counts");
}
