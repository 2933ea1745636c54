//! The command line: what can be typed, what is printed, what the exit code means.
//!
//! Data goes to standard output, talk to standard error. Exit codes: 0 done; 1 refused or failed;
//! 2 used wrongly; 3 no member could be reached or none could serve; 4 the outcome is unknown (the
//! request may have been done: `quorate request get KEY` tells).

mod agent;
mod backup;
mod bots;
mod campaign;
mod chart;
mod children;
mod cluster;
mod config;
mod dev;
mod drill;
mod durations;
mod exit;
mod figures;
mod founding;
mod input;
mod node;
mod orchestrator;
mod output;
mod progress;
mod recover;
mod request;
mod server;
mod task;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser};

pub use dev::DevArgs;
pub use exit::{Exit, Failure};
pub use output::Output;
pub use server::ServerArgs;

use crate::bench::{self, BenchArgs};
use crate::canary;
use crate::client::{self, Client};
use crate::telemetry;
use crate::worker::sample::Sample;

/// A highly available control plane for fleets of AI nodes, agents and bots.
#[derive(Debug, Parser)]
#[command(name = "quorate", version = canary::VERSION, infer_subcommands = true)]
#[command(after_help = "Exit codes: 0 done, 1 refused or failed, 2 used wrongly, \
    3 no member reachable or able, 4 outcome unknown.")]
pub struct Cli {
    /// Log level or directives, to standard error [default: warn; info for what keeps running; of a
    /// member, what its file says]
    #[arg(long, global = true, env = "QUORATE_LOG")]
    log: Option<String>,
    /// How log lines look: text or json [default: text; of a member, what its file says]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<telemetry::Format>,
    #[command(subcommand)]
    subcommand: Subcommand,
}

/// How to reach the cluster.
#[derive(Debug, Args)]
struct Reach {
    /// Base URL of a member; give several, and the first that serves is used
    #[arg(long = "url", global = true, env = "QUORATE_URL", value_delimiter = ',')]
    #[arg(default_value = "http://127.0.0.1:9000", value_name = "URL")]
    urls: Vec<String>,
    /// How long one call may take, in seconds, retries included
    #[arg(long, global = true, default_value_t = 30.0, value_name = "SECONDS")]
    deadline: f64,
    /// API key, when the cluster asks for one
    #[arg(long, global = true, env = "QUORATE_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Admin key, for what only administrators may do
    #[arg(long, global = true, env = "QUORATE_ADMIN_KEY", hide_env_values = true)]
    admin_key: Option<String>,
}

/// A group of subcommands that talk to the cluster and print what it says.
#[derive(Debug, Args)]
struct Talk<S: clap::Subcommand> {
    #[command(flatten)]
    reach: Reach,
    /// What to print: a table for people, JSON for programs
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Output,
    #[command(subcommand)]
    subcommand: S,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Runs a member
    Server(ServerArgs),
    /// Runs a whole cluster with workers and sample tasks on this machine
    Dev(DevArgs),
    /// The members and their leader
    Cluster(Talk<cluster::Subcommand>),
    /// The fleet that executes tasks
    Node(Talk<node::Subcommand>),
    /// Work
    Task(Talk<task::Subcommand>),
    /// Searches in iterations, whose candidates are tasks
    Campaign(Talk<campaign::Subcommand>),
    /// What advances campaigns, and when
    Orchestrator(Talk<orchestrator::Subcommand>),
    /// Single bots, and the figures of all
    Bot(Talk<bots::bot::Subcommand>),
    /// Swarms of bots
    Swarm(Talk<bots::swarm::Subcommand>),
    /// Tasks for services outside, one after another
    Workflow(Talk<bots::workflow::Subcommand>),
    /// What became of a request
    Request(Talk<request::Subcommand>),
    /// Runs a worker: a node that executes programs
    Worker(WorkerLine),
    /// Runs an agent: a program that does one kind of step of family A's pipelines
    Agent(agent::AgentArgs),
    /// Breaks the cluster on purpose and measures what clients notice
    Drill(drill::DrillLine),
    /// The replicated configuration, and configuration files
    Config(Talk<config::Subcommand>),
    /// Copies of the whole state: made, checked, restored as a new cluster
    Backup(Talk<backup::Subcommand>),
    /// After the loss of a quorum: a new cluster from what is left
    Recover(recover::RecoverArgs),
    /// Measures a cluster
    Bench(BenchArgs),
    /// Runs a sample program: JSON on standard input, JSON on standard output
    Sample {
        /// hash, wordcount, thumbnail or tune
        #[arg(value_enum)]
        name: SampleName,
    },
    /// Prints the version
    Version,
}

#[derive(Debug, Args)]
struct WorkerLine {
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    args: worker::WorkerArgs,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SampleName {
    Hash,
    Wordcount,
    Thumbnail,
    Tune,
}

/// Reads the command line and does what it says.
#[must_use]
pub fn run() -> ExitCode {
    match dispatch(Cli::parse()) {
        Ok(code) => code,
        Err(failure) => {
            output::talk(&format!("error: {failure:#}"));
            failure.exit().into()
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let Cli { log, log_format, subcommand } = cli;
    if let Some(warning) = canary::warning() {
        output::talk(&warning);
    }
    let keeps_running =
        matches!(subcommand, Subcommand::Worker(_) | Subcommand::Agent(_) | Subcommand::Dev(_));
    // A member's file says how it logs, so it starts logging itself.
    if !matches!(subcommand, Subcommand::Server(_)) {
        let default = if keeps_running { "info" } else { "warn" };
        let level = log.as_deref().unwrap_or(default);
        telemetry::start(level, log_format.unwrap_or_default()).map_err(Failure::usage)?;
    }
    match subcommand {
        Subcommand::Server(args) if args.generate_config => args.generate(),
        Subcommand::Server(args) => ServerArgs { log, log_format, ..args }.run(),
        Subcommand::Dev(args) => dev::run(args),
        Subcommand::Bench(args) => measure(args),
        Subcommand::Drill(line) => line.run(),
        Subcommand::Worker(WorkerLine { reach, args }) => worker::run(&args, &reach.options()?),
        Subcommand::Agent(args) => agent::run(args),
        Subcommand::Sample { name } => Ok(Sample::from(name).run()),
        Subcommand::Version => {
            output::line(&format!("quorate {}", canary::VERSION));
            Ok(ExitCode::SUCCESS)
        }
        Subcommand::Config(talk) if !talk.subcommand.needs_cluster() => {
            talk.subcommand.run_here(talk.output)
        }
        Subcommand::Config(Talk { reach, output, subcommand }) => {
            call(&reach, |client| subcommand.run(client, output))
        }
        Subcommand::Recover(args) => args.run(),
        Subcommand::Backup(talk) if !talk.subcommand.needs_cluster() => {
            talk.subcommand.run_here(talk.output)
        }
        Subcommand::Backup(Talk { reach, output, subcommand }) => {
            call(&reach, |client| subcommand.run(client, output))
        }
        Subcommand::Cluster(Talk { reach, output, subcommand }) => {
            call(&reach, |client| subcommand.run(client, output))
        }
        Subcommand::Node(Talk { reach, output, subcommand }) => {
            call(&reach, |client| subcommand.run(client, output))
        }
        Subcommand::Task(Talk { reach, output, subcommand }) => {
            call(&reach, |client| subcommand.run(client, output))
        }
        Subcommand::Campaign(Talk { reach, output, subcommand }) => {
            call(&reach, |client| subcommand.run(client, output))
        }
        Subcommand::Orchestrator(Talk { reach, output, subcommand }) => {
            call(&reach, |client| subcommand.run(client, output))
        }
        Subcommand::Bot(Talk { reach, output, subcommand }) => {
            call(&reach, |client| subcommand.run(client, output))
        }
        Subcommand::Swarm(Talk { reach, output, subcommand }) => {
            call(&reach, |client| subcommand.run(client, output))
        }
        Subcommand::Workflow(Talk { reach, output, subcommand }) => {
            call(&reach, |client| subcommand.run(client, output))
        }
        Subcommand::Request(Talk { reach, output, subcommand }) => {
            call(&reach, |client| subcommand.run(client, output))
        }
    }
}

impl Reach {
    fn options(&self) -> Result<client::Options, Failure> {
        let seconds = Duration::try_from_secs_f64(self.deadline).ok();
        let Some(deadline) = seconds.filter(|deadline| !deadline.is_zero()) else {
            return Err(Failure::usage("--deadline is a number of seconds above 0"));
        };
        Ok(client::Options {
            urls: self.urls.clone(),
            deadline,
            api_key: self.api_key.clone(),
            admin_key: self.admin_key.clone(),
            ..client::Options::default()
        })
    }
}

/// Runs something that talks to the cluster and ends.
fn call<F>(reach: &Reach, work: impl FnOnce(Client) -> F) -> Result<ExitCode, Failure>
where
    F: Future<Output = Result<ExitCode, Failure>>,
{
    let client = Client::new(&reach.options()?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Failure::failed)?.block_on(work(client))
}

fn measure(args: BenchArgs) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(Failure::failed)?.block_on(bench::run(args))?)
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
            SampleName::Tune => Self::Tune,
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

    /// Every command that can be typed, with the words before it; what is hidden is for ourselves.
    fn commands(command: &clap::Command, words: &str, all: &mut Vec<(String, clap::Command)>) {
        let words = format!("{words}{}", command.get_name());
        let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        let mut leaf = true;
        for sub in shown.filter(|sub| sub.get_name() != "help") {
            leaf = false;
            commands(sub, &format!("{words} "), all);
        }
        if leaf {
            all.push((words, command.clone()));
        }
    }

    const PAGE: &str = include_str!("../../docs/cli.md");

    #[test]
    fn every_command_and_variable_stands_on_its_page() {
        let mut all = Vec::new();
        commands(&definition(), "", &mut all);
        assert!(all.len() > 80, "{}", all.len());
        for (words, command) in all {
            let row = format!("| `{words}");
            let has = |end: &str| PAGE.contains(&format!("{row}{end}"));
            assert!(has("`") || has(" "), "docs/cli.md has no row for `{words}`");
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let Some(variable) = argument.get_env().and_then(|name| name.to_str()) else {
                    continue;
                };
                assert!(PAGE.contains(&format!("`{variable}`")), "docs/cli.md has no {variable}");
            }
        }
        for variable in ["QUORATE_LOG", "QUORATE_URL", "QUORATE_API_KEY", "QUORATE_ADMIN_KEY"] {
            assert!(PAGE.contains(&format!("`{variable}`")), "docs/cli.md has no {variable}");
        }
    }

    /// The words of a line as a shell reads them, up to a comment or another command.
    fn words(line: &str) -> Vec<String> {
        let (mut all, mut word, mut quote) = (Vec::new(), None::<String>, None);
        for letter in line.chars() {
            match (quote, letter) {
                (Some(end), _) if letter == end => quote = None,
                (None, '\'' | '"') => {
                    quote = Some(letter);
                    word.get_or_insert_default();
                }
                (None, '|' | ';') => break,
                (None, '#') if word.is_none() => break,
                (None, ' ') => all.extend(word.take()),
                _ => word.get_or_insert_default().push(letter),
            }
        }
        all.extend(word);
        all
    }

    #[test]
    fn examples_of_the_documents_can_be_typed() {
        let documents = [
            include_str!("../../README.md"),
            PAGE,
            include_str!("../../docs/agents.md"),
            include_str!("../../docs/campaigns.md"),
            include_str!("../../docs/operations.md"),
            include_str!("../../docs/worker.md"),
            include_str!("../../docs/workflows.md"),
        ];
        let mut tried = 0;
        for text in documents {
            let joined = text.replace("\\\n", " ");
            let mut shell = false;
            for line in joined.lines() {
                if line.trim_start().starts_with("```") {
                    shell = line.trim() == "```sh";
                }
                // Nothing but the program at the start of a line, or behind a pipe.
                let line = line.trim_start().rsplit(" | ").next().unwrap_or_default();
                if shell && line.starts_with("quorate ") {
                    let read = Cli::try_parse_from(words(line));
                    tried += 1;
                    assert!(read.is_ok(), "{line}\n{}", read.unwrap_err());
                }
            }
        }
        assert!(tried > 40, "{tried}");
    }

    #[test]
    fn urls_may_be_repeated_or_joined() {
        let cli = Cli::try_parse_from([
            "quorate", "node", "list", "--url", "a:1,b:2", "--url", "c:3", "-o", "json",
        ]);
        let Subcommand::Node(talk) = cli.unwrap().subcommand else { panic!("not a node command") };
        assert_eq!(talk.reach.urls, ["a:1", "b:2", "c:3"]);
        assert_eq!(talk.output, Output::Json);
        assert!(Cli::try_parse_from(["quorate", "nonsense"]).is_err());
    }
}
