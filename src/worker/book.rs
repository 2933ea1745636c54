//! Which attempts run, and which ended: what makes a repeated dispatch harmless.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Ended attempts that are remembered. A dispatch is repeated within seconds, if at all.
const ENDED_MAX: usize = 10_000;
/// Ended attempts whose report is still on its way; beyond, no new work is taken.
const UNREPORTED_MAX: usize = 1024;

/// One try of one task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AttemptKey {
    pub(super) task_id: String,
    pub(super) attempt: u32,
}

/// What to do with a dispatch.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Run it, until the token is cancelled.
    Start(CancellationToken),
    /// It runs already.
    Runs,
    /// It ended; this was its report.
    Ended(Arc<str>),
    /// A newer attempt is known.
    Stale {
        /// The newest.
        newest: u32,
    },
    /// No slot is free.
    Full,
}

#[derive(Debug)]
enum Entry {
    Running { attempt: u32, kill: CancellationToken },
    Ended { attempt: u32, report: Arc<str> },
}

impl Entry {
    fn attempt(&self) -> u32 {
        match self {
            Self::Running { attempt, .. } | Self::Ended { attempt, .. } => *attempt,
        }
    }
}

#[derive(Debug, Default)]
struct Pages {
    /// The newest attempt of each task.
    newest: BTreeMap<String, Entry>,
    /// Ended ones, oldest first.
    ended: VecDeque<AttemptKey>,
    /// Programs that exist. A replaced attempt counts until its program is gone.
    running: usize,
    unreported: usize,
    finished: u64,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Book {
    concurrency: usize,
    pages: Mutex<Pages>,
}

impl Book {
    pub(super) fn new(concurrency: usize) -> Self {
        Self { concurrency, pages: Mutex::default() }
    }

    /// Judges a dispatch, and takes the slot when it is to run.
    pub(super) fn admit(&self, key: &AttemptKey) -> Verdict {
        let mut pages = self.pages.lock();
        let full = pages.running >= self.concurrency || pages.unreported >= UNREPORTED_MAX;
        match pages.newest.get(&key.task_id) {
            Some(known) if known.attempt() > key.attempt => {
                return Verdict::Stale { newest: known.attempt() };
            }
            Some(Entry::Running { attempt, .. }) if *attempt == key.attempt => {
                return Verdict::Runs;
            }
            Some(Entry::Ended { attempt, report }) if *attempt == key.attempt => {
                return Verdict::Ended(Arc::clone(report));
            }
            // The cluster has given up the older attempt: nobody wants its result. The newer one
            // takes its slot at once; the killed program is gone within moments.
            Some(Entry::Running { kill, .. }) => kill.cancel(),
            Some(Entry::Ended { .. }) | None if full => return Verdict::Full,
            Some(Entry::Ended { .. }) | None => {}
        }
        let kill = CancellationToken::new();
        let entry = Entry::Running { attempt: key.attempt, kill: kill.clone() };
        pages.newest.insert(key.task_id.clone(), entry);
        pages.running += 1;
        Verdict::Start(kill)
    }

    /// The program of an attempt is gone. Gives whether its end is to be reported: not when a
    /// newer attempt took its place.
    pub(super) fn end(&self, key: &AttemptKey, report: &Arc<str>) -> bool {
        let mut pages = self.pages.lock();
        pages.running -= 1;
        pages.finished += 1;
        let is_newest =
            pages.newest.get(&key.task_id).is_some_and(|entry| entry.attempt() == key.attempt);
        if !is_newest {
            return false;
        }
        let entry = Entry::Ended { attempt: key.attempt, report: Arc::clone(report) };
        pages.newest.insert(key.task_id.clone(), entry);
        pages.ended.push_back(key.clone());
        pages.unreported += 1;
        while pages.ended.len() > ENDED_MAX {
            let Some(oldest) = pages.ended.pop_front() else { break };
            let same = pages.newest.get(&oldest.task_id).is_some_and(
                |entry| matches!(entry, Entry::Ended { attempt, .. } if *attempt == oldest.attempt),
            );
            if same {
                pages.newest.remove(&oldest.task_id);
            }
        }
        true
    }

    /// The cluster has decided about a report, or it was given up.
    pub(super) fn reported(&self) {
        self.pages.lock().unreported -= 1;
    }

    /// Kills the program of a task, if it runs, and in this attempt when one is named. Gives
    /// whether it did.
    pub(super) fn kill(&self, task_id: &str, named: Option<u32>) -> bool {
        match self.pages.lock().newest.get(task_id) {
            Some(Entry::Running { kill, attempt })
                if named.is_none_or(|named| named == *attempt) =>
            {
                kill.cancel();
                true
            }
            Some(Entry::Running { .. } | Entry::Ended { .. }) | None => false,
        }
    }

    pub(super) fn kill_all(&self) {
        for entry in self.pages.lock().newest.values() {
            match entry {
                Entry::Running { kill, .. } => kill.cancel(),
                Entry::Ended { .. } => {}
            }
        }
    }

    /// Programs that exist now.
    pub(super) fn running(&self) -> usize {
        self.pages.lock().running
    }

    /// Programs that ended since the start.
    pub(super) fn finished(&self) -> u64 {
        self.pages.lock().finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(task_id: &str, attempt: u32) -> AttemptKey {
        AttemptKey { task_id: task_id.to_owned(), attempt }
    }

    fn started(book: &Book, task_id: &str, attempt: u32) -> CancellationToken {
        match book.admit(&key(task_id, attempt)) {
            Verdict::Start(kill) => kill,
            other => panic!("{task_id}/{attempt}: {other:?}"),
        }
    }

    #[test]
    fn one_attempt_runs_once() {
        let book = Book::new(2);
        started(&book, "a", 1);
        assert!(matches!(book.admit(&key("a", 1)), Verdict::Runs));
        assert!(book.end(&key("a", 1), &Arc::from("1")));
        assert!(matches!(book.admit(&key("a", 1)), Verdict::Ended(report) if &*report == "1"));
        assert_eq!(book.running(), 0);
    }

    #[test]
    fn a_newer_attempt_replaces_an_older_one_even_when_full() {
        let book = Book::new(1);
        let old = started(&book, "a", 1);
        started(&book, "a", 2);
        assert!(old.is_cancelled());
        assert!(matches!(book.admit(&key("a", 1)), Verdict::Stale { newest: 2 }));
        assert!(!book.end(&key("a", 1), &Arc::from("")), "nobody wants its report");
        assert!(book.end(&key("a", 2), &Arc::from("")));
    }

    #[test]
    fn a_full_worker_refuses_and_recovers() {
        let book = Book::new(1);
        started(&book, "a", 1);
        assert!(matches!(book.admit(&key("b", 1)), Verdict::Full));
        book.end(&key("a", 1), &Arc::from(""));
        started(&book, "b", 1);
    }

    #[test]
    fn only_the_named_attempt_is_killed() {
        let book = Book::new(1);
        let kill = started(&book, "a", 2);
        assert!(!book.kill("a", Some(1)) && !book.kill("b", None));
        assert!(!kill.is_cancelled());
        assert!(book.kill("a", Some(2)) && kill.is_cancelled());
    }

    #[test]
    fn memory_of_ended_attempts_and_open_reports_are_bounded() {
        let book = Book::new(1);
        for n in 0..=ENDED_MAX {
            started(&book, &format!("t{n}"), 1);
            book.end(&key(&format!("t{n}"), 1), &Arc::from(""));
            book.reported();
        }
        assert_eq!(book.pages.lock().newest.len(), ENDED_MAX);
        for n in 0..UNREPORTED_MAX {
            started(&book, &format!("u{n}"), 1);
            book.end(&key(&format!("u{n}"), 1), &Arc::from(""));
        }
        assert!(matches!(book.admit(&key("one more", 1)), Verdict::Full));
    }
}
