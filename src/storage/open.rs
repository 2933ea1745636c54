//! A member's storage as the rest of the program gets it.

use std::sync::Arc;

use super::alarm::Alarm;
use super::blocking::Blocking;
use super::error::StorageError;
use super::events::EVENTS_MAX;
use super::identity::{DirLock, Identity, IdentityFile};
use super::log::{LogLimits, LogStore};
use super::machine::StateMachine;
use super::recovery::{Disk, Recovered, RecoveryReport, recover};
use super::shared_home::SharedHome;
use super::snapshot::SnapshotStore;
use super::view::Machine;
use super::wal::WalOptions;
use crate::model::{Incarnation, MemberId};

/// How storage is opened.
#[derive(Debug, Clone)]
pub struct StorageOptions {
    /// Where.
    pub disk: Disk,
    /// Sizes of the log's files.
    pub wal: WalOptions,
    /// Bounds of the log in memory.
    pub log: LogLimits,
    /// sled's cache, in bytes.
    pub home_cache_bytes: u64,
    /// Events kept for followers.
    pub events_max: usize,
}

impl StorageOptions {
    /// The usual sizes.
    #[must_use]
    pub fn new(disk: Disk) -> Self {
        Self {
            disk,
            wal: WalOptions::default(),
            log: LogLimits::default(),
            // Payloads alone are read from it; what is written lies at the end of its tree.
            home_cache_bytes: 16 << 20,
            events_max: EVENTS_MAX,
        }
    }
}

/// An open data directory. `log` and `machine` go to openraft; the rest is for everybody.
#[derive(Debug)]
pub struct Storage {
    /// Who this directory is; `None` until [`Storage::claim`].
    pub identity: Option<Identity>,
    /// openraft's log.
    pub log: LogStore,
    /// openraft's state machine.
    pub machine: StateMachine,
    /// The read handle.
    pub view: Arc<Machine>,
    /// Snapshot files, for the network.
    pub snapshots: SnapshotStore,
    /// What opening found.
    pub report: RecoveryReport,
    /// Keeps the directory locked and the identity up to date; lives as long as the member.
    pub keeper: Keeper,
}

/// Holds a data directory for this process.
#[derive(Debug)]
pub struct Keeper {
    identity: IdentityFile,
    log: LogStore,
    blocking: Blocking,
    _lock: Option<DirLock>,
}

impl Keeper {
    /// Flushes the log and records how far it is, for a clean stop.
    ///
    /// # Errors
    /// A fault of the disk.
    pub async fn close(&self) -> Result<(), StorageError> {
        self.log.flush().await?;
        let (identity, position) = (self.identity.clone(), self.log.durable_position());
        self.blocking.run(move || identity.note(position)).await
    }
}

impl Storage {
    /// Opens a data directory, repairing what may be repaired. Must be called inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`StorageError`] when this member must not run on this disk; it says what to do.
    pub async fn open(options: StorageOptions) -> Result<Self, StorageError> {
        let blocking = match options.disk {
            Disk::Dir(_) => Blocking::Threads,
            Disk::Simulated(_) => Blocking::Inline,
        };
        let StorageOptions { disk, wal, log: limits, home_cache_bytes, events_max } = options;
        let recovered = blocking.run(move || recover(&disk, wal, home_cache_bytes)).await?;
        let Recovered { lock, identity, wal, snapshots, home, current, report } = recovered;
        tracing::info!(?report, "opened the data directory");
        let alarm = Alarm::default();
        let log = LogStore::new(wal, limits, alarm.clone());
        // What recovery wrote, and what an earlier run wrote but may not have flushed.
        log.flush().await?;
        let newest = snapshots.current().and_then(|snapshot| snapshot.position().applied);
        log.enforce_purge_floor(newest);
        keep_identity(&log, &identity, &alarm, blocking);
        identity.note(log.durable_position())?;
        let home = match blocking {
            Blocking::Threads => SharedHome::behind(home, alarm.clone()).map_err(|source| {
                StorageError::Io { what: "starting the thread of the home".to_owned(), source }
            })?,
            Blocking::Inline => SharedHome::new(home),
        };
        let view = Arc::new(Machine::new(current, home, events_max, alarm));
        let machine = StateMachine {
            machine: Arc::clone(&view),
            snapshots: snapshots.clone(),
            log: log.clone(),
            identity: identity.clone(),
            blocking,
        };
        let keeper = Keeper { identity, log: log.clone(), blocking, _lock: lock };
        let identity = keeper.identity.get();
        Ok(Self { identity, log, machine, view, snapshots, report, keeper })
    }

    /// Makes an unclaimed directory that of a member, durably. Must come before the member's first
    /// answer to any peer.
    ///
    /// # Errors
    /// [`StorageError::AlreadyClaimed`], or a fault of the disk.
    pub fn claim(
        &mut self,
        cluster_id: u128,
        member_id: MemberId,
        incarnation: Incarnation,
    ) -> Result<&Identity, StorageError> {
        if let Some(identity) = &self.identity {
            return Err(StorageError::AlreadyClaimed { member_id: identity.member_id });
        }
        let identity = self.keeper.identity.claim(cluster_id, member_id, incarnation)?;
        Ok(self.identity.insert(identity))
    }
}

/// Brings the identity file up to date whenever a vote has become durable. The vote is answered
/// without waiting for it: the file may be behind.
fn keep_identity(log: &LogStore, identity: &IdentityFile, alarm: &Alarm, blocking: Blocking) {
    let (identity, alarm) = (identity.clone(), alarm.clone());
    log.set_on_vote(Box::new(move |position| {
        let (identity, alarm) = (identity.clone(), alarm.clone());
        blocking.start(move || {
            if let Err(error) = identity.note(position) {
                alarm.raise(&error.to_string());
            }
        });
    }));
}
