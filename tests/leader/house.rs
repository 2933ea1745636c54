//! Members with their leader work, and a node that executes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use parking_lot::Mutex;
use quorate::clock;
use quorate::cluster::{Boot, Cluster, ClusterOptions, TcpNet};
use quorate::leader::{HttpCaller, LeaderOptions, Leadership, Outward};
use quorate::model::{Load, Member, NodeId, TaskId};
use quorate::state::{Command, NodeSpec, Outcome, State, TaskSpec};
use quorate::storage::{Disk, Storage, StorageOptions};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for a busy machine; nothing waits that long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// A member and its leader work.
pub(crate) struct House {
    pub members: Vec<Housed>,
    _root: tempfile::TempDir,
}

pub(crate) struct Housed {
    pub cluster: Cluster,
    pub leadership: Leadership,
    shutdown: CancellationToken,
    work: JoinHandle<()>,
}

impl Housed {
    /// Stops the leader work first, as the server does.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.work.await.unwrap();
        assert_eq!(self.leadership.duties_running(), 0);
        self.cluster.stop().await;
    }
}

impl House {
    /// Founds a cluster of `count` members and waits until one serves as leader.
    pub(crate) async fn found(count: usize) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let shown = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        // Another test of this process came first.
        drop(shown);
        let root = tempfile::tempdir().unwrap();
        let held: Vec<_> =
            (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addrs: Vec<String> =
            held.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
        drop(held);
        let mut members = Vec::new();
        for (place, addr) in addrs.iter().enumerate() {
            let name = format!("m{place}");
            let dir = root.path().join(&name);
            let boot = Boot::Expect { expect: count, peers: addrs.clone() };
            let http_addr = format!("http-{name}");
            let member = Member { name, peer_addr: addr.clone(), http_addr, ..Member::default() };
            let options = ClusterOptions { boot, ..ClusterOptions::new(member) };
            let storage = Storage::open(StorageOptions::new(Disk::Dir(dir))).await.unwrap();
            let cluster = Cluster::start(options, storage, Arc::new(TcpNet)).await.unwrap();
            members.push(lead(cluster));
        }
        let house = Self { members, _root: root };
        house.serving().await;
        house
    }

    /// The place of the member that serves as leader, once one does.
    pub(crate) async fn serving(&self) -> usize {
        let waits = self.members.iter().map(|member| {
            let mut serving = member.leadership.serving();
            Box::pin(async move { serving.wait_for(Option::is_some).await.map(|_| ()) })
        });
        let first = futures::future::select_all(waits);
        let (won, place, _) = tokio::time::timeout(PATIENCE, first).await.expect("nobody serves");
        won.unwrap();
        place
    }

    pub(crate) async fn propose(&self, place: usize, command: Command) -> Outcome {
        let cluster = &self.members[place].cluster;
        let committed = cluster.propose(clock::mint_request_id(), "tester", command).await;
        committed.unwrap().reply.unwrap()
    }

    pub(crate) async fn submit(&self, place: usize, n: usize) {
        let spec = TaskSpec {
            task_id: Some(TaskId::trusted(&format!("t{n}"))),
            task_type: "double".to_owned(),
            input: format!("{{\"n\":{n}}}"),
            timeout_ms: 30_000,
            max_retries: 3,
            ..TaskSpec::default()
        };
        self.propose(place, Command::SubmitTasks(vec![spec])).await;
    }

    pub(crate) async fn register(&self, name: &str, port: u16, capacity: u32) {
        let spec = NodeSpec {
            node_id: NodeId::trusted(name),
            host: "127.0.0.1".to_owned(),
            port,
            node_type: "worker".to_owned(),
            capabilities: Vec::new(),
            capacity,
            agents_count: 0,
            agents: Vec::new(),
            load: Load::default(),
            version: String::new(),
            location: None,
            external_url: None,
            instance: String::new(),
            metadata: String::new(),
            agent_type: None,
        };
        self.propose(0, Command::RegisterNode(spec)).await;
    }

    /// Waits until every member's state looks as wanted.
    pub(crate) async fn until(&self, what: &str, look: impl Fn(&State) -> bool) {
        for member in &self.members {
            let view = member.cluster.view();
            let mut applied = view.applied_watch();
            let wait = async {
                while !view.read(|state| look(state)) {
                    applied.changed().await.unwrap();
                }
            };
            if tokio::time::timeout(PATIENCE, wait).await.is_err() {
                panic!("in vain on {}: {what}", member.cluster.member().name);
            }
        }
    }

    pub(crate) async fn stop(self) {
        for member in self.members {
            member.stop().await;
        }
    }
}

fn lead(cluster: Cluster) -> Housed {
    let caller = Arc::new(HttpCaller::new().unwrap());
    let leadership = Leadership::new(LeaderOptions::default(), Outward::new(caller));
    let shutdown = CancellationToken::new();
    let work = tokio::spawn({
        let (leadership, shutdown) = (leadership.clone(), shutdown.clone());
        let seat = Arc::new(cluster.clone());
        async move { leadership.run(seat, shutdown).await }
    });
    Housed { cluster, leadership, shutdown, work }
}

/// A node, and the bodies it was given.
pub(crate) struct Worker {
    pub port: u16,
    pub asked: Arc<Mutex<Vec<Value>>>,
}

/// A node that doubles `n`, taking its time.
pub(crate) async fn node(takes: Duration) -> Worker {
    let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
    let log = Arc::clone(&asked);
    let execute = move |axum::Json(body): axum::Json<Value>| {
        let log = Arc::clone(&log);
        async move {
            log.lock().push(body.clone());
            tokio::time::sleep(takes).await;
            let doubled = body["input_data"]["n"].as_u64().unwrap() * 2;
            axum::Json(json!({"success": true, "task_id": body["task_id"], "result": doubled}))
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().route("/api/v4/tasks/execute", post(execute));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Worker { port, asked }
}
