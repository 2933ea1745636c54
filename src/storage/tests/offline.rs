//! What is left of members, read without changing it, and new clusters made of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use openraft::RaftLogReader;
use openraft::storage::{RaftLogStorage, RaftStateMachine};

use super::kit::*;
use crate::model::Member;
use crate::state::{BlobPart, State};
use crate::storage::codec::log_id;
use crate::storage::{
    Assessment, DirReport, FirstSeat, HomeFate, HomeReport, Identity, Membership, RaftEntry,
    RaftPayload, Storage, StorageError, assess, inspect, recover_into,
};

fn entries(term: u64, from: u64, to: u64) -> Vec<RaftEntry> {
    (from..to).map(|index| submit(term, index)).collect()
}

/// Members 1 to 3 with incarnations 11 to 13, as the first entry of a log says.
fn founding_entry() -> RaftEntry {
    let member =
        |id: u64| Member { name: format!("m{id}"), incarnation: 10 + id, ..Member::default() };
    let nodes: BTreeMap<u64, Member> = (1..=3).map(|id| (id, member(id))).collect();
    let membership = Membership::new(vec![nodes.keys().copied().collect()], nodes).unwrap();
    RaftEntry { log_id: log_id(0, 0), payload: RaftPayload::Membership(membership) }
}

/// A directory of member `id` that has lived: `committed` entries of term 1, then `more` that were
/// appended only.
async fn lived(dir: &Path, id: u64, committed: u64, more: Vec<RaftEntry>) {
    let mut storage = open_dir(dir).await;
    storage.claim(7, id, 10 + id).unwrap();
    storage.log.save_vote(&vote(1, 1)).await.unwrap();
    commit(&mut storage, vec![founding_entry()]).await;
    commit(&mut storage, entries(1, 1, committed)).await;
    if !more.is_empty() {
        append_durably(&mut storage.log, more).await;
    }
    storage.keeper.close().await.unwrap();
}

/// The state that entries 1.. give.
fn state_of(entries: &[RaftEntry]) -> State {
    let mut state = State::default();
    for entry in entries {
        if let RaftPayload::Normal(bytes) = &entry.payload {
            state.apply(entry.log_id.index, &bytes.0).unwrap();
        }
    }
    state
}

/// Every file below `dir` with its content.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.insert(path.clone(), Vec::new());
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

fn seat() -> FirstSeat {
    FirstSeat {
        name: "first".to_owned(),
        peer_addr: "h:7000".to_owned(),
        http_addr: "h:9000".to_owned(),
        grpc_addr: String::new(),
    }
}

fn tasks(state: &State) -> Vec<String> {
    state.tasks_after(0).map(|task| task.task_id.to_string()).collect()
}

#[tokio::test]
async fn looking_changes_nothing_and_a_directory_in_use_is_refused() {
    let (base, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dir = base.path().join("a");
    lived(&dir, 1, 100, entries(2, 100, 120)).await;
    // A torn tail would be cut by a member that starts.
    let wal = fs::read_dir(dir.join("wal")).unwrap().map(|entry| entry.unwrap().path());
    let newest = wal.filter(|path| path.extension().is_some_and(|end| end == "wal")).max().unwrap();
    let len = fs::metadata(&newest).unwrap().len();
    fs::File::options().write(true).open(&newest).unwrap().set_len(len - 3).unwrap();
    let before = contents(&dir);
    let report = inspect(&dir, scratch.path()).unwrap();
    assert_eq!(contents(&dir), before, "it was changed");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "copies were left behind");
    let end = report.end.unwrap();
    assert!(report.log_whole);
    assert_eq!(report.identity.map(|identity| identity.member_id), Some(1));
    assert_eq!((report.log_first, report.vote), (0, Some(vote(1, 1))));
    assert_eq!(end.committed, Some(log_id(1, 99)));
    assert!(end.last.leader_id.term == 2 && end.last.index >= 118, "{:?}", end.last);
    assert_eq!(end.tasks, end.last.index);
    assert!(matches!(report.home, HomeReport::At { applied: Some(id), .. } if id.index == 99));

    let open = open_dir(&dir).await;
    let refused = inspect(&dir, scratch.path()).unwrap_err();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused}");
    let to = base.path().join("new");
    let refused = recover_into(&dir, scratch.path(), &seat(), &to).unwrap_err();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused}");
    drop(open);
    for nothing in [base.path().join("not there"), base.path().to_owned()] {
        let refused = inspect(&nothing, scratch.path()).unwrap_err();
        assert!(matches!(refused, StorageError::NothingHere { .. }), "{refused}");
    }
}

/// Opens a new directory as its member does, and looks at what must be new.
async fn check_new(dir: &Path, wanted: &State, old_end: u64) -> Storage {
    let storage = open_dir(dir).await;
    assert_eq!(storage.report.home, HomeFate::Intact);
    let Identity { cluster_id, member_id, incarnation, .. } = storage.identity.clone().unwrap();
    assert_eq!(member_id, 101);
    assert!(cluster_id != 7 && cluster_id != 0);
    let applied = storage.view.applied().unwrap();
    assert!(applied.leader_id.term > 1_000_000);
    assert_eq!(applied.index, old_end + 1_000_000_000);
    let membership = storage.view.membership();
    assert_eq!(membership.voter_ids().collect::<Vec<_>>(), [101]);
    storage.view.read(|state| {
        assert_eq!(tasks(state), tasks(wanted));
        assert_eq!(state.cluster_id(), cluster_id);
        let members: Vec<_> = state.members().map(|(id, m)| (id, m.incarnation)).collect();
        assert_eq!(members, [(101, incarnation)]);
        assert_eq!(state.epoch().term, applied.leader_id.term);
    });
    // A payload that is not kept in memory came along.
    let input = storage.view.read(|state| state.task(&task_id(3)).unwrap().input.clone());
    let text = storage.view.load_payload(&task_id(3), BlobPart::Input, &input).unwrap();
    assert_eq!(text.unwrap(), large_input(3).as_bytes());
    storage
}

#[tokio::test]
async fn a_new_cluster_begins_where_the_log_ended() {
    let (base, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, to) = (base.path().join("a"), base.path().join("new"));
    // Changes of rows in the snapshot lie in the log behind it.
    let mut storage = open_dir(&dir).await;
    storage.claim(7, 1, 11).unwrap();
    storage.log.save_vote(&vote(4, 2)).await.unwrap();
    let mut all = vec![founding_entry()];
    all.extend(entries(1, 1, 100));
    commit(&mut storage, all.clone()).await;
    build_snapshot(&mut storage.machine).await;
    storage.log.purge(log_id(1, 50)).await.unwrap();
    let mut more = entries(1, 100, 120);
    more.extend([cancel(1, 120, 7), cancel(1, 121, 110)]);
    commit(&mut storage, more.clone()).await;
    let tail = entries(2, 122, 130);
    append_durably(&mut storage.log, tail.clone()).await;
    storage.keeper.close().await.unwrap();
    drop(storage);
    let before = contents(&dir);
    all.extend(more);
    all.extend(tail);
    let wanted = state_of(&all);

    let founded = recover_into(&dir, scratch.path(), &seat(), &to).unwrap();
    assert_eq!(contents(&dir), before, "the old directory was changed");
    assert_eq!(founded.old_end, (2, 129));
    assert_eq!(founded.term, 1_000_004, "the vote was of a later term than the log");
    let mut storage = check_new(&to, &wanted, 129).await;
    assert_eq!(storage.view.read(State::digest), founded.digest);
    assert_eq!(storage.log.read_vote().await.unwrap(), Some(vote(1_000_004, 101)));
    // It goes on from there.
    let next = founded.index + 1;
    commit(&mut storage, vec![blank(founded.term + 1, next)]).await;
    storage.keeper.close().await.unwrap();
    drop(storage);
    let again = open_dir(&to).await;
    assert_eq!(again.report.last_log, next);
    drop(again);

    let refused = recover_into(&dir, scratch.path(), &seat(), &to).unwrap_err();
    assert!(matches!(refused, StorageError::NotEmpty { .. }), "{refused}");
}

/// What is done to a directory, and its name.
type Damage = (&'static str, fn(&Path));

/// The log and the snapshots are gone or broken: what is left must do, and be said.
#[tokio::test]
async fn a_new_cluster_is_made_of_what_is_left() {
    let (base, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wanted = state_of(&entries(1, 1, 100));
    let damages: [Damage; 3] = [
        ("the home is gone", |dir| fs::remove_dir_all(dir.join("state")).unwrap()),
        ("the log is gone", |dir| fs::remove_dir_all(dir.join("wal")).unwrap()),
        ("the identity is gone", |dir| fs::remove_file(dir.join("identity")).unwrap()),
    ];
    for (number, (what, damage)) in damages.into_iter().enumerate() {
        let dir = base.path().join(format!("old-{number}"));
        lived(&dir, 1, 100, Vec::new()).await;
        damage(&dir);
        let report = inspect(&dir, scratch.path()).unwrap();
        assert_eq!(report.end.as_ref().unwrap().last, log_id(1, 99), "{what}");
        assert_eq!(report.log_whole, number == 0, "{what}");
        assert_eq!(report.damage.is_empty(), number == 0, "{what}: {:?}", report.damage);
        let to = base.path().join(format!("new-{number}"));
        recover_into(&dir, scratch.path(), &seat(), &to).unwrap();
        drop(check_new(&to, &wanted, 99).await);
    }
    // Nothing is left.
    let dir = base.path().join("old-9");
    lived(&dir, 1, 100, Vec::new()).await;
    for part in ["wal", "state"] {
        fs::remove_dir_all(dir.join(part)).unwrap();
    }
    let to = base.path().join("new-9");
    assert!(inspect(&dir, scratch.path()).unwrap().end.is_none());
    assert!(recover_into(&dir, scratch.path(), &seat(), &to).is_err());
    assert!(!to.exists(), "a failed recovery leaves nothing at its place");
}

/// The state may be ahead of this member's own log; what a quorum had is not left out.
#[tokio::test]
async fn a_home_ahead_of_its_log_counts() {
    let (base, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, to) = (base.path().join("a"), base.path().join("new"));
    let mut storage = open_dir(&dir).await;
    storage.claim(7, 1, 11).unwrap();
    commit(&mut storage, vec![founding_entry()]).await;
    commit(&mut storage, entries(1, 1, 50)).await;
    // Applied on the quorum's word; the own log has nothing of it.
    storage
        .machine
        .apply(futures::stream::iter(entries(1, 50, 60).into_iter().map(|entry| Ok((entry, None)))))
        .await
        .unwrap();
    storage.keeper.close().await.unwrap();
    drop(storage);
    let report = inspect(&dir, scratch.path()).unwrap();
    assert_eq!(report.log_last, Some(log_id(1, 49)));
    assert_eq!(report.end.unwrap().last, log_id(1, 59));
    recover_into(&dir, scratch.path(), &seat(), &to).unwrap();
    drop(check_new(&to, &state_of(&entries(1, 1, 60)), 59).await);
}

struct Left(Vec<DirReport>);

/// Directories of members 1.. with so many committed and uncommitted entries, the latter of a
/// given term.
async fn left(members: &[(u64, u64, u64, u64)]) -> Left {
    let (base, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut reports = Vec::new();
    for (id, committed, term, more) in members.iter().copied() {
        let dir = base.path().join(format!("m{id}"));
        lived(&dir, id, committed, entries(term, committed, committed + more)).await;
        reports.push(inspect(&dir, scratch.path()).unwrap());
    }
    Left(reports)
}

fn at_hand(assessment: &Assessment) -> Vec<u64> {
    let voters = assessment.voters.iter().filter(|voter| voter.at_hand.is_some());
    voters.map(|voter| voter.id).collect()
}

#[tokio::test]
async fn the_best_log_is_that_of_the_last_term_and_then_the_longest() {
    let Left(reports) = left(&[(1, 40, 1, 30), (3, 40, 2, 2)]).await;
    let both = assess(&reports).unwrap();
    assert_eq!(both.best, 1, "a later term wins over a longer log: {}", both.why);
    assert!(both.why.contains("of term 2"), "{}", both.why);
    assert_eq!(at_hand(&both), [1, 3]);
    assert!(both.quorum_at_hand && !both.may_have_lost);
    assert_eq!((both.quorum, both.uncommitted), (2, 2));
    assert!(both.said[0].contains("start these members"), "{:?}", both.said);

    let one = assess(&reports[..1]).unwrap();
    assert_eq!((one.best, at_hand(&one)), (0, vec![1]));
    assert!(one.may_have_lost && !one.quorum_at_hand);
    assert!(one.said[0].contains("cannot be known"), "{:?}", one.said);
    assert!(one.said[0].contains("index 39 were committed"), "{:?}", one.said);
    assert!(one.said[0].contains("after index 69"), "{:?}", one.said);

    let Left(same_term) = left(&[(1, 40, 1, 3), (2, 50, 1, 0)]).await;
    let longest = assess(&same_term).unwrap();
    assert_eq!(longest.best, 1);
    assert!(longest.why.contains("index 49 of term 1"), "{}", longest.why);
}

#[tokio::test]
async fn logs_that_cannot_be_trusted_do_not_count_as_voters() {
    let Left(reports) = left(&[(1, 40, 1, 0), (2, 40, 1, 0)]).await;
    let mut lost = reports.clone();
    lost[1].log_whole = false;
    let assessment = assess(&lost).unwrap();
    assert_eq!(at_hand(&assessment), [1]);
    assert!(assessment.may_have_lost && !assessment.quorum_at_hand);
    // Another disk under the same number is not that voter.
    let mut other = reports.clone();
    other[1].identity.as_mut().unwrap().incarnation = 99;
    assert_eq!(at_hand(&assess(&other).unwrap()), [1]);
    let mut foreign = reports.clone();
    foreign[1].identity.as_mut().unwrap().cluster_id = 8;
    assert!(assess(&foreign).unwrap_err().contains("one cluster"));
    assert!(assess(&[]).is_err());
    // Of four voters three make a quorum; with two at hand nothing acknowledged is missing.
    let mut four = reports;
    for report in &mut four {
        let end = report.end.as_mut().unwrap();
        let mut nodes: BTreeMap<u64, Member> =
            end.membership.nodes().map(|(id, member)| (*id, member.clone())).collect();
        nodes.insert(4, Member::default());
        let voters = nodes.keys().copied().collect();
        end.membership = Membership::new(vec![voters], nodes).unwrap();
    }
    let assessment = assess(&four).unwrap();
    assert_eq!(assessment.quorum, 3);
    assert!(!assessment.quorum_at_hand && !assessment.may_have_lost);
}
