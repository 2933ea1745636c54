//! Handing one attempt over: loads what it works on, and calls the node or the agent.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use super::agents::{self, AgentAnswer, AgentCall, StepInputs};
use super::duty::Reign;
use super::ladder::{self, Climbed, Reach, Rung, Target};
use super::lanes::Attempt;
use super::message::Message;
use super::reply::failed;
use super::seat::{Seat, SeatError};
use crate::clock;
use crate::model::{Node, Payload, Task, TaskFailure, TaskId};
use crate::state::{BlobPart, DispatchResult, State, TaskOutcome};

/// An attempt ready to be handed over.
pub(super) struct Job {
    pub(super) attempt: Attempt,
    /// Whose payloads it works on.
    owner: TaskId,
    pub(super) target: Target,
    message: Message,
    payloads: [(BlobPart, Payload); 3],
    rung: Option<Rung>,
    /// For an agent of family A.
    pub(super) step: Option<AgentJob>,
}

/// What an agent is given instead of a message.
pub(super) struct AgentJob {
    call: AgentCall,
    inputs: StepInputs,
}

/// An attempt at `task`, which works on the payloads of `owner` if it is a step.
pub(super) fn job(
    task: &Task,
    owner: Option<&Task>,
    attempt: Attempt,
    target: Target,
    rung: Option<Rung>,
) -> Job {
    let owner = owner.unwrap_or(task);
    // Reports are checked against the reign that placed the attempt, which may be an older one.
    let epoch = task.execution.as_ref().map(|execution| execution.epoch).unwrap_or_default();
    Job {
        message: Message::of(task, attempt.1, epoch),
        owner: owner.task_id.clone(),
        step: None,
        attempt,
        target,
        payloads: [
            (BlobPart::Input, owner.input.clone()),
            (BlobPart::Requirements, owner.requirements_raw.clone()),
            (BlobPart::Metadata, owner.metadata.clone()),
        ],
        rung,
    }
}

/// Loads what is stored outside the row and makes the call.
pub(super) async fn hand_over<S: Seat>(reign: Arc<Reign<S>>, job: Job) -> Climbed {
    let Job { attempt: _, owner: task_id, target, mut message, payloads, rung, step } = job;
    if let Some(job) = step {
        return hand_to_agent(&reign, job).await;
    }
    let stored = payloads.iter().any(|(_, payload)| matches!(payload, Payload::Stored { .. }));
    let seat = Arc::clone(&reign.seat);
    let load = move || {
        payloads.map(|(part, payload)| match payload {
            Payload::Absent => Ok(String::new()),
            Payload::Inline(text) => Ok(text),
            Payload::Stored { .. } => load_text(seat.as_ref(), &task_id, part, &payload),
        })
    };
    let loaded = match off_the_loop(stored, load).await {
        Ok(loaded) => loaded,
        Err(error) => return unloaded(&error),
    };
    let [input, requirements, metadata] = loaded;
    match (input, requirements, metadata) {
        (Ok(input), Ok(requirements), Ok(metadata)) => {
            (message.input, message.requirements, message.metadata) =
                (input, requirements, metadata);
            ladder::climb(reign.caller.as_ref(), &target, &message, rung).await
        }
        (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => unloaded(&error),
    }
}

/// Loads on a thread what is `stored`, because that touches the disk; a simulated disk is memory.
pub(super) async fn off_the_loop<T: Send + 'static>(
    stored: bool,
    load: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SeatError> {
    if !stored || clock::is_simulated() {
        return Ok(load());
    }
    let loaded = tokio::task::spawn_blocking(load).await;
    loaded.map_err(|broken| SeatError::Stopped(broken.to_string()))
}

/// The attempt as an agent gets it, when the node is one.
pub(super) fn agent_job(view: &State, task: &Task, node: &Node) -> Option<AgentJob> {
    let agent_type = node.agent_type.clone()?;
    // A step is called by its task's name; a job of a campaign is a task of its own.
    let name = task.step_of.as_ref().map_or(&task.task_id, |of| &of.task_id);
    let call = AgentCall {
        endpoint: agents::endpoint_of(node),
        task_id: name.to_string(),
        agent_task_id: format!("{}@{}", task.task_id, task.attempt),
        agent_type,
        inputs: String::new(),
        parameters: String::new(),
        timeout: Duration::from_millis(task.timeout_ms),
        reach: Arc::clone(&view.policy().reach),
    };
    Some(AgentJob { call, inputs: StepInputs::of(view, task)? })
}

/// Loads what a step works on and has an agent do it.
async fn hand_to_agent<S: Seat>(reign: &Arc<Reign<S>>, job: AgentJob) -> Climbed {
    let AgentJob { mut call, inputs } = job;
    let (stored, seat) = (inputs.is_stored(), Arc::clone(&reign.seat));
    let loaded = off_the_loop(stored, move || inputs.load(seat.as_ref())).await;
    match loaded.and_then(|loaded| loaded) {
        Ok((inputs, parameters)) => (call.inputs, call.parameters) = (inputs, parameters),
        Err(error) => return unloaded(&error),
    }
    let timeout = call.timeout;
    let (result, reach) = match tokio::time::timeout(timeout, reign.agents.execute(call)).await {
        Err(_elapsed) => {
            let error = format!("no answer within {} ms", timeout.as_millis());
            (failed(TaskFailure::Timeout, error), Reach::Silent)
        }
        Ok(AgentAnswer::Completed(result)) => {
            (DispatchResult::Finished(TaskOutcome::Completed { result }), Reach::Answered)
        }
        Ok(AgentAnswer::Failed { failure, error }) => (failed(failure, error), Reach::Answered),
        Ok(AgentAnswer::Busy) => (DispatchResult::Refused { retry_after_ms: 0 }, Reach::Full),
        Ok(AgentAnswer::Unreachable(error)) => {
            (failed(TaskFailure::Network, error), Reach::Unreachable)
        }
    };
    Climbed { result, rung: None, reach }
}

/// Reads one payload as text.
///
/// # Errors
/// When it is gone or cannot be read.
pub(super) fn load_text<S: Seat>(
    seat: &S,
    task_id: &TaskId,
    part: BlobPart,
    payload: &Payload,
) -> Result<String, SeatError> {
    match payload {
        Payload::Absent => return Ok(String::new()),
        Payload::Inline(text) => return Ok(text.clone()),
        Payload::Stored { .. } => {}
    }
    let missing = || SeatError::NotStarted("the stored payload is gone".to_owned());
    let bytes = seat.load_payload(task_id, part, payload)?.ok_or_else(missing)?;
    String::from_utf8(bytes.into()).map_err(|error| SeatError::NotStarted(error.to_string()))
}

/// The node was never called. The task is deleted, or this member's disk is in trouble; in both
/// cases the attempt is not the node's fault, and another try may go better.
fn unloaded(error: &SeatError) -> Climbed {
    debug!(%error, "a payload cannot be loaded");
    let result = failed(TaskFailure::Retryable, format!("the payload cannot be loaded: {error}"));
    Climbed { result, rung: None, reach: Reach::Silent }
}
