//! This member among its peers: proposing, forwarding, reading, the peer network, membership.
//!
//! Everything above this room sees [`Cluster`]; everything below it sees bytes and log entries.
//! openraft stays inside this room and `storage`.
//!
//! Invariants: no peer's request reaches Raft before its cluster, target and data directory were
//! checked; a transport failure is never an answer; a proposal is forwarded at most once and its
//! outcome is committed, not started, or unknown; a read is never served as less than was asked
//! for; one change of the membership runs at a time, on the leader, guarded by the membership it
//! was decided on.

mod answers;
mod backup;
mod beat_book;
mod bootstrap;
mod core;
mod error;
mod faults;
mod frame;
mod handle;
mod heartbeats;
mod join;
mod link;
mod membership;
mod mirror;
pub mod net;
mod network;
mod options;
mod pause;
mod peers;
mod propose;
mod proposer;
mod raft_config;
mod reads;
mod seat;
mod server;
mod snapshots;
mod state_time;
mod status;
mod steward;
mod wire;

pub use self::core::ViewChange;
pub use error::{MembershipCode, MembershipError, NotStarted, ProposeError, ReadError, StartError};
pub use faults::{ActiveFault, Clients, Direction, FAULT_MAX, FAULTS_MAX, Fault, Faults};
pub use handle::{Cluster, ClusterMetrics};
pub use heartbeats::{Beat, Heard, Heartbeats};
pub use membership::ChangeReport;
pub use net::{Net, TcpNet};
pub use options::{Boot, ClusterOptions, Limits, Retention};
pub use propose::Committed;
pub use raft_config::{Timing, raft_config};
pub use reads::{Consistency, ReadStamp};
pub use status::{ClusterStatus, MemberStatus};
