//! That the pages keep up with the sources: codes that are answered, refusals that operators meet, and
//! the names of metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::World;
use super::paragraphs::{files_below, root};
use crate::model::StepConfig;

const API: &str = include_str!("../../../docs/api.md");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// Words in capitals that are no code of a problem document: of family A's errors, of family W's
/// `details.code`, of what a task waits for, and of the compiler.
const NO_PROBLEMS: [&str; 14] = [
    "VALIDATION_ERROR",
    "AGENT_UNAVAILABLE",
    "EXECUTION_FAILED",
    "ORCHESTRATOR_NOT_STARTED",
    "NO_NODE",
    "NODES_BUSY",
    "BACK_OFF",
    "DEPENDS_ON",
    "NOT_ACKNOWLEDGED",
    "RATE_LIMIT",
    "CARGO_MANIFEST_DIR",
    "CARGO_PKG_DESCRIPTION",
    "CARGO_PKG_VERSION",
    "CARGO_PKG_NAME",
];

/// What makes an error, and the status that it gives.
const MAKERS: [(&str, u16); 13] = [
    ("bad_request(", 400),
    ("StatusCode::UNAUTHORIZED,", 401),
    ("StatusCode::FORBIDDEN,", 403),
    ("not_found(", 404),
    ("StatusCode::NOT_FOUND,", 404),
    ("StatusCode::METHOD_NOT_ALLOWED,", 405),
    ("conflict(", 409),
    ("StatusCode::CONFLICT,", 409),
    ("StatusCode::PAYLOAD_TOO_LARGE,", 413),
    ("StatusCode::TOO_MANY_REQUESTS,", 429),
    ("StatusCode::INTERNAL_SERVER_ERROR,", 500),
    ("unavailable(", 503),
    ("StatusCode::GATEWAY_TIMEOUT,", 504),
];

fn is_word(piece: &str) -> bool {
    piece.len() > 3 && piece.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

/// Words in capitals in what is compiled of these files, each with the status that it is made with.
fn words_of(paths: &[&str]) -> Vec<(String, Option<u16>)> {
    let mut files = Vec::new();
    paths.iter().for_each(|path| files_below(&root().join(path), &mut files));
    let is_test =
        |path: &PathBuf| path.ends_with("tests.rs") || path.iter().any(|part| part == "tests");
    files.retain(|path| !is_test(path));
    assert!(!files.is_empty(), "{paths:?}");
    let mut words = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let pieces: Vec<&str> = text.split('"').collect();
        for pair in pieces.windows(2).filter(|pair| is_word(pair[1])) {
            let before = pair[0].trim_end();
            let made = MAKERS.iter().find(|(maker, _)| before.ends_with(maker));
            if made.is_some() || pair[1].contains('_') {
                words.push((pair[1].to_owned(), made.map(|(_, status)| *status)));
            }
        }
    }
    words
}

/// What stands between backticks in the first cell of rows of this part of a page, or in the second one.
fn cells(page: &str, from: &str, to: &str, place: usize) -> Vec<(String, Vec<String>)> {
    let part = page.split_once(from).unwrap().1.split_once(to).unwrap().0;
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        let quoted = cells.get(place)?.split('`').skip(1).step_by(2);
        Some((cells[0].to_owned(), quoted.map(str::to_owned).collect()))
    };
    part.lines().filter_map(row).collect()
}

#[test]
fn every_code_that_is_answered_stands_under_its_status() {
    let mut listed: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    for (statuses, codes) in cells(API, "\n## Errors\n", "\n## Tasks\n", 1) {
        let statuses = statuses.split(", ").filter_map(|status| status.parse().ok());
        let statuses: BTreeSet<u16> = statuses.collect();
        for code in codes.into_iter().filter(|code| is_word(code)) {
            listed.entry(code).or_default().extend(&statuses);
        }
    }
    let sources = ["src/api", "src/security", "src/state/outcome.rs", "src/state/bot_command.rs"];
    let mut answered = words_of(&sources);
    answered.extend(words_of(&["src/cluster/error.rs"]));
    answered.retain(|(word, _)| !NO_PROBLEMS.contains(&word.as_str()));
    assert!(answered.len() > 200, "codes are where this test looks for them");
    let is_listed = |(code, status): &&(String, Option<u16>)| {
        let statuses = listed.get(code);
        statuses.is_some_and(|known| status.is_none_or(|status| known.contains(&status)))
    };
    let missing: BTreeSet<_> = answered.iter().filter(|one| !is_listed(one)).collect();
    assert_eq!(missing, BTreeSet::new(), "not in docs/api.md");
    let known: BTreeSet<_> = answered.iter().map(|(code, _)| code.as_str()).collect();
    let known = |code: &str| known.contains(code) || !code.contains('_');
    let stale: Vec<_> = listed.keys().filter(|code| !known(code)).collect();
    assert_eq!(stale, [""; 0], "of docs/api.md, in no source");
    let unexplained: Vec<_> =
        NO_PROBLEMS[..10].iter().filter(|word| !API.contains(*word)).collect();
    assert_eq!(unexplained, [&""; 0]);
}

#[test]
fn every_refusal_that_an_operator_meets_is_explained() {
    let rows = cells(OPERATIONS, "\n## What is refused", "\n## Drills\n", 0);
    let explained: BTreeSet<String> = rows.into_iter().flat_map(|(_, codes)| codes).collect();
    let sources = ["src/cluster/error.rs", "src/cluster/wire.rs", "src/drill/plan.rs"];
    // Proposals and reads, which share a file with changes of the membership, are in docs/api.md.
    let of_requests = ["OUTCOME_UNKNOWN", "TOO_LARGE", "MEMBER_BEHIND", "STALE_READ"];
    let refusals: BTreeSet<String> = words_of(&sources).into_iter().map(|(word, _)| word).collect();
    assert!(refusals.len() > 30, "{refusals:?}");
    let is_missing =
        |code: &&String| !explained.contains(*code) && !of_requests.contains(&code.as_str());
    let missing: Vec<_> = refusals.iter().filter(is_missing).collect();
    assert_eq!(missing, [""; 0], "not in docs/operations.md");
}

#[tokio::test]
async fn every_metric_of_ours_is_named() {
    let world = World::new().await;
    let text = world.get("/metrics").await.text;
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let ours = families.filter_map(|line| line.split(' ').next());
    let ours: BTreeSet<&str> = ours.filter(|name| name.starts_with("quorate_")).collect();
    assert!(ours.len() > 40, "{ours:?}");
    let named =
        |name: &&&str| API.contains(&format!("`{name}`")) || API.contains(&format!("`{name}{{"));
    let missing: Vec<_> = ours.iter().filter(|name| !named(name)).collect();
    assert_eq!(missing, [&""; 0], "not in docs/api.md");
}

#[test]
fn the_settings_of_an_orchestrator_are_listed_with_their_defaults() {
    let page = include_str!("../../../docs/campaigns.md");
    let settings = crate::api::nanoos::config::view(&StepConfig::default());
    for (name, default) in settings.as_object().unwrap() {
        let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        let row = |default: &str| page.contains(&format!("\n| `{name}` | {default} | "));
        assert!(row(&default) || row(&format!("`{default}`")), "{name}: {default}");
    }
}
