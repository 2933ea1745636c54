//! The load generator behind `quorate bench`.
//!
//! It shares a machine with the members that it measures, so it must cost little: one thread, one
//! connection per client, prepared request bytes, histograms of constant size. Latency counts from
//! the moment at which a request was *due*: in an open loop (`--rate`) a stall costs all requests
//! that fell into it, in a closed loop (`--clients`) due means sent.
//!
//! Invariants: nothing here is part of a member or reads its files; every run is bounded in time
//! and in requests; a process is signalled only when it has the name of a member.

mod agents;
pub mod args;
mod bots;
mod campaigns;
mod connection;
mod control;
mod cpu_watch;
pub mod crowd;
mod deaths;
mod drive;
mod end_to_end;
mod etcd;
mod failover;
mod fleet;
mod flights;
mod framing;
mod gaps;
mod heartbeats;
mod histogram;
mod insist;
mod kill;
mod members;
mod process;
mod read_back;
mod report;
mod retained;
mod scenario;
mod schedule;
mod subject;
mod tally;
mod template;
mod watch;

use std::process::ExitCode;

use anyhow::Context;

pub use args::BenchArgs;
use args::Scenario;
use report::Report;

/// Runs a scenario and prints its figures. Fails with exit code 1 when no request succeeded.
///
/// The load runs on a thread with a runtime of its own, whatever runtime calls this: moving clients
/// between threads would cost more than the requests themselves.
///
/// # Errors
/// When the scenario could not be set up or did not come to its end, or the output is closed.
pub async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let output = args.load.output;
    let load_thread = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("starting the load's runtime")?.block_on(measure(args))
    });
    let report = load_thread.await.context("the load ended badly")??;
    report.print(output).context("printing the figures")?;
    Ok(if report.ok > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(BenchArgs { load, scenario }: BenchArgs) -> anyhow::Result<Report> {
    match scenario {
        Scenario::Submit => Ok(scenario::submit(&load).await),
        Scenario::Batch(args) => Ok(scenario::batch(&load, args).await),
        Scenario::Read(args) => scenario::read(&load, args).await,
        Scenario::Heartbeat(args) => scenario::heartbeat(&load, args).await,
        Scenario::Heartbeats(args) => heartbeats::run(&load, &args).await,
        Scenario::Agents(args) => agents::run(&load, &args).await,
        Scenario::EndToEnd(args) => end_to_end::run(&load, &args).await,
        Scenario::Failover(args) => failover::run(&load, &args).await,
        Scenario::Retained(args) => retained::run(&load, &args).await,
        Scenario::Campaigns(args) => campaigns::run(&load, &args).await,
        Scenario::Bots(args) => bots::run(&load, &args).await,
    }
}

#[cfg(test)]
mod tests;
