//! Whether this member's state could be restored from its snapshots: a fresh one is taken, loaded
//! into a state of its own and compared with what the member had at that index.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::core::Core;
use crate::state::Digest;
use crate::storage::{self, SnapshotData, StorageError};

/// How long the snapshot may take.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks at whether it is there.
const PAUSE: Duration = Duration::from_millis(20);

/// A snapshot that was taken and loaded again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rehearsed {
    /// The last log entry in it.
    pub index: u64,
    /// Length of its file.
    pub bytes: u64,
    /// What its rows give.
    pub digest: Digest,
    /// What this member's own state gave at that index, when that is still known.
    pub own: Option<Digest>,
    /// How long taking it took.
    pub snapshot_took: Duration,
    /// How long loading it took.
    pub load_took: Duration,
}

/// Why a rehearsal failed.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// Raft does not run here, or gave up.
    #[error("no snapshot can be taken: {0}")]
    NoSnapshot(String),
    /// It takes too long.
    #[error("no snapshot after {} s", SNAPSHOT_TIMEOUT.as_secs())]
    Timeout,
    /// It is there and cannot be restored.
    #[error("the snapshot cannot be restored: {0}")]
    Damaged(#[from] StorageError),
}

pub(crate) async fn rehearse(core: &Core) -> Result<Rehearsed, RehearsalError> {
    let started = Instant::now();
    let snapshot = fresh(core).await?;
    let snapshot_took = started.elapsed();
    let started = Instant::now();
    let loading = tokio::task::spawn_blocking(move || storage::rehearse(&snapshot));
    let loaded = loading.await.map_err(|error| RehearsalError::NoSnapshot(error.to_string()))??;
    Ok(Rehearsed {
        index: loaded.index,
        bytes: loaded.bytes,
        digest: loaded.digest,
        own: core.digests.at(loaded.index),
        snapshot_took,
        load_took: started.elapsed(),
    })
}

/// A snapshot that holds everything applied before the call.
async fn fresh(core: &Core) -> Result<SnapshotData, RehearsalError> {
    let Some(raft) = core.raft() else {
        let text = "this member belongs to no cluster yet";
        return Err(RehearsalError::NoSnapshot(text.to_owned()));
    };
    let wanted = core.machine.applied();
    let deadline = Instant::now() + SNAPSHOT_TIMEOUT;
    let mut asked = false;
    loop {
        let newest = core.snapshots.current();
        if let Some(snapshot) = newest
            && snapshot.meta().last_log_id >= wanted
        {
            return Ok(snapshot);
        }
        if !asked {
            let trigger = raft.trigger().snapshot().await;
            trigger.map_err(|fatal| RehearsalError::NoSnapshot(fatal.to_string()))?;
            asked = true;
        }
        if Instant::now() >= deadline {
            return Err(RehearsalError::Timeout);
        }
        sleep(PAUSE).await;
    }
}
