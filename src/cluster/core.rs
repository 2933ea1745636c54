//! What the parts of this room share: the member's seat, who leads, and whether it still serves.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant as _, Raft, ServerState};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::heartbeats::Heartbeats;
use super::options::ClusterOptions;
use super::peers::{Own, Peers, Roster};
use super::proposer::Queue;
use super::reads::Reads;
use super::state_time::StateTime;
use super::status::{DigestBook, StatusCache};
use crate::clock;
use crate::model::{Member, MemberId, TimeMs};
use crate::storage::{Keeper, Machine, SnapshotStore, StateMachine, Storage, TypeConfig};

/// openraft as this program uses it.
pub(crate) type RaftHandle = Raft<TypeConfig, StateMachine>;

/// A member's place in its cluster. Taken once; a member that gets another place starts anew.
pub(crate) struct Seat {
    pub cluster_id: u128,
    pub member_id: MemberId,
    pub raft: RaftHandle,
    /// Holds the data directory for this process.
    pub keeper: Keeper,
}

/// Who leads, as this member sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub term: u64,
    pub leader: Option<MemberId>,
    /// The term this member leads.
    pub leading: Option<u64>,
}

/// Views remembered, for drills.
const VIEWS_MAX: usize = 64;

/// Who this member saw leading, and from when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewChange {
    /// By this member's clock.
    pub at_ms: TimeMs,
    /// Its term.
    pub term: u64,
    /// Who leads, if anybody.
    pub leader: Option<MemberId>,
}

/// Numbers for the metrics page. They only grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub leader_changes: AtomicU64,
    pub proposals: AtomicU64,
    pub retries: AtomicU64,
    pub entries: AtomicU64,
    pub entry_bytes: AtomicU64,
    pub forwarded: AtomicU64,
    pub unknown: AtomicU64,
    pub overloaded: AtomicU64,
    pub read_rounds: AtomicU64,
    pub reads: AtomicU64,
    pub snapshots_installed: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// See the module's description.
pub(crate) struct Core {
    pub options: ClusterOptions,
    /// This member's own description, with its incarnation.
    pub member: Member,
    pub peers: Arc<Peers>,
    pub machine: Arc<Machine>,
    pub snapshots: SnapshotStore,
    /// What Raft runs on, until it runs.
    pub storage: tokio::sync::Mutex<Option<Storage>>,
    pub seat: OnceLock<Seat>,
    pub seated: watch::Sender<bool>,
    /// Since the start, everything that may have been shown before it was applied again.
    pub recovered: watch::Sender<bool>,
    pub view: watch::Sender<View>,
    /// The newest changes of the view, oldest first.
    pub views: Mutex<VecDeque<ViewChange>>,
    /// [`View::leading`] alone, for those who care for nothing else.
    pub leading: watch::Sender<Option<u64>>,
    pub queue: Queue,
    pub reads: Reads,
    pub heartbeats: Heartbeats,
    pub digests: DigestBook,
    pub status: StatusCache,
    pub counters: Counters,
    /// The time for the next entry.
    pub time: StateTime,
    /// Held while this leader changes the membership.
    pub changing: tokio::sync::Mutex<()>,
    /// When a leader was last heard of.
    contact: Mutex<Option<Instant>>,
    /// Its state is not the one its peers have.
    diverged: AtomicBool,
    /// Why this member serves nobody any more.
    pub ended: watch::Sender<Option<String>>,
    /// The founders this member was told of, before the log tells.
    pub founders: RwLock<Vec<(MemberId, Member)>>,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
}

impl Core {
    pub(crate) fn new(
        options: ClusterOptions,
        member: Member,
        peers: Arc<Peers>,
        storage: Storage,
        queue: Queue,
        reads: Reads,
    ) -> Self {
        Self {
            options,
            member,
            peers,
            machine: Arc::clone(&storage.view),
            snapshots: storage.snapshots.clone(),
            storage: tokio::sync::Mutex::new(Some(storage)),
            seat: OnceLock::new(),
            seated: watch::Sender::new(false),
            recovered: watch::Sender::new(false),
            view: watch::Sender::new(View::default()),
            views: Mutex::default(),
            leading: watch::Sender::new(None),
            queue,
            reads,
            heartbeats: Heartbeats::default(),
            digests: DigestBook::default(),
            status: StatusCache::default(),
            counters: Counters::default(),
            time: StateTime::default(),
            changing: tokio::sync::Mutex::new(()),
            contact: Mutex::new(None),
            diverged: AtomicBool::new(false),
            ended: watch::Sender::new(None),
            founders: RwLock::new(Vec::new()),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    pub(crate) fn raft(&self) -> Option<&RaftHandle> {
        self.seat.get().map(|seat| &seat.raft)
    }

    /// 0 before this member has a place.
    pub(crate) fn member_id(&self) -> MemberId {
        self.seat.get().map_or(0, |seat| seat.member_id)
    }

    pub(crate) fn current(&self) -> View {
        *self.view.borrow()
    }

    /// A leader was heard of.
    pub(crate) fn touch(&self) {
        *self.contact.lock() = Some(Instant::now());
    }

    /// Time since a leader was last heard of; none before the first time. A leader with a live
    /// quorum is in contact with itself.
    pub(crate) fn contact_age(&self) -> Option<Duration> {
        if self.current().leading.is_some()
            && let Some(raft) = self.raft()
        {
            let watched = raft.metrics();
            let metrics = watched.borrow_watched();
            // The only voter is a quorum by itself, and nobody acknowledges anything to it.
            if metrics.membership_config.membership().voter_ids().eq([self.member_id()]) {
                return Some(Duration::ZERO);
            }
            if let Some(at) = metrics.last_quorum_acked {
                return Some(at.elapsed());
            }
        }
        self.contact.lock().map(|at| at.elapsed())
    }

    /// Stops serving, for good and with a reason. The first reason stands.
    pub(crate) fn end(&self, why: impl Into<String>) {
        let why = why.into();
        self.ended.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                tracing::error!(why, "this member stops serving");
                *known = Some(why);
            }
            first
        });
    }

    /// As [`Self::end`], for a state that is not the one its peers have.
    pub(crate) fn end_diverged(&self, why: String) {
        self.diverged.store(true, Ordering::Release);
        self.end(why);
    }

    pub(crate) fn has_diverged(&self) -> bool {
        self.diverged.load(Ordering::Acquire)
    }

    pub(crate) fn why_ended(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    /// Starts a task that ends with this member.
    pub(crate) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Follows openraft's metrics: who leads, and whether the core still runs.
    pub(crate) async fn follow_raft(self: Arc<Self>) {
        let Some(raft) = self.raft() else { return };
        let mut metrics = raft.metrics();
        let mut membership = None;
        loop {
            let (next, newest_membership) = {
                let now = metrics.borrow_and_update();
                if let Err(fatal) = &now.running_state {
                    self.end(format!("raft: {fatal}"));
                }
                let leads = now.state == ServerState::Leader;
                let view = View {
                    term: now.current_term,
                    leader: now.current_leader,
                    leading: leads.then_some(now.current_term),
                };
                (view, *now.membership_config.log_id())
            };
            if membership != newest_membership {
                membership = newest_membership;
                self.refresh_roster();
            }
            self.view.send_if_modified(|view| {
                let changed = *view != next;
                if view.leader != next.leader && next.leader.is_some() {
                    Counters::add(&self.counters.leader_changes, 1);
                    tracing::info!(term = next.term, leader = next.leader, "leader changed");
                }
                if changed {
                    self.note_view(next);
                }
                *view = next;
                changed
            });
            self.leading.send_if_modified(|leading| {
                let changed = *leading != next.leading;
                *leading = next.leading;
                changed
            });
            if metrics.changed().await.is_err() {
                self.end("raft stopped");
                return;
            }
        }
    }

    fn note_view(&self, view: View) {
        let mut views = self.views.lock();
        if views.len() == VIEWS_MAX {
            views.pop_front();
        }
        let at_ms = clock::now_ms();
        views.push_back(ViewChange { at_ms, term: view.term, leader: view.leader });
    }

    /// Keeps the roster in step with the state machine's member table; [`Core::follow_raft`] does
    /// so with the Raft membership, which a member knows from its log before it applies anything.
    pub(crate) async fn follow_roster(self: Arc<Self>) {
        /// The member table is looked at again at most so often.
        const PAUSE: Duration = Duration::from_millis(100);
        let mut applied = self.machine.applied_watch();
        loop {
            applied.borrow_and_update();
            self.refresh_roster();
            tokio::time::sleep(PAUSE).await;
            if applied.changed().await.is_err() {
                return;
            }
        }
    }

    pub(crate) fn refresh_roster(&self) {
        let mut roster = Roster::default();
        roster.members.extend(self.founders.read().iter().cloned());
        if let Some(raft) = self.raft() {
            let membership = raft.metrics().borrow_watched().membership_config.clone();
            roster.members.extend(membership.nodes().map(|(id, member)| (*id, member.clone())));
        }
        let (rows, last_member_id) = self.machine.read(|state| {
            let rows: Vec<_> = state.members().map(|(id, member)| (id, member.clone())).collect();
            (rows, state.last_member_id())
        });
        if last_member_id > 0 {
            // The table knows who left; founders and old memberships do not.
            roster
                .members
                .retain(|id, _| *id > last_member_id || rows.iter().any(|(known, _)| known == id));
        }
        roster.members.extend(rows);
        roster.last_member_id = last_member_id;
        if self.peers.roster() != roster {
            self.peers.set_roster(roster);
        }
    }

    pub(crate) fn own(&self, cluster_id: u128, member_id: MemberId) -> Own {
        Own {
            cluster_id,
            member_id,
            incarnation: self.member.incarnation,
            name: self.member.name.clone(),
        }
    }
}
