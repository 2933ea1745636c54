//! What a step chooses to measure and to train (contract 3.4), and what it leaves alone.

use super::stepping::{EPOCH, ask, campaign, finish, go_round, led, set, step};
use crate::clock;
use crate::leader::campaigns::{Calendars, plan};
use crate::leader::solo::Solo;
use crate::model::{JobKind, JobTemplate, Mode, StepSetting};
use crate::state::{
    CampaignCommand, CampaignMove, Command, IterationPlan, JobRequest, OrchestratorPatch, Outcome,
    StepDuty, candidate_experiment,
};

#[tokio::test]
async fn contract_3_4_high_scores_get_experiments_once() {
    let solo = led();
    let id = campaign(&solo, |plan| plan.candidates = 3);
    step(&solo);
    for (place, score) in [(0, "0.95"), (1, "0.5"), (2, "0.91")] {
        finish(&solo, &id, (0, place), &format!("{{\"score\": {score}}}"));
    }
    let decisions = step(&solo);
    let wanted = "experiment_scheduling: queued (2 high-scoring candidates found (score > 0.9))";
    assert!(decisions.iter().any(|text| text == wanted), "{decisions:?}");
    let again = step(&solo);
    assert!(!again.iter().any(|text| text == wanted), "{again:?}");
    let state = solo.state.read();
    let row = state.campaign(&id).unwrap();
    assert_eq!(row.best_score, Some(950_000_000));
    assert_eq!(state.open_jobs(JobKind::Experiment), 2);
}

fn put_model(solo: &Solo, name: &str, trained_on: Option<u64>) {
    let job = JobTemplate { task_type: "train".to_owned(), ..JobTemplate::default() };
    let (name, job) = (name.to_owned(), Box::new(job));
    ask(solo, CampaignCommand::PutModel { name, active: true, trained_on, job });
}

/// Models behind the first 512 were never looked at.
#[tokio::test]
async fn contract_3_4_every_model_is_trained_however_many_there_are() {
    let solo = led();
    set(
        &solo,
        OrchestratorPatch {
            settings: vec![StepSetting::SamplesForRetrain(10)],
            ..Default::default()
        },
    );
    for number in 0..700 {
        put_model(&solo, &format!("m{number:03}"), Some(100));
    }
    put_model(&solo, "z", None);
    let id = campaign(&solo, |_| ());
    step(&solo);
    for place in 0..10 {
        finish(&solo, &id, (0, place), "{}");
    }
    let decisions = step(&solo);
    assert_eq!(decisions[0], "model_retrain_triggered: queued (10 new samples available)");
    assert!(decisions.iter().any(|text| text.contains("500 more models")), "{decisions:?}");
    assert!(solo.state.read().model("z").unwrap().training.is_some());
}

/// What one command does not hold was cut off, and the time to the next trainings began all the same.
#[tokio::test]
async fn contract_3_4_trainings_that_are_too_many_for_one_step_go_on_in_the_next() {
    let solo = led();
    let settings = vec![StepSetting::SamplesForRetrain(10)];
    set(&solo, OrchestratorPatch { settings, ..Default::default() });
    for number in 0..600 {
        put_model(&solo, &format!("m{number:03}"), None);
    }
    let id = campaign(&solo, |_| ());
    step(&solo);
    for place in 0..10 {
        finish(&solo, &id, (0, place), "{}");
    }
    let trained = |solo: &Solo| {
        let state = solo.state.read();
        let last = state.orchestrator("default").unwrap().last_training_at_ms;
        (state.models().filter(|model| model.training.is_some()).count(), last > 0)
    };
    let decisions = step(&solo);
    let wanted = "model_retraining_check: deferred (90 more models have new samples)";
    assert!(decisions.iter().any(|text| text == wanted), "{:?}", &decisions[505..]);
    assert_eq!(trained(&solo), (510, true));
    // Those that fail meanwhile have had their turn: the others were never trained, and the time between
    // trainings never passed.
    let training = solo.state.read().model("m000").unwrap().training.clone().unwrap();
    solo.commit(Command::CancelTask { task_id: training, reason: String::new() }).unwrap();
    assert_eq!(trained(&solo).0, 509);
    let began = solo.state.read().orchestrator("default").unwrap().last_training_at_ms;
    step(&solo);
    assert_eq!(trained(&solo), (599, true));
    assert!(step(&solo)[0].contains("too soon"));
    assert_eq!(solo.state.read().orchestrator("default").unwrap().last_training_at_ms, began);
}

/// Those of the iteration with the best one came first, however good the others were.
#[tokio::test]
async fn contract_3_4_the_best_candidates_of_all_iterations_are_measured_first() {
    let solo = led();
    let settings = vec![StepSetting::ExperimentThreshold(800_000), StepSetting::ExperimentsMax(3)];
    set(&solo, OrchestratorPatch { settings, ..Default::default() });
    let id = campaign(&solo, |plan| plan.candidates = 2);
    for (index, scores) in [(0, ["0.81", "0.99"]), (1, ["0.95", "0.93"]), (2, ["0.1", "0.95"])] {
        let request = CampaignCommand::RequestIterations {
            campaign_id: id.clone(),
            count: 1,
            start: false,
            with: None,
        };
        ask(&solo, request);
        go_round(&solo);
        for (place, score) in (0..).zip(scores) {
            finish(&solo, &id, (index, place), &format!("{{\"score\": {score}}}"));
        }
    }
    {
        let state = solo.state.read();
        let campaign = state.campaign(&id).unwrap();
        let order: Vec<(u32, u32)> = state.unmeasured(campaign, 800_000_000).collect();
        assert_eq!(order, [(0, 1), (2, 1), (1, 0), (1, 1), (0, 0)], "of equal ones the newest");
    }
    step(&solo);
    let state = solo.state.read();
    let measured = |index, place| state.has_task(&candidate_experiment(&id, index, place));
    assert_eq!([measured(0, 1), measured(2, 1), measured(1, 0)], [true; 3]);
    assert_eq!([measured(1, 1), measured(0, 0)], [false; 2]);
}

/// Iterations that clients had asked for were launched by an orchestrator that was paused.
#[tokio::test]
async fn contract_3_4_a_paused_orchestrator_launches_nothing_that_was_asked_for() {
    let solo = led();
    let id = campaign(&solo, |_| ());
    let pause = |mode| set(&solo, OrchestratorPatch { mode: Some(mode), ..Default::default() });
    let switch = |active| {
        ask(&solo, CampaignCommand::SetActive { name: "default".to_owned(), active });
    };
    let count = 1;
    let campaign_id = id.clone();
    ask(&solo, CampaignCommand::RequestIterations { campaign_id, count, start: false, with: None });
    let begun = || {
        go_round(&solo);
        solo.state.read().campaign(&id).unwrap().iterations
    };
    pause(Mode::Paused);
    assert_eq!(begun(), 0);
    pause(Mode::Manual);
    switch(false);
    assert_eq!(begun(), 0);
    // Nor does one that a leader planned before.
    let plan = IterationPlan {
        campaign_id: id.clone(),
        seen_revision: solo.state.read().campaign(&id).unwrap().revision,
        context: "{}".to_owned(),
        strategy: "random".to_owned(),
        candidates: 10,
    };
    let duty = StepDuty::LaunchIterations { launches: vec![plan] };
    let judged = solo.commit(Command::Step { epoch: EPOCH, duty }).unwrap();
    assert_eq!(judged, Outcome::Judged { accepted: 0, stale: 1 });
    switch(true);
    assert_eq!(begun(), 1);
}

/// The mode says when steps run. Jobs that a client asks for by their structures are no part of one.
#[tokio::test]
async fn contract_3_5_jobs_are_made_whatever_the_mode_of_their_orchestrator() {
    let solo = led();
    set(&solo, OrchestratorPatch { mode: Some(Mode::Paused), ..Default::default() });
    for experiments in [false, true] {
        let task_type = "dft".to_owned();
        let request = JobRequest {
            experiments,
            structure_ids: vec!["s".to_owned()],
            job: JobTemplate { task_type, ..JobTemplate::default() },
            ..JobRequest::default()
        };
        let made = ask(&solo, CampaignCommand::RequestJobs(Box::new(request)));
        assert_eq!(made, Outcome::JobsCreated { count: 1 });
    }
}

/// Another timeout of the task made a run that was under way too old.
#[tokio::test]
async fn a_run_has_the_time_that_its_own_task_has() {
    let solo = led();
    let name = "nightly".to_owned();
    ask(&solo, CampaignCommand::EnsureOrchestrator { name: name.clone() });
    let with = |hours: u64| {
        let task = JobTemplate {
            task_type: "backup".to_owned(),
            timeout_ms: hours * 3_600_000,
            ..JobTemplate::default()
        };
        let patch = OrchestratorPatch { task: Some(Some(Box::new(task))), ..Default::default() };
        let (name, patch) = (name.clone(), Box::new(patch));
        ask(&solo, CampaignCommand::PatchOrchestrator { name, patch });
    };
    with(5);
    let (triggered_by, context) = ("manual".to_owned(), String::new());
    ask(&solo, CampaignCommand::BeginRun { name: name.clone(), triggered_by, context });
    go_round(&solo);
    with(1);
    let fails = |hours: u64| {
        let now = clock::now_ms() + hours * 3_600_000;
        let (duties, _) = plan(&solo.state.read(), now, &mut Calendars::default());
        duties.iter().any(|duty| matches!(duty, StepDuty::FailRun { .. }))
    };
    assert!(!fails(4) && fails(7));
}

/// Decisions about experiments that launched some, and how many are open then.
fn measured(solo: &Solo) -> (Vec<String>, u64) {
    let told = step(solo).into_iter();
    let told = told
        .filter_map(|text| Some(text.strip_prefix("experiment_scheduling: queued ")?.to_owned()));
    (told.collect(), solo.state.read().open_jobs(JobKind::Experiment))
}

/// Only the newest eight iterations were looked at: what was found while experiments waited was lost.
#[tokio::test]
async fn contract_3_4_high_scores_get_experiments_however_long_ago_they_were_found() {
    let solo = led();
    set(
        &solo,
        OrchestratorPatch { settings: vec![StepSetting::ExperimentsMax(1)], ..Default::default() },
    );
    let id = campaign(&solo, |plan| {
        plan.candidates = 1;
        plan.stop.max_iterations = 20;
    });
    // The first score takes the only place; the second, the best of all, has to wait.
    for (index, score) in ["0.95", "0.99"].into_iter().chain(["0.1"; 10]).enumerate() {
        step(&solo);
        finish(&solo, &id, (index as u32, 0), &format!(r#"{{"score":{score}}}"#));
    }
    let experiment = candidate_experiment(&id, 0, 0);
    solo.commit(Command::CancelTask { task_id: experiment, reason: String::new() }).unwrap();
    let (told, open) = measured(&solo);
    assert_eq!(
        (&told[..], open),
        (&["(1 high-scoring candidates found (score > 0.9))".to_owned()][..], 1)
    );
    let state = solo.state.read();
    assert!(state.task(&candidate_experiment(&id, 1, 0)).is_some());
}

/// Campaigns that minimize, and those of any kind, got no experiments at all.
#[tokio::test]
async fn contract_3_4_experiments_go_by_the_direction_and_the_threshold_of_a_campaign() {
    let solo = led();
    let settings = vec![StepSetting::SimulationsMax(100), StepSetting::IterationsPerRun(10)];
    set(&solo, OrchestratorPatch { settings, ..OrchestratorPatch::default() });
    let with = |minimize, generic, measured_from, wanted: &str| {
        let id = campaign(&solo, |plan| {
            (plan.candidates, plan.minimize, plan.generic) = (3, minimize, generic);
            plan.measured_from = measured_from;
        });
        step(&solo);
        for (place, score) in [(0, "0.05"), (1, "0.5"), (2, "0.95")] {
            finish(&solo, &id, (0, place), &format!(r#"{{"score":{score}}}"#));
        }
        let (told, _) = measured(&solo);
        let wanted = if wanted.is_empty() { vec![] } else { vec![wanted.to_owned()] };
        assert_eq!(told, wanted, "minimize {minimize} generic {generic} {measured_from:?}");
        ask(&solo, CampaignCommand::MoveCampaign { campaign_id: id, how: CampaignMove::Cancel });
    };
    let found =
        |count: u32, than: &str| format!("({count} high-scoring candidates found (score {than}))");
    with(false, false, None, &found(1, "> 0.9"));
    with(true, false, None, &found(1, "< 0.1"));
    with(true, false, Some(600_000_000), &found(2, "< 0.6"));
    with(false, false, Some(20_000_000), &found(3, "> 0.02"));
    with(false, true, None, "");
    with(false, true, Some(600_000_000), &found(1, "> 0.6"));
    with(true, true, Some(-1), "");
}
