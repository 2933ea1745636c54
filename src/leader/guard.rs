//! The guard: begins and ends this member's reigns.
//!
//! A reign begins with a linearizable barrier (the view is current), an `OpenEpoch` through the
//! log (older leaders are fenced), and the rebuilding of what is kept in memory; then the gate is
//! opened and the duties are started in a written order. It ends the other way round: the gate is
//! closed first, then every duty is cancelled and awaited, then the memory is dropped. Begin and
//! end strictly alternate, because one loop does both.
//!
//! "Lost and won again before it was noticed" is a new term, so it ends one reign and begins
//! another: queues are always rebuilt.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::LeaderOptions;
use super::autoscaler::Autoscaler;
use super::campaigns::Campaigns;
use super::courier::Courier;
use super::dispatcher::Dispatcher;
use super::duty::{DutyError, Reign, Wakes, go_round};
use super::events;
use super::fleet::Fleet;
use super::leases::Leases;
use super::liveness::Liveness;
use super::metrics::{DutyName, LeaderMetrics};
use super::outward::Outward;
use super::prober::Prober;
use super::reaper::Reaper;
use super::record::{Records, ReignEnd, ReignRecord};
use super::scheduler::Scheduler;
use super::seat::Seat;
use super::timers::Timers;
use super::watch::Watch;
use super::workflows::Workflows;
use crate::canary::{self, Canary};
use crate::model::Epoch;
use crate::state::{Command, Rejection};

/// Duties end at once when they are told to; one that does not is reported, and cut off.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// This member's leader work. Clones share it.
#[derive(Clone)]
pub struct Leadership(Arc<Inner>);

struct Inner {
    options: LeaderOptions,
    outward: Outward,
    metrics: Arc<LeaderMetrics>,
    gate: watch::Sender<Option<Epoch>>,
    records: Records,
    duties: Arc<AtomicUsize>,
}

type Ended = (DutyName, Result<(), DutyError>);

impl Leadership {
    /// Leader work that reaches what is outside through `outward`.
    #[must_use]
    pub fn new(options: LeaderOptions, outward: Outward) -> Self {
        Self(Arc::new(Inner {
            options,
            outward,
            metrics: Arc::default(),
            gate: watch::Sender::new(None),
            records: Records::default(),
            duties: Arc::default(),
        }))
    }

    /// The epoch this member serves as leader in, while it does. Stricter than leading in Raft's
    /// sense: the epoch is open and the duties run.
    #[must_use]
    pub fn serving(&self) -> watch::Receiver<Option<Epoch>> {
        self.0.gate.subscribe()
    }

    /// Counts since the program started.
    #[must_use]
    pub fn metrics(&self) -> &LeaderMetrics {
        &self.0.metrics
    }

    /// The last reigns of this member, oldest first.
    #[must_use]
    pub fn reigns(&self) -> Vec<ReignRecord> {
        self.0.records.list()
    }

    /// How many duties run now.
    #[must_use]
    pub fn duties_running(&self) -> usize {
        self.0.duties.load(Ordering::SeqCst)
    }

    /// Reigns whenever `seat` leads, until `shutdown`. Returns when every duty has ended.
    pub async fn run<S: Seat>(&self, seat: Arc<S>, shutdown: CancellationToken) {
        let mut leading = seat.leadership();
        loop {
            let term = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                term = won(&mut leading) => match term {
                    Some(term) => term,
                    // The member is gone.
                    None => return,
                },
            };
            let end = self.reign(&seat, term, leading.clone(), &shutdown).await;
            self.settle(seat.as_ref(), term, &end, &mut leading, &shutdown).await;
        }
    }

    /// One reign, from the barrier to the last duty's end.
    async fn reign<S: Seat>(
        &self,
        seat: &Arc<S>,
        term: u64,
        mut leading: watch::Receiver<Option<u64>>,
        shutdown: &CancellationToken,
    ) -> ReignEnd {
        let epoch = Epoch { term, member: seat.member_id() };
        let detected = Instant::now();
        self.0.records.begin(ReignRecord::detected(epoch));
        info!(%epoch, "this member leads and takes office");
        let established = tokio::select! {
            biased;
            () = shutdown.cancelled() => Err(ReignEnd::Shutdown),
            () = lost(&mut leading, term) => Err(ReignEnd::LeadershipLost),
            established = self.establish(seat.as_ref(), epoch, detected) => established,
        };
        let mut end = match established {
            Err(end) => end,
            Ok(()) => self.serve(seat, epoch, detected, &mut leading, shutdown).await,
        };
        // A step that failed because the office was lost meanwhile is no fault of its own.
        if end != ReignEnd::Shutdown && *leading.borrow() != Some(term) {
            end = ReignEnd::LeadershipLost;
        }
        match &end {
            ReignEnd::LeadershipLost | ReignEnd::Shutdown => info!(%epoch, ?end, "the reign ended"),
            ReignEnd::InDoubt(_) | ReignEnd::DutyFailed(_) | ReignEnd::NotEstablished(_) => {
                warn!(%epoch, ?end, "the reign ended early");
            }
        }
        self.0.records.note(|record| record.end = Some(end.clone()));
        end
    }

    /// Makes the view current and fences older leaders.
    async fn establish<S: Seat>(
        &self,
        seat: &S,
        epoch: Epoch,
        detected: Instant,
    ) -> Result<(), ReignEnd> {
        let timeout = self.0.options.confirm_timeout;
        in_time(timeout, seat.barrier()).await.map_err(ReignEnd::NotEstablished)?;
        self.0.records.note(|record| record.barrier = Some(detected.elapsed()));
        let opened = in_time(timeout, seat.propose(epoch, Command::OpenEpoch(epoch))).await;
        match opened.map_err(ReignEnd::NotEstablished)? {
            Ok(_) => {}
            Err(Rejection::StaleEpoch { .. }) => return Err(ReignEnd::LeadershipLost),
            Err(rejection) => return Err(ReignEnd::NotEstablished(rejection.to_string())),
        }
        self.0.records.note(|record| record.epoch_open = Some(detected.elapsed()));
        Ok(())
    }

    /// Runs the duties until something ends the reign.
    async fn serve<S: Seat>(
        &self,
        seat: &Arc<S>,
        epoch: Epoch,
        detected: Instant,
        leading: &mut watch::Receiver<Option<u64>>,
        shutdown: &CancellationToken,
    ) -> ReignEnd {
        assert_eq!(self.duties_running(), 0, "duties of an earlier reign still run");
        let reign = Arc::new(Reign {
            seat: Arc::clone(seat),
            epoch,
            since: detected,
            ended: CancellationToken::new(),
            wakes: Wakes::default(),
            fleet: Fleet::default(),
            caller: Arc::clone(&self.0.outward.caller),
            agents: Arc::clone(&self.0.outward.agents),
            renderer: Arc::clone(&self.0.outward.renderer),
            scaling_program: self.0.outward.scaling_program.clone(),
            services: Arc::clone(&self.0.outward.services),
            metrics: Arc::clone(&self.0.metrics),
            options: self.0.options,
        });
        let feed = seat.events();
        let dispatcher = Dispatcher::rebuild(Arc::clone(&reign));
        let to_hand_over = dispatcher.waiting();
        self.0.gate.send_replace(Some(epoch));
        self.0.metrics.reigns.add(1);
        self.0.records.note(|record| record.gate_open = Some(detected.elapsed()));
        let mut duties = self.start(&reign, feed, dispatcher);
        self.0.records.note(|record| record.duties_started = Some(detected.elapsed()));
        let took_ms = detected.elapsed().as_millis();
        info!(%epoch, took_ms, to_hand_over, "in office: duties are started");
        let end = tokio::select! {
            biased;
            () = shutdown.cancelled() => ReignEnd::Shutdown,
            () = lost(leading, epoch.term) => ReignEnd::LeadershipLost,
            Some(ended) = duties.join_next() => why_ended(ended),
            doubt = self.watch_over(seat.as_ref()) => ReignEnd::InDoubt(doubt),
        };
        if end == ReignEnd::LeadershipLost && canary::active(Canary::NoEpochCheck) {
            // Only slow to notice, as any process may be: the epochs are what makes it harmless.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        self.0.gate.send_replace(None);
        self.0.records.note(|record| record.gate_closed = Some(detected.elapsed()));
        reign.ended.cancel();
        stop(&mut duties).await;
        self.0.metrics.in_flight.set(0);
        self.0.records.note(|record| record.duties_ended = Some(detected.elapsed()));
        end
    }

    /// Starts the duties. The order is that of who needs whom: events wake the others; timers and
    /// liveness free what is stuck; then work is placed, and handed over; deleting comes last.
    fn start<S: Seat>(
        &self,
        reign: &Arc<Reign<S>>,
        feed: S::Feed,
        dispatcher: Dispatcher<S>,
    ) -> JoinSet<Ended> {
        let mut duties = JoinSet::new();
        let shared = || Arc::clone(reign);
        self.spawn(&mut duties, DutyName::Events, events::follow(shared(), feed));
        self.spawn(&mut duties, DutyName::Timers, go_round(shared(), Timers));
        self.spawn(&mut duties, DutyName::Liveness, go_round(shared(), Liveness::default()));
        self.spawn(&mut duties, DutyName::Scheduler, go_round(shared(), Scheduler::default()));
        self.spawn(&mut duties, DutyName::Dispatcher, dispatcher.run());
        self.spawn(&mut duties, DutyName::Reaper, go_round(shared(), Reaper));
        self.spawn(&mut duties, DutyName::Courier, go_round(shared(), Courier::default()));
        self.spawn(&mut duties, DutyName::Watch, go_round(shared(), Watch::default()));
        self.spawn(&mut duties, DutyName::Autoscaler, go_round(shared(), Autoscaler::default()));
        self.spawn(&mut duties, DutyName::Prober, go_round(shared(), Prober::default()));
        self.spawn(&mut duties, DutyName::Campaigns, go_round(shared(), Campaigns::default()));
        self.spawn(&mut duties, DutyName::Leases, go_round(shared(), Leases));
        self.spawn(&mut duties, DutyName::Workflows, go_round(shared(), Workflows::default()));
        duties
    }

    fn spawn(
        &self,
        duties: &mut JoinSet<Ended>,
        name: DutyName,
        work: impl Future<Output = Result<(), DutyError>> + Send + 'static,
    ) {
        let running = Running::begin(Arc::clone(&self.0.duties));
        duties.spawn(async move {
            let ended = work.await;
            drop(running);
            (name, ended)
        });
    }

    /// Returns when a quorum does not confirm that this member leads. Raft finds that out too;
    /// this is the second opinion that does not share its timers.
    async fn watch_over<S: Seat>(&self, seat: &S) -> String {
        let mut ticks = tokio::time::interval(self.0.options.confirm_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(doubt) = in_time(self.0.options.confirm_timeout, seat.barrier()).await {
                return doubt;
            }
        }
    }

    /// After a reign: lets another member lead if this one cannot, and waits until there is
    /// something new.
    async fn settle<S: Seat>(
        &self,
        seat: &S,
        term: u64,
        end: &ReignEnd,
        leading: &mut watch::Receiver<Option<u64>>,
        shutdown: &CancellationToken,
    ) {
        match end {
            ReignEnd::Shutdown => return,
            ReignEnd::LeadershipLost => {}
            ReignEnd::InDoubt(_) | ReignEnd::DutyFailed(_) | ReignEnd::NotEstablished(_) => {
                let timeout = self.0.options.confirm_timeout;
                match in_time(timeout, seat.hand_over()).await {
                    Ok(()) => info!(term, "leadership was handed over"),
                    Err(why) => warn!(term, why, "leadership cannot be handed over"),
                }
            }
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = lost(leading, term) => {}
            () = tokio::time::sleep(self.0.options.retry_pause) => {}
        }
    }
}

/// Counts a running duty for as long as it lives, also when it panics.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn begin(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The term this member leads in, once it does; `None` when the member is gone.
async fn won(leading: &mut watch::Receiver<Option<u64>>) -> Option<u64> {
    leading.wait_for(Option::is_some).await.ok().and_then(|term| *term)
}

/// Returns once this member does not lead in `term` any more.
async fn lost(leading: &mut watch::Receiver<Option<u64>>, term: u64) {
    // A closed channel means that the member is gone, and with it leadership.
    let _ = leading.wait_for(|now| *now != Some(term)).await;
}

/// Bounds a step in time and makes its failure a text for the record.
async fn in_time<T, E: std::fmt::Display>(
    timeout: Duration,
    step: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(timeout, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("not done within {} ms", timeout.as_millis())),
    }
}

fn why_ended(ended: Result<Ended, JoinError>) -> ReignEnd {
    match ended {
        Ok((_, Err(DutyError::EpochClosed))) => ReignEnd::LeadershipLost,
        Ok((duty, Err(DutyError::Failed(why)))) => {
            ReignEnd::DutyFailed(format!("{}: {why}", duty.as_str()))
        }
        Ok((duty, Ok(()))) => ReignEnd::DutyFailed(format!("{} ended by itself", duty.as_str())),
        Err(broken) => ReignEnd::DutyFailed(broken.to_string()),
    }
}

/// Awaits every duty. They were told to end.
async fn stop(duties: &mut JoinSet<Ended>) {
    let all = async { while duties.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_PATIENCE, all).await.is_err() {
        error!(left = duties.len(), "duties do not end: cutting them off");
        duties.abort_all();
        while duties.join_next().await.is_some() {}
    }
}
