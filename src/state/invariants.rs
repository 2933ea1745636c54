//! What must hold of every state, after every entry. Used by scripts and property tests.

use std::collections::BTreeMap;

use super::State;
use crate::model::{DeliveryState, Lane, StepState, Task, TaskStatus};

/// Panics at the first invariant that does not hold.
pub(super) fn check(state: &State) {
    let mut live = BTreeMap::new();
    for task in state.rows_after(0) {
        check_steps(state, &task);
        assert_eq!(task.status.is_live(), task.execution.is_some(), "{task:?}");
        assert!(task.retry_count <= task.max_retries, "{task:?}");
        assert!(task.attempt as usize >= usize::from(task.execution.is_some()), "{task:?}");
        assert_eq!(task.status.is_terminal(), task.completed_at_ms > 0, "{task:?}");
        if let Some(execution) = &task.execution {
            assert_eq!(execution.attempt, task.attempt, "a live execution is the newest try");
            assert!(execution.epoch <= state.epoch(), "nothing is placed by a reign to come");
            *live.entry(execution.node_id.clone()).or_insert(0u32) += 1;
        }
    }
    for node in state.holders_of_work() {
        let holds = live.remove(&node.node_id).unwrap_or(0);
        assert_eq!(node.live, holds, "node {} counts its executions", node.node_id);
        assert!(node.losing.is_none() || !node.takes_work(), "node {} gets work", node.node_id);
        assert_eq!(state.live_on(&node.node_id).len(), holds as usize);
    }
    assert!(
        state.holders_of_work().filter(|node| node.is_agent()).eq(state.agents()),
        "the agents among the nodes are known"
    );
    assert_eq!(state.nodes_len(), state.nodes().count(), "nodes are counted");
    assert!(live.is_empty(), "executions on nodes that are not there: {live:?}");
    let queued = state.queue().count();
    let pending = state.rows_after(0).filter(|task| task.status == TaskStatus::Pending).count();
    assert_eq!(queued, pending, "the queue holds the pending tasks");
    let heads = state.queue_groups(None).map(|((key, _), mut keys)| (key, keys.next().copied()));
    let heads: Vec<_> = heads.collect();
    assert!(heads.iter().all(|(key, first)| Some(*key) == *first), "groups go by their first");
    assert!(state.queue_groups(None).map(|(head, _)| head).is_sorted(), "and are in order");
    check_waiting_steps(state);
    check_keys(state);
    assert_eq!(state.check_rates(), Ok(()));
    assert_eq!(super::check_campaigns(state), Ok(()));
    assert_eq!(super::check_bots(state), Ok(()));
    assert_eq!(state.account_names_len(), 2 * state.accounts_len(), "names lead to accounts");
    let due = state.deliveries().filter(|delivery| delivery.state == DeliveryState::Due).count();
    assert_eq!(due, state.due_deliveries_len(), "what is due is known");
    let lanes = [Lane::Notices, Lane::Callbacks];
    let lines = lanes.into_iter().flat_map(|lane| state.due_lines(lane));
    assert_eq!(due, lines.map(|(_, line)| line.count()).sum::<usize>(), "and waits in one line");
    let told = state.told_ends().filter_map(|(_, seq)| state.task_at(seq));
    let ended = state.ended_keys(None, false).filter_map(|(_, seq)| state.task_at(seq));
    assert!(
        told.map(|task| task.seq)
            .eq(ended.filter(|task| !state.is_untold(&task.task_id)).map(|task| task.seq)),
        "ends that were told are known"
    );
    let counters = state.counters();
    let ended = counters.tasks_completed + counters.tasks_failed + counters.tasks_cancelled;
    let open = state.tasks_after(0).filter(|task| !task.status.is_terminal()).count() as u64;
    assert_eq!(counters.tasks_submitted, ended + open, "every task is open or was counted");
}

/// Steps that wait are known, with a row or without.
fn check_waiting_steps(state: &State) {
    let rows = state.open_steps().filter(|step| step.execution.is_none()).count();
    let flows = state.tasks_after(0).filter(|task| !task.status.is_terminal());
    let waits = |step: &&crate::model::Step| step.state == StepState::Waiting;
    let unopened =
        flows.filter_map(|task| Some(task.flow.as_ref()?.steps.iter().filter(waits).count()));
    let told = state.told_ends().filter_map(|(_, seq)| Some(state.task_at(seq)?.rows()));
    assert_eq!(state.told_rows(), told.sum::<usize>(), "what may be deleted is counted");
    assert_eq!(state.waiting_steps_len(), (rows + unopened.sum::<usize>()) as u64, "steps wait");
}

/// A task in steps and its steps agree about each other.
fn check_steps(state: &State, task: &Task) {
    if let Some(of) = &task.step_of {
        let owner = state.task(&of.task_id).expect("a step has its task");
        let step = &owner.flow.as_ref().expect("whose task has a flow").steps[usize::from(of.step)];
        assert_eq!(step.state == StepState::Open, !task.status.is_terminal(), "{task:?}");
        assert_eq!(step.state == StepState::Completed, task.status == TaskStatus::Completed);
        return;
    }
    let in_steps = matches!(task.status, TaskStatus::Waiting | TaskStatus::Stepping);
    let Some(flow) = &task.flow else {
        return assert!(!in_steps, "only flows go in steps: {task:?}");
    };
    assert!(in_steps || task.status.is_terminal(), "{task:?}");
    let open = flow.steps.iter().filter(|step| step.state == StepState::Open).count();
    assert_eq!(open > 0, in_steps, "it goes on as long as a step is open: {task:?}");
    for (place, step) in (0u16..).zip(&flow.steps) {
        let row = state.step_task(&task.task_id, place);
        assert!(row.is_some() || step.state != StepState::Open, "an open step has a row");
        let open = row.filter(|row| !row.status.is_terminal());
        let tried = open.is_some_and(|row| !row.assigned_nodes.is_empty());
        assert!(!tried || task.status != TaskStatus::Waiting, "a tried step began it: {task:?}");
    }
}

/// Never more tasks of a key than any of them allows when it began.
fn check_keys(state: &State) {
    let mut holders = BTreeMap::new();
    for task in state.tasks_after(0).filter(|task| task.holds_place()) {
        if let Some(limit) = &task.concurrency {
            holders.entry(limit.key.clone()).or_insert_with(Vec::new).push(limit.max as usize);
        }
    }
    for (key, limits) in holders {
        assert_eq!(limits.len(), state.holders(&key), "the index of key {key}");
        let loosest = limits.iter().max().copied().unwrap_or(0);
        assert!(limits.len() <= loosest, "{} tasks of {key}: {limits:?}", limits.len());
    }
}
