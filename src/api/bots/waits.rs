//! Whoever waits: for work, or for the end of a workflow. One task follows the events of this member
//! and rings; whoever waits then looks at the state by itself. A place is needed to wait, so that
//! those who wait never keep others from being served.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::api::App;
use crate::api::error::ApiError;
use crate::state::{BotFact, Fact};
use crate::storage::{EventBatch, EventFollower};

/// Events taken in one step.
const BATCH_MAX: usize = 256;
/// The least time from one look to the next; doubled by each that finds nothing.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// A look is taken after so long, whatever rang.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Those that waited and ask for a lease at once. The others look again when it is their turn, so
/// that a thousand who wait for one assignment do not all write into the log.
const TURNS: usize = 16;

/// What is rung for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bell {
    /// There may be assignments that nobody holds.
    Work,
    /// Assignments came, went or moved.
    Assignments,
    /// A workflow moved.
    Workflows,
}

impl Bell {
    const ALL: [Self; 3] = [Self::Work, Self::Assignments, Self::Workflows];

    /// Whether a fact rings it.
    fn hears(self, fact: &Fact) -> bool {
        let Fact::Bot(fact) = fact else { return false };
        match fact {
            BotFact::WorkflowChanged { .. } => self == Self::Workflows,
            BotFact::BotCreated { .. } | BotFact::SwarmCreated { .. } => false,
            BotFact::AssignmentsLeased { .. } | BotFact::AssignmentsReported { retried: 0, .. } => {
                self == Self::Assignments
            }
            BotFact::AssignmentsReported { .. }
            | BotFact::BotRemoved { .. }
            | BotFact::SwarmScaled { .. }
            | BotFact::SwarmRemoved { .. }
            | BotFact::BotAssigned { .. }
            | BotFact::SwarmAssigned { .. }
            | BotFact::AssignmentsReleased { .. } => self != Self::Workflows,
        }
    }
}

/// See the module's description.
#[derive(Debug)]
pub(in crate::api) struct Waits {
    bells: [watch::Sender<()>; Bell::ALL.len()],
    places: Semaphore,
    turns: Semaphore,
}

impl Waits {
    /// With places for `max` that wait.
    pub(in crate::api) fn new(max: usize) -> Self {
        let bells = Bell::ALL.map(|_| watch::Sender::default());
        Self { bells, places: Semaphore::new(max.max(1)), turns: Semaphore::new(TURNS) }
    }

    /// A place to wait.
    ///
    /// # Errors
    /// 503 when all of them are taken.
    pub(super) fn enter(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        let full = |_| ApiError::unavailable("TOO_MANY_WAITING", "too many requests wait", 1);
        self.places.try_acquire().map_err(full)
    }

    /// The turn of one that has waited.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    fn of(&self, bell: Bell) -> &watch::Sender<()> {
        &self.bells[bell as usize]
    }
}

/// Rings until the member closes.
pub(in crate::api) async fn follow(
    waits: Arc<Waits>,
    mut follower: EventFollower,
    closing: CancellationToken,
) {
    loop {
        let batch = tokio::select! {
            biased;
            () = closing.cancelled() => return,
            batch = follower.next(BATCH_MAX) => batch,
        };
        for bell in Bell::ALL {
            let heard = match &batch {
                // What happened is unknown, so it may be anything.
                EventBatch::Gap { .. } => true,
                EventBatch::Events(events) => events.iter().any(|event| bell.hears(&event.fact)),
            };
            if heard {
                waits.of(bell).send_replace(());
            }
        }
    }
}

/// Looks now and whenever `bell` rings, until `look` finds something; `None` when it has not by
/// `until`, or when the member closes.
pub(super) async fn look_until<T>(
    app: &App,
    bell: Bell,
    until: Instant,
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    let mut rung = app.waits().of(bell).subscribe();
    let mut pause = PAUSE;
    loop {
        // What happens from here on rings; what has happened is seen.
        rung.borrow_and_update();
        if let Some(found) = look() {
            return Some(found);
        }
        let looked = Instant::now();
        let silence = sleep_until(until.min(looked + LOOK_AGAIN));
        tokio::select! {
            biased;
            () = app.closing().cancelled() => return None,
            // The sender lives as long as the app.
            _ = rung.changed() => sleep_until(until.min(looked + pause)).await,
            () = silence => {}
        }
        if Instant::now() >= until {
            return look();
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_work_is_woken_by_work_only() {
        let reported =
            |retried| BotFact::AssignmentsReported { completed: 1, failed: 1, retried, task: None };
        let leased = BotFact::AssignmentsLeased { holder: String::new(), count: 1 };
        let released = BotFact::AssignmentsReleased { count: 1 };
        for (fact, work) in
            [(reported(0), false), (reported(1), true), (leased, false), (released, true)]
        {
            let fact = Fact::Bot(fact);
            let heard = Bell::ALL.map(|bell| bell.hears(&fact));
            assert_eq!(heard, [work, true, false], "{fact:?}");
        }
    }

    #[test]
    fn places_to_wait_are_bounded() {
        let waits = Waits::new(1);
        let place = waits.enter().unwrap();
        assert_eq!(waits.enter().unwrap_err().code(), "TOO_MANY_WAITING");
        drop(place);
        assert!(waits.enter().is_ok());
    }
}
