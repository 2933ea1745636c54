//! A step that has ended well is never done again: no agent is called for it, whoever leads. What an
//! agent gave for the attempt that ended it is what it keeps, and the steps after it work on that.
//!
//! Source: issue 4, "a step that finished is not run again"; contract 4.5; Temporal and Cadence keep
//! what an activity gave in the history for the same reason.

use std::collections::{BTreeMap, BTreeSet};

use quorate::leader::AgentCall;
use quorate::model::{FlowMode, TaskId, TaskStatus};
use quorate::state::{Fact, FlowRequest, State, TaskSpec, is_step_id, step_id};

use super::flows_keep_their_definition::Held;
use crate::agents::result_of;

#[derive(Default)]
pub(super) struct Steps {
    /// Steps that some member has applied the good end of.
    finished: BTreeSet<TaskId>,
    /// How often each attempt was begun: more than once when the leader changed meanwhile.
    calls: BTreeMap<String, u32>,
}

impl Steps {
    pub(super) fn note(&mut self, fact: &Fact) {
        if let Fact::TaskEnded { task_id, status: TaskStatus::Completed, .. } = fact
            && is_step_id(task_id)
        {
            self.finished.insert(task_id.clone());
        }
    }

    /// An agent is called; says whether for the first time.
    pub(super) fn called(
        &mut self,
        call: &AgentCall,
        spec: Option<&TaskSpec>,
        held: Option<&Held>,
    ) -> Result<bool, String> {
        let attempt = &call.agent_task_id;
        let (step, _) = attempt.rsplit_once('@').ok_or("a call names no attempt")?;
        let (task, place) = step.rsplit_once('#').ok_or("a call names no step")?;
        if task != call.task_id {
            return Err(format!("{attempt} was called for {}", call.task_id));
        }
        if self.finished.contains(&TaskId::trusted(step)) {
            return Err(format!("{attempt} was begun after the step had ended well"));
        }
        let place: u16 = place.parse().map_err(|_| "a step has no number")?;
        let task = TaskId::trusted(task);
        for on in spec.map(|spec| needs(spec, held, place)).unwrap_or_default() {
            let on = step_id(&task, on);
            if !self.finished.contains(&on) || !call.inputs.contains(&format!("\"{on}@")) {
                return Err(format!("{attempt} was begun without what {on} gave: {}", call.inputs));
            }
        }
        let calls = self.calls.entry(attempt.clone()).or_default();
        *calls += 1;
        Ok(*calls == 1)
    }
}

/// The steps whose results a step cannot do without. In a hybrid flow some of the first may fail.
fn needs(spec: &TaskSpec, held: Option<&Held>, place: u16) -> Vec<u16> {
    let (mode, steps) = match (&spec.flow, held) {
        (Some(FlowRequest::Steps { mode, steps }), _) => (mode, steps),
        (Some(FlowRequest::Pipeline { .. }), Some((mode, steps))) => (mode, steps),
        _ => return Vec::new(),
    };
    match mode {
        FlowMode::Sequential => (place.saturating_sub(1)..place).collect(),
        FlowMode::Graph => {
            steps.get(usize::from(place)).map(|step| step.depends_on.clone()).unwrap_or_default()
        }
        FlowMode::Parallel | FlowMode::Hybrid | FlowMode::Copies => Vec::new(),
    }
}

/// In the end each step by an agent that ended well has what the agent gave for its last attempt.
pub(super) fn check(state: &State) -> Result<(), String> {
    for step in state.tasks_by_status(TaskStatus::Completed) {
        if step.step_of.is_none() || step.requirements.agent_type.is_none() {
            continue;
        }
        let gave = result_of(&format!("{}@{}", step.task_id, step.attempt));
        if step.result != quorate::model::Payload::inline(gave) {
            let (id, attempt, result) = (&step.task_id, step.attempt, &step.result);
            return Err(format!("attempt {attempt} of {id} ended it with {result:?}"));
        }
    }
    Ok(())
}
