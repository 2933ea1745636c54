//! The slot ledger as properties: however time passes, runs end and people switch things off, each slot
//! is decided once, in order, and by the policies that hold (issue 5; contract 3.4 "Modes").

use proptest::prelude::*;

use super::stepping::{led, schedule};
use crate::leader::Calendar;
use crate::leader::campaigns::{Calendars, plan};
use crate::leader::slot_plan::{self, GRACE_MS};
use crate::model::{
    Cadence, CatchUp, Epoch, Mode, Orchestrator, Overlap, RequestId, Schedule, TimeMs, Timetable,
};
use crate::state::{
    CampaignCommand, Command, Envelope, LogEntry, OrchestratorPatch, Rejection, Reply, SLOTS_MAX,
    SlotChoice, State, StepDuty, encode_entry,
};

const WINDOW_MS: u64 = 15_000;

/// What happens before one look at the ledger.
#[derive(Debug, Clone, Copy)]
struct Turn {
    passes_ms: u64,
    run_ends: bool,
    by_hand: bool,
    active: bool,
    paused: bool,
}

fn turn() -> impl Strategy<Value = Turn> {
    let passes = prop_oneof![4 => 0u64..3000, 2 => 3000u64..12_000, 1 => 12_000u64..60_000];
    let mostly = || prop::bool::weighted(0.85);
    let seldom = prop::bool::weighted(0.15);
    (passes, any::<bool>(), seldom, mostly(), mostly()).prop_map(
        |(passes_ms, run_ends, by_hand, active, goes_on)| Turn {
            passes_ms,
            run_ends,
            by_hand,
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

/// A run so far: for which slot (0 for none), when it began, and when it ended.
type Ran = (u64, u64, Option<u64>);
type Runs = Vec<Ran>;

/// Whether a run was under way at `nominal_ms`.
fn during(nominal_ms: u64) -> impl Fn(&Ran) -> bool {
    move |(_, began, ended)| *began <= nominal_ms && ended.is_none_or(|ended| nominal_ms < ended)
}

/// Whether a slot waited for a run that began soon behind it: by `forbid` for one of an older slot, by
/// `queue` for any.
fn held_up(nominal_ms: u64, overlap: Overlap) -> impl Fn(&Ran) -> bool {
    move |(slot, began, _)| {
        let older = *slot > 0 && *slot <= nominal_ms;
        let soon = nominal_ms < *began && *began - nominal_ms <= GRACE_MS;
        soon && (older || overlap == Overlap::Queue)
    }
}

fn begin(schedule: &mut Schedule, row: &mut Orchestrator, runs: &mut Runs, now: u64, slot: u64) {
    schedule.run_begins(now, slot, row.last_run_ended_ms);
    assert!(schedule.stretches.len() <= Schedule::STRETCHES_MAX);
    (row.open_run, row.last_run_at_ms) = (Some(1), now);
    runs.push((slot, now, None));
}

/// One look: plans, takes what is planned, and checks it.
fn look(
    schedule: &mut Schedule,
    row: &mut Orchestrator,
    runs: &mut Runs,
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
        let fell_due_during = runs.iter().any(during(nominal_ms));
        if fell_due_during && !inactive {
            let waits = timetable.overlap == Overlap::Queue && late_ms <= WINDOW_MS;
            let due = if waits { SlotChoice::Run } else { SlotChoice::SkipOverlap };
            prop_assert_eq!(slot.choice, due, "{} fell due during one of {:?}", nominal_ms, runs);
        }
        // And the other way round: nothing else is told of as overlapping, or runs late as if in time.
        let waited = fell_due_during || runs.iter().any(held_up(nominal_ms, timetable.overlap));
        let told = match slot.choice {
            SlotChoice::Run => late_ms > GRACE_MS,
            SlotChoice::SkipOverlap => late_ms > GRACE_MS || row.open_run.is_none(),
            SlotChoice::CatchUp | SlotChoice::Miss | SlotChoice::SkipInactive => false,
        };
        prop_assert!(waited || !told, "{:?} did not wait for one of {:?}", slot, runs);
        match slot.choice {
            SlotChoice::Run | SlotChoice::CatchUp => {
                prop_assert!(row.open_run.is_none(), "one run at a time");
                begin(schedule, row, runs, now, nominal_ms);
            }
            SlotChoice::SkipOverlap => {
                let waited = timetable.overlap == Overlap::Queue && late_ms > WINDOW_MS;
                prop_assert!(waited || timetable.overlap == Overlap::Forbid);
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
        let (mut row, mut runs) = (orchestrator(), Runs::new());
        let mut now = 0;
        for turn in turns {
            now += turn.passes_ms;
            if turn.run_ends && row.open_run.take().is_some() {
                row.last_run_ended_ms = now;
                runs.last_mut().unwrap().2 = Some(now);
            }
            row.is_active = turn.active;
            row.mode = if turn.paused { Mode::Paused } else { Mode::Scheduled };
            if turn.by_hand && row.open_run.is_none() && row.may_launch() {
                begin(&mut schedule, &mut row, &mut runs, now, 0);
            }
            look(&mut schedule, &mut row, &mut runs, (now, interval_ms))?;
        }
    }
}

/// Looks every second at slots of every 60 s while each run takes 90 s, but for an outage; gives what
/// became of each slot.
fn ledger_of_long_runs(
    (catch_up, overlap): (CatchUp, Overlap),
    outage: std::ops::Range<u64>,
    until_s: u64,
) -> Vec<SlotChoice> {
    let mut schedule = schedule(catch_up, overlap);
    schedule.timetable.catch_up_window_ms = 3_600_000;
    let (mut row, mut all) = (orchestrator(), Vec::new());
    let next = |after: u64| Some(after / 60_000 * 60_000 + 60_000);
    for now in (0..until_s).filter(|now| !outage.contains(now)).map(|now| now * 1000) {
        if row.open_run.is_some() && now >= row.last_run_at_ms + 90_000 {
            (row.open_run, row.last_run_ended_ms) = (None, now);
        }
        let (slots, _) = slot_plan::plan(&schedule, &row, now, next);
        for slot in slots {
            if matches!(slot.choice, SlotChoice::Run | SlotChoice::CatchUp) {
                schedule.run_begins(now, slot.nominal_ms, row.last_run_ended_ms);
                (row.open_run, row.last_run_at_ms) = (Some(1), now);
            }
            schedule.decided_ms = slot.nominal_ms;
            all.push(slot.choice);
        }
    }
    all
}

/// With `all` and `forbid`, slots that fell due while others were caught up queued behind them, and ran
/// later and later.
#[test]
fn what_falls_due_while_others_are_caught_up_is_skipped_and_the_ledger_is_in_time_again() {
    let policies = (CatchUp::All, Overlap::Forbid);
    let ledger = ledger_of_long_runs(policies, 130..430, 1500);
    use SlotChoice::{CatchUp as Caught, Run, SkipOverlap as Skip};
    // 60 runs until 150, which is seen at 430; 120 fell due meanwhile, 180 to 420 during the outage.
    assert_eq!(ledger[..2], [Run, Skip]);
    // The run of 60 is seen to end at 430 only, so all until then fell due during it.
    assert_eq!(ledger[2..7], [Skip; 5]);
    let in_turn = |rest: &[SlotChoice]| rest.chunks(2).all(|pair| pair[0] == Run);
    assert!(in_turn(&ledger[7..]), "{ledger:?}");
    // An outage without a run: what was missed is made up for, one after another, and nothing else.
    let ledger = ledger_of_long_runs(policies, 0..330, 1500);
    assert_eq!(ledger[..5], [Caught; 5], "60 to 300");
    let late = ledger.iter().filter(|choice| **choice == Caught).count();
    assert_eq!(late, 5, "{ledger:?}");
    // Five runs of 90 s, from 330 on: until 780.
    assert_eq!(ledger[5..12], [Skip; 7], "360 to 720");
    assert_eq!(ledger[12], Run, "780, as the last of them ends: {ledger:?}");
}

/// With `queue`, a slot counted as waiting only for the newest run, and was then missed without outage.
#[test]
fn what_waits_behind_more_than_one_run_is_not_missed() {
    let ledger = ledger_of_long_runs((CatchUp::Skip, Overlap::Queue), 0..0, 1500);
    assert!(ledger.len() > 15 && ledger.iter().all(|choice| *choice == SlotChoice::Run));
    // What waited for too long was not missed either: others ran.
    let ledger = ledger_of_long_runs((CatchUp::Skip, Overlap::Queue), 0..0, 40_000);
    let skipped = ledger.iter().filter(|choice| **choice == SlotChoice::SkipOverlap).count();
    let ran = ledger.iter().filter(|choice| **choice == SlotChoice::Run).count();
    assert!(skipped > 50 && skipped + ran == ledger.len(), "{ledger:?}");
}

/// A slot that had waited over an outage made all of the outage count as one run, and some 300 slots ran
/// back to back.
#[test]
fn what_falls_due_while_nobody_leads_is_missed_although_older_slots_wait() {
    let mut schedule = schedule(CatchUp::Skip, Overlap::Queue);
    schedule.timetable.catch_up_window_ms = 3_600_000;
    schedule.decided_ms = 100_000;
    let (mut row, mut runs, mut all) = (orchestrator(), Runs::new(), Vec::new());
    let next = |after: u64| Some(after / 1000 * 1000 + 1000);
    let mut look = |row: &mut Orchestrator, now: u64| {
        for slot in slot_plan::plan(&schedule, row, now, next).0 {
            if slot.choice == SlotChoice::Run {
                begin(&mut schedule, row, &mut runs, now, slot.nominal_ms);
            }
            schedule.decided_ms = slot.nominal_ms;
            all.push((slot.nominal_ms, slot.choice));
        }
    };
    let end = |row: &mut Orchestrator, now: u64| {
        if row.open_run.take().is_some() {
            row.last_run_ended_ms = now;
        }
    };
    look(&mut row, 101_000);
    end(&mut row, 103_500);
    // 102 and 103 s wait, and the leader dies: nobody leads for 300 s.
    for now in (403_500..=420_000).step_by(500) {
        look(&mut row, now);
        end(&mut row, now + 300);
    }
    let of = |choice| all.iter().filter(move |(_, is)| *is == choice);
    let ran: Vec<u64> = of(SlotChoice::Run).map(|(at, _)| at / 1000).collect();
    // Those of the last 10 s could have run in time, but for the two that waited.
    let wanted: Vec<u64> = [101, 102, 103].into_iter().chain(394..=420).collect();
    assert_eq!(ran, wanted);
    assert_eq!(of(SlotChoice::Miss).count(), (104..394).count());
}

/// A run by hand made all that fell due soon before it count as overlapped, though nothing ran then.
#[test]
fn what_fell_due_before_a_run_by_hand_did_not_fall_due_during_one() {
    let mut schedule = schedule(CatchUp::Latest, Overlap::Forbid);
    let (mut row, mut runs) = (orchestrator(), Runs::new());
    begin(&mut schedule, &mut row, &mut runs, 50_000, 50_000);
    (row.open_run, row.last_run_ended_ms, schedule.decided_ms) = (None, 52_000, 50_000);
    begin(&mut schedule, &mut row, &mut runs, 58_000, 0);
    (row.open_run, row.last_run_ended_ms) = (None, 59_000);
    let fell_due = |at| schedule.fell_due_during_a_run(at, &row);
    assert_eq!(
        [51_000, 52_000, 55_000, 58_000, 59_000].map(fell_due),
        [true, false, false, true, false]
    );
    let next = |after: u64| Some(after / 5000 * 5000 + 5000);
    let (slots, _) = slot_plan::plan(&schedule, &row, 59_100, next);
    let choices: Vec<SlotChoice> = slots.into_iter().map(|slot| slot.choice).collect();
    assert_eq!(choices, [SlotChoice::Run], "55 s is in time");
}

#[test]
fn the_latest_slot_that_was_missed_is_caught_up() {
    let mut row = orchestrator();
    let plan = |row: &Orchestrator, catch_up, now| {
        let mut schedule = schedule(catch_up, Overlap::Forbid);
        schedule.busy_since_ms = 50_000;
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

const EPOCH: Epoch = Epoch { term: 1, member: 1 };
const DEFAULT: &str = "default";

/// One change of a timetable, or a look of the leader, some time after what was before it.
#[derive(Debug, Clone)]
enum Move {
    Set(Option<Cadence>, Option<Mode>),
    Look,
}

fn moves() -> impl Strategy<Value = (u64, Move)> {
    let cron = |text: &str, zone: &str| Cadence::Cron {
        expression: text.to_owned(),
        zone: zone.to_owned(),
    };
    let every = |interval_ms| Cadence::Every { interval_ms };
    let cadence = prop::sample::select(vec![
        every(1000),
        every(1700),
        every(60_000),
        cron("* * * * *", "UTC"),
        cron("*/7 * * * *", "Europe/Berlin"),
        cron("no such time", "UTC"),
    ]);
    let mode = prop::sample::select(vec![Mode::Scheduled, Mode::Manual, Mode::Paused]);
    let passes =
        prop_oneof![2 => Just(0u64), 4 => 0u64..4000, 2 => 0u64..300_000, 1 => 0u64..3_000_000];
    let what = prop_oneof![
        2 => Just(Move::Look),
        3 => (prop::option::of(cadence), prop::option::weighted(0.3, mode))
            .prop_map(|(cadence, mode)| Move::Set(cadence, mode)),
    ];
    (passes, what)
}

/// The state machine, and the time in its log.
struct World {
    state: State,
    index: u64,
    now: TimeMs,
    calendars: Calendars,
}

impl World {
    fn new() -> Self {
        let (state, calendars) = (State::default(), Calendars::default());
        let mut world = Self { state, index: 0, now: 1_700_000_000_000, calendars };
        world.commit(Command::OpenEpoch(EPOCH)).unwrap();
        world
    }

    fn commit(&mut self, command: Command) -> Reply {
        self.index += 1;
        let request_id = RequestId(u128::from(self.index));
        let envelope = Envelope { request_id, principal: String::new(), command };
        let entry = LogEntry { at_ms: self.now, envelopes: vec![envelope] };
        let applied = self.state.apply(self.index, &encode_entry(&entry)).unwrap();
        applied.replies.into_iter().next().unwrap()
    }

    /// Goes round as the duty does, until nothing is left to do.
    fn look(&mut self) {
        for _ in 0..1000 {
            let (duties, _) = plan(&self.state, self.now, &mut self.calendars);
            if duties.is_empty() {
                return;
            }
            for duty in duties {
                self.commit(Command::Step { epoch: EPOCH, duty }).unwrap();
            }
        }
        panic!("the duty never rests");
    }

    /// The nominal times of the timetable that there is, up to now.
    fn due(&self) -> Vec<TimeMs> {
        let mode = self.state.orchestrator(DEFAULT).unwrap().mode;
        let schedule = self.state.schedule(DEFAULT).unwrap();
        let calendar = Calendar::new(&schedule.timetable.cadence, schedule.since_ms).ok();
        let calendar = calendar.filter(|_| mode != Mode::Manual);
        let due = calendar
            .iter()
            .flat_map(|calendar| calendar.slots_between(schedule.since_ms, self.now, usize::MAX));
        due.collect()
    }

    fn set(&mut self, cadence: Option<Cadence>, mode: Option<Mode>) -> Reply {
        let timetable = |cadence| Timetable { cadence, ..Timetable::default() }.into();
        let patch =
            OrchestratorPatch { mode, timetable: cadence.map(timetable), ..Default::default() };
        let (name, patch) = (DEFAULT.to_owned(), Box::new(patch));
        self.commit(Command::Campaign(CampaignCommand::PatchOrchestrator { name, patch }))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Only the oldest 1,000 slots that were due of a timetable that ended got rows, and of two changes
    /// at once the first one's got none.
    #[test]
    fn every_slot_of_every_timetable_gets_one_row(turns in prop::collection::vec(moves(), 1..30)) {
        let mut world = World::new();
        let mut due = Vec::new();
        for (passes_ms, what) in turns {
            world.now += passes_ms;
            let Move::Set(cadence, mode) = what else {
                world.look();
                continue;
            };
            let (since_ms, of_this) = (world.state.schedule(DEFAULT).unwrap().since_ms, world.due());
            match world.set(cadence.clone(), mode) {
                Ok(_) => {}
                Err(Rejection::LedgerBehind { .. }) => {
                    world.look();
                    world.set(cadence, mode).unwrap();
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
            let schedule = world.state.schedule(DEFAULT).unwrap();
            if schedule.since_ms != since_ms {
                due.extend(of_this);
            }
        }
        world.look();
        due.extend(world.due());
        world.set(None, Some(Mode::Manual)).unwrap();
        world.look();
        let rows: Vec<TimeMs> =
            world.state.slots_from(DEFAULT, 0).map(|slot| slot.nominal_ms).collect();
        let schedule = world.state.schedule(DEFAULT).unwrap();
        prop_assert!(schedule.closings.is_empty());
        let told: u64 = schedule.counts.iter().sum();
        prop_assert_eq!(told, due.len() as u64);
        prop_assert_eq!(&rows[..], &due[due.len() - rows.len()..]);
        prop_assert_eq!(rows.len(), due.len().min(SLOTS_MAX));
    }
}

/// Mode `CONTINUOUS` has a pause and no timetable, and stood still when the timetable that was left
/// beside it made no sense.
#[test]
fn a_timetable_that_makes_no_sense_holds_no_mode_up_that_has_none() {
    let mut world = World::new();
    let cadence = Cadence::Cron { expression: "no such time".to_owned(), zone: "UTC".to_owned() };
    world.set(Some(cadence), Some(Mode::Scheduled)).unwrap();
    let planned = |world: &World, later: TimeMs| {
        plan(&world.state, world.now + later, &mut Calendars::default()).0
    };
    let scheduled = planned(&world, 60_000);
    assert!(matches!(&scheduled[..], [StepDuty::JudgeSchedule { .. }]), "{scheduled:?}");
    world.now += 1000;
    world.set(None, Some(Mode::Continuous)).unwrap();
    // Nothing was due of it, which takes a calendar to say.
    let closing = planned(&world, 0);
    assert!(matches!(&closing[..], [StepDuty::CloseLedger { done: true, .. }]), "{closing:?}");
    world.look();
    let continuous = planned(&world, 60_000);
    assert!(matches!(&continuous[..], [StepDuty::DecideSlots { .. }]), "{continuous:?}");
}
