//! Who looks after the fleet: drains nodes and puts them back or takes them out, pauses placing and goes
//! on, has dead letters tried again, and raises, acknowledges and ends alerts as several leaders in a
//! row would.

use std::time::Duration;

use quorate::clock;
use quorate::cluster::Cluster;
use quorate::model::{AlertState, Epoch, NodeId, NodeStatus, Severity, TaskId, TaskStatus};
use quorate::state::{AlertChange, Command, Outcome, Reply, State};

use crate::stage::{Phase, Stage};

/// Dead letters put back at once.
const REPLAYS: usize = 4;
/// Alerts of a run.
const ALERTS: [&str; 2] = ["heat_threshold", "noise_threshold"];
/// Where the configuration says that nothing is placed.
const PAUSED: &str = "orchestrator.scheduling_paused";

pub(crate) async fn run(stage: Stage, member: Cluster) {
    loop {
        tokio::time::sleep(Duration::from_millis(60 + clock::random() % 200)).await;
        // Before the configuration of this run is there, nobody changes it.
        let ready = member.view().read(|state| state.policy().alert_webhook.is_some());
        if member.member_id() == 0 || !ready {
            continue;
        }
        match stage.phase() {
            Phase::Founding => {}
            Phase::Chaos if stage.plan.faults.keeper => act(&stage, &member).await,
            Phase::Chaos => alert(&stage, &member).await,
            Phase::Healed => {
                start(&stage, &member).await;
                put_back(&stage, &member).await;
            }
        }
    }
}

async fn act(stage: &Stage, member: &Cluster) {
    match clock::random() % 100 {
        0..4 => pause(stage, member, true).await,
        4..16 => start(stage, member).await,
        16..22 => drain(stage, member).await,
        22..26 => take_out(stage, member).await,
        26..48 => put_back(stage, member).await,
        48..70 => replay(stage, member).await,
        70..90 => alert(stage, member).await,
        _ => acknowledge(stage, member).await,
    }
}

async fn pause(stage: &Stage, member: &Cluster, paused: bool) {
    let (path, value) = (PAUSED.to_owned(), paused.to_string());
    let command = Command::PatchConfig { path, value: value.clone(), expected_revision: None };
    let covers = if paused { "pauses" } else { "starts" };
    if let Some(Ok(Outcome::ConfigPatched { revision })) =
        propose(stage, member, covers, command).await
    {
        stage.invariants.set(revision, PAUSED, &value);
    }
}

async fn propose(
    stage: &Stage,
    member: &Cluster,
    covers: &'static str,
    command: Command,
) -> Option<Reply> {
    let request_id = clock::mint_request_id();
    let done = member.propose(request_id, "keeper", command).await.ok()?.reply;
    match &done {
        Ok(Outcome::Judged { accepted, .. }) => {
            stage.book().cover_many(covers, u64::from(*accepted));
        }
        Ok(_) => stage.book().cover(covers),
        Err(_) => {}
    }
    Some(done)
}

async fn start(stage: &Stage, member: &Cluster) {
    if member.view().read(|state| state.policy().paused) {
        pause(stage, member, false).await;
    }
}

async fn drain(stage: &Stage, member: &Cluster) {
    let nodes: Vec<NodeId> = member
        .view()
        .read(|state| state.holders_of_work().map(|node| node.node_id.clone()).collect());
    if nodes.is_empty() {
        return;
    }
    let node_id = nodes[clock::random() as usize % nodes.len()].clone();
    let within_ms = clock::random() % 1500;
    propose(stage, member, "drains", Command::DrainNode { node_id, within_ms }).await;
}

/// Takes out one that is at work, an agent with its steps rather than a node. As long as it sends
/// heartbeats it registers again.
async fn take_out(stage: &Stage, member: &Cluster) {
    let busy: Vec<NodeId> = member.view().read(|state| {
        let agents = state.agents().chain(state.nodes());
        agents.filter(|node| node.live > 0).map(|node| node.node_id.clone()).collect()
    });
    let Some(node_id) = busy.first().cloned() else { return };
    stage.invariants.takes_out(&node_id);
    propose(stage, member, "taken_out_at_work", Command::RemoveNode { node_id }).await;
}

async fn put_back(stage: &Stage, member: &Cluster) {
    let drained = |state: &State| {
        let mut nodes = state.holders_of_work();
        let drained = nodes.find(|node| node.status == NodeStatus::Maintenance);
        drained.map(|node| node.node_id.clone())
    };
    let Some(node_id) = member.view().read(drained) else { return };
    let status = NodeStatus::Active;
    propose(stage, member, "put_back", Command::SetNodeStatus { node_id, status }).await;
}

async fn replay(stage: &Stage, member: &Cluster) {
    let task_ids: Vec<TaskId> = member.view().read(|state| {
        let dead = state.tasks_by_status(TaskStatus::DeadLetter);
        dead.filter(|task| task.step_of.is_none())
            .take(REPLAYS)
            .map(|task| task.task_id.clone())
            .collect()
    });
    if !task_ids.is_empty() {
        propose(stage, member, "replays", Command::ReplayTasks { task_ids }).await;
    }
}

/// What the watch of a leader proposes when a figure crosses a line; others do the same meanwhile.
async fn alert(stage: &Stage, member: &Cluster) {
    let Some(term) = *member.leadership().borrow() else { return };
    let epoch = Epoch { term, member: member.member_id() };
    let random = clock::random();
    let alert_id = ALERTS[random as usize % ALERTS.len()].to_owned();
    let change = member.view().read(|state| {
        let known = state.alert(&alert_id);
        let is_on = known.is_some_and(|alert| alert.state != AlertState::Resolved);
        let resolves = is_on && (random >> 8).is_multiple_of(2);
        let grave = (random >> 16).is_multiple_of(2);
        AlertChange {
            seen_transitions: known.map_or(0, |alert| alert.transitions),
            metric: alert_id.trim_end_matches("_threshold").to_owned(),
            severity: if grave { Severity::Critical } else { Severity::Warning },
            state: if resolves { AlertState::Resolved } else { AlertState::Active },
            value_milli: random >> 32,
            threshold_milli: 1000,
            message: "by the simulation".to_owned(),
            alert_id,
        }
    });
    let command = Command::RecordAlerts { epoch, changes: vec![change.clone()] };
    if let Ok(committed) = member.propose_local(epoch, command.clone()).await
        && committed.reply == Ok(Outcome::Judged { accepted: 1, stale: 0 })
    {
        stage.book().cover("alerts");
        // A second planner has seen what the first one saw.
        let again = member.propose_local(epoch, command).await;
        if again.is_ok_and(|again| again.reply != Ok(Outcome::Judged { accepted: 0, stale: 1 })) {
            stage.book().violation("alerts are told once", &format!("twice: {change:?}"));
        }
    }
}

async fn acknowledge(stage: &Stage, member: &Cluster) {
    let on = member.view().read(|state| {
        let mut alerts = state.alerts();
        let on = alerts.find(|alert| alert.state == AlertState::Active);
        on.map(|alert| alert.alert_id.clone())
    });
    let Some(alert_id) = on else { return };
    let by = "keeper".to_owned();
    propose(stage, member, "acknowledged", Command::AcknowledgeAlert { alert_id, by }).await;
}
