//! One run: a world is built, workloads use it, faults are unleashed, everything is healed, and
//! what was seen is judged.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jepsen::checker::{Validity, Verdict, worst};
use jepsen::history::Recorder;
use jepsen::workload::{Load, Members, Stage, Workload};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::judge;
use crate::nemesis::{Kind, Schedule, unleash};
use crate::recovery::{agreement, recover};
use crate::world::{Plan, Tier, World};

/// What a run is made of.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// For people, and the name of its directory.
    pub name: String,
    pub seed: u64,
    pub members: usize,
    pub faults: Vec<&'static Kind>,
    pub workloads: Vec<String>,
    /// How long faults are unleashed.
    pub time: Duration,
    pub tier: Option<Tier>,
    pub program: PathBuf,
    /// Further environment of the members.
    pub environment: Vec<(String, String)>,
    pub load: Load,
    pub keep: bool,
    /// The command that repeats it.
    pub repeat: String,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub validity: Validity,
    pub verdicts: Vec<Verdict>,
    pub dir: PathBuf,
}

/// Before the first fault.
const LEAD_IN: Duration = Duration::from_secs(3);
/// Workloads go on for a while on the healed cluster.
const AFTER: Duration = Duration::from_secs(3);
/// A new cluster is there within this time.
const FORMS_WITHIN: Duration = Duration::from_secs(20);
/// Workloads end by themselves; one that does not is a bug of the harness.
const ENDS_WITHIN: Duration = Duration::from_secs(120);

/// Where results go, below the directory of the crate or the present one.
pub(crate) fn store() -> PathBuf {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR"));
    let base = if ours.is_dir() { ours.to_owned() } else { PathBuf::from("jepsen") };
    base.join("store")
}

/// Carries out a run from its beginning to its verdict.
///
/// # Errors
/// When the harness fails: a world that cannot be built, a workload that does not end.
pub(crate) async fn run(spec: &Spec) -> anyhow::Result<Ended> {
    let dir = store().join(format!("{}-{}", spec.name, spec.seed));
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("clear {}", dir.display()))?;
    }
    let world = form(spec, &dir).await?;
    println!("{}: seed {}, {}", spec.name, spec.seed, world.describe());
    let history = dir.join("history.jsonl");
    let recorder = Recorder::create(&history).context("write the history")?;
    let names: Vec<&str> = spec.faults.iter().map(|kind| kind.name).collect();
    recorder.plan(&names);
    let stage = stage(spec, &world, &recorder);
    let workloads = judge::workloads(&spec.workloads)?;

    recorder.stretch("healthy");
    for workload in &workloads {
        workload.prepare(&stage).await.with_context(|| format!("prepare {}", workload.name()))?;
    }
    let running = start(&workloads, &stage);
    tokio::time::sleep(LEAD_IN).await;

    recorder.stretch("faults");
    let over = CancellationToken::new();
    let ending = over.clone();
    let time = spec.time;
    let timer = tokio::spawn(async move {
        tokio::time::sleep(time).await;
        ending.cancel();
    });
    let schedule = Schedule::new(spec.seed, spec.faults.clone());
    let troubles = unleash(&schedule, &world, &recorder, &over).await;
    timer.abort();
    if spec.faults.is_empty() {
        tokio::time::sleep(spec.time).await;
    }

    let recovery = recover(&world).await?;
    recorder.stretch("healed");
    tokio::time::sleep(AFTER).await;
    stage.stop.cancel();
    end(running).await?;

    recorder.stretch("final");
    for workload in &workloads {
        workload.finish(&stage).await.with_context(|| format!("finish {}", workload.name()))?;
    }
    let agreement = agreement(&world).await;
    stage.over.cancel();
    let mut own = recovery.verdicts();
    own.push(agreement);
    let facts = json!({
        "name": spec.name,
        "seed": spec.seed,
        "world": world.describe(),
        "kernel": kernel(),
        "faults": names,
        "workloads": spec.workloads,
        "seconds": spec.time.as_secs(),
        "troubles": troubles,
        "repeat": spec.repeat,
    });
    let logs: Vec<PathBuf> = world.places().map(|place| world.member(place).log.clone()).collect();
    let keep_members = world.size();
    drop(world);
    let history = recorder.finish().context("write the history")?;
    let verdicts = judge::judge(&history, &workloads, &logs, &[], own);
    judge::report(&dir, &history, &verdicts, &facts).context("write the report")?;
    debug_assert!(keep_members > 0);
    let validity = worst(&verdicts);
    print(&verdicts, validity, &dir);
    Ok(Ended { validity, verdicts, dir })
}

/// A world with a cluster that serves.
pub(crate) async fn form(spec: &Spec, dir: &Path) -> anyhow::Result<Arc<World>> {
    let world = World::build(Plan {
        program: spec.program.display().to_string(),
        members: spec.members,
        tier: spec.tier,
        seed: spec.seed,
        environment: spec.environment.clone(),
        store: dir.to_owned(),
        keep: spec.keep,
    })
    .await?;
    for place in world.places() {
        world.start(place)?;
    }
    let formed = tokio::time::timeout(FORMS_WITHIN, recover(&world)).await;
    let formed = formed.context("the cluster does not form")??;
    formed.whole_after.with_context(|| format!("the cluster does not form: {}", formed.trouble))?;
    Ok(world)
}

pub(crate) fn stage(spec: &Spec, world: &World, recorder: &Recorder) -> Stage {
    let members = world.places().map(|place| (place as u64 + 1, world.url(place)));
    let mut stage = Stage::new(Members::new(members), recorder.clone(), spec.seed);
    stage.worker_hosts = vec![world.worker_host()];
    stage.load = spec.load;
    stage
}

type Running = JoinSet<anyhow::Result<()>>;

/// Starts the clients of all workloads.
pub(crate) fn start(workloads: &[Arc<dyn Workload>], stage: &Stage) -> Running {
    let mut running = JoinSet::new();
    for workload in workloads {
        let (workload, stage) = (Arc::clone(workload), stage.clone());
        running.spawn(async move {
            workload.run(&stage).await.with_context(|| format!("run {}", workload.name()))
        });
    }
    running
}

/// Waits for the clients of all workloads.
pub(crate) async fn end(mut running: Running) -> anyhow::Result<()> {
    let all = async {
        while let Some(ended) = running.join_next().await {
            ended.context("a workload panicked")??;
        }
        Ok(())
    };
    tokio::time::timeout(ENDS_WITHIN, all).await.context("a workload does not end")?
}

pub(crate) fn print(verdicts: &[Verdict], validity: Validity, dir: &Path) {
    for verdict in verdicts {
        let Verdict { workload, property, validity, summary, findings, .. } = verdict;
        println!("  {:7}  {workload}: {property}: {summary}", validity.as_str());
        for finding in findings.iter().take(5) {
            println!("           - {finding}");
        }
    }
    println!("  => {}; {}", validity.as_str(), dir.display());
}

pub(crate) fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}
