//! Steps that no agent is there for: the plans of the scheduler give them back (contract 4.5).

use std::time::Duration;

use tokio::time::Instant;

use super::eligible::{Taken, gates};
use super::scheduler::{Plan, PlanInputs, PlanLimits};
use crate::model::Task;
use crate::state::{Head, QueueKey, State, StepRefusal};

/// Steps given back in one plan, of all kinds.
pub(super) const REFUSALS_MAX: usize = 256;
/// In a full fleet all groups are walked through for steps that nobody serves, at most so often where
/// that takes several plans. Where one is enough, each plan does it: that at most doubles its looks.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The walks for refusals alone, from plan to plan.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    /// The last group looked at by one that goes on.
    pub(super) at: Option<Head>,
    /// When the last one began that took several plans.
    began: Option<Instant>,
}

impl Sweeps {
    /// Whether no walk is to begin now.
    pub(super) fn rest(&self, now: Instant) -> bool {
        self.at.is_none() && self.began.is_some_and(|began| now - began < SWEEP_EVERY)
    }

    /// Takes note of how far the plan that began `now` came.
    pub(super) fn note(&mut self, at: Option<Head>, now: Instant) {
        if self.at.is_none() && at.is_some() {
            self.began = Some(now);
        }
        self.at = at;
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::scheduler::plan;
    use crate::leader::solo::Solo;
    use crate::model::{Concurrency, FlowMode, StepSpec, Urgency};
    use crate::state::{Command, FlowRequest};

    const LIMITS: PlanLimits = PlanLimits { assignments_max: 10, groups_max: 3 };

    /// A full fleet, and so many kinds of tasks that wait for it.
    fn full(kinds: usize) -> std::sync::Arc<Solo> {
        let solo = Solo::new();
        solo.register("n", |spec| spec.capacity = 1);
        solo.submit("first", |spec| spec.urgency = Urgency::clamped(100));
        let plan = plan(&solo.state.read(), &PlanInputs::default(), LIMITS);
        let epoch = solo.state.read().epoch();
        solo.commit(Command::AssignTasks { epoch, assignments: plan.assignments }).unwrap();
        for kind in 0..kinds {
            solo.submit(&format!("t{kind}"), |spec| {
                spec.concurrency = Some(Concurrency { key: format!("tenant {kind}"), max: 9 });
            });
        }
        solo
    }

    /// A step behind all those, of a kind that no agent is of.
    fn unserved(solo: &Solo, name: &str) {
        solo.submit(name, |spec| {
            let agent_type = format!("kind {name}");
            let step = StepSpec { name: name.to_owned(), agent_type, ..StepSpec::default() };
            let steps = vec![step];
            spec.urgency = Urgency::clamped(1);
            spec.flow = Some(FlowRequest::Steps { mode: FlowMode::Parallel, steps });
        });
    }

    /// Makes one plan as the duty does; gives how many steps it gives back, and whether another one
    /// is to follow at once.
    fn go_round(solo: &Solo, sweeps: &mut Sweeps, now: Instant) -> (usize, bool) {
        let rests = sweeps.rest(now);
        let inputs = PlanInputs { swept: sweeps.at, rests, ..PlanInputs::default() };
        let plan = plan(&solo.state.read(), &inputs, LIMITS);
        sweeps.note(plan.swept, now);
        let (epoch, refusals) = (solo.state.read().epoch(), plan.refusals);
        let refused = refusals.len();
        if refused > 0 {
            solo.commit(Command::RefuseSteps { epoch, refusals }).unwrap();
        }
        (refused, plan.more)
    }

    #[test]
    fn a_walk_of_several_plans_begins_once_a_second_at_most() {
        let (solo, mut sweeps, began) = (full(10), Sweeps::default(), Instant::now());
        let mut go_on = |solo: &Solo, now: Instant| {
            let mut plans = vec![go_round(solo, &mut sweeps, now)];
            while let Some((_, true)) = plans.last() {
                plans.push(go_round(solo, &mut sweeps, now));
            }
            (plans.len(), plans.iter().map(|(refused, _)| refused).sum::<usize>())
        };
        unserved(&solo, "a");
        let (plans, refused) = go_on(&solo, began);
        assert_eq!((plans > 1, refused), (true, 1), "{plans}");
        unserved(&solo, "b");
        let later = |ms: u64| began + Duration::from_millis(ms);
        assert_eq!(go_on(&solo, later(0)), (1, 0), "all were looked at a moment ago");
        assert_eq!(go_on(&solo, later(999)), (1, 0));
        assert_eq!(go_on(&solo, later(1000)), (plans, 1));
        unserved(&solo, "c");
        assert_eq!(go_on(&solo, later(1999)), (1, 0), "it counts from the last one that began");
        assert_eq!(go_on(&solo, later(2000)), (plans, 1));
    }

    #[test]
    fn a_walk_that_one_plan_is_enough_for_is_made_by_each() {
        let (solo, mut sweeps, now) = (full(4), Sweeps::default(), Instant::now());
        for name in ["a", "b", "c"] {
            unserved(&solo, name);
            assert_eq!(go_round(&solo, &mut sweeps, now), (1, false), "{name}");
        }
    }
}
