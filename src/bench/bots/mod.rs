//! Swarms of many bots: how long it takes to make one, to give all of it work and to show it, how fast
//! its assignments are completed, and what members need for it.

mod line;
#[cfg(test)]
mod tests;
mod work;

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;

use self::line::{Line, Times};
use super::args::LoadArgs;
use super::control::Control;
use super::crowd::BotsArgs;
use super::members::Members;
use super::report::{Quantiles, Report};

/// What was written reaches the members' disks, and their memory, in this time.
const SETTLE: Duration = Duration::from_secs(2);

/// What is measured of swarms as a whole.
#[derive(Default)]
struct Swarms {
    made: Times,
    assigned: Times,
    shown: Times,
    removed: Times,
    shown_bytes: usize,
}

impl Swarms {
    /// Makes a swarm; the answer lists its bots.
    async fn make(&mut self, line: &mut Line, bots: u32) -> anyhow::Result<String> {
        let body = json!({"name": "bench", "count": bots}).to_string();
        let made = line.call("POST", "/swarms", &body).await?;
        let ids = made.body["bot_ids"].as_array().map_or(0, Vec::len);
        ensure!(ids == bots as usize, "{ids} bots of {bots}: there is no room for more");
        self.made.add(&made);
        Ok(made.body["id"].as_str().context("a swarm has an id")?.to_owned())
    }

    /// Gives every bot of a swarm work.
    async fn assign(&mut self, line: &mut Line, swarm: &str, bots: u32) -> anyhow::Result<()> {
        let path = format!("/swarms/{swarm}/tasks");
        let assigned = line.call("POST", &path, r#"{"type":"bench","data":{"depth":2}}"#).await?;
        ensure!(assigned.body["assignments"] == bots, "{}", assigned.body);
        self.assigned.add(&assigned);
        Ok(())
    }

    async fn show(&mut self, line: &mut Line, swarm: &str) -> anyhow::Result<()> {
        let shown = line.call("GET", &format!("/swarms/{swarm}"), "").await?;
        self.shown_bytes = shown.bytes;
        self.shown.add(&shown);
        Ok(())
    }

    async fn remove(&mut self, line: &mut Line, swarm: &str) -> anyhow::Result<()> {
        self.removed.add(&line.call("DELETE", &format!("/swarms/{swarm}"), "").await?);
        Ok(())
    }
}

/// Runs the scenario. The figures of the report are those of completions one by one.
///
/// # Errors
/// When a request fails, there is no room for the bots, or something was not counted once.
pub(super) async fn run(load: &LoadArgs, args: &BotsArgs) -> anyhow::Result<Report> {
    let members = Members::new(&args.members, load.url.len())?;
    let control = Control::new(load);
    let (mut line, mut swarms) = (Line::to(load, 0), Swarms::default());
    let without = stats(&mut line, args.reads).await?;
    let mut resident = json!({"before": members.resident_each()});
    let swarm = swarms.make(&mut line, args.bots).await?;
    swarms.assign(&mut line, &swarm, args.bots).await?;
    tokio::time::sleep(SETTLE).await;
    resident["assigned"] = json!(members.resident_each());
    let with = stats(&mut line, args.reads).await?;
    for number in 0..args.rounds {
        swarms.show(&mut Line::to(load, number as usize), &swarm).await?;
    }
    for _ in 1..args.waves {
        swarms.assign(&mut line, &swarm, args.bots).await?;
    }
    let executed = control.call("GET", "/bots/stats", b"").await?["tasks_executed"].as_u64();
    let batches = work::in_batches(load, args, &swarm).await?;
    swarms.assign(&mut line, &swarm, args.bots).await?;
    let mut report = work::one_by_one(load, args, &control, &swarm).await?;
    tokio::time::sleep(SETTLE).await;
    resident["completed"] = json!(members.resident_each());
    let after = control.call("GET", "/bots/stats", b"").await?;
    let due = executed.unwrap_or(0) + u64::from(args.waves + 1) * u64::from(args.bots);
    ensure!(after["tasks_executed"] == due, "{due} completions are due: {after}");
    swarms.remove(&mut line, &swarm).await?;
    for number in 1..args.rounds {
        let mut line = Line::to(load, number as usize);
        let swarm = swarms.make(&mut line, args.bots).await?;
        swarms.assign(&mut line, &swarm, args.bots).await?;
        swarms.remove(&mut line, &swarm).await?;
    }
    report.scenario = "bots".to_owned();
    report.details = json!({
        "bots": args.bots,
        "make": swarms.made.both(),
        "assign": swarms.assigned.total(),
        "show": {"bytes": swarms.shown_bytes, "times": swarms.shown.both()},
        "remove": swarms.removed.total(),
        "stats_without_bots": without,
        "stats_with_bots": with,
        "in_batches": batches,
        "resident_bytes": resident,
    });
    Ok(report)
}

/// The statistics, read again and again.
async fn stats(line: &mut Line, reads: u32) -> anyhow::Result<Quantiles> {
    let mut times = Times::default();
    for _ in 0..reads {
        times.add(&line.call("GET", "/bots/stats", "").await?);
    }
    Ok(times.total())
}
