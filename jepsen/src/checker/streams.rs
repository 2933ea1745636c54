//! What readers of the event stream were told: in order, once, alike, and nothing left out.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Findings, Verdict};
use crate::history::{History, Op};

/// The id of an event, as it sorts: log index and ordinal.
pub type EventId = (u64, u64);

/// A reader's stretch without a declared gap: everything after `after` up to its last event.
#[derive(Debug)]
struct Stretch {
    after: EventId,
    ids: Vec<EventId>,
}

/// What one reader was told.
#[derive(Debug, Default)]
struct Told {
    stretches: Vec<Stretch>,
    gaps: usize,
}

/// An id as it is written; an index alone stands for everything of that entry.
#[must_use]
pub fn parse_id(text: &str) -> Option<EventId> {
    match text.split_once('-') {
        Some((index, ordinal)) => Some((index.parse().ok()?, ordinal.parse().ok()?)),
        None => Some((text.parse().ok()?, u64::MAX)),
    }
}

/// Every event that any reader was told, in order.
#[must_use]
pub fn all_events(history: &History) -> BTreeMap<EventId, &Value> {
    first_told(history).into_iter().map(|(id, (_, data))| (id, data)).collect()
}

/// Every event that any reader was told, in order, with the time (ns) at which the first of them was:
/// what it tells of had happened by then.
#[must_use]
pub fn first_told(history: &History) -> BTreeMap<EventId, (u64, &Value)> {
    let mut all = BTreeMap::new();
    for op in history.observed("events", "events") {
        for (id, name, data) in told(op) {
            if name != "gap" {
                all.entry(id).or_insert((op.time, data));
            }
        }
    }
    all
}

/// The stretches of the log of which somebody was told everything, merged, in order: `(after, up
/// to)`. What lies between two of them may be missing from [`all_events`].
#[must_use]
pub fn covered(history: &History) -> Vec<(EventId, EventId)> {
    let mut readers: BTreeMap<String, Told> = BTreeMap::new();
    let mut ignored = Findings::default();
    for op in history.of("events") {
        let reader = readers.entry(op.process.to_string()).or_default();
        if op.f == "open" {
            open(reader, op, &mut ignored);
        }
        for (id, name, _) in told(op).filter(|_| op.f == "events") {
            take(reader, op, id, name, &mut ignored);
        }
    }
    let stretches = readers.values().flat_map(|told| &told.stretches);
    let ends = stretches.filter_map(|stretch| Some((stretch.after, *stretch.ids.last()?)));
    let mut ends: Vec<(EventId, EventId)> = ends.collect();
    ends.sort_unstable();
    let mut merged: Vec<(EventId, EventId)> = Vec::new();
    for (after, last) in ends {
        match merged.last_mut() {
            Some(open) if after <= open.1 => open.1 = open.1.max(last),
            _ => merged.push((after, last)),
        }
    }
    merged
}

/// The events of one line: id, name, data.
fn told(op: &Op) -> impl Iterator<Item = (EventId, &str, &Value)> {
    let list = op.value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|event| {
        Some((parse_id(event[0].as_str()?)?, event[1].as_str()?, event.get(2)?))
    })
}

/// Checks all readers of `workload`.
#[must_use]
pub fn check(workload: &str, history: &History) -> Vec<Verdict> {
    let mut order = Findings::default();
    let mut alike = Findings::default();
    let mut readers: BTreeMap<String, Told> = BTreeMap::new();
    let mut union: BTreeMap<EventId, (&Value, u64)> = BTreeMap::new();
    for op in history.of(workload) {
        let reader = readers.entry(op.process.to_string()).or_default();
        match op.f.as_str() {
            "open" => open(reader, op, &mut order),
            "events" => {
                for (id, name, data) in told(op) {
                    take(reader, op, id, name, &mut order);
                    if name != "gap" {
                        let (first, line) = *union.entry(id).or_insert((data, op.index));
                        if first != data {
                            let text =
                                format!("{}-{} is {first} here and {data} there", id.0, id.1);
                            alike.add(text, &[line, op.index]);
                        }
                    }
                }
            }
            _ => {}
        }
    }
    let complete = complete(&readers, &union);
    let missing_writes = acknowledged(history, &readers, &union);
    let gaps: usize = readers.values().map(|told| told.gaps).sum();
    let looked_at =
        format!("{} readers, {} events, {gaps} gap markers", readers.len(), union.len());
    let enough = !union.is_empty();
    let verdict = |property: &str, findings: Findings| {
        Verdict::of(workload, property, looked_at.clone(), findings)
            .unless_too_little(enough, "no event")
            .figures(json!({"readers": readers.len(), "events": union.len(), "gaps": gaps}))
    };
    vec![
        verdict("streams are in order and resume", order),
        verdict("every member tells the same", alike),
        verdict("nothing is left out without a gap marker", complete),
        verdict("what was acknowledged is told", missing_writes),
    ]
}

/// A connection is opened where the reader was: its last event, or the common begin.
fn open(reader: &mut Told, op: &Op, order: &mut Findings) {
    let after = op.value["after"].as_str().and_then(parse_id).unwrap_or_default();
    match reader.stretches.last() {
        None => reader.stretches.push(Stretch { after, ids: Vec::new() }),
        Some(stretch) => {
            let last = stretch.ids.last().copied().unwrap_or(stretch.after);
            if last != after {
                let text = format!("{} went on after {after:?}, it was at {last:?}", op.process);
                order.add(text, &[op.index]);
            }
        }
    }
}

fn take(reader: &mut Told, op: &Op, id: EventId, name: &str, order: &mut Findings) {
    let Some(stretch) = reader.stretches.last_mut() else { return };
    let last = stretch.ids.last().copied().unwrap_or(stretch.after);
    if name == "gap" {
        reader.gaps += 1;
        // A gap marker says after which event the stream goes on; that event itself is lost.
        reader.stretches.push(Stretch { after: id, ids: Vec::new() });
        return;
    }
    if id <= last {
        let text = format!("{} was told {id:?} after {last:?}", op.process);
        order.add(text, &[op.index]);
        return;
    }
    stretch.ids.push(id);
}

/// Within a stretch a reader was told everything that anybody was.
fn complete(
    readers: &BTreeMap<String, Told>,
    union: &BTreeMap<EventId, (&Value, u64)>,
) -> Findings {
    let mut findings = Findings::default();
    for (who, told) in readers {
        for stretch in &told.stretches {
            let Some(last) = stretch.ids.last() else { continue };
            let mut had = stretch.ids.iter().peekable();
            for (id, (data, line)) in union.range(..=*last).filter(|(id, _)| **id > stretch.after) {
                while had.next_if(|seen| *seen < id).is_some() {}
                if had.next_if_eq(&id).is_none() {
                    findings.add(format!("{who} was not told {}-{}: {data}", id.0, id.1), &[*line]);
                }
            }
        }
    }
    findings
}

/// Every submission that was acknowledged was told, at its index or before (an answer may be a
/// later repetition of the first one), if somebody listened there.
fn acknowledged(
    history: &History,
    readers: &BTreeMap<String, Told>,
    union: &BTreeMap<EventId, (&Value, u64)>,
) -> Findings {
    let mut findings = Findings::default();
    let submitted = |(id, (data, _)): (&EventId, &(&Value, u64))| {
        let task = data["task_id"].as_str()?.to_owned();
        (data["type"] == "task_submitted").then_some((task, id.0))
    };
    let submitted: BTreeMap<String, u64> = union.iter().filter_map(submitted).collect();
    let heard = |index: u64| {
        readers.values().flat_map(|told| &told.stretches).any(|stretch| {
            stretch.after.0 == 0 && stretch.ids.last().is_some_and(|last| last.0 > index)
        })
    };
    for call in history.calls("set").iter().filter(|call| call.is_ok()) {
        let Some(index) = call.end.and_then(|end| end.log) else { continue };
        let task = format!("set-{}", call.invoke.value);
        let told = submitted.get(&task).is_some_and(|at| *at <= index);
        if heard(index) && !told {
            let text = format!("{task} was acknowledged at {index}, and nobody was told");
            findings.add(text, &[call.invoke.index]);
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Validity;
    use crate::history::{Kind, Note, Recorder};

    fn event(id: &str, what: u64) -> Value {
        json!([id, "task_ended", {"what": what}])
    }

    /// Lines of reader `who`: an opening position, or events.
    fn verdicts(lines: &[(&str, Result<&str, Value>)]) -> Vec<Verdict> {
        let recorder = Recorder::in_memory();
        for (who, line) in lines {
            let note = match line {
                Ok(after) => Note::new("events", "open").value(json!({"after": after})),
                Err(told) => Note::new("events", "events").value(told.clone()),
            };
            recorder.observe(*who, note);
        }
        check("events", &recorder.finish().unwrap())
    }

    fn bad(lines: &[(&str, Result<&str, Value>)]) -> Vec<usize> {
        let verdicts = verdicts(lines);
        let is_bad = |place: &usize| verdicts[*place].validity == Validity::Invalid;
        (0..verdicts.len()).filter(is_bad).collect()
    }

    #[test]
    fn two_readers_that_are_told_the_same_are_content() {
        let lines = [
            ("a", Ok("5")),
            ("b", Ok("5")),
            ("a", Err(json!([event("6-0", 1), event("6-1", 2)]))),
            ("b", Err(json!([event("6-0", 1)]))),
            ("b", Ok("6-0")),
            ("b", Err(json!([event("6-1", 2)]))),
        ];
        assert_eq!(bad(&lines), [0_usize; 0]);
        assert!(verdicts(&lines).iter().all(|verdict| verdict.validity == Validity::Valid));
    }

    #[test]
    fn disorder_and_repetition_are_found() {
        let lines = [("a", Ok("5")), ("a", Err(json!([event("6-1", 2), event("6-0", 1)])))];
        assert_eq!(bad(&lines), [0, 2]);
        let again = [
            ("a", Ok("5")),
            ("a", Err(json!([event("6-0", 1)]))),
            ("a", Ok("6-0")),
            ("a", Err(json!([event("6-0", 1)]))),
        ];
        assert_eq!(bad(&again), [0]);
    }

    #[test]
    fn an_event_that_is_left_out_is_found_unless_a_gap_is_declared() {
        let whole = ("a", Err(json!([event("6-0", 1), event("7-0", 2), event("8-0", 3)])));
        let holed = ("b", Err(json!([event("6-0", 1), event("8-0", 3)])));
        assert_eq!(bad(&[("a", Ok("5")), whole.clone(), ("b", Ok("5")), holed]), [2]);
        let gap = json!(["7-0", "gap", {"type": "gap", "resumes_after": "7-0"}]);
        let told = ("b", Err(json!([event("6-0", 1), gap, event("8-0", 3)])));
        assert_eq!(bad(&[("a", Ok("5")), whole, ("b", Ok("5")), told]), [0_usize; 0]);
    }

    #[test]
    fn two_stories_about_one_event_are_found() {
        let lines = [
            ("a", Ok("5")),
            ("a", Err(json!([event("6-0", 1)]))),
            ("b", Ok("5")),
            ("b", Err(json!([event("6-0", 9)]))),
        ];
        assert_eq!(bad(&lines), [1]);
    }

    #[test]
    fn an_acknowledged_submission_that_nobody_tells_is_found() {
        let recorder = Recorder::in_memory();
        recorder.observe("a", Note::new("events", "open").value(json!({"after": "0"})));
        recorder.invoke(1, Note::new("set", "submit").value(4));
        recorder.end(1, Kind::Ok, Note { log: Some(6), ..Note::new("set", "submit") });
        let told = json!([event("6-0", 1), event("7-0", 2)]);
        recorder.observe("a", Note::new("events", "events").value(told));
        let verdicts = check("events", &recorder.finish().unwrap());
        assert_eq!(verdicts[3].validity, Validity::Invalid, "{verdicts:?}");
    }
}
