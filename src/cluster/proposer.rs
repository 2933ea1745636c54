//! The one road to the log.
//!
//! Callers put encoded commands into a bounded queue; one task per member packs whatever is
//! waiting into an entry and sends it off, a few entries at a time. While they are on their way
//! the next batch forms, so commits are grouped under load and nothing waits on a timer when the
//! system is idle. On the leader an entry goes into the log; on a follower the same batch goes to
//! the leader's queue as one frame, at most one hop.
//!
//! What came of a batch is told to each of its callers as one of three: committed, certainly not
//! started, or unknown. [`super::Cluster::propose`] retries the last two under the same request
//! id; the state machine's record of requests makes that exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::ClientWriteError;
use openraft::impls::OneshotResponder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::core::{Core, Counters};
use super::error::NotStarted;
use super::frame;
use super::link::CallError;
use super::mirror::committed_leader;
use super::options::Limits;
use super::wire::{ProposeAnswer, RefusalCode, Request, Response};
use crate::model::MemberId;
use crate::state::{self, ENVELOPES_PER_ENTRY_MAX, Reply};
use crate::storage::EncodedEntry;

/// The longest a batch waits for the leader's answer, whatever its callers allow: long enough for
/// a slow disk, short enough that a silent leader does not hold the queue.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);

/// What came of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// One answer per envelope, and where the entry stands.
    Committed(u64, Vec<Reply>),
    /// Certainly not in the log, by this road.
    NotStarted(NotStarted),
    /// Perhaps in the log.
    Unknown,
    /// This member's Raft has stopped; perhaps in the log.
    Stopped,
}

/// Encoded envelopes that travel together.
pub(crate) struct Item {
    envelopes: Vec<Bytes>,
    bytes: usize,
    /// Only in this term, and only here: a duty's command.
    only_term: Option<u64>,
    /// It came from another member and goes no further.
    forwarded: bool,
    expires: Instant,
    stage: Arc<AtomicU8>,
    fate: oneshot::Sender<Fate>,
}

const QUEUED: u8 = 0;
const TAKEN: u8 = 1;
const CANCELLED: u8 = 2;

/// The caller's end of an [`Item`].
pub(crate) struct Ticket {
    stage: Arc<AtomicU8>,
    fate: oneshot::Receiver<Fate>,
}

impl Ticket {
    /// Waits for the fate until `deadline`; after it the item either never starts or is unknown.
    pub(crate) async fn wait(mut self, deadline: Instant) -> Fate {
        match timeout_at(deadline, &mut self.fate).await {
            Ok(Ok(fate)) => fate,
            Ok(Err(_dropped)) => self.give_up(Fate::Stopped),
            Err(_elapsed) => self.give_up(Fate::Unknown),
        }
    }

    fn give_up(&self, after_taken: Fate) -> Fate {
        let cancelled =
            self.stage.compare_exchange(QUEUED, CANCELLED, Ordering::AcqRel, Ordering::Acquire);
        if cancelled.is_ok() { Fate::NotStarted(NotStarted::NoLeader) } else { after_taken }
    }
}

/// The bounded queue in front of the packer.
pub(crate) struct Queue {
    items: mpsc::Sender<Item>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl Queue {
    /// The queue, and the end that [`run`] reads.
    pub(crate) fn new(limits: &Limits) -> (Self, mpsc::Receiver<Item>) {
        let (items, queue) = mpsc::channel(limits.queue_proposals);
        let bytes = Arc::new(AtomicUsize::new(0));
        (Self { items, bytes, bytes_max: limits.queue_bytes }, queue)
    }

    /// Puts envelopes into the queue, or refuses them at once.
    pub(crate) fn put(
        &self,
        envelopes: Vec<Bytes>,
        only_term: Option<u64>,
        forwarded: bool,
        expires: Instant,
    ) -> Result<Ticket, NotStarted> {
        let bytes: usize = envelopes.iter().map(Bytes::len).sum();
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // The first one may be larger than the bound; otherwise it could never pass.
        if before > 0 && before + bytes > self.bytes_max {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(NotStarted::Overloaded);
        }
        let stage = Arc::new(AtomicU8::new(QUEUED));
        let (tell, fate) = oneshot::channel();
        let item = Item {
            envelopes,
            bytes,
            only_term,
            forwarded,
            expires,
            stage: Arc::clone(&stage),
            fate: tell,
        };
        match self.items.try_send(item) {
            Ok(()) => Ok(Ticket { stage, fate }),
            Err(_full_or_closed) => {
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                Err(NotStarted::Overloaded)
            }
        }
    }

    fn took(&self, item: &Item) {
        self.bytes.fetch_sub(item.bytes, Ordering::Relaxed);
    }
}

/// Packs and sends until the queue closes.
pub(crate) async fn run(core: Arc<Core>, mut queue: mpsc::Receiver<Item>) {
    let limits = core.options.limits;
    let slots = Arc::new(Semaphore::new(limits.entries_in_flight));
    let mut held = None;
    loop {
        let first = match held.take() {
            Some(item) => item,
            None => match queue.recv().await {
                Some(item) => item,
                None => return,
            },
        };
        // Whoever comes while all entries are on their way is packed with `first`.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let (batch, rest) = gather(&core.queue, first, &mut queue, limits.entry_bytes);
        held = rest;
        if !batch.is_empty() {
            core.spawn(ship(Arc::clone(&core), batch, slot));
        }
    }
}

/// As many items as fit into one entry, and the one that did not.
fn gather(
    queue: &Queue,
    first: Item,
    more: &mut mpsc::Receiver<Item>,
    bytes_max: usize,
) -> (Vec<Item>, Option<Item>) {
    let now = Instant::now();
    let (mut batch, mut count, mut bytes) = (Vec::new(), 0, 0);
    let mut next = Some(first);
    while let Some(item) = next {
        let full = count + item.envelopes.len() > ENVELOPES_PER_ENTRY_MAX
            || bytes + item.bytes > bytes_max;
        if full && count > 0 {
            return (batch, Some(item));
        }
        queue.took(&item);
        let taken = item.stage.compare_exchange(QUEUED, TAKEN, Ordering::AcqRel, Ordering::Acquire);
        if taken.is_ok() && item.expires > now {
            count += item.envelopes.len();
            bytes += item.bytes;
            batch.push(item);
        } else if taken.is_ok() {
            tell(item, Fate::NotStarted(NotStarted::NoLeader));
        }
        next = more.try_recv().ok();
    }
    (batch, None)
}

fn tell(item: Item, fate: Fate) {
    // A caller that gave up meanwhile is told nothing.
    drop(item.fate.send(fate));
}

fn tell_all(items: Vec<Item>, fate: &Fate) {
    for item in items {
        tell(item, fate.clone());
    }
}

/// Sends one batch to where the log is written from, and tells its callers what came of it.
async fn ship(core: Arc<Core>, batch: Vec<Item>, _slot: OwnedSemaphorePermit) {
    let view = core.current();
    let (here, elsewhere): (Vec<_>, Vec<_>) = match view.leading {
        Some(term) => {
            batch.into_iter().partition(|item| item.only_term.is_none_or(|only| only == term))
        }
        None => batch.into_iter().partition(|item| item.only_term.is_none() && !item.forwarded),
    };
    tell_all(elsewhere, &Fate::NotStarted(NotStarted::NotLeader));
    if here.is_empty() {
        return;
    }
    match (view.leading, view.leader) {
        (Some(term), _) => commit(&core, here, term).await,
        (None, Some(leader)) if leader != core.member_id() => forward(&core, here, leader).await,
        (None, _) => tell_all(here, &Fate::NotStarted(NotStarted::NoLeader)),
    }
}

/// On the leader: stamps the time, writes one entry, and hands out the answers.
async fn commit(core: &Core, batch: Vec<Item>, term: u64) {
    let Some(raft) = core.raft() else {
        return tell_all(batch, &Fate::NotStarted(NotStarted::NotInitialized));
    };
    let envelopes: Vec<Bytes> =
        batch.iter().flat_map(|item| item.envelopes.iter().cloned()).collect();
    let entry = state::join_envelopes(core.time.now(0), &envelopes);
    Counters::add(&core.counters.entries, 1);
    Counters::add(&core.counters.entry_bytes, entry.len());
    let (responder, answer) = OneshotResponder::new_pair();
    let sent = raft
        .write(EncodedEntry(entry))
        // Should the leader change before openraft takes it up, nothing is written.
        .with_leader(committed_leader(term))
        .responder(responder)
        .await;
    if sent.is_err() {
        return tell_all(batch, &Fate::Stopped);
    }
    let latest = batch.iter().map(|item| item.expires).max().unwrap_or_else(Instant::now);
    let fate = match timeout_at(latest, answer).await {
        Ok(Ok(Ok(response))) => {
            return hand_out(batch, response.log_id.index, response.data.0);
        }
        Ok(Ok(Err(ClientWriteError::ForwardToLeader(_)))) => Fate::NotStarted(NotStarted::NoLeader),
        Ok(Ok(Err(_discarded))) => Fate::Unknown,
        Ok(Err(_stopped)) => Fate::Stopped,
        Err(_elapsed) => Fate::Unknown,
    };
    tell_all(batch, &fate);
}

fn hand_out(batch: Vec<Item>, index: u64, replies: Vec<Reply>) {
    let expected: usize = batch.iter().map(|item| item.envelopes.len()).sum();
    // An entry installed with a snapshot has no replies of its own: the request table has them.
    if replies.len() != expected {
        return tell_all(batch, &Fate::Unknown);
    }
    let mut replies = replies.into_iter();
    for item in batch {
        let own = replies.by_ref().take(item.envelopes.len()).collect();
        tell(item, Fate::Committed(index, own));
    }
}

/// On a follower: the batch joins the leader's queue.
async fn forward(core: &Core, batch: Vec<Item>, leader: MemberId) {
    let latest = batch.iter().map(|item| item.expires).max().unwrap_or_else(Instant::now);
    let limit = latest.saturating_duration_since(Instant::now()).min(FORWARD_TIMEOUT);
    let envelopes: Vec<Bytes> =
        batch.iter().flat_map(|item| item.envelopes.iter().cloned()).collect();
    let lens = envelopes.iter().map(|bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    let request = Request::Propose { lens: lens.collect() };
    Counters::add(&core.counters.forwarded, envelopes.len());
    let mut view = core.view.subscribe();
    let deposed = async {
        // The answer of a leader that was replaced may never come; asking the new one is safe.
        while view.borrow_and_update().leader.is_none_or(|now| now == leader) {
            // The sender lives in `core`, so the channel cannot close meanwhile.
            if view.changed().await.is_err() {
                return;
            }
        }
    };
    let answer = tokio::select! {
        biased;
        answer = core.peers.call(leader, &request, &envelopes, limit) => answer,
        () = deposed => Err(CallError::Lost("a leader that was replaced".to_owned())),
    };
    match answer {
        Ok(Response::Proposed(answers)) if answers.len() == envelopes.len() => {
            hand_out_forwarded(batch, answers);
        }
        Ok(_unexpected) => tell_all(batch, &Fate::Unknown),
        Err(CallError::Refused(refusal)) if refusal.code == RefusalCode::Busy => {
            tell_all(batch, &Fate::NotStarted(NotStarted::Overloaded));
        }
        Err(error) if error.never_received() => {
            tell_all(batch, &Fate::NotStarted(NotStarted::NoLeader));
        }
        Err(_perhaps_received) => tell_all(batch, &Fate::Unknown),
    }
}

fn hand_out_forwarded(batch: Vec<Item>, answers: Vec<ProposeAnswer>) {
    let mut answers = answers.into_iter();
    for item in batch {
        let own: Vec<_> = answers.by_ref().take(item.envelopes.len()).collect();
        let mut at = 0;
        let mut replies = Vec::with_capacity(own.len());
        let mut failed = None;
        for answer in own {
            match answer {
                ProposeAnswer::Committed { index, reply } => {
                    at = index;
                    replies.push(reply);
                }
                ProposeAnswer::NotStarted => {
                    failed = Some(Fate::NotStarted(NotStarted::NoLeader));
                }
                ProposeAnswer::Overloaded => {
                    failed = Some(Fate::NotStarted(NotStarted::Overloaded));
                }
                ProposeAnswer::Unknown => failed = Some(Fate::Unknown),
            }
        }
        tell(item, failed.unwrap_or(Fate::Committed(at, replies)));
    }
}

/// The leader's answer to a forwarded batch. The batch is one item, so all of it ends up in one
/// entry or nowhere.
pub(crate) async fn take_forwarded(core: &Core, lens: &[u32], attachment: Bytes) -> Response {
    let count = lens.len();
    let all = |answer: ProposeAnswer| Response::Proposed(vec![answer; count]);
    if core.current().leading.is_none() {
        return all(ProposeAnswer::NotStarted);
    }
    let Ok(envelopes) = frame::slices(attachment, lens) else {
        return all(ProposeAnswer::NotStarted);
    };
    if envelopes.is_empty() || envelopes.len() > ENVELOPES_PER_ENTRY_MAX {
        return all(ProposeAnswer::NotStarted);
    }
    if !envelopes.iter().all(|envelope| state::is_envelope(envelope)) {
        // A newer member's, which this one, and perhaps others, would stop at.
        warn!("commands that this version does not know were not put into the log");
        return all(ProposeAnswer::NotStarted);
    }
    let deadline = Instant::now() + FORWARD_TIMEOUT;
    let Ok(ticket) = core.queue.put(envelopes, None, true, deadline) else {
        return all(ProposeAnswer::Overloaded);
    };
    match ticket.wait(deadline).await {
        Fate::Committed(index, replies) => Response::Proposed(
            replies.into_iter().map(|reply| ProposeAnswer::Committed { index, reply }).collect(),
        ),
        Fate::NotStarted(NotStarted::Overloaded) => all(ProposeAnswer::Overloaded),
        Fate::NotStarted(_) => all(ProposeAnswer::NotStarted),
        Fate::Unknown | Fate::Stopped => all(ProposeAnswer::Unknown),
    }
}
