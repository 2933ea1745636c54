//! What losing a leader costs a client: writes go on at a light, fixed rate while leaders fall.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::args::{Action, FailoverArgs, LoadArgs};
use super::control::{Control, is_whole, leader_address};
use super::drive::{Run, drive};
use super::histogram::Histogram;
use super::members::{Members, wait_ready};
use super::report::{Quantiles, Report, ms};
use super::scenario::{Meter, NOWHERE};
use super::tally::Outage;
use super::template::{Template, task_json};
use crate::clock;

/// Light enough that the members' processors are not what is measured.
const RATE_DEFAULT: f64 = 200.0;
/// While leaders are taken down, the rounds decide when the run ends.
const RUN_MAX: Duration = Duration::from_secs(24 * 3600);
const ACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(60);
const WHOLE_TIMEOUT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
const CLUSTER_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// A member this many entries behind has caught up.
const LAG_MAX: u64 = 1000;
/// Rounds begin at a random point of the leader's heartbeat and election timers.
const JITTER_MS: u64 = 500;
const TRANSFER: &str = "/api/v1/cluster/transfer-leader";

/// Takes leaders down.
struct Rounds<'a> {
    control: Control,
    members: Members,
    args: &'a FailoverArgs,
    run: Arc<Run>,
}

/// Runs the scenario.
///
/// # Errors
/// When a leader cannot be taken down, no write is acknowledged for a minute, or the cluster does
/// not become whole again.
pub async fn run(load: &LoadArgs, args: &FailoverArgs) -> anyhow::Result<Report> {
    let mut load = load.clone();
    load.rate.get_or_insert(RATE_DEFAULT);
    if args.kills > 0 {
        (load.secs, load.requests) = (RUN_MAX, u64::MAX / 4);
    }
    let control = Control::new(&load);
    let members = Members::new(&args.members, load.url.len())?;
    if args.kills > 0 && args.action != Action::Transfer {
        ensure!(
            members.are_known() && members.can_restart(),
            "--kills needs --pid-file and --restart"
        );
    }
    let (headers, body) = (load.header.concat(), task_json(None, load.size, NOWHERE));
    let template = Template::new(&load.url, "POST", "/api/v1/tasks", &headers, &body);

    let meter = Meter::start(&control).await;
    let run = Run::start(&load);
    let clients = tokio::spawn({
        let (run, clients) = (Arc::clone(&run), load.clients);
        async move { drive(&run, clients, template).await }
    });
    let rounds = Rounds { control, members, args, run: Arc::clone(&run) };
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
        let leader = leader_address(&self.control.cluster().await).unwrap_or(leader);
        let member = self.member_at(&leader)?;
        let outage = match self.args.action {
            Action::Kill => self.lose(member, Signal::KILL).await?,
            Action::Stop => self.lose(member, Signal::TERM).await?,
            Action::Transfer => {
                self.mark();
                self.control.call("POST", TRANSFER, b"{}").await?;
                self.acknowledged().await?
            }
        };
        Ok((member, outage))
    }

    fn mark(&self) {
        self.run.tally.lock().mark(Instant::now());
    }

    async fn lose(&self, member: usize, signal: Signal) -> anyhow::Result<Outage> {
        let pid = self.members.pid(member)?;
        self.mark();
        self.members.signal(pid, signal)?;
        let outage = self.acknowledged().await?;
        Members::wait_gone(pid).await?;
        self.members.restart(member).await?;
        wait_ready(&self.control, &self.control.targets()[member]).await?;
        Ok(outage)
    }

    /// Waits until a write that was sent after the mark is acknowledged.
    async fn acknowledged(&self) -> anyhow::Result<Outage> {
        let deadline = Instant::now() + ACKNOWLEDGED_TIMEOUT;
        loop {
            // Bound to a name: the lock must not be held while sleeping.
            let outage = self.run.tally.lock().outage();
            if let Some(outage) = outage {
                return Ok(outage);
            }
            ensure!(Instant::now() < deadline, "nothing acknowledged for {ACKNOWLEDGED_TIMEOUT:?}");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until somebody leads and everybody follows; returns the leader's address.
    async fn whole(&self) -> anyhow::Result<String> {
        let deadline = Instant::now() + WHOLE_TIMEOUT;
        loop {
            let cluster = self.control.cluster().await;
            if let Some(leader) = leader_address(&cluster).filter(|_| is_whole(&cluster, LAG_MAX)) {
                return Ok(leader);
            }
            ensure!(Instant::now() < deadline, "not whole after {WHOLE_TIMEOUT:?}: {cluster}");
            tokio::time::sleep(CLUSTER_POLL_INTERVAL).await;
        }
    }

    fn member_at(&self, address: &str) -> anyhow::Result<usize> {
        let found = self.control.targets().iter().position(|target| target.authority == address);
        found.with_context(|| format!("the leader serves at {address}, which is no --url"))
    }
}
