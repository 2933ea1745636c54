//! Who says when steps run: changes modes, timetables, bounds and budgets of orchestrators, switches
//! them off and on, and has a step run in between.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate::clock;
use quorate::cluster::Cluster;
use quorate::model::{
    Budget, Cadence, CatchUp, MICRO, Mode, Overlap, Resource, StepSetting, TimeMs, Timetable,
};
use quorate::state::{CampaignCommand, OrchestratorPatch, Outcome, Rejection, State};

use crate::researchers::{ask, odd};
use crate::stage::{Phase, Stage};
use crate::{changes, jobs};

/// Orchestrators of a run. No job of the first one uses more than it was promised.
pub(crate) const NAMES: [&str; 2] = ["default", "second"];
/// One that does a task in each of its runs.
const WORKS: &str = "nightly";
/// The longest interval of a timetable that somebody set.
const INTERVAL_MAX_MS: u64 = 2250;
/// Tokens for all campaigns of an orchestrator, at least.
const TOKENS_MIN: u64 = 4;

pub(crate) async fn run(stage: Stage, member: Cluster) {
    let mut marks = BTreeMap::new();
    loop {
        tokio::time::sleep(Duration::from_millis(200 + clock::random() % 400)).await;
        let ready = member.view().read(|state| state.policy().alert_webhook.is_some());
        if member.member_id() == 0 || !ready || !stage.plan.faults.campaigns {
            continue;
        }
        match stage.phase() {
            Phase::Founding => {}
            Phase::Chaos if stage.plan.steady => changes::keep_going(&stage, &member).await,
            Phase::Chaos => {
                act(&stage, &member).await;
                if stage.plan.faults.works {
                    employ(&stage, &member).await;
                }
            }
            Phase::Healed => put_to_rest(&stage, &member, &mut marks).await,
        }
    }
}

async fn act(stage: &Stage, member: &Cluster) {
    let random = clock::random();
    let name = NAMES[(random >> 32) as usize % NAMES.len()];
    if member.view().read(|state| state.orchestrator(name).is_none()) {
        let command = CampaignCommand::EnsureOrchestrator { name: name.to_owned() };
        drop(ask(stage, member, command).await);
        return;
    }
    let rests =
        |state: &State| state.orchestrator(name).is_some_and(|row| row.mode == Mode::Manual);
    match random % 100 {
        0..60 if member.view().read(rests) => {
            set(stage, member, name, timetable(clock::random())).await;
        }
        // A timetable has to last, or nothing is ever due.
        0..8 => set(stage, member, name, timetable(clock::random())).await,
        8..24 => set(stage, member, name, settings(clock::random())).await,
        24..28 => activate(stage, member, name, false).await,
        28..36 => activate(stage, member, name, true).await,
        36..62 => run_once(stage, member, name).await,
        _ => {}
    }
}

/// Has the orchestrator that does a task do it: on a timetable, and when it is asked to. Now and then it
/// does another one, or none.
async fn employ(stage: &Stage, member: &Cluster) {
    let random = clock::random();
    let known = member.view().read(|state| {
        state.orchestrator(WORKS).map(|row| (row.task.is_some(), row.mode == Mode::Manual))
    });
    let Some((employed, rests)) = known else {
        let command = CampaignCommand::EnsureOrchestrator { name: WORKS.to_owned() };
        drop(ask(stage, member, command).await);
        return;
    };
    let patch = |task| OrchestratorPatch { task: Some(task), ..OrchestratorPatch::default() };
    match random % 20 {
        _ if !employed => {
            let task = jobs::template(1, false, clock::random());
            set(stage, member, WORKS, patch(Some(Box::new(task)))).await;
        }
        0 => set(stage, member, WORKS, patch(None)).await,
        1..8 if rests => set(stage, member, WORKS, timetable(clock::random())).await,
        1..3 => set(stage, member, WORKS, settings(clock::random())).await,
        3 => activate(stage, member, WORKS, (random >> 8).is_multiple_of(3)).await,
        4..7 => run_once(stage, member, WORKS).await,
        _ => {}
    }
}

pub(crate) async fn set(stage: &Stage, member: &Cluster, name: &str, patch: OrchestratorPatch) {
    let (name, patch) = (name.to_owned(), Box::new(patch));
    match ask(stage, member, CampaignCommand::PatchOrchestrator { name, patch }).await {
        Ok((_, Ok(Outcome::Done))) => stage.book().cover("orchestrators_set"),
        // The leader is behind with closing timetables that ended.
        Ok((_, Err(Rejection::LedgerBehind { .. }))) => {}
        Ok((_, other)) => odd(stage, "a patch of an orchestrator", &other),
        Err(_) => {}
    }
}

/// Another mode with another timetable, or one of both.
fn timetable(random: u64) -> OrchestratorPatch {
    let bits = |shift: u32, of: u64| (random >> shift) % of;
    let cadence = match bits(0, 12) {
        0 => Cadence::Cron { expression: "no such time".to_owned(), zone: "UTC".to_owned() },
        1 => Cadence::Cron { expression: "* * * * *".to_owned(), zone: "UTC".to_owned() },
        _often => Cadence::Every { interval_ms: INTERVAL_MAX_MS - 250 * bits(4, 6) },
    };
    let timetable = Timetable {
        cadence,
        catch_up: CatchUp::ALL[bits(8, 3) as usize],
        catch_up_window_ms: 1000 * bits(12, 25),
        overlap: Overlap::ALL[bits(20, 2) as usize],
    };
    let mode = match bits(24, 8) {
        0 | 1 => Mode::Continuous,
        2 => Mode::Paused,
        3 => Mode::Manual,
        _mostly => Mode::Scheduled,
    };
    OrchestratorPatch {
        mode: (bits(28, 8) > 0).then_some(mode),
        timetable: (bits(32, 3) > 0).then(|| timetable.into()),
        pause_ms: (bits(36, 2) == 0).then_some(50 + 50 * bits(40, 16)),
        ..OrchestratorPatch::default()
    }
}

/// Other bounds, and a budget over all campaigns that is set, raised, or taken away.
fn settings(random: u64) -> OrchestratorPatch {
    let bits = |shift: u32, of: u64| (random >> shift) % of;
    let tokens = Budget::of_units(TOKENS_MIN + 4 * bits(0, 5));
    let budget = match bits(4, 6) {
        0 => Some(None),
        1 => None,
        _mostly => Some(Some(tokens)),
    };
    OrchestratorPatch {
        settings: vec![
            StepSetting::SimulationsMax(2 + bits(8, 9) as u32),
            StepSetting::ExperimentsMax(1 + bits(12, 4) as u32),
            StepSetting::IterationsPerRun(1 + bits(16, 5) as u32),
            StepSetting::SimulationBudget(4 + bits(20, 12)),
            StepSetting::ExperimentBudget(1 + bits(24, 2)),
            StepSetting::ExperimentThreshold(100_000 * bits(28, 10)),
            StepSetting::SamplesForRetrain(10),
        ],
        budgets: budget.into_iter().map(|budget| (Resource::Tokens, budget)).collect(),
        // Every campaign says its own.
        per_job: [(Resource::Tokens, Some(MICRO))].into(),
        ..OrchestratorPatch::default()
    }
}

async fn activate(stage: &Stage, member: &Cluster, name: &str, active: bool) {
    let command = CampaignCommand::SetActive { name: name.to_owned(), active };
    match ask(stage, member, command).await {
        Ok((_, Ok(Outcome::Done))) => stage.book().cover("activations"),
        Ok((_, other)) => odd(stage, "an activation", &other),
        Err(_) => {}
    }
}

async fn run_once(stage: &Stage, member: &Cluster, name: &str) {
    let command = CampaignCommand::BeginRun {
        name: name.to_owned(),
        triggered_by: "manual".to_owned(),
        context: String::new(),
    };
    match ask(stage, member, command).await {
        Ok((_, Ok(Outcome::RunBegun { run_id }))) => {
            stage.book().cover("runs_asked_for");
            stage.invariants.run_begun(run_id);
        }
        Ok((_, Err(Rejection::RunOpen { .. } | Rejection::OrchestratorNotActive { .. })))
        | Err(_) => {}
        Ok((_, other)) => odd(stage, "a run", &other),
    }
}

/// When nothing is broken any more: each schedule that can go on must go on, and rests then, so that
/// the cluster comes to an end.
async fn put_to_rest(stage: &Stage, member: &Cluster, marks: &mut BTreeMap<String, TimeMs>) {
    let due = member.view().read(|state| {
        let mut awake = state.orchestrators().filter(|row| row.mode != Mode::Manual);
        awake.find_map(|row| {
            let schedule = state.schedule(&row.name)?;
            let mark = *marks.entry(row.name.clone()).or_insert(schedule.decided_ms);
            let often = match schedule.timetable.cadence {
                Cadence::Every { interval_ms } => interval_ms <= INTERVAL_MAX_MS,
                Cadence::Cron { .. } => false,
            };
            let stands = match row.mode {
                Mode::Continuous => !row.is_active,
                Mode::Manual | Mode::Scheduled | Mode::Paused => !often,
            };
            (stands || schedule.decided_ms > mark).then(|| row.name.clone())
        })
    });
    if let Some(name) = due {
        let patch = OrchestratorPatch { mode: Some(Mode::Manual), ..OrchestratorPatch::default() };
        set(stage, member, &name, patch).await;
    }
}
