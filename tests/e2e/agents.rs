//! Family A over gRPC: members that serve it, and agents that are programs of their own.

use std::path::Path;
use std::time::Duration;

use quorate::agent::proto::orchestrator_service_client::OrchestratorServiceClient;
use quorate::agent::proto::{
    ExecutionMode, Input, InputType, TaskCancelRequest, TaskRequest, TaskStatus, TaskStatusRequest,
};
use quorate::agent::{AgentCaller, AgentInput, AgentTask, FailureCode, GrpcCaller};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::house::{House, STOP};
use crate::http::{PATIENCE, until};
use crate::ports::free_addr;
use crate::process::Process;

type Client = OrchestratorServiceClient<Channel>;

/// A cluster of which every member serves gRPC.
pub(crate) async fn found(count: usize) -> House {
    let mut house = House::build(count, "");
    for member in &mut house.members {
        member.setup.grpc = Some(free_addr());
    }
    for place in 0..count {
        house.start(place);
    }
    house.all_ready().await;
    house
}

fn grpc_addr(house: &House, place: usize) -> String {
    house.members[place].setup.grpc.clone().unwrap()
}

pub(crate) async fn client(house: &House, place: usize) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{}", grpc_addr(house, place))).unwrap();
    Client::new(endpoint.connect().await.unwrap())
}

fn request(task_id: &str) -> TaskRequest {
    TaskRequest {
        task_id: task_id.to_owned(),
        task_type: "report_generation".to_owned(),
        inputs: vec![Input {
            r#type: InputType::Text.into(),
            data: b"month,sales\n1,2\n".to_vec(),
            ..Input::default()
        }],
        execution_mode: ExecutionMode::Sequential.into(),
        ..TaskRequest::default()
    }
}

fn of(task_id: &str) -> TaskStatusRequest {
    TaskStatusRequest { task_id: task_id.to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_serves_grpc_and_streams_outlive_the_leader() {
    let mut house = found(3).await;
    let leader = house.leader().await;
    let [first, second] = [(leader + 1) % 3, (leader + 2) % 3];
    let mut one = client(&house, first).await;
    let answer = one.submit_task(request("over-grpc")).await.unwrap().into_inner();
    assert_eq!(answer.status(), TaskStatus::Queued);

    let mut two = client(&house, second).await;
    let task = two.get_task_status(of("over-grpc")).await.unwrap().into_inner();
    assert_eq!(task.task_id, "over-grpc", "a write through one member is seen through another");

    // A task of family W that no node will ever take.
    house.submit(first, &json!({ "task_id": "stays", "task_type": "nobody_does_it" })).await;
    let mut updates = two.stream_task_updates(of("stays")).await.unwrap().into_inner();
    let update = updates.message().await.unwrap().unwrap();
    assert_eq!(update.status(), TaskStatus::Queued);

    house.kill(leader);
    let cancel = TaskCancelRequest { task_id: "stays".to_owned(), reason: "enough".to_owned() };
    let answer = one.cancel_task(cancel).await.unwrap().into_inner();
    assert!(answer.success, "{}", answer.message);
    let ended = async {
        let mut last = None;
        while let Some(update) = updates.message().await.unwrap() {
            last = Some(update);
        }
        last.unwrap()
    };
    let last = timeout(PATIENCE, ended).await.expect("the stream ends with the task");
    assert_eq!(last.status(), TaskStatus::Cancelled, "{last:?}");
    let unknown = two.get_task_status(of("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    // Open connections do not keep a member from stopping.
    assert!(house.stop(first).await.success());
}

/// Starts an agent of `house`; gives its endpoint once it listens.
pub(crate) async fn agent(house: &House, words: &[&str], log: &Path) -> (Process, String) {
    let endpoint = free_addr();
    let join: Vec<String> = (0..house.members.len()).map(|place| grpc_addr(house, place)).collect();
    let join = join.join(",");
    let mut all = vec!["agent", "--join", &join, "--listen", &endpoint];
    all.extend(words);
    let process = Process::start("agent", &all, log);
    until("the agent listens", PATIENCE, || async {
        process.said().contains("listens on").then_some(())
    })
    .await;
    (process, endpoint)
}

/// Runs until it is killed, or its agent is gone: no test leaves a process behind.
pub(crate) const RUNS_ON: &str = "while kill -0 $PPID 2>/dev/null; do sleep 0.05; done";

fn step(agent_type: &str) -> AgentTask {
    AgentTask {
        task_id: "t".to_owned(),
        agent_task_id: "t/1".to_owned(),
        agent_type: agent_type.to_owned(),
        inputs: vec![AgentInput::json(json!([{"sales": 1}, {"sales": 3}]))],
        ..AgentTask::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_programs_that_work_and_drain() {
    let house = found(1).await;
    let log = house.dir().join("agent.log");
    let (mut process, endpoint) = agent(&house, &["--agent-type", "data_analysis"], &log).await;
    let caller = GrpcCaller::new();
    let done = caller.execute(&endpoint, step("data_analysis")).await.unwrap();
    assert_eq!(done.output_type, "analysis_result");
    assert_eq!(done.data["summary_statistics"]["mean"], 2.0);
    process.signal(Signal::TERM);
    assert!(process.exit(STOP).await.success(), "{}", process.said());
    let failure = caller.execute(&endpoint, step("data_analysis")).await.unwrap_err();
    assert_eq!(failure.code, FailureCode::AgentUnavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_call_kills_the_program_of_an_agent() {
    let house = found(1).await;
    let (log, mark) = (house.dir().join("agent.log"), house.dir().join("mark"));
    // The program says that it runs, and what becomes of it.
    let program = format!("echo $$ > {}; {RUNS_ON}", mark.display());
    let words = ["--agent-type", "custom", "--exec", &program, "--max-concurrent-tasks", "1"];
    let (_process, endpoint) = agent(&house, &words, &log).await;
    let caller = GrpcCaller::new();
    let call = tokio::spawn(caller.execute(&endpoint, step("custom")));
    let pid = until("the program runs", PATIENCE, || async {
        std::fs::read_to_string(&mark).ok()?.trim().parse::<i32>().ok()
    });
    let pid = pid.await;
    let runs = || Path::new(&format!("/proc/{pid}")).exists();
    assert!(runs());
    let busy = caller.execute(&endpoint, step("custom")).await.unwrap_err();
    assert!(busy.busy, "{busy}");
    call.abort();
    until("the program is gone", PATIENCE, || async { (!runs()).then_some(()) }).await;
    // Its place is free again.
    let short = AgentTask { timeout: Duration::from_millis(200), ..step("custom") };
    let late = caller.execute(&endpoint, short).await.unwrap_err();
    assert_eq!(late.code, FailureCode::Timeout, "{late}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_dies_fails_its_step_for_another_try() {
    let house = found(1).await;
    let (log, mark) = (house.dir().join("agent.log"), house.dir().join("mark"));
    let program = format!("touch {}; {RUNS_ON}", mark.display());
    let words = ["--agent-type", "custom", "--exec", &program];
    let (mut process, endpoint) = agent(&house, &words, &log).await;
    let call = tokio::spawn(GrpcCaller::new().execute(&endpoint, step("custom")));
    until("the program runs", PATIENCE, || async { mark.exists().then_some(()) }).await;
    process.kill();
    let failure = timeout(PATIENCE, call).await.expect("it is noticed").unwrap().unwrap_err();
    assert!(failure.retryable && !failure.busy, "{failure}");
    // It had begun, so it does not count as an agent that could not be reached.
    assert_eq!(failure.code, FailureCode::ExecutionFailed, "{failure}");
}
