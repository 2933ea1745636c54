//! `quorate dev`: a whole cluster with one command, and nothing left of it when it stops.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::http::{PATIENCE, number, text, until};
use crate::process::Process;

/// Its ports are part of what is documented: three members, HTTP and peers.
const PORTS: [u16; 6] = [9000, 9100, 9200, 7000, 7100, 7200];
const SETTLED: Duration = Duration::from_secs(60);

/// Where its ports are free: in a network of its own (root only), or here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ground {
    OwnNetwork,
    Here,
}

impl Ground {
    fn find() -> Result<Self, String> {
        let own = Command::new("unshare").args(["-n", "ip", "link", "set", "lo", "up"]).output();
        if own.is_ok_and(|done| done.status.success()) {
            return Ok(Self::OwnNetwork);
        }
        let taken = PORTS.into_iter().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_err());
        match taken {
            None => Ok(Self::Here),
            Some(port) => Err(format!("port {port} is taken, and only root has another network")),
        }
    }

    fn start(self, dir: &Path, log: &Path) -> Process {
        let dir = dir.to_str().unwrap();
        let dev = ["dev", "--members", "3", "--workers", "1", "--dir", dir];
        match self {
            Self::Here => Process::start("dev", &dev, log),
            Self::OwnNetwork => {
                let script = "ip link set lo up && exec \"$0\" \"$@\"";
                let words = ["-n", "sh", "-c", script, env!("CARGO_BIN_EXE_quorate")];
                let words = [&words[..], &dev].concat();
                Process::start_program("dev", Command::new("unshare"), &words, log)
            }
        }
    }

    /// Runs `quorate` beside it; gives what it prints when it succeeds.
    fn ask(self, dev: &Process, words: &[&str]) -> Option<Value> {
        let exe = env!("CARGO_BIN_EXE_quorate");
        let mut command = match self {
            Self::Here => Command::new(exe),
            Self::OwnNetwork => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/proc/{}/ns/net", dev.id())).arg(exe);
                command
            }
        };
        command.args(words).args(["-o", "json", "--deadline", "5"]);
        command.args(["--url", "http://127.0.0.1:9100,http://127.0.0.1:9200"]);
        let done = command.stdin(Stdio::null()).output().unwrap();
        done.status.success().then(|| serde_json::from_slice(&done.stdout).unwrap())
    }
}

/// The process ids that a run noted.
fn pids(dir: &Path) -> Vec<(PathBuf, u32)> {
    let homes = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path().join("pid"));
    let read = homes.filter_map(|path| Some((path.clone(), fs::read_to_string(path).ok()?)));
    read.map(|(path, text)| (path, text.trim().parse().unwrap())).collect()
}

fn is_quorate(pid: u32) -> bool {
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.contains("quorate")
}

async fn completed(ground: Ground, dev: &Process, at_least: u64) -> u64 {
    until("sample tasks done", SETTLED, || async {
        let list = ground.ask(dev, &["task", "list"])?;
        let failed = number(&list, "/summary/failed_count");
        assert_eq!(failed, 0, "a sample failed: {}", list["tasks"]["failed"]);
        Some(number(&list, "/summary/completed_count")).filter(|done| *done >= at_least)
    })
    .await
}

/// Ends what a failed test leaves running: `dev` cannot when it is killed itself.
struct Leftovers(PathBuf);

impl Drop for Leftovers {
    fn drop(&mut self) {
        if !self.0.exists() {
            return;
        }
        for (_, pid) in pids(&self.0).into_iter().filter(|(_, pid)| is_quorate(*pid)) {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_runs_and_stops_cleanly() {
    let ground = match Ground::find() {
        Ok(ground) => ground,
        Err(why) => return println!("dev_runs_and_stops_cleanly: skipped: {why}"),
    };
    let home = TempDir::with_prefix("quorate-e2e-").unwrap();
    let (dir, log) = (home.path().join("dev"), home.path().join("log"));
    let _leftovers = Leftovers(dir.clone());
    let mut cluster = String::new();
    let mut done = 0;
    for run in 0..2 {
        let mut dev = ground.start(&dir, &log);
        let from = completed(ground, &dev, done.max(1)).await;
        done = completed(ground, &dev, from + 3).await;
        let status = ground.ask(&dev, &["cluster", "status"]).unwrap();
        assert_eq!(status["members"].as_array().unwrap().len(), 3);
        let said = dev.said();
        assert!(said.contains("http://127.0.0.1:9000") && said.contains("leader"), "{said}");
        match run {
            0 => cluster = text(&status, "/cluster_id"),
            _ => assert_eq!(text(&status, "/cluster_id"), cluster, "its data was not found again"),
        }
        let running = pids(&dir);
        assert_eq!(running.len(), 4, "three members and a worker: {running:?}");
        assert!(running.iter().all(|(_, pid)| is_quorate(*pid)));
        dev.signal(Signal::INT);
        let status = dev.exit(PATIENCE).await;
        assert!(status.success(), "{status}");
        assert!(!running.iter().any(|(_, pid)| is_quorate(*pid)), "something was left running");
        assert_eq!(pids(&dir), [], "and its id was left behind");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_takes_orders_and_heals() {
    if Ground::find() != Ok(Ground::OwnNetwork) {
        return println!("chaos_takes_orders_and_heals: skipped: only root has another network");
    }
    let home = TempDir::with_prefix("quorate-e2e-").unwrap();
    let (dir, log) = (home.path().join("dev"), home.path().join("log"));
    let _leftovers = Leftovers(dir.clone());
    let script = "ip link set lo up && exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", script, env!("CARGO_BIN_EXE_quorate"), "dev", "--chaos"]);
    command.args(["--workers", "0", "--dir", dir.to_str().unwrap()]).stdin(Stdio::piped());
    let file = fs::File::create(&log).unwrap();
    let mut dev = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
    let mut orders = dev.stdin.take().unwrap();
    let said = || fs::read_to_string(&log).unwrap();
    until("the prompt", SETTLED, || async { said().contains("Orders:").then_some(()) }).await;
    // What is said last tells of the leader, who is not the member that is down.
    let steps = [
        ("kill 1", "member 1 is killed"),
        ("start 1", "member 1 is started"),
        ("cut 2 3 out", "the link between 2 and 3 is cut (out)"),
        ("pause 2", "member 2 hangs"),
        ("heal", "everything is healed"),
        ("nonsense", "is no order"),
    ];
    for (order, answer) in steps {
        writeln!(orders, "{order}").unwrap();
        until(answer, PATIENCE, || async { said().contains(answer).then_some(()) }).await;
    }
    until("a leader after all that", PATIENCE, || async {
        let before = said().len();
        writeln!(&orders, "status").unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        said()[before..].contains("leads term").then_some(())
    })
    .await;
    writeln!(orders, "quit").unwrap();
    let status = tokio::task::spawn_blocking(move || dev.wait().unwrap()).await.unwrap();
    assert!(status.success(), "{status}: {}", said());
    assert_eq!(pids(&dir), [], "something is left");
}
