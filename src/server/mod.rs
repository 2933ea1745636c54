//! One member as a process: opens the disk, takes its place among the peers, serves, and stops
//! in an order that no client notices more than it must.

mod listen;
mod metrics;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Admin, ApiOptions, App, CallbackRenderer, Peer};
use crate::clock;
use crate::cluster::{Boot, Cluster, ClusterOptions, Limits, Retention, TcpNet, Timing};
use crate::config::{Config, Listener, Profile};
use crate::leader::{
    BackupPlan, Backups, HttpCaller, LeaderOptions, Leadership, Outward, StepCaller,
};
use crate::model::Member;
use crate::outward::Clients;
use crate::security::{self, Access};
use crate::state::Command;
use crate::storage::{Disk, Storage, StorageOptions};

/// How long a stopping leader may take to hand its office over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long requests that are under way may take to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// The exit code of a member that a drill restarts: whatever watches over it starts it again
/// (`EX_TEMPFAIL` of sysexits.h).
const EXIT_RESTART: u8 = 75;
/// Between two tries to write the first configuration.
const SEED_PAUSE: Duration = Duration::from_millis(500);
/// Why a new cluster is not begun with a file that keeps everybody out.
const LOCKED: &str = "the file asks for credentials (security.api_key_required or \
    orchestrator.security_enabled) and names nobody who could administer the new cluster: give an \
    admin a key in security.api_keys or a password in security.users, or set cluster.admin_key, on \
    every member, and start again; nothing was lost";

/// Runs a member until it is told to stop, or must.
///
/// # Errors
/// When it cannot start, or had to stop for a fault: its disk, its data, its removal.
pub fn run(config: Config) -> anyhow::Result<ExitCode> {
    avoid_huge_pages();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async { Server::start(config).await?.serve().await })
}

/// A member's heap grows by small rows. In huge pages each step of it clears 2 MiB, which was a fifth
/// of the processor time under writes, and what is freed in between stays resident.
fn avoid_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay as the system has them");
    }
}

/// A member that runs.
struct Server {
    cluster: Cluster,
    app: App,
    leadership: Leadership,
    /// Ends the leader's duties.
    duties: CancellationToken,
    /// A drill wants this process started again.
    restart: CancellationToken,
    /// The file would lock a new cluster for good.
    locked: CancellationToken,
    /// Ends the listeners.
    listeners: CancellationToken,
    tasks: JoinSet<()>,
}

impl Server {
    async fn start(config: Config) -> anyhow::Result<Self> {
        let clients = config.ca_file.as_deref().map_or(Ok(Clients::default()), Clients::reading);
        let clients = clients.map_err(|error| anyhow::anyhow!("cluster.ca_file: {error}"))?;
        std::fs::create_dir_all(&config.data_dir)
            .with_context(|| format!("creating {}", config.data_dir.display()))?;
        let storage = Storage::open(storage_options(&config)).await?;
        let cluster = Cluster::start(cluster_options(&config), storage, Arc::new(TcpNet)).await?;
        let leadership =
            Leadership::new(LeaderOptions::default(), outward(clients, &cluster, &config)?);
        let restart = CancellationToken::new();
        let backups = Backups::new(backup_plan(&config));
        let options = ApiOptions {
            admin: admin(&config, &leadership, &restart),
            ..api_options(&config, &leadership, &backups)
        };
        let app = App::new(cluster.clone(), options);
        let mut server = Self {
            cluster,
            app,
            leadership,
            duties: CancellationToken::new(),
            restart,
            locked: CancellationToken::new(),
            listeners: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        server.spawn_leadership();
        server.spawn_backups(backups);
        server.spawn_first_configuration(&config);
        server.listen(&config).await?;
        Ok(server)
    }

    fn spawn_leadership(&mut self) {
        let (leadership, seat) = (self.leadership.clone(), Arc::new(self.cluster.clone()));
        let shutdown = self.duties.clone();
        self.tasks.spawn(async move { leadership.run(seat, shutdown).await });
    }

    fn spawn_backups(&mut self, backups: Backups) {
        let (cluster, shutdown) = (self.cluster.clone(), self.duties.clone());
        self.tasks.spawn(async move { backups.run(cluster, shutdown).await });
    }

    /// The configuration file's sections for the fleet become the first configuration of a new
    /// cluster, once. Later changes go through the API. Sections that would lock everybody out for
    /// good end the member instead: with none in force, a mended file can still become the first.
    fn spawn_first_configuration(&mut self, config: &Config) {
        if config.document.as_object().is_none_or(serde_json::Map::is_empty) {
            return;
        }
        let document = config.document.clone();
        let (cluster, mut serving) = (self.cluster.clone(), self.leadership.serving());
        let (stop, locked) = (self.duties.clone(), self.locked.clone());
        let has_other_way = config.admin_key.is_some();
        self.tasks.spawn(async move {
            while cluster.view().read(|state| state.config().revision) == 0 {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    led = serving.wait_for(Option::is_some) => if led.is_err() { return },
                }
                // Hashing passwords takes long, and is done by nobody who does not lead.
                let Some(value) = sealed(&document).await else { return };
                if !has_other_way && Access::read(&value).is_locked(clock::now_ms()) {
                    return locked.cancel();
                }
                let value = value.to_string();
                let command =
                    Command::PatchConfig { path: String::new(), value, expected_revision: Some(0) };
                match cluster.propose(clock::mint_request_id(), "", command).await {
                    Ok(committed) => match committed.reply {
                        Ok(_) => return tracing::info!("the file's configuration is the first"),
                        Err(error) => {
                            return tracing::warn!(%error, "the file's configuration is refused");
                        }
                    },
                    Err(error) => tracing::debug!(%error, "the first configuration has to wait"),
                }
                tokio::time::sleep(SEED_PAUSE).await;
            }
        });
    }

    async fn listen(&mut self, config: &Config) -> anyhow::Result<()> {
        let connections = listen::connections(config.limits.connections);
        let more = &config.listeners.more;
        let http = more.iter().filter(|listener| listener.profile.speaks_http());
        // One router for all of them. Family W's has its page at the root (contract C9).
        let router = api::router(self.app.clone());
        let front = api::router_with(self.app.clone(), api::Front::Page);
        for listener in std::iter::once(&config.listeners.http).chain(http) {
            let is_family_w = listener.profile == Profile::Web4ai;
            let router = if is_family_w { &front } else { &router };
            self.serve_http(listener, router.clone(), &connections).await?;
        }
        if let Some(listener) = websocket_listener(config) {
            let router = api::websocket_router(self.app.clone());
            self.serve_http(listener, router, &connections).await?;
        }
        if let Some(Listener { listen, .. }) = &config.listeners.grpc {
            let listener = listen::bind(*listen, connections).await?;
            tracing::info!(addr = %listen, "serving gRPC");
            let (app, stop) = (self.app.clone(), self.listeners.clone());
            self.tasks.spawn(async move {
                if let Err(error) = api::grpc::serve(app, router, listener.stream(), stop).await {
                    tracing::error!(%error, "the gRPC listener ended");
                }
            });
        }
        Ok(())
    }

    async fn serve_http(
        &mut self,
        Listener { profile, listen, .. }: &Listener,
        router: Router,
        connections: &Arc<Semaphore>,
    ) -> anyhow::Result<()> {
        let listener = listen::bind(*listen, Arc::clone(connections)).await?;
        tracing::info!(profile = profile.as_str(), addr = %listen, "serving HTTP");
        let stop = self.listeners.clone();
        self.tasks.spawn(async move {
            let service = router.into_make_service_with_connect_info::<Peer>();
            let stopped = async move { stop.cancelled().await };
            let serving = axum::serve(listener, service).with_graceful_shutdown(stopped);
            if let Err(error) = serving.await {
                tracing::error!(%error, "a listener ended");
            }
        });
        Ok(())
    }

    /// Waits for the end, and brings it about.
    async fn serve(mut self) -> anyhow::Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let mut ended = self.cluster.ended();
        let fault = tokio::select! {
            biased;
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            () = self.restart.cancelled() => None,
            () = self.locked.cancelled() => Some(LOCKED.to_owned()),
            fault = ended.wait_for(Option::is_some) => {
                fault.ok().and_then(|why| why.clone())
            }
        };
        if let Some(why) = &fault {
            tracing::error!(why, "this member must stop");
        } else {
            tracing::info!("stopping");
            self.hand_over().await;
        }
        self.stop().await;
        match fault {
            Some(why) => Err(anyhow::anyhow!("{why}")),
            None if self.restart.is_cancelled() => Ok(ExitCode::from(EXIT_RESTART)),
            None => Ok(ExitCode::SUCCESS),
        }
    }

    /// Lets another lead before anything else ends, so that clients see no gap.
    async fn hand_over(&self) {
        if self.cluster.leadership().borrow().is_none() {
            return;
        }
        match timeout(HAND_OVER_TIMEOUT, self.cluster.transfer_leader(None)).await {
            Ok(Ok(_)) => tracing::info!("handed the office over"),
            Ok(Err(error)) => tracing::info!(%error, "nobody takes the office over"),
            Err(_elapsed) => tracing::warn!("the office was not handed over in time"),
        }
    }

    async fn stop(&mut self) {
        self.duties.cancel();
        self.app.close();
        self.listeners.cancel();
        let drained =
            timeout(DRAIN_TIMEOUT, async { while self.tasks.join_next().await.is_some() {} });
        if drained.await.is_err() {
            tracing::warn!("some requests were cut off");
            self.tasks.abort_all();
        }
        self.cluster.stop().await;
    }
}

/// What the leader's work reaches outside the cluster by.
fn outward(clients: Clients, cluster: &Cluster, config: &Config) -> anyhow::Result<Outward> {
    let caller =
        HttpCaller::with(clients.clone()).context("building the client that calls nodes")?;
    Ok(Outward {
        agents: Arc::new(StepCaller::new(clients)),
        renderer: Arc::new(CallbackRenderer(Arc::clone(cluster.view()))),
        scaling_program: config.scaling_program.clone(),
        services: Arc::new(config.services.clone()),
        ..Outward::new(Arc::new(caller))
    })
}

fn storage_options(config: &Config) -> StorageOptions {
    let events_max = usize::try_from(config.limits.events).unwrap_or(usize::MAX);
    StorageOptions { events_max, ..StorageOptions::new(Disk::Dir(config.data_dir.clone())) }
}

fn cluster_options(config: &Config) -> ClusterOptions {
    let listeners = &config.listeners;
    let grpc = listeners.grpc.as_ref().map(|listener| listener.advertise.clone());
    let member = Member {
        name: config.name.clone(),
        incarnation: 0,
        peer_addr: listeners.peer.advertise.clone(),
        http_addr: listeners.http.advertise.clone(),
        grpc_addr: grpc.unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let pending = usize::try_from(config.limits.pending_proposals).unwrap_or(usize::MAX);
    let peers = config.peers.clone();
    ClusterOptions {
        listen_addr: listeners.peer.listen.to_string(),
        boot: match usize::try_from(config.bootstrap_expect) {
            Ok(expect) if expect > 0 => Boot::Expect { expect, peers },
            _ if config.join && !peers.is_empty() => Boot::Join { peers },
            _ => Boot::Wait,
        },
        timing: Timing::Custom {
            heartbeat_ms: millis(config.raft.heartbeat),
            election_min_ms: millis(config.raft.election_min),
            election_max_ms: millis(config.raft.election_max),
        },
        retention: Retention {
            snapshot_every: config.snapshot.entries,
            keep: config.snapshot.keep_entries,
            piece_bytes: config.snapshot.chunk_bytes,
        },
        propose_timeout: config.limits.request_hold,
        limits: Limits { queue_proposals: pending, ..Limits::default() },
        ..ClusterOptions::new(member)
    }
}

/// The file's sections as they are proposed: keys and passwords as hashes.
async fn sealed(document: &Value) -> Option<Value> {
    let mut document = document.clone();
    let sealing = tokio::task::spawn_blocking(move || {
        security::seal(&mut document, &Value::Null, clock::now_ms()).map(|_| document)
    });
    match sealing.await.map_err(|error| error.to_string()) {
        Ok(Ok(document)) => Some(document),
        Ok(Err(error)) | Err(error) => {
            tracing::warn!(error, "the file's configuration is refused");
            None
        }
    }
}

/// The listener for the WebSocket alone.
fn websocket_listener(config: &Config) -> Option<&Listener> {
    let mut more = config.listeners.more.iter();
    more.find(|listener| listener.profile == Profile::Websocket)
}

/// The port that clients of the WebSocket are told.
fn websocket_port(config: &Config) -> Option<u16> {
    let (_, port) = websocket_listener(config)?.advertise.rsplit_once(':')?;
    port.parse().ok()
}

fn backup_plan(config: &Config) -> Option<BackupPlan> {
    let backup = config.backup.as_ref()?;
    Some(BackupPlan {
        dir: backup.dir.clone(),
        interval: backup.interval,
        keep: usize::try_from(backup.keep).unwrap_or(usize::MAX),
        rehearse: backup.rehearse,
    })
}

fn admin(config: &Config, leadership: &Leadership, restart: &CancellationToken) -> Admin {
    let leadership = leadership.clone();
    Admin {
        drills: config.drills.enabled,
        supervised: config.drills.supervised,
        restart: restart.clone(),
        reigns: Arc::new(move || leadership.reigns()),
    }
}

fn api_options(config: &Config, leadership: &Leadership, backups: &Backups) -> ApiOptions {
    let (leadership, figures) = (leadership.clone(), backups.clone());
    ApiOptions {
        body_bytes_max: usize::try_from(config.limits.body_bytes).unwrap_or(usize::MAX),
        request_timeout: config.limits.request_hold + Duration::from_secs(20),
        data_dir: config.data_dir.clone(),
        metrics: vec![
            Arc::new(move |text| metrics::leader(&leadership, text)),
            Arc::new(move |text| metrics::backups(&figures, text)),
        ],
        admin_key: config.admin_key.clone(),
        backups: backups.clone(),
        websocket_port: websocket_port(config),
        services: config.services.clone(),
        document: config.document.clone(),
        check_config: crate::config::check_change,
        ..ApiOptions::default()
    }
}
