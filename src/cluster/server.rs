//! The peer listener: takes connections, shakes hands, and hands requests on.
//!
//! Appends are taken in order, stream by stream, so that many are in flight; snapshots piece by
//! piece; everything else is answered as it comes, at most a bounded number at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use openraft::raft::{AppendEntriesRequest, StreamAppendError};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::codec::{Framed, FramedRead};
use tokio_util::sync::CancellationToken;

use super::answers;
use super::core::Core;
use super::frame::{self, Frame};
use super::link::write_frames;
use super::mirror::{WireLogId, WireVote};
use super::net::{BoxedStream, Listener};
use super::network::assemble;
use super::snapshots::Incoming;
use super::wire::{Append, Hello, Refusal, RefusalCode, Request, Response, Welcome};
use crate::storage::TypeConfig;

/// How long a caller may take to introduce itself.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that is silent for so long is closed; its owner connects again when needed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// The pause after a failed accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Requests being answered at once on one connection.
const ANSWERING_MAX: usize = 1024;
/// Answers waiting to be written.
const OUT_QUEUE: usize = 256;
/// Appends of one stream waiting for Raft.
const STREAM_QUEUE: usize = 64;

/// Takes connections until the member stops.
pub(crate) async fn serve(core: Arc<Core>, mut listener: Box<dyn Listener>) {
    let slots = Arc::new(Semaphore::new(core.options.limits.connections));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let core_of_task = Arc::clone(&core);
                core.spawn(async move {
                    converse(core_of_task, stream, from).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a peer connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(core: Arc<Core>, stream: BoxedStream, from: String) {
    let faults = Arc::clone(&core.peers.faults);
    let Ok(Some((hello, stream))) = timeout(HELLO_TIMEOUT, welcome(&core, stream, &from)).await
    else {
        return;
    };
    let stream = faults.gate(stream, hello.sender);
    let (read, write) = tokio::io::split(stream);
    let (out, answers) = mpsc::channel(OUT_QUEUE);
    let stop = CancellationToken::new();
    let _stop_writer = stop.clone().drop_guard();
    tokio::spawn(write_frames(write, answers, stop.clone()));
    let mut frames = FramedRead::new(read, frame::codec());
    let mut session = Session {
        core,
        hello: Arc::new(hello),
        out,
        answering: Arc::new(Semaphore::new(ANSWERING_MAX)),
        appends: None,
        snapshot: None,
    };
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            next = timeout(IDLE_TIMEOUT, frames.next()) => next,
        };
        let Ok(Some(Ok(bytes))) = next else { return };
        let Ok(frame) = frame::split(bytes.freeze()) else { return };
        session.take(frame).await;
    }
}

/// Hears who calls and answers whether it may speak.
async fn welcome(core: &Core, stream: BoxedStream, from: &str) -> Option<(Hello, BoxedStream)> {
    core.peers.faults.crossing(0).await;
    let mut framed = Framed::new(stream, frame::codec());
    let first = framed.next().await?.ok()?;
    let hello: Hello = frame::split(first.freeze()).ok()?.decode().ok()?;
    core.peers.faults.crossing(hello.sender).await;
    let verdict = core.peers.admit(&hello);
    let answer = match &verdict {
        Ok(()) => Welcome::Accepted,
        Err(refusal) => Welcome::Refused(refusal.clone()),
    };
    let bytes = frame::encode(0, &answer, &[]).ok()?;
    framed.send(bytes.slice(4..)).await.ok()?;
    if let Err(refusal) = verdict {
        log_refusal(core, &hello, from, &refusal);
        return None;
    }
    // The caller waits for the welcome before it speaks, so nothing is left in the buffer.
    Some((hello, framed.into_inner()))
}

fn log_refusal(core: &Core, hello: &Hello, from: &str, refusal: &Refusal) {
    if core.peers.may_log(&format!("from {}", hello.name), refusal.code) {
        tracing::warn!(peer = hello.sender, name = %hello.name, from, code = refusal.code.as_str(),
            text = %refusal.text, "turned a peer away");
    }
}

/// One connection.
struct Session {
    core: Arc<Core>,
    hello: Arc<Hello>,
    out: mpsc::Sender<Bytes>,
    answering: Arc<Semaphore>,
    appends: Option<AppendSession>,
    snapshot: Option<Incoming>,
}

/// One stream of appends.
struct AppendSession {
    stream: u64,
    /// Dropped to end the stream.
    requests: mpsc::Sender<AppendEntriesRequest<TypeConfig>>,
    correlations: mpsc::Sender<u64>,
}

impl Session {
    async fn take(&mut self, frame: Frame) {
        let correlation = frame.correlation;
        let request: Request = match frame.decode() {
            Ok(request) => request,
            Err(error) => {
                let refusal = Refusal::new(RefusalCode::BadRequest, error.to_string());
                return answer(&self.out, correlation, Response::Refused(refusal)).await;
            }
        };
        if let Err(refusal) = self.core.peers.admit_request(&self.hello, &request) {
            log_refusal(&self.core, &self.hello, "a living connection", &refusal);
            return answer(&self.out, correlation, Response::Refused(refusal)).await;
        }
        match request {
            Request::Append(append) => self.append(correlation, append, frame.attachment).await,
            Request::SnapshotBegin { vote, meta } => {
                let begun = Incoming::begin(&self.core, vote, meta);
                let response = match begun {
                    Ok(incoming) => {
                        self.snapshot = Some(incoming);
                        Response::SnapshotTaken { vote: None }
                    }
                    Err(refusal) => Response::Refused(refusal),
                };
                answer(&self.out, correlation, response).await;
            }
            Request::SnapshotChunk { offset } => {
                let response = match &mut self.snapshot {
                    Some(incoming) => incoming.chunk(offset, &frame.attachment),
                    None => no_snapshot(),
                };
                answer(&self.out, correlation, response).await;
            }
            Request::SnapshotFinish { len } => {
                let response = match self.snapshot.take() {
                    Some(incoming) => incoming.finish(&self.core, len).await,
                    None => no_snapshot(),
                };
                answer(&self.out, correlation, response).await;
            }
            Request::Vote(_)
            | Request::PreVote(_)
            | Request::TransferLeader { .. }
            | Request::Propose { .. }
            | Request::ReadIndex
            | Request::Beats { .. }
            | Request::Probe
            | Request::Join { .. }
            | Request::Enlist { .. }
            | Request::Found { .. }
            | Request::Change { .. }
            | Request::Announce { .. }
            | Request::Diverged { .. } => {
                self.answer_later(correlation, request, frame.attachment).await
            }
        }
    }

    async fn answer_later(&self, correlation: u64, request: Request, attachment: Bytes) {
        let Ok(slot) = Arc::clone(&self.answering).try_acquire_owned() else {
            let refusal = Refusal::new(RefusalCode::Busy, "too many requests on one connection");
            return answer(&self.out, correlation, Response::Refused(refusal)).await;
        };
        let (core, hello, out) =
            (Arc::clone(&self.core), Arc::clone(&self.hello), self.out.clone());
        self.core.spawn(async move {
            let response = answers::answer(&core, &hello, request, attachment).await;
            answer(&out, correlation, response).await;
            drop(slot);
        });
    }

    async fn append(&mut self, correlation: u64, append: Append, payloads: Bytes) {
        let stream = append.stream;
        let request = match assemble(append, payloads) {
            Ok(request) => request,
            Err(text) => {
                let refusal = Refusal::new(RefusalCode::BadRequest, text);
                return answer(&self.out, correlation, Response::Refused(refusal)).await;
            }
        };
        if self.appends.as_ref().is_none_or(|session| session.stream != stream) {
            self.appends = self.start_stream(stream);
        }
        let taken = match &self.appends {
            Some(session) => {
                session.correlations.send(correlation).await.is_ok()
                    && session.requests.send(request).await.is_ok()
            }
            None => false,
        };
        if !taken {
            // The stream ended with an error that its sender was told of.
            let refusal = Refusal::new(RefusalCode::NotReady, "the append stream has ended");
            answer(&self.out, correlation, Response::Refused(refusal)).await;
        }
    }

    fn start_stream(&self, stream: u64) -> Option<AppendSession> {
        let raft = self.core.raft()?;
        let (requests, input) = mpsc::channel(STREAM_QUEUE);
        let (correlations, order) = mpsc::channel(2 * STREAM_QUEUE);
        let input = futures::stream::unfold(input, |mut input| async move {
            input.recv().await.map(|request| (request, input))
        });
        let results = raft.stream_append(input);
        let (core, out) = (Arc::clone(&self.core), self.out.clone());
        self.core.spawn(answer_stream(core, results, order, out));
        Some(AppendSession { stream, requests, correlations })
    }
}

fn no_snapshot() -> Response {
    Response::Refused(Refusal::new(RefusalCode::BadRequest, "no snapshot was begun"))
}

/// Sends Raft's answers back, in the order of the requests.
async fn answer_stream<S>(
    core: Arc<Core>,
    results: S,
    mut order: mpsc::Receiver<u64>,
    out: mpsc::Sender<Bytes>,
) where
    S: futures::Stream<
            Item = Result<
                openraft::raft::StreamAppendResult<TypeConfig>,
                openraft::errors::Fatal<TypeConfig>,
            >,
        >,
{
    futures::pin_mut!(results);
    while let Some(correlation) = order.recv().await {
        let Some(result) = results.next().await else { return };
        let response = match result {
            Ok(Ok(matched)) => {
                core.touch();
                Response::Appended(matched.map(WireLogId::from))
            }
            Ok(Err(StreamAppendError::Conflict(at))) => Response::Conflict(WireLogId::from(at)),
            Ok(Err(StreamAppendError::HigherVote(vote))) => {
                Response::HigherVote(WireVote::from(&vote))
            }
            Err(fatal) => Response::Refused(Refusal::new(RefusalCode::Stopping, fatal.to_string())),
        };
        answer(&out, correlation, response).await;
    }
}

async fn answer(out: &mpsc::Sender<Bytes>, correlation: u64, response: Response) {
    let bytes = match frame::encode(correlation, &response, &[]) {
        Ok(bytes) => bytes,
        Err(error) => {
            let refusal = Refusal::new(RefusalCode::BadRequest, error.to_string());
            match frame::encode(correlation, &Response::Refused(refusal), &[]) {
                Ok(bytes) => bytes,
                Err(_) => return,
            }
        }
    };
    // The connection may be gone; then nobody waits for the answer.
    drop(out.send(bytes).await);
}
