//! A submission that was acknowledged is on every member in the end.
//!
//! Source: Raft, figure 3, Leader Completeness; NATS 2.12.1 (Jepsen, 2025) as the warning.

use std::collections::BTreeMap;

use quorate::cluster::Cluster;
use quorate::model::{Payload, RequestId, TaskId};
use quorate::state::{Command, TaskSpec, derive_task_id};
use serde_json::Value;

use crate::clients::MARKER;

/// What a client was told of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing yet, or that nobody knows.
    Unknown,
    /// It is in the log, not after this index.
    Acknowledged { task_id: TaskId, index: u64, duplicate: bool },
    /// It certainly is not.
    NotStarted,
    /// It is in the log, and was refused there for good.
    Refused,
}

/// One submission, under a marker of its own.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    pub(crate) request_id: RequestId,
    pub(crate) command: Command,
    /// Whether the client chose the id.
    pub(crate) named: bool,
    pub(crate) told: Told,
    /// Tries that have no answer yet, or never will.
    pub(crate) in_flight: u32,
    /// A try was answered with "nobody knows".
    pub(crate) maybe: bool,
}

/// Everything clients submitted.
#[derive(Default)]
pub(crate) struct Submissions {
    pub(crate) all: BTreeMap<String, Submission>,
    /// Markers in the order of their acknowledgements.
    pub(crate) acknowledged: Vec<String>,
    /// By the ids that their tasks have, if there are any.
    markers: BTreeMap<TaskId, String>,
}

impl Submissions {
    /// A client sends a request for the first time.
    pub(crate) fn began(
        &mut self,
        marker: &str,
        request_id: RequestId,
        command: Command,
        named: bool,
    ) {
        let (told, maybe) = (Told::Unknown, false);
        let submission = Submission { request_id, command, named, told, in_flight: 1, maybe };
        if let Command::SubmitTasks(specs) = &submission.command {
            let given = specs.first().and_then(|spec| spec.task_id.clone());
            let task_id = given.unwrap_or_else(|| derive_task_id(request_id, 0, 12));
            self.markers.insert(task_id, marker.to_owned());
        }
        self.all.insert(marker.to_owned(), submission);
    }

    /// What was asked for under this id.
    pub(crate) fn spec_of(&self, task_id: &TaskId) -> Option<&TaskSpec> {
        let submission = self.all.get(self.markers.get(task_id)?)?;
        match &submission.command {
            Command::SubmitTasks(specs) => specs.first(),
            _ => None,
        }
    }

    /// A client sends it again.
    pub(crate) fn again(&mut self, marker: &str) -> Option<(RequestId, Command)> {
        let submission = self.all.get_mut(marker)?;
        submission.in_flight += 1;
        if submission.told == Told::NotStarted {
            submission.told = Told::Unknown;
        }
        Some((submission.request_id, submission.command.clone()))
    }
}

/// The tasks of a member by the marker that their submission gave them.
pub(super) fn by_marker(member: &Cluster) -> BTreeMap<String, Vec<TaskId>> {
    member.view().read(|state| {
        let mut tasks: BTreeMap<String, Vec<TaskId>> = BTreeMap::new();
        for task in state.tasks_after(0) {
            let Payload::Inline(said) = &task.metadata else { continue };
            let said: Value = serde_json::from_str(said).unwrap_or_default();
            let marker = said[MARKER].as_str().unwrap_or_default().to_owned();
            tasks.entry(marker).or_default().push(task.task_id.clone());
        }
        tasks
    })
}

pub(super) fn check(
    submissions: &Submissions,
    tasks: &BTreeMap<String, Vec<TaskId>>,
) -> Result<(), String> {
    for (marker, submission) in &submissions.all {
        if let Told::Acknowledged { task_id, index, .. } = &submission.told
            && !tasks.get(marker).is_some_and(|ids| ids.contains(task_id))
        {
            return Err(format!("{task_id} of {marker}, acknowledged at {index}, is gone"));
        }
    }
    Ok(())
}
