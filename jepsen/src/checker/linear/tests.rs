use proptest::prelude::*;

use super::*;
use crate::checker::register::Action::{Cas, Read, Write};
use crate::checker::register::{Action, RegisterOp};

fn op(call: i64, end: i64, action: Action) -> RegisterOp {
    RegisterOp { call, end, action, index: call.unsigned_abs() }
}

fn unknown(call: i64, action: Action) -> RegisterOp {
    op(call, i64::MAX, action)
}

/// All three checkers on one history.
fn verdicts(ops: &[RegisterOp]) -> (Answer, Answer, bool) {
    (porcupine(ops), wgl::check(ops).0, zones::check(ops).is_none())
}

#[track_caller]
fn good(ops: &[RegisterOp]) {
    assert_eq!(verdicts(ops), (Answer::Linearizable, Answer::Linearizable, true), "{ops:?}");
}

#[track_caller]
fn bad(ops: &[RegisterOp]) {
    assert_eq!(verdicts(ops), (Answer::Illegal, Answer::Illegal, false), "{ops:?}");
}

#[test]
fn plain_histories_are_linearizable() {
    good(&[]);
    good(&[op(0, 1, Read(None)), op(2, 3, Write(1)), op(4, 5, Read(Some(1)))]);
    good(&[op(0, 9, Write(1)), op(1, 3, Read(None)), op(4, 5, Read(Some(1)))]);
    good(&[op(0, 1, Write(1)), op(2, 3, Cas(Some(1), 2)), op(4, 5, Read(Some(2)))]);
}

#[test]
fn a_stale_read_is_found() {
    bad(&[op(0, 1, Write(1)), op(2, 3, Write(2)), op(4, 5, Read(Some(1)))]);
    bad(&[op(0, 1, Write(1)), op(2, 3, Read(None))]);
}

#[test]
fn a_value_from_nowhere_and_a_lost_write_are_found() {
    bad(&[op(0, 1, Read(Some(7)))]);
    bad(&[op(0, 1, Read(Some(1))), op(2, 3, Write(1))]);
    let lost =
        [op(0, 1, Write(1)), op(2, 3, Write(2)), op(4, 5, Read(Some(2))), op(6, 7, Read(Some(1)))];
    bad(&lost);
}

#[test]
fn reads_that_go_back_during_a_write_are_found() {
    bad(&[op(0, 9, Write(1)), op(1, 2, Read(Some(1))), op(3, 4, Read(None))]);
}

#[test]
fn a_compare_and_set_on_what_was_gone_is_found_by_the_searches() {
    let ops = [op(0, 1, Write(1)), op(2, 3, Cas(Some(1), 2)), op(4, 5, Cas(Some(1), 3))];
    assert_eq!(porcupine(&ops), Answer::Illegal);
    assert_eq!(wgl::check(&ops).0, Answer::Illegal);
}

#[test]
fn unknown_outcomes_may_or_may_not_have_happened() {
    let before = [op(0, 1, Write(1)), unknown(2, Write(2))];
    good(&[&before[..], &[op(3, 4, Read(Some(1)))]].concat());
    good(&[&before[..], &[op(3, 4, Read(Some(2)))]].concat());
    // Late, but not more than once and never undone.
    good(&[&before[..], &[op(3, 4, Read(Some(1))), op(5, 6, Read(Some(2)))]].concat());
    bad(&[&before[..], &[op(3, 4, Read(Some(2))), op(5, 6, Read(Some(1)))]].concat());
    // An unknown compare-and-set that never fitted did nothing.
    good(&[op(0, 1, Write(1)), unknown(2, Cas(Some(5), 6)), op(3, 4, Read(Some(1)))]);
    good(&[op(0, 1, Write(1)), unknown(2, Cas(Some(1), 6)), op(3, 4, Read(Some(6)))]);
}

#[test]
fn the_verdict_names_the_key_and_its_lines() {
    use crate::history::{Kind, Note, Recorder};
    let recorder = Recorder::in_memory();
    let does = |key: &str, f: &str, argument: serde_json::Value, result: serde_json::Value| {
        let process = recorder.process();
        recorder.invoke(process, Note::new("register", f).key(key).value(argument));
        recorder.end(process, Kind::Ok, Note::new("register", f).key(key).value(result));
    };
    does("k0", "write", json!(1), json!(1));
    does("k1", "write", json!(2), json!(2));
    does("k0", "read", json!(null), json!(1));
    does("k1", "read", json!(null), json!(null));
    let history = recorder.finish().unwrap();
    let verdicts = check("register", &history.calls("register"));
    assert_eq!(verdicts[0].validity, Validity::Invalid);
    assert!(verdicts[0].findings.iter().all(|finding| finding.contains("k1")), "{verdicts:?}");
    assert!(verdicts[0].ops.contains(&2));
    assert_eq!(verdicts[1].validity, Validity::Valid, "the checkers agree");
    assert_eq!(check("register", &[])[0].validity, Validity::Unknown, "nothing was seen");
}

/// Whether some order of `ops` explains them, by trying all: the definition itself.
fn brute_force(ops: &[RegisterOp], taken: u32, state: Option<i64>) -> bool {
    let pending = |place: &usize| taken & (1 << place) == 0;
    let places: Vec<usize> = (0..ops.len()).filter(pending).collect();
    if places.iter().all(|place| !ops[*place].is_sure()) {
        return true;
    }
    let horizon = places.iter().map(|place| ops[*place].end).min().unwrap_or(i64::MAX);
    places.iter().any(|place| {
        ops[*place].call <= horizon
            && ops[*place]
                .step(state)
                .is_some_and(|after| brute_force(ops, taken | (1 << place), after))
    })
}

/// A history made by really doing operations at moments within their calls, then, sometimes, with
/// one answer changed.
fn histories() -> impl Strategy<Value = (Vec<RegisterOp>, bool)> {
    let one = (0..40_i64, 1..12_i64, 0..100_u8, 0..4_u8, any::<bool>());
    (prop::collection::vec(one, 1..9), any::<bool>(), 0..8_usize, -1..9_i64).prop_map(
        |(seeds, mutate, victim, wrong)| {
            let mut points: Vec<(i64, usize)> = Vec::new();
            for (place, (call, length, at, ..)) in seeds.iter().enumerate() {
                points.push((call * 100 + length * i64::from(*at), place));
            }
            points.sort_unstable();
            let (mut state, mut next) = (None, 0);
            let mut ops = Vec::new();
            for (_, place) in points {
                let (call, length, _, what, lost) = seeds[place];
                next += 1;
                let action = match what {
                    0 | 1 => Read(state),
                    2 => Write(next),
                    _ => Cas(state, next),
                };
                let is_read = matches!(action, Read(_));
                let (call, end) = (call * 100, (call + length) * 100);
                let end = if lost && !is_read && what == 2 { i64::MAX } else { end };
                ops.push(op(call, end, action));
                if !is_read {
                    state = Some(next);
                }
            }
            let victim = victim % ops.len();
            if mutate && let Read(seen) = ops[victim].action {
                let wrong = (wrong >= 0).then_some(wrong);
                ops[victim].action = Read(wrong);
                return (ops, wrong == seen);
            }
            (ops, true)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_checkers_agree_with_the_definition((ops, untouched) in histories()) {
        let truth = brute_force(&ops, 0, None);
        prop_assert!(truth || !untouched, "what really happened is linearizable: {ops:?}");
        let expected = if truth { Answer::Linearizable } else { Answer::Illegal };
        prop_assert_eq!(porcupine(&ops), expected, "porcupine on {:?}", ops);
        prop_assert_eq!(wgl::check(&ops).0, expected, "our own search on {:?}", ops);
        let zones = zones::check(&ops);
        prop_assert!(!truth || zones.is_none(), "zones cry wolf: {zones:?} on {ops:?}");
        let has_cas = ops.iter().any(|op| matches!(op.action, Cas(..)));
        prop_assert!(truth || has_cas || zones.is_some(), "zones miss {ops:?}");
    }
}
