//! Draining a node: no more work, and what it still holds is taken away when its time is over.

use super::apply::Txn;
use super::{Fact, Outcome, Reply};
use crate::model::{Epoch, NodeId, NodeStatus};

impl Txn<'_> {
    pub(super) fn drain_node(&mut self, node_id: &NodeId, within_ms: u64) -> Reply {
        let old = self.present(node_id)?;
        let until_ms = self.now.saturating_add(within_ms);
        self.change_status(node_id, NodeStatus::Maintenance);
        self.edit_node(node_id, |node| (node.drain_until_ms, node.drained) = (Some(until_ms), 0));
        self.end_drain_if_empty(node_id);
        Ok(Outcome::NodeStatusSet { old, new: NodeStatus::Maintenance })
    }

    pub(super) fn end_drains(&mut self, epoch: Epoch, node_ids: &[NodeId]) -> Reply {
        self.check_epoch(epoch)?;
        Self::check_batch(node_ids.len())?;
        let (mut accepted, mut stale) = (0, 0);
        for node_id in node_ids {
            // What it loses anyway is no part of the drain.
            let drained = self.state.node(node_id).filter(|node| node.losing.is_none());
            let until_ms = drained.and_then(|node| node.drain_until_ms);
            if until_ms.is_none_or(|until_ms| until_ms > self.now) {
                stale += 1;
                continue;
            }
            accepted += 1;
            let all = self.state.node(node_id).map_or(0, |node| node.live as usize);
            let held = self.state.first_live_on(node_id, self.losses_left);
            self.losses_left -= held.len();
            let is_last = held.len() == all;
            let (now, taken) = (self.now, u32::try_from(held.len()).unwrap_or(u32::MAX));
            self.edit_node(node_id, |node| {
                node.drained = node.drained.saturating_add(taken);
                // First, or giving the last one back would end the drain before that is told.
                node.drain_until_ms = node.drain_until_ms.filter(|_| !is_last);
            });
            for task_id in held {
                self.take_back(&task_id, now, true, Some(node_id.clone()));
            }
            // What is left stays with the node until the next command of this kind.
            if is_last {
                self.end_drain(node_id);
            }
        }
        Ok(Outcome::Judged { accepted, stale })
    }

    /// A drained node that holds nothing is done with. Its status stays until an operator acts.
    pub(super) fn end_drain_if_empty(&mut self, node_id: &NodeId) {
        let Some(node) = self.state.node(node_id) else { return };
        if node.drain_until_ms.is_some() && node.live == 0 {
            self.end_drain(node_id);
        }
    }

    fn end_drain(&mut self, node_id: &NodeId) {
        let withdrawn = self.state.node(node_id).map_or(0, |node| node.drained);
        self.edit_node(node_id, |node| (node.drain_until_ms, node.drained) = (None, 0));
        self.facts.push(Fact::NodeDrained { node_id: node_id.clone(), withdrawn });
    }
}
