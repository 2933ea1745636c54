//! Copies of one task are never under way on one node: one node that fails must not take two of them.
//!
//! Source: contract 2.8, `redundancy`; Hadoop's speculative attempts avoid the node of the first.

use std::collections::BTreeSet;

use quorate::model::FlowMode;
use quorate::state::State;

pub(super) fn check(state: &State) -> Result<(), String> {
    let mut places = BTreeSet::new();
    for copy in state.live_tasks() {
        let (Some(of), Some(execution)) = (&copy.step_of, &copy.execution) else { continue };
        let Some(task) = state.open_task(&of.task_id) else {
            return Err(format!("{} is under way, and its task is over", copy.task_id));
        };
        let copies = task.flow.as_ref().is_some_and(|flow| flow.mode == FlowMode::Copies);
        if copies && !places.insert((&of.task_id, &execution.node_id)) {
            return Err(format!("two copies of {} are on {}", of.task_id, execution.node_id));
        }
    }
    Ok(())
}
