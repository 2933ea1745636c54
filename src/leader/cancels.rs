//! Cancel calls that wait: nodes are told, out of courtesy, which attempts are not wanted any more.
//!
//! Each node has one call under way at most, and a turn among the others, so that a machine that
//! swallows its calls costs one of them, and nobody waits behind all that a dead node has lost. What
//! somebody asked to be cancelled goes before what was merely lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

use super::ladder::Target;
use super::lanes::Attempt;
use crate::model::NodeId;

/// The most that are under way at once.
const FLYING_MAX: usize = 64;
/// The most of either kind that wait for one node
const OF_NODE_MAX: usize = 1024;
/// and for all of them: nobody is told of what comes on top.
const WAITING_MAX: usize = 8192;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Cancels {
    asked: Turns,
    lost: Turns,
    /// Nodes that have a call under way.
    flying: BTreeSet<NodeId>,
}

/// What waits, node by node in turn.
#[derive(Debug, Default)]
struct Turns {
    nodes: BTreeMap<NodeId, (Target, VecDeque<Attempt>)>,
    /// How many attempts.
    len: usize,
    /// Whose turn it was last.
    last: Option<NodeId>,
}

impl Cancels {
    /// Lets a call wait for its turn. `is_asked` tells whether somebody asked for the cancelling.
    pub(super) fn push(&mut self, target: Target, attempt: Attempt, is_asked: bool) {
        let turns = if is_asked { &mut self.asked } else { &mut self.lost };
        turns.push(target, attempt);
    }

    /// The next call to be made, if one may be; it is under way until [`Self::ended`].
    pub(super) fn next(&mut self) -> Option<(Target, Attempt)> {
        if self.flying.len() >= FLYING_MAX {
            return None;
        }
        let next = self.asked.pop(&self.flying).or_else(|| self.lost.pop(&self.flying))?;
        self.flying.insert(next.0.node_id.clone());
        Some(next)
    }

    /// The call to a node ended. One that did not answer is told nothing more of what waits.
    pub(super) fn ended(&mut self, node_id: &NodeId, answered: bool) {
        self.flying.remove(node_id);
        if !answered {
            self.forget(node_id);
        }
    }

    /// Drops what waits for a node.
    fn forget(&mut self, node_id: &NodeId) {
        self.asked.forget(node_id);
        self.lost.forget(node_id);
    }
}

impl Turns {
    fn push(&mut self, target: Target, attempt: Attempt) {
        if self.len >= WAITING_MAX {
            return;
        }
        let node_id = target.node_id.clone();
        let (_, waiting) = self.nodes.entry(node_id).or_insert((target, VecDeque::new()));
        if waiting.len() < OF_NODE_MAX {
            waiting.push_back(attempt);
            self.len += 1;
        }
    }

    fn forget(&mut self, node_id: &NodeId) {
        if let Some((_, waiting)) = self.nodes.remove(node_id) {
            self.len -= waiting.len();
        }
    }

    /// Takes one of the next node that is not busy.
    fn pop(&mut self, busy: &BTreeSet<NodeId>) -> Option<(Target, Attempt)> {
        let after = self.last.as_ref().map_or(Unbounded, Excluded);
        let later = self.nodes.range::<NodeId, _>((after, Unbounded));
        let node_id =
            later.chain(self.nodes.iter()).map(|(id, _)| id).find(|id| !busy.contains(*id));
        let node_id = node_id?.clone();
        let (target, waiting) = self.nodes.get_mut(&node_id)?;
        let attempt = waiting.pop_front()?;
        let next = (target.clone(), attempt);
        self.len -= 1;
        if waiting.is_empty() {
            self.nodes.remove(&node_id);
        }
        self.last = Some(node_id);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TaskId;

    fn target(name: &str) -> Target {
        Target {
            node_id: NodeId::trusted(name),
            node_type: String::new(),
            base_url: String::new(),
            agent_url: String::new(),
        }
    }

    fn attempt(number: usize) -> Attempt {
        (TaskId::trusted(&format!("t{number}")), 1)
    }

    fn next(cancels: &mut Cancels) -> Option<String> {
        let (target, (task_id, _)) = cancels.next()?;
        Some(format!("{} {task_id}", target.node_id))
    }

    #[test]
    fn nodes_take_turns_one_call_each_and_what_was_asked_for_goes_first() {
        let mut cancels = Cancels::default();
        for number in 0..2 {
            cancels.push(target("b"), attempt(number), false);
            cancels.push(target("a"), attempt(number), false);
        }
        cancels.push(target("a"), attempt(9), true);
        assert_eq!(next(&mut cancels).unwrap(), "a t9");
        assert_eq!(next(&mut cancels).unwrap(), "b t0");
        assert_eq!(next(&mut cancels), None, "both are busy");
        cancels.ended(&NodeId::trusted("b"), true);
        cancels.ended(&NodeId::trusted("a"), true);
        assert_eq!(next(&mut cancels).unwrap(), "a t0", "b had its turn");
        assert_eq!(next(&mut cancels).unwrap(), "b t1");
        cancels.ended(&NodeId::trusted("a"), false);
        cancels.ended(&NodeId::trusted("b"), true);
        assert_eq!(next(&mut cancels), None, "a did not answer and is told no more");
        assert_eq!((cancels.asked.len, cancels.lost.len), (0, 0));
    }

    /// A hundred nodes that had lost power held up every cancel call to a node that lived.
    #[test]
    fn what_dead_nodes_have_lost_holds_nobody_up() {
        let mut cancels = Cancels::default();
        for node in 0..100 {
            for number in 0..40 {
                cancels.push(target(&format!("dead{node:02}")), attempt(number), false);
            }
        }
        let under_way = (0..).map_while(|_| cancels.next()).count();
        assert_eq!(under_way, FLYING_MAX);
        cancels.push(target("alive"), attempt(0), true);
        cancels.ended(&NodeId::trusted("dead00"), false);
        assert_eq!(next(&mut cancels).unwrap(), "alive t0");
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut cancels = Cancels::default();
        for number in 0..3 * WAITING_MAX {
            let node = format!("n{}", number % 20);
            cancels.push(target(&node), attempt(number), false);
        }
        assert_eq!(cancels.lost.len, WAITING_MAX);
        for number in 0..2 * OF_NODE_MAX {
            cancels.push(target("n"), attempt(number), true);
        }
        assert_eq!(cancels.asked.len, OF_NODE_MAX);
        cancels.forget(&NodeId::trusted("n"));
        assert_eq!(cancels.asked.len, 0);
    }
}
