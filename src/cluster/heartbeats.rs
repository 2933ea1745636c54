//! The liveness book: when each node was last heard of.
//!
//! Heartbeats never become log entries. Any member takes them and records them here; a follower
//! folds them into one batch to the leader every 250 ms; the leader's answer carries what changed
//! in its book, so that every member knows every age and a new leader starts warm. Ages travel as
//! durations, because members do not share a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::clock;
use crate::model::{Load, NodeId, NodeStatus};

/// The most nodes remembered; the one unheard of for longest is forgotten first.
const NODES_MAX: usize = 100_000;
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
    /// What it said.
    pub beat: Beat,
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Heartbeats {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    nodes: BTreeMap<NodeId, Row>,
    /// Change numbers of `nodes`, oldest first.
    order: BTreeMap<u64, NodeId>,
    /// Recorded here and not yet sent to the leader.
    unsent: BTreeSet<NodeId>,
    /// Number of the newest change.
    change: u64,
    /// Names this book while this member leads; 0 before it first answered.
    name: u64,
    /// The leader's book and change last seen, while this member follows.
    seen: (u64, u64),
}

#[derive(Debug, Clone)]
struct Row {
    at: Instant,
    beat: Beat,
    change: u64,
}

impl Heartbeats {
    /// A heartbeat of `node_id` came to this member.
    pub fn record(&self, node_id: &NodeId, beat: Beat) {
        let mut book = self.book.lock();
        book.merge(node_id, Instant::now(), beat);
        book.unsent.insert(node_id.clone());
    }

    /// Forgets a node that was removed.
    pub fn forget(&self, node_id: &NodeId) {
        let mut book = self.book.lock();
        if let Some(row) = book.nodes.remove(node_id) {
            book.order.remove(&row.change);
        }
        book.unsent.remove(node_id);
    }

    /// What is known of `node_id`, if it was ever heard of.
    #[must_use]
    pub fn heard(&self, node_id: &NodeId) -> Option<Heard> {
        let book = self.book.lock();
        book.nodes.get(node_id).map(|row| Heard { age: row.at.elapsed(), beat: row.beat })
    }

    /// Everything known, by node.
    #[must_use]
    pub fn ages(&self) -> Vec<(NodeId, Heard)> {
        let now = Instant::now();
        let book = self.book.lock();
        let heard = |row: &Row| Heard { age: now.duration_since(row.at), beat: row.beat };
        book.nodes.iter().map(|(node_id, row)| (node_id.clone(), heard(row))).collect()
    }

    /// What the leader has not been told yet, and what this member knows of the leader's book.
    pub(crate) fn take_unsent(&self) -> (Vec<WireBeat>, (u64, u64)) {
        let now = Instant::now();
        let mut book = self.book.lock();
        let mut beats = Vec::with_capacity(book.unsent.len().min(BEATS_MAX));
        while beats.len() < BEATS_MAX {
            let Some(node_id) = book.unsent.pop_first() else { break };
            if let Some(row) = book.nodes.get(&node_id) {
                let (age_ms, beat) = (millis(now.duration_since(row.at)), row.beat);
                beats.push(WireBeat { node_id, age_ms, beat });
            }
        }
        (beats, book.seen)
    }

    /// Takes back what could not be delivered.
    pub(crate) fn put_back(&self, beats: Vec<WireBeat>) {
        self.book.lock().unsent.extend(beats.into_iter().map(|beat| beat.node_id));
    }

    /// On the leader: merges a follower's batch and answers what changed since it last asked.
    pub(crate) fn answer(
        &self,
        beats: Vec<WireBeat>,
        book_name: u64,
        known: u64,
    ) -> (u64, u64, Vec<WireAge>) {
        let now = Instant::now();
        let mut book = self.book.lock();
        for beat in beats {
            if let Some(at) = now.checked_sub(Duration::from_millis(beat.age_ms)) {
                book.merge(&beat.node_id, at, beat.beat);
            }
        }
        if book.name == 0 {
            book.name = clock::random() | 1;
        }
        let known = if book_name == book.name { known } else { 0 };
        let mut newest = known;
        let mut ages = Vec::new();
        for (change, node_id) in book.order.range(known + 1..).take(BEATS_MAX) {
            newest = *change;
            if let Some(row) = book.nodes.get(node_id) {
                let age_ms = millis(now.duration_since(row.at));
                ages.push(WireAge { node_id: node_id.clone(), age_ms, beat: row.beat });
            }
        }
        (book.name, newest, ages)
    }

    /// On a follower: what the leader's book says.
    pub(crate) fn learn(&self, book_name: u64, known: u64, ages: Vec<WireAge>) {
        let now = Instant::now();
        let mut book = self.book.lock();
        for age in ages {
            if let Some(at) = now.checked_sub(Duration::from_millis(age.age_ms)) {
                book.merge(&age.node_id, at, age.beat);
            }
        }
        book.seen = (book_name, known);
    }
}

impl Book {
    /// Keeps the newer of two heartbeats.
    fn merge(&mut self, node_id: &NodeId, at: Instant, beat: Beat) {
        let mut beat = beat;
        if let Some(row) = self.nodes.get(node_id) {
            if row.at >= at {
                return;
            }
            // A heartbeat without figures does not erase the last ones.
            beat.load = beat.load.or(row.beat.load);
            self.order.remove(&row.change);
        } else if self.nodes.len() >= NODES_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.nodes.remove(&oldest);
            self.unsent.remove(&oldest);
        }
        self.change += 1;
        self.order.insert(self.change, node_id.clone());
        self.nodes.insert(node_id.clone(), Row { at, beat, change: self.change });
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
        assert_eq!(exchange(&one, &leader), 2);
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
        one.put_back(beats);
        one.forget(&id("b"));
        let (beats, _) = one.take_unsent();
        assert_eq!(beats.len(), 1);
        assert!(one.heard(&id("b")).is_none());
    }
}
