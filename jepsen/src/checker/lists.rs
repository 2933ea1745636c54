//! Transactions that append to and read lists: strict serializability by `adya`, and an own, far
//! simpler check of what every honest list shows.

use std::collections::{BTreeMap, BTreeSet};

use adya::{Opts, Valid, Workload};
use serde_json::{Value, json};

use super::{Findings, Validity, Verdict};
use crate::history::{Call, History, Kind, Op, Process};

/// Anomalies are explained up to here.
const EXPLAINED_MAX: usize = 10;

/// Checks the transactions of `workload`.
#[must_use]
pub fn check(workload: &str, history: &History) -> Vec<Verdict> {
    let calls = history.calls(workload);
    let calls: Vec<Call<'_>> = calls.into_iter().filter(|call| call.invoke.f == "txn").collect();
    vec![serializable(workload, history, calls.len()), lists(workload, &calls)]
}

/// What `adya` says.
fn serializable(workload: &str, history: &History, calls: usize) -> Verdict {
    let property = "strict serializable";
    let is_client = |op: &&Op| matches!(op.process, Process::Client(_)) && op.f == "txn";
    let lines: Vec<String> = history
        .of(workload)
        .filter(is_client)
        .filter_map(|op| serde_json::to_string(op).ok())
        .collect();
    let read = match adya::History::from_json(&lines.join("\n")) {
        Ok(read) => read,
        Err(error) => {
            let text = format!("adya cannot read the history: {error}");
            return Verdict::new(workload, property, Validity::Unknown, text);
        }
    };
    let report = adya::check(&read, Workload::ListAppend, &Opts::default());
    let mut findings = Findings::default();
    for anomaly in report.anomalies.values().flatten().take(EXPLAINED_MAX) {
        findings.add(format!("{}: {}", anomaly.kind, anomaly.explanation), &anomaly.ops);
    }
    let looked_at = format!("{calls} transactions");
    let figures = json!({"transactions": calls, "anomalies": report.anomaly_types});
    let verdict = match report.valid {
        Valid::True => Verdict::new(workload, property, Validity::Valid, looked_at),
        Valid::False => Verdict::of(workload, property, looked_at, findings),
        Valid::Unknown => Verdict::new(workload, property, Validity::Unknown, looked_at),
    };
    verdict.figures(figures).unless_too_little(calls > 0, "no transaction")
}

/// What is known of one list.
#[derive(Default)]
struct Seen {
    /// The longest version that was read, and the line it stands in.
    longest: (Vec<i64>, u64),
    /// Everything somebody tried to append.
    tried: BTreeSet<i64>,
    /// From when on everybody must see a value, in ns: its append, or a read of it, had returned.
    known_from: BTreeMap<i64, u64>,
    /// What was certainly not.
    failed: BTreeMap<i64, u64>,
}

/// Every version of a list is a prefix of every longer one, holds nothing twice, nothing that
/// nobody or only a failed transaction appended, and everything that was acknowledged or seen before.
fn lists(workload: &str, calls: &[Call<'_>]) -> Verdict {
    let mut keys: BTreeMap<&str, Seen> = BTreeMap::new();
    for call in calls {
        for (word, key, value) in micro_ops(&call.invoke.value) {
            if let ("append", Some(value)) = (word, value.as_i64()) {
                let seen = keys.entry(key).or_default();
                seen.tried.insert(value);
                if call.is_ok() {
                    seen.know(value, call.end_ns());
                }
                if call.kind() == Kind::Fail {
                    seen.failed.insert(value, call.invoke.index);
                }
            }
        }
    }
    let mut findings = Findings::default();
    let mut ok: Vec<&Call<'_>> = calls.iter().filter(|call| call.is_ok()).collect();
    ok.sort_by_key(|call| call.end_ns());
    let mut reads = 0;
    for call in ok {
        for (word, key, value) in micro_ops(call.result()) {
            let Some(version) = version(value) else { continue };
            if word == "r" {
                reads += 1;
                keys.entry(key).or_default().look(key, version, call, &mut findings);
            }
        }
    }
    let looked_at = format!("{} lists, {reads} reads", keys.len());
    Verdict::of(workload, "lists only grow", looked_at, findings)
        .unless_too_little(reads > 0, "no read")
}

impl Seen {
    fn know(&mut self, value: i64, from: u64) {
        let known = self.known_from.entry(value).or_insert(from);
        *known = from.min(*known);
    }

    fn look(&mut self, key: &str, version: Vec<i64>, call: &Call<'_>, findings: &mut Findings) {
        let line = call.invoke.index;
        for (value, from) in &self.known_from {
            if *from < call.invoke.time && !version.contains(value) {
                findings.add(format!("{key}: {value} was known before and is not seen"), &[line]);
            }
        }
        for value in &version {
            self.know(*value, call.end_ns());
        }
        let mut once = BTreeSet::new();
        for value in &version {
            if !once.insert(value) {
                findings.add(format!("{key}: {value} stands there twice"), &[line]);
            }
            if let Some(failed) = self.failed.get(value) {
                let text = format!("{key}: {value} is there, yet its transaction failed");
                findings.add(text, &[line, *failed]);
            } else if !self.tried.contains(value) {
                findings.add(format!("{key}: {value} was appended by nobody"), &[line]);
            }
        }
        let (longest, longest_line) = &self.longest;
        let (short, long) =
            if version.len() <= longest.len() { (&version, longest) } else { (longest, &version) };
        if !long.starts_with(short) {
            let text = format!("{key}: {version:?} and {longest:?} are not of one list");
            findings.add(text, &[line, *longest_line]);
        }
        if version.len() > longest.len() {
            self.longest = (version, line);
        }
    }
}

fn micro_ops(value: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let ops = value.as_array().map(Vec::as_slice).unwrap_or_default();
    ops.iter().filter_map(|op| Some((op[0].as_str()?, op[1].as_str()?, op.get(2)?)))
}

/// A list as it was read; null is the empty one.
fn version(value: &Value) -> Option<Vec<i64>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(list) => list.iter().map(Value::as_i64).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Note, Recorder};

    /// Transactions one after the other: `(how they ended, asked, answered)`.
    fn verdicts(txns: &[(Kind, Value, Value)]) -> (Validity, Validity, Vec<String>) {
        let recorder = Recorder::in_memory();
        for (kind, asked, answered) in txns {
            let process = recorder.process();
            recorder.invoke(process, Note::new("append", "txn").value(asked.clone()));
            recorder.end(process, *kind, Note::new("append", "txn").value(answered.clone()));
        }
        let verdicts = check("append", &recorder.finish().unwrap());
        let findings = verdicts.iter().flat_map(|verdict| verdict.findings.clone()).collect();
        (verdicts[0].validity, verdicts[1].validity, findings)
    }

    fn append(key: &str, value: i64) -> (Kind, Value, Value) {
        let txn = json!([["append", key, value]]);
        (Kind::Ok, txn.clone(), txn)
    }

    fn read(key: &str, list: &Value) -> (Kind, Value, Value) {
        (Kind::Ok, json!([["r", key, null]]), json!([["r", key, list]]))
    }

    #[test]
    fn an_honest_history_is_valid() {
        let txns = [append("a", 1), append("a", 2), read("a", &json!([1, 2]))];
        assert_eq!(verdicts(&txns), (Validity::Valid, Validity::Valid, vec![]));
    }

    #[test]
    fn a_lost_append_is_found_by_both() {
        let txns = [append("a", 1), append("a", 2), read("a", &json!([1]))];
        let (first, second, findings) = verdicts(&txns);
        assert_eq!((first, second), (Validity::Invalid, Validity::Invalid), "{findings:?}");
        assert!(findings.iter().any(|text| text.contains("2 was known before")), "{findings:?}");
    }

    #[test]
    fn a_failed_append_that_shows_is_found_by_both() {
        let failed = (Kind::Fail, json!([["append", "a", 9]]), json!([["append", "a", 9]]));
        let (first, second, _) = verdicts(&[failed, read("a", &json!([9]))]);
        assert_eq!((first, second), (Validity::Invalid, Validity::Invalid));
    }

    #[test]
    fn an_append_of_unknown_outcome_may_show_or_not() {
        let unknown = (Kind::Info, json!([["append", "a", 9]]), json!([["append", "a", 9]]));
        for list in [json!([9]), json!(null)] {
            let (first, second, findings) = verdicts(&[unknown.clone(), read("a", &list)]);
            assert_eq!((first, second), (Validity::Valid, Validity::Valid), "{findings:?}");
        }
    }

    #[test]
    fn lists_that_disagree_twice_and_foreign_values_are_found() {
        for (list, part) in [
            (json!([2, 1]), "not of one list"),
            (json!([1, 2, 2]), "twice"),
            (json!([1, 2, 7]), "by nobody"),
        ] {
            let txns =
                [append("a", 1), append("a", 2), read("a", &json!([1, 2])), read("a", &list)];
            let (_, second, findings) = verdicts(&txns);
            assert_eq!(second, Validity::Invalid);
            assert!(findings.iter().any(|text| text.contains(part)), "{part}: {findings:?}");
        }
    }

    #[test]
    fn write_skew_is_found_by_adya() {
        let recorder = Recorder::in_memory();
        let txn = |list: Value, key: &str| {
            json!([["r", "x", list], ["r", "y", list], ["append", key, 1]])
        };
        for (process, key) in [(0, "x"), (1, "y")] {
            recorder.invoke(process, Note::new("append", "txn").value(txn(json!(null), key)));
        }
        for (process, key) in [(0, "x"), (1, "y")] {
            let value = txn(json!([]), key);
            recorder.end(process, Kind::Ok, Note::new("append", "txn").value(value));
        }
        let verdicts = check("append", &recorder.finish().unwrap());
        assert_eq!(verdicts[0].validity, Validity::Invalid, "{verdicts:?}");
    }

    /// Transactions that are really carried out, one after the other: which list, and whether to
    /// append. With `wrong`, that many-th read loses the first element of what it saw.
    fn carried_out(steps: &[(u8, bool)], wrong: Option<usize>) -> Vec<(Kind, Value, Value)> {
        let mut lists: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut reads = 0;
        let mut txns = Vec::new();
        for (value, (list, is_append)) in steps.iter().enumerate() {
            let key = format!("a{list}");
            let held = lists.entry(key.clone()).or_default();
            if *is_append {
                held.push(value);
                txns.push(append(&key, value as i64));
                continue;
            }
            let mut seen = held.clone();
            if !seen.is_empty() {
                if wrong == Some(reads) {
                    seen.remove(0);
                }
                reads += 1;
            }
            txns.push(read(&key, &json!(seen)));
        }
        txns
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

        #[test]
        fn both_checks_agree_on_what_was_carried_out_and_on_a_read_that_lost_something(
            steps in proptest::collection::vec((0..3_u8, proptest::bool::ANY), 1..40),
            wrong in 0..6_usize,
        ) {
            // Of reads alone, adya says that it cannot tell.
            let steps: Vec<_> = [(0, true)].into_iter().chain(steps).collect();
            let honest = carried_out(&steps, None);
            let has_read = steps.iter().any(|(_, is_append)| !is_append);
            let (first, second, findings) = verdicts(&honest);
            proptest::prop_assert_eq!(first, Validity::Valid, "{:?}", &findings);
            let expected = if has_read { Validity::Valid } else { Validity::Unknown };
            proptest::prop_assert_eq!(second, expected, "{:?}", &findings);
            let mutated = carried_out(&steps, Some(wrong));
            if mutated != honest {
                let (first, second, findings) = verdicts(&mutated);
                proptest::prop_assert_eq!(first, Validity::Invalid, "{:?}", &findings);
                proptest::prop_assert_eq!(second, Validity::Invalid, "{:?}", &findings);
            }
        }
    }
}
