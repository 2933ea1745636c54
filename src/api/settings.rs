//! The few values of the replicated configuration that this room acts on. The document is parsed
//! once per revision, not once per request.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use crate::state::State as Tables;

/// Values of one revision of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// `orchestrator.id`.
    pub(super) orchestrator_id: String,
    /// `websocket`.
    pub(super) websocket: Websocket,
    /// `compat.status_nodes: map`: `data.nodes` of the status is a map unless the query says
    /// otherwise (contract C5, decision a).
    pub(super) status_nodes_map: bool,
    /// `compat.agents.priority_order: asc`: family A's larger numbers are less urgent (contract
    /// C3, decision b).
    pub(super) agents_ascending: bool,
    /// `metrics.enabled`: whether there is a page for Prometheus.
    pub(super) metrics_enabled: bool,
}

/// What the WebSocket is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Websocket {
    /// `websocket.enabled`.
    pub(super) enabled: bool,
    /// `websocket.max_connections`, of one member.
    pub(super) connections_max: u64,
    /// How long a client may be silent.
    pub(super) timing: Timing,
}

/// `websocket.ping_interval` and `ping_timeout`, in seconds there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timing {
    /// From one sign of life that is asked for to the next.
    pub(super) ping_every: Duration,
    /// How long the answer may take, and any frame to be taken.
    pub(super) ping_timeout: Duration,
}

impl Websocket {
    fn of(document: &Value) -> Self {
        let at = |name: &str| document.get("websocket").and_then(|section| section.get(name));
        let seconds = |name: &str, default: f64| {
            let given = at(name).and_then(Value::as_f64);
            Duration::from_secs_f64(given.unwrap_or(default).clamp(0.1, 86_400.0))
        };
        Self {
            enabled: at("enabled").and_then(Value::as_bool).unwrap_or(true),
            connections_max: at("max_connections").and_then(Value::as_u64).unwrap_or(100),
            timing: Timing {
                ping_every: seconds("ping_interval", 30.0),
                ping_timeout: seconds("ping_timeout", 10.0),
            },
        }
    }
}

impl Settings {
    fn of(document: &Value) -> Self {
        let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
        Self {
            orchestrator_id: text("/orchestrator/id").unwrap_or_default().to_owned(),
            websocket: Websocket::of(document),
            status_nodes_map: text("/compat/status_nodes") == Some("map"),
            agents_ascending: text("/compat/agents/priority_order") == Some("asc"),
            metrics_enabled: document.pointer("/metrics/enabled") != Some(&Value::Bool(false)),
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
            websocket: Websocket {
                enabled: true,
                connections_max: 100,
                timing: Timing {
                    ping_every: Duration::from_secs(30),
                    ping_timeout: Duration::from_secs(10),
                },
            },
            status_nodes_map: false,
            agents_ascending: false,
            metrics_enabled: true,
        };
        assert_eq!(Settings::of(&json!({})), defaults);
        let document = json!({
            "orchestrator": {"id": "o"}, "websocket": {
                "enabled": false, "max_connections": 7, "ping_interval": 0.5, "ping_timeout": 2
            },
            "compat": {"status_nodes": "map", "agents": {"priority_order": "asc"}},
            "metrics": {"enabled": false}
        });
        let expected = Settings {
            orchestrator_id: "o".to_owned(),
            websocket: Websocket {
                enabled: false,
                connections_max: 7,
                timing: Timing {
                    ping_every: Duration::from_millis(500),
                    ping_timeout: Duration::from_secs(2),
                },
            },
            status_nodes_map: true,
            agents_ascending: true,
            metrics_enabled: false,
        };
        assert_eq!(Settings::of(&document), expected);
        let document = json!({"compat": {"status_nodes": "auto"}});
        assert_eq!(Settings::of(&document), defaults, "auto is the summary (decision a)");
    }
}
