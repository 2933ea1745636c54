//! `quorate worker`: from the command line to a running worker, and signals to its end. It is a node,
//! or does what is assigned to the bots of swarms, or both.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::Failure;
use super::output;
use crate::client::{self, Client};
use crate::worker::swarm::{self, SwarmWorker};
use crate::worker::{Error, Farewell, Options, Worker};

const HELP: &str = "\
A program gets the task's input as JSON on standard input and gives the result as JSON on standard
output; other text becomes {\"output\": text}. Exit code 0 completes the task, 64 and 65 fail it for
good, any other fails this attempt. QUORATE_TASK_ID, QUORATE_TASK_TYPE, QUORATE_ATTEMPT and
QUORATE_NODE_ID are in its environment; for bots, QUORATE_BOT_ID and QUORATE_SWARM_ID. SIGTERM or SIGINT
drains the worker; a second one kills.";
/// How much later a worker for swarms tells a first try that failed, as the cluster waits by default
/// before it tries a task of the queue again (contract 2.7).
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How long a member may hold a call of a worker for swarms.
const SWARM_TRY: Duration = Duration::from_secs(30);

/// What can be said to a worker.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct WorkerArgs {
    /// The program for a task type, run through `sh -c`; may be repeated; `*` takes all other types
    #[arg(long = "exec", value_name = "TYPE=COMMAND", required = true)]
    programs: Vec<String>,
    /// A swarm whose bots' assignments it does, instead of being a node; may be repeated.
    /// Assignments without a type are of the type `default`
    #[arg(long = "swarm", value_name = "ID", value_delimiter = ',')]
    swarms: Vec<String>,
    /// With --swarm: is a node as well
    #[arg(long, requires = "swarms")]
    node: bool,
    /// With --swarm: seconds that an assignment is taken for; renewed while it is worked on
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(3..=86_400))]
    lease: u64,
    /// With --swarm: seconds that one program may take
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Its name [default: a random one]
    #[arg(long)]
    node_id: Option<String>,
    /// Where it listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    listen: SocketAddr,
    /// host:port members reach it at [default: where it listens]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// The most programs at once; for swarms and as a node, each
    #[arg(long, visible_alias = "capacity", default_value_t = 4)]
    concurrency: u32,
    /// Something it can do beside its task types; may be repeated
    #[arg(long = "capability", value_delimiter = ',')]
    capabilities: Vec<String>,
    /// Seconds between heartbeats
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    heartbeat: u64,
    /// Seconds that programs get to finish when the worker leaves
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    drain_timeout: u64,
    /// What happens to its registration when it leaves
    #[arg(long, value_enum, default_value_t = OnExit::Remove)]
    on_exit: OnExit,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum OnExit {
    /// Removed: for workers that come and go
    Remove,
    /// Kept as offline, with its history: for machines that come back
    Offline,
}

pub(super) fn run(args: &WorkerArgs, client: &client::Options) -> Result<ExitCode, Failure> {
    let swarm = args.swarm_options()?;
    let node = (swarm.is_none() || args.node).then(|| args.options()).transpose()?;
    serve_all(node, swarm, client)
}

/// Runs a node until it is told to end.
pub(super) fn serve(options: Options, client: &client::Options) -> Result<ExitCode, Failure> {
    serve_all(Some(options), None, client)
}

fn serve_all(
    node: Option<Options>,
    swarm: Option<swarm::Options>,
    client: &client::Options,
) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::failed)?;
    runtime.block_on(async {
        let (mut stops, mut aborts) = (Vec::new(), Vec::new());
        let mut node_worker = None;
        if let Some(options) = node {
            let worker = Worker::bind(options, Client::new(client)?).await.map_err(failure)?;
            output::talk(&format!("{} listens on {}", worker.node_id(), worker.address()));
            stops.push(worker.stop_token());
            aborts.push(worker.abort_token());
            node_worker = Some(worker);
        }
        let mut swarm_worker = None;
        if let Some(options) = swarm {
            // Its polls are held on purpose.
            let client = client::Options { try_timeout: SWARM_TRY, ..client.clone() };
            let count = options.swarms.len();
            let worker = SwarmWorker::new(options, Client::new(&client)?).map_err(swarm_failure)?;
            output::talk(&format!("{} works for {count} swarms", worker.holder()));
            stops.push(worker.stop_token());
            aborts.push(worker.abort_token());
            swarm_worker = Some(worker);
        }
        let stop = stops.clone();
        let node = async {
            let Some(worker) = node_worker else { return Ok(()) };
            let ended = worker.run().await.map_err(failure);
            stop.iter().for_each(CancellationToken::cancel);
            ended
        };
        let swarm = async {
            let Some(worker) = swarm_worker else { return Ok(()) };
            let ended = worker.run().await.map_err(swarm_failure);
            stop.iter().for_each(CancellationToken::cancel);
            ended
        };
        tokio::select! {
            biased;
            (node, swarm) = async { tokio::join!(node, swarm) } => node.and(swarm),
            failed = signals(stops, aborts) => Err(failed),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Hands the first signal on as a stop and the second one as a kill. Ends only when signals cannot
/// be listened to.
async fn signals(stops: Vec<CancellationToken>, aborts: Vec<CancellationToken>) -> Failure {
    let listening = signal(SignalKind::terminate())
        .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
    let (mut terminate, mut interrupt) = match listening {
        Ok(both) => both,
        Err(error) => return Failure::failed(error),
    };
    for tokens in [stops, aborts] {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokens.iter().for_each(CancellationToken::cancel);
    }
    std::future::pending().await
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Options(_) | Error::Listen { .. } => Failure::usage(error),
        Error::Register(cause) => cause.into(),
    }
}

fn swarm_failure(error: swarm::Error) -> Failure {
    match error {
        swarm::Error::Options(_) => Failure::usage(error),
        swarm::Error::Refused(cause) => cause.into(),
    }
}

impl WorkerArgs {
    fn programs(&self) -> Result<BTreeMap<String, String>, Failure> {
        let mut programs = BTreeMap::new();
        for text in &self.programs {
            let split = text.split_once('=').map(|(name, program)| (name.trim(), program.trim()));
            let Some((name, program)) = split.filter(|(n, p)| !n.is_empty() && !p.is_empty())
            else {
                return Err(Failure::usage(format!("--exec `{text}` is not TYPE=COMMAND")));
            };
            if programs.insert(name.to_owned(), program.to_owned()).is_some() {
                return Err(Failure::usage(format!("--exec names the type `{name}` twice")));
            }
        }
        Ok(programs)
    }

    fn options(&self) -> Result<Options, Failure> {
        Ok(Options {
            node_id: self.node_id.clone(),
            programs: self.programs()?,
            environment: Vec::new(),
            capabilities: self.capabilities.clone(),
            listen: self.listen,
            advertise: self.advertise.clone(),
            concurrency: self.concurrency,
            heartbeat: Duration::from_secs(self.heartbeat),
            drain_timeout: Duration::from_secs(self.drain_timeout),
            farewell: match self.on_exit {
                OnExit::Remove => Farewell::Remove,
                OnExit::Offline => Farewell::Offline,
            },
        })
    }

    fn swarm_options(&self) -> Result<Option<swarm::Options>, Failure> {
        if self.swarms.is_empty() {
            return Ok(None);
        }
        Ok(Some(swarm::Options {
            swarms: self.swarms.clone(),
            holder: self.node_id.clone(),
            programs: self.programs()?,
            capacity: self.concurrency as usize,
            lease: Duration::from_secs(self.lease),
            timeout: Duration::from_secs(self.timeout),
            drain_timeout: Duration::from_secs(self.drain_timeout),
            retry_delay: RETRY_DELAY,
        }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: WorkerArgs,
    }

    fn args(words: &[&str]) -> WorkerArgs {
        let words = std::iter::once("worker").chain(words.iter().copied());
        Line::try_parse_from(words).unwrap().args
    }

    fn options(words: &[&str]) -> Result<Options, Failure> {
        args(words).options()
    }

    #[test]
    fn swarms_are_in_place_of_a_node_or_beside_one() {
        let words = ["--exec", "default=cat", "--swarm", "a,b", "--swarm", "c", "--capacity", "9"];
        let options = args(&words).swarm_options().unwrap().unwrap();
        assert_eq!((options.swarms.len(), options.capacity), (3, 9));
        assert!(!args(&words).node);
        assert!(args(&[&words[..], &["--node"]].concat()).node);
        assert!(args(&words[..2]).swarm_options().unwrap().is_none());
        let alone = ["worker", "--exec", "a=b", "--node"];
        assert!(Line::try_parse_from(alone).is_err(), "without swarms it is one anyway");
    }

    #[test]
    fn programs_are_read() {
        let options = options(&["--exec", "a=echo x=y", "--exec", "*=cat"]).unwrap();
        assert_eq!(options.programs["a"], "echo x=y");
        assert_eq!(options.programs["*"], "cat");
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        for words in [&["--exec", "a"][..], &["--exec", "=b"], &["--exec", "a=1", "--exec", "a=2"]]
        {
            assert_eq!(options(words).unwrap_err().exit(), super::super::Exit::Usage);
        }
    }
}
