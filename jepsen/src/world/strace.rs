//! Errors and delays injected into the system calls of a running member, by strace.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;

use super::process::Process;

const ATTACH: Duration = Duration::from_secs(2);

/// An injection under way; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Injection {
    tracer: Process,
    log: PathBuf,
}

impl Injection {
    /// Attaches to a process. `what` is strace's: `fdatasync,fsync:error=EIO`.
    ///
    /// # Errors
    /// Without strace, or without the right to trace.
    pub(crate) async fn attach(pid: u32, what: &str, dir: &Path) -> anyhow::Result<Self> {
        let calls = what.split(':').next().unwrap_or(what);
        let log = dir.join(format!("strace-{pid}"));
        let said = dir.join(format!("strace-{pid}.said"));
        // Either may be there from an earlier process of that number.
        let _ = (std::fs::remove_file(&log), std::fs::remove_file(&said));
        let words = [
            "strace",
            "-f",
            "-o",
            &log.display().to_string(),
            "-e",
            &format!("trace={calls}"),
            "-e",
            &format!("inject={what}"),
            "-p",
            &pid.to_string(),
        ]
        .map(str::to_owned);
        let mut tracer = Process::start(&words, &[], &said)?;
        let deadline = tokio::time::Instant::now() + ATTACH;
        while !std::fs::read_to_string(&said).unwrap_or_default().contains("attached") {
            ensure!(tracer.ended().is_none(), "strace ended: {}", read(&said));
            ensure!(tokio::time::Instant::now() < deadline, "strace does not attach");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Self { tracer, log })
    }

    /// How many calls were tampered with so far.
    pub(crate) fn count(&self) -> usize {
        read(&self.log).matches("(INJECTED)").count() + read(&self.log).matches("(DELAYED)").count()
    }

    /// Lets the process go.
    pub(crate) async fn detach(mut self) -> usize {
        // Fails when the member, and strace with it, is gone.
        let _ = self.tracer.signal(Signal::INT);
        if self.tracer.wait(ATTACH).await.is_err() {
            self.tracer.kill();
        }
        self.count()
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
