//! One process of a member: started, signalled, reaped.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

const POLL: Duration = Duration::from_millis(2);

/// A child process; killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts a program whose output is added to a file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(
        words: &[String],
        environment: &[(String, String)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let (program, arguments) = words.split_first().context("a command has a program")?;
        let output = File::options().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Self { child, status: None })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; none while it runs.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            // An error means that somebody else reaped it, and nobody does.
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// # Errors
    /// When it has ended already.
    pub(crate) fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        ensure!(self.ended().is_none(), "the process has ended already");
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process id")?, signal)?;
        Ok(())
    }

    /// Kills and reaps it; whether it still ran.
    pub(crate) fn kill(&mut self) -> bool {
        let ran = self.ended().is_none();
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        if self.status.is_none() {
            self.status = self.child.wait().ok();
        }
        ran
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after the given time.
    pub(crate) async fn wait(&mut self, time: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "still running after {time:?}");
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The state letter of a process in /proc: `T` is stopped, `Z` dead.
pub(crate) fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Where each thread of a process is: its state, and what it waits for in the kernel. For a process
/// that does not do what it should.
pub(crate) fn threads_of(pid: u32) -> String {
    let mut lines = Vec::new();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    for task in tasks.into_iter().flatten().flatten() {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let state = read("stat");
        let state = state.rsplit_once(')').map(|(_, rest)| rest.trim().chars().next());
        let state = state.flatten().unwrap_or('?');
        let (name, wait, call) = (read("comm"), read("wchan"), read("syscall"));
        lines.push(format!("{} {state} {} {}", name.trim(), wait.trim(), call.trim()));
    }
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_stopped_and_killed_and_says_how_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let words = ["sleep", "600"].map(str::to_owned);
        let mut process = Process::start(&words, &[], &log).unwrap();
        process.signal(Signal::STOP).unwrap();
        for _ in 0..500 {
            if state_of(process.pid()) == Some('T') {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        assert_eq!(state_of(process.pid()), Some('T'));
        assert!(process.kill() && !process.kill());
        assert_eq!(process.ended().unwrap().code(), None, "a signal ended it");
        assert!(process.signal(Signal::TERM).is_err());

        let words = ["sh", "-c", "echo said; exit 3"].map(str::to_owned);
        let mut process = Process::start(&words, &[], &log).unwrap();
        let status = process.wait(Duration::from_secs(5)).await.unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "said\n");
    }
}
