//! Workflows (contract 5.4): tasks for the external services, one after another.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::{Payload, RequestId, TimeMs, Urgency};

/// Where a workflow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkflowStatus {
    /// Some of its tasks have not been done.
    Running,
    /// All of them have, with or without an error.
    Completed,
    /// A client ended it.
    Cancelled,
}

impl WorkflowStatus {
    /// Its word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How soon a workflow wants to be done (contract 8.3): low 25, normal 50, high 75, critical 100; any
/// other word is normal.
#[must_use]
pub fn workflow_urgency(priority: &str) -> Urgency {
    let words = [("low", 25), ("high", 75), ("critical", 100)];
    let found = words.iter().find(|(word, _)| priority.trim().eq_ignore_ascii_case(word));
    found.map_or(Urgency::NORMAL, |(_, urgency)| Urgency::clamped(*urgency))
}

/// One task of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowTask {
    /// Which service it is for, as sent.
    pub task_type: String,
    /// As JSON text.
    pub params: Payload,
    /// As JSON text, once it was done.
    pub result: Payload,
}

/// A digest of what a workflow is asked to do: each task's type and parameters, and the priority.
pub fn workflow_digest<'a>(
    tasks: impl Iterator<Item = (&'a str, &'a str)>,
    priority: &'a str,
) -> u64 {
    let mut digest = Xxh3::new();
    let texts = std::iter::once(priority).chain(tasks.flat_map(|(name, params)| [name, params]));
    for text in texts {
        digest.update(&(text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    }
    digest.digest()
}

/// A workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workflow {
    /// The request that made it: asked again it is this one, as long as it is retained.
    pub request_id: RequestId,
    /// Digest of what was asked: [`workflow_digest`].
    pub asked: u64,
    /// In the order they are done in.
    pub tasks: Vec<WorkflowTask>,
    /// As sent.
    pub priority: String,
    /// How many of its tasks were done: the place of the next one.
    pub position: u32,
    /// Where it stands.
    pub status: WorkflowStatus,
    /// When it was made.
    pub created_at_ms: TimeMs,
    /// When it last moved.
    pub updated_at_ms: TimeMs,
    /// When it ended; 0 before.
    pub ended_at_ms: TimeMs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_8_3_priorities_of_workflows() {
        for (word, urgency) in
            [("low", 25), ("normal", 50), ("High", 75), ("critical", 100), ("odd", 50), ("", 50)]
        {
            assert_eq!(workflow_urgency(word).value(), urgency, "{word}");
        }
    }
}
