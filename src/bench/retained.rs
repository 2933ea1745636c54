//! Fills a cluster with tasks that stay, so that memory, snapshots and restarts can be measured.

use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::args::{EndToEndArgs, LoadArgs, Observe, Retain, RetainedArgs};
use super::control::Control;
use super::end_to_end;
use super::members::{Members, READY, wait_ready};
use super::report::{Report, ms};
use super::scenario::{Meter, batches, run_id, send_all};
use super::template::{NUMBER, Template};

/// Filling ends by count; this only bounds it.
const FILL_MAX: Duration = Duration::from_secs(3600);

/// Runs the scenario.
///
/// # Errors
/// When a task is refused, or the member does not come back.
pub(super) async fn run(load: &LoadArgs, args: &RetainedArgs) -> anyhow::Result<Report> {
    let members = Members::new(&args.members, load.url.len())?;
    let control = Control::new(load);
    let before = members.resident_bytes();
    let mut report = match args.state {
        Retain::Completed => complete(load, args).await?,
        Retain::Pending | Retain::Cancelled => fill(load, args, &control).await?,
    };
    let tasks = u64::from(args.tasks.div_ceil(args.batch)) * u64::from(args.batch);
    let mut details = json!({ "retained": tasks, "fill": report.details });
    if let Some((before, after)) = before.zip(members.resident_bytes()) {
        let grown = after.saturating_sub(before);
        let count = load.url.len() as u64;
        details["resident_bytes"] = json!({
            "before": before, "after": after, "per_task_and_member": grown / tasks / count,
        });
    }
    if let Some(number) = args.restart_member {
        details["restart"] = restart(&control, &members, number).await?;
        details["counters_after_restart"] = control.counters().await;
    }
    report.scenario = format!("retained {:?}", args.state).to_lowercase();
    report.details = details;
    Ok(report)
}

/// Tasks that nodes of this process complete.
async fn complete(load: &LoadArgs, args: &RetainedArgs) -> anyhow::Result<Report> {
    let load = LoadArgs {
        requests: u64::from(args.tasks.div_ceil(args.batch)),
        rate: None,
        secs: FILL_MAX,
        warmup: Duration::ZERO,
        // A client waits for all tasks of its batch, so a few clients keep many tasks going.
        clients: load.clients.min(4),
        ..load.clone()
    };
    let fleet = args.fleet.clone();
    let args = EndToEndArgs { fleet, batch: args.batch, observe: Observe::Events };
    end_to_end::run(&load, &args).await
}

/// Tasks that no node can take, cancelled afterwards when that is asked for.
async fn fill(load: &LoadArgs, args: &RetainedArgs, control: &Control) -> anyhow::Result<Report> {
    let prefix = format!("{}-", run_id());
    let requests = u64::from(args.tasks.div_ceil(args.batch));
    let meter = Meter::start(control).await;
    let template = batches(load, args.batch, Some(&prefix));
    let run = send_all(load, template, requests).await?;
    if args.state == Retain::Cancelled {
        let path = format!("/api/v1/tasks/{prefix}{NUMBER}");
        let template = Template::new(&load.url, "DELETE", &path, &load.header.concat(), "");
        send_all(load, template, requests * u64::from(args.batch)).await?;
    }
    Ok(meter.report("fill", load, &run, args.batch).await)
}

/// Stops a member (counted from 1) and measures from its start until it is ready.
async fn restart(control: &Control, members: &Members, number: usize) -> anyhow::Result<Value> {
    ensure!(number >= 1, "members are counted from 1");
    let target = control.targets().get(number - 1);
    let target = target.with_context(|| format!("there is no URL number {number}"))?;
    let pid = members.pid(number - 1)?;
    members.signal(pid, Signal::TERM)?;
    let stopping = Instant::now();
    Members::wait_gone(pid).await?;
    let starting = Instant::now();
    members.restart(number - 1).await?;
    wait_ready(control, target, READY).await?;
    Ok(json!({
        "member": number,
        "stop_ms": ms(starting - stopping),
        "ready_ms": ms(starting.elapsed()),
        "resident_bytes": members.resident_bytes(),
    }))
}
