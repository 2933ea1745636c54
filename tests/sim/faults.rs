//! How each fault is made, and how it ends.

use std::time::Duration;

use quorate::storage::SimFault;
use rand::RngExt;
use turmoil::Sim;

use crate::driver::Driver;
use crate::nodes::FLEET;
use crate::plan::Fault;
use crate::skew;
use crate::stage::{Order, Phase, name};

/// A member that is removed ends by itself.
const REMOVED: &str = "it is being removed";
/// A member whose disk fails ends by itself.
const DISK: &str = "its disk fails";
/// A member whose log is gone must not start.
const LOST_LOG: &str = "its disk lost the log";

/// An election in which somebody is to crash, right after doing what must be durable first.
pub(crate) struct Ballot {
    /// Terms above this one are new.
    term: u64,
    /// Whoever is elected is to crash, and not whoever votes.
    elected: bool,
    /// When it is too late.
    until: Duration,
}

impl Driver {
    pub(crate) fn inject(&mut self, sim: &mut Sim<'_>, fault: Fault) {
        let any = self.rng.random_range(0..self.places);
        let leader = self.leader().unwrap_or(any);
        match fault {
            Fault::CrashLeader => self.crash(sim, leader),
            Fault::CrashOne => self.crash(sim, any),
            Fault::CrashMajority => {
                let first = self.rng.random_range(0..self.places);
                let count = self.places / 2 + 1;
                (0..count).for_each(|n| self.crash(sim, (first + n) % self.places));
            }
            Fault::CrashAll => (0..self.places).for_each(|place| self.crash(sim, place)),
            Fault::LagThenCrash => self.lag_then_crash(sim, leader),
            Fault::ElectionThenCrash => self.election_then_crash(sim),
            Fault::IsolateLeader => self.isolate(sim, &[leader]),
            Fault::IsolateOne => self.isolate(sim, &[any]),
            Fault::OneWay => {
                let inward = self.rng.random_bool(0.5);
                self.cut(sim, "one-way", &[any], |sim, a, b| {
                    if inward { sim.partition_oneway(b, a) } else { sim.partition_oneway(a, b) }
                });
            }
            Fault::Hold => self.cut(sim, "hold", &[any], |sim, a, b| sim.hold(a, b)),
            Fault::HandOver => self.order(Order::HandOver),
            Fault::Churn => self.churn(sim, any),
            Fault::LoseDisk => self.lose_disk(sim, any),
            Fault::DiskError => self.break_disk(sim, any),
            Fault::SlowDisk => self.slow_disk(sim, any),
            Fault::Skew => {
                let ahead = skew::SKEW_MAX.mul_f64(self.rng.random_range(0.0..1.0));
                self.stage.book().trace(&format!("clock {any} is {ahead:?} ahead"));
                self.stage.book().cover("clock_steps");
                skew::set(any, ahead);
            }
            Fault::Sleep => {
                let lost = Duration::from_millis(self.rng.random_range(8_000..30_000));
                self.stage.book().trace(&format!("everybody sleeps for {lost:?}"));
                self.stage.book().cover("sleeps");
                skew::sleep(lost);
            }
            Fault::Snapshot => self.order(Order::Snapshot { place: any }),
            Fault::SnapshotThenCrash => {
                self.order(Order::Snapshot { place: any });
                let at = sim.elapsed() + Duration::from_millis(self.rng.random_range(20..60));
                self.doomed.get_or_insert_with(|| (at, vec![any]));
            }
            Fault::NodeDown => {
                let any = self.rng.random_range(0..FLEET);
                self.stage.book().trace(&format!("node {any} goes or comes"));
                self.stage.book().cover("node_turns");
                self.stage.nodes.toggle(any);
            }
        }
    }

    fn order(&mut self, order: Order) {
        let mut orders = self.stage.orders.lock();
        if orders.len() < 4 && !orders.contains(&order) {
            orders.push_back(order);
        }
    }

    pub(crate) fn crash(&mut self, sim: &mut Sim<'_>, place: usize) {
        // Half of them are back before anybody misses them.
        let down = match self.rng.random_range(0..2) {
            0 => self.rng.random_range(1..60),
            _longer => self.rng.random_range(60..2500),
        };
        self.crash_for(sim, place, Duration::from_millis(down));
    }

    fn crash_for(&mut self, sim: &mut Sim<'_>, place: usize, down: Duration) {
        if self.revive_at[place].is_some() || !self.started[place] {
            return;
        }
        let book = self.stage.book();
        let torn = self.stage.disks[place].unflushed() > 0;
        book.trace(&format!("crash {place} at {:?}, torn: {torn}", sim.elapsed()));
        book.cover("crashes");
        book.cover_many("torn_crashes", u64::from(torn));
        {
            let here = &mut self.stage.places.lock()[place];
            here.member = None;
            if here.excuse == Some(DISK) {
                here.excuse = None;
            }
        }
        sim.crash(name(place));
        self.stage.disks[place].crash();
        self.disk_until[place] = None;
        self.revive_at[place] = Some(sim.elapsed() + down);
    }

    /// Nodes with the newest entries go down while those that lag come back.
    fn lag_then_crash(&mut self, sim: &mut Sim<'_>, leader: usize) {
        if self.doomed.is_some() || self.heal_at.is_some() {
            return;
        }
        let laggards = (self.places - 1) / 2;
        let lagging: Vec<usize> = (1..=laggards).map(|n| (leader + n) % self.places).collect();
        let others = (0..self.places).filter(|place| !lagging.contains(place)).collect();
        self.isolate(sim, &lagging);
        let lag = Duration::from_millis(self.rng.random_range(100..900));
        self.heal_at = Some(sim.elapsed() + lag);
        self.doomed = Some((sim.elapsed() + lag, others));
        self.stage.book().cover("lag_then_crash");
    }

    /// A vote that was given, or an election that was won, before it was durable is forgotten now,
    /// and given or won again in the same term.
    fn election_then_crash(&mut self, sim: &mut Sim<'_>) {
        let Some(leader) = self.leader() else { return };
        let Some((_, member)) = self.stage.running(leader) else { return };
        if self.ballot.is_some() {
            return;
        }
        let until = sim.elapsed() + Duration::from_secs(3);
        self.ballot = Some(Ballot { term: member.term(), elected: self.rng.random(), until });
        let down = self.rng.random_range(500..2500);
        self.crash_for(sim, leader, Duration::from_millis(down));
    }

    fn crash_who_voted(&mut self, sim: &mut Sim<'_>) {
        let Some(ballot) = &self.ballot else { return };
        if ballot.until <= sim.elapsed() {
            self.ballot = None;
            return;
        }
        let victim = (0..self.places).find(|place| {
            self.stage.running(*place).is_some_and(|(_, member)| {
                let elected = member.leadership().borrow().is_some();
                member.term() > ballot.term && (elected || !ballot.elected)
            })
        });
        if let Some(place) = victim {
            self.ballot = None;
            self.stage.book().cover("elections_crashed");
            let down = self.rng.random_range(1..30);
            self.crash_for(sim, place, Duration::from_millis(down));
        }
    }

    fn isolate(&mut self, sim: &mut Sim<'_>, places: &[usize]) {
        self.cut(sim, "isolate", places, |sim, a, b| sim.partition(a, b));
    }

    /// Does something to the links between some members and the others, for a while.
    fn cut(
        &mut self,
        sim: &mut Sim<'_>,
        what: &str,
        places: &[usize],
        cut: impl Fn(&Sim<'_>, String, String),
    ) {
        if self.heal_at.is_some() {
            return;
        }
        self.stage.book().trace(&format!("{what} {places:?} at {:?}", sim.elapsed()));
        self.stage.book().cover("partitions");
        for place in places {
            for other in (0..self.places).filter(|other| !places.contains(other)) {
                cut(sim, name(*place), name(other));
            }
        }
        let lasts = Duration::from_millis(self.rng.random_range(50..2500));
        self.heal_at = Some(sim.elapsed() + lasts);
    }

    /// Members come, go, and lose or get their vote.
    fn churn(&mut self, sim: &mut Sim<'_>, any: usize) {
        if !self.started[any] {
            self.stage.book().trace(&format!("start {any}"));
            self.stage.book().cover("joined");
            self.started[any] = true;
            sim.bounce(name(any));
            return;
        }
        let (voters, members) = self.who_votes();
        let member_id = members[any];
        if member_id == 0 {
            return;
        }
        match self.rng.random_range(0..3) {
            0 if voters.contains(&member_id) => self.order(Order::Demote { member_id }),
            0 => self.order(Order::Promote { member_id }),
            _ if voters.len() > 2 => {
                self.stage.places.lock()[any].excuse = Some(REMOVED);
                self.order(Order::Remove { member_id });
            }
            _ => self.order(Order::HandOver),
        }
    }

    /// A disk is replaced by an empty one, or forgets its log. Only one at a time, and only when
    /// all vote: whoever loses a majority of its disks has lost data.
    fn lose_disk(&mut self, sim: &mut Sim<'_>, place: usize) {
        let (voters, members) = self.who_votes();
        let vote = |id: &u64| *id == 0 || voters.contains(id);
        let all_vote = members.iter().all(vote) && voters.len() == self.places;
        if self.replacing.is_some() || !all_vote || self.disk_until.iter().any(Option::is_some) {
            return;
        }
        let down = Duration::from_millis(self.rng.random_range(20..1500));
        self.crash_for(sim, place, down);
        self.replacing = Some(place);
        self.stage.book().cover("lost_disks");
        if self.rng.random_bool(0.3) {
            self.stage.places.lock()[place].excuse = Some(LOST_LOG);
            self.stage.disks[place].wipe_log();
        } else {
            self.stage.disks[place].wipe();
        }
        self.stage.places.lock()[place].seated = false;
        self.stage.book().trace(&format!("the disk of {place} is lost"));
    }

    fn break_disk(&mut self, sim: &mut Sim<'_>, place: usize) {
        if self.stage.running(place).is_none() || self.disk_until[place].is_some() {
            return;
        }
        let full = self.rng.random_bool(0.5);
        let fault = if full { SimFault::Full } else { SimFault::FlushError };
        self.stage.book().trace(&format!("the disk of {place}: {fault:?}"));
        self.stage.book().cover("disk_errors");
        self.stage.places.lock()[place].excuse.get_or_insert(DISK);
        self.stage.disks[place].set_fault(fault);
        // A member that does not notice is crashed, so that the fault ends.
        let lasts = Duration::from_millis(self.rng.random_range(100..2000));
        self.disk_until[place] = Some(sim.elapsed() + lasts);
    }

    fn slow_disk(&mut self, sim: &mut Sim<'_>, place: usize) {
        if self.stage.running(place).is_none() || self.disk_until[place].is_some() {
            return;
        }
        let fault = match self.rng.random_range(0..3) {
            0 => SimFault::Hang,
            _slow => SimFault::Slow(Duration::from_millis(self.rng.random_range(20..400))),
        };
        self.stage.book().trace(&format!("the disk of {place}: {fault:?}"));
        self.stage.book().cover("slow_disks");
        self.stage.disks[place].set_fault(fault);
        let lasts = Duration::from_millis(self.rng.random_range(100..3000));
        self.disk_until[place] = Some(sim.elapsed() + lasts);
    }

    pub(crate) fn mend_what_is_due(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        if let Some((_, places)) = self.doomed.take_if(|(at, _)| *at <= now) {
            places.into_iter().for_each(|place| self.crash(sim, place));
        }
        self.crash_who_voted(sim);
        for place in 0..self.places {
            if self.disk_until[place].is_some_and(|at| at <= now) {
                self.end_disk_fault(sim, place);
            }
        }
        self.revive_who_ended(sim);
        for place in 0..self.places {
            if self.revive_at[place].is_some_and(|at| at <= now) {
                self.revive(sim, place);
            }
        }
        if self.heal_at.is_some_and(|at| at <= now) {
            self.heal_at = None;
            self.repair(sim);
        }
        let (voters, members) = match self.replacing {
            Some(_) if self.stage.phase() == Phase::Chaos => self.who_votes(),
            _ => return,
        };
        // The number of one that is down is not known.
        let votes = self.replacing.is_some_and(|place| voters.contains(&members[place]));
        if votes && voters.len() == self.places {
            self.replacing = None;
        }
    }

    /// Whatever a hanging or failing disk has not written is lost; a slow one just gets faster.
    fn end_disk_fault(&mut self, sim: &mut Sim<'_>, place: usize) {
        self.disk_until[place] = None;
        match self.stage.disks[place].fault() {
            SimFault::None => {}
            SimFault::Slow(_) => self.stage.disks[place].set_fault(SimFault::None),
            SimFault::Full | SimFault::FlushError | SimFault::Hang => self.crash(sim, place),
        }
    }

    /// A member that ended by itself is restarted by whoever watches over it, on a new disk when
    /// it said so.
    pub(crate) fn revive_who_ended(&mut self, sim: &mut Sim<'_>) {
        for place in 0..self.places {
            let Some(why) = self.stage.places.lock()[place].ended.take() else { continue };
            let excuse = self.stage.places.lock()[place].excuse;
            self.stage.book().trace(&format!("restart {place}, {excuse:?}: {why}"));
            let now = sim.elapsed();
            self.crash(sim, place);
            self.revive_at[place].get_or_insert(now);
            // Only a member that was turned away for good may be put on an empty disk: its disk may
            // have failed meanwhile, which is no reason.
            let removed = excuse == Some(REMOVED) && why.contains("MEMBER_REMOVED");
            if removed || excuse == Some(LOST_LOG) {
                self.stage.disks[place].wipe();
                let here = &mut self.stage.places.lock()[place];
                here.excuse = None;
                here.seated = false;
            }
        }
    }

    fn revive(&mut self, sim: &mut Sim<'_>, place: usize) {
        self.revive_at[place] = None;
        sim.bounce(name(place));
    }

    fn repair(&mut self, sim: &mut Sim<'_>) {
        for one in 0..self.places {
            for other in one + 1..self.places {
                sim.release(name(one), name(other));
                sim.repair(name(one), name(other));
            }
        }
    }

    pub(crate) fn mend_everything(&mut self, sim: &mut Sim<'_>) {
        self.stage.book().trace(&format!("mend at {:?}", sim.elapsed()));
        self.stage.orders.lock().clear();
        self.doomed = None;
        self.ballot = None;
        self.heal_at = None;
        self.repair(sim);
        self.stage.nodes.start_all();
        for place in 0..self.places {
            skew::set(place, Duration::ZERO);
            if self.disk_until[place].is_some() {
                self.end_disk_fault(sim, place);
            }
        }
        self.revive_who_ended(sim);
        for place in 0..self.places {
            if self.revive_at[place].is_some() {
                self.revive(sim, place);
            }
        }
        *self.stage.phase.lock() = Phase::Healed;
    }
}
