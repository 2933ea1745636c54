//! What is taken away from a node or an agent is broken off there before it goes on elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::nodes::{json, serve};
use super::stepping::{ask, campaign};
use crate::leader::http::HttpCaller;
use crate::leader::seat::SeatError;
use crate::leader::solo::Solo;
use crate::leader::{
    AgentAnswer, AgentCall, AgentCaller, LeaderOptions, Leadership, NoAgents, Outward,
};
use crate::model::{
    Budget, FlowMode, MICRO, NodeId, NodeStatus, Resource, StepSpec, TaskId, TaskStatus,
};
use crate::state::{CampaignCommand, Command, FlowRequest};

const LONG: Duration = Duration::from_secs(20);
const LONG_MS: u64 = 20_000;

/// A leader at work until it is dropped.
struct Reign {
    solo: Arc<Solo>,
    _ends: DropGuard,
}

fn reign(agents: Arc<dyn AgentCaller>) -> Reign {
    let (solo, shutdown) = (Solo::new(), CancellationToken::new());
    solo.leading.send_replace(Some(1));
    let caller = Arc::new(HttpCaller::new().unwrap());
    let outward = Outward { agents, ..Outward::new(caller) };
    let leadership = Leadership::new(LeaderOptions::default(), outward);
    tokio::spawn({
        let (solo, shutdown) = (Arc::clone(&solo), shutdown.clone());
        async move { leadership.run(solo, shutdown).await }
    });
    Reign { solo, _ends: shutdown.drop_guard() }
}

/// A node that takes whatever it is given, and what it is told to stop.
async fn taker() -> (u16, Arc<Notify>) {
    let told = Arc::new(Notify::new());
    let on_told = Arc::clone(&told);
    let answer = move |path: String, body: serde_json::Value| {
        let told = Arc::clone(&on_told);
        async move {
            if path == "/api/cancel_task/t" {
                assert_eq!(body["attempt"], 1);
                told.notify_one();
                return json(StatusCode::OK, r#"{"success":true}"#);
            }
            json(StatusCode::ACCEPTED, "")
        }
    };
    (serve(answer).await.0, told)
}

#[tokio::test]
async fn a_node_whose_work_is_taken_away_is_told_to_stop() {
    let node_id = || NodeId::trusted("n");
    for command in [
        Command::DrainNode { node_id: node_id(), within_ms: 0 },
        Command::RemoveNode { node_id: node_id() },
        Command::SetNodeStatus { node_id: node_id(), status: NodeStatus::Offline },
    ] {
        let (port, told) = taker().await;
        let reign = reign(Arc::new(NoAgents));
        reign.solo.register("n", |spec| spec.port = port);
        let task_id = reign.solo.submit("t", |_| {});
        let runs = |state: &crate::state::State| {
            state.task(&task_id).is_some_and(|task| task.status == TaskStatus::Running)
        };
        reign.solo.until("it runs", runs).await;
        reign.solo.commit(command.clone()).unwrap();
        let heard = tokio::time::timeout(LONG, told.notified()).await;
        assert!(heard.is_ok(), "nobody told the node: {command:?}");
    }
}

/// Whatever becomes of the task: it may be tried again elsewhere, or not at all.
#[tokio::test]
async fn a_node_whose_last_try_was_given_up_is_told_to_stop() {
    for (max_retries, timeout_ms) in [(0, LONG_MS), (0, 50), (3, 50)] {
        let (port, told) = taker().await;
        let reign = reign(Arc::new(NoAgents));
        reign.solo.register("n", |spec| spec.port = port);
        let task_id = reign.solo.submit("t", |spec| {
            (spec.max_retries, spec.timeout_ms) = (max_retries, timeout_ms);
        });
        let began = |state: &crate::state::State| {
            state.task(&task_id).is_some_and(|task| task.started_at_ms > 0)
        };
        reign.solo.until("it began", began).await;
        if timeout_ms == LONG_MS {
            reign.solo.commit(Command::RemoveNode { node_id: NodeId::trusted("n") }).unwrap();
        }
        let heard = tokio::time::timeout(LONG, told.notified()).await;
        assert!(heard.is_ok(), "nobody told the node: {max_retries} {timeout_ms}");
        let status = reign.solo.state.read().task(&task_id).unwrap().status;
        let end = if max_retries == 0 { TaskStatus::DeadLetter } else { TaskStatus::Retrying };
        assert_eq!(status, end);
    }
}

/// What a node is asked: tries by task, the first cancel call, and the task of another.
#[derive(Default)]
struct Asked {
    tries: Mutex<BTreeMap<String, u32>>,
    first: Mutex<Option<String>>,
    /// The task whose cancel call did not come first is at the node again.
    is_back: Notify,
    /// A cancel call for the first try of that one.
    late: AtomicUsize,
}

/// A program that goes by the task's id alone would stop the second try.
#[tokio::test]
async fn a_node_that_has_the_next_try_is_not_told_to_stop_the_last() {
    let asked = Arc::new(Asked::default());
    let node = Arc::clone(&asked);
    let answer = move |path: String, body: serde_json::Value| {
        let node = Arc::clone(&node);
        async move {
            let Some(task_id) = path.strip_prefix("/api/cancel_task/") else {
                let task_id = body["task_id"].as_str().unwrap_or_default().to_owned();
                let tries =
                    *node.tries.lock().entry(task_id.clone()).and_modify(|n| *n += 1).or_insert(1);
                if tries == 2 && node.first.lock().as_ref().is_some_and(|first| *first != task_id) {
                    node.is_back.notify_one();
                }
                return json(StatusCode::ACCEPTED, "");
            };
            let first = node.first.lock().get_or_insert(task_id.to_owned()).clone();
            if first != task_id {
                node.late.fetch_add(usize::from(body["attempt"] == 1), Ordering::SeqCst);
            } else if body["attempt"] == 1 {
                // Until then the other call waits for its turn.
                node.is_back.notified().await;
            }
            json(StatusCode::OK, r#"{"success":true}"#)
        }
    };
    let port = serve(answer).await.0;
    let reign = reign(Arc::new(NoAgents));
    reign.solo.register("n", |spec| (spec.port, spec.capacity) = (port, 4));
    for name in ["t", "u"] {
        reign.solo.submit(name, |spec| (spec.max_retries, spec.timeout_ms) = (3, 1500));
    }
    // The second tries time out as well, and those calls are made after the one that is left out.
    let over = |state: &crate::state::State| {
        ["t", "u"].iter().all(|name| {
            state.task(&TaskId::trusted(name)).is_some_and(|task| task.retry_count >= 2)
        })
    };
    reign.solo.until("both have timed out twice", over).await;
    assert!(asked.tries.lock().values().all(|tries| *tries >= 2));
    assert_eq!(asked.late.load(Ordering::SeqCst), 0);
}

/// An agent that never answers; what it is asked and what is broken off is counted.
#[derive(Clone, Default)]
struct Sleeper {
    begun: Arc<Notify>,
    dropped: Arc<Notify>,
}

/// Tells when the call it is part of is dropped.
struct Told(Arc<Notify>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl AgentCaller for Sleeper {
    fn execute(&self, _: AgentCall) -> BoxFuture<'static, AgentAnswer> {
        let (begun, told) = (Arc::clone(&self.begun), Told(Arc::clone(&self.dropped)));
        Box::pin(async move {
            let _told = told;
            begun.notify_one();
            std::future::pending().await
        })
    }
}

#[tokio::test]
async fn the_call_of_a_drained_agent_ends_before_its_step_begins_elsewhere() {
    let sleeper = Sleeper::default();
    let reign = reign(Arc::new(sleeper.clone()));
    let register = |name: &str| {
        reign.solo.register(name, |spec| spec.agent_type = Some("alpha".to_owned()));
    };
    register("agent:a");
    let step =
        StepSpec { name: "only".to_owned(), agent_type: "alpha".to_owned(), ..StepSpec::default() };
    reign.solo.submit("t", |spec| {
        spec.flow = Some(FlowRequest::Steps { mode: FlowMode::Sequential, steps: vec![step] });
    });
    tokio::time::timeout(LONG, sleeper.begun.notified()).await.expect("the step begins");
    let drain = Command::DrainNode { node_id: NodeId::trusted("agent:a"), within_ms: 0 };
    reign.solo.commit(drain).unwrap();
    let broken_off = tokio::time::timeout(LONG, sleeper.dropped.notified()).await;
    assert!(broken_off.is_ok(), "the call stayed open");
    register("agent:b");
    tokio::time::timeout(LONG, sleeper.begun.notified()).await.expect("it goes on elsewhere");
}

/// An agent that never answers the first call, is busy at the second, and never answers another.
#[derive(Clone, Default)]
struct Moody {
    sleeper: Sleeper,
    calls: Arc<AtomicUsize>,
}

impl AgentCaller for Moody {
    fn execute(&self, call: AgentCall) -> BoxFuture<'static, AgentAnswer> {
        match self.calls.fetch_add(1, Ordering::SeqCst) {
            1 => Box::pin(std::future::ready(AgentAnswer::Busy)),
            _ => self.sleeper.execute(call),
        }
    }
}

/// Two reigns of one term have one epoch, by which a refusal in the second one counted as the first time
/// that anybody was asked: what had begun in the first one was free.
#[tokio::test]
async fn what_a_reign_before_handed_over_in_the_same_term_is_paid_for_when_it_is_refused() {
    let moody = Moody::default();
    let reign = reign(Arc::new(moody.clone()));
    let solo = &reign.solo;
    let led = |state: &crate::state::State| state.orchestrator("default").is_some();
    solo.until("it leads", led).await;
    solo.register("agent:a", |spec| spec.agent_type = Some("alpha".to_owned()));
    let id = campaign(solo, |plan| {
        plan.candidates = 1;
        plan.job.timeout_ms = 600_000;
        plan.job.requirements.agent_type = Some("alpha".to_owned());
        plan.budgets.insert(Resource::Tokens, Budget::of_units(10));
        plan.job.per_job.insert(Resource::Tokens, MICRO);
    });
    let (count, start, campaign_id) = (1, false, id.clone());
    ask(solo, CampaignCommand::RequestIterations { campaign_id, count, start, with: None });
    tokio::time::timeout(LONG, moody.sleeper.begun.notified()).await.expect("the job begins");
    *solo.barrier.lock() = Err(SeatError::NotStarted("no quorum".to_owned()));
    tokio::time::timeout(LONG, moody.sleeper.dropped.notified()).await.expect("the reign ends");
    *solo.barrier.lock() = Ok(());
    let taken_back = |state: &crate::state::State| {
        let job = crate::state::candidate_job(&id, 0, 0);
        moody.calls.load(Ordering::SeqCst) > 1
            && state.open_task(&job).is_none_or(|job| job.status != TaskStatus::Assigned)
            || moody.calls.load(Ordering::SeqCst) > 2
    };
    solo.until("the next reign asks again, and is refused", taken_back).await;
    let state = solo.state.read();
    assert_eq!(state.epoch(), crate::model::Epoch { term: 1, member: 1 });
    assert_eq!(state.campaign(&id).unwrap().budgets[&Resource::Tokens].spent, MICRO);
}
