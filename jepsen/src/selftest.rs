//! The injectors tested by themselves: a fault that does nothing makes every verdict worthless.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use jepsen::checker::Validity;
use jepsen::history::Recorder;
use reqwest::Method;
use serde_json::json;

use crate::nemesis::once;
use crate::recovery::recover;
use crate::run::{Spec, form, store};
use crate::world::{Rights, TrialDisk, World, rights};

/// Records written before the power is cut.
const RECORDS: u64 = 400;
const RECORD_BYTES: usize = 200;
const ROUNDS: usize = 3;
/// Nodes that nobody answers for.
const NODES: u64 = 50;

/// What the child process does: appends records, and says of each that it is written. With
/// `flushes` it says so after the flush, as one must.
///
/// # Errors
/// When the disk fails, which is how it ends.
pub(crate) fn write_records(path: &Path, flushes: bool) -> anyhow::Result<()> {
    let mut file = std::fs::File::create(path)?;
    if flushes {
        // The file's own entry must be durable, too.
        std::fs::File::open(path.parent().context("a file is in a directory")?)?.sync_all()?;
    }
    let mut out = std::io::stdout().lock();
    for number in 1u64.. {
        file.write_all(&[u8::try_from(number % 251)?; RECORD_BYTES])?;
        if flushes {
            file.sync_data()?;
        }
        writeln!(out, "{number}")?;
        out.flush()?;
    }
    Ok(())
}

/// One power cut under a writer: records it had acknowledged, and records that are left.
fn trial(disk: &TrialDisk, name: &str, flushes: bool) -> anyhow::Result<(u64, u64)> {
    let file = disk.mount().join(name);
    let mut child = writer(&file, flushes)?;
    let mut lines = BufReader::new(child.stdout.take().context("a pipe to the writer")?);
    let mut acknowledged = 0;
    let mut line = String::new();
    while acknowledged < RECORDS {
        line.clear();
        ensure!(lines.read_line(&mut line)? > 0, "the writer ended by itself");
        acknowledged = line.trim().parse()?;
    }
    disk.cut_power()?;
    child.kill()?;
    child.wait()?;
    disk.remount()?;
    let left = std::fs::metadata(&file).map_or(0, |about| about.len()) / RECORD_BYTES as u64;
    Ok((acknowledged, left))
}

fn writer(file: &Path, flushes: bool) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("write-records").arg(file);
    if flushes {
        command.arg("--flush");
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    child.context("cannot start the writer")
}

/// The control rows of the power cut: whoever flushes loses nothing, whoever does not loses
/// everything. Gives false when that does not hold, and an error when it cannot be tried.
///
/// # Errors
/// Without root and loop devices.
pub(crate) fn power_cut_controls() -> anyhow::Result<bool> {
    ensure!(rights() == Rights::Root, "power cuts need root and loop devices");
    let disk = TrialDisk::new()?;
    let mut as_it_should = true;
    for round in 0..ROUNDS {
        for flushes in [true, false] {
            let (acknowledged, left) = trial(&disk, &format!("{round}-{flushes}"), flushes)?;
            let good = if flushes { left >= acknowledged } else { left == 0 };
            as_it_should &= good;
            let kind = if flushes { "with fsync   " } else { "without fsync" };
            let lost = acknowledged.saturating_sub(left);
            let verdict = if good { "as it should be" } else { "THE INJECTOR IS BROKEN" };
            println!("  power cut, {kind}: {lost} of {acknowledged} acknowledged lost: {verdict}");
        }
    }
    // Let the last writer's pipe close before the disk is taken down.
    std::thread::sleep(Duration::from_millis(10));
    Ok(as_it_should)
}

/// The control rows, then every fault once against a real cluster, each healed before the next.
///
/// # Errors
/// When the world cannot be built, or a cluster does not come back.
pub(crate) async fn everything(spec: &Spec) -> anyhow::Result<Validity> {
    let mut validity = match power_cut_controls() {
        Ok(true) => Validity::Valid,
        Ok(false) => Validity::Invalid,
        Err(why) => {
            println!("  power cut: not tried: {why:#}");
            Validity::Unknown
        }
    };
    let dir = store().join("selftest");
    let world = form(spec, &dir).await?;
    println!("selftest: seed {}, {}", spec.seed, world.describe());
    let recorder = Recorder::in_memory();
    let load = tokio::spawn(something_to_do(std::sync::Arc::clone(&world)));
    for kind in &spec.faults {
        let began = std::time::Instant::now();
        let trouble = once(kind, &world, &recorder, spec.seed).await;
        let recovery = recover(&world).await?;
        let spans = recorder.finish()?.faults();
        let span = spans.iter().rev().find(|span| span.name == kind.name);
        let took_effect = span.is_some_and(|span| span.took_effect());
        let said = span.and_then(|span| span.evidence.clone().or_else(|| span.no_effect.clone()));
        let said = trouble.or(said).unwrap_or_default();
        let mark = if took_effect { "effect" } else { "NONE  " };
        println!("  {mark} {:28} {:4.1?}  {said}", kind.name, began.elapsed());
        match recovery.whole_after {
            Some(time) => println!("         whole again after {time:.1?}"),
            None => println!("         NOT whole again: {}", recovery.trouble),
        }
        for wiped in &recovery.wiped {
            println!("         wiped: {wiped}");
        }
        if recovery.whole_after.is_none() {
            validity = Validity::Invalid;
            break;
        }
        if !took_effect {
            validity = validity.max(Validity::Unknown);
        }
    }
    load.abort();
    Ok(validity)
}

/// Writes, and a node that nobody answers for, so that faults have something to act on. What becomes
/// of it is no matter.
async fn something_to_do(world: std::sync::Arc<World>) {
    let timeout = Duration::from_millis(500);
    for number in 0u64.. {
        let place = usize::try_from(number).unwrap_or_default() % world.size();
        if number.is_multiple_of(100) {
            // Another one each time: one that never answers is soon left alone.
            let path = format!("/api/v1/nodes/nobody-{}/register", number / 100 % NODES);
            let node = json!({ "host": world.worker_host(), "port": 9, "capacity": 4 });
            let _ = world.send(Method::POST, place, &path, &node, timeout).await;
        }
        let task = json!({ "task_type": "x", "input_data": "z".repeat(2000) });
        let _ = world.send(Method::POST, place, "/api/v1/tasks", &task, timeout).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
