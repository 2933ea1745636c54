//! openraft's storage contract on real disks: the log (fdatasync before acknowledge), the state
//! machine's durable home, snapshots, identity, recovery.
//!
//! Invariants: an entry or a vote is acknowledged after its fdatasync and not before; the first IO
//! error stops the member; purged <= newest fsynced snapshot <= applied; the home may be deleted at
//! any moment without losing anything.

mod alarm;
mod backup;
mod blocking;
pub mod codec;
mod error;
mod events;
mod files;
mod flusher;
mod home;
mod identity;
mod install;
mod log;
mod machine;
mod offline;
mod open;
mod pages;
mod recovery;
mod runtime;
mod shared_home;
mod sim;
mod snapshot;
mod snapshot_file;
mod types;
mod view;
mod wal;
mod wal_tail;

#[cfg(test)]
mod tests;

pub use alarm::Alarm;
pub use backup::{Backup, BackupDir, BackupHead, BackupInfo, BackupReceiver};
pub use error::StorageError;
pub use events::{EVENTS_MAX, EventBatch, EventFollower, EventPosition, EventRing};
pub use flusher::LogStats;
pub use identity::Identity;
pub use log::{LogLimits, LogStore};
pub use machine::{SnapshotBuilder, StateMachine};
pub use offline::{
    Assessment, DirReport, End, FirstSeat, Founded, HomeReport, Rehearsal, SnapshotReport,
    VoterReport, assess, inspect, recover_into, rehearse, restore_into,
};
pub use open::{Keeper, Storage, StorageOptions};
pub use recovery::{Disk, HomeFate, RecoveryReport};
pub use runtime::Runtime;
pub use sim::{SimDisk, SimFault, SimOptions};
pub use snapshot::{SnapshotData, SnapshotReceiver, SnapshotStore};
pub use types::{
    EncodedEntry, EntryReply, LogId, Membership, RaftEntry, RaftPayload, SnapshotMeta,
    StoredMembership, TypeConfig, Vote,
};
pub use view::Machine;
pub use wal::WalOptions;
