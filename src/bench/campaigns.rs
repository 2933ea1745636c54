//! Many running campaigns, and a step over all of them each second: what that costs those who submit
//! tasks meanwhile, and how long the leader plans.

use anyhow::{Context, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::args::{CampaignsArgs, LoadArgs};
use super::control::Control;
use super::report::Report;
use super::scenario::{NOWHERE, run_id, submit};

/// Campaigns that are made at the same time.
const SETUP_CLIENTS: usize = 16;

/// Runs the scenario: submissions without steps, and the same with them.
///
/// # Errors
/// When campaigns cannot be made, or the schedule cannot be set.
pub(super) async fn run(load: &LoadArgs, args: &CampaignsArgs) -> anyhow::Result<Report> {
    let control = Control::new(load);
    let name = run_id();
    configure(&control, &name, &json!({"mode": "MANUAL"})).await?;
    create(&control, &name, args.campaigns).await?;
    let quiet = submit(load).await;
    let before = plans(&control).await?;
    let seconds = args.every.as_secs_f64();
    let schedule = json!({"mode": "SCHEDULED", "schedule": {"interval_seconds": seconds}});
    configure(&control, &name, &schedule).await?;
    let mut report = submit(load).await;
    configure(&control, &name, &json!({"mode": "MANUAL"})).await?;
    let after = plans(&control).await?;
    let planned = after.count.saturating_sub(before.count);
    ensure!(planned > 0, "no step was planned");
    let spent_us = after.total_us.saturating_sub(before.total_us);
    report.scenario = "campaigns".to_owned();
    report.details = json!({
        "campaigns": args.campaigns,
        "every_seconds": seconds,
        "without_steps": {"per_sec": quiet.per_sec, "latency": quiet.latency},
        "plans": planned,
        "plan_mean_ms": spent_us as f64 / planned as f64 / 1e3,
        "plan_max_ms": after.max_us as f64 / 1e3,
    });
    Ok(report)
}

async fn configure(control: &Control, name: &str, body: &Value) -> anyhow::Result<()> {
    control.call("GET", &format!("/api/v1/orchestrator/state?name={name}"), b"").await?;
    let path = format!("/api/v1/orchestrator/config?name={name}");
    control.call("POST", &path, body.to_string().as_bytes()).await.map(drop)
}

/// Makes campaigns that run and whose candidates no node can take.
async fn create(control: &Control, name: &str, count: u32) -> anyhow::Result<()> {
    let body = json!({
        "name": name, "kind": "generic", "orchestrator": name,
        "config": {
            "max_iterations": 1000, "candidates_per_iteration": 1,
            "task": {"task_type": "bench", "capabilities": [NOWHERE]},
        },
    });
    let body = body.to_string();
    let create = async |_| {
        let campaign = control.call("POST", "/api/v1/campaigns", body.as_bytes()).await?;
        let id = campaign["id"].as_str().context("a campaign has an id")?;
        control.call("POST", &format!("/api/v1/campaigns/{id}/start"), b"").await.map(drop)
    };
    stream::iter((0..count).map(Ok)).try_for_each_concurrent(SETUP_CLIENTS, create).await
}

/// What planning cost all members that have led.
struct Plans {
    count: u64,
    total_us: u64,
    max_us: u64,
}

async fn plans(control: &Control) -> anyhow::Result<Plans> {
    let texts: Vec<anyhow::Result<(u16, Value)>> = stream::iter(control.targets())
        .then(|target| control.call_one(target, "GET", "/metrics", b""))
        .collect()
        .await;
    let mut plans = Plans { count: 0, total_us: 0, max_us: 0 };
    for answer in texts {
        let (status, text) = answer?;
        ensure!(status == 200, "/metrics: {status}");
        let text = text.as_str().unwrap_or_default();
        let figure = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
        };
        plans.count += figure("quorate_leader_step_plans_total");
        plans.total_us += figure("quorate_leader_step_plan_us_total");
        plans.max_us = plans.max_us.max(figure("quorate_leader_step_plan_us_max"));
    }
    Ok(plans)
}
