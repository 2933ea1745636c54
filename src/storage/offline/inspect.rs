//! What a data directory holds, for an operator who has to choose among several.

use std::path::{Path, PathBuf};

use super::remains::{HomeFound, Remains};
use super::revive::{Revived, revive};
use crate::model::Epoch;
use crate::state::Digest;
use crate::storage::error::StorageError;
use crate::storage::{Identity, LogId, Membership, Vote};

/// What was found in one data directory.
#[derive(Debug, Clone)]
pub struct DirReport {
    /// Which directory.
    pub dir: PathBuf,
    /// Whose it was; `None` when the file is missing or damaged.
    pub identity: Option<Identity>,
    /// The vote in its log.
    pub vote: Option<Vote>,
    /// The first index in the log; meaningless in an empty one.
    pub log_first: u64,
    /// The last entry, or the point up to which the log was purged.
    pub log_last: Option<LogId>,
    /// The last entry that the log says is committed.
    pub log_committed: Option<LogId>,
    /// The log opens and holds at least what the identity file saw in it, so that it counts as a
    /// voter's whole log.
    pub log_whole: bool,
    /// Snapshot files, newest first.
    pub snapshots: Vec<SnapshotReport>,
    /// The home of the state.
    pub home: HomeReport,
    /// What a new cluster would begin from; `None` when nothing can be made of this directory.
    pub end: Option<End>,
    /// Everything that is not as a healthy member leaves it.
    pub damage: Vec<String>,
}

/// A snapshot file.
#[derive(Debug, Clone)]
pub struct SnapshotReport {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// The last entry in it; `None` when it is damaged.
    pub last: Option<LogId>,
    /// Rows.
    pub rows: u64,
}

/// The home of the state, by its own account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HomeReport {
    /// There is none.
    Empty,
    /// It opens.
    At {
        /// The last entry in it.
        applied: Option<LogId>,
        /// Rows.
        rows: u64,
    },
    /// It does not open.
    Unusable(String),
}

/// The state at the end of what a directory holds.
#[derive(Debug, Clone)]
pub struct End {
    /// The last entry in it.
    pub last: LogId,
    /// The last entry that this directory knows to be committed: it was applied, or marked so.
    pub committed: Option<LogId>,
    /// The cluster's id, by the state.
    pub cluster_id: u128,
    /// The members, by the newest membership in it.
    pub membership: Membership,
    /// The open epoch.
    pub epoch: Epoch,
    /// Its digest.
    pub digest: Digest,
    /// Tasks, those that are over included.
    pub tasks: u64,
    /// Tasks that are not over.
    pub open: u64,
    /// Executions on nodes.
    pub live: u64,
    /// Nodes.
    pub nodes: u64,
    /// Time of the newest entry, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Looks into a data directory. Log and state are copied below `scratch` for it; nothing in `dir`
/// changes.
///
/// # Errors
/// [`StorageError`] when a member runs on it, it is no data directory, or it cannot be read. Damage
/// is no error but part of the report.
pub fn inspect(dir: &Path, scratch: &Path) -> Result<DirReport, StorageError> {
    let mut remains = Remains::open(dir, scratch)?;
    let end = match revive(&mut remains) {
        Ok(revived) => end_of(&remains, &revived),
        Err(error) => {
            remains.damage.push(format!("nothing can be made of it: {error}"));
            None
        }
    };
    let snapshots = remains.snapshots.iter().map(|found| SnapshotReport {
        name: found.name.clone(),
        bytes: found.file.len(),
        last: found.meta.as_ref().ok().and_then(|meta| meta.applied),
        rows: found.meta.as_ref().map_or(0, |meta| meta.digest.rows),
    });
    let home = match &remains.home {
        HomeFound::Empty => HomeReport::Empty,
        HomeFound::At(_, meta) => HomeReport::At { applied: meta.applied, rows: meta.digest.rows },
        HomeFound::Unusable(why) => HomeReport::Unusable(why.clone()),
    };
    let log = remains.log;
    Ok(DirReport {
        dir: dir.to_owned(),
        identity: remains.identity.clone(),
        vote: log.vote,
        log_first: log.purged.map_or(0, |id| id.index + 1),
        log_last: log.last,
        log_committed: log.committed,
        log_whole: remains.log_whole,
        snapshots: snapshots.collect(),
        home,
        end,
        damage: remains.damage,
    })
}

fn end_of(remains: &Remains, revived: &Revived) -> Option<End> {
    let state = &revived.state;
    let applied = match &remains.home {
        HomeFound::At(_, meta) => meta.applied,
        HomeFound::Empty | HomeFound::Unusable(_) => None,
    };
    let snapshots = remains.snapshots.iter().filter_map(|found| found.meta.as_ref().ok()?.applied);
    let last = revived.last?;
    let committed = snapshots.chain(applied).chain(remains.log.committed).max();
    let live = state.live_tasks().count() as u64;
    Some(End {
        last,
        committed: committed.map(|id| id.min(last)),
        cluster_id: state.cluster_id(),
        membership: revived.membership.membership().clone(),
        epoch: state.epoch(),
        digest: state.digest(),
        tasks: state.tasks_len() as u64,
        open: state.waiting_len() + live,
        live,
        nodes: state.nodes_len() as u64,
        at_ms: state.counters().last_at_ms,
    })
}
