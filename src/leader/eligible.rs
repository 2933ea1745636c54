//! Who may be given which task now, and what is in the way otherwise (contract 2.7, 2.8, 4.7).
//!
//! The scheduler plans by these rules and `GET /api/v1/tasks/{id}/why` tells them, so the two cannot
//! disagree. Pure: what is known beside the state is handed in.

use std::collections::{BTreeMap, BTreeSet};

use super::fleet::Loads;
use crate::model::{
    Concurrency, Load, Node, NodeId, NodeStatus, RateLimit, Requirements, Task, TaskId, TimeMs,
};
use crate::state::State;

/// The highest load score accepted of a node when the task does not say (contract 2.8).
const MAX_LOAD_MILLI: u32 = 900;
/// `min_cpu` and `min_memory` beyond 100 % are amounts, not shares: nodes do not report those.
const FULL_SHARE_MILLI: u32 = 100_000;

/// What keeps a task from being placed anywhere, whoever is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate<'a> {
    /// Scheduling is paused.
    Paused,
    /// Its deadline has passed, or that of the task that it is a step of: it is about to end.
    Overdue,
    /// Its key has as many tasks under way as it allows.
    Concurrency(&'a Concurrency),
    /// As many tasks of its key as it allows were started in the window of its rate.
    Rate {
        /// Which limit.
        limit: &'a RateLimit,
        /// When the next one may be started.
        clears_ms: TimeMs,
    },
}

/// What is in the way of one node or agent and one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// It cannot do it at all: another kind, a type or capability that it lacks, excluded.
    Unable,
    /// Programs do this kind of work; the agents that are built in leave it to them.
    LeftToPrograms,
    /// It is not in service.
    Status(NodeStatus),
    /// It has yet to lose some of what it held.
    Losing,
    /// It holds as much as it takes.
    Full,
    /// The leader leaves it alone for a moment: it did not answer, or asked for that.
    Held,
    /// Its load score is above what the task accepts.
    Overloaded,
    /// It has too little free CPU.
    Cpu,
    /// It has too little free memory.
    Memory,
    /// It has another copy of the same task.
    HasCopy,
}

/// What a plan itself has given away already; nothing for whoever only asks.
#[derive(Debug, Default)]
pub(super) struct Taken {
    keys: BTreeMap<String, usize>,
    starts: BTreeMap<String, usize>,
    copies: BTreeSet<(TaskId, NodeId)>,
}

impl Taken {
    /// Notes that the plan gives `task` to a node.
    pub(super) fn note(&mut self, task: &Task, node_id: &NodeId) {
        if let Some(limit) = &task.concurrency {
            *self.keys.entry(limit.key.clone()).or_default() += 1;
        }
        if let Some(limit) = &task.rate {
            *self.starts.entry(limit.key.clone()).or_default() += 1;
        }
        if let Some(of) = task.step_of.as_ref().filter(|_| task.is_copy()) {
            self.copies.insert((of.task_id.clone(), node_id.clone()));
        }
    }

    fn has_copy_on(&self, task: &Task, node_id: &NodeId) -> bool {
        let of = task.step_of.as_ref().map(|of| of.task_id.clone());
        of.is_some_and(|task_id| self.copies.contains(&(task_id, node_id.clone())))
    }
}

/// What keeps `task` from being placed at `now`, first things first.
pub(super) fn gates<'a>(
    view: &State,
    task: &'a Task,
    taken: &Taken,
    now: TimeMs,
) -> impl Iterator<Item = Gate<'a>> {
    let planned =
        |planned: &BTreeMap<String, usize>, key: &str| planned.get(key).copied().unwrap_or(0);
    let paused = view.policy().paused.then_some(Gate::Paused);
    let key = task.concurrency.as_ref().filter(|limit| {
        let planned = planned(&taken.keys, &limit.key);
        !view.has_place(task) || view.holders(&limit.key) + planned >= limit.max as usize
    });
    let rate = task.rate.as_ref().and_then(|limit| {
        let planned = planned(&taken.starts, &limit.key);
        let clears_ms = view.rate_clears_ms(task, now, planned)?;
        Some(Gate::Rate { limit, clears_ms })
    });
    let overdue = view.is_overdue(task, now).then_some(Gate::Overdue);
    paused.into_iter().chain(overdue).chain(key.map(Gate::Concurrency)).chain(rate)
}

/// As the scheduler sees it when it begins a plan: what is in the way of `task` at `now`.
#[must_use]
pub fn gates_of<'a>(view: &State, task: &'a Task, now: TimeMs) -> Vec<Gate<'a>> {
    gates(view, task, &Taken::default(), now).collect()
}

/// The rules as they stand at one moment.
#[derive(Debug)]
pub struct Rules<'a> {
    view: &'a State,
    loads: &'a Loads,
    held: &'a [NodeId],
    /// Kinds of agents that programs of their own serve: the leader does none of their work.
    served: BTreeSet<&'a str>,
}

impl<'a> Rules<'a> {
    /// With figures fresher than the replicated ones, and nodes not to be given anything now, in the
    /// order of ids.
    #[must_use]
    pub fn new(view: &'a State, loads: &'a Loads, held: &'a [NodeId]) -> Self {
        let programs = view
            .agents()
            .filter(|agent| agent.status == NodeStatus::Active && !agent.host.is_empty())
            .filter_map(|agent| agent.agent_type.as_deref());
        Self { view, loads, held, served: programs.collect() }
    }

    /// The freshest figures of a node.
    pub(super) fn load(&self, node: &Node) -> Load {
        self.loads.get(&node.node_id).copied().unwrap_or(node.load)
    }

    /// Whether a node could do such work at all, as it is now.
    fn lasting(&self, node: &Node, task: &Task) -> Option<Obstacle> {
        if !node.fits(&task.requirements, &task.task_type) {
            return Some(Obstacle::Unable);
        }
        let kind = node.agent_type.as_deref();
        let left = node.host.is_empty() && kind.is_some_and(|kind| self.served.contains(kind));
        left.then_some(Obstacle::LeftToPrograms)
    }

    /// Whether a node takes work now, whichever.
    pub(super) fn standing(&self, node: &Node) -> Option<Obstacle> {
        if node.status != NodeStatus::Active {
            return Some(Obstacle::Status(node.status));
        }
        if node.losing.is_some() {
            return Some(Obstacle::Losing);
        }
        if node.live >= node.capacity {
            return Some(Obstacle::Full);
        }
        self.is_held(node).then_some(Obstacle::Held)
    }

    /// Whether a node is left alone for a moment.
    pub(super) fn is_held(&self, node: &Node) -> bool {
        self.held.binary_search(&node.node_id).is_ok()
    }

    /// Whether a node with these figures may do a task, and any with the same needs, room aside.
    pub(super) fn suits(&self, node: &Node, load: &Load, task: &Task) -> Option<Obstacle> {
        self.lasting(node, task).or_else(|| strain(load, &task.requirements))
    }

    /// Whether another copy of `task` is on the node, or goes there by the same plan.
    pub(super) fn has_copy(&self, node_id: &NodeId, task: &Task, taken: &Taken) -> bool {
        task.is_copy() && (self.view.has_copy_on(task, node_id) || taken.has_copy_on(task, node_id))
    }

    /// What is in the way of giving `task` to `node` now, what lasts longest first; `None` when
    /// nothing is.
    #[must_use]
    pub fn obstacle(&self, node: &Node, task: &Task) -> Option<Obstacle> {
        let has_copy = || self.has_copy(&node.node_id, task, &Taken::default());
        self.lasting(node, task)
            .or_else(|| self.standing(node))
            .or_else(|| strain(&self.load(node), &task.requirements))
            .or_else(|| has_copy().then_some(Obstacle::HasCopy))
    }
}

/// What the figures of a node say against these requirements (contract 2.8).
fn strain(load: &Load, requirements: &Requirements) -> Option<Obstacle> {
    let enough = |wanted: u32, used: u32| {
        wanted > FULL_SHARE_MILLI || wanted <= FULL_SHARE_MILLI.saturating_sub(used)
    };
    let max_load = match requirements.max_load_milli {
        0 => MAX_LOAD_MILLI,
        given => given,
    };
    if load.score_milli > max_load {
        return Some(Obstacle::Overloaded);
    }
    if !enough(requirements.min_cpu_milli, load.cpu_milli) {
        return Some(Obstacle::Cpu);
    }
    (!enough(requirements.min_memory_milli, load.memory_milli)).then_some(Obstacle::Memory)
}
