//! A state brought to the end of what is at hand: from a snapshot, a backup or a home, and the log
//! behind it.
//!
//! What has no log behind it is not needed: rows that the state does not keep in memory (payloads)
//! stay where they are read from, and changes lie over them.

use bytes::Bytes;

use super::remains::{HomeFound, Remains};
use crate::state::{Changes, Digest, State};
use crate::storage::error::StorageError;
use crate::storage::files::FileReader;
use crate::storage::home::{Home, Meta};
use crate::storage::snapshot_file::{SnapshotReader, SnapshotWriter};
use crate::storage::wal::Wal;
use crate::storage::{LogId, RaftPayload, StoredMembership};

const ROWS_PER_SCAN: usize = 1024;
/// Log entries are read in pieces of about this size.
const LOG_BYTES: usize = 4 << 20;

/// Where the rows begin.
#[derive(Clone)]
pub(super) enum Base {
    Nothing,
    /// A snapshot file, or the part of a backup that is one.
    File(FileReader),
    Home(Home, Meta),
}

/// See the module's description.
pub(super) struct Revived {
    pub(super) state: State,
    /// The last entry in it.
    pub(super) last: Option<LogId>,
    pub(super) membership: StoredMembership,
    base: Base,
    overlay: Changes,
}

/// Brings the state to the end of the best that a directory holds. Log and snapshots go first: they
/// are what was made durable. The home is used where it is ahead of them, or they are broken.
pub(super) fn revive(remains: &mut Remains) -> Result<Revived, StorageError> {
    let by_log = file_base(remains).map(|base| {
        let mut revived = Revived::load(base)?;
        revived.follow_log(remains)?;
        Ok(revived)
    });
    let reached = by_log.as_ref().and_then(|revived| revived.as_ref().ok()?.last);
    let ahead = match &remains.home {
        HomeFound::At(home, meta) if meta.applied > reached => {
            Some(Base::Home(home.clone(), meta.clone()))
        }
        HomeFound::At(..) | HomeFound::Empty | HomeFound::Unusable(_) => None,
    };
    if let Some(base) = ahead {
        match Revived::load(base) {
            Ok(mut revived) => {
                revived.follow_log(remains)?;
                return Ok(revived);
            }
            Err(error) => remains.damage.push(error.to_string()),
        }
    }
    match by_log {
        Some(Ok(revived)) if revived.last.is_some() => Ok(revived),
        Some(Err(error)) => Err(error),
        Some(Ok(_)) => {
            let why = "its log and its state are empty".to_owned();
            Err(StorageError::NothingHere { dir: remains.dir.clone(), why })
        }
        None => match remains.log.purged {
            Some(purged) => Err(StorageError::StateLost { purged: purged.index }),
            None => {
                let why = "neither its log, nor a snapshot, nor its state is usable".to_owned();
                Err(StorageError::NothingHere { dir: remains.dir.clone(), why })
            }
        },
    }
}

/// The newest whole snapshot that the log goes on from; nothing at all when the log begins at the
/// beginning. Without a log, the newest whole snapshot.
fn file_base(remains: &Remains) -> Option<Base> {
    let mut whole = remains.snapshots.iter().filter_map(|found| {
        let meta = found.meta.as_ref().ok()?;
        Some((meta.applied, &found.file))
    });
    let newest = whole.next().filter(|(applied, _)| *applied >= remains.log.purged);
    match newest {
        Some((_, file)) => Some(Base::File(file.clone())),
        None if remains.wal.is_some() && remains.log.purged.is_none() => Some(Base::Nothing),
        None => None,
    }
}

impl Revived {
    /// Reads all rows and checks them against the digest that belongs to them.
    pub(super) fn load(base: Base) -> Result<Self, StorageError> {
        let mut state = State::default();
        let mut rows = BaseRows::of(&base)?;
        while let Some(piece) = rows.next()? {
            for (key, value) in &piece {
                state.load_row(key, value)?;
            }
        }
        let meta = rows.meta();
        let (found, promised) = (state.digest(), meta.digest);
        if found != promised {
            let why = format!("the rows give the digest {found}, not {promised}");
            return Err(StorageError::Home(why));
        }
        let overlay = Changes::default();
        Ok(Self { state, last: meta.applied, membership: meta.membership, base, overlay })
    }

    /// Applies the log behind the base, if it goes on from there.
    fn follow_log(&mut self, remains: &mut Remains) -> Result<(), StorageError> {
        let Some(wal) = &remains.wal else { return Ok(()) };
        let Some(end) = remains.log.last else { return Ok(()) };
        if self.is_off_the_log(wal, remains.log.purged, end)? {
            let what = "the log's end is of a term that was overruled; the state has what counts";
            remains.damage.push(what.to_owned());
            return Ok(());
        }
        let expected = match &remains.home {
            HomeFound::At(_, meta) => meta.applied.map(|id| (id, meta.digest)),
            HomeFound::Empty | HomeFound::Unusable(_) => None,
        };
        let mut next = self.last.map_or(0, |id| id.index + 1);
        while next <= end.index {
            let entries = wal.read(next, end.index + 1, LOG_BYTES)?;
            if entries.is_empty() {
                let cause = format!("it has no entry {next}, but says it ends at {}", end.index);
                return Err(StorageError::LogDamaged { cause });
            }
            for entry in entries {
                if entry.log_id.index != next {
                    let cause = format!("entry {} follows {}", entry.log_id.index, next - 1);
                    return Err(StorageError::LogDamaged { cause });
                }
                self.apply(entry.log_id, entry.payload)?;
                if let Some(fault) = expected.and_then(|expected| self.differs(expected)) {
                    remains.damage.push(fault);
                }
                next += 1;
            }
            self.overlay.rows.extend(self.state.take_changes().rows);
        }
        Ok(())
    }

    /// Whether the log holds another entry where this state ends.
    fn is_off_the_log(
        &self,
        wal: &Wal,
        purged: Option<LogId>,
        end: LogId,
    ) -> Result<bool, StorageError> {
        let Some(last) = self.last.filter(|last| Some(*last) > purged) else { return Ok(false) };
        if last.index > end.index {
            return Ok(false);
        }
        let there = wal.read(last.index, last.index + 1, 1)?.pop();
        Ok(there.is_none_or(|entry| entry.log_id != last))
    }

    fn apply(&mut self, id: LogId, payload: RaftPayload) -> Result<(), StorageError> {
        match payload {
            RaftPayload::Blank => {}
            RaftPayload::Normal(bytes) => {
                self.state.apply(id.index, &bytes.0)?;
            }
            RaftPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership);
            }
        }
        self.last = Some(id);
        Ok(())
    }

    /// At the entry that the home has applied last, both must be the same state.
    fn differs(&self, (applied, digest): (LogId, Digest)) -> Option<String> {
        let found = self.state.digest();
        (self.last == Some(applied) && found != digest).then(|| {
            let index = applied.index;
            format!(
                "the home says {digest} at index {index}, the log gives {found}; the log counts"
            )
        })
    }

    /// Lays changes over what was read.
    pub(super) fn take_changes(&mut self) {
        self.overlay.rows.extend(self.state.take_changes().rows);
    }

    /// Writes every row, in key order.
    pub(super) fn write(self, writer: &mut SnapshotWriter) -> Result<(), StorageError> {
        let mut overlay = self.overlay.rows.into_iter().peekable();
        let mut base = BaseRows::of(&self.base)?;
        let mut before: Option<Bytes> = None;
        while let Some(piece) = base.next()? {
            let mut rows = Vec::with_capacity(piece.len());
            for (key, value) in piece {
                if before.as_ref().is_some_and(|before| *before >= key) {
                    return Err(StorageError::Home("its rows are not in order".to_owned()));
                }
                while let Some((fresh, value)) = overlay.next_if(|(fresh, _)| fresh[..] < key[..]) {
                    rows.extend(value.map(|value| (fresh, value)));
                }
                match overlay.next_if(|(fresh, _)| fresh[..] == key[..]) {
                    Some((fresh, changed)) => rows.extend(changed.map(|value| (fresh, value))),
                    None => rows.push((key.to_vec(), value)),
                }
                before = Some(key);
            }
            writer.rows(&rows)?;
        }
        for (key, value) in overlay {
            if let Some(value) = value {
                writer.rows(&[(key, value)])?;
            }
        }
        Ok(())
    }
}

/// The rows of a base, piece by piece, in key order.
enum BaseRows {
    Nothing,
    File(Box<SnapshotReader>),
    Home { home: Home, meta: Meta, next: Option<Vec<u8>> },
}

impl BaseRows {
    fn of(base: &Base) -> Result<Self, StorageError> {
        Ok(match base {
            Base::Nothing => Self::Nothing,
            Base::File(file) => Self::File(Box::new(SnapshotReader::open(file.clone())?)),
            Base::Home(home, meta) => {
                Self::Home { home: home.clone(), meta: meta.clone(), next: Some(Vec::new()) }
            }
        })
    }

    fn meta(&self) -> Meta {
        match self {
            Self::Nothing => Meta::default(),
            Self::File(reader) => reader.meta().clone(),
            Self::Home { meta, .. } => meta.clone(),
        }
    }

    fn next(&mut self) -> Result<Option<Vec<(Bytes, Bytes)>>, StorageError> {
        match self {
            Self::Nothing => Ok(None),
            Self::File(reader) => reader.next_block(),
            Self::Home { home, next, .. } => {
                let Some(from) = next.take() else { return Ok(None) };
                let rows = home.scan(&from, ROWS_PER_SCAN)?;
                if rows.len() == ROWS_PER_SCAN {
                    *next = rows.last().map(|(last, _)| [last.as_slice(), &[0]].concat());
                }
                let shared = rows.into_iter().map(|(key, value)| (Bytes::from(key), value));
                Ok(Some(shared.collect()))
            }
        }
    }
}
