//! `quorate server` and `quorate dev`: what can be said to them.

use std::path::PathBuf;

/// Runs a member.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// The configuration file; a missing one is an error only when it is named
    #[arg(long, env = "QUORATE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of the HTTP listener; goes before the file
    #[arg(long)]
    pub host: Option<String>,
    /// Port of the HTTP listener; goes before the file
    #[arg(long)]
    pub port: Option<u16>,
    /// Logs at level debug
    #[arg(long)]
    pub debug: bool,
    /// Writes a configuration file with every key and its default to standard output, and ends
    #[arg(long)]
    pub generate_config: bool,
}

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
    /// Removes what an earlier run left in --dir first
    #[arg(long)]
    pub fresh: bool,
}
