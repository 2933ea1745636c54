//! The watch over the fleet's figures: raises alerts and takes them back (contract 2.11).

use std::time::Duration;

use tokio::sync::Notify;
use tracing::{info, warn};

use super::duty::{Duty, DutyError, Next, Reign, Wakes};
use super::fleet_figures::{Figures, Samples};
use super::metrics::DutyName;
use super::seat::Seat;
use super::timers::state_now;
use crate::model::{Alert, AlertState, Severity, TimeMs};
use crate::state::{AlertChange, Command, State, Threshold};

/// Figures are means over this time (contract 2.11).
const WINDOW_MS: TimeMs = 300_000;
/// Nothing is decided by fewer samples.
const SAMPLES_MIN: usize = 3;
/// More waiting tasks than this are worth a warning (contract 4.6).
const QUEUE_LONG: u64 = 100;

/// A figure, its limits, and which side of them is bad.
struct Rule {
    metric: &'static str,
    value_milli: Option<u64>,
    threshold: Threshold,
    low_is_bad: bool,
    /// The figure can only be too low: it is a sum over a window that is not whole yet.
    lower_bound: bool,
}

impl Rule {
    fn severity(&self, value: u64) -> Option<(Severity, u64)> {
        let Threshold { warning_milli, critical_milli } = self.threshold;
        let beyond = |limit: u64| if self.low_is_bad { value < limit } else { value > limit };
        if beyond(critical_milli) {
            return Some((Severity::Critical, critical_milli));
        }
        beyond(warning_milli).then_some((Severity::Warning, warning_milli))
    }

    /// The limit that is met first, if there is one.
    fn nearest(&self) -> Option<u64> {
        let Threshold { warning_milli, critical_milli } = self.threshold;
        let (nearest, never) = match self.low_is_bad {
            true => (warning_milli.max(critical_milli), 0),
            false => (warning_milli.min(critical_milli), u64::MAX),
        };
        (nearest != never).then_some(nearest)
    }
}

fn rules(view: &State, figures: &Figures) -> [Rule; 6] {
    let limits = &view.policy().thresholds;
    [
        Rule {
            metric: "network_utilization",
            value_milli: figures.utilization_milli,
            threshold: limits.network_utilization,
            low_is_bad: false,
            lower_bound: false,
        },
        Rule {
            metric: "node_failure_rate",
            value_milli: Some(figures.failures_milli),
            threshold: limits.node_failure_rate,
            low_is_bad: false,
            lower_bound: !figures.whole,
        },
        Rule {
            metric: "task_success_rate",
            value_milli: figures.success_milli,
            threshold: limits.task_success_rate,
            low_is_bad: true,
            lower_bound: false,
        },
        Rule {
            metric: "average_response_time",
            value_milli: figures.response_milli,
            threshold: limits.average_response_time,
            low_is_bad: false,
            lower_bound: false,
        },
        Rule {
            metric: "cpu_usage",
            value_milli: figures.cpu_milli,
            threshold: limits.cpu_usage,
            low_is_bad: false,
            lower_bound: false,
        },
        Rule {
            metric: "memory_usage",
            value_milli: figures.memory_milli,
            threshold: limits.memory_usage,
            low_is_bad: false,
            lower_bound: false,
        },
    ]
}

/// The changes of alerts that `figures` ask for.
#[must_use]
pub(super) fn plan(view: &State, figures: &Figures, now: TimeMs) -> Vec<AlertChange> {
    if !view.policy().alerts_enabled || figures.samples < SAMPLES_MIN {
        return Vec::new();
    }
    let changes = rules(view, figures).into_iter().filter_map(|rule| {
        let alert_id = format!("{}_threshold", rule.metric);
        let known = view.alert(&alert_id);
        let on = known.filter(|alert| alert.state != AlertState::Resolved);
        // A figure that cannot be told neither raises an alert nor ends one.
        let value_milli = rule.value_milli?;
        // What the leader before counted goes on counting until this one has seen a whole window.
        let before = on.filter(|_| rule.lower_bound).map_or(0, |alert| alert.value_milli);
        let value_milli = value_milli.max(before);
        let (state, severity, threshold_milli) = match (rule.severity(value_milli), on) {
            (Some((severity, _)), Some(alert))
                if alert.severity == severity && !is_told_again(alert, now) =>
            {
                return None;
            }
            (Some((severity, limit)), _) => (AlertState::Active, severity, limit),
            // The limit may be another one by now.
            (None, Some(alert)) => {
                let limit = rule.nearest().unwrap_or(alert.threshold_milli);
                (AlertState::Resolved, alert.severity, limit)
            }
            (None, None) => return None,
        };
        Some(AlertChange {
            alert_id,
            seen_transitions: known.map_or(0, |alert: &Alert| alert.transitions),
            metric: rule.metric.to_owned(),
            severity,
            state,
            value_milli,
            threshold_milli,
            message: message(rule.metric, state, value_milli, threshold_milli),
        })
    });
    changes.collect()
}

/// Whether the time is over for which nobody was to be told.
fn is_told_again(alert: &Alert, now: TimeMs) -> bool {
    alert.state == AlertState::Suppressed && alert.suppressed_until_ms <= now
}

/// The console, which is the leader's log: one line per transition (contract 2.11).
fn write_console(changes: &[AlertChange]) {
    for change in changes {
        let (id, state) = (change.alert_id.as_str(), change.state.as_str());
        let (severity, what) = (change.severity.as_str(), change.message.as_str());
        match (change.state, change.severity) {
            (AlertState::Resolved, _) => info!(id, state, severity, what, "alert"),
            // An error of this log is one of this program, and the fleet's trouble is none of it.
            (_, Severity::Critical | Severity::Warning) => {
                warn!(id, state, severity, what, "alert");
            }
        }
    }
}

/// Says once that many tasks wait, and once that it is over (contract 4.6).
fn note_queue(is_long: &mut bool, waiting: u64) {
    if !*is_long && waiting > QUEUE_LONG {
        *is_long = true;
        warn!(waiting, "more than {QUEUE_LONG} tasks wait");
    } else if *is_long && waiting <= QUEUE_LONG / 2 {
        *is_long = false;
        info!(waiting, "the queue is short again");
    }
}

fn message(metric: &str, state: AlertState, value: u64, threshold: u64) -> String {
    let metric = metric.replace('_', " ");
    let decimal = |milli: u64| format!("{}.{:03}", milli / 1000, milli % 1000);
    let verb = if state == AlertState::Resolved { "is back within" } else { "is beyond" };
    format!("{metric} {verb} its threshold: {} against {}", decimal(value), decimal(threshold))
}

/// The duty around [`plan`].
#[derive(Debug, Default)]
pub(super) struct Watch {
    samples: Samples,
    queue_is_long: bool,
}

impl<S: Seat> Duty<S> for Watch {
    const NAME: DutyName = DutyName::Watch;

    async fn round(&mut self, reign: &Reign<S>) -> Result<Next, DutyError> {
        let (changes, every_ms, console, waiting) = reign.seat.read(|view| {
            let now = state_now(&*reign.seat, view);
            let policy = view.policy();
            self.samples.take(view, now, policy.alert_check_ms);
            let changes = plan(view, &self.samples.over(WINDOW_MS), now);
            (changes, policy.alert_check_ms, policy.alert_console, view.waiting_len())
        });
        note_queue(&mut self.queue_is_long, waiting);
        if !changes.is_empty() {
            let told = changes.clone();
            let command = Command::RecordAlerts { epoch: reign.epoch, changes };
            let judged = reign.propose(command).await?;
            // One that is suppressed was taken, too, and is told nobody.
            let is_told = judged.is_some_and(|judged| judged.stale == 0) && console;
            if is_told {
                let loud = |change: &AlertChange| {
                    reign.seat.read(|view| {
                        let alert = view.alert(&change.alert_id);
                        alert.is_some_and(|alert| {
                            alert.suppressed_until_ms <= view.counters().last_at_ms
                        })
                    })
                };
                write_console(&told.into_iter().filter(loud).collect::<Vec<_>>());
            }
        }
        Ok(Next::Wait(Duration::from_millis(every_ms)))
    }

    fn wake(wakes: &Wakes) -> &Notify {
        &wakes.watch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::solo::Solo;
    use crate::model::Epoch;

    /// Found by the workload `alerts` of the fault tests: a new leader counted from nothing, and took
    /// back what was raised a moment before it came.
    #[tokio::test]
    async fn a_new_leader_does_not_take_back_what_it_has_not_seen_the_window_of() {
        let solo = Solo::new();
        let epoch = Epoch { term: 1, member: 1 };
        solo.commit(Command::OpenEpoch(epoch)).unwrap();
        let limit = solo.state.read().policy().thresholds.node_failure_rate.critical_milli;
        let figures = |failures_milli: u64, whole: bool| Figures {
            samples: SAMPLES_MIN,
            whole,
            failures_milli,
            ..Figures::default()
        };
        let changes = plan(&solo.state.read(), &figures(limit + 1000, false), 0);
        assert_eq!(changes.len(), 1);
        solo.commit(Command::RecordAlerts { epoch, changes }).unwrap();
        let part = plan(&solo.state.read(), &figures(0, false), 0);
        assert_eq!(part, Vec::new(), "a part of the window says nothing about the rest");
        let whole = plan(&solo.state.read(), &figures(0, true), 0);
        assert_eq!(whole.first().map(|change| change.state), Some(AlertState::Resolved));
    }

    #[test]
    fn contract_2_12_nodes_that_are_busy_are_an_alert_where_a_limit_is_set() {
        let solo = Solo::new();
        let epoch = Epoch { term: 1, member: 1 };
        solo.commit(Command::OpenEpoch(epoch)).unwrap();
        let figures = |cpu_milli: u64| Figures {
            samples: SAMPLES_MIN,
            whole: true,
            cpu_milli: Some(cpu_milli),
            memory_milli: Some(99_000),
            ..Figures::default()
        };
        assert_eq!(plan(&solo.state.read(), &figures(99_000), 0), Vec::new(), "none is set");
        let path = "alerts.thresholds.high_cpu_threshold".to_owned();
        let set = |value: &str| Command::PatchConfig {
            path: path.clone(),
            value: value.to_owned(),
            expected_revision: None,
        };
        solo.commit(set("90")).unwrap();
        assert_eq!(plan(&solo.state.read(), &figures(90_000), 0), Vec::new(), "at it is not above");
        let changes = plan(&solo.state.read(), &figures(90_001), 0);
        let [change] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!(
            (change.alert_id.as_str(), change.severity),
            ("cpu_usage_threshold", Severity::Warning)
        );
        solo.commit(Command::RecordAlerts { epoch, changes: changes.clone() }).unwrap();
        // It is back within the limit that is set by now, not within that which it passed.
        solo.commit(set("99.5")).unwrap();
        let over = plan(&solo.state.read(), &figures(99_000), 0);
        let said = over.first().map(|change| change.message.as_str());
        assert_eq!(said, Some("cpu usage is back within its threshold: 99.000 against 99.500"));
        // Whoever takes the limit away takes the alert back, too.
        solo.commit(set("null")).unwrap();
        let over = plan(&solo.state.read(), &figures(99_000), 0);
        assert_eq!(over.first().map(|change| change.state), Some(AlertState::Resolved));
    }

    #[test]
    fn contract_4_6_a_long_queue_is_told_once() {
        let mut is_long = false;
        let mut told = Vec::new();
        for waiting in [99, 100, 101, 5000, 101, 51, 50, 100, 101] {
            note_queue(&mut is_long, waiting);
            told.push(is_long);
        }
        assert_eq!(told, [false, false, true, true, true, true, false, false, true]);
    }
}
