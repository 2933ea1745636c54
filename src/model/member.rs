//! A member: one Raft peer of the control plane.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Numbers a member. Never given out twice: a disk that was lost comes back under a new number.
pub type MemberId = u64;

/// A random number drawn when a data directory is made. Two directories never share one, so a
/// wiped disk that claims an old member id is recognised.
pub type Incarnation = u64;

/// What the cluster knows of a member. Stored in the Raft membership (as it was at the join) and
/// in the state machine (as last announced); the second wins when they differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The operator's name for it, unique among current members.
    pub name: String,
    /// The data directory it runs on.
    pub incarnation: Incarnation,
    /// `host:port` other members reach it at.
    pub peer_addr: String,
    /// `host:port` of its REST API.
    pub http_addr: String,
    /// `host:port` of its gRPC API; empty when it serves none.
    pub grpc_addr: String,
    /// The version of the program it runs.
    pub version: String,
}

/// One reign of one leader, opened through the log. Every command of a duty carries the epoch it
/// was planned in, and apply refuses an older one. `term` is the Raft term, which has one leader.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch {
    /// The Raft term the leader was elected in.
    pub term: u64,
    /// Who leads.
    pub member: MemberId,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.member)
    }
}
