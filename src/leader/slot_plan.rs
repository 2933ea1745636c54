//! Which slots of a schedule are to be decided now, and how (contract 3.4 "Modes"). Pure.
//!
//! A slot that is decided within [`GRACE_MS`] is in time: the loss of a leader takes less. What is
//! older was missed, unless it fell due during a run: then the overlap policy says what becomes of it,
//! whenever that is decided.

use crate::model::{CatchUp, Mode, Orchestrator, Overlap, Schedule, TimeMs};
use crate::state::{SlotChoice, SlotPlan};

/// How late a slot may be decided and still be in time.
pub const GRACE_MS: u64 = Schedule::GRACE_MS;
/// Slots decided in one command.
pub const SLOTS_PER_ROUND: usize = 500;

/// Slots that can be decided at `now`, in order, and when the next one is due.
///
/// `next` gives the first nominal time after another.
#[must_use]
pub fn plan(
    schedule: &Schedule,
    orchestrator: &Orchestrator,
    now: TimeMs,
    next: impl Fn(TimeMs) -> Option<TimeMs>,
) -> (Vec<SlotPlan>, Option<TimeMs>) {
    match orchestrator.mode {
        Mode::Manual => (Vec::new(), None),
        Mode::Continuous => continuous(schedule, orchestrator, now),
        Mode::Scheduled | Mode::Paused => scheduled(schedule, orchestrator, now, next),
    }
}

/// Steps follow one another: a slot is due when the pause behind the last one is over.
fn continuous(
    schedule: &Schedule,
    orchestrator: &Orchestrator,
    now: TimeMs,
) -> (Vec<SlotPlan>, Option<TimeMs>) {
    if !orchestrator.is_active || orchestrator.open_run.is_some() {
        return (Vec::new(), None);
    }
    let last = orchestrator.last_run_ended_ms.max(schedule.since_ms).max(schedule.decided_ms);
    let nominal_ms = last.saturating_add(orchestrator.pause_ms);
    if nominal_ms > now {
        return (Vec::new(), Some(nominal_ms));
    }
    (vec![SlotPlan { nominal_ms, choice: SlotChoice::Run }], None)
}

fn scheduled(
    schedule: &Schedule,
    orchestrator: &Orchestrator,
    now: TimeMs,
    next: impl Fn(TimeMs) -> Option<TimeMs>,
) -> (Vec<SlotPlan>, Option<TimeMs>) {
    let mut slots = Vec::new();
    let mut busy = orchestrator.open_run.is_some();
    let mut due = next(schedule.decided_ms);
    while let Some(nominal_ms) = due.filter(|nominal_ms| *nominal_ms <= now) {
        if slots.len() >= SLOTS_PER_ROUND {
            return (slots, Some(now));
        }
        let following = next(nominal_ms);
        let superseded = following.is_some_and(|following| following <= now);
        match choose(schedule, orchestrator, (nominal_ms, now), superseded, busy) {
            // It waits for the end of the run, which wakes whoever plans.
            None => return (slots, None),
            Some(choice) => {
                busy |= matches!(choice, SlotChoice::Run | SlotChoice::CatchUp);
                slots.push(SlotPlan { nominal_ms, choice });
            }
        }
        due = following;
    }
    (slots, due)
}

/// What becomes of one slot that is due; `None` while it has to wait.
fn choose(
    schedule: &Schedule,
    orchestrator: &Orchestrator,
    (nominal_ms, now): (TimeMs, TimeMs),
    superseded: bool,
    busy: bool,
) -> Option<SlotChoice> {
    if !orchestrator.is_active || orchestrator.mode == Mode::Paused {
        return Some(SlotChoice::SkipInactive);
    }
    let timetable = &schedule.timetable;
    let late_ms = now - nominal_ms;
    let in_window = late_ms <= timetable.catch_up_window_ms;
    if schedule.fell_due_during_a_run(nominal_ms, orchestrator) {
        return match timetable.overlap {
            Overlap::Forbid => Some(SlotChoice::SkipOverlap),
            // No slot waits for ever, whatever it waited for.
            Overlap::Queue if !in_window && late_ms > GRACE_MS => Some(SlotChoice::SkipOverlap),
            Overlap::Queue => (!busy).then_some(SlotChoice::Run),
        };
    }
    if late_ms <= GRACE_MS {
        return match (busy, timetable.overlap) {
            (false, _) => Some(SlotChoice::Run),
            (true, Overlap::Forbid) => Some(SlotChoice::SkipOverlap),
            (true, Overlap::Queue) => None,
        };
    }
    let makes_up = match timetable.catch_up {
        CatchUp::Skip => false,
        CatchUp::Latest => in_window && !superseded,
        CatchUp::All => in_window,
    };
    match (makes_up, busy) {
        (false, _) => Some(SlotChoice::Miss),
        (true, false) => Some(SlotChoice::CatchUp),
        (true, true) => None,
    }
}
