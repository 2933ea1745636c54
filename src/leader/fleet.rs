//! What the leader knows of nodes beyond the replicated state, in memory only: fresher load
//! figures, and nodes that asked not to be called for a while. Dropped with the reign.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::model::{Load, NodeId};

/// The first hold after a node could not be reached; it doubles with each failure in a row.
const UNREACHABLE_HOLD: Duration = Duration::from_secs(1);
/// No hold after failures is longer: the liveness watch decides about the rest.
const UNREACHABLE_HOLD_MAX: Duration = Duration::from_secs(16);

/// Fresh load figures by node.
pub type Loads = BTreeMap<NodeId, Load>;

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

    /// How long a node took to answer the last probe, in microseconds.
    #[must_use]
    pub(super) fn latency_us(&self, node_id: &NodeId) -> Option<u32> {
        self.latencies.lock().get(node_id).copied()
    }

    /// The same of all nodes that were probed.
    #[must_use]
    pub(super) fn latencies(&self) -> BTreeMap<NodeId, u32> {
        self.latencies.lock().clone()
    }

    /// Notes that a node asked not to be called for `wait`.
    pub(super) fn hold(&self, node_id: &NodeId, wait: Duration) {
        let hold = Hold { until: Instant::now() + wait, failures: 0 };
        self.holds.lock().insert(node_id.clone(), hold);
    }

    /// Notes that a node could not be reached: it is left alone for a moment, longer each time,
    /// so that tasks wait for it instead of using up their retries on it.
    pub(super) fn unreachable(&self, node_id: &NodeId) {
        let mut holds = self.holds.lock();
        let now = Instant::now();
        let failures = match holds.get(node_id) {
            // Calls that were under way together fail together: they count once.
            Some(hold) if hold.until > now => return,
            Some(hold) => hold.failures + 1,
            None => 1,
        };
        let wait = (UNREACHABLE_HOLD * 2u32.pow((failures - 1).min(8))).min(UNREACHABLE_HOLD_MAX);
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

    /// Notes that a node registered or its status changed. A registration proves a node as alive
    /// as a heartbeat does, and heartbeats from before a change say nothing about what came after.
    pub(super) fn changed(&self, node_id: &NodeId) {
        self.changed.lock().insert(node_id.clone(), Instant::now());
    }

    /// When nodes last registered or changed, as far as this reign saw it.
    #[must_use]
    pub(super) fn changes(&self) -> BTreeMap<NodeId, Instant> {
        self.changed.lock().clone()
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
    async fn the_first_hold_to_end_is_told() {
        let fleet = Fleet::default();
        fleet.hold(&NodeId::trusted("b"), Duration::from_secs(9));
        fleet.hold(&NodeId::trusted("a"), Duration::from_secs(5));
        let (held, first) = fleet.held();
        assert_eq!(held, [NodeId::trusted("a"), NodeId::trusted("b")]);
        assert_eq!(first.unwrap(), Instant::now() + Duration::from_secs(5));
    }
}
