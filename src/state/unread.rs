//! Keys of the configuration that are kept and that nothing acts on (contract 2.12). Whoever sets one
//! is told so, and where the same is said here, instead of being left to believe that it works.

use serde_json::Value;

/// A key, or all below one; the value that says what is the case anyway, as JSON; and what to know.
type Row = (&'static str, &'static str, &'static str);

const BEATS: &str = "nodes beat as often as they choose; `network.node_timeout` is what counts";
const NODES: &str = "calls to nodes have times and bounds of their own";
const BALANCE: &str = "`network.load_balance_algorithm` says how nodes are chosen";
const PROCESS: &str = "this program sizes itself";
const BACKUP: &str = "backups are `cluster.backup` of each member's own file";
const LOG: &str = "the log goes to standard error, for whatever collects it";
const MEMBER: &str = "read from a member's own file when it starts";
const RAFT: &str = "members are `cluster.peers` of each member's own file";
const DISK: &str = "the state is in `cluster.data_dir` of each member";
const CLOUD: &str = "`auto_scaling.provider: command` runs a program of yours instead";

const ROWS: &[Row] = &[
    ("orchestrator.host", "", MEMBER),
    ("orchestrator.port", "", MEMBER),
    ("orchestrator.heartbeat_interval", "30", BEATS),
    ("orchestrator.debug", "false", MEMBER),
    ("orchestrator.log_level", "", MEMBER),
    ("orchestrator.ssl_enabled", "false", "no TLS is served: put a proxy in front"),
    ("orchestrator.ssl_cert", "", "no TLS is served: put a proxy in front"),
    ("orchestrator.ssl_key", "", "no TLS is served: put a proxy in front"),
    ("network.fault_tolerance_enabled", "true", "it is always on"),
    ("network.min_nodes", "1", "the least is `auto_scaling.min_nodes`"),
    ("network.connection_timeout", "", NODES),
    ("network.retry_attempts", "", "retries are `orchestrator.max_retries`"),
    ("network.retry_delay", "", "the first delay is `tasks.retry_delay_ms`"),
    ("network.keep_alive", "true", NODES),
    ("network.connection_pool_size", "", NODES),
    ("network.max_concurrent_requests", "", NODES),
    ("performance.monitoring_enabled", "true", "`metrics.enabled` and `alerts.enabled` switch"),
    ("performance.optimization_enabled", "true", "advice is given, and nothing done by itself"),
    ("performance.load_balancing.algorithm", "", BALANCE),
    ("performance.metrics_retention_days", "", "`performance.metrics_retention_hours` counts"),
    ("performance.max_memory_usage", "", PROCESS),
    ("performance.gc_threshold", "", PROCESS),
    ("performance.connection_pool_size", "", PROCESS),
    ("performance.cache_size", "", PROCESS),
    ("performance.cleanup_interval", "", "ended tasks are deleted as they come of age"),
    ("performance.cpu_limit", "", PROCESS),
    ("performance.memory_limit", "", PROCESS),
    ("performance.worker_processes", "", PROCESS),
    ("performance.thread_pool_size", "", PROCESS),
    ("security.encryption_enabled", "false", "nothing is encrypted at rest: encrypt the disk"),
    ("storage.type", "\"local\"", DISK),
    ("storage.path", "", MEMBER),
    ("storage.backup_enabled", "false", BACKUP),
    ("storage.backup_interval_hours", "", BACKUP),
    ("storage.backup_retention_days", "", BACKUP),
    ("storage.backup_location", "", BACKUP),
    ("storage.backup_encryption", "false", BACKUP),
    ("storage.compression_enabled", "false", DISK),
    ("storage.encryption_enabled", "false", "nothing is encrypted at rest: encrypt the disk"),
    ("storage.data_retention_days", "", "`performance.metrics_retention_hours` counts"),
    ("storage.redis", "", DISK),
    ("storage.postgresql", "", DISK),
    ("storage.mongodb", "", DISK),
    ("websocket.host", "", MEMBER),
    ("websocket.port", "", MEMBER),
    ("consensus.enabled", "true", "it is always on"),
    ("consensus.quorum_size", "", RAFT),
    ("consensus.leader_election", "true", "it is always on"),
    ("consensus.partition_tolerance", "true", "it is always on"),
    ("logging.structured_logging", "", MEMBER),
    ("logging.file_logging", "false", LOG),
    ("logging.log_file", "", LOG),
    ("logging.file", "", LOG),
    ("logging.max_file_size", "", LOG),
    ("logging.max_size", "", LOG),
    ("logging.backup_count", "", LOG),
    ("logging.console_logging", "true", LOG),
    ("logging.console_output", "true", LOG),
    ("logging.log_rotation", "", LOG),
    ("database", "", DISK),
    ("metrics.prometheus_port", "", "`/metrics` is on every HTTP listener"),
    ("metrics.collection_interval", "", "figures are those of the moment they are asked for"),
    ("auto_scaling.kubernetes", "", CLOUD),
    ("docker", "", CLOUD),
    ("aws", "", CLOUD),
    ("kubernetes", "", CLOUD),
    ("scaling_rules", "", "rules are `auto_scaling.scaling_rules`"),
    ("orchestrator_url", "", "the scaling program is told by its caller"),
    ("backup", "", BACKUP),
    ("tasks.max_completed_tasks", "", "ended tasks are bounded by `tasks.max_retained_tasks`"),
    ("tasks.max_failed_tasks", "", "ended tasks are bounded by `tasks.max_retained_tasks`"),
    ("compat.redis_facade", "false", "there is none: agents register over gRPC or REST"),
];

/// The keys of `document` that nothing acts on, each with what to know. A value that says what is the
/// case anyway is no news.
#[must_use]
pub fn unread(document: &Value) -> Vec<(&'static str, &'static str)> {
    let given = |path: &str| path.split('.').try_fold(document, |at, key| at.get(key));
    let is_news = |(path, quiet, _): &&Row| {
        given(path).is_some_and(|value| {
            let said = value.to_string();
            !value.is_null() && said != *quiet
        })
    };
    let mut found: Vec<_> =
        ROWS.iter().filter(is_news).map(|(path, _, what)| (*path, *what)).collect();
    let provider = given("auto_scaling.provider").and_then(Value::as_str);
    if provider.is_some_and(|word| ["docker", "kubernetes", "aws_ec2"].contains(&word)) {
        found.push(("auto_scaling.provider", CLOUD));
    }
    found
}

/// All such keys, each with what to know: for the page that lists them.
pub fn unread_keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROWS.iter().map(|(path, _, what)| (*path, *what))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::state::default_document;

    #[test]
    fn contract_2_12_what_nobody_reads_is_told() {
        assert_eq!(unread(&default_document()), [], "the defaults are no news");
        let document = json!({
            "orchestrator": {"ssl_enabled": true, "id": "o", "heartbeat_interval": 10},
            "network": {"fault_tolerance_enabled": true, "keep_alive": false},
            "storage": {"redis": {"host": "h"}}, "aws": {}, "docker": null,
            "auto_scaling": {"provider": "aws_ec2"}
        });
        let keys: Vec<_> = unread(&document).into_iter().map(|(key, _)| key).collect();
        let expected = [
            "orchestrator.heartbeat_interval",
            "orchestrator.ssl_enabled",
            "network.keep_alive",
            "storage.redis",
            "aws",
            "auto_scaling.provider",
        ];
        assert_eq!(keys, expected);
        assert_eq!(unread(&json!([])), []);
    }

    #[test]
    fn no_key_stands_twice_and_every_quiet_value_is_json() {
        let mut keys: Vec<_> = unread_keys().map(|(path, _)| path).collect();
        keys.sort_unstable();
        let count = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), count);
        for (path, quiet, what) in ROWS {
            let is_json = serde_json::from_str::<Value>(quiet).is_ok();
            assert!((quiet.is_empty() || is_json) && !what.is_empty(), "{path}");
        }
    }
}
