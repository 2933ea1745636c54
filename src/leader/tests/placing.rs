//! The scheduler's plan: properties over random fleets and queues, and cases with a name.

use std::sync::Arc;

use proptest::prelude::*;

use crate::leader::fleet::Loads;
use crate::leader::scheduler::{Plan, PlanInputs, PlanLimits, plan};
use crate::leader::solo::Solo;
use crate::model::{
    Concurrency, FlowMode, Load, NodeId, NodeStatus, Requirements, StepSpec, TaskId, Urgency,
};
use crate::state::{Algorithm, Command, FlowRequest};

const CAPABILITIES: [&str; 3] = ["cpu", "gpu", "tpu"];

/// Applies a plan as apply would judge it, and gives how many placements it took.
fn commit(solo: &Solo, plan: &Plan) -> u64 {
    let epoch = solo.state.read().epoch();
    if plan.assignments.is_empty() {
        return 0;
    }
    let assignments = plan.assignments.clone();
    match solo.commit(Command::AssignTasks { epoch, assignments }).unwrap() {
        crate::state::Outcome::Judged { accepted, stale } => {
            assert_eq!(stale, 0, "apply and plan agree");
            accepted.into()
        }
        other => panic!("{other:?}"),
    }
}

fn suits(task: &crate::model::Task, node: &crate::model::Node) -> bool {
    let wants = &task.requirements;
    let max_load = if wants.max_load_milli == 0 { 900 } else { wants.max_load_milli };
    node.status == NodeStatus::Active
        && wants.capabilities.iter().all(|wanted| node.capabilities.contains(wanted))
        && !wants.exclude_nodes.contains(&node.node_id)
        && wants.min_cpu_milli + node.load.cpu_milli <= 100_000
        && wants.min_memory_milli + node.load.memory_milli <= 100_000
        && node.load.score_milli <= max_load
}

#[derive(Debug, Clone)]
struct SomeNode {
    capabilities: u8,
    capacity: u32,
    cpu: u32,
    score: u32,
    maintenance: bool,
}

#[derive(Debug, Clone)]
struct SomeTask {
    capabilities: u8,
    urgency: u8,
    min_cpu: u32,
    prefers: Option<usize>,
    excludes: Option<usize>,
}

fn some_node() -> impl Strategy<Value = SomeNode> {
    (0u8..8, 0u32..5, 0u32..=100, 0u32..=1000, prop::bool::weighted(0.1)).prop_map(
        |(capabilities, capacity, cpu, score, maintenance)| SomeNode {
            capabilities,
            capacity,
            cpu,
            score,
            maintenance,
        },
    )
}

fn some_task() -> impl Strategy<Value = SomeTask> {
    let node = || prop::option::weighted(0.2, 0usize..12);
    (0u8..8, 0u8..4, 0u32..60, node(), node()).prop_map(
        |(capabilities, urgency, min_cpu, prefers, excludes)| SomeTask {
            // Most tasks ask for little.
            capabilities: capabilities & urgency,
            urgency: urgency * 25,
            min_cpu,
            prefers,
            excludes,
        },
    )
}

fn names(bits: u8) -> Vec<String> {
    let named = CAPABILITIES.iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0);
    named.map(|(_, name)| (*name).to_owned()).collect()
}

fn node_name(place: usize) -> NodeId {
    NodeId::trusted(&format!("n{place}"))
}

fn build(nodes: &[SomeNode], tasks: &[SomeTask], algorithm: Algorithm) -> Arc<Solo> {
    let solo = Solo::new();
    let path = "network.load_balance_algorithm".to_owned();
    let value = format!("\"{}\"", algorithm.as_str());
    solo.commit(Command::PatchConfig { path, value, expected_revision: None }).unwrap();
    for (place, node) in nodes.iter().enumerate() {
        solo.register(node_name(place).as_str(), |spec| {
            spec.capabilities = names(node.capabilities);
            spec.capacity = node.capacity;
            spec.load.cpu_milli = node.cpu * 1000;
            spec.load.score_milli = node.score;
        });
        if node.maintenance {
            let (node_id, status) = (node_name(place), NodeStatus::Maintenance);
            solo.commit(Command::SetNodeStatus { node_id, status }).unwrap();
        }
    }
    for (place, task) in tasks.iter().enumerate() {
        solo.submit(&format!("t{place:03}"), |spec| {
            spec.urgency = Urgency::clamped(task.urgency.into());
            spec.requirements = Requirements {
                capabilities: names(task.capabilities),
                min_cpu_milli: task.min_cpu * 1000,
                preferred_nodes: task.prefers.into_iter().map(node_name).collect(),
                exclude_nodes: task.excludes.into_iter().map(node_name).collect(),
                ..Requirements::default()
            };
        });
    }
    solo
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// With room in its bounds, a plan places everything that can be placed, only where it fits,
    /// never more than a node takes; and apply accepts all of it.
    #[test]
    fn a_plan_fits_and_leaves_nothing_placeable(
        nodes in prop::collection::vec(some_node(), 0..12),
        tasks in prop::collection::vec(some_task(), 0..60),
        algorithm in 0usize..5,
        seed in any::<u64>(),
    ) {
        let solo = build(&nodes, &tasks, Algorithm::ALL[algorithm]);
        let inputs = PlanInputs { seed, ..PlanInputs::default() };
        let made = solo.state.read().queue().count();
        let plan = plan(&solo.state.read(), &inputs, PlanLimits::default());
        {
            let view = solo.state.read();
            for assignment in &plan.assignments {
                let task = view.open_task(&assignment.task_id).unwrap();
                let node = view.node(&assignment.node_id).unwrap();
                prop_assert!(suits(task, node), "{assignment:?}");
            }
        }
        commit(&solo, &plan);
        let view = solo.state.read();
        for node in view.nodes() {
            prop_assert!(node.live <= node.capacity);
        }
        for task in view.queue() {
            let place = view.nodes().find(|node| node.takes_work() && suits(task, node));
            prop_assert!(place.is_none(), "{} would fit on {:?}", task.task_id, place);
        }
        prop_assert_eq!(made - plan.assignments.len(), view.queue().count());
        prop_assert_eq!(plan.cursor, None);
        prop_assert!(!plan.more);
    }

    /// However small its bounds, plan after plan places the same number of tasks as one wide plan
    /// would at least reach by itself: nobody is stuck behind somebody else.
    #[test]
    fn bounded_plans_reach_everybody(
        nodes in prop::collection::vec(some_node(), 1..8),
        tasks in prop::collection::vec(some_task(), 1..60),
        assignments_max in 1usize..4,
        groups_max in 1usize..3,
    ) {
        let solo = build(&nodes, &tasks, Algorithm::RoundRobin);
        let limits = PlanLimits { assignments_max, groups_max };
        let mut inputs = PlanInputs::default();
        for round in 0.. {
            prop_assert!(round < 1000, "the plans do not come to an end");
            let plan = plan(&solo.state.read(), &inputs, limits);
            prop_assert!(plan.assignments.len() <= assignments_max);
            commit(&solo, &plan);
            (inputs.cursor, inputs.swept) = (plan.cursor, plan.swept);
            inputs.turns = plan.turns.clone();
            inputs.unfinished = plan.unfinished && plan.cursor.is_some();
            if !plan.more {
                break;
            }
        }
        let view = solo.state.read();
        for task in view.queue() {
            let place = view.nodes().find(|node| node.takes_work() && suits(task, node));
            prop_assert!(place.is_none(), "{} would fit on {:?}", task.task_id, place);
        }
    }
}

fn placed(plan: &Plan) -> Vec<(&str, &str)> {
    plan.assignments.iter().map(|row| (row.task_id.as_str(), row.node_id.as_str())).collect()
}

#[test]
fn the_urgent_come_first_then_the_early() {
    let solo = Solo::new();
    solo.register("n", |spec| spec.capacity = 3);
    for (name, urgency) in [("a", 25), ("b", 50), ("c", 100), ("d", 50), ("e", 75)] {
        solo.submit(name, |spec| spec.urgency = Urgency::clamped(urgency));
    }
    let plan = plan(&solo.state.read(), &PlanInputs::default(), PlanLimits::default());
    assert_eq!(placed(&plan), [("c", "n"), ("e", "n"), ("b", "n")]);
    assert!(!plan.more, "the fleet is full");
}

#[test]
fn nobody_waits_behind_a_task_that_fits_nowhere() {
    let solo = Solo::new();
    solo.register("n", |_| {});
    solo.submit("big", |spec| {
        spec.urgency = Urgency::clamped(100);
        spec.requirements.capabilities = vec!["quantum".to_owned()];
    });
    solo.submit("small", |_| {});
    let plan = plan(&solo.state.read(), &PlanInputs::default(), PlanLimits::default());
    assert_eq!(placed(&plan), [("small", "n")]);
}

#[test]
fn preferred_nodes_are_taken_first_and_excluded_ones_never() {
    let solo = Solo::new();
    for name in ["a", "b", "c"] {
        solo.register(name, |spec| spec.capacity = 1);
    }
    for name in ["1", "2", "3"] {
        solo.submit(name, |spec| {
            spec.requirements.preferred_nodes = vec![NodeId::trusted("b")];
            spec.requirements.exclude_nodes = vec![NodeId::trusted("a")];
        });
    }
    let plan = plan(&solo.state.read(), &PlanInputs::default(), PlanLimits::default());
    assert_eq!(placed(&plan), [("1", "b"), ("2", "c")]);
}

#[test]
fn held_nodes_get_nothing_and_fresh_figures_win() {
    let solo = Solo::new();
    for name in ["busy", "held", "idle"] {
        solo.register(name, |_| {});
    }
    for name in ["1", "2"] {
        solo.submit(name, |_| {});
    }
    let overloaded = Load { score_milli: 901, ..Load::default() };
    let inputs = PlanInputs {
        held: vec![NodeId::trusted("held")],
        loads: Arc::new(Loads::new(Arc::default(), vec![(NodeId::trusted("busy"), overloaded)])),
        ..PlanInputs::default()
    };
    let plan = plan(&solo.state.read(), &inputs, PlanLimits::default());
    assert_eq!(placed(&plan), [("1", "idle"), ("2", "idle")]);
}

#[test]
fn amounts_of_memory_are_no_shares() {
    let solo = Solo::new();
    solo.register("n", |spec| spec.load.memory_milli = 99_000);
    solo.submit("t", |spec| spec.requirements.min_memory_milli = 1_024_000);
    let plan = plan(&solo.state.read(), &PlanInputs::default(), PlanLimits::default());
    assert_eq!(placed(&plan), [("t", "n")]);
}

#[test]
fn a_retry_goes_elsewhere_when_it_can() {
    for (nodes, expected) in [(&["a", "b"][..], "b"), (&["a"][..], "a")] {
        let solo = Solo::new();
        solo.register("a", |_| {});
        let task_id = solo.submit("t", |_| {});
        let first = plan(&solo.state.read(), &PlanInputs::default(), PlanLimits::default());
        assert_eq!(placed(&first), [("t", "a")]);
        commit(&solo, &first);
        for node in &nodes[1..] {
            solo.register(node, |_| {});
        }
        let (node_id, status) = (NodeId::trusted("a"), NodeStatus::Offline);
        solo.commit(Command::SetNodeStatus { node_id: node_id.clone(), status }).unwrap();
        solo.commit(Command::SetNodeStatus { node_id, status: NodeStatus::Active }).unwrap();
        assert_eq!(solo.state.read().task(&task_id).unwrap().retry_count, 1);
        for seed in 0..20 {
            let inputs = PlanInputs { seed, ..PlanInputs::default() };
            let again = plan(&solo.state.read(), &inputs, PlanLimits::default());
            assert_eq!(placed(&again), [("t", expected)]);
        }
    }
}

/// Placing beside 24,000 unplaceable tasks took five times as long as without them.
#[test]
fn a_long_queue_of_unplaceable_tasks_costs_one_look() {
    let solo = Solo::new();
    solo.register("n", |_| {});
    for n in 0..1000 {
        solo.submit(&format!("x{n}"), |spec| {
            spec.requirements.capabilities = vec!["quantum".to_owned()];
        });
    }
    let last: TaskId = solo.submit("last", |_| {});
    let plan = plan(&solo.state.read(), &PlanInputs::default(), PlanLimits::default());
    assert_eq!(placed(&plan), [(last.as_str(), "n")]);
    assert_eq!(plan.visited, 1);
    assert!(!plan.more);
}

/// A plan looked at the first 512 kinds of task by a hash: on a full fleet the others waited for ever.
#[test]
fn a_full_fleet_serves_kinds_in_order_of_urgency_however_many_there_are() {
    let solo = Solo::new();
    solo.register("n", |spec| spec.capacity = 1);
    let (kinds, limits) = (12, PlanLimits { assignments_max: 10, groups_max: 4 });
    for round in 0..2 {
        for kind in 0..kinds {
            solo.submit(&format!("{round}/{kind}"), |spec| {
                let key = format!("tenant {kind}");
                spec.concurrency = Some(Concurrency { key, max: 9 });
                spec.urgency = Urgency::clamped(if kind == 7 { 100 } else { 50 });
            });
        }
    }
    let (mut inputs, mut served) = (PlanInputs::default(), Vec::new());
    while solo.state.read().queue().next().is_some() {
        let plan = plan(&solo.state.read(), &inputs, limits);
        inputs.cursor = plan.cursor;
        assert_eq!(commit(&solo, &plan), 1, "a place is free");
        let task_id = plan.assignments[0].task_id.clone();
        served.push(task_id.to_string());
        solo.commit(Command::CancelTask { task_id, reason: String::new() }).unwrap();
    }
    let place = |name: &String| {
        let (round, kind) = name.split_once('/').unwrap();
        (kind != "7", round.parse::<u32>().unwrap(), kind.parse::<u32>().unwrap())
    };
    assert_eq!(served.len(), 2 * kinds);
    assert!(served.is_sorted_by_key(place), "{served:?}");
}

/// Steps for agents that nobody is were given back by the thousands in one command, which was
/// refused for its size: that ended the reign, and the next one likewise.
#[test]
fn steps_that_no_agent_is_for_are_given_back_a_bounded_number_at_a_time() {
    let solo = Solo::new();
    for n in 0..20 {
        solo.submit(&format!("t{n}"), |spec| {
            let step = |place| StepSpec {
                name: format!("s{place}"),
                agent_type: format!("kind{place}"),
                ..StepSpec::default()
            };
            let steps = (0..64).map(step).collect();
            spec.flow = Some(FlowRequest::Steps { mode: FlowMode::Parallel, steps });
        });
    }
    let mut inputs = PlanInputs::default();
    let mut rounds = 0;
    loop {
        let plan = plan(&solo.state.read(), &inputs, PlanLimits::default());
        (inputs.cursor, inputs.unfinished) = (plan.cursor, plan.unfinished);
        assert!(plan.refusals.len() <= 256, "{}", plan.refusals.len());
        let (epoch, refusals) = (solo.state.read().epoch(), plan.refusals);
        if !refusals.is_empty() {
            solo.commit(Command::RefuseSteps { epoch, refusals }).unwrap();
        }
        if !plan.more {
            break;
        }
        rounds += 1;
        assert!(rounds < 100, "the plans do not come to an end");
    }
    assert_eq!(solo.state.read().queue().count(), 0, "every step was given back");
}

/// They waited for ever: a full fleet's plans never looked behind the first groups (contract 4.5).
#[test]
fn steps_that_no_agent_is_for_are_given_back_behind_many_kinds_in_a_full_fleet() {
    let solo = Solo::new();
    solo.register("n", |spec| spec.capacity = 1);
    for kind in 0..10 {
        solo.submit(&format!("t{kind}"), |spec| {
            spec.concurrency = Some(Concurrency { key: format!("tenant {kind}"), max: 9 });
        });
    }
    for kind in 0..7 {
        solo.submit(&format!("s{kind}"), |spec| {
            let step = |place| StepSpec {
                name: format!("s{place}"),
                agent_type: format!("kind {kind}"),
                ..StepSpec::default()
            };
            let steps = (0..60).map(step).collect();
            spec.flow = Some(FlowRequest::Steps { mode: FlowMode::Parallel, steps });
        });
    }
    let limits = PlanLimits { assignments_max: 10, groups_max: 2 };
    let mut inputs = PlanInputs::default();
    for round in 0.. {
        let plan = plan(&solo.state.read(), &inputs, limits);
        assert!(plan.refusals.len() <= 256, "{}", plan.refusals.len());
        (inputs.cursor, inputs.swept) = (plan.cursor, plan.swept);
        inputs.unfinished = plan.unfinished && plan.cursor.is_some();
        commit(&solo, &plan);
        let (epoch, refusals) = (solo.state.read().epoch(), plan.refusals);
        if !refusals.is_empty() {
            solo.commit(Command::RefuseSteps { epoch, refusals }).unwrap();
        }
        if !plan.more {
            break;
        }
        assert!(round < 100, "the plans do not come to an end");
    }
    let view = solo.state.read();
    let waiting: Vec<_> = view.queue().map(|task| task.task_id.as_str()).collect();
    assert_eq!(waiting.len(), 9, "no step is left, and the others wait for the place: {waiting:?}");
}

#[test]
fn a_large_fleet_is_filled_through_its_window() {
    let solo = Solo::new();
    let path = "network.max_nodes".to_owned();
    solo.commit(Command::PatchConfig { path, value: "1000".to_owned(), expected_revision: None })
        .unwrap();
    for n in 0..600 {
        solo.register(&format!("n{n:03}"), |spec| spec.capacity = 1);
    }
    for n in 0..600 {
        solo.submit(&format!("t{n}"), |_| {});
    }
    let plan = plan(&solo.state.read(), &PlanInputs::default(), PlanLimits::default());
    assert_eq!(plan.assignments.len(), 600);
    assert_eq!(commit(&solo, &plan), 600);
}

/// Copies went to the first nodes by id, whatever these had to do.
#[test]
fn contract_2_8_copies_go_to_the_best_nodes_and_never_to_one_twice() {
    for algorithm in [Algorithm::LeastConnections, Algorithm::ResourceAware] {
        let solo = Solo::new();
        let value = format!("\"{}\"", algorithm.as_str());
        let path = "network.load_balance_algorithm".to_owned();
        solo.commit(Command::PatchConfig { path, value, expected_revision: None }).unwrap();
        for (name, load) in [("a", 80), ("b", 20), ("c", 60), ("d", 10)] {
            solo.register(name, |spec| {
                spec.load.cpu_milli = load * 1000;
                spec.load.score_milli = load * 10;
            });
        }
        solo.submit("t", |spec| spec.flow = Some(FlowRequest::Copies { count: 2 }));
        let plan = plan(&solo.state.read(), &PlanInputs::default(), PlanLimits::default());
        assert_eq!(placed(&plan), [("t#0", "d"), ("t#1", "b")], "{algorithm:?}");
        assert_eq!(commit(&solo, &plan), 2);
    }
    let solo = Solo::new();
    ["a", "b"].into_iter().for_each(|name| solo.register(name, |_| {}));
    solo.submit("t", |spec| spec.flow = Some(FlowRequest::Copies { count: 3 }));
    let plan = plan(&solo.state.read(), &PlanInputs::default(), PlanLimits::default());
    let mut nodes: Vec<_> = placed(&plan).into_iter().map(|(_, node)| node).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["a", "b"], "the third waits for a node of its own");
}

#[test]
fn contract_2_8_copies_take_preferred_nodes_first() {
    let solo = Solo::new();
    for name in ["a", "b", "c"] {
        solo.register(name, |_| {});
    }
    solo.submit("t", |spec| {
        spec.requirements.preferred_nodes = vec![NodeId::trusted("c")];
        spec.flow = Some(FlowRequest::Copies { count: 2 });
    });
    let plan = plan(&solo.state.read(), &PlanInputs::default(), PlanLimits::default());
    assert_eq!(placed(&plan)[0], ("t#0", "c"));
    assert_eq!(plan.assignments.len(), 2);
}
