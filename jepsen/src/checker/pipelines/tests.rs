use super::*;
use crate::checker::Validity;
use crate::history::{Note, Recorder};

/// What happens to `pipe-1`, a graph of two steps, the second of which works on the first.
struct Story(Recorder, u64);

impl Story {
    fn new() -> Self {
        let recorder = Recorder::in_memory();
        let plan = json!({"mode": "graph", "waits": [[], [0]], "fates": ["goes", "goes"]});
        let note = Note::new(NAME, "submit").key("pipe-1").value(plan);
        recorder.invoke(1, note.clone());
        recorder.end(1, Kind::Ok, note);
        recorder.observe("events-m1", Note::new("events", "open").value(json!({"after": "0"})));
        Self(recorder, 0)
    }

    fn event(&mut self, mut data: Value) -> &mut Self {
        self.1 += 1;
        data["at"] = json!(self.1);
        let told = json!([[format!("{}-0", self.1), data["type"], data]]);
        self.0.observe("events-m1", Note::new("events", "events").value(told));
        self
    }

    fn leads(&mut self, member: u64) -> &mut Self {
        self.event(json!({"type": "epoch_opened", "term": member, "leader": member}))
    }

    fn ended(&mut self, step: u64, attempt: u64) -> &mut Self {
        let task = format!("pipe-1#{step}");
        self.event(json!({"type": "task_ended", "task_id": task, "attempt": attempt}))
    }

    fn begin(&mut self, key: &str, from: u64, inputs: &[&str]) -> &mut Self {
        let value = json!({"agent": "a", "call": 1, "from": from, "inputs": inputs});
        self.0.observe("a", Note::new(NAME, "begin").key(key).value(value));
        self
    }

    fn end(&mut self, key: &str, token: &str) -> &mut Self {
        self.0.observe("a", Note::new(NAME, "end").key(key).value(json!({ "token": token })));
        self
    }

    fn last(&mut self, status: &str, tokens: &[&str]) -> &mut Self {
        self.0.observe("r", Note::new(NAME, "left").value(json!([])));
        let tasks = json!({"pipe-1": {"status": status, "tokens": tokens}});
        self.0.observe("r", Note::new(NAME, "final").value(tasks));
        self
    }

    /// Both steps, once each, under member 1.
    fn well() -> Self {
        let mut story = Self::new();
        story.leads(1);
        story.begin("pipe-1#0@1", 1, &["pipe-1"]).end("pipe-1#0@1", "pipe-1#0@1/a/1").ended(0, 1);
        story.begin("pipe-1#1@1", 1, &["pipe-1#0@1/a/1"]);
        story.end("pipe-1#1@1", "pipe-1#1@1/a/2").ended(1, 1);
        story
    }

    /// Reruns, order, results, ends.
    fn told(&self) -> [Verdict; 4] {
        check(&self.0.finish().unwrap()).try_into().unwrap()
    }

    #[track_caller]
    fn must_be(&self, expected: [Validity; 4]) {
        let told = self.told();
        let is: Vec<Validity> = told.iter().map(|verdict| verdict.validity).collect();
        assert_eq!(is, expected, "{told:#?}");
    }
}

const BOTH: [&str; 2] = ["pipe-1#0@1/a/1", "pipe-1#1@1/a/2"];
use Validity::{Invalid, Unknown, Valid};

#[test]
fn a_task_that_goes_well_is_good() {
    Story::well().last("completed", &BOTH).must_be([Valid; 4]);
    Story::new().must_be([Unknown; 4]);
}

#[test]
fn a_step_that_is_run_again_after_its_end_is_found() {
    // Under a new attempt, by whomever.
    let mut story = Story::well();
    story.leads(2).begin("pipe-1#0@2", 2, &["pipe-1"]).last("completed", &BOTH);
    story.must_be([Invalid, Valid, Valid, Valid]);
    // Under the same attempt, by the leader that had recorded the end.
    let mut story = Story::well();
    story.begin("pipe-1#0@1", 1, &["pipe-1"]).last("completed", &BOTH);
    story.must_be([Invalid, Valid, Valid, Valid]);
    // By one that has led since.
    let mut story = Story::well();
    story.leads(2).begin("pipe-1#0@1", 2, &["pipe-1"]).last("completed", &BOTH);
    story.must_be([Invalid, Valid, Valid, Valid]);
    // By one that never led.
    let mut story = Story::well();
    story.begin("pipe-1#0@1", 3, &["pipe-1"]).last("completed", &BOTH);
    story.must_be([Invalid, Valid, Valid, Valid]);
}

#[test]
fn a_deposed_leader_may_repeat_the_call_it_had_begun_to_make_and_no_newer_one() {
    let story = |key: &str| {
        let mut story = Story::new();
        story.leads(2).leads(1);
        story.begin("pipe-1#0@1", 1, &["pipe-1"]).end("pipe-1#0@1", BOTH[0]).ended(0, 1);
        story.begin(key, 2, &["pipe-1"]);
        story.0.finish().unwrap()
    };
    let told = reruns::check(&story("pipe-1#0@1"));
    assert_eq!((told.validity, &told.figures["late_by_deposed"]), (Valid, &json!(1)), "{told:?}");
    assert_eq!(reruns::check(&story("pipe-1#0@2")).validity, Invalid);
}

#[test]
fn a_call_that_was_on_its_way_while_it_was_cut_is_told_from_a_new_one() {
    // Which link was cut, whether before the end, and which attempt comes late.
    for (cut, before, attempt, expected) in [
        ("worker-cut", true, 1, Valid),
        ("worker-cut", true, 2, Invalid),
        ("worker-cut", false, 1, Invalid),
        ("isolate-leader", true, 1, Invalid),
    ] {
        let mut story = if before {
            let mut story = Story::new();
            story.0.fault(cut, &[1]).healed();
            story.leads(1).begin("pipe-1#0@1", 1, &["pipe-1"]).ended(0, 1);
            story
        } else {
            let story = Story::well();
            story.0.fault(cut, &[1]).healed();
            story
        };
        story.begin(&format!("pipe-1#0@{attempt}"), 1, &["pipe-1"]);
        let told = reruns::check(&story.0.finish().unwrap());
        assert_eq!(told.validity, expected, "{cut} {before} {attempt}: {told:?}");
    }
}

#[test]
fn a_call_may_cross_a_cancel_and_no_other_end() {
    for (status, attempt, expected) in
        [("cancelled", 1, Valid), ("cancelled", 2, Invalid), ("failed", 1, Invalid)]
    {
        let mut story = Story::new();
        let end = json!({"type": "task_ended", "task_id": "pipe-1#0", "attempt": 1,
            "status": status});
        story.leads(1).event(end).begin(&format!("pipe-1#0@{attempt}"), 1, &["pipe-1"]);
        let told = reruns::check(&story.0.finish().unwrap());
        assert_eq!(told.validity, expected, "{status} {attempt}: {told:?}");
    }
}

#[test]
fn a_call_that_is_made_twice_before_the_end_is_good() {
    let mut story = Story::new();
    story.leads(1).begin("pipe-1#0@1", 1, &["pipe-1"]);
    story.leads(2).begin("pipe-1#0@1", 2, &["pipe-1"]).end("pipe-1#0@1", BOTH[0]).ended(0, 1);
    let told = reruns::check(&story.0.finish().unwrap());
    assert_eq!((told.validity, &told.figures["handed_over_again"]), (Valid, &json!(1)));
}

#[test]
fn what_a_read_or_a_later_step_shows_has_ended() {
    for by_read in [true, false] {
        let mut story = Story::new();
        story.leads(1).begin("pipe-1#0@1", 1, &["pipe-1"]).end("pipe-1#0@1", BOTH[0]);
        if by_read {
            let note = Note::new(NAME, "read").key("pipe-1");
            story.0.invoke(7, note.clone());
            story.0.end(7, Kind::Ok, note.value(json!({"status": "running", "tokens": [BOTH[0]]})));
        } else {
            story.begin("pipe-1#1@1", 1, &[BOTH[0]]);
        }
        story.begin("pipe-1#0@1", 1, &["pipe-1"]).ended(0, 1);
        assert_eq!(reruns::check(&story.0.finish().unwrap()).validity, Invalid, "{by_read}");
    }
}

#[test]
fn what_the_log_tells_of_a_step_after_its_end_is_found() {
    for kind in ["task_assigned", "task_ended", "task_retried"] {
        let mut story = Story::well();
        story.event(json!({"type": kind, "task_id": "pipe-1#0", "attempt": 2}));
        assert_eq!(story.told()[0].validity, Invalid, "{kind}");
    }
}

#[test]
fn a_step_that_begins_too_early_or_on_something_else_is_found() {
    for inputs in [
        // Its own input, nothing, something that nobody gave, and twice the same.
        &["pipe-1"] as &[&str],
        &[],
        &["pipe-1#0@2/a/9"],
        &[BOTH[0], BOTH[0]],
    ] {
        let mut story = Story::new();
        story.leads(1).begin("pipe-1#0@1", 1, &["pipe-1"]).end("pipe-1#0@1", BOTH[0]);
        story.begin("pipe-1#1@1", 1, inputs);
        assert_eq!(story.told()[1].validity, Invalid, "{inputs:?}");
    }
    let mut story = Story::new();
    story.begin("pipe-1#1@1", 1, &[BOTH[0]]).end("pipe-1#0@1", BOTH[0]);
    assert_eq!(story.told()[1].validity, Invalid, "before the first one gave anything");
    let mut story = Story::new();
    story.begin("pipe-9#0@1", 1, &["pipe-9"]);
    assert_eq!(story.told()[1].validity, Invalid, "nobody asked for that task");
}

#[test]
fn two_results_of_one_step_are_found() {
    let mut story = Story::well();
    story.end("pipe-1#0@1", "pipe-1#0@1/b/1");
    story.last("completed", &["pipe-1#0@1/b/1", BOTH[1]]);
    story.must_be([Valid, Valid, Invalid, Valid]);
    let mut story = Story::well();
    story.last("completed", &[BOTH[0], "pipe-1#1@1/b/7"]);
    story.must_be([Valid, Valid, Invalid, Valid]);
}

#[test]
fn a_result_of_another_attempt_than_the_one_that_counted_is_found() {
    let mut story = Story::new();
    story.leads(1).begin("pipe-1#0@1", 1, &["pipe-1"]).end("pipe-1#0@1", BOTH[0]).ended(0, 2);
    story.last("running", &[BOTH[0]]);
    assert_eq!(story.told()[2].validity, Invalid);
}

#[test]
fn a_wrong_end_is_found() {
    for (status, tokens) in [("failed", &BOTH[..]), ("gone", &[]), ("completed", &BOTH[..1])] {
        let mut story = Story::well();
        story.last(status, tokens);
        assert_eq!(story.told()[3].validity, Invalid, "{status} {tokens:?}");
    }
    let mut story = Story::well();
    story.last("completed", &BOTH);
    story.0.observe("r", Note::new(NAME, "left").value(json!(["pipe-1"])));
    assert_eq!(story.told()[3].validity, Invalid);
}

#[test]
fn contract_4_5_how_a_task_must_end() {
    let plan = |mode: &str, fates: &[&str]| {
        let fates: Vec<String> = fates.iter().map(|fate| (*fate).to_owned()).collect();
        Plan { mode: mode.to_owned(), waits: vec![Vec::new(); fates.len()], fates }.expected()
    };
    let all = ["goes", "fails", "busy", "hangs"];
    let second = ["goes", "refuses", "goes", "goes"];
    assert_eq!(plan("sequential", &all), ("completed", vec![3]));
    assert_eq!(plan("graph", &all), ("completed", vec![0, 1, 2, 3]));
    assert_eq!(plan("sequential", &second).0, "failed");
    assert_eq!(plan("graph", &second).0, "failed");
    assert_eq!(plan("parallel", &second), ("completed", vec![0, 2, 3]));
    assert_eq!(plan("hybrid", &second), ("completed", vec![0, 2, 3]));
    assert_eq!(plan("hybrid", &["goes", "goes", "refuses", "goes"]).0, "failed");
    assert_eq!(plan("hybrid", &["refuses", "goes"]).0, "failed");
    assert_eq!(plan("parallel", &["refuses"]).0, "failed");
}
