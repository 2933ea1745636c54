//! Walks over tasks that can be broken off and taken up again: by place in an index, without
//! touching a row that is not shown. Lists and dashboards read with these, page by page.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Unbounded};

use super::State;
use crate::model::{Task, TaskStatus, TimeMs};

/// The end of a task: when, and its place in the order of submission.
pub type EndedKey = (TimeMs, u64);

impl State {
    /// The task at a place of the order of submission.
    #[must_use]
    pub fn task_at(&self, seq: u64) -> Option<Cow<'_, Task>> {
        self.tasks.at(seq)
    }

    /// Places of all tasks of these statuses in order of submission, or the newest first, beyond
    /// the place `after`.
    pub fn task_seqs(
        &self,
        statuses: &[TaskStatus],
        after: Option<u64>,
        newest_first: bool,
    ) -> impl Iterator<Item = u64> {
        let sets = statuses.iter().filter_map(|status| self.indexes.by_status.get(status));
        merged(sets, after, newest_first)
    }

    /// Ends of tasks, the oldest or the newest first, beyond the end `after`.
    pub fn ended_keys(
        &self,
        after: Option<EndedKey>,
        newest_first: bool,
    ) -> impl Iterator<Item = EndedKey> {
        let sets = [&self.indexes.ended, &self.indexes.untold];
        merged(sets.into_iter(), after, newest_first)
    }

    /// The place of the first task that was accepted at `at` or later; beyond the newest place when
    /// there is none. Tasks are accepted in the order of their places, so a few looks find it.
    #[must_use]
    pub fn seq_at(&self, at: TimeMs) -> u64 {
        let (mut low, mut high) = (0, self.counters().last_seq.saturating_add(1));
        while low < high {
            let middle = low + (high - low) / 2;
            match self.tasks.after(middle.saturating_sub(1)).next() {
                Some(task) if task.created_at_ms < at => low = task.seq.saturating_add(1),
                Some(_) | None => high = middle,
            }
        }
        low
    }
}

/// The members of several sets as those of one, beyond `after`.
fn merged<'s, K: Copy + Ord + 's>(
    sets: impl Iterator<Item = &'s BTreeSet<K>>,
    after: Option<K>,
    descending: bool,
) -> impl Iterator<Item = K> {
    let from = after.map_or(Unbounded, Excluded);
    let mut lists: Vec<_> = sets
        .map(|set| -> Box<dyn Iterator<Item = K> + 's> {
            match descending {
                true => Box::new(set.range((Unbounded, from)).rev().copied()),
                false => Box::new(set.range((from, Unbounded)).copied()),
            }
        })
        .map(Iterator::peekable)
        .collect();
    std::iter::from_fn(move || {
        let heads = lists.iter_mut().enumerate();
        let heads = heads.filter_map(|(place, list)| list.peek().map(|key| (*key, place)));
        let (_, place) = if descending { heads.max() } else { heads.min() }?;
        lists[place].next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::scripts::Script;

    /// Ten tasks, one every 10 ms from 1000 on; every third was cancelled later, in another order.
    fn some_tasks() -> Script {
        let mut script = Script::default();
        for number in 1..=10 {
            script.run(&format!("at {}", 990 + number * 10), &mut String::new());
            script.run(&format!("submit t{number}"), &mut String::new());
        }
        for (at, number) in [(2001, 9), (2002, 3), (2003, 6)] {
            script.run(&format!("at {at}"), &mut String::new());
            script.run(&format!("cancel t{number}"), &mut String::new());
        }
        script
    }

    fn seqs(script: &Script, statuses: &[TaskStatus], after: Option<u64>, down: bool) -> Vec<u64> {
        script.state.task_seqs(statuses, after, down).collect()
    }

    #[test]
    fn walks_resume_beyond_any_place_in_either_direction() {
        use TaskStatus::{Cancelled, Failed, Pending};
        let script = some_tasks();
        let both = [Pending, Cancelled, Failed];
        assert_eq!(seqs(&script, &both, None, false), (1..=10).collect::<Vec<_>>());
        assert_eq!(seqs(&script, &both, Some(7), false), [8, 9, 10]);
        assert_eq!(seqs(&script, &both, Some(4), true), [3, 2, 1]);
        assert_eq!(seqs(&script, &[Cancelled], None, true), [9, 6, 3]);
        assert_eq!(seqs(&script, &[Pending], Some(u64::MAX), false), [0; 0]);
    }

    #[test]
    fn ends_come_in_their_own_order() {
        let script = some_tasks();
        let ends = |after, down| script.state.ended_keys(after, down).collect::<Vec<_>>();
        let all = ends(None, false);
        assert_eq!(all.len(), 3);
        assert_eq!(all, [(2001, 9), (2002, 3), (2003, 6)]);
        assert_eq!(ends(Some(all[0]), false), all[1..]);
        assert_eq!(ends(Some(all[2]), true), [all[1], all[0]]);
        let task = script.state.task_at(all[0].1).unwrap();
        assert_eq!(task.completed_at_ms, all[0].0);
    }

    #[test]
    fn a_time_is_found_among_places() {
        let state = &some_tasks().state;
        for (at, seq) in [(0, 0), (1000, 0), (1001, 2), (1010, 2), (1090, 10), (1091, 11)] {
            let found = state.seq_at(at);
            let first = state.tasks_after(found.saturating_sub(1)).next().map(|task| task.seq);
            let expected = (seq <= 10).then_some(seq.max(1));
            assert_eq!(first, expected, "at {at}");
        }
    }
}
