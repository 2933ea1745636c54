//! Who makes bots and works for them: makes swarms on several members at once until there is no room, gives
//! them work, takes it, does it, gives it back or dies; and the services that workflows call.

use std::time::Duration;

use quorate::clock;
use quorate::cluster::{Cluster, ProposeError};
use quorate::leader::{Answer, Call, CallError};
use quorate::model::{AssignmentPlace, BotPlace, DerivedId, Service};
use quorate::state::{
    BotCommand, BotOutcome, BotRejection, BotReport, BotSpec, BotWork, Command, LeaseRef,
    LeaseScope, LeasedRun, Outcome, Rejection, Reply, Verdict, WorkflowStep,
};

use crate::nodes::{answer, down, pause};
use crate::stage::{Phase, Stage};

/// Swarms of one run.
const SWARMS: usize = 6;
/// Bots of a swarm, at most: four of them do not fit.
const BOTS: u64 = 20_000;
/// Workflows of one run.
const WORKFLOWS: u64 = 40;
/// Types of tasks: two services, one that is listed only, one that is none.
const TYPES: [&str; 4] = ["fraud_detection", "crypto_prediction", "marketing", "odd"];

/// An assignment that a worker holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    place: AssignmentPlace,
    task: DerivedId,
    attempt: u32,
    /// As whom it is leased, if this member knows.
    bot: Option<DerivedId>,
}

fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

pub(crate) async fn run(stage: Stage, member: Cluster) {
    let mut held = Vec::new();
    loop {
        tokio::time::sleep(Duration::from_millis(50 + clock::random() % 250)).await;
        let ready = member.view().read(|state| state.policy().alert_webhook.is_some());
        match stage.phase() {
            Phase::Healed => return,
            _ if stage.plan.steady => return,
            Phase::Chaos if member.member_id() != 0 && ready && stage.plan.faults.swarms => {
                act(&stage, &member, &mut held).await;
            }
            Phase::Founding | Phase::Chaos => {}
        }
    }
}

async fn act(stage: &Stage, member: &Cluster, held: &mut Vec<Held>) {
    let random = clock::random();
    let swarms: Vec<DerivedId> = member
        .view()
        .read(|state| state.swarms_after(0).map(|(number, _)| state.swarm_id(number)).collect());
    let chosen = swarms.get((random >> 32) as usize % swarms.len().max(1)).copied();
    match (random % 100, chosen) {
        (0..9, _) if swarms.len() < SWARMS => create(stage, member).await,
        (0..12, Some(swarm)) => scale(stage, member, swarm).await,
        (12..14, Some(swarm)) => remove(stage, member, swarm).await,
        (14..17, Some(swarm)) => remove_bot(stage, member, swarm).await,
        (17..20, _) => create_bot(stage, member).await,
        (20..30, Some(swarm)) => assign(stage, member, swarm).await,
        (30..57, Some(swarm)) => lease(stage, member, swarm, held).await,
        (57..88, _) => finish(stage, member, held).await,
        (88..90, _) => {
            // It dies: what it held runs out.
            for one in held.drain(..) {
                stage.invariants.let_go((one.place, one.attempt), now());
            }
        }
        (90..97, _) => begin_workflow(stage, member).await,
        _ => cancel_workflow(stage, member).await,
    }
}

/// Proposes, and now and then the same request again once it was answered: the answer stays.
async fn ask(
    stage: &Stage,
    member: &Cluster,
    command: BotCommand,
) -> Result<(u64, Reply), ProposeError> {
    let (request_id, command) = (clock::mint_request_id(), Command::Bot(Box::new(command)));
    let told = member.propose(request_id, "keeper of bots", command.clone()).await?;
    if stage.plan.faults.retries && clock::random().is_multiple_of(4) {
        let again = member.propose(request_id, "keeper of bots", command.clone()).await;
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
fn odd(stage: &Stage, what: &str, reply: &Reply) {
    stage.book().violation("bots are answered", &format!("{what}: {reply:?}"));
}

fn spec() -> BotSpec {
    let tier = ["standard", "advanced", "L20"][(clock::random() % 3) as usize];
    BotSpec { tier: tier.to_owned(), ..BotSpec::default() }
}

async fn create(stage: &Stage, member: &Cluster) {
    let asked = 1 + (clock::random() % BOTS) as u32;
    match ask(stage, member, BotCommand::CreateSwarm { spec: spec(), count: asked }).await {
        Ok((_, Ok(Outcome::Bot(BotOutcome::SwarmCreated { count, .. })))) if count <= asked => {
            stage.book().cover(if count < asked { "swarms_cut" } else { "swarms_created" });
        }
        Ok((_, Err(Rejection::Bot(BotRejection::SwarmCapacity)))) => {
            stage.book().cover("swarms_refused");
        }
        Ok((_, other)) => odd(stage, "a swarm", &other),
        Err(_) => {}
    }
}

async fn create_bot(stage: &Stage, member: &Cluster) {
    match ask(stage, member, BotCommand::CreateBot(spec())).await {
        Ok((_, Ok(Outcome::Bot(BotOutcome::BotCreated { bot })))) => {
            let work = BotWork { data: "1".to_owned(), ..BotWork::default() };
            drop(ask(stage, member, BotCommand::AssignBot { bot, work }).await);
        }
        Ok((_, Err(Rejection::Bot(BotRejection::BotCapacity { .. })))) => {
            stage.book().cover("bots_refused");
        }
        Ok((_, other)) => odd(stage, "a bot", &other),
        Err(_) => {}
    }
}

async fn scale(stage: &Stage, member: &Cluster, swarm: DerivedId) {
    let count = (clock::random() % BOTS) as u32;
    match ask(stage, member, BotCommand::ScaleSwarm { swarm, count }).await {
        Ok((_, Ok(Outcome::Bot(BotOutcome::SwarmScaled { .. })))) => {
            stage.book().cover("swarms_scaled");
        }
        Ok((_, Err(Rejection::Bot(_)))) | Err(_) => {}
        Ok((_, other)) => odd(stage, "a scaling", &other),
    }
}

async fn remove(stage: &Stage, member: &Cluster, swarm: DerivedId) {
    match ask(stage, member, BotCommand::RemoveSwarm { swarm }).await {
        Ok((_, Ok(Outcome::Done))) => stage.book().cover("swarms_removed"),
        Ok((_, Err(Rejection::Bot(BotRejection::SwarmNotFound { .. })))) | Err(_) => {}
        Ok((_, other)) => odd(stage, "a removal", &other),
    }
}

/// Removes a member of a swarm, or a bot of none: what a member had goes to the others.
async fn remove_bot(stage: &Stage, member: &Cluster, swarm: DerivedId) {
    let random = clock::random();
    let chosen = member.view().read(|state| {
        let number = if random.is_multiple_of(4) { 0 } else { state.swarm_number(swarm)? };
        let place = BotPlace { swarm: number, index: (random >> 8) as u32 % 50 };
        state.has_bot(place).then(|| state.bot_id(place))
    });
    let Some(bot) = chosen else { return };
    match ask(stage, member, BotCommand::RemoveBot { bot }).await {
        Ok((_, Ok(Outcome::Done))) => stage.book().cover("bots_removed"),
        Ok((_, Err(Rejection::Bot(BotRejection::BotNotFound { .. })))) | Err(_) => {}
        Ok((_, other)) => odd(stage, "a removal", &other),
    }
}

/// Work of two types, and of none.
fn types() -> [Option<String>; 3] {
    [Some("work".to_owned()), Some("rare".to_owned()), None]
}

async fn assign(stage: &Stage, member: &Cluster, swarm: DerivedId) {
    let task_type = types()[(clock::random() % 3) as usize].clone();
    let work = BotWork { task_type, data: "{}".to_owned() };
    match ask(stage, member, BotCommand::AssignSwarm { swarm, work }).await {
        Ok((_, Ok(Outcome::Bot(BotOutcome::Assigned { .. })))) => {
            stage.book().cover("swarms_assigned");
        }
        Ok((_, Err(Rejection::Bot(_)))) | Err(_) => {}
        Ok((_, other)) => odd(stage, "work", &other),
    }
}

/// Some neighbouring members of a swarm, who pull their own.
fn some_bots(member: &Cluster, swarm: DerivedId) -> Option<LeaseScope> {
    let bots = member.view().read(|state| {
        let number = state.swarm_number(swarm)?;
        let from = (clock::random() % BOTS) as u32;
        let bots = state.members_of(number, from).take(5).map(|bot| state.bot_id(bot));
        Some(bots.collect::<Vec<_>>())
    });
    bots.filter(|bots| !bots.is_empty()).map(LeaseScope::Bots)
}

async fn lease(stage: &Stage, member: &Cluster, swarm: DerivedId, held: &mut Vec<Held>) {
    let lease_ms = 200 + clock::random() % 3000;
    let scope = match clock::random() % 3 {
        0 => some_bots(member, swarm),
        _ => None,
    };
    let command = BotCommand::LeaseAssignments {
        holder: format!("w{}", stage.next_serial()),
        scope: scope.unwrap_or_else(|| LeaseScope::Swarms(vec![swarm])),
        max: 1 + (clock::random() % 20) as u32,
        lease_ms,
        types: types().into_iter().take((clock::random() % 4) as usize).collect(),
    };
    let until = now() + Duration::from_millis(lease_ms);
    let (index, runs) = match ask(stage, member, command).await {
        Ok((index, Ok(Outcome::Bot(BotOutcome::Leased { runs, .. })))) => (index, runs),
        // What it may have been given runs out.
        Ok((
            _,
            Err(Rejection::Bot(
                BotRejection::SwarmNotFound { .. } | BotRejection::BotNotFound { .. },
            )),
        ))
        | Err(_) => return,
        Ok((_, other)) => return odd(stage, "a lease", &other),
    };
    for LeasedRun { first, count, attempt } in runs {
        for index_in_wave in first.index..first.index + count {
            let place = AssignmentPlace { index: index_in_wave, ..first };
            let (task, bot) = member.view().read(|state| {
                let view = state.assignment(place);
                let leased = view.filter(|view| {
                    view.lease().is_some()
                        && view.progress.is_some_and(|row| row.attempt == attempt)
                });
                (state.assignment_id(place), leased.and_then(|view| view.bot_id))
            });
            held.push(Held { place, task, attempt, bot });
            stage.invariants.leased(index, (place, attempt), (now(), until));
        }
    }
}

async fn finish(stage: &Stage, member: &Cluster, held: &mut Vec<Held>) {
    let some = held.len().min(1 + (clock::random() % 12) as usize);
    if some == 0 {
        return;
    }
    let items: Vec<Held> = held.drain(..some).collect();
    let leases = || items.iter().map(|one| LeaseRef { task: one.task, attempt: one.attempt });
    let how = clock::random() % 10;
    let reports = |text: &str| {
        let report = |one: &Held| BotReport {
            task: one.task,
            bot: one.bot.filter(|_| clock::random().is_multiple_of(2)),
            attempt: Some(one.attempt),
            text: text.to_owned(),
            permanent: clock::random().is_multiple_of(3),
        };
        items.iter().map(report).collect::<Vec<_>>()
    };
    let command = match how {
        0..7 => BotCommand::CompleteAssignments { items: reports("1") },
        7 => BotCommand::FailAssignments { items: reports("no") },
        8 => BotCommand::ReleaseLeases { leases: leases().collect() },
        _ => {
            // The log keeps the shorter time, which is right for whoever dies meanwhile.
            let leases = leases().collect();
            drop(ask(stage, member, BotCommand::RenewLeases { leases, lease_ms: 3000 }).await);
            held.extend(items);
            return;
        }
    };
    for one in &items {
        stage.invariants.let_go((one.place, one.attempt), now());
    }
    // Until it is answered nobody knows, also when the power goes meanwhile.
    let unknown = if how < 7 { items.len() as u64 } else { 0 };
    stage.invariants.completes(unknown);
    let told = ask(stage, member, command).await;
    if matches!(told, Ok(_) | Err(ProposeError::NotStarted { .. })) {
        stage.invariants.knows_of_completions(unknown);
    }
    match told {
        Ok((index, Ok(Outcome::Bot(BotOutcome::Judged { verdicts })))) => {
            let accepted = items.iter().zip(&verdicts);
            let accepted = accepted.filter(|(_, verdict)| **verdict == Verdict::Accepted);
            for (one, _) in accepted.filter(|_| how < 7) {
                stage.book().cover("assignments_completed");
                stage.invariants.completed(index, (one.place, one.attempt));
            }
        }
        Ok((_, other)) => odd(stage, "a batch", &other),
        Err(_) => {}
    }
}

async fn begin_workflow(stage: &Stage, member: &Cluster) {
    let made = member.view().read(|state| state.bot_totals().workflows);
    if made >= WORKFLOWS {
        return;
    }
    let step = |_| WorkflowStep {
        task_type: TYPES[(clock::random() % 4) as usize].to_owned(),
        params: "{}".to_owned(),
    };
    let tasks = (0..1 + clock::random() % 4).map(step).collect();
    let command = BotCommand::CreateWorkflow { tasks, priority: "normal".to_owned() };
    match ask(stage, member, command).await {
        Ok((_, Ok(Outcome::Bot(BotOutcome::WorkflowCreated { .. })))) => {
            stage.book().cover("workflows");
        }
        Ok((_, other)) => odd(stage, "a workflow", &other),
        Err(_) => {}
    }
}

async fn cancel_workflow(stage: &Stage, member: &Cluster) {
    let chosen = member.view().read(|state| {
        let newest = state.running_workflows().last();
        newest.map(|(number, _)| state.workflow_id(number))
    });
    let Some(workflow) = chosen else { return };
    match ask(stage, member, BotCommand::CancelWorkflow { workflow }).await {
        Ok((_, Ok(Outcome::Done))) => stage.book().cover("workflows_cancelled"),
        Ok((_, Err(Rejection::Bot(BotRejection::WorkflowEnded)))) | Err(_) => {}
        Ok((_, other)) => odd(stage, "a cancel", &other),
    }
}

/// Whether a URL leads to a service.
pub(crate) fn is_service(url: &str) -> bool {
    Service::ALL.iter().any(|service| url.starts_with(service.default_url()))
}

/// A service takes a call, or does not.
pub(crate) async fn serve(stage: Stage, call: Call) -> Result<Answer, CallError> {
    pause(1, 20).await;
    let key = call.headers.iter().find(|(name, _)| *name == "idempotency-key");
    let key = key.map_or_else(String::new, |(_, key)| key.clone());
    let behaves = !stage.plan.faults.nodes || stage.phase() == Phase::Healed;
    let dice = if behaves { 0 } else { clock::random() % 100 };
    if dice >= 90 {
        return down();
    }
    let text = format!("{{\"n\":{}}}", stage.next_serial());
    stage.invariants.served(&key, &text);
    stage.book().cover("services_called");
    match dice {
        0..60 => answer(200, text),
        60..70 => answer(503, String::new()),
        70..75 => Err(CallError::Broken("the connection broke".to_owned())),
        _late => {
            tokio::time::sleep(Duration::from_millis(500 + clock::random() % 5000)).await;
            answer(200, text)
        }
    }
}
