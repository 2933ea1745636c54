//! `alerting`: alerts out of what earlier steps noticed, each once a minute (contract 4.5, `alerts`).

use std::collections::HashMap;
use std::fmt::Write;

use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::task::{AgentFailure, AgentTask};
use super::pieces::{Body, Piece, pieces};
use super::{number, seconds, video_detection};
use crate::model::TimeMs;

/// The same alert is not given again within this time.
const WINDOW_S: f64 = 60.0;
/// The longest window that can be asked for.
const WINDOW_MAX_S: f64 = 24.0 * 3600.0;
/// Alerts that are remembered.
const RECENT_MAX: usize = 10_000;
/// The most alerts of one task.
const ALERTS_MAX: usize = 1000;
/// By urgency.
const SEVERITIES: [&str; 4] = ["critical", "high", "medium", "low"];

/// What was alerted of lately, by alert id: when, and by which task. A task that is tried again
/// gives its alerts again.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<HashMap<String, (TimeMs, String)>>);

impl Recent {
    /// Remembers the alert; `false` when another task gave it within the window.
    fn admit(&self, id: &str, task_id: &str, window_ms: TimeMs, now: TimeMs) -> bool {
        let mut recent = self.0.lock();
        if let Some((at, by)) = recent.get(id)
            && by != task_id
            && now.saturating_sub(*at) < window_ms
        {
            return false;
        }
        if recent.len() >= RECENT_MAX {
            recent.retain(|_, (at, _)| now.saturating_sub(*at) < window_ms);
        }
        if recent.len() >= RECENT_MAX {
            let oldest = recent.iter().min_by_key(|(_, (at, _))| *at);
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                recent.remove(&id);
            }
        }
        recent.insert(id.to_owned(), (now, task_id.to_owned()));
        true
    }
}

/// Something that may be alerted of.
struct Notice {
    kind: String,
    severity: &'static str,
    message: String,
    /// Seconds; that of the frame, when it has one.
    at: f64,
    agent_id: Value,
    frame: Value,
    objects: Value,
}

/// Alerts of all events, anomalies and failed calls in the inputs. Frames are looked at first.
pub(super) fn run(task: &AgentTask, now: TimeMs, recent: &Recent) -> Result<Value, AgentFailure> {
    let window = number(task, "dedup_window_s", WINDOW_S)?.clamp(0.0, WINDOW_MAX_S);
    let lowest = match task.parameters.get("min_severity") {
        None => SEVERITIES.len() - 1,
        Some(word) => SEVERITIES.iter().position(|known| known == word).ok_or_else(|| {
            let words = SEVERITIES.join(", ");
            AgentFailure::invalid(format!(
                "parameter min_severity must be one of {words}, not {word}"
            ))
        })?,
    };
    let mut notices = Vec::new();
    for piece in pieces(task)? {
        collect(task, &piece, now, &mut notices)?;
    }
    notices.retain(|notice| rank(notice.severity) <= lowest);
    let noticed = notices.len();
    let mut last: HashMap<String, f64> = HashMap::new();
    let mut alerts = Vec::new();
    for notice in notices {
        let id = alert_id(&notice);
        let within = last.get(&id).is_some_and(|at| (notice.at - at).abs() < window);
        if within || alerts.len() == ALERTS_MAX {
            continue;
        }
        let known = last.insert(id.clone(), notice.at).is_some();
        if known || recent.admit(&id, &task.task_id, (window * 1000.0) as TimeMs, now) {
            alerts.push((notice.severity, render(&id, &notice)));
        }
    }
    // Stable: alerts of one severity stay in the order of their frames.
    alerts.sort_by_key(|(severity, _)| rank(severity));
    let alerts: Vec<Value> = alerts.into_iter().map(|(_, alert)| alert).collect();
    Ok(json!({
        "alert_count": alerts.len(),
        "suppressed_count": noticed - alerts.len(),
        "alerts": alerts,
        "timestamp": seconds(now),
    }))
}

fn rank(severity: &str) -> usize {
    SEVERITIES.iter().position(|known| *known == severity).unwrap_or(SEVERITIES.len())
}

fn collect(
    task: &AgentTask,
    piece: &Piece,
    now: TimeMs,
    into: &mut Vec<Notice>,
) -> Result<(), AgentFailure> {
    let value = match &piece.body {
        Body::Value(value) => value,
        Body::Media(_) => return Err(piece.needs_model("alerting")),
        Body::Text(_) => {
            let message = format!(
                "input {} is text: alerting takes detections, events, \
                                   analyses or frames",
                piece.name
            );
            return Err(AgentFailure::invalid(message));
        }
    };
    if piece.is("detections") {
        frames(&value["detections"], now, into);
    } else if piece.is("analysis_result") {
        into.extend(
            value["anomalies"].as_array().into_iter().flatten().map(|one| anomaly(one, now)),
        );
    } else if piece.is("api_response") {
        let failed = piece.array("responses").iter().filter(|one| one["status"] != "success");
        into.extend(failed.map(|one| failed_call(one, now)));
    } else if let Some(events) = events_in(value) {
        into.extend(events.iter().filter_map(|one| notice(one, &Value::Null, now)));
    } else {
        let detected = video_detection::detect(task, std::slice::from_ref(piece), now)?;
        frames(&detected["detections"], now, into);
    }
    Ok(())
}

/// Bare events: `{"events": [...]}`, or a list of objects with a type and no objects.
fn events_in(value: &Value) -> Option<&Vec<Value>> {
    let list = value["events"].as_array().or_else(|| value.as_array())?;
    let frames = value["objects"].is_array();
    (!frames && list.iter().all(|one| one["type"].is_string())).then_some(list)
}

fn frames(detections: &Value, now: TimeMs, into: &mut Vec<Notice>) {
    for frame in detections.as_array().into_iter().flatten() {
        let events = frame["events"].as_array().into_iter().flatten();
        into.extend(events.filter_map(|event| notice(event, frame, now)));
    }
}

/// `None` for what has no type.
fn notice(event: &Value, frame: &Value, now: TimeMs) -> Option<Notice> {
    let kind = event["type"].as_str()?.to_owned();
    let given = event["severity"].as_str().unwrap_or_default().to_lowercase();
    let severity = SEVERITIES.into_iter().find(|known| *known == given).unwrap_or("medium");
    let words = ["description", "message"].iter().find_map(|key| event[*key].as_str());
    let message = words.map_or_else(|| kind.replace('_', " "), str::to_owned);
    let times = [&event["timestamp"], &frame["timestamp"]];
    let at = times.into_iter().find_map(Value::as_f64).unwrap_or_else(|| seconds(now));
    let agent_id = [&event["agent_id"], &frame["agent_id"], &frame["metadata"]["agent_id"]]
        .into_iter()
        .find(|id| id.is_string())
        .cloned()
        .unwrap_or_else(|| json!("video_detection"));
    let (frame, objects) = (frame["frame_id"].clone(), frame["objects"].clone());
    let objects = if objects.is_null() { json!([]) } else { objects };
    Some(Notice { kind, severity, message, at, agent_id, frame, objects })
}

fn anomaly(found: &Value, now: TimeMs) -> Notice {
    let score = found["z_score"].as_f64().unwrap_or_default();
    let field = found["field"].as_str().unwrap_or("a value");
    Notice {
        kind: "anomaly_detected".to_owned(),
        severity: if score.abs() > 5.0 { "high" } else { "medium" },
        message: format!("{field} is {}: {score:.1} deviations from the mean", found["value"]),
        at: seconds(now),
        agent_id: json!("data_analysis"),
        frame: Value::Null,
        objects: json!([]),
    }
}

fn failed_call(response: &Value, now: TimeMs) -> Notice {
    let endpoint = response["endpoint"].as_str().unwrap_or("an endpoint");
    let open = response["status"] == "circuit_open";
    Notice {
        kind: if open { "circuit_open" } else { "api_call_failed" }.to_owned(),
        severity: if open { "high" } else { "medium" },
        message: format!("Calls to {endpoint} fail"),
        at: seconds(now),
        agent_id: json!("api_caller"),
        frame: Value::Null,
        objects: json!([]),
    }
}

/// The first 16 hex digits of a hash of type and description (contract 4.5).
fn alert_id(notice: &Notice) -> String {
    let mut hash = Sha256::new();
    hash.update(notice.kind.as_bytes());
    hash.update(notice.message.as_bytes());
    let mut id = String::new();
    for byte in hash.finalize().iter().take(8) {
        write!(id, "{byte:02x}").expect("a String takes everything");
    }
    id
}

fn render(id: &str, notice: &Notice) -> Value {
    let requires_action = matches!(notice.severity, "critical" | "high");
    json!({
        "alert_id": id,
        "type": notice.kind,
        "severity": notice.severity,
        "message": notice.message,
        "timestamp": notice.at,
        "source": {
            "agent_id": notice.agent_id,
            "detection_frame": notice.frame,
            "objects": notice.objects,
        },
        "requires_action": requires_action,
        "metadata": {
            "requires_action": requires_action,
            "auto_escalate": notice.severity == "critical",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::input::AgentInput;
    use super::super::task;
    use super::*;

    const NOW: TimeMs = 1_700_000_000_500;

    fn alert(value: Value, parameters: &[(&str, &str)]) -> Result<Value, AgentFailure> {
        let task = task("alerting", vec![AgentInput::json(value)], parameters);
        run(&task, NOW, &Recent::default())
    }

    fn crowd(at: f64) -> Value {
        json!({"frame_id": at, "timestamp": at, "objects": [{"class": "person"}], "events": [
            {"type": "crowd_detected", "severity": "medium", "description": "many"}
        ]})
    }

    #[test]
    fn contract_4_5_alerts_have_their_fields_and_order() {
        let events = json!([
            {"type": "a", "severity": "low", "description": "x"},
            {"type": "b", "severity": "critical", "description": "y"},
            {"type": "c", "severity": "high"},
        ]);
        let data = alert(events.clone(), &[]).unwrap();
        assert_eq!(data["alert_count"], 3);
        let order: Vec<_> = (0..3).map(|n| data["alerts"][n]["severity"].clone()).collect();
        assert_eq!(order, ["critical", "high", "low"]);
        let first = &data["alerts"][0];
        let id = first["alert_id"].as_str().unwrap();
        assert!(id.len() == 16 && id.chars().all(|c| c.is_ascii_hexdigit()), "{id}");
        assert_eq!(first["metadata"], json!({"requires_action": true, "auto_escalate": true}));
        assert_eq!((&first["requires_action"], &first["message"]), (&json!(true), &json!("y")));
        assert_eq!(data["alerts"][2]["requires_action"], false);
        let data = alert(events, &[("min_severity", "high")]).unwrap();
        assert_eq!(data["alert_count"], 2);
    }

    #[test]
    fn contract_4_5_the_same_alert_comes_once_a_minute() {
        let frames =
            json!({"detections": [crowd(0.0), crowd(30.0), crowd(59.0), crowd(60.0), crowd(61.0)]});
        let data = alert(frames.clone(), &[]).unwrap();
        assert_eq!((&data["alert_count"], &data["suppressed_count"]), (&json!(2), &json!(3)));
        assert_eq!(data["alerts"][1]["source"]["detection_frame"], 60.0);
        assert_eq!(data["alerts"][1]["source"]["objects"], json!([{"class": "person"}]));
        let data = alert(frames, &[("dedup_window_s", "0")]).unwrap();
        assert_eq!(data["alert_count"], 5);
    }

    #[test]
    fn contract_4_5_the_window_spans_tasks_but_not_tries_of_one() {
        let recent = Recent::default();
        let run_as = |task_id: &str, now| {
            let mut task =
                task("alerting", vec![AgentInput::json(json!({"detections": [crowd(1.0)]}))], &[]);
            task.task_id = task_id.to_owned();
            run(&task, now, &recent).unwrap()["alert_count"].clone()
        };
        assert_eq!(run_as("first", NOW), 1);
        assert_eq!(run_as("second", NOW + 59_000), 0);
        assert_eq!(run_as("first", NOW + 59_000), 1, "a retry gives its alerts again");
        assert_eq!(run_as("third", NOW + 119_001), 1);
    }

    #[test]
    fn recent_alerts_are_bounded() {
        let recent = Recent::default();
        for n in 0..RECENT_MAX + 5 {
            assert!(recent.admit(&format!("{n}"), "t", 60_000, NOW + n as u64));
        }
        assert_eq!(recent.0.lock().len(), RECENT_MAX);
        assert!(recent.admit("0", "u", 60_000, NOW + 20_000), "the oldest went first");
    }

    #[test]
    fn frames_anomalies_and_failed_calls_are_noticed() {
        let frames = json!({"frames": [{"objects": vec![json!({"class": "person"}); 6]}]});
        let data = alert(frames, &[]).unwrap();
        assert_eq!(data["alerts"][0]["type"], "crowd_detected");
        let data = alert(json!([
            {"summary_statistics": {}, "anomalies": [{"field": "x", "value": 9, "z_score": 6.0}]},
            {"responses": [{"status": "circuit_open", "endpoint": "http://a"}, {"status": "success"}]},
        ]), &[]).unwrap();
        assert_eq!(
            (&data["alerts"][0]["type"], &data["alerts"][1]["type"]),
            (&json!("anomaly_detected"), &json!("circuit_open"))
        );
        assert!(alert(json!("text"), &[]).is_err());
        assert!(alert(json!([]), &[("min_severity", "dire")]).is_err());
        assert_eq!(alert(json!([]), &[]).unwrap()["alert_count"], 0);
    }
}
