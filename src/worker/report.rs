//! From a dispatch to a recorded end: runs the program, words the report, sends it until the
//! cluster has decided about it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::book::AttemptKey;
use super::exec::{self, End, Ended, Job};
use super::wire::Dispatch;
use crate::client::{Call, ClientError, segment};

/// One call of a report; the client tries all members within it.
const REPORT_DEADLINE: Duration = Duration::from_secs(20);
/// The pause between two calls of one report.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Runs an admitted attempt and reports its end. Its slot is free when the program is gone.
pub(super) fn start(shared: &Arc<Shared>, dispatch: Dispatch, kill: CancellationToken) {
    let worker = Arc::clone(shared);
    shared.tasks.spawn(async move {
        let key = AttemptKey { task_id: dispatch.task_id.clone(), attempt: dispatch.attempt };
        let program = worker.program(&dispatch.task_type).unwrap_or_default();
        let mut environment = worker.options.environment.clone();
        environment.extend([
            ("QUORATE_TASK_ID", dispatch.task_id.clone()),
            ("QUORATE_TASK_TYPE", dispatch.task_type.clone()),
            ("QUORATE_ATTEMPT", dispatch.attempt.to_string()),
            ("QUORATE_NODE_ID", worker.node_id.clone()),
        ]);
        let job =
            Job { program, environment, input: dispatch.input(), timeout: dispatch.timeout() };
        let ended = exec::run(job, &kill).await;
        let report: Arc<str> = word(&worker.node_id, &dispatch, &ended).into();
        tracing::info!(
            task_id = key.task_id,
            attempt = key.attempt,
            seconds = ended.took.as_secs_f64(),
            end = %ended.end,
            "ended"
        );
        if worker.book.end(&key, &report) {
            send(&worker, &key, &report).await;
            worker.book.reported();
        }
    });
}

/// Reports an attempt that ended before once more: the cluster dispatched it again, so it seems
/// not to know.
pub(super) fn repeat(shared: &Arc<Shared>, key: AttemptKey, report: Arc<str>) {
    let worker = Arc::clone(shared);
    shared.tasks.spawn(async move { send(&worker, &key, &report).await });
}

/// What is told of the end of an attempt.
#[derive(Serialize)]
struct Report<'a> {
    node_id: &'a str,
    agent_id: &'a str,
    attempt: u32,
    epoch: Option<&'a str>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
    /// Seconds.
    execution_time: f64,
    performance_metrics: Metrics<'a>,
}

#[derive(Serialize)]
struct Metrics<'a> {
    wall_ms: u64,
    exit_code: Option<i32>,
    stdout_bytes: usize,
    /// The end of standard error.
    log: &'a str,
}

/// The body of a report, as JSON text.
fn word(node_id: &str, dispatch: &Dispatch, ended: &Ended) -> String {
    let failure = failure(ended);
    let completed = failure.is_none();
    let (error, retryable) = failure.unzip();
    let report = Report {
        node_id,
        agent_id: node_id,
        attempt: dispatch.attempt,
        epoch: dispatch.epoch.as_deref(),
        status: if completed { "completed" } else { "failed" },
        result: completed.then(|| result(&ended.stdout)),
        error,
        retryable,
        execution_time: ended.took.as_secs_f64(),
        performance_metrics: Metrics {
            wall_ms: u64::try_from(ended.took.as_millis()).unwrap_or(u64::MAX),
            exit_code: exit_code(&ended.end),
            stdout_bytes: ended.stdout.len(),
            log: &ended.stderr,
        },
    };
    serde_json::to_string(&report).expect("texts and numbers are always JSON")
}

/// Standard output as it is when it is JSON; anything else is wrapped.
pub(super) fn result(stdout: &[u8]) -> Box<RawValue> {
    let text = String::from_utf8_lossy(stdout);
    if text.trim().is_empty() {
        return RawValue::NULL.to_owned();
    }
    RawValue::from_string(text.trim().to_owned()).unwrap_or_else(|_| {
        let wrapped = json!({ "output": text }).to_string();
        RawValue::from_string(wrapped).expect("a JSON value prints as JSON")
    })
}

fn exit_code(end: &End) -> Option<i32> {
    match end {
        End::Exited(status) => status.code(),
        End::TimedOut | End::Killed | End::TooLong | End::Broken(_) => None,
    }
}

/// What went wrong, and whether another try may help; `None` for a success.
pub(super) fn failure(ended: &Ended) -> Option<(String, bool)> {
    let (what, retryable) = match &ended.end {
        End::Exited(status) if status.success() => return None,
        End::Exited(status) => (exec::status_text(*status), !exec::is_permanent(*status)),
        End::TimedOut => (format!("timeout after {:.1} s", ended.took.as_secs_f64()), true),
        End::Killed => ("killed: the task was cancelled or the worker is leaving".to_owned(), true),
        End::TooLong => ("the program wrote more than 4 MiB".to_owned(), false),
        End::Broken(what) => (what.clone(), true),
    };
    let tail = ended.log_tail();
    let error = if tail.is_empty() { what } else { format!("{what}: {tail}") };
    Some((error, retryable))
}

/// Sends a report until the cluster records or refuses it, or the worker gives up for good.
async fn send(shared: &Shared, key: &AttemptKey, report: &str) {
    let path = format!("/api/v1/tasks/{}/result", segment(&key.task_id));
    // The same for every try of this report, by this run of the worker.
    let request =
        format!("report/{}/{}/{}/{}", shared.node_id, shared.instance, key.task_id, key.attempt);
    let mut pause = PAUSE_MIN;
    loop {
        let call = Call::post_text(path.clone(), report).key(request.clone());
        let (task_id, attempt) = (&key.task_id, key.attempt);
        match shared.client.call(call.deadline(REPORT_DEADLINE)).await {
            Ok(_) => return,
            // Ended otherwise, deleted, or another attempt's turn: nothing more to tell.
            Err(ClientError::Refused(problem)) => {
                tracing::info!(task_id, attempt, %problem, "the report was refused");
                return;
            }
            Err(error) => {
                tracing::warn!(task_id, attempt, %error, "the report is not recorded yet");
            }
        }
        tokio::select! {
            biased;
            () = shared.abort.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use serde_json::Value;

    use super::*;

    fn ended(code: i32, stdout: &str, stderr: &str) -> Ended {
        Ended {
            end: End::Exited(ExitStatus::from_raw(code << 8)),
            stdout: stdout.into(),
            stderr: stderr.to_owned(),
            took: Duration::from_millis(1500),
        }
    }

    #[test]
    fn results_are_json_or_wrapped_text() {
        let exact = "{\"a\": 12345678901234567890.5}";
        assert_eq!(result(format!("{exact}\n").as_bytes()).get(), exact);
        assert_eq!(result(b"plain\n").get(), "{\"output\":\"plain\\n\"}");
        assert_eq!(result(b" \n").get(), "null");
    }

    #[test]
    fn exit_codes_decide_about_another_try() {
        let dispatch =
            Dispatch { epoch: Some("3.1".to_owned()), attempt: 2, ..Dispatch::default() };
        let word = |ended: &Ended| -> Value {
            serde_json::from_str(&word("n", &dispatch, ended)).unwrap()
        };
        let report = word(&ended(0, "[1]", "note"));
        assert_eq!(report["status"], "completed");
        assert_eq!((&report["epoch"], &report["attempt"]), (&json!("3.1"), &json!(2)));
        assert_eq!(report["performance_metrics"]["log"], "note");
        let report = word(&ended(3, "", "no such file\n"));
        assert_eq!(report["error"], "exit code 3: no such file");
        assert_eq!(report["retryable"], true);
        assert_eq!(word(&ended(65, "", ""))["retryable"], false);
    }
}
