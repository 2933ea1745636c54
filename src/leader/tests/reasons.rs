//! What the rules say of a waiting task is what the scheduler does with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use crate::clock;
use crate::leader::eligible::{Gate, Obstacle, Rules, gates_of};
use crate::leader::fleet::Loads;
use crate::leader::scheduler::{PlanInputs, PlanLimits, plan};
use crate::leader::solo::Solo;
use crate::model::{
    Concurrency, FlowMode, LISTED_TYPES_ONLY, Load, NodeId, NodeStatus, RateLimit, Requirements,
    StepSpec, Task, TaskId,
};
use crate::state::{Command, FlowRequest, NodeSpec, Outcome, State, TaskExpiry};

const HOUR_MS: u64 = 3_600_000;

#[derive(Debug, Clone)]
struct SomeNode {
    /// A node, an agent program, an agent that is built in.
    kind: u8,
    able: bool,
    capacity: u32,
    load: Load,
    fresh: bool,
    status: NodeStatus,
    held: bool,
}

#[derive(Debug, Clone)]
struct SomeTask {
    /// For a node, for agents, for two nodes at once.
    kind: u8,
    needs: Requirements,
    key: Option<u32>,
    rate: Option<u32>,
}

fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.2)
}

fn some_node() -> impl Strategy<Value = SomeNode> {
    let status = prop_oneof![6 => Just(NodeStatus::Active), 1 => Just(NodeStatus::Maintenance),
        1 => Just(NodeStatus::Offline), 1 => Just(NodeStatus::Degraded)];
    let load = (0u32..=100, 0u32..=100, 0u32..=1000).prop_map(|(cpu, memory, score_milli)| Load {
        cpu_milli: cpu * 1000,
        memory_milli: memory * 1000,
        score_milli,
        ..Load::default()
    });
    (0u8..3, any::<bool>(), 0u32..3, load, rarely(), status, rarely()).prop_map(
        |(kind, able, capacity, load, fresh, status, held)| SomeNode {
            kind,
            able,
            capacity,
            load,
            fresh,
            status,
            held,
        },
    )
}

fn some_task() -> impl Strategy<Value = SomeTask> {
    let needs = (rarely(), 0u32..50, 0u32..50, prop::option::weighted(0.2, 0usize..8)).prop_map(
        |(able, cpu, memory, excluded)| Requirements {
            capabilities: if able { vec!["gpu".to_owned()] } else { Vec::new() },
            min_cpu_milli: cpu * 1000,
            min_memory_milli: memory * 1000,
            exclude_nodes: excluded.into_iter().map(|place| name(place, 0)).collect(),
            ..Requirements::default()
        },
    );
    let limit = || prop::option::weighted(0.4, 1u32..3);
    (0u8..3, needs, limit(), limit()).prop_map(|(kind, needs, key, rate)| SomeTask {
        kind,
        needs,
        key,
        rate,
    })
}

fn name(place: usize, kind: u8) -> NodeId {
    NodeId::trusted(&if kind == 0 { format!("n{place}") } else { format!("agent:{place}") })
}

fn build(nodes: &[SomeNode], tasks: &[SomeTask]) -> (Arc<Solo>, PlanInputs) {
    let solo = Solo::new();
    let (mut held, mut fresh) = (Vec::new(), Vec::new());
    for (place, node) in nodes.iter().enumerate() {
        let node_id = name(place, node.kind);
        solo.register(node_id.as_str(), |spec| {
            spec.capacity = node.capacity;
            spec.agent_type = (node.kind > 0).then(|| "x".to_owned());
            if node.kind == 2 {
                spec.host = String::new();
            }
            if node.able {
                spec.capabilities = vec!["gpu".to_owned()];
            }
            if !node.fresh {
                spec.load = node.load;
            }
        });
        if node.fresh {
            fresh.push((node_id.clone(), node.load));
        }
        if node.held {
            held.push(node_id.clone());
        }
        solo.commit(Command::SetNodeStatus { node_id, status: node.status }).unwrap();
    }
    for (place, task) in tasks.iter().enumerate() {
        solo.submit(&format!("t{place}"), |spec| {
            spec.requirements = task.needs.clone();
            let step = StepSpec {
                name: "s".to_owned(),
                agent_type: "x".to_owned(),
                ..StepSpec::default()
            };
            spec.flow = match task.kind {
                0 => None,
                1 => Some(FlowRequest::Steps { mode: FlowMode::Parallel, steps: vec![step] }),
                _ => Some(FlowRequest::Copies { count: 2 }),
            };
            spec.concurrency = task.key.map(|max| Concurrency { key: format!("k{max}"), max });
            let rate = |max| RateLimit { key: format!("r{max}"), max, per_ms: HOUR_MS };
            spec.rate = task.rate.map(rate);
        });
    }
    held.sort();
    fresh.sort_by(|one, other| one.0.cmp(&other.0));
    let loads = Arc::new(Loads::new(Arc::default(), fresh));
    (solo, PlanInputs { held, loads, ..PlanInputs::default() })
}

/// Everybody to whom the task may be given now, by the rules.
fn takers(state: &State, inputs: &PlanInputs, task: &Task) -> Vec<NodeId> {
    if !gates_of(state, task, inputs.now).is_empty() {
        return Vec::new();
    }
    let rules = Rules::new(state, &inputs.loads, &inputs.held);
    let all = state.holders_of_work();
    let takers = all.filter(|node| rules.obstacle(node, task).is_none());
    takers.map(|node| node.node_id.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whoever is given a task had nothing in the way before the plan; of every task that is left,
    /// the rules name a gate, or an obstacle for each node and agent there is.
    #[test]
    fn the_scheduler_and_the_rules_never_disagree(
        nodes in prop::collection::vec(some_node(), 0..8),
        tasks in prop::collection::vec(some_task(), 0..20),
        paused in prop::bool::weighted(0.05),
    ) {
        let (solo, mut inputs) = build(&nodes, &tasks);
        let path = "orchestrator.scheduling_paused".to_owned();
        let value = paused.to_string();
        solo.commit(Command::PatchConfig { path, value, expected_revision: None }).unwrap();
        let epoch = solo.state.read().epoch();
        for round in 0.. {
            prop_assert!(round < 100, "the plans do not come to an end");
            inputs.now = clock::now_ms();
            let plan = plan(&solo.state.read(), &inputs, PlanLimits::default());
            if plan.assignments.is_empty() {
                break;
            }
            for given in &plan.assignments {
                let state = solo.state.read();
                let task = state.open_task(&given.task_id).unwrap();
                let takers = takers(&state, &inputs, task);
                prop_assert!(takers.contains(&given.node_id), "{given:?}, not one of {takers:?}");
            }
            let assignments = plan.assignments;
            let judged = solo.commit(Command::AssignTasks { epoch, assignments }).unwrap();
            // The first step of a task hands its limits over, which changes the other steps.
            let some = matches!(judged, Outcome::Judged { accepted: 1.., .. });
            prop_assert!(some, "{judged:?}");
        }
        let state = solo.state.read();
        for task in state.queue() {
            let takers = takers(&state, &inputs, task);
            prop_assert!(takers.is_empty(), "{} is left, but {takers:?} may have it", task.task_id);
        }
    }
}

#[test]
fn a_rate_wakes_the_scheduler_when_it_clears() {
    let solo = Solo::new();
    solo.register("n", |_| {});
    for name in ["1", "2", "3"] {
        solo.submit(name, |spec| {
            spec.rate = Some(RateLimit { key: "k".to_owned(), max: 2, per_ms: HOUR_MS });
        });
    }
    let inputs = PlanInputs { now: clock::now_ms(), ..PlanInputs::default() };
    let first = plan(&solo.state.read(), &inputs, PlanLimits::default());
    assert_eq!((first.assignments.len(), first.more), (2, true));
    let epoch = solo.state.read().epoch();
    solo.commit(Command::AssignTasks { epoch, assignments: first.assignments }).unwrap();
    let started_ms = solo.state.read().counters().last_at_ms;
    let second = plan(&solo.state.read(), &inputs, PlanLimits::default());
    assert_eq!((second.assignments.len(), second.more), (0, false));
    assert_eq!(second.clears_ms, Some(started_ms + HOUR_MS));
    let state = solo.state.read();
    let task = state.open_task(&TaskId::trusted("3")).unwrap();
    let gates = gates_of(&state, task, started_ms);
    assert!(
        matches!(gates[..], [Gate::Rate { clears_ms, .. }] if clears_ms == started_ms + HOUR_MS)
    );
}

/// What was late when it was planned was done all the same, when its node was faster than the timer.
#[test]
fn contract_2_7_nobody_is_given_a_task_whose_deadline_has_passed() {
    let solo = Solo::new();
    solo.register("n", |spec| spec.capacity = 9);
    let now = clock::now_ms();
    solo.submit("late", |spec| spec.deadline_ms = Some(now - 100));
    solo.submit("soon", |spec| spec.deadline_ms = Some(now + HOUR_MS));
    let inputs = PlanInputs { now, ..PlanInputs::default() };
    let planned = |inputs| plan(&solo.state.read(), inputs, PlanLimits::default());
    // It is passed over with all that need the same, until the timer has ended it.
    assert_eq!(planned(&inputs).assignments, []);
    let expiries = {
        let state = solo.state.read();
        let due = state.due_timers(now).map(|(task, kind)| TaskExpiry {
            task_id: task.task_id.clone(),
            seen_revision: task.revision,
            kind,
        });
        due.collect()
    };
    let epoch = solo.state.read().epoch();
    solo.commit(Command::ExpireTasks { epoch, expiries }).unwrap();
    let then = planned(&inputs).assignments;
    assert_eq!(then.iter().map(|one| one.task_id.as_str()).collect::<Vec<_>>(), ["soon"]);
}

/// Workers were given what they have no program for, which cost tries and budgets.
#[test]
fn a_node_that_lists_its_types_is_given_no_others() {
    let solo = Solo::new();
    let lists = |spec: &mut NodeSpec| {
        spec.capabilities = vec![LISTED_TYPES_ONLY.to_owned(), "probe".to_owned()];
        spec.capacity = 9;
    };
    solo.register("worker", lists);
    let submit = |task_id: &str, kind: &str| {
        solo.submit(task_id, |spec| spec.task_type = kind.to_owned());
    };
    submit("a", "probe");
    submit("b", "other");
    submit("c", "probe");
    let inputs = PlanInputs { now: clock::now_ms(), ..PlanInputs::default() };
    let placed = || {
        let plan = plan(&solo.state.read(), &inputs, PlanLimits::default());
        let pairs = plan.assignments.into_iter();
        pairs.map(|one| format!("{} {}", one.task_id, one.node_id)).collect::<BTreeSet<_>>()
    };
    let own = ["a worker", "c worker"].map(str::to_owned);
    assert_eq!(placed(), own.into());
    solo.register("any", |spec| spec.capacity = 9);
    let all = placed();
    assert!(all.contains("b any") && all.len() == 3, "{all:?}");
}

#[test]
fn contract_4_7_an_agent_that_failed_comes_last_until_it_succeeds() {
    let solo = Solo::new();
    for name in ["agent:a", "agent:b"] {
        solo.register(name, |spec| {
            spec.agent_type = Some("x".to_owned());
            spec.capacity = 1;
        });
    }
    let step = |task_id: &str| {
        let spec = StepSpec {
            name: "s".to_owned(),
            agent_type: "x".to_owned(),
            max_retries: 9,
            ..StepSpec::default()
        };
        solo.submit(task_id, |task| {
            task.flow = Some(FlowRequest::Steps { mode: FlowMode::Parallel, steps: vec![spec] });
        });
        TaskId::trusted(&format!("{task_id}#0"))
    };
    let epoch = solo.state.read().epoch();
    let place = |on: &str| {
        let plan = plan(&solo.state.read(), &PlanInputs::default(), PlanLimits::default());
        let given: Vec<&str> = plan.assignments.iter().map(|row| row.node_id.as_str()).collect();
        assert_eq!(given, [on]);
        solo.commit(Command::AssignTasks { epoch, assignments: plan.assignments }).unwrap();
    };
    let end = |task_id: &TaskId, outcome: crate::state::TaskOutcome| {
        let result = crate::state::DispatchResult::Finished(outcome);
        let attempt = solo.state.read().open_task(task_id).unwrap().attempt;
        let dispatch =
            crate::state::Dispatch { task_id: task_id.clone(), attempt, again: false, result };
        solo.commit(Command::RecordDispatches { epoch, dispatches: vec![dispatch] }).unwrap();
    };
    let failed = |failure| crate::state::TaskOutcome::Failed { failure, error: "no".to_owned() };
    let healthy = |name: &str| solo.state.read().node(&NodeId::trusted(name)).unwrap().is_healthy();
    // That the work makes no sense says nothing of the agent.
    let senseless = step("senseless");
    place("agent:a");
    end(&senseless, failed(crate::model::TaskFailure::Permanent));
    assert!(healthy("agent:a"));
    let first = step("first");
    place("agent:a");
    end(&first, failed(crate::model::TaskFailure::Retryable));
    assert!(!healthy("agent:a"));
    // The other one is taken while it has room, then this one.
    let second = step("second");
    place("agent:b");
    let third = step("third");
    place("agent:a");
    let done = || crate::state::TaskOutcome::Completed { result: "1".to_owned() };
    end(&third, done());
    end(&second, done());
    assert!(healthy("agent:a"));
}

#[test]
fn what_lasts_longest_is_named_first() {
    let solo = Solo::new();
    let task_id = solo.submit("t", |spec| spec.requirements.min_cpu_milli = 50_000);
    let named = |held: &[NodeId]| {
        let (state, loads) = (solo.state.read(), Loads::default());
        let rules = Rules::new(&state, &loads, held);
        let node = state.node(&NodeId::trusted("n")).unwrap();
        rules.obstacle(node, state.open_task(&task_id).unwrap())
    };
    let register = |cpu_milli: u32, score_milli: u32, capacity: u32| {
        solo.register("n", |spec| {
            spec.load = Load { cpu_milli, score_milli, ..Load::default() };
            spec.capacity = capacity;
        });
    };
    let held = [NodeId::trusted("n")];
    register(50_000, 900, 1);
    assert_eq!((named(&[]), named(&held)), (None, Some(Obstacle::Held)));
    register(50_001, 900, 1);
    assert_eq!((named(&[]), named(&held)), (Some(Obstacle::Cpu), Some(Obstacle::Held)));
    register(50_001, 901, 1);
    assert_eq!(named(&[]), Some(Obstacle::Overloaded));
    register(0, 0, 0);
    assert_eq!(named(&held), Some(Obstacle::Full));
    let (node_id, status) = (NodeId::trusted("n"), NodeStatus::Degraded);
    solo.commit(Command::SetNodeStatus { node_id, status }).unwrap();
    assert_eq!(named(&held), Some(Obstacle::Status(NodeStatus::Degraded)));
}

/// One count for all types gave every type one of its agents alone, where types took turns.
#[test]
fn contract_4_7_round_robin_goes_through_the_agents_of_each_type() {
    let solo = Solo::new();
    let (path, value) = ("agents.load_balancing".to_owned(), "\"round_robin\"".to_owned());
    solo.commit(Command::PatchConfig { path, value, expected_revision: None }).unwrap();
    for (name, kind) in [("agent:a1", "a"), ("agent:a2", "a"), ("agent:b1", "b"), ("agent:b2", "b")]
    {
        solo.register(name, |spec| {
            (spec.agent_type, spec.capacity) = (Some(kind.to_owned()), 9);
        });
    }
    for (n, kind) in ["a", "b", "a", "b"].into_iter().enumerate() {
        let spec = StepSpec {
            name: "s".to_owned(),
            agent_type: kind.to_owned(),
            max_retries: 9,
            ..StepSpec::default()
        };
        solo.submit(&format!("t{n}"), |task| {
            task.flow = Some(FlowRequest::Steps { mode: FlowMode::Parallel, steps: vec![spec] });
        });
    }
    let plan = plan(&solo.state.read(), &PlanInputs::default(), PlanLimits::default());
    let given: Vec<&str> = plan.assignments.iter().map(|row| row.node_id.as_str()).collect();
    assert_eq!(given, ["agent:a1", "agent:b1", "agent:a2", "agent:b2"]);
}
