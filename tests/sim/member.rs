//! What runs on one simulated host: a member on its simulated disk, and its clients.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate::clock;
use quorate::cluster::{
    Boot, Cluster, ClusterOptions, Consistency, ProposeError, Retention, Timing,
};
use quorate::model::{Epoch, Member, MemberId, TaskId};
use quorate::state::{Command, Outcome, TaskSpec};
use quorate::storage::{Disk, SimDisk, Storage, StorageOptions};

use crate::net::SimNet;
use crate::oracle::Oracle;

/// Where every member listens for its peers.
const PORT: u16 = 7000;
/// Clients beside each member.
const CLIENTS: usize = 3;
/// Acknowledged tasks a reader looks for.
const LOOKED_FOR: usize = 8;

/// What one run shares.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) oracle: Oracle,
    pub(crate) plan: Plan,
    /// Running members by place.
    pub(crate) members: Arc<Mutex<Vec<Option<Cluster>>>>,
    pub(crate) disks: Arc<Vec<SimDisk>>,
    /// Clients stop proposing.
    pub(crate) quiet: Arc<Mutex<bool>>,
    /// The leader shall hand over.
    pub(crate) hand_over: Arc<Mutex<bool>>,
    /// Members that served a write after the faults ended, by place.
    pub(crate) probed: Arc<Mutex<Vec<bool>>>,
    /// Numbers tasks, so that no two are alike.
    pub(crate) serial: Arc<Mutex<u64>>,
}

/// What a seed decides about the members.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) snapshot_every: u64,
    pub(crate) keep: u64,
    /// Short ones make clients give up with an unknown outcome.
    pub(crate) propose_timeout: Duration,
    pub(crate) tune: Option<fn(&mut openraft::Config)>,
}

pub(crate) fn name(place: usize) -> String {
    format!("m{}", place + 1)
}

fn address(place: usize) -> String {
    format!("{}:{PORT}", name(place))
}

impl Stage {
    fn options(&self, place: usize) -> ClusterOptions {
        let count = self.disks.len();
        let member = Member { name: name(place), peer_addr: address(place), ..Member::default() };
        ClusterOptions {
            boot: Boot::Expect { expect: count, peers: (0..count).map(address).collect() },
            timing: Timing::Default,
            retention: Retention { snapshot_every: self.plan.snapshot_every, keep: self.plan.keep },
            propose_timeout: self.plan.propose_timeout,
            tune: self.plan.tune,
            ..ClusterOptions::new(member)
        }
    }

    /// The software of the host at `place`; runs until the host crashes.
    pub(crate) async fn run(self, place: usize) -> turmoil::Result {
        let disk = Disk::Simulated(self.disks[place].clone());
        let storage = match Storage::open(StorageOptions::new(disk)).await {
            Ok(storage) => storage,
            Err(error) => {
                self.oracle.violation(format!("{} cannot open its disk: {error}", name(place)));
                return Ok(());
            }
        };
        let started = Cluster::start(self.options(place), storage, Arc::new(SimNet)).await;
        let member = match started {
            Ok(member) => member,
            Err(error) => {
                self.oracle.violation(format!("{} cannot start: {error}", name(place)));
                return Ok(());
            }
        };
        self.members.lock()[place] = Some(member.clone());
        tokio::spawn(self.clone().guard(member.clone()));
        tokio::spawn(self.clone().hand_over(member.clone()));
        for _ in 0..CLIENTS {
            tokio::spawn(self.clone().client(place, member.clone()));
        }
        tokio::spawn(self.clone().probe(place, member.clone()));
        let mut ended = member.ended();
        if let Ok(why) = ended.wait_for(Option::is_some).await {
            self.oracle.violation(format!("{} stopped by itself: {:?}", name(place), *why));
        }
        Ok(())
    }

    /// Leads as the real guard does: a barrier, then the epoch.
    async fn guard(self, member: Cluster) {
        let mut leadership = member.leadership();
        loop {
            let term = *leadership.borrow_and_update();
            if let Some(term) = term {
                self.oracle.led(term, member.member_id());
                self.open_epoch(&member, term).await;
            }
            if leadership.changed().await.is_err() {
                return;
            }
        }
    }

    async fn open_epoch(&self, member: &Cluster, term: u64) {
        let epoch = Epoch { term, member: member.member_id() };
        while *member.leadership().borrow() == Some(term) {
            let confirmed = member.read_barrier(Consistency::Linearizable).await.is_ok();
            if confirmed && member.propose_local(epoch, Command::OpenEpoch(epoch)).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn hand_over(self, member: Cluster) {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if member.leadership().borrow().is_some()
                && std::mem::take(&mut *self.hand_over.lock())
                && member.transfer_leader(None).await.is_ok()
            {
                self.oracle.cover(|coverage| coverage.transfers += 1);
            }
        }
    }

    async fn client(self, place: usize, member: Cluster) {
        while member.member_id() == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        loop {
            tokio::time::sleep(Duration::from_millis(clock::random() % 40)).await;
            if *self.quiet.lock() {
                return;
            }
            if clock::random().is_multiple_of(5) {
                self.read(&member).await;
            } else {
                self.write(place, &member).await;
            }
        }
    }

    async fn write(&self, place: usize, member: &Cluster) {
        let id = {
            let mut serial = self.serial.lock();
            *serial += 1;
            format!("t{}-{place}", *serial)
        };
        let request_id = clock::mint_request_id();
        self.oracle.began(&id);
        let spec = TaskSpec {
            task_id: Some(TaskId::trusted(&id)),
            task_type: "count".to_owned(),
            // A few are large enough to be kept outside their row.
            input: format!("\"{}\"", "x".repeat((clock::random() % 600) as usize)),
            timeout_ms: 60_000,
            ..TaskSpec::default()
        };
        let command = Command::SubmitTasks(vec![spec]);
        match member.propose(request_id, "client", command).await {
            Ok(committed) => match committed.reply {
                Ok(Outcome::TaskSubmitted { duplicate, .. }) => {
                    self.oracle.acked(&id, committed.index, duplicate);
                }
                other => self.oracle.violation(format!("{id} was answered with {other:?}")),
            },
            Err(ProposeError::NotStarted { .. }) => self.oracle.never_started(&id),
            Err(ProposeError::Unknown { .. }) => self.oracle.unknown(&id),
            Err(ProposeError::Stopped { .. }) => self.oracle.unknown(&id),
        }
    }

    /// Everything acknowledged before the read began must be seen by it.
    async fn read(&self, member: &Cluster) {
        let expected = self.oracle.newest_acked(LOOKED_FOR);
        if member.read_barrier(Consistency::Linearizable).await.is_err() {
            return;
        }
        self.oracle.cover(|coverage| coverage.reads += 1);
        for id in expected {
            if !Oracle::shows(member, &id) {
                let at = member.member_id();
                self.oracle.violation(format!("a linearizable read of member {at} missed {id}"));
            }
        }
    }

    /// After the faults: one write through this member.
    async fn probe(self, place: usize, member: Cluster) {
        while !*self.quiet.lock() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let before = self.oracle.coverage().acked;
        while self.oracle.coverage().acked == before || !self.probed.lock()[place] {
            self.write(place, &member).await;
            let acked = self.oracle.coverage().acked > before;
            self.probed.lock()[place] = acked;
        }
    }

    /// The number of the member at `place`, when it runs and has one.
    pub(crate) fn running(&self, place: usize) -> Option<(MemberId, Cluster)> {
        let member = self.members.lock()[place].clone()?;
        Some((member.member_id(), member)).filter(|(id, _)| *id != 0)
    }
}
