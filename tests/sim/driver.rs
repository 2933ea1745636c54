//! One run: found a cluster, break it for a while in ways the seed decides, mend it, and see that
//! it is well again. The first part is for safety: whatever breaks, nothing may be wrong. The
//! second is for liveness: with nothing broken, everything must work soon.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate::clock;
use quorate::cluster::Cluster;
use quorate::model::{Mode, Node, NodeStatus, TaskStatus};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use turmoil::{Builder, Sim};

use crate::clients::IMPOSSIBLE;
use crate::faults::Ballot;
use crate::nodes::FLEET;
use crate::plan::{Plan, next_fault};
use crate::skew;
use crate::stage::{Order, Phase, Stage, name};

/// The longest a cluster may take to be founded, once nothing disturbs it.
const FOUNDING: Duration = Duration::from_secs(10);
/// The longest until every member with a place serves writes and reads again.
const SERVES_AGAIN: Duration = Duration::from_secs(5);
/// The longest until everybody votes again, members with a new disk included.
const SETTLES: Duration = Duration::from_secs(30);
/// The longest until the queue is empty and all members have applied the same.
const DRAINS: Duration = Duration::from_secs(60);
/// An order is given again after so long.
const ORDER_AGAIN: Duration = Duration::from_secs(2);

/// What came of a run.
pub(crate) struct Verdict {
    pub(crate) seed: u64,
    pub(crate) trace: u64,
    pub(crate) simulated: Duration,
    pub(crate) coverage: BTreeMap<&'static str, u64>,
    pub(crate) violations: Vec<String>,
}

/// Runs one seed. Only once per process: what ran before would leave its traces.
pub(crate) fn run(seed: u64, tune: Option<fn(&mut openraft::Config)>) -> Verdict {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x5155_4f52_4154_4521);
    let plan = Plan::draw(&mut rng, tune);
    simulate(seed, rng, &plan, Driver::play)
}

/// Runs a plan as `play` says.
pub(crate) fn simulate(
    seed: u64,
    rng: SmallRng,
    plan: &Plan,
    play: impl FnOnce(&mut Driver, &mut Sim<'_>),
) -> Verdict {
    clock::simulate_with(seed, skew::elapsed);
    let stage = Stage::new(seed, plan.clone());
    stage.book().trace(&format!("{plan:?}"));
    let mut builder = Builder::new();
    builder
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(1))
        .simulation_duration(plan.chaos + Duration::from_secs(600))
        .min_message_latency(Duration::from_micros(100))
        .max_message_latency(plan.latency_max)
        .tcp_capacity(1 << 16);
    let mut sim = builder.build();
    for place in 0..plan.places() {
        let stage = stage.clone();
        sim.host(name(place), move || stage.clone().run(place));
    }
    let mut driver = Driver::new(stage, rng);
    play(&mut driver, &mut sim);
    let book = driver.stage.book();
    book.cover_many("simulated_ms", sim.elapsed().as_millis() as u64);
    Verdict {
        seed,
        trace: book.trace_hash(),
        simulated: sim.elapsed(),
        coverage: book.coverage(),
        violations: book.violations(),
    }
}

pub(crate) struct Driver {
    pub(crate) stage: Stage,
    pub(crate) rng: SmallRng,
    pub(crate) places: usize,
    /// Places whose member was started once; spare ones join later.
    pub(crate) started: Vec<bool>,
    /// When a crashed member starts again.
    pub(crate) revive_at: Vec<Option<Duration>>,
    /// When a disk is well again, or its power is cut.
    pub(crate) disk_until: Vec<Option<Duration>>,
    /// When the network is whole again.
    pub(crate) heal_at: Option<Duration>,
    /// Members whose power is cut at that moment.
    pub(crate) doomed: Option<(Duration, Vec<usize>)>,
    /// An election that somebody is going to crash in.
    pub(crate) ballot: Option<Ballot>,
    /// A place whose disk was lost and whose new member does not vote yet.
    pub(crate) replacing: Option<usize>,
}

impl Driver {
    fn new(stage: Stage, rng: SmallRng) -> Self {
        let places = stage.plan.places();
        Self {
            rng,
            places,
            started: vec![true; places],
            revive_at: vec![None; places],
            disk_until: vec![None; places],
            heal_at: None,
            doomed: None,
            ballot: None,
            replacing: None,
            stage,
        }
    }

    fn play(&mut self, sim: &mut Sim<'_>) {
        for place in self.stage.plan.founders..self.places {
            sim.crash(name(place));
            self.started[place] = false;
        }
        self.found(sim);
        if self.stage.book().violated() {
            return;
        }
        *self.stage.phase.lock() = Phase::Chaos;
        let until = sim.elapsed() + self.stage.plan.chaos;
        let mut next = sim.elapsed();
        while sim.elapsed() < until && !self.stage.book().violated() {
            self.step(sim);
            if sim.elapsed() >= next {
                if let Some(fault) = next_fault(self.stage.plan.faults, &mut self.rng) {
                    self.inject(sim, fault);
                }
                let pause = self.rng.random_range(20..self.stage.plan.pause_max_ms);
                next = sim.elapsed() + Duration::from_millis(pause);
            }
            self.mend_what_is_due(sim);
        }
        if !self.stage.book().violated() {
            self.recover(sim);
        }
    }

    pub(crate) fn found(&mut self, sim: &mut Sim<'_>) {
        if self.stage.plan.faults.founding {
            let until = sim.elapsed() + Duration::from_millis(self.rng.random_range(300..3000));
            while sim.elapsed() < until && !self.stage.book().violated() {
                self.step(sim);
                if self.rng.random_ratio(1, 250) {
                    let place = self.rng.random_range(0..self.stage.plan.founders);
                    self.crash(sim, place);
                    self.stage.book().cover("crashes_while_founding");
                }
                self.mend_what_is_due(sim);
            }
        }
        let founded = self.step_until(sim, FOUNDING, |driver, sim| {
            driver.mend_what_is_due(sim);
            driver.leader().is_some()
        });
        if !founded {
            self.stage.book().violation("a cluster is founded in time", "nobody leads");
        }
    }

    /// The second part: nothing is broken any more.
    pub(crate) fn recover(&mut self, sim: &mut Sim<'_>) {
        self.mend_everything(sim);
        // Whoever has no place yet, or lost it with its disk, joins first.
        let due: Vec<usize> =
            (0..self.places).filter(|place| self.stage.places.lock()[*place].seated).collect();
        let served = |driver: &mut Self, sim: &mut Sim<'_>| {
            driver.mend_what_is_due(sim);
            let places = driver.stage.places.lock();
            due.iter().all(|place| places[*place].served || !places[*place].seated)
        };
        let healed = sim.elapsed();
        if !self.step_until(sim, SERVES_AGAIN, served) {
            let places = self.stage.places.lock();
            let served: Vec<bool> = places.iter().map(|place| place.served).collect();
            drop(places);
            let late = format!("after {:?}: {served:?}", sim.elapsed() - healed);
            return self.stage.book().violation("a healed cluster serves in time", &late);
        }
        let mut ordered = sim.elapsed();
        let settled = self.step_until(sim, SETTLES, |driver, sim| {
            driver.mend_what_is_due(sim);
            if sim.elapsed() >= ordered + ORDER_AGAIN {
                ordered = sim.elapsed();
                driver.promote_the_demoted();
            }
            driver.all_vote()
        });
        if !settled {
            let who = self.who_votes();
            let late = format!("voters {:?}, members {:?}", who.0, who.1);
            return self.stage.book().violation("everybody votes again", &late);
        }
        if !self.step_until(sim, DRAINS, |driver, _| driver.drained()) {
            let left = self.what_is_left();
            return self.stage.book().violation("the queue drains", &left);
        }
        let members: Vec<Cluster> = (0..self.places)
            .filter_map(|place| self.stage.running(place))
            .map(|(_, m)| m)
            .collect();
        let clocks = !self.stage.plan.faults.skew && !self.stage.plan.faults.sleep;
        self.stage.invariants.judge(&members, &self.stage.nodes.never_stopped(), clocks);
    }

    /// One tick of the world, and a look at everybody.
    pub(crate) fn step(&mut self, sim: &mut Sim<'_>) {
        if let Err(error) = sim.step() {
            self.stage.book().violation("the simulation goes on", &error.to_string());
        }
        for place in 0..self.places {
            if let Some((process, member)) = self.stage.running(place) {
                self.stage.places.lock()[place].seated |= member.view().digest().0 > 0;
                self.stage.invariants.observe(process, &member);
            }
        }
    }

    fn step_until(
        &mut self,
        sim: &mut Sim<'_>,
        limit: Duration,
        mut done: impl FnMut(&mut Self, &mut Sim<'_>) -> bool,
    ) -> bool {
        let deadline = sim.elapsed() + limit;
        while sim.elapsed() < deadline {
            self.step(sim);
            if done(self, sim) || self.stage.book().violated() {
                return true;
            }
        }
        false
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        (0..self.places).find(|place| {
            let running = self.stage.running(*place);
            running.is_some_and(|(_, member)| member.leadership().borrow().is_some())
        })
    }

    /// Who votes, as the leader has it, and the number of the member at each place.
    pub(crate) fn who_votes(&self) -> (BTreeSet<u64>, Vec<u64>) {
        let member_ids = (0..self.places)
            .map(|place| self.stage.running(place).map_or(0, |(_, member)| member.member_id()));
        let leader = self.leader().and_then(|place| self.stage.running(place));
        let voters = leader.map(|(_, member)| {
            member.view().membership().membership().voter_ids().collect::<BTreeSet<u64>>()
        });
        (voters.unwrap_or_default(), member_ids.collect())
    }

    fn all_vote(&mut self) -> bool {
        let (voters, members) = self.who_votes();
        let seated: BTreeSet<u64> = (0..self.places)
            .filter(|place| self.started[*place])
            .map(|place| members[place])
            .collect();
        voters == seated
    }

    /// What an operator demoted, an operator promotes.
    fn promote_the_demoted(&self) {
        let (voters, members) = self.who_votes();
        let orders = members.into_iter().filter(|id| *id != 0 && !voters.contains(id));
        let orders = orders.filter(|_| self.stage.plan.faults.churn);
        self.stage.orders.lock().extend(orders.map(|member_id| Order::Promote { member_id }));
    }

    fn drained(&self) -> bool {
        let mut ends = BTreeSet::new();
        for (_, member) in (0..self.places).filter_map(|place| self.stage.running(place)) {
            let done = member.view().read(|state| {
                let open = [
                    TaskStatus::Retrying,
                    TaskStatus::Assigned,
                    TaskStatus::Running,
                    TaskStatus::Waiting,
                    TaskStatus::Stepping,
                ];
                let busy = open.into_iter().any(|status| state.tasks_in(status) > 0)
                    || state.due_deliveries_len() > 0
                    // Leases of those who died ran out, and services were called.
                    || state.next_lease_end_ms().is_some()
                    || state.running_workflows().next().is_some();
                // Whoever was taken out or drained is back as well.
                let is_active = |node: &&Node| node.status == NodeStatus::Active;
                let is_back = state.holders_of_work().filter(is_active).count() == FLEET;
                let mut orchestrators = state.orchestrators();
                let rest = orchestrators
                    .all(|row| row.mode == Mode::Manual && row.open_run.is_none())
                    && state.schedules().all(|schedule| schedule.closings.is_empty());
                !busy
                    && is_back
                    && rest
                    && state.queue().all(|task| !task.requirements.capabilities.is_empty())
            });
            if !done {
                return false;
            }
            ends.insert(member.view().digest().0);
        }
        ends.len() == 1
    }

    fn what_is_left(&self) -> String {
        let members = (0..self.places).filter_map(|place| self.stage.running(place));
        let left = members.map(|(process, member)| {
            let counts: Vec<_> = member.view().read(|state| {
                let count = |status: TaskStatus| (status.as_str(), state.tasks_in(status));
                TaskStatus::ALL.into_iter().map(count).collect()
            });
            let at = member.view().digest().0;
            let (due, fleet) = member.view().read(|state| {
                let fleet = state.holders_of_work();
                let fleet: Vec<_> = fleet.map(|node| (node.node_id.clone(), node.status)).collect();
                (state.due_deliveries_len(), fleet)
            });
            let steps: Vec<_> = member.view().read(|state| {
                let all = state.orchestrators();
                all.map(|row| (row.name.clone(), row.mode, row.open_run)).collect()
            });
            let place = process.place;
            format!(
                "place {place} at {at:?}: {counts:?}, {due} deliveries due, {fleet:?}, {steps:?}"
            )
        });
        format!("{:?} ({IMPOSSIBLE} tasks stay pending)", left.collect::<Vec<_>>())
    }
}
