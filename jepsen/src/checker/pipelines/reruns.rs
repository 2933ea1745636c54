//! A step that has ended is never run again.
//!
//! Known to have ended is what somebody was told of: by an event of its end, by a read that shows its
//! result, or by a run of a later step that works on it. Handing over is at least once under one
//! attempt, so some calls may come to an agent later than that; they are counted. All are for the
//! attempt that ended or an older one, never for a new one, and agents can tell by its name.
//!
//! * A leader that was deposed and does not know it yet (paused, cut off) makes the call that its
//!   successor has made long since. So it comes from a member that had led before the end was
//!   recorded, and neither led then nor since.
//! * A call was on its way, in the sending machine's buffers, while the way to the agent was cut. That
//!   its caller has given it up since comes behind it, maybe after the work is done. So the way was cut
//!   before anybody knew of the end, and a moment ago.
//! * A step that is cancelled, because its task ended without it, may have been handed over in that very
//!   moment.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{NAME, step_of, texts};
use crate::checker::streams::{EventId, first_told};
use crate::checker::{Findings, Verdict};
use crate::history::{FaultSpan, History, Kind};

/// How the tasks are called.
const PREFIX: &str = "pipe-";

/// Who began to lead, and when somebody was told.
struct Reign {
    at: EventId,
    told: u64,
    /// The member's seat in the harness.
    seat: u64,
}

/// The end of a step.
struct End {
    at: EventId,
    told: u64,
    attempt: u64,
    /// It had not finished: its task ended without it.
    cancelled: bool,
}

/// What the event stream tells.
struct Stream {
    reigns: Vec<Reign>,
    ends: BTreeMap<String, End>,
}

/// The seats of members: one that came back on a new disk has another number than its seat.
fn seats(history: &History) -> BTreeMap<u64, u64> {
    let looks = history.observed("observe", "cluster");
    looks.filter_map(|op| Some((op.value["id"].as_u64()?, op.node?))).collect()
}

fn stream(history: &History, findings: &mut Findings) -> Stream {
    let seats = seats(history);
    let mut stream = Stream { reigns: Vec::new(), ends: BTreeMap::new() };
    for (at, (told, data)) in first_told(history) {
        let task = data["task_id"].as_str().unwrap_or_default();
        let is_ours = task.starts_with(PREFIX) && task.contains('#');
        match data["type"].as_str().unwrap_or_default() {
            "epoch_opened" => {
                let leader = data["leader"].as_u64().unwrap_or(0);
                let seat = seats.get(&leader).copied().unwrap_or(leader);
                stream.reigns.push(Reign { at, told, seat });
            }
            "task_assigned" | "task_started" | "task_retried" | "task_queued" | "task_ended"
                if is_ours && stream.ends.contains_key(task) =>
            {
                let what = &data["type"];
                findings.add(format!("{task} at {}-{}: {what} after its end", at.0, at.1), &[]);
            }
            "task_ended" if is_ours => {
                let attempt = data["attempt"].as_u64().unwrap_or(0);
                let cancelled = data["status"] == "cancelled";
                stream.ends.insert(task.to_owned(), End { at, told, attempt, cancelled });
            }
            _ => {}
        }
    }
    stream
}

/// The attempt with which each step ended, by the events.
pub(super) fn attempts_that_counted(history: &History) -> BTreeMap<String, u64> {
    let ends = stream(history, &mut Findings::default()).ends;
    ends.into_iter().map(|(step, end)| (step, end.attempt)).collect()
}

/// Whether `seat` may not have known at `time` that the step had ended.
fn was_deposed(reigns: &[Reign], seat: u64, end: &End, time: u64) -> bool {
    let before = || reigns.iter().filter(|reign| reign.at < end.at);
    let led_then = before().next_back().is_some_and(|reign| reign.seat == seat);
    let led_since =
        reigns.iter().any(|reign| reign.at > end.at && reign.seat == seat && reign.told <= time);
    before().any(|reign| reign.seat == seat) && !led_then && !led_since
}

/// How long after a cut what was sent during it may still arrive: TCP waits longer with each try.
const ARRIVES_WITHIN_NS: u64 = 5_000_000_000;

/// How long after a cancel a call that was made before it may arrive.
const CANCELLED_WITHIN_NS: u64 = 1_000_000_000;

/// Whether a call that comes from `seat` at `time` may have been sent before the end was known, while
/// its way was cut, or in the moment of a cancel.
fn was_on_its_way(cuts: &[FaultSpan], seat: u64, end: &End, time: u64) -> bool {
    if end.cancelled && time.saturating_sub(end.told) <= CANCELLED_WITHIN_NS {
        return true;
    }
    cuts.iter().any(|cut| {
        let until = cut.healed_ns.unwrap_or(u64::MAX).saturating_add(ARRIVES_WITHIN_NS);
        cut.members.contains(&seat) && cut.begin_ns <= end.told && time <= until
    })
}

/// Takes the earliest time at which these steps were known to have ended.
fn learn<'a>(known: &mut BTreeMap<&'a str, u64>, tokens: &'a Value, time: u64) {
    for (step, _) in texts(tokens).filter_map(step_of) {
        let at = known.entry(step).or_insert(time);
        *at = time.min(*at);
    }
}

/// See the module's description.
pub(super) fn check(history: &History) -> Verdict {
    let mut findings = Findings::default();
    let Stream { reigns, ends } = stream(history, &mut findings);
    let mut cuts = history.faults();
    cuts.retain(|fault| fault.name == "worker-cut");
    // When somebody first knew, by step.
    let mut known: BTreeMap<&str, u64> =
        ends.iter().map(|(step, end)| (step.as_str(), end.told)).collect();
    let mut calls: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut begun, mut by_deposed, mut on_their_way) = (0, 0, 0);
    for op in history.of(NAME) {
        if op.f == "read" && op.kind == Kind::Ok {
            learn(&mut known, &op.value["tokens"], op.time);
        }
        let key = op.key.as_deref().unwrap_or_default();
        let (Some((step, attempt)), "begin") = (step_of(key), op.f.as_str()) else { continue };
        begun += 1;
        *calls.entry(key).or_default() += 1;
        if known.get(step).is_some_and(|at| *at < op.time) {
            let seat = op.value["from"].as_u64();
            let end = ends.get(step).filter(|end| attempt <= end.attempt);
            // Where members have no addresses of their own, who calls cannot be told.
            let deposed = |end| seat.is_none_or(|seat| was_deposed(&reigns, seat, end, op.time));
            if end.is_some_and(deposed) {
                by_deposed += 1;
            } else if end
                .zip(seat)
                .is_some_and(|(end, seat)| was_on_its_way(&cuts, seat, end, op.time))
            {
                on_their_way += 1;
            } else {
                let text = format!("{key} was begun for member {seat:?} after {step} had ended");
                findings.add(text, &[op.index]);
            }
        }
        learn(&mut known, &op.value["inputs"], op.time);
    }
    let again = calls.values().filter(|calls| **calls > 1).count();
    let looked_at = format!(
        "{} steps ended; {begun} runs, {again} attempts handed over again; late were {by_deposed} \
         calls of deposed leaders and {on_their_way} that had been on their way",
        ends.len()
    );
    Verdict::of(NAME, "a step that has ended is not run again", looked_at, findings)
        .unless_too_little(begun > 0 && !ends.is_empty(), "no step ended")
        .figures(json!({"ended": ends.len(), "runs": begun, "handed_over_again": again,
            "late_by_deposed": by_deposed, "late_on_their_way": on_their_way}))
}
