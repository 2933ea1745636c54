//! Snapshots between members: read and sent in pieces, each answered before the next, so that one
//! can be given up at any time and no member holds more than a piece of it in memory.

use std::time::Duration;

use bytes::Bytes;
use openraft::errors::StreamingError;
use openraft::type_config::alias::SnapshotOf;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

use super::core::{Core, Counters};
use super::link::{CallError, Link, Route};
use super::mirror::{WireSnapshotMeta, WireVote};
use super::network::rpc_error;
use super::wire::{Refusal, RefusalCode, Request, Response};
pub(crate) use crate::storage::SnapshotData;
use crate::storage::{SnapshotReceiver, TypeConfig, Vote};

/// What times are counted by, in bytes: how a snapshot is cut does not change how long it may take.
const SHARE_BYTES: u64 = 1 << 20;
/// How long the receiver may take to check and install the whole: so long,
const INSTALL_TIMEOUT: Duration = Duration::from_secs(2);
/// and so much longer for each [`SHARE_BYTES`] of it. A receiver that went away without a word is
/// noticed by this alone, and gets nothing else meanwhile.
const INSTALL_TIMEOUT_PER_SHARE: Duration = Duration::from_secs(1);

/// Why a snapshot did not arrive.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The peer did not take it.
    Call(CallError),
    /// It could not be read here.
    Read(std::io::Error),
}

impl SendError {
    pub(crate) fn call(&self) -> Option<&CallError> {
        match self {
            Self::Call(error) => Some(error),
            Self::Read(_) => None,
        }
    }

    pub(crate) fn into_raft(self) -> StreamingError<TypeConfig> {
        match self {
            Self::Call(error) => rpc_error(&error).into(),
            Self::Read(error) => {
                StreamingError::Network(openraft::errors::NetworkError::new(&error))
            }
        }
    }
}

impl From<CallError> for SendError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// How many times [`SHARE_BYTES`] there are in `bytes`, begun ones included.
fn shares(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(SHARE_BYTES)).unwrap_or(u32::MAX)
}

/// How a snapshot is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pieces {
    /// Bytes of each piece but the last.
    pub(crate) bytes: u64,
    /// How long the receiver may take to answer for each [`SHARE_BYTES`] of a piece.
    pub(crate) limit: Duration,
}

/// Sends a snapshot and waits until it is installed; the receiver's vote comes back.
pub(crate) async fn send(
    link: &Link,
    route: &Route,
    vote: &Vote,
    snapshot: SnapshotOf<TypeConfig, SnapshotData>,
    pieces: Pieces,
) -> Result<Vote, SendError> {
    let meta = WireSnapshotMeta::from(&snapshot.meta);
    let data = snapshot.snapshot;
    let len = data.len();
    tracing::info!(peer = route.hello.target, bytes = len, "sending a snapshot");
    let begin = Request::SnapshotBegin { vote: WireVote::from(vote), meta };
    link.call(route, &begin, &[], Instant::now() + pieces.limit).await?;
    let mut offset = 0;
    while offset < len {
        let piece = data.read_at(offset, pieces.bytes).map_err(SendError::Read)?;
        let request = Request::SnapshotChunk { offset };
        offset += piece.len() as u64;
        let limit = pieces.limit.saturating_mul(shares(piece.len() as u64));
        link.call(route, &request, &[piece], Instant::now() + limit).await?;
    }
    let finish = Request::SnapshotFinish { len };
    let install_timeout = INSTALL_TIMEOUT + INSTALL_TIMEOUT_PER_SHARE.saturating_mul(shares(len));
    match link.call(route, &finish, &[], Instant::now() + install_timeout).await? {
        (Response::SnapshotTaken { vote: Some(vote) }, _) => Ok(Vote::from(vote)),
        (other, _) => Err(CallError::Malformed(format!("an unexpected answer: {other:?}")).into()),
    }
}

/// A snapshot on its way in. Dropped with its connection.
pub(crate) struct Incoming {
    vote: WireVote,
    meta: WireSnapshotMeta,
    receiver: SnapshotReceiver,
}

fn refused(code: RefusalCode, text: impl std::fmt::Display) -> Refusal {
    Refusal::new(code, text.to_string())
}

impl Incoming {
    pub(crate) fn begin(
        core: &Core,
        vote: WireVote,
        meta: WireSnapshotMeta,
    ) -> Result<Self, Refusal> {
        if core.raft().is_none() {
            return Err(refused(RefusalCode::NotReady, "Raft does not run here yet"));
        }
        let receiver =
            core.snapshots.receive().map_err(|error| refused(RefusalCode::Stopping, error))?;
        Ok(Self { vote, meta, receiver })
    }

    pub(crate) fn chunk(&mut self, offset: u64, piece: &Bytes) -> Response {
        match self.receiver.write(offset, piece) {
            Ok(()) => Response::SnapshotTaken { vote: None },
            Err(error) => Response::Refused(refused(RefusalCode::BadRequest, error)),
        }
    }

    /// Checks what came and has Raft install it.
    pub(crate) async fn finish(self, core: &Core, len: u64) -> Response {
        match self.install(core, len).await {
            Ok(vote) => Response::SnapshotTaken { vote: Some(WireVote::from(&vote)) },
            Err(refusal) => Response::Refused(refusal),
        }
    }

    async fn install(self, core: &Core, len: u64) -> Result<Vote, Refusal> {
        let Self { vote, meta, receiver } = self;
        let raft = core
            .raft()
            .ok_or_else(|| refused(RefusalCode::NotReady, "Raft does not run here yet"))?;
        if receiver.received() != len {
            let text = format!("{} of {len} bytes of a snapshot came", receiver.received());
            return Err(refused(RefusalCode::BadRequest, text));
        }
        let data =
            check(receiver).await.map_err(|error| refused(RefusalCode::BadRequest, error))?;
        // The file says itself what it covers; a sender that says otherwise is confused.
        if WireSnapshotMeta::from(&data.meta()) != meta {
            return Err(refused(
                RefusalCode::BadRequest,
                "the snapshot is not what it was said to be",
            ));
        }
        let snapshot = openraft::Snapshot { meta: data.meta(), snapshot: data };
        tracing::info!(bytes = len, "installing a snapshot");
        match raft.install_full_snapshot(Vote::from(vote), snapshot).await {
            Ok(response) => {
                core.touch();
                Counters::add(&core.counters.snapshots_installed, 1);
                Ok(response.vote)
            }
            Err(fatal) => Err(refused(RefusalCode::Stopping, fatal)),
        }
    }
}

/// fsyncs and checks a whole snapshot: seconds of disk work for a large one, so it leaves the
/// runtime's threads, where there are several.
async fn check(receiver: SnapshotReceiver) -> std::io::Result<SnapshotData> {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => receiver.finish(),
        _threads => tokio::task::spawn_blocking(move || receiver.finish())
            .await
            .map_err(std::io::Error::other)?,
    }
}
