//! Requests that are sent again: under one `Idempotency-Key` after an unknown outcome, on purpose,
//! and through two members at once. There is one effect, and every answer is the first one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join, join_all};
use rand::RngExt;
use serde_json::{Value, json};

use super::actor::{Actor, insist};
use super::{HarnessError, Stage, Workload};
use crate::checker::coverage::Floor;
use crate::checker::{Findings, Verdict};
use crate::client::{Client, Reply, Request};
use crate::history::{Call, History, Kind, Note};

const NAME: &str = "retry";
/// Sends under one key before a client gives up.
const SENDS_MAX: usize = 8;
/// Keys that are asked for again at the end, on every member; those of unknown outcome first.
const ASKED_MAX: usize = 200;
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Retry {
    last: AtomicU64,
}

/// What is sent under one key.
struct Errand {
    f: &'static str,
    key: String,
    number: u64,
    request: Request,
}

impl Retry {
    fn errand(&self, actor: &mut Actor<'_>) -> Errand {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let key = format!("retry-{}-{number}", actor.stage.seed);
        if actor.rng.random_bool(0.5) {
            let body = json!({"task_type": "jepsen_retry", "metadata": {"key": key},
                "requirements": {"capabilities": ["jepsen-nobody-has-this"]}});
            let request = Request::post("/api/v1/tasks", body).key(key.clone());
            Errand { f: "submit", key, number, request }
        } else {
            let path = format!("/api/v1/config/jepsen.retry.c{}", number % 4);
            let request = Request::put(path, json!({"value": number})).key(key.clone());
            Errand { f: "put", key, number, request }
        }
    }

    async fn client(&self, mut actor: Actor<'_>, mut twin: Actor<'_>) {
        while actor.turn().await {
            let errand = self.errand(&mut actor);
            if actor.rng.random_bool(0.2) {
                join(send(&mut actor, &errand), send(&mut twin, &errand)).await;
            }
            let mut answered = false;
            for _ in 0..SENDS_MAX {
                answered = send(&mut actor, &errand).await == Kind::Ok;
                let wait = Duration::from_millis(actor.rng.random_range(20..200));
                if answered || !actor.sleep(wait).await {
                    break;
                }
            }
            if answered && actor.rng.random_bool(0.5) {
                send(&mut twin, &errand).await;
            }
        }
    }
}

async fn send(actor: &mut Actor<'_>, errand: &Errand) -> Kind {
    let note = actor.note(errand.f).key(&*errand.key).value(errand.number);
    let seat = actor.seat();
    let result = |reply: &Reply| {
        json!({"task": reply.body["task_id"], "duplicate": reply.body["details"]["duplicate"],
            "index": reply.index})
    };
    actor.act(&seat, note, &errand.request, result).await.kind
}

/// The revision counts the changes of the configuration.
async fn note_revision(stage: &Stage, f: &str) -> Result<(), String> {
    let client = Client::new();
    let mut why = "there is no member".to_owned();
    for (number, url) in stage.members.all() {
        match insist(&client, &url, "/api/v1/config", PATIENCE).await {
            Ok(reply) => {
                let note = Note::new(NAME, f).value(reply.body["revision"].clone());
                stage.recorder.observe("retry-reader", Note { node: Some(number), ..note });
                return Ok(());
            }
            Err(error) => why = error,
        }
    }
    Err(why)
}

/// Keys to ask for: unknown ones first, then the newest.
fn keys_to_ask(stage: &Stage) -> Vec<String> {
    stage.recorder.with_ops(|ops| {
        let mut kinds: BTreeMap<&str, (bool, u64)> = BTreeMap::new();
        for op in ops.iter().filter(|op| op.workload == NAME) {
            let Some(key) = op.key.as_deref() else { continue };
            let entry = kinds.entry(key).or_insert((true, op.index));
            entry.0 &= op.kind != Kind::Ok;
        }
        let mut keys: Vec<_> = kinds.into_iter().collect();
        keys.sort_by_key(|(_, (unsure, index))| (!unsure, std::cmp::Reverse(*index)));
        keys.into_iter().take(ASKED_MAX).map(|(key, _)| key.to_owned()).collect()
    })
}

impl Workload for Retry {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let noted = note_revision(stage, "revision-before").await;
            noted.map_err(|what| HarnessError { workload: NAME, what })
        }
        .boxed()
    }

    fn run<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            let count = stage.load.clients.div_ceil(2);
            let clients = (0..count).map(|n| {
                // Half the rate each: a client and its twin share one turn.
                let actor = |n| Actor::new(stage, &client, NAME, n, 2 * count);
                self.client(actor(n), actor(count + n))
            });
            join_all(clients).await;
            Ok(())
        }
        .boxed()
    }

    fn finish<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            let mut members = stage.members.all();
            for key in keys_to_ask(stage) {
                let mut silent = Vec::new();
                for (number, url) in &members {
                    let path = format!("/api/v1/requests/{key}");
                    let value = match insist(&client, url, &path, PATIENCE).await {
                        Ok(reply) => {
                            json!({"state": reply.body["state"], "index": reply.body["index"]})
                        }
                        Err(why) => {
                            // One that does not answer now is not asked hundreds of times.
                            silent.push(*number);
                            json!({"state": "unread", "why": why})
                        }
                    };
                    let note = Note::new(NAME, "request").key(&*key).value(value);
                    stage.recorder.observe("retry-reader", Note { node: Some(*number), ..note });
                }
                members.retain(|(number, _)| !silent.contains(number));
            }
            // Whatever cannot be read stays out of the history; the check says so.
            let _ = note_revision(stage, "revision-after").await;
            Ok(())
        }
        .boxed()
    }

    fn floors(&self) -> Vec<Floor> {
        [("submit", 0.5), ("put", 0.5)].map(|(f, per_second)| Floor { f, per_second }).into()
    }

    fn check(&self, history: &History) -> Vec<Verdict> {
        vec![answers(history), effects(history)]
    }
}

/// Every answer under a key is the first one, and the request table tells the same.
fn answers(history: &History) -> Verdict {
    let calls = history.calls(NAME);
    let mut findings = Findings::default();
    let mut keys: BTreeMap<&str, Vec<&Call<'_>>> = BTreeMap::new();
    for call in &calls {
        keys.entry(call.invoke.key.as_deref().unwrap_or_default()).or_default().push(call);
    }
    let (mut tasks, mut repeated) = (BTreeMap::new(), 0);
    let mut first: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut earliest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut recorded: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut undone: BTreeSet<&str> = BTreeSet::new();
    for (key, calls) in &keys {
        let ok: Vec<&&Call<'_>> = calls.iter().filter(|call| call.is_ok()).collect();
        repeated += usize::from(ok.len() > 1);
        for call in &ok {
            let answer = *first.entry(key).or_insert_with(|| call.result());
            // The index of a repetition is its own: not before the first, and no other difference.
            let same = |part: &str| answer[part] == call.result()[part];
            if !same("task") || !same("duplicate") {
                let text = format!("{key}: {answer} first, then {}", call.result());
                findings.add(text, &[ok[0].invoke.index, call.invoke.index]);
            }
            let index = call.result()["index"].as_u64().unwrap_or(0);
            let least = earliest.entry(key).or_insert(index);
            *least = index.min(*least);
        }
        if let Some(task) = first.get(key).and_then(|answer| answer["task"].as_str())
            && let Some(other) = tasks.insert(task.to_owned(), *key)
        {
            findings.add(format!("{key} and {other} got one task, {task}"), &[ok[0].invoke.index]);
        }
        if calls.iter().all(|call| call.kind() == Kind::Fail) {
            undone.insert(key);
        }
    }
    let mut asked = 0;
    for op in history.observed(NAME, "request") {
        let key = op.key.as_deref().unwrap_or_default();
        let (state, index) = (op.value["state"].as_str().unwrap_or_default(), &op.value["index"]);
        let place = format!("{key}: member {} says {state} at {index}", op.node.unwrap_or(0));
        asked += usize::from(state != "unread");
        if state == "unread" {
            continue;
        }
        let index = index.as_u64().unwrap_or(0);
        if let Some((other, line)) = recorded.insert(key.to_owned(), (index, op.index))
            && other != index
        {
            findings.add(format!("{place}, another says {other}"), &[line, op.index]);
        }
        match earliest.get(key) {
            Some(answered) if state != "committed" || index > *answered => {
                let text = format!("{place}, the first answer was of {answered}");
                findings.add(text, &[op.index]);
            }
            None if undone.contains(key) && state != "never_seen" => {
                findings.add(format!("{place}, yet every send certainly failed"), &[op.index]);
            }
            Some(_) | None => {}
        }
    }
    let looked_at = format!(
        "{} keys, {} sends, {repeated} answered more than once, {asked} asked for again",
        keys.len(),
        calls.len()
    );
    Verdict::of(NAME, "a repeated request gets its first answer", looked_at, findings)
        .unless_too_little(repeated > 0 && asked > 0, "nothing was answered twice")
        .figures(json!({"keys": keys.len(), "sends": calls.len(), "repeated": repeated}))
}

/// The revision grew by one for each change that was acknowledged, and by at most one for each of
/// unknown outcome: over all workloads, so it also finds what got lost or was done twice elsewhere.
fn effects(history: &History) -> Verdict {
    let property = "each change has one effect";
    let revision = |f| history.observed(NAME, f).next().map(|op| (op.time, op.value.as_u64()));
    let (Some((from, Some(before))), Some((until, Some(after)))) =
        (revision("revision-before"), revision("revision-after"))
    else {
        let text = "the revision could not be read before and after";
        return Verdict::new(NAME, property, crate::checker::Validity::Unknown, text);
    };
    let mut keys: BTreeMap<String, Kind> = BTreeMap::new();
    for (number, call) in history.all_calls().iter().enumerate() {
        let op = call.invoke;
        let changes = match (op.workload.as_str(), op.f.as_str()) {
            ("register", "write" | "cas") | ("alerts", "limits") | (NAME, "put") => true,
            ("append", "txn") => op.value.to_string().contains("\"append\""),
            _ => false,
        };
        if !changes || op.time < from || op.time > until {
            continue;
        }
        let key = if op.workload == NAME { op.key.clone() } else { None };
        let kind = keys.entry(key.unwrap_or_else(|| format!("#{number}"))).or_insert(Kind::Fail);
        *kind = match (*kind, call.kind()) {
            (Kind::Ok, _) | (_, Kind::Ok) => Kind::Ok,
            (Kind::Info, _) | (_, Kind::Info) => Kind::Info,
            (old, _) => old,
        };
    }
    let count = |wanted: Kind| keys.values().filter(|kind| **kind == wanted).count() as u64;
    let (ok, unknown, grown) = (count(Kind::Ok), count(Kind::Info), after.saturating_sub(before));
    let mut findings = Findings::default();
    if grown < ok {
        findings.add(format!("{ok} changes were acknowledged, the revision grew by {grown}"), &[]);
    }
    if grown > ok + unknown {
        let text = format!("{ok} changes were acknowledged and {unknown} are unknown");
        findings.add(format!("{text}, the revision grew by {grown}"), &[]);
    }
    let looked_at = format!("{ok} acknowledged, {unknown} unknown, {grown} counted");
    Verdict::of(NAME, property, looked_at, findings)
        .unless_too_little(ok > 0, "nothing was changed")
        .figures(json!({"acknowledged": ok, "unknown": unknown, "grown": grown}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Validity;
    use crate::history::Recorder;

    fn sends(ends: &[(Kind, Value)], request: Value) -> (Verdict, Verdict) {
        let recorder = Recorder::in_memory();
        recorder.observe("r", Note::new(NAME, "revision-before").value(10));
        for (kind, value) in ends {
            let process = recorder.process();
            recorder.invoke(process, Note::new(NAME, "put").key("K").value(1));
            recorder.end(process, *kind, Note::new(NAME, "put").key("K").value(value.clone()));
        }
        recorder.observe("r", Note::new(NAME, "request").key("K").value(request));
        recorder.observe("r", Note::new(NAME, "revision-after").value(11));
        let history = recorder.finish().unwrap();
        (answers(&history), effects(&history))
    }

    fn answer(index: u64) -> Value {
        json!({"task": null, "duplicate": null, "index": index})
    }

    #[test]
    fn one_answer_over_and_over_is_right() {
        let ends = [(Kind::Info, json!(1)), (Kind::Ok, answer(7)), (Kind::Ok, answer(7))];
        let (answers, effects) = sends(&ends, json!({"state": "committed", "index": 7}));
        assert_eq!(answers.validity, Validity::Valid, "{answers:?}");
        assert_eq!(effects.validity, Validity::Valid, "{effects:?}");
    }

    #[test]
    fn another_answer_or_another_place_is_found() {
        let committed = json!({"state": "committed", "index": 7});
        let duplicate = json!({"task": null, "duplicate": true, "index": 9});
        let twice = [(Kind::Ok, answer(7)), (Kind::Ok, duplicate)];
        assert_eq!(sends(&twice, committed.clone()).0.validity, Validity::Invalid);
        let repeated = [(Kind::Ok, answer(7)), (Kind::Ok, answer(9))];
        assert_eq!(sends(&repeated, committed).0.validity, Validity::Valid);
        let same = [(Kind::Ok, answer(7)), (Kind::Ok, answer(7))];
        for table in [json!({"state": "never_seen"}), json!({"state": "committed", "index": 8})] {
            assert_eq!(sends(&same, table).0.validity, Validity::Invalid);
        }
    }

    #[test]
    fn a_failure_that_happened_is_found() {
        let failed = [(Kind::Fail, json!(1))];
        let (answers, effects) = sends(&failed, json!({"state": "committed", "index": 7}));
        assert_eq!(answers.validity, Validity::Invalid);
        assert_eq!(effects.validity, Validity::Invalid, "the revision grew");
    }

    #[test]
    fn lost_and_doubled_changes_are_counted() {
        let recorder = Recorder::in_memory();
        recorder.observe("r", Note::new(NAME, "revision-before").value(10));
        for process in 0..3 {
            recorder.invoke(process, Note::new("register", "write").key("k").value(process));
            recorder.end(process, Kind::Ok, Note::new("register", "write").key("k"));
        }
        for (after, expected) in
            [(12, Validity::Invalid), (13, Validity::Valid), (14, Validity::Invalid)]
        {
            let with = recorder.finish().unwrap();
            let other = Recorder::in_memory();
            other.observe("r", Note::new(NAME, "revision-after").value(after));
            let mut last = other.finish().unwrap().ops.remove(0);
            last.time = with.end_ns() + 1;
            let mut ops = with.ops;
            ops.push(last);
            assert_eq!(effects(&History { ops }).validity, expected);
        }
    }
}
