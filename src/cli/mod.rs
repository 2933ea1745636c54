//! The command line: what can be typed, what is printed, what the exit code means.
//!
//! Data goes to standard output, talk to standard error. Exit codes: 0 done; 1 refused or failed;
//! 2 used wrongly; 3 no member could be reached or none could serve; 4 the outcome is unknown (the
//! request may have been done: `quorate request get KEY` tells).

mod bench;
mod cluster;
mod config;
mod exit;
mod node;
mod output;
mod request;
mod server;
mod task;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser};

pub use bench::{BenchArgs, Scenario};
pub use exit::{Exit, Failure};
pub use output::Output;
pub use server::{DevArgs, ServerArgs};

use crate::client::{self, Client};
use crate::telemetry;
use crate::worker::sample::Sample;

/// A highly available control plane for fleets of AI nodes, agents and bots.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, infer_subcommands = true)]
#[command(after_help = "Exit codes: 0 done, 1 refused or failed, 2 used wrongly, \
    3 no member reachable or able, 4 outcome unknown.")]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    subcommand: Subcommand,
}

/// What every subcommand understands.
#[derive(Debug, Args)]
struct Global {
    /// Base URL of a member; give several, and the first that serves is used
    #[arg(long = "url", global = true, env = "QUORATE_URL", value_delimiter = ',')]
    #[arg(default_value = "http://127.0.0.1:9000", value_name = "URL")]
    urls: Vec<String>,
    /// What to print: a table for people, JSON for programs
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Output,
    /// How long one call may take, in seconds, retries included
    #[arg(long, global = true, default_value_t = 30.0, value_name = "SECONDS")]
    deadline: f64,
    /// API key, when the cluster asks for one
    #[arg(long, global = true, env = "QUORATE_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Log level or directives, to standard error [default: warn; info for what keeps running]
    #[arg(long, global = true, env = "QUORATE_LOG")]
    log: Option<String>,
    /// How log lines look: text or json
    #[arg(long, global = true, default_value = "text", value_name = "FORMAT")]
    log_format: telemetry::Format,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Runs a member
    Server(ServerArgs),
    /// Runs a whole cluster with workers and sample tasks on this machine
    Dev(DevArgs),
    /// The members and their leader
    #[command(subcommand)]
    Cluster(cluster::Subcommand),
    /// The fleet that executes tasks
    #[command(subcommand)]
    Node(node::Subcommand),
    /// Work
    #[command(subcommand)]
    Task(task::Subcommand),
    /// What became of a request
    #[command(subcommand)]
    Request(request::Subcommand),
    /// Runs a worker: a node that executes programs
    Worker(worker::WorkerArgs),
    /// The replicated configuration, and configuration files
    #[command(subcommand)]
    Config(config::Subcommand),
    /// Measures a cluster
    Bench(BenchArgs),
    /// Runs a sample program: JSON on standard input, JSON on standard output
    Sample {
        /// hash, wordcount or thumbnail
        #[arg(value_enum)]
        name: SampleName,
    },
    /// Prints the version
    Version,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SampleName {
    Hash,
    Wordcount,
    Thumbnail,
}

/// What the parts of the program behind the command line do; they live in other rooms.
#[derive(Debug, Clone, Copy)]
pub struct Programs {
    /// Runs a member until it is told to stop.
    pub server: fn(ServerArgs) -> Result<ExitCode, Failure>,
    /// Runs a cluster on this machine.
    pub dev: fn(DevArgs) -> Result<ExitCode, Failure>,
    /// Measures the cluster at the URLs.
    pub bench: fn(BenchArgs, client::Options, Output) -> Result<ExitCode, Failure>,
}

/// Reads the command line and does what it says.
#[must_use]
pub fn run(programs: Programs) -> ExitCode {
    match dispatch(Cli::parse(), programs) {
        Ok(code) => code,
        Err(failure) => {
            output::talk(&format!("error: {failure:#}"));
            failure.exit().into()
        }
    }
}

fn dispatch(cli: Cli, programs: Programs) -> Result<ExitCode, Failure> {
    let Cli { global, subcommand } = cli;
    let keeps_running = matches!(subcommand, Subcommand::Worker(_) | Subcommand::Dev(_));
    // A member's file says how it logs, so it starts logging itself.
    if !matches!(subcommand, Subcommand::Server(_)) {
        let default = if keeps_running { "info" } else { "warn" };
        let level = global.log.as_deref().unwrap_or(default);
        telemetry::start(level, global.log_format).map_err(Failure::usage)?;
    }
    let output = global.output;
    match subcommand {
        Subcommand::Server(args) if args.generate_config => args.generate(),
        Subcommand::Server(args) => (programs.server)(ServerArgs { log: global.log, ..args }),
        Subcommand::Dev(args) => (programs.dev)(args),
        Subcommand::Bench(args) => (programs.bench)(args, global.client_options()?, output),
        Subcommand::Worker(args) => worker::run(args, &global.client_options()?),
        Subcommand::Sample { name } => Ok(Sample::from(name).run()),
        Subcommand::Version => Ok(print_version(output)),
        Subcommand::Config(sub) if !sub.needs_cluster() => sub.run_here(output),
        Subcommand::Config(sub) => call(&global, |client| sub.run(client, output)),
        Subcommand::Cluster(sub) => call(&global, |client| sub.run(client, output)),
        Subcommand::Node(sub) => call(&global, |client| sub.run(client, output)),
        Subcommand::Task(sub) => call(&global, |client| sub.run(client, output)),
        Subcommand::Request(sub) => call(&global, |client| sub.run(client, output)),
    }
}

impl Global {
    fn client_options(&self) -> Result<client::Options, Failure> {
        let seconds = Duration::try_from_secs_f64(self.deadline).ok();
        let Some(deadline) = seconds.filter(|deadline| !deadline.is_zero()) else {
            return Err(Failure::usage("--deadline is a number of seconds above 0"));
        };
        Ok(client::Options {
            urls: self.urls.clone(),
            deadline,
            api_key: self.api_key.clone(),
            ..client::Options::default()
        })
    }
}

/// Runs something that talks to the cluster and ends.
fn call<F>(global: &Global, work: impl FnOnce(Client) -> F) -> Result<ExitCode, Failure>
where
    F: Future<Output = Result<ExitCode, Failure>>,
{
    let client = Client::new(&global.client_options()?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Failure::failed)?.block_on(work(client))
}

fn print_version(output: Output) -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    match output {
        Output::Table => output::line(&format!("quorate {version}")),
        Output::Json => output::json(&serde_json::json!({ "version": version })),
    }
    ExitCode::SUCCESS
}

/// The definition of the command line, for tests and generated texts.
#[must_use]
pub fn definition() -> clap::Command {
    Cli::command()
}

impl From<SampleName> for Sample {
    fn from(name: SampleName) -> Self {
        match name {
            SampleName::Hash => Self::Hash,
            SampleName::Wordcount => Self::Wordcount,
            SampleName::Thumbnail => Self::Thumbnail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn urls_may_be_repeated_or_joined() {
        let cli = Cli::try_parse_from([
            "quorate", "node", "list", "--url", "a:1,b:2", "--url", "c:3", "-o", "json",
        ]);
        let cli = cli.unwrap();
        assert_eq!(cli.global.urls, ["a:1", "b:2", "c:3"]);
        assert_eq!(cli.global.output, Output::Json);
        assert!(Cli::try_parse_from(["quorate", "nonsense"]).is_err());
    }
}
