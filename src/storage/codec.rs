//! The byte formats of everything Raft stores and sends: ids, votes, memberships, entries.
//!
//! Each value is led by a format byte, then bincode of a mirror struct of our own: openraft's
//! serde forms are declared unstable. A client's entry is carried as the bytes the leader encoded
//! once. Formats are pinned by golden bytes below; a change needs a new format byte.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::{Buf, Bytes};
use openraft::vote::leader_id_std::{CommittedLeaderId, LeaderId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    EncodedEntry, LogId, Membership, RaftEntry, RaftPayload, SnapshotMeta, StoredMembership, Vote,
};
use crate::model::{Incarnation, Member, MemberId};

/// Leads every value of the formats below.
pub const FORMAT: u8 = 1;

const PAYLOAD_BLANK: u8 = 0;
const PAYLOAD_NORMAL: u8 = 1;
const PAYLOAD_MEMBERSHIP: u8 = 2;

/// Bytes that are not what they should be: damage, or a newer program's format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct CodecError {
    /// What was being decoded.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl From<CodecError> for io::Error {
    fn from(error: CodecError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// A log id's stored form.
type LogIdForm = (u64, u64);
/// Term, member, committed.
type VoteForm = (u64, MemberId, bool);
/// Voter sets (two while a change is joint), then everybody's description.
type MembershipForm = (Vec<Vec<MemberId>>, Vec<(MemberId, MemberForm)>);
/// Name, incarnation, peer, HTTP and gRPC addresses, version.
type MemberForm = (String, Incarnation, String, String, String, String);

/// Encodes `value` behind the format byte.
pub(super) fn encode_form<V: Serialize>(value: &V) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.push(FORMAT);
    append_form(&mut bytes, value);
    bytes
}

fn append_form<V: Serialize>(bytes: &mut Vec<u8>, value: &V) {
    bincode::serde::encode_into_std_write(value, bytes, bincode::config::standard())
        .expect("plain data encodes into memory");
}

/// Decodes what [`encode_form`] made; all of the bytes must belong to it.
pub(super) fn decode_form<V: DeserializeOwned>(
    bytes: &[u8],
    what: &'static str,
) -> Result<V, CodecError> {
    let body = strip_format(bytes, what)?;
    let (value, used) = decode_prefix(body, what)?;
    if used != body.len() {
        return Err(CodecError { what, why: format!("{} bytes too many", body.len() - used) });
    }
    Ok(value)
}

fn strip_format<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a [u8], CodecError> {
    match bytes.split_first() {
        Some((&FORMAT, body)) => Ok(body),
        Some((format, _)) => Err(CodecError { what, why: format!("unknown format {format}") }),
        None => Err(CodecError { what, why: "no bytes".to_owned() }),
    }
}

fn decode_prefix<V: DeserializeOwned>(
    body: &[u8],
    what: &'static str,
) -> Result<(V, usize), CodecError> {
    bincode::serde::decode_from_slice(body, bincode::config::standard())
        .map_err(|error| CodecError { what, why: error.to_string() })
}

fn log_id_form(id: &LogId) -> LogIdForm {
    (id.leader_id.term, id.index)
}

fn log_id_of((term, index): LogIdForm) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

/// Makes a log id from its two numbers.
#[must_use]
pub fn log_id(term: u64, index: u64) -> LogId {
    log_id_of((term, index))
}

/// Encodes a log id.
#[must_use]
pub fn encode_log_id(id: &LogId) -> Vec<u8> {
    encode_form(&log_id_form(id))
}

/// Decodes a log id.
///
/// # Errors
/// [`CodecError`] when the bytes are not one.
pub fn decode_log_id(bytes: &[u8]) -> Result<LogId, CodecError> {
    decode_form(bytes, "log id").map(log_id_of)
}

/// Encodes a vote.
#[must_use]
pub fn encode_vote(vote: &Vote) -> Vec<u8> {
    let form: VoteForm = (vote.leader_id.term, vote.leader_id.voted_for, vote.committed);
    encode_form(&form)
}

/// Decodes a vote.
///
/// # Errors
/// [`CodecError`] when the bytes are not one.
pub fn decode_vote(bytes: &[u8]) -> Result<Vote, CodecError> {
    let (term, voted_for, committed): VoteForm = decode_form(bytes, "vote")?;
    Ok(Vote { leader_id: LeaderId { term, voted_for }, committed })
}

fn membership_form(membership: &Membership) -> MembershipForm {
    let configs = membership
        .get_joint_config()
        .iter()
        .map(|voters| voters.iter().copied().collect())
        .collect();
    let nodes = membership.nodes().map(|(id, member)| (*id, member_form(member))).collect();
    (configs, nodes)
}

fn member_form(member: &Member) -> MemberForm {
    (
        member.name.clone(),
        member.incarnation,
        member.peer_addr.clone(),
        member.http_addr.clone(),
        member.grpc_addr.clone(),
        member.version.clone(),
    )
}

fn member_of(form: MemberForm) -> Member {
    let (name, incarnation, peer_addr, http_addr, grpc_addr, version) = form;
    Member { name, incarnation, peer_addr, http_addr, grpc_addr, version }
}

fn membership_of((configs, nodes): MembershipForm) -> Result<Membership, CodecError> {
    if configs.is_empty() && nodes.is_empty() {
        // A member that has not been told of any cluster yet; openraft's own check refuses it.
        return Ok(Membership::default());
    }
    let configs: Vec<BTreeSet<MemberId>> =
        configs.into_iter().map(|voters| voters.into_iter().collect()).collect();
    let nodes: BTreeMap<MemberId, Member> =
        nodes.into_iter().map(|(id, form)| (id, member_of(form))).collect();
    Membership::new(configs, nodes)
        .map_err(|error| CodecError { what: "membership", why: error.to_string() })
}

/// Encodes a membership.
#[must_use]
pub fn encode_membership(membership: &Membership) -> Vec<u8> {
    encode_form(&membership_form(membership))
}

/// Decodes a membership.
///
/// # Errors
/// [`CodecError`] when the bytes are not one, or it names voters without describing them.
pub fn decode_membership(bytes: &[u8]) -> Result<Membership, CodecError> {
    membership_of(decode_form(bytes, "membership")?)
}

/// The stored form of where a state machine stands: last log id, then the membership and its own
/// log id.
pub(super) type PositionForm = (Option<LogIdForm>, Option<LogIdForm>, MembershipForm);

pub(super) fn position_form(last: Option<&LogId>, membership: &StoredMembership) -> PositionForm {
    (
        last.map(log_id_form),
        membership.log_id().as_ref().map(log_id_form),
        membership_form(membership.membership()),
    )
}

pub(super) fn position_of(
    (last, at, membership): PositionForm,
) -> Result<(Option<LogId>, StoredMembership), CodecError> {
    let membership = StoredMembership::new(at.map(log_id_of), membership_of(membership)?);
    Ok((last.map(log_id_of), membership))
}

/// Encodes what a snapshot is of.
#[must_use]
pub fn encode_snapshot_meta(meta: &SnapshotMeta) -> Vec<u8> {
    encode_form(&position_form(meta.last_log_id.as_ref(), &meta.last_membership))
}

/// Decodes what a snapshot is of.
///
/// # Errors
/// [`CodecError`] when the bytes are not that.
pub fn decode_snapshot_meta(bytes: &[u8]) -> Result<SnapshotMeta, CodecError> {
    let (last_log_id, last_membership) = position_of(decode_form(bytes, "snapshot meta")?)?;
    Ok(SnapshotMeta { last_log_id, last_membership })
}

/// Appends a payload: format byte, kind byte, then a client's bytes as they are or a membership.
pub fn append_payload(bytes: &mut Vec<u8>, payload: &RaftPayload) {
    bytes.push(FORMAT);
    match payload {
        RaftPayload::Blank => bytes.push(PAYLOAD_BLANK),
        RaftPayload::Normal(entry) => {
            bytes.push(PAYLOAD_NORMAL);
            bytes.extend_from_slice(&entry.0);
        }
        RaftPayload::Membership(membership) => {
            bytes.push(PAYLOAD_MEMBERSHIP);
            append_form(bytes, &membership_form(membership));
        }
    }
}

/// Decodes a payload; a client's bytes are shared with `bytes`, not copied.
///
/// # Errors
/// [`CodecError`] when the bytes are not one.
pub fn decode_payload(mut bytes: Bytes) -> Result<RaftPayload, CodecError> {
    let what = "log payload";
    strip_format(&bytes, what)?;
    if bytes.len() < 2 {
        return Err(CodecError { what, why: "cut short".to_owned() });
    }
    let kind = bytes[1];
    bytes.advance(2);
    match kind {
        PAYLOAD_BLANK if bytes.is_empty() => Ok(RaftPayload::Blank),
        PAYLOAD_NORMAL => Ok(RaftPayload::Normal(EncodedEntry(bytes))),
        PAYLOAD_MEMBERSHIP => {
            let (form, used) = decode_prefix(&bytes, what)?;
            if used != bytes.len() {
                return Err(CodecError { what, why: "bytes after the membership".to_owned() });
            }
            membership_of(form).map(RaftPayload::Membership)
        }
        kind => Err(CodecError { what, why: format!("unknown kind {kind}") }),
    }
}

/// Appends an entry: format byte, log id, payload. The payload runs to the end, so whoever sends
/// several entries puts a length before each.
pub fn append_entry(bytes: &mut Vec<u8>, entry: &RaftEntry) {
    bytes.push(FORMAT);
    append_form(bytes, &log_id_form(&entry.log_id));
    append_payload(bytes, &entry.payload);
}

/// Encodes an entry, as [`append_entry`] does.
#[must_use]
pub fn encode_entry(entry: &RaftEntry) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24 + payload_bytes(&entry.payload));
    append_entry(&mut bytes, entry);
    bytes
}

/// Decodes an entry; a client's bytes are shared with `bytes`, not copied.
///
/// # Errors
/// [`CodecError`] when the bytes are not one.
pub fn decode_entry(mut bytes: Bytes) -> Result<RaftEntry, CodecError> {
    let (form, used) = decode_prefix(strip_format(&bytes, "log entry")?, "log entry")?;
    bytes.advance(1 + used);
    Ok(RaftEntry { log_id: log_id_of(form), payload: decode_payload(bytes)? })
}

/// About how many bytes a payload takes, to bound batches and memory.
#[must_use]
pub fn payload_bytes(payload: &RaftPayload) -> usize {
    match payload {
        RaftPayload::Blank => 2,
        RaftPayload::Normal(entry) => entry.0.len() + 2,
        // Memberships are rare and small; an estimate keeps this cheap.
        RaftPayload::Membership(membership) => 16 + membership.nodes().count() * 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let member = Member {
            name: "a".to_owned(),
            incarnation: 7,
            peer_addr: "h:1".to_owned(),
            http_addr: "h:2".to_owned(),
            grpc_addr: String::new(),
            version: "1".to_owned(),
        };
        let nodes = BTreeMap::from([(1, member), (2, Member::default())]);
        Membership::new(vec![BTreeSet::from([1])], nodes).unwrap()
    }

    #[test]
    fn the_stored_bytes_are_pinned() {
        assert_eq!(encode_log_id(&log_id(3, 300)), [1, 3, 251, 44, 1]);
        let vote = Vote { leader_id: LeaderId { term: 3, voted_for: 2 }, committed: true };
        assert_eq!(encode_vote(&vote), [1, 3, 2, 1]);
        assert_eq!(
            encode_membership(&membership()),
            [
                1, 1, 1, 1, 2, 1, 1, b'a', 7, 3, b'h', b':', b'1', 3, b'h', b':', b'2', 0, 1, b'1',
                2, 0, 0, 0, 0, 0, 0
            ]
        );
        let normal = RaftPayload::Normal(EncodedEntry(Bytes::from_static(b"xyz")));
        let entry = RaftEntry { log_id: log_id(1, 2), payload: normal };
        assert_eq!(encode_entry(&entry), [1, 1, 2, 1, 1, b'x', b'y', b'z']);
        let blank = RaftEntry { log_id: log_id(1, 2), payload: RaftPayload::Blank };
        assert_eq!(encode_entry(&blank), [1, 1, 2, 1, 0]);
    }

    #[test]
    fn everything_comes_back() {
        let stored = StoredMembership::new(Some(log_id(2, 9)), membership());
        let meta = SnapshotMeta { last_log_id: Some(log_id(4, 11)), last_membership: stored };
        assert_eq!(decode_snapshot_meta(&encode_snapshot_meta(&meta)), Ok(meta));
        assert_eq!(
            decode_membership(&encode_membership(&Membership::default())),
            Ok(Membership::default())
        );
        let vote = Vote { leader_id: LeaderId { term: 9, voted_for: 5 }, committed: false };
        assert_eq!(decode_vote(&encode_vote(&vote)), Ok(vote));
        for payload in [
            RaftPayload::Blank,
            RaftPayload::Normal(EncodedEntry(Bytes::from_static(b"abc"))),
            RaftPayload::Normal(EncodedEntry::default()),
            RaftPayload::Membership(membership()),
        ] {
            let entry = RaftEntry { log_id: log_id(1, u64::MAX), payload };
            assert_eq!(decode_entry(encode_entry(&entry).into()), Ok(entry));
        }
    }

    #[test]
    fn damage_is_an_error() {
        assert!(decode_log_id(&[]).is_err());
        assert!(decode_log_id(&[2, 1, 1]).is_err());
        assert!(decode_log_id(&[1, 1, 1, 1]).is_err());
        assert!(decode_payload(Bytes::from_static(&[1])).is_err());
        assert!(decode_payload(Bytes::from_static(&[1, 0, 0])).is_err());
        assert!(decode_payload(Bytes::from_static(&[1, 9])).is_err());
        // A voter without a description.
        assert!(decode_membership(&[1, 1, 1, 1, 0]).is_err());
    }
}
