//! How tasks of each type end and how long they take (contract 2.13), seen by following the events
//! of this member. Counts begin when the member starts; every member sees every task.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::prometheus::Page;
use crate::model::{TaskId, TaskStatus};
use crate::state::{Event, Fact};
use crate::storage::{EventBatch, Machine};

/// Task types counted apart; clients choose them, so they are bounded. Further ones are `other`.
const TYPES_MAX: usize = 200;
/// Events taken in one step.
const BATCH_MAX: usize = 4096;
/// Upper bounds of the buckets, in milliseconds. The last one is open.
const BUCKETS_MS: [u64; 12] = [5, 10, 25, 50, 100, 250, 500, 1000, 5000, 30_000, 120_000, 600_000];

/// Ends by type.
#[derive(Debug, Default)]
pub(super) struct TaskStats(Mutex<BTreeMap<String, TypeStats>>);

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct TypeStats {
    completed: u64,
    failed: u64,
    timeout: u64,
    cancelled: u64,
    buckets: [u64; BUCKETS_MS.len() + 1],
    sum_ms: u64,
}

impl TypeStats {
    fn record(&mut self, status: TaskStatus, execution_ms: u64) {
        match status {
            TaskStatus::Completed => self.completed += 1,
            TaskStatus::Failed | TaskStatus::DeadLetter => self.failed += 1,
            TaskStatus::TimedOut => self.timeout += 1,
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
}

impl TaskStats {
    fn record(&self, task_type: &str, status: TaskStatus, execution_ms: u64) {
        let mut types = self.0.lock();
        if let Some(known) = types.get_mut(task_type) {
            return known.record(status, execution_ms);
        }
        let name = if types.len() < TYPES_MAX { task_type } else { "other" };
        types.entry(name.to_owned()).or_default().record(status, execution_ms);
    }

    pub(super) fn write_prometheus(&self, page: &mut Page) {
        let types = self.0.lock().clone();
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
            let mut sum = 0;
            for (place, count) in stats.buckets.iter().enumerate() {
                sum += count;
                let bound = BUCKETS_MS.get(place).map(|ms| (*ms as f64 / 1000.0).to_string());
                let bound = bound.unwrap_or_else(|| "+Inf".to_owned());
                let labels = [("task_type", name.as_str()), ("le", bound.as_str())];
                page.line("web4ai_task_duration_seconds_bucket", &labels, sum);
            }
            let labels = [("task_type", name.as_str())];
            let sum_s = stats.sum_ms as f64 / 1000.0;
            page.line("web4ai_task_duration_seconds_sum", &labels, sum_s);
            page.line("web4ai_task_duration_seconds_count", &labels, sum);
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
        let EventBatch::Events(events) = batch else { continue };
        let ended: Vec<_> = events.iter().filter_map(|event| end_of(event)).collect();
        if ended.is_empty() {
            continue;
        }
        view.read(|state| {
            for (task_id, status) in ended {
                if let Some(task) = state.task(task_id) {
                    stats.record(&task.task_type, status, task.execution_ms);
                }
            }
        });
    }
}

fn end_of(event: &Event) -> Option<(&TaskId, TaskStatus)> {
    match &event.fact {
        Fact::TaskEnded { task_id, status, .. } => Some((task_id, *status)),
        Fact::EpochOpened { .. }
        | Fact::NodeRegistered { .. }
        | Fact::NodeStatusChanged { .. }
        | Fact::NodeRemoved { .. }
        | Fact::TaskSubmitted { .. }
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
        | Fact::ScalingDecided { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_2_13_ends_by_type() {
        let stats = TaskStats::default();
        stats.record("thumb", TaskStatus::Completed, 30);
        stats.record("thumb", TaskStatus::Completed, 700_000);
        stats.record("thumb", TaskStatus::DeadLetter, 9);
        let mut page = Page::default();
        stats.write_prometheus(&mut page);
        for line in [
            "web4ai_tasks_total{type=\"thumb\",status=\"completed\"} 2\n",
            "web4ai_tasks_total{type=\"thumb\",status=\"failed\"} 1\n",
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
            stats.record(&format!("t{number}"), TaskStatus::Completed, 1);
        }
        let types = stats.0.lock();
        assert_eq!(types.len(), TYPES_MAX + 1);
        assert_eq!(types["other"].completed, TYPES_MAX as u64);
    }
}
