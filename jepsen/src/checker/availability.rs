//! Whether the cluster serves again soon after each fault is gone, and how long it did not.

use serde_json::json;

use super::{Findings, Verdict};
use crate::history::{Call, FaultSpan, History};

/// After healing the cluster takes a write within this time.
const BUDGET_NS: u64 = 5_000_000_000;

/// Functions that write, in any workload. Not those that wait for more than a write, or that are refused
/// for reasons of their own.
const WRITES: [&str; 10] = [
    "write",
    "cas",
    "txn",
    "submit",
    "put",
    "assign",
    "complete",
    "make",
    "activate",
    "deactivate",
];

/// Whether `call` was meant to change something.
fn is_write(call: &Call<'_>) -> bool {
    let op = call.invoke;
    WRITES.contains(&op.f.as_str())
        && (op.f != "txn" || op.value.to_string().contains("\"append\""))
}

/// Outages around one fault, in ms.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Outage {
    /// The fault's number.
    pub fault: u64,
    /// Its name.
    pub name: String,
    /// Longest time without an acknowledged write from its begin until 5 s after it was gone.
    pub longest_gap_ms: f64,
    /// Time from its end to the first write that was begun and acknowledged after it; none when
    /// another fault or the end of the run came first.
    pub first_write_ms: Option<f64>,
}

/// Outages around every fault.
#[must_use]
pub fn outages(history: &History) -> Vec<Outage> {
    let calls = history.all_calls();
    let ok = calls.iter().filter(|call| call.is_ok() && is_write(call));
    let mut writes: Vec<(u64, u64)> = ok.map(|call| (call.end_ns(), call.invoke.time)).collect();
    writes.sort_unstable();
    let faults = history.faults();
    faults.iter().map(|fault| outage(fault, &writes, history.end_ns())).collect()
}

/// `writes` are (returned, called), in order.
fn outage(fault: &FaultSpan, writes: &[(u64, u64)], run_end: u64) -> Outage {
    let healed = fault.healed_ns.unwrap_or(run_end);
    let until = healed.saturating_add(BUDGET_NS).min(run_end);
    let from = writes.partition_point(|write| write.0 < fault.begin_ns);
    let (mut last, mut longest) = (fault.begin_ns, 0);
    for (end, _) in &writes[from..] {
        if *end > until {
            break;
        }
        longest = longest.max(end - last);
        last = *end;
    }
    longest = longest.max(until.saturating_sub(last));
    let after = writes[writes.partition_point(|write| write.0 < healed)..].iter();
    let first = fault.healed_ns.and_then(|healed| {
        after.filter(|(_, call)| *call >= healed).map(|(end, _)| end - healed).min()
    });
    let ms = |ns: u64| ns as f64 / 1e6;
    Outage {
        fault: fault.id,
        name: fault.name.clone(),
        longest_gap_ms: ms(longest),
        first_write_ms: first.map(ms),
    }
}

/// Whether a write could have shown service in `[healed, until)`: one that was begun in it, or one that
/// waited over all of it. `tries` are (begun, over); one that was given up in it, or that was acknowledged
/// although it was begun before, says nothing.
fn was_tried(tries: &[(u64, u64)], healed: u64, until: u64) -> bool {
    let shows = |&(begun, over): &(u64, u64)| {
        begun < until && over >= healed && (begun >= healed || over >= until)
    };
    tries.iter().any(shows)
}

/// Whether each end of a fault, unless another fault came over it, was followed by a write soon. An end
/// behind which no write was tried shows nothing either way.
#[must_use]
pub fn check(history: &History) -> Verdict {
    let faults = history.faults();
    let outages = outages(history);
    let run_end = history.end_ns();
    let calls = history.all_calls();
    // The line that ends a call, also where nobody knows what became of it: nobody waits any more.
    let over = |call: &Call<'_>| call.end.map_or(u64::MAX, |end| end.time);
    let tries = calls.iter().filter(|call| is_write(call));
    let tries: Vec<(u64, u64)> = tries.map(|call| (call.invoke.time, over(call))).collect();
    let mut findings = Findings::default();
    let (mut judged, mut worst) = (0, 0.0_f64);
    for (fault, outage) in faults.iter().zip(&outages) {
        let Some(healed) = fault.healed_ns else { continue };
        let until = healed.saturating_add(BUDGET_NS);
        let disturbed = |other: &FaultSpan| {
            other.id != fault.id
                && other.begin_ns < until
                && other.healed_ns.is_none_or(|gone| gone > healed)
        };
        let in_time = outage.first_write_ms.is_some_and(|ms| ms * 1e6 <= BUDGET_NS as f64);
        let unseen = until > run_end || !was_tried(&tries, healed, until);
        if faults.iter().any(disturbed) || (!in_time && unseen) {
            continue;
        }
        judged += 1;
        worst = worst.max(outage.first_write_ms.unwrap_or(f64::INFINITY));
        if !in_time {
            let took =
                outage.first_write_ms.map_or_else(|| "none".to_owned(), |ms| format!("{ms:.0} ms"));
            findings.add(format!("first write after {} was gone: {took}", fault.name), &[]);
        }
    }
    let looked_at = match judged {
        0 => format!("{} faults, none that ended alone with a write tried behind it", faults.len()),
        _ => {
            format!("{judged} of {} faults judged, slowest first write {worst:.0} ms", faults.len())
        }
    };
    Verdict::of("run", "serves within 5 s of healing", looked_at, findings)
        .unless_too_little(
            faults.is_empty() || judged > 0,
            "no fault ended alone, with a write behind it",
        )
        .figures(json!({"judged": judged, "outages": outages}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Validity;
    use crate::history::{Kind, NEMESIS, Op, Process};

    const S: u64 = 1_000_000_000;

    fn line(time: u64, process: Process, kind: Kind, f: &str, value: serde_json::Value) -> Op {
        Op {
            index: time,
            time,
            process,
            kind,
            workload: "w".into(),
            f: f.into(),
            key: None,
            value,
            node: None,
            term: None,
            log: None,
            error: None,
        }
    }

    /// A fault from 10 s to 20 s, and writes that return at `writes`.
    fn history(writes: &[u64]) -> History {
        let tries: Vec<_> = writes.iter().map(|end| (end - 1, Some((*end, Kind::Ok)))).collect();
        tried(&tries)
    }

    /// A fault from 10 s to 20 s, and writes that begin and end so.
    fn tried(tries: &[(u64, Option<(u64, Kind)>)]) -> History {
        let nemesis = |time, phase: &str| {
            let value = json!({"fault": 0, "phase": phase, "members": [1]});
            line(time, Process::Named(NEMESIS.into()), Kind::Info, "kill", value)
        };
        let mut ops = vec![nemesis(10 * S, "begin"), nemesis(20 * S, "healed")];
        for (number, (begun, end)) in tries.iter().enumerate() {
            let process = Process::Client(number as u64);
            ops.push(line(*begun, process.clone(), Kind::Invoke, "write", json!(1)));
            if let Some((at, kind)) = end {
                ops.push(line(*at, process, *kind, "write", json!(1)));
            }
        }
        ops.push(line(60 * S, Process::Client(99), Kind::Invoke, "read", json!(null)));
        ops.sort_by_key(|op| op.time);
        History { ops }
    }

    #[test]
    fn a_write_within_the_budget_is_good_and_a_later_one_is_not() {
        let verdict = check(&history(&[9 * S, 12 * S, 24 * S]));
        assert_eq!(verdict.validity, Validity::Valid, "{verdict:?}");
        let late =
            check(&tried(&[(9 * S, Some((10 * S, Kind::Ok))), (24 * S, Some((26 * S, Kind::Ok)))]));
        assert_eq!(late.validity, Validity::Invalid, "{late:?}");
    }

    /// With a workload that had nothing to write after the fault, a whole system was called down.
    #[test]
    fn an_outage_takes_a_write_that_was_tried() {
        let (ok, fail, info) = (Kind::Ok, Kind::Fail, Kind::Info);
        let cases = [
            ("nothing is tried", None, Validity::Unknown),
            ("begun after it, and refused", Some((21, Some((22, fail)))), Validity::Invalid),
            ("begun after it, and unknown", Some((21, Some((22, info)))), Validity::Invalid),
            ("begun before, never answered", Some((15, None)), Validity::Invalid),
            ("begun before, unknown later on", Some((15, Some((30, info)))), Validity::Invalid),
            ("begun before, given up soon after", Some((15, Some((22, info)))), Validity::Unknown),
            ("begun before, taken soon after", Some((15, Some((22, ok)))), Validity::Unknown),
            ("begun too late", Some((26, None)), Validity::Unknown),
        ];
        for (what, tries, wanted) in cases {
            let tries = tries.map(|(begun, end): (u64, Option<(u64, Kind)>)| {
                (begun * S, end.map(|(at, kind)| (at * S, kind)))
            });
            let before = (8 * S, Some((9 * S, ok)));
            let all: Vec<_> = [before].into_iter().chain(tries).collect();
            let verdict = check(&tried(&all));
            assert_eq!(verdict.validity, wanted, "{what}: {verdict:?}");
        }
    }

    #[test]
    fn the_longest_gap_counts_from_the_begin_of_the_fault() {
        let outage = &outages(&history(&[9 * S, 12 * S, 19 * S, 21 * S]))[0];
        assert_eq!((outage.longest_gap_ms, outage.first_write_ms), (7000.0, Some(1000.0)));
    }
}
