//! The slot ledger as properties: however time passes, runs end and people switch things off, each slot
//! is decided once, in order, and by the policies that hold (issue 5; contract 3.4 "Modes").

use proptest::prelude::*;

use super::stepping::{led, schedule};
use crate::leader::slot_plan::{self, GRACE_MS};
use crate::model::{CatchUp, Mode, Orchestrator, Overlap, Schedule};
use crate::state::SlotChoice;

const WINDOW_MS: u64 = 15_000;

/// What happens before one look at the ledger.
#[derive(Debug, Clone, Copy)]
struct Turn {
    passes_ms: u64,
    run_ends: bool,
    active: bool,
    paused: bool,
}

fn turn() -> impl Strategy<Value = Turn> {
    let passes = prop_oneof![4 => 0u64..3000, 2 => 3000u64..12_000, 1 => 12_000u64..60_000];
    let mostly = || prop::bool::weighted(0.85);
    (passes, any::<bool>(), mostly(), mostly()).prop_map(
        |(passes_ms, run_ends, active, goes_on)| Turn {
            passes_ms,
            run_ends,
            active,
            paused: !goes_on,
        },
    )
}

fn orchestrator() -> Orchestrator {
    let solo = led();
    let mut row = solo.state.read().orchestrator("default").unwrap().clone();
    (row.mode, row.last_run_at_ms, row.last_run_ended_ms) = (Mode::Scheduled, 0, 0);
    row
}

/// One look: plans, takes what is planned, and checks it.
fn look(
    schedule: &mut Schedule,
    row: &mut Orchestrator,
    (now, interval_ms): (u64, u64),
) -> Result<(), TestCaseError> {
    let timetable = schedule.timetable.clone();
    let next = |after: u64| Some(after / interval_ms * interval_ms + interval_ms);
    let (slots, due) = slot_plan::plan(schedule, row, now, next);
    let inactive = !row.is_active || row.mode == Mode::Paused;
    for slot in &slots {
        let (nominal_ms, late_ms) = (slot.nominal_ms, now - slot.nominal_ms);
        prop_assert_eq!(
            nominal_ms,
            schedule.decided_ms + interval_ms,
            "in order, and none left out"
        );
        prop_assert!(nominal_ms <= now, "none before its time");
        prop_assert_eq!(inactive, slot.choice == SlotChoice::SkipInactive);
        match slot.choice {
            SlotChoice::Run | SlotChoice::CatchUp => {
                prop_assert!(row.open_run.is_none(), "one run at a time");
                (row.open_run, row.last_run_at_ms) = (Some(1), now);
            }
            SlotChoice::SkipOverlap => {
                prop_assert!(row.open_run.is_some() && timetable.overlap == Overlap::Forbid);
            }
            SlotChoice::Miss => prop_assert!(late_ms > GRACE_MS, "late by {} ms only", late_ms),
            SlotChoice::SkipInactive => {}
        }
        if slot.choice == SlotChoice::CatchUp {
            prop_assert!(timetable.catch_up != CatchUp::Skip);
            prop_assert!(late_ms > GRACE_MS && late_ms <= WINDOW_MS);
            let newest = nominal_ms + interval_ms > now;
            prop_assert!(timetable.catch_up == CatchUp::All || newest, "only the latest one");
        }
        schedule.decided_ms = nominal_ms;
    }
    let first_open = schedule.decided_ms + interval_ms;
    // What is due and open waits for a run; anything else is decided in one look.
    prop_assert!(first_open > now || row.open_run.is_some(), "{} is open at {}", first_open, now);
    if row.open_run.is_none() {
        prop_assert_eq!(due, Some(first_open), "and it is known when to look again");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_slot_is_decided_once_and_in_order(
        turns in prop::collection::vec(turn(), 1..40),
        catch_up in prop::sample::select(&[CatchUp::Skip, CatchUp::Latest, CatchUp::All][..]),
        overlap in prop::sample::select(&[Overlap::Forbid, Overlap::Queue][..]),
        interval_ms in prop::sample::select(&[1000u64, 7000, 20_000][..]),
    ) {
        let mut schedule = schedule(catch_up, overlap);
        schedule.timetable.catch_up_window_ms = WINDOW_MS;
        let mut row = orchestrator();
        let mut now = 0;
        for turn in turns {
            now += turn.passes_ms;
            if turn.run_ends && row.open_run.take().is_some() {
                row.last_run_ended_ms = now;
            }
            row.is_active = turn.active;
            row.mode = if turn.paused { Mode::Paused } else { Mode::Scheduled };
            look(&mut schedule, &mut row, (now, interval_ms))?;
        }
    }
}

#[test]
fn the_latest_slot_that_was_missed_is_caught_up() {
    let mut row = orchestrator();
    let plan = |row: &Orchestrator, catch_up, now| {
        let schedule = schedule(catch_up, Overlap::Forbid);
        let next = |after: u64| Some(after / 20_000 * 20_000 + 20_000);
        let (slots, _) = slot_plan::plan(&schedule, row, now, next);
        slots.into_iter().map(|slot| slot.choice).collect::<Vec<_>>()
    };
    use SlotChoice::{CatchUp as Caught, Miss};
    assert_eq!(plan(&row, CatchUp::Latest, 54_000), [Miss, Caught], "14 s late, and none is newer");
    assert_eq!(plan(&row, CatchUp::Latest, 56_000), [Miss, Miss], "16 s late is beyond the window");
    assert_eq!(plan(&row, CatchUp::Skip, 54_000), [Miss, Miss]);
    row.open_run = Some(1);
    assert_eq!(plan(&row, CatchUp::Latest, 54_000), [Miss], "it waits for the run before it");
}
