//! One register, the replicated configuration, written blindly and by compare-and-set and read
//! through any member: its history is linearizable.
//!
//! Checked twice, independently. By revisions: they are the order in which writes took effect, so
//! that order must agree with real time, and a read must show the value of its revision. And by
//! values alone, which are unique: Gibbons and Korach, "Testing Shared Memories" (1997), zones.

use std::collections::BTreeMap;

/// What an operation was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

/// An operation whose outcome is known, or a write whose outcome is not (`ended` is `None`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) kind: Kind,
    pub(crate) began: u64,
    pub(crate) ended: Option<u64>,
    /// What it wrote or read; unique among writes, 0 before the first.
    pub(crate) value: u64,
    /// The revision it made or read; 0 when unknown.
    pub(crate) revision: u64,
}

#[derive(Default)]
pub(super) struct Register(Vec<Option<Operation>>);

impl Register {
    pub(super) fn begin(&mut self, operation: Operation) -> usize {
        self.0.push(Some(operation));
        self.0.len() - 1
    }

    pub(super) fn end(&mut self, number: usize, operation: Option<Operation>) {
        self.0[number] = operation;
    }

    pub(super) fn check(&self) -> Result<(), String> {
        self.by_revision()?;
        self.by_value()
    }

    fn all(&self) -> impl Iterator<Item = &Operation> + Clone {
        self.0.iter().flatten()
    }

    fn by_revision(&self) -> Result<(), String> {
        let mut written: BTreeMap<u64, u64> = BTreeMap::new();
        let known = self.all().filter(|operation| operation.ended.is_some());
        for operation in known.clone().filter(|operation| operation.kind == Kind::Write) {
            if let Some(other) = written.insert(operation.revision, operation.value) {
                let (revision, value) = (operation.revision, operation.value);
                return Err(format!("{value} and {other} were both revision {revision}"));
            }
        }
        for read in known.clone().filter(|operation| operation.kind == Kind::Read) {
            let wrote = written.get(&read.revision);
            if wrote.is_some_and(|value| *value != read.value) {
                return Err(format!("{read:?} should have read {wrote:?}"));
            }
        }
        // In order of beginning, no operation is at an older revision than one that had ended.
        let mut begins: Vec<&Operation> = known.clone().collect();
        begins.sort_by_key(|operation| operation.began);
        let mut ends: Vec<&Operation> = known.collect();
        ends.sort_by_key(|operation| operation.ended);
        let mut ended = ends.into_iter().peekable();
        let mut newest = 0;
        for operation in begins {
            while let Some(before) = ended.next_if(|o| o.ended < Some(operation.began)) {
                newest = newest.max(before.revision);
            }
            let fresh = match operation.kind {
                Kind::Read => operation.revision >= newest,
                Kind::Write => operation.revision > newest,
            };
            if !fresh {
                return Err(format!("{operation:?} began after revision {newest} was known"));
            }
        }
        Ok(())
    }

    /// Each value lives in a zone between the first end and the last beginning of its operations.
    fn by_value(&self) -> Result<(), String> {
        let mut zones: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let done = |o: &&Operation| o.kind == Kind::Write || o.ended.is_some();
        for operation in self.all().filter(done) {
            let ended = operation.ended.unwrap_or(u64::MAX);
            let zone = zones.entry(operation.value).or_insert((u64::MAX, 0));
            if operation.kind == Kind::Read && operation.value > 0 {
                let wrote = |o: &&Operation| o.kind == Kind::Write && o.value == operation.value;
                if self.all().find(wrote).is_none_or(|write| write.began > ended) {
                    return Err(format!("{operation:?} read what was not written yet"));
                }
            }
            zone.0 = zone.0.min(ended);
            zone.1 = zone.1.max(operation.began);
        }
        // Nothing is written before the first operation begins.
        zones.remove(&0);
        let mut sorted: Vec<(u64, (u64, u64))> = zones
            .iter()
            .filter(|(_, (first, last))| first < last)
            .map(|(value, (first, last))| (*first, (*last, *value)))
            .collect();
        sorted.sort_unstable();
        for pair in sorted.windows(2) {
            let ((_, (last, one)), (first, (_, other))) = (pair[0], pair[1]);
            if first < last {
                return Err(format!("the values {one} and {other} each came after the other"));
            }
        }
        for (value, (first, last)) in zones.iter().filter(|(_, (first, last))| first >= last) {
            let inside = sorted.iter().find(|(from, (to, _))| from < last && first < to);
            if let Some((_, (_, other))) = inside {
                return Err(format!("{value} was written and gone while {other} stood"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(
        kind: Kind,
        began: u64,
        ended: u64,
        value: u64,
        revision: u64,
    ) -> Option<Operation> {
        Some(Operation { kind, began, ended: Some(ended), value, revision })
    }

    #[test]
    fn stale_reads_and_lost_writes_are_found() {
        let (read, write) = (Kind::Read, Kind::Write);
        let good = vec![
            operation(write, 1, 4, 1, 1),
            operation(read, 2, 3, 1, 1),
            operation(write, 5, 8, 2, 2),
            operation(read, 6, 7, 1, 1),
            operation(read, 9, 10, 2, 2),
        ];
        assert_eq!(Register(good.clone()).check(), Ok(()));
        let stale = [good.clone(), vec![operation(read, 11, 12, 1, 1)]].concat();
        assert!(Register(stale.clone()).by_revision().is_err());
        assert!(Register(stale).by_value().is_err());
        let twice = [good, vec![operation(write, 11, 12, 3, 2)]].concat();
        assert!(Register(twice).by_revision().is_err());
    }
}
