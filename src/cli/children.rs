//! Processes of a cluster on this machine, for `dev` and for drills: started, restarted when they
//! die, stopped in order.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child as Process, Command};
use tokio::time::{Instant, sleep, timeout};

/// A process that died is started again after this long.
const RESTART_PAUSE: Duration = Duration::from_secs(3);
/// A process that was asked to stop is killed after this long.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two looks at whether something died.
const TEND_PERIOD: Duration = Duration::from_millis(200);
/// Lines of a log that are shown when its process died at start.
const LOG_TAIL: usize = 12;

/// One process: what it is called, where its log and process id are, how it is started.
pub(super) struct Child {
    name: String,
    home: PathBuf,
    words: Vec<String>,
    process: Option<Process>,
    restart_at: Option<Instant>,
    /// Down on purpose: it is not started again until somebody says so.
    held: bool,
}

impl Child {
    pub(super) fn new(name: String, home: PathBuf, words: &[&str]) -> anyhow::Result<Self> {
        fs::create_dir_all(&home).with_context(|| format!("creating {}", home.display()))?;
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Ok(Self { name, home, words, process: None, restart_at: None, held: false })
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let log_path = self.home.join("log");
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.with_context(|| format!("opening {}", log_path.display()))?;
        let exe = std::env::current_exe().context("finding this program")?;
        let process = Command::new(exe)
            .args(&self.words)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A Ctrl-C in the terminal is for us alone: we stop the others in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", self.name))?;
        let pid = process.id().context("a process that was just started has an id")?;
        fs::write(self.home.join("pid"), pid.to_string()).context("noting the process id")?;
        self.process = Some(process);
        self.restart_at = None;
        self.held = false;
        Ok(())
    }

    /// How it ended, if it did.
    fn ended(&mut self) -> Option<String> {
        let status = self.process.as_mut()?.try_wait().ok()??;
        self.process = None;
        let _ = fs::remove_file(self.home.join("pid"));
        Some(format!("{} ended ({status})", self.name))
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.home.join("log")).unwrap_or_default();
        let mut tail: VecDeque<&str> = VecDeque::new();
        for line in text.lines() {
            if tail.len() == LOG_TAIL {
                tail.pop_front();
            }
            tail.push_back(line);
        }
        tail.into_iter().map(|line| format!("\n  {line}")).collect()
    }

    async fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        if let Some(pid) = process.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // It may have ended by itself a moment ago.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(STOP_TIMEOUT, process.wait()).await.is_err() {
            tracing::warn!(name = self.name, "it did not stop in time and is killed");
            let _ = process.kill().await;
        }
        let _ = fs::remove_file(self.home.join("pid"));
    }
}

/// All of them, in the order they were started.
#[derive(Default)]
pub(super) struct Children(Vec<Child>);

impl Children {
    pub(super) fn start(&mut self, mut child: Child) -> anyhow::Result<()> {
        child.start()?;
        self.0.push(child);
        Ok(())
    }

    /// The first that ended, with the end of its log.
    pub(super) fn first_ended(&mut self) -> Option<String> {
        let mut children = self.0.iter_mut();
        children.find_map(|child| child.ended().map(|said| said + &child.log_tail()))
    }

    fn find(&mut self, name: &str) -> anyhow::Result<&mut Child> {
        let found = self.0.iter_mut().find(|child| child.name == name);
        found.ok_or_else(|| anyhow!("there is no {name}"))
    }

    /// Whether a process runs.
    pub(super) fn runs(&mut self, name: &str) -> bool {
        self.find(name).is_ok_and(|child| child.process.is_some())
    }

    /// `kill -9`; it stays down until it is started again.
    pub(super) async fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let child = self.find(name)?;
        let Some(mut process) = child.process.take() else { bail!("{name} does not run") };
        child.held = true;
        let killed = process.kill().await.with_context(|| format!("killing {name}"));
        let _ = fs::remove_file(child.home.join("pid"));
        killed
    }

    /// Stops a process in order; it stays down until it is started again.
    pub(super) async fn stop_one(&mut self, name: &str) -> anyhow::Result<()> {
        let child = self.find(name)?;
        child.held = true;
        child.stop().await;
        Ok(())
    }

    /// Starts a process that is down.
    pub(super) fn start_again(&mut self, name: &str) -> anyhow::Result<()> {
        let child = self.find(name)?;
        if child.process.is_some() {
            bail!("{name} runs already");
        }
        child.start()
    }

    /// Waits until something died or was started again, and says so. Cancelling it is harmless.
    pub(super) async fn tend(&mut self) -> anyhow::Result<String> {
        loop {
            for child in &mut self.0 {
                if let Some(said) = child.ended() {
                    child.restart_at = Some(Instant::now() + RESTART_PAUSE);
                    return Ok(format!("{said}; restarts in {} s", RESTART_PAUSE.as_secs()));
                }
                let due = child.restart_at.is_some_and(|at| at <= Instant::now());
                if due && !child.held {
                    child.start()?;
                    return Ok(format!("{} runs again", child.name));
                }
            }
            sleep(TEND_PERIOD).await;
        }
    }

    /// Kills them all: for a cluster that is thrown away.
    pub(super) async fn stop_all_at_once(&mut self) {
        for mut child in self.0.drain(..) {
            if let Some(mut process) = child.process.take() {
                let _ = process.kill().await;
            }
        }
    }

    /// Stops them in the reverse of the order they were started, workers before members.
    pub(super) async fn stop(&mut self) {
        let (members, workers): (Vec<_>, Vec<_>) =
            self.0.drain(..).partition(|child| child.name.starts_with("member"));
        for group in [workers, members] {
            let stops = group.into_iter().map(|mut child| async move { child.stop().await });
            futures::future::join_all(stops).await;
        }
    }
}

/// Fails when an earlier run is still there, or left something running.
pub(super) fn refuse_if_running(dir: &Path) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    let mut running = Vec::new();
    for entry in entries {
        let Ok(text) = fs::read_to_string(entry?.path().join("pid")) else { continue };
        let Ok(pid) = text.trim().parse::<u32>() else { continue };
        // The number may have been given to something else since.
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if command.contains("quorate") {
            running.push(pid.to_string());
        }
    }
    if running.is_empty() {
        return Ok(());
    }
    bail!(
        "a dev cluster still runs in {}: stop it with Ctrl-C in its terminal, or end the processes {}",
        dir.display(),
        running.join(" ")
    );
}
