//! Iterations that clients asked for and that cannot begin: what never fits is refused, and what does not
//! begin is told, once (contract 3.6 `step`).

use super::stepping::{EPOCH, ask, campaign, finish, go_round, led, set};
use crate::clock;
use crate::leader::solo::Solo;
use crate::leader::step_plan::{self, Next, Walk};
use crate::model::{Budget, CampaignId, IterationOverride, MICRO, Mode, Resource, StepSetting};
use crate::state::{
    CampaignCommand, CampaignMove, Command, OrchestratorPatch, Outcome, Rejection, Reply, State,
    StepDuty,
};

fn request(solo: &Solo, id: &CampaignId, candidates: Option<u32>) -> Reply {
    let with = candidates.map(|candidates| {
        Box::new(IterationOverride {
            candidates: Some(candidates),
            strategy: None,
            config: String::new(),
        })
    });
    let (campaign_id, count, start) = (id.clone(), 1, false);
    let command = CampaignCommand::RequestIterations { campaign_id, count, start, with };
    solo.commit(Command::Campaign(command))
}

fn simulations(solo: &Solo, max: u32) {
    let settings = vec![StepSetting::SimulationsMax(max)];
    set(solo, OrchestratorPatch { settings, ..OrchestratorPatch::default() });
}

/// What the log says of iterations that wait; and what the campaign says, and how many it has.
fn told(solo: &Solo, id: &CampaignId) -> (Vec<String>, String, u32) {
    let state = solo.state.read();
    let lines = state.campaign_lines(id).filter(|line| line.event == "waiting");
    let row = state.campaign(id).unwrap();
    (lines.map(|line| line.text.clone()).collect(), row.reason.clone(), row.iterations)
}

/// It was answered with "queued", and never began.
#[tokio::test]
async fn an_iteration_that_never_fits_is_refused() {
    let solo = led();
    let id = campaign(&solo, |plan| plan.candidates = 10);
    for candidates in [11, 50] {
        let refused = request(&solo, &id, Some(candidates)).unwrap_err();
        assert!(matches!(&refused, Rejection::InvalidCampaign(why) if why.contains("the 10 ")));
    }
    assert_eq!(request(&solo, &id, Some(2)).unwrap(), Outcome::IterationsQueued { count: 1 });
    // Nor does one whose own size does not fit any more.
    let large = campaign(&solo, |plan| plan.candidates = 10);
    simulations(&solo, 9);
    assert!(request(&solo, &large, None).is_err());
    // What is left of a budget may make it small enough.
    let small = campaign(&solo, |plan| {
        plan.candidates = 10;
        plan.budgets.insert(Resource::Simulations, Budget::of_units(4));
    });
    request(&solo, &small, None).unwrap();
}

#[tokio::test]
async fn why_iterations_wait_is_told_once() {
    let solo = led();
    let id = campaign(&solo, |plan| {
        plan.candidates = 4;
        plan.budgets.insert(Resource::Tokens, Budget::of_units(4));
        plan.job.per_job.insert(Resource::Tokens, MICRO);
    });
    simulations(&solo, 4);
    request(&solo, &id, None).unwrap();
    request(&solo, &id, None).unwrap();
    simulations(&solo, 3);
    // Nothing of a paused orchestrator waits for anything else.
    let pause = |mode| set(&solo, OrchestratorPatch { mode: Some(mode), ..Default::default() });
    pause(Mode::Paused);
    go_round(&solo);
    assert_eq!(told(&solo, &id).0.len(), 0);
    pause(Mode::Manual);
    let large = "4 candidates are more than the 3 simulations that may be under way \
                 (max_simultaneous_simulations)"
        .to_owned();
    for _ in 0..3 {
        go_round(&solo);
        assert_eq!(told(&solo, &id), (vec![large.clone()], large.clone(), 0));
    }
    let duty = StepDuty::NoteWaiting { campaigns: vec![id.clone()] };
    let again = solo.commit(Command::Step { epoch: EPOCH, duty }).unwrap();
    assert_eq!(again, Outcome::Judged { accepted: 0, stale: 1 });
    simulations(&solo, 10);
    go_round(&solo);
    assert_eq!(told(&solo, &id), (vec![large.clone()], String::new(), 1));
    for place in 0..4 {
        finish(&solo, &id, (0, place), r#"{"score":0.1,"usage":{"tokens":1}}"#);
        go_round(&solo);
    }
    let spent = "the budget of tokens is used up".to_owned();
    assert_eq!(told(&solo, &id), (vec![large, spent.clone()], spent, 1));
}

/// It was not told while others had been promised something of the same kind.
#[tokio::test]
async fn what_is_used_up_is_told_whatever_others_were_promised() {
    let solo = led();
    let shared = Some(Budget::of_units(100));
    let (budgets, per_job) = ([(Resource::Tokens, shared)], [(Resource::Tokens, Some(MICRO))]);
    let (budgets, per_job) = (budgets.into(), per_job.into());
    set(&solo, OrchestratorPatch { budgets, per_job, ..OrchestratorPatch::default() });
    let own = |units: u64| {
        campaign(&solo, |plan| {
            plan.candidates = 2;
            plan.budgets.insert(Resource::Tokens, Budget::of_units(units));
            plan.job.per_job.insert(Resource::Tokens, MICRO);
        })
    };
    let (poor, rich) = (own(2), own(50));
    request(&solo, &poor, None).unwrap();
    go_round(&solo);
    for place in 0..2 {
        finish(&solo, &poor, (0, place), r#"{"score":0.1,"usage":{"tokens":1}}"#);
    }
    request(&solo, &poor, None).unwrap();
    request(&solo, &rich, None).unwrap();
    go_round(&solo);
    go_round(&solo);
    let shared = |state: &State| {
        state.orchestrators().map(|row| row.budgets[&Resource::Tokens].reserved).sum::<u64>()
    };
    let promised = shared(&solo.state.read());
    assert!(promised > 0, "the rich one has jobs under way");
    let spent = "the budget of tokens is used up".to_owned();
    assert_eq!(told(&solo, &poor), (vec![spent.clone()], spent, 1));
    assert_eq!(told(&solo, &rich).1, "");
}

/// Whoever waits for others only has nothing to be told.
#[tokio::test]
async fn iterations_that_wait_for_room_are_no_news() {
    let solo = led();
    let first = campaign(&solo, |plan| plan.candidates = 8);
    let second = campaign(&solo, |plan| plan.candidates = 8);
    for id in [&first, &second] {
        request(&solo, id, None).unwrap();
    }
    go_round(&solo);
    let begun = [&first, &second].map(|id| told(&solo, id));
    assert!(begun.iter().all(|(lines, reason, _)| lines.is_empty() && reason.is_empty()));
    assert_eq!(begun.iter().map(|(_, _, iterations)| iterations).sum::<u32>(), 1);
}

/// All that was written waited for one look at ten thousand campaigns.
#[tokio::test]
async fn a_look_in_parts_comes_to_what_one_look_does() {
    let solo = led();
    for _ in 0..7 {
        campaign(&solo, |plan| plan.candidates = 1);
    }
    let ids: Vec<CampaignId> = solo.state.read().running_campaign_ids().cloned().collect();
    let begin = CampaignCommand::BeginRun {
        name: "default".to_owned(),
        triggered_by: "manual".to_owned(),
        context: String::new(),
    };
    let Outcome::RunBegun { run_id } = ask(&solo, begin) else { panic!("a run begins") };
    let next = || {
        let state = solo.state.read();
        step_plan::next(&state, clock::now_ms(), state.run(run_id).unwrap()).unwrap()
    };
    let Next::Command(duty) = next() else { panic!("trainings come first") };
    solo.commit(Command::Step { epoch: EPOCH, duty }).unwrap();
    let walk = || match next() {
        Next::Walk(walk) => walk,
        Next::Command(duty) => panic!("campaigns come then, not {duty:?}"),
    };
    let (mut whole, mut parts, mut late) = (walk(), walk(), walk());
    let go_on = |walk: &mut Walk, max| walk.go_on(&solo.state.read(), max);
    assert!(!go_on(&mut whole, usize::MAX));
    assert!(go_on(&mut parts, 3) && go_on(&mut parts, 3) && !go_on(&mut parts, 3));
    assert_eq!(parts.end(), whole.end());
    // What is paused meanwhile is looked at no more: two of these three.
    assert!(go_on(&mut late, 3));
    for id in &ids[2..5] {
        let (campaign_id, how) = (id.clone(), CampaignMove::Pause);
        ask(&solo, CampaignCommand::MoveCampaign { campaign_id, how });
    }
    assert!(!go_on(&mut late, 5));
    let StepDuty::AdvanceRun { actions, .. } = late.end() else { panic!("it goes on") };
    let named = actions.iter().filter_map(|action| action.decision.campaign_id.clone());
    assert_eq!(named.count(), 5, "{actions:?}");
}
