//! The directory in which a run keeps its disks. A run that was killed may leave one behind; the
//! next one finds it, by a lock that nobody holds any more, and takes it away.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{FlockOperation, flock};

use super::command::run;

const PREFIX: &str = "quorate-jepsen-";
const LOCK: &str = "lock";

/// Removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub dir: PathBuf,
    keep: bool,
    _lock: File,
}

impl Scratch {
    /// A new directory, named after the moment and the process.
    ///
    /// # Errors
    /// When it cannot be made or locked.
    pub(crate) fn new(keep: bool) -> anyhow::Result<Self> {
        let base = std::env::temp_dir();
        for left in sweep(&base) {
            println!("removed what a dead run left behind: {}", left.display());
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let dir = base.join(format!("{PREFIX}{}-{}", now.as_millis(), std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let lock = File::create(dir.join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { dir, keep, _lock: lock })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            println!("kept: {}", self.dir.display());
        } else {
            remove(&self.dir);
        }
    }
}

fn remove(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            // Lazily: a process that is being reaped may hold it for another moment.
            let _ = entry.path().to_str().map(|path| run(&["umount", "-l", path]));
        }
    }
    // The next run tries again.
    let _ = fs::remove_dir_all(dir);
}

/// Takes away the directories whose owner is dead, with loop devices over files in them.
fn sweep(base: &Path) -> Vec<PathBuf> {
    let mut removed = Vec::new();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        if !is_ours || flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let devices = run(&["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"]);
        let dir = entry.path().display().to_string();
        for device in devices.unwrap_or_default().lines().filter(|line| line.contains(&dir)) {
            if let Some(name) = device.split_whitespace().next() {
                let _ = run(&["losetup", "-d", name]);
            }
        }
        remove(&entry.path());
        removed.push(entry.path());
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_run_left_is_swept() {
        let base = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let dir = base.path().join(name);
            fs::create_dir(&dir).unwrap();
            File::create(dir.join(LOCK)).unwrap()
        };
        drop(make("quorate-jepsen-1"));
        drop(make("somebody-else"));
        let held = make("quorate-jepsen-2");
        flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(sweep(base.path()), [base.path().join("quorate-jepsen-1")]);
        assert!(base.path().join("somebody-else").exists());
        assert!(base.path().join("quorate-jepsen-2").exists());
    }
}
