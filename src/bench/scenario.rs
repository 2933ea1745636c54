//! The simple scenarios: prepared requests, one kind each.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use super::args::{BatchArgs, Consistency, HeartbeatArgs, LoadArgs, ReadArgs};
use super::control::Control;
use super::drive::{Run, drive};
use super::process::cpu_time;
use super::report::Report;
use super::template::{NUMBER, Template, batch_json, task_json};
use crate::clock;

/// No node offers it: such a task is stored and never placed.
pub const NOWHERE: &str = "bench-no-node-has-this";
/// Setting up must end, even against a cluster that answers slowly.
const SETUP_MAX: Duration = Duration::from_secs(3600);
const SETUP_CLIENTS: u32 = 16;
/// Tasks per request while keys are written.
const SETUP_BATCH: u32 = 500;

/// A prefix for ids that no other run uses.
#[must_use]
pub fn run_id() -> String {
    format!("b{:08x}", clock::random() & 0xffff_ffff)
}

/// Reads the clocks and counters around a run.
pub struct Meter {
    control: Control,
    before: Value,
    cpu: Option<Duration>,
}

impl Meter {
    /// Before the run.
    pub async fn start(control: &Control) -> Self {
        let before = control.counters().await;
        Self { control: control.clone(), before, cpu: cpu_time() }
    }

    /// Behind it: the figures, with `items` tasks per request.
    pub async fn report(self, name: &str, load: &LoadArgs, run: &Run, items: u32) -> Report {
        let cpu = self.cpu.and_then(|before| cpu_time()?.checked_sub(before));
        let mut report = Report::new(name, load, &run.tally.lock(), items, cpu);
        report.before = self.before;
        report.after = self.control.counters().await;
        report
    }
}

async fn measure(name: &str, load: &LoadArgs, template: Template, items: u32) -> Report {
    let meter = Meter::start(&Control::new(load)).await;
    let run = Run::start(load);
    drive(&run, load.clients, template).await;
    run.finish();
    meter.report(name, load, &run, items).await
}

/// Sends `template` exactly `count` times, and all of it must succeed.
///
/// # Errors
/// When anything failed, with the codes.
pub async fn send_all(load: &LoadArgs, template: Template, count: u64) -> anyhow::Result<Arc<Run>> {
    let load = LoadArgs {
        requests: count,
        rate: None,
        secs: SETUP_MAX,
        warmup: Duration::ZERO,
        ..load.clone()
    };
    let run = Run::start(&load);
    drive(&run, load.clients.min(SETUP_CLIENTS), template).await;
    run.finish();
    {
        let tally = run.tally.lock();
        let done = tally.acknowledged();
        ensure!(done == count, "{done} of {count} requests succeeded: {:?}", tally.errors());
    }
    Ok(run)
}

/// Single writes.
pub async fn submit(load: &LoadArgs) -> Report {
    let (headers, body) = (load.header.concat(), task_json(None, load.size, NOWHERE));
    let template = Template::new(&load.url, "POST", "/api/v1/tasks", &headers, &body);
    measure("submit", load, template, 1).await
}

/// Batches of tasks; `prefix` gives them ids.
#[must_use]
pub fn batches(load: &LoadArgs, count: u32, prefix: Option<&str>) -> Template {
    let body = batch_json(&task_json(prefix, load.size, NOWHERE), count);
    Template::new(&load.url, "POST", "/api/v1/tasks/batch", &load.header.concat(), &body)
}

/// Many writes per request.
pub async fn batch(load: &LoadArgs, args: BatchArgs) -> Report {
    measure("batch", load, batches(load, args.batch, None), args.batch).await
}

/// Reads of tasks that were written before.
///
/// # Errors
/// When they cannot be written.
pub async fn read(load: &LoadArgs, args: ReadArgs) -> anyhow::Result<Report> {
    let prefix = format!("{}-", run_id());
    let batch = SETUP_BATCH.min(args.keys);
    let requests = u64::from(args.keys.div_ceil(batch));
    send_all(load, batches(load, batch, Some(&prefix)), requests).await?;

    let consistency = match args.consistency {
        Consistency::Linearizable => "linearizable",
        Consistency::Local => "local",
    };
    let path = format!("/api/v1/tasks/{prefix}{NUMBER}?consistency={consistency}");
    let template = Template::new(&load.url, "GET", &path, &load.header.concat(), "");
    let template = template.cycling(u64::from(args.keys));
    Ok(measure(&format!("read {consistency}"), load, template, 1).await)
}

/// Heartbeats of registered nodes.
///
/// # Errors
/// When nodes cannot be registered or removed.
pub async fn heartbeat(load: &LoadArgs, args: HeartbeatArgs) -> anyhow::Result<Report> {
    let headers = load.header.concat();
    let node = format!("/api/v1/nodes/{}-{NUMBER}", run_id());
    let nodes = u64::from(args.nodes);
    let to_nodes = |method: &str, what: &str, body: &Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let path = format!("{node}{what}");
        Template::new(&load.url, method, &path, &headers, &body).cycling(nodes)
    };
    // Port 9 discards: nobody dispatches to them, they offer nothing.
    let spec = json!({"host": "127.0.0.1", "port": 9, "capabilities": [], "capacity": 1});
    send_all(load, to_nodes("POST", "/register", &spec), nodes).await?;
    let beat = json!({
        "status": "active", "cpu_usage": 12.5, "memory_usage": 40.0, "load_score": 0.2,
        "active_tasks": 0, "health_status": "healthy",
    });
    let report = measure("heartbeat", load, to_nodes("POST", "/heartbeat", &beat), 1).await;
    send_all(load, to_nodes("DELETE", "", &Value::Null), nodes).await?;
    Ok(report)
}
