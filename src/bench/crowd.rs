//! Options of the scenarios with many users, many nodes or many bots.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::args::{MembersArgs, secs};

/// Options of `agents`.
#[derive(Debug, Clone, Args)]
pub struct AgentsArgs {
    /// Users with one connection and one request at a time each (instead of --clients)
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub users: u32,
    /// Milliseconds from an answer to the user's next request, on average
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    pub pause_ms: u64,
    /// Reads of the user's newest task behind every submission
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub reads: u32,
    /// Which pipeline does the tasks; it must take a table of sales as text
    #[arg(long, default_value = "report_generation")]
    pub task_type: String,
    /// How its steps are run
    #[arg(long, value_enum, default_value_t = Mode::Sequential)]
    pub mode: Mode,
    /// How often a request that got no answer, or 503, is repeated by the next member
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub repeats: u32,
    /// The loss of the leader.
    #[command(flatten)]
    pub kill: KillArgs,
}

/// How the steps of a pipeline are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// One after the other.
    Sequential,
    /// All at once.
    Parallel,
    /// Half of them at once, the others one after the other.
    Hybrid,
}

/// Options of `heartbeats`.
#[derive(Debug, Clone, Args)]
pub struct HeartbeatsArgs {
    /// Nodes that are registered first and removed at the end; mind `network.max_nodes`
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub nodes: u32,
    /// Seconds between two heartbeats of a node
    #[arg(long, default_value = "5", value_parser = secs)]
    pub period: Duration,
    /// Nodes that fall silent at one moment
    #[arg(long, default_value_t = 100)]
    pub dying: u32,
    /// Seconds of the measured time after which they do; a quarter of it when not given
    #[arg(long, value_parser = secs)]
    pub die_after: Option<Duration>,
    /// Every heartbeat reports other figures than the one before, which the cluster records
    #[arg(long)]
    pub moving: bool,
    /// How often a heartbeat that got no answer, or 503, is repeated by the next member
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub repeats: u32,
    /// The loss of the leader, and the members' processes, whose processor time is read.
    #[command(flatten)]
    pub kill: KillArgs,
}

/// Options of `bots`.
#[derive(Debug, Clone, Args)]
pub struct BotsArgs {
    /// Bots of a swarm; the cluster must have room for them
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub bots: u32,
    /// How often a swarm is made, given work and removed
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Times that every bot of the swarm is given work that workers do
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub waves: u32,
    /// Workers that lease and complete in batches
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub workers: u32,
    /// Assignments in each batch
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub batch: u32,
    /// Reads of the statistics, without bots and with them
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub reads: u32,
    /// The members' processes, whose memory is read.
    #[command(flatten)]
    pub members: MembersArgs,
}

/// The leader may be killed while something is measured.
#[derive(Debug, Clone, Args)]
pub struct KillArgs {
    /// Kill the leader (SIGKILL) and start it again; needs --pid-file and --restart
    #[arg(long, requires_all = ["pid_file", "restart"])]
    pub kill_leader: bool,
    /// Seconds of the measured time after which it is killed; half of it when not given
    #[arg(long, value_parser = secs, requires = "kill_leader")]
    pub kill_after: Option<Duration>,
    /// Its process.
    #[command(flatten)]
    pub members: MembersArgs,
}
