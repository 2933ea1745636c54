//! What one run shares, and what runs on one simulated host: a member on its simulated disk with
//! the leader's work, its clients, an operator, and the part of the fleet that talks to it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use openraft::RaftLogReader as _;
use parking_lot::Mutex;
use quorate::cluster::{Boot, Cluster, ClusterOptions, Retention, Timing};
use quorate::leader::{LeaderOptions, Leadership, Outward};
use quorate::model::{Member, MemberId};
use quorate::storage::{Disk, SimDisk, SimOptions, Storage, StorageOptions};
use tokio_util::sync::CancellationToken;

use crate::agents::SimAgents;
use crate::book::Book;
use crate::invariants::{Invariants, Process};
use crate::net::SimNet;
use crate::nodes::{Nodes, SimCaller};
use crate::plan::Plan;
use crate::sink::SimRenderer;
use crate::{
    authors, clients, keeper, nodes, operator, planners, researchers, rogue, settings, skew, swarms,
};

/// Where every member listens for its peers.
const PORT: u16 = 7000;
/// Clients beside each member.
const CLIENTS: usize = 3;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Founding,
    /// Things break.
    Chaos,
    /// Nothing breaks any more: everything has to be well again soon.
    Healed,
}

/// Something an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    HandOver,
    Snapshot { place: usize },
    Demote { member_id: MemberId },
    Promote { member_id: MemberId },
    Remove { member_id: MemberId },
}

/// One member's place, whoever sits there.
#[derive(Default)]
pub(crate) struct Place {
    pub(crate) member: Option<Cluster>,
    pub(crate) boot: u64,
    /// Why a member at this place may end by itself.
    pub(crate) excuse: Option<&'static str>,
    /// Its disk holds a member that was sent the log: it has joined.
    pub(crate) seated: bool,
    /// It ended by itself, with this reason.
    pub(crate) ended: Option<String>,
    /// Since the faults ended it served a write and a read.
    pub(crate) served: bool,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) invariants: Invariants,
    pub(crate) places: Mutex<Vec<Place>>,
    pub(crate) disks: Vec<SimDisk>,
    pub(crate) nodes: Nodes,
    pub(crate) phase: Mutex<Phase>,
    pub(crate) orders: Mutex<VecDeque<Order>>,
    /// Numbers submissions and values, so that no two are alike.
    pub(crate) serial: Mutex<u64>,
}

/// Shared by everybody in one run.
#[derive(Clone)]
pub(crate) struct Stage(pub(crate) Arc<World>);

impl std::ops::Deref for Stage {
    type Target = World;

    fn deref(&self) -> &World {
        &self.0
    }
}

pub(crate) fn name(place: usize) -> String {
    format!("m{}", place + 1)
}

fn address(place: usize) -> String {
    format!("{}:{PORT}", name(place))
}

impl Stage {
    pub(crate) fn new(seed: u64, plan: Plan) -> Self {
        let places = plan.places();
        let disks = (0..places as u64).map(|place| {
            SimDisk::new(SimOptions {
                seed: seed.wrapping_mul(31).wrapping_add(place),
                flush_min: Duration::from_micros(100),
                flush_max: plan.flush_max,
                ..SimOptions::default()
            })
        });
        Self(Arc::new(World {
            disks: disks.collect(),
            places: Mutex::new((0..places).map(|_| Place::default()).collect()),
            nodes: Nodes::default(),
            invariants: Invariants::default(),
            phase: Mutex::new(Phase::Founding),
            orders: Mutex::default(),
            serial: Mutex::new(0),
            plan,
        }))
    }

    pub(crate) fn book(&self) -> &Book {
        &self.invariants.book
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.lock()
    }

    pub(crate) fn next_serial(&self) -> u64 {
        let mut serial = self.serial.lock();
        *serial += 1;
        *serial
    }

    /// The member at `place`, when it runs.
    pub(crate) fn running(&self, place: usize) -> Option<(Process, Cluster)> {
        let places = self.places.lock();
        let here = &places[place];
        let process = Process { place, boot: here.boot };
        here.member.clone().map(|member| (process, member))
    }

    fn options(&self, place: usize) -> ClusterOptions {
        let plan = &self.plan;
        let member = Member { name: name(place), peer_addr: address(place), ..Member::default() };
        let peers: Vec<String> = (0..plan.founders).map(address).collect();
        let boot = if place < plan.founders {
            Boot::Expect { expect: plan.founders, peers }
        } else {
            Boot::Join { peers }
        };
        ClusterOptions {
            boot,
            timing: Timing::Default,
            retention: Retention {
                snapshot_every: plan.snapshot_every,
                keep: plan.keep,
                ..Retention::default()
            },
            propose_timeout: plan.propose_timeout,
            promote_after: Duration::from_millis(500),
            tune: plan.tune,
            ..ClusterOptions::new(member)
        }
    }

    /// The software of the host at `place`; runs until the host crashes.
    pub(crate) async fn run(self, place: usize) -> turmoil::Result {
        skew::enter(place);
        let process = {
            let here = &mut self.places.lock()[place];
            here.boot += 1;
            Process { place, boot: here.boot }
        };
        let disk = Disk::Simulated(self.disks[place].clone());
        let why = match Storage::open(StorageOptions::new(disk)).await {
            Ok(storage) => {
                self.note_vote(&storage).await;
                self.serve(process, storage).await
            }
            Err(error) => format!("cannot open its disk: {error}"),
        };
        self.gave_up(place, &why);
        // The machine stays on; the driver restarts it.
        std::future::pending().await
    }

    async fn note_vote(&self, storage: &Storage) {
        let Some(identity) = &storage.identity else { return };
        let vote = storage.log.clone().read_vote().await;
        let vote = vote.expect("a log that was opened knows its vote");
        self.invariants.opened(identity.member_id, vote.map_or(0, |vote| vote.leader_id().term));
    }

    /// Runs the member until it ends by itself, and says why.
    async fn serve(&self, process: Process, storage: Storage) -> String {
        let place = process.place;
        let started = Cluster::start(self.options(place), storage, Arc::new(SimNet)).await;
        let member = match started {
            Ok(member) => member,
            Err(error) => return format!("cannot start: {error}"),
        };
        self.places.lock()[place].member = Some(member.clone());
        tokio::spawn(self.clone().note_terms(process, member.clone()));
        let caller = Arc::new(SimCaller(self.clone()));
        let outward = Outward {
            agents: Arc::new(SimAgents(self.clone())),
            renderer: Arc::new(SimRenderer(member.clone())),
            ..Outward::new(caller)
        };
        let leadership = Leadership::new(LeaderOptions::default(), outward);
        self.invariants.may_lead(leadership.clone());
        let seat = Arc::new(member.clone());
        tokio::spawn(async move { leadership.run(seat, CancellationToken::new()).await });
        for _ in 0..CLIENTS {
            tokio::spawn(clients::run(self.clone(), process, member.clone()));
        }
        tokio::spawn(clients::probe(self.clone(), place, member.clone()));
        tokio::spawn(operator::run(self.clone(), place, member.clone()));
        tokio::spawn(keeper::run(self.clone(), member.clone()));
        tokio::spawn(settings::run(self.clone(), member.clone()));
        tokio::spawn(authors::run(self.clone(), member.clone()));
        tokio::spawn(researchers::run(self.clone(), member.clone()));
        tokio::spawn(planners::run(self.clone(), member.clone()));
        tokio::spawn(swarms::run(self.clone(), member.clone()));
        tokio::spawn(nodes::keep(self.clone(), member.clone()));
        tokio::spawn(nodes::report(self.clone(), member.clone()));
        if self.plan.faults.rogue {
            tokio::spawn(rogue::run(self.clone(), member.clone()));
        }
        let mut ended = member.ended();
        let why = ended.wait_for(Option::is_some).await.map(|why| why.clone());
        why.ok().flatten().unwrap_or_else(|| "no reason was given".to_owned())
    }

    fn gave_up(&self, place: usize, why: &str) {
        let excuse = {
            let here = &mut self.places.lock()[place];
            here.member = None;
            here.ended = Some(why.to_owned());
            here.excuse
        };
        self.book().trace(&format!("{} ended, {excuse:?}: {why}", name(place)));
        if excuse.is_none() {
            let what = format!("{} ended: {why}", name(place));
            self.book().violation("a member ends only for a reason", &what);
        }
        self.book().cover("ended_by_themselves");
    }

    async fn note_terms(self, process: Process, member: Cluster) {
        let mut leadership = member.leadership();
        loop {
            let term = *leadership.borrow_and_update();
            if let Some(term) = term {
                self.invariants.led(process, term, member.member_id());
            }
            if leadership.changed().await.is_err() {
                return;
            }
        }
    }
}
