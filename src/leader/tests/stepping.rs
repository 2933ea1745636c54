//! The campaign step as tables: what one phase decides (contract 3.4), and what becomes of slots.

use crate::clock;
use crate::leader::campaigns::{Calendars, plan};
use crate::leader::slot_plan;
use crate::leader::solo::Solo;
use crate::model::{
    Budget, Cadence, CampaignId, CampaignPlan, CatchUp, Epoch, JobTemplate, MICRO, Mode, Overlap,
    Resource, Run, Schedule, StepSetting, TaskId, Timetable,
};
use crate::state::{
    CampaignCommand, CampaignMove, Command, OrchestratorPatch, Outcome, SlotChoice, StepDuty,
    TaskOutcome, TaskReport, candidate_job,
};

pub(super) const EPOCH: Epoch = Epoch { term: 1, member: 1 };

pub(super) fn led() -> std::sync::Arc<Solo> {
    let solo = Solo::new();
    solo.commit(Command::OpenEpoch(EPOCH)).unwrap();
    solo.register("n", |spec| spec.capacity = 1000);
    solo
}

pub(super) fn ask(solo: &Solo, command: CampaignCommand) -> Outcome {
    solo.commit(Command::Campaign(command)).unwrap()
}

pub(super) fn set(solo: &Solo, patch: OrchestratorPatch) {
    let name = "default".to_owned();
    ask(solo, CampaignCommand::PatchOrchestrator { name, patch: Box::new(patch) });
}

/// A campaign that runs.
pub(super) fn campaign(solo: &Solo, edit: impl FnOnce(&mut CampaignPlan)) -> CampaignId {
    let mut plan = CampaignPlan::plain(10, 10);
    edit(&mut plan);
    let Outcome::CampaignCreated { campaign_id } =
        ask(solo, CampaignCommand::CreateCampaign(Box::new(plan)))
    else {
        panic!("a campaign is created");
    };
    let how = CampaignMove::Start;
    ask(solo, CampaignCommand::MoveCampaign { campaign_id: campaign_id.clone(), how });
    campaign_id
}

/// Goes round as the duty does, until nothing is left to do.
pub(super) fn go_round(solo: &Solo) {
    let mut calendars = Calendars::default();
    for _ in 0..100 {
        let now = clock::now_ms();
        let (duties, _) = plan(&solo.state.read(), now, &mut calendars);
        if duties.is_empty() {
            return;
        }
        for duty in duties {
            solo.commit(Command::Step { epoch: EPOCH, duty }).unwrap();
        }
    }
    panic!("the duty never rests");
}

/// Runs one step and gives its decisions as `kind: result (reason)`.
pub(super) fn step(solo: &Solo) -> Vec<String> {
    let command = CampaignCommand::BeginRun {
        name: "default".to_owned(),
        triggered_by: "manual".to_owned(),
        context: String::new(),
    };
    let Outcome::RunBegun { run_id } = ask(solo, command) else { panic!("a run begins") };
    go_round(solo);
    let state = solo.state.read();
    let run: &Run = state.run(run_id).unwrap();
    assert!(run.completed_at_ms > 0 && run.error.is_empty(), "{run:?}");
    let told = state.decisions(run_id);
    told.map(|decision| {
        format!("{}: {} ({})", decision.kind.as_str(), decision.result.as_str(), decision.reason)
    })
    .collect()
}

/// Ends the job of a candidate with a result.
pub(super) fn finish(solo: &Solo, campaign_id: &CampaignId, place: (u32, u32), result: &str) {
    let task_id: TaskId = candidate_job(campaign_id, place.0, place.1);
    let seen_revision = solo.state.read().open_task(&task_id).unwrap().revision;
    let node_id = crate::model::NodeId::trusted("n");
    let assignment = crate::state::Assignment { task_id: task_id.clone(), seen_revision, node_id };
    solo.commit(Command::AssignTasks { epoch: EPOCH, assignments: vec![assignment] }).unwrap();
    let report = TaskReport {
        task_id,
        attempt: None,
        epoch: None,
        node_id: None,
        agent_id: None,
        outcome: TaskOutcome::Completed { result: result.to_owned() },
        execution_ms: 1,
        performance_metrics: String::new(),
    };
    solo.commit(Command::ReportTasks(vec![report])).unwrap();
}

#[tokio::test]
async fn contract_3_4_a_step_without_campaigns_says_so() {
    let solo = led();
    assert_eq!(step(&solo), ["campaign_advancement: skipped (no active campaigns)"]);
}

#[tokio::test]
async fn contract_3_4_with_the_defaults_one_campaign_of_ten_candidates_fits_in_a_step() {
    let solo = led();
    let (first, _) = (campaign(&solo, |_| ()), campaign(&solo, |_| ()));
    let decisions = step(&solo);
    assert_eq!(decisions[0], "campaign_iteration: queued (10 candidates to evaluate)");
    assert!(decisions[1].starts_with("campaign_iteration: capacity_exceeded"), "{decisions:?}");
    assert_eq!(
        decisions[2..],
        vec!["experiment_scheduling: evaluated (no candidate asks for an experiment)"; 2],
    );
    let state = solo.state.read();
    let begun = state.campaigns_after(None).filter(|campaign| campaign.iterating).count();
    assert_eq!((begun, state.open_jobs(crate::model::JobKind::Simulation)), (1, 10));
    assert!(state.campaign(&first).is_some());
}

/// It was planned again and again, refused again and again, and took the place of all others.
#[tokio::test]
async fn a_campaign_that_is_out_of_tokens_holds_up_no_other() {
    let solo = led();
    let spent = campaign(&solo, |plan| {
        plan.budgets.insert(Resource::Tokens, Budget::of_units(25));
        plan.job.per_job.insert(Resource::Tokens, 10 * MICRO);
    });
    let other = campaign(&solo, |plan| plan.candidates = 8);
    let mut decisions = step(&solo);
    decisions[..2].sort();
    assert_eq!(
        decisions[..2],
        [
            "campaign_iteration: queued (2 candidates to evaluate)",
            "campaign_iteration: queued (8 candidates to evaluate)",
        ]
    );
    for (campaign_id, count) in [(&spent, 2), (&other, 8)] {
        for place in 0..count {
            finish(&solo, campaign_id, (0, place), r#"{"score":0.5,"usage":{"tokens":12}}"#);
        }
    }
    let mut decisions = step(&solo);
    decisions[..2].sort();
    assert_eq!(
        decisions[..2],
        [
            "campaign_iteration: budget_exceeded (the budget of tokens is used up)",
            "campaign_iteration: queued (8 candidates to evaluate)",
        ]
    );
}

#[tokio::test]
async fn contract_3_4_the_first_matching_rule_wins() {
    let solo = led();
    let settings = vec![StepSetting::SimulationsMax(100), StepSetting::IterationsPerRun(1)];
    set(&solo, OrchestratorPatch { settings, ..OrchestratorPatch::default() });
    let open = campaign(&solo, |_| ());
    step(&solo);
    // One iterates, one has no budget, one is free, and one comes too late.
    let broke = campaign(&solo, |plan| {
        plan.budgets.insert(Resource::Simulations, Default::default());
    });
    campaign(&solo, |_| ());
    campaign(&solo, |_| ());
    let decisions = step(&solo);
    let results: Vec<&str> = decisions
        .iter()
        .filter(|text| text.starts_with("campaign_iteration"))
        .map(|text| {
            let (_, rest) = text.split_once(": ").unwrap();
            rest.split_once(' ').unwrap().0
        })
        .collect();
    let mut sorted = results.clone();
    sorted.sort_unstable();
    assert_eq!(results.len(), 4, "{decisions:?}");
    assert!(sorted.contains(&"queued") && sorted.contains(&"deferred"), "{decisions:?}");
    assert_eq!(results.iter().filter(|result| **result == "queued").count(), 1);
    let state = solo.state.read();
    assert_eq!(state.campaign(&open).unwrap().iterations, 1, "one at a time");
    assert_eq!(state.campaign(&broke).unwrap().iterations, 0);
}

/// Contract 3.4: which of the rules a to c is told where more than one of them holds.
#[tokio::test]
async fn contract_3_4_rules_are_told_in_their_order() {
    let solo = led();
    let configure = |settings| set(&solo, OrchestratorPatch { settings, ..Default::default() });
    configure(vec![StepSetting::SimulationsMax(12), StepSetting::IterationsPerRun(1)]);
    let told = |decisions: &[String]| -> Vec<String> {
        let about = decisions.iter().filter_map(|text| text.strip_prefix("campaign_iteration: "));
        about.map(|text| text.split(' ').next().unwrap().to_owned()).collect()
    };
    let first = campaign(&solo, |plan| {
        plan.budgets.insert(Resource::Simulations, Budget::of_units(10));
    });
    assert_eq!(told(&step(&solo)), ["queued"]);
    assert_eq!(
        told(&step(&solo)),
        ["budget_exceeded"],
        "b, although there is no room and it iterates"
    );
    let second = campaign(&solo, |_| ());
    let priority = |id: &CampaignId, place| (id.as_str().to_owned(), place);
    let priorities = [priority(&first, 2), priority(&second, 1)];
    configure(vec![StepSetting::Priorities(priorities.into())]);
    assert_eq!(told(&step(&solo)), ["budget_exceeded", "capacity_exceeded"]);
    for place in 0..10 {
        finish(&solo, &first, (0, place), "{}");
    }
    let priorities = [priority(&first, 1), priority(&second, 2)];
    configure(vec![StepSetting::Priorities(priorities.into())]);
    assert_eq!(told(&step(&solo)), ["queued", "deferred"], "a, although its budget is used up");
    assert_eq!(
        told(&step(&solo)),
        ["capacity_exceeded", "budget_exceeded"],
        "c, although it iterates"
    );
}

/// A schedule that makes no sense is reported and holds no other up.
#[tokio::test]
async fn a_degraded_schedule_holds_no_other_up() {
    let solo = led();
    ask(&solo, CampaignCommand::EnsureOrchestrator { name: "broken".to_owned() });
    let patch = |cadence| {
        let timetable = Timetable { cadence, ..Timetable::default() };
        let timetable = Some(timetable.into());
        let mode = Some(Mode::Scheduled);
        Box::new(OrchestratorPatch { mode, timetable, ..OrchestratorPatch::default() })
    };
    let cron = |expression: &str| Cadence::Cron {
        expression: expression.to_owned(),
        zone: "UTC".to_owned(),
    };
    for (name, cadence) in [("broken", cron("no such time")), ("default", cron("* * * * *"))] {
        let name = name.to_owned();
        ask(&solo, CampaignCommand::PatchOrchestrator { name, patch: patch(cadence) });
    }
    let later = clock::now_ms() + 60_000;
    let (duties, _) = plan(&solo.state.read(), later, &mut Calendars::default());
    let is = |wanted: &str, duty: &StepDuty| match duty {
        StepDuty::JudgeSchedule { schedule, degraded } => {
            schedule == wanted && !degraded.is_empty()
        }
        StepDuty::DecideSlots { schedule, slots, .. } => schedule == wanted && slots.len() == 1,
        _ => false,
    };
    assert!(
        matches!(&duties[..], [one, two] if is("broken", one) && is("default", two)),
        "{duties:?}"
    );
}

#[tokio::test]
async fn contract_3_4_trainings_wait_for_samples_and_for_their_time() {
    let solo = led();
    let settings = vec![StepSetting::SamplesForRetrain(10)];
    set(&solo, OrchestratorPatch { settings, ..OrchestratorPatch::default() });
    let job = JobTemplate { task_type: "train".to_owned(), ..JobTemplate::default() };
    let name = "m".to_owned();
    let model =
        CampaignCommand::PutModel { name, active: true, trained_on: None, job: Box::new(job) };
    ask(&solo, model);
    assert_eq!(step(&solo)[0], "model_retraining_check: skipped (0 new samples, 10 are needed)");
    let id = campaign(&solo, |_| ());
    step(&solo);
    for place in 0..10 {
        finish(&solo, &id, (0, place), "{}");
    }
    assert_eq!(step(&solo)[0], "model_retrain_triggered: queued (10 new samples available)");
    let last = step(&solo);
    assert_eq!(last[0], "model_retraining_check: skipped (too soon (last training 0.0h ago))");
}

#[tokio::test]
async fn iterations_that_clients_ask_for_follow_one_another() {
    let solo = led();
    let id = campaign(&solo, |plan| plan.candidates = 1);
    let command = CampaignCommand::RequestIterations {
        campaign_id: id.clone(),
        count: 2,
        start: false,
        with: None,
    };
    assert_eq!(ask(&solo, command), Outcome::IterationsQueued { count: 2 });
    go_round(&solo);
    assert_eq!(solo.state.read().campaign(&id).unwrap().iterations, 1);
    finish(&solo, &id, (0, 0), "{\"score\": 0.1, \"parameters\": {\"x\": 3}}");
    go_round(&solo);
    let state = solo.state.read();
    assert_eq!(state.campaign(&id).unwrap().iterations, 2);
    assert_eq!(state.candidate_note(&id, 0, 0), Some("{\"x\": 3}"));
}

/// Ten thousand campaigns are planned without a word for each.
#[tokio::test]
async fn a_step_over_many_campaigns_is_a_small_record() {
    let solo = led();
    for _ in 0..1000 {
        campaign(&solo, |_| ());
    }
    let decisions = step(&solo);
    assert!(decisions.len() < 450, "{}", decisions.len());
    let wanted = "campaign_iteration: capacity_exceeded (800 more campaigns)";
    assert!(decisions.iter().any(|text| text == wanted), "{:?}", &decisions[198..204]);
}

pub(super) fn schedule(catch_up: CatchUp, overlap: Overlap) -> Schedule {
    Schedule {
        busy_since_ms: 0,
        stretches: Vec::new(),
        closings: Vec::new(),
        key: "default".to_owned(),
        timetable: Timetable {
            cadence: Cadence::Every { interval_ms: 1000 },
            catch_up,
            catch_up_window_ms: 15_000,
            overlap,
        },
        since_ms: 0,
        decided_ms: 0,
        degraded: String::new(),
        counts: [0; 5],
        forgotten: 0,
    }
}

/// The choices for slots of a second each, at `now`, in one letter each.
fn choices(
    (catch_up, overlap): (CatchUp, Overlap),
    now: u64,
    edit: impl FnOnce(&mut crate::model::Orchestrator),
) -> String {
    let solo = led();
    let mut orchestrator = solo.state.read().orchestrator("default").unwrap().clone();
    orchestrator.mode = Mode::Scheduled;
    edit(&mut orchestrator);
    let schedule = schedule(catch_up, overlap);
    let next = |after: u64| Some(after / 1000 * 1000 + 1000);
    let (slots, _) = slot_plan::plan(&schedule, &orchestrator, now, next);
    for (number, slot) in (1..).zip(&slots) {
        assert_eq!(slot.nominal_ms, number * 1000, "in order and without a gap");
    }
    let letter = |choice: SlotChoice| match choice {
        SlotChoice::Run => 'r',
        SlotChoice::CatchUp => 'c',
        SlotChoice::SkipOverlap => 'o',
        SlotChoice::SkipInactive => 'i',
        SlotChoice::Miss => 'm',
    };
    slots.iter().map(|slot| letter(slot.choice)).collect()
}

#[tokio::test]
async fn slots_are_decided_by_their_policies() {
    use CatchUp::{All, Latest, Skip};
    use Overlap::{Forbid, Queue};
    let idle = |_: &mut crate::model::Orchestrator| ();
    let busy = |row: &mut crate::model::Orchestrator| {
        row.open_run = Some(1);
        row.last_run_at_ms = 500;
    };
    let cases = [
        ("in time", choices((Latest, Forbid), 1200, idle), "r"),
        ("not yet", choices((Latest, Forbid), 999, idle), ""),
        ("the next one overlaps", choices((Latest, Forbid), 2200, idle), "ro"),
        ("it waits", choices((Latest, Queue), 2200, idle), "r"),
        ("busy", choices((Latest, Forbid), 1200, busy), "o"),
        ("busy and patient", choices((Latest, Queue), 1200, busy), ""),
        ("long ago, skip", choices((Skip, Forbid), 12_500, idle), "mmrooooooooo"),
        ("long ago, latest", choices((Latest, Forbid), 12_500, idle), "mmrooooooooo"),
        ("long ago, all", choices((All, Queue), 12_500, idle), "c"),
        ("beyond the window", choices((All, Queue), 18_500, idle), "mmmc"),
        ("inactive", choices((All, Queue), 2500, |row| row.is_active = false), "ii"),
        ("paused", choices((All, Queue), 2500, |row| row.mode = Mode::Paused), "ii"),
        ("manual", choices((All, Queue), 2500, |row| row.mode = Mode::Manual), ""),
    ];
    for (name, given, wanted) in cases {
        assert_eq!(given, wanted, "{name}");
    }
}

#[tokio::test]
async fn continuous_steps_follow_one_another_with_a_pause() {
    let plan_at = |now: u64, open: Option<u64>| {
        let solo = led();
        let mut row = solo.state.read().orchestrator("default").unwrap().clone();
        (row.mode, row.pause_ms, row.open_run) = (Mode::Continuous, 30, open);
        row.last_run_ended_ms = 1000;
        let schedule = schedule(CatchUp::Latest, Overlap::Forbid);
        let (slots, next) = slot_plan::plan(&schedule, &row, now, |_| None);
        (slots.first().map(|slot| slot.nominal_ms), next)
    };
    assert_eq!(plan_at(1029, None), (None, Some(1030)));
    assert_eq!(plan_at(1031, None), (Some(1030), None));
    assert_eq!(plan_at(9000, Some(1)), (None, None), "while a run is under way nothing is due");
}

/// The leader proposed a launch that its budget refused, fifty times a second, for ever.
#[tokio::test]
async fn iterations_that_no_budget_holds_are_not_proposed_again_and_again() {
    let solo = led();
    let tokens = |units| Budget { limit: units * MICRO, ..Budget::default() };
    let metered = |plan: &mut CampaignPlan, units| {
        plan.budgets.insert(Resource::Tokens, tokens(units));
        plan.job.per_job.insert(Resource::Tokens, MICRO);
    };
    let small = campaign(&solo, |plan| metered(plan, 0));
    let large = campaign(&solo, |plan| metered(plan, 90));
    let budgets = [(Resource::Tokens, Some(tokens(15)))].into();
    let per_job = [(Resource::Tokens, Some(MICRO))].into();
    set(&solo, OrchestratorPatch { budgets, per_job, ..OrchestratorPatch::default() });
    for campaign_id in [small.clone(), large.clone()] {
        ask(
            &solo,
            CampaignCommand::RequestIterations { campaign_id, count: 2, start: false, with: None },
        );
    }
    go_round(&solo);
    let launched = |campaign_id| solo.state.read().campaign(campaign_id).unwrap().iterations;
    assert_eq!((launched(&small), launched(&large)), (0, 1), "10 of 15 tokens are promised");
    for candidate in 0..10 {
        finish(&solo, &large, (0, candidate), r#"{"score":0.1,"usage":{"tokens":1}}"#);
    }
    go_round(&solo);
    assert_eq!(
        (launched(&small), launched(&large)),
        (0, 2),
        "5 of 15 tokens are left, for five candidates"
    );
    let budgets = std::collections::BTreeMap::from([(Resource::Tokens, None)]);
    set(&solo, OrchestratorPatch { budgets, ..OrchestratorPatch::default() });
    go_round(&solo);
    assert_eq!((launched(&small), launched(&large)), (0, 2), "there are no tokens for any job");
}
