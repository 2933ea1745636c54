//! What must hold of the room for bots: there are never more than there is room for, nothing is refused
//! or cut while there is room, and what is counted is what was done, within what nobody knows the end of.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Findings, Verdict};
use crate::history::{Call, History, Kind, Op};

const NAME: &str = "capacity";
/// Bots there may be (`bots.capacity`).
pub const CAPACITY: u64 = 50_000;
/// How the API says that there is no room.
const FULL: [&str; 2] = ["BOT_CAPACITY", "SWARM_CAPACITY"];

/// All checks of the room for bots.
#[must_use]
pub fn check(history: &History) -> Vec<Verdict> {
    let books = Books::of(history);
    vec![room(history, &books), accounts(history, &books)]
}

/// A sum of which it is known between what it was at any time: by time, changes of the least and the most.
#[derive(Debug, Default)]
struct Bounds(Vec<(u64, i64, i64)>);

impl Bounds {
    fn shift(&mut self, at: u64, (least, most): (i64, i64), (now_least, now_most): (i64, i64)) {
        self.0.push((at, now_least - least, now_most - most));
    }

    /// The bounds that held at some moment from `from` to `until`.
    fn within(&self, from: u64, until: u64) -> impl Iterator<Item = (i64, i64)> {
        let (mut all, mut held) = ((0, 0), Vec::new());
        for (at, least, most) in self.0.iter().take_while(|(at, ..)| *at <= until) {
            if *at > from {
                held.push(all);
            }
            all = (all.0 + least, all.1 + most);
        }
        held.push(all);
        held.into_iter()
    }

    fn may_be(&self, value: i64, from: u64, until: u64) -> bool {
        self.within(from, until).any(|(least, most)| (least..=most).contains(&value))
    }

    fn most(&self, from: u64, until: u64) -> i64 {
        self.within(from, until).map(|(_, most)| most).max().unwrap_or(0)
    }
}

/// What is known of everything that clients made, by the answers they got.
#[derive(Debug, Default)]
struct Books<'a> {
    calls: Vec<Call<'a>>,
    active: Bounds,
    created: Bounds,
    /// What each of them may hold in the end.
    last: BTreeMap<&'a str, (i64, i64)>,
    /// Calls that were told that there is no room, or not enough, with their lines.
    short: Vec<(u64, u64, u64)>,
    asked: i64,
}

fn key(op: &Op) -> &str {
    op.key.as_deref().unwrap_or_default()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(-1)
}

impl<'a> Books<'a> {
    fn of(history: &'a History) -> Self {
        let mut books = Self { calls: history.calls(NAME), ..Self::default() };
        let before = history.observed(NAME, "before").next().map(|op| &op.value);
        let base = |field: &str| before.map_or(0, |value| number(&value[field]));
        let (active, created) = (base("active"), base("created"));
        books.active.shift(0, (0, 0), (active, active));
        books.created.shift(0, (0, 0), (created, created));
        for call in books.calls.clone().iter().filter(|call| call.invoke.f != "read") {
            books.add(call);
        }
        books.active.0.sort_by_key(|(at, ..)| *at);
        books.created.0.sort_by_key(|(at, ..)| *at);
        books
    }

    /// One client after the other works on each thing, and on none of which it does not know enough.
    fn add(&mut self, call: &Call<'a>) {
        let (unit, from, until) = (key(call.invoke), call.invoke.time, call.end_ns());
        let asked = number(&call.invoke.value["asked"]);
        let known = self.last.get(unit).copied().unwrap_or((0, 0));
        if call.invoke.f == "make" {
            self.asked += asked;
        }
        let error = call.end.and_then(|end| end.error.as_deref());
        if error.is_some_and(|error| FULL.contains(&error)) {
            self.short.push((call.invoke.index, from, until));
        }
        // As few as nothing may come of what nobody knows the end of, and as much as was asked for.
        let then = match call.kind() {
            Kind::Fail => return,
            Kind::Ok => {
                let count = number(&call.result()["count"]);
                if count < asked {
                    self.short.push((call.invoke.index, from, until));
                }
                (count, count)
            }
            Kind::Info | Kind::Invoke => (known.0.min(asked), known.1.max(asked)),
        };
        let meanwhile = (known.0.min(then.0), known.1.max(then.1));
        self.active.shift(from, known, meanwhile);
        self.last.insert(unit, then);
        let made = (then.1 - known.1).max(0);
        self.created.shift(from, (0, 0), (0, made));
        if until < u64::MAX {
            self.active.shift(until, meanwhile, then);
            self.created.shift(until, (0, 0), (made, 0));
        }
    }

    fn reads(&self) -> impl Iterator<Item = (&Call<'a>, &'a Op)> {
        let reads = self.calls.iter().filter(|call| call.invoke.f == "read" && call.is_ok());
        reads.filter_map(|call| Some((call, call.end?)))
    }
}

/// Never more than there is room for, and nothing short while there is room.
fn room(history: &History, books: &Books<'_>) -> Verdict {
    let mut findings = Findings::default();
    let (capacity, mut most) = (CAPACITY as i64, 0);
    let finals: Vec<&Op> = history.observed(NAME, "final").collect();
    let shown = books.reads().map(|(_, end)| (end.index, &end.value));
    for (line, stats) in shown.chain(finals.iter().map(|op| (op.index, &op.value["stats"]))) {
        let active = number(&stats["active"]);
        most = most.max(active);
        if active > capacity || number(&stats["capacity"]) != capacity {
            findings.add(format!("more bots than there is room for: {stats}"), &[line]);
        }
        if active + number(&stats["remaining"]) != capacity || number(&stats["tiers"]) != active {
            findings.add(format!("the figures do not add up: {stats}"), &[line]);
        }
    }
    for (least, _) in books.active.within(0, u64::MAX).filter(|(least, _)| *least > capacity) {
        findings.add(format!("{least} bots were acknowledged that nobody removed"), &[]);
    }
    for (line, from, until) in &books.short {
        let could = books.active.most(*from, *until);
        if could < capacity {
            let text = format!("too few, or none, while there were {could} at most");
            findings.add(text, &[*line]);
        }
    }
    let looked_at = format!(
        "{} asked for, {most} of {capacity} held at most, {} times there was too little room",
        books.asked,
        books.short.len()
    );
    Verdict::of(NAME, "never more bots than there is room for", looked_at, findings)
        .unless_too_little(
            !books.short.is_empty() && books.reads().next().is_some(),
            "it was never full, or never read",
        )
        .figures(json!({"asked": books.asked, "held": most, "short": books.short.len()}))
}

/// What is read is what was acknowledged, and what may have been done beside it.
fn accounts(history: &History, books: &Books<'_>) -> Verdict {
    let mut findings = Findings::default();
    let (mut reads, mut created): (_, Vec<(u64, i64)>) = (0, Vec::new());
    for (call, end) in books.reads() {
        reads += 1;
        let (from, until) = (call.invoke.time, call.end_ns());
        for (field, bounds) in [("active", &books.active), ("created", &books.created)] {
            let value = number(&end.value[field]);
            if !bounds.may_be(value, from, until) {
                let held: Vec<_> = bounds.within(from, until).collect();
                let text = format!("{field} is {value}, and by what was told {held:?}");
                findings.add(text, &[call.invoke.index, end.index]);
            }
        }
        let value = number(&end.value["created"]);
        if created.iter().any(|(ended, before)| *ended < from && *before > value) {
            findings.add(format!("bots that were ever made went back to {value}"), &[end.index]);
        }
        created.push((until, value));
    }
    let finals: Vec<&Op> = history.observed(NAME, "final").collect();
    for op in &finals {
        last(op, finals[0], books, &mut findings);
    }
    let (unsure, all) =
        (books.last.values().filter(|(least, most)| least != most).count(), books.last.len());
    let looked_at = format!(
        "{reads} reads, {all} swarms and bots, of {unsure} nobody knows the end, {} members in the end",
        finals.len()
    );
    Verdict::of(NAME, "what is counted is what was done", looked_at, findings)
        .unless_too_little(reads > 0 && !finals.is_empty(), "nothing was read")
        .figures(json!({"reads": reads, "units": all, "unsure": unsure}))
}

/// What one member holds in the end.
fn last(op: &Op, first: &Op, books: &Books<'_>, findings: &mut Findings) {
    if op.value != first.value {
        findings.add("members hold different bots", &[first.index, op.index]);
    }
    let none = serde_json::Map::new();
    let (units, stats) = (op.value["units"].as_object().unwrap_or(&none), &op.value["stats"]);
    let names: BTreeSet<&str> = units.keys().map(String::as_str).collect();
    for (name, (least, most)) in &books.last {
        let count = units.get(*name).map_or(0, number);
        if !(*least..=*most).contains(&count) {
            let text = format!("{name} has {count} bots, and by what was told {least} to {most}");
            findings.add(text, &[op.index]);
        }
    }
    for name in names.iter().filter(|name| name.starts_with(NAME)) {
        if !books.last.contains_key(*name) {
            findings
                .add(format!("{name} is there, and was refused or never asked for"), &[op.index]);
        }
    }
    let sum: i64 = units.values().map(number).sum();
    if sum != number(&stats["active"]) {
        findings.add(format!("{sum} bots are listed, and counted are {stats}"), &[op.index]);
    }
    for (field, bounds) in [("active", &books.active), ("created", &books.created)] {
        let value = number(&stats[field]);
        if !bounds.may_be(value, op.time, op.time) {
            findings.add(format!("in the end {field} is {value}, which nobody did"), &[op.index]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Validity;
    use crate::history::{Note, Recorder};

    fn stats(active: u64, created: u64) -> Value {
        json!({"active": active, "created": created, "tiers": active,
            "remaining": CAPACITY as i64 - active as i64, "capacity": CAPACITY})
    }

    fn call(recorder: &Recorder, f: &str, unit: &str, asked: u64, end: Result<u64, (Kind, &str)>) {
        let process = recorder.process();
        let note = Note::new(NAME, f).key(unit).value(json!({"asked": asked}));
        recorder.invoke(process, note.clone());
        match end {
            Ok(count) => recorder.end(process, Kind::Ok, note.value(json!({"count": count}))),
            Err((kind, error)) => {
                recorder.end(process, kind, Note { error: Some(error.to_owned()), ..note });
            }
        }
    }

    fn read(recorder: &Recorder, active: u64, created: u64) {
        let process = recorder.process();
        recorder.invoke(process, Note::new(NAME, "read"));
        let note = Note::new(NAME, "read").value(stats(active, created));
        recorder.end(process, Kind::Ok, note);
    }

    fn end(recorder: &Recorder, units: &Value, active: u64, created: u64) {
        let value = json!({"units": units, "stats": stats(active, created)});
        recorder.observe("counter", Note::new(NAME, "final").value(value));
    }

    const REFUSED: Result<u64, (Kind, &str)> = Err((Kind::Fail, "SWARM_CAPACITY"));
    const UNKNOWN: Result<u64, (Kind, &str)> = Err((Kind::Info, "no answer in time"));

    /// Ten bots of others; two swarms and a bot, of which one swarm is cut and shrinks then.
    fn begun() -> Recorder {
        let recorder = Recorder::in_memory();
        recorder.observe("counter", Note::new(NAME, "before").value(stats(10, 10)));
        call(&recorder, "make", "capacity-a", 40_000, Ok(40_000));
        call(&recorder, "make", "capacity-b", 20_000, Ok(9_990));
        call(&recorder, "make", "capacity-c", 1, REFUSED);
        read(&recorder, 50_000, 50_000);
        call(&recorder, "scale", "capacity-b", 90, Ok(90));
        recorder
    }

    fn judged(act: impl FnOnce(&Recorder)) -> (Validity, Validity) {
        let recorder = begun();
        act(&recorder);
        let verdicts = check(&recorder.finish().unwrap());
        (verdicts[0].validity, verdicts[1].validity)
    }

    fn units() -> Value {
        json!({"capacity-a": 40_000, "capacity-b": 90, "jepsen-leases": 10})
    }

    #[test]
    fn what_adds_up_is_valid() {
        let good = judged(|recorder| {
            read(recorder, 40_100, 50_000);
            end(recorder, &units(), 40_100, 50_000);
        });
        assert_eq!(good, (Validity::Valid, Validity::Valid));
        assert_eq!(judged(|_| ()).1, Validity::Unknown, "nobody was asked in the end");
    }

    #[test]
    fn more_bots_than_there_is_room_for_are_found() {
        let (room, _) = judged(|recorder| read(recorder, 50_001, 50_000));
        assert_eq!(room, Validity::Invalid);
        let (room, _) = judged(|recorder| {
            call(recorder, "make", "capacity-d", 9_901, Ok(9_901));
        });
        assert_eq!(room, Validity::Invalid, "acknowledged are 50,001");
    }

    #[test]
    fn what_is_refused_or_cut_while_there_is_room_is_found() {
        for end in [REFUSED, Ok(9_000)] {
            let (room, _) = judged(|recorder| call(recorder, "make", "capacity-d", 9_900, end));
            assert_eq!(room, Validity::Invalid, "{end:?}");
        }
        // There may have been no room.
        let (room, _) = judged(|recorder| {
            call(recorder, "make", "capacity-d", 9_900, UNKNOWN);
            call(recorder, "make", "capacity-e", 20, REFUSED);
        });
        assert_eq!(room, Validity::Valid);
    }

    #[test]
    fn figures_that_nobody_made_are_found() {
        for (active, created) in [(40_101, 50_000), (40_099, 50_000), (40_100, 50_001)] {
            let (_, accounts) = judged(|recorder| read(recorder, active, created));
            assert_eq!(accounts, Validity::Invalid, "{active} {created}");
        }
        for (active, created, wanted) in [
            (40_100, 50_000, Validity::Valid),
            (40_105, 50_005, Validity::Valid),
            (40_106, 50_005, Validity::Invalid),
            (40_105, 50_006, Validity::Invalid),
        ] {
            let mut units = units();
            units["capacity-d"] = json!(active - 40_100);
            let (_, accounts) = judged(|recorder| {
                call(recorder, "make", "capacity-d", 5, UNKNOWN);
                read(recorder, active, created);
                end(recorder, &units, active, created);
            });
            assert_eq!(accounts, wanted, "{active} {created}");
        }
    }

    #[test]
    fn what_members_hold_in_the_end_is_compared() {
        let found =
            |units: &Value, active| judged(|recorder| end(recorder, units, active, 50_000)).1;
        let mut other = units();
        other["capacity-b"] = json!(91);
        assert_eq!(found(&other, 40_101), Validity::Invalid, "another count");
        other = units();
        other["capacity-c"] = json!(1);
        assert_eq!(found(&other, 40_101), Validity::Invalid, "it was refused");
        assert_eq!(found(&units(), 40_099), Validity::Invalid, "counted otherwise than listed");
        let (_, accounts) = judged(|recorder| {
            end(recorder, &units(), 40_100, 50_000);
            end(recorder, &json!({}), 40_100, 50_000);
        });
        assert_eq!(accounts, Validity::Invalid, "members differ");
    }

    #[test]
    fn removed_bots_make_room_and_were_made_all_the_same() {
        let (room, accounts) = judged(|recorder| {
            call(recorder, "remove", "capacity-a", 0, Ok(0));
            call(recorder, "make", "capacity-d", 49_900, Ok(49_900));
            read(recorder, 50_000, 99_900);
            end(
                recorder,
                &json!({"capacity-b": 90, "capacity-d": 49_900, "jepsen-leases": 10}),
                50_000,
                99_900,
            );
        });
        assert_eq!((room, accounts), (Validity::Valid, Validity::Valid));
    }
}
