//! Values of a configuration document by their dotted paths. What is null is not there.

use serde_json::{Map, Value, json};

/// The deepest path or document accepted.
pub(super) const DEPTH_MAX: usize = 32;

/// Agents that are built in and that the leader serves unless it is told otherwise: all that call nobody.
pub(super) const BUILTIN_AGENTS: [&str; 10] = [
    "data_ingest",
    "data_analysis",
    "synthesis",
    "video_detection",
    "alerting",
    "rss_feed_monitor",
    "podcast_transcript",
    "transcript_summary",
    "industry_synthesis",
    "document_reader",
];

/// The document a new cluster starts with: family W's defaults and ours.
#[must_use]
pub fn default_document() -> Value {
    json!({
        "orchestrator": {
            "id": "web4ai_main_orchestrator", "heartbeat_interval": 30, "task_timeout": 300,
            "max_retries": 3, "auto_discovery": true, "security_enabled": false,
            "auto_start": true
        },
        "network": {
            "discovery_endpoints": [], "load_balance_algorithm": "weighted_round_robin",
            "fault_tolerance_enabled": true, "auto_scaling_enabled": true,
            "max_nodes": 100, "min_nodes": 1, "node_timeout": 120, "default_capacity": 16
        },
        "performance": {
            "monitoring_enabled": true, "optimization_enabled": true,
            "metrics_retention_hours": 24
        },
        "tasks": {
            "max_retained_tasks": 100_000, "max_pending_tasks": 1_000_000,
            "retry_delay_ms": 1000, "max_retry_delay_ms": 300_000, "aging_seconds": 300
        },
        "agents": {
            "max_agents": 1000, "heartbeat_timeout": 30, "removal_timeout": 60,
            "load_balancing": "least_loaded", "builtin": BUILTIN_AGENTS
        },
        "campaigns": { "max_campaigns": 100_000, "max_retained_campaigns": 10_000 },
        "bots": {
            "capacity": 50_000, "max_open_assignments": 5_000_000,
            "max_retained_assignments": 100_000
        },
        "compat": {
            "strict_structures": false, "status_nodes": "auto",
            "agents": { "priority_order": "desc" }
        },
        "alerts": { "enabled": true },
        "auto_scaling": { "provider": "manual" },
        "security": { "api_key_required": false }
    })
}

pub(super) fn flag(document: &Value, path: &str) -> Result<Option<bool>, String> {
    let Some(value) = lookup(document, path) else { return Ok(None) };
    value.as_bool().map(Some).ok_or_else(|| format!("{path} must be true or false, not {value}"))
}

pub(super) fn text(document: &Value, path: &str) -> Result<Option<String>, String> {
    let Some(value) = lookup(document, path) else { return Ok(None) };
    let text = value.as_str().ok_or_else(|| format!("{path} must be a text, not {value}"))?;
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

pub(super) fn texts(document: &Value, path: &str, max: usize) -> Result<Vec<String>, String> {
    let wrong = || format!("{path} must be a list of at most {max} texts");
    let Some(value) = lookup(document, path) else { return Ok(Vec::new()) };
    let list = value.as_array().filter(|list| list.len() <= max).ok_or_else(wrong)?;
    let texts = list.iter().map(|item| item.as_str().map(str::to_owned));
    texts.collect::<Option<_>>().ok_or_else(wrong)
}

pub(super) fn lookup<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(document, |value, key| value.get(key)).filter(|value| !value.is_null())
}

/// Objects merge key by key, everything else replaces (contract C16).
pub(super) fn merge(into: &mut Value, patch: Value, depth: usize) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("the document is deeper than {DEPTH_MAX}"));
    }
    let Value::Object(patch) = patch else {
        if depth == 0 {
            return Err("the configuration must be an object".to_owned());
        }
        // Lists count as well: what is deeper than JSON may be could never be read back.
        if is_deeper(&patch, DEPTH_MAX.saturating_sub(depth)) {
            return Err(format!("the document is deeper than {DEPTH_MAX}"));
        }
        *into = patch;
        return Ok(());
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    if let Value::Object(into) = into {
        for (key, value) in patch {
            merge(into.entry(key).or_insert(Value::Null), value, depth + 1)?;
        }
    }
    Ok(())
}

/// Whether values lie in each other more than `levels` deep.
fn is_deeper(value: &Value, levels: usize) -> bool {
    let inner = levels.checked_sub(1);
    match value {
        Value::Array(list) => {
            inner.is_none_or(|levels| list.iter().any(|value| is_deeper(value, levels)))
        }
        Value::Object(map) => {
            inner.is_none_or(|levels| map.values().any(|value| is_deeper(value, levels)))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
