//! That every endpoint of the contract's sections 2 and 4 has a test that names its paragraph, that
//! every call of section 6 has one, and that every code that is answered is documented.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::api::auth::doors;

/// Paragraphs, any of which a test may name, and the endpoints that they are of.
const ENDPOINTS: [(&[&str], &[&str]); 15] = [
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

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// All files that have tests which name a paragraph; not this one.
fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    files_below(&root().join("src"), &mut files);
    files_below(&root().join("tests"), &mut files);
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

    /// Whether a text in it is this path; what a format fills in may be anything.
    fn asks(&self, path: &str) -> bool {
        self.text.split('"').any(|piece| is_path(piece, path))
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

#[test]
fn every_endpoint_of_sections_2_and_4_has_a_test_that_names_its_paragraph() {
    let (sources, doors) = (sources(), doors().map(|(_, path)| path).collect::<BTreeSet<_>>());
    assert!(sources.len() > 40, "tests are where this one looks for them");
    let mut missing = Vec::new();
    for (paragraphs, paths) in ENDPOINTS {
        for path in paths {
            assert!(doors.contains(path), "{path} is no door");
            let tested = |source: &Source| source.is_of(paragraphs) && source.asks(path);
            if !sources.iter().any(tested) {
                missing.push(format!("{path} of {paragraphs:?}"));
            }
        }
    }
    let is_called = |method: &&str| {
        sources.iter().any(|source| source.is_of(&["4_9"]) && source.text.contains(*method))
    };
    missing.extend(METHODS.iter().filter(|method| !is_called(method)).map(|one| one.to_string()));
    assert_eq!(missing, [""; 0]);
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

/// What looks like a code in these sources and is none.
const NO_CODES: [&str; 3] = ["CARGO_MANIFEST_DIR", "CARGO_PKG_DESCRIPTION", "CARGO_PKG_VERSION"];

/// Stable codes are texts of capitals with an underscore, outside of tests.
fn codes() -> BTreeSet<String> {
    let mut files = Vec::new();
    files_below(&root().join("src/api"), &mut files);
    files.retain(|path| !path.components().any(|part| part.as_os_str() == "tests"));
    files.push(root().join("src/state/outcome.rs"));
    let mut codes = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_code = |piece: &&str| {
            let capitals = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
            piece.contains('_') && piece.len() > 4 && piece.bytes().all(capitals)
        };
        codes.extend(text.split('"').filter(is_code).map(str::to_owned));
    }
    codes.retain(|code| !NO_CODES.contains(&code.as_str()));
    codes
}

#[test]
fn every_code_that_is_answered_is_documented() {
    let mut docs = String::new();
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "md") {
            docs.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    let codes = codes();
    assert!(codes.len() > 80, "codes are where this test looks for them: {codes:?}");
    let is_word = |code: &str| {
        let ends = |byte: Option<&u8>| {
            byte.is_none_or(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
        };
        docs.match_indices(code).any(|(at, _)| {
            let bytes = docs.as_bytes();
            ends(at.checked_sub(1).and_then(|at| bytes.get(at))) && ends(bytes.get(at + code.len()))
        })
    };
    let missing: Vec<_> = codes.iter().filter(|code| !is_word(code)).collect();
    assert_eq!(missing, [""; 0], "not in docs");
}
