//! The reaper: deletes tasks that ended longer ago than they are kept, or are too many, and campaigns that
//! have ended and are too many.

use std::time::Duration;

use tokio::sync::Notify;

use super::duty::{Duty, DutyError, Next, Reign, Wakes};
use super::metrics::DutyName;
use super::seat::Seat;
use super::timers::state_now;
use crate::model::{TaskId, TimeMs};
use crate::state::{Command, State, StepDuty};

/// Tasks deleted in one round, which bounds what one entry costs every member.
const ROUND_MAX: usize = 1000;
/// How often it looks.
const PERIOD: Duration = Duration::from_secs(1);
/// The pause between rounds while there is more: deleting is never urgent.
const PAUSE: Duration = Duration::from_millis(20);

/// The tasks to delete at `now`, those that ended first, at most `max`. Tasks whose callbacks are still
/// to be made wait for those.
#[must_use]
pub fn plan(view: &State, now: TimeMs, max: usize) -> Vec<TaskId> {
    let policy = view.policy();
    let kept = usize::try_from(policy.retained_tasks_max).unwrap_or(usize::MAX);
    let too_many = view.ended_len().saturating_sub(kept);
    let old = |ended_at_ms: TimeMs| ended_at_ms.saturating_add(policy.retention_ms) <= now;
    let ends = view.told_ends().enumerate();
    ends.take_while(|(place, (ended_at_ms, _))| *place < too_many || old(*ended_at_ms))
        .filter_map(|(_, (_, seq))| view.task_at(seq).map(|task| task.task_id.clone()))
        .take(max)
        .collect()
}

/// The duty around [`plan`].
#[derive(Debug, Default)]
pub struct Reaper;

impl<S: Seat> Duty<S> for Reaper {
    const NAME: DutyName = DutyName::Reaper;

    async fn round(&mut self, reign: &Reign<S>) -> Result<Next, DutyError> {
        let (task_ids, campaigns) = reign.seat.read(|view| {
            let task_ids = plan(view, state_now(&*reign.seat, view), ROUND_MAX);
            (task_ids, view.campaigns_to_forget() > 0)
        });
        let more = campaigns || task_ids.len() == ROUND_MAX;
        let epoch = reign.epoch;
        if !task_ids.is_empty() {
            let judged = reign.propose(Command::RetireTasks { epoch, task_ids }).await?;
            reign.metrics.retired.add(judged.unwrap_or_default().accepted);
        }
        if campaigns {
            let duty = StepDuty::ForgetCampaigns;
            reign.propose(Command::Step { epoch, duty }).await?;
        }
        Ok(if more { Next::Again(PAUSE) } else { Next::Wait(PERIOD) })
    }

    fn wake(wakes: &Wakes) -> &Notify {
        &wakes.reaper
    }
}
