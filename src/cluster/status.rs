//! What a member knows of the cluster without asking for consensus: its own report, and the
//! reports of its peers, gathered with a short deadline and kept for a moment.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::core::Core;
use super::options::Boot;
use super::wire::{Reign, Request, Response};
use crate::model::{Member, MemberId};
use crate::state::Digest;

/// How long a peer may take to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_millis(300);
/// How long gathered reports are given out again.
const KEPT: Duration = Duration::from_millis(500);
/// Digests remembered, to compare members at an index that both have applied.
const DIGESTS_MAX: usize = 512;
/// Digests told in a report.
const DIGESTS_TOLD: usize = 64;

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerReport {
    /// Its cluster; 0 while it belongs to none.
    pub cluster_id: u128,
    /// Its number; 0 while it has none.
    pub member_id: MemberId,
    /// Its description, as it is configured now.
    pub member: Member,
    /// How many founders it expects; 0 when it does not bootstrap by itself.
    pub expect: u64,
    /// Whether its log holds anything: it has voted, or was sent entries.
    pub initialized: bool,
    /// What it is.
    pub role: PeerRole,
    /// Who leads, in which reign.
    pub reign: Reign,
    /// Index of its newest log entry.
    pub last_log: u64,
    /// Index of the newest entry it has applied.
    pub applied: u64,
    /// State digests at recent indexes: index, sum, rows. Newest last.
    pub digests: Vec<(u64, u64, u64)>,
    /// Why it serves nobody, if so.
    pub ended: Option<String>,
}

/// What a member is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PeerRole {
    /// It has no place yet.
    Waiting,
    /// It gets the log and has no vote.
    Learner,
    /// It votes and follows.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
    /// Its state is not the one its peers have, so it has stopped.
    Diverged,
}

/// The answer of `GET /api/v1/cluster`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterStatus {
    /// 32 hex digits; empty while this member belongs to no cluster.
    pub cluster_id: String,
    /// Who answers.
    pub member_id: MemberId,
    /// Who leads, as far as this member knows.
    pub leader: Option<MemberId>,
    /// Its Raft term.
    pub term: u64,
    /// The open epoch, `term.member`.
    pub epoch: String,
    /// Every member, by number.
    pub members: Vec<MemberStatus>,
    /// Voters needed for a decision.
    pub quorum: usize,
    /// Voters that may fail from now on without losing the quorum.
    pub failure_tolerance: usize,
    /// A change of the membership is under way.
    pub changing: bool,
    /// Why this member serves nobody, if so.
    pub ended: Option<String>,
}

/// One row of [`ClusterStatus`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemberStatus {
    /// Its number.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// `voter` or `learner`.
    pub role: &'static str,
    /// `leader`, `follower`, `learner`, `diverged`, `stopped` or `unreachable`.
    pub state: &'static str,
    /// Where its REST API is.
    pub http: String,
    /// Where its gRPC API is.
    pub grpc: String,
    /// Where its peers reach it.
    pub peer: String,
    /// Index of its newest log entry.
    pub last_log: u64,
    /// Index of the newest entry it has applied.
    pub applied: u64,
    /// Entries it is behind the newest log entry known anywhere.
    pub lag: u64,
    /// Time since it last answered this member; none when it never did.
    pub last_contact_ms: Option<u64>,
    /// Its state digest.
    pub digest: String,
    /// The version it runs.
    pub version: String,
}

/// Digests of this member's state at recent indexes.
#[derive(Debug, Default)]
pub(crate) struct DigestBook {
    recent: Mutex<VecDeque<(u64, Digest)>>,
}

impl DigestBook {
    pub(crate) fn note(&self, index: u64, digest: Digest) {
        let mut recent = self.recent.lock();
        if recent.back().is_some_and(|(newest, _)| *newest >= index) {
            return;
        }
        if recent.len() >= DIGESTS_MAX {
            recent.pop_front();
        }
        recent.push_back((index, digest));
    }

    /// The digest at `index`, if it was seen there.
    pub(crate) fn at(&self, index: u64) -> Option<Digest> {
        let recent = self.recent.lock();
        let place = recent.binary_search_by_key(&index, |(at, _)| *at).ok()?;
        recent.get(place).map(|(_, digest)| *digest)
    }

    /// What a report of the state at `index` tells: its digest, behind those of indexes before. Others
    /// may have noted younger ones meanwhile.
    fn told(&self, index: u64, digest: Digest) -> Vec<(u64, u64, u64)> {
        let recent = self.recent.lock();
        let older = recent.partition_point(|(at, _)| *at < index);
        let first = older.saturating_sub(DIGESTS_TOLD - 1);
        let told = recent.range(first..older).copied().chain([(index, digest)]);
        told.map(|(at, digest)| (at, digest.sum, digest.rows)).collect()
    }
}

/// Reports gathered a moment ago.
#[derive(Debug, Default)]
pub(crate) struct StatusCache {
    gathered: tokio::sync::Mutex<Option<(Instant, Arc<Gathered>)>>,
    seen: Mutex<BTreeMap<MemberId, Instant>>,
}

/// One look at the peers.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub reports: BTreeMap<MemberId, PeerReport>,
}

/// This member's own report.
pub(crate) fn report(core: &Core) -> PeerReport {
    // Index, digest and epoch are of one moment, also beside an apply.
    let (index, digest, epoch) = core.machine.position();
    core.digests.note(index, digest);
    let mut report = PeerReport {
        cluster_id: core.seat.get().map_or(0, |seat| seat.cluster_id),
        member_id: core.member_id(),
        member: core.member.clone(),
        expect: match &core.options.boot {
            Boot::Expect { expect, .. } => *expect as u64,
            Boot::Wait | Boot::Join { .. } => 0,
        },
        initialized: false,
        role: PeerRole::Waiting,
        reign: Reign { epoch, ..Reign::default() },
        last_log: 0,
        applied: index,
        digests: core.digests.told(index, digest),
        ended: core.why_ended(),
    };
    if let Some(raft) = core.raft() {
        let metrics = raft.metrics().borrow_watched().clone();
        report.reign.term = metrics.current_term;
        report.reign.leader = metrics.current_leader;
        report.last_log = metrics.last_log_index.unwrap_or(0);
        report.initialized = metrics.last_log_index.is_some() || metrics.current_term > 0;
        report.role = match metrics.state {
            ServerState::Learner => PeerRole::Learner,
            ServerState::Follower => PeerRole::Follower,
            ServerState::Candidate => PeerRole::Candidate,
            ServerState::Leader => PeerRole::Leader,
            ServerState::Shutdown => PeerRole::Waiting,
        };
    }
    if core.has_diverged() {
        report.role = PeerRole::Diverged;
    }
    report
}

/// Reports of all members, from a moment ago at most.
pub(crate) async fn gather(core: &Core) -> Arc<Gathered> {
    let mut kept = core.status.gathered.lock().await;
    if let Some((at, gathered)) = &*kept
        && at.elapsed() < KEPT
    {
        return Arc::clone(gathered);
    }
    let own_id = core.member_id();
    let peers = core.peers.roster().members.into_keys().filter(|id| *id != own_id);
    let probes = peers.map(|id| async move {
        (id, core.peers.call(id, &Request::Probe, &[], PROBE_TIMEOUT).await)
    });
    let answers = futures::future::join_all(probes).await;
    let mut gathered = Gathered::default();
    gathered.reports.insert(own_id, report(core));
    for (id, answer) in answers {
        if let Ok(Response::Report(report)) = answer
            && report.member_id == id
        {
            core.status.seen.lock().insert(id, Instant::now());
            gathered.reports.insert(id, *report);
        }
    }
    let gathered = Arc::new(gathered);
    *kept = Some((Instant::now(), Arc::clone(&gathered)));
    gathered
}

/// Everything `GET /api/v1/cluster` tells.
pub(crate) async fn status(core: &Core) -> ClusterStatus {
    let gathered = gather(core).await;
    // What this member says of itself is never of another moment than the rest of the answer.
    let own = report(core);
    let roster = core.peers.roster();
    let voters = voters(core);
    let view = core.current();
    let own_id = core.member_id();
    let newest = gathered.reports.values().map(|report| report.last_log);
    let newest = newest.max().unwrap_or(0).max(own.last_log);
    let mut members = Vec::new();
    for (id, member) in &roster.members {
        let report = if *id == own_id { Some(&own) } else { gathered.reports.get(id) };
        members.push(member_status(core, *id, member, report, &voters, newest));
    }
    if roster.members.is_empty() {
        members.push(member_status(core, own_id, &core.member, Some(&own), &voters, newest));
    }
    let quorum = voters.len() / 2 + 1;
    let healthy = |id: &MemberId| gathered.reports.get(id).is_some_and(|r| r.ended.is_none());
    let alive = voters.iter().filter(|id| healthy(id)).count();
    ClusterStatus {
        cluster_id: core.seat.get().map_or_else(String::new, |s| format!("{:032x}", s.cluster_id)),
        member_id: own_id,
        leader: view.leader,
        term: view.term,
        epoch: own.reign.epoch.to_string(),
        members,
        quorum,
        failure_tolerance: alive.saturating_sub(quorum),
        changing: is_joint(core),
        ended: core.why_ended(),
    }
}

fn member_status(
    core: &Core,
    id: MemberId,
    member: &Member,
    report: Option<&PeerReport>,
    voters: &[MemberId],
    newest: u64,
) -> MemberStatus {
    let own = id == core.member_id();
    let seen = core.status.seen.lock().get(&id).copied();
    let contact = if own { Some(Duration::ZERO) } else { seen.map(|at| at.elapsed()) };
    let state = match report {
        None => "unreachable",
        Some(report) if report.ended.is_some() && report.role != PeerRole::Diverged => "stopped",
        Some(report) => match report.role {
            PeerRole::Diverged => "diverged",
            PeerRole::Leader => "leader",
            PeerRole::Follower | PeerRole::Candidate => "follower",
            PeerRole::Learner | PeerRole::Waiting => "learner",
        },
    };
    let digest = report.and_then(|report| report.digests.last());
    let digest = digest.map(|(_, sum, rows)| Digest { sum: *sum, rows: *rows }.to_string());
    let applied = report.map_or(0, |report| report.applied);
    MemberStatus {
        id,
        name: member.name.clone(),
        role: if voters.contains(&id) { "voter" } else { "learner" },
        state,
        http: member.http_addr.clone(),
        grpc: member.grpc_addr.clone(),
        peer: member.peer_addr.clone(),
        last_log: report.map_or(0, |report| report.last_log),
        applied,
        lag: if report.is_some() { newest.saturating_sub(applied) } else { newest },
        last_contact_ms: contact.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        digest: digest.unwrap_or_default(),
        version: member.version.clone(),
    }
}

/// Who votes, by this member's newest membership.
pub(crate) fn voters(core: &Core) -> Vec<MemberId> {
    let Some(raft) = core.raft() else { return Vec::new() };
    raft.metrics().borrow_watched().membership_config.membership().voter_ids().collect()
}

fn is_joint(core: &Core) -> bool {
    let Some(raft) = core.raft() else { return false };
    raft.metrics().borrow_watched().membership_config.membership().get_joint_config().len() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_found_by_index_and_bounded() {
        let book = DigestBook::default();
        for index in (0..2 * DIGESTS_MAX as u64).map(|number| number * 3) {
            book.note(index, Digest { sum: index, rows: 1 });
        }
        let newest = 3 * (2 * DIGESTS_MAX as u64 - 1);
        assert_eq!(book.at(newest), Some(Digest { sum: newest, rows: 1 }));
        assert_eq!(book.at(newest - 1), None);
        assert_eq!(book.at(0), None, "the oldest are dropped");
        let told = book.told(newest, Digest { sum: newest, rows: 1 });
        assert_eq!((told.len(), told.last()), (DIGESTS_TOLD, Some(&(newest, newest, 1))));
        book.note(5, Digest::default());
        assert_eq!(book.at(5), None, "an older index is not noted again");
    }

    /// Found by the fault tests: a member told the digest of index 70 as that of 69.
    #[test]
    fn a_report_names_the_index_of_the_digest_it_tells() {
        let book = DigestBook::default();
        let digest = |sum| Digest { sum, rows: 1 };
        assert_eq!(book.told(7, digest(7)), [(7, 7, 1)]);
        book.note(60, digest(60));
        book.note(70, digest(70));
        book.note(69, digest(69));
        assert_eq!(book.told(69, digest(69)), [(60, 60, 1), (69, 69, 1)]);
    }
}
