//! A request takes effect once however often it is sent: every answer to it is the first one, and
//! no request makes two tasks.
//!
//! Source: design, "exactly once from the client's view"; TiDB 2.1.7 lost updates by retries.

use std::collections::{BTreeMap, BTreeSet};

use quorate::model::{TaskId, TaskStatus};
use quorate::state::{Command, Fact, FlowRequest, TaskSpec};

use super::events_are_the_same::Events;
use super::{Submissions, Told};

/// Takes the answer to a submission and holds it against earlier ones.
pub(super) fn answered(
    submissions: &mut Submissions,
    marker: &str,
    told: Told,
) -> Result<(), String> {
    let Submissions { all, acknowledged, .. } = submissions;
    let Some(submission) = all.get_mut(marker) else {
        return Err(format!("{marker} was answered, and nobody submitted it"));
    };
    submission.in_flight -= 1;
    submission.maybe |= told == Told::Unknown;
    match (&submission.told, &told) {
        (_, Told::Acknowledged { duplicate: true, task_id, index }) => Err(format!(
            "{task_id} was acknowledged at {index} as a duplicate: it was applied twice"
        )),
        (Told::Acknowledged { task_id, .. }, Told::Acknowledged { task_id: other, index, .. }) => {
            if task_id == other {
                return Ok(());
            }
            Err(format!("{marker} was answered with {task_id}, and at {index} with {other}"))
        }
        (Told::Acknowledged { .. }, Told::Refused) | (Told::Refused, Told::Acknowledged { .. }) => {
            Err(format!("{marker} was answered with {:?}, then with {told:?}", submission.told))
        }
        // What a retry was told says nothing of the first try.
        (_, Told::Unknown)
        | (Told::Acknowledged { .. } | Told::Refused, Told::NotStarted | Told::Refused) => Ok(()),
        (_, Told::Refused) => {
            let Command::SubmitTasks(specs) = &submission.command else { return Ok(()) };
            let piped = |spec: &TaskSpec| matches!(spec.flow, Some(FlowRequest::Pipeline { .. }));
            submission.told = told;
            if specs.iter().any(piped) {
                return Ok(());
            }
            Err(format!("{marker} was refused, and follows no pipeline"))
        }
        (_, Told::Acknowledged { .. }) => {
            acknowledged.push(marker.to_owned());
            submission.told = told;
            Ok(())
        }
        (_, Told::NotStarted) => {
            if submission.in_flight == 0 && !submission.maybe {
                submission.told = told;
            }
            Ok(())
        }
    }
}

pub(super) fn check(
    submissions: &Submissions,
    tasks: &BTreeMap<String, Vec<TaskId>>,
) -> Result<(), String> {
    for (marker, submission) in &submissions.all {
        let ids = tasks.get(marker).map_or(&[][..], Vec::as_slice);
        if submission.named && ids.iter().any(|id| id.as_str() != marker) {
            return Err(format!("{marker} was named by its client and is called {ids:?}"));
        }
    }
    Ok(())
}

/// No task is submitted twice in the log, but for dead letters that are tried again, and none is acknowledged before it is there.
pub(super) fn check_events(submissions: &Submissions, events: &Events) -> Result<(), String> {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let mut dead: BTreeSet<&str> = BTreeSet::new();
    for (position, fact) in events.iter() {
        if let Fact::TaskEnded { task_id, status: TaskStatus::DeadLetter, .. } = fact {
            dead.insert(task_id.as_str());
        }
        if let Fact::TaskSubmitted { task_id } = fact
            && !dead.remove(task_id.as_str())
            && seen.insert(task_id.as_str(), position.0).is_some()
        {
            return Err(format!("{task_id} was submitted again at {position:?}"));
        }
    }
    for submission in submissions.all.values() {
        if let Told::Acknowledged { task_id, index, .. } = &submission.told
            && seen.get(task_id.as_str()).is_none_or(|at| at > index)
        {
            let at = seen.get(task_id.as_str());
            return Err(format!("{task_id} was acknowledged at {index}, and stands at {at:?}"));
        }
    }
    Ok(())
}
