//! Joining: a newcomer, or a member that lost its disk, gets a number of its own from the state
//! machine, makes its identity durable, and only then asks to be sent the log.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::error::MembershipCode;
use super::link::CallError;
use super::membership::{self, ChangeResult, refuse};
use super::wire::{Request, Response};
use crate::model::{Incarnation, Member, MemberId};
use crate::state::{Command, Outcome};

/// How long the leader may take to give a number, or to add a learner.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a predecessor's process may take to show that it lives.
const ALIVE_TIMEOUT: Duration = Duration::from_millis(500);

/// Answers a newcomer: on the leader with a number, elsewhere with the leader's answer.
pub(crate) async fn join(core: &Core, member: Member, forwarded: bool) -> ChangeResult<Response> {
    if core.raft().is_none() {
        return refuse(MembershipCode::NotInitialized, "this member belongs to no cluster yet");
    }
    if core.current().leading.is_none() {
        let request = Request::Join { member, forwarded: true };
        return pass_on(core, request, forwarded).await;
    }
    if core.machine.read(|state| state.cluster_id()) == 0 {
        // The founders' numbers are not on record yet: one of them would be given out again.
        return refuse(MembershipCode::NoLeader, "the cluster is being founded; try again");
    }
    check_predecessor(core, &member).await?;
    let cluster_id = core.seat.get().map_or(0, |seat| seat.cluster_id);
    match membership::submit(core, Command::AllocateMember(member)).await? {
        Outcome::MemberAllocated { member_id, replaces } => {
            core.refresh_roster();
            tracing::info!(member_id, replaces, "gave a number to a joining member");
            Ok(Response::Joined { cluster_id, member_id, replaces })
        }
        other => refuse(MembershipCode::Refused, format!("an unexpected outcome: {other:?}")),
    }
}

/// Two members with one name are refused while the older one lives: it is a wrong configuration
/// then, and not a lost disk.
async fn check_predecessor(core: &Core, member: &Member) -> ChangeResult<()> {
    for (id, known) in core.peers.roster().members {
        if known.name == member.name
            && known.incarnation != member.incarnation
            && is_alive(core, id, known.incarnation).await
        {
            return refuse(
                MembershipCode::PredecessorAlive,
                format!(
                    "member {id} is called {} too, and answers: give this member another name, or \
                     remove that one first",
                    member.name
                ),
            );
        }
    }
    Ok(())
}

/// Whether the data directory `incarnation` still answers under the number `id`.
pub(crate) async fn is_alive(core: &Core, id: MemberId, incarnation: Incarnation) -> bool {
    if id == core.member_id() {
        return true;
    }
    let answer = core.peers.call(id, &Request::Probe, &[], ALIVE_TIMEOUT).await;
    matches!(answer, Ok(Response::Report(report))
        if report.member_id == id && report.member.incarnation == incarnation)
}

/// Adds a member whose identity is durable to those that are sent the log.
pub(crate) async fn enlist(
    core: &Core,
    member_id: MemberId,
    member: Member,
    forwarded: bool,
) -> ChangeResult<()> {
    if core.raft().is_none() {
        return refuse(MembershipCode::NotInitialized, "this member belongs to no cluster yet");
    }
    if core.current().leading.is_none() {
        let request = Request::Enlist { member_id, member, forwarded: true };
        return pass_on(core, request, forwarded).await.map(drop);
    }
    if membership::is_member(core, member_id, member.incarnation) {
        return Ok(());
    }
    let (known, last_member_id) =
        core.machine.read(|state| (state.member(member_id).cloned(), state.last_member_id()));
    match known {
        Some(known) if known.incarnation == member.incarnation => {
            membership::add_learner(core, member_id, known).await
        }
        Some(_) => refuse(
            MembershipCode::Conflict,
            format!("member {member_id} is known on another disk; join anew"),
        ),
        None if member_id > last_member_id => {
            refuse(MembershipCode::NoLeader, "the leader has not caught up yet; try again")
        }
        None => refuse(
            MembershipCode::Removed,
            format!("member {member_id} left this cluster for good; join anew"),
        ),
    }
}

/// Puts on record where a member is now.
pub(crate) async fn announce(
    core: &Core,
    member_id: MemberId,
    member: Member,
    forwarded: bool,
) -> ChangeResult<()> {
    if core.raft().is_none() {
        return refuse(MembershipCode::NotInitialized, "this member belongs to no cluster yet");
    }
    if core.current().leading.is_none() {
        let request = Request::Announce { member_id, member, forwarded: true };
        return pass_on(core, request, forwarded).await.map(drop);
    }
    if core.machine.read(|state| state.cluster_id()) == 0 {
        return refuse(MembershipCode::NoLeader, "the cluster is being founded; try again");
    }
    let command = Command::AnnounceMember { member_id, member };
    membership::submit(core, command).await.map(drop)
}

async fn pass_on(core: &Core, request: Request, forwarded: bool) -> ChangeResult<Response> {
    let leader = core.current().leader.filter(|leader| *leader != core.member_id());
    let Some(leader) = leader.filter(|_| !forwarded) else {
        return refuse(MembershipCode::NoLeader, "nobody leads at the moment; try again");
    };
    match core.peers.call(leader, &request, &[], STEP_TIMEOUT).await {
        Ok(response) => Ok(response),
        Err(CallError::Refused(refusal)) => Err(refusal.into()),
        Err(error) => refuse(MembershipCode::NoLeader, error.to_string()),
    }
}

/// The newcomer's side: asks the peers in turn for a number, and takes the seat.
pub(crate) async fn ask_to_join(core: &Arc<Core>, peers: &[String]) -> ChangeResult<()> {
    let mut last = refuse(MembershipCode::NoLeader, "no peer answered");
    for addr in peers {
        let request = Request::Join { member: core.member.clone(), forwarded: false };
        match core.peers.call_addr(addr, &request, STEP_TIMEOUT).await {
            Ok(Response::Joined { cluster_id, member_id, replaces }) => {
                if let Some(old) = replaces {
                    tracing::warn!(member_id, old, "this disk is new: its predecessor is replaced");
                }
                return match core.take_seat(cluster_id, member_id).await {
                    Ok(true) => Ok(()),
                    Ok(false) => refuse(MembershipCode::Conflict, "this member sits elsewhere"),
                    Err(error) => refuse(MembershipCode::Stopped, error.to_string()),
                };
            }
            Ok(_unexpected) => {}
            Err(CallError::Refused(refusal)) => last = Err(refusal.into()),
            Err(error) => {
                tracing::debug!(%error, addr, "a peer did not answer a join");
            }
        }
    }
    last
}

/// Asks to be sent the log, until it comes. Afterwards this member is a learner that the leader
/// promotes by itself.
pub(crate) async fn ask_to_be_enlisted(core: &Core) -> ChangeResult<()> {
    let member_id = core.member_id();
    let request = Request::Enlist { member_id, member: core.member.clone(), forwarded: false };
    ask_any(core, request).await
}

/// Tells the cluster where this member is. Its leader may not be able to reach it at its old
/// address, so this member cannot count on knowing who leads.
pub(crate) async fn announce_self(core: &Core) -> ChangeResult<()> {
    let (member_id, member) = (core.member_id(), core.member.clone());
    if core.current().leading.is_some() {
        return announce(core, member_id, member, false).await;
    }
    ask_any(core, Request::Announce { member_id, member, forwarded: false }).await
}

/// Asks one member after the other until one sees to it.
async fn ask_any(core: &Core, request: Request) -> ChangeResult<()> {
    let member_id = core.member_id();
    let others: BTreeSet<MemberId> = core.peers.roster().members.into_keys().collect();
    let mut last = refuse(MembershipCode::NoLeader, "no member answered");
    for id in others.into_iter().filter(|id| *id != member_id) {
        match core.peers.call(id, &request, &[], STEP_TIMEOUT).await {
            Ok(_done) => return Ok(()),
            Err(CallError::Refused(refusal)) => last = Err(refusal.into()),
            Err(error) => tracing::debug!(%error, id, "a member did not answer"),
        }
    }
    last
}
