//! One run: a world is built, workloads use it, faults are unleashed, everything is healed, and
//! what was seen is judged.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jepsen::checker::{Validity, Verdict, worst};
use jepsen::history::{History, Recorder};
use jepsen::workload::{Load, Members, Stage, Workload};
use serde_json::json;
use tokio::task::JoinSet;

use crate::judge;
use crate::nemesis::{Kind, Need, Schedule, unleash};
use crate::recovery::{Recovery, agreement, recover};
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

/// A run whose faults are over and whose cluster was healed; clients still use it.
pub(crate) struct Stretch<'a> {
    pub spec: &'a Spec,
    pub world: Arc<World>,
    pub recorder: Recorder,
    pub stage: Stage,
    pub workloads: Vec<Arc<dyn Workload>>,
    pub running: Running,
    pub dir: PathBuf,
    pub recovery: Recovery,
}

impl Spec {
    /// An empty directory for the results.
    ///
    /// # Errors
    /// When an old one cannot be removed.
    pub(crate) fn fresh_dir(&self) -> anyhow::Result<PathBuf> {
        let dir = store().join(format!("{}-{}", self.name, self.seed));
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("clear {}", dir.display()))?;
        }
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    fn fault_names(&self) -> Vec<&'static str> {
        self.faults.iter().map(|kind| kind.name).collect()
    }

    /// The command that repeats this run.
    fn command(&self) -> String {
        if !self.repeat.is_empty() {
            return self.repeat.clone();
        }
        let faults = self.fault_names();
        let faults = if faults.is_empty() { "none".to_owned() } else { faults.join(",") };
        let tier = self.tier.map(|tier| format!(" --tier {tier:?}").to_lowercase());
        let environment = self.environment.iter().map(|(name, value)| format!("{name}={value} "));
        format!(
            "{}cargo run -p jepsen --release -- run --seeds {} --minutes {:.2} --members {} \
             --faults {faults} --workloads {}{}",
            environment.collect::<String>(),
            self.seed,
            self.time.as_secs_f64() / 60.0,
            self.members,
            self.workloads.join(","),
            tier.unwrap_or_default(),
        )
    }
}

/// Carries out a run from its beginning to its verdict.
///
/// # Errors
/// When the harness fails: a world that cannot be built, a workload that does not end.
pub(crate) async fn run(spec: &Spec) -> anyhow::Result<Ended> {
    let dir = spec.fresh_dir()?;
    let world = form(spec, &dir).await?;
    println!("{}: seed {}, {}", spec.name, spec.seed, world.describe());
    let recorder = Recorder::create(&dir.join("history.jsonl")).context("write the history")?;
    recorder.plan(&spec.fault_names());
    let stage = stage(spec, &world, &recorder);
    let workloads = judge::workloads(&spec.workloads)?;

    recorder.stretch("healthy");
    for workload in &workloads {
        workload.prepare(&stage).await.with_context(|| format!("prepare {}", workload.name()))?;
    }
    let running = start(&workloads, &stage);
    tokio::time::sleep(LEAD_IN).await;

    recorder.stretch("faults");
    let schedule = Schedule::new(spec.seed, spec.faults.clone());
    let troubles = unleash(&schedule, &world, &recorder, spec.time).await;
    let recovery = recover(&world).await?;
    let so_far = Stretch { spec, world, recorder, stage, workloads, running, dir, recovery };
    finish(so_far, troubles, |_| Vec::new()).await
}

/// The end of a run: clients go on for a moment on the healed cluster, everything is read from
/// every member, and what was seen is judged. `more` adds verdicts of the run's own kind.
///
/// # Errors
/// When a workload does not end, or results cannot be written.
pub(crate) async fn finish(
    so_far: Stretch<'_>,
    troubles: Vec<String>,
    more: impl FnOnce(&History) -> Vec<Verdict>,
) -> anyhow::Result<Ended> {
    let Stretch { spec, world, recorder, stage, workloads, running, dir, recovery } = so_far;
    recorder.stretch("healed");
    tokio::time::sleep(AFTER).await;
    stage.stop.cancel();
    end(running).await?;
    recorder.stretch("final");
    for workload in &workloads {
        workload.finish(&stage).await.with_context(|| format!("finish {}", workload.name()))?;
    }
    let mut own = recovery.verdicts();
    own.push(agreement(&world).await);
    stage.over.cancel();
    let facts = json!({
        "name": spec.name,
        "seed": spec.seed,
        "repeat": spec.command(),
        "world": world.describe(),
        "kernel": kernel(),
        "faults": spec.fault_names(),
        "workloads": spec.workloads,
        "seconds": spec.time.as_secs(),
        "troubles": troubles,
    });
    let logs: Vec<PathBuf> = world.places().map(|place| world.member(place).log.clone()).collect();
    drop(world);
    let history = recorder.finish().context("write the history")?;
    own.extend(more(&history));
    let expected = expected_errors(&spec.faults);
    let verdicts = judge::judge(&history, &workloads, &logs, &expected, own);
    judge::report(&dir, &history, &verdicts, &facts).context("write the report")?;
    let validity = worst(&verdicts);
    print(&verdicts, validity, &dir);
    Ok(Ended { validity, verdicts })
}

/// Parts of lines of level ERROR that these faults explain: a member whose disk fails must say so.
fn expected_errors(faults: &[&'static Kind]) -> Vec<&'static str> {
    let mut expected = vec!["this member must stop", "this member stops serving"];
    for kind in faults {
        expected.extend(kind.errors());
    }
    expected
}

/// A world with a cluster that serves.
pub(crate) async fn form(spec: &Spec, dir: &Path) -> anyhow::Result<Arc<World>> {
    let world = World::build(Plan {
        program: spec.program.display().to_string(),
        members: spec.members,
        tier: spec.tier,
        seed: spec.seed,
        clocks: spec.faults.iter().any(|kind| kind.need == Need::Clocks),
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

pub(crate) type Running = JoinSet<anyhow::Result<()>>;

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
