//! Whether a run looked hard enough: faults that were asked for took effect, and there was traffic.
//! A run that did not is unknown, never a pass.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Validity, Verdict};
use crate::history::History;

/// Ok operations of one function per second of the run, at least.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floor {
    /// Which function.
    pub f: &'static str,
    /// How many per second, on average from the first to the last operation.
    pub per_second: f64,
}

/// Whether `workload` had enough traffic.
#[must_use]
pub fn traffic(workload: &str, floors: &[Floor], history: &History) -> Verdict {
    let calls = history.calls(workload);
    let begin = calls.first().map_or(0, |call| call.invoke.time);
    let end = calls.last().map_or(0, |call| call.invoke.time);
    let seconds = (end.saturating_sub(begin) as f64 / 1e9).max(1.0);
    let mut counts: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    for call in &calls {
        let count = counts.entry(call.invoke.f.as_str()).or_default();
        let place = match call.kind() {
            crate::history::Kind::Ok => 0,
            crate::history::Kind::Fail => 1,
            crate::history::Kind::Info | crate::history::Kind::Invoke => 2,
        };
        count[place] += 1;
    }
    let mut short = Vec::new();
    for Floor { f, per_second } in floors {
        let ok = counts.get(f).map_or(0, |count| count[0]);
        if (ok as f64) < per_second * seconds {
            short.push(format!("{ok} ok {f} in {seconds:.0} s, wanted {per_second} per second"));
        }
    }
    let each = counts.iter().map(|(f, [ok, fail, info])| format!("{f} {ok}/{fail}/{info}"));
    let summary =
        format!("ok/fail/unknown in {seconds:.0} s: {}", each.collect::<Vec<_>>().join(", "));
    let validity = if short.is_empty() { Validity::Valid } else { Validity::Unknown };
    let mut verdict = Verdict::new(workload, "enough traffic", validity, summary);
    verdict.findings = short;
    verdict.figures(json!({"seconds": seconds, "calls": counts}))
}

/// Whether every fault that was planned took effect at least once.
#[must_use]
pub fn faults(history: &History) -> Verdict {
    let spans = history.faults();
    let planned = history.planned();
    let mut effect: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    for name in &planned {
        effect.entry(name).or_default();
    }
    for span in &spans {
        let count = effect.entry(span.name.as_str()).or_default();
        count[usize::from(!span.took_effect())] += 1;
    }
    let mut idle = Vec::new();
    for name in &planned {
        if effect.get(name.as_str()).is_none_or(|count| count[0] == 0) {
            let why = spans.iter().filter(|span| span.name == *name);
            let why = why.filter_map(|span| span.no_effect.clone()).next_back();
            let why = why.unwrap_or_else(|| "it was never applied".to_owned());
            idle.push(format!("{name} took no effect: {why}"));
        }
    }
    let each = effect.iter().map(|(name, [took, not])| match not {
        0 => format!("{name} x{took}"),
        _ => format!("{name} x{took}, {not} without effect"),
    });
    let each: Vec<String> = each.collect();
    let summary =
        if each.is_empty() { "no fault was asked for".to_owned() } else { each.join("; ") };
    let validity = if idle.is_empty() { Validity::Valid } else { Validity::Unknown };
    let mut verdict = Verdict::new("run", "faults took effect", validity, summary);
    verdict.findings = idle;
    verdict.figures(json!(effect))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Kind, Note, Recorder};

    #[test]
    fn a_planned_fault_without_effect_makes_the_run_unknown() {
        let recorder = Recorder::in_memory();
        recorder.plan(&["kill", "pause"]);
        let kill = recorder.fault("kill", &[1]);
        kill.active("gone");
        kill.healed();
        assert_eq!(faults(&recorder.finish().unwrap()).validity, Validity::Unknown);
        let pause = recorder.fault("pause", &[1]);
        pause.no_effect("the process was gone");
        pause.healed();
        let verdict = faults(&recorder.finish().unwrap());
        assert_eq!(verdict.validity, Validity::Unknown);
        assert_eq!(verdict.findings, ["pause took no effect: the process was gone"]);
        let pause = recorder.fault("pause", &[1]);
        pause.active("state T");
        pause.healed();
        assert_eq!(faults(&recorder.finish().unwrap()).validity, Validity::Valid);
    }

    #[test]
    fn too_little_traffic_makes_the_run_unknown() {
        let recorder = Recorder::in_memory();
        let floors = [Floor { f: "read", per_second: 1.0 }, Floor { f: "cas", per_second: 1.0 }];
        for f in ["read", "cas"] {
            let verdict = traffic("register", &floors, &recorder.finish().unwrap());
            assert_eq!(verdict.validity, Validity::Unknown);
            recorder.invoke(0, Note::new("register", f));
            recorder.end(0, Kind::Ok, Note::new("register", f));
        }
        let verdict = traffic("register", &floors, &recorder.finish().unwrap());
        assert_eq!(verdict.validity, Validity::Valid, "{verdict:?}");
    }
}
