//! The promise of a rate limit, over random histories: counted from outside, by the attempts that
//! tasks say they had, and not by the record that apply keeps.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::scripts::{Script, node_spec, task_spec};
use super::{
    Assignment, Command, Envelope, LogEntry, Outcome, RATE_KEYS_MAX, State, TaskSpec, encode_entry,
};
use crate::model::{Epoch, NodeId, RateLimit, RequestId, TaskId, TimeMs};

/// Keys, and what each of them allows: never more than the first in any window of the second.
const LIMITS: [(&str, usize, u64); 3] = [("a", 1, 700), ("b", 2, 1000), ("c", 3, 250)];

fn line() -> impl Strategy<Value = String> {
    let task = || 0..12u8;
    let word = |words: &'static [&'static str]| proptest::sample::select(words);
    let limit = (0..LIMITS.len()).prop_map(|place| {
        let (key, max, per_ms) = LIMITS[place];
        format!("rate={key} starts={max} per={per_ms}")
    });
    let work = word(&["", "", "steps=x,y", "mode=parallel steps=x,y,z", "copies=2", "key=k"]);
    let id =
        (task(), word(&["", "", "#0", "#1", "#2"])).prop_map(|(n, step)| format!("t{n}{step}"));
    let holder = word(&["n0", "n1", "agent:0", "agent:1", "agent:2"]);
    prop_oneof![
        4 => (task(), limit, work).prop_map(|(n, limit, work)| format!("submit t{n} retries=3 {limit} {work}")),
        12 => (id.clone(), holder).prop_map(|(id, holder)| format!("assign 1.1 {id} {holder}")),
        4 => (id.clone(), word(&["done=1", "fail=network", "fail=retryable", "fail=permanent"]))
            .prop_map(|(id, end)| format!("report {id} {end}")),
        2 => (id.clone(), 1..4u8).prop_map(|(id, n)| format!("dispatch 1.1 {id} {n} refused after=0")),
        3 => id.prop_map(|id| format!("expire 1.1 {id} backoff")),
        1 => task().prop_map(|n| format!("replay t{n}")),
        1 => word(&["status n0 offline", "status n0 active"]).prop_map(str::to_owned),
        8 => (1..600u32).prop_map(|ms| format!("later {ms}")),
    ]
}

/// Tasks by id: the key of their rate, and how often they were started. One in steps is started when
/// its first step is placed.
type Started = BTreeMap<TaskId, (String, u32)>;

fn started(script: &Script) -> Started {
    let tasks = script.state.tasks_after(0);
    let of = tasks.filter_map(|task| {
        let key = task.rate.as_ref()?.key.clone();
        Some((task.task_id.clone(), (key, task.attempt)))
    });
    of.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn never_more_are_started_in_any_window_than_the_rate_allows(
        lines in proptest::collection::vec(line(), 1..150),
    ) {
        let mut script = Script::default();
        let (mut now, mut starts) = (1u64, BTreeMap::<String, Vec<u64>>::new());
        let say = |script: &mut Script, line: &str| script.run(line, &mut String::new());
        for line in ["at 1", "epoch 1.1", "register n0", "register n1", "register agent:0 agent=x", "register agent:1 agent=y", "register agent:2 agent=z"] {
            say(&mut script, line);
        }
        for line in &lines {
            if let Some(ms) = line.strip_prefix("later ") {
                now += ms.parse::<u64>().unwrap();
                say(&mut script, &format!("at {now}"));
                continue;
            }
            let before = started(&script);
            say(&mut script, line);
            for (task_id, (key, attempts)) in started(&script) {
                let had = before.get(&task_id).map_or(0, |(_, attempts)| *attempts);
                let begun = attempts.saturating_sub(had) as usize;
                starts.entry(key).or_default().extend(std::iter::repeat_n(now, begun));
            }
        }
        for (key, max, per_ms) in LIMITS {
            let starts = starts.get(key).map_or(&[][..], Vec::as_slice);
            for window in starts.windows(max + 1) {
                let (first, last) = (window[0], window[max]);
                prop_assert!(last - first >= per_ms, "{key}: {window:?} within {per_ms} ms");
            }
        }
    }
}

/// Applies one command at a time of its own; gives how many of its rows took effect.
fn apply(state: &mut State, index: u64, at_ms: TimeMs, command: Command) -> u32 {
    let request_id = RequestId(u128::from(index));
    let envelope = Envelope { request_id, principal: String::new(), command };
    let entry = encode_entry(&LogEntry { at_ms, envelopes: vec![envelope] });
    let replies = state.apply(index, &entry).unwrap().replies;
    state.check_rates().unwrap();
    match replies.into_iter().next().unwrap().unwrap() {
        Outcome::Judged { accepted, .. } => accepted,
        _done => 0,
    }
}

#[test]
fn a_key_beyond_the_bound_waits_until_another_is_over() {
    let mut state = State::default();
    let epoch = Epoch { term: 1, member: 1 };
    apply(&mut state, 1, 1, Command::OpenEpoch(epoch));
    let spec = node_spec("n0", 1_000_000, Vec::new());
    apply(&mut state, 2, 1, Command::RegisterNode(spec));
    let task_id = |n: usize| TaskId::trusted(&format!("t{n}"));
    let submit = |n: usize| TaskSpec {
        rate: Some(RateLimit { key: format!("k{n}"), max: 1, per_ms: 5000 }),
        ..task_spec(Some(task_id(n).as_str()))
    };
    apply(&mut state, 3, 1, Command::SubmitTasks((0..RATE_KEYS_MAX).map(submit).collect()));
    apply(&mut state, 4, 1, Command::SubmitTasks(vec![submit(RATE_KEYS_MAX)]));
    let assign = |state: &State, tasks: std::ops::RangeInclusive<usize>| {
        let assignments = tasks.map(|n| Assignment {
            task_id: task_id(n),
            seen_revision: state.task(&task_id(n)).unwrap().revision,
            node_id: NodeId::trusted("n0"),
        });
        Command::AssignTasks { epoch, assignments: assignments.collect() }
    };
    let (first, rest) = (assign(&state, 0..=0), assign(&state, 1..=RATE_KEYS_MAX - 1));
    assert_eq!(apply(&mut state, 5, 1, first), 1);
    assert_eq!(apply(&mut state, 6, 1001, rest), RATE_KEYS_MAX as u32 - 1);
    let last = assign(&state, RATE_KEYS_MAX..=RATE_KEYS_MAX);
    assert_eq!(apply(&mut state, 7, 5000, last.clone()), 0, "there is no room for its key");
    assert_eq!(apply(&mut state, 8, 5001, last), 1, "the first start has left its window");
    assert!(state.rate_log("k0").is_none() && state.rate_log("k1").is_some());
}
