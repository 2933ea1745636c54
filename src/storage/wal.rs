//! The ordered log under [`super::LogStore`]: one sequence for vote, entries, committed,
//! truncations and purges, written in memory first and made durable by flushes.
//!
//! Two implementations: `raft-log`'s chunked files, and the simulated disk. Neither batches by
//! itself: the caller keeps one flush in flight, and what arrives meanwhile shares the next.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::codeq::{Decode, Encode};
use raft_log::{Config, RaftLog};

use super::codec;
use super::error::StorageError;
use super::sim::SimHandle;
use super::{LogId, RaftEntry, RaftPayload, Vote};

/// The engine blocks its callers above this many queued bytes. Ours come from its own flush
/// thread, so it must never be reached; [`super::LogStore`] bounds what is unflushed far below.
const ENGINE_QUEUE_BYTES_MAX: usize = 8 << 30;

/// Where the log stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct WalState {
    pub(super) vote: Option<Vote>,
    /// Of the last entry, or the purge point when there are none.
    pub(super) last: Option<LogId>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
}

/// One record of the log.
#[derive(Debug, Clone)]
pub(super) enum WalOp {
    Vote(Vote),
    Commit(LogId),
    Append(RaftEntry),
    TruncateAfter(Option<LogId>),
    Purge(LogId),
    /// Ends what one flush covers; the number of the flush.
    Mark(u64),
}

/// What to do when a flush ends.
pub(super) struct FlushDone(Box<dyn FnOnce(io::Result<()>) + Send>);

impl FlushDone {
    pub(super) fn new(done: impl FnOnce(io::Result<()>) + Send + 'static) -> Self {
        Self(Box::new(done))
    }

    pub(super) fn call(self, result: io::Result<()>) {
        (self.0)(result);
    }
}

impl raft_log::Callback for FlushDone {
    fn send(self, result: io::Result<()>) {
        self.call(result);
    }
}

/// Sizes of the log's files.
#[derive(Debug, Clone, Copy)]
pub struct WalOptions {
    /// A file is closed and the next one opened at this size. The entries of the open file are
    /// kept in memory.
    pub chunk_bytes: usize,
    /// Recent entries kept in memory beyond those of the open file.
    pub cache_bytes: usize,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { chunk_bytes: 8 << 20, cache_bytes: 8 << 20 }
    }
}

/// See the module's description.
pub(super) enum Wal {
    Files(Box<RaftLog<Engine>>),
    Simulated(SimHandle),
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(_) => f.write_str("Wal::Files"),
            Self::Simulated(_) => f.write_str("Wal::Simulated"),
        }
    }
}

impl Wal {
    /// Opens the log in `dir`, which exists: replays it and cuts a torn tail off its last file.
    pub(super) fn open(dir: &Path, options: WalOptions) -> Result<Self, StorageError> {
        let mut config = Config::new(dir.display());
        config.wal.chunk_max_size = Some(options.chunk_bytes);
        config.wal.read_buffer_size = Some(4 << 20);
        // Its default waits a millisecond before every sync.
        config.wal.flush_batch_wait = Some(std::time::Duration::ZERO);
        config.wal.flush_queue_max_bytes = Some(ENGINE_QUEUE_BYTES_MAX);
        config.log_cache_max_items = Some(usize::MAX);
        config.log_cache_capacity = Some(options.cache_bytes);
        super::wal_tail::repair(dir)?;
        let log = RaftLog::open(Arc::new(config)).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StorageError::InUse { dir: dir.to_owned() },
            io::ErrorKind::StorageFull
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotFound => StorageError::io("cannot open the log in", dir, error),
            _ => StorageError::LogDamaged { cause: error.to_string() },
        })?;
        Ok(Self::Files(Box::new(log)))
    }

    pub(super) fn state(&self) -> io::Result<WalState> {
        match self {
            Self::Files(log) => {
                let state = log.log_state();
                Ok(WalState {
                    vote: state.vote().map(|vote| vote.0),
                    last: state.last().map(|id| id.0),
                    committed: state.committed().map(|id| id.0),
                    purged: state.purged().map(|id| id.0),
                })
            }
            Self::Simulated(disk) => disk.wal_state(),
        }
    }

    /// Writes a record; it is durable once a later flush completes.
    pub(super) fn write(&mut self, op: WalOp) -> io::Result<()> {
        let log = match self {
            Self::Simulated(disk) => return disk.wal_write(op),
            Self::Files(log) => log,
        };
        match op {
            WalOp::Vote(vote) => log.save_vote(EngineVote(vote)),
            WalOp::Commit(id) => log.commit(EngineLogId(id)),
            WalOp::Append(entry) => {
                log.append([(EngineLogId(entry.log_id), EnginePayload(entry.payload))])
            }
            WalOp::TruncateAfter(keep) => log.truncate(keep.map_or(0, |id| id.index + 1)),
            WalOp::Purge(upto) => log.purge(EngineLogId(upto)),
            WalOp::Mark(number) => log.save_user_data(Some(number)),
        }
        .map(|_segment| ())
    }

    /// Starts making everything written so far durable; `done` is called, on another thread or
    /// task, when that ended.
    pub(super) fn flush(&mut self, done: FlushDone) -> io::Result<()> {
        match self {
            Self::Files(log) => log.flush(true, Some(done)),
            Self::Simulated(disk) => disk.wal_flush(done),
        }
    }

    /// Reads entries from `start` on: fewer than `end - start` when `bytes_max` is reached or the
    /// log ends, but at least one if there is one.
    pub(super) fn read(
        &self,
        start: u64,
        end: u64,
        bytes_max: usize,
    ) -> io::Result<Vec<RaftEntry>> {
        let mut bytes = 0;
        let mut entries = Vec::new();
        let mut take = |entry: RaftEntry| {
            bytes += codec::payload_bytes(&entry.payload);
            entries.push(entry);
            bytes < bytes_max
        };
        match self {
            Self::Files(log) => {
                for item in log.read(start, end) {
                    let (id, payload) = item?;
                    if !take(RaftEntry { log_id: id.0, payload: payload.0 }) {
                        break;
                    }
                }
            }
            Self::Simulated(disk) => disk.wal_read(|log| {
                let _full = log.range(start..end).all(|(_, entry)| take(entry.clone()));
            })?,
        }
        Ok(entries)
    }
}

/// Our types in the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Engine;

impl raft_log::Types for Engine {
    type LogId = EngineLogId;
    type LogPayload = EnginePayload;
    type Vote = EngineVote;
    type Callback = FlushDone;
    type UserData = u64;

    fn log_index(id: &EngineLogId) -> u64 {
        id.0.index
    }

    fn payload_size(payload: &EnginePayload) -> u64 {
        codec::payload_bytes(&payload.0) as u64
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EngineLogId(LogId);
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd)]
pub(super) struct EngineVote(Vote);
#[derive(Debug, Clone)]
pub(super) struct EnginePayload(RaftPayload);

impl Encode for EngineLogId {
    fn encode<W: Write>(&self, to: W) -> io::Result<usize> {
        write_framed(to, &codec::encode_log_id(&self.0))
    }
}

impl Decode for EngineLogId {
    fn decode<R: Read>(from: R) -> io::Result<Self> {
        Ok(Self(codec::decode_log_id(&read_framed(from)?)?))
    }
}

impl Encode for EngineVote {
    fn encode<W: Write>(&self, to: W) -> io::Result<usize> {
        write_framed(to, &codec::encode_vote(&self.0))
    }
}

impl Decode for EngineVote {
    fn decode<R: Read>(from: R) -> io::Result<Self> {
        Ok(Self(codec::decode_vote(&read_framed(from)?)?))
    }
}

impl Encode for EnginePayload {
    fn encode<W: Write>(&self, to: W) -> io::Result<usize> {
        let mut bytes = Vec::with_capacity(codec::payload_bytes(&self.0));
        codec::append_payload(&mut bytes, &self.0);
        write_framed(to, &bytes)
    }
}

impl Decode for EnginePayload {
    fn decode<R: Read>(from: R) -> io::Result<Self> {
        Ok(Self(codec::decode_payload(Bytes::from(read_framed(from)?))?))
    }
}

/// Length, a check of the length, bytes. The check tells a damaged length from a torn tail: without
/// it a flipped bit could look like a record that runs past the end of the file, and the engine
/// would cut off everything after it.
fn write_framed<W: Write>(mut to: W, bytes: &[u8]) -> io::Result<usize> {
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?.to_be_bytes();
    to.write_all(&len)?;
    to.write_all(&length_check(len))?;
    to.write_all(bytes)?;
    Ok(8 + bytes.len())
}

fn length_check(len: [u8; 4]) -> [u8; 4] {
    let hash = xxhash_rust::xxh3::xxh3_64(&len).to_be_bytes();
    [hash[0], hash[1], hash[2], hash[3]]
}

fn read_framed<R: Read>(mut from: R) -> io::Result<Vec<u8>> {
    let (mut len, mut check) = ([0; 4], [0; 4]);
    from.read_exact(&mut len)?;
    from.read_exact(&mut check)?;
    if check != length_check(len) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a damaged length"));
    }
    let len = u32::from_be_bytes(len) as usize;
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}
