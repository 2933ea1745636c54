//! `quorate dev`: a whole cluster on this machine. Members and workers are processes of this same
//! program, with data directories and ports of their own, so that everything seen here, kills
//! included, is what a real cluster does.

mod chaos;
mod sample_tasks;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use super::children::{self, Child, Children};
use super::exit::Failure;
use super::output;
use crate::client::{Client, Options};
use crate::clock;
use crate::config::{Profile, local_member, local_ports};
use crate::worker::sample::{Sample, demo};

/// How long the members may take to form a cluster that serves.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one look at whether they have may take.
const READY_TRY: Duration = Duration::from_secs(2);
/// Between two of them.
const READY_PAUSE: Duration = Duration::from_millis(50);
/// Between two lines about what happens.
const NEWS_PERIOD: Duration = Duration::from_secs(15);
/// Programs each worker runs at once.
const WORKER_CONCURRENCY: &str = "4";

/// Runs a whole cluster on this machine.
#[derive(Debug, Clone, clap::Args)]
pub struct DevArgs {
    /// How many members
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub members: u16,
    /// How many workers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=64))]
    pub workers: u16,
    /// Where its data lives; it is found again by the next run
    #[arg(long, default_value = "data/dev", value_name = "DIR")]
    pub dir: PathBuf,
    /// Takes orders from the terminal that break members and links, and shows what happens
    #[arg(long)]
    pub chaos: bool,
    /// Removes what an earlier run left in --dir first
    #[arg(long)]
    pub fresh: bool,
}

pub(super) fn run(args: DevArgs) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(Failure::failed)?.block_on(Dev::run(args))?)
}

/// A cluster that runs.
struct Dev {
    dir: PathBuf,
    urls: Vec<String>,
    client: Client,
    children: Children,
    /// What the members take for an admin key, while drills are allowed.
    admin_key: Option<String>,
}

impl Dev {
    async fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
        let started = Instant::now();
        // Caught from the first moment on, so that nothing that was started is left behind.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut dev = Self::prepare(&args)?;
        let work = async {
            dev.start(&args).await?;
            dev.summary(&args, started.elapsed()).await;
            if args.chaos { dev.chaos().await } else { dev.watch(args.workers > 0).await }
        };
        let worked = tokio::select! {
            biased;
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            worked = work => worked,
        };
        output::talk("\nstopping the workers, then the members");
        dev.children.stop().await;
        worked.map(|()| {
            output::talk(&format!("stopped; the data stays in {}", dev.dir.display()));
            ExitCode::SUCCESS
        })
    }

    fn prepare(args: &DevArgs) -> anyhow::Result<Self> {
        if args.fresh {
            clear(&args.dir)?;
        }
        std::fs::create_dir_all(&args.dir)
            .with_context(|| format!("creating {}", args.dir.display()))?;
        let dir = args.dir.canonicalize().context("finding the data directory")?;
        check_count(&dir, args.members)?;
        demo::prepare(&dir.join("samples")).context("writing the sample input")?;
        let url = |n| format!("http://127.0.0.1:{}", local_ports(n, Profile::Web4ai));
        let urls: Vec<String> = (1..=args.members).map(url).collect();
        let client = Client::new(&Options { urls: urls.clone(), ..Options::default() })?;
        let drawn = || format!("{:016x}{:016x}", clock::random(), clock::random());
        let admin_key = args.chaos.then(drawn);
        Ok(Self { dir, urls, client, children: Children::default(), admin_key })
    }

    async fn start(&mut self, args: &DevArgs) -> anyhow::Result<()> {
        for number in 1..=args.members {
            let file = self.dir.join(format!("m{number}.yaml"));
            let key = self.admin_key.as_deref();
            std::fs::write(&file, local_member(number, args.members, &self.dir, key))
                .with_context(|| format!("writing {}", file.display()))?;
            let file = file.display().to_string();
            let home = self.dir.join(format!("m{number}"));
            let words = ["server", "--with-parent", "--config", &file];
            self.children.start(Child::new(format!("member {number}"), home, &words)?)?;
        }
        self.wait_until_ready().await?;
        let exe = std::env::current_exe().context("finding this program")?;
        for number in 1..=args.workers {
            let (node_id, urls) = (format!("dev-worker-{number}"), self.urls.join(","));
            let programs = Sample::ALL.map(|sample| sample.exec(&exe));
            let mut words = vec!["worker", "--node-id", &node_id, "--url", &urls];
            words.extend(["--concurrency", WORKER_CONCURRENCY]);
            words.extend(programs.iter().flat_map(|program| ["--exec", program]));
            let home = self.dir.join(format!("w{number}"));
            self.children.start(Child::new(format!("worker {number}"), home, &words)?)?;
        }
        Ok(())
    }

    /// Waits until every member serves what was asked to be linearizable.
    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        for url in self.urls.clone() {
            let deadline = READY_TRY;
            let options = Options { urls: vec![url.clone()], deadline, ..Options::default() };
            let client = Client::new(&options)?;
            let ready = async {
                // Linearizable, as all reads are by default: it takes a leader and a quorum.
                while client.get("/api/v1/nodes").await.is_err() {
                    if let Some(ended) = self.children.first_ended() {
                        bail!("{ended}");
                    }
                    sleep(READY_PAUSE).await;
                }
                Ok(())
            };
            match timeout(READY_TIMEOUT, ready).await {
                Ok(ready) => ready?,
                Err(_elapsed) => bail!("{url} is not ready after {} s", READY_TIMEOUT.as_secs()),
            }
        }
        Ok(())
    }

    async fn summary(&self, args: &DevArgs, took: Duration) {
        let status = self.client.get("/api/v1/cluster").await.unwrap_or_default();
        let leader = status.get("leader").and_then(Value::as_u64).unwrap_or_default();
        let dir = self.dir.display();
        output::line(&format!(
            "\n{} members and {} workers run, ready after {:.1} s; data in {dir}\n",
            args.members,
            args.workers,
            took.as_secs_f64()
        ));
        for (number, url) in (1..).zip(&self.urls) {
            let role = if number == leader { "leader" } else { "follower" };
            let home = self.dir.join(format!("m{number}"));
            output::line(&format!("  member {number}  {url}  {role:8}  {}", home.display()));
        }
        let second = self.urls.get(1).unwrap_or(&self.urls[0]);
        output::line(&format!(
            "\nSample tasks flow: hashes, word counts and thumbnails of files in {dir}/samples.\n\
             Try, in another terminal (any member answers):\n\n  \
             quorate cluster status --url {second}\n  \
             quorate task list --url {second}\n  \
             quorate node list\n  \
             quorate task submit --type wordcount --input '{{\"text\":\"so it goes\"}}' --wait\n  \
             curl -s {second}/api/v1/status\n  \
             kill -9 $(cat {dir}/m{leader}/pid)      the leader; another takes over, and it is restarted\n\n\
             Ctrl-C stops all of it.\n"
        ));
    }

    /// Keeps everything running and tells what happens.
    async fn watch(&mut self, tasks: bool) -> anyhow::Result<()> {
        let flow = sample_tasks::flow(self.client.clone(), self.dir.join("samples"));
        let _flow = tasks.then(|| tokio::spawn(flow)).map(AbortOnDrop);
        let mut news = tokio::time::interval_at(Instant::now() + NEWS_PERIOD, NEWS_PERIOD);
        loop {
            tokio::select! {
                biased;
                said = self.children.tend() => output::talk(&said?),
                _ = news.tick() => output::talk(&self.news().await),
            }
        }
    }

    /// Lets a person break things. Sample tasks flow meanwhile.
    async fn chaos(&mut self) -> anyhow::Result<()> {
        let flow = sample_tasks::flow(self.client.clone(), self.dir.join("samples"));
        let _flow = AbortOnDrop(tokio::spawn(flow));
        let key = self.admin_key.clone().unwrap_or_default();
        let chaos = chaos::Chaos::start(self.urls.clone(), &key).await?;
        chaos.run(&mut self.children).await
    }

    async fn news(&self) -> String {
        let (cluster, status) =
            (self.client.get("/api/v1/cluster").await, self.client.get("/api/v1/status").await);
        let (Ok(cluster), Ok(status)) = (cluster, status) else {
            return "no member answers at the moment".to_owned();
        };
        let number = |value: &Value, path| value.pointer(path).and_then(Value::as_u64);
        format!(
            "member {} leads in term {}; {} tasks completed, {} failed, {} waiting",
            number(&cluster, "/leader").map_or_else(|| "?".to_owned(), |leader| leader.to_string()),
            number(&cluster, "/term").unwrap_or_default(),
            number(&status, "/data/network_metrics/tasks_completed").unwrap_or_default(),
            number(&status, "/data/network_metrics/tasks_failed").unwrap_or_default(),
            number(&status, "/data/tasks/pending").unwrap_or_default(),
        )
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Removes what an earlier run made, and nothing else.
fn clear(dir: &Path) -> anyhow::Result<()> {
    children::refuse_if_running(dir)?;
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    for entry in entries {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let name = name.to_string_lossy();
        let stem = name.strip_suffix(".yaml").unwrap_or(&name);
        let numbered =
            |prefix| stem.strip_prefix(prefix).is_some_and(|rest| rest.parse::<u16>().is_ok());
        if !(name == "samples" || numbered('m') || numbered('w')) {
            continue;
        }
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// A cluster that was founded with another number of members cannot be started with this one.
fn check_count(dir: &Path, members: u16) -> anyhow::Result<()> {
    children::refuse_if_running(dir)?;
    let known = (1..=9).filter(|n| dir.join(format!("m{n}")).exists()).count();
    if known != 0 && known != usize::from(members) {
        bail!(
            "{} holds a cluster of {known} members; say --members {known}, or --fresh to start over",
            dir.display()
        );
    }
    Ok(())
}
