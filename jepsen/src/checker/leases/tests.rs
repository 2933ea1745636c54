use super::*;
use crate::checker::Validity::{self, Invalid, Unknown, Valid};
use crate::history::{Note, Recorder};

/// A history that is written down with times of its own, in ms.
#[derive(Default)]
struct Written {
    ops: Vec<Op>,
    processes: u64,
}

impl Written {
    fn call(&mut self, (from, until): (u64, u64), note: Note, end: (Kind, Value)) -> &mut Self {
        let recorder = Recorder::in_memory();
        let (f, workload) = (note.f.clone(), note.workload);
        let key = note.key.clone();
        recorder.invoke(0, note);
        let last = Note { workload, f, key, value: end.1, ..Note::default() };
        recorder.end(0, end.0, last);
        self.processes += 1;
        for (mut op, at) in recorder.finish().unwrap().ops.into_iter().zip([from, until]) {
            op.time = at * 1_000_000;
            op.process = crate::history::Process::Client(self.processes);
            self.ops.push(op);
        }
        self
    }

    /// A lease of `t` for a second.
    fn lease(&mut self, at: (u64, u64), holder: &str, task: &str, attempt: u64) -> &mut Self {
        self.lease_for(1000, at, holder, task, attempt)
    }

    fn lease_for(
        &mut self,
        lease_ms: u64,
        at: (u64, u64),
        holder: &str,
        task: &str,
        attempt: u64,
    ) -> &mut Self {
        let note = Note::new(NAME, "lease").key(holder).value(json!({"lease_ms": lease_ms}));
        self.call(at, note, (Kind::Ok, json!({"held": [[task, attempt]], "lease_ms": lease_ms})))
    }

    fn told(
        &mut self,
        at: (u64, u64),
        f: &str,
        task: &str,
        attempt: u64,
        verdict: &str,
    ) -> &mut Self {
        let asked =
            json!({"attempt": attempt, "token": format!("{task}-{attempt}"), "lease_ms": 1000});
        let note = Note::new(NAME, f).key(task).value(asked.clone());
        match verdict {
            "unknown" => self.call(at, note, (Kind::Info, asked)),
            verdict => self.call(at, note, (Kind::Ok, json!({"verdicts": [verdict]}))),
        }
    }

    fn book(&mut self, at: (u64, u64), task: &str) -> &mut Self {
        let note = Note::new(NAME, "book").key(task).value(json!({"token": "book"}));
        self.call(at, note, (Kind::Ok, json!({"token": "book"})))
    }

    fn read(&mut self, at: (u64, u64), executed: u64) -> &mut Self {
        self.call(at, Note::new(NAME, "read"), (Kind::Ok, json!(executed)))
    }

    /// Two members that have these two tasks of one bot.
    fn last(&mut self, tokens: [&str; 2], stats: &Value) -> &mut Self {
        let tasks =
            json!({"t": ["b", "completed", 2, tokens[0]], "u": ["b", "completed", 1, tokens[1]]});
        let value = json!({"tasks": tasks, "bots": {"b": [2, 2, 2, 0]}, "swarms": {"s": [2, 0, 0, 0]},
            "stats": stats});
        self.end(value.clone()).end(value)
    }

    fn end(&mut self, value: Value) -> &mut Self {
        let recorder = Recorder::in_memory();
        recorder.observe("reader", Note::new(NAME, "final").value(value));
        let mut op = recorder.finish().unwrap().ops.remove(0);
        op.time = 60_000_000_000;
        self.ops.push(op);
        self
    }

    fn judged(&self) -> [Validity; 3] {
        let mut ops = self.ops.clone();
        ops.sort_by_key(|op| op.time);
        ops.iter_mut().zip(0..).for_each(|(op, index)| op.index = index);
        let verdicts = check(&History { ops });
        [verdicts[0].validity, verdicts[1].validity, verdicts[2].validity]
    }
}

/// Two tasks: of one the first try runs out, its report comes late, and the second try is told twice.
fn begun() -> Written {
    let mut written = Written::default();
    written
        .call((0, 1), Note::new(NAME, "assign").key("s").value(2), (Kind::Ok, json!(2)))
        .lease((10, 20), "w1", "t", 1)
        .lease((1100, 1110), "w2", "t", 2)
        .told((1200, 1210), "complete", "t", 1, "stale")
        .told((1300, 1310), "complete", "t", 2, "accepted")
        .told((1400, 1410), "complete", "t", 2, "repeated")
        .read((1500, 1510), 1);
    written
}

/// The other one is completed by its first try, and everything is read.
fn whole() -> Written {
    let mut written = begun();
    written
        .lease((2000, 2010), "w1", "u", 1)
        .told((2100, 2110), "complete", "u", 1, "accepted")
        .last(["t-2", "u-1"], &json!([2, 0, 0]));
    written
}

#[test]
fn what_is_as_it_should_be_is_valid() {
    assert_eq!(whole().judged(), [Valid; 3]);
    assert_eq!(begun().judged()[2], Unknown, "nothing was read in the end");
    assert_eq!(Written::default().judged(), [Unknown; 3]);
}

#[test]
fn what_two_hold_is_found() {
    let found = |add: &dyn Fn(&mut Written)| {
        let mut written = whole();
        add(&mut written);
        written.judged()[0]
    };
    let twice = found(&|all| {
        all.lease((1120, 1130), "w3", "t", 2);
    });
    assert_eq!(twice, Invalid, "one attempt for two");
    let back = found(&|all| {
        all.lease((3000, 3010), "w3", "t", 1);
    });
    assert_eq!(back, Invalid, "an older attempt after a newer one");
    let done = found(&|all| {
        all.lease((3000, 3010), "w3", "t", 3);
    });
    assert_eq!(done, Invalid, "it is completed");
}

#[test]
fn what_is_given_while_somebody_surely_holds_it_is_found() {
    let second = |at: (u64, u64), add: &dyn Fn(&mut Written)| {
        let mut written = Written::default();
        written.lease((10, 20), "w1", "t", 1).lease(at, "w2", "t", 2);
        add(&mut written);
        written.judged()[0]
    };
    assert_eq!(second((500, 510), &|_| ()), Invalid);
    assert_eq!(second((500, 1100), &|_| ()), Valid, "it may have run out by then");
    for (f, verdict, wanted) in [
        ("fail", "accepted", Valid),
        ("release", "unknown", Valid),
        ("complete", "stale", Invalid),
        ("renew", "accepted", Invalid),
    ] {
        let found = second((500, 510), &|all| {
            all.told((300, 310), f, "t", 1, verdict);
        });
        assert_eq!(found, wanted, "{f} {verdict}");
    }
    let renewed = |verdict| {
        second((1200, 1210), &|all| {
            all.told((900, 910), "renew", "t", 1, verdict);
        })
    };
    assert_eq!((renewed("accepted"), renewed("unknown")), (Invalid, Valid));
    // From here on for a second each: later than that is free, however long it was leased at first.
    let shortened = |verdict, at| {
        let mut written = Written::default();
        written.lease_for(3000, (10, 20), "w1", "t", 1).lease(at, "w2", "t", 2);
        written.told((300, 310), "renew", "t", 1, verdict);
        written.judged()[0]
    };
    for (verdict, at, wanted) in [
        ("accepted", (1500, 1510), Valid),
        ("accepted", (1200, 1210), Invalid),
        ("unknown", (1500, 1510), Valid),
        ("unknown", (1200, 1210), Invalid),
        ("stale", (1500, 1510), Invalid),
    ] {
        assert_eq!(shortened(verdict, at), wanted, "renewed for less: {verdict}, {at:?}");
    }
    let jumped = second((500, 510), &|all| {
        let recorder = Recorder::in_memory();
        recorder.plan(&["clock-jump"]);
        all.ops.extend(recorder.finish().unwrap().ops);
    });
    assert_eq!(jumped, Valid, "with clocks that jump nobody knows");
}

#[test]
fn what_comes_too_late_and_counts_is_found() {
    for f in ["complete", "fail", "release", "renew"] {
        let mut older = begun();
        older.told((1250, 1260), f, "t", 1, "accepted");
        assert_eq!(older.judged()[1], Invalid, "{f} of an older attempt");
        let mut over = begun();
        over.told((1700, 1710), f, "t", 2, "accepted");
        assert_eq!(over.judged()[1], Invalid, "{f} after the end");
    }
    let mut released = begun();
    released.told((1250, 1260), "release", "t", 2, "accepted");
    assert_eq!(released.judged()[1], Invalid, "completed after it was given back");
    let mut booked = begun();
    booked.book((1250, 1260), "t");
    assert_eq!(booked.judged()[1], Invalid, "completed after a bookkeeper had done it");
}

#[test]
fn what_counts_twice_is_found() {
    let found = |add: &dyn Fn(&mut Written)| {
        let mut written = whole();
        add(&mut written);
        written.judged()[2]
    };
    // While it was under way another one came to its end, so neither came too late.
    let twice = found(&|all| {
        all.told((1305, 1320), "complete", "t", 2, "accepted");
    });
    assert_eq!(twice, Invalid);
    let nobody = found(&|all| {
        all.told((900, 910), "complete", "t", 1, "repeated");
    });
    assert_eq!(nobody, Invalid, "nobody had completed the first attempt");
    for executed in [0, 3] {
        assert_eq!(
            found(&|all| {
                all.read((3000, 3010), executed);
            }),
            Invalid,
            "{executed}"
        );
    }
    let unknown = found(&|all| {
        all.told((3000, 3010), "complete", "v", 1, "unknown").read((3100, 3110), 3);
    });
    assert_eq!(unknown, Valid, "a third may have been done");
    for (second, wanted) in [("repeated", Valid), ("accepted", Invalid)] {
        let mut both = begun();
        let note = Note::new(NAME, "complete").key("u").value(json!({"attempt": 1, "token": "u"}));
        both.lease((2000, 2010), "w1", "u", 1)
            .call((2100, 2110), note, (Kind::Ok, json!({"verdicts": ["accepted", second]})))
            .last(["t-2", "u"], &json!([2, 0, 0]));
        assert_eq!(both.judged()[2], wanted, "two items of one request");
    }
}

#[test]
fn sums_and_results_that_do_not_fit_are_found() {
    let last = |tokens, stats: Value| {
        let mut written = begun();
        written.lease((2000, 2010), "w1", "u", 1).book((2100, 2110), "u").last(tokens, &stats);
        written.judged()[2]
    };
    assert_eq!(last(["t-2", "book"], json!([2, 0, 0])), Valid);
    assert_eq!(last(["t-2", "book"], json!([3, 0, 0])), Invalid, "one more is counted");
    assert_eq!(last(["t-2", "book"], json!([2, 1, 0])), Invalid, "one still waits");
    assert_eq!(last(["t-1", "book"], json!([2, 0, 0])), Invalid, "the result of a stale try");
    assert_eq!(last(["t-2", "u-1"], json!([2, 0, 0])), Invalid, "nobody told that result");
    let mut lost = whole();
    lost.told((3000, 3010), "complete", "v", 1, "accepted");
    assert_eq!(lost.judged()[2], Invalid, "acknowledged and not there");
    let mut more = whole();
    more.call((5, 6), Note::new(NAME, "assign").key("s").value(2), (Kind::Ok, json!(2)));
    assert_eq!(more.judged()[2], Invalid, "four were assigned, and two are there");
    let mut other = begun();
    other.last(["t-2", "u-1"], &json!([2, 0, 0])).end(json!({}));
    assert_eq!(other.judged()[2], Invalid, "members differ");
}
