//! Of the tasks that share a rate, never more are started in any window of time than it allows, whoever
//! leads and whatever was planned: by the events of the whole run, in the time of the state.
//!
//! Source: issue 4, "rate limits per key"; docs/api.md, `rate_limit`: every try of a task counts when it
//! is placed, of a task in steps its first step alone.

use std::collections::BTreeMap;

use quorate::model::TimeMs;
use quorate::state::Fact;

use super::Submissions;
use super::events_are_the_same::Events;

/// Gives how many starts were counted.
pub(super) fn check_events(submissions: &Submissions, events: &Events) -> Result<u64, String> {
    let mut starts: BTreeMap<&str, Vec<TimeMs>> = BTreeMap::new();
    for (at, fact) in events.iter() {
        let (task_id, in_steps) = match fact {
            Fact::TaskAssigned { task_id, .. } => (task_id, false),
            Fact::TaskStarted { task_id, .. } => (task_id, true),
            _other_facts => continue,
        };
        let spec = submissions.spec_of(task_id).filter(|spec| spec.flow.is_some() == in_steps);
        let Some(limit) = spec.and_then(|spec| spec.rate.as_ref()) else { continue };
        let now = events.time_of(at);
        let starts = starts.entry(&limit.key).or_default();
        starts.push(now);
        let before = starts.len().checked_sub(limit.max as usize + 1).map(|place| starts[place]);
        if before.is_some_and(|before| now < before.saturating_add(limit.per_ms)) {
            let (max, key, per_ms) = (limit.max, &limit.key, limit.per_ms);
            return Err(format!("at {at:?} {key} has over {max} starts within {per_ms} ms"));
        }
    }
    Ok(starts.values().map(|starts| starts.len() as u64).sum())
}

#[test]
fn a_start_too_soon_is_found() {
    use quorate::model::{NodeId, RateLimit, RequestId, TaskId};
    use quorate::state::{Command, TaskSpec};

    let mut submissions = Submissions::default();
    for name in ["a", "b", "c"] {
        let rate = RateLimit { key: "r".to_owned(), max: 2, per_ms: 100 };
        let task_id = Some(TaskId::trusted(name));
        let spec = TaskSpec { task_id, rate: Some(rate), ..TaskSpec::default() };
        let command = Command::SubmitTasks(vec![spec]);
        submissions.began(name, RequestId(1), command, true);
    }
    let placed = |name: &str| Fact::TaskAssigned {
        task_id: TaskId::trusted(name),
        node_id: NodeId::trusted("n"),
        attempt: 1,
    };
    let check = |times: [TimeMs; 3]| {
        let facts = times.into_iter().zip(["a", "b", "c"].map(placed));
        check_events(&submissions, &Events::made_at(facts))
    };
    assert_eq!(check([0, 0, 100]), Ok(3));
    assert_eq!(check([0, 50, 149]), Ok(3));
    assert!(check([0, 50, 99]).is_err());
    assert!(check([0, 0, 0]).is_err());
}
