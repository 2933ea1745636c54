//! Agents that are functions: they do a step well or badly, slowly or never, have no room, and lose
//! what they do when they are restarted.

use std::time::Duration;

use futures::future::BoxFuture;
use quorate::clock;
use quorate::leader::{AgentAnswer, AgentCall, AgentCaller};
use quorate::model::TaskFailure;

use crate::nodes::{agent_at, pause};
use crate::stage::{Phase, Stage};

/// Calls to the agents.
pub(crate) struct SimAgents(pub(crate) Stage);

impl AgentCaller for SimAgents {
    fn execute(&self, call: AgentCall) -> BoxFuture<'static, AgentAnswer> {
        let stage = self.0.clone();
        Box::pin(async move { take(stage, call).await })
    }
}

fn gone() -> AgentAnswer {
    AgentAnswer::Unreachable("the agent is down".to_owned())
}

async fn take(stage: Stage, call: AgentCall) -> AgentAnswer {
    let n = agent_at(&call.endpoint);
    pause(1, 5).await;
    let Some(run) = stage.nodes.run_of(n) else { return gone() };
    stage.invariants.agent_called(&call);
    stage.book().cover("agent_calls");
    let behaves = !stage.plan.faults.nodes || stage.phase() == Phase::Healed;
    let failed = |failure| AgentAnswer::Failed { failure, error: "boom".to_owned() };
    match if behaves { 0 } else { clock::random() % 100 } {
        0..60 => pause(2, 60).await,
        60..70 => pause(100, 1200).await,
        70..77 => return AgentAnswer::Busy,
        77..85 => return failed(TaskFailure::Retryable),
        85..88 => return failed(TaskFailure::Permanent),
        // Nothing is heard of it until the leader gives up.
        88..93 => tokio::time::sleep(Duration::from_secs(60)).await,
        // It did the work, and the answer is lost.
        _ => {
            pause(2, 60).await;
            return gone();
        }
    }
    if stage.nodes.run_of(n) != Some(run) {
        stage.book().cover("agents_died_at_work");
        return gone();
    }
    AgentAnswer::Completed(result_of(&call.agent_task_id))
}

/// What the agent that did this attempt gave; no two attempts give the same.
pub(crate) fn result_of(attempt: &str) -> String {
    format!(r#"{{"type":"json","data":"{attempt}"}}"#)
}
