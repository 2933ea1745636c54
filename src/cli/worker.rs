//! `quorate worker`: from the command line to a running worker, and signals to its end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::exit::Failure;
use super::output;
use crate::client::{self, Client};
use crate::worker::{Error, Farewell, Options, Worker};

const HELP: &str = "\
A program gets the task's input as JSON on standard input and gives the result as JSON on standard
output; other text becomes {\"output\": text}. Exit code 0 completes the task, 64 and 65 fail it for
good, any other fails this attempt. QUORATE_TASK_ID, QUORATE_TASK_TYPE, QUORATE_ATTEMPT and
QUORATE_NODE_ID are in its environment. SIGTERM or SIGINT drains the worker; a second one kills.";

/// What can be said to a worker.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct WorkerArgs {
    /// The program for a task type, run through `sh -c`; may be repeated; `*` takes all other types
    #[arg(long = "exec", value_name = "TYPE=COMMAND", required = true)]
    programs: Vec<String>,
    /// Its name [default: a random one]
    #[arg(long)]
    node_id: Option<String>,
    /// Where it listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    listen: SocketAddr,
    /// host:port members reach it at [default: where it listens]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// The most programs at once
    #[arg(long, default_value_t = 4)]
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

pub(super) fn run(args: WorkerArgs, client: &client::Options) -> Result<ExitCode, Failure> {
    serve(args.options()?, client)
}

/// Runs a worker until it is told to end.
pub(super) fn serve(options: Options, client: &client::Options) -> Result<ExitCode, Failure> {
    let client = Client::new(client)?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::failed)?;
    runtime.block_on(async {
        let worker = Worker::bind(options, client).await.map_err(failure)?;
        output::talk(&format!("{} listens on {}", worker.node_id(), worker.address()));
        let (stop, abort) = (worker.stop_token(), worker.abort_token());
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
        let signals = async move {
            for token in [stop, abort] {
                tokio::select! {
                    biased;
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                token.cancel();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            done = worker.run() => done.map_err(failure),
            () = signals => Ok(()),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Options(_) | Error::Listen { .. } => Failure::usage(error),
        Error::Register(cause) => cause.into(),
    }
}

impl WorkerArgs {
    fn options(self) -> Result<Options, Failure> {
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
        Ok(Options {
            node_id: self.node_id,
            programs,
            environment: Vec::new(),
            capabilities: self.capabilities,
            listen: self.listen,
            advertise: self.advertise,
            concurrency: self.concurrency,
            heartbeat: Duration::from_secs(self.heartbeat),
            drain_timeout: Duration::from_secs(self.drain_timeout),
            farewell: match self.on_exit {
                OnExit::Remove => Farewell::Remove,
                OnExit::Offline => Farewell::Offline,
            },
        })
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

    fn options(words: &[&str]) -> Result<Options, Failure> {
        let words = std::iter::once("worker").chain(words.iter().copied());
        Line::try_parse_from(words).unwrap().args.options()
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
