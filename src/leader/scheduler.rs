//! The scheduler: which waiting task goes to which node (contract 2.7, 2.8).
//!
//! [`plan`] is pure. The queue is kept by requirements, so a plan looks at each kind of task once:
//! a kind that no node can take costs one look at the fleet, however many tasks wait for it, and
//! blocks nobody. The kinds that can be placed are merged by urgency and order of submission.
//!
//! A plan may be out of date when it is applied; apply judges each placement by the same rules.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::balance::{Figures, Turns, choose};
use super::duty::{Duty, DutyError, Next, Reign, Wakes};
use super::eligible::{Gate, Rules, Taken, gates};
use super::fleet::Loads;
use super::metrics::DutyName;
use super::refusals::{REFUSALS_MAX, Sweeps, is_unserved};
use super::seat::Seat;
use super::timers::state_now;
use crate::canary::{self, Canary};
use crate::clock;
use crate::model::{Node, NodeId, NodeStatus, Task, TaskStatus, TimeMs};
use crate::state::{Algorithm, Assignment, Command, Head, State, StepRefusal};

/// The most nodes compared for one placement. A larger fleet is looked at through a window of
/// this size that moves on with every placement.
const WINDOW_MAX: usize = 256;
/// A plan that placed nothing and took longer than this is long,
const LONG_PLAN: Duration = Duration::from_millis(2);
/// and the duty rests this many times as long as it took.
const REST_FACTOR: u32 = 4;
/// The longest wait without any wake-up.
const PERIOD: Duration = Duration::from_secs(5);

/// Bounds of one plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanLimits {
    /// Placements.
    pub assignments_max: usize,
    /// Different requirements looked at, those of the most urgent tasks first; the next plan goes
    /// on behind them.
    pub groups_max: usize,
}

impl Default for PlanLimits {
    fn default() -> Self {
        Self { assignments_max: 2000, groups_max: 512 }
    }
}

/// What a plan takes beside the state.
#[derive(Debug, Clone, Default)]
pub struct PlanInputs {
    /// Figures fresher than the replicated ones.
    pub loads: std::sync::Arc<Loads>,
    /// Nodes not to be given anything now, in order.
    pub held: Vec<NodeId>,
    /// The state machine's time, which rates are judged by.
    pub now: TimeMs,
    /// The last group that the last plan looked at, when there were more.
    pub cursor: Option<Head>,
    /// The last group that was looked at behind those, when no place was free.
    pub swept: Option<Head>,
    /// All of those were looked at a moment ago, by several plans: it is not done again now.
    pub rests: bool,
    /// A plan since the first group stopped before it had placed what it could.
    pub unfinished: bool,
    /// Whose turn it is.
    pub turns: Turns,
    /// Seeds the draws of the weighted choice.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order of the queue.
    pub assignments: Vec<Assignment>,
    /// Steps that no agent is there for.
    pub refusals: Vec<StepRefusal>,
    /// The last group looked at; `None` when all were.
    pub cursor: Option<Head>,
    /// The last group looked at behind those, because no place is free; `None` when all were.
    pub swept: Option<Head>,
    /// For the next plan, unless that one starts with the first group again.
    pub unfinished: bool,
    /// Whose turn it is then.
    pub turns: Turns,
    /// Tasks looked at.
    pub visited: usize,
    /// Whether another plan may place more without anything having changed.
    pub more: bool,
    /// When the first of the rates that held tasks back lets one go.
    pub clears_ms: Option<TimeMs>,
}

/// Nodes, as positions in the plan's table, that tasks of one kind may go to.
#[derive(Default)]
struct Group {
    preferred: Vec<usize>,
    others: Vec<usize>,
    /// Set where they are agents.
    agent_type: Option<String>,
}

/// The nodes as the plan fills them.
struct Room<'a> {
    nodes: Vec<&'a Node>,
    figures: Vec<Figures>,
    free: Vec<u32>,
    free_total: u64,
    algorithm: Algorithm,
    agent_algorithm: Algorithm,
    rules: Rules<'a>,
    turns: Turns,
    rng: SmallRng,
}

/// Plans placements. See the module's description.
#[must_use]
pub fn plan(view: &State, inputs: &PlanInputs, limits: PlanLimits) -> Plan {
    let mut plan = Plan::default();
    if view.policy().paused || nobody_waits(view, inputs) {
        return Plan { turns: inputs.turns.clone(), ..plan };
    }
    let (mut room, now) = (Room::of(view, inputs), inputs.now);
    let mut taken = Taken::default();
    let mut groups = Vec::new();
    // The next task of each group, the most urgent on top.
    let mut heads = BinaryHeap::new();
    let mut looked_at = 0;
    for (head, mut keys) in view.queue_groups(inputs.cursor) {
        if looked_at == limits.groups_max {
            break;
        }
        looked_at += 1;
        plan.cursor = Some(head);
        let Some(key) = keys.next() else { continue };
        let Some(task) = view.queued(key) else { continue };
        if let Some(gate) = gates(view, task, &taken, now).next() {
            plan.note(&gate);
            continue;
        }
        let nodes = room.group(task);
        if nodes.is_empty() && is_unserved(view, task) {
            plan.refuse(view, task, keys);
            continue;
        }
        if !nodes.is_empty() {
            heads.push(Reverse((key, groups.len())));
            groups.push((nodes, keys));
        }
    }
    if looked_at < limits.groups_max {
        plan.cursor = None;
    }
    while room.free_total > 0 && plan.assignments.len() < limits.assignments_max {
        let Some(Reverse((key, place))) = heads.pop() else { break };
        let (nodes, keys) = &mut groups[place];
        let Some(task) = view.queued(key) else { continue };
        plan.visited += 1;
        if gates(view, task, &taken, now).next().is_some() {
            // Another plan sees how many places are left, and until when none is.
            plan.more = true;
            continue;
        }
        let node_id = match room.place(task, nodes, &taken) {
            Placed::On(node_id) => node_id,
            // Where one has no place, the others of its kind have none either,
            Placed::Nowhere => continue,
            // unless it is only for its own copies that it has none.
            Placed::NotBesideItself => {
                heads.extend(keys.next().map(|key| Reverse((key, place))));
                continue;
            }
        };
        taken.note(task, &node_id);
        let (task_id, seen_revision) = (task.task_id.clone(), task.revision);
        plan.assignments.push(Assignment { task_id, seen_revision, node_id });
        heads.extend(keys.next().map(|key| Reverse((key, place))));
    }
    plan.unfinished = inputs.unfinished || plan.assignments.len() >= limits.assignments_max;
    if room.free_total == 0 {
        plan.sweep(view, inputs, limits, &taken);
    }
    plan.close(room);
    plan
}

/// Whether there is nothing to plan, so that the fleet need not be looked through.
fn nobody_waits(view: &State, inputs: &PlanInputs) -> bool {
    let at_front = inputs.cursor.is_none() && !inputs.unfinished;
    at_front && view.queue_groups(None).next().is_none()
}

impl Plan {
    /// Remembers when to look again at a task that is not let through.
    pub(super) fn note(&mut self, gate: &Gate<'_>) {
        if let Gate::Rate { clears_ms, .. } = gate {
            self.clears_ms = Some(self.clears_ms.map_or(*clears_ms, |first| first.min(*clears_ms)));
        }
    }

    /// Works out what the next plan has to know.
    fn close(&mut self, room: Room<'_>) {
        if room.free_total == 0 {
            // Whatever frees a place wakes the duty; the next plan starts with the first group.
            self.cursor = None;
        }
        self.more |= self.cursor.is_some() || self.unfinished;
        self.more &= room.free_total > 0;
        // Who is given back needs no place.
        self.more |= self.refusals.len() >= REFUSALS_MAX || self.swept.is_some();
        self.turns = room.turns;
    }
}

impl Group {
    fn is_empty(&self) -> bool {
        self.preferred.is_empty() && self.others.is_empty()
    }
}

impl<'a> Room<'a> {
    fn of(view: &'a State, inputs: &'a PlanInputs) -> Self {
        let rules = Rules::new(view, &inputs.loads, &inputs.held);
        let rooms = view.holders_of_work().map(|node| (node, places(view, &rules, node)));
        let (nodes, free): (Vec<&Node>, Vec<u32>) = rooms.filter(|(_, free)| *free > 0).unzip();
        let figures = nodes.iter().map(|node| Figures::of(node, Some(&rules.load(node))));
        Self {
            figures: figures.collect(),
            free_total: free.iter().map(|free| u64::from(*free)).sum(),
            free,
            nodes,
            algorithm: view.policy().algorithm,
            agent_algorithm: view.policy().agent_algorithm,
            rules,
            turns: inputs.turns.clone(),
            rng: SmallRng::seed_from_u64(inputs.seed),
        }
    }

    /// The nodes that a task, and all with the same needs, may go to.
    fn group(&self, task: &Task) -> Group {
        let requirements = &task.requirements;
        let agent_type = requirements.agent_type.clone();
        let mut group = Group { agent_type, ..Group::default() };
        for position in 0..self.nodes.len() {
            let (node, load) = (self.nodes[position], &self.figures[position].load);
            if self.free[position] == 0 || self.rules.suits(node, load, task).is_some() {
                continue;
            }
            // An agent that failed gets what no other has room for, so that a success can show that
            // it is well again (contract 4.7).
            let well = node.is_agent() && node.is_healthy();
            if well || requirements.preferred_nodes.contains(&node.node_id) {
                group.preferred.push(position);
            } else {
                group.others.push(position);
            }
        }
        group
    }

    /// Gives `task` a node of its group, and takes the place.
    fn place(&mut self, task: &Task, group: &mut Group, taken: &Taken) -> Placed {
        // A retry goes elsewhere when it can.
        let avoid = if task.retry_count > 0 { task.assigned_nodes.last() } else { None };
        let agent_type = group.agent_type.as_deref();
        let position = if task.is_copy() {
            // Each goes to the best of the nodes that have none of the others.
            let apart = |list: &[usize]| -> Vec<usize> {
                let has_copy = |node: &Node| self.rules.has_copy(&node.node_id, task, taken);
                let free = list.iter().copied().filter(|position| self.free[*position] > 0);
                free.filter(|position| !has_copy(self.nodes[*position])).collect()
            };
            let (mut preferred, mut others) = (apart(&group.preferred), apart(&group.others));
            let found = self.pick(&mut preferred, avoid, agent_type);
            let found = found.or_else(|| self.pick(&mut others, avoid, agent_type));
            let mut all = group.preferred.iter().chain(&group.others);
            if found.is_none() && all.any(|position| self.free[*position] > 0) {
                return Placed::NotBesideItself;
            }
            found
        } else {
            self.pick(&mut group.preferred, avoid, agent_type)
                .or_else(|| self.pick(&mut group.others, avoid, agent_type))
        };
        let Some(position) = position else { return Placed::Nowhere };
        self.free[position] -= 1;
        self.free_total -= 1;
        self.figures[position].active += 1;
        Placed::On(self.nodes[position].node_id.clone())
    }

    /// A node of `list` that has room. Full ones are taken off the list on the way.
    fn pick(
        &mut self,
        list: &mut Vec<usize>,
        avoid: Option<&NodeId>,
        agent_type: Option<&str>,
    ) -> Option<usize> {
        let algorithm = if agent_type.is_some() { self.agent_algorithm } else { self.algorithm };
        while !list.is_empty() {
            let turn = self.turns.take(agent_type);
            let window = window(list.len(), turn);
            let shown = list.get(window.clone())?;
            let draw = match algorithm {
                Algorithm::WeightedRoundRobin | Algorithm::Random => self.rng.random(),
                Algorithm::RoundRobin
                | Algorithm::MostRoom
                | Algorithm::LeastConnections
                | Algorithm::ResourceAware
                | Algorithm::LatencyOptimized => turn,
            };
            let place = match avoid {
                None => choose(algorithm, &self.figures, shown, draw)?,
                Some(avoid) => self.pick_but(shown, avoid, draw, algorithm)?,
            } + window.start;
            let position = list[place];
            if self.free[position] > 0 {
                return Some(position);
            }
            list.remove(place);
        }
        None
    }

    /// As [`choose`], but takes `avoid` only when nobody else is there.
    fn pick_but(
        &self,
        shown: &[usize],
        avoid: &NodeId,
        draw: u64,
        algorithm: Algorithm,
    ) -> Option<usize> {
        let other =
            |position: &usize| self.free[*position] > 0 && self.nodes[*position].node_id != *avoid;
        let others: Vec<usize> = shown.iter().copied().filter(other).collect();
        match choose(algorithm, &self.figures, &others, draw) {
            Some(place) => shown.iter().position(|position| *position == others[place]),
            None => choose(algorithm, &self.figures, shown, draw),
        }
    }
}

/// The part of a list of `len` nodes that is compared for one placement.
fn window(len: usize, turn: u64) -> std::ops::Range<usize> {
    if len <= WINDOW_MAX {
        return 0..len;
    }
    let starts = (len - WINDOW_MAX + 1) as u64;
    let start = usize::try_from(turn % starts).unwrap_or(0);
    start..start + WINDOW_MAX
}

/// What became of one placement.
enum Placed {
    On(NodeId),
    Nowhere,
    NotBesideItself,
}

/// How many more tasks a node takes.
fn places(view: &State, rules: &Rules<'_>, node: &Node) -> u32 {
    let in_service = node.status == NodeStatus::Active && !rules.is_held(node);
    if canary::active(Canary::CapacityRace) && in_service {
        // What is on its way to the node is forgotten.
        let runs = |task: &&Task| {
            let here = task.execution.as_ref().is_some_and(|at| at.node_id == node.node_id);
            here && task.status == TaskStatus::Running
        };
        let running = view.live_tasks().filter(runs).count();
        return node.capacity.saturating_sub(u32::try_from(running).unwrap_or(u32::MAX));
    }
    if rules.standing(node).is_none() { node.capacity.saturating_sub(node.live) } else { 0 }
}

/// The duty around [`plan`].
#[derive(Debug, Default)]
pub struct Scheduler {
    cursor: Option<Head>,
    sweeps: Sweeps,
    unfinished: bool,
    turns: Turns,
    /// When the first rate lets a task go, of those that plans since the first group saw.
    clears_ms: Option<TimeMs>,
}

impl<S: Seat> Duty<S> for Scheduler {
    const NAME: DutyName = DutyName::Scheduler;

    async fn round(&mut self, reign: &Reign<S>) -> Result<Next, DutyError> {
        let started = Instant::now();
        let (held, first_free) = reign.fleet.held();
        reign.seat.tell_held(reign.fleet.holds());
        let mut inputs = PlanInputs {
            loads: reign.fleet.loads(),
            held,
            now: 0,
            cursor: self.cursor,
            swept: self.sweeps.at,
            rests: self.sweeps.rest(started),
            unfinished: self.unfinished,
            turns: std::mem::take(&mut self.turns),
            seed: clock::random(),
        };
        let limits = reign.options.plan;
        let (mut plan, oldest) = reign.seat.read(|view| {
            inputs.now = state_now(&*reign.seat, view);
            (plan(view, &inputs, limits), oldest(view))
        });
        let before = self.clears_ms.filter(|_| self.cursor.is_some());
        self.clears_ms = before.into_iter().chain(plan.clears_ms).min();
        let age = oldest.map_or(0, |created_at_ms| clock::now_ms().saturating_sub(created_at_ms));
        reign.metrics.queue_age_ms.set(age);
        self.sweeps.note(plan.swept, started);
        self.cursor = plan.cursor;
        self.turns = std::mem::take(&mut plan.turns);
        self.unfinished = plan.unfinished && plan.cursor.is_some();
        if !plan.refusals.is_empty() {
            let (epoch, refusals) = (reign.epoch, std::mem::take(&mut plan.refusals));
            reign.propose(Command::RefuseSteps { epoch, refusals }).await?;
        }
        let placed = plan.assignments.len();
        let took = started.elapsed();
        let pause =
            if placed == 0 && took > LONG_PLAN { took * REST_FACTOR } else { Duration::ZERO };
        if placed > 0 {
            let (epoch, assignments) = (reign.epoch, plan.assignments);
            let Some(judged) = reign.propose(Command::AssignTasks { epoch, assignments }).await?
            else {
                return Ok(Next::Again(Duration::ZERO));
            };
            reign.metrics.assigned.add(judged.accepted);
            reign.metrics.assigned_stale.add(judged.stale);
            if judged.stale > 0 {
                return Ok(Next::Again(pause.max(Duration::from_millis(1))));
            }
        }
        if plan.more {
            return Ok(Next::Again(pause));
        }
        // After a long plan even wake-ups wait, so that plans take a bounded share of the time.
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let until_free = first_free.map(|at| at.saturating_duration_since(Instant::now()));
        let until_clear =
            self.clears_ms.map(|at| Duration::from_millis(at.saturating_sub(inputs.now).max(1)));
        let wait = until_free.into_iter().chain(until_clear).min();
        Ok(Next::Wait(wait.unwrap_or(PERIOD).min(PERIOD)))
    }

    fn wake(wakes: &Wakes) -> &Notify {
        &wakes.scheduler
    }
}

/// When the task was accepted that has waited longest for a place.
fn oldest(view: &State) -> Option<u64> {
    view.tasks_by_status(TaskStatus::Pending).next().map(|task| task.created_at_ms)
}
