//! Founding a cluster, once.
//!
//! Members find each other by probing their peers. When all expected founders are there, the one
//! whose name sorts first founds: it numbers them by name, tells each, waits until each has made
//! its identity durable, and initializes Raft alone. Whoever sees a peer that belongs to a cluster
//! already stands down and joins that one instead. Every step can be repeated: a founder that dies
//! in the middle finds the identity it gave out among its peers and goes on with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};

use super::core::Core;
use super::error::{MembershipCode, MembershipError};
use super::link::CallError;
use super::membership::{ChangeResult, refuse};
use super::options::Boot;
use super::status::{self, PeerReport};
use super::wire::{Request, Response};
use super::{join, membership};
use crate::clock;
use crate::model::{Member, MemberId};
use crate::state::Command;

/// From one look at the peers to the next.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// How long a peer may take to tell of itself.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a founder may take to make its identity durable and start Raft.
const FOUND_TIMEOUT: Duration = Duration::from_secs(10);
/// The same complaint is logged once in so many looks.
const COMPLAIN_EVERY: u32 = 25;

/// Looks for a place until this member's log holds something.
pub(crate) async fn run(core: Arc<Core>) {
    let peers = match &core.options.boot {
        Boot::Wait => Vec::new(),
        Boot::Expect { peers, .. } | Boot::Join { peers } => peers.clone(),
    };
    let mut looks: u32 = 0;
    while !initialized(&core) {
        if let Err(error) = look(&core, &peers).await {
            if looks.is_multiple_of(COMPLAIN_EVERY) {
                tracing::warn!(code = error.code.as_str(), %error, "no place in a cluster yet");
            }
            if error.code == MembershipCode::Removed {
                return core.end(error.to_string());
            }
            looks = looks.wrapping_add(1);
        }
        // Jitter, so that peers that started together do not stay in step.
        let jitter = Duration::from_millis(clock::random() % 50);
        tokio::time::sleep(LOOK_PAUSE + jitter).await;
    }
}

/// Whether Raft runs and its log holds something.
pub(crate) fn initialized(core: &Core) -> bool {
    core.raft().is_some_and(|raft| {
        let metrics = raft.metrics().borrow_watched().clone();
        metrics.last_log_index.is_some() || metrics.membership_config.log_id().is_some()
    })
}

/// Whether this member took part in anything yet: a founding can only be repeated before.
pub(crate) fn has_voted(core: &Core) -> bool {
    core.raft().is_some_and(|raft| raft.metrics().borrow_watched().current_term > 0)
}

async fn look(core: &Arc<Core>, peers: &[String]) -> ChangeResult<()> {
    let reports = probe(core, peers).await;
    let settled: Vec<_> =
        reports.iter().filter(|(_, report)| report.initialized && report.cluster_id != 0).collect();
    let own_cluster = core.seat.get().map(|seat| seat.cluster_id);
    if let Some(own) = own_cluster {
        if settled.iter().any(|(_, report)| report.cluster_id == own) {
            introduce(core, &settled).await;
            join::ask_to_be_enlisted(core).await?;
            // It may have moved before it was ever sent anything: then nobody can reach it.
            return join::announce_self(core).await;
        }
    } else if !settled.is_empty() {
        let addrs: Vec<_> = settled.iter().map(|(addr, _)| addr.clone()).collect();
        return join::ask_to_join(core, &addrs).await;
    }
    match &core.options.boot {
        Boot::Wait => Ok(()),
        Boot::Join { .. } => {
            refuse(MembershipCode::NoLeader, "none of the peers to join belongs to a cluster yet")
        }
        Boot::Expect { expect, .. } => expect_founders(core, *expect, reports).await,
    }
}

/// A member that restarted before it ever got the log knows nobody: it learns its peers' numbers
/// from their own reports.
async fn introduce(core: &Core, settled: &[&(String, PeerReport)]) {
    let known = settled.iter().map(|(_, report)| (report.member_id, report.member.clone()));
    core.founders.write().extend(known.filter(|(id, _)| *id != 0));
    core.refresh_roster();
}

/// What the peers say of themselves, by address; this member's own addresses are left out.
async fn probe(core: &Core, peers: &[String]) -> Vec<(String, PeerReport)> {
    let others: BTreeSet<&String> =
        peers.iter().filter(|addr| **addr != core.member.peer_addr).collect();
    let known: BTreeSet<String> = core
        .peers
        .roster()
        .members
        .into_iter()
        .filter(|(id, _)| *id != core.member_id())
        .map(|(_, member)| member.peer_addr)
        .collect();
    let addrs: BTreeSet<String> = others.into_iter().cloned().chain(known).collect();
    let probes = addrs.into_iter().map(|addr| async move {
        let answer = core.peers.call_addr(&addr, &Request::Probe, PROBE_TIMEOUT).await;
        (addr, answer)
    });
    let mut reports = Vec::new();
    for (addr, answer) in futures::future::join_all(probes).await {
        match answer {
            Ok(Response::Report(report))
                if report.member.incarnation != core.member.incarnation =>
            {
                reports.push((addr, *report));
            }
            Ok(_own_or_unexpected) => {}
            Err(error) => core.peers.note(0, Some(&error)),
        }
    }
    reports
}

async fn expect_founders(
    core: &Arc<Core>,
    expect: usize,
    reports: Vec<(String, PeerReport)>,
) -> ChangeResult<()> {
    let mut founders: BTreeMap<u64, PeerReport> = BTreeMap::new();
    founders.insert(core.member.incarnation, status::report(core));
    for (addr, report) in reports {
        if report.expect != expect as u64 {
            return refuse(
                MembershipCode::FoundersDisagree,
                format!(
                    "{} at {addr} expects {} founders, this member {expect}: make them agree",
                    report.member.name, report.expect
                ),
            );
        }
        founders.insert(report.member.incarnation, report);
    }
    if founders.len() < expect {
        let missing = expect - founders.len();
        return refuse(
            MembershipCode::FoundersDisagree,
            format!("waiting for {missing} of {expect} founders"),
        );
    }
    if founders.len() > expect {
        return refuse(
            MembershipCode::FoundersDisagree,
            format!("{} members answer, but {expect} founders are expected", founders.len()),
        );
    }
    let founders: Vec<PeerReport> = founders.into_values().collect();
    let first = founders.iter().map(|report| &report.member.name).min();
    if first == Some(&core.member.name) { found(core, founders).await } else { Ok(()) }
}

/// `cluster init`: founds with the members that answer at `addrs`, this one among them or not.
///
/// # Errors
/// [`MembershipError`] when one of them does not answer, or belongs to a cluster already.
pub(crate) async fn init(core: &Arc<Core>, addrs: &[String]) -> ChangeResult<()> {
    if initialized(core) {
        let text = "this member belongs to a cluster already";
        return refuse(MembershipCode::AlreadyInitialized, text);
    }
    let reports = probe(core, addrs).await;
    let answered: BTreeSet<&String> = reports.iter().map(|(addr, _)| addr).collect();
    let missing =
        addrs.iter().find(|addr| **addr != core.member.peer_addr && !answered.contains(addr));
    if let Some(missing) = missing {
        let text = format!("no member answers at {missing}");
        return refuse(MembershipCode::FoundersDisagree, text);
    }
    if let Some((addr, report)) = reports.iter().find(|(_, report)| report.initialized) {
        let text =
            format!("{} at {addr} belongs to a cluster already; join that one", report.member.name);
        return refuse(MembershipCode::AlreadyInitialized, text);
    }
    let mut founders = vec![status::report(core)];
    founders.extend(reports.into_iter().map(|(_, report)| report));
    found(core, founders).await
}

/// `cluster join`: asks the members at `addrs` for a place, and to be sent the log.
///
/// # Errors
/// [`MembershipError`] when this member has a place already, none of them has one, or they refuse.
pub(crate) async fn join(core: &Arc<Core>, addrs: &[String]) -> ChangeResult<()> {
    if initialized(core) {
        let text = "this member belongs to a cluster already";
        return refuse(MembershipCode::AlreadyInitialized, text);
    }
    let reports = probe(core, addrs).await;
    let settled: Vec<_> =
        reports.iter().filter(|(_, report)| report.initialized && report.cluster_id != 0).collect();
    if settled.is_empty() {
        let text = "none of these peers answers and belongs to a cluster";
        return refuse(MembershipCode::NoLeader, text);
    }
    if core.seat.get().is_none() {
        let addrs: Vec<_> = settled.iter().map(|(addr, _)| addr.clone()).collect();
        join::ask_to_join(core, &addrs).await?;
    }
    introduce(core, &settled).await;
    join::ask_to_be_enlisted(core).await
}

/// Numbers the founders by name.
fn number(founders: &[PeerReport]) -> ChangeResult<Vec<(MemberId, Member)>> {
    let mut members: Vec<Member> = founders.iter().map(|report| report.member.clone()).collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    for (place, one) in members.iter().enumerate() {
        for other in members.iter().skip(place + 1) {
            if one.name == other.name || one.peer_addr == other.peer_addr {
                let what = if one.name == other.name { &one.name } else { &one.peer_addr };
                return refuse(
                    MembershipCode::Conflict,
                    format!("two founders share {what}: give each its own name and address"),
                );
            }
        }
    }
    Ok((1..).zip(members).collect())
}

async fn found(core: &Arc<Core>, reports: Vec<PeerReport>) -> ChangeResult<()> {
    let founders = number(&reports)?;
    // A founding that was cut short left its id with those who had heard of it.
    let ids: BTreeSet<u128> =
        reports.iter().map(|report| report.cluster_id).filter(|id| *id != 0).collect();
    let cluster_id = match ids.len() {
        0 => u128::from(clock::random()) << 64 | u128::from(clock::random()) | 1,
        1 => ids.into_iter().next().expect("one id is there"),
        _ => {
            return refuse(
                MembershipCode::FoundersDisagree,
                "the founders were told of different clusters: wipe their data directories",
            );
        }
    };
    for (_, member) in founders.iter().filter(|(_, m)| m.incarnation != core.member.incarnation) {
        let request = Request::Found { cluster_id, founders: founders.clone() };
        match core.peers.call_addr(&member.peer_addr, &request, FOUND_TIMEOUT).await {
            Ok(Response::Done) => {}
            Ok(_unexpected) => {
                let text = format!("{} gave an answer that makes no sense", member.name);
                return refuse(MembershipCode::Refused, text);
            }
            Err(CallError::Refused(refusal)) => return Err(refusal.into()),
            Err(error) => {
                return refuse(MembershipCode::FoundersDisagree, error.to_string());
            }
        }
    }
    be_founded(core, cluster_id, founders.clone()).await?;
    initialize(core, founders).await
}

/// Every other founder has a durable identity now: write the first membership.
async fn initialize(core: &Core, founders: Vec<(MemberId, Member)>) -> ChangeResult<()> {
    let Some(raft) = core.raft() else {
        return refuse(MembershipCode::Stopped, "Raft did not start");
    };
    let cluster_id = core.seat.get().map_or(0, |seat| seat.cluster_id);
    let members: BTreeMap<MemberId, Member> = founders.iter().cloned().collect();
    tracing::info!(members = members.len(), "founding the cluster");
    match raft.initialize(members).await {
        // Somebody's entries came first: founded it is.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
            // Whoever leads sees to it too, a moment later.
            let name = Command::InitCluster { cluster_id, members: founders };
            membership::submit(core, name).await.map(drop)
        }
        Err(error) => refuse(MembershipCode::Refused, error.to_string()),
    }
}

/// Takes the seat that a founder gave this member.
///
/// # Errors
/// [`MembershipError`] when this member sits elsewhere, or is not among the founders.
pub(crate) async fn be_founded(
    core: &Arc<Core>,
    cluster_id: u128,
    founders: Vec<(MemberId, Member)>,
) -> Result<(), MembershipError> {
    let own = founders.iter().find(|(_, m)| m.incarnation == core.member.incarnation);
    let Some((member_id, _)) = own.cloned() else {
        let text = format!("{} is not among the founders", core.member.name);
        return refuse(MembershipCode::FoundersDisagree, text);
    };
    if let Boot::Expect { expect, .. } = &core.options.boot
        && founders.len() != *expect
    {
        let text = format!(
            "{} expects {expect} founders, and was told of {}",
            core.member.name,
            founders.len()
        );
        return refuse(MembershipCode::FoundersDisagree, text);
    }
    if initialized(core) || has_voted(core) {
        let text = format!("{} belongs to a cluster already", core.member.name);
        return refuse(MembershipCode::AlreadyInitialized, text);
    }
    check_replaced_founders(core, &founders).await?;
    let before = std::mem::replace(&mut *core.founders.write(), founders);
    match core.take_seat(cluster_id, member_id).await {
        Ok(true) => {
            core.refresh_roster();
            Ok(())
        }
        Ok(false) => {
            *core.founders.write() = before;
            let text = format!("{} was told of another cluster", core.member.name);
            refuse(MembershipCode::AlreadyInitialized, text)
        }
        Err(error) => refuse(MembershipCode::Stopped, error.to_string()),
    }
}

/// A founding may be repeated with a founder that lost its disk, but not beside it: two of one
/// name would found two clusters under one id.
async fn check_replaced_founders(core: &Core, founders: &[(MemberId, Member)]) -> ChangeResult<()> {
    let before = core.founders.read().clone();
    for (id, old) in before {
        let replaced = founders
            .iter()
            .any(|(_, new)| new.name == old.name && new.incarnation != old.incarnation);
        let probe = core.peers.call_addr(&old.peer_addr, &Request::Probe, PROBE_TIMEOUT);
        if replaced
            && let Ok(Response::Report(report)) = probe.await
            && report.member.incarnation == old.incarnation
        {
            return refuse(
                MembershipCode::Conflict,
                format!("another founder {id} called {} is alive", old.name),
            );
        }
    }
    Ok(())
}
