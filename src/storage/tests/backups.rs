//! Backups: every byte is under a checksum, nothing half written has a name, and what is restored
//! is what was there.

use std::fs;
use std::path::Path;

use super::kit::*;
use crate::state::State;
use crate::storage::codec::{FORMAT, log_id};
use crate::storage::{
    Backup, BackupDir, BackupHead, BackupInfo, BackupReceiver, FirstSeat, RaftEntry, Storage,
    StorageError, rehearse, restore_into,
};

fn head(created_at_ms: u64) -> BackupHead {
    BackupHead {
        created_at_ms,
        // These entries never name their cluster.
        cluster_id: 0,
        member_id: 1,
        member_name: "m1".to_owned(),
        version: "0".to_owned(),
        term: 5,
    }
}

async fn source(dir: &Path, entries_to: u64) -> (Storage, Backup) {
    let mut storage = open_dir(dir).await;
    let entries: Vec<RaftEntry> = (0..entries_to).map(|index| submit(1, index)).collect();
    commit(&mut storage, entries).await;
    let snapshot = build_snapshot(&mut storage.machine).await;
    let backup = Backup::new(head(1_700_000_000_123), snapshot).unwrap();
    (storage, backup)
}

#[tokio::test]
async fn a_backup_says_what_it_is_of_and_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, backup) = source(&dir.path().join("data"), 60).await;
    assert_eq!(backup.file_name(), "backup-20231114T221320.123Z-59.qbak");
    let path = dir.path().join("one.qbak");
    backup.write(&path).unwrap();
    let info = BackupInfo::read(&path).unwrap();
    assert_eq!(info.head, head(1_700_000_000_123));
    assert_eq!((info.last, info.digest), (log_id(1, 59), storage.view.digest().1));
    assert_eq!(info.bytes, fs::metadata(&path).unwrap().len());
    let rehearsed = rehearse(&path).unwrap();
    assert_eq!((rehearsed.tasks, rehearsed.open, rehearsed.nodes), (60, 60, 0));

    let to = dir.path().join("new");
    let seat = FirstSeat { name: "n".to_owned(), ..FirstSeat::default() };
    let founded = restore_into(&path, &seat, &to).unwrap();
    assert_eq!(founded.old_end, (1, 59));
    assert_eq!(founded.term, 1_000_005, "the old member was in a later term than its last entry");
    let restored = open_dir(&to).await;
    let tasks = |state: &State| -> Vec<_> {
        state.tasks_after(0).map(|task| (task.task_id.clone(), task.input.clone())).collect()
    };
    assert_eq!(restored.view.read(tasks), storage.view.read(tasks));
    assert_eq!(restored.view.read(State::digest), founded.digest);
    let refused = restore_into(&path, &seat, &to).unwrap_err();
    assert!(matches!(refused, StorageError::NotEmpty { .. }), "{refused}");
}

/// Offsets that lie in every section: both headers, blocks, the end.
fn offsets(len: usize) -> impl Iterator<Item = usize> {
    let (front, back) = (300.min(len), len.saturating_sub(40));
    (0..front).chain((front..back).step_by((len / 80).max(1))).chain(back..len)
}

#[tokio::test]
async fn no_flipped_byte_goes_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let (_storage, backup) = source(&dir.path().join("data"), 40).await;
    let whole = backup.read_at(0, 1 << 20).unwrap();
    let whole = [&whole[..], &backup.read_at(whole.len() as u64, 1 << 30).unwrap()[..]].concat();
    assert_eq!(whole.len() as u64, backup.info().bytes);
    let path = dir.path().join("damaged.qbak");
    for offset in offsets(whole.len()) {
        let mut damaged = whole.clone();
        damaged[offset] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        assert!(rehearse(&path).is_err(), "a flipped byte at {offset} went unnoticed");
    }
    for len in offsets(whole.len()) {
        fs::write(&path, &whole[..len]).unwrap();
        assert!(rehearse(&path).is_err(), "a file cut at {len} went unnoticed");
    }
    fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
    assert!(rehearse(&path).unwrap_err().to_string().contains("behind its end"));
    fs::write(&path, &whole).unwrap();
    rehearse(&path).unwrap();
}

#[tokio::test]
async fn a_newer_format_is_named_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let (_storage, backup) = source(&dir.path().join("data"), 5).await;
    let mut bytes = backup.read_at(0, 1 << 20).unwrap().to_vec();
    let end = 8 + u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    assert_eq!(bytes[8], FORMAT);
    bytes[8] = FORMAT + 1;
    let sum = xxhash_rust::xxh3::xxh3_64(&bytes[8..end]);
    bytes[end..end + 8].copy_from_slice(&sum.to_le_bytes());
    let path = dir.path().join("newer.qbak");
    fs::write(&path, &bytes).unwrap();
    let refused = BackupInfo::read(&path).unwrap_err();
    assert!(refused.to_string().contains("unknown format 2"), "{refused}");
}

#[tokio::test]
async fn a_backup_that_lies_about_its_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = source(&dir.path().join("data"), 5).await;
    let path = dir.path().join("liar.qbak");
    let lying = BackupHead { cluster_id: 7, ..head(1) };
    Backup::new(lying, storage.snapshots.current().unwrap()).unwrap().write(&path).unwrap();
    let refused = rehearse(&path).unwrap_err();
    assert!(refused.to_string().contains("says it is of cluster"), "{refused}");
}

#[tokio::test]
async fn what_did_not_arrive_whole_has_no_name() {
    let dir = tempfile::tempdir().unwrap();
    let (_storage, backup) = source(&dir.path().join("data"), 40).await;
    let kept = tempfile::tempdir().unwrap();
    let path = kept.path().join("b.qbak");
    let mut receiver = BackupReceiver::create(&path).unwrap();
    receiver.write(&backup.read_at(0, 1 << 20).unwrap()).unwrap();
    assert!(!path.exists());
    assert!(receiver.finish().is_err(), "half a backup was taken");
    drop(BackupReceiver::create(&path).unwrap());
    assert_eq!(fs::read_dir(kept.path()).unwrap().count(), 0, "something was left behind");
}

#[tokio::test]
async fn the_oldest_go_first_and_strangers_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = source(&dir.path().join("data"), 5).await;
    let place = dir.path().join("backups");
    let snapshot = storage.snapshots.current().unwrap();
    let kept = BackupDir::open(&place).unwrap();
    let mut names = Vec::new();
    for at in 0..5 {
        // Even across a change of the number of digits, names sort by time.
        let backup = Backup::new(head(999_999_999_998 + at), snapshot.clone()).unwrap();
        backup.write(&kept.path(&backup.file_name())).unwrap();
        names.push(backup.file_name());
    }
    for stranger in ["notes.txt", "other.tmp", "backup-of-mine.tar"] {
        fs::write(place.join(stranger), "mine").unwrap();
    }
    fs::write(place.join(format!("{}.tmp", names[0])), "unfinished").unwrap();
    let kept = BackupDir::open(&place).unwrap();
    assert_eq!(kept.names().unwrap(), names);
    assert_eq!(kept.prune(3, Some(&names[0])).unwrap(), [names[1].clone()]);
    assert_eq!(kept.prune(1, None).unwrap(), [&names[0], &names[2], &names[3]].map(Clone::clone));
    assert_eq!(kept.prune(0, None).unwrap(), Vec::<String>::new(), "the last one always stays");
    let mut left: Vec<_> = fs::read_dir(&place)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let wanted = [&names[4], "backup-of-mine.tar", "notes.txt", "other.tmp"];
    assert_eq!(left, wanted);
}
