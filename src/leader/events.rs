//! Follows the member's events and wakes the duties they concern.

use std::sync::Arc;

use tokio::time::Instant;

use super::duty::{DutyError, Reign};
use super::metrics::DutyName;
use super::seat::{Feed, Happened, Seat};
use crate::state::{BotFact, Fact};

/// Works until the reign ends.
///
/// # Errors
/// [`DutyError`] when there are no more events: the member stops.
pub(super) async fn follow<S: Seat>(
    reign: Arc<Reign<S>>,
    mut feed: S::Feed,
) -> Result<(), DutyError> {
    loop {
        let happened = tokio::select! {
            biased;
            () = reign.ended.cancelled() => return Ok(()),
            happened = feed.next() => happened,
        };
        let started = Instant::now();
        match happened {
            Happened::Events(events) => {
                for event in &events {
                    note(&reign, &event.fact);
                }
            }
            Happened::Gap => {
                reign.metrics.event_gaps.add(1);
                wake_all(&reign);
            }
            Happened::Closed => return Err(DutyError::Failed("the events ended".to_owned())),
        }
        reign.metrics.went_round(DutyName::Events, started.elapsed());
    }
}

fn wake_all<S>(reign: &Reign<S>) {
    let wakes = &reign.wakes;
    for wake in [
        &wakes.timers,
        &wakes.liveness,
        &wakes.scheduler,
        &wakes.reaper,
        &wakes.courier,
        &wakes.watch,
        &wakes.autoscaler,
        &wakes.prober,
        &wakes.campaigns,
        &wakes.leases,
        &wakes.workflows,
    ] {
        wake.notify_one();
    }
}

fn note<S>(reign: &Reign<S>, fact: &Fact) {
    let (wakes, fleet) = (&reign.wakes, &reign.fleet);
    match fact {
        Fact::TaskSubmitted { .. }
        | Fact::TaskQueued { .. }
        | Fact::TaskEnded { .. }
        | Fact::StepsOpened { .. } => {
            wakes.scheduler.notify_one();
        }
        Fact::TaskRetried { .. } => {
            // Either it is back in the queue, or there is a back-off that may end soon.
            wakes.scheduler.notify_one();
            wakes.timers.notify_one();
        }
        Fact::NodeRegistered { node_id, new: _ } => {
            fleet.changed(node_id);
            fleet.reached(node_id);
            wakes.scheduler.notify_one();
        }
        Fact::NodeStatusChanged { node_id, .. } => {
            fleet.changed(node_id);
            wakes.scheduler.notify_one();
        }
        Fact::NodeRemoved { node_id } => {
            fleet.forget(node_id);
            wakes.scheduler.notify_one();
        }
        Fact::ConfigChanged { .. } => wake_all(reign),
        Fact::EpochOpened { .. }
        | Fact::TaskAssigned { .. }
        | Fact::TaskStarted { .. }
        | Fact::TasksRetired { .. }
        | Fact::MemberChanged { .. }
        | Fact::DrillBegun { .. }
        | Fact::DrillEnded { .. }
        | Fact::PipelineChanged { .. }
        | Fact::NodeDrained { .. }
        | Fact::DeliveryEnded { .. }
        | Fact::AlertChanged { .. } => {}
        Fact::DeliveryQueued { .. } => wakes.courier.notify_one(),
        Fact::ScalingDecided { .. } => wakes.autoscaler.notify_one(),
        Fact::Campaign(_) => wakes.campaigns.notify_one(),
        Fact::Bot(BotFact::AssignmentsLeased { .. }) => wakes.leases.notify_one(),
        Fact::Bot(BotFact::WorkflowChanged { .. }) => wakes.workflows.notify_one(),
        Fact::Bot(_) => {}
    }
}
