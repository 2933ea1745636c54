//! Family W's and A's words for where a task stands (contract 8.2).

use crate::model::{LastTry, TaskStatus};

/// The lists of `GET /api/v1/tasks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bucket {
    Pending,
    Active,
    Completed,
    Failed,
}

impl Bucket {
    pub(super) const ALL: [Self; 4] = [Self::Pending, Self::Active, Self::Completed, Self::Failed];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bucket| bucket.as_str().eq_ignore_ascii_case(word))
    }

    pub(super) fn of(status: TaskStatus) -> Self {
        match status {
            TaskStatus::Pending | TaskStatus::Retrying | TaskStatus::Waiting => Self::Pending,
            TaskStatus::Assigned | TaskStatus::Running | TaskStatus::Stepping => Self::Active,
            TaskStatus::Completed => Self::Completed,
            TaskStatus::Failed
            | TaskStatus::TimedOut
            | TaskStatus::Cancelled
            | TaskStatus::DeadLetter => Self::Failed,
        }
    }

    /// The statuses it holds.
    pub(super) fn statuses(self) -> &'static [TaskStatus] {
        match self {
            Self::Pending => &[TaskStatus::Pending, TaskStatus::Retrying, TaskStatus::Waiting],
            Self::Active => &[TaskStatus::Assigned, TaskStatus::Running, TaskStatus::Stepping],
            Self::Completed => &[TaskStatus::Completed],
            Self::Failed => &[
                TaskStatus::Failed,
                TaskStatus::TimedOut,
                TaskStatus::Cancelled,
                TaskStatus::DeadLetter,
            ],
        }
    }
}

/// `task.status`: words family W's SDK can parse. A task whose last try took too long timed out.
pub(in crate::api) fn web4ai_status(status: TaskStatus, last_try: LastTry) -> &'static str {
    match status {
        TaskStatus::Pending | TaskStatus::Waiting => "pending",
        TaskStatus::Retrying => "queued",
        TaskStatus::Assigned => "assigned",
        TaskStatus::Running | TaskStatus::Stepping => "running",
        TaskStatus::Completed => "completed",
        TaskStatus::DeadLetter if last_try == LastTry::TimedOut => "timeout",
        TaskStatus::Failed | TaskStatus::DeadLetter => "failed",
        TaskStatus::TimedOut => "timeout",
        TaskStatus::Cancelled => "cancelled",
    }
}

/// Top-level `status`: family A's words.
pub(super) fn agents_status(status: TaskStatus) -> &'static str {
    match status {
        TaskStatus::Pending | TaskStatus::Assigned | TaskStatus::Waiting => "queued",
        TaskStatus::Retrying => "retrying",
        TaskStatus::Running | TaskStatus::Stepping => "running",
        TaskStatus::Completed => "completed",
        TaskStatus::Failed | TaskStatus::DeadLetter | TaskStatus::TimedOut => "failed",
        TaskStatus::Cancelled => "cancelled",
    }
}

/// The code of family A for a task that ended without a result (contract 1.3, 8.2).
pub(in crate::api) fn error_code(status: TaskStatus, last_try: LastTry) -> Option<&'static str> {
    match status {
        TaskStatus::DeadLetter => match last_try {
            LastTry::Unavailable => Some("AGENT_UNAVAILABLE"),
            LastTry::TimedOut => Some("TIMEOUT"),
            LastTry::Other => Some("EXECUTION_FAILED"),
        },
        TaskStatus::Failed => Some("EXECUTION_FAILED"),
        TaskStatus::TimedOut => Some("TIMEOUT"),
        TaskStatus::Cancelled => Some("CANCELLED"),
        TaskStatus::Pending
        | TaskStatus::Retrying
        | TaskStatus::Assigned
        | TaskStatus::Running
        | TaskStatus::Waiting
        | TaskStatus::Stepping
        | TaskStatus::Completed => None,
    }
}

/// Words that name lists or doors under `/api/v1/tasks` and so cannot be task ids (contract 2.3).
pub(super) const RESERVED_TASK_IDS: [&str; 5] =
    ["pending", "active", "completed", "failed", "batch"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_of_contract_8_2() {
        for (status, bucket, web4ai, agents) in [
            (TaskStatus::Pending, "pending", "pending", "queued"),
            (TaskStatus::Waiting, "pending", "pending", "queued"),
            (TaskStatus::Stepping, "active", "running", "running"),
            (TaskStatus::Retrying, "pending", "queued", "retrying"),
            (TaskStatus::Assigned, "active", "assigned", "queued"),
            (TaskStatus::Running, "active", "running", "running"),
            (TaskStatus::Completed, "completed", "completed", "completed"),
            (TaskStatus::Failed, "failed", "failed", "failed"),
            (TaskStatus::DeadLetter, "failed", "failed", "failed"),
            (TaskStatus::TimedOut, "failed", "timeout", "failed"),
            (TaskStatus::Cancelled, "failed", "cancelled", "cancelled"),
        ] {
            assert_eq!(Bucket::of(status).as_str(), bucket);
            assert!(Bucket::of(status).statuses().contains(&status));
            assert_eq!(web4ai_status(status, LastTry::Other), web4ai);
            assert_eq!(agents_status(status), agents);
        }
    }

    #[test]
    fn contract_1_3_the_code_says_how_the_last_try_failed() {
        use LastTry::{Other, TimedOut, Unavailable};
        for (status, last_try, code) in [
            (TaskStatus::DeadLetter, Unavailable, Some("AGENT_UNAVAILABLE")),
            (TaskStatus::DeadLetter, TimedOut, Some("TIMEOUT")),
            (TaskStatus::DeadLetter, Other, Some("EXECUTION_FAILED")),
            (TaskStatus::Failed, Other, Some("EXECUTION_FAILED")),
            // An earlier try may have found nobody; the end has another reason.
            (TaskStatus::Failed, Unavailable, Some("EXECUTION_FAILED")),
            (TaskStatus::TimedOut, Unavailable, Some("TIMEOUT")),
            (TaskStatus::Cancelled, Unavailable, Some("CANCELLED")),
            (TaskStatus::Completed, Other, None),
            (TaskStatus::Retrying, Unavailable, None),
        ] {
            assert_eq!(error_code(status, last_try), code, "{status:?}");
        }
        assert_eq!(web4ai_status(TaskStatus::DeadLetter, TimedOut), "timeout");
        assert_eq!(web4ai_status(TaskStatus::Retrying, TimedOut), "queued");
    }
}
