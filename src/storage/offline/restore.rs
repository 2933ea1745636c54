//! What a backup is worth: loaded into a scratch state, and made into a new cluster.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::refound::{FirstSeat, Founded, found_anew, founding};
use super::revive::{Base, Revived};
use crate::storage::backup::{self, BackupInfo};
use crate::storage::error::StorageError;

/// What a rehearsal found.
#[derive(Debug, Clone)]
pub struct Rehearsal {
    /// What the backup says of itself; all of it was checked.
    pub info: BackupInfo,
    /// Tasks in it, those that are over included.
    pub tasks: u64,
    /// Tasks that are not over.
    pub open: u64,
    /// Nodes in it.
    pub nodes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Does with a backup what a restore does, in memory: checks every byte, loads every row into a
/// scratch state, compares its digest, and founds a new cluster on it.
///
/// # Errors
/// [`StorageError`]: why it could not be restored.
pub fn rehearse(path: &Path) -> Result<Rehearsal, StorageError> {
    let started = Instant::now();
    let (info, mut revived) = load(path)?;
    let (tasks, nodes) = (revived.state.tasks_len() as u64, revived.state.nodes_len() as u64);
    let seat = FirstSeat::default();
    let refounded = revived.state.refound(founding(&revived, info.head.term, 1, &seat));
    Ok(Rehearsal { info, tasks, open: refounded.open, nodes, took: started.elapsed() })
}

/// Founds a new cluster on a backup, in `to`.
///
/// # Errors
/// [`StorageError`]: the backup is damaged, `to` is not empty, or the disk fails. Then nothing is at
/// `to`.
pub fn restore_into(path: &Path, seat: &FirstSeat, to: &Path) -> Result<Founded, StorageError> {
    let (info, revived) = load(path)?;
    found_anew(revived, info.head.term, seat, to)
}

fn load(path: &Path) -> Result<(BackupInfo, Revived), StorageError> {
    let (info, snapshot) = backup::open(path)?;
    let revived = Revived::load(Base::File(snapshot))?;
    let found = revived.state.cluster_id();
    if found != info.head.cluster_id {
        let name = path.display().to_string();
        let promised = info.head.cluster_id;
        let cause = format!("it says it is of cluster {promised:032x}, its rows of {found:032x}");
        return Err(StorageError::FileDamaged { name, cause });
    }
    Ok((info, revived))
}
