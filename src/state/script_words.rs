//! Lines of golden scripts that take more than a word to say: steps of tasks, and what the leader
//! finds and tells others.

use super::scripts::Words;
use super::{
    AccountCommand, AlertChange, Command, DeliveryResult, FlowRequest, NewAccount, derive_uuid,
};
use crate::model::{
    AlertState, DrillKind, DrillState, FlowMode, NodeId, RateLimit, RequestId, ScalingAction,
    ScalingEvent, Severity, StepSpec,
};

/// `name`, `name:retries` or `name<first+second`, whose numbers are places.
pub(super) fn step(text: &str) -> StepSpec {
    let (text, depends_on) = text.split_once('<').unwrap_or((text, ""));
    let (name, retries) = text.split_once(':').unwrap_or((text, "0"));
    let places = depends_on.split('+').filter(|place| !place.is_empty());
    StepSpec {
        name: name.to_owned(),
        agent_type: name.to_owned(),
        depends_on: places.map(|place| place.parse().unwrap()).collect(),
        max_retries: retries.parse().unwrap(),
        ..StepSpec::default()
    }
}

/// `mode=... steps=a,b`, `pipeline=mode`, `copies=n`.
pub(super) fn flow(words: &Words<'_>) -> Option<FlowRequest> {
    let mode = words.pairs.get("mode").map(|mode| FlowMode::parse(mode).unwrap());
    if words.pairs.contains_key("steps") {
        let steps = words.list("steps").iter().map(|text| step(text)).collect();
        return Some(FlowRequest::Steps { mode: mode.unwrap_or(FlowMode::Sequential), steps });
    }
    if words.pairs.contains_key("pipeline") {
        return Some(FlowRequest::Pipeline { mode });
    }
    let copies = words.number("copies", 0);
    (copies > 0).then(|| FlowRequest::Copies { count: u16::try_from(copies).unwrap() })
}

/// `rate=key starts=n per=ms`.
pub(super) fn rate(words: &Words<'_>) -> Option<RateLimit> {
    let key = words.pairs.get("rate")?;
    let max = u32::try_from(words.number("starts", 1)).unwrap();
    Some(RateLimit { key: (*key).to_owned(), max, per_ms: words.number("per", 1000) })
}

/// `begin` or `end` of a drill.
pub(super) fn drill_command(words: &Words<'_>) -> Command {
    match words.places[0] {
        "begin" => Command::BeginDrill {
            kind: DrillKind::parse(words.places[1]).unwrap(),
            target: words.text("target", "member 1"),
            started_by: words.text("by", "me"),
            lease_ms: words.places[2].parse().unwrap(),
        },
        _ => Command::EndDrill {
            drill_id: words.places[1].parse().unwrap(),
            state: DrillState::parse(words.places[2]).unwrap(),
            summary: words.text("summary", "so it went").replace("LONG", &"x".repeat(5000)),
            report: words.text("report", "").replace("LONG", &"x".repeat(5000)),
        },
    }
}

/// `register <name> <mail>`, or `login`, `change`, `remove` and the key of the request that made it.
pub(super) fn account_command(words: &Words<'_>) -> Command {
    let user_id = || {
        let request_id = RequestId::from_key(words.places[1]).0.to_be_bytes();
        derive_uuid(&[b"account", &request_id])
    };
    Command::Account(match words.places[0] {
        "register" => AccountCommand::Register(Box::new(NewAccount {
            username: words.places[1].to_owned(),
            email: words.places[2].to_owned(),
            full_name: words.text("name", ""),
            password_hash: words.text("hash", "h"),
            role: words.text("role", ""),
        })),
        "login" => AccountCommand::NoteLogin { user_id: user_id() },
        "change" => AccountCommand::Change {
            user_id: user_id(),
            role: words.pairs.get("role").map(|role| (*role).to_owned()),
            is_active: words.pairs.get("active").map(|active| *active == "true"),
        },
        _ => AccountCommand::Remove { user_id: user_id() },
    })
}

pub(super) fn outward_command(verb: &str, words: &Words<'_>) -> Option<Command> {
    Some(match verb {
        "delivered" => Command::RecordDeliveries {
            epoch: words.epoch(),
            results: vec![DeliveryResult {
                delivery_id: words.places[1].parse().unwrap(),
                seen_tries: u32::try_from(words.number("tries", 0)).unwrap(),
                error: words.pairs.get("error").map(|error| (*error).to_owned()),
                for_good: words.pairs.contains_key("for_good"),
            }],
        },
        "alert" => Command::RecordAlerts {
            epoch: words.epoch(),
            changes: vec![AlertChange {
                alert_id: words.places[1].to_owned(),
                seen_transitions: words.number("seen", 0),
                metric: "figure".to_owned(),
                severity: match words.places[2] {
                    "critical" => Severity::Critical,
                    _ => Severity::Warning,
                },
                state: match words.places[3] {
                    "resolved" => AlertState::Resolved,
                    _ => AlertState::Active,
                },
                value_milli: words.number("value", 1500),
                threshold_milli: 1000,
                message: "too_much".to_owned(),
            }],
        },
        "suppress" => Command::SuppressAlert {
            alert_id: words.places[0].to_owned(),
            by: words.text("by", "me"),
            for_ms: words.places[1].parse().unwrap(),
        },
        "scale" => Command::RecordScaling {
            epoch: words.epoch(),
            event: ScalingEvent {
                number: 0,
                at_ms: 0,
                action: ScalingAction::Up,
                rule: words.places[1].to_owned(),
                current_nodes: 2,
                target_nodes: 4,
                metric_milli: 900,
                threshold_milli: 800,
                reason: "busy".to_owned(),
                provider: "command".to_owned(),
                outcome: None,
                nodes: words.list("nodes").iter().map(|id| NodeId::trusted(id)).collect(),
            },
            cooldown_ms: words.number("cooldown", 1000),
        },
        "scaled" => Command::RecordScalingOutcome {
            epoch: words.epoch(),
            number: words.places[1].parse().unwrap(),
            outcome: words.text("said", "done"),
        },
        _ => return None,
    })
}
