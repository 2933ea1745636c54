//! The fleet: nodes that are functions, and the lives of agents, which are, too. They register, send heartbeats through some member, take
//! attempts and answer them well or badly, and report late, twice, or never.

use std::collections::VecDeque;

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use quorate::clock;
use quorate::cluster::{Beat, Cluster};
use quorate::leader::{Answer, Call, CallError, NodeCaller};
use quorate::model::{
    AGENT_PREFIX, AllowedHosts, Epoch, Load, NodeId, RequestId, TaskFailure, TaskId,
};
use quorate::outward::{Mail, MailError, Sent};
use quorate::state::{Command, NodeSpec, TaskOutcome, TaskReport};

use crate::jobs;
use crate::sink;
use crate::stage::{Phase, Stage};
use crate::swarms;
use crate::work::KINDS;

/// Nodes of a run.
const NODES: usize = 3;
/// What the agents do, which stand behind the nodes: one kind has two of them.
const AGENTS: [&str; 4] = [KINDS[0], KINDS[0], KINDS[1], KINDS[2]];
/// All of them.
pub(crate) const FLEET: usize = NODES + AGENTS.len();

/// One node as it is, whatever the cluster believes.
pub(crate) struct FakeNode {
    pub(crate) up: bool,
    /// Counts its restarts: whatever it ran before is lost.
    instance: u64,
    capacity: u32,
}

/// A report on its way to some member.
struct Report {
    due: Duration,
    request_id: RequestId,
    report: TaskReport,
}

pub(crate) struct Nodes {
    pub(crate) all: Mutex<Vec<FakeNode>>,
    reports: Mutex<VecDeque<Report>>,
}

impl Default for Nodes {
    fn default() -> Self {
        let node = |n| FakeNode { up: true, instance: 1, capacity: 1 + n % NODES as u32 };
        let all = Mutex::new((0..FLEET as u32).map(node).collect());
        Self { all, reports: Mutex::default() }
    }
}

impl Nodes {
    /// Stops a node, or starts it anew; now and then with more room than before.
    pub(crate) fn toggle(&self, n: usize) {
        let node = &mut self.all.lock()[n % FLEET];
        node.up = !node.up;
        if node.up {
            node.instance += 1;
            node.capacity += u32::from(node.instance.is_multiple_of(3));
        }
    }

    pub(crate) fn start_all(&self) {
        let down: Vec<usize> = (0..FLEET).filter(|n| !self.all.lock()[*n].up).collect();
        down.into_iter().for_each(|n| self.toggle(n));
    }

    /// Which run of its program this is, if it runs.
    pub(crate) fn run_of(&self, n: usize) -> Option<u64> {
        self.all.lock().get(n).filter(|node| node.up).map(|node| node.instance)
    }

    /// Those that were never stopped.
    pub(crate) fn never_stopped(&self) -> Vec<NodeId> {
        let all = self.all.lock();
        let steady = (0..FLEET).filter(|n| all[*n].up && all[*n].instance == 1);
        steady.map(|n| NodeId::trusted(&node_name(n))).collect()
    }

    fn is_up(&self, n: usize) -> bool {
        self.run_of(n).is_some()
    }

    fn take_due(&self, now: Duration) -> Option<Report> {
        let mut reports = self.reports.lock();
        let at = reports.iter().position(|report| report.due <= now)?;
        reports.remove(at)
    }

    fn later(&self, due: Duration, report: TaskReport) {
        let request_id = clock::mint_request_id();
        self.reports.lock().push_back(Report { due, request_id, report });
    }
}

fn node_name(n: usize) -> String {
    if n < NODES { format!("n{n}") } else { format!("{AGENT_PREFIX}a{n}") }
}

/// The number of the agent that an endpoint leads to.
pub(crate) fn agent_at(endpoint: &str) -> usize {
    let host = endpoint.split(':').next().unwrap_or_default();
    host.strip_prefix('a').and_then(|n| n.parse().ok()).unwrap_or(FLEET)
}

fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// Registers nodes that this member's state does not show as they are, and passes heartbeats on.
pub(crate) async fn keep(stage: Stage, member: Cluster) {
    loop {
        tokio::time::sleep(Duration::from_millis(150 + clock::random() % 100)).await;
        if member.member_id() == 0 {
            continue;
        }
        for n in 0..FLEET {
            let node_id = NodeId::trusted(&node_name(n));
            let (up, instance, capacity) = {
                let node = &stage.nodes.all.lock()[n];
                (node.up, node.instance.to_string(), node.capacity)
            };
            if !up {
                continue;
            }
            let known = member.view().read(|state| {
                let node = state.node(&node_id);
                node.is_some_and(|node| node.instance == instance && node.capacity == capacity)
            });
            if known {
                member.heartbeats().record(&node_id, Beat { status: None, load: None });
            } else {
                register(&stage, &member, n, instance, capacity).await;
            }
        }
    }
}

async fn register(stage: &Stage, member: &Cluster, n: usize, instance: String, capacity: u32) {
    let node_id = NodeId::trusted(&node_name(n));
    let spec = NodeSpec {
        host: if n < NODES { node_id.to_string() } else { format!("a{n}") },
        node_id: node_id.clone(),
        port: 80,
        node_type: "worker".to_owned(),
        capabilities: Vec::new(),
        capacity,
        agents_count: 0,
        agents: Vec::new(),
        load: Load::default(),
        version: String::new(),
        location: None,
        external_url: None,
        instance,
        metadata: String::new(),
        agent_type: n.checked_sub(NODES).map(|n| AGENTS[n].to_owned()),
    };
    // What does not succeed is tried again at the next look.
    let request_id = clock::mint_request_id();
    let told = member.propose(request_id, "node", Command::RegisterNode(spec)).await;
    if told.is_ok_and(|told| told.reply.is_ok()) {
        stage.invariants.registered(&node_id);
    }
}

/// Delivers reports through this member.
pub(crate) async fn report(stage: Stage, member: Cluster) {
    loop {
        tokio::time::sleep(Duration::from_millis(25)).await;
        if member.member_id() == 0 {
            continue;
        }
        let Some(Report { request_id, report, .. }) = stage.nodes.take_due(now()) else { continue };
        let command = Command::ReportTasks(vec![report.clone()]);
        match member.propose(request_id, "node", command).await {
            Ok(_) => stage.book().cover("reports"),
            Err(_) => {
                let due = now() + Duration::from_millis(200);
                stage.nodes.reports.lock().push_back(Report { due, request_id, report });
            }
        }
    }
}

/// Calls to the nodes.
pub(crate) struct SimCaller(pub(crate) Stage);

impl NodeCaller for SimCaller {
    fn post(&self, call: Call) -> BoxFuture<'static, Result<Answer, CallError>> {
        let stage = self.0.clone();
        Box::pin(async move {
            let timeout = call.timeout;
            let answer = tokio::time::timeout(timeout, take(stage, call)).await;
            answer.unwrap_or(Err(CallError::Timeout))
        })
    }

    fn get(&self, url: String, timeout: Duration) -> BoxFuture<'static, Result<Answer, CallError>> {
        let stage = self.0.clone();
        Box::pin(async move {
            let probe = async {
                pause(1, 5).await;
                let is_up = stage.nodes.is_up(node_of(&url));
                if is_up { answer(200, "{}".to_owned()) } else { down() }
            };
            tokio::time::timeout(timeout, probe).await.unwrap_or(Err(CallError::Timeout))
        })
    }

    fn mail(
        &self,
        mail: Mail,
        _hosts: &AllowedHosts,
    ) -> BoxFuture<'static, Result<Sent, MailError>> {
        let stage = self.0.clone();
        Box::pin(async move {
            let sent = tokio::time::timeout(mail.timeout, sink::take_mail(stage, &mail)).await;
            sent.unwrap_or(Err(MailError::Timeout))
        })
    }
}

/// The number of the node that a URL leads to; one that is not there for any other URL.
fn node_of(url: &str) -> usize {
    let rest = url.strip_prefix("http://n").unwrap_or_default();
    rest.split(':').next().and_then(|n| n.parse().ok()).unwrap_or(NODES)
}

pub(crate) fn down() -> Result<Answer, CallError> {
    Err(CallError::Connect("the node is down".to_owned()))
}

pub(crate) fn answer(status: u16, body: String) -> Result<Answer, CallError> {
    Ok(Answer { status, retry_after: None, body: Bytes::from(body) })
}

pub(crate) async fn pause(from_ms: u64, to_ms: u64) {
    let ms = from_ms + clock::random() % (to_ms - from_ms);
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

async fn take(stage: Stage, call: Call) -> Result<Answer, CallError> {
    if sink::is_here(&call.url) {
        return sink::take(stage, call).await;
    }
    if swarms::is_service(&call.url) {
        return swarms::serve(stage, call).await;
    }
    let n = node_of(&call.url);
    pause(1, 5).await;
    if !stage.nodes.is_up(n) {
        return down();
    }
    if call.url.contains("/api/cancel_task/") {
        return answer(200, r#"{"success":true}"#.to_owned());
    }
    if !call.url.ends_with("/api/v4/tasks/execute") {
        return answer(404, String::new());
    }
    let body: serde_json::Value = serde_json::from_slice(&call.body).expect("a body is JSON");
    let task_id = body["task_id"].as_str().expect("a body names its task");
    let attempt = body["attempt"].as_u64().expect("a body names its attempt");
    let epoch = body["epoch"].as_str().expect("a body names its epoch");
    stage.invariants.called(task_id, attempt, epoch, &node_name(n));
    stage.book().cover("calls");
    let result = jobs::result_of(task_id, attempt, &body["input_data"]);
    execute(&stage, n, task_id, attempt, epoch, result).await
}

/// What the node makes of an attempt.
async fn execute(
    stage: &Stage,
    n: usize,
    task_id: &str,
    attempt: u64,
    epoch: &str,
    result: String,
) -> Result<Answer, CallError> {
    let behaves = !stage.plan.faults.nodes || stage.phase() == Phase::Healed;
    let done = || answer(200, format!(r#"{{"success":true,"result":{result}}}"#));
    let later = |ms: u64, outcome| {
        let report = told(n, task_id, attempt, epoch, outcome);
        stage.nodes.later(now() + Duration::from_millis(ms), report);
    };
    let completed = || TaskOutcome::Completed { result: result.clone() };
    match if behaves { 0 } else { clock::random() % 100 } {
        0..45 => {
            pause(2, 60).await;
            done()
        }
        45..65 => {
            later(20 + clock::random() % 400, completed());
            answer(202, String::new())
        }
        65..72 => answer(429, String::new()),
        72..79 => answer(500, r#"{"success":false,"error":"boom"}"#.to_owned()),
        // It answers, and reports the same again, and once more when the task has moved on.
        79..86 => {
            later(30, completed());
            later(1500, failed());
            pause(2, 60).await;
            done()
        }
        // Its answer comes when nobody waits any more, and so does its report.
        86..91 => {
            later(4000, completed());
            pause(3000, 6000).await;
            done()
        }
        // It takes the attempt and is never heard of again.
        91..95 => answer(202, String::new()),
        _ => {
            pause(2, 60).await;
            Err(CallError::Broken("the connection broke".to_owned()))
        }
    }
}

fn failed() -> TaskOutcome {
    TaskOutcome::Failed { failure: TaskFailure::Retryable, error: "late".to_owned() }
}

fn told(n: usize, task_id: &str, attempt: u64, epoch: &str, outcome: TaskOutcome) -> TaskReport {
    let (term, member) = epoch.split_once('.').expect("an epoch is a term and a member");
    let number = |text: &str| text.parse().expect("both are numbers");
    TaskReport {
        task_id: TaskId::trusted(task_id),
        attempt: u32::try_from(attempt).ok(),
        epoch: Some(Epoch { term: number(term), member: number(member) }),
        node_id: Some(NodeId::trusted(&node_name(n))),
        agent_id: None,
        outcome,
        execution_ms: 5,
        performance_metrics: String::new(),
    }
}
