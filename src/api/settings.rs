//! The few values of the replicated configuration that this room acts on. The document is parsed
//! once per revision, not once per request.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use crate::state::State as Tables;

/// Values of one revision of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// `orchestrator.id`.
    pub(super) orchestrator_id: String,
    /// `websocket.max_connections`.
    pub(super) websocket_max: u64,
    /// `compat.status_nodes: map`: `data.nodes` of the status is a map unless the query says
    /// otherwise (contract C5, decision a).
    pub(super) status_nodes_map: bool,
    /// `compat.agents.priority_order: asc`: family A's larger numbers are less urgent (contract
    /// C3, decision b).
    pub(super) agents_ascending: bool,
}

impl Settings {
    fn of(document: &Value) -> Self {
        let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
        let websocket_max = document.pointer("/websocket/max_connections").and_then(Value::as_u64);
        Self {
            orchestrator_id: text("/orchestrator/id").unwrap_or_default().to_owned(),
            websocket_max: websocket_max.unwrap_or(100),
            status_nodes_map: text("/compat/status_nodes") == Some("map"),
            agents_ascending: text("/compat/agents/priority_order") == Some("asc"),
        }
    }
}

/// The settings of the newest revision that was looked at.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Option<(u64, Arc<Settings>)>>);

impl Kept {
    /// The settings of `state`.
    pub(super) fn of(&self, state: &Tables) -> Arc<Settings> {
        let config = state.config();
        let mut kept = self.0.lock();
        match &*kept {
            Some((revision, settings)) if *revision == config.revision => Arc::clone(settings),
            Some(_) | None => {
                let settings = Arc::new(Settings::of(&config.document()));
                *kept = Some((config.revision, Arc::clone(&settings)));
                settings
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn contract_8_5_our_keys_and_their_defaults() {
        let defaults = Settings {
            orchestrator_id: String::new(),
            websocket_max: 100,
            status_nodes_map: false,
            agents_ascending: false,
        };
        assert_eq!(Settings::of(&json!({})), defaults);
        let document = json!({
            "orchestrator": {"id": "o"}, "websocket": {"max_connections": 7},
            "compat": {"status_nodes": "map", "agents": {"priority_order": "asc"}}
        });
        let expected = Settings {
            orchestrator_id: "o".to_owned(),
            websocket_max: 7,
            status_nodes_map: true,
            agents_ascending: true,
        };
        assert_eq!(Settings::of(&document), expected);
        let document = json!({"compat": {"status_nodes": "auto"}});
        assert_eq!(Settings::of(&document), defaults, "auto is the summary (decision a)");
    }
}
