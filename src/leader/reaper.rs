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

/// Tasks and steps deleted in one round, which bounds what one entry costs every member.
const ROUND_MAX: usize = 1000;
/// How often it looks.
const PERIOD: Duration = Duration::from_secs(1);
/// The pause between rounds while there is more: deleting is never urgent.
const PAUSE: Duration = Duration::from_millis(20);

/// What is to be deleted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Which tasks, those that ended first.
    pub task_ids: Vec<TaskId>,
    /// Whether there may be more.
    pub more: bool,
}

/// The tasks to delete at `now`, those that ended first: of at most `rows_max` tasks and steps, but one
/// in any case. Tasks whose callbacks are still to be made wait for those.
#[must_use]
pub fn plan(view: &State, now: TimeMs, rows_max: usize) -> Plan {
    let policy = view.policy();
    let kept = usize::try_from(policy.retained_tasks_max).unwrap_or(usize::MAX);
    // Rows of the tasks that are taken, and how many of those that could be are too many.
    let (mut rows, too_many) = (0, view.told_rows().saturating_sub(kept));
    let mut plan = Plan::default();
    for (ended_at_ms, seq) in view.told_ends() {
        let old = ended_at_ms.saturating_add(policy.retention_ms) <= now;
        if rows >= too_many && !old {
            break;
        }
        if rows >= rows_max {
            plan.more = true;
            break;
        }
        let Some(task) = view.task_at(seq) else { continue };
        rows += task.rows();
        plan.task_ids.push(task.task_id.clone());
    }
    plan
}

/// The duty around [`plan`].
#[derive(Debug, Default)]
pub struct Reaper;

impl<S: Seat> Duty<S> for Reaper {
    const NAME: DutyName = DutyName::Reaper;

    async fn round(&mut self, reign: &Reign<S>) -> Result<Next, DutyError> {
        let (Plan { task_ids, more }, campaigns) = reign.seat.read(|view| {
            let plan = plan(view, state_now(&*reign.seat, view), ROUND_MAX);
            (plan, view.campaigns_to_forget() > 0)
        });
        let more = campaigns || more;
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
