//! Runs workflows: calls the services that their tasks are for (contract 5.4; 6, row 11).
//!
//! The state says which task of a workflow is next, and is told what came of it; nothing is kept
//! here but the calls under way. So the next leader goes on where this one stopped, and makes at
//! most the one call of each workflow again that was under way: under the same `Idempotency-Key`, by
//! which a service can tell. A service that fails is the result of that task, not of the workflow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tracing::{debug, warn};

use super::duty::{Duty, DutyError, Next, Reign, Wakes};
use super::handover::{load_text, off_the_loop};
use super::http::{Answer, Call, CallError};
use super::metrics::{DutyName, LeaderMetrics};
use super::seat::{Seat, SeatError};
use crate::model::{DerivedId, Payload, Service, Workflow, WorkflowStatus, workflow_urgency};
use crate::state::{BlobPart, BotCommand, Command, STEP_RESULT_MAX, State, blob_owner};

/// Calls under way at once to one service, so that a slow one holds up no other.
pub(super) const PER_SERVICE_MAX: usize = 64;
/// Results that are proposed at once.
const RECORDS_MAX: usize = 32;
/// The longest wait without any wake-up.
const PERIOD: Duration = Duration::from_secs(1);
/// The pause when parameters cannot be read.
const LOAD_PAUSE: Duration = Duration::from_millis(200);
/// The part of an answer that is no result which goes into the error, in characters.
const EXCERPT_CHARS_MAX: usize = 200;

/// One task of a workflow: the workflow's number, and the place of the task.
pub(super) type StepPlace = (u64, u32);

/// A task that is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// Which.
    pub(super) place: StepPlace,
    /// Its workflow, as services are told.
    pub(super) workflow: DerivedId,
    /// As sent.
    pub(super) task_type: String,
    /// What the service is sent.
    pub(super) params: Payload,
}

/// The tasks that may begin now, given the calls under way by workflow: one of each workflow. The more
/// urgent go first, and among those the one whose last task ended first, so that a long workflow keeps
/// nobody waiting. What waits gets more urgent with time, as tasks do.
#[must_use]
pub(super) fn plan(view: &State, under_way: &BTreeMap<u64, Option<Service>>) -> Vec<Step> {
    let mut calls: BTreeMap<Service, usize> = BTreeMap::new();
    for service in under_way.values().flatten() {
        *calls.entry(*service).or_default() += 1;
    }
    let waiting = view.running_workflows().filter(|(number, _)| !under_way.contains_key(number));
    let mut waiting: Vec<_> = waiting.collect();
    let aging_ms = view.policy().aging_ms;
    let due_ms = |row: &Workflow| {
        let lacks = u64::from(100 - workflow_urgency(&row.priority).value());
        row.updated_at_ms.saturating_add(aging_ms.saturating_mul(lacks) / 100)
    };
    waiting.sort_by_key(|(number, row)| (due_ms(row), *number));
    let mut steps = Vec::new();
    for (number, row) in waiting {
        let Some(task) = row.tasks.get(row.position as usize) else { continue };
        if let Some(service) = Service::of_type(&task.task_type) {
            let calls = calls.entry(service).or_default();
            if *calls >= PER_SERVICE_MAX {
                continue;
            }
            *calls += 1;
        }
        steps.push(Step {
            place: (number, row.position),
            workflow: view.workflow_id(number),
            task_type: task.task_type.clone(),
            params: task.params.clone(),
        });
    }
    steps
}

/// Whether the result of a task is still waited for.
fn is_wanted(view: &State, (number, position): StepPlace) -> bool {
    let row = view.workflow(number);
    row.is_some_and(|row| row.status == WorkflowStatus::Running && row.position == position)
}

/// A task that was done.
#[derive(Debug, Clone)]
struct Done {
    place: StepPlace,
    /// JSON text.
    result: String,
}

#[derive(Debug)]
struct UnderWay {
    position: u32,
    service: Option<Service>,
    call: AbortHandle,
}

/// The duty around [`plan`].
#[derive(Debug, Default)]
pub(super) struct Workflows {
    under_way: BTreeMap<u64, UnderWay>,
    calls: JoinSet<Result<Done, SeatError>>,
    done: Vec<Done>,
}

impl<S: Seat> Duty<S> for Workflows {
    const NAME: DutyName = DutyName::Workflows;

    async fn round(&mut self, reign: &Reign<S>) -> Result<Next, DutyError> {
        while let Some(ended) = self.calls.try_join_next_with_id() {
            self.note(ended);
        }
        reign.seat.read(|view| self.drop_unwanted(view));
        if !self.done.is_empty() {
            self.record(reign).await?;
            return Ok(Next::Again(Duration::ZERO));
        }
        self.begin(reign);
        if self.calls.is_empty() {
            return Ok(Next::Wait(PERIOD));
        }
        // A call that ends is news of its own.
        let wake = <Self as Duty<S>>::wake(&reign.wakes);
        tokio::select! {
            biased;
            Some(ended) = self.calls.join_next_with_id() => self.note(ended),
            () = wake.notified() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
        Ok(Next::Again(Duration::ZERO))
    }

    fn wake(wakes: &Wakes) -> &Notify {
        &wakes.workflows
    }
}

impl Workflows {
    fn note(&mut self, ended: Result<(Id, Result<Done, SeatError>), JoinError>) {
        let without_result = match ended {
            Ok((_, Ok(done))) => {
                self.done.push(done);
                return;
            }
            Ok((id, Err(error))) => {
                debug!(%error, "a task of a workflow has to wait");
                id
            }
            Err(broken) => {
                if !broken.is_cancelled() {
                    warn!(%broken, "a call of a workflow broke");
                }
                broken.id()
            }
        };
        // The next round begins it anew.
        self.under_way.retain(|_, row| row.call.id() != without_result);
    }

    /// Breaks off calls of workflows that were cancelled or moved on without them.
    fn drop_unwanted(&mut self, view: &State) {
        self.done.retain(|done| is_wanted(view, done.place));
        self.under_way.retain(|number, row| {
            let wanted = is_wanted(view, (*number, row.position));
            if !wanted {
                row.call.abort();
            }
            wanted
        });
    }

    /// Proposes what came of tasks. What has no known outcome stays: a second record is stale.
    async fn record<S: Seat>(&mut self, reign: &Reign<S>) -> Result<(), DutyError> {
        let batch = self.done.iter().take(RECORDS_MAX).cloned();
        let records = batch.map(|done| async move {
            let ((workflow, seen), result) = (done.place, done.result);
            let command = BotCommand::RecordStep { epoch: reign.epoch, workflow, seen, result };
            reign.propose(Command::Bot(Box::new(command))).await.map(|judged| (workflow, judged))
        });
        for recorded in futures::future::join_all(records).await {
            if let (workflow, Some(judged)) = recorded? {
                reign.metrics.workflow_steps.add(judged.accepted);
                self.under_way.remove(&workflow);
                self.done.retain(|done| done.place.0 != workflow);
            }
        }
        Ok(())
    }

    fn begin<S: Seat>(&mut self, reign: &Reign<S>) {
        let under_way = self.under_way.iter().map(|(number, row)| (*number, row.service));
        let under_way: BTreeMap<u64, Option<Service>> = under_way.collect();
        for step in reign.seat.read(|view| plan(view, &under_way)) {
            let ((number, position), service) = (step.place, Service::of_type(&step.task_type));
            let url = service.and_then(|service| {
                let (path, seconds) = service.door()?;
                let url = format!("{}{path}", reign.services.url(service));
                Some((url, Duration::from_secs(seconds)))
            });
            let call = match url {
                None => {
                    let error = format!("Unknown task type: {}", step.task_type);
                    let done = Done { place: step.place, result: error_of(&error) };
                    self.calls.spawn(async move { Ok(done) })
                }
                Some((url, timeout)) => {
                    let (seat, caller) = (Arc::clone(&reign.seat), Arc::clone(&reign.caller));
                    let metrics = Arc::clone(&reign.metrics);
                    self.calls.spawn(async move {
                        let body = params(seat, &step).await?;
                        let answer = caller.post(call(&step, url, body, timeout)).await;
                        let result = judge(answer, timeout, &metrics);
                        Ok(Done { place: step.place, result })
                    })
                }
            };
            self.under_way.insert(number, UnderWay { position, service, call });
        }
    }
}

/// The parameters of a task.
async fn params<S: Seat>(seat: Arc<S>, step: &Step) -> Result<Bytes, SeatError> {
    let ((number, position), payload) = (step.place, step.params.clone());
    let stored = matches!(payload, Payload::Stored { .. });
    let owner = blob_owner(number, position);
    let load = move || load_text(seat.as_ref(), &owner, BlobPart::StepParams, &payload);
    match off_the_loop(stored, load).await.and_then(|loaded| loaded) {
        Ok(text) if text.is_empty() => Ok(Bytes::from_static(b"{}")),
        Ok(text) => Ok(Bytes::from(text)),
        Err(error) => {
            tokio::time::sleep(LOAD_PAUSE).await;
            Err(error)
        }
    }
}

fn call(step: &Step, url: String, body: Bytes, timeout: Duration) -> Call {
    let (workflow, position) = (step.workflow, step.place.1);
    let headers = vec![
        ("x-quorate-workflow", workflow.to_string()),
        ("idempotency-key", format!("{workflow}.{position}")),
    ];
    Call { headers, answer_bytes_max: STEP_RESULT_MAX, ..Call::new(url, body, timeout) }
}

/// The result of a task: what was answered, or the error.
fn judge(answer: Result<Answer, CallError>, timeout: Duration, metrics: &LeaderMetrics) -> String {
    metrics.workflow_calls.add(1);
    let error = match answer {
        Ok(answer) if (200..300).contains(&answer.status) => match json_text(&answer.body) {
            Ok(text) => return text,
            Err(error) => format!("the answer is no JSON: {error}"),
        },
        Ok(answer) => {
            let text = String::from_utf8_lossy(&answer.body);
            let text: String = text.trim().chars().take(EXCERPT_CHARS_MAX).collect();
            match text.as_str() {
                "" => format!("the service answered {}", answer.status),
                text => format!("the service answered {}: {text}", answer.status),
            }
        }
        Err(CallError::TooLarge) => format!("the answer is over {STEP_RESULT_MAX} bytes"),
        Err(CallError::Timeout) => format!("no answer within {} s", timeout.as_secs()),
        Err(error @ (CallError::Connect(_) | CallError::Broken(_) | CallError::NotAllowed(_))) => {
            error.to_string()
        }
    };
    metrics.workflow_errors.add(1);
    error_of(&error)
}

/// The text of one JSON value, as it was sent.
fn json_text(body: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?.trim();
    // Read as a whole, so that what is too deep to be read by others is no result either.
    serde_json::from_str::<serde_json::Value>(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

fn error_of(text: &str) -> String {
    serde_json::json!({ "error": text }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(answer: Result<Answer, CallError>) -> String {
        judge(answer, Duration::from_secs(30), &LeaderMetrics::default())
    }

    fn answer(status: u16, body: &str) -> Result<Answer, CallError> {
        Ok(Answer { status, body: Bytes::copy_from_slice(body.as_bytes()), ..Answer::default() })
    }

    #[test]
    fn contract_6_row_11_only_json_of_a_2xx_is_a_result() {
        let exact = r#"{"price": 12345678901234567890.5}"#;
        assert_eq!(result(answer(200, &format!(" {exact}\n"))), exact);
        assert_eq!(result(answer(202, "[1]")), "[1]");
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for (answer, error) in [
            (answer(500, ""), "the service answered 500"),
            (answer(302, " moved\n"), "the service answered 302: moved"),
            (answer(200, "<html>"), "the answer is no JSON: expected value at line 1 column 1"),
            (answer(204, ""), "the answer is no JSON: EOF while parsing a value"),
            (answer(200, &deep), "the answer is no JSON: recursion limit exceeded"),
            (Err(CallError::Timeout), "no answer within 30 s"),
            (Err(CallError::TooLarge), "the answer is over 1048576 bytes"),
            (Err(CallError::Connect("refused".to_owned())), "cannot connect: refused"),
        ] {
            let told: serde_json::Value = serde_json::from_str(&result(answer)).unwrap();
            let told = told["error"].as_str().unwrap();
            assert!(told.starts_with(error), "{told}");
        }
        let long = "é".repeat(10_000);
        assert!(result(answer(503, &long)).len() < 500, "an error is short");
    }
}
