//! What the cluster says of leases, and how it is read.

use serde::Deserialize;
use serde_json::value::RawValue;

/// Something to do, in one try. Fields that a worker has no use for are ignored.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Assignment {
    pub(super) task_id: String,
    /// None for work of a swarm that has no bots any more: nobody's, and still to be done.
    #[serde(default)]
    pub(super) bot_id: Option<String>,
    /// None for work of a bot that is in no swarm.
    #[serde(default)]
    pub(super) swarm_id: Option<String>,
    /// None is a type of its own.
    #[serde(default)]
    pub(super) task_type: Option<String>,
    /// As it was written: a number that no float holds must reach the program whole.
    #[serde(default)]
    pub(super) task_data: Option<Box<RawValue>>,
    pub(super) attempt: u32,
}

/// The answer to a request for assignments.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Leased {
    #[serde(default)]
    pub(super) assignments: Vec<Assignment>,
}

/// The answer to a batch.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Judged {
    #[serde(default)]
    pub(super) verdicts: Vec<String>,
}

/// One try of one assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Try {
    pub(super) task_id: String,
    pub(super) attempt: u32,
}

impl Assignment {
    pub(super) fn key(&self) -> Try {
        Try { task_id: self.task_id.clone(), attempt: self.attempt }
    }

    /// The input as JSON text.
    pub(super) fn input(&self) -> Vec<u8> {
        self.task_data.as_ref().map_or("null", |data| data.get()).into()
    }
}

/// Tries as a list of the wire.
pub(super) fn keys(all: &[Try]) -> Vec<serde_json::Value> {
    let key = |one: &Try| serde_json::json!({ "task_id": one.task_id, "attempt": one.attempt });
    all.iter().map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worker ended when it was given work of a swarm whose bots were gone.
    #[test]
    fn work_of_no_bot_is_work() {
        let text = r#"{"assignments":[{"task_id":"t","bot_id":null,"swarm_id":"s","task_type":null,
            "task_data":{"a":1},"attempt":2,"deadline":"2026-01-01T00:00:00Z"}]}"#;
        let leased: Leased = serde_json::from_str(text).unwrap();
        let one = &leased.assignments[0];
        assert_eq!((one.bot_id.as_deref(), one.swarm_id.as_deref()), (None, Some("s")));
        assert_eq!(one.key(), Try { task_id: "t".to_owned(), attempt: 2 });
        let of_a_bot =
            text.replace(r#""bot_id":null,"swarm_id":"s""#, r#""bot_id":"b","swarm_id":null"#);
        let leased: Leased = serde_json::from_str(&of_a_bot).unwrap();
        assert_eq!(leased.assignments[0].bot_id.as_deref(), Some("b"));
    }
}
