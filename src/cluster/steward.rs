//! What keeps a membership in order once the cluster runs.
//!
//! On every member: it announces its addresses when they changed, sends node heartbeats to the
//! leader, and keeps digests of its state. On the leader too: it names the cluster, finishes a
//! change that was cut short, gives learners their vote when they have caught up and stayed so,
//! and compares digests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::core::Core;
use super::error::MembershipCode;
use super::membership::{ChangeResult, Situation, apply_change, check_caught_up, forget, submit};
use super::reads::{self, Consistency};
use super::wire::{Request, Response};
use super::{bootstrap, join, status};
use crate::model::MemberId;
use crate::state::{Command, Digest};

/// From one look at the membership to the next.
const ROUND: Duration = Duration::from_millis(250);
/// A joint configuration older than this is finished by the leader.
const JOINT_MAX: Duration = Duration::from_secs(1);
/// Digests are compared so often.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// Node heartbeats go to the leader so often, when there are some.
const BEAT_EVERY: Duration = Duration::from_millis(250);
/// Followers ask for the leader's book at least so often.
const BOOK_EVERY: Duration = Duration::from_secs(1);
/// A learner that no leader sent anything for so long asks for its place again,
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1);
/// and again after so long.
const SEEK_EVERY: Duration = Duration::from_secs(1);
/// How long the leader may take to answer a batch of heartbeats.
const BEAT_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs until the member stops.
pub(crate) async fn run(core: Arc<Core>) {
    core.spawn(sample_digests(Arc::clone(&core)));
    core.spawn(send_beats(Arc::clone(&core)));
    core.spawn(heed_removal(Arc::clone(&core)));
    let mut round = interval(ROUND);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut duties = Duties::default();
    let mut announced = false;
    let mut sought = Instant::now();
    loop {
        round.tick().await;
        announce(&core, &mut announced).await;
        seek_place(&core, &mut sought).await;
        if core.current().leading.is_some() {
            duties.lead(&core).await;
        } else {
            duties = Duties::default();
        }
    }
}

/// What the leader remembers between rounds; dropped when it leads no longer.
#[derive(Default)]
struct Duties {
    joint_since: Option<Instant>,
    caught_up_since: BTreeMap<MemberId, Instant>,
    compared_at: Option<Instant>,
}

impl Duties {
    async fn lead(&mut self, core: &Arc<Core>) {
        name_cluster(core).await;
        self.finish_joint(core).await;
        self.promote_learners(core).await;
        finish_removals(core).await;
        if self.compared_at.is_none_or(|at| at.elapsed() >= COMPARE_EVERY) {
            self.compared_at = Some(Instant::now());
            compare_digests(core).await;
        }
    }

    /// A leader that died in the middle of a change left both the old and the new voters in
    /// charge; the change is carried to its end. Whoever was to leave stays on as a learner.
    async fn finish_joint(&mut self, core: &Core) {
        let Some(raft) = core.raft() else { return };
        let config = raft.metrics().borrow_watched().membership_config.clone();
        if config.membership().get_joint_config().len() < 2 {
            self.joint_since = None;
            return;
        }
        let since = *self.joint_since.get_or_insert_with(Instant::now);
        let Ok(_alone) = core.changing.try_lock() else { return };
        if since.elapsed() < JOINT_MAX {
            return;
        }
        self.joint_since = None;
        tracing::warn!("finishing a change of the membership that was cut short");
        let last_membership_log_id = *config.log_id();
        let guard = [openraft::Precondition::LastMembershipLogId { last_membership_log_id }];
        let flatten = ChangeMembers::AddVoterIds(BTreeSet::new());
        let finishing = raft.change_membership_if(flatten, true, guard);
        if let Ok(Err(error)) = tokio::time::timeout(JOINT_MAX * 5, finishing).await {
            tracing::warn!(%error, "could not finish it; trying again");
        }
    }

    /// Every learner that joined to vote gets its vote, whoever led when it joined and however
    /// often it was restarted since: what is wanted stands in the state machine.
    async fn promote_learners(&mut self, core: &Core) {
        let Some(raft) = core.raft() else { return };
        let config = raft.metrics().borrow_watched().membership_config.clone();
        let learners: Vec<MemberId> = config.membership().learner_ids().collect();
        let waiting: Vec<MemberId> = core
            .machine
            .read(|state| learners.into_iter().filter(|id| state.vote_wanted(*id)).collect());
        self.caught_up_since.retain(|id, _| waiting.contains(id));
        if waiting.is_empty() {
            return;
        }
        let Ok((_, now)) = Situation::look(core).await else { return };
        for member_id in waiting {
            if check_caught_up(&now, member_id).is_err() {
                self.caught_up_since.remove(&member_id);
                continue;
            }
            let since = *self.caught_up_since.entry(member_id).or_insert_with(Instant::now);
            if since.elapsed() < core.options.promote_after {
                continue;
            }
            match promote(core, member_id).await {
                Ok(()) => {
                    tracing::info!(member_id, "a learner that caught up votes now");
                    // What was looked at is of the past now.
                    return;
                }
                Err(error) => {
                    self.caught_up_since.remove(&member_id);
                    tracing::warn!(member_id, code = error.code.as_str(), %error,
                        "a learner cannot vote yet");
                }
            }
        }
    }
}

/// Gives a learner its vote. When it replaces a lost member of its name, that one loses its vote
/// in the same change, so the number of voters needed for a quorum does not grow in between.
async fn promote(core: &Core, member_id: MemberId) -> ChangeResult<()> {
    let Ok(_alone) = core.changing.try_lock() else {
        return super::membership::refuse(
            MembershipCode::InProgress,
            "another change is under way",
        );
    };
    // Whoever leads since a moment ago may not have applied yet that the vote was taken away.
    if let Err(error) = reads::barrier(core, Consistency::Linearizable).await {
        return super::membership::refuse(MembershipCode::NoLeader, error.to_string());
    }
    if !core.machine.read(|state| state.vote_wanted(member_id)) {
        let text = "it was made a learner meanwhile";
        return super::membership::refuse(MembershipCode::Refused, text);
    }
    let roster = core.peers.roster().members;
    let name = roster.get(&member_id).map(|member| member.name.clone());
    let older = roster
        .iter()
        .filter(|(id, member)| **id != member_id && Some(&member.name) == name.as_ref());
    let older: Vec<_> = older.map(|(id, member)| (*id, member.clone())).collect();
    for (id, member) in &older {
        if join::is_alive(core, *id, member.incarnation).await {
            return super::membership::refuse(
                MembershipCode::PredecessorAlive,
                format!("member {id}, which it would replace, answers"),
            );
        }
    }
    let (raft, now) = Situation::look(core).await?;
    check_caught_up(&now, member_id)?;
    let leaving: BTreeSet<MemberId> = older
        .iter()
        .map(|(id, _)| *id)
        .filter(|id| now.metrics.membership_config.get_node(id).is_some())
        .collect();
    let mut after: BTreeSet<MemberId> = now.voters.difference(&leaving).copied().collect();
    after.insert(member_id);
    now.check_quorum(core, &after).await?;
    let change = if leaving.is_empty() {
        ChangeMembers::AddVoterIds(BTreeSet::from([member_id]))
    } else {
        ChangeMembers::ReplaceAllVoters(after)
    };
    apply_change(raft, &now, change, leaving.is_empty()).await?;
    for (id, member) in &older {
        forget(core, *id, member).await?;
    }
    Ok(())
}

/// A removal that was cut short took the member out of Raft's membership and left it on record:
/// it would wait for ever, because nobody turns it away. A disk that was replaced before it was
/// ever sent the log is forgotten likewise.
async fn finish_removals(core: &Core) {
    let Some(raft) = core.raft() else { return };
    let Ok(_alone) = core.changing.try_lock() else { return };
    let config = raft.metrics().borrow_watched().membership_config.clone();
    let left: Vec<_> = core.machine.read(|state| {
        let gone = |id: &MemberId| config.get_node(id).is_none() && !state.vote_wanted(*id);
        let left = state.members().filter(|(id, _)| gone(id));
        left.map(|(id, member)| (id, member.clone())).collect()
    });
    for (member_id, member) in left {
        tracing::warn!(member_id, "finishing the removal of a member that was cut short");
        if let Err(error) = forget(core, member_id, &member).await {
            tracing::warn!(member_id, %error, "could not finish it; trying again");
            return;
        }
    }
}

/// The first leader gives the state machine the cluster's name and its founders.
async fn name_cluster(core: &Core) {
    let (Some(seat), Some(raft)) = (core.seat.get(), core.raft()) else { return };
    let config = raft.metrics().borrow_watched().membership_config.clone();
    let members: Vec<_> = config.nodes().map(|(id, member)| (*id, member.clone())).collect();
    if members.is_empty() || core.machine.read(|state| state.cluster_id()) != 0 {
        return;
    }
    let command = Command::InitCluster { cluster_id: seat.cluster_id, members };
    if let Err(error) = submit(core, command).await {
        tracing::warn!(%error, "the cluster has no name yet");
    }
}

/// Tells the cluster where this member is: once after each start, because its own state may be
/// too old to tell whether the cluster knows, and whenever the record differs.
async fn announce(core: &Core, announced: &mut bool) {
    let member_id = core.member_id();
    let known = core.machine.read(|state| state.member(member_id).cloned());
    let differs = known.is_some_and(|known| known != core.member);
    if (*announced && !differs) || !bootstrap::initialized(core) {
        return;
    }
    match join::announce_self(core).await {
        Ok(()) => *announced = true,
        Err(error) if error.code == MembershipCode::NoLeader => {}
        Err(error) => {
            if core.peers.may_log("announce", super::wire::RefusalCode::Membership) {
                tracing::warn!(code = error.code.as_str(), %error,
                    "could not announce where this member is");
            }
        }
    }
}

/// A learner is sent the log as soon as its leader has written down that it is one. When that leader
/// is lost before the change was committed, the next one may never have heard of the learner, which
/// waits for ever unless it asks again.
async fn seek_place(core: &Core, sought: &mut Instant) {
    let heard = core.contact_age().is_some_and(|age| age < FORGOTTEN_AFTER);
    if heard || sought.elapsed() < SEEK_EVERY || !bootstrap::initialized(core) {
        return;
    }
    *sought = Instant::now();
    if status::voters(core).contains(&core.member_id()) {
        return;
    }
    match join::ask_to_be_enlisted(core).await {
        Err(error) if error.code == MembershipCode::Removed => core.end(error.to_string()),
        Ok(()) | Err(_) => {}
    }
}

/// Stops a member that the others say has left for good, or whose number belongs to another disk.
async fn heed_removal(core: Arc<Core>) {
    let mut turned_away = core.peers.turned_away();
    if let Ok(refusal) = turned_away.wait_for(Option::is_some).await
        && let Some(refusal) = &*refusal
    {
        core.end(refusal.to_string());
    }
}

/// Notes the digest of each state this member comes to rest in, for others to compare.
async fn sample_digests(core: Arc<Core>) {
    let mut applied = core.machine.applied_watch();
    loop {
        let (index, digest) = core.machine.digest();
        core.digests.note(index, digest);
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// The leader compares its peers' digests with its own at indexes that both have seen, and tells
/// whoever differs. When a majority agrees on another digest, the leader itself is the one.
async fn compare_digests(core: &Arc<Core>) {
    let gathered = status::gather(core).await;
    let mut differing = Vec::new();
    let mut agreeing = 0_usize;
    for (id, report) in &gathered.reports {
        if *id == core.member_id() || report.ended.is_some() {
            continue;
        }
        let verdicts = report.digests.iter().rev().filter_map(|(index, sum, rows)| {
            let own = core.digests.at(*index)?;
            Some((*index, own, own == Digest { sum: *sum, rows: *rows }))
        });
        match verdicts.into_iter().next() {
            Some((index, own, false)) => differing.push((*id, index, own)),
            Some((_, _, true)) => agreeing += 1,
            None => {}
        }
    }
    if differing.is_empty() {
        return;
    }
    if differing.len() > agreeing + 1 {
        let index = differing.first().map_or(0, |(_, index, _)| *index);
        return core.end_diverged(format!(
            "this member's state differs from its peers' at index {index}: move its data directory \
             away and let it join anew"
        ));
    }
    for (id, index, own) in differing {
        tracing::error!(member = id, index, "a member's state differs from the leader's");
        let request = Request::Diverged { index, digest: (own.sum, own.rows) };
        if let Err(error) = core.peers.call(id, &request, &[], BEAT_TIMEOUT).await {
            tracing::warn!(%error, member = id, "could not tell it");
        }
    }
}

/// The leader says that this member's state differs: believed when it does, at that index.
pub(crate) fn hear_divergence(core: &Core, from: MemberId, index: u64, digest: (u64, u64)) {
    let theirs = Digest { sum: digest.0, rows: digest.1 };
    match core.digests.at(index) {
        Some(own) if own != theirs => core.end_diverged(format!(
            "this member's state differs from the leader's (member {from}) at index {index}: \
             {own}, not {theirs}. Move its data directory away and let it join anew"
        )),
        Some(_) | None => {}
    }
}

/// Folds node heartbeats into one batch to the leader, and learns the leader's book.
async fn send_beats(core: Arc<Core>) {
    let mut tick = interval(BEAT_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut asked_at, mut held_at) = (None::<Instant>, None::<Instant>);
    let mut led_at = None::<Instant>;
    loop {
        tick.tick().await;
        let view = core.current();
        if view.leading.is_some() {
            // Its own book holds them; the next leader is told, because it may not have asked since.
            // One that is cut off goes on leading, and hears nothing of what its successor hears.
            let sure_at = core.contact_age().and_then(|age| Instant::now().checked_sub(age));
            led_at = sure_at.or(led_at);
            continue;
        }
        if let Some(at) = led_at.take() {
            core.heartbeats.led_until(at);
        }
        let due = asked_at.is_none_or(|at| at.elapsed() >= BOOK_EVERY);
        let leader = view.leader.filter(|_| due || core.heartbeats.has_unsent());
        let Some(leader) = leader else { continue };
        let (beats, (book, known)) = core.heartbeats.take_unsent();
        // In a large fleet most nodes may be held back, and each answer would name them all.
        let asks_held = held_at.is_none_or(|at| at.elapsed() >= BOOK_EVERY);
        let request = Request::Beats { beats, book, known, held: asks_held };
        let answer = core.peers.call(leader, &request, &[], BEAT_TIMEOUT).await;
        asked_at = Some(Instant::now());
        match (answer, request) {
            (Ok(Response::Ages { book, known, ages, held }), _) => {
                core.heartbeats.learn(book, known, ages);
                if let Some(held) = held {
                    core.heartbeats.learn_held(held);
                    held_at = asked_at;
                }
            }
            (Ok(_) | Err(_), Request::Beats { beats, .. }) => core.heartbeats.put_back(&beats),
            (Ok(_) | Err(_), _) => {}
        }
    }
}
