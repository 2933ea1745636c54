//! What losing a leader costs a client: writes go on at a light, fixed rate while leaders fall.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::args::{Action, FailoverArgs, LoadArgs, System};
use super::drive::{Run, drive};
use super::histogram::Histogram;
use super::members::Members;
use super::read_back::read_back;
use super::report::{Quantiles, Report, ms};
use super::scenario::Meter;
use super::subject::Subject;
use super::tally::Outage;
use crate::clock;

/// Light enough that the members' processors are not what is measured.
const RATE_DEFAULT: f64 = 200.0;
/// While leaders are taken down, the rounds decide when the run ends.
const RUN_MAX: Duration = Duration::from_secs(24 * 3600);
const ACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(60);
const WHOLE_TIMEOUT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
const CLUSTER_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Rounds begin at a random point of the leader's heartbeat and election timers.
const JITTER_MS: u64 = 500;
const TRANSFER: &str = "/api/v1/cluster/transfer-leader";

/// Takes leaders down.
struct Rounds<'a> {
    subject: Arc<Subject>,
    members: Members,
    args: &'a FailoverArgs,
    run: Arc<Run>,
}

/// Runs the scenario.
///
/// # Errors
/// When a leader cannot be taken down, no write is acknowledged for a minute, or the cluster does
/// not become whole again.
pub(super) async fn run(load: &LoadArgs, args: &FailoverArgs) -> anyhow::Result<Report> {
    let mut load = load.clone();
    load.rate.get_or_insert(RATE_DEFAULT);
    if args.kills > 0 {
        (load.secs, load.requests) = (RUN_MAX, u64::MAX / 4);
    }
    let subject = Arc::new(Subject::new(args.target, &load));
    let members = Members::new(&args.members, load.url.len())?;
    if args.kills > 0 && args.action != Action::Transfer {
        ensure!(
            members.are_known() && members.can_restart(),
            "--kills needs --pid-file and --restart"
        );
    }
    ensure!(
        args.action != Action::Transfer || args.target == System::Quorate,
        "--action transfer is of Quorate only; kill or stop the others"
    );

    let meter = Meter::start(subject.control()).await;
    let run = if args.kills > 0 { Run::start_keeping(&load) } else { Run::start(&load) };
    let clients = tokio::spawn({
        let (run, clients, writes) = (Arc::clone(&run), load.clients, subject.writes());
        async move { drive(&run, clients, writes).await }
    });
    let rounds = Rounds { subject: Arc::clone(&subject), members, args, run: Arc::clone(&run) };
    let details = rounds.all(load.warmup).await;
    if args.kills > 0 {
        run.finish();
    }
    clients.await.context("the clients ended badly")?;
    if args.kills == 0 {
        run.finish();
    }
    let mut report = meter.report("failover", &load, &run, 1).await;
    report.details = details?;
    if args.kills > 0 {
        let read = read_back(subject, run.take_acknowledged()).await;
        report.details["read_back"] = serde_json::to_value(&read).context("naming the lost")?;
    }
    Ok(report)
}

impl Rounds<'_> {
    async fn all(&self, warmup: Duration) -> anyhow::Result<Value> {
        let (mut next_ack, mut silence) = (Histogram::default(), Histogram::default());
        let mut rows = Vec::new();
        tokio::time::sleep(warmup).await;
        for round in 0..self.args.kills {
            let (member, outage) = self.round().await.with_context(|| format!("round {round}"))?;
            next_ack.record(outage.next_ack);
            silence.record(outage.silence);
            tracing::info!(round, member, next_ack = ?outage.next_ack, "leader lost");
            rows.push(json!({
                "member": member + 1,
                "next_ack_ms": ms(outage.next_ack),
                "silence_ms": ms(outage.silence),
            }));
        }
        if rows.is_empty() {
            return Ok(Value::Null);
        }
        Ok(json!({
            "target": format!("{:?}", self.args.target).to_lowercase(),
            "action": format!("{:?}", self.args.action).to_lowercase(),
            "next_ack": Quantiles::from(&next_ack),
            "silence": Quantiles::from(&silence),
            "rounds": rows,
        }))
    }

    /// One leader down, writes acknowledged again, everybody back.
    async fn round(&self) -> anyhow::Result<(usize, Outage)> {
        let leader = self.whole().await?;
        self.run.spread();
        let jitter = Duration::from_millis(clock::random() % JITTER_MS);
        tokio::time::sleep(Duration::from_millis(self.args.settle_ms) + jitter).await;
        // Leadership may have moved meanwhile.
        let member = self.subject.leader().await?.unwrap_or(leader);
        let outage = match self.args.action {
            Action::Kill => self.lose(member, Signal::KILL).await?,
            Action::Stop => self.lose(member, Signal::TERM).await?,
            Action::Transfer => {
                mark(&self.run);
                self.subject.control().call("POST", TRANSFER, b"{}").await?;
                acknowledged(&self.run).await?
            }
        };
        Ok((member, outage))
    }

    async fn lose(&self, member: usize, signal: Signal) -> anyhow::Result<Outage> {
        lose(&self.subject, &self.members, &self.run, member, signal).await
    }

    /// Waits until somebody leads and everybody follows; returns the leader.
    async fn whole(&self) -> anyhow::Result<usize> {
        let deadline = Instant::now() + WHOLE_TIMEOUT;
        loop {
            if let Some(leader) = self.subject.whole().await? {
                return Ok(leader);
            }
            ensure!(Instant::now() < deadline, "the cluster is not whole after {WHOLE_TIMEOUT:?}");
            tokio::time::sleep(CLUSTER_POLL_INTERVAL).await;
        }
    }
}

fn mark(run: &Run) {
    run.tally.lock().mark(Instant::now());
}

/// Signals a member so that it ends, waits until a request of the run that was sent after that is
/// acknowledged, and starts the member again.
///
/// # Errors
/// When it does not end or come back, or nothing is acknowledged for a minute.
pub(super) async fn lose(
    subject: &Subject,
    members: &Members,
    run: &Run,
    member: usize,
    signal: Signal,
) -> anyhow::Result<Outage> {
    let pid = members.pid(member)?;
    mark(run);
    members.signal(pid, signal)?;
    let outage = acknowledged(run).await?;
    Members::wait_gone(pid).await?;
    members.restart(member).await?;
    subject.ready(member).await?;
    Ok(outage)
}

/// Waits until a request that was sent after the mark is acknowledged.
async fn acknowledged(run: &Run) -> anyhow::Result<Outage> {
    let deadline = Instant::now() + ACKNOWLEDGED_TIMEOUT;
    loop {
        // Bound to a name: the lock must not be held while sleeping.
        let outage = run.tally.lock().outage();
        if let Some(outage) = outage {
            return Ok(outage);
        }
        ensure!(Instant::now() < deadline, "nothing acknowledged for {ACKNOWLEDGED_TIMEOUT:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::extract::State;
    use axum::routing::{get, post};
    use axum::{Json, Router};
    use parking_lot::Mutex;

    use super::super::args::MembersArgs;
    use super::super::drive::tests::{load, serve};
    use super::super::etcd;
    use super::*;

    /// What a small etcd has, of one process: three members, and the second leads.
    type Keys = Arc<Mutex<BTreeSet<String>>>;

    async fn put(State(keys): State<Keys>, Json(put): Json<Value>) -> Json<Value> {
        keys.lock().insert(put["key"].as_str().unwrap().to_owned());
        Json(json!({"header": {}}))
    }

    /// Forgets one key.
    async fn range(State(keys): State<Keys>, Json(range): Json<Value>) -> Json<Value> {
        let key = range["key"].as_str().unwrap();
        let there = keys.lock().contains(key) && !key.ends_with("000000000003");
        Json(if there { json!({"count": "1"}) } else { json!({"header": {}}) })
    }

    fn member(id: usize, keys: &Keys) -> Router {
        let status = json!({"header": {"member_id": id.to_string()}, "leader": "2",
            "raftAppliedIndex": "7"});
        Router::new()
            .route(etcd::PUT, post(put))
            .route(etcd::RANGE, post(range))
            .route(etcd::STATUS, post(async move || Json(status.clone())))
            .route(etcd::HEALTH, get(async || r#"{"health":"true"}"#))
            .with_state(Arc::clone(keys))
    }

    /// The processes that are killed are only called members; those that answer live on.
    #[tokio::test]
    async fn etcd_is_measured_round_by_round_and_its_writes_are_read_back() {
        let (dir, keys) = (tempfile::tempdir().unwrap(), Keys::default());
        let mut urls = Vec::new();
        for id in 1..=3 {
            urls.push(serve(member(id, &keys)).await);
        }
        let start = "sleep 600 & echo $! > {pid_file}; \
                     until grep -q sleep /proc/$!/comm; do :; done";
        let members = MembersArgs {
            pid_file: (1..=3).map(|n| dir.path().join(format!("{n}.pid"))).collect(),
            restart: Some(start.to_owned()),
            process_name: "sleep".to_owned(),
        };
        let processes = Members::new(&members, 3).unwrap();
        processes.restart(1).await.unwrap();
        let first = processes.pid(1).unwrap();

        let mut load = load(urls, u64::MAX);
        load.rate = Some(2_000.0);
        let (target, action) = (System::Etcd, Action::Kill);
        let args = FailoverArgs { target, members, kills: 1, action, settle_ms: 20 };
        let report = run(&load, &args).await.unwrap();
        let last = processes.pid(1).unwrap();
        processes.signal(last, Signal::KILL).unwrap();

        assert_ne!(first, last, "the leader was killed and started again");
        let details = &report.details;
        assert_eq!(
            (&details["target"], &details["rounds"][0]["member"]),
            (&json!("etcd"), &json!(2))
        );
        let (read, written) = (&details["read_back"], keys.lock().len());
        assert_eq!(read["acknowledged"], written);
        assert_eq!((&read["lost"], &read["lost_numbers"]), (&json!(1), &json!([3])));
        assert_eq!(read["unread"], 0);
    }

    #[tokio::test]
    async fn etcd_is_not_asked_to_hand_over() {
        let members = MembersArgs { pid_file: vec![], restart: None, process_name: "x".to_owned() };
        let (target, action) = (System::Etcd, Action::Transfer);
        let args = FailoverArgs { target, members, kills: 1, action, settle_ms: 0 };
        let error = run(&load(vec!["a:1".parse().unwrap()], 1), &args).await.unwrap_err();
        assert!(error.to_string().contains("of Quorate only"), "{error}");
    }
}
