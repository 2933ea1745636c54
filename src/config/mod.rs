//! Configuration: what a member is told before it runs.
//!
//! Four layers, later ones win: defaults, one YAML file, the environment, flags. Two kinds of
//! values: ours (`cluster`, `listeners`, `logging`, `services`) are local and read strictly; all other sections
//! are family W's (contract 2.12) and become the first replicated configuration of a new cluster,
//! where unknown keys are kept and reported. All faults are reported at once, each with its key.

mod change;
mod compat;
mod file;
mod keys;
mod listeners;
mod local;
mod tree;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

pub use change::check_change;
pub use file::generate;
pub use listeners::{Listener, Listeners, Profile};
pub use local::{local_member, local_ports};

use crate::model::{AllowedHosts, Service, Services};
use crate::outward;
use crate::security::{ADMIN_KEY_MIN, AdminKey};
use crate::telemetry;

/// Everything a member needs to know to start.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `cluster.name`: the operator's name for this member, unique among members.
    pub name: String,
    /// `cluster.data_dir`.
    pub data_dir: PathBuf,
    /// Where it listens, and what others are told.
    pub listeners: Listeners,
    /// `cluster.peers`: `host:port` of members, itself included or not.
    pub peers: Vec<String>,
    /// `cluster.bootstrap_expect`: form a cluster when so many of `peers` are there; 0 waits for
    /// `quorate cluster init` or for an existing cluster.
    pub bootstrap_expect: u64,
    /// `cluster.join`: ask `peers` to be let in when they have a cluster.
    pub join: bool,
    /// `cluster.raft`.
    pub raft: Raft,
    /// `cluster.snapshot`.
    pub snapshot: Snapshot,
    /// `cluster.backup`; `None` without a directory.
    pub backup: Option<Backup>,
    /// `cluster.limits`.
    pub limits: Limits,
    /// `cluster.admin_key`, or what `cluster.admin_key_file` holds.
    pub admin_key: Option<AdminKey>,
    /// `cluster.scaling_program`.
    pub scaling_program: Option<PathBuf>,
    /// `cluster.ca_file`.
    pub ca_file: Option<PathBuf>,
    /// `cluster.drills`.
    pub drills: Drills,
    /// `logging.level`: a level or directives.
    pub log_level: String,
    /// `logging.format`.
    pub log_format: telemetry::Format,
    /// `services`: where tasks of workflows go (contract 5.5).
    pub services: Services,
    /// Family W's sections: the first replicated configuration, as a patch of the defaults.
    pub document: Value,
    /// What was ignored or looks wrong but is allowed.
    pub warnings: Vec<String>,
}

/// What drills may do to this member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drills {
    /// They may break it on purpose.
    pub enabled: bool,
    /// They may kill it, because something starts it again.
    pub supervised: bool,
}

/// Raft's timings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raft {
    /// How often a leader shows that it is there.
    pub heartbeat: Duration,
    /// The shortest silence after which a member asks for votes.
    pub election_min: Duration,
    /// The longest.
    pub election_max: Duration,
}

/// When snapshots are taken, and what they leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Log entries between two snapshots.
    pub entries: u64,
    /// Log entries kept behind a snapshot, for members that are a little late.
    pub keep_entries: u64,
    /// Bytes per chunk when one is sent.
    pub chunk_bytes: u64,
}

/// Backups on a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Where they go.
    pub dir: PathBuf,
    /// From one to the next.
    pub interval: Duration,
    /// How many are kept.
    pub keep: u64,
    /// Whether each is loaded into a scratch state.
    pub rehearse: bool,
}

/// Bounds of what a member takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest request body, in bytes.
    pub body_bytes: u64,
    /// Proposals that may wait for their outcome at once.
    pub pending_proposals: u64,
    /// How long a request is held while no leader is known, or its outcome is not.
    pub request_hold: Duration,
    /// Open client connections.
    pub connections: u64,
    /// Events kept for readers that come back.
    pub events: u64,
}

/// What the command line says; goes before everything else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--host`.
    pub host: Option<String>,
    /// `--port`.
    pub port: Option<u16>,
    /// `--log`, or `debug` for `--debug`.
    pub log_level: Option<String>,
    /// `--log-format`.
    pub log_format: Option<telemetry::Format>,
}

/// Something that is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Dotted path of the key.
    pub key: String,
    /// Where the value comes from: a line of the file, a variable, a flag.
    pub origin: String,
    /// What is wrong and what is allowed.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.is_empty(), self.origin.is_empty()) {
            (true, true) => write!(f, "{}", self.what),
            (true, false) => write!(f, "{}: {}", self.origin, self.what),
            (false, true) => write!(f, "{}: {}", self.key, self.what),
            (false, false) => write!(f, "{}: {}: {}", self.origin, self.key, self.what),
        }
    }
}

/// Everything that is wrong, one fault per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [fault] => write!(f, "the configuration is wrong: {fault}"),
            faults => {
                write!(f, "the configuration is wrong in {} places:", faults.len())?;
                faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
        }
    }
}

impl std::error::Error for Faults {}

/// The process's environment: the one place that reads it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars().collect()
}

/// Reads and checks everything.
///
/// # Errors
/// All [`Faults`] at once.
pub fn load(
    path: Option<&Path>,
    environment: &BTreeMap<String, String>,
    flags: &Flags,
) -> Result<Config, Faults> {
    let text = match path {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path).map_err(|error| {
            let origin = path.display().to_string();
            Faults(vec![Fault { key: String::new(), origin, what: error.to_string() }])
        })?,
    };
    read(&text, environment, flags)
}

/// As [`load`], from the text of a file.
///
/// # Errors
/// All [`Faults`] at once.
pub fn read(
    text: &str,
    environment: &BTreeMap<String, String>,
    flags: &Flags,
) -> Result<Config, Faults> {
    let mut tree = tree::Tree::parse(text)?;
    tree.overlay(environment);
    if let Some(level) = &flags.log_level {
        tree.set("logging.level", Value::from(level.as_str()), "--log");
    }
    if let Some(format) = flags.log_format {
        tree.set("logging.format", Value::from(format.as_str()), "--log-format");
    }
    compat::tell_unused(&mut tree, environment);
    keys::check_ours(&mut tree);
    let document = compat::check(&mut tree);
    let listeners = listeners::read(&mut tree, environment, flags);
    let config = assemble(&mut tree, listeners, document);
    check_whole(&config, &mut tree);
    let tree::Findings { faults, warnings } = tree.into_findings();
    if faults.is_empty() { Ok(Config { warnings, ..config }) } else { Err(Faults(faults)) }
}

fn assemble(tree: &mut tree::Tree, listeners: Listeners, document: Value) -> Config {
    let ms = Duration::from_millis;
    let (heartbeat, election_min, election_max) = match tree.text("cluster.raft.preset").as_str() {
        "lan" => (30, 100, 200),
        "wan" => (250, 1500, 3000),
        _ => (50, 150, 300),
    };
    let log_format = tree.text("logging.format").parse().unwrap_or_else(|what: String| {
        tree.fault("logging.format", what);
        telemetry::Format::Text
    });
    let log_level = tree.text("logging.level");
    if let Err(error) = telemetry::directives(&log_level) {
        tree.fault("logging.level", error.to_string());
    }
    let admin_key = admin_key(tree);
    let backup_dir = tree.text("cluster.backup.dir");
    let file = |text: String| Some(text).filter(|text| !text.is_empty()).map(PathBuf::from);
    Config {
        name: tree.text("cluster.name"),
        data_dir: PathBuf::from(tree.text("cluster.data_dir")),
        listeners,
        peers: tree.list("cluster.peers"),
        bootstrap_expect: tree.number("cluster.bootstrap_expect"),
        join: tree.flag("cluster.join"),
        raft: Raft {
            heartbeat: ms(tree.number_or("cluster.raft.heartbeat_ms", heartbeat)),
            election_min: ms(tree.number_or("cluster.raft.election_min_ms", election_min)),
            election_max: ms(tree.number_or("cluster.raft.election_max_ms", election_max)),
        },
        snapshot: Snapshot {
            entries: tree.number("cluster.snapshot.entries"),
            keep_entries: tree.number("cluster.snapshot.keep_entries"),
            chunk_bytes: tree.number("cluster.snapshot.chunk_bytes"),
        },
        backup: (!backup_dir.is_empty()).then(|| Backup {
            dir: PathBuf::from(backup_dir),
            interval: ms(tree.number("cluster.backup.interval_ms")),
            keep: tree.number("cluster.backup.keep"),
            rehearse: tree.flag("cluster.backup.rehearse"),
        }),
        limits: Limits {
            body_bytes: tree.number("cluster.limits.body_bytes"),
            pending_proposals: tree.number("cluster.limits.pending_proposals"),
            request_hold: ms(tree.number("cluster.limits.request_hold_ms")),
            connections: tree.number("cluster.limits.connections"),
            events: tree.number("cluster.limits.events"),
        },
        admin_key,
        scaling_program: file(tree.text("cluster.scaling_program")),
        ca_file: file(tree.text("cluster.ca_file")),
        drills: Drills {
            enabled: tree.flag("cluster.drills.enabled"),
            supervised: tree.flag("cluster.drills.supervised"),
        },
        log_level,
        log_format,
        services: services(tree),
        document,
        warnings: Vec::new(),
    }
}

/// Where the services are.
fn services(tree: &mut tree::Tree) -> Services {
    let mut services = Services::default();
    for service in Service::ALL {
        let path = format!("services.{}", service.as_str());
        let url = tree.text(&path);
        match outward::target(&url, &AllowedHosts::default()) {
            Ok(_) => services.set(service, &url),
            Err(error) => tree.fault(&path, error.to_string()),
        }
    }
    services
}

/// The admin key, from its own value or from a file.
fn admin_key(tree: &mut tree::Tree) -> Option<AdminKey> {
    let (mut key, mut path) = ("cluster.admin_key", "cluster.admin_key_file");
    let mut text = tree.given(key).and_then(|value| value.as_str().map(str::to_owned));
    if let Some(file) = tree.given(path).and_then(|value| value.as_str().map(str::to_owned)) {
        if text.is_some() {
            tree.fault(path, "goes without cluster.admin_key");
        }
        std::mem::swap(&mut key, &mut path);
        match std::fs::read_to_string(&file) {
            Ok(read) => text = Some(read),
            Err(error) => {
                tree.fault(key, format!("{file}: {error}"));
                return None;
            }
        }
    }
    let text = text?;
    let made = AdminKey::new(text.trim());
    if made.is_none() {
        tree.fault(key, format!("must have at least {ADMIN_KEY_MIN} characters"));
    }
    made
}

/// What no value can say alone.
fn check_whole(config: &Config, tree: &mut tree::Tree) {
    let Raft { heartbeat, election_min, election_max } = config.raft;
    if election_min < heartbeat * 2 {
        let what =
            format!("{election_min:?} must be at least twice the heartbeat of {heartbeat:?}");
        tree.fault("cluster.raft.election_min_ms", what);
    }
    if election_max <= election_min {
        let what = format!("{election_max:?} must be above election_min_ms of {election_min:?}");
        tree.fault("cluster.raft.election_max_ms", what);
    }
    if config.drills.enabled && config.admin_key.is_none() {
        let what = "needs cluster.admin_key or cluster.admin_key_file";
        tree.fault("cluster.drills.enabled", what);
    }
    for peer in &config.peers {
        if let Err(what) = listeners::check_host_port(peer) {
            tree.fault("cluster.peers", what);
        }
    }
    // Its own address may stand among the peers or not.
    let own = &config.listeners.peer.advertise;
    let others = config.peers.iter().filter(|peer| *peer != own).count() as u64;
    if config.bootstrap_expect > others + 1 {
        let what = format!(
            "{} members are expected, but `cluster.peers` names {others} others",
            config.bootstrap_expect
        );
        tree.fault("cluster.bootstrap_expect", what);
    }
    if config.bootstrap_expect > 0 && config.bootstrap_expect.is_multiple_of(2) {
        tree.warn(format!(
            "cluster.bootstrap_expect: {} members survive no more failures than {}",
            config.bootstrap_expect,
            config.bootstrap_expect - 1
        ));
    }
}
