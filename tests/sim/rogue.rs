//! What must be refused: commands of reigns that are over, as an old leader's would arrive that
//! does not know yet; and placements by a planner that does not look at what nodes can take.

use std::time::Duration;

use quorate::clock;
use quorate::cluster::Cluster;
use quorate::model::{Epoch, TaskId, TaskStatus};
use quorate::state::{Assignment, Command, ExpiryKind, TaskExpiry};

use crate::stage::{Phase, Stage};

/// Placements in one careless plan.
const PLACEMENTS: usize = 12;

pub(crate) async fn run(stage: Stage, member: Cluster) {
    loop {
        tokio::time::sleep(Duration::from_millis(50 + clock::random() % 400)).await;
        if stage.phase() != Phase::Chaos || member.member_id() == 0 {
            continue;
        }
        if clock::random().is_multiple_of(2) {
            straggle(&stage, &member).await;
        } else {
            plan_carelessly(&stage, &member).await;
        }
    }
}

/// Proposes what a leader of an earlier term planned.
async fn straggle(stage: &Stage, member: &Cluster) {
    let open = member.view().read(|state| state.epoch());
    if open.term < 2 {
        return;
    }
    let epoch = Epoch { term: open.term - 1, member: 1 + clock::random() % 3 };
    let command = match clock::random() % 3 {
        0 => Command::AssignTasks { epoch, assignments: placements(member) },
        1 => Command::RetireTasks { epoch, task_ids: ended(member) },
        _ => Command::ExpireTasks { epoch, expiries: expiries(member) },
    };
    let what = format!("{command:?}");
    let request_id = clock::mint_request_id();
    if let Ok(committed) = member.propose(request_id, "an old leader", command).await {
        stage.invariants.straggler(committed.reply.is_ok(), &what);
    }
}

/// Places many tasks on one node, on a view that other plans are made on as well.
async fn plan_carelessly(stage: &Stage, member: &Cluster) {
    let Some(term) = *member.leadership().borrow() else { return };
    let epoch = Epoch { term, member: member.member_id() };
    let assignments = placements(member);
    if assignments.is_empty() || member.view().read(|state| state.epoch()) != epoch {
        return;
    }
    stage.book().cover("careless_plans");
    // Whatever comes of it, the invariants look at the state.
    drop(member.propose_local(epoch, Command::AssignTasks { epoch, assignments }).await);
}

fn placements(member: &Cluster) -> Vec<Assignment> {
    member.view().read(|state| {
        let nodes: Vec<_> = state.holders_of_work().map(|node| node.node_id.clone()).collect();
        if nodes.is_empty() {
            return Vec::new();
        }
        let node_id = nodes[clock::random() as usize % nodes.len()].clone();
        let waiting = state.queue().take(PLACEMENTS);
        let place = |task: &quorate::model::Task| Assignment {
            task_id: task.task_id.clone(),
            seen_revision: task.revision,
            node_id: node_id.clone(),
        };
        waiting.map(place).collect()
    })
}

fn ended(member: &Cluster) -> Vec<TaskId> {
    member.view().read(|state| {
        let ended = state.tasks_by_status(TaskStatus::Completed).take(PLACEMENTS);
        ended.map(|task| task.task_id.clone()).collect()
    })
}

fn expiries(member: &Cluster) -> Vec<TaskExpiry> {
    member.view().read(|state| {
        let live = state.live_tasks().take(PLACEMENTS);
        let expire = |task: &quorate::model::Task| TaskExpiry {
            task_id: task.task_id.clone(),
            seen_revision: task.revision,
            kind: ExpiryKind::Attempt,
        };
        live.map(expire).collect()
    })
}
