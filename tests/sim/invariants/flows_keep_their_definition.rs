//! A task keeps the definition that held when it was accepted, to its end, over failovers and when it is
//! tried again; what is defined or taken back later is for later tasks. Every task that came between
//! two changes of a pipeline follows the same definition, and none follows one that was replaced.
//!
//! Source: contract 4.4; issue 4, steps survive any failover. Temporal calls a flow that changes its
//! definition under way a nondeterminism error.

use std::collections::{BTreeMap, BTreeSet};

use quorate::model::{Flow, FlowMode, Pipeline, StepSpec, TaskId, TaskStatus};
use quorate::state::{Fact, FlowRequest, State, built_in};
use quorate::storage::EventPosition;

use super::Submissions;
use super::events_are_the_same::Events;

/// How the steps of a task hang together, and what they are.
pub(super) type Held = (FlowMode, Vec<StepSpec>);
/// Which definition: the name its client gave it, or none for what is built in.
type Name = Option<String>;

#[derive(Default)]
pub(super) struct Definitions {
    /// Everything that was ever offered, by name.
    all: BTreeMap<String, Pipeline>,
    /// What authors were told: not after which index their change of a type took effect.
    told: BTreeMap<(String, u64), Vec<Name>>,
    /// Types that somebody may have taken back without knowing it.
    maybe_taken_back: BTreeSet<String>,
    /// What each task follows, as it was first seen.
    held: BTreeMap<TaskId, Held>,
}

impl Definitions {
    /// An author is about to define a pipeline.
    pub(super) fn offered(&mut self, name: &str, pipeline: &Pipeline) {
        self.all.insert(name.to_owned(), pipeline.clone());
    }

    /// An author was told that it is defined, or with no name, taken back.
    pub(super) fn told(&mut self, index: u64, task_type: &str, name: Option<&str>) {
        let key = (task_type.to_owned(), index);
        self.told.entry(key).or_default().push(name.map(str::to_owned));
    }

    pub(super) fn maybe_taken_back(&mut self, task_type: &str) {
        self.maybe_taken_back.insert(task_type.to_owned());
    }

    pub(super) fn of(&self, task_id: &TaskId) -> Option<&Held> {
        self.held.get(task_id)
    }

    /// Remembers what open tasks follow, and holds it against what they followed before.
    pub(super) fn note(&mut self, state: &State) -> Result<(), String> {
        for status in [TaskStatus::Waiting, TaskStatus::Stepping] {
            for task in state.tasks_by_status(status) {
                if let Some(flow) = &task.flow {
                    self.keeps(&task.task_id, flow)?;
                }
            }
        }
        Ok(())
    }

    fn keeps(&mut self, task_id: &TaskId, flow: &Flow) -> Result<(), String> {
        let specs = flow.steps.iter().map(|step| &step.spec);
        let Some((mode, held)) = self.held.get(task_id) else {
            self.held.insert(task_id.clone(), (flow.mode, specs.cloned().collect()));
            return Ok(());
        };
        if *mode == flow.mode && specs.eq(held) {
            return Ok(());
        }
        Err(format!("{task_id} followed {mode:?} {held:?}, and follows {flow:?}"))
    }

    /// In the end, for every task that is there: it is what its definition says.
    pub(super) fn check_end(
        &mut self,
        submissions: &Submissions,
        state: &State,
    ) -> Result<(), String> {
        for task in state.tasks_after(0) {
            let Some(flow) = &task.flow else { continue };
            self.keeps(&task.task_id, flow)?;
            let Some(FlowRequest::Pipeline { mode }) =
                submissions.spec_of(&task.task_id).and_then(|spec| spec.flow.as_ref())
            else {
                continue;
            };
            let name = name_of(&flow.steps[0].spec);
            let defined = match &name {
                Some(name) => self.all.get(name),
                None => built_in().iter().find(|built| built.task_type == task.task_type),
            };
            let Some(defined) = defined.filter(|defined| defined.task_type == task.task_type)
            else {
                return Err(format!("{} follows {name:?}, not of its type", task.task_id));
            };
            let due = Flow::new(mode.unwrap_or(defined.mode), defined.steps.clone());
            let specs = |flow: &Flow| flow.steps.iter().map(|step| step.spec.clone()).collect();
            let (due_specs, specs): (Vec<_>, Vec<_>) = (specs(&due), specs(flow));
            if due.mode != flow.mode || due_specs != specs {
                return Err(format!("{} is to follow {due:?}: {flow:?}", task.task_id));
            }
        }
        Ok(())
    }

    /// By the events of the whole run: which definition held when.
    pub(super) fn check_events(
        &self,
        submissions: &Submissions,
        events: &Events,
    ) -> Result<(), String> {
        // By type: when it changed last, and what tasks followed since, if there were any.
        let mut now: BTreeMap<&str, (EventPosition, Option<Name>)> = BTreeMap::new();
        let mut replaced: BTreeSet<(&str, String)> = BTreeSet::new();
        let mut seen: BTreeSet<&TaskId> = BTreeSet::new();
        for (at, fact) in events.iter() {
            match fact {
                Fact::PipelineChanged { task_type } => {
                    if let Some((_, Some(Some(old)))) = now.insert(task_type, (*at, None)) {
                        replaced.insert((task_type, old));
                    }
                }
                Fact::TaskSubmitted { task_id } if seen.insert(task_id) => {
                    let Some(spec) = submissions.spec_of(task_id) else { continue };
                    let (Some(FlowRequest::Pipeline { .. }), Some((_, held))) =
                        (&spec.flow, self.held.get(task_id))
                    else {
                        continue;
                    };
                    let name = name_of(&held[0]);
                    let task_type = spec.task_type.as_str();
                    let (since, holds) = now.entry(task_type).or_default();
                    let wrong = |what: &str| {
                        Err(format!("at {at:?} {task_id} follows {name:?} of {task_type}, {what}"))
                    };
                    if holds.as_ref().is_some_and(|holds| *holds != name) {
                        return wrong(&format!("and others since {since:?} {holds:?}"));
                    }
                    if let Some(name) = &name
                        && replaced.contains(&(task_type, name.clone()))
                    {
                        return wrong("which was replaced");
                    }
                    if self.differs(task_type, *since, &name) {
                        return wrong(&format!("and at {since:?} another was defined"));
                    }
                    *holds = Some(name);
                }
                _other_facts => {}
            }
        }
        Ok(())
    }

    /// Whether the change at a position is known to have been another one. Where somebody never
    /// learnt what came of a change, nothing is known for certain.
    fn differs(&self, task_type: &str, (index, _): EventPosition, name: &Name) -> bool {
        let Some([told]) = self.told.get(&(task_type.to_owned(), index)).map(Vec::as_slice) else {
            return false;
        };
        let certain = match name {
            Some(name) => self.told.values().flatten().flatten().any(|told| told == name),
            None => !self.maybe_taken_back.contains(task_type),
        };
        certain && told != name
    }
}

/// The name that a definition gave its steps.
fn name_of(step: &StepSpec) -> Name {
    step.name.split_once('-').map(|(name, _)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use quorate::model::RequestId;
    use quorate::state::{Command, TaskSpec};

    use super::*;

    fn defined(name: &str) -> Pipeline {
        let steps = vec![StepSpec { name: format!("{name}-s0"), ..StepSpec::default() }];
        let (task_type, mode) = ("pipe".to_owned(), FlowMode::Parallel);
        Pipeline { task_type, mode, estimate_ms: 0, steps }
    }

    /// Definitions `v1` and `v2`, made at 1 and at 3; of the tasks each name stands for one.
    fn check(facts: &[&str]) -> Result<(), String> {
        let (mut definitions, mut submissions) = (Definitions::default(), Submissions::default());
        definitions.told(1, "pipe", Some("v1"));
        definitions.told(3, "pipe", Some("v2"));
        let changed = || Fact::PipelineChanged { task_type: "pipe".to_owned() };
        let facts = (0u128..).zip(facts).map(|(at, name)| {
            let task_id = TaskId::trusted(&format!("t{at}"));
            let spec = TaskSpec {
                task_id: Some(task_id.clone()),
                task_type: "pipe".to_owned(),
                flow: Some(FlowRequest::Pipeline { mode: None }),
                ..TaskSpec::default()
            };
            if *name == "change" {
                return changed();
            }
            let command = Command::SubmitTasks(vec![spec]);
            submissions.began(task_id.as_str(), RequestId(at), command, true);
            let held = (FlowMode::Parallel, defined(name).steps);
            definitions.held.insert(task_id.clone(), held);
            Fact::TaskSubmitted { task_id }
        });
        let events = Events::made(facts.collect::<Vec<_>>());
        definitions.check_events(&submissions, &events)
    }

    #[test]
    fn a_task_that_follows_what_did_not_hold_is_found() {
        assert_eq!(check(&["change", "v1", "change", "v2", "v2"]), Ok(()));
        assert!(check(&["change", "v1", "change", "v1"]).is_err(), "it was replaced");
        assert!(check(&["change", "v2"]).is_err(), "another one was defined at 1");
        assert!(check(&["change", "v1", "change", "v2", "v1"]).is_err(), "others follow another");
    }

    #[test]
    fn a_flow_that_changes_under_way_is_found() {
        let mut definitions = Definitions::default();
        let task_id = TaskId::trusted("t");
        let flow = |name: &str| Flow::new(FlowMode::Parallel, defined(name).steps);
        assert_eq!(definitions.keeps(&task_id, &flow("v1")), Ok(()));
        assert_eq!(definitions.keeps(&task_id, &flow("v1")), Ok(()));
        assert!(definitions.keeps(&task_id, &flow("v2")).is_err());
    }
}
