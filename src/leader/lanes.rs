//! What the dispatcher has to hand out: one lane of attempts per node, and where each attempt
//! stands. Plain data; the dispatcher moves it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::task::AbortHandle;

use super::ladder::{Rung, Target};
use crate::model::{NodeId, TaskId};

/// Cancel calls in a row that a node did not understand, after which it gets no more.
const CANCEL_MISSES_MAX: u32 = 3;

/// One try of a task.
pub(super) type Attempt = (TaskId, u32);

/// Where an attempt stands with the dispatcher. There is no entry before and after.
#[derive(Debug)]
enum Standing {
    /// In its node's lane.
    Queued,
    /// A call is under way.
    Flying(AbortHandle),
    /// The node answered; the answer is being recorded.
    Landed,
}

#[derive(Debug)]
struct Known {
    attempt: u32,
    /// It was there when the reign began: an earlier one may have handed it over.
    inherited: bool,
    standing: Standing,
}

/// What is known of one node, and what waits for it.
#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<Attempt>,
    flying: usize,
    rung: Option<Rung>,
    cancel_misses: u32,
    /// Where it was called last, for when it has been taken out.
    target: Option<Target>,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<NodeId, Lane>,
    /// Nodes with something queued, in turn.
    turns: VecDeque<NodeId>,
    known: HashMap<TaskId, Known>,
    flying: usize,
}

impl Lanes {
    /// Queues an attempt, unless it is known already. A call for an older one is broken off.
    pub(super) fn add(&mut self, task_id: &TaskId, attempt: u32, node_id: &NodeId) {
        if self.known.get(task_id).is_some_and(|known| known.attempt >= attempt) {
            return;
        }
        let known = Known { attempt, inherited: false, standing: Standing::Queued };
        let replaced = self.known.insert(task_id.clone(), known);
        if let Some(Known { standing: Standing::Flying(call), .. }) = replaced {
            call.abort();
        }
        let lane = self.lanes.entry(node_id.clone()).or_default();
        if lane.queue.is_empty() {
            self.turns.push_back(node_id.clone());
        }
        lane.queue.push_back((task_id.clone(), attempt));
    }

    /// All that is known by now was there when the reign began.
    pub(super) fn inherit(&mut self) {
        self.known.values_mut().for_each(|known| known.inherited = true);
    }

    /// Whether an earlier reign may have handed an attempt over.
    #[must_use]
    pub(super) fn is_inherited(&self, (task_id, attempt): &Attempt) -> bool {
        let known = self.known.get(task_id).filter(|known| known.attempt == *attempt);
        known.is_some_and(|known| known.inherited)
    }

    /// The node whose turn it is.
    pub(super) fn next_turn(&mut self) -> Option<NodeId> {
        self.turns.pop_front()
    }

    /// Puts a node whose turn it was back in line, if it has something queued.
    pub(super) fn end_turn(&mut self, node_id: NodeId) {
        if self.lanes.get(&node_id).is_some_and(|lane| !lane.queue.is_empty()) {
            self.turns.push_back(node_id);
        }
    }

    /// How many nodes have something queued.
    #[must_use]
    pub(super) fn turns_len(&self) -> usize {
        self.turns.len()
    }

    /// Takes the next attempt off a node's lane, if it is still wanted.
    pub(super) fn pop(&mut self, node_id: &NodeId) -> Option<Attempt> {
        let lane = self.lanes.get_mut(node_id)?;
        while let Some((task_id, attempt)) = lane.queue.pop_front() {
            let wanted = self.known.get(&task_id).is_some_and(|known| {
                known.attempt == attempt && matches!(known.standing, Standing::Queued)
            });
            if wanted {
                return Some((task_id, attempt));
            }
        }
        None
    }

    /// A call was started for an attempt that was taken off its lane.
    pub(super) fn launched(
        &mut self,
        (task_id, attempt): &Attempt,
        node_id: &NodeId,
        call: AbortHandle,
    ) {
        if let Some(known) = self.known.get_mut(task_id).filter(|known| known.attempt == *attempt) {
            known.standing = Standing::Flying(call);
        }
        self.lanes.entry(node_id.clone()).or_default().flying += 1;
        self.flying += 1;
    }

    /// A call ended, one way or the other.
    pub(super) fn ended(&mut self, node_id: &NodeId) {
        self.flying -= 1;
        if let Some(lane) = self.lanes.get_mut(node_id) {
            lane.flying -= 1;
        }
    }

    /// An attempt's answer is about to be recorded. Whether it is still wanted.
    pub(super) fn landed(&mut self, (task_id, attempt): &Attempt) -> bool {
        match self.known.get_mut(task_id).filter(|known| known.attempt == *attempt) {
            Some(known) => {
                known.standing = Standing::Landed;
                true
            }
            None => false,
        }
    }

    /// An attempt is over: recorded, or not wanted any more. A call under way is broken off.
    pub(super) fn forget(&mut self, (task_id, attempt): &Attempt) {
        if self.known.get(task_id).is_none_or(|known| known.attempt != *attempt) {
            return;
        }
        if let Some(Known { standing: Standing::Flying(call), .. }) = self.known.remove(task_id) {
            call.abort();
        }
    }

    /// As [`Self::forget`], for an end that is not this dispatcher's own record: that one is let
    /// finish. Gives whether the node may have been told of the attempt.
    pub(super) fn withdraw(&mut self, attempt: &Attempt) -> bool {
        let known = self.known.get(&attempt.0).filter(|known| known.attempt == attempt.1);
        let (told, landed) = match known.map(|known| &known.standing) {
            // Told by an earlier call that was recorded since, perhaps by an earlier leader.
            None => (true, false),
            Some(Standing::Queued) => (false, false),
            Some(Standing::Flying(_)) => (true, false),
            Some(Standing::Landed) => (true, true),
        };
        if !landed {
            self.forget(attempt);
        }
        told
    }

    /// Calls under way, to one node and to all.
    #[must_use]
    pub(super) fn flying(&self, node_id: &NodeId) -> (usize, usize) {
        (self.lanes.get(node_id).map_or(0, |lane| lane.flying), self.flying)
    }

    /// The path of a node that worked last.
    #[must_use]
    pub(super) fn rung(&self, node_id: &NodeId) -> Option<Rung> {
        self.lanes.get(node_id)?.rung
    }

    /// Remembers the path that worked.
    pub(super) fn set_rung(&mut self, node_id: &NodeId, rung: Rung) {
        if let Some(lane) = self.lanes.get_mut(node_id) {
            lane.rung = Some(rung);
        }
    }

    /// Where a node was called last.
    #[must_use]
    pub(super) fn target(&self, node_id: &NodeId) -> Option<Target> {
        self.lanes.get(node_id)?.target.clone()
    }

    /// Remembers where a node is called.
    pub(super) fn set_target(&mut self, target: &Target) {
        let lane = self.lanes.entry(target.node_id.clone()).or_default();
        if lane.target.as_ref() != Some(target) {
            lane.target = Some(target.clone());
        }
    }

    /// Whether cancel calls to a node make sense.
    #[must_use]
    pub(super) fn may_cancel(&self, node_id: &NodeId) -> bool {
        let lane = self.lanes.get(node_id);
        lane.is_none_or(|lane| lane.cancel_misses < CANCEL_MISSES_MAX)
    }

    /// Remembers whether a node understood a cancel call.
    pub(super) fn cancelled(&mut self, node_id: &NodeId, understood: bool) {
        if let Some(lane) = self.lanes.get_mut(node_id) {
            lane.cancel_misses = if understood { 0 } else { lane.cancel_misses + 1 };
        }
    }

    /// A node registered anew: what was learnt of its program may be wrong now.
    pub(super) fn unlearn(&mut self, node_id: &NodeId) {
        if let Some(lane) = self.lanes.get_mut(node_id) {
            (lane.rung, lane.cancel_misses) = (None, 0);
        }
    }

    /// A node was taken out; what it held was taken away by apply.
    pub(super) fn remove(&mut self, node_id: &NodeId) {
        let Some(lane) = self.lanes.get_mut(node_id) else { return };
        for attempt in std::mem::take(&mut lane.queue) {
            self.forget(&attempt);
        }
        // Calls under way still count; a lane that has some goes with a later removal.
        if self.lanes.get(node_id).is_some_and(|lane| lane.flying == 0) {
            self.lanes.remove(node_id);
        }
    }

    /// Attempts queued, under way or being recorded.
    #[must_use]
    pub(super) fn waiting(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(name: &str, number: u32) -> Attempt {
        (TaskId::trusted(name), number)
    }

    fn add(lanes: &mut Lanes, (task_id, number): &Attempt, node: &str) {
        lanes.add(task_id, *number, &NodeId::trusted(node));
    }

    #[test]
    fn nodes_take_turns_and_each_attempt_is_queued_once() {
        let mut lanes = Lanes::default();
        let (one, two, three) = (attempt("1", 1), attempt("2", 1), attempt("3", 1));
        for _ in 0..2 {
            add(&mut lanes, &one, "a");
            add(&mut lanes, &two, "a");
            add(&mut lanes, &three, "b");
        }
        let mut order = Vec::new();
        while let Some(node_id) = lanes.next_turn() {
            order.extend(lanes.pop(&node_id).map(|(task_id, _)| task_id));
            lanes.end_turn(node_id);
        }
        assert_eq!(order, [one.0, three.0, two.0]);
        assert_eq!(lanes.waiting(), 3, "still known until recorded");
    }

    #[test]
    fn a_newer_attempt_replaces_an_older_one_and_never_the_reverse() {
        let mut lanes = Lanes::default();
        let (old, new) = (attempt("1", 1), attempt("1", 2));
        add(&mut lanes, &old, "a");
        add(&mut lanes, &new, "b");
        add(&mut lanes, &old, "a");
        assert_eq!(lanes.pop(&NodeId::trusted("a")), None);
        lanes.forget(&old);
        assert_eq!(lanes.waiting(), 1);
        assert_eq!(lanes.pop(&NodeId::trusted("b")), Some(new));
    }

    #[tokio::test]
    async fn a_newer_attempt_breaks_off_the_call_for_an_older_one() {
        let mut lanes = Lanes::default();
        let (old, new, node) = (attempt("1", 1), attempt("1", 2), NodeId::trusted("a"));
        add(&mut lanes, &old, "a");
        lanes.pop(&node);
        let call = tokio::spawn(std::future::pending::<()>());
        lanes.launched(&old, &node, call.abort_handle());
        add(&mut lanes, &new, "b");
        assert!(call.await.unwrap_err().is_cancelled(), "two calls for one task were under way");
    }

    #[tokio::test]
    async fn withdrawing_breaks_a_call_off_but_lets_a_record_finish() {
        let mut lanes = Lanes::default();
        let node = NodeId::trusted("a");
        for (name, answered) in [("1", false), ("2", true)] {
            let task = attempt(name, 1);
            add(&mut lanes, &task, "a");
            lanes.pop(&node);
            let call = tokio::spawn(std::future::pending::<()>());
            lanes.launched(&task, &node, call.abort_handle());
            if answered {
                assert!(lanes.landed(&task));
            }
            assert!(lanes.withdraw(&task), "the node knows of it");
            assert_eq!(lanes.waiting(), usize::from(answered));
            if !answered {
                assert!(call.await.unwrap_err().is_cancelled());
            }
            lanes.ended(&node);
        }
        assert_eq!(lanes.flying(&node), (0, 0));
        let never_told = attempt("3", 1);
        add(&mut lanes, &never_told, "a");
        assert!(!lanes.withdraw(&never_told));
    }
}
