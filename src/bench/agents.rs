//! Many users of family A at once: each submits tasks and reads them again, while the agents that
//! are built in work.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::args::LoadArgs;
use super::control::Control;
use super::crowd::AgentsArgs;
use super::drive::Run;
use super::flights::{Flights, Group, Landed};
use super::histogram::Histogram;
use super::insist::Insist;
use super::kill::{Kill, members_of};
use super::report::{Quantiles, Report};
use super::scenario::{Meter, run_id};
use super::tally::{Finished, Window};
use super::template::{NUMBER, Template};
use super::watch::Watch;
use crate::clock;

/// What the users share.
struct Users {
    run: Arc<Run>,
    window: Window,
    submissions: Template,
    reads: Template,
    reads_per_submission: u32,
    pause: Duration,
    insist: Insist,
    flights: Flights,
    /// All tasks, to wait for the last.
    everybody: Arc<Group>,
    latencies: Mutex<Latencies>,
}

/// Of requests that were due in the window.
#[derive(Default)]
struct Latencies {
    submit: Histogram,
    read: Histogram,
}

/// Runs the scenario.
///
/// # Errors
/// When ends cannot be observed, the leader cannot be killed, or no task ends.
pub(super) async fn run(load: &LoadArgs, args: &AgentsArgs) -> anyhow::Result<Report> {
    let load = &LoadArgs { clients: args.users, rate: None, ..load.clone() };
    let members = members_of(&args.kill, load)?;
    let control = Control::new(load);
    let prefix = format!("{}-", run_id());
    let flights = Flights::new(&prefix);
    let watch = Watch::events(load, "task_ended", flights.clone()).await?;

    let meter = Meter::start(&control).await;
    let run = Run::start(load);
    let window = run.tally.lock().window();
    flights.measure(window);
    let kill = Kill::plan(&args.kill, load, &run, members);
    let headers = load.header.concat();
    let path = format!("/api/v1/tasks/{prefix}{NUMBER}");
    let task = task_json(&prefix, load.size, args);
    let users = Arc::new(Users {
        submissions: Template::new(&load.url, "POST", "/api/v1/tasks", &headers, &task),
        reads: Template::new(&load.url, "GET", &path, &headers, ""),
        reads_per_submission: args.reads,
        pause: Duration::from_millis(args.pause_ms),
        insist: Insist::new(args.repeats),
        everybody: Arc::default(),
        latencies: Mutex::default(),
        run,
        window,
        flights,
    });
    let mut set = JoinSet::new();
    for place in 0..args.users as usize {
        set.spawn(user(Arc::clone(&users), place));
    }
    while set.join_next().await.is_some() {}
    // Whether all of them landed is seen by those that are left.
    let _ = tokio::time::timeout(users.run.timeout(), users.everybody.landed()).await;
    let killed = kill.done().await?;

    let measured = users.flights.finish(Instant::now());
    let sums = users.flights.sums();
    {
        let mut tally = users.run.tally.lock();
        tally.errors_of("no end seen", sums.open);
        tally.errors_of("ended without a result", sums.failed);
    }
    users.run.finish();
    let mut report = meter.report("agents", load, &users.run, 1).await;
    report.details = details(args, &users, &sums, measured);
    report.details["stream_reconnects"] = json!(watch.reconnects());
    report.details["kill"] = killed;
    ensure!(sums.ended > 0, "no task ended: {} {:?}", report.details, report.errors_by_code);
    Ok(report)
}

/// A task of family A: `size` bytes of sales.
fn task_json(prefix: &str, size: u32, args: &AgentsArgs) -> String {
    let mut sales = "month,region,revenue".to_owned();
    for row in 0.. {
        if sales.len() >= size as usize && row > 1 {
            break;
        }
        let (month, revenue) = (row % 12 + 1, 900 + row * 37 % 250);
        write!(sales, "\n2025-{month:02},north,{revenue}.50").expect("text grows");
    }
    let mode = format!("{:?}", args.mode).to_lowercase();
    let task = json!({
        "task_id": format!("{prefix}{NUMBER}"),
        "task_type": args.task_type,
        "execution_mode": mode,
        "inputs": [{"input_id": "sales", "type": "text", "data": sales}],
    });
    task.to_string()
}

async fn user(users: Arc<Users>, place: usize) {
    let run = &users.run;
    let (mut seat, mut scratch) = (run.seat(place), Vec::new());
    let (mut newest, mut reads_left) = (None, 0);
    // They do not march in step.
    rest(users.pause).await;
    while let Some(ticket) = run.pace.next().await {
        seat.settle(run);
        let read = newest.filter(|_| reads_left > 0);
        let (template, number) = match read {
            Some(task) => (&users.reads, task),
            None => (&users.submissions, ticket.number),
        };
        if read.is_none() {
            users.flights.depart(number, 1, ticket.due, &users.everybody);
        }
        let sent = Instant::now();
        let outcome = users.insist.send(&mut seat, template, number, &mut scratch).await;
        match outcome {
            Ok(()) => {
                let finished = Finished { due: ticket.due, sent, done: Instant::now() };
                users.acknowledge(finished, read.is_some());
                if read.is_some() {
                    reads_left -= 1;
                } else {
                    (newest, reads_left) = (Some(number), users.reads_per_submission);
                }
            }
            Err(code) => {
                run.tally.lock().failure(ticket.due, &code);
                if read.is_none() {
                    users.flights.give_up(number, 1);
                }
            }
        }
        rest(users.pause).await;
    }
}

/// Somewhere between none and twice the pause: as long as it on average.
async fn rest(pause: Duration) {
    let most = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX / 4) * 2;
    if most > 0 {
        tokio::time::sleep(Duration::from_micros(clock::random() % most)).await;
    }
}

impl Users {
    fn acknowledge(&self, finished: Finished, read: bool) {
        self.run.tally.lock().success(finished);
        if self.window.holds(finished.due) {
            let latency = finished.done.saturating_duration_since(finished.due);
            let mut latencies = self.latencies.lock();
            let of_its_kind = if read { &mut latencies.read } else { &mut latencies.submit };
            of_its_kind.record(latency);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn details(args: &AgentsArgs, users: &Users, sums: &Landed, measured: Duration) -> Value {
    let secs = measured.as_secs_f64().max(f64::MIN_POSITIVE);
    let latencies = users.latencies.lock();
    json!({
        "task_type": args.task_type,
        "mode": format!("{:?}", args.mode).to_lowercase(),
        "pause_ms": args.pause_ms,
        "reads_per_submission": args.reads,
        "submit": Quantiles::from(&latencies.submit),
        "read": Quantiles::from(&latencies.read),
        "submit_to_end": Quantiles::from(&sums.to_end),
        "tasks_per_sec": (sums.ended_in_window as f64 / secs * 10.0).round() / 10.0,
        "ended": sums.ended,
        "ended_without_result": sums.failed,
        "no_end_seen": sums.open,
        "repeated": users.insist.repeated(),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: AgentsArgs,
    }

    #[test]
    fn a_task_is_a_table_of_about_the_size() {
        let args = Line::parse_from(["agents", "--mode", "hybrid"]).args;
        for size in [0, 300, 3000] {
            let task: Value = serde_json::from_str(&task_json("r-", size, &args)).unwrap();
            let sales = task["inputs"][0]["data"].as_str().unwrap();
            assert!(sales.len() >= size as usize && sales.len() < size as usize + 80);
            assert!(sales.lines().count() > 2, "a column of numbers has figures");
            assert_eq!(task["execution_mode"], "hybrid");
            assert_eq!(task["task_id"], format!("r-{NUMBER}"));
        }
    }
}
