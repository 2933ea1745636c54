//! Many leaders killed in one long run: what each costs a client, and that nothing is lost.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jepsen::checker::{Validity, Verdict};
use jepsen::history::{History, Kind, Process, Recorder};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::judge;
use crate::nemesis::named_one;
use crate::recovery::recover;
use crate::run::{Ended, Spec, Stretch, finish, form, stage, start};
use crate::world::{World, threads_of};

/// After a member is back, before the next one falls; plus a random part of the timers.
const SETTLE: Duration = Duration::from_millis(700);
const JITTER_MS: u64 = 500;
/// A killed leader is replaced, and back among the others, within this time.
const ROUND_MAX: Duration = Duration::from_secs(30);

/// Kills `count` leaders, one after the other, under the workloads of `spec`.
///
/// # Errors
/// When the harness fails, or a cluster does not become whole again.
pub(crate) async fn kills(spec: &Spec, count: usize) -> anyhow::Result<Ended> {
    let dir = spec.fresh_dir()?;
    let world = form(spec, &dir).await?;
    println!("{}: seed {}, {count} kills, {}", spec.name, spec.seed, world.describe());
    let recorder = Recorder::create(&dir.join("history.jsonl")).context("write the history")?;
    recorder.plan(&["kill-leader"]);
    let stage = stage(spec, &world, &recorder);
    let workloads = judge::workloads(&spec.workloads)?;
    recorder.stretch("healthy");
    for workload in &workloads {
        workload.prepare(&stage).await.with_context(|| format!("prepare {}", workload.name()))?;
    }
    let running = start(&workloads, &stage);
    recorder.stretch("faults");
    let mut rng = StdRng::seed_from_u64(spec.seed);
    for round in 1..=count {
        tokio::time::sleep(SETTLE + Duration::from_millis(rng.random_range(0..JITTER_MS))).await;
        one_kill(&world, &recorder).await.with_context(|| format!("kill {round}"))?;
        if round % 20 == 0 {
            println!("  {round} leaders killed");
        }
    }
    let recovery = recover(&world).await?;
    let so_far = Stretch { spec, world, recorder, stage, workloads, running, dir, recovery };
    finish(so_far, Vec::new(), |history| vec![gaps(history)]).await
}

async fn one_kill(world: &World, recorder: &Recorder) -> anyhow::Result<()> {
    let leader = world.await_leader(ROUND_MAX).await?;
    let fault = recorder.fault(named_one("kill-leader").name, &[leader as u64 + 1]);
    let killed = world.member(leader).kill();
    if killed {
        fault.active(&format!("m{} dead and reaped", leader + 1));
    } else {
        fault.no_effect("it did not run");
    }
    // The others must go on before it comes back: what is measured is their election.
    let deadline = tokio::time::Instant::now() + ROUND_MAX;
    while world.leader().await.is_none_or(|now| now == leader) {
        ensure!(tokio::time::Instant::now() < deadline, "nobody leads after {ROUND_MAX:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fault.healing();
    world.start(leader)?;
    fault.healed();
    while !matches!(world.get(leader, "/readyz").await, Some((200, _))) {
        if tokio::time::Instant::now() >= deadline {
            let pid = world.member(leader).running().map(|process| process.pid());
            let threads = pid.map(threads_of).unwrap_or_default();
            bail!("m{} is not back; its threads: {threads}", leader + 1);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The longest time without an acknowledged write around each kill.
fn gaps(history: &History) -> Verdict {
    let is_write = |f: &str| matches!(f, "write" | "cas" | "submit" | "append");
    let ends = history.ops.iter().filter(|op| {
        op.kind == Kind::Ok && is_write(&op.f) && matches!(op.process, Process::Client(_))
    });
    let ends: Vec<u64> = ends.map(|op| op.time).collect();
    let kills: Vec<u64> = history
        .faults()
        .iter()
        .filter(|span| span.took_effect() && span.name == "kill-leader")
        .map(|span| span.begin_ns)
        .collect();
    let mut gaps: Vec<u64> = Vec::new();
    for (place, kill) in kills.iter().enumerate() {
        let until = kills.get(place + 1).copied().unwrap_or(u64::MAX);
        let from = ends.partition_point(|end| end <= kill).saturating_sub(1);
        let around = ends[from..].windows(2).take_while(|pair| pair[0] < until);
        gaps.extend(around.map(|pair| (pair[1] - pair[0]) / 1_000_000).max());
    }
    gaps.sort_unstable();
    let at = |part: f64| -> u64 {
        let place = (gaps.len().saturating_sub(1) as f64 * part).round() as usize;
        gaps.get(place).copied().unwrap_or(0)
    };
    let (p50, p99, max) = (at(0.5), at(0.99), at(1.0));
    let summary = format!(
        "{} kills: longest time without an acknowledged write p50 {p50} ms, p99 {p99} ms, max {max} ms",
        gaps.len()
    );
    let figures =
        json!({ "kills": gaps.len(), "p50_ms": p50, "p99_ms": p99, "max_ms": max, "all_ms": gaps });
    let enough = !gaps.is_empty() && gaps.len() == kills.len();
    let validity = if enough { Validity::Valid } else { Validity::Unknown };
    Verdict::new("run", "write gap", validity, summary).figures(figures)
}

#[cfg(test)]
mod tests {
    use jepsen::history::Note;

    use super::*;

    #[test]
    fn the_gap_is_between_the_writes_around_a_kill() {
        let recorder = Recorder::in_memory();
        let write = || {
            let process = recorder.process();
            recorder.invoke(process, Note::new("set", "submit"));
            recorder.end(process, Kind::Ok, Note::new("set", "submit"));
        };
        write();
        let fault = recorder.fault("kill-leader", &[1]);
        fault.active("dead");
        std::thread::sleep(Duration::from_millis(30));
        write();
        fault.healed();
        write();
        let verdict = gaps(&recorder.finish().unwrap());
        assert_eq!(verdict.validity, Validity::Valid);
        assert!(verdict.figures["max_ms"].as_u64().unwrap() >= 30, "{verdict:?}");
    }
}
