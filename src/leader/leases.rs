//! Leases of bots' assignments that ran out: whoever held them is taken for gone.

use std::time::Duration;

use tokio::sync::Notify;

use super::duty::{Duty, DutyError, Next, Reign, Wakes};
use super::metrics::DutyName;
use super::seat::Seat;
use super::timers::state_now;
use crate::model::TimeMs;
use crate::state::{BotCommand, Command, ExpiredLease, State};

/// Leases taken back in one round.
const ROUND_MAX: usize = 2000;
/// The longest wait: a lease that ends meanwhile is taken back late by at most so much.
const PERIOD: Duration = Duration::from_millis(500);
/// The pause when nothing took effect although it seemed due: the clock that counts is the one
/// in the log.
const NOT_YET: Duration = Duration::from_millis(20);
/// Leases end by the age of the state, to which one entry adds ten seconds at most. After half of that
/// without any entry the next end is proposed before its time: it is stale, and the age has moved on.
const SILENCE_MS: TimeMs = 5_000;

/// The leases that are over at `now`, at most `max`, and when the next one ends. When nothing has moved the
/// state's age on for long, the one that ends next is among them.
#[must_use]
pub fn plan(view: &State, now: TimeMs, max: usize) -> (Vec<ExpiredLease>, Option<TimeMs>) {
    let mut leases: Vec<ExpiredLease> = view.due_leases(now).take(max).collect();
    let is_silent = now >= view.counters().last_at_ms.saturating_add(SILENCE_MS);
    if leases.is_empty() && is_silent {
        leases.extend(view.next_lease());
    }
    (leases, view.next_lease_end_ms())
}

/// The duty around [`plan`].
#[derive(Debug, Default)]
pub struct Leases;

impl<S: Seat> Duty<S> for Leases {
    const NAME: DutyName = DutyName::Leases;

    async fn round(&mut self, reign: &Reign<S>) -> Result<Next, DutyError> {
        let (now, leases, next) = reign.seat.read(|view| {
            let now = state_now(&*reign.seat, view);
            let (leases, next) = plan(view, now, ROUND_MAX);
            (now, leases, next)
        });
        if leases.is_empty() {
            let wait = next.map(|at| Duration::from_millis(at.saturating_sub(now).max(1)));
            return Ok(Next::Wait(wait.unwrap_or(PERIOD).min(PERIOD)));
        }
        let command = BotCommand::ExpireLeases { epoch: reign.epoch, leases };
        let judged = reign.propose(Command::Bot(Box::new(command))).await?;
        let accepted = judged.unwrap_or_default().accepted;
        reign.metrics.leases_expired.add(accepted);
        Ok(Next::Again(if accepted == 0 { NOT_YET } else { Duration::ZERO }))
    }

    fn wake(wakes: &Wakes) -> &Notify {
        &wakes.leases
    }
}
