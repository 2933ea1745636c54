//! [`Cluster`]: what the rest of the program holds of this room.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::backup;
use super::bootstrap;
use super::core::{Core, ViewChange};
use super::error::{MembershipCode, ProposeError, ReadError, StartError};
use super::faults::Faults;
use super::heartbeats::Heartbeats;
use super::membership::{self, Change, ChangeReport, ChangeResult, refuse};
use super::net::Net;
use super::options::ClusterOptions;
use super::peers::{Own, Peers};
use super::propose::{self, Committed};
use super::proposer::{self, Queue};
use super::reads::{self, Consistency, ReadStamp, Reads};
use super::server;
use super::status::{self, ClusterStatus};
use crate::clock;
use crate::model::{Epoch, Member, MemberId, RequestId, TimeMs};
use crate::state::{Command, Digest};
use crate::storage::{Backup, Machine, Storage};

/// How long a stopping leader may take to hand over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long Raft and the tasks of this room may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// This member among its peers. Cheap to clone.
#[derive(Clone)]
pub struct Cluster(Arc<Core>);

/// Numbers for the metrics page; all but `term` only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClusterMetrics {
    /// The Raft term.
    pub term: u64,
    /// Times another leader was seen.
    pub leader_changes: u64,
    /// Commands proposed through this member.
    pub proposals: u64,
    /// Further tries of theirs.
    pub retries: u64,
    /// Proposals that ended unknown.
    pub unknown: u64,
    /// Proposals refused because the queue was full.
    pub overloaded: u64,
    /// Entries this member wrote as leader.
    pub entries: u64,
    /// Their bytes.
    pub entry_bytes: u64,
    /// Commands sent on to the leader.
    pub forwarded: u64,
    /// Reads asked for.
    pub reads: u64,
    /// Rounds that confirmed them.
    pub read_rounds: u64,
    /// Snapshots of a leader installed here.
    pub snapshots_installed: u64,
}

impl Cluster {
    /// Starts this member: listens for peers, and takes its place when its storage has an
    /// identity; otherwise looks for one in the background, as [`ClusterOptions::boot`] says.
    ///
    /// # Errors
    /// [`StartError`] when the listener cannot bind or Raft does not start.
    pub async fn start(
        mut options: ClusterOptions,
        storage: Storage,
        net: Arc<dyn Net>,
    ) -> Result<Self, StartError> {
        let identity = storage.identity.clone();
        let incarnation =
            identity.as_ref().map_or_else(|| clock::random() | 1, |known| known.incarnation);
        let addr = options.listen_addr.clone();
        let listener = net.bind(&addr).await.map_err(|source| StartError::Bind { addr, source })?;
        if options.member.peer_addr.ends_with(":0") {
            options.member.peer_addr = listener.local_addr();
        }
        let member = Member { incarnation, ..options.member.clone() };
        let own = Own { incarnation, name: member.name.clone(), ..Own::default() };
        let faults = Arc::new(Faults::new(storage.log.slowdown()));
        let peers = Arc::new(Peers::new(net, Arc::clone(&faults), own));
        let (queue, items) = Queue::new(&options.limits);
        let (reads, read_queues) = Reads::new();
        let core = Arc::new(Core::new(options, member, peers, storage, queue, reads));
        core.spawn(faults.watch_over());
        core.spawn(proposer::run(Arc::clone(&core), items));
        reads::run(&core, read_queues);
        if let Some(identity) = identity {
            core.take_seat(identity.cluster_id, identity.member_id).await?;
        }
        core.spawn(server::serve(Arc::clone(&core), listener));
        core.spawn(bootstrap::run(Arc::clone(&core)));
        Ok(Self(core))
    }

    /// Founds a cluster with the members that answer at `addrs`; this one is among them anyway.
    ///
    /// # Errors
    /// [`super::MembershipError`] when one of them does not answer or belongs to a cluster.
    pub async fn init(&self, addrs: &[String]) -> ChangeResult<()> {
        bootstrap::init(&self.0, addrs).await
    }

    /// Joins the cluster that a member at one of `addrs` belongs to, as a learner.
    ///
    /// # Errors
    /// [`super::MembershipError`] when this member has a place already, or is refused one.
    pub async fn join(&self, addrs: &[String]) -> ChangeResult<()> {
        bootstrap::join(&self.0, addrs).await
    }

    /// Proposes a command through this member, whoever leads. Held and retried under
    /// `request_id` through elections, until [`ClusterOptions::propose_timeout`].
    ///
    /// # Errors
    /// [`ProposeError`]; a refusal by the state machine is in [`Committed::reply`] instead.
    pub async fn propose(
        &self,
        request_id: RequestId,
        principal: &str,
        command: Command,
    ) -> Result<Committed, ProposeError> {
        propose::propose(&self.0, request_id, principal, command).await
    }

    /// Proposes a duty's command: only while this member leads in `epoch`'s term, never sent on,
    /// never tried again.
    ///
    /// # Errors
    /// [`ProposeError`]; a refusal by the state machine is in [`Committed::reply`] instead.
    pub async fn propose_local(
        &self,
        epoch: Epoch,
        command: Command,
    ) -> Result<Committed, ProposeError> {
        propose::propose_local(&self.0, epoch, command).await
    }

    /// Returns once [`Cluster::view`] is as fresh as asked.
    ///
    /// # Errors
    /// [`ReadError`] when it cannot be; it is never served as something less.
    pub async fn read_barrier(&self, consistency: Consistency) -> Result<ReadStamp, ReadError> {
        reads::barrier(&self.0, consistency).await
    }

    /// The time that the next entry would carry; `last_at` is the newest that the state has seen.
    #[must_use]
    pub fn time_after(&self, last_at: TimeMs) -> TimeMs {
        self.0.time.now(last_at)
    }

    /// The state, as this member has applied it.
    #[must_use]
    pub fn view(&self) -> &Arc<Machine> {
        &self.0.machine
    }

    /// This member's number; 0 while it belongs to no cluster.
    #[must_use]
    pub fn member_id(&self) -> MemberId {
        self.0.member_id()
    }

    /// This member's own description.
    #[must_use]
    pub fn member(&self) -> &Member {
        &self.0.member
    }

    /// The cluster's id; `None` while this member belongs to none.
    #[must_use]
    pub fn cluster_id(&self) -> Option<u128> {
        self.0.seat.get().map(|seat| seat.cluster_id)
    }

    /// Who leads, as far as this member knows.
    #[must_use]
    pub fn leader(&self) -> Option<(MemberId, Member)> {
        let leader = self.0.current().leader?;
        if leader == self.0.member_id() {
            return Some((leader, self.0.member.clone()));
        }
        Some((leader, self.0.peers.member(leader)?))
    }

    /// This member's Raft term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.0.current().term
    }

    /// The term this member leads, whenever it changes. Losing and regaining the office between
    /// two looks shows as another term.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Option<u64>> {
        self.0.leading.subscribe()
    }

    /// Whether this member has a place in a cluster.
    #[must_use]
    pub fn seated(&self) -> watch::Receiver<bool> {
        self.0.seated.subscribe()
    }

    /// Why this member serves nobody any more: its disk failed, its state differs from its
    /// peers', or it was removed. The process should end.
    #[must_use]
    pub fn ended(&self) -> watch::Receiver<Option<String>> {
        self.0.ended.subscribe()
    }

    /// Time since this member last heard of a leader.
    #[must_use]
    pub fn contact_age(&self) -> Option<Duration> {
        self.0.contact_age()
    }

    /// What `GET /api/v1/cluster` answers. Asks the peers, with a short deadline, and not the log.
    pub async fn status(&self) -> ClusterStatus {
        status::status(&self.0).await
    }

    /// The liveness book.
    #[must_use]
    pub fn heartbeats(&self) -> &Heartbeats {
        &self.0.heartbeats
    }

    /// Gives a learner a vote.
    ///
    /// # Errors
    /// [`super::MembershipError`].
    pub async fn promote(&self, member_id: MemberId) -> ChangeResult<ChangeReport> {
        membership::change_held(&self.0, Change::Promote { member_id }).await
    }

    /// Makes a voter a learner.
    ///
    /// # Errors
    /// [`super::MembershipError`].
    pub async fn demote(&self, member_id: MemberId) -> ChangeResult<ChangeReport> {
        membership::change_held(&self.0, Change::Demote { member_id }).await
    }

    /// Takes a member out for good; its number is never used again.
    ///
    /// # Errors
    /// [`super::MembershipError`].
    pub async fn remove(&self, member_id: MemberId) -> ChangeResult<ChangeReport> {
        membership::change_held(&self.0, Change::Remove { member_id }).await
    }

    /// Hands the leader's office over, to `to` or to the best suited voter.
    ///
    /// # Errors
    /// [`super::MembershipError`].
    pub async fn transfer_leader(&self, to: Option<MemberId>) -> ChangeResult<ChangeReport> {
        membership::change_held(&self.0, Change::TransferLeader { to }).await
    }

    /// Starts a snapshot of this member's state.
    ///
    /// # Errors
    /// [`super::MembershipError`] when Raft does not run here.
    pub async fn snapshot(&self) -> ChangeResult<()> {
        let Some(raft) = self.0.raft() else {
            return refuse(MembershipCode::NotInitialized, "this member belongs to no cluster yet");
        };
        match raft.trigger().snapshot().await {
            Ok(()) => Ok(()),
            Err(fatal) => refuse(MembershipCode::Stopped, fatal.to_string()),
        }
    }

    /// A backup of this member's state that holds at least everything up to `index`. Takes a
    /// snapshot for it, within `limit`.
    ///
    /// # Errors
    /// [`super::MembershipError`] when this member has no place or has stopped, or it takes longer.
    pub async fn backup(&self, index: u64, limit: Duration) -> ChangeResult<Backup> {
        backup::backup(&self.0, index, limit).await
    }

    /// The digest of this member's state at `index`, while that is remembered.
    #[must_use]
    pub fn digest_at(&self, index: u64) -> Option<Digest> {
        self.0.digests.at(index)
    }

    /// What is broken on purpose on this member.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.0.peers.faults
    }

    /// Who this member saw leading, oldest first.
    #[must_use]
    pub fn view_changes(&self) -> Vec<ViewChange> {
        self.0.views.lock().iter().copied().collect()
    }

    /// Numbers for the metrics page.
    #[must_use]
    pub fn metrics(&self) -> ClusterMetrics {
        let counters = &self.0.counters;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        ClusterMetrics {
            term: self.0.current().term,
            leader_changes: read(&counters.leader_changes),
            proposals: read(&counters.proposals),
            retries: read(&counters.retries),
            unknown: read(&counters.unknown),
            overloaded: read(&counters.overloaded),
            entries: read(&counters.entries),
            entry_bytes: read(&counters.entry_bytes),
            forwarded: read(&counters.forwarded),
            reads: read(&counters.reads),
            read_rounds: read(&counters.read_rounds),
            snapshots_installed: read(&counters.snapshots_installed),
        }
    }

    /// Stops this member: hands the office over when it leads, then ends Raft and every task.
    pub async fn stop(&self) {
        let core = &self.0;
        if core.current().leading.is_some() {
            let others = status::voters(core).iter().any(|id| *id != core.member_id());
            let handing = membership::transfer(core, None);
            if others && let Ok(Err(error)) = timeout(HAND_OVER_TIMEOUT, handing).await {
                tracing::warn!(%error, "could not hand the office over");
            }
        }
        core.ended.send_if_modified(|why| {
            why.get_or_insert_with(|| "this member is stopping".to_owned());
            true
        });
        if let Some(raft) = core.raft()
            && let Ok(Err(error)) = timeout(STOP_TIMEOUT, raft.shutdown()).await
        {
            tracing::warn!(%error, "raft did not end well");
        }
        if let Some(seat) = core.seat.get()
            && let Err(error) = seat.keeper.close().await
        {
            tracing::warn!(%error, "the data directory was not closed cleanly");
        }
        core.stop.cancel();
        core.tasks.close();
        if timeout(STOP_TIMEOUT, core.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks of the cluster room did not end in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cluster::net::Nobody;
    use crate::cluster::wire::{ProposeAnswer, Response};
    use crate::model::TaskId;
    use crate::state::{Envelope, TaskSpec, encode_envelope};
    use crate::storage::{Disk, SimDisk, SimOptions, StorageOptions};

    fn envelope(task_id: &str) -> Vec<u8> {
        let task_id = Some(TaskId::trusted(task_id));
        let spec = TaskSpec { task_id, task_type: "t".to_owned(), ..TaskSpec::default() };
        let command = Command::SubmitTasks(vec![spec]);
        let (request_id, principal) = (RequestId(1), String::new());
        encode_envelope(&Envelope { request_id, principal, command }).to_vec()
    }

    /// One that a member cannot read stops every member that applies it.
    #[tokio::test]
    async fn what_is_forwarded_and_not_understood_is_not_put_into_the_log() {
        let storage = Storage::open(StorageOptions::new(Disk::Simulated(SimDisk::new(
            SimOptions::default(),
        ))));
        let member = Member { peer_addr: "alone:7000".to_owned(), ..Member::default() };
        let options = ClusterOptions::new(member);
        let cluster = Cluster::start(options, storage.await.unwrap(), Arc::new(Nobody)).await;
        let cluster = cluster.unwrap();
        cluster.init(&[]).await.unwrap();
        cluster.leadership().wait_for(Option::is_some).await.unwrap();
        let forward = async |pieces: &[Vec<u8>]| {
            let lens: Vec<u32> = pieces.iter().map(|piece| piece.len() as u32).collect();
            match proposer::take_forwarded(&cluster.0, &lens, Bytes::from(pieces.concat())).await {
                Response::Proposed(answers) => answers,
                other => panic!("{other:?}"),
            }
        };
        let (good, mut newer, mut long) = (envelope("good"), envelope("bad"), envelope("bad"));
        // The request and its principal take a byte each; what follows says which command it is.
        newer[2] = 250;
        long.push(0);
        let short = envelope("bad")[..20].to_vec();
        for bad in [newer, long, short, Vec::new()] {
            for batch in [vec![bad.clone()], vec![good.clone(), bad]] {
                let none = vec![ProposeAnswer::NotStarted; batch.len()];
                assert_eq!(forward(&batch).await, none, "{batch:?}");
            }
        }
        assert_eq!(forward(&[]).await, []);
        let lens = [good.len() as u32 + 1];
        let torn = proposer::take_forwarded(&cluster.0, &lens, Bytes::from(good.clone())).await;
        assert!(
            matches!(torn, Response::Proposed(answers) if answers == [ProposeAnswer::NotStarted])
        );
        assert_eq!(cluster.view().read(|state| state.tasks_len()), 0, "all of a batch or nothing");
        let taken = forward(&[good]).await;
        assert!(matches!(taken[..], [ProposeAnswer::Committed { reply: Ok(_), .. }]), "{taken:?}");
        cluster.stop().await;
    }
}
