//! `quorate server`: what can be said to a member.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::exit::Failure;
use super::output;
use crate::config::{self, Config, Flags};
use crate::server;
use crate::telemetry;

/// Family W's file, read when it lies here and no other is named (contract 2.5).
const FAMILY_W_FILE: &str = "orchestrator_config.yaml";

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
    /// Ends at once when the process that started this one ends
    #[arg(long, hide = true)]
    pub with_parent: bool,
    /// Writes a configuration file with every key and its default, to --config or else to standard
    /// output, and ends
    #[arg(long)]
    pub generate_config: bool,
    /// The global `--log`; goes before the file and `--debug`.
    #[arg(skip)]
    pub(super) log: Option<String>,
    /// The global `--log-format`; goes before the file.
    #[arg(skip)]
    pub(super) log_format: Option<telemetry::Format>,
}

impl ServerArgs {
    /// Reads and checks the configuration in all its layers, tells the warnings, and starts
    /// logging as it says.
    ///
    /// # Errors
    /// A usage failure that names everything that is wrong.
    pub fn load(&self) -> Result<Config, Failure> {
        let environment = config::environment();
        let named = self
            .config
            .clone()
            .or_else(|| environment.get("ORCHESTRATOR_CONFIG").map(PathBuf::from));
        let file = named.or_else(|| {
            let usual = Path::new(FAMILY_W_FILE);
            usual.exists().then(|| usual.to_owned())
        });
        let debug = self.debug.then(|| "debug".to_owned());
        let log_level = self.log.clone().or(debug);
        let (host, log_format) = (self.host.clone(), self.log_format);
        let flags = Flags { host, port: self.port, log_level, log_format };
        let config = config::load(file.as_deref(), &environment, &flags).map_err(Failure::usage)?;
        telemetry::start(&config.log_level, config.log_format).map_err(Failure::usage)?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        Ok(config)
    }

    /// Runs the member until it is told to stop, or must.
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        if self.with_parent {
            let parent = getppid();
            set_parent_process_death_signal(Some(Signal::KILL)).map_err(Failure::failed)?;
            // It may have ended just before it was asked to be told of.
            if parent != getppid() {
                return Err(Failure::failed("the process that started this one has ended"));
            }
        }
        Ok(server::run(self.load()?)?)
    }

    /// Does what `--generate-config` asks for. An existing file is never overwritten.
    pub(super) fn generate(&self) -> Result<ExitCode, Failure> {
        let text = config::generate();
        let Some(path) = &self.config else {
            output::line(text.trim_end());
            return Ok(ExitCode::SUCCESS);
        };
        let file = std::fs::File::options().write(true).create_new(true).open(path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        output::talk(&format!("wrote {}", path.display()));
        Ok(ExitCode::SUCCESS)
    }
}
