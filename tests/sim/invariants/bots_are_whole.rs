//! There are never more bots than there may be, whoever makes them where. A try of an assignment is
//! given to one worker; a later one has a higher number, and from then on the earlier one ends nothing. What was
//! completed counts once. While clocks agree, no two workers hold an assignment at a time, by their own
//! logs. A workflow's result is what its service answered, and no call is made more often than there
//! were reigns.
//!
//! Source: issue 6; docs/decisions/0009-swarms-are-derived.md; contract 5.3, 5.4.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate::model::{AssignmentPlace, Payload, Service, WorkflowStatus};
use quorate::state::{State, check_bots};

/// One try, as the worker that has it knows it.
#[derive(Debug, Clone)]
struct Held {
    /// Log index of the entry that gave it.
    index: u64,
    attempt: u32,
    /// By the clock of the worker.
    from: Duration,
    until: Duration,
}

/// What workers and services wrote down.
#[derive(Default)]
pub(super) struct Bots {
    leases: BTreeMap<AssignmentPlace, Vec<Held>>,
    /// By assignment: the index of the entry, and the try that was named.
    completed: BTreeMap<AssignmentPlace, (u64, u32)>,
    /// Completions of which nobody knows.
    maybe: u64,
    /// What services answered, by the key of the call.
    answers: BTreeMap<String, Vec<String>>,
}

impl Bots {
    /// A worker was given a try, which it may keep for a while.
    pub(super) fn leased(
        &mut self,
        index: u64,
        (place, attempt): (AssignmentPlace, u32),
        (from, until): (Duration, Duration),
    ) {
        self.leases.entry(place).or_default().push(Held { index, attempt, from, until });
    }

    /// A worker gives a try up, or stops before its end is told.
    pub(super) fn let_go(&mut self, (place, attempt): (AssignmentPlace, u32), now: Duration) {
        let held = self.leases.get_mut(&place).into_iter().flatten();
        for held in held.filter(|held| held.attempt == attempt) {
            held.until = held.until.min(now);
        }
    }

    /// A worker was told that its completion took effect.
    pub(super) fn completed(
        &mut self,
        index: u64,
        (place, attempt): (AssignmentPlace, u32),
    ) -> Result<(), String> {
        match self.completed.insert(place, (index, attempt)) {
            None => Ok(()),
            Some(first) => Err(format!("{place:?} was completed by {first:?} and {attempt}")),
        }
    }

    /// So many completions are sent: until they are answered, nobody knows.
    pub(super) fn completes(&mut self, count: u64) {
        self.maybe += count;
    }

    /// So many were answered, or certainly not begun.
    pub(super) fn knows_of_completions(&mut self, count: u64) {
        self.maybe -= count;
    }

    /// A service answered a call.
    pub(super) fn served(&mut self, key: &str, answer: &str) {
        self.answers.entry(key.to_owned()).or_default().push(answer.to_owned());
    }

    /// At any moment.
    pub(super) fn check(state: &State) -> Result<(), String> {
        let (bots, most) = (state.bots_len(), state.policy().bots_max);
        if bots > most { Err(format!("{bots} bots, of {most}")) } else { Ok(()) }
    }

    /// In the end, against any member.
    pub(super) fn check_end(&self, state: &State, reigns: u64) -> Result<(), String> {
        check_bots(state)?;
        let (known, counted) = (self.completed.len() as u64, state.bot_totals().completed);
        if counted < known || counted > known + self.maybe {
            let maybe = self.maybe;
            return Err(format!("{counted} completed, of {known} that are known, {maybe} unknown"));
        }
        self.check_workflows(state)?;
        let often = self.answers.iter().find(|(_, all)| all.len() as u64 > reigns);
        match often {
            Some((key, all)) => Err(format!("{key} was called {} times", all.len())),
            None => Ok(()),
        }
    }

    /// What workers wrote down; `clocks` says whether theirs agree with those of members.
    pub(super) fn check_log(&self, clocks: bool) -> Result<(), String> {
        for (place, all) in &self.leases {
            let mut all = all.clone();
            all.sort_by_key(|held| held.index);
            for pair in all.windows(2) {
                let [earlier, later] = pair else { continue };
                if earlier.index == later.index || earlier.attempt >= later.attempt {
                    return Err(format!("{place:?} was given twice: {pair:?}"));
                }
                if clocks && later.from < earlier.until {
                    return Err(format!("{place:?} was held by two: {pair:?}"));
                }
            }
            let Some((index, attempt)) = self.completed.get(place) else { continue };
            let newer = all.iter().find(|held| held.index < *index && held.attempt > *attempt);
            if let Some(newer) = newer {
                return Err(format!("try {attempt} ended {place:?} at {index}, after {newer:?}"));
            }
        }
        Ok(())
    }

    fn check_workflows(&self, state: &State) -> Result<(), String> {
        for (number, row) in state.workflows_after(0) {
            let done = row.position as usize;
            let right = match row.status {
                WorkflowStatus::Running => false,
                WorkflowStatus::Completed => done == row.tasks.len(),
                WorkflowStatus::Cancelled => done <= row.tasks.len(),
            };
            if !right {
                return Err(format!("workflow {number} is left: {row:?}"));
            }
            for (place, task) in row.tasks.iter().enumerate() {
                let told = match &task.result {
                    Payload::Inline(text) => text.as_str(),
                    Payload::Absent if place >= done => continue,
                    other => return Err(format!("task {place} of {number}: {other:?}")),
                };
                let key = format!("{}.{place}", state.workflow_id(number));
                let answers = self.answers.get(&key).map_or(&[][..], Vec::as_slice);
                let error = told.starts_with(r#"{"error":"#);
                let is_service = Service::of_type(&task.task_type).is_some();
                let right = place < done
                    && if is_service {
                        error || answers.iter().any(|answer| answer == told)
                    } else {
                        error && answers.is_empty()
                    };
                if !right {
                    return Err(format!("{key} was answered {answers:?}, and says {told}"));
                }
            }
        }
        Ok(())
    }
}

#[test]
fn what_is_held_or_counted_twice_is_found() {
    let place = AssignmentPlace { wave: 1, index: 7 };
    let s = Duration::from_secs;
    let with = |leases: &[(u64, u32, u64, u64)], end: Option<(u64, u32)>| {
        let mut bots = Bots::default();
        for (index, attempt, from, until) in leases {
            bots.leased(*index, (place, *attempt), (s(*from), s(*until)));
        }
        if let Some((index, attempt)) = end {
            bots.completed(index, (place, attempt)).unwrap();
        }
        bots
    };
    let fine = with(&[(5, 1, 0, 9), (8, 2, 10, 19)], Some((9, 2)));
    assert_eq!(fine.check_log(true), Ok(()));
    assert_eq!(with(&[(8, 2, 10, 19), (5, 1, 0, 9)], Some((6, 1))).check_log(true), Ok(()));
    let twice = with(&[(5, 1, 0, 9), (8, 1, 10, 19)], None);
    assert!(twice.check_log(true).unwrap_err().contains("given twice"));
    let mut both = with(&[(5, 1, 0, 11), (8, 2, 10, 19)], None);
    assert!(both.check_log(true).unwrap_err().contains("held by two"));
    assert_eq!(both.check_log(false), Ok(()));
    both.let_go((place, 1), s(10));
    assert_eq!(both.check_log(true), Ok(()));
    let stale = with(&[(5, 1, 0, 9), (8, 2, 10, 19)], Some((9, 1)));
    assert!(stale.check_log(true).unwrap_err().contains("try 1 ended"));
    let mut counted = with(&[], Some((9, 1)));
    assert!(counted.completed(12, (place, 2)).unwrap_err().contains("was completed by"));
}
