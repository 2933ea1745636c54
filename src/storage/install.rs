//! Fills the home and a fresh state from a snapshot.
//!
//! The home says so of itself while it is being filled, so a crash in the middle is seen at the
//! next start, and the work is done again from the snapshot file.

use bytes::Bytes;

use super::error::StorageError;
use super::home::{Home, Meta};
use super::snapshot::SnapshotData;
use crate::state::{Changes, State};

/// Rows go into the home in batches of about this size.
const BATCH_BYTES: usize = 1 << 20;

/// Replaces everything in `home` by the snapshot; gives the state that it holds.
pub(super) fn fill(home: &Home, snapshot: &SnapshotData) -> Result<State, StorageError> {
    home.begin_install()?;
    let mut reader = snapshot.reader()?;
    let mut state = State::default();
    let mut batch = Changes::default();
    let mut bytes = 0;
    while let Some(rows) = reader.next_block()? {
        for (key, value) in rows {
            state.load_row(&key, &value)?;
            bytes += key.len() + value.len();
            // A copy: a row must not keep the whole block in memory.
            batch.rows.insert(key.to_vec(), Some(Bytes::copy_from_slice(&value)));
        }
        if bytes >= BATCH_BYTES {
            home.install_rows(&std::mem::take(&mut batch))?;
            bytes = 0;
        }
    }
    check_digest(&state, reader.meta())?;
    home.write(&batch, reader.meta())?;
    Ok(state)
}

/// Loads the state from the rows of a home that says it is complete.
pub(super) fn load(home: &Home, meta: &Meta) -> Result<State, StorageError> {
    const ROWS_PER_SCAN: usize = 1024;
    let mut state = State::default();
    let mut next = Vec::new();
    loop {
        let rows = home.scan(&next, ROWS_PER_SCAN)?;
        for (key, value) in &rows {
            state.load_row(key, value)?;
        }
        match rows.last() {
            Some((last, _)) if rows.len() == ROWS_PER_SCAN => {
                next = [last.as_slice(), &[0]].concat();
            }
            Some(_) | None => break,
        }
    }
    check_digest(&state, meta)?;
    Ok(state)
}

fn check_digest(state: &State, meta: &Meta) -> Result<(), StorageError> {
    let (found, promised) = (state.digest(), meta.digest);
    if found == promised {
        Ok(())
    } else {
        Err(StorageError::Home(format!("its rows give the digest {found}, not {promised}")))
    }
}
