//! Who searches: makes campaigns, moves them, asks for iterations, pulls kill switches, and sends requests
//! again that were answered.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate::clock;
use quorate::cluster::{Cluster, ProposeError};
use quorate::model::{
    Budget, CampaignId, CampaignPlan, CampaignStatus, MICRO, Resource, StopRules,
};
use quorate::state::{
    CampaignCommand, CampaignMove, CampaignPatch, Command, Outcome, Rejection, Reply,
};

use crate::jobs;
use crate::planners::NAMES;
use crate::stage::{Phase, Stage};

/// Campaigns of one run.
const CAMPAIGNS: usize = 14;
/// A model that is trained when enough samples have come.
const MODEL: &str = "model";

pub(crate) async fn run(stage: Stage, member: Cluster) {
    loop {
        tokio::time::sleep(Duration::from_millis(100 + clock::random() % 300)).await;
        let ready = member.view().read(|state| state.policy().alert_webhook.is_some());
        match stage.phase() {
            Phase::Healed => return,
            _ if stage.plan.steady => return,
            Phase::Chaos if member.member_id() != 0 && ready && stage.plan.faults.campaigns => {
                act(&stage, &member).await;
            }
            Phase::Founding | Phase::Chaos => {}
        }
    }
}

async fn act(stage: &Stage, member: &Cluster) {
    let random = clock::random();
    let campaigns: Vec<(CampaignId, CampaignStatus)> = member.view().read(|state| {
        let all = state.campaigns_after(None);
        all.map(|campaign| (campaign.campaign_id.clone(), campaign.status)).collect()
    });
    let chosen = campaigns.get((random >> 32) as usize % campaigns.len().max(1));
    match (random % 100, chosen) {
        (0..30, _) if campaigns.len() < CAMPAIGNS => create(stage, member).await,
        (_, None) => train(stage, member).await,
        (0..4, _) => train(stage, member).await,
        (4..75, Some((campaign_id, status))) => shift(stage, member, campaign_id, *status).await,
        (75..82, Some((campaign_id, _))) => patch(stage, member, campaign_id).await,
        (_, Some((campaign_id, _))) => iterate(stage, member, campaign_id).await,
    }
}

/// Proposes, and now and then the same request again once it was answered: the answer stays.
pub(crate) async fn ask(
    stage: &Stage,
    member: &Cluster,
    command: CampaignCommand,
) -> Result<(u64, Reply), ProposeError> {
    let (request_id, command) = (clock::mint_request_id(), Command::Campaign(command));
    let told = member.propose(request_id, "researcher", command.clone()).await?;
    if stage.plan.faults.retries && clock::random().is_multiple_of(4) {
        let again = member.propose(request_id, "researcher", command.clone()).await;
        if let Ok(again) = again
            && again.reply != told.reply
        {
            let what = format!("{command:?}: {:?}, then {:?}", told.reply, again.reply);
            stage.book().violation("exactly once", &what);
        }
    }
    stage.book().trace(&format!("{command:?} {told:?}"));
    Ok((told.index, told.reply))
}

/// An answer that nobody can have asked for.
pub(crate) fn odd(stage: &Stage, what: &str, reply: &Reply) {
    stage.book().violation("campaigns are answered", &format!("{what}: {reply:?}"));
}

/// A campaign, drawn by chance: some have tight budgets, and the jobs of some use more than they are
/// promised.
pub(crate) fn draw() -> CampaignPlan {
    let random = clock::random();
    let bits = |shift: u32, of: u64| (random >> shift) % of;
    let limit = |units: u64, soft: u64| Budget { soft: soft * MICRO, ..Budget::of_units(units) };
    let (promised, greedy) = (1 + bits(0, 3), bits(4, 5) == 0);
    let mut budgets = BTreeMap::new();
    if bits(8, 2) == 0 {
        budgets.insert(Resource::Simulations, limit(2 + bits(12, 6), bits(16, 3)));
    }
    if bits(20, 2) == 0 {
        budgets.insert(Resource::Tokens, limit(4 + bits(24, 12), bits(28, 5)));
    }
    CampaignPlan {
        name: "search".to_owned(),
        // Greedy jobs spend more than a budget holds: that of the first orchestrator stays exact.
        orchestrator: NAMES[usize::from(greedy || bits(32, 3) == 0)].to_owned(),
        // Candidates of generic campaigns are measured where they say from which score on.
        generic: bits(52, 3) == 0,
        measured_from: (bits(56, 3) == 0).then_some(500_000_000),
        candidates: 1 + bits(36, 3) as u32,
        strategy: "random".to_owned(),
        minimize: bits(40, 2) == 0,
        score_field: "score".to_owned(),
        stop: StopRules {
            max_iterations: 1 + bits(44, 4) as u32,
            patience: (bits(48, 4) == 0).then_some(2),
            ..StopRules::default()
        },
        job: jobs::template(promised, greedy, clock::random()),
        budgets,
        ..CampaignPlan::default()
    }
}

async fn create(stage: &Stage, member: &Cluster) {
    let command = CampaignCommand::CreateCampaign(Box::new(draw()));
    match ask(stage, member, command).await {
        Ok((_, Ok(Outcome::CampaignCreated { .. }))) => stage.book().cover("campaigns_created"),
        // Its orchestrator is not there yet.
        Ok((_, Err(Rejection::OrchestratorNotFound { .. }))) | Err(_) => {}
        Ok((_, other)) => odd(stage, "a campaign", &other),
    }
}

async fn shift(stage: &Stage, member: &Cluster, campaign_id: &CampaignId, seen: CampaignStatus) {
    let how = match (seen, clock::random() % 20) {
        (_, 0) => CampaignMove::Trip,
        (_, 1) => CampaignMove::Cancel,
        (CampaignStatus::Created, _) => CampaignMove::Start,
        (CampaignStatus::Paused, _) => CampaignMove::Resume,
        (_, 2..5) => CampaignMove::Pause,
        // What has ended is moved as well, and refuses.
        (_, 5) => CampaignMove::Resume,
        _goes_on => return iterate(stage, member, campaign_id).await,
    };
    let command = CampaignCommand::MoveCampaign { campaign_id: campaign_id.clone(), how };
    match ask(stage, member, command).await {
        Ok((index, Ok(Outcome::Done))) => {
            stage.book().cover("campaigns_moved");
            if how == CampaignMove::Trip {
                stage.book().cover("tripped");
                stage.invariants.tripped(index, campaign_id);
            }
        }
        Ok((_, Err(Rejection::CampaignState(_)))) if how != CampaignMove::Trip => {}
        Ok((_, other)) => odd(stage, "a move", &other),
        Err(_) => {}
    }
}

/// Gives a campaign that rests more time, and now and then other limits: higher ones, lower ones, none.
async fn patch(stage: &Stage, member: &Cluster, campaign_id: &CampaignId) {
    let random = clock::random();
    let max_iterations = 1 + (random % 6) as u32;
    let stop = StopRules { max_iterations, ..StopRules::default() };
    let known = member
        .view()
        .read(|state| state.campaign(campaign_id).map(|row| (row.plan.clone(), row.plan_index)));
    let (plan, seen_plan) = match known {
        Some((mut plan, seen)) if (random >> 8).is_multiple_of(2) => {
            let limit = Budget::of_units((random >> 16) % 20);
            let (kind, none) = match (random >> 32) % 4 {
                0 => (Resource::Simulations, false),
                1 => (Resource::Tokens, true),
                _ => (Resource::Tokens, false),
            };
            plan.budgets.remove(&kind);
            plan.budgets.extend((!none).then_some((kind, limit)));
            (Some(plan), seen)
        }
        _ => (None, 0),
    };
    let patch = CampaignPatch { stop: Some(stop), plan, seen_plan, ..CampaignPatch::default() };
    let (campaign_id, patch) = (campaign_id.clone(), Box::new(patch));
    match ask(stage, member, CampaignCommand::PatchCampaign { campaign_id, patch }).await {
        Ok((_, Ok(Outcome::Done))) => stage.book().cover("campaigns_patched"),
        Ok((_, Err(Rejection::CampaignState(_) | Rejection::CampaignChanged))) | Err(_) => {}
        // So many iterations were begun already.
        Ok((_, Err(Rejection::InvalidCampaign(_)))) => {}
        Ok((_, other)) => odd(stage, "a patch", &other),
    }
}

async fn iterate(stage: &Stage, member: &Cluster, campaign_id: &CampaignId) {
    let count = 1 + (clock::random() % 2) as u32;
    let command = CampaignCommand::RequestIterations {
        campaign_id: campaign_id.clone(),
        count,
        start: true,
        with: None,
    };
    // Until it is answered, it may take effect at any time.
    stage.invariants.asks_for_iterations(campaign_id, count);
    let granted = match ask(stage, member, command).await {
        Ok((_, Ok(Outcome::IterationsQueued { count }))) => {
            stage.book().cover("iterations_asked_for");
            count
        }
        // One of so many candidates is too large for the bounds that somebody set.
        Ok((_, Err(Rejection::CampaignState(_) | Rejection::InvalidCampaign(_))))
        | Err(ProposeError::NotStarted { .. }) => 0,
        Ok((_, other)) => return odd(stage, "iterations", &other),
        Err(ProposeError::Unknown { .. } | ProposeError::Stopped { .. }) => return,
    };
    stage.invariants.asked_for_iterations(campaign_id, count - granted);
}

/// Makes a model known, or changes it.
async fn train(stage: &Stage, member: &Cluster) {
    let command = CampaignCommand::PutModel {
        name: MODEL.to_owned(),
        active: true,
        trained_on: None,
        job: Box::new(jobs::template(0, false, clock::random())),
    };
    match ask(stage, member, command).await {
        Ok((_, Ok(Outcome::Done))) | Err(_) => {}
        Ok((_, other)) => odd(stage, "a model", &other),
    }
}
