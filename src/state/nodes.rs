//! Nodes: registration, status, and what the liveness watch saw (contract 2.2, 2.3, 2.9).

use super::apply::Txn;
use super::command::{NodeObservation, NodeSpec};
use super::{Fact, Outcome, Rejection, Reply, State};
use crate::model::{AGENT_PREFIX, Epoch, Loss, Node, NodeId, NodeStatus};

/// What a node's reliability gains or loses with each ended attempt (contract 2.8).
const RELIABILITY_STEP_MILLI: u32 = 100;

impl State {
    /// All nodes, by id, without agents of family A.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.holders_of_work().filter(|node| node.agent_type.is_none())
    }

    /// All agents of family A, by id.
    pub fn agents(&self) -> impl Iterator<Item = &Node> {
        self.agents.iter().filter_map(|node_id| self.nodes.get(node_id))
    }

    /// Nodes and agents, by id: whatever is given work.
    pub fn holders_of_work(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().map(|(_, node)| node)
    }

    /// How many nodes there are, agents aside.
    #[must_use]
    pub fn nodes_len(&self) -> usize {
        self.nodes.len() - self.agents_len()
    }

    /// How many agents of family A there are.
    #[must_use]
    pub fn agents_len(&self) -> usize {
        self.agents.len()
    }

    /// One node, or one agent.
    #[must_use]
    pub fn node(&self, node_id: &NodeId) -> Option<&Node> {
        self.nodes.get(node_id)
    }
}

impl State {
    /// Notes whether the row that was loaded under `stored` is an agent's.
    pub(super) fn note_agent(&mut self, stored: &[u8]) {
        let node_id = std::str::from_utf8(stored).ok().map(NodeId::trusted);
        let node = node_id.and_then(|node_id| self.nodes.get(&node_id));
        if let Some(agent) = node.filter(|node| node.agent_type.is_some()) {
            self.agents.insert(agent.node_id.clone());
        }
    }

    /// Writes the rows of the nodes that [`Txn::edit_node`] changed.
    pub(super) fn flush_nodes(&mut self) {
        for node_id in std::mem::take(&mut self.changed_nodes) {
            self.nodes.write(&mut self.rows, &node_id);
        }
    }
}

impl Txn<'_> {
    pub(super) fn register_node(&mut self, spec: NodeSpec) -> Reply {
        let known = self.state.node(&spec.node_id).cloned();
        let is_agents = spec.node_id.as_str().starts_with(AGENT_PREFIX)
            || known.as_ref().is_some_and(Node::is_agent);
        if spec.agent_type.is_none() && is_agents {
            return Err(Rejection::NodeIdReserved);
        }
        if known.is_none() {
            self.check_room(&spec)?;
        }
        let new = known.is_none();
        let restarted = known.as_ref().is_some_and(|known| {
            !known.instance.is_empty()
                && !spec.instance.is_empty()
                && known.instance != spec.instance
        });
        let loss = match known.as_ref().and_then(|known| known.losing) {
            // The same run of its program is still at what it has not lost yet, and goes on losing it.
            Some(Loss::Offline | Loss::Removed) if !restarted => Some(Loss::Offline),
            losing => (restarted || losing.is_some()).then_some(Loss::Restarted),
        };
        let losing = loss.filter(|loss| !self.lose_attempts(&spec.node_id, *loss));
        let old_status = known.as_ref().map(|known| known.status);
        // Losing its attempts has changed the row, so it is read again.
        let known = self.state.node(&spec.node_id).cloned();
        let node_id = spec.node_id.clone();
        let node = merge_registration(known.as_ref(), (spec, losing), self.now, self.index);
        let status = node.status;
        if node.agent_type.is_some() {
            self.state.agents.insert(node_id.clone());
        } else {
            self.state.agents.remove(&node_id);
        }
        self.state.nodes.put(&mut self.state.rows, node_id.clone(), node);
        self.facts.push(Fact::NodeRegistered { node_id: node_id.clone(), new });
        if let Some(old) = old_status
            && old != status
        {
            self.facts.push(Fact::NodeStatusChanged { node_id, old, new: status });
        }
        Ok(Outcome::NodeRegistered { new })
    }

    /// Nodes and agents are counted apart.
    fn check_room(&self, spec: &NodeSpec) -> Result<(), Rejection> {
        let (nodes_max, agents_max) =
            (self.state.policy().nodes_max, self.state.policy().agents_max);
        if spec.agent_type.is_some() {
            let full = self.state.agents_len() as u64 >= agents_max;
            return if full { Err(Rejection::TooManyAgents { max: agents_max }) } else { Ok(()) };
        }
        let full = self.state.nodes_len() as u64 >= nodes_max;
        if full { Err(Rejection::TooManyNodes { max: nodes_max }) } else { Ok(()) }
    }

    pub(super) fn retire_agents(&mut self, epoch: Epoch, node_ids: &[NodeId]) -> Reply {
        self.check_epoch(epoch)?;
        Self::check_batch(node_ids.len())?;
        let (mut accepted, mut stale) = (0, 0);
        for node_id in node_ids {
            let silent = self.state.node(node_id).is_some_and(|node| {
                node.agent_type.is_some()
                    && matches!(node.status, NodeStatus::Offline | NodeStatus::Maintenance)
            });
            if silent && self.remove_node(node_id).is_ok() {
                accepted += 1;
            } else {
                stale += 1;
            }
        }
        Ok(Outcome::Judged { accepted, stale })
    }

    pub(super) fn set_node_status(&mut self, node_id: &NodeId, status: NodeStatus) -> Reply {
        let old = self.present(node_id)?;
        self.change_status(node_id, status);
        if !matches!(status, NodeStatus::Maintenance | NodeStatus::Offline) {
            // Whoever puts a node back into service ends its draining.
            self.edit_node(node_id, |node| node.drain_until_ms = None);
        }
        Ok(Outcome::NodeStatusSet { old, new: status })
    }

    /// The status of a node that is there, and not about to go.
    pub(super) fn present(&self, node_id: &NodeId) -> Result<NodeStatus, Rejection> {
        let node = self.state.node(node_id).filter(|node| node.losing != Some(Loss::Removed));
        Ok(node.ok_or(Rejection::NodeNotFound)?.status)
    }

    pub(super) fn remove_node(&mut self, node_id: &NodeId) -> Reply {
        if self.state.node(node_id).is_none() {
            return Err(Rejection::NodeNotFound);
        }
        self.lose_all(node_id, Loss::Removed);
        Ok(Outcome::Done)
    }

    /// Deletes a node that holds nothing any more.
    pub(super) fn take_out(&mut self, node_id: &NodeId) {
        self.state.nodes.remove(&mut self.state.rows, node_id);
        self.state.agents.remove(node_id);
        self.facts.push(Fact::NodeRemoved { node_id: node_id.clone() });
    }

    pub(super) fn observe_nodes(
        &mut self,
        epoch: Epoch,
        observations: Vec<NodeObservation>,
    ) -> Reply {
        self.check_epoch(epoch)?;
        Self::check_batch(observations.len())?;
        let (mut accepted, mut stale) = (0, 0);
        for observation in observations {
            let seen = self.state.node(&observation.node_id).map(|node| node.status);
            if seen != Some(observation.seen) {
                stale += 1;
                continue;
            }
            accepted += 1;
            if let Some(load) = observation.load {
                self.edit_node(&observation.node_id, |node| node.load = load);
            }
            if self.state.node(&observation.node_id).is_some_and(|node| node.losing.is_some()) {
                self.lose_rest(&observation.node_id);
            } else if observation.status != observation.seen {
                self.change_status(&observation.node_id, observation.status);
            }
        }
        Ok(Outcome::Judged { accepted, stale })
    }

    /// Sets a status; a node that goes offline loses its work.
    pub(super) fn change_status(&mut self, node_id: &NodeId, status: NodeStatus) {
        let Some(old) = self.state.node(node_id).map(|node| node.status) else { return };
        if old == status {
            return;
        }
        if status == NodeStatus::Offline {
            self.lose_all(node_id, Loss::Offline);
        } else {
            self.put_status(node_id, old, status);
        }
    }

    /// Writes a status. What a node has yet to lose it goes on losing, whatever it is.
    pub(super) fn put_status(&mut self, node_id: &NodeId, old: NodeStatus, new: NodeStatus) {
        let now = self.now;
        self.edit_node(node_id, |node| {
            node.status = new;
            node.status_since_ms = now;
        });
        self.facts.push(Fact::NodeStatusChanged { node_id: node_id.clone(), old, new });
    }

    /// Changes a node, if there still is one. Its row may be large and its counters change with
    /// each of its attempts, so it is written once per entry, by [`State::flush_nodes`].
    pub(super) fn edit_node(&mut self, node_id: &NodeId, edit: impl FnOnce(&mut Node)) {
        let index = self.index;
        let State { nodes, changed_nodes, .. } = &mut *self.state;
        nodes.edit_unwritten(node_id, |node| {
            edit(node);
            node.revision = index;
        });
        if !changed_nodes.contains(node_id) {
            changed_nodes.insert(node_id.clone());
        }
    }

    /// Takes one live execution off a node and counts how it ended.
    pub(super) fn release_node(&mut self, node_id: &NodeId, end: ExecutionEnd) {
        self.edit_node(node_id, |node| {
            node.live = node.live.saturating_sub(1);
            match end {
                ExecutionEnd::Completed => {
                    node.tasks_completed += 1;
                    node.reliability_milli =
                        (node.reliability_milli + RELIABILITY_STEP_MILLI).min(1000);
                    node.failing = false;
                }
                ExecutionEnd::Failed | ExecutionEnd::Lost | ExecutionEnd::Refused => {
                    node.tasks_failed += 1;
                    node.reliability_milli =
                        node.reliability_milli.saturating_sub(RELIABILITY_STEP_MILLI).max(100);
                    node.failing |= node.is_agent() && !matches!(end, ExecutionEnd::Refused);
                }
                ExecutionEnd::Withdrawn | ExecutionEnd::GivenBack => {}
            }
        });
        self.end_drain_if_empty(node_id);
    }
}

/// What the end of an execution says of its node.
#[derive(Debug, Clone, Copy)]
pub(super) enum ExecutionEnd {
    /// It did the work.
    Completed,
    /// It did not.
    Failed,
    /// It did not, and has not said so: it may still be at it.
    Lost,
    /// It says that the work itself cannot be done, by nobody: it may be well all the same.
    Refused,
    /// It was not let finish, which is not its fault: it may still be at it.
    Withdrawn,
    /// It has not begun: not its fault.
    GivenBack,
}

impl ExecutionEnd {
    /// Whether the holder is to be told, because it may go on with what is not wanted any more.
    pub(super) fn may_go_on(self) -> bool {
        match self {
            Self::Lost | Self::Withdrawn => true,
            Self::Completed | Self::Failed | Self::Refused | Self::GivenBack => false,
        }
    }
}

/// `losing` is how it comes that the node has yet to lose what an earlier run of its program held:
/// until then it is not in service.
fn merge_registration(
    known: Option<&Node>,
    (spec, losing): (NodeSpec, Option<Loss>),
    now: u64,
    index: u64,
) -> Node {
    let mut capabilities = spec.capabilities;
    capabilities.sort();
    capabilities.dedup();
    let same_run = known.filter(|known| known.instance == spec.instance);
    let registered = registered_status(same_run, spec.agent_type.is_some());
    let status = match losing {
        Some(_) if registered != NodeStatus::Maintenance => NodeStatus::Offline,
        Some(_) | None => registered,
    };
    let same_status = known.is_some_and(|known| known.status == status);
    // A program that was started anew, or was away, has not failed yet.
    let goes_on = same_run.filter(|_| same_status);
    let failing = goes_on.is_some_and(|known| known.failing);
    let is_kept = status == NodeStatus::Maintenance;
    Node {
        node_id: spec.node_id,
        host: spec.host,
        port: spec.port,
        node_type: spec.node_type,
        status,
        capabilities,
        capacity: spec.capacity,
        live: known.map_or(0, |known| known.live),
        agents_count: spec.agents_count,
        agents: spec.agents,
        load: spec.load,
        reliability_milli: known.map_or(1000, |known| known.reliability_milli),
        version: spec.version,
        location: spec.location,
        external_url: spec.external_url,
        instance: spec.instance,
        metadata: spec.metadata,
        registered_at_ms: known.map_or(now, |known| known.registered_at_ms),
        status_since_ms: match known {
            Some(known) if same_status => known.status_since_ms,
            _ => now,
        },
        tasks_completed: known.map_or(0, |known| known.tasks_completed),
        tasks_failed: known.map_or(0, |known| known.tasks_failed),
        revision: index,
        agent_type: spec.agent_type,
        drained: goes_on.filter(|_| is_kept).map_or(0, |known| known.drained),
        drain_until_ms: goes_on.filter(|_| is_kept).and_then(|known| known.drain_until_ms),
        losing,
        failing,
    }
}

/// A node that registers is in service (contract 2.2). An agent registers with every heartbeat
/// (contract 4.7), and no heartbeat ends what an operator began: only another run of it does.
fn registered_status(same_run: Option<&Node>, is_agent: bool) -> NodeStatus {
    match same_run.map(|known| known.status) {
        Some(NodeStatus::Maintenance) if is_agent => NodeStatus::Maintenance,
        _ => NodeStatus::Active,
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::decode;
    use super::super::scripts::node_spec;
    use super::super::{Command, Envelope, LogEntry, encode_entry};
    use super::*;
    use crate::model::RequestId;

    #[test]
    fn the_row_of_a_node_is_written_once_however_many_attempts_an_entry_gives_it() {
        let mut state = State::default();
        let command = Command::RegisterNode(node_spec("n1", 4, Vec::new()));
        let request_id = RequestId(1);
        let envelope = Envelope { request_id, principal: String::new(), command };
        let entry = LogEntry { at_ms: 1, envelopes: vec![envelope] };
        state.apply(1, &encode_entry(&entry)).unwrap();
        state.take_changes();
        let (before, node_id) = (state.digest(), NodeId::trusted("n1"));
        let mut txn = Txn {
            state: &mut state,
            index: 2,
            place: 0,
            now: 1,
            request_id,
            facts: &mut Vec::new(),
            losses_left: 0,
            reading: None,
        };
        for _ in 0..3 {
            txn.edit_node(&node_id, |node| node.live += 1);
        }
        assert_eq!(state.digest(), before, "a row was encoded for one attempt");
        state.flush_nodes();
        assert_ne!(state.digest(), before);
        let rows = state.take_changes().rows;
        let row = rows.into_iter().next().and_then(|(_, row)| row).unwrap();
        let row: Node = decode(&row, "the node").unwrap();
        assert_eq!((&row, row.live), (state.node(&node_id).unwrap(), 3));
    }

    /// Its next heartbeat put it into service when it had lost all, and ended its drain.
    #[test]
    fn an_agent_that_is_losing_what_it_held_stays_in_maintenance() {
        let spec = |instance: &str| NodeSpec {
            agent_type: Some("alpha".to_owned()),
            instance: instance.to_owned(),
            ..node_spec("agent:a", 4, Vec::new())
        };
        let mut known = merge_registration(None, (spec("one"), None), 1, 1);
        (known.status, known.losing) = (NodeStatus::Maintenance, Some(Loss::Offline));
        (known.drain_until_ms, known.drained) = (Some(9), 3);
        let stands = |instance: &str, loss: Loss| {
            let node = merge_registration(Some(&known), (spec(instance), Some(loss)), 2, 2);
            (node.status, node.losing, node.drain_until_ms, node.drained)
        };
        let same = (NodeStatus::Maintenance, Some(Loss::Offline), Some(9), 3);
        assert_eq!(stands("one", Loss::Offline), same);
        let other = (NodeStatus::Offline, Some(Loss::Restarted), None, 0);
        assert_eq!(stands("two", Loss::Restarted), other);
    }
}
