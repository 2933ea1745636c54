//! `video_detection`: what happens in frames whose objects somebody has recognised (contract 4.5,
//! `detections`). Recognising objects in a picture needs a model, which this is not.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::super::task::{AgentFailure, AgentTask};
use super::pieces::{Body, Piece, pieces};
use super::{number, seconds};
use crate::model::TimeMs;

/// More persons than this are a crowd.
const PERSONS_MAX: f64 = 5.0;
/// Objects that are less certain do not count.
const CONFIDENCE_MIN: f64 = 0.5;
/// The most frames of one task, and objects of one frame.
const FRAMES_MAX: usize = 10_000;
const OBJECTS_MAX: usize = 200;
/// Boxes that overlap less are different objects.
const OVERLAP_MIN: f64 = 0.3;
/// A track that was not seen for so many frames is over.
const TRACK_FRAMES: usize = 10;
const VEHICLES: [&str; 8] =
    ["vehicle", "car", "truck", "bus", "van", "motorcycle", "motorbike", "bicycle"];

/// Detections of all frames of the inputs.
pub(super) fn run(task: &AgentTask, now: TimeMs) -> Result<Value, AgentFailure> {
    detect(task, &pieces(task)?, now)
}

/// The same for `alerting`, which gets frames in parallel mode.
pub(super) fn detect(
    task: &AgentTask,
    pieces: &[Piece],
    now: TimeMs,
) -> Result<Value, AgentFailure> {
    let rules = Rules::read(task)?;
    let mut tracks = Tracks::default();
    let mut detections = Vec::new();
    for piece in pieces {
        let rules = rules.of(&piece.metadata.get("restricted_area"));
        for frame in frames(piece)? {
            if detections.len() == FRAMES_MAX {
                return Err(AgentFailure::invalid(format!("more than {FRAMES_MAX} frames")));
            }
            let number = detections.len();
            detections.push(look_at(frame, number, &rules, &mut tracks, now)?);
        }
    }
    Ok(json!({
        "detection_count": detections.len(), "detections": detections, "timestamp": seconds(now),
    }))
}

/// What makes an event.
#[derive(Debug, Clone, Copy)]
struct Rules {
    persons_max: f64,
    confidence_min: f64,
    restricted: bool,
}

impl Rules {
    fn read(task: &AgentTask) -> Result<Self, AgentFailure> {
        let restricted = match task.parameter("restricted_area") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(restricted)) => restricted,
            Some(other) => {
                let message =
                    format!("parameter restricted_area must be true or false, not {other}");
                return Err(AgentFailure::invalid(message));
            }
        };
        Ok(Self {
            persons_max: number(task, "max_persons", PERSONS_MAX)?,
            confidence_min: number(task, "confidence_threshold", CONFIDENCE_MIN)?,
            restricted,
        })
    }

    /// With what an input or a frame says about itself.
    fn of(self, restricted: &Option<&Value>) -> Self {
        let restricted = restricted.and_then(Value::as_bool).unwrap_or(self.restricted);
        Self { restricted, ..self }
    }
}

/// The frames of an input: a list, an object with `frames`, the output of another such agent, or a
/// single frame.
fn frames(piece: &Piece) -> Result<Vec<&Map<String, Value>>, AgentFailure> {
    let value = match &piece.body {
        Body::Value(value) => value,
        Body::Media(_) => return Err(piece.needs_model("video_detection")),
        Body::Text(_) => return Err(wanted(piece)),
    };
    let lists = ["frames", "detections"].iter().find_map(|key| value[*key].as_array());
    let list = lists.or_else(|| value.as_array());
    let frames: Option<Vec<&Map<String, Value>>> = match (list, value.as_object()) {
        (Some(list), _) => list.iter().map(Value::as_object).collect(),
        (None, Some(frame)) if frame.contains_key("objects") => Some(vec![frame]),
        (None, _) => None,
    };
    frames.ok_or_else(|| wanted(piece))
}

fn wanted(piece: &Piece) -> AgentFailure {
    AgentFailure::invalid(format!(
        "input {} must be frames: [{{\"frame_id\", \"timestamp\", \"objects\": [{{\"class\", \
         \"confidence\", \"bbox\"}}]}}]",
        piece.name
    ))
}

fn look_at(
    frame: &Map<String, Value>,
    number: usize,
    rules: &Rules,
    tracks: &mut Tracks,
    now: TimeMs,
) -> Result<Value, AgentFailure> {
    let metadata = frame.get("metadata").cloned().unwrap_or_else(|| json!({}));
    let flag = frame.get("restricted_area").or_else(|| metadata.get("restricted_area"));
    let rules = rules.of(&flag);
    let frame_id = match frame.get("frame_id") {
        None | Some(Value::Null) => json!(format!("frame_{number}")),
        Some(id) => id.clone(),
    };
    let given = frame.get("objects").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if given.len() > OBJECTS_MAX {
        return Err(AgentFailure::invalid(format!("frame {frame_id}: over {OBJECTS_MAX} objects")));
    }
    let mut objects = Vec::new();
    for object in given {
        let object = Object::read(object).ok_or_else(|| {
            AgentFailure::invalid(format!("frame {frame_id}: {object} is no object"))
        })?;
        if object.confidence >= rules.confidence_min {
            let tracking_id = tracks.follow(&object, number);
            objects.push((object, tracking_id));
        }
    }
    let of =
        |wanted: &dyn Fn(&str) -> bool| objects.iter().filter(|(o, _)| wanted(&o.class)).count();
    let persons = of(&|class| class == "person");
    let vehicles = of(&|class| VEHICLES.contains(&class));
    let mut events = frame.get("events").and_then(Value::as_array).cloned().unwrap_or_default();
    let camera = ["camera", "location"].iter().find_map(|key| metadata[*key].as_str());
    let place = camera.map_or_else(String::new, |camera| format!(" ({camera})"));
    if persons as f64 > rules.persons_max {
        // Without the exact number, which differs from frame to frame: alerts are told apart by it.
        let message = format!("More than {} persons at once{place}", rules.persons_max);
        events.push(event("crowd_detected", "medium", &message, persons));
    }
    if vehicles > 0 && rules.restricted {
        let message = format!("Vehicle in a restricted area{place}");
        events.push(event("unauthorized_vehicle", "high", &message, vehicles));
    }
    let objects: Vec<Value> = objects.iter().map(|(object, id)| object.to_json(id)).collect();
    Ok(json!({
        "frame_id": frame_id,
        "timestamp": frame.get("timestamp").cloned().unwrap_or_else(|| json!(seconds(now))),
        "object_count": objects.len(),
        "objects": objects,
        "events": events,
        "metadata": metadata,
    }))
}

fn event(kind: &str, severity: &str, description: &str, count: usize) -> Value {
    json!({ "type": kind, "severity": severity, "description": description, "count": count })
}

/// Something that was recognised.
struct Object {
    class: String,
    confidence: f64,
    /// Left, top, right, bottom, as given.
    bbox: Option<[f64; 4]>,
    tracking_id: Option<Value>,
}

impl Object {
    /// `None` for what has no class, or a box that is none.
    fn read(value: &Value) -> Option<Self> {
        let class = value["class"].as_str().or_else(|| value["label"].as_str())?.to_lowercase();
        let bbox = match &value["bbox"] {
            Value::Null => None,
            bbox => {
                let sides = bbox.as_array()?.iter().map(Value::as_f64).collect::<Option<Vec<_>>>();
                Some(<[f64; 4]>::try_from(sides?).ok()?)
            }
        };
        let confidence = match &value["confidence"] {
            Value::Null => 1.0,
            confidence => confidence.as_f64()?,
        };
        let tracking_id = Some(value["tracking_id"].clone()).filter(|id| !id.is_null());
        Some(Self { class, confidence, bbox, tracking_id })
    }

    fn to_json(&self, tracking_id: &Value) -> Value {
        json!({
            "class": self.class, "confidence": self.confidence, "bbox": self.bbox,
            "tracking_id": tracking_id,
        })
    }
}

/// Follows objects from frame to frame by the overlap of their boxes.
#[derive(Default)]
struct Tracks {
    open: HashMap<String, Vec<Track>>,
    begun: usize,
}

struct Track {
    id: usize,
    bbox: [f64; 4],
    frame: usize,
}

impl Tracks {
    /// The id an object has already, or that of the track which it continues or begins.
    fn follow(&mut self, object: &Object, frame: usize) -> Value {
        if let Some(id) = &object.tracking_id {
            return id.clone();
        }
        let Some(bbox) = object.bbox else { return Value::Null };
        let open = self.open.entry(object.class.clone()).or_default();
        open.retain(|track| frame - track.frame <= TRACK_FRAMES);
        // A track takes one object per frame.
        let free = open.iter_mut().filter(|track| track.frame < frame);
        let nearest = free
            .map(|track| (overlap(&track.bbox, &bbox), track))
            .filter(|(overlap, _)| *overlap >= OVERLAP_MIN)
            .max_by(|(a, _), (b, _)| a.total_cmp(b));
        let id = if let Some((_, track)) = nearest {
            (track.bbox, track.frame) = (bbox, frame);
            track.id
        } else {
            self.begun += 1;
            open.push(Track { id: self.begun, bbox, frame });
            self.begun
        };
        json!(format!("track_{id}"))
    }
}

/// The common part of two boxes as a share of what they cover together.
fn overlap(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let area =
        |[left, top, right, bottom]: [f64; 4]| (right - left).max(0.0) * (bottom - top).max(0.0);
    let common = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let together = area(*a) + area(*b) - common;
    if together > 0.0 { common / together } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::super::super::input::{AgentInput, InputData, InputKind};
    use super::super::task;
    use super::*;

    const NOW: TimeMs = 1_700_000_000_500;

    fn detect(frames: Value, parameters: &[(&str, &str)]) -> Result<Value, AgentFailure> {
        run(&task("video_detection", vec![AgentInput::json(frames)], parameters), NOW)
    }

    fn persons(n: usize) -> Value {
        json!({"frame_id": 7, "timestamp": 12.5, "objects": vec![json!({"class": "person"}); n]})
    }

    #[test]
    fn contract_4_5_a_crowd_is_an_event() {
        let data = detect(json!({"frames": [persons(5), persons(6)]}), &[]).unwrap();
        assert_eq!(
            (&data["detection_count"], &data["timestamp"]),
            (&json!(2), &json!(1_700_000_000.5))
        );
        assert_eq!(data["detections"][0]["events"], json!([]));
        let frame = &data["detections"][1];
        assert_eq!((&frame["frame_id"], &frame["timestamp"]), (&json!(7), &json!(12.5)));
        assert_eq!(frame["object_count"], 6);
        assert_eq!(frame["events"][0]["type"], "crowd_detected");
        assert_eq!(frame["events"][0]["severity"], "medium");
        let data = detect(persons(3), &[("max_persons", "2")]).unwrap();
        assert_eq!(data["detections"][0]["events"][0]["count"], 3);
    }

    #[test]
    fn contract_4_5_a_vehicle_in_a_restricted_area_is_an_event() {
        let frame = json!([{"objects": [{"class": "Car", "confidence": 0.9}]}]);
        assert_eq!(detect(frame.clone(), &[]).unwrap()["detections"][0]["events"], json!([]));
        let data = detect(frame.clone(), &[("restricted_area", "true")]).unwrap();
        assert_eq!(data["detections"][0]["events"][0]["type"], "unauthorized_vehicle");
        assert_eq!(data["detections"][0]["events"][0]["severity"], "high");
        let data = detect(frame.clone(), &[("confidence_threshold", "0.95")]).unwrap();
        assert_eq!(data["detections"][0]["object_count"], 0);
        assert!(detect(frame, &[("restricted_area", "perhaps")]).is_err());
        let own = json!([{"objects": [{"class": "bus"}], "metadata": {"restricted_area": true}}]);
        assert_eq!(
            detect(own, &[]).unwrap()["detections"][0]["events"].as_array().unwrap().len(),
            1
        );
    }

    #[test]
    fn objects_are_followed_by_their_boxes() {
        let at = |x: f64| json!({"class": "person", "bbox": [x, 0.0, x + 10.0, 20.0]});
        let data = detect(
            json!([
                {"objects": [at(0.0), at(100.0)]},
                {"objects": [at(102.0), at(1.0), at(300.0)]},
                {"objects": [{"class": "person", "bbox": [2, 0, 12, 20], "tracking_id": "known"}]},
            ]),
            &[],
        )
        .unwrap();
        let ids = |frame: usize| -> Vec<Value> {
            let objects = data["detections"][frame]["objects"].as_array().unwrap();
            objects.iter().map(|object| object["tracking_id"].clone()).collect()
        };
        assert_eq!(ids(0), [json!("track_1"), json!("track_2")]);
        assert_eq!(ids(1), [json!("track_2"), json!("track_1"), json!("track_3")]);
        assert_eq!(ids(2), [json!("known")]);
    }

    #[test]
    fn films_need_a_model_and_nonsense_is_named() {
        let film = AgentInput {
            kind: InputKind::Video,
            data: InputData::Bytes(bytes::Bytes::from_static(&[0, 0, 1])),
            ..AgentInput::default()
        };
        let failure = run(&task("video_detection", vec![film], &[]), NOW).unwrap_err();
        assert!(failure.message.contains("--model-url"), "{failure}");
        for frames in [
            json!(3),
            json!([1]),
            json!({"a": 1}),
            json!([{"objects": [{"class": 3}]}]),
            json!([{"objects": [{"class": "a", "bbox": [1, 2]}]}]),
            json!([{"objects": [{"class": "a", "confidence": "high"}]}]),
            json!("text"),
        ] {
            assert!(detect(frames.clone(), &[]).is_err(), "{frames}");
        }
        assert_eq!(detect(json!([]), &[]).unwrap()["detection_count"], 0);
    }
}
