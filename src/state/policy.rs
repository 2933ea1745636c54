//! The orchestrator configuration: one replicated JSON document (contract 2.12), and the few
//! values of it that change what apply and the leader do.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Rejection;
use super::document::{
    BUILTIN_AGENTS, DEPTH_MAX, default_document, flag, lookup, merge, text, texts,
};
use super::founding::{default_orchestrator, initial_mode, is_paused};
use super::mail::mail_channel;
use super::outward::{channel, check_channels, reach, web_url};
use super::thresholds::{
    AdviceLimits, LoadWeights, ScalingRule, Thresholds, scaling_enabled, scaling_rules,
};
use crate::model::{MailChannel, Mode, Reach, TimeMs};

/// How often nodes are probed. Family W's older name counts where the newer one says nothing.
const HEALTH: &str = "performance.health_checks.interval";
const OLD_HEALTH: &str = "network.health_check_interval";
/// The largest document accepted, in bytes of JSON text.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// The configuration document and its revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Counts the changes.
    pub revision: u64,
    /// JSON text of the whole document, defaults included.
    pub text: String,
}

/// How the scheduler chooses among nodes that fit (contract 2.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// Next in a stable order.
    RoundRobin,
    /// At random, by free load and reliability.
    WeightedRoundRobin,
    /// Fewest active tasks.
    LeastConnections,
    /// Most free cpu, memory and gpu.
    ResourceAware,
    /// Lowest latency.
    LatencyOptimized,
    /// Most free places, weighed with the share that is free: `weighted` for agents (contract 4.7).
    MostRoom,
    /// Any.
    Random,
}

impl Algorithm {
    /// Those for nodes.
    pub const ALL: [Self; 5] = [
        Self::RoundRobin,
        Self::WeightedRoundRobin,
        Self::LeastConnections,
        Self::ResourceAware,
        Self::LatencyOptimized,
    ];

    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::WeightedRoundRobin => "weighted_round_robin",
            Self::LeastConnections => "least_connections",
            Self::ResourceAware => "resource_aware",
            Self::LatencyOptimized => "latency_optimized",
            Self::MostRoom => "weighted",
            Self::Random => "random",
        }
    }

    /// The strategies for agents of family A, by their words (contract 4.7).
    const FOR_AGENTS: [(&'static str, Self); 4] = [
        ("least_loaded", Self::LeastConnections),
        ("round_robin", Self::RoundRobin),
        ("weighted", Self::MostRoom),
        ("random", Self::Random),
    ];
}

/// The values of the configuration that something acts on, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `network.load_balance_algorithm`.
    pub algorithm: Algorithm,
    /// `network.max_nodes`: a new node beyond it is refused.
    pub nodes_max: u64,
    /// `network.node_timeout`: silence after which a node is offline.
    pub node_timeout_ms: TimeMs,
    /// `orchestrator.task_timeout`: for tasks that give none.
    pub task_timeout_ms: TimeMs,
    /// `orchestrator.max_retries`: for tasks that give none.
    pub max_retries: u32,
    /// `network.default_capacity`: executions at once for nodes that declare none.
    pub node_capacity: u32,
    /// `performance.metrics_retention_hours`: how long ended tasks are kept.
    pub retention_ms: TimeMs,
    /// `tasks.max_retained_tasks`: how many ended tasks are kept at most.
    pub retained_tasks_max: u64,
    /// `tasks.max_pending_tasks`: how many may wait.
    pub pending_tasks_max: u64,
    /// `tasks.retry_delay_ms`: the first back-off; it doubles with each retry.
    pub retry_delay_ms: TimeMs,
    /// `tasks.max_retry_delay_ms`: no back-off is longer.
    pub retry_delay_max_ms: TimeMs,
    /// `tasks.aging_seconds`: how far the most urgent tasks go before the least urgent ones.
    pub aging_ms: TimeMs,
    /// `orchestrator.scheduling_paused`, or else the contrary of `orchestrator.auto_start`: nothing
    /// is placed (contract 2.3, control).
    pub paused: bool,
    /// `network.degrade_faulty_nodes`: nodes with three faults in five minutes get no work (2.9).
    pub degrade_faulty: bool,
    /// `agents.max_agents`: a new agent of family A beyond it is refused.
    pub agents_max: u64,
    /// `agents.heartbeat_timeout`: silence after which an agent gets no work (contract 4.7).
    pub agent_timeout_ms: TimeMs,
    /// `agents.removal_timeout`: silence after which it is taken out.
    pub agent_removal_ms: TimeMs,
    /// `agents.load_balancing`.
    pub agent_algorithm: Algorithm,
    /// `agents.builtin`: kinds of agents that the leader serves itself.
    pub builtin_agents: Vec<String>,
    /// What may be reached outside on behalf of clients.
    pub reach: Arc<Reach>,
    /// `callbacks.max_tries`: posts of one delivery before it is given up.
    pub delivery_tries: u32,
    /// `alerts.enabled`.
    pub alerts_enabled: bool,
    /// `alerts.check_interval`: how often the leader looks at the fleet's figures.
    pub alert_check_ms: TimeMs,
    /// `alerts.thresholds`.
    pub thresholds: Thresholds,
    /// `performance.*_threshold`.
    pub advice: AdviceLimits,
    /// `performance.load_balancing.weight_*`.
    pub load_weights: LoadWeights,
    /// `alerts.console.enabled`: the leader writes transitions into its log.
    pub alert_console: bool,
    /// `alerts.webhook`, when it is enabled.
    pub alert_webhook: Option<String>,
    /// `alerts.slack.webhook_url`, when it is enabled.
    pub alert_slack: Option<String>,
    /// `alerts.slack.channel`.
    pub alert_slack_channel: Option<String>,
    /// `alerts.email`, when it is enabled and says all that is needed.
    pub alert_email: Option<Arc<MailChannel>>,
    /// `auto_scaling.enabled`, or else `performance.auto_scaling.enabled`, or else
    /// `network.auto_scaling_enabled`.
    pub scaling_enabled: bool,
    /// `auto_scaling.provider`: whether the operator's program is run.
    pub scaling_by_command: bool,
    /// `auto_scaling.webhook_url`: told of every decision.
    pub scaling_webhook: Option<String>,
    /// `auto_scaling.scaling_rules`.
    pub scaling_rules: Vec<ScalingRule>,
    /// `performance.health_checks.interval`, or else `network.health_check_interval`: how often nodes are asked for their health; 0 for never.
    pub probe_interval_ms: TimeMs,
    /// `performance.health_checks.timeout`.
    pub probe_timeout_ms: TimeMs,
    /// `performance.health_checks.retries`: failed probes in a row before a node gets no more work.
    pub probe_retries: u32,
    /// `compat.strict_structures`: jobs may only name structures and instruments that are there.
    pub strict_structures: bool,
    /// `orchestrator.default_name`: which one requests mean that name none.
    pub default_orchestrator: String,
    /// The mode that this one begins in: `orchestrator.mode` and `orchestrator.beat_enabled` of the
    /// first configuration.
    pub initial_mode: Option<Mode>,
    /// `network.node_discovery_interval`: how often these are looked at.
    pub discovery_interval_ms: TimeMs,
    /// `network.discovery_endpoints`, when `orchestrator.auto_discovery` is on.
    pub discovery_endpoints: Vec<String>,
    /// `campaigns.max_campaigns`: another one beyond it is refused.
    pub campaigns_max: u64,
    /// `campaigns.max_retained_campaigns`: campaigns that have ended and are kept.
    pub ended_campaigns_max: u64,
    /// `bots.capacity`: bots there may be, those of swarms included (contract 5.3).
    pub bots_max: u64,
    /// `bots.max_open_assignments`: assignments of bots that have not ended, and as many more that
    /// have, of waves that have not.
    pub open_assignments_max: u64,
    /// `bots.max_retained_assignments`: assignments of bots in waves that have ended.
    pub ended_assignments_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { revision: 0, text: default_document().to_string() }
    }
}

impl Config {
    /// The document as a value.
    #[must_use]
    pub fn document(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The document with `patch` merged in at `path` (dots between keys; empty for the root).
    ///
    /// # Errors
    /// [`Rejection::InvalidConfig`] when the path or the result makes no sense.
    pub fn patched(&self, path: &str, patch: &str) -> Result<(Self, Policy), Rejection> {
        let invalid = |what: String| Rejection::InvalidConfig(what);
        let patch: Value = serde_json::from_str(patch)
            .map_err(|error| invalid(format!("the value is not JSON: {error}")))?;
        let keys: Vec<&str> = path.split('.').filter(|key| !key.is_empty()).collect();
        if keys.len() > DEPTH_MAX {
            return Err(invalid(format!("the path has more than {DEPTH_MAX} keys")));
        }
        // A keyed value is the same as a patch that has nothing but that key.
        let patch = keys.iter().rev().fold(patch, |inner, key| json!({ *key: inner }));
        let mut document = self.document();
        merge(&mut document, patch, 0).map_err(invalid)?;
        let policy = Policy::from_document(&document).map_err(invalid)?;
        check_channels(&document).map_err(invalid)?;
        // One that was taken before there was this check stands, and blocks nothing else.
        let before = || Policy::from_document(&self.document());
        let is_new = || !before().is_ok_and(|policy| crossed(&policy).is_some());
        if let Some(rule) = crossed(&policy).filter(|_| is_new()) {
            let name = &rule.name;
            return Err(invalid(format!("scaling rule {name}: min_nodes is above max_nodes")));
        }
        let text = document.to_string();
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(invalid(format!("the document is over {DOCUMENT_BYTES_MAX} bytes")));
        }
        Ok((Self { revision: self.revision + 1, text }, policy))
    }
}

fn builtin_agents(document: &Value) -> Result<Vec<String>, String> {
    match lookup(document, "agents.builtin") {
        None => Ok(BUILTIN_AGENTS.map(str::to_owned).into()),
        Some(_) => texts(document, "agents.builtin", 64),
    }
}

/// A scaling rule that could never be kept.
fn crossed(policy: &Policy) -> Option<&ScalingRule> {
    policy.scaling_rules.iter().find(|rule| rule.nodes_min > rule.nodes_max)
}

impl Default for Policy {
    fn default() -> Self {
        Self::from_document(&default_document()).expect("a test reads the default document")
    }
}

impl Policy {
    /// Reads the values that matter, with their bounds.
    ///
    /// # Errors
    /// What is wrong with which key.
    pub fn from_document(document: &Value) -> Result<Self, String> {
        let number = |path: &str, default: u64, min: u64, max: u64| {
            let Some(value) = lookup(document, path) else { return Ok(default) };
            match value.as_u64() {
                Some(value) if (min..=max).contains(&value) => Ok(value),
                _ => Err(format!("{path} must be a whole number from {min} to {max}, not {value}")),
            }
        };
        let small = |path: &str, default: u64, min: u64, max: u32| {
            number(path, default, min, u64::from(max)).map(|value| value as u32)
        };
        const YEAR_S: u64 = 366 * 24 * 3600;
        Ok(Self {
            algorithm: algorithm(document)?,
            nodes_max: number("network.max_nodes", 100, 1, 1_000_000)?,
            node_timeout_ms: number("network.node_timeout", 120, 1, 86_400)? * 1000,
            task_timeout_ms: number("orchestrator.task_timeout", 300, 1, YEAR_S)? * 1000,
            max_retries: small("orchestrator.max_retries", 3, 0, 1000)?,
            node_capacity: small("network.default_capacity", 16, 1, 100_000)?,
            retention_ms: number("performance.metrics_retention_hours", 24, 0, 24 * 366)?
                * 3_600_000,
            retained_tasks_max: number("tasks.max_retained_tasks", 100_000, 0, 100_000_000)?,
            pending_tasks_max: number("tasks.max_pending_tasks", 1_000_000, 1, 100_000_000)?,
            retry_delay_ms: number("tasks.retry_delay_ms", 1000, 1, 3_600_000)?,
            retry_delay_max_ms: number("tasks.max_retry_delay_ms", 300_000, 1, 86_400_000)?,
            aging_ms: number("tasks.aging_seconds", 300, 0, 7 * 86_400)? * 1000,
            paused: is_paused(document)?,
            degrade_faulty: flag(document, "network.degrade_faulty_nodes")?.unwrap_or(false),
            agents_max: number("agents.max_agents", 1000, 1, 100_000)?,
            agent_timeout_ms: number("agents.heartbeat_timeout", 30, 1, 86_400)? * 1000,
            agent_removal_ms: number("agents.removal_timeout", 60, 1, 86_400)? * 1000,
            agent_algorithm: agent_algorithm(document)?,
            builtin_agents: builtin_agents(document)?,
            reach: Arc::new(reach(document)?),
            delivery_tries: small("callbacks.max_tries", 3, 1, 100)?,
            alerts_enabled: flag(document, "alerts.enabled")?.unwrap_or(true),
            // Three looks decide, and the window is five minutes: more than 100 s could not.
            alert_check_ms: number("alerts.check_interval", 10, 1, 100)? * 1000,
            thresholds: Thresholds::of(document)?,
            advice: AdviceLimits::of(document)?,
            load_weights: LoadWeights::of(document)?,
            alert_console: flag(document, "alerts.console.enabled")?.unwrap_or(true),
            alert_webhook: channel(document, "alerts.webhook", "url")?,
            alert_slack: channel(document, "alerts.slack", "webhook_url")?,
            alert_slack_channel: text(document, "alerts.slack.channel")?,
            // What is wrong with it is said where it is changed.
            alert_email: mail_channel(document).ok().flatten().map(Arc::new),
            scaling_enabled: scaling_enabled(document)?,
            scaling_by_command: text(document, "auto_scaling.provider")?.as_deref()
                == Some("command"),
            scaling_webhook: web_url(document, "auto_scaling.webhook_url")?,
            scaling_rules: scaling_rules(document)?,
            probe_interval_ms: number(HEALTH, number(OLD_HEALTH, 30, 0, 86_400)?, 0, 86_400)?
                * 1000,
            probe_timeout_ms: number("performance.health_checks.timeout", 5, 1, 60)? * 1000,
            probe_retries: small("performance.health_checks.retries", 3, 1, 100)?,
            strict_structures: flag(document, "compat.strict_structures")?.unwrap_or(false),
            default_orchestrator: default_orchestrator(document)?,
            initial_mode: initial_mode(document)?,
            discovery_interval_ms: number("network.node_discovery_interval", 60, 1, 86_400)? * 1000,
            discovery_endpoints: discovery_endpoints(document)?,
            campaigns_max: number("campaigns.max_campaigns", 100_000, 1, 1_000_000)?,
            ended_campaigns_max: number("campaigns.max_retained_campaigns", 10_000, 0, 1_000_000)?,
            bots_max: number("bots.capacity", 50_000, 1, 1_000_000)?,
            open_assignments_max: number("bots.max_open_assignments", 5_000_000, 1, 50_000_000)?,
            ended_assignments_max: number("bots.max_retained_assignments", 100_000, 0, 10_000_000)?,
        })
    }

    /// The wait before retry number `retry` (1 is the first): 1, 2, 4, 8 ... times the first
    /// delay (contract 2.7), bounded.
    #[must_use]
    pub fn back_off_ms(&self, retry: u32) -> TimeMs {
        let doublings = retry.saturating_sub(1).min(32);
        self.retry_delay_ms.saturating_mul(1 << doublings).min(self.retry_delay_max_ms)
    }
}

fn discovery_endpoints(document: &Value) -> Result<Vec<String>, String> {
    match flag(document, "orchestrator.auto_discovery")? {
        Some(false) => Ok(Vec::new()),
        Some(true) | None => texts(document, "network.discovery_endpoints", 256),
    }
}

fn algorithm(document: &Value) -> Result<Algorithm, String> {
    let Some(word) = lookup(document, "network.load_balance_algorithm") else {
        return Ok(Algorithm::WeightedRoundRobin);
    };
    let found = Algorithm::ALL.into_iter().find(|known| word == known.as_str());
    found.ok_or_else(|| {
        let known = Algorithm::ALL.map(Algorithm::as_str).join(", ");
        format!("network.load_balance_algorithm must be one of {known}, not {word}")
    })
}

fn agent_algorithm(document: &Value) -> Result<Algorithm, String> {
    let Some(word) = lookup(document, "agents.load_balancing") else {
        return Ok(Algorithm::LeastConnections);
    };
    let found = Algorithm::FOR_AGENTS.into_iter().find(|(known, _)| word == known);
    found.map(|(_, algorithm)| algorithm).ok_or_else(|| {
        let known = Algorithm::FOR_AGENTS.map(|(known, _)| known).join(", ");
        format!("agents.load_balancing must be one of {known}, not {word}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_document_gives_the_defaults_of_the_contract() {
        let policy = Policy::default();
        assert_eq!(policy.nodes_max, 100);
        assert_eq!(policy.node_timeout_ms, 120_000);
        assert_eq!(policy.max_retries, 3);
        assert_eq!(policy.algorithm, Algorithm::WeightedRoundRobin);
        assert_eq!(policy.bots_max, 50_000);
    }

    /// All of them were gone.
    #[test]
    fn null_in_the_place_of_built_in_agents_is_the_default() {
        let (_, policy) = Config::default().patched("agents.builtin", "null").unwrap();
        assert_eq!(policy.builtin_agents, BUILTIN_AGENTS);
        let (_, policy) = Config::default().patched("agents.builtin", "[]").unwrap();
        assert!(policy.builtin_agents.is_empty());
    }

    #[test]
    fn scaling_bounds_that_cross_are_refused_and_old_ones_block_nothing() {
        let config = Config::default();
        for patch in [
            r#"{"auto_scaling":{"min_nodes":30}}"#,
            r#"{"auto_scaling":{"min_nodes":3,"max_nodes":2}}"#,
        ] {
            let refused = config.patched("", patch).unwrap_err().to_string();
            assert!(refused.contains("min_nodes is above max_nodes"), "{refused}");
        }
        let mut document = config.document();
        document["auto_scaling"]["min_nodes"] = json!(30);
        let old = Config { text: document.to_string(), ..config };
        assert!(old.patched("network.max_nodes", "7").is_ok());
        assert!(old.patched("auto_scaling.max_nodes", "40").is_ok());
    }

    #[test]
    fn patches_merge_deeply_and_keyed_values_replace() {
        let (config, _) = Config::default().patched("", r#"{"network":{"max_nodes":7}}"#).unwrap();
        assert_eq!(config.document()["network"]["min_nodes"], 1);
        let (config, policy) =
            config.patched("network.load_balance_algorithm", "\"round_robin\"").unwrap();
        assert_eq!((policy.nodes_max, policy.algorithm), (7, Algorithm::RoundRobin));
        assert_eq!(config.revision, 2);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (path, value, part) in [
            ("network.max_nodes", "0", "network.max_nodes must be a whole number from 1"),
            ("network.max_nodes", "\"x\"", "network.max_nodes"),
            ("bots.capacity", "1000001", "bots.capacity must be a whole number from 1 to 1000000"),
            ("network.load_balance_algorithm", "\"magic\"", "round_robin"),
            ("", "[1]", "must be an object"),
            ("", "{", "not JSON"),
        ] {
            let error = Config::default().patched(path, value).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn contract_2_11_how_often_figures_are_looked_at() {
        assert_eq!(Policy::default().alert_check_ms, 10_000);
        let set = |value: &str| Config::default().patched("alerts.check_interval", value);
        assert_eq!(set("1").unwrap().1.alert_check_ms, 1000);
        for value in ["0", "101", "0.5"] {
            let error = set(value).unwrap_err().to_string();
            assert!(error.contains("alerts.check_interval"), "{error}");
        }
    }

    #[test]
    fn a_deep_list_does_not_cost_the_configuration() {
        // Under a few keys it became deeper than JSON may be, and the whole document read as null.
        let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
        let path = vec!["k"; 20].join(".");
        let refused = Config::default().patched(&path, &deep).unwrap_err().to_string();
        assert_eq!(refused, "the document is deeper than 32");
        let (config, _) = Config::default().patched("a.b", "[[{\"c\":[1]}]]").unwrap();
        assert_eq!(config.document()["a"]["b"], json!([[{"c": [1]}]]));
    }

    #[test]
    fn back_off_doubles_up_to_its_bound() {
        let policy = Policy::default();
        let waits: Vec<_> = (1..=5).map(|retry| policy.back_off_ms(retry)).collect();
        assert_eq!(waits, [1000, 2000, 4000, 8000, 16_000]);
        assert_eq!(policy.back_off_ms(1000), 300_000);
    }
}
