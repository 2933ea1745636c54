//! When which fault: everything from the seed. Each lane has its own order, its own pauses, its own
//! generator, so that what one lane meets does not change what another one does.

use std::sync::Arc;
use std::time::Duration;

use jepsen::history::Recorder;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Kind, Lane, Scene, able};
use crate::world::World;

/// How faults follow each other.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    pub seed: u64,
    pub faults: Vec<&'static Kind>,
    /// Pause between two faults of one lane.
    pub pause: (Duration, Duration),
    /// How long a fault is held.
    pub hold: (Duration, Duration),
}

impl Schedule {
    /// Pauses and holds of seconds, as they suit runs of half a minute and more.
    pub(crate) fn new(seed: u64, faults: Vec<&'static Kind>) -> Self {
        let millis = Duration::from_millis;
        Self {
            seed,
            faults,
            pause: (millis(500), millis(2000)),
            hold: (millis(1200), millis(3500)),
        }
    }

    /// The lanes that have something to do, each with its faults in the order of their turns.
    fn lanes(&self) -> Vec<(Lane, StdRng, Vec<&'static Kind>)> {
        let all = [Lane::Network, Lane::Members, Lane::Clock, Lane::Cluster];
        let lanes = all.into_iter().enumerate().map(|(number, lane)| {
            let seed = self.seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut rng = StdRng::seed_from_u64(seed);
            let faults = self.faults.iter().copied().filter(|kind| kind.lane == lane);
            let mut faults: Vec<_> = faults.collect();
            faults.shuffle(&mut rng);
            (lane, rng, faults)
        });
        lanes.filter(|(_, _, faults)| !faults.is_empty()).collect()
    }
}

/// How much longer than asked for faults may take to have had their first turn, all of them.
const FIRST_PASS_MAX: Duration = Duration::from_secs(60);

/// Runs all lanes for a while, and until every fault has had its turn; each lane heals what it did.
/// Gives what went wrong with faults themselves: it does not fail the run, but a fault that never
/// worked leaves a run without a verdict.
pub(crate) async fn unleash(
    schedule: &Schedule,
    world: &Arc<World>,
    recorder: &Recorder,
    time: Duration,
) -> Vec<String> {
    let (enough, over) = (CancellationToken::new(), CancellationToken::new());
    let mut lanes = JoinSet::new();
    let turn = Arc::default();
    for (lane, mut rng, faults) in schedule.lanes() {
        let scene = Scene {
            world: Arc::clone(world),
            recorder: recorder.clone(),
            rng: StdRng::seed_from_u64(rng.random()),
            over: over.clone(),
            name: "",
            hold: schedule.hold,
            turn: Arc::clone(&turn),
        };
        let run = Run { lane, faults, pause: schedule.pause, enough: enough.clone() };
        lanes.spawn(run.through(scene));
    }
    tokio::time::sleep(time).await;
    enough.cancel();
    let mut troubles = Vec::new();
    let last = tokio::time::sleep(FIRST_PASS_MAX);
    tokio::pin!(last);
    loop {
        tokio::select! {
            () = &mut last, if !over.is_cancelled() => over.cancel(),
            ended = lanes.join_next() => match ended {
                None => return troubles,
                Some(Ok(more)) => troubles.extend(more),
                Some(Err(panic)) => troubles.push(format!("a lane of faults panicked: {panic}")),
            },
        }
    }
}

/// One lane at work.
struct Run {
    lane: Lane,
    faults: Vec<&'static Kind>,
    pause: (Duration, Duration),
    /// Cancelled when the time is over.
    enough: CancellationToken,
}

impl Run {
    async fn through(self, mut scene: Scene) -> Vec<String> {
        let mut troubles = Vec::new();
        let turns = self.faults.iter().copied().cycle().enumerate();
        for (turn, kind) in turns {
            let first_pass = turn < self.faults.len();
            let millis = self.pause.0.as_millis()..=self.pause.1.as_millis();
            let millis = u64::try_from(scene.rng.random_range(millis)).unwrap_or(u64::MAX);
            scene.hold_for(Duration::from_millis(millis)).await;
            if scene.over.is_cancelled() || (self.enough.is_cancelled() && !first_pass) {
                break;
            }
            scene.name = kind.name;
            let ended = match able(&scene.world, kind.need) {
                Ok(()) => (kind.episode)(&mut scene).await,
                Err(why) => Err(anyhow::anyhow!(why)),
            };
            if let Err(why) = ended {
                troubles.push(format!("{:?}: {}: {why:#}", self.lane, kind.name));
                mend(&scene, kind, &format!("{why:#}"), &mut troubles);
            }
        }
        troubles
    }
}

/// What an episode leaves half done must not last until the end of the run.
fn mend(scene: &Scene, kind: &Kind, why: &str, troubles: &mut Vec<String>) {
    let fault = scene.recorder.fault(kind.name, &[]);
    fault.no_effect(why);
    if let Err(why) = scene.world.heal() {
        troubles.push(format!("cannot heal: {why:#}"));
    }
    for place in scene.world.places() {
        if let Err(why) = scene.world.start(place) {
            troubles.push(format!("cannot start m{}: {why:#}", place + 1));
        }
    }
    fault.healed();
}

/// One fault, by itself; what went wrong with it.
pub(crate) async fn once(
    kind: &'static Kind,
    world: &Arc<World>,
    recorder: &Recorder,
    seed: u64,
) -> Option<String> {
    if let Err(why) = able(world, kind.need) {
        return Some(why);
    }
    let schedule = Schedule::new(seed, vec![kind]);
    let mut scene = Scene {
        world: Arc::clone(world),
        recorder: recorder.clone(),
        rng: StdRng::seed_from_u64(seed),
        over: CancellationToken::new(),
        name: kind.name,
        hold: schedule.hold,
        turn: Arc::default(),
    };
    (kind.episode)(&mut scene).await.err().map(|why| format!("{why:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::named;

    #[test]
    fn one_seed_is_one_schedule() {
        let faults = named(&["all".to_owned()]).unwrap();
        let order = |seed| {
            let lanes = Schedule::new(seed, faults.clone()).lanes();
            let names = lanes.into_iter().map(|(_, _, faults)| faults);
            names.flatten().map(|kind| kind.name).collect::<Vec<_>>()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert_eq!(order(1).len(), faults.len());
    }
}
