//! The timers: attempts over their time, deadlines that passed, back-offs that ended.

use std::time::Duration;

use tokio::sync::Notify;

use super::duty::{Duty, DutyError, Next, Reign, Wakes};
use super::metrics::DutyName;
use super::seat::Seat;
use crate::model::TimeMs;
use crate::state::{Command, State, TaskExpiry};

/// Rows changed in one round: a task in steps takes its steps along.
const ROUND_MAX: usize = 2000;
/// The longest wait: a timer that was set meanwhile is late by at most so much.
const PERIOD: Duration = Duration::from_millis(500);
/// The pause when nothing took effect although it seemed due: the clock that counts is the one
/// in the log.
const NOT_YET: Duration = Duration::from_millis(20);

/// The timers that are due at `now`, those of at most `rows_max` tasks and steps, but of one task in
/// any case, and when the next one is.
#[must_use]
pub fn plan(view: &State, now: TimeMs, rows_max: usize) -> (Vec<TaskExpiry>, Option<TimeMs>) {
    let mut rows = 0;
    let due = view.due_timers(now).take_while(|(task, _)| {
        let fits = rows < rows_max;
        rows += task.rows();
        fits
    });
    let expiries = due.map(|(task, kind)| TaskExpiry {
        task_id: task.task_id.clone(),
        seen_revision: task.revision,
        kind,
    });
    (expiries.collect(), view.next_timer_ms())
}

/// The state machine's time: what the next entry would carry.
pub(super) fn state_now(seat: &impl Seat, view: &State) -> TimeMs {
    seat.time_after(view.counters().last_at_ms)
}

/// The duty around [`plan`].
#[derive(Debug, Default)]
pub struct Timers;

impl<S: Seat> Duty<S> for Timers {
    const NAME: DutyName = DutyName::Timers;

    async fn round(&mut self, reign: &Reign<S>) -> Result<Next, DutyError> {
        let (now, expiries, next) = reign.seat.read(|view| {
            let now = state_now(&*reign.seat, view);
            let (expiries, next) = plan(view, now, ROUND_MAX);
            (now, expiries, next)
        });
        if expiries.is_empty() {
            let wait = next.map(|at| Duration::from_millis(at.saturating_sub(now).max(1)));
            return Ok(Next::Wait(wait.unwrap_or(PERIOD).min(PERIOD)));
        }
        let epoch = reign.epoch;
        let judged = reign.propose(Command::ExpireTasks { epoch, expiries }).await?;
        let accepted = judged.unwrap_or_default().accepted;
        reign.metrics.expired.add(accepted);
        Ok(Next::Again(if accepted == 0 { NOT_YET } else { Duration::ZERO }))
    }

    fn wake(wakes: &Wakes) -> &Notify {
        &wakes.timers
    }
}
