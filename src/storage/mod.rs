//! openraft's storage contract on real disks: the log (fdatasync before acknowledge), the state
//! machine's durable home, snapshots, identity, recovery.

mod runtime;
mod types;

pub use runtime::Runtime;
pub use types::{
    EncodedEntry, EntryReply, LogId, Membership, RaftEntry, RaftPayload, StoredMembership,
    TypeConfig, Vote,
};
