//! Tells a torn tail of the log from damage in its middle, before the engine opens it.
//!
//! The engine cuts a tail that ends early or in zeros, and refuses everything else. But a power cut
//! may leave holes in what was never flushed: blocks reach the disk in any order, so zeros can be
//! followed by data (seen on ext4 in the power cut trials). Three facts tell such a tail: only the
//! last file can have one; a block that was not written reads as zeros; and since a flush begins
//! only after the one before it ended, nothing valid stands behind the mark that ends the torn
//! flush. Whatever does not look like this is left for the engine to refuse.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use raft_log::codeq::Decode;
use raft_log::{RaftLogRecord, WALRecord};

use super::error::StorageError;
use super::wal::Engine;

/// The least that a disk writes as a whole.
const SECTOR: usize = 512;
/// Fewer zeros than this at the start of the damage may be part of a record.
const ZEROS_MIN: usize = 32;

type Record = RaftLogRecord<Engine>;

/// Cuts a torn tail off the newest file of the log in `dir`. Gives how many bytes were cut.
pub(super) fn repair(dir: &Path) -> Result<u64, StorageError> {
    for path in chunks(dir)?.into_iter().rev() {
        let bytes =
            fs::read(&path).map_err(|error| StorageError::io("cannot read", &path, error))?;
        // Made but not written to; the engine deletes it, and the one before is the last.
        if bytes.iter().all(|byte| *byte == 0) {
            continue;
        }
        let Some(damage) = first_damage(&bytes) else { return Ok(0) };
        if !is_torn(&bytes, damage) {
            return Ok(0);
        }
        let cut = (bytes.len() - damage) as u64;
        tracing::warn!(path = %path.display(), cut, "cut a torn tail off the log");
        let file = File::options().write(true).open(&path);
        file.and_then(|file| {
            file.set_len(damage as u64)?;
            file.sync_all()
        })
        .map_err(|error| StorageError::io("cannot cut", &path, error))?;
        return Ok(cut);
    }
    Ok(0)
}

fn chunks(dir: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let fail = |error| StorageError::io("cannot list", dir, error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|ending| ending == "wal") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Decodes the record at `offset`; gives where the next one starts.
fn record_at(bytes: &[u8], offset: usize) -> Option<(Record, usize)> {
    let mut rest = bytes.get(offset..).filter(|rest| !rest.is_empty())?;
    let record = Record::decode(&mut rest).ok()?;
    Some((record, bytes.len() - rest.len()))
}

/// Where the first record starts that does not decode, if the file does not just end there.
fn first_damage(bytes: &[u8]) -> Option<usize> {
    let mut offset = 0;
    while let Some((_, next)) = record_at(bytes, offset) {
        offset = next;
    }
    (offset < bytes.len()).then_some(offset)
}

fn is_torn(bytes: &[u8], damage: usize) -> bool {
    has_hole(bytes, damage) && !goes_on(bytes, damage)
}

/// Whether a sector at or after the damage was never written.
fn has_hole(bytes: &[u8], damage: usize) -> bool {
    let first = damage / SECTOR * SECTOR;
    (first..bytes.len()).step_by(SECTOR).any(|start| {
        let sector = &bytes[start.max(damage)..bytes.len().min(start + SECTOR)];
        sector.len() >= ZEROS_MIN && sector.iter().all(|byte| *byte == 0)
    })
}

/// Whether a flush was begun after the damaged one: then that one had ended, and the damage is not
/// of a power cut.
fn goes_on(bytes: &[u8], damage: usize) -> bool {
    let mut offset = damage;
    let mut marked = false;
    while offset < bytes.len() {
        // Every record starts with a small number in four bytes.
        let starts = bytes
            .get(offset..offset + 4)
            .is_some_and(|head| head[..3] == [0, 0, 0] && head[3] <= 5);
        match starts.then(|| record_at(bytes, offset)).flatten() {
            Some(_) if marked => return true,
            Some((record, next)) => {
                marked =
                    matches!(&record, WALRecord::Checkpoint(state) if state.user_data.is_some());
                offset = next;
            }
            None => offset += 1,
        }
    }
    false
}
