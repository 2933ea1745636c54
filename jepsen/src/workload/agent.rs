//! Fake agents: they register over the public API, serve `AgentService`, and log what they do
//! themselves. They forget nothing and drop nothing: a step that is handed over twice is run twice,
//! and each run gives a token of its own, so that results can be told apart. The parameters of a
//! step say how its first try goes wrong.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Response, Status};

use super::pipelines::NAME;
use super::{HarnessError, Stage};
use crate::client::{Client, Request};
use crate::history::Note;
use crate::proto::agent_service_server::{AgentService, AgentServiceServer};
use crate::proto::{
    AgentHealthRequest, AgentHealthResponse, AgentRegistration, AgentRegistrationResponse,
    AgentTaskRequest, AgentTaskResponse, AgentTaskUpdate, Error, Output, TaskStatus,
};

/// How often an agent registers again, which is its heartbeat.
const BEAT: Duration = Duration::from_secs(2);
/// Steps at once.
const CAPACITY: usize = 16;

/// One agent.
pub(super) struct Agent {
    agent_id: String,
    agent_type: &'static str,
    address: SocketAddr,
    stage: Stage,
    client: Client,
    rng: Mutex<StdRng>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    running: usize,
    calls: u64,
    /// Tries that were turned away once.
    turned_away: BTreeSet<String>,
}

/// A step as it is handed over.
struct Step {
    /// `task#step@attempt`.
    id: String,
    first: bool,
    fate: String,
    work: Duration,
    /// The tokens it works on.
    inputs: Vec<Value>,
}

impl Step {
    fn read(request: AgentTaskRequest) -> Option<Self> {
        let parameter = |name: &str| request.parameters.get(name).map(String::as_str);
        let ms = parameter("ms").and_then(|text| text.parse().ok()).unwrap_or(20);
        let token = |data: &[u8]| {
            let data: Value = serde_json::from_slice(data).unwrap_or_default();
            data["token"].clone()
        };
        let (_, attempt) = request.agent_task_id.rsplit_once('@')?;
        Some(Self {
            first: attempt == "1",
            fate: parameter("fate").unwrap_or("goes").to_owned(),
            work: Duration::from_millis(ms),
            inputs: request.inputs.iter().map(|input| token(&input.data)).collect(),
            id: request.agent_task_id,
        })
    }
}

/// One call at work. Dropping it means that the caller hung up.
struct Run<'a> {
    agent: &'a Agent,
    step: Step,
    call: u64,
    ended: bool,
}

impl Run<'_> {
    fn log(&self, f: &str, more: (&str, Value)) {
        let mut value = json!({"agent": self.agent.agent_id, "call": self.call});
        value[more.0] = more.1;
        let note = Note::new(NAME, f).key(self.step.id.clone()).value(value);
        self.agent.stage.recorder.observe(self.agent.agent_id.clone(), note);
    }

    /// Works, and gives the answer, which is logged before anybody gets it.
    async fn work(&mut self) -> AgentTaskResponse {
        let (first, fate) = (self.step.first, self.step.fate.clone());
        sleep(self.step.work).await;
        if first && fate == "hangs" {
            std::future::pending::<()>().await;
        }
        self.ended = true;
        let answer = AgentTaskResponse {
            agent_task_id: self.step.id.clone(),
            execution_time_ms: i64::try_from(self.step.work.as_millis()).unwrap_or(i64::MAX),
            ..AgentTaskResponse::default()
        };
        if fate == "refuses" || (first && fate == "fails") {
            let for_good = fate == "refuses";
            self.log("end", ("failed", json!(fate)));
            let code = if for_good { "VALIDATION_ERROR" } else { "EXECUTION_FAILED" };
            let error = Error {
                error_code: code.to_owned(),
                message: "as it was planned".to_owned(),
                retryable: !for_good,
                ..Error::default()
            };
            let status = TaskStatus::Failed.into();
            return AgentTaskResponse { status, error: Some(error), ..answer };
        }
        let token = format!("{}/{}/{}", self.step.id, self.agent.agent_id, self.call);
        self.log("end", ("token", json!(token)));
        let json_data = json!({ "token": token }).to_string();
        let output = Some(Output { json_data, ..Output::default() });
        AgentTaskResponse { status: TaskStatus::Completed.into(), output, ..answer }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.agent.held.lock().running -= 1;
        if !self.ended {
            self.log("dropped", ("token", Value::Null));
        }
    }
}

impl Agent {
    /// Starts an agent on `host`; it serves and registers until the stage is over.
    pub(super) async fn start(
        stage: &Stage,
        agent_id: String,
        agent_type: &'static str,
        host: IpAddr,
    ) -> Result<Arc<Self>, HarnessError> {
        let failed = |what: std::io::Error| HarnessError { workload: NAME, what: what.to_string() };
        let listener = TcpListener::bind((host, 0)).await.map_err(failed)?;
        let agent = Arc::new(Self {
            rng: Mutex::new(stage.rng(&agent_id)),
            agent_id,
            agent_type,
            address: listener.local_addr().map_err(failed)?,
            stage: stage.clone(),
            client: Client::new(),
            held: Mutex::default(),
        });
        let service = AgentServiceServer::from_arc(Arc::clone(&agent));
        let over = stage.over.clone();
        tokio::spawn(async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let served = Server::builder().add_service(service).serve_with_incoming(incoming);
            tokio::select! { () = over.cancelled() => {} _ = served => {} }
        });
        Ok(agent)
    }

    /// Its registration.
    pub(super) fn registration(&self) -> Request {
        let body = json!({"agent_id": self.agent_id, "agent_type": self.agent_type,
            "endpoint": self.address.to_string(), "max_concurrent_tasks": CAPACITY,
            "metadata": {"instance": self.address.to_string()}});
        Request::post("/api/v1/agents/register", body)
    }

    /// Registers with some member, again and again.
    pub(super) async fn beat(self: Arc<Self>) {
        let request = self.registration();
        loop {
            tokio::select! { () = self.stage.over.cancelled() => return, () = sleep(BEAT) => {} }
            let member = self.stage.members.pick(&mut self.rng.lock());
            if let Some((_, url)) = member {
                self.client.send(&url, &request).await;
            }
        }
    }

    /// The member that calls, where members have addresses of their own.
    fn seat_of(&self, from: Option<SocketAddr>) -> Option<u64> {
        let from = from?.ip().to_string();
        let host = |url: &str| {
            let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
            rest.rsplit_once(':').map_or(rest, |(host, _)| host).to_owned()
        };
        let members = self.stage.members.all();
        let mut there = members.iter().filter(|(_, url)| host(url) == from);
        there.next().map(|(number, _)| *number).filter(|_| there.next().is_none())
    }

    /// Takes a call and logs it, or says why not.
    fn begin(&self, step: Step, from: Option<SocketAddr>) -> Result<Run<'_>, Status> {
        let mut held = self.held.lock();
        let turns_away = step.first && step.fate == "busy";
        if held.running >= CAPACITY || (turns_away && held.turned_away.insert(step.id.clone())) {
            let note = Note::new(NAME, "busy").key(step.id).value(held.running);
            self.stage.recorder.observe(self.agent_id.clone(), note);
            return Err(Status::resource_exhausted("no room"));
        }
        held.running += 1;
        held.calls += 1;
        let run = Run { agent: self, call: held.calls, step, ended: false };
        let value = json!({"agent": self.agent_id, "call": run.call, "from": self.seat_of(from),
            "inputs": run.step.inputs});
        let note = Note::new(NAME, "begin").key(run.step.id.clone()).value(value);
        // Logged under the lock: the log of one agent is in the order in which things happened.
        self.stage.recorder.observe(self.agent_id.clone(), note);
        Ok(run)
    }
}

type Updates = std::pin::Pin<Box<dyn Stream<Item = Result<AgentTaskUpdate, Status>> + Send>>;

#[tonic::async_trait]
impl AgentService for Agent {
    async fn execute_task(
        &self,
        request: tonic::Request<AgentTaskRequest>,
    ) -> Result<Response<AgentTaskResponse>, Status> {
        let from = request.remote_addr();
        let step = Step::read(request.into_inner());
        let step = step.ok_or_else(|| Status::invalid_argument("it does not name its attempt"))?;
        let mut run = self.begin(step, from)?;
        Ok(Response::new(run.work().await))
    }

    type StreamExecutionStream = Updates;

    async fn stream_execution(
        &self,
        _request: tonic::Request<AgentTaskRequest>,
    ) -> Result<Response<Updates>, Status> {
        Err(Status::unavailable("this agent only takes whole steps"))
    }

    async fn register_agent(
        &self,
        _request: tonic::Request<AgentRegistration>,
    ) -> Result<Response<AgentRegistrationResponse>, Status> {
        Err(Status::unavailable("agents register with members"))
    }

    async fn agent_health_check(
        &self,
        _request: tonic::Request<AgentHealthRequest>,
    ) -> Result<Response<AgentHealthResponse>, Status> {
        Ok(Response::new(AgentHealthResponse { healthy: true, ..AgentHealthResponse::default() }))
    }
}
