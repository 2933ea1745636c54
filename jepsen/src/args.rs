//! The command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use jepsen::checker::{Validity, worst};
use jepsen::history::History;
use jepsen::workload::Load;

use crate::canary::{canaries, features};
use crate::ci::ci;
use crate::kills::kills;
use crate::run::{Spec, print, run};
use crate::scenario::Scenario;
use crate::world::{Rights, Tier, enter, rights};
use crate::{judge, nemesis, program, selftest};

/// Fault testing of a Quorate cluster, in the manner of Jepsen.
#[derive(Debug, Parser)]
#[command(name = "jepsen", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The fixed set of short runs that every change goes through: about seven minutes.
    Ci(CiArgs),
    /// Runs of faults and workloads for a while, one after the other.
    Run(RunArgs),
    /// Tests the injectors: control rows of the power cut, every fault once.
    Selftest(SelftestArgs),
    /// Kills the leader many times in one run, and measures what that costs.
    Kills(KillsArgs),
    /// Shows that builds which are broken on purpose are caught.
    Canaries(CanariesArgs),
    /// Runs a scenario again.
    Replay(ReplayArgs),
    /// Checks a history that was recorded earlier.
    Check {
        /// A `history.jsonl`.
        file: PathBuf,
    },
    /// Names the faults there are.
    List,
    /// What the control rows run in a process of its own.
    #[command(hide = true)]
    WriteRecords {
        path: PathBuf,
        #[arg(long)]
        flush: bool,
    },
}

/// What every command with a world takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct WorldArgs {
    /// The program under test [default: the one beside this program].
    #[arg(long, value_name = "PATH")]
    quorate: Option<PathBuf>,
    /// Members of the cluster.
    #[arg(long, default_value_t = 3, value_parser = parse_members)]
    members: usize,
    /// How members are connected [default: the best there is].
    #[arg(long)]
    tier: Option<Tier>,
    /// Leave the members' disks where they are after the run.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Args)]
struct SelftestArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// Which faults, groups of faults, or `all` or `none`.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    faults: Vec<String>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// Which faults, groups of faults, or `all` or `none`.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    faults: Vec<String>,
    /// Which workloads.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    workloads: Vec<String>,
    /// How long each run lasts.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// One seed, or a range: `1..10`, both ends included.
    #[arg(long, default_value = "1")]
    seeds: String,
}

#[derive(Debug, Args)]
struct CiArgs {
    #[command(flatten)]
    world: WorldArgs,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct KillsArgs {
    #[command(flatten)]
    world: WorldArgs,
    #[arg(long, default_value_t = 200)]
    count: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which workloads.
    #[arg(long, value_delimiter = ',', default_value = "set,register,retry,attempts")]
    workloads: Vec<String>,
}

#[derive(Debug, Args)]
struct CanariesArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// Only these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    #[command(flatten)]
    world: WorldArgs,
    /// A file of `jepsen/scenarios`.
    scenario: PathBuf,
    /// How often, each time with the next seed.
    #[arg(long, default_value_t = 1)]
    count: u64,
}

/// Smaller clusters survive nothing, even ones nothing more, and larger ones are too much for a
/// machine of two cores.
fn parse_members(text: &str) -> Result<usize, String> {
    match text {
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("3 or 5".to_owned()),
    }
}

/// `7` or `1..10`.
fn parse_seeds(text: &str) -> anyhow::Result<Vec<u64>> {
    let parse = |text: &str| text.parse::<u64>().with_context(|| format!("{text} is no seed"));
    let Some((first, last)) = text.split_once("..") else { return Ok(vec![parse(text)?]) };
    let (first, last) = (parse(first)?, parse(last.trim_start_matches('='))?);
    anyhow::ensure!(first <= last, "{text} is an empty range");
    Ok((first..=last).collect())
}

/// Carries out a command.
///
/// # Errors
/// When the harness itself fails.
pub(crate) fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.what {
        What::List => {
            for kind in nemesis::all() {
                println!("{:30} {:?}, needs {:?}", kind.name, kind.lane, kind.need);
            }
            Ok(ExitCode::SUCCESS)
        }
        What::WriteRecords { path, flush } => {
            selftest::write_records(&path, flush)?;
            Ok(ExitCode::SUCCESS)
        }
        What::Selftest(args) => {
            enter(args.world.tier)?;
            block_on(selftest::everything(&args.spec()?))
        }
        What::Run(args) => {
            enter(args.world.tier)?;
            block_on(all_runs(args))
        }
        What::Ci(args) => {
            // Built where the network and the registry are as usual, before the program enters
            // namespaces of its own.
            args.world.build_outside()?;
            enter(args.world.tier)?;
            let base = args.world.spec()?;
            block_on(async move { ci(&base, args.seed).await })
        }
        What::Kills(args) => {
            enter(args.world.tier)?;
            block_on(kill_leaders(args))
        }
        What::Canaries(args) => {
            let program = args.world.canaries_outside()?;
            enter(args.world.tier)?;
            let base = Spec { program, ..args.world.base_without_program() };
            block_on(async move { canaries(&base, &args.only, args.seed).await })
        }
        What::Replay(args) => {
            enter(args.world.tier)?;
            block_on(replay(args))
        }
        What::Check { file } => check(&file),
    }
}

/// Checks a recorded history.
fn check(file: &Path) -> anyhow::Result<ExitCode> {
    let history = History::read(file).with_context(|| file.display().to_string())?;
    let workloads = jepsen::workload::of_history(&history);
    let verdicts = judge::judge(&history, &workloads, &[], &[], Vec::new());
    let validity = worst(&verdicts);
    print(&verdicts, validity, file);
    Ok(ExitCode::from(validity.exit_code()))
}

async fn kill_leaders(args: KillsArgs) -> anyhow::Result<Validity> {
    let members = args.world.members;
    let spec = Spec {
        name: "kills".to_owned(),
        seed: args.seed,
        workloads: args.workloads,
        repeat: format!(
            "cargo run -p jepsen --release -- kills --count {} --seed {} --members {members}",
            args.count, args.seed
        ),
        ..args.world.spec()?
    };
    Ok(kills(&spec, args.count).await?.validity)
}

async fn replay(args: ReplayArgs) -> anyhow::Result<Validity> {
    let scenario = Scenario::read(&args.scenario)?;
    println!("{}: {}", scenario.name, scenario.why);
    let mut worst = Validity::Valid;
    for number in 0..args.count {
        let mut spec = scenario.spec(args.world.spec()?)?;
        spec.seed += number;
        worst = worst.max(run(&spec).await?.validity);
    }
    Ok(worst)
}

/// Runs to the end, or until somebody interrupts: then everything is taken down on the way out.
fn block_on(command: impl Future<Output = anyhow::Result<Validity>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            ended = command => ended,
            _ = tokio::signal::ctrl_c() => bail!("interrupted; everything was taken down"),
            _ = terminate.recv() => bail!("terminated; everything was taken down"),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    ended.map(|validity| ExitCode::from(validity.exit_code()))
}

impl SelftestArgs {
    fn spec(&self) -> anyhow::Result<Spec> {
        Ok(Spec {
            name: "selftest".to_owned(),
            seed: self.seed,
            faults: nemesis::named(&self.faults)?,
            ..self.world.spec()?
        })
    }
}

impl WorldArgs {
    fn base_without_program(&self) -> Spec {
        Spec {
            name: String::new(),
            seed: 0,
            members: self.members,
            faults: Vec::new(),
            workloads: Vec::new(),
            time: Duration::ZERO,
            tier: self.tier,
            program: PathBuf::new(),
            environment: Vec::new(),
            load: Load::default(),
            keep: self.keep,
            repeat: String::new(),
        }
    }

    fn spec(&self) -> anyhow::Result<Spec> {
        let program = program::find(self.quorate.as_deref(), false)?;
        Ok(Spec { program, ..self.base_without_program() })
    }

    /// Builds the program under test, unless one was named, or this is the inner process already.
    fn build_outside(&self) -> anyhow::Result<()> {
        if rights() == Rights::None && self.quorate.is_none() {
            program::find(None, true)?;
        }
        Ok(())
    }

    /// The program with the sabotages, built unless one was named.
    fn canaries_outside(&self) -> anyhow::Result<PathBuf> {
        match &self.quorate {
            Some(given) => program::find(Some(given), false),
            None => program::with_canaries(&features(), rights() == Rights::None),
        }
    }
}

async fn all_runs(args: RunArgs) -> anyhow::Result<Validity> {
    let seeds = parse_seeds(&args.seeds)?;
    let mut worst = Validity::Valid;
    for seed in &seeds {
        let spec = Spec {
            name: "run".to_owned(),
            seed: *seed,
            faults: nemesis::named(&args.faults)?,
            workloads: args.workloads.clone(),
            time: Duration::from_secs_f64(args.minutes * 60.0),
            ..args.world.spec()?
        };
        worst = worst.max(run(&spec).await?.validity);
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_one_or_a_range() {
        assert_eq!(parse_seeds("7").unwrap(), [7]);
        assert_eq!(parse_seeds("1..3").unwrap(), [1, 2, 3]);
        assert!(parse_seeds("3..1").is_err() && parse_seeds("x").is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
