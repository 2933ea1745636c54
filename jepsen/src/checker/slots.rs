//! What must hold of the ledger of a schedule: each nominal time stands in it once, none is left out,
//! its decision is the same for whoever reads it whenever, and every run that it names has ended.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Findings, Verdict};
use crate::history::{Call, History, Op};

const NAME: &str = "slots";
/// The interval of the timetable.
pub const INTERVAL_MS: i64 = 1000;

/// All checks of the ledger.
#[must_use]
pub fn check(history: &History) -> Vec<Verdict> {
    vec![decisions(history), runs(history)]
}

/// A time as the API writes it, in milliseconds since 1970.
#[must_use]
pub fn millis(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut clock = clock.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let seconds = clock.next()?? * 3600 + clock.next()?? * 60 + clock.next()??;
    // Years begin in March here, so that a leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 719_469;
    let fraction: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some((days * 86_400 + seconds) * 1000 + fraction)
}

/// The slots in one answer: nominal time, and what is said of it.
fn slots(value: &Value) -> impl Iterator<Item = (Option<i64>, &Value)> {
    let slots = value["slots"].as_array().into_iter().flatten();
    slots.map(|slot| (slot["slot"].as_str().and_then(millis), slot))
}

/// Looks through every answer in turn: what was said of a slot first is said of it ever after.
fn decisions(history: &History) -> Verdict {
    let mut findings = Findings::default();
    let mut first: BTreeMap<i64, (&Value, u64)> = BTreeMap::new();
    let calls = history.calls(NAME);
    let reads: Vec<&Call<'_>> =
        calls.iter().filter(|call| call.invoke.f == "read" && call.is_ok()).collect();
    let finals: Vec<&Op> = history.observed(NAME, "final").collect();
    let ends = reads.iter().filter_map(|call| call.end);
    for op in ends.chain(finals.iter().copied()) {
        for (nominal, slot) in slots(&op.value) {
            let Some(nominal) = nominal else {
                findings.add(format!("a slot without a time: {slot}"), &[op.index]);
                continue;
            };
            let (known, line) = *first.entry(nominal).or_insert((slot, op.index));
            if known != slot {
                findings.add(format!("{known} was decided again: {slot}"), &[line, op.index]);
            }
        }
    }
    for op in &finals {
        whole(op, &first, &mut findings);
    }
    go_on(&reads, &mut findings);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (slot, _) in first.values() {
        *counts.entry(slot["decision"].as_str().unwrap_or_default()).or_default() += 1;
    }
    let looked_at = format!(
        "{} slots {counts:?}, {} reads, {} members in the end",
        first.len(),
        reads.len(),
        finals.len()
    );
    let ran = counts.get("ran").copied().unwrap_or(0);
    Verdict::of(NAME, "every slot is decided once", looked_at, findings)
        .unless_too_little(ran > 0 && !finals.is_empty(), "nothing ran, or nothing was read")
        .figures(json!({"slots": first.len(), "decisions": counts, "reads": reads.len()}))
}

/// In the end a ledger holds every slot between its first and its last one, and all that anybody saw.
fn whole(op: &Op, first: &BTreeMap<i64, (&Value, u64)>, findings: &mut Findings) {
    let mut nominals: Vec<i64> = slots(&op.value).filter_map(|(nominal, _)| nominal).collect();
    nominals.sort_unstable();
    for pair in nominals.windows(2).filter(|pair| pair[1] - pair[0] != INTERVAL_MS) {
        let text = format!("between {} and {} slots are left out, or doubled", pair[0], pair[1]);
        findings.add(text, &[op.index]);
    }
    for (nominal, (slot, line)) in first {
        if nominals.binary_search(nominal).is_err() {
            findings.add(format!("{slot} is not there any more"), &[*line, op.index]);
        }
    }
}

/// No read shows less than one that had ended before it began.
fn go_on(reads: &[&Call<'_>], findings: &mut Findings) {
    let newest = |call: &Call<'_>| slots(call.result()).filter_map(|(nominal, _)| nominal).max();
    let mut ends: Vec<(u64, &Call<'_>)> = reads.iter().map(|call| (call.end_ns(), *call)).collect();
    ends.sort_by_key(|(end, _)| *end);
    let mut ended = ends.into_iter().peekable();
    let mut least: Option<(i64, u64)> = None;
    for call in reads {
        while let Some((_, before)) = ended.next_if(|(end, _)| *end < call.invoke.time) {
            least = least.max(newest(before).map(|nominal| (nominal, before.invoke.index)));
        }
        if let Some((nominal, line)) = least
            && newest(call) < Some(nominal)
        {
            let text = format!("a read ended at {:?}, after one at {nominal}", newest(call));
            findings.add(text, &[line, call.invoke.index]);
        }
    }
}

/// Every run has ended, none stands for two slots or two requests, and what a slot or a client was told
/// of is there.
fn runs(history: &History) -> Verdict {
    let mut findings = Findings::default();
    let (mut ended, mut asked) = (0, 0);
    let calls = history.calls(NAME);
    let mut begun: BTreeMap<&str, u64> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.invoke.f == "run" && call.is_ok()) {
        asked += 1;
        let run_id = call.result().as_str().unwrap_or_default();
        if let Some(line) = begun.insert(run_id, call.invoke.index) {
            findings.add(format!("run {run_id} ends two requests"), &[line, call.invoke.index]);
        }
    }
    for op in history.observed(NAME, "final") {
        let all = op.value["runs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let id = |run: &Value| run["id"].as_str().unwrap_or_default().to_owned();
        let open: Vec<String> = all.iter().filter(|run| run["ended"] != true).map(id).collect();
        if !open.is_empty() {
            findings.add(format!("runs are open in the end: {open:?}"), &[op.index]);
        }
        let known: BTreeSet<String> = all.iter().map(id).collect();
        ended = ended.max(known.len());
        let mut named = BTreeSet::new();
        for (_, slot) in slots(&op.value) {
            let Some(run_id) = slot["run_id"].as_str() else { continue };
            if !named.insert(run_id) || begun.contains_key(run_id) {
                findings.add(format!("run {run_id} stands for more than {slot}"), &[op.index]);
            }
            // The oldest are forgotten.
            if !known.contains(run_id) && op.value["runs_whole"] == true {
                findings.add(format!("{slot} names a run that is not there"), &[op.index]);
            }
        }
        for (run_id, line) in &begun {
            if !known.contains(*run_id) && op.value["runs_whole"] == true {
                findings.add(format!("run {run_id} was acknowledged and lost"), &[*line, op.index]);
            }
        }
    }
    let looked_at = format!("{ended} runs ended, {asked} of them asked for by clients");
    Verdict::of(NAME, "every run ends and stands for one thing", looked_at, findings)
        .unless_too_little(ended > 0 && asked > 0, "no run was seen")
        .figures(json!({"runs": ended, "asked": asked}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Validity;
    use crate::history::{Kind, Note, Recorder};

    fn slot(second: u32, decision: &str, run_id: Option<&str>) -> Value {
        let at = format!("2026-11-28T20:00:{second:02}.500Z");
        json!({"slot": at, "decision": decision, "run_id": run_id})
    }

    fn read(recorder: &Recorder, slots: &[Value]) {
        let process = recorder.process();
        recorder.invoke(process, Note::new(NAME, "read"));
        recorder.end(process, Kind::Ok, Note::new(NAME, "read").value(json!({"slots": slots})));
    }

    fn asked(recorder: &Recorder, run_id: &str) {
        let process = recorder.process();
        recorder.invoke(process, Note::new(NAME, "run"));
        recorder.end(process, Kind::Ok, Note::new(NAME, "run").value(run_id));
    }

    fn end(recorder: &Recorder, slots: &[Value], runs: &[(&str, bool)]) {
        let run = |(id, ended): &(&str, bool)| json!({"id": id, "ended": ended});
        let runs: Vec<Value> = runs.iter().map(run).collect();
        let value = json!({"slots": slots, "runs": runs, "runs_whole": true});
        recorder.observe("reader", Note::new(NAME, "final").value(value));
    }

    fn judged(act: impl FnOnce(&Recorder)) -> (Validity, Validity) {
        let recorder = Recorder::in_memory();
        act(&recorder);
        let verdicts = check(&recorder.finish().unwrap());
        (verdicts[0].validity, verdicts[1].validity)
    }

    #[test]
    fn times_are_read() {
        assert_eq!(millis("1970-01-01T00:00:00.000Z"), Some(0));
        assert_eq!(millis("2024-02-29T23:59:59.250Z"), Some(1_709_251_199_250));
        assert_eq!(millis("2026-11-28T20:00:00Z"), Some(1_795_896_000_000));
        assert!(millis("soon").is_none() && millis("2026-11-28").is_none());
    }

    #[test]
    fn slots_decided_twice_left_out_or_gone_are_found() {
        let good = [slot(1, "ran", Some("1")), slot(2, "missed_outage", None)];
        let runs = [("1", true), ("2", true)];
        let whole = judged(|recorder| {
            read(recorder, &good[..1]);
            read(recorder, &good);
            asked(recorder, "2");
            end(recorder, &good, &runs);
        });
        assert_eq!(whole, (Validity::Valid, Validity::Valid));
        let again = [good[0].clone(), slot(2, "caught_up", Some("3"))];
        let found = |first: &[Value], second: &[Value], last: &[Value]| {
            judged(|recorder| {
                read(recorder, first);
                read(recorder, second);
                end(recorder, last, &runs);
            })
            .0
        };
        assert_eq!(found(&good, &again, &again), Validity::Invalid, "decided again");
        let gap = [good[0].clone(), slot(3, "ran", Some("2"))];
        assert_eq!(found(&good[..1], &gap, &gap), Validity::Invalid, "left out");
        assert_eq!(found(&good, &good[..1], &good), Validity::Invalid, "a read goes back");
        assert_eq!(found(&good, &good, &good[..1]), Validity::Invalid, "gone in the end");
        assert_eq!(judged(|recorder| end(recorder, &[], &[])).0, Validity::Unknown);
    }

    #[test]
    fn runs_that_stay_open_are_lost_or_stand_for_two_things_are_found() {
        let slots = [slot(1, "ran", Some("1")), slot(2, "ran", Some("2"))];
        let runs = [("1", true), ("2", true), ("3", true)];
        let found = |slots: &[Value], runs: &[(&str, bool)], asks: &[&str]| {
            judged(|recorder| {
                asks.iter().for_each(|run_id| asked(recorder, run_id));
                end(recorder, slots, runs);
            })
            .1
        };
        assert_eq!(found(&slots, &runs, &["3"]), Validity::Valid);
        let open = [("1", true), ("2", false), ("3", true)];
        assert_eq!(found(&slots, &open, &["3"]), Validity::Invalid, "one is open");
        let twice = [slot(1, "ran", Some("1")), slot(2, "ran", Some("1"))];
        assert_eq!(found(&twice, &runs, &["3"]), Validity::Invalid, "one for two slots");
        assert_eq!(found(&slots, &runs, &["3", "3"]), Validity::Invalid, "one for two requests");
        assert_eq!(found(&slots, &runs, &["2"]), Validity::Invalid, "a slot's and a client's");
        assert_eq!(found(&slots, &runs, &["9"]), Validity::Invalid, "acknowledged and lost");
        assert_eq!(found(&slots, &runs[..1], &["1"]), Validity::Invalid, "a slot's is lost");
    }
}
