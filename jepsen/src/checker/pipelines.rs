//! What must hold of tasks that are done in steps: what agents were asked to do and on what, what
//! they gave, and what clients were shown of it. Each run of a step gives a token of its own, which
//! names step and attempt, so that every result can be followed to where it came from.

mod reruns;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Findings, Verdict};
use crate::history::{History, Kind, Op, Process};

const NAME: &str = "pipelines";

/// A task as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// `sequential`, `parallel`, `hybrid` or `graph`.
    pub mode: String,
    /// For each step, the places of those it waits for and works on the results of.
    pub waits: Vec<Vec<usize>>,
    /// For each step, how its tries go. `refuses`: none is of any use; everything else goes well in
    /// the end.
    pub fates: Vec<String>,
}

impl Plan {
    /// How many steps of a hybrid task begin at once.
    #[must_use]
    pub fn first_stage(len: usize) -> usize {
        (len / 2).max(1)
    }

    fn refuses(&self, place: usize) -> bool {
        self.fates.get(place).is_none_or(|fate| fate == "refuses")
    }

    /// The status at the end, and the steps of which the output then has something.
    #[must_use]
    pub fn expected(&self) -> (&'static str, Vec<usize>) {
        let len = self.fates.len();
        let well = |range: std::ops::Range<usize>| range.filter(|place| !self.refuses(*place));
        let stage = match self.mode.as_str() {
            "parallel" => len,
            "hybrid" => Self::first_stage(len),
            _ => 0,
        };
        let first = stage == 0 || well(0..stage).next().is_some();
        if !first || well(stage..len).count() < len - stage {
            return ("failed", Vec::new());
        }
        match self.mode.as_str() {
            "sequential" => ("completed", vec![len - 1]),
            _ => ("completed", well(0..len).collect()),
        }
    }
}

/// Step and attempt of `task#step@attempt`, or of a token that begins so.
fn step_of(text: &str) -> Option<(&str, u64)> {
    let (step, attempt) = text.split('/').next()?.rsplit_once('@')?;
    Some((step, attempt.parse().ok()?))
}

/// Task and place of `task#step`.
fn place_of(step: &str) -> Option<(&str, usize)> {
    let (task, place) = step.rsplit_once('#')?;
    Some((task, place.parse().ok()?))
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(Value::as_str)
}

/// All checks of tasks in steps.
#[must_use]
pub fn check(history: &History) -> Vec<Verdict> {
    let asked = asked(history);
    vec![reruns::check(history), order(history, &asked), results(history), ends(history, &asked)]
}

/// The tasks that were sent, with what became of the call.
fn asked(history: &History) -> BTreeMap<String, (Plan, Kind)> {
    let calls = history.calls(NAME);
    let sent = calls.iter().filter(|call| call.invoke.f == "submit");
    sent.filter_map(|call| {
        let plan = Plan::deserialize(&call.invoke.value).ok()?;
        Some((call.invoke.key.clone()?, (plan, call.kind())))
    })
    .collect()
}

/// What agents and observers logged, in order.
fn logged(history: &History) -> impl Iterator<Item = &Op> {
    history.of(NAME).filter(|op| matches!(op.process, Process::Named(_)))
}

/// A step begins when those it waits for have ended, and works on what they gave.
fn order(history: &History, asked: &BTreeMap<String, (Plan, Kind)>) -> Verdict {
    let mut findings = Findings::default();
    let mut made: BTreeSet<&str> = BTreeSet::new();
    let mut refused: BTreeSet<&str> = BTreeSet::new();
    let (mut begun, mut later) = (0, 0);
    for op in logged(history) {
        let Some((step, _)) = op.key.as_deref().and_then(step_of) else { continue };
        match op.f.as_str() {
            "end" => {
                made.extend(op.value["token"].as_str());
                if op.value["failed"] == "refuses" {
                    refused.insert(step);
                }
            }
            "begin" => {
                begun += 1;
                let inputs: Vec<&str> = texts(&op.value["inputs"]).collect();
                let (task, place) = place_of(step).unwrap_or((step, usize::MAX));
                let Some((plan, _)) = asked.get(task).filter(|(plan, _)| place < plan.waits.len())
                else {
                    findings.add(format!("nobody asked for {step}"), &[op.index]);
                    continue;
                };
                later += usize::from(!plan.waits[place].is_empty());
                for what in wrong_inputs(task, plan, place, &inputs, &made, &refused) {
                    findings.add(format!("{step} began {what}"), &[op.index]);
                }
            }
            _ => {}
        }
    }
    let looked_at = format!("{begun} runs, {later} of which waited for others");
    Verdict::of(NAME, "a step begins after those it waits for", looked_at, findings)
        .unless_too_little(later > 0, "no step waited for another")
        .figures(json!({"runs": begun, "waited": later}))
}

/// What is wrong with the inputs of a step that begins now.
fn wrong_inputs(
    task: &str,
    plan: &Plan,
    place: usize,
    inputs: &[&str],
    made: &BTreeSet<&str>,
    refused: &BTreeSet<&str>,
) -> Vec<String> {
    let waits = &plan.waits[place];
    if waits.is_empty() {
        let right = inputs == [task];
        return if right { Vec::new() } else { vec![format!("with {inputs:?} of its own")] };
    }
    let mut wrong = Vec::new();
    let given = |on: usize| {
        let step = format!("{task}#{on}");
        inputs.iter().filter(move |token| step_of(token).is_some_and(|(of, _)| of == step)).count()
    };
    for on in waits {
        let wanted = usize::from(!plan.refuses(*on));
        if given(*on) != wanted {
            wrong.push(format!("with {} results of step {on}, not {wanted}", given(*on)));
        }
        if wanted == 0 && !refused.contains(format!("{task}#{on}").as_str()) {
            wrong.push(format!("before step {on} had ended"));
        }
    }
    let known: usize = waits.iter().map(|on| given(*on)).sum();
    if known != inputs.len() {
        wrong.push(format!("with {inputs:?}, and waits for {waits:?}"));
    }
    let made_up = inputs.iter().filter(|token| !made.contains(**token));
    wrong.extend(made_up.map(|token| format!("with {token}, which nobody had given yet")));
    wrong
}

/// Each step has one result, whoever is shown it and whenever: one that an agent gave.
fn results(history: &History) -> Verdict {
    let mut findings = Findings::default();
    let mut made: BTreeSet<&str> = BTreeSet::new();
    let mut result: BTreeMap<&str, (&str, u64)> = BTreeMap::new();
    let mut runs: BTreeMap<&str, usize> = BTreeMap::new();
    let mut shown = 0;
    let mut show = |token, line: u64, made: &BTreeSet<&str>, findings: &mut Findings| {
        let Some((step, _)) = step_of(token) else { return };
        shown += 1;
        if !made.contains(token) {
            findings.add(format!("{token} was shown, and nobody had given it"), &[line]);
        }
        let (first, at) = *result.entry(step).or_insert((token, line));
        if first != token {
            findings.add(format!("{step} has two results: {first} and {token}"), &[at, line]);
        }
    };
    for op in history.of(NAME) {
        match op.f.as_str() {
            "end" => {
                made.extend(op.value["token"].as_str());
                let step = op.key.as_deref().and_then(step_of).map(|(step, _)| step);
                *runs.entry(step.unwrap_or_default()).or_default() += 1;
            }
            "begin" => {
                texts(&op.value["inputs"]).for_each(|token| {
                    show(token, op.index, &made, &mut findings);
                });
            }
            "read" if op.kind == Kind::Ok => {
                texts(&op.value["tokens"]).for_each(|token| {
                    show(token, op.index, &made, &mut findings);
                });
            }
            "final" => {
                let tasks = op.value.as_object().into_iter().flat_map(|tasks| tasks.values());
                tasks.flat_map(|task| texts(&task["tokens"])).for_each(|token| {
                    show(token, op.index, &made, &mut findings);
                });
            }
            _ => {}
        }
    }
    for (step, attempt) in reruns::attempts_that_counted(history) {
        let token = result.get(step.as_str());
        if let Some((token, at)) =
            token.filter(|(token, _)| step_of(token) != Some((&step, attempt)))
        {
            let text = format!("{step} ended with attempt {attempt}, and shows {token}");
            findings.add(text, &[*at]);
        }
    }
    let several = runs.values().filter(|runs| **runs > 1).count();
    let looked_at = format!(
        "{} results shown {shown} times; {several} steps were worked on more than once",
        result.len()
    );
    Verdict::of(NAME, "each step has one result", looked_at, findings)
        .unless_too_little(shown > 0, "no result was shown")
        .figures(json!({"results": result.len(), "shown": shown, "worked_twice": several}))
}

/// Every task that was acknowledged has the end it must have, on every member.
fn ends(history: &History, asked: &BTreeMap<String, (Plan, Kind)>) -> Verdict {
    let mut findings = Findings::default();
    let finals: Vec<&Op> = history.observed(NAME, "final").collect();
    let (mut acked, mut unknown, mut failed) = (0, 0, 0);
    for (id, (plan, kind)) in asked {
        let (status, places) = plan.expected();
        acked += usize::from(*kind == Kind::Ok);
        unknown += usize::from(*kind == Kind::Info);
        failed += usize::from(*kind == Kind::Ok && status == "failed");
        for op in &finals {
            let (task, member) = (&op.value[id], op.node.unwrap_or(0));
            let is = task["status"].as_str().unwrap_or("not shown");
            let right = match kind {
                Kind::Ok => is == status,
                Kind::Fail => is == "gone",
                Kind::Info | Kind::Invoke => {
                    (is == status || is == "gone")
                        && task["status"] == finals[0].value[id]["status"]
                }
            };
            if !right {
                let text =
                    format!("{id} must be {status} ({kind:?}), on member {member} it is {is}");
                findings.add(text, &[op.index]);
            }
            let steps = texts(&task["tokens"]).filter_map(step_of).map(|(step, _)| step);
            let has: BTreeSet<String> = steps.map(str::to_owned).collect();
            let wanted: BTreeSet<String> =
                places.iter().map(|place| format!("{id}#{place}")).collect();
            if is == "completed" && has != wanted {
                let text = format!("{id} shows {has:?} on member {member}, not {wanted:?}");
                findings.add(text, &[op.index]);
            }
        }
    }
    let mut drained = false;
    for op in history.observed(NAME, "left") {
        drained = true;
        for id in texts(&op.value) {
            findings.add(format!("{id} has not ended"), &[op.index]);
        }
    }
    let looked_at = format!(
        "{acked} tasks acknowledged, {failed} of which had to fail, {unknown} unknown, on {} members",
        finals.len()
    );
    Verdict::of(NAME, "every task comes to its end", looked_at, findings)
        .unless_too_little(acked > 0 && drained && !finals.is_empty(), "nothing was asked or read")
        .figures(json!({"acknowledged": acked, "failed": failed, "unknown": unknown}))
}

#[cfg(test)]
mod tests;
