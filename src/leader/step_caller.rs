//! The real caller of agents: over gRPC, or in this process for those that the leader serves itself.

use futures::future::BoxFuture;

use super::agents::{AgentAnswer, AgentCall, AgentCaller};
use crate::agent::{
    AgentCaller as _, AgentDone, AgentFailure, AgentTask, Builtins, FailureCode, GrpcCaller,
};
use crate::model::TaskFailure;
use crate::outward::Clients;

/// See the module's description. Cloning shares its connections and what its agents remember.
#[derive(Debug, Clone, Default)]
pub struct StepCaller {
    grpc: GrpcCaller,
    builtins: Builtins,
}

impl StepCaller {
    /// One whose own agents reach others by `clients`.
    #[must_use]
    pub fn new(clients: Clients) -> Self {
        Self { grpc: GrpcCaller::new(), builtins: Builtins::new(clients) }
    }
}

impl AgentCaller for StepCaller {
    fn execute(&self, call: AgentCall) -> BoxFuture<'static, AgentAnswer> {
        let task = match AgentTask::from_texts(&call.inputs, &call.parameters) {
            Ok(task) => task,
            Err(failure) => return Box::pin(async move { answer(Err(failure)) }),
        };
        let task = AgentTask {
            task_id: call.task_id,
            agent_task_id: call.agent_task_id,
            agent_type: call.agent_type,
            timeout: call.timeout,
            ..task
        };
        if call.endpoint.is_empty() {
            let builtins = self.builtins.clone();
            let reach = call.reach;
            return Box::pin(async move { answer(builtins.run(task, &reach).await) });
        }
        let called = self.grpc.execute(&call.endpoint, task);
        Box::pin(async move { answer(called.await) })
    }

    fn serves_builtin(&self) -> bool {
        true
    }
}

fn answer(outcome: Result<AgentDone, AgentFailure>) -> AgentAnswer {
    let failure = match outcome {
        Ok(done) => return AgentAnswer::Completed(done.to_json().to_string()),
        Err(failure) => failure,
    };
    if failure.busy {
        return AgentAnswer::Busy;
    }
    let error = failure.message;
    match failure.code {
        FailureCode::AgentUnavailable => AgentAnswer::Unreachable(error),
        FailureCode::Timeout => AgentAnswer::Failed { failure: TaskFailure::Timeout, error },
        FailureCode::ExecutionFailed
        | FailureCode::Cancelled
        | FailureCode::ValidationError
        | FailureCode::MessageTooLarge => {
            let failure =
                if failure.retryable { TaskFailure::Retryable } else { TaskFailure::Permanent };
            AgentAnswer::Failed { failure, error }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_4_6_what_may_be_tried_again() {
        let failed = |failure| answer(Err(failure));
        assert_eq!(failed(AgentFailure::busy("full")), AgentAnswer::Busy);
        let failure = TaskFailure::Permanent;
        let error = "odd".to_owned();
        assert_eq!(
            failed(AgentFailure::invalid("odd")),
            AgentAnswer::Failed { failure, error: error.clone() }
        );
        let broken = AgentFailure::new(FailureCode::ExecutionFailed, "odd");
        let failure = TaskFailure::Retryable;
        assert_eq!(failed(broken), AgentAnswer::Failed { failure, error: error.clone() });
        let gone = AgentFailure::new(FailureCode::AgentUnavailable, "odd");
        assert_eq!(failed(gone), AgentAnswer::Unreachable(error));
    }
}
