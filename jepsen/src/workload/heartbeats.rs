//! Nodes that only say that they are there, every second and to every member, whoever leads. One that
//! kept saying so is never declared lost; one that stopped is found to be.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join_all};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::actor::{insist, insist_write};
use super::{HarnessError, Stage, Workload};
use crate::checker::coverage::Floor;
use crate::checker::streams::all_events;
use crate::checker::{Findings, Verdict};
use crate::client::{Client, Request};
use crate::history::{History, Kind, Note};

const NAME: &str = "heartbeats";
/// Nodes that are there all the time.
const STEADY: usize = 24;
/// Nodes that stop when the faults are over.
const DYING: usize = 4;
const BEAT: Duration = Duration::from_secs(1);
/// Silence after which a node is lost (`network.node_timeout`), in seconds.
const TIMEOUT_S: u64 = 8;
/// How long it may take until those that stopped are known to be lost.
const FOUND_WITHIN: Duration = Duration::from_secs(TIMEOUT_S + 12);
const PATIENCE: Duration = Duration::from_secs(8);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Heartbeats;

fn node(number: usize) -> String {
    if number < STEADY { format!("beats-{number}") } else { format!("stops-{number}") }
}

/// Sends one heartbeat of a node to every member.
async fn beat(stage: &Stage, client: &Client, process: u64, number: usize) {
    let path = format!("/api/v1/nodes/{}/heartbeat", node(number));
    let request = Request::post(path, json!({}));
    let note = Note::new(NAME, "beat").key(node(number));
    stage.recorder.invoke(process, note.clone());
    let members = stage.members.all();
    let sends = members.iter().map(|(_, url)| client.send_within(url, &request, BEAT));
    let taken = join_all(sends).await.iter().filter(|reply| reply.kind == Kind::Ok).count();
    let kind = if taken > 0 { Kind::Ok } else { Kind::Fail };
    stage.recorder.end(process, kind, note.value(json!(taken)));
}

/// Says that node `number` is there until it stops; nodes that stop do so when the clients do.
async fn keep(stage: Stage, client: Client, number: usize) {
    let process = stage.recorder.process();
    let end = if number < STEADY { &stage.over } else { &stage.stop };
    // Spread over the second.
    sleep(BEAT.mul_f64(number as f64 / (STEADY + DYING) as f64)).await;
    let mut next = Instant::now();
    while !end.is_cancelled() {
        beat(&stage, &client, process, number).await;
        next += BEAT;
        tokio::select! { () = end.cancelled() => {} () = tokio::time::sleep_until(next) => {} }
    }
    stage.recorder.observe("beats", Note::new(NAME, "stopped").key(node(number)));
}

/// The status of each node of ours, as one member has it.
async fn statuses(client: &Client, url: &str, mode: &str) -> Result<Value, String> {
    let reply = insist(client, url, &format!("/api/v1/nodes{mode}"), PATIENCE).await?;
    let nodes = reply.body["nodes"].as_object().cloned().unwrap_or_default();
    let ours =
        nodes.into_iter().filter(|(id, _)| id.starts_with("beats-") || id.starts_with("stops-"));
    Ok(Value::Object(ours.map(|(id, node)| (id, node["status"].clone())).collect()))
}

impl Workload for Heartbeats {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let failed = |what: String| HarnessError { workload: NAME, what };
            let client = Client::new();
            let patch = json!({"network": {"node_timeout": TIMEOUT_S, "max_nodes": 1000}});
            let request = Request::put("/api/v1/config", patch);
            insist_write(stage, &client, &request).await.map_err(failed)?;
            for number in 0..STEADY + DYING {
                let path = format!("/api/v1/nodes/{}/register", node(number));
                // Nobody is there: nothing that is asked for in these runs can be done by them.
                let body = json!({"host": "127.0.0.1", "port": 9, "capacity": 1,
                    "capabilities": ["jepsen-beats"]});
                let request = Request::post(path, body);
                insist_write(stage, &client, &request).await.map_err(failed)?;
                tokio::spawn(keep(stage.clone(), client.clone(), number));
            }
            Ok(())
        }
        .boxed()
    }

    fn run<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            stage.stop.cancelled().await;
            Ok(())
        }
        .boxed()
    }

    fn finish<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let client = Client::new();
            let began = Instant::now();
            let all_found = |nodes: &Value| {
                (STEADY..STEADY + DYING).all(|number| nodes[node(number)] == "offline")
            };
            while began.elapsed() < FOUND_WITHIN {
                let mut found = false;
                for (_, url) in stage.members.all().into_iter().take(1) {
                    let seen = statuses(&client, &url, "").await;
                    found = seen.is_ok_and(|nodes| all_found(&nodes));
                }
                if found {
                    break;
                }
                sleep(Duration::from_millis(200)).await;
            }
            let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            stage.recorder.observe("beats-reader", Note::new(NAME, "found").value(took));
            for (number, url) in stage.members.all() {
                if let Ok(nodes) = statuses(&client, &url, "").await {
                    let note = Note { node: Some(number), ..Note::new(NAME, "final").value(nodes) };
                    stage.recorder.observe("beats-reader", note);
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn floors(&self) -> Vec<Floor> {
        vec![Floor { f: "beat", per_second: 5.0 }]
    }

    fn check(&self, history: &History) -> Vec<Verdict> {
        vec![check(history)]
    }
}

/// Nobody who kept saying so was lost, at any time; everybody who stopped was, in the end.
fn check(history: &History) -> Verdict {
    let mut findings = Findings::default();
    let mut lost: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, data) in all_events(history) {
        let node = data["node_id"].as_str().unwrap_or_default();
        let gone = data["type"] == "node_removed"
            || (data["type"] == "node_status_changed" && data["new"] == "offline");
        if !gone {
            continue;
        }
        *lost.entry(node).or_default() += 1;
        if node.starts_with("beats-") {
            findings.add(format!("{node} was given up at {}-{}, and was there", id.0, id.1), &[]);
        }
    }
    let mut finals = 0;
    for op in history.observed(NAME, "final") {
        finals += 1;
        for number in 0..STEADY + DYING {
            let (node, steady) = (node(number), number < STEADY);
            let status = op.value[&node].as_str().unwrap_or("unknown");
            if steady == matches!(status, "offline" | "unknown") {
                let member = op.node.unwrap_or(0);
                findings.add(format!("{node} is {status} on member {member}"), &[op.index]);
            }
        }
    }
    let beats = history.calls(NAME).iter().filter(|call| call.is_ok()).count();
    let found = history.observed(NAME, "found").next().and_then(|op| op.value.as_u64());
    let looked_at = format!(
        "{beats} heartbeats of {STEADY} nodes; {DYING} that stopped were found after {} ms",
        found.unwrap_or(0)
    );
    Verdict::of(NAME, "who is there is not lost, who is gone is found", looked_at, findings)
        .unless_too_little(beats > 0 && finals > 0, "no heartbeat was taken, or no member was read")
        .figures(json!({"beats": beats, "found_after_ms": found, "lost": lost.len()}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Validity;
    use crate::history::Recorder;

    fn verdict(edit: impl FnOnce(&mut Value)) -> Verdict {
        let recorder = Recorder::in_memory();
        recorder.invoke(1, Note::new(NAME, "beat").key(node(0)));
        recorder.end(1, Kind::Ok, Note::new(NAME, "beat").key(node(0)).value(3));
        let mut nodes = json!({});
        for number in 0..STEADY + DYING {
            nodes[node(number)] = json!(if number < STEADY { "active" } else { "offline" });
        }
        edit(&mut nodes);
        recorder.observe("r", Note::new(NAME, "final").value(nodes));
        check(&recorder.finish().unwrap())
    }

    #[test]
    fn nodes_that_are_lost_or_not_found_are_told() {
        assert_eq!(verdict(|_| {}).validity, Validity::Valid);
        assert_eq!(
            verdict(|nodes| nodes["beats-3"] = json!("offline")).validity,
            Validity::Invalid
        );
        let stops = node(STEADY);
        assert_eq!(verdict(|nodes| nodes[stops] = json!("active")).validity, Validity::Invalid);
        assert_eq!(verdict(|nodes| nodes["beats-3"] = Value::Null).validity, Validity::Invalid);
    }
}
