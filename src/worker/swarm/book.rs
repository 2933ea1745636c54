//! Which leases this worker holds, and what it does with each. Plain data behind a lock.
//!
//! Of one assignment at most one try is here. A lease is good until a moment that this worker knows
//! by its own clock, and that lies before the end that the cluster knows: whoever cannot renew it stops
//! in time, so that no two work on the same.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::wire::{Assignment, Try};

/// Programs that end sooner are worth holding some assignments ahead of: with longer ones, those
/// would only be kept from other workers.
const SHORT: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Stage {
    /// In the queue.
    Waiting,
    /// Its program runs.
    Running(CancellationToken),
    /// Its end is on its way to the cluster.
    Ended,
    /// It failed, and is told later.
    Resting,
}

/// Assignments that may rest for each slot and keep no room from others.
const RESTING_PER_SLOT: usize = 4;

#[derive(Debug)]
struct Lease {
    attempt: u32,
    since: Instant,
    until: Instant,
    stage: Stage,
}

#[derive(Debug, Default)]
struct Pages {
    leases: BTreeMap<String, Lease>,
    queue: VecDeque<Assignment>,
    /// Programs that exist. One that was killed counts until it is gone.
    running: usize,
    /// How long programs took lately.
    usual: Option<Duration>,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Book {
    capacity: usize,
    pages: Mutex<Pages>,
}

impl Book {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, pages: Mutex::default() }
    }

    /// How many more assignments to ask for; 0 while it is too early to ask.
    pub(super) fn room(&self) -> usize {
        let pages = self.pages.lock();
        let ahead = pages.usual.is_some_and(|usual| usual < SHORT);
        let most = if ahead { self.capacity * 2 } else { self.capacity };
        // A program that was killed still has its slot.
        let rests = |lease: &&Lease| matches!(lease.stage, Stage::Resting);
        let resting = pages.leases.values().filter(rests).count();
        let held = pages.leases.len() - resting.min(self.capacity * RESTING_PER_SLOT);
        let room = most.saturating_sub(held.max(pages.running));
        // Not for every single one, while there is something to do.
        if room * 2 < self.capacity && ahead { 0 } else { room }
    }

    /// Takes what was leased. A newer try of what is here replaces the older one, whose program
    /// is killed; what is here already stays.
    pub(super) fn add(&self, assignments: Vec<Assignment>, since: Instant, until: Instant) {
        let mut pages = self.pages.lock();
        for assignment in assignments {
            let attempt = assignment.attempt;
            match pages.leases.get(&assignment.task_id) {
                Some(known) if known.attempt >= attempt => continue,
                Some(Lease { stage: Stage::Running(kill), .. }) => kill.cancel(),
                Some(_) | None => {}
            }
            let lease = Lease { attempt, since, until, stage: Stage::Waiting };
            pages.leases.insert(assignment.task_id.clone(), lease);
            pages.queue.push_back(assignment);
        }
    }

    /// The next one to begin, if there is a slot for it.
    pub(super) fn begin(&self) -> Option<(Assignment, CancellationToken)> {
        let mut pages = self.pages.lock();
        while pages.running < self.capacity {
            let assignment = pages.queue.pop_front()?;
            let kill = CancellationToken::new();
            let Some(lease) = pages.leases.get_mut(&assignment.task_id) else { continue };
            if lease.attempt != assignment.attempt {
                continue;
            }
            lease.stage = Stage::Running(kill.clone());
            pages.running += 1;
            return Some((assignment, kill));
        }
        None
    }

    /// A program is gone. Whether the cluster is to be told: not when the lease is another's.
    pub(super) fn end(&self, key: &Try, took: Duration) -> bool {
        let mut pages = self.pages.lock();
        pages.running -= 1;
        pages.usual = Some(pages.usual.map_or(took, |usual| (usual * 7 + took) / 8));
        let lease = pages.leases.get_mut(&key.task_id);
        let Some(lease) = lease.filter(|lease| lease.attempt == key.attempt) else { return false };
        lease.stage = Stage::Ended;
        true
    }

    /// The end of a try is told later.
    pub(super) fn rest(&self, key: &Try) {
        let mut pages = self.pages.lock();
        let lease = pages.leases.get_mut(&key.task_id);
        if let Some(lease) = lease.filter(|lease| lease.attempt == key.attempt) {
            lease.stage = Stage::Resting;
        }
    }

    /// The cluster has decided about an end, or the lease is lost: a program is killed.
    pub(super) fn forget(&self, key: &Try) {
        let mut pages = self.pages.lock();
        if pages.leases.get(&key.task_id).is_none_or(|lease| lease.attempt != key.attempt) {
            return;
        }
        if let Some(Lease { stage: Stage::Running(kill), .. }) = pages.leases.remove(&key.task_id) {
            kill.cancel();
        }
    }

    /// Leases that are to be renewed: of what runs, and of ends that are on their way.
    pub(super) fn to_renew(&self) -> Vec<Try> {
        let pages = self.pages.lock();
        let held = pages.leases.iter().filter(|(_, lease)| !matches!(lease.stage, Stage::Waiting));
        held.map(|(id, lease)| Try { task_id: id.clone(), attempt: lease.attempt }).collect()
    }

    pub(super) fn renewed(&self, key: &Try, until: Instant) {
        let mut pages = self.pages.lock();
        let lease = pages.leases.get_mut(&key.task_id);
        if let Some(lease) = lease.filter(|lease| lease.attempt == key.attempt) {
            lease.until = until;
        }
    }

    /// Takes out what has not begun and was leased before a moment: to be given back.
    pub(super) fn give_back(&self, before: Instant) -> Vec<Try> {
        let mut pages = self.pages.lock();
        let Pages { leases, queue, .. } = &mut *pages;
        let mut given = Vec::new();
        queue.retain(|assignment| {
            let lease = leases.get(&assignment.task_id);
            let Some(lease) = lease.filter(|lease| lease.attempt == assignment.attempt) else {
                return false;
            };
            if lease.since > before {
                return true;
            }
            leases.remove(&assignment.task_id);
            given.push(assignment.key());
            false
        });
        given
    }

    /// Kills what runs under a lease that could not be kept until now, and gives what it was.
    pub(super) fn kill_overdue(&self, now: Instant) -> Vec<Try> {
        let mut pages = self.pages.lock();
        let Pages { leases, queue, .. } = &mut *pages;
        let mut lost = Vec::new();
        leases.retain(|task_id, lease| {
            if lease.until > now {
                return true;
            }
            match &lease.stage {
                // The cluster judges it by its attempt.
                Stage::Ended | Stage::Resting => return true,
                Stage::Running(kill) => kill.cancel(),
                Stage::Waiting => {}
            }
            lost.push(Try { task_id: task_id.clone(), attempt: lease.attempt });
            false
        });
        queue.retain(|assignment| leases.contains_key(&assignment.task_id));
        lost
    }

    /// Kills everything; the leases stay, so that the ends are told.
    pub(super) fn kill_all(&self) {
        for lease in self.pages.lock().leases.values() {
            if let Stage::Running(kill) = &lease.stage {
                kill.cancel();
            }
        }
    }

    /// Programs that exist now.
    pub(super) fn running(&self) -> usize {
        self.pages.lock().running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn assignment(task_id: &str, attempt: u32) -> Assignment {
        Assignment { task_id: task_id.to_owned(), attempt, ..Assignment::default() }
    }

    fn key(task_id: &str, attempt: u32) -> Try {
        assignment(task_id, attempt).key()
    }

    fn add(book: &Book, all: &[(&str, u32)]) {
        let all = all.iter().map(|(id, attempt)| assignment(id, *attempt)).collect();
        book.add(all, Instant::now(), Instant::now() + LONG);
    }

    #[test]
    fn what_rests_keeps_no_room_from_others_up_to_a_bound() {
        let book = Book::new(2);
        for round in 0..6 {
            let room = book.room();
            assert_eq!(room, if round < 5 { 2 } else { 0 }, "round {round}");
            let names: Vec<String> = (0..room).map(|at| format!("{round}.{at}")).collect();
            add(&book, &names.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>());
            while let Some((key, _)) = began(&book) {
                assert!(book.end(&key, LONG));
                book.rest(&key);
            }
        }
        assert_eq!(book.to_renew().len(), 10, "they are held until they are told");
        book.forget(&key("0.0", 1));
        assert_eq!(book.room(), 1);
    }

    fn began(book: &Book) -> Option<(Try, CancellationToken)> {
        book.begin().map(|(assignment, kill)| (assignment.key(), kill))
    }

    #[tokio::test]
    async fn no_more_programs_than_slots_and_each_try_once() {
        let book = Book::new(2);
        assert_eq!(book.room(), 2);
        add(&book, &[("a", 1), ("b", 1), ("c", 1)]);
        add(&book, &[("a", 1)]);
        let begun: Vec<_> = std::iter::from_fn(|| began(&book)).map(|(key, _)| key).collect();
        assert_eq!(begun, [key("a", 1), key("b", 1)]);
        assert_eq!((book.room(), book.running()), (0, 2));
        assert!(book.end(&key("a", 1), LONG));
        assert_eq!(began(&book).unwrap().0, key("c", 1));
        assert_eq!(book.to_renew(), [key("a", 1), key("b", 1), key("c", 1)]);
        book.forget(&key("a", 1));
        assert_eq!(book.to_renew(), [key("b", 1), key("c", 1)]);
    }

    #[tokio::test]
    async fn short_programs_are_held_ahead_of_and_long_ones_are_not() {
        let book = Book::new(4);
        add(&book, &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
        while began(&book).is_some() {}
        assert_eq!(book.room(), 0);
        assert!(book.end(&key("a", 1), Duration::from_millis(5)));
        assert_eq!(book.room(), 4);
        book.forget(&key("a", 1));
        add(&book, &[("e", 1), ("f", 1), ("g", 1), ("h", 1)]);
        assert_eq!(book.room(), 0, "one is not worth asking for");
        assert!(book.end(&key("b", 1), Duration::from_secs(3600)));
        book.forget(&key("b", 1));
        assert_eq!(book.room(), 0);
        assert_eq!(book.give_back(Instant::now()).len(), 4);
        assert_eq!(book.room(), 2);
    }

    #[tokio::test]
    async fn a_newer_try_replaces_an_older_one_that_is_not_told_any_more() {
        let book = Book::new(2);
        add(&book, &[("a", 1)]);
        let (old, kill) = began(&book).unwrap();
        add(&book, &[("a", 2)]);
        assert!(kill.is_cancelled());
        assert_eq!(began(&book).unwrap().0, key("a", 2));
        assert!(!book.end(&old, LONG));
        book.forget(&old);
        assert!(book.end(&key("a", 2), LONG));
    }

    #[tokio::test]
    async fn what_cannot_be_kept_is_stopped_and_what_ended_is_still_told() {
        let book = Book::new(2);
        add(&book, &[("a", 1), ("b", 1), ("c", 1)]);
        let (_, kill) = began(&book).unwrap();
        began(&book).unwrap();
        assert!(book.end(&key("b", 1), LONG));
        assert_eq!(book.kill_overdue(Instant::now()), []);
        book.renewed(&key("c", 1), Instant::now() + LONG * 3);
        let lost = book.kill_overdue(Instant::now() + LONG * 2);
        assert_eq!(lost, [key("a", 1)]);
        assert!(kill.is_cancelled() && !book.end(&key("a", 1), LONG));
        assert_eq!(began(&book).unwrap().0, key("c", 1));
        assert_eq!(book.to_renew(), [key("b", 1), key("c", 1)]);
    }
}
