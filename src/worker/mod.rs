//! The reference worker: a node that executes any program.
//!
//! It registers over the public API, takes dispatches (contract 6, row 5), answers at once with an
//! acknowledgement, runs the program and reports the end of the attempt until the cluster has
//! recorded it or called it stale. It knows several members and outlives any of them.
//!
//! Invariants: an attempt runs at most once per run of the worker; of one task at most one attempt
//! runs; at most `concurrency` programs run; an ended attempt is reported until somebody decides.

mod book;
mod http;
mod link;
mod report;
mod wire;

pub(crate) mod exec;
pub mod sample;
pub mod swarm;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{Client, ClientError};
use crate::clock;
use book::Book;

/// What happens to the registration when the worker leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Farewell {
    /// It is removed: right for workers that come and go under random names.
    #[default]
    Remove,
    /// It stays as `offline`, with its history: right for machines that come back.
    Offline,
}

/// How a worker runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name for itself; `None` draws one.
    pub node_id: Option<String>,
    /// Programs by task type, run through `sh -c`; the type `*` takes what no other does.
    pub programs: BTreeMap<String, String>,
    /// What programs find in their environment beside what their task says.
    pub environment: Vec<(&'static str, String)>,
    /// Capabilities beside the task types.
    pub capabilities: Vec<String>,
    /// Where dispatches are taken.
    pub listen: SocketAddr,
    /// `host:port` the leader reaches it at; `None` for the address it listens on.
    pub advertise: Option<String>,
    /// The most programs at once.
    pub concurrency: u32,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// How long a leaving worker lets its programs finish.
    pub drain_timeout: Duration,
    /// What it says when it leaves.
    pub farewell: Farewell,
}

/// Why a worker could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options make no sense.
    #[error("{0}")]
    Options(String),
    /// The listener.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// As asked for.
        addr: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The cluster decided against the registration.
    #[error("the cluster refused the registration: {0}")]
    Register(ClientError),
}

/// What all parts of one worker share.
struct Shared {
    node_id: String,
    /// Tells this run of the program from an earlier one under the same name.
    instance: String,
    host: String,
    port: u16,
    options: Options,
    client: Client,
    book: Book,
    /// Programs and reports on their way.
    tasks: TaskTracker,
    /// No more work is taken.
    draining: CancellationToken,
    /// Programs are killed, reports given up.
    abort: CancellationToken,
    started: tokio::time::Instant,
}

/// A running worker.
pub struct Worker {
    shared: Arc<Shared>,
    listener: TcpListener,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("node_id", &self.shared.node_id).finish_non_exhaustive()
    }
}

impl Worker {
    /// Opens the listener. Nothing is registered yet.
    ///
    /// # Errors
    /// [`Error::Options`] and [`Error::Listen`].
    pub async fn bind(options: Options, client: Client) -> Result<Self, Error> {
        if options.programs.is_empty() {
            return Err(Error::Options("a worker needs at least one program".to_owned()));
        }
        if options.concurrency == 0 {
            return Err(Error::Options("concurrency is at least 1".to_owned()));
        }
        let addr = options.listen;
        let listening = async { TcpListener::bind(addr).await.map(|l| (l.local_addr(), l)) };
        let failed = |source| Error::Listen { addr, source };
        let (bound, listener) = listening.await.map_err(failed)?;
        let (host, port) = advertised(&options, bound.map_err(failed)?, &client)?;
        let node_id = options.node_id.clone();
        let shared = Shared {
            node_id: node_id.unwrap_or_else(|| format!("worker_{:08x}", clock::random() as u32)),
            instance: format!("{:016x}", clock::random()),
            host,
            port,
            book: Book::new(options.concurrency as usize),
            options,
            client,
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            abort: CancellationToken::new(),
            started: tokio::time::Instant::now(),
        };
        Ok(Self { shared: Arc::new(shared), listener })
    }

    /// Its name.
    #[must_use]
    pub fn node_id(&self) -> &str {
        &self.shared.node_id
    }

    /// `host:port` the leader reaches it at.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.shared.host, self.shared.port)
    }

    /// Makes the worker leave: cancel it once to drain.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.shared.draining.clone()
    }

    /// Makes a leaving worker kill what it runs instead of waiting.
    #[must_use]
    pub fn abort_token(&self) -> CancellationToken {
        self.shared.abort.clone()
    }

    /// Registers and works until [`Worker::stop_token`] is cancelled and everything is drained.
    ///
    /// # Errors
    /// [`Error::Register`] when the cluster refuses it for good.
    pub async fn run(self) -> Result<(), Error> {
        let Self { shared, listener } = self;
        let closed = CancellationToken::new();
        let router = http::router(Arc::clone(&shared));
        let until_closed = closed.clone();
        let server = tokio::spawn(async move {
            let served = axum::serve(listener, router)
                .with_graceful_shutdown(async move { until_closed.cancelled().await })
                .await;
            if let Err(error) = served {
                tracing::error!(%error, "the listener failed");
            }
        });
        let result = live(&shared, &closed).await;
        closed.cancel();
        // Kept-alive connections of the dispatcher may never end by themselves.
        if tokio::time::timeout(Duration::from_secs(1), server).await.is_err() {
            tracing::debug!("connections were cut");
        }
        result
    }
}

/// Registration, heartbeats, drain: the whole life behind the listener.
async fn live(shared: &Arc<Shared>, closed: &CancellationToken) -> Result<(), Error> {
    let registered = tokio::select! {
        biased;
        () = shared.draining.cancelled() => return Ok(()),
        registered = link::register(shared) => registered,
    };
    registered.map_err(Error::Register)?;
    let heart = tokio::spawn(link::heartbeats(Arc::clone(shared), closed.clone()));
    shared.draining.cancelled().await;
    tracing::info!(running = shared.book.running(), "draining");
    drain(shared).await;
    closed.cancel();
    if heart.await.is_err() {
        tracing::error!("the heartbeats panicked");
    }
    link::farewell(shared).await;
    Ok(())
}

/// Lets programs finish and their ends be reported; past the limit, kills and reports that.
async fn drain(shared: &Shared) {
    shared.tasks.close();
    tokio::select! {
        biased;
        () = shared.tasks.wait() => return,
        () = shared.abort.cancelled() => {}
        () = tokio::time::sleep(shared.options.drain_timeout) => {}
    }
    tracing::warn!(running = shared.book.running(), "killing what still runs");
    shared.book.kill_all();
    // Killed attempts are reported as failed, so that the cluster need not wait for their timeout.
    let reported = tokio::time::timeout(Duration::from_secs(5), shared.tasks.wait()).await;
    if reported.is_err() {
        tracing::warn!("some ends could not be reported");
        shared.abort.cancel();
    }
}

fn advertised(
    options: &Options,
    bound: SocketAddr,
    client: &Client,
) -> Result<(String, u16), Error> {
    let Some(text) = &options.advertise else {
        if bound.ip().is_unspecified() {
            let what = format!("{bound} is no address others can reach: give --advertise");
            return Err(Error::Options(what));
        }
        // It would be taken for a node that works, while the leader calls its own machine.
        if let Some(url) = client.elsewhere().filter(|_| bound.ip().is_loopback()) {
            let what = format!(
                "a member at {url} cannot call {bound}: give --listen 0.0.0.0:PORT and --advertise \
                 HOST:PORT (or --advertise 127.0.0.1 when every member is on this machine)"
            );
            return Err(Error::Options(what));
        }
        return Ok((bound.ip().to_string(), bound.port()));
    };
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let port = if port.is_empty() { Ok(bound.port()) } else { port.parse() };
    match port {
        Ok(port) if !host.is_empty() => Ok((host.to_owned(), port)),
        _ => Err(Error::Options(format!("`{text}` is not host:port"))),
    }
}
