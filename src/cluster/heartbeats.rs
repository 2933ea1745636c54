//! The liveness book: when each node was last heard of.
//!
//! Heartbeats never become log entries. Any member takes them and records them here; a follower
//! folds them into one batch to the leader every 250 ms; the leader's answer carries what changed
//! in its book and the asker does not know, so that every member knows every age. A follower tells
//! a book that it has not seen before all that it knows itself, so that a new leader starts warm,
//! even one that was restarted a moment ago. Ages travel as durations, because members do not share
//! a clock. With them goes what the leader holds back: nodes that it gives nothing for a moment, so
//! that every member can say why a task waits.

use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::beat_book::{Book, Row};
use crate::clock;
use crate::model::{Load, NodeId, NodeStatus, TimeMs};

/// The most heartbeats, or ages, in one message.
pub(crate) const BEATS_MAX: usize = 10_000;

/// What a node said in its newest heartbeat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The status it gave itself, if it did.
    pub status: Option<NodeStatus>,
    /// Its figures, if it sent some.
    pub load: Option<Load>,
}

/// A heartbeat on its way to the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireBeat {
    /// Whose.
    pub node_id: NodeId,
    /// How long ago it came, when this was sent.
    pub age_ms: u64,
    /// What it said.
    pub beat: Beat,
}

/// A node's age on its way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireAge {
    /// Whose.
    pub node_id: NodeId,
    /// How long ago it was heard of, when this was sent.
    pub age_ms: u64,
    /// What it said.
    pub beat: Beat,
}

/// What is known of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Time since its newest heartbeat anywhere in the cluster.
    pub age: Duration,
    /// When that was, by this member's clock as it stood then: to be shown, not to be counted with.
    pub at_ms: TimeMs,
    /// What it said.
    pub beat: Beat,
}

impl Heard {
    fn of(row: &Row, now: Instant) -> Self {
        Self { age: now.duration_since(row.at), at_ms: row.at_ms, beat: row.beat }
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Heartbeats {
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    book: Book,
    /// Names this book while this member leads; 0 before it first answered.
    name: u64,
    /// The leader's book and change last seen, while this member follows.
    seen: (u64, u64),
    /// When this member last learnt what a leader's book says, if it ever followed.
    learnt_at: Option<Instant>,
    /// Nodes that the leader gives nothing now, in the order of ids, and until when.
    held: Vec<(NodeId, Instant)>,
}

impl Heartbeats {
    /// A heartbeat of `node_id` came to this member.
    pub fn record(&self, node_id: &NodeId, beat: Beat) {
        let book = &mut self.shelf.lock().book;
        book.merge(node_id, Instant::now(), beat);
        book.note_unsent(node_id);
    }

    /// Forgets a node that was removed.
    pub fn forget(&self, node_id: &NodeId) {
        self.shelf.lock().book.forget(node_id);
    }

    /// What is known of `node_id`, if it was ever heard of.
    #[must_use]
    pub fn heard(&self, node_id: &NodeId) -> Option<Heard> {
        let shelf = self.shelf.lock();
        shelf.book.row(node_id).map(|row| Heard::of(row, Instant::now()))
    }

    /// Everything known, in the order of ids.
    #[must_use]
    pub fn ages(&self) -> Vec<(NodeId, Heard)> {
        let now = Instant::now();
        let mut shelf = self.shelf.lock();
        shelf.book.in_order().map(|row| (row.node_id.clone(), Heard::of(row, now))).collect()
    }

    /// Replaces what is known of nodes that the leader gives nothing for a while.
    pub fn set_held(&self, held: Vec<(NodeId, Duration)>) {
        let now = Instant::now();
        let mut held: Vec<_> = held.into_iter().map(|(id, left)| (id, now + left)).collect();
        held.sort_unstable();
        held.truncate(BEATS_MAX);
        self.shelf.lock().held = held;
    }

    /// The nodes that the leader gives nothing now, in the order of ids: as it was a second or two
    /// ago, on a follower.
    #[must_use]
    pub fn held(&self) -> Vec<NodeId> {
        let now = Instant::now();
        let shelf = self.shelf.lock();
        let live = shelf.held.iter().filter(|(_, until)| *until > now);
        live.map(|(node_id, _)| node_id.clone()).collect()
    }

    /// On the leader: the same for a follower, with how long each is still held.
    pub(crate) fn held_ms(&self) -> Vec<(NodeId, u64)> {
        let now = Instant::now();
        let shelf = self.shelf.lock();
        let live = shelf.held.iter().filter(|(_, until)| *until > now);
        live.map(|(node_id, until)| (node_id.clone(), millis(*until - now))).collect()
    }

    /// On a follower: what the leader holds back.
    pub(crate) fn learn_held(&self, held: Vec<(NodeId, u64)>) {
        let longest = Duration::from_secs(3600);
        let left = |ms: u64| Duration::from_millis(ms).min(longest);
        self.set_held(held.into_iter().map(|(id, ms)| (id, left(ms))).collect());
    }

    /// Whether the leader has not been told of something yet.
    pub(crate) fn has_unsent(&self) -> bool {
        self.shelf.lock().book.has_unsent()
    }

    /// What the leader has not been told yet, also from the time when this member led, and what this member knows of the leader's book.
    pub(crate) fn take_unsent(&self) -> (Vec<WireBeat>, (u64, u64)) {
        let now = Instant::now();
        let mut shelf = self.shelf.lock();
        let beats = shelf.book.take_unsent(BEATS_MAX, |row| WireBeat {
            node_id: row.node_id.clone(),
            age_ms: millis(now.duration_since(row.at)),
            beat: row.beat,
        });
        (beats, shelf.seen)
    }

    /// Takes back what could not be delivered.
    pub(crate) fn put_back(&self, beats: &[WireBeat]) {
        let book = &mut self.shelf.lock().book;
        beats.iter().for_each(|beat| book.note_unsent(&beat.node_id));
    }

    /// On the leader: merges a follower's batch and answers what changed since it last asked. What
    /// the follower has just said itself is left out, unless more is known of that node here.
    pub(crate) fn answer(
        &self,
        beats: Vec<WireBeat>,
        book_name: u64,
        known: u64,
    ) -> (u64, u64, Vec<WireAge>) {
        let now = Instant::now();
        let shelf = &mut *self.shelf.lock();
        let before = shelf.book.change();
        let mut fuller = Vec::new();
        for WireBeat { node_id, age_ms, beat } in beats {
            let Some(at) = now.checked_sub(Duration::from_millis(age_ms)) else { continue };
            let merged = shelf.book.merge(&node_id, at, beat);
            if merged.is_some_and(|row| row.beat != beat) {
                fuller.push(node_id);
            }
        }
        if shelf.name == 0 {
            shelf.name = clock::random() | 1;
        }
        let known = if book_name == shelf.name { known } else { 0 };
        let age = |row: &Row| WireAge {
            node_id: row.node_id.clone(),
            age_ms: millis(now.duration_since(row.at)),
            beat: row.beat,
        };
        let mut newest = known;
        let mut ages = Vec::new();
        for row in shelf.book.changed(known, before).take(BEATS_MAX) {
            newest = row.change;
            ages.push(age(row));
        }
        if ages.len() < BEATS_MAX {
            // That was all: the rest is what the follower said.
            newest = shelf.book.change();
            ages.extend(fuller.iter().filter_map(|node_id| shelf.book.row(node_id)).map(age));
        }
        (shelf.name, newest, ages)
    }

    /// On a follower: what the leader's book says.
    pub(crate) fn learn(&self, book_name: u64, known: u64, ages: Vec<WireAge>) {
        let now = Instant::now();
        let mut shelf = self.shelf.lock();
        let knows_more = shelf.seen.0 != 0 || shelf.name != 0;
        if shelf.seen.0 != book_name && knows_more {
            // Before the leader's own rows join them: it need not be told of those. A member that
            // never followed or led has nothing but what it is about to tell anyway.
            shelf.book.note_all_unsent();
        }
        for age in ages {
            if let Some(at) = now.checked_sub(Duration::from_millis(age.age_ms)) {
                shelf.book.merge(&age.node_id, at, age.beat);
            }
        }
        shelf.seen = (book_name, known);
        shelf.learnt_at = Some(now);
    }

    /// This member led until then: up to there it has heard all that there was to hear.
    pub(crate) fn led_until(&self, at: Instant) {
        let mut shelf = self.shelf.lock();
        shelf.learnt_at = shelf.learnt_at.max(Some(at));
    }

    /// How long ago this member last learnt what a leader's book says. What the leader heard after
    /// that is lost when it dies.
    pub(crate) fn learnt_ago(&self) -> Option<Duration> {
        self.shelf.lock().learnt_at.map(|at| at.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> NodeId {
        NodeId::parse(text).unwrap()
    }

    fn beat(status: NodeStatus) -> Beat {
        Beat { status: Some(status), load: None }
    }

    /// One exchange between a follower and the leader.
    fn exchange(follower: &Heartbeats, leader: &Heartbeats) -> usize {
        let (beats, (book, known)) = follower.take_unsent();
        let (book, known, ages) = leader.answer(beats, book, known);
        let news = ages.len();
        follower.learn(book, known, ages);
        news
    }

    #[tokio::test(start_paused = true)]
    async fn followers_learn_every_age_and_only_what_is_new() {
        let (one, two, leader) =
            (Heartbeats::default(), Heartbeats::default(), Heartbeats::default());
        one.record(&id("a"), beat(NodeStatus::Active));
        tokio::time::advance(Duration::from_millis(100)).await;
        leader.record(&id("b"), beat(NodeStatus::Degraded));
        assert_eq!(exchange(&one, &leader), 1, "what it said itself is not told to it");
        assert_eq!(exchange(&two, &leader), 2);
        assert_eq!(exchange(&two, &leader), 0, "nothing is told twice");
        tokio::time::advance(Duration::from_millis(50)).await;
        let known = two.heard(&id("a")).unwrap();
        assert_eq!(known.age, Duration::from_millis(150));
        assert_eq!(two.heard(&id("b")).unwrap().beat, beat(NodeStatus::Degraded));
        one.record(&id("b"), beat(NodeStatus::Active));
        exchange(&one, &leader);
        assert_eq!(exchange(&two, &leader), 1);
        assert_eq!(two.heard(&id("b")).unwrap().beat, beat(NodeStatus::Active));
    }

    /// It was the time now less the age, both cut to milliseconds: one off every other time.
    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_heartbeat_reads_the_same_each_time() {
        clock::simulate(1);
        let step = Duration::from_micros(600);
        tokio::time::advance(step).await;
        let one = Heartbeats::default();
        one.record(&id("a"), beat(NodeStatus::Active));
        let first = one.heard(&id("a")).unwrap();
        tokio::time::advance(step).await;
        let second = one.ages().pop().unwrap().1;
        assert_eq!((second.age, second.at_ms), (step, first.at_ms));
    }

    #[tokio::test(start_paused = true)]
    async fn followers_learn_whom_the_leader_holds_back_and_for_how_long() {
        let (one, leader) = (Heartbeats::default(), Heartbeats::default());
        let held = [("b", 5), ("a", 2)].map(|(name, s)| (id(name), Duration::from_secs(s)));
        leader.set_held(held.to_vec());
        tokio::time::advance(Duration::from_secs(1)).await;
        one.learn_held(leader.held_ms());
        assert_eq!(one.held(), [id("a"), id("b")]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((one.held(), leader.held()), (vec![id("b")], vec![id("b")]));
        leader.set_held(Vec::new());
        one.learn_held(leader.held_ms());
        assert_eq!(one.held(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_starts_warm_and_tells_everything() {
        let (one, two, old) = (Heartbeats::default(), Heartbeats::default(), Heartbeats::default());
        for node in ["a", "b", "c"] {
            old.record(&id(node), beat(NodeStatus::Active));
        }
        exchange(&one, &old);
        tokio::time::advance(Duration::from_millis(40)).await;
        // `one` leads now; `two` never spoke to the old leader.
        assert_eq!(exchange(&two, &one), 3);
        assert_eq!(two.ages().len(), 3);
        assert!(two.ages().iter().all(|(_, heard)| heard.age == Duration::from_millis(40)));
    }

    /// It gave every node that had died before a full timeout anew.
    #[tokio::test(start_paused = true)]
    async fn a_leader_that_was_restarted_a_moment_ago_learns_every_age_from_the_others() {
        let (one, old) = (Heartbeats::default(), Heartbeats::default());
        old.record(&id("a"), beat(NodeStatus::Active));
        one.record(&id("b"), beat(NodeStatus::Active));
        exchange(&one, &old);
        exchange(&one, &old);
        tokio::time::advance(Duration::from_secs(9)).await;
        let restarted = Heartbeats::default();
        exchange(&one, &restarted);
        exchange(&one, &restarted);
        for node in ["a", "b"] {
            let heard = restarted.heard(&id(node)).unwrap();
            assert_eq!((heard.age, heard.beat), (Duration::from_secs(9), beat(NodeStatus::Active)));
        }
        assert!(!one.has_unsent(), "once is enough");
    }

    /// It took all that it had led for a time in which it had heard nothing.
    #[tokio::test(start_paused = true)]
    async fn a_member_that_led_knew_everything_until_it_stopped() {
        let (one, leader) = (Heartbeats::default(), Heartbeats::default());
        assert_eq!(one.learnt_ago(), None, "it has not followed yet");
        exchange(&one, &leader);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(one.learnt_ago(), Some(Duration::from_secs(3600)));
        one.led_until(Instant::now());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(one.learnt_ago(), Some(Duration::from_secs(1)));
    }

    /// A leader that was cut off for two minutes took itself for one that had heard everything.
    #[tokio::test(start_paused = true)]
    async fn a_leader_that_was_cut_off_knew_everything_until_it_was() {
        let (one, leader) = (Heartbeats::default(), Heartbeats::default());
        let quorum_at = Instant::now();
        tokio::time::advance(Duration::from_secs(120)).await;
        one.led_until(quorum_at);
        assert_eq!(one.learnt_ago(), Some(Duration::from_secs(120)));
        // What it learnt after that is not forgotten.
        exchange(&one, &leader);
        one.led_until(quorum_at);
        assert_eq!(one.learnt_ago(), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_heartbeat_does_not_replace_a_newer_one() {
        let (one, leader) = (Heartbeats::default(), Heartbeats::default());
        one.record(&id("a"), beat(NodeStatus::Degraded));
        tokio::time::advance(Duration::from_millis(10)).await;
        leader.record(&id("a"), beat(NodeStatus::Active));
        exchange(&one, &leader);
        assert_eq!(leader.heard(&id("a")).unwrap().beat, beat(NodeStatus::Active));
        assert_eq!(leader.heard(&id("a")).unwrap().age, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_sent_is_sent_later_and_the_forgotten_are_gone() {
        let one = Heartbeats::default();
        one.record(&id("a"), beat(NodeStatus::Active));
        one.record(&id("b"), beat(NodeStatus::Active));
        let (beats, _) = one.take_unsent();
        assert_eq!(beats.len(), 2);
        one.put_back(&beats);
        one.forget(&id("b"));
        let (beats, _) = one.take_unsent();
        assert_eq!(beats.len(), 1);
        assert!(one.heard(&id("b")).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn figures_that_only_the_leader_knows_come_back_with_a_heartbeat_without_any() {
        let (one, leader) = (Heartbeats::default(), Heartbeats::default());
        let load = Some(Load { cpu_milli: 5000, ..Load::default() });
        leader.record(&id("a"), Beat { status: None, load });
        tokio::time::advance(Duration::from_millis(10)).await;
        one.record(&id("a"), beat(NodeStatus::Active));
        tokio::time::advance(Duration::from_millis(10)).await;
        let (beats, (book, known)) = one.take_unsent();
        let (_, newest, ages) = leader.answer(beats, book, known);
        assert_eq!((newest, ages.len()), (2, 1));
        assert_eq!(ages[0].beat, Beat { status: Some(NodeStatus::Active), load });
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_was_restarted_learns_in_parts_what_it_had_said_itself() {
        let (before, after, leader) =
            (Heartbeats::default(), Heartbeats::default(), Heartbeats::default());
        for place in 0..=BEATS_MAX {
            before.record(&id(&format!("n{place}")), beat(NodeStatus::Active));
        }
        let told = [exchange(&before, &leader), exchange(&before, &leader)];
        assert_eq!(told, [0, 0]);
        let learnt = [(); 3].map(|()| exchange(&after, &leader));
        assert_eq!(learnt, [BEATS_MAX, 1, 0]);
        assert_eq!(after.ages().len(), BEATS_MAX + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_leader_heard_since_the_last_batch_reaches_the_next_leader() {
        let (old, new) = (Heartbeats::default(), Heartbeats::default());
        old.record(&id("a"), beat(NodeStatus::Active));
        exchange(&new, &old);
        tokio::time::advance(Duration::from_millis(100)).await;
        old.record(&id("b"), beat(NodeStatus::Active));
        tokio::time::advance(Duration::from_millis(100)).await;
        // `new` leads now.
        exchange(&old, &new);
        assert_eq!(new.heard(&id("a")).unwrap().age, Duration::from_millis(200));
        assert_eq!(new.heard(&id("b")).unwrap().age, Duration::from_millis(100));
    }
}
