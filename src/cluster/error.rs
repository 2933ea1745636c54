//! What can go wrong between a door and the log, kept apart by what the caller may conclude.

use super::wire::Refusal;
use crate::model::{MemberId, RequestId};

/// Why a proposal has no answer from the state machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It certainly did not and will not happen. Retrying is safe, under any id.
    #[error("not started: {reason}")]
    NotStarted {
        /// Why not.
        reason: NotStarted,
        /// Who leads, as far as this member knows.
        leader: Option<MemberId>,
    },
    /// It may have happened, or may still. A retry under the same request id is safe, and
    /// `GET /api/v1/requests/{id}` tells.
    #[error("outcome unknown of request {request_id}")]
    Unknown {
        /// What to ask for.
        request_id: RequestId,
    },
    /// This member serves nobody any more; as for the outcome, see `maybe_started`.
    #[error("this member has stopped: {why}")]
    Stopped {
        /// What happened to it.
        why: String,
        /// Whether the command may have entered the log before.
        maybe_started: bool,
    },
}

/// Why a proposal certainly never started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotStarted {
    /// Nobody led until the deadline.
    #[error("there is no leader")]
    NoLeader,
    /// The queue is full.
    #[error("too many proposals are waiting")]
    Overloaded,
    /// This member does not lead in the epoch the command was planned in.
    #[error("this member does not lead in that epoch")]
    NotLeader,
    /// This member has no place in a cluster yet.
    #[error("this member belongs to no cluster yet")]
    NotInitialized,
    /// The command is larger than the bound.
    #[error("the command is too large")]
    TooLarge,
}

impl ProposeError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotStarted { reason, .. } => match reason {
                NotStarted::NoLeader => "NO_LEADER",
                NotStarted::Overloaded => "OVERLOADED",
                NotStarted::NotLeader => "NOT_LEADER",
                NotStarted::NotInitialized => "NOT_INITIALIZED",
                NotStarted::TooLarge => "TOO_LARGE",
            },
            Self::Unknown { .. } => "OUTCOME_UNKNOWN",
            Self::Stopped { .. } => "MEMBER_STOPPED",
        }
    }
}

/// Why a read cannot be served as asked. It is never served as something less instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nobody led, or the leader could not prove that it leads, until the deadline.
    #[error("no leader confirmed the read in time")]
    NoLeader {
        /// Who leads, as far as this member knows.
        leader: Option<MemberId>,
    },
    /// This member did not apply the index in time.
    #[error("this member is behind: index {wanted} is asked for, {applied} is applied")]
    Behind {
        /// Asked for.
        wanted: u64,
        /// Reached.
        applied: u64,
    },
    /// This member last heard of a leader longer ago than the reader allows.
    #[error("the last contact with a leader was {age_ms} ms ago, {max_age_ms} ms are allowed")]
    Stale {
        /// How long ago.
        age_ms: u64,
        /// The bound.
        max_age_ms: u64,
    },
    /// This member has no place in a cluster yet.
    #[error("this member belongs to no cluster yet")]
    NotInitialized,
    /// This member serves nobody any more.
    #[error("this member has stopped: {why}")]
    Stopped {
        /// What happened to it.
        why: String,
    },
}

impl ReadError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoLeader { .. } => "NO_LEADER",
            Self::Behind { .. } => "MEMBER_BEHIND",
            Self::Stale { .. } => "STALE_READ",
            Self::NotInitialized => "NOT_INITIALIZED",
            Self::Stopped { .. } => "MEMBER_STOPPED",
        }
    }
}

/// Why a change of the membership, or a bootstrap, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct MembershipError {
    /// The stable code.
    pub code: MembershipCode,
    /// For people: what was asked, what stands against it, what to do.
    pub text: String,
}

impl MembershipError {
    /// A refusal of `code`, explained by `text`.
    pub fn new(code: MembershipCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<Refusal> for MembershipError {
    fn from(refusal: Refusal) -> Self {
        // A refusal that another member passed on carries its code in front of the text.
        let (code, text) = refusal.text.split_once(": ").unwrap_or(("", refusal.text.as_str()));
        match MembershipCode::parse(code) {
            Some(code) => Self::new(code, text),
            None => Self::new(MembershipCode::Refused, refusal.to_string()),
        }
    }
}

/// The kinds of refusals of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MembershipCode {
    /// Nobody leads.
    NoLeader,
    /// This member belongs to no cluster yet.
    NotInitialized,
    /// It belongs to a cluster already.
    AlreadyInitialized,
    /// A founder could not be reached, or expects something else.
    FoundersDisagree,
    /// No such member.
    UnknownMember,
    /// Two members with one id, name or address.
    Conflict,
    /// The voters that can be reached would be no majority afterwards.
    QuorumAtRisk,
    /// Another change is under way.
    InProgress,
    /// The member is too far behind to vote.
    NotCaughtUp,
    /// It belongs to another cluster.
    ForeignCluster,
    /// The old data directory of that member still answers.
    PredecessorAlive,
    /// It left for good; it has to join under a new number.
    Removed,
    /// It did not happen in time; look before asking again.
    Timeout,
    /// This member has stopped.
    Stopped,
    /// Anything a peer refused for another reason.
    Refused,
}

impl MembershipCode {
    const ALL: [Self; 15] = [
        Self::NoLeader,
        Self::NotInitialized,
        Self::AlreadyInitialized,
        Self::FoundersDisagree,
        Self::UnknownMember,
        Self::Conflict,
        Self::QuorumAtRisk,
        Self::InProgress,
        Self::NotCaughtUp,
        Self::ForeignCluster,
        Self::PredecessorAlive,
        Self::Removed,
        Self::Timeout,
        Self::Stopped,
        Self::Refused,
    ];

    /// The stable code.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoLeader => "NO_LEADER",
            Self::NotInitialized => "NOT_INITIALIZED",
            Self::AlreadyInitialized => "ALREADY_INITIALIZED",
            Self::FoundersDisagree => "FOUNDERS_DISAGREE",
            Self::UnknownMember => "MEMBER_NOT_FOUND",
            Self::Conflict => "MEMBER_CONFLICT",
            Self::QuorumAtRisk => "QUORUM_AT_RISK",
            Self::InProgress => "CHANGE_IN_PROGRESS",
            Self::NotCaughtUp => "NOT_CAUGHT_UP",
            Self::ForeignCluster => "FOREIGN_CLUSTER",
            Self::PredecessorAlive => "PREDECESSOR_ALIVE",
            Self::Removed => "MEMBER_REMOVED",
            Self::Timeout => "CHANGE_TIMEOUT",
            Self::Stopped => "MEMBER_STOPPED",
            Self::Refused => "REFUSED",
        }
    }

    /// The reverse of [`MembershipCode::as_str`].
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == code)
    }
}

/// Why a member cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The peer listener cannot bind.
    #[error("cannot listen for peers on {addr}: {source}")]
    Bind {
        /// Where.
        addr: String,
        /// Why.
        source: std::io::Error,
    },
    /// The storage gave out.
    #[error("storage: {0}")]
    Storage(String),
    /// openraft gave up.
    #[error("raft: {0}")]
    Raft(String),
}
