//! Our own shapes of openraft's types, for the wire.
//!
//! openraft does not promise that its serde forms stay as they are; these are ours, converted by
//! hand, so that an upgrade of the library cannot change the protocol.

use std::collections::{BTreeMap, BTreeSet};

use openraft::type_config::alias::CommittedLeaderIdOf;
use serde::{Deserialize, Serialize};

use crate::model::{Member, MemberId};
use crate::storage::{LogId, Membership, SnapshotMeta, TypeConfig, Vote};

/// A log entry's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct WireLogId {
    /// The term of the leader that gave it out.
    pub term: u64,
    /// Its place in the log.
    pub index: u64,
}

impl From<&LogId> for WireLogId {
    fn from(id: &LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

impl From<LogId> for WireLogId {
    fn from(id: LogId) -> Self {
        Self::from(&id)
    }
}

impl From<WireLogId> for LogId {
    fn from(id: WireLogId) -> Self {
        Self::new(committed_leader(id.term), id.index)
    }
}

/// The leader of `term`, as log ids name it.
#[must_use]
pub(crate) fn committed_leader(term: u64) -> CommittedLeaderIdOf<TypeConfig> {
    CommittedLeaderIdOf::<TypeConfig>::from(term)
}

/// A vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireVote {
    /// The term voted in.
    pub term: u64,
    /// Who got the vote.
    pub member: MemberId,
    /// Whether a quorum gave it.
    pub committed: bool,
}

impl From<&Vote> for WireVote {
    fn from(vote: &Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            member: vote.leader_id.voted_for,
            committed: vote.committed,
        }
    }
}

impl From<WireVote> for Vote {
    fn from(vote: WireVote) -> Self {
        if vote.committed {
            Self::new_committed(vote.term, vote.member)
        } else {
            Self::new(vote.term, vote.member)
        }
    }
}

/// Who votes and who learns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireMembership {
    /// One set of voters, or two while a change is under way.
    pub configs: Vec<BTreeSet<MemberId>>,
    /// Voters and learners.
    pub members: BTreeMap<MemberId, Member>,
}

impl From<&Membership> for WireMembership {
    fn from(membership: &Membership) -> Self {
        Self {
            configs: membership.get_joint_config().clone(),
            members: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
        }
    }
}

impl WireMembership {
    /// Back to openraft's form.
    ///
    /// # Errors
    /// A text when the sets make no sense: an empty set of voters, or a voter nobody describes.
    pub(crate) fn into_membership(self) -> Result<Membership, String> {
        if self.configs.is_empty() && self.members.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(self.configs, self.members).map_err(|error| error.to_string())
    }
}

/// What a snapshot covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireSnapshotMeta {
    /// The newest entry in it.
    pub last_log_id: Option<WireLogId>,
    /// Where its membership stands in the log.
    pub membership_log_id: Option<WireLogId>,
    /// Its membership.
    pub membership: WireMembership,
}

impl From<&SnapshotMeta> for WireSnapshotMeta {
    fn from(meta: &SnapshotMeta) -> Self {
        Self {
            last_log_id: meta.last_log_id.as_ref().map(WireLogId::from),
            membership_log_id: meta.last_membership.log_id().as_ref().map(WireLogId::from),
            membership: WireMembership::from(meta.last_membership.membership()),
        }
    }
}
