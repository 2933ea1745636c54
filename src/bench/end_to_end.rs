//! From a submission to its recorded result, through nodes that really serve HTTP.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::args::{EndToEndArgs, LoadArgs, Observe};
use super::control::Control;
use super::drive::Run;
use super::fleet::Fleet;
use super::flights::{Flights, Group, Landed};
use super::report::{Quantiles, Report};
use super::scenario::{Meter, run_id};
use super::schedule::Ticket;
use super::tally::Finished;
use super::template::{Template, batch_json, task_json};
use super::watch::Watch;

/// What the submitting clients share.
struct Submitters {
    run: Arc<Run>,
    template: Template,
    flights: Flights,
    batch: u64,
    /// In an open loop nobody waits for single tasks: all are in this group.
    everybody: Option<Arc<Group>>,
}

/// Runs the scenario.
///
/// # Errors
/// When the nodes cannot be set up, or ends cannot be observed.
pub(super) async fn run(load: &LoadArgs, args: &EndToEndArgs) -> anyhow::Result<Report> {
    let control = Control::new(load);
    let id = run_id();
    let (capability, prefix) = (format!("bench-{id}"), format!("{id}-"));
    let flights = Flights::new(&prefix);
    let fleet = Fleet::start(&args.fleet, &control, &capability, &flights).await?;
    let watch = match args.observe {
        Observe::Events => Watch::events(load, "task_ended", flights.clone()).await?,
        Observe::Status => Watch::status(control.clone(), flights.clone()).await?,
    };
    let template = submissions(load, args.batch, &prefix, &capability);

    let meter = Meter::start(&control).await;
    let run = Run::start(load);
    flights.measure(run.tally.lock().window());
    let everybody = load.rate.map(|_| Arc::new(Group::default()));
    let batch = u64::from(args.batch);
    let submitters = Submitters { run, template, flights, batch, everybody };
    let submitters = Arc::new(submitters);
    submit(&submitters, load.clients).await;

    let Submitters { run, flights, .. } = &*submitters;
    let measured = flights.finish(Instant::now());
    let open = flights.open();
    run.tally.lock().errors_of("no end seen", open);
    run.finish();
    let reconnects = watch.reconnects();
    drop(watch);
    let mut report = meter.report("end-to-end", load, run, args.batch).await;
    report.details = details(args, &flights.sums(), measured, reconnects);
    fleet.retire().await?;
    ensure!(flights.sums().ended > 0 || open == 0, "no task ended: {}", report.details);
    Ok(report)
}

fn submissions(load: &LoadArgs, batch: u32, prefix: &str, capability: &str) -> Template {
    let headers = load.header.concat();
    let task = task_json(Some(prefix), load.size, capability);
    if batch == 1 {
        return Template::new(&load.url, "POST", "/api/v1/tasks", &headers, &task);
    }
    let body = batch_json(&task, batch);
    Template::new(&load.url, "POST", "/api/v1/tasks/batch", &headers, &body)
}

/// Runs the clients to their end; in an open loop, waits for the tasks that are still on their way.
async fn submit(submitters: &Arc<Submitters>, clients: u32) {
    let mut set = JoinSet::new();
    for number in 0..clients as usize {
        set.spawn(client(Arc::clone(submitters), number));
    }
    while set.join_next().await.is_some() {}
    if let Some(everybody) = &submitters.everybody {
        let landed = tokio::time::timeout(submitters.run.timeout(), everybody.landed()).await;
        if landed.is_err() {
            tracing::warn!(open = submitters.flights.open(), "tasks did not end in time");
        }
    }
}

async fn client(shared: Arc<Submitters>, number: usize) {
    let Submitters { run, template, flights, batch, everybody } = &*shared;
    let mut seat = run.seat(number);
    let mut scratch = Vec::new();
    while let Some(Ticket { number, due }) = run.pace.next().await {
        let group = everybody.as_ref().map_or_else(Arc::default, Arc::clone);
        let first = number * batch;
        flights.depart(first, *batch, due, &group);
        let request = template.request(seat.target(), number, &mut scratch);
        let sent = Instant::now();
        if let Err(code) = seat.exchange(request).await {
            run.tally.lock().failure(due, &code);
            flights.give_up(first, *batch);
            continue;
        }
        run.tally.lock().success(Finished { due, sent, done: Instant::now() });
        if everybody.is_none() && tokio::time::timeout(run.timeout(), group.landed()).await.is_err()
        {
            let lost = flights.give_up(first, *batch);
            run.tally.lock().errors_of("no end seen", lost);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn details(args: &EndToEndArgs, sums: &Landed, measured: Duration, reconnects: u64) -> Value {
    let secs = measured.as_secs_f64().max(f64::MIN_POSITIVE);
    let per_sec = (sums.ended_in_window as f64 / secs * 10.0).round() / 10.0;
    json!({
        "tasks_per_sec": per_sec,
        "submit_to_end": (args.observe == Observe::Events).then(|| Quantiles::from(&sums.to_end)),
        "submit_to_node": Quantiles::from(&sums.to_node),
        "ended": sums.ended,
        "ended_without_result": sums.failed,
        "retried_executions": sums.retried,
        "doubled_attempts": sums.doubled,
        "stray_executions": sums.stray,
        "no_end_seen": sums.open,
        "stream_reconnects": reconnects,
        "nodes": args.fleet.nodes,
        "capacity": args.fleet.capacity,
        "batch": args.batch,
    })
}
