use serde_json::json;

use super::*;
use crate::checker::{Findings, Validity};
use crate::history::{Kind, Note, Recorder};

fn history() -> History {
    let recorder = Recorder::in_memory();
    recorder.stretch("faults");
    let fault = recorder.fault("kill-leader <&>", &[1]);
    fault.active("process 7 is gone");
    for number in 0..5 {
        let process = recorder.process();
        let note = Note::new("register", "write").key("k0").value(number);
        recorder.invoke(process, note.clone());
        let kind = [Kind::Ok, Kind::Fail, Kind::Info][number as usize % 3];
        recorder.end(process, kind, note);
    }
    fault.healed();
    recorder.finish().unwrap()
}

#[test]
fn the_page_shows_verdicts_faults_and_the_lines_behind_a_violation() {
    let history = history();
    let mut findings = Findings::default();
    findings.add("key k0: no order explains it; near #3 write 0", &[3]);
    let verdicts = [
        Verdict::of("register", "linearizable", "1 key", findings),
        Verdict::new("run", "no member panicked", Validity::Valid, "3 logs"),
    ];
    let facts = json!({"name": "kills", "seed": 7, "repeat": "cargo run -- --seed 7", "tier": "x"});
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &history, &verdicts, &facts).unwrap();
    let page = std::fs::read_to_string(directory.path().join("index.html")).unwrap();
    for part in [
        "badge invalid",
        "cargo run -- --seed 7",
        "kill-leader &lt;&amp;&gt;",
        "process 7 is gone",
        "Key k0",
        "no order explains it",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(
        !page.contains("http://") && !page.contains("src="),
        "nothing is loaded from elsewhere"
    );
    let results = std::fs::read(directory.path().join("results.json")).unwrap();
    let results: Value = serde_json::from_slice(&results).unwrap();
    assert_eq!(results["validity"], "invalid");
    assert!(directory.path().join("history-register.edn").exists());
}

#[test]
fn an_empty_history_makes_a_page_too() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &History::default(), &[], &json!({})).unwrap();
    let page = std::fs::read_to_string(directory.path().join("index.html")).unwrap();
    assert!(page.contains("badge unknown"));
}
