//! A cluster of its own for one drill: real processes on free ports, in a directory that is thrown
//! away.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::cli::children::{Child, Children};
use crate::cli::output;
use crate::client::{Client, Options};
use crate::clock;
use crate::drill::Hands;

/// How long the members may take to form a cluster that serves.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const READY_PAUSE: Duration = Duration::from_millis(50);

/// See the module's description. Its processes end with it, also when this one is killed.
pub(super) struct Local {
    dir: PathBuf,
    urls: Vec<String>,
    key: String,
    children: Arc<Mutex<Children>>,
}

/// Kills and starts members of a [`Local`].
pub(super) struct LocalHands(Arc<Mutex<Children>>);

impl Local {
    pub(super) async fn start(count: u16, stop: &CancellationToken) -> anyhow::Result<Self> {
        let dir =
            std::env::temp_dir().join(format!("quorate-drill-{:08x}", clock::random() as u32));
        std::fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let (http, peer) = (free_ports(count)?, free_ports(count)?);
        let key = format!("{:016x}{:016x}", clock::random(), clock::random());
        let urls = http.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let children = Arc::default();
        let local = Self { dir, urls, key, children };
        output::talk(&format!("starting {count} members in {}", local.dir.display()));
        let ready = tokio::select! {
            biased;
            () = stop.cancelled() => Err(anyhow::anyhow!("stopped")),
            ready = local.found(&http, &peer) => ready,
        };
        if let Err(error) = ready {
            local.stop().await;
            return Err(error);
        }
        Ok(local)
    }

    async fn found(&self, http: &[u16], peer: &[u16]) -> anyhow::Result<()> {
        for (place, (http, own)) in http.iter().zip(peer).enumerate() {
            let name = format!("m{}", place + 1);
            let (home, file) = (self.dir.join(&name), self.dir.join(format!("{name}.yaml")));
            std::fs::write(&file, member_file(&name, &home, *http, *own, peer, &self.key))
                .with_context(|| format!("writing {}", file.display()))?;
            let file = file.display().to_string();
            let words = ["server", "--with-parent", "--config", &file];
            self.children.lock().await.start(Child::new(name, home, &words)?)?;
        }
        for url in &self.urls {
            self.until_ready(url).await?;
        }
        Ok(())
    }

    /// Waits until a member serves what was asked to be linearizable, and sees everybody.
    async fn until_ready(&self, url: &str) -> anyhow::Result<()> {
        let deadline = Duration::from_secs(2);
        let options = Options { urls: vec![url.to_owned()], deadline, ..Options::default() };
        let client = Client::new(&options)?;
        let until = Instant::now() + READY_TIMEOUT;
        while client.get("/api/v1/nodes").await.is_err() {
            if let Some(ended) = self.children.lock().await.first_ended() {
                bail!("{ended}");
            }
            if Instant::now() >= until {
                bail!("{url} is not ready after {} s", READY_TIMEOUT.as_secs());
            }
            sleep(READY_PAUSE).await;
        }
        Ok(())
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.urls.clone()
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn hands(&self) -> LocalHands {
        LocalHands(Arc::clone(&self.children))
    }

    /// Ends the members and removes what they left.
    pub(super) async fn stop(self) {
        self.children.lock().await.stop_all_at_once().await;
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!(%error, dir = %self.dir.display(), "not removed");
        }
    }
}

impl Hands for LocalHands {
    fn kill<'a>(&'a mut self, name: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move { self.0.lock().await.kill(name).await })
    }

    fn stop<'a>(&'a mut self, name: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move { self.0.lock().await.stop_one(name).await })
    }

    fn start<'a>(&'a mut self, name: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move { self.0.lock().await.start_again(name) })
    }
}

/// Ports nobody listens on. They are held together, so that all differ, and given up together.
fn free_ports(count: u16) -> anyhow::Result<Vec<u16>> {
    let bind = |_| TcpListener::bind(("127.0.0.1", 0));
    let held = (0..count).map(bind).collect::<Result<Vec<_>, _>>().context("finding free ports")?;
    let ports = held.iter().map(|listener| Ok(listener.local_addr()?.port()));
    ports.collect()
}

fn member_file(name: &str, home: &Path, http: u16, own: u16, peers: &[u16], key: &str) -> String {
    let peer_list: Vec<String> = peers.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    // JSON text is YAML text, and quotes whatever a path may hold.
    let data = serde_json::Value::from(home.join("data").display().to_string());
    format!(
        "cluster:\n  name: {name}\n  data_dir: {data}\n  peers: [{}]\n  bootstrap_expect: {}\n  \
         admin_key: {key:?}\n  drills: {{ enabled: true, supervised: true }}\nlisteners:\n  \
         - {{ profile: web4ai, addr: \"127.0.0.1:{http}\" }}\n  \
         - {{ profile: peer, addr: \"127.0.0.1:{own}\" }}\n",
        peer_list.join(", "),
        peers.len(),
    )
}
