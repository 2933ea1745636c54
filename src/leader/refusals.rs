//! Steps that no agent is there for: the plans of the scheduler give them back (contract 4.5).

use super::eligible::{Taken, gates};
use super::scheduler::{Plan, PlanInputs, PlanLimits};
use crate::model::Task;
use crate::state::{QueueKey, State, StepRefusal};

/// Steps given back in one plan, of all kinds.
pub(super) const REFUSALS_MAX: usize = 256;

impl Plan {
    /// Gives the first step of a group back and those behind it, as many as one plan may.
    pub(super) fn refuse<'k>(
        &mut self,
        view: &State,
        first: &Task,
        rest: impl Iterator<Item = &'k QueueKey>,
    ) {
        let left = REFUSALS_MAX - self.refusals.len();
        let steps = std::iter::once(first).chain(rest.filter_map(|key| view.queued(key)));
        self.refusals.extend(steps.take(left).map(refusal));
    }

    /// In a full fleet the next plan starts with the first group again, and would never come to those
    /// behind as long as it is full. Steps among them that no agent is there for need no place to be
    /// given back: for them alone the plans walk on.
    pub(super) fn sweep(
        &mut self,
        view: &State,
        inputs: &PlanInputs,
        limits: PlanLimits,
        taken: &Taken,
    ) {
        if inputs.rests {
            return;
        }
        let Some(from) = self.cursor.map(|cursor| inputs.swept.map_or(cursor, |at| at.max(cursor)))
        else {
            return;
        };
        let (mut last, mut looked_at) = (from, 0);
        for (head, mut keys) in view.queue_groups(Some(from)) {
            if looked_at == limits.groups_max || self.refusals.len() >= REFUSALS_MAX {
                self.swept = Some(last);
                return;
            }
            looked_at += 1;
            last = head;
            let Some(task) = keys.next().and_then(|key| view.queued(key)) else { continue };
            if let Some(gate) = gates(view, task, taken, inputs.now).next() {
                self.note(&gate);
                continue;
            }
            if is_unserved(view, task) {
                self.refuse(view, task, keys);
            }
        }
    }
}

/// Whether it is for agents and none of their kind is there, with room or without.
pub(super) fn is_unserved(view: &State, task: &Task) -> bool {
    let wanted = task.requirements.agent_type.as_ref();
    wanted.is_some_and(|agent_type| !view.has_agent(agent_type))
}

fn refusal(task: &Task) -> StepRefusal {
    StepRefusal { task_id: task.task_id.clone(), seen_revision: task.revision }
}
