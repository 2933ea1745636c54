//! What a seed decides before its run begins: how large the world is, and which faults belong to
//! it. Each class of faults is on or off per seed, so that no class hides what another finds
//! (swarm testing: Groce et al., ISSTA 2012).

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt};

/// The classes of faults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// The power of one, several or all members goes.
    pub(crate) crash: bool,
    /// While the cluster is being founded, too.
    pub(crate) founding: bool,
    /// Members are cut off, both ways or one way.
    pub(crate) partition: bool,
    /// What is on its way is held back and arrives late, all at once.
    pub(crate) hold: bool,
    /// The leader hands its office over.
    pub(crate) transfer: bool,
    /// Members are demoted, promoted, removed, and new ones join.
    pub(crate) churn: bool,
    /// A member loses its disk, or its log.
    pub(crate) lost_disk: bool,
    /// Flushes fail; disks are full.
    pub(crate) disk_error: bool,
    /// Flushes take very long, or hang until the power goes.
    pub(crate) slow_disk: bool,
    /// Clocks of members differ and jump.
    pub(crate) skew: bool,
    /// Snapshots are made at odd moments, often just before a crash.
    pub(crate) snapshot: bool,
    /// Nodes fail, restart, refuse, answer late, twice or never.
    pub(crate) nodes: bool,
    /// Commands of older leaders and careless plans reach the log.
    pub(crate) rogue: bool,
    /// Clients send requests again that were answered long ago.
    pub(crate) retries: bool,
    /// Nodes are drained or taken out, placing is paused, settings are changed, dead letters are tried
    /// again, alerts acknowledged.
    pub(crate) keeper: bool,
    /// Pipelines are defined anew and taken back while tasks follow them.
    pub(crate) authors: bool,
    /// Campaigns are made and moved, and steps run on schedules that are changed meanwhile.
    pub(crate) campaigns: bool,
    /// Beside them an orchestrator does a task in each of its runs.
    pub(crate) works: bool,
    /// Bots are made, worked for and removed, and workflows run.
    pub(crate) swarms: bool,
    /// All machines sleep: afterwards every wall clock is later by more than a slot may be late.
    pub(crate) sleep: bool,
}

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Members that found the cluster.
    pub(crate) founders: usize,
    /// Members that may join later.
    pub(crate) spare: usize,
    pub(crate) faults: Faults,
    pub(crate) snapshot_every: u64,
    pub(crate) keep: u64,
    /// Short ones make clients give up with an unknown outcome.
    pub(crate) propose_timeout: Duration,
    /// From a fast disk to one slow enough that tails are long when the power goes.
    pub(crate) flush_max: Duration,
    pub(crate) latency_max: Duration,
    /// How long things are broken.
    pub(crate) chaos: Duration,
    /// The longest pause between two faults.
    pub(crate) pause_max_ms: u64,
    /// The longest pause of a client between two requests.
    pub(crate) client_pause_ms: u64,
    /// Instead of campaigns by chance there is one schedule, and work for it all the time.
    pub(crate) steady: bool,
    /// A known fault of the library, switched on.
    pub(crate) tune: Option<fn(&mut openraft::Config)>,
}

impl Plan {
    pub(crate) fn draw(rng: &mut SmallRng, tune: Option<fn(&mut openraft::Config)>) -> Self {
        let mut aside = rng.clone();
        let five = rng.random_bool(0.25);
        let churn = rng.random_bool(0.45);
        let faults = Faults {
            crash: rng.random_bool(0.85),
            founding: rng.random_bool(0.25),
            partition: rng.random_bool(0.7),
            hold: rng.random_bool(0.5),
            transfer: rng.random_bool(0.6),
            churn,
            // Taking a vote away and a disk as well may lose a majority: no fault of the system.
            lost_disk: !churn && rng.random_bool(0.55),
            disk_error: rng.random_bool(0.3),
            slow_disk: rng.random_bool(0.4),
            skew: rng.random_bool(0.4),
            snapshot: rng.random_bool(0.5),
            nodes: rng.random_bool(0.7),
            rogue: rng.random_bool(0.5),
            retries: rng.random_bool(0.6),
            keeper: rng.random_bool(0.6),
            authors: rng.random_bool(0.6),
            campaigns: rng.random_bool(0.6),
            // As that of swarms.
            works: aside.random_range(0..16) % 2 == 0,
            sleep: rng.random_bool(0.3),
            // Without moving the dice, so that seeds that found something keep their world.
            swarms: rng.clone().random_bool(0.6),
        };
        Self {
            founders: if five { 5 } else { 3 },
            spare: usize::from(faults.churn && !five),
            faults,
            snapshot_every: rng.random_range(40..400),
            keep: rng.random_range(1..40),
            propose_timeout: Duration::from_millis(rng.random_range(200..4000)),
            flush_max: Duration::from_micros(rng.random_range(500..15_000)),
            latency_max: Duration::from_millis(rng.random_range(1..12)),
            chaos: Duration::from_millis(rng.random_range(5000..12_000)),
            pause_max_ms: rng.random_range(150..700),
            client_pause_ms: 60,
            steady: false,
            tune,
        }
    }

    pub(crate) fn places(&self) -> usize {
        self.founders + self.spare
    }
}

/// What the driver does to the world next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    CrashLeader,
    CrashOne,
    CrashMajority,
    CrashAll,
    /// Two followers lag, those that committed crash, the laggards come back first.
    LagThenCrash,
    /// The leader is cut off; whoever votes or is elected next crashes in that moment.
    ElectionThenCrash,
    IsolateLeader,
    IsolateOne,
    OneWay,
    Hold,
    HandOver,
    Churn,
    LoseDisk,
    DiskError,
    SlowDisk,
    Skew,
    Sleep,
    Snapshot,
    SnapshotThenCrash,
    NodeDown,
}

/// Draws the next fault among the classes that are on; `None` when there are none.
pub(crate) fn next_fault(faults: Faults, rng: &mut SmallRng) -> Option<Fault> {
    let weights = [
        (Fault::CrashLeader, 25, faults.crash),
        (Fault::CrashOne, 12, faults.crash),
        (Fault::CrashMajority, 5, faults.crash),
        (Fault::CrashAll, 5, faults.crash),
        (Fault::LagThenCrash, 6, faults.crash && faults.partition),
        (Fault::ElectionThenCrash, 10, faults.crash),
        (Fault::IsolateLeader, 10, faults.partition),
        (Fault::IsolateOne, 8, faults.partition),
        (Fault::OneWay, 8, faults.partition),
        (Fault::Hold, 10, faults.hold),
        (Fault::HandOver, 10, faults.transfer),
        (Fault::Churn, 16, faults.churn),
        (Fault::LoseDisk, 8, faults.lost_disk),
        (Fault::DiskError, 6, faults.disk_error),
        (Fault::SlowDisk, 8, faults.slow_disk),
        (Fault::Skew, 8, faults.skew),
        (Fault::Sleep, 4, faults.sleep),
        (Fault::Snapshot, 6, faults.snapshot),
        (Fault::SnapshotThenCrash, 6, faults.snapshot && faults.crash),
        (Fault::NodeDown, 18, faults.nodes),
    ];
    let total: u32 = weights.iter().filter(|(_, _, on)| *on).map(|(_, weight, _)| weight).sum();
    if total == 0 {
        return None;
    }
    let mut at = rng.next_u32() % total;
    for (fault, weight, _) in weights.into_iter().filter(|(_, _, on)| *on) {
        if at < weight {
            return Some(fault);
        }
        at -= weight;
    }
    None
}
