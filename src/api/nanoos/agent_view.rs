//! Agent commands on the wire (contract 3.2 `AgentCommand`, 3.5).

use serde_json::{Map, Value, json};

use super::campaign_view::json_or;
use super::config::budgets_view;
use crate::api::wire_time::iso;
use crate::model::{AgentCommand, AgentCommandKind, AgentResult, RequestId};
use crate::state::{agent_command_id, requested_job};

/// Ids of jobs that are listed one by one in a history.
const IDS_MAX: u32 = 20;

/// How many jobs were made and which. `words` is `jobs` or `experiments`.
pub(super) fn jobs_view(request_id: RequestId, words: &str, count: u32) -> Map<String, Value> {
    let ids = |ordinals: std::ops::Range<u32>| {
        json!(ordinals.map(|n| requested_job(request_id, n)).collect::<Vec<_>>())
    };
    let singular = words.trim_end_matches('s');
    Map::from_iter([
        (format!("{words}_created"), count.into()),
        (format!("{singular}_ids"), ids(0..count)),
    ])
}

/// A command; with what was sent, if that is wanted.
pub(super) fn command_view(row: &AgentCommand, whole: bool) -> Value {
    let (success, result, summary, error) = match &row.result {
        AgentResult::Campaign { campaign_id } => {
            let result = json!({"campaign_id": campaign_id});
            (true, result, format!("campaign {campaign_id} created"), None)
        }
        AgentResult::Iterations { campaign_id, count } => {
            let result = json!({"campaign_id": campaign_id, "iterations_queued": count});
            (true, result, format!("{count} iterations of {campaign_id} queued"), None)
        }
        AgentResult::Jobs { count } => {
            let words = match row.kind {
                AgentCommandKind::RequestExperiments => "experiments",
                _ => "jobs",
            };
            let named = if whole { *count } else { (*count).min(IDS_MAX) };
            let mut result = jobs_view(row.request_id, words, named);
            result.insert(format!("{words}_created"), (*count).into());
            (true, Value::Object(result), format!("{count} {words} created"), None)
        }
        AgentResult::Stopped { campaign_id } => {
            let result = json!({"campaign_id": campaign_id, "tripped": true});
            (true, result, format!("campaign {campaign_id} stopped"), None)
        }
        AgentResult::Refused { code, text } => {
            (false, json!({"code": code}), text.clone(), Some(text))
        }
    };
    let at = iso(row.at_ms);
    let mut view = json!({
        "id": agent_command_id(row.request_id),
        "agent_id": row.agent_id,
        "command_type": row.kind.as_str(),
        "success": success,
        "result": result,
        "result_summary": summary,
        "error_message": error,
        "budgets": budgets_view(&row.budgets),
        "created_at": at,
        // One log entry takes it and does it.
        "executed_at": at,
        "completed_at": at,
        "duration_seconds": 0.0,
    });
    if whole {
        view["payload"] = json_or(&row.payload, json!({}));
    }
    view
}
