//! How much of what nodes answered goes into one command: everybody waits while it is applied.

use crate::model::Task;
use crate::state::{Dispatch, DispatchResult, State, TaskOutcome};

/// The most rows that one command changes: an answer's own, and those that the end of a step may
/// open or end with it.
const RECORD_ROWS_MAX: usize = 2000;
/// A command is full at so many bytes of results, unless one alone is larger.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// How many of these go into one command, in their order: the first always does.
#[must_use]
pub(super) fn recorded_at_once(view: &State, answers: &[Dispatch]) -> usize {
    let (mut rows, mut bytes) = (0, 0);
    let fits = |dispatch: &&Dispatch| {
        rows += rows_of(view, dispatch);
        bytes += result_bytes(dispatch);
        rows <= RECORD_ROWS_MAX && bytes <= RECORD_BYTES_MAX
    };
    answers.iter().take_while(fits).count().max(1)
}

/// Rows that recording an answer may change. Where a step ends, others of its task may begin, or end
/// with it.
fn rows_of(view: &State, dispatch: &Dispatch) -> usize {
    match &dispatch.result {
        DispatchResult::Acknowledged | DispatchResult::Refused { .. } => 1,
        DispatchResult::Finished(_) => {
            let step_of = view.open_task(&dispatch.task_id).and_then(|task| task.step_of.as_ref());
            let owner = step_of.and_then(|of| view.open_task(&of.task_id));
            owner.map_or(1, Task::rows)
        }
    }
}

fn result_bytes(dispatch: &Dispatch) -> usize {
    match &dispatch.result {
        DispatchResult::Finished(TaskOutcome::Completed { result }) => result.len() + 128,
        DispatchResult::Finished(TaskOutcome::Failed { error, .. }) => error.len() + 128,
        DispatchResult::Acknowledged | DispatchResult::Refused { .. } => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::solo::Solo;
    use crate::model::{FlowMode, StepSpec, TaskId};
    use crate::state::FlowRequest;

    /// Two thousand answers were put into one command, however many steps each of them opened.
    #[test]
    fn ends_of_steps_are_counted_with_the_steps_they_may_open() {
        let solo = Solo::new();
        let step = |place: u16| StepSpec {
            name: format!("s{place}"),
            agent_type: "alpha".to_owned(),
            depends_on: (0..place.min(1)).collect(),
            ..StepSpec::default()
        };
        for number in 0..40 {
            solo.submit(&format!("t{number}"), |spec| {
                let steps = (0..64).map(step).collect();
                spec.flow = Some(FlowRequest::Steps { mode: FlowMode::Graph, steps });
            });
            solo.submit(&format!("plain{number}"), |_| {});
        }
        let outcome = TaskOutcome::Completed { result: "{}".to_owned() };
        let answers = |name: &str, result: &DispatchResult| -> Vec<Dispatch> {
            let task_id = |number| TaskId::trusted(&name.replace('*', &format!("{number}")));
            let answer = |number| Dispatch {
                task_id: task_id(number % 40),
                attempt: 1,
                again: false,
                result: result.clone(),
            };
            (0..3000).map(answer).collect()
        };
        let finished = DispatchResult::Finished(outcome);
        let at_once = |answers: Vec<Dispatch>| recorded_at_once(&solo.state.read(), &answers);
        assert_eq!(at_once(answers("t*#0", &finished)), 2000 / 65);
        assert_eq!(at_once(answers("t*#0", &DispatchResult::Acknowledged)), 2000);
        assert_eq!(at_once(answers("plain*", &finished)), 2000);
        let large = TaskOutcome::Completed { result: "x".repeat(2 << 20) };
        assert_eq!(at_once(answers("plain*", &DispatchResult::Finished(large))[..2].to_vec()), 1);
    }
}
