//! What a member is told at start: its own description, how it finds the others, and its limits.

use std::time::Duration;

use super::raft_config::Timing;
use crate::model::{Member, MemberId};

/// How one member takes part in a cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How the others see it. The incarnation is filled in from the data directory.
    pub member: Member,
    /// Where its peer listener binds, `host:port`.
    pub listen_addr: String,
    /// What it does when its data directory has no identity yet.
    pub boot: Boot,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// Snapshots and the log behind them.
    pub retention: Retention,
    /// How long a proposal is held and retried before its outcome is given up.
    pub propose_timeout: Duration,
    /// How long a read waits for its index.
    pub read_timeout: Duration,
    /// How long a learner must be close behind the leader before it becomes a voter.
    pub promote_after: Duration,
    /// Bounds of the queues.
    pub limits: Limits,
    /// Changes openraft's settings after they were built. For simulations that plant a fault;
    /// production has none.
    pub tune: Option<fn(&mut openraft::Config)>,
}

impl ClusterOptions {
    /// The defaults for `member`, listening on its own peer address.
    #[must_use]
    pub fn new(member: Member) -> Self {
        Self {
            listen_addr: member.peer_addr.clone(),
            member,
            boot: Boot::Wait,
            timing: Timing::Default,
            retention: Retention::default(),
            propose_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(5),
            promote_after: Duration::from_secs(2),
            limits: Limits::default(),
            tune: None,
        }
    }
}

/// What a member without an identity does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// Waits to be told: by `cluster init` here, or by a founder elsewhere.
    Wait,
    /// Founds a cluster with its peers once `expect` of them are there; joins theirs when one of
    /// them belongs to a cluster already.
    Expect {
        /// How many founders, this member among them. All must expect the same number.
        expect: usize,
        /// Peer addresses; its own may be among them.
        peers: Vec<String>,
    },
    /// Joins the cluster that its peers belong to.
    Join {
        /// Peer addresses.
        peers: Vec<String>,
    },
}

/// When snapshots are made and how much log stays behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Log entries from one snapshot to the next.
    pub snapshot_every: u64,
    /// Log entries kept behind a snapshot, so that a short outage does not need it.
    pub keep: u64,
    /// Bytes of a snapshot that go to another member at once.
    pub piece_bytes: u64,
}

impl Retention {
    /// The same, a little longer for some members than for others: all apply the same log, and
    /// would otherwise build their snapshots at the same moment.
    #[must_use]
    pub fn staggered(self, member_id: MemberId) -> Self {
        let tenths = member_id % 4;
        Self { snapshot_every: self.snapshot_every + self.snapshot_every * tenths / 10, ..self }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { snapshot_every: 100_000, keep: 10_000, piece_bytes: 1 << 20 }
    }
}

/// Bounds of this room's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Proposals waiting to be packed; more are refused as overload.
    pub queue_proposals: usize,
    /// Their bytes.
    pub queue_bytes: usize,
    /// Entries on their way at once; the next batch forms meanwhile.
    pub entries_in_flight: usize,
    /// Bytes at which an entry is full, unless one command alone is larger.
    pub entry_bytes: usize,
    /// The largest command, in bytes.
    pub command_bytes: usize,
    /// Peer connections served at once.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_proposals: 32_768,
            queue_bytes: 256 << 20,
            entries_in_flight: 2,
            entry_bytes: 1 << 20,
            command_bytes: 64 << 20,
            connections: 1024,
        }
    }
}
