//! Starts members, and waits for what they come to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use quorate::clock;
use quorate::cluster::{Boot, Cluster, ClusterOptions, Committed, TcpNet};
use quorate::model::{Member, MemberId, RequestId, TaskId};
use quorate::state::{Command, TaskSpec};
use quorate::storage::{Disk, Storage, StorageOptions};

/// Long enough for a busy machine; nothing waits that long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Ports that nobody else has: below those that outgoing connections are given, and each handed
/// out once, so that a member that was stopped finds its own again.
pub(crate) fn free_addrs(count: usize) -> Vec<String> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + (std::process::id() % 64) as u16 * 256;
    let mut addrs = Vec::new();
    while addrs.len() < count {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        let addr = format!("127.0.0.1:{port}");
        if std::net::TcpListener::bind(&addr).is_ok() {
            addrs.push(addr);
        }
    }
    addrs
}

pub(crate) fn options(name: &str, addr: &str, boot: Boot) -> ClusterOptions {
    let member = Member {
        name: name.to_owned(),
        peer_addr: addr.to_owned(),
        http_addr: format!("http-{name}"),
        version: "1".to_owned(),
        ..Member::default()
    };
    ClusterOptions {
        boot,
        promote_after: Duration::from_millis(300),
        ..ClusterOptions::new(member)
    }
}

/// With `RUST_LOG` set, a failing test shows what its members said.
fn show_logs() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let shown = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    // Another test of this process came first.
    drop(shown);
}

pub(crate) async fn start(dir: &Path, options: ClusterOptions) -> Cluster {
    show_logs();
    let storage = Storage::open(StorageOptions::new(Disk::Dir(dir.to_owned()))).await.unwrap();
    Cluster::start(options, storage, Arc::new(TcpNet)).await.unwrap()
}

/// Three founders that find each other.
pub(crate) struct House {
    pub root: tempfile::TempDir,
    pub addrs: Vec<String>,
    pub members: Vec<Cluster>,
}

impl House {
    pub(crate) async fn found() -> Self {
        Self::promoting_after(Duration::from_millis(300)).await
    }

    /// Learners get their vote when they were close behind for so long.
    pub(crate) async fn promoting_after(promote_after: Duration) -> Self {
        let root = tempfile::tempdir().unwrap();
        let addrs = free_addrs(3);
        let mut members = Vec::new();
        for place in 0..3 {
            let boot = Boot::Expect { expect: 3, peers: addrs.clone() };
            let name = format!("m{}", place + 1);
            let options = ClusterOptions { promote_after, ..options(&name, &addrs[place], boot) };
            members.push(start(&root.path().join(&name), options).await);
        }
        let house = Self { root, addrs, members };
        house.leader().await;
        house
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The place of a member that leads and that every running member follows.
    pub(crate) async fn leader(&self) -> usize {
        let all: Vec<&Cluster> = self.members.iter().collect();
        agreed_leader(&all).await
    }

    pub(crate) async fn stop(&self) {
        for member in &self.members {
            member.stop().await;
        }
    }
}

/// Waits until all of `members` agree on one of them as the leader; gives its place.
pub(crate) async fn agreed_leader(members: &[&Cluster]) -> usize {
    eventually("one leader", || {
        let leaders: Vec<Option<MemberId>> =
            members.iter().map(|member| member.leader().map(|(id, _)| id)).collect();
        let first = leaders.first().copied().flatten()?;
        if leaders.iter().any(|leader| *leader != Some(first)) {
            return None;
        }
        members.iter().position(|member| {
            member.member_id() == first && member.leadership().borrow().is_some()
        })
    })
    .await
}

/// Polls until `look` finds something. The pause is for the machine's sake: what is waited for
/// has no event to wait on.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(found) => found,
        Err(_) => panic!("{what} did not happen"),
    }
}

pub(crate) fn submit(id: &str) -> Command {
    Command::SubmitTasks(vec![TaskSpec {
        task_id: Some(TaskId::trusted(id)),
        task_type: "count".to_owned(),
        input: format!("{{\"id\":\"{id}\"}}"),
        timeout_ms: 60_000,
        ..TaskSpec::default()
    }])
}

pub(crate) async fn propose(member: &Cluster, id: &str) -> Committed {
    let request_id: RequestId = clock::mint_request_id();
    member.propose(request_id, "tester", submit(id)).await.unwrap()
}

pub(crate) fn has_task(member: &Cluster, id: &str) -> bool {
    member.view().read(|state| state.task(&TaskId::trusted(id)).is_some())
}
