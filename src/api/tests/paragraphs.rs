//! That every endpoint of the contract's sections 2 to 5 has a test that names its paragraph, and that
//! every call of section 6 has one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::api::auth::doors;

/// Paragraphs, any of which a test may name, and the endpoints that they are of.
type Endpoints = &'static [(&'static [&'static str], &'static [&'static str])];

/// A section, its endpoints, and the prefixes under which a test may ask for them.
type Section = (&'static str, Endpoints, &'static [&'static str]);

const SECTIONS: [Section; 3] = [
    ("2 and 4", NODES_AND_AGENTS, &[""]),
    ("3", CAMPAIGNS, &["", "/api", "/api/v1"]),
    ("5", BOTS, &["", "/api/v1"]),
];

const NODES_AND_AGENTS: Endpoints = &[
    (&["c9", "2_3"], &["/", "/dashboard"]),
    (&["2_3"], &["/api/v1/health", "/status", "/api/v1/status", "/api/v1/nodes"]),
    (&["2_3"], &["/api/v1/nodes/{node_id}", "/api/v1/nodes/{node_id}/register"]),
    (&["2_3"], &["/api/v1/nodes/{node_id}/heartbeat", "/api/v1/nodes/{node_id}/status"]),
    (&["2_3", "c22"], &["/api/v1/agents", "/api/v1/agents/{*agent_id}"]),
    (&["2_3", "c1"], &["/api/v1/tasks"]),
    (&["2_3", "c11"], &["/api/v1/tasks/pending", "/api/v1/tasks/active"]),
    (&["2_3", "c11"], &["/api/v1/tasks/completed", "/api/v1/tasks/failed"]),
    (&["2_7"], &["/api/v1/tasks/{task_id}/result"]),
    (&["4_2", "8_4", "c2"], &["/api/v1/tasks/{task_id}"]),
    (
        &["2_3", "2_13", "c8"],
        &["/api/v1/metrics", "/api/v1/metrics/performance", "/api/v1/metrics/prometheus"],
    ),
    (
        &["2_3", "c16"],
        &[
            "/api/v1/config",
            "/api/v1/config/{*path}",
            "/api/v1/control/start",
            "/api/v1/control/stop",
            "/api/v1/control/restart",
            "/api/v1/websocket/info",
            "/api/v1/dashboard/config",
            "/api/v1/dashboard/alerts",
            "/api/v1/dashboard/nodes/detailed",
            "/api/v1/dashboard/performance/history",
            "/api/v1/dashboard/tasks/queue",
            "/api/v1/dashboard/system/info",
            "/api/v1/dashboard/export/{format}",
        ],
    ),
    (
        &["c7", "2_3"],
        &[
            "/api/v1/auth/login",
            "/api/v1/auth/refresh",
            "/api/v1/auth/logout",
            "/api/v1/auth/api-keys",
        ],
    ),
    (&["2_4"], &["/ws"]),
    (&["4_2", "c6", "4_8", "4_4"], &["/health", "/metrics", "/api/v1/pipelines/{task_type}"]),
];

/// As they are without a prefix.
const CAMPAIGNS: Endpoints = &[
    (&["3_3"], &["/orchestrator/state", "/orchestrator/config", "/orchestrator/run_once"]),
    (&["3_3"], &["/orchestrator/runs", "/orchestrator/runs/{id}", "/orchestrator/stats"]),
    (&["3_3"], &["/orchestrator/activate", "/orchestrator/deactivate"]),
    (&["3_4"], &["/orchestrator/slots", "/models", "/models/{name}"]),
    (&["3_5"], &["/agent/summary", "/agent/commands", "/agent/commands/{id}"]),
    (&["3_5"], &["/agent/create_design_campaign", "/agent/advance_campaign"]),
    (&["3_5"], &["/agent/request_simulations", "/agent/request_experiments"]),
    (&["3_5"], &["/agent/campaigns/{id}/stop", "/agent/campaigns/{id}/log"]),
    (
        &["3_6"],
        &[
            "/campaigns",
            "/campaigns/{id}",
            "/campaigns/{id}/start",
            "/campaigns/{id}/pause",
            "/campaigns/{id}/resume",
            "/campaigns/{id}/cancel",
            "/campaigns/{id}/step",
            "/campaigns/{id}/iterations",
            "/campaigns/{id}/iterations/{index}",
            "/campaigns/{id}/summary",
        ],
    ),
    (&["3_6"], &["/structures", "/structures/{id}", "/jobs/dft", "/jobs/ml-prediction"]),
    (&["3_6"], &["/jobs", "/jobs/{id}", "/jobs/{id}/status", "/jobs/{id}/results"]),
    (&["3_6"], &["/experiments", "/experiments/{id}"]),
    (&["3_6"], &["/experiments/{id}/status", "/experiments/{id}/results"]),
    (&["3_6"], &["/instruments", "/instruments/{id}"]),
    (&["3_6"], &["/auth/register", "/auth/login", "/auth/token", "/auth/refresh"]),
    (&["3_6"], &["/auth/logout", "/auth/me", "/auth/users", "/auth/users/{user}"]),
    (&["3_7"], &["/", "/health", "/health/version", "/health/db", "/health/cache"]),
    (&["3_7"], &["/healthz", "/readyz", "/api/v1", "/metrics"]),
];

/// As they are without a prefix. What the family does not have is named by the paragraph that it is beside.
const BOTS: Endpoints = &[
    (&["5_1"], &["/health", "/services", "/bots", "/bots/{id}", "/swarms", "/swarms/{id}"]),
    (&["5_3"], &["/bots/stats", "/swarms/{id}/tasks"]),
    (&["5_2"], &["/bots/{id}/tasks", "/bots/{id}/tasks/{task}/complete"]),
    (&["5_4"], &["/orchestrate", "/task/{id}"]),
    (&["5_4"], &["/workflows", "/workflows/{id}"]),
    (&["5_6"], &["/api/v1/bots", "/api/v1/swarms", "/api/v1/bots/stats", "/api/v1/orchestrate"]),
    (&["5_3"], &["/bots/leases", "/bots/leases/renew", "/bots/leases/release"]),
    (&["5_3"], &["/bots/{id}/tasks/lease", "/swarms/{id}/tasks/lease"]),
    (&["5_3"], &["/assignments/complete", "/assignments/fail"]),
    (&["5_3"], &["/bots/{id}/health", "/swarms/{id}/health"]),
];

/// Methods of the gRPC services (contract 4.9), as a generated client has them.
const METHODS: [&str; 9] = [
    "submit_task(",
    "get_task_status(",
    "stream_task_updates(",
    "cancel_task(",
    "health_check(",
    "execute_task(",
    "stream_execution(",
    "register_agent(",
    "agent_health_check(",
];

/// A file of tests.
struct Source {
    text: String,
    /// What its tests are named after.
    names: BTreeSet<String>,
}

pub(super) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Adds a file, or all below a directory.
pub(super) fn files_below(path: &Path, found: &mut Vec<PathBuf>) {
    if !path.is_dir() {
        found.push(path.to_owned());
        return;
    }
    for entry in std::fs::read_dir(path).unwrap() {
        files_below(&entry.unwrap().path(), found);
    }
}

/// All files that have tests which name a paragraph; not this one.
fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    files_below(&root().join("src"), &mut files);
    files_below(&root().join("tests"), &mut files);
    files.retain(|path| path.extension().is_some_and(|end| end == "rs"));
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let names = text.split("fn contract_").skip(1).filter_map(|rest| rest.split('(').next());
        Source { names: names.map(str::to_owned).collect(), text }
    };
    let others = files.into_iter().filter(|path| !path.ends_with("paragraphs.rs")).map(read);
    others.filter(|source| !source.names.is_empty()).collect()
}

impl Source {
    fn is_of(&self, paragraphs: &[&str]) -> bool {
        let begins = |name: &String| {
            paragraphs.iter().any(|one| name.strip_prefix(one).is_some_and(|r| r.starts_with('_')))
        };
        self.names.iter().any(begins)
    }

    /// Whether a text in it is this path under one of these prefixes; what a format fills in may be
    /// anything.
    fn asks(&self, path: &str, prefixes: &[&str]) -> bool {
        let under = |piece: &str| {
            let mut rests = prefixes.iter().filter_map(|prefix| piece.strip_prefix(prefix));
            piece == path || rests.any(|rest| is_path(rest, path))
        };
        self.text.split('"').any(under)
    }
}

fn is_path(piece: &str, path: &str) -> bool {
    let piece = piece.split('?').next().unwrap_or_default();
    if !piece.starts_with('/') {
        return false;
    }
    let (mut found, mut wanted) = (piece.split('/'), path.split('/'));
    loop {
        match (found.next(), wanted.next()) {
            (Some(_), Some(wild)) if wild.starts_with("{*") => return true,
            (Some(one), Some(other)) => {
                let fits = one == other || one.starts_with('{') || other.starts_with('{');
                if !fits || one.is_empty() != other.is_empty() {
                    return false;
                }
            }
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Endpoints of a section that no test asks for which names their paragraph.
fn untested(sources: &[Source], (_, endpoints, prefixes): Section) -> Vec<String> {
    let doors = doors().map(|(_, path)| path).collect::<BTreeSet<_>>();
    let mut missing = Vec::new();
    for (paragraphs, paths) in endpoints {
        for path in *paths {
            assert!(doors.contains(path), "{path} is no door");
            let tested = |source: &Source| source.is_of(paragraphs) && source.asks(path, prefixes);
            if !sources.iter().any(tested) {
                missing.push(format!("{path} of {paragraphs:?}"));
            }
        }
    }
    missing
}

#[test]
fn every_endpoint_has_a_test_that_names_its_paragraph() {
    let sources = sources();
    assert!(sources.len() > 40, "tests are where this one looks for them");
    for section in SECTIONS {
        assert_eq!(untested(&sources, section), [""; 0], "of section {}", section.0);
    }
    let is_called = |method: &&str| {
        sources.iter().any(|source| source.is_of(&["4_9"]) && source.text.contains(*method))
    };
    let missing: Vec<&str> = METHODS.iter().filter(|method| !is_called(method)).copied().collect();
    assert_eq!(missing, [""; 0], "of section 4.9");
}

/// A door of family N that stands in no row would be asked for by nobody.
#[test]
fn every_door_of_section_3_stands_in_its_table() {
    let known: BTreeSet<_> = CAMPAIGNS.iter().flat_map(|(_, paths)| *paths).copied().collect();
    let all: BTreeSet<_> = doors().map(|(_, path)| path).collect();
    let under_all = |path: &&&str| {
        let prefixed = |prefix: &str| all.contains(&*format!("{prefix}{path}"));
        !path.starts_with("/api") && prefixed("/api") && prefixed("/api/v1")
    };
    let missing: Vec<_> =
        all.iter().filter(under_all).filter(|path| !known.contains(*path)).collect();
    assert_eq!(missing, [&""; 0]);
}

/// The same of family B, whose doors are at the root and under `/api/v1`.
#[test]
fn every_door_of_section_5_stands_in_its_table() {
    let known = [NODES_AND_AGENTS, BOTS].into_iter().flatten();
    let known: BTreeSet<_> = known.flat_map(|(_, paths)| *paths).copied().collect();
    let all: BTreeSet<_> = doors().map(|(_, path)| path).collect();
    let under_both = |path: &&&str| {
        let prefixed = |prefix: &str| all.contains(&*format!("{prefix}{path}"));
        !path.starts_with("/api") && prefixed("/api/v1") && !prefixed("/api")
    };
    let missing: Vec<_> =
        all.iter().filter(under_both).filter(|path| !known.contains(*path)).collect();
    assert_eq!(missing, [&""; 0]);
}

#[test]
fn every_outward_call_of_section_6_has_a_test_that_names_its_row() {
    let sources = sources();
    let is_named = |row: &u32| {
        let prefix = format!("6_row_{row}");
        sources.iter().any(|source| source.is_of(&[&prefix]))
    };
    let missing: Vec<u32> = (1..=13).filter(|row| !is_named(row)).collect();
    assert!(missing.is_empty(), "rows without a test: {missing:?}");
}
