//! Family W's keys (contract 2.12): every one is accepted, unknown ones are kept and reported.
//!
//! They are not local settings: the whole document becomes the first replicated configuration, so
//! two members with different files still agree. Later changes go through `PUT /api/v1/config`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::change;
use super::keys::{KEYS, Kind};
use super::tree::Tree;
use crate::security;
use crate::state::{Policy, check_channels, unread};

const RATIO: Kind = Kind::Amount;
const COUNT: Kind = Kind::Number(0, u64::MAX);
const PORT: Kind = Kind::Number(0, 65_535);
const TEXT: Kind = Kind::Text;
const FLAG: Kind = Kind::Flag;
const ALGORITHMS: Kind = Kind::Words(&[
    "round_robin",
    "weighted_round_robin",
    "least_connections",
    "resource_aware",
    "latency_optimized",
]);

/// Keys that act where they stand in a member's own file: the file is the place for them, or what they
/// say is adopted under the name that counts.
const READ_HERE: [&str; 10] = [
    "orchestrator.host",
    "orchestrator.port",
    "orchestrator.debug",
    "orchestrator.log_level",
    "storage.path",
    "websocket.host",
    "websocket.port",
    "performance.load_balancing.algorithm",
    "logging.structured_logging",
    "database",
];

/// Section, and its keys with the kinds of their values. A name that ends in `*` stands for
/// everything below.
type Section = (&'static str, &'static [(&'static str, Kind)]);

const SECTIONS: [Section; 28] = [
    (
        "orchestrator",
        &[
            ("id", TEXT),
            ("host", TEXT),
            ("port", PORT),
            ("heartbeat_interval", Kind::Number(1, 86_400)),
            ("task_timeout", Kind::Number(1, 31_622_400)),
            ("max_retries", Kind::Number(0, 1000)),
            ("auto_discovery", FLAG),
            ("security_enabled", FLAG),
            ("auto_start", FLAG),
            ("scheduling_paused", FLAG),
            ("mode", TEXT),
            ("default_name", TEXT),
            ("beat_enabled", FLAG),
            ("debug", FLAG),
            ("log_level", TEXT),
            ("ssl_enabled", FLAG),
            ("ssl_cert", Kind::Any),
            ("ssl_key", Kind::Any),
        ],
    ),
    (
        "network",
        &[
            ("discovery_endpoints", Kind::Texts),
            ("load_balance_algorithm", ALGORITHMS),
            ("fault_tolerance_enabled", FLAG),
            ("degrade_faulty_nodes", FLAG),
            ("auto_scaling_enabled", FLAG),
            ("max_nodes", Kind::Number(1, 1_000_000)),
            ("min_nodes", COUNT),
            ("node_timeout", Kind::Number(1, 86_400)),
            ("default_capacity", Kind::Number(1, 100_000)),
            ("node_discovery_interval", Kind::Number(1, 86_400)),
            ("health_check_interval", Kind::Number(0, 86_400)),
            ("connection_timeout", RATIO),
            ("retry_attempts", COUNT),
            ("retry_delay", RATIO),
            ("keep_alive", FLAG),
            ("connection_pool_size", COUNT),
            ("max_concurrent_requests", COUNT),
        ],
    ),
    (
        "performance",
        &[
            ("monitoring_enabled", FLAG),
            ("optimization_enabled", FLAG),
            ("metrics_retention_hours", Kind::Number(0, 8784)),
            ("metrics_retention_days", RATIO),
            ("performance_threshold", RATIO),
            ("cpu_threshold", RATIO),
            ("memory_threshold", RATIO),
            ("latency_threshold", RATIO),
            ("max_memory_usage", RATIO),
            ("gc_threshold", COUNT),
            ("connection_pool_size", COUNT),
            ("cache_size", COUNT),
            ("cleanup_interval", RATIO),
            ("cpu_limit", Kind::Any),
            ("memory_limit", Kind::Any),
            ("worker_processes", COUNT),
            ("thread_pool_size", COUNT),
        ],
    ),
    (
        "performance.auto_scaling",
        &[
            ("enabled", FLAG),
            ("scale_up_threshold", RATIO),
            ("scale_down_threshold", RATIO),
            ("min_nodes", COUNT),
            ("max_nodes", COUNT),
            ("cooldown_period", RATIO),
            ("metrics_window", RATIO),
        ],
    ),
    (
        "performance.load_balancing",
        &[
            ("algorithm", ALGORITHMS),
            ("weight_cpu", RATIO),
            ("weight_memory", RATIO),
            ("weight_tasks", RATIO),
        ],
    ),
    ("performance.health_checks", &[("interval", RATIO), ("timeout", RATIO), ("retries", COUNT)]),
    (
        "security",
        &[
            ("api_key_required", FLAG),
            ("api_keys", Kind::Any),
            ("users", Kind::Any),
            ("jwt_secret", Kind::Any),
            ("secret_key", Kind::Any),
            ("token_expiry", RATIO),
            ("jwt_expiration_hours", RATIO),
            ("rate_limiting", FLAG),
            ("max_requests_per_minute", COUNT),
            ("max_requests_per_hour", COUNT),
            ("encryption_enabled", FLAG),
            ("audit_logging", FLAG),
            ("allowed_ips", Kind::Texts),
            ("registration.enabled", FLAG),
            ("registration.role", TEXT),
            ("outward.allowed_hosts", Kind::Texts),
            ("cors_enabled", FLAG),
            ("cors_origins", Kind::Any),
        ],
    ),
    (
        "storage",
        &[
            ("type", Kind::Words(&["memory", "local", "redis", "mongodb", "postgresql"])),
            ("path", TEXT),
            ("backup_enabled", FLAG),
            ("backup_interval_hours", RATIO),
            ("backup_retention_days", RATIO),
            ("backup_location", Kind::Any),
            ("compression_enabled", FLAG),
            ("encryption_enabled", FLAG),
            ("backup_encryption", FLAG),
            ("data_retention_days", RATIO),
            ("redis.*", Kind::Any),
            ("postgresql.*", Kind::Any),
            ("mongodb.*", Kind::Any),
        ],
    ),
    (
        "websocket",
        &[
            ("enabled", FLAG),
            ("port", PORT),
            ("host", TEXT),
            ("max_connections", COUNT),
            ("ping_interval", RATIO),
            ("ping_timeout", RATIO),
        ],
    ),
    (
        "consensus",
        &[
            ("enabled", FLAG),
            ("quorum_size", COUNT),
            ("leader_election", FLAG),
            ("partition_tolerance", FLAG),
        ],
    ),
    (
        "logging",
        &[
            ("file_logging", FLAG),
            ("log_file", Kind::Any),
            ("file", Kind::Any),
            ("max_file_size", Kind::Any),
            ("max_size", Kind::Any),
            ("backup_count", COUNT),
            ("console_logging", FLAG),
            ("console_output", FLAG),
            ("structured_logging", FLAG),
            ("log_rotation", Kind::Any),
        ],
    ),
    (
        "alerts",
        &[
            ("enabled", FLAG),
            ("check_interval", Kind::Number(1, 100)),
            ("console.enabled", FLAG),
            ("email.*", Kind::Any),
            ("slack.*", Kind::Any),
            ("webhook.*", Kind::Any),
            ("thresholds.*", RATIO),
        ],
    ),
    (
        "database",
        &[("type", TEXT), ("path", TEXT), ("backup_enabled", FLAG), ("backup_interval", RATIO)],
    ),
    ("metrics", &[("enabled", FLAG), ("prometheus_port", PORT), ("collection_interval", RATIO)]),
    (
        "auto_scaling",
        &[
            ("enabled", FLAG),
            ("provider", Kind::Words(&["manual", "command", "docker", "kubernetes", "aws_ec2"])),
            ("scale_up_threshold", RATIO),
            ("scale_down_threshold", RATIO),
            ("cooldown_period", RATIO),
            ("metrics_window", RATIO),
            ("min_nodes", COUNT),
            ("max_nodes", COUNT),
            ("scaling_rules", Kind::Any),
            ("webhook_url", TEXT),
            ("kubernetes.*", Kind::Any),
        ],
    ),
    (
        "agents",
        &[
            ("max_agents", Kind::Number(1, 100_000)),
            ("heartbeat_timeout", Kind::Number(1, 86_400)),
            ("removal_timeout", Kind::Number(1, 86_400)),
            ("load_balancing", Kind::Words(&["least_loaded", "round_robin", "weighted", "random"])),
            ("builtin", Kind::Texts),
            ("fetch_inputs", FLAG),
        ],
    ),
    (
        "bots",
        &[
            ("capacity", Kind::Number(1, 1_000_000)),
            ("max_open_assignments", Kind::Number(1, 50_000_000)),
            ("max_retained_assignments", Kind::Number(0, 10_000_000)),
        ],
    ),
    (
        "campaigns",
        &[
            ("max_campaigns", Kind::Number(1, 1_000_000)),
            ("max_retained_campaigns", Kind::Number(0, 1_000_000)),
        ],
    ),
    ("callbacks", &[("max_tries", Kind::Number(1, 100))]),
    ("docker", &[("image_name", TEXT), ("network_name", TEXT)]),
    ("aws", &[("*", Kind::Any)]),
    ("orchestrator_url", &[("", TEXT)]),
    (
        "backup",
        &[
            ("enabled", FLAG),
            ("interval_hours", RATIO),
            ("retention_days", RATIO),
            ("compression", FLAG),
            ("storage_backend", TEXT),
            ("local_path", TEXT),
            ("s3.*", Kind::Any),
        ],
    ),
    (
        "tasks",
        &[
            ("max_completed_tasks", COUNT),
            ("max_failed_tasks", COUNT),
            ("max_retained_tasks", COUNT),
            ("max_pending_tasks", Kind::Number(1, 100_000_000)),
            ("retry_delay_ms", Kind::Number(1, 3_600_000)),
            ("max_retry_delay_ms", Kind::Number(1, 86_400_000)),
            ("aging_seconds", Kind::Number(0, 604_800)),
        ],
    ),
    (
        "compat",
        &[
            ("status_nodes", Kind::Words(&["auto", "summary", "map"])),
            ("redis_facade", FLAG),
            ("strict_structures", FLAG),
        ],
    ),
    ("compat.agents", &[("priority_order", Kind::Words(&["desc", "asc"]))]),
    ("scaling_rules", &[("*", Kind::Any)]),
    ("kubernetes", &[("*", Kind::Any)]),
];

/// Variables that documents of families W, N and B name, and what they set.
pub(super) const VARIABLES: [(&str, &str, Kind); 26] = [
    ("ORCHESTRATOR_ID", "orchestrator.id", TEXT),
    ("ORCHESTRATOR_HOST", "orchestrator.host", TEXT),
    ("ORCHESTRATOR_PORT", "orchestrator.port", PORT),
    ("ORCHESTRATOR_LOG_LEVEL", "logging.level", TEXT),
    ("LOG_LEVEL", "logging.level", TEXT),
    ("DEBUG_MODE", "orchestrator.debug", FLAG),
    ("SECURITY_ENABLED", "orchestrator.security_enabled", FLAG),
    ("METRICS_RETENTION_HOURS", "performance.metrics_retention_hours", Kind::Number(0, 8784)),
    ("PROMETHEUS_METRICS_ENABLED", "metrics.enabled", FLAG),
    ("PROMETHEUS_ENABLED", "metrics.enabled", FLAG),
    ("ORCHESTRATOR_METRICS_ENABLED", "metrics.enabled", FLAG),
    ("SLACK_WEBHOOK_URL", "alerts.slack.webhook_url", TEXT),
    ("NODE_PERFORMANCE_MONITORING", "performance.monitoring_enabled", FLAG),
    ("ORCHESTRATOR_MODE", "orchestrator.mode", TEXT),
    ("ORCHESTRATOR_DEFAULT_NAME", "orchestrator.default_name", TEXT),
    ("ORION_ENABLE_ORCHESTRATOR_BEAT", "orchestrator.beat_enabled", FLAG),
    ("LOG_FORMAT", "logging.format", TEXT),
    ("RATE_LIMIT_ENABLED", "security.rate_limiting", FLAG),
    ("ENABLE_METRICS", "metrics.enabled", FLAG),
    ("SECRET_KEY", "security.secret_key", TEXT),
    ("IMAGE_SERVICE_URL", "services.image_generation", TEXT),
    ("VIDEO_SERVICE_URL", "services.video_generation", TEXT),
    ("CRYPTO_SERVICE_URL", "services.crypto_prediction", TEXT),
    ("FRAUD_SERVICE_URL", "services.fraud_detection", TEXT),
    ("COMPRESSION_SERVICE_URL", "services.compression", TEXT),
    ("MARKETING_SERVICE_URL", "services.marketing", TEXT),
];

/// Variables of the families that say nothing here: the state is in this program, every prefix is
/// served, there is no exporter of traces, keys are `security.api_keys`, mail is `alerts.email`, the
/// log goes to standard error, and how much work there may be is what nodes and agents declare.
const UNUSED: [&str; 20] = [
    "DATABASE_URL",
    "REDIS_URL",
    "API_PREFIX",
    "ENABLE_TRACING",
    "REDIS_HOST",
    "REDIS_PORT",
    "REDIS_PASSWORD",
    "REDIS_DB",
    "POSTGRES_HOST",
    "POSTGRES_DB",
    "POSTGRES_USER",
    "POSTGRES_PASSWORD",
    "API_KEY",
    "LOG_FILE",
    "GRAFANA_ENABLED",
    "DEVELOPMENT_MODE",
    "MAX_WORKERS",
    "AGENT_TYPE",
    "AGENT_ID",
    "MAX_CONCURRENT_TASKS",
];
/// Further ones begin so.
const UNUSED_BEGIN: &str = "EMAIL_";
/// Secrets of tokens below it can be guessed (RFC 7518, section 3.2), in bytes.
const SECRET_MIN: usize = 32;

/// Says once which variables are there and not used.
pub(super) fn tell_unused(tree: &mut Tree, environment: &BTreeMap<String, String>) {
    let known = UNUSED.into_iter().filter(|name| environment.contains_key(*name));
    let begin =
        environment.keys().map(String::as_str).filter(|name| name.starts_with(UNUSED_BEGIN));
    let there: Vec<_> = known.chain(begin).collect();
    if !there.is_empty() {
        tree.warn(format!("{}: variables that are not used here", there.join(", ")));
    }
}

/// What is allowed and hardly meant.
fn warn_of_security(tree: &mut Tree) {
    for path in ["security.jwt_secret", "security.secret_key"] {
        let secret = tree.given(path).and_then(|value| value.as_str().map(str::len));
        if secret.is_some_and(|len| len < SECRET_MIN) {
            tree.warn(format!("{path}: can be guessed with less than {SECRET_MIN} bytes"));
        }
    }
    let bounds = ["security.max_requests_per_minute", "security.max_requests_per_hour"];
    let limits = tree.given("security.rate_limiting") == Some(Value::from(true));
    if limits && bounds.into_iter().all(|path| tree.given(path).is_none()) {
        let text = "limits nothing without max_requests_per_minute or max_requests_per_hour";
        tree.warn(format!("security.rate_limiting: {text}"));
    }
}

/// All known keys as dotted paths (`*` at the end of some).
pub(super) fn keys() -> impl Iterator<Item = (String, Kind)> {
    SECTIONS.iter().flat_map(|(section, keys)| {
        keys.iter().map(move |(name, kind)| match *name {
            "" => ((*section).to_owned(), *kind),
            name => (format!("{section}.{name}"), *kind),
        })
    })
}

pub(super) fn kind_of(path: &str) -> Option<Kind> {
    let matches = |known: &str| match known.strip_suffix(".*") {
        Some(section) => path.strip_prefix(section).is_some_and(|rest| rest.starts_with('.')),
        None => known == path,
    };
    keys().find(|(known, _)| matches(known)).map(|(_, kind)| kind)
}

/// Checks family W's part and gives it as the first replicated configuration.
pub(super) fn check(tree: &mut Tree) -> Value {
    adopt_synonyms(tree);
    for path in tree.leaves("") {
        let sections = ["cluster", "listeners", "services"];
        let is_ours = sections.iter().any(|section| path.starts_with(section));
        if is_ours || KEYS.iter().any(|key| key.path == path) {
            continue;
        }
        let Some(value) = tree.given(&path) else { continue };
        let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty);
        match change::check_value(&path, &value) {
            Err(what) => {
                tree.fault(&path, what);
                tree.forget(&path);
            }
            Ok(is_known) if is_known || is_empty => {}
            Ok(_) => {
                tree.warn(format!("{path}: unknown key, kept in the replicated configuration"))
            }
        }
    }
    warn_of_security(tree);
    let document = tree.replicated();
    for (path, what) in unread(&document) {
        if !READ_HERE.contains(&path) {
            tree.warn(format!("{path}: has no effect; {what}"));
        }
    }
    // What the single checks do not cover is covered by the reader that will use it.
    let read = Policy::from_document(&document).map(|_| ());
    if let Err(what) = read.and_then(|()| check_channels(&document)) {
        let key = what.split_whitespace().next().unwrap_or_default().to_owned();
        tree.fault(&key, what);
    }
    if let Err(what) = security::check(&document) {
        let key = what.split([' ', '[']).next().unwrap_or_default().to_owned();
        tree.fault(&key, what);
    }
    document
}

/// Family W says some things in two places, and some of our local ones in its own; what counts here
/// wins when both are there.
fn adopt_synonyms(tree: &mut Tree) {
    let synonyms = [
        ("storage.path", "cluster.data_dir"),
        ("database.path", "cluster.data_dir"),
        ("orchestrator.log_level", "logging.level"),
        // Two documents name it in two places; the second is the code's (contract 2.8).
        ("performance.load_balancing.algorithm", "network.load_balance_algorithm"),
    ];
    for (theirs, ours) in synonyms {
        if let (Some(value), None) = (tree.given(theirs), tree.given(ours)) {
            if theirs == "database.path" {
                // A file there, a directory here.
                tree.warn(format!("{theirs}: not used; set {ours}"));
                continue;
            }
            tree.set(ours, value, theirs);
        }
    }
    if tree.is_from("alerts.slack.webhook_url", "SLACK_WEBHOOK_URL")
        && tree.given("alerts.slack.enabled").is_none()
    {
        tree.set("alerts.slack.enabled", Value::from(true), "SLACK_WEBHOOK_URL");
    }
    let debug = tree.given("orchestrator.debug") == Some(Value::from(true));
    if debug && tree.given("logging.level").is_none() {
        tree.set("logging.level", Value::from("debug"), "orchestrator.debug");
    }
    let is_structured = tree.given("logging.structured_logging") == Some(Value::from(true));
    // Family W's `logging.format` is a pattern of Python's; ours is a word.
    let pattern = tree.given("logging.format").and_then(|value| value.as_str().map(str::to_owned));
    if pattern.as_ref().is_some_and(|text| text.contains('%')) {
        tree.warn("logging.format: Python patterns are not used; text or json".to_owned());
        tree.forget("logging.format");
    }
    if is_structured && tree.given("logging.format").is_none() {
        tree.set("logging.format", Value::from("json"), "logging.structured_logging");
    }
}
