//! `GET /agent/summary` (contract 3.5): how campaigns stand, in words and figures, and what to do.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::campaign_view::score;
use crate::api::App;
use crate::api::error::ApiError;
use crate::api::params::Params;
use crate::api::reply;
use crate::api::wire_time::iso;
use crate::clock;
use crate::model::{Budget, Campaign, FleetStats, JobKind, NodeStatus};
use crate::state::{State as Tables, candidate_structure};

/// Campaigns that are listed, and that are looked at for advice.
const CAMPAIGNS_MAX: usize = 20;
/// Best candidates that are listed.
const DISCOVERIES_MAX: usize = 10;
/// Pieces of advice.
const ADVICE_MAX: usize = 20;
/// Jobs above which the fleet is loaded, and overloaded.
const JOBS_DEGRADED: u64 = 50;
const JOBS_CRITICAL: u64 = 100;
/// Experiments above which somebody should look at the instruments.
const EXPERIMENTS_MANY: u64 = 10;

/// `GET /agent/summary`.
pub(in crate::api) async fn summary(
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let now = clock::now_ms();
    let mut stamp = app.admit(&params).await?;
    let shown = app.show(&mut stamp, |state| summary_view(state, now));
    Ok(reply::read(&stamp, reply::encode(&shown)))
}

fn health(open_jobs: u64) -> &'static str {
    if open_jobs > JOBS_CRITICAL {
        "critical"
    } else if open_jobs > JOBS_DEGRADED {
        "degraded"
    } else {
        "healthy"
    }
}

fn summary_view(state: &Tables, now: u64) -> Value {
    let stats = state.fleet_stats(now);
    let health = health(stats.pending_jobs + stats.running_jobs);
    let newest = || state.running_campaigns().rev().take(CAMPAIGNS_MAX);
    let campaigns = newest().map(|campaign| {
        json!({
            "id": campaign.campaign_id,
            "name": campaign.plan.name,
            "iteration": format!("{}/{}", campaign.iterations, campaign.plan.stop.max_iterations),
            "best_score": campaign.best_score.map(score),
            "status": "active",
        })
    });
    let discoveries = state.discoveries().rev().take(DISCOVERIES_MAX).map(|found| {
        let campaign = state.campaign(&found.campaign_id);
        json!({
            "campaign_id": found.campaign_id,
            "campaign_name": campaign.map(|campaign| &campaign.plan.name),
            "structure_id":
                candidate_structure(&found.campaign_id, found.iteration, found.candidate),
            "score": score(found.score),
            "iteration": found.iteration,
            "found_at": iso(found.at_ms),
        })
    });
    let sentence = format!(
        "{} campaigns are active, {} jobs run and {} wait, {} experiments are pending, and {} jobs \
         were completed in the last 24 hours.",
        stats.active_campaigns,
        stats.running_jobs,
        stats.pending_jobs,
        stats.pending_experiments,
        stats.completed_jobs_24h,
    );
    json!({
        "summary": sentence,
        "statistics": {
            "active_campaigns": stats.active_campaigns,
            "running_jobs": stats.running_jobs,
            "pending_jobs": stats.pending_jobs,
            "pending_experiments": stats.pending_experiments,
            "completed_jobs_24h": stats.completed_jobs_24h,
            "system_health": health,
        },
        "active_campaigns": campaigns.collect::<Vec<_>>(),
        "recent_discoveries": discoveries.collect::<Vec<_>>(),
        "recommendations": advice(state, &stats),
        "system_health": health,
        "timestamp": iso(now),
    })
}

/// What somebody should do, the most important first.
fn advice(state: &Tables, stats: &FleetStats) -> Vec<String> {
    let mut advice = Vec::new();
    let open = state.open_jobs(JobKind::Simulation);
    if stats.active_campaigns == 0 {
        advice.push("No campaign is active: create one and start it".to_owned());
    } else if open == 0 {
        advice.push("Campaigns are active and no jobs run: advance a campaign".to_owned());
    }
    if open > 0 && !state.nodes().any(|node| node.status == NodeStatus::Active) {
        advice.push(format!("{open} jobs wait and no node is there: start a worker"));
    }
    if stats.pending_experiments > EXPERIMENTS_MANY {
        let count = stats.pending_experiments;
        advice.push(format!("{count} experiments are pending: check the instruments"));
    }
    for orchestrator in state.orchestrators() {
        let name = &orchestrator.name;
        if !orchestrator.is_active {
            advice.push(format!("Orchestrator '{name}' is not active: activate it to run steps"));
        }
        if !orchestrator.error.is_empty() {
            advice.push(format!("The last run of '{name}' failed: {}", orchestrator.error));
        }
        let degraded = state.schedule(name).filter(|schedule| !schedule.degraded.is_empty());
        if let Some(schedule) = degraded {
            advice.push(format!("The schedule of '{name}' stands still: {}", schedule.degraded));
        }
    }
    for campaign in state.running_campaigns().rev().take(CAMPAIGNS_MAX) {
        advice.extend(advice_of(campaign));
    }
    for id in stats.needing_attention.iter().take(CAMPAIGNS_MAX) {
        advice.push(format!("Campaign {id} had no iteration for a day: look at its log"));
    }
    for name in stats.models_ready.iter().take(CAMPAIGNS_MAX) {
        advice.push(format!("Model '{name}' has many new samples: its training is due"));
    }
    advice.truncate(ADVICE_MAX);
    if advice.is_empty() {
        advice.push("All is well: nothing needs to be done".to_owned());
    }
    advice
}

fn advice_of(campaign: &Campaign) -> Vec<String> {
    let (name, max) = (&campaign.plan.name, campaign.plan.stop.max_iterations);
    let mut advice = Vec::new();
    if campaign.tripped {
        advice.push(format!("Campaign '{name}' is stopped by its kill switch: cancel it"));
    } else if campaign.iterations.saturating_mul(10) >= max.saturating_mul(9) {
        let done = campaign.iterations;
        advice.push(format!("Campaign '{name}' is near completion ({done}/{max} iterations)"));
    }
    let short = |budget: &Budget| budget.limit > 0 && budget.left() < budget.limit / 10;
    for (resource, _) in campaign.budgets.iter().filter(|(_, budget)| short(budget)) {
        let resource = resource.as_str();
        advice.push(format!("Campaign '{name}' has little left of its budget of {resource}"));
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_3_5_the_fleet_can_be_critical() {
        let cases = [(0, "healthy"), (50, "healthy"), (51, "degraded"), (100, "degraded")];
        for (jobs, word) in cases {
            assert_eq!(health(jobs), word);
        }
        assert_eq!(health(101), "critical");
    }
}
