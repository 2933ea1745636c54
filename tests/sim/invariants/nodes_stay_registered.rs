//! A node that registered stays registered, and is never declared lost while its heartbeats reach a
//! member that can pass them on: it does not notice that the leader changes. When an operator takes it
//! out, it is taken out once, and comes back because it still sends heartbeats.
//!
//! Source: issue 4, "registered nodes and their heartbeats must survive any failover".

use std::collections::{BTreeMap, BTreeSet};

use quorate::model::{NodeId, NodeStatus};
use quorate::state::{Fact, State};

use super::events_are_the_same::Events;

#[derive(Default)]
pub(super) struct Registered {
    told: BTreeSet<NodeId>,
    /// How often an operator asked for each to be taken out.
    taken_out: BTreeMap<NodeId, usize>,
}

impl Registered {
    /// A node was told that it is registered.
    pub(super) fn told(&mut self, node_id: &NodeId) {
        self.told.insert(node_id.clone());
    }

    /// An operator is about to take a node out.
    pub(super) fn takes_out(&mut self, node_id: &NodeId) {
        *self.taken_out.entry(node_id.clone()).or_default() += 1;
    }

    /// `steady` are those that sent heartbeats all the time.
    pub(super) fn check(&self, state: &State, steady: &[NodeId]) -> Result<(), String> {
        for node_id in steady.iter().filter(|node_id| self.told.contains(*node_id)) {
            match state.node(node_id).map(|node| node.status) {
                Some(NodeStatus::Active) => {}
                other => return Err(format!("{node_id} is registered, and known as {other:?}")),
            }
        }
        Ok(())
    }

    pub(super) fn check_events(&self, events: &Events, steady: &[NodeId]) -> Result<(), String> {
        let mut left = self.taken_out.clone();
        for (at, fact) in events.iter() {
            let (lost, asked) = match fact {
                Fact::NodeStatusChanged { node_id, new: NodeStatus::Offline, .. } => {
                    (node_id, false)
                }
                Fact::NodeRemoved { node_id } => {
                    let left = left.get_mut(node_id).filter(|left| **left > 0);
                    (node_id, left.map(|left| *left -= 1).is_some())
                }
                _other_facts => continue,
            };
            if steady.contains(lost) && !asked {
                return Err(format!("at {at:?} {lost} was given up, and was there all the time"));
            }
        }
        Ok(())
    }
}
