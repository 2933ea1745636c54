//! What can be said to `quorate drill`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::scheduled::{ScheduleArgs, ServeArgs};
use super::{Failure, Output, Reach};
use crate::cli::durations::duration;
use crate::drill::{Limits, Options, ProbeNode, Way};
use crate::model::DrillKind;

const HELP: &str = "\
Exit codes: 0 passed, 1 failed or refused, 2 used wrongly, 3 no member reachable or able,
4 inconclusive: the fault did not take effect, or too little was seen to tell.
Members must allow drills: cluster.drills.enabled and cluster.admin_key in their files.";

/// `quorate drill`, its reach and its kinds.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(in crate::cli) struct DrillLine {
    #[command(flatten)]
    pub(super) reach: Reach,
    /// What to print: text for people, JSON for programs
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(super) output: Output,
    #[command(subcommand)]
    pub(super) subcommand: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommand {
    /// Loses the leader without warning
    Failover {
        #[command(flatten)]
        common: Common,
    },
    /// Hands the leader's office over
    Transfer {
        #[command(flatten)]
        common: Common,
        /// Who shall lead; without, the best suited voter
        #[arg(long, value_name = "MEMBER")]
        to: Option<u64>,
    },
    /// Lets a member hang: it neither dies nor takes part
    Pause {
        #[command(flatten)]
        common: Common,
        /// Which one; without, the leader
        #[arg(long)]
        member: Option<u64>,
    },
    /// Cuts members off from the others
    Partition {
        #[command(flatten)]
        common: Common,
        /// Who is cut off, together; without, the leader
        #[arg(long = "member", value_delimiter = ',')]
        members: Vec<u64>,
        /// Both ways, or only what is sent to them (in) or what they send (out)
        #[arg(long, value_enum, default_value_t)]
        way: WayWord,
    },
    /// Restarts every member, one after the other
    RestartAll {
        #[command(flatten)]
        common: Common,
        /// Kills all at once instead: the cluster does not serve until they are back
        #[arg(long)]
        at_once: bool,
    },
    /// Makes a member's disk slow
    DiskSlow {
        #[command(flatten)]
        common: Common,
        /// Which one; without, the leader
        #[arg(long)]
        member: Option<u64>,
        /// How much longer each flush of the log takes, at most 2s
        #[arg(long, default_value = "100ms", value_parser = duration)]
        delay: Duration,
    },
    /// Makes a backup, restores it into a scratch state and compares
    Restore {
        #[command(flatten)]
        common: Common,
        /// Of which member; without, of each
        #[arg(long)]
        member: Option<u64>,
    },
    /// Puts a drill on a calendar
    Schedule(ScheduleArgs),
    /// Does the drills that are due: a worker for their tasks
    Serve(ServeArgs),
    /// Does the drill of one task, as a program of a worker
    #[command(hide = true)]
    Conduct {
        #[command(flatten)]
        key: Keyed,
        /// The task, as its worker says
        #[arg(long, env = "QUORATE_TASK_ID")]
        task_id: String,
        #[command(flatten)]
        place: Place,
    },
    /// Lists the drills that the cluster remembers
    List,
    /// Shows the report of one drill
    Show {
        /// Its number
        id: u64,
        /// Writes the report as a page
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Ends every fault on every member, and the drill under way
    Heal {
        #[command(flatten)]
        key: Keyed,
    },
}

/// The key of administrators.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Keyed {
    /// A file that holds the admin key of the members
    #[arg(long, value_name = "FILE")]
    pub(super) admin_key_file: Option<PathBuf>,
}

impl Keyed {
    /// The key from the file, or the one that was given on the command line or in the environment.
    pub(super) fn read(&self, given: Option<&str>) -> Result<String, Failure> {
        match (&self.admin_key_file, given) {
            (None, Some(key)) => Ok(key.trim().to_owned()),
            (Some(path), _) => {
                let read = std::fs::read_to_string(path);
                let text =
                    read.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
                Ok(text.trim().to_owned())
            }
            (None, None) => {
                let text = "a drill needs the members' admin key: --admin-key, --admin-key-file \
                            or QUORATE_ADMIN_KEY; or --local for a cluster of its own";
                Err(Failure::usage(text))
            }
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum WayWord {
    #[default]
    Both,
    In,
    Out,
}

impl From<WayWord> for Way {
    fn from(word: WayWord) -> Self {
        match word {
            WayWord::Both => Self::Both,
            WayWord::In => Self::In,
            WayWord::Out => Self::Out,
        }
    }
}

/// Where the probe node takes dispatches.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct Place {
    /// Where the probe node takes dispatches; port 0 takes a free one [default: 127.0.0.1:0; of a
    /// scheduled drill, where `quorate drill serve` listens, with a free port]
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Option<SocketAddr>,
    /// host:port at which the leader reaches it [default: where it listens]
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) advertise: Option<String>,
}

impl Place {
    /// What nobody said is as `other` has it.
    pub(super) fn or(&self, other: &Self) -> Self {
        match self {
            Self { listen: None, advertise: None } => other.clone(),
            Self { .. } => self.clone(),
        }
    }

    pub(super) fn node(self) -> ProbeNode {
        let listen = self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        ProbeNode { listen, advertise: self.advertise }
    }
}

/// What every drill can be told.
#[derive(Debug, Clone, Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) key: Keyed,
    /// Says what would be done and what stays of the quorum, and does nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Drills a cluster of its own, which is started for it and thrown away
    #[arg(long)]
    pub(super) local: bool,
    /// Members of that cluster
    #[arg(long = "members", id = "local_members", value_name = "COUNT", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(super) local_members: u16,
    /// Writes the report as a page, too
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Also when members are missing, learning or behind, as long as a quorum stays
    #[arg(long)]
    degraded: bool,
    /// How long the cluster is probed before the fault
    #[arg(long, default_value = "3s", value_parser = duration)]
    before: Duration,
    /// How long the fault lasts
    #[arg(long, default_value = "5s", value_parser = duration)]
    hold: Duration,
    /// How long the cluster is probed after it
    #[arg(long, default_value = "3s", value_parser = duration)]
    after: Duration,
    /// Writes per second; as many reads through each member
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    rate: u32,
    /// The longest time without an acknowledged write
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "TIME")]
    max_write_gap: Duration,
    /// The longest time without an answered read
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "TIME")]
    max_read_gap: Duration,
    /// The longest time without a dispatch
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "TIME")]
    max_dispatch_gap: Duration,
    #[command(flatten)]
    pub(super) place: Place,
    /// Without a probe node: dispatches are not measured
    #[arg(long)]
    no_dispatch: bool,
    /// Who runs it, for the record
    #[arg(long, env = "USER", default_value = "", hide_env_values = true, value_name = "NAME")]
    by: String,
}

impl Common {
    pub(super) fn options(&self, kind: DrillKind) -> Options {
        let node = self.place.clone().node();
        Options {
            degraded: self.degraded,
            before: self.before,
            hold: self.hold,
            after: self.after,
            rate: self.rate,
            node: (!self.no_dispatch).then_some(node),
            limits: Limits {
                write_gap: self.max_write_gap,
                read_gap: self.max_read_gap,
                dispatch_gap: self.max_dispatch_gap,
            },
            started_by: self.by.chars().take(100).collect(),
            ..Options::new(kind)
        }
    }
}
