//! Jobs and experiments on the wire (contract 3.2, 3.6).

use serde_json::{Value, json};

use crate::api::App;
use crate::api::error::ApiError;
use crate::api::wire_time::{iso, iso_or_null};
use crate::model::{JobKind, Task, TaskStatus};
use crate::state::BlobPart;

/// What of a job lies beside its row.
#[derive(Debug, Default)]
pub(in crate::api) struct Loaded {
    input: Value,
    results: Value,
}

impl Loaded {
    /// Loads a job's input, and its result if that is wanted.
    pub(in crate::api) fn of(app: &App, task: &Task, with_results: bool) -> Result<Self, ApiError> {
        let load = |part, payload| {
            let loaded = app.cluster().view().load_payload(&task.task_id, part, payload);
            let bytes = loaded.map_err(|error| {
                tracing::error!(task_id = %task.task_id, %error, "a payload cannot be read");
                let text = "a payload of the job cannot be read";
                ApiError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "STORAGE", text)
            })?;
            Ok::<Value, ApiError>(
                serde_json::from_slice(&bytes.unwrap_or_default()).unwrap_or_default(),
            )
        };
        Ok(Self {
            input: load(BlobPart::Input, &task.input)?,
            results: match with_results {
                true => load(BlobPart::Result, &task.result)?,
                false => Value::Null,
            },
        })
    }
}

/// What a job's status can be (contract 3.2).
pub(in crate::api) const STATUS_WORDS: [&str; 7] =
    ["PENDING", "QUEUED", "RUNNING", "COMPLETED", "TIMEOUT", "FAILED", "CANCELLED"];

/// Whether there is such a status, in any case.
pub(in crate::api) fn is_status_word(word: &str) -> bool {
    STATUS_WORDS.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// The status of a job in family N's words. It only ever makes the contract's moves (3.2): what was tried
/// and waits for another try is still running, and only what ran can time out. Of experiments none does:
/// that failed.
pub(in crate::api) fn status_word(task: &Task) -> &'static str {
    let Some(job) = &task.job else { return "PENDING" };
    let was_tried = job.paid > 0;
    let ran = was_tried || task.started_at_ms > 0;
    match task.status {
        TaskStatus::Pending | TaskStatus::Waiting | TaskStatus::Retrying | TaskStatus::Assigned
            if was_tried =>
        {
            "RUNNING"
        }
        TaskStatus::Pending | TaskStatus::Waiting if task.assigned_nodes.is_empty() => "PENDING",
        TaskStatus::Pending | TaskStatus::Waiting | TaskStatus::Retrying | TaskStatus::Assigned => {
            "QUEUED"
        }
        TaskStatus::Running | TaskStatus::Stepping => "RUNNING",
        TaskStatus::Completed => "COMPLETED",
        TaskStatus::TimedOut | TaskStatus::Failed | TaskStatus::DeadLetter
            if job.timed_out && ran && job.kind != JobKind::Experiment =>
        {
            "TIMEOUT"
        }
        TaskStatus::TimedOut | TaskStatus::Failed | TaskStatus::DeadLetter => "FAILED",
        TaskStatus::Cancelled => "CANCELLED",
    }
}

/// A job, or an experiment.
pub(in crate::api) fn job_view(task: &Task, loaded: &Loaded) -> Value {
    let Some(job) = &task.job else { return Value::Null };
    let parameters = loaded.input.get("parameters").cloned();
    let took_ms = task.completed_at_ms.saturating_sub(task.started_at_ms);
    let updated_ms = task.completed_at_ms.max(task.started_at_ms).max(task.created_at_ms);
    let holder = task.live_on();
    let mut view = json!({
        "id": task.task_id,
        "owner_id": job.owner,
        "structure_id": job.subject,
        "status": status_word(task),
        "priority": (u64::from(task.urgency.value()) + 5) / 10,
        "parameters": parameters.unwrap_or_else(|| json!({})),
        "results": loaded.results,
        "error_message": task.error,
        "campaign_id": job.candidate.as_ref().map(|(campaign_id, _, _)| campaign_id),
        "node_id": task.node_id.as_ref().or(holder),
        "attempt": task.attempt,
        "created_at": iso(task.created_at_ms),
        "updated_at": iso(updated_ms),
        "started_at": iso_or_null(task.started_at_ms),
        "completed_at": iso_or_null(task.completed_at_ms),
        "duration_seconds": (task.completed_at_ms > 0 && task.started_at_ms > 0)
            .then(|| took_ms as f64 / 1000.0),
    });
    match job.kind {
        JobKind::Experiment => {
            view["instrument_id"] = job.instrument.as_str().into();
            view["experiment_type"] = loaded.input.get("experiment_type").cloned().into();
        }
        JobKind::Simulation => view["job_type"] = task.task_type.as_str().into(),
        JobKind::Scheduled => {
            view["job_type"] = task.task_type.as_str().into();
            view["structure_id"] = Value::Null;
            view["run_id"] = job.subject.as_str().into();
        }
        JobKind::Training => {
            view["job_type"] = task.task_type.as_str().into();
            view["structure_id"] = Value::Null;
            view["model"] = job.subject.as_str().into();
        }
    }
    view
}

/// How far a job is. Nodes say nothing of that, so it is all or nothing.
pub(in crate::api) fn status_view(task: &Task) -> Value {
    let done = task.status.is_terminal();
    json!({
        "id": task.task_id,
        "status": status_word(task),
        "progress": if done { 1.0 } else { 0.0 },
        "message": format!("attempt {} of at most {}", task.attempt, task.max_retries + 1),
        "error_message": task.error,
    })
}
