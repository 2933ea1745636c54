//! The types openraft is instantiated with. openraft stays inside `storage` and `cluster`.

use std::fmt;

use bytes::Bytes;
use openraft::RaftTypeConfig;
use openraft::impls::leader_id_std::LeaderId;

use super::Runtime;
use crate::model::{Member, MemberId};
use crate::state::{Fatal, Reply};

/// Our instance of openraft.
///
/// The leader id is Raft's own (one leader per term), because the leader epoch stands on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = EncodedEntry;
    type R = EntryReply;
    type NodeId = MemberId;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId<u64, MemberId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Self::D, Self::NodeId, Self::Node>;
    type Entry =
        openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = openraft::impls::OneshotResponder<Self, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// A log entry's id.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A vote.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// A log entry.
pub type RaftEntry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// What a log entry carries.
pub type RaftPayload = openraft::type_config::alias::PayloadOf<TypeConfig>;
/// Who votes and who learns.
pub type Membership = openraft::Membership<MemberId, Member>;
/// What a snapshot is of: the last log id in it, and the membership.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
/// A membership and where it stands in the log.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;

/// A [`crate::state::LogEntry`], encoded once by the leader: the same bytes go to every log and
/// over every connection, and are decoded by apply alone.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct EncodedEntry(pub Bytes);

impl fmt::Debug for EncodedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for EncodedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying one entry answered: one [`Reply`] per envelope.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryReply(pub Vec<Reply>);

impl From<Fatal> for std::io::Error {
    fn from(fatal: Fatal) -> Self {
        Self::other(fatal)
    }
}
