//! One run with one leader after the other, and a schedule that is due every second: each simulated
//! second the leader hands over, or its power goes.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate::clock;
use quorate::cluster::Cluster;
use quorate::model::{
    Budget, Cadence, CampaignPlan, CampaignStatus, CatchUp, MICRO, Mode, Overlap, RequestId,
    Resource, StepSetting, StopRules, Timetable,
};
use quorate::state::{CampaignCommand, CampaignMove, Command, OrchestratorPatch, Outcome, State};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use turmoil::Sim;

use crate::driver::{Driver, Verdict, simulate};
use crate::jobs;
use crate::plan::{Faults, Plan};
use crate::planners::{NAMES, set};
use crate::stage::{Order, Phase, Stage};

/// Campaigns that have work left, at any time.
const AT_WORK: usize = 3;
/// The longest that so many changes may take: a change that does not come ends the run.
const PER_CHANGE: Duration = Duration::from_secs(10);

/// Runs until leaders have changed so often.
pub(crate) fn run(seed: u64, changes: u64) -> Verdict {
    let mut rng = SmallRng::seed_from_u64(seed);
    let plan = Plan {
        founders: 3,
        spare: 0,
        faults: Faults { campaigns: true, ..Faults::default() },
        snapshot_every: 2000,
        keep: 500,
        client_pause_ms: 2000,
        chaos: PER_CHANGE * u32::try_from(changes).unwrap_or(u32::MAX),
        steady: true,
        ..Plan::draw(&mut rng, None)
    };
    simulate(seed, rng, &plan, |driver, sim| play(driver, sim, changes))
}

fn play(driver: &mut Driver, sim: &mut Sim<'_>, changes: u64) {
    driver.found(sim);
    *driver.stage.phase.lock() = Phase::Chaos;
    let (until, mut next) = (sim.elapsed() + driver.stage.plan.chaos, sim.elapsed());
    while driver.stage.book().covered("elections") < changes && !driver.stage.book().violated() {
        driver.step(sim);
        if sim.elapsed() >= until {
            return driver.stage.book().violation("leaders change", "they did not in time");
        }
        let leader = driver.leader().filter(|_| sim.elapsed() >= next);
        if let Some(leader) = leader {
            next = sim.elapsed() + Duration::from_millis(driver.rng.random_range(700..1300));
            if driver.rng.random_bool(0.5) {
                driver.stage.orders.lock().push_back(Order::HandOver);
            } else {
                driver.crash(sim, leader);
            }
        }
        driver.mend_what_is_due(sim);
    }
    if !driver.stage.book().violated() {
        driver.recover(sim);
    }
}

/// Whoever leads sees to it that the schedule is set and that there is something to do.
pub(crate) async fn keep_going(stage: &Stage, member: &Cluster) {
    if member.leadership().borrow().is_none() {
        return;
    }
    let is_set =
        |state: &State| state.orchestrator(NAMES[0]).is_some_and(|row| row.mode == Mode::Scheduled);
    if !member.view().read(is_set) {
        return set(stage, member, NAMES[0], every_second()).await;
    }
    let (known, waits, working) = member.view().read(|state| {
        let all = || state.campaigns_after(None);
        let waits = all().find(|row| row.status == CampaignStatus::Created);
        let working = all().filter(|row| row.status == CampaignStatus::Running);
        let working =
            working.filter(|row| state.may_iterate(row, row.plan.candidates) || row.iterating);
        (state.campaigns_len(), waits.map(|row| row.campaign_id.clone()), working.count())
    });
    if let Some(campaign_id) = waits {
        let how = CampaignMove::Start;
        let command = CampaignCommand::MoveCampaign { campaign_id, how };
        let request_id = clock::mint_request_id();
        // Another leader may have started it.
        drop(member.propose(request_id, "operator", Command::Campaign(command)).await);
    } else if working < AT_WORK {
        // The next one has its number, so that no two leaders make it.
        let request_id = RequestId::from_key(&format!("campaign {known}"));
        let command = Command::Campaign(CampaignCommand::CreateCampaign(Box::new(search(known))));
        let told = member.propose(request_id, "operator", command).await;
        if told.is_ok_and(|told| matches!(told.reply, Ok(Outcome::CampaignCreated { .. }))) {
            stage.book().cover("campaigns_created");
        }
    }
}

fn every_second() -> OrchestratorPatch {
    OrchestratorPatch {
        settings: vec![
            StepSetting::SimulationsMax(12),
            StepSetting::IterationsPerRun(3),
            StepSetting::ExperimentThreshold(900_000),
        ],
        mode: Some(Mode::Scheduled),
        timetable: Some(
            Timetable {
                cadence: Cadence::Every { interval_ms: 1000 },
                catch_up: CatchUp::All,
                catch_up_window_ms: 60_000,
                overlap: Overlap::Forbid,
            }
            .into(),
        ),
        budgets: BTreeMap::from([(Resource::Tokens, Some(Budget::of_units(1_000_000)))]),
        // Every campaign says its own.
        per_job: BTreeMap::from([(Resource::Tokens, Some(MICRO))]),
        ..OrchestratorPatch::default()
    }
}

/// A campaign that ends by one of its budgets.
fn search(number: usize) -> CampaignPlan {
    let number = number as u64;
    let budgets = [
        (Resource::Simulations, Budget::of_units(20 + number % 7)),
        (Resource::Tokens, Budget::of_units(30 + number % 11)),
    ];
    CampaignPlan {
        name: format!("search {number}"),
        // Candidates of generic campaigns are not measured.
        generic: false,
        candidates: 3,
        strategy: "random".to_owned(),
        score_field: "score".to_owned(),
        stop: StopRules { max_iterations: 100, ..StopRules::default() },
        job: jobs::template(2, false, number),
        budgets: BTreeMap::from(budgets),
        ..CampaignPlan::default()
    }
}
