//! Disks that rot, tear and fill up.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use reqwest::Method;
use serde_json::json;

use crate::history::Load;
use crate::house::House;
use crate::http::{CALL, PATIENCE, text, until};

/// Tasks in the state before it is damaged.
const TASKS: usize = 60;

async fn fill(house: &House, name: &str) {
    let tasks = (0..TASKS).map(|n| {
        json!({ "task_id": format!("{name}-{n}"), "task_type": "x", "input_data": "y".repeat(500) })
    });
    let body = json!({ "tasks": tasks.collect::<Vec<_>>() });
    house.http.write(Method::POST, &house.url(0, "/api/v1/tasks/batch"), &body).await;
}

/// A way to damage the home of the state.
struct Damage {
    what: &'static str,
    /// Something of it must be lost; the second half of a file may hold nothing that still counts.
    noticed: bool,
    done: fn(&Path),
}

const DAMAGES: [Damage; 4] = [
    Damage {
        what: "bytes flipped all over",
        noticed: true,
        done: |home| {
            let mut bytes = fs::read(home.join("db")).unwrap();
            bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 0x5a);
            fs::write(home.join("db"), bytes).unwrap();
        },
    },
    Damage {
        what: "cut in half",
        noticed: false,
        done: |home| {
            let file = File::options().write(true).open(home.join("db")).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        },
    },
    Damage { what: "gone", noticed: true, done: |home| fs::remove_dir_all(home).unwrap() },
    Damage {
        what: "made of nonsense",
        noticed: true,
        done: |home| {
            for name in ["db", "conf"] {
                fs::write(home.join(name), b"nonsense").unwrap();
            }
        },
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_home_is_rebuilt() {
    let mut house = House::found(3).await;
    fill(&house, "first").await;
    for (number, Damage { what, noticed, done }) in DAMAGES.into_iter().enumerate() {
        let place = (house.leader().await + 1) % 3;
        // Every other time there is a snapshot to begin from, and writes behind it.
        if number % 2 == 1 {
            let url = house.url(place, "/api/v1/cluster/snapshot");
            house.http.write(Method::POST, &url, &json!({})).await;
            fill(&house, &format!("round-{number}")).await;
        }
        // As it is after a crash or after a clean stop: both homes must be found out.
        if number < 2 {
            assert!(house.stop(place).await.success());
        } else {
            house.kill(place);
        }
        let data = house.members[place].setup.data.clone();
        let before = house.log_length(place);
        done(&data.join("state"));
        house.start(place);
        house.ready(place).await;
        let said = house.said(place)[before..].to_owned();
        assert!(!noticed || said.contains("Rebuilt"), "{what}: not noticed:\n{said}");
        house.agree().await;
        let task = house.url(place, &format!("/api/v1/tasks/first-{number}?consistency=local"));
        let task = house.http.read(&format!("{task}&include=input")).await;
        assert_eq!(text(&task, "/task/input_data"), "y".repeat(500), "{what}");
    }
}

/// The newest file of the log.
fn newest_wal(data: &Path) -> PathBuf {
    let files = fs::read_dir(data.join("wal")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "wal")).collect();
    files.sort();
    files.pop().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_log_is_cut_and_a_damaged_one_refused() {
    let mut house = House::found(3).await;
    fill(&house, "a").await;
    let place = (house.leader().await + 1) % 3;
    house.kill(place);
    let data = house.members[place].setup.data.clone();
    let wal = File::options().write(true).open(newest_wal(&data)).unwrap();
    wal.set_len(wal.metadata().unwrap().len() - 3).unwrap();
    drop(wal);
    house.start(place);
    house.ready(place).await;
    house.agree().await;

    fill(&house, "b").await;
    fill(&house, "c").await;
    house.agree().await;
    assert!(house.stop(place).await.success());
    let path = newest_wal(&data);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(&path, &bytes).unwrap();
    let before = house.log_length(place);
    house.start(place);
    let status = house.process(place).exit(PATIENCE).await;
    let said = house.said(place)[before..].to_owned();
    assert!(!status.success(), "it started on a damaged log:\n{said}");
    for part in ["the log is damaged", "move the data directory away"] {
        assert!(said.contains(part), "`{part}` is not said:\n{said}");
    }
    assert_eq!(fs::read(&path).unwrap(), bytes, "nothing may be changed");
    // What the message says to do works.
    house.kill(place);
    fs::rename(&data, house.dir().join("moved-away")).unwrap();
    house.start(place);
    house.ready(place).await;
    house.agree().await;
}

/// A small file system of its own; unmounted in the end.
struct Tiny(PathBuf);

impl Tiny {
    fn mount(path: &Path, size: &str) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("mounting a small file system takes root".to_owned());
        }
        fs::create_dir_all(path).unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        match mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output() {
            Ok(done) if done.status.success() => Ok(Self(path.to_owned())),
            Ok(done) => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
            Err(error) => Err(format!("mount: {error}")),
        }
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_full_stops_the_member_loudly() {
    let mut house = House::build(3, "");
    // Declared after the house, dropped before it: the members must be gone first.
    let data = house.members[2].setup.data.clone();
    let tiny = match Tiny::mount(&data, "24m") {
        Ok(tiny) => tiny,
        Err(why) => return println!("disk_full_stops_the_member_loudly: skipped: {why}"),
    };
    for place in 0..3 {
        house.start(place);
    }
    house.all_ready().await;
    let ballast = tiny.0.join("ballast");
    let mut file = File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    // Others go on, whatever becomes of this one.
    let urls = &house.urls()[..2];
    let load = Load::start(urls, "t", 4);
    let status = until("the end of the member on the full disk", PATIENCE, || {
        let url = house.url(0, "/api/v1/tasks");
        let task = json!({ "task_type": "x", "input_data": "z".repeat(20_000) });
        let (http, ended) = (house.http.clone(), house.process(2).ended());
        async move {
            let _ = http.send(Method::POST, &url, Some(&task), None, CALL).await;
            ended
        }
    })
    .await;
    assert!(!status.success(), "it ended as if nothing had happened");
    assert!(house.said(2).contains("the disk is full"), "it must say why:\n{}", house.said(2));
    load.flows(50).await;
    fs::remove_file(&ballast).unwrap();
    house.kill(2);
    house.start(2);
    house.ready(2).await;
    let history = load.end().await;
    history.check(&house).await;
    house.kill(2);
    drop(tiny);
}

/// The home's library flushes when it is dropped, and panics when that fails; the member's reason
/// and its exit code were lost in that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushes_that_fail_for_good_end_the_member_with_its_reason_and_no_panic() {
    let mut house = House::found(3).await;
    let pid = house.process(2).id().to_string();
    let inject = "inject=fdatasync,fsync:error=EIO";
    let words = ["-f", "-qq", "-e", "trace=fdatasync,fsync", "-e", inject, "-p", &pid];
    let said = house.dir().join("strace");
    let output = File::create(&said).unwrap();
    let tracer = Command::new("strace").args(words).stdout(Stdio::null()).stderr(output).spawn();
    let mut tracer = match tracer {
        Ok(tracer) => tracer,
        Err(why) => return println!("flushes_that_fail_for_good: skipped: strace: {why}"),
    };
    let status = until("the end of the member whose flushes fail", PATIENCE, || {
        let url = house.url(0, "/api/v1/tasks");
        let task = json!({ "task_type": "x" });
        let (http, ended) = (house.http.clone(), house.process(2).ended());
        let may_not = fs::read_to_string(&said).unwrap().contains("not permitted");
        async move {
            let _ = http.send(Method::POST, &url, Some(&task), None, CALL).await;
            ended.map(Some).or_else(|| may_not.then_some(None))
        }
    })
    .await;
    let _ = tracer.kill();
    tracer.wait().unwrap();
    let Some(status) = status else {
        return println!("flushes_that_fail_for_good: skipped: no right to trace");
    };
    let said = house.said(2);
    assert_eq!(status.code(), Some(1), "it must end by itself:\n{said}");
    assert!(said.contains("Input/output error"), "it must say why:\n{said}");
    assert!(!said.contains("panicked"), "{said}");
    house.kill(2);
    house.start(2);
    house.ready(2).await;
    house.agree().await;
}
