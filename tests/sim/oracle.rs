//! What clients were told, and what must therefore be true for ever.
//!
//! A command that was acknowledged is on every member exactly once, at one index, which is not
//! after the one it was acknowledged with (a retry is answered later); one that was reported as not started is nowhere; one whose outcome is
//! unknown is there once or not at all. A linearizable read sees everything acknowledged before it
//! began. One member leads per term, epochs only grow, and members that applied the same index
//! have the same state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use quorate::cluster::Cluster;
use quorate::model::{Epoch, MemberId, TaskId};
use quorate::state::Digest;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Shared by clients, members and the driver of one run.
#[derive(Clone, Default)]
pub(crate) struct Oracle(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    acked: BTreeMap<String, u64>,
    /// Acknowledged ids in the order of acknowledgement.
    recent: Vec<String>,
    open: BTreeSet<String>,
    absent: BTreeSet<String>,
    leaders: BTreeMap<u64, MemberId>,
    digests: BTreeMap<u64, Digest>,
    epochs: BTreeMap<MemberId, Epoch>,
    violations: Vec<String>,
    trace: u64,
    pub coverage: Coverage,
}

/// What a run has exercised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Coverage {
    pub(crate) acked: u64,
    pub(crate) unknown: u64,
    pub(crate) reads: u64,
    pub(crate) crashes: u64,
    pub(crate) torn_crashes: u64,
    pub(crate) partitions: u64,
    pub(crate) elections: u64,
    pub(crate) transfers: u64,
    pub(crate) snapshots: u64,
    pub(crate) compared: u64,
}

impl Oracle {
    /// Mixes `what` into the trace: the same seed must give the same trace.
    pub(crate) fn trace(&self, what: &str) {
        let mut book = self.0.lock();
        book.trace = xxh3_64_with_seed(what.as_bytes(), book.trace);
    }

    pub(crate) fn trace_hash(&self) -> u64 {
        self.0.lock().trace
    }

    pub(crate) fn violation(&self, what: String) {
        self.trace(&what);
        self.0.lock().violations.push(what);
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.0.lock().violations.clone()
    }

    pub(crate) fn cover(&self, note: impl FnOnce(&mut Coverage)) {
        note(&mut self.0.lock().coverage);
    }

    pub(crate) fn coverage(&self) -> Coverage {
        self.0.lock().coverage
    }

    /// A client proposes `id`. Until it is told more, it may be there or not.
    pub(crate) fn began(&self, id: &str) {
        self.0.lock().open.insert(id.to_owned());
    }

    pub(crate) fn acked(&self, id: &str, index: u64, duplicate: bool) {
        self.trace(&format!("ack {id} {index}"));
        if duplicate {
            self.violation(format!("{id} was acknowledged as a duplicate: it was applied twice"));
        }
        let mut book = self.0.lock();
        book.open.remove(id);
        book.acked.insert(id.to_owned(), index);
        book.recent.push(id.to_owned());
        book.coverage.acked += 1;
    }

    pub(crate) fn never_started(&self, id: &str) {
        self.trace(&format!("not started {id}"));
        let mut book = self.0.lock();
        book.open.remove(id);
        book.absent.insert(id.to_owned());
    }

    pub(crate) fn unknown(&self, id: &str) {
        self.trace(&format!("unknown {id}"));
        self.0.lock().coverage.unknown += 1;
    }

    /// The newest acknowledged ids, for a reader to look for.
    pub(crate) fn newest_acked(&self, count: usize) -> Vec<String> {
        let book = self.0.lock();
        book.recent.iter().rev().take(count).cloned().collect()
    }

    pub(crate) fn led(&self, term: u64, member: MemberId) {
        let mut book = self.0.lock();
        let known = *book.leaders.entry(term).or_insert_with(|| member);
        book.coverage.elections = book.leaders.len() as u64;
        drop(book);
        self.trace(&format!("lead {term} {member}"));
        if known != member {
            self.violation(format!("members {known} and {member} both led term {term}"));
        }
    }

    /// Looks at one running member between two steps of the simulation.
    pub(crate) fn observe(&self, member: &Cluster) {
        let id = member.member_id();
        let (index, digest) = member.view().digest();
        let epoch = member.view().read(|state| state.epoch());
        let mut book = self.0.lock();
        let known = *book.digests.entry(index).or_insert(digest);
        let compared = known == digest;
        book.coverage.compared += u64::from(compared);
        let before = book.epochs.insert(id, epoch).unwrap_or_default();
        drop(book);
        if !compared {
            self.violation(format!("at index {index} member {id} has {digest}, another {known}"));
        }
        if epoch < before {
            self.violation(format!("member {id} went back from epoch {before} to {epoch}"));
        }
    }

    /// A member that was down may come back with an older state; only its own past is forgotten.
    pub(crate) fn restarted(&self, id: MemberId) {
        self.0.lock().epochs.remove(&id);
    }

    /// The last word: every member against everything that clients were told.
    pub(crate) fn judge(&self, members: &[Cluster]) {
        let mut orders = Vec::new();
        for member in members {
            let id = member.member_id();
            let tasks: BTreeMap<String, u64> = member.view().read(|state| {
                state
                    .tasks_after(0)
                    .map(|task| (task.task_id.as_str().to_owned(), task.revision))
                    .collect()
            });
            let order: Vec<(u64, u64, String)> = member.view().read(|state| {
                state
                    .tasks_after(0)
                    .map(|task| (task.seq, task.revision, task.task_id.to_string()))
                    .collect()
            });
            self.judge_member(id, &tasks);
            orders.push(order);
            let (index, digest) = member.view().digest();
            self.trace(&format!("end {id} {index} {digest}"));
        }
        if orders.windows(2).any(|pair| pair[0] != pair[1]) {
            self.violation("members hold tasks in different orders".to_owned());
        }
        let digests: BTreeSet<_> =
            members.iter().map(|m| m.view().digest().1.to_string()).collect();
        if digests.len() != 1 {
            self.violation(format!("members end with different states: {digests:?}"));
        }
    }

    fn judge_member(&self, id: MemberId, tasks: &BTreeMap<String, u64>) {
        let (acked, absent, open) = {
            let book = self.0.lock();
            (book.acked.clone(), book.absent.clone(), book.open.clone())
        };
        for (task, index) in &acked {
            match tasks.get(task) {
                None => self.violation(format!("member {id} lost {task}, acknowledged at {index}")),
                Some(at) if at > index => self
                    .violation(format!("member {id} has {task} at {at}, acknowledged at {index}")),
                Some(_) => {}
            }
        }
        for task in tasks.keys() {
            if absent.contains(task) {
                self.violation(format!("member {id} has {task}, reported as never started"));
            }
            if !acked.contains_key(task) && !open.contains(task) {
                self.violation(format!("member {id} has {task}, which nobody proposed"));
            }
        }
    }

    /// Whether a member shows a task.
    pub(crate) fn shows(member: &Cluster, id: &str) -> bool {
        member.view().read(|state| state.task(&TaskId::trusted(id)).is_some())
    }
}
