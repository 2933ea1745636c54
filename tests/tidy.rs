//! The house rules that no compiler or lint knows, as tests: which room may import which, what the
//! deterministic core may not touch, how long things may get, what may not be left behind.
//!
//! The scan is textual. It leans on rustfmt's layout (an item ends with a brace at its own
//! indentation), which `.ci/run` checks first.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The corridor: a room imports only rooms before it. In front of it stand the faults that test
/// builds plant, which any room may have.
const CORRIDOR: [&str; 12] = [
    "canary", "model", "state", "storage", "security", "cluster", "leader", "api", "config",
    "server", "cli", "main",
];
/// Rooms beside the corridor, usable from `storage` on, never in `model` and `state`; with what
/// they themselves may import. Whoever needs more belongs into the corridor.
const SIDE_ROOMS: [(&str, &[&str]); 8] = [
    ("clock", &["model"]),
    ("telemetry", &["model"]),
    ("client", &["model", "clock"]),
    ("outward", &["model"]),
    ("worker", &["model", "clock", "client"]),
    ("agent", &["model", "clock", "client", "outward", "worker"]),
    ("bench", &["model", "clock", "client"]),
    ("drill", &["model", "clock", "client"]),
];
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Words the deterministic core may not contain, with the reason that is printed.
const BANNED_IN_CORE: [(&str, &str); 12] = [
    ("tokio", "apply is synchronous"),
    ("async", "apply is synchronous"),
    ("std::time", "time travels in the entry"),
    ("std::env", "members may have different environments"),
    ("std::fs", "the core does no input or output"),
    ("std::net", "the core does no input or output"),
    ("rand", "ids are minted before the command is proposed"),
    ("jiff", "time travels in the entry"),
    ("HashMap", "its order differs between members"),
    ("HashSet", "its order differs between members"),
    ("f32", "floats may not decide anything"),
    ("f64", "floats may not decide anything"),
];

/// Stored or replicated enums: a new variant must break every match on them. Outcomes are not
/// among them: whoever sent a command waits for its one outcome.
const CLOSED_ENUMS: [&str; 5] = ["Command", "Fact", "TaskStatus", "NodeStatus", "Rejection"];

/// A source file, with comments and literals blanked in `code`, line by line.
struct Source {
    path: PathBuf,
    raw: Vec<String>,
    code: Vec<String>,
    /// Lines that are compiled for tests only.
    test: Vec<bool>,
}

impl Source {
    fn new(path: &Path, text: &str) -> Self {
        let blanked = blank(text);
        let code: Vec<String> = blanked.lines().map(str::to_owned).collect();
        let raw: Vec<String> = text.lines().map(str::to_owned).collect();
        assert_eq!(raw.len(), code.len(), "{}: blanking keeps the lines", path.display());
        let test = test_lines(&code);
        Self { path: path.to_owned(), raw, code, test }
    }

    /// Lines of production code, numbered from 1.
    fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.iter().zip(&self.test).enumerate();
        lines.filter(|(_, (_, test))| !**test).map(|(n, (line, _))| (n + 1, line.as_str()))
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }

    /// The room a file of `src` belongs to.
    fn room(&self) -> &str {
        let inside = self.path.strip_prefix("src").expect("only files of src have a room");
        let first = inside.iter().next().expect("a file has a name");
        let name = first.to_str().expect("file names are plain text");
        name.strip_suffix(".rs").unwrap_or(name)
    }
}

/// Replaces the contents of comments, strings and characters by spaces, keeping the lines.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = literal_end(&chars, i);
        if end == i {
            out.push(chars[i]);
            i += 1;
        } else {
            out.extend(chars[i..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    out
}

/// Where the comment or literal that starts at `i` ends; `i` itself when none starts there.
fn literal_end(chars: &[char], i: usize) -> usize {
    let next = chars.get(i + 1).copied();
    let after_word = i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_');
    match (chars[i], next) {
        ('/', Some('/')) => find(chars, i, "\n").unwrap_or(chars.len()),
        ('/', Some('*')) => find(chars, i, "*/").map_or(chars.len(), |at| at + 2),
        ('"', _) => quoted_end(chars, i, '"'),
        ('r', Some('"' | '#')) if !after_word => raw_end(chars, i).unwrap_or(i),
        ('b', Some('r')) if !after_word => raw_end(chars, i + 1).unwrap_or(i),
        // A lifetime has no closing quote behind its first character.
        ('\'', Some('\\')) => quoted_end(chars, i, '\''),
        ('\'', _) if chars.get(i + 2) == Some(&'\'') => i + 3,
        _ => i,
    }
}

fn find(chars: &[char], from: usize, what: &str) -> Option<usize> {
    let what: Vec<char> = what.chars().collect();
    (from..chars.len()).find(|at| chars[*at..].starts_with(&what))
}

fn quoted_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// `start` is at the `r`. `None` when it begins a raw identifier instead.
fn raw_end(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    if chars.get(start + 1 + hashes) != Some(&'"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    Some(find(chars, start + hashes + 2, &close).map_or(chars.len(), |at| at + close.len()))
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Marks the items behind `#[cfg(test)]`.
fn test_lines(code: &[String]) -> Vec<bool> {
    let mut test = vec![false; code.len()];
    let mut i = 0;
    while i < code.len() {
        if !code[i].trim_start().starts_with("#[cfg(test)]") {
            i += 1;
            continue;
        }
        let end = item_end(code, i).min(code.len() - 1);
        test[i..=end].fill(true);
        i = end + 1;
    }
    test
}

/// The last line of the item that starts at `start`, attributes included.
fn item_end(code: &[String], start: usize) -> usize {
    let indent = indentation(&code[start]);
    for (n, line) in code.iter().enumerate().skip(start) {
        let text = line.trim();
        if indentation(line) != indent || text.is_empty() || text.starts_with("#[") {
            continue;
        }
        if text.ends_with(';') || text.ends_with('}') {
            return n;
        }
    }
    code.len() - 1
}

/// Whether `line` holds `word` with no identifier character on either side.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// All Rust files below `dir`, in order.
fn sources(dir: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    walk(&root.join(dir), &mut paths);
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Source::new(path.strip_prefix(root).expect("the walk starts at the root"), &text)
    };
    paths.iter().map(read).collect()
}

fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut entries: Vec<PathBuf> =
        entries.map(|entry| entry.expect("the repository is readable").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                walk(&path, into);
            }
        } else {
            into.push(path);
        }
    }
}

/// `src` without the files that are declared as test modules.
fn production_sources() -> Vec<Source> {
    let all = sources("src");
    let test_files: BTreeSet<PathBuf> = all.iter().flat_map(test_modules).collect();
    let is_test = |path: &Path| test_files.iter().any(|test| path.starts_with(test));
    all.into_iter().filter(|source| !is_test(&source.path.with_extension(""))).collect()
}

/// The paths, without extension, of modules declared for tests only.
fn test_modules(source: &Source) -> Vec<PathBuf> {
    let dir = match source.path.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod" | "lib" | "main") => source.path.parent().expect("in src").to_owned(),
        _ => source.path.with_extension(""),
    };
    let declared = source.code.iter().zip(&source.test).filter(|(_, test)| **test);
    let names = declared.filter_map(|(line, _)| line.trim().strip_suffix(';'));
    names.filter_map(|text| text.rsplit_once("mod ")).map(|(_, name)| dir.join(name)).collect()
}

/// What a room may import; `None` for a room nobody has placed yet.
fn allowed(room: &str) -> Option<Vec<&'static str>> {
    if let Some((_, imports)) = SIDE_ROOMS.iter().find(|(name, _)| *name == room) {
        return Some(imports.to_vec());
    }
    let place = CORRIDOR.iter().position(|name| *name == room)?;
    let mut rooms = CORRIDOR[..place].to_vec();
    if place >= 3 {
        rooms.extend(SIDE_ROOMS.iter().map(|(name, _)| *name));
    }
    Some(rooms)
}

/// The rooms named by `crate::room` in one line; groups (`crate::{a, b}`) are refused elsewhere.
fn imported_rooms(line: &str) -> Vec<&str> {
    let parts = line.split("crate::").skip(1);
    let end_of = |part: &str| part.find(|c: char| !c.is_alphanumeric() && c != '_');
    parts.map(|part| &part[..end_of(part).unwrap_or(part.len())]).collect()
}

fn import_faults(source: &Source) -> Vec<String> {
    let room = source.room();
    if room == "lib" {
        return Vec::new();
    }
    let Some(allowed) = allowed(room) else {
        return vec![format!("{}: room `{room}` has no place in the corridor", source.at(1))];
    };
    let mut faults = Vec::new();
    for (number, line) in source.production() {
        for import in imported_rooms(line) {
            if import.is_empty() {
                faults.push(format!("{}: name one room per `use crate::`", source.at(number)));
            } else if import != room && !allowed.contains(&import) {
                faults.push(format!("{}: `{room}` imports `{import}`", source.at(number)));
            }
        }
    }
    faults
}

fn core_faults(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in source.production() {
        for (word, reason) in BANNED_IN_CORE {
            if has_word(line, word) {
                faults.push(format!("{}: `{word}` in the core: {reason}", source.at(number)));
            }
        }
    }
    faults
}

fn length_faults(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = source.raw.len();
    if lines > FILE_LINES_MAX {
        faults.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.at(1)));
    }
    for (n, line) in source.code.iter().enumerate() {
        let words = line.split('(').next().unwrap_or_default();
        if !has_word(words, "fn") || line.trim_end().ends_with(';') {
            continue;
        }
        let length = item_end(&source.code, n) - n + 1;
        if length > FUNCTION_LINES_MAX {
            let fault = format!("a function of {length} lines, at most {FUNCTION_LINES_MAX}");
            faults.push(format!("{}: {fault}", source.at(n + 1)));
        }
    }
    faults
}

fn leftover_faults(source: &Source) -> Vec<String> {
    // Written so that this file does not find itself.
    let markers = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
        concat!("HA", "CK"),
        concat!("todo", "!"),
        concat!("unimplemented", "!"),
        concat!("dbg", "!"),
    ];
    let mut faults = Vec::new();
    for (n, line) in source.raw.iter().enumerate() {
        for marker in markers {
            if has_word(line, marker) {
                faults.push(format!("{}: leftover `{marker}`", source.at(n + 1)));
            }
        }
        if source.code[n].contains("#[ignore") {
            faults.push(format!("{}: a test that does not run", source.at(n + 1)));
        }
    }
    faults
}

fn unwrap_faults(source: &Source) -> Vec<String> {
    let hits = source.production().filter(|(_, line)| line.contains(".unwrap()"));
    hits.map(|(n, _)| format!("{}: `unwrap` outside tests", source.at(n))).collect()
}

/// Wildcard arms beside arms that name a closed enum.
fn wildcard_faults(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in source.production() {
        let text = line.trim_start();
        if !text.starts_with("_ =>") && !text.starts_with("_ if") {
            continue;
        }
        let depth = indentation(line);
        let inside = |line: &&String| line.trim().is_empty() || indentation(line) >= depth;
        let above = source.code[..number - 1].iter().rev().take_while(inside);
        let below = source.code[number..].iter().take_while(inside);
        let mut arms = above.chain(below).filter(|line| indentation(line) == depth);
        let names_closed = |line: &String| {
            CLOSED_ENUMS.iter().any(|name| line.trim_start().starts_with(&format!("{name}::")))
        };
        if arms.any(names_closed) {
            faults.push(format!("{}: `_` beside arms of a closed enum", source.at(number)));
        }
    }
    faults
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn sources_of_the_core() -> Vec<Source> {
    let mut files = production_sources();
    files.retain(|source| matches!(source.room(), "model" | "state"));
    assert!(files.len() > 5, "the core is where this test looks for it");
    files
}

#[test]
fn rooms_import_only_rooms_before_them() {
    report(&production_sources().iter().flat_map(import_faults).collect::<Vec<_>>());
}

#[test]
fn the_core_is_deterministic() {
    report(&sources_of_the_core().iter().flat_map(core_faults).collect::<Vec<_>>());
}

#[test]
fn files_and_functions_are_short() {
    report(&sources("src").iter().flat_map(length_faults).collect::<Vec<_>>());
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = sources("src")
        .into_iter()
        .filter(|source| source.raw.first().is_none_or(|line| !line.starts_with("//! ")));
    report(&silent.map(|source| format!("{}: no `//!`", source.at(1))).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_behind() {
    let mut files = sources("src");
    files.extend(sources("tests"));
    files.extend(sources("jepsen"));
    report(&files.iter().flat_map(leftover_faults).collect::<Vec<_>>());
}

#[test]
fn nothing_unwraps_outside_tests() {
    report(&production_sources().iter().flat_map(unwrap_faults).collect::<Vec<_>>());
}

#[test]
fn matches_on_closed_enums_name_every_variant() {
    report(&production_sources().iter().flat_map(wildcard_faults).collect::<Vec<_>>());
}

mod the_scan_itself {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source::new(Path::new(path), text)
    }

    #[test]
    fn literals_and_comments_are_blank() {
        let text = "let a = \"f64 \\\" f64\"; // f64\nlet b = r#\"f64\"#; let c: &'a str = 'x';\n";
        let blanked = blank(text);
        assert!(!blanked.contains("f64"));
        assert!(blanked.contains("&'a str"));
        assert_eq!(blanked.lines().count(), 2);
    }

    #[test]
    fn an_import_to_the_right_is_found() {
        let faults = import_faults(&source("src/state/a.rs", "use crate::api::App;\n"));
        assert_eq!(faults, ["src/state/a.rs:1: `state` imports `api`"]);
        let fine = source("src/api/a.rs", "use crate::state::State;\nuse crate::clock;\n");
        assert!(import_faults(&fine).is_empty());
        assert_eq!(import_faults(&source("src/state/a.rs", "crate::clock::now_ms();\n")).len(), 1);
        assert_eq!(import_faults(&source("src/attic/a.rs", "\n")).len(), 1);
    }

    #[test]
    fn test_code_is_told_from_production_code() {
        let text =
            "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { x.unwrap(); }\n}\nfn c() {}\n";
        let source = source("src/state/a.rs", text);
        assert!(unwrap_faults(&source).is_empty());
        assert_eq!(source.production().map(|(n, _)| n).collect::<Vec<_>>(), [1, 6]);
    }

    #[test]
    fn modules_for_tests_only_are_found() {
        let found = test_modules(&source("src/state/mod.rs", "#[cfg(test)]\nmod scripts;\n"));
        assert_eq!(found, [PathBuf::from("src/state/scripts")]);
    }

    #[test]
    fn a_float_and_a_hash_map_in_the_core_are_found() {
        let text = "fn a(x: f64) {}\nuse std::collections::HashMap;\nlet f64_like = 1;\n";
        assert_eq!(core_faults(&source("src/state/a.rs", text)).len(), 2);
    }

    #[test]
    fn long_functions_and_files_are_found() {
        let long = format!("fn a() {{\n{}}}\n", "    b();\n".repeat(69));
        assert_eq!(length_faults(&source("src/a.rs", &long)).len(), 1);
        let short = format!("fn a() {{\n{}}}\n", "    b();\n".repeat(68));
        assert!(length_faults(&source("src/a.rs", &short)).is_empty());
        assert_eq!(length_faults(&source("src/a.rs", &"\n".repeat(501))).len(), 1);
    }

    #[test]
    fn a_wildcard_on_a_command_is_found() {
        let arms = "match c {\n    Command::A => {\n        b();\n    }\n    _ => {}\n}\n";
        assert_eq!(wildcard_faults(&source("src/state/a.rs", arms)).len(), 1);
        let other = "match c {\n    Some(Command::A) => {}\n    _ => {}\n}\n";
        assert!(wildcard_faults(&source("src/state/a.rs", other)).is_empty());
    }
}
