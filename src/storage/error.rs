//! What can go wrong when a data directory is opened or used, in words for its operator.

use std::io;
use std::path::{Path, PathBuf};

use super::codec::CodecError;
use crate::state::Fatal;

/// This member's disk or data is broken. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process has the data directory open.
    #[error("the data directory {dir} is in use by another process; stop that one first")]
    InUse {
        /// Which directory.
        dir: PathBuf,
    },
    /// The log is behind what the identity file promises, or gone: the disk lost acknowledged
    /// writes, was swapped, or was restored from a copy.
    #[error(
        "this disk went back in time ({what}). The member must not vote under its old number: \
         move the data directory away, start it empty, and let it join again as a new member"
    )]
    DiskWentBack {
        /// What is behind what.
        what: String,
    },
    /// There is a log but no identity.
    #[error(
        "the data directory holds a log but no identity file. Restore the file `identity` if it \
         was moved; otherwise move the directory away and let the member join again as a new one"
    )]
    IdentityMissing,
    /// A directory belongs to one member for good.
    #[error("the data directory already belongs to member {member_id}")]
    AlreadyClaimed {
        /// Whose it is.
        member_id: crate::model::MemberId,
    },
    /// A record of the log that is not its last one does not decode.
    #[error(
        "the log is damaged: {cause}. Nothing was changed. If the other members are healthy, move \
         the data directory away and let this member join again as a new one; otherwise restore \
         the disk first"
    )]
    LogDamaged {
        /// What the log engine found.
        cause: String,
    },
    /// A file that must be right is not.
    #[error("{name} is damaged: {cause}")]
    FileDamaged {
        /// Which file.
        name: String,
        /// What is wrong.
        cause: String,
    },
    /// The state is neither in the home nor in a snapshot, and the log no longer starts at the
    /// beginning.
    #[error(
        "the state cannot be rebuilt: the log starts after index {purged}, and no local snapshot \
         reaches that far. Move the data directory away and let this member join again as a new one"
    )]
    StateLost {
        /// The last index no longer in the log.
        purged: u64,
    },
    /// There is nothing here to found a new cluster on.
    #[error("{dir} holds nothing to recover: {why}")]
    NothingHere {
        /// Which directory.
        dir: PathBuf,
        /// What is missing.
        why: String,
    },
    /// A new data directory is made where there is none.
    #[error("{dir} is not empty; name a directory that is, or one that is not there yet")]
    NotEmpty {
        /// Which directory.
        dir: PathBuf,
    },
    /// The home of the state failed.
    #[error("the state's home failed: {0}")]
    Home(String),
    /// The home is being replaced by a leader's snapshot; ask again.
    #[error("the state is being replaced by a snapshot; try again")]
    Installing,
    /// A value stored by a newer program, or damage.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The state machine refuses its own data.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The operating system said no.
    #[error("{what}: {source}{}", hint(.source))]
    Io {
        /// What was being done to which file.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl StorageError {
    /// An IO error while `doing` something to `path`.
    pub(super) fn io(doing: &str, path: &Path, source: io::Error) -> Self {
        Self::Io { what: format!("{doing} {}", path.display()), source }
    }
}

impl From<io::Error> for StorageError {
    fn from(source: io::Error) -> Self {
        Self::Io { what: "disk work".to_owned(), source }
    }
}

impl From<StorageError> for io::Error {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io { what, source } => {
                let hint = hint(&source);
                Self::new(source.kind(), format!("{what}: {source}{hint}"))
            }
            other => Self::other(other),
        }
    }
}

/// What an operator can do about an IO error, as a suffix to its message.
pub(super) fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (the disk is full: make room, then start this member again)"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            " (the file system is read-only: check the disk, then start this member again)"
        }
        _ => "",
    }
}
