//! No node and no agent holds more executions than it said it can take, its count is the number of
//! executions that name it, and none names one that is not registered. (Nodes of the simulation never
//! shrink.)
//!
//! Source: docs/architecture.md, "state"; Amazon and Kubernetes both count capacity at the
//! scheduler and again where it is taken, because the scheduler's view may be old.

use std::collections::BTreeMap;

use quorate::state::State;

pub(super) fn check(state: &State) -> Result<(), String> {
    let mut live: BTreeMap<&str, u32> = BTreeMap::new();
    for task in state.live_tasks() {
        if let Some(execution) = &task.execution {
            *live.entry(execution.node_id.as_str()).or_default() += 1;
        }
    }
    for node in state.holders_of_work() {
        let counted = live.remove(node.node_id.as_str()).unwrap_or(0);
        if node.live != counted {
            return Err(format!("{} says {} and holds {counted}", node.node_id, node.live));
        }
        if node.live > node.capacity {
            let (live, capacity) = (node.live, node.capacity);
            return Err(format!("{} holds {live} of at most {capacity}", node.node_id));
        }
    }
    if live.is_empty() { Ok(()) } else { Err(format!("work is with those not there: {live:?}")) }
}
