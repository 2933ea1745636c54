//! What Linux says of processes: processor time of this one, memory and names of others.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The kernel reports processor time in hundredths of a second on every architecture.
const TICKS_PER_SEC: u64 = 100;

/// Processor time that this process has used, all threads; `None` where there is no /proc.
#[must_use]
pub(super) fn cpu_time() -> Option<Duration> {
    parse_cpu_time(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// The same of another process; `None` when it is not there.
#[must_use]
pub(super) fn cpu_time_of(pid: i32) -> Option<Duration> {
    parse_cpu_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in parentheses may hold anything, so fields count from the last one on: utime and
/// stime are the 12th and 13th behind it.
fn parse_cpu_time(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SEC))
}

/// Resident memory of a process in bytes; `None` when it is not there.
#[must_use]
pub(super) fn resident_bytes(pid: i32) -> Option<u64> {
    parse_resident(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The process id in a file.
///
/// # Errors
/// When the file is not there, or holds anything else.
pub(super) fn read_pid(file: &Path) -> anyhow::Result<i32> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let pid = text.trim().parse::<i32>().ok().filter(|pid| *pid > 1);
    pid.with_context(|| format!("{} holds no process id: {text:?}", file.display()))
}

/// Sends a signal to a process, provided that it has the expected name: a stale file must not
/// cost a stranger its life.
///
/// # Errors
/// When there is no such process, it has another name, or the signal is not permitted.
pub(super) fn signal(pid: i32, name: &str, signal: Signal) -> anyhow::Result<()> {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
    let comm = comm.with_context(|| format!("process {pid} is not there"))?;
    if comm.trim() != name {
        bail!("process {pid} is {:?} and not {name:?}: it is left alone", comm.trim());
    }
    let pid = Pid::from_raw(pid).context("no process id")?;
    kill_process(pid, signal).with_context(|| format!("signalling {name}"))
}

/// Whether a process still runs (a zombie does not).
#[must_use]
pub(super) fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, fields)| fields.trim_start().chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_a_hostile_name() {
        let stat = "7 (a) R 1 (b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_secs(2)));
        assert_eq!(parse_cpu_time("7 (a) R 1"), None);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmPeak:\t   99 kB\nVmRSS:\t    2048 kB\nThreads:\t1\n";
        assert_eq!(parse_resident(status), Some(2048 * 1024));
        assert_eq!(parse_resident("Name:\tx\n"), None);
    }

    #[test]
    fn a_process_of_another_name_is_left_alone() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let name = "certainly-not";
        let error = signal(pid, name, Signal::KILL).unwrap_err().to_string();
        assert!(error.contains("left alone"), "{error}");
        assert!(is_running(pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_running(pid));
    }

    #[test]
    fn pid_files_hold_one_number() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        fs::write(&file, "4711\n").unwrap();
        assert_eq!(read_pid(&file).unwrap(), 4711);
        for text in ["", "x", "-1", "0", "1", "12 13"] {
            fs::write(&file, text).unwrap();
            assert!(read_pid(&file).is_err(), "{text:?}");
        }
    }
}
