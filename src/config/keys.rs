//! Our own keys: one table that the reader, the environment, the generated file and the checks
//! all follow.

use serde_json::Value;

use super::tree::Tree;
use crate::model::Service;

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Not empty.
    Text,
    Flag,
    /// A whole number within bounds.
    Number(u64, u64),
    /// Any number from 0 on; fractions too.
    Amount,
    /// One of these.
    Words(&'static [&'static str]),
    /// A list of texts; in the environment, with commas between.
    Texts,
    /// Anything: kept, not looked at.
    Any,
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    /// Dots between names.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    /// As YAML; empty when there is none of its own.
    pub(super) default: &'static str,
    pub(super) doc: &'static str,
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default, doc }
}

const MIB: u64 = 1024 * 1024;
const HOUR_MS: u64 = 3_600_000;

pub(super) const KEYS: [Key; 35] = [
    key("cluster.name", Kind::Text, "member-1", "This member's name, unique in the cluster."),
    key(
        "cluster.data_dir",
        Kind::Text,
        "data/member-1",
        "Where the log, the state and snapshots live. One per member.",
    ),
    key(
        "cluster.peers",
        Kind::Texts,
        "[]",
        "Peer addresses (host:port) of members; this one may stand among them.",
    ),
    key(
        "cluster.bootstrap_expect",
        Kind::Number(0, 9),
        "1",
        "Form a new cluster when so many members (of `peers`, and this one) are there.\n0 waits for `quorate cluster init`, or to be let into an existing cluster.",
    ),
    key(
        "cluster.join",
        Kind::Flag,
        "true",
        "Ask `peers` to be let in as a learner when they have a cluster already.",
    ),
    key(
        "cluster.raft.preset",
        Kind::Words(&["default", "lan", "wan"]),
        "default",
        "Heartbeat and election times in ms: default 50/150-300, lan 30/100-200,\nwan 250/1500-3000. All members need the same.",
    ),
    key("cluster.raft.heartbeat_ms", Kind::Number(5, 60_000), "", "Instead of the preset's."),
    key(
        "cluster.raft.election_min_ms",
        Kind::Number(10, 600_000),
        "",
        "Instead of the preset's; at least twice the heartbeat.",
    ),
    key(
        "cluster.raft.election_max_ms",
        Kind::Number(11, 600_000),
        "",
        "Instead of the preset's; above the minimum.",
    ),
    key(
        "cluster.snapshot.entries",
        Kind::Number(100, 100_000_000),
        "100000",
        "Log entries between two snapshots.",
    ),
    key(
        "cluster.snapshot.keep_entries",
        Kind::Number(0, 100_000_000),
        "10000",
        "Log entries kept behind a snapshot, so that a member that was away for a moment\nneeds no snapshot.",
    ),
    key(
        "cluster.snapshot.chunk_bytes",
        Kind::Number(4096, 64 * MIB),
        "1048576",
        "Bytes per chunk when a snapshot is sent. Each is answered before the next, within 2 s per\nMiB that it begins: larger ones (16 MiB at most) are faster over a long way, a slow one\nneeds smaller ones.",
    ),
    key(
        "cluster.backup.dir",
        Kind::Text,
        "",
        "Where the leader of the moment writes backups; without it, this member writes none.\nA disk of its own, or one that all members share.",
    ),
    key(
        "cluster.backup.interval_ms",
        Kind::Number(1000, 31 * 24 * HOUR_MS),
        "3600000",
        "From one backup to the next.",
    ),
    key(
        "cluster.backup.keep",
        Kind::Number(1, 10_000),
        "24",
        "Backups kept in the directory; older ones are deleted. The newest one that passed its\nrehearsal stays in any case.",
    ),
    key(
        "cluster.backup.rehearse",
        Kind::Flag,
        "true",
        "Load each new backup into a scratch state and compare digests. Takes the memory of a\nsecond state meanwhile.",
    ),
    key(
        "cluster.limits.body_bytes",
        Kind::Number(1024, 1024 * MIB),
        "16777216",
        "The largest request body.",
    ),
    key(
        "cluster.limits.pending_proposals",
        Kind::Number(1, 1_000_000),
        "32768",
        "Writes that may wait for their outcome at once; more are refused with 503.",
    ),
    key(
        "cluster.limits.request_hold_ms",
        Kind::Number(100, HOUR_MS),
        "8000",
        "How long a request is held while there is no leader, before it is answered 503.",
    ),
    key(
        "cluster.limits.connections",
        Kind::Number(1, 1_000_000),
        "10000",
        "Open client connections.",
    ),
    key(
        "cluster.limits.events",
        Kind::Number(16, 10_000_000),
        "65536",
        "Events kept in memory for readers that come back.",
    ),
    key(
        "cluster.admin_key",
        Kind::Text,
        "",
        "What callers of /api/v1/admin show in the header X-Quorate-Admin-Key; at least 16\ncharacters. All members need the same.",
    ),
    key("cluster.admin_key_file", Kind::Text, "", "A file that holds it instead."),
    key(
        "cluster.scaling_program",
        Kind::Text,
        "",
        "Run by the leader when auto_scaling.provider is command:\nPROGRAM scale_up|scale_down CURRENT TARGET (numbers of nodes).",
    ),
    key(
        "cluster.ca_file",
        Kind::Text,
        "",
        "A PEM file with authorities that calls over https believe, beside the well-known ones:\nfor callbacks, webhooks, nodes and calls of built-in agents. All members need the same.",
    ),
    key(
        "cluster.drills.enabled",
        Kind::Flag,
        "false",
        "Let `quorate drill` break this member on purpose. Needs an admin key.",
    ),
    key(
        "cluster.drills.supervised",
        Kind::Flag,
        "false",
        "Something starts this member again when it ends with a signal or with exit code 75:\nthen drills may kill and restart it, instead of silencing it.",
    ),
    key(
        "logging.level",
        Kind::Text,
        "info",
        "off, error, warn, info, debug, trace, or directives (quorate::cluster=debug,warn).",
    ),
    key("logging.format", Kind::Text, "text", "text or json, to standard error."),
    key(
        "services.image_generation",
        Kind::Text,
        Service::ImageGeneration.default_url(),
        "Base URLs (http or https) of what tasks of workflows call. This file is an operator's, so\n`security.outward.allowed_hosts` does not apply. All members need the same.\n[IMAGE_SERVICE_URL too, and so on]",
    ),
    key("services.video_generation", Kind::Text, Service::VideoGeneration.default_url(), ""),
    key("services.crypto_prediction", Kind::Text, Service::CryptoPrediction.default_url(), ""),
    key("services.fraud_detection", Kind::Text, Service::FraudDetection.default_url(), ""),
    key(
        "services.compression",
        Kind::Text,
        Service::Compression.default_url(),
        "This one and the next are listed by GET /services, and called by nobody.",
    ),
    key("services.marketing", Kind::Text, Service::Marketing.default_url(), ""),
];

/// The key at `path`; asking for one that is not in the table is a mistake in the program.
pub(super) fn find(path: &str) -> &'static Key {
    KEYS.iter().find(|key| key.path == path).expect("only keys of the table are read")
}

/// The variable that overrides a key.
pub(super) fn variable(path: &str) -> String {
    format!("QUORATE_{}", path.to_uppercase().replace('.', "_"))
}

impl Kind {
    /// `Ok`, or what is allowed instead of `value`.
    pub(super) fn check(self, value: &Value) -> Result<(), String> {
        let allowed = match self {
            Self::Any => return Ok(()),
            Self::Text if value.as_str().is_some_and(|text| !text.trim().is_empty()) => {
                return Ok(());
            }
            Self::Flag if value.is_boolean() => return Ok(()),
            Self::Number(min, max)
                if value.as_u64().is_some_and(|number| (min..=max).contains(&number)) =>
            {
                return Ok(());
            }
            Self::Amount if value.as_f64().is_some_and(|number| number >= 0.0) => return Ok(()),
            Self::Words(words) if value.as_str().is_some_and(|word| words.contains(&word)) => {
                return Ok(());
            }
            Self::Texts if value.as_array().is_some_and(|a| a.iter().all(Value::is_string)) => {
                return Ok(());
            }
            Self::Text => "a text".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Number(min, max) => format!("a whole number from {min} to {max}"),
            Self::Amount => "a number from 0 on".to_owned(),
            Self::Words(words) => format!("one of {}", words.join(", ")),
            Self::Texts => "a list of texts".to_owned(),
        };
        Err(format!("must be {allowed}, not {value}"))
    }

    /// What a variable says, as a value of this kind; it is checked later.
    pub(super) fn read_variable(self, text: &str) -> Value {
        let text = text.trim();
        match self {
            Self::Text | Self::Words(_) => Value::from(text),
            Self::Texts if !text.starts_with('[') => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                parts.collect::<Vec<_>>().into()
            }
            Self::Flag => match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" => Value::from(true),
                "0" | "false" | "no" | "off" => Value::from(false),
                _ => Value::from(text),
            },
            Self::Number(..) | Self::Amount | Self::Texts | Self::Any => {
                serde_yaml_ng::from_str(text).unwrap_or_else(|_| Value::from(text))
            }
        }
    }
}

/// Checks the values of our table, and that our section holds nothing else.
pub(super) fn check_ours(tree: &mut Tree) {
    for key in &KEYS {
        if let Some(value) = tree.given(key.path)
            && let Err(what) = key.kind.check(&value)
        {
            tree.fault(key.path, what);
            // One fault per value: what follows sees the default.
            tree.forget(key.path);
        }
    }
    for path in [tree.leaves("cluster"), tree.leaves("services")].concat() {
        let known = |key: &Key| key.path == path || key.path.starts_with(&format!("{path}."));
        if !KEYS.iter().any(known) {
            let what = format!("unknown key; {}", siblings(&path));
            tree.fault(&path, what);
        }
    }
}

/// What could have been meant.
fn siblings(path: &str) -> String {
    let mut parent = path;
    loop {
        let Some((shorter, _)) = parent.rsplit_once('.') else {
            return "there is no such section".to_owned();
        };
        parent = shorter;
        let inside = |key: &Key| {
            let rest = key.path.strip_prefix(parent)?.strip_prefix('.')?;
            Some(rest.split('.').next().unwrap_or(rest).to_owned())
        };
        let mut names: Vec<String> = KEYS.iter().filter_map(inside).collect();
        names.dedup();
        if !names.is_empty() {
            return format!("`{parent}` holds {}", names.join(", "));
        }
    }
}
