//! Snapshots: of one moment though applies go on, streamed, installed, and the log purged only
//! behind them.

use std::collections::BTreeMap;

use bytes::Bytes;
use openraft::RaftSnapshotBuilder;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use proptest::prelude::*;

use super::kit::*;
use crate::model::Payload;
use crate::state::{BlobPart, Changes, Digest, row_hash};
use crate::storage::alarm::Alarm;
use crate::storage::codec::log_id;
use crate::storage::home::{Home, Meta};
use crate::storage::shared_home::{Piece, SharedHome};
use crate::storage::{HomeFate, RaftEntry, Storage};

fn entries(from: u64, to: u64) -> Vec<RaftEntry> {
    (from..to)
        .map(|index| match index % 5 {
            4 => cancel(1, index, index - 2),
            _ => submit(1, index),
        })
        .collect()
}

/// Applies go on, entry by entry, while a snapshot is built; the snapshot is of its beginning.
async fn build_under_load(mut storage: Storage) {
    let before = entries(1, 400);
    commit(&mut storage, before.clone()).await;
    let mut builder = storage.machine.try_create_snapshot_builder(true).await.unwrap();
    assert!(
        storage.machine.try_create_snapshot_builder(false).await.is_none(),
        "one snapshot at a time"
    );
    let during = entries(400, 600);
    let build = async {
        let snapshot = builder.build_snapshot().await.unwrap();
        (snapshot, storage.view.applied().unwrap().index)
    };
    let machine = &mut storage.machine;
    let load = async {
        for entry in during.clone() {
            apply(machine, vec![entry]).await;
            tokio::task::yield_now().await;
        }
    };
    let ((snapshot, applied_at_end), ()) = tokio::join!(build, load);
    assert!(applied_at_end > 400, "nothing was applied meanwhile: this tests nothing");
    assert_eq!(snapshot.meta.last_log_id, Some(log_id(1, 399)));
    assert_eq!(snapshot.snapshot.position().digest, digest_of(&before));
    let meta = snapshot.snapshot.reader().unwrap().verify().unwrap();
    assert_eq!(meta.digest, digest_of(&before));
    let all: Vec<_> = before.into_iter().chain(during).collect();
    assert_eq!(storage.view.digest(), (599, digest_of(&all)));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_of_its_beginning() {
    for seed in 0..4 {
        build_under_load(open_sim(&sim(seed)).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_sled_is_of_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    build_under_load(open_dir(dir.path()).await).await;
}

/// Writes between the pieces of a reading: key and new value, or a deletion.
type Writes = Vec<Batch>;

fn writes() -> impl Strategy<Value = Writes> {
    let write = (1..60u8, prop::option::of(any::<u8>()));
    prop::collection::vec(prop::collection::vec(write, 0..12), 1..12)
}

fn changes(writes: &[(u8, Option<u8>)]) -> Changes {
    let rows =
        writes.iter().map(|(key, value)| (vec![*key], value.map(|byte| Bytes::from(vec![byte]))));
    Changes { rows: rows.collect() }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Inserts, changes and deletions before and behind the reader do not show.
    #[test]
    fn a_reading_sees_one_moment(first in writes(), between in writes(), piece in 1..9usize) {
        for behind in [false, true] {
            let home = Home::Simulated(sim(1).handle());
            let home = match behind {
                true => SharedHome::behind(home, Alarm::default()).unwrap(),
                false => SharedHome::new(home),
            };
            sees_one_moment(&home, &first, &between, piece)?;
        }
    }
}

type Batch = Vec<(u8, Option<u8>)>;

fn sees_one_moment(
    home: &SharedHome,
    first: &[Batch],
    between: &[Batch],
    piece: usize,
) -> Result<(), TestCaseError> {
    let mut model = BTreeMap::new();
    for batch in first {
        let changes = changes(batch);
        home.lock().write(changes.clone(), &Meta::default()).unwrap();
        for (key, value) in changes.rows {
            // Gathered or written, a row is seen at once.
            prop_assert_eq!(&home.get(&key).unwrap(), &value);
            match value {
                Some(value) => model.insert(key, value),
                None => model.remove(&key),
            };
        }
    }
    let reading = home.begin_reading().unwrap().unwrap();
    let mut between = between.iter();
    let mut read = Vec::new();
    loop {
        if let Some(batch) = between.next() {
            home.lock().write(changes(batch), &Meta::default()).unwrap();
        }
        match home.read_piece(reading, piece).unwrap() {
            Piece::Rows(rows) => read.extend(rows),
            Piece::End => break,
            Piece::Cancelled => panic!("nobody cancelled it"),
        }
    }
    prop_assert_eq!(read, model.into_iter().collect::<Vec<_>>());
    Ok(())
}

async fn stream(from: &Storage, to: &Storage) -> crate::storage::SnapshotData {
    let snapshot = from.snapshots.current().unwrap();
    let mut receiver = to.snapshots.receive().unwrap();
    while receiver.received() < snapshot.len() {
        let chunk = snapshot.read_at(receiver.received(), 777).unwrap();
        let at = receiver.received();
        receiver.write(at, &chunk).unwrap();
        // A chunk that is sent again does no harm.
        receiver.write(at, &chunk).unwrap();
    }
    assert!(receiver.write(receiver.received() + 1, b"x").is_err(), "a hole in the snapshot");
    receiver.finish().unwrap()
}

#[tokio::test]
async fn a_snapshot_travels_and_is_installed() {
    let (near, far) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut leader = open_dir(near.path()).await;
    let all = entries(1, 120);
    commit(&mut leader, all.clone()).await;
    build_snapshot(&mut leader.machine).await;

    let mut follower = open_dir(far.path()).await;
    follower.claim(1, 2, 3).unwrap();
    commit(&mut follower, entries(1, 20)).await;
    let received = stream(&leader, &follower).await;
    let meta = received.meta();
    follower.machine.install_snapshot(&meta, received).await.unwrap();
    assert_eq!(follower.view.digest(), (119, digest_of(&all)));
    assert_eq!(*follower.view.applied_watch().borrow(), 119);
    // The log may now be purged up to it, as openraft does next.
    follower.log.purge(log_id(1, 119)).await.unwrap();
    let input = follower.view.read(|state| state.task(&task_id(3)).unwrap().input.clone());
    assert!(matches!(input, Payload::Stored { .. }));
    let text = follower.view.load_payload(&task_id(3), BlobPart::Input, &input).unwrap();
    assert_eq!(text.unwrap(), large_input(3).as_bytes());
    follower.keeper.close().await.unwrap();
    drop(follower);

    let reopened = open_dir(far.path()).await;
    assert_eq!(reopened.report.home, HomeFate::Intact);
    assert_eq!(reopened.view.digest(), (119, digest_of(&all)));
}

#[tokio::test]
async fn a_damaged_transfer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut storage = open_dir(dir.path()).await;
    commit(&mut storage, entries(1, 60)).await;
    let snapshot = build_snapshot(&mut storage.machine).await;
    let whole = snapshot.read_at(0, snapshot.len()).unwrap();
    for offset in (0..whole.len()).step_by(whole.len() / 60) {
        let mut damaged = whole.to_vec();
        damaged[offset] ^= 0x10;
        let mut receiver = storage.snapshots.receive().unwrap();
        receiver.write(0, &damaged).unwrap();
        assert!(receiver.finish().is_err(), "a flipped byte at {offset} went unnoticed");
    }
    for len in [0, 3, 40, whole.len() / 2, whole.len() - 1] {
        let mut receiver = storage.snapshots.receive().unwrap();
        receiver.write(0, &whole[..len]).unwrap();
        assert!(receiver.finish().is_err(), "a file cut at {len} went unnoticed");
    }
    let names = std::fs::read_dir(dir.path().join("snapshots")).unwrap().count();
    assert_eq!(names, 1, "refused transfers leave nothing behind");
}

#[tokio::test(start_paused = true)]
async fn the_log_is_purged_only_behind_a_durable_snapshot() {
    let disk = sim(9);
    let mut storage = open_sim(&disk).await;
    storage.claim(1, 1, 1).unwrap();
    commit(&mut storage, entries(1, 50)).await;
    let refused = storage.log.purge(log_id(1, 10)).await.unwrap_err();
    assert!(refused.to_string().contains("refused to purge"), "{refused}");
    build_snapshot(&mut storage.machine).await;
    commit(&mut storage, entries(50, 60)).await;
    storage.log.purge(log_id(1, 49)).await.unwrap();
    assert!(storage.log.purge(log_id(1, 50)).await.is_err());
    storage.log.flush().await.unwrap();
    drop(storage);
    // Whatever becomes of the home, snapshot and log give the state.
    disk.crash();
    let mut storage = open_sim(&disk).await;
    replay(&mut storage).await;
    assert_eq!(storage.view.digest(), (59, digest_of(&entries(1, 60))));
    assert!(storage.log.purge(log_id(1, 50)).await.is_err(), "the floor survives a restart");
}

#[tokio::test]
async fn the_newest_two_snapshots_are_kept_and_a_damaged_one_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let mut storage = open_dir(dir.path()).await;
    storage.claim(1, 1, 1).unwrap();
    for step in 0..4 {
        commit(&mut storage, entries(1 + step * 10, 11 + step * 10)).await;
        build_snapshot(&mut storage.machine).await;
    }
    storage.keeper.close().await.unwrap();
    drop(storage);
    let snapshots = dir.path().join("snapshots");
    let mut names: Vec<_> =
        std::fs::read_dir(&snapshots).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert_eq!(names.len(), 2);
    let mut newest = std::fs::read(&names[1]).unwrap();
    let middle = newest.len() / 2;
    newest[middle] ^= 1;
    std::fs::write(&names[1], &newest).unwrap();
    let storage = open_dir(dir.path()).await;
    assert_eq!(storage.report.snapshots_set_aside, 1);
    assert_eq!(storage.snapshots.current().unwrap().meta().last_log_id, Some(log_id(1, 30)));
}

#[tokio::test(start_paused = true)]
async fn the_digest_in_a_snapshot_guards_its_rows() {
    let storage = open_sim(&sim(2)).await;
    let promised = Digest { sum: row_hash(b"k", b"other"), rows: 1 };
    let meta = Meta { applied: Some(log_id(1, 1)), digest: promised, ..Meta::default() };
    let mut writer = storage.snapshots.begin_writing(&meta).unwrap();
    writer.rows(&[(b"k".to_vec(), Bytes::from_static(b"v"))]).unwrap();
    assert!(writer.finish().is_err());
}
