//! What members wrote into their logs: a panic is always a bug, an error wants a look.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use serde_json::json;

use super::{Findings, Validity, Verdict};

/// Characters of a line that are shown.
const SHOWN: usize = 300;

/// What a member says when it is told to stop, or must; when it is back; and what its Raft library
/// calls an error in between: a peer that sends once more to a member that is leaving.
const STOPS: [&str; 2] = ["quorate::server: stopping", "this member must stop"];
const STARTS: &str = "took its place";
const STOPPED: [&str; 2] = ["raft stopped", "RaftCore"];

/// Scans the logs of members. Lines of level ERROR count against the run unless they contain one of
/// `expected`: what a fault of this run is meant to make a member say.
#[must_use]
pub fn check(logs: &[PathBuf], expected: &[&str]) -> Vec<Verdict> {
    let (mut panics, mut errors) = (Findings::default(), Findings::default());
    let (mut lines, mut unreadable, mut known) = (0_u64, Vec::new(), 0_u64);
    for path in logs {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) => {
                unreadable.push(format!("{}: {error}", path.display()));
                continue;
            }
        };
        // Logs of killed processes may end within a character.
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        let mut stopping = false;
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            lines += 1;
            let text = String::from_utf8_lossy(&line);
            let shown =
                || format!("{name}: {}", text.trim().chars().take(SHOWN).collect::<String>());
            stopping |= STOPS.iter().any(|part| text.contains(part));
            stopping &= !text.contains(STARTS);
            let of_the_stop = stopping && STOPPED.iter().any(|part| text.contains(part));
            if text.contains("panicked at") || text.contains("a handler panicked") {
                panics.add(shown(), &[]);
            } else if is_error(&text) {
                if of_the_stop || expected.iter().any(|part| text.contains(part)) {
                    known += 1;
                } else {
                    errors.add(shown(), &[]);
                }
            }
            line.clear();
        }
    }
    let looked_at = format!("{} logs, {lines} lines", logs.len());
    let mut panics = Verdict::of("run", "no member panicked", looked_at.clone(), panics);
    if !unreadable.is_empty() && panics.validity == Validity::Valid {
        panics.validity = Validity::Unknown;
        panics.findings = unreadable;
    }
    let looked_at = format!("{looked_at}, {known} errors that the faults explain");
    let errors = Verdict::of("run", "no member logged an error", looked_at, errors);
    vec![panics, errors.figures(json!({"lines": lines, "expected_errors": known}))]
}

/// A line of level ERROR, as text (with or without colours) or JSON.
fn is_error(line: &str) -> bool {
    line.contains(" ERROR ")
        || line.contains("ERROR\u{1b}[0m")
        || line.contains("\"level\":\"ERROR\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_and_errors_are_found_unless_expected() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m1.log");
        let scan = |text: &str, expected: &[&str]| {
            std::fs::write(&path, text).unwrap();
            let verdicts = check(std::slice::from_ref(&path), expected);
            (verdicts[0].validity, verdicts[1].validity)
        };
        use Validity::{Invalid, Valid};
        assert_eq!(scan("2026  INFO quorate: ready\n", &[]), (Valid, Valid));
        assert_eq!(scan("thread 'x' panicked at src/a.rs:1:1:\n", &[]), (Invalid, Valid));
        let error = "2026 ERROR quorate::storage: no space left on device\n";
        assert_eq!(scan(error, &[]), (Valid, Invalid));
        assert_eq!(scan(error, &["no space left"]), (Valid, Valid));
    }

    #[test]
    fn a_member_that_stops_may_say_that_its_raft_stopped_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m1.log");
        let scan = |text: &str| {
            std::fs::write(&path, text).unwrap();
            check(std::slice::from_ref(&path), &[])[1].validity
        };
        let error = "2026 ERROR openraft::raft: stream_append: raft stopped\n";
        let stops = "2026 INFO quorate::server: stopping\n";
        let must = "2026 INFO quorate::server: this member must stop why=\"disk\"\n";
        let core = "2026 ERROR openraft::raft: failed to receive from RaftCore: None\n";
        assert_eq!(scan(&[must, core].concat()), Validity::Valid);
        let back = "2026 INFO quorate::cluster::seat: took its place member_id=1\n";
        assert_eq!(scan(&[stops, error].concat()), Validity::Valid);
        assert_eq!(scan(error), Validity::Invalid);
        assert_eq!(scan(&[stops, error, back, error].concat()), Validity::Invalid);
    }

    #[test]
    fn a_log_that_is_not_there_is_not_a_pass() {
        let verdicts = check(&[PathBuf::from("/nowhere/m1.log")], &[]);
        assert_eq!(verdicts[0].validity, Validity::Unknown);
    }
}
