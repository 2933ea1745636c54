//! What the leader's work adds up to on this member, since it started.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The duties, for figures by duty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DutyName {
    /// Follows events and wakes the others.
    Events,
    /// See [`super::timers`].
    Timers,
    /// See [`super::liveness`].
    Liveness,
    /// See [`super::scheduler`].
    Scheduler,
    /// Calls nodes and records their answers.
    Dispatcher,
    /// See [`super::reaper`].
    Reaper,
    /// Posts to URLs outside.
    Courier,
    /// Raises alerts and takes them back.
    Watch,
    /// Decides about the number of nodes.
    Autoscaler,
    /// Asks nodes for their health, and looks for new ones.
    Prober,
    /// Runs the steps of orchestrators.
    Campaigns,
    /// See [`super::leases`].
    Leases,
    /// Calls the services that workflows are made of.
    Workflows,
}

impl DutyName {
    /// All of them, in the order they are started.
    pub const ALL: [Self; 13] = [
        Self::Events,
        Self::Timers,
        Self::Liveness,
        Self::Scheduler,
        Self::Dispatcher,
        Self::Reaper,
        Self::Courier,
        Self::Watch,
        Self::Autoscaler,
        Self::Prober,
        Self::Campaigns,
        Self::Leases,
        Self::Workflows,
    ];

    /// The word in logs and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Timers => "timers",
            Self::Liveness => "liveness",
            Self::Scheduler => "scheduler",
            Self::Dispatcher => "dispatcher",
            Self::Reaper => "reaper",
            Self::Courier => "courier",
            Self::Watch => "watch",
            Self::Autoscaler => "autoscaler",
            Self::Prober => "prober",
            Self::Campaigns => "campaigns",
            Self::Leases => "leases",
            Self::Workflows => "workflows",
        }
    }
}

/// A number that only this file knows how to change.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Sets it, for a gauge.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Raises it to `n`.
    pub fn raise(&self, n: u64) {
        self.0.fetch_max(n, Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often a duty went round, and for how long.
#[derive(Debug, Default)]
pub struct Rounds {
    /// How often.
    pub count: Count,
    /// Microseconds spent in rounds, waiting for commits included.
    pub total_us: Count,
    /// The longest round, in microseconds.
    pub max_us: Count,
}

/// Counts of one member's leader work. They only grow, but for the gauges, which say so.
#[derive(Debug, Default)]
pub struct LeaderMetrics {
    /// Placements that apply accepted.
    pub assigned: Count,
    /// Placements that came too late.
    pub assigned_stale: Count,
    /// Calls made to nodes, one per attempt that was dispatched.
    pub dispatched: Count,
    /// Answers that took an attempt on.
    pub acknowledged: Count,
    /// Answers that ended an attempt with a result.
    pub completed: Count,
    /// Answers and errors that failed an attempt.
    pub dispatch_failures: Count,
    /// Answers that put an attempt off (429).
    pub refused: Count,
    /// Calls under way: a gauge.
    pub in_flight: Count,
    /// Cancel calls made to nodes.
    pub cancels: Count,
    /// Nodes found silent and taken offline.
    pub evictions: Count,
    /// Nodes that came back.
    pub recoveries: Count,
    /// How often the brake went on.
    pub brake_engaged: Count,
    /// Evictions the brake holds back now: a gauge.
    pub brake_held: Count,
    /// Timers that acted.
    pub expired: Count,
    /// Tasks deleted.
    pub retired: Count,
    /// Age of the task that has waited longest, in milliseconds: a gauge.
    pub queue_age_ms: Count,
    /// Times the event ring moved on before it was read.
    pub event_gaps: Count,
    /// Reigns opened.
    pub reigns: Count,
    /// Looks at what campaigns and schedules need.
    pub step_plans: Count,
    /// Microseconds spent in those.
    pub step_plan_us: Count,
    /// The longest of them, in microseconds: a gauge.
    pub step_plan_us_max: Count,
    /// Leases of bots' assignments that ran out.
    pub leases_expired: Count,
    /// Calls made to services, for tasks of workflows.
    pub workflow_calls: Count,
    /// Those that gave no result.
    pub workflow_errors: Count,
    /// Tasks of workflows whose result was recorded, those of unknown types included.
    pub workflow_steps: Count,
    rounds: [Rounds; DutyName::ALL.len()],
}

impl LeaderMetrics {
    /// The figures of one duty.
    #[must_use]
    pub fn rounds(&self, duty: DutyName) -> &Rounds {
        &self.rounds[duty as usize]
    }

    /// Counts one look at what campaigns need.
    pub fn planned_steps(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.step_plans.add(1);
        self.step_plan_us.add(took_us);
        self.step_plan_us_max.raise(took_us);
    }

    /// Counts one round of a duty.
    pub fn went_round(&self, duty: DutyName, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let rounds = self.rounds(duty);
        rounds.count.add(1);
        rounds.total_us.add(took_us);
        rounds.max_us.raise(took_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duty_has_figures_of_its_own() {
        let metrics = LeaderMetrics::default();
        for (n, duty) in (1..).zip(DutyName::ALL) {
            metrics.went_round(duty, Duration::from_micros(n));
        }
        for (n, duty) in (1..).zip(DutyName::ALL) {
            assert_eq!(metrics.rounds(duty).total_us.get(), n, "{}", duty.as_str());
            assert_eq!(metrics.rounds(duty).count.get(), 1);
        }
    }
}
