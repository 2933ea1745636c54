//! The harness's own linearizability checker: the search of Wing and Gong with the memory of Lowe.
//!
//! It tries, again and again, an operation that may come next (one that was called before any
//! other pending one returned), and remembers which sets of operations led to which value, so that
//! no set is tried twice. It shares no code with porcupine and treats unknown outcomes the other
//! way round: they may simply never be taken.

use std::collections::HashSet;

use super::register::RegisterOp;

/// What a checker found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// There is an order that explains everything.
    Linearizable,
    /// There is none.
    Illegal,
    /// It gave up.
    GaveUp,
}

/// Steps after which the search gives up.
const STEPS_MAX: usize = 5_000_000;

/// Operations taken so far, one bit each.
type Taken = Vec<u64>;

/// A place in the search: what was taken, what the register holds, and the next candidate.
struct Frame {
    op: usize,
    before: Option<i64>,
}

/// Whether `ops` on one register, empty at first, are linearizable. The longest explained part is
/// given beside: how many sure operations it holds.
#[must_use]
pub fn check(ops: &[RegisterOp]) -> (Answer, usize) {
    let mut ops: Vec<RegisterOp> = ops.to_vec();
    ops.sort_by_key(|op| (op.call, op.end));
    let sure = ops.iter().filter(|op| op.is_sure()).count();
    let mut taken: Taken = vec![0; ops.len().div_ceil(64)];
    let mut seen: HashSet<(Taken, Option<i64>)> = HashSet::new();
    let mut stack: Vec<Frame> = Vec::new();
    let (mut state, mut from, mut done, mut best) = (None, 0, 0, 0);
    for _ in 0..STEPS_MAX {
        best = best.max(done);
        if done == sure {
            return (Answer::Linearizable, best);
        }
        let next = candidate(&ops, &taken, from, state);
        if let Some((op, after)) = next {
            taken[op / 64] |= 1 << (op % 64);
            if seen.insert((taken.clone(), after)) {
                stack.push(Frame { op, before: state });
                done += usize::from(ops[op].is_sure());
                (state, from) = (after, 0);
            } else {
                taken[op / 64] &= !(1 << (op % 64));
                from = op + 1;
            }
            continue;
        }
        let Some(Frame { op, before }) = stack.pop() else { return (Answer::Illegal, best) };
        taken[op / 64] &= !(1 << (op % 64));
        done -= usize::from(ops[op].is_sure());
        (state, from) = (before, op + 1);
    }
    (Answer::GaveUp, best)
}

/// The first operation from place `from` on that may come next and fits `state`.
fn candidate(
    ops: &[RegisterOp],
    taken: &Taken,
    from: usize,
    state: Option<i64>,
) -> Option<(usize, Option<i64>)> {
    let is_taken = |place: usize| taken[place / 64] & (1 << (place % 64)) != 0;
    // What was called after some pending operation returned has to wait for that one.
    let mut horizon = i64::MAX;
    let mut first = None;
    for (place, op) in ops.iter().enumerate() {
        if op.call > horizon {
            break;
        }
        if is_taken(place) {
            continue;
        }
        horizon = horizon.min(op.end);
        // Later operations are called later, so whatever is within the horizon now stays so only
        // if nothing pending that was called in between returns earlier: checked by the loop.
        if place >= from && first.is_none() {
            first = op.step(state).map(|after| (place, after));
        }
    }
    first.filter(|(place, _)| ops[*place].call <= horizon)
}
