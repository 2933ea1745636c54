//! `quorate bench`: its options.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::connection::Target;
use super::crowd::{AgentsArgs, BotsArgs, HeartbeatsArgs};

/// Requests per batch that the API takes at most.
const BATCH_MAX: i64 = 10_000;

/// Puts load on a cluster and measures what comes back.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// What every scenario knows.
    #[command(flatten)]
    pub load: LoadArgs,
    /// What is measured.
    #[command(subcommand)]
    pub scenario: Scenario,
}

/// Options of every scenario.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// A member's URL; repeat it (or separate with commas) to spread the clients over all members
    #[arg(long, global = true, value_delimiter = ',', default_value = "http://127.0.0.1:9000")]
    pub url: Vec<Target>,
    /// Clients with one connection each: requests in flight (closed loop) or at most (open loop)
    #[arg(long, global = true, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub clients: u32,
    /// Requests per second: makes it an open loop, latency counts from the intended send time
    #[arg(long, global = true, value_parser = rate)]
    pub rate: Option<f64>,
    /// Seconds that are measured
    #[arg(long, global = true, default_value = "10", value_parser = secs)]
    pub secs: Duration,
    /// Seconds before that, which are not measured
    #[arg(long, global = true, default_value = "1", value_parser = secs)]
    pub warmup: Duration,
    /// Requests at most, warm-up included
    #[arg(long, global = true, default_value_t = 100_000_000)]
    pub requests: u64,
    /// Bytes of input per task
    #[arg(long, global = true, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub size: u32,
    /// Milliseconds after which a request is given up
    #[arg(long, global = true, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub timeout_ms: u64,
    /// Silences of at least so many milliseconds are listed
    #[arg(long, global = true, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub gap_ms: u64,
    /// A header for every request, `Name: value`; repeatable
    #[arg(long, global = true, value_parser = header)]
    pub header: Vec<String>,
    /// A table, or one line of JSON
    #[arg(short = 'o', long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How the figures are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// One line, for programs.
    Json,
}

/// What is measured.
#[derive(Debug, Clone, Subcommand)]
pub enum Scenario {
    /// Durable single writes: tasks that no node can take
    Submit,
    /// Many such tasks per request
    Batch(BatchArgs),
    /// Single tasks, read back
    Read(ReadArgs),
    /// Heartbeats of registered nodes
    Heartbeat(HeartbeatArgs),
    /// A large fleet that beats steadily: processor time, and how soon the dead are noticed
    Heartbeats(HeartbeatsArgs),
    /// Many users of family A: submissions and reads, while the built-in agents work
    Agents(AgentsArgs),
    /// From submission to the recorded result, through real HTTP nodes in this process
    EndToEnd(EndToEndArgs),
    /// Light writes while leaders fail: the time to the next acknowledged write
    Failover(FailoverArgs),
    /// Fills the cluster with retained tasks, and measures memory and restart on request
    Retained(RetainedArgs),
    /// Submissions while steps go over many running campaigns, and without them
    Campaigns(CampaignsArgs),
    /// Swarms made and given work at once, and what their bots have to do completed
    Bots(BotsArgs),
}

/// Options of `batch`.
#[derive(Debug, Clone, Copy, Args)]
pub struct BatchArgs {
    /// Tasks per request
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=BATCH_MAX))]
    pub batch: u32,
}

/// Options of `read`.
#[derive(Debug, Clone, Copy, Args)]
pub struct ReadArgs {
    /// Which promise the reads ask for
    #[arg(long, value_enum, default_value_t = Consistency::Linearizable)]
    pub consistency: Consistency,
    /// Tasks that are written first and read then
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub keys: u32,
}

/// The promise of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Consistency {
    /// Sees every acknowledged write.
    Linearizable,
    /// What the asked member has.
    Local,
}

/// Options of `heartbeat`.
#[derive(Debug, Clone, Copy, Args)]
pub struct HeartbeatArgs {
    /// Nodes that are registered first and removed at the end; mind `network.max_nodes`
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub nodes: u32,
}

/// Options of `end-to-end`.
#[derive(Debug, Clone, Args)]
pub struct EndToEndArgs {
    /// The nodes.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Tasks per submission; a client of a closed loop waits until all of them ended
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=BATCH_MAX))]
    pub batch: u32,
    /// How ends are seen: every one in the event stream, or only counted by the status page
    #[arg(long, value_enum, default_value_t = Observe::Events)]
    pub observe: Observe,
}

/// Nodes that run in this process.
#[derive(Debug, Clone, Args)]
pub struct FleetArgs {
    /// How many
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub nodes: u32,
    /// Executions that each takes at once
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub capacity: u32,
    /// Milliseconds that each execution takes
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    pub work_ms: u64,
    /// Where the members reach the nodes
    #[arg(long, default_value = "127.0.0.1")]
    pub node_host: String,
}

/// How ends are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Observe {
    /// `GET /api/v1/events`: exact latencies.
    Events,
    /// Counters of `GET /api/v1/status`: cheaper, no latencies.
    Status,
}

/// Options of `failover`.
#[derive(Debug, Clone, Args)]
pub struct FailoverArgs {
    /// Which system serves at --url; everything else is the same for both
    #[arg(long, value_enum, default_value_t = System::Quorate)]
    pub target: System,
    /// How leaders fail
    #[command(flatten)]
    pub members: MembersArgs,
    /// How often the leader is taken down; 0 only watches for --secs while somebody else does it
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub kills: u32,
    /// What happens to the leader
    #[arg(long, value_enum, default_value_t = Action::Kill)]
    pub action: Action,
    /// Milliseconds of calm between the recovery of one round and the next
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    pub settle_ms: u64,
}

/// A system that a failover can be measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum System {
    /// This one: a task per write.
    Quorate,
    /// etcd 3.4 or later, through its JSON gateway: a key per write.
    Etcd,
}

/// Members as processes of this machine.
#[derive(Debug, Clone, Args)]
pub struct MembersArgs {
    /// The file with a member's process id, in the order of --url; read anew before every kill
    #[arg(long, value_delimiter = ',')]
    pub pid_file: Vec<PathBuf>,
    /// Starts a member again: run by sh, with {n} (1 for the first --url) and {pid_file} filled
    /// in; leaves the member running and its process id in its file
    #[arg(long)]
    pub restart: Option<String>,
    /// Processes of any other name are never killed
    #[arg(long, default_value = "quorate")]
    pub process_name: String,
}

/// How a leader is taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// SIGKILL.
    Kill,
    /// SIGTERM: it hands over first.
    Stop,
    /// It stays and hands over: `POST /api/v1/cluster/transfer-leader`. Only of Quorate.
    Transfer,
}

/// Options of `campaigns`.
#[derive(Debug, Clone, Copy, Args)]
pub struct CampaignsArgs {
    /// Campaigns that are made, and that run
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub campaigns: u32,
    /// Seconds from one step to the next
    #[arg(long, default_value = "1", value_parser = secs)]
    pub every: Duration,
}

/// Options of `retained`.
#[derive(Debug, Clone, Args)]
pub struct RetainedArgs {
    /// Tasks to retain
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub tasks: u32,
    /// Tasks per request
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=BATCH_MAX))]
    pub batch: u32,
    /// In which state they are retained
    #[arg(long, value_enum, default_value_t = Retain::Completed)]
    pub state: Retain,
    /// Nodes that complete them.
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Stop this member (1 for the first --url) afterwards and time its restart until it is ready
    #[arg(long, requires = "restart")]
    pub restart_member: Option<usize>,
    /// Its process.
    #[command(flatten)]
    pub members: MembersArgs,
}

/// The state of retained tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Retain {
    /// No node can take them.
    Pending,
    /// Cancelled one by one.
    Cancelled,
    /// Executed by nodes of this process.
    Completed,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.strip_suffix("/s").unwrap_or(text).parse::<f64>().map_err(|e| e.to_string())?;
    if rate > 0.0 && rate <= 10_000_000.0 {
        Ok(rate)
    } else {
        Err("a rate is above 0 and at most 10,000,000 per second".to_owned())
    }
}

/// Seconds, with or without an `s`: up to a day.
pub(super) fn secs(text: &str) -> Result<Duration, String> {
    let secs = text.strip_suffix('s').unwrap_or(text).parse::<f64>().map_err(|e| e.to_string())?;
    if (0.0..=86_400.0).contains(&secs) {
        Ok(Duration::from_secs_f64(secs))
    } else {
        Err("between 0 and 86400 seconds".to_owned())
    }
}

/// A header becomes a whole line; one that would smuggle in another line is refused.
fn header(text: &str) -> Result<String, String> {
    let (name, value) = text.split_once(':').ok_or("a header has the form `Name: value`")?;
    if name.is_empty() || text.contains(['\r', '\n']) {
        return Err("a header has a name and stays on one line".to_owned());
    }
    Ok(format!("{}: {}\r\n", name.trim(), value.trim()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn parse(line: &str) -> Result<BenchArgs, String> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        Command::try_parse_from(words).map(|c| c.bench).map_err(|e| e.to_string())
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Command::command().debug_assert();
    }

    #[test]
    fn options_stand_before_and_behind_the_scenario() {
        let args = parse("--clients 3 submit --rate 250/s --secs 2.5 --url a:1,b:2 -o json");
        let args = args.unwrap().load;
        assert_eq!((args.clients, args.rate), (3, Some(250.0)));
        assert_eq!(args.secs, Duration::from_millis(2500));
        assert_eq!(args.url.len(), 2);
        assert_eq!(args.url[1].authority, "b:2");
        assert_eq!(args.output, Output::Json);
    }

    #[test]
    fn urls_can_be_repeated_and_have_a_default() {
        assert_eq!(parse("submit --url a:1 --url b:2").unwrap().load.url.len(), 2);
        assert_eq!(parse("submit").unwrap().load.url[0].authority, "127.0.0.1:9000");
    }

    #[test]
    fn headers_become_lines() {
        let args = parse("submit --header X-API-Key:k").unwrap();
        assert_eq!(args.load.header, ["X-API-Key: k\r\n"]);
        assert!(parse("submit --header nonsense").is_err());
        assert!(header("a: b\r\nc: d").is_err());
    }

    #[test]
    fn bounds_are_checked() {
        for line in [
            "submit --rate 0",
            "submit --rate -1",
            "submit --rate nan",
            "submit --secs -1",
            "submit --clients 0",
            "submit --url https://a",
            "batch --batch 10001",
            "batch --batch 0",
            "retained --restart-member 1",
            "agents --kill-leader",
            "heartbeats --kill-after 3",
            "heartbeats --nodes 0",
            "bots --bots 0",
            "bots --batch 1001",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("batch --batch 10000").is_ok());
    }

    #[test]
    fn failover_names_members_by_their_pid_files() {
        let line = "failover --kills 30 --pid-file a.pid,b.pid --restart start-{n}";
        let Scenario::Failover(args) = parse(line).unwrap().scenario else { panic!("failover") };
        assert_eq!((args.kills, args.members.pid_file.len()), (30, 2));
        assert_eq!((args.action, args.target), (Action::Kill, System::Quorate));
        assert_eq!(args.members.restart.as_deref(), Some("start-{n}"));
    }
}
