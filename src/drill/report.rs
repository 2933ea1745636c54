//! The report of a drill: one JSON document, which the cluster stores and every other form is made
//! of.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::Options;
use super::admin::Begun;
use super::phases::{Phase, Story};
use super::plan::Plan;
use super::probes::Aftermath;
use super::run::Course;
use super::samples::{End, longest_gap};
use super::verdict::{Evidence, Verdict};

/// Ids named in a report; more are counted only.
const NAMED_MAX: usize = 20;

/// Everything a report is made of.
pub(super) struct Told<'a> {
    pub(super) begun: Begun,
    pub(super) options: &'a Options,
    pub(super) plan: &'a Plan,
    pub(super) course: &'a Course,
    pub(super) story: &'a Story<'a>,
    pub(super) evidence: &'a Evidence,
    pub(super) aftermath: &'a Aftermath,
    pub(super) verdict: &'a Verdict,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn some_of(ids: &[String]) -> Vec<&String> {
    ids.iter().take(NAMED_MAX).collect()
}

/// The document. Its size is bounded: steps of the plot, names and reigns are.
pub(super) fn build(told: &Told<'_>) -> Value {
    let Told { plan, course, story, evidence, aftermath, verdict, .. } = told;
    let (samples, limits) = (story.samples, told.options.limits);
    let phases: Vec<Value> = story.phases().iter().map(Phase::json).collect();
    let reigns = story.reigns().into_iter().take(NAMED_MAX).map(|(at, member, reign)| {
        json!({ "member": member, "term": reign.term, "elected_ms": at.round(), "steps": reign })
    });
    let doubled = samples.doubled();
    let mut report = plan.json();
    let parts = json!({
        "format": 1,
        "drill_id": told.begun.drill_id,
        "started_by": told.options.started_by,
        "times": {
            "fault_ms": ms(course.fault),
            "healed_ms": ms(course.healed),
            "whole_ms": course.whole.map(ms),
            "end_ms": ms(course.end),
        },
        "phases": phases,
        "reigns": reigns.collect::<Vec<_>>(),
        "writes": {
            "acknowledged": samples.ended_as(End::Acknowledged),
            "not_done": samples.ended_as(End::NotDone),
            "unknown": samples.ended_as(End::Unknown),
            "gap_ms": ms(evidence.write_gap),
            "limit_ms": ms(limits.write_gap),
        },
        "reads": {
            "answered": samples.good_reads().count(),
            "failed": samples.reads.len() - samples.good_reads().count(),
            "stale": samples.stale,
            "gap_ms": ms(evidence.read_gap),
            "limit_ms": ms(limits.read_gap),
            "members": reads_by_member(told),
        },
        "dispatches": {
            "arrived": samples.arrivals.len(),
            "repeated": samples.repeated(),
            "gap_ms": evidence.dispatch_gap.map(ms),
            "limit_ms": ms(limits.dispatch_gap),
        },
        "lost": { "count": aftermath.lost.len(), "ids": some_of(&aftermath.lost) },
        "undone": { "count": aftermath.undone.len(), "ids": some_of(&aftermath.undone) },
        "doubled": { "count": doubled.len(), "ids": some_of(&doubled) },
        "rehearsals": course.rehearsals,
        "timeline": samples.timeline(course.end),
        "verdict": { "state": verdict.state.as_str(), "reasons": verdict.reasons },
    });
    if let (Value::Object(report), Value::Object(parts)) = (&mut report, parts) {
        report.extend(parts);
    }
    report
}

fn reads_by_member(told: &Told<'_>) -> Vec<Value> {
    let (samples, course) = (told.story.samples, told.course);
    let mut members: Vec<u64> = samples.reads.iter().map(|read| read.member).collect();
    members.sort_unstable();
    members.dedup();
    let row = |id: u64| {
        let good = || samples.good_reads().filter(move |read| read.member == id);
        let all = samples.reads.iter().filter(|read| read.member == id).count();
        let gap = longest_gap(good().map(|read| read.ended), course.fault, course.end);
        json!({
            "member": id, "answered": good().count(), "failed": all - good().count(),
            "gap_ms": ms(gap),
        })
    };
    members.into_iter().map(row).collect()
}

fn number(report: &Value, pointer: &str) -> u64 {
    report.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

pub(super) fn word<'a>(report: &'a Value, pointer: &str) -> &'a str {
    report.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// What came of it, in one line.
pub(super) fn summary(report: &Value, verdict: &Verdict) -> String {
    let mut text = format!(
        "write gap {} ms, lost {}, doubled {}",
        number(report, "/writes/gap_ms"),
        number(report, "/lost/count"),
        number(report, "/doubled/count"),
    );
    for reason in &verdict.reasons {
        text.push_str("; ");
        text.push_str(reason);
    }
    text.chars().take(250).collect()
}

/// The report for people, as text.
#[must_use]
pub fn text(report: &Value) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "drill {}: {} of {} by {}",
        number(report, "/drill_id"),
        word(report, "/kind"),
        word(report, "/target"),
        word(report, "/method"),
    );
    margin_text(&mut out, report);
    phases_text(&mut out, report);
    traffic_text(&mut out, report);
    for rehearsal in list(report, "/rehearsals") {
        rehearsal_text(&mut out, rehearsal);
    }
    let state = word(report, "/verdict/state").to_uppercase();
    let _ = write!(out, "{state}");
    for reason in list(report, "/verdict/reasons") {
        let _ = write!(out, "\n  {}", reason.as_str().unwrap_or_default());
    }
    out
}

fn list<'a>(report: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    report.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn margin_text(out: &mut String, report: &Value) {
    let during = report.pointer("/margin/may_fail_during").and_then(Value::as_i64);
    let _ = writeln!(
        out,
        "  quorum {} of {} voters; {} may fail before, {} during the drill",
        number(report, "/margin/quorum"),
        number(report, "/margin/voters"),
        number(report, "/margin/may_fail_before"),
        during.unwrap_or_default(),
    );
}

fn phases_text(out: &mut String, report: &Value) {
    let phases: Vec<&Value> = list(report, "/phases").collect();
    if phases.is_empty() {
        let _ = writeln!(out, "  the leader stayed in office");
        return;
    }
    let _ = writeln!(out, "  ms after the fault");
    for phase in phases {
        let member = phase.get("member").and_then(Value::as_u64);
        let member = member.map_or_else(String::new, |member| format!("  member {member}"));
        let ms = phase.get("ms").and_then(Value::as_f64).unwrap_or_default();
        let _ = writeln!(out, "    {:<16}{ms:>9.1}{member}", word(phase, "/name"));
    }
}

fn traffic_text(out: &mut String, report: &Value) {
    let (fault, healed) = (number(report, "/times/fault_ms"), number(report, "/times/healed_ms"));
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let whole = match report.pointer("/times/whole_ms").and_then(Value::as_u64) {
        Some(whole) => format!("in step {:.1} s later", seconds(whole.saturating_sub(healed))),
        None => "never in step again".to_owned(),
    };
    let lasted = seconds(healed.saturating_sub(fault));
    let _ = writeln!(out, "  over after {lasted:.1} s, {whole}");
    let _ = writeln!(
        out,
        "  writes      {:>6} acknowledged, {} not done, {} unknown; longest gap {} ms (limit {})",
        number(report, "/writes/acknowledged"),
        number(report, "/writes/not_done"),
        number(report, "/writes/unknown"),
        number(report, "/writes/gap_ms"),
        number(report, "/writes/limit_ms"),
    );
    let _ = writeln!(
        out,
        "  reads       {:>6} answered, {} failed, {} stale; longest gap {} ms (limit {})",
        number(report, "/reads/answered"),
        number(report, "/reads/failed"),
        number(report, "/reads/stale"),
        number(report, "/reads/gap_ms"),
        number(report, "/reads/limit_ms"),
    );
    if let Some(gap) = report.pointer("/dispatches/gap_ms").and_then(Value::as_u64) {
        let _ = writeln!(
            out,
            "  dispatches  {:>6} arrived, {} repeated; longest gap {gap} ms (limit {})",
            number(report, "/dispatches/arrived"),
            number(report, "/dispatches/repeated"),
            number(report, "/dispatches/limit_ms"),
        );
    }
    let _ = writeln!(
        out,
        "  lost {}, doubled {}, not done in the end {}",
        number(report, "/lost/count"),
        number(report, "/doubled/count"),
        number(report, "/undone/count"),
    );
}

fn rehearsal_text(out: &mut String, rehearsal: &Value) {
    let member = number(rehearsal, "/member");
    if let Some(error) = rehearsal.get("error").and_then(Value::as_str) {
        let _ = writeln!(out, "  member {member}: {error}");
        return;
    }
    let compared = match rehearsal.get("matches").and_then(Value::as_bool) {
        Some(true) => "the same as its own state",
        Some(false) => "NOT its own state",
        None => "checked against the backup's own digest",
    };
    let _ = writeln!(
        out,
        "  member {member}: backup of index {}, {} rows, {} bytes, made in {} ms, restored in {} \
         ms, digest {}: {compared}",
        number(rehearsal, "/index"),
        number(rehearsal, "/rows"),
        number(rehearsal, "/bytes"),
        number(rehearsal, "/backup_ms"),
        number(rehearsal, "/restore_ms"),
        word(rehearsal, "/digest"),
    );
}

/// A report as a drill makes one, for tests of what is made of it.
#[cfg(test)]
pub(super) fn sample() -> Value {
    json!({
        "format": 1, "drill_id": 7, "kind": "failover", "target": "member 2 (m<2>)",
        "method": "silence", "leader": 2, "term": 7, "started_by": "ops",
        "margin": { "voters": 3, "quorum": 2, "may_fail_before": 1, "may_fail_during": 0 },
        "steps": ["probe", "silence it", "heal", "look"],
        "times": { "fault_ms": 300, "healed_ms": 900, "whole_ms": 950, "end_ms": 1200 },
        "phases": [
            { "name": "detected", "ms": 170.5, "member": 3 },
            { "name": "elected", "ms": 330.0, "member": 3 },
            { "name": "first write", "ms": 352.0, "member": null },
        ],
        "reigns": [],
        "writes": { "acknowledged": 40, "not_done": 1, "unknown": 0, "gap_ms": 380, "limit_ms": 5000 },
        "reads": {
            "answered": 90, "failed": 2, "stale": 0, "gap_ms": 320, "limit_ms": 5000,
            "members": [{ "member": 1, "answered": 45, "failed": 0, "gap_ms": 320 }],
        },
        "dispatches": { "arrived": 40, "repeated": 1, "gap_ms": 400, "limit_ms": 5000 },
        "lost": { "count": 0, "ids": [] },
        "undone": { "count": 0, "ids": [] },
        "doubled": { "count": 0, "ids": [] },
        "rehearsals": [],
        "timeline": {
            "bucket_ms": 100,
            "writes": [2, 2, 2, 0, 0, 0, 1, 6, 2, 2, 2, 2, 2],
            "writes_failed": [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
            "reads": [6, 6, 6, 0, 0, 0, 4, 9, 6, 6, 6, 6, 6],
            "reads_failed": [0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            "dispatches": [2, 2, 2, 0, 0, 0, 0, 7, 2, 2, 2, 2, 2],
        },
        "verdict": { "state": "passed", "reasons": [] },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_the_verdict_last() {
        let said = text(&sample());
        assert!(said.starts_with("drill 7: failover of member 2 (m<2>) by silence\n"), "{said}");
        assert!(said.contains("    detected            170.5  member 3\n"), "{said}");
        assert!(said.contains("longest gap 380 ms (limit 5000)"), "{said}");
        assert!(said.ends_with("PASSED"), "{said}");
        let mut failed = sample();
        failed["verdict"] =
            json!({ "state": "failed", "reasons": ["1 acknowledged writes are lost"] });
        assert!(text(&failed).ends_with("FAILED\n  1 acknowledged writes are lost"));
    }
}
