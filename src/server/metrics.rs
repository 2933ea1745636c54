//! The leader room's figures as Prometheus text; the API room writes its own and the cluster's.

use std::fmt::Write;

use crate::leader::{Backups, DutyName, LeaderMetrics, Leadership};

/// Appends the figures of this member's leader work.
pub(super) fn leader(leadership: &Leadership, text: &mut String) {
    let serving = u8::from(leadership.serving().borrow().is_some());
    let mut line = |name: &str, kind: &str, help: &str, value: u64| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    };
    line(
        "quorate_leader_serving",
        "gauge",
        "1 while the leader's duties run here.",
        serving.into(),
    );
    let metrics = leadership.metrics();
    for (name, kind, help, count) in [
        ("reigns_total", "counter", "Reigns of this member.", &metrics.reigns),
        ("assigned_total", "counter", "Tasks placed.", &metrics.assigned),
        (
            "assigned_stale_total",
            "counter",
            "Placements that came too late.",
            &metrics.assigned_stale,
        ),
        ("dispatched_total", "counter", "Calls made to nodes.", &metrics.dispatched),
        ("acknowledged_total", "counter", "Attempts taken by nodes.", &metrics.acknowledged),
        ("completed_total", "counter", "Attempts answered with the result.", &metrics.completed),
        ("dispatch_failures_total", "counter", "Calls that failed.", &metrics.dispatch_failures),
        ("dispatch_refused_total", "counter", "Calls refused by busy nodes.", &metrics.refused),
        ("in_flight", "gauge", "Calls to nodes under way.", &metrics.in_flight),
        ("cancels_total", "counter", "Cancellations told to nodes.", &metrics.cancels),
        ("evictions_total", "counter", "Nodes taken offline.", &metrics.evictions),
        ("recoveries_total", "counter", "Nodes that came back.", &metrics.recoveries),
        ("brake_engaged_total", "counter", "Times evictions were slowed.", &metrics.brake_engaged),
        ("brake_held", "gauge", "Silent nodes the brake keeps.", &metrics.brake_held),
        ("expired_total", "counter", "Timers that fired.", &metrics.expired),
        ("retired_total", "counter", "Ended tasks deleted.", &metrics.retired),
        ("queue_age_ms", "gauge", "Age of the oldest waiting task.", &metrics.queue_age_ms),
        (
            "step_plans_total",
            "counter",
            "Looks at what campaigns and schedules need.",
            &metrics.step_plans,
        ),
        ("step_plan_us_total", "counter", "Microseconds spent in those.", &metrics.step_plan_us),
        (
            "step_plan_us_max",
            "gauge",
            "The longest of those, in microseconds.",
            &metrics.step_plan_us_max,
        ),
        ("leases_expired_total", "counter", "Bots' leases that ran out.", &metrics.leases_expired),
        ("workflow_calls_total", "counter", "Calls to services.", &metrics.workflow_calls),
        (
            "workflow_errors_total",
            "counter",
            "Calls to services without a result.",
            &metrics.workflow_errors,
        ),
        ("workflow_steps_total", "counter", "Tasks of workflows done.", &metrics.workflow_steps),
        ("event_gaps_total", "counter", "Times duties fell behind events.", &metrics.event_gaps),
    ] {
        line(&format!("quorate_leader_{name}"), kind, help, count.get());
    }
    rounds(metrics, text);
}

fn rounds(metrics: &LeaderMetrics, text: &mut String) {
    let name = "quorate_duty_rounds_total";
    let _ = writeln!(text, "# HELP {name} Rounds of each duty.\n# TYPE {name} counter");
    for duty in DutyName::ALL {
        let rounds = metrics.rounds(duty).count.get();
        let _ = writeln!(text, "{name}{{duty=\"{}\"}} {rounds}", duty.as_str());
    }
    let name = "quorate_duty_seconds_total";
    let _ = writeln!(text, "# HELP {name} Time spent in each duty.\n# TYPE {name} counter");
    for duty in DutyName::ALL {
        let seconds = metrics.rounds(duty).total_us.get() as f64 / 1e6;
        let _ = writeln!(text, "{name}{{duty=\"{}\"}} {seconds}", duty.as_str());
    }
}

/// Appends the figures of this member's backups, if it is to write any.
pub(super) fn backups(backups: &Backups, text: &mut String) {
    if backups.plan().is_none() {
        return;
    }
    let metrics = backups.metrics();
    for (name, kind, help, count) in [
        ("backups_total", "counter", "Backups written by this member.", &metrics.written),
        ("backup_failures_total", "counter", "Backups that failed.", &metrics.failures),
        ("backup_rehearsals_total", "counter", "Rehearsals that passed.", &metrics.rehearsed),
        (
            "backup_rehearsal_failures_total",
            "counter",
            "Rehearsals that did not pass.",
            &metrics.rehearsal_failures,
        ),
        (
            "backup_last_success_timestamp_seconds",
            "gauge",
            "When this member wrote its newest backup; 0 before the first.",
            &metrics.last_success_s,
        ),
        ("backup_last_bytes", "gauge", "Length of the newest backup.", &metrics.last_bytes),
        (
            "backup_last_rehearsal_ok",
            "gauge",
            "1 when the newest rehearsal passed.",
            &metrics.last_rehearsal_ok,
        ),
    ] {
        let name = format!("quorate_{name}");
        let value = count.get();
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::leader::{BackupPlan, HttpCaller, LeaderOptions, Outward};

    #[test]
    fn every_figure_of_the_leader_is_named_in_the_documentation() {
        let outward = Outward::new(Arc::new(HttpCaller::new().unwrap()));
        let plan = BackupPlan {
            dir: "backups".into(),
            interval: Duration::from_secs(3600),
            keep: 1,
            rehearse: false,
        };
        let mut text = String::new();
        leader(&Leadership::new(LeaderOptions::default(), outward), &mut text);
        backups(&Backups::new(Some(plan)), &mut text);
        let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let names: Vec<&str> = families.filter_map(|line| line.split(' ').next()).collect();
        assert!(names.len() > 30, "{names:?}");
        let page = include_str!("../../docs/api.md");
        let named = |name: &&&str| {
            page.contains(&format!("`{name}`")) || page.contains(&format!("`{name}{{"))
        };
        let missing: Vec<_> = names.iter().filter(|name| !named(name)).collect();
        assert_eq!(missing, [&""; 0]);
    }
}
