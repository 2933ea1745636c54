//! The rows of the liveness book.
//!
//! Every heartbeat of the whole fleet passes through here on every member, so that each costs one
//! look-up by text; all else goes by small row numbers.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;

use super::heartbeats::Beat;
use crate::clock;
use crate::model::{NodeId, TimeMs};

/// The most nodes remembered; the one unheard of for longest is forgotten first.
const NODES_MAX: usize = 100_000;

/// What is known of one node.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) node_id: NodeId,
    /// When its newest heartbeat came.
    pub(super) at: Instant,
    /// The same by this member's wall clock, taken once, so that it reads the same each time.
    pub(super) at_ms: TimeMs,
    /// What it said.
    pub(super) beat: Beat,
    /// Number of the change that this was.
    pub(super) change: u64,
    /// Recorded here and not yet sent to the leader.
    unsent: bool,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Rows by node; looked up only, because it has no order.
    places: HashMap<NodeId, usize>,
    rows: Vec<Row>,
    /// Rows by change, oldest first.
    order: BTreeMap<u64, usize>,
    /// Rows by id, as far as `sorted` holds.
    by_id: Vec<usize>,
    /// No node came or went since `by_id` was put in order.
    sorted: bool,
    /// Rows that are unsent, as they came.
    unsent: Vec<usize>,
    /// Number of the newest change.
    change: u64,
}

impl Book {
    /// Number of the newest change.
    pub(super) fn change(&self) -> u64 {
        self.change
    }

    /// The row of a node.
    pub(super) fn row(&self, node_id: &NodeId) -> Option<&Row> {
        self.places.get(node_id).map(|place| &self.rows[*place])
    }

    /// Keeps the newer of two heartbeats. Gives the row when it changed.
    pub(super) fn merge(&mut self, node_id: &NodeId, at: Instant, beat: Beat) -> Option<&Row> {
        let age_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let at_ms = clock::now_ms().saturating_sub(age_ms);
        let place = if let Some(place) = self.places.get(node_id).copied() {
            let row = &mut self.rows[place];
            if row.at >= at {
                return None;
            }
            self.order.remove(&row.change);
            // A heartbeat without figures does not erase the last ones.
            let load = beat.load.or(row.beat.load);
            (row.at, row.at_ms) = (at, at_ms);
            (row.beat, row.change) = (Beat { load, ..beat }, self.change + 1);
            place
        } else {
            self.make_room();
            let (node_id, change) = (node_id.clone(), self.change + 1);
            self.places.insert(node_id.clone(), self.rows.len());
            self.rows.push(Row { node_id, at, at_ms, beat, change, unsent: false });
            self.sorted = false;
            self.rows.len() - 1
        };
        self.change += 1;
        self.order.insert(self.change, place);
        Some(&self.rows[place])
    }

    fn make_room(&mut self) {
        if self.rows.len() >= NODES_MAX
            && let Some((_, place)) = self.order.first_key_value()
        {
            self.remove(*place);
        }
    }

    /// Forgets a node.
    pub(super) fn forget(&mut self, node_id: &NodeId) {
        if let Some(place) = self.places.get(node_id) {
            self.remove(*place);
        }
    }

    /// Takes a row out; the last one gets its number.
    fn remove(&mut self, place: usize) {
        let last = self.rows.len() - 1;
        let row = self.rows.swap_remove(place);
        self.places.remove(&row.node_id);
        self.order.remove(&row.change);
        if row.unsent {
            self.unsent.retain(|unsent| *unsent != place);
        }
        if let Some(moved) = self.rows.get(place) {
            self.places.insert(moved.node_id.clone(), place);
            self.order.insert(moved.change, place);
            if moved.unsent {
                self.unsent.iter_mut().filter(|at| **at == last).for_each(|at| *at = place);
            }
        }
        self.sorted = false;
    }

    /// Rows that changed after `known` and up to `until`, oldest change first.
    pub(super) fn changed(&self, known: u64, until: u64) -> impl Iterator<Item = &Row> {
        // The asker says what it knows: it may be more than there is.
        let range = known.min(until).saturating_add(1)..until.saturating_add(1);
        self.order.range(range).map(|(_, place)| &self.rows[*place])
    }

    /// All rows, by id.
    pub(super) fn in_order(&mut self) -> impl ExactSizeIterator<Item = &Row> {
        if !self.sorted {
            self.by_id = (0..self.rows.len()).collect();
            self.by_id.sort_unstable_by(|one, other| {
                self.rows[*one].node_id.cmp(&self.rows[*other].node_id)
            });
            self.sorted = true;
        }
        self.by_id.iter().map(|place| &self.rows[*place])
    }

    /// Notes that the leader has to be told of a node.
    pub(super) fn note_unsent(&mut self, node_id: &NodeId) {
        if let Some(place) = self.places.get(node_id)
            && !std::mem::replace(&mut self.rows[*place].unsent, true)
        {
            self.unsent.push(*place);
        }
    }

    /// Notes that the leader has to be told of every node.
    pub(super) fn note_all_unsent(&mut self) {
        self.rows.iter_mut().for_each(|row| row.unsent = true);
        self.unsent = (0..self.rows.len()).collect();
    }

    /// Whether the leader has to be told of something.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Takes at most `max` rows the leader has to be told of, made into what `of` makes of them.
    pub(super) fn take_unsent<T>(&mut self, max: usize, of: impl Fn(&Row) -> T) -> Vec<T> {
        let taken = self.unsent.drain(..self.unsent.len().min(max));
        let rows = &mut self.rows;
        let take = |place: usize| {
            rows[place].unsent = false;
            of(&rows[place])
        };
        taken.map(take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ids(book: &mut Book) -> String {
        book.in_order().map(|row| row.node_id.as_str()).collect()
    }

    #[test]
    fn rows_are_found_by_id_by_change_and_by_what_is_unsent_whoever_goes() {
        let (mut book, start) = (Book::default(), Instant::now());
        let names = ["d", "a", "c", "b", "e"].map(NodeId::trusted);
        for (after, name) in names.iter().enumerate() {
            book.merge(name, start + Duration::from_secs(after as u64), Beat::default());
            book.note_unsent(name);
            book.note_unsent(name);
        }
        assert_eq!(ids(&mut book), "abcde");
        // The last row moves into the place of one that goes, and of itself.
        book.forget(&names[0]);
        assert_eq!(ids(&mut book), "abce");
        assert_eq!(book.row(&names[4]).unwrap().change, 5);
        book.forget(&names[3]);
        let changed: Vec<u64> = book.changed(1, 4).map(|row| row.change).collect();
        assert_eq!(changed, [2, 3]);
        assert_eq!(book.changed(9, 4).count(), 0);
        let first = book.take_unsent(1, |row| row.node_id.to_string());
        let rest = book.take_unsent(9, |row| row.node_id.to_string());
        let mut all = [first, rest].concat();
        all.sort();
        assert_eq!(all, ["a", "c", "e"]);
        assert!(!book.has_unsent());
        book.merge(&names[0], start + Duration::from_secs(9), Beat::default());
        assert_eq!((ids(&mut book).as_str(), book.change()), ("acde", 6));
    }

    #[test]
    fn the_one_unheard_of_for_longest_makes_room() {
        let (mut book, start) = (Book::default(), Instant::now());
        let name = |place: usize| NodeId::trusted(&format!("n{place}"));
        for place in 0..NODES_MAX {
            book.merge(&name(place), start, Beat::default());
        }
        book.merge(&name(0), start + Duration::from_secs(1), Beat::default());
        book.merge(&name(NODES_MAX), start, Beat::default());
        assert_eq!(book.in_order().len(), NODES_MAX);
        assert!(book.row(&name(0)).is_some() && book.row(&name(1)).is_none());
    }
}
