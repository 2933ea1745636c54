//! A real power cut: ext4 on a loop device, shut down without flushing its journal while another
//! process writes. What that process acknowledged must be there afterwards; a control row that
//! acknowledges too early must lose something, or the test could not fail.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;

use super::kit::*;
use crate::storage::RaftEntry;
use crate::storage::codec::log_id;

/// Tells this test binary that it is the writer, and where to write.
const WRITER_DIR: &str = "QUORATE_POWER_CUT_DIR";
/// When set, the writer acknowledges before its writes are durable.
const WRITER_EARLY: &str = "QUORATE_POWER_CUT_EARLY";
const BATCH: u64 = 8;
/// Cuts within which a writer that acknowledges too early must have lost something.
const EARLY_TRIALS: u64 = 24;

#[expect(clippy::disallowed_methods, reason = "how a test tells its child what to do")]
/// Not a test of its own: what the child process runs. Without the variable it has nothing to do.
#[test]
fn power_cut_writer() {
    let Some(dir) = std::env::var_os(WRITER_DIR) else { return };
    let early = std::env::var_os(WRITER_EARLY).is_some();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(write_for_ever(Path::new(&dir), early));
}

fn entry(index: u64) -> RaftEntry {
    submit(1, index)
}

/// Writes until the disk fails under it, saying on stdout what is durable.
async fn write_for_ever(dir: &Path, early: bool) {
    let mut storage = open_dir(dir).await;
    storage.claim(1, 1, 1).unwrap();
    let say = |what: &str, number: u64| {
        let mut out = std::io::stdout().lock();
        // A pipe that is closed means the trial is over.
        let _ = writeln!(out, "\n{what} {number}").and_then(|()| out.flush());
    };
    for batch in 0u64.. {
        let first = batch * BATCH;
        let entries: Vec<_> = (first..first + BATCH).map(entry).collect();
        let last = entries[entries.len() - 1].log_id;
        let Ok(durable) = try_append(&mut storage.log, entries.clone()).await else { return };
        if !early && !matches!(durable.await, Ok(Ok(()))) {
            return;
        }
        say("entry", last.index);
        if storage.log.save_committed(Some(last)).await.is_err()
            || try_apply(&mut storage.machine, entries).await.is_err()
        {
            return;
        }
        if batch % 16 == 7 {
            if storage.log.save_vote(&vote(batch, 1)).await.is_err() {
                return;
            }
            say("vote", batch);
        }
        if batch % 40 == 39 {
            build_snapshot(&mut storage.machine).await;
            if storage.log.purge(log_id(1, first - 50)).await.is_err() {
                return;
            }
        }
    }
}

/// Runs a program; the error is its output.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// ext4 in a file, mounted; taken down when dropped.
struct LoopDisk {
    device: String,
    mount: PathBuf,
    _dir: tempfile::TempDir,
}

impl LoopDisk {
    fn new() -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
        let file = fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(192 << 20).map_err(|error| error.to_string())?;
        fs::create_dir(&mount).map_err(|error| error.to_string())?;
        let image = image.display().to_string();
        run("mkfs.ext4", &["-q", "-F", &image])?;
        let device = run("losetup", &["--find", "--show", &image])?;
        let disk = Self { device, mount, _dir: dir };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &[&self.device, &self.mount.display().to_string()]).map(|_quiet| ())
    }

    /// `EXT4_IOC_SHUTDOWN` without a log flush. The ioctl takes unsafe code in Rust, which this
    /// crate forbids, so a script interpreter does it.
    fn cut_power(&self) -> Result<(), String> {
        let mount = self.mount.display().to_string();
        let perl = r#"open(my $d, "<", $ARGV[0]) or die "$!"; ioctl($d, 0x8004587D, pack("L", 2)) or die "$!";"#;
        let python = "import fcntl,os,struct,sys; fcntl.ioctl(os.open(sys.argv[1],os.O_RDONLY),0x8004587D,struct.pack('I',2))";
        run("perl", &["-e", perl, &mount])
            .or_else(|perl| {
                run("python3", &["-c", python, &mount])
                    .map_err(|python| format!("{perl}; {python}"))
            })
            .map(|_quiet| ())
    }

    fn remount(&self) -> Result<(), String> {
        run("umount", &[&self.mount.display().to_string()])?;
        self.mount()
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", &self.mount.display().to_string()]);
        let _ = run("losetup", &["-d", &self.device]);
    }
}

fn start_writer(dir: &Path, early: bool) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "storage::tests::power_cut::power_cut_writer", "--nocapture"])
        .env(WRITER_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if early {
        command.env(WRITER_EARLY, "1");
    }
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

/// The newest entry and vote that were acknowledged.
#[derive(Debug, Default)]
struct Acknowledged {
    entry: Option<u64>,
    vote: Option<u64>,
}

impl Acknowledged {
    fn note(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("entry", number)) => self.entry = number.parse().ok().or(self.entry),
            Some(("vote", number)) => self.vote = number.parse().ok().or(self.vote),
            Some(_) | None => {}
        }
    }
}

/// One power cut after `entries` acknowledged entries. Gives how many of them were lost.
fn trial(disk: &LoopDisk, name: &str, entries: u64, early: bool) -> u64 {
    let dir = disk.mount.join(name);
    let (mut child, mut lines) = start_writer(&dir, early);
    let mut acknowledged = Acknowledged::default();
    let mut line = String::new();
    while acknowledged.entry.is_none_or(|entry| entry < entries) {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the writer stopped by itself");
        acknowledged.note(line.trim());
    }
    disk.cut_power().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines.lines() {
        acknowledged.note(line.unwrap_or_default().trim());
    }
    disk.remount().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(lost(&dir, &acknowledged, early))
}

/// Opens what is left, and counts the acknowledged entries that are missing.
async fn lost(dir: &Path, acknowledged: &Acknowledged, early: bool) -> u64 {
    let mut storage = match try_open_dir(dir).await {
        Ok(storage) => storage,
        // The identity file may have noticed the loss, which is what it is for.
        Err(error) if early => {
            assert!(error.to_string().contains("went back in time"), "{error}");
            return 1;
        }
        Err(error) => panic!("an honest log must open after a power cut: {error}"),
    };
    replay(&mut storage).await;
    let (applied, digest) = storage.view.digest();
    let expected: Vec<_> = (0..=applied).map(entry).collect();
    assert_eq!(digest, digest_of(&expected), "the state is not that of its log");
    let last = storage.log.get_log_state().await.unwrap().last_log_id.map_or(0, |id| id.index);
    let start = storage.log.get_log_state().await.unwrap().last_purged_log_id;
    let first = start.map_or(0, |id| id.index + 1);
    let kept = storage.log.try_get_log_entries(first..=last).await.unwrap();
    assert!(kept.iter().zip(first..).all(|(kept, index)| *kept == entry(index)));
    if !early {
        let vote = storage.log.read_vote().await.unwrap().map(|vote| vote.leader_id.term);
        assert!(vote >= acknowledged.vote, "the acknowledged vote is gone");
    }
    acknowledged.entry.unwrap_or(0).saturating_sub(last)
}

#[test]
fn a_power_cut_loses_nothing_acknowledged() {
    let disk = match LoopDisk::new() {
        Ok(disk) => disk,
        Err(why) => {
            // Straight to the terminal: a test that did not run must not look like one that did.
            let mut terminal = std::io::stderr();
            let _ = writeln!(terminal, "SKIPPED power cut trials (root and loop devices): {why}");
            return;
        }
    };
    for (place, entries) in [200u64, 900].into_iter().enumerate() {
        assert_eq!(trial(&disk, &format!("honest-{place}"), entries, false), 0);
    }
    // A cut can fall between two flushes of a fast disk, and loses nothing then; not every time.
    let mut early = (0..EARLY_TRIALS)
        .map(|place| trial(&disk, &format!("early-{place}"), 300 + 97 * (place % 3), true));
    let lost = early.any(|lost| lost > 0);
    assert!(lost, "the control row lost nothing: these trials cannot see a lost write");
}
