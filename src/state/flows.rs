//! Flows: tasks that are done in steps (contract 4.5), each of which is a task of its own.
//!
//! The task keeps where its steps stand; what a step gave stays with the step's own task, and is put
//! together by whoever shows it. A step that has ended is never run again: what a failover, a lost
//! node or a retry repeats is the attempt of one step. When the task ends, its open steps end with it.

use super::apply::Txn;
use super::command::{FlowRequest, StepRefusal, TaskSpec};
use super::nodes::ExecutionEnd;
use super::{Fact, Outcome, Rejection, Reply, State};
use crate::model::{
    Epoch, Flow, FlowMode, LastTry, Node, NodeStatus, Requirements, STEPS_MAX, Step, StepOf,
    StepSpec, StepState, Task, TaskFailure, TaskId, TaskStatus, Verdict,
};

/// The longest time for one attempt of an agent that the pipeline does not limit (contract 4.6).
const AGENT_TIMEOUT_MS: u64 = 30_000;

/// The id of a step's own task. Clients cannot choose such an id: see [`is_step_id`].
#[must_use]
pub fn step_id(task_id: &TaskId, step: u16) -> TaskId {
    TaskId::trusted(&format!("{task_id}#{step}"))
}

/// Whether a task is the step of another, by its id: `#` and digits at the end are kept for steps.
#[must_use]
pub fn is_step_id(task_id: &TaskId) -> bool {
    let number = task_id.as_str().rsplit_once('#').map(|(_, number)| number);
    number.is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

impl State {
    /// The task of a step, if the step was ever opened and is retained.
    #[must_use]
    pub fn step_task(&self, task_id: &TaskId, step: u16) -> Option<std::borrow::Cow<'_, Task>> {
        self.task(&step_id(task_id, step))
    }

    /// Whether some agent of this kind is there to do work, now or when it has room.
    #[must_use]
    pub fn has_agent(&self, agent_type: &str) -> bool {
        let able = |node: &Node| {
            node.status == NodeStatus::Active && node.agent_type.as_deref() == Some(agent_type)
        };
        self.agents().any(able)
    }

    /// Whether a copy of the same task is, or was last, on this node.
    #[must_use]
    pub fn has_copy_on(&self, task: &Task, node_id: &crate::model::NodeId) -> bool {
        let Some(StepOf { task_id, step, .. }) = &task.step_of else { return false };
        let Some(parent) = self.open_task(task_id) else { return false };
        let Some(flow) = parent.flow.as_ref().filter(|flow| flow.mode == FlowMode::Copies) else {
            return false;
        };
        let others = (0..flow.steps.len() as u16).filter(|other| other != step);
        let holds = |other: u16| {
            let copy = self.open_task(&step_id(task_id, other))?;
            Some(copy.execution.as_ref()?.node_id == *node_id)
        };
        others.filter_map(holds).any(|here| here)
    }
}

impl Txn<'_> {
    /// The flow that a new task asks for.
    pub(super) fn flow_of(&self, spec: &mut TaskSpec) -> Result<Option<Flow>, Rejection> {
        let flow = match spec.flow.take() {
            None => return Ok(None),
            Some(FlowRequest::Pipeline { mode }) => self.pipeline_of(spec, mode)?,
            Some(FlowRequest::PipelineTried { mode, max_retries }) => {
                let mut flow = self.pipeline_of(spec, mode)?;
                flow.steps.iter_mut().for_each(|step| step.spec.max_retries = max_retries);
                flow
            }
            Some(FlowRequest::Steps { mode, steps }) => {
                check_steps(&steps).map_err(Rejection::InvalidFlow)?;
                Flow::new(mode, steps)
            }
            Some(FlowRequest::Copies { count }) => {
                let count = usize::from(count).clamp(1, STEPS_MAX);
                let copy = |number: usize| StepSpec {
                    name: format!("copy-{}", number + 1),
                    max_retries: spec.max_retries,
                    ..StepSpec::default()
                };
                Flow::new(FlowMode::Copies, (0..count).map(copy).collect())
            }
        };
        // What its steps may use up together; the view counts them together, too.
        let retries = flow.steps.iter().map(|step| step.spec.max_retries);
        spec.max_retries = retries.fold(0, u32::saturating_add);
        Ok(Some(flow))
    }

    /// The flow of a task as the pipeline of its type says.
    fn pipeline_of(&self, spec: &TaskSpec, mode: Option<FlowMode>) -> Result<Flow, Rejection> {
        let unknown = || Rejection::UnknownTaskType { task_type: spec.task_type.clone() };
        let pipeline = self.state.pipeline(&spec.task_type).ok_or_else(unknown)?;
        Ok(Flow::new(mode.unwrap_or(pipeline.mode), pipeline.steps.clone()))
    }

    /// Opens every step that may begin.
    pub(super) fn open_steps(&mut self, task_id: &TaskId) {
        let Some(task) = self.state.open_task(task_id) else { return };
        let Some(flow) = &task.flow else { return };
        let ready = flow.ready();
        if ready.is_empty() {
            return;
        }
        let mut opened = Vec::with_capacity(ready.len());
        for step in &ready {
            let task = self.step_row(task_id, *step);
            opened.push(task.task_id.clone());
            self.state.insert_task(task);
        }
        self.edit_task(task_id, |task| {
            if let Some(flow) = &mut task.flow {
                for step in &ready {
                    flow.steps[usize::from(*step)].state = StepState::Open;
                }
            }
        });
        self.facts.push(Fact::StepsOpened { task_id: task_id.clone(), steps: opened });
    }

    fn step_row(&mut self, task_id: &TaskId, step: u16) -> Task {
        self.state.edit_counters(|counters| counters.last_seq += 1);
        let seq = self.state.counters().last_seq;
        let task = self.state.open_task(task_id).expect("the caller found the task");
        let flow = task.flow.as_ref().expect("only flows have steps");
        let Step { spec, attempt, .. } = &flow.steps[usize::from(step)];
        let attempt = *attempt;
        let by_agents = !spec.agent_type.is_empty();
        let requirements = if by_agents {
            Requirements { agent_type: Some(spec.agent_type.clone()), ..Requirements::default() }
        } else {
            task.requirements.clone()
        };
        let timeout_ms = match spec.timeout_ms {
            0 if by_agents => task.timeout_ms.min(AGENT_TIMEOUT_MS),
            0 => task.timeout_ms,
            given => given.min(task.timeout_ms),
        };
        // Once the task has its place, and has begun, its steps need neither.
        let concurrency = task.concurrency.clone().filter(|_| !task.holds_place());
        let rate = task.rate.clone().filter(|_| !task.holds_place());
        Task {
            task_type: if by_agents { spec.agent_type.clone() } else { task.task_type.clone() },
            urgency: task.urgency,
            requirements,
            timeout_ms,
            max_retries: spec.max_retries,
            attempt,
            concurrency,
            rate,
            step_of: Some(StepOf {
                task_id: task_id.clone(),
                step,
                submitted_at_ms: task.created_at_ms,
            }),
            ..Task::blank(step_id(task_id, step), seq, self.now, self.index)
        }
    }

    /// A step was placed for the first time: its task is under way, and holds the place that its
    /// other steps then need no more.
    pub(super) fn begin_flow(&mut self, task_id: &TaskId) {
        let Some(task) = self.state.open_task(task_id) else { return };
        if task.status != TaskStatus::Waiting {
            return;
        }
        let len = task.flow.as_ref().map_or(0, |flow| flow.steps.len()) as u16;
        let now = self.now;
        self.edit_task(task_id, |task| {
            task.status = TaskStatus::Stepping;
            task.started_at_ms = now;
            task.attempt = task.attempt.saturating_add(1);
        });
        let attempt = self.state.open_task(task_id).map_or(1, |task| task.attempt);
        for step in 0..len {
            let step = step_id(task_id, step);
            let limited = |step: &Task| step.concurrency.is_some() || step.rate.is_some();
            if self.state.open_task(&step).is_some_and(limited) {
                self.edit_task(&step, |step| (step.concurrency, step.rate) = (None, None));
            }
        }
        self.facts.push(Fact::TaskStarted { task_id: task_id.clone(), attempt });
    }

    /// A step's own task has ended: the next ones begin, or the whole is over.
    pub(super) fn step_ended(&mut self, of: &StepOf, status: TaskStatus) {
        let Some(task) = self.state.open_task(&of.task_id) else { return };
        if task.flow.is_none() {
            return;
        }
        let state = match status {
            TaskStatus::Completed => StepState::Completed,
            TaskStatus::Cancelled => StepState::Cancelled,
            TaskStatus::Failed | TaskStatus::TimedOut | TaskStatus::DeadLetter => StepState::Failed,
            TaskStatus::Pending
            | TaskStatus::Retrying
            | TaskStatus::Assigned
            | TaskStatus::Running
            | TaskStatus::Waiting
            | TaskStatus::Stepping => return,
        };
        let verdict = self.edit_task(&of.task_id, |task| {
            let flow = task.flow.as_mut()?;
            flow.steps.get_mut(usize::from(of.step))?.state = state;
            Some(flow.verdict())
        });
        match verdict {
            None => {}
            Some(Verdict::Going) if status == TaskStatus::Cancelled => {
                self.end_flow(&of.task_id, of.step, TaskStatus::Cancelled);
            }
            Some(Verdict::Going) => self.open_steps(&of.task_id),
            Some(Verdict::Completed) => {
                self.end_flow(&of.task_id, of.step, TaskStatus::Completed);
            }
            Some(Verdict::Failed(step)) => {
                let failed = self.state.step_task(&of.task_id, step).map(|step| step.status);
                let status = failed.unwrap_or(status);
                self.end_flow(&of.task_id, step, status);
            }
        }
    }

    /// Ends a flow because of one of its steps.
    fn end_flow(&mut self, task_id: &TaskId, step: u16, status: TaskStatus) {
        let ended = self.state.step_task(task_id, step);
        let last_try = ended.as_ref().map_or(LastTry::Other, |step| step.last_try);
        let (node_id, agent_id, error) = ended.map_or((None, None, None), |step| {
            let error = step.error.as_ref().map(|said| format!("{}: {said}", step.task_type));
            (step.node_id.clone(), step.agent_id.clone(), error)
        });
        let now = self.now;
        self.end_task(task_id, status, ExecutionEnd::Withdrawn, |task| {
            task.node_id = node_id;
            task.agent_id = agent_id;
            task.last_try = last_try;
            task.error = if status == TaskStatus::Completed { None } else { error };
            task.execution_ms = now.saturating_sub(task.started_at_ms.max(task.created_at_ms));
        });
    }

    /// Marks the open steps of a task that is about to end; gives their own tasks.
    pub(super) fn give_up_steps(&mut self, task_id: &TaskId) -> Vec<TaskId> {
        let flow = self.state.open_task(task_id).and_then(|task| task.flow.as_ref());
        let Some(flow) = flow else { return Vec::new() };
        let open: Vec<u16> = (0u16..)
            .zip(&flow.steps)
            .filter(|(_, step)| !step.state.is_over())
            .map(|(place, _)| place)
            .collect();
        if open.is_empty() {
            return Vec::new();
        }
        self.edit_task(task_id, |task| {
            if let Some(flow) = &mut task.flow {
                for place in &open {
                    flow.steps[usize::from(*place)].state = StepState::Cancelled;
                }
            }
        });
        open.into_iter().map(|step| step_id(task_id, step)).collect()
    }

    pub(super) fn refuse_steps(&mut self, epoch: Epoch, refusals: &[StepRefusal]) -> Reply {
        self.check_epoch(epoch)?;
        Self::check_batch(refusals.len())?;
        let (mut accepted, mut stale) = (0, 0);
        for refusal in refusals {
            if self.refuse_step(refusal) {
                accepted += 1;
            } else {
                stale += 1;
            }
        }
        Ok(Outcome::Judged { accepted, stale })
    }

    /// Counts as a failed try that no agent of its kind is there (contract 4.5).
    fn refuse_step(&mut self, refusal: &StepRefusal) -> bool {
        let Some(task) = self.state.open_task(&refusal.task_id) else { return false };
        if task.status != TaskStatus::Pending || task.revision != refusal.seen_revision {
            return false;
        }
        let Some(agent_type) = task.requirements.agent_type.clone() else { return false };
        if self.state.has_agent(&agent_type) {
            return false;
        }
        let error = format!("No available agents for type: {agent_type}");
        self.fail_attempt(&refusal.task_id, TaskFailure::Network, error, None);
        true
    }
}

/// Checks the steps of a definition.
///
/// # Errors
/// What is wrong with which step, for the client.
pub fn check_steps(steps: &[StepSpec]) -> Result<(), String> {
    if steps.is_empty() || steps.len() > STEPS_MAX {
        return Err(format!("steps must hold 1 to {STEPS_MAX} steps, not {}", steps.len()));
    }
    for (place, step) in steps.iter().enumerate() {
        let name = &step.name;
        if name.is_empty() || steps[..place].iter().any(|other| other.name == *name) {
            return Err(format!("steps[{place}]: every step needs a name of its own"));
        }
        if step.agent_type.is_empty() {
            return Err(format!("steps[{place}]: agent_type is required"));
        }
        if step.depends_on.iter().any(|on| usize::from(*on) >= place) {
            return Err(format!("steps[{place}]: depends_on names a step that is not before it"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::scripts::Script;

    #[test]
    fn contract_4_6_a_failed_step_waits_two_four_and_eight_seconds_and_then_fails_its_task() {
        let mut script = Script::default();
        let mut say = |line: &str| {
            let mut out = String::new();
            script.run(line, &mut out);
            let step = step_id(&TaskId::trusted("t"), 0);
            let step = script.state.task(&step).map(|step| (step.status, step.not_before_ms));
            (out, step, script.state.task(&TaskId::trusted("t")).map(|task| task.status))
        };
        let mut now = 1_000_000;
        for line in ["at 1000000", "epoch 1.1", "register agent:a agent=x", "submit t steps=x:3"] {
            say(line);
        }
        for (attempt, wait_ms) in [(1, 2000), (2, 4000), (3, 8000)] {
            assert!(say("assign 1.1 t#0 agent:a").0.contains("accepted: 1"), "{attempt}");
            let failed = format!("dispatch 1.1 t#0 {attempt} end fail=timeout");
            let (_, step, task) = say(&failed);
            assert_eq!(step, Some((TaskStatus::Retrying, now + wait_ms)), "{attempt}");
            assert_eq!(task, Some(TaskStatus::Stepping));
            now += wait_ms;
            say(&format!("at {now}"));
            say("expire 1.1 t#0 backoff");
        }
        say("assign 1.1 t#0 agent:a");
        let (_, _, task) = say("dispatch 1.1 t#0 4 end fail=timeout");
        assert_eq!(task, Some(TaskStatus::DeadLetter));
    }

    #[test]
    fn only_a_hash_and_digits_at_the_end_name_a_step() {
        for (text, is_step) in [
            ("t#0", true),
            ("t##12", true),
            ("a#1#2", true),
            ("t#", false),
            ("t#1x", false),
            ("#1t", false),
            ("build #7 of x", false),
            ("t", false),
        ] {
            assert_eq!(is_step_id(&TaskId::trusted(text)), is_step, "{text}");
        }
        let task_id = TaskId::trusted("odd#");
        assert!(is_step_id(&step_id(&task_id, 3)));
    }
}
