//! A large fleet that beats steadily, some of which falls silent at one moment: what it costs the
//! members, and how soon they know who is gone.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::args::LoadArgs;
use super::control::Control;
use super::cpu_watch::CpuWatch;
use super::crowd::HeartbeatsArgs;
use super::deaths::{Deaths, Seen};
use super::drive::Run;
use super::histogram::Histogram;
use super::insist::Insist;
use super::kill::{Kill, members_of};
use super::report::{Quantiles, Report, ms};
use super::scenario::{Meter, run_id, send_all};
use super::schedule::Ticket;
use super::tally::Finished;
use super::template::{NUMBER, Template};
use super::watch::Watch;

/// Figures that heartbeats report in turn: those of one count as moved beside those of the other.
const FIGURES: [(f64, f64, f64); 2] = [(12.5, 40.0, 0.2), (55.0, 61.0, 0.6)];
/// Before anything is measured every node has beaten so often.
const BEATS_BEFORE: u32 = 2;

/// What the clients share.
struct Beats {
    run: Arc<Run>,
    nodes: u64,
    templates: Vec<Template>,
    dies_at: Instant,
    deaths: Deaths,
    insist: Insist,
}

/// Runs the scenario.
///
/// # Errors
/// When nodes cannot be registered, observed or removed, or the leader cannot be killed.
pub(super) async fn run(load: &LoadArgs, args: &HeartbeatsArgs) -> anyhow::Result<Report> {
    ensure!(args.dying < args.nodes, "--dying must leave some of the --nodes");
    ensure!(!args.period.is_zero(), "--period must not be 0");
    let load = &LoadArgs {
        rate: Some(f64::from(args.nodes) / args.period.as_secs_f64()),
        warmup: load.warmup.max(args.period * BEATS_BEFORE),
        ..load.clone()
    };
    let members = members_of(&args.kill, load)?;
    let control = Control::new(load);
    let node = format!("{}-", run_id());
    let (nodes, registered) = (u64::from(args.nodes), Instant::now());
    let spec = json!({"host": "127.0.0.1", "port": 9, "capabilities": [], "capacity": 1});
    let enough = "registering the nodes (network.max_nodes bounds them)";
    let templates = |method: &str, what: &str, body: &str| {
        let path = format!("/api/v1/nodes/{node}{NUMBER}{what}");
        Template::new(&load.url, method, &path, &load.header.concat(), body).cycling(nodes)
    };
    let register = templates("POST", "/register", &spec.to_string());
    send_all(load, register, nodes).await.context(enough)?;
    let registered = registered.elapsed();
    let deaths = Deaths::new(&node, nodes, u64::from(args.dying));
    let watch = Watch::events(load, "node_status_changed", deaths.clone()).await?;

    let meter = Meter::start(&control).await;
    let run = Run::start(load);
    let window = run.tally.lock().window();
    let dies_at = window.start + args.die_after.unwrap_or(load.secs / 4);
    deaths.expect(window.start, dies_at);
    let cpu = CpuWatch::start(members.clone(), load.url.len(), window.start);
    let kill = Kill::plan(&args.kill, load, &run, members);
    let figures = &FIGURES[..if args.moving { 2 } else { 1 }];
    let beats = figures.iter().map(|figures| templates("POST", "/heartbeat", &beat(*figures)));
    let beats = Beats {
        templates: beats.collect(),
        insist: Insist::new(args.repeats),
        deaths: deaths.clone(),
        run,
        nodes,
        dies_at,
    };
    let beats = Arc::new(beats);
    send(&beats, load.clients).await;
    let (seen, cpu) = (deaths.seen(), cpu.stop().await);
    let killed = kill.done().await?;

    {
        let mut tally = beats.run.tally.lock();
        tally.errors_of("death not noticed", seen.unnoticed);
        tally.errors_of("declared dead while alive", seen.falsely_dead);
    }
    beats.run.finish();
    let reconnects = watch.reconnects();
    drop(watch);
    let mut report = meter.report("heartbeats", load, &beats.run, 1).await;
    report.details = details(args, &seen, registered);
    report.details["cpu"] = cpu;
    report.details["repeated"] = json!(beats.insist.repeated());
    report.details["stream_reconnects"] = json!(reconnects);
    report.details["kill"] = killed;
    send_all(load, templates("DELETE", "", ""), nodes).await.context("removing the nodes")?;
    Ok(report)
}

fn beat((cpu, memory, score): (f64, f64, f64)) -> String {
    let beat = json!({
        "status": "active", "cpu_usage": cpu, "memory_usage": memory, "load_score": score,
        "active_tasks": 0, "health_status": "healthy",
    });
    beat.to_string()
}

async fn send(beats: &Arc<Beats>, clients: u32) {
    let mut set = JoinSet::new();
    for place in 0..clients as usize {
        set.spawn(client(Arc::clone(beats), place));
    }
    while set.join_next().await.is_some() {}
}

async fn client(beats: Arc<Beats>, place: usize) {
    let run = &beats.run;
    let (mut seat, mut scratch) = (run.seat(place), Vec::new());
    while let Some(Ticket { number, due }) = run.pace.next().await {
        seat.settle(run);
        let sent = Instant::now();
        // Late or not: the dead say nothing.
        if beats.deaths.is_dying(number % beats.nodes) && sent >= beats.dies_at {
            continue;
        }
        let turn = (number / beats.nodes) as usize % beats.templates.len();
        let template = &beats.templates[turn];
        match beats.insist.send(&mut seat, template, number, &mut scratch).await {
            Ok(()) => run.tally.lock().success(Finished { due, sent, done: Instant::now() }),
            Err(code) => run.tally.lock().failure(due, &code),
        }
    }
}

fn details(args: &HeartbeatsArgs, seen: &Seen, registered: Duration) -> Value {
    let mut detection = Histogram::default();
    seen.noticed.iter().for_each(|after| detection.record(*after));
    json!({
        "nodes": args.nodes,
        "period_secs": args.period.as_secs_f64(),
        "registered_in_ms": ms(registered),
        "dying": args.dying,
        "noticed": seen.noticed.len(),
        "unnoticed": seen.unnoticed,
        "detection": Quantiles::from(&detection),
        "falsely_dead": seen.falsely_dead,
        "falsely_dead_nodes": seen.named,
    })
}
