//! Changes of the membership, made by the leader: guarded, one at a time, and refused when they
//! would leave a majority of voters that cannot be reached.
//!
//! Every change names the membership it was decided on (`LastMembershipLogId`), so two changes can
//! never interleave. A change cut short leaves a joint configuration, which whoever leads next
//! finishes (see [`super::steward`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _, Precondition, RaftMetrics};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout, timeout_at};

use super::core::{Core, RaftHandle};
use super::error::{MembershipCode, MembershipError};
use super::pause::Pause;
use super::reads::{self, Consistency};
use super::wire::{Request, Response};
use super::{join, propose};
use crate::clock;
use crate::model::{Incarnation, Member, MemberId};
use crate::state::{Command, Outcome, Rejection};
use crate::storage::TypeConfig;

/// How long one change may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a hand-over may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);
/// A learner this close behind the leader can vote.
pub(crate) const LAG_SMALL: u64 = 256;

/// A change an operator can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// A learner gets a vote.
    Promote {
        /// Who.
        member_id: MemberId,
    },
    /// A voter becomes a learner.
    Demote {
        /// Who.
        member_id: MemberId,
    },
    /// A member leaves for good.
    Remove {
        /// Who.
        member_id: MemberId,
    },
    /// The leader hands its office over.
    TransferLeader {
        /// To whom; to the best suited without a name.
        to: Option<MemberId>,
    },
}

/// What a change came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReport {
    /// Who votes now.
    pub voters: Vec<MemberId>,
    /// Who gets the log without a vote.
    pub learners: Vec<MemberId>,
    /// Who leads.
    pub leader: Option<MemberId>,
}

type Metrics = RaftMetrics<TypeConfig>;
pub(crate) type ChangeResult<T> = Result<T, MembershipError>;

pub(crate) fn refuse<T>(code: MembershipCode, text: impl Into<String>) -> ChangeResult<T> {
    Err(MembershipError::new(code, text))
}

/// Asks for a change and holds on through elections, as a proposal does: a change can be repeated,
/// because it names what shall be, and one that an election cut short is finished by the next
/// leader.
pub(crate) async fn change_held(core: &Core, wanted: Change) -> ChangeResult<ChangeReport> {
    let deadline = Instant::now() + CHANGE_TIMEOUT;
    let mut pause = Pause::new();
    // Whether an earlier try of this request may have had an effect.
    let mut tried = false;
    loop {
        // A member that has ended waits for nobody: the pause would be over at once, each time.
        if let Some(why) = core.why_ended() {
            return refuse(MembershipCode::Stopped, why);
        }
        let error = match change(core, wanted, false).await {
            Ok(report) => return Ok(report),
            Err(error) => error,
        };
        let gone = tried && error.code == MembershipCode::UnknownMember;
        if gone && matches!(wanted, Change::Remove { .. }) {
            return Ok(report(core));
        }
        let passing = error.code == MembershipCode::NoLeader
            || (tried && error.code == MembershipCode::InProgress);
        if !passing || !pause.wait(core, deadline).await {
            return Err(error);
        }
        tried = true;
    }
}

/// Makes a change here, where this member leads, or has the leader make it.
pub(crate) async fn change(
    core: &Core,
    change: Change,
    forwarded: bool,
) -> ChangeResult<ChangeReport> {
    if core.raft().is_none() {
        return refuse(MembershipCode::NotInitialized, "this member belongs to no cluster yet");
    }
    let view = core.current();
    if view.leading.is_some() {
        return Box::pin(change_as_leader(core, change)).await;
    }
    let Some(leader) = view.leader.filter(|leader| !forwarded && *leader != core.member_id())
    else {
        return refuse(MembershipCode::NoLeader, "nobody leads at the moment; try again");
    };
    let request = Request::Change { change, forwarded: true };
    match core.peers.call(leader, &request, &[], CHANGE_TIMEOUT).await {
        Ok(Response::Changed(report)) => Ok(report),
        Ok(_unexpected) => refuse(MembershipCode::Refused, "the leader's answer makes no sense"),
        Err(super::link::CallError::Refused(refusal)) => Err(refusal.into()),
        Err(error) if error.never_received() => {
            refuse(MembershipCode::NoLeader, format!("the leader cannot be reached: {error}"))
        }
        Err(error) => refuse(MembershipCode::Timeout, error.to_string()),
    }
}

async fn change_as_leader(core: &Core, change: Change) -> ChangeResult<ChangeReport> {
    let Ok(_alone) = core.changing.try_lock() else {
        return refuse(MembershipCode::InProgress, "another change is under way");
    };
    // A leader decides nothing before a quorum confirmed it and its own first entry is applied.
    if let Err(error) = reads::barrier(core, Consistency::Linearizable).await {
        return refuse(MembershipCode::NoLeader, error.to_string());
    }
    match change {
        Change::Promote { member_id } => promote(core, member_id).await?,
        Change::Demote { member_id } => demote(core, member_id).await?,
        Change::Remove { member_id } if member_id == core.member_id() => {
            return remove_self(core, member_id).await;
        }
        Change::Remove { member_id } => remove(core, member_id).await?,
        Change::TransferLeader { to } => transfer(core, to).await?,
    }
    Ok(report(core))
}

fn report(core: &Core) -> ChangeReport {
    let Some(raft) = core.raft() else { return ChangeReport::default() };
    let metrics = raft.metrics().borrow_watched().clone();
    let membership = metrics.membership_config.membership();
    ChangeReport {
        voters: membership.voter_ids().collect(),
        learners: membership.learner_ids().collect(),
        leader: metrics.current_leader,
    }
}

/// What a change is decided on.
pub(crate) struct Situation {
    pub metrics: Metrics,
    pub voters: BTreeSet<MemberId>,
    pub reachable: BTreeSet<MemberId>,
}

impl Situation {
    /// # Errors
    /// When this member has no Raft, or a joint configuration is still to be finished.
    pub(crate) async fn look(core: &Core) -> ChangeResult<(&RaftHandle, Self)> {
        let Some(raft) = core.raft() else {
            return refuse(MembershipCode::NotInitialized, "this member belongs to no cluster yet");
        };
        let metrics = raft.metrics().borrow_watched().clone();
        if metrics.membership_config.membership().get_joint_config().len() > 1 {
            return refuse(MembershipCode::InProgress, "an earlier change is being finished");
        }
        let voters = metrics.membership_config.membership().voter_ids().collect();
        let reachable = reachable(core, &metrics).await;
        Ok((raft, Self { metrics, voters, reachable }))
    }

    /// Refuses `after` when the voters that answer a probe now would be no majority of it. Who
    /// acknowledged something a moment ago does not count: with a voter that is counted on and
    /// gone for good, the joint configuration could never be committed, nor taken back.
    pub(crate) async fn check_quorum(
        &self,
        core: &Core,
        after: &BTreeSet<MemberId>,
    ) -> ChangeResult<()> {
        let quorum = after.len() / 2 + 1;
        let config = &self.metrics.membership_config;
        let voters = config.nodes().filter(|(id, _)| after.contains(id));
        let answering = answering(core, voters).await.len();
        if !after.is_empty() && answering >= quorum {
            return Ok(());
        }
        refuse(
            MembershipCode::QuorumAtRisk,
            format!(
                "of the {} voters this change would leave, {answering} answer now and {quorum} are \
                 needed; bring the others back first, or remove those that are gone",
                after.len()
            ),
        )
    }

    fn guard(&self) -> [Precondition<TypeConfig>; 1] {
        let last_membership_log_id = *self.metrics.membership_config.log_id();
        [Precondition::LastMembershipLogId { last_membership_log_id }]
    }

    fn lag(&self, member_id: MemberId) -> Option<u64> {
        let matched = self.metrics.replication.as_ref()?.get(&member_id)?.as_ref()?.index;
        Some(self.metrics.last_log_index.unwrap_or(0).saturating_sub(matched))
    }
}

/// Who acknowledged anything within the last two election timeouts, or answers a probe now; the
/// leader itself among them.
async fn reachable(core: &Core, metrics: &Metrics) -> BTreeSet<MemberId> {
    let limit = core.options.timing.election_max() * 2;
    let heard = metrics.heartbeat.iter().flatten();
    let acknowledging = heard.filter(|(_, at)| at.as_ref().is_some_and(|at| at.elapsed() <= limit));
    let mut reachable: BTreeSet<MemberId> =
        acknowledging.map(|(id, _)| *id).chain([core.member_id()]).collect();
    // A leader that took office a moment ago has not heard from everybody yet.
    let silent = metrics.membership_config.nodes().filter(|(id, _)| !reachable.contains(id));
    let answering = answering(core, silent).await;
    reachable.extend(answering);
    reachable
}

/// Who of `members` answers a probe now, with the disk it is known by.
async fn answering(
    core: &Core,
    members: impl Iterator<Item = (&MemberId, &Member)>,
) -> Vec<MemberId> {
    let probes = members.map(|(id, member)| async move {
        join::is_alive(core, *id, member.incarnation).await.then_some(*id)
    });
    futures::future::join_all(probes).await.into_iter().flatten().collect()
}

/// Makes one guarded change and waits until it is committed in full.
pub(crate) async fn apply_change(
    raft: &RaftHandle,
    situation: &Situation,
    changes: ChangeMembers<MemberId, Member>,
    retain: bool,
) -> ChangeResult<()> {
    let changing = raft.change_membership_if(changes, retain, situation.guard());
    match timeout(CHANGE_TIMEOUT, changing).await {
        Ok(Ok(_response)) => Ok(()),
        Ok(Err(error)) => Err(explain(error)),
        Err(_elapsed) => refuse(
            MembershipCode::Timeout,
            "the change was not committed in time; the leader will finish or drop it",
        ),
    }
}

fn explain(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> MembershipError {
    let text = error.to_string();
    let code = match error {
        RaftError::Fatal(_) => MembershipCode::Stopped,
        RaftError::APIError(error) => match error {
            ClientWriteError::ForwardToLeader(_) => MembershipCode::NoLeader,
            ClientWriteError::LogEntryDiscarded(_) => MembershipCode::Timeout,
            ClientWriteError::PreconditionFailed(_) => MembershipCode::InProgress,
            ClientWriteError::ChangeMembershipError(error) => match error {
                ChangeMembershipError::InProgress(_)
                | ChangeMembershipError::UncommittedLeaderLog(_) => MembershipCode::InProgress,
                ChangeMembershipError::LearnerNotFound(_) => MembershipCode::UnknownMember,
                ChangeMembershipError::EmptyMembership(_)
                | ChangeMembershipError::UnsupportedMembershipTransition(_)
                | ChangeMembershipError::NodeMetadataChanged(_) => MembershipCode::Refused,
            },
        },
    };
    MembershipError::new(code, text)
}

fn unknown<T>(member_id: MemberId) -> ChangeResult<T> {
    refuse(MembershipCode::UnknownMember, format!("there is no member {member_id}"))
}

async fn promote(core: &Core, member_id: MemberId) -> ChangeResult<()> {
    let (raft, now) = Situation::look(core).await?;
    if now.metrics.membership_config.get_node(&member_id).is_none() {
        return unknown(member_id);
    }
    if now.voters.contains(&member_id) {
        return want_vote(core, member_id, true).await;
    }
    check_caught_up(&now, member_id)?;
    let mut after = now.voters.clone();
    after.insert(member_id);
    now.check_quorum(core, &after).await?;
    want_vote(core, member_id, true).await?;
    apply_change(raft, &now, ChangeMembers::AddVoterIds(BTreeSet::from([member_id])), true).await
}

/// Whether a learner answers and is close behind.
pub(crate) fn check_caught_up(now: &Situation, member_id: MemberId) -> ChangeResult<()> {
    match now.lag(member_id) {
        Some(lag) if lag <= LAG_SMALL && now.reachable.contains(&member_id) => Ok(()),
        Some(lag) if now.reachable.contains(&member_id) => refuse(
            MembershipCode::NotCaughtUp,
            format!("member {member_id} is {lag} entries behind; it can vote when it has them"),
        ),
        Some(_) | None => refuse(
            MembershipCode::NotCaughtUp,
            format!("member {member_id} does not answer the leader"),
        ),
    }
}

async fn demote(core: &Core, member_id: MemberId) -> ChangeResult<()> {
    let (raft, now) = Situation::look(core).await?;
    if now.metrics.membership_config.get_node(&member_id).is_none() {
        return unknown(member_id);
    }
    if !now.voters.contains(&member_id) {
        return want_vote(core, member_id, false).await;
    }
    let mut after = now.voters.clone();
    after.remove(&member_id);
    now.check_quorum(core, &after).await?;
    want_vote(core, member_id, false).await?;
    apply_change(raft, &now, ChangeMembers::RemoveVoters(BTreeSet::from([member_id])), true).await
}

async fn remove(core: &Core, member_id: MemberId) -> ChangeResult<()> {
    let (raft, now) = Situation::look(core).await?;
    let row = core.machine.read(|state| state.member(member_id).cloned());
    let node = now.metrics.membership_config.get_node(&member_id).cloned();
    let Some(member) = row.or_else(|| node.clone()) else { return unknown(member_id) };
    let votes = now.voters.contains(&member_id);
    if votes {
        let mut after = now.voters.clone();
        after.remove(&member_id);
        now.check_quorum(core, &after).await?;
    }
    // Cut short, the removal leaves a learner, which must not get its vote back, or somebody who
    // is only on record: the leader forgets those.
    want_vote(core, member_id, false).await?;
    if votes {
        let leaving = ChangeMembers::RemoveVoters(BTreeSet::from([member_id]));
        apply_change(raft, &now, leaving, false).await?;
    } else if node.is_some() {
        let leaving = ChangeMembers::RemoveNodes(BTreeSet::from([member_id]));
        apply_change(raft, &now, leaving, false).await?;
    }
    forget(core, member_id, &member).await
}

/// Puts on record whether a member shall vote. In the state machine, so that whoever leads next
/// knows it too; before the change itself, so that no leader undoes it.
async fn want_vote(core: &Core, member_id: MemberId, wanted: bool) -> ChangeResult<()> {
    if core.machine.read(|state| state.cluster_id()) == 0 {
        // Founders are not on record yet, so nothing could be noted of them.
        return refuse(MembershipCode::NoLeader, "the cluster is being founded; try again");
    }
    let news = core
        .machine
        .read(|state| state.member(member_id).is_some() && state.vote_wanted(member_id) != wanted);
    if news {
        submit(core, Command::WantVote { member_id, wanted }).await?;
    }
    Ok(())
}

/// Takes a member that left out of the state machine's table: its number is refused from now on.
pub(crate) async fn forget(core: &Core, member_id: MemberId, member: &Member) -> ChangeResult<()> {
    let command = Command::ForgetMember { member_id, incarnation: member.incarnation };
    submit(core, command).await?;
    core.refresh_roster();
    Ok(())
}

/// Proposes a command of this room and takes a refusal for one of the change.
pub(crate) async fn submit(core: &Core, command: Command) -> ChangeResult<Outcome> {
    let proposed = propose::propose(core, clock::mint_request_id(), "", command).await;
    match proposed {
        Ok(committed) => committed.reply.map_err(|rejection| rejected(&rejection)),
        Err(error) => refuse(MembershipCode::Timeout, error.to_string()),
    }
}

fn rejected(rejection: &Rejection) -> MembershipError {
    let code = match rejection {
        Rejection::MemberConflict { .. } => MembershipCode::Conflict,
        Rejection::MemberNotFound { .. } => MembershipCode::UnknownMember,
        Rejection::AlreadyInitialized => MembershipCode::AlreadyInitialized,
        _other_rooms => MembershipCode::Refused,
    };
    MembershipError::new(code, rejection.to_string())
}

/// A leader does not remove itself: it hands over, and its heir removes it.
async fn remove_self(core: &Core, member_id: MemberId) -> ChangeResult<ChangeReport> {
    let (_, now) = Situation::look(core).await?;
    let mut after = now.voters.clone();
    after.remove(&member_id);
    now.check_quorum(core, &after).await?;
    transfer(core, None).await?;
    let Some(heir) = core.current().leader.filter(|leader| *leader != member_id) else {
        return refuse(MembershipCode::NoLeader, "nobody leads at the moment; try again");
    };
    let request = Request::Change { change: Change::Remove { member_id }, forwarded: true };
    match core.peers.call(heir, &request, &[], CHANGE_TIMEOUT).await {
        Ok(Response::Changed(report)) => Ok(report),
        Ok(_unexpected) => refuse(MembershipCode::Refused, "the leader's answer makes no sense"),
        Err(super::link::CallError::Refused(refusal)) => Err(refusal.into()),
        Err(error) => refuse(MembershipCode::Timeout, error.to_string()),
    }
}

/// Hands the office to `to`, or to the voter that has most of the log.
pub(crate) async fn transfer(core: &Core, to: Option<MemberId>) -> ChangeResult<()> {
    let (raft, now) = Situation::look(core).await?;
    let own = core.member_id();
    let candidates = now.voters.iter().filter(|id| **id != own && now.reachable.contains(*id));
    let best = candidates.copied().min_by_key(|id| now.lag(*id).unwrap_or(u64::MAX));
    let heir = match to {
        Some(to) if to == own => return Ok(()),
        Some(to) if !now.voters.contains(&to) => {
            return refuse(MembershipCode::UnknownMember, format!("member {to} has no vote"));
        }
        Some(to) if !now.reachable.contains(&to) => {
            let text = format!("member {to} does not answer the leader");
            return refuse(MembershipCode::NotCaughtUp, text);
        }
        Some(to) => to,
        None => match best {
            Some(best) => best,
            None => return refuse(MembershipCode::QuorumAtRisk, "no other voter answers"),
        },
    };
    let deadline = Instant::now() + TRANSFER_TIMEOUT;
    if let Err(fatal) = raft.trigger().transfer_leader(heir).await {
        return refuse(MembershipCode::Stopped, fatal.to_string());
    }
    let mut view = core.view.subscribe();
    let done = view.wait_for(|view| view.leader.is_some_and(|leader| leader != own));
    match timeout_at(deadline, done).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => refuse(
            MembershipCode::Timeout,
            format!("member {heir} did not take over in time; this member may lead on"),
        ),
    }
}

/// Whether the Raft membership holds this number with this data directory.
pub(crate) fn is_member(core: &Core, member_id: MemberId, incarnation: Incarnation) -> bool {
    let Some(raft) = core.raft() else { return false };
    let config = raft.metrics().borrow_watched().membership_config.clone();
    config.get_node(&member_id).is_some_and(|member| member.incarnation == incarnation)
}

/// Adds a member as a learner; nothing to do when it is one.
pub(crate) async fn add_learner(
    core: &Core,
    member_id: MemberId,
    member: Member,
) -> ChangeResult<()> {
    let Ok(_alone) = core.changing.try_lock() else {
        return refuse(MembershipCode::InProgress, "another change is under way");
    };
    let (raft, now) = Situation::look(core).await?;
    if now.metrics.membership_config.get_node(&member_id).is_some() {
        return Ok(());
    }
    // Out of the membership and still on record: a removal is on its way, or was cut short.
    let leaving = core
        .machine
        .read(|state| state.member(member_id).is_none() || !state.vote_wanted(member_id));
    if leaving {
        return refuse(MembershipCode::InProgress, "this member is being removed");
    }
    let learner = ChangeMembers::AddNodes(BTreeMap::from([(member_id, member)]));
    apply_change(raft, &now, learner, true).await
}
