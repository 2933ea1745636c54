use std::path::PathBuf;

use serde_json::json;

use super::*;

fn recorded() -> History {
    let recorder = Recorder::in_memory();
    let client = recorder.process();
    recorder.plan(&["kill-leader", "pause"]);
    recorder.stretch("healthy");
    recorder.invoke(client, Note::new("register", "write").key("k0").value(5));
    let fault = recorder.fault("kill-leader", &[2]);
    fault.active("process 17 is gone");
    recorder.end(client, Kind::Info, Note::new("register", "write").key("k0").value(5));
    fault.healing();
    fault.healed();
    let next = recorder.process();
    assert_ne!(client, next);
    recorder.invoke(next, Note::new("append", "txn").value(json!([["append", "a", 1]])));
    recorder.finish().unwrap()
}

#[test]
fn a_history_survives_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("history.jsonl");
    let recorder = Recorder::create(&path).unwrap();
    recorder.invoke(7, Note::new("register", "cas").key("k").value(json!([1, 2])));
    recorder.end(7, Kind::Fail, Note { error: Some("x".into()), ..Note::new("register", "cas") });
    recorder.observe("worker-1", Note::new("attempts", "start"));
    let history = recorder.finish().unwrap();
    assert_eq!(History::read(&path).unwrap(), history);
    assert_eq!(history.ops.iter().map(|op| op.index).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(history.ops.windows(2).all(|pair| pair[0].time <= pair[1].time));
}

#[test]
fn operations_are_paired_by_their_process() {
    let history = recorded();
    let calls = history.calls("register");
    assert_eq!((calls.len(), calls[0].kind(), calls[0].end_ns()), (1, Kind::Info, u64::MAX));
    assert_eq!(history.all_calls().len(), 2);
    assert!(history.all_calls()[1].end.is_none(), "the run ended first");
}

#[test]
fn faults_and_stretches_are_read_back() {
    let history = recorded();
    let faults = history.faults();
    assert_eq!(faults.len(), 1);
    assert_eq!((faults[0].name.as_str(), faults[0].members.as_slice()), ("kill-leader", &[2][..]));
    assert!(faults[0].took_effect() && faults[0].healed_ns.is_some());
    assert_eq!(history.planned(), ["kill-leader", "pause"]);
    assert_eq!(history.stretches()[0].name, "healthy");
}

#[test]
fn a_fault_that_nobody_saw_working_took_no_effect() {
    let recorder = Recorder::in_memory();
    recorder.fault("pause", &[1]).healed();
    let fault = recorder.fault("disk-full", &[1]);
    fault.active("df says 0 bytes");
    fault.no_effect("writes went on");
    fault.healed();
    let history = recorder.finish().unwrap();
    assert!(history.faults().iter().all(|fault| !fault.took_effect()));
    assert!(!recorder.took_effect("pause") && !recorder.took_effect("disk-full"));
    let again = recorder.fault("pause", &[1]);
    again.active("state T");
    again.healed();
    assert!(recorder.took_effect("pause") && !recorder.took_effect("disk-full"));
}

#[test]
fn edn_is_what_knossos_and_elle_read() {
    let history = recorded();
    let mut out = Vec::new();
    edn::write(history.of("register"), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains(":process 0, :type :invoke, :f :write, :value [\"k0\" 5]"), "{text}");
    let mut out = Vec::new();
    edn::write(history.of("append"), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains(":f :txn, :value [[:append \"a\" 1]]"), "{text}");
    let read = adya::History::from_edn(&text).unwrap();
    assert_eq!(read.ops.len(), 1);
    let mut out = Vec::new();
    edn::write(&history.ops, &mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().contains(":process :nemesis, :type :info, :f :plan"));
}
