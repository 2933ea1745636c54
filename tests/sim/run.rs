//! One run: found a cluster, break it for a while in ways the seed decides, heal it, judge it.

use std::time::Duration;

use parking_lot::Mutex;
use quorate::clock;
use quorate::storage::{SimDisk, SimOptions};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use turmoil::{Builder, Sim};

use crate::member::{Plan, Stage, name};
use crate::oracle::{Coverage, Oracle};

const MEMBERS: usize = 3;
/// The longest a cluster may take to be founded.
const FOUNDING: Duration = Duration::from_secs(10);
/// The longest a healed cluster may take until every member serves a write.
const SERVES_AGAIN: Duration = Duration::from_secs(12);
/// The longest until all members have applied the same.
const CONVERGES: Duration = Duration::from_secs(30);

/// What came of a run.
pub(crate) struct Verdict {
    pub(crate) seed: u64,
    pub(crate) trace: u64,
    pub(crate) simulated: Duration,
    pub(crate) coverage: Coverage,
    pub(crate) violations: Vec<String>,
}

/// Runs one seed. Only once per process: what ran before would leave its traces.
pub(crate) fn run(seed: u64, tune: Option<fn(&mut openraft::Config)>) -> Verdict {
    clock::simulate_with(seed, || turmoil::sim_elapsed().unwrap_or_default());
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x5155_4f52_4154_4521);
    let stage = stage(seed, tune, &mut rng);
    let mut builder = Builder::new();
    builder
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(1))
        .simulation_duration(Duration::from_secs(600))
        .min_message_latency(Duration::from_micros(100))
        .max_message_latency(Duration::from_millis(rng.random_range(1..12)))
        .tcp_capacity(1 << 16);
    let mut sim = builder.build();
    for place in 0..MEMBERS {
        let stage = stage.clone();
        sim.host(name(place), move || stage.clone().run(place));
    }
    let mut driver = Driver {
        stage,
        rng,
        revive_at: [None; MEMBERS],
        heal_at: None,
        chaos_until: Duration::ZERO,
    };
    driver.play(&mut sim);
    let oracle = &driver.stage.oracle;
    Verdict {
        seed,
        trace: oracle.trace_hash(),
        simulated: sim.elapsed(),
        coverage: oracle.coverage(),
        violations: oracle.violations(),
    }
}

fn stage(seed: u64, tune: Option<fn(&mut openraft::Config)>, rng: &mut SmallRng) -> Stage {
    // From a fast disk to one slow enough that tails are long when the power goes.
    let slowest = Duration::from_micros(rng.random_range(500..15_000));
    let disks = (0..MEMBERS as u64).map(|place| {
        SimDisk::new(SimOptions {
            seed: seed.wrapping_mul(31).wrapping_add(place),
            flush_min: Duration::from_micros(100),
            flush_max: slowest,
            ..SimOptions::default()
        })
    });
    Stage {
        oracle: Oracle::default(),
        plan: Plan {
            snapshot_every: rng.random_range(40..400),
            keep: rng.random_range(1..40),
            propose_timeout: Duration::from_millis(rng.random_range(200..4000)),
            tune,
        },
        members: Arc::new(Mutex::new(vec![None; MEMBERS])),
        disks: Arc::new(disks.collect()),
        quiet: Arc::new(Mutex::new(false)),
        hand_over: Arc::new(Mutex::new(false)),
        probed: Arc::new(Mutex::new(vec![false; MEMBERS])),
        serial: Arc::new(Mutex::new(0)),
    }
}

struct Driver {
    stage: Stage,
    rng: SmallRng,
    /// When a crashed member starts again.
    revive_at: [Option<Duration>; MEMBERS],
    /// When the network is whole again.
    heal_at: Option<Duration>,
    chaos_until: Duration,
}

impl Driver {
    fn play(&mut self, sim: &mut Sim<'_>) {
        if !self.step_until(sim, FOUNDING, |driver| driver.leader().is_some()) {
            return self.stage.oracle.violation("no cluster was founded in time".to_owned());
        }
        self.chaos_until =
            sim.elapsed() + Duration::from_millis(self.rng.random_range(6000..14_000));
        let mut next_fault = sim.elapsed();
        while sim.elapsed() < self.chaos_until {
            self.step(sim);
            if sim.elapsed() >= next_fault {
                self.break_something(sim);
                next_fault = sim.elapsed() + Duration::from_millis(self.rng.random_range(20..700));
            }
            self.mend_what_is_due(sim);
            if !self.stage.oracle.violations().is_empty() {
                return;
            }
        }
        self.mend_everything(sim);
        *self.stage.quiet.lock() = true;
        let healed = sim.elapsed();
        if !self
            .step_until(sim, SERVES_AGAIN, |driver| driver.stage.probed.lock().iter().all(|p| *p))
        {
            let probed = self.stage.probed.lock().clone();
            let late = format!(
                "{:?} after the faults ended, these members serve: {probed:?}",
                sim.elapsed() - healed
            );
            return self.stage.oracle.violation(late);
        }
        if !self.step_until(sim, CONVERGES, Self::converged) {
            return self
                .stage
                .oracle
                .violation("members did not come to the same index".to_owned());
        }
        let members: Vec<_> = (0..MEMBERS).filter_map(|place| self.stage.running(place)).collect();
        let members: Vec<_> = members.into_iter().map(|(_, member)| member).collect();
        self.stage.oracle.judge(&members);
    }

    /// One tick of the world, and a look at everybody.
    fn step(&mut self, sim: &mut Sim<'_>) {
        if let Err(error) = sim.step() {
            self.stage.oracle.violation(format!("the simulation failed: {error}"));
        }
        let mut snapshots = 0;
        for place in 0..MEMBERS {
            if let Some((_, member)) = self.stage.running(place) {
                self.stage.oracle.observe(&member);
                snapshots += member.metrics().snapshots_installed;
            }
        }
        self.stage.oracle.cover(|coverage| coverage.snapshots = coverage.snapshots.max(snapshots));
    }

    fn step_until(
        &mut self,
        sim: &mut Sim<'_>,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let deadline = sim.elapsed() + limit;
        while sim.elapsed() < deadline {
            self.step(sim);
            if done(self) {
                return true;
            }
            if !self.stage.oracle.violations().is_empty() {
                return true;
            }
        }
        false
    }

    fn leader(&self) -> Option<usize> {
        (0..MEMBERS).find(|place| {
            let running = self.stage.running(*place);
            running.is_some_and(|(_, member)| member.leadership().borrow().is_some())
        })
    }

    fn converged(&mut self) -> bool {
        let applied: Vec<_> = (0..MEMBERS)
            .filter_map(|place| self.stage.running(place))
            .map(|(_, member)| member.view().digest().0)
            .collect();
        applied.len() == MEMBERS && applied.windows(2).all(|pair| pair[0] == pair[1])
    }

    fn break_something(&mut self, sim: &mut Sim<'_>) {
        let any = self.rng.random_range(0..MEMBERS);
        let leader = self.leader().unwrap_or(any);
        match self.rng.random_range(0..100) {
            0..30 => self.crash(sim, leader),
            30..45 => self.crash(sim, any),
            45..50 => (0..MEMBERS).for_each(|place| self.crash(sim, place)),
            50..60 => self.isolate(sim, leader),
            60..70 => self.isolate(sim, any),
            70..80 => self.one_way(sim, any),
            80..90 => self.hold(sim, any),
            _hand_over => *self.stage.hand_over.lock() = true,
        }
    }

    fn crash(&mut self, sim: &mut Sim<'_>, place: usize) {
        if self.revive_at[place].is_some() {
            return;
        }
        let torn = self.stage.disks[place].unflushed() > 0;
        self.stage.oracle.trace(&format!("crash {place} at {:?}, torn: {torn}", sim.elapsed()));
        self.stage.oracle.cover(|coverage| {
            coverage.crashes += 1;
            coverage.torn_crashes += u64::from(torn);
        });
        if let Some(member) = self.stage.members.lock()[place].take() {
            self.stage.oracle.restarted(member.member_id());
        }
        sim.crash(name(place));
        self.stage.disks[place].crash();
        // Half of them are back before anybody misses them.
        let down = match self.rng.random_range(0..2) {
            0 => self.rng.random_range(1..60),
            _longer => self.rng.random_range(60..2500),
        };
        self.revive_at[place] = Some(sim.elapsed() + Duration::from_millis(down));
    }

    fn isolate(&mut self, sim: &mut Sim<'_>, place: usize) {
        self.cut(sim, "isolate", place, |sim, a, b| sim.partition(a, b));
    }

    fn one_way(&mut self, sim: &mut Sim<'_>, place: usize) {
        let inward = self.rng.random_bool(0.5);
        self.cut(sim, "one-way", place, |sim, a, b| {
            if inward { sim.partition_oneway(b, a) } else { sim.partition_oneway(a, b) }
        });
    }

    fn hold(&mut self, sim: &mut Sim<'_>, place: usize) {
        self.cut(sim, "hold", place, |sim, a, b| sim.hold(a, b));
    }

    /// Does something to the links between one member and the others, for a while.
    fn cut(
        &mut self,
        sim: &mut Sim<'_>,
        what: &str,
        place: usize,
        cut: impl Fn(&Sim<'_>, String, String),
    ) {
        if self.heal_at.is_some() {
            return;
        }
        self.stage.oracle.trace(&format!("{what} {place} at {:?}", sim.elapsed()));
        self.stage.oracle.cover(|coverage| coverage.partitions += 1);
        for other in (0..MEMBERS).filter(|other| *other != place) {
            cut(sim, name(place), name(other));
        }
        let lasts = Duration::from_millis(self.rng.random_range(50..2500));
        self.heal_at = Some(sim.elapsed() + lasts);
    }

    fn mend_what_is_due(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        for place in 0..MEMBERS {
            if self.revive_at[place].is_some_and(|at| at <= now) {
                self.revive_at[place] = None;
                sim.bounce(name(place));
            }
        }
        if self.heal_at.is_some_and(|at| at <= now) {
            self.heal_at = None;
            self.repair(sim);
        }
    }

    fn repair(&mut self, sim: &mut Sim<'_>) {
        for one in 0..MEMBERS {
            for other in one + 1..MEMBERS {
                sim.release(name(one), name(other));
                sim.repair(name(one), name(other));
            }
        }
    }

    fn mend_everything(&mut self, sim: &mut Sim<'_>) {
        self.stage.oracle.trace(&format!("mend at {:?}", sim.elapsed()));
        *self.stage.hand_over.lock() = false;
        self.repair(sim);
        for place in 0..MEMBERS {
            if self.revive_at[place].take().is_some() {
                sim.bounce(name(place));
            }
        }
    }
}
