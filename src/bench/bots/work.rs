//! What bots have to do, completed: in batches by workers, and one by one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use futures::future::try_join_all;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::line::{Line, Timed, Times};
use crate::bench::args::LoadArgs;
use crate::bench::connection::{Target, request_bytes};
use crate::bench::control::Control;
use crate::bench::crowd::BotsArgs;
use crate::bench::drive::Run;
use crate::bench::report::{Report, ms};
use crate::bench::scenario::Meter;
use crate::bench::schedule::Ticket;
use crate::bench::tally::Finished;

/// Longer than any run: no lease runs out.
const LEASE_SECONDS: u64 = 3600;
/// Assignments in one lease before they are completed one by one.
const HELD_BATCH: u32 = 1000;
/// Completing ends by count; this only bounds it.
const WORK_MAX: Duration = Duration::from_secs(3600);
const RESULT: &str = r#"{"found":3}"#;

/// What somebody holds a lease of.
async fn lease(line: &mut Line, swarm: &str, max: u32) -> anyhow::Result<(Timed, Vec<Value>)> {
    let body = json!({"holder": "bench", "max": max, "lease_seconds": LEASE_SECONDS});
    let path = format!("/swarms/{swarm}/tasks/lease");
    let mut timed = line.call("POST", &path, &body.to_string()).await?;
    let held = match timed.body["assignments"].take() {
        Value::Array(held) => held,
        other => anyhow::bail!("no list of assignments: {other}"),
    };
    Ok((timed, held))
}

/// Workers that lease and complete batches until nothing is left, as `quorate worker` does.
///
/// # Errors
/// When a request fails, or an item is not accepted.
pub(super) async fn in_batches(
    load: &LoadArgs,
    args: &BotsArgs,
    swarm: &str,
) -> anyhow::Result<Value> {
    let times = Mutex::new((Times::default(), Times::default()));
    let worker = async |number: usize| {
        let (mut line, mut count) = (Line::to(load, number), 0_u64);
        loop {
            let (leased, held) = lease(&mut line, swarm, args.batch).await?;
            if held.is_empty() {
                return anyhow::Ok(count);
            }
            let result: Value = serde_json::from_str(RESULT)?;
            let item = |held: &Value| json!({"task_id": held["task_id"], "attempt": held["attempt"], "result": result});
            let items: Vec<Value> = held.iter().map(item).collect();
            let body = json!({"items": items}).to_string();
            let done = line.call("POST", "/assignments/complete", &body).await?;
            let verdicts = done.body["verdicts"].as_array().map(Vec::as_slice).unwrap_or_default();
            let accepted = verdicts.iter().filter(|verdict| **verdict == "accepted").count();
            ensure!(accepted == items.len(), "{accepted} of {} were accepted", items.len());
            count += accepted as u64;
            let mut times = times.lock();
            times.0.add(&leased);
            times.1.add(&done);
        }
    };
    let began = Instant::now();
    let counts = try_join_all((0..args.workers as usize).map(worker)).await?;
    let (took, count) = (began.elapsed(), counts.iter().sum::<u64>());
    ensure!(count == u64::from(args.waves) * u64::from(args.bots), "{count} were completed");
    let times = times.lock();
    Ok(json!({
        "workers": args.workers,
        "batch": args.batch,
        "completions": count,
        "took_ms": ms(took),
        "completions_per_sec": (count as f64 / took.as_secs_f64()).round(),
        "lease": times.0.total(),
        "complete": times.1.total(),
    }))
}

/// What is held is completed one by one, by as many clients as the load has.
///
/// # Errors
/// When not everything can be leased.
pub(super) async fn one_by_one(
    load: &LoadArgs,
    args: &BotsArgs,
    control: &Control,
    swarm: &str,
) -> anyhow::Result<Report> {
    let (mut line, mut all) = (Line::to(load, 0), Vec::new());
    loop {
        let (_, held) = lease(&mut line, swarm, HELD_BATCH).await?;
        if held.is_empty() {
            break;
        }
        all.extend(held);
    }
    ensure!(all.len() == args.bots as usize, "{} of {} were leased", all.len(), args.bots);
    let (requests, warmup, secs) = (all.len() as u64, Duration::ZERO, WORK_MAX);
    let load = LoadArgs { requests, warmup, secs, rate: None, ..load.clone() };
    let meter = Meter::start(control).await;
    let (run, all, headers) = (Run::start(&load), Arc::new(all), load.header.concat());
    let mut clients = JoinSet::new();
    for number in 0..load.clients as usize {
        let (run, all) = (Arc::clone(&run), Arc::clone(&all));
        clients.spawn(client(run, number, all, load.url.clone(), headers.clone()));
    }
    while clients.join_next().await.is_some() {}
    run.finish();
    Ok(meter.report("bots", &load, &run, 1).await)
}

/// Completes one of those that are held after the other.
async fn client(
    run: Arc<Run>,
    number: usize,
    all: Arc<Vec<Value>>,
    urls: Vec<Target>,
    headers: String,
) {
    let mut seat = run.seat(number);
    while let Some(Ticket { number, due }) = run.pace.next().await {
        let Some(held) = all.get(number as usize) else { continue };
        let text = |field: &str| held[field].as_str().unwrap_or_default();
        let path = format!("/bots/{}/tasks/{}/complete", text("bot_id"), text("task_id"));
        let body = format!(r#"{{"attempt":{},"result":{RESULT}}}"#, held["attempt"]);
        let target = &urls[seat.target()];
        let request = request_bytes("POST", target, &path, &headers, body.as_bytes());
        let sent = Instant::now();
        match seat.exchange(&request).await {
            Ok(()) => run.tally.lock().success(Finished { due, sent, done: Instant::now() }),
            Err(code) => run.tally.lock().failure(due, &code),
        }
    }
}
