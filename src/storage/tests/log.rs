//! The log: a model test against a table, durability, damage, full and hung disks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use proptest::prelude::*;

use super::kit::*;
use crate::storage::codec::log_id;
use crate::storage::wal::Wal;
use crate::storage::{
    Alarm, LogId, LogLimits, LogStore, RaftEntry, SimDisk, SimFault, SimOptions, StorageError,
    WalOptions,
};

/// What the log must hold: a table, and nothing clever.
#[derive(Debug, Default)]
struct Model {
    term: u64,
    entries: BTreeMap<u64, RaftEntry>,
    purged: Option<LogId>,
    committed: Option<LogId>,
    vote_term: u64,
}

impl Model {
    fn last(&self) -> Option<LogId> {
        self.entries.values().next_back().map(|entry| entry.log_id).max(self.purged)
    }

    fn next_index(&self) -> u64 {
        self.last().map_or(0, |id| id.index + 1)
    }
}

#[derive(Debug, Clone)]
enum Op {
    Append {
        count: u64,
        len: usize,
    },
    /// Drop this many from the end, as far as they are not committed, in a new term.
    Truncate(u64),
    Commit(u64),
    Purge(u64),
    Vote,
    Reopen,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        5 => (1..20u64, 8..3000usize).prop_map(|(count, len)| Op::Append { count, len }),
        2 => (1..30u64).prop_map(Op::Truncate),
        2 => (1..30u64).prop_map(Op::Commit),
        1 => (1..60u64).prop_map(Op::Purge),
        1 => Just(Op::Vote),
        2 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..25)
}

async fn run(log: &mut LogStore, model: &mut Model, op: &Op) {
    match *op {
        Op::Append { count, len } => {
            let next = model.next_index();
            let entries: Vec<_> =
                (next..next + count).map(|index| filler(model.term, index, len)).collect();
            model.entries.extend(entries.iter().map(|entry| (entry.log_id.index, entry.clone())));
            append_durably(log, entries).await;
        }
        Op::Truncate(count) => {
            let keep = model.next_index().saturating_sub(count + 1);
            let keep = model.entries.get(&keep).map(|entry| entry.log_id);
            let keep = keep.max(model.committed).max(model.purged);
            log.truncate_after(keep).await.unwrap();
            model.entries.split_off(&keep.map_or(0, |id| id.index + 1));
            model.term += 1;
        }
        Op::Commit(count) => {
            let index = model.committed.map_or(0, |id| id.index + 1) + count;
            if let Some(entry) = model.entries.get(&index) {
                model.committed = Some(entry.log_id);
                log.save_committed(model.committed).await.unwrap();
            }
        }
        Op::Purge(count) => {
            let upto = model.purged.map_or(0, |id| id.index + 1) + count;
            if let Some(entry) = model.entries.get(&upto).cloned()
                && Some(entry.log_id) <= model.committed
            {
                model.purged = Some(entry.log_id);
                model.entries = model.entries.split_off(&(upto + 1));
                log.purge(entry.log_id).await.unwrap();
            }
        }
        Op::Vote => {
            model.vote_term += 1;
            log.save_vote(&vote(model.vote_term, 1)).await.unwrap();
        }
        Op::Reopen => unreachable!("done by the caller"),
    }
}

async fn check(log: &mut LogStore, model: &Model) {
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, model.purged);
    assert_eq!(state.last_log_id, model.last());
    let expected: Vec<_> = model.entries.values().cloned().collect();
    assert_eq!(all_entries(log).await, expected);
    assert_eq!(log.read_committed().await.unwrap(), model.committed.min(model.last()));
    let vote_term = log.read_vote().await.unwrap().map_or(0, |vote| vote.leader_id.term);
    assert_eq!(vote_term, model.vote_term);
    // A replication read from the middle starts there and has no holes.
    if let Some(start) = model.entries.keys().nth(model.entries.len() / 2) {
        let read = log.limited_get_log_entries(*start, u64::MAX).await.unwrap();
        assert_eq!(read.first(), model.entries.get(start));
    }
}

#[derive(Debug)]
enum Place {
    Dir(tempfile::TempDir),
    Simulated(SimDisk),
}

impl Place {
    fn open(&self) -> LogStore {
        let wal = match self {
            Self::Dir(dir) => open_wal(dir.path()).unwrap(),
            Self::Simulated(disk) => Wal::Simulated(disk.handle()),
        };
        LogStore::new(wal, LogLimits::default(), Alarm::default())
    }

    /// Closes the log as hard as this place allows. What was flushed must be there afterwards.
    fn close(&self, log: LogStore) {
        drop(log);
        if let Self::Simulated(disk) = self {
            disk.crash();
        }
    }
}

fn open_wal(dir: &Path) -> Result<Wal, StorageError> {
    Wal::open(dir, WalOptions { chunk_bytes: 16 << 10, cache_bytes: 4 << 10 })
}

async fn model_run(place: &Place, ops: &[Op]) {
    let mut log = place.open();
    let mut model = Model::default();
    for op in ops {
        if matches!(op, Op::Reopen) {
            log.flush().await.unwrap();
            place.close(log);
            log = place.open();
        } else {
            run(&mut log, &mut model, op).await;
        }
        check(&mut log, &model).await;
    }
}

fn block_on<T>(paused: bool, future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(paused).build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_log_behaves_like_a_table(ops in ops()) {
        let place = Place::Dir(tempfile::tempdir().unwrap());
        block_on(false, model_run(&place, &ops));
    }

    #[test]
    fn the_simulated_log_behaves_like_a_table(ops in ops()) {
        block_on(true, model_run(&Place::Simulated(sim(7)), &ops));
    }
}

fn chunks(dir: &Path) -> Vec<PathBuf> {
    let mut chunks: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "wal"))
        .collect();
    chunks.sort();
    chunks
}

/// A closed log with these entries in several files.
async fn written(dir: &Path, entries: u64) {
    let mut log = Place::open_dir(dir);
    log.save_vote(&vote(3, 2)).await.unwrap();
    for index in 0..entries {
        append_durably(&mut log, vec![filler(3, index, 500)]).await;
    }
    drop(log);
    assert!(chunks(dir).len() > 2, "several files are what this test is about");
}

impl Place {
    fn open_dir(dir: &Path) -> LogStore {
        LogStore::new(open_wal(dir).unwrap(), LogLimits::default(), Alarm::default())
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_written_over() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 80).await;
    let last = chunks(dir.path()).pop().unwrap();
    let len = fs::metadata(&last).unwrap().len();
    fs::OpenOptions::new().write(true).open(&last).unwrap().set_len(len - 100).unwrap();
    let mut log = Place::open_dir(dir.path());
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(3, 78)));
    assert_eq!(log.read_vote().await.unwrap(), Some(vote(3, 2)));
    append_durably(&mut log, vec![filler(4, 79, 500)]).await;
    drop(log);
    let mut log = Place::open_dir(dir.path());
    let entries = all_entries(&mut log).await;
    assert_eq!(entries.len(), 80);
    assert_eq!(entries[79].log_id, log_id(4, 79));
}

#[tokio::test]
async fn zeros_behind_the_tail_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 80).await;
    let last = chunks(dir.path()).pop().unwrap();
    let len = fs::metadata(&last).unwrap().len();
    fs::OpenOptions::new().write(true).open(&last).unwrap().set_len(len + 5000).unwrap();
    let mut log = Place::open_dir(dir.path());
    assert_eq!(all_entries(&mut log).await.len(), 80);
}

/// Whatever byte is flipped, the log either refuses or holds exactly what was written: it never
/// loses or changes an entry in silence. Length bytes are among those flipped.
#[tokio::test]
async fn a_flipped_byte_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 80).await;
    let files = chunks(dir.path());
    let (first, last) = (&files[0], &files[files.len() - 1]);
    let mut offsets: Vec<(&PathBuf, u64)> = (0..24).map(|step| (first, 200 + step * 61)).collect();
    // One whole record of the open file, byte for byte, its frame included.
    offsets.extend((0..60).map(|step| (last, 120 + step)));
    for (path, offset) in offsets {
        let healthy = fs::read(path).unwrap();
        let mut damaged = healthy.clone();
        damaged[offset as usize] ^= 0x41;
        fs::write(path, &damaged).unwrap();
        match open_wal(dir.path()) {
            Err(StorageError::LogDamaged { cause }) => assert!(!cause.is_empty()),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("a flipped byte at {offset} of {} went unnoticed", path.display()),
        }
        fs::write(path, &healthy).unwrap();
    }
    let mut log = Place::open_dir(dir.path());
    assert_eq!(all_entries(&mut log).await.len(), 80);
}

#[tokio::test]
async fn a_missing_middle_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 120).await;
    fs::remove_file(&chunks(dir.path())[1]).unwrap();
    let error = open_wal(dir.path()).unwrap_err();
    assert!(error.to_string().contains("move the data directory away"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn acknowledged_means_durable() {
    for seed in 0..40 {
        let disk = sim(seed);
        let place = Place::Simulated(disk.clone());
        let mut log = place.open();
        log.save_vote(&vote(2, 1)).await.unwrap();
        append_durably(&mut log, (0..10).map(|index| filler(2, index, 100)).collect()).await;
        // Readable, but not acknowledged: a crash may or may not keep these.
        let pending = append(&mut log, (10..20).map(|index| filler(2, index, 100)).collect()).await;
        assert_eq!(all_entries(&mut log).await.len(), 20);
        place.close(log);
        drop(pending);
        let mut log = place.open();
        assert_eq!(log.read_vote().await.unwrap(), Some(vote(2, 1)));
        let kept = all_entries(&mut log).await.len();
        assert!((10..=20).contains(&kept), "{kept}");
    }
}

/// The control row of the test above: a disk that lies loses what it acknowledged.
#[tokio::test(start_paused = true)]
async fn a_lying_disk_is_found_out() {
    let mut lost = 0;
    for seed in 0..20 {
        let disk =
            SimDisk::new(SimOptions { seed, acknowledge_early: true, ..SimOptions::default() });
        let place = Place::Simulated(disk.clone());
        let mut log = place.open();
        append_durably(&mut log, (0..10).map(|index| filler(2, index, 100)).collect()).await;
        place.close(log);
        lost += u32::from(all_entries(&mut place.open()).await.len() < 10);
    }
    assert!(lost > 0, "acknowledging before the flush must lose entries");
}

#[tokio::test(start_paused = true)]
async fn what_arrives_during_a_flush_shares_the_next() {
    let disk = sim(3);
    let mut log = Place::Simulated(disk.clone()).open();
    let mut acknowledged = Vec::new();
    for index in 0..100 {
        acknowledged.push(append(&mut log, vec![filler(1, index, 50)]).await);
    }
    for flushed in acknowledged {
        flushed.await.unwrap().unwrap();
    }
    assert_eq!(disk.flushes(), 2, "the first entry alone, then all others together");
    assert_eq!(log.stats().appended, 100);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_final() {
    let disk = sim(4);
    let alarm = Alarm::default();
    let mut log = LogStore::new(Wal::Simulated(disk.handle()), LogLimits::default(), alarm.clone());
    append_durably(&mut log, vec![filler(1, 0, 50)]).await;
    disk.set_fault(SimFault::Full);
    let error = try_append(&mut log, vec![filler(1, 1, 50)]).await.unwrap_err();
    assert!(error.to_string().contains("make room"), "{error}");
    assert!(alarm.raised().await.contains("the disk is full"));
    // Room alone does not bring it back: only a restart does.
    disk.set_fault(SimFault::None);
    assert!(try_append(&mut log, vec![filler(1, 1, 50)]).await.is_err());
    assert!(log.save_vote(&vote(9, 9)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_failed_flush_is_final_and_reaches_everybody_waiting() {
    let disk = sim(5);
    let alarm = Alarm::default();
    let mut log = LogStore::new(Wal::Simulated(disk.handle()), LogLimits::default(), alarm.clone());
    disk.set_fault(SimFault::FlushError);
    let first = append(&mut log, vec![filler(1, 0, 50)]).await;
    let second = append(&mut log, vec![filler(1, 1, 50)]).await;
    assert!(first.await.unwrap().is_err());
    assert!(second.await.unwrap().is_err());
    disk.set_fault(SimFault::None);
    assert!(try_append(&mut log, vec![filler(1, 2, 50)]).await.is_err());
    assert!(alarm.reason().unwrap().contains("simulated flush error"));
}

#[tokio::test(start_paused = true)]
async fn a_hung_disk_stops_the_member() {
    let disk = sim(6);
    let alarm = Alarm::default();
    let mut log = LogStore::new(Wal::Simulated(disk.handle()), LogLimits::default(), alarm.clone());
    disk.set_fault(SimFault::Hang);
    let pending = append(&mut log, vec![filler(1, 0, 50)]).await;
    let why = alarm.raised().await;
    assert!(why.contains("has not completed a flush for"), "{why}");
    assert!(pending.await.unwrap().is_err());
    assert!(log.save_vote(&vote(2, 1)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn appends_wait_while_too_much_is_unflushed() {
    let limits = LogLimits { unflushed_bytes_max: 10_000, ..LogLimits::default() };
    let disk = sim(8);
    disk.set_fault(SimFault::Hang);
    let mut log = LogStore::new(Wal::Simulated(disk.handle()), limits, Alarm::default());
    let mut returned = 0;
    for index in 0..20 {
        let entry = vec![filler(1, index, 1000)];
        let wait = Duration::from_millis(100);
        if tokio::time::timeout(wait, append(&mut log, entry)).await.is_err() {
            break;
        }
        returned += 1;
    }
    assert!((9..=10).contains(&returned), "{returned} appends of 1 KB within 10 KB");
}

#[tokio::test]
async fn replication_reads_are_bounded_but_never_empty() {
    let dir = tempfile::tempdir().unwrap();
    let limits = LogLimits { read_bytes_max: 4000, read_entries_max: 50, ..LogLimits::default() };
    let mut log = LogStore::new(open_wal(dir.path()).unwrap(), limits, Alarm::default());
    append_durably(&mut log, (0..100).map(|index| filler(1, index, 100)).collect()).await;
    append_durably(&mut log, vec![filler(1, 100, 50_000), filler(1, 101, 100)]).await;
    let small = log.limited_get_log_entries(0, 102).await.unwrap();
    assert!((35..=45).contains(&small.len()), "{}", small.len());
    assert_eq!(log.limited_get_log_entries(100, 102).await.unwrap().len(), 1);
    assert_eq!(all_entries(&mut log).await.len(), 102);
}

#[tokio::test]
async fn a_committed_id_never_runs_ahead_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Place::open_dir(dir.path());
    append_durably(&mut log, vec![blank(1, 0), blank(1, 1)]).await;
    log.save_committed(Some(log_id(1, 9))).await.unwrap();
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 1)));
    log.save_committed(Some(log_id(1, 0))).await.unwrap();
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 1)));
    log.save_committed(None).await.unwrap();
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 1)));
}

/// Writes one flush of twenty entries, then whatever `after` writes; loses one sector of the flush.
async fn with_hole(dir: &Path, flushes_after: u64) {
    written(dir, 60).await;
    let mut log = Place::open_dir(dir);
    append_durably(&mut log, (60..80).map(|index| filler(3, index, 300)).collect()).await;
    drop(log);
    let last = chunks(dir).pop().unwrap();
    let end = fs::metadata(&last).unwrap().len() as usize;
    if flushes_after > 0 {
        let mut log = Place::open_dir(dir);
        for index in 80..80 + flushes_after {
            append_durably(&mut log, vec![filler(3, index, 8)]).await;
        }
        drop(log);
        assert_eq!(chunks(dir).pop().unwrap(), last, "the hole must be in the last file");
    }
    let mut bytes = fs::read(&last).unwrap();
    // In the middle of the flush: it is about 7 KB long.
    let hole = (end - 3500) / 512 * 512;
    bytes[hole..hole + 512].fill(0);
    fs::write(&last, bytes).unwrap();
}

#[tokio::test]
async fn a_hole_in_the_last_flush_is_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    with_hole(dir.path(), 0).await;
    let mut log = Place::open_dir(dir.path());
    let last = log.get_log_state().await.unwrap().last_log_id.unwrap().index;
    assert!((60..79).contains(&last), "{last}");
    let kept = all_entries(&mut log).await;
    assert_eq!(kept.len() as u64, last + 1);
    assert_eq!(kept.last().unwrap(), &filler(3, last, if last < 60 { 500 } else { 300 }));
}

#[tokio::test]
async fn a_hole_before_a_later_flush_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    with_hole(dir.path(), 1).await;
    assert!(matches!(open_wal(dir.path()), Err(StorageError::LogDamaged { .. })));
}
