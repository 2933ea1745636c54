//! Everything that only the leader does.
//!
//! One guard ([`Leadership`]) starts all duties of a reign after a barrier and an opened epoch,
//! and stops them all when leadership is lost or in doubt; what they keep in memory goes with
//! them. A duty looks at the view, plans with a pure function and proposes; apply alone decides,
//! so that a stale plan or an old leader can be wrong without doing harm.
//!
//! Invariants: duties run between the opening and the closing of the gate and never outside;
//! one reign's duties have all ended before the next one's begin; nothing is sent to a node that
//! is not committed; every command of a duty carries its epoch; every queue, batch and walk is
//! bounded.

mod agents;
mod autoscaler;
mod backups;
pub mod balance;
mod brake;
mod calendar;
pub mod campaigns;
mod cancels;
mod courier;
mod cron;
mod dispatcher;
mod duty;
mod eligible;
mod events;
mod faults;
mod fleet;
mod fleet_figures;
mod guard;
mod handover;
mod http;
mod ladder;
mod lanes;
pub mod leases;
pub mod liveness;
mod mailing;
mod member;
mod message;
mod metrics;
mod outward;
mod probe;
mod prober;
pub mod reaper;
mod record;
mod recording;
mod refusals;
mod reply;
pub mod scheduler;
mod seat;
pub mod slot_plan;
mod step_caller;
pub mod step_plan;
pub mod timers;
mod watch;
mod workflows;

#[cfg(test)]
mod solo;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use agents::{AgentAnswer, AgentCall, AgentCaller, NoAgents, agent_id_of};
pub use backups::{BackupFault, BackupFile, BackupMetrics, BackupPlan, Backups, RehearsalReport};
pub use brake::{Brake, BrakeOptions};
pub use calendar::{Calendar, CalendarError};
pub use courier::{IdOnly, Rendered, TaskRenderer, Unreadable};
pub use cron::CronError;
pub use duty::DutyError;
pub use eligible::{Gate, Obstacle, Rules, gates_of};
pub use fleet::Loads;
pub use guard::Leadership;
pub use http::{ANSWER_BYTES_MAX, Answer, Call, CallError, HttpCaller, NodeCaller};
pub use ladder::{Rung, rungs};
pub use metrics::{Count, DutyName, LeaderMetrics, Rounds};
pub use outward::Outward;
pub use record::{ReignEnd, ReignRecord};
pub use scheduler::PlanLimits;
pub use seat::{Feed, Happened, Seat, SeatError, Sighting};
pub use step_caller::StepCaller;

/// Bounds and periods of the leader's work on this member. None of them changes what apply does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderOptions {
    /// Bounds of one plan.
    pub plan: PlanLimits,
    /// When evictions are slowed down.
    pub brake: BrakeOptions,
    /// Calls to nodes under way at once. Each may hold a connection.
    pub in_flight_max: usize,
    /// Where agent programs listen beside their node.
    pub agent_port: u16,
    /// How often leadership is confirmed by a quorum while duties run.
    pub confirm_every: Duration,
    /// How long that, or a step of taking office, may take.
    pub confirm_timeout: Duration,
    /// The pause after a reign that could not begin or had to end early.
    pub retry_pause: Duration,
    /// Rounds that take longer are logged.
    pub slow_round: Duration,
}

impl Default for LeaderOptions {
    fn default() -> Self {
        Self {
            plan: PlanLimits::default(),
            brake: BrakeOptions::default(),
            in_flight_max: 4096,
            agent_port: 8080,
            confirm_every: Duration::from_secs(1),
            confirm_timeout: Duration::from_secs(5),
            retry_pause: Duration::from_secs(1),
            slow_round: Duration::from_secs(2),
        }
    }
}
