//! The periodic campaign step, which only the leader runs (contract 3.4).
//!
//! One round looks at what is open and plans one bounded command for each: the next phase of a run, the
//! slots of a schedule that are due, iterations that clients asked for. Everything it goes by is in the
//! state, so the next leader goes on where this one stopped. A schedule that makes no sense is marked
//! and passed over; it holds nobody else up.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use super::calendar::Calendar;
use super::duty::{Duty, DutyError, Next, Reign, Wakes};
use super::metrics::DutyName;
use super::seat::Seat;
use super::slot_plan::{self, SLOTS_PER_ROUND};
use super::step_plan::{self, Walk};
use super::timers::state_now;
use crate::canary::{self, Canary};
use crate::model::{Cadence, Closing, Mode, Run, Schedule, TimeMs};
use crate::state::{Command, State, StepDuty};

/// The longest wait: what was set meanwhile is late by at most so much.
const PERIOD: Duration = Duration::from_millis(500);
/// The pause when nothing took effect although it seemed due: the clock that counts is the one in the
/// log.
const NOT_YET: Duration = Duration::from_millis(20);
/// Iterations begun in one command.
const LAUNCHES_MAX: usize = 16;
/// Campaigns that a step looks at while nothing is written.
const LOOKS_PER_READ: usize = 250;
/// Campaigns of which is told in one command why their iterations wait.
const WAITING_MAX: usize = 100;
/// A run that has not ended after so long never will (contract 3.4: hard limit).
const RUN_MAX_MS: u64 = 3_600_000;

/// Calendars by schedule, made anew when a timetable changes.
#[derive(Debug, Default)]
pub struct Calendars(BTreeMap<String, (Cadence, TimeMs, Result<Calendar, String>)>);

impl Calendars {
    fn of(&mut self, schedule: &Schedule) -> Result<&Calendar, &str> {
        let (cadence, since_ms) = (&schedule.timetable.cadence, schedule.since_ms);
        let known = self.0.get(&schedule.key);
        if known.is_none_or(|(known, since, _)| known != cadence || *since != since_ms) {
            let made = Calendar::new(cadence, since_ms).map_err(|error| error.to_string());
            self.0.insert(schedule.key.clone(), (cadence.clone(), since_ms, made));
        }
        let (_, _, made) = &self.0[&schedule.key];
        made.as_ref().map_err(String::as_str)
    }
}

/// What [`look`] comes to when its looks at campaigns are made at once, for tests.
#[cfg(test)]
pub(crate) fn plan(
    view: &State,
    now: TimeMs,
    calendars: &mut Calendars,
) -> (Vec<StepDuty>, Option<TimeMs>) {
    let (walks, duties, next) = look(view, now, calendars);
    let walked = walks.into_iter().map(|mut walk| {
        walk.go_on(view, usize::MAX);
        walk.end()
    });
    (walked.chain(duties).collect(), next)
}

/// What is to be proposed now, looks at campaigns that lead to more of it, and when there is more.
fn look(
    view: &State,
    now: TimeMs,
    calendars: &mut Calendars,
) -> (Vec<Walk>, Vec<StepDuty>, Option<TimeMs>) {
    let (mut walks, mut duties) = (Vec::new(), Vec::new());
    for run in view.open_runs() {
        if now.saturating_sub(run.started_at_ms) > RUN_MAX_MS.saturating_add(working_ms(view, run))
        {
            let error = "the run was not finished in time".to_owned();
            duties.push(StepDuty::FailRun { run_id: run.run_id, error });
            continue;
        }
        match step_plan::next(view, now, run) {
            Some(step_plan::Next::Command(duty)) => duties.push(duty),
            Some(step_plan::Next::Walk(walk)) => walks.push(walk),
            None => {}
        }
    }
    let launches = step_plan::requested(view, LAUNCHES_MAX);
    if !launches.is_empty() {
        duties.push(StepDuty::LaunchIterations { launches });
    }
    let campaigns = step_plan::waiting(view, WAITING_MAX);
    if !campaigns.is_empty() {
        duties.push(StepDuty::NoteWaiting { campaigns });
    }
    let mut next: Option<TimeMs> = None;
    for schedule in view.schedules() {
        // What is left of a timetable that has ended comes before the one there is.
        if let Some(closing) = schedule.closings.first() {
            duties.push(close(schedule, closing));
            continue;
        }
        let Some(orchestrator) = view.orchestrator(&schedule.key) else { continue };
        let by_timetable = match orchestrator.mode {
            Mode::Manual => continue,
            // It has a pause; the timetable beside it is that of another mode.
            Mode::Continuous => false,
            Mode::Scheduled | Mode::Paused => true,
        };
        let fresh = canary::active(Canary::SlotTwice)
            && by_timetable
            && !calendars.0.contains_key(&schedule.key);
        let again = fresh.then(|| {
            let decided_ms = schedule.decided_ms.saturating_sub(1);
            Schedule { decided_ms, ..schedule.clone() }
        });
        let calendar = by_timetable.then(|| calendars.of(schedule)).transpose();
        let (degraded, (slots, due)) = match calendar {
            Ok(calendar) => {
                let after = |at| calendar?.next_after(at);
                let seen = again.as_ref().unwrap_or(schedule);
                ("", slot_plan::plan(seen, orchestrator, now, after))
            }
            Err(why) => (why, (Vec::new(), None)),
        };
        if degraded != schedule.degraded {
            let (schedule, degraded) = (schedule.key.clone(), degraded.to_owned());
            duties.push(StepDuty::JudgeSchedule { schedule, degraded });
        }
        if !slots.is_empty() {
            let (key, seen_decided_ms) = (schedule.key.clone(), schedule.decided_ms);
            duties.push(StepDuty::DecideSlots { schedule: key, seen_decided_ms, slots });
        }
        next = [next, due].into_iter().flatten().min();
    }
    (walks, duties, next)
}

/// How long the task of a run may take with all its attempts and back-offs, as it was when the run
/// began; 0 for a run without one.
fn working_ms(view: &State, run: &Run) -> TimeMs {
    let Some(task) = run.task_id.as_ref().and_then(|task_id| view.task(task_id)) else { return 0 };
    let retries = u64::from(task.max_retries);
    let waits_ms = view.policy().retry_delay_max_ms.saturating_mul(retries);
    task.timeout_ms.saturating_mul(retries + 1).saturating_add(waits_ms)
}

/// The next slots of a timetable that has ended. One that no calendar can be made of has none.
fn close(schedule: &Schedule, closing: &Closing) -> StepDuty {
    let calendar = Calendar::new(&closing.cadence, closing.since_ms).ok();
    let due = calendar.iter().flat_map(|calendar| {
        calendar.slots_between(schedule.decided_ms, closing.until_ms, SLOTS_PER_ROUND)
    });
    let nominal_ms: Vec<TimeMs> = due.collect();
    StepDuty::CloseLedger {
        schedule: schedule.key.clone(),
        seen_decided_ms: schedule.decided_ms,
        until_ms: closing.until_ms,
        done: nominal_ms.len() < SLOTS_PER_ROUND,
        nominal_ms,
    }
}

/// The duty around `look`.
#[derive(Debug, Default)]
pub struct Campaigns {
    calendars: Calendars,
}

impl<S: Seat> Duty<S> for Campaigns {
    const NAME: DutyName = DutyName::Campaigns;

    async fn round(&mut self, reign: &Reign<S>) -> Result<Next, DutyError> {
        let calendars = &mut self.calendars;
        let begun = Instant::now();
        let (now, (walks, others, next)) = reign.seat.read(|view| {
            let now = state_now(&*reign.seat, view);
            (now, look(view, now, calendars))
        });
        let (mut took, mut duties) = (begun.elapsed(), Vec::new());
        for mut walk in walks {
            loop {
                let begun = Instant::now();
                let goes_on = reign.seat.read(|view| walk.go_on(view, LOOKS_PER_READ));
                took += begun.elapsed();
                if !goes_on {
                    break;
                }
                tokio::task::yield_now().await;
            }
            duties.push(walk.end());
        }
        duties.extend(others);
        reign.metrics.planned_steps(took);
        if duties.is_empty() {
            let wait = next.map(|at| Duration::from_millis(at.saturating_sub(now).max(1)));
            return Ok(Next::Wait(wait.unwrap_or(PERIOD).min(PERIOD)));
        }
        let mut accepted = 0;
        for duty in duties {
            if let StepDuty::JudgeSchedule { schedule, degraded } = &duty
                && !degraded.is_empty()
            {
                warn!(schedule, degraded, "a schedule cannot go on");
            }
            let command = Command::Step { epoch: reign.epoch, duty };
            accepted += reign.propose(command).await?.unwrap_or_default().accepted;
        }
        Ok(Next::Again(if accepted == 0 { NOT_YET } else { Duration::ZERO }))
    }

    fn wake(wakes: &Wakes) -> &Notify {
        &wakes.campaigns
    }
}
