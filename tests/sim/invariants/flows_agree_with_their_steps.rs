//! A task in steps is over exactly when its steps say so, and says of each of them what the step's own
//! task says; nothing of it is left open when it has ended.
//!
//! Source: contract 4.5; docs/architecture.md, "state".

use quorate::model::{Flow, FlowMode, StepState, Task, TaskStatus};
use quorate::state::State;

/// At any index: no step outlives its task.
pub(super) fn check(state: &State) -> Result<(), String> {
    for step in state.open_steps() {
        let task = step.step_of.as_ref().and_then(|of| state.open_task(&of.task_id));
        if task.is_none() {
            return Err(format!("{} is open, and its task is not", step.task_id));
        }
    }
    Ok(())
}

/// When nothing is under way any more.
pub(super) fn check_end(state: &State) -> Result<(), String> {
    for task in state.tasks_after(0) {
        if let Some(flow) = &task.flow {
            agrees(state, &task, flow)
                .map_err(|what| format!("{} ({:?}): {what}", task.task_id, task.status))?;
        }
    }
    Ok(())
}

fn agrees(state: &State, task: &Task, flow: &Flow) -> Result<(), String> {
    if !task.status.is_terminal() {
        return Err("it never ended".to_owned());
    }
    for (place, step) in (0u16..).zip(&flow.steps) {
        let own = state.step_task(&task.task_id, place).map(|own| own.status);
        let agree = match step.state {
            StepState::Waiting | StepState::Open => false,
            StepState::Completed => own == Some(TaskStatus::Completed),
            StepState::Failed => own.is_some_and(|own| {
                use TaskStatus::{DeadLetter, Failed, TimedOut};
                matches!(own, Failed | DeadLetter | TimedOut)
            }),
            StepState::Cancelled => own.is_none_or(|own| own == TaskStatus::Cancelled),
        };
        if !agree {
            return Err(format!("step {place} is {:?}, its own task {own:?}", step.state));
        }
    }
    let done = flow.steps.iter().filter(|step| step.state == StepState::Completed).count();
    let last_is_done = flow.steps.last().is_some_and(|step| step.state == StepState::Completed);
    let enough = match flow.mode {
        FlowMode::Sequential | FlowMode::Graph => done == flow.steps.len(),
        FlowMode::Parallel | FlowMode::Copies => done > 0,
        FlowMode::Hybrid => last_is_done,
    };
    match task.status {
        TaskStatus::Completed if !enough => Err(format!("only {done} steps ended well")),
        TaskStatus::Failed | TaskStatus::DeadLetter if enough => Err("its work is done".to_owned()),
        _ => Ok(()),
    }
}
