//! A set of submitted tasks: what was acknowledged is there, on every member, for ever; what
//! certainly failed is not; what is unknown is there or not, and then the same everywhere.
//!
//! No node can execute these tasks, so they only ever wait.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join_all};
use serde_json::{Value, json};

use super::actor::{Actor, highest_index, insist};
use super::{HarnessError, Stage, Workload};
use crate::checker::coverage::Floor;
use crate::checker::{Findings, Verdict};
use crate::client::{Client, Request};
use crate::history::{Call, History, Kind, Note};

const NAME: &str = "set";
/// How long one member may take to be read at the end.
const PATIENCE: Duration = Duration::from_secs(8);

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Set {
    last: AtomicU64,
}

impl Set {
    async fn client(&self, mut actor: Actor<'_>) {
        while actor.turn().await {
            let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
            let body = json!({
                "task_id": format!("set-{number}"), "task_type": "jepsen_set",
                "requirements": {"capabilities": ["jepsen-nobody-has-this"]},
            });
            let request = Request::post("/api/v1/tasks", body).key(format!("set-{number}"));
            let (seat, note) = (actor.seat(), actor.note("submit").value(number));
            let result = |reply: &crate::client::Reply| {
                json!([number, reply.body["details"]["duplicate"].as_bool().unwrap_or(false)])
            };
            actor.act(&seat, note, &request, result).await;
        }
    }
}

/// Walks all tasks of one member.
async fn walk(client: &Client, url: &str, mode: &str) -> Result<Vec<u64>, String> {
    let (mut cursor, mut found) = (String::new(), Vec::new());
    loop {
        let path = format!("/api/v1/tasks?limit=1000&cursor={cursor}{mode}");
        let reply = insist(client, url, &path, PATIENCE).await?;
        let items = reply.body["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ids = items.iter().filter_map(|item| item["task_id"].as_str());
        found.extend(ids.filter_map(|id| id.strip_prefix("set-")?.parse::<u64>().ok()));
        match &reply.body["next_cursor"] {
            Value::Null => return Ok(found),
            next => cursor = next.as_str().map_or_else(|| next.to_string(), str::to_owned),
        }
    }
}

impl Workload for Set {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            let count = stage.load.clients.max(1);
            let clients =
                (0..count).map(|n| self.client(Actor::new(stage, &client, NAME, n, count)));
            join_all(clients).await;
            Ok(())
        }
        .boxed()
    }

    fn finish<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            let local = format!("&consistency=local&min_index={}", highest_index(stage));
            for (number, url) in stage.members.all() {
                for (mode, query) in [("linearizable", ""), ("local", local.as_str())] {
                    let (f, value) = match walk(&client, &url, query).await {
                        Ok(found) => ("final", json!({"mode": mode, "found": found})),
                        Err(why) => ("final-failed", json!({"mode": mode, "why": why})),
                    };
                    let note = Note { node: Some(number), ..Note::new(NAME, f).value(value) };
                    stage.recorder.observe("set-reader", note);
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn floors(&self) -> Vec<Floor> {
        vec![Floor { f: "submit", per_second: 2.0 }]
    }

    fn check(&self, history: &History) -> Vec<Verdict> {
        vec![check(history)]
    }
}

fn check(history: &History) -> Verdict {
    let calls = history.calls(NAME);
    let mut findings = Findings::default();
    let number = |call: &Call<'_>| call.invoke.value.as_u64();
    let ended = |kind: Kind| -> BTreeSet<u64> {
        calls.iter().filter(|call| call.kind() == kind).filter_map(number).collect()
    };
    let (acked, failed, unknown) = (ended(Kind::Ok), ended(Kind::Fail), ended(Kind::Info));
    for call in calls.iter().filter(|call| call.is_ok() && call.result()[1] == true) {
        let text = format!("{} was sent once and answered as a duplicate", call.invoke.value);
        findings.add(text, &[call.invoke.index]);
    }
    let mut finals: Vec<(String, BTreeSet<u64>)> = Vec::new();
    for op in history.observed(NAME, "final") {
        let found = op.value["found"].as_array().map(Vec::as_slice).unwrap_or_default();
        let numbers: Vec<u64> = found.iter().filter_map(Value::as_u64).collect();
        let present: BTreeSet<u64> = numbers.iter().copied().collect();
        let mode = op.value["mode"].as_str().unwrap_or_default();
        let where_ = format!("member {} ({mode})", op.node.unwrap_or(0));
        if present.len() < numbers.len() {
            findings.add(format!("{where_} lists a task twice"), &[op.index]);
        }
        for lost in acked.difference(&present) {
            findings.add(format!("{lost} was acknowledged and is not on {where_}"), &[op.index]);
        }
        for ghost in present.intersection(&failed) {
            findings.add(format!("{ghost} certainly failed and is on {where_}"), &[op.index]);
        }
        let known = |n: &&u64| acked.contains(n) || failed.contains(n) || unknown.contains(n);
        for phantom in present.iter().filter(|n| !known(n)) {
            findings
                .add(format!("{phantom} was submitted by nobody and is on {where_}"), &[op.index]);
        }
        finals.push((where_, present));
    }
    for pair in finals.windows(2) {
        for odd in pair[0].1.symmetric_difference(&pair[1].1) {
            findings.add(format!("{odd} is not on both {} and {}", pair[0].0, pair[1].0), &[]);
        }
    }
    let recovered = finals.first().map_or(0, |(_, present)| present.intersection(&unknown).count());
    let unread = history.observed(NAME, "final-failed").count();
    let looked_at = format!(
        "{} acknowledged, {} unknown of which {recovered} happened, {} failed, {} final reads",
        acked.len(),
        unknown.len(),
        failed.len(),
        finals.len()
    );
    let figures = json!({
        "acknowledged": acked.len(), "unknown": unknown.len(), "recovered": recovered,
        "failed": failed.len(), "final_reads": finals.len(), "unread": unread,
    });
    let enough = !acked.is_empty() && !finals.is_empty() && unread == 0;
    Verdict::of(NAME, "nothing acknowledged is lost", looked_at, findings)
        .unless_too_little(enough, "a member could not be read at the end, or nothing was written")
        .figures(figures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Validity;
    use crate::history::Recorder;

    /// Tasks 1 (ok), 2 (unknown), 3 (failed), and what two members hold at the end.
    fn verdict(members: [&[u64]; 2]) -> Verdict {
        let recorder = Recorder::in_memory();
        for (number, kind) in [(1, Kind::Ok), (2, Kind::Info), (3, Kind::Fail)] {
            recorder.invoke(number, Note::new(NAME, "submit").value(number));
            let value = json!([number, false]);
            recorder.end(number, kind, Note::new(NAME, "submit").value(value));
        }
        for (place, found) in members.iter().enumerate() {
            let note = Note::new(NAME, "final").value(json!({"mode": "local", "found": found}));
            let node = Some(place as u64 + 1);
            recorder.observe("set-reader", Note { node, ..note });
        }
        check(&recorder.finish().unwrap())
    }

    #[test]
    fn unknown_submissions_may_be_there_or_not_but_alike() {
        for found in [&[1, 2][..], &[1]] {
            let verdict = verdict([found, found]);
            assert_eq!(verdict.validity, Validity::Valid, "{verdict:?}");
        }
        assert_eq!(verdict([&[1, 2], &[1]]).validity, Validity::Invalid);
    }

    #[test]
    fn losses_ghosts_phantoms_and_doubles_are_found() {
        for (found, part) in [
            (&[2][..], "1 was acknowledged and is not"),
            (&[1, 3], "3 certainly failed and is"),
            (&[1, 9], "9 was submitted by nobody"),
            (&[1, 1], "twice"),
        ] {
            let verdict = verdict([found, found]);
            assert_eq!(verdict.validity, Validity::Invalid);
            assert!(verdict.findings.iter().any(|text| text.contains(part)), "{verdict:?}");
        }
    }

    #[test]
    fn without_a_final_read_nothing_is_known() {
        let recorder = Recorder::in_memory();
        recorder.invoke(1, Note::new(NAME, "submit").value(1));
        recorder.end(1, Kind::Ok, Note::new(NAME, "submit").value(json!([1, false])));
        assert_eq!(check(&recorder.finish().unwrap()).validity, Validity::Unknown);
    }
}
