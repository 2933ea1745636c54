//! Linearizability of registers, key by key: porcupine, checked by our own search and by zones.

use std::time::Duration;

use porcupine_rs::{CheckResult, Model, Operation, check_operations_timeout};
use serde_json::json;

use super::register::{RegisterOp, by_key, describe, ops_of};
use super::wgl::{self, Answer};
use super::{Findings, Validity, Verdict, zones};
use crate::history::Call;

/// Time for one key. Keys hold a few hundred operations of at most ten clients, which takes
/// milliseconds.
const TIME_PER_KEY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
struct Register;

impl Model for Register {
    type State = Option<i64>;
    type Op = RegisterOp;
    type Metadata = ();

    fn init() -> Self::State {
        None
    }

    fn step(state: &Self::State, op: &Self::Op) -> (bool, Self::State) {
        op.step(*state).map_or((false, *state), |after| (true, after))
    }
}

/// What porcupine says of one key. Its variant that also explains answers "illegal" when it merely
/// ran out of time (0.3.0), so this one, which does not, gives the verdict.
#[must_use]
pub fn porcupine(ops: &[RegisterOp]) -> Answer {
    let operation = |op: &RegisterOp| Operation::<Register> {
        client_id: None,
        call_time: op.call,
        return_time: op.end,
        op: *op,
        metadata: None,
    };
    let history: Vec<_> = ops.iter().map(operation).collect();
    match check_operations_timeout::<Register>(&history, TIME_PER_KEY) {
        CheckResult::Ok => Answer::Linearizable,
        CheckResult::Illegal => Answer::Illegal,
        CheckResult::Unknown => Answer::GaveUp,
    }
}

/// Checks every key of `calls`.
#[must_use]
pub fn check(workload: &str, calls: &[Call<'_>]) -> Vec<Verdict> {
    let mut findings = Findings::default();
    let (mut disagreements, mut gave_up) = (Findings::default(), 0_usize);
    let (mut operations, mut unknown) = (0, 0);
    let keys = by_key(calls);
    for (key, calls) in &keys {
        let ops = ops_of(calls.iter().copied());
        operations += ops.len();
        unknown += ops.iter().filter(|op| !op.is_sure()).count();
        let (first, (second, explained)) = (porcupine(&ops), wgl::check(&ops));
        let third = zones::check(&ops);
        let lines: Vec<u64> = ops.iter().map(|op| op.index).collect();
        if first == Answer::Illegal || second == Answer::Illegal {
            findings.add(illegal(key, &ops, explained), &lines);
        }
        if let Some((what, lines)) = &third {
            findings.add(format!("key {key}: {what}"), lines);
        }
        if let (Answer::Linearizable, Answer::Illegal) | (Answer::Illegal, Answer::Linearizable) =
            (first, second)
        {
            disagreements.add(format!("key {key}: {first:?} and {second:?}"), &lines);
        }
        let illegal = third.is_some() || first == Answer::Illegal || second == Answer::Illegal;
        let settled = first == Answer::Linearizable || second == Answer::Linearizable;
        gave_up += usize::from(!illegal && !settled);
    }
    let looked_at = format!("{} keys, {operations} operations, {unknown} unknown", keys.len());
    let agreed = format!("porcupine and our own search on {} keys", keys.len());
    let mut verdict = Verdict::of(workload, "linearizable", looked_at, findings)
        .unless_too_little(operations > 0, "no operation");
    if gave_up > 0 && verdict.validity == Validity::Valid {
        verdict.validity = Validity::Unknown;
        verdict.summary = format!("gave up on {gave_up} keys; {}", verdict.summary);
    }
    let figures = json!({"keys": keys.len(), "operations": operations, "unknown": unknown});
    vec![verdict.figures(figures), Verdict::of(workload, "checkers agree", agreed, disagreements)]
}

/// Where the explanation ends: the sure operation that the longest explained order leaves out
/// first is the one to look at.
fn illegal(key: &str, ops: &[RegisterOp], explained: usize) -> String {
    let mut sure: Vec<&RegisterOp> = ops.iter().filter(|op| op.is_sure()).collect();
    sure.sort_by_key(|op| op.end);
    let around = sure.iter().skip(explained.saturating_sub(1)).take(3).map(|op| describe(op));
    format!(
        "key {key}: no order explains more than {explained} of {} operations; near {}",
        sure.len(),
        around.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests;
