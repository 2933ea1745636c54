//! Campaigns and iterations on the wire (contract 3.2, 3.6).

use serde_json::{Value, json};

use super::campaign_parse::EVALUATION;
use super::config::budgets_view;
use crate::api::wire_time::{iso, iso_or_null};
use crate::model::{Campaign, CampaignPlan, CandidateState, Iteration, Score};
use crate::state::{State as Tables, candidate_job, candidate_structure};

/// A score as clients see it.
pub(in crate::api) fn score(value: Score) -> f64 {
    value as f64 / 1e9
}

pub(super) fn json_or(text: &str, otherwise: Value) -> Value {
    serde_json::from_str(text).unwrap_or(otherwise)
}

/// The configuration as it was sent, with what holds where it says nothing.
fn whole_config(plan: &CampaignPlan) -> Value {
    let mut config = json_or(&plan.config, json!({}));
    if let Value::Object(config) = &mut config {
        let mut usual = |key: &str, value: Value| {
            config.entry(key).or_insert(value);
        };
        usual("max_iterations", plan.stop.max_iterations.into());
        usual("candidates_per_iteration", plan.candidates.into());
        usual("generation_strategy", plan.strategy.clone().into());
        if !plan.generic {
            usual("evaluation_strategy", EVALUATION.into());
            usual("target_properties", json!({}));
            usual("constraints", json!({}));
        }
    }
    config
}

/// A campaign.
pub(in crate::api) fn campaign_view(campaign: &Campaign) -> Value {
    let plan = &campaign.plan;
    let took_ms = campaign.completed_at_ms.saturating_sub(campaign.started_at_ms);
    json!({
        "id": campaign.campaign_id,
        "owner_id": plan.owner,
        "name": plan.name,
        "description": plan.description,
        "kind": if plan.generic { "generic" } else { "materials" },
        "orchestrator": plan.orchestrator,
        "status": campaign.status.as_str(),
        "config": whole_config(plan),
        "max_iterations": plan.stop.max_iterations,
        "current_iteration": campaign.iterations,
        "best_score": campaign.best_score.map(score),
        "best_structure_id": campaign.best_structure,
        "budgets": budgets_view(&campaign.budgets),
        "requested_iterations": campaign.requested,
        "tripped": campaign.tripped,
        "reason": Some(&campaign.reason).filter(|reason| !reason.is_empty()),
        "created_at": iso(campaign.created_at_ms),
        "updated_at": iso(campaign.updated_at_ms),
        "started_at": iso_or_null(campaign.started_at_ms),
        "completed_at": iso_or_null(campaign.completed_at_ms),
        "duration_seconds": (campaign.completed_at_ms > 0 && campaign.started_at_ms > 0)
            .then(|| took_ms as f64 / 1000.0),
        "metadata": json_or(&plan.metadata, json!({})),
    })
}

/// An iteration with what came of its candidates.
pub(in crate::api) fn iteration_view(state: &Tables, row: &Iteration) -> Value {
    let campaign_id = &row.campaign_id;
    let structure = |place: u32| candidate_structure(campaign_id, row.index, place);
    let places = || (0u32..).zip(&row.candidates);
    let evaluated = places().filter(|(_, one)| matches!(one.state, CandidateState::Scored(_)));
    let failed = places().filter(|(_, one)| one.state == CandidateState::Failed).count();
    let results = places().filter_map(|(place, _)| candidate_fields(state, row, place));
    let took_ms = row.completed_at_ms.saturating_sub(row.created_at_ms);
    json!({
        "id": format!("{campaign_id}.{}", row.index),
        "campaign_id": campaign_id,
        "iteration_index": row.index,
        "created_structures": places().map(|(place, _)| structure(place)).collect::<Vec<_>>(),
        "evaluated_structures": evaluated.map(|(place, _)| structure(place)).collect::<Vec<_>>(),
        "best_score_this_iter": row.best_score.map(score),
        "best_structure_id_this_iter": row.best_score.map(|_| structure(row.best_candidate)),
        "metrics": {"candidates": row.candidates.len(), "open": row.open, "failed": failed},
        "strategy_used": row.strategy,
        "created_at": iso(row.created_at_ms),
        "completed_at": iso_or_null(row.completed_at_ms),
        "duration_seconds": (row.completed_at_ms > 0).then(|| took_ms as f64 / 1000.0),
        "metadata": {"results": results.collect::<Vec<_>>()},
    })
}

/// What came of one candidate.
pub(super) fn candidate_fields(state: &Tables, row: &Iteration, place: u32) -> Option<Value> {
    let campaign_id = &row.campaign_id;
    let note = state.candidate_note(campaign_id, row.index, place);
    let (word, value) = match row.candidates.get(place as usize)?.state {
        CandidateState::Open => ("open", None),
        CandidateState::Scored(value) => ("scored", Some(score(value))),
        CandidateState::Unscored => ("unscored", None),
        CandidateState::Failed => ("failed", None),
    };
    Some(json!({
        "structure_id": candidate_structure(campaign_id, row.index, place),
        "job_id": candidate_job(campaign_id, row.index, place),
        "state": word,
        "score": value,
        "parameters": note.map(|note| json_or(note, Value::Null)),
    }))
}

/// The history of a campaign (contract 3.6 `summary`).
pub(in crate::api) fn summary_view(state: &Tables, campaign: &Campaign) -> Value {
    let (mut history, mut means, mut gains) = (Vec::new(), Vec::new(), Vec::new());
    let mut best: Option<Score> = None;
    for row in state.iterations(&campaign.campaign_id).filter(|row| row.completed_at_ms > 0) {
        let scores = row.candidates.iter().filter_map(|one| match one.state {
            CandidateState::Scored(value) => Some(value),
            CandidateState::Open | CandidateState::Unscored | CandidateState::Failed => None,
        });
        let scores: Vec<f64> = scores.map(score).collect();
        let better =
            |new: Score, old: Score| if campaign.plan.minimize { new < old } else { new > old };
        let before = best;
        best = match (row.best_score, best) {
            (Some(new), Some(old)) if !better(new, old) => Some(old),
            (new, old) => new.or(old),
        };
        history.push(best.map(score));
        means.push((!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64));
        gains.push(before.zip(best).map(|(before, best)| (score(best) - score(before)).abs()));
    }
    json!({
        "campaign_id": campaign.campaign_id,
        "total_iterations": campaign.iterations,
        "total_structures_created": campaign.structures,
        "total_structures_evaluated": campaign.evaluated,
        "best_score_overall": campaign.best_score.map(score),
        "best_structure_id": campaign.best_structure,
        "score_history": history,
        "mean_scores": means,
        "improvements": gains,
    })
}
