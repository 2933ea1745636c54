//! One connection to a peer, shared by many requests in flight.
//!
//! A [`Link`] connects when it is first used and again after a loss, at most every few hundred
//! milliseconds. A request that was not answered says whether it may have been received: that
//! difference decides between "not started" and "unknown" for whoever waits for a proposal.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::codec::{Framed, FramedRead};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::faults::Faults;
use super::frame::{self, Frame};
use super::net::{BoxedStream, Net};
use super::wire::{Hello, Refusal, Request, Response, Welcome};

/// Frames waiting to be written to one peer.
const OUT_QUEUE: usize = 256;
/// Bytes gathered for one write.
const WRITE_BYTES: usize = 256 << 10;
/// The first pause after a failed connect; it doubles up to [`BACK_OFF_MAX`].
const BACK_OFF_MIN: Duration = Duration::from_millis(20);
/// The longest pause between two attempts to connect. Short, because a healed network must not
/// wait for us.
const BACK_OFF_MAX: Duration = Duration::from_millis(160);
/// The longest a connect and its handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1000);

/// Why a request has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallError {
    /// The peer cannot have received it.
    #[error("cannot reach {0}")]
    Unreachable(String),
    /// The peer turned it away.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection was lost; the peer may have received it.
    #[error("the connection to {0} was lost")]
    Lost(String),
    /// No answer in time; the peer may have received it.
    #[error("no answer from {0} in time")]
    Timeout(String),
    /// It could not be encoded, or the answer not decoded.
    #[error("{0}")]
    Malformed(String),
}

impl CallError {
    /// Whether the peer certainly never acted on it.
    pub(crate) fn never_received(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Refused(_) => true,
            Self::Lost(_) | Self::Timeout(_) | Self::Malformed(_) => false,
        }
    }
}

/// Where a link leads: decided anew for each connect, because members move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// `host:port` of the peer listener.
    pub addr: String,
    /// How this member introduces itself.
    pub hello: Hello,
}

/// A connection that comes back.
pub(crate) struct Link {
    net: Arc<dyn Net>,
    faults: Arc<Faults>,
    slot: tokio::sync::Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    live: Option<Arc<Connection>>,
    failures: u32,
    retry_at: Option<Instant>,
}

impl Link {
    pub(crate) fn new(net: Arc<dyn Net>, faults: Arc<Faults>) -> Self {
        Self { net, faults, slot: tokio::sync::Mutex::new(Slot::default()) }
    }

    /// Asks and waits for the answer, until `deadline`.
    pub(crate) async fn call(
        &self,
        route: &Route,
        request: &Request,
        attachment: &[Bytes],
        deadline: Instant,
    ) -> Result<(Response, Bytes), CallError> {
        let call = self.start(route, request, attachment, deadline).await?;
        self.finish(call, deadline).await
    }

    /// Sends; the answer is awaited with [`Link::finish`] or by polling the call.
    pub(crate) async fn start(
        &self,
        route: &Route,
        request: &Request,
        attachment: &[Bytes],
        deadline: Instant,
    ) -> Result<Call, CallError> {
        let connection = self.connection(route, deadline).await?;
        connection.send(request, attachment, deadline).await
    }

    /// Waits for the answer. A peer that said nothing at all since is given up: the next request
    /// connects anew.
    pub(crate) async fn finish(
        &self,
        mut call: Call,
        deadline: Instant,
    ) -> Result<(Response, Bytes), CallError> {
        match timeout_at(deadline, &mut call).await {
            Ok(answer) => answer,
            Err(_elapsed) => {
                self.suspect(&call).await;
                Err(CallError::Timeout(call.connection.addr.clone()))
            }
        }
    }

    /// Drops the connection when nothing was heard on it since `call` was sent.
    pub(crate) async fn suspect(&self, call: &Call) {
        if call.connection.heard.load(Ordering::Relaxed) != call.heard_before {
            return;
        }
        let mut slot = self.slot.lock().await;
        if slot.live.as_ref().is_some_and(|live| Arc::ptr_eq(live, &call.connection)) {
            slot.live = None;
        }
        call.connection.stop.cancel();
    }

    async fn connection(
        &self,
        route: &Route,
        deadline: Instant,
    ) -> Result<Arc<Connection>, CallError> {
        let unreachable = |why: &str| CallError::Unreachable(format!("{}: {why}", route.addr));
        let mut slot = timeout_at(deadline, self.slot.lock())
            .await
            .map_err(|_elapsed| unreachable("still connecting"))?;
        if let Some(live) = &slot.live
            && !live.stop.is_cancelled()
            && live.route == *route
        {
            return Ok(Arc::clone(live));
        }
        slot.live = None;
        if slot.retry_at.is_some_and(|at| Instant::now() < at) {
            return Err(unreachable("pausing after a failed connect"));
        }
        // Counted before the attempt, so that a caller who gives up in the middle of it leaves
        // the pause behind.
        let pause = BACK_OFF_MIN.saturating_mul(1 << slot.failures.min(8)).min(BACK_OFF_MAX);
        slot.failures = slot.failures.saturating_add(1);
        slot.retry_at = Some(Instant::now() + pause);
        let limit = deadline.min(Instant::now() + CONNECT_TIMEOUT);
        match timeout_at(limit, Connection::open(&*self.net, &self.faults, route)).await {
            Ok(Ok(connection)) => {
                let connection = Arc::new(connection);
                *slot = Slot { live: Some(Arc::clone(&connection)), failures: 0, retry_at: None };
                Ok(connection)
            }
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err(unreachable("connect timed out")),
        }
    }
}

/// A live connection.
pub(crate) struct Connection {
    addr: String,
    route: Route,
    out: mpsc::Sender<Bytes>,
    waiting: Arc<Waiting>,
    next: AtomicU64,
    heard: Arc<AtomicU64>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// Requests without an answer yet; `None` once the connection is gone.
struct Waiting(Mutex<Option<BTreeMap<u64, oneshot::Sender<Frame>>>>);

impl Connection {
    /// Connects, shakes hands, and starts the two tasks that read and write.
    pub(crate) async fn open(
        net: &dyn Net,
        faults: &Arc<Faults>,
        route: &Route,
    ) -> Result<Self, CallError> {
        let unreachable = |why: String| CallError::Unreachable(format!("{}: {why}", route.addr));
        faults.crossing(route.hello.target).await;
        let stream =
            net.connect(&route.addr).await.map_err(|error| unreachable(error.to_string()))?;
        let stream = faults.gate(stream, route.hello.target);
        let stream = shake_hands(stream, route).await?;
        let (read, write) = tokio::io::split(stream);
        let (out, frames) = mpsc::channel(OUT_QUEUE);
        let waiting = Arc::new(Waiting(Mutex::new(Some(BTreeMap::new()))));
        let heard = Arc::new(AtomicU64::new(0));
        let stop = CancellationToken::new();
        tokio::spawn(write_frames(write, frames, stop.clone()));
        tokio::spawn(read_answers(read, Arc::clone(&waiting), Arc::clone(&heard), stop.clone()));
        Ok(Self {
            addr: route.addr.clone(),
            route: route.clone(),
            out,
            waiting,
            next: AtomicU64::new(1),
            heard,
            stop: stop.clone(),
            _stop_on_drop: stop.drop_guard(),
        })
    }

    async fn send(
        self: &Arc<Self>,
        request: &Request,
        attachment: &[Bytes],
        deadline: Instant,
    ) -> Result<Call, CallError> {
        let correlation = self.next.fetch_add(1, Ordering::Relaxed);
        let bytes = frame::encode(correlation, request, attachment)
            .map_err(|error| CallError::Malformed(error.to_string()))?;
        let (answer, receive) = oneshot::channel();
        match &mut *self.waiting.0.lock() {
            Some(waiting) => waiting.insert(correlation, answer),
            None => return Err(CallError::Unreachable(format!("{}: just lost", self.addr))),
        };
        let call = Call {
            connection: Arc::clone(self),
            correlation,
            heard_before: self.heard.load(Ordering::Relaxed),
            answer: receive,
        };
        match timeout_at(deadline, self.out.send(bytes)).await {
            Ok(Ok(())) => Ok(call),
            Ok(Err(_closed)) => Err(CallError::Unreachable(format!("{}: just lost", self.addr))),
            Err(_elapsed) => {
                Err(CallError::Unreachable(format!("{}: it reads nothing", self.addr)))
            }
        }
    }
}

/// A request on its way. Dropping it forgets the answer.
pub(crate) struct Call {
    connection: Arc<Connection>,
    correlation: u64,
    heard_before: u64,
    answer: oneshot::Receiver<Frame>,
}

impl Future for Call {
    type Output = Result<(Response, Bytes), CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(context).map(|answer| {
            let frame = answer.map_err(|_gone| CallError::Lost(self.connection.addr.clone()))?;
            match frame.decode::<Response>() {
                Ok(Response::Refused(refusal)) => Err(CallError::Refused(refusal)),
                Ok(response) => Ok((response, frame.attachment)),
                Err(error) => Err(CallError::Malformed(error.to_string())),
            }
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(waiting) = &mut *self.connection.waiting.0.lock() {
            waiting.remove(&self.correlation);
        }
    }
}

async fn shake_hands(stream: BoxedStream, route: &Route) -> Result<BoxedStream, CallError> {
    let lost = || CallError::Unreachable(format!("{}: the handshake was cut short", route.addr));
    let malformed = |error: frame::FrameError| CallError::Malformed(error.to_string());
    let mut framed = Framed::new(stream, frame::codec());
    let hello = frame::encode(0, &route.hello, &[]).map_err(malformed)?;
    // The codec writes the length itself.
    framed.send(hello.slice(4..)).await.map_err(|_error| lost())?;
    let answer = framed.next().await.ok_or_else(lost)?.map_err(|_error| lost())?;
    let welcome = frame::split(answer.freeze()).and_then(|frame| frame.decode::<Welcome>());
    match welcome.map_err(malformed)? {
        // The other side does not speak before it is asked, so nothing can be left in the buffer.
        Welcome::Accepted => Ok(framed.into_inner()),
        Welcome::Refused(refusal) => Err(CallError::Refused(refusal)),
    }
}

/// Writes frames, as many at once as are waiting.
pub(crate) async fn write_frames<W: AsyncWrite + Unpin>(
    mut write: W,
    mut frames: mpsc::Receiver<Bytes>,
    stop: CancellationToken,
) {
    let mut buffer = Vec::with_capacity(WRITE_BYTES);
    loop {
        let first = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            frame = frames.recv() => match frame {
                Some(frame) => frame,
                None => break,
            },
        };
        buffer.clear();
        buffer.extend_from_slice(&first);
        while buffer.len() < WRITE_BYTES {
            let Ok(frame) = frames.try_recv() else { break };
            buffer.extend_from_slice(&frame);
        }
        let written = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            written = async { write.write_all(&buffer).await?; write.flush().await } => written,
        };
        if written.is_err() {
            break;
        }
        if buffer.capacity() > 4 * WRITE_BYTES {
            buffer = Vec::with_capacity(WRITE_BYTES);
        }
    }
    stop.cancel();
    drop(write.shutdown().await);
}

async fn read_answers<R: AsyncRead + Unpin>(
    read: R,
    waiting: Arc<Waiting>,
    heard: Arc<AtomicU64>,
    stop: CancellationToken,
) {
    let mut frames = FramedRead::new(read, frame::codec());
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            next = frames.next() => next,
        };
        let Some(Ok(bytes)) = next else { break };
        let Ok(frame) = frame::split(bytes.freeze()) else { break };
        heard.fetch_add(1, Ordering::Relaxed);
        let answer = match &mut *waiting.0.lock() {
            Some(waiting) => waiting.remove(&frame.correlation),
            None => None,
        };
        // Nobody waits any more when the call was given up.
        if let Some(answer) = answer {
            drop(answer.send(frame));
        }
    }
    stop.cancel();
    // Dropping the senders tells every waiting call that the connection is lost.
    drop(waiting.0.lock().take());
}
