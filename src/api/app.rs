//! What every handler holds: the cluster, the options, the counters.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admin::Admin;
use super::bots::waits::{self, Waits};
use super::error::{ApiError, LeaderHint};
use super::host::Host;
use super::params::Params;
use super::queue_depths::{self, QueueDepths};
use super::settings::{Kept, Settings};
use super::stats::Stats;
use super::task_stats::{self, TaskStats};
use super::ticket::{Caller, Ticket};
use super::web4ai::dashboard::samples::{self, Samples};
use super::websocket::Hub;
use crate::clock;
use crate::cluster::{Cluster, Consistency, ProposeError, ReadStamp};
use crate::leader::Backups;
use crate::model::{RequestId, Services};
use crate::security::{AdminKey, Guard};
use crate::state::{Command, Outcome, Rejection, Reply, State as Tables};

/// Backups sent at once. Each reads a file of its own from the disk.
const BACKUPS_MAX: usize = 2;

/// Passwords checked at once. Each takes a core for a good part of a second.
const LOGINS_MAX: usize = 2;

/// Further lines of Prometheus text, from rooms that this one does not know.
pub type MetricsSource = Arc<dyn Fn(&mut String) + Send + Sync>;

/// Local settings of the API. What all members must agree on is in the replicated configuration.
#[derive(Clone)]
pub struct ApiOptions {
    /// The largest body accepted.
    pub body_bytes_max: usize,
    /// Requests served at once; more are refused with 503.
    pub requests_max: usize,
    /// Longest time for one answer. Longer than a proposal is held.
    pub request_timeout: Duration,
    /// Event streams served at once.
    pub streams_max: usize,
    /// Written after our own figures by the metrics endpoints.
    pub metrics: Vec<MetricsSource>,
    /// Directory whose disk the health figures speak of.
    pub data_dir: std::path::PathBuf,
    /// What callers of the doors of administrators show; without one, these stay closed.
    pub admin_key: Option<AdminKey>,
    /// Backups on a schedule.
    pub backups: Backups,
    /// Who may break this member on purpose, and how far.
    pub admin: Admin,
    /// Port of the listener that serves nothing but the WebSocket, as clients reach it.
    pub websocket_port: Option<u16>,
    /// Where tasks of workflows go, as `GET /services` lists it.
    pub services: Services,
    /// The file's sections for the fleet: who may come in before the cluster has a configuration.
    pub document: Value,
    /// What a change of the replicated configuration must pass before it is proposed, beside what the state
    /// asks of the document that comes out.
    pub check_config: fn(&Value) -> Result<(), String>,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 * 1024 * 1024,
            requests_max: 8192,
            request_timeout: Duration::from_secs(30),
            streams_max: 1024,
            metrics: Vec::new(),
            data_dir: ".".into(),
            admin_key: None,
            backups: Backups::default(),
            admin: Admin::default(),
            websocket_port: None,
            services: Services::default(),
            document: Value::Null,
            check_config: |_| Ok(()),
        }
    }
}

impl std::fmt::Debug for ApiOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiOptions")
            .field("body_bytes_max", &self.body_bytes_max)
            .field("requests_max", &self.requests_max)
            .field("request_timeout", &self.request_timeout)
            .field("streams_max", &self.streams_max)
            .finish_non_exhaustive()
    }
}

/// The state of the router. Cloning shares it.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    cluster: Cluster,
    options: ApiOptions,
    stats: Stats,
    host: Host,
    started: Instant,
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    backup_slots: Arc<Semaphore>,
    closing: CancellationToken,
    completed_at_start: u64,
    task_stats: Arc<TaskStats>,
    samples: Arc<Samples>,
    depths: Arc<QueueDepths>,
    settings: Kept,
    guard: Guard,
    logins: Semaphore,
    hub: Hub,
    waits: Arc<Waits>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let member_id = self.0.cluster.member_id();
        f.debug_struct("App").field("member_id", &member_id).finish_non_exhaustive()
    }
}

/// A write that was committed: where, and what it gave.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) index: u64,
    pub(super) outcome: Outcome,
}

impl App {
    /// An API in front of `cluster`. Must be called within a runtime; [`Self::close`] ends what
    /// it starts there.
    #[must_use]
    pub fn new(cluster: Cluster, options: ApiOptions) -> Self {
        let completed = cluster.view().read(|state| state.counters().tasks_completed);
        let (closing, task_stats) = (CancellationToken::new(), Arc::new(TaskStats::default()));
        let view = Arc::clone(cluster.view());
        tokio::spawn(task_stats::follow(Arc::clone(&task_stats), view, closing.clone()));
        let samples = Arc::new(Samples::default());
        let sampling = samples::follow(Arc::clone(&samples), cluster.clone(), closing.clone());
        tokio::spawn(sampling);
        let (depths, view) = (Arc::new(QueueDepths::default()), Arc::clone(cluster.view()));
        tokio::spawn(queue_depths::follow(Arc::clone(&depths), view, closing.clone()));
        // Whoever waits holds a place of the requests, too: half of those are for all others.
        let waits = Arc::new(Waits::new(options.requests_max / 2));
        let follower = cluster.view().events().follow(None);
        tokio::spawn(waits::follow(Arc::clone(&waits), follower, closing.clone()));
        Self(Arc::new(Inner {
            requests: Arc::new(Semaphore::new(options.requests_max)),
            streams: Arc::new(Semaphore::new(options.streams_max)),
            backup_slots: Arc::new(Semaphore::new(BACKUPS_MAX)),
            closing,
            task_stats,
            samples,
            depths,
            host: Host::new(&options.data_dir),
            stats: Stats::new(clock::now_ms()),
            started: Instant::now(),
            completed_at_start: completed,
            settings: Kept::default(),
            guard: Guard::new(&options.document),
            logins: Semaphore::new(LOGINS_MAX),
            hub: Hub::default(),
            waits,
            cluster,
            options,
        }))
    }

    /// Ends the streams that would otherwise keep a server from stopping.
    pub fn close(&self) {
        self.0.closing.cancel();
    }

    pub(super) fn closing(&self) -> &CancellationToken {
        &self.0.closing
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    pub(super) fn options(&self) -> &ApiOptions {
        &self.0.options
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.0.stats
    }

    pub(super) fn task_stats(&self) -> &TaskStats {
        &self.0.task_stats
    }

    pub(super) fn queue_depths(&self) -> &QueueDepths {
        &self.0.depths
    }

    pub(super) fn samples(&self) -> &Samples {
        &self.0.samples
    }

    pub(super) fn host(&self) -> &Host {
        &self.0.host
    }

    pub(super) fn requests(&self) -> &Semaphore {
        &self.0.requests
    }

    pub(super) fn streams(&self) -> &Arc<Semaphore> {
        &self.0.streams
    }

    pub(super) fn backup_slots(&self) -> &Arc<Semaphore> {
        &self.0.backup_slots
    }

    pub(super) fn guard(&self) -> &Guard {
        &self.0.guard
    }

    pub(super) fn logins(&self) -> &Semaphore {
        &self.0.logins
    }

    /// What the clients of the WebSocket share.
    pub(super) fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// Who waits for work or the end of a workflow.
    pub(super) fn waits(&self) -> &Waits {
        &self.0.waits
    }

    /// This member's number as it stands in answers; 0 before it has a place.
    pub(super) fn member_header(&self) -> HeaderValue {
        HeaderValue::from(self.0.cluster.member_id())
    }

    /// What the configuration in `state` says to this room.
    pub(super) fn settings(&self, state: &Tables) -> Arc<Settings> {
        self.0.settings.of(state)
    }

    pub(super) fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Completed tasks per minute since this member started.
    pub(super) fn throughput_per_minute(&self, completed: u64) -> f64 {
        let minutes = self.uptime().as_secs_f64() / 60.0;
        let done = completed.saturating_sub(self.0.completed_at_start) as f64;
        if minutes > 0.0 { done / minutes } else { 0.0 }
    }

    /// Who leads and where, for errors.
    pub(super) fn leader_hint(&self) -> Option<LeaderHint> {
        let (member, description) = self.0.cluster.leader()?;
        let http = description.http_addr;
        Some(LeaderHint { member, http: (!http.is_empty()).then_some(http) })
    }

    /// Commits a command under the ticket's id.
    ///
    /// # Errors
    /// The refusal of the state machine, or why there is no answer from it: an unknown outcome also
    /// where this write certainly was not started, but parts of the request were made before it.
    pub(super) async fn write(
        &self,
        ticket: Ticket,
        caller: &Caller,
        command: Command,
    ) -> Result<Written, ApiError> {
        let command = match ticket.print() {
            Some(print) => Command::Asked { print, command: Box::new(command) },
            None => command,
        };
        let proposed = self.0.cluster.propose(ticket.command_id(), &caller.0, command).await;
        let committed = proposed.map_err(|error| {
            let error = match error {
                _ if ticket.follows_parts() => ApiError::unknown_outcome(ticket.request_id),
                // Of tries the last one may have taken effect: what is recorded of it tells.
                ProposeError::Unknown { .. } => ApiError::unknown_outcome(ticket.command_id()),
                other => ApiError::from(other).with_request_id(ticket.request_id),
            };
            error.with_leader(self.leader_hint())
        })?;
        answered(ticket, committed.index, committed.reply)
    }

    /// Commits a command again and again, until what it gives is no `part` of what is asked for: at
    /// most `max` times. Parts that are recorded of the request are passed over, so that one that is
    /// sent again goes on where it was.
    ///
    /// # Errors
    /// As [`Self::write`]; and an unknown outcome when there is more to do, which is done when the
    /// request is sent again.
    pub(super) async fn write_parts(
        &self,
        ticket: Ticket,
        caller: &Caller,
        command: &Command,
        (part, max): (impl Fn(&Outcome) -> bool, usize),
    ) -> Result<Written, ApiError> {
        let is_made = |state: &Tables, number: usize| {
            let ticket = ticket.part(number);
            let recorded = state.request(ticket.command_id());
            let reply = recorded.map(|recorded| recorded.answer(ticket.print()));
            reply.is_some_and(|reply| reply.is_ok_and(|outcome| part(&outcome)))
        };
        let made = self.0.cluster.view().read(|state| {
            let numbers = (0..).take_while(|number| is_made(state, *number));
            numbers.count()
        });
        for number in made..made + max {
            let written = self.write(ticket.part(number), caller, command.clone()).await?;
            if !part(&written.outcome) {
                return Ok(written);
            }
        }
        Err(ApiError::unknown_outcome(ticket.request_id))
    }

    /// What the request was answered before, as far as this member shows. A door that would refuse
    /// by what it sees, or answer without a command, asks here first: what it sees may be what this
    /// very request has made, and whoever sends it again gets the first answer.
    pub(super) fn recorded(&self, ticket: Ticket) -> Option<Result<Written, ApiError>> {
        let recorded = self.0.cluster.view().read(|state| state.request(ticket.command_id()))?;
        Some(answered(ticket, recorded.index, recorded.answer(ticket.print())))
    }

    /// Waits until this member may answer in the mode the query asks for.
    ///
    /// # Errors
    /// Why it may not; it is never answered in a weaker mode instead.
    pub(super) async fn admit(&self, params: &Params) -> Result<ReadStamp, ApiError> {
        self.barrier(params.consistency()?).await
    }

    /// As [`Self::admit`], for a mode chosen here.
    pub(super) async fn barrier(&self, consistency: Consistency) -> Result<ReadStamp, ApiError> {
        let admitted = self.0.cluster.read_barrier(consistency).await;
        admitted.map_err(|error| ApiError::from(error).with_leader(self.leader_hint()))
    }

    /// Reads the state for an answer that was admitted under `stamp`, and dates the stamp by what
    /// is read. Entries may have been applied since: with an index below what it shows, an answer
    /// would let a reader who passes that index on to another member see things go back.
    pub(super) fn show<T>(&self, stamp: &mut ReadStamp, read: impl FnOnce(&Tables) -> T) -> T {
        let (index, (epoch, shown)) =
            self.0.cluster.view().read_at(|state| (state.epoch(), read(state)));
        (stamp.index, stamp.epoch) = (index, epoch);
        shown
    }

    /// Waits until this member shows what was committed at `index`, for answers that echo a write.
    ///
    /// # Errors
    /// An unknown outcome when this member does not get there in time: the write has happened, so
    /// it must not be answered as one that was not started.
    pub(super) async fn caught_up(
        &self,
        ticket: Ticket,
        index: u64,
    ) -> Result<ReadStamp, ApiError> {
        let local = Consistency::Local { max_age: None, min_index: Some(index) };
        let behind = |_| ApiError::unknown_outcome(ticket.request_id);
        self.0.cluster.read_barrier(local).await.map_err(behind)
    }
}

fn answered(ticket: Ticket, index: u64, reply: Reply) -> Result<Written, ApiError> {
    match reply {
        Ok(outcome) => Ok(Written { index, outcome }),
        Err(rejection) => Err(ApiError::from(rejection).with_request_id(ticket.request_id)),
    }
}

/// An `Idempotency-Key` that was used before for something else, although nothing tells but the kind of
/// the recorded outcome, which this request does not give.
pub(super) fn key_reused(request_id: RequestId) -> ApiError {
    ApiError::from(Rejection::KeyReused).with_request_id(request_id)
}
