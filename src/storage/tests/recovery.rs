//! Opening after crashes and damage: the log and a snapshot always give the state back, and a log
//! that went back in time is refused.

use std::fs;
use std::path::Path;

use openraft::storage::{RaftLogStorage, RaftStateMachine};

use super::kit::*;
use crate::storage::codec::log_id;
use crate::storage::home::Home;
use crate::storage::{HomeFate, RaftEntry, SimFault, Storage, StorageError};

fn entries(from: u64, to: u64) -> Vec<RaftEntry> {
    (from..to).map(|index| submit(1, index)).collect()
}

/// A closed directory: entries 1..150 committed and applied, a snapshot at 99, the log purged up
/// to 50.
async fn lived_in(dir: &Path) {
    let mut storage = open_dir(dir).await;
    assert_eq!(storage.report.home, HomeFate::New);
    storage.claim(7, 1, 11).unwrap();
    storage.log.save_vote(&vote(1, 1)).await.unwrap();
    commit(&mut storage, entries(0, 100)).await;
    build_snapshot(&mut storage.machine).await;
    storage.log.purge(log_id(1, 50)).await.unwrap();
    commit(&mut storage, entries(100, 150)).await;
    storage.keeper.close().await.unwrap();
}

async fn expect_whole(dir: &Path) -> Storage {
    let mut storage = open_dir(dir).await;
    replay(&mut storage).await;
    assert_eq!(storage.view.digest(), (149, digest_of(&entries(0, 150))));
    storage
}

fn rebuilt_from(storage: &Storage) -> Option<u64> {
    match &storage.report.home {
        HomeFate::Rebuilt { from_snapshot, why } => {
            assert!(!why.is_empty());
            *from_snapshot
        }
        fate => panic!("expected a rebuilt home, found {fate:?}"),
    }
}

#[tokio::test]
async fn a_healthy_home_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    lived_in(dir.path()).await;
    let storage = expect_whole(dir.path()).await;
    assert_eq!(storage.report.home, HomeFate::Intact);
    assert_eq!(storage.report.applied, 149);
    assert!(!storage.report.state_ahead_of_log);
}

#[tokio::test]
async fn a_deleted_home_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    lived_in(dir.path()).await;
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    let storage = expect_whole(dir.path()).await;
    assert_eq!(rebuilt_from(&storage), Some(99));
    drop(storage);
    assert_eq!(expect_whole(dir.path()).await.report.home, HomeFate::Intact);
}

/// Bytes flipped and files cut at many places: sled answers with errors, panics, silence, or older
/// rows. Whatever it does, the state that comes out is the right one.
#[tokio::test]
async fn a_damaged_home_is_rebuilt() {
    let healthy = tempfile::tempdir().unwrap();
    lived_in(healthy.path()).await;
    let db = healthy.path().join("state").join("db");
    let content = fs::read(&db).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap();
    let mut rebuilt = 0;
    for step in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(healthy.path(), dir.path());
        let damaged_db = dir.path().join("state").join("db");
        let mut damaged = content.clone();
        if step % 3 == 2 {
            damaged.truncate(used * step / 12);
        } else {
            damaged[used * (step + 1) / 13] ^= 0x55;
        }
        fs::write(&damaged_db, &damaged).unwrap();
        let storage = expect_whole(dir.path()).await;
        if storage.report.home != HomeFate::Intact {
            rebuilt += 1;
            assert_eq!(rebuilt_from(&storage), Some(99));
        }
    }
    assert!(rebuilt >= 3, "only {rebuilt} of 12 were recognised: the damage is not where data is");
}

fn copy_dir(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn broken_homes_are_kept_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    lived_in(dir.path()).await;
    for _ in 0..4 {
        let home = dir.path().join("state");
        fs::write(home.join("conf"), b"this is not a configuration").unwrap();
        drop(expect_whole(dir.path()).await);
    }
    let broken = fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("state.broken-")
        })
        .count();
    assert_eq!(broken, 2);
}

#[tokio::test]
async fn without_home_or_snapshot_the_log_alone_gives_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut storage = open_dir(dir.path()).await;
    storage.claim(7, 1, 11).unwrap();
    commit(&mut storage, entries(0, 150)).await;
    storage.keeper.close().await.unwrap();
    drop(storage);
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    assert_eq!(rebuilt_from(&expect_whole(dir.path()).await), None);
}

#[tokio::test]
async fn a_purged_log_without_any_state_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    lived_in(dir.path()).await;
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    fs::remove_dir_all(dir.path().join("snapshots")).unwrap();
    let error = try_open_dir(dir.path()).await.unwrap_err();
    assert!(matches!(error, StorageError::StateLost { purged: 50 }), "{error}");
}

#[tokio::test]
async fn two_processes_cannot_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open_dir(dir.path()).await;
    let error = try_open_dir(dir.path()).await.unwrap_err();
    assert!(matches!(error, StorageError::InUse { .. }), "{error}");
}

#[tokio::test]
async fn a_log_behind_the_identity_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    lived_in(dir.path()).await;
    let wal = dir.path().join("wal");
    let kept = tempfile::tempdir().unwrap();
    copy_dir(&wal, kept.path());

    fs::remove_dir_all(&wal).unwrap();
    let error = try_open_dir(dir.path()).await.unwrap_err();
    assert!(matches!(error, StorageError::DiskWentBack { .. }), "{error}");
    assert!(error.to_string().contains("must not vote"), "{error}");

    // The directory is there again, but the files are not.
    fs::create_dir_all(&wal).unwrap();
    let error = try_open_dir(dir.path()).await.unwrap_err();
    assert!(matches!(error, StorageError::DiskWentBack { .. }), "{error}");

    // The last file is missing: the log is consistent, but ends too early.
    fs::remove_dir_all(&wal).unwrap();
    fs::create_dir_all(&wal).unwrap();
    copy_dir(kept.path(), &wal);
    let mut files: Vec<_> =
        fs::read_dir(&wal).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    fs::remove_file(files.iter().rfind(|path| path.extension().is_some()).unwrap()).unwrap();
    let error = try_open_dir(dir.path()).await.unwrap_err();
    assert!(matches!(error, StorageError::DiskWentBack { .. }), "{error}");

    fs::remove_dir_all(&wal).unwrap();
    fs::create_dir_all(&wal).unwrap();
    copy_dir(kept.path(), &wal);
    drop(expect_whole(dir.path()).await);
}

#[tokio::test]
async fn a_log_without_an_identity_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    lived_in(dir.path()).await;
    let file = dir.path().join("identity");
    let identity = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let error = try_open_dir(dir.path()).await.unwrap_err();
    assert!(matches!(error, StorageError::IdentityMissing), "{error}");
    for place in 0..identity.len() {
        let mut damaged = identity.clone();
        damaged[place] ^= 4;
        fs::write(&file, damaged).unwrap();
        assert!(try_open_dir(dir.path()).await.is_err(), "a flipped byte at {place} passed");
    }
    fs::write(&file, &identity).unwrap();
    let storage = expect_whole(dir.path()).await;
    let found = storage.identity.unwrap();
    assert_eq!((found.cluster_id, found.member_id, found.incarnation), (7, 1, 11));
    assert_eq!(found.last_vote, Some(vote(1, 1)));
    assert_eq!(found.last_log, Some(log_id(1, 149)));
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_vote_is_refused() {
    let disk = sim(1);
    let mut storage = open_sim(&disk).await;
    storage.claim(7, 1, 11).unwrap();
    assert!(matches!(storage.claim(7, 2, 12), Err(StorageError::AlreadyClaimed { member_id: 1 })));
    storage.log.save_vote(&vote(5, 2)).await.unwrap();
    drop(storage);
    disk.wipe_log();
    let error = try_open_sim(&disk).await.unwrap_err();
    assert!(matches!(error, StorageError::DiskWentBack { .. }), "{error}");
}

/// An uncommitted tail may be replaced by a shorter one: that is not a disk that went back.
#[tokio::test(start_paused = true)]
async fn a_truncated_tail_is_not_mistaken_for_lost_data() {
    let disk = sim(2);
    let mut storage = open_sim(&disk).await;
    storage.claim(7, 1, 11).unwrap();
    commit(&mut storage, entries(0, 10)).await;
    append_durably(&mut storage.log, entries(10, 20)).await;
    storage.log.save_vote(&vote(2, 2)).await.unwrap();
    storage.log.truncate_after(Some(log_id(1, 9))).await.unwrap();
    storage.log.save_vote(&vote(3, 2)).await.unwrap();
    drop(storage);
    disk.crash();
    let storage = open_sim(&disk).await;
    assert_eq!(storage.report.last_log, 9);
}

/// Entries are applied when a quorum has them, maybe before our own log is flushed. After a crash
/// the home may be ahead of the log; what openraft then does at start must work with our store.
async fn state_ahead(seed: u64, stale_tail: bool) -> bool {
    use openraft::StorageHelper;
    let disk = sim(seed);
    let mut storage = open_sim(&disk).await;
    storage.claim(7, 1, 11).unwrap();
    storage.log.save_vote(&vote(1, 1)).await.unwrap();
    commit(&mut storage, entries(0, 50)).await;
    if stale_tail {
        append_durably(&mut storage.log, vec![filler(1, 50, 10), filler(1, 51, 10)]).await;
        storage.log.truncate_after(Some(log_id(1, 49))).await.unwrap();
    }
    // Enough runs that the home's image on the platter is likely one from after the crash point.
    disk.set_fault(SimFault::Hang);
    let unflushed: Vec<_> = (50..110).map(|index| submit(2, index)).collect();
    let pending = append(&mut storage.log, unflushed.clone()).await;
    for entry in unflushed.clone() {
        apply(&mut storage.machine, vec![entry]).await;
    }
    drop(pending);
    drop(storage);
    disk.crash();
    let mut storage = open_sim(&disk).await;
    let ahead = storage.report.state_ahead_of_log;
    let found = storage.view.applied().map_or(0, |id| id.index);
    let initial = StorageHelper::new(&mut storage.log, &mut storage.machine)
        .with_id(1)
        .get_initial_state()
        .await
        .unwrap();
    drop(initial);
    let (applied, digest) = storage.view.digest();
    assert!(applied >= found);
    let all: Vec<_> = entries(0, 50).into_iter().chain(unflushed).collect();
    let known = all.iter().filter(|entry| entry.log_id.index <= applied).cloned();
    assert_eq!(digest, digest_of(&known.collect::<Vec<_>>()));
    let log = storage.log.get_log_state().await.unwrap();
    assert!(log.last_log_id >= storage.view.applied(), "the log goes on behind the state");
    // And it does go on.
    let next = log.last_log_id.unwrap().index + 1;
    append_durably(&mut storage.log, vec![submit(3, next)]).await;
    ahead
}

#[tokio::test(start_paused = true)]
async fn a_state_ahead_of_its_log_is_followed_by_the_log() {
    let mut ahead = 0;
    for seed in 0..30 {
        ahead += u32::from(state_ahead(seed, false).await);
    }
    assert!(ahead >= 3, "only {ahead} of 30 crashes left the state ahead: this tests nothing");
}

#[tokio::test(start_paused = true)]
async fn a_stale_tail_below_the_state_is_cut() {
    let mut ahead = 0;
    for seed in 100..130 {
        ahead += u32::from(state_ahead(seed, true).await);
    }
    assert!(ahead >= 3, "only {ahead} of 30 crashes left the state ahead: this tests nothing");
}

/// A crash at any moment of an installation is recognised, and the installation done again.
#[tokio::test]
async fn an_interrupted_installation_is_redone() {
    let dir = tempfile::tempdir().unwrap();
    lived_in(dir.path()).await;
    {
        let home = Home::open(&dir.path().join("state"), 1 << 20).unwrap();
        home.begin_install().unwrap();
        let mut some = crate::state::Changes::default();
        some.rows.insert(vec![4, b'x'], Some(bytes::Bytes::from_static(b"half")));
        home.install_rows(&some).unwrap();
    }
    let storage = expect_whole(dir.path()).await;
    assert_eq!(rebuilt_from(&storage), Some(99));
}

/// The same log with a reopen after every prefix gives the same state, home kept or lost.
#[tokio::test(start_paused = true)]
async fn reopening_after_any_prefix_gives_the_same_state() {
    let disk = sim(11);
    let all = entries(0, 40);
    let mut storage = open_sim(&disk).await;
    storage.claim(7, 1, 11).unwrap();
    for (place, entry) in all.iter().enumerate() {
        commit(&mut storage, vec![entry.clone()]).await;
        if place % 9 == 5 {
            build_snapshot(&mut storage.machine).await;
        }
        storage.log.flush().await.unwrap();
        drop(storage);
        disk.crash();
        storage = open_sim(&disk).await;
        replay(&mut storage).await;
        assert_eq!(storage.view.digest().1, digest_of(&all[..=place]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_the_machine_loudly() {
    let disk = sim(12);
    let mut storage = open_sim(&disk).await;
    commit(&mut storage, entries(0, 5)).await;
    disk.set_fault(SimFault::Full);
    assert!(try_apply(&mut storage.machine, entries(5, 6)).await.is_err());
    assert!(storage.view.alarm().raised().await.contains("make room"));
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_does_not_decode_stops_the_machine_loudly() {
    let mut storage = open_sim(&sim(13)).await;
    let nonsense = filler(1, 0, 40);
    assert!(try_apply(&mut storage.machine, vec![nonsense]).await.is_err());
    assert!(storage.view.alarm().reason().is_some());
    assert_eq!(storage.machine.applied_state().await.unwrap().0, None);
}
