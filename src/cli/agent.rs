//! `quorate agent`: from the command line to a running agent, and signals to its end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::exit::Failure;
use super::output;
use crate::agent::{Agent, Engine, Error, Options, Outside};
use crate::model::{AllowedHosts, Reach};
use crate::outward::Clients;

const HELP: &str = "\
Built-in types need no program: data_ingest, data_analysis, synthesis, video_detection, alerting,
api_caller, rss_feed_monitor, podcast_transcript, transcript_summary, industry_synthesis,
document_reader. A program gets the step as JSON on standard input and gives its output as JSON on
standard output: {\"type\": ..., \"data\": ...}, or the data alone. Exit code 64 and 65 fail the step
for good. SIGTERM or SIGINT drains the agent; a second one stops what runs.";

/// What can be said to an agent.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct AgentArgs {
    /// What kind of steps it does
    #[arg(long, env = "AGENT_TYPE", value_name = "TYPE")]
    agent_type: String,
    /// Members: host:port of their gRPC listeners, or http://host:port of their REST API
    #[arg(long, env = "QUORATE_JOIN", value_delimiter = ',', value_name = "MEMBER")]
    #[arg(default_value = "127.0.0.1:50051")]
    join: Vec<String>,
    /// Its name [default: agent-TYPE- and 8 random digits]
    #[arg(long, env = "AGENT_ID")]
    agent_id: Option<String>,
    /// Where it listens; port 0 takes a free one
    #[arg(long, default_value = "0.0.0.0:50052", value_name = "ADDR")]
    listen: SocketAddr,
    /// host:port members reach it at [default: this machine's address on the way to them]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// The most steps at once [default: by type, 10 to 25]
    #[arg(long, env = "MAX_CONCURRENT_TASKS", value_name = "N")]
    max_concurrent_tasks: Option<usize>,
    /// Something it can do beside its type; may be repeated
    #[arg(long = "capability", value_delimiter = ',')]
    capabilities: Vec<String>,
    /// A program that does the steps, run through `sh -c`
    #[arg(long, value_name = "COMMAND", conflicts_with = "model_url")]
    exec: Option<String>,
    /// An http or https endpoint that does the steps: a POST of what a program gets on standard input
    #[arg(long, value_name = "URL")]
    model_url: Option<String>,
    /// Lets built-in types fetch inputs that only name a URL
    #[arg(long)]
    fetch_inputs: bool,
    /// Hosts that built-in types may call and fetch from: names, *.domain, addresses, ranges
    /// [default: all]
    #[arg(long = "allow-host", value_delimiter = ',', value_name = "HOST")]
    allowed_hosts: Vec<String>,
    /// A PEM file with authorities that https believes, beside the well-known ones
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// API key, when the cluster asks for one
    #[arg(long, env = "QUORATE_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Seconds that steps get to finish when the agent leaves
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    drain_timeout: u64,
}

pub(super) fn run(args: AgentArgs) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::failed)?;
    runtime.block_on(async {
        let agent = Agent::bind(args.options()?).await.map_err(failure)?;
        output::talk(&format!("{} listens on {}", agent.agent_id(), agent.endpoint()));
        let (stop, abort) = (agent.stop_token(), agent.abort_token());
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
            done = agent.run() => done.map_err(failure),
            () = signals => Ok(()),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Options(_) | Error::Listen { .. } => Failure::usage(error),
        Error::Register(_) => Failure::failed(error),
    }
}

impl AgentArgs {
    fn options(self) -> Result<Options, Failure> {
        let outside = self.outside()?;
        let engine = match (self.exec, self.model_url) {
            (Some(program), _) => Engine::Exec(program),
            (None, Some(url)) => Engine::Model(url),
            (None, None) => Engine::Builtin,
        };
        Ok(Options {
            agent_type: self.agent_type,
            agent_id: self.agent_id.filter(|id| !id.is_empty()),
            join: self.join,
            listen: self.listen,
            advertise: self.advertise,
            max_concurrent_tasks: self.max_concurrent_tasks,
            capabilities: self.capabilities,
            engine,
            outside,
            api_key: self.api_key,
            drain_timeout: Duration::from_secs(self.drain_timeout),
        })
    }

    fn outside(&self) -> Result<Outside, Failure> {
        let hosts = AllowedHosts::parse(self.allowed_hosts.iter().map(String::as_str));
        let hosts = hosts.map_err(|error| Failure::usage(format!("--allow-host: {error}")))?;
        let clients = match &self.ca_file {
            None => Clients::default(),
            Some(path) => Clients::reading(path)
                .map_err(|error| Failure::usage(format!("--ca-file: {error}")))?,
        };
        Ok(Outside { clients, reach: Reach { hosts, fetch_inputs: self.fetch_inputs } })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: AgentArgs,
    }

    fn parse(words: &[&str]) -> Result<Options, String> {
        let words = ["agent", "--agent-type", "synthesis"].into_iter().chain(words.iter().copied());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.args.options().map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn what_an_agent_may_reach_is_told_by_flags() {
        let reach = parse(&[]).unwrap().outside.reach;
        assert!(reach.hosts.is_open() && !reach.fetch_inputs);
        let words = ["--fetch-inputs", "--allow-host", "10.0.0.0/8,*.example.com"];
        let reach = parse(&words).unwrap().outside.reach;
        assert!(reach.fetch_inputs && reach.hosts.has_networks());
        assert!(reach.hosts.admits_name("a.example.com") && !reach.hosts.admits_name("b.example"));
        assert!(parse(&["--allow-host", "a b"]).unwrap_err().contains("--allow-host: `a b`"));
        assert!(parse(&["--ca-file", "/nowhere.pem"]).unwrap_err().contains("/nowhere.pem"));
    }

    #[test]
    fn contract_4_11_agents_are_set_up_by_flags() {
        let options =
            parse(&["--join", "a:1,http://b:9000", "--max-concurrent-tasks", "3"]).unwrap();
        assert_eq!(options.join, ["a:1", "http://b:9000"]);
        assert_eq!((options.max_concurrent_tasks, options.engine), (Some(3), Engine::Builtin));
        assert_eq!(options.listen.port(), 50052);
        let options = parse(&["--exec", "cat"]).unwrap();
        assert_eq!(options.engine, Engine::Exec("cat".to_owned()));
        assert!(parse(&["--exec", "cat", "--model-url", "http://m"]).is_err());
    }

    #[test]
    fn contract_4_11_agents_are_set_up_by_the_environment() {
        let definition = <Line as clap::CommandFactory>::command();
        let variable = |name: &str| {
            let found = definition.get_arguments().find(|arg| arg.get_id() == name);
            found.and_then(|arg| arg.get_env()).and_then(|name| name.to_str()).map(str::to_owned)
        };
        assert_eq!(variable("agent_type").as_deref(), Some("AGENT_TYPE"));
        assert_eq!(variable("agent_id").as_deref(), Some("AGENT_ID"));
        assert_eq!(variable("max_concurrent_tasks").as_deref(), Some("MAX_CONCURRENT_TASKS"));
    }
}
