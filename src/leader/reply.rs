//! What a node's answer to a dispatch means (contract 2.7, 6).

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::http::Answer;
use super::ladder::Rung;
use crate::model::TaskFailure;
use crate::state::{DispatchResult, TaskOutcome};

/// How long a busy node is left alone when it does not say.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(5);
/// A busy node is left alone at least so long, or the calls would spin.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(200);
/// A busy node is asked again after so long whatever it says.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Characters of a node's error text that are kept.
const ERROR_CHARS_MAX: usize = 500;

/// What an answer says about the path it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The node has no such path: try the next one.
    NoSuchPath,
    /// It has, and this came of it.
    Answered(DispatchResult),
}

/// The fields that answers are known to have, each still as JSON text.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default)]
    success: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result_data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    completed_at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error_message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
}

/// Reads an answer that came over `rung`.
#[must_use]
pub(super) fn read(rung: Rung, answer: &Answer) -> Verdict {
    // An array would be read as the fields in their order.
    let is_object = answer.body.trim_ascii_start().starts_with(b"{");
    let fields: Option<Fields<'_>> =
        is_object.then(|| serde_json::from_slice(&answer.body).ok()).flatten();
    let result = match answer.status {
        404 | 405 => return Verdict::NoSuchPath,
        429 => {
            let wait = answer.retry_after.unwrap_or(RETRY_AFTER_DEFAULT);
            let wait = wait.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX).as_millis();
            DispatchResult::Refused { retry_after_ms: u64::try_from(wait).unwrap_or(u64::MAX) }
        }
        200..=299 => match fields {
            Some(fields) => fields.outcome(),
            None if takes_any_body(rung, answer.status) => DispatchResult::Acknowledged,
            None => failed(TaskFailure::Network, "the node's answer is no JSON object".to_owned()),
        },
        status => {
            let said = fields.as_ref().and_then(Fields::error_text);
            let said = said.map_or_else(String::new, |said| format!(": {said}"));
            failed(TaskFailure::Retryable, format!("the node answered HTTP {status}{said}"))
        }
    };
    Verdict::Answered(result)
}

/// Whether an answer has the shape that handlers of nodes give theirs, unlike a router that knows
/// no such path.
#[must_use]
pub(super) fn is_of_a_node(answer: &Answer) -> bool {
    let fields: Option<Fields<'_>> = serde_json::from_slice(&answer.body).ok();
    fields.is_some_and(|fields| fields.success.is_some())
}

/// `POST /api/tasks` is answered by its status alone (contract 6, call 6), and 202 always is.
fn takes_any_body(rung: Rung, status: u16) -> bool {
    match rung {
        Rung::Tasks => true,
        Rung::Execute | Rung::TaskControl | Rung::StartTask => status == 202,
    }
}

/// An attempt that ended without a result.
#[must_use]
pub(super) fn failed(failure: TaskFailure, error: String) -> DispatchResult {
    DispatchResult::Finished(TaskOutcome::Failed { failure, error })
}

/// A word in a node's `status`.
enum Word {
    Done,
    Failed,
    UnderWay,
    Other,
}

impl Fields<'_> {
    fn outcome(&self) -> DispatchResult {
        let word = self.word();
        let refused = self.success.is_some_and(|success| success.get() == "false");
        if refused || matches!(word, Word::Failed) {
            let said = self.error_text();
            let error = said.unwrap_or_else(|| "the node reports a failure".to_owned());
            return failed(TaskFailure::Retryable, error);
        }
        if matches!(word, Word::UnderWay) {
            return DispatchResult::Acknowledged;
        }
        let result = self.result.or(self.result_data);
        if result.is_some() || self.completed_at.is_some() || matches!(word, Word::Done) {
            let result = result.map(|json| json.get().to_owned()).unwrap_or_default();
            return DispatchResult::Finished(TaskOutcome::Completed { result });
        }
        DispatchResult::Acknowledged
    }

    fn word(&self) -> Word {
        let text = self.status.map(|status| status.get().trim_matches('"').to_ascii_lowercase());
        match text.as_deref() {
            Some("completed" | "complete" | "done" | "finished" | "succeeded") => Word::Done,
            Some("failed" | "error" | "rejected") => Word::Failed,
            Some(
                "accepted" | "queued" | "pending" | "assigned" | "started" | "running"
                | "processing" | "in_progress",
            ) => Word::UnderWay,
            Some(_) | None => Word::Other,
        }
    }

    fn error_text(&self) -> Option<String> {
        let json = self.error.or(self.error_message).or(self.message)?;
        let text = serde_json::from_str(json.get()).unwrap_or_else(|_| json.get().to_owned());
        Some(text.chars().take(ERROR_CHARS_MAX).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(rung: Rung, status: u16, body: &str) -> DispatchResult {
        let answer = Answer { status, retry_after: None, body: body.to_owned().into() };
        match read(rung, &answer) {
            Verdict::Answered(result) => result,
            Verdict::NoSuchPath => panic!("{status} {body}: no such path"),
        }
    }

    fn completed(result: &str) -> DispatchResult {
        DispatchResult::Finished(TaskOutcome::Completed { result: result.to_owned() })
    }

    #[test]
    fn results_acknowledgements_and_failures_are_told_apart() {
        use DispatchResult::Acknowledged;
        let retryable = |error: &str| failed(TaskFailure::Retryable, error.to_owned());
        let network = |error: &str| failed(TaskFailure::Network, error.to_owned());
        let execute = Rung::Execute;
        let cases = [
            (execute, 200, r#"{"success":true,"result":{"n":1.50}}"#, completed(r#"{"n":1.50}"#)),
            (execute, 200, r#"{"success":true,"result_data":[2]}"#, completed("[2]")),
            (execute, 200, r#"{"success":true,"completed_at":"x","result":null}"#, completed("")),
            (execute, 200, r#"{"status":"COMPLETED"}"#, completed("")),
            (execute, 200, r#"{"success":true,"task_id":"x"}"#, Acknowledged),
            (execute, 200, r#"{"success":true,"status":"running","result":{}}"#, Acknowledged),
            (execute, 200, r#"{"success":false,"error":"no gpu"}"#, retryable("no gpu")),
            (execute, 200, r#"{"success":false}"#, retryable("the node reports a failure")),
            (execute, 200, r#"{"status":"failed","error":{"c":1}}"#, retryable(r#"{"c":1}"#)),
            (execute, 200, "OK", network("the node's answer is no JSON object")),
            (execute, 200, "[true]", network("the node's answer is no JSON object")),
            (execute, 202, "", Acknowledged),
            (Rung::Tasks, 200, "OK", Acknowledged),
            (Rung::Tasks, 200, "", Acknowledged),
            (Rung::StartTask, 200, r#"{"success":true,"task_id":"8"}"#, Acknowledged),
            (
                execute,
                500,
                r#"{"success":false,"task_id":"x","error":"boom"}"#,
                retryable("the node answered HTTP 500: boom"),
            ),
            (execute, 502, "<html>", retryable("the node answered HTTP 502")),
            (execute, 400, r#"{"error":"bad"}"#, retryable("the node answered HTTP 400: bad")),
            (execute, 301, "", retryable("the node answered HTTP 301")),
        ];
        for (rung, status, body, expected) in cases {
            assert_eq!(answered(rung, status, body), expected, "{rung:?} {status} {body}");
        }
    }

    #[test]
    fn a_missing_path_is_no_failure() {
        for status in [404, 405] {
            let answer = Answer { status, ..Answer::default() };
            assert_eq!(read(Rung::Tasks, &answer), Verdict::NoSuchPath);
        }
    }

    #[test]
    fn a_busy_node_says_for_how_long_within_reason() {
        for (given, expected_ms) in
            [(None, 5000), (Some(0), 200), (Some(7), 7000), (Some(86_400), 300_000)]
        {
            let answer = Answer {
                status: 429,
                retry_after: given.map(Duration::from_secs),
                ..Answer::default()
            };
            let expected = DispatchResult::Refused { retry_after_ms: expected_ms };
            assert_eq!(read(Rung::Execute, &answer), Verdict::Answered(expected));
        }
    }
}
