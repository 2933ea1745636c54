use super::*;
use crate::history::{Note, Recorder};

/// A history that tells `events` of one job and nothing else.
fn told(events: &[(&str, u64)]) -> History {
    let recorder = Recorder::in_memory();
    tell(&recorder, events.iter().map(|(kind, attempt)| ("job-1", *kind, *attempt, "w0")));
    recorder.finish().unwrap()
}

fn tell<'a>(recorder: &Recorder, events: impl Iterator<Item = (&'a str, &'a str, u64, &'a str)>) {
    recorder.observe("events-m1", Note::new("events", "open").value(json!({"after": "0"})));
    let event = |(place, (task, kind, attempt, node)): (usize, (&str, &str, u64, &str))| {
        let data = json!({"type": kind, "task_id": task, "attempt": attempt, "node_id": node});
        json!([format!("{}-0", place + 1), kind, data])
    };
    let events: Vec<Value> = events.enumerate().map(event).collect();
    recorder.observe("events-m1", Note::new("events", "events").value(Value::Array(events)));
}

const SUBMITTED: (&str, u64) = ("task_submitted", 0);

#[test]
fn a_life_with_a_retry_is_good() {
    let events = [
        SUBMITTED,
        ("task_assigned", 1),
        ("task_started", 1),
        ("task_retried", 1),
        ("task_queued", 0),
        ("task_assigned", 2),
        ("task_ended", 2),
    ];
    assert_eq!(lives(&told(&events)).validity, Validity::Valid);
    assert_eq!(lives(&told(&[SUBMITTED])).validity, Validity::Unknown);
}

#[test]
fn lives_that_cannot_be_are_found() {
    for (events, part) in [
        (vec![SUBMITTED, ("task_assigned", 1), ("task_assigned", 2)], "while 1 lives"),
        (vec![SUBMITTED, ("task_assigned", 2)], "attempt 2 follows attempt 0"),
        (
            vec![SUBMITTED, ("task_assigned", 1), ("task_ended", 1), ("task_assigned", 2)],
            "after its end",
        ),
        (vec![SUBMITTED, ("task_assigned", 1), ("task_retried", 2)], "task_retried of attempt 2"),
        (vec![SUBMITTED, ("task_assigned", 1), SUBMITTED], "submitted twice"),
    ] {
        let verdict = lives(&told(&events));
        assert_eq!(verdict.validity, Validity::Invalid, "{events:?}");
        assert!(verdict.findings.iter().any(|text| text.contains(part)), "{part}: {verdict:?}");
    }
}

#[test]
fn what_nobody_was_told_of_is_not_held_against_a_job() {
    let recorder = Recorder::in_memory();
    tell(&recorder, [("job-1", "task_assigned", 1, "w0")].into_iter());
    let gap = json!([["5-0", "gap", {}], ["6-0", "task_assigned",
        {"type": "task_assigned", "task_id": "job-1", "attempt": 4, "node_id": "w0"}]]);
    recorder.observe("events-m1", Note::new("events", "events").value(gap));
    let history = recorder.finish().unwrap();
    assert_eq!(lives(&history).validity, Validity::Valid);
}

#[test]
fn a_node_that_gets_too_much_is_found() {
    let placed = |second: &str| {
        let recorder = Recorder::in_memory();
        let node = json!({"node": "w0", "capacity": 1});
        recorder.observe("w0", Note::new(NAME, "node").value(node));
        let second = ("job-2", "task_assigned", 1, second);
        tell(&recorder, [("job-1", "task_assigned", 1, "w0"), second].into_iter());
        capacity(&recorder.finish().unwrap()).validity
    };
    assert_eq!((placed("w0"), placed("w1")), (Validity::Invalid, Validity::Valid));
    let recorder = Recorder::in_memory();
    recorder.observe("w0", Note::new(NAME, "node").value(json!({"node": "w0", "capacity": 1})));
    recorder.observe("watcher", Note::new(NAME, "nodes").value(json!({"w0": [2, 1]})));
    assert_eq!(capacity(&recorder.finish().unwrap()).validity, Validity::Invalid);
}

fn reported(all: &[(u64, &str, bool, Kind, bool)]) -> Verdict {
    let recorder = Recorder::in_memory();
    for (attempt, key, must_refuse, kind, duplicate) in all {
        let asked = json!({"attempt": attempt, "key": key, "must_refuse": must_refuse});
        let process = recorder.process();
        recorder.invoke(process, Note::new(NAME, "report").key("job-1").value(asked));
        let answer = json!({"duplicate": duplicate});
        recorder.end(process, *kind, Note::new(NAME, "report").key("job-1").value(answer));
    }
    reports(&recorder.finish().unwrap())
}

#[test]
fn stale_reports_must_be_refused() {
    let ok = (2, "w/ok", false, Kind::Ok, false);
    let good = [(1, "w/stale", true, Kind::Fail, false), ok, (2, "w/again", false, Kind::Ok, true)];
    assert_eq!(reported(&good).validity, Validity::Valid);
    assert_eq!(reported(&[ok]).validity, Validity::Unknown, "nothing had to be refused");
    let taken = (1, "w/stale", true, Kind::Ok, false);
    assert_eq!(reported(&[taken]).validity, Validity::Invalid);
    let again = (2, "w/again", false, Kind::Ok, false);
    assert_eq!(reported(&[ok, again]).validity, Validity::Invalid);
}

#[test]
fn an_attempt_on_two_nodes_is_found() {
    let recorder = Recorder::in_memory();
    for node in ["w0", "w1"] {
        let value = json!({"task": "job-1", "attempt": 1, "node": node});
        recorder.observe(node, Note::new(NAME, "dispatch").value(value));
    }
    assert_eq!(reports(&recorder.finish().unwrap()).validity, Validity::Invalid);
}

fn ended(rows: [Value; 2], token: &str) -> Verdict {
    let recorder = Recorder::in_memory();
    recorder.invoke(1, Note::new(NAME, "submit").key("job-1"));
    recorder.end(1, Kind::Ok, Note::new(NAME, "submit").key("job-1"));
    let token_of = |token: &str| json!({"more": {"token": token}});
    recorder.observe("w0", Note::new(NAME, "end").value(token_of("w0/job-1/2")));
    for (member, rows) in rows.into_iter().enumerate() {
        let node = Some(member as u64);
        recorder.observe("r", Note { node, ..Note::new(NAME, "final").value(rows) });
    }
    let result = json!({"status": "completed", "attempt": 2, "token": token});
    recorder.observe("r", Note::new(NAME, "result").key("job-1").value(result));
    ends(&recorder.finish().unwrap())
}

#[test]
fn results_are_of_the_last_attempt_and_alike_everywhere() {
    let rows = json!([["job-1", "completed", 2, "w0"]]);
    let other = json!([["job-1", "completed", 1, "w0"]]);
    let both = [rows.clone(), rows.clone()];
    assert_eq!(ended(both.clone(), "w0/job-1/2").validity, Validity::Valid);
    assert_eq!(ended(both.clone(), "w0/job-1/1").validity, Validity::Invalid);
    assert_eq!(ended(both, "").validity, Validity::Invalid);
    assert_eq!(ended([rows.clone(), other], "w0/job-1/2").validity, Validity::Invalid);
    assert_eq!(ended([rows.clone(), json!([])], "w0/job-1/2").validity, Validity::Invalid);
    let open = json!([["job-1", "running", 2, "w0"]]);
    assert_eq!(ended([open, rows], "w0/job-1/2").validity, Validity::Valid, "it moved on");
}

#[test]
fn a_queue_that_does_not_drain_is_found() {
    let with = |f: Option<&str>| {
        let recorder = Recorder::in_memory();
        if let Some(f) = f {
            recorder.observe("drain", Note::new(NAME, f).value(json!(["job-1"])));
        }
        drained(&recorder.finish().unwrap()).validity
    };
    assert_eq!(with(Some("drained")), Validity::Valid);
    assert_eq!(with(Some("undrained")), Validity::Invalid);
    assert_eq!(with(None), Validity::Unknown);
}
