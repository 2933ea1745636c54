//! `GET /api/v1/tasks/{id}/why`: what a task waits for, in the order in which it would have to go
//! away, since when, and what its time went to so far.
//!
//! What keeps a task from being placed is asked of the rules that the scheduler plans by, over the
//! replicated state, the figures in the liveness book, and the nodes that the leader holds back; every
//! member has all three.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::task_view::shown;
use super::words::agents_status;
use crate::api::App;
use crate::api::error::ApiError;
use crate::api::params::{Params, Path};
use crate::api::reply;
use crate::api::wire_time::iso;
use crate::clock;
use crate::leader::{Gate, Loads, Obstacle, Rules, Seat, gates_of};
use crate::model::{
    Node, NodeId, RateLimit, Requirements, StepState, Task, TaskId, TaskStatus, TimeMs,
};
use crate::state::State as Tables;

/// Nodes named in one blocker.
const NAMED_MAX: usize = 10;
/// Steps looked into.
const STEPS_MAX: usize = 64;
/// Places of the queue counted; a task further back has no position.
const POSITION_MAX: usize = 10_000;

#[derive(Debug, Serialize, PartialEq, Eq)]
struct Blocker {
    /// Stable, for programs.
    code: &'static str,
    /// For people.
    message: String,
    since: String,
    /// How long it has been in the way, or the task has been in this state.
    for_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    nodes: BTreeMap<String, &'static str>,
}

#[derive(Debug, Serialize)]
struct Spent {
    queued_ms: u64,
    executing_ms: u64,
    retries: u32,
    total_ms: u64,
}

#[derive(Debug, Serialize)]
struct Why<'a> {
    success: bool,
    task_id: &'a str,
    status: &'static str,
    state: &'static str,
    blocked: bool,
    /// Tasks in front of it in the queue; `null` when it is in none, or far back.
    queue_position: Option<usize>,
    blockers: Vec<Blocker>,
    spent: Spent,
}

/// One task's situation at `now`.
struct Look<'a> {
    state: &'a Tables,
    rules: Rules<'a>,
    now: TimeMs,
}

impl Look<'_> {
    fn blocker(&self, code: &'static str, since_ms: TimeMs, message: String) -> Blocker {
        Blocker {
            code,
            message,
            since: iso(since_ms),
            for_ms: self.now.saturating_sub(since_ms),
            until: None,
            step: None,
            nodes: BTreeMap::new(),
        }
    }

    /// What is in the way of `task`, first things first.
    fn of(&self, task: &Task) -> Vec<Blocker> {
        match shown(task) {
            TaskStatus::Retrying => vec![self.back_off(task)],
            TaskStatus::Pending => self.waiting(task),
            TaskStatus::Assigned => vec![self.assigned(task)],
            TaskStatus::Running => vec![self.running(task)],
            TaskStatus::Waiting | TaskStatus::Stepping => self.steps(task),
            TaskStatus::Completed
            | TaskStatus::Failed
            | TaskStatus::TimedOut
            | TaskStatus::Cancelled
            | TaskStatus::DeadLetter => Vec::new(),
        }
    }

    fn back_off(&self, task: &Task) -> Blocker {
        let message = match &task.error {
            _ if task.retry_count == 0 => "the node that it was given to was busy".to_owned(),
            Some(said) => format!("waits for retry {} after: {said}", task.retry_count),
            None => format!("waits for retry {}", task.retry_count),
        };
        let until = Some(iso(task.not_before_ms));
        Blocker { until, ..self.blocker("BACK_OFF", task.waits_from_ms, message) }
    }

    fn waiting(&self, task: &Task) -> Vec<Blocker> {
        let since_ms = task.waits_from_ms.max(task.not_before_ms);
        let gates = gates_of(self.state, task, self.now).into_iter();
        let mut blockers: Vec<Blocker> =
            gates.map(|gate| self.gate(&gate, task, since_ms)).collect();
        blockers.extend(self.no_node(task, since_ms));
        if blockers.is_empty() {
            let message = "waits for the scheduler's next plan".to_owned();
            blockers.push(self.blocker("QUEUED", since_ms, message));
        }
        blockers
    }

    /// What is in the way whoever could do it, since when it is or the task has waited.
    fn gate(&self, gate: &Gate<'_>, task: &Task, since_ms: TimeMs) -> Blocker {
        match gate {
            Gate::Paused => {
                let message = "scheduling is paused; POST /api/v1/control/start ends that";
                let since_ms = since_ms.max(self.state.counters().paused_since_ms);
                self.blocker("PAUSED", since_ms, message.to_owned())
            }
            Gate::Overdue => {
                let message = "its deadline has passed; it is about to end".to_owned();
                self.blocker("OVERDUE", task.deadline_ms.unwrap_or(since_ms), message)
            }
            Gate::Concurrency(limit) => {
                let newest = self.state.holders_of(&limit.key).map(began_ms).max();
                let message = format!(
                    "{} of {} tasks with the key {} are under way",
                    self.state.holders(&limit.key),
                    limit.max,
                    limit.key
                );
                let since_ms = newest.unwrap_or(since_ms).max(since_ms);
                self.blocker("CONCURRENCY", since_ms, message)
            }
            Gate::Rate { limit, clears_ms } => self.rate(limit, *clears_ms, since_ms),
        }
    }

    fn rate(&self, limit: &RateLimit, clears_ms: TimeMs, since_ms: TimeMs) -> Blocker {
        let RateLimit { key, max, per_ms } = limit;
        let (log, seconds) = (self.state.rate_log(key), *per_ms as f64 / 1000.0);
        let newest = log.and_then(|log| log.starts_ms.last().copied());
        let message = match newest {
            Some(_) => format!("{max} tasks with the key {key} were started within {seconds} s"),
            None => format!("too many keys have limited rates for {key} to be another now"),
        };
        let since_ms = newest.unwrap_or(since_ms).max(since_ms);
        let until = Some(iso(clears_ms));
        Blocker { until, ..self.blocker("RATE_LIMIT", since_ms, message) }
    }

    /// Why no node or agent takes it, if none does.
    fn no_node(&self, task: &Task, since_ms: TimeMs) -> Option<Blocker> {
        let (mut nodes, mut able, mut newest) = (BTreeMap::new(), 0, since_ms);
        for node in self.state.holders_of_work() {
            let obstacle = self.rules.obstacle(node, task)?;
            if obstacle == Obstacle::Unable {
                continue;
            }
            able += 1;
            let (word, at_ms) = self.told(node, obstacle);
            newest = newest.max(at_ms);
            if nodes.len() < NAMED_MAX {
                nodes.insert(node.node_id.to_string(), word);
            }
        }
        if able > 0 {
            let message = format!("none of {able} able nodes takes it now");
            return Some(Blocker { nodes, ..self.blocker("NODES_BUSY", newest, message) });
        }
        let message = match &task.requirements.agent_type {
            Some(kind) => format!("no agent of type {kind} is registered"),
            None if self.only_excluded(task) => {
                let excluded = task.requirements.exclude_nodes.iter().take(NAMED_MAX);
                let names: Vec<&str> = excluded.map(NodeId::as_str).collect();
                format!("every node that could take it is excluded: {}", names.join(", "))
            }
            None if self.unserved(task) => {
                format!("no node serves tasks of type {}", task.task_type)
            }
            None if task.requirements.capabilities.is_empty() => {
                "no node is registered that it may go to".to_owned()
            }
            None => format!("no node has {}", task.requirements.capabilities.join(", ")),
        };
        Some(self.blocker("NO_NODE", since_ms, message))
    }

    /// Whether only its type, which none of them serves, keeps it from nodes.
    fn unserved(&self, task: &Task) -> bool {
        self.state.holders_of_work().any(|node| node.meets(&task.requirements))
    }

    /// Whether a node could do it if it were not excluded.
    fn only_excluded(&self, task: &Task) -> bool {
        let wanted = Requirements { exclude_nodes: Vec::new(), ..task.requirements.clone() };
        let excluded = task.requirements.exclude_nodes.iter();
        excluded
            .filter_map(|node| self.state.node(node))
            .any(|node| node.fits(&wanted, &task.task_type))
    }

    /// The word for what is in the way of a node, and since when it is, where that is known.
    fn told(&self, node: &Node, obstacle: Obstacle) -> (&'static str, TimeMs) {
        match obstacle {
            Obstacle::Unable => ("unable", 0),
            Obstacle::LeftToPrograms => ("left_to_programs", 0),
            Obstacle::Status(_) if node.drain_until_ms.is_some() => {
                ("draining", node.status_since_ms)
            }
            Obstacle::Status(status) => (status.as_str(), node.status_since_ms),
            Obstacle::Losing => ("losing_work", node.status_since_ms),
            Obstacle::Full => ("full", self.full_since_ms(node)),
            Obstacle::Held => ("held", 0),
            Obstacle::Overloaded => ("overloaded", 0),
            Obstacle::Cpu => ("low_cpu", 0),
            Obstacle::Memory => ("low_memory", 0),
            Obstacle::HasCopy => ("has_copy", 0),
        }
    }

    /// A node is full since its newest execution was placed.
    fn full_since_ms(&self, node: &Node) -> TimeMs {
        let live = self.state.live_on(&node.node_id);
        let placed = live.iter().filter_map(|task_id| self.state.open_task(task_id));
        placed.map(began_ms).max().unwrap_or(node.status_since_ms)
    }

    fn assigned(&self, task: &Task) -> Blocker {
        let node = task.live_on().map(ToString::to_string).unwrap_or_default();
        let message = format!("placed on {node}, which has not acknowledged it");
        self.blocker("NOT_ACKNOWLEDGED", began_ms(task), message)
    }

    fn running(&self, task: &Task) -> Blocker {
        let node = task.live_on().map(ToString::to_string).unwrap_or_default();
        let until_ms = began_ms(task).saturating_add(task.timeout_ms);
        let message = format!("attempt {} runs on {node}", task.attempt);
        let since_ms = task.started_at_ms.max(began_ms(task));
        Blocker { until: Some(iso(until_ms)), ..self.blocker("RUNNING", since_ms, message) }
    }

    /// What its open steps wait for, and then the steps that wait for those.
    fn steps(&self, task: &Task) -> Vec<Blocker> {
        let Some(flow) = &task.flow else { return Vec::new() };
        let mut blockers = Vec::new();
        for (place, step) in (0u16..).zip(&flow.steps).take(STEPS_MAX) {
            let name = Some(step.spec.name.clone());
            match step.state {
                StepState::Open => {
                    let open = self.state.step_task(&task.task_id, place);
                    let of_step = open.map(|open| self.of(&open)).unwrap_or_default();
                    blockers.extend(
                        of_step.into_iter().map(|one| Blocker { step: name.clone(), ..one }),
                    );
                }
                StepState::Waiting => {
                    let names = step.spec.depends_on.iter().filter_map(|on| {
                        let on = flow.steps.get(usize::from(*on))?;
                        (!on.state.is_over()).then_some(on.spec.name.as_str())
                    });
                    let names: Vec<&str> = names.collect();
                    let message = format!("waits for {}", names.join(", "));
                    let blocker = self.blocker("DEPENDS_ON", task.created_at_ms, message);
                    blockers.push(Blocker { step: name, ..blocker });
                }
                StepState::Completed | StepState::Failed | StepState::Cancelled => {}
            }
        }
        blockers
    }

    fn spent(&self, task: &Task) -> Spent {
        let end_ms = if task.completed_at_ms > 0 { task.completed_at_ms } else { self.now };
        let total_ms = end_ms.saturating_sub(task.created_at_ms);
        let under_way = task.status.is_live() || task.status == TaskStatus::Stepping;
        let executing_ms = if under_way {
            end_ms.saturating_sub(began_ms(task))
        } else {
            task.execution_ms.min(total_ms)
        };
        let queued_ms = total_ms.saturating_sub(executing_ms);
        Spent { queued_ms, executing_ms, retries: task.retry_count, total_ms }
    }
}

fn began_ms(task: &Task) -> TimeMs {
    task.execution.as_ref().map_or(task.started_at_ms, |execution| execution.assigned_at_ms)
}

fn is_blocking(blocker: &Blocker) -> bool {
    !matches!(blocker.code, "RUNNING" | "QUEUED" | "NOT_ACKNOWLEDGED")
}

/// See the module's description.
pub(in crate::api) async fn why(
    State(app): State<App>,
    Path(task_id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let not_found = || ApiError::not_found("TASK_NOT_FOUND", "Task not found");
    let task_id = TaskId::parse(&task_id).map_err(|_| not_found())?;
    let mut stamp = app.admit(&params).await?;
    // The figures and holds that the scheduler goes by, too.
    let loads = Loads::new(Arc::new(app.cluster().sightings()), Vec::new());
    let held = app.cluster().heartbeats().held();
    let body = app.show(&mut stamp, |state| {
        let task = state.task(&task_id)?;
        let now = clock::now_ms().max(state.counters().last_at_ms);
        let look = Look { state, rules: Rules::new(state, &loads, &held), now };
        let blockers = look.of(&task);
        let queue_position = (task.status == TaskStatus::Pending)
            .then(|| {
                state.queue().take(POSITION_MAX).position(|queued| queued.task_id == task.task_id)
            })
            .flatten();
        Some(reply::encode(&Why {
            success: true,
            task_id: task.task_id.as_str(),
            status: agents_status(task.status),
            state: task.status.as_str(),
            blocked: blockers.iter().any(is_blocking),
            queue_position,
            blockers,
            spent: look.spent(&task),
        }))
    });
    Ok(reply::read(&stamp, body.ok_or_else(not_found)?))
}
