//! What all duties share: the reign they belong to, how they are woken, how they propose.
//!
//! A duty is a name, a longest period, and a round: look at the view, plan, propose. Rounds are
//! started by events, coalesced, and by the period as a safety net. A duty never spins: a round
//! that changed nothing is followed by a wait.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::LeaderOptions;
use super::agents::AgentCaller;
use super::courier::TaskRenderer;
use super::fleet::Fleet;
use super::http::NodeCaller;
use super::metrics::{DutyName, LeaderMetrics};
use super::seat::{Seat, SeatError};
use crate::model::{Epoch, Services};
use crate::state::{Command, Outcome, Rejection};

/// The pause after a proposal that was not started or has no known outcome.
const PROPOSE_PAUSE: Duration = Duration::from_millis(50);
/// The pause after a batch that apply refused as a whole, which no duty should ever propose.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Why a duty ended.
#[derive(Debug, thiserror::Error)]
pub enum DutyError {
    /// A newer leader has taken over: the ordinary end.
    #[error("the epoch is closed")]
    EpochClosed,
    /// It cannot go on, and with it the reign cannot.
    #[error("{0}")]
    Failed(String),
}

/// What the members of one reign share. Dropped with it.
pub(super) struct Reign<S> {
    /// The member it runs on.
    pub seat: Arc<S>,
    /// The open epoch.
    pub epoch: Epoch,
    /// When the reign began.
    pub since: Instant,
    /// Cancelled when the reign ends.
    pub ended: CancellationToken,
    /// What wakes whom.
    pub wakes: Wakes,
    /// What is known of nodes in memory.
    pub fleet: Fleet,
    /// How nodes are called.
    pub caller: Arc<dyn NodeCaller>,
    /// How agents are called.
    pub agents: Arc<dyn AgentCaller>,
    /// What callbacks are told of a task.
    pub renderer: Arc<dyn TaskRenderer>,
    /// The operator's program for scaling.
    pub scaling_program: Option<PathBuf>,
    /// Where tasks of workflows go.
    pub services: Arc<Services>,
    /// Counts of this member.
    pub metrics: Arc<LeaderMetrics>,
    /// Bounds and periods.
    pub options: LeaderOptions,
}

/// One permit each: many wake-ups before a round make one round.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    /// A timer may be due sooner than thought.
    pub timers: Notify,
    /// Nodes came, went or changed.
    pub liveness: Notify,
    /// There may be something to place, or room for it.
    pub scheduler: Notify,
    /// There may be more ended tasks than are to be kept.
    pub reaper: Notify,
    /// There may be something to post.
    pub courier: Notify,
    /// Figures or thresholds may have changed.
    pub watch: Notify,
    /// The fleet or the rules of scaling may have changed.
    pub autoscaler: Notify,
    /// Nodes came, or the rules of probing changed.
    pub prober: Notify,
    /// Runs, slots or iterations may be due.
    pub campaigns: Notify,
    /// A lease may end sooner than thought.
    pub leases: Notify,
    /// A task of a workflow may begin, or is not wanted any more.
    pub workflows: Notify,
}

/// How many rows of a batch took effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Judged {
    /// Rows that took effect.
    pub accepted: u64,
    /// Rows that came too late.
    pub stale: u64,
}

impl<S: Seat> Reign<S> {
    /// Proposes a batch of this reign. `None` when it was not started, its outcome is unknown, or it
    /// was refused: the duty looks again and plans anew, after the pause that was made here. The
    /// other duties go on, and so does the reign: the next one would plan the same.
    ///
    /// # Errors
    /// [`DutyError`] when the reign cannot go on.
    pub(super) async fn propose(&self, command: Command) -> Result<Option<Judged>, DutyError> {
        match self.seat.propose(self.epoch, command).await {
            Ok(Ok(Outcome::Judged { accepted, stale })) => {
                Ok(Some(Judged { accepted: accepted.into(), stale: stale.into() }))
            }
            Ok(Ok(other)) => Err(DutyError::Failed(format!("a batch was answered {other:?}"))),
            Ok(Err(Rejection::StaleEpoch { .. })) | Err(SeatError::NotLeader) => {
                Err(DutyError::EpochClosed)
            }
            Ok(Err(rejection)) => {
                error!(code = rejection.code(), %rejection, "a batch of a duty was refused");
                tokio::time::sleep(REFUSED_PAUSE).await;
                Ok(None)
            }
            Err(error @ (SeatError::NotStarted(_) | SeatError::Unknown)) => {
                debug!(%error, "a proposal has to be made again");
                tokio::time::sleep(PROPOSE_PAUSE).await;
                Ok(None)
            }
            Err(error @ SeatError::Stopped(_)) => Err(DutyError::Failed(error.to_string())),
        }
    }
}

/// What a round says about the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// There is more to do: after this pause, whatever happens.
    Again(Duration),
    /// At a wake-up, or after so long.
    Wait(Duration),
}

/// A duty that goes in rounds.
pub(super) trait Duty<S: Seat>: Send {
    /// Its name.
    const NAME: DutyName;

    /// One round: look, plan, propose.
    fn round(&mut self, reign: &Reign<S>) -> impl Future<Output = Result<Next, DutyError>> + Send;

    /// What wakes it.
    fn wake(wakes: &Wakes) -> &Notify;
}

/// Goes round until the reign ends.
///
/// # Errors
/// What the duty's round fails with.
pub(super) async fn go_round<S: Seat, D: Duty<S>>(
    reign: Arc<Reign<S>>,
    mut duty: D,
) -> Result<(), DutyError> {
    let wake = D::wake(&reign.wakes);
    loop {
        let started = Instant::now();
        let next = tokio::select! {
            biased;
            () = reign.ended.cancelled() => return Ok(()),
            next = duty.round(&reign) => next?,
        };
        let took = started.elapsed();
        reign.metrics.went_round(D::NAME, took);
        if took > reign.options.slow_round {
            warn!(duty = D::NAME.as_str(), took_ms = took.as_millis(), "a round was slow");
        }
        tokio::select! {
            biased;
            () = reign.ended.cancelled() => return Ok(()),
            () = rest(next, wake) => {}
        }
    }
}

async fn rest(next: Next, wake: &Notify) {
    match next {
        Next::Again(pause) if pause.is_zero() => tokio::task::yield_now().await,
        Next::Again(pause) => tokio::time::sleep(pause).await,
        Next::Wait(longest) => {
            tokio::select! {
                biased;
                () = wake.notified() => {}
                () = tokio::time::sleep(longest) => {}
            }
        }
    }
}
