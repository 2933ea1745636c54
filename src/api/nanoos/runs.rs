//! Runs and figures on the wire (contract 3.2).

use serde_json::{Value, json};

use crate::api::wire_time::{iso, iso_or_null};
use crate::model::{Decision, DecisionKind, FleetStats, Run, RunPhase};
use crate::state::State as Tables;

/// Stats: all arrays are always there.
pub(in crate::api) fn stats_view(stats: &FleetStats) -> Value {
    json!({
        "active_campaigns": stats.active_campaigns,
        "pending_jobs": stats.pending_jobs,
        "running_jobs": stats.running_jobs,
        "completed_jobs_last_24h": stats.completed_jobs_24h,
        "pending_experiments": stats.pending_experiments,
        "total_structures": stats.structures,
        "total_labeled_samples": stats.labeled_samples,
        "models_ready_for_retrain": stats.models_ready,
        "campaigns_needing_attention": stats.needing_attention,
        "timestamp": iso(stats.at_ms),
    })
}

fn decision_view(decision: &Decision) -> Value {
    let mut view = json!({
        "type": decision.kind.as_str(),
        "reason": decision.reason,
        "result": decision.result.as_str(),
    });
    if let Some(campaign_id) = &decision.campaign_id {
        view["campaign_id"] = json!(campaign_id);
    }
    if let Some(iteration) = decision.iteration {
        view["iteration"] = json!(iteration);
    }
    if let Some(model) = &decision.model {
        view["model"] = json!(model);
    }
    if decision.kind == DecisionKind::Iteration && decision.simulations > 0 {
        view["simulations_to_launch"] = json!(decision.simulations);
    }
    if decision.kind == DecisionKind::Experiments && decision.experiments > 0 {
        view["experiments_to_launch"] = json!(decision.experiments);
    }
    view
}

/// A run with its decisions.
pub(in crate::api) fn run_view(state: &Tables, run: &Run) -> Value {
    let orchestrator = state.orchestrator(&run.orchestrator);
    let took_ms = run.completed_at_ms.saturating_sub(run.started_at_ms);
    let ended = run.phase == RunPhase::Ended;
    let decisions: Vec<Value> = state.decisions(run.run_id).map(decision_view).collect();
    json!({
        "id": run.run_id.to_string(),
        "orchestrator_id": orchestrator.map(|orchestrator| &orchestrator.id),
        "started_at": iso(run.started_at_ms),
        "completed_at": iso_or_null(run.completed_at_ms),
        "duration_seconds": ended.then(|| took_ms as f64 / 1000.0),
        "actions": {
            "campaigns_advanced": run.advanced,
            "simulations_launched": run.simulations,
            "experiments_launched": run.experiments,
            "models_retrained": run.retrained,
            "decisions": decisions,
        },
        "success": ended && run.error.is_empty(),
        "error_message": Some(&run.error).filter(|error| !error.is_empty()),
        "stats_before": stats_view(&run.stats_before),
        "stats_after": run.stats_after.as_ref().map(stats_view),
        "triggered_by": run.triggered_by,
        "trigger_context": serde_json::from_str::<Value>(&run.context).unwrap_or(Value::Null),
        "slot": iso_or_null(run.slot_ms),
        "task_id": run.task_id,
        "result": serde_json::from_str::<Value>(&run.result).unwrap_or(Value::Null),
        "created_at": iso(run.started_at_ms),
    })
}
