//! Faults of nodes (contract 2.9): figures beyond bounds, and nodes that are lost again and again.
//!
//! In memory only, and dropped with the reign: a new leader degrades a node after three scans of its
//! own. One that is degraded already, and whose figures are beyond bounds still, stays so meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::seat::Sighting;
use crate::model::{Load, Node, NodeId, NodeStatus};
use crate::state::State;

/// How often figures are looked at.
const SCAN_EVERY: Duration = Duration::from_secs(30);
/// So many faults
const FAULTS_MIN: usize = 3;
/// within so long degrade a node.
const FAULT_WINDOW: Duration = Duration::from_secs(300);
/// Beyond 95 % of CPU or memory
const SHARE_MAX_MILLI: u32 = 95_000;
/// or a latency of 5 s a figure is a fault.
const LATENCY_MAX_US: u32 = 5_000_000;
/// A node that is lost more often than so, which is once in two hours
const LOST_MAX: usize = 12;
/// over a day, is unsteady.
const LOST_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// What one reign has seen.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Whether faults degrade nodes.
    on: bool,
    /// Whether the look that is under way is a scan.
    scans: bool,
    scanned: Option<Duration>,
    /// Faults by node, oldest first; at most one per scan within the window.
    seen: BTreeMap<NodeId, Vec<Duration>>,
    /// Nodes that are degraded for their faults, and say nothing of their status.
    degraded: BTreeSet<NodeId>,
    /// When nodes were lost; at most one more than is unsteady.
    lost: BTreeMap<NodeId, Vec<Duration>>,
}

impl Faults {
    /// Begins a look, `now` after the reign began. With `on` false nothing is a fault.
    pub(super) fn begin(&mut self, view: &State, on: bool, now: Duration) {
        let due = self.scanned.is_none_or(|at| now.saturating_sub(at) >= SCAN_EVERY);
        (self.on, self.scans) = (on, due && on);
        if !on {
            self.seen.clear();
        }
        if due {
            self.scanned = Some(now);
            forget(&mut self.seen, now, FAULT_WINDOW);
            forget(&mut self.lost, now, LOST_WINDOW);
            self.degraded.retain(|node_id| view.node(node_id).is_some());
        }
    }

    /// What a node is to be that would be `heard` by its own word.
    pub(super) fn judge(
        &mut self,
        node: &Node,
        sighting: &Sighting,
        heard: NodeStatus,
        now: Duration,
    ) -> NodeStatus {
        if node.is_agent() {
            return heard;
        }
        let is_fault = self.on && is_fault(&sighting.load.unwrap_or(node.load));
        if self.scans && is_fault {
            self.seen.entry(node.node_id.clone()).or_default().push(now);
        }
        let recent = |at: &&Duration| now.saturating_sub(**at) < FAULT_WINDOW;
        let faults = self.seen.get(&node.node_id);
        if faults.is_some_and(|faults| faults.iter().filter(recent).count() >= FAULTS_MIN) {
            if heard == NodeStatus::Active {
                self.degraded.insert(node.node_id.clone());
                return NodeStatus::Degraded;
            }
            return heard;
        }
        if is_fault && heard == NodeStatus::Active && node.status == NodeStatus::Degraded {
            self.degraded.insert(node.node_id.clone());
            return NodeStatus::Degraded;
        }
        let was_ours = self.degraded.remove(&node.node_id);
        let silent = sighting.status.is_none() && heard == NodeStatus::Degraded;
        if was_ours && silent { NodeStatus::Active } else { heard }
    }

    /// Notes that a node was lost; whether it has been too often.
    pub(super) fn lost(&mut self, node_id: &NodeId, now: Duration) -> bool {
        let times = self.lost.entry(node_id.clone()).or_default();
        times.push(now);
        times.retain(|at| now.saturating_sub(*at) < LOST_WINDOW);
        let beyond = times.len().saturating_sub(LOST_MAX + 1);
        times.drain(..beyond);
        times.len() > LOST_MAX
    }
}

fn is_fault(load: &Load) -> bool {
    load.cpu_milli > SHARE_MAX_MILLI
        || load.memory_milli > SHARE_MAX_MILLI
        || load.latency_us > LATENCY_MAX_US
}

fn forget(times: &mut BTreeMap<NodeId, Vec<Duration>>, now: Duration, window: Duration) {
    for times in times.values_mut() {
        times.retain(|at| now.saturating_sub(*at) < window);
    }
    times.retain(|_, times| !times.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::solo::Solo;
    use crate::state::Command;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn contract_2_9_three_faults_in_five_minutes_degrade_a_node() {
        use NodeStatus::{Active, Degraded};
        for (name, load) in [
            ("cpu", Load { cpu_milli: 95_001, ..Load::default() }),
            ("memory", Load { memory_milli: 95_001, ..Load::default() }),
            ("latency", Load { latency_us: 5_000_001, ..Load::default() }),
        ] {
            let solo = Solo::new();
            solo.register("n", |_| {});
            let (state, mut faults) = (solo.state.read(), Faults::default());
            let node = state.node(&NodeId::trusted("n")).unwrap();
            let mut look = |on: bool, now: u64, load: Option<Load>, status: Option<NodeStatus>| {
                let node_id = node.node_id.clone();
                let seen = Sighting { node_id, age: secs(1), status, load };
                faults.begin(&state, on, secs(now));
                // Of a node that says nothing its last status holds.
                let heard = status.unwrap_or(if now < 100 { Active } else { Degraded });
                faults.judge(node, &seen, heard, secs(now))
            };
            let (bad, well) = (Some(load), Some(Load::default()));
            for now in [1, 2, 31, 32] {
                assert_eq!(look(true, now, bad, None), Active, "{name} {now}");
            }
            assert_eq!(look(true, 61, bad, None), Degraded, "{name}");
            assert_eq!(look(true, 120, well, Some(Active)), Degraded, "{name}: for a while");
            assert_eq!(look(true, 300, well, Some(Active)), Degraded, "{name}");
            assert_eq!(look(true, 301, well, Some(Active)), Active, "{name}: one is too old");
            assert_eq!(look(true, 302, well, Some(Degraded)), Degraded, "its own word counts");
            assert_eq!(look(true, 331, bad, None), Degraded, "nobody here degraded it");
            assert_eq!(look(false, 332, bad, Some(Active)), Active, "{name}: not asked for");
        }
    }

    /// It got work until three scans of the new leader had passed.
    #[test]
    fn a_node_that_the_last_leader_degraded_stays_so_while_its_figures_are_beyond_bounds() {
        let solo = Solo::new();
        solo.register("n", |_| {});
        let node_id = NodeId::trusted("n");
        let status = NodeStatus::Degraded;
        solo.commit(Command::SetNodeStatus { node_id: node_id.clone(), status }).unwrap();
        let (state, mut faults) = (solo.state.read(), Faults::default());
        let node = state.node(&node_id).unwrap();
        for (cpu_milli, on, becomes) in [
            (99_000, true, NodeStatus::Degraded),
            (99_000, false, NodeStatus::Active),
            (50_000, true, NodeStatus::Active),
        ] {
            let load = Some(Load { cpu_milli, ..Load::default() });
            let status = Some(NodeStatus::Active);
            let seen = Sighting { node_id: node_id.clone(), age: secs(1), status, load };
            faults.begin(&state, on, secs(1));
            let judged = faults.judge(node, &seen, NodeStatus::Active, secs(1));
            assert_eq!(judged, becomes, "{cpu_milli} {on}");
        }
    }

    #[test]
    fn a_node_that_says_nothing_is_taken_back_by_whoever_degraded_it() {
        let solo = Solo::new();
        solo.register("n", |_| {});
        let (state, mut faults) = (solo.state.read(), Faults::default());
        let node = state.node(&NodeId::trusted("n")).unwrap();
        let mut look = |now: u64, cpu_milli: u32, heard: NodeStatus| {
            let load = Some(Load { cpu_milli, ..Load::default() });
            let node_id = node.node_id.clone();
            let seen = Sighting { node_id, age: secs(1), status: None, load };
            faults.begin(&state, true, secs(now));
            faults.judge(node, &seen, heard, secs(now))
        };
        for now in [0, 30, 60] {
            look(now, 99_000, NodeStatus::Active);
        }
        assert_eq!(look(61, 0, NodeStatus::Degraded), NodeStatus::Degraded);
        assert_eq!(look(400, 0, NodeStatus::Degraded), NodeStatus::Active);
        assert_eq!(look(401, 0, NodeStatus::Degraded), NodeStatus::Degraded, "once");
    }

    #[test]
    fn contract_2_9_more_than_one_loss_in_two_hours_over_a_day_is_unsteady() {
        let (mut faults, node) = (Faults::default(), NodeId::trusted("n"));
        for hour in 0..12 {
            assert!(!faults.lost(&node, secs(hour * 3600)), "{hour}");
        }
        assert!(faults.lost(&node, secs(12 * 3600)));
        assert!(faults.lost(&node, secs(13 * 3600)));
        assert!(!faults.lost(&node, secs(50 * 3600)), "a day later nothing of it is left");
    }
}
