use super::*;
use crate::checker::Validity;
use crate::history::{Note, Recorder};

const HIGH: &str = "utilization";
const ACTIVE: (&str, &str) = ("active", "warning");
const KNOWN: (&str, &str) = ("acknowledged", "warning");
const OVER: (&str, &str) = ("resolved", "warning");

/// What happens to one alert.
struct Story {
    recorder: Recorder,
    index: u64,
    deliveries: u64,
}

impl Story {
    fn new() -> Self {
        let recorder = Recorder::in_memory();
        recorder.observe("events-m1", Note::new("events", "open").value(json!({"after": "0"})));
        Self { recorder, index: 0, deliveries: 0 }
    }

    fn event(&mut self, (state, severity): (&str, &str)) -> &mut Self {
        self.index += 1;
        let data = json!({"type": "alert_changed", "alert_id": HIGH, "state": state,
            "severity": severity});
        let told = json!([[format!("{}-0", self.index), "alert_changed", data]]);
        self.recorder.observe("events-m1", Note::new("events", "events").value(told));
        self
    }

    fn post(&mut self, channel: &str, delivery: u64, n: u64, at: (&str, &str)) -> &mut Self {
        let transition = if channel == "webhook" { json!(n) } else { Value::Null };
        let value = json!({"channel": channel, "delivery": delivery, "transition": transition,
            "status": at.0, "severity": at.1});
        self.recorder.observe("sink", Note::new(NAME, "told").key(HIGH).value(value));
        self
    }

    /// A transition that everybody is told of as it should be.
    fn goes(&mut self, at: (&str, &str)) -> &mut Self {
        self.event(at);
        let (n, delivery) = (self.index, self.deliveries + 1);
        self.deliveries += 2;
        self.post("webhook", delivery, n, at).post("slack", delivery + 1, n, at)
    }

    fn call(&mut self, f: &str, kind: Kind, value: Value, log: Option<u64>) -> &mut Self {
        let process = self.recorder.process();
        let note = Note::new(NAME, f).key(HIGH);
        self.recorder.invoke(process, note.clone());
        self.recorder.end(process, kind, Note { log, ..note.value(value) });
        self
    }

    fn read(&mut self, n: u64, at: (&str, &str)) -> &mut Self {
        self.call("read", Kind::Ok, shown(n, at), None)
    }

    fn last(&mut self, n: u64, at: (&str, &str)) -> &mut Self {
        let all: Vec<Value> =
            (1..=self.deliveries).map(|id| json!([id, "alert", "delivered"])).collect();
        self.recorder.observe("r", Note::new(NAME, "deliveries").value(all));
        self.recorder.observe("r", Note::new(NAME, "final").value(shown(n, at)));
        // What follows in the log, so that readers were told everything before.
        let told = json!([[format!("{}-0", self.index + 1), "config_changed", {"revision": 1}]]);
        self.recorder.observe("events-m1", Note::new("events", "events").value(told));
        self
    }

    /// Deliveries, transitions, acknowledgements.
    fn told(&self) -> [Validity; 3] {
        let told: Vec<Verdict> = check(&self.recorder.finish().unwrap());
        let told: Vec<Validity> = told.iter().map(|verdict| verdict.validity).collect();
        told.try_into().unwrap()
    }

    /// Raised, acknowledged, over; read, and with one post that was repeated.
    fn well() -> Self {
        let mut story = Self::new();
        story.goes(ACTIVE).read(1, ACTIVE).post("webhook", 1, 1, ACTIVE);
        story.goes(KNOWN).call("acknowledge", Kind::Ok, Value::Null, Some(2));
        story.goes(OVER);
        story
    }
}

fn shown(n: u64, (status, severity): (&str, &str)) -> Value {
    json!([{"id": HIGH, "status": status, "severity": severity, "transitions": n}])
}

use Validity::{Invalid, Unknown, Valid};

#[test]
fn a_story_that_is_told_as_it_was_is_good() {
    assert_eq!(Story::well().last(3, OVER).told(), [Valid; 3]);
    assert_eq!(Story::new().told(), [Unknown; 3]);
}

#[test]
fn a_transition_that_nobody_was_told_of_is_found() {
    let mut story = Story::well();
    story.event(ACTIVE).last(4, ACTIVE);
    assert_eq!(story.told()[0], Invalid);
    let mut story = Story::well();
    story.event(ACTIVE).post("webhook", 7, 4, ACTIVE).last(4, ACTIVE);
    assert_eq!(story.told()[0], Invalid, "Slack was not told");
}

#[test]
fn two_numbers_for_one_transition_are_found() {
    let mut story = Story::well();
    story.post("webhook", 7, 3, OVER).last(3, OVER);
    assert_eq!(story.told()[0], Invalid);
    let mut story = Story::well();
    story.post("slack", 7, 3, OVER).last(3, OVER);
    assert_eq!(story.told()[0], Invalid);
}

#[test]
fn a_number_that_is_used_for_two_things_is_found() {
    let mut story = Story::well();
    story.post("webhook", 5, 3, ACTIVE).last(3, OVER);
    assert_eq!(story.told()[0], Invalid, "another status");
    let mut story = Story::well();
    story.post("slack", 5, 3, OVER).last(3, OVER);
    assert_eq!(story.told()[0], Invalid, "another channel");
}

#[test]
fn a_gap_in_the_numbers_of_transitions_is_found() {
    let mut story = Story::well();
    story.event(ACTIVE).post("webhook", 7, 5, ACTIVE).post("slack", 8, 5, ACTIVE);
    story.last(4, ACTIVE);
    assert_eq!(story.told()[0], Invalid);
}

#[test]
fn what_was_given_up_or_never_arrived_is_found() {
    for (delivery, status) in [(6, "given_up"), (6, "due"), (9, "delivered")] {
        let mut story = Story::well();
        story.last(3, OVER);
        let list = json!([[delivery, "slack", status]]);
        story.recorder.observe("r", Note::new(NAME, "deliveries").value(list));
        assert_eq!(story.told()[0], Invalid, "{delivery} {status}");
    }
}

#[test]
fn transitions_that_cannot_be_are_found() {
    let critical = ("active", "critical");
    for (goes, expected) in [
        (&[ACTIVE, critical, ACTIVE, OVER, ACTIVE] as &[_], Valid),
        (&[ACTIVE, KNOWN, critical, ("acknowledged", "critical")], Valid),
        (&[ACTIVE, ACTIVE], Invalid),
        (&[ACTIVE, KNOWN, ACTIVE], Invalid),
        (&[ACTIVE, KNOWN, KNOWN], Invalid),
        (&[ACTIVE, ("acknowledged", "critical")], Invalid),
        (&[ACTIVE, OVER, OVER], Invalid),
        (&[ACTIVE, OVER, KNOWN], Invalid),
        (&[OVER], Invalid),
    ] {
        let mut story = Story::new();
        for at in goes {
            story.goes(*at);
        }
        let last = *goes.last().unwrap();
        story.read(goes.len() as u64, last).last(goes.len() as u64, last);
        assert_eq!(story.told()[1], expected, "{goes:?}");
    }
}

#[test]
fn events_that_tell_another_story_are_found() {
    let mut story = Story::well();
    story.post("webhook", 7, 4, ACTIVE).post("slack", 8, 4, ACTIVE).last(4, ACTIVE);
    assert_eq!(story.told()[..2], [Valid, Invalid]);
}

#[test]
fn a_read_that_goes_back_or_shows_what_was_not_is_found() {
    let mut story = Story::well();
    story.read(3, OVER).read(2, KNOWN).last(3, OVER);
    assert_eq!(story.told()[1], Invalid, "back");
    let mut story = Story::well();
    story.read(2, ACTIVE).last(3, OVER);
    assert_eq!(story.told()[1], Invalid, "what was not");
    let mut story = Story::well();
    story.last(3, OVER);
    story.recorder.observe("r", Note::new(NAME, "final").value(shown(2, KNOWN)));
    assert_eq!(story.told()[1], Invalid, "members differ");
}

#[test]
fn an_acknowledgement_that_does_not_hold_is_found() {
    let mut story = Story::well();
    story.goes(ACTIVE).call("acknowledge", Kind::Ok, Value::Null, Some(4)).last(4, ACTIVE);
    assert_eq!(story.told()[2], Invalid, "it was raised again at 4");
    // Of an unknown outcome it may have happened, of a failed one not.
    for (kind, expected) in [(Kind::Info, Valid), (Kind::Fail, Invalid)] {
        let mut story = Story::well();
        story.goes(ACTIVE).goes(KNOWN);
        story.call("acknowledge", kind, Value::Null, None).last(5, KNOWN);
        assert_eq!(story.told()[2], expected, "{kind:?}");
    }
}
