//! What the WebSocket says (contract 2.4): `{type, data, timestamp?}`, one text frame each.

use axum::extract::ws::Utf8Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::object::Object;
use crate::api::wire_time::Epoch;
use crate::clock;
use crate::model::{NodeId, NodeStatus, TaskId, TaskStatus};
use crate::state::{Event, Fact, is_step_id};
use crate::storage::EventPosition;

/// `{type, data, timestamp?}`. An event also has its `id`, the same on every member, by which
/// [`/api/v1/events`](crate::api) can be asked for what came after.
#[derive(Serialize)]
struct Frame<'a, D: Serialize> {
    r#type: &'a str,
    data: D,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

fn text(frame: &impl Serialize) -> Utf8Bytes {
    serde_json::to_string(frame).expect("frames are plain data").into()
}

/// JSON text as it stands.
fn raw(json: &str) -> Box<RawValue> {
    let json = RawValue::from_string(json.to_owned());
    json.expect("what is sent on was written as JSON")
}

/// The first frame: the status, without a time.
pub(super) fn initial_status(data: &str) -> Utf8Bytes {
    text(&Frame { r#type: "initial_status", data: raw(data), timestamp: None, id: None })
}

/// The status, every five seconds.
pub(super) fn network_status(data: &str) -> Utf8Bytes {
    let timestamp = Some(Epoch(clock::now_ms()));
    text(&Frame { r#type: "network_status", data: raw(data), timestamp, id: None })
}

#[derive(Serialize)]
struct Gap {
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumes_after: Option<String>,
}

fn gap(data: Gap) -> Utf8Bytes {
    text(&Frame { r#type: "gap", data, timestamp: Some(Epoch(clock::now_ms())), id: None })
}

/// This client was too slow for so many frames.
pub(super) fn missed(count: u64) -> Utf8Bytes {
    gap(Gap { missed: Some(count), resumes_after: None })
}

/// This member does not know what happened up to there.
pub(super) fn unknown_until((index, ordinal): EventPosition) -> Utf8Bytes {
    gap(Gap { missed: None, resumes_after: Some(format!("{index}-{ordinal}")) })
}

#[derive(Serialize)]
struct NodeData<'a> {
    node_id: &'a NodeId,
}

#[derive(Serialize)]
struct TaskData<'a> {
    task_id: &'a TaskId,
}

#[derive(Serialize)]
struct TaskEnd<'a> {
    task_id: &'a TaskId,
    status: &'static str,
    node_id: Option<&'a NodeId>,
    attempt: u32,
}

#[derive(Serialize)]
struct NodeFailure<'a> {
    node_id: &'a NodeId,
    old_status: &'static str,
    status: &'static str,
}

#[derive(Serialize)]
struct AlertData<'a> {
    alert_id: &'a str,
    status: &'static str,
    severity: &'static str,
}

/// The word of the SDK for how a task ended (contract 8.2).
fn end_word(status: TaskStatus) -> &'static str {
    match status {
        TaskStatus::DeadLetter => "failed",
        TaskStatus::TimedOut => "timeout",
        TaskStatus::Pending
        | TaskStatus::Retrying
        | TaskStatus::Assigned
        | TaskStatus::Running
        | TaskStatus::Waiting
        | TaskStatus::Stepping
        | TaskStatus::Completed
        | TaskStatus::Failed
        | TaskStatus::Cancelled => status.as_str(),
    }
}

/// The frame of an event; `None` when family W has no word for it.
pub(super) fn event(event: &Event) -> Option<Utf8Bytes> {
    fn framed(event: &Event, r#type: &str, data: impl Serialize) -> Utf8Bytes {
        let id = Some(format!("{}-{}", event.index, event.ordinal));
        text(&Frame { r#type, data, timestamp: Some(Epoch(event.at_ms)), id })
    }
    Some(match &event.fact {
        Fact::NodeRegistered { node_id, .. } => {
            framed(event, "node_registered", NodeData { node_id })
        }
        Fact::TaskSubmitted { task_id } => framed(event, "task_submitted", TaskData { task_id }),
        // What a step of a task did is no news of family W.
        Fact::TaskEnded { task_id, .. } if is_step_id(task_id) => return None,
        Fact::TaskEnded { task_id, status, node_id, attempt, taken_from: _ } => {
            let (status, node_id) = (end_word(*status), node_id.as_ref());
            let data = TaskEnd { task_id, status, node_id, attempt: *attempt };
            framed(event, "task_completed", data)
        }
        Fact::NodeStatusChanged { node_id, old, new }
            if matches!(new, NodeStatus::Offline | NodeStatus::Error) =>
        {
            let (old_status, status) = (old.as_str(), new.as_str());
            framed(event, "node_failure", NodeFailure { node_id, old_status, status })
        }
        Fact::AlertChanged { alert_id, state, severity } => {
            let (status, severity) = (state.as_str(), severity.as_str());
            framed(event, "alert", AlertData { alert_id, status, severity })
        }
        Fact::NodeStatusChanged { .. }
        | Fact::EpochOpened { .. }
        | Fact::NodeRemoved { .. }
        | Fact::TaskAssigned { .. }
        | Fact::TaskStarted { .. }
        | Fact::TaskRetried { .. }
        | Fact::TaskQueued { .. }
        | Fact::TasksRetired { .. }
        | Fact::ConfigChanged { .. }
        | Fact::MemberChanged { .. }
        | Fact::DrillBegun { .. }
        | Fact::DrillEnded { .. }
        | Fact::StepsOpened { .. }
        | Fact::PipelineChanged { .. }
        | Fact::NodeDrained { .. }
        | Fact::DeliveryQueued { .. }
        | Fact::DeliveryEnded { .. }
        | Fact::ScalingDecided { .. }
        | Fact::Campaign(_)
        | Fact::Bot(_) => return None,
    })
}

/// What a client asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Question {
    Alerts,
    NodeDetails(String),
    /// Something else, which family W ignores.
    Other,
    NotJson,
}

pub(super) fn question(frame: &[u8]) -> Question {
    let Ok(object) = Object::parse(frame) else {
        let is_json = serde_json::from_slice::<&RawValue>(frame).is_ok();
        return if is_json { Question::Other } else { Question::NotJson };
    };
    let field = |name: &str| object.text(name).ok().flatten().map(|text| text.into_owned());
    match field("type").as_deref() {
        Some("subscribe_to_alerts") => Question::Alerts,
        Some("request_node_details") => Question::NodeDetails(field("node_id").unwrap_or_default()),
        _ => Question::Other,
    }
}

#[derive(Serialize)]
struct Confirmed {
    r#type: &'static str,
    subscription: &'static str,
    timestamp: Epoch,
}

pub(super) fn subscription_confirmed() -> Utf8Bytes {
    let timestamp = Epoch(clock::now_ms());
    text(&Confirmed { r#type: "subscription_confirmed", subscription: "alerts", timestamp })
}

#[derive(Serialize)]
struct NodeDetails<'a> {
    r#type: &'static str,
    node_id: &'a str,
    data: Option<Box<RawValue>>,
    timestamp: Epoch,
}

/// `data` is null when there is no such node.
pub(super) fn node_details(node_id: &str, data: Option<&str>) -> Utf8Bytes {
    let (data, timestamp) = (data.map(raw), Epoch(clock::now_ms()));
    text(&NodeDetails { r#type: "node_details", node_id, data, timestamp })
}

#[derive(Serialize)]
struct ErrorFrame<'a> {
    r#type: &'static str,
    message: &'a str,
}

pub(super) fn error(message: &str) -> Utf8Bytes {
    text(&ErrorFrame { r#type: "error", message })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(fact: Fact) -> Option<Value> {
        let event = Event { index: 7, ordinal: 1, at_ms: 1_700_000_000_500, fact };
        super::event(&event).map(|frame| serde_json::from_str(&frame).unwrap())
    }

    #[test]
    fn contract_2_4_events_in_the_words_of_family_w() {
        let (node_id, task_id) = (NodeId::trusted("n1"), TaskId::trusted("t1"));
        let expect = |fact, r#type: &str, data: Value| {
            let expected =
                json!({"type": r#type, "data": data, "timestamp": 1_700_000_000.5, "id": "7-1"});
            assert_eq!(of(fact), Some(expected));
        };
        let registered = Fact::NodeRegistered { node_id: node_id.clone(), new: true };
        expect(registered, "node_registered", json!({"node_id": "n1"}));
        let submitted = Fact::TaskSubmitted { task_id: task_id.clone() };
        expect(submitted, "task_submitted", json!({"task_id": "t1"}));
        for (status, word) in [
            (TaskStatus::Completed, "completed"),
            (TaskStatus::DeadLetter, "failed"),
            (TaskStatus::TimedOut, "timeout"),
            (TaskStatus::Cancelled, "cancelled"),
        ] {
            let (task_id, node_id) = (task_id.clone(), Some(node_id.clone()));
            let (attempt, taken_from) = (2, node_id.clone());
            let ended = Fact::TaskEnded { task_id, status, node_id, attempt, taken_from };
            let data = json!({"task_id": "t1", "status": word, "node_id": "n1", "attempt": 2});
            expect(ended, "task_completed", data);
        }
        let changed = |new| {
            let (node_id, old) = (node_id.clone(), NodeStatus::Active);
            Fact::NodeStatusChanged { node_id, old, new }
        };
        let data = json!({"node_id": "n1", "old_status": "active", "status": "offline"});
        expect(changed(NodeStatus::Offline), "node_failure", data);
        assert_eq!(of(changed(NodeStatus::Maintenance)), None);
        assert_eq!(of(Fact::ConfigChanged { revision: 1 }), None);
        let step = Fact::TaskEnded {
            task_id: TaskId::trusted("t1#0"),
            status: TaskStatus::Completed,
            node_id: None,
            attempt: 1,
            taken_from: None,
        };
        assert_eq!(of(step), None);
    }

    #[test]
    fn a_gap_says_what_is_missing() {
        let data = |frame: Utf8Bytes| {
            let frame: Value = serde_json::from_str(&frame).unwrap();
            assert!(frame["type"] == "gap" && frame["timestamp"].is_f64(), "{frame}");
            frame["data"].clone()
        };
        assert_eq!(data(missed(7)), json!({"missed": 7}));
        assert_eq!(data(unknown_until((50, 3))), json!({"resumes_after": "50-3"}));
    }

    #[test]
    fn contract_2_4_questions_of_clients() {
        for (frame, expected) in [
            (r#"{"type":"subscribe_to_alerts"}"#, Question::Alerts),
            (
                r#"{"type":"request_node_details","node_id":"n1"}"#,
                Question::NodeDetails("n1".to_owned()),
            ),
            (r#"{"type":"request_node_details"}"#, Question::NodeDetails(String::new())),
            (r#"{"type":"ping"}"#, Question::Other),
            ("[1]", Question::Other),
            ("", Question::Other),
            ("{", Question::NotJson),
            ("hello", Question::NotJson),
        ] {
            assert_eq!(question(frame.as_bytes()), expected, "{frame}");
        }
    }
}
