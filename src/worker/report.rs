//! From a dispatch to a recorded end: runs the program, words the report, sends it until the
//! cluster has decided about it.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::book::AttemptKey;
use super::exec::{self, End, Ended, Job};
use super::wire::Dispatch;
use crate::client::{Call, ClientError, segment};

/// The part of the log that goes into the error message.
const ERROR_CHARS_MAX: usize = 2000;
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
        let job = Job {
            program,
            task_id: &dispatch.task_id,
            task_type: &dispatch.task_type,
            attempt: dispatch.attempt,
            node_id: &worker.node_id,
            input: dispatch.input_data.to_string().into_bytes(),
            timeout: dispatch.timeout(),
        };
        let ended = exec::run(job, &kill).await;
        let report = Arc::new(word(&worker.node_id, &dispatch, &ended));
        tracing::info!(
            task_id = key.task_id,
            attempt = key.attempt,
            seconds = ended.took.as_secs_f64(),
            status = %report["status"],
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
pub(super) fn repeat(shared: &Arc<Shared>, key: AttemptKey, report: Arc<Value>) {
    let worker = Arc::clone(shared);
    shared.tasks.spawn(async move { send(&worker, &key, &report).await });
}

/// The body of a report.
fn word(node_id: &str, dispatch: &Dispatch, ended: &Ended) -> Value {
    let mut report = json!({
        "node_id": node_id,
        "agent_id": node_id,
        "attempt": dispatch.attempt,
        "epoch": dispatch.epoch,
        "execution_time": ended.took.as_secs_f64(),
        "performance_metrics": {
            "wall_ms": ended.took.as_millis() as u64,
            "exit_code": exit_code(&ended.end),
            "stdout_bytes": ended.stdout.len(),
            "log": ended.stderr,
        },
    });
    match failure(ended) {
        None => {
            report["status"] = json!("completed");
            report["result"] = result(&ended.stdout);
        }
        Some((error, retryable)) => {
            report["status"] = json!("failed");
            report["error"] = json!(error);
            report["retryable"] = json!(retryable);
        }
    }
    report
}

/// Standard output as JSON; anything else is wrapped.
fn result(stdout: &[u8]) -> Value {
    if stdout.trim_ascii().is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(stdout)
        .unwrap_or_else(|_| json!({ "output": String::from_utf8_lossy(stdout) }))
}

fn exit_code(end: &End) -> Option<i32> {
    match end {
        End::Exited(status) => status.code(),
        End::TimedOut | End::Killed | End::TooLong | End::Broken(_) => None,
    }
}

/// What went wrong, and whether another try may help; `None` for a success.
fn failure(ended: &Ended) -> Option<(String, bool)> {
    let (what, retryable) = match &ended.end {
        End::Exited(status) if status.success() => return None,
        End::Exited(status) => (status_text(*status), !is_permanent(*status)),
        End::TimedOut => (format!("timeout after {:.1} s", ended.took.as_secs_f64()), true),
        End::Killed => ("killed: the task was cancelled or the worker is leaving".to_owned(), true),
        End::TooLong => ("the program wrote more than 4 MiB".to_owned(), false),
        End::Broken(what) => (what.clone(), true),
    };
    let log = ended.stderr.trim_end();
    let skipped = log.chars().count().saturating_sub(ERROR_CHARS_MAX);
    let tail: String = log.chars().skip(skipped).collect();
    let error = if tail.is_empty() { what } else { format!("{what}: {tail}") };
    Some((error, retryable))
}

fn status_text(status: ExitStatus) -> String {
    match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// By the words of sysexits.h: a program that was used wrongly (64) or given bad data (65) will
/// fail on every node alike.
fn is_permanent(status: ExitStatus) -> bool {
    matches!(status.code(), Some(64 | 65))
}

/// Sends a report until the cluster records or refuses it, or the worker gives up for good.
async fn send(shared: &Shared, key: &AttemptKey, report: &Value) {
    let path = format!("/api/v1/tasks/{}/result", segment(&key.task_id));
    // The same for every try of this report, by this run of the worker.
    let request =
        format!("report/{}/{}/{}/{}", shared.node_id, shared.instance, key.task_id, key.attempt);
    let mut pause = PAUSE_MIN;
    loop {
        let call = Call::post(path.clone(), report.clone()).key(request.clone());
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
        assert_eq!(result(b"{\"a\":1}\n"), json!({"a": 1}));
        assert_eq!(result(b"plain\n"), json!({"output": "plain\n"}));
        assert_eq!(result(b" \n"), Value::Null);
    }

    #[test]
    fn exit_codes_decide_about_another_try() {
        let dispatch =
            Dispatch { epoch: Some("3.1".to_owned()), attempt: 2, ..Dispatch::default() };
        let report = word("n", &dispatch, &ended(0, "[1]", "note"));
        assert_eq!(report["status"], "completed");
        assert_eq!((&report["epoch"], &report["attempt"]), (&json!("3.1"), &json!(2)));
        assert_eq!(report["performance_metrics"]["log"], "note");
        let report = word("n", &dispatch, &ended(3, "", "no such file\n"));
        assert_eq!(report["error"], "exit code 3: no such file");
        assert_eq!(report["retryable"], true);
        assert_eq!(word("n", &dispatch, &ended(65, "", ""))["retryable"], false);
    }
}
