//! How many tasks of each type wait (contract 4.8, `queue_depth`): looked at every ten seconds, a
//! few hundred tasks at a time. One that grows beyond a hundred is told in the log (contract 4.6). A long queue is looked at less often, so that this never takes more
//! than a small share of a core.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::task_stats::{KNOWN_TYPES, counted_as};
use crate::model::TaskStatus;
use crate::storage::Machine;

const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// The pause is at least this many times what the look took.
const PAUSE_FACTOR: u32 = 20;
/// Tasks looked at while the state is held.
const CHUNK: usize = 500;
/// A queue longer than this is worth a warning (contract 4.6), once until it is shorter again.
const LONG: u64 = 100;
/// Samples of which the quantiles are: ten minutes of them.
const WINDOW_MAX: usize = 60;

/// Waiting tasks by type.
pub(super) type Counts = BTreeMap<String, u64>;

/// What was seen of one type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Depths {
    /// The newest samples.
    window: VecDeque<u64>,
    /// Of all samples since the member started.
    pub(super) count: u64,
    pub(super) sum: u64,
}

impl Depths {
    fn note(&mut self, depth: u64) {
        if self.window.len() == WINDOW_MAX {
            self.window.pop_front();
        }
        self.window.push_back(depth);
        self.count += 1;
        self.sum += depth;
    }

    /// The newest samples, the lowest first.
    pub(super) fn sorted(&self) -> Vec<u64> {
        let mut sorted: Vec<_> = self.window.iter().copied().collect();
        sorted.sort_unstable();
        sorted
    }

    pub(super) fn newest(&self) -> u64 {
        self.window.back().copied().unwrap_or_default()
    }

    /// Two types that share a name in another alphabet, as one.
    pub(super) fn add(&mut self, other: &Self) {
        let longer = self.window.len().max(other.window.len());
        // Both end with the newest sample.
        let at = |window: &VecDeque<u64>, back: usize| {
            window.len().checked_sub(back).map_or(0, |place| window[place])
        };
        let sums = (1..=longer).rev().map(|back| at(&self.window, back) + at(&other.window, back));
        self.window = sums.collect();
        self.count = self.count.max(other.count);
        self.sum += other.sum;
    }
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct QueueDepths(Mutex<BTreeMap<String, Depths>>);

impl Default for QueueDepths {
    fn default() -> Self {
        let known = KNOWN_TYPES.map(|name| (name.to_owned(), Depths::default()));
        Self(Mutex::new(known.into()))
    }
}

impl QueueDepths {
    /// By type: those that were ever seen to wait, and family A's.
    pub(super) fn by_type(&self) -> BTreeMap<String, Depths> {
        self.0.lock().clone()
    }

    /// Notes a sample; gives the types whose queues have grown long with it, and their depths.
    fn note(&self, counts: &Counts) -> Vec<(String, u64)> {
        let mut types = self.0.lock();
        for task_type in counts.keys() {
            let key = counted_as(&types, task_type);
            if !types.contains_key(key) {
                types.insert(key.to_owned(), Depths::default());
            }
        }
        let mut of_type: BTreeMap<&str, u64> = BTreeMap::new();
        for (task_type, count) in counts {
            *of_type.entry(counted_as(&types, task_type)).or_default() += count;
        }
        let depths: Vec<u64> = types
            .keys()
            .map(|name| of_type.get(name.as_str()).copied().unwrap_or_default())
            .collect();
        let mut long = Vec::new();
        for (depth, (name, known)) in depths.into_iter().zip(types.iter_mut()) {
            if depth > LONG && known.newest() <= LONG {
                long.push((name.clone(), depth));
            }
            known.note(depth);
        }
        long
    }
}

/// Counts what waits. Not of one moment when much does: entries are applied in between.
pub(super) async fn count(view: &Machine) -> Counts {
    const WAITING: [TaskStatus; 2] = [TaskStatus::Pending, TaskStatus::Retrying];
    let (mut counts, mut after) = (Counts::new(), None);
    loop {
        let looked = view.read(|state| {
            let mut looked = 0;
            for seq in state.task_seqs(&WAITING, after, false).take(CHUNK) {
                (looked, after) = (looked + 1, Some(seq));
                let Some(task) = state.task_at(seq) else { continue };
                let key = counted_as(&counts, &task.task_type);
                match counts.get_mut(key) {
                    Some(count) => *count += 1,
                    None => drop(counts.insert(key.to_owned(), 1)),
                }
            }
            looked
        });
        if looked < CHUNK {
            return counts;
        }
        tokio::task::yield_now().await;
    }
}

/// Takes samples until `closing`.
pub(super) async fn follow(
    depths: Arc<QueueDepths>,
    view: Arc<Machine>,
    closing: CancellationToken,
) {
    let round = async {
        loop {
            let started = Instant::now();
            for (task_type, depth) in depths.note(&count(&view).await) {
                tracing::warn!(task_type, depth, "a queue has grown long");
            }
            sleep(SAMPLE_EVERY.max(started.elapsed() * PAUSE_FACTOR)).await;
        }
    };
    tokio::select! {
        biased;
        () = closing.cancelled() => {}
        () = round => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::task_stats::TYPES_MAX;
    use super::*;

    fn counts(all: &[(&str, u64)]) -> Counts {
        all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn contract_4_8_a_type_that_no_longer_waits_has_depth_0() {
        let depths = QueueDepths::default();
        assert_eq!(depths.by_type()["api_call"].newest(), 0);
        depths.note(&counts(&[("t", 5)]));
        depths.note(&counts(&[("u", 1)]));
        let seen = depths.by_type();
        assert_eq!((seen["t"].newest(), seen["u"].newest()), (0, 1));
        assert_eq!((seen["t"].sorted(), seen["t"].sum), (vec![0, 5], 5));
        assert_eq!(seen["api_call"].count, 2);
    }

    #[test]
    fn contract_4_6_a_queue_beyond_a_hundred_is_told_once() {
        let depths = QueueDepths::default();
        let told = [100, 101, 500, 100, 200].map(|depth| depths.note(&counts(&[("t", depth)])));
        let long = |depth: u64| vec![("t".to_owned(), depth)];
        assert_eq!(told, [vec![], long(101), vec![], vec![], long(200)]);
    }

    #[test]
    fn windows_and_types_are_bounded() {
        let depths = QueueDepths::default();
        for number in 0..100 {
            depths.note(&counts(&[("t", number)]));
        }
        let seen = depths.by_type()["t"].clone();
        assert_eq!((seen.sorted()[0], seen.sorted().len(), seen.count), (40, WINDOW_MAX, 100));
        let many: Counts = (0..2 * TYPES_MAX).map(|number| (format!("t{number}"), 1)).collect();
        depths.note(&many);
        let seen = depths.by_type();
        assert_eq!(seen.len(), TYPES_MAX + 1);
        let all: u64 = seen.values().map(Depths::newest).sum();
        assert_eq!(all, 2 * TYPES_MAX as u64);
    }

    #[test]
    fn types_that_share_a_name_are_added_up() {
        let (mut one, mut other) = (Depths::default(), Depths::default());
        one.note(1);
        one.note(2);
        other.note(10);
        one.add(&other);
        assert_eq!((one.sorted(), one.newest(), one.count, one.sum), (vec![1, 12], 12, 2, 13));
    }
}
