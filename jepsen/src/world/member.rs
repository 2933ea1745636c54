//! One member of the cluster under test: where it lives, how it is started, what was done to it.

use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::json;

use super::clock::Clock;
use super::disk::Disk;
use super::process::Process;

/// How members are configured, beside where they live. Snapshots come often, so that runs of half a
/// minute see them taken and sent; requests are held for less than clients wait.
const SETTINGS: &str =
    "  limits:\n    request_hold_ms: 1500\n  snapshot:\n    entries: 1500\n    keep_entries: 200\n";

/// Where a member listens and what it tells others.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    pub http: SocketAddr,
    pub http_told: SocketAddr,
    pub peer: SocketAddr,
    pub peer_told: SocketAddr,
}

/// A member, running or not.
#[derive(Debug)]
pub(crate) struct Member {
    pub name: String,
    pub addresses: Addresses,
    pub disk: Disk,
    pub clock: Option<Clock>,
    pub process: Option<Process>,
    /// What is put in front of the program: the way into its namespace.
    pub prefix: Vec<String>,
    /// Its configuration file.
    pub file: PathBuf,
    /// All it has said, over all starts.
    pub log: PathBuf,
    /// Set while the program must look like a member that was never there before.
    pub environment: Vec<(String, String)>,
}

impl Member {
    /// The text of its configuration file.
    pub(crate) fn config(&self, peers: &[String]) -> String {
        let Addresses { http, http_told, peer, peer_told } = &self.addresses;
        format!(
            "cluster:\n  name: {}\n  data_dir: {}\n  peers: {}\n  bootstrap_expect: {}\n\
             {SETTINGS}listeners:\n  \
             - {{ profile: web4ai, addr: \"{http}\", advertise: \"{http_told}\" }}\n  \
             - {{ profile: peer, addr: \"{peer}\", advertise: \"{peer_told}\" }}\n\
             logging:\n  level: info\n",
            self.name,
            json!(self.disk.data()),
            json!(peers),
            peers.len(),
        )
    }

    /// Starts it, unless it runs.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub(crate) fn start(&mut self, program: &str) -> anyhow::Result<u32> {
        if let Some(process) = self.running() {
            return Ok(process.pid());
        }
        let mut words = self.prefix.clone();
        // The clock goes to the program alone, not to what leads into its namespace.
        let clock = self.clock.as_ref().map(Clock::environment).unwrap_or_default();
        let pairs = clock.iter().chain(&self.environment);
        words.push("env".to_owned());
        words.extend(pairs.map(|(name, value)| format!("{name}={value}")));
        let file = self.file.display().to_string();
        words.extend([program, "server", "--config", &file].map(str::to_owned));
        let process = Process::start(&words, &[], &self.log)?;
        let pid = process.pid();
        self.process = Some(process);
        Ok(pid)
    }

    /// Its process, when it has one that runs.
    pub(crate) fn running(&mut self) -> Option<&mut Process> {
        let process = self.process.as_mut()?;
        if process.ended().is_none() { Some(process) } else { None }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.running().is_some()
    }

    /// Kills it with the signal that nothing can catch; whether it ran.
    pub(crate) fn kill(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::kill)
    }

    /// # Errors
    /// When it does not run.
    pub(crate) fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        let process = self.running();
        process.map_or_else(|| anyhow::bail!("it does not run"), |process| process.signal(signal))
    }

    /// What it has said since a point in its log.
    pub(crate) fn said_since(&self, offset: u64) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        String::from_utf8_lossy(&text[from..]).into_owned()
    }

    /// The present end of its log.
    pub(crate) fn log_end(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |about| about.len())
    }
}
