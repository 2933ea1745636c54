//! A new data directory for the first member of a new cluster, made of an old state.
//!
//! Everything that tells the new world from the old one is decided here or in
//! [`State::refound`](crate::state::State::refound): cluster id and incarnation are drawn anew, term
//! and index leap over all that the old world can have reached. The directory is built under another
//! name, opened once as a member would open it, and then moved to its place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use super::remains::Remains;
use super::revive::{Revived, revive};
use crate::clock;
use crate::model::{Incarnation, Member, MemberId};
use crate::state::{Digest, Founding, Refounded};
use crate::storage::codec::log_id;
use crate::storage::error::StorageError;
use crate::storage::files::{Files, make_dir, sync_dir};
use crate::storage::flusher::DurablePosition;
use crate::storage::home::{Home, Meta};
use crate::storage::identity::IdentityFile;
use crate::storage::install;
use crate::storage::recovery::{Disk, HOME_DIR, SNAPSHOT_DIR, WAL_DIR, recover};
use crate::storage::snapshot::SnapshotStore;
use crate::storage::wal::{FlushDone, Wal, WalOp, WalOptions};
use crate::storage::{HomeFate, LogId, Membership, StoredMembership, Vote};

/// Added to the highest term known: no row of failed elections in the old world comes so far.
const TERMS_SKIPPED: u64 = 1_000_000;
/// Added to the index: an event or a read of the old world never names an index of the new one.
const INDEXES_SKIPPED: u64 = 1_000_000_000;
/// sled's cache while the new directory is looked at.
const CACHE_BYTES: u64 = 16 << 20;

/// What the operator says of the first member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirstSeat {
    /// Its name.
    pub name: String,
    /// `host:port` that other members reach it at.
    pub peer_addr: String,
    /// `host:port` of its REST API.
    pub http_addr: String,
    /// `host:port` of its gRPC API; empty for none.
    pub grpc_addr: String,
}

/// A new cluster, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founded {
    /// Its random id.
    pub cluster_id: u128,
    /// The id of the cluster that it was made from.
    pub old_cluster_id: u128,
    /// The number of its first member.
    pub member_id: MemberId,
    /// Names the new data directory.
    pub incarnation: Incarnation,
    /// The term that nobody leads in; elections begin above it.
    pub term: u64,
    /// Where its log begins.
    pub index: u64,
    /// The last entry of the old world in it: term and index.
    pub old_end: (u64, u64),
    /// Tasks, open ones and those that are over.
    pub tasks: u64,
    /// Open tasks, and executions that were taken back.
    pub refounded: Refounded,
    /// Digest of the new state.
    pub digest: Digest,
}

/// Founds a new cluster on the best that the data directory `from` holds, in `to`. `from` is left
/// as it is.
///
/// # Errors
/// [`StorageError`]: `from` is in use or holds nothing usable, `to` is not empty, or the disk fails.
/// Then nothing is at `to`.
pub fn recover_into(
    from: &Path,
    scratch: &Path,
    seat: &FirstSeat,
    to: &Path,
) -> Result<Founded, StorageError> {
    check_place(to)?;
    let mut remains = Remains::open(from, scratch)?;
    let revived = revive(&mut remains)?;
    found_anew(revived, remains.highest_term(), seat, to)
}

/// Writes the data directory `to` of the first member of a new cluster.
pub(super) fn found_anew(
    mut revived: Revived,
    highest_term: u64,
    seat: &FirstSeat,
    to: &Path,
) -> Result<Founded, StorageError> {
    check_place(to)?;
    let building = building_place(to);
    if building.exists() {
        // Of an earlier try that was cut short; it never had its name.
        fs::remove_dir_all(&building)
            .map_err(|error| StorageError::io("cannot delete", &building, error))?;
    }
    let old_end = revived.last.map_or((0, 0), |id| (id.leader_id.term, id.index));
    let old_cluster_id = revived.state.cluster_id();
    let incarnation = clock::random() | 1;
    let founding = founding(&revived, highest_term, incarnation, seat);
    let id = log_id(founding.term, founding.index);
    let (cluster_id, member_id) = (founding.cluster_id, founding.member_id);
    let membership = sole_member(id, member_id, founding.member.clone())?;
    let refounded = revived.state.refound(founding);
    revived.take_changes();
    let (digest, tasks) = (revived.state.digest(), revived.state.tasks_len() as u64);
    let meta = Meta { applied: Some(id), membership, digest };
    write_state(&building, revived, &meta)?;
    let vote = Vote::new(id.leader_id.term, member_id);
    write_log(&building, vote, id)?;
    let identity = IdentityFile::open(Files::open(building.clone())?)?;
    identity.claim(cluster_id, member_id, incarnation)?;
    identity.note(DurablePosition { vote: Some(vote), committed: Some(id) })?;
    check(&building, &meta)?;
    move_to(&building, to)?;
    let (term, index) = (id.leader_id.term, id.index);
    Ok(Founded {
        cluster_id,
        old_cluster_id,
        member_id,
        incarnation,
        term,
        index,
        old_end,
        tasks,
        refounded,
        digest,
    })
}

pub(super) fn founding(
    revived: &Revived,
    highest_term: u64,
    incarnation: Incarnation,
    seat: &FirstSeat,
) -> Founding {
    let last = revived.last.map_or((0, 0), |id| (id.leader_id.term, id.index));
    let newest = highest_term.max(last.0).max(revived.state.epoch().term);
    Founding {
        cluster_id: u128::from(clock::random()) << 64 | u128::from(clock::random()) | 1,
        member_id: revived.state.next_founder(),
        member: Member {
            name: seat.name.clone(),
            incarnation,
            peer_addr: seat.peer_addr.clone(),
            http_addr: seat.http_addr.clone(),
            grpc_addr: seat.grpc_addr.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        term: newest + TERMS_SKIPPED,
        index: last.1 + INDEXES_SKIPPED,
    }
}

fn sole_member(
    at: LogId,
    member_id: MemberId,
    member: Member,
) -> Result<StoredMembership, StorageError> {
    let voters = vec![BTreeSet::from([member_id])];
    let membership = Membership::new(voters, BTreeMap::from([(member_id, member)]));
    let membership = membership.map_err(|error| StorageError::Home(error.to_string()))?;
    Ok(StoredMembership::new(Some(at), membership))
}

/// Refuses a place that something is in.
fn check_place(to: &Path) -> Result<(), StorageError> {
    let empty = match fs::read_dir(to) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(StorageError::io("cannot look into", to, error)),
    };
    if empty { Ok(()) } else { Err(StorageError::NotEmpty { dir: to.to_owned() }) }
}

/// Beside the place, on the same disk.
fn building_place(to: &Path) -> PathBuf {
    let name = to.file_name().map(|name| name.to_string_lossy().into_owned());
    to.with_file_name(format!(".{}.unfinished", name.unwrap_or_default()))
}

/// The state, as a snapshot and as a home.
fn write_state(building: &Path, revived: Revived, meta: &Meta) -> Result<(), StorageError> {
    make_dir(building)?;
    let (snapshots, _) = SnapshotStore::open(Files::open(building.join(SNAPSHOT_DIR))?)?;
    let mut writer = snapshots.begin_writing(meta)?;
    revived.write(&mut writer)?;
    // The digest must be that of the rows: what is written is what was counted.
    let snapshot = snapshots.publish(meta.clone(), writer.finish()?)?;
    // A member would fill its home by itself, and complain that it had to.
    let home = Home::open(&building.join(HOME_DIR), CACHE_BYTES)?;
    install::fill(&home, &snapshot).map(drop)
}

/// A log without entries that goes on behind `id`, with a vote in its term.
fn write_log(building: &Path, vote: Vote, id: LogId) -> Result<(), StorageError> {
    let dir = building.join(WAL_DIR);
    make_dir(&dir)?;
    let mut wal = Wal::open(&dir, WalOptions::default())?;
    wal.write(WalOp::Vote(vote))?;
    wal.write(WalOp::Purge(id))?;
    let (done, flushed) = sync_channel(1);
    wal.flush(FlushDone::new(move |result| drop(done.send(result))))?;
    flushed.recv().map_err(|_| StorageError::Io {
        what: format!("flushing {}", dir.display()),
        source: std::io::ErrorKind::BrokenPipe.into(),
    })??;
    Ok(())
}

/// Opens the directory as its member will.
fn check(building: &Path, meta: &Meta) -> Result<(), StorageError> {
    let disk = Disk::Dir(building.to_owned());
    let opened = recover(&disk, WalOptions::default(), CACHE_BYTES)?;
    let found = opened.current.meta();
    if found == *meta && opened.report.home == HomeFate::Intact {
        return Ok(());
    }
    let why = format!("written at {:?}, it opens at {:?}", meta.applied, found.applied);
    Err(StorageError::Home(why))
}

fn move_to(building: &Path, to: &Path) -> Result<(), StorageError> {
    fs::rename(building, to).map_err(|error| StorageError::io("cannot move to", to, error))?;
    match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        Some(_) | None => sync_dir(Path::new(".")),
    }
}
