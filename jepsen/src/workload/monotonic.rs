//! Reads of clients that hop from member to member: each carries the index it saw last, and never
//! sees less. Bounds that are asked for are kept, and a linearizable read sees every write that
//! anybody was told of before it began.

use futures::future::{BoxFuture, FutureExt, join_all};
use rand::RngExt;
use serde_json::json;

use super::actor::Actor;
use super::{HarnessError, Stage, Workload};
use crate::checker::coverage::Floor;
use crate::checker::{Findings, Verdict};
use crate::client::{Client, Reply, Request};
use crate::history::{Call, History};

const NAME: &str = "monotonic";
/// The bound on age that some reads ask for, in ms.
const AGE_MAX_MS: u64 = 500;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Monotonic;

async fn client(mut actor: Actor<'_>, session: usize) {
    let mut seen = 0;
    while actor.turn().await {
        let (f, query) = match actor.rng.random_range(0..10) {
            0..6 => ("hop", format!("?consistency=local&min_index={seen}")),
            6..8 => ("aged", format!("?consistency=local&min_index={seen}&max_age={AGE_MAX_MS}ms")),
            _ => ("read", String::new()),
        };
        let asked = json!({"session": session, "min_index": seen});
        let (seat, note) = (actor.seat(), actor.note(f).value(asked));
        let request = Request::get(format!("/api/v1/config{query}"));
        let told = |reply: &Reply| {
            json!({"index": reply.index, "revision": reply.body["revision"], "age_ms": reply.age_ms,
                "consistency": reply.consistency, "session": session})
        };
        let reply = actor.act(&seat, note, &request, told).await;
        seen = seen.max(reply.index.unwrap_or(0));
    }
}

impl Workload for Monotonic {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let http = Client::new();
            let count = stage.load.clients.max(1);
            let clients = (0..count).map(|n| client(Actor::new(stage, &http, NAME, n, count), n));
            join_all(clients).await;
            Ok(())
        }
        .boxed()
    }

    fn finish<'a>(&'a self, _: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async { Ok(()) }.boxed()
    }

    fn floors(&self) -> Vec<Floor> {
        ["hop", "aged", "read"].map(|f| Floor { f, per_second: 0.5 }).into()
    }

    fn check(&self, history: &History) -> Vec<Verdict> {
        vec![sessions(history), bounds(history), recency(history)]
    }
}

/// No session sees the configuration go back.
fn sessions(history: &History) -> Verdict {
    let calls = history.calls(NAME);
    let mut findings = Findings::default();
    let mut last: std::collections::BTreeMap<u64, (u64, u64, u64)> = Default::default();
    let mut reads = 0;
    for call in calls.iter().filter(|call| call.is_ok()) {
        let told = call.result();
        let (Some(session), Some(index), Some(revision)) =
            (told["session"].as_u64(), told["index"].as_u64(), told["revision"].as_u64())
        else {
            findings
                .add(format!("an answer without index or revision: {told}"), &[call.invoke.index]);
            continue;
        };
        reads += 1;
        let (old_index, old_revision, line) = last.get(&session).copied().unwrap_or_default();
        for (what, old, new) in [("index", old_index, index), ("revision", old_revision, revision)]
        {
            if new < old {
                let text = format!("session {session}: {what} went from {old} back to {new}");
                findings.add(text, &[line, call.invoke.index]);
            }
        }
        let now = (index.max(old_index), revision.max(old_revision), call.invoke.index);
        last.insert(session, now);
    }
    let looked_at = format!("{} sessions, {reads} reads", last.len());
    Verdict::of(NAME, "sessions never go back", looked_at, findings)
        .unless_too_little(reads > 0, "no read")
}

/// What was asked for was served, or refused.
fn bounds(history: &History) -> Verdict {
    let calls = history.calls(NAME);
    let mut findings = Findings::default();
    let mut reads = 0;
    for call in calls.iter().filter(|call| call.is_ok()) {
        reads += 1;
        let told = call.result();
        let mode = if call.invoke.f == "read" { "linearizable" } else { "local" };
        let line = [call.invoke.index];
        if told["consistency"] != mode {
            findings.add(format!("asked for {mode}, served {}", told["consistency"]), &line);
        }
        if mode == "local" && told["index"].as_u64() < call.invoke.value["min_index"].as_u64() {
            let wanted = &call.invoke.value["min_index"];
            findings.add(format!("asked for index {wanted}, served {}", told["index"]), &line);
        }
        if call.invoke.f == "aged" && told["age_ms"].as_u64().is_none_or(|age| age > AGE_MAX_MS) {
            findings.add(format!("asked for {AGE_MAX_MS} ms, served {}", told["age_ms"]), &line);
        }
    }
    let looked_at = format!("{reads} reads");
    Verdict::of(NAME, "bounds are kept", looked_at, findings)
        .unless_too_little(reads > 0, "no read")
}

/// A linearizable read, of any workload, is served at or after the index of every write that was
/// acknowledged, to anybody, before it began.
fn recency(history: &History) -> Verdict {
    let calls = history.all_calls();
    let with_index =
        |call: &&Call<'_>| call.is_ok() && call.end.is_some_and(|end| end.log.is_some());
    let index = |call: &Call<'_>| call.end.and_then(|end| end.log).unwrap_or(0);
    // Every ok answer that is not a local read shows that its index was committed when it came.
    let is_local = |call: &&Call<'_>| matches!(call.invoke.f.as_str(), "hop" | "aged");
    let mut acked: Vec<(u64, u64, u64)> = calls
        .iter()
        .filter(with_index)
        .filter(|call| !is_local(call))
        .map(|call| (call.end_ns(), index(call), call.invoke.index))
        .collect();
    acked.sort_unstable();
    // The highest index acknowledged up to each place.
    let mut highest: Vec<(u64, u64, u64)> = Vec::with_capacity(acked.len());
    for (end, index, line) in acked {
        let (_, old, old_line) = highest.last().copied().unwrap_or_default();
        highest.push(if index > old { (end, index, line) } else { (end, old, old_line) });
    }
    let mut findings = Findings::default();
    let mut reads = 0;
    for call in calls.iter().filter(with_index).filter(|call| call.invoke.f == "read") {
        reads += 1;
        let before = highest.partition_point(|(end, ..)| *end < call.invoke.time);
        let Some((_, wanted, line)) = before.checked_sub(1).map(|place| highest[place]) else {
            continue;
        };
        if index(call) < wanted {
            let text = format!("served at index {}, {wanted} was acknowledged before", index(call));
            findings.add(text, &[line, call.invoke.index]);
        }
    }
    let looked_at = format!("{reads} linearizable reads against {} answers", highest.len());
    Verdict::of(NAME, "reads see what was acknowledged", looked_at, findings)
        .unless_too_little(reads > 0, "no read")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::checker::Validity;
    use crate::history::{Kind, Note, Recorder};

    fn told(index: u64, revision: u64, age_ms: u64, mode: &str) -> Value {
        json!({"index": index, "revision": revision, "age_ms": age_ms, "consistency": mode,
            "session": 0})
    }

    fn reads(all: &[(&str, u64, Value)]) -> [Validity; 3] {
        let recorder = Recorder::in_memory();
        for (f, min_index, told) in all {
            let asked = json!({"session": 0, "min_index": min_index});
            recorder.invoke(0, Note::new(NAME, *f).value(asked));
            let log = told["index"].as_u64();
            recorder.end(0, Kind::Ok, Note { log, ..Note::new(NAME, *f).value(told.clone()) });
        }
        let history = recorder.finish().unwrap();
        [sessions(&history), bounds(&history), recency(&history)].map(|verdict| verdict.validity)
    }

    use Validity::{Invalid, Valid};

    #[test]
    fn reads_that_go_forward_within_their_bounds_are_good() {
        let good = [
            ("read", 0, told(5, 2, 0, "linearizable")),
            ("hop", 5, told(5, 2, 900, "local")),
            ("aged", 5, told(6, 3, 500, "local")),
            ("read", 6, told(6, 3, 0, "linearizable")),
        ];
        assert_eq!(reads(&good), [Valid; 3]);
    }

    #[test]
    fn a_session_that_goes_back_is_found() {
        let first = ("hop", 0, told(9, 4, 0, "local"));
        let back = ("hop", 9, told(9, 3, 0, "local"));
        assert_eq!(reads(&[first, back])[0], Invalid);
    }

    #[test]
    fn a_bound_that_is_not_kept_is_found() {
        for read in [
            ("hop", 9, told(8, 1, 0, "local")),
            ("aged", 0, told(8, 1, 501, "local")),
            ("read", 0, told(8, 1, 0, "local")),
        ] {
            assert_eq!(reads(&[read])[1], Invalid);
        }
    }

    #[test]
    fn a_read_behind_what_was_acknowledged_is_found() {
        let recorder = Recorder::in_memory();
        recorder.invoke(1, Note::new("set", "submit").value(1));
        recorder.end(1, Kind::Ok, Note { log: Some(7), ..Note::new("set", "submit") });
        recorder.invoke(2, Note::new("register", "read").key("k"));
        recorder.end(2, Kind::Ok, Note { log: Some(6), ..Note::new("register", "read") });
        assert_eq!(recency(&recorder.finish().unwrap()).validity, Invalid);
    }
}
