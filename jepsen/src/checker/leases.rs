//! What must hold of work that is done under leases: nobody is given what somebody else surely holds, a
//! try that is over changes nothing any more, and what is completed counts once, however often it is told.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Findings, Verdict};
use crate::history::{Call, History, Kind, Op};

const NAME: &str = "leases";
/// Between the clocks of members and that of this program, which are of one machine.
const CLOCKS_NS: u64 = 20_000_000;

/// All checks of leases.
#[must_use]
pub fn check(history: &History) -> Vec<Verdict> {
    let calls = history.calls(NAME);
    let tasks = tasks(&calls);
    vec![holders(history, &tasks), fences(&tasks), counts(history, &calls, &tasks)]
}

/// A try that was given to somebody.
#[derive(Debug, Clone, Copy)]
struct Grant<'a> {
    attempt: u64,
    holder: &'a str,
    lease_ms: u64,
    from: u64,
    until: u64,
    line: u64,
}

/// Something that was told of a task.
#[derive(Debug, Clone, Copy)]
struct Told<'a> {
    f: &'a str,
    /// None of bookkeepers.
    attempt: Option<u64>,
    token: &'a str,
    lease_ms: u64,
    kind: Kind,
    verdicts: &'a Value,
    from: u64,
    until: u64,
    line: u64,
}

#[derive(Debug, Default)]
struct Task<'a> {
    grants: Vec<Grant<'a>>,
    told: Vec<Told<'a>>,
}

impl Told<'_> {
    fn is(&self, verdict: &str) -> bool {
        self.kind == Kind::Ok
            && self.verdicts.as_array().is_some_and(|all| all.iter().any(|one| one == verdict))
    }

    /// Whether the task is completed since it ended at the latest. Bookkeepers are told no verdict.
    fn has_completed(&self) -> bool {
        self.f == "complete" && (self.is("accepted") || self.is("repeated"))
            || self.f == "book" && self.kind == Kind::Ok
    }

    fn may_have_completed(&self) -> bool {
        matches!(self.f, "complete" | "book") && (self.kind == Kind::Info || self.has_completed())
    }

    fn may_have_renewed(&self) -> bool {
        self.f == "renew" && (self.kind == Kind::Info || self.is("accepted"))
    }

    /// Whether it may have ended the lease of a try.
    fn may_have_ended(&self) -> bool {
        self.f != "renew" && (self.kind == Kind::Info || self.is("accepted"))
            || self.may_have_completed()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn tasks<'a>(calls: &[Call<'a>]) -> BTreeMap<&'a str, Task<'a>> {
    let mut tasks: BTreeMap<&str, Task<'_>> = BTreeMap::new();
    for call in calls {
        let (from, until, line) = (call.invoke.time, call.end_ns(), call.invoke.index);
        let key = call.invoke.key.as_deref().unwrap_or_default();
        let (asked, f) = (&call.invoke.value, call.invoke.f.as_str());
        let end = call.end.filter(|_| call.is_ok()).map(|end| &end.value);
        match f {
            "lease" => {
                for row in end.and_then(|end| end["held"].as_array()).into_iter().flatten() {
                    let (attempt, lease_ms) = (number(&row[1]), number(&asked["lease_ms"]));
                    let grant = Grant { attempt, holder: key, lease_ms, from, until, line };
                    tasks.entry(text(&row[0])).or_default().grants.push(grant);
                }
            }
            "complete" | "fail" | "release" | "renew" | "book" => {
                let told = Told {
                    f,
                    attempt: asked["attempt"].as_u64(),
                    token: text(&asked["token"]),
                    lease_ms: number(&asked["lease_ms"]),
                    kind: call.kind(),
                    verdicts: end.map_or(&Value::Null, |end| &end["verdicts"]),
                    from,
                    until,
                    line,
                };
                tasks.entry(key).or_default().told.push(told);
            }
            _ => {}
        }
    }
    tasks
}

impl<'a> Task<'a> {
    fn of(&self, attempt: u64) -> impl Iterator<Item = &Told<'a>> {
        self.told.iter().filter(move |told| told.attempt == Some(attempt))
    }

    /// Until when nobody else can have been given it, unless its holder gave it up. A renewal sets the end
    /// anew, and to an earlier time if it asks for less than is left.
    fn surely_held(&self, grant: &Grant<'_>) -> u64 {
        let end = |from: u64, lease_ms: u64| from + lease_ms * 1_000_000;
        let renewals = || self.of(grant.attempt).filter(|told| told.may_have_renewed());
        let sure = renewals().filter(|told| told.is("accepted")).max_by_key(|told| told.from);
        let (since, lease_ms) =
            sure.map_or((grant.from, grant.lease_ms), |told| (told.from, told.lease_ms));
        let later = renewals().filter(|told| told.until > since);
        let ends = later.map(|told| end(told.from, told.lease_ms));
        ends.fold(end(since, lease_ms), u64::min).saturating_sub(CLOCKS_NS)
    }

    /// Two grants of which the second cannot be right; `timed` when clocks can be relied on.
    fn clash(&self, first: &Grant<'_>, second: &Grant<'_>, timed: bool) -> Option<String> {
        let Grant { attempt, holder, .. } = first;
        if *attempt == second.attempt {
            return Some(format!("attempt {attempt} is {holder}'s and {}'s", second.holder));
        }
        if first.from > second.until {
            return Some(format!("attempt {attempt} was given after {}", second.attempt));
        }
        let ended = |told: &Told<'_>| told.may_have_ended() && told.from < second.until;
        let free = self
            .told
            .iter()
            .any(|told| ended(told) && (told.attempt == Some(*attempt) || told.attempt.is_none()));
        if timed && !free && second.until < self.surely_held(first) {
            let text = "holds, was given to";
            return Some(format!("attempt {attempt}, which {holder} {text} {}", second.holder));
        }
        None
    }
}

/// No assignment is held by two, and none is given to anybody once it is completed.
fn holders(history: &History, tasks: &BTreeMap<&str, Task<'_>>) -> Verdict {
    let mut findings = Findings::default();
    let timed = !history.planned().iter().any(|fault| fault.starts_with("clock"));
    let (mut given, mut again) = (0, 0);
    for (name, task) in tasks {
        let mut grants = task.grants.clone();
        grants.sort_by_key(|grant| (grant.attempt, grant.from));
        given += grants.len();
        again += grants.iter().filter(|grant| grant.attempt > 1).count();
        for pair in grants.windows(2) {
            if let Some(text) = task.clash(&pair[0], &pair[1], timed) {
                findings.add(format!("{name}: {text}"), &[pair[0].line, pair[1].line]);
            }
        }
        for done in task.told.iter().filter(|told| told.has_completed()) {
            for grant in grants.iter().filter(|grant| grant.from > done.until) {
                let text = format!("{name} was completed, and then given to {}", grant.holder);
                findings.add(text, &[done.line, grant.line]);
            }
        }
    }
    let looked_at =
        format!("{given} leases, {again} of them of another try, {} tasks", tasks.len());
    Verdict::of(NAME, "no assignment is held by two", looked_at, findings)
        .unless_too_little(again > 0, "nothing was ever given to somebody else")
        .figures(json!({"leases": given, "tries": again}))
}

/// What is told of a try that is over changes nothing.
fn fences(tasks: &BTreeMap<&str, Task<'_>>) -> Verdict {
    let mut findings = Findings::default();
    let (mut accepted, mut stale) = (0, 0);
    for (name, task) in tasks {
        for told in &task.told {
            stale += usize::from(told.is("stale"));
            let Some(attempt) = told.attempt.filter(|_| told.is("accepted")) else { continue };
            accepted += 1;
            let newer = |grant: &&Grant<'_>| grant.attempt > attempt && grant.until < told.from;
            if let Some(newer) = task.grants.iter().find(newer) {
                let text = format!("{name}: {} of attempt {attempt} came after {newer:?}", told.f);
                findings.add(text, &[newer.line, told.line]);
            }
            let over = |other: &&Told<'_>| {
                let same = other.attempt == Some(attempt) && other.f != "renew";
                let is_over = same && other.is("accepted") || other.has_completed();
                is_over && other.until < told.from
            };
            if let Some(other) = task.told.iter().find(over) {
                let text = format!("{name}: {} of attempt {attempt}, after {}", told.f, other.f);
                findings.add(text, &[other.line, told.line]);
            }
        }
    }
    let looked_at = format!("{accepted} reports were accepted, {stale} were stale");
    Verdict::of(NAME, "a try that is over changes nothing", looked_at, findings)
        .unless_too_little(stale > 0, "nothing came too late")
        .figures(json!({"accepted": accepted, "stale": stale}))
}

/// What is completed counts once: as it is told, in every reading, and in all sums in the end.
fn counts(history: &History, calls: &[Call<'_>], tasks: &BTreeMap<&str, Task<'_>>) -> Verdict {
    let mut findings = Findings::default();
    let mut repeated = 0;
    for (name, task) in tasks {
        repeated += task.told.iter().filter(|told| told.is("repeated")).count();
        once(name, task, &mut findings);
    }
    let reads = readings(calls, tasks, &mut findings);
    let finals: Vec<&Op> = history.observed(NAME, "final").collect();
    for op in &finals {
        if op.value != finals[0].value {
            findings.add("members have counted different work", &[finals[0].index, op.index]);
        }
    }
    let mut done = 0;
    if let Some(op) = finals.first() {
        done = rows(&op.value).count();
        sums(op, calls, &mut findings);
        results(op, tasks, &mut findings);
    }
    let looked_at = format!(
        "{done} assignments done, {repeated} told again, {reads} reads, {} members in the end",
        finals.len()
    );
    Verdict::of(NAME, "what is completed counts once", looked_at, findings)
        .unless_too_little(done > 0 && repeated > 0 && reads > 0, "nothing was told twice, or read")
        .figures(json!({"completed": done, "repeated": repeated, "reads": reads}))
}

/// One request at most completed a task, and who is told that it was done before is told the truth.
fn once(name: &str, task: &Task<'_>, findings: &mut Findings) {
    let accepts = |told: &&Told<'_>| told.f == "complete" && told.is("accepted");
    let accepted: Vec<u64> = task.told.iter().filter(accepts).map(|told| told.line).collect();
    if accepted.len() > 1 {
        findings.add(format!("{name} was completed {} times", accepted.len()), &accepted);
    }
    for told in task.told.iter().filter(|told| told.f == "complete" && told.kind == Kind::Ok) {
        let verdicts = told.verdicts.as_array().map(Vec::as_slice).unwrap_or_default();
        if verdicts.iter().filter(|one| **one == "accepted").count() > 1 {
            findings.add(format!("{name} was completed twice by one request"), &[told.line]);
        }
        let before = |other: &Told<'_>| {
            let same = other.attempt.is_none() || other.attempt == told.attempt;
            same && other.line != told.line && other.may_have_completed() && other.from < told.until
        };
        if told.is("repeated") && !told.is("accepted") && !task.told.iter().any(before) {
            findings.add(format!("{name} had been completed, and by nobody"), &[told.line]);
        }
    }
}

/// The figure in each reading lies between what was surely done before and what may have been done.
fn readings(
    calls: &[Call<'_>],
    tasks: &BTreeMap<&str, Task<'_>>,
    findings: &mut Findings,
) -> usize {
    let (mut sure, mut may): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
    for task in tasks.values() {
        let done = task.told.iter().filter(|told| told.has_completed());
        sure.extend(done.map(|told| told.until).min());
        may.extend(
            task.told.iter().filter(|told| told.may_have_completed()).map(|told| told.from).min(),
        );
    }
    let mut reads = 0;
    for call in calls.iter().filter(|call| call.invoke.f == "read" && call.is_ok()) {
        reads += 1;
        let told = number(call.result());
        let least = sure.iter().filter(|until| **until < call.invoke.time).count() as u64;
        let most = may.iter().filter(|from| **from < call.end_ns()).count() as u64;
        if !(least..=most).contains(&told) {
            let text = format!("{told} are counted, and {least} to {most} were done");
            findings.add(text, &[call.invoke.index]);
        }
    }
    reads
}

/// The assignments that a member has completed in the end: id, bot, token.
fn rows(value: &Value) -> impl Iterator<Item = (&str, &str, &str)> {
    let rows = value["tasks"].as_object().into_iter().flatten();
    let done = rows.filter(|(_, row)| row[1] == "completed");
    done.map(|(id, row)| (id.as_str(), text(&row[0]), text(&row[3])))
}

/// Every sum is that of the rows, and there are as many rows as were asked for.
fn sums(op: &Op, calls: &[Call<'_>], findings: &mut Findings) {
    let none = Map::new();
    let object = |field: &str| op.value[field].as_object().unwrap_or(&none);
    let (all, done) = (object("tasks").len() as u64, rows(&op.value).count() as u64);
    let (mut least, mut most) = (0, 0);
    for call in calls.iter().filter(|call| call.invoke.f == "assign") {
        let size = number(&call.invoke.value);
        match call.kind() {
            Kind::Ok => (least, most) = (least + size, most + size),
            Kind::Info | Kind::Invoke => most += size,
            Kind::Fail => {}
        }
        if call.is_ok() && number(call.result()) != size {
            findings
                .add(format!("{} of {size} were assigned", call.result()), &[call.invoke.index]);
        }
    }
    if !(least..=most).contains(&all) {
        findings.add(format!("{all} assignments are there of {least} to {most}"), &[op.index]);
    }
    if done != all {
        findings.add(format!("{done} of {all} assignments are completed in the end"), &[op.index]);
    }
    let mut of_bots: BTreeMap<&str, u64> = BTreeMap::new();
    rows(&op.value).for_each(|(_, bot, _)| *of_bots.entry(bot).or_default() += 1);
    for (bot, row) in object("bots") {
        let own = of_bots.get(bot.as_str()).copied().unwrap_or(0);
        if *row != json!([own, own, own, 0]) {
            findings.add(format!("bot {bot} has done {own}, and says {row}"), &[op.index]);
        }
    }
    let swarms: u64 = object("swarms").values().map(|row| number(&row[0])).sum();
    let rest =
        object("swarms").values().map(|row| number(&row[1]) + number(&row[2]) + number(&row[3]));
    if swarms != done || rest.sum::<u64>() > 0 {
        let swarms = &op.value["swarms"];
        findings.add(format!("{done} are done, and swarms say {swarms}"), &[op.index]);
    }
    let stats = &op.value["stats"];
    if *stats != json!([done, 0, 0]) {
        findings.add(format!("{done} are done, and the figures say {stats}"), &[op.index]);
    }
}

/// What was completed is, by somebody who said so, and with what it said.
fn results(op: &Op, tasks: &BTreeMap<&str, Task<'_>>, findings: &mut Findings) {
    let done: BTreeMap<&str, &str> = rows(&op.value).map(|(id, _, token)| (id, token)).collect();
    for (name, task) in tasks {
        if let Some(told) = task.told.iter().find(|told| told.has_completed())
            && !done.contains_key(name)
        {
            findings.add(format!("{name} was completed, and is not"), &[told.line, op.index]);
        }
    }
    for (name, token) in done {
        let told = tasks.get(name).map(|task| &task.told[..]).unwrap_or_default();
        let accepted = told.iter().find(|told| told.f == "complete" && told.is("accepted"));
        let could = |told: &&Told<'_>| told.may_have_completed();
        let tokens: BTreeSet<&str> = match accepted {
            Some(told) => [told.token].into(),
            None => told.iter().filter(could).map(|told| told.token).collect(),
        };
        if !tokens.contains(token) {
            let text = format!("{name} came to {token:?}, and was completed with {tokens:?}");
            findings.add(text, &[op.index]);
        }
    }
}

#[cfg(test)]
mod tests;
