//! What this member answers to each request of a peer. The peer was admitted before.

use bytes::Bytes;
use openraft::raft::{TransferLeaderError, TransferLeaderRequest, VoteRequest, VoteResponse};
use std::sync::Arc;

use super::bootstrap;
use super::core::{Core, RaftHandle};
use super::error::MembershipError;
use super::mirror::{WireLogId, WireVote};
use super::wire::{Ballot, Hello, Refusal, RefusalCode, Request, Response, TransferRefusal};
use super::{join, membership, proposer, status, steward};
use crate::model::MemberId;
use crate::storage::{LogId, TypeConfig, Vote};

/// Answers one request. Appends and snapshots are taken by the connection itself, in order.
pub(crate) async fn answer(
    core: &Arc<Core>,
    hello: &Hello,
    request: Request,
    attachment: Bytes,
) -> Response {
    match request {
        Request::Vote(ballot) => vote(core, ballot, false).await,
        Request::PreVote(ballot) => vote(core, ballot, true).await,
        Request::TransferLeader { from, to, last_log_id } => {
            transfer(core, from, to, last_log_id).await
        }
        Request::Propose { lens } => match serving(core) {
            Ok(()) => proposer::take_forwarded(core, &lens, attachment).await,
            Err(refusal) => Response::Refused(refusal),
        },
        Request::ReadIndex => read_index(core).await,
        Request::Beats { beats, book, known, held } => {
            if core.current().leading.is_none() {
                return not_leader(core);
            }
            let (book, known, ages) = core.heartbeats.answer(beats, book, known);
            Response::Ages { book, known, ages, held: held.then(|| core.heartbeats.held_ms()) }
        }
        Request::Probe => Response::Report(Box::new(status::report(core))),
        Request::Join { member, forwarded } => changed(join::join(core, member, forwarded).await),
        Request::Enlist { member_id, member, forwarded } => {
            let enlisted = join::enlist(core, member_id, member, forwarded).await;
            changed(enlisted.map(|()| Response::Done))
        }
        Request::Announce { member_id, member, forwarded } => {
            let announced = join::announce(core, member_id, member, forwarded).await;
            changed(announced.map(|()| Response::Done))
        }
        Request::Found { cluster_id, founders } => {
            let founded = bootstrap::be_founded(core, cluster_id, founders).await;
            changed(founded.map(|()| Response::Done))
        }
        Request::Change { change, forwarded } => {
            changed(membership::change(core, change, forwarded).await.map(Response::Changed))
        }
        Request::Diverged { index, digest } => {
            steward::hear_divergence(core, hello.sender, index, digest);
            Response::Done
        }
        Request::Append(_)
        | Request::SnapshotBegin { .. }
        | Request::SnapshotChunk { .. }
        | Request::SnapshotFinish { .. } => {
            Response::Refused(Refusal::new(RefusalCode::BadRequest, "out of its stream"))
        }
    }
}

/// Refusals of changes keep their code in front of the text, for [`MembershipError`] to find.
fn changed(result: Result<Response, MembershipError>) -> Response {
    result.unwrap_or_else(|error| {
        let text = format!("{}: {}", error.code.as_str(), error.text);
        Response::Refused(Refusal::new(RefusalCode::Membership, text))
    })
}

fn serving(core: &Core) -> Result<(), Refusal> {
    match core.why_ended() {
        Some(why) => Err(Refusal::new(RefusalCode::Diverged, why)),
        None => Ok(()),
    }
}

fn not_leader(core: &Core) -> Response {
    let text = match core.current().leader {
        Some(leader) => format!("member {leader} leads"),
        None => "nobody leads".to_owned(),
    };
    Response::Refused(Refusal::new(RefusalCode::NotLeader, text))
}

fn raft(core: &Core) -> Result<&RaftHandle, Response> {
    core.raft().ok_or_else(|| {
        Response::Refused(Refusal::new(RefusalCode::NotReady, "Raft does not run here yet"))
    })
}

fn stopping(error: impl std::fmt::Display) -> Response {
    Response::Refused(Refusal::new(RefusalCode::Stopping, error.to_string()))
}

async fn vote(core: &Core, ballot: Ballot, pre: bool) -> Response {
    let raft = match raft(core) {
        Ok(raft) => raft,
        Err(response) => return response,
    };
    let mut request = VoteRequest::<TypeConfig>::new(
        Vote::from(ballot.vote),
        ballot.last_log_id.map(LogId::from),
    );
    request.leadership_transfer = ballot.leadership_transfer;
    let answer = if pre { raft.pre_vote(request).await } else { raft.vote(request).await };
    match answer {
        Ok(VoteResponse { vote, vote_granted, last_log_id }) => Response::Voted {
            vote: WireVote::from(&vote),
            granted: vote_granted,
            last_log_id: last_log_id.as_ref().map(WireLogId::from),
        },
        Err(error) => stopping(error),
    }
}

async fn transfer(
    core: &Core,
    from: WireVote,
    to: MemberId,
    last_log_id: Option<WireLogId>,
) -> Response {
    let raft = match raft(core) {
        Ok(raft) => raft,
        Err(response) => return response,
    };
    let request = TransferLeaderRequest::new(Vote::from(from), to, last_log_id.map(LogId::from));
    match raft.handle_transfer_leader(request).await {
        Ok(result) => Response::Transferred(result.map_err(|error| match error {
            TransferLeaderError::VoteChanged { expected, actual } => TransferRefusal::VoteChanged {
                expected: WireVote::from(&expected),
                actual: WireVote::from(&actual),
            },
            TransferLeaderError::LogNotFlushed { expected, actual } => {
                TransferRefusal::LogNotFlushed {
                    expected: expected.as_ref().map(WireLogId::from),
                    actual: actual.as_ref().map(WireLogId::from),
                }
            }
        })),
        Err(fatal) => stopping(fatal),
    }
}

async fn read_index(core: &Core) -> Response {
    if let Err(refusal) = serving(core) {
        return Response::Refused(refusal);
    }
    let Some(term) = core.current().leading else { return not_leader(core) };
    match core.reads.index_as_leader().await {
        Ok(index) => Response::ReadIndex { index, term },
        Err(super::reads::RoundError::Overloaded) => {
            Response::Refused(Refusal::new(RefusalCode::Busy, "too many reads are waiting"))
        }
        Err(super::reads::RoundError::NoLeader) => not_leader(core),
    }
}
