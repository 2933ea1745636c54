//! Whether a snapshot can be restored: it is loaded into a state of its own, which is dropped
//! again. The member's own state and home are not touched.

use super::error::StorageError;
use super::install::check_digest;
use super::snapshot::SnapshotData;
use crate::state::{Digest, State};

/// A snapshot that was loaded whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rehearsal {
    /// The last log entry in it.
    pub index: u64,
    /// Its length.
    pub bytes: u64,
    /// What its rows give, which is what its header says.
    pub digest: Digest,
}

/// Loads `snapshot` with every check there is. Blocks on the disk, and holds a second state in
/// memory meanwhile.
///
/// # Errors
/// [`StorageError`] when it is damaged, cannot be decoded, or gives another digest than it says.
pub fn rehearse(snapshot: &SnapshotData) -> Result<Rehearsal, StorageError> {
    let mut reader = snapshot.reader()?;
    let mut state = State::default();
    while let Some(rows) = reader.next_block()? {
        for (key, value) in rows {
            state.load_row(&key, &value)?;
        }
    }
    check_digest(&state, reader.meta())?;
    let index = snapshot.position().applied.map_or(0, |id| id.index);
    Ok(Rehearsal { index, bytes: snapshot.len(), digest: state.digest() })
}
