//! Members as processes of this machine: found by their pid files, stopped and started again.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::Instant;

use super::args::MembersArgs;
use super::connection::Target;
use super::control::Control;
use super::process;

const STARTER_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Where a member of Quorate says whether it takes requests.
pub(super) const READY: &str = "/readyz";

/// The processes behind the URLs, in the same order.
#[derive(Debug, Clone)]
pub(super) struct Members {
    args: MembersArgs,
}

impl Members {
    /// Checks that there is a pid file for each of `count` members, or none at all.
    ///
    /// # Errors
    /// When the numbers differ.
    pub(super) fn new(args: &MembersArgs, count: usize) -> anyhow::Result<Self> {
        let files = args.pid_file.len();
        ensure!(
            files == 0 || files == count,
            "{files} pid files for {count} URLs: give one for each, in the same order"
        );
        Ok(Self { args: args.clone() })
    }

    /// Whether pid files are known.
    #[must_use]
    pub(super) fn are_known(&self) -> bool {
        !self.args.pid_file.is_empty()
    }

    /// The process id of a member (counted from 0).
    ///
    /// # Errors
    /// When its file is missing or no process id.
    pub(super) fn pid(&self, member: usize) -> anyhow::Result<i32> {
        let file = self.args.pid_file.get(member).context("this needs --pid-file")?;
        process::read_pid(file)
    }

    /// Sends a signal to a process of the expected name.
    ///
    /// # Errors
    /// Like [`process::signal`].
    pub(super) fn signal(&self, pid: i32, signal: Signal) -> anyhow::Result<()> {
        process::signal(pid, &self.args.process_name, signal)
    }

    /// Waits until a process is gone.
    ///
    /// # Errors
    /// When it still runs after 20 seconds.
    pub(super) async fn wait_gone(pid: i32) -> anyhow::Result<()> {
        let deadline = Instant::now() + STOP_TIMEOUT;
        while process::is_running(pid) {
            ensure!(Instant::now() < deadline, "process {pid} still runs after {STOP_TIMEOUT:?}");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Whether members can be started again.
    #[must_use]
    pub(super) fn can_restart(&self) -> bool {
        self.args.restart.is_some()
    }

    /// Runs the command that starts a member again (counted from 0).
    ///
    /// # Errors
    /// When there is none, or it fails or takes longer than 30 seconds.
    pub(super) async fn restart(&self, member: usize) -> anyhow::Result<()> {
        let command = self.restart_command(member)?;
        let mut starter = Command::new("sh");
        starter.arg("-c").arg(&command).kill_on_drop(true);
        starter.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = tokio::time::timeout(STARTER_TIMEOUT, starter.status()).await;
        let status = status.with_context(|| format!("`{command}` does not end"))??;
        ensure!(status.success(), "`{command}` ended with {status}");
        Ok(())
    }

    fn restart_command(&self, member: usize) -> anyhow::Result<String> {
        let command = self.args.restart.as_ref().context("this needs --restart")?;
        let command = command.replace("{n}", &(member + 1).to_string());
        let file = self.args.pid_file.get(member);
        Ok(file.map_or_else(
            || command.clone(),
            |file| command.replace("{pid_file}", &file.display().to_string()),
        ))
    }

    /// Resident bytes of each member; none for those that are not known or not there.
    #[must_use]
    pub(super) fn resident_each(&self) -> Vec<Option<u64>> {
        let members = 0..self.args.pid_file.len();
        members.map(|member| process::resident_bytes(self.pid(member).ok()?)).collect()
    }

    /// Resident bytes of all members together; `None` when one is not known or not there.
    #[must_use]
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        if !self.are_known() {
            return None;
        }
        self.resident_each().into_iter().sum()
    }
}

/// Waits until a member says that it is ready: until it answers 200 at `path`.
///
/// # Errors
/// When it does not within two minutes.
pub(super) async fn wait_ready(
    control: &Control,
    target: &Target,
    path: &str,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    while !matches!(control.call_one(target, "GET", path, b"").await, Ok((200, _))) {
        ensure!(
            Instant::now() < deadline,
            "{} is not ready after {READY_TIMEOUT:?}",
            target.authority
        );
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(dir: &std::path::Path, restart: Option<&str>) -> MembersArgs {
        MembersArgs {
            pid_file: vec![dir.join("1.pid"), dir.join("2.pid")],
            restart: restart.map(str::to_owned),
            process_name: "sleep".to_owned(),
        }
    }

    #[test]
    fn every_member_has_a_pid_file_or_none_has() {
        let args = args("x".as_ref(), None);
        assert!(Members::new(&args, 3).is_err());
        assert!(Members::new(&args, 2).unwrap().are_known());
        assert!(
            !Members::new(&MembersArgs { pid_file: Vec::new(), ..args }, 3).unwrap().are_known()
        );
    }

    #[tokio::test]
    async fn a_member_is_killed_and_started_again() {
        let dir = tempfile::tempdir().unwrap();
        // It ends when the process has its name; the comment shows that the number is filled in.
        let start = "sleep 600 & echo $! > {pid_file}; \
                     until grep -q sleep /proc/$!/comm; do :; done # member {n}";
        let members = Members::new(&args(dir.path(), Some(start)), 2).unwrap();
        assert!(members.restart_command(1).unwrap().ends_with("# member 2"));
        members.restart(1).await.unwrap();
        let first = members.pid(1).unwrap();
        assert!(process::is_running(first));
        assert!(members.pid(0).is_err());
        assert_eq!(members.resident_bytes(), None, "the other member is not there");

        members.signal(first, Signal::KILL).unwrap();
        Members::wait_gone(first).await.unwrap();
        members.restart(1).await.unwrap();
        let second = members.pid(1).unwrap();
        assert_ne!(first, second);
        members.signal(second, Signal::TERM).unwrap();
        Members::wait_gone(second).await.unwrap();
    }

    #[tokio::test]
    async fn a_starter_that_fails_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let members = Members::new(&args(dir.path(), Some("exit 3")), 2).unwrap();
        let error = members.restart(0).await.unwrap_err().to_string();
        assert!(error.contains("exit 3"), "{error}");
        let members = Members::new(&args(dir.path(), None), 2).unwrap();
        assert!(!members.can_restart() && members.restart(0).await.is_err());
    }
}
