//! When which fault: everything from the seed. Each lane has its own order, its own pauses, its own
//! generator, so that what one lane meets does not change what another one does.

use std::collections::VecDeque;
use std::iter::{Copied, Cycle};
use std::slice::Iter;
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

/// Turns of a fault that does nothing, at most, before the others come round again: in a short run it has no
/// other turn, and the run would show nothing of it.
const TRIES_MAX: u32 = 3;

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

/// Whose turn it is in a lane.
struct Turns<'a> {
    /// Those that have not had their first one, or did nothing in it.
    first: VecDeque<Turn>,
    /// Everybody, over and over.
    again: Cycle<Copied<Iter<'a, &'static Kind>>>,
}

#[derive(Clone, Copy)]
struct Turn {
    kind: &'static Kind,
    /// How often it is tried until it does something, with this turn; 0 when that is over.
    tries: u32,
}

impl<'a> Turns<'a> {
    fn new(faults: &'a [&'static Kind]) -> Self {
        let first = faults.iter().map(|kind| Turn { kind, tries: TRIES_MAX }).collect();
        Self { first, again: faults.iter().copied().cycle() }
    }

    fn next(&mut self) -> Option<Turn> {
        self.first.pop_front().or_else(|| Some(Turn { kind: self.again.next()?, tries: 0 }))
    }

    /// It comes once more, after the others.
    fn did_nothing(&mut self, turn: Turn) {
        if turn.tries > 1 {
            self.first.push_back(Turn { tries: turn.tries - 1, ..turn });
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
        let mut turns = Turns::new(&self.faults);
        while let Some(turn) = turns.next() {
            let kind = turn.kind;
            let millis = self.pause.0.as_millis()..=self.pause.1.as_millis();
            let millis = u64::try_from(scene.rng.random_range(millis)).unwrap_or(u64::MAX);
            scene.hold_for(Duration::from_millis(millis)).await;
            if scene.over.is_cancelled() || (self.enough.is_cancelled() && turn.tries == 0) {
                break;
            }
            scene.name = kind.name;
            let possible = able(&scene.world, kind.need);
            let is_possible = possible.is_ok();
            let ended = match possible {
                Ok(()) => (kind.episode)(&mut scene).await,
                Err(why) => Err(anyhow::anyhow!(why)),
            };
            if let Err(why) = ended {
                troubles.push(format!("{:?}: {}: {why:#}", self.lane, kind.name));
                mend(&scene, kind, &format!("{why:#}"), &mut troubles);
            }
            if is_possible && !scene.recorder.took_effect(kind.name) {
                turns.did_nothing(turn);
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

    #[test]
    fn a_fault_that_did_nothing_has_its_turn_again_before_the_rest_goes_round() {
        let faults = named(&["pause-leader".to_owned(), "kill-leader".to_owned()]).unwrap();
        let (idle, other) = (faults[0].name, faults[1].name);
        let mut turns = Turns::new(&faults);
        let mut order = Vec::new();
        for _ in 0..6 {
            let turn = turns.next().unwrap();
            order.push(turn.kind.name);
            if turn.kind.name == idle {
                turns.did_nothing(turn);
            }
        }
        assert_eq!(order, [idle, other, idle, idle, idle, other]);
    }
}
