//! A node that registered stays registered, and is never declared lost while its heartbeats reach a
//! member that can pass them on: it does not notice that the leader changes.
//!
//! Source: issue 4, "registered nodes and their heartbeats must survive any failover".

use std::collections::BTreeSet;

use quorate::model::{NodeId, NodeStatus};
use quorate::state::{Fact, State};

use super::events_are_the_same::Events;

#[derive(Default)]
pub(super) struct Registered(BTreeSet<NodeId>);

impl Registered {
    /// A node was told that it is registered.
    pub(super) fn told(&mut self, node_id: &NodeId) {
        self.0.insert(node_id.clone());
    }

    /// `steady` are those that sent heartbeats all the time.
    pub(super) fn check(&self, state: &State, steady: &[NodeId]) -> Result<(), String> {
        for node_id in steady.iter().filter(|node_id| self.0.contains(*node_id)) {
            match state.node(node_id).map(|node| node.status) {
                Some(NodeStatus::Active) => {}
                other => return Err(format!("{node_id} is registered, and known as {other:?}")),
            }
        }
        Ok(())
    }
}

pub(super) fn check_events(events: &Events, steady: &[NodeId]) -> Result<(), String> {
    for (at, fact) in events.iter() {
        let lost = match fact {
            Fact::NodeStatusChanged { node_id, new: NodeStatus::Offline, .. } => node_id,
            Fact::NodeRemoved { node_id } => node_id,
            _other_facts => continue,
        };
        if steady.contains(lost) {
            return Err(format!("at {at:?} {lost} was given up, and was there all the time"));
        }
    }
    Ok(())
}
