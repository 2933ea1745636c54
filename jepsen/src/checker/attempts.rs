//! What must hold of jobs: their lives as the log tells them, what workers saw, what reports were
//! answered, and where everything stands in the end.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::streams::{EventId, all_events, covered};
use super::{Findings, Validity, Verdict};
use crate::history::{History, Kind};

const NAME: &str = "attempts";

/// All checks of jobs.
#[must_use]
pub fn check(history: &History) -> Vec<Verdict> {
    vec![lives(history), capacity(history), reports(history), ends(history), drained(history)]
}

/// A job as the events tell it.
#[derive(Debug, Clone, Default)]
struct Life {
    /// The live attempt, and the node that has it.
    live: Option<(u64, String)>,
    /// The newest attempt so far.
    last: u64,
    ended: bool,
}

/// What happens along the log, stretch by stretch: nothing is known at the begin of one.
fn along<'a>(
    history: &'a History,
    mut at_gap: impl FnMut(),
    mut each: impl FnMut(EventId, &'a Value, &'a str),
) {
    let stretches = covered(history);
    let mut now = None;
    for (id, data) in all_events(history) {
        let place = stretches.iter().position(|(after, last)| *after < id && id <= *last);
        if place != now {
            at_gap();
            now = place;
        }
        if let Some(task) = data["task_id"].as_str().filter(|id| id.starts_with("job-")) {
            each(id, data, task);
        }
    }
}

/// One live attempt at a time, numbered without a gap, and nothing after the end.
fn lives(history: &History) -> Verdict {
    // Shared by the two closures, which never run at once.
    let all: std::cell::RefCell<BTreeMap<&str, Life>> = std::cell::RefCell::default();
    let mut findings = Findings::default();
    let (mut attempts, mut tasks, mut stretches) = (0, BTreeSet::new(), 0_u64);
    along(
        history,
        || {
            all.borrow_mut().clear();
            stretches += 1;
        },
        |id, data, task| {
            tasks.insert(task);
            let mut all = all.borrow_mut();
            // The first event of a stretch tells where the job stands.
            let known = all.contains_key(task);
            let life = all.entry(task).or_default();
            let attempt = data["attempt"].as_u64().unwrap_or(0);
            attempts += usize::from(data["type"] == "task_assigned");
            if let Some(what) = live_on(life, data, attempt, known) {
                findings.add(format!("{task} at {}-{}: {what}", id.0, id.1), &[]);
            }
        },
    );
    let looked_at =
        format!("{} jobs, {attempts} attempts, {stretches} stretches of the log", tasks.len());
    Verdict::of(NAME, "one live attempt at a time", looked_at, findings)
        .unless_too_little(attempts > 0, "no attempt was placed")
        .figures(json!({"jobs": tasks.len(), "attempts": attempts}))
}

/// Takes one event into a life; gives what is wrong with it.
fn live_on(life: &mut Life, data: &Value, attempt: u64, known: bool) -> Option<String> {
    let was = life.clone();
    let live = was.live.as_ref().map(|(attempt, _)| *attempt);
    let kind = data["type"].as_str().unwrap_or_default();
    match kind {
        "task_assigned" => {
            let node = data["node_id"].as_str().unwrap_or_default().to_owned();
            life.live = Some((attempt, node));
            life.last = attempt;
        }
        "task_retried" | "task_queued" => life.live = None,
        "task_ended" => {
            life.live = None;
            life.ended = true;
        }
        _ => {}
    }
    if !known {
        life.last = life.last.max(attempt);
        return None;
    }
    let wrong = |what: String| Some(what);
    if was.ended {
        return wrong(format!("{kind} after its end"));
    }
    match kind {
        "task_submitted" => wrong("it was submitted twice".to_owned()),
        "task_assigned" if live.is_some() => {
            let (held, node) = was.live?;
            wrong(format!("attempt {attempt} was placed while {held} lives on {node}"))
        }
        "task_assigned" if attempt != was.last + 1 => {
            wrong(format!("attempt {attempt} follows attempt {}", was.last))
        }
        "task_started" | "task_retried" if live != Some(attempt) => {
            wrong(format!("{kind} of attempt {attempt} while {live:?} lives"))
        }
        "task_ended" if live.is_some_and(|live| live != attempt) => {
            wrong(format!("it ended with attempt {attempt} while {live:?} lives"))
        }
        _ => None,
    }
}

/// No node holds more than it declared: along the log, and as members show it.
fn capacity(history: &History) -> Verdict {
    let declared: BTreeMap<&str, u64> = history
        .observed(NAME, "node")
        .filter_map(|op| Some((op.value["node"].as_str()?, op.value["capacity"].as_u64()?)))
        .collect();
    let held: std::cell::RefCell<BTreeMap<&str, &str>> = std::cell::RefCell::default();
    let mut findings = Findings::default();
    let (mut placed, mut most) = (0, BTreeMap::<&str, u64>::new());
    along(
        history,
        || held.borrow_mut().clear(),
        |id, data, task| {
            let mut held = held.borrow_mut();
            match data["type"].as_str() {
                Some("task_assigned") => {
                    let node = data["node_id"].as_str().unwrap_or_default();
                    held.insert(task, node);
                    placed += 1;
                    let holds = held.values().filter(|holder| **holder == node).count() as u64;
                    let top = most.entry(node).or_default();
                    *top = holds.max(*top);
                    let Some(declared) = declared.get(node) else { return };
                    if holds > *declared {
                        let text = format!("{node} holds {holds} of {declared} at {}", id.0);
                        findings.add(text, &[]);
                    }
                }
                Some("task_retried" | "task_queued" | "task_ended") => {
                    held.remove(task);
                }
                _ => {}
            }
        },
    );
    let mut looks = 0;
    for op in history.observed(NAME, "nodes") {
        looks += 1;
        for (node, figures) in op.value.as_object().into_iter().flatten() {
            let declared = declared.get(node.as_str()).copied();
            if let (Some(running), Some(declared)) = (figures[0].as_u64(), declared)
                && running > declared
            {
                let member = op.node.unwrap_or(0);
                let text = format!("member {member} shows {running} on {node} of {declared}");
                findings.add(text, &[op.index]);
            }
        }
    }
    let busy = history.observed(NAME, "busy").count();
    let looked_at = format!(
        "{placed} placements on {} nodes, {looks} looks, fullest {most:?}, {busy} refused as busy",
        declared.len()
    );
    Verdict::of(NAME, "no node over its capacity", looked_at, findings)
        .unless_too_little(placed > 0, "nothing was placed")
        .figures(json!({"placements": placed, "fullest": most, "busy": busy}))
}

/// Reports of attempts that are over, not yet there, or another node's are refused; one report
/// ends one attempt; an attempt goes to one node.
fn reports(history: &History) -> Verdict {
    let mut findings = Findings::default();
    let mut taken: BTreeMap<(&str, u64), (&str, u64)> = BTreeMap::new();
    let (mut refused, mut repeated, mut count) = (0, 0, 0);
    let calls = history.calls(NAME);
    for call in calls.iter().filter(|call| call.invoke.f == "report") {
        count += 1;
        let asked = &call.invoke.value;
        let task = call.invoke.key.as_deref().unwrap_or_default();
        let attempt = asked["attempt"].as_u64().unwrap_or(0);
        let line = call.invoke.index;
        let must_refuse = asked["must_refuse"] == true;
        if call.kind() == Kind::Fail {
            refused += usize::from(must_refuse);
            continue;
        }
        if !call.is_ok() {
            continue;
        }
        if call.result()["duplicate"] == true {
            repeated += 1;
            continue;
        }
        let key = asked["key"].as_str().unwrap_or_default();
        // A failure that was taken and whose answer got lost gets that answer again, when the next
        // attempt is under way already.
        if must_refuse && !key.ends_with("/fail") {
            let text = format!("{task}: a report that had to be refused was taken: {asked}");
            findings.add(text, &[line]);
        }
        // The same key gets the same answer; another key must not end the attempt again.
        if let Some((first, first_line)) = taken.insert((task, attempt), (key, line))
            && first != key
        {
            let text = format!("{task}: attempt {attempt} was ended by {first} and by {key}");
            findings.add(text, &[first_line, line]);
        }
    }
    let mut nodes: BTreeMap<(&str, u64), (&str, u64)> = BTreeMap::new();
    for op in history.observed(NAME, "dispatch") {
        let (Some(task), Some(attempt), Some(node)) =
            (op.value["task"].as_str(), op.value["attempt"].as_u64(), op.value["node"].as_str())
        else {
            continue;
        };
        if let Some((other, line)) = nodes.insert((task, attempt), (node, op.index)) {
            let text = format!("{task}: attempt {attempt} was given to {other} and to {node}");
            findings.add(text, &[line, op.index]);
        }
    }
    let again = history.observed(NAME, "dispatch-again").count();
    let late = history.observed(NAME, "dispatch-late").count();
    let looked_at = format!(
        "{count} reports, {refused} refused as they had to be, {repeated} repetitions; \
         {} dispatches, {again} again, {late} late",
        nodes.len()
    );
    Verdict::of(NAME, "stale reports are refused", looked_at, findings)
        .unless_too_little(refused > 0, "no report had to be refused")
        .figures(json!({"reports": count, "refused": refused, "repeated": repeated,
            "dispatches": nodes.len(), "again": again, "late": late}))
}

/// In the end every member shows the same: all acknowledged jobs, each with the result of the
/// attempt that it ended with, made by a worker that really did it.
fn ends(history: &History) -> Verdict {
    let mut findings = Findings::default();
    let calls = history.calls(NAME);
    let submits = calls.iter().filter(|call| call.invoke.f == "submit");
    let (mut acked, mut failed) = (BTreeMap::new(), BTreeMap::new());
    for call in submits {
        let (id, line) = (call.invoke.key.as_deref().unwrap_or_default(), call.invoke.index);
        match call.kind() {
            Kind::Ok => acked.insert(id, line),
            Kind::Fail => failed.insert(id, line),
            Kind::Info | Kind::Invoke => None,
        };
    }
    let mut finals: Vec<(u64, BTreeMap<&str, &Value>)> = Vec::new();
    for op in history.observed(NAME, "final") {
        let rows = op.value.as_array().map(Vec::as_slice).unwrap_or_default();
        let rows: BTreeMap<&str, &Value> =
            rows.iter().filter_map(|row| Some((row[0].as_str()?, row))).collect();
        let member = op.node.unwrap_or(0);
        for (id, line) in acked.iter().filter(|(id, _)| !rows.contains_key(**id)) {
            findings.add(format!("{id} was acknowledged and is not on member {member}"), &[*line]);
        }
        for (id, line) in failed.iter().filter(|(id, _)| rows.contains_key(**id)) {
            findings.add(format!("{id} certainly failed and is on member {member}"), &[*line]);
        }
        finals.push((member, rows));
    }
    // Members are read one after the other: a job that is open meanwhile may move on between.
    let is_open = |row: Option<&&Value>| row.is_some_and(|row| !is_final(&row[1]));
    for pair in finals.windows(2) {
        for (id, row) in &pair[0].1 {
            let other = pair[1].1.get(id);
            if other != Some(row) && !is_open(other) && !is_open(Some(row)) {
                let other =
                    pair[1].1.get(id).map_or_else(|| "nothing".to_owned(), |row| row.to_string());
                let (here, there) = (pair[0].0, pair[1].0);
                findings
                    .add(format!("member {here} shows {row}, member {there} shows {other}"), &[]);
            }
        }
    }
    let done: BTreeSet<&str> =
        history.observed(NAME, "end").filter_map(|op| op.value["more"]["token"].as_str()).collect();
    let mut results = 0;
    for op in history.observed(NAME, "result").filter(|op| op.value["status"] == "completed") {
        results += 1;
        let (id, token) = (op.key.as_deref().unwrap_or_default(), &op.value["token"]);
        let token = token.as_str().unwrap_or_default();
        let right = format!("/{id}/{}", op.value["attempt"]);
        if !token.ends_with(&right) || !done.contains(token) {
            let text =
                format!("{id} ended with attempt {} and the result {token:?}", op.value["attempt"]);
            findings.add(text, &[op.index]);
        }
    }
    let looked_at =
        format!("{} acknowledged, {} final reads, {results} results", acked.len(), finals.len());
    let enough = !acked.is_empty() && !finals.is_empty() && results > 0;
    Verdict::of(NAME, "jobs end as they were carried out", looked_at, findings)
        .unless_too_little(enough, "no job or no final read")
        .figures(json!({"acknowledged": acked.len(), "results": results}))
}

/// Whether a status is one that never changes again.
fn is_final(status: &Value) -> bool {
    matches!(status.as_str(), Some("completed" | "failed" | "cancelled" | "timeout"))
}

/// After healing, everything that was taken is carried out in bounded time.
fn drained(history: &History) -> Verdict {
    let property = "the queue drains after healing";
    if let Some(op) = history.observed(NAME, "drained").next() {
        let text = format!("empty after {} ms", op.value);
        let verdict = Verdict::new(NAME, property, Validity::Valid, text);
        return verdict.figures(json!({"drained_ms": op.value}));
    }
    let mut findings = Findings::default();
    for op in history.observed(NAME, "undrained") {
        let left = op.value.as_array().map(Vec::as_slice).unwrap_or_default();
        let some: Vec<&str> = left.iter().filter_map(Value::as_str).take(10).collect();
        let text = format!("{} jobs are still open: {}", left.len(), some.join(", "));
        findings.add(text, &[op.index]);
    }
    let watched = !findings.is_empty();
    Verdict::of(NAME, property, "the end of the queue", findings)
        .unless_too_little(watched, "nobody watched it")
}

#[cfg(test)]
mod tests;
