//! What must hold of campaigns with tight budgets: no answer ever shows one that is overspent, what is
//! gone in the end is what the jobs used that were tried, every job stands in its iteration, and once a
//! kill switch is acknowledged nothing is launched any more.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::streams::all_events;
use super::{Findings, Verdict};
use crate::history::{Call, History, Op};

const NAME: &str = "budgets";
/// Tokens that a job is promised.
pub const PROMISED: u64 = 3;
/// Attempts at a job, at most.
const TRIES_MAX: u64 = 21;
/// What lies between two sums of numbers with six places is none.
const EPSILON: f64 = 1e-6;

/// All checks of budgets.
#[must_use]
pub fn check(history: &History) -> Vec<Verdict> {
    let jobs = begun(history);
    vec![limits(history), bills(history, &jobs), records(history, &jobs), switches(history)]
}

/// A job that a worker began.
struct Begun<'a> {
    campaign: &'a str,
    /// Tokens that each attempt uses.
    used: u64,
    /// The newest attempt.
    attempt: u64,
    /// The line of the first one.
    line: u64,
}

/// What workers began, by job.
fn begun(history: &History) -> BTreeMap<&str, Begun<'_>> {
    let mut jobs: BTreeMap<&str, Begun<'_>> = BTreeMap::new();
    for op in history.observed(NAME, "begin") {
        let job = op.value["job"].as_str().unwrap_or_default();
        let campaign = op.key.as_deref().unwrap_or_default();
        let count = |field: &str| op.value[field].as_u64().unwrap_or(0);
        let (used, line) = (count("used"), op.index);
        let job = jobs.entry(job).or_insert(Begun { campaign, used, attempt: 0, line });
        job.attempt = job.attempt.max(count("attempt"));
    }
    jobs
}

/// The campaigns in the last answers of a member, by id.
fn campaigns(op: &Op) -> impl Iterator<Item = (&str, &Value)> {
    let all = op.value["campaigns"].as_object();
    all.into_iter().flatten().map(|(id, campaign)| (id.as_str(), campaign))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

/// In every answer, promised and gone together are within the limit.
fn limits(history: &History) -> Verdict {
    let mut findings = Findings::default();
    let (mut looked, mut full) = (0, 0);
    let mut look = |owner: &str, budgets: &Value, line: u64| {
        for (resource, budget) in budgets.as_object().into_iter().flatten() {
            let Some(limit) = budget["limit"].as_f64() else { continue };
            let used = number(&budget["reserved"]) + number(&budget["spent"]);
            looked += 1;
            full += usize::from(used + number(&json!(PROMISED)) > limit);
            if used > limit + EPSILON {
                findings.add(format!("{owner} has overspent {resource}: {budget}"), &[line]);
            }
        }
    };
    for call in history.calls(NAME).iter().filter(|call| call.invoke.f == "read") {
        if let Some(end) = call.end.filter(|_| call.is_ok()) {
            look(end.key.as_deref().unwrap_or_default(), &end.value["budgets"], end.index);
        }
    }
    for op in history.observed(NAME, "final") {
        campaigns(op).for_each(|(id, campaign)| look(id, &campaign["budgets"], op.index));
    }
    let looked_at = format!("{looked} budgets in answers, {full} of which held no job more");
    Verdict::of(NAME, "no budget is ever overspent", looked_at, findings)
        .unless_too_little(full > 0, "no budget was ever used up")
        .figures(json!({"looked_at": looked, "full": full}))
}

/// In the end nothing is promised, and what is gone is what jobs used; all members say the same.
fn bills(history: &History, jobs: &BTreeMap<&str, Begun<'_>>) -> Verdict {
    let mut findings = Findings::default();
    let finals: Vec<&Op> = history.observed(NAME, "final").collect();
    let (mut settled, mut exact) = (0, 0);
    for op in &finals {
        if op.value != finals[0].value {
            let text = format!("member {} shows other campaigns", op.node.unwrap_or(0));
            findings.add(text, &[finals[0].index, op.index]);
        }
    }
    for (id, campaign) in finals.first().into_iter().flat_map(|op| campaigns(op)) {
        let line = finals[0].index;
        let (mut least, mut tokens, mut open, mut again) = (0.0, 0.0, 0.0, 0.0);
        for row in campaign["jobs"].as_array().into_iter().flatten() {
            let (job, state) = (row[0].as_str().unwrap_or_default(), row[1].as_str());
            settled += 1;
            match (state, jobs.get(job)) {
                (Some("scored"), Some(begun)) => {
                    least += 1.0;
                    tokens += begun.used as f64;
                    // Attempts before the last one used what was promised, unless nobody had them.
                    again += begun.attempt.saturating_sub(1) as f64;
                }
                // It was tried more often than its worker began, where it was taken from somebody
                // who may have had it.
                (Some("failed"), _) => {
                    open += 1.0;
                    again += TRIES_MAX as f64;
                }
                (state, begun) => {
                    let known = begun.is_some();
                    let text = format!("{job} is {state:?}, its worker began it: {known}");
                    findings.add(text, &[line]);
                }
            }
        }
        exact += usize::from(open == 0.0 && again == 0.0);
        // One that failed used what it was promised if it was tried, and otherwise nothing.
        let bills = [("simulations", least, open), ("tokens", tokens, again * PROMISED as f64)];
        for (resource, least, more) in bills {
            let budget = &campaign["budgets"][resource];
            let (reserved, spent) = (number(&budget["reserved"]), number(&budget["spent"]));
            let fits = spent > least - EPSILON && spent < least + more + EPSILON;
            if reserved > 0.0 || !fits {
                let due = format!("{least} to {} of {resource} are due", least + more);
                findings.add(format!("{id}: {due}, and it says {budget}"), &[line]);
            }
        }
    }
    let looked_at = format!("{settled} jobs, {exact} campaigns without one that failed");
    Verdict::of(NAME, "what is gone is what jobs used", looked_at, findings)
        .unless_too_little(exact > 0 && settled > 0, "no campaign could be added up")
        .figures(json!({"jobs": settled, "campaigns": exact}))
}

/// Every job that was begun stands in an iteration, and what was acknowledged was launched or waits.
fn records(history: &History, jobs: &BTreeMap<&str, Begun<'_>>) -> Verdict {
    let mut findings = Findings::default();
    let mut acked: BTreeMap<&str, u64> = BTreeMap::new();
    for call in history.calls(NAME).iter().filter(|call| call.invoke.f == "step" && call.is_ok()) {
        let id = call.invoke.key.as_deref().unwrap_or_default();
        *acked.entry(id).or_default() += call.end.and_then(|end| end.value.as_u64()).unwrap_or(0);
    }
    let finals: Vec<&Op> = history.observed(NAME, "final").collect();
    for op in &finals {
        let mut known: BTreeSet<&str> = BTreeSet::new();
        for (id, campaign) in campaigns(op) {
            for row in campaign["jobs"].as_array().into_iter().flatten() {
                let job = row[0].as_str().unwrap_or_default();
                if !known.insert(job) {
                    findings.add(format!("{job} stands in two iterations"), &[op.index]);
                }
            }
            let count = |field: &str| campaign[field].as_u64().unwrap_or(0);
            let launched = count("iteration") + count("requested");
            let asked = acked.get(id).copied().unwrap_or(0);
            // One that has failed, as its jobs gave nothing, begins none of those that wait.
            let goes_on = campaign["tripped"] != true && campaign["status"] != "FAILED";
            if goes_on && launched < asked {
                let text =
                    format!("{id}: {asked} iterations were acknowledged, {launched} are there");
                findings.add(text, &[op.index]);
            }
        }
        for (job, begun) in jobs.iter().filter(|(job, _)| !known.contains(*job)) {
            let text = format!("{job} was begun, and {} does not know it", begun.campaign);
            findings.add(text, &[begun.line, op.index]);
        }
    }
    let steps: u64 = acked.values().sum();
    let looked_at = format!("{} jobs begun, {steps} iterations acknowledged", jobs.len());
    Verdict::of(NAME, "every launch is on record", looked_at, findings)
        .unless_too_little(
            !jobs.is_empty() && steps > 0 && !finals.is_empty(),
            "nothing was launched",
        )
        .figures(json!({"jobs": jobs.len(), "iterations": steps}))
}

/// Behind a kill switch that was acknowledged, no iteration begins.
fn switches(history: &History) -> Verdict {
    let mut findings = Findings::default();
    let calls = history.calls(NAME);
    let stops = calls.iter().filter(|call| call.invoke.f == "stop" && call.is_ok());
    let stops: Vec<(&str, &Call<'_>)> =
        stops.map(|call| (call.invoke.key.as_deref().unwrap_or_default(), call)).collect();
    let finals: Vec<&Op> = history.observed(NAME, "final").collect();
    let mut looked = 0;
    for (id, stop) in &stops {
        let line = stop.invoke.index;
        for campaign in finals.iter().filter_map(|op| op.value["campaigns"].get(*id)) {
            looked += 1;
            if campaign["tripped"] != true || campaign["status"] == "RUNNING" {
                findings.add(format!("{id} was stopped, and is {campaign}"), &[line]);
            }
            let ended = campaign["iteration"].as_u64();
            let later = calls.iter().filter(|call| {
                call.invoke.f == "read"
                    && call.is_ok()
                    && call.invoke.key.as_deref() == Some(id)
                    && call.invoke.time > stop.end_ns()
            });
            for read in later.filter(|read| read.result()["iteration"].as_u64() != ended) {
                let text = format!("{id} went on from {} to {ended:?}", read.result()["iteration"]);
                findings.add(text, &[line, read.invoke.index]);
            }
        }
    }
    let indexes: BTreeMap<&str, u64> =
        stops.iter().filter_map(|(id, stop)| Some((*id, stop.end?.log?))).rev().collect();
    for (at, data) in all_events(history) {
        let id = data["campaign_id"].as_str().unwrap_or_default();
        let stopped = indexes.get(id).filter(|_| data["type"] == "iteration_begun");
        if let Some(index) = stopped.filter(|index| at.0 > **index) {
            findings.add(format!("{id} was stopped at {index}, and at {at:?}: {data}"), &[]);
        }
    }
    let looked_at = format!("{} kill switches acknowledged", stops.len());
    Verdict::of(NAME, "a kill switch holds", looked_at, findings)
        .unless_too_little(looked > 0, "none was pulled, or nothing was read")
        .figures(json!({"switches": stops.len()}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Validity;
    use crate::history::{Kind, Note, Recorder};

    fn call(recorder: &Recorder, f: &str, value: Value) {
        let process = recorder.process();
        recorder.invoke(process, Note::new(NAME, f).key("c"));
        recorder.end(process, Kind::Ok, Note::new(NAME, f).key("c").value(value));
    }

    fn begin(recorder: &Recorder, job: &str, used: u64) {
        let value = json!({"job": job, "attempt": 1, "used": used});
        recorder.observe("worker", Note::new(NAME, "begin").key("c").value(value));
    }

    fn budget(limit: u64, reserved: u64, spent: u64) -> Value {
        json!({"limit": limit, "reserved": reserved, "spent": spent})
    }

    /// A campaign with two jobs of one iteration that used 1 and 2 tokens.
    fn campaign() -> Value {
        json!({"status": "PAUSED", "tripped": true, "iteration": 1, "requested": 0,
            "budgets": {"simulations": budget(2, 0, 2), "tokens": budget(6, 0, 3)},
            "jobs": [["j0", "scored"], ["j1", "scored"]]})
    }

    fn judged(campaign: &Value, more: impl FnOnce(&Recorder)) -> Vec<Validity> {
        let recorder = Recorder::in_memory();
        begin(&recorder, "j0", 1);
        begin(&recorder, "j1", 2);
        call(&recorder, "step", json!(1));
        call(&recorder, "stop", Value::Null);
        more(&recorder);
        let value = json!({"campaigns": {"c": campaign}});
        recorder.observe("reader", Note::new(NAME, "final").value(value));
        check(&recorder.finish().unwrap()).iter().map(|verdict| verdict.validity).collect()
    }

    fn read(recorder: &Recorder, iteration: u64, tokens: &Value) {
        let value = json!({"iteration": iteration, "budgets": {"tokens": tokens}});
        call(recorder, "read", value);
    }

    #[test]
    fn what_is_as_it_should_be_is_valid() {
        let verdicts = judged(&campaign(), |recorder| read(recorder, 1, &budget(6, 3, 3)));
        assert_eq!(verdicts, [Validity::Valid; 4]);
    }

    #[test]
    fn a_budget_beyond_its_limit_is_found_in_any_answer() {
        let verdicts = judged(&campaign(), |recorder| read(recorder, 1, &budget(6, 4, 3)));
        assert_eq!(verdicts[0], Validity::Invalid);
        let mut rich = campaign();
        rich["budgets"]["tokens"] = budget(2, 0, 3);
        assert_eq!(judged(&rich, |_| ())[0], Validity::Invalid);
    }

    #[test]
    fn bills_that_do_not_add_up_are_found() {
        for (field, wrong) in [("tokens", budget(6, 0, 4)), ("simulations", budget(2, 1, 2))] {
            let mut other = campaign();
            other["budgets"][field] = wrong;
            assert_eq!(judged(&other, |_| ())[1], Validity::Invalid, "{field}");
        }
        let mut failed = campaign();
        failed["jobs"][1][1] = json!("failed");
        let most = 1 + TRIES_MAX * PROMISED;
        failed["budgets"]["tokens"] = budget(99, 0, most);
        assert_eq!(judged(&failed, |_| ())[1], Validity::Unknown, "none is exact");
        failed["budgets"]["tokens"] = budget(99, 0, most + 1);
        assert_eq!(judged(&failed, |_| ())[1], Validity::Invalid, "more than it was promised");
    }

    #[test]
    fn launches_without_a_record_and_records_without_a_launch_are_found() {
        assert_eq!(judged(&campaign(), |recorder| begin(recorder, "j2", 1))[2], Validity::Invalid);
        let mut goes_on = campaign();
        goes_on["tripped"] = json!(false);
        let lost = judged(&goes_on, |recorder| call(recorder, "step", json!(1)));
        assert_eq!(lost[2], Validity::Invalid, "two iterations were acknowledged");
    }

    #[test]
    fn what_goes_on_behind_a_kill_switch_is_found() {
        let mut second = campaign();
        second["iteration"] = json!(2);
        let verdicts = judged(&second, |recorder| read(recorder, 1, &budget(6, 0, 3)));
        assert_eq!(verdicts[3], Validity::Invalid, "one iteration more than after the stop");
        let mut forgotten = campaign();
        forgotten["tripped"] = json!(false);
        assert_eq!(judged(&forgotten, |_| ())[3], Validity::Invalid);
    }
}
