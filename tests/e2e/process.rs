//! A process of the program under test: its log goes to a file, and it does not outlive the test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

/// Lines of a log shown when a test fails.
const TAIL_LINES: usize = 60;

/// The program under test, with an environment that holds nothing of the developer's.
pub(crate) fn quorate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// A running process; killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `quorate` with `words`; what it says is appended to `log`.
    pub(crate) fn start(name: &str, words: &[&str], log: &Path) -> Self {
        Self::start_program(name, quorate(), words, log)
    }

    /// As [`Process::start`], for another program.
    pub(crate) fn start_program(
        name: &str,
        mut command: Command,
        words: &[&str],
        log: &Path,
    ) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        command.args(words).stdin(Stdio::null());
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap();
        Self { name: name.to_owned(), child, log: log.to_owned(), ended: None }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.ended = self.child.wait().ok();
    }

    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// Waits until it ends by itself.
    pub(crate) async fn exit(&mut self, limit: Duration) -> ExitStatus {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < until, "{} still runs after {limit:?}", self.name);
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Everything it has said so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
        }
        if std::thread::panicking() {
            println!("--- {} ({:?}), the end of its log:\n{}", self.name, self.ended, self.tail());
        }
    }
}

impl Process {
    fn tail(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}
