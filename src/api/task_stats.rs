//! How many tasks of each type come, how they end and how long they take, and how often nodes
//! failed (contract 2.13, 4.8), seen by following the events of this member. Counts begin when the
//! member starts; every member sees every task.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::prometheus::Page;
use super::web4ai::words::error_code;
use crate::model::{LastTry, NodeId, NodeStatus, TaskId, TaskStatus};
use crate::state::{Event, Fact, State as Tables};
use crate::storage::{EventBatch, Machine};

/// Task types counted apart; clients choose them, so they are bounded. Further ones are `other`.
pub(super) const TYPES_MAX: usize = 200;
/// Family A's task types (contract 4.4), which are there from the start, with 0.
pub(super) const KNOWN_TYPES: [&str; 8] = [
    "report_generation",
    "real_time_monitoring",
    "data_analysis",
    "api_call",
    "podcast_intelligence",
    "document_intelligence",
    "content_summarization",
    "industry_synthesis_only",
];
/// Nodes whose failures are counted.
const NODES_MAX: usize = 100_000;
/// Events taken in one step, and looked up while the state is held.
const BATCH_MAX: usize = 4096;
const LOOKUPS_MAX: usize = 256;
/// Upper bounds of the buckets, in milliseconds. The last one is open.
pub(super) const BUCKETS_MS: [u64; 12] =
    [5, 10, 25, 50, 100, 250, 500, 1000, 5000, 30_000, 120_000, 600_000];
/// Durations of which the quantiles are.
const RECENT_MAX: usize = 1024;
/// Completed tasks below this are counted apart (contract 4.8).
const FAST_MS: u64 = 500;

/// The key under which `task_type` is counted in `types`, which never grow beyond their bound.
pub(super) fn counted_as<'a, V>(types: &BTreeMap<String, V>, task_type: &'a str) -> &'a str {
    // One place is kept for `other` itself.
    if types.contains_key(task_type) || types.len() < TYPES_MAX { task_type } else { "other" }
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct TaskStats(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    types: BTreeMap<String, TypeStats>,
    /// Steps, by the kind of agent that does them.
    agents: BTreeMap<String, TypeStats>,
    recent_ms: VecDeque<u64>,
    fast: u64,
    node_failures: BTreeMap<NodeId, u64>,
}

/// Counts of one type of tasks, or of all of them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct TypeStats {
    pub(super) submitted: u64,
    pub(super) completed: u64,
    pub(super) failed: u64,
    /// Of those that failed: nobody was there to do them.
    pub(super) unavailable: u64,
    pub(super) timeout: u64,
    pub(super) cancelled: u64,
    /// Completed tasks by how long they ran, each in one bucket.
    pub(super) buckets: [u64; BUCKETS_MS.len() + 1],
    pub(super) sum_ms: u64,
}

/// How one task or step ended.
#[derive(Debug, Clone, Copy)]
struct End {
    status: TaskStatus,
    last_try: LastTry,
    execution_ms: u64,
}

impl Default for TaskStats {
    fn default() -> Self {
        let known = KNOWN_TYPES.map(|name| (name.to_owned(), TypeStats::default()));
        Self(Mutex::new(Book { types: known.into(), ..Book::default() }))
    }
}

impl TypeStats {
    fn record(&mut self, End { status, last_try, execution_ms }: End) {
        match status {
            TaskStatus::Completed => self.completed += 1,
            TaskStatus::Failed | TaskStatus::DeadLetter | TaskStatus::TimedOut => {
                match error_code(status, last_try) {
                    Some("TIMEOUT") => self.timeout += 1,
                    Some("AGENT_UNAVAILABLE") => {
                        self.failed += 1;
                        self.unavailable += 1;
                    }
                    _ => self.failed += 1,
                }
            }
            TaskStatus::Cancelled => self.cancelled += 1,
            TaskStatus::Pending
            | TaskStatus::Retrying
            | TaskStatus::Assigned
            | TaskStatus::Running
            | TaskStatus::Waiting
            | TaskStatus::Stepping => return,
        }
        if status == TaskStatus::Completed {
            let place = BUCKETS_MS.iter().position(|bound| execution_ms <= *bound);
            self.buckets[place.unwrap_or(BUCKETS_MS.len())] += 1;
            self.sum_ms += execution_ms;
        }
    }

    fn add(&mut self, other: &Self) {
        self.submitted += other.submitted;
        self.completed += other.completed;
        self.failed += other.failed;
        self.unavailable += other.unavailable;
        self.timeout += other.timeout;
        self.cancelled += other.cancelled;
        self.sum_ms += other.sum_ms;
        for (sum, count) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += count;
        }
    }

    /// Each bucket's bound in milliseconds, none for the open one, and how many lie below it.
    pub(super) fn below(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = BUCKETS_MS.iter().copied().map(Some).chain([None]);
        bounds.zip(self.buckets).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((bound, *sum))
        })
    }
}

impl Book {
    fn of_type(&mut self, task_type: &str) -> &mut TypeStats {
        let key = counted_as(&self.types, task_type);
        // Asked for by reference first: a type is new once and known ever after.
        if !self.types.contains_key(key) {
            self.types.insert(key.to_owned(), TypeStats::default());
        }
        self.types.get_mut(key).expect("it was just put there")
    }

    fn ended(&mut self, task_type: &str, end: End) {
        self.of_type(task_type).record(end);
        let End { status, execution_ms, .. } = end;
        if status != TaskStatus::Completed {
            return;
        }
        self.fast += u64::from(execution_ms < FAST_MS);
        if self.recent_ms.len() == RECENT_MAX {
            self.recent_ms.pop_front();
        }
        self.recent_ms.push_back(execution_ms);
    }

    fn node_failed(&mut self, node_id: &NodeId) {
        if self.node_failures.len() < NODES_MAX || self.node_failures.contains_key(node_id) {
            *self.node_failures.entry(node_id.clone()).or_default() += 1;
        }
    }
}

impl TaskStats {
    /// All types that were seen, with their counts.
    pub(super) fn by_type(&self) -> BTreeMap<String, TypeStats> {
        self.0.lock().types.clone()
    }

    /// All types in one.
    pub(super) fn all(&self) -> TypeStats {
        let mut all = TypeStats::default();
        self.0.lock().types.values().for_each(|stats| all.add(stats));
        all
    }

    /// Completed tasks that ran for less than half a second.
    pub(super) fn fast(&self) -> u64 {
        self.0.lock().fast
    }

    /// How long the newest completed tasks ran, in milliseconds, the shortest first.
    pub(super) fn recent_ms(&self) -> Vec<u64> {
        let mut recent: Vec<_> = self.0.lock().recent_ms.iter().copied().collect();
        recent.sort_unstable();
        recent
    }

    pub(super) fn write_prometheus(&self, page: &mut Page) {
        let types = self.by_type();
        let total = "web4ai_tasks_total";
        page.family(total, "counter", "Tasks that ended since this member started.");
        for (name, stats) in &types {
            for (status, count) in [
                ("completed", stats.completed),
                ("failed", stats.failed),
                ("timeout", stats.timeout),
                ("cancelled", stats.cancelled),
            ] {
                page.line(total, &[("type", name), ("status", status)], count);
            }
        }
        let seconds = "web4ai_task_duration_seconds";
        page.family(seconds, "histogram", "Time that completed tasks ran.");
        for (name, stats) in &types {
            for (bound, count) in stats.below() {
                let bound = bound.map(|ms| (ms as f64 / 1000.0).to_string());
                let bound = bound.unwrap_or_else(|| "+Inf".to_owned());
                let labels = [("task_type", name.as_str()), ("le", bound.as_str())];
                page.line("web4ai_task_duration_seconds_bucket", &labels, count);
            }
            let labels = [("task_type", name.as_str())];
            let sum_s = stats.sum_ms as f64 / 1000.0;
            page.line("web4ai_task_duration_seconds_sum", &labels, sum_s);
            page.line("web4ai_task_duration_seconds_count", &labels, stats.completed);
        }
    }

    /// What agents of each kind did (contract 4.8).
    pub(super) fn write_agents(&self, page: &mut Page) {
        let agents = self.0.lock().agents.clone();
        let total = "agent_executions_total";
        page.family(total, "counter", "Steps that ended since this member started.");
        for (kind, stats) in &agents {
            for (status, count) in [
                ("completed", stats.completed),
                ("failed", stats.failed),
                ("cancelled", stats.cancelled),
            ] {
                page.line(total, &[("agent_type", kind), ("status", status)], count);
            }
        }
        let name = "agent_execution_time_ms_total";
        page.family(name, "counter", "Time that completed steps ran, in milliseconds.");
        for (kind, stats) in &agents {
            page.line(name, &[("agent_type", kind)], stats.sum_ms);
        }
    }

    /// Failures of the nodes that are registered.
    pub(super) fn write_node_failures(&self, page: &mut Page, state: &Tables) {
        let name = "web4ai_node_failures_total";
        let help = "Times the node fell silent or said it cannot work, since this member started.";
        page.family(name, "counter", help);
        let book = self.0.lock();
        for node in state.nodes() {
            let failures = book.node_failures.get(&node.node_id).copied().unwrap_or_default();
            page.line(name, &[("node_id", node.node_id.as_str())], failures);
        }
    }
}

/// Follows the events until `closing`. What falls into a gap is not counted.
pub(super) async fn follow(stats: Arc<TaskStats>, view: Arc<Machine>, closing: CancellationToken) {
    let mut follower = view.events().follow(None);
    loop {
        let batch = tokio::select! {
            biased;
            () = closing.cancelled() => return,
            batch = follower.next(BATCH_MAX) => batch,
        };
        match batch {
            EventBatch::Events(events) => {
                for events in events.chunks(LOOKUPS_MAX) {
                    let seen: Vec<_> = events.iter().filter_map(|event| seen(event)).collect();
                    if !seen.is_empty() {
                        view.read(|state| note(&stats, state, seen));
                    }
                }
            }
            EventBatch::Gap { .. } => view.read(|state| {
                let is_there = |node_id: &NodeId, _: &mut u64| state.node(node_id).is_some();
                stats.0.lock().node_failures.retain(is_there);
            }),
        }
    }
}

/// What is counted of an event.
enum Seen<'a> {
    Submitted(&'a TaskId),
    Ended(&'a TaskId, TaskStatus),
    NodeFailed(&'a NodeId),
    NodeRemoved(&'a NodeId),
}

fn note(stats: &TaskStats, state: &Tables, seen: Vec<Seen<'_>>) {
    let mut book = stats.0.lock();
    for seen in seen {
        match seen {
            Seen::Submitted(task_id) => {
                if let Some(task) = state.task(task_id) {
                    book.of_type(&task.task_type).submitted += 1;
                }
            }
            Seen::Ended(task_id, status) => {
                let Some(task) = state.task(task_id) else { continue };
                let (last_try, execution_ms) = (task.last_try, task.execution_ms);
                let end = End { status, last_try, execution_ms };
                if task.step_of.is_none() {
                    book.ended(&task.task_type, end);
                } else if let Some(kind) = &task.requirements.agent_type {
                    let key = counted_as(&book.agents, kind).to_owned();
                    book.agents.entry(key).or_default().record(end);
                }
            }
            Seen::NodeFailed(node_id) => book.node_failed(node_id),
            Seen::NodeRemoved(node_id) => {
                book.node_failures.remove(node_id);
            }
        }
    }
}

fn seen(event: &Event) -> Option<Seen<'_>> {
    let is_out = |status: NodeStatus| matches!(status, NodeStatus::Offline | NodeStatus::Error);
    match &event.fact {
        Fact::TaskEnded { task_id, status, .. } => Some(Seen::Ended(task_id, *status)),
        Fact::TaskSubmitted { task_id } => Some(Seen::Submitted(task_id)),
        Fact::NodeStatusChanged { node_id, old, new } => {
            (is_out(*new) && !is_out(*old)).then_some(Seen::NodeFailed(node_id))
        }
        Fact::NodeRemoved { node_id } => Some(Seen::NodeRemoved(node_id)),
        Fact::EpochOpened { .. }
        | Fact::NodeRegistered { .. }
        | Fact::TaskAssigned { .. }
        | Fact::TaskStarted { .. }
        | Fact::TaskRetried { .. }
        | Fact::TaskQueued { .. }
        | Fact::TasksRetired { .. }
        | Fact::ConfigChanged { .. }
        | Fact::MemberChanged { .. }
        | Fact::DrillBegun { .. }
        | Fact::DrillEnded { .. }
        | Fact::StepsOpened { .. }
        | Fact::PipelineChanged { .. }
        | Fact::NodeDrained { .. }
        | Fact::DeliveryQueued { .. }
        | Fact::DeliveryEnded { .. }
        | Fact::AlertChanged { .. }
        | Fact::ScalingDecided { .. }
        | Fact::Campaign(_)
        | Fact::Bot(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(stats: &TaskStats, task_type: &str, status: TaskStatus, execution_ms: u64) {
        let end = End { status, last_try: LastTry::Other, execution_ms };
        stats.0.lock().ended(task_type, end);
    }

    #[test]
    fn contract_4_8_tasks_that_nobody_was_there_for_are_counted_apart() {
        let stats = TaskStats::default();
        for (status, last_try) in [
            (TaskStatus::DeadLetter, LastTry::Unavailable),
            (TaskStatus::DeadLetter, LastTry::Other),
            (TaskStatus::DeadLetter, LastTry::TimedOut),
            (TaskStatus::Failed, LastTry::Unavailable),
            (TaskStatus::Completed, LastTry::Unavailable),
        ] {
            stats.0.lock().ended("t", End { status, last_try, execution_ms: 1 });
        }
        // The code is that of the task's own view: a permanent failure is no missing agent.
        let all = stats.all();
        assert_eq!((all.failed, all.unavailable, all.timeout), (3, 1, 1));
    }

    #[test]
    fn contract_2_13_ends_by_type() {
        let stats = TaskStats::default();
        record(&stats, "thumb", TaskStatus::Completed, 30);
        record(&stats, "thumb", TaskStatus::Completed, 700_000);
        record(&stats, "thumb", TaskStatus::DeadLetter, 9);
        let mut page = Page::default();
        stats.write_prometheus(&mut page);
        for line in [
            "web4ai_tasks_total{type=\"thumb\",status=\"completed\"} 2\n",
            "web4ai_tasks_total{type=\"thumb\",status=\"failed\"} 1\n",
            "web4ai_tasks_total{type=\"api_call\",status=\"failed\"} 0\n",
            "web4ai_task_duration_seconds_bucket{task_type=\"thumb\",le=\"0.025\"} 0\n",
            "web4ai_task_duration_seconds_bucket{task_type=\"thumb\",le=\"0.05\"} 1\n",
            "web4ai_task_duration_seconds_bucket{task_type=\"thumb\",le=\"+Inf\"} 2\n",
            "web4ai_task_duration_seconds_sum{task_type=\"thumb\"} 700.03\n",
            "web4ai_task_duration_seconds_count{task_type=\"thumb\"} 2\n",
        ] {
            assert!(page.text().contains(line), "{line} in\n{}", page.text());
        }
    }

    #[test]
    fn clients_cannot_make_endless_series() {
        let stats = TaskStats::default();
        for number in 0..2 * TYPES_MAX {
            record(&stats, &format!("t{number}"), TaskStatus::Completed, 1);
        }
        let types = stats.by_type();
        assert_eq!(types.len(), TYPES_MAX + 1);
        assert_eq!(types["other"].completed, (TYPES_MAX + KNOWN_TYPES.len()) as u64);
        assert_eq!(stats.all().completed, 2 * TYPES_MAX as u64);
    }

    #[test]
    fn contract_4_8_recent_durations_are_bounded_and_fast_ones_are_counted() {
        let stats = TaskStats::default();
        for number in 0..2 * RECENT_MAX as u64 {
            record(&stats, "t", TaskStatus::Completed, number);
        }
        record(&stats, "t", TaskStatus::Failed, 1);
        let recent = stats.recent_ms();
        assert_eq!((recent.len(), recent[0]), (RECENT_MAX, RECENT_MAX as u64));
        assert_eq!(stats.fast(), FAST_MS);
    }
}
