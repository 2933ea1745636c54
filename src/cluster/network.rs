//! openraft's network over our links.
//!
//! A transport failure is always an error here and never an answer: a vote that was not heard is
//! not a vote. The append stream is pipelined, and heartbeats and snapshots travel on connections
//! of their own.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{RaftNetworkFactory, RaftNetworkV2};
use tokio::time::{Instant, sleep_until};

use super::link::{Call, CallError, Link, Route};
use super::mirror::{WireLogId, WireMembership, WireVote};
use super::peers::{Lane, Peers};
use super::snapshots::{self, Pieces, SnapshotData};
use super::wire::{Append, Ballot, EntryBody, EntryHead, Request, Response, TransferRefusal};
use crate::model::{Member, MemberId};
use crate::storage::{LogId, RaftEntry, RaftPayload, TypeConfig, Vote};

/// Appends on their way to one follower.
const IN_FLIGHT_MAX: usize = 64;
/// The first and the longest pause of openraft after a failed append.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(320));

type RaftRpcError = RPCError<TypeConfig>;
type AppendResult = Result<StreamAppendResult<TypeConfig>, RaftRpcError>;

/// Makes a client per peer and purpose.
pub(crate) struct PeerNetworkFactory {
    peers: Arc<Peers>,
    /// How long an append stream may be silent before its connection is given up.
    idle: Duration,
    /// Bytes of one piece of a snapshot.
    piece_bytes: u64,
}

impl PeerNetworkFactory {
    pub(crate) fn new(peers: Arc<Peers>, idle: Duration, piece_bytes: u64) -> Self {
        Self { peers, idle, piece_bytes }
    }

    fn client(&self, target: MemberId, member: &Member, lane: Lane) -> PeerNetwork {
        PeerNetwork {
            peers: Arc::clone(&self.peers),
            target,
            member: member.clone(),
            lane,
            idle: self.idle,
            piece_bytes: self.piece_bytes,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for PeerNetworkFactory {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: MemberId, node: &Member) -> PeerNetwork {
        self.client(target, node, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: MemberId, node: &Member) -> PeerNetwork {
        self.client(target, node, Lane::Pulse)
    }

    async fn new_snapshot_client(&mut self, target: MemberId, node: &Member) -> PeerNetwork {
        self.client(target, node, Lane::Snapshot)
    }
}

/// One peer, for one purpose.
pub(crate) struct PeerNetwork {
    peers: Arc<Peers>,
    target: MemberId,
    member: Member,
    lane: Lane,
    idle: Duration,
    piece_bytes: u64,
}

impl PeerNetwork {
    fn route(&self) -> Route {
        self.peers
            .route(self.target, Some(&self.member))
            .expect("a route has an address when a fallback is given")
    }

    /// One request on `lane`, answered within `limit`.
    async fn call(
        &self,
        lane: Lane,
        request: &Request,
        limit: Duration,
    ) -> Result<Response, RaftRpcError> {
        let link = self.peers.link(self.target, lane);
        let answer = link.call(&self.route(), request, &[], Instant::now() + limit).await;
        self.peers.note(self.target, answer.as_ref().err());
        answer.map(|(response, _attachment)| response).map_err(|error| rpc_error(&error))
    }

    async fn ballot(
        &self,
        rpc: VoteRequest<TypeConfig>,
        option: &RPCOption,
        wrap: fn(Ballot) -> Request,
    ) -> Result<VoteResponse<TypeConfig>, RaftRpcError> {
        let ballot = Ballot {
            vote: WireVote::from(&rpc.vote),
            last_log_id: rpc.last_log_id.as_ref().map(WireLogId::from),
            leadership_transfer: rpc.leadership_transfer,
        };
        match self.call(Lane::Pulse, &wrap(ballot), option.soft_ttl()).await? {
            Response::Voted { vote, granted, last_log_id } => {
                Ok(VoteResponse::new(Vote::from(vote), last_log_id.map(LogId::from), granted))
            }
            other => Err(unexpected(&other)),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for PeerNetwork {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RaftRpcError> {
        let last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        let input = futures::stream::iter([rpc]);
        let mut answers = self.stream_append(input, option).await?;
        match answers.next().await {
            Some(Ok(Ok(matched))) if matched == last => Ok(AppendEntriesResponse::Success),
            Some(Ok(Ok(matched))) => Ok(AppendEntriesResponse::PartialSuccess(matched)),
            Some(Ok(Err(StreamAppendError::Conflict(_)))) => Ok(AppendEntriesResponse::Conflict),
            Some(Ok(Err(StreamAppendError::HigherVote(vote)))) => {
                Ok(AppendEntriesResponse::HigherVote(vote))
            }
            Some(Err(error)) => Err(error),
            None => Err(RPCError::Network(NetworkError::from_string("no answer to an append"))),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, AppendResult>, RaftRpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let idle = match self.lane {
            Lane::Pulse => option.soft_ttl(),
            Lane::Append | Lane::Snapshot | Lane::Request => self.idle.max(option.soft_ttl()),
        };
        let pipeline = Pipeline {
            link: self.peers.link(self.target, self.lane),
            route: self.route(),
            stream: self.peers.next_stream(),
            input: Some(input),
            in_flight: VecDeque::new(),
            quiet_since: Instant::now(),
            idle,
            network: self,
        };
        let answers = futures::stream::unfold(Some(pipeline), |state| async move {
            let mut pipeline = state?;
            let answer = pipeline.next_answer().await?;
            // After any failure the order is broken: openraft starts a new stream.
            let more = matches!(answer, Ok(Ok(_)));
            Some((answer, more.then_some(pipeline)))
        });
        let answers: BoxStream<'s, AppendResult> = Box::pin(answers);
        Box::pin(std::future::ready(Ok(answers)))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RaftRpcError> {
        self.ballot(rpc, &option, Request::Vote).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RaftRpcError> {
        self.ballot(rpc, &option, Request::PreVote).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let link = self.peers.link(self.target, Lane::Snapshot);
        let route = self.route();
        let pieces = Pieces { bytes: self.piece_bytes, limit: option.hard_ttl() };
        let sending = snapshots::send(&link, &route, &vote, snapshot, pieces);
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sending => {
                self.peers.note(self.target, sent.as_ref().err().and_then(|e| e.call()));
                sent.map(SnapshotResponse::new).map_err(snapshots::SendError::into_raft)
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RaftRpcError> {
        let request = Request::TransferLeader {
            from: WireVote::from(req.from_leader()),
            to: *req.to_node_id(),
            last_log_id: req.last_log_id().map(WireLogId::from),
        };
        match self.call(Lane::Pulse, &request, option.soft_ttl()).await? {
            Response::Transferred(result) => Ok(result.map_err(|refusal| match refusal {
                TransferRefusal::VoteChanged { expected, actual } => {
                    TransferLeaderError::VoteChanged {
                        expected: Vote::from(expected),
                        actual: Vote::from(actual),
                    }
                }
                TransferRefusal::LogNotFlushed { expected, actual } => {
                    TransferLeaderError::LogNotFlushed {
                        expected: expected.map(LogId::from),
                        actual: actual.map(LogId::from),
                    }
                }
            })),
            other => Err(unexpected(&other)),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        let (first, longest) = BACK_OFF;
        let pauses =
            std::iter::successors(Some(first), move |pause| Some((*pause * 2).min(longest)));
        Some(Backoff::new(pauses))
    }
}

/// Appends sent and not answered yet, in order.
struct Pipeline<'s, S> {
    network: &'s PeerNetwork,
    link: Arc<Link>,
    route: Route,
    stream: u64,
    /// `None` once it has ended.
    input: Option<S>,
    in_flight: VecDeque<Call>,
    /// When the oldest unanswered append began to wait, or the last answer came.
    quiet_since: Instant,
    idle: Duration,
}

#[expect(clippy::result_large_err, reason = "the error type is openraft's")]
impl<S> Pipeline<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    /// Sends whatever is there to send until the next answer comes.
    async fn next_answer(&mut self) -> Option<AppendResult> {
        loop {
            let room = self.in_flight.len() < IN_FLIGHT_MAX;
            let deadline = self.quiet_since + self.idle;
            let waiting = !self.in_flight.is_empty();
            if !waiting && self.input.is_none() {
                return None;
            }
            tokio::select! {
                biased;
                answer = next_call(&mut self.in_flight), if waiting => {
                    self.in_flight.pop_front();
                    self.quiet_since = Instant::now();
                    return Some(self.judge(answer));
                }
                next = next_input(&mut self.input), if room && self.input.is_some() => {
                    let Some(request) = next else {
                        self.input = None;
                        continue;
                    };
                    if let Err(error) = self.send(request).await {
                        return Some(self.failed(&error));
                    }
                }
                () = sleep_until(deadline), if waiting => {
                    if let Some(call) = self.in_flight.front() {
                        self.link.suspect(call).await;
                    }
                    let error = CallError::Timeout(self.route.addr.clone());
                    return Some(self.failed(&error));
                }
            }
        }
    }

    async fn send(&mut self, request: AppendEntriesRequest<TypeConfig>) -> Result<(), CallError> {
        let (append, payloads) = dismantle(self.stream, request);
        if self.in_flight.is_empty() {
            self.quiet_since = Instant::now();
        }
        let deadline = Instant::now() + self.idle;
        let request = Request::Append(append);
        let call = self.link.start(&self.route, &request, &payloads, deadline).await?;
        self.in_flight.push_back(call);
        Ok(())
    }

    fn judge(&self, answer: Result<(Response, Bytes), CallError>) -> AppendResult {
        match answer {
            Ok((Response::Appended(matched), _)) => Ok(Ok(matched.map(LogId::from))),
            Ok((Response::Conflict(at), _)) => {
                Ok(Err(StreamAppendError::Conflict(LogId::from(at))))
            }
            Ok((Response::HigherVote(vote), _)) => {
                Ok(Err(StreamAppendError::HigherVote(Vote::from(vote))))
            }
            Ok((other, _)) => Err(unexpected(&other)),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &CallError) -> AppendResult {
        self.network.peers.note(self.network.target, Some(error));
        Err(rpc_error(error))
    }
}

async fn next_call(calls: &mut VecDeque<Call>) -> Result<(Response, Bytes), CallError> {
    match calls.front_mut() {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}

async fn next_input<S: Stream + Unpin>(input: &mut Option<S>) -> Option<S::Item> {
    match input {
        Some(input) => input.next().await,
        None => None,
    }
}

/// An append without its payloads, and the payloads.
fn dismantle(stream: u64, request: AppendEntriesRequest<TypeConfig>) -> (Append, Vec<Bytes>) {
    let mut payloads = Vec::with_capacity(request.entries.len());
    let heads = request.entries.into_iter().map(|entry| {
        let body = match entry.payload {
            RaftPayload::Blank => EntryBody::Blank,
            RaftPayload::Normal(encoded) => {
                let len = u32::try_from(encoded.0.len()).expect("an entry is far below 4 GiB");
                payloads.push(encoded.0);
                EntryBody::Normal(len)
            }
            RaftPayload::Membership(membership) => {
                EntryBody::Membership(WireMembership::from(&membership))
            }
        };
        EntryHead { log_id: WireLogId::from(&entry.log_id), body }
    });
    let entries = heads.collect();
    let append = Append {
        stream,
        vote: WireVote::from(&request.vote),
        prev_log_id: request.prev_log_id.as_ref().map(WireLogId::from),
        leader_commit: request.leader_commit.as_ref().map(WireLogId::from),
        entries,
    };
    (append, payloads)
}

/// The reverse of [`dismantle`]. Payloads stay where they are in the frame.
pub(crate) fn assemble(
    append: Append,
    mut payloads: Bytes,
) -> Result<AppendEntriesRequest<TypeConfig>, String> {
    let mut entries = Vec::with_capacity(append.entries.len());
    for head in append.entries {
        let payload = match head.body {
            EntryBody::Blank => RaftPayload::Blank,
            EntryBody::Normal(len) => {
                if payloads.len() < len as usize {
                    return Err("an append is shorter than it says".to_owned());
                }
                let bytes = payloads.split_to(len as usize);
                RaftPayload::Normal(crate::storage::EncodedEntry(bytes))
            }
            EntryBody::Membership(membership) => {
                RaftPayload::Membership(membership.into_membership()?)
            }
        };
        entries.push(RaftEntry { log_id: LogId::from(head.log_id), payload });
    }
    Ok(AppendEntriesRequest {
        vote: Vote::from(append.vote),
        prev_log_id: append.prev_log_id.map(LogId::from),
        entries,
        leader_commit: append.leader_commit.map(LogId::from),
    })
}

/// What openraft is told of a failure. "Unreachable" makes it pause, the rest is tried again.
pub(crate) fn rpc_error(error: &CallError) -> RaftRpcError {
    match error {
        CallError::Unreachable(_) | CallError::Refused(_) => {
            RPCError::Unreachable(Unreachable::from_string(error))
        }
        CallError::Lost(_) | CallError::Timeout(_) | CallError::Malformed(_) => {
            RPCError::Network(NetworkError::from_string(error))
        }
    }
}

fn unexpected(response: &Response) -> RaftRpcError {
    RPCError::Network(NetworkError::from_string(format!("an unexpected answer: {response:?}")))
}
