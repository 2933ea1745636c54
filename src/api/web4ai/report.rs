//! Reports of the end of an attempt: from a worker's body to a [`TaskReport`] (contract 2.7).
//! Heartbeats carry the same shape under `completed_tasks`.

use crate::api::object::{FieldError, Object};
use crate::model::{Epoch, NodeId, TaskFailure, TaskId};
use crate::state::{TaskOutcome, TaskReport};

const ERROR_BYTES_MAX: usize = 16 * 1024;

/// Reads a report of `task_id`. `node_id` is who reports, when the body does not say.
///
/// # Errors
/// [`FieldError`] naming what cannot be used.
pub(super) fn parse(
    task_id: TaskId,
    node_id: Option<&NodeId>,
    body: &Object<'_>,
) -> Result<TaskReport, FieldError> {
    let said = text(body, "node_id")?;
    let said = said.as_deref().map(NodeId::parse).transpose();
    let said = said.map_err(|_| FieldError::new("node_id", "a node id"))?;
    Ok(TaskReport {
        task_id,
        attempt: attempt(body)?,
        epoch: epoch(body)?,
        node_id: said.or_else(|| node_id.cloned()),
        agent_id: text(body, "agent_id")?,
        outcome: outcome(body)?,
        execution_ms: execution_ms(body)?,
        performance_metrics: performance_metrics(body)?,
    })
}

fn text(body: &Object<'_>, key: &str) -> Result<Option<String>, FieldError> {
    let text = body.text(key)?.filter(|text| !text.is_empty());
    Ok(text.map(|text| text.into_owned()))
}

fn attempt(body: &Object<'_>) -> Result<Option<u32>, FieldError> {
    let attempt = body.count("attempt")?;
    let narrow = |attempt| u32::try_from(attempt);
    attempt.map(narrow).transpose().map_err(|_| FieldError::new("attempt", "a small number"))
}

/// The epoch as it was dispatched: `"<term>.<member>"`, or an object of the two.
fn epoch(body: &Object<'_>) -> Result<Option<Epoch>, FieldError> {
    let wanted = || FieldError::new("epoch", "as it was dispatched, <term>.<member>");
    let Some(raw) = body.raw("epoch") else { return Ok(None) };
    if let Some(object) = Object::of(raw) {
        let (term, member) = (object.count("term")?, object.count("member")?);
        let epoch = term.zip(member).map(|(term, member)| Epoch { term, member });
        return epoch.map(Some).ok_or_else(wanted);
    }
    let text = body.text("epoch").map_err(|_| wanted())?.unwrap_or_default();
    let (term, member) = text.split_once('.').ok_or_else(wanted)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| wanted());
    Ok(Some(Epoch { term: number(term)?, member: number(member)? }))
}

fn outcome(body: &Object<'_>) -> Result<TaskOutcome, FieldError> {
    let result = || {
        let sent = body.json("result_data");
        if sent.is_empty() { body.json("result") } else { sent }
    };
    let failed = |failure| Ok(TaskOutcome::Failed { failure, error: error_text(body) });
    let retryable = body.flag("retryable")?;
    let failure = match retryable {
        Some(true) => TaskFailure::Retryable,
        // The conditions under which upstream tries again do not hold for work that ran and
        // failed (contract 2.7), so a failure is final unless its worker says otherwise.
        Some(false) | None => TaskFailure::Permanent,
    };
    let status = body.text("status")?.map(|status| status.to_ascii_lowercase());
    match status.as_deref() {
        Some("completed" | "complete" | "success" | "succeeded" | "done") => {
            Ok(TaskOutcome::Completed { result: result() })
        }
        Some("failed" | "failure" | "error" | "cancelled") => failed(failure),
        Some("timeout" | "timed_out") if retryable == Some(false) => failed(failure),
        Some("timeout" | "timed_out") => failed(TaskFailure::Timeout),
        Some(_) => Err(FieldError::new("status", "completed or failed")),
        None => match body.flag("success")? {
            Some(true) => Ok(TaskOutcome::Completed { result: result() }),
            Some(false) => failed(failure),
            None => Err(FieldError::new("status", "completed or failed")),
        },
    }
}

/// The text of the error. Family A's is an object with a message.
fn error_text(body: &Object<'_>) -> String {
    let said = ["error", "error_message", "message"].into_iter().find_map(|key| {
        let object = body.raw(key).and_then(Object::of);
        let inner = object.and_then(|object| object.text("message").ok().flatten());
        inner.or_else(|| body.text(key).ok().flatten()).filter(|text| !text.is_empty())
    });
    let mut text = said.map_or_else(|| "the task failed".to_owned(), |text| text.into_owned());
    if text.len() > ERROR_BYTES_MAX {
        // Errors stay in memory on every member; the end of a long one says least.
        let cut = (0..=ERROR_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
    }
    text
}

/// `execution_ms`, or `execution_time` in seconds.
fn execution_ms(body: &Object<'_>) -> Result<u64, FieldError> {
    if let Some(millis) = body.count("execution_ms")? {
        return Ok(millis);
    }
    let seconds = body.number("execution_time")?.unwrap_or(0.0).max(0.0);
    Ok((seconds * 1000.0).round() as u64)
}

fn performance_metrics(body: &Object<'_>) -> Result<String, FieldError> {
    let metrics = body.object("performance_metrics")?;
    Ok(if metrics.is_empty() { String::new() } else { body.json("performance_metrics") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<TaskReport, FieldError> {
        let body = Object::parse(body.as_bytes()).unwrap();
        parse(TaskId::trusted("t"), None, &body)
    }

    #[test]
    fn contract_2_7_outcomes() {
        let completed = |result: &str| TaskOutcome::Completed { result: result.to_owned() };
        let failed =
            |failure, error: &str| TaskOutcome::Failed { failure, error: error.to_owned() };
        for (body, outcome) in [
            (r#"{"status":"completed","result":{"a":1}}"#, completed(r#"{"a":1}"#)),
            (r#"{"status":"COMPLETED","result_data":7,"result":1}"#, completed("7")),
            (r#"{"success":true}"#, completed("")),
            (r#"{"success":false,"error":"e"}"#, failed(TaskFailure::Permanent, "e")),
            (r#"{"status":"failed"}"#, failed(TaskFailure::Permanent, "the task failed")),
            (
                r#"{"status":"failed","error_message":"e","retryable":true}"#,
                failed(TaskFailure::Retryable, "e"),
            ),
            (r#"{"status":"timeout","error":"slow"}"#, failed(TaskFailure::Timeout, "slow")),
            (
                r#"{"status":"failed","error":{"message":"m","code":"X"}}"#,
                failed(TaskFailure::Permanent, "m"),
            ),
        ] {
            assert_eq!(read(body).unwrap().outcome, outcome, "{body}");
        }
        assert!(read("{}").is_err());
        assert!(read(r#"{"status":"perhaps"}"#).is_err());
    }

    #[test]
    fn ours_attempt_epoch_and_figures() {
        let report = read(
            r#"{"status":"completed","attempt":3,"epoch":"7.2","node_id":"n1","agent_id":"a",
                "execution_time":1.25,"performance_metrics":{"x":1}}"#,
        );
        let report = report.unwrap();
        assert_eq!((report.attempt, report.execution_ms), (Some(3), 1250));
        assert_eq!(report.epoch, Some(Epoch { term: 7, member: 2 }));
        assert_eq!(report.node_id.unwrap().as_str(), "n1");
        assert_eq!(report.performance_metrics, r#"{"x":1}"#);
        let report = read(r#"{"success":true,"epoch":{"term":7,"member":2}}"#).unwrap();
        assert_eq!(report.epoch, Some(Epoch { term: 7, member: 2 }));
        assert!(read(r#"{"success":true,"epoch":"x"}"#).is_err());
    }

    #[test]
    fn long_errors_are_cut_between_characters() {
        let body = format!(r#"{{"success":false,"error":"{}"}}"#, "ä".repeat(20_000));
        let TaskOutcome::Failed { error, .. } = read(&body).unwrap().outcome else { panic!() };
        assert_eq!(error.len(), ERROR_BYTES_MAX);
    }
}
