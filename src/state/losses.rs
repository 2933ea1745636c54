//! Nodes that lose all they hold: they fell silent, were taken out or were started anew.
//!
//! A node may hold 100,000 attempts, and a command of one row would hold everybody up for as long
//! as it takes to fail them. So a command takes a bounded number and leaves the node offline with
//! its [`Loss`] noted; the liveness watch names it until the last one is gone. In between, what is
//! left is the node's as before: it counts, its report is taken, and nobody else is given it.

use super::apply::Txn;
use crate::model::{Loss, NodeId, NodeStatus, TaskFailure};

/// The most attempts that one command takes from nodes.
pub(super) const LOSSES_MAX: usize = 2000;

impl Txn<'_> {
    /// Takes a node out of service, and what it holds from it.
    pub(super) fn lose_all(&mut self, node_id: &NodeId, loss: Loss) {
        let is_empty = self.lose_attempts(node_id, loss);
        if is_empty && loss == Loss::Removed {
            self.take_out(node_id);
            return;
        }
        let Some(old) = self.state.node(node_id).map(|node| node.status) else { return };
        if old != NodeStatus::Offline {
            self.put_status(node_id, old, NodeStatus::Offline);
        }
        self.edit_node(node_id, |node| {
            node.losing = (!is_empty).then_some(loss);
        });
    }

    /// Goes on with what [`Self::lose_all`] or a registration began.
    pub(super) fn lose_rest(&mut self, node_id: &NodeId) {
        let Some(loss) = self.state.node(node_id).and_then(|node| node.losing) else { return };
        if !self.lose_attempts(node_id, loss) {
            return;
        }
        if loss == Loss::Removed {
            self.take_out(node_id);
            return;
        }
        self.edit_node(node_id, |node| node.losing = None);
        let is_offline =
            self.state.node(node_id).is_some_and(|node| node.status == NodeStatus::Offline);
        if loss == Loss::Restarted && is_offline {
            // It registered, and that puts it in service, unless somebody has decided otherwise.
            self.put_status(node_id, NodeStatus::Offline, NodeStatus::Active);
        }
    }

    /// Fails what a node holds, as far as this command may; gives whether it holds nothing now.
    pub(super) fn lose_attempts(&mut self, node_id: &NodeId, loss: Loss) -> bool {
        let error = match loss {
            Loss::Restarted => "the node was restarted".to_owned(),
            Loss::Removed => "the node was removed".to_owned(),
            Loss::Offline => format!("Node {node_id} failed"),
        };
        // A new run of its program knows nothing of them, and may get the next try of one.
        let is_at_it = loss != Loss::Restarted;
        let held = self.state.first_live_on(node_id, self.losses_left);
        self.losses_left -= held.len();
        for task_id in held {
            let taken_from = is_at_it.then(|| node_id.clone());
            self.fail_attempt(&task_id, TaskFailure::NodeLost, error.clone(), taken_from);
        }
        self.state.node(node_id).is_none_or(|node| node.live == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripts::node_spec;
    use super::super::{
        Assignment, Command, Envelope, Event, Fact, LogEntry, NodeObservation, Outcome, Rejection,
        Reply, State, TaskOutcome, TaskReport, TaskSpec, encode_entry, invariants,
    };
    use super::*;
    use crate::model::{Epoch, RequestId, TaskId, TaskStatus};

    const EPOCH: Epoch = Epoch { term: 1, member: 1 };
    /// What the node of these tests holds: three commands' worth.
    const HELD: usize = 2 * LOSSES_MAX + 500;

    struct World {
        state: State,
        index: u64,
        events: Vec<Event>,
    }

    fn id() -> NodeId {
        NodeId::trusted("n1")
    }

    fn task_id(number: usize) -> TaskId {
        TaskId::trusted(&format!("t{number}"))
    }

    impl World {
        /// A node that holds much.
        fn new() -> Self {
            let mut world = Self { state: State::default(), index: 0, events: Vec::new() };
            world.say(Command::OpenEpoch(EPOCH)).unwrap();
            world.register("one");
            let spec = |number| TaskSpec {
                task_id: Some(task_id(number)),
                task_type: "work".to_owned(),
                timeout_ms: 30_000,
                max_retries: 3,
                ..TaskSpec::default()
            };
            for from in (0..HELD).step_by(1500) {
                let numbers = from..HELD.min(from + 1500);
                let specs = numbers.clone().map(spec).collect();
                world.say(Command::SubmitTasks(specs)).unwrap();
                let placed = Outcome::Judged { accepted: numbers.len() as u32, stale: 0 };
                assert_eq!(world.place(numbers), placed);
            }
            assert_eq!(world.stands(), (NodeStatus::Active, HELD, None));
            world
        }

        fn say(&mut self, command: Command) -> Reply {
            self.index += 1;
            let request_id = RequestId(u128::from(self.index));
            let envelope = Envelope { request_id, principal: String::new(), command };
            let entry = LogEntry { at_ms: 1_000_000, envelopes: vec![envelope] };
            let applied = self.state.apply(self.index, &encode_entry(&entry)).unwrap();
            self.state.take_changes();
            let failed = |event: &&Event| matches!(event.fact, Fact::TaskRetried { .. });
            assert!(applied.events.iter().filter(failed).count() <= LOSSES_MAX);
            self.events.extend(applied.events);
            applied.replies.into_iter().next().unwrap()
        }

        fn register(&mut self, instance: &str) {
            let mut spec = node_spec("n1", 100_000, Vec::new());
            spec.instance = instance.to_owned();
            self.say(Command::RegisterNode(spec)).unwrap();
        }

        fn place(&mut self, numbers: std::ops::Range<usize>) -> Outcome {
            let assignment = |number| {
                let task_id = task_id(number);
                let seen_revision = self.state.open_task(&task_id).unwrap().revision;
                Assignment { task_id, seen_revision, node_id: id() }
            };
            let assignments = numbers.map(assignment).collect();
            self.say(Command::AssignTasks { epoch: EPOCH, assignments }).unwrap()
        }

        /// What the liveness watch says once more of a node that it hears.
        fn observe(&mut self) {
            let seen = self.stands().0;
            let status = NodeStatus::Active;
            let observations = vec![NodeObservation { node_id: id(), seen, status, load: None }];
            self.say(Command::ObserveNodes { epoch: EPOCH, observations }).unwrap();
        }

        fn report(&mut self, number: usize) -> Reply {
            self.say(Command::ReportTasks(vec![TaskReport {
                task_id: task_id(number),
                attempt: Some(1),
                epoch: None,
                node_id: Some(id()),
                agent_id: None,
                outcome: TaskOutcome::Completed { result: "1".to_owned() },
                execution_ms: 1,
                performance_metrics: String::new(),
            }]))
        }

        fn stands(&self) -> (NodeStatus, usize, Option<Loss>) {
            invariants::check(&self.state);
            let node = self.state.node(&id()).unwrap();
            (node.status, node.live as usize, node.losing)
        }

        /// Everything the node lost was lost once, but for what it reported.
        fn all_lost_once(&self, reported: usize) {
            let lost = |event: &&Event| matches!(event.fact, Fact::TaskRetried { .. });
            assert_eq!(self.events.iter().filter(lost).count(), HELD - reported);
            for number in 0..HELD {
                let task = self.state.task(&task_id(number)).unwrap();
                let expected = usize::from(task.status != TaskStatus::Completed);
                assert_eq!(task.retry_count as usize, expected, "{number}: {:?}", task.status);
            }
        }
    }

    #[test]
    fn a_node_that_goes_offline_loses_much_in_commands_of_bounded_size() {
        let mut world = World::new();
        let command = Command::SetNodeStatus { node_id: id(), status: NodeStatus::Offline };
        world.say(command).unwrap();
        let rest = HELD - LOSSES_MAX;
        assert_eq!(world.stands(), (NodeStatus::Offline, rest, Some(Loss::Offline)));
        // What it has not lost yet is its own still; nothing comes on top.
        let taken = world.report(HELD - 1).unwrap();
        let reported = |status, stale| Outcome::TaskReported { status, attempt: 1, stale };
        assert_eq!(taken, reported(TaskStatus::Completed, false));
        let late = world.report(0).unwrap();
        assert_eq!(late, reported(TaskStatus::Pending, true));
        assert_eq!(world.place(0..1), Outcome::Judged { accepted: 0, stale: 1 });
        world.observe();
        let rest = rest - 1 - LOSSES_MAX;
        assert_eq!(world.stands(), (NodeStatus::Offline, rest, Some(Loss::Offline)));
        world.observe();
        assert_eq!(world.stands(), (NodeStatus::Offline, 0, None));
        world.observe();
        assert_eq!(world.stands(), (NodeStatus::Active, 0, None));
        world.all_lost_once(1);
    }

    #[test]
    fn the_same_run_that_registers_again_goes_on_losing_what_it_was_losing() {
        let mut world = World::new();
        let command = Command::SetNodeStatus { node_id: id(), status: NodeStatus::Offline };
        world.say(command).unwrap();
        world.register("one");
        assert_eq!(world.stands(), (NodeStatus::Offline, 500, Some(Loss::Offline)));
        world.observe();
        world.observe();
        assert_eq!(world.stands(), (NodeStatus::Active, 0, None));
        let told = |event: &&Event| match &event.fact {
            Fact::TaskRetried { taken_from, .. } => taken_from.is_some(),
            _other_facts => true,
        };
        assert!(world.events.iter().all(|event| told(&event)), "it is still at all of them");
        world.all_lost_once(0);
    }

    #[test]
    fn a_removed_node_that_held_much_goes_when_the_last_of_it_is_gone() {
        let mut world = World::new();
        world.say(Command::RemoveNode { node_id: id() }).unwrap();
        let rest = HELD - LOSSES_MAX;
        assert_eq!(world.stands(), (NodeStatus::Offline, rest, Some(Loss::Removed)));
        // Nobody brings it back by the way.
        let status = NodeStatus::Active;
        let refused = world.say(Command::SetNodeStatus { node_id: id(), status });
        assert_eq!(refused, Err(Rejection::NodeNotFound));
        let refused = world.say(Command::DrainNode { node_id: id(), within_ms: 1 });
        assert_eq!(refused, Err(Rejection::NodeNotFound));
        world.observe();
        world.observe();
        assert!(world.state.node(&id()).is_none());
        assert!(matches!(world.events.last().unwrap().fact, Fact::NodeRemoved { .. }));
        invariants::check(&world.state);
        world.all_lost_once(0);
    }

    #[test]
    fn a_node_that_was_restarted_or_comes_back_is_in_service_when_the_old_work_is_gone() {
        for removed in [false, true] {
            let mut world = World::new();
            let mut rest = HELD - LOSSES_MAX;
            if removed {
                world.say(Command::RemoveNode { node_id: id() }).unwrap();
                rest -= LOSSES_MAX;
            }
            world.register("two");
            assert_eq!(world.stands(), (NodeStatus::Offline, rest, Some(Loss::Restarted)));
            assert_eq!(world.place(0..1), Outcome::Judged { accepted: 0, stale: 1 });
            while world.stands().0 == NodeStatus::Offline {
                world.observe();
            }
            assert_eq!(world.stands(), (NodeStatus::Active, 0, None));
            world.all_lost_once(0);
            assert_eq!(world.place(0..1), Outcome::Judged { accepted: 1, stale: 0 });
        }
    }

    /// It kept what it had not lost yet, which a new run of it knows nothing of.
    #[test]
    fn a_node_that_an_operator_gives_a_status_goes_on_losing_what_it_was_losing() {
        use NodeStatus::{Active, Maintenance, Offline};
        for (restarts, status) in
            [(false, Active), (true, Active), (false, Maintenance), (true, Maintenance)]
        {
            let mut world = World::new();
            if restarts {
                world.register("two");
            } else {
                world.say(Command::SetNodeStatus { node_id: id(), status: Offline }).unwrap();
            }
            let loss = if restarts { Loss::Restarted } else { Loss::Offline };
            let rest = HELD - LOSSES_MAX;
            assert_eq!(world.stands(), (Offline, rest, Some(loss)));
            world.say(Command::SetNodeStatus { node_id: id(), status }).unwrap();
            assert_eq!(world.stands(), (status, rest, Some(loss)));
            assert_eq!(world.place(0..1), Outcome::Judged { accepted: 0, stale: 1 });
            world.observe();
            world.observe();
            assert_eq!(world.stands(), (status, 0, None));
            world.all_lost_once(0);
        }
    }

    #[test]
    fn a_drain_whose_node_goes_offline_is_over_when_the_last_of_it_is_lost() {
        let mut world = World::new();
        world.say(Command::DrainNode { node_id: id(), within_ms: 1 }).unwrap();
        world.say(Command::SetNodeStatus { node_id: id(), status: NodeStatus::Offline }).unwrap();
        world.observe();
        world.observe();
        assert_eq!(world.stands(), (NodeStatus::Offline, 0, None));
        let drained = |event: &&Event| matches!(event.fact, Fact::NodeDrained { .. });
        assert_eq!(world.events.iter().filter(drained).count(), 1);
        world.all_lost_once(0);
    }

    #[test]
    fn a_drain_that_is_over_gives_much_back_in_commands_of_bounded_size() {
        let mut world = World::new();
        world.say(Command::DrainNode { node_id: id(), within_ms: 0 }).unwrap();
        for left in [HELD - LOSSES_MAX, HELD - 2 * LOSSES_MAX, 0] {
            world.say(Command::EndDrains { epoch: EPOCH, node_ids: vec![id()] }).unwrap();
            assert_eq!(world.stands(), (NodeStatus::Maintenance, left, None));
        }
        let drained = world.events.iter().filter_map(|event| match &event.fact {
            Fact::NodeDrained { withdrawn, .. } => Some(*withdrawn as usize),
            _other_facts => None,
        });
        assert_eq!(drained.collect::<Vec<_>>(), [HELD]);
        let queued = |event: &&Event| matches!(event.fact, Fact::TaskQueued { .. });
        assert_eq!(world.events.iter().filter(queued).count(), HELD);
        assert_eq!(world.state.node(&id()).unwrap().drain_until_ms, None);
    }
}
