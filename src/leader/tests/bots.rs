//! Leases of bots' assignments: which are taken back, and when.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::leader::http::HttpCaller;
use crate::leader::leases::plan;
use crate::leader::solo::Solo;
use crate::leader::{LeaderOptions, Leadership, Outward};
use crate::model::{AssignmentPlace, AssignmentState, DerivedId, Epoch, TimeMs};
use crate::state::{
    BotCommand, BotOutcome, BotSpec, BotWork, Command, LeaseScope, Outcome, Rejection, State,
};

const EPOCH: Epoch = Epoch { term: 1, member: 1 };

fn ask(solo: &Solo, command: BotCommand) -> Result<Outcome, Rejection> {
    solo.commit(Command::Bot(Box::new(command)))
}

/// A swarm of which every bot has something to do.
fn swarm(solo: &Solo, count: u32) -> DerivedId {
    let spec = BotSpec { tier: "standard".to_owned(), ..BotSpec::default() };
    let made = ask(solo, BotCommand::CreateSwarm { spec, count }).unwrap();
    let Outcome::Bot(BotOutcome::SwarmCreated { swarm, .. }) = made else { panic!("{made:?}") };
    ask(solo, BotCommand::AssignSwarm { swarm, work: BotWork::default() }).unwrap();
    swarm
}

/// Leases so many, and says when that ends.
fn lease(solo: &Solo, swarm: DerivedId, max: u32, lease_ms: u64) -> TimeMs {
    let scope = LeaseScope::Swarms(vec![swarm]);
    let holder = "w".to_owned();
    let types = Vec::new();
    let command = BotCommand::LeaseAssignments { holder, scope, max, lease_ms, types };
    let leased = ask(solo, command).unwrap();
    let Outcome::Bot(BotOutcome::Leased { deadline_ms, .. }) = leased else { panic!("{leased:?}") };
    deadline_ms
}

fn state_of(state: &State, index: u32) -> (AssignmentState, u32) {
    let place = AssignmentPlace { wave: 1, index };
    let view = state.assignment(place).unwrap();
    (view.state(), view.progress.map_or(0, |row| row.attempt))
}

#[test]
fn leases_are_taken_back_when_they_are_over_and_not_before() {
    let solo = Solo::new();
    solo.commit(Command::OpenEpoch(EPOCH)).unwrap();
    let swarm = swarm(&solo, 10);
    let places = |now, max| {
        let (leases, next) = plan(&solo.state.read(), now, max);
        (leases.iter().map(|lease| lease.place.index).collect::<Vec<_>>(), next)
    };
    assert_eq!(places(TimeMs::MAX, 100), (vec![], None));
    let soon = lease(&solo, swarm, 3, 10_000);
    let later = lease(&solo, swarm, 2, 60_000);
    let last = solo.state.read().counters().last_at_ms;
    for (now, max, due) in [
        (last + 4_999, 100, &[][..]),
        // Nobody has written for five seconds: what ends next makes time count.
        (last + 5_000, 100, &[0]),
        (soon, 100, &[0, 1, 2]),
        (soon, 2, &[0, 1]),
        // One entry counts for ten seconds at most, whatever its clock says.
        (later, 100, &[0, 1, 2]),
        (TimeMs::MAX, 100, &[0, 1, 2]),
    ] {
        assert_eq!(places(now, max), (due.to_vec(), Some(soon)), "at {now}, {max} at most");
    }
    // Planned by a clock that is ahead: apply judges by its own.
    let (leases, _) = plan(&solo.state.read(), soon, 100);
    let judged = ask(&solo, BotCommand::ExpireLeases { epoch: EPOCH, leases }).unwrap();
    assert_eq!(judged, Outcome::Judged { accepted: 0, stale: 3 });
}

#[tokio::test]
async fn the_leader_takes_leases_back_and_another_worker_gets_them() {
    let (solo, shutdown) = (Solo::new(), CancellationToken::new());
    let swarm = swarm(&solo, 3);
    solo.leading.send_replace(Some(1));
    let caller = Arc::new(HttpCaller::new().unwrap());
    let leadership = Leadership::new(LeaderOptions::default(), Outward::new(caller));
    let task = tokio::spawn({
        let (solo, shutdown, leadership) =
            (Arc::clone(&solo), shutdown.clone(), leadership.clone());
        async move { leadership.run(solo, shutdown).await }
    });
    // The short one is made after the long one: its end comes before what the duty waits for.
    lease(&solo, swarm, 1, 3_600_000);
    lease(&solo, swarm, 2, 30);
    solo.until("two leases are taken back", |state| {
        (1..3).all(|index| state_of(state, index) == (AssignmentState::Waiting, 1))
    })
    .await;
    assert_eq!(state_of(&solo.state.read(), 0), (AssignmentState::Leased, 1));
    lease(&solo, swarm, 3, 3_600_000);
    assert_eq!(state_of(&solo.state.read(), 1), (AssignmentState::Leased, 2));
    shutdown.cancel();
    task.await.unwrap();
    assert_eq!(leadership.metrics().leases_expired.get(), 2);
}
