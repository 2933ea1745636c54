//! Who of a fleet is declared dead, and when: the dying ones should be, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::framing::find;
use super::template::{NUMBER, read_number};
use super::watch::Observer;

/// So many of those that were declared dead while they lived are named.
const NAMED_MAX: usize = 10;

/// The nodes of one run; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Deaths {
    prefix: Arc<str>,
    nodes: u64,
    dying: u64,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// From when on it counts who is declared dead, and the moment of death.
    expected: Option<(Instant, Instant)>,
    /// The dying, and how long after it that was known.
    noticed: BTreeMap<u64, Duration>,
    /// The others.
    falsely: BTreeSet<u64>,
}

/// What was seen of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// From the moment of death to the event that says so, of each node in question.
    pub noticed: Vec<Duration>,
    /// Dying nodes of which no event told.
    pub unnoticed: u64,
    /// Nodes that were declared dead while they beat.
    pub falsely_dead: u64,
    /// The first of them.
    pub named: Vec<String>,
}

impl Deaths {
    /// Nodes whose ids are `prefix` and a number below `nodes`, of which `dying` will die.
    #[must_use]
    pub(super) fn new(prefix: &str, nodes: u64, dying: u64) -> Self {
        Self { prefix: prefix.into(), nodes, dying, inner: Arc::default() }
    }

    /// They die at `dies_at`; what is declared before `from` does not count.
    pub(super) fn expect(&self, from: Instant, dies_at: Instant) {
        self.inner.lock().expected = Some((from, dies_at));
    }

    /// Whether the node of this number is one that dies. They stand evenly among the others, and
    /// with that in time: their last heartbeats are spread over a whole period.
    #[must_use]
    pub(super) fn is_dying(&self, number: u64) -> bool {
        // The n-th of them stands where n times the distance, rounded up, comes to.
        number * self.dying / self.nodes != (number + 1) * self.dying / self.nodes
    }

    /// What was seen so far.
    #[must_use]
    pub(super) fn seen(&self) -> Seen {
        let inner = self.inner.lock();
        let noticed: Vec<Duration> = inner.noticed.values().copied().collect();
        let name = |number: &u64| format!("{}{number:0width$}", self.prefix, width = NUMBER.len());
        Seen {
            unnoticed: self.dying - noticed.len() as u64,
            noticed,
            falsely_dead: inner.falsely.len() as u64,
            named: inner.falsely.iter().take(NAMED_MAX).map(name).collect(),
        }
    }
}

impl Observer for Deaths {
    fn observe(&self, event: &[u8], now: Instant) {
        if find(event, b"\"new\":\"offline\"").is_none() {
            return;
        }
        let Some(at) = find(event, self.prefix.as_bytes()) else { return };
        let Some(number) = read_number(&event[at + self.prefix.len()..]) else { return };
        let mut inner = self.inner.lock();
        let Some((from, dies_at)) = inner.expected.filter(|(from, _)| *from <= now) else {
            return;
        };
        debug_assert!(from <= dies_at);
        if self.is_dying(number) && now >= dies_at {
            inner.noticed.entry(number).or_insert(now - dies_at);
        } else {
            inner.falsely.insert(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offline(number: u64) -> Vec<u8> {
        let fact = format!(
            r#"{{"type":"node_status_changed","node_id":"r-{number:012}","old":"active","new":"offline"}}"#
        );
        format!("id: 7-0\ndata: {fact}").into_bytes()
    }

    #[test]
    fn the_dying_are_counted_and_evenly_spread() {
        for (nodes, dying) in [(10_000, 100), (10, 3), (7, 6), (5, 0), (1000, 1)] {
            let deaths = Deaths::new("r-", nodes, dying);
            let chosen: Vec<u64> = (0..nodes).filter(|n| deaths.is_dying(*n)).collect();
            assert_eq!(chosen.len() as u64, dying, "{nodes} {dying}");
            let far = chosen.windows(2).map(|two| two[1] - two[0]).max().unwrap_or(0);
            assert!(far <= nodes.div_ceil(dying.max(1)), "{chosen:?}");
        }
    }

    #[test]
    fn deaths_are_told_from_mistakes() {
        let (deaths, now) = (Deaths::new("r-", 4, 2), Instant::now());
        let at = |secs| now + Duration::from_secs(secs);
        deaths.observe(&offline(0), now);
        deaths.expect(at(10), at(20));
        deaths.observe(&offline(0), at(9));
        assert_eq!(deaths.seen().falsely_dead, 0, "before it counts");
        let dying: Vec<u64> = (0..4).filter(|n| deaths.is_dying(*n)).collect();
        let living: Vec<u64> = (0..4).filter(|n| !deaths.is_dying(*n)).collect();
        deaths.observe(&offline(dying[0]), at(23));
        deaths.observe(&offline(dying[0]), at(25));
        deaths.observe(&offline(living[1]), at(30));
        deaths.observe(br#"{"node_id":"r-000000000001","old":"offline","new":"active"}"#, at(31));
        let seen = deaths.seen();
        assert_eq!((seen.noticed, seen.unnoticed), (vec![Duration::from_secs(3)], 1));
        assert_eq!(seen.falsely_dead, 1);
        assert_eq!(seen.named, [format!("r-{:012}", living[1])]);
    }

    #[test]
    fn a_death_before_its_time_is_a_mistake() {
        let (deaths, now) = (Deaths::new("r-", 1, 1), Instant::now());
        deaths.expect(now, now + Duration::from_secs(9));
        deaths.observe(&offline(0), now + Duration::from_secs(1));
        assert_eq!(deaths.seen().falsely_dead, 1);
    }
}
