//! What must hold of every state, after every entry. Used by scripts and property tests.

use std::collections::BTreeMap;

use super::State;
use crate::model::TaskStatus;

/// Panics at the first invariant that does not hold.
pub(super) fn check(state: &State) {
    let mut live = BTreeMap::new();
    for task in state.tasks_after(0) {
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
    for node in state.nodes() {
        let holds = live.remove(&node.node_id).unwrap_or(0);
        assert_eq!(node.live, holds, "node {} counts its executions", node.node_id);
        assert_eq!(state.live_on(&node.node_id).len(), holds as usize);
    }
    assert!(live.is_empty(), "executions on nodes that are not there: {live:?}");
    let queued = state.queue().count() as u64;
    assert_eq!(queued, state.tasks_in(TaskStatus::Pending), "the queue holds the pending tasks");
    let counters = state.counters();
    let ended = counters.tasks_completed + counters.tasks_failed + counters.tasks_cancelled;
    let open = state.tasks_after(0).filter(|task| !task.status.is_terminal()).count() as u64;
    assert_eq!(counters.tasks_submitted, ended + open, "every task is open or was counted");
}
