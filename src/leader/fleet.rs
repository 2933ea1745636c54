//! What the leader knows of nodes beyond the replicated state, in memory only: fresher load
//! figures, and nodes that asked not to be called for a while. Dropped with the reign.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::seat::Sighting;
use crate::model::{Load, NodeId};

/// The first hold after a node could not be reached; it doubles with each failure in a row.
const UNREACHABLE_HOLD: Duration = Duration::from_secs(1);
/// No hold after failures is longer: the liveness watch decides about the rest.
const UNREACHABLE_HOLD_MAX: Duration = Duration::from_secs(16);
/// The first hold after an agent had no room: its steps are short. It doubles with each refusal in a
/// row, so that what it refuses for another reason does not go to it and back four times a second.
const FULL_HOLD: Duration = Duration::from_millis(250);
/// Whoever has room again is not left alone for longer, unless an answer says so before.
const FULL_HOLD_MAX: Duration = Duration::from_secs(4);

/// Fresh load figures by node.
#[derive(Debug, Default)]
pub struct Loads {
    /// What nodes said, in the order of ids; shared with the look that it was read for.
    sightings: Arc<Vec<Sighting>>,
    /// Figures of nodes that said nothing, in the order of ids.
    silent: Vec<(NodeId, Load)>,
}

impl Loads {
    /// Figures of nodes that said something and of nodes that did not, both in the order of ids.
    #[must_use]
    pub fn new(sightings: Arc<Vec<Sighting>>, silent: Vec<(NodeId, Load)>) -> Self {
        Self { sightings, silent }
    }

    /// Those of one node.
    #[must_use]
    pub fn get(&self, node_id: &NodeId) -> Option<&Load> {
        let said = self.sightings.binary_search_by(|seen| seen.node_id.cmp(node_id)).ok();
        said.and_then(|place| self.sightings[place].load.as_ref()).or_else(|| {
            let place = self.silent.binary_search_by(|(silent, _)| silent.cmp(node_id)).ok()?;
            Some(&self.silent[place].1)
        })
    }
}

/// Looks things up in a list that is in the order of ids, by ids that come in that order too: one
/// pass over both instead of a search each.
#[derive(Debug)]
pub(super) struct InOrder<'a, T> {
    rest: &'a [T],
    id: fn(&T) -> &NodeId,
}

impl<'a, T> InOrder<'a, T> {
    /// Begins at the front of `list`.
    pub(super) fn new(list: &'a [T], id: fn(&T) -> &NodeId) -> Self {
        Self { rest: list, id }
    }

    /// What stands under `node_id`, which is behind all that were asked for before.
    pub(super) fn get(&mut self, node_id: &NodeId) -> Option<&'a T> {
        while let Some((first, rest)) = self.rest.split_first() {
            match (self.id)(first).cmp(node_id) {
                Ordering::Less => self.rest = rest,
                Ordering::Equal => {
                    self.rest = rest;
                    return Some(first);
                }
                Ordering::Greater => break,
            }
        }
        None
    }
}

/// See the module's description. Shared by the duties of one reign.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    loads: Mutex<Arc<Loads>>,
    holds: Mutex<BTreeMap<NodeId, Hold>>,
    changed: Mutex<BTreeMap<NodeId, Instant>>,
    latencies: Mutex<BTreeMap<NodeId, u32>>,
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    until: Instant,
    failures: u32,
}

impl Fleet {
    /// The newest load figures.
    #[must_use]
    pub(super) fn loads(&self) -> Arc<Loads> {
        Arc::clone(&self.loads.lock())
    }

    /// Replaces the load figures.
    pub(super) fn set_loads(&self, loads: Loads) {
        *self.loads.lock() = Arc::new(loads);
    }

    /// Notes how long a node took to answer a probe.
    pub(super) fn set_latency(&self, node_id: &NodeId, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.latencies.lock().insert(node_id.clone(), micros);
    }

    /// Writes how far nodes are, in microseconds and as far as it was measured, into what they said
    /// of themselves. Gives the same of nodes that said nothing. All in the order of ids.
    #[must_use]
    pub(super) fn add_latencies(&self, sightings: &mut [Sighting]) -> Vec<(NodeId, u32)> {
        let mut silent = Vec::new();
        let mut place = 0;
        for (node_id, latency_us) in self.latencies.lock().iter() {
            let smaller = |seen: &&Sighting| seen.node_id < *node_id;
            place += sightings[place..].iter().take_while(smaller).count();
            let said = sightings.get_mut(place).filter(|seen| seen.node_id == *node_id);
            match said.and_then(|seen| seen.load.as_mut()) {
                Some(load) => load.latency_us = *latency_us,
                None => silent.push((node_id.clone(), *latency_us)),
            }
        }
        silent
    }

    /// Notes that a node asked not to be called for `wait`.
    pub(super) fn hold(&self, node_id: &NodeId, wait: Duration) {
        let hold = Hold { until: Instant::now() + wait, failures: 0 };
        self.holds.lock().insert(node_id.clone(), hold);
    }

    /// Notes that a node could not be reached: it is left alone for a moment, longer each time,
    /// so that tasks wait for it instead of using up their retries on it.
    pub(super) fn unreachable(&self, node_id: &NodeId) {
        self.fails(node_id, UNREACHABLE_HOLD, UNREACHABLE_HOLD_MAX);
    }

    /// Notes that an agent had no room: it is left alone for a moment, longer each time.
    pub(super) fn full(&self, node_id: &NodeId) {
        self.fails(node_id, FULL_HOLD, FULL_HOLD_MAX);
    }

    fn fails(&self, node_id: &NodeId, first: Duration, max: Duration) {
        let mut holds = self.holds.lock();
        let now = Instant::now();
        let failures = match holds.get(node_id) {
            // Calls that were under way together fail together: they count once.
            Some(hold) if hold.until > now => return,
            Some(hold) => hold.failures + 1,
            None => 1,
        };
        let wait = (first * 2u32.pow((failures - 1).min(8))).min(max);
        holds.insert(node_id.clone(), Hold { until: now + wait, failures });
    }

    /// Notes that a node answered, or registered again.
    pub(super) fn reached(&self, node_id: &NodeId) {
        self.holds.lock().remove(node_id);
    }

    /// How long a node is still to be left alone.
    #[must_use]
    pub(super) fn held_for(&self, node_id: &NodeId) -> Option<Duration> {
        let hold = *self.holds.lock().get(node_id)?;
        let left = hold.until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// The nodes that are to be left alone now, in order, and when the first of them is free.
    #[must_use]
    pub(super) fn held(&self) -> (Vec<NodeId>, Option<Instant>) {
        let now = Instant::now();
        let holds = self.holds.lock();
        let live = holds.iter().filter(|(_, hold)| hold.until > now);
        let first = live.clone().map(|(_, hold)| hold.until).min();
        (live.map(|(node_id, _)| node_id.clone()).collect(), first)
    }

    /// The same with how long each is still to be left alone, in order.
    #[must_use]
    pub(super) fn holds(&self) -> Vec<(NodeId, Duration)> {
        let now = Instant::now();
        let holds = self.holds.lock();
        let left = holds.iter().map(|(id, hold)| (id, hold.until.saturating_duration_since(now)));
        left.filter(|(_, left)| !left.is_zero()).map(|(id, left)| (id.clone(), left)).collect()
    }

    /// Notes that a node registered or its status changed. A registration proves a node as alive
    /// as a heartbeat does, and heartbeats from before a change say nothing about what came after.
    pub(super) fn changed(&self, node_id: &NodeId) {
        self.changed.lock().insert(node_id.clone(), Instant::now());
    }

    /// How long ago nodes registered or changed, as far as this reign saw it, in the order of ids.
    /// Forgets what is older than `kept` tells of the node: nothing depends on it any more.
    #[must_use]
    pub(super) fn changes(&self, kept: impl Fn(&NodeId) -> Duration) -> Vec<(NodeId, Duration)> {
        let now = Instant::now();
        let mut changed = self.changed.lock();
        changed.retain(|node_id, at| now.duration_since(*at) < kept(node_id));
        changed.iter().map(|(node_id, at)| (node_id.clone(), now.duration_since(*at))).collect()
    }

    /// Forgets a node that was taken out.
    pub(super) fn forget(&self, node_id: &NodeId) {
        self.holds.lock().remove(node_id);
        self.changed.lock().remove(node_id);
        self.latencies.lock().remove(node_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn holds_grow_with_failures_and_end_with_an_answer() {
        let fleet = Fleet::default();
        let node = NodeId::trusted("n");
        for expected_s in [1, 2, 4, 8, 16, 16] {
            fleet.unreachable(&node);
            fleet.unreachable(&node);
            assert_eq!(fleet.held_for(&node), Some(Duration::from_secs(expected_s)));
            tokio::time::advance(Duration::from_secs(expected_s)).await;
            assert_eq!(fleet.held_for(&node), None);
        }
        fleet.reached(&node);
        fleet.unreachable(&node);
        assert_eq!(fleet.held_for(&node), Some(Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_refuses_again_and_again_is_asked_less_often() {
        let fleet = Fleet::default();
        let agent = NodeId::trusted("agent:a");
        for expected_ms in [250, 500, 1000, 2000, 4000, 4000] {
            fleet.full(&agent);
            fleet.full(&agent);
            assert_eq!(fleet.held_for(&agent), Some(Duration::from_millis(expected_ms)));
            tokio::time::advance(Duration::from_millis(expected_ms)).await;
            assert_eq!(fleet.held_for(&agent), None);
        }
        fleet.reached(&agent);
        fleet.full(&agent);
        assert_eq!(fleet.held_for(&agent), Some(FULL_HOLD), "it had room in between");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_hold_to_end_is_told() {
        let fleet = Fleet::default();
        fleet.hold(&NodeId::trusted("b"), Duration::from_secs(9));
        fleet.hold(&NodeId::trusted("a"), Duration::from_secs(5));
        let (held, first) = fleet.held();
        assert_eq!(held, [NodeId::trusted("a"), NodeId::trusted("b")]);
        let left: Vec<u64> = fleet.holds().iter().map(|(_, left)| left.as_secs()).collect();
        assert_eq!(left, [5, 9]);
        assert_eq!(first.unwrap(), Instant::now() + Duration::from_secs(5));
    }

    fn sighting(name: &str, load: Option<Load>) -> Sighting {
        Sighting { node_id: NodeId::trusted(name), age: Duration::ZERO, status: None, load }
    }

    #[test]
    fn what_was_measured_from_here_joins_what_nodes_said() {
        let fleet = Fleet::default();
        for (name, micros) in [("a", 10), ("c", 30), ("d", 40), ("z", 90)] {
            fleet.set_latency(&NodeId::trusted(name), Duration::from_micros(micros));
        }
        let load = Some(Load { cpu_milli: 7, ..Load::default() });
        let mut sightings = vec![sighting("b", load), sighting("c", load), sighting("d", None)];
        let silent = fleet.add_latencies(&mut sightings);
        let silent: Vec<_> = silent.iter().map(|(id, us)| (id.as_str(), *us)).collect();
        assert_eq!(silent, [("a", 10), ("d", 40), ("z", 90)]);
        let said = sightings.iter().map(|seen| seen.load.map(|load| load.latency_us));
        assert_eq!(said.collect::<Vec<_>>(), [Some(0), Some(30), None]);
        let d = (NodeId::trusted("d"), Load { cpu_milli: 9, ..Load::default() });
        let loads = Loads::new(Arc::new(sightings), vec![d]);
        let cpu = |name| loads.get(&NodeId::trusted(name)).map(|load| load.cpu_milli);
        assert_eq!(["a", "b", "c", "d"].map(cpu), [None, Some(7), Some(7), Some(9)]);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_too_long_ago_to_matter_are_forgotten() {
        let fleet = Fleet::default();
        for name in ["a", "b"] {
            fleet.changed(&NodeId::trusted(name));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let left = |kept_s| {
            let left = fleet.changes(|_| Duration::from_secs(kept_s));
            left.iter().map(|(id, ago)| (id.to_string(), ago.as_secs())).collect::<Vec<_>>()
        };
        assert_eq!(left(3), [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        assert_eq!(left(2), [("b".to_owned(), 1)]);
        assert_eq!(left(3), [("b".to_owned(), 1)]);
    }

    #[test]
    fn a_list_in_order_is_gone_through_once() {
        let list = ["b", "c", "e"].map(NodeId::trusted);
        let mut in_order = InOrder::new(&list, |id| id);
        let asked = ["a", "c", "d", "e", "f"].map(NodeId::trusted);
        let found: Vec<_> = asked.iter().filter_map(|id| in_order.get(id)).collect();
        assert_eq!(found, [&list[1], &list[2]]);
    }
}
