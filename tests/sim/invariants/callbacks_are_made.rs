//! Whoever asked to be told of the end of a task is told, at least once, and of how it ended; every end
//! has one number, by which repetitions are told apart.
//!
//! Source: issue 4, "callbacks and alerts (at least once, one per transition)"; contract 6, row 12.

use std::collections::BTreeMap;

use quorate::model::TaskId;
use quorate::state::Fact;

use super::Submissions;
use super::events_are_the_same::Events;

/// What was told of one task: by number, in words.
type Told = BTreeMap<u64, String>;

#[derive(Default)]
pub(super) struct Callbacks(BTreeMap<TaskId, Told>);

impl Callbacks {
    pub(super) fn posted(
        &mut self,
        delivery_id: u64,
        task_id: &str,
        status: &str,
    ) -> Result<(), String> {
        let told = self.0.entry(TaskId::trusted(task_id)).or_default();
        let known = told.entry(delivery_id).or_insert_with(|| status.to_owned());
        if known == status {
            return Ok(());
        }
        Err(format!("delivery {delivery_id} told that {task_id} is {known}, then {status}"))
    }

    /// When nothing is due any more.
    pub(super) fn check(&self, submissions: &Submissions, events: &Events) -> Result<(), String> {
        let mut ends: BTreeMap<&TaskId, Vec<&str>> = BTreeMap::new();
        for (_, fact) in events.iter() {
            if let Fact::TaskEnded { task_id, status, .. } = fact
                && submissions.spec_of(task_id).is_some_and(|spec| spec.callback_url.is_some())
            {
                ends.entry(task_id).or_default().push(status.as_str());
            }
        }
        for (&task_id, ends) in &ends {
            let told: Vec<&str> = self
                .0
                .get(task_id)
                .map_or_else(Vec::new, |told| told.values().map(String::as_str).collect());
            if told != *ends {
                return Err(format!("{task_id} ended as {ends:?}, and {told:?} was told"));
            }
        }
        match self.0.keys().find(|task_id| !ends.contains_key(task_id)) {
            Some(task_id) => Err(format!("{task_id} has not ended, or nobody asked for its end")),
            None => Ok(()),
        }
    }
}
