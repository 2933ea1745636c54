//! The words members say to each other: the handshake, requests and responses.
//!
//! Stored nowhere, but spoken between versions during an upgrade: variants are only appended, and
//! a changed shape means a new protocol version in [`Hello`]. So does a new command of the state
//! machine, or another rule of apply: members that would apply an entry differently do not talk.

use serde::{Deserialize, Serialize};

use super::heartbeats::{WireAge, WireBeat};
use super::membership::{Change, ChangeReport};
use super::mirror::{WireLogId, WireMembership, WireSnapshotMeta, WireVote};
use super::status::PeerReport;
use crate::model::{Epoch, Incarnation, Member, MemberId, NodeId};
use crate::state::Reply;

/// The protocol spoken here. A member that speaks another one is refused.
pub(crate) const PROTOCOL_VERSION: u32 = 6;

/// The first frame on a connection: who calls, and whom it means to reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// [`PROTOCOL_VERSION`] of the caller.
    pub protocol: u32,
    /// The caller's cluster; 0 while it belongs to none.
    pub cluster_id: u128,
    /// The caller's number; 0 while it has none.
    pub sender: MemberId,
    /// The caller's data directory.
    pub incarnation: Incarnation,
    /// The caller's name, for the log.
    pub name: String,
    /// Whom the caller means to reach; 0 for whoever answers there.
    pub target: MemberId,
}

/// The answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Welcome {
    /// Speak.
    Accepted,
    /// Go away, and why.
    Refused(Refusal),
}

/// Why a peer was turned away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {text}", .code.as_str())]
pub(crate) struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people.
    pub text: String,
}

impl Refusal {
    /// A refusal of `code`, explained by `text`.
    pub(crate) fn new(code: RefusalCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// The kinds of refusals. Only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum RefusalCode {
    /// It speaks another protocol version.
    Protocol,
    /// It belongs to another cluster.
    ForeignCluster,
    /// It meant to reach another member: an address was given to somebody else.
    WrongTarget,
    /// It uses a known number with another data directory: a wiped disk under an old id.
    WrongIncarnation,
    /// It uses this member's own number.
    OwnId,
    /// This member has no place in a cluster yet.
    NotReady,
    /// This member does not lead.
    NotLeader,
    /// This member has too much to do.
    Busy,
    /// This member's data differ from the cluster's; it serves nobody.
    Diverged,
    /// This member is stopping, or its disk failed.
    Stopping,
    /// The request makes no sense here.
    BadRequest,
    /// A change of the membership was refused.
    Membership,
    /// The caller left the cluster for good.
    Removed,
}

impl RefusalCode {
    /// The stable code.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Protocol => "PEER_PROTOCOL",
            Self::ForeignCluster => "FOREIGN_CLUSTER",
            Self::WrongTarget => "WRONG_TARGET",
            Self::WrongIncarnation => "WRONG_INCARNATION",
            Self::OwnId => "DUPLICATE_MEMBER_ID",
            Self::NotReady => "NOT_READY",
            Self::NotLeader => "NOT_LEADER",
            Self::Busy => "OVERLOADED",
            Self::Diverged => "STATE_DIVERGED",
            Self::Stopping => "STOPPING",
            Self::BadRequest => "BAD_REQUEST",
            Self::Membership => "MEMBERSHIP_REFUSED",
            Self::Removed => "MEMBER_REMOVED",
        }
    }
}

/// What one member asks of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Log entries of one stream; the payloads are attached.
    Append(Append),
    /// Asks for a vote.
    Vote(Ballot),
    /// Asks whether a vote would be given.
    PreVote(Ballot),
    /// A snapshot comes.
    SnapshotBegin {
        /// The sender's vote.
        vote: WireVote,
        /// What it covers.
        meta: WireSnapshotMeta,
    },
    /// The next piece of it, attached.
    SnapshotChunk {
        /// Where the piece belongs.
        offset: u64,
    },
    /// That was all of it: check and install.
    SnapshotFinish {
        /// Length of the whole.
        len: u64,
    },
    /// The leader hands its office over.
    TransferLeader {
        /// Its vote.
        from: WireVote,
        /// Who shall lead.
        to: MemberId,
        /// Its newest entry.
        last_log_id: Option<WireLogId>,
    },
    /// Encoded envelopes for the leader's queue, attached, with their lengths. Never passed on.
    Propose {
        /// One per envelope.
        lens: Vec<u32>,
    },
    /// Asks the leader for an index that a linearizable read must wait for.
    ReadIndex,
    /// Heartbeats of nodes, and how far the sender knows the leader's book.
    Beats {
        /// Fresh ones.
        beats: Vec<WireBeat>,
        /// Which book `known` counts in.
        book: u64,
        /// The newest change of it that the sender has seen.
        known: u64,
        /// Whether the answer shall tell whom the leader holds back: that is the whole list.
        held: bool,
    },
    /// How are you?
    Probe,
    /// A newcomer, or a member on a new disk, asks for a number. Passed on to the leader once.
    Join {
        /// Its description.
        member: Member,
        /// Whether a member passed it on already.
        forwarded: bool,
    },
    /// A member with a number and a durable identity asks to be sent the log.
    Enlist {
        /// Its number.
        member_id: MemberId,
        /// Its description.
        member: Member,
        /// Whether a member passed it on already.
        forwarded: bool,
    },
    /// A founder tells the others who founds the cluster.
    Found {
        /// The new cluster's id.
        cluster_id: u128,
        /// All founders by number.
        founders: Vec<(MemberId, Member)>,
    },
    /// An operator's change of the membership. Passed on to the leader once.
    Change {
        /// What to change.
        change: Change,
        /// Whether a member passed it on already.
        forwarded: bool,
    },
    /// The leader tells a member that its state differs at this index.
    Diverged {
        /// The applied index compared.
        index: u64,
        /// The leader's digest there: sum and rows.
        digest: (u64, u64),
    },
    /// A member tells where it is now. Passed on to the leader once.
    Announce {
        /// Its number.
        member_id: MemberId,
        /// Its description.
        member: Member,
        /// Whether a member passed it on already.
        forwarded: bool,
    },
}

/// A request for a vote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ballot {
    /// For whom, in which term.
    pub vote: WireVote,
    /// The candidate's newest entry.
    pub last_log_id: Option<WireLogId>,
    /// The leader itself asked for this election.
    pub leadership_transfer: bool,
}

/// Log entries on their way to a follower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Append {
    /// Requests of one stream are taken in order; a new number starts a new stream.
    pub stream: u64,
    /// The leader's vote.
    pub vote: WireVote,
    /// The entry before the first.
    pub prev_log_id: Option<WireLogId>,
    /// What the leader knows to be committed.
    pub leader_commit: Option<WireLogId>,
    /// The entries, without their payloads.
    pub entries: Vec<EntryHead>,
}

/// A log entry without its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryHead {
    /// Its id.
    pub log_id: WireLogId,
    /// What it carries.
    pub body: EntryBody,
}

/// What a log entry carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EntryBody {
    /// Nothing.
    Blank,
    /// So many bytes of the attachment.
    Normal(u32),
    /// A membership.
    Membership(WireMembership),
}

/// What the other answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Response {
    /// It was not done.
    Refused(Refusal),
    /// The append is durable up to this id.
    Appended(Option<WireLogId>),
    /// The follower's log differs at this id.
    Conflict(WireLogId),
    /// The follower knows a higher vote.
    HigherVote(WireVote),
    /// The answer to a ballot.
    Voted {
        /// The voter's vote.
        vote: WireVote,
        /// Whether it was given.
        granted: bool,
        /// The voter's newest entry.
        last_log_id: Option<WireLogId>,
    },
    /// The piece was taken; or, after the last, the snapshot is installed.
    SnapshotTaken {
        /// The receiver's vote.
        vote: Option<WireVote>,
    },
    /// The answer to a hand-over.
    Transferred(Result<(), TransferRefusal>),
    /// One answer per envelope, with the index of the entry it went into.
    Proposed(Vec<ProposeAnswer>),
    /// A read that waits for `index` is linearizable.
    ReadIndex {
        /// Where.
        index: u64,
        /// In which term.
        term: u64,
    },
    /// What the leader's book says that the sender did not know.
    Ages {
        /// Names the book; changes with the leader.
        book: u64,
        /// The newest change in this answer.
        known: u64,
        /// Nodes and the ages of their heartbeats.
        ages: Vec<WireAge>,
        /// If asked for: nodes that are given nothing for so many milliseconds more.
        held: Option<Vec<(NodeId, u64)>>,
    },
    /// The answer to a probe.
    Report(Box<PeerReport>),
    /// The answer to a newcomer.
    Joined {
        /// The cluster.
        cluster_id: u128,
        /// The newcomer's number.
        member_id: MemberId,
        /// The number its predecessor of the same name had.
        replaces: Option<MemberId>,
    },
    /// The change was made.
    Changed(ChangeReport),
    /// Done, with nothing to tell.
    Done,
}

/// Why a hand-over did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TransferRefusal {
    /// Somebody else was elected meanwhile.
    VoteChanged {
        /// What the leader thought.
        expected: WireVote,
        /// What is.
        actual: WireVote,
    },
    /// The heir's log is behind.
    LogNotFlushed {
        /// What the leader has.
        expected: Option<WireLogId>,
        /// What is durable.
        actual: Option<WireLogId>,
    },
}

/// What became of one forwarded envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ProposeAnswer {
    /// It is committed and applied.
    Committed {
        /// Where.
        index: u64,
        /// What apply answered.
        reply: Reply,
    },
    /// It certainly never entered the log.
    NotStarted,
    /// The queue is full.
    Overloaded,
    /// It may or may not be committed.
    Unknown,
}

/// What a member believes about the reign, for answers and reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reign {
    /// The open epoch in the state machine.
    pub epoch: Epoch,
    /// The member's Raft term.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<MemberId>,
}
